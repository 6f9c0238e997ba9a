//! What a peer may send and may not: the session stays or ends as the RFCs say, the peer is told
//! why, and the octets at fault are there to be looked at. Wants root.
#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod foreign;
mod support;

use bgp::error::FaultClass;
use bgp::router::Event;
use foreign::ours::{events, held};
use foreign::raw::{KEEPALIVE, OPEN, Opening, REFRESH, Raw, UPDATE, hex, message, update};
use model::Update;
use std::sync::{Arc, Mutex};
use support::{Ours, Wire, peer, run, settings, until, world};

const US: &str = "10.0.0.1";
const AS: u16 = 65100;

type Events = Arc<Mutex<Vec<(String, Event)>>>;

fn at(i: usize) -> String {
    format!("10.0.0.{}", 100 + i)
}

fn opening(i: usize, asn: u16) -> Opening {
    Opening::new(asn, [10, 0, 0, 100 + u8::try_from(i).unwrap()])
}

/// Us with so many peers of an AS, none of which we can reach.
fn with_peers(n: usize, asn: u16) -> (Wire, Ours, Events) {
    let wire = Wire::new();
    let mut all: Vec<Update> = world();
    for i in 0..n {
        run(
            &wire.there,
            "ip",
            &format!("addr add {}/24 dev eth0", at(i)),
        );
        all.push(peer(&at(i), &at(i), asn.into()));
    }
    let ours = Ours::start(&wire.here, settings(), all);
    let seen = events(&ours);
    // It listens when it can be looked at.
    ours.states();
    (wire, ours, seen)
}

const ORIGIN: &str = "40 01 01 00";
const HOP: &str = "40 03 04 0a000064";

fn path(asn: u16) -> String {
    match asn {
        64512 => "40 02 00".to_owned(),
        _ => format!("40 02 06 02 01 0000{asn:04x}"),
    }
}

/// An UPDATE for 198.51.100.0/24 with one attribute beside or instead of the good ones.
fn with(attribute: &str, asn: u16) -> Vec<u8> {
    let kind = hex(attribute)[1];
    let path = path(asn);
    let mut attributes = Vec::new();
    for (n, good) in [(1, ORIGIN), (2, &path), (3, HOP)] {
        if n != kind {
            attributes.extend(hex(good));
        }
    }
    attributes.extend(hex(attribute));
    update(&[], &attributes, &hex("18 c63364"))
}

/// The faults of the last UPDATE that had any, of a peer.
fn last_fault(seen: &Events) -> Option<(FaultClass, Vec<u8>)> {
    let all = seen.lock().unwrap();
    let faults = |e: &Event| match e {
        Event::Faults { what, .. } => what.first().map(|f| (f.class, f.raw.to_vec())),
        _ => None,
    };
    all.iter().rev().find_map(|(_, e)| faults(e))
}

/// Each attribute in a session of such a peer: the route goes or stays, the session stays.
fn table(asn: u16, rows: &[(FaultClass, &str)]) {
    let (wire, ours, seen) = with_peers(1, asn);
    let mut raw = Raw::establish(&wire.there, &at(0), US, &opening(0, asn));
    ours.established(1);
    for (n, (class, attribute)) in rows.iter().enumerate() {
        let good = [hex(ORIGIN), hex(&path(asn)), hex(HOP)].concat();
        raw.send(&update(&[], &good, &hex("18 c63364")));
        ours.learns("198.51.100.0/24");
        raw.send(&with(attribute, asn));
        // What comes after it shows that it was taken.
        let next = u8::try_from(n).unwrap();
        raw.send(&update(&[], &good, &[24, 203, 0, next]));
        ours.learns(&format!("203.0.{n}.0/24"));
        let stays = *class == FaultClass::AttributeDiscard;
        let route = held(&ours, "198.51.100.0/24");
        assert_eq!(route.is_some(), stays, "{attribute}: {route:?}");
        if let Some(route) = route {
            // Nothing of the attribute is left.
            assert_eq!(route.seen.originator, None);
            assert!(route.seen.clusters.is_empty());
        }
        // It is told right after the round that took it.
        let expected = Some((*class, hex(attribute)));
        until(attribute, || last_fault(&seen), |f| *f == expected);
    }
    let since = ours.since();
    ours.established(1);
    assert_eq!(ours.since(), since);
}

