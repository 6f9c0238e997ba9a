//! What is written, step by step; against a kernel that is a list.

use super::*;
use net::IfIndex;

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
    let mut table = Table::new(Proto::BIRD);
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
        let want = (!hops.is_empty()).then(|| (hops.iter().map(|h| ip(h)).collect(), metric));
        self.table.change(Change {
            prefix: cidr(prefix),
            want,
        });
    }

    fn write(&mut self) -> Vec<String> {
        self.table.settle();
        let mut told = Vec::new();
        for op in self.table.steps(usize::MAX) {
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
    assert!(w.table.ours.is_empty());
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
    w.table.seen(Family::V4, w.kernel.clone());
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
    w.table.seen(Family::V4, w.kernel.clone());
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
    let held: Vec<_> = w.kernel.iter().map(|r| r.key.dst).collect();
    assert_eq!(held, [cidr("10.96.1.0/24")]);
    w.table.forget();
    w.write();
    assert!(w.kernel.is_empty());
}
