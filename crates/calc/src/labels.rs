//! Which label sets which selectors match.
//!
//! Promises: things with equal labels and profiles share one label set, and a selector
//! is evaluated once per label set. Of a new label set only the selectors that its
//! labels make plausible are evaluated, of a new selector only the plausible label
//! sets, and of a profile's change only the selectors that speak of what changed.
//!
//! Never: knows what has the labels, or what the selectors are for.

mod probe;
mod test;
#[cfg(test)]
mod tests;

use crate::interner::{Interner, Word};
use crate::slab::Slab;
use model::{Labels, ProfileId, Selector};
use probe::Probe;
use rustc_hash::FxHashMap;
use smallvec::SmallVec;
use std::collections::BTreeSet;
use std::sync::Arc;
use test::Test;

/// A distinct combination of own labels and profiles.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct LabelSetId(pub(crate) u32);

/// A distinct selector.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct SelectorId(pub(crate) u32);

/// A selector began or ceased to match a label set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) set: LabelSetId,
    pub(crate) selector: SelectorId,
    pub(crate) matches: bool,
}

type Pairs = Box<[(Word, Word)]>;

#[derive(Debug, PartialEq, Eq, Hash)]
struct Content {
    /// Sorted by key word.
    own: Pairs,
    /// In the order of inheritance.
    parents: Box<[Word]>,
}

#[derive(Debug)]
struct LabelSet {
    content: Arc<Content>,
    refs: u32,
    /// Sorted.
    matches: Vec<SelectorId>,
}

#[derive(Debug)]
struct Registered {
    /// The canonical text.
    text: Word,
    test: Test,
    refs: u32,
    /// One of these holds for whatever the selector matches. Their words are the test's.
    probes: SmallVec<[Probe; 1]>,
}

/// Selectors by number; mostly one.
type Ids = SmallVec<[SelectorId; 2]>;

/// Label sets, profiles' labels and selectors, and what matches what.
#[derive(Debug, Default)]
pub(crate) struct Index {
    words: Interner,
    sets: Slab<LabelSet>,
    by_content: FxHashMap<Arc<Content>, LabelSetId>,
    by_pair: BTreeSet<(Word, Word, LabelSetId)>,
    by_parent: BTreeSet<(Word, LabelSetId)>,
    profiles: FxHashMap<Word, Pairs>,
    profiles_by_pair: BTreeSet<(Word, Word, Word)>,
    selectors: Slab<Registered>,
    by_text: FxHashMap<Word, SelectorId>,
    by_probe: FxHashMap<Probe, Ids>,
    by_mention: FxHashMap<Word, Ids>,
}

fn value(pairs: &[(Word, Word)], key: Word) -> Option<Word> {
    let i = pairs.binary_search_by_key(&key, |(k, _)| *k).ok()?;
    Some(pairs[i].1)
}

fn pairs(words: &mut Interner, labels: &Labels) -> Pairs {
    let mut out: Vec<(Word, Word)> = labels
        .iter()
        .map(|(k, v)| (words.acquire(k), words.acquire(v)))
        .collect();
    out.sort_unstable();
    out.into()
}

fn release_pairs(words: &mut Interner, pairs: &[(Word, Word)]) {
    for (k, v) in pairs {
        words.release(*k);
        words.release(*v);
    }
}

impl Index {
    /// The label set of these labels and profiles, with one more reference to it, and whether
    /// it is new. A new one's selectors are known at once.
    pub(crate) fn acquire_labels(
        &mut self,
        labels: &Labels,
        profiles: &[ProfileId],
    ) -> (LabelSetId, bool) {
        let content = Content {
            own: pairs(&mut self.words, labels),
            parents: profiles.iter().map(|p| self.words.acquire(p)).collect(),
        };
        if let Some(&id) = self.by_content.get(&content) {
            self.release_content(&content);
            if let Some(set) = self.sets.get_mut(id.0) {
                set.refs += 1;
            }
            return (id, false);
        }
        let content = Arc::new(content);
        let matches = self.evaluate_new(&content);
        let id = LabelSetId(self.sets.insert(LabelSet {
            content: content.clone(),
            refs: 1,
            matches,
        }));
        for (k, v) in &content.own {
            self.by_pair.insert((*k, *v, id));
        }
        for p in &content.parents {
            self.by_parent.insert((*p, id));
        }
        self.by_content.insert(content, id);
        (id, true)
    }

    /// Gives one reference back.
    pub(crate) fn release_labels(&mut self, id: LabelSetId) {
        let Some(set) = self.sets.get_mut(id.0) else {
            return;
        };
        set.refs -= 1;
        if set.refs > 0 {
            return;
        }
        let Some(set) = self.sets.remove(id.0) else {
            return;
        };
        for (k, v) in &set.content.own {
            self.by_pair.remove(&(*k, *v, id));
        }
        for p in &set.content.parents {
            self.by_parent.remove(&(*p, id));
        }
        self.by_content.remove(&set.content);
        self.release_content(&set.content);
    }

