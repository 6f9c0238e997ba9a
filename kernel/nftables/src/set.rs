//! Sets, maps and their members; a whole ruleset as one value.
//!
//! Promises: a member says which kind of set it fits; of a map's members one a key can hold.
//! Never: knows a socket, or what a set is wanted for.

use crate::value::{Chain, ChainName, Per, SetName, TableName, Verdict};
use net::{Cidr, Family, IfName, PortRange, Protocol};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// What packets a table sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub enum TableFamily {
    /// IPv4 and IPv6.
    #[default]
    Inet,
    /// ARP, in [`crate::Hook::Input`] and [`crate::Hook::Output`]. Of the matches only those on
    /// interfaces, marks and ARP mean something there.
    Arp,
}

/// A rate of packets, and how many may come at once on top.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Rate {
    packets: u32,
    per: Per,
    burst: u32,
}

impl Rate {
    /// What a set of rates is declared with; each member says its own.
    pub(crate) const TEMPLATE: Self = Self {
        packets: 1,
        per: Per::Second,
        burst: 5,
    };

    /// So many packets per `per`, and `burst` at once on top; of neither less than one, since
    /// the kernel knows no rate of nothing and takes a burst of 0 for one of 5.
    pub fn new(packets: u32, per: Per, burst: u32) -> Self {
        Self {
            packets: packets.max(1),
            per,
            burst: burst.max(1),
        }
    }

    /// Packets per [`Rate::per`].
    pub const fn packets(&self) -> u32 {
        self.packets
    }

    /// The time.
    pub const fn per(&self) -> Per {
        self.per
    }

    /// Packets allowed at once on top.
    pub const fn burst(&self) -> u32 {
        self.burst
    }
}

/// The type of a set's elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SetKind {
    /// Single addresses; a hash.
    Addr(Family),
    /// Prefixes that never overlap (touching is fine).
    Net(Family),
    /// (address, protocol, port); a hash.
    AddrProtoPort(Family),
    /// (source prefix, destination prefix) that never overlap.
    NetPair(Family),
    /// Interface names.
    IfName,
    /// A map from interface name to verdict.
    IfNameVerdict,
    /// (prefix, protocol, port range) that never overlap.
    NetProtoPorts(Family),
    /// (interface name, address); a hash.
    IfNameAddr(Family),
    /// A map from address to address, for [`crate::Statement::DnatMap`] and
    /// [`crate::Statement::SnatMap`].
    AddrToAddr(Family),
    /// Interface names, each with a packet rate of its own. A match on the set
    /// ([`crate::IfPattern::InSet`]) counts the packet, and holds only while the interface is
    /// above its rate. Negated it holds for interfaces that are not members.
    IfNameOverRate,
    /// Interface names, each with a number of connections. A match on the set counts the
    /// packet's connection, and holds only while the interface has more than that number.
    /// Connections that end are forgotten. Negated as [`SetKind::IfNameOverRate`].
    IfNameOverCount,
}

impl SetKind {
    /// Whether members have values, one a key.
    pub const fn is_map(self) -> bool {
        matches!(
            self,
            Self::IfNameVerdict
                | Self::AddrToAddr(_)
                | Self::IfNameOverRate
                | Self::IfNameOverCount
        )
    }
}

/// A member of a set or map.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Element {
    /// Of [`SetKind::Addr`].
    Addr(IpAddr),
    /// Of [`SetKind::Net`].
    Net(Cidr),
    /// Of [`SetKind::AddrProtoPort`].
    AddrProtoPort(IpAddr, Protocol, u16),
    /// Of [`SetKind::NetPair`]: source, destination.
    NetPair(Cidr, Cidr),
    /// Of [`SetKind::IfName`].
    IfName(IfName),
    /// Of [`SetKind::IfNameVerdict`].
    IfNameVerdict(IfName, Verdict),
    /// Of [`SetKind::NetProtoPorts`].
    NetProtoPorts(Cidr, Protocol, PortRange),
    /// Of [`SetKind::IfNameAddr`].
    IfNameAddr(IfName, IpAddr),
    /// Of [`SetKind::AddrToAddr`]: what stands in the packet, what shall stand there.
    AddrToAddr(IpAddr, IpAddr),
    /// Of [`SetKind::IfNameOverRate`].
    IfNameOverRate(IfName, Rate),
    /// Of [`SetKind::IfNameOverCount`].
    IfNameOverCount(IfName, u32),
}

impl Element {
    /// Of a map's member what it is known by; a map has one member of each key.
    pub fn key(&self) -> Option<Element> {
        match self {
            Self::AddrToAddr(a, _) => Some(Self::Addr(*a)),
            Self::IfNameVerdict(i, _)
            | Self::IfNameOverRate(i, _)
            | Self::IfNameOverCount(i, _) => Some(Self::IfName(*i)),
            _ => None,
        }
    }

    /// Whether it can be a member of a set of that kind.
    pub fn fits(&self, kind: SetKind) -> bool {
        match (self, kind) {
            (Self::Addr(a), SetKind::Addr(f))
            | (Self::IfNameAddr(_, a), SetKind::IfNameAddr(f))
            | (Self::AddrProtoPort(a, ..), SetKind::AddrProtoPort(f)) => Family::of(*a) == f,
            (Self::Net(n), SetKind::Net(f))
            | (Self::NetProtoPorts(n, ..), SetKind::NetProtoPorts(f)) => n.family() == f,
            (Self::NetPair(a, b), SetKind::NetPair(f)) => a.family() == f && b.family() == f,
            (Self::AddrToAddr(a, b), SetKind::AddrToAddr(f)) => {
                Family::of(*a) == f && Family::of(*b) == f
            }
            (Self::IfName(_), SetKind::IfName)
            | (Self::IfNameVerdict(..), SetKind::IfNameVerdict)
            | (Self::IfNameOverRate(..), SetKind::IfNameOverRate)
            | (Self::IfNameOverCount(..), SetKind::IfNameOverCount) => true,
            _ => false,
        }
    }
}

/// A whole ruleset as one value: for printing, comparing and golden tests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ruleset {
    /// What it sees.
    pub family: TableFamily,
    /// The table's name.
    pub table: TableName,
    /// Sets and maps.
    pub sets: BTreeMap<SetName, Set>,
    /// Chains.
    pub chains: BTreeMap<ChainName, Chain>,
}

impl Ruleset {
    /// An empty one of family `inet`.
    pub fn new(table: TableName) -> Self {
        Self {
            family: TableFamily::Inet,
            table,
            sets: BTreeMap::new(),
            chains: BTreeMap::new(),
        }
    }
}

/// A set or map with its members.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Set {
    /// The type of its members.
    pub kind: SetKind,
    /// The members in order.
    pub elements: std::collections::BTreeSet<Element>,
}
