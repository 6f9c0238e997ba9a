//! Communities, and the sets that hold them.
//!
//! Promises: a set is sorted and without repetition whatever it was made from, so two sets
//! of the same members are equal. Never: keeps the order in which a peer sent them; it
//! means nothing (RFC 1997, RFC 8092 section 5).

use net::Asn;
use std::fmt;
use std::str::FromStr;

/// A few values, sorted, each once, in one allocation (none while empty).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SortedSet<T>(Box<[T]>);

impl<T> SortedSet<T> {
    /// The members in order.
    pub fn as_slice(&self) -> &[T] {
        &self.0
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }
}

impl<T> Default for SortedSet<T> {
    fn default() -> Self {
        Self(Box::default())
    }
}

impl<T: Copy + Ord> SortedSet<T> {
    /// Whether `member` is in it.
    pub fn contains(&self, member: T) -> bool {
        self.0.binary_search(&member).is_ok()
    }

    /// Adds one; says whether it is new.
    pub fn insert(&mut self, member: T) -> bool {
        let Err(at) = self.0.binary_search(&member) else {
            return false;
        };
        let mut v = std::mem::take(&mut self.0).into_vec();
        v.insert(at, member);
        self.0 = v.into();
        true
    }

    /// Keeps the members that `keep` wants.
    pub fn retain(&mut self, keep: impl FnMut(&T) -> bool) {
        let mut v = std::mem::take(&mut self.0).into_vec();
        v.retain(keep);
        self.0 = v.into();
    }

    /// The members in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = T> + '_ {
        self.0.iter().copied()
    }
}

impl<T: Copy + Ord> FromIterator<T> for SortedSet<T> {
    fn from_iter<I: IntoIterator<Item = T>>(members: I) -> Self {
        let mut v: Vec<T> = members.into_iter().collect();
        // What peers send is nearly always sorted already.
        if !v.is_sorted_by(|a, b| a < b) {
            v.sort_unstable();
            v.dedup();
        }
        Self(v.into())
    }
}

/// A community that does not parse.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no community")]
pub struct BadCommunity(String);

/// A community (RFC 1997); prints as `high:low`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Community(pub u32);

impl Community {
    /// Traffic should be drained from this path (RFC 8326).
    pub const GRACEFUL_SHUTDOWN: Self = Self(0xffff_0000);
    /// Stale by long-lived graceful restart (RFC 9494).
    pub const LLGR_STALE: Self = Self(0xffff_0006);
    /// Not to be kept by long-lived graceful restart (RFC 9494).
    pub const NO_LLGR: Self = Self(0xffff_0007);
    /// Traffic is to be dropped (RFC 7999).
    pub const BLACKHOLE: Self = Self(0xffff_029a);
    /// Not outside of the confederation (RFC 1997).
    pub const NO_EXPORT: Self = Self(0xffff_ff01);
    /// To nobody (RFC 1997).
    pub const NO_ADVERTISE: Self = Self(0xffff_ff02);
    /// Not outside of the AS (RFC 1997).
    pub const NO_EXPORT_SUBCONFED: Self = Self(0xffff_ff03);

    /// From its two halves.
    pub const fn new(high: u16, low: u16) -> Self {
        Self((high as u32) << 16 | low as u32)
    }
}

impl fmt::Display for Community {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.0 >> 16, self.0 & 0xffff)
    }
}

impl FromStr for Community {
    type Err = BadCommunity;

    fn from_str(s: &str) -> Result<Self, BadCommunity> {
        let bad = || BadCommunity(s.to_owned());
        let (high, low) = s.split_once(':').ok_or_else(bad)?;
        match (high.parse(), low.parse()) {
            (Ok(high), Ok(low)) => Ok(Self::new(high, low)),
            _ => Err(bad()),
        }
    }
}

/// A large community (RFC 8092); prints as `global:local1:local2`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LargeCommunity {
    /// Whose namespace it is.
    pub global: Asn,
    /// First part, as that AS defines it.
    pub local1: u32,
    /// Second part, as that AS defines it.
    pub local2: u32,
}

impl fmt::Display for LargeCommunity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.global, self.local1, self.local2)
    }
}

impl FromStr for LargeCommunity {
    type Err = BadCommunity;

    fn from_str(s: &str) -> Result<Self, BadCommunity> {
        let bad = || BadCommunity(s.to_owned());
        let mut parts = s.split(':').map(str::parse::<u32>);
        match (parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some(Ok(global)), Some(Ok(local1)), Some(Ok(local2)), None) => Ok(Self {
                global: Asn(global),
                local1,
                local2,
            }),
            _ => Err(bad()),
        }
    }
}

/// An extended community (RFC 4360): type, subtype and six octets of value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ExtCommunity(pub [u8; 8]);

impl ExtCommunity {
    /// Whether it may leave the AS (RFC 4360, section 2: the T bit is clear).
    pub const fn is_transitive(self) -> bool {
        self.0[0] & 0x40 == 0
    }
}

impl fmt::Display for ExtCommunity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [t, s, a, b, c, d, e, g] = self.0;
        let name = match s {
            2 => "rt",
            3 => "ro",
            _ => return write!(f, "0x{:016x}", u64::from_be_bytes(self.0)),
        };
        match t & 0x3f {
            0 => {
                let (asn, n) = (u16::from_be_bytes([a, b]), u32::from_be_bytes([c, d, e, g]));
                write!(f, "{name}:{asn}:{n}")
            }
            1 => write!(f, "{name}:{a}.{b}.{c}.{d}:{}", u16::from_be_bytes([e, g])),
            2 => {
                let (asn, n) = (u32::from_be_bytes([a, b, c, d]), u16::from_be_bytes([e, g]));
                write!(f, "{name}:{asn}:{n}")
            }
            _ => write!(f, "0x{:016x}", u64::from_be_bytes(self.0)),
        }
    }
}
