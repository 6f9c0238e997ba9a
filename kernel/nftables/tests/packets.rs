//! Rules against real packets: who matches what, and what becomes of it.
#![allow(clippy::unwrap_used)]

mod support;
use net::Protocol;
use netlink::netns::NetNs;
use nftables::*;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};
use support::lab::*;
use support::*;

/// Sends bytes as the payload of an IP packet of this protocol.
fn raw(to: &str, proto: Protocol, payload: &[u8]) {
    let to: SocketAddr = SocketAddr::new(ip(to), 0);
    let v4 = to.is_ipv4();
    // SAFETY: a raw socket, one sendto with a filled address of the size given, then close.
    unsafe {
        let family = if v4 { libc::AF_INET } else { libc::AF_INET6 };
        let fd = libc::socket(family, libc::SOCK_RAW, i32::from(proto.0));
        assert!(fd >= 0);
        let mut a4: libc::sockaddr_in = std::mem::zeroed();
        let mut a6: libc::sockaddr_in6 = std::mem::zeroed();
        let (addr, len): (*const libc::sockaddr, _) = match to.ip() {
            IpAddr::V4(a) => {
                a4.sin_family = libc::AF_INET as u16;
                a4.sin_addr.s_addr = u32::from_ne_bytes(a.octets());
                ((&raw const a4).cast(), size_of::<libc::sockaddr_in>())
            }
            IpAddr::V6(a) => {
                a6.sin6_family = libc::AF_INET6 as u16;
                a6.sin6_addr.s6_addr = a.octets();
                ((&raw const a6).cast(), size_of::<libc::sockaddr_in6>())
            }
        };
        let n = libc::sendto(
            fd,
            payload.as_ptr().cast(),
            payload.len(),
            0,
            addr,
            len as u32,
        );
        assert_eq!(
            n,
            payload.len() as isize,
            "{}",
            std::io::Error::last_os_error()
        );
        libc::close(fd);
    }
}

fn sum(bytes: &[u8]) -> u16 {
    let mut s: u32 = bytes
        .chunks(2)
        .map(|c| u32::from(c[0]) << 8 | u32::from(*c.get(1).unwrap_or(&0)))
        .sum();
    while s > 0xffff {
        s = (s & 0xffff) + (s >> 16);
    }
    !(s as u16)
}

fn icmp(kind: u8, code: u8) -> Vec<u8> {
    let mut p = vec![kind, code, 0, 0, 0, 1, 0, 1, 1, 2, 3, 4];
    let c = sum(&p).to_be_bytes();
    p[2..4].copy_from_slice(&c);
    p
}

#[derive(Debug, Clone, Copy)]
enum Packet {
    Udp {
        v6: bool,
        sport: u16,
        dport: u16,
    },
    /// A SYN without a checksum, which the input hook sees all the same.
    Tcp {
        sport: u16,
        dport: u16,
    },
    Icmp {
        v6: bool,
        kind: u8,
        code: u8,
    },
}

impl Packet {
    fn send(self) {
        let router = |v6| if v6 { "fd00:1::fe" } else { "10.0.1.254" };
        match self {
            Self::Udp { v6, sport, dport } => {
                let me = if v6 { "fd00:1::1" } else { "10.0.1.1" };
                let s = UdpSocket::bind(SocketAddr::new(ip(me), sport)).unwrap();
                s.send_to(b"x", SocketAddr::new(ip(router(v6)), dport))
                    .unwrap();
            }
            Self::Tcp { sport, dport } => {
                let mut p = vec![0; 20];
                p[..2].copy_from_slice(&sport.to_be_bytes());
                p[2..4].copy_from_slice(&dport.to_be_bytes());
                p[12] = 5 << 4;
                p[13] = 2;
                raw(router(false), Protocol::TCP, &p);
            }
            Self::Icmp {
                v6: false,
                kind,
                code,
            } => raw(router(false), Protocol::ICMP, &icmp(kind, code)),
            // The kernel fills in the checksum of ICMPv6.
            Self::Icmp {
                v6: true,
                kind,
                code,
            } => raw(router(true), Protocol::ICMPV6, &icmp(kind, code)),
        }
    }
}

