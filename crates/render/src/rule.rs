//! One rule of a policy or profile.
//!
//! Promises: the rules that come out match together what the rule says, for both families,
//! and act alike; none come out where it can match nothing. A packet that several
//! of them match is treated as by one of them, except that Log never logs twice.
//! Never: looks at anything but the rule.

use crate::fold::{Folded, Target};
use crate::name;
use desired::{Entity, Rule};
use model::Icmp;
use net::{Cidr, Family, Protocol};
use nftables::{
    ChainName, Element, Match, NetList, PortList, SetKind, SetName, Side, Statement, Text, Verdict,
};
use std::collections::BTreeMap;

/// Prefixes that a rule holds itself; more are a set of their own, so that a change of one
/// does not bring all of them anew.
const INLINE: usize = 128;

/// The long lists of a chain's rules, as sets.
#[derive(Debug)]
pub(crate) struct Long<'a> {
    chain: &'a ChainName,
    pub(crate) sets: BTreeMap<SetName, (SetKind, Vec<Element>)>,
}

impl<'a> Long<'a> {
    pub(crate) const fn new(chain: &'a ChainName) -> Self {
        Self {
            chain,
            sets: BTreeMap::new(),
        }
    }

    /// Makes a set for a list of the rule, named by what the rule is without that list: its
    /// members may change and the rule stays. Of rules that are equal so, the position tells.
    fn put(
        &mut self,
        what: &str,
        kind: SetKind,
        family: Family,
        elements: Vec<Element>,
    ) -> SetName {
        let mut nth = 0_u32;
        loop {
            let name = name::long(self.chain, &format!("{what} {nth}"), family);
            if !self.sets.contains_key(&name) {
                self.sets.insert(name.clone(), (kind, elements));
                return name;
            }
            nth += 1;
        }
    }
}

/// What tells a rule from others whatever is in one of its lists.
fn identity(rule: &Rule, list: &str, blank: impl FnOnce(&mut Rule)) -> String {
    let mut rest = rule.clone();
    rest.annotations.clear();
    blank(&mut rest);
    format!("{list} {rest:?}")
}

/// What is done with a packet that a rule matches.
#[derive(Debug, Clone)]
pub(crate) struct Deed {
    pub(crate) statements: Vec<Statement>,
    pub(crate) verdict: Option<Verdict>,
    pub(crate) comment: Text,
}

/// Ways of which any one must hold; all matches of a way must.
type Ways = Vec<Vec<Match>>;

const WITH_PORTS: [Protocol; 3] = [Protocol::TCP, Protocol::UDP, Protocol::SCTP];

const fn icmp_protocol(family: Family) -> Protocol {
    match family {
        Family::V4 => Protocol::ICMP,
        Family::V6 => Protocol::ICMPV6,
    }
}

/// The kernel's rules for one of ours, in order.
pub(crate) fn render(f: &Folded, deed: &Deed, long: &mut Long<'_>) -> Vec<nftables::Rule> {
    let rule = &f.rule;
    let scopes: Vec<Option<Family>> = {
        let there = |family: &Family| can_match(rule, *family) && has_target(&f.targets, *family);
        let families: Vec<Family> = Family::BOTH.into_iter().filter(there).collect();
        let split = [&rule.source, &rule.destination]
            .into_iter()
            .any(needs_family)
            || !f.targets.is_empty()
            || rule.icmp.is_some()
            || rule.not_icmp.is_some();
        if families.len() == 2 && !split {
            vec![None]
        } else {
            families.into_iter().map(Some).collect()
        }
    };
    let once = deed.verdict.is_none();
    let mut out = Vec::new();
    for family in scopes {
        for matches in ways(f, family, once, long) {
            out.push(nftables::Rule {
                matches,
                statements: deed.statements.clone(),
                verdict: deed.verdict.clone(),
                comment: deed.comment.clone(),
            });
        }
    }
    out
}

fn has_target(targets: &[Target], family: Family) -> bool {
    targets.is_empty() || targets.iter().any(|(c, ..)| c.family() == family)
}

