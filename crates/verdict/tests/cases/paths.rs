//! Ways between pods, nodes and outside, without host endpoints and services.

use crate::support::*;
use model::{Encap, Policy, Update};
use net::{Family, Protocol};
use verdict::{Decision, Direction, End, Flow, Place, Target};

fn closed(select: &str) -> Policy {
    policy(select, Some(vec![]), Some(vec![]))
}

fn places(e: &verdict::Explanation) -> Vec<String> {
    e.paths[0]
        .stages
        .iter()
        .map(|s| format!("{} {}", s.node, s.place))
        .collect()
}

#[test]
fn pod_to_pod_on_the_same_node() {
    let c = Cluster::new();
    let e = c.allows("shop/front", "shop/near", 80);
    let want = [
        "n1 source address of pod shop/front",
        "n1 egress of pod shop/front",
        "n1 ingress to pod shop/near",
    ];
    assert_eq!(places(&e), want);
}

#[test]
fn pod_to_pod_on_another_node() {
    let c = Cluster::new();
    let e = c.allows("shop/front", "shop/db", 80);
    let want = [
        "n1 source address of pod shop/front",
        "n1 egress of pod shop/front",
        "n2 ingress to pod shop/db",
    ];
    assert_eq!(places(&e), want);
    assert_eq!(e.paths[0].seen_source, ip("10.0.1.11"));
    assert_eq!(e.paths[0].to, c.end("shop/db", Family::V4).0);
}

#[test]
fn pod_to_pod_by_ipv6() {
    let mut c = Cluster::new();
    let to = c.end("shop/db", Family::V6).1.to_string();
    c.allows("shop/front", &to, 80);
    c.global("p", closed("app == 'db'"));
    c.denies("shop/front", &to, 80);
}

#[test]
fn a_pod_to_itself() {
    let mut c = Cluster::new();
    c.allows("shop/front", "shop/front", 80);
    c.global("p", closed("app == 'front'"));
    c.denies("shop/front", "shop/front", 80);
}

#[test]
fn a_spoofed_source_is_dropped() {
    let mut c = Cluster::new();
    let mut flow = c.flow("shop/front", "shop/db", 80);
    flow.source = ip("172.16.0.1");
    let e = c.denies_flow(&flow);
    assert_eq!(e.paths[0].deciding().unwrap().decision, Decision::Spoofed);
    // Further prefixes count only where the configuration lets them.
    c.edit("shop/front", |w| {
        w.allowed_sources = vec!["172.16.0.0/24".parse().unwrap()]
    });
    c.denies_flow(&flow);
    c.felix("default", &[("workloadsourcespoofing", "Any")]);
    c.allows_flow(&flow);
    flow.source = ip("172.16.1.1");
    c.denies_flow(&flow);
    // Another pod's address is not its own either.
    flow.source = ip("10.0.1.12");
    c.denies_flow(&flow);
}

#[test]
fn link_local_sources_are_not_routed() {
    let c = Cluster::new();
    let (from, _) = c.end("shop/front", Family::V6);
    let to = Target::Address(ip("fe80::1"));
    c.allows_flow(&Flow::new(from, ip("fe80::5"), to, Protocol::UDP, 5353));
}

#[test]
fn pod_to_its_own_node() {
    let mut c = Cluster::new();
    let e = c.denies("shop/front", "n1", 80);
    assert_eq!(
        e.paths[0].deciding().unwrap().decision,
        Decision::EndpointToHost("Drop".to_owned())
    );
    for (value, allowed) in [
        ("ACCEPT", true),
        ("Return", true),
        ("DROP", false),
        ("odd", false),
    ] {
        c.felix("default", &[("defaultendpointtohostaction", value)]);
        match allowed {
            true => c.allows("shop/front", "n1", 80),
            false => c.denies("shop/front", "n1", 80),
        };
    }
    // Its egress policy is asked first.
    c.felix("default", &[("defaultendpointtohostaction", "Accept")]);
    c.global(
        "p",
        policy("app == 'front'", None, Some(vec![to_port("80")])),
    );
    c.allows("shop/front", "n1", 80);
    let e = c.denies("shop/front", "n1", 81);
    assert!(matches!(
        e.paths[0].deciding().unwrap().place,
        Place::Workload(_, Direction::Egress)
    ));
}

