//! A store in memory that checks the invariants at every write.
//!
//! Each call yields once before it acts, so that a test can interleave operations, and drop
//! them, at every step. It reads the JSON itself, not through the crate under test.

use ipam::{Storage, StorageError, Stored};
use jiff::Timestamp;
use serde_json::Value;
use std::collections::{BTreeMap, HashSet};
use std::future::Future;
use std::pin::Pin;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};

/// A small generator: the same seed, the same run.
#[derive(Debug, Clone)]
pub(crate) struct Rng(pub(crate) u64);

impl Rng {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
    pub(crate) fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }
    pub(crate) fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }
}

struct Yield(bool);

impl Future for Yield {
    type Output = ();
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if std::mem::replace(&mut self.0, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

/// Runs a future alone, to its end.
pub(crate) fn finish<T>(f: impl Future<Output = T>) -> T {
    let mut f = std::pin::pin!(f);
    loop {
        if let Poll::Ready(v) = f.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            return v;
        }
    }
}

/// An assignment that somebody relies on: handle and sequence number.
pub(crate) type Belief = (String, u64);

#[derive(Default)]
pub(crate) struct State {
    pub(crate) map: BTreeMap<String, (Vec<u8>, u64)>,
    rev: u64,
    pub(crate) now: Timestamp,
    pub(crate) cooldown: i64,
    /// A pool is going away: its cool-downs are forgotten.
    pub(crate) forgetting: bool,
    /// The test put contradictions in: no invariant is asserted.
    pub(crate) contradictory: bool,
    /// Addresses that are in use as far as their users know, by address.
    pub(crate) beliefs: BTreeMap<String, Belief>,
    /// Every (address, sequence) ever stored.
    assigned: HashSet<(String, u64)>,
    /// Of 1000 calls, how many fail before they act, and as many after.
    pub(crate) faults: usize,
    rng: Option<Rng>,
}

/// The store.
#[derive(Default)]
pub(crate) struct Memory {
    pub(crate) state: Mutex<State>,
    pub(crate) calls: AtomicUsize,
    /// A write of the same bytes keeps the revision, as in the Kubernetes API.
    pub(crate) quiet_writes: bool,
}

/// address -> handle (None while cooling), sequence, released
type Holders = BTreeMap<String, (Option<String>, u64, Option<Timestamp>)>;

fn text(v: &Value) -> Option<String> {
    v.as_str().map(str::to_owned)
}

/// Reads a block's JSON, asserting that each ordinal is free xor allocated.
fn holders(raw: &[u8]) -> (Value, Holders) {
    let v: Value = serde_json::from_slice(raw).expect("block JSON");
    let cidr: net::Cidr = v["cidr"].as_str().expect("cidr").parse().expect("cidr");
    let allocations = v["allocations"].as_array().expect("allocations");
    let mut free = HashSet::new();
    for o in v["unallocated"].as_array().expect("unallocated") {
        assert!(
            free.insert(o.as_u64().expect("ordinal")),
            "I2: listed twice: {v}"
        );
    }
    let mut out = Holders::new();
    let mut used = HashSet::new();
    for (o, a) in allocations.iter().enumerate() {
        assert_eq!(
            a.is_null(),
            free.contains(&(o as u64)),
            "I2: ordinal {o} of {v}"
        );
        let Some(i) = a.as_u64() else { continue };
        used.insert(i);
        let attr = &v["attributes"][i as usize];
        let handle = text(&attr["handle_id"]);
        let released = text(&attr["releasedAt"]).map(|t| t.parse().expect("time"));
        assert!(
            handle.is_some() != released.is_some(),
            "I1: ordinal {o} of {v}"
        );
        let seq = v["sequenceNumberForAllocation"][o.to_string()]
            .as_u64()
            .unwrap_or(0);
        out.insert(
            cidr.nth(o as u128).expect("inside").to_string(),
            (handle, seq, released),
        );
    }
    assert_eq!(
        used.len(),
        v["attributes"].as_array().map_or(0, Vec::len),
        "unused attributes: {v}"
    );
    (v, out)
}

impl State {
    /// I5 for one handle and block, and I3 for all affinities to the block.
    fn check_links(&self, cidr_key: &str, block: Option<&(Value, Holders)>) {
        if let Some((v, held)) = block {
            let cidr = v["cidr"].as_str().expect("cidr");
            let mut real: BTreeMap<&str, u64> = BTreeMap::new();
            for (h, _, _) in held.values() {
                if let Some(h) = h {
                    *real.entry(h).or_default() += 1;
                }
            }
            for (h, real) in real {
                let counted =
                    self.map
                        .get(&format!("/calico/ipam/v2/handle/{h}"))
                        .map_or(0, |(raw, _)| {
                            let v: Value = serde_json::from_slice(raw).expect("handle JSON");
                            v["block"][cidr].as_u64().unwrap_or(0)
                        });
                assert!(
                    counted >= real,
                    "I5: {h} counts {counted} of {real} in {cidr}"
                );
            }
        }
        for (key, (raw, _)) in &self.map {
            let Some(rest) = key.strip_prefix("/calico/ipam/v2/host/") else {
                continue;
            };
            if !key.ends_with(&format!("/{cidr_key}")) {
                continue;
            }
            let a: Value = serde_json::from_slice(raw).expect("affinity JSON");
            if a["state"] == "confirmed" {
                let host = rest.split('/').next().expect("host");
                let owner = block.and_then(|(v, _)| text(&v["affinity"]));
                assert_eq!(
                    owner,
                    Some(format!("host:{host}")),
                    "I3: {key} is confirmed"
                );
            }
        }
    }

