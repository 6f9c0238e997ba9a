//! The loop: what sockets, clocks and callers say goes into the router, what it wants comes out.
//!
//! Promises: no peer gets more than a bounded share of a round; messages are made after all that
//! has come in was taken, so that they are full.

use crate::apply::Applied;
use crate::bfd::Bfd;
use crate::bmp::{STATIONS, Station, StationStatus, Stations};
use crate::conns::{Conn, Phase, Wrote};
use crate::handle::{Command, Handle, Inbox, Watch};
use crate::kernel::{Change, Gate, Local, NextHops, Order, Policy, Report, Worker};
use crate::poll::{Poll, Ready, WOKEN, Waker};
use crate::sockets::{self, Protection, SocketError};
use bgp::error::Code;
use bgp::rib::PeerId;
use bgp::router::{ConnId, Event, Output, RouteChange, Router};
use bgp::types::RouterId;
use bytes::Bytes;
use model::Update;
use net::{Cidr, Family};
use peering::{METRIC_BASE, Peer, PeerOrigin, Plan, World};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

/// One read.
const READ: usize = 256 << 10;
/// So many reads of one connection in a round.
const READS: usize = 4;
/// So much is taken from the router for one connection at a time.
const PULL: usize = 256 << 10;
/// So many routes are taken from the router for the kernel at a time.
const CHANGES: usize = 4096;
/// For so long in a round what other threads hand in is taken.
const COMMANDS: Duration = Duration::from_millis(5);
/// While more keeps coming in, what it says is not followed for at most so long.
const UNSETTLED: Duration = Duration::from_millis(200);
/// The first wait after a listener could not be had, as while its address is being checked for
/// duplicates; it doubles.
const LISTEN_MIN: Duration = Duration::from_millis(250);
/// The longest such wait.
const LISTEN_MAX: Duration = Duration::from_secs(10);
/// A wait is never longer, whatever the router says: a lost wake-up is no end.
const LONGEST: Duration = Duration::from_secs(30);

/// How a speaker is run.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The node whose resources are followed.
    pub node: String,
    /// The identifier when the node has no IPv4 address.
    pub fallback_id: RouterId,
    /// The identifier instead of the node's IPv4 address (`CALICO_ROUTER_ID`).
    pub router_id: Option<RouterId>,
    /// A random number, for jitter.
    pub seed: u64,
    /// Where to listen instead of where the resources say.
    pub listen: Option<Vec<SocketAddr>>,
    /// What is done with the kernel's routes; `None` leaves them alone, and every next hop counts
    /// as reachable: for a reflector that forwards nothing.
    pub kernel: Option<Kernel>,
    /// What is announced beside what the resources say, with the next hop that peers are told;
    /// `None` is ourselves.
    pub statics: BTreeMap<Cidr, Option<IpAddr>>,
    /// Who is told of sessions and routes (RFC 7854).
    pub stations: Vec<Station>,
    /// The time between two Statistics Reports to them.
    pub statistics: Duration,
}

impl Settings {
    /// For a node, without the kernel.
    pub fn new(node: impl Into<String>, fallback_id: RouterId, seed: u64) -> Self {
        Self {
            node: node.into(),
            fallback_id,
            router_id: None,
            seed,
            listen: None,
            kernel: None,
            statics: BTreeMap::new(),
            stations: Vec::new(),
            statistics: Duration::from_secs(60),
        }
    }

    /// The same, with learned routes in the kernel and next hops looked up there.
    #[must_use]
    pub fn with_kernel(mut self, kernel: Kernel) -> Self {
        self.kernel = Some(kernel);
        self
    }
}

/// How the kernel's routes are dealt with.
#[derive(Debug, Clone)]
pub struct Kernel {
    /// The number that our routes carry (`rtm_protocol`): every route of it in the main table is
    /// ours. 12 is BIRD's, which Calico's nodes use.
    pub protocol: u8,
    /// After a restart the routes of before stay at most so long while peers tell theirs.
    pub deferral: Duration,
    /// After a restart peers that are not there are waited for at most so long.
    pub absent: Duration,
}

impl Default for Kernel {
    fn default() -> Self {
        Self {
            protocol: 12,
            deferral: Duration::from_secs(240),
            absent: Duration::from_secs(20),
        }
    }
}

