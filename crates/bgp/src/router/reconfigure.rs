//! Changes of a peer's configuration while it runs.
//!
//! Promises: what can change under a session does; anything else ends it with Cease and
//! starts it anew. Never: forgets what a peer has announced for a change of policy.

use super::sweep::Which;
use super::{Config, Router};
use crate::error::{Code, Notification};
use crate::peer::{LimitAction, PeerConfig, PrefixLimit};
use crate::rib::PeerId;
use crate::types::{PeerKind, PerFamily};
use net::Family;
use std::time::Instant;

impl Router {
    /// Gives the router another configuration. Another AS, router id or cluster ends all
    /// sessions; they start anew. What is for the start alone stays as it was:
    /// `track_next_hops`, `restarting`, `seed`.
    pub fn configure(&mut self, config: Config, now: Instant) {
        let old = self.config.clone();
        self.config = Config {
            track_next_hops: old.track_next_hops,
            restarting: old.restarting.clone(),
            seed: old.seed,
            ..config
        };
        self.out
            .configure(self.config.cluster(), self.config.queue_limit);
        self.rib.neighbours[0].router_id = self.config.router_id.0;
        if old.multipath != self.config.multipath {
            self.out.all_routes(&self.rib);
        }
        let who = |c: &Config| (c.asn, c.router_id, c.cluster());
        if who(&old) == who(&self.config) {
            return;
        }
        let ids: Vec<PeerId> = self.peers.iter().flatten().map(|p| p.id).collect();
        for id in ids {
            self.stop(id, Code::CONFIG_CHANGE.into(), now);
            // What it announced was judged by who we were.
            for family in Family::BOTH {
                self.purge(id, family, Which::All);
            }
            self.settle(id, now);
        }
    }

    /// Gives a peer another configuration.
    pub fn configure_peer(&mut self, id: PeerId, config: PeerConfig, now: Instant) {
        let Some(peer) = self.peer_mut(id) else {
            return;
        };
        let old = std::mem::replace(&mut peer.config, config.clone());
        if old == config {
            return;
        }
        self.rib.neighbours[id.index()].addr = config.addr;
        if let (Some(text), None) = (&config.shutdown, &old.shutdown) {
            self.stop(id, Notification::shutdown(Code::ADMIN_SHUTDOWN, text), now);
        } else if frozen(&old) != frozen(&config) {
            if let Some(peer) = self.peer_mut(id) {
                peer.halted = false;
                peer.refuse_until = None;
            }
            self.stop(id, Code::CONFIG_CHANGE.into(), now);
        } else {
            self.adapt(id, &old, &config);
            if old.limit != config.limit {
                self.relimit(id, old.limit, now);
            }
        }
        self.settle(id, now);
    }

    /// Another limit counts at once: who was kept away for the old one may come, and who is over the new
    /// one goes. What was taken before it was to be discarded stays; what the old one discarded is asked
    /// for again.
    fn relimit(&mut self, id: PeerId, old: PerFamily<Option<PrefixLimit>>, now: Instant) {
        let Some(peer) = self.peer_mut(id) else {
            return;
        };
        peer.halted = false;
        peer.refuse_until = None;
        for family in Family::BOTH {
            let Some(peer) = self.peer_mut(id) else {
                return;
            };
            let (new, paths) = (peer.config.limit[family], peer.paths[family]);
            let full = |l: &PrefixLimit| l.action == LimitAction::Discard && paths >= l.max;
            let over = new.filter(|l| peer.session.is_some() && paths > l.max);
            if old[family].is_some_and(|l| full(&l)) && !new.is_some_and(|l| full(&l)) {
                self.request_refresh(id, family, now);
            }
            if let Some(limit) = over {
                self.exceeded(id, family, limit, now);
            }
        }
    }

    fn adapt(&mut self, id: PeerId, old: &PeerConfig, new: &PeerConfig) {
        let neighbour = &mut self.rib.neighbours[id.index()];
        neighbour.client = new.client && neighbour.kind == PeerKind::Internal;
        if old.client != new.client {
            self.reconsider_peer(id);
        }
        let imports = |c: &PeerConfig| {
            (
                c.import.clone(),
                c.allow_own_asn,
                c.enforce_first_asn,
                c.allow_as_sets,
                c.graceful_shutdown,
                c.interface,
            )
        };
        if imports(old) != imports(new) {
            self.import_again(id);
        }
        let exports = |c: &PeerConfig| {
            (
                c.export.clone(),
                c.client,
                c.next_hop,
                c.own_address,
                c.link,
                c.add_path_send,
            )
        };
        if exports(old) != exports(new) {
            for family in Family::BOTH {
                self.tell_anew(id, family);
            }
        }
    }
}

/// A configuration without what can change under a session.
fn frozen(c: &PeerConfig) -> PeerConfig {
    let plain = PeerConfig::new(c.addr, c.asn.unwrap_or(net::Asn(0)));
    let mut timers = c.timers;
    let hold = timers.hold;
    timers = plain.timers;
    timers.hold = hold;
    PeerConfig {
        asn: c.asn,
        local_asn: c.local_asn,
        passive: c.passive,
        families: c.families,
        v4_over_v6: c.v4_over_v6,
        extended_messages: c.extended_messages,
        timers,
        add_path_receive: c.add_path_receive,
        // Whether it is offered is part of the session; how many are sent is not.
        add_path_send: match c.add_path_send {
            crate::peer::AddPathSend::No => crate::peer::AddPathSend::No,
            _ => crate::peer::AddPathSend::All,
        },
        restart: c.restart.clone(),
        role: c.role,
        strict_role: c.strict_role,
        own_address: PerFamily::default(),
        ..plain
    }
}
