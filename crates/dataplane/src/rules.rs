//! Our table, from edits to the kernel.
//!
//! Promises: all edits of one step take effect in one transaction; where the kernel refuses
//! a chain, that chain is closed and the rest goes on, and the refused one is tried again.
//! Never: writes before it has read.

use crate::Metrics;
use netlink::NetlinkError;
use nftables::{
    ApplyError, Chain, ChainName, IfPattern, Match, Notice, Op, Plan, Rule, Set, SetKind, SetName,
    Statement, Sys, Table, TableFamily, TableName, Text, Verdict,
};
use render::TableEdit;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

/// Attempts of one sync: each that fails either reads anew or closes one chain more.
const TRIES: u32 = 64;

/// A chain that the kernel refused.
#[derive(Debug)]
struct Refused {
    wanted: Chain,
    why: String,
}

#[derive(Debug)]
pub(crate) struct Rules {
    sys: Sys,
    table: Table,
    /// Whether `table` knows what the kernel holds.
    read: bool,
    refused: BTreeMap<ChainName, Refused>,
    /// Sets with elements that the kernel refused, as wanted; in the table they are empty.
    refused_sets: BTreeMap<SetName, Set>,
    /// Sets that nobody needs any more. They go in a transaction of their own: a packet on its
    /// way while the table changes meets old rules with new members of sets, and `not in @set`
    /// must not turn true because the set went with its rule.
    unneeded: BTreeSet<SetName>,
    /// Maps to chains: those go with the chains that they lead to.
    maps: BTreeSet<SetName>,
    /// Why the last sync failed as a whole.
    error: Option<String>,
    metrics: Metrics,
}

/// Drops everything: what stands in for a chain that the kernel refused.
fn closed() -> Chain {
    Chain {
        base: None,
        rules: vec![Rule {
            matches: Vec::new(),
            statements: vec![Statement::Counter],
            verdict: Some(Verdict::Drop),
            comment: Text::new("closed: the kernel refused this chain"),
        }],
    }
}

impl Rules {
    /// Opens in the namespace of the calling thread.
    pub(crate) fn open(
        family: TableFamily,
        name: TableName,
        metrics: Metrics,
    ) -> Result<Self, NetlinkError> {
        Ok(Self {
            sys: Sys::open_of(family, name.clone())?,
            table: Table::of(family, name),
            read: false,
            refused: BTreeMap::new(),
            refused_sets: BTreeMap::new(),
            unneeded: BTreeSet::new(),
            maps: BTreeSet::new(),
            error: None,
            metrics,
        })
    }

    /// Has transactions fail as the function says.
    pub(crate) fn inject(&mut self, faults: Box<crate::AskFault>) {
        self.sys.inject(faults);
    }

    /// Takes note of a change; the next [`Rules::sync`] writes it.
    pub(crate) fn edit(&mut self, edit: TableEdit) {
        let noted = match edit {
            TableEdit::Chain(name, chain) => {
                self.refused.remove(&name);
                let mut sets = self.refused_sets.keys();
                if sets.any(|s| chain.rules.iter().any(|r| uses(r, s))) {
                    // With the set empty the kernel would take it, and `not in @set` hold.
                    self.retry();
                }
                self.table.set_chain(&name, chain);
                Ok(())
            }
            TableEdit::RemoveChain(name) => {
                self.refused.remove(&name);
                self.table.remove_chain(&name);
                Ok(())
            }
            TableEdit::Set(name, kind, elements) => {
                self.unneeded.remove(&name);
                if kind == SetKind::IfNameVerdict {
                    self.maps.insert(name.clone());
                }
                if self.refused_sets.remove(&name).is_some() {
                    // Those that were closed because of it may be right now.
                    self.retry();
                }
                self.table.set_set(&name, kind, elements)
            }
            TableEdit::Elements { set, add, remove } => {
                if self.refused_sets.contains_key(&set) {
                    self.retry();
                }
                self.table.set_elems(&set, add, remove)
            }
            TableEdit::RemoveSet(name) => {
                self.refused_sets.remove(&name);
                if self.maps.remove(&name) {
                    self.table.remove_set(&name);
                } else {
                    self.unneeded.insert(name);
                }
                Ok(())
            }
        };
        if let Err(e) = noted {
            // The calculation broke its contract; the table is as before and stays sound.
            tracing::error!(error = %e, "an edit of the table makes no sense");
        }
    }

    /// Why nothing could be written, when so.
    pub(crate) fn error(&self) -> Option<&str> {
        self.error.as_deref()
    }

    /// Why a chain is closed, when the kernel refused it.
    pub(crate) fn refusal(&self, chain: &ChainName) -> Option<&str> {
        self.refused.get(chain).map(|r| r.why.as_str())
    }

    /// How many chains are closed, and whether nothing could be written.
    pub(crate) fn dirty(&self) -> usize {
        self.refused.len() + usize::from(self.error.is_some())
    }

    /// Whether there is something to write.
    pub(crate) fn is_dirty(&self) -> bool {
        !self.read || self.table.is_dirty() || !self.unneeded.is_empty()
    }

