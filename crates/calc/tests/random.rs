//! Random updates over a small vocabulary: what was said step by step equals what is computed
//! anew, and both equal what the naive oracle says.

mod support;

use calc::{NatExclusions, NodeConfig};
use model::*;
use net::{Cidr, Family, Mac, PortRange, Protocol};
use proptest::prelude::*;
use proptest::test_runner::{RngAlgorithm, TestRng, TestRunner};
use std::hash::{BuildHasher as _, Hasher as _};
use std::sync::Arc;
use support::vocabulary::*;
use support::{ME, Run, World};

#[derive(Debug, Clone)]
enum Step {
    Update(Box<Update>),
    Config(Box<NodeConfig>),
    Flush,
}

const SELECTORS: [&str; 14] = [
    "all()",
    "a == 'x'",
    "a != 'x'",
    "a in {'x', 'y'}",
    "has(a)",
    "!has(a)",
    "a == 'x' && b == 'y'",
    "a == 'x' || b == 'y'",
    "b contains 'y'",
    "a not in {'x'}",
    "projectcalico.org/namespace == 'x'",
    "!(b == 'x') && has(b)",
    "a == 'nothing'",
    "pcns.t == 'x'",
];

fn pick<T: Clone + std::fmt::Debug + 'static>(from: &[T]) -> impl Strategy<Value = T> + use<T> {
    prop::sample::select(from.to_vec())
}

fn some_labels(keys: &'static [&'static str]) -> impl Strategy<Value = Labels> {
    prop::collection::btree_map(pick(keys), pick(&["x", "y"]), 0..3).prop_map(Labels::new)
}

fn own_labels() -> impl Strategy<Value = Labels> {
    some_labels(&["a", "b", "projectcalico.org/namespace"])
}

fn profiles() -> impl Strategy<Value = Vec<ProfileId>> {
    prop::collection::vec(
        pick(&["p", "q", "missing", "projectcalico-default-allow"]).prop_map(Arc::from),
        0..3,
    )
}

fn selector() -> impl Strategy<Value = Selector> {
    pick(&SELECTORS).prop_map(sel)
}

const ADDRESSES: [&str; 8] = [
    "10.0.0.1", "10.0.0.2", "10.0.0.4", "10.0.0.9", "10.0.1.1", "fd00::1", "fd00::2", "fd00::9",
];

const PREFIXES: [&str; 8] = [
    "0.0.0.0/0",
    "10.0.0.0/8",
    "10.0.0.0/29",
    "10.0.0.1/32",
    "10.0.1.0/24",
    "::/0",
    "fd00::/125",
    "192.0.2.0/24",
];

fn hosts() -> impl Strategy<Value = Vec<Cidr>> {
    prop::collection::vec(pick(&ADDRESSES).prop_map(cidr), 0..3)
}

fn nets() -> impl Strategy<Value = Vec<Cidr>> {
    prop::collection::vec(pick(&PREFIXES).prop_map(cidr), 0..3)
}

fn protocol() -> impl Strategy<Value = Protocol> {
    pick(&[Protocol::TCP, Protocol::UDP])
}

fn named_ports() -> impl Strategy<Value = Vec<NamedPort>> {
    let one = (pick(&["http", "dns"]), protocol(), pick(&[53u16, 80]));
    prop::collection::vec(one.prop_map(|(n, p, i)| port(n, p, i)), 0..3)
}

fn names() -> impl Strategy<Value = Vec<Arc<str>>> {
    prop::collection::vec(pick(&["http", "dns"]).prop_map(Arc::from), 0..2)
}

fn ranges() -> impl Strategy<Value = Vec<PortRange>> {
    prop::collection::vec(pick(&[80u16, 443]).prop_map(PortRange::one), 0..2)
}

const DOMAINS: [&str; 6] = ["a.x", "b.x", "c.b.x", "x", "a.y", "ax"];

