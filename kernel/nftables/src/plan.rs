//! The table we want, the table that is, and the operations between the two. Pure.
//!
//! Promises: a plan costs work in proportion to what changed since the last one; replayed on
//! what is, it gives what is wanted; it deletes before it adds, makes before it uses and unuses
//! before it removes; a rule that stays keeps its handle and counters. What failed stays dirty.
//! Never: opens a socket; guesses what the kernel did.

use crate::value::*;
use net::IfName;
use rustc_hash::{FxHashMap, FxHashSet};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Display, Formatter, Write as _};
use std::sync::Arc;

/// What a rule is: a digest of its text, kept in the rule's userdata. Rules of equal id do the
/// same.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RuleId(pub [u8; 16]);

/// Raised whenever the expressions programmed for the same text change, so that an upgrade
/// replaces rules of the older form.
const LOWERING: u8 = 1;

impl RuleId {
    /// The id of a rule.
    pub fn of(rule: &Rule) -> Self {
        struct Sink(Sha256);
        impl fmt::Write for Sink {
            fn write_str(&mut self, s: &str) -> fmt::Result {
                self.0.update(s.as_bytes());
                Ok(())
            }
        }
        let mut sink = Sink(Sha256::new());
        sink.0.update([LOWERING]);
        let _ = write!(sink, "{rule}");
        let digest = sink.0.finalize();
        let mut id = [0; 16];
        id.copy_from_slice(&digest[..16]);
        Self(id)
    }
}

impl fmt::Debug for RuleId {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.0[..4].iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

/// A rule of the kernel: its handle, and its id when it is one of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LiveRule {
    /// The kernel's number, unique in the table.
    pub handle: u64,
    /// `None` for a rule that somebody else put there.
    pub id: Option<RuleId>,
}

/// A chain of the kernel.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LiveChain {
    /// Its place in the packet path.
    pub base: LiveBase,
    /// Its rules in order.
    pub rules: Vec<LiveRule>,
}

/// The place of a chain of the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LiveBase {
    /// Entered by jumps only.
    #[default]
    None,
    /// In the packet path.
    At(Base),
    /// In the packet path, in a way that this crate does not know.
    Foreign,
}

/// A set of the kernel.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LiveSet {
    /// `None` for a type that is none of ours.
    pub kind: Option<SetKind>,
    /// The elements that are of that kind.
    pub elements: FxHashSet<Element>,
    /// It has elements that cannot be said in this kind; it must be made anew.
    pub alien: bool,
}

/// The table as the kernel holds it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Dump {
    /// Whether the table exists and is awake.
    pub awake: bool,
    /// Chains by name.
    pub chains: BTreeMap<String, LiveChain>,
    /// Sets and maps by name.
    pub sets: BTreeMap<String, LiveSet>,
}

/// One step of a plan.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields say what they are")]
pub enum Op {
    /// Makes the table, or wakes it.
    CreateTable,
    /// Removes one rule.
    DeleteRule { chain: Arc<str>, handle: u64 },
    /// Removes all rules of a chain that goes away.
    FlushChain { chain: Arc<str> },
    /// Removes elements.
    DeleteElements {
        set: SetName,
        elements: Vec<Element>,
    },
    /// Removes a set and its elements.
    DeleteSet { set: Arc<str> },
    /// Removes an empty chain.
    DeleteChain { chain: Arc<str> },
    /// Makes an empty set.
    CreateSet { set: SetName, kind: SetKind },
    /// Makes an empty chain.
    CreateChain {
        chain: ChainName,
        base: Option<Base>,
    },
    /// Changes the policy of a base chain.
    SetPolicy { chain: ChainName, base: Base },
    /// Adds elements.
    AddElements {
        set: SetName,
        elements: Vec<Element>,
    },
    /// Adds a rule before another one, or at the end.
    AddRule {
        chain: ChainName,
        rule: Arc<Rule>,
        id: RuleId,
        before: Option<u64>,
    },
}

/// A chain or a set of the table, by name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Object {
    /// A chain.
    Chain(Arc<str>),
    /// A set or map.
    Set(Arc<str>),
}

impl Display for Object {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Chain(n) => write!(f, "chain {n}"),
            Self::Set(n) => write!(f, "set {n}"),
        }
    }
}

