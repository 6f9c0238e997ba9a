//! Learned routes in the kernel, read back by `ip`, and the kernel's routes at BIRD. Wants root and
//! `bird`.

mod support;

use model::Update;
use netlink::netns::NetNs;
use speaker::{Kernel, Settings};
use std::time::Duration;
use support::{
    Bird, Ours, Wire, config, connect, peer, peer_with, run, sessions, settings, statics, until,
    world,
};

const ID: &str = "10.0.0.2";

fn with_kernel() -> Settings {
    settings().with_kernel(Kernel {
        absent: Duration::from_secs(3),
        ..Kernel::default()
    })
}

fn peers(asn: u32) -> Vec<Update> {
    let mut all = world();
    all.push(peer("four", "10.0.0.2", asn));
    all.push(peer("six", "fd00::2", asn));
    all
}

/// Our routes in the kernel, both families, one a line.
fn learned(ns: &NetNs) -> String {
    let four = run(ns, "ip", "-4 route show proto bird");
    four + &run(ns, "ip", "-6 route show proto bird")
}

#[track_caller]
fn has(ns: &NetNs, wanted: &str) {
    until(
        "a route in the kernel",
        || learned(ns),
        |s| s.contains(wanted),
    );
}

#[track_caller]
fn has_not(ns: &NetNs, gone: &str) {
    until(
        "no route in the kernel",
        || learned(ns),
        |s| !s.contains(gone),
    );
}

#[test]
fn learned_routes_come_and_go() {
    let wire = Wire::new();
    let all = sessions(65001, 64512, "") + &statics(&["192.0.2.0/24", "2001:db8::/48"]);
    let bird = Bird::start(&wire.there, ID, &all);
    let ours = Ours::start(&wire.here, with_kernel(), peers(65001));
    has(
        &wire.here,
        "192.0.2.0/24 via 10.0.0.2 dev eth0 metric 2147483547",
    );
    has(
        &wire.here,
        "2001:db8::/48 via fd00::2 dev eth0 metric 2147483547",
    );
    bird.configure(
        ID,
        &(sessions(65001, 64512, "") + &statics(&["2001:db8:1::/48"])),
    );
    has(&wire.here, "2001:db8:1::/48");
    has_not(&wire.here, "192.0.2.0/24");
    has_not(&wire.here, "2001:db8::/48");
    // Whoever takes one away gets it back.
    run(&wire.here, "ip", "-6 route del 2001:db8:1::/48 proto bird");
    has(&wire.here, "2001:db8:1::/48");
    // An interface that goes down takes routes along without a word.
    bird.configure(ID, &all);
    has(&wire.here, "192.0.2.0/24");
    run(&wire.here, "ip", "link set eth0 down");
    run(&wire.here, "ip", "link set eth0 up");
    run(&wire.here, "ip", "addr replace fd00::1/64 dev eth0 nodad");
    has(&wire.here, "192.0.2.0/24 via 10.0.0.2");
    has(&wire.here, "2001:db8::/48 via fd00::2");
    drop(ours);
}

#[test]
fn equal_paths_share_the_traffic() {
    let wire = Wire::new();
    let third = NetNs::new().unwrap_or_else(|e| panic!("{e}"));
    connect(
        (&wire.here, "eth1", &["10.0.1.1/24", "fd01::1/64"]),
        (&third, "eth0", &["10.0.1.2/24", "fd01::2/64"]),
    );
    let own = statics(&["192.0.2.0/24", "2001:db8::/48"]);
    let one = Bird::start(&wire.there, ID, &(sessions(65001, 64512, "") + &own));
    let other = sessions(65001, 64512, "multihop; source address 10.0.1.2;");
    let other = other
        .replace("10.0.0.", "10.0.1.")
        .replace("fd00:", "fd01:");
    let other = other.replacen("multihop; source address 10.0.1.2;", "", 2);
    let mut two = Bird::start(&third, "10.0.1.2", &(other + &own));
    let mut all = peers(65001);
    let anywhere = |p: &mut model::BgpPeer| p.use_node_ip = false;
    all.push(peer_with("four2", "10.0.1.2", 65001, anywhere));
    all.push(peer_with("six2", "fd01::2", 65001, anywhere));
    let ours = Ours::start(&wire.here, with_kernel(), all);
    ours.established(4);
    has(&wire.here, "nexthop via 10.0.0.2 dev eth0 weight 1");
    has(&wire.here, "nexthop via 10.0.1.2 dev eth1 weight 1");
    has(&wire.here, "nexthop via fd00::2 dev eth0 weight 1");
    has(&wire.here, "nexthop via fd01::2 dev eth1 weight 1");
    two.kill();
    has(&wire.here, "192.0.2.0/24 via 10.0.0.2 dev eth0");
    has(&wire.here, "2001:db8::/48 via fd00::2 dev eth0");
    drop(one);
}

