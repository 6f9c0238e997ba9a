//! One family's prefixes and the paths to them.
//!
//! Promises: a prefix with one path is one 16-octet record beside its key; further paths
//! are 16 octets each; the first path is the one in use, where any is. A [`NetId`] stays
//! valid until [`Table::forget`]. Never: forgets a prefix by itself, since others may still
//! have to tell their peers that it is gone.

use super::PeerId;
use super::intern::AttrId;
use crate::types::PathId;
use hashbrown::HashTable;
use net::{Cidr, Family};
use rustc_hash::FxHashMap;

/// Names a prefix within its table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NetId(pub u32);

/// Names where a path came from: a peer and its path id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SourceId(pub u32);

/// Where paths come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Source {
    /// The peer.
    pub peer: PeerId,
    /// Its path id.
    pub path_id: PathId,
}

/// All sources. The number of a source, plus one, is the path id that we send.
#[derive(Debug, Default)]
pub struct Sources {
    slots: Vec<(Source, u32)>,
    free: Vec<u32>,
    index: FxHashMap<Source, u32>,
}

impl Sources {
    /// The source.
    #[inline]
    pub fn get(&self, id: SourceId) -> Source {
        self.slots[id.0 as usize].0
    }

    /// The id of a source, where any path has it.
    pub fn find(&self, source: Source) -> Option<SourceId> {
        self.index.get(&source).copied().map(SourceId)
    }

    /// The id of a source, with one more holder.
    pub fn acquire(&mut self, source: Source) -> SourceId {
        if let Some(&i) = self.index.get(&source) {
            self.slots[i as usize].1 += 1;
            return SourceId(i);
        }
        let i = match self.free.pop() {
            Some(i) => {
                self.slots[i as usize] = (source, 1);
                i
            }
            None => {
                self.slots.push((source, 1));
                u32::try_from(self.slots.len() - 1).expect("fewer sources than 2^32")
            }
        };
        self.index.insert(source, i);
        SourceId(i)
    }

    /// One more holder.
    #[inline]
    pub fn retain(&mut self, id: SourceId) {
        self.slots[id.0 as usize].1 += 1;
    }

    /// One holder less.
    #[inline]
    pub fn release(&mut self, id: SourceId) {
        let slot = &mut self.slots[id.0 as usize];
        slot.1 -= 1;
        if slot.1 == 0 {
            self.index.remove(&slot.0);
            self.free.push(id.0);
        }
    }
}

/// What is so of a path beside its attributes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PathFlags(u32);

impl PathFlags {
    /// Not to be used: refused by the import policy or for a loop.
    pub const REJECTED: Self = Self(1);
    /// Its peer restarts (RFC 4724).
    pub const STALE: Self = Self(1 << 1);
    /// Kept for long (RFC 9494).
    pub const LONG_STALE: Self = Self(1 << 2);
    /// A refresh has begun and has not brought it yet (RFC 7313).
    pub const UNCONFIRMED: Self = Self(1 << 3);
    /// The best of its prefix: the first path, while that is one that can be used.
    pub const BEST: Self = Self(1 << 4);

    /// Whether any of `these` is set.
    #[inline]
    pub const fn has(self, these: Self) -> bool {
        self.0 & these.0 != 0
    }

    /// With `these` too.
    #[must_use]
    pub const fn with(self, these: Self) -> Self {
        Self(self.0 | these.0)
    }

    /// Without `these`.
    #[must_use]
    pub const fn without(self, these: Self) -> Self {
        Self(self.0 & !these.0)
    }
}

/// One path to a prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Path {
    /// What it carries, after the import policy.
    pub attributes: AttrId,
    /// Where it came from.
    pub source: SourceId,
    next: u32,
    /// What is so of it.
    pub flags: PathFlags,
}

const _: () = assert!(size_of::<Path>() == 16, "a path is 16 octets");

/// No further path.
const END: u32 = u32::MAX;
/// As the `source` of a prefix's own record: there is no path, the prefix is known.
const EMPTY: SourceId = SourceId(u32::MAX);
/// As the `source` of a prefix's own record: the number is not in use.
const FREE: SourceId = SourceId(u32::MAX - 1);

