//! The base chains of host endpoints.
//!
//! Promises: none is there that nobody needs; an established connection is through after one
//! rule in each; the host always reaches its own workloads, and other nodes through tunnels;
//! failsafe ports stay open.
//! Never: names a host endpoint.

use crate::base::{
    Ground, IPIP, act, base, discovery, dispatch, end, established, in_set, plain, proto, rule,
    to_port, tunnels,
};
use crate::name::{self, Direction, fixed};
use crate::role::Role;
use crate::{ACCEPT_MARK, TRANSLATED_MARK};
use desired::Failsafe;
use net::{Cidr, Family, PortRange, Protocol};
use nftables::{
    Chain, ChainName, Hook, IfPattern, Kind, Match, NetList, PortList, Rule, Side, Statement,
    Verdict,
};
use std::collections::BTreeMap;

/// Neighbour, router and multicast listener discovery, in both directions: without them the
/// host loses its neighbours and its routes. Types of RFC 4443, 4861 and 3810.
const DISCOVERY: [u8; 8] = [130, 131, 132, 133, 134, 135, 136, 143];

/// All of them that are in use.
pub(crate) fn chains(at: &Ground<'_>, out: &mut BTreeMap<ChainName, Chain>) {
    let mut hook = |role, name, hook, priority, rules: fn(&Ground<'_>) -> Vec<Rule>| {
        if at.uses.has(role) {
            let chain = base(Kind::Filter, hook, priority, rules(at));
            out.insert(fixed(name), chain);
        }
    };
    hook(Role::PreDnat, "pre-dnat", Hook::Prerouting, -150, pre_dnat);
    hook(
        Role::ForwardIn,
        "host-forward-from",
        Hook::Forward,
        -1,
        forward_from,
    );
    hook(
        Role::ForwardOut,
        "host-forward-to",
        Hook::Forward,
        2,
        forward_to,
    );
    hook(Role::HostOut, "output", Hook::Output, 0, output);
    hook(
        Role::Translated,
        "output-translated",
        Hook::Postrouting,
        -150,
        translated,
    );
    helpers(at, out);
}

/// What stacks of host endpoints jump to.
fn helpers(at: &Ground<'_>, out: &mut BTreeMap<ChainName, Chain>) {
    let g = at.globals;
    let any = |roles: &[Role]| roles.iter().any(|r| at.uses.has(*r));
    let asked = |list: &[Failsafe], remote| failsafes(list, Side::Destination, remote);
    let answers = |list: &[Failsafe], remote| failsafes(list, Side::Source, remote);
    let own_traffic = [
        Role::HostIn,
        Role::HostOut,
        Role::Translated,
        Role::RawIn,
        Role::RawOut,
        Role::PreDnat,
    ];
    if any(&own_traffic) {
        out.insert(fixed("discovery-host"), plain(discovery(&DISCOVERY)));
    }
    if any(&[Role::HostIn, Role::PreDnat]) {
        let rules = asked(&g.failsafe_in, Side::Source);
        out.insert(fixed("failsafe-in"), plain(rules));
    }
    if any(&[Role::HostOut, Role::Translated]) {
        let rules = asked(&g.failsafe_out, Side::Destination);
        out.insert(fixed("failsafe-out"), plain(rules));
    }
    // Before tracking nothing tells an answer but its port.
    if any(&[Role::RawIn]) {
        let mut rules = asked(&g.failsafe_in, Side::Source);
        rules.extend(answers(&g.failsafe_out, Side::Source));
        out.insert(fixed("failsafe-in-raw"), plain(rules));
    }
    if any(&[Role::RawOut]) {
        let mut rules = asked(&g.failsafe_out, Side::Destination);
        rules.extend(answers(&g.failsafe_in, Side::Destination));
        out.insert(fixed("failsafe-out-raw"), plain(rules));
    }
}

/// Accepts the ports of a list, on that side of the packet, with their nets on the remote's.
fn failsafes(list: &[Failsafe], side: Side, remote: Side) -> Vec<Rule> {
    let mut by: BTreeMap<(Protocol, Option<Cidr>), Vec<PortRange>> = BTreeMap::new();
    for f in list {
        let ports = by.entry((f.protocol, f.net)).or_default();
        ports.push(PortRange::one(f.port));
    }
    let one = |((protocol, net), ports): ((Protocol, Option<Cidr>), Vec<PortRange>)| {
        let ports = PortList::new(ports).ok()?;
        let mut matches = vec![
            proto(protocol),
            Match::Ports {
                side,
                ports,
                negate: false,
            },
        ];
        matches.extend(net.map(|n| Match::Addr {
            side: remote,
            nets: NetList::from(n),
            negate: false,
        }));
        Some(rule(matches, Verdict::Accept))
    };
    by.into_iter().filter_map(one).collect()
}

