//! Resources and the sessions that follow from them.

mod support;

use model::{BgpConfig, BgpFilter, BgpRemote, FilterRule, Labels, NextHopMode, Node, Update};
use net::{Asn, Cidr};
use peering::{Peer, PeerOrigin, Plan, World};
use std::sync::Arc;
use support::{at, config, no_mesh, node, peer, reflector, resource, select, world, world_of};

/// `name asn [passive] [client]`, a session each.
fn told(plan: &Plan) -> Vec<String> {
    let flag = |on: bool, text: &str| {
        if on {
            format!(" {text}")
        } else {
            String::new()
        }
    };
    let one = |p: &Peer| {
        let flags = flag(p.passive, "passive") + &flag(p.client, "client");
        format!("{} {}{flags}", p.name(), p.asn)
    };
    plan.peers.iter().map(one).collect()
}

#[track_caller]
fn expect(w: &World, want: &[&str]) {
    assert_eq!(told(&w.plan()), want);
}

#[test]
fn a_full_mesh_waits_for_the_greater_address_as_text() {
    let w = world(vec![]);
    // "10.0.0.10" and "10.0.0.2" are greater than "10.0.0.1".
    expect(
        &w,
        &[
            "Mesh_10_0_0_2 64512 passive",
            "Mesh_10_0_0_10 64512 passive",
            "Mesh_fd00__2 64512 passive",
        ],
    );
    // Of b and c, b has the greater text: c waits for it.
    expect(
        &world_of("c", vec![]),
        &["Mesh_10_0_0_1 64512", "Mesh_10_0_0_2 64512 passive"],
    );
    expect(
        &world_of("b", vec![]),
        &[
            "Mesh_10_0_0_1 64512",
            "Mesh_10_0_0_10 64512",
            "Mesh_fd00__1 64512",
        ],
    );
}

#[test]
fn every_pair_of_the_mesh_has_one_caller() {
    let names = ["a", "b", "c"];
    for me in names {
        let w = world_of(me, vec![]);
        for p in w.plan().peers {
            let other = names.into_iter().find(|n| {
                let theirs = world_of(n, vec![]).plan().speaker.unwrap();
                theirs.addresses.contains(&Some(p.address))
            });
            let back = world_of(other.unwrap(), vec![]).plan().peers;
            let back = back.iter().find(|b| Some(b.address) == p.source).unwrap();
            assert_ne!(p.passive, back.passive, "{me} and {}", p.address);
        }
    }
}

#[test]
fn reflectors_and_a_mesh_that_is_off_take_no_part() {
    expect(&world(vec![no_mesh()]), &[]);
    let rr = reflector(node("10.0.0.10", "", &[]), "1.0.0.1");
    let c = Update::Node("c".into(), Some(rr));
    expect(
        &world(vec![c.clone()]),
        &["Mesh_10_0_0_2 64512 passive", "Mesh_fd00__2 64512 passive"],
    );
    expect(&world_of("c", vec![c]), &[]);
}

#[test]
fn the_mesh_takes_what_the_configuration_says() {
    let w = world(vec![
        config(BgpConfig {
            asn: Some(Asn(65001)),
            listen_port: Some(1790),
            mesh_restart: Some(60),
            mesh_password: Some(model::SecretKey {
                name: "bgp".into(),
                key: "mesh".into(),
            }),
            ..BgpConfig::default()
        }),
        Update::BgpConfig(
            "node.b".into(),
            Some(BgpConfig {
                listen_port: Some(1791),
                ..BgpConfig::default()
            }),
        ),
        Update::Node("c".into(), None),
    ]);
    let plan = w.plan();
    assert_eq!(
        told(&plan),
        ["Mesh_10_0_0_2 65001 passive", "Mesh_fd00__2 65001 passive"]
    );
    assert_eq!(plan.peers[0].port, 1791);
    assert_eq!(plan.peers[0].restart, 60);
    assert_eq!(plan.peers[0].source, Some("10.0.0.1".parse().unwrap()));
    assert_eq!(&*plan.peers[0].password.as_ref().unwrap().key, "mesh");
    assert_eq!(plan.speaker.as_ref().unwrap().port, 1790);
}