const PACKETS: [Packet; 10] = [
    Packet::Udp {
        v6: false,
        sport: 1000,
        dport: 80,
    },
    Packet::Udp {
        v6: false,
        sport: 2000,
        dport: 8080,
    },
    Packet::Tcp {
        sport: 1000,
        dport: 443,
    },
    Packet::Tcp {
        sport: 3000,
        dport: 80,
    },
    Packet::Icmp {
        v6: false,
        kind: 8,
        code: 0,
    },
    Packet::Icmp {
        v6: false,
        kind: 8,
        code: 1,
    },
    Packet::Icmp {
        v6: false,
        kind: 13,
        code: 0,
    },
    Packet::Udp {
        v6: true,
        sport: 1000,
        dport: 80,
    },
    Packet::Icmp {
        v6: true,
        kind: 128,
        code: 0,
    },
    Packet::Icmp {
        v6: true,
        kind: 128,
        code: 1,
    },
];

/// Matches, and which of the packets each must hold for.
fn expectations() -> Vec<(Match, &'static [usize])> {
    use Side::*;
    let dscp = |family, n, negate| Match::Dscp {
        family,
        dscp: Dscp::new(n).unwrap(),
        negate,
    };
    let addr = |side, n: &[&str], negate| Match::Addr {
        side,
        nets: nets(n),
        negate,
    };
    let in_set = |side, family, s, negate| Match::AddrInSet {
        side,
        family,
        set: set(s),
        negate,
    };
    let triple = |side, family, s, negate| Match::AddrPortInSet {
        side,
        family,
        set: set(s),
        negate,
    };
    let pair = |family, s, negate| Match::NetPairInSet {
        family,
        set: set(s),
        negate,
    };
    let port = |side, p: &[&str], negate| Match::Ports {
        side,
        ports: ports(p),
        negate,
    };
    let icmp = |family, kind, code, negate| Match::Icmp {
        family,
        kind,
        code,
        negate,
    };
    let iif = |pattern, negate| Match::IifName { pattern, negate };
    let prefix = |s| IfPattern::Prefix(ifname(s));
    const ALL: &[usize] = &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9];
    const FOUR: &[usize] = &[0, 1, 2, 3, 4, 5, 6];
    const SIX: &[usize] = &[7, 8, 9];
    const NONE: &[usize] = &[];
    vec![
        (iif(IfPattern::Exact(ifname("cali1")), false), ALL),
        (iif(IfPattern::Exact(ifname("cali")), false), NONE),
        (iif(IfPattern::Exact(ifname("cali1")), true), NONE),
        (iif(prefix("cali"), false), ALL),
        (iif(prefix("cali2"), true), ALL),
        (iif(IfPattern::InSet(set("ifs")), false), ALL),
        (iif(IfPattern::InSet(set("ifs")), true), NONE),
        (Match::NfProto(V4), FOUR),
        (Match::NfProto(V6), SIX),
        (
            Match::L4Proto {
                proto: Protocol::UDP,
                negate: false,
            },
            &[0, 1, 7],
        ),
        (
            Match::L4Proto {
                proto: Protocol::UDP,
                negate: true,
            },
            &[2, 3, 4, 5, 6, 8, 9],
        ),
        (addr(Source, &["10.0.1.1"], false), FOUR),
        (addr(Source, &["10.0.1.1"], true), NONE),
        (addr(Source, &["10.0.1.2"], true), FOUR),
        (addr(Source, &["10.0.0.0/9"], false), FOUR),
        (addr(Source, &["10.128.0.0/9"], false), NONE),
        (addr(Source, &["10.0.0.0/8"], false), FOUR),
        (addr(Source, &["0.0.0.0/0"], false), FOUR),
        (addr(Source, &["0.0.0.0/0"], true), NONE),
        (addr(Source, &["::/0"], false), SIX),
        (addr(Source, &["::/0"], true), NONE),
        (addr(Destination, &["fd00::/13"], false), SIX),
        (addr(Destination, &["fd00:1::fe"], false), SIX),
        (addr(Source, &["fd00:1::/33"], true), NONE),
        (addr(Source, &["10.0.1.0/31", "9.0.0.0/8"], false), FOUR),
        (addr(Source, &["10.0.1.2/31", "9.0.0.0/8"], false), NONE),
        (addr(Source, &["10.0.1.2/31", "9.0.0.0/8"], true), FOUR),
        (addr(Source, &["10.0.1.1", "9.0.0.1"], false), FOUR),
        (addr(Source, &["0.0.0.0/1", "128.0.0.0/1"], false), FOUR),
        (addr(Destination, &["fd00:1::/64", "ff00::/8"], false), SIX),
        (in_set(Source, V4, "a4", false), FOUR),
        (in_set(Source, V4, "a4", true), NONE),
        (in_set(Destination, V4, "a4", true), FOUR),
        (in_set(Source, V4, "n4", false), FOUR),
        (in_set(Destination, V4, "n4", false), NONE),
        (in_set(Source, V4, "all4", false), FOUR),
        (in_set(Source, V6, "all6", false), SIX),
        (in_set(Source, V4, "empty", false), NONE),
        (in_set(Source, V4, "empty", true), FOUR),
        (in_set(Source, V6, "n6", false), SIX),
        (triple(Destination, V4, "p4", false), &[0, 2]),
        (triple(Destination, V4, "p4", true), &[1, 3, 4, 5, 6]),
        (triple(Source, V6, "p6", false), &[7]),
        (pair(V4, "nn4", false), FOUR),
        (pair(V4, "nn4", true), NONE),
        (pair(V6, "nn6", false), SIX),
        (port(Destination, &["80"], false), &[0, 3, 7]),
        (port(Source, &["1000:2000"], false), &[0, 1, 2, 7]),
        (port(Source, &["1001:2000"], false), &[1]),
        (port(Destination, &["80", "8080"], false), &[0, 1, 3, 7]),
        (
            port(Destination, &["0:79", "400:500", "8080:65535"], false),
            &[1, 2],
        ),
        (icmp(V4, 8, None, false), &[4, 5]),
        (icmp(V4, 8, None, true), &[6]),
        (icmp(V4, 8, Some(0), false), &[4]),
        (icmp(V4, 8, Some(0), true), &[5, 6]),
        (icmp(V6, 128, None, false), &[8, 9]),
        (icmp(V6, 128, Some(1), false), &[9]),
        (icmp(V6, 128, Some(1), true), &[8]),
        (
            Match::Mark {
                mask: 0xf0,
                value: 0x50,
                negate: false,
            },
            ALL,
        ),
        (
            Match::Mark {
                mask: u32::MAX,
                value: 0x51,
                negate: false,
            },
            NONE,
        ),
        (
            Match::Mark {
                mask: 1,
                value: 1,
                negate: true,
            },
            ALL,
        ),
        (
            Match::FibLocal {
                side: Destination,
                negate: false,
            },
            ALL,
        ),
        (
            Match::FibLocal {
                side: Source,
                negate: false,
            },
            NONE,
        ),
        (
            Match::FibLocal {
                side: Source,
                negate: true,
            },
            ALL,
        ),
        (Match::CtDnat { negate: false }, NONE),
        // The SYNs without checksum belong to no connection, so nothing is said of theirs.
        (Match::CtDnat { negate: true }, &[0, 1, 4, 5, 6, 7, 8, 9]),
        (
            Match::CtState {
                states: CtState::INVALID,
                negate: false,
            },
            &[2, 3],
        ),
        (
            Match::CtState {
                states: CtState::INVALID,
                negate: true,
            },
            &[0, 1, 4, 5, 6, 7, 8, 9],
        ),
        (
            Match::CtState {
                states: CtState::NEW,
                negate: false,
            },
            &[0, 1, 4, 5, 6, 7, 8, 9],
        ),
        (
            Match::CtState {
                states: CtState::UNTRACKED,
                negate: false,
            },
            NONE,
        ),
        (
            Match::CtState {
                states: CtState::UNTRACKED | CtState::ESTABLISHED,
                negate: true,
            },
            ALL,
        ),
        (
            Match::IfAddrInSet {
                interface: VMapKey::IifName,
                side: Source,
                family: V4,
                set: set("here"),
                negate: false,
            },
            &[0, 1, 2, 3, 4, 5, 6],
        ),
        (
            Match::IfAddrInSet {
                interface: VMapKey::IifName,
                side: Source,
                family: V6,
                set: set("elsewhere"),
                negate: true,
            },
            &[7, 8, 9],
        ),
        (
            Match::AddrPortInSet {
                side: Destination,
                family: V4,
                set: set("np4"),
                negate: false,
            },
            &[0, 1, 2],
        ),
        (dscp(V4, 0, false), &[0, 1, 2, 3, 4, 5, 6]),
        (dscp(V4, 0, true), &[]),
        (dscp(V6, 46, true), &[7, 8, 9]),
        (
            Match::FibType {
                side: Destination,
                kind: AddrType::Local,
                negate: false,
            },
            ALL,
        ),
        (
            Match::FibType {
                side: Source,
                kind: AddrType::Unicast,
                negate: true,
            },
            &[],
        ),
    ]
}

