//! Arbitrary values that the wire can carry.

use bgp::attr::{
    Aggregator, AsPath, Attributes, Community, ExtCommunity, LargeCommunity, NextHop, Origin,
    SegmentKind, UnknownAttribute,
};
use bgp::caps::{
    AddPath, Capability, Encoding, ExtendedNextHop, GracefulRestart, LongLived, RestartFamily, Role,
};
use bgp::message::Open;
use bgp::types::{AfiSafi, ClusterId, Nlri, PathId, PerFamily, RouterId};
use bgp::{Asn, Cidr, Family};
use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use std::net::{Ipv4Addr, Ipv6Addr};

pub(crate) fn asn() -> impl Strategy<Value = Asn> {
    prop_oneof![1_u32..65536, 1_u32..=u32::MAX].prop_map(Asn)
}

/// Without a confederation's segments: those do not survive two-octet peers.
pub(crate) fn path() -> impl Strategy<Value = AsPath> {
    let segment = (any::<bool>(), vec(asn(), 1..12));
    vec(segment, 0..4).prop_map(|segments| {
        let mut path = AsPath::default();
        for (set, asns) in segments {
            let kind = if set {
                SegmentKind::Set
            } else {
                SegmentKind::Sequence
            };
            path.push(kind, asns);
        }
        path
    })
}

pub(crate) fn family() -> impl Strategy<Value = Family> {
    prop_oneof![Just(Family::V4), Just(Family::V6)]
}

pub(crate) fn nlri(family: Family) -> impl Strategy<Value = Nlri> {
    (any::<u128>(), 0..=family.bits(), any::<u32>()).prop_map(move |(bits, len, id)| Nlri {
        prefix: Cidr::new(family.addr(bits), len).unwrap(),
        path_id: PathId(id),
    })
}

fn global_v6() -> impl Strategy<Value = Ipv6Addr> {
    any::<u128>().prop_map(|n| Ipv6Addr::from_bits(n >> 4 | 0x2 << 124))
}

fn link_local() -> impl Strategy<Value = Ipv6Addr> {
    any::<u64>().prop_map(|n| Ipv6Addr::from_bits(0xfe80 << 112 | u128::from(n)))
}

pub(crate) fn next_hop(family: Family) -> BoxedStrategy<NextHop> {
    match family {
        Family::V4 => (1_u8..224, any::<[u8; 3]>())
            .prop_map(|(a, [b, c, d])| NextHop::V4(Ipv4Addr::new(a, b, c, d)))
            .boxed(),
        Family::V6 => prop_oneof![
            global_v6().prop_map(NextHop::V6),
            link_local().prop_map(NextHop::V6),
            (global_v6(), link_local())
                .prop_map(|(global, link_local)| NextHop::V6Pair { global, link_local }),
        ]
        .boxed(),
    }
}

fn aggregator() -> impl Strategy<Value = Aggregator> {
    (asn(), any::<u32>()).prop_map(|(asn, id)| Aggregator {
        asn,
        id: RouterId(id),
    })
}

/// Types that we do not know, in order, with what a speaker on the way made of them.
fn unknown() -> impl Strategy<Value = Vec<UnknownAttribute>> {
    let kinds = prop_oneof![Just(0_u8), 19_u8..25, 27_u8..32, 36_u8..=255];
    btree_map(kinds, vec(any::<u8>(), 0..300), 0..3).prop_map(|all| {
        let one = |(kind, value): (u8, Vec<u8>)| UnknownAttribute {
            kind,
            partial: true,
            value: value.into(),
        };
        all.into_iter().map(one).collect()
    })
}

