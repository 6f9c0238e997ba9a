//! RFC 7606, rule by rule: what is done about each fault, and that the rest stands.

use crate::bytes::{announced, hex, read_update, session, update, withdrawn};
use bgp::Family;
use bgp::caps::Decoding;
use bgp::error::{Code, FaultClass, Problem};
use bgp::types::PeerKind;

const ORIGIN: &str = "40 01 01 00";
const PATH: &str = "40 02 06 02 01 0000fde8";
const HOP: &str = "40 03 04 c0000201";
const REACH: &str = "80 0e 1a 0002 01 10 20010db8000000000000000000000001 00 20 20010db8";

/// What becomes of an UPDATE.
#[derive(Debug, PartialEq, Eq)]
enum Fate {
    /// Announced, nothing wrong.
    Clean,
    /// Announced, with these attributes' faults.
    Discard(u8, Problem),
    /// Withdrawn.
    Withdraw(u8, Problem),
    /// The session ends.
    Reset(Code),
}
use Fate::{Clean, Discard, Reset, Withdraw};

/// Reads an UPDATE for 10.0.0.0/8 with these attributes; checks what must hold of each
/// fate, and names it.
fn fate(attributes: &str, how: &Decoding) -> Fate {
    let bytes = update("", attributes, "08 0a");
    let u = match read_update(&bytes, how) {
        Ok(u) => u,
        Err(e) => return Reset(e.notification.code),
    };
    let worst = u.faults.iter().max_by_key(|f| f.class);
    let Some(worst) = worst else {
        assert_eq!(announced(&u).len(), 1, "{attributes}");
        return Clean;
    };
    // 0 where there is too little to tell the type.
    let kind = worst.attribute.unwrap_or(0);
    match worst.class {
        FaultClass::AttributeDiscard => {
            assert_eq!(withdrawn(&u), Vec::<String>::new(), "{attributes}");
            assert_eq!(announced(&u).len(), 1, "{attributes}");
            Discard(kind, worst.problem)
        }
        FaultClass::TreatAsWithdraw => {
            assert_eq!(withdrawn(&u), ["10.0.0.0/8"], "{attributes}");
            assert_eq!(announced(&u), Vec::<String>::new(), "{attributes}");
            Withdraw(kind, worst.problem)
        }
        other => panic!("{other:?} is no fate of an UPDATE that is returned"),
    }
}

/// Each attribute of a table beside good mandatory ones, unless it is one of those.
fn table(how: &Decoding, rows: &[(&str, Fate)]) {
    for (attribute, expected) in rows {
        let kind = hex(attribute)[1];
        let mut attributes = String::new();
        for (n, good) in [(1, ORIGIN), (2, PATH), (3, HOP)] {
            if n != kind {
                attributes += good;
            }
        }
        attributes += attribute;
        assert_eq!(fate(&attributes, how), *expected, "{attribute}");
    }
}

