//! Resources and what is announced, believed and programmed because of them.

mod support;

use bgp::attr::Attributes;
use bgp::policy::{Question, SourceKind, Verdict};
use bgp::types::PeerKind;
use model::{
    BgpConfig, BgpFilter, CidrMatch, Community, Encap, EndpointSlice, FilterOperation, FilterRule,
    IpPool, PrefixCommunities, Service, ServiceRef, SliceEndpoint, SliceKey, Update,
};
use net::{Asn, Cidr, Family};
use peering::{METRIC_BASE, World};
use support::{at, config, node, peer, reflector, resource, world};

const NORMAL: u32 = METRIC_BASE - 1024;

fn cidr(text: &str) -> Cidr {
    text.parse().expect("valid here")
}

fn pool(text: &str) -> IpPool {
    IpPool {
        cidr: cidr(text),
        block_size: 26,
        vxlan: Encap::Never,
        ipip: Encap::Never,
        nat_outgoing: false,
        disabled: false,
        deleting: false,
        allocatable: true,
        disable_bgp_export: false,
        node_selector: model::Selector::all(),
        namespace_selector: None,
        manual: false,
        uses: model::AllowedUses {
            workload: true,
            tunnel: true,
            load_balancer: false,
        },
    }
}

fn add_pool(name: &str, p: IpPool) -> Update {
    Update::Pool(name.into(), Some(p))
}

fn block(text: &str) -> Update {
    let b = model::Block {
        cidr: cidr(text),
        node: Some("a".into()),
        borrowed: Vec::new(),
    };
    Update::Block(b.cidr, Some(b))
}

fn filter(name: &str, import: Vec<FilterRule>, export: Vec<FilterRule>) -> Update {
    let f = BgpFilter {
        import: [import, Vec::new()],
        export: [export, Vec::new()],
    };
    Update::BgpFilter(name.into(), Some(f))
}

fn rule(accept: bool) -> FilterRule {
    FilterRule {
        accept,
        ..FilterRule::default()
    }
}

/// A route that is asked about.
#[derive(Clone)]
struct Route {
    prefix: Cidr,
    source: SourceKind,
    pref: u32,
    device: Option<&'static str>,
    path: Vec<u32>,
}

/// One of ours, of normal priority.
fn ours(text: &str) -> Route {
    Route {
        prefix: cidr(text),
        source: SourceKind::Local,
        pref: NORMAL,
        device: None,
        path: Vec::new(),
    }
}

fn learned(text: &str) -> Route {
    Route {
        source: SourceKind::Peer,
        ..ours(text)
    }
}

enum Way {
    In,
    Out,
}

/// The answer for the session with `peer`, the name of the term that gave it, and what the route
/// carries then.
fn ask(w: &World, way: &Way, peer: &str, r: &Route) -> (bool, String, Attributes) {
    let plan = w.plan();
    let p = plan.peers.iter().find(|p| p.address.to_string() == peer);
    let p = p.expect("the session is there");
    let policy = match way {
        Way::In => w.import(p),
        Way::Out => w.export(&plan.own, p),
    };
    let mut attributes = Attributes::new(ip("0.0.0.0").into());
    attributes.local_pref = Some(r.pref);
    for asn in r.path.iter().rev() {
        attributes.as_path = attributes.as_path.prepend(Asn(*asn), 1);
    }
    let q = Question {
        prefix: r.prefix,
        attributes: &attributes,
        source: r.source,
        peer: match p.external() {
            true => PeerKind::External,
            false => PeerKind::Internal,
        },
        interface: r.device.map(|d| d.parse().expect("valid here")),
    };
    let answer = policy.ask(&q);
    let name = policy.name_of(&answer).unwrap_or("nothing").to_owned();
    let mut after = attributes.clone();
    for o in policy.operations(&answer) {
        o.apply(&mut after);
    }
    (answer.verdict == Verdict::Accept, name, after)
}

/// Internal, in the mesh.
const MESH: &str = "10.0.0.2";
/// External, a BGPPeer for all.
const TOR: &str = "192.0.2.1";

fn with(mut more: Vec<Update>) -> World {
    let mut all = vec![resource("tor", peer(at(TOR, 65000)))];
    all.append(&mut more);
    world(all)
}

#[track_caller]
fn told(w: &World, peer: &str, r: &Route, want: bool, by: &str) {
    let (accepted, name, _) = ask(w, &Way::Out, peer, r);
    assert_eq!((accepted, name.as_str()), (want, by), "{}", r.prefix);
}

