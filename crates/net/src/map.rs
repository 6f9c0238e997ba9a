//! Maps keyed by prefix.

use crate::{Cidr, Family};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// A map from prefix to value with longest-prefix and containment look-ups.
///
/// Holds its keys in one ordered map: a prefix sorts right before everything
/// inside it, so what lies inside is one range scan, and what covers an address is at
/// most one probe a length in use.
#[derive(Debug, Clone)]
pub struct PrefixMap<V> {
    entries: BTreeMap<Cidr, V>,
    /// How many keys there are of each length, per family, so that look-ups
    /// probe only lengths in use.
    lengths: [BTreeMap<u8, usize>; 2],
}

impl<V> Default for PrefixMap<V> {
    fn default() -> Self {
        Self {
            entries: BTreeMap::new(),
            lengths: [BTreeMap::new(), BTreeMap::new()],
        }
    }
}

const fn slot(f: Family) -> usize {
    match f {
        Family::V4 => 0,
        Family::V6 => 1,
    }
}

impl<V> PrefixMap<V> {
    /// An empty map.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many prefixes it has.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Sets the value of a prefix and gives back what it had.
    pub fn insert(&mut self, key: Cidr, value: V) -> Option<V> {
        let old = self.entries.insert(key, value);
        if old.is_none() {
            *self.lengths[slot(key.family())]
                .entry(key.len())
                .or_default() += 1;
        }
        old
    }

    /// Takes a prefix out.
    pub fn remove(&mut self, key: Cidr) -> Option<V> {
        let old = self.entries.remove(&key)?;
        let lens = &mut self.lengths[slot(key.family())];
        if let Some(n) = lens.get_mut(&key.len()) {
            *n -= 1;
            if *n == 0 {
                lens.remove(&key.len());
            }
        }
        Some(old)
    }

    /// The value of exactly this prefix.
    pub fn get(&self, key: Cidr) -> Option<&V> {
        self.entries.get(&key)
    }

    /// The same, to change.
    pub fn get_mut(&mut self, key: Cidr) -> Option<&mut V> {
        self.entries.get_mut(&key)
    }

    /// All prefixes that cover `key`, itself among them, longest first.
    pub fn covering(&self, key: Cidr) -> impl Iterator<Item = (Cidr, &V)> {
        self.lengths[slot(key.family())]
            .range(..=key.len())
            .rev()
            .filter_map(move |(len, _)| {
                let c = Cidr::new(key.addr(), *len)?;
                self.entries.get(&c).map(|v| (c, v))
            })
    }

    /// The longest prefix that covers `addr`.
    pub fn lookup(&self, addr: IpAddr) -> Option<(Cidr, &V)> {
        self.covering(Cidr::host(addr)).next()
    }

    /// All prefixes inside `key`, itself among them, in order.
    pub fn within(&self, key: Cidr) -> impl Iterator<Item = (Cidr, &V)> {
        self.entries
            .range(key..)
            .map(|(c, v)| (*c, v))
            .take_while(move |(c, _)| key.covers(*c))
    }

    /// All entries in order.
    pub fn iter(&self) -> impl Iterator<Item = (Cidr, &V)> {
        self.entries.iter().map(|(c, v)| (*c, v))
    }
}

/// A multiset of prefixes that knows its canonical cover: the prefixes
/// in it that no other one covers.
///
/// The kernel's interval sets refuse overlaps, so what goes there is the
/// cover; each change says which members the cover gained and lost. Work per change is
/// in proportion to the members directly inside the changed prefix.
#[derive(Debug, Clone, Default)]
pub struct CoverSet {
    counts: PrefixMap<u32>,
}

impl CoverSet {
    /// An empty set.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds one occurrence; reports to `change(prefix, true)` what the cover gained and
    /// to `change(prefix, false)` what it lost.
    pub fn add(&mut self, key: Cidr, mut change: impl FnMut(Cidr, bool)) {
        if let Some(n) = self.counts.get_mut(key) {
            *n += 1;
            return;
        }
        let covered = self.counts.covering(key).next().is_some();
        self.counts.insert(key, 1);
        if !covered {
            self.tops_inside(key)
                .into_iter()
                .for_each(|c| change(c, false));
            change(key, true);
        }
    }

