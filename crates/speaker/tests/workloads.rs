//! Sessions with workloads of the node itself: a namespace is the pod, behind an interface as the
//! dataplane makes it, and BIRD in it calls. Wants root and `bird`.

mod support;

use bgp::fsm::State;
use model::{
    BgpFilter, BgpRemote, CidrMatch, FilterRule, Labels, Selector, Update, WorkloadEndpoint,
    WorkloadKey,
};
use net::Asn;
use netlink::netns::NetNs;
use speaker::{Kernel, Settings};
use std::time::Duration;
use support::{
    Bird, Ours, Wire, cidr, config, connect, peer_with, run, settings, statics, until, world,
};

const POD: [&str; 2] = ["172.16.1.9", "fd10::49"];
/// What workloads call: `localWorkloadPeeringIPV4` and `...IPV6`.
const HOST: [&str; 2] = ["169.254.7.7", "fd07::7"];

/// The pod's namespace, reached by routes to its addresses alone.
fn pod(wire: &Wire) -> NetNs {
    let pod = NetNs::new().unwrap_or_else(|e| panic!("{e}"));
    run(&pod, "ip", "link set lo up");
    let pods = ["172.16.1.9/32", "fd10::49/128"];
    connect((&wire.here, "cali0", &[]), (&pod, "eth0", &pods));
    let (write, shown) = (
        |ns: &NetNs, args: &str| drop(run(ns, "ip", args)),
        run(&wire.here, "ip", "-o link show cali0"),
    );
    let mac = shown.split("link/ether ").nth(1).unwrap_or_default();
    let mac = mac.split(' ').next().unwrap_or_default();
    for (theirs, gateway) in POD.into_iter().zip(["169.254.1.1", "fe80::1"]) {
        write(&wire.here, &format!("route add {theirs} dev cali0"));
        // As pods have it: a way out, and no address behind it.
        let neigh = format!("neigh add {gateway} lladdr {mac} dev eth0");
        write(&pod, &neigh);
        let default = format!("route add default via {gateway} dev eth0 onlink");
        write(&pod, &default);
    }
    pod
}

fn key() -> WorkloadKey {
    WorkloadKey {
        node: "a".into(),
        orchestrator: "k8s".into(),
        workload: "tenant/router".into(),
        endpoint: "eth0".into(),
    }
}

fn endpoint(labels: &[(&str, &str)]) -> Update {
    let host = |a: &str| net::Cidr::host(support::ip(a));
    let endpoint = WorkloadEndpoint {
        interface: None,
        mac: None,
        nets: POD.into_iter().map(host).collect(),
        nats: Vec::new(),
        labels: Labels::new(labels.iter().copied()),
        profiles: Vec::new(),
        ports: Vec::new(),
        allowed_sources: Vec::new(),
        qos: model::Qos::default(),
    };
    Update::Workload(key(), Some(endpoint))
}

/// The BGPPeer for workloads with the label `bgp`, of AS 65401.
fn tenants(filters: &[&str]) -> Update {
    peer_with("tenants", "192.0.2.1", 1, |p| {
        p.remote = BgpRemote::Workloads {
            selector: Selector::parse("has(bgp)").unwrap_or_else(|e| panic!("{e}")),
            asn: Asn(65401),
        };
        p.filters = filters.iter().map(|f| (*f).into()).collect();
    })
}

/// Takes what lies in these, of each family one, and nothing else; tells nothing.
fn only(name: &str, inside: [&str; 2]) -> Update {
    let rules = |text: &str| {
        let taken = FilterRule {
            cidr: Some((cidr(text), CidrMatch::In)),
            accept: true,
            ..FilterRule::default()
        };
        vec![taken, FilterRule::default()]
    };
    let none = || vec![FilterRule::default()];
    let f = BgpFilter {
        import: inside.map(rules),
        export: [none(), none()],
    };
    Update::BgpFilter(name.into(), Some(f))
}