/// What can be looked at from outside, between two rounds.
#[derive(Debug)]
pub struct View<'a> {
    /// The resources.
    pub world: &'a World,
    /// What follows from them.
    pub plan: &'a Plan,
    /// The router; `None` while nothing is spoken.
    pub router: Option<&'a Router>,
    /// The number of each peer of the plan in the router, in the plan's order.
    pub ids: &'a [(PeerId, usize)],
    /// The paths that are watched.
    pub bfd: &'a Bfd,
    /// What stands in the way of speaking, such as a listener that cannot be had.
    pub troubles: &'a [String],
    /// How often the kernel's tables have been read whole: at the start, and when it may have dropped
    /// routes without a word.
    pub kernel_reads: u64,
    /// The monitoring stations.
    pub stations: &'a [StationStatus],
}

/// Where to listen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct At {
    pub at: SocketAddr,
    /// Also while the address is not the node's yet, or, as one where workloads call with IPv6, is one
    /// of no interface.
    pub early: bool,
}

/// A listener and what accepts on it.
struct Listener {
    fd: OwnedFd,
    at: SocketAddr,
}

/// The thread's whole state.
pub(crate) struct Engine {
    pub(crate) settings: Settings,
    pub(crate) poll: Poll,
    waker: Waker,
    inbox: Inbox,
    pub(crate) world: World,
    pub(crate) applied: Applied,
    pub(crate) bfd: Bfd,
    pub(crate) router: Option<Router>,
    listeners: Vec<Listener>,
    pub(crate) conns: Vec<Option<Conn>>,
    free: Vec<usize>,
    pub(crate) by_id: HashMap<ConnId, usize>,
    pub(crate) stations: Stations,
    pub(crate) troubles: Vec<String>,
    watches: Vec<Watch>,
    pub(crate) kernel: Option<Worker>,
    kernel_troubles: Vec<String>,
    /// The kernel's tables have been read.
    kernel_ready: bool,
    /// Whether routes of a run before are in the kernel, whose families have not converged.
    pub(crate) adopted: [bool; 2],
    /// The kernel's routes that peers may be told.
    pub(crate) locals: BTreeMap<Cidr, Local>,
    /// The router has routes for the kernel.
    routes_due: bool,
    hops_due: Vec<(IpAddr, bool)>,
    buffer: Vec<u8>,
    synced: bool,
    dirty: bool,
    /// Since when something is not followed.
    dirty_since: Option<Instant>,
    /// Other threads have handed in more than was taken.
    backlog: bool,
    /// When a listener that cannot be had is tried again, and the wait after that.
    listen_again: Option<Instant>,
    listen_wait: Duration,
    stop: Option<Stop>,
}

/// LOCAL_PREF of a route that has none (RFC 4271, section 9.1.1, leaves it to us).
const LOCAL_PREF: u32 = 100;

/// What the kernel is to hold of what is best now: nothing of what is our own. `address` is that of a
/// peer.
fn change_of(c: &RouteChange<'_>, mut address: impl FnMut(PeerId) -> Option<IpAddr>) -> Change {
    let learned = c.route.as_ref().filter(|r| r.peer != PeerId::LOCAL);
    let want = learned.map(|r| {
        let mut gates: NextHops = r
            .next_hops
            .iter()
            .map(|(hop, _)| Gate::of(hop.addr()))
            .collect();
        // The best path's hop comes first.
        if let Some(gate) = gates.first_mut().filter(|g| g.is_link_local()) {
            gate.beside = address(r.peer);
        }
        let preference = r.attributes.local_pref.unwrap_or(LOCAL_PREF);
        // Metric 0 means another one with IPv6.
        let metric = METRIC_BASE.saturating_sub(preference).max(1);
        (gates, metric)
    });
    Change {
        prefix: c.prefix,
        want,
    }
}

/// Where workloads among the peers call.
pub(crate) fn answers(peers: &[Peer]) -> BTreeSet<IpAddr> {
    let workloads = peers.iter();
    let workloads = workloads.filter(|p| p.origin == PeerOrigin::LocalWorkload);
    workloads.filter_map(|p| p.source).collect()
}

/// How it ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Stop {
    /// Without a word: peers that know graceful restart go on forwarding.
    Silent,
    /// With a NOTIFICATION that says why (RFC 9003).
    Shutdown(String),
}

/// Listeners have the tokens from here on.
const LISTENERS: u64 = 1 << 32;

