//! What a peer may send and may not: the session stays or ends as the RFCs say, the peer is told
//! why, and the octets at fault are there to be looked at. Wants root.
#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod foreign;
mod support;

use bgp::error::FaultClass;
use bgp::router::Event;
use foreign::ours::{events, held, tune};
use foreign::raw::{KEEPALIVE, OPEN, Opening, REFRESH, Raw, UPDATE, hex, message, update};
use model::Update;
use serde_json::Value;
use speaker::Control;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Arc, Mutex};
use support::{Ours, PATIENCE, Wire, peer, run, settings, until, world};

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

/// Peers whose IPv4 sessions carry IPv6 too.
fn with_both(n: usize) -> (Wire, Ours, Events) {
    let (wire, ours, seen) = with_peers(n, AS);
    tune(&ours, |c| {
        c.families.v6 = true;
        c.own_address.v6 = Some(support::ip("fd00::1"));
    });
    ours.states();
    (wire, ours, seen)
}

/// A session of both families.
fn both(wire: &Wire, i: usize) -> Raw {
    let mut can = hex("0104 0001 0001 0104 0002 0001 0200 4104 0000");
    can.extend(AS.to_be_bytes());
    let id = [10, 0, 0, 100 + u8::try_from(i).unwrap()];
    Raw::establish(&wire.there, &at(i), US, &Opening::with(AS, id, &can))
}

/// A route to 2001:db8:7::/48 as MP_REACH_NLRI.
const REACH: &str = "80 0e 1c 0002 01 10 fd000000000000000000000000000064 00 30 20010db80007";

/// RFC 7606, sections 3(c), 5.1, 7.11: prefixes that can be read are withdrawn, wherever the
/// attribute stands. What it was is counted, and shown with its octets.
#[test]
fn faults_that_leave_the_prefixes_of_mp_reach() {
    let (wire, ours, seen) = with_both(1);
    let dir = tempfile::tempdir().unwrap();
    let control = Control::start(&ours.handle, dir.path()).unwrap();
    let mut raw = both(&wire, 0);
    ours.established(1);
    let good = [ORIGIN, &path(AS)].concat();
    let hop = "fd000000000000000000000000000064";
    let rows = [
        REACH.replacen("80", "c0", 1),
        REACH.replacen("fd00", "ff02", 1),
        REACH.replacen(hop, &"00".repeat(16), 1),
    ];
    for reach in &rows {
        for all in [reach.to_owned() + &good, good.clone() + reach] {
            raw.send(&update(&[], &hex(&(REACH.to_owned() + &good)), &[]));
            ours.learns("2001:db8:7::/48");
            raw.send(&update(&[], &hex(&all), &[]));
            ours.forgets("2001:db8:7::/48");
            let expected = Some((FaultClass::TreatAsWithdraw, hex(reach)));
            until(reach, || last_fault(&seen), |f| *f == expected);
        }
    }
    // Other attributes at fault take the prefixes along too.
    raw.send(&update(&[], &hex(&(REACH.to_owned() + &good)), &[]));
    ours.learns("2001:db8:7::/48");
    let bad = format!("{REACH}{good} 80 04 03 000001");
    raw.send(&update(&[], &hex(&bad), &[]));
    ours.forgets("2001:db8:7::/48");
    ours.established(1);
    let ask = || own_words(dir.path(), r#"{"ask":"faults"}"#);
    let all = until("all are noted", ask, |a| a.len() == 2 * rows.len() + 1);
    let plain = |text: &str| text.replace(' ', "");
    for (i, fault) in all.iter().enumerate() {
        let octets = rows.get(i / 2).map_or("80 04 03 000001", |r| r);
        assert_eq!(fault["octets"], plain(octets), "{fault}");
        assert_eq!(fault["then"], "routes withdrawn", "{fault}");
    }
    let peers = own_words(dir.path(), r#"{"ask":"peers","peer":"10.0.0.100"}"#);
    assert_eq!(peers[0]["faults"], 2 * rows.len() + 1, "{peers:?}");
    control.stop();
}

/// What is said to a question on our own socket.
fn own_words(dir: &Path, question: &str) -> Vec<Value> {
    let mut stream = UnixStream::connect(dir.join("bgp.ctl")).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    writeln!(stream, "{question}").unwrap();
    let lines = BufReader::new(stream).lines();
    let each = lines.map(|l| serde_json::from_str::<Value>(&l.unwrap()).unwrap());
    each.take_while(|v| v.get("end").is_none()).collect()
}

/// RFC 7606, sections 5.3, 7.11, 7.12; RFC 4760, section 7: where prefixes cannot be found the
/// session ends with the whole attribute. Dropping the family alone is not offered.
#[test]
fn mp_attributes_that_end_the_session() {
    let good = [ORIGIN, &path(AS)].concat();
    let hop = "fd000000000000000000000000000064";
    let attributes: Vec<String> = [
        // A next hop of another length, one past the end, no reserved octet.
        ("0e", format!("0002 01 0f {} 00", &hop[..30])),
        ("0e", "0002 01 00 00".to_owned()),
        ("0e", format!("0002 01 20 {hop} 00")),
        ("0e", format!("0002 01 10 {hop}")),
        // Prefixes that are too long, or longer than what is there.
        ("0e", format!("0002 01 10 {hop} 00 81 {hop} 00")),
        ("0e", format!("0002 01 10 {hop} 00 20 2001")),
        ("0f", "0002 01 81".to_owned()),
        ("0f", "0002 01 20 2001".to_owned()),
        // Too short to tell the family.
        ("0e", "0002".to_owned()),
        ("0f", "0002".to_owned()),
    ]
    .map(|(kind, value)| format!("80 {kind} {:02x} {value}", hex(&value).len()))
    .to_vec();
    let (wire, ours, seen) = with_both(attributes.len());
    for (i, attribute) in attributes.iter().enumerate() {
        let mut raw = both(&wire, i);
        let all = match attribute.starts_with("80 0e") {
            true => good.clone() + attribute,
            false => attribute.clone(),
        };
        raw.send(&update(&[], &hex(&all), &[]));
        let why = "03 09".to_owned() + attribute;
        assert_eq!(raw.ended(), hex(&why), "{attribute}");
        told(&ours, &seen, i, &why);
    }
}
