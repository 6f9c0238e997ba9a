//! Graceful restart in both roles, for long, and by NOTIFICATION.

use crate::net::Net;
use crate::raw::Raw;
use crate::routes::{c, own};
use bgp::attr::Community;
use bgp::caps::{Capability, GracefulRestart, RestartFamily};
use bgp::peer::{PeerConfig, Restart};
use bgp::router::{Config, Event, PathStatus, Restarting};
use bgp::types::{AfiSafi, PerFamily};
use bgp::{Cidr, Family};
use std::time::Duration;

const UP: Duration = Duration::from_secs(60);

const fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn restart(time: u64, long: Option<u64>) -> Restart {
    Restart {
        time: secs(time),
        stale_time: secs(60),
        notification: false,
        long_lived: long.map(secs),
    }
}

/// Two routers; the second announces two prefixes to the first.
fn pair(change: impl Fn(usize, &mut PeerConfig)) -> (Net, usize, usize, [Cidr; 2]) {
    let mut net = Net::new(1);
    let (a, b) = (net.router(1), net.router(2));
    net.peer(a, b, |n, p| change(n, p));
    net.until(UP, "up", Net::all_up);
    let both = [c("10.1.0.0/16"), c("fd01::/64")];
    for p in both {
        net.with(b, |r, _| r.announce(p, own(p)));
    }
    net.run(secs(1));
    (net, a, b, both)
}

fn uses(net: &Net, n: usize, p: Cidr) -> bool {
    net.nodes[n].router.best(p).is_some()
}

fn back(net: &mut Net, n: usize, kept: bool) {
    let old = net.nodes[n].router.config().clone();
    let restarting = Some(Restarting {
        forwarding: PerFamily { v4: kept, v6: kept },
        kept: PerFamily { v4: kept, v6: kept },
        deferral: secs(30),
        absent: secs(5),
    });
    net.revive(n, Config { restarting, ..old });
}

#[test]
fn routes_of_a_restarting_peer_stay_until_it_has_said_all() {
    let (mut net, a, b, [kept, dropped]) = pair(|_, p| p.restart = Some(restart(20, None)));
    net.kill(b);
    net.run(secs(10));
    assert!(uses(&net, a, kept) && uses(&net, a, dropped));
    assert!(net.nodes[a].router.explain(kept).expect("there").paths[0].stale);
    back(&mut net, b, true);
    net.with(b, |r, _| r.announce(kept, own(kept)));
    // Nothing but End-of-RIB ends it; the first was that of the first session.
    net.until(UP, "complete", |net| {
        let v6 = |e: &&Event| {
            matches!(
                e,
                Event::EndOfRib {
                    family: Family::V6,
                    ..
                }
            )
        };
        let complete = net.nodes[a].events.iter().filter(v6).count() == 2;
        assert!(uses(net, a, kept) && (complete || uses(net, a, dropped)));
        complete
    });
    net.run(secs(1));
    assert!(uses(&net, a, kept) && !uses(&net, a, dropped));
    assert!(!net.nodes[a].router.explain(kept).expect("there").paths[0].stale);
}

#[test]
fn what_was_not_forwarded_goes_when_the_peer_is_back() {
    let (mut net, a, b, [p, _]) = pair(|_, p| p.restart = Some(restart(20, None)));
    net.kill(b);
    net.run(secs(3));
    assert!(uses(&net, a, p));
    back(&mut net, b, false);
    net.until(UP, "up again", Net::all_up);
    net.run(Duration::from_millis(100));
    assert!(!uses(&net, a, p));
}

#[test]
fn a_peer_that_stays_away_loses_its_routes_in_time() {
    for time in [5, 30] {
        let (mut net, a, b, [p, _]) = pair(|_, c| c.restart = Some(restart(time, None)));
        net.kill(b);
        net.run(secs(time - 1));
        assert!(uses(&net, a, p));
        net.run(secs(2));
        assert!(!uses(&net, a, p) && !net.nodes[a].kernel.contains_key(&p));
    }
}

#[test]
fn without_it_routes_go_with_the_session() {
    let (mut net, a, b, [p, _]) = pair(|n, c| c.restart = (n == 0).then(|| restart(20, None)));
    net.kill(b);
    assert!(!uses(&net, a, p));
}