impl Op {
    /// What it works on; `None` for the table itself.
    pub fn object(&self) -> Option<Object> {
        Some(match self {
            Self::CreateTable => return None,
            Self::DeleteRule { chain, .. }
            | Self::FlushChain { chain }
            | Self::DeleteChain { chain } => Object::Chain(chain.clone()),
            Self::CreateChain { chain, .. }
            | Self::SetPolicy { chain, .. }
            | Self::AddRule { chain, .. } => Object::Chain(chain.as_str().into()),
            Self::DeleteSet { set } => Object::Set(set.clone()),
            Self::DeleteElements { set, .. }
            | Self::CreateSet { set, .. }
            | Self::AddElements { set, .. } => Object::Set(set.as_str().into()),
        })
    }
}

impl Display for Op {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::CreateTable => f.write_str("create table"),
            Self::DeleteRule { chain, handle } => {
                write!(f, "delete rule {handle} of chain {chain}")
            }
            Self::FlushChain { chain } => write!(f, "flush chain {chain}"),
            Self::DeleteElements { set, elements } => {
                write!(f, "delete {} elements of set {set}", elements.len())
            }
            Self::DeleteSet { set } => write!(f, "delete set {set}"),
            Self::DeleteChain { chain } => write!(f, "delete chain {chain}"),
            Self::CreateSet { set, kind } => write!(f, "create set {set} ({kind})"),
            Self::CreateChain { chain, base: None } => write!(f, "create chain {chain}"),
            Self::CreateChain {
                chain,
                base: Some(b),
            } => write!(f, "create chain {chain} ({b})"),
            Self::SetPolicy { chain, base } => {
                write!(f, "set policy {} of chain {chain}", base.policy)
            }
            Self::AddElements { set, elements } => {
                write!(f, "add {} elements to set {set}", elements.len())
            }
            Self::AddRule { chain, rule, .. } => write!(f, "add rule to chain {chain}: {rule}"),
        }
    }
}

/// Operations in an order in which the kernel takes them, as one transaction.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[must_use = "a plan changes nothing until applied"]
pub struct Plan {
    /// The operations.
    pub ops: Vec<Op>,
}

impl Plan {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }
}

/// What the kernel gave back for a plan that took effect: the handle of the rule of each
/// [`Op::AddRule`], by the operation's place in the plan.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Receipt {
    /// Place in the plan, and handle.
    pub handles: FxHashMap<usize, u64>,
}

/// The receipt lacks the handle of a rule: what the kernel holds is not known, read it again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the kernel did not say which handle it gave to a rule")]
pub struct Incomplete;

#[derive(Debug, Clone)]
struct WantedChain {
    base: Option<Base>,
    rules: Vec<(RuleId, Arc<Rule>)>,
}

#[derive(Debug, Default)]
struct ChainState {
    want: Option<WantedChain>,
    live: Option<LiveChain>,
}

impl ChainState {
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

/// `pending` is what must change: true to add, false to delete. What is wanted is `live` with
/// `pending` applied; nothing is stored twice.
#[derive(Debug, Default)]
struct SetState {
    want: Option<SetKind>,
    live: Option<LiveSet>,
    pending: FxHashMap<Element, bool>,
    /// The wanted verdicts of a map, to find what a key has.
    verdicts: FxHashMap<IfName, Verdict>,
}

impl SetState {
    fn wants(&self, e: &Element) -> bool {
        match self.pending.get(e) {
            Some(on) => *on,
            None => self.live.as_ref().is_some_and(|l| l.elements.contains(e)),
        }
    }

    fn set(&mut self, e: Element, on: bool) {
        let is = self.live.as_ref().is_some_and(|l| l.elements.contains(&e));
        if is == on {
            self.pending.remove(&e);
        } else {
            self.pending.insert(e, on);
        }
    }

    fn wanted(&self) -> impl Iterator<Item = &Element> {
        let live = self.live.iter().flat_map(|l| &l.elements);
        live.filter(|e| !self.pending.contains_key(*e))
            .chain(self.pending.iter().filter(|(_, on)| **on).map(|(e, _)| e))
    }

    /// The set must be deleted and made anew.
    fn recreate(&self) -> bool {
        match (&self.live, self.want) {
            (Some(l), Some(k)) => l.alien || l.kind != Some(k),
            _ => false,
        }
    }