#[test]
fn settings_in_their_order() {
    let mut c = Cluster::new();
    let action = |v| [("defaultendpointtohostaction", v)];
    c.felix("default", &action("Drop"));
    let selected = |created, v: &str| model::FelixConfig {
        values: [("defaultendpointtohostaction".into(), v.into())].into(),
        node_selector: Some("rack == \"r1\"".into()),
        created,
    };
    c.0.update(Update::Felix("young".into(), Some(selected(20, "Drop"))));
    c.0.update(Update::Felix("old".into(), Some(selected(10, "Accept"))));
    c.allows("shop/front", "n1", 80);
    c.denies("shop/db", "n2", 80);
    c.felix("node.n1", &action("Drop"));
    c.denies("shop/front", "n1", 80);
    c.felix("node.n2", &action("Return"));
    c.allows("shop/db", "n2", 80);
}

#[test]
fn neighbour_discovery_to_the_own_node() {
    let mut c = Cluster::new();
    c.global("p", closed("app == 'front'"));
    let (from, source) = c.end("shop/front", Family::V6);
    let to = Target::Address(ip("fd00::1"));
    for kind in [130, 131, 132, 133, 135, 136] {
        let flow = Flow::new(from.clone(), source, to.clone(), Protocol::ICMP, 0);
        c.allows_flow(&Flow {
            icmp: Some((kind, 0)),
            ..flow
        });
    }
    let flow = Flow::new(from, source, to, Protocol::ICMP, 0);
    c.denies_flow(&Flow {
        icmp: Some((134, 0)),
        ..flow.clone()
    });
    c.denies_flow(&flow);
}

#[test]
fn pod_to_another_node() {
    let mut c = Cluster::new();
    let e = c.allows("shop/front", "n2", 80);
    assert_eq!(e.paths[0].to, End::Node("n2".into()));
    c.global("p", policy("app == 'front'", None, Some(vec![])));
    c.denies("shop/front", "n2", 80);
}

#[test]
fn node_to_its_own_pod_is_never_policed() {
    let mut c = Cluster::new();
    c.global("p", closed("all()"));
    c.edit("shop/front", |w| w.profiles.clear());
    let e = c.allows("n1", "shop/front", 80);
    assert_eq!(places(&e), ["n1 node to its own pod shop/front"]);
}

#[test]
fn node_to_a_pod_elsewhere() {
    let mut c = Cluster::new();
    c.allows("n1", "shop/db", 80);
    c.global("p", closed("app == 'db'"));
    c.denies("n1", "shop/db", 80);
    c.global(
        "p",
        policy(
            "app == 'db'",
            Some(vec![rule(model::Action::Allow, |r| {
                r.source.nets = vec!["192.168.0.1/32".parse().unwrap()];
            })]),
            None,
        ),
    );
    c.allows("n1", "shop/db", 80);
}

#[test]
fn nodes_and_outside_without_host_endpoints() {
    let c = Cluster::new();
    for (from, to) in [
        ("n1", "n2"),
        ("n1", "n1"),
        ("n1", "8.8.8.8"),
        ("8.8.8.8", "n1"),
    ] {
        assert!(c.allows(from, to, 80).paths[0].stages.is_empty());
    }
}

#[test]
fn outside_and_pods() {
    let mut c = Cluster::new();
    c.allows("8.8.8.8", "shop/db", 80);
    c.allows("shop/front", "8.8.8.8", 80);
    c.global(
        "in",
        policy("app == 'db'", Some(vec![to_port("443")]), None),
    );
    c.global(
        "out",
        policy("app == 'front'", None, Some(vec![to_port("53")])),
    );
    c.denies("8.8.8.8", "shop/db", 80);
    c.allows("8.8.8.8", "shop/db", 443);
    c.denies("shop/front", "8.8.8.8", 80);
    c.allows("shop/front", "8.8.8.8", 53);
}

