//! Sessions with BIRD: routes both ways and away again. Wants root and `bird`.

mod support;

use support::{Bird, Ours, Wire, block, peer, sessions, settings, statics, until, world};

const ID: &str = "10.0.0.2";

fn peers(asn: u32) -> Vec<model::Update> {
    let mut all = world();
    all.push(peer("four", "10.0.0.2", asn));
    all.push(peer("six", "fd00::2", asn));
    all
}

/// Routes of both families travel both ways, and end both ways.
fn both_ways(asn: u32) -> (Wire, Bird, Ours) {
    let wire = Wire::new();
    let own = statics(&["192.0.2.0/24", "2001:db8::/48"]);
    let bird = Bird::start(&wire.there, ID, &(sessions(asn, 64512, "") + &own));
    let ours = Ours::start(&wire.here, settings(), peers(asn));
    ours.established(2);
    ours.learns("192.0.2.0/24");
    ours.learns("2001:db8::/48");
    for prefix in ["172.16.1.0/26", "fd10::40/122"] {
        let seen = until(
            "a route there",
            || bird.route(prefix),
            |s| s.contains("BGP.next_hop"),
        );
        let path = if asn == 64512 {
            "BGP.as_path: \n"
        } else {
            "BGP.as_path: 64512\n"
        };
        assert!(seen.contains(path), "{seen}");
        let hop = if prefix.contains(':') {
            "next_hop: fd00::1"
        } else {
            "next_hop: 10.0.0.1"
        };
        assert!(seen.contains(hop), "{seen}");
    }
    (wire, bird, ours)
}

fn and_away(bird: &Bird, ours: &Ours, asn: u32) {
    bird.configure(
        ID,
        &(sessions(asn, 64512, "") + &statics(&["2001:db8::/48"])),
    );
    ours.forgets("192.0.2.0/24");
    ours.learns("2001:db8::/48");
    ours.update(block("172.16.1.0/26", None));
    until(
        "it is gone there",
        || bird.route("172.16.1.0/26"),
        |s| !s.contains("BGP.next_hop"),
    );
    assert!(bird.route("fd10::40/122").contains("BGP.next_hop"));
    ours.established(2);
}

#[test]
fn another_as_is_told_our_routes_and_tells_its_own() {
    let (_wire, bird, ours) = both_ways(65001);
    let best = ours.best("192.0.2.0/24").unwrap_or_default();
    assert!(best.contains("10.0.0.2"), "{best}");
    and_away(&bird, &ours, 65001);
}

#[test]
fn within_the_as_routes_have_a_preference() {
    let (_wire, bird, ours) = both_ways(64512);
    let seen = bird.route("172.16.1.0/26");
    assert!(seen.contains("BGP.local_pref: 2147482623"), "{seen}");
    and_away(&bird, &ours, 64512);
}
