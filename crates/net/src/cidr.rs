//! Prefixes.

use crate::{Family, ParseError};
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// A prefix of either family: an address without host bits, and a length.
///
/// Orders by family, then address, then length, so that a prefix sorts
/// directly before everything inside it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Cidr {
    addr: IpAddr,
    len: u8,
}

const fn mask(family: Family, len: u8) -> u128 {
    let bits = family.bits();
    let all = if bits == 128 {
        u128::MAX
    } else {
        (1 << bits) - 1
    };
    if len == 0 {
        0
    } else {
        (all << (bits - len)) & all
    }
}

impl Cidr {
    /// The prefix of `len` bits that holds `addr`; host bits are cleared.
    /// `None` where `len` is longer than an address.
    pub const fn new(addr: IpAddr, len: u8) -> Option<Self> {
        let family = Family::of(addr);
        if len > family.bits() {
            return None;
        }
        Some(Self {
            addr: family.addr(Family::bits_of(addr) & mask(family, len)),
            len,
        })
    }

    /// The prefix of one address: /32 or /128.
    pub const fn host(addr: IpAddr) -> Self {
        Self {
            addr,
            len: Family::of(addr).bits(),
        }
    }

    /// Everything of a family: `0.0.0.0/0` or `::/0`.
    pub const fn any(family: Family) -> Self {
        Self {
            addr: family.addr(0),
            len: 0,
        }
    }

    /// The network address.
    pub const fn addr(self) -> IpAddr {
        self.addr
    }

    /// The prefix length in bits.
    #[expect(
        clippy::len_without_is_empty,
        reason = "a length in bits, not a collection"
    )]
    pub const fn len(self) -> u8 {
        self.len
    }

    /// IPv4 or IPv6.
    pub const fn family(self) -> Family {
        Family::of(self.addr)
    }

    /// Whether it holds just one address.
    pub const fn is_host(self) -> bool {
        self.len == self.family().bits()
    }

    /// Whether `addr` lies inside. Never across families.
    pub fn contains(self, addr: IpAddr) -> bool {
        self.family() == Family::of(addr)
            && Family::bits_of(addr) & mask(self.family(), self.len) == Family::bits_of(self.addr)
    }

    /// Whether all of `other` lies inside; a prefix covers itself.
    pub fn covers(self, other: Self) -> bool {
        self.len <= other.len && self.contains(other.addr)
    }

    /// Whether the two share an address.
    pub fn overlaps(self, other: Self) -> bool {
        self.covers(other) || other.covers(self)
    }

    /// The last address inside.
    pub const fn last(self) -> IpAddr {
        let f = self.family();
        f.addr(Family::bits_of(self.addr) | !mask(f, self.len))
    }

    /// How many addresses it holds; `u128::MAX` for `::/0`, one short of the truth.
    pub const fn size(self) -> u128 {
        let host = self.family().bits() - self.len;
        if host == 128 { u128::MAX } else { 1 << host }
    }

    /// The address at `offset` from the network address; `None` past the end.
    pub const fn nth(self, offset: u128) -> Option<IpAddr> {
        if offset >= self.size() {
            return None;
        }
        Some(self.family().addr(Family::bits_of(self.addr) + offset))
    }

    /// How far `addr` is from the network address; `None` when outside.
    pub fn offset_of(self, addr: IpAddr) -> Option<u128> {
        self.contains(addr)
            .then(|| Family::bits_of(addr) - Family::bits_of(self.addr))
    }

    /// The next shorter prefix; `None` for /0.
    pub const fn parent(self) -> Option<Self> {
        if self.len == 0 {
            None
        } else {
            Self::new(self.addr, self.len - 1)
        }
    }

    /// The `index`th sub-prefix of length `len`; `None` when there is no such one.
    pub const fn subnet(self, len: u8, index: u128) -> Option<Self> {
        let bits = self.family().bits();
        if len < self.len || len > bits {
            return None;
        }
        let room = len - self.len;
        if room < 128 && index >= 1 << room {
            return None;
        }
        let shift = bits - len;
        let off = if shift == 128 { 0 } else { index << shift };
        Self::new(self.family().addr(Family::bits_of(self.addr) + off), len)
    }

    /// How many sub-prefixes of length `len` there are; zero when `len` is shorter.
    pub const fn subnets(self, len: u8) -> u128 {
        if len < self.len || len > self.family().bits() {
            return 0;
        }
        let room = len - self.len;
        if room == 128 { u128::MAX } else { 1 << room }
    }

    /// Parses a CIDR that must have no host bits, as pools and policy nets demand.
    ///
    /// # Errors
    /// When the text is no CIDR or has host bits. A bare address is refused.
    pub fn parse_strict(s: &str) -> Result<Self, ParseError> {
        let bad = || ParseError::new("CIDR", s);
        let (a, l) = s.split_once('/').ok_or_else(bad)?;
        let addr: IpAddr = a.parse().map_err(|_| bad())?;
        let len = parse_len(l).ok_or_else(bad)?;
        let c = Self::new(addr, len).ok_or_else(bad)?;
        if c.addr == addr {
            Ok(c)
        } else {
            Err(ParseError::new("CIDR (it has host bits)", s))
        }
    }
}

