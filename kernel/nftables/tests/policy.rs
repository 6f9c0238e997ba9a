//! What policies on rates, connections, marks of service and addresses do to real traffic.
#![allow(clippy::unwrap_used)]

mod support;
use net::{Family, Protocol};
use netlink::netns::NetNs;
use nftables::*;
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};
use support::lab::*;
use support::*;

fn at(kind: Kind, hook: Hook, priority: i32) -> Option<Base> {
    Some(Base {
        kind,
        hook,
        priority,
        policy: Policy::Accept,
    })
}

fn counted(matches: Vec<Match>) -> Rule {
    rule(matches, vec![Statement::Counter], None)
}

fn in_set(name: &str) -> Match {
    Match::IifName {
        pattern: IfPattern::InSet(set(name)),
        negate: false,
    }
}

fn proto(proto: Protocol) -> Match {
    Match::L4Proto {
        proto,
        negate: false,
    }
}

fn udp(ns: &NetNs, to: &str, n: u16) {
    let to: SocketAddr = to.parse().unwrap();
    ns.run(|| {
        let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let s = UdpSocket::bind(any).unwrap();
        for _ in 0..n {
            s.send_to(b"x", to).unwrap();
        }
    })
    .unwrap();
}

/// Each interface has a rate of its own, and one rule serves them all.
#[test]
fn a_rate_for_each_interface() {
    let lab = Lab::new();
    let mut t = Table::new(table_name());
    let rate = |i, burst| Element::IfNameOverRate(ifname(i), Rate::new(1, Per::Day, burst));
    let limits = [rate("cali1", 3), rate("cali2", 6)];
    t.set_set(&set("rates"), SetKind::IfNameOverRate, limits)
        .unwrap();
    let from = |i| Match::IifName {
        pattern: IfPattern::Exact(ifname(i)),
        negate: false,
    };
    let rules = vec![
        counted(vec![proto(Protocol::UDP), from("cali1")]),
        counted(vec![proto(Protocol::UDP), from("cali2")]),
        rule(
            vec![proto(Protocol::UDP), in_set("rates")],
            vec![Statement::Counter],
            Some(Verdict::Drop),
        ),
        counted(vec![proto(Protocol::UDP), from("cali1")]),
        counted(vec![proto(Protocol::UDP), from("cali2")]),
    ];
    let base = at(Kind::Filter, Hook::Input, 0);
    t.set_chain(&chain("in"), Chain { base, rules });
    lab.program(&mut t);
    udp(&lab.a, "10.0.1.254:9", 10);
    udp(&lab.b, "10.0.2.254:9", 10);
    lab.wait_for("all of them", |lab| lab.counts("in")[..2] == [10, 10]);
    assert_eq!(lab.counts("in"), [10, 10, 11, 3, 6]);
    // A new rate for one leaves the other where it was.
    t.set_elems(&set("rates"), [rate("cali1", 2)], []).unwrap();
    lab.program(&mut t);
    udp(&lab.a, "10.0.1.254:9", 10);
    udp(&lab.b, "10.0.2.254:9", 1);
    lab.wait_for("more of them", |lab| lab.counts("in")[..2] == [20, 11]);
    assert_eq!(lab.counts("in"), [20, 11, 20, 5, 6]);
}

/// Holds connections open, in a set with a number for each interface or by a rule.
fn connections(many: Match, count: Vec<Statement>) {
    let lab = Lab::new();
    let mut t = Table::new(table_name());
    let two = [Element::IfNameOverCount(ifname("cali1"), 2)];
    t.set_set(&set("counts"), SetKind::IfNameOverCount, two)
        .unwrap();
    let new = Match::CtState {
        states: CtState::NEW,
        negate: false,
    };
    let mut statements = count;
    statements.push(Statement::Counter);
    statements.push(Statement::Reject(Reject::TcpReset));
    let rules = vec![rule(
        vec![new, proto(Protocol::TCP), many],
        statements,
        None,
    )];
    let base = at(Kind::Filter, Hook::Forward, 0);
    t.set_chain(&chain("forward"), Chain { base, rules });
    lab.program(&mut t);
    let (_server, addr) = serve(&lab.b, "10.0.2.1:8080");
    let connect = || {
        let limit = Duration::from_secs(2);
        lab.a
            .run(|| TcpStream::connect_timeout(&addr, limit))
            .unwrap()
    };
    let first = connect().unwrap();
    let _second = connect().unwrap();
    for _ in 0..2 {
        let refused = connect().unwrap_err();
        assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    }
    assert_eq!(lab.counts("forward"), [2]);
    // One that has ended makes room for another.
    reset(&first);
    drop(first);
    let deadline = Instant::now() + Duration::from_secs(5);
    while connect().is_err() {
        assert!(Instant::now() < deadline, "no room again");
    }
}