/// Sections 7.1 to 7.8, 7.14, 7.15; RFC 8092, section 6; RFC 9234, section 5.
#[test]
fn values_and_lengths() {
    use Problem::{Length, NextHop, Segment, Value, ZeroAs};
    table(
        &session(PeerKind::External),
        &[
            ("40 01 01 02", Clean),
            ("40 01 01 03", Withdraw(1, Value(3))),
            ("40 01 00", Withdraw(1, Length(0))),
            ("40 01 02 0000", Withdraw(1, Length(2))),
            ("40 02 00", Clean),
            ("40 02 06 05 01 0000fde8", Withdraw(2, Segment)),
            ("40 02 06 00 01 0000fde8", Withdraw(2, Segment)),
            ("40 02 02 02 00", Withdraw(2, Segment)),
            ("40 02 06 02 02 0000fde8", Withdraw(2, Segment)),
            ("40 02 07 02 01 0000fde8 02", Withdraw(2, Segment)),
            ("40 02 08 02 01 0000fde8 02 00", Withdraw(2, Segment)),
            ("40 02 06 02 01 00000000", Withdraw(2, ZeroAs)),
            (
                "40 02 06 03 01 0000fde8",
                Withdraw(2, Problem::Confederation),
            ),
            ("40 03 03 c00002", Withdraw(3, Length(3))),
            ("40 03 05 c000020101", Withdraw(3, Length(5))),
            ("40 03 04 00000000", Withdraw(3, NextHop)),
            ("40 03 04 e0000001", Withdraw(3, NextHop)),
            ("40 03 04 ffffffff", Withdraw(3, NextHop)),
            ("80 04 04 00000001", Clean),
            ("80 04 00", Withdraw(4, Length(0))),
            ("80 04 05 0000000000", Withdraw(4, Length(5))),
            ("40 06 01 00", Discard(6, Length(1))),
            ("c0 07 08 0000fde8 0a000001", Clean),
            ("c0 07 06 fde8 0a000001", Discard(7, Length(6))),
            ("c0 07 09 0000fde8 0a00000100", Discard(7, Length(9))),
            ("c0 07 08 00000000 0a000001", Discard(7, ZeroAs)),
            ("c0 08 00", Withdraw(8, Length(0))),
            ("c0 08 05 0000000000", Withdraw(8, Length(5))),
            ("c0 10 00", Withdraw(16, Length(0))),
            ("c0 10 07 00000000000000", Withdraw(16, Length(7))),
            ("c0 19 00", Withdraw(25, Length(0))),
            ("c0 19 08 0000000000000000", Withdraw(25, Length(8))),
            ("c0 20 00", Withdraw(32, Length(0))),
            ("c0 20 08 0000000000000000", Withdraw(32, Length(8))),
            ("c0 23 04 0000fde8", Clean),
            ("c0 23 03 00fde8", Withdraw(35, Length(3))),
        ],
    );
}

/// Sections 7.5, 7.9 and 7.10: what the peer is decides first.
#[test]
fn what_only_internal_peers_send() {
    use Problem::{Length, NotForPeer};
    table(
        &session(PeerKind::External),
        &[
            ("40 05 04 00000064", Discard(5, NotForPeer)),
            ("40 05 03 000064", Discard(5, NotForPeer)),
            ("80 09 04 0a000001", Discard(9, NotForPeer)),
            ("80 0a 04 0a000001", Discard(10, NotForPeer)),
            ("00 0a 03 0a0000", Discard(10, NotForPeer)),
            // None of ours, so not even looked at (RFC 7311, section 3.3).
            ("80 1a 01 ff", Clean),
        ],
    );
    table(
        &session(PeerKind::Internal),
        &[
            ("40 05 04 00000064", Clean),
            ("40 05 03 000064", Withdraw(5, Length(3))),
            ("80 09 04 0a000001", Clean),
            ("80 09 08 0a0000010a000001", Withdraw(9, Length(8))),
            ("80 0a 04 0a000001", Clean),
            ("80 0a 00", Withdraw(10, Length(0))),
            ("80 0a 06 0a0000010a00", Withdraw(10, Length(6))),
            // RFC 7311, section 3.4.
            ("80 1a 0b 01 000b 0000000000000001", Clean),
            ("80 1a 01 ff", Discard(26, Length(1))),
            ("80 1a 0a 01 000a 00000000000001", Discard(26, Length(10))),
            ("80 1a 03 02 0002", Discard(26, Length(3))),
            (
                "c0 1a 0b 01 000b 0000000000000001",
                Discard(26, Problem::Flags(0xc0)),
            ),
        ],
    );
    let member = session(PeerKind::Confederation);
    let path = "40 02 06 03 01 0000fde9";
    for (attribute, expected) in [
        ("40 05 04 00000064", Clean),
        ("80 09 04 0a000001", Discard(9, NotForPeer)),
    ] {
        let all = format!("{ORIGIN} {path} {HOP} {attribute}");
        assert_eq!(fate(&all, &member), expected, "{attribute}");
    }
}