/// RFC 7606, section 7; RFC 8092, section 6; RFC 9234, section 5.
#[test]
fn attributes_from_another_as() {
    use FaultClass::{AttributeDiscard as Discard, TreatAsWithdraw as Withdraw};
    let rows = [
        (Withdraw, "40 01 01 05"),
        (Withdraw, "40 01 02 0000"),
        (Withdraw, "c0 01 01 00"),
        (Withdraw, "40 02 06 09 01 0000fe4c"),
        (Withdraw, "40 02 06 02 02 0000fe4c"),
        (Withdraw, "40 02 02 02 00"),
        (Withdraw, "40 02 06 02 01 00000000"),
        (Withdraw, "40 03 03 0a0000"),
        (Withdraw, "40 03 04 00000000"),
        (Withdraw, "80 04 03 000001"),
        (Withdraw, "c0 08 05 0000000000"),
        (Withdraw, "c0 08 00"),
        (Withdraw, "80 08 04 fde80001"),
        (Withdraw, "c0 10 07 00000000000000"),
        (Withdraw, "c0 20 08 0000000000000000"),
        (Withdraw, "c0 23 03 00fde8"),
        (Discard, "40 05 04 00000064"),
        (Discard, "40 06 01 00"),
        (Discard, "c0 07 05 0000000000"),
        (Discard, "80 09 04 0a000001"),
        (Discard, "80 0a 04 0a000001"),
    ];
    table(AS, &rows);
}

/// RFC 7606, sections 7.5, 7.9 and 7.10.
#[test]
fn attributes_from_within_the_as() {
    use FaultClass::TreatAsWithdraw as Withdraw;
    let rows = [
        (Withdraw, "40 05 03 000064"),
        (Withdraw, "80 09 03 0a0000"),
        (Withdraw, "80 0a 05 0a00000100"),
    ];
    table(64512, &rows);
}

/// RFC 7606, sections 3(d), 3(g), 4: whole lists of attributes.
#[test]
fn lists_of_attributes() {
    let (wire, ours, seen) = with_peers(1, AS);
    let mut raw = Raw::establish(&wire.there, &at(0), US, &opening(0, AS));
    let good = [ORIGIN, &path(AS), HOP].concat();
    let rows = [
        // None of what must be there.
        (false, [path(AS), HOP.to_owned()].concat()),
        (false, [ORIGIN, HOP].concat()),
        (false, [ORIGIN, &path(AS)].concat()),
        // One runs past the end; so does a header.
        (false, good.clone() + "c0 08 08 fde80001"),
        (false, good.clone() + "c0 08"),
        // Twice: the first counts.
        (true, good.clone() + "40 01 01 02"),
    ];
    for (stays, attributes) in rows {
        let before = seen.lock().unwrap().len();
        raw.send(&update(&[], &hex(&good), &hex("18 c63364")));
        ours.learns("198.51.100.0/24");
        raw.send(&update(&[], &hex(&attributes), &hex("18 c63364")));
        until(
            "the fault",
            || seen.lock().unwrap()[before..].to_vec(),
            |l| l.iter().any(|(_, e)| matches!(e, Event::Faults { .. })),
        );
        let route = held(&ours, "198.51.100.0/24");
        assert_eq!(route.is_some(), stays, "{attributes}");
    }
    ours.established(1);
}

/// Sessions that end, one peer for each: the peer hears exactly this, and then nothing.
fn end(rows: &[(&str, Vec<u8>)]) {
    let (wire, ours, seen) = with_peers(rows.len(), AS);
    for (i, (why, octets)) in rows.iter().enumerate() {
        let mut raw = Raw::establish(&wire.there, &at(i), US, &opening(i, AS));
        raw.send(octets);
        assert_eq!(raw.ended(), hex(why), "{octets:x?}");
        told(&ours, &seen, i, why);
    }
}

/// The NOTIFICATION was told as an event, with all its octets.
fn told(ours: &Ours, seen: &Events, i: usize, why: &str) {
    let name = format!("Global_{}", at(i).replace('.', "_"));
    let sent = || {
        let all = seen.lock().unwrap();
        let of = |(n, e): &(String, Event)| match e {
            Event::Notified {
                sent: true, what, ..
            } if *n == name => {
                let code = [what.code.code, what.code.subcode];
                Some([&code[..], &what.data[..]].concat())
            }
            _ => None,
        };
        all.iter().filter_map(of).collect::<Vec<_>>()
    };
    let sent = until("an event", sent, |s| !s.is_empty());
    assert_eq!(sent, [hex(why)]);
    assert!(!ours.errors().is_empty());
}

