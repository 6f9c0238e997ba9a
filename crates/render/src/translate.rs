//! What is rewritten on its way: floating addresses, sources that leave the pools, DSCP.
//!
//! Promises: the first to translate a connection decides, and kube-proxy's masquerade is first;
//! marks are only on what leaves the cluster.
//! Never: judges.

use crate::base::{Ground, act, in_set, proto, rule, tunnels};
use crate::name;
use desired::{Globals, Tunnel};
use net::{Cidr, Family, PortRange, Protocol};
use nftables::{IfPattern, Match, NetList, Rule, Side, Statement, Text, Verdict};
use std::net::IpAddr;

/// From the outside address of a workload to its inside one.
pub(crate) fn floating_in(at: &Ground<'_>) -> Vec<Rule> {
    let one = |family| {
        let map = at.half(name::floating, family)?;
        Some(act(Vec::new(), Statement::DnatMap { family, map }))
    };
    Family::BOTH.into_iter().filter_map(one).collect()
}

pub(crate) fn postrouting(at: &Ground<'_>) -> Vec<Rule> {
    let mut out = Vec::new();
    for family in Family::BOTH {
        // A workload that speaks to itself through its outside address must see that one.
        if let (Some(set), Some(map)) = (
            at.half(name::floating_self, family),
            at.half(name::floating_back, family),
        ) {
            let own = Match::NetPairInSet {
                family,
                set,
                negate: false,
            };
            out.push(act(vec![own], Statement::SnatMap { family, map }));
        }
    }
    for family in Family::BOTH {
        out.extend(nat_outgoing(at, family));
    }
    for (family, t) in tunnels(at.globals) {
        out.extend(host_through_tunnel(family, t));
    }
    out
}

/// The interface that translation is confined to; nothing when no name fits it.
fn nat_interface(g: &Globals) -> Option<Vec<Match>> {
    let Some(text) = &g.nat.interface else {
        return Some(Vec::new());
    };
    let pattern = match text.strip_suffix('+') {
        Some("") => return Some(Vec::new()),
        Some(prefix) => IfPattern::Prefix(prefix.parse().ok()?),
        None => IfPattern::Exact(text.parse().ok()?),
    };
    Some(vec![Match::OifName {
        pattern,
        negate: false,
    }])
}

/// From pools that ask for it, to whatever is in no pool.
fn nat_outgoing(at: &Ground<'_>, family: Family) -> Vec<Rule> {
    let g = at.globals;
    let (Some(set), Some(over)) = (at.half(name::nat_sources, family), nat_interface(g)) else {
        return Vec::new();
    };
    let mut matches = vec![in_set(Side::Source, family, set, false)];
    if let Some(set) = at.half(name::nat_exclude, family) {
        matches.push(in_set(Side::Destination, family, set, true));
    }
    matches.extend(over);
    let address = g.nat.address.filter(|a| Family::of(*a) == family);
    translate(matches, address, g.nat.ports)
}

/// Marks what leaves the cluster: of workloads by source, of the host by interface.
pub(crate) fn dscp(at: &Ground<'_>) -> Vec<Rule> {
    let mut out = Vec::new();
    for family in Family::BOTH {
        let leaves = at
            .half(name::dscp_exclude, family)
            .map(|set| in_set(Side::Destination, family, set, true));
        let mark = |first: Vec<Match>, dscp| Rule {
            matches: first.into_iter().chain(leaves.clone()).collect(),
            statements: vec![Statement::SetDscp { family, dscp }],
            verdict: Some(Verdict::Accept),
            comment: Text::default(),
        };
        for dscp in (0..64).filter_map(|v| nftables::Dscp::new(v).ok()) {
            let set = name::dscp(dscp.get(), family);
            if at.has(&set) {
                out.push(mark(vec![in_set(Side::Source, family, set, false)], dscp));
            }
        }
        let marks = &at.uses.dscp;
        if marks.is_empty() {
            continue;
        }
        let own = Match::FibLocal {
            side: Side::Source,
            negate: false,
        };
        for (i, dscp) in &marks.interfaces {
            let pattern = IfPattern::Exact(*i);
            let over = Match::OifName {
                pattern,
                negate: false,
            };
            let family = Match::NfProto(family);
            match dscp {
                Some(dscp) => out.push(mark(vec![family, over, own.clone()], *dscp)),
                None if marks.any.is_some() => {
                    out.push(rule(vec![family, over], Verdict::Accept));
                }
                None => {}
            }
        }
        if let Some(dscp) = marks.any {
            let matches = at.prefixes.not_to().chain([own]).collect();
            out.push(mark(matches, dscp));
        }
    }
    out
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
