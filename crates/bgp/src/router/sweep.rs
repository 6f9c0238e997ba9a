//! Changes that concern a whole table: a peer goes, a policy or a next hop is another.
//!
//! Promises: what is small is done at once; of what is not, a slice is done at once and one with each
//! [`Router::tick`], which is due until nothing is left, so that nobody waits for a million prefixes.
//! What is under way for one peer is done in the order in which it came, and is done before its next
//! session begins. Never: leaves a path that is to go, or forgets one, because of when its turn came.

use super::Router;
use crate::attr::Community;
use crate::policy::Answer;
use crate::rib::{AttrId, Changed, HopId, NetId, Path, PathFlags, PeerId, SourceId};
use net::{Cidr, Family};
use rustc_hash::FxHashSet;
use smallvec::SmallVec;

/// Which paths of a peer go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Which {
    /// All.
    All,
    /// Those of its session before (RFC 4724).
    Stale,
    /// Those of this session.
    Fresh,
    /// Those that a refresh has not brought (RFC 7313).
    Unconfirmed,
}

impl Which {
    fn picks(self, path: &Path) -> bool {
        match self {
            Self::All => true,
            Self::Stale => path.flags.has(PathFlags::STALE),
            Self::Fresh => !path.flags.has(PathFlags::STALE),
            Self::Unconfirmed => path.flags.has(PathFlags::UNCONFIRMED),
        }
    }
}

/// What is done with each prefix.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Job {
    /// Paths of a peer go.
    Purge(PeerId, Which),
    /// All paths of a peer are of a session that is over (RFC 4724).
    Stale(PeerId),
    /// They are kept for long, and are the last choice (RFC 9494).
    Long(PeerId),
    /// The import policy is another.
    Import(PeerId),
    /// What the peer is to us is another.
    Peer(PeerId),
    /// These next hops are reached in another way, or not at all.
    Hops(FxHashSet<HopId>),
    /// Numbers of prefixes that nobody has any more are given away.
    Forget,
}

impl Job {
    const fn peer(&self) -> Option<PeerId> {
        match self {
            Self::Purge(id, _)
            | Self::Stale(id)
            | Self::Long(id)
            | Self::Import(id)
            | Self::Peer(id) => Some(*id),
            Self::Hops(_) | Self::Forget => None,
        }
    }
}

/// A job on its way through a table.
#[derive(Debug)]
pub(super) struct Sweep {
    family: Family,
    job: Job,
    /// The next prefix.
    at: u32,
    /// Prefixes from here on are newer than the change.
    end: u32,
}

impl Router {
    /// Begins a job; what a slice does not do waits. While another is under way for the same peer it
    /// waits as a whole, so that changes that come faster than they are done become one.
    pub(super) fn sweep(&mut self, family: Family, job: Job) {
        let same = |w: &Sweep| w.family == family && w.job.peer() == job.peer();
        if let Job::Purge(_, Which::All) = job {
            // Whatever else was to be done with them.
            self.sweeps.retain(|w| !same(w));
        }
        let turn = !self.sweeps.iter().any(same);
        for w in self.sweeps.iter_mut().rev().filter(|w| same(w)) {
            match (&mut w.job, &job) {
                (Job::Hops(all), Job::Hops(more)) if w.at == 0 => {
                    all.extend(more);
                    return;
                }
                (old, new) if w.at == 0 && old == new => return,
                // Behind another job of the peer it is not the same.
                _ if job.peer().is_some() => break,
                _ => {}
            }
        }
        let end = self.rib.tables[family].end();
        let mut sweep = Sweep {
            family,
            job,
            at: 0,
            end,
        };
        if !(turn && self.step(&mut sweep)) {
            self.sweeps.push_back(sweep);
        }
    }

    /// The next slice of what is under way.
    pub(super) fn sweep_on(&mut self) {
        if let Some(mut sweep) = self.sweeps.pop_front()
            && !self.step(&mut sweep)
        {
            self.sweeps.push_front(sweep);
        }
    }

    /// Does all that is under way for a peer.
    pub(super) fn sweep_through(&mut self, id: PeerId) {
        while let Some(i) = self.sweeps.iter().position(|w| w.job.peer() == Some(id)) {
            if let Some(mut sweep) = self.sweeps.remove(i) {
                while !self.step(&mut sweep) {}
            }
        }
    }

    /// Whether something is under way for a peer.
    pub(super) fn is_swept(&self, id: PeerId) -> bool {
        self.sweeps.iter().any(|w| w.job.peer() == Some(id))
    }