#[test]
fn service_addresses_of_others_are_not_believed() {
    let wire = Wire::new();
    let own = statics(&["192.0.2.0/24", "10.96.5.0/24"]);
    let _bird = Bird::start(&wire.there, ID, &(sessions(65001, 64512, "") + &own));
    let mut all = peers(65001);
    let services = vec![support::cidr("10.96.0.0/12")];
    all.push(config(|c| c.service_cluster.clone_from(&services)));
    let ours = Ours::start(&wire.here, with_kernel(), all);
    ours.learns("10.96.5.0/24");
    has(&wire.here, "192.0.2.0/24");
    assert!(!learned(&wire.here).contains("10.96.5.0"));
    ours.update(config(|_| {}));
    has(&wire.here, "10.96.5.0/24 via 10.0.0.2");
    ours.update(config(|c| c.service_cluster.clone_from(&services)));
    has_not(&wire.here, "10.96.5.0/24");
}

#[test]
fn the_way_to_a_next_hop_is_followed() {
    let wire = Wire::new();
    let far =
        "export filter { if source != RTS_STATIC then reject; bgp_next_hop = 10.5.0.9; accept; };";
    let own = sessions(64512, 64512, "").replacen("export where source = RTS_STATIC;", far, 1);
    let _bird = Bird::start(&wire.there, ID, &(own + &statics(&["192.0.2.0/24"])));
    let ours = Ours::start(&wire.here, with_kernel(), peers(64512));
    ours.established(2);
    run(&wire.here, "ip", "route add 10.5.0.0/24 via 10.0.0.7");
    has(&wire.here, "192.0.2.0/24 via 10.0.0.7 dev eth0");
    run(&wire.here, "ip", "route replace 10.5.0.0/24 via 10.0.0.8");
    has(&wire.here, "192.0.2.0/24 via 10.0.0.8 dev eth0");
    run(&wire.here, "ip", "route del 10.5.0.0/24");
    has_not(&wire.here, "192.0.2.0/24");
    run(&wire.here, "ip", "route add default via 10.0.0.9");
    has(&wire.here, "192.0.2.0/24 via 10.0.0.9 dev eth0");
    run(&wire.here, "ip", "route add blackhole 10.5.0.0/26");
    has_not(&wire.here, "192.0.2.0/24");
}

#[test]
fn borrowed_and_elevated_addresses_are_told() {
    let wire = Wire::new();
    let bird = Bird::start(&wire.there, ID, &sessions(64512, 64512, ""));
    let ours = Ours::start(&wire.here, with_kernel(), peers(64512));
    ours.established(2);
    run(&wire.here, "ip", "link add cali1 type veth peer name pod1");
    run(&wire.here, "ip", "link set pod1 up");
    run(&wire.here, "ip", "link set cali1 up");
    // Outside of our block, as when an address was borrowed.
    run(&wire.here, "ip", "route add 172.16.9.5/32 dev cali1");
    run(&wire.here, "ip", "-6 route add fd10::900/128 dev cali1");
    // Inside of it: the block says it, unless it goes before.
    run(
        &wire.here,
        "ip",
        "route add 172.16.1.5/32 dev cali1 metric 1024",
    );
    run(
        &wire.here,
        "ip",
        "route add 172.16.1.6/32 dev cali1 metric 512",
    );
    // Of no pool.
    run(&wire.here, "ip", "route add 192.0.2.7/32 dev cali1");
    let told = |p: &str| {
        until(
            "a route there",
            || bird.route(p),
            |s| s.contains("BGP.next_hop"),
        )
    };
    let borrowed = told("172.16.9.5/32");
    assert!(
        borrowed.contains("BGP.local_pref: 2147482623"),
        "{borrowed}"
    );
    told("fd10::900/128");
    let elevated = told("172.16.1.6/32");
    assert!(
        elevated.contains("BGP.local_pref: 2147483135"),
        "{elevated}"
    );
    for not in ["172.16.1.5/32", "192.0.2.7/32", "10.0.0.0/24"] {
        assert!(!bird.route(not).contains("BGP.next_hop"), "{not}");
    }
    let gone = |p: &str| {
        until(
            "gone there",
            || bird.route(p),
            |s| !s.contains("BGP.next_hop"),
        )
    };
    run(&wire.here, "ip", "route del 172.16.9.5/32");
    gone("172.16.9.5/32");
    // The pod's routes go with its link, the IPv4 ones without a word: they are known nevertheless,
    // and the tables are not read again.
    let reads = || {
        let look = |v: &speaker::View<'_>| v.kernel_reads;
        ours.handle.look(look).unwrap_or_else(|e| panic!("{e}"))
    };
    let before = reads();
    run(&wire.here, "ip", "link del cali1");
    gone("172.16.1.6/32");
    gone("fd10::900/128");
    assert_eq!(reads(), before);
}

