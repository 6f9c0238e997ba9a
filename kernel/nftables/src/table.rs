//! The table we want and the table that is, kept side by side. Pure.
//!
//! Promises: nothing is stored twice; what changed is known, so that a plan need not look for
//! it; what is wanted survives whatever is learned about what is, and the other way round.
//! Never: opens a socket; guesses what the kernel did.

use crate::members::Members;
use crate::plan::{
    Dump, Incomplete, LiveBase, LiveChain, LiveRule, LiveSet, Object, Op, Phases, Plan, Receipt,
    RuleId, plan_chain, plan_set, same_chain, uses,
};
use crate::value::*;
use rustc_hash::{FxHashMap, FxHashSet};
use std::collections::BTreeSet;
use std::sync::Arc;

#[derive(Debug, Clone)]
pub(crate) struct WantedChain {
    pub(crate) base: Option<Base>,
    pub(crate) rules: Vec<(RuleId, Arc<Rule>)>,
}

#[derive(Debug, Default)]
pub(crate) struct ChainState {
    pub(crate) want: Option<WantedChain>,
    pub(crate) live: Option<LiveChain>,
}

impl ChainState {
    /// Whether a wanted rule jumps or goes to one of the chains.
    fn leads_to(&self, chains: &FxHashSet<&str>) -> bool {
        !chains.is_empty()
            && self.want.iter().flat_map(|w| &w.rules).any(|(_, r)| {
                matches!(&r.verdict, Some(Verdict::Jump(c) | Verdict::Goto(c))
                    if chains.contains(c.as_str()))
            })
    }

    /// Whether a wanted rule uses one of the sets.
    fn uses(&self, sets: &[&str]) -> bool {
        !sets.is_empty()
            && self
                .want
                .iter()
                .flat_map(|w| &w.rules)
                .any(|(_, r)| uses(r, sets))
    }
}

/// What is wanted is `live` without `del` and with `add`; nothing is stored twice. `add` has
/// nothing that is live, `del` nothing that is not. Where the set that is there is of another
/// kind than wanted, all that is wanted is in `add`.
#[derive(Debug, Default)]
pub(crate) struct SetState {
    pub(crate) want: Option<SetKind>,
    pub(crate) live: Option<LiveSet>,
    pub(crate) add: Members,
    pub(crate) del: Members,
}

/// From this many changes at once, one pass over all members is less work.
const MANY: usize = 32;

impl SetState {
    /// The live members that may be wanted.
    fn base(&self) -> Option<&Members> {
        let live = self.live.as_ref()?;
        (live.kind == self.want).then_some(&live.elements)
    }

    fn has(&self, e: &Element) -> bool {
        self.base().is_some_and(|b| b.contains(e))
    }

    /// Wants one member, or no longer.
    fn set(&mut self, e: &Element, on: bool) {
        match (self.has(e), on) {
            (true, true) => self.del.remove(e),
            (false, false) => self.add.remove(e),
            (false, true) => self.add.insert(e),
            (true, false) => self.del.insert(e),
        };
    }

    /// What a map's key shall have.
    fn wanted_by_key(&self, e: &Element) -> Option<Element> {
        self.add.of_same_key(e).or_else(|| {
            let old = self.base()?.of_same_key(e)?;
            (!self.del.contains(&old)).then_some(old)
        })
    }

    /// Wants these members and no others, of the kind that is wanted.
    fn set_all(&mut self, want: Members) {
        match self.base() {
            Some(base) => (self.del, self.add) = (base.but_not(&want), want.but_not(base)),
            None => (self.del, self.add) = (Members::new(want.kind()), want),
        }
    }

    /// Of a map; one by one, because what a key has must go before it gets another.
    fn change_map(&mut self, add: &[Element], del: &[Element]) {
        for e in del {
            if self.wanted_by_key(e).as_ref() == Some(e) {
                self.set(e, false);
            }
        }
        for e in add {
            if let Some(old) = self.wanted_by_key(e).filter(|old| old != e) {
                self.set(&old, false);
            }
            self.set(e, true);
        }
    }

