//! What is written, step by step; against a kernel that is a list.

use super::*;
use route::{Op, Table as Number};

fn ip(s: &str) -> IpAddr {
    s.parse().expect("an address")
}

fn cidr(s: &str) -> Cidr {
    s.parse().expect("a prefix")
}

fn dev() -> IfIndex {
    IfIndex::new(1).expect("not 0")
}

/// A table and a kernel that does as it is told.
struct World {
    table: Table,
    kernel: Vec<Route>,
    written: Vec<String>,
}

fn world() -> World {
    let mut table = Table::new(Proto::BIRD, 7);
    let link = Hop::dev(dev());
    table.ways.insert(Route::unicast(
        Number::MAIN,
        cidr("10.0.0.0/24"),
        link,
        Proto::KERNEL,
    ));
    World {
        table,
        kernel: Vec::new(),
        written: Vec::new(),
    }
}

impl World {
    fn want(&mut self, prefix: &str, hops: &[&str], metric: u32) {
        for h in hops {
            self.table.track(ip(h), true);
        }
        self.table.settle();
        let gates = hops.iter().map(|h| Gate::of(ip(h))).collect();
        let want = (!hops.is_empty()).then_some((gates, metric));
        self.table.change(Change {
            prefix: cidr(prefix),
            want,
        });
    }

    fn read(&mut self) {
        self.table.look(Family::V4);
        for r in &self.kernel {
            self.table.seen(r.clone());
        }
        self.table.looked(Family::V4);
    }

    fn write(&mut self) -> Vec<String> {
        self.table.settle();
        let mut told = Vec::new();
        let mut ops = Vec::new();
        self.table.steps(usize::MAX, &mut ops, |_| {});
        for op in ops {
            let key = op.route().key;
            match &op {
                Op::Add(r) => {
                    assert!(!self.kernel.iter().any(|k| k.key == key), "{op:?}");
                    self.kernel.push(r.clone());
                    told.push(format!("add {r}"));
                }
                Op::Replace(r) => {
                    let old = self.kernel.iter_mut().find(|k| k.key == key);
                    *old.expect("something to replace") = r.clone();
                    told.push(format!("replace {r}"));
                }
                Op::Delete(r) => {
                    let at = self.kernel.iter().position(|k| k == r);
                    self.kernel.remove(at.expect("something to remove"));
                    told.push(format!("remove {r}"));
                }
            }
        }
        self.written.clone_from(&told);
        told
    }
}

#[test]
fn a_route_changes_in_place_and_its_metric_without_a_gap() {
    let mut w = world();
    w.want("192.0.2.0/24", &["10.0.0.2"], 100);
    assert_eq!(
        w.write(),
        ["add 192.0.2.0/24 via 10.0.0.2 dev 1 metric 100"]
    );
    w.want("192.0.2.0/24", &["10.0.0.2"], 100);
    assert!(w.write().is_empty());
    w.want("192.0.2.0/24", &["10.0.0.2", "10.0.0.3"], 100);
    assert_eq!(
        w.write(),
        ["replace 192.0.2.0/24 via 10.0.0.2 dev 1 via 10.0.0.3 dev 1 metric 100"]
    );
    w.want("192.0.2.0/24", &["10.0.0.3"], 50);
    assert_eq!(
        w.write(),
        [
            "add 192.0.2.0/24 via 10.0.0.3 dev 1 metric 50",
            "remove 192.0.2.0/24 via 10.0.0.2 dev 1 via 10.0.0.3 dev 1 metric 100"
        ]
    );
    w.want("192.0.2.0/24", &[], 0);
    assert_eq!(
        w.write(),
        ["remove 192.0.2.0/24 via 10.0.0.3 dev 1 metric 50"]
    );
    assert!(w.kernel.is_empty());
    assert!(w.table.rows.is_empty());
    assert_eq!(
        w.table.forms.iter().count() + w.table.wants.iter().count(),
        0
    );
}