pub(crate) fn attributes(hop: Family) -> impl Strategy<Value = Attributes> {
    let plain = (
        path(),
        next_hop(hop),
        0_u8..3,
        option::of(any::<u32>()),
        option::of(any::<u32>()),
        any::<bool>(),
        vec(any::<u32>(), 0..80),
        vec(any::<(u32, u32, u32)>(), 0..30),
    );
    let rare = (
        option::of(aggregator()),
        option::of(any::<u32>()),
        vec(any::<u32>(), 0..4),
        vec(any::<[u8; 8]>(), 0..40),
        option::of(asn()),
        option::of(any::<u64>()),
        unknown(),
    );
    (plain, option::of(rare)).prop_map(
        |((path, hop, origin, med, pref, atomic, communities, large), rare)| {
            let mut a = Attributes::new(hop);
            a.as_path = path;
            a.origin = Origin::from_u8(origin).unwrap();
            a.med = med;
            a.local_pref = pref;
            a.atomic_aggregate = atomic;
            a.communities = communities.into_iter().map(Community).collect();
            let large = large.into_iter().map(|(g, local1, local2)| LargeCommunity {
                global: Asn(g),
                local1,
                local2,
            });
            a.large_communities = large.collect();
            if let Some((by, originator, clusters, ext, otc, aigp, unknown)) = rare {
                a.edit_rare(|r| {
                    r.aggregator = by;
                    r.originator_id = originator.map(RouterId);
                    r.cluster_list = clusters.into_iter().map(ClusterId).collect();
                    r.ext_communities = ext.into_iter().map(ExtCommunity).collect();
                    r.otc = otc;
                    r.aigp = aigp;
                    r.unknown = unknown.into();
                });
            }
            a
        },
    )
}

pub(crate) fn encoding() -> impl Strategy<Value = Encoding> {
    any::<(bool, bool, bool, bool)>().prop_map(|(four_octet_as, extended_message, v4, v6)| {
        Encoding {
            four_octet_as,
            extended_message,
            v4_over_v6: true,
            add_path: PerFamily { v4, v6 },
        }
    })
}

fn afi_safi() -> impl Strategy<Value = AfiSafi> {
    any::<(u16, u8)>().prop_map(|(afi, safi)| AfiSafi { afi, safi })
}

pub(crate) fn capability() -> impl Strategy<Value = Capability> {
    let add_path = (afi_safi(), 1_u8..4).prop_map(|(family, mode)| AddPath {
        family,
        receive: mode & 1 != 0,
        send: mode & 2 != 0,
    });
    let next_hop = (afi_safi(), any::<u16>()).prop_map(|(routes, next_hop_afi)| ExtendedNextHop {
        routes,
        next_hop_afi,
    });
    let kept = (afi_safi(), any::<bool>())
        .prop_map(|(family, forwarding)| RestartFamily { family, forwarding });
    let restart = (any::<(bool, bool)>(), 0_u16..4096, vec(kept, 0..5)).prop_map(
        |((restarting, notification), time, families)| GracefulRestart {
            restarting,
            notification,
            time,
            families,
        },
    );
    let long =
        (afi_safi(), any::<bool>(), 0_u32..1 << 24).prop_map(|(family, forwarding, stale_time)| {
            LongLived {
                family,
                forwarding,
                stale_time,
            }
        });
    prop_oneof![
        afi_safi().prop_map(Capability::MultiProtocol),
        Just(Capability::RouteRefresh),
        vec(next_hop, 0..5).prop_map(Capability::ExtendedNextHop),
        Just(Capability::ExtendedMessage),
        any::<u8>().prop_map(|r| Capability::Role(Role::from_u8(r))),
        restart.prop_map(Capability::GracefulRestart),
        vec(add_path, 0..5).prop_map(Capability::AddPath),
        Just(Capability::EnhancedRouteRefresh),
        vec(long, 0..5).prop_map(Capability::LongLivedGracefulRestart),
        ("[a-z]{0,20}", "[a-z.]{0,20}")
            .prop_map(|(host, domain)| Capability::Fqdn { host, domain }),
        "[ -~]{0,60}".prop_map(Capability::SoftwareVersion),
        (128_u8..=255, vec(any::<u8>(), 0..40)).prop_map(|(code, value)| Capability::Unknown {
            code,
            value: value.into(),
        }),
    ]
}

pub(crate) fn open() -> impl Strategy<Value = Open> {
    let hold = prop_oneof![Just(0_u16), 3_u16..];
    (asn(), hold, 1_u32.., vec(capability(), 0..12)).prop_map(|(asn, hold_time, id, mut caps)| {
        caps.insert(caps.len() / 2, Capability::FourOctetAs(asn));
        Open {
            asn,
            hold_time,
            router_id: RouterId(id),
            capabilities: caps,
        }
    })
}
