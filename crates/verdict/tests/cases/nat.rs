//! Services, floating addresses, outgoing NAT.

use crate::support::*;
use model::{
    BgpConfig, EndpointSlice, Policy, Service, ServicePort, ServiceRef, SliceEndpoint, SliceKey,
    SlicePort, Update,
};
use net::Family;
use verdict::{Decision, End, Flow, Place, Target, Verdict};

fn svc() -> ServiceRef {
    ServiceRef {
        namespace: "shop".into(),
        name: "db".into(),
    }
}

fn service() -> Service {
    Service {
        cluster_ips: vec![ip("10.96.0.7")],
        external_ips: vec![ip("203.0.113.80")],
        load_balancer_ips: vec![ip("203.0.113.81")],
        ports: vec![ServicePort {
            name: "sql".into(),
            protocol: TCP,
            port: 80,
            node_port: Some(30080),
        }],
        external_local: false,
        internal_local: false,
    }
}

fn behind(c: &mut Cluster, pods: &[(&str, bool)]) {
    let endpoint = |(name, ready): &(&str, bool)| {
        let (end, address) = c.end(name, Family::V4);
        let End::Workload(key) = end else {
            panic!("{name}")
        };
        SliceEndpoint {
            addresses: vec![address],
            node: Some(key.node),
            ready: *ready,
        }
    };
    let slice = EndpointSlice {
        service: svc(),
        endpoints: pods.iter().map(endpoint).collect(),
        ports: vec![SlicePort {
            name: "sql".into(),
            protocol: TCP,
            port: Some(5432),
        }],
    };
    let key = SliceKey {
        namespace: "shop".into(),
        name: "db-1".into(),
    };
    c.0.update(Update::EndpointSlice(key, Some(slice)));
}

fn cluster() -> Cluster {
    let mut c = Cluster::new();
    c.0.update(Update::Service(svc(), Some(service())));
    behind(&mut c, &[("shop/db", true)]);
    c
}

#[test]
fn policy_sees_the_backend_not_the_service() {
    let mut c = cluster();
    let e = c.allows("shop/front", "10.96.0.7", 80);
    assert_eq!(e.paths[0].destination, (ip("10.0.2.21"), 5432));
    c.global(
        "out",
        policy("app == 'front'", None, Some(vec![to_port("5432")])),
    );
    c.allows("shop/front", "10.96.0.7", 80);
    c.global(
        "out",
        policy("app == 'front'", None, Some(vec![to_port("80")])),
    );
    c.denies("shop/front", "10.96.0.7", 80);
}

#[test]
fn a_service_by_name() {
    let mut c = cluster();
    let (from, source) = c.end("shop/front", Family::V4);
    let flow = Flow::new(from, source, Target::Service(svc()), TCP, 80);
    c.allows_flow(&flow);
    c.0.update(Update::Service(svc(), None));
    let e = c.denies_flow(&flow);
    assert_eq!(e.notes, ["there is no service shop/db"]);
    // A headless one is the addresses behind it, by their own ports.
    c.0.update(Update::Service(
        svc(),
        Some(Service {
            cluster_ips: vec![],
            ..service()
        }),
    ));
    assert_eq!(
        c.allows_flow(&flow).paths[0].destination,
        (ip("10.0.2.21"), 80)
    );
}

#[test]
fn several_backends_may_differ() {
    let mut c = cluster();
    behind(&mut c, &[("shop/db", true), ("shop/near", true)]);
    assert_eq!(c.allows("shop/front", "10.96.0.7", 80).paths.len(), 2);
    c.global("no", policy("app == 'near'", Some(vec![]), None));
    let e = c.explain("shop/front", "10.96.0.7", 80);
    assert_eq!(e.verdict, Verdict::Mixed);
    c.global("no", policy("app in {'near', 'db'}", Some(vec![]), None));
    c.denies("shop/front", "10.96.0.7", 80);
}

#[test]
fn what_is_not_ready_gets_nothing() {
    let mut c = cluster();
    behind(&mut c, &[("shop/db", false)]);
    let e = c.denies("shop/front", "10.96.0.7", 80);
    assert_eq!(e.paths[0].deciding().unwrap().decision, Decision::NoBackend);
    assert_eq!(e.paths[0].deciding().unwrap().place, Place::Service(svc()));
}

#[test]
fn internal_traffic_policy_local() {
    let mut c = cluster();
    let local = Service {
        internal_local: true,
        ..service()
    };
    c.0.update(Update::Service(svc(), Some(local)));
    c.denies("shop/front", "10.96.0.7", 80);
    behind(&mut c, &[("shop/db", true), ("shop/near", true)]);
    let e = c.allows("shop/front", "10.96.0.7", 80);
    assert_eq!(e.paths.len(), 1);
}