#[test]
fn a_way_that_is_lost_takes_no_route_along_before_the_router_says_so() {
    let mut w = world();
    w.want("192.0.2.0/24", &["10.0.0.2"], 100);
    w.write();
    let link = w.table.ways.routes_to(cidr("10.0.0.0/24"))[0].clone();
    w.table.ways.remove(&link);
    w.table.doubt(cidr("10.0.0.0/24"));
    assert_eq!(w.table.settle(), [(ip("10.0.0.2"), None)]);
    assert!(w.write().is_empty());
    w.want("192.0.2.0/24", &[], 0);
    assert_eq!(w.write().len(), 1);
}

#[test]
fn what_was_there_is_kept_until_the_others_have_told_all() {
    let mut w = world();
    let left = |p: &str| {
        Route::unicast(
            Number::MAIN,
            cidr(p),
            Hop::via(ip("10.0.0.2"), dev()),
            Proto::BIRD,
        )
        .with_metric(100)
    };
    w.kernel = vec![left("192.0.2.0/24"), left("198.51.100.0/24")];
    w.read();
    assert!(w.table.adopted(Family::V4) && !w.table.adopted(Family::V6));
    assert!(w.write().is_empty());
    w.want("192.0.2.0/24", &["10.0.0.2"], 100);
    assert!(w.write().is_empty());
    w.table.converge(Family::V6);
    assert!(w.write().is_empty());
    w.table.converge(Family::V4);
    assert_eq!(
        w.write(),
        ["remove 198.51.100.0/24 via 10.0.0.2 dev 1 metric 100"]
    );
}

#[test]
fn two_of_one_prefix_are_left_as_one() {
    let mut w = world();
    let left = |metric| {
        let hop = Hop::via(ip("10.0.0.2"), dev());
        Route::unicast(Number::MAIN, cidr("192.0.2.0/24"), hop, Proto::BIRD).with_metric(metric)
    };
    w.kernel = vec![left(100), left(50)];
    w.read();
    w.want("192.0.2.0/24", &["10.0.0.2"], 100);
    w.write();
    w.table.converge(Family::V4);
    w.write();
    assert_eq!(w.kernel, [left(100)]);
}

#[test]
fn nothing_is_written_where_others_have_the_say() {
    let mut w = world();
    w.table.set_refuse(vec![cidr("10.96.0.0/12")]);
    w.want("10.96.1.0/24", &["10.0.0.2"], 100);
    w.want("192.0.2.0/24", &["10.0.0.2"], 100);
    assert_eq!(w.write().len(), 1);
    w.table.set_refuse(vec![cidr("192.0.2.0/24")]);
    w.write();
    w.table.hand_over();
    w.write();
    let held: Vec<_> = w.kernel.iter().map(|r| r.key.dst).collect();
    assert_eq!(held, [cidr("10.96.1.0/24")]);
    w.table.forget();
    w.write();
    assert!(w.kernel.is_empty());
}

#[test]
fn a_table_that_is_read_again_costs_only_what_has_changed() {
    let mut w = world();
    for i in 0..100 {
        w.want(&format!("192.0.{i}.0/24"), &["10.0.0.2"], 100);
    }
    assert_eq!(w.write().len(), 100);
    w.read();
    assert_eq!(w.table.waiting(), 0);
    let lost = w.kernel.remove(7);
    w.kernel[0].hops[0].gateway = Some(ip("10.0.0.9"));
    // The first reading was cut short: it does not count.
    w.table.look(Family::V4);
    w.table.seen(lost.clone());
    w.read();
    assert_eq!(w.table.waiting(), 2);
    let mut written = w.write();
    written.sort();
    assert_eq!(written.len(), 2);
    assert_eq!(written[0], format!("add {lost}"));
    assert!(written[1].starts_with("replace 192.0.0.0/24 via 10.0.0.2"));
}

#[test]
fn strays_wait_without_keeping_anybody_busy() {
    let mut w = world();
    let left = |metric| {
        let hop = Hop::via(ip("10.0.0.2"), dev());
        Route::unicast(Number::MAIN, cidr("192.0.2.0/24"), hop, Proto::BIRD).with_metric(metric)
    };
    w.kernel = vec![left(100), left(50)];
    w.read();
    w.write();
    assert_eq!(w.table.waiting(), 0);
    w.table.converge(Family::V4);
    assert_eq!(w.table.waiting(), 2);
}