#[test]
fn a_node_of_another_as_is_external() {
    let mut other = node("10.0.0.2", "", &[]);
    other.asn = Some(Asn(65002));
    let w = world(vec![
        Update::Node("b".into(), Some(other)),
        Update::Node("c".into(), None),
    ]);
    let plan = w.plan();
    assert_eq!(told(&plan), ["Mesh_10_0_0_2 65002 passive"]);
    assert!(plan.peers[0].external());
}

#[test]
fn global_and_chosen_peers() {
    let mut only_c = peer(at("192.0.2.2", 65000));
    only_c.node = Some("c".into());
    let mut rack_1 = peer(at("192.0.2.3", 65000));
    rack_1.node_selector = Some(select("rack == '1'"));
    let all = vec![
        no_mesh(),
        resource("everywhere", peer(at("192.0.2.1", 65000))),
        resource("c", only_c),
        resource("rack", rack_1),
        resource("six", peer(at("2001:db8::1", 65000))),
    ];
    expect(
        &world(all.clone()),
        &[
            "Global_192_0_2_1 65000",
            "Node_192_0_2_3 65000",
            "Global_2001_db8__1 65000",
        ],
    );
    // c has no IPv6 address.
    expect(
        &world_of("c", all),
        &["Global_192_0_2_1 65000", "Node_192_0_2_2 65000"],
    );
}

#[test]
fn a_global_peer_counts_before_a_chosen_one_and_both_before_the_mesh() {
    let mut chosen = peer(at("192.0.2.1", 65000));
    chosen.node = Some("a".into());
    chosen.ttl_security = Some(1);
    let both = vec![
        no_mesh(),
        resource("a-chosen", chosen),
        resource("global", peer(at("192.0.2.1", 65000))),
    ];
    let plan = world(both).plan();
    assert_eq!(told(&plan), ["Global_192_0_2_1 65000"]);
    assert_eq!(plan.peers[0].ttl_security, None);

    let mut b = peer(at("10.0.0.2", 64512));
    b.node = Some("a".into());
    expect(
        &world(vec![resource("b", b), Update::Node("c".into(), None)]),
        // Both sides call where a peer is for some nodes.
        &["Node_10_0_0_2 64512", "Mesh_fd00__2 64512 passive"],
    );
}

#[test]
fn peers_chosen_by_labels_are_met_on_every_side() {
    let mut to_rack_2 = peer(BgpRemote::Nodes(select("rack == '2'")));
    to_rack_2.node_selector = Some(select("rack == '1'"));
    let all = vec![no_mesh(), resource("racks", to_rack_2.clone())];
    expect(&world(all.clone()), &["Node_10_0_0_10 64512"]);
    // The other side follows by itself, in its families.
    expect(
        &world_of("c", all),
        &["Node_10_0_0_1 64512", "Node_10_0_0_2 64512"],
    );
    to_rack_2.reverse = false;
    let manual = vec![no_mesh(), resource("racks", to_rack_2)];
    expect(&world_of("c", manual), &[]);
}

#[test]
fn a_peer_by_the_address_of_a_node_is_that_node() {
    let mut to_c = peer(at("10.0.0.10", 64512));
    to_c.node = Some("a".into());
    let all = vec![
        no_mesh(),
        resource("c", to_c),
        Update::BgpConfig(
            "node.c".into(),
            Some(BgpConfig {
                listen_port: Some(1790),
                ..BgpConfig::default()
            }),
        ),
    ];
    expect(&world(all.clone()), &["Node_10_0_0_10_port_1790 64512"]);
    expect(&world_of("c", all), &["Node_10_0_0_1 64512"]);
    // The way back is of the address's family alone.
    let mut to_b = peer(at("10.0.0.2", 64512));
    to_b.node = Some("a".into());
    let all = vec![no_mesh(), resource("b", to_b)];
    expect(&world(all.clone()), &["Node_10_0_0_2 64512"]);
    expect(&world_of("b", all), &["Node_10_0_0_1 64512"]);
}

#[test]
fn a_peer_for_all_that_is_one_of_them_speaks_not_with_itself() {
    let w = vec![no_mesh(), resource("c", peer(at("10.0.0.10", 64512)))];
    expect(&world(w.clone()), &["Global_10_0_0_10 64512 passive"]);
    expect(
        &world_of("c", w),
        // Its own sides follow from the others', and call: one of each two does.
        &["Node_10_0_0_1 64512", "Node_10_0_0_2 64512"],
    );
}

