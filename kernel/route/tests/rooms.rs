//! The room on the real kernel, read back through `ip`, in namespaces of our own. Wants
//! root, or a user namespace (`unshare -Urn cargo test`).

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

use net::{Cidr, Family, IfIndex};
use netlink::netns::NetNs;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use route::{
    Actual, Errno, Event, Handle, Hop, Kind, Monitor, Op, Ownership, Proto, Route, Scope, Seen,
    Table, plan,
};
use serde_json::Value;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

fn ip(s: &str) -> IpAddr {
    s.parse().unwrap()
}

fn cidr(s: &str) -> Cidr {
    s.parse().unwrap()
}

/// The independent writer and reader: `ip` inside a namespace.
fn iproute(ns: &NetNs, args: &str) -> Vec<Value> {
    let out = ns
        .command("ip")
        .unwrap()
        .arg("-j")
        .args(args.split(' '))
        .output()
        .unwrap();
    assert!(
        out.status.success(),
        "ip {args}: {}",
        String::from_utf8_lossy(&out.stderr)
    );
    if out.stdout.is_empty() {
        vec![]
    } else {
        serde_json::from_slice(&out.stdout).unwrap()
    }
}

/// A namespace with two interfaces, up, with addresses of both families.
struct Node {
    ns: NetNs,
    h: Handle,
    a: IfIndex,
    b: IfIndex,
}

fn node() -> Node {
    let ns = NetNs::new().unwrap();
    iproute(&ns, "link set lo up");
    iproute(&ns, "link add eth0 type veth peer name peer0");
    iproute(&ns, "link add eth1 type veth peer name peer1");
    for (i, dev) in ["eth0", "eth1", "peer0", "peer1"].into_iter().enumerate() {
        iproute(&ns, &format!("link set {dev} addrgenmode none up"));
        if i < 2 {
            iproute(&ns, &format!("addr add 192.0.{i}.1/24 dev {dev}"));
            iproute(&ns, &format!("addr add 2001:db8:{i}::1/64 dev {dev} nodad"));
        }
    }
    let index = |dev: &str| {
        let shown = iproute(&ns, &format!("link show {dev}"));
        IfIndex::new(shown[0]["ifindex"].as_u64().unwrap() as u32).unwrap()
    };
    let (a, b) = (index("eth0"), index("eth1"));
    Node {
        h: Handle::open_in(&ns).unwrap(),
        ns,
        a,
        b,
    }
}

fn ours() -> Ownership {
    Ownership::of_proto(Proto::OURS)
}

/// Applies and checks that nothing is left to do, for both families.
fn converge(n: &mut Node, table: Table, own: &Ownership, want: &[Route]) -> Vec<Op> {
    let mut done = Vec::new();
    for family in Family::BOTH {
        let part: Vec<_> = want.iter().filter(|r| r.family() == family).collect();
        let before = n.h.read(table, family, own).unwrap();
        let todo = plan(&before, part.iter().copied());
        assert_eq!(n.h.apply(&todo), [], "\nbefore {before:#?}");
        let after = n.h.read(table, family, own).unwrap();
        let left = plan(&after, part.iter().copied());
        assert!(left.ops.is_empty(), "{:#?}\nafter {after:#?}", left.ops);
        done.extend(todo.ops);
    }
    done
}