/// What the pod's BIRD has: both sessions, and routes of its own.
fn tenant(routes: &[&str]) -> String {
    let session = |f: usize| {
        let (pod, host, v) = (POD[f], HOST[f], [4, 6][f]);
        format!(
            "protocol bgp up{v} {{ local {pod} as 65401; neighbor {host} as 64512; multihop; \
             connect delay time 1; connect retry time 1; error wait time 1, 2; \
             ipv{v} {{ import all; export where source = RTS_STATIC; }}; }}\n"
        )
    };
    session(0) + &session(1) + &statics(routes)
}

/// BIRD at the other end of the wire: a node of the mesh, and by IPv6 a router of another AS.
fn others() -> String {
    support::sessions(64512, 64512, "")
}

fn with_kernel() -> Settings {
    settings().with_kernel(Kernel {
        absent: Duration::from_secs(3),
        ..Kernel::default()
    })
}

fn nodes() -> Vec<Update> {
    let mut all = world();
    all.push(config(|c| {
        c.mesh = Some(true);
        c.local_workload_peering = HOST.map(support::ip).to_vec();
    }));
    let b = support::node("10.0.0.2", "fd00::2");
    all.push(Update::Node("b".into(), Some(b)));
    all
}

#[track_caller]
fn there(bird: &Bird, prefix: &str, wanted: bool) {
    until(
        "the route there",
        || bird.route(prefix),
        |s| s.contains("BGP.next_hop") == wanted,
    );
}

#[track_caller]
fn in_kernel(ns: &NetNs, route: &str, wanted: bool) {
    until(
        "the route in the kernel",
        || run(ns, "ip", "-4 route show") + &run(ns, "ip", "-6 route show"),
        |s| s.contains(route) == wanted,
    );
}

#[test]
fn what_a_workload_tells_is_used_and_told_until_it_goes() {
    let wire = Wire::new();
    let pod = pod(&wire);
    let neighbour = Bird::start(&wire.there, "10.0.0.2", &others());
    let told = ["172.16.9.0/26", "fd10::900/122"];
    let tenant = Bird::start(&pod, POD[0], &tenant(&told));
    let mut all = nodes();
    all.extend([tenants(&[]), endpoint(&[("bgp", "")])]);
    let ours = Ours::start(&wire.here, with_kernel(), all);
    ours.established(4);
    // Whoever waits is called: the workload has dialled.
    let sessions: Vec<String> = ours.states().into_iter().map(|(n, _)| n).collect();
    let names = ["Local_Workload_172_16_1_9", "Local_Workload_fd10__49"];
    for name in names {
        assert!(sessions.iter().any(|s| s == name), "{sessions:?}");
    }
    for prefix in told {
        ours.learns(prefix);
        // Inside of a pool: it is told to the mesh.
        there(&neighbour, prefix, true);
    }
    in_kernel(&wire.here, "172.16.9.0/26 via 172.16.1.9 dev cali0", true);
    in_kernel(&wire.here, "fd10::900/122 via fd10::49 dev cali0", true);
    // It learns the node's block, behind the address that it called.
    let seen = until(
        "our block in the pod",
        || tenant.route("172.16.1.0/26"),
        |s| s.contains("BGP.next_hop"),
    );
    assert!(seen.contains("next_hop: 169.254.7.7"), "{seen}");
    assert!(seen.contains("BGP.as_path: 64512"), "{seen}");

    // Without the label it is no router, and all that it told is gone, here and elsewhere.
    ours.update(endpoint(&[]));
    for prefix in told {
        ours.forgets(prefix);
        there(&neighbour, prefix, false);
    }
    in_kernel(&wire.here, "172.16.9.0/26", false);
    in_kernel(&wire.here, "fd10::900/122", false);
    assert_eq!(ours.states().len(), 2);
    ours.update(endpoint(&[("bgp", "")]));
    ours.established(4);
    told.into_iter().for_each(|p| there(&neighbour, p, true));
    // So it is when its endpoint goes, while its process lives on.
    ours.update(Update::Workload(key(), None));
    for prefix in told {
        ours.forgets(prefix);
        there(&neighbour, prefix, false);
    }
    ours.established(2);
}