impl Engine {
    /// Before its first round.
    ///
    /// # Errors
    /// When descriptors have run out.
    pub(crate) fn new(settings: Settings) -> io::Result<(Self, Handle)> {
        let (poll, waker) = Poll::new()?;
        let (handle, inbox) = Handle::new(waker.clone());
        let world = World::new(settings.node.as_str());
        let kernel = match &settings.kernel {
            Some(k) => Some(Worker::start(k, handle.reporter())?),
            None => None,
        };
        let stations = Stations::new(
            &settings.stations,
            &settings.node,
            settings.statistics,
            handle.reporter(),
        );
        let this = Self {
            stations,
            applied: Applied::new(world.plan()),
            bfd: Bfd::new(handle.reporter(), settings.seed),
            settings,
            poll,
            waker,
            inbox,
            world,
            router: None,
            listeners: Vec::new(),
            conns: Vec::new(),
            free: Vec::new(),
            by_id: HashMap::new(),
            troubles: Vec::new(),
            watches: Vec::new(),
            kernel_ready: kernel.is_none(),
            kernel,
            kernel_troubles: Vec::new(),
            adopted: [false; 2],
            locals: BTreeMap::new(),
            routes_due: false,
            hops_due: Vec::new(),
            buffer: vec![0; READ],
            synced: false,
            dirty: false,
            dirty_since: None,
            backlog: false,
            listen_again: None,
            listen_wait: LISTEN_MIN,
            stop: None,
        };
        Ok((this, handle))
    }

    /// Runs until it is told to stop.
    ///
    /// # Errors
    /// When the kernel refuses to wait: nothing can go on.
    pub(crate) fn run(mut self) -> io::Result<()> {
        let mut ready = Vec::new();
        while self.stop.is_none() {
            let now = Instant::now();
            let wait = self.deadline(now).map(|t| t.saturating_duration_since(now));
            self.poll
                .wait(Some(wait.unwrap_or(LONGEST).min(LONGEST)), &mut ready)?;
            let now = Instant::now();
            for r in &ready {
                self.handle(*r, now);
            }
            self.commands(now);
            if let Some(router) = &mut self.router {
                router.tick(now);
            }
            self.linger(now);
            self.flush(now);
            self.feed_kernel();
            self.serve_stations(now);
        }
        self.end();
        Ok(())
    }

    fn deadline(&self, now: Instant) -> Option<Instant> {
        let ending = self.conns.iter().flatten().filter_map(|c| match c.phase {
            Phase::Ending(until) => Some(until),
            _ => None,
        });
        let router = self.router.as_ref().and_then(Router::deadline);
        let stations = self
            .router
            .as_ref()
            .and_then(|_| self.stations.deadline(now));
        let backlog = self.backlog.then_some(now);
        let listen = self.listen_again;
        ending
            .chain(router)
            .chain(stations)
            .chain(backlog)
            .chain(listen)
            .min()
    }

    /// Takes what other threads have handed in, for a bounded time: peers' clocks run on.
    fn commands(&mut self, now: Instant) {
        let begun = Instant::now();
        self.backlog = false;
        if self.listen_again.is_some_and(|t| t <= now) {
            self.listen_again = None;
            self.dirty = true;
        }
        while let Some(command) = self.inbox.take() {
            self.command(command, now);
            if begun.elapsed() > COMMANDS {
                self.backlog = true;
                break;
            }
        }
        // What is under way is followed once, at its end, unless that is long in coming.
        let since = *self.dirty_since.get_or_insert(now);
        if !self.backlog || now.duration_since(since) > UNSETTLED {
            self.settle(now);
        }
        if !self.dirty {
            self.dirty_since = None;
        }
    }

    fn command(&mut self, command: Command, now: Instant) {
        match command {
            Command::Update(Update::Secret(at, value)) => {
                self.dirty |= self.applied.set_secret(at.name, value);
            }
            Command::Update(update) => self.dirty |= self.world.update(update),
            Command::Synced => {
                self.synced = true;
                self.dirty = true;
            }
            Command::Key(key, value) => self.dirty |= self.applied.set_key(key, value),
            Command::Look(look) => {
                // What was handed in before is what is to be seen.
                self.settle(now);
                look(&View {
                    world: &self.world,
                    plan: &self.applied.plan,
                    router: self.router.as_ref(),
                    bfd: &self.bfd,
                    ids: &self.applied.ids(),
                    troubles: &[&self.troubles[..], &self.kernel_troubles[..]].concat(),
                    stations: &self.stations.statuses(),
                    kernel_reads: self.kernel.as_ref().map_or(0, Worker::reads),
                });
            }
            Command::Act(act) => {
                self.settle(now);
                if let Some(router) = &mut self.router {
                    act(router, now);
                }
            }
            Command::Watch(watch) => self.watches.push(watch),
            Command::PathsFailed(failed) => self.paths_failed(&failed, now),
            Command::Kernel(report) => self.kernel_says(report),
            Command::Resolved(at, to) => self.stations.resolved(at, to, &self.poll, now),
            Command::Stop(how) => self.stop = Some(how),
        }
    }

