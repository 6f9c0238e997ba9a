//! What is noted of each prefix, in little memory: of a million prefixes, 27 MB.
//!
//! Promises: a prefix is looked up in constant time and keeps its number while it is there; no other
//! can choose prefixes that collide, since a seed goes into the hash.
//!
//! Never: knows what the notes mean.

use hashbrown::HashTable;
use net::{Cidr, Family};
use std::net::IpAddr;

/// Names a row while it is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RowId {
    family: Family,
    n: u32,
}

/// Numbers from 1 on that stand for something elsewhere; 0 is nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Held {
    /// The next hops and the metric that are wanted.
    pub want: u32,
    /// The hops and the metric that the kernel has.
    pub has: u32,
    /// It was there before us, and nobody has told it yet.
    pub adopted: bool,
    /// It waits to be written.
    pub dirty: bool,
}

/// Octets of an address, as aligned as they need to be.
trait Address: Copy + Eq {
    const FAMILY: Family;
    fn of(addr: IpAddr) -> Self;
    fn bits(self) -> u128;
}

impl Address for u32 {
    const FAMILY: Family = Family::V4;

    fn of(addr: IpAddr) -> Self {
        // An address of this family has no more bits.
        Family::bits_of(addr) as Self
    }

    fn bits(self) -> u128 {
        self.into()
    }
}

impl Address for [u32; 4] {
    const FAMILY: Family = Family::V6;

    fn of(addr: IpAddr) -> Self {
        let bits = Family::bits_of(addr);
        [96, 64, 32, 0].map(|by| (bits >> by) as u32)
    }

    fn bits(self) -> u128 {
        self.iter()
            .fold(0, |all, part| all << 32 | u128::from(*part))
    }
}

/// The length of a row that is free.
const FREE: u8 = u8::MAX;

#[derive(Debug, Clone, Copy)]
struct Row<A> {
    addr: A,
    want: u32,
    has: u32,
    len: u8,
    adopted: bool,
    dirty: bool,
    unseen: bool,
}

/// The rows of a family.
#[derive(Debug)]
struct Side<A> {
    rows: Vec<Row<A>>,
    free: Vec<u32>,
    index: HashTable<u32>,
    /// How many there are of each length.
    lengths: [u32; 129],
    seed: u64,
}

impl<A: Address> Side<A> {
    fn new(seed: u64) -> Self {
        Self {
            rows: Vec::new(),
            free: Vec::new(),
            index: HashTable::new(),
            lengths: [0; 129],
            seed,
        }
    }

    fn hash(&self, addr: A, len: u8) -> u64 {
        let bits = addr.bits();
        let one = fold(
            bits as u64 ^ self.seed,
            0x9e37_79b9_7f4a_7c15 ^ u64::from(len),
        );
        fold(one ^ (bits >> 64) as u64, self.seed | 1)
    }

    fn find(&self, addr: A, len: u8) -> Option<u32> {
        let is = |n: &u32| {
            let row = &self.rows[*n as usize];
            row.addr == addr && row.len == len
        };
        self.index.find(self.hash(addr, len), is).copied()
    }

    fn insert(&mut self, addr: A, len: u8) -> u32 {
        if let Some(n) = self.find(addr, len) {
            return n;
        }
        let row = Row {
            addr,
            want: 0,
            has: 0,
            len,
            adopted: false,
            dirty: false,
            unseen: false,
        };
        let n = match self.free.pop() {
            Some(n) => {
                self.rows[n as usize] = row;
                n
            }
            None => {
                self.rows.push(row);
                u32::try_from(self.rows.len() - 1).expect("fewer prefixes than 2^32")
            }
        };
        let hash = self.hash(addr, len);
        let mut index = std::mem::take(&mut self.index);
        index.insert_unique(hash, n, |n| {
            let row = &self.rows[*n as usize];
            self.hash(row.addr, row.len)
        });
        self.index = index;
        self.lengths[usize::from(len)] += 1;
        n
    }

