//! What other speakers really send, recorded: BIRD 2.0.12 with everything switched on, and
//! GoBGP 3.10. Both read what we write; see docs/design/bgp.md.

use crate::bytes::{announced, hex, message, read_update, session};
use bgp::caps::{Decoding, Negotiated};
use bgp::message::{Message, Open, RefreshSubtype};
use bgp::types::{PeerKind, PerFamily};
use bgp::wire::read;
use bgp::{Asn, Family};

/// A recorded message: its type and its body.
fn recorded(text: &str) -> Vec<u8> {
    let octets = hex(text);
    message(octets[0], &octets[1..])
}

fn open(text: &str) -> Open {
    match read(&recorded(text), &Decoding::default()) {
        Ok(Message::Open(o)) => o,
        other => panic!("an OPEN was expected: {other:?}"),
    }
}

/// The session that was recorded.
fn recorded_session() -> Decoding {
    let mut how = session(PeerKind::Internal);
    how.v4_over_v6 = true;
    how.add_path = PerFamily { v4: true, v6: true };
    how
}

const BIRD_OPEN: &str = "0104fde800f00a00000140023e0104000100010104000200010200050600010001
    000206004002007841040000fde8450800010103000201034600470e00010100000e1000020100000e10";

const GOBGP_OPEN: &str = "0104fde8005a0a0000013a02380200490402766d00010400010001010400020001410400
    00fde8400a40780001010000020100050600010001000245080001010300020103";

#[test]
fn opens() {
    let bird = open(BIRD_OPEN);
    let gobgp = open(GOBGP_OPEN);
    for o in [&bird, &gobgp] {
        assert_eq!(o.asn, Asn(65000));
        assert!(o.carries(Family::V4) && o.carries(Family::V6));
        assert_eq!(o.graceful_restart().unwrap().time, 120);
    }
    // BIRD names no family in its graceful restart while it has no state to keep.
    assert!(bird.graceful_restart().unwrap().families.is_empty());
    assert!(gobgp.graceful_restart().unwrap().notification);
    let n = Negotiated::new(&bird, &gobgp, PeerKind::Internal);
    assert_eq!(n.hold_time, 90);
    assert!(n.encoding.add_path.v4 && n.encoding.add_path.v6);
    assert!(n.encoding.v4_over_v6 && !n.encoding.extended_message);
    assert!(n.route_refresh && !n.enhanced_refresh && n.long_lived.is_empty());
}

/// With extended next hops switched on, BIRD has IPv4 routes in MP_REACH_NLRI also where
/// the next hop is an IPv4 address.
#[test]
fn updates_of_bird() {
    let how = recorded_session();
    let bytes = recorded(
        "020000004a900e0011000101040a090901000000000218c00002400101004002060201fa56ea09
         40050400000064c00804fde80005c010080002fde800000008c0200c0000fde80000000600000007",
    );
    let u = read_update(&bytes, &how).unwrap();
    assert_eq!(u.faults, []);
    assert_eq!(announced(&u), ["192.0.2.0/24 path 2 via 10.9.9.1"]);
    let a = &u.announced[0].attributes;
    assert_eq!(a.as_path.to_string(), "4200000009");
    assert_eq!(a.local_pref, Some(100));
    assert_eq!(a.communities.as_slice()[0].to_string(), "65000:5");
    assert_eq!(a.large_communities.as_slice()[0].to_string(), "65000:6:7");
    let rt = a.rare().ext_communities.as_slice()[0];
    assert_eq!(rt.to_string(), "rt:65000:8");
    let bytes = recorded(
        "0200000032900e00200002011020010db800000000000000000000000100000000033020010db8ffff
         4001010040020040050400000064",
    );
    let u = read_update(&bytes, &how).unwrap();
    let expected = ["2001:db8:ffff::/48 path 3 via 2001:db8::1"];
    assert_eq!(announced(&u), expected);
    for (bytes, family) in [
        ("0200000000", Family::V4),
        ("0200000006800f03000201", Family::V6),
    ] {
        let bytes = recorded(bytes);
        assert_eq!(read_update(&bytes, &how).unwrap().end_of_rib, Some(family));
    }
    for (bytes, mark) in [
        ("0500010101", RefreshSubtype::Begin),
        ("0500010201", RefreshSubtype::End),
    ] {
        match read(&recorded(bytes), &how).unwrap() {
            Message::RouteRefresh(r) => assert_eq!(r.subtype, mark),
            other => panic!("a ROUTE-REFRESH was expected: {other:?}"),
        }
    }
}

/// GoBGP puts MP_REACH_NLRI last.
#[test]
fn updates_of_gobgp() {
    let how = recorded_session();
    let bytes = recorded(
        "02000000314001010240020040050400000064800e200002011020010db8000000000000000000000001
         00000000013020010db8ffff",
    );
    let u = read_update(&bytes, &how).unwrap();
    assert_eq!(u.faults, []);
    let expected = ["2001:db8:ffff::/48 path 1 via 2001:db8::1"];
    assert_eq!(announced(&u), expected);
    let bytes = recorded(
        "0200000036400101024002004003040a09090140050400000064c00804fde80005
         c010080002fde800000008c0200c0000fde800000006000000070000000118c00002",
    );
    let u = read_update(&bytes, &how).unwrap();
    assert_eq!(u.faults, []);
    assert_eq!(announced(&u), ["192.0.2.0/24 path 1 via 10.9.9.1"]);
}