    fn check_block(&mut self, key: &str, before: Option<Vec<u8>>, after: Option<Vec<u8>>) {
        let old = before.as_deref().map(holders);
        let new = after.as_deref().map(holders);
        if let (Some((o, _)), Some((n, _))) = (&old, &new) {
            let seq = |v: &Value| v["sequenceNumber"].as_u64().expect("sequence");
            assert!(seq(n) > seq(o), "I4: {key}");
        }
        let none = Holders::new();
        let (was, is) = (
            old.as_ref().map_or(&none, |o| &o.1),
            new.as_ref().map_or(&none, |n| &n.1),
        );
        for (addr, (handle, seq, released)) in was {
            let next = is.get(addr);
            if let Some(since) = released {
                let rested = self.now.duration_since(*since).as_secs() >= self.cooldown;
                let still = next.is_some_and(|n| n.2 == Some(*since));
                assert!(
                    still || rested || self.cooldown == 0 || self.forgetting,
                    "I7: {addr}"
                );
            } else if let Some((Some(h), s, _)) = next {
                assert_eq!(
                    (handle.as_ref(), seq),
                    (Some(h), s),
                    "{addr} changed hands in one write"
                );
            }
        }
        for (addr, (handle, seq, _)) in is {
            if handle.is_some() && was.get(addr).is_none_or(|w| w.0.is_none()) {
                assert!(
                    self.assigned.insert((addr.clone(), *seq)),
                    "I8: {addr} twice under {seq}"
                );
            }
        }
        for (addr, (h, s)) in &self.beliefs {
            if was.contains_key(addr) || is.contains_key(addr) {
                let found = is.get(addr).map(|i| (i.0.clone(), i.1));
                assert_eq!(
                    found,
                    Some((Some(h.clone()), *s)),
                    "{addr} was taken from its holder"
                );
            }
        }
        self.check_links(key.rsplit('/').next().expect("cidr"), new.as_ref());
    }

    fn block_of_key(&self, cidr_key: &str) -> Option<(Value, Holders)> {
        let family = if cidr_key.contains(':') {
            "ipv6"
        } else {
            "ipv4"
        };
        let key = format!("/calico/ipam/v2/assignment/{family}/block/{cidr_key}");
        self.map.get(&key).map(|(raw, _)| holders(raw))
    }

    /// Checks what a write at `key` may have broken.
    fn check(&mut self, key: &str, before: Option<Vec<u8>>) {
        if self.contradictory {
            return;
        }
        let after = self.map.get(key).map(|(v, _)| v.clone());
        if key.contains("/assignment/") {
            self.check_block(key, before, after);
        } else if key.contains("/handle/") {
            let mut blocks = HashSet::new();
            for raw in [before, after].into_iter().flatten() {
                let v: Value = serde_json::from_slice(&raw).expect("handle JSON");
                blocks.extend(
                    v["block"]
                        .as_object()
                        .expect("map")
                        .keys()
                        .map(|c| c.replace('/', "-")),
                );
            }
            for c in blocks {
                self.check_links(&c, self.block_of_key(&c).as_ref());
            }
        } else if let Some(c) = key.split("/block/").nth(1) {
            self.check_links(c, self.block_of_key(c).as_ref());
        }
    }