#[test]
fn every_match_holds_for_exactly_its_packets() {
    let lab = Lab::new();
    let mut t = Table::new(table_name());
    let addr4 = || [Element::Addr(ip("10.0.1.1"))];
    let net = |c: &str| Element::Net(cidr(c));
    t.set_set(&set("a4"), SetKind::Addr(V4), addr4()).unwrap();
    t.set_set(&set("empty"), SetKind::Addr(V4), []).unwrap();
    t.set_set(
        &set("n4"),
        SetKind::Net(V4),
        [net("10.0.0.0/24"), net("10.0.1.0/25")],
    )
    .unwrap();
    t.set_set(&set("all4"), SetKind::Net(V4), [net("0.0.0.0/0")])
        .unwrap();
    t.set_set(&set("all6"), SetKind::Net(V6), [net("::/0")])
        .unwrap();
    t.set_set(&set("n6"), SetKind::Net(V6), [net("fd00:1::/32")])
        .unwrap();
    let triple = |a, p, n| Element::AddrProtoPort(ip(a), p, n);
    let p4 = [
        triple("10.0.1.254", Protocol::UDP, 80),
        triple("10.0.1.254", Protocol::TCP, 443),
    ];
    t.set_set(&set("p4"), SetKind::AddrProtoPort(V4), p4)
        .unwrap();
    t.set_set(
        &set("p6"),
        SetKind::AddrProtoPort(V6),
        [triple("fd00:1::1", Protocol::UDP, 1000)],
    )
    .unwrap();
    let at = |i, a| [Element::IfNameAddr(ifname(i), ip(a))];
    t.set_set(
        &set("here"),
        SetKind::IfNameAddr(V4),
        at("cali1", "10.0.1.1"),
    )
    .unwrap();
    t.set_set(
        &set("elsewhere"),
        SetKind::IfNameAddr(V6),
        at("cali2", "fd00:1::1"),
    )
    .unwrap();
    let served = |p, r| Element::NetProtoPorts(cidr("10.0.1.0/24"), p, range(r));
    t.set_set(
        &set("np4"),
        SetKind::NetProtoPorts(V4),
        [
            served(Protocol::UDP, "80:8080"),
            served(Protocol::TCP, "443"),
        ],
    )
    .unwrap();
    let pair = |a, b| Element::NetPair(cidr(a), cidr(b));
    t.set_set(
        &set("nn4"),
        SetKind::NetPair(V4),
        [pair("10.0.1.0/24", "10.0.1.254/32")],
    )
    .unwrap();
    t.set_set(
        &set("nn6"),
        SetKind::NetPair(V6),
        [pair("::/0", "fd00:1::/32")],
    )
    .unwrap();
    t.set_set(
        &set("ifs"),
        SetKind::IfName,
        [Element::IfName(ifname("cali1"))],
    )
    .unwrap();

    let counted = |m| rule(vec![m], vec![Statement::Counter], None);
    let mut rules: Vec<_> = expectations()
        .into_iter()
        .map(|(m, _)| counted(m))
        .collect();
    rules.insert(
        0,
        rule(
            vec![],
            vec![Statement::SetMark {
                mask: 0xff,
                value: 0x3050,
            }],
            None,
        ),
    );
    rules.push(rule(vec![], vec![Statement::Counter], Some(Verdict::Drop)));
    t.set_chain(&chain("test"), Chain { base: None, rules });
    // Neighbour discovery is not part of the test.
    let go = || Some(Verdict::Jump(chain("test")));
    let not6 = Match::L4Proto {
        proto: Protocol::ICMPV6,
        negate: true,
    };
    let echo = Match::Icmp {
        family: V6,
        kind: 128,
        code: None,
        negate: false,
    };
    let rules = vec![
        rule(vec![not6], vec![], go()),
        rule(vec![echo], vec![], go()),
    ];
    t.set_chain(
        &chain("in"),
        Chain {
            base: Some(base(Hook::Input)),
            rules,
        },
    );
    lab.program(&mut t);

    let mut seen = vec![Vec::new(); expectations().len()];
    let mut before = vec![0; seen.len() + 1];
    for (i, p) in PACKETS.iter().enumerate() {
        lab.a.run(|| p.send()).unwrap();
        lab.wait_for("the packet", |lab| {
            lab.counts("test").last() == Some(&(i as u64 + 1))
        });
        let now = lab.counts("test");
        (0..seen.len())
            .filter(|r| now[*r] > before[*r])
            .for_each(|r| seen[r].push(i));
        before = now;
    }
    for ((m, want), got) in expectations().into_iter().zip(seen) {
        // Where a port would be, ICMP has other things.
        let has_ports = |i: &usize| !matches!(PACKETS[*i], Packet::Icmp { .. });
        let is_ports = matches!(m, Match::Ports { .. });
        let got: Vec<_> = got
            .into_iter()
            .filter(|i| !is_ports || has_ports(i))
            .collect();
        assert_eq!(got, want, "{m}");
    }
}