#[test]
fn a_peer_behind_a_gateway_is_reached_by_it() {
    let wire = Wire::new();
    let far = NetNs::new().unwrap_or_else(|e| panic!("{e}"));
    connect(
        (&wire.there, "eth1", &["10.7.0.1/24"]),
        (&far, "eth0", &["10.7.0.2/24"]),
    );
    run(&wire.there, "sysctl", "-q net.ipv4.ip_forward=1");
    run(&far, "ip", "route add default via 10.7.0.1");
    let session = "protocol bgp m4 { local 10.7.0.2 as 65001; neighbor 10.0.0.1 as 64512; multihop; \
                   connect delay time 1; ipv4 { import all; export where source = RTS_STATIC; }; }\n";
    let own = session.to_owned() + &statics(&["192.0.2.0/24"]);
    let _bird = Bird::start(&far, "10.7.0.2", &own);
    let mut all = world();
    let gateway = |p: &mut model::BgpPeer| p.reachable_by = Some(support::ip("10.0.0.2"));
    all.push(peer_with("far", "10.7.0.2", 65001, gateway));
    let ours = Ours::start(&wire.here, with_kernel(), all);
    has(&wire.here, "10.7.0.2 via 10.0.0.2 dev eth0 metric 32");
    ours.established(1);
    has(&wire.here, "192.0.2.0/24 via 10.0.0.2 dev eth0");
    ours.update(Update::BgpPeer("far".into(), None));
    has_not(&wire.here, "10.7.0.2");
}

#[test]
fn what_a_run_before_has_left_is_adopted() {
    let wire = Wire::new();
    let all = |routes: &[&str]| {
        let gr = "graceful restart on;";
        sessions(65001, 64512, gr) + &statics(routes)
    };
    let bird = Bird::start(&wire.there, ID, &all(&["192.0.2.0/24", "198.51.100.0/24"]));
    let ours = Ours::start(&wire.here, with_kernel(), peers(65001));
    has(&wire.here, "192.0.2.0/24");
    has(&wire.here, "198.51.100.0/24");
    drop(ours);
    assert!(learned(&wire.here).contains("192.0.2.0/24 via 10.0.0.2"));
    bird.configure(ID, &all(&["198.51.100.0/24"]));
    let changes = wire.here.run(route::Monitor::open);
    let mut changes = changes
        .unwrap_or_else(|e| panic!("{e}"))
        .unwrap_or_else(|e| panic!("{e}"));
    let _ours = Ours::start(&wire.here, with_kernel(), peers(65001));
    has_not(&wire.here, "192.0.2.0/24");
    assert!(learned(&wire.here).contains("198.51.100.0/24"));
    let kept = support::cidr("198.51.100.0/24");
    while let Ok(Some(e)) = changes.try_next() {
        if let route::Event::Route(r) | route::Event::Gone(r) = &e {
            assert_ne!(r.key.dst, kept, "{e:?}");
        }
    }
}

/// How many routes of ours the kernel has.
fn count(routes: &mut route::Handle) -> usize {
    let mut n = 0;
    let each = |seen| match seen {
        route::Seen::Begin => n = 0,
        route::Seen::Route(r) if r.proto == route::Proto::BIRD => n += 1,
        route::Seen::Route(_) => {}
    };
    let read = routes.visit(route::Table::MAIN, net::Family::V4, each);
    read.unwrap_or_else(|e| panic!("{e}"));
    n
}

#[test]
fn a_hundred_thousand_routes_come_and_go_and_the_tables_are_read_once() {
    const MANY: usize = 100_000;
    let wire = Wire::new();
    let ours = Ours::start(&wire.here, with_kernel(), peers(65001));
    let reads = || {
        let look = |v: &speaker::View<'_>| v.kernel_reads;
        ours.handle.look(look).unwrap_or_else(|e| panic!("{e}"))
    };
    until("the tables are read", reads, |n| *n > 0);
    let before = reads();
    let nth = |n: usize| format!("16.{}.{}.0/24", n / 256, n % 256);
    let (mut low, mut high) = (Vec::new(), Vec::new());
    for n in 0..MANY / 2 {
        low.push(nth(n));
        high.push(format!("32{}", &nth(n)[2..]));
    }
    let texts: Vec<&str> = low.iter().chain(&high).map(String::as_str).collect();
    let session = sessions(65001, 64512, "");
    let bird = Bird::start(&wire.there, ID, &(session.clone() + &statics(&texts)));
    let mut routes = route::Handle::open_in(&wire.here).unwrap_or_else(|e| panic!("{e}"));
    until("all in the kernel", || count(&mut routes), |n| *n == MANY);
    let up = ours.since();
    bird.configure(ID, &session);
    until("none in the kernel", || count(&mut routes), |n| *n == 0);
    // BGP went on meanwhile, and nobody read all of it again because of what was written.
    assert_eq!(ours.since(), up);
    assert_eq!(reads(), before);
}