/// Lets the connection end with a reset.
fn reset(s: &TcpStream) {
    use std::os::fd::AsRawFd;
    let linger = libc::linger {
        l_onoff: 1,
        l_linger: 0,
    };
    // SAFETY: the value lives through the call and its size is given.
    let rc = unsafe {
        libc::setsockopt(
            s.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_LINGER,
            (&raw const linger).cast(),
            size_of::<libc::linger>() as u32,
        )
    };
    assert_eq!(rc, 0);
}

#[test]
fn connections_for_each_interface() {
    connections(in_set("counts"), vec![]);
}

#[test]
fn connections_of_a_rule() {
    let cali = Match::IifName {
        pattern: IfPattern::Exact(ifname("cali1")),
        negate: false,
    };
    connections(cali, vec![Statement::CtCount { over: 2 }]);
}

/// A mark of service written on the way arrives, in a header whose checksum is right.
#[test]
fn the_code_point_is_written() {
    let lab = Lab::new();
    let mut t = Table::new(table_name());
    let is = |family, n: u8| Match::Dscp {
        family,
        dscp: Dscp::new(n).unwrap(),
        negate: false,
    };
    let write = |family, n: u8| {
        let dscp = Dscp::new(n).unwrap();
        rule(vec![], vec![Statement::SetDscp { family, dscp }], None)
    };
    let (v4, v6) = (Family::V4, Family::V6);
    let udp_and = |m| counted(vec![proto(Protocol::UDP), m]);
    let rules = vec![write(v4, 46), write(v6, 63), write(v6, 33)];
    let base = at(Kind::Filter, Hook::Forward, 0);
    t.set_chain(&chain("forward"), Chain { base, rules });
    let rules = vec![
        udp_and(is(v4, 46)),
        udp_and(is(v6, 33)),
        udp_and(is(v4, 0)),
        udp_and(is(v6, 0)),
    ];
    let base = at(Kind::Filter, Hook::Postrouting, 0);
    t.set_chain(&chain("post"), Chain { base, rules });
    lab.program(&mut t);
    for to in ["10.0.2.1:9999", "[fd00:2::1]:9999"] {
        let server = lab.b.run(|| UdpSocket::bind(to).unwrap()).unwrap();
        server
            .set_read_timeout(Some(Duration::from_secs(5)))
            .unwrap();
        udp(&lab.a, to, 1);
        let mut b = [0];
        assert_eq!(server.recv(&mut b).unwrap(), 1, "{to}");
    }
    assert_eq!(lab.counts("post"), [1, 1, 0, 0]);
}

