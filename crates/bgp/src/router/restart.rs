//! Restarts without loss of routes: ours and those of peers (RFC 4724, RFC 8538, RFC 9494).
//!
//! Promises: stale routes go when the peer has said all, when its time is over, or when it
//! says that it has not kept them, whichever is first; our own restart ends when all live
//! peers have said all. Never: waits for a peer that is not there, or that owes us no
//! End-of-RIB, longer than it is told to.

use super::peers::{Peer, Stale};
use super::session::End;
use super::sweep::{Job, Which};
use super::{Config, Event, Router};
use crate::attr::Community;
use crate::caps::{GracefulRestart, Negotiated};
use crate::rib::{AttrId, Meta, PeerId};
use crate::types::{AfiSafi, PerFamily};
use net::Family;
use std::time::{Duration, Instant};

/// How long after its session came up we wait for the End-of-RIB of a peer for which RFC 4724,
/// section 4.1 does not make us wait: one that says that it restarts too, or that does not offer
/// graceful restart. Most of them send one all the same, after their routes (FRR says for a while
/// after its start that it restarts, and takes a second to tell its routes). Nothing is lost
/// meanwhile, since the kernel forwards by the routes of before; only new ones come later. It has an
/// end since there are those that never send one, and two that restart at once wait for each other.
const COURTESY: Duration = Duration::from_secs(5);

/// A family whose routes we do not choose or tell yet.
#[derive(Debug, Clone, Copy)]
pub(super) struct Deferral {
    until: Instant,
    absent_until: Instant,
    next: Instant,
}

impl Deferral {
    /// Of a family of which nothing was kept nothing is lost by choosing at once.
    pub(super) fn start(config: &Config, now: Instant) -> PerFamily<Option<Self>> {
        PerFamily::from_fn(|family| {
            let restarting = config.restarting.as_ref();
            restarting.filter(|r| r.kept[family]).map(|r| {
                let absent_until = now + r.absent.min(r.deferral);
                Self {
                    until: now + r.deferral,
                    absent_until,
                    next: absent_until,
                }
            })
        })
    }

    /// When it has to be looked at next.
    pub(super) const fn deadline(&self) -> Instant {
        self.next
    }
}

impl Router {
    /// Whether our own restart is still under way for a family. Never where
    /// [`Restarting`](super::Restarting) says that nothing of it was kept.
    pub const fn is_restarting(&self, family: Family) -> bool {
        match family {
            Family::V4 => self.restarting.v4.is_some(),
            Family::V6 => self.restarting.v6.is_some(),
        }
    }

    /// Ends our restart for the families for which nobody is waited for any more.
    pub(super) fn restart_check(&mut self, now: Instant) {
        for family in Family::BOTH {
            let Some(mut d) = self.restarting[family] else {
                continue;
            };
            let peers = self.peers.iter().flatten();
            let awaited = peers.filter_map(|p| awaited_until(p, family, &d));
            match awaited.filter(|t| *t > now).min() {
                Some(next) if d.until > now => {
                    d.next = next.min(d.until);
                    self.restarting[family] = Some(d);
                }
                _ => {
                    self.restarting[family] = None;
                    self.tell_restarted(family);
                }
            }
        }
    }

    /// The session is over: its routes go or stay, by what was agreed on.
    pub(super) fn session_down(&mut self, id: PeerId, end: End, now: Instant) {
        self.leave_groups(id);
        let Some(peer) = self.peer_mut(id) else {
            return;
        };
        let Some(session) = peer.session.take() else {
            return;
        };
        let config = peer.config.clone();
        let ours = config.restart.as_ref();
        let agreed = session.negotiated;
        let restart = agreed.graceful_restart.as_ref().filter(|g| match end {
            End::Lost => true,
            End::Notified => g.notification && ours.is_some_and(|o| o.notification),
            End::Hard => false,
        });
        for family in Family::BOTH {
            let kept = restart.filter(|g| keeps(g, family) && !session.disabled[family]);
            let Some(g) = kept else {
                self.purge(id, family, Which::All);
                if let Some(peer) = self.peer_mut(id) {
                    peer.stale[family] = Stale::default();
                }
                continue;
            };
            // What the restart before has left is not kept for a second one.
            self.purge(id, family, Which::Stale);
            let then = long_lived(&agreed, family).map(|t| {
                let most = ours.and_then(|o| o.long_lived).unwrap_or_default();
                t.min(u32::try_from(most.as_secs()).unwrap_or(u32::MAX))
            });
            self.sweep(family, Job::Stale(id));
            if let Some(peer) = self.peer_mut(id) {
                if peer.paths[family] == 0 {
                    peer.stale[family] = Stale::default();
                    continue;
                }
                peer.stale[family] = Stale {
                    until: Some(now + Duration::from_secs(g.time.into())),
                    long: false,
                    then: then.filter(|t| *t > 0),
                    refresh_until: None,
                };
            }
            self.event(Event::Stale {
                peer: id,
                family,
                long: false,
            });
        }
        self.restart_check(now);
    }