    fn is_clean(&self) -> bool {
        match (&self.live, self.want) {
            (None, None) => true,
            (Some(_), Some(_)) => !self.recreate() && self.pending.is_empty(),
            _ => false,
        }
    }
}

/// One table: what is wanted, what the kernel holds, and where the two differ.
#[derive(Debug)]
pub struct Table {
    name: TableName,
    awake: bool,
    chains: FxHashMap<Arc<str>, ChainState>,
    sets: FxHashMap<Arc<str>, SetState>,
    dirty_chains: BTreeSet<Arc<str>>,
    dirty_sets: BTreeSet<Arc<str>>,
}

impl Table {
    /// Nothing wanted, nothing there.
    pub fn new(name: TableName) -> Self {
        Self {
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
        let mut want: FxHashSet<Element> = FxHashSet::default();
        let mut verdicts = FxHashMap::default();
        for e in elements {
            check(name, kind, &e)?;
            match e {
                Element::IfNameVerdict(i, v) => drop(verdicts.insert(i, v)),
                e => drop(want.insert(e)),
            }
        }
        want.extend(
            verdicts
                .iter()
                .map(|(i, v)| Element::IfNameVerdict(*i, v.clone())),
        );
        let key: Arc<str> = name.as_str().into();
        let state = self.sets.entry(key.clone()).or_default();
        state.want = Some(kind);
        state.verdicts = verdicts;
        state.pending = match &state.live {
            None => want.into_iter().map(|e| (e, true)).collect(),
            Some(live) => {
                let gone = live.elements.iter().filter(|e| !want.contains(*e)).cloned();
                let gone: Vec<_> = gone.map(|e| (e, false)).collect();
                let new = want.into_iter().filter(|e| !live.elements.contains(e));
                gone.into_iter().chain(new.map(|e| (e, true))).collect()
            }
        };
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
        for e in del {
            if let Element::IfNameVerdict(i, v) = &e {
                if state.verdicts.get(i) != Some(v) {
                    continue;
                }
                state.verdicts.remove(i);
            }
            state.set(e, false);
        }
        for e in add {
            if let Element::IfNameVerdict(i, v) = &e {
                // The kernel has one verdict a key: the old one goes first.
                if let Some(old) = state.verdicts.insert(*i, v.clone()).filter(|old| old != v) {
                    state.set(Element::IfNameVerdict(*i, old), false);
                }
            }
            state.set(e, true);
        }
        self.dirty_sets.insert(name.as_str().into());
        Ok(())
    }

    /// Wants the set gone. Rules that use it must be gone by the next plan.
    pub fn remove_set(&mut self, name: &SetName) {
        if let Some(state) = self.sets.get_mut(name.as_str()) {
            state.want = None;
            state.pending = FxHashMap::default();
            state.verdicts = FxHashMap::default();
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
            let wanted: FxHashSet<Element> = match state.want {
                Some(_) => state.wanted().cloned().collect(),
                None => FxHashSet::default(),
            };
            state.live = live.remove(name);
            state.pending.clear();
            if state.want.is_some() {
                let gone: Vec<_> = state
                    .live
                    .iter()
                    .flat_map(|l| &l.elements)
                    .filter(|e| !wanted.contains(*e))
                    .cloned()
                    .collect();
                gone.into_iter()
                    .chain(wanted.iter().cloned())
                    .for_each(|e| {
                        let on = wanted.contains(&e);
                        state.set(e, on);
                    });
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
                        elements: state.wanted().cloned().collect(),
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

    /// The same, leaving some objects as they are; also the chains that use a set left out, so
    /// that no rule meets a set that is not its own.
    pub fn plan_except(&self, left_out: &BTreeSet<Object>) -> Plan {
        let mut p = Phases::default();
        if !self.awake && (self.is_dirty() || !self.chains.is_empty() || !self.sets.is_empty()) {
            p.table.push(Op::CreateTable);
        }
        let mut recreated: Vec<&str> = Vec::new();
        let mut stale: Vec<&str> = Vec::new();
        for name in &self.dirty_sets {
            let Some(state) = self.sets.get(name) else {
                continue;
            };
            if !left_out.is_empty() && left_out.contains(&Object::Set(name.clone())) {
                stale.push(name);
                continue;
            }
            if state.recreate() {
                recreated.push(name);
            }
            plan_set(name, state, &mut p);
        }
        for name in &self.dirty_chains {
            let Some(state) = self.chains.get(name) else {
                continue;
            };
            let left = !left_out.is_empty()
                && (left_out.contains(&Object::Chain(name.clone())) || state.uses(&stale));
            if !left {
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
                if state.uses(&recreated) {
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
                let wanted: Vec<Element> = match s.want {
                    Some(_) => s.wanted().cloned().collect(),
                    None => Vec::new(),
                };
                s.live = None;
                s.pending = wanted.into_iter().map(|e| (e, true)).collect();
            }),
            Op::CreateSet { set, kind } => self.live_set(set.as_str(), |s| {
                s.live = Some(LiveSet {
                    kind: Some(*kind),
                    ..LiveSet::default()
                });
            }),
            Op::DeleteElements { set, elements } => self.live_set(set.as_str(), |s| {
                elements.iter().for_each(|e| s.learn(e, false));
            }),
            Op::AddElements { set, elements } => self.live_set(set.as_str(), |s| {
                elements.iter().for_each(|e| s.learn(e, true));
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
    /// The kernel now has, or no longer has, this element; what is wanted stays the same.
    fn learn(&mut self, e: &Element, on: bool) {
        let wanted = self.want.is_some() && self.wants(e);
        if let Some(live) = &mut self.live {
            if on {
                live.elements.insert(e.clone());
            } else {
                live.elements.remove(e);
            }
        }
        if self.want.is_some() {
            self.set(e.clone(), wanted);
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

fn same_chain(w: &WantedChain, l: &LiveChain) -> bool {
    l.base == w.base.map_or(LiveBase::None, LiveBase::At)
        && l.rules.len() == w.rules.len()
        && w.rules
            .iter()
            .zip(&l.rules)
            .all(|((id, _), l)| l.id == Some(*id))
}

/// The set names that a rule uses.
fn uses(rule: &Rule, sets: &[&str]) -> bool {
    let is = |s: &SetName| sets.contains(&s.as_str());
    rule.matches.iter().any(|m| match m {
        Match::IifName {
            pattern: IfPattern::InSet(s),
            ..
        }
        | Match::OifName {
            pattern: IfPattern::InSet(s),
            ..
        }
        | Match::AddrInSet { set: s, .. }
        | Match::AddrPortInSet { set: s, .. }
        | Match::NetPairInSet { set: s, .. } => is(s),
        _ => false,
    }) || rule
        .statements
        .iter()
        .any(|s| matches!(s, Statement::VMap { map, .. } if is(map)))
}

/// The operations by what must come before what.
#[derive(Default)]
struct Phases {
    table: Vec<Op>,
    delete_rules: Vec<Op>,
    delete_elements: Vec<Op>,
    delete_sets: Vec<Op>,
    delete_chains: Vec<Op>,
    create: Vec<Op>,
    add_elements: Vec<Op>,
    add_rules: Vec<Op>,
}

impl Phases {
    fn into_plan(self) -> Plan {
        let mut ops = self.table;
        ops.extend(self.delete_rules);
        ops.extend(self.delete_elements);
        ops.extend(self.delete_sets);
        ops.extend(self.delete_chains);
        ops.extend(self.create);
        ops.extend(self.add_elements);
        ops.extend(self.add_rules);
        Plan { ops }
    }
}

fn plan_set(name: &Arc<str>, state: &SetState, p: &mut Phases) {
    let want = state.want.and_then(|k| Some((k, SetName::new(name).ok()?)));
    let Some((kind, set)) = want else {
        if state.live.is_some() {
            p.delete_sets.push(Op::DeleteSet { set: name.clone() });
        }
        return;
    };
    let keep = state.live.is_some() && !state.recreate();
    let mut add: Vec<Element>;
    if keep {
        let pick = |on: bool| {
            let mut v: Vec<_> = state
                .pending
                .iter()
                .filter(|(_, o)| **o == on)
                .map(|(e, _)| e.clone())
                .collect();
            v.sort_unstable();
            v
        };
        let elements = pick(false);
        if !elements.is_empty() {
            p.delete_elements.push(Op::DeleteElements {
                set: set.clone(),
                elements,
            });
        }
        add = pick(true);
    } else {
        if state.live.is_some() {
            p.delete_sets.push(Op::DeleteSet { set: name.clone() });
        }
        p.create.push(Op::CreateSet {
            set: set.clone(),
            kind,
        });
        add = state.wanted().cloned().collect();
        add.sort_unstable();
    }
    if !add.is_empty() {
        p.add_elements.push(Op::AddElements { set, elements: add });
    }
}

fn plan_chain(name: &Arc<str>, state: &ChainState, recreated: &[&str], p: &mut Phases) {
    let want = state
        .want
        .as_ref()
        .and_then(|w| Some((w, ChainName::new(name).ok()?)));
    let none = LiveChain::default();
    let delete = |p: &mut Phases| {
        if state.live.as_ref().is_some_and(|l| !l.rules.is_empty()) {
            p.delete_rules.push(Op::FlushChain {
                chain: name.clone(),
            });
        }
        p.delete_chains.push(Op::DeleteChain {
            chain: name.clone(),
        });
    };
    let Some((want, chain)) = want else {
        if state.live.is_some() {
            delete(p);
        }
        return;
    };
    let live = match &state.live {
        Some(l) if moved(want.base, l.base) => {
            delete(p);
            p.create.push(Op::CreateChain {
                chain: chain.clone(),
                base: want.base,
            });
            &none
        }
        Some(l) => {
            if let Some(base) = want.base.filter(|b| l.base != LiveBase::At(*b)) {
                p.create.push(Op::SetPolicy {
                    chain: chain.clone(),
                    base,
                });
            }
            l
        }
        None => {
            p.create.push(Op::CreateChain {
                chain: chain.clone(),
                base: want.base,
            });
            &none
        }
    };
    plan_rules(&chain, name, want, live, recreated, p);
}

/// Whether a chain must be made anew: all but the policy differs.
fn moved(want: Option<Base>, live: LiveBase) -> bool {
    match (want, live) {
        (None, LiveBase::None) => false,
        (Some(w), LiveBase::At(l)) => {
            Base {
                policy: w.policy,
                ..l
            } != w
        }
        _ => true,
    }
}

fn plan_rules(
    chain: &ChainName,
    name: &Arc<str>,
    want: &WantedChain,
    live: &LiveChain,
    recreated: &[&str],
    p: &mut Phases,
) {
    // A rule that uses a set made anew cannot stay.
    let wanted: Vec<Option<RuleId>> = want
        .rules
        .iter()
        .map(|(id, r)| (recreated.is_empty() || !uses(r, recreated)).then_some(*id))
        .collect();
    let kept = keep(&wanted, &live.rules);
    let mut stays = vec![false; live.rules.len()];
    kept.iter().flatten().for_each(|i| stays[*i] = true);
    for (rule, _) in live.rules.iter().zip(&stays).filter(|(_, s)| !**s) {
        p.delete_rules.push(Op::DeleteRule {
            chain: name.clone(),
            handle: rule.handle,
        });
    }
    // Going backwards finds the next rule that stays; going forwards keeps the order.
    let mut next = None;
    let mut before = vec![None; kept.len()];
    for (i, k) in kept.iter().enumerate().rev() {
        match k {
            Some(l) => next = Some(live.rules[*l].handle),
            None => before[i] = next,
        }
    }
    for (i, (id, rule)) in want.rules.iter().enumerate() {
        if kept[i].is_none() {
            let (chain, rule) = (chain.clone(), rule.clone());
            p.add_rules.push(Op::AddRule {
                chain,
                rule,
                id: *id,
                before: before[i],
            });
        }
    }
}

/// Above this many cells the middle is replaced instead of compared.
const LCS_CELLS: usize = 1 << 20;

/// For each wanted rule the place of the live rule that serves it: a longest common
/// subsequence, by common ends and a table over the middle.
fn keep(want: &[Option<RuleId>], live: &[LiveRule]) -> Vec<Option<usize>> {
    let same = |w: usize, l: usize| want[w].is_some() && want[w] == live[l].id;
    let mut out = vec![None; want.len()];
    let (n, m) = (want.len(), live.len());
    let head = (0..n.min(m)).take_while(|&i| same(i, i)).count();
    let tail = (0..n.min(m) - head)
        .take_while(|&i| same(n - 1 - i, m - 1 - i))
        .count();
    (0..head).for_each(|i| out[i] = Some(i));
    (0..tail).for_each(|i| out[n - 1 - i] = Some(m - 1 - i));
    let (rows, cols) = (n - head - tail, m - head - tail);
    if rows == 0 || cols == 0 || rows.saturating_mul(cols) > LCS_CELLS {
        return out;
    }
    // best[r][c]: the longest common subsequence of what follows row r and column c.
    let width = cols + 1;
    let mut best = vec![0u32; (rows + 1) * width];
    for r in (0..rows).rev() {
        for c in (0..cols).rev() {
            best[r * width + c] = if same(head + r, head + c) {
                best[(r + 1) * width + c + 1] + 1
            } else {
                best[(r + 1) * width + c].max(best[r * width + c + 1])
            };
        }
    }
    let (mut r, mut c) = (0, 0);
    while r < rows && c < cols {
        if same(head + r, head + c) {
            out[head + r] = Some(head + c);
            (r, c) = (r + 1, c + 1);
        } else if best[(r + 1) * width + c] >= best[r * width + c + 1] {
            r += 1;
        } else {
            c += 1;
        }
    }
    out
}
