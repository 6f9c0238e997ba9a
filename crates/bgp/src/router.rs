//! A whole speaker without sockets or clocks: events go in, outputs come out.
//!
//! Promises: the same events in the same order give the same outputs; what peers are told
//! and what is to be used is a function of what was last heard and configured, and nothing
//! is encoded for a peer that does not read. Never: blocks, reads a clock, opens a socket.
//!
//! How to drive it: feed what happened ([`Router::connected`], [`Router::received`],
//! [`Router::tick`], ...), then take [`Router::poll`] until it gives nothing; it is then that
//! messages are made, so many inputs before one round of polls make for full messages.
//! [`Output::Send`] says that a connection has octets: take them with [`Router::pull`] as
//! the socket takes them, and call it again whenever it can take more. Ask for
//! [`Router::deadline`] before sleeping.

mod explain;
mod import;
mod inbound;
mod monitor;
mod outbound;
mod peers;
mod reconfigure;
mod restart;
mod session;
mod settings;
mod sweep;

pub use explain::{Audience, Explanation, ExportReport, PathReport, PathStatus};
pub use import::Refusal;
pub use monitor::{Ended, Left, MonitorId, Stage, Told, Watched};
pub use outbound::{BestRoute, NextHopUse, RouteChange};
pub use peers::{Counters, PeerStatus, Size};
pub use settings::{Config, LocalRoute, Restarting};

use crate::error::{Fault, Notification};
use crate::fsm::{Side, State};
use crate::rib::{Neighbour, PeerId, Rib};
use crate::types::{ClusterId, PeerKind, PerFamily};
use bytes::Bytes;
use net::Family;
use outbound::Outbound;
use peers::Peer;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::net::{IpAddr, Ipv4Addr};
use std::time::Instant;

/// Names one connection, for its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnId {
    /// The peer.
    pub peer: PeerId,
    /// Who opened it.
    pub side: Side,
    /// Which of the connections of that side it is.
    generation: u32,
}

/// What the caller has to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Connect to the peer; answer with [`Router::connected`] or [`Router::disconnected`].
    Connect {
        /// How to name the connection.
        conn: ConnId,
        /// Where to.
        to: IpAddr,
    },
    /// The connection has octets to send: [`Router::pull`]. Told once, until a pull has
    /// left nothing.
    Send {
        /// The connection.
        conn: ConnId,
    },
    /// Close the connection, or give up connecting. It must not be named again.
    Close {
        /// The connection.
        conn: ConnId,
        /// What to write before, as far as the socket takes it at once.
        last: Bytes,
    },
    /// Best paths have changed: [`Router::take_routes`]. Told once, until all are taken.
    Routes,
    /// A next hop came into use or went out of it; answer with [`Router::next_hops`].
    NextHop(NextHopUse),
    /// Something that people or metrics want to know.
    Event(Event),
}

/// What people or metrics want to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A session changed its state.
    State {
        /// The peer.
        peer: PeerId,
        /// From.
        from: State,
        /// To.
        to: State,
    },
    /// A session ended with this NOTIFICATION.
    Notified {
        /// The peer.
        peer: PeerId,
        /// Whether we sent it.
        sent: bool,
        /// What it says.
        what: Notification,
    },
    /// An UPDATE had faults that do not end the session (RFC 7606).
    Faults {
        /// The peer.
        peer: PeerId,
        /// What was wrong.
        what: Vec<Fault>,
    },
    /// A peer announces about as much as it may.
    NearLimit {
        /// The peer.
        peer: PeerId,
        /// The family.
        family: Family,
        /// How many paths there are.
        paths: u32,
    },
    /// A peer announces more than it may.
    OverLimit {
        /// The peer.
        peer: PeerId,
        /// The family.
        family: Family,
    },
    /// The peer has sent all of its initial routes.
    EndOfRib {
        /// The peer.
        peer: PeerId,
        /// The family.
        family: Family,
    },
    /// The peer's routes are kept while it restarts.
    Stale {
        /// The peer.
        peer: PeerId,
        /// The family.
        family: Family,
        /// For how long it is by RFC 9494 now.
        long: bool,
    },
    /// Our own restart is over for the family: routes were chosen and are told.
    Restarted {
        /// The family.
        family: Family,
    },
}

