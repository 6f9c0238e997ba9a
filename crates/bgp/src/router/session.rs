//! Connections and sessions: the state machines' actions, timers, damping.
//!
//! Promises: every transition is one row of [`fsm::step`]; what the RFC leaves to the
//! implementation (which side starts when, who is damped) is in [`Router::settle`] alone.
//! Never: reads a message.

use super::outbound::send_hold_time;
use super::peers::{Peer, Session};
use super::sweep::Which;
use super::{ConnId, Event, Output, PeerStatus, Router};
use crate::caps::{
    AddPath, Capability, ExtendedNextHop, GracefulRestart, LongLived, RestartFamily,
};
use crate::error::{Code, Notification};
use crate::fsm::{self, Action, Event as Fsm, Side, State};
use crate::message::Open;
use crate::peer::{AddPathSend, PeerConfig};
use crate::rib::{Neighbour, PeerId};
use crate::types::{AfiSafi, PeerKind, PerFamily};
use crate::wire;
use net::{Asn, Family};
use std::cmp::Reverse;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// The hold time before one is negotiated (RFC 4271, section 10, suggests 4 minutes).
const LARGE_HOLD: Duration = Duration::from_secs(240);
/// A connection that was refused is tried again after so long at first.
const RETRY_FIRST: Duration = Duration::from_millis(250);

/// What a state machine error says beside its code: the type of the message that was not
/// expected (RFC 6608, section 3).
const fn unexpected(code: Code, event: Fsm) -> &'static [u8] {
    match (code.code, event) {
        (5, Fsm::Open) => &[1],
        (5, Fsm::Update) => &[2],
        (5, Fsm::Notification | Fsm::NotificationVersionError) => &[3],
        (5, Fsm::Keepalive) => &[4],
        (5, Fsm::RouteRefresh) => &[5],
        _ => &[],
    }
}

/// Why a session goes down, for graceful restart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// The connection was lost.
    Lost,
    /// A NOTIFICATION was sent or received.
    Notified,
    /// The peer is not to keep anything, nor we (RFC 8538, section 3).
    Hard,
}

impl Router {
    /// Adds a peer and starts it.
    ///
    /// # Panics
    /// With more than 65534 peers.
    pub fn add_peer(&mut self, config: PeerConfig, now: Instant) -> PeerId {
        let number = |i: usize| PeerId(u16::try_from(i).expect("at most 65534 peers"));
        // The number of one whose routes are still on their way out is not given away.
        let is_free = |&i: &usize| self.peers[i].is_none() && !self.is_swept(number(i));
        let index = (1..self.peers.len()).find(is_free);
        let index = index.unwrap_or(self.peers.len());
        let id = number(index);
        assert!(id.0 < u16::MAX, "at most 65534 peers");
        let neighbour = Neighbour {
            addr: config.addr,
            router_id: u32::MAX,
            kind: PeerKind::External,
            client: config.client,
        };
        if index == self.peers.len() {
            self.peers.push(None);
            self.rib.neighbours.push(neighbour);
        } else {
            self.rib.neighbours[index] = neighbour;
        }
        self.peers[index] = Some(Box::new(Peer::new(id, config)));
        self.settle(id, now);
        id
    }

    /// Removes a peer and its routes.
    pub fn remove_peer(&mut self, id: PeerId, now: Instant) {
        if self.peer(id).is_none() {
            return;
        }
        self.stop(id, Code::PEER_DECONFIGURED.into(), now);
        for family in Family::BOTH {
            self.purge(id, family, Which::All);
        }
        self.peers[id.index()] = None;
        self.watch_session(id);
        self.restart_check(now);
    }

    /// Ends the session with an administrative reset; it starts anew.
    pub fn reset_peer(&mut self, id: PeerId, text: &str, now: Instant) {
        if let Some(p) = self.peer_mut(id) {
            p.halted = false;
            p.errors = 0;
            p.refuse_until = None;
        }
        self.stop(id, Notification::shutdown(Code::ADMIN_RESET, text), now);
        self.settle(id, now);
    }

