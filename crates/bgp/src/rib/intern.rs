//! Attributes, each distinct set once.
//!
//! Promises: equal attributes have equal ids while anybody holds one; what the decision
//! compares is computed once a set. Never: keeps a set that nobody holds.

use super::hops::{HopId, Hops};
use crate::attr::{Attributes, Community, Origin};
use hashbrown::HashTable;
use net::IfName;
use std::hash::{BuildHasher, Hash, Hasher};

/// Names a set of attributes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct AttrId(u32);

/// What belongs to a route beside its attributes, and never goes over the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Meta {
    /// What the peer sent, where the import policy made something else of it.
    pub received: Option<AttrId>,
    /// Higher is preferred before anything of BGP is looked at: BIRD's protocol
    /// preference.
    pub preference: u16,
    /// The interface of a local route.
    pub interface: Option<IfName>,
}

/// What the decision compares, taken from a set of attributes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rank {
    /// LOCAL_PREF; 100 where there is none.
    pub local_pref: u32,
    /// Length of the AS path.
    pub hops: u32,
    /// ORIGIN.
    pub origin: Origin,
    /// MED; 0 where there is none.
    pub med: u32,
    /// The neighbouring AS; 0 for routes of our own.
    pub neighbour: u32,
    /// ORIGINATOR_ID, where there is one.
    pub originator: Option<u32>,
    /// Length of the CLUSTER_LIST.
    pub clusters: u32,
    /// Carries LLGR_STALE (RFC 9494, section 4.3).
    pub stale: bool,
}

impl Rank {
    fn of(a: &Attributes) -> Self {
        let rare = a.rare();
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        Self {
            local_pref: a.local_pref.unwrap_or(100),
            hops: count(a.as_path.hops()),
            origin: a.origin,
            med: a.med.unwrap_or(0),
            neighbour: a.as_path.neighbour().map_or(0, |n| n.0),
            originator: rare.originator_id.map(|id| id.0),
            clusters: count(rare.cluster_list.len()),
            stale: a.communities.contains(Community::LLGR_STALE),
        }
    }
}

/// One set of attributes with what is computed from it.
#[derive(Debug)]
pub struct Interned {
    /// The attributes.
    pub attributes: Attributes,
    /// What is ours alone.
    pub meta: Meta,
    /// What the decision compares.
    pub rank: Rank,
    /// The next hop.
    pub hop: HopId,
    hash: u64,
    users: u32,
}

/// All sets of attributes.
#[derive(Debug)]
pub struct Interner {
    slots: Vec<Option<Interned>>,
    free: Vec<u32>,
    index: HashTable<u32>,
    seed: u64,
    /// Their next hops.
    pub hops: Hops,
}

impl Interner {
    /// None. `seed` keeps peers from choosing sets that collide.
    pub fn new(seed: u64, hops: Hops) -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            index: HashTable::new(),
            seed,
            hops,
        }
    }

    /// How many distinct sets there are.
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    /// The set.
    pub fn get(&self, id: AttrId) -> &Interned {
        self.slots[id.0 as usize]
            .as_ref()
            .expect("an id is held by who uses it")
    }

    /// The id of these attributes, with one more holder: the caller.
    pub fn intern(&mut self, attributes: Attributes, meta: Meta) -> AttrId {
        let hash = self.hash(&attributes, &meta);
        let slots = &mut self.slots;
        let same = |&i: &u32| {
            slots[i as usize]
                .as_ref()
                .is_some_and(|s| s.hash == hash && s.meta == meta && s.attributes == attributes)
        };
        if let Some(&i) = self.index.find(hash, same) {
            if let Some(slot) = &mut self.slots[i as usize] {
                slot.users += 1;
            }
            return AttrId(i);
        }
        if let Some(received) = meta.received {
            self.retain(received);
        }
        let interned = Interned {
            rank: Rank::of(&attributes),
            hop: self.hops.acquire(attributes.next_hop.addr()),
            attributes,
            meta,
            hash,
            users: 1,
        };
        let i = match self.free.pop() {
            Some(i) => {
                self.slots[i as usize] = Some(interned);
                i
            }
            None => {
                self.slots.push(Some(interned));
                u32::try_from(self.slots.len() - 1).expect("fewer attribute sets than 2^32")
            }
        };
        let slots = &self.slots;
        self.index.insert_unique(hash, i, |&i| {
            slots[i as usize].as_ref().map_or(0, |s| s.hash)
        });
        AttrId(i)
    }

    /// One more holder.
    #[inline]
    pub fn retain(&mut self, id: AttrId) {
        if let Some(slot) = &mut self.slots[id.0 as usize] {
            slot.users += 1;
        }
    }

    /// One holder less; the last takes the set with it.
    #[inline]
    pub fn release(&mut self, id: AttrId) {
        let Some(slot) = &mut self.slots[id.0 as usize] else {
            return;
        };
        slot.users -= 1;
        if slot.users == 0 {
            self.drop_set(id);
        }
    }

    fn drop_set(&mut self, id: AttrId) {
        let Some(gone) = self.slots[id.0 as usize].take() else {
            return;
        };
        if let Ok(entry) = self.index.find_entry(gone.hash, |&i| i == id.0) {
            entry.remove();
        }
        self.free.push(id.0);
        self.hops.release(gone.hop);
        if let Some(received) = gone.meta.received {
            self.release(received);
        }
    }

    fn hash(&self, attributes: &Attributes, meta: &Meta) -> u64 {
        let mut h = rustc_hash::FxBuildHasher.build_hasher();
        h.write_u64(self.seed);
        attributes.hash(&mut h);
        meta.hash(&mut h);
        h.finish()
    }

    /// The octets that it holds.
    pub fn heap_size(&self) -> usize {
        let heaps: usize = self
            .slots
            .iter()
            .flatten()
            .map(|s| s.attributes.heap_size())
            .sum();
        self.slots.capacity() * size_of::<Option<Interned>>()
            + self.index.capacity() * 5
            + self.free.capacity() * 4
            + heaps
    }
}
