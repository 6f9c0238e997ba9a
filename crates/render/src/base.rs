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

use crate::name::{self, Direction, fixed, fixed_set};
use desired::{Globals, HostAction, Tunnel};
use net::{Cidr, Family, IfName, PortRange, Protocol};
use nftables::{
    Base, Chain, ChainName, CtState, Hook, IfPattern, Kind, Match, NetList, Policy, PortList, Rule,
    Side, Statement, Text, VMapKey, Verdict,
};
use std::collections::BTreeMap;
use std::net::IpAddr;

const IPIP: Protocol = Protocol(4);

/// Neighbour and multicast listener discovery: without them nothing of IPv6 works, and
/// they are no traffic of the workload. Types of RFC 4443 and 4861.
const DISCOVERY: [u8; 6] = [130, 131, 132, 133, 135, 136];

/// All chains that depend on settings alone, by name. One that is not here must not exist.
pub(crate) fn chains(g: &Globals) -> BTreeMap<ChainName, Chain> {
    let p = Prefixes(
        g.interface_prefixes
            .iter()
            .filter_map(|p| p.parse().ok())
            .collect(),
    );
    let mut out = BTreeMap::new();
    let mut add = |name, chain: Chain| {
        if !chain.rules.is_empty() {
            out.insert(fixed(name), chain);
        }
    };
    add(
        "raw-prerouting",
        base(Kind::Filter, Hook::Prerouting, -300, raw_prerouting(g, &p)),
    );
    add(
        "raw-output",
        base(Kind::Filter, Hook::Output, -300, raw_output(g)),
    );
    add("input", base(Kind::Filter, Hook::Input, 0, input(g, &p)));
    add(
        "input-host",
        base(Kind::Filter, Hook::Input, 1, input_host(g, &p)),
    );
    add(
        "forward-from",
        base(Kind::Filter, Hook::Forward, 0, forward_from(g, &p)),
    );
    add(
        "forward-to",
        base(Kind::Filter, Hook::Forward, 1, forward_to(g, &p)),
    );
    add(
        "discovery",
        Chain {
            base: None,
            rules: discovery(),
        },
    );
    // After kube-proxy's chain at 100, whose masquerade is to win: the first to
    // translate a connection decides.
    add(
        "postrouting",
        base(Kind::Nat, Hook::Postrouting, 110, postrouting(g)),
    );
    out
}

/// Names of all chains that [`chains`] may hold.
pub(crate) const NAMES: [&str; 8] = [
    "raw-prerouting",
    "raw-output",
    "input",
    "input-host",
    "forward-from",
    "forward-to",
    "discovery",
    "postrouting",
];

