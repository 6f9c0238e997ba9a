//! Which of the paths to a prefix is best, and why (RFC 4271, section 9.1.2.2).
//!
//! Promises: the choice is a function of the set of paths, whatever their order (MED is
//! compared within a neighbouring AS before ASes are compared with each other, as the RFC's
//! elimination does); every path that is not chosen has the [`Step`] that put it out.
//! Never: looks up anything; candidates come with all that is compared.

use crate::attr::Origin;
use smallvec::SmallVec;
use std::cmp::Ordering;
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

/// What a path that is added means for the best of the paths before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Challenge {
    /// The best stays.
    Fails,
    /// The new path is best.
    Wins,
    /// That takes the whole field: another path may put the new one out by its MED.
    Open,
}

/// Holds a path that is added against the best of all others, which need not be looked at
/// where that settles it.
pub fn challenge(best: &Candidate, new: &Candidate) -> Challenge {
    let early = |c: &Candidate| {
        (
            c.metric.is_none(),
            u16::MAX - c.preference,
            c.stale,
            u32::MAX - c.local_pref,
            c.hops,
            c.origin,
        )
    };
    let late = |c: &Candidate| {
        (
            !c.external,
            c.metric,
            c.router_id,
            c.clusters,
            c.peer,
            c.path_id,
        )
    };
    match early(new).cmp(&early(best)) {
        Ordering::Less => return Challenge::Wins,
        Ordering::Greater => return Challenge::Fails,
        Ordering::Equal => {}
    }
    if new.neighbour == best.neighbour && new.med != best.med {
        return if new.med > best.med {
            Challenge::Fails
        } else {
            Challenge::Open
        };
    }
    match late(new).cmp(&late(best)) {
        Ordering::Greater => Challenge::Fails,
        _ => Challenge::Open,
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn plain() -> Candidate {
        Candidate {
            metric: Some(10),
            preference: 100,
            stale: false,
            local_pref: 100,
            hops: 3,
            origin: Origin::Egp,
            med: 5,
            neighbour: 1,
            external: true,
            router_id: 50,
            clusters: 1,
            peer: IpAddr::from([10, 0, 0, 5]),
            path_id: (5, 0),
        }
    }

    /// Each step decides between two paths that are equal up to it, whatever comes later.
    #[test]
    fn the_steps_in_their_order() {
        type Change = fn(&mut Candidate);
        let better: [(Step, Change); 13] = [
            (Step::PathId, |c| c.path_id.0 = 1),
            (Step::PeerAddress, |c| c.peer = IpAddr::from([10, 0, 0, 1])),
            (Step::ClusterListLength, |c| c.clusters = 0),
            (Step::RouterId, |c| c.router_id = 1),
            (Step::IgpMetric, |c| c.metric = Some(1)),
            (Step::External, |_| {}),
            (Step::Med, |c| c.med = 1),
            (Step::Origin, |c| c.origin = Origin::Igp),
            (Step::AsPathLength, |c| c.hops = 1),
            (Step::LocalPref, |c| c.local_pref = 200),
            (Step::NotStale, |_| {}),
            (Step::Preference, |c| c.preference = 200),
            (Step::Resolvable, |_| {}),
        ];
        for (i, (step, change)) in better.iter().enumerate() {
            let (mut a, mut b) = (plain(), plain());
            change(&mut a);
            match step {
                Step::External => b.external = false,
                Step::NotStale => b.stale = true,
                Step::Resolvable => b.metric = None,
                _ => {}
            }
            // The other is better in all that is looked at later.
            for (_, later) in &better[..i] {
                let metric = b.metric;
                later(&mut b);
                b.metric = metric.and(b.metric);
            }
            let fates = decide(&[b, a]);
            let lost = if *step >= Step::RouterId {
                Fate::Equal(*step)
            } else {
                Fate::Lost(*step)
            };
            assert_eq!(fates.as_slice(), [lost, Fate::Best], "{step:?}");
        }
    }

    #[test]
    fn med_counts_within_a_neighbouring_as_only() {
        let (a, mut b, mut c) = (plain(), plain(), plain());
        b.neighbour = 2;
        b.med = 9;
        b.router_id = 1;
        c.neighbour = 2;
        c.med = 1;
        c.router_id = 99;
        // b would be best by router id, but c of its own AS puts it out.
        let fates = decide(&[a, b, c]);
        assert_eq!(fates[1], Fate::Lost(Step::Med));
        assert_eq!(fates[0], Fate::Best);
        assert_eq!(best(&[a, b]), Some(1));
    }

    #[test]
    fn none_is_best_when_none_can_be_reached() {
        let mut a = plain();
        a.metric = None;
        assert_eq!(best(&[a]), None);
        assert_eq!(best(&[a, a]), None);
        assert_eq!(best(&[]), None);
    }

    fn any_candidate() -> impl Strategy<Value = Candidate> {
        let small = 0u32..2;
        (
            (
                prop::option::of(small.clone()),
                0u16..2,
                any::<bool>(),
                small.clone(),
            ),
            (small.clone(), 0u8..2, 0u32..3, 0u32..3),
            (any::<bool>(), small.clone(), small),
        )
            .prop_map(|(a, b, c)| Candidate {
                metric: a.0,
                preference: a.1,
                stale: a.2,
                local_pref: a.3,
                hops: b.0,
                origin: Origin::from_u8(b.1).expect("an origin"),
                med: b.2,
                neighbour: b.3,
                external: c.0,
                router_id: c.1,
                clusters: c.2,
                peer: IpAddr::from([10, 0, 0, 1]),
                path_id: (0, 0),
            })
    }

    proptest! {
        /// The choice does not depend on the order, and a challenge agrees with it.
        #[test]
        fn a_function_of_the_set(mut all in prop::collection::vec(any_candidate(), 1..8)) {
            for (i, c) in (0u32..).zip(&mut all) {
                c.path_id = (i, i);
            }
            let winner = best(&all).map(|i| all[i]);
            let mut turned = all.clone();
            turned.reverse();
            prop_assert_eq!(best(&turned).map(|i| turned[i]), winner);
            let (new, before) = all.split_last().expect("at least one");
            if let Some(old) = best(before).map(|i| before[i]) {
                match challenge(&old, new) {
                    Challenge::Fails => prop_assert_eq!(winner, Some(old)),
                    Challenge::Wins => prop_assert_eq!(winner, Some(*new)),
                    Challenge::Open => {}
                }
            }
        }
    }
}
