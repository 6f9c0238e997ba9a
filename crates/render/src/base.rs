//! The base chains: what every packet meets.
//!
//! Promises: a packet of an established connection is through after one rule in each base
//! chain; a workload interface that is not known is closed in both directions; packets
//! between the host and other machines are left to others, except VXLAN to this node,
//! which only known nodes may send.
//!
//! Egress and ingress are judged in two base chains of the same hook, so that Allow is
//! a plain accept in both: it ends one base chain, and the other still judges. No mark
//! carries a verdict, and no chain of egress policies leads to those of ingress.
//!
//! Never: names an endpoint or a policy.

use crate::features::Sets;
use crate::name::{self, Direction, fixed, fixed_set};
use crate::policy;
use crate::role::{Flavour, Role};
use crate::{ACCEPT_MARK, hosthooks, translate};
use desired::{DenyAction, Globals, HostAction, ServiceLoop, Tunnel};
use net::{Cidr, Family, IfName, PortRange, Protocol};
use nftables::{
    Base, Chain, ChainName, CtState, Hook, IfPattern, Kind, Match, NetList, Policy, PortList,
    Reject, Rule, SetName, Side, Statement, Text, VMapKey, Verdict,
};
use std::collections::BTreeMap;

pub(crate) const IPIP: Protocol = Protocol(4);

/// Neighbour and multicast listener discovery: without them nothing of IPv6 works, and
/// they are no traffic of the workload. Types of RFC 4443 and 4861.
const DISCOVERY: [u8; 6] = [130, 131, 132, 133, 135, 136];

/// A role that somebody fills.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Use {
    /// The stack of `*`, where it has one.
    pub(crate) fallback: Option<ChainName>,
    /// Whether some interface has a stack of its own there.
    pub(crate) judges: bool,
}

/// DSCP marks of host endpoints.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Dscp {
    /// Interfaces that are taken, each with its mark if it has one.
    pub(crate) interfaces: Vec<(IfName, Option<nftables::Dscp>)>,
    /// Of all others.
    pub(crate) any: Option<nftables::Dscp>,
}

impl Dscp {
    pub(crate) fn is_empty(&self) -> bool {
        self.any.is_none() && self.interfaces.iter().all(|(_, v)| v.is_none())
    }
}

/// What host endpoints ask of the base chains.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Uses {
    pub(crate) roles: BTreeMap<Role, Use>,
    pub(crate) dscp: Dscp,
}

impl Uses {
    pub(crate) fn has(&self, role: Role) -> bool {
        self.roles.contains_key(&role)
    }

    /// Whether some packet arrives where it is decided that it may pass the host.
    pub(crate) fn marks_arrivals(&self) -> bool {
        self.has(Role::RawIn) || self.has(Role::PreDnat)
    }
}

/// What base chains depend on.
pub(crate) struct Ground<'a> {
    pub(crate) globals: &'a Globals,
    pub(crate) prefixes: Prefixes,
    pub(crate) uses: &'a Uses,
    /// The sets that there are.
    pub(crate) sets: &'a Sets,
}

impl Ground<'_> {
    pub(crate) fn has(&self, set: &SetName) -> bool {
        self.sets.contains_key(set)
    }

    /// The family's half, while it has members.
    pub(crate) fn half(&self, set: fn(Family) -> SetName, family: Family) -> Option<SetName> {
        Some(set(family)).filter(|s| self.has(s))
    }
}