impl Path {
    /// A path.
    pub const fn new(attributes: AttrId, source: SourceId, flags: PathFlags) -> Self {
        Self {
            attributes,
            source,
            next: END,
            flags,
        }
    }

    /// Whether it may be used.
    #[inline]
    pub const fn is_candidate(self) -> bool {
        !self.flags.has(PathFlags::REJECTED)
    }

    /// Whether it counts the same as `other` in all but attributes and source: staleness
    /// that is to be gone soon (RFC 4724) and marks of a refresh do not count.
    #[inline]
    pub const fn is_like(self, other: Self) -> bool {
        let counts = PathFlags(PathFlags::REJECTED.0 | PathFlags::LONG_STALE.0);
        self.flags.0 & counts.0 == other.flags.0 & counts.0
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct WideKey {
    high: u64,
    low: u64,
    len: u8,
}

/// The prefixes by their number: IPv4 in eight octets.
#[derive(Debug)]
enum Keys {
    V4(Vec<u64>),
    V6(Vec<WideKey>),
}

/// So many neighbours lie together in the index.
const RUN: u64 = 16;

/// A prefix as the table compares it.
#[derive(Clone, Copy)]
struct Key {
    wide: WideKey,
}

impl Key {
    #[inline]
    fn of(prefix: Cidr) -> Self {
        let bits = Family::bits_of(prefix.addr());
        #[expect(clippy::cast_possible_truncation, reason = "the two halves")]
        Self {
            wide: WideKey {
                high: (bits >> 64) as u64,
                low: bits as u64,
                len: prefix.len(),
            },
        }
    }

    #[inline]
    const fn narrow(self) -> u64 {
        self.wide.low << 8 | self.wide.len as u64
    }

    /// Where the table looks for it. Neighbours lie beside each other, since peers tell them one
    /// after the other: of [`RUN`] prefixes of one length in a row all but the first are in a line
    /// of the cache that has just been read. Where a run begins is two rounds of folded
    /// multiplication: a peer must not be able to choose prefixes that collide. The high bits,
    /// by which the table tells its elements apart, differ within a run.
    #[inline]
    fn hash(self, seed: u64, width: u8) -> u64 {
        const K: u64 = 0x9e37_79b9_7f4a_7c15;
        const TAG: u64 = 0x7f << 57;
        let fold = |a: u64, b: u64| {
            let p = u128::from(a) * u128::from(b);
            #[expect(clippy::cast_possible_truncation, reason = "the two halves")]
            let folded = p as u64 ^ (p >> 64) as u64;
            folded
        };
        let bits = u128::from(self.wide.high) << 64 | u128::from(self.wide.low);
        let shift = u32::from(width.saturating_sub(self.wide.len));
        let ordinal = bits.checked_shr(shift).unwrap_or(0);
        let run = ordinal / u128::from(RUN);
        #[expect(
            clippy::cast_possible_truncation,
            reason = "the halves, and what is below RUN"
        )]
        let (high, low, at) = ((run >> 64) as u64, run as u64, ordinal as u64 % RUN);
        let a = fold(low ^ seed, K);
        let start = fold(
            a ^ high.rotate_left(23) ^ u64::from(self.wide.len) << 56,
            seed | 1 << 63 | 1,
        );
        let tag = start.wrapping_add(at.wrapping_mul(K)) & TAG;
        start.wrapping_add(at) & !TAG | tag
    }
}

impl Keys {
    #[inline]
    fn get(&self, i: u32) -> Key {
        let wide = match self {
            Self::V4(keys) => WideKey {
                high: 0,
                low: keys[i as usize] >> 8,
                len: keys[i as usize] as u8,
            },
            Self::V6(keys) => keys[i as usize],
        };
        Key { wide }
    }

    #[inline]
    fn is(&self, i: u32, key: Key) -> bool {
        match self {
            Self::V4(keys) => keys[i as usize] == key.narrow(),
            Self::V6(keys) => keys[i as usize] == key.wide,
        }
    }

