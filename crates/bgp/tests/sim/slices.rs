//! Changes of a whole table, a slice at a time: what is so between two of them, and how long one
//! takes.

use crate::net::Net;
use crate::routes::{c, own};
use bgp::policy::{Condition, Policy, PrefixMatch, Term, Verdict};
use bgp::rib::HopState;
use bgp::router::Router;
use bgp::{Cidr, Family};
use std::sync::Arc;
use std::time::{Duration, Instant};

const UP: Duration = Duration::from_secs(60);
const SOON: Duration = Duration::from_secs(2);
const MANY: u128 = 100;

fn prefixes() -> impl Iterator<Item = Cidr> {
    (0..MANY).map(|i| {
        let addr = Family::V4.addr(10 << 24 | i << 8);
        Cidr::new(addr, 24).unwrap_or_else(|| panic!("fits"))
    })
}

/// Three in a row, of which the middle one looks at ten prefixes at a time; the first tells a hundred.
fn chain(track: bool) -> Net {
    let mut net = Net::new(5);
    let a = net.router(1);
    let b = net.router_with(2, |c| {
        c.slice = 10;
        c.track_next_hops = track;
    });
    let last = net.router(3);
    net.peer(a, b, |_, _| {});
    net.peer(b, last, |_, _| {});
    net.until(UP, "up", Net::all_up);
    for p in prefixes() {
        net.with(a, |r, _| r.announce(p, own(p)));
    }
    net.run(SOON);
    net
}

fn used(r: &Router) -> usize {
    prefixes().filter(|p| r.best(*p).is_some()).count()
}

/// Takes slices until nothing is due at once; how many there were, and what was used after each.
fn slices(net: &mut Net, n: usize) -> Vec<usize> {
    let now = net.now;
    let r = &mut net.nodes[n].router;
    let mut out = Vec::new();
    while r.deadline().is_some_and(|at| at <= now) {
        r.tick(now);
        out.push(used(r));
        assert!(out.len() < 100, "it ends");
    }
    out
}

#[test]
fn a_peer_that_goes_takes_its_routes_along_in_slices() {
    let mut net = chain(false);
    assert_eq!(used(&net.nodes[1].router), 100);
    let id = net.peer_id(1, 0);
    let now = net.now;
    net.nodes[1].router.remove_peer(id, now);
    assert_eq!(used(&net.nodes[1].router), 90);
    assert_eq!(slices(&mut net, 1), [80, 70, 60, 50, 40, 30, 20, 10, 0]);
    net.drain(1);
    net.run(SOON);
    assert_eq!(used(&net.nodes[2].router), 0);
    let size = net.nodes[1].router.size();
    assert_eq!((size.paths, size.known, size.attributes), (0, 0, 0));
}

#[test]
fn a_number_is_not_given_away_while_its_routes_are_on_their_way_out() {
    let mut net = chain(false);
    let id = net.peer_id(1, 0);
    let now = net.now;
    let r = &mut net.nodes[1].router;
    let config = r.peer_config(id).cloned();
    let config = config.unwrap_or_else(|| panic!("there"));
    r.remove_peer(id, now);
    assert_ne!(r.add_peer(config.clone(), now), id);
    slices(&mut net, 1);
    let r = &mut net.nodes[1].router;
    assert_eq!(r.add_peer(config, now), id);
}

#[test]
fn another_policy_is_applied_in_slices_and_the_last_counts() {
    let mut net = chain(false);
    let id = net.peer_id(1, 0);
    let refuse = |p: &str| {
        Arc::new(Policy {
            terms: vec![Term {
                name: "no".into(),
                conditions: vec![Condition::Prefix(PrefixMatch::inside(c(p)))],
                operations: Vec::new(),
                verdict: Some(Verdict::Reject),
            }],
            default: Verdict::Accept,
        })
    };
    let now = net.now;
    let r = &mut net.nodes[1].router;
    let mut config = r
        .peer_config(id)
        .cloned()
        .unwrap_or_else(|| panic!("there"));
    config.import = refuse("10.0.0.0/8");
    r.configure_peer(id, config.clone(), now);
    assert_eq!(used(r), 90);
    r.tick(now);
    assert_eq!(used(r), 80);
    // It is changed again halfway.
    config.import = refuse("10.0.0.0/19");
    r.configure_peer(id, config, now);
    let seen = slices(&mut net, 1);
    assert_eq!(seen.last(), Some(&(100 - 32)));
    net.drain(1);
    net.run(SOON);
    assert_eq!(used(&net.nodes[2].router), 100 - 32);
}

#[test]
fn a_next_hop_that_goes_is_noticed_in_slices() {
    let mut net = chain(true);
    let hop = net.nodes[0].addr;
    let here = |metric| HopState {
        metric,
        interface: None,
    };
    let r = &mut net.nodes[1].router;
    r.next_hops([(hop, here(Some(0)))]);
    slices(&mut net, 1);
    assert_eq!(used(&net.nodes[1].router), 100);
    let r = &mut net.nodes[1].router;
    r.next_hops([(hop, here(None))]);
    assert_eq!(used(r), 90);
    // It is there again before all have heard of it.
    r.next_hops([(hop, here(Some(5)))]);
    slices(&mut net, 1);
    net.drain(1);
    net.run(SOON);
    assert_eq!(used(&net.nodes[1].router), 100);
    assert_eq!(used(&net.nodes[2].router), 100);
}

/// `cargo test --release -p bgp --test sim -- --ignored --nocapture a_million`: the longest that
/// the router holds its caller up with a million prefixes, against all at once.
#[test]
#[ignore = "a measurement"]
#[expect(clippy::print_stdout, reason = "figures are what it is for")]
fn a_million_prefixes_hold_nobody_up() {
    for slice in [u32::MAX, 8192] {
        let mut net = Net::new(5);
        net.chop = false;
        net.slice = Some(slice);
        let (a, b) = (net.router(1), net.router(2));
        net.peer(a, b, |_, _| {});
        net.until(UP, "up", Net::all_up);
        for i in 0..1_000_000u128 {
            let addr = Family::V4.addr(i << 8);
            let p = Cidr::new(addr, 24).unwrap_or_else(|| panic!("fits"));
            net.with(a, |r, _| r.announce(p, own(p)));
        }
        net.run(Duration::from_secs(5));
        let id = net.peer_id(b, a);
        let now = net.now;
        let r = &mut net.nodes[b].router;
        assert_eq!(r.size().prefixes, 1_000_000);
        let mut worst = Duration::ZERO;
        let begun = Instant::now();
        let mut timed = |what: &mut dyn FnMut()| {
            let t = Instant::now();
            what();
            worst = worst.max(t.elapsed());
        };
        timed(&mut || r.remove_peer(id, now));
        while r.deadline().is_some_and(|at| at <= now) {
            timed(&mut || r.tick(now));
            timed(&mut || while r.poll(now).is_some() {});
            timed(&mut || while r.take_routes(8192, |_| {}) {});
        }
        let all = begun.elapsed();
        println!("slices of {slice}: the longest {worst:?}, all of it {all:?}");
    }
}