#[test]
fn own_blocks_are_told_whole() {
    let w = with(vec![
        add_pool("p", pool("10.65.0.0/16")),
        block("10.65.1.0/26"),
    ]);
    for peer in [MESH, TOR] {
        told(
            &w,
            peer,
            &ours("10.65.1.0/26"),
            true,
            "own block 10.65.1.0/26",
        );
        let whole = "inside own block 10.65.1.0/26, which is announced whole";
        told(&w, peer, &ours("10.65.1.7/32"), false, whole);
        // Borrowed by us from another's block: it leaves on its own.
        told(&w, peer, &ours("10.65.2.7/32"), true, "inside IPPool(p)");
        told(&w, peer, &ours("192.168.7.0/24"), false, "nothing");
        told(&w, peer, &ours("0.0.0.0/0"), false, "nothing");
    }
}

#[test]
fn an_elevated_route_leaves_its_block_and_is_preferred() {
    let w = with(vec![
        add_pool("p", pool("10.65.0.0/16")),
        block("10.65.1.0/26"),
    ]);
    let mut r = ours("10.65.1.7/32");
    r.pref = METRIC_BASE - 512;
    told(
        &w,
        MESH,
        &r,
        true,
        "elevated, inside own block 10.65.1.0/26",
    );
    let (_, name, _) = ask(&w, &Way::In, MESH, &r);
    assert_eq!(name, "elevated priority");
    assert_eq!(preference(&w, &r), Some(200));
    let (accepted, name, _) = ask(&w, &Way::In, MESH, &learned("10.65.1.7/32"));
    assert_eq!((accepted, name.as_str()), (true, "nothing"));
    assert_eq!(preference(&w, &learned("10.65.1.7/32")), None);
}

/// The preference that import gives a route from the mesh.
fn preference(w: &World, r: &Route) -> Option<u16> {
    let plan = w.plan();
    let p = plan.peers.iter().find(|p| p.address.to_string() == MESH);
    let policy = w.import(p.expect("the session is there"));
    let mut attributes = Attributes::new(ip("0.0.0.0").into());
    attributes.local_pref = Some(r.pref);
    let answer = policy.ask(&Question {
        prefix: r.prefix,
        attributes: &attributes,
        source: r.source,
        peer: PeerKind::Internal,
        interface: None,
    });
    let mut set = policy.operations(&answer).filter_map(|o| match o {
        bgp::policy::Operation::SetPreference(n) => Some(*n),
        _ => None,
    });
    set.next()
}

#[test]
fn what_is_normal_can_be_configured_for_each_family() {
    let w = with(vec![]);
    let of = |w: &World| [Family::V4, Family::V6].map(|f| w.normal_priority(f));
    assert_eq!(of(&w), [1024, 1024]);
    let mut w = with(vec![
        add_pool("p", pool("10.65.0.0/16")),
        block("10.65.1.0/26"),
        config(BgpConfig {
            normal_priority: [Some(2000), Some(3000)],
            ..BgpConfig::default()
        }),
    ]);
    assert_eq!(of(&w), [2000, 3000]);
    // What was normal is elevated now; what is normal is not.
    for (metric, elevated) in [(1024, true), (1999, true), (2000, false), (2001, false)] {
        let r = Route {
            pref: METRIC_BASE - metric,
            ..ours("10.65.1.7/32")
        };
        assert_eq!(ask(&w, &Way::Out, MESH, &r).0, elevated, "{metric}");
        assert_eq!(preference(&w, &r), elevated.then_some(200), "{metric}");
    }
    // Only the cluster's configuration says so.
    let own = BgpConfig {
        normal_priority: [Some(5), Some(6)],
        ..BgpConfig::default()
    };
    w.update(Update::BgpConfig("node.a".into(), Some(own)));
    assert_eq!(of(&w), [2000, 3000]);
}

#[test]
fn host_sized_blocks_are_no_blocks() {
    let w = with(vec![
        add_pool("p", pool("10.65.0.0/16")),
        block("10.65.1.9/32"),
        block("10.65.2.0/26"),
    ]);
    let blocks: Vec<String> = w.plan().own.blocks.iter().map(|c| c.to_string()).collect();
    assert_eq!(blocks, ["10.65.2.0/26"]);
    told(&w, MESH, &ours("10.65.1.9/32"), true, "inside IPPool(p)");
}

