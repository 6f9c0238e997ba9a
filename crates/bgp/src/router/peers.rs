//! What is known of a peer while the router runs.
//!
//! Promises: both connections have a place from the start; what outlives a session (counts,
//! stale routes, back-off) is apart from what does not. Never: acts.

use super::ConnId;
use super::monitor::Ended;
use crate::caps::Negotiated;
use crate::fsm::{Side, State};
use crate::message::Open;
use crate::peer::PeerConfig;
use crate::rib::PeerId;
use crate::types::{PeerKind, PerFamily, RouterId};
use bytes::Bytes;
use net::Asn;
use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::Instant;

/// Messages and routes of a peer, over all its sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// Messages received.
    pub received: u64,
    /// UPDATEs received.
    pub updates: u64,
    /// Octets sent.
    pub octets_sent: u64,
    /// Sessions that came up.
    pub sessions: u64,
    /// UPDATEs whose routes were withdrawn for a fault (RFC 7606).
    pub treated_as_withdraw: u64,
}

/// How much a router holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Size {
    /// Prefixes with a path.
    pub prefixes: usize,
    /// Prefixes that are known: also those of whose end somebody has still to be told.
    pub known: usize,
    /// Paths, refused ones too.
    pub paths: usize,
    /// Distinct sets of attributes.
    pub attributes: usize,
    /// Groups of peers that are told the same.
    pub groups: usize,
    /// Octets of the tables.
    pub octets: usize,
}

/// What there is to say about a peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerStatus {
    /// The peer.
    pub peer: PeerId,
    /// The state of the connection that is further.
    pub state: State,
    /// Since when the session is up.
    pub since: Option<Instant>,
    /// Its router id, now or in its last session.
    pub router_id: Option<RouterId>,
    /// What was agreed on.
    pub negotiated: Option<Negotiated>,
    /// How many paths are there of it.
    pub paths: PerFamily<u32>,
    /// Why the last session or attempt ended.
    pub last_error: Option<String>,
    /// Messages and routes.
    pub counters: Counters,
}

/// A peer.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) id: PeerId,
    pub(super) config: PeerConfig,
    pub(super) ours: Conn,
    pub(super) theirs: Conn,
    pub(super) session: Option<Session>,
    pub(super) router_id: Option<RouterId>,
    /// Its AS, now or in its last session.
    pub(super) asn: Option<Asn>,
    /// Paths in the tables, refused ones too.
    pub(super) paths: PerFamily<u32>,
    pub(super) stale: PerFamily<Stale>,
    /// Errors in a row, and when the last was.
    pub(super) errors: u32,
    pub(super) last_error_at: Option<Instant>,
    pub(super) last_error: Option<String>,
    /// Until when we neither connect nor accept.
    pub(super) refuse_until: Option<Instant>,
    /// Until when we do not connect.
    pub(super) dial_after: Option<Instant>,
    /// It ended over a limit that has no way back.
    pub(super) halted: bool,
    /// When the router looks at it next.
    pub(super) scheduled: Option<Instant>,
    pub(super) counters: Counters,
    /// How the last session ended.
    pub(super) ended: Option<Ended>,
}

/// Routes that are kept of a peer that is away or not complete yet.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Stale {
    /// Until when; `None` is none kept.
    pub(super) until: Option<Instant>,
    /// By RFC 9494.
    pub(super) long: bool,
    /// How long it may be by RFC 9494, in seconds, after `until`.
    pub(super) then: Option<u32>,
    /// The time when a refresh that has begun is given up.
    pub(super) refresh_until: Option<Instant>,
}

/// A session that is up.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) side: Side,
    /// Which of all sessions it is.
    pub(super) serial: u64,
    /// Our OPEN and the peer's, whole messages.
    pub(super) opens: [Bytes; 2],
    pub(super) negotiated: Negotiated,
    pub(super) kind: PeerKind,
    pub(super) since: Instant,
    pub(super) local: IpAddr,
    pub(super) end_of_rib: PerFamily<bool>,
    /// The peer's OPEN said that it has just restarted.
    pub(super) peer_restarting: bool,
    pub(super) warned: PerFamily<bool>,
    /// Families that are heard no more (RFC 7606).
    pub(super) disabled: PerFamily<bool>,
}

