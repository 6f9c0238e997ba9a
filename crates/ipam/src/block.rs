//! A block of addresses: who owns it, who holds which address, which are free.
//!
//! Promises: each ordinal is free, held or cooling down, never two of them and never none;
//! freed addresses are reused last. Steps are pure; the caller writes by compare-and-swap.

use crate::affinity::Owner;
use crate::error::Error;
use crate::handle::sanitize_handle;
use crate::reserved::Reservations;
use crate::wire::{
    self, ROOT, cidr_from_key, cidr_in_key, family_in_key, null_default, whole_seconds,
};
use jiff::Timestamp;
use net::{Cidr, Family};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;

/// The most addresses that a block has: a /20 or a /116.
pub const MAX_BLOCK_ADDRESSES: usize = 4096;

/// The handle of addresses that a Windows node keeps for itself; they do not make a block
/// count as used.
pub const WINDOWS_RESERVED_HANDLE: &str = "windows-reserved-ipam-handle";

/// What is known of the holder of one or more addresses of a block.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Attribute {
    /// The holder's handle. Ids from host-local may carry an interface name behind a
    /// carriage return, see [`sanitize_handle`].
    #[serde(default)]
    pub handle_id: Option<String>,
    /// Who holds the address: `pod`, `namespace`, `node`, `type`, `timestamp` and so on.
    #[serde(default)]
    pub secondary: Option<BTreeMap<String, String>>,
    /// The second owner during a virtual machine's migration.
    #[serde(
        default,
        rename = "alternateOwnerAttrs",
        skip_serializing_if = "Option::is_none"
    )]
    pub alternate: Option<BTreeMap<String, String>>,
    /// Set for addresses that nobody holds and that cool down since then.
    #[serde(
        default,
        rename = "releasedAt",
        with = "wire::time",
        skip_serializing_if = "Option::is_none"
    )]
    pub released_at: Option<Timestamp>,
    /// Fields of other versions, kept as they are.
    #[serde(flatten)]
    extra: Map<String, Value>,
}

impl Attribute {
    /// The holder's handle, without what may stand behind a carriage return.
    pub fn handle(&self) -> Option<&str> {
        self.handle_id.as_deref().map(sanitize_handle)
    }

    /// An attribute of the active owner, empty when there is none.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.secondary.as_ref()?.get(key).map(String::as_str)
    }

    fn is_windows(&self) -> bool {
        self.handle()
            .is_some_and(|h| h.eq_ignore_ascii_case(WINDOWS_RESERVED_HANDLE))
    }
}

/// An address that was assigned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Assigned {
    /// The address.
    pub address: IpAddr,
    /// The block it is from.
    pub block: Cidr,
    /// Names this assignment of the address among all in its life; see
    /// [`ReleaseOption::sequence`].
    pub sequence: u64,
}

/// An address to release, and what must be true of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReleaseOption {
    /// The address.
    pub address: IpAddr,
    /// Refuse when somebody else holds it.
    pub handle: Option<String>,
    /// Refuse when it has been released and assigned again since.
    pub sequence: Option<u64>,
}

impl ReleaseOption {
    /// Releases whatever holder the address has.
    pub const fn any(address: IpAddr) -> Self {
        Self {
            address,
            handle: None,
            sequence: None,
        }
    }
}

/// What a release step did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Released {
    /// Addresses that were freed.
    pub freed: Vec<IpAddr>,
    /// Addresses that nobody held.
    pub unallocated: Vec<IpAddr>,
    /// How many of the freed each handle had. Addresses without handle are not in it.
    pub by_handle: BTreeMap<String, u64>,
}

/// A block, as stored. The unit of compare-and-swap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    cidr: Cidr,
    affinity: Option<String>,
    claim_time: Option<Timestamp>,
    /// Per ordinal, the index of its attribute.
    allocations: Vec<Option<usize>>,
    /// Free ordinals, next to be used first.
    unallocated: VecDeque<usize>,
    attributes: Vec<Attribute>,
    sequence: u64,
    sequence_of: BTreeMap<usize, u64>,
    deleted: bool,
    extra: Map<String, Value>,
}