    /// Takes one occurrence away, reporting as [`CoverSet::add`] does. Taking what is not
    /// there changes nothing.
    pub fn remove(&mut self, key: Cidr, mut change: impl FnMut(Cidr, bool)) {
        match self.counts.get_mut(key) {
            None => return,
            Some(n) if *n > 1 => {
                *n -= 1;
                return;
            }
            Some(_) => {}
        }
        self.counts.remove(key);
        if self.counts.covering(key).next().is_none() {
            change(key, false);
            self.tops_inside(key)
                .into_iter()
                .for_each(|c| change(c, true));
        }
    }

    /// The outermost members strictly inside `key`.
    fn tops_inside(&self, key: Cidr) -> Vec<Cidr> {
        let mut out: Vec<Cidr> = Vec::new();
        for (c, _) in self.counts.within(key) {
            if c != key && !out.last().is_some_and(|l| l.covers(c)) {
                out.push(c);
            }
        }
        out
    }

    /// The canonical cover, in order.
    pub fn cover(&self) -> Vec<Cidr> {
        let mut out: Vec<Cidr> = Vec::new();
        for (c, _) in self.counts.iter() {
            if !out.last().is_some_and(|l| l.covers(c)) {
                out.push(c);
            }
        }
        out
    }

    /// Whether it has no members.
    pub fn is_empty(&self) -> bool {
        self.counts.is_empty()
    }

    /// Whether some member covers `addr`.
    pub fn contains(&self, addr: IpAddr) -> bool {
        self.counts.lookup(addr).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn c(s: &str) -> Cidr {
        s.parse().expect("test CIDR")
    }

    #[test]
    fn longest_prefix_wins() {
        let mut m = PrefixMap::new();
        m.insert(c("10.0.0.0/8"), 8);
        m.insert(c("10.1.0.0/16"), 16);
        m.insert(c("fd00::/8"), 6);
        assert_eq!(
            m.lookup(c("10.1.2.3").addr()),
            Some((c("10.1.0.0/16"), &16))
        );
        m.remove(c("10.1.0.0/16"));
        assert_eq!(m.lookup(c("10.1.2.3").addr()), Some((c("10.0.0.0/8"), &8)));
        assert_eq!(m.lookup(c("11.0.0.1").addr()), None);
        assert_eq!(m.within(c("0.0.0.0/0")).count(), 1);
    }

    fn small() -> impl Strategy<Value = Cidr> {
        (0u32..8, 29u8..=32)
            .prop_map(|(a, l)| Cidr::new(Family::V4.addr(u128::from(a)), l).expect("fits"))
    }

    proptest! {
        /// Whatever the order of additions and removals, what was reported adds up to
        /// the cover computed from scratch.
        #[test]
        fn reports_add_up_to_the_cover(ops in prop::collection::vec((small(), any::<bool>()), 0..60)) {
            let mut set = CoverSet::new();
            let mut model: Vec<Cidr> = Vec::new();
            let mut programmed = BTreeSet::new();
            for (c, add) in ops {
                let mut change = |c: Cidr, on: bool| {
                    assert!(if on { programmed.insert(c) } else { programmed.remove(&c) }, "{c} {on}");
                };
                if add {
                    set.add(c, &mut change);
                    model.push(c);
                } else {
                    set.remove(c, &mut change);
                    if let Some(i) = model.iter().position(|m| *m == c) {
                        model.swap_remove(i);
                    }
                }
                let want: BTreeSet<Cidr> = model
                    .iter()
                    .filter(|c| !model.iter().any(|o| o != *c && o.covers(**c)))
                    .copied()
                    .collect();
                prop_assert_eq!(&programmed, &want);
                prop_assert_eq!(set.cover(), want.into_iter().collect::<Vec<_>>());
            }
        }
    }
}
