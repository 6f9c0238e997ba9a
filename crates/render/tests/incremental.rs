//! Whatever the steps, the kernel's terms are those of the last state; and every state is
//! one that the kernel can hold.

mod support;

use desired::*;
use model::{Action, Icmp, TierAction};
use net::{Cidr, Family, PortRange, Protocol};
use nftables::{Element, IfPattern, Match, Ruleset, Statement, Verdict};
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use render::{Interface, Renderer, Route, TableEdit};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use support::*;

const POLICIES: [&str; 4] = ["p0", "p1", "p2", "p3"];
const SETS: [&str; 3] = ["s:a", "s:b", "n:http"];
const NETS: [&str; 6] = [
    "10.0.0.0/8",
    "192.168.0.0/16",
    "0.0.0.0/0",
    "fd00::/8",
    "::/0",
    "203.0.113.7/32",
];
const MEMBERS: [&str; 4] = ["10.1.0.0/16", "10.2.0.0/16", "fd00:1::/64", "192.0.2.1/32"];

fn some<T: Clone + std::fmt::Debug + 'static>(of: &'static [T]) -> impl Strategy<Value = Vec<T>> {
    subsequence(of.to_vec(), 0..=of.len().min(2))
}

fn cidrs(of: &'static [&'static str]) -> impl Strategy<Value = Vec<Cidr>> {
    prop_oneof![
        3 => Just(Vec::new()),
        1 => some(of).prop_map(|l| l.into_iter().map(cidr).collect()),
    ]
}

fn entity() -> impl Strategy<Value = Entity> {
    let sets = || {
        prop_oneof![3 => Just(vec![]), 1 => some(&SETS[..2])]
            .prop_map(|l: Vec<&str>| l.into_iter().map(set_id).collect::<Vec<_>>())
    };
    let named = || prop_oneof![4 => Just(vec![]), 1 => Just(vec![set_id(SETS[2])])];
    let ports = || {
        prop_oneof![3 => Just(vec![]), 1 => Just(vec!["80", "90:99"]), 1 => Just(vec!["22"])]
            .prop_map(|l: Vec<&str>| {
                l.into_iter()
                    .map(|p| p.parse().expect("ports"))
                    .collect::<Vec<PortRange>>()
            })
    };
    (
        cidrs(&NETS),
        cidrs(&NETS),
        sets(),
        sets(),
        ports(),
        named(),
        ports(),
        named(),
    )
        .prop_map(
            |(nets, not_nets, sets, not_sets, ports, port_sets, not_ports, not_port_sets)| Entity {
                nets,
                not_nets,
                sets,
                not_sets,
                ports,
                port_sets,
                not_ports,
                not_port_sets,
            },
        )
}

fn any_rule() -> impl Strategy<Value = Rule> {
    let action = select(vec![Action::Allow, Action::Deny, Action::Pass, Action::Log]);
    let family = select(vec![None, None, Some(Family::V4), Some(Family::V6)]);
    let protocol = || {
        select(vec![
            None,
            None,
            Some(Protocol::TCP),
            Some(Protocol::ICMP),
            Some(Protocol::ICMPV6),
        ])
    };
    let icmp = || {
        select(vec![
            None,
            None,
            Some(Icmp {
                icmp_type: Some(8),
                code: None,
            }),
            Some(Icmp {
                icmp_type: Some(3),
                code: Some(4),
            }),
        ])
    };
    (
        action,
        family,
        protocol(),
        protocol(),
        icmp(),
        icmp(),
        entity(),
        entity(),
    )
        .prop_map(
            |(action, family, protocol, not_protocol, icmp, not_icmp, source, destination)| Rule {
                action,
                family,
                protocol,
                not_protocol,
                icmp,
                not_icmp,
                source,
                destination,
                annotations: Vec::new(),
            },
        )
}

fn rules() -> impl Strategy<Value = Vec<Rule>> {
    prop::collection::vec(any_rule(), 0..3)
}