#[derive(Serialize, Deserialize)]
struct Wire {
    cidr: String,
    #[serde(default)]
    affinity: Option<String>,
    #[serde(default, with = "wire::time", skip_serializing_if = "Option::is_none")]
    affinity_claim_time: Option<Timestamp>,
    #[serde(default, deserialize_with = "null_default")]
    allocations: Vec<Option<i64>>,
    #[serde(default, deserialize_with = "null_default")]
    unallocated: Vec<i64>,
    #[serde(default, deserialize_with = "null_default")]
    attributes: Vec<Attribute>,
    #[serde(default, rename = "sequenceNumber", deserialize_with = "null_default")]
    sequence: u64,
    #[serde(
        default,
        rename = "sequenceNumberForAllocation",
        deserialize_with = "null_default"
    )]
    sequence_of: BTreeMap<String, u64>,
    #[serde(default, deserialize_with = "wire::bool_or_text")]
    deleted: bool,
    #[serde(
        default,
        rename = "hostAffinity",
        skip_serializing_if = "Option::is_none"
    )]
    host_affinity: Option<String>,
    #[serde(flatten)]
    extra: Map<String, Value>,
}

impl Block {
    /// An empty block of an owner. Its sequence number begins at `now` in nanoseconds, or
    /// one past `older`, the number of a block that it replaces, so that numbers never repeat.
    ///
    /// `None` when `cidr` has more than [`MAX_BLOCK_ADDRESSES`].
    pub fn new(cidr: Cidr, owner: &Owner, now: Timestamp, older: u64) -> Option<Self> {
        let size = usize::try_from(cidr.size())
            .ok()
            .filter(|n| *n <= MAX_BLOCK_ADDRESSES)?;
        let nanos = u64::try_from(now.as_nanosecond()).unwrap_or(0);
        Some(Self {
            cidr,
            affinity: Some(owner.to_string()),
            claim_time: Some(whole_seconds(now)),
            allocations: vec![None; size],
            unallocated: (0..size).collect(),
            attributes: Vec::new(),
            sequence: nanos.max(older.saturating_add(1)),
            sequence_of: BTreeMap::new(),
            deleted: false,
            extra: Map::new(),
        })
    }

    /// `/calico/ipam/v2/assignment/ipv4/block/10.0.0.0-26`.
    pub fn key(cidr: Cidr) -> String {
        format!("{}{}", Self::prefix(cidr.family()), cidr_in_key(cidr))
    }

    /// The prefix of all blocks of a family.
    pub fn prefix(family: Family) -> String {
        format!("{ROOT}assignment/{}/block/", family_in_key(family))
    }

    /// The CIDR of a key, or `None` for a key of something else.
    pub fn parse_key(key: &str) -> Option<Cidr> {
        let rest = key.strip_prefix(ROOT)?.strip_prefix("assignment/")?;
        let (family, cidr) = rest.split_once("/block/")?;
        cidr_from_key(cidr).filter(|c| family_in_key(c.family()) == family)
    }

    /// Reads a stored value.
    ///
    /// Mends what can be mended without knowledge: an ordinal that is neither free nor held
    /// is free, one that is both is held, the legacy `hostAffinity` becomes the affinity.
    ///
    /// # Errors
    /// A reason, when the value contradicts itself otherwise.
    pub fn decode(value: &[u8]) -> Result<Self, String> {
        let w: Wire = serde_json::from_slice(value).map_err(|e| e.to_string())?;
        let cidr = Cidr::parse_strict(&w.cidr).map_err(|e| e.to_string())?;
        let size = w.allocations.len();
        if cidr.size() != size as u128 || size > MAX_BLOCK_ADDRESSES {
            return Err(format!("{size} allocations do not fit {cidr}"));
        }
        let mut allocations = Vec::with_capacity(size);
        for (ordinal, index) in w.allocations.into_iter().enumerate() {
            let index = match index {
                None => None,
                Some(i) => Some(
                    usize::try_from(i)
                        .ok()
                        .filter(|i| *i < w.attributes.len())
                        .ok_or_else(|| {
                            format!(
                                "ordinal {ordinal} refers to attribute {i}, which does not exist"
                            )
                        })?,
                ),
            };
            allocations.push(index);
        }
        let mut seen = vec![false; size];
        let mut unallocated: VecDeque<usize> = VecDeque::with_capacity(size);
        let listed = w
            .unallocated
            .into_iter()
            .filter_map(|o| usize::try_from(o).ok());
        for o in listed.chain(0..size) {
            if o < size && allocations[o].is_none() && !std::mem::replace(&mut seen[o], true) {
                unallocated.push_back(o);
            }
        }
        let affinity = w
            .affinity
            .or_else(|| w.host_affinity.map(|h| format!("host:{h}")));
        Ok(Self {
            cidr,
            affinity: affinity.filter(|a| !a.is_empty()),
            claim_time: w.affinity_claim_time,
            allocations,
            unallocated,
            attributes: w.attributes,
            sequence: w.sequence,
            sequence_of: w
                .sequence_of
                .iter()
                .filter_map(|(o, s)| Some((o.parse().ok()?, *s)))
                .collect(),
            deleted: w.deleted,
            extra: w.extra,
        })
    }

