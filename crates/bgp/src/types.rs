//! The small values of the protocol: families, prefixes with path ids, identifiers.
//!
//! Promises: each is `Copy`, compares as the RFCs compare it, and prints as operators
//! write it. Never: knows how a message is laid out.

use net::{Cidr, Family};
use std::fmt;
use std::net::Ipv4Addr;
use std::ops::{Index, IndexMut};

/// An address family and its subsequent identifier, as numbered by IANA.
///
/// Any pair can stand here, since peers offer families that we do not carry;
/// [`AfiSafi::family`] tells those that we do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AfiSafi {
    /// Address family identifier: 1 is IPv4, 2 is IPv6.
    pub afi: u16,
    /// Subsequent address family identifier: 1 is unicast.
    pub safi: u8,
}

impl AfiSafi {
    /// IPv4 unicast.
    pub const IPV4_UNICAST: Self = Self { afi: 1, safi: 1 };
    /// IPv6 unicast.
    pub const IPV6_UNICAST: Self = Self { afi: 2, safi: 1 };

    /// The unicast pair of a family.
    pub const fn unicast(family: Family) -> Self {
        match family {
            Family::V4 => Self::IPV4_UNICAST,
            Family::V6 => Self::IPV6_UNICAST,
        }
    }

    /// The family whose unicast routes these are; `None` for what we do not carry.
    pub const fn family(self) -> Option<Family> {
        match self {
            Self { afi: 1, safi: 1 } => Some(Family::V4),
            Self { afi: 2, safi: 1 } => Some(Family::V6),
            _ => None,
        }
    }
}

impl fmt::Display for AfiSafi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.family() {
            Some(family) => write!(f, "{family} unicast"),
            None => write!(f, "AFI {} SAFI {}", self.afi, self.safi),
        }
    }
}

/// One value for each family that we carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct PerFamily<T> {
    /// Of IPv4 unicast.
    pub v4: T,
    /// Of IPv6 unicast.
    pub v6: T,
}

impl<T> PerFamily<T> {
    /// Both made by the same function.
    pub fn from_fn(mut f: impl FnMut(Family) -> T) -> Self {
        Self {
            v4: f(Family::V4),
            v6: f(Family::V6),
        }
    }

    /// Both, IPv4 first.
    pub fn iter(&self) -> impl Iterator<Item = (Family, &T)> {
        [(Family::V4, &self.v4), (Family::V6, &self.v6)].into_iter()
    }
}

impl<T> Index<Family> for PerFamily<T> {
    type Output = T;

    fn index(&self, family: Family) -> &T {
        match family {
            Family::V4 => &self.v4,
            Family::V6 => &self.v6,
        }
    }
}

impl<T> IndexMut<Family> for PerFamily<T> {
    fn index_mut(&mut self, family: Family) -> &mut T {
        match family {
            Family::V4 => &mut self.v4,
            Family::V6 => &mut self.v6,
        }
    }
}

/// Tells several paths to one prefix apart (RFC 7911, section 3). It means something only
/// to the speaker that chose it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct PathId(pub u32);

impl PathId {
    /// What stands for "no path id" where ADD-PATH is not in use.
    pub const NONE: Self = Self(0);
}

impl fmt::Display for PathId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What a route is to: a prefix, and which of the speaker's paths to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Nlri {
    /// The destination.
    pub prefix: Cidr,
    /// Which path; [`PathId::NONE`] where ADD-PATH is not in use.
    pub path_id: PathId,
}

impl From<Cidr> for Nlri {
    fn from(prefix: Cidr) -> Self {
        Self {
            prefix,
            path_id: PathId::NONE,
        }
    }
}

impl fmt::Display for Nlri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.path_id {
            PathId::NONE => self.prefix.fmt(f),
            id => write!(f, "{} path {id}", self.prefix),
        }
    }
}

/// A BGP identifier: any number but zero, unique within an AS (RFC 6286). Compares as
/// an unsigned number, prints as four octets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RouterId(pub u32);

impl From<Ipv4Addr> for RouterId {
    fn from(a: Ipv4Addr) -> Self {
        Self(a.to_bits())
    }
}

impl fmt::Display for RouterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Ipv4Addr::from_bits(self.0).fmt(f)
    }
}

/// Names a cluster of route reflectors (RFC 4456, section 7); prints as four octets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClusterId(pub u32);

impl From<Ipv4Addr> for ClusterId {
    fn from(a: Ipv4Addr) -> Self {
        Self(a.to_bits())
    }
}

impl From<RouterId> for ClusterId {
    /// A reflector without a cluster id uses its router id (RFC 4456, section 7).
    fn from(id: RouterId) -> Self {
        Self(id.0)
    }
}

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Ipv4Addr::from_bits(self.0).fmt(f)
    }
}

/// Stands for an AS number that does not fit two octets (RFC 6793, section 9).
pub const AS_TRANS: net::Asn = net::Asn(23456);

/// How the peer's AS relates to ours. What an attribute may be depends on it (RFC 7606,
/// sections 7.5, 7.9, 7.10; RFC 5065, section 5.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum PeerKind {
    /// The same AS.
    Internal,
    /// Another AS outside of our confederation.
    #[default]
    External,
    /// Another member AS of our confederation (RFC 5065).
    Confederation,
}

impl PeerKind {
    /// Whether LOCAL_PREF is carried: within the AS or the confederation.
    pub const fn carries_local_pref(self) -> bool {
        matches!(self, Self::Internal | Self::Confederation)
    }
}