#[test]
fn pools_with_ip_in_ip_lead_through_the_tunnel_device() {
    let wire = Wire::new();
    let own = statics(&["10.65.1.0/26", "10.66.1.0/26", "192.0.2.0/24"]);
    let _bird = Bird::start(&wire.there, ID, &(sessions(64512, 64512, "") + &own));
    let mut all = peers(64512);
    let programs = |text: &str| config(|c| c.program_cluster_routes = Some(text.into()));
    all.push(programs("Enabled"));
    let mut node = support::node("10.0.0.1", "fd00::1");
    if let Some(v4) = &mut node.ipv4 {
        v4.subnet = support::cidr("10.0.0.0/24");
    }
    all.push(Update::Node("a".into(), Some(node)));
    for (name, range, mode) in [
        ("always", "10.65.0.0/16", model::Encap::Always),
        ("cross", "10.66.0.0/16", model::Encap::CrossSubnet),
    ] {
        let mut pool = support::pool(name, range);
        if let Update::Pool(_, Some(p)) = &mut pool {
            p.ipip = mode;
        }
        all.push(pool);
    }
    let ours = Ours::start(&wire.here, with_kernel(), all);
    // This kernel may have no IP in IP: any device of the name will do for its routes.
    let add = || {
        run(&wire.here, "ip", "link add tunl0 type veth peer name far0");
        run(&wire.here, "ip", "link set far0 up");
        run(&wire.here, "ip", "link set tunl0 up");
    };
    let lacks = |s: &Vec<String>| s.iter().any(|e| e.contains("no interface tunl0"));
    until("the trouble is told", || ours.errors(), lacks);
    has(&wire.here, "192.0.2.0/24 via 10.0.0.2 dev eth0");
    has(&wire.here, "10.66.1.0/26 via 10.0.0.2 dev eth0");
    assert!(!learned(&wire.here).contains("10.65.1.0"));
    for _ in 0..2 {
        add();
        let through = "10.65.1.0/26 via 10.0.0.2 dev tunl0 metric 2147483547 onlink";
        has(&wire.here, through);
        until("no trouble", || ours.errors(), |s| !lacks(s));
        run(&wire.here, "ip", "link set tunl0 down");
        has_not(&wire.here, "10.65.1.0");
        let refused = |s: &Vec<String>| s.iter().any(|e| e.contains("add route 10.65.1.0/26"));
        until("the refusal is told", || ours.errors(), refused);
        run(&wire.here, "ip", "link set tunl0 up");
        has(&wire.here, through);
        run(&wire.here, "ip", "link set tunl0 down");
        until("the refusal is told", || ours.errors(), refused);
        run(&wire.here, "ip", "link del tunl0");
        until("no refusal", || ours.errors(), |s| !refused(s));
        has_not(&wire.here, "10.65.1.0");
        until("the trouble is told", || ours.errors(), lacks);
    }
    add();
    has(&wire.here, "10.65.1.0/26 via 10.0.0.2 dev tunl0");
    ours.update(programs("EnabledNoEncapOnly"));
    has_not(&wire.here, "10.65.1.0");
    has_not(&wire.here, "10.66.1.0");
    until("no trouble", || ours.errors(), |s| !lacks(s));
}

#[test]
fn a_link_local_next_hop_is_on_the_link_of_its_peer() {
    let wire = Wire::new();
    let other = NetNs::new().unwrap_or_else(|e| panic!("{e}"));
    connect(
        (&wire.here, "eth1", &["fd01::1/64", "fe80::101/64"]),
        (&other, "eth0", &["fd01::2/64"]),
    );
    let far =
        "export filter { if source != RTS_STATIC then reject; bgp_next_hop = fe80::7; accept; };";
    let own = sessions(65001, 64512, "").replace("export where source = RTS_STATIC;", far);
    let (_, six) = own.split_at(own.find("protocol bgp m6").unwrap_or(0));
    let _bird = Bird::start(
        &wire.there,
        ID,
        &(six.to_owned() + &statics(&["2001:db8::/48"])),
    );
    let ours = Ours::start(&wire.here, with_kernel(), peers(65001));
    has(
        &wire.here,
        "2001:db8::/48 via fe80::7 dev eth0 metric 2147483547",
    );
    drop(ours);
}