#[test]
fn filters_are_what_limits_a_workload() {
    let wire = Wire::new();
    let pod = pod(&wire);
    let routes = ["10.123.0.0/26", "0.0.0.0/0", "ca11::/96", "::/0"];
    let tenant = Bird::start(&pod, POD[0], &tenant(&routes));
    let mut all = nodes();
    all.extend([
        only("child", ["10.123.0.0/16", "ca11::/32"]),
        tenants(&["child"]),
        endpoint(&[("bgp", "")]),
    ]);
    let ours = Ours::start(&wire.here, with_kernel(), all);
    until(
        "the workload's sessions",
        || ours.states(),
        |s| {
            let up = |n: &str| {
                n.starts_with("Local") && s.iter().any(|(m, t)| m == n && *t == State::Established)
            };
            s.iter().filter(|(n, _)| up(n)).count() == 2
        },
    );
    ours.learns("10.123.0.0/26");
    ours.learns("ca11::/96");
    // A default route is refused by the filter alone: without one it would be taken.
    assert!(ours.best("0.0.0.0/0").is_none() && ours.best("::/0").is_none());
    assert!(!tenant.route("172.16.1.0/26").contains("BGP.next_hop"));
    ours.update(tenants(&[]));
    ours.learns("0.0.0.0/0");
    ours.learns("::/0");
    until(
        "our block in the pod",
        || tenant.route("172.16.1.0/26"),
        |s| s.contains("BGP.next_hop"),
    );
}

/// What is in the local table by our protocol.
fn answers(ns: &NetNs) -> String {
    let of = |family| {
        run(
            ns,
            "ip",
            &format!("{family} route show table local proto bird"),
        )
    };
    of("-4") + &of("-6")
}

#[track_caller]
fn answered(ns: &NetNs, wanted: bool) {
    until(
        "the node answers",
        || answers(ns),
        |s| {
            HOST.iter()
                .all(|a| s.contains(&format!("local {a} dev lo")) == wanted)
        },
    );
}

#[test]
fn the_node_answers_where_workloads_call_while_there_are_any() {
    let wire = Wire::new();
    let pod = pod(&wire);
    let neighbour = Bird::start(&wire.there, "10.0.0.2", &others());
    let _tenant = Bird::start(&pod, POD[0], &tenant(&["172.16.9.0/26"]));
    let with = |bind, host: [&str; 2]| {
        config(|c| {
            c.mesh = Some(true);
            c.bind_node_ip = Some(bind);
            c.local_workload_peering = host.map(support::ip).to_vec();
        })
    };
    let all = |more: &[Update]| {
        let mut all = nodes();
        all.extend_from_slice(more);
        all
    };
    let router = [tenants(&[]), endpoint(&[("bgp", "")])];
    let ours = Ours::start(&wire.here, with_kernel(), all(&router));
    ours.established(4);
    answered(&wire.here, true);
    // It is of no interface, and nobody is told of it.
    let addresses = run(&wire.here, "ip", "-o addr show");
    assert!(!HOST.iter().any(|a| addresses.contains(a)), "{addresses}");
    for a in HOST {
        assert!(
            ours.best(&net::Cidr::host(support::ip(a)).to_string())
                .is_none()
        );
        assert!(!neighbour.route(a).contains("BGP.next_hop"));
    }
    // Who takes it away sees it again.
    run(
        &wire.here,
        "ip",
        "route del local 169.254.7.7 dev lo table local",
    );
    run(
        &wire.here,
        "ip",
        "-6 route del local fd07::7 dev lo table local",
    );
    answered(&wire.here, true);

    // Listening on its own addresses alone it is there, too, also at another.
    ours.update(with(true, HOST));
    let listens = |ns: &NetNs, a: &str| run(ns, "ss", "-Htln sport = :179").contains(a);
    until("a listener", || listens(&wire.here, HOST[0]), |l| *l);
    assert!(listens(&wire.here, "[fd07::7]:179"));
    ours.established(4);
    ours.update(with(true, ["169.254.7.8", "fd07::8"]));
    answered(&wire.here, false);
    until("a listener", || listens(&wire.here, "169.254.7.8"), |l| *l);
    assert!(answers(&wire.here).contains("local fd07::8 dev lo"));
    ours.update(with(false, HOST));
    ours.established(4);

    // A restart finds it as it was.
    let before = answers(&wire.here);
    drop(ours);
    assert_eq!(answers(&wire.here), before);
    let ours = Ours::start(&wire.here, with_kernel(), all(&router));
    ours.established(4);
    assert_eq!(answers(&wire.here), before);
    ours.update(endpoint(&[]));
    answered(&wire.here, false);
    ours.update(endpoint(&[("bgp", "")]));
    answered(&wire.here, true);
    // What a run before has left and nobody needs any more goes.
    drop(ours);
    let ours = Ours::start(&wire.here, with_kernel(), all(&[]));
    answered(&wire.here, false);
    ours.established(2);
}

