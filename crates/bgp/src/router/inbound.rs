//! Octets from a peer, and what its messages do.
//!
//! Promises: messages are taken in order, each whole; a message of a connection that has
//! gone meanwhile is not looked at. Never: decides about routes.

use super::sweep::Which;
use super::{ConnId, Event, Router};
use crate::caps::{Decoding, Negotiated};
use crate::error::{Code, Fault, FaultClass, Notification, SessionError};
use crate::fsm::{Event as Fsm, Side, State};
use crate::message::{Message, Open, RefreshSubtype, RouteRefresh, Update};
use crate::rib::PeerId;
use crate::types::PeerKind;
use crate::wire;
use bytes::Bytes;
use std::time::{Duration, Instant};

impl Router {
    /// Octets came from the peer, any number of them.
    pub fn received(&mut self, conn: ConnId, octets: &[u8], now: Instant) {
        let Some(peer) = self.current(conn) else {
            return;
        };
        let mut kept = std::mem::take(&mut peer.conn_mut(conn.side).partial);
        if kept.is_empty() {
            let used = self.messages(conn, octets, now);
            kept.extend_from_slice(&octets[used..]);
        } else {
            kept.extend_from_slice(octets);
            let used = self.messages(conn, &kept, now);
            kept.drain(..used);
        }
        if let Some(peer) = self.current(conn) {
            peer.conn_mut(conn.side).partial = kept;
        }
        self.settle(conn.peer, now);
    }

    /// Takes all whole messages; returns how many octets they were.
    fn messages(&mut self, conn: ConnId, octets: &[u8], now: Instant) -> usize {
        let mut used = 0;
        loop {
            let Some(peer) = self.current(conn) else {
                return octets.len();
            };
            let c = peer.conn(conn.side);
            let how = c
                .negotiated
                .as_ref()
                .map_or_else(Decoding::default, |n| n.decoding);
            let octets_at = used;
            let rest = &octets[used..];
            let message = match wire::frame_len(rest, how.extended_message) {
                Ok(None) => return used,
                Ok(Some(len)) => {
                    used += len;
                    wire::read(&rest[..len], &how)
                }
                Err(e) => Err(e),
            };
            if let Some(peer) = self.current(conn) {
                peer.counters.received += 1;
                if let Ok(Message::Open(_)) = &message {
                    let octets = &octets[octets_at..used];
                    peer.conn_mut(conn.side).opens[1] = Bytes::copy_from_slice(octets);
                }
            }
            match message {
                Ok(message) => self.message(conn.peer, conn.side, message, now),
                Err(e) => {
                    self.broken(conn, e, now);
                    return octets.len();
                }
            }
        }
    }

    fn broken(&mut self, conn: ConnId, error: SessionError, now: Instant) {
        let event = match error.notification.code.code {
            2 => Fsm::OpenError,
            3 => Fsm::UpdateError,
            _ => Fsm::HeaderError,
        };
        if let Some(fault) = &error.fault {
            self.event(Event::Faults {
                peer: conn.peer,
                what: vec![(**fault).clone()],
            });
        }
        self.fire(conn.peer, conn.side, event, Some(error.notification), now);
    }

    fn message(&mut self, id: PeerId, side: Side, message: Message<'_>, now: Instant) {
        let Some(peer) = self.peer_mut(id) else {
            return;
        };
        let up = peer.conn(side).state == State::Established;
        match message {
            Message::Open(open) => self.open(id, side, open, now),
            Message::Keepalive => self.fire(id, side, Fsm::Keepalive, None, now),
            Message::Update(update) => {
                peer.counters.updates += 1;
                // The row for UPDATE in Established, without the way there: this is where
                // a million routes pass.
                if up {
                    restart_hold(peer.conn_mut(side), now);
                    self.update(id, update, now);
                } else {
                    self.fire(id, side, Fsm::Update, None, now);
                }
            }
            Message::RouteRefresh(refresh) => {
                self.fire(id, side, Fsm::RouteRefresh, None, now);
                if up {
                    self.refresh(id, refresh, now);
                }
            }
            Message::Notification(what) => {
                let event = match what.code {
                    Code::UNSUPPORTED_VERSION => Fsm::NotificationVersionError,
                    _ => Fsm::Notification,
                };
                peer.last_error = Some(format!("received: {what}"));
                self.event(Event::Notified {
                    peer: id,
                    sent: false,
                    what: what.clone(),
                });
                self.fire(id, side, event, Some(what), now);
            }
        }
    }