    fn change(&mut self, kind: SetKind, add: Vec<Element>, del: Vec<Element>) {
        if kind.is_map() {
            return self.change_map(&add, &del);
        }
        if add.len() + del.len() <= MANY {
            del.iter().for_each(|e| self.set(e, false));
            return add.iter().for_each(|e| self.set(e, true));
        }
        let add = Members::collect(kind, add);
        // What comes and goes comes.
        let del = Members::collect(kind, del).but_not(&add);
        self.add = self.add.but_not(&del).or(&add);
        self.del = self.del.but_not(&add);
        if let Some(base) = self.base() {
            let gone = del.and(base);
            let new = self.add.but_not(base);
            (self.add, self.del) = (new, self.del.or(&gone));
        }
    }

    /// All that is wanted.
    pub(crate) fn wanted(&self) -> Members {
        match self.base() {
            Some(base) => base.but_not(&self.del).or(&self.add),
            None => self.add.clone(),
        }
    }

    /// The set must be deleted and made anew.
    pub(crate) fn recreate(&self) -> bool {
        match (&self.live, self.want) {
            (Some(l), Some(k)) => l.alien || l.kind != Some(k),
            _ => false,
        }
    }

    fn is_clean(&self) -> bool {
        match (&self.live, self.want) {
            (None, None) => true,
            (Some(_), Some(_)) => !self.recreate() && self.add.is_empty() && self.del.is_empty(),
            _ => false,
        }
    }
}

/// What a plan leaves as it is.
#[derive(Default)]
struct LeftOut<'a> {
    sets: FxHashSet<&'a Arc<str>>,
    chains: FxHashSet<&'a Arc<str>>,
    /// Of the chains those that are not there.
    absent: FxHashSet<&'a str>,
}

impl<'a> LeftOut<'a> {
    /// Begins with some objects, and adds what cannot be without them.
    fn of(table: &'a Table, objects: &BTreeSet<Object>) -> Self {
        let mut out = Self::default();
        if objects.is_empty() {
            return out;
        }
        for o in objects {
            match o {
                Object::Set(n) => out.sets.extend(table.sets.get_key_value(n).map(|(n, _)| n)),
                Object::Chain(n) => out
                    .chains
                    .extend(table.chains.get_key_value(n).map(|(n, _)| n)),
            }
        }
        let stale: Vec<&str> = out.sets.iter().map(|n| &***n).collect();
        for name in &table.dirty_chains {
            if let Some((name, state)) = table.chains.get_key_value(name)
                && state.uses(&stale)
            {
                out.chains.insert(name);
            }
        }
        loop {
            let chains = out.chains.iter();
            let absent = chains.filter(|n| table.chains.get(**n).is_some_and(|s| s.live.is_none()));
            out.absent = absent.map(|n| &***n).collect();
            let mut more = Vec::new();
            for name in &table.dirty_chains {
                if let Some((name, state)) = table.chains.get_key_value(name)
                    && !out.chains.contains(name)
                    && state.leads_to(&out.absent)
                {
                    more.push(name);
                }
            }
            if more.is_empty() {
                return out;
            }
            out.chains.extend(more);
        }
    }
}

/// One table: what is wanted, what the kernel holds, and where the two differ.
#[derive(Debug)]
pub struct Table {
    family: TableFamily,
    name: TableName,
    awake: bool,
    chains: FxHashMap<Arc<str>, ChainState>,
    sets: FxHashMap<Arc<str>, SetState>,
    dirty_chains: BTreeSet<Arc<str>>,
    dirty_sets: BTreeSet<Arc<str>>,
}

impl Table {
    /// A table of family `inet`; nothing wanted, nothing there.
    pub fn new(name: TableName) -> Self {
        Self::of(TableFamily::Inet, name)
    }

