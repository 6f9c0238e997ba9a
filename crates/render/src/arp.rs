//! The table of family `arp`: the host never answers for a workload's own address.
//!
//! With `proxy_arp` the host answers on a workload's link for all that it has another route to,
//! and that is the workload's own address until its route is there: the workload takes that
//! for somebody else who has its address.
//!
//! Promises: replies to a workload with its own address as sender are dropped, and no others.
//! Never: sees a packet of IP.

use crate::changes::TableEdit;
use crate::name::{fixed, fixed_set};
use desired::WorkloadPolicy;
use net::Family;
use nftables::{
    ArpOp, Base, Chain, Element, Hook, Kind, Match, Policy, Rule, SetKind, Statement, Text,
    VMapKey, Verdict,
};
use std::collections::BTreeSet;

const OWN: &str = "own-addresses";

/// What the table begins with.
pub(crate) fn begin() -> [TableEdit; 2] {
    let set = fixed_set(OWN);
    let matches = vec![
        Match::ArpOperation(ArpOp::Reply),
        Match::ArpSenderInSet {
            interface: VMapKey::OifName,
            set: set.clone(),
            negate: false,
        },
    ];
    let chain = Chain {
        base: Some(Base {
            kind: Kind::Filter,
            hook: Hook::Output,
            priority: 0,
            policy: Policy::Accept,
        }),
        rules: vec![Rule {
            matches,
            statements: vec![Statement::Counter],
            verdict: Some(Verdict::Drop),
            comment: Text::new("the host answers for a workload's own address"),
        }],
    };
    [
        TableEdit::Set(set, SetKind::IfNameAddr(Family::V4), Vec::new()),
        TableEdit::Chain(fixed("output"), chain),
    ]
}

/// The members of one workload.
pub(crate) fn members(w: &WorkloadPolicy) -> BTreeSet<Element> {
    let v4 = w.nets.iter().filter(|c| c.family() == Family::V4);
    v4.map(|c| Element::IfNameAddr(w.interface, c.addr()))
        .collect()
}

/// Exchanges members; nothing when they are the same.
pub(crate) fn exchange(was: &BTreeSet<Element>, is: &BTreeSet<Element>) -> Option<TableEdit> {
    (was != is).then(|| TableEdit::Elements {
        set: fixed_set(OWN),
        add: is.difference(was).cloned().collect(),
        remove: was.difference(is).cloned().collect(),
    })
}
