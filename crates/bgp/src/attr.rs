//! What a route carries: the path attributes, owned, compact and in one canonical form.
//!
//! Promises: equal meaning is equal value is equal hash, so that attributes can be
//! interned: sets are sorted and without repetition, AS paths have one encoding, and what
//! is rare takes one pointer while it is absent. Never: holds a next hop for two families;
//! an UPDATE that announces both gives two values.

use crate::types::{ClusterId, RouterId};
use net::{Asn, Family};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::LazyLock;

mod path;
mod set;

pub use path::{AsPath, AsnIter, Segment, SegmentKind, Segments};
pub use set::{Community, ExtCommunity, LargeCommunity, SortedSet};

/// Attribute types (IANA, "BGP Path Attributes").
pub mod code {
    /// RFC 4271.
    pub const ORIGIN: u8 = 1;
    /// RFC 4271.
    pub const AS_PATH: u8 = 2;
    /// RFC 4271.
    pub const NEXT_HOP: u8 = 3;
    /// RFC 4271.
    pub const MULTI_EXIT_DISC: u8 = 4;
    /// RFC 4271.
    pub const LOCAL_PREF: u8 = 5;
    /// RFC 4271.
    pub const ATOMIC_AGGREGATE: u8 = 6;
    /// RFC 4271.
    pub const AGGREGATOR: u8 = 7;
    /// RFC 1997.
    pub const COMMUNITIES: u8 = 8;
    /// RFC 4456.
    pub const ORIGINATOR_ID: u8 = 9;
    /// RFC 4456.
    pub const CLUSTER_LIST: u8 = 10;
    /// RFC 4760.
    pub const MP_REACH_NLRI: u8 = 14;
    /// RFC 4760.
    pub const MP_UNREACH_NLRI: u8 = 15;
    /// RFC 4360.
    pub const EXT_COMMUNITIES: u8 = 16;
    /// RFC 6793.
    pub const AS4_PATH: u8 = 17;
    /// RFC 6793.
    pub const AS4_AGGREGATOR: u8 = 18;
    /// RFC 5701.
    pub const IPV6_EXT_COMMUNITIES: u8 = 25;
    /// RFC 7311.
    pub const AIGP: u8 = 26;
    /// RFC 8092.
    pub const LARGE_COMMUNITIES: u8 = 32;
    /// RFC 9234.
    pub const OTC: u8 = 35;
}

/// The name of an attribute type that we know.
pub const fn type_name(t: u8) -> Option<&'static str> {
    Some(match t {
        code::ORIGIN => "ORIGIN",
        code::AS_PATH => "AS_PATH",
        code::NEXT_HOP => "NEXT_HOP",
        code::MULTI_EXIT_DISC => "MULTI_EXIT_DISC",
        code::LOCAL_PREF => "LOCAL_PREF",
        code::ATOMIC_AGGREGATE => "ATOMIC_AGGREGATE",
        code::AGGREGATOR => "AGGREGATOR",
        code::COMMUNITIES => "COMMUNITIES",
        code::ORIGINATOR_ID => "ORIGINATOR_ID",
        code::CLUSTER_LIST => "CLUSTER_LIST",
        code::MP_REACH_NLRI => "MP_REACH_NLRI",
        code::MP_UNREACH_NLRI => "MP_UNREACH_NLRI",
        code::EXT_COMMUNITIES => "EXTENDED COMMUNITIES",
        code::AS4_PATH => "AS4_PATH",
        code::AS4_AGGREGATOR => "AS4_AGGREGATOR",
        code::IPV6_EXT_COMMUNITIES => "IPv6 EXTENDED COMMUNITIES",
        code::AIGP => "AIGP",
        code::LARGE_COMMUNITIES => "LARGE_COMMUNITY",
        code::OTC => "ONLY_TO_CUSTOMER",
        _ => return None,
    })
}

/// Where a route came from (RFC 4271, section 5.1.1). Lower is preferred.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub enum Origin {
    /// Interior to the originating AS.
    #[default]
    Igp = 0,
    /// From EGP.
    Egp = 1,
    /// By some other means.
    Incomplete = 2,
}

impl Origin {
    /// The value on the wire.
    pub const fn from_u8(n: u8) -> Option<Self> {
        match n {
            0 => Some(Self::Igp),
            1 => Some(Self::Egp),
            2 => Some(Self::Incomplete),
            _ => None,
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Igp => "IGP",
            Self::Egp => "EGP",
            Self::Incomplete => "Incomplete",
        })
    }
}

/// Where to send packets. For IPv4 routes it can be an IPv6 address (RFC 8950).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum NextHop {
    /// An IPv4 address.
    V4(Ipv4Addr),
    /// An IPv6 address, of whatever scope.
    V6(Ipv6Addr),
    /// A global address and, for peers on the link, its link-local one (RFC 2545).
    V6Pair {
        /// The global address.
        global: Ipv6Addr,
        /// The link-local address.
        link_local: Ipv6Addr,
    },
}

