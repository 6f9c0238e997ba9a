//! What is in which set: everything in the cluster that has an address and labels, what
//! stands behind services, nodes, and what domain names resolved to; and the sets that
//! active rules name.
//!
//! Promises: a set holds the addresses of exactly what its description says, counted, as
//! the canonical cover; equal sets are one; a set lives while a rule refers to it. What
//! is remembered of a thing is an address, a number for its labels and its ports.
//!
//! Never: knows which rules need a set, or which endpoints are local.

mod sources;

use crate::interner::{Interner, Word};
use crate::labels::{Index, LabelSetId, SelectorId};
use crate::set::{SetSpec, SetState};
use crate::slab::Slab;
use desired::{Delta, SetChange, SetId};
use model::{Labels, NamedPort, NetworkSetKey, ProfileId, WorkloadKey};
use net::Cidr;
use rustc_hash::{FxHashMap, FxHashSet};
use smallvec::SmallVec;
use sources::Sources;
use std::collections::BTreeSet;
use std::sync::Arc;

/// A set by number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct SetIndex(u32);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct ItemId(u32);

/// Whose addresses they are.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Owner {
    /// A workload endpoint.
    Workload(WorkloadKey),
    /// A host endpoint.
    Host(Arc<str>),
    /// A network set.
    NetworkSet(NetworkSetKey),
}

/// The same with the words that many share as numbers.
#[derive(Debug, PartialEq, Eq, Hash)]
enum ItemKey {
    Workload {
        node: Word,
        orchestrator: Word,
        endpoint: Word,
        workload: Arc<str>,
    },
    Host(Arc<str>),
    NetworkSet(Box<NetworkSetKey>),
}

/// Something with addresses and labels.
#[derive(Debug)]
pub(crate) struct Thing<'a> {
    pub(crate) nets: SmallVec<[Cidr; 1]>,
    pub(crate) labels: &'a Labels,
    pub(crate) profiles: &'a [ProfileId],
    pub(crate) ports: &'a [NamedPort],
}

#[derive(Debug)]
pub(crate) struct Item {
    /// Sorted, each once.
    pub(crate) nets: SmallVec<[Cidr; 1]>,
    /// `None` when there are none.
    pub(crate) ports: Option<Arc<[NamedPort]>>,
    labels: LabelSetId,
}

impl Item {
    /// This with only the addresses that the other one does not have.
    fn without(&self, other: &Self) -> Self {
        let nets = self.nets.iter().copied();
        Self {
            nets: nets
                .filter(|n| other.nets.binary_search(n).is_err())
                .collect(),
            ports: self.ports.clone(),
            labels: self.labels,
        }
    }
}

/// Things, sets, and what is in them.
#[derive(Debug, Default)]
pub(crate) struct Members {
    index: Index,
    words: Interner,
    keys: FxHashMap<ItemKey, ItemId>,
    items: Slab<Item>,
    by_labels: BTreeSet<(LabelSetId, ItemId)>,
    ports: FxHashSet<Arc<[NamedPort]>>,
    sets: Slab<SetState>,
    by_id: FxHashMap<SetId, SetIndex>,
    by_selector: FxHashMap<SelectorId, SmallVec<[SetIndex; 2]>>,
    dirty: FxHashSet<SetIndex>,
    sources: Sources,
}

impl Members {
    /// Takes the new state of a thing; `None` when it is gone.
    pub(crate) fn update(&mut self, owner: &Owner, thing: Option<Thing<'_>>) {
        match thing {
            Some(thing) => self.put(owner, thing),
            None => self.remove(owner),
        }
    }

    fn put(&mut self, owner: &Owner, thing: Thing<'_>) {
        let mut nets = thing.nets;
        nets.sort_unstable();
        nets.dedup();
        nets.shrink_to_fit();
        let (labels, _) = self.index.acquire_labels(thing.labels, thing.profiles);
        let new = Item {
            nets,
            ports: self.share_ports(thing.ports),
            labels,
        };
        let key = self.key(owner);
        let Some(&id) = self.keys.get(&key) else {
            self.contribute(&new, true);
            let id = ItemId(self.items.insert(new));
            self.by_labels.insert((labels, id));
            self.keys.insert(key, id);
            return;
        };
        self.release_key(&key);
        let Some(old) = self.items.remove(id.0) else {
            return;
        };
        // What comes is added before what goes is taken away: what is in both never leaves a
        // set in between.
        if old.labels != labels || old.ports != new.ports {
            self.contribute(&new, true);
            self.contribute(&old, false);
        } else if old.nets != new.nets {
            self.contribute(&new.without(&old), true);
            self.contribute(&old.without(&new), false);
        }
        let again = ItemId(self.items.insert(new));
        debug_assert_eq!(
            id, again,
            "the place that was just left is the first to be taken"
        );
        if old.labels != labels {
            self.by_labels.remove(&(old.labels, id));
            self.by_labels.insert((labels, id));
        }
        self.release_item(old);
    }

    fn remove(&mut self, owner: &Owner) {
        let key = self.key(owner);
        if let Some(id) = self.keys.remove(&key)
            && let Some(old) = self.items.remove(id.0)
        {
            self.contribute(&old, false);
            self.by_labels.remove(&(old.labels, id));
            self.release_item(old);
            self.release_key(&key);
        }
        self.release_key(&key);
    }