/// Whether the side asks for addresses.
fn needs_family(e: &Entity) -> bool {
    !(e.nets.is_empty()
        && e.not_nets.is_empty()
        && e.sets.is_empty()
        && e.not_sets.is_empty()
        && e.port_sets.is_empty()
        && e.not_port_sets.is_empty())
}

/// Whether the rule exists for a family.
fn can_match(rule: &Rule, family: Family) -> bool {
    let other_icmp = match family {
        Family::V4 => Protocol::ICMPV6,
        Family::V6 => Protocol::ICMP,
    };
    rule.family.is_none_or(|f| f == family)
        && rule.protocol != Some(other_icmp)
        && [&rule.source, &rule.destination].into_iter().all(|e| {
            let some_left = |l: &[Cidr]| l.is_empty() || l.iter().any(|c| c.family() == family);
            some_left(&e.nets)
                && some_left(&e.not_nets)
                // Nothing lies outside of everything.
                && !e.not_nets.contains(&Cidr::any(family))
        })
}

/// The prefixes of one family; `None` when there are none, or they hold everything.
fn net_list(nets: &[Cidr], family: Family) -> Option<NetList> {
    let own: Vec<Cidr> = nets
        .iter()
        .copied()
        .filter(|c| c.family() == family)
        .collect();
    if own.contains(&Cidr::any(family)) {
        return None;
    }
    NetList::new(own).ok()
}

/// All combinations of matches under which the rule holds in a family, or in both.
fn ways(f: &Folded, family: Option<Family>, once: bool, long: &mut Long<'_>) -> Ways {
    let rule = &f.rule;
    let sides = [
        (Side::Source, &rule.source),
        (Side::Destination, &rule.destination),
    ];
    // Cheap tests first: most packets fail on protocol or port.
    let mut dimensions: Vec<Ways> = vec![protocol(rule, family)];
    for (side, e) in sides {
        let ports = ports(side, e, family, once);
        if !ports.is_empty() {
            dimensions.push(ports);
        }
    }
    let mut always: Vec<Match> = Vec::new();
    for (side, e) in sides {
        if let Ok(ports) = PortList::new(e.not_ports.clone()) {
            always.push(Match::Ports {
                side,
                ports,
                negate: true,
            });
        }
        if let Some(family) = family {
            addresses(side, rule, family, long, &mut always);
        }
    }
    if let Some(family) = family
        && !f.targets.is_empty()
    {
        always.push(one_of(&f.targets, rule, family, long));
    }
    dimensions.push(vec![always]);
    let mut out = product(&dimensions);
    if let Some(family) = family {
        for way in &mut out {
            if !way.iter().any(tells_family) {
                way.insert(0, Match::NfProto(family));
            }
        }
    }
    out
}

/// Whether a match holds for packets of one family only.
fn tells_family(m: &Match) -> bool {
    matches!(
        m,
        Match::NfProto(_)
            | Match::Addr { .. }
            | Match::AddrInSet { .. }
            | Match::AddrPortInSet { .. }
    )
}

fn product(dimensions: &[Ways]) -> Ways {
    dimensions.iter().fold(vec![Vec::new()], |so_far, ways| {
        so_far
            .iter()
            .flat_map(|head| {
                ways.iter()
                    .map(move |tail| [head.as_slice(), tail].concat())
            })
            .collect()
    })
}