#[test]
fn reflectors_know_their_clients() {
    let rr = |cluster| {
        Update::Node(
            "c".into(),
            Some(reflector(node("10.0.0.10", "", &[("rr", "")]), cluster)),
        )
    };
    let to_rr = resource("rr", peer(BgpRemote::Nodes(select("has(rr)"))));
    let w = vec![no_mesh(), rr("1.0.0.1"), to_rr.clone()];
    expect(
        &world_of("c", w.clone()),
        &["Node_10_0_0_1 64512 client", "Node_10_0_0_2 64512 client"],
    );
    expect(&world(w.clone()), &["Global_10_0_0_10 64512 passive"]);
    // Another reflector: of the same cluster it is a plain peer, of another a client.
    for (cluster, want) in [("1.0.0.1", false), ("1.0.0.2", true)] {
        let mut w = w.clone();
        let second = reflector(node("10.0.0.2", "", &[("rr", "")]), cluster);
        w.push(Update::Node("b".into(), Some(second)));
        let plan = world_of("c", w).plan();
        let b = plan
            .peers
            .iter()
            .find(|p| p.address.to_string() == "10.0.0.2");
        assert_eq!(b.unwrap().client, want, "{cluster}");
    }
    // A peer of another AS is nobody's client.
    let mut external = w;
    external.push(resource("tor", peer(at("192.0.2.1", 65000))));
    let plan = world_of("c", external).plan();
    let tor = plan.peers.iter().find(|p| p.asn == Asn(65000)).unwrap();
    assert!(!tor.client);
}

#[test]
fn a_cluster_that_is_no_address_is_told() {
    for (cluster, faults) in [("244.0.0.1", 0), ("rack-1", 1)] {
        let rr = reflector(node("10.0.0.10", "", &[]), cluster);
        let w = vec![no_mesh(), Update::Node("c".into(), Some(rr))];
        let plan = world_of("c", w.clone()).plan();
        assert_eq!(plan.faults.len(), faults, "{:?}", plan.faults);
        // It is its own node's fault alone.
        assert!(world(w).plan().faults.is_empty());
    }
}

#[test]
fn a_session_takes_what_its_resource_says() {
    let mut p = peer(at("192.0.2.1", 65000));
    p.local_asn = Some(Asn(65100));
    p.next_hop = NextHopMode::Keep;
    p.use_node_ip = false;
    p.restart = Some(30);
    p.keepalive = Some(5);
    p.allowed_local_as = Some(2);
    p.ttl_security = Some(3);
    p.reachable_by = Some("10.0.0.254".parse().unwrap());
    p.password = Some(model::SecretKey {
        name: "bgp".into(),
        key: "tor".into(),
    });
    let plan = world(vec![no_mesh(), resource("tor", p)]).plan();
    let s = &plan.peers[0];
    assert_eq!(
        (s.local_asn, s.next_hop, s.source),
        (Asn(65100), NextHopMode::Keep, None)
    );
    assert_eq!(
        (s.restart, s.keepalive, s.allowed_local_as),
        (30, Some(5), 2)
    );
    assert_eq!(
        (s.ttl_security, s.reachable_by),
        (Some(3), Some("10.0.0.254".parse().unwrap()))
    );
    assert_eq!(s.resource.as_deref(), Some("tor"));
    assert_eq!(&*s.password.as_ref().unwrap().key, "tor");
    assert!(s.external());
}

#[test]
fn what_a_session_has_unless_it_is_said() {
    let tor = resource("tor", peer(at("192.0.2.1", 65000)));
    let plan = world(vec![tor]).plan();
    assert_eq!(plan.peers.len(), 4);
    for s in &plan.peers {
        assert_eq!((s.restart, s.keepalive, s.allowed_local_as), (120, None, 0));
        assert_eq!((s.next_hop, s.local_asn), (NextHopMode::Auto, Asn(64512)));
        assert_eq!((s.port, s.ttl_security), (179, None));
        assert!(s.password.is_none() && s.reachable_by.is_none());
        let own = ["10.0.0.1", "fd00::1"][usize::from(s.address.is_ipv6())];
        assert_eq!(s.source, Some(own.parse().unwrap()));
    }
    let speaker = plan.speaker.unwrap();
    assert_eq!((speaker.asn, speaker.port), (Asn(64512), 179));
    assert!(!speaker.bind_node_ip && speaker.ignored_interfaces.is_empty());
}