    fn release_content(&mut self, content: &Content) {
        release_pairs(&mut self.words, &content.own);
        for p in &content.parents {
            self.words.release(*p);
        }
    }

    /// Whether only one reference is left.
    pub(crate) fn is_last(&self, id: LabelSetId) -> bool {
        self.sets.get(id.0).is_some_and(|s| s.refs == 1)
    }

    /// The selectors that match a label set, sorted.
    pub(crate) fn matches(&self, id: LabelSetId) -> &[SelectorId] {
        self.sets.get(id.0).map_or(&[], |s| &s.matches)
    }

    /// Whether a selector holds of own labels and what they inherit.
    fn holds(&self, test: &Test, content: &Content) -> bool {
        test.holds(&self.words, &|key| {
            value(&content.own, key).or_else(|| {
                let parents = content.parents.iter();
                parents
                    .filter_map(|p| self.profiles.get(p))
                    .find_map(|pairs| value(pairs, key))
            })
        })
    }

    fn evaluate_new(&self, content: &Content) -> Vec<SelectorId> {
        let inherited = content.parents.iter().filter_map(|p| self.profiles.get(p));
        let mut candidates: Vec<SelectorId> = Vec::new();
        for (k, v) in std::iter::once(&content.own).chain(inherited).flatten() {
            for probe in [Probe::Pair(*k, *v), Probe::Key(*k)] {
                candidates.extend(self.by_probe.get(&probe).into_iter().flatten());
            }
        }
        candidates.extend(self.by_probe.get(&Probe::Any).into_iter().flatten());
        candidates.sort_unstable();
        candidates.dedup();
        candidates.retain(|s| {
            let registered = self.selectors.get(s.0);
            registered.is_some_and(|r| self.holds(&r.test, content))
        });
        candidates.shrink_to_fit();
        candidates
    }

    /// Sets or removes the labels that things inherit from a profile.
    pub(crate) fn set_profile(&mut self, id: &ProfileId, labels: Option<&Labels>) -> Vec<Change> {
        let name = self.words.acquire(id);
        let new = labels.map_or_else(Pairs::default, |l| pairs(&mut self.words, l));
        let old = self.profiles.remove(&name).unwrap_or_default();
        for (k, v) in &old {
            self.profiles_by_pair.remove(&(*k, *v, name));
        }
        for (k, v) in &new {
            self.profiles_by_pair.insert((*k, *v, name));
        }
        let lost = old
            .iter()
            .map(|(k, v)| (*k, Some(*v), value(&new, *k)))
            .filter(|(_, before, after)| before != after);
        let gained = new
            .iter()
            .map(|(k, v)| (*k, value(&old, *k), Some(*v)))
            .filter(|(_, before, _)| before.is_none());
        let mut affected: Vec<SelectorId> = Vec::new();
        for (k, before, after) in lost.chain(gained) {
            let feels = |id: &&SelectorId| {
                let registered = self.selectors.get(id.0);
                registered.is_some_and(|r| match (before, after) {
                    (Some(before), Some(after)) => r.test.feels(&self.words, k, before, after),
                    // Where this profile says nothing, others may.
                    _ => true,
                })
            };
            let speak = self.by_mention.get(&k).into_iter().flatten();
            affected.extend(speak.filter(feels));
        }
        affected.sort_unstable();
        affected.dedup();
        // A profile with labels holds its name and its words; one without holds nothing.
        if !old.is_empty() {
            self.words.release(name);
        }
        let keep = !new.is_empty();
        if keep {
            self.profiles.insert(name, new);
        }
        let changes = self.evaluate_affected(name, &affected);
        release_pairs(&mut self.words, &old);
        if !keep {
            self.words.release(name);
        }
        changes
    }

    /// The labels of a profile.
    pub(crate) fn profile(&self, id: &ProfileId) -> Option<Labels> {
        let pairs = self.profiles.get(&self.words.find(id)?)?;
        let text = |w: &Word| self.words.text(*w);
        Some(Labels::new(pairs.iter().map(|(k, v)| (text(k), text(v)))))
    }

    fn evaluate_affected(&mut self, profile: Word, affected: &[SelectorId]) -> Vec<Change> {
        let mut out = Vec::new();
        if affected.is_empty() {
            return out;
        }
        for set in self.children(profile).collect::<Vec<_>>() {
            let Some(content) = self.sets.get(set.0).map(|s| s.content.clone()) else {
                continue;
            };
            for &selector in affected {
                let Some(registered) = self.selectors.get(selector.0) else {
                    continue;
                };
                let matches = self.holds(&registered.test, &content);
                if self.note(set, selector, matches) {
                    out.push(Change {
                        set,
                        selector,
                        matches,
                    });
                }
            }
        }
        out
    }