/// All chains that depend on settings and on what is in use, by name. One that is not here
/// must not exist.
pub(crate) fn chains(
    g: &Globals,
    uses: &Uses,
    sets: &Sets,
    answers: bool,
) -> BTreeMap<ChainName, Chain> {
    let at = Ground {
        globals: g,
        prefixes: Prefixes(
            g.interface_prefixes
                .iter()
                .filter_map(|p| p.parse().ok())
                .collect(),
        ),
        uses,
        sets,
    };
    let mut out = BTreeMap::new();
    let mut add = |name, chain: Chain| {
        if !chain.rules.is_empty() {
            out.insert(fixed(name), chain);
        }
    };
    let filter = |hook, priority, rules| base(Kind::Filter, hook, priority, rules);
    add(
        "raw-prerouting",
        filter(Hook::Prerouting, -300, raw_prerouting(&at)),
    );
    add("raw-output", filter(Hook::Output, -300, raw_output(&at)));
    add("input", filter(Hook::Input, 0, input(&at)));
    add("input-host", filter(Hook::Input, 1, input_host(&at)));
    add("forward-from", filter(Hook::Forward, 0, forward_from(&at)));
    add("forward-to", filter(Hook::Forward, 1, forward_to(&at)));
    add("discovery", plain(discovery(&DISCOVERY)));
    add("denied", plain(reject(&at)));
    // Before kube-proxy's chains at -100 in both hooks.
    add(
        "floating-in",
        base(
            Kind::Nat,
            Hook::Prerouting,
            -110,
            translate::floating_in(&at),
        ),
    );
    add(
        "floating-out",
        base(Kind::Nat, Hook::Output, -110, translate::floating_in(&at)),
    );
    // After kube-proxy's chain at 100, whose masquerade is to win: the first to
    // translate a connection decides.
    add(
        "postrouting",
        base(
            Kind::Nat,
            Hook::Postrouting,
            110,
            translate::postrouting(&at),
        ),
    );
    add(
        "mark-dscp",
        filter(Hook::Postrouting, -150, translate::dscp(&at)),
    );
    if answers {
        add(
            "answers",
            filter(Hook::Postrouting, 300, crate::answers::copies(&at.prefixes)),
        );
    }
    hosthooks::chains(&at, &mut out);
    out
}

pub(crate) const fn plain(rules: Vec<Rule>) -> Chain {
    Chain { base: None, rules }
}

pub(crate) const fn base(kind: Kind, hook: Hook, priority: i32, rules: Vec<Rule>) -> Chain {
    Chain {
        base: Some(Base {
            kind,
            hook,
            priority,
            policy: Policy::Accept,
        }),
        rules,
    }
}

pub(crate) struct Prefixes(Vec<IfName>);

impl Prefixes {
    fn from(&self) -> impl Iterator<Item = Match> {
        self.0.iter().map(|p| Match::IifName {
            pattern: IfPattern::Prefix(*p),
            negate: false,
        })
    }

    pub(crate) fn to(&self) -> impl Iterator<Item = Match> {
        self.0.iter().map(|p| Match::OifName {
            pattern: IfPattern::Prefix(*p),
            negate: false,
        })
    }

    /// All must hold: it goes to no workload.
    pub(crate) fn not_to(&self) -> impl Iterator<Item = Match> {
        self.0.iter().map(|p| Match::OifName {
            pattern: IfPattern::Prefix(*p),
            negate: true,
        })
    }

    /// All must hold: it came from no workload.
    fn not_from(&self) -> impl Iterator<Item = Match> {
        self.0.iter().map(|p| Match::IifName {
            pattern: IfPattern::Prefix(*p),
            negate: true,
        })
    }
}

pub(crate) fn rule(matches: Vec<Match>, verdict: Verdict) -> Rule {
    Rule {
        matches,
        verdict: Some(verdict),
        ..Rule::default()
    }
}

/// Drops, whatever is configured.
fn drop_rule(matches: Vec<Match>, comment: &str) -> Rule {
    end(matches, Verdict::Drop, comment)
}

pub(crate) fn end(matches: Vec<Match>, verdict: Verdict, comment: &str) -> Rule {
    Rule {
        matches,
        statements: vec![Statement::Counter],
        verdict: Some(verdict),
        comment: Text::new(comment),
    }
}

fn deny(g: &Globals, matches: Vec<Match>, comment: &str) -> Rule {
    end(matches, policy::denial(g, Flavour::Plain), comment)
}

