//! Bytes as the RFCs lay them out, read to values and written back to the same bytes.

use crate::bytes::{announced, hex, message, read_update, session, update, withdrawn};
use bgp::attr::{
    Aggregator, AsPath, Attributes, Community, ExtCommunity, LargeCommunity, NextHop, Origin,
    SegmentKind, UnknownAttribute,
};
use bgp::caps::{Decoding, Encoding};
use bgp::error::{Code, Notification};
use bgp::message::{Message, RefreshSubtype, RouteRefresh};
use bgp::types::{AfiSafi, ClusterId, Nlri, PathId, PeerKind, PerFamily, RouterId};
use bgp::wire::{
    AttributeBlock, frame_len, read, write_end_of_rib, write_keepalive, write_notification,
    write_refresh, write_withdrawals,
};
use bgp::{Asn, Cidr, Family};

fn cidr(s: &str) -> Cidr {
    s.parse().unwrap()
}

/// How an encoding is written that reads by `how`.
fn encoding(how: &Decoding) -> Encoding {
    Encoding {
        four_octet_as: how.four_octet_as,
        extended_message: how.extended_message,
        v4_over_v6: how.v4_over_v6,
        add_path: how.add_path,
    }
}

#[test]
fn keepalive_is_a_bare_header() {
    let mut out = Vec::new();
    write_keepalive(&mut out);
    assert_eq!(out, message(4, &[]));
    assert_eq!(
        read(&out, &Decoding::default()).unwrap(),
        Message::Keepalive
    );
    assert_eq!(frame_len(&out, false).unwrap(), Some(19));
    assert_eq!(frame_len(&out[..18], false).unwrap(), None);
}

#[test]
fn notification_carries_code_subcode_data() {
    let n = Notification::shutdown(Code::ADMIN_SHUTDOWN, "[TICKET-1] caf\u{e9}");
    let mut out = Vec::new();
    write_notification(&n, &mut out);
    let text = "5b5449434b45542d315d20636166c3a9";
    assert_eq!(out, message(3, &hex(&format!("06 02 10 {text}"))));
    let Message::Notification(back) = read(&out, &Decoding::default()).unwrap() else {
        panic!("no NOTIFICATION");
    };
    assert_eq!(back, n);
    assert_eq!(back.communication(), Some("[TICKET-1] caf\u{e9}"));
    assert_eq!(
        back.to_string(),
        "administrative shutdown (6/2): \"[TICKET-1] caf\u{e9}\""
    );
}

#[test]
fn communication_is_cut_at_a_character() {
    let long = format!("{}\u{e9}", "x".repeat(254));
    let n = Notification::shutdown(Code::ADMIN_RESET, &long);
    assert_eq!(n.data.len(), 255);
    assert_eq!(n.communication(), Some(&*"x".repeat(254)));
    assert!(
        Notification::shutdown(Code::ADMIN_RESET, "")
            .data
            .is_empty()
    );
    // Longer than the data, no UTF-8, of another subcode.
    for (code, data) in [
        (Code::ADMIN_SHUTDOWN, "05 6161"),
        (Code::ADMIN_SHUTDOWN, "02 fffe"),
        (Code::COLLISION, "02 6161"),
    ] {
        assert_eq!(Notification::new(code, hex(data)).communication(), None);
    }
}

#[test]
fn hard_reset_wraps_a_notification() {
    let inner = Notification::shutdown(Code::ADMIN_RESET, "bye");
    let hard = inner.clone().hard();
    assert_eq!(hard.code, Code::HARD_RESET);
    assert_eq!(*hard.data, *hex("06 04 03 627965"));
    assert_eq!(hard.inner(), Some(inner));
}