fn parse_len(s: &str) -> Option<u8> {
    if s.is_empty() || s.len() > 3 || !s.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    s.parse().ok()
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.addr, self.len)
    }
}

/// Parses `address/length` or a bare address (a host prefix); host bits are cleared.
impl FromStr for Cidr {
    type Err = ParseError;

    fn from_str(s: &str) -> Result<Self, ParseError> {
        let bad = || ParseError::new("CIDR", s);
        match s.split_once('/') {
            None => s.parse().map(Self::host).map_err(|_| bad()),
            Some((a, l)) => {
                let addr: IpAddr = a.parse().map_err(|_| bad())?;
                Self::new(addr, parse_len(l).ok_or_else(bad)?).ok_or_else(bad)
            }
        }
    }
}

impl From<IpAddr> for Cidr {
    fn from(addr: IpAddr) -> Self {
        Self::host(addr)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn c(s: &str) -> Cidr {
        s.parse().expect("test CIDR")
    }

    #[test]
    fn parsing_masks_and_strict_refuses_host_bits() {
        assert_eq!(c("10.1.2.3/8"), c("10.0.0.0/8"));
        assert_eq!(c("10.1.2.3").to_string(), "10.1.2.3/32");
        assert!(Cidr::parse_strict("10.1.2.3/8").is_err());
        assert!(Cidr::parse_strict("10.0.0.0").is_err());
        for bad in [
            "10.0.0.0/33",
            "10.0.0.0/",
            "10.0.0/8",
            "fd00::/129",
            "x",
            "10.0.0.0/+8",
            "10.0.0.0/-1",
        ] {
            assert!(bad.parse::<Cidr>().is_err(), "{bad}");
        }
    }

    #[test]
    fn the_extremes() {
        for f in Family::BOTH {
            let any = Cidr::any(f);
            assert!(any.contains(f.addr(u128::MAX)));
            assert_eq!(any.last(), f.addr(u128::MAX));
            assert_eq!(any.subnet(f.bits(), 5).map(|s| s.addr()), Some(f.addr(5)));
        }
        assert!(!Cidr::any(Family::V4).contains(c("::1").addr()));
        assert_eq!(c("10.0.0.0/24").subnet(26, 4), None);
        assert_eq!(c("10.0.0.0/24").subnet(26, 3), Some(c("10.0.0.192/26")));
        assert_eq!(c("10.0.0.0/24").subnets(26), 4);
    }

    proptest! {
        #[test]
        fn nth_and_offset_are_inverse(bits: u128, len in 64u8..=128, off: u64) {
            let p = Cidr::new(Family::V6.addr(bits), len).expect("length fits");
            match p.nth(u128::from(off)) {
                Some(a) => prop_assert_eq!(p.offset_of(a), Some(u128::from(off))),
                None => prop_assert!(u128::from(off) >= p.size()),
            }
        }

        #[test]
        fn text_round_trips(bits: u32, len in 0u8..=32) {
            let p = Cidr::new(Family::V4.addr(u128::from(bits)), len).expect("length fits");
            prop_assert_eq!(p.to_string().parse::<Cidr>(), Ok(p));
        }
    }
}