#[test]
fn for_long_they_are_the_last_choice_and_marked() {
    let mut net = Net::new(3);
    let (a, b, d, rr) = (net.router(1), net.router(2), net.router(3), net.router(1));
    let long = |_: usize, p: &mut PeerConfig| p.restart = Some(restart(5, Some(100)));
    net.peer(a, b, long);
    net.peer(a, d, long);
    net.peer(a, rr, |_, p| p.restart = Some(restart(5, None)));
    net.until(UP, "up", Net::all_up);
    let (p, alone, not) = (c("10.1.0.0/16"), c("10.2.0.0/16"), c("10.3.0.0/16"));
    for x in [p, alone, not] {
        let mut route = own(x);
        if x == not {
            route.attributes.communities.insert(Community::NO_LLGR);
        }
        net.with(b, |r, _| r.announce(x, route));
    }
    // d's path is longer, so b's is best while it is fresh.
    let mut worse = own(p);
    worse.attributes.as_path = worse.attributes.as_path.prepend(bgp::Asn(9), 1);
    net.with(d, |r, _| r.announce(p, worse));
    net.run(secs(1));
    let (from_b, from_d) = (net.peer_id(a, b), net.peer_id(a, d));
    let best = |net: &Net, p| net.nodes[a].router.best(p).map(|r| r.peer);
    assert_eq!(best(&net, p), Some(from_b));
    assert!(uses(&net, rr, alone));
    net.kill(b);
    net.run(secs(7));
    assert_eq!(best(&net, p), Some(from_d));
    assert_eq!(best(&net, alone), Some(from_b));
    assert_eq!(best(&net, not), None);
    let why = net.nodes[a].router.explain(p).expect("there");
    let lost = why.paths.iter().find(|x| x.peer == from_b).expect("kept");
    assert_eq!(lost.status, PathStatus::Lost(bgp::decision::Step::NotStale));
    // d knows what stale means, and is told with the mark; rr does not, and is not told.
    let at_d = net.nodes[d].router.best(alone).expect("told");
    assert!(at_d.attributes.communities.contains(Community::LLGR_STALE));
    assert!(!uses(&net, rr, alone));
    net.run(secs(100));
    assert_eq!(best(&net, alone), None);
    assert!(!uses(&net, d, alone));
}

#[test]
fn a_reset_keeps_routes_where_both_agree_and_a_shutdown_does_not() {
    for agree in [true, false] {
        let (mut net, a, b, [p, _]) = pair(|_, c| {
            c.restart = Some(Restart {
                notification: agree,
                ..restart(20, None)
            });
        });
        net.down.insert((a, b));
        let id = net.peer_id(b, a);
        net.with(b, |r, now| r.reset_peer(id, "", now));
        net.run(secs(1));
        assert_eq!(uses(&net, a, p), agree);
    }
    let (mut net, a, b, [p, _]) = pair(|_, c| {
        c.restart = Some(Restart {
            notification: true,
            ..restart(20, None)
        });
    });
    let id = net.peer_id(b, a);
    let mut config = net.nodes[b].router.peer_config(id).expect("there").clone();
    config.shutdown = Some("bye".into());
    net.with(b, |r, now| r.configure_peer(id, config, now));
    net.run(secs(1));
    assert!(!uses(&net, a, p));
}

#[test]
fn we_choose_and_tell_only_when_all_live_peers_have_said_all() {
    let mut net = Net::new(5);
    let (a, b, d, gone) = (net.router(1), net.router(2), net.router(3), net.router(4));
    for other in [b, d, gone] {
        net.peer(a, other, |_, p| p.restart = Some(restart(60, None)));
    }
    net.until(UP, "up", Net::all_up);
    let p = c("10.1.0.0/16");
    net.with(b, |r, _| r.announce(p, own(p)));
    net.run(secs(1));
    assert!(uses(&net, d, p));
    net.kill(a);
    net.kill(gone);
    net.nodes[a].kernel.clear();
    net.run(secs(2));
    let before = net.now;
    back(&mut net, a, true);
    let up = |net: &Net| {
        net.nodes[a]
            .router
            .peers()
            .filter(|p| p.since.is_some())
            .count()
            == 2
    };
    net.until(UP, "back", up);
    net.run(Duration::from_millis(200));
    assert!(net.nodes[a].router.is_restarting(Family::V4));
    assert!(net.nodes[a].kernel.is_empty() && uses(&net, d, p));
    net.until(UP, "over", |net| {
        !net.nodes[a].router.is_restarting(Family::V4)
    });
    // The dead peer held it up for five seconds, not for the thirty of the deferral.
    let took = net.now - before;
    assert!(took < secs(8), "{took:?}");
    net.run(secs(1));
    assert!(net.nodes[a].kernel.contains_key(&p) && uses(&net, d, p));
    let path = net.nodes[d].router.explain(p).expect("there");
    assert!(!path.paths[0].stale);
}

