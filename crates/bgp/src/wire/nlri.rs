//! Prefixes as the wire has them.
//!
//! Promises: a [`NlriBlock`] is checked once, as a whole, when it is made; walking it
//! afterwards cannot fail and copies nothing. Never: refuses bits behind a prefix's
//! length; they are cleared (RFC 4271, section 4.3: irrelevant).

use crate::error::Problem;
use crate::types::{Nlri, PathId};
use net::{Cidr, Family};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Well-formed prefixes of one family.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct NlriBlock<'a> {
    family: Family,
    add_path: bool,
    octets: &'a [u8],
}

impl<'a> NlriBlock<'a> {
    /// Checks a field of prefixes (RFC 7606, section 5.3).
    ///
    /// # Errors
    /// [`Problem::Prefix`] when a length is impossible or runs past the end.
    pub fn new(family: Family, add_path: bool, octets: &'a [u8]) -> Result<Self, Problem> {
        let id = if add_path { 4 } else { 0 };
        let mut rest = octets;
        while !rest.is_empty() {
            let &len = rest.get(id).ok_or(Problem::Prefix)?;
            if len > family.bits() {
                return Err(Problem::Prefix);
            }
            let size = id + 1 + usize::from(len).div_ceil(8);
            rest = rest.get(size..).ok_or(Problem::Prefix)?;
        }
        Ok(Self {
            family,
            add_path,
            octets,
        })
    }

    /// The family of the prefixes.
    pub const fn family(self) -> Family {
        self.family
    }

    /// Whether there is none.
    pub const fn is_empty(self) -> bool {
        self.octets.is_empty()
    }

    /// The prefixes.
    pub const fn iter(self) -> NlriIter<'a> {
        NlriIter(self)
    }
}

impl fmt::Debug for NlriBlock<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(self.iter().map(|n| n.to_string()))
            .finish()
    }
}

impl<'a> IntoIterator for NlriBlock<'a> {
    type Item = Nlri;
    type IntoIter = NlriIter<'a>;

    fn into_iter(self) -> NlriIter<'a> {
        self.iter()
    }
}

/// Walks prefixes.
#[derive(Debug, Clone)]
pub struct NlriIter<'a>(NlriBlock<'a>);

impl Iterator for NlriIter<'_> {
    type Item = Nlri;

    #[inline]
    fn next(&mut self) -> Option<Nlri> {
        let mut rest = self.0.octets;
        let mut path_id = PathId::NONE;
        if self.0.add_path {
            let (id, after) = rest.split_first_chunk::<4>()?;
            path_id = PathId(u32::from_be_bytes(*id));
            rest = after;
        }
        let (&len, after) = rest.split_first()?;
        let (bits, after) = after.split_at_checked(usize::from(len).div_ceil(8))?;
        self.0.octets = after;
        let addr = match self.0.family {
            Family::V4 => IpAddr::V4(Ipv4Addr::from(padded::<4>(bits))),
            Family::V6 => IpAddr::V6(Ipv6Addr::from(padded::<16>(bits))),
        };
        let prefix = Cidr::new(addr, len)?;
        Some(Nlri { prefix, path_id })
    }
}

/// The octets of an address of which only the first are there.
#[inline]
fn padded<const N: usize>(bits: &[u8]) -> [u8; N] {
    let mut octets = [0; N];
    for (to, from) in octets.iter_mut().zip(bits) {
        *to = *from;
    }
    octets
}