/// Protocol and ICMP. Numbers of ports mean nothing without a protocol, so that a rule
/// with ports and none is one for each that has them.
fn protocol(rule: &Rule, family: Option<Family>) -> Ways {
    let is = |proto| Match::L4Proto {
        proto,
        negate: false,
    };
    let mut head = Vec::new();
    if let Some(proto) = rule.not_protocol {
        head.push(Match::L4Proto {
            proto,
            negate: true,
        });
    }
    let numbers = [&rule.source, &rule.destination]
        .into_iter()
        .any(|e| !e.ports.is_empty() || !e.not_ports.is_empty());
    let mut out: Ways = match rule.protocol {
        Some(proto) => vec![vec![is(proto)]],
        None if numbers => WITH_PORTS.iter().map(|p| vec![is(*p)]).collect(),
        None => vec![Vec::new()],
    };
    for way in &mut out {
        way.splice(0..0, head.iter().cloned());
    }
    let Some(family) = family else { return out };
    let icmp = |i: Icmp, negate| {
        i.icmp_type.map(|kind| Match::Icmp {
            family,
            kind,
            code: i.code,
            negate,
        })
    };
    if let Some(m) = rule.icmp.and_then(|i| icmp(i, false)) {
        out.iter_mut().for_each(|way| way.push(m.clone()));
    }
    if let Some(m) = rule.not_icmp.and_then(|i| icmp(i, true)) {
        // The match holds for ICMP only; without a protocol all others are meant too.
        let proto = icmp_protocol(family);
        let others = Match::L4Proto {
            proto,
            negate: true,
        };
        let mut not = vec![vec![m]];
        if rule.protocol != Some(proto) {
            not.push(vec![others]);
        }
        out = product(&[out, not]);
    }
    out
}

/// Ports by number and by name, of which any will do.
fn ports(side: Side, e: &Entity, family: Option<Family>, once: bool) -> Ways {
    let mut out: Ways = Vec::new();
    // What was matched before, negated: so that no packet takes two ways.
    let mut before: Vec<Match> = Vec::new();
    let mut push = |yes: Match, no: Match| {
        let mut way = if once { before.clone() } else { Vec::new() };
        way.push(yes);
        before.push(no);
        out.push(way);
    };
    if let Ok(ports) = PortList::new(e.ports.clone()) {
        let m = |negate| Match::Ports {
            side,
            ports: ports.clone(),
            negate,
        };
        push(m(false), m(true));
    }
    if let Some(family) = family {
        for id in &e.port_sets {
            let set = name::set(id, family);
            let m = |negate| Match::AddrPortInSet {
                side,
                family,
                set: set.clone(),
                negate,
            };
            push(m(false), m(true));
        }
    }
    out
}

fn addresses(side: Side, rule: &Rule, family: Family, long: &mut Long<'_>, out: &mut Vec<Match>) {
    let e = match side {
        Side::Source => &rule.source,
        Side::Destination => &rule.destination,
    };
    for (nets, negate) in [(&e.nets, false), (&e.not_nets, true)] {
        let Some(nets) = net_list(nets, family) else {
            continue;
        };
        if nets.as_slice().len() <= INLINE {
            out.push(Match::Addr { side, nets, negate });
            continue;
        }
        let what = identity(rule, &format!("{side:?} {negate}"), |r| {
            let e = match side {
                Side::Source => &mut r.source,
                Side::Destination => &mut r.destination,
            };
            if negate {
                e.not_nets.clear();
            } else {
                e.nets.clear();
            }
        });
        let elements = nets.as_slice().iter().copied().map(Element::Net).collect();
        let set = long.put(&what, SetKind::Net(family), family, elements);
        out.push(Match::AddrInSet {
            side,
            family,
            set,
            negate,
        });
    }
    for (ids, negate) in [(&e.sets, false), (&e.not_sets, true)] {
        for id in ids {
            out.push(Match::AddrInSet {
                side,
                family,
                set: name::set(id, family),
                negate,
            });
        }
    }
    for id in &e.not_port_sets {
        let set = name::set(id, family);
        out.push(Match::AddrPortInSet {
            side,
            family,
            set,
            negate: true,
        });
    }
}

/// Destination, protocol and port in one look-up.
fn one_of(targets: &[Target], rule: &Rule, family: Family, long: &mut Long<'_>) -> Match {
    let own = targets.iter().filter(|(c, ..)| c.family() == family);
    let elements = own
        .map(|(c, protocol, ports)| Element::NetProtoPorts(*c, *protocol, *ports))
        .collect();
    let what = identity(rule, "targets", |_| {});
    Match::AddrPortInSet {
        side: Side::Destination,
        family,
        set: long.put(&what, SetKind::NetProtoPorts(family), family, elements),
        negate: false,
    }
}
