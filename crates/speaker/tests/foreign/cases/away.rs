//! Who is away for a while: graceful restart (RFC 4724, 8538) and the long-lived kind (RFC 9494).

use super::*;
use crate::foreign::OURS;
use crate::foreign::ours::{events, held, learned};
use bgp::router::Event;

const GONE_STALE: &str = "stale routes";

fn stale(ours: &Ours, prefix: &str) {
    until(
        GONE_STALE,
        || held(ours, prefix),
        |h| h.as_ref().is_some_and(|h| h.stale),
    );
}

pub fn routes_of_one_that_was_killed_stay_until_it_tells_anew<S: Stranger>() {
    let side = Side {
        restart: Some(60),
        ..Side::of(65001)
    };
    let (_wire, mut them, ours) = up::<S>(&side);
    for p in THEIRS {
        them.tell(p, true);
    }
    let first = THEIRS.map(|p| learned(&ours, p));
    let seen = events(&ours);
    them.kill();
    for p in THEIRS {
        stale(&ours, p);
    }
    them.recover();
    ours.established(2);
    assert_eq!(THEIRS.map(|p| learned(&ours, p)), first);
    for p in OURS {
        them.learns(p);
    }
    let all = seen.lock().unwrap();
    let stale = all.iter().filter(|(_, e)| matches!(e, Event::Stale { .. }));
    assert_eq!(stale.count(), 2, "{all:?}");
}

/// After its time a restart becomes a long one: its routes are the last choice, but there.
pub fn routes_of_one_that_is_long_gone_are_the_last_choice<S: Stranger>() {
    let side = Side {
        restart: Some(2),
        long_lived: Some(600),
        ..Side::of(65001)
    };
    let (_wire, mut them, ours) = up::<S>(&side);
    for p in THEIRS {
        them.tell(p, true);
    }
    for p in THEIRS {
        learned(&ours, p);
    }
    let seen = events(&ours);
    them.kill();
    let long = || {
        let all = seen.lock().unwrap();
        let is = |(_, e): &&(String, Event)| matches!(e, Event::Stale { long: true, .. });
        all.iter().filter(is).count()
    };
    until("long-lived", long, |n| *n == 2);
    for prefix in THEIRS {
        assert!(held(&ours, prefix).is_some_and(|h| h.stale), "{prefix}");
    }
    them.recover();
    for p in THEIRS {
        learned(&ours, p);
    }
}

/// The same the other way around: ours stay there, marked.
pub fn our_routes_stay_marked_while_we_are_long_gone<S: Stranger>() {
    let side = Side {
        restart: Some(60),
        long_lived: Some(600),
        ..Side::of(65001)
    };
    let wire = wire(&side);
    let them = S::start(&wire.there, &side);
    let start = || {
        let brief = |p: &mut model::BgpPeer| p.restart = Some(2);
        let ours = Ours::start(&wire.here, settings(), peers(65001, brief));
        tune(&ours, impatient);
        ours.established(2);
        ours
    };
    let ours = start();
    for p in OURS {
        them.learns(p);
    }
    // Without a word, as when it is killed.
    drop(ours);
    let marked = |p: &Vec<Seen>| {
        let names = ["65535:6", "llgr-stale", "llgrStale"];
        p.iter()
            .any(|p| p.communities.iter().any(|c| names.contains(&&**c)))
    };
    for prefix in OURS {
        until("marked", || them.paths(prefix), marked);
    }
    let _ours = start();
    for prefix in OURS {
        let fresh = |p: &Vec<Seen>| !p.is_empty() && !marked(p);
        until("fresh", || them.paths(prefix), fresh);
    }
}