pub(crate) fn act(matches: Vec<Match>, statement: Statement) -> Rule {
    Rule {
        matches,
        statements: vec![statement],
        ..Rule::default()
    }
}

pub(crate) const fn proto(proto: Protocol) -> Match {
    Match::L4Proto {
        proto,
        negate: false,
    }
}

pub(crate) fn to_port(port: u16) -> [Match; 2] {
    let ports = PortList::from(PortRange::one(port));
    [
        proto(Protocol::UDP),
        Match::Ports {
            side: Side::Destination,
            ports,
            negate: false,
        },
    ]
}

pub(crate) fn established() -> Rule {
    let states = CtState::ESTABLISHED | CtState::RELATED;
    rule(
        vec![Match::CtState {
            states,
            negate: false,
        }],
        Verdict::Accept,
    )
}

fn invalid(g: &Globals, interfaces: impl Iterator<Item = Match>) -> Vec<Rule> {
    if g.allow_invalid {
        return Vec::new();
    }
    let m = Match::CtState {
        states: CtState::INVALID,
        negate: false,
    };
    interfaces
        .map(|i| deny(g, vec![m.clone(), i], "invalid connection state"))
        .collect()
}

pub(crate) fn tunnels(g: &Globals) -> impl Iterator<Item = (Family, &Tunnel)> {
    Family::BOTH
        .into_iter()
        .filter_map(|f| g.tunnel(f).map(|t| (f, t)))
}

/// Looks the packet's interface up in a role's map.
pub(crate) fn dispatch(role: Role) -> Rule {
    let key = match role {
        Role::FromWorkload | Role::HostIn | Role::ForwardIn | Role::RawIn | Role::PreDnat => {
            VMapKey::IifName
        }
        _ => VMapKey::OifName,
    };
    act(
        Vec::new(),
        Statement::VMap {
            key,
            map: fixed_set(role.map()),
        },
    )
}

/// Encapsulated packets that a workload makes itself would pass for the node's own.
fn no_tunnels_from(g: &Globals, p: &Prefixes) -> Vec<Rule> {
    let mut out = Vec::new();
    if !g.allow_vxlan_from_workloads {
        for from in p.from() {
            let matches = to_port(g.vxlan_port).into_iter().chain([from]).collect();
            out.push(deny(g, matches, "VXLAN from a workload"));
        }
    }
    if !g.allow_ipip_from_workloads {
        for from in p.from() {
            out.push(deny(g, vec![proto(IPIP), from], "IP in IP from a workload"));
        }
    }
    out
}

/// An interface of the packet in a set.
fn among(d: Direction, set: SetName) -> Match {
    let pattern = IfPattern::InSet(set);
    let negate = false;
    match d {
        Direction::Ingress => Match::OifName { pattern, negate },
        Direction::Egress => Match::IifName { pattern, negate },
    }
}

/// Packets above a workload's rate, whatever connection they are of.
fn over_rate(at: &Ground<'_>, d: Direction) -> Option<Rule> {
    let set = name::rates(d);
    at.has(&set)
        .then(|| drop_rule(vec![among(d, set)], "above the workload's packet rate"))
}

/// New TCP connections above a workload's number of them.
fn over_count(at: &Ground<'_>, d: Direction) -> Option<Rule> {
    let set = name::connections(d);
    at.has(&set).then(|| {
        let new = Match::CtState {
            states: CtState::NEW,
            negate: false,
        };
        Rule {
            matches: vec![proto(Protocol::TCP), new, among(d, set)],
            statements: vec![Statement::Counter, Statement::Reject(Reject::TcpReset)],
            verdict: None,
            comment: Text::new("above the workload's number of connections"),
        }
    })
}

