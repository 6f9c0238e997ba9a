//! The tables: which paths there are to which prefixes, and what they carry.
//!
//! Promises: a path takes 16 octets wherever it came from, attributes are there once
//! however many paths have them, and a prefix with one path is one record. One table holds
//! what every peer announced (the Adj-RIBs-In are the paths themselves) and what is used
//! (the Loc-RIB is the first path of each prefix). Never: decides which path is best.

mod bits;
mod hops;
mod intern;
mod table;

pub use bits::Bits;
pub use hops::{Hop, HopId, HopState, Hops};
pub use intern::{AttrId, Interned, Interner, Meta, Rank};
pub use table::{NetId, Path, PathFlags, Paths, Source, SourceId, Sources, Table};

use crate::decision::{self, Candidate, Challenge, Fate};
use crate::types::{PeerKind, PerFamily};
use net::Family;
use smallvec::SmallVec;
use std::net::IpAddr;

/// A peer's number within one router; 0 is the router itself. Numbers of removed peers
/// are given anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PeerId(pub u16);

impl PeerId {
    /// The router itself, as the source of its own routes.
    pub const LOCAL: Self = Self(0);

    /// Its place in tables by peer.
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

impl std::fmt::Display for PeerId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "peer {}", self.0)
    }
}

/// What the decision and the export need to know of a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Neighbour {
    /// Its address.
    pub addr: IpAddr,
    /// Its router id; that of the last session while there is none.
    pub router_id: u32,
    /// What it is to us.
    pub kind: PeerKind,
    /// A client of ours as a reflector.
    pub client: bool,
}

/// All tables and what they share.
#[derive(Debug)]
pub struct Rib {
    /// Prefixes and paths, by family.
    pub tables: PerFamily<Table>,
    /// Attributes.
    pub attributes: Interner,
    /// Where paths come from.
    pub sources: Sources,
    /// What is known of peers, by [`PeerId::index`].
    pub neighbours: Vec<Neighbour>,
}

/// What a change of paths did to a prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Changed {
    /// Another path is best, or the best carries something else, or there is none now.
    pub best: bool,
    /// Some path came, went, or carries something else.
    pub any: bool,
}

impl Rib {
    /// Empty tables. `own` is what the router is to itself.
    pub fn new(seed: u64, track_next_hops: bool, own: Neighbour) -> Self {
        Self {
            tables: PerFamily::from_fn(|f| Table::new(f, seed)),
            attributes: Interner::new(seed, Hops::new(track_next_hops)),
            sources: Sources::default(),
            neighbours: vec![own],
        }
    }

    /// Sets a path, with the caller's hold on its attributes; the source is held by the
    /// path from here on.
    #[inline]
    pub fn set(&mut self, family: Family, net: NetId, path: Path) -> Changed {
        let table = &mut self.tables[family];
        let before = table.best(net);
        self.attributes.retain(path.attributes);
        let old = table.set(net, path);
        match old {
            None => self.sources.retain(path.source),
            Some(old) if old.attributes == path.attributes && old.is_like(path) => {
                self.attributes.release(old.attributes);
                return Changed::default();
            }
            Some(_) => {}
        }
        match before.filter(|_| old.is_none()) {
            Some(best) => self.challenge(family, net, best, path),
            None => self.choose(family, net),
        }
        let after = self.tables[family].best(net);
        if let Some(old) = old {
            self.attributes.release(old.attributes);
        }
        Changed {
            best: !same(before, after),
            any: true,
        }
    }

    /// Takes a path out.
    pub fn remove(&mut self, family: Family, net: NetId, source: SourceId) -> Changed {
        let table = &mut self.tables[family];
        let before = table.best(net);
        let Some(old) = table.remove(net, source) else {
            return Changed::default();
        };
        self.choose(family, net);
        let after = self.tables[family].best(net);
        self.attributes.release(old.attributes);
        self.sources.release(source);
        Changed {
            best: !same(before, after),
            any: true,
        }
    }

    /// Decides anew, where the paths are the same but what is known of next hops or peers
    /// is not.
    pub fn reconsider(&mut self, family: Family, net: NetId) -> Changed {
        let before = self.tables[family].best(net);
        self.choose(family, net);
        Changed {
            best: !same(before, self.tables[family].best(net)),
            any: true,
        }
    }

    /// Decides after a path has been added to others of which one is best.
    fn challenge(&mut self, family: Family, net: NetId, best: Path, new: Path) {
        if !new.is_candidate() {
            return;
        }
        match decision::challenge(&self.candidate(best), &self.candidate(new)) {
            Challenge::Fails => {}
            Challenge::Wins => {
                let table = &mut self.tables[family];
                table.prefer(net, new.source);
                table.mark_best(net, true);
            }
            Challenge::Open => self.choose(family, net),
        }
    }

