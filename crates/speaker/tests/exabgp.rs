//! Sessions with ExaBGP. Wants root and `exabgp`.

mod foreign;
mod support;

use bgp::router::Event;
use foreign::ours::{coloured, counter, events, everything, impatient, learned, tune};
use foreign::{ExaBgp, Seen};
use model::{FilterOperation, SecretKey, Update};
use net::Asn;
use support::{Ours, Wire, block, config, peer_with, settings, until, world};

const US: [&str; 2] = ["10.0.0.1", "fd00::1"];
const THEM: [(&str, &str); 2] = [("four", "10.0.0.2"), ("six", "fd00::2")];
const ATTRIBUTES: &str = "med 77 as-path [ 65001 65010 65011 ] community [ 65001:7 65001:8 ] \
                          large-community [ 65001:1:2 ]";

/// Its side of sessions of both families.
fn neighbors(asn: u32, more: &str) -> Vec<(&'static str, String)> {
    let each = US.into_iter().zip(THEM).zip(["ipv4", "ipv6"]);
    each.map(|((us, (_, them)), f)| {
        let inside = format!(
            "router-id 10.0.0.2; local-address {them}; local-as {asn}; peer-as 64512; {more}\n \
             family {{ {f} unicast; }}\n capability {{ route-refresh enable; }}"
        );
        (us, inside)
    })
    .collect()
}

fn tell(exabgp: &ExaBgp) {
    exabgp.say(&format!(
        "neighbor 10.0.0.1 announce route 192.0.2.0/24 next-hop 10.0.0.2 {ATTRIBUTES}"
    ));
    exabgp.say(&format!(
        "neighbor fd00::1 announce route 2001:db8::/48 next-hop fd00::2 {ATTRIBUTES}"
    ));
}

fn peers(asn: u32, change: impl Fn(&mut model::BgpPeer)) -> Vec<Update> {
    let mut all = world();
    all.push(config(coloured));
    let prepend = FilterOperation::Prepend(vec![Asn(64999)]);
    all.push(everything("all", vec![prepend]));
    all.extend(THEM.map(|(name, at)| {
        peer_with(name, at, asn, |p| {
            p.filters = vec!["all".into()];
            change(p);
        })
    }));
    all
}

fn both_ways(asn: u32) {
    let wire = Wire::new();
    let ours = Ours::start(&wire.here, settings(), peers(asn, |_| {}));
    tune(&ours, impatient);
    let exabgp = ExaBgp::start(&wire.there, &neighbors(asn, ""));
    ours.established(2);
    tell(&exabgp);
    let external = asn != 64512;
    for (prefix, hop) in [("192.0.2.0/24", "10.0.0.2"), ("2001:db8::/48", "fd00::2")] {
        let expected = Seen {
            path: vec![65001, 65010, 65011],
            hop: hop.into(),
            med: Some(77),
            local_pref: (!external).then_some(100),
            communities: vec!["65001:7".into(), "65001:8".into()],
            large: vec!["65001:1:2".into()],
            ..Seen::default()
        };
        assert_eq!(learned(&ours, prefix), expected, "{prefix}");
    }
    for (prefix, hop) in [("172.16.1.0/26", US[0]), ("fd10::40/122", US[1])] {
        let path = if external {
            vec![64512, 64999]
        } else {
            vec![64999]
        };
        let expected = Seen {
            path,
            hop: hop.into(),
            local_pref: (!external).then_some(2_147_482_623),
            ..Seen::default()
        };
        assert_eq!(exabgp.learns(prefix, 0), expected, "{prefix}");
    }
    as_configured(&exabgp, &ours, asn);
    and_away(&exabgp, &ours);
}

/// Without the filter the cluster's own configuration speaks.
fn as_configured(exabgp: &ExaBgp, ours: &Ours, asn: u32) {
    let from = exabgp.heard().len();
    for (name, at) in THEM {
        ours.update(peer_with(name, at, asn, |_| {}));
    }
    for prefix in ["172.16.1.0/26", "fd10::40/122"] {
        let seen = exabgp.learns(prefix, from);
        assert_eq!(seen.communities, ["64512:7"]);
        assert_eq!(seen.large, ["64512:1:2"]);
        let path: &[u32] = if asn == 64512 { &[] } else { &[64512] };
        assert_eq!(seen.path, path);
    }
}

/// Withdrawn one by one, both ways, under the same sessions; then back.
fn and_away(exabgp: &ExaBgp, ours: &Ours) {
    let since = ours.since();
    exabgp.say("neighbor fd00::1 withdraw route 2001:db8::/48 next-hop fd00::2");
    ours.forgets("2001:db8::/48");
    for _ in 0..3 {
        exabgp.say("neighbor 10.0.0.1 withdraw route 192.0.2.0/24 next-hop 10.0.0.2");
        ours.forgets("192.0.2.0/24");
        exabgp.say("neighbor 10.0.0.1 announce route 192.0.2.0/24 next-hop 10.0.0.2");
        ours.learns("192.0.2.0/24");
    }
    for prefix in ["172.16.1.0/26", "fd10::40/122"] {
        let from = exabgp.heard().len();
        ours.update(block(prefix, None));
        exabgp.forgets(prefix, from);
        let from = exabgp.heard().len();
        ours.update(block(prefix, Some("a")));
        exabgp.learns(prefix, from);
    }
    assert_eq!(ours.since(), since);
}

#[test]
fn another_as_and_we_tell_each_other_all_attributes() {
    both_ways(65001);
}

#[test]
fn within_the_as_all_attributes_pass() {
    both_ways(64512);
}

#[test]
fn keys_and_hops_hold_and_a_wrong_key_does_not() {
    let wire = Wire::new();
    let key = SecretKey {
        name: "bgp".into(),
        key: "key".into(),
    };
    let protect = |p: &mut model::BgpPeer| {
        p.password = Some(key.clone());
        p.ttl_security = Some(1);
    };
    let ours = Ours::start(&wire.here, settings(), peers(65001, protect));
    ours.handle
        .key(key.clone(), Some(b"wrong".to_vec()))
        .unwrap();
    tune(&ours, impatient);
    let more = "md5-password right; outgoing-ttl 255; incoming-ttl 255;";
    let exabgp = ExaBgp::start(&wire.there, &neighbors(65001, more));
    until(
        "wrong signatures",
        || counter(&wire.here, "TCPMD5Failure"),
        |n| *n > 0,
    );
    let up = |(_, s): &(String, bgp::fsm::State)| *s == bgp::fsm::State::Established;
    assert!(!ours.states().iter().any(up));
    ours.handle.key(key, Some(b"right".to_vec())).unwrap();
    tune(&ours, impatient);
    ours.established(2);
    tell(&exabgp);
    learned(&ours, "192.0.2.0/24");
    learned(&ours, "2001:db8::/48");
    exabgp.learns("172.16.1.0/26", 0);
    exabgp.learns("fd10::40/122", 0);
}

/// What nobody knows is passed on as it came, marked as partial (RFC 4271, section 5); what it may
/// not say is seen for what it is.
#[test]
fn attributes_as_octets() {
    let wire = Wire::new();
    let ours = Ours::start(&wire.here, settings(), peers(65001, |_| {}));
    tune(&ours, impatient);
    let seen = events(&ours);
    let exabgp = ExaBgp::start(&wire.there, &neighbors(65001, ""));
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