#[test]
fn pools_that_are_not_exported() {
    let mut hidden = pool("10.66.0.0/16");
    hidden.disable_bgp_export = true;
    let mut disabled = pool("10.67.0.0/16");
    disabled.disabled = true;
    let w = with(vec![
        add_pool("hidden", hidden),
        add_pool("old", disabled),
        block("10.66.1.0/26"),
        block("10.67.1.0/26"),
    ]);
    told(
        &w,
        MESH,
        &ours("10.66.1.0/26"),
        false,
        "IPPool(hidden) is not exported",
    );
    // A disabled pool gives no addresses; those that are out are still reached.
    told(
        &w,
        MESH,
        &ours("10.67.1.0/26"),
        true,
        "own block 10.67.1.0/26",
    );
}

#[test]
fn routes_of_tunnels_leave_the_as_only() {
    let programs = |text: &str| {
        config(BgpConfig {
            program_cluster_routes: Some(text.into()),
            ..BgpConfig::default()
        })
    };
    // Who programs IP in IP, and what of its device is told within the AS.
    for (who, tunl0) in [
        ("EnabledNoEncapOnly", false),
        ("Disabled", false),
        ("Enabled", true),
        ("EnabledIPIPOnly", true),
    ] {
        let w = with(vec![add_pool("p", pool("10.65.0.0/16")), programs(who)]);
        for (device, inside) in [
            ("vxlan.calico", false),
            ("wireguard.cali", false),
            ("tunl0", tunl0),
            ("eth0", true),
        ] {
            let r = Route {
                device: Some(device),
                ..ours("10.65.9.0/26")
            };
            assert_eq!(ask(&w, &Way::Out, MESH, &r).0, inside, "{who} {device}");
            assert!(ask(&w, &Way::Out, TOR, &r).0, "{who} {device}");
        }
        for peer in [MESH, TOR] {
            let r = Route {
                device: Some("bpfin.cali"),
                ..ours("10.65.9.0/26")
            };
            assert!(!ask(&w, &Way::Out, peer, &r).0);
        }
    }
}

#[test]
fn filters_go_first_and_end_the_matter() {
    let mut p = peer(at(TOR, 65000));
    p.filters = vec!["f".into()];
    let inside = |text: &str, how, accept| FilterRule {
        cidr: Some((cidr(text), how)),
        ..rule(accept)
    };
    let mut hidden = pool("10.66.0.0/16");
    hidden.disable_bgp_export = true;
    let w = world(vec![
        resource("tor", p),
        add_pool("p", pool("10.65.0.0/16")),
        add_pool("hidden", hidden),
        filter(
            "f",
            vec![inside("10.0.0.0/8", CidrMatch::NotIn, false)],
            vec![
                inside("10.65.1.0/26", CidrMatch::Equal, false),
                inside("10.66.0.0/16", CidrMatch::In, true),
            ],
        ),
    ]);
    told(
        &w,
        TOR,
        &ours("10.65.1.0/26"),
        false,
        "BGPFilter(f) rule 0 export",
    );
    // Accept is final: what would keep the pool in is not asked.
    told(
        &w,
        TOR,
        &ours("10.66.3.0/26"),
        true,
        "BGPFilter(f) rule 1 export",
    );
    told(&w, TOR, &ours("10.65.2.0/26"), true, "inside IPPool(p)");
    // The mesh has no filters.
    told(&w, MESH, &ours("10.65.1.0/26"), true, "inside IPPool(p)");
    let (accepted, name, _) = ask(&w, &Way::In, TOR, &learned("192.168.0.0/24"));
    assert_eq!(
        (accepted, name.as_str()),
        (false, "BGPFilter(f) rule 0 import")
    );
    assert!(ask(&w, &Way::In, TOR, &learned("10.1.0.0/24")).0);
}