const fn base(kind: Kind, hook: Hook, priority: i32, rules: Vec<Rule>) -> Chain {
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

struct Prefixes(Vec<IfName>);

impl Prefixes {
    fn from(&self) -> impl Iterator<Item = Match> {
        self.0.iter().map(|p| Match::IifName {
            pattern: IfPattern::Prefix(*p),
            negate: false,
        })
    }

    fn to(&self) -> impl Iterator<Item = Match> {
        self.0.iter().map(|p| Match::OifName {
            pattern: IfPattern::Prefix(*p),
            negate: false,
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

fn rule(matches: Vec<Match>, verdict: Verdict) -> Rule {
    Rule {
        matches,
        verdict: Some(verdict),
        ..Rule::default()
    }
}

fn deny(matches: Vec<Match>, comment: &str) -> Rule {
    Rule {
        matches,
        statements: vec![Statement::Counter],
        verdict: Some(Verdict::Drop),
        comment: Text::new(comment),
    }
}

fn act(matches: Vec<Match>, statement: Statement) -> Rule {
    Rule {
        matches,
        statements: vec![statement],
        ..Rule::default()
    }
}

const fn proto(proto: Protocol) -> Match {
    Match::L4Proto {
        proto,
        negate: false,
    }
}

fn to_port(port: u16) -> [Match; 2] {
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

fn established() -> Rule {
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
        .map(|i| deny(vec![m.clone(), i], "invalid connection state"))
        .collect()
}

fn tunnels(g: &Globals) -> impl Iterator<Item = (Family, &Tunnel)> {
    Family::BOTH
        .into_iter()
        .filter_map(|f| g.tunnel(f).map(|t| (f, t)))
}

fn dispatch(d: Direction) -> Rule {
    let key = match d {
        Direction::Ingress => VMapKey::OifName,
        Direction::Egress => VMapKey::IifName,
    };
    act(
        Vec::new(),
        Statement::VMap {
            key,
            map: fixed_set(d.map()),
        },
    )
}

/// Encapsulated packets that a workload makes itself would pass for the node's own.
fn no_tunnels_from(g: &Globals, p: &Prefixes) -> Vec<Rule> {
    let mut out = Vec::new();
    if !g.allow_vxlan_from_workloads {
        for from in p.from() {
            let matches = to_port(g.vxlan_port).into_iter().chain([from]).collect();
            out.push(deny(matches, "VXLAN from a workload"));
        }
    }
    if !g.allow_ipip_from_workloads {
        for from in p.from() {
            out.push(deny(vec![proto(IPIP), from], "IP in IP from a workload"));
        }
    }
    out
}

fn forward_from(g: &Globals, p: &Prefixes) -> Vec<Rule> {
    let mut out = vec![established()];
    out.extend(invalid(g, p.from()));
    out.extend(no_tunnels_from(g, p));
    out.push(dispatch(Direction::Egress));
    out.extend(p.from().map(|m| deny(vec![m], "from an unknown workload")));
    out
}

fn forward_to(g: &Globals, p: &Prefixes) -> Vec<Rule> {
    let mut out = vec![established()];
    out.extend(invalid(g, p.to()));
    out.push(dispatch(Direction::Ingress));
    out.extend(p.to().map(|m| deny(vec![m], "to an unknown workload")));
    out
}

/// Only nodes may send VXLAN here: first, since it is not tracked.
fn guard(g: &Globals) -> Vec<Rule> {
    let mut out = Vec::new();
    for (family, t) in tunnels(g) {
        let mut known = to_port(t.port).to_vec();
        let set = name::vxlan_hosts(family);
        known.push(Match::AddrInSet {
            side: Side::Source,
            family,
            set,
            negate: false,
        });
        out.push(rule(known, Verdict::Accept));
        let mut other = vec![Match::NfProto(family)];
        other.extend(to_port(t.port));
        out.push(deny(other, "VXLAN from an unknown node"));
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

fn discovery() -> Vec<Rule> {
    DISCOVERY
        .iter()
        .map(|kind| {
            let m = Match::Icmp {
                family: Family::V6,
                kind: *kind,
                code: None,
                negate: false,
            };
            rule(vec![m], Verdict::Accept)
        })
        .collect()
}

fn input(g: &Globals, p: &Prefixes) -> Vec<Rule> {
    let mut out = guard(g);
    out.push(established());
    out.extend(invalid(g, p.from()));
    out.extend(discovery_from(p));
    out.extend(no_tunnels_from(g, p));
    out.push(dispatch(Direction::Egress));
    out.extend(p.from().map(|m| deny(vec![m], "from an unknown workload")));
    out
}

/// What policy let through to the host itself. To accept and to leave it to others are
/// one here: neither keeps the chains of others from judging.
fn input_host(g: &Globals, p: &Prefixes) -> Vec<Rule> {
    if g.endpoint_to_host != HostAction::Drop {
        return Vec::new();
    }
    let mut out = vec![established()];
    out.extend(discovery_from(p));
    out.extend(
        p.from()
            .map(|m| deny(vec![m], "from a workload to its host")),
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

fn raw_output(g: &Globals) -> Vec<Rule> {
    notrack(g, &[])
}

fn raw_prerouting(g: &Globals, p: &Prefixes) -> Vec<Rule> {
    let not_from: Vec<Match> = p.not_from().collect();
    let mut out = notrack(g, &not_from);
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
        out.push(deny(v4, "source is not the workload's"));
        let mut v6 = vec![from];
        if let Ok(nets) = NetList::new(local.clone()) {
            v6.push(Match::Addr {
                side: Side::Source,
                nets,
                negate: true,
            });
        }
        v6.push(Match::RpfMissing);
        out.push(deny(v6, "source is not the workload's"));
    }
    out
}

/// The map from interface to the chain of its further sources.
pub(crate) const SOURCES: &str = "workload-sources";

fn postrouting(g: &Globals) -> Vec<Rule> {
    let mut out = Vec::new();
    for family in Family::BOTH {
        out.extend(nat_outgoing(g, family));
    }
    for (family, t) in tunnels(g) {
        out.extend(host_through_tunnel(family, t));
    }
    out
}

/// From pools that ask for it, to whatever is in no pool.
fn nat_outgoing(g: &Globals, family: Family) -> Vec<Rule> {
    let of = |nets: &[Cidr]| nets.iter().any(|c| c.family() == family);
    if !of(&g.nat.sources) {
        return Vec::new();
    }
    let set = name::nat_sources(family);
    let mut matches = vec![Match::AddrInSet {
        side: Side::Source,
        family,
        set,
        negate: false,
    }];
    if of(&g.nat.exclude) {
        let set = name::nat_exclude(family);
        matches.push(Match::AddrInSet {
            side: Side::Destination,
            family,
            set,
            negate: true,
        });
    }
    let address = g.nat.address.filter(|a| Family::of(*a) == family);
    translate(matches, address, g.nat.ports)
}

/// Port ranges hold for TCP and UDP; other protocols are translated without.
fn translate(matches: Vec<Match>, to: Option<IpAddr>, ports: Option<PortRange>) -> Vec<Rule> {
    let statement = |ports| match to {
        Some(addr) => Statement::Snat { addr, ports },
        None => Statement::Masquerade {
            fully_random: true,
            ports,
        },
    };
    let mut out = Vec::new();
    if ports.is_some() {
        for p in [Protocol::TCP, Protocol::UDP] {
            let mut m = vec![proto(p)];
            m.extend(matches.iter().cloned());
            out.push(act(m, statement(ports)));
        }
    }
    out.push(act(matches, statement(None)));
    out
}

/// What the host sends into the tunnel must come back through it, so it leaves with the
/// tunnel's address. UDP stays clear of the VXLAN port: answers to it would not be tracked.
fn host_through_tunnel(family: Family, t: &Tunnel) -> Vec<Rule> {
    let Some(own) = t.address else {
        return Vec::new();
    };
    let matches = vec![
        Match::OifName {
            pattern: IfPattern::Exact(t.device),
            negate: false,
        },
        Match::Addr {
            side: Side::Source,
            nets: NetList::from(Cidr::host(own)),
            negate: true,
        },
        Match::FibLocal {
            side: Side::Source,
            negate: false,
        },
    ];
    debug_assert_eq!(Family::of(own), family);
    let clear = if t.port < 0x8000 {
        PortRange::new(t.port + 1, u16::MAX)
    } else {
        PortRange::new(1024, t.port - 1)
    };
    let mut udp = vec![proto(Protocol::UDP)];
    udp.extend(matches.iter().cloned());
    let masquerade = |ports| Statement::Masquerade {
        fully_random: true,
        ports,
    };
    vec![act(udp, masquerade(clear)), act(matches, masquerade(None))]
}
