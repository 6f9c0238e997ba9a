//! Sessions come up, whoever dials, and come back.

use crate::net::{Net, Rng};
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

/// Two routers that take turns in step, as on a machine that is busy: each hears in one go whatever
/// came on a connection since it last looked at it.
struct Step {
    rng: Rng,
    routers: [Router; 2],
    now: Instant,
    /// Connections that are asked for, by who asks.
    calls: Vec<(usize, bgp::router::ConnId)>,
    /// The two ends of connections.
    links: Vec<[bgp::router::ConnId; 2]>,
    /// Octets on their way: to whom, on which connection; none is its end.
    sent: Vec<(usize, bgp::router::ConnId, Vec<u8>)>,
}

impl Step {
    fn new(ids: [u32; 2], seed: u64) -> Self {
        let now = Instant::now();
        let addr = |i: usize| std::net::IpAddr::from([10, 0, 0, i as u8 + 1]);
        let routers = [0, 1].map(|i| {
            let own = net::Asn(65001 + i as u32);
            let mut r = Router::new(Config::new(own, RouterId(ids[i]), 7), now);
            let mut peer = PeerConfig::new(addr(1 - i), net::Asn(65002 - i as u32));
            peer.restart = Some(bgp::peer::Restart::default());
            r.add_peer(peer, now);
            r
        });
        Self {
            rng: Rng(seed),
            routers,
            now,
            calls: Vec::new(),
            links: Vec::new(),
            sent: Vec::new(),
        }
    }

    /// The other end of a connection of a router.
    fn other(&self, of: usize, conn: bgp::router::ConnId) -> Option<bgp::router::ConnId> {
        let link = self.links.iter().rev().find(|l| l[of] == conn);
        link.map(|l| l[1 - of])
    }

    /// One turn of both, who do not look at every connection in each.
    fn turn(&mut self) {
        let mut looks = std::collections::BTreeMap::new();
        let rng = &mut self.rng;
        let mut heard =
            |to: usize, conn| *looks.entry((to, conn)).or_insert_with(|| rng.chance(50));
        let sent = self.sent.extract_if(.., |(to, conn, _)| heard(*to, *conn));
        let sent: Vec<_> = sent.collect();
        for (from, conn) in std::mem::take(&mut self.calls) {
            let addr = |i: usize| std::net::IpAddr::from([10, 0, 0, i as u8 + 1]);
            let peer = self.routers[1 - from].peers().next().expect("one").peer;
            match self.routers[1 - from].accepted(peer, addr(1 - from), self.now) {
                Some(other) => {
                    let link = if from == 0 {
                        [conn, other]
                    } else {
                        [other, conn]
                    };
                    self.links.push(link);
                    self.routers[from].connected(conn, addr(from), self.now);
                }
                None => self.routers[from].disconnected(conn, self.now),
            }
        }
        for (to, conn, octets) in sent {
            match octets.as_slice() {
                [] => self.routers[to].disconnected(conn, self.now),
                some => self.routers[to].received(conn, some, self.now),
            }
        }
        for i in 0..2 {
            self.routers[i].tick(self.now);
            while let Some(output) = self.routers[i].poll(self.now) {
                match output {
                    Output::Connect { conn, .. } => self.calls.push((i, conn)),
                    Output::Send { conn } => {
                        let mut out = Vec::new();
                        self.routers[i].pull(conn, usize::MAX, &mut out, self.now);
                        if let Some(other) = self.other(i, conn) {
                            self.sent.push((1 - i, other, out.concat()));
                        }
                    }
                    Output::Close { conn, last } => {
                        if let Some(other) = self.other(i, conn) {
                            if !last.is_empty() {
                                self.sent.push((1 - i, other, last.to_vec()));
                            }
                            self.sent.push((1 - i, other, Vec::new()));
                        }
                    }
                    _ => {}
                }
            }
        }
        let quiet = self.calls.is_empty() && self.sent.is_empty();
        let next = self.routers.iter().filter_map(Router::deadline).min();
        let step = self.now + Duration::from_millis(50);
        self.now = next.filter(|_| quiet).map_or(step, |n| n.max(step));
    }

    fn up(&self) -> bool {
        let up = |r: &Router| r.peers().all(|p| p.state == State::Established);
        self.routers.iter().all(up)
    }
}

/// Each of the two finds one connection up and closes the other: that must be the same one.
#[test]
fn two_who_call_in_step_are_up_at_once_and_stay_up() {
    let mut worst = (Duration::ZERO, [0, 0]);
    for seed in 0..1000 {
        let ids = if seed % 2 == 0 { [1, 2] } else { [2, 1] };
        let mut step = Step::new(ids, seed);
        let start = step.now;
        let mut up_at = None;
        while step.now < start + Duration::from_secs(100) {
            step.turn();
            match (step.up(), up_at) {
                (true, None) => up_at = Some(step.now),
                (false, Some(_)) => up_at = None,
                _ => {}
            }
        }
        let took = up_at.expect("a session") - start;
        let sessions = step.routers.each_ref().map(|r| {
            let peer = r.peers().next().expect("one");
            peer.counters.sessions
        });
        worst = worst.max((took, sessions));
    }
    assert!(
        worst.0 < Duration::from_millis(1500) && worst.1 == [1, 1],
        "{worst:?}"
    );
}