    /// Follows what the resources say now.
    fn settle(&mut self, now: Instant) {
        if self.dirty && self.synced && self.kernel_ready {
            self.dirty = false;
            self.follow(now);
        }
    }

    fn handle(&mut self, r: Ready, now: Instant) {
        if r.token == WOKEN {
            self.waker.clear();
        } else if r.token >= STATIONS {
            self.station_ready(r, now);
        } else if r.token >= LISTENERS {
            self.accept((r.token - LISTENERS) as usize, now);
        } else {
            self.conn_ready(r.token as usize, r, now);
        }
    }

    fn conn_ready(&mut self, at: usize, r: Ready, now: Instant) {
        let Some(conn) = self.conns.get_mut(at).and_then(Option::as_mut) else {
            return;
        };
        match conn.phase {
            Phase::Connecting if r.writable => self.dialled(at, now),
            Phase::Connecting => {}
            Phase::Open => {
                if r.readable {
                    self.read(at, now);
                }
                if r.writable {
                    self.write(at, now);
                }
            }
            Phase::Ending(_) => {
                let mut rest = [0; 4096];
                if !matches!(conn.read(&mut rest), Ok(Some(1..) | None)) {
                    self.drop_conn(at);
                }
            }
        }
    }

    fn dialled(&mut self, at: usize, now: Instant) {
        let Some(conn) = self.conns[at].as_mut() else {
            return;
        };
        let id = conn.id;
        let local = sockets::local_of(conn.fd.as_fd());
        if let (None, Some(local)) = (sockets::error_of(conn.fd.as_fd()), local) {
            conn.phase = Phase::Open;
            self.watch(at, false);
            if let Some(router) = &mut self.router {
                router.connected(id, local, now);
            }
        } else {
            self.lost(at, now);
        }
    }

    fn read(&mut self, at: usize, now: Instant) {
        for _ in 0..READS {
            let Some(conn) = self.conns[at].as_ref() else {
                return;
            };
            if !matches!(conn.phase, Phase::Open) {
                return;
            }
            match conn.read(&mut self.buffer) {
                Ok(None) => return,
                Ok(Some(n @ 1..)) => {
                    let id = conn.id;
                    if let Some(router) = &mut self.router {
                        router.received(id, &self.buffer[..n], now);
                    }
                    if n < READ {
                        return;
                    }
                }
                Ok(Some(0)) | Err(_) => {
                    self.lost(at, now);
                    return;
                }
            }
        }
    }

    /// Writes what waits, then what the router has more of, as far as the socket takes it.
    fn write(&mut self, at: usize, now: Instant) {
        let mut pieces = Vec::new();
        loop {
            let Some(conn) = self.conns.get_mut(at).and_then(Option::as_mut) else {
                return;
            };
            match conn.write() {
                Wrote::All => {}
                Wrote::Full => {
                    self.watch(at, true);
                    return;
                }
                Wrote::Gone => {
                    self.lost(at, now);
                    return;
                }
            }
            let id = conn.id;
            if let Some(router) = &mut self.router {
                router.pull(id, PULL, &mut pieces, now);
            }
            if pieces.is_empty() {
                self.watch(at, false);
                return;
            }
            if let Some(conn) = self.conns[at].as_mut() {
                conn.queue(pieces.drain(..));
            }
        }
    }

    fn watch(&mut self, at: usize, write: bool) {
        if let Some(conn) = self.conns[at].as_mut()
            && conn.watching != write
        {
            conn.watching = write;
            if let Err(e) = self.poll.change(&conn.fd, at as u64, write) {
                tracing::error!(error = %e, "cannot watch a connection");
            }
        }
    }