#[test]
fn dispatch_state_and_masquerade() {
    let lab = Lab::new();
    let mut t = Table::new(table_name());
    let ct = |states| {
        vec![Match::CtState {
            states,
            negate: false,
        }]
    };
    let tcp = Match::L4Proto {
        proto: Protocol::TCP,
        negate: false,
    };
    let to_8080 = Match::Ports {
        side: Side::Destination,
        ports: ports(&["8080"]),
        negate: false,
    };
    let forward = vec![
        rule(
            ct(CtState::ESTABLISHED | CtState::RELATED),
            vec![Statement::Counter],
            Some(Verdict::Accept),
        ),
        rule(ct(CtState::INVALID), vec![], Some(Verdict::Drop)),
        rule(
            vec![],
            vec![Statement::VMap {
                key: VMapKey::IifName,
                map: set("pods"),
            }],
            None,
        ),
        rule(vec![], vec![Statement::Counter], Some(Verdict::Drop)),
    ];
    t.set_chain(
        &chain("forward"),
        Chain {
            base: Some(base(Hook::Forward)),
            rules: forward,
        },
    );
    let pod = vec![
        rule(
            vec![tcp.clone(), to_8080],
            vec![Statement::Counter],
            Some(Verdict::Accept),
        ),
        rule(vec![tcp], vec![Statement::Reject(Reject::TcpReset)], None),
    ];
    t.set_chain(
        &chain("pod-a"),
        Chain {
            base: None,
            rules: pod,
        },
    );
    let at = Element::IfNameVerdict(ifname("cali1"), Verdict::Goto(chain("pod-a")));
    t.set_set(&set("pods"), SetKind::IfNameVerdict, [at.clone()])
        .unwrap();
    lab.program(&mut t);

    for (b, a, peer) in [
        ("10.0.2.1", "10.0.1.1", "10.0.1.1"),
        ("[fd00:2::1]", "[fd00:1::1]", "fd00:1::1"),
    ] {
        let open = serve(&lab.b, &format!("{b}:8080"));
        let shut = serve(&lab.b, &format!("{b}:9090"));
        let back = serve(&lab.a, &format!("{a}:8080"));
        assert_eq!(exchange(&lab.a, &open), Some(ip(peer)), "allowed");
        let start = Instant::now();
        assert_eq!(exchange(&lab.a, &shut), None, "not allowed");
        assert!(
            start.elapsed() < Duration::from_millis(250),
            "reset at once"
        );
        assert_eq!(exchange(&lab.b, &back), None, "unknown interface: dropped");
    }
    assert!(lab.counts("forward")[0] > 4, "answers went by state");

    // The masquerade of pods that leave.
    let leaving = Match::Addr {
        side: Side::Source,
        nets: nets(&["10.0.1.0/24"]),
        negate: false,
    };
    let masquerade = Statement::Masquerade {
        fully_random: true,
        ports: Some(range("5000:5009")),
    };
    let tcp = Match::L4Proto {
        proto: Protocol::TCP,
        negate: false,
    };
    let nat = Base {
        kind: Kind::Nat,
        hook: Hook::Postrouting,
        priority: 110,
        policy: Policy::Accept,
    };
    let rules = vec![rule(vec![tcp, leaving], vec![masquerade], None)];
    t.set_chain(
        &chain("leave"),
        Chain {
            base: Some(nat),
            rules,
        },
    );
    lab.router
        .run(|| {
            let mut sys = Sys::open(table_name()).unwrap();
            t.adopt(sys.read().unwrap());
            assert!(sys.sync(&mut t).unwrap());
        })
        .unwrap();
    let open = serve(&lab.b, "10.0.2.1:8081");
    let to_8081 = Match::Ports {
        side: Side::Destination,
        ports: ports(&["8081"]),
        negate: false,
    };
    t.set_chain(
        &chain("pod-a"),
        Chain {
            base: None,
            rules: vec![rule(vec![to_8081], vec![], Some(Verdict::Accept))],
        },
    );
    lab.router
        .run(|| {
            let mut sys = Sys::open(table_name()).unwrap();
            t.adopt(sys.read().unwrap());
            assert!(sys.sync(&mut t).unwrap());
        })
        .unwrap();
    assert_eq!(exchange(&lab.a, &open), Some(ip("10.0.2.254")));

    // A pod that is gone: its entry leaves the map, its connections the table.
    let before = connections(&lab.router);
    assert!(
        before.iter().any(|l| l.contains("10.0.1.1")) && before.iter().any(|l| l.contains("fd00"))
    );
    let n = lab
        .router
        .run(|| {
            let mut sys = Sys::open(table_name()).unwrap();
            t.set_elems(&set("pods"), [], [at]).unwrap();
            t.adopt(sys.read().unwrap());
            assert!(sys.sync(&mut t).unwrap());
            conntrack::Conntrack::open()
                .unwrap()
                .flush(&[ip("10.0.1.1")])
                .unwrap()
        })
        .unwrap();
    assert!(n > 0);
    let after = connections(&lab.router);
    assert!(!after.iter().any(|l| l.contains("10.0.1.1")), "{after:?}");
    assert!(after.iter().any(|l| l.contains("fd00")), "others stay");
    assert_eq!(exchange(&lab.a, &open), None);
}