#[test]
fn every_kind_is_written_and_read_alike() {
    let mut n = node();
    let (a, t, p) = (n.a, Table::MAIN, Proto::OURS);
    let r = |dst: &str, hop: Hop| Route::unicast(t, cidr(dst), hop, p);
    let two = |x: Hop, y: Hop| [Hop { weight: 3, ..x }, y].into_iter().collect();
    let mut ecmp4 = r("10.0.6.0/24", Hop::via(ip("192.0.0.9"), a));
    ecmp4.hops = two(ecmp4.hops[0], Hop::onlink(ip("192.0.1.9"), n.b));
    let mut ecmp6 = r("fd00:6::/64", Hop::via(ip("2001:db8::9"), a));
    ecmp6.hops = two(ecmp6.hops[0], Hop::via(ip("2001:db8:1::9"), n.b));
    let want: Vec<Route> = vec![
        r("10.0.1.1/32", Hop::dev(a)),
        r("10.0.1.1/32", Hop::dev(n.b)).with_metric(1024),
        r("10.0.2.0/26", Hop::onlink(ip("10.99.0.1"), a)),
        r("10.0.3.0/26", Hop::via(ip("192.0.0.7"), a)).with_src(ip("192.0.0.1")),
        r("10.0.4.0/24", Hop::via(ip("2001:db8::7"), a)),
        r("0.0.0.0/0", Hop::via(ip("192.0.0.254"), a)).with_metric(77),
        Route::dead_end(t, cidr("10.0.5.0/26"), Kind::Blackhole, p),
        Route::dead_end(t, cidr("10.0.5.64/26"), Kind::Throw, p),
        Route::dead_end(t, cidr("10.0.5.128/26"), Kind::Unreachable, p),
        Route::dead_end(t, cidr("10.0.5.192/26"), Kind::Prohibit, p),
        ecmp4.normal(),
        r("fd00:1::1/128", Hop::dev(a)),
        r("fd00:1::1/128", Hop::dev(n.b)).with_metric(512),
        r("fd00:2::/122", Hop::onlink(ip("fd99::1"), a)),
        r("fd00:3::/122", Hop::via(ip("2001:db8::7"), a)).with_src(ip("2001:db8::1")),
        r("::/0", Hop::via(ip("fe80::1"), a)),
        Route::dead_end(t, cidr("fd00:5::/122"), Kind::Blackhole, p),
        Route::dead_end(t, cidr("fd00:5::40/122"), Kind::Throw, p),
        ecmp6.normal(),
    ];
    let ops = converge(&mut n, t, &ours(), &want);
    assert_eq!(ops.len(), want.len());

    let shown = iproute(&n.ns, "-d -4 route show proto 80");
    let find = |dst: &str| {
        shown
            .iter()
            .find(|r| r["dst"] == dst)
            .unwrap_or_else(|| panic!("{dst}"))
    };
    assert_eq!(find("10.0.5.0/26")["type"], "blackhole");
    assert_eq!(find("10.0.2.0/26")["flags"][0], "onlink");
    assert_eq!(find("10.0.2.0/26")["gateway"], "10.99.0.1");
    assert_eq!(
        (&find("10.0.1.1")["scope"], &find("10.0.1.1")["dev"]),
        (&"link".into(), &"eth0".into())
    );
    assert_eq!(find("10.0.3.0/26")["prefsrc"], "192.0.0.1");
    assert_eq!(find("default")["metric"], 77);
    assert_eq!(find("10.0.4.0/24")["via"]["host"], "2001:db8::7");
    assert_eq!(find("10.0.6.0/24")["nexthops"].as_array().unwrap().len(), 2);
    assert_eq!(iproute(&n.ns, "-6 route show proto 80").len(), 8);

    // And all of it goes again, leaving what is not ours.
    converge(&mut n, t, &ours(), &[]);
    assert!(iproute(&n.ns, "route show proto 80").is_empty());
    assert!(iproute(&n.ns, "-6 route show proto 80").is_empty());
    assert!(!iproute(&n.ns, "route show proto kernel").is_empty());
}

#[test]
fn other_tables_are_as_good_and_may_not_exist() {
    let mut n = node();
    for table in [Table(7), Table(70_000)] {
        assert_eq!(n.h.list(table, Family::V4).unwrap(), []);
        let dst = cidr("10.5.0.0/16");
        let want = [
            Route::unicast(table, dst, Hop::dev(n.a), Proto::OURS),
            Route::dead_end(table, cidr("fd00::/64"), Kind::Throw, Proto::OURS),
        ];
        converge(&mut n, table, &ours(), &want);
        assert_eq!(
            iproute(&n.ns, &format!("route show table {}", table.0)).len(),
            1
        );
        assert_eq!(n.h.list(Table::MAIN, Family::V4).unwrap().len(), 2);
    }
}