fn globals() -> impl Strategy<Value = Globals> {
    (
        any::<bool>(),
        any::<bool>(),
        any::<bool>(),
        any::<bool>(),
        any::<bool>(),
        cidrs(&MEMBERS),
    )
        .prop_map(|(spoof, invalid, host, ipv6, tunnel, external_vxlan)| {
            let mut g = Globals {
                allow_invalid: invalid,
                ipv6,
                external_vxlan,
                ..Globals::default()
            };
            if spoof {
                g.spoofing = Spoofing::Any;
                g.log_prefix = "other".to_owned();
            }
            if host {
                g.endpoint_to_host = HostAction::Accept;
                g.nat.sources = vec![cidr("10.65.0.0/16")];
                g.workload_route_metric = [512; 2];
            }
            if spoof && host {
                g.deny = DenyAction::Reject;
                g.nodes = vec![cidr("192.0.2.0/24")];
                g.service_cidrs = vec![cidr("10.96.0.0/12"), cidr("fd00:96::/112")];
            }
            if host != tunnel {
                g.floating_ips = true;
                g.nflog = spoof;
                g.failsafe_in.clear();
                g.dscp_exclude = vec![cidr("10.65.0.0/16")];
            }
            if tunnel {
                g.nat.exclude = vec![cidr("10.0.0.0/8")];
                g.tunnels[0] = Some(Tunnel {
                    device: iface("vxlan.calico"),
                    vni: 4096,
                    port: 4789,
                    address: (!spoof).then(|| "10.65.0.1".parse().expect("an address")),
                    mac: "66:00:00:00:00:01".parse().expect("a MAC"),
                    host: "192.0.2.9".parse().expect("an address"),
                    mtu: None,
                });
            }
            g
        })
}

fn members() -> impl Strategy<Value = Members> {
    subsequence(MEMBERS.to_vec(), 0..=MEMBERS.len()).prop_map(|m| nets(&m))
}

type Parts = (
    Globals,
    Vec<(Vec<Rule>, Vec<Rule>)>,
    Vec<(
        bool,
        usize,
        Vec<&'static str>,
        Vec<&'static str>,
        bool,
        bool,
    )>,
    (Members, Members),
    Vec<Option<usize>>,
    Vec<HostParts>,
);

/// Kind of match, and policies of each hook.
type HostParts = (
    Option<usize>,
    Vec<&'static str>,
    Vec<&'static str>,
    Vec<&'static str>,
    Vec<&'static str>,
    bool,
);

fn host((kind, own, forward, raw, dnat, pass): HostParts) -> Option<HostPolicy> {
    let interface = match kind? {
        0 => HostMatch::Any,
        1 => HostMatch::Interface(iface("eth0")),
        2 => HostMatch::Addresses(vec!["192.0.2.1".parse().expect("an address")]),
        _ => HostMatch::Addresses(vec!["2001:db8::1".parse().expect("an address")]),
    };
    let action = if pass {
        TierAction::Pass
    } else {
        TierAction::Deny
    };
    let tiers = |names: Vec<&str>, action| match names.as_slice() {
        [] => vec![],
        names => vec![tier("hosts", action, names)],
    };
    let mut pre_dnat = tiers(dnat, TierAction::Pass);
    pre_dnat.iter_mut().for_each(|t| t.egress.clear());
    Some(HostPolicy {
        interface,
        tiers: tiers(own, action),
        forward: tiers(forward, action),
        untracked: tiers(raw, TierAction::Pass),
        pre_dnat,
        profiles: if pass {
            vec![Arc::from("kns.default")]
        } else {
            vec![]
        },
        dscp: pass.then_some(10),
    })
}

fn build((g, policies, pods, (a, b), routes, hosts): Parts) -> Desired {
    let mut d = Desired {
        globals: Some(Arc::new(g)),
        ..Desired::default()
    };
    d.sets.insert(set_id("s:a"), a);
    d.sets.insert(set_id("s:b"), b);
    d.sets
        .insert(set_id("n:http"), ports(&[("10.1.0.1", Protocol::TCP, 80)]));
    for (name, (i, e)) in POLICIES.iter().zip(policies) {
        d.policies.insert(policy_key(name), Arc::new(policy(i, e)));
    }
    d.profiles.insert(Arc::from("kns.default"), Arc::default());
    for (i, (there, interface, first, second, pass, sources)) in pods.into_iter().enumerate() {
        if !there {
            continue;
        }
        let address = format!("10.65.0.{}/32", i + 2);
        let mut w = workload(&format!("cali{interface}"), &[&address]);
        let action = if pass {
            TierAction::Pass
        } else {
            TierAction::Deny
        };
        if !first.is_empty() {
            w.tiers.push(tier("first", action, &first));
        }
        if !second.is_empty() {
            w.tiers.push(tier("second", TierAction::Deny, &second));
        }
        if sources {
            w.allowed_sources = vec![cidr("172.16.0.0/12")];
            w.profiles.push(Arc::from("kns.default"));
            w.nats = vec![(
                format!("10.65.0.{}", i + 2).parse().expect("an address"),
                format!("203.0.113.{}", i / 2).parse().expect("an address"),
            )];
        }
        if pass && sources {
            w.qos.ingress_packets = Some((100, 10));
            w.qos.egress_connections = Some(i as u32);
            w.qos.dscp = Some(46);
        }
        d.workloads
            .insert(workload_key(&format!("pod{i}")), Arc::new(w));
    }
    for (i, parts) in hosts.into_iter().enumerate() {
        if let Some(h) = host(parts) {
            d.hosts.insert(Arc::from(format!("host{i}")), Arc::new(h));
        }
    }
    // Policies and profiles are there while somebody needs them.
    let lists = |h: &HostPolicy| [&h.tiers, &h.forward, &h.untracked, &h.pre_dnat].map(Vec::clone);
    let tiers = d.workloads.values().flat_map(|w| w.tiers.clone());
    let used: BTreeSet<_> = tiers
        .chain(d.hosts.values().flat_map(|h| lists(h)).flatten())
        .flat_map(|t| t.ingress)
        .collect();
    d.policies.retain(|k, _| used.contains(k));
    if d.workloads.values().all(|w| w.profiles.is_empty())
        && d.hosts.values().all(|h| h.profiles.is_empty())
    {
        d.profiles.clear();
    }
    if d.policies.len() % 2 == 1 {
        d.domains = d.policies.keys().map(|k| k.name.clone()).collect();
    }
    for (i, kind) in routes.into_iter().enumerate() {
        let target = match kind {
            None => continue,
            Some(0) => RouteTarget::Workload(iface("cali0")),
            Some(1) => RouteTarget::Blackhole,
            Some(_) => RouteTarget::Vxlan {
                via: "10.65.1.1".parse().expect("an address"),
            },
        };
        d.routes
            .insert(cidr(&format!("10.65.{i}.0/24")), target.clone());
        d.routes.insert(cidr(&format!("fd00:65:{i}::/64")), target);
        let vtep = Vtep {
            tunnel: format!("10.65.{i}.1").parse().expect("an address"),
            mac: "66:00:00:00:00:02".parse().expect("a MAC"),
            host: format!("10.1.0.{i}").parse().expect("an address"),
        };
        d.vteps
            .insert((Arc::from(format!("node{i}")), Family::V4), vtep);
    }
    d
}