    fn set(&mut self, i: u32, key: Key) {
        fn put<T>(keys: &mut Vec<T>, i: u32, key: T) {
            match keys.get_mut(i as usize) {
                Some(old) => *old = key,
                None => keys.push(key),
            }
        }
        match self {
            Self::V4(keys) => put(keys, i, key.narrow()),
            Self::V6(keys) => put(keys, i, key.wide),
        }
    }
}

/// One family's prefixes and paths.
#[derive(Debug)]
pub struct Table {
    family: Family,
    seed: u64,
    keys: Keys,
    /// The first path of each prefix; see [`EMPTY`] and [`FREE`].
    first: Vec<Path>,
    /// Further paths.
    more: Vec<Path>,
    free_net: u32,
    free_more: u32,
    index: HashTable<u32>,
    paths: usize,
}

impl Table {
    /// An empty table.
    pub fn new(family: Family, seed: u64) -> Self {
        Self {
            family,
            seed,
            keys: match family {
                Family::V4 => Keys::V4(Vec::new()),
                Family::V6 => Keys::V6(Vec::new()),
            },
            first: Vec::new(),
            more: Vec::new(),
            free_net: END,
            free_more: END,
            index: HashTable::new(),
            paths: 0,
        }
    }

    /// How many prefixes it knows, those without a path too.
    pub fn nets(&self) -> usize {
        self.index.len()
    }

    /// How many paths it has.
    pub const fn paths_len(&self) -> usize {
        self.paths
    }

    /// One past the greatest number of a prefix.
    pub fn end(&self) -> u32 {
        u32::try_from(self.first.len()).expect("fewer prefixes than 2^32")
    }

    /// The prefix with this number.
    #[inline]
    pub fn prefix(&self, net: NetId) -> Cidr {
        let Key { wide } = self.keys.get(net.0);
        let bits = u128::from(wide.high) << 64 | u128::from(wide.low);
        Cidr::new(self.family.addr(bits), wide.len).expect("what a prefix was made from")
    }

    /// The number of a prefix.
    #[inline]
    pub fn find(&self, prefix: Cidr) -> Option<NetId> {
        let key = Key::of(prefix);
        self.index
            .find(key.hash(self.seed, self.family.bits()), |&i| {
                self.keys.is(i, key)
            })
            .map(|&i| NetId(i))
    }

    /// The number of a prefix, made known if it is not.
    #[inline]
    pub fn find_or_add(&mut self, prefix: Cidr) -> NetId {
        let key = Key::of(prefix);
        let hash = key.hash(self.seed, self.family.bits());
        if let Some(&i) = self.index.find(hash, |&i| self.keys.is(i, key)) {
            return NetId(i);
        }
        let none = Path::new(AttrId::default(), EMPTY, PathFlags::default());
        let i = if self.free_net == END {
            self.first.push(none);
            self.end() - 1
        } else {
            let i = self.free_net;
            self.free_net = self.first[i as usize].next;
            self.first[i as usize] = none;
            i
        };
        self.keys.set(i, key);
        let (keys, seed, width) = (&self.keys, self.seed, self.family.bits());
        self.index
            .insert_unique(hash, i, |&i| keys.get(i).hash(seed, width));
        NetId(i)
    }

    /// Gives the number of a prefix without paths away.
    pub fn forget(&mut self, net: NetId) {
        debug_assert!(self.is_vacant(net), "a prefix with paths is not forgotten");
        let hash = self.keys.get(net.0).hash(self.seed, self.family.bits());
        if let Ok(entry) = self.index.find_entry(hash, |&i| i == net.0) {
            entry.remove();
        }
        let record = &mut self.first[net.0 as usize];
        record.source = FREE;
        record.next = self.free_net;
        self.free_net = net.0;
    }

    /// Whether the prefix has no path.
    #[inline]
    pub fn is_vacant(&self, net: NetId) -> bool {
        self.first[net.0 as usize].source == EMPTY
    }