/// RFC 5065, section 5.3.
#[test]
fn another_member_of_the_confederation_comes_first() {
    let confederation = || Withdraw(2, Problem::Confederation);
    let rows = || {
        [
            ("40 02 06 03 01 0000fde9", Clean),
            ("40 02 0c 03 01 0000fde9 02 01 00000001", Clean),
            ("40 02 00", confederation()),
            (PATH, confederation()),
            ("40 02 06 04 01 0000fde9", confederation()),
        ]
    };
    table(&session(PeerKind::Confederation), &rows());
    // Within a member AS anything is possible.
    let inside = rows().map(|(attribute, _)| (attribute, Clean));
    table(&session(PeerKind::Internal), &inside);
}

/// RFC 6793, section 6; RFC 7607.
#[test]
fn four_octet_attributes() {
    use Problem::{Length, NotForPeer, Segment, ZeroAs};
    table(
        &session(PeerKind::External),
        &[
            ("c0 11 06 02 01 00010000", Discard(17, NotForPeer)),
            ("c0 12 08 00010000 0a000001", Discard(18, NotForPeer)),
        ],
    );
    let mut old = session(PeerKind::External);
    old.four_octet_as = false;
    let path = "40 02 04 02 01 5ba0";
    for (attribute, expected) in [
        ("c0 11 06 02 01 00010000", Clean),
        ("c0 11 00", Discard(17, Segment)),
        ("c0 11 07 02 01 0001000000", Discard(17, Segment)),
        ("c0 11 06 02 02 00010000", Discard(17, Segment)),
        ("c0 11 06 09 01 00010000", Discard(17, Segment)),
        ("c0 11 06 02 01 00000000", Withdraw(17, ZeroAs)),
        ("c0 12 06 5ba0 0a000001", Discard(18, Length(6))),
        ("c0 12 08 00000000 0a000001", Discard(18, ZeroAs)),
    ] {
        let all = format!("{ORIGIN} {path} {HOP} {attribute}");
        assert_eq!(fate(&all, &old), expected, "{attribute}");
    }
}

/// Section 3(c). The Partial bit and the form of the length do not matter.
#[test]
fn flags() {
    let how = session(PeerKind::Internal);
    for good in [
        ORIGIN,
        PATH,
        HOP,
        "80 04 04 00000001",
        "40 05 04 00000064",
        "40 06 00",
        "c0 07 08 0000fde8 0a000001",
        "c0 08 04 fde80001",
        "80 09 04 0a000001",
        "80 0a 04 0a000001",
        "c0 10 08 0002fde800000064",
        "c0 20 0c 000000010000000200000003",
        "c0 23 04 0000fde8",
    ] {
        let octets = hex(good);
        let with = |flags: u8| {
            let rest: String = octets[1..].iter().map(|o| format!("{o:02x}")).collect();
            format!("{flags:02x}{rest}")
        };
        table(
            &how,
            &[
                (good, Clean),
                (&with(octets[0] | 0x20), Clean),
                (
                    &with(octets[0] ^ 0x80),
                    Withdraw(octets[1], Problem::Flags(octets[0] ^ 0x80)),
                ),
                (
                    &with(octets[0] ^ 0x40),
                    Withdraw(octets[1], Problem::Flags(octets[0] ^ 0x40)),
                ),
            ],
        );
        let long: String = octets[3..].iter().map(|o| format!("{o:02x}")).collect();
        let (flags, kind, len) = (octets[0] | 0x10, octets[1], octets[2]);
        let long = format!("{flags:02x}{kind:02x}00{len:02x}{long}");
        table(&how, &[(&long, Clean)]);
    }
}

/// Section 3(d).
#[test]
fn mandatory_attributes() {
    let how = session(PeerKind::External);
    let missing = |kind| Withdraw(kind, Problem::Missing);
    assert_eq!(fate(&format!("{PATH} {HOP}"), &how), missing(1));
    assert_eq!(fate(&format!("{ORIGIN} {HOP}"), &how), missing(2));
    assert_eq!(fate(&format!("{ORIGIN} {PATH}"), &how), missing(3));
    // With MP_REACH_NLRI alone there is no NEXT_HOP.
    let bytes = update("", &format!("{REACH} {ORIGIN} {PATH}"), "");
    assert_eq!(read_update(&bytes, &how).unwrap().faults, []);
    let bytes = update("", &format!("{REACH} {PATH}"), "");
    let u = read_update(&bytes, &how).unwrap();
    assert_eq!(withdrawn(&u), ["2001:db8::/32"]);
}