fn tunnelled(range: &str, except: Option<&str>) -> Tunnelled {
    Tunnelled {
        range: cidr(range),
        except: except.map(cidr),
    }
}

#[test]
fn pools_with_ip_in_ip_lead_through_the_tunnel_device() {
    let mut w = world();
    w.table.ways.insert(Route::unicast(
        Number::MAIN,
        cidr("0.0.0.0/0"),
        Hop::via(ip("10.0.0.254"), dev()),
        Proto::STATIC,
    ));
    let always = tunnelled("10.65.0.0/16", None);
    let cross = tunnelled("10.66.0.0/16", Some("10.0.0.0/24"));
    w.table.set_tunnelled(vec![always.clone(), cross]);
    w.want("10.65.1.0/26", &["10.0.0.2"], 100);
    w.want("10.66.1.0/26", &["10.0.0.2"], 100);
    w.want("10.66.2.0/26", &["10.9.0.2"], 100);
    w.want("192.0.2.0/24", &["10.9.0.2"], 100);
    let plain = [
        "add 10.66.1.0/26 via 10.0.0.2 dev 1 metric 100",
        "add 192.0.2.0/24 via 10.0.0.254 dev 1 metric 100",
    ];
    assert_eq!(w.write(), plain);
    assert!(w.table.lacks_tunnel());
    w.table.set_tunnel(IfIndex::new(5));
    assert!(!w.table.lacks_tunnel());
    let mut through = w.write();
    through.sort();
    let wanted = [
        "add 10.65.1.0/26 via 10.0.0.2 dev 5 metric 100",
        "add 10.66.2.0/26 via 10.9.0.2 dev 5 metric 100",
    ];
    assert_eq!(through, wanted);
    let by_tunnel = |r: &&Route| r.hops[0].dev == IfIndex::new(5);
    assert!(w.kernel.iter().filter(by_tunnel).all(|r| r.hops[0].onlink));
    // Several next hops share the traffic without it.
    w.want("10.65.1.0/26", &["10.0.0.2", "10.0.0.3"], 100);
    assert_eq!(
        w.write(),
        ["replace 10.65.1.0/26 via 10.0.0.2 dev 1 via 10.0.0.3 dev 1 metric 100"]
    );
    // The pool of the other has no tunnel any more.
    w.table.set_tunnelled(vec![always]);
    assert_eq!(
        w.write(),
        ["replace 10.66.2.0/26 via 10.0.0.254 dev 1 metric 100"]
    );
}

#[test]
fn link_local_next_hops_are_on_the_link_of_a_peer() {
    let mut w = world();
    let (one, two) = (dev(), IfIndex::new(2).expect("not 0"));
    for (net, dev) in [
        ("fe80::/64", one),
        ("fd00::/64", one),
        ("fe80::/64", two),
        ("fd01::/64", two),
    ] {
        let link = Route::unicast(Number::MAIN, cidr(net), Hop::dev(dev), Proto::KERNEL);
        w.table.ways.insert(link);
    }
    w.table.track(ip("fe80::7"), true);
    assert_eq!(w.table.settle(), []);
    w.table.set_peers([ip("fd01::7")]);
    let told = |w: &mut World| {
        let moved = w.table.settle().into_iter();
        let of = moved.filter(|(a, _)| *a == ip("fe80::7"));
        Vec::from_iter(of.map(|(_, way)| way.map(|w| w.hops.len())))
    };
    assert_eq!(told(&mut w), [Some(1)]);
    w.want("2001:db8::/48", &["fe80::7"], 100);
    assert_eq!(
        w.write(),
        ["add 2001:db8::/48 via fe80::7 dev 2 metric 100"]
    );
    // With peers on two links the one that told it decides.
    w.table.set_peers([ip("fd00::7"), ip("fd01::7")]);
    assert_eq!(told(&mut w), [Some(2)]);
    assert!(w.write().is_empty());
    let gate = Gate {
        addr: ip("fe80::7"),
        beside: Some(ip("fd00::7")),
    };
    w.table.change(Change {
        prefix: cidr("2001:db8::/48"),
        want: Some((NextHops::from_iter([gate]), 100)),
    });
    assert_eq!(
        w.write(),
        ["replace 2001:db8::/48 via fe80::7 dev 1 metric 100"]
    );
    w.table.set_peers([]);
    assert_eq!(told(&mut w), [None]);
}