fn state() -> impl Strategy<Value = Desired> {
    let pod = (
        any::<bool>(),
        0..3usize,
        some(&POLICIES),
        some(&POLICIES),
        any::<bool>(),
        any::<bool>(),
    );
    (
        globals(),
        prop::collection::vec((rules(), rules()), POLICIES.len()),
        prop::collection::vec(pod, 4),
        (members(), members()),
        prop::collection::vec(prop::option::of(0..3usize), 3),
        prop::collection::vec(
            (
                prop::option::of(0..4usize),
                some(&POLICIES),
                some(&POLICIES),
                some(&POLICIES),
                some(&POLICIES),
                any::<bool>(),
            ),
            3,
        ),
    )
        .prop_map(build)
}

/// Which interfaces have the addresses that host endpoints may name.
fn interfaces() -> impl Strategy<Value = render::Interfaces> {
    let of = |a: &'static str| {
        let name = select(vec!["eth0", "eth1", "bond0"]);
        prop::option::of(name).prop_map(move |n| (n, a))
    };
    [of("192.0.2.1"), of("2001:db8::1")].prop_map(|pairs| {
        let mut out = render::Interfaces::new();
        for (name, a) in pairs {
            if let Some(n) = name {
                let held = out.entry(iface(n)).or_default();
                held.insert(a.parse().expect("an address"));
            }
        }
        out
    })
}

/// All that the kernel is to hold.
#[derive(Debug, PartialEq)]
struct Outcome {
    table: Ruleset,
    arp: Ruleset,
    routes: BTreeMap<Cidr, Route>,
    interfaces: BTreeMap<net::IfName, Interface>,
}

impl Outcome {
    fn empty() -> Self {
        Self {
            table: empty(),
            arp: empty(),
            routes: BTreeMap::new(),
            interfaces: BTreeMap::new(),
        }
    }

    fn take(&mut self, r: &mut Renderer, step: &Delta) {
        let changes = r.apply(step);
        self.note(changes);
    }

    fn note(&mut self, changes: render::Changes) {
        for e in &changes.table {
            strict(e, &self.table);
            e.apply(&mut self.table);
        }
        for e in &changes.arp {
            strict(e, &self.arp);
            e.apply(&mut self.arp);
        }
        for (k, v) in changes.routes {
            match v {
                Some(v) => drop(self.routes.insert(k, v)),
                None => drop(self.routes.remove(&k)),
            }
        }
        for (k, v) in changes.interfaces {
            match v {
                Some(v) => drop(self.interfaces.insert(k, v)),
                None => drop(self.interfaces.remove(&k)),
            }
        }
    }
}