#[test]
fn route_refresh_and_its_marks() {
    for (subtype, octet) in [
        (RefreshSubtype::Request, 0),
        (RefreshSubtype::Begin, 1),
        (RefreshSubtype::End, 2),
        (RefreshSubtype::Other(9), 9),
    ] {
        let r = RouteRefresh {
            family: AfiSafi::IPV6_UNICAST,
            subtype,
        };
        let mut out = Vec::new();
        write_refresh(r, &mut out);
        assert_eq!(out, message(5, &[0, 2, octet, 1]));
        let how = Decoding::default();
        assert_eq!(read(&out, &how).unwrap(), Message::RouteRefresh(r));
    }
    // Filters behind a request (RFC 5291) are passed over; behind a mark they are an error.
    let how = Decoding::default();
    assert!(read(&message(5, &hex("0001 00 01 01 40 0001 80")), &how).is_ok());
    let begin = message(5, &hex("0001 01 01 00"));
    let e = read(&begin, &how).unwrap_err();
    assert_eq!(e.notification.code, Code::REFRESH_LENGTH);
    assert_eq!(*e.notification.data, *begin);
}

#[test]
fn header_errors() {
    let how = Decoding::default();
    let code = |m: &[u8]| read(m, &how).unwrap_err().notification;
    let mut bad = message(4, &[]);
    bad[3] = 0;
    assert_eq!(code(&bad).code, Code::NOT_SYNCHRONISED);
    assert_eq!(frame_len(&bad, false).unwrap_err().notification, code(&bad));
    let n = code(&message(6, &[]));
    assert_eq!((n.code, &*n.data), (Code::BAD_MESSAGE_TYPE, &[6][..]));
    for (kind, body) in [(1, 9), (2, 3), (3, 1), (4, 1), (5, 3)] {
        let m = message(kind, &vec![0; body]);
        let n = code(&m);
        assert_eq!((n.code, &*n.data), (Code::BAD_MESSAGE_LENGTH, &m[16..18]));
    }
    let mut short = message(4, &[]);
    short[17] = 18;
    let n = frame_len(&short, false).unwrap_err().notification;
    assert_eq!((n.code, &*n.data), (Code::BAD_MESSAGE_LENGTH, &[0, 18][..]));
}

#[test]
fn extended_messages_only_where_agreed() {
    let m = message(2, &[0; 4078]);
    assert_eq!(
        frame_len(&m, false).unwrap_err().notification.code,
        Code::BAD_MESSAGE_LENGTH
    );
    assert_eq!(frame_len(&m, true).unwrap(), Some(4097));
    // Never an OPEN (RFC 8654, section 4).
    let m = message(1, &[0; 4078]);
    assert!(frame_len(&m, true).is_err());
}

#[test]
fn end_of_rib_of_both_families() {
    let how = session(PeerKind::Internal);
    for (family, bytes) in [
        (Family::V4, update("", "", "")),
        (Family::V6, update("", "80 0f 03 0002 01", "")),
    ] {
        let mut out = Vec::new();
        write_end_of_rib(family, &mut out);
        assert_eq!(out, bytes);
        let u = read_update(&out, &how).unwrap();
        assert_eq!(u.end_of_rib, Some(family));
        assert!(u.withdrawn.is_empty() && u.announced.is_empty());
    }
    // IPv4's in the form of the other families; a session without IPv4.
    let m = update("", "80 0f 03 0001 01", "");
    assert_eq!(read_update(&m, &how).unwrap().end_of_rib, Some(Family::V4));
    let mut v6_only = how;
    v6_only.families.v4 = false;
    let m = update("", "", "");
    assert_eq!(read_update(&m, &v6_only).unwrap().end_of_rib, None);
    // Not when it withdraws something, or has another attribute.
    let m = update("08 0a", "", "");
    assert_eq!(read_update(&m, &how).unwrap().end_of_rib, None);
    let m = update("", "80 0f 03 0002 01  40 01 01 00", "");
    assert_eq!(read_update(&m, &how).unwrap().end_of_rib, None);
}

#[test]
fn withdrawals_of_both_families() {
    let how = session(PeerKind::External);
    let v4 = [
        cidr("10.0.0.0/8"),
        cidr("192.0.2.128/25"),
        cidr("0.0.0.0/0"),
    ];
    let v6 = [cidr("2001:db8::/32"), cidr("::/0")];
    let mut out = Vec::new();
    let n = write_withdrawals(Family::V4, &encoding(&how), v4.map(Nlri::from), &mut out);
    assert_eq!(n, 3);
    assert_eq!(out, update("08 0a 19 c0000280 00", "", ""));
    let u = read_update(&out, &how).unwrap();
    assert_eq!(withdrawn(&u), ["10.0.0.0/8", "192.0.2.128/25", "0.0.0.0/0"]);
    let mut out = Vec::new();
    let n = write_withdrawals(Family::V6, &encoding(&how), v6.map(Nlri::from), &mut out);
    assert_eq!(n, 2);
    let attribute = "90 0f 0009 0002 01 20 20010db8 00";
    assert_eq!(out, update("", attribute, ""));
    let u = read_update(&out, &how).unwrap();
    assert_eq!(withdrawn(&u), ["2001:db8::/32", "::/0"]);
}