/// RFC 4271, section 6.1: headers.
#[test]
fn headers_that_end_the_session() {
    let mut marker = message(KEEPALIVE, &[]);
    marker[3] = 0;
    let length = |n: u16, kind: u8| {
        let mut m = message(kind, &[]);
        m[16..18].copy_from_slice(&n.to_be_bytes());
        m
    };
    end(&[
        ("01 01", marker),
        ("01 02 0012", length(18, KEEPALIVE)),
        ("01 02 1001", length(4097, UPDATE)),
        ("01 02 0014", message(KEEPALIVE, &[0])),
        ("01 02 0016", message(UPDATE, &[0; 3])),
        ("01 03 09", message(9, &[])),
        // RFC 6608.
        ("05 03 01", opening(6, AS).octets()),
        // RFC 7313, section 5: the whole message.
        (
            "07 01 ffffffffffffffffffffffffffffffff 0018 05 0001010100",
            message(REFRESH, &hex("0001 01 01 00")),
        ),
    ]);
}

/// RFC 7606, sections 3(b), 3(g), 3(j), 5.3: what cannot be read for its routes.
#[test]
fn updates_that_end_the_session() {
    let good = hex(&[ORIGIN, &path(AS), HOP].concat());
    let unreach = "80 0f 03 0002 01";
    let twice = hex(&(unreach.to_owned() + unreach));
    end(&[
        ("03 0a", update(&[], &good, &hex("21 c6336400 00"))),
        ("03 0a", update(&[], &good, &hex("18 c633"))),
        ("03 0a", update(&hex("18 c6"), &[], &[])),
        ("03 01", message(UPDATE, &hex("0000 0009 40010100"))),
        ("03 01", message(UPDATE, &hex("0009 18c63364 0000"))),
        ("03 01", update(&[], &twice, &[])),
    ]);
}

/// RFC 4271, section 6.2; RFC 6608: before the session is up.
#[test]
fn openings_that_are_refused() {
    let change = |i: usize, f: &dyn Fn(&mut Opening)| {
        let mut o = opening(i, AS);
        f(&mut o);
        o.octets()
    };
    let rows: Vec<(&str, Vec<u8>)> = vec![
        ("02 01 0004", change(0, &|o| o.version = 3)),
        ("02 02", Opening::new(65101, [10, 0, 0, 101]).octets()),
        ("02 03 00000000", change(2, &|o| o.id = [0; 4])),
        ("02 06", change(3, &|o| o.hold = 1)),
        ("02 04", change(4, &|o| o.parameters = vec![1, 1, 0])),
        ("02 00", change(5, &|o| o.parameters = vec![2, 9, 1])),
        ("05 01 02", message(UPDATE, &[0; 4])),
        ("05 01 04", message(KEEPALIVE, &[])),
    ];
    let (wire, ours, seen) = with_peers(rows.len() + 1, AS);
    for (i, (why, octets)) in rows.iter().enumerate() {
        let mut raw = Raw::dial(&wire.there, &at(i), US);
        raw.send(octets);
        assert_eq!(raw.until(OPEN)[0], 4);
        assert_eq!(raw.ended(), hex(why), "{octets:x?}");
        told(&ours, &seen, i, why);
    }
    // An UPDATE before the KEEPALIVE that confirms.
    let i = rows.len();
    let mut raw = Raw::dial(&wire.there, &at(i), US);
    raw.send(&opening(i, AS).octets());
    raw.until(KEEPALIVE);
    raw.send(&message(UPDATE, &[0; 4]));
    assert_eq!(raw.ended(), hex("05 02 02"));
    told(&ours, &seen, i, "05 02 02");
}

/// RFC 4271, section 6.5.
#[test]
fn silence_ends_the_session() {
    let (wire, ours, seen) = with_peers(1, AS);
    let mut open = opening(0, AS);
    open.hold = 3;
    let mut raw = Raw::establish(&wire.there, &at(0), US, &open);
    // KEEPALIVEs come meanwhile, as agreed.
    assert_eq!(raw.ended(), hex("04 00"));
    told(&ours, &seen, 0, "04 00");
}