    /// The stored form.
    pub fn encode(&self) -> Vec<u8> {
        let w = Wire {
            cidr: self.cidr.to_string(),
            affinity: self.affinity.clone(),
            affinity_claim_time: self.claim_time,
            allocations: self
                .allocations
                .iter()
                .map(|i| i.map(|i| i as i64))
                .collect(),
            unallocated: self.unallocated.iter().map(|o| *o as i64).collect(),
            attributes: self.attributes.clone(),
            sequence: self.sequence,
            sequence_of: self
                .sequence_of
                .iter()
                .map(|(o, s)| (o.to_string(), *s))
                .collect(),
            deleted: self.deleted,
            host_affinity: None,
            extra: self.extra.clone(),
        };
        serde_json::to_vec(&w).expect("strings and numbers always encode")
    }

    /// Its addresses.
    pub const fn cidr(&self) -> Cidr {
        self.cidr
    }

    /// Its owner as stored, such as `host:node-1`.
    pub fn affinity(&self) -> Option<&str> {
        self.affinity.as_deref()
    }

    /// Its owner, `None` also when the affinity is of an unknown shape.
    pub fn owner(&self) -> Option<Owner> {
        Owner::parse(self.affinity.as_deref()?)
    }

    /// Whether `owner` owns it.
    pub fn is_owned_by(&self, owner: &Owner) -> bool {
        self.owner().as_ref() == Some(owner)
    }

    /// When its owner claimed it; not known for blocks from before this was recorded.
    pub const fn claim_time(&self) -> Option<Timestamp> {
        self.claim_time
    }

    /// A tombstone: readers treat the object as absent.
    pub const fn is_deleted(&self) -> bool {
        self.deleted
    }

    /// The number that every write of the block raises.
    pub const fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Raises the sequence number. Every update of the stored object begins with it.
    pub fn touch(&mut self) {
        self.sequence = self.sequence.saturating_add(1);
    }

    /// Gives it up: no owner, no claim time.
    pub fn disown(&mut self) {
        self.affinity = None;
        self.claim_time = None;
    }

    /// All addresses, free or not.
    pub fn size(&self) -> usize {
        self.allocations.len()
    }

    fn attribute_at(&self, ordinal: usize) -> Option<&Attribute> {
        self.attributes.get((*self.allocations.get(ordinal)?)?)
    }

    fn ordinal_of(&self, addr: IpAddr) -> Option<usize> {
        self.cidr
            .offset_of(addr)
            .and_then(|o| usize::try_from(o).ok())
    }

    fn address(&self, ordinal: usize) -> IpAddr {
        self.cidr.nth(ordinal as u128).unwrap_or(self.cidr.addr())
    }

    /// The attribute of an address that somebody holds.
    pub fn attribute(&self, addr: IpAddr) -> Option<&Attribute> {
        self.attribute_at(self.ordinal_of(addr)?)
            .filter(|a| a.released_at.is_none())
    }

    /// The sequence number under which an address was assigned, 0 if not recorded.
    pub fn sequence_of(&self, addr: IpAddr) -> u64 {
        self.ordinal_of(addr)
            .and_then(|o| self.sequence_of.get(&o).copied())
            .unwrap_or(0)
    }