    /// A table of this family; nothing wanted, nothing there.
    pub fn of(family: TableFamily, name: TableName) -> Self {
        Self {
            family,
            name,
            awake: false,
            chains: FxHashMap::default(),
            sets: FxHashMap::default(),
            dirty_chains: BTreeSet::new(),
            dirty_sets: BTreeSet::new(),
        }
    }

    /// The table's name.
    pub const fn name(&self) -> &TableName {
        &self.name
    }

    /// Wants this chain, with these rules and no others.
    pub fn set_chain(&mut self, name: &ChainName, chain: Chain) {
        let key: Arc<str> = name.as_str().into();
        let state = self.chains.entry(key.clone()).or_default();
        // A rule that was wanted already has its id.
        let mut old: FxHashMap<Arc<Rule>, RuleId> = FxHashMap::default();
        if let Some(w) = state.want.take() {
            old.extend(w.rules.into_iter().map(|(id, r)| (r, id)));
        }
        let rules = chain
            .rules
            .into_iter()
            .map(|r| match old.get_key_value(&r) {
                Some((known, id)) => (*id, known.clone()),
                None => (RuleId::of(&r), Arc::new(r)),
            })
            .collect();
        state.want = Some(WantedChain {
            base: chain.base,
            rules,
        });
        self.dirty_chains.insert(key);
    }

    /// Wants the chain gone. Rules that jump there must be gone by the next plan.
    pub fn remove_chain(&mut self, name: &ChainName) {
        if let Some(state) = self.chains.get_mut(name.as_str()) {
            state.want = None;
            self.dirty_chains.insert(name.as_str().into());
        }
    }

    /// Wants this set, with these elements and no others. Work in proportion to the set. In a
    /// map, of several elements of one key the last counts.
    ///
    /// # Errors
    /// When an element is of another kind; nothing changes then.
    pub fn set_set(
        &mut self,
        name: &SetName,
        kind: SetKind,
        elements: impl IntoIterator<Item = Element>,
    ) -> Result<(), ValueError> {
        let mut wrong = Ok(());
        let fitting = elements.into_iter().map_while(|e| {
            wrong = check(name, kind, &e);
            wrong.is_ok().then_some(e)
        });
        let want = Members::collect(kind, fitting);
        wrong?;
        let key: Arc<str> = name.as_str().into();
        let state = self.sets.entry(key.clone()).or_default();
        state.want = Some(kind);
        state.set_all(want);
        self.dirty_sets.insert(key);
        Ok(())
    }

    /// Changes some elements: `del` first, then `add`. Adding what is there and deleting what is
    /// not changes nothing. In a map, adding an element whose key has another verdict
    /// replaces that; deleting one deletes its key only with the same verdict.
    ///
    /// # Errors
    /// When the set is not wanted, or an element is of another kind; nothing changes then.
    pub fn set_elems(
        &mut self,
        name: &SetName,
        add: impl IntoIterator<Item = Element>,
        del: impl IntoIterator<Item = Element>,
    ) -> Result<(), ValueError> {
        let unknown = || ValueError::UnknownSet(name.clone());
        let kind = self
            .sets
            .get(name.as_str())
            .and_then(|s| s.want)
            .ok_or_else(unknown)?;
        let (add, del): (Vec<_>, Vec<_>) = (add.into_iter().collect(), del.into_iter().collect());
        add.iter()
            .chain(&del)
            .try_for_each(|e| check(name, kind, e))?;
        let state = self.sets.get_mut(name.as_str()).ok_or_else(unknown)?;
        state.change(kind, add, del);
        self.dirty_sets.insert(name.as_str().into());
        Ok(())
    }

    /// Wants the set gone. Rules that use it must be gone by the next plan.
    pub fn remove_set(&mut self, name: &SetName) {
        if let Some(state) = self.sets.get_mut(name.as_str()) {
            state.want = None;
            state.add = Members::default();
            state.del = Members::default();
            self.dirty_sets.insert(name.as_str().into());
        }
    }