/// Section 3(g).
#[test]
fn repeated_attributes() {
    let how = session(PeerKind::External);
    let good = format!("{ORIGIN} {PATH} {HOP}");
    // The first counts, whatever the second is.
    for second in ["40 01 01 02", "40 01 05 0000000000", "00 01 00"] {
        let all = format!("{good} {second}");
        assert_eq!(fate(&all, &how), Discard(1, Problem::Repeated));
        let bytes = update("", &all, "08 0a");
        let u = read_update(&bytes, &how).unwrap();
        assert_eq!(u.announced[0].attributes.origin as u8, 0);
    }
    let unknown = "c0 c8 01 aa";
    let all = format!("{good} {unknown} {unknown}");
    assert_eq!(fate(&all, &how), Discard(200, Problem::Repeated));
    let unreach = "80 0f 03 0002 01";
    for twice in [REACH, unreach] {
        let all = format!("{good} {twice} {twice}");
        assert_eq!(fate(&all, &how), Reset(Code::MALFORMED_ATTRIBUTES));
    }
}

/// RFC 4271, section 6.3, unchanged: nobody may invent a well-known attribute.
#[test]
fn unrecognised_attributes() {
    let how = session(PeerKind::External);
    let good = format!("{ORIGIN} {PATH} {HOP}");
    let bytes = update("", &format!("{good} 40 c8 01 aa"), "08 0a");
    let e = read_update(&bytes, &how).unwrap_err();
    assert_eq!(e.notification.code, Code::UNRECOGNISED_WELL_KNOWN);
    assert_eq!(*e.notification.data, *hex("40 c8 01 aa"));
    // Not transitive: quietly ignored.
    let bytes = update("", &format!("{good} 80 c8 01 aa"), "08 0a");
    let u = read_update(&bytes, &how).unwrap();
    assert!(u.faults.is_empty() && u.announced[0].attributes.rare().unknown.is_empty());
    // Transitive: kept, and marked as partial.
    let bytes = update("", &format!("{good} c0 c8 01 aa"), "08 0a");
    let u = read_update(&bytes, &how).unwrap();
    let kept = &u.announced[0].attributes.rare().unknown[0];
    assert_eq!((kept.kind, kept.partial), (200, true));
}

/// Section 3(h): a discard beside a withdrawal is a withdrawal, beside a reset a reset;
/// all faults are told.
#[test]
fn the_strongest_fault_decides() {
    let how = session(PeerKind::External);
    let discard = "40 06 01 00";
    let withdraw = "80 04 00";
    let good = format!("{ORIGIN} {PATH} {HOP}");
    let all = format!("{good} {discard} {withdraw}");
    assert!(matches!(fate(&all, &how), Withdraw(4, _)));
    let bytes = update("", &all, "08 0a");
    let u = read_update(&bytes, &how).unwrap();
    let told: Vec<_> = u.faults.iter().map(|f| (f.attribute, &*f.raw)).collect();
    let raw = [hex(discard), hex(withdraw)];
    assert_eq!(told, [(Some(6), &*raw[0]), (Some(4), &*raw[1])]);
    assert_eq!(u.faults[0].to_string(), "ATOMIC_AGGREGATE: its length is 1");
    let all = format!("{good} {discard} {withdraw} 40 c8 00");
    assert_eq!(fate(&all, &how), Reset(Code::UNRECOGNISED_WELL_KNOWN));
}

/// Section 3(b): lengths beyond the message.
#[test]
fn fields_that_exceed_the_message() {
    let how = session(PeerKind::External);
    for body in ["0001 0000", "0002 08 0a 0001", "0000 0001", "ffff 0000"] {
        let bytes = crate::bytes::message(2, &hex(body));
        let e = read_update(&bytes, &how).unwrap_err();
        assert_eq!(e.notification.code, Code::MALFORMED_ATTRIBUTES, "{body}");
    }
}