#[test]
fn outside_to_outside_is_not_ours() {
    let c = Cluster::new();
    let e = c.allows("8.8.8.8", "9.9.9.9", 80);
    assert_eq!(e.notes, ["no node is on the way"]);
}

#[test]
fn an_address_that_nobody_has() {
    let c = Cluster::new();
    let e = c.allows("shop/front", "10.0.9.9", 80);
    assert_eq!(
        e.notes,
        ["10.0.9.9 is of pool 10.0.0.0/16 and no endpoint has it"]
    );
}

#[test]
fn workloads_do_not_encapsulate() {
    let mut c = Cluster::new();
    let vxlan = Flow {
        protocol: UDP,
        ..c.flow("shop/front", "n2", 4789)
    };
    let ipip = Flow {
        protocol: Protocol(4),
        ..c.flow("shop/front", "n2", 0)
    };
    assert_eq!(
        c.denies_flow(&vxlan).paths[0].deciding().unwrap().decision,
        Decision::Encapsulation
    );
    c.denies_flow(&ipip);
    c.felix("default", &[("allowvxlanpacketsfromworkloads", "true")]);
    c.allows_flow(&vxlan);
    c.denies_flow(&ipip);
    c.felix(
        "default",
        &[
            ("allowipippacketsfromworkloads", "true"),
            ("vxlanport", "8472"),
        ],
    );
    c.allows_flow(&vxlan);
    c.allows_flow(&ipip);
    c.denies_flow(&Flow {
        port: 8472,
        ..vxlan
    });
}

#[test]
fn host_traffic_into_a_tunnel_has_the_tunnels_address() {
    let mut c = Cluster::new();
    c.pool(
        "main",
        model::IpPool {
            vxlan: Encap::Always,
            ..pool("10.0.0.0/16")
        },
    );
    let e = c.allows("n1", "shop/db", 80);
    assert_eq!(e.paths[0].seen_source, ip("10.0.1.0"));
    c.pool(
        "main",
        model::IpPool {
            ipip: Encap::Always,
            ..pool("10.0.0.0/16")
        },
    );
    assert_eq!(
        c.allows("n1", "shop/db", 80).paths[0].seen_source,
        ip("10.0.1.1")
    );
    // In one subnet no tunnel is needed; the pod's own address stays in any case.
    c.pool(
        "main",
        model::IpPool {
            vxlan: Encap::CrossSubnet,
            ..pool("10.0.0.0/16")
        },
    );
    assert_eq!(
        c.allows("n1", "shop/db", 80).paths[0].seen_source,
        ip("192.168.0.1")
    );
    c.0.update(Update::Node("n2".into(), Some(node(2, "192.168.0.2/32"))));
    c.0.update(Update::Node("n1".into(), Some(node(1, "192.168.0.1/32"))));
    assert_eq!(
        c.allows("n1", "shop/db", 80).paths[0].seen_source,
        ip("10.0.1.0")
    );
    assert_eq!(
        c.allows("shop/front", "shop/db", 80).paths[0].seen_source,
        ip("10.0.1.11")
    );
    c.felix("default", &[("vxlanenabled", "false")]);
    assert_eq!(
        c.allows("n1", "shop/db", 80).paths[0].seen_source,
        ip("192.168.0.1")
    );
}

#[test]
fn two_families_do_not_meet() {
    let c = Cluster::new();
    let (from, source) = c.end("shop/front", Family::V4);
    let to = Target::Address(c.end("shop/db", Family::V6).1);
    let e = c.denies_flow(&Flow::new(from, source, to, TCP, 80));
    assert_eq!(e.notes, ["fd10:2::21 is not of the family of 10.0.1.11"]);
}

#[test]
fn an_unknown_workload_is_closed() {
    let mut c = Cluster::new();
    let flow = c.flow("other/job", "shop/db", 80);
    c.0.update(Update::Workload(workload_key("n1", "other/job"), None));
    let e = c.denies_flow(&flow);
    assert_eq!(
        e.paths[0].deciding().unwrap().decision,
        Decision::UnknownWorkload
    );
}