    /// Takes what the kernel holds as known, whatever was thought before. The next plan
    /// repairs all differences and touches nothing else.
    pub fn adopt(&mut self, dump: Dump) {
        self.awake = dump.awake;
        let mut live: FxHashMap<Arc<str>, LiveChain> = dump
            .chains
            .into_iter()
            .map(|(n, c)| (n.into(), c))
            .collect();
        for (name, state) in &mut self.chains {
            state.live = live.remove(name);
        }
        for (name, chain) in live {
            self.chains.insert(
                name,
                ChainState {
                    want: None,
                    live: Some(chain),
                },
            );
        }
        let mut live: FxHashMap<Arc<str>, LiveSet> =
            dump.sets.into_iter().map(|(n, s)| (n.into(), s)).collect();
        for (name, state) in &mut self.sets {
            let wanted = state.want.map(|_| state.wanted());
            state.live = live.remove(name);
            if let Some(wanted) = wanted {
                state.set_all(wanted);
            }
        }
        for (name, set) in live {
            let state = SetState {
                live: Some(set),
                ..SetState::default()
            };
            self.sets.insert(name, state);
        }
        self.dirty_chains = self.chains.keys().cloned().collect();
        self.dirty_sets = self.sets.keys().cloned().collect();
        self.settle();
    }

    /// Forgets the names that are neither wanted nor there, and cleans the dirt of those that
    /// are as wanted.
    fn settle(&mut self) {
        for name in std::mem::take(&mut self.dirty_chains) {
            let Some(state) = self.chains.get(&name) else {
                continue;
            };
            match (&state.want, &state.live) {
                (None, None) => drop(self.chains.remove(&name)),
                (Some(w), Some(l)) if same_chain(w, l) => {}
                _ => drop(self.dirty_chains.insert(name)),
            }
        }
        for name in std::mem::take(&mut self.dirty_sets) {
            let Some(state) = self.sets.get(&name) else {
                continue;
            };
            if state.want.is_none() && state.live.is_none() {
                self.sets.remove(&name);
            } else if !state.is_clean() {
                self.dirty_sets.insert(name);
            }
        }
    }

    /// Whether something may differ. False is certain.
    pub fn is_dirty(&self) -> bool {
        !(self.dirty_chains.is_empty() && self.dirty_sets.is_empty())
    }

    /// What is wanted, as one value; for printing and comparing.
    pub fn desired(&self) -> Ruleset {
        let mut out = Ruleset::new(self.name.clone());
        out.family = self.family;
        for (name, state) in &self.chains {
            if let (Some(w), Ok(name)) = (&state.want, ChainName::new(name)) {
                let rules = w.rules.iter().map(|(_, r)| (**r).clone()).collect();
                out.chains.insert(
                    name,
                    Chain {
                        base: w.base,
                        rules,
                    },
                );
            }
        }
        for (name, state) in &self.sets {
            if let (Some(kind), Ok(name)) = (state.want, SetName::new(name)) {
                out.sets.insert(
                    name,
                    Set {
                        kind,
                        elements: state.wanted().iter().collect(),
                    },
                );
            }
        }
        out
    }

    /// What the kernel is thought to hold.
    pub fn actual(&self) -> Dump {
        let chains = self.chains.iter();
        let sets = self.sets.iter();
        Dump {
            awake: self.awake,
            chains: chains
                .filter_map(|(n, s)| Some((n.to_string(), s.live.clone()?)))
                .collect(),
            sets: sets
                .filter_map(|(n, s)| Some((n.to_string(), s.live.clone()?)))
                .collect(),
        }
    }

    /// The operations that make what is what is wanted. An empty plan means that nothing
    /// differs.
    pub fn plan(&self) -> Plan {
        self.plan_except(&BTreeSet::new())
    }