/// Attributes of every kind, with four-octet AS numbers, from an internal peer.
const ALL: &str = "
    40 01 01 01
    40 02 14 02 02 0000fde8 0001fde8 01 02 00000001 00000002
    40 03 04 c0000201
    80 04 04 0000000a
    40 05 04 000000c8
    40 06 00
    c0 07 08 0001fde8 0a000001
    c0 08 08 fde80001 ffffff01
    80 09 04 0a000002
    80 0a 08 0a000003 0a000004
    c0 10 08 0002 fde8 00000064
    e0 14 01 aa
    80 1a 0b 01 000b 0000000000000064
    c0 20 0c 0001fde8 00000001 00000002
    c0 23 04 0000fde8
    e0 c8 02 beef";

fn all() -> Attributes {
    let mut a = Attributes::new(NextHop::V4([192, 0, 2, 1].into()));
    a.origin = Origin::Egp;
    a.as_path = AsPath::sequence([Asn(65000), Asn(130_536)]);
    a.as_path.push(SegmentKind::Set, [Asn(1), Asn(2)]);
    a.med = Some(10);
    a.local_pref = Some(200);
    a.atomic_aggregate = true;
    a.communities = [Community::NO_EXPORT, Community::new(65000, 1)]
        .into_iter()
        .collect();
    a.large_communities = [LargeCommunity {
        global: Asn(130_536),
        local1: 1,
        local2: 2,
    }]
    .into_iter()
    .collect();
    a.edit_rare(|r| {
        r.aggregator = Some(Aggregator {
            asn: Asn(130_536),
            id: RouterId(0x0a00_0001),
        });
        r.originator_id = Some(RouterId(0x0a00_0002));
        r.cluster_list = [ClusterId(0x0a00_0003), ClusterId(0x0a00_0004)].into();
        r.ext_communities = [ExtCommunity([0, 2, 0xfd, 0xe8, 0, 0, 0, 100])]
            .into_iter()
            .collect();
        r.otc = Some(Asn(65000));
        r.aigp = Some(100);
        let unknown = |kind, value: &[u8]| UnknownAttribute {
            kind,
            partial: true,
            value: value.into(),
        };
        r.unknown = [unknown(20, &[0xaa]), unknown(200, &[0xbe, 0xef])].into();
    });
    a
}

#[test]
fn every_attribute() {
    let how = session(PeerKind::Internal);
    let bytes = update("", ALL, "18 cb0071");
    let u = read_update(&bytes, &how).unwrap();
    assert_eq!(u.faults, []);
    assert_eq!(announced(&u), ["203.0.113.0/24 via 192.0.2.1"]);
    assert_eq!(u.announced[0].attributes, all());
    let block = AttributeBlock::new(Family::V4, &all(), &encoding(&how)).unwrap();
    let mut out = Vec::new();
    let routes = [Nlri::from(cidr("203.0.113.0/24"))];
    assert_eq!(block.write_all(routes, &mut out), 1);
    assert_eq!(out, bytes);
}

#[test]
fn texts() {
    let a = all();
    assert_eq!(a.as_path.to_string(), "65000 130536 {1 2}");
    assert_eq!(
        a.communities.as_slice()[0].to_string(),
        "65000:1".to_owned()
    );
    assert_eq!(a.large_communities.as_slice()[0].to_string(), "130536:1:2");
    assert_eq!("65000:1".parse(), Ok(Community::new(65000, 1)));
    assert_eq!("130536:1:2".parse(), Ok(a.large_communities.as_slice()[0]));
    for bad in ["65536:1", "1", "1:2:3", "a:b"] {
        assert!(bad.parse::<Community>().is_err(), "{bad}");
    }
    let rare = a.rare();
    assert_eq!(
        rare.ext_communities.as_slice()[0].to_string(),
        "rt:65000:100"
    );
    assert_eq!(rare.originator_id.unwrap().to_string(), "10.0.0.2");
}