    /// Every address that somebody holds, with its attribute, in order.
    pub fn held(&self) -> impl Iterator<Item = (IpAddr, &Attribute)> {
        (0..self.size()).filter_map(|o| {
            let a = self.attribute_at(o)?;
            a.released_at.is_none().then(|| (self.address(o), a))
        })
    }

    /// Every address that rests, and since when, in order.
    pub fn cooling(&self) -> impl Iterator<Item = (IpAddr, Timestamp)> {
        (0..self.size()).filter_map(|o| Some((self.address(o), self.attribute_at(o)?.released_at?)))
    }

    /// Addresses of a handle, in order.
    pub fn held_by(&self, handle: &str) -> impl Iterator<Item = Assigned> {
        self.held()
            .filter(move |(_, a)| a.handle() == Some(handle))
            .map(|(address, _)| Assigned {
                address,
                block: self.cidr,
                sequence: self.sequence_of(address),
            })
    }

    /// Whether nobody holds an address; what Windows keeps for itself does not count.
    pub fn is_unused(&self) -> bool {
        self.held().all(|(_, a)| a.is_windows())
    }

    /// Whether deleting it forgets nothing: unused, and nothing cools down.
    pub fn is_empty(&self) -> bool {
        self.is_unused() && self.cooling().next().is_none()
    }

    /// How many addresses could be taken.
    pub fn free(&self, reserved: &Reservations) -> usize {
        self.unallocated
            .iter()
            .filter(|o| !reserved.contains(self.address(**o)))
            .count()
    }

    /// Returns rested addresses to the end of the free list.
    pub fn collect(&mut self, now: Timestamp, cooldown_seconds: u32) {
        let rested = |a: &Attribute| {
            a.released_at.is_some_and(|t| {
                cooldown_seconds == 0
                    || now.duration_since(t).as_secs() >= i64::from(cooldown_seconds)
            })
        };
        // By time of release, so that reuse stays first in, first out.
        let mut back: Vec<(Timestamp, usize)> = (0..self.size())
            .filter_map(|o| {
                let a = self.attribute_at(o).filter(|a| rested(a))?;
                Some((a.released_at?, o))
            })
            .collect();
        if back.is_empty() {
            return;
        }
        back.sort_unstable();
        for (_, o) in back {
            self.allocations[o] = None;
            self.sequence_of.remove(&o);
            self.unallocated.push_back(o);
        }
        self.prune();
    }

    /// Drops attributes that no ordinal refers to.
    fn prune(&mut self) {
        let used: BTreeSet<usize> = self.allocations.iter().flatten().copied().collect();
        if used.len() == self.attributes.len() {
            return;
        }
        let renamed: BTreeMap<usize, usize> = used
            .iter()
            .enumerate()
            .map(|(new, old)| (*old, new))
            .collect();
        for a in self.allocations.iter_mut().flatten() {
            *a = renamed[a];
        }
        let mut i = 0;
        self.attributes.retain(|_| {
            i += 1;
            used.contains(&(i - 1))
        });
    }

    fn intern(&mut self, a: Attribute) -> usize {
        self.attributes
            .iter()
            .position(|b| *b == a)
            .unwrap_or_else(|| {
                self.attributes.push(a);
                self.attributes.len() - 1
            })
    }

    fn give(&mut self, ordinal: usize, attribute: usize) -> Assigned {
        self.allocations[ordinal] = Some(attribute);
        self.sequence_of.insert(ordinal, self.sequence);
        Assigned {
            address: self.address(ordinal),
            block: self.cidr,
            sequence: self.sequence,
        }
    }

    /// Takes up to `count` free addresses, oldest first, passing over reserved ones.
    pub fn take(
        &mut self,
        count: usize,
        handle: &str,
        attrs: &BTreeMap<String, String>,
        reserved: &Reservations,
    ) -> Vec<Assigned> {
        let mut picked = Vec::new();
        let mut kept = VecDeque::with_capacity(self.unallocated.len());
        for o in std::mem::take(&mut self.unallocated) {
            if picked.len() < count && !reserved.contains(self.address(o)) {
                picked.push(o);
            } else {
                kept.push_back(o);
            }
        }
        self.unallocated = kept;
        if picked.is_empty() {
            return Vec::new();
        }
        let a = self.intern(holder(handle, attrs));
        picked.into_iter().map(|o| self.give(o, a)).collect()
    }

