//! Sessions come up, whoever dials, and come back.

use crate::net::Net;
use crate::routes::{c, own};
use bgp::fsm::State;
use bgp::peer::PeerConfig;
use bgp::router::{Config, Event, Output, Router};
use bgp::types::RouterId;
use std::time::{Duration, Instant};

const UP: Duration = Duration::from_secs(60);

fn established(net: &Net, n: usize) -> bool {
    net.nodes[n]
        .router
        .peers()
        .all(|p| p.state == State::Established)
}

#[test]
fn whoever_dials_and_in_whatever_order_one_connection_is_left() {
    for seed in 0..200 {
        for (pa, pb) in [(false, false), (true, false), (false, true)] {
            for delay in [Duration::ZERO, Duration::from_millis(5)] {
                let mut net = Net::new(seed);
                let (a, b) = (net.router(1), net.router(if seed % 2 == 0 { 1 } else { 2 }));
                net.peer(a, b, |n, p| {
                    p.passive = if n == a { pa } else { pb };
                    p.timers.delay_open = if n == a { delay } else { Duration::ZERO };
                });
                net.until(UP, "up", Net::all_up);
                net.run(Duration::from_secs(20));
                assert!(net.all_up(), "seed {seed} {pa} {pb} {delay:?}");
                assert_eq!(net.connections(a, b).len(), 1, "seed {seed}");
                // And it stays: no session was lost once it was settled.
                let sessions = net.nodes[a]
                    .router
                    .peers()
                    .next()
                    .expect("one")
                    .counters
                    .sessions;
                net.run(Duration::from_secs(300));
                let later = net.nodes[a]
                    .router
                    .peers()
                    .next()
                    .expect("one")
                    .counters
                    .sessions;
                assert_eq!(
                    (sessions, established(&net, b)),
                    (later, true),
                    "seed {seed}"
                );
            }
        }
    }
}

/// Two daemons that start together find one not listening yet; that must not cost seconds.
#[test]
fn a_refused_connection_is_tried_again_soon_then_more_seldom() {
    let start = Instant::now();
    let mut router = Router::new(Config::new(net::Asn(1), RouterId(1), 7), start);
    let peer = PeerConfig::new("10.0.0.2".parse().expect("an address"), net::Asn(2));
    let most = peer.timers.connect_retry;
    router.add_peer(peer, start);
    let (mut now, mut tries) = (start, Vec::new());
    while now < start + Duration::from_secs(60) {
        router.tick(now);
        while let Some(output) = router.poll(now) {
            if let Output::Connect { conn, .. } = output {
                tries.push(now - start);
                router.disconnected(conn, now);
            }
        }
        now = router.deadline().expect("it goes on trying");
    }
    assert!(tries[1] <= Duration::from_millis(250), "{tries:?}");
    assert!(tries[3] <= Duration::from_secs(2), "{tries:?}");
    let last = tries.windows(2).next_back().expect("many");
    let wait = last[1] - last[0];
    assert!(wait <= most && wait >= most * 3 / 4, "{tries:?}");
}

#[test]
fn a_silent_peer_is_found_by_the_hold_timer() {
    let mut net = Net::new(7);
    let (a, b) = (net.router(1), net.router(2));
    net.peer(a, b, |_, p| p.timers.hold = 9);
    net.until(UP, "up", Net::all_up);
    let p = c("10.0.0.0/8");
    net.with(a, |r, _| r.announce(p, own(p)));
    net.run(Duration::from_secs(1));
    assert!(net.nodes[b].router.best(p).is_some());
    let conn = net.connections(a, b)[0];
    net.silence(conn);
    net.down.insert((a, b));
    net.run(Duration::from_secs(10));
    assert!(!established(&net, a) && !established(&net, b));
    assert!(net.nodes[b].router.best(p).is_none());
    let expired = |e: &Event| {
        matches!(e, Event::Notified { sent: true, what, .. }
        if what.code == bgp::error::Code::HOLD_TIMER_EXPIRED)
    };
    assert!(net.nodes[b].events.iter().any(expired));
    net.down.clear();
    net.until(UP, "up again", Net::all_up);
    net.run(Duration::from_secs(1));
    assert!(net.nodes[b].router.best(p).is_some());
}

#[test]
fn a_hold_time_of_zero_never_expires() {
    let mut net = Net::new(8);
    let (a, b) = (net.router(1), net.router(2));
    net.peer(a, b, |n, p| p.timers.hold = if n == a { 0 } else { 90 });
    net.until(UP, "up", Net::all_up);
    let conn = net.connections(a, b)[0];
    net.silence(conn);
    net.run(Duration::from_secs(10_000));
    assert!(established(&net, a) && established(&net, b));
}

#[test]
fn a_wrong_as_is_refused_with_growing_patience() {
    let mut net = Net::new(9);
    let (a, b) = (net.router(1), net.router(2));
    net.peer(a, b, |n, p| {
        if n == a {
            p.asn = Some(bgp::Asn(7));
        }
    });
    net.run(Duration::from_secs(100));
    let refused = net.nodes[a]
        .events
        .iter()
        .filter(|e| {
            matches!(e, Event::Notified { sent: true, what, .. }
            if what.code == bgp::error::Code::BAD_PEER_AS)
        })
        .count();
    assert!((3..=15).contains(&refused), "{refused} in 100 s");
    assert!(!established(&net, a));
}

#[test]
fn shutdown_says_why_and_stays() {
    let mut net = Net::new(10);
    let (a, b) = (net.router(1), net.router(2));
    net.peer(a, b, |_, _| {});
    net.until(UP, "up", Net::all_up);
    let id = net.peer_id(a, b);
    let mut config = net.nodes[a].router.peer_config(id).expect("there").clone();
    config.shutdown = Some("going home".to_owned());
    net.with(a, |r, now| r.configure_peer(id, config.clone(), now));
    net.run(Duration::from_secs(100));
    assert!(!established(&net, a));
    let heard = |e: &Event| {
        matches!(e, Event::Notified { sent: false, what, .. }
        if what.communication() == Some("going home"))
    };
    assert!(
        net.nodes[b].events.iter().any(heard),
        "{:?}",
        net.nodes[b].events
    );
    config.shutdown = None;
    net.with(a, |r, now| r.configure_peer(id, config, now));
    net.until(UP, "up again", Net::all_up);
}