#[test]
fn the_speaker_takes_what_the_configuration_says() {
    let cluster = BgpConfig {
        asn: Some(Asn(65001)),
        listen_port: Some(1790),
        bind_node_ip: Some(true),
        ignored_interfaces: Some(vec!["eth1".into(), "dummy*".into()]),
        ..BgpConfig::default()
    };
    let own = BgpConfig {
        listen_port: Some(1791),
        // These count of the cluster's alone.
        asn: Some(Asn(65002)),
        bind_node_ip: Some(false),
        mesh: Some(false),
        ..BgpConfig::default()
    };
    let w = world(vec![
        config(cluster),
        Update::BgpConfig("node.a".into(), Some(own)),
    ]);
    let plan = w.plan();
    assert_eq!(plan.peers.len(), 3);
    let speaker = plan.speaker.unwrap();
    assert_eq!((speaker.asn, speaker.port), (Asn(65001), 1791));
    assert!(speaker.bind_node_ip);
    let ignored: Vec<&str> = speaker.ignored_interfaces.iter().map(|i| &**i).collect();
    assert_eq!(ignored, ["eth1", "dummy*"]);
}

#[test]
fn a_peer_without_an_as_is_of_the_clusters() {
    let remote = BgpRemote::Address {
        ip: "192.0.2.1".parse().unwrap(),
        port: None,
        asn: None,
    };
    let of_65001 = config(BgpConfig {
        mesh: Some(false),
        asn: Some(Asn(65001)),
        ..BgpConfig::default()
    });
    let w = |c| world(vec![c, resource("rr", peer(remote.clone()))]);
    expect(&w(no_mesh()), &["Global_192_0_2_1 64512"]);
    expect(&w(of_65001), &["Global_192_0_2_1 65001"]);
}

#[test]
fn filters_apply_in_their_order_and_a_missing_one_is_told() {
    let rule = |accept| FilterRule {
        accept,
        ..FilterRule::default()
    };
    let filter = |a, b| BgpFilter {
        import: [vec![rule(a)], Vec::new()],
        export: [Vec::new(), vec![rule(b)]],
    };
    let mut four = peer(at("192.0.2.1", 65000));
    four.filters = vec!["two".into(), "gone".into(), "one".into()];
    let mut six = four.clone();
    six.remote = at("2001:db8::1", 65000);
    let plan = world(vec![
        no_mesh(),
        Update::BgpFilter("one".into(), Some(filter(true, true))),
        Update::BgpFilter("two".into(), Some(filter(false, false))),
        resource("four", four),
        resource("six", six),
    ])
    .plan();
    let accepts = |l: &[(String, FilterRule)]| l.iter().map(|(_, r)| r.accept).collect::<Vec<_>>();
    assert_eq!(accepts(&plan.peers[0].import), [false, true]);
    assert!(plan.peers[0].export.is_empty());
    assert_eq!(accepts(&plan.peers[1].export), [false, true]);
    assert!(plan.peers[1].import.is_empty());
    assert_eq!(plan.faults.len(), 2);
    assert!(plan.faults[0].contains("BGPPeer(four) names BGPFilter(gone)"));
}

/// A workload of a node, by its labels and addresses, in the profile `kns.default`.
fn workload(node: &str, name: &str, labels: &[(&str, &str)], nets: &[&str]) -> Update {
    let key = model::WorkloadKey {
        node: node.into(),
        orchestrator: "k8s".into(),
        workload: format!("default/{name}").into(),
        endpoint: "eth0".into(),
    };
    let endpoint = model::WorkloadEndpoint {
        interface: None,
        mac: None,
        nets: nets.iter().map(|n| n.parse().expect("a prefix")).collect(),
        nats: Vec::new(),
        labels: Labels::new(labels.iter().copied()),
        profiles: vec!["kns.default".into()],
        ports: Vec::new(),
        allowed_sources: Vec::new(),
        qos: model::Qos::default(),
    };
    Update::Workload(key, Some(endpoint))
}

fn tenants(selector: &str, asn: u32) -> model::BgpPeer {
    peer(BgpRemote::Workloads {
        selector: select(selector),
        asn: Asn(asn),
    })
}