    /// A slice; whether it was the last.
    fn step(&mut self, sweep: &mut Sweep) -> bool {
        let Sweep { family, .. } = *sweep;
        let until = sweep
            .end
            .min(sweep.at.saturating_add(self.config.slice.max(1)));
        while sweep.at < until {
            if self.is_idle(family, &sweep.job) {
                return true;
            }
            let net = NetId(sweep.at);
            sweep.at += 1;
            match &sweep.job {
                Job::Purge(id, which) => self.purge_one(*id, family, net, *which),
                Job::Stale(id) => self.stale_one(*id, family, net),
                Job::Long(id) => self.rework(*id, family, net, Self::kept_for_long),
                Job::Import(id) => self.rework(*id, family, net, Self::imported_again),
                Job::Peer(id) => {
                    let peer = |r: &Self, p: Path| r.rib.sources.get(p.source).peer == *id;
                    self.reconsider_if(family, net, peer);
                }
                Job::Hops(hops) => {
                    let uses =
                        |r: &Self, p: Path| hops.contains(&r.rib.attributes.get(p.attributes).hop);
                    self.reconsider_if(family, net, uses);
                }
                Job::Forget => self.try_forget(family, net),
            }
        }
        sweep.at >= sweep.end
    }

    /// Whether there is nothing left to do: the peer has no path.
    fn is_idle(&self, family: Family, job: &Job) -> bool {
        let Some(id) = job.peer() else {
            return false;
        };
        match self.peer(id) {
            Some(p) => p.paths[family] == 0,
            // Of one that was removed nobody counts them.
            None => !matches!(job, Job::Purge(..)),
        }
    }

    fn purge_one(&mut self, id: PeerId, family: Family, net: NetId, which: Which) {
        let sources = &self.rib.sources;
        let gone = |p: &Path| sources.get(p.source).peer == id && which.picks(p);
        let paths = self.rib.tables[family].paths(net).filter(gone);
        let gone: SmallVec<[SourceId; 4]> = paths.map(|p| p.source).collect();
        for source in gone {
            self.remove_path(family, net, source);
        }
    }

    fn stale_one(&mut self, id: PeerId, family: Family, net: NetId) {
        let sources = &self.rib.sources;
        self.rib.tables[family].set_flags(net, |p| {
            if sources.get(p.source).peer == id {
                p.flags
                    .without(PathFlags::UNCONFIRMED)
                    .with(PathFlags::STALE)
            } else {
                p.flags
            }
        });
    }

    /// Gives the paths of a peer other attributes or flags; `None` removes one.
    fn rework(
        &mut self,
        id: PeerId,
        family: Family,
        net: NetId,
        work: impl Fn(&mut Self, PeerId, Cidr, Path) -> Option<(AttrId, PathFlags)>,
    ) {
        let of_peer = |p: &Path| self.rib.sources.get(p.source).peer == id;
        let paths = self.rib.tables[family].paths(net).filter(of_peer);
        let paths: SmallVec<[Path; 4]> = paths.collect();
        let prefix = self.rib.tables[family].prefix(net);
        for path in paths {
            match work(self, id, prefix, path) {
                None => self.remove_path(family, net, path.source),
                Some((attributes, flags)) => {
                    self.set_path(id, family, net, Path::new(attributes, path.source, flags));
                    self.rib.attributes.release(attributes);
                }
            }
        }
    }

    /// RFC 9494, section 4.2: what may not be kept goes, the rest is marked.
    fn kept_for_long(&mut self, _: PeerId, _: Cidr, path: Path) -> Option<(AttrId, PathFlags)> {
        let set = self.rib.attributes.get(path.attributes);
        if set.attributes.communities.contains(Community::NO_LLGR) {
            return None;
        }
        let id = self.marked_stale(path.attributes);
        Some((id, path.flags.with(PathFlags::LONG_STALE)))
    }

    fn imported_again(
        &mut self,
        id: PeerId,
        prefix: Cidr,
        path: Path,
    ) -> Option<(AttrId, PathFlags)> {
        let sets = &self.rib.attributes;
        let set = sets.get(path.attributes);
        let received = set.meta.received.map_or(set, |r| sets.get(r));
        let received = received.attributes.clone();
        let mut known: SmallVec<[(Answer, AttrId, PathFlags); 2]> = SmallVec::new();
        let (attributes, flags) = self.judged(id, prefix, &received, &mut known);
        let flags = path.flags.without(PathFlags::REJECTED).with(flags);
        if path.flags.has(PathFlags::LONG_STALE) {
            let marked = self.marked_stale(attributes);
            self.rib.attributes.release(attributes);
            return Some((marked, flags));
        }
        Some((attributes, flags))
    }

    /// Decides anew about a prefix if one of its paths is concerned.
    fn reconsider_if(
        &mut self,
        family: Family,
        net: NetId,
        concerned: impl Fn(&Self, Path) -> bool,
    ) {
        let mut paths = self.rib.tables[family].paths(net);
        if !paths.any(|p| concerned(self, p)) {
            return;
        }
        if self.rib.reconsider(family, net).best {
            self.watch_best(family, net);
        }
        let all = Changed {
            best: true,
            any: true,
        };
        self.out.mark(family, net, all, self.config.multipath);
    }
}
