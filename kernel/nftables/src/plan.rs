//! What the kernel holds, and the operations that make it what is wanted. Pure.
//!
//! Promises: a plan costs work in proportion to what changed since the last one; replayed on
//! what is, it gives what is wanted; it deletes before it adds, makes before it uses and unuses
//! before it removes; a rule that stays keeps its handle and counters. What failed stays dirty.
//! Never: opens a socket; guesses what the kernel did.

use crate::members::Members;
use crate::table::{ChainState, SetState, WantedChain};
use crate::value::*;
use rustc_hash::{FxHashMap, FxHashSet};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
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
    pub elements: Members,
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
    DeleteElements { set: SetName, elements: Members },
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
    AddElements { set: SetName, elements: Members },
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

pub(crate) fn same_chain(w: &WantedChain, l: &LiveChain) -> bool {
    l.base == w.base.map_or(LiveBase::None, LiveBase::At)
        && l.rules.len() == w.rules.len()
        && w.rules
            .iter()
            .zip(&l.rules)
            .all(|((id, _), l)| l.id == Some(*id))
}

/// The set names that a rule uses.
pub(crate) fn uses(rule: &Rule, sets: &[&str]) -> bool {
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
        | Match::IfAddrInSet { set: s, .. }
        | Match::ArpSenderInSet { set: s, .. }
        | Match::NetPairInSet { set: s, .. } => is(s),
        _ => false,
    }) || rule.statements.iter().any(|s| match s {
        Statement::VMap { map, .. }
        | Statement::DnatMap { map, .. }
        | Statement::SnatMap { map, .. } => is(map),
        _ => false,
    })
}

/// The operations by what must come before what.
#[derive(Default)]
pub(crate) struct Phases {
    pub(crate) table: Vec<Op>,
    delete_rules: Vec<Op>,
    delete_elements: Vec<Op>,
    delete_sets: Vec<Op>,
    delete_chains: Vec<Op>,
    create: Vec<Op>,
    add_elements: Vec<Op>,
    add_rules: Vec<Op>,
}

impl Phases {
    pub(crate) fn into_plan(self) -> Plan {
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

/// Members of a map that lead to a chain that is not there stay as they are.
pub(crate) fn plan_set(
    name: &Arc<str>,
    state: &SetState,
    absent: &FxHashSet<&str>,
    p: &mut Phases,
) {
    let want = state.want.and_then(|k| Some((k, SetName::new(name).ok()?)));
    let Some((kind, set)) = want else {
        if state.live.is_some() {
            p.delete_sets.push(Op::DeleteSet { set: name.clone() });
        }
        return;
    };
    let keep = state.live.is_some() && !state.recreate();
    let (mut add, mut del) = if keep {
        (state.add.clone(), state.del.clone())
    } else {
        (state.wanted(), Members::new(kind))
    };
    if kind == SetKind::IfNameVerdict && !absent.is_empty() {
        let lost = |e: &Element| {
            matches!(e, Element::IfNameVerdict(_, Verdict::Jump(c) | Verdict::Goto(c))
                if absent.contains(c.as_str()))
        };
        for e in state.wanted().iter().filter(lost) {
            add.remove(&e);
            if let Some(old) = del.of_same_key(&e) {
                del.remove(&old);
            }
        }
    }
    if !keep {
        if state.live.is_some() {
            p.delete_sets.push(Op::DeleteSet { set: name.clone() });
        }
        p.create.push(Op::CreateSet {
            set: set.clone(),
            kind,
        });
    }
    if !del.is_empty() {
        p.delete_elements.push(Op::DeleteElements {
            set: set.clone(),
            elements: del,
        });
    }
    if !add.is_empty() {
        p.add_elements.push(Op::AddElements { set, elements: add });
    }
}

pub(crate) fn plan_chain(name: &Arc<str>, state: &ChainState, recreated: &[&str], p: &mut Phases) {
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