/// Section 4.
#[test]
fn attributes_that_exceed_their_field() {
    let how = session(PeerKind::External);
    let good = format!("{ORIGIN} {PATH} {HOP}");
    for tail in [
        "c0",
        "c0 08",
        "d0 08 00",
        "c0 08 05 00000000",
        "d0 08 ffff 00",
    ] {
        let all = format!("{good} {tail}");
        assert!(
            matches!(
                fate(&all, &how),
                Withdraw(_, Problem::Overrun) | Withdraw(8, _)
            ),
            "{tail}: {:?}",
            fate(&all, &how)
        );
    }
    // The prefixes may be in what cannot be read.
    let all = format!("{good} 80 0e 30 0002 01");
    assert_eq!(fate(&all, &how), Reset(Code::MALFORMED_ATTRIBUTES));
}

/// Section 5.2: without prefixes there is nothing to withdraw, so less is certain.
#[test]
fn faults_without_prefixes() {
    let how = session(PeerKind::External);
    let reset = |attributes: &str| {
        let bytes = update("08 0b", attributes, "");
        read_update(&bytes, &how)
            .map_err(|e| e.notification.code)
            .err()
    };
    let good = format!("{ORIGIN} {PATH}");
    assert_eq!(reset(&good), None);
    assert_eq!(
        reset(&format!("{good} 80 04 00")),
        Some(Code::ATTRIBUTE_LENGTH)
    );
    assert_eq!(
        reset(&format!("{good} c0 08 05 00")),
        Some(Code::MALFORMED_ATTRIBUTES)
    );
    assert_eq!(reset("40 01 01 07"), Some(Code::INVALID_ORIGIN));
    assert_eq!(reset("40 02 02 02 00"), Some(Code::MALFORMED_AS_PATH));
    assert_eq!(reset("80 01 01 00"), Some(Code::ATTRIBUTE_FLAGS));
    // A discard is no cause.
    assert_eq!(reset(&format!("{good} 40 06 01 00")), None);
    // A withdrawal alone, its flags wrong: all there is was to be withdrawn anyway.
    let bytes = update("", "c0 0f 08 0002 01 20 20010db8", "");
    let u = read_update(&bytes, &how).unwrap();
    assert_eq!(withdrawn(&u), ["2001:db8::/32"]);
    assert_eq!(u.end_of_rib, None);
}

/// Section 5.3 and RFC 4271, section 6.3: fields whose prefixes cannot be found.
#[test]
fn prefixes_outside_of_attributes() {
    let how = session(PeerKind::External);
    let good = format!("{ORIGIN} {PATH} {HOP}");
    for bad in ["21 0a00000000", "08", "20 0a0000", "ff", "08 0a 18 0a00"] {
        for bytes in [update(bad, "", ""), update("", &good, bad)] {
            let e = read_update(&bytes, &how).unwrap_err();
            assert_eq!(e.notification.code, Code::INVALID_NETWORK, "{bad}");
        }
    }
    let mut ids = how;
    ids.add_path.v4 = true;
    for bad in [
        "000000",
        "00000001",
        "00000001 21 0a00000000",
        "00000001 08",
    ] {
        let bytes = update(bad, "", "");
        let e = read_update(&bytes, &ids).unwrap_err();
        assert_eq!(e.notification.code, Code::INVALID_NETWORK, "{bad}");
    }
}