fn names_of_domains() -> impl Strategy<Value = Vec<Arc<str>>> {
    let patterns = pick(&["a.x", "*.x", "*.b.x", "a.y"]).prop_map(Arc::from);
    prop_oneof![
        6 => Just(Vec::new()),
        1 => prop::collection::vec(patterns, 1..3),
    ]
}

fn domain_update() -> impl Strategy<Value = Update> {
    let addresses = prop::collection::vec(pick(&ADDRESSES).prop_map(ip), 0..3);
    (pick(&DOMAINS), prop::option::weighted(0.8, addresses))
        .prop_map(|(n, a)| Update::Domain(n.into(), a.map(Into::into)))
}

fn slice_update() -> impl Strategy<Value = Update> {
    let endpoints = prop::collection::vec((hosts(), any::<bool>()), 0..3);
    let ports = prop::collection::vec((protocol(), prop::option::of(pick(&[53u16, 80]))), 0..3);
    let value = (pick(&["s", "t"]), endpoints, ports).prop_map(|(name, endpoints, ports)| {
        let endpoints = endpoints.into_iter().map(|(nets, ready)| SliceEndpoint {
            addresses: nets.into_iter().map(Cidr::addr).collect(),
            node: None,
            ready,
        });
        let ports = ports.into_iter().map(|(protocol, port)| SlicePort {
            name: "".into(),
            protocol,
            port,
        });
        EndpointSlice {
            service: ServiceRef {
                namespace: "ns".into(),
                name: name.into(),
            },
            endpoints: endpoints.collect(),
            ports: ports.collect(),
        }
    });
    let key = pick(&["e0", "e1", "e2"]).prop_map(|name| SliceKey {
        namespace: "ns".into(),
        name: name.into(),
    });
    (key, prop::option::weighted(0.8, value)).prop_map(|(k, v)| Update::EndpointSlice(k, v))
}

fn bgp_update() -> impl Strategy<Value = Update> {
    let value = (nets(), nets(), nets()).prop_map(|(cluster, external, balancer)| BgpConfig {
        service_cluster: cluster,
        service_external: external,
        service_load_balancer: balancer,
        ..BgpConfig::default()
    });
    (
        pick(&["default", "node.me"]),
        prop::option::weighted(0.7, value),
    )
        .prop_map(|(n, b)| Update::BgpConfig(n.into(), b))
}

fn entity() -> impl Strategy<Value = Entity> {
    let service = pick(&["s", "t"]).prop_map(|name| ServiceRef {
        namespace: "ns".into(),
        name: name.into(),
    });
    let selectors = (
        prop::option::of(selector()),
        prop::option::weighted(0.2, selector()),
    );
    let ports = (ranges(), names(), ranges(), names());
    (
        nets(),
        nets(),
        selectors,
        ports,
        prop::option::weighted(0.1, service),
        (prop::option::weighted(0.1, selector()), names_of_domains()),
    )
        .prop_map(
            |(nets, not_nets, (selector, not_selector), ports, service, (nodes, domains))| Entity {
                nets,
                not_nets,
                selector,
                not_selector,
                ports: ports.0,
                named_ports: ports.1,
                not_ports: ports.2,
                not_named_ports: ports.3,
                service,
                nodes,
                domains,
            },
        )
}

fn rule() -> impl Strategy<Value = Rule> {
    let action = pick(&[Action::Allow, Action::Deny, Action::Pass, Action::Log]);
    let icmp = Icmp {
        icmp_type: Some(8),
        code: None,
    };
    (
        action,
        prop::option::weighted(0.2, pick(&Family::BOTH)),
        prop::option::of(protocol()),
        prop::option::weighted(0.1, protocol()),
        prop::option::weighted(0.1, Just(icmp)),
        entity(),
        entity(),
    )
        .prop_map(
            |(action, family, protocol, not_protocol, icmp, source, destination)| Rule {
                action,
                family,
                protocol,
                not_protocol,
                icmp,
                not_icmp: icmp,
                source,
                destination,
                annotations: vec![("k".into(), "v".into())],
            },
        )
}