    fn open(&mut self, id: PeerId, side: Side, theirs: Open, now: Instant) {
        let Some(peer) = self.peer(id) else {
            return;
        };
        let conn = peer.conn(side);
        let delayed = match conn.state {
            State::OpenSent => false,
            State::Connect | State::Active if conn.delay_open.is_some() => true,
            _ => return self.fire(id, side, Fsm::Open, None, now),
        };
        let ours = match &conn.sent {
            Some(sent) => sent.clone(),
            None => self.our_open(peer),
        };
        let kind = peer.config.kind(self.config.asn, theirs.asn);
        if let Err(what) = self.check_open(id, kind, &theirs) {
            return self.fire(id, side, Fsm::OpenError, Some(what), now);
        }
        if !self.resolve_collision(id, side, &theirs, now) {
            return;
        }
        if let Some(peer) = self.peer_mut(id) {
            let conn = peer.conn_mut(side);
            conn.negotiated = Some(Negotiated::new(&ours, &theirs, kind));
            conn.heard = Some(theirs);
        }
        let event = if delayed { Fsm::OpenDelayed } else { Fsm::Open };
        self.fire(id, side, event, None, now);
    }

    fn check_open(&self, id: PeerId, kind: PeerKind, theirs: &Open) -> Result<(), Notification> {
        let Some(peer) = self.peer(id) else {
            return Ok(());
        };
        if peer.config.asn.is_none() && kind == PeerKind::Internal {
            return Err(Code::BAD_PEER_AS.into());
        }
        theirs.check_peer(peer.config.asn, kind, self.config.router_id)?;
        if kind == PeerKind::External {
            theirs.check_role(peer.config.role, peer.config.strict_role)?;
        }
        Ok(())
    }

    fn update(&mut self, id: PeerId, update: Update<'_>, now: Instant) {
        if !update.faults.is_empty() {
            let withdrawn = |f: &Fault| f.class == FaultClass::TreatAsWithdraw;
            if update.faults.iter().any(withdrawn)
                && let Some(peer) = self.peer_mut(id)
            {
                peer.counters.treated_as_withdraw += 1;
            }
            self.event(Event::Faults {
                peer: id,
                what: update.faults,
            });
        }
        if let Some(family) = update.disable {
            if let Some(s) = self.peer_mut(id).and_then(|p| p.session.as_mut()) {
                s.disabled[family] = true;
            }
            self.purge(id, family, Which::All);
        }
        for block in update.withdrawn {
            self.withdrawn(id, block);
        }
        for announcement in update.announced {
            if !self.announced(id, announcement, now) {
                return;
            }
        }
        if let Some(family) = update.end_of_rib {
            self.end_of_rib(id, family, now);
        }
    }

    fn refresh(&mut self, id: PeerId, refresh: RouteRefresh, now: Instant) {
        let Some(family) = refresh.family.family() else {
            return;
        };
        let Some(session) = self.peer(id).and_then(|p| p.session.as_ref()) else {
            return;
        };
        if !session.negotiated.carries(family) {
            return;
        }
        let enhanced = session.negotiated.enhanced_refresh;
        match refresh.subtype {
            RefreshSubtype::Request => self.tell_again(id, family, now),
            RefreshSubtype::Begin if enhanced => self.refresh_begins(id, family, now),
            RefreshSubtype::End if enhanced => self.refresh_ends(id, family),
            RefreshSubtype::Begin | RefreshSubtype::End | RefreshSubtype::Other(_) => {}
        }
    }
}

fn restart_hold(conn: &mut super::peers::Conn, now: Instant) {
    let hold = conn.negotiated.as_ref().map_or(0, |n| n.hold_time);
    if hold != 0 {
        conn.hold = Some(now + Duration::from_secs(hold.into()));
    }
}
