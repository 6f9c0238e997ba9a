//! Which names are known by which addresses, and until when.
//!
//! Promises: holds names that somebody watches and no others; an address is known at least as
//! long as the answer allowed to use it; one pattern's names cannot push another's out.
//! Never: looks at a clock.

use super::answer::Answer;
use model::Update;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The most that an answer is taken to hold, as resolvers have it.
const MOST: Duration = Duration::from_secs(86_400);

/// What is kept, and how long.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Names of one pattern: whoever runs a domain can make any number.
    pub names: usize,
    /// Addresses of one name.
    pub addresses: usize,
    /// The least that an answer is taken to hold: programs use an address longer than a TTL of
    /// nothing or of a few seconds says.
    pub least: Duration,
    /// What programs keep an address beyond that: caches of runtimes, pools of connections.
    pub grace: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            names: 1024,
            addresses: 256,
            least: Duration::from_secs(30),
            grace: Duration::from_secs(30),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    /// Until when.
    addresses: BTreeMap<IpAddr, Instant>,
    /// When it was last heard of, counted.
    heard: u64,
    /// The pattern that it is kept for, unless somebody watches the very name.
    pattern: Option<Arc<str>>,
}

impl Entry {
    fn update(&self, name: &Arc<str>) -> Update {
        Update::Domain(name.clone(), Some(self.addresses.keys().copied().collect()))
    }
}

/// The names.
#[derive(Debug, Default)]
pub(crate) struct Book {
    limits: Limits,
    watched: BTreeSet<Arc<str>>,
    names: HashMap<Arc<str>, Entry>,
    heard: u64,
    /// Not after the first address expires.
    next: Option<Instant>,
}

impl Book {
    /// An empty one.
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            limits,
            ..Self::default()
        }
    }

    /// What is watched.
    pub(crate) fn watched(&self) -> impl Iterator<Item = &Arc<str>> {
        self.watched.iter()
    }

    /// Every name with its addresses and their ends.
    pub(crate) fn all(&self) -> impl Iterator<Item = (&Arc<str>, &BTreeMap<IpAddr, Instant>)> {
        self.names.iter().map(|(n, e)| (n, &e.addresses))
    }

    /// When something expires, or a moment before.
    pub(crate) const fn next(&self) -> Option<Instant> {
        self.next
    }

    /// Numbers of names and of addresses.
    pub(crate) fn size(&self) -> (usize, usize) {
        let addresses = self.names.values().map(|e| e.addresses.len()).sum();
        (self.names.len(), addresses)
    }

    /// Names and patterns (`*.` and a suffix) that somebody asks for, all of them. What nobody
    /// asks for any more is forgotten.
    pub(crate) fn watch(&mut self, names: &[Arc<str>]) -> Vec<Update> {
        self.watched = names.iter().cloned().collect();
        let mut out = Vec::new();
        let all: Vec<Arc<str>> = self.names.keys().cloned().collect();
        for name in all {
            match self.reason(&name) {
                None => out.push(self.forget(&name)),
                Some(pattern) => {
                    if let Some(e) = self.names.get_mut(&name) {
                        e.pattern = pattern;
                    }
                }
            }
        }
        out
    }

    /// Takes an answer.
    pub(crate) fn learn(&mut self, answer: &Answer, now: Instant) -> Vec<Update> {
        let limits = self.limits;
        let ends = answer.addresses.iter().map(|(a, ttl)| {
            let ttl = Duration::from_secs((*ttl).into());
            let held = ttl.clamp(limits.least, MOST) + limits.grace;
            (*a, now + held)
        });
        self.hear(&answer.name, ends)
    }

    /// Takes what was known before, each address with its end.
    pub(crate) fn hear(
        &mut self,
        name: &str,
        ends: impl Iterator<Item = (IpAddr, Instant)>,
    ) -> Vec<Update> {
        let Some(pattern) = self.reason(name) else {
            return Vec::new();
        };
        self.heard += 1;
        let mut out = Vec::new();
        if !self.names.contains_key(name) {
            out.extend(self.make_room(pattern.as_ref()));
        }
        let name: Arc<str> = name.into();
        let entry = self.names.entry(name.clone()).or_insert_with(|| Entry {
            addresses: BTreeMap::new(),
            heard: 0,
            pattern,
        });
        entry.heard = self.heard;
        let before: Vec<IpAddr> = entry.addresses.keys().copied().collect();
        for (address, end) in ends {
            let at = entry.addresses.entry(address).or_insert(end);
            *at = end.max(*at);
            self.next = Some(self.next.map_or(end, |n| n.min(end)));
        }
        while entry.addresses.len() > self.limits.addresses {
            let first = entry.addresses.iter().min_by_key(|(a, end)| (**end, **a));
            let Some(first) = first.map(|(a, _)| *a) else {
                break;
            };
            entry.addresses.remove(&first);
        }
        if !entry.addresses.keys().eq(&before) {
            out.push(entry.update(&name));
        }
        if entry.addresses.is_empty() {
            self.names.remove(&name);
        }
        out
    }

    /// Forgets what has expired.
    pub(crate) fn expire(&mut self, now: Instant) -> Vec<Update> {
        if self.next.is_none_or(|n| n > now) {
            return Vec::new();
        }
        let mut out = Vec::new();
        self.next = None;
        for (name, e) in &mut self.names {
            let before = e.addresses.len();
            e.addresses.retain(|_, end| *end > now);
            self.next = e.addresses.values().copied().chain(self.next).min();
            if e.addresses.is_empty() {
                out.push(Update::Domain(name.clone(), None));
            } else if e.addresses.len() < before {
                out.push(e.update(name));
            }
        }
        self.names.retain(|_, e| !e.addresses.is_empty());
        out
    }

    /// Whether it is watched, and the pattern if only by one; of several the longest.
    fn reason(&self, name: &str) -> Option<Option<Arc<str>>> {
        if self.watched.contains(name) {
            return Some(None);
        }
        let mut parents = name.match_indices('.');
        let found = parents.find_map(|(i, _)| {
            let pattern = format!("*{}", &name[i..]);
            self.watched.get(pattern.as_str())
        });
        found.map(|p| Some(p.clone()))
    }

    /// Of a pattern that has all the names it may have, the one not heard of for longest goes.
    fn make_room(&mut self, pattern: Option<&Arc<str>>) -> Option<Update> {
        let pattern = pattern?;
        let of = |e: &Entry| e.pattern.as_ref() == Some(pattern);
        let mut count = 0;
        let mut oldest: Option<(&Arc<str>, u64)> = None;
        for (name, e) in self.names.iter().filter(|(_, e)| of(e)) {
            count += 1;
            if oldest.is_none_or(|(_, heard)| e.heard < heard) {
                oldest = Some((name, e.heard));
            }
        }
        let (name, _) = oldest.filter(|_| count >= self.limits.names)?;
        let name = name.clone();
        Some(self.forget(&name))
    }

    fn forget(&mut self, name: &Arc<str>) -> Update {
        self.names.remove(name);
        Update::Domain(name.clone(), None)
    }
}

#[cfg(test)]
#[path = "book_tests.rs"]
mod tests;