#[test]
fn ipv6_routes_in_mp_reach() {
    let how = session(PeerKind::External);
    let pair = "20010db8000000000000000000000001 fe800000000000000000000000000001";
    let rest = "40 01 01 00  40 02 06 02 01 0000fde8";
    let reach = format!("90 0e 0032 0002 01 20 {pair} 00 20 20010db8 30 20010db8 0001 00");
    let bytes = update("", &format!("{reach} {rest}"), "");
    let u = read_update(&bytes, &how).unwrap();
    assert_eq!(u.faults, []);
    assert_eq!(
        announced(&u),
        ["2001:db8::/32", "2001:db8:1::/48", "::/0"]
            .map(|p| format!("{p} via 2001:db8::1 fe80::1"))
    );
    let a = &u.announced[0].attributes;
    assert_eq!(a.next_hop.link_local(), Some("fe80::1".parse().unwrap()));
    let block = AttributeBlock::new(Family::V6, a, &encoding(&how)).unwrap();
    let mut out = Vec::new();
    block.write_all(u.announced[0].nlri, &mut out);
    assert_eq!(out, bytes);
}

/// The next hops of IPv6 routes in all the forms that speakers send.
#[test]
fn ipv6_next_hops() {
    let how = session(PeerKind::External);
    let global = "20010db8000000000000000000000001";
    let link = "fe800000000000000000000000000001";
    let zero = "00000000000000000000000000000000";
    let none = String::new();
    for (first, second, text) in [
        (global, &none, "2001:db8::1"),
        (link, &none, "fe80::1"),
        (global, &link.to_owned(), "2001:db8::1 fe80::1"),
        (global, &zero.to_owned(), "2001:db8::1"),
        (link, &link.to_owned(), "fe80::1"),
        (zero, &link.to_owned(), "fe80::1"),
    ] {
        let len = if second.is_empty() { 16 } else { 32 };
        let value = format!("0002 01 {len:02x} {first} {second} 00 20 20010db8");
        let attribute = format!("80 0e {:02x} {value}", hex(&value).len());
        let bytes = update("", &format!("{attribute} 40 01 01 00 40 02 00"), "");
        let u = read_update(&bytes, &how).unwrap();
        assert_eq!(announced(&u), [format!("2001:db8::/32 via {text}")]);
    }
}

#[test]
fn both_families_in_one_update() {
    let how = session(PeerKind::External);
    let reach = "80 0e 1a 0002 01 10 20010db8000000000000000000000001 00 20 20010db8";
    let attributes = format!("40 01 01 00 40 02 00 40 03 04 c0000201 {reach}");
    let unreach = "80 0f 04 0002 01 00";
    let bytes = update("08 0a", &format!("{attributes} {unreach}"), "08 0b");
    let u = read_update(&bytes, &how).unwrap();
    assert_eq!(withdrawn(&u), ["10.0.0.0/8", "::/0"]);
    assert_eq!(
        announced(&u),
        ["11.0.0.0/8 via 192.0.2.1", "2001:db8::/32 via 2001:db8::1"]
    );
}

#[test]
fn ipv4_over_ipv6() {
    let mut how = session(PeerKind::External);
    how.v4_over_v6 = true;
    let hop = "fe800000000000000000000000000001";
    let bytes = update(
        "",
        &format!("90 0e 0017 0001 01 10 {hop} 00 08 0a  40 01 01 00 40 02 00"),
        "",
    );
    let u = read_update(&bytes, &how).unwrap();
    assert_eq!(announced(&u), ["10.0.0.0/8 via fe80::1"]);
    let a = &u.announced[0].attributes;
    let mut out = Vec::new();
    let block = AttributeBlock::new(Family::V4, a, &encoding(&how)).unwrap();
    block.write_all(u.announced[0].nlri, &mut out);
    assert_eq!(out, bytes);
    // To a peer that has not asked for it there is no way to write it.
    assert!(AttributeBlock::new(Family::V4, a, &Encoding::default()).is_err());
    // Unasked for, its length is wrong.
    how.v4_over_v6 = false;
    let e = read_update(&bytes, &how).unwrap_err();
    assert_eq!(e.notification.code, Code::OPTIONAL_ATTRIBUTE);
}