/// The lines that only one of them has.
fn difference(a: &Outcome, b: &Outcome) -> String {
    let lines = |o: &Outcome| -> Vec<String> {
        let text = format!("{}\n{:#?}\n{:#?}", o.table, o.routes, o.interfaces);
        text.lines().map(str::to_owned).collect()
    };
    let (a, b) = (lines(a), lines(b));
    let only = |sign, x: &[String], y: &[String]| -> Vec<String> {
        let new = x.iter().filter(|l| !y.contains(l));
        new.map(|l| format!("{sign} {l}")).collect()
    };
    [only("step by step:", &a, &b), only("at once:", &b, &a)]
        .concat()
        .join("\n")
}

/// What an edit supposes is so.
fn strict(e: &TableEdit, at: &Ruleset) {
    match e {
        TableEdit::Elements { set, add, remove } => {
            let s = at
                .sets
                .get(set)
                .unwrap_or_else(|| panic!("set {set} is there"));
            assert!(
                remove.iter().all(|e| s.elements.contains(e)),
                "{set} has what goes: {e:?}"
            );
            assert!(add.iter().all(|e| e.fits(s.kind)), "{set} takes what comes");
            let fresh = |e: &&Element| !s.elements.contains(*e) || remove.contains(*e);
            assert_eq!(
                add.iter().filter(fresh).count(),
                add.len(),
                "{set} gains something new"
            );
        }
        TableEdit::RemoveChain(c) => assert!(at.chains.contains_key(c), "chain {c} is there"),
        TableEdit::RemoveSet(s) => assert!(at.sets.contains_key(s), "set {s} is there"),
        _ => {}
    }
}

/// Nothing dangles, and no packet goes deeper than the kernel lets it.
fn sound(t: &Ruleset) {
    fn targets(t: &Ruleset, chain: &nftables::Chain) -> Vec<nftables::ChainName> {
        let mut out = Vec::new();
        for r in &chain.rules {
            if let Some(Verdict::Jump(c) | Verdict::Goto(c)) = &r.verdict {
                out.push(c.clone());
            }
            for s in &r.statements {
                if let Statement::VMap { map, .. } = s {
                    for e in &t.sets[map].elements {
                        if let Element::IfNameVerdict(_, Verdict::Jump(c) | Verdict::Goto(c)) = e {
                            out.push(c.clone());
                        }
                    }
                }
            }
        }
        out
    }
    fn depth(t: &Ruleset, chain: &nftables::Chain, level: usize) {
        assert!(level < 16, "too deep");
        for c in targets(t, chain) {
            let next = t
                .chains
                .get(&c)
                .unwrap_or_else(|| panic!("chain {c} is there"));
            depth(t, next, level + 1);
        }
    }
    for chain in t.chains.values() {
        depth(t, chain, 0);
        for m in chain.rules.iter().flat_map(|r| &r.matches) {
            if let Match::AddrInSet { set, .. }
            | Match::AddrPortInSet { set, .. }
            | Match::NetPairInSet { set, .. }
            | Match::IifName {
                pattern: IfPattern::InSet(set),
                ..
            }
            | Match::OifName {
                pattern: IfPattern::InSet(set),
                ..
            } = m
            {
                assert!(t.sets.contains_key(set), "set {set} is there");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, ..ProptestConfig::default() })]

    #[test]
    fn steps_add_up_to_the_state(
        states in prop::collection::vec((state(), interfaces(), any::<bool>()), 1..6)
    ) {
        let mut renderer = Renderer::new();
        let mut outcome = Outcome::empty();
        let mut at = Desired::default();
        for (next, held, before) in &states {
            prop_assert_eq!(next.faults(), Vec::<String>::new());
            if *before {
                outcome.note(renderer.interfaces(held.clone()));
            }
            outcome.take(&mut renderer, &delta(&at, next));
            outcome.note(renderer.interfaces(held.clone()));
            at = next.clone();
            sound(&outcome.table);
            let mut scratch = Outcome::empty();
            let mut fresh = Renderer::new();
            scratch.note(fresh.interfaces(held.clone()));
            scratch.take(&mut fresh, &delta(&Desired::default(), next));
            prop_assert!(outcome == scratch, "{}", difference(&outcome, &scratch));
        }
        let nothing = Desired { globals: at.globals.clone(), ..Desired::default() };
        outcome.take(&mut renderer, &delta(&at, &nothing));
        let mut scratch = Outcome::empty();
        scratch.take(&mut Renderer::new(), &delta(&Desired::default(), &nothing));
        prop_assert_eq!(&outcome, &scratch);
    }

    /// A step that repeats what is so changes nothing.
    #[test]
    fn repetition_is_silent(state in state()) {
        let mut renderer = Renderer::new();
        let mut outcome = Outcome::empty();
        let step = delta(&Desired::default(), &state);
        outcome.take(&mut renderer, &step);
        let mut again = step.clone();
        again.sets.clear();
        let before = outcome.table.clone();
        outcome.take(&mut renderer, &again);
        prop_assert_eq!(before, outcome.table);
    }
}