#[test]
fn foreign_routes_stay_and_conflicts_are_named() {
    let mut n = node();
    let gone = [
        ("10.1.0.0/24", "route add 10.1.0.0/24 dev eth1 proto static"),
        (
            "fd00:1::/64",
            "-6 route add fd00:1::/64 dev eth1 proto static metric 1024",
        ),
    ];
    for (dst, add) in gone {
        iproute(&n.ns, add);
        let want = Route::unicast(Table::MAIN, cidr(dst), Hop::dev(n.a), Proto::OURS);
        let other = Route::unicast(
            Table::MAIN,
            if want.family() == Family::V4 {
                cidr("10.2.0.0/24")
            } else {
                cidr("fd00:2::/64")
            },
            Hop::dev(n.a),
            Proto::OURS,
        );
        let before = n.h.read(Table::MAIN, want.family(), &ours()).unwrap();
        assert!(before.ours.is_empty() && before.foreign.contains(&want.key));
        let failures = n.h.apply(&plan(&before, [&want, &other]));
        assert_eq!(failures.len(), 1, "{failures:?}");
        assert!(failures[0].error.is(Errno::EEXIST));
        assert!(
            failures[0].error.to_string().contains(dst),
            "{}",
            failures[0].error
        );
        assert_eq!(
            n.h.read(Table::MAIN, want.family(), &ours()).unwrap().ours,
            std::slice::from_ref(&other)
        );
        // The other goes, ours comes.
        iproute(&n.ns, &add.replace(" add ", " del "));
        converge(&mut n, Table::MAIN, &ours(), &[want, other]);
    }
}

#[test]
fn a_claimed_interface_owns_what_others_put_there() {
    let mut n = node();
    iproute(&n.ns, "route add 10.65.0.2/32 dev eth1 proto boot");
    iproute(&n.ns, "route add 10.65.0.9/32 dev eth1 proto static");
    iproute(&n.ns, "route add 10.65.0.3/32 dev eth0 proto boot");
    let own = ours().and_devices([n.b].into(), None);
    let cni = Route::unicast(
        Table::MAIN,
        cidr("10.65.0.2/32"),
        Hop::dev(n.b),
        Proto::BOOT,
    );
    let ops = converge(&mut n, Table::MAIN, &own, std::slice::from_ref(&cni));
    assert_eq!(ops.len(), 1, "adopts the one, removes the other: {ops:?}");
    assert!(iproute(&n.ns, "route show 10.65.0.9").is_empty());
    assert_eq!(iproute(&n.ns, "route show 10.65.0.3").len(), 1);
    assert!(!iproute(&n.ns, "route show dev eth1 proto kernel").is_empty());
}

#[test]
fn several_own_routes_of_one_key_become_the_one() {
    let mut n = node();
    for args in [
        "route append 10.3.0.0/24 via 192.0.0.5 dev eth0 proto 80",
        "route append 10.3.0.0/24 via 192.0.0.6 dev eth0 proto 80",
        "route append 10.3.0.0/24 via 192.0.1.6 dev eth1 proto 80",
        "-6 route add fd00:3::/64 dev eth0 proto 80",
        "-6 route append fd00:3::/64 dev eth1 proto 80",
    ] {
        iproute(&n.ns, args);
    }
    let t = Table::MAIN;
    let want = [
        Route::unicast(
            t,
            cidr("10.3.0.0/24"),
            Hop::via(ip("192.0.0.6"), n.a),
            Proto::OURS,
        ),
        Route::unicast(t, cidr("fd00:3::/64"), Hop::dev(n.b), Proto::OURS),
    ];
    converge(&mut n, t, &ours(), &want);
    let want = [
        Route::unicast(t, cidr("10.3.0.0/24"), Hop::dev(n.b), Proto::OURS),
        Route::unicast(
            t,
            cidr("fd00:3::/64"),
            Hop::via(ip("2001:db8::5"), n.a),
            Proto::OURS,
        ),
    ];
    converge(&mut n, t, &ours(), &want);
}