#[test]
fn paths_to_workloads_are_watched_from_where_they_call() {
    let wire = Wire::new();
    let pod = pod(&wire);
    let text = tenant(&[]).replace("multihop;", "multihop; bfd on;");
    let watching = "protocol bfd { multihop { interval 100 ms; multiplier 5; }; }\n";
    let _tenant = Bird::start(&pod, POD[0], &(watching.to_owned() + &text));
    let watched = peer_with("tenants", "192.0.2.1", 1, |p| {
        p.remote = BgpRemote::Workloads {
            selector: Selector::parse("has(bgp)").unwrap_or_else(|e| panic!("{e}")),
            asn: Asn(65401),
        };
        p.bfd = Some(model::Bfd {
            hops: Some(model::BfdHops::Multi),
            ..model::Bfd::default()
        });
    });
    let mut all = nodes();
    all.extend([
        config(|c| {
            c.bind_node_ip = Some(true);
            c.local_workload_peering = HOST.map(support::ip).to_vec();
        }),
        watched,
        endpoint(&[("bgp", "")]),
    ]);
    let ours = Ours::start(&wire.here, with_kernel(), all);
    ours.established(2);
    let states = |v: &speaker::View<'_>| {
        let of = |p| v.bfd.report(p).map(|r| r.state);
        v.plan.peers.iter().map(of).collect::<Vec<_>>()
    };
    let seen = || ours.handle.look(states).unwrap_or_default();
    let up = vec![Some(bfd::State::Up); 2];
    until(
        "paths that are up",
        || (seen(), ours.errors()),
        |(s, _)| *s == up,
    );
}

#[test]
fn what_keeps_the_node_from_answering_is_said_and_tried_again() {
    let wire = Wire::new();
    // Somebody else's, on the key of IPv4's; and what IPv6's is on is down.
    let taken = "route add prohibit 169.254.7.7 table local";
    run(&wire.here, "ip", taken);
    run(&wire.here, "ip", "link set lo down");
    let mut all = nodes();
    all.extend([tenants(&[]), endpoint(&[("bgp", "")])]);
    let ours = Ours::start(&wire.here, with_kernel(), all);
    let said = |e: &[String], host: &str| {
        let start = format!("answer workloads at {host}: ");
        e.iter().any(|t| t.starts_with(&start))
    };
    until(
        "troubles",
        || ours.errors(),
        |e| HOST.iter().all(|a| said(e, a)),
    );
    run(
        &wire.here,
        "ip",
        "route del prohibit 169.254.7.7 table local",
    );
    run(&wire.here, "ip", "link set lo up");
    answered(&wire.here, true);
    until(
        "no trouble",
        || ours.errors(),
        |e| !e.iter().any(|t| t.contains("answer workloads")),
    );
}