/// A connection, or the place of one.
#[derive(Debug)]
pub(super) struct Conn {
    pub(super) generation: u32,
    pub(super) state: State,
    /// The caller connects, or has the connection.
    pub(super) live: bool,
    pub(super) connected: bool,
    pub(super) local: Option<IpAddr>,
    /// A message that is not all there yet.
    pub(super) partial: Vec<u8>,
    pub(super) queue: VecDeque<Bytes>,
    pub(super) queued: usize,
    /// [`super::Output::Send`] was told and no pull has left nothing since.
    pub(super) told: bool,
    pub(super) sent: Option<Open>,
    pub(super) heard: Option<Open>,
    /// Our OPEN and the peer's, as they went over the wire.
    pub(super) opens: [Bytes; 2],
    pub(super) negotiated: Option<Negotiated>,
    pub(super) last: Vec<u8>,
    pub(super) retries: u32,
    /// Connections in a row that came to nothing since the last session.
    pub(super) refused: u32,
    pub(super) connect_retry: Option<Instant>,
    pub(super) hold: Option<Instant>,
    pub(super) keepalive: Option<Instant>,
    pub(super) delay_open: Option<Instant>,
    /// When a peer that takes nothing has had its time (RFC 9687).
    pub(super) send_hold: Option<Instant>,
}

impl Conn {
    const fn new() -> Self {
        Self {
            generation: 0,
            state: State::Idle,
            live: false,
            connected: false,
            local: None,
            partial: Vec::new(),
            queue: VecDeque::new(),
            queued: 0,
            told: false,
            sent: None,
            heard: None,
            opens: [Bytes::new(), Bytes::new()],
            negotiated: None,
            last: Vec::new(),
            retries: 0,
            refused: 0,
            connect_retry: None,
            hold: None,
            keepalive: None,
            delay_open: None,
            send_hold: None,
        }
    }

    /// Forgets the connection, not the state.
    pub(super) fn reset(&mut self) {
        let (generation, state) = (self.generation + 1, self.state);
        let (retries, refused, connect_retry) = (self.retries, self.refused, self.connect_retry);
        *self = Self {
            generation,
            state,
            retries,
            refused,
            connect_retry,
            ..Self::new()
        };
    }

    pub(super) fn push(&mut self, octets: Bytes) {
        self.queued += octets.len();
        self.queue.push_back(octets);
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        [
            self.connect_retry,
            self.hold,
            self.keepalive,
            self.delay_open,
            self.send_hold,
        ]
        .into_iter()
        .flatten()
        .min()
    }
}

impl Peer {
    pub(super) fn new(id: PeerId, config: PeerConfig) -> Self {
        Self {
            id,
            config,
            ours: Conn::new(),
            theirs: Conn::new(),
            session: None,
            router_id: None,
            asn: None,
            paths: PerFamily::default(),
            stale: PerFamily::default(),
            errors: 0,
            last_error_at: None,
            last_error: None,
            refuse_until: None,
            dial_after: None,
            halted: false,
            scheduled: None,
            counters: Counters::default(),
            ended: None,
        }
    }

    pub(super) const fn conn(&self, side: Side) -> &Conn {
        match side {
            Side::Ours => &self.ours,
            Side::Theirs => &self.theirs,
        }
    }

    pub(super) const fn conn_mut(&mut self, side: Side) -> &mut Conn {
        match side {
            Side::Ours => &mut self.ours,
            Side::Theirs => &mut self.theirs,
        }
    }

    pub(super) const fn conn_id(&self, side: Side) -> ConnId {
        ConnId {
            peer: self.id,
            side,
            generation: self.conn(side).generation,
        }
    }

    /// The state of the connection that is further.
    pub(super) fn state(&self) -> State {
        self.ours.state.max(self.theirs.state)
    }

    pub(super) const fn enabled(&self) -> bool {
        self.config.shutdown.is_none() && !self.halted
    }

    /// When something of it is due.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let stale = self
            .stale
            .iter()
            .flat_map(|(_, s)| [s.until, s.refresh_until]);
        [
            self.ours.deadline(),
            self.theirs.deadline(),
            self.refuse_until,
            self.dial_after,
        ]
        .into_iter()
        .chain(stale)
        .flatten()
        .min()
    }

    pub(super) fn status(&self) -> PeerStatus {
        PeerStatus {
            peer: self.id,
            state: self.state(),
            since: self.session.as_ref().map(|s| s.since),
            router_id: self.router_id,
            negotiated: self.session.as_ref().map(|s| s.negotiated.clone()),
            paths: self.paths,
            last_error: self.last_error.clone(),
            counters: self.counters,
        }
    }
}