    /// What was kept of a peer that is away goes.
    pub(super) fn forget_stale(&mut self, id: PeerId) {
        for family in Family::BOTH {
            if let Some(peer) = self.peer_mut(id) {
                peer.stale[family] = Stale::default();
            }
            self.purge(id, family, Which::Stale);
        }
    }

    /// The peer is back: what it has not kept goes, the rest waits for its End-of-RIB
    /// (RFC 4724, section 4.2).
    pub(super) fn back_again(&mut self, id: PeerId, now: Instant) {
        for family in Family::BOTH {
            let Some(peer) = self.peer_mut(id) else {
                return;
            };
            let stale = peer.stale[family];
            if stale.until.is_none() {
                continue;
            }
            let Some(session) = &peer.session else {
                return;
            };
            let agreed = &session.negotiated;
            let forwarded = match (&agreed.graceful_restart, stale.long) {
                (Some(g), false) => g
                    .families
                    .iter()
                    .any(|f| f.family == AfiSafi::unicast(family) && f.forwarding),
                (Some(_), true) => agreed
                    .long_lived
                    .iter()
                    .any(|l| l.family == AfiSafi::unicast(family) && l.forwarding),
                (None, _) => false,
            };
            if forwarded && agreed.carries(family) {
                let wait = peer.config.restart.as_ref().map(|r| r.stale_time);
                peer.stale[family].until = Some(now + wait.unwrap_or_default());
            } else {
                peer.stale[family] = Stale::default();
                self.purge(id, family, Which::Stale);
            }
        }
    }

    /// The peer has sent all that it had.
    pub(super) fn end_of_rib(&mut self, id: PeerId, family: Family, now: Instant) {
        let Some(peer) = self.peer_mut(id) else {
            return;
        };
        let Some(session) = &mut peer.session else {
            return;
        };
        let first = !std::mem::replace(&mut session.end_of_rib[family], true);
        if peer.stale[family].until.take().is_some() {
            peer.stale[family] = Stale::default();
            self.purge(id, family, Which::Stale);
        }
        if first {
            self.event(Event::EndOfRib { peer: id, family });
            for m in &mut self.monitors {
                m.complete(family, id);
            }
            self.restart_check(now);
        }
    }

    /// Stale routes and refreshes whose time is over.
    pub(super) fn stale_tick(&mut self, id: PeerId, now: Instant) {
        for family in Family::BOTH {
            let Some(peer) = self.peer_mut(id) else {
                return;
            };
            let up = peer.session.is_some();
            let stale = &mut peer.stale[family];
            if stale.refresh_until.is_some_and(|t| t <= now) {
                stale.refresh_until = None;
            }
            if stale.until.is_none_or(|t| t > now) {
                continue;
            }
            match stale.then.take() {
                Some(seconds) if !up => {
                    stale.long = true;
                    stale.until = Some(now + Duration::from_secs(seconds.into()));
                    self.make_long_lived(id, family);
                }
                _ => {
                    *stale = Stale::default();
                    self.purge(id, family, Which::Stale);
                }
            }
        }
    }

    /// RFC 9494, section 4.2: what may not be kept goes, the rest is marked, and is the last
    /// choice.
    fn make_long_lived(&mut self, id: PeerId, family: Family) {
        self.purge(id, family, Which::Fresh);
        self.sweep(family, Job::Long(id));
        self.event(Event::Stale {
            peer: id,
            family,
            long: true,
        });
    }
}

impl Router {
    /// The same attributes with LLGR_STALE, held by the caller.
    pub(super) fn marked_stale(&mut self, id: AttrId) -> AttrId {
        let set = self.rib.attributes.get(id);
        let mut attributes = set.attributes.clone();
        attributes.communities.insert(Community::LLGR_STALE);
        let meta = Meta {
            received: Some(set.meta.received.unwrap_or(id)),
            ..set.meta
        };
        self.rib.attributes.intern(attributes, meta)
    }
}

/// Until when the End-of-RIB of a peer is waited for, if it is at all.
fn awaited_until(peer: &Peer, family: Family, d: &Deferral) -> Option<Instant> {
    if !peer.enabled() || !peer.config.families[family] {
        return None;
    }
    let Some(s) = &peer.session else {
        return Some(d.absent_until);
    };
    if !s.negotiated.carries(family) || s.end_of_rib[family] {
        return None;
    }
    let owed = s.negotiated.graceful_restart.is_some() && !s.peer_restarting;
    Some(match owed {
        true => d.until,
        false => s.since + COURTESY,
    })
}

fn keeps(g: &GracefulRestart, family: Family) -> bool {
    g.families
        .iter()
        .any(|f| f.family == AfiSafi::unicast(family))
}

fn long_lived(agreed: &Negotiated, family: Family) -> Option<u32> {
    agreed
        .long_lived
        .iter()
        .find(|l| l.family == AfiSafi::unicast(family))
        .map(|l| l.stale_time)
}