    /// What differs.
    pub(crate) fn dirty_objects(&self) -> Vec<Object> {
        let sets = self.dirty_sets.iter().cloned().map(Object::Set);
        let chains = self.dirty_chains.iter().cloned().map(Object::Chain);
        sets.chain(chains).collect()
    }

    /// The same, leaving some objects as they are, and what cannot be without them: chains that
    /// use a set left out, so that no rule meets a set that is not its own; rules and members
    /// of maps that lead to a chain that is not there.
    pub fn plan_except(&self, left_out: &BTreeSet<Object>) -> Plan {
        let mut p = Phases::default();
        if !self.awake && (self.is_dirty() || !self.chains.is_empty() || !self.sets.is_empty()) {
            p.table.push(Op::CreateTable);
        }
        let left = LeftOut::of(self, left_out);
        let mut recreated: Vec<&str> = Vec::new();
        for name in &self.dirty_sets {
            let Some(state) = self.sets.get(name) else {
                continue;
            };
            if left.sets.contains(name) {
                continue;
            }
            if state.recreate() {
                recreated.push(name);
            }
            plan_set(name, state, &left.absent, &mut p);
        }
        for name in &self.dirty_chains {
            let Some(state) = self.chains.get(name) else {
                continue;
            };
            if !left.chains.contains(name) {
                plan_chain(name, state, &recreated, &mut p);
            }
        }
        if !recreated.is_empty() {
            // Rules that use a set hold it; they go and come back in the same transaction.
            for (name, state) in self
                .chains
                .iter()
                .filter(|(n, _)| !self.dirty_chains.contains(*n))
            {
                if state.uses(&recreated) && !left.chains.contains(name) {
                    plan_chain(name, state, &recreated, &mut p);
                }
            }
        }
        p.into_plan()
    }

    /// Takes note that the kernel carried out a plan that this table made. Changes wanted since
    /// stay dirty.
    ///
    /// # Errors
    /// When a handle is missing; then read and [`Table::adopt`].
    pub fn committed(&mut self, plan: &Plan, receipt: &Receipt) -> Result<(), Incomplete> {
        let all = plan.ops.iter().enumerate();
        let mut rules = all.filter(|(_, op)| matches!(op, Op::AddRule { .. }));
        if !rules.all(|(i, _)| receipt.handles.contains_key(&i)) {
            return Err(Incomplete);
        }
        // Deletions of single rules, gathered so that a chain is walked once.
        let mut gone: FxHashMap<&str, FxHashSet<u64>> = FxHashMap::default();
        for op in &plan.ops {
            if let Op::DeleteRule { chain, handle } = op {
                gone.entry(chain).or_default().insert(*handle);
            }
        }
        for (chain, handles) in gone {
            if let Some(live) = self.chains.get_mut(chain).and_then(|s| s.live.as_mut()) {
                live.rules.retain(|r| !handles.contains(&r.handle));
            }
            self.dirty_chains.insert(chain.into());
        }
        for (i, op) in plan.ops.iter().enumerate() {
            self.replay(op, receipt.handles.get(&i).copied());
        }
        self.settle();
        Ok(())
    }