    fn fails(&mut self) -> bool {
        let n = self.faults;
        self.rng
            .as_mut()
            .is_some_and(|r| n > 0 && r.below(1000) < n)
    }
}

impl Memory {
    pub(crate) fn new(seed: u64, now: Timestamp) -> Self {
        let state = State {
            now,
            rng: Some(Rng(seed)),
            ..State::default()
        };
        Self {
            state: Mutex::new(state),
            ..Self::default()
        }
    }

    pub(crate) fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    pub(crate) fn keys(&self) -> Vec<String> {
        self.lock().map.keys().cloned().collect()
    }

    pub(crate) fn json(&self, key: &str) -> Option<Value> {
        self.lock()
            .map
            .get(key)
            .map(|(v, _)| serde_json::from_slice(v).expect("JSON"))
    }

    /// Puts an object as another program would.
    pub(crate) fn put(&self, key: &str, value: &str) {
        let mut s = self.lock();
        s.rev += 1;
        let rev = s.rev;
        s.map
            .insert(key.to_owned(), (value.as_bytes().to_vec(), rev));
    }

    pub(crate) fn count_calls(&self) -> usize {
        self.calls.swap(0, Ordering::Relaxed)
    }

    async fn call<T>(
        &self,
        operation: &'static str,
        key: &str,
        act: impl FnOnce(&mut State) -> Result<T, StorageError>,
    ) -> Result<T, StorageError> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        Yield(false).await;
        let mut s = self.lock();
        let other = |message: &str| StorageError::Other {
            operation,
            key: key.into(),
            message: message.into(),
        };
        if s.fails() {
            return Err(other("unavailable"));
        }
        let before = s.map.get(key).map(|(v, _)| v.clone());
        let result = act(&mut s);
        if result.is_ok() && operation != "get" && operation != "list" {
            s.check(key, before);
            if s.fails() {
                return Err(other("lost reply"));
            }
        }
        result
    }
}

fn at(s: &State, key: &str, rev: u64) -> Result<(), StorageError> {
    match s.map.get(key) {
        None => Err(StorageError::NotFound),
        Some((_, r)) if *r != rev => Err(StorageError::Conflict),
        Some(_) => Ok(()),
    }
}

impl Storage for Memory {
    async fn get(&self, key: &str) -> Result<Option<Stored>, StorageError> {
        self.call("get", key, |s| {
            Ok(s.map.get(key).map(|(v, rev)| Stored {
                key: key.into(),
                value: v.clone(),
                rev: *rev,
            }))
        })
        .await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<Stored>, StorageError> {
        self.call("list", prefix, |s| {
            let all = s
                .map
                .range(prefix.to_owned()..)
                .take_while(|(k, _)| k.starts_with(prefix));
            Ok(all
                .map(|(k, (v, rev))| Stored {
                    key: k.clone(),
                    value: v.clone(),
                    rev: *rev,
                })
                .collect())
        })
        .await
    }

    async fn create(&self, key: &str, value: &[u8]) -> Result<u64, StorageError> {
        self.call("create", key, |s| {
            if s.map.contains_key(key) {
                return Err(StorageError::Conflict);
            }
            s.rev += 1;
            s.map.insert(key.to_owned(), (value.to_vec(), s.rev));
            Ok(s.rev)
        })
        .await
    }

    async fn update(&self, key: &str, value: &[u8], rev: u64) -> Result<u64, StorageError> {
        let quiet = self.quiet_writes;
        self.call("update", key, |s| {
            at(s, key, rev)?;
            if quiet && s.map.get(key).is_some_and(|(v, _)| v == value) {
                return Ok(rev);
            }
            s.rev += 1;
            s.map.insert(key.to_owned(), (value.to_vec(), s.rev));
            Ok(s.rev)
        })
        .await
    }

    async fn delete(&self, key: &str, rev: u64) -> Result<(), StorageError> {
        self.call("delete", key, |s| {
            at(s, key, rev)?;
            s.rev += 1;
            s.map.remove(key);
            Ok(())
        })
        .await
    }
}