fn marked(bit: u32, negate: bool) -> Match {
    Match::Mark {
        mask: bit,
        value: bit,
        negate,
    }
}

/// What was let through before tracking or translation needs nothing more.
fn let_through() -> Rule {
    rule(vec![marked(ACCEPT_MARK, false)], Verdict::Accept)
}

/// The role's map, then the stack of `*`.
pub(crate) fn judge(at: &Ground<'_>, role: Role) -> Vec<Rule> {
    let Some(of) = at.uses.roles.get(&role) else {
        return Vec::new();
    };
    let mut out = vec![dispatch(role)];
    if of.judges {
        let pattern = IfPattern::InSet(role.judged());
        let negate = false;
        let there = match role.direction() {
            Direction::Ingress => Match::IifName { pattern, negate },
            Direction::Egress => Match::OifName { pattern, negate },
        };
        // Only a packet on its way while the table changes comes here: its stack was not
        // there yet.
        out.push(end(vec![there], Verdict::Drop, "its policy is on the way"));
    }
    if let Some(fallback) = &of.fallback {
        out.push(rule(Vec::new(), Verdict::Goto(fallback.clone())));
    }
    out
}

/// The host reaches its own workloads, and `*` is not about what goes to them.
fn to_workloads(at: &Ground<'_>) -> impl Iterator<Item = Rule> {
    at.prefixes.to().map(|m| rule(vec![m], Verdict::Accept))
}

fn pre_dnat(at: &Ground<'_>) -> Vec<Rule> {
    let mut out = vec![established()];
    if at.uses.has(Role::RawIn) {
        out.push(let_through());
    }
    out.extend(judge(at, Role::PreDnat));
    out
}

/// The end of the input chain: what comes from no workload.
pub(crate) fn input(at: &Ground<'_>) -> Vec<Rule> {
    let mut out = Vec::new();
    if !at.uses.has(Role::HostIn) {
        return out;
    }
    if at.uses.marks_arrivals() {
        out.push(let_through());
    }
    out.extend(judge(at, Role::HostIn));
    out
}

fn forward_from(at: &Ground<'_>) -> Vec<Rule> {
    let mut out = vec![established()];
    if at.uses.marks_arrivals() {
        out.push(let_through());
    }
    out.extend(judge(at, Role::ForwardIn));
    out
}

fn forward_to(at: &Ground<'_>) -> Vec<Rule> {
    let mut out = vec![established()];
    out.extend(to_workloads(at));
    out.extend(judge(at, Role::ForwardOut));
    out
}

fn output(at: &Ground<'_>) -> Vec<Rule> {
    let mut out = vec![established()];
    if at.uses.has(Role::RawOut) {
        out.push(let_through());
    }
    out.extend(to_workloads(at));
    for (family, t) in tunnels(at.globals) {
        let mut matches = to_port(t.port).to_vec();
        let set = name::vxlan_hosts(family);
        matches.push(in_set(Side::Destination, family, set, false));
        out.push(rule(matches, Verdict::Accept));
    }
    for family in Family::BOTH {
        if let Some(set) = at.half(name::ipip_hosts, family) {
            let to = in_set(Side::Destination, family, set, false);
            out.push(rule(vec![proto(IPIP), to], Verdict::Accept));
        }
    }
    // The way out of a translated connection is found after this hook.
    if at.uses.has(Role::Translated) {
        let mark = Statement::SetMark {
            mask: TRANSLATED_MARK,
            value: TRANSLATED_MARK,
        };
        let translated = Match::CtDnat { negate: false };
        out.push(Rule {
            matches: vec![translated],
            statements: vec![mark],
            verdict: Some(Verdict::Accept),
            ..Rule::default()
        });
    }
    out.extend(judge(at, Role::HostOut));
    out
}

fn translated(at: &Ground<'_>) -> Vec<Rule> {
    let clear = Statement::SetMark {
        mask: TRANSLATED_MARK,
        value: 0,
    };
    let mut out = vec![
        rule(vec![marked(TRANSLATED_MARK, true)], Verdict::Accept),
        act(Vec::new(), clear),
    ];
    out.extend(to_workloads(at));
    out.extend(judge(at, Role::Translated));
    out
}