fn connections(ns: &NetNs) -> Vec<String> {
    ns.run(|| std::fs::read_to_string("/proc/thread-self/net/nf_conntrack").unwrap())
        .unwrap()
        .lines()
        .map(str::to_owned)
        .collect()
}

#[test]
fn a_forged_source_is_seen() {
    let lab = Lab::new();
    let mut t = Table::new(table_name());
    let rules = vec![
        rule(
            vec![Match::NfProto(V4), Match::RpfMissing],
            vec![Statement::Counter],
            Some(Verdict::Drop),
        ),
        rule(
            vec![Match::NfProto(V4)],
            vec![Statement::Counter, Statement::Notrack],
            None,
        ),
    ];
    let at = Base {
        priority: -300,
        ..base(Hook::Prerouting)
    };
    t.set_chain(
        &chain("raw"),
        Chain {
            base: Some(at),
            rules,
        },
    );
    lab.program(&mut t);
    lab.a
        .run(|| {
            Packet::Udp {
                v6: false,
                sport: 1,
                dport: 9,
            }
            .send()
        })
        .unwrap();
    lab.wait_for("the honest packet", |lab| lab.counts("raw") == [0, 1]);
    // An address of the other pod, on the interface of this one.
    sh(&lab.a, "ip addr add 10.0.2.1/32 dev eth0");
    lab.a
        .run(|| {
            let s = UdpSocket::bind("10.0.2.1:7").unwrap();
            s.send_to(b"x", "10.0.1.254:9").unwrap();
        })
        .unwrap();
    lab.wait_for("the forged packet", |lab| lab.counts("raw")[0] == 1);
}