    #[inline]
    fn choose(&mut self, family: Family, net: NetId) {
        let mut paths = self.tables[family].paths(net);
        let Some(first) = paths.next() else {
            return;
        };
        if paths.next().is_none() {
            let usable = first.is_candidate() && self.metric(first).is_some();
            self.tables[family].mark_best(net, usable);
            return;
        }
        let (paths, candidates) = self.candidates(family, net);
        let best = decision::best(&candidates);
        let table = &mut self.tables[family];
        if let Some(i) = best {
            table.prefer(net, paths[i].source);
        }
        table.mark_best(net, best.is_some());
    }

    fn metric(&self, path: Path) -> Option<u32> {
        let hop = self.attributes.get(path.attributes).hop;
        self.attributes.hops.get(hop).state.metric
    }

    /// The paths that may be used, and what the decision sees of them.
    pub fn candidates(
        &self,
        family: Family,
        net: NetId,
    ) -> (SmallVec<[Path; 4]>, SmallVec<[Candidate; 4]>) {
        self.tables[family]
            .paths(net)
            .filter(|p| p.is_candidate())
            .map(|p| (p, self.candidate(p)))
            .unzip()
    }

    fn candidate(&self, path: Path) -> Candidate {
        let set = self.attributes.get(path.attributes);
        let source = self.sources.get(path.source);
        let peer = &self.neighbours[source.peer.index()];
        let rank = &set.rank;
        Candidate {
            metric: self.attributes.hops.get(set.hop).state.metric,
            preference: set.meta.preference,
            stale: rank.stale || path.flags.has(PathFlags::LONG_STALE),
            local_pref: rank.local_pref,
            hops: rank.hops,
            origin: rank.origin,
            med: rank.med,
            neighbour: rank.neighbour,
            external: peer.kind != PeerKind::Internal,
            router_id: rank.originator.unwrap_or(peer.router_id),
            clusters: rank.clusters,
            peer: peer.addr,
            path_id: (source.path_id.0, path.source.0),
        }
    }

    /// The paths that traffic may use, the best first: those that are equal up to the
    /// tie-breakers, `max` at most.
    pub fn multipath(&self, family: Family, net: NetId, max: usize) -> SmallVec<[Path; 4]> {
        let Some(best) = self.tables[family].best(net) else {
            return SmallVec::new();
        };
        let mut out = SmallVec::from_slice(&[best]);
        if max <= 1 || self.tables[family].paths(net).nth(1).is_none() {
            return out;
        }
        let (paths, candidates) = self.candidates(family, net);
        let fates = decision::decide(&candidates);
        let mut equal: SmallVec<[usize; 4]> = (0..paths.len())
            .filter(|&i| matches!(fates[i], Fate::Equal(_)))
            .collect();
        equal.sort_by_key(|&i| (candidates[i].router_id, candidates[i].peer, paths[i].source));
        out.extend(equal.into_iter().take(max - 1).map(|i| paths[i]));
        out
    }

    /// The paths to send to a peer that takes several, the best first.
    pub fn ranked(&self, family: Family, net: NetId, max: usize) -> SmallVec<[Path; 4]> {
        let (paths, candidates) = self.candidates(family, net);
        let fates = decision::decide(&candidates);
        let place = |i: &usize| match fates[*i] {
            Fate::Best => (0, std::cmp::Reverse(None)),
            Fate::Equal(step) => (1, std::cmp::Reverse(Some(step))),
            Fate::Lost(step) => (2, std::cmp::Reverse(Some(step))),
        };
        let mut order: SmallVec<[usize; 4]> = (0..paths.len())
            .filter(|&i| candidates[i].metric.is_some())
            .collect();
        order.sort_by_key(|i| (place(i), candidates[*i].router_id, paths[*i].source));
        order.into_iter().take(max).map(|i| paths[i]).collect()
    }

    /// The octets that it holds.
    pub fn heap_size(&self) -> usize {
        self.tables.v4.heap_size() + self.tables.v6.heap_size() + self.attributes.heap_size()
    }
}

/// Whether two paths are the same to who learns of them.
fn same(a: Option<Path>, b: Option<Path>) -> bool {
    match (a, b) {
        (None, None) => true,
        (Some(a), Some(b)) => a.source == b.source && a.attributes == b.attributes && a.is_like(b),
        _ => false,
    }
}