/// Without a mesh, with an address for workloads to call.
fn for_workloads() -> Update {
    config(BgpConfig {
        mesh: Some(false),
        local_workload_peering: ["169.254.7.7", "fd07::7"]
            .map(|a| a.parse().expect("an address"))
            .to_vec(),
        ..BgpConfig::default()
    })
}

#[test]
fn workloads_of_this_node_are_waited_for() {
    let nets = ["10.65.0.9/32"];
    let mut w = world(vec![
        for_workloads(),
        resource(
            "tenants",
            tenants("bgp == 'yes' && pcns.team == 'net'", 65401),
        ),
        workload("a", "router", &[("bgp", "yes")], &nets),
        workload("b", "router", &[("bgp", "yes")], &nets),
    ]);
    expect(&w, &[]);
    let profile = model::Profile {
        labels: Labels::new([("pcns.team", "net")]),
        ..model::Profile::default()
    };
    w.update(Update::Profile("kns.default".into(), Some(profile)));
    expect(&w, &["Local_Workload_10_65_0_9 65401 passive"]);
    assert_eq!(
        w.plan().peers[0].source,
        Some("169.254.7.7".parse().unwrap())
    );
    assert_eq!(w.plan().peers[0].origin, PeerOrigin::LocalWorkload);
    // It goes when its endpoint does.
    let Update::Workload(key, _) = workload("a", "router", &[], &[]) else {
        unreachable!()
    };
    assert!(w.update(Update::Workload(key, None)));
    expect(&w, &[]);
}

#[test]
fn a_workload_is_met_at_its_first_address_of_each_family() {
    let nets = [
        "fd65::9/128",
        "10.65.0.9/32",
        "10.65.0.10/32",
        "fd65::10/128",
    ];
    let w = world(vec![
        for_workloads(),
        resource("tenants", tenants("has(bgp)", 65401)),
        workload("a", "router", &[("bgp", "")], &nets),
        workload("a", "other", &[], &["10.65.0.11/32"]),
    ]);
    expect(
        &w,
        &[
            "Local_Workload_10_65_0_9 65401 passive",
            "Local_Workload_fd65__9 65401 passive",
        ],
    );
    let source = |i: usize| w.plan().peers[i].source.unwrap().to_string();
    assert_eq!(
        (source(0), source(1)),
        ("169.254.7.7".into(), "fd07::7".into())
    );
}

#[test]
fn workloads_cannot_call_a_link_local_address() {
    let with = |at: &str| {
        config(BgpConfig {
            mesh: Some(false),
            local_workload_peering: vec![at.parse().expect("an address")],
            ..BgpConfig::default()
        })
    };
    let mut w = world(vec![
        with("fe80::179"),
        resource("tenants", tenants("has(bgp)", 65401)),
        workload("a", "router", &[("bgp", "")], &["fd65::9/128"]),
    ]);
    let plan = w.plan();
    assert_eq!((plan.peers[0].source, plan.faults.len()), (None, 1));
    let fault = "BGPConfiguration spec.localWorkloadPeeringIPV6: fe80::179 is a link-local address";
    assert!(plan.faults[0].starts_with(fault), "{:?}", plan.faults);
    w.update(with("fd07::7"));
    assert!(w.plan().faults.is_empty() && w.plan().peers[0].source.is_some());
    // Who has nobody to call it is told nothing.
    let idle = world(vec![with("fe80::179")]);
    assert!(idle.plan().faults.is_empty());
}

#[test]
fn of_two_that_choose_a_workload_the_first_by_name_counts() {
    let mut only_here = tenants("has(bgp)", 65402);
    only_here.node = Some("a".into());
    let mut elsewhere = tenants("has(bgp)", 65403);
    elsewhere.node = Some("b".into());
    let w = world(vec![
        for_workloads(),
        resource("0-elsewhere", elsewhere),
        resource("1-here", only_here),
        resource("2-everywhere", tenants("has(bgp)", 65401)),
        workload("a", "router", &[("bgp", "")], &["10.65.0.9/32"]),
    ]);
    expect(&w, &["Local_Workload_10_65_0_9 65402 passive"]);
}