fn rules() -> impl Strategy<Value = Vec<Rule>> {
    prop::collection::vec(rule(), 0..3)
}

fn workload_update() -> impl Strategy<Value = Update> {
    let key = (
        pick(&[ME, "n1", "n2"]),
        pick(&["ns/w0", "ns/w1", "ns/w2", "ns/w3"]),
    );
    let interface = pick(&["cali0", "cali1", "cali2", ""]);
    let value = (
        interface,
        hosts(),
        own_labels(),
        profiles(),
        named_ports(),
        0u8..3,
    )
        .prop_map(|(interface, nets, labels, profiles, ports, mac)| {
            let mut w = workload(interface, "", "", "");
            (w.nets, w.labels, w.profiles, w.ports) = (nets, labels, profiles, ports);
            w.mac = (mac > 0).then_some(Mac([2, 0, 0, 0, 0, mac]));
            w
        });
    (key, prop::option::weighted(0.8, value))
        .prop_map(|((node, name), w)| Update::Workload(wkey(node, name), w))
}

fn host_update() -> impl Strategy<Value = Update> {
    let value = (
        pick(&[ME, "n1"]),
        hosts(),
        own_labels(),
        profiles(),
        named_ports(),
        (
            pick(&["", "*", "eth0", "no/name"]),
            prop::option::of(0u8..3),
        ),
    )
        .prop_map(|(node, ips, labels, profiles, ports, (interface, dscp))| {
            let mut h = host(node, "", "", "");
            h.interface = (!interface.is_empty()).then(|| interface.into());
            h.dscp = dscp;
            h.expected_ips = ips.into_iter().map(Cidr::addr).collect();
            (h.labels, h.profiles, h.ports) = (labels, profiles, ports);
            h
        });
    (
        pick(&["h0", "h1", "h2"]),
        prop::option::weighted(0.7, value),
    )
        .prop_map(|(n, h)| Update::Host(n.into(), h))
}

fn profile_update() -> impl Strategy<Value = Update> {
    let labels = some_labels(&["a", "b", "pcns.t"]);
    let value = (rules(), rules(), labels).prop_map(|(ingress, egress, labels)| Profile {
        ingress,
        egress,
        labels,
    });
    (
        pick(&["p", "q", "projectcalico-default-allow"]),
        prop::option::weighted(0.7, value),
    )
        .prop_map(|(n, p)| Update::Profile(n.into(), p))
}

fn policy_update() -> impl Strategy<Value = Update> {
    let kind = pick(&[
        PolicyKind::GlobalNetworkPolicy,
        PolicyKind::NetworkPolicy,
        PolicyKind::KubernetesNetworkPolicy,
        PolicyKind::StagedGlobalNetworkPolicy,
    ]);
    let key = (kind, pick(&["p0", "p1", "p2"])).prop_map(|(kind, name)| PolicyKey {
        kind,
        namespace: (kind != PolicyKind::GlobalNetworkPolicy).then(|| "ns".into()),
        name: name.into(),
    });
    let order = pick(&[None, Some(0.0), Some(-0.0), Some(1.0), Some(2.5)]);
    let flags = (
        any::<bool>(),
        any::<bool>(),
        prop::bool::weighted(0.2),
        prop::bool::weighted(0.2),
        prop::bool::weighted(0.1),
        any::<bool>(),
    );
    let value = (
        pick(&["default", "kube-admin", "kube-baseline", "t1", "t2", "gone"]),
        order,
        selector(),
        flags,
        rules(),
        rules(),
    )
        .prop_map(|(tier, order, selector, flags, ingress, egress)| Policy {
            tier: tier.into(),
            order,
            selector,
            applies_ingress: flags.0,
            applies_egress: flags.1,
            ingress,
            egress,
            untracked: flags.2,
            pre_dnat: flags.3,
            apply_on_forward: flags.2 || flags.3 || flags.5,
            on_every_node: flags.4,
            staged: StagedAction::Set,
        });
    (key, prop::option::weighted(0.8, value)).prop_map(|(k, p)| Update::Policy(k, p))
}