/// A BGP speaker.
#[derive(Debug)]
pub struct Router {
    config: Config,
    rib: Rib,
    out: Outbound,
    peers: Vec<Option<Box<Peer>>>,
    outputs: VecDeque<Output>,
    /// When each peer has to be looked at next; entries may be too early, never too late.
    timers: BinaryHeap<Reverse<(Instant, PeerId)>>,
    random: u64,
    restarting: PerFamily<Option<restart::Deferral>>,
    /// Changes of whole tables that are under way, in order.
    sweeps: VecDeque<sweep::Sweep>,
    /// How many prefixes were told, or looked at for that, since the last tick.
    told: u32,
    /// The time when it was last told.
    clock: Instant,
    /// Who watches.
    monitors: Vec<monitor::Monitor>,
    monitors_made: u64,
    /// How many sessions there have been.
    sessions: u64,
}

impl Router {
    /// A router without peers and routes.
    pub fn new(config: Config, now: Instant) -> Self {
        let own = Neighbour {
            addr: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            router_id: config.router_id.0,
            kind: PeerKind::Internal,
            client: false,
        };
        let restarting = restart::Deferral::start(&config, now);
        Self {
            rib: Rib::new(config.seed, config.track_next_hops, own),
            out: Outbound::new(config.cluster(), config.queue_limit),
            peers: vec![None],
            outputs: VecDeque::new(),
            timers: BinaryHeap::new(),
            random: config.seed,
            restarting,
            sweeps: VecDeque::new(),
            told: 0,
            clock: now,
            monitors: Vec::new(),
            monitors_made: 0,
            sessions: 0,
            config,
        }
    }

    /// What it was made with.
    pub const fn config(&self) -> &Config {
        &self.config
    }

    /// What is to be done next, if anything; makes messages as queues allow.
    pub fn poll(&mut self, now: Instant) -> Option<Output> {
        if self.outputs.is_empty() {
            self.flush(now);
        }
        self.outputs.pop_front()
    }

    /// When [`Router::tick`] is due, at the latest.
    pub fn deadline(&self) -> Option<Instant> {
        let timer = self.timers.peek().map(|Reverse((at, _))| *at);
        let restart = self.restarting.iter().filter_map(|(_, d)| d.as_ref());
        let restart = restart.map(restart::Deferral::deadline).min();
        let slow = self.out.deadline(self.config.slow_peer);
        let work = !self.sweeps.is_empty() || self.has_more();
        let work = work.then_some(self.clock);
        let all = [timer, restart, slow, work];
        all.into_iter().flatten().min()
    }

    /// Time has passed. Also does a share of what is too much to be done at once, for which it is
    /// due at once until nothing is left.
    pub fn tick(&mut self, now: Instant) {
        self.clock = now;
        self.told = 0;
        while let Some(Reverse((at, peer))) = self.timers.peek().copied() {
            if at > now {
                break;
            }
            self.timers.pop();
            self.peer_tick(peer, now);
        }
        self.restart_check(now);
        self.sweep_on();
    }

    fn peer(&self, id: PeerId) -> Option<&Peer> {
        self.peers.get(id.index())?.as_deref()
    }

    fn peer_mut(&mut self, id: PeerId) -> Option<&mut Peer> {
        self.peers.get_mut(id.index())?.as_deref_mut()
    }

    fn event(&mut self, event: Event) {
        self.outputs.push_back(Output::Event(event));
    }

    /// A number below `below` (SplitMix64).
    fn random(&mut self, below: u64) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ z >> 31) % below.max(1)
    }

    fn cluster(&self) -> ClusterId {
        self.config.cluster()
    }
}