    /// Wants the refused chains again.
    pub(crate) fn retry(&mut self) {
        for (name, s) in std::mem::take(&mut self.refused_sets) {
            if let Err(e) = self.table.set_set(&name, s.kind, s.elements) {
                tracing::error!(error = %e, "a set that was there before makes no sense");
            }
        }
        for (name, r) in std::mem::take(&mut self.refused) {
            self.table.set_chain(&name, r.wanted);
        }
    }

    /// Forgets what is known of the kernel: the next sync reads.
    pub(crate) fn reread(&mut self) {
        self.read = false;
    }

    /// Waits until somebody else has changed the table.
    pub(crate) async fn changed(&mut self) -> Result<Notice, NetlinkError> {
        self.sys.changed().await
    }

    /// Makes the kernel hold what is wanted. True if something was written.
    pub(crate) fn sync(&mut self) -> bool {
        let begin = Instant::now();
        let mut wrote = false;
        let mut failure = Some("others keep changing the table".to_owned());
        for _ in 0..TRIES {
            match self.attempt() {
                Ok(Step::Clean) if !self.unneeded.is_empty() => {
                    for set in std::mem::take(&mut self.unneeded) {
                        self.table.remove_set(&set);
                    }
                }
                Ok(Step::Clean) => {
                    failure = None;
                    break;
                }
                Ok(Step::Wrote) => {
                    wrote = true;
                    self.metrics.nft_commits.inc();
                    self.metrics.nft_time.observe(begin.elapsed().as_secs_f64());
                }
                Ok(Step::Again) => {}
                Err(e) => {
                    failure = Some(e);
                    break;
                }
            }
        }
        if let Some(e) = &failure
            && self.error != failure
        {
            tracing::error!(error = e, "the table cannot be written");
        }
        self.error = failure;
        wrote
    }

    fn attempt(&mut self) -> Result<Step, String> {
        if !self.read {
            let dump = self.sys.read().map_err(|e| e.to_string())?;
            self.table.adopt(dump);
            self.read = true;
        }
        let plan = self.table.plan();
        if plan.is_empty() {
            return Ok(Step::Clean);
        }
        match self.sys.apply(&plan) {
            Ok(receipt) => {
                self.read = self.table.committed(&plan, &receipt).is_ok();
                Ok(Step::Wrote)
            }
            Err(ApplyError::Changed(_) | ApplyError::Unknown(_)) => {
                self.read = false;
                Ok(Step::Again)
            }
            Err(e) => {
                self.metrics.nft_failures.inc();
                let index = match &e {
                    ApplyError::Refused { index, .. } => *index,
                    _ => None,
                };
                let why = e.to_string();
                if index.is_some_and(|i| self.close(&plan, i, &why)) {
                    Ok(Step::Again)
                } else {
                    Err(why)
                }
            }
        }
    }

    /// Closes the chains that the refused operation is about. False if there are none,
    /// or they are closed already: then nothing can be done here.
    fn close(&mut self, plan: &Plan, index: usize, why: &str) -> bool {
        let wanted = self.table.desired();
        let names: Vec<ChainName> = match plan.ops.get(index) {
            Some(Op::AddRule { chain, .. } | Op::CreateChain { chain, .. }) => vec![chain.clone()],
            Some(Op::AddElements { set, .. } | Op::CreateSet { set, .. }) => wanted
                .chains
                .iter()
                .filter(|(_, c)| c.rules.iter().any(|r| uses(r, set)))
                .map(|(n, _)| n.clone())
                .collect(),
            _ => Vec::new(),
        };
        if let Some(Op::AddElements { set, .. }) = plan.ops.get(index)
            && let Some(s) = wanted.sets.get(set)
        {
            // Empty is at least programmable; whoever uses the set is closed.
            if self.table.set_set(set, s.kind, []).is_ok() {
                self.refused_sets.insert(set.clone(), s.clone());
            }
        }
        let mut closed_any = false;
        for name in names {
            let chain = wanted.chains.get(&name).filter(|c| c.base.is_none());
            let Some(chain) = chain.filter(|_| !self.refused.contains_key(&name)) else {
                continue;
            };
            tracing::error!(chain = %name, error = why, "the kernel refuses a chain: closed");
            self.table.set_chain(&name, closed());
            let refused = Refused {
                wanted: chain.clone(),
                why: why.to_owned(),
            };
            self.refused.insert(name, refused);
            closed_any = true;
        }
        closed_any
    }
}

enum Step {
    Clean,
    Wrote,
    Again,
}

fn uses(rule: &Rule, set: &SetName) -> bool {
    let matched = rule.matches.iter().any(|m| match m {
        Match::AddrInSet { set: s, .. }
        | Match::AddrPortInSet { set: s, .. }
        | Match::NetPairInSet { set: s, .. }
        | Match::IfAddrInSet { set: s, .. }
        | Match::ArpSenderInSet { set: s, .. } => s == set,
        Match::IifName { pattern, .. } | Match::OifName { pattern, .. } => {
            matches!(pattern, IfPattern::InSet(s) if s == set)
        }
        _ => false,
    });
    let mut maps = rule.statements.iter().filter_map(|s| match s {
        Statement::VMap { map, .. }
        | Statement::DnatMap { map, .. }
        | Statement::SnatMap { map, .. } => Some(map),
        _ => None,
    });
    matched || maps.any(|m| m == set)
}