/// One export rule at a time: whether it takes what it names and leaves the rest.
#[test]
fn every_field_of_a_filter() {
    let accept = || rule(true);
    let external = |e| FilterRule {
        external: Some(e),
        ..accept()
    };
    let sized = |least, most| FilterRule {
        cidr: Some((cidr("10.0.0.0/8"), CidrMatch::In)),
        lengths: Some((least, most)),
        ..accept()
    };
    let base = learned("10.9.8.0/24");
    let cases: Vec<(&str, FilterRule, Route, bool)> = vec![
        ("all", accept(), base.clone(), true),
        (
            "learned",
            FilterRule {
                from_remote_peers: true,
                ..accept()
            },
            base.clone(),
            true,
        ),
        (
            "ours",
            FilterRule {
                from_remote_peers: true,
                ..accept()
            },
            ours("10.9.8.0/24"),
            false,
        ),
        ("external", external(true), base.clone(), true),
        ("internal", external(false), base.clone(), false),
        ("length", sized(Some(24), Some(24)), base.clone(), true),
        ("too short", sized(Some(25), None), base.clone(), false),
        ("too long", sized(None, Some(23)), base.clone(), false),
        ("at most", sized(None, Some(24)), base.clone(), true),
        ("at least", sized(Some(24), None), base.clone(), true),
        ("any length", sized(None, None), base.clone(), true),
        (
            "itself",
            FilterRule {
                cidr: Some((base.prefix, CidrMatch::Equal)),
                ..accept()
            },
            base.clone(),
            true,
        ),
        (
            "equal to what covers it",
            FilterRule {
                cidr: Some((cidr("10.0.0.0/8"), CidrMatch::Equal)),
                ..accept()
            },
            base.clone(),
            false,
        ),
        (
            "not equal to itself",
            FilterRule {
                cidr: Some((base.prefix, CidrMatch::NotEqual)),
                ..accept()
            },
            base.clone(),
            false,
        ),
        (
            "in itself",
            FilterRule {
                cidr: Some((base.prefix, CidrMatch::In)),
                ..accept()
            },
            base.clone(),
            true,
        ),
        (
            "not in itself",
            FilterRule {
                cidr: Some((base.prefix, CidrMatch::NotIn)),
                ..accept()
            },
            base.clone(),
            false,
        ),
        (
            "not equal to what covers it",
            FilterRule {
                cidr: Some((cidr("10.0.0.0/8"), CidrMatch::NotEqual)),
                ..accept()
            },
            base.clone(),
            true,
        ),
        (
            "not in what covers it",
            FilterRule {
                cidr: Some((cidr("10.0.0.0/8"), CidrMatch::NotIn)),
                ..accept()
            },
            base.clone(),
            false,
        ),
        (
            "of another length is not in",
            FilterRule {
                cidr: Some((cidr("10.0.0.0/8"), CidrMatch::NotIn)),
                lengths: Some((Some(25), None)),
                ..accept()
            },
            base.clone(),
            true,
        ),
        (
            "one character",
            FilterRule {
                interface: Some("eth?".into()),
                ..accept()
            },
            Route {
                device: Some("eth1"),
                ..base.clone()
            },
            true,
        ),
        (
            "no interface",
            FilterRule {
                interface: Some("*".into()),
                ..accept()
            },
            base.clone(),
            false,
        ),
        (
            "all of two must hold",
            FilterRule {
                external: Some(false),
                ..sized(Some(24), None)
            },
            base.clone(),
            false,
        ),
        (
            "not equal",
            FilterRule {
                cidr: Some((cidr("10.9.0.0/16"), CidrMatch::NotEqual)),
                ..accept()
            },
            base.clone(),
            true,
        ),
        (
            "interface",
            FilterRule {
                interface: Some("eth*".into()),
                ..accept()
            },
            Route {
                device: Some("eth1"),
                ..base.clone()
            },
            true,
        ),
        (
            "other interface",
            FilterRule {
                interface: Some("eth*".into()),
                ..accept()
            },
            Route {
                device: Some("bond0"),
                ..base.clone()
            },
            false,
        ),
        (
            "path",
            FilterRule {
                as_path_prefix: vec![Asn(65001), Asn(65002)],
                ..accept()
            },
            Route {
                path: vec![65001, 65002, 65003],
                ..base.clone()
            },
            true,
        ),
        (
            "other path",
            FilterRule {
                as_path_prefix: vec![Asn(65002)],
                ..accept()
            },
            Route {
                path: vec![65001, 65002],
                ..base.clone()
            },
            false,
        ),
        (
            "priority",
            FilterRule {
                priority: Some(1024),
                ..accept()
            },
            base.clone(),
            true,
        ),
        (
            "other priority",
            FilterRule {
                priority: Some(512),
                ..accept()
            },
            base.clone(),
            false,
        ),
        (
            "community",
            FilterRule {
                communities: vec![Community::Standard(65000, 7)],
                ..accept()
            },
            base,
            false,
        ),
    ];
    for (what, r, route, want) in cases {
        let mut p = peer(at(TOR, 65000));
        p.filters = vec!["f".into()];
        let w = world(vec![resource("tor", p), filter("f", vec![], vec![r])]);
        let (accepted, name, _) = ask(&w, &Way::Out, TOR, &route);
        let by = if want {
            "BGPFilter(f) rule 0 export"
        } else {
            "nothing"
        };
        assert_eq!((accepted, name.as_str()), (want, by), "{what}");
    }
}