#[test]
fn a_session_with_a_workload_takes_filters_and_our_other_as() {
    let mut t = tenants("has(bgp)", 65401);
    t.local_asn = Some(Asn(65002));
    t.allowed_local_as = Some(2);
    t.filters = vec!["f".into()];
    let rule = FilterRule::default();
    let f = BgpFilter {
        import: [vec![rule.clone()], Vec::new()],
        export: [vec![rule], Vec::new()],
    };
    let w = world(vec![
        for_workloads(),
        resource("tenants", t),
        Update::BgpFilter("f".into(), Some(f)),
        workload("a", "router", &[("bgp", "")], &["10.65.0.9/32"]),
    ]);
    let plan = w.plan();
    let p = &plan.peers[0];
    assert_eq!((p.local_asn, p.allowed_local_as), (Asn(65002), 0));
    assert_eq!((p.import.len(), p.export.len()), (1, 1));
    assert_eq!(plan.faults.len(), 1);
    let fault = "BGPPeer(tenants) spec.numAllowedLocalASNumbers counts with peerIP alone";
    assert!(plan.faults[0].contains(fault), "{:?}", plan.faults);
}

fn at_port(ip: &str, port: u16, asn: u32) -> BgpRemote {
    BgpRemote::Address {
        ip: ip.parse().expect("an address"),
        port: Some(port),
        asn: Some(Asn(asn)),
    }
}

#[test]
fn one_address_may_have_several_speakers() {
    let w = world(vec![
        no_mesh(),
        resource("one", peer(at("192.0.2.1", 65000))),
        resource("two", peer(at_port("192.0.2.1", 1179, 65001))),
        // The same port twice is the same speaker.
        resource("usual", peer(at_port("192.0.2.1", 179, 65002))),
    ]);
    expect(
        &w,
        &["Global_192_0_2_1 65000", "Global_192_0_2_1_port_1179 65001"],
    );
}

#[test]
fn another_port_of_a_node_is_another_speaker() {
    let all = |port| {
        vec![
            no_mesh(),
            resource("c", peer(at_port("10.0.0.10", port, 64512))),
        ]
    };
    // The node's own port: one side waits, and the node calls back.
    expect(&world(all(179)), &["Global_10_0_0_10 64512 passive"]);
    expect(
        &world_of("c", all(179)),
        &["Node_10_0_0_1 64512", "Node_10_0_0_2 64512"],
    );
    // Something else on it would wait for nobody, and the node knows nothing of it.
    expect(&world(all(1179)), &["Global_10_0_0_10_port_1179 64512"]);
    expect(&world_of("c", all(1179)), &[]);
}

#[test]
fn nobody_speaks_with_himself() {
    for remote in [
        at("10.0.0.1", 64512),
        at("10.0.0.1", 65000),
        at_port("10.0.0.1", 1179, 64512),
        at("fd00::1", 65000),
    ] {
        let own = ["10.0.0.1", "fd00::1"].map(|a| a.parse().unwrap());
        let plan = world(vec![no_mesh(), resource("self", peer(remote))]).plan();
        assert!(plan.peers.iter().all(|p| !own.contains(&p.address)));
    }
}

#[test]
fn a_link_local_address_is_refused_with_a_reason() {
    let w = world(vec![
        no_mesh(),
        resource("ll", peer(at("fe80::1", 65000))),
        resource("tor", peer(at("fd00::99", 65000))),
    ]);
    expect(&w, &["Global_fd00__99 65000"]);
    let faults = w.plan().faults;
    assert_eq!(faults.len(), 1);
    assert!(faults[0].starts_with("BGPPeer(ll) spec.peerIP: fe80::1 is a link-local address"));
}

#[test]
fn another_as_of_ours_is_for_peers_by_address() {
    let mut by_address = peer(at("10.0.0.10", 64512));
    by_address.node = Some("a".into());
    by_address.local_asn = Some(Asn(65100));
    by_address.allowed_local_as = Some(2);
    let w = vec![no_mesh(), resource("c", by_address)];
    let session = |w: World| w.plan().peers[0].clone();
    let here = session(world(w.clone()));
    assert_eq!((here.local_asn, here.asn), (Asn(65100), Asn(64512)));
    assert!(here.external() && here.allowed_local_as == 2);
    // The other side is told so, and is itself what it was.
    let there = session(world_of("c", w));
    assert_eq!((there.local_asn, there.asn), (Asn(64512), Asn(65100)));
    assert_eq!(there.allowed_local_as, 0);

    let mut by_labels = peer(BgpRemote::Nodes(select("rack == '2'")));
    by_labels.node = Some("a".into());
    by_labels.local_asn = Some(Asn(65100));
    by_labels.allowed_local_as = Some(2);
    let w = vec![no_mesh(), resource("c", by_labels)];
    let plan = world(w.clone()).plan();
    assert_eq!(
        (plan.peers[0].local_asn, plan.peers[0].allowed_local_as),
        (Asn(64512), 0)
    );
    assert_eq!(plan.faults.len(), 2, "{:?}", plan.faults);
    assert!(plan.faults[0].contains("BGPPeer(c) spec.localASNumber"));
    assert_eq!(session(world_of("c", w)).asn, Asn(64512));
}