    /// Does what the router wants until it wants nothing.
    pub(crate) fn flush(&mut self, now: Instant) {
        while let Some(output) = self.router.as_mut().and_then(|r| r.poll(now)) {
            match output {
                Output::Connect { conn, to } => self.dial(conn, to, now),
                Output::Send { conn } => {
                    if let Some(&at) = self.by_id.get(&conn)
                        && self.conns[at].as_ref().is_some_and(|c| !c.pending())
                    {
                        self.write(at, now);
                    }
                }
                Output::Close { conn, last } => self.close(conn, last, now),
                Output::Routes => self.routes_due = true,
                Output::NextHop(hop) => self.hops_due.push((hop.addr, hop.used)),
                Output::Event(event) => {
                    self.event(&event);
                    self.tell(&event);
                }
            }
        }
    }

    /// Gives the kernel what it has room for.
    fn feed_kernel(&mut self) {
        let Some(router) = &mut self.router else {
            return;
        };
        let Some(kernel) = &self.kernel else {
            // Let go, so that the router forgets what is gone.
            self.hops_due.clear();
            if std::mem::take(&mut self.routes_due) {
                while router.take_routes(usize::MAX, |_| {}) {}
            }
            return;
        };
        if !self.hops_due.is_empty() {
            kernel.order(Order::Hops(std::mem::take(&mut self.hops_due)));
        }
        while self.routes_due {
            let room = kernel.room().min(CHANGES);
            if room == 0 {
                return;
            }
            let mut changes = Vec::with_capacity(room.min(64));
            // Looked up for link-local next hops alone; routes of one peer come together.
            let mut last: Option<(PeerId, Option<IpAddr>)> = None;
            let applied = &self.applied;
            let mut address = |peer| match last {
                Some((p, address)) if p == peer => address,
                _ => {
                    let found = applied.ids().into_iter().find(|(id, _)| *id == peer);
                    let address = found.map(|(_, at)| applied.plan.peers[at].address);
                    last = Some((peer, address));
                    address
                }
            };
            let take = |c: RouteChange<'_>| changes.push(change_of(&c, &mut address));
            self.routes_due = router.take_routes(room, take);
            if !changes.is_empty() {
                kernel.order(Order::Routes(changes));
            }
        }
        for (adopted, family) in self.adopted.iter_mut().zip(Family::BOTH) {
            if *adopted && !router.is_restarting(family) {
                *adopted = false;
                kernel.order(Order::Converged(family));
            }
        }
    }

    fn kernel_says(&mut self, report: Report) {
        match report {
            Report::Ready(adopted) => {
                self.kernel_ready = true;
                self.adopted = adopted;
                for (there, family) in adopted.into_iter().zip(Family::BOTH) {
                    if let (false, Some(kernel)) = (there, &self.kernel) {
                        kernel.order(Order::Converged(family));
                    }
                }
            }
            Report::Hops(states) => {
                if let Some(router) = &mut self.router {
                    router.next_hops(states);
                }
            }
            Report::Locals(changes) => {
                let links = changes
                    .iter()
                    .any(|(_, l)| l.as_ref().is_none_or(|l| l.connected));
                // How far away the watched are may have changed.
                self.dirty |= links && self.reach_matters();
                for (prefix, local) in changes {
                    match local {
                        Some(l) => drop(self.locals.insert(prefix, l)),
                        None => drop(self.locals.remove(&prefix)),
                    }
                    self.announce(prefix);
                }
            }
            Report::Troubles(all) => self.kernel_troubles = all,
            Report::Room => {}
        }
    }

    /// No learned route is wanted any more, nor a next hop known.
    pub(crate) fn forget_kernel(&mut self) {
        self.routes_due = false;
        self.hops_due.clear();
        if let Some(kernel) = &self.kernel {
            kernel.order(Order::Forget);
        }
    }

    /// Tells the kernel's thread what follows from the resources.
    pub(crate) fn kernel_follows(&self, plan: &Plan) {
        let Some(kernel) = &self.kernel else {
            return;
        };
        let by = |p: &peering::Peer| Some((p.address, p.reachable_by?));
        let ignored = plan.speaker.as_ref().map(|s| s.ignored_interfaces.clone());
        kernel.order(Order::Policy(Policy {
            refuse: plan.kernel.refuse.clone(),
            tunnelled: plan.kernel.tunnelled.clone(),
            peers: plan.peers.iter().map(|p| p.address).collect(),
            statics: plan.peers.iter().filter_map(by).collect(),
            answers: answers(&plan.peers),
            ignored: ignored.unwrap_or_default(),
        }));
    }