    fn replay(&mut self, op: &Op, handle: Option<u64>) {
        match op {
            Op::CreateTable => self.awake = true,
            Op::DeleteRule { .. } => {}
            Op::FlushChain { chain } => self.live_chain(chain, |c| c.rules.clear()),
            Op::DeleteChain { chain } => {
                self.chains.entry(chain.clone()).or_default().live = None;
                self.dirty_chains.insert(chain.clone());
            }
            Op::CreateChain { chain, base } => {
                let key: Arc<str> = chain.as_str().into();
                let base = base.map_or(LiveBase::None, LiveBase::At);
                let live = LiveChain {
                    base,
                    rules: Vec::new(),
                };
                self.chains.entry(key.clone()).or_default().live = Some(live);
                self.dirty_chains.insert(key);
            }
            Op::SetPolicy { chain, base } => {
                self.live_chain(chain.as_str(), |c| c.base = LiveBase::At(*base));
            }
            Op::AddRule {
                chain, id, before, ..
            } => {
                let Some(handle) = handle else { return };
                let new = LiveRule {
                    handle,
                    id: Some(*id),
                };
                self.live_chain(chain.as_str(), |c| {
                    let at = before.and_then(|b| c.rules.iter().position(|r| r.handle == b));
                    c.rules.insert(at.unwrap_or(c.rules.len()), new);
                });
            }
            Op::DeleteSet { set } => self.live_set(set, |s| {
                // Whatever was wanted before is wanted still, and now must be added.
                let wanted = s.want.map(|_| s.wanted());
                s.live = None;
                if let Some(wanted) = wanted {
                    s.set_all(wanted);
                }
            }),
            Op::CreateSet { set, kind } => self.live_set(set.as_str(), |s| {
                s.live = Some(LiveSet {
                    kind: Some(*kind),
                    elements: Members::new(*kind),
                    alien: false,
                });
            }),
            Op::DeleteElements { set, elements } => self.live_set(set.as_str(), |s| {
                s.learn_gone(elements);
            }),
            Op::AddElements { set, elements } => self.live_set(set.as_str(), |s| {
                s.learn_new(elements);
            }),
        }
    }

    fn live_chain(&mut self, chain: &str, change: impl FnOnce(&mut LiveChain)) {
        if let Some(live) = self.chains.get_mut(chain).and_then(|s| s.live.as_mut()) {
            change(live);
            self.dirty_chains.insert(chain.into());
        }
    }

    fn live_set(&mut self, set: &str, change: impl FnOnce(&mut SetState)) {
        change(self.sets.entry(set.into()).or_default());
        self.dirty_sets.insert(set.into());
    }
}

impl SetState {
    /// The kernel now has these; what is wanted stays the same.
    fn learn_new(&mut self, new: &Members) {
        if self.base().is_some() && self.want == Some(new.kind()) {
            if new.len() <= MANY {
                for e in new.iter() {
                    let wanted = self.add.contains(&e) || self.has(&e) && !self.del.contains(&e);
                    self.add.remove(&e);
                    if !wanted {
                        self.del.insert(&e);
                    }
                }
            } else {
                // Wanted no longer, since the plan was made.
                let mut unwanted = new.but_not(&self.add);
                if let Some(base) = self.base() {
                    unwanted = unwanted.but_not(base);
                }
                self.del = self.del.or(&unwanted);
                self.add = self.add.but_not(new);
            }
        }
        let Some(live) = &mut self.live else { return };
        if new.len() <= MANY {
            for e in new.iter() {
                live.elements.insert(&e);
            }
        } else {
            live.elements = live.elements.or(new);
        }
    }

    /// The kernel no longer has these; what is wanted stays the same.
    fn learn_gone(&mut self, gone: &Members) {
        if self.base().is_some() && self.want == Some(gone.kind()) {
            if gone.len() <= MANY {
                for e in gone.iter() {
                    let wanted = self.has(&e) && !self.del.contains(&e);
                    self.del.remove(&e);
                    if wanted {
                        self.add.insert(&e);
                    }
                }
            } else {
                let wanted = self.base().map(|b| gone.and(b).but_not(&self.del));
                self.del = self.del.but_not(gone);
                if let Some(wanted) = wanted {
                    self.add = self.add.or(&wanted);
                }
            }
        }
        let Some(live) = &mut self.live else { return };
        if gone.len() <= MANY {
            for e in gone.iter() {
                live.elements.remove(&e);
            }
        } else {
            live.elements = live.elements.but_not(gone);
        }
    }
}

fn check(set: &SetName, kind: SetKind, e: &Element) -> Result<(), ValueError> {
    if e.fits(kind) {
        return Ok(());
    }
    Err(ValueError::WrongElement {
        set: set.clone(),
        kind,
        element: e.to_string(),
    })
}
