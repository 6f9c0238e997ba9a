//! Two connections at once: which one remains is for the identifiers to say (RFC 4271, section
//! 6.8), and the same on both sides. Wants root.
#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod foreign;
mod support;

use foreign::ours::{impatient, tune};
use foreign::raw::{KEEPALIVE, OPEN, Opening, Raw, hex, message, update};
use std::net::TcpListener;
use support::{Ours, Wire, peer, settings, world};

const US: &str = "10.0.0.1";
const AS: u16 = 65100;

/// Both OPENs of ours are out, on a connection of each side; then the peer's come, on its own
/// connection first or on ours. The one that remains carries a route.
///
/// A greater peer chooses: it has the word once both OPENs are there, and says it with the KEEPALIVE
/// that answers ours, be it that it has answered on the other connection too.
fn both_at_once(id: [u8; 4], own_first: bool, theirs_stays: bool, answers_both: bool) {
    let wire = Wire::new();
    let listener = wire.there.run(|| TcpListener::bind("10.0.0.2:179"));
    let listener = listener.unwrap().unwrap();
    let mut all = world();
    all.push(peer("one", "10.0.0.2", AS.into()));
    let ours = Ours::start(&wire.here, settings(), all);
    tune(&ours, impatient);
    let mut called = Raw::of(listener.accept().unwrap().0);
    assert_eq!(called.expect().0, OPEN);
    let mut caller = Raw::dial(&wire.there, "10.0.0.2", US);
    assert_eq!(caller.expect().0, OPEN);
    let open = Opening::new(AS, id).octets();
    let order = match own_first {
        true => [&mut caller, &mut called],
        false => [&mut called, &mut caller],
    };
    for conn in order {
        conn.send(&open);
    }
    let (mut stays, mut goes) = match theirs_stays {
        true => (caller, called),
        false => (called, caller),
    };
    if answers_both {
        goes.send(&message(KEEPALIVE, &[]));
    }
    stays.until(KEEPALIVE);
    stays.send(&message(KEEPALIVE, &[]));
    // It may have been confirmed before the other came.
    assert_eq!(goes.ended(), hex("06 07"));
    let attributes = hex("40 01 01 00 40 02 06 02 01 0000fe4c 40 03 04 0a000002");
    stays.send(&update(&[], &attributes, &hex("18 c63364")));
    ours.learns("198.51.100.0/24");
    ours.established(1);
    assert_eq!(ours.since().len(), 1);
}

#[test]
fn the_greater_identifier_keeps_its_connection() {
    for (own_first, both) in [(true, true), (true, false), (false, true), (false, false)] {
        both_at_once([11, 0, 0, 1], own_first, true, both);
    }
}

#[test]
fn the_lesser_identifier_gives_its_connection_up() {
    for own_first in [true, false] {
        both_at_once([9, 0, 0, 1], own_first, false, false);
    }
}

/// One identifier, two ASes: the greater AS keeps its connection (RFC 6286, section 2.3).
#[test]
fn of_equal_identifiers_the_greater_as_decides() {
    for (own_first, both) in [(true, true), (true, false), (false, true), (false, false)] {
        both_at_once([10, 0, 0, 1], own_first, true, both);
    }
}