    /// Tells those who watch.
    fn tell(&mut self, event: &Event) {
        let peer = match event {
            Event::State { peer, .. }
            | Event::Notified { peer, .. }
            | Event::Faults { peer, .. }
            | Event::NearLimit { peer, .. }
            | Event::OverLimit { peer, .. }
            | Event::EndOfRib { peer, .. }
            | Event::Stale { peer, .. } => self.applied.name_of(*peer),
            Event::Restarted { .. } => "",
        };
        self.watches.retain_mut(|w| w(peer, event));
    }

    fn event(&self, event: &Event) {
        let name = |id: &PeerId| self.applied.name_of(*id);
        match event {
            Event::State { peer, from, to } => {
                tracing::info!(peer = %name(peer), %from, %to, "session");
            }
            // Both sides have called at once, and one of the two connections has to go.
            Event::Notified { peer, sent, what } if what.code == Code::COLLISION => {
                tracing::debug!(peer = %name(peer), sent, "two connections at once: one is closed");
            }
            Event::Notified { peer, sent, what } => {
                tracing::warn!(peer = %name(peer), sent, %what, "session ended");
            }
            Event::Faults { peer, what } => {
                for fault in what {
                    tracing::warn!(peer = %name(peer), %fault, "malformed message");
                }
            }
            Event::NearLimit {
                peer,
                family,
                paths,
            } => {
                tracing::warn!(peer = %name(peer), %family, paths, "near its limit of prefixes");
            }
            Event::OverLimit { peer, family } => {
                tracing::warn!(peer = %name(peer), %family, "over its limit of prefixes");
            }
            Event::EndOfRib { .. } | Event::Stale { .. } | Event::Restarted { .. } => {}
        }
    }

    fn dial(&mut self, id: ConnId, to: IpAddr, now: Instant) {
        let (at, from, how) = self.applied.dial(id.peer, to);
        let begun = sockets::dial(at, from, &how)
            .and_then(|fd| self.adopt(fd, id, Phase::Connecting, true));
        if let Err(e) = begun {
            tracing::debug!(error = %e, "cannot call");
            if let Some(router) = &mut self.router {
                router.disconnected(id, now);
            }
        }
    }

    /// Takes a connection in.
    fn adopt(
        &mut self,
        fd: OwnedFd,
        id: ConnId,
        phase: Phase,
        write: bool,
    ) -> Result<usize, SocketError> {
        let at = self.free.pop().unwrap_or_else(|| {
            self.conns.push(None);
            self.conns.len() - 1
        });
        if let Err(cause) = self.poll.add(&fd, at as u64, write) {
            self.free.push(at);
            return Err(SocketError {
                operation: "watch a connection of",
                at: id.peer.to_string(),
                cause,
            });
        }
        let mut conn = Conn::new(fd, id, phase);
        conn.watching = write;
        self.conns[at] = Some(conn);
        self.by_id.insert(id, at);
        Ok(at)
    }

    fn accept(&mut self, listener: usize, now: Instant) {
        let Some(l) = self.listeners.get(listener) else {
            return;
        };
        let flags = rustix::net::SocketFlags::CLOEXEC | rustix::net::SocketFlags::NONBLOCK;
        let Ok((fd, Some(from))) = rustix::net::acceptfrom_with(&l.fd, flags) else {
            return;
        };
        let Ok(from) = SocketAddr::try_from(from) else {
            return;
        };
        sockets::settle(&fd);
        if let Err(e) = self.admit(fd, from.ip(), now) {
            tracing::debug!(%from, error = %e, "refused a connection");
        }
    }

    /// A caller is let in if it is a peer that the router wants now.
    fn admit(&mut self, fd: OwnedFd, from: IpAddr, now: Instant) -> Result<(), SocketError> {
        let refused = |operation| SocketError {
            operation,
            at: from.to_string(),
            cause: io::ErrorKind::ConnectionRefused.into(),
        };
        let (peer, how) = self
            .applied
            .caller(from)
            .ok_or_else(|| refused("nobody is expected from"))?;
        sockets::set_hops(&fd, from, how.hops).map_err(|e| SocketError {
            operation: "limit the hops of",
            at: from.to_string(),
            cause: e.into(),
        })?;
        let local = sockets::local_of(fd.as_fd()).ok_or_else(|| refused("lost already:"))?;
        let router = self.router.as_mut();
        let id = router
            .and_then(|r| r.accepted(peer, local, now))
            .ok_or_else(|| refused("no connection is wanted now from"))?;
        self.adopt(fd, id, Phase::Open, false).map(drop)
    }