/// What goes to a service's address untranslated would come back from the router. It is
/// dropped before policy: whatever that says, it goes nowhere.
fn service_loop(at: &Ground<'_>) -> Vec<Rule> {
    let verdict = match at.globals.service_loop {
        ServiceLoop::Reject => Verdict::Goto(fixed("denied")),
        _ => Verdict::Drop,
    };
    let one = |f| {
        let set = at.half(name::services, f)?;
        let to = in_set(Side::Destination, f, set, false);
        Some(end(
            vec![to],
            verdict.clone(),
            "a service that nobody serves",
        ))
    };
    Family::BOTH.into_iter().filter_map(one).collect()
}

pub(crate) const fn in_set(side: Side, family: Family, set: SetName, negate: bool) -> Match {
    Match::AddrInSet {
        side,
        family,
        set,
        negate,
    }
}

/// Established connections, and what limits hold beyond policy.
fn known(at: &Ground<'_>, d: Direction) -> Vec<Rule> {
    let mut out: Vec<Rule> = over_rate(at, d).into_iter().collect();
    out.push(established());
    out.extend(over_count(at, d));
    out
}

fn forward_from(at: &Ground<'_>) -> Vec<Rule> {
    let (g, p) = (at.globals, &at.prefixes);
    let mut out = known(at, Direction::Egress);
    out.extend(service_loop(at));
    out.extend(invalid(g, p.from()));
    out.extend(from_workloads(g, p));
    out
}

/// Everything from a workload is decided here.
fn from_workloads(g: &Globals, p: &Prefixes) -> Vec<Rule> {
    let mut out = no_tunnels_from(g, p);
    out.push(dispatch(Role::FromWorkload));
    out.extend(
        p.from()
            .map(|m| deny(g, vec![m], "from an unknown workload")),
    );
    out
}

fn forward_to(at: &Ground<'_>) -> Vec<Rule> {
    let (g, p) = (at.globals, &at.prefixes);
    let mut out = known(at, Direction::Ingress);
    out.extend(invalid(g, p.to()));
    out.push(dispatch(Role::ToWorkload));
    out.extend(p.to().map(|m| deny(g, vec![m], "to an unknown workload")));
    out
}

/// Answers what is denied.
fn reject(at: &Ground<'_>) -> Vec<Rule> {
    let g = at.globals;
    let loops = g.service_loop == ServiceLoop::Reject;
    let served = |f| at.half(name::services, f).is_some();
    if g.deny != DenyAction::Reject && !(loops && Family::BOTH.into_iter().any(served)) {
        return Vec::new();
    }
    vec![
        act(
            vec![proto(Protocol::TCP)],
            Statement::Reject(Reject::TcpReset),
        ),
        act(Vec::new(), Statement::Reject(Reject::AdminProhibited)),
    ]
}

/// Only nodes may send VXLAN and IP in IP here: first, since VXLAN is not tracked.
fn guard(at: &Ground<'_>) -> Vec<Rule> {
    let g = at.globals;
    let mut out = Vec::new();
    for (family, t) in tunnels(g) {
        let mut known = to_port(t.port).to_vec();
        let set = name::vxlan_hosts(family);
        known.push(in_set(Side::Source, family, set, false));
        out.push(rule(known, Verdict::Accept));
        let mut other = vec![Match::NfProto(family)];
        other.extend(to_port(t.port));
        out.push(deny(g, other, "VXLAN from an unknown node"));
    }
    let mut guarded = false;
    for family in Family::BOTH {
        let Some(set) = at.half(name::ipip_hosts, family) else {
            continue;
        };
        guarded = true;
        let here = Match::FibLocal {
            side: Side::Destination,
            negate: false,
        };
        let from = in_set(Side::Source, family, set, false);
        out.push(rule(vec![proto(IPIP), from, here], Verdict::Accept));
    }
    if guarded {
        out.push(deny(g, vec![proto(IPIP)], "IP in IP from an unknown node"));
    }
    out
}

fn discovery_from(p: &Prefixes) -> impl Iterator<Item = Rule> {
    p.from().map(|m| {
        rule(
            vec![proto(Protocol::ICMPV6), m],
            Verdict::Jump(fixed("discovery")),
        )
    })
}