impl NextHop {
    /// The address to resolve: the global one of a pair.
    pub const fn addr(self) -> IpAddr {
        match self {
            Self::V4(a) => IpAddr::V4(a),
            Self::V6(a) | Self::V6Pair { global: a, .. } => IpAddr::V6(a),
        }
    }

    /// The link-local address, where there is one: alone or in a pair.
    pub const fn link_local(self) -> Option<Ipv6Addr> {
        match self {
            Self::V6(a) if a.is_unicast_link_local() => Some(a),
            Self::V6Pair { link_local, .. } => Some(link_local),
            Self::V4(_) | Self::V6(_) => None,
        }
    }

    /// The family of the addresses.
    pub const fn family(self) -> Family {
        Family::of(self.addr())
    }
}

impl From<IpAddr> for NextHop {
    fn from(a: IpAddr) -> Self {
        match a {
            IpAddr::V4(a) => Self::V4(a),
            IpAddr::V6(a) => Self::V6(a),
        }
    }
}

impl fmt::Display for NextHop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::V6Pair { global, link_local } => write!(f, "{global} {link_local}"),
            one => one.addr().fmt(f),
        }
    }
}

/// Who aggregated the route (RFC 4271, section 5.1.7).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Aggregator {
    /// Its AS.
    pub asn: Asn,
    /// Its identifier.
    pub id: RouterId,
}

/// An optional transitive attribute that we do not know, to be passed on.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct UnknownAttribute {
    /// The type.
    pub kind: u8,
    /// Whether some speaker on the way did not know it; we set it on receipt, being one.
    pub partial: bool,
    /// The value, as received.
    pub value: Box<[u8]>,
}

/// Attributes that most routes do not have.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Rare {
    /// Who aggregated the route.
    pub aggregator: Option<Aggregator>,
    /// Which router of the AS brought the route in (RFC 4456, section 8).
    pub originator_id: Option<RouterId>,
    /// The clusters that it has passed, the latest first (RFC 4456, section 8).
    pub cluster_list: Box<[ClusterId]>,
    /// RFC 4360.
    pub ext_communities: SortedSet<ExtCommunity>,
    /// Who marked the route as only for customers (RFC 9234).
    pub otc: Option<Asn>,
    /// The accumulated IGP metric (RFC 7311).
    pub aigp: Option<u64>,
    /// Optional transitive attributes that we do not know, by type.
    pub unknown: Box<[UnknownAttribute]>,
}

static NOTHING_RARE: LazyLock<Rare> = LazyLock::new(Rare::default);

/// The attributes of a route.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Attributes {
    /// The ASes that the route has passed.
    pub as_path: AsPath,
    /// RFC 1997.
    pub communities: SortedSet<Community>,
    /// RFC 8092.
    pub large_communities: SortedSet<LargeCommunity>,
    /// Absent while nothing rare is set, so that equal meaning is equal value.
    rare: Option<Box<Rare>>,
    /// Which of several links to a neighbouring AS to take, lowest first; never sent on
    /// to a third AS.
    pub med: Option<u32>,
    /// The preference within our AS, highest first.
    pub local_pref: Option<u32>,
    /// Where to send packets.
    pub next_hop: NextHop,
    /// Where the route came from.
    pub origin: Origin,
    /// An aggregate that hides ASes.
    pub atomic_aggregate: bool,
}

impl Attributes {
    /// Those of a route that starts here: IGP, an empty path, nothing else.
    pub fn new(next_hop: NextHop) -> Self {
        Self {
            as_path: AsPath::default(),
            communities: SortedSet::default(),
            large_communities: SortedSet::default(),
            rare: None,
            med: None,
            local_pref: None,
            next_hop,
            origin: Origin::Igp,
            atomic_aggregate: false,
        }
    }

    /// What most routes do not have.
    pub fn rare(&self) -> &Rare {
        self.rare.as_deref().unwrap_or(&NOTHING_RARE)
    }

    /// Changes what most routes do not have.
    pub fn edit_rare(&mut self, edit: impl FnOnce(&mut Rare)) {
        let mut rare = self.rare.take().unwrap_or_default();
        edit(&mut rare);
        self.rare = (*rare != *NOTHING_RARE).then_some(rare);
    }

    /// The octets that it holds on the heap, its own size not counted.
    pub fn heap_size(&self) -> usize {
        let rare = self.rare.as_ref().map_or(0, |r| {
            size_of::<Rare>()
                + size_of_val(&*r.cluster_list)
                + size_of_val(r.ext_communities.as_slice())
                + r.unknown
                    .iter()
                    .map(|u| size_of_val(u) + u.value.len())
                    .sum::<usize>()
        });
        self.as_path.heap_size()
            + size_of_val(self.communities.as_slice())
            + size_of_val(self.large_communities.as_slice())
            + rare
    }
}
