//! What we write, netgauze reads without complaint and with the same meaning; what it
//! writes of that, we read as what we started from.

use bgp::attr::{Attributes, NextHop};
use bgp::caps::{
    AddPath, Capability, Decoding, Encoding, ExtendedNextHop, GracefulRestart, LongLived,
    RestartFamily, Role,
};
use bgp::message::{Message, Open, RefreshSubtype, RouteRefresh};
use bgp::types::{AfiSafi, Nlri, PathId, PeerKind, PerFamily, RouterId};
use bgp::wire::{
    AttributeBlock, frame_len, read, write_end_of_rib, write_keepalive, write_open, write_refresh,
    write_withdrawals,
};
use bgp::{Asn, Family};
use netgauze_bgp_pkt::BgpMessage;
use netgauze_bgp_pkt::path_attribute::{MpReach, PathAttributeValue};
use netgauze_bgp_pkt::wire::deserializer::BgpParsingContext;
use netgauze_iana::address_family::AddressType;
use netgauze_parse_utils::WritablePdu;
use netgauze_parse_utils::reader::SliceReader;
use netgauze_parse_utils::traits::ParseFromWithOneInput;
use proptest::collection::vec;
use proptest::prelude::*;

#[allow(dead_code, reason = "it serves other tests too")]
#[path = "../../../crates/bgp/tests/wire/values.rs"]
mod values;

/// Theirs of ours.
fn theirs(octets: &[u8], how: &Encoding) -> BgpMessage {
    let mut context = BgpParsingContext::new(
        how.four_octet_as,
        Default::default(),
        Default::default(),
        true,
        true,
        true,
        true,
    );
    let ids = context.add_path_mut();
    ids.insert(AddressType::Ipv4Unicast, how.add_path.v4);
    ids.insert(AddressType::Ipv6Unicast, how.add_path.v6);
    let mut reader = SliceReader::new(octets);
    let parsed = BgpMessage::parse(&mut reader, &mut context);
    parsed.unwrap_or_else(|e| panic!("{e:?} in {octets:02x?}"))
}

/// Theirs, written by them.
fn rewritten(m: &BgpMessage) -> Vec<u8> {
    let mut out = Vec::new();
    m.write(&mut std::io::Cursor::new(&mut out)).unwrap();
    out
}

fn decoding(how: &Encoding) -> Decoding {
    Decoding {
        peer: PeerKind::Internal,
        four_octet_as: how.four_octet_as,
        extended_message: how.extended_message,
        v4_over_v6: how.v4_over_v6,
        add_path: how.add_path,
        families: PerFamily { v4: true, v6: true },
        disable_family: false,
    }
}

fn messages<'a>(mut out: &'a [u8], how: &Encoding) -> Vec<&'a [u8]> {
    let mut all = Vec::new();
    while let Some(len) = frame_len(out, how.extended_message).unwrap() {
        let (one, rest) = out.split_at(len);
        all.push(one);
        out = rest;
    }
    all
}

fn sent(routes: &[Nlri], family: Family, how: &Encoding) -> Vec<Nlri> {
    let mut routes = routes.to_vec();
    if !how.add_path[family] {
        routes.iter_mut().for_each(|r| r.path_id = PathId::NONE);
    }
    routes
}

/// What they have read means what we have written.
fn same_meaning(m: &BgpMessage, a: &Attributes, how: &Encoding) {
    let BgpMessage::Update(update) = m else {
        panic!("no UPDATE");
    };
    let mut next_hop = None;
    for attribute in update.path_attributes() {
        match attribute.value() {
            PathAttributeValue::NextHop(h) => next_hop = Some(NextHop::V4(h.next_hop())),
            PathAttributeValue::MpReach(MpReach::Ipv4Unicast {
                next_hop: hop,
                next_hop_local,
                ..
            }) => next_hop = Some(hop_of(*hop, *next_hop_local)),
            PathAttributeValue::MpReach(MpReach::Ipv6Unicast {
                next_hop_global,
                next_hop_local,
                ..
            }) => next_hop = Some(hop_of((*next_hop_global).into(), *next_hop_local)),
            PathAttributeValue::MultiExitDiscriminator(m) => assert_eq!(Some(m.metric()), a.med),
            PathAttributeValue::LocalPreference(p) => assert_eq!(Some(p.metric()), a.local_pref),
            PathAttributeValue::Communities(c) => {
                let all: Vec<u32> = c.communities().iter().map(|c| c.value()).collect();
                let ours: Vec<u32> = a.communities.iter().map(|c| c.0).collect();
                assert_eq!(all, ours);
            }
            PathAttributeValue::LargeCommunities(c) => {
                assert_eq!(c.communities().len(), a.large_communities.len());
            }
            PathAttributeValue::ClusterList(c) => {
                assert_eq!(c.cluster_list().len(), a.rare().cluster_list.len());
            }
            _ => {}
        }
    }
    assert_eq!(next_hop, Some(a.next_hop), "{how:?}");
}

fn hop_of(global: std::net::IpAddr, local: Option<std::net::Ipv6Addr>) -> NextHop {
    match (global, local) {
        (std::net::IpAddr::V6(global), Some(link_local)) => NextHop::V6Pair { global, link_local },
        (one, _) => one.into(),
    }
}