/// Sections 7.11 and 7.12, RFC 4760 section 7: reset, or the family alone is dropped.
#[test]
fn prefixes_in_attributes() {
    let how = session(PeerKind::External);
    let mut milder = how;
    milder.disable_family = true;
    let hop = "20010db8000000000000000000000001";
    let good = format!("{ORIGIN} {PATH} {HOP}");
    for value in [
        // A next hop of another length.
        format!("0002 01 0f {} 00", &hop[..30]),
        format!("0002 01 04 {} 00", &hop[..8]),
        "0002 01 00 00".to_owned(),
        // One that runs past the end; no reserved octet.
        format!("0002 01 20 {hop} 00"),
        format!("0002 01 10 {hop}"),
        // Prefixes.
        format!("0002 01 10 {hop} 00 81 {hop} 00"),
        format!("0002 01 10 {hop} 00 20 2001"),
    ] {
        let attribute = format!("80 0e {:02x} {value}", hex(&value).len());
        let bytes = update("", &format!("{good} {attribute}"), "08 0a");
        let e = read_update(&bytes, &how).unwrap_err();
        assert_eq!(e.notification.code, Code::OPTIONAL_ATTRIBUTE, "{value}");
        assert_eq!(*e.notification.data, *hex(&attribute), "{value}");
        let u = read_update(&bytes, &milder).unwrap();
        assert_eq!(u.disable, Some(Family::V6), "{value}");
        assert_eq!(announced(&u), ["10.0.0.0/8 via 192.0.2.1"], "{value}");
    }
    for value in ["0002 01 81", "0002 01 20 2001"] {
        let attribute = format!("80 0f {:02x} {value}", hex(value).len());
        let bytes = update("", &attribute, "");
        let e = read_update(&bytes, &how).unwrap_err();
        assert_eq!(e.notification.code, Code::OPTIONAL_ATTRIBUTE, "{value}");
        let u = read_update(&bytes, &milder).unwrap();
        assert_eq!(
            (u.disable, u.end_of_rib),
            (Some(Family::V6), None),
            "{value}"
        );
    }
    // Two families would have to go, and one can be named: the session ends after all.
    let reach = format!("0002 01 10 {hop} 00 20 2001");
    let both = format!(
        "80 0e {:02x} {reach} 80 0f 05 0002 01 2020",
        hex(&reach).len()
    );
    let bytes = update("", &format!("{good} {both}"), "08 0a");
    assert!(read_update(&bytes, &milder).is_err());
    // Too short to tell the family: always a reset.
    for attribute in ["80 0e 00", "80 0e 03 000201", "80 0f 02 0002"] {
        for how in [&how, &milder] {
            let bytes = update("", &format!("{good} {attribute}"), "08 0a");
            assert!(read_update(&bytes, how).is_err(), "{attribute}");
        }
    }
}

/// An UPDATE that would mark the end of the routes, with something wrong, marks nothing.
#[test]
fn no_end_of_rib_with_a_fault() {
    let how = session(PeerKind::External);
    for (attribute, end) in [
        ("80 0f 03 0002 01", Some(Family::V6)),
        ("c0 0f 03 0002 01", None),
    ] {
        let bytes = update("", attribute, "");
        let u = read_update(&bytes, &how).unwrap();
        assert_eq!((u.end_of_rib, u.faults.is_empty()), (end, end.is_some()));
    }
}

#[test]
fn faults_that_leave_prefixes_of_mp_reach_readable() {
    let how = session(PeerKind::External);
    let good = format!("{ORIGIN} {PATH}");
    let flags = REACH.replacen("80", "c0", 1);
    let multicast = REACH.replacen("20010db8", "ff020db8", 1);
    let nothing = REACH.replacen("20010db8000000000000000000000001", &"00".repeat(16), 1);
    for reach in [flags, multicast, nothing] {
        // First or not.
        for all in [format!("{reach} {good}"), format!("{good} {reach}")] {
            let bytes = update("", &all, "");
            let u = read_update(&bytes, &how).unwrap();
            assert_eq!(withdrawn(&u), ["2001:db8::/32"], "{all}");
            assert_eq!(announced(&u), Vec::<String>::new(), "{all}");
        }
    }
}

/// RFC 4760, section 3: NEXT_HOP beside MP_REACH_NLRI alone is ignored; some send zeros.
#[test]
fn next_hop_without_prefixes_for_it() {
    let how = session(PeerKind::External);
    let bytes = update(
        "",
        &format!("{REACH} {ORIGIN} {PATH} 40 03 04 00000000"),
        "",
    );
    let u = read_update(&bytes, &how).unwrap();
    assert_eq!(announced(&u), ["2001:db8::/32 via 2001:db8::1"]);
}