fn any_route(a: IfIndex, b: IfIndex) -> impl Strategy<Value = Route> {
    (any::<bool>(), 0u8..4, 0u32..2, 0u8..7, any::<bool>()).prop_map(
        move |(v6, i, metric, kind, second)| {
            let (dev, n) = if second { (b, 1) } else { (a, 0) };
            let (dst, gw, src) = if v6 {
                (
                    format!("fd00:{i}::/64"),
                    format!("2001:db8:{n}::7"),
                    "2001:db8::1",
                )
            } else {
                (
                    format!("10.0.{i}.0/24"),
                    format!("192.0.{n}.7"),
                    "192.0.0.1",
                )
            };
            let (t, dst, gw, p) = (Table::MAIN, cidr(&dst), ip(&gw), Proto::OURS);
            match kind {
                0 => Route::unicast(t, dst, Hop::dev(dev), p),
                1 => Route::unicast(t, dst, Hop::via(gw, dev), p),
                2 => Route::unicast(t, dst, Hop::onlink(gw, dev), p),
                3 => Route::unicast(t, dst, Hop::dev(dev), p).with_src(ip(src)),
                4 => Route::dead_end(t, dst, Kind::Throw, p),
                5 => Route::dead_end(t, dst, Kind::Unreachable, p),
                _ => Route::dead_end(t, dst, Kind::Blackhole, p),
            }
            .with_metric(metric * 100)
        },
    )
}

/// The kernel is the model: whatever table it is in, it gets to whatever is wanted.
#[test]
fn the_kernel_gets_from_any_table_to_any_other() {
    let mut n = node();
    let one = prop::collection::vec(any_route(n.a, n.b), 0..10);
    let mut runner = TestRunner::deterministic();
    for _ in 0..150 {
        let tree = one.new_tree(&mut runner).unwrap();
        let want: BTreeMap<_, _> = tree.current().into_iter().map(|r| (r.key, r)).collect();
        let want: Vec<_> = want.into_values().collect();
        converge(&mut n, Table::MAIN, &ours(), &want);
        let mut held: Vec<Route> = Vec::new();
        for family in Family::BOTH {
            held.extend(n.h.read(Table::MAIN, family, &ours()).unwrap().ours);
        }
        held.sort();
        assert_eq!(held, want);
    }
}

#[test]
fn one_bad_route_does_not_stop_the_others() {
    let mut n = node();
    let t = Table::MAIN;
    let nowhere = Route::unicast(
        t,
        cidr("10.4.0.0/24"),
        Hop::via(ip("203.0.113.1"), n.a),
        Proto::OURS,
    );
    let ghost = IfIndex::new(4711).unwrap();
    let no_dev = Route::unicast(t, cidr("10.4.1.0/24"), Hop::dev(ghost), Proto::OURS);
    let good = Route::unicast(t, cidr("10.4.2.0/24"), Hop::dev(n.a), Proto::OURS);
    let failures =
        n.h.apply(&plan(&Actual::default(), [&nowhere, &no_dev, &good]));
    let texts: Vec<_> = failures.iter().map(|f| f.error.to_string()).collect();
    assert_eq!(texts.len(), 2, "{texts:?}");
    assert!(
        texts
            .iter()
            .any(|t| t.contains("10.4.0.0/24") && t.contains("invalid gateway")),
        "{texts:?}"
    );
    assert!(
        texts
            .iter()
            .any(|t| t.contains("10.4.1.0/24") && t.contains("ENODEV")),
        "{texts:?}"
    );
    assert_eq!(
        n.h.read(t, Family::V4, &ours()).unwrap().ours,
        std::slice::from_ref(&good)
    );
    n.h.delete(&no_dev).unwrap();
    n.h.delete(&good).unwrap();
    n.h.delete(&good).unwrap();
    assert!(n.h.install(&good, false).is_ok());
    assert!(n.h.install(&good, false).unwrap_err().is(Errno::EEXIST));
    assert!(n.h.install(&good, true).is_ok());
}