    /// The paths to a prefix, the one in use first.
    #[inline]
    pub fn paths(&self, net: NetId) -> Paths<'_> {
        let first = self.first[net.0 as usize];
        Paths {
            table: self,
            at: (first.source.0 < FREE.0).then_some(first),
        }
    }

    /// The first path.
    #[inline]
    pub fn first(&self, net: NetId) -> Option<Path> {
        let first = self.first[net.0 as usize];
        (first.source.0 < FREE.0).then_some(first)
    }

    /// The path in use.
    #[inline]
    pub fn best(&self, net: NetId) -> Option<Path> {
        let first = self.first[net.0 as usize];
        (first.source.0 < FREE.0 && first.flags.has(PathFlags::BEST)).then_some(first)
    }

    /// Says whether the first path is in use.
    #[inline]
    pub fn mark_best(&mut self, net: NetId, best: bool) {
        let first = &mut self.first[net.0 as usize];
        first.flags = match best {
            true => first.flags.with(PathFlags::BEST),
            false => first.flags.without(PathFlags::BEST),
        };
    }

    /// All prefixes that have paths.
    pub fn iter(&self) -> impl Iterator<Item = NetId> + '_ {
        (0..self.end())
            .filter(|&i| self.first[i as usize].source.0 < FREE.0)
            .map(NetId)
    }

    /// All prefixes that are known.
    pub fn known(&self) -> impl Iterator<Item = NetId> + '_ {
        (0..self.end())
            .filter(|&i| self.first[i as usize].source != FREE)
            .map(NetId)
    }

    /// Sets the path of its source; gives back the one that was there. A new path goes
    /// behind the first; the first stays marked as best until told otherwise.
    #[inline]
    pub fn set(&mut self, net: NetId, path: Path) -> Option<Path> {
        let first = &mut self.first[net.0 as usize];
        if first.source == EMPTY {
            *first = Path { next: END, ..path };
            self.paths += 1;
            return None;
        }
        if first.source == path.source {
            let old = *first;
            let used = PathFlags(old.flags.0 & PathFlags::BEST.0);
            *first = Path {
                next: old.next,
                flags: path.flags.with(used),
                ..path
            };
            return Some(old);
        }
        let mut at = first.next;
        while at != END {
            let p = &mut self.more[at as usize];
            if p.source == path.source {
                let old = *p;
                *p = Path {
                    next: old.next,
                    ..path
                };
                return Some(old);
            }
            at = p.next;
        }
        let next = self.first[net.0 as usize].next;
        let at = self.add_more(Path { next, ..path });
        self.first[net.0 as usize].next = at;
        self.paths += 1;
        None
    }

    fn add_more(&mut self, path: Path) -> u32 {
        if self.free_more == END {
            self.more.push(path);
            return u32::try_from(self.more.len() - 1).expect("fewer paths than 2^32");
        }
        let at = self.free_more;
        self.free_more = self.more[at as usize].next;
        self.more[at as usize] = path;
        at
    }

    /// Changes the flags of all paths to a prefix.
    pub fn set_flags(&mut self, net: NetId, mut change: impl FnMut(&Path) -> PathFlags) {
        let first = &mut self.first[net.0 as usize];
        if first.source.0 >= FREE.0 {
            return;
        }
        first.flags = change(first);
        let mut at = first.next;
        while at != END {
            let p = &mut self.more[at as usize];
            p.flags = change(p);
            at = p.next;
        }
    }

    /// The path of a source.
    pub fn get(&self, net: NetId, source: SourceId) -> Option<Path> {
        self.paths(net).find(|p| p.source == source)
    }

    /// Takes the path of a source out.
    pub fn remove(&mut self, net: NetId, source: SourceId) -> Option<Path> {
        let first = self.first[net.0 as usize];
        if first.source.0 >= FREE.0 {
            return None;
        }
        if first.source == source {
            if first.next == END {
                self.first[net.0 as usize].source = EMPTY;
            } else {
                self.first[net.0 as usize] = self.more[first.next as usize];
                self.free(first.next);
            }
            self.paths -= 1;
            return Some(first);
        }
        let mut before = None;
        let mut at = first.next;
        while at != END {
            let p = self.more[at as usize];
            if p.source == source {
                match before {
                    None => self.first[net.0 as usize].next = p.next,
                    Some(b) => {
                        let b: u32 = b;
                        self.more[b as usize].next = p.next;
                    }
                }
                self.free(at);
                self.paths -= 1;
                return Some(p);
            }
            before = Some(at);
            at = p.next;
        }
        None
    }

    fn free(&mut self, at: u32) {
        self.more[at as usize].next = self.free_more;
        self.free_more = at;
    }

    /// Puts the path of a source first.
    pub fn prefer(&mut self, net: NetId, source: SourceId) {
        let first = self.first[net.0 as usize];
        if first.source == source {
            return;
        }
        let mut at = first.next;
        while at != END {
            let p = self.more[at as usize];
            if p.source == source {
                self.first[net.0 as usize] = Path {
                    next: first.next,
                    ..p
                };
                self.more[at as usize] = Path {
                    next: p.next,
                    flags: first.flags.without(PathFlags::BEST),
                    ..first
                };
                return;
            }
            at = p.next;
        }
    }

    /// The octets that it holds.
    pub fn heap_size(&self) -> usize {
        let keys = match &self.keys {
            Keys::V4(keys) => keys.capacity() * size_of::<u64>(),
            Keys::V6(keys) => keys.capacity() * size_of::<WideKey>(),
        };
        keys + (self.first.capacity() + self.more.capacity()) * size_of::<Path>()
            + self.index.capacity() * 5
    }
}

