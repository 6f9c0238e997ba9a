//! Sessions with ExaBGP. Wants root and `exabgp`.

mod foreign;
mod support;

use bgp::router::Event;
use foreign::ours::{events, impatient, peers, tune};
use foreign::{ExaBgp, Side, Stranger};
use support::{Ours, Wire, settings, until};

// It relays nothing, so that what somebody else tells it ends there. Left out: a refresh that we ask
// for (the session ends without a NOTIFICATION), large tables (two minutes for a thousand routes).
asked!(
    ExaBgp:
    another_as_and_we_tell_each_other_all_attributes,
    within_the_as_all_attributes_pass,
    communities_of_others_pass_through,
    keys_and_hops_hold_and_a_wrong_key_does_not,
    packets_must_have_come_one_hop,
    both_call_at_once_and_one_session_remains,
    it_calls_where_we_wait,
    routes_of_one_that_was_killed_stay_until_it_tells_anew,
);

/// What nobody knows is passed on as it came, marked as partial (RFC 4271, section 5); what it may
/// not say is seen for what it is.
#[test]
fn attributes_as_octets() {
    let wire = Wire::new();
    let ours = Ours::start(&wire.here, settings(), peers(65001, |_| {}));
    tune(&ours, impatient);
    let seen = events(&ours);
    let exabgp = ExaBgp::start(&wire.there, &Side::of(65001));
    ours.established(2);
    let say = |prefix: &str, attribute: &str| {
        exabgp.say(&format!(
            "neighbor 10.0.0.1 announce route {prefix} next-hop 10.0.0.2 attribute [ {attribute} ]"
        ));
    };
    say("192.0.2.0/24", "0x63 0xc0 0x01020304");
    ours.learns("192.0.2.0/24");
    let best = ours.best("192.0.2.0/24").unwrap_or_default();
    assert!(best.contains("kind: 99"), "{best}");
    assert!(best.contains("partial: true"), "{best}");
    assert!(best.contains("[1, 2, 3, 4]"), "{best}");
    // A large community of eight octets (RFC 8092, section 6).
    say("192.0.2.0/24", "0x20 0xc0 0x0000000100000002");
    ours.forgets("192.0.2.0/24");
    let raw = b"\xc0\x20\x08\0\0\0\x01\0\0\0\x02";
    let is = |e: &Event| matches!(e, Event::Faults { what, .. } if *what[0].raw == raw[..]);
    until(
        "the octets at fault",
        || seen.lock().unwrap().clone(),
        |l| l.iter().any(|(_, e)| is(e)),
    );
    ours.established(2);
}