pub(crate) fn discovery(types: &[u8]) -> Vec<Rule> {
    let one = |kind: &u8| {
        let m = Match::Icmp {
            family: Family::V6,
            kind: *kind,
            code: None,
            negate: false,
        };
        rule(vec![m], Verdict::Accept)
    };
    types.iter().map(one).collect()
}

fn input(at: &Ground<'_>) -> Vec<Rule> {
    let (g, p) = (at.globals, &at.prefixes);
    let mut out = guard(at);
    out.extend(known(at, Direction::Egress));
    out.extend(invalid(g, p.from()));
    out.extend(discovery_from(p));
    out.extend(from_workloads(g, p));
    out.extend(hosthooks::input(at));
    out
}

/// What policy let through to the host itself. To accept and to leave it to others are
/// one here: neither keeps the chains of others from judging.
fn input_host(at: &Ground<'_>) -> Vec<Rule> {
    let p = &at.prefixes;
    if at.globals.endpoint_to_host != HostAction::Drop {
        return Vec::new();
    }
    let mut out = vec![established()];
    out.extend(discovery_from(p));
    out.extend(
        p.from()
            .map(|m| drop_rule(vec![m], "from a workload to its host")),
    );
    out
}

/// Tunnel packets are not tracked: the entries would be many and say nothing.
fn notrack(g: &Globals, more: &[Match]) -> Vec<Rule> {
    tunnels(g)
        .map(|(family, t)| {
            let mut m = vec![Match::NfProto(family)];
            m.extend(to_port(t.port));
            m.extend_from_slice(more);
            act(m, Statement::Notrack)
        })
        .collect()
}

/// The bit may be somebody else's, or of another packet's way, until here.
const CLEAR: Statement = Statement::SetMark {
    mask: ACCEPT_MARK,
    value: 0,
};

fn raw_output(at: &Ground<'_>) -> Vec<Rule> {
    let mut out = Vec::new();
    let untracked = at.uses.has(Role::RawOut);
    if untracked {
        out.push(act(Vec::new(), CLEAR));
    }
    out.extend(notrack(at.globals, &[]));
    if untracked {
        out.extend(hosthooks::judge(at, Role::RawOut));
    }
    out
}

fn raw_prerouting(at: &Ground<'_>) -> Vec<Rule> {
    let (g, p) = (at.globals, &at.prefixes);
    let not_from: Vec<Match> = p.not_from().collect();
    let mut out = Vec::new();
    if at.uses.marks_arrivals() {
        out.push(act(Vec::new(), CLEAR));
    }
    out.extend(notrack(g, &not_from));
    if g.spoofing == desired::Spoofing::Any {
        let map = fixed_set(SOURCES);
        out.push(act(
            Vec::new(),
            Statement::VMap {
                key: VMapKey::IifName,
                map,
            },
        ));
    }
    // Link-local sources are never routed, and before an address is confirmed there is
    // none: both stay on the link, where neighbour discovery needs them.
    let local: Vec<Cidr> = ["fe80::/10", "::/128"]
        .iter()
        .filter_map(|c| c.parse().ok())
        .collect();
    for from in p.from() {
        let v4 = vec![from.clone(), Match::NfProto(Family::V4), Match::RpfMissing];
        out.push(drop_rule(v4, "source is not the workload's"));
        let mut v6 = vec![from];
        if let Ok(nets) = NetList::new(local.clone()) {
            v6.push(Match::Addr {
                side: Side::Source,
                nets,
                negate: true,
            });
        }
        v6.push(Match::RpfMissing);
        out.push(drop_rule(v6, "source is not the workload's"));
    }
    if at.uses.has(Role::RawIn) {
        out.extend(hosthooks::judge(at, Role::RawIn));
    }
    out
}

/// The map from interface to the chain of its further sources.
pub(crate) const SOURCES: &str = "workload-sources";