    /// The other side, or the network, has ended a connection.
    fn lost(&mut self, at: usize, now: Instant) {
        let Some(id) = self.conns[at].as_ref().map(|c| c.id) else {
            return;
        };
        self.drop_conn(at);
        if let Some(router) = &mut self.router {
            router.disconnected(id, now);
        }
    }

    fn drop_conn(&mut self, at: usize) {
        // Closing the descriptor takes it out of the epoll set.
        if let Some(conn) = self.conns[at].take() {
            if self.by_id.get(&conn.id) == Some(&at) {
                self.by_id.remove(&conn.id);
            }
            self.free.push(at);
        }
    }

    fn close(&mut self, id: ConnId, last: Bytes, now: Instant) {
        let Some(at) = self.by_id.remove(&id) else {
            return;
        };
        let Some(conn) = self.conns[at].as_mut() else {
            return;
        };
        if matches!(conn.phase, Phase::Open) && !last.is_empty() {
            conn.end(last, now);
            self.watch(at, false);
        } else {
            self.drop_conn(at);
        }
    }

    fn linger(&mut self, now: Instant) {
        let over = |c: &Conn| matches!(c.phase, Phase::Ending(until) if until <= now);
        for at in 0..self.conns.len() {
            if self.conns[at].as_ref().is_some_and(over) {
                self.drop_conn(at);
            }
        }
    }

    /// Listens where it should, keeping listeners that are right. Whether one is new.
    pub(crate) fn listen(&mut self, wanted: &[At]) -> bool {
        let mut new = false;
        let before = self.troubles.len();
        self.listeners
            .retain(|l| wanted.iter().any(|w| w.at == l.at));
        for &At { at, early } in wanted {
            if self.listeners.iter().any(|l| l.at == at) {
                continue;
            }
            match sockets::listener(at, early) {
                Ok(fd) => {
                    self.listeners.push(Listener { fd, at });
                    new = true;
                }
                Err(e) => {
                    tracing::error!(error = %e, "cannot listen");
                    self.troubles.push(e.to_string());
                }
            }
        }
        if self.troubles.len() == before {
            (self.listen_again, self.listen_wait) = (None, LISTEN_MIN);
        } else {
            self.listen_again = Some(Instant::now() + self.listen_wait);
            self.listen_wait = (self.listen_wait * 2).min(LISTEN_MAX);
        }
        for (i, l) in self.listeners.iter().enumerate() {
            let token = LISTENERS + i as u64;
            let known = self.poll.change(&l.fd, token, false);
            if let Err(e) = known.or_else(|_| self.poll.add(&l.fd, token, false)) {
                self.troubles
                    .push(format!("watch the listener on {}: {e}", l.at));
            }
        }
        new
    }

    /// Sets what protects a caller, on every listener of its family.
    pub(crate) fn protect(&mut self, peer: IpAddr, how: &Protection) {
        for l in self
            .listeners
            .iter()
            .filter(|l| l.at.is_ipv4() == peer.is_ipv4())
        {
            let set = sockets::set_key(&l.fd, peer, how.key.as_deref());
            // Taking away a key that is not there is no failure.
            if let (Err(e), Some(_)) = (set, &how.key) {
                self.troubles
                    .push(format!("set the key of {peer} on {}: {e}", l.at));
            }
        }
    }

    fn end(&mut self) {
        self.stations.end(Instant::now());
        let Some(Stop::Shutdown(text)) = self.stop.take() else {
            return;
        };
        let now = Instant::now();
        if let Some(router) = &mut self.router {
            let ids: Vec<PeerId> = router.peers().map(|p| p.peer).collect();
            for id in ids {
                let config = router.peer_config(id).cloned();
                if let Some(mut config) = config {
                    config.shutdown = Some(text.clone());
                    router.configure_peer(id, config, now);
                }
            }
        }
        self.flush(now);
        // Not before a silent end: some peers take it for a failure, and keep no routes then.
        self.bfd.leave(now);
    }
}