fn routes() -> impl Strategy<Value = (Family, Attributes, Vec<Nlri>)> {
    (values::family(), values::family()).prop_flat_map(|(family, hop)| {
        let hop = match family {
            Family::V4 => hop,
            Family::V6 => Family::V6,
        };
        let attributes = values::attributes(hop).prop_map(|mut a| {
            // Types that they know and we pass on have forms of their own.
            a.edit_rare(|r| {
                let all = r.unknown.iter().filter(|u| u.kind > 200 && u.kind < 240);
                r.unknown = all.cloned().collect();
            });
            a
        });
        let list = vec(values::nlri(family), 1..300).prop_map(|mut all| {
            // They refuse what is no unicast prefix.
            all.retain(|n| !n.prefix.addr().is_multicast());
            all
        });
        (Just(family), attributes, list)
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    #[test]
    fn announcements((family, attributes, routes) in routes(), how in values::encoding()) {
        let block = AttributeBlock::new(family, &attributes, &how).unwrap();
        let mut out = Vec::new();
        block.write_all(routes.iter().copied(), &mut out);
        let mut back = Vec::new();
        for m in messages(&out, &how) {
            let parsed = theirs(m, &how);
            same_meaning(&parsed, &attributes, &how);
            let again = rewritten(&parsed);
            let Message::Update(u) = read(&again, &decoding(&how)).unwrap() else {
                panic!("no UPDATE");
            };
            prop_assert!(u.faults.is_empty(), "{:?}", u.faults);
            prop_assert_eq!(&u.announced[0].attributes, &attributes);
            back.extend(u.announced[0].nlri);
        }
        prop_assert_eq!(back, sent(&routes, family, &how));
    }

    #[test]
    fn withdrawals((family, _, routes) in routes(), how in values::encoding()) {
        let mut out = Vec::new();
        write_withdrawals(family, &how, routes.iter().copied(), &mut out);
        let mut back = Vec::new();
        for m in messages(&out, &how) {
            let again = rewritten(&theirs(m, &how));
            let Message::Update(u) = read(&again, &decoding(&how)).unwrap() else {
                panic!("no UPDATE");
            };
            back.extend(u.withdrawn.into_iter().flatten());
        }
        prop_assert_eq!(back, sent(&routes, family, &how));
    }
}

#[test]
fn opens() {
    let (v4, v6) = (AfiSafi::IPV4_UNICAST, AfiSafi::IPV6_UNICAST);
    let add_path = |family, receive, send| AddPath {
        family,
        receive,
        send,
    };
    let kept = |family, forwarding| RestartFamily { family, forwarding };
    let open = Open {
        asn: Asn(130_536),
        hold_time: 240,
        router_id: RouterId(0x0a00_0001),
        capabilities: vec![
            Capability::MultiProtocol(v4),
            Capability::MultiProtocol(v6),
            Capability::RouteRefresh,
            Capability::ExtendedNextHop(vec![ExtendedNextHop::V4_OVER_V6]),
            Capability::ExtendedMessage,
            Capability::Role(Role::Customer),
            Capability::GracefulRestart(GracefulRestart {
                restarting: true,
                notification: true,
                time: 120,
                families: vec![kept(v4, true), kept(v6, false)],
            }),
            Capability::FourOctetAs(Asn(130_536)),
            Capability::AddPath(vec![add_path(v4, true, true), add_path(v6, true, false)]),
            Capability::EnhancedRouteRefresh,
            Capability::LongLivedGracefulRestart(vec![LongLived {
                family: v4,
                forwarding: true,
                stale_time: 3600,
            }]),
            Capability::Fqdn {
                host: "rob".into(),
                domain: "example.org".into(),
            },
            Capability::SoftwareVersion("Manx".into()),
        ],
    };
    let mut out = Vec::new();
    write_open(&open, &mut out).unwrap();
    let parsed = theirs(&out, &Encoding::default());
    let again = rewritten(&parsed);
    let Message::Open(back) = read(&again, &Decoding::default()).unwrap() else {
        panic!("no OPEN");
    };
    assert_eq!(back, open, "{parsed:?}");
}

#[test]
fn the_small_ones() {
    let how = Encoding::default();
    let mut out = Vec::new();
    write_keepalive(&mut out);
    assert!(matches!(theirs(&out, &how), BgpMessage::KeepAlive));
    for (subtype, family) in [
        (RefreshSubtype::Request, AfiSafi::IPV4_UNICAST),
        (RefreshSubtype::Begin, AfiSafi::IPV6_UNICAST),
        (RefreshSubtype::End, AfiSafi::IPV4_UNICAST),
    ] {
        let mut out = Vec::new();
        write_refresh(RouteRefresh { family, subtype }, &mut out);
        assert_eq!(rewritten(&theirs(&out, &how)), out);
    }
    for (family, address_type) in [
        (Family::V4, AddressType::Ipv4Unicast),
        (Family::V6, AddressType::Ipv6Unicast),
    ] {
        let mut out = Vec::new();
        write_end_of_rib(family, &mut out);
        let BgpMessage::Update(u) = theirs(&out, &how) else {
            panic!("no UPDATE");
        };
        assert_eq!(u.end_of_rib(), Some(address_type));
    }
}