#[test]
fn our_other_as_decides_who_is_a_client() {
    let rr = reflector(node("10.0.0.10", "", &[]), "1.0.0.1");
    let client = |local| {
        let mut p = peer(at("192.0.2.1", 65000));
        p.local_asn = local;
        let w = vec![
            no_mesh(),
            Update::Node("c".into(), Some(rr.clone())),
            resource("tor", p),
        ];
        world_of("c", w).plan().peers[0].client
    };
    assert!(client(Some(Asn(65000))));
    assert!(!client(None));
}

#[test]
fn without_a_node_or_an_address_nothing_is_spoken() {
    let mut w = World::new("a");
    assert!(w.plan().speaker.is_none());
    w.update(Update::Node("a".into(), Some(Node::default())));
    w.update(Update::Node("b".into(), Some(node("10.0.0.2", "", &[]))));
    assert!(w.plan().speaker.is_none() && w.plan().peers.is_empty());
}

#[test]
fn what_matters_not_is_told_so() {
    let mut w = world(vec![]);
    let block = |node: Option<&str>| {
        let cidr: Cidr = "10.65.0.0/26".parse().unwrap();
        Update::Block(
            cidr,
            node.map(|n| model::Block {
                cidr,
                node: Some(Arc::from(n)),
                borrowed: Vec::new(),
            }),
        )
    };
    assert!(!w.update(block(Some("b"))));
    assert!(w.update(block(Some("a"))));
    assert!(w.update(block(Some("b"))));
    assert!(!w.update(block(None)));
    assert!(!w.update(Update::Ready(true)));
}

#[test]
fn several_paths_go_the_way_that_is_asked_for_and_the_other_side_follows() {
    let add_path = |receive, send| model::AddPath { receive, send };
    let told = |me: &str, how| {
        let mut p = peer(BgpRemote::Nodes(select("rack == '2'")));
        p.node = Some("a".into());
        p.add_path = how;
        let plan = world_of(me, vec![no_mesh(), resource("rr", p)]).plan();
        plan.peers[0].add_path
    };
    assert_eq!(told("a", add_path(true, false)), add_path(true, false));
    assert_eq!(told("c", add_path(true, false)), add_path(false, true));
    assert_eq!(told("c", add_path(false, true)), add_path(true, false));
    assert_eq!(told("c", add_path(true, true)), add_path(true, true));
    assert_eq!(told("a", add_path(false, false)), add_path(false, false));
    let mesh = world(vec![]).plan();
    assert_eq!(mesh.peers[0].add_path, add_path(false, false));
}

#[test]
fn a_maximum_of_prefixes_counts_for_the_side_that_states_it() {
    let max = Some(model::MaxPrefixes {
        count: 10,
        beyond: model::Beyond::Discard,
    });
    let told = |me: &str| {
        let mut p = peer(BgpRemote::Nodes(select("rack == '2'")));
        p.node = Some("a".into());
        p.max_prefixes = max;
        let plan = world_of(me, vec![no_mesh(), resource("rr", p)]).plan();
        plan.peers[0].max_prefixes
    };
    assert_eq!(told("a"), max);
    assert_eq!(told("c"), None);
    let mut t = tenants("has(bgp)", 65401);
    t.max_prefixes = max;
    let w = world(vec![
        for_workloads(),
        resource("tenants", t),
        workload("a", "router", &[("bgp", "")], &["10.65.0.9/32"]),
    ]);
    assert_eq!(w.plan().peers[0].max_prefixes, max);
    assert_eq!(world(vec![]).plan().peers[0].max_prefixes, None);
}