#[test]
fn operations_of_a_filter() {
    let mut p = peer(at(TOR, 65000));
    p.filters = vec!["f".into()];
    let change = FilterRule {
        operations: vec![
            FilterOperation::AddCommunity(Community::Standard(65000, 300)),
            FilterOperation::AddCommunity(Community::Large(65000, 1, 2)),
            FilterOperation::Prepend(vec![Asn(1), Asn(2)]),
            FilterOperation::SetPriority(100),
        ],
        ..rule(true)
    };
    let w = world(vec![resource("tor", p), filter("f", vec![], vec![change])]);
    let (_, _, a) = ask(
        &w,
        &Way::Out,
        TOR,
        &Route {
            path: vec![9],
            ..learned("10.0.0.0/24")
        },
    );
    let communities: Vec<String> = a.communities.iter().map(|c| c.to_string()).collect();
    assert_eq!(communities, ["65000:300"]);
    let large: Vec<String> = a.large_communities.iter().map(|c| c.to_string()).collect();
    assert_eq!(large, ["65000:1:2"]);
    assert_eq!(a.as_path.to_string(), "1 2 9");
    assert_eq!(a.local_pref, Some(METRIC_BASE - 100));
}

/// The communities with which a route of ours leaves.
fn of_world(w: &World, text: &str) -> Vec<String> {
    let (accepted, _, a) = ask(w, &Way::Out, TOR, &ours(text));
    assert!(accepted);
    a.communities.iter().map(|c| c.to_string()).collect()
}

#[test]
fn communities_of_advertised_prefixes() {
    let communities = |text: &str, n| BgpConfig {
        prefix_communities: vec![PrefixCommunities {
            cidr: cidr(text),
            communities: vec![Community::Standard(65000, n)],
        }],
        ..BgpConfig::default()
    };
    let w = with(vec![
        add_pool("p", pool("10.65.0.0/16")),
        block("10.65.1.0/26"),
        config(communities("10.65.0.0/16", 1)),
        Update::BgpConfig("node.a".into(), Some(communities("10.65.1.0/24", 2))),
        Update::BgpConfig("node.b".into(), Some(communities("10.65.1.0/24", 3))),
    ]);
    let of = |text: &str| of_world(&w, text);
    // The node's own list stands in the place of the other.
    assert_eq!(of("10.65.1.0/26"), ["65000:2"]);
    assert!(of("10.65.9.0/26").is_empty());
    let mut w = w;
    w.update(Update::BgpConfig("node.a".into(), None));
    assert_eq!(of_world(&w, "10.65.1.0/26"), ["65000:1"]);
    // A list that says nothing of prefixes is none.
    let port = BgpConfig {
        listen_port: Some(1790),
        ..BgpConfig::default()
    };
    w.update(Update::BgpConfig("node.a".into(), Some(port)));
    assert_eq!(of_world(&w, "10.65.9.0/26"), ["65000:1"]);
    // They are for routes that leave, whoever they go to, and only where nothing refused before.
    let (_, _, a) = ask(&w, &Way::Out, MESH, &ours("10.65.9.0/26"));
    assert_eq!(a.communities.iter().count(), 1);
}

fn service(name: &str, s: Service) -> Update {
    let key = ServiceRef {
        namespace: "shop".into(),
        name: name.into(),
    };
    Update::Service(key, Some(s))
}

fn behind(service: &str, node: &str, addr: &str, ready: bool) -> Update {
    let slice = EndpointSlice {
        service: ServiceRef {
            namespace: "shop".into(),
            name: service.into(),
        },
        endpoints: vec![SliceEndpoint {
            addresses: vec![addr.parse().expect("valid here")],
            node: Some(node.into()),
            ready,
        }],
        ports: Vec::new(),
    };
    let key = SliceKey {
        namespace: "shop".into(),
        name: format!("{service}-{node}-{addr}").into(),
    };
    Update::EndpointSlice(key, Some(slice))
}

fn ranges() -> BgpConfig {
    BgpConfig {
        service_cluster: vec![cidr("10.96.0.0/12")],
        service_external: vec![cidr("198.51.100.0/24"), cidr("203.0.113.9/32")],
        service_load_balancer: vec![cidr("192.0.2.128/25")],
        ..BgpConfig::default()
    }
}

fn announced(w: &World) -> Vec<String> {
    w.plan()
        .own
        .services
        .iter()
        .map(|c| c.to_string())
        .collect()
}

const RANGES: [&str; 3] = ["10.96.0.0/12", "192.0.2.128/25", "198.51.100.0/24"];

#[track_caller]
fn beside_ranges(w: &World, more: &[&str]) {
    let mut want: Vec<String> = RANGES.iter().chain(more).map(|s| (*s).to_owned()).collect();
    let mut got = announced(w);
    want.sort();
    got.sort();
    assert_eq!(got, want);
}

