//! From routes as they are to routes as they should be.
//!
//! Promises: pure and deterministic; nothing to do gives no operation; a destination that
//! is wanted and present is never without a route in between; routes that others lean on
//! come before those that lean.
//!
//! Never: names a route that is not in `actual.ours`.

use crate::value::{Route, RouteKey};
use std::collections::{BTreeMap, BTreeSet};

/// What the kernel holds of one table and family.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Actual {
    /// Routes that are ours. The kernel allows several with one key.
    pub ours: Vec<Route>,
    /// Keys that routes of others hold.
    pub foreign: BTreeSet<RouteKey>,
}

/// One step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// Install; an existing route of that key is an error, since it is not ours.
    Add(Route),
    /// Install in place of an own route of the same key.
    Replace(Route),
    /// Remove exactly this route; absent is as good.
    Delete(Route),
}

impl Op {
    /// The route that the step is about.
    pub const fn route(&self) -> &Route {
        match self {
            Self::Add(r) | Self::Replace(r) | Self::Delete(r) => r,
        }
    }
}

/// Ordered steps. May be cut anywhere: a prefix, applied, leaves a sound state.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[must_use = "a plan changes nothing until applied"]
pub struct Plan {
    /// The steps.
    pub ops: Vec<Op>,
}

/// The steps from `actual` to exactly `desired`. Both may be cut to the same subset of keys:
/// the plan for the keys that changed costs what changed, not what exists.
///
/// A wanted key that a foreign route holds is still planned as an addition: the kernel
/// refuses it (`EEXIST`), and so the conflict is reported for as long as it lasts, and
/// solved when the foreign route goes.
pub fn plan<'a>(actual: &Actual, desired: impl IntoIterator<Item = &'a Route>) -> Plan {
    let wanted: BTreeMap<RouteKey, Route> = desired
        .into_iter()
        .map(|r| r.clone().normal())
        .map(|r| (r.key, r))
        .collect();
    let mut held: BTreeMap<RouteKey, Vec<Route>> = BTreeMap::new();
    for r in &actual.ours {
        held.entry(r.key).or_default().push(r.clone().normal());
    }

    // Steps of one key stay together, behind those of the keys they may lean on.
    let (mut groups, mut deletes) = (Vec::new(), Vec::new());
    for (key, want) in &wanted {
        let mut old = held.remove(key).unwrap_or_default();
        if let Some(i) = old.iter().position(|r| r == want) {
            old.remove(i);
            deletes.append(&mut old);
        } else if old.len() == 1 && !actual.foreign.contains(key) {
            groups.push((want.leans(), vec![Op::Replace(want.clone())]));
        } else {
            // With several routes of one key the kernel picks which one a replacement
            // hits, perhaps a foreign one. Ours go first then: the only gap we allow.
            let mut steps: Vec<_> = old.into_iter().map(Op::Delete).collect();
            steps.push(Op::Add(want.clone()));
            groups.push((want.leans(), steps));
        }
    }
    deletes.extend(held.into_values().flatten());

    // Stable sorts: within a group the order is that of the keys.
    groups.sort_by_key(|(leans, _)| *leans);
    deletes.sort_by_key(|r| !r.leans());
    let mut ops: Vec<_> = groups.into_iter().flat_map(|(_, steps)| steps).collect();
    ops.extend(deletes.into_iter().map(Op::Delete));
    Plan { ops }
}

#[cfg(test)]
mod tests;