    fn remove(&mut self, n: u32) {
        let row = self.rows[n as usize];
        if row.len == FREE {
            return;
        }
        let hash = self.hash(row.addr, row.len);
        if let Ok(entry) = self.index.find_entry(hash, |i| *i == n) {
            entry.remove();
        }
        self.lengths[usize::from(row.len)] -= 1;
        self.rows[n as usize].len = FREE;
        self.free.push(n);
        if self.index.is_empty() {
            *self = Self::new(self.seed);
        }
    }

    fn live(&self) -> impl Iterator<Item = u32> + '_ {
        (0..)
            .zip(&self.rows)
            .filter(|(_, r)| r.len != FREE)
            .map(|(n, _)| n)
    }

    fn unsee(&mut self) {
        self.rows.iter_mut().for_each(|r| r.unseen = r.len != FREE);
    }

    fn unseen(&mut self) -> Vec<u32> {
        let left = (0..).zip(&mut self.rows);
        left.filter_map(|(n, r)| std::mem::take(&mut r.unseen).then_some(n))
            .collect()
    }

    fn prefix(&self, n: u32) -> Cidr {
        let row = &self.rows[n as usize];
        let addr = A::FAMILY.addr(row.addr.bits());
        Cidr::new(addr, row.len).expect("what a prefix was made from")
    }
}

/// Both halves of a product: every bit of either goes into every bit of the result.
const fn fold(a: u64, b: u64) -> u64 {
    let product = a as u128 * b as u128;
    product as u64 ^ (product >> 64) as u64
}

/// All prefixes.
#[derive(Debug)]
pub(super) struct Rows {
    v4: Side<u32>,
    v6: Side<[u32; 4]>,
}

/// The same for either family.
macro_rules! side {
    ($self:ident, $family:expr, $side:ident => $what:expr) => {
        match $family {
            Family::V4 => {
                let $side = &$self.v4;
                $what
            }
            Family::V6 => {
                let $side = &$self.v6;
                $what
            }
        }
    };
    (mut $self:ident, $family:expr, $side:ident => $what:expr) => {
        match $family {
            Family::V4 => {
                let $side = &mut $self.v4;
                $what
            }
            Family::V6 => {
                let $side = &mut $self.v6;
                $what
            }
        }
    };
}

impl Rows {
    /// None.
    pub(super) fn new(seed: u64) -> Self {
        Self {
            v4: Side::new(seed),
            v6: Side::new(seed),
        }
    }

    /// The row of a prefix.
    pub(super) fn find(&self, prefix: Cidr) -> Option<RowId> {
        let family = prefix.family();
        let n = side!(self, family, s => s.find(Address::of(prefix.addr()), prefix.len()))?;
        Some(RowId { family, n })
    }

    /// The row of a prefix, empty if there was none.
    pub(super) fn insert(&mut self, prefix: Cidr) -> RowId {
        let family = prefix.family();
        let n = side!(mut self, family, s => s.insert(Address::of(prefix.addr()), prefix.len()));
        RowId { family, n }
    }

    /// Forgets a row.
    pub(super) fn remove(&mut self, id: RowId) {
        side!(mut self, id.family, s => s.remove(id.n));
    }

    /// What is noted.
    pub(super) fn get(&self, id: RowId) -> Held {
        side!(self, id.family, s => {
            let r = &s.rows[id.n as usize];
            Held { want: r.want, has: r.has, adopted: r.adopted, dirty: r.dirty }
        })
    }

    /// Notes something else.
    pub(super) fn set(&mut self, id: RowId, held: Held) {
        side!(mut self, id.family, s => {
            let r = &mut s.rows[id.n as usize];
            (r.want, r.has) = (held.want, held.has);
            (r.adopted, r.dirty) = (held.adopted, held.dirty);
        });
    }

    /// No row of a family has been seen.
    pub(super) fn unsee(&mut self, family: Family) {
        side!(mut self, family, s => s.unsee());
    }

    /// A row is seen; whether it was not before.
    pub(super) fn see(&mut self, id: RowId) -> bool {
        side!(mut self, id.family, s => std::mem::take(&mut s.rows[id.n as usize].unseen))
    }

    /// The rows of a family that were not seen; they count as seen from here on.
    pub(super) fn unseen(&mut self, family: Family) -> Vec<RowId> {
        let left = side!(mut self, family, s => s.unseen());
        left.into_iter().map(|n| RowId { family, n }).collect()
    }