fn tier_update() -> impl Strategy<Value = Update> {
    let order = pick(&[
        None,
        Some(1.0),
        Some(2.0),
        Some(1_000_000.0),
        Some(10_000_000.0),
    ]);
    let value = (order, any::<bool>()).prop_map(|(order, pass)| Tier {
        order,
        default_action: if pass {
            TierAction::Pass
        } else {
            TierAction::Deny
        },
    });
    (
        pick(&["default", "kube-admin", "t1", "t2"]),
        prop::option::weighted(0.8, value),
    )
        .prop_map(|(n, t)| Update::Tier(n.into(), t))
}

fn network_set_update() -> impl Strategy<Value = Update> {
    let value = (nets(), hosts(), own_labels(), profiles()).prop_map(
        |(mut nets, more, labels, profiles)| {
            nets.extend(more);
            NetworkSet {
                nets,
                labels,
                profiles,
            }
        },
    );
    (
        pick(&["s0", "s1", "s2"]),
        prop::option::weighted(0.7, value),
    )
        .prop_map(|(n, s)| Update::NetworkSet(setkey(n), s))
}

fn encap() -> impl Strategy<Value = Encap> {
    pick(&[Encap::Never, Encap::Always, Encap::CrossSubnet])
}

fn pool_update() -> impl Strategy<Value = Update> {
    let range = pick(&[
        "10.0.0.0/16",
        "10.0.0.0/24",
        "10.0.0.0/29",
        "fd00::/64",
        "fd00::/124",
    ]);
    let value = (
        range,
        encap(),
        encap(),
        any::<bool>(),
        prop::bool::weighted(0.2),
    )
        .prop_map(|(range, vxlan, ipip, nat, balancer)| {
            let mut p = pool(range, vxlan);
            if vxlan == Encap::Never {
                p.ipip = ipip;
            }
            p.nat_outgoing = nat;
            if balancer {
                p.uses = AllowedUses {
                    workload: false,
                    tunnel: false,
                    load_balancer: true,
                };
            }
            p
        });
    (pick(&["a", "b", "c"]), prop::option::weighted(0.8, value))
        .prop_map(|(n, p)| Update::Pool(n.into(), p))
}

fn block_update() -> impl Strategy<Value = Update> {
    let range = pick(&[
        "10.0.0.0/29",
        "10.0.0.8/29",
        "10.0.0.4/32",
        "10.0.1.0/24",
        "fd00::/125",
        "fd00::8/125",
    ]);
    let owner = pick(&["", ME, "n1", "n2", "unknown"]);
    let borrowed = prop::collection::btree_map(0u8..4, pick(&[ME, "n1", "n2"]), 0..3);
    (range, prop::option::weighted(0.8, (owner, borrowed))).prop_map(|(range, v)| {
        let c = cidr(range);
        let b = v.map(|(owner, borrowed)| {
            let mut b = block(range, owner, "");
            let uses = borrowed.into_iter().filter_map(|(i, node)| {
                let addr = c.nth(u128::from(i))?;
                Some(Borrowed {
                    addr,
                    node: node.into(),
                })
            });
            b.borrowed = uses.collect();
            b
        });
        Update::Block(c, b)
    })
}