#[test]
fn translation_limits_and_tracking() {
    let lab = Lab::new();
    let mut t = Table::new(table_name());
    let at = |kind, hook, priority| {
        Some(Base {
            kind,
            hook,
            priority,
            policy: Policy::Accept,
        })
    };
    let tcp = || Match::L4Proto {
        proto: Protocol::TCP,
        negate: false,
    };
    let udp = || Match::L4Proto {
        proto: Protocol::UDP,
        negate: false,
    };
    let port = |p: &str| Match::Ports {
        side: Side::Destination,
        ports: ports(&[p]),
        negate: false,
    };
    let to = |a: &str| Match::Addr {
        side: Side::Destination,
        nets: nets(&[a]),
        negate: false,
    };
    let dnat = |addr: &str| Statement::Dnat {
        addr: ip(addr),
        port: Some(8080),
    };
    let snat = |addr: &str| Statement::Snat {
        addr: ip(addr),
        ports: None,
    };
    t.set_chain(
        &chain("pre"),
        Chain {
            base: at(Kind::Nat, Hook::Prerouting, -110),
            rules: vec![
                rule(
                    vec![to("10.96.0.1"), tcp(), port("80")],
                    vec![dnat("10.0.2.1")],
                    None,
                ),
                rule(
                    vec![to("fd96::1"), tcp(), port("80")],
                    vec![dnat("fd00:2::1")],
                    None,
                ),
            ],
        },
    );
    // Each rule leaves the other family alone.
    t.set_chain(
        &chain("post"),
        Chain {
            base: at(Kind::Nat, Hook::Postrouting, 110),
            rules: vec![
                rule(vec![], vec![snat("fd00:2::fe")], None),
                rule(vec![], vec![snat("10.0.2.254")], None),
            ],
        },
    );
    let counted = |m| rule(m, vec![Statement::Counter], None);
    t.set_chain(
        &chain("forward"),
        Chain {
            base: at(Kind::Filter, Hook::Forward, 0),
            rules: vec![
                counted(vec![Match::CtDnat { negate: false }]),
                counted(vec![Match::CtDnat { negate: true }]),
                rule(
                    vec![tcp(), port("9999")],
                    vec![Statement::Reject(Reject::AdminProhibited)],
                    None,
                ),
            ],
        },
    );
    t.set_chain(
        &chain("raw"),
        Chain {
            base: at(Kind::Filter, Hook::Prerouting, -300),
            rules: vec![rule(vec![udp(), port("7")], vec![Statement::Notrack], None)],
        },
    );
    let limit = |over| Statement::Limit {
        rate: 1,
        per: Per::Hour,
        burst: 3,
        over,
    };
    let untracked = Match::CtState {
        states: CtState::UNTRACKED,
        negate: false,
    };
    t.set_chain(
        &chain("input"),
        Chain {
            base: at(Kind::Filter, Hook::Input, 0),
            rules: vec![
                counted(vec![udp(), untracked]),
                rule(vec![udp()], vec![limit(false), Statement::Counter], None),
                rule(vec![udp()], vec![limit(true), Statement::Counter], None),
                rule(vec![udp()], vec![Statement::Counter], Some(Verdict::Drop)),
            ],
        },
    );
    lab.program(&mut t);

    for (server, service, router) in [
        ("10.0.2.1:8080", "10.96.0.1:80", "10.0.2.254"),
        ("[fd00:2::1]:8080", "[fd96::1]:80", "fd00:2::fe"),
    ] {
        let (listener, _) = serve(&lab.b, server);
        let seen = exchange(&lab.a, &(listener, service.parse().unwrap()));
        assert_eq!(seen, Some(ip(router)), "{service}");
    }
    assert!(
        lab.counts("forward")[0] > 8,
        "packets of rewritten connections"
    );
    assert_eq!(lab.counts("forward")[1], 0);
    let refused = serve(&lab.b, "10.0.2.1:9999");
    let start = Instant::now();
    assert_eq!(exchange(&lab.a, &refused), None);
    assert!(
        start.elapsed() < Duration::from_millis(250),
        "answered, not dropped"
    );

    for (n, dport) in [9, 9, 9, 9, 9, 7, 7].into_iter().enumerate() {
        lab.a
            .run(|| {
                Packet::Udp {
                    v6: false,
                    sport: 1000 + n as u16,
                    dport,
                }
                .send()
            })
            .unwrap();
    }
    lab.wait_for("all seven", |lab| lab.counts("input")[3] == 7);
    // Untracked; within rate 0 and a burst of 3; above it.
    assert_eq!(lab.counts("input"), [2, 3, 4, 7]);
}