#[test]
fn the_monitor_tells_what_happens() {
    let mut n = node();
    let mut m = Monitor::open_in(&n.ns).unwrap();
    let mut seen = Vec::new();
    let mut until = |wanted: Event| {
        let deadline = Instant::now() + Duration::from_secs(5);
        while let Some(e) = m.next_before(deadline).unwrap() {
            if e == wanted {
                return;
            }
            seen.push(e);
        }
        panic!("no {wanted:?}; seen {seen:#?}");
    };
    for (dst, gw) in [("10.6.0.0/24", "192.0.0.7"), ("fd00:6::/64", "2001:db8::7")] {
        let r = Route::unicast(Table(9), cidr(dst), Hop::via(ip(gw), n.a), Proto::OURS);
        n.h.install(&r, false).unwrap();
        until(Event::Route(r.clone()));
        n.h.delete(&r).unwrap();
        until(Event::Gone(r));
    }
}

#[test]
fn an_interface_going_down_takes_its_routes_along() {
    // Why the dataplane reads routes again on link events: IPv4 does not tell.
    let mut n = node();
    let r = Route::unicast(Table::MAIN, cidr("10.7.0.1/32"), Hop::dev(n.a), Proto::OURS);
    converge(&mut n, Table::MAIN, &ours(), std::slice::from_ref(&r));
    let mut m = Monitor::open_in(&n.ns).unwrap();
    iproute(&n.ns, "link set eth0 down");
    assert_eq!(n.h.read(Table::MAIN, Family::V4, &ours()).unwrap().ours, []);
    let mut told = false;
    while let Some(e) = m.try_next().unwrap() {
        told |= e == Event::Gone(r.clone());
    }
    assert!(
        !told,
        "the kernel has learnt to tell: simplify the dataplane"
    );
    let failures = n.h.apply(&plan(&Actual::default(), [&r]));
    assert!(failures[0].error.is(Errno::ENETDOWN), "{failures:?}");
}

#[tokio::test(flavor = "current_thread")]
async fn the_monitor_can_be_awaited() {
    let mut n = node();
    let mut m = Monitor::open_in(&n.ns).unwrap();
    let r = Route::dead_end(
        Table::MAIN,
        cidr("10.8.0.0/26"),
        Kind::Blackhole,
        Proto::OURS,
    );
    assert_eq!(r.scope, Scope::Universe);
    n.h.install(&r, false).unwrap();
    let wait = async { while m.next().await.unwrap() != Event::Route(r.clone()) {} };
    tokio::time::timeout(Duration::from_secs(5), wait)
        .await
        .unwrap();
}

/// Figures; run with `--nocapture`.
#[test]
fn ten_thousand_routes() {
    let mut n = node();
    for family in Family::BOTH {
        let (base, gw) = match family {
            Family::V4 => (cidr("10.128.0.0/9"), ip("192.0.0.7")),
            Family::V6 => (cidr("fd00::/100"), ip("2001:db8::7")),
        };
        let len = if family == Family::V4 { 26 } else { 122 };
        let want: Vec<_> = (0..10_000)
            .map(|i| base.subnet(len, i).unwrap())
            .map(|dst| Route::unicast(Table::MAIN, dst, Hop::onlink(gw, n.a), Proto::OURS))
            .collect();
        let t = Instant::now();
        let todo = plan(&Actual::default(), &want);
        let planned = t.elapsed();
        let t = Instant::now();
        assert_eq!(n.h.apply(&todo), []);
        let applied = t.elapsed();
        let t = Instant::now();
        let actual = n.h.read(Table::MAIN, family, &ours()).unwrap();
        let read = t.elapsed();
        assert_eq!(actual.ours.len(), want.len());
        let t = Instant::now();
        assert!(plan(&actual, &want).ops.is_empty());
        let idle = t.elapsed();
        eprintln!(
            "{family:?}: 10,000 routes planned {planned:?}, applied {applied:?}, read {read:?}, \
             nothing to do {idle:?}"
        );
    }
}