#[test]
fn a_second_restart_before_all_was_said_keeps_what_was_said_since() {
    let (mut net, a, b, [p, again]) = pair(|_, c| c.restart = Some(restart(40, None)));
    net.kill(b);
    net.run(secs(1));
    // Another session of b waits for this router's End-of-RIB until it says its own.
    back(&mut net, b, true);
    net.with(b, |r, _| r.announce(again, own(again)));
    net.latency = secs(3);
    let said = |net: &Net| {
        let all = |e: &&Event| matches!(e, Event::EndOfRib { .. });
        net.nodes[a].events.iter().filter(all).count()
    };
    let before = said(&net);
    net.until(UP, "up again", Net::all_up);
    assert!(uses(&net, a, p) && said(&net) == before, "too late to die");
    net.kill(b);
    assert!(!uses(&net, a, p), "stale since the restart before");
}

#[test]
fn a_path_that_fails_keeps_nothing_whatever_was_agreed_on() {
    for agree in [true, false] {
        let (mut net, a, b, [p, q]) = pair(|_, c| {
            c.restart = Some(Restart {
                notification: agree,
                ..restart(20, None)
            });
        });
        net.down.insert((a, b));
        let id = net.peer_id(a, b);
        net.with(a, |r, now| r.path_failed(id, "silence", false, now));
        assert!(!uses(&net, a, p) && !uses(&net, a, q));
        let status = net.nodes[a].router.peer_status(id).expect("there");
        let said = status.last_error.unwrap_or_default();
        assert_eq!(said, "sent: BFD down (6/10): silence");
        // It does not wait for the path: it is there again as soon as it can be.
        net.down.remove(&(a, b));
        net.until(UP, "up", Net::all_up);
        net.run(secs(1));
        assert!(uses(&net, a, p));
    }
}

#[test]
fn of_a_peer_that_restarts_the_path_counts_only_apart_from_it() {
    for independent in [false, true] {
        let (mut net, a, b, [p, _]) = pair(|_, c| c.restart = Some(restart(60, None)));
        net.kill(b);
        net.run(secs(1));
        assert!(uses(&net, a, p));
        let id = net.peer_id(a, b);
        net.with(a, |r, now| r.path_failed(id, "silence", independent, now));
        net.run(secs(1));
        assert_eq!(uses(&net, a, p), !independent);
    }
}

/// What a peer of IPv4 says of restarts.
fn restarts(restarting: bool, forwarding: bool, named: bool) -> Vec<Capability> {
    let family = RestartFamily {
        family: AfiSafi::IPV4_UNICAST,
        forwarding,
    };
    vec![Capability::GracefulRestart(GracefulRestart {
        restarting,
        notification: false,
        time: 120,
        families: named.then_some(family).into_iter().collect(),
    })]
}

#[test]
fn routes_of_before_wait_for_the_end_only_if_they_were_forwarded_along() {
    for (forwarding, named) in [(true, true), (false, true), (false, false)] {
        let mut p = Raw::new(10, |c| c.restart = Some(Restart::default()));
        p.more = restarts(false, true, true);
        let conn = p.up();
        let (one, two) = (c("10.1.0.0/16"), c("10.2.0.0/16"));
        p.tell(conn, [one, two].into_iter());
        p.r.disconnected(conn, p.now);
        p.finish();
        assert!(p.r.best(one).is_some_and(|b| b.stale));
        // It is back; it has not said all yet.
        p.more = restarts(true, forwarding, named);
        let conn = p.up();
        p.finish();
        assert_eq!(p.r.best(one).is_some(), forwarding);
        p.tell(conn, [two].into_iter());
        assert!(p.r.best(two).is_some_and(|b| !b.stale));
        p.end(conn);
        p.finish();
        assert!(p.r.best(one).is_none() && p.r.best(two).is_some());
    }
}

