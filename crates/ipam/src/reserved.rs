//! Addresses that are never given out automatically.

use net::{Cidr, Family};
use std::net::IpAddr;

/// A union of reserved prefixes, as disjoint intervals, so that two adjacent halves
/// reserve a block as well as one prefix does.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reservations {
    /// First and last address bits, sorted, neither overlapping nor adjacent.
    spans: [Vec<(u128, u128)>; 2],
}

const fn slot(f: Family) -> usize {
    match f {
        Family::V4 => 0,
        Family::V6 => 1,
    }
}

impl Reservations {
    /// The union of these prefixes, the `reservedCIDRs` of all IPReservations.
    pub fn new(cidrs: impl IntoIterator<Item = Cidr>) -> Self {
        let mut out = Self::default();
        for c in cidrs {
            out.spans[slot(c.family())]
                .push((Family::bits_of(c.addr()), Family::bits_of(c.last())));
        }
        for spans in &mut out.spans {
            spans.sort_unstable();
            let mut merged: Vec<(u128, u128)> = Vec::with_capacity(spans.len());
            for &(first, last) in spans.iter() {
                match merged.last_mut() {
                    Some(m) if first <= m.1.saturating_add(1) => m.1 = m.1.max(last),
                    _ => merged.push((first, last)),
                }
            }
            *spans = merged;
        }
        out
    }

    fn span_at(&self, addr: IpAddr) -> Option<(u128, u128)> {
        let bits = Family::bits_of(addr);
        let spans = &self.spans[slot(Family::of(addr))];
        let i = spans.partition_point(|s| s.0 <= bits);
        spans
            .get(i.checked_sub(1)?)
            .filter(|s| bits <= s.1)
            .copied()
    }

    /// Whether `addr` is reserved.
    pub fn contains(&self, addr: IpAddr) -> bool {
        self.span_at(addr).is_some()
    }

    /// When all of `cidr` is reserved, the last address of the reserved stretch it lies in.
    pub fn covering_end(&self, cidr: Cidr) -> Option<IpAddr> {
        let (_, last) = self.span_at(cidr.addr())?;
        (Family::bits_of(cidr.last()) <= last).then(|| cidr.family().addr(last))
    }

    /// How many addresses of `cidr` are reserved.
    pub fn count_in(&self, cidr: Cidr) -> u128 {
        let (lo, hi) = (Family::bits_of(cidr.addr()), Family::bits_of(cidr.last()));
        self.spans[slot(cidr.family())]
            .iter()
            .filter(|s| s.0 <= hi && s.1 >= lo)
            .map(|s| (s.1.min(hi) - s.0.max(lo)).saturating_add(1))
            .fold(0, u128::saturating_add)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn c(s: &str) -> Cidr {
        s.parse().expect("test CIDR")
    }

    #[test]
    fn adjacent_prefixes_cover_together() {
        let r = Reservations::new([
            c("10.0.0.64/27"),
            c("10.0.0.96/27"),
            c("10.0.0.70"),
            c("fd00::/64"),
        ]);
        assert_eq!(
            r.covering_end(c("10.0.0.64/26")),
            Some(c("10.0.0.127").addr())
        );
        assert_eq!(r.covering_end(c("10.0.0.0/25")), None);
        assert_eq!(r.count_in(c("10.0.0.0/24")), 64);
        assert_eq!(r.count_in(c("::/0")), 1 << 64);
        assert!(r.contains(c("fd00::1").addr()) && !r.contains(c("10.0.0.128").addr()));
        assert!(Reservations::new([c("0.0.0.0/0")]).contains(c("255.255.255.255").addr()));
    }
}