    fn release_item(&mut self, item: Item) {
        self.index.release_labels(item.labels);
        // One reference is the pool's, one this item's.
        if let Some(ports) = item.ports
            && Arc::strong_count(&ports) == 2
        {
            self.ports.remove(&ports);
        }
    }

    fn share_ports(&mut self, ports: &[NamedPort]) -> Option<Arc<[NamedPort]>> {
        if ports.is_empty() {
            return None;
        }
        if let Some(shared) = self.ports.get(ports) {
            return Some(shared.clone());
        }
        let shared: Arc<[NamedPort]> = ports.into();
        self.ports.insert(shared.clone());
        Some(shared)
    }

    /// A key with a reference to each of its words.
    fn key(&mut self, owner: &Owner) -> ItemKey {
        match owner {
            Owner::Workload(w) => ItemKey::Workload {
                node: self.words.acquire(&w.node),
                orchestrator: self.words.acquire(&w.orchestrator),
                endpoint: self.words.acquire(&w.endpoint),
                workload: w.workload.clone(),
            },
            Owner::Host(name) => ItemKey::Host(name.clone()),
            Owner::NetworkSet(key) => ItemKey::NetworkSet(Box::new(key.clone())),
        }
    }

    fn release_key(&mut self, key: &ItemKey) {
        if let ItemKey::Workload {
            node,
            orchestrator,
            endpoint,
            ..
        } = key
        {
            for word in [node, orchestrator, endpoint] {
                self.words.release(*word);
            }
        }
    }

    /// Adds an item's members to the sets that it is in, or takes them out.
    fn contribute(&mut self, item: &Item, add: bool) {
        for selector in self.index.matches(item.labels) {
            for set in self.by_selector.get(selector).into_iter().flatten() {
                if let Some(state) = self.sets.get_mut(set.0)
                    && state.contribute(item, add)
                {
                    self.dirty.insert(*set);
                }
            }
        }
    }

    /// Takes the labels that a profile gives to inherit.
    pub(crate) fn set_profile(&mut self, id: &ProfileId, labels: Option<&Labels>) {
        for change in self.index.set_profile(id, labels) {
            let sets = self.by_selector.get(&change.selector);
            for set in sets.into_iter().flatten() {
                let Some(state) = self.sets.get_mut(set.0) else {
                    continue;
                };
                for item in children(&self.by_labels, change.set) {
                    let item = self.items.get(item.0);
                    if item.is_some_and(|i| state.contribute(i, change.matches)) {
                        self.dirty.insert(*set);
                    }
                }
            }
        }
    }

    /// The labels that a profile gives to inherit.
    pub(crate) fn profile(&self, id: &ProfileId) -> Option<Labels> {
        self.index.profile(id)
    }

    /// The set of a description, with one more reference to it.
    pub(crate) fn acquire_set(&mut self, spec: SetSpec) -> (SetIndex, SetId) {
        let id = spec.id();
        if let Some(&set) = self.by_id.get(&id) {
            if let Some(state) = self.sets.get_mut(set.0) {
                state.refs += 1;
            }
            return (set, id);
        }
        let selector = spec.selector().map(|s| self.index.acquire_selector(s));
        let mut state = SetState::new(id.clone(), spec, selector);
        for labels in selector.map_or_else(Vec::new, |s| self.index.matching(s)) {
            for item in children(&self.by_labels, labels) {
                if let Some(item) = self.items.get(item.0) {
                    state.contribute(item, true);
                }
            }
        }
        self.sources.fill(&mut state);
        let spec = state.spec.clone();
        let set = SetIndex(self.sets.insert(state));
        self.sources.register(&spec, set);
        self.by_id.insert(id.clone(), set);
        if let Some(selector) = selector {
            self.by_selector.entry(selector).or_default().push(set);
        }
        self.dirty.insert(set);
        (set, id)
    }

    /// Gives one reference back. A set without any goes with the next flush.
    pub(crate) fn release_set(&mut self, set: SetIndex) {
        if let Some(state) = self.sets.get_mut(set.0) {
            state.refs -= 1;
            if state.refs == 0 {
                self.dirty.insert(set);
            }
        }
    }

    /// Says what changed in the sets since the last flush.
    pub(crate) fn flush(&mut self, delta: &mut Delta) {
        for set in std::mem::take(&mut self.dirty) {
            let Some(state) = self.sets.get_mut(set.0) else {
                continue;
            };
            if state.refs > 0 {
                if let Some(change) = state.flush() {
                    delta.sets.insert(state.id.clone(), change);
                }
                continue;
            }
            let Some(state) = self.sets.remove(set.0) else {
                continue;
            };
            if state.emitted {
                delta.sets.insert(state.id.clone(), SetChange::Remove);
            }
            self.by_id.remove(&state.id);
            self.sources.forget(&state.spec, set);
            if let Some(selector) = state.selector {
                self.index.release_selector(selector);
                if let Some(sets) = self.by_selector.get_mut(&selector) {
                    sets.retain(|s| *s != set);
                    if sets.is_empty() {
                        self.by_selector.remove(&selector);
                    }
                }
            }
        }
        // Only now: the sets that went may have been the last to ask for a name.
        delta.domains = self.sources.take_domains();
    }
}

fn children(
    by_labels: &BTreeSet<(LabelSetId, ItemId)>,
    labels: LabelSetId,
) -> impl Iterator<Item = ItemId> {
    by_labels
        .range((labels, ItemId(0))..=(labels, ItemId(u32::MAX)))
        .map(|(_, i)| *i)
}