fn ip(text: &str) -> std::net::IpAddr {
    text.parse().expect("valid here")
}

#[test]
fn ranges_of_services() {
    beside_ranges(&with(vec![config(ranges())]), &[]);
    // Host-sized ones are told only with a service that has them.
    let s = Service {
        cluster_ips: vec![ip("10.96.0.10")],
        external_ips: vec![ip("203.0.113.9"), ip("198.51.100.7")],
        ..Service::default()
    };
    let w = with(vec![config(ranges()), service("web", s.clone())]);
    beside_ranges(&w, &["203.0.113.9/32"]);
    told(
        &w,
        TOR,
        &ours("203.0.113.9/32"),
        true,
        "service addresses of this node",
    );
    told(&w, TOR, &ours("203.0.113.10/32"), false, "nothing");
    // A headless service has no addresses to tell.
    let headless = Service {
        cluster_ips: vec![],
        ..s
    };
    beside_ranges(&with(vec![config(ranges()), service("web", headless)]), &[]);
}

#[test]
fn local_traffic_policy_follows_local_endpoints() {
    let s = Service {
        cluster_ips: vec![ip("10.96.0.10")],
        external_ips: vec![ip("198.51.100.7"), ip("8.8.8.8")],
        load_balancer_ips: vec![ip("192.0.2.200")],
        external_local: true,
        ..Service::default()
    };
    let told = ["10.96.0.10/32", "198.51.100.7/32", "192.0.2.200/32"];
    let at_node = |node: &str, ready| {
        with(vec![
            config(ranges()),
            service("web", s.clone()),
            behind("web", node, "10.65.0.9", ready),
        ])
    };
    beside_ranges(&at_node("a", true), &told);
    beside_ranges(&at_node("a", false), &[]);
    beside_ranges(&at_node("b", true), &[]);
    // An endpoint of IPv6 serves no IPv4 address.
    let six = with(vec![
        config(ranges()),
        service("web", s),
        behind("web", "a", "fd00::9", true),
    ]);
    beside_ranges(&six, &[]);
}

#[test]
fn load_balancer_addresses_one_by_one() {
    let s = Service {
        cluster_ips: vec![ip("10.96.0.10")],
        load_balancer_ips: vec![ip("192.0.2.200")],
        ..Service::default()
    };
    let c = BgpConfig {
        aggregate_load_balancer: Some(false),
        ..ranges()
    };
    let w = |more: Vec<Update>| {
        let mut all = vec![config(c.clone()), service("web", s.clone())];
        all.extend(more);
        announced(&with(all))
    };
    assert_eq!(w(vec![]), ["10.96.0.0/12", "198.51.100.0/24"]);
    assert_eq!(
        w(vec![behind("web", "b", "10.65.0.9", true)]),
        ["10.96.0.0/12", "192.0.2.200/32", "198.51.100.0/24"]
    );
}

/// Announcements of host addresses alone.
fn hosts(w: &World) -> Vec<String> {
    let own = w.plan().own;
    let hosts = own.services.iter().filter(|c| c.is_host());
    let mut hosts: Vec<String> = hosts.map(|c| c.to_string()).collect();
    hosts.sort();
    hosts
}

