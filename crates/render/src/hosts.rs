//! Host endpoints: which interfaces they have, and what hangs there.
//!
//! Promises: an interface belongs to the first host endpoint, by name, of those that name it
//! or one of its addresses; the first `*` takes all others. A role that nobody fills has no
//! map, and its hook no chain.
//! Never: knows an interface but from what it is told.

use crate::base::{Dscp, Use, Uses};
use crate::changes::TableEdit;
use crate::endpoint::Stack;
use crate::library::{Library, Needs};
use crate::name::fixed_set;
use crate::role::Role;
use crate::stacks::Stacks;
use desired::{Globals, HostMatch, HostPolicy};
use net::IfName;
use nftables::{Chain, ChainName, Element, SetKind, SetName, Verdict};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

/// The interfaces of the node with their addresses.
pub type Interfaces = BTreeMap<IfName, BTreeSet<IpAddr>>;

/// What host endpoints have in the table.
#[derive(Debug, Default, PartialEq, Eq)]
struct Live {
    /// Members of the maps of roles in use.
    maps: BTreeMap<Role, BTreeSet<Element>>,
    /// Interfaces that have a stack there.
    judged: BTreeMap<Role, BTreeSet<Element>>,
    /// First chains of all stacks in use, as often as they are.
    stacks: Vec<ChainName>,
}

/// Host endpoints and their interfaces.
#[derive(Debug, Default)]
pub(crate) struct Hosts {
    wanted: BTreeMap<Arc<str>, Arc<HostPolicy>>,
    interfaces: Interfaces,
    live: Live,
    uses: Uses,
}

/// What a host endpoint needs of the library.
pub(crate) fn needs(h: &HostPolicy, g: &Globals) -> Needs {
    let mut out = Needs::default();
    for role in Role::HOST {
        // Nothing of `*` is done before tracking: see there.
        if !here(h, role) {
            continue;
        }
        for key in role.tiers(h).iter().flat_map(|t| role.policies(t)) {
            let flavours = out.policies.entry(key.clone()).or_default();
            flavours.insert(role.flavour(g));
        }
        if role.closes() {
            for id in &h.profiles {
                let flavours = out.profiles.entry(id.clone()).or_default();
                flavours.insert(role.flavour(g));
            }
        }
    }
    out
}

/// Whether a host endpoint fills a role at all: `*` is never untracked, as in the reference.
fn here(h: &HostPolicy, role: Role) -> bool {
    !(matches!(role, Role::RawIn | Role::RawOut) && h.interface == HostMatch::Any)
}