#[test]
fn path_ids_where_agreed() {
    let mut how = session(PeerKind::Internal);
    how.add_path = PerFamily {
        v4: true,
        v6: false,
    };
    let bytes = update(
        "00000007 08 0a",
        "40 01 01 00 40 02 00 40 03 04 c0000201",
        "00000001 18 cb0071 00000002 18 cb0071",
    );
    let u = read_update(&bytes, &how).unwrap();
    assert_eq!(withdrawn(&u), ["10.0.0.0/8 path 7"]);
    let routes: Vec<Nlri> = u.announced[0].nlri.iter().collect();
    assert_eq!(routes.len(), 2);
    assert_eq!(routes[1].path_id, PathId(2));
    let block =
        AttributeBlock::new(Family::V4, &u.announced[0].attributes, &encoding(&how)).unwrap();
    let mut out = Vec::new();
    block.write_all(routes, &mut out);
    let back = read_update(&out, &how).unwrap();
    assert_eq!(announced(&back), announced(&u));
}

/// RFC 6793, section 4.2.3.
#[test]
fn as4_attributes_from_a_two_octet_peer() {
    let mut how = session(PeerKind::External);
    how.four_octet_as = false;
    let merged = |path: &str, rest: &str| {
        let fixed = "40 01 01 00 40 03 04 c0000201";
        let bytes = update("", &format!("{fixed} {path} {rest}"), "08 0a");
        let u = read_update(&bytes, &how).unwrap();
        assert_eq!(u.faults, []);
        let a = &u.announced[0].attributes;
        let by = a.rare().aggregator.map(|g| g.asn.0);
        (a.as_path.to_string(), by)
    };
    // 64512 AS_TRANS AS_TRANS, of which the last two are meant.
    let path = "40 02 08 02 03 fc00 5ba0 5ba0";
    let as4 = "c0 11 0a 02 02 00010000 00010001";
    assert_eq!(merged(path, as4).0, "64512 65536 65537");
    // A set counts one, on either side.
    let set = "40 02 0a 02 01 fc00 01 02 5ba0 0001";
    let as4_set = "c0 11 0a 01 02 00010000 00000001";
    assert_eq!(merged(set, as4_set).0, "64512 {65536 1}");
    // Longer than the path: ignored.
    let long = "c0 11 12 02 04 00000001 00000002 00000003 00000004";
    assert_eq!(merged(path, long).0, "64512 23456 23456");
    // The aggregator is AS_TRANS: the four-octet one is meant.
    let trans = "c0 07 06 5ba0 0a000001";
    let as4_by = "c0 12 08 00010000 0a000001";
    assert_eq!(
        merged(path, &format!("{trans} {as4} {as4_by}")),
        ("64512 65536 65537".to_owned(), Some(65536))
    );
    // It is not: both four-octet attributes are ignored.
    let plain = "c0 07 06 fc00 0a000001";
    assert_eq!(
        merged(path, &format!("{plain} {as4} {as4_by}")),
        ("64512 23456 23456".to_owned(), Some(64512))
    );
    // There is but that one: the path is not ignored.
    assert_eq!(
        merged(path, &format!("{plain} {as4}")),
        ("64512 65536 65537".to_owned(), Some(64512))
    );
    // Confederation segments in AS4_PATH are left out (section 6).
    let confed = "c0 11 10 03 01 0000fde8 02 02 00010000 00010001";
    assert_eq!(merged(path, confed).0, "64512 65536 65537");
}