    /// Takes this address, reserved or not.
    ///
    /// # Errors
    /// [`Error::OutsidePools`] when it is not of this block, [`Error::InUse`],
    /// [`Error::CoolingDown`]. The block is unchanged then.
    pub fn take_exact(
        &mut self,
        address: IpAddr,
        handle: &str,
        attrs: &BTreeMap<String, String>,
    ) -> Result<Assigned, Error> {
        let ordinal = self
            .ordinal_of(address)
            .ok_or(Error::OutsidePools(address))?;
        if let Some(a) = self.attribute_at(ordinal) {
            return Err(match a.released_at {
                Some(t) => Error::CoolingDown {
                    address,
                    since: t.to_string(),
                },
                None => Error::InUse {
                    address,
                    holder: a.handle().map(str::to_owned),
                },
            });
        }
        self.unallocated.retain(|o| *o != ordinal);
        let a = self.intern(holder(handle, attrs));
        Ok(self.give(ordinal, a))
    }

    fn free_ordinals(&mut self, ordinals: &[usize], now: Timestamp, cooldown_seconds: u32) {
        if ordinals.is_empty() {
            return;
        }
        let resting = Attribute {
            released_at: Some(whole_seconds(now)),
            ..Attribute::default()
        };
        let a = self.intern(resting);
        for o in ordinals {
            self.allocations[*o] = Some(a);
        }
        self.prune();
        // Without a cool-down they are free at once, at the end of the queue.
        self.collect(now, cooldown_seconds);
    }

    /// Releases addresses, all or, on an error, none.
    ///
    /// # Errors
    /// [`Error::BadSequenceNumber`] and [`Error::BadHandle`] for the first address that is
    /// not as its option says; [`Error::OutsidePools`] when it is not of this block.
    pub fn release(
        &mut self,
        options: &[ReleaseOption],
        now: Timestamp,
        cooldown_seconds: u32,
    ) -> Result<Released, Error> {
        let mut out = Released::default();
        let mut ordinals = BTreeSet::new();
        for opt in options {
            let address = opt.address;
            let ordinal = self
                .ordinal_of(address)
                .ok_or(Error::OutsidePools(address))?;
            let Some(a) = self.attribute(address) else {
                if !out.unallocated.contains(&address) {
                    out.unallocated.push(address);
                }
                continue;
            };
            let expected = self.sequence_of(address);
            if let Some(requested) = opt.sequence.filter(|s| *s != expected) {
                return Err(Error::BadSequenceNumber {
                    address,
                    requested,
                    expected,
                });
            }
            if let Some(h) = opt
                .handle
                .as_deref()
                .map(sanitize_handle)
                .filter(|h| a.handle() != Some(h))
            {
                let expected = a.handle().map(str::to_owned);
                return Err(Error::BadHandle {
                    address,
                    requested: h.to_owned(),
                    expected,
                });
            }
            if ordinals.insert(ordinal) {
                out.freed.push(address);
                if let Some(h) = a.handle() {
                    *out.by_handle.entry(h.to_owned()).or_default() += 1;
                }
            }
        }
        let ordinals: Vec<usize> = ordinals.into_iter().collect();
        self.free_ordinals(&ordinals, now, cooldown_seconds);
        Ok(out)
    }

    /// Releases all addresses of a handle and names them.
    pub fn release_handle(
        &mut self,
        handle: &str,
        now: Timestamp,
        cooldown_seconds: u32,
    ) -> Vec<IpAddr> {
        let addrs: Vec<IpAddr> = self.held_by(handle).map(|a| a.address).collect();
        let ordinals: Vec<usize> = addrs.iter().filter_map(|a| self.ordinal_of(*a)).collect();
        self.free_ordinals(&ordinals, now, cooldown_seconds);
        addrs
    }
}

fn holder(handle: &str, attrs: &BTreeMap<String, String>) -> Attribute {
    Attribute {
        handle_id: Some(handle.to_owned()),
        secondary: Some(attrs.clone()),
        ..Attribute::default()
    }
}

#[cfg(test)]
#[path = "block_tests.rs"]
mod tests;
