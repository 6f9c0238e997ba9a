//! Changes of a whole table, a slice at a time: what is so between two of them, and how long one
//! takes.

use crate::net::Net;
use crate::raw::Raw;
use crate::routes::{c, own};
use bgp::caps::{Capability, GracefulRestart, RestartFamily};
use bgp::message::RefreshSubtype;
use bgp::peer::Restart;
use bgp::policy::{Condition, Policy, PrefixMatch, Term, Verdict};
use bgp::rib::HopState;
use bgp::router::{Output, Router};
use bgp::types::AfiSafi;
use bgp::{Cidr, Family};
use std::sync::Arc;
use std::time::Duration;

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
fn a_session_that_is_back_before_its_routes_are_gone_begins_without_them() {
    let mut p = Raw::new(10, |_| {});
    let conn = p.up();
    p.tell(conn, prefixes());
    assert_eq!(used(&p.r), 100);
    p.r.disconnected(conn, p.now);
    assert_eq!(used(&p.r), 90);
    // It calls again at once, and tells one of those that are still there and one that is not.
    let conn = p.up();
    assert_eq!(used(&p.r), 0);
    let again: Vec<Cidr> = [5, 50]
        .into_iter()
        .filter_map(|i| prefixes().nth(i))
        .collect();
    p.tell(conn, again.iter().copied());
    p.finish();
    assert_eq!(used(&p.r), 2);
    assert!(again.iter().all(|q| p.r.best(*q).is_some()));
}

#[test]
fn a_refresh_that_begins_while_the_last_one_is_cleared_up_loses_nothing() {
    let mut p = Raw::new(10, |_| {});
    let conn = p.up();
    p.tell(conn, prefixes());
    p.mark(conn, RefreshSubtype::Begin);
    p.tell(conn, prefixes().skip(50));
    p.mark(conn, RefreshSubtype::End);
    // What it did not bring goes in slices.
    assert_eq!(used(&p.r), 90);
    p.mark(conn, RefreshSubtype::Begin);
    assert_eq!(used(&p.r), 50);
    p.tell(conn, prefixes().skip(60));
    p.finish();
    assert_eq!(used(&p.r), 50);
    p.mark(conn, RefreshSubtype::End);
    p.finish();
    assert_eq!(used(&p.r), 40);
}

#[test]
fn what_comes_for_a_peer_while_something_is_under_way_waits_its_turn() {
    let mut p = Raw::new(10, |_| {});
    let conn = p.up();
    p.tell(conn, prefixes());
    let policy = |verdict| {
        Arc::new(Policy {
            terms: Vec::new(),
            default: verdict,
        })
    };
    let mut config =
        p.r.peer_config(p.id)
            .cloned()
            .unwrap_or_else(|| panic!("there"));
    // Refused, taken and refused again, each before the one before is over.
    for verdict in [Verdict::Reject, Verdict::Accept, Verdict::Reject] {
        config.import = policy(verdict);
        p.r.configure_peer(p.id, config.clone(), p.now);
        p.r.tick(p.now);
    }
    p.finish();
    assert_eq!(used(&p.r), 0);
    assert_eq!(p.r.size().paths, 100);
    config.import = policy(Verdict::Accept);
    p.r.configure_peer(p.id, config, p.now);
    p.finish();
    assert_eq!(used(&p.r), 100);
}

#[test]
fn routes_that_are_kept_are_those_of_the_last_session() {
    let mut p = Raw::new(10, |c| c.restart = Some(Restart::default()));
    p.more = vec![Capability::GracefulRestart(GracefulRestart {
        restarting: false,
        notification: false,
        time: 120,
        families: vec![RestartFamily {
            family: AfiSafi::IPV4_UNICAST,
            forwarding: true,
        }],
    })];
    let conn = p.up();
    p.tell(conn, prefixes());
    p.r.disconnected(conn, p.now);
    p.finish();
    // Back, with all of them again.
    let conn = p.up();
    p.tell(conn, prefixes());
    let config = p.r.peer_config(p.id).cloned();
    let mut config = config.unwrap_or_else(|| panic!("there"));
    config.import = Arc::new(Policy {
        terms: Vec::new(),
        default: Verdict::Accept,
    });
    config.allow_own_asn = 1;
    // While that is under way it has told all, and is gone again.
    p.r.configure_peer(p.id, config, p.now);
    let mut end = Vec::new();
    bgp::wire::write_end_of_rib(Family::V4, &mut end);
    p.r.received(conn, &end, p.now);
    p.r.disconnected(conn, p.now);
    p.finish();
    let kept = prefixes().filter(|q| p.r.best(*q).is_some_and(|b| b.stale));
    assert_eq!(kept.count(), 100);
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

#[test]
fn what_changes_all_the_time_is_looked_at_once_more_and_no_oftener() {
    let mut net = chain(true);
    let hop = net.nodes[0].addr;
    let r = &mut net.nodes[1].router;
    for metric in 0..50 {
        let interface = None;
        let metric = Some(metric);
        r.next_hops([(hop, HopState { metric, interface })]);
    }
    // The first of each family was under way; all that followed became one: nine slices and ten.
    let seen = slices(&mut net, 1);
    assert_eq!(seen.len(), 19);
    assert_eq!(seen.last(), Some(&100));
}

/// The processor time of this thread: other work on the machine does not count.
fn busy() -> Duration {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanos = stat.split(' ').next().and_then(|n| n.parse().ok());
    Duration::from_nanos(nanos.unwrap_or_default())
}

/// `cargo test --release -p bgp --test sim -- --ignored --nocapture a_million`: how long the router
/// holds its caller up at most while a peer with a million prefixes goes that it has told another
/// of, and how long it takes altogether; all at once and in slices.
#[test]
#[ignore = "a measurement"]
fn a_million_prefixes_hold_nobody_up() {
    for slice in [u32::MAX, 8192] {
        let mut net = Net::new(5);
        net.chop = false;
        net.slice = Some(slice);
        let (a, b, last) = (net.router(1), net.router(2), net.router(3));
        net.peer(a, b, |_, _| {});
        net.peer(b, last, |_, _| {});
        net.until(UP, "up", Net::all_up);
        for i in 0..1_000_000u128 {
            let addr = Family::V4.addr(i << 8);
            let p = Cidr::new(addr, 24).unwrap_or_else(|| panic!("fits"));
            net.nodes[a].router.announce(p, own(p));
        }
        net.drain(a);
        net.run(Duration::from_secs(60));
        let id = net.peer_id(b, a);
        let now = net.now;
        let r = &mut net.nodes[b].router;
        assert_eq!(r.size().prefixes, 1_000_000);
        let (mut worst, mut all, mut rounds) = (Duration::ZERO, Duration::ZERO, 0);
        let mut out = Vec::new();
        loop {
            let before = busy();
            match rounds {
                0 => r.remove_peer(id, now),
                _ => r.tick(now),
            }
            while let Some(output) = r.poll(now) {
                if let Output::Send { conn } = output {
                    while r.pull(conn, 1 << 20, &mut out, now) {}
                    out.clear();
                }
            }
            let took = busy() - before;
            worst = worst.max(took);
            all += took;
            rounds += 1;
            // The kernel takes what it has room for.
            while r.take_routes(8192, |_| {}) {}
            if r.deadline().is_none_or(|at| at > now) {
                break;
            }
        }
        assert_eq!(r.size().known, 0);
        println!("slices of {slice}: {rounds} rounds, the longest {worst:?}, all {all:?}");
    }
}