#[test]
fn each_way_to_tell_a_service() {
    let config = |disabled| {
        config(BgpConfig {
            service_cluster: vec![cidr("10.96.0.0/12"), cidr("fd96::/108")],
            service_external: vec![cidr("198.51.100.0/24"), cidr("203.0.113.9/32")],
            service_load_balancer: vec![cidr("192.0.2.128/25"), cidr("203.0.113.10/32")],
            aggregate_load_balancer: disabled,
            ..BgpConfig::default()
        })
    };
    let s = |local| Service {
        cluster_ips: vec![ip("10.96.0.10"), ip("fd96::a")],
        external_ips: vec![ip("198.51.100.7"), ip("203.0.113.9"), ip("8.8.8.8")],
        load_balancer_ips: vec![ip("192.0.2.200"), ip("203.0.113.10"), ip("8.8.4.4")],
        external_local: local,
        ..Service::default()
    };
    let here = || behind("web", "a", "10.65.0.9", true);
    let here6 = || behind("web", "a", "fd65::9", true);
    let there = || behind("web", "b", "10.65.0.10", true);
    let resting = || behind("web", "a", "10.65.0.11", false);
    let single = ["203.0.113.10/32", "203.0.113.9/32"];
    let local4 = [
        "10.96.0.10/32",
        "192.0.2.200/32",
        "198.51.100.7/32",
        "203.0.113.10/32",
        "203.0.113.9/32",
    ];
    for (what, aggregate, local, slices, want) in [
        // Traffic may come anywhere: ranges do, and what has a range of its own.
        ("cluster", None, false, vec![], &single[..]),
        ("cluster, elsewhere", None, false, vec![there()], &single),
        (
            "cluster, aggregated",
            Some(true),
            false,
            vec![here()],
            &single,
        ),
        // Traffic goes where an endpoint is.
        ("local, nowhere", None, true, vec![], &[]),
        ("local, elsewhere", None, true, vec![there()], &[]),
        ("local, not ready", None, true, vec![resting()], &[]),
        ("local", None, true, vec![here()], &local4),
        (
            "local, one of two",
            None,
            true,
            vec![resting(), here()],
            &local4,
        ),
        (
            "local, other family",
            None,
            true,
            vec![here6()],
            &["fd96::a/128"],
        ),
        // Each address of its own, where it can be served from.
        (
            "apart, nowhere",
            Some(false),
            false,
            vec![resting()],
            &["203.0.113.9/32"],
        ),
        (
            "apart, elsewhere",
            Some(false),
            false,
            vec![there()],
            &["192.0.2.200/32", "203.0.113.10/32", "203.0.113.9/32"],
        ),
        (
            "apart, local elsewhere",
            Some(false),
            true,
            vec![there()],
            &[],
        ),
        ("apart, local", Some(false), true, vec![here()], &local4),
    ] {
        let mut all = vec![config(aggregate), service("web", s(local))];
        all.extend(slices);
        assert_eq!(hosts(&with(all.clone())), want, "{what}");
        // A node that is not to be reached by services tells none of it.
        for (value, excluded) in [("true", true), ("false", false)] {
            let label = (
                "node.kubernetes.io/exclude-from-external-load-balancers",
                value,
            );
            let mut all = all.clone();
            let me = node("10.0.0.1", "", &[label]);
            all.push(Update::Node("a".into(), Some(me)));
            let want = if excluded { &[] } else { want };
            assert_eq!(hosts(&with(all)), want, "{what} {value}");
        }
    }
}

#[test]
fn addresses_outside_of_all_ranges_are_nobodys_business() {
    let s = Service {
        cluster_ips: vec![ip("10.1.0.10")],
        external_ips: vec![ip("8.8.8.8")],
        load_balancer_ips: vec![ip("8.8.4.4")],
        external_local: true,
        ..Service::default()
    };
    for aggregate in [None, Some(false)] {
        let w = with(vec![
            config(BgpConfig {
                aggregate_load_balancer: aggregate,
                ..ranges()
            }),
            service("web", s.clone()),
            behind("web", "a", "10.65.0.9", true),
        ]);
        assert!(hosts(&w).is_empty());
    }
}

#[test]
fn an_address_of_two_services_goes_with_the_last() {
    let s = Service {
        cluster_ips: vec![ip("10.96.0.10")],
        external_ips: vec![ip("203.0.113.9")],
        ..Service::default()
    };
    let mut w = with(vec![
        config(ranges()),
        service("one", s.clone()),
        service("two", s),
    ]);
    let gone = |name: &str| {
        let key = ServiceRef {
            namespace: "shop".into(),
            name: name.into(),
        };
        Update::Service(key, None)
    };
    assert_eq!(hosts(&w), ["203.0.113.9/32"]);
    assert!(w.update(gone("one")));
    assert_eq!(hosts(&w), ["203.0.113.9/32"]);
    assert!(w.update(gone("two")));
    assert!(hosts(&w).is_empty());
}

#[test]
fn endpoints_of_another_service_are_none_of_it() {
    let s = Service {
        cluster_ips: vec![ip("10.96.0.10")],
        external_local: true,
        ..Service::default()
    };
    let mut w = with(vec![
        config(ranges()),
        service("web", s),
        behind("db", "a", "10.65.0.9", true),
    ]);
    assert!(hosts(&w).is_empty());
    // Of the same name in another namespace it is another one.
    let slice = EndpointSlice {
        service: ServiceRef {
            namespace: "bank".into(),
            name: "web".into(),
        },
        endpoints: vec![SliceEndpoint {
            addresses: vec![ip("10.65.0.9")],
            node: Some("a".into()),
            ready: true,
        }],
        ports: Vec::new(),
    };
    let key = SliceKey {
        namespace: "bank".into(),
        name: "web-1".into(),
    };
    w.update(Update::EndpointSlice(key, Some(slice)));
    assert!(hosts(&w).is_empty());
    w.update(behind("web", "a", "10.65.0.9", true));
    assert_eq!(hosts(&w), ["10.96.0.10/32"]);
}