/// How long our restart takes with a peer that comes after two seconds and says this of restarts,
/// and its End-of-RIB so long after it came, if at all.
fn takes(says: Vec<Capability>, end: Option<Duration>) -> Duration {
    let own = |c: &mut Config| {
        c.restarting = Some(Restarting {
            forwarding: PerFamily { v4: true, v6: true },
            kept: PerFamily {
                v4: true,
                v6: false,
            },
            deferral: secs(30),
            absent: secs(20),
        });
    };
    let both = PerFamily { v4: true, v6: true };
    let mut p = Raw::with(own, |c| {
        c.restart = Some(Restart::default());
        c.families = both;
    });
    assert!(!p.r.is_restarting(Family::V6), "nothing of it was kept");
    p.more = says;
    p.now += secs(2);
    let (conn, up) = (p.up(), p.now);
    let route = c("10.1.0.0/16");
    p.tell(conn, [route].into_iter());
    p.finish();
    let mut said = end.map(|d| up + d);
    while p.r.is_restarting(Family::V4) {
        assert!(!p.r.take_routes(10, |_| panic!("chosen before all was said")));
        let next = p.r.deadline().expect("it has an end");
        p.now = said.map_or(next, |s| s.min(next)).max(p.now);
        if said.take_if(|s| *s <= p.now).is_some() {
            p.end(conn);
        }
        p.finish();
    }
    let mut chosen = Vec::new();
    p.r.take_routes(10, |change| chosen.push(change.prefix));
    assert_eq!(chosen, [route]);
    p.now - up
}

#[test]
fn those_that_owe_no_end_of_rib_are_waited_for_a_while() {
    let (short, after) = (
        Some(Duration::from_millis(1100)),
        Duration::from_millis(1100),
    );
    for says in [
        restarts(true, true, true),
        restarts(true, true, false),
        Vec::new(),
    ] {
        assert_eq!(takes(says.clone(), short), after, "{says:?}");
        assert_eq!(takes(says.clone(), None), secs(5), "{says:?}");
    }
    // One that only helps others owes it as well.
    for says in [restarts(false, true, true), restarts(false, false, false)] {
        assert_eq!(takes(says.clone(), Some(secs(9))), secs(9), "{says:?}");
        assert_eq!(takes(says.clone(), None), secs(28), "{says:?}");
    }
}

/// A node whose peers told it nothing in one family has kept no route of theirs, but the ways to its
/// own pods were there all along: peers must not drop those when it comes back.
#[test]
fn a_family_of_which_nothing_was_learned_is_forwarded_all_the_same() {
    let both = PerFamily { v4: true, v6: true };
    let (mut net, a, b, _) = pair(|_, c| {
        c.restart = Some(restart(60, None));
        c.families = both;
    });
    let six = c("fd00:65::/64");
    net.with(a, |r, _| r.announce(six, own(six)));
    net.run(secs(1));
    assert!(net.nodes[b].router.best(six).is_some());
    net.kill(a);
    net.run(secs(1));
    let old = net.nodes[a].router.config().clone();
    let restarting = Some(Restarting {
        forwarding: both,
        kept: PerFamily {
            v4: true,
            v6: false,
        },
        deferral: secs(30),
        absent: secs(5),
    });
    // So that what the sessions say and what follows do not come at one moment.
    net.latency = Duration::from_millis(100);
    net.revive(a, Config { restarting, ..old });
    net.with(a, |r, _| r.announce(six, own(six)));
    for _ in 0..5000 {
        net.run(Duration::from_millis(1));
        assert!(net.nodes[b].router.best(six).is_some());
    }
    assert!(net.all_up());
}

#[test]
fn two_that_restart_at_once_wait_for_each_other_only_so_long() {
    let (mut net, a, b, [p, q]) = pair(|_, c| c.restart = Some(restart(60, None)));
    for n in [a, b] {
        net.kill(n);
    }
    net.run(secs(1));
    for n in [a, b] {
        net.nodes[n].kernel.clear();
        back(&mut net, n, true);
    }
    for x in [p, q] {
        net.with(b, |r, _| r.announce(x, own(x)));
    }
    net.until(UP, "up again", Net::all_up);
    let up = net.now;
    let restarting = |net: &Net, n: usize| {
        let r = &net.nodes[n].router;
        Family::BOTH.into_iter().any(|f| r.is_restarting(f))
    };
    assert!(restarting(&net, a) && restarting(&net, b));
    let over = |net: &Net| !restarting(net, a) && !restarting(net, b);
    net.until(secs(6), "over", over);
    let took = net.now - up;
    assert!(took > Duration::from_millis(4500), "{took:?}");
    net.run(secs(1));
    assert!(net.nodes[a].kernel.contains_key(&p) && net.nodes[a].kernel.contains_key(&q));
}