#[test]
fn node_port_from_outside() {
    let mut c = cluster();
    // In at n1, on to the pod of n2, with n1's address so that answers come back there.
    let e = c.allows("8.8.8.8", "n1", 30080);
    assert_eq!(e.paths[0].destination, (ip("10.0.2.21"), 5432));
    assert_eq!(e.paths[0].seen_source, ip("192.168.0.1"));
    let from_outside = model::Rule {
        source: nets("8.0.0.0/8"),
        ..allow()
    };
    let from_node = model::Rule {
        source: nets("192.168.0.1/32"),
        ..allow()
    };
    c.global(
        "in",
        policy("app == 'db'", Some(vec![from_outside.clone()]), None),
    );
    c.denies("8.8.8.8", "n1", 30080);
    c.global("in", policy("app == 'db'", Some(vec![from_node]), None));
    c.allows("8.8.8.8", "n1", 30080);
    // In at the pod's own node policy comes before the address is changed.
    c.denies("8.8.8.8", "n2", 30080);
    c.global("in", policy("app == 'db'", Some(vec![from_outside]), None));
    c.allows("8.8.8.8", "n2", 30080);
}

fn nets(net: &str) -> model::Entity {
    model::Entity {
        nets: vec![net.parse().unwrap()],
        ..model::Entity::default()
    }
}

#[test]
fn external_traffic_policy_local() {
    let mut c = cluster();
    let local = Service {
        external_local: true,
        ..service()
    };
    c.0.update(Update::Service(svc(), Some(local)));
    c.denies("8.8.8.8", "n1", 30080);
    let e = c.allows("8.8.8.8", "n2", 30080);
    assert_eq!(e.paths[0].seen_source, ip("8.8.8.8"));
    // From inside it is as the cluster's.
    c.allows("shop/front", "203.0.113.81", 80);
}

#[test]
fn external_and_load_balancer_addresses() {
    let c = cluster();
    for address in ["203.0.113.80", "203.0.113.81"] {
        assert_eq!(
            c.allows("8.8.8.8", address, 80).paths[0].destination,
            (ip("10.0.2.21"), 5432)
        );
        assert_eq!(
            c.allows("shop/front", address, 80).paths[0].seen_source,
            ip("10.0.1.11")
        );
    }
}

#[test]
fn pre_dnat_policy_sees_the_original_port() {
    let mut c = cluster();
    c.host("h", "n1", Some("eth0"), &[]);
    let pinhole = |port: &str| Policy {
        pre_dnat: true,
        apply_on_forward: true,
        ..policy("kind == 'host'", Some(vec![to_port(port), deny()]), None)
    };
    c.global("pre", pinhole("30080"));
    c.allows("8.8.8.8", "n1", 30080);
    // A pinhole for the backend's port does nothing.
    c.global("pre", pinhole("5432"));
    c.denies("8.8.8.8", "n1", 30080);
}

#[test]
fn pre_dnat_policy_sees_what_something_else_translated() {
    let mut c = Cluster::new();
    c.host("h", "n1", Some("eth0"), &[]);
    let p = policy("kind == 'host'", Some(vec![to_port("31000"), deny()]), None);
    c.global(
        "pre",
        Policy {
            pre_dnat: true,
            apply_on_forward: true,
            ..p
        },
    );
    let flow = c.flow("8.8.8.8", "shop/front", 80);
    c.denies_flow(&flow);
    c.allows_flow(&Flow {
        original: Some((ip("192.168.0.1"), 31000)),
        ..flow
    });
}

#[test]
fn untracked_packets_are_not_translated() {
    let mut c = cluster();
    c.host("h", "n1", Some("eth0"), &[]);
    let p = policy("kind == 'host'", Some(vec![allow()]), Some(vec![allow()]));
    c.global(
        "u",
        Policy {
            untracked: true,
            apply_on_forward: true,
            ..p
        },
    );
    let e = c.allows("8.8.8.8", "n1", 30080);
    assert_eq!(e.paths[0].to, End::Node("n1".into()));
    assert!(
        e.notes.iter().any(|n| n.contains("is not translated")),
        "{e}"
    );
}

#[test]
fn node_to_service() {
    let mut c = cluster();
    c.global("in", policy("app == 'db'", Some(vec![]), None));
    c.denies("n1", "10.96.0.7", 80);
    // Its own pod, by whatever address.
    let e = c.allows("n2", "10.96.0.7", 80);
    assert_eq!(e.paths[0].stages[0].decision, Decision::OwnNode);
}

#[test]
fn node_to_service_meets_host_policy_after_translation() {
    let mut c = cluster();
    c.host("h", "n1", Some("*"), &[]);
    c.global(
        "out",
        policy("kind == 'host'", None, Some(vec![to_port("5432")])),
    );
    c.allows("n1", "10.96.0.7", 80);
    c.global(
        "out",
        policy("kind == 'host'", None, Some(vec![to_port("80")])),
    );
    c.denies("n1", "10.96.0.7", 80);
}

#[test]
fn pod_to_node_ports() {
    let c = cluster();
    // Of its own node: translated there. Of another: there.
    let e = c.allows("shop/front", "n1", 30080);
    assert_eq!(
        (e.paths[0].destination, e.paths[0].seen_source),
        ((ip("10.0.2.21"), 5432), ip("10.0.1.11"))
    );
    let e = c.allows("shop/front", "n2", 30080);
    assert_eq!(e.paths[0].destination, (ip("10.0.2.21"), 5432));
    assert_eq!(e.paths[0].seen_source, ip("192.168.0.2"));
}