/// Addresses given to pods on top of their own, both families in one chain, by map.
#[test]
fn floating_addresses() {
    let lab = Lab::new();
    let mut t = Table::new(table_name());
    let to = |a, b| Element::AddrToAddr(ip(a), ip(b));
    let in4 = [to("10.99.0.1", "10.0.2.1"), to("10.99.0.2", "10.0.2.1")];
    let in6 = [to("fd99::1", "fd00:2::1")];
    let out4 = [to("10.0.1.1", "10.99.0.7")];
    let out6 = [to("fd00:1::1", "fd99::7")];
    for (name, family, members) in [
        ("in4", V4, &in4[..]),
        ("in6", V6, &in6),
        ("out4", V4, &out4),
        ("out6", V6, &out6),
    ] {
        let members = members.iter().cloned();
        t.set_set(&set(name), SetKind::AddrToAddr(family), members)
            .unwrap();
    }
    let dnat = |family, map| {
        let map = set(map);
        rule(vec![], vec![Statement::DnatMap { family, map }], None)
    };
    let snat = |family, map| {
        let map = set(map);
        rule(vec![], vec![Statement::SnatMap { family, map }], None)
    };
    let both = || vec![dnat(V4, "in4"), dnat(V6, "in6")];
    for (name, hook) in [("pre", Hook::Prerouting), ("out", Hook::Output)] {
        let base = at(Kind::Nat, hook, -110);
        t.set_chain(
            &chain(name),
            Chain {
                base,
                rules: both(),
            },
        );
    }
    let rules = vec![snat(V4, "out4"), snat(V6, "out6")];
    let base = at(Kind::Nat, Hook::Postrouting, 110);
    t.set_chain(&chain("post"), Chain { base, rules });
    let original = |n: &[&str], negate| Match::CtOriginalAddr {
        side: Side::Destination,
        nets: nets(n),
        negate,
    };
    let port = |p: &[&str], negate| Match::CtOriginalPorts {
        side: Side::Destination,
        ports: ports(p),
        negate,
    };
    let tcp = || proto(Protocol::TCP);
    let rules = vec![
        counted(vec![tcp(), original(&["10.99.0.0/24"], false)]),
        counted(vec![tcp(), original(&["10.99.0.0/24"], true)]),
        counted(vec![tcp(), original(&["fd99::/16", "ff00::/8"], false)]),
        counted(vec![tcp(), original(&["10.0.2.1", "10.0.2.2"], false)]),
        counted(vec![tcp(), port(&["8080"], false)]),
        counted(vec![tcp(), port(&["8000:8079", "8081"], true)]),
        counted(vec![tcp(), port(&["8080:8090"], true)]),
    ];
    let base = at(Kind::Filter, Hook::Forward, 0);
    t.set_chain(&chain("forward"), Chain { base, rules });
    lab.program(&mut t);
    // Routes to the new sources, so that answers come back.
    sh(
        &lab.b,
        "ip route add 10.99.0.7 via 10.0.2.254; ip route add fd99::7 via fd00:2::fe",
    );
    for (server, address, seen) in [
        ("10.0.2.1:8080", "10.99.0.1:8080", "10.99.0.7"),
        ("10.0.2.1:8080", "10.99.0.2:8080", "10.99.0.7"),
        ("[fd00:2::1]:8080", "[fd99::1]:8080", "fd99::7"),
    ] {
        let (listener, _) = serve(&lab.b, server);
        let reached = exchange(&lab.a, &(listener, address.parse().unwrap()));
        assert_eq!(reached, Some(ip(seen)), "{address}");
    }
    // The router itself comes by the output hook, and keeps its address.
    sh(&lab.router, "ip route add 10.99.0.0/24 via 10.0.2.1");
    let (listener, _) = serve(&lab.b, "10.0.2.1:8080");
    let reached = exchange(&lab.router, &(listener, "10.99.0.1:8080".parse().unwrap()));
    assert_eq!(reached, Some(ip("10.0.2.254")));
    let c = lab.counts("forward");
    assert!(c[0] > 8 && c[2] > 4, "{c:?}");
    assert_eq!((c[1], c[3], c[6]), (0, 0, 0));
    assert_eq!((c[4], c[5]), (c[0] + c[2], c[0] + c[2]));
}

/// The machine does not answer for an address on the interface where the address lives.
#[test]
fn answers_of_arp_are_withheld() {
    let lab = Lab::new();
    let mut t = Table::of(TableFamily::Arp, table_name());
    let own = Match::ArpSenderInSet {
        interface: VMapKey::OifName,
        set: set("own"),
        negate: false,
    };
    let rules = vec![
        rule(
            vec![Match::ArpOperation(ArpOp::Reply), own],
            vec![Statement::Counter],
            Some(Verdict::Drop),
        ),
        counted(vec![Match::ArpOperation(ArpOp::Reply)]),
    ];
    let base = at(Kind::Filter, Hook::Output, 0);
    t.set_chain(&chain("out"), Chain { base, rules });
    let at = |a| Element::IfNameAddr(ifname("cali1"), ip(a));
    t.set_set(
        &set("own"),
        SetKind::IfNameAddr(V4),
        [at("10.0.1.1"), at("10.0.1.77")],
    )
    .unwrap();
    let t = &mut t;
    let router = &lab.router;
    router
        .run(move || {
            let mut sys = Sys::open_of(TableFamily::Arp, table_name()).unwrap();
            sys.sync(t).unwrap()
        })
        .unwrap();
    // Proxy ARP: the router answers for whatever it has a route to elsewhere.
    sh(
        router,
        "echo 1 > /proc/sys/net/ipv4/conf/cali1/proxy_arp
         echo 0 > /proc/sys/net/ipv4/neigh/cali1/proxy_delay
         ip route add 10.0.1.77 via 10.0.2.1; ip route add 10.0.1.78 via 10.0.2.1",
    );
    let counts = || {
        let text = nft(router, &["list", "chain", "arp", "manx", "out"], "");
        let all = text.split("counter packets ").skip(1);
        all.map(|r| r.split(' ').next().unwrap().parse().unwrap())
            .collect::<Vec<u64>>()
    };
    for (to, want) in [("10.0.1.77:9", [1, 0]), ("10.0.1.78:9", [1, 1])] {
        udp(&lab.a, to, 1);
        let deadline = Instant::now() + Duration::from_secs(5);
        loop {
            let c = counts();
            if c[0] >= want[0] && c[1] >= want[1] {
                break;
            }
            assert!(Instant::now() < deadline, "{to}: {c:?}");
            std::thread::yield_now();
        }
    }
    assert_eq!(counts()[1], 1);
}