    /// Records whether a selector matches a label set; says whether that is news.
    fn note(&mut self, set: LabelSetId, selector: SelectorId, matches: bool) -> bool {
        let Some(set) = self.sets.get_mut(set.0) else {
            return false;
        };
        match (set.matches.binary_search(&selector), matches) {
            (Ok(i), false) => drop(set.matches.remove(i)),
            (Err(i), true) => set.matches.insert(i, selector),
            _ => return false,
        }
        true
    }

    fn children(&self, profile: Word) -> impl Iterator<Item = LabelSetId> {
        let (first, last) = (LabelSetId(0), LabelSetId(u32::MAX));
        self.by_parent
            .range((profile, first)..=(profile, last))
            .map(|(_, s)| *s)
    }

    /// The number of a selector, with one more reference to it. What it matches is known
    /// at once.
    pub(crate) fn acquire_selector(&mut self, selector: &Selector) -> SelectorId {
        let known = self.words.find(selector.as_str());
        if let Some(&id) = known.and_then(|text| self.by_text.get(&text)) {
            if let Some(r) = self.selectors.get_mut(id.0) {
                r.refs += 1;
            }
            return id;
        }
        let test = Test::new(&mut self.words, selector.expr());
        let probes = probe::choose(self, selector.expr());
        let text = self.words.acquire(selector.as_str());
        let labels = test.labels();
        let plausible = self.plausible(&probes);
        let id = SelectorId(self.selectors.insert(Registered {
            text,
            test,
            refs: 1,
            probes: probes.clone(),
        }));
        self.by_text.insert(text, id);
        for probe in probes {
            self.by_probe.entry(probe).or_default().push(id);
        }
        for word in labels {
            self.by_mention.entry(word).or_default().push(id);
        }
        for set in plausible {
            let matches = self.sets.get(set.0).is_some_and(|s| {
                let registered = self.selectors.get(id.0);
                registered.is_some_and(|r| self.holds(&r.test, &s.content))
            });
            if matches {
                self.note(set, id, true);
            }
        }
        id
    }

    /// Gives one reference back; with the last one the selector is forgotten.
    pub(crate) fn release_selector(&mut self, id: SelectorId) {
        let Some(r) = self.selectors.get_mut(id.0) else {
            return;
        };
        r.refs -= 1;
        if r.refs > 0 {
            return;
        }
        for set in self.matching(id) {
            self.note(set, id, false);
        }
        let Some(r) = self.selectors.remove(id.0) else {
            return;
        };
        self.by_text.remove(&r.text);
        self.words.release(r.text);
        for probe in &r.probes {
            forget(&mut self.by_probe, *probe, id);
        }
        for word in r.test.labels() {
            forget(&mut self.by_mention, word, id);
        }
        r.test.release(&mut self.words);
    }

    /// The label sets that a selector matches, in order.
    pub(crate) fn matching(&self, id: SelectorId) -> Vec<LabelSetId> {
        let Some(r) = self.selectors.get(id.0) else {
            return Vec::new();
        };
        let mut sets = self.plausible(&r.probes);
        sets.retain(|s| self.matches(*s).binary_search(&id).is_ok());
        sets
    }

    /// The label sets for which one of the probes may hold, in order.
    fn plausible(&self, probes: &[Probe]) -> Vec<LabelSetId> {
        let mut out: Vec<LabelSetId> = probes.iter().flat_map(|p| self.probed(*p)).collect();
        out.sort_unstable();
        out.dedup();
        out
    }

    fn probed(&self, probe: Probe) -> Box<dyn Iterator<Item = LabelSetId> + '_> {
        let (zero, most) = (Word(0), Word(u32::MAX));
        let (k, low, high) = match probe {
            Probe::Any => return Box::new(self.sets.indexes().map(LabelSetId)),
            Probe::Key(k) => (k, zero, most),
            Probe::Pair(k, v) => (k, v, v),
        };
        let own = self
            .by_pair
            .range((k, low, LabelSetId(0))..=(k, high, LabelSetId(u32::MAX)))
            .map(|(_, _, s)| *s);
        let inherited = self
            .profiles_by_pair
            .range((k, low, zero)..=(k, high, most))
            .flat_map(|(_, _, p)| self.children(*p));
        Box::new(own.chain(inherited))
    }

    #[cfg(test)]
    fn is_empty(&self) -> bool {
        self.sets.indexes().next().is_none()
            && self.selectors.indexes().next().is_none()
            && self.by_content.is_empty()
            && self.by_pair.is_empty()
            && self.by_parent.is_empty()
            && self.profiles.is_empty()
            && self.profiles_by_pair.is_empty()
            && self.by_probe.is_empty()
            && self.by_mention.is_empty()
            && self.words.is_empty()
    }
}

/// Takes a selector off the list of a key.
fn forget<K: Eq + std::hash::Hash>(map: &mut FxHashMap<K, Ids>, key: K, id: SelectorId) {
    if let std::collections::hash_map::Entry::Occupied(mut e) = map.entry(key) {
        if let Some(i) = e.get().iter().position(|s| *s == id) {
            e.get_mut().swap_remove(i);
        }
        if e.get().is_empty() {
            e.remove();
        }
    }
}