#[test]
fn the_way_to_a_peer_is_told_when_a_route_needs_it() {
    let mut w = world();
    w.table.set_peers([ip("10.0.0.2")]);
    let of = |w: &mut World| Vec::from_iter(w.table.settle().into_iter().map(|(a, _)| a));
    assert_eq!(of(&mut w), [ip("10.0.0.2")]);
    w.table.track(ip("10.0.0.2"), true);
    assert_eq!(of(&mut w), [ip("10.0.0.2")]);
    assert_eq!(of(&mut w), Vec::<IpAddr>::new());
}

fn other(prefix: &str) -> Route {
    let via = Hop::dev(IfIndex::new(9).expect("not 0"));
    Route::unicast(Number::MAIN, cidr(prefix), via, Proto::OURS)
}

#[test]
fn what_is_refused_from_now_on_falls_behind_until_somebody_elses_is_there() {
    let mut w = world();
    w.want("10.2.0.0/24", &["10.0.0.2"], 100);
    w.want("10.2.1.0/24", &["10.0.0.2"], 100);
    w.want("10.3.0.0/24", &["10.0.0.2"], 100);
    w.write();
    assert!(w.table.set_refuse(vec![cidr("10.2.0.0/16")]));
    let behind = "via 10.0.0.2 dev 1 metric 4294967294";
    let moved = [
        format!("add 10.2.0.0/24 {behind}"),
        "remove 10.2.0.0/24 via 10.0.0.2 dev 1 metric 100".to_owned(),
        format!("add 10.2.1.0/24 {behind}"),
        "remove 10.2.1.0/24 via 10.0.0.2 dev 1 metric 100".to_owned(),
    ];
    assert_eq!(w.write(), moved);
    // A change meanwhile is followed; what nobody tells any more goes at once.
    w.want("10.2.1.0/24", &["10.0.0.3"], 100);
    let there = "replace 10.2.1.0/24 via 10.0.0.3 dev 1 metric 4294967294";
    assert_eq!(w.write(), [there]);
    w.table.ways.insert(other("10.2.0.0/24"));
    w.table.met(cidr("10.2.0.0/24"));
    assert_eq!(w.write(), [format!("remove 10.2.0.0/24 {behind}")]);
    w.want("10.2.1.0/24", &[], 0);
    assert_eq!(w.write().len(), 1);
    assert_eq!(w.kernel.len(), 1);
    // What comes later is refused as ever, and whose time is over goes.
    w.want("10.2.2.0/24", &["10.0.0.2"], 100);
    assert!(w.write().is_empty());
    assert!(!w.table.set_refuse(vec![cidr("10.2.0.0/17")]));
    assert!(w.table.set_refuse(vec![cidr("10.3.0.0/16")]));
    assert_eq!(w.write().len(), 4);
    w.table.hand_over();
    assert_eq!(w.write(), [format!("remove 10.3.0.0/24 {behind}")]);
}

#[test]
fn what_is_refused_for_a_moment_only_comes_back_without_a_gap() {
    let mut w = world();
    w.want("10.2.0.0/24", &["10.0.0.2"], 100);
    w.write();
    assert!(w.table.set_refuse(vec![cidr("10.2.0.0/16")]));
    w.write();
    assert!(!w.table.set_refuse(Vec::new()));
    assert_eq!(
        w.write(),
        [
            "add 10.2.0.0/24 via 10.0.0.2 dev 1 metric 100",
            "remove 10.2.0.0/24 via 10.0.0.2 dev 1 metric 4294967294"
        ]
    );
    assert!(w.table.handed.is_empty());
}
