//! BFD beside BGP: which paths are watched, the thread that watches them, and what a failure does.
//!
//! Promises: one thread for all sessions, begun with the first one: a round of BGP can be longer than a
//! detection time, and must not look like a dead path to all neighbours at once. Before time declares a
//! path dead, what has come in is read. BGP never waits for a path to be watched.
//!
//! Never: decides what BFD says (the crate `bfd` does) or who is watched (`peering` does).

mod table;
mod udp;

pub use table::BfdReport;
pub(crate) use table::Failed;

use crate::engine::Engine;
use crate::handle::Reporter;
use crate::poll::{Poll, Token, WOKEN, Waker};
use crate::sockets::SocketError;
use bfd::Config;
use model::BfdHops;
use peering::Peer;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::io;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;
use table::{End, Table, Wanted};

/// So many reads of a socket before others have their turn.
const READS: usize = 4;

/// A sending socket and its port.
struct Sender {
    fd: OwnedFd,
    port: u16,
}

/// A receiving socket.
struct Receiver {
    fd: OwnedFd,
    at: IpAddr,
    hops: BfdHops,
}

/// What the thread and the BGP loop share. Nothing under the lock waits.
struct Inner {
    table: Table<Sender>,
    receivers: BTreeMap<Token, Receiver>,
    next_token: Token,
    ended: bool,
}

/// All sessions of BFD of a speaker.
pub struct Bfd {
    inner: Arc<Mutex<Inner>>,
    reporter: Reporter,
    /// The thread, from the first session on.
    running: Option<Running>,
    /// How far each end is, as last followed.
    hops: BTreeMap<IpAddr, BfdHops>,
}

struct Running {
    poll: Arc<Poll>,
    waker: Waker,
    thread: Option<JoinHandle<()>>,
}

impl std::fmt::Debug for Bfd {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bfd").finish_non_exhaustive()
    }
}

fn locked(inner: &Mutex<Inner>) -> MutexGuard<'_, Inner> {
    // Each change is whole before anything can panic.
    inner.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Bfd {
    /// None yet.
    pub(crate) fn new(reporter: Reporter, seed: u64) -> Self {
        Self {
            inner: Arc::new(Mutex::new(Inner {
                // Not what the router's jitter follows from.
                table: Table::new(seed ^ 0xbfd),
                receivers: BTreeMap::new(),
                next_token: 0,
                ended: false,
            })),
            reporter,
            running: None,
            hops: BTreeMap::new(),
        }
    }

    /// The session that watches the path to a peer; `None`: it is not watched.
    pub fn report(&self, peer: &Peer) -> Option<BfdReport> {
        peer.bfd?;
        let to = peer.address;
        let hops = *self.hops.get(&to)?;
        locked(&self.inner).table.report(End { to, hops })
    }

    /// Packets that were not taken, by reason.
    pub fn dropped(&self) -> BTreeMap<&'static str, u64> {
        locked(&self.inner).table.dropped().clone()
    }

    /// Makes sessions what is wanted, received on these addresses, of which `called` are where workloads
    /// call; says what stands in the way.
    fn follow(
        &mut self,
        wanted: &BTreeMap<End, Wanted>,
        (listen, called): (&BTreeSet<IpAddr>, &BTreeSet<IpAddr>),
        now: Instant,
    ) -> Vec<String> {
        self.hops = wanted.keys().map(|e| (e.to, e.hops)).collect();
        if wanted.is_empty() && self.running.is_none() {
            return Vec::new();
        }
        let running = match &self.running {
            Some(r) => r,
            None => match Running::start(&self.inner, &self.reporter) {
                Ok(r) => self.running.insert(r),
                Err(e) => return vec![format!("begin with BFD: {e}")],
            },
        };
        let mut troubles = Vec::new();
        let mut inner = locked(&self.inner);
        inner.sessions(wanted, called, now, &mut troubles);
        inner.listen(&running.poll, wanted, (listen, called), &mut troubles);
        drop(inner);
        running.waker.wake();
        troubles
    }

    /// Tells all ends that it is no failure when nothing more comes.
    pub(crate) fn leave(&self, now: Instant) {
        let mut inner = locked(&self.inner);
        for end in inner.table.ends() {
            inner.table.leave(end, now);
        }
        inner.table.due(now, send);
    }
}