    /// The path to the peer has failed, as BFD says (RFC 5882). A session that is up ends with "BFD
    /// Down" (RFC 9384), keeps no routes, and starts anew; it does not wait for the path.
    ///
    /// A peer that is away keeps its graceful restart, since its BFD may have gone with the rest of
    /// it; unless BFD is `independent` of its control plane (RFC 5882, section 4.3.1): then nothing is
    /// forwarded there, and its routes go.
    pub fn path_failed(&mut self, id: PeerId, why: &str, independent: bool, now: Instant) {
        let Some(peer) = self.peer(id) else {
            return;
        };
        if peer.session.is_some() {
            self.stop(id, Code::BFD_DOWN.into(), now);
            if let Some(peer) = self.peer_mut(id) {
                peer.last_error = Some(format!("sent: {}: {why}", Code::BFD_DOWN));
            }
            self.settle(id, now);
        } else if independent {
            self.forget_stale(id);
            self.restart_check(now);
        }
    }

    /// What is known of a peer.
    pub fn peer_status(&self, id: PeerId) -> Option<PeerStatus> {
        self.peer(id).map(Peer::status)
    }

    /// All peers.
    pub fn peers(&self) -> impl Iterator<Item = PeerStatus> + '_ {
        self.peers.iter().flatten().map(|p| p.status())
    }

    /// What a peer is configured with.
    pub fn peer_config(&self, id: PeerId) -> Option<&PeerConfig> {
        self.peer(id).map(|p| &p.config)
    }

    /// The peer has connected to us. `None`: the connection is not wanted, close it.
    pub fn accepted(&mut self, id: PeerId, local: IpAddr, now: Instant) -> Option<ConnId> {
        self.settle(id, now);
        let peer = self.peer(id)?;
        if !peer.enabled() {
            return None;
        }
        let restarts = peer
            .session
            .as_ref()
            .is_some_and(|s| s.negotiated.graceful_restart.is_some());
        match (peer.theirs.state, peer.theirs.connected) {
            (State::Idle, _) => return None,
            (State::Connect | State::Active, false) => {}
            // A speaker that restarts connects before we see its old connection die
            // (RFC 4724, section 4.2).
            (State::Established, _) if !restarts => return None,
            // Nobody opens two connections at once: the one before is dead.
            _ => {
                self.fire(id, Side::Theirs, Fsm::TcpFails, None, now);
                self.start(id, Side::Theirs, now);
            }
        }
        let conn = self.peer_mut(id)?.conn_mut(Side::Theirs);
        conn.live = true;
        let conn = self.peer(id)?.conn_id(Side::Theirs);
        self.connected(conn, local, now);
        Some(conn)
    }

    /// The connection that [`Output::Connect`] asked for stands. `local`: its own address.
    pub fn connected(&mut self, conn: ConnId, local: IpAddr, now: Instant) {
        let Some(peer) = self.current(conn) else {
            return;
        };
        let delay = !peer.config.timers.delay_open.is_zero();
        let c = peer.conn_mut(conn.side);
        c.connected = true;
        c.local = Some(local);
        let event = if delay {
            Fsm::TcpConnectedDelay
        } else {
            Fsm::TcpConnected
        };
        self.fire(conn.peer, conn.side, event, None, now);
        self.settle(conn.peer, now);
    }

    /// The connection is lost, or could not be made.
    pub fn disconnected(&mut self, conn: ConnId, now: Instant) {
        let Some(peer) = self.current(conn) else {
            return;
        };
        peer.conn_mut(conn.side).live = false;
        self.fire(conn.peer, conn.side, Fsm::TcpFails, None, now);
        self.settle(conn.peer, now);
    }

    /// The peer of a connection that is still the one in its place.
    pub(super) fn current(&mut self, conn: ConnId) -> Option<&mut Peer> {
        let peer = self.peer_mut(conn.peer)?;
        let c = peer.conn(conn.side);
        (c.live && c.generation == conn.generation).then_some(peer)
    }

    /// Ends both connections with this NOTIFICATION.
    pub(super) fn stop(&mut self, id: PeerId, why: Notification, now: Instant) {
        for side in [Side::Ours, Side::Theirs] {
            self.fire(id, side, Fsm::Stop, Some(why.clone()), now);
        }
    }

    /// Starts what should run and does not: both sides, unless the peer is down by an
    /// operator, damped, or up already.
    pub(super) fn settle(&mut self, id: PeerId, now: Instant) {
        let Some(peer) = self.peer_mut(id) else {
            return;
        };
        for wait in [&mut peer.refuse_until, &mut peer.dial_after] {
            if wait.is_some_and(|t| t <= now) {
                *wait = None;
            }
        }
        if peer.enabled() && peer.refuse_until.is_none() {
            let dial = peer.ours.state == State::Idle
                && !peer.config.passive
                && peer.dial_after.is_none()
                && peer.theirs.state < State::OpenSent;
            let wait = peer.theirs.state == State::Idle;
            if wait {
                self.start(id, Side::Theirs, now);
            }
            if dial {
                self.start(id, Side::Ours, now);
            }
        }
        self.schedule(id);
    }

    fn start(&mut self, id: PeerId, side: Side, now: Instant) {
        let event = match side {
            Side::Ours => Fsm::Start,
            Side::Theirs => Fsm::StartPassive,
        };
        self.fire(id, side, event, None, now);
    }

    /// Sees to it that the peer is looked at in time.
    pub(super) fn schedule(&mut self, id: PeerId) {
        let Some(peer) = self.peer_mut(id) else {
            return;
        };
        let Some(at) = peer.deadline() else {
            return;
        };
        if peer.scheduled.is_none_or(|s| at < s) {
            peer.scheduled = Some(at);
            self.timers.push(Reverse((at, id)));
        }
    }

    /// Does what is due for a peer.
    pub(super) fn peer_tick(&mut self, id: PeerId, now: Instant) {
        let Some(peer) = self.peer_mut(id) else {
            return;
        };
        if peer.scheduled.is_none_or(|s| s > now) {
            return;
        }
        peer.scheduled = None;
        for side in [Side::Ours, Side::Theirs] {
            while let Some(event) = self.due(id, side, now) {
                self.fire(id, side, event, None, now);
            }
        }
        self.stale_tick(id, now);
        self.settle(id, now);
    }

    /// The next timer of a connection that has expired, stopped.
    fn due(&mut self, id: PeerId, side: Side, now: Instant) -> Option<Fsm> {
        let conn = self.peer_mut(id)?.conn_mut(side);
        let timers = [
            (&mut conn.hold, Fsm::HoldTimerExpires),
            (&mut conn.send_hold, Fsm::SendHoldTimerExpires),
            (&mut conn.keepalive, Fsm::KeepaliveTimerExpires),
            (&mut conn.delay_open, Fsm::DelayOpenTimerExpires),
            (&mut conn.connect_retry, Fsm::ConnectRetryTimerExpires),
        ];
        for (timer, event) in timers {
            if timer.is_some_and(|t| t <= now) {
                *timer = None;
                return Some(event);
            }
        }
        None
    }

    /// Takes a connection's state machine one step. `given` is the NOTIFICATION that came
    /// with the event: to be sent, or received.
    pub(super) fn fire(
        &mut self,
        id: PeerId,
        side: Side,
        event: Fsm,
        given: Option<Notification>,
        now: Instant,
    ) {
        let Some(peer) = self.peer_mut(id) else {
            return;
        };
        let before = peer.state();
        let step = fsm::step(peer.conn(side).state, event);
        peer.conn_mut(side).state = step.next;
        for action in step.actions {
            self.act(id, side, *action, event, given.as_ref(), now);
        }
        let Some(after) = self.peer(id).map(Peer::state) else {
            return;
        };
        if before != after {
            self.event(Event::State {
                peer: id,
                from: before,
                to: after,
            });
        }
    }

    fn act(
        &mut self,
        id: PeerId,
        side: Side,
        action: Action,
        event: Fsm,
        given: Option<&Notification>,
        now: Instant,
    ) {
        match action {
            Action::Up => return self.session_up(id, side, now),
            Action::Down => {
                self.note_end(id, side, event, given);
                return self.session_down(id, end_of(event, given), now);
            }
            Action::Notify(code) => {
                return self.notify(id, side, Notification::new(code, unexpected(code, event)));
            }
            Action::NotifyGiven => {
                let what = given.cloned().unwrap_or_else(|| Code::CEASE.into());
                return self.notify(id, side, what);
            }
            Action::IdleHold => return self.idle_hold(id, event, given, now),
            Action::SendOpen => return self.send_open(id, side, now),
            Action::Drop => return self.drop_conn(id, side),
            // Messages are handed on by whoever has them.
            Action::Deliver => return,
            _ => {}
        }
        self.act_on(id, side, action, now);
        self.tell_queue(id, side, now);
    }

    /// The actions that change nothing but the connection and its timers.
    fn act_on(&mut self, id: PeerId, side: Side, action: Action, now: Instant) {
        let jitter = self.random(1000);
        let Some(peer) = self.peer_mut(id) else {
            return;
        };
        let (timers, passive) = (peer.config.timers, peer.config.passive);
        let (addr, conn_id) = (peer.config.addr, peer.conn_id(side));
        let conn = peer.conn_mut(side);
        let hold = conn.negotiated.as_ref().map_or(0, |n| n.hold_time);
        let hold_at = (hold != 0).then(|| now + Duration::from_secs(hold.into()));
        let keepalive_at = || {
            let third = Duration::from_secs(hold.into()) / 3;
            let own = timers
                .keepalive
                .map_or(third, |k| Duration::from_secs(k.into()));
            (hold != 0).then(|| now + jittered(third.min(own), jitter))
        };
        match action {
            Action::ZeroRetries => (conn.retries, conn.refused) = (0, 0),
            Action::CountRetry => conn.retries += 1,
            // The connections that the peer opens are its own to try again.
            Action::StartConnectRetry if side == Side::Theirs || passive => {}
            Action::StartConnectRetry => {
                // Two that start together find one not listening yet: a few quick tries, which
                // count until there was a session. While a connection is tried it has its time.
                let wait = match conn.state {
                    State::Active => {
                        let quick = RETRY_FIRST * (1 << conn.refused.min(16));
                        conn.refused += 1;
                        quick.min(timers.connect_retry)
                    }
                    _ => timers.connect_retry,
                };
                conn.connect_retry = Some(now + jittered(wait, jitter));
            }
            Action::StopConnectRetry => conn.connect_retry = None,
            Action::Initiate => {
                conn.live = true;
                let to = addr;
                self.outputs
                    .push_back(Output::Connect { conn: conn_id, to });
            }
            Action::SendKeepalive => {
                let mut out = Vec::new();
                wire::write_keepalive(&mut out);
                conn.push(out.into());
            }
            Action::StartDelayOpen => conn.delay_open = Some(now + timers.delay_open),
            Action::StopDelayOpen => conn.delay_open = None,
            Action::StartHoldLarge => conn.hold = Some(now + LARGE_HOLD),
            Action::StartNegotiated => {
                conn.hold = hold_at;
                conn.keepalive = keepalive_at();
            }
            Action::RestartHold => conn.hold = hold_at,
            Action::RestartKeepalive => conn.keepalive = keepalive_at(),
            Action::StopSession => {
                conn.hold = None;
                conn.keepalive = None;
                conn.delay_open = None;
                conn.send_hold = None;
            }
            _ => {}
        }
    }

    /// Tells the caller once that a connection has something to send.
    pub(super) fn tell_queue(&mut self, id: PeerId, side: Side, now: Instant) {
        let Some(peer) = self.peer_mut(id) else {
            return;
        };
        let conn_id = peer.conn_id(side);
        let conn = peer.conn_mut(side);
        if conn.connected && !conn.told && !conn.queue.is_empty() {
            conn.told = true;
            conn.send_hold = Some(now + send_hold_time(conn));
            self.outputs.push_back(Output::Send { conn: conn_id });
        }
    }

    fn notify(&mut self, id: PeerId, side: Side, what: Notification) {
        let Some(peer) = self.peer_mut(id) else {
            return;
        };
        let for_good = matches!(
            what.code,
            Code::ADMIN_SHUTDOWN | Code::PEER_DECONFIGURED | Code::MAX_PREFIXES | Code::BFD_DOWN
        );
        let conn = peer.conn_mut(side);
        if !conn.connected {
            return;
        }
        let both = |n: &crate::caps::Negotiated| {
            n.graceful_restart.as_ref().is_some_and(|g| g.notification)
        };
        let hard = for_good && conn.negotiated.as_ref().is_some_and(both);
        conn.last.clear();
        let on_wire = if hard {
            what.clone().hard()
        } else {
            what.clone()
        };
        wire::write_notification(&on_wire, &mut conn.last);
        peer.last_error = Some(format!("sent: {what}"));
        self.event(Event::Notified {
            peer: id,
            sent: true,
            what,
        });
    }

    fn drop_conn(&mut self, id: PeerId, side: Side) {
        let Some(peer) = self.peer_mut(id) else {
            return;
        };
        let conn_id = peer.conn_id(side);
        let conn = peer.conn_mut(side);
        let live = conn.live;
        let last = std::mem::take(&mut conn.last);
        conn.reset();
        if live {
            self.outputs.push_back(Output::Close {
                conn: conn_id,
                last: last.into(),
            });
        }
    }

    /// Damping: after an error both sides wait, the longer the more errors there were; after
    /// a mere loss only our own connecting does.
    fn idle_hold(&mut self, id: PeerId, event: Fsm, given: Option<&Notification>, now: Instant) {
        let jitter = self.random(1000);
        let Some(peer) = self.peer_mut(id) else {
            return;
        };
        let t = peer.config.timers;
        let innocent = match event {
            Fsm::TcpFails => true,
            Fsm::Notification => given.is_some_and(|n| n.code == Code::COLLISION),
            _ => false,
        };
        if innocent {
            // Two who wait for the same time would meet again.
            peer.dial_after = Some(now + jittered(t.reconnect, jitter));
            return;
        }
        if peer
            .last_error_at
            .is_none_or(|at| now.duration_since(at) > t.error_forget)
        {
            peer.errors = 0;
        }
        let wait = t.error_wait_min.saturating_mul(1 << peer.errors.min(16));
        peer.errors += 1;
        peer.last_error_at = Some(now);
        peer.refuse_until = Some(now + wait.min(t.error_wait_max));
    }

    fn send_open(&mut self, id: PeerId, side: Side, now: Instant) {
        let Some(peer) = self.peer(id) else {
            return;
        };
        let open = self.our_open(peer);
        let mut out = Vec::new();
        // Only an OPEN with absurdly many capabilities cannot be written; ours has few.
        if wire::write_open(&open, &mut out).is_err() {
            return;
        }
        if let Some(peer) = self.peer_mut(id) {
            let conn = peer.conn_mut(side);
            conn.opens[0] = out.into();
            let octets = conn.opens[0].clone();
            conn.push(octets);
            conn.sent = Some(open);
        }
        self.tell_queue(id, side, now);
    }

    /// The OPEN that we send to a peer.
    pub(super) fn our_open(&self, peer: &Peer) -> Open {
        let config = &peer.config;
        let families: Vec<Family> = config
            .families
            .iter()
            .filter_map(|(f, on)| on.then_some(f))
            .collect();
        let each = families.iter().map(|&f| AfiSafi::unicast(f));
        let asn = config.our_asn(self.config.asn);
        let mut caps: Vec<Capability> = each.clone().map(Capability::MultiProtocol).collect();
        caps.push(Capability::RouteRefresh);
        caps.push(Capability::EnhancedRouteRefresh);
        caps.push(Capability::FourOctetAs(asn));
        if config.extended_messages {
            caps.push(Capability::ExtendedMessage);
        }
        if config.v4_over_v6 {
            caps.push(Capability::ExtendedNextHop(vec![
                ExtendedNextHop::V4_OVER_V6,
            ]));
        }
        let send = config.add_path_send != AddPathSend::No;
        if send || config.add_path_receive {
            let list = each.map(|family| AddPath {
                family,
                receive: config.add_path_receive,
                send,
            });
            caps.push(Capability::AddPath(list.collect()));
        }
        self.restart_capabilities(peer, &families, &mut caps);
        // Roles are between ASes (RFC 9234, section 4.1).
        let outside = config.asn != Some(asn);
        if let Some(role) = config.role.filter(|_| outside) {
            caps.push(Capability::Role(role));
        }
        Open {
            asn,
            hold_time: config.timers.hold,
            router_id: self.config.router_id,
            capabilities: caps,
        }
    }

    fn restart_capabilities(&self, peer: &Peer, families: &[Family], caps: &mut Vec<Capability>) {
        let Some(restart) = &peer.config.restart else {
            return;
        };
        let ours = self.config.restarting.as_ref();
        let restarting = self.restarting.iter().any(|(_, d)| d.is_some());
        let forwarding = |f: Family| match ours {
            // What is asked for is what was kept since the session before.
            Some(r) if peer.counters.sessions == 0 => r.forwarding[f],
            // One that comes back while we run: the kernel has forwarded all along.
            _ => true,
        };
        let seconds = |d: Duration, max: u64| d.as_secs().min(max);
        caps.push(Capability::GracefulRestart(GracefulRestart {
            restarting,
            notification: restart.notification,
            time: u16::try_from(seconds(restart.time, 4095)).unwrap_or(4095),
            families: families
                .iter()
                .map(|&f| RestartFamily {
                    family: AfiSafi::unicast(f),
                    forwarding: forwarding(f),
                })
                .collect(),
        }));
        if let Some(long) = restart.long_lived {
            let list = families.iter().map(|&f| LongLived {
                family: AfiSafi::unicast(f),
                forwarding: forwarding(f),
                stale_time: u32::try_from(seconds(long, 0xff_ffff)).unwrap_or(0xff_ffff),
            });
            caps.push(Capability::LongLivedGracefulRestart(list.collect()));
        }
    }

    fn session_up(&mut self, id: PeerId, side: Side, now: Instant) {
        // The peer has chosen this one.
        if self
            .peer(id)
            .is_some_and(|p| p.conn(side.other()).state == State::Established)
        {
            self.fire(id, side.other(), Fsm::CollisionDump, None, now);
        }
        let router_asn = self.config.asn;
        self.sessions += 1;
        let serial = self.sessions;
        let Some(peer) = self.peer_mut(id) else {
            return;
        };
        let conn = peer.conn_mut(side);
        let (Some(negotiated), Some(heard)) = (conn.negotiated.clone(), conn.heard.take()) else {
            return;
        };
        conn.refused = 0;
        let opens = std::mem::take(&mut conn.opens);
        let local = conn.local.unwrap_or(peer.config.addr);
        let kind = peer.config.kind(router_asn, heard.asn);
        let ours = peer.config.our_asn(router_asn);
        peer.router_id = Some(heard.router_id);
        peer.asn = Some(heard.asn);
        peer.counters.sessions += 1;
        peer.last_error = None;
        peer.dial_after = None;
        peer.session = Some(Session {
            side,
            serial,
            opens,
            kind,
            since: now,
            local,
            end_of_rib: PerFamily::default(),
            peer_restarting: negotiated
                .graceful_restart
                .as_ref()
                .is_some_and(|g| g.restarting),
            negotiated,
            warned: PerFamily::default(),
            disabled: PerFamily::default(),
        });
        let neighbour = Neighbour {
            addr: peer.config.addr,
            router_id: heard.router_id.0,
            kind,
            client: peer.config.client && kind == PeerKind::Internal,
        };
        self.sweep_through(id);
        let moved = self.rib.neighbours[id.index()] != neighbour;
        self.rib.neighbours[id.index()] = neighbour;
        let ours = (self.config.router_id, ours);
        let keep = fsm::keep(ours, (heard.router_id, heard.asn));
        self.dump_other(id, side.other(), keep, now);
        self.back_again(id, now);
        if moved {
            self.reconsider_peer(id);
        }
        self.join_groups(id);
        self.watch_session(id);
        self.restart_check(now);
    }

    /// The other connection has lost, unless it is the one that both sides `keep`.
    fn dump_other(&mut self, id: PeerId, other: Side, keep: Side, now: Instant) {
        let Some(peer) = self.peer(id) else {
            return;
        };
        let conn = peer.conn(other);
        match conn.state {
            State::Idle => {}
            // It waits for the peer to connect, who may have to after a crash.
            State::Active if other == Side::Theirs && !conn.connected => {}
            // The peer opened that one and keeps it, if it hears of it in time: what it says
            // next on either decides. If we closed one, it might close the other.
            State::OpenSent | State::OpenConfirm if keep == Side::Theirs && other == keep => {}
            _ => self.fire(id, other, Fsm::CollisionDump, None, now),
        }
    }

    /// Agreed values of a peer's OPEN, and what is left after a collision: `false` when the
    /// connection is gone.
    pub(super) fn resolve_collision(
        &mut self,
        id: PeerId,
        side: Side,
        theirs: &Open,
        now: Instant,
    ) -> bool {
        /// Within this time after a session came up, both sides may see its two
        /// connections in a different order.
        const YOUNG: Duration = Duration::from_secs(10);
        let (router_id, asn) = (self.config.router_id, self.config.asn);
        let Some(peer) = self.peer(id) else {
            return false;
        };
        let ours: Asn = peer.config.our_asn(asn);
        let keep = fsm::keep((router_id, ours), (theirs.router_id, theirs.asn));
        let other = side.other();
        let session = peer.session.as_ref();
        let waits = keep == Side::Theirs && side == keep;
        let loser = match peer.conn(other).state {
            // We have said on ours all that the peer needs to choose it, so it has the word:
            // a KEEPALIVE here, or the end of this one.
            State::OpenConfirm if waits => return true,
            State::OpenConfirm => keep.other(),
            State::Established => {
                let young = session.is_some_and(|s| now.duration_since(s.since) < YOUNG);
                let restarts = session.is_some_and(|s| s.negotiated.graceful_restart.is_some());
                if young && waits {
                    return true;
                } else if young {
                    keep.other()
                } else if restarts {
                    // RFC 4724, section 4.2: the session before is over.
                    self.fire(id, other, Fsm::TcpFails, None, now);
                    return true;
                } else {
                    side
                }
            }
            _ => return true,
        };
        self.fire(id, loser, Fsm::CollisionDump, None, now);
        loser != side
    }
}

/// What an event says about how a session ended.
fn end_of(event: Fsm, given: Option<&Notification>) -> End {
    let hard = given.is_some_and(|n| {
        matches!(
            n.code,
            Code::HARD_RESET
                | Code::ADMIN_SHUTDOWN
                | Code::PEER_DECONFIGURED
                | Code::MAX_PREFIXES
                | Code::BFD_DOWN
        )
    });
    match event {
        Fsm::TcpFails => End::Lost,
        Fsm::Notification | Fsm::NotificationVersionError => match given {
            Some(n) if n.code == Code::HARD_RESET => End::Hard,
            _ => End::Notified,
        },
        _ if hard => End::Hard,
        _ => End::Notified,
    }
}

/// Between three quarters of a time and all of it (RFC 4271, section 10).
fn jittered(time: Duration, thousandths: u64) -> Duration {
    let quarter = time / 4;
    time - Duration::from_micros(
        u64::try_from(quarter.as_micros()).unwrap_or(u64::MAX) / 1000 * thousandths,
    )
}