#[test]
fn a_pod_reaches_itself_by_its_service() {
    let c = cluster();
    let e = c.allows("shop/db", "10.96.0.7", 80);
    assert_eq!(e.paths[0].seen_source, ip("192.168.0.2"));
}

#[test]
fn service_loops() {
    let mut c = cluster();
    let ranges = BgpConfig {
        service_cluster: vec!["10.96.0.0/16".parse().unwrap()],
        ..BgpConfig::default()
    };
    c.0.update(Update::BgpConfig("default".into(), Some(ranges)));
    c.allows("shop/front", "10.96.0.7", 80);
    let e = c.denies("shop/front", "10.96.0.7", 81);
    assert!(matches!(
        e.paths[0].deciding().unwrap().decision,
        Decision::ServiceLoop(_)
    ));
    c.denies("shop/front", "10.96.9.9", 80);
    c.felix("default", &[("serviceloopprevention", "Reject")]);
    c.denies("shop/front", "10.96.9.9", 80);
    c.felix("default", &[("serviceloopprevention", "Disabled")]);
    c.allows("shop/front", "10.96.9.9", 80);
    // What the node itself sends is not forwarded.
    c.felix("default", &[]);
    c.allows("n1", "10.96.9.9", 80);
}

#[test]
fn outgoing_nat() {
    let mut c = Cluster::new();
    let seen = |c: &Cluster, to| c.allows("shop/front", to, 80).paths[0].seen_source;
    assert_eq!(seen(&c, "8.8.8.8"), ip("10.0.1.11"));
    c.pool(
        "main",
        model::IpPool {
            nat_outgoing: true,
            ..pool("10.0.0.0/16")
        },
    );
    assert_eq!(seen(&c, "8.8.8.8"), ip("192.168.0.1"));
    assert_eq!(seen(&c, "n2"), ip("192.168.0.1"));
    assert_eq!(seen(&c, "shop/db"), ip("10.0.1.11"));
    c.pool("more", pool("8.8.8.0/24"));
    assert_eq!(seen(&c, "8.8.8.8"), ip("10.0.1.11"));
    let balancer = model::AllowedUses {
        workload: false,
        tunnel: false,
        load_balancer: true,
    };
    c.pool(
        "more",
        model::IpPool {
            uses: balancer,
            ..pool("8.8.8.0/24")
        },
    );
    assert_eq!(seen(&c, "8.8.8.8"), ip("192.168.0.1"));
    c.felix("default", &[("natoutgoingexclusions", "IPPoolsAndHostIPs")]);
    assert_eq!(seen(&c, "n2"), ip("10.0.1.11"));
    assert_eq!(seen(&c, "9.9.9.9"), ip("192.168.0.1"));
    c.felix("default", &[("natoutgoingaddress", "203.0.113.5")]);
    assert_eq!(seen(&c, "9.9.9.9"), ip("203.0.113.5"));
}

#[test]
fn another_nodes_host_endpoint_sees_the_translated_source() {
    let mut c = Cluster::new();
    c.pool(
        "main",
        model::IpPool {
            nat_outgoing: true,
            ..pool("10.0.0.0/16")
        },
    );
    c.host("h2", "n2", Some("*"), &[]);
    let from = |net| model::Rule {
        source: nets(net),
        ..allow()
    };
    c.global(
        "in",
        policy("kind == 'host'", Some(vec![from("10.0.0.0/16")]), None),
    );
    c.denies("shop/front", "n2", 80);
    c.global(
        "in",
        policy("kind == 'host'", Some(vec![from("192.168.0.1/32")]), None),
    );
    c.allows("shop/front", "n2", 80);
}

#[test]
fn floating_addresses() {
    let mut c = Cluster::new();
    c.edit("shop/db", |w| {
        w.nats = vec![(ip("10.0.2.21"), ip("203.0.113.50"))]
    });
    c.global(
        "in",
        policy("app == 'db'", Some(vec![to_port("443")]), None),
    );
    // Not enabled: nobody has the address.
    c.allows("8.8.8.8", "203.0.113.50", 80);
    c.felix("default", &[("floatingips", "Enabled")]);
    let e = c.allows("8.8.8.8", "203.0.113.50", 443);
    assert_eq!(e.paths[0].destination, (ip("10.0.2.21"), 443));
    c.denies("8.8.8.8", "203.0.113.50", 80);
    // Another node's pod addresses the outside one: its egress policy sees that.
    let out = model::Rule {
        destination: nets("203.0.113.50/32"),
        ..allow()
    };
    c.global("out", policy("app == 'front'", None, Some(vec![out])));
    c.allows("shop/front", "203.0.113.50", 443);
    c.denies("shop/front", "203.0.113.50", 80);
    // To itself it comes from the outside one.
    let e = c.allows("shop/db", "203.0.113.50", 443);
    assert_eq!(e.paths[0].seen_source, ip("203.0.113.50"));
}
