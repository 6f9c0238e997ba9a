//! Which of the paths to a prefix is best, and why (RFC 4271, section 9.1.2.2).
//!
//! Promises: the choice is a function of the set of paths, whatever their order (MED is
//! compared within a neighbouring AS before ASes are compared with each other, as the RFC's
//! elimination does); every path that is not chosen has the [`Step`] that put it out.
//! Never: looks up anything; candidates come with all that is compared.

use crate::attr::Origin;
use smallvec::SmallVec;
use std::fmt;
use std::net::IpAddr;

/// A step of the decision, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Step {
    /// The next hop can be reached (RFC 4271, section 9.1.2.1).
    Resolvable,
    /// The greater preference given by configuration; local routes have more than learned
    /// ones.
    Preference,
    /// Not stale by long-lived graceful restart (RFC 9494, section 4.3).
    NotStale,
    /// The greater LOCAL_PREF.
    LocalPref,
    /// The shorter AS path.
    AsPathLength,
    /// The lesser ORIGIN.
    Origin,
    /// The lesser MED among those from one neighbouring AS.
    Med,
    /// From outside of the AS rather than from within.
    External,
    /// The lesser metric to the next hop.
    IgpMetric,
    /// The lesser router id, or ORIGINATOR_ID (RFC 4456, section 9).
    RouterId,
    /// The shorter CLUSTER_LIST (RFC 4456, section 9).
    ClusterListLength,
    /// The lesser address of the peer.
    PeerAddress,
    /// The lesser path id, for several paths of one peer.
    PathId,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Resolvable => "its next hop cannot be reached",
            Self::Preference => "lower preference",
            Self::NotStale => "stale (long-lived graceful restart)",
            Self::LocalPref => "lower LOCAL_PREF",
            Self::AsPathLength => "longer AS path",
            Self::Origin => "worse ORIGIN",
            Self::Med => "higher MED from the same neighbouring AS",
            Self::External => "learned from within the AS",
            Self::IgpMetric => "higher metric to the next hop",
            Self::RouterId => "higher router id",
            Self::ClusterListLength => "longer CLUSTER_LIST",
            Self::PeerAddress => "higher peer address",
            Self::PathId => "higher path id",
        })
    }
}

/// A path, as the decision sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    /// Metric of the way to the next hop; `None` cannot be reached.
    pub metric: Option<u32>,
    /// See [`Step::Preference`].
    pub preference: u16,
    /// Stale by long-lived graceful restart.
    pub stale: bool,
    /// LOCAL_PREF.
    pub local_pref: u32,
    /// Length of the AS path.
    pub hops: u32,
    /// ORIGIN.
    pub origin: Origin,
    /// MED.
    pub med: u32,
    /// The neighbouring AS.
    pub neighbour: u32,
    /// Learned from outside of the AS.
    pub external: bool,
    /// ORIGINATOR_ID, or the router id of the peer.
    pub router_id: u32,
    /// Length of the CLUSTER_LIST.
    pub clusters: u32,
    /// The peer's address.
    pub peer: IpAddr,
    /// The peer's path id, and what tells sources apart whose peers have one address.
    pub path_id: (u32, u32),
}

/// What became of a candidate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It is the best.
    Best,
    /// It is as good as the best up to the tie-breakers, so traffic may use both.
    Equal(Step),
    /// It lost, at this step.
    Lost(Step),
}

/// What became of each candidate, in their order. Without one whose next hop can be
/// reached, none is best.
pub fn decide(candidates: &[Candidate]) -> SmallVec<[Fate; 4]> {
    let mut fates: SmallVec<[Option<Fate>; 4]> = SmallVec::from_elem(None, candidates.len());
    let mut field = Field {
        all: candidates,
        fates: &mut fates,
        tie_break: false,
    };
    field.require(Step::Resolvable, |c| c.metric.is_some());
    field.least(Step::Preference, |c| u16::MAX - c.preference);
    field.least(Step::NotStale, |c| c.stale);
    field.least(Step::LocalPref, |c| u32::MAX - c.local_pref);
    field.least(Step::AsPathLength, |c| c.hops);
    field.least(Step::Origin, |c| c.origin);
    field.least_med();
    field.least(Step::External, |c| !c.external);
    field.least(Step::IgpMetric, |c| c.metric);
    field.tie_break = true;
    field.least(Step::RouterId, |c| c.router_id);
    field.least(Step::ClusterListLength, |c| c.clusters);
    field.least(Step::PeerAddress, |c| c.peer);
    field.least(Step::PathId, |c| c.path_id);
    fates.into_iter().map(|f| f.unwrap_or(Fate::Best)).collect()
}

/// The candidates that are still in, and what put the others out.
struct Field<'a> {
    all: &'a [Candidate],
    fates: &'a mut [Option<Fate>],
    /// Who goes out now is still as good as the best.
    tie_break: bool,
}

impl Field<'_> {
    fn out(&mut self, i: usize, step: Step) {
        self.fates[i] = Some(if self.tie_break {
            Fate::Equal(step)
        } else {
            Fate::Lost(step)
        });
    }

    fn require(&mut self, step: Step, holds: impl Fn(&Candidate) -> bool) {
        for i in 0..self.all.len() {
            if self.fates[i].is_none() && !holds(&self.all[i]) {
                self.out(i, step);
            }
        }
    }

    fn least<K: Ord>(&mut self, step: Step, key: impl Fn(&Candidate) -> K) {
        let inside = |f: &&mut Self, i: &usize| f.fates[*i].is_none();
        let this = &mut &mut *self;
        let least = (0..this.all.len())
            .filter(|i| inside(this, i))
            .map(|i| key(&this.all[i]))
            .min();
        let Some(least) = least else { return };
        self.require(step, |c| key(c) == least);
    }

    fn least_med(&mut self) {
        for i in 0..self.all.len() {
            let c = &self.all[i];
            let beaten = |(o, fate): (&Candidate, &Option<Fate>)| {
                o.neighbour == c.neighbour
                    && o.med < c.med
                    && matches!(fate, None | Some(Fate::Lost(Step::Med)))
            };
            if self.fates[i].is_none() && self.all.iter().zip(self.fates.iter()).any(beaten) {
                self.out(i, Step::Med);
            }
        }
    }
}

/// The best of the candidates; the same as [`decide`] says, sooner for one or two.
pub fn best(candidates: &[Candidate]) -> Option<usize> {
    match candidates {
        [] => None,
        [one] => one.metric.map(|_| 0),
        many => decide(many).iter().position(|f| *f == Fate::Best),
    }
}