impl Drop for Bfd {
    fn drop(&mut self) {
        let Some(running) = &mut self.running else {
            return;
        };
        locked(&self.inner).ended = true;
        running.waker.wake();
        if let Some(thread) = running.thread.take() {
            let _ = thread.join();
        }
    }
}

fn send(from: &Sender, end: End, octets: [u8; 24]) {
    udp::send(&from.fd, end.to, end.hops, &octets);
}

impl Inner {
    fn sessions(
        &mut self,
        wanted: &BTreeMap<End, Wanted>,
        called: &BTreeSet<IpAddr>,
        now: Instant,
        troubles: &mut Vec<String>,
    ) {
        for end in self.table.ends() {
            if !wanted.contains_key(&end) {
                self.table.leave(end, now);
            }
        }
        // A port is in use as long as its socket is.
        let mut used: HashSet<u16> = self.table.sockets().map(|s| s.port).collect();
        for (&end, how) in wanted {
            match self.table.source(end) {
                Some(from) if from == how.from => {
                    self.table.change(end, how.clone(), now);
                    continue;
                }
                // From another address it is another session.
                Some(_) => {
                    self.table.leave(end, now);
                    self.table.due(now, send);
                    self.table.forget(end);
                }
                None => {}
            }
            let early = how.from.is_some_and(|a| called.contains(&a));
            match udp::sender(end.to, (how.from, early), &used, self.table.random()) {
                Ok((fd, port)) => {
                    used.insert(port);
                    let sender = Sender { fd, port };
                    self.table.begin(end, how.clone(), sender, now);
                }
                Err(e) => troubles.push(e.to_string()),
            }
        }
    }

    /// Receives where it should, keeping sockets that are right. Those of sessions that end stay with
    /// the last of them.
    fn listen(
        &mut self,
        poll: &Poll,
        wanted: &BTreeMap<End, Wanted>,
        (listen, called): (&BTreeSet<IpAddr>, &BTreeSet<IpAddr>),
        troubles: &mut Vec<String>,
    ) {
        let needed = |at: IpAddr, hops: BfdHops| {
            let mut ends = wanted.keys();
            ends.any(|e| e.hops == hops && e.to.is_ipv4() == at.is_ipv4())
        };
        self.receivers
            .retain(|_, r| listen.contains(&r.at) && needed(r.at, r.hops));
        for &at in listen {
            for hops in [BfdHops::Single, BfdHops::Multi] {
                let mut known = self.receivers.values();
                if !needed(at, hops) || known.any(|r| r.at == at && r.hops == hops) {
                    continue;
                }
                let token = self.next_token;
                let begun = udp::receiver(at, hops, called.contains(&at)).and_then(|fd| {
                    poll.add(&fd, token, false).map_err(|cause| SocketError {
                        operation: "watch BFD on",
                        at: at.to_string(),
                        cause,
                    })?;
                    Ok(fd)
                });
                match begun {
                    Ok(fd) => {
                        self.receivers.insert(token, Receiver { fd, at, hops });
                        self.next_token += 1;
                    }
                    Err(e) => troubles.push(e.to_string()),
                }
            }
        }
    }

    /// Reads from a socket, or from all.
    fn read(&mut self, which: Option<Token>, room: &mut udp::Room) {
        let table = &mut self.table;
        for (_, r) in self
            .receivers
            .iter()
            .filter(|(t, _)| which.is_none_or(|w| w == **t))
        {
            for _ in 0..READS {
                let now = Instant::now();
                if !room.read(&r.fd, |heard| table.received(r.hops, heard, now, send)) {
                    break;
                }
            }
        }
    }
}

impl Running {
    fn start(inner: &Arc<Mutex<Inner>>, reporter: &Reporter) -> io::Result<Self> {
        let (poll, waker) = Poll::new()?;
        let poll = Arc::new(poll);
        let (inner, reporter) = (inner.clone(), reporter.clone());
        let (its_poll, its_waker) = (poll.clone(), waker.clone());
        let thread = std::thread::Builder::new()
            .name("bfd".to_owned())
            .spawn(move || run(&inner, &its_poll, &its_waker, &reporter))?;
        Ok(Self {
            poll,
            waker,
            thread: Some(thread),
        })
    }
}

