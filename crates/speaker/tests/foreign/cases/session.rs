//! Who may have a session, how it begins and ends.

use super::*;
use crate::foreign::ours::{counter, events, learned, reset, status};
use crate::foreign::{OURS, THEM};
use bgp::fsm::State;
use model::SecretKey;
use std::time::Instant;

fn none_is_up(ours: &Ours) {
    let states = ours.states();
    let up = |(_, s): &(String, State)| *s == State::Established;
    assert!(!states.iter().any(up), "{states:?}");
}

pub fn keys_and_hops_hold_and_a_wrong_key_does_not<S: Stranger>() {
    let side = Side {
        key: Some("right"),
        near: true,
        ..Side::of(65001)
    };
    let wire = wire(&side);
    let them = S::start(&wire.there, &side);
    let key = SecretKey {
        name: "bgp".into(),
        key: "key".into(),
    };
    let protect = |p: &mut model::BgpPeer| {
        p.password = Some(key.clone());
        p.ttl_security = Some(1);
    };
    let ours = Ours::start(&wire.here, settings(), peers(65001, protect));
    // Without a key nothing is spoken; whatever they send is refused by the kernel.
    until("it is said", || ours.errors(), |e| e.len() == 2);
    let hand_in = |text: &str| {
        ours.handle.key(key.clone(), Some(text.into())).unwrap();
        tune(&ours, impatient);
    };
    hand_in("wrong");
    let refused = || {
        let of = |n| counter(n, "TCPMD5Failure");
        of(&wire.here) + of(&wire.there)
    };
    until("wrong signatures", refused, |n| *n > 0);
    none_is_up(&ours);
    hand_in("right");
    ours.established(2);
    each_learns_from_the_other(&them, &ours);
}

pub fn packets_must_have_come_one_hop<S: Stranger>() {
    let wire = Wire::new();
    // Without being told so nobody sends the highest TTL.
    let mut side = Side::of(65001);
    let them = S::start(&wire.there, &side);
    let near = |p: &mut model::BgpPeer| p.ttl_security = Some(1);
    let ours = Ours::start(&wire.here, settings(), peers(65001, near));
    tune(&ours, impatient);
    let dropped = || counter(&wire.here, "TCPMinTTLDrop");
    until("packets from afar", dropped, |n| *n > 1);
    none_is_up(&ours);
    drop(them);
    side.near = true;
    let them = S::start(&wire.there, &side);
    ours.established(2);
    for prefix in THEIRS {
        them.tell(prefix, false);
        learned(&ours, prefix);
    }
}

/// How many connections stand on our side.
fn connections(wire: &Wire) -> usize {
    let args = "-Htn state established ( sport = :179 or dport = :179 )";
    run(&wire.here, "ss", args).lines().count()
}

pub fn both_call_at_once_and_one_session_remains<S: Stranger>() {
    let (wire, them, ours) = up::<S>(&Side::of(65001));
    for p in THEIRS {
        them.tell(p, false);
    }
    for round in 0..4 {
        let before = Instant::now();
        // Now one, now the other goes first.
        if round % 2 == 0 {
            reset(&ours);
            them.reset();
        } else {
            them.reset();
            reset(&ours);
        }
        until(
            "new sessions",
            || (ours.since(), ours.errors()),
            |(s, _)| s.len() == 2 && s.iter().all(|(_, t)| t.is_some_and(|t| t > before)),
        );
        for p in THEIRS {
            learned(&ours, p);
        }
        them.established();
        for p in OURS {
            them.learns(p);
        }
        // Of two connections one is gone.
        until("one connection each", || connections(&wire), |n| *n == 2);
        ours.established(2);
    }
}

/// They call, and we wait.
pub fn it_calls_where_we_wait<S: Stranger>() {
    let side = Side::of(65001);
    let wire = wire(&side);
    let ours = Ours::start(&wire.here, settings(), peers(65001, |_| {}));
    tune(&ours, |c| c.passive = true);
    let them = S::start(&wire.there, &side);
    ours.established(2);
    each_learns_from_the_other(&them, &ours);
}

/// RFC 9003: why a session was ended is seen by whoever it was ended for.
pub fn words_at_the_end_are_seen<S: Stranger>() {
    let (_wire, them, ours) = up::<S>(&Side::of(65001));
    let seen = events(&ours);
    them.end(US[0], "back at noon");
    let why = || {
        (
            status(&ours, THEM[0].1).last_error,
            seen.lock().unwrap().clone(),
        )
    };
    until("their words", why, |(w, _)| {
        w.as_ref().is_some_and(|w| w.contains("back at noon"))
    });
    assert_eq!(status(&ours, THEM[1].1).state, State::Established);
    we_end(&them, &ours);
}

fn we_end<S: Stranger>(them: &S, ours: &Ours) {
    ours.handle.shut_down("moved to rack 7").unwrap();
    let said = || them.session(US[1]);
    until("our words", said, |s| s.contains("moved to rack 7"));
}

/// The half of it for those who end without words.
pub fn our_words_at_the_end_are_seen<S: Stranger>() {
    let (_wire, them, ours) = up::<S>(&Side::of(65001));
    we_end(&them, &ours);
}

fn each_learns_from_the_other<S: Stranger>(them: &S, ours: &Ours) {
    for prefix in THEIRS {
        them.tell(prefix, false);
        learned(ours, prefix);
    }
    for p in OURS {
        them.learns(p);
    }
}