fn node_update() -> impl Strategy<Value = Update> {
    let v4 = pick(&[
        "",
        "192.168.0.1/24",
        "192.168.0.2/24",
        "192.168.1.1/24",
        "192.168.0.9/32",
    ]);
    let v6 = pick(&["", "2001:db8::1/64", "2001:db8::2/64", "2001:db8:1::1/64"]);
    let tunnels = (pick(&["", "10.0.0.3", "10.0.0.12"]), pick(&["", "fd00::3"]));
    let ranges = prop::collection::vec(
        pick(&["10.0.1.0/24", "172.16.0.0/24", "172.16.1.0/24"]).prop_map(cidr),
        0..3,
    );
    let value = (
        v4,
        v6,
        tunnels,
        ranges,
        any::<bool>(),
        (own_labels(), hosts()),
    )
        .prop_map(|(v4, v6, tunnels, ranges, mac, (labels, further))| Node {
            labels,
            addresses: further.into_iter().map(Cidr::addr).collect(),
            ipip_v4: tunnels.0.parse().ok(),
            ipv6: address(v6),
            vxlan_v6: tunnels.1.parse().ok(),
            vxlan_mac_v4: mac.then_some(Mac([2, 0, 0, 0, 0, 9])),
            pod_cidrs: ranges,
            ..node(v4, tunnels.0)
        });
    (pick(&[ME, "n1", "n2"]), prop::option::weighted(0.85, value))
        .prop_map(|(n, v)| Update::Node(n.into(), v))
}

fn config() -> impl Strategy<Value = NodeConfig> {
    (
        any::<bool>(),
        any::<bool>(),
        pick(&[None, Some(true), Some(false)]),
        any::<bool>(),
    )
        .prop_map(|(hosts, ipv6, vxlan, direct)| NodeConfig {
            nat_exclusions: if hosts {
                NatExclusions::PoolsAndHosts
            } else {
                NatExclusions::Pools
            },
            external_nodes: vec![cidr("198.51.100.0/24")],
            ipv6,
            vxlan,
            program_direct_routes: direct,
            ..NodeConfig::default()
        })
}

fn step() -> impl Strategy<Value = Step> {
    let update = prop_oneof![
        6 => workload_update(),
        1 => host_update(),
        2 => profile_update(),
        5 => policy_update(),
        1 => tier_update(),
        2 => network_set_update(),
        2 => pool_update(),
        3 => block_update(),
        3 => node_update(),
        3 => slice_update(),
        2 => domain_update(),
        1 => bgp_update(),
    ];
    prop_oneof![
        12 => update.prop_map(|u| Step::Update(Box::new(u))),
        1 => config().prop_map(|c| Step::Config(Box::new(c))),
        6 => Just(Step::Flush),
    ]
}

fn cases() -> u32 {
    std::env::var("PROPTEST_CASES")
        .ok()
        .and_then(|c| c.parse().ok())
        .unwrap_or(160)
}

/// The seed of this run: `CALC_SEED`, or another one each time.
fn seed() -> u64 {
    let stated = std::env::var("CALC_SEED").ok().and_then(|s| s.parse().ok());
    let any = || std::hash::RandomState::new().build_hasher().finish();
    stated.unwrap_or_else(any)
}

#[test]
fn steps_equal_scratch_equal_oracle() {
    let seed = seed();
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let config = ProptestConfig {
        cases: cases(),
        failure_persistence: None,
        max_shrink_iters: 4000,
        ..ProptestConfig::default()
    };
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let mut runner = TestRunner::new_with_rng(config, rng);
    let steps = prop::collection::vec(step(), 1..120);
    let result = runner.run(&steps, |steps| {
        walk(steps);
        Ok(())
    });
    if let Err(e) = result {
        panic!("CALC_SEED={seed} PROPTEST_CASES={}: {e}", cases());
    }
}

fn walk(steps: Vec<Step>) {
    let mut world = World::default();
    let mut run = Run::default();
    for step in steps.into_iter().chain([Step::Flush]) {
        match step {
            Step::Update(u) => {
                world.update(&u);
                run.calc.update(*u);
            }
            Step::Config(c) => {
                world.config = (*c).clone();
                run.calc.set_config(*c);
            }
            Step::Flush => {
                run.flush();
                world.check(&run.desired);
                assert_eq!(run.desired, world.fresh());
            }
        }
    }
    // And everything goes again.
    for u in world.towards(&World::default()) {
        run.calc.update(u);
    }
    run.flush();
    let mut left = run.desired;
    left.globals = None;
    assert_eq!(left, desired::Desired::default());
}