/// The thread.
fn run(inner: &Mutex<Inner>, poll: &Poll, waker: &Waker, reporter: &Reporter) {
    let mut room = udp::Room::new();
    let mut ready = Vec::new();
    loop {
        let deadline = {
            let inner = locked(inner);
            if inner.ended {
                return;
            }
            inner.table.deadline()
        };
        let wait = deadline.map(|t| t.saturating_duration_since(Instant::now()));
        if let Err(e) = poll.wait(wait, &mut ready) {
            // Without it all paths would look dead here and there, which ends BGP's sessions.
            tracing::error!(error = %e, "BFD cannot wait, and ends");
            return;
        }
        let mut inner = locked(inner);
        for r in &ready {
            match r.token {
                WOKEN => waker.clear(),
                token => inner.read(Some(token), &mut room),
            }
        }
        if inner.table.deadline().is_some_and(|t| t <= Instant::now()) {
            inner.read(None, &mut room);
            inner.table.due(Instant::now(), send);
        }
        let failed = inner.table.take_failed();
        drop(inner);
        if !failed.is_empty() {
            reporter.paths_failed(failed);
        }
    }
}

impl Engine {
    /// Watches the paths that the plan wants watched.
    pub(crate) fn watch_paths(&mut self, now: Instant) {
        let mut wanted: BTreeMap<End, Wanted> = BTreeMap::new();
        let plan = &self.applied.plan;
        for (_, at) in self.applied.ids() {
            let peer = &plan.peers[at];
            let Some(how) = peer.bfd else {
                continue;
            };
            let config = Config {
                min_tx: how.min_tx,
                min_rx: how.min_rx,
                multiplier: how.multiplier,
                passive: false,
            };
            let hops = how.hops.unwrap_or_else(|| self.reach(peer.address));
            let end = End {
                to: peer.address,
                hops,
            };
            // Several BGP sessions with an address share a path: who wants to know first decides.
            let entry = wanted.entry(end).or_insert(Wanted {
                config,
                from: peer.source,
                ports: Vec::new(),
            });
            let detection = |c: &Config| c.min_rx * u32::from(c.multiplier);
            if detection(&config) < detection(&entry.config) {
                entry.config = config;
            }
            entry.ports.push(peer.port);
        }
        let speaker = plan.speaker.as_ref();
        let listen = speaker
            .map(|s| self.listen_at(s, &plan.peers))
            .unwrap_or_default();
        let listen = listen.iter().map(|l| l.at.ip()).collect();
        let called = crate::engine::answers(&plan.peers);
        let troubles = self.bfd.follow(&wanted, (&listen, &called), now);
        for t in &troubles {
            tracing::error!(error = %t, "cannot watch a path");
        }
        self.troubles.extend(troubles);
    }

    /// Whether the kernel has a link to an address.
    fn reach(&self, to: IpAddr) -> BfdHops {
        let near =
            |(prefix, l): (&net::Cidr, &crate::kernel::Local)| l.connected && prefix.contains(to);
        match self.locals.iter().any(near) {
            true => BfdHops::Single,
            false => BfdHops::Multi,
        }
    }

    /// Whether an answer of [`Engine::reach`] may be another now.
    pub(crate) fn reach_matters(&self) -> bool {
        let mut peers = self.applied.plan.peers.iter();
        peers.any(|p| p.bfd.is_some_and(|b| b.hops.is_none()))
    }

    /// Ends the BGP sessions of paths that have failed.
    pub(crate) fn paths_failed(&mut self, failed: &[Failed], now: Instant) {
        for f in failed {
            for &port in &f.ports {
                let Some(id) = self.applied.id_at(f.to, port) else {
                    continue;
                };
                tracing::warn!(peer = %self.applied.name_of(id), why = %f.why, "BFD down");
                if let Some(router) = &mut self.router {
                    router.path_failed(id, &f.why, f.independent, now);
                }
            }
        }
    }
}