    /// The prefix of a row.
    pub(super) fn prefix(&self, id: RowId) -> Cidr {
        side!(self, id.family, s => s.prefix(id.n))
    }

    /// All rows of a family, in no order.
    pub(super) fn all(&self, family: Family) -> impl Iterator<Item = RowId> + '_ {
        let (four, six) = match family {
            Family::V4 => (Some(self.v4.live()), None),
            Family::V6 => (None, Some(self.v6.live())),
        };
        let four = four.into_iter().flatten();
        four.chain(six.into_iter().flatten())
            .map(move |n| RowId { family, n })
    }

    /// All rows inside of a prefix. Looks at every row of the family.
    pub(super) fn within(&self, range: Cidr) -> Vec<RowId> {
        let inside = |id: &RowId| range.covers(self.prefix(*id));
        self.all(range.family()).filter(inside).collect()
    }

    /// All rows that cover an address, the longest prefix first.
    pub(super) fn covering(&self, addr: IpAddr) -> Vec<RowId> {
        let family = Family::of(addr);
        let there = side!(self, family, s => s.lengths);
        let at = |len: u8| self.find(Cidr::new(addr, len)?);
        let lengths = (0..=family.bits()).rev();
        lengths
            .filter(|l| there[usize::from(*l)] > 0)
            .filter_map(at)
            .collect()
    }

    /// Whether there is none.
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.v4.index.is_empty() && self.v6.index.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cidr(s: &str) -> Cidr {
        s.parse().expect("a prefix")
    }

    #[test]
    fn prefixes_are_found_by_name_address_and_range() {
        let mut rows = Rows::new(7);
        let texts = [
            "10.0.0.0/8",
            "10.1.0.0/16",
            "10.1.2.0/24",
            "0.0.0.0/0",
            "fd00::/8",
            "fd00::/64",
        ];
        for t in texts {
            let id = rows.insert(cidr(t));
            assert_eq!(rows.insert(cidr(t)), id);
            assert_eq!(rows.prefix(id), cidr(t));
        }
        let names = |rows: &Rows, ids: Vec<RowId>| {
            let mut all: Vec<_> = ids
                .into_iter()
                .map(|i| rows.prefix(i).to_string())
                .collect();
            all.sort();
            all
        };
        let covering = rows.covering("10.1.2.3".parse().expect("an address"));
        assert_eq!(rows.prefix(covering[0]), cidr("10.1.2.0/24"));
        assert_eq!(rows.prefix(covering[3]), cidr("0.0.0.0/0"));
        assert_eq!(
            names(&rows, rows.within(cidr("10.1.0.0/16"))),
            ["10.1.0.0/16", "10.1.2.0/24"]
        );
        assert_eq!(
            names(&rows, rows.all(Family::V6).collect()),
            ["fd00::/64", "fd00::/8"]
        );
        assert_eq!(rows.find(cidr("10.1.2.0/25")), None);
    }

    #[test]
    fn a_row_that_goes_makes_room() {
        let mut rows = Rows::new(7);
        let nth = |n: u32| Cidr::new(IpAddr::from((n << 8).to_be_bytes()), 24).expect("short");
        for n in 0..10_000 {
            let id = rows.insert(nth(n));
            let held = Held {
                want: n + 1,
                ..Held::default()
            };
            rows.set(id, held);
        }
        for n in (0..10_000).step_by(2) {
            rows.remove(rows.find(nth(n)).expect("is there"));
        }
        assert_eq!(rows.all(Family::V4).count(), 5000);
        for n in 10_000..15_000 {
            rows.insert(nth(n));
        }
        assert_eq!(rows.v4.rows.len(), 10_000);
        for n in (1..10_000).step_by(2) {
            let id = rows.find(nth(n)).expect("is there");
            assert_eq!(rows.get(id).want, n + 1);
        }
        let all: Vec<_> = rows.all(Family::V4).collect();
        all.into_iter().for_each(|id| rows.remove(id));
        assert!(rows.is_empty());
    }
}
