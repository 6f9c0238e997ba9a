//! Which changes make a new plan, and what of them has to be handed over.

mod support;

use model::{
    BgpConfig, BgpRemote, Block, EndpointSlice, Profile, ProfileId, Service, ServicePort,
    ServiceRef, SliceEndpoint, SliceKey, SlicePort, Update, WorkloadEndpoint, WorkloadKey,
};
use net::{Cidr, Protocol};
use peering::World;
use support::{at, config, node, peer, resource, select, world};

fn cidr(text: &str) -> Cidr {
    text.parse().expect("a prefix")
}

fn block(at: &str, owner: &str) -> Update {
    let b = Block {
        cidr: cidr(at),
        node: Some(owner.into()),
        borrowed: Vec::new(),
    };
    Update::Block(cidr(at), Some(b))
}

fn service() -> Update {
    let web = ServiceRef {
        namespace: "shop".into(),
        name: "web".into(),
    };
    let port = ServicePort {
        name: "http".into(),
        protocol: Protocol::TCP,
        port: 80,
        node_port: None,
    };
    let s = Service {
        cluster_ips: vec!["10.96.0.10".parse().expect("an address")],
        ports: vec![port],
        external_local: true,
        ..Service::default()
    };
    Update::Service(web, Some(s))
}

fn slice(on: &str, addresses: &[&str], ready: bool) -> Update {
    let key = SliceKey {
        namespace: "shop".into(),
        name: "web-1".into(),
    };
    let endpoint = |a: &&str| SliceEndpoint {
        addresses: vec![a.parse().expect("an address")],
        node: Some(on.into()),
        ready,
    };
    let s = EndpointSlice {
        service: ServiceRef {
            namespace: "shop".into(),
            name: "web".into(),
        },
        endpoints: addresses.iter().map(endpoint).collect(),
        ports: vec![SlicePort {
            name: "http".into(),
            protocol: Protocol::TCP,
            port: Some(8080),
        }],
    };
    Update::EndpointSlice(key, Some(s))
}

fn ranges() -> Update {
    config(BgpConfig {
        service_cluster: vec![cidr("10.96.0.0/12")],
        ..BgpConfig::default()
    })
}

fn profile(name: &str, label: &str) -> Update {
    let p = Profile {
        labels: model::Labels::new([("l", label)]),
        ..Profile::default()
    };
    Update::Profile(ProfileId::from(name), Some(p))
}

fn pod(on: &str, name: &str) -> Update {
    let key = WorkloadKey {
        node: on.into(),
        orchestrator: "k8s".into(),
        workload: name.into(),
        endpoint: "eth0".into(),
    };
    let e = WorkloadEndpoint {
        interface: None,
        mac: None,
        nets: vec![cidr("10.65.0.9/32")],
        nats: Vec::new(),
        labels: model::Labels::default(),
        profiles: vec![ProfileId::from("kns.shop")],
        ports: Vec::new(),
        allowed_sources: Vec::new(),
        qos: model::Qos::default(),
    };
    Update::Workload(key, Some(e))
}

fn every_kind() -> Vec<Update> {
    let workloads = BgpRemote::Workloads {
        selector: select("l == 'x'"),
        asn: net::Asn(65001),
    };
    vec![
        Update::Node("d".into(), Some(node("10.0.0.20", "", &[]))),
        resource("p", peer(at("192.0.2.1", 65000))),
        resource("w", peer(workloads)),
        block("10.65.0.0/26", "a"),
        block("10.65.1.0/26", "b"),
        block("10.65.0.0/26", "b"),
        block("10.65.1.0/26", "a"),
        ranges(),
        service(),
        slice("b", &["10.65.1.9"], true),
        slice("a", &["10.65.0.9"], true),
        profile("kns.shop", "x"),
        pod("a", "web-1"),
        pod("b", "web-2"),
        Update::Block(cidr("10.65.1.0/26"), None),
        slice("a", &["10.65.0.9"], false),
    ]
}

#[test]
fn what_concerns_a_node_makes_the_plan_that_all_of_it_makes() {
    let (mut whole, mut part) = (world(vec![]), world(vec![]));
    for u in every_kind() {
        let concerning = World::concerning("a", &u);
        let told = whole.update(u.clone());
        let heard = concerning.map(|c| part.update(c));
        assert_eq!(heard.unwrap_or(false), told, "{u:?}");
        assert_eq!(whole.plan(), part.plan(), "{u:?}");
    }
}

#[test]
fn of_the_cluster_little_is_handed_over() {
    assert_eq!(World::concerning("a", &pod("b", "web-2")), None);
    assert_eq!(World::concerning("a", &Update::Ready(true)), None);
    let theirs = World::concerning("a", &block("10.65.1.0/26", "b"));
    assert_eq!(theirs, Some(Update::Block(cidr("10.65.1.0/26"), None)));
    let Some(Update::Service(_, Some(s))) = World::concerning("a", &service()) else {
        panic!("a service can be announced");
    };
    assert!(s.ports.is_empty());
}

#[test]
fn only_what_can_matter_makes_a_new_plan() {
    let mut w = world(vec![]);
    let mut news = |u: Update| w.update(u);
    // Nobody announces services yet.
    assert!(!news(service()));
    assert!(!news(slice("a", &["10.65.0.9"], true)));
    assert!(news(ranges()));
    assert!(!news(ranges()), "the same again");
    // One more endpoint where one is ready already.
    assert!(!news(slice("a", &["10.65.0.9", "10.65.0.10"], true)));
    assert!(!news(service()));
    assert!(news(slice("a", &["10.65.0.9"], false)), "none is left here");
    assert!(news(block("10.65.0.0/26", "a")));
    assert!(!news(block("10.65.0.0/26", "a")));
    assert!(!news(block("10.65.1.0/26", "b")));
    assert!(news(block("10.65.0.0/26", "b")), "it was this node's");
    assert!(!news(profile("kns.shop", "x")) && !news(pod("a", "web-1")));
    let workloads = BgpRemote::Workloads {
        selector: select("l == 'x'"),
        asn: net::Asn(65001),
    };
    assert!(news(resource("w", peer(workloads))));
    assert!(news(profile("kns.shop", "y")) && news(pod("a", "web-3")));
    assert!(!news(Update::Ready(false)));
}