#[test]
fn what_one_writes_oneself_is_not_told() {
    let mut n = node();
    let mut monitor = Monitor::open_in(&n.ns).unwrap();
    monitor.ignore(&n.h).unwrap();
    // Far more than the queue of notifications holds.
    let hop = Hop::via(ip("192.0.0.7"), n.a);
    let add = |i: u32| {
        let dst = Cidr::new(IpAddr::from((0x1000_0000 + (i << 8)).to_be_bytes()), 24).unwrap();
        Op::Add(Route::unicast(Table::MAIN, dst, hop, Proto::BIRD))
    };
    let ops: Vec<Op> = (0..60_000).map(add).collect();
    let delete = |o: &Op| Op::Delete(o.route().clone());
    let gone = ops.iter().map(delete).collect();
    assert_eq!(n.h.apply(&route::Plan { ops }), []);
    assert_eq!(n.h.apply(&route::Plan { ops: gone }), []);
    // Another's routes are, and so is what the kernel does to ours.
    let ours = Route::unicast(Table::MAIN, cidr("fd00:1::/64"), Hop::dev(n.a), Proto::BIRD);
    n.h.install(&ours, false).unwrap();
    iproute(&n.ns, "route add 10.0.9.0/24 via 192.0.0.9 proto 12");
    iproute(&n.ns, "link set eth0 down");
    let mut told = Vec::new();
    let deadline = Instant::now() + Duration::from_secs(20);
    while let Some(event) = monitor.next_before(deadline).unwrap() {
        let last = matches!(&event, Event::Gone(r) if r.key == ours.key);
        told.push(event);
        if last {
            break;
        }
    }
    assert!(
        matches!(&told[0], Event::Route(r) if r.key.dst == cidr("10.0.9.0/24")),
        "{told:?}"
    );
    assert!(
        matches!(told.last(), Some(Event::Gone(r)) if r.key == ours.key),
        "{told:?}"
    );
}

#[test]
fn a_table_is_visited_without_being_held() {
    let mut n = node();
    let blackhole = |i: u8| {
        let dst = Cidr::new(IpAddr::from([10, 0, i, 0]), 24).unwrap();
        Op::Add(Route::dead_end(
            Table::MAIN,
            dst,
            Kind::Blackhole,
            Proto::OURS,
        ))
    };
    let ops = (0..=255).map(blackhole).collect();
    assert_eq!(n.h.apply(&route::Plan { ops }), []);
    let mut seen = Vec::new();
    let each = |s| match s {
        Seen::Begin => seen.push(Vec::new()),
        Seen::Route(r) => seen.last_mut().unwrap().push(r),
    };
    n.h.visit(Table::MAIN, Family::V4, each).unwrap();
    assert_eq!(seen.len(), 1);
    assert_eq!(
        seen[0],
        n.h.list(Table::MAIN, Family::V4).unwrap(),
        "two ways to read"
    );
    assert!(seen[0].len() > 256);
    let mut none = Vec::new();
    n.h.visit(Table(4711), Family::V6, |s| none.push(s))
        .unwrap();
    assert_eq!(none, [Seen::Begin]);
}

#[test]
fn the_route_to_an_address_is_looked_up() {
    let mut n = node();
    iproute(&n.ns, "route add 10.0.9.0/24 via 192.0.0.9 proto 12");
    iproute(&n.ns, "route add 10.0.9.128/25 via 192.0.1.9 proto 12");
    let mut find = |to: &str| n.h.lookup(ip(to)).unwrap();
    let found = find("10.0.9.7").unwrap();
    assert_eq!(found.key.dst, cidr("10.0.9.0/24"));
    assert_eq!(found.hops[0].gateway, Some(ip("192.0.0.9")));
    assert_eq!(find("10.0.9.200").unwrap().key.dst, cidr("10.0.9.128/25"));
    let six = find("2001:db8:1::77").unwrap();
    assert_eq!(six.key.dst, cidr("2001:db8:1::/64"));
    assert_eq!(find("10.0.10.1"), None);
    assert_eq!(find("fd00::1"), None);
}