#[test]
fn two_octet_peers_get_as_trans_beside_as4() {
    let mut a = Attributes::new(NextHop::V4([192, 0, 2, 1].into()));
    a.as_path = AsPath::sequence([Asn(65000), Asn(65536)]);
    a.edit_rare(|r| {
        r.aggregator = Some(Aggregator {
            asn: Asn(65536),
            id: RouterId(1),
        });
    });
    let block = AttributeBlock::new(Family::V4, &a, &Encoding::default()).unwrap();
    let mut out = Vec::new();
    block.write_all([Nlri::from(cidr("10.0.0.0/8"))], &mut out);
    let attributes = "40 01 01 00  40 02 06 02 02 fde8 5ba0  40 03 04 c0000201
        c0 07 06 5ba0 00000001  c0 11 0a 02 02 0000fde8 00010000
        c0 12 08 00010000 00000001";
    assert_eq!(out, update("", attributes, "08 0a"));
    // Not where all numbers fit.
    a.as_path = AsPath::sequence([Asn(65000)]);
    a.edit_rare(|r| r.aggregator = None);
    let block = AttributeBlock::new(Family::V4, &a, &Encoding::default()).unwrap();
    let mut out = Vec::new();
    block.write_all([Nlri::from(cidr("10.0.0.0/8"))], &mut out);
    let attributes = "40 01 01 00  40 02 04 02 01 fde8  40 03 04 c0000201";
    assert_eq!(out, update("", attributes, "08 0a"));
}

/// RFC 5065, sections 4 and 5.3.
#[test]
fn confederation_segments_within_the_confederation() {
    let how = session(PeerKind::Confederation);
    let bytes = update(
        "",
        "40 01 01 00 40 02 0c 03 01 0000fde9 02 01 00000001 40 03 04 c0000201 40 05 04 00000064",
        "08 0a",
    );
    let u = read_update(&bytes, &how).unwrap();
    let path = &u.announced[0].attributes.as_path;
    assert_eq!(path.to_string(), "(65001) 1");
    assert_eq!((path.hops(), path.neighbour()), (1, Some(Asn(1))));
    assert_eq!(u.announced[0].attributes.local_pref, Some(100));
    let further = path.prepend_confed(Asn(65002));
    assert_eq!(further.to_string(), "(65002 65001) 1");
    let out = further.without_confed().prepend(Asn(65000), 2);
    assert_eq!(out.to_string(), "65000 65000 1");
}

#[test]
fn a_path_is_prepended_past_a_full_segment() {
    let long = AsPath::sequence((1..=255).map(Asn));
    let longer = long.prepend(Asn(9), 3);
    assert_eq!((longer.hops(), longer.segments().count()), (258, 2));
    assert_eq!(longer.count(Asn(9)), 4);
    assert!(longer.starts_with(&[Asn(9), Asn(9), Asn(9), Asn(1)]));
    assert_eq!(longer.origin(), Some(Asn(255)));
    assert_eq!(longer.asns().count(), 258);
}

#[test]
fn routes_of_other_families_are_passed_over() {
    let mut how = session(PeerKind::External);
    how.families.v6 = false;
    let reach = "80 0e 1a 0002 01 10 20010db8000000000000000000000001 00 20 20010db8";
    let bytes = update("", &format!("{reach} 40 01 01 00 40 02 00"), "");
    let u = read_update(&bytes, &how).unwrap();
    assert_eq!((announced(&u), u.faults), (vec![], vec![]));
    // Multicast, with a next hop of no length that we know.
    let reach = "80 0e 0a 0001 02 01 ff 00 08 e0 08 e1";
    let bytes = update("", &format!("{reach} 40 01 01 00 40 02 00"), "");
    let u = read_update(&bytes, &how).unwrap();
    assert_eq!((announced(&u), u.faults), (vec![], vec![]));
    // IPv4 routes on a session for IPv6 alone.
    how.families = PerFamily {
        v4: false,
        v6: true,
    };
    let bytes = update("08 0a", "40 01 01 00 40 02 00 40 03 04 c0000201", "08 0b");
    let u = read_update(&bytes, &how).unwrap();
    assert_eq!(withdrawn(&u), Vec::<String>::new());
    assert_eq!(announced(&u), Vec::<String>::new());
}

#[test]
fn bits_behind_a_prefix_are_irrelevant() {
    let how = session(PeerKind::External);
    let bytes = update("09 0aff", "", "");
    assert_eq!(
        withdrawn(&read_update(&bytes, &how).unwrap()),
        ["10.128.0.0/9"]
    );
}