impl Hosts {
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&Arc<str>, &Arc<HostPolicy>)> {
        self.wanted.iter()
    }

    /// Sets or removes one; gives the one before.
    pub(crate) fn set(
        &mut self,
        name: &Arc<str>,
        new: Option<Arc<HostPolicy>>,
    ) -> Option<Arc<HostPolicy>> {
        match new {
            Some(h) => self.wanted.insert(name.clone(), h),
            None => self.wanted.remove(name),
        }
    }

    /// Takes note of the interfaces. True if some host endpoint asks for addresses.
    pub(crate) fn set_interfaces(&mut self, interfaces: Interfaces) -> bool {
        let asked = |h: &Arc<HostPolicy>| matches!(h.interface, HostMatch::Addresses(_));
        let changed = self.interfaces != interfaces;
        self.interfaces = interfaces;
        changed && self.wanted.values().any(asked)
    }

    pub(crate) const fn uses(&self) -> &Uses {
        &self.uses
    }

    /// Whose each interface is, but for those of `*`.
    pub(crate) fn bound(&self) -> BTreeMap<IfName, Arc<str>> {
        let mut out: BTreeMap<IfName, Arc<str>> = BTreeMap::new();
        for (name, h) in &self.wanted {
            match &h.interface {
                HostMatch::Interface(i) => {
                    out.entry(*i).or_insert_with(|| name.clone());
                }
                HostMatch::Addresses(wanted) => {
                    let has = |held: &BTreeSet<IpAddr>| wanted.iter().any(|a| held.contains(a));
                    for (i, _) in self.interfaces.iter().filter(|(_, held)| has(held)) {
                        out.entry(*i).or_insert_with(|| name.clone());
                    }
                }
                HostMatch::Any => {}
            }
        }
        out
    }

    /// The one that takes what no other does.
    fn any(&self) -> Option<&Arc<HostPolicy>> {
        self.wanted.values().find(|h| h.interface == HostMatch::Any)
    }

    /// Brings the maps and stacks to what they are to be.
    pub(crate) fn render(
        &mut self,
        g: &Globals,
        library: &Library,
        stacks: &mut Stacks,
        out: &mut Vec<TableEdit>,
    ) {
        let bound = self.bound();
        let mut new = Live::default();
        let mut uses = Uses::default();
        let mut made: BTreeMap<ChainName, Vec<(ChainName, Chain)>> = BTreeMap::new();
        for role in Role::HOST {
            let mut enter = |h: &HostPolicy| {
                let d = role.direction();
                let stack = Stack {
                    role,
                    globals: g,
                    tiers: role.tiers(h),
                    profiles: &h.profiles,
                    policy: |k: &model::PolicyKey| library.policy(k, d),
                    profile: |k: &str| library.profile(k, d),
                };
                if stack.is_open() || !here(h, role) {
                    return None;
                }
                let first = stack.first();
                made.entry(first.clone()).or_insert_with(|| stack.chains());
                new.stacks.push(first.clone());
                Some(first)
            };
            let fallback = self.any().and_then(|h| enter(h));
            let (mut members, mut judged) = (BTreeSet::new(), BTreeSet::new());
            for (i, name) in &bound {
                let first = self.wanted.get(name).and_then(|h| enter(h));
                let verdict = match first {
                    // A jump, for the reason that workloads have one.
                    Some(first) => Verdict::Jump(first),
                    // Taken, so that the fallback is not asked.
                    None if fallback.is_some() => Verdict::Accept,
                    None => continue,
                };
                if matches!(verdict, Verdict::Jump(_)) {
                    judged.insert(Element::IfName(*i));
                }
                members.insert(Element::IfNameVerdict(*i, verdict));
            }
            if !members.is_empty() || fallback.is_some() {
                let judges = !judged.is_empty();
                uses.roles.insert(role, Use { fallback, judges });
                new.maps.insert(role, members);
                if judges {
                    new.judged.insert(role, judged);
                }
            }
        }
        uses.dscp = self.dscp(&bound);
        self.uses = uses;
        self.swap(new, made, stacks, out);
    }

    fn swap(
        &mut self,
        new: Live,
        mut made: BTreeMap<ChainName, Vec<(ChainName, Chain)>>,
        stacks: &mut Stacks,
        out: &mut Vec<TableEdit>,
    ) {
        for first in &new.stacks {
            let make = || made.remove(first).unwrap_or_default();
            stacks.enter(first, make, out);
        }
        let old = std::mem::replace(&mut self.live, new);
        for first in &old.stacks {
            stacks.leave(first, out);
        }
        for role in Role::HOST {
            let (was, is) = (old.maps.get(&role), self.live.maps.get(&role));
            exchange(fixed_set(role.map()), SetKind::IfNameVerdict, was, is, out);
            let (was, is) = (old.judged.get(&role), self.live.judged.get(&role));
            exchange(role.judged(), SetKind::IfName, was, is, out);
        }
    }

    /// What host endpoints mark: by interface, and by the fallback.
    fn dscp(&self, bound: &BTreeMap<IfName, Arc<str>>) -> Dscp {
        let value = |h: &HostPolicy| h.dscp.and_then(|v| nftables::Dscp::new(v).ok());
        let of = |name: &Arc<str>| self.wanted.get(name).and_then(|h| value(h));
        Dscp {
            interfaces: bound.iter().map(|(i, name)| (*i, of(name))).collect(),
            any: self.any().and_then(|h| value(h)),
        }
    }
}

/// Brings a set from one state to another; it is there while it has one.
fn exchange(
    set: SetName,
    kind: SetKind,
    was: Option<&BTreeSet<Element>>,
    is: Option<&BTreeSet<Element>>,
    out: &mut Vec<TableEdit>,
) {
    match (was, is) {
        (Some(_), None) => out.push(TableEdit::RemoveSet(set)),
        (None, Some(is)) => out.push(TableEdit::Set(set, kind, is.iter().cloned().collect())),
        (Some(was), Some(is)) if was != is => out.push(TableEdit::Elements {
            set,
            add: is.difference(was).cloned().collect(),
            remove: was.difference(is).cloned().collect(),
        }),
        _ => {}
    }
}