#[test]
fn a_service_that_loses_its_slices_is_withdrawn() {
    let s = Service {
        cluster_ips: vec![ip("10.96.0.10")],
        external_local: true,
        ..Service::default()
    };
    let mut w = with(vec![
        config(ranges()),
        service("web", s),
        behind("web", "a", "10.65.0.9", true),
    ]);
    beside_ranges(&w, &["10.96.0.10/32"]);
    let key = SliceKey {
        namespace: "shop".into(),
        name: "web-a-10.65.0.9".into(),
    };
    w.update(Update::EndpointSlice(key, None));
    beside_ranges(&w, &[]);
}

#[test]
fn an_excluded_node_announces_no_service() {
    let label = (
        "node.kubernetes.io/exclude-from-external-load-balancers",
        "true",
    );
    let w = with(vec![
        config(ranges()),
        Update::Node("a".into(), Some(node("10.0.0.1", "", &[label]))),
    ]);
    assert!(announced(&w).is_empty());
    // It does not believe others' either.
    assert!(w.plan().kernel.refuse.contains(&cidr("10.96.0.0/12")));
}

#[test]
fn a_reflector_passes_service_addresses_on() {
    let w = with(vec![
        config(ranges()),
        Update::Node(
            "a".into(),
            Some(reflector(node("10.0.0.1", "", &[]), "1.0.0.1")),
        ),
    ]);
    let by = "service addresses that a reflector passes on";
    told(&w, TOR, &learned("198.51.100.7/32"), true, by);
    told(&w, TOR, &learned("192.0.2.201/32"), true, by);
    told(&w, TOR, &learned("10.96.0.10/32"), true, by);
    told(&w, TOR, &learned("10.95.0.10/32"), false, "nothing");
    // One that tells no services itself passes on what has to come in from outside.
    let label = (
        "node.kubernetes.io/exclude-from-external-load-balancers",
        "true",
    );
    let w = with(vec![
        config(ranges()),
        Update::Node(
            "a".into(),
            Some(reflector(node("10.0.0.1", "", &[label]), "1.0.0.1")),
        ),
    ]);
    told(&w, TOR, &learned("198.51.100.7/32"), true, by);
    told(&w, TOR, &learned("10.96.0.10/32"), false, "nothing");
    // Nobody else does.
    let w = with(vec![config(ranges())]);
    told(&w, TOR, &learned("198.51.100.7/32"), false, "nothing");
    told(&w, TOR, &learned("192.0.2.201/32"), false, "nothing");
    told(&w, TOR, &learned("10.96.0.10/32"), false, "nothing");
}

#[test]
fn what_the_kernel_takes() {
    let mut vxlan = pool("10.66.0.0/16");
    vxlan.vxlan = Encap::CrossSubnet;
    let mut ipip = pool("10.67.0.0/16");
    ipip.ipip = Encap::Always;
    let pools = [
        add_pool("plain", pool("10.65.0.0/16")),
        add_pool("vxlan", vxlan),
        add_pool("ipip", ipip),
    ];
    for (text, want) in [
        (None, vec!["10.66.0.0/16", "10.67.0.0/16"]),
        (
            Some("EnabledNoEncapOnly"),
            vec!["10.66.0.0/16", "10.67.0.0/16"],
        ),
        (
            Some("EnabledIPIPOnly"),
            vec!["10.65.0.0/16", "10.66.0.0/16"],
        ),
        (Some("Enabled"), vec!["10.66.0.0/16"]),
        (
            Some("Disabled"),
            vec!["10.65.0.0/16", "10.66.0.0/16", "10.67.0.0/16"],
        ),
    ] {
        let mut all = pools.to_vec();
        all.push(config(BgpConfig {
            program_cluster_routes: text.map(Into::into),
            ..BgpConfig::default()
        }));
        let kernel = world(all).plan().kernel;
        let want: Vec<Cidr> = want.into_iter().map(cidr).collect();
        assert_eq!(kernel.refuse, want, "{text:?}");
        // What is BGP's of IP in IP goes through the tunnel device.
        let ours = !want.contains(&cidr("10.67.0.0/16"));
        let ranges: Vec<Cidr> = kernel.tunnelled.iter().map(|t| t.range).collect();
        assert_eq!(ranges, Vec::from_iter(ours.then(|| cidr("10.67.0.0/16"))));
    }
}