/// The paths to a prefix.
#[derive(Debug, Clone)]
pub struct Paths<'a> {
    table: &'a Table,
    at: Option<Path>,
}

impl Iterator for Paths<'_> {
    type Item = Path;

    #[inline]
    fn next(&mut self) -> Option<Path> {
        let p = self.at?;
        self.at = (p.next != END).then(|| self.table.more[p.next as usize]);
        Some(p)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn path(source: u32) -> Path {
        Path::new(AttrId::default(), SourceId(source), PathFlags::default())
    }

    proptest! {
        /// Any sequence of changes leaves what a plain map of maps holds.
        #[test]
        fn it_is_a_map_of_maps(
            v6: bool,
            steps in prop::collection::vec((0u8..4, 0u128..12, 0u32..5), 0..200),
        ) {
            let family = if v6 { Family::V6 } else { Family::V4 };
            let mut table = Table::new(family, 7);
            let mut model: BTreeMap<Cidr, Vec<u32>> = BTreeMap::new();
            for (op, n, source) in steps {
                let prefix = Cidr::new(family.addr(n << 8), family.bits() - (n % 3) as u8)
                    .expect("fits");
                match op {
                    0 | 1 => {
                        let net = table.find_or_add(prefix);
                        let paths = model.entry(prefix).or_default();
                        prop_assert_eq!(
                            table.set(net, path(source)).is_some(),
                            paths.contains(&source)
                        );
                        if !paths.contains(&source) {
                            paths.push(source);
                        }
                    }
                    2 => {
                        let Some(net) = table.find(prefix) else {
                            prop_assert!(!model.contains_key(&prefix));
                            continue;
                        };
                        let paths = model.get_mut(&prefix).expect("known");
                        prop_assert_eq!(
                            table.remove(net, SourceId(source)).is_some(),
                            paths.contains(&source)
                        );
                        paths.retain(|s| *s != source);
                        if paths.is_empty() {
                            model.remove(&prefix);
                            table.forget(net);
                        }
                    }
                    _ => {
                        let has = model.get(&prefix).is_some_and(|p| p.contains(&source));
                        if let Some(net) = table.find(prefix) && has {
                            table.prefer(net, SourceId(source));
                            prop_assert_eq!(table.first(net).map(|p| p.source.0), Some(source));
                        }
                    }
                }
                prop_assert_eq!(table.nets(), model.len());
                prop_assert_eq!(table.paths_len(), model.values().map(Vec::len).sum::<usize>());
                for (prefix, sources) in &model {
                    let net = table.find(*prefix).expect("known");
                    prop_assert_eq!(table.prefix(net), *prefix);
                    let mut have: Vec<u32> = table.paths(net).map(|p| p.source.0).collect();
                    let mut want = sources.clone();
                    have.sort_unstable();
                    want.sort_unstable();
                    prop_assert_eq!(have, want);
                }
            }
        }
    }
}
