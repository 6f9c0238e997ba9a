//! Monitoring stations (RFC 7854): what peers announce before and after policy, and what is used
//! (RFC 9069), is told to them.
//!
//! Promises: BGP never waits for a station: all of them together get [`SHARE`] of a round; one that
//! does not read is owed marks, not messages, and is let go when it takes nothing for
//! [`PATIENCE`] or the marks are too many; one that is away costs a call now and then.
//! Never: takes anything from a station.

mod message;

use crate::conns::Conn;
use crate::engine::Engine;
use crate::handle::Reporter;
use crate::poll::{Poll, Ready};
use crate::sockets::{self, Protection};
use bgp::router::{ConnId, Left, MonitorId, Router, Stage, Told};
use bgp::types::PerFamily;
use message::{Routes, Statistics};
use rustix::net::{RecvFlags, SendFlags};
use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::os::fd::{AsFd, OwnedFd};
use std::str::FromStr;
use std::time::{Duration, Instant, SystemTime};

/// Stations have the tokens from here on.
pub(crate) const STATIONS: u64 = 2 << 32;
/// For so long in a round messages are made, for all stations together.
pub(crate) const SHARE: Duration = Duration::from_millis(5);
/// So many prefixes are looked at between two looks at the clock.
const PIECE: usize = 256;
/// No more is made for a station of which so many octets wait.
const QUEUE: usize = 256 << 10;
/// A station that takes nothing for so long is let go.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long a call may take.
const CALL: Duration = Duration::from_secs(10);
/// The first wait after a failure; it doubles with each.
const WAIT_MIN: Duration = Duration::from_secs(1);
/// The longest wait.
const WAIT_MAX: Duration = Duration::from_secs(60);

/// Where a monitoring station is: `HOST:PORT`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Station {
    host: String,
    port: u16,
}

/// A text that names no station.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?}: {reason}; write HOST:PORT, such as 192.0.2.9:11019 or [2001:db8::9]:11019")]
pub struct StationError {
    text: String,
    reason: &'static str,
}

impl FromStr for Station {
    type Err = StationError;

    fn from_str(text: &str) -> Result<Self, StationError> {
        let failed = |reason| StationError {
            text: text.to_owned(),
            reason,
        };
        let (host, port) = text
            .rsplit_once(':')
            .ok_or_else(|| failed("it has no port"))?;
        let port: u16 = port
            .parse()
            .map_err(|_| failed("its port is no number from 1 to 65535"))?;
        if port == 0 {
            return Err(failed("its port is no number from 1 to 65535"));
        }
        let bare = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
        let host = bare.unwrap_or(host);
        if host.is_empty() {
            return Err(failed("it has no host"));
        }
        let is_v6 = host.parse::<std::net::Ipv6Addr>().is_ok();
        if bare.is_some() != is_v6 {
            return Err(failed(
                "an IPv6 address, and nothing else, stands in brackets",
            ));
        }
        if !is_v6 && host.contains(|c: char| c == ':' || c == '/' || c.is_whitespace()) {
            return Err(failed("its host is neither an address nor a name"));
        }
        Ok(Self {
            host: host.to_owned(),
            port,
        })
    }
}

impl fmt::Display for Station {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

/// What there is to say about a station.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StationStatus {
    /// Where it is.
    pub station: Station,
    /// Since when it is connected; `None`: it is not.
    pub since: Option<SystemTime>,
    /// Connections that came up.
    pub sessions: u64,
    /// Octets sent, over all connections.
    pub octets_sent: u64,
    /// Routes that no message could hold.
    pub unsent: u64,
    /// Why it is not connected, or why it last was not.
    pub last_error: Option<String>,
}

/// How far a station is.
enum Phase {
    /// It is called then; `None`: once BGP is spoken.
    Away(Option<Instant>),
    /// Its name is looked up.
    Resolving,
    /// It is being called.
    Calling { fd: OwnedFd, until: Instant },
    /// It is connected.
    Open(Box<Line>),
}

/// A connection with a station.
struct Line {
    fd: OwnedFd,
    monitor: MonitorId,
    out: Vec<u8>,
    /// So much of `out` is written.
    written: usize,
    /// Since when it takes nothing.
    stuck: Option<Instant>,
    watching: bool,
    /// It has room, and there was more to tell.
    more: bool,
    opened: Instant,
    report_at: Instant,
}

struct One {
    status: StationStatus,
    phase: Phase,
    wait: Duration,
}

/// All stations.
pub(crate) struct Stations {
    all: Vec<One>,
    /// Watchers that are being let go.
    leaving: Vec<MonitorId>,
    /// Who is served first in the next round.
    turn: usize,
    name: String,
    every: Duration,
    reporter: Reporter,
}

/// The octets of a line, appended to by what the router tells.
struct Writer<'a> {
    out: &'a mut Vec<u8>,
    unsent: &'a mut u64,
    at: SystemTime,
    conns: &'a [Option<Conn>],
    by_id: &'a HashMap<ConnId, usize>,
}

impl Writer<'_> {
    fn told(&mut self, told: Told<'_>) {
        match told {
            Told::Up {
                who,
                conn,
                local,
                sent,
                received,
            } => {
                let (local, remote) = self.ends(conn, local);
                message::up(&who, local, remote, [sent, received], self.at, self.out);
            }
            Told::Down { who, how } => message::down(&who, how, self.at, self.out),
            Told::Routes {
                who,
                stage,
                attributes,
                nlri,
                add_path,
            } => {
                let routes = Routes {
                    who: &who,
                    stage,
                    attributes,
                    nlri,
                    add_path,
                };
                *self.unsent += message::routes(&routes, self.at, self.out) as u64;
            }
            Told::EndOfRib { who, family } => {
                let stages: &[Stage] = match who.peer {
                    bgp::rib::PeerId::LOCAL => &[Stage::Used],
                    _ => &[Stage::Received, Stage::Accepted],
                };
                for stage in stages {
                    message::end_of_rib(&who, *stage, family, self.at, self.out);
                }
            }
        }
    }

    /// Our end of a connection, and the other's port; 0 where the connection is just gone.
    fn ends(&self, conn: ConnId, local: IpAddr) -> (SocketAddr, u16) {
        let at = self.by_id.get(&conn);
        let fd = at.and_then(|&at| self.conns.get(at)?.as_ref());
        let port = |a: rustix::io::Result<rustix::net::SocketAddrAny>| {
            let a = a.ok().and_then(|a| SocketAddr::try_from(a).ok());
            a.map_or(0, |a| a.port())
        };
        match fd {
            Some(c) => {
                let own = port(rustix::net::getsockname(&c.fd));
                let other = rustix::net::getpeername(&c.fd);
                let other = other.and_then(|a| a.ok_or(rustix::io::Errno::NOTCONN));
                (SocketAddr::new(local, own), port(other))
            }
            None => (SocketAddr::new(local, 0), 0),
        }
    }
}

/// What is so while stations are served.
struct Round<'a> {
    begun: Instant,
    now: Instant,
    every: Duration,
    conns: &'a [Option<Conn>],
    by_id: &'a HashMap<ConnId, usize>,
}

impl Line {
    /// Makes messages while there is time and room, and writes them.
    fn serve(
        &mut self,
        status: &mut StationStatus,
        router: &mut Router,
        round: &Round<'_>,
    ) -> Result<(), String> {
        if self.report_at <= round.now {
            self.report_at = round.now + round.every;
            if self.has_room() {
                self.report(router);
            }
        }
        loop {
            self.write(&mut status.octets_sent, round.now)?;
            if !self.has_room() || round.begun.elapsed() > SHARE {
                // What is left to tell is not known: the next round sees.
                self.more = true;
                return Ok(());
            }
            let mut writer = Writer {
                out: &mut self.out,
                unsent: &mut status.unsent,
                at: SystemTime::now(),
                conns: round.conns,
                by_id: round.by_id,
            };
            match router.watch(self.monitor, PIECE, |told| writer.told(told)) {
                Left::Some => {}
                Left::Nothing => {
                    self.more = false;
                    return self.write(&mut status.octets_sent, round.now);
                }
                Left::TooMuch => {
                    return Err("it reads too slowly: too much would have to be kept".to_owned());
                }
            }
        }
    }

    /// A report of each peer that it knows, and of what is used.
    fn report(&mut self, router: &Router) {
        let at = SystemTime::now();
        for (who, paths, treated) in router.watched(self.monitor) {
            let counts = Statistics {
                routes: PerFamily::from_fn(|f| u64::from(paths[f])),
                // The counter has four octets, and begins anew after them.
                treated_as_withdraw: Some(treated as u32),
            };
            message::statistics(&who, &counts, at, &mut self.out);
        }
        let used = Statistics {
            routes: PerFamily::from_fn(|f| router.used(f) as u64),
            treated_as_withdraw: None,
        };
        message::statistics(&router.identity(), &used, at, &mut self.out);
    }

    /// Writes what the socket takes.
    fn write(&mut self, sent: &mut u64, now: Instant) -> Result<(), String> {
        while self.written < self.out.len() {
            match rustix::net::send(&self.fd, &self.out[self.written..], SendFlags::NOSIGNAL) {
                Ok(n) => {
                    self.written += n;
                    *sent += n as u64;
                    self.stuck = None;
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::AGAIN) => {
                    let since = *self.stuck.get_or_insert(now);
                    return match now.duration_since(since) < PATIENCE {
                        true => Ok(()),
                        false => Err(format!(
                            "it has taken nothing for {} seconds",
                            PATIENCE.as_secs()
                        )),
                    };
                }
                Err(e) => return Err(format!("write: {e}")),
            }
        }
        self.out.clear();
        self.written = 0;
        Ok(())
    }

    const fn has_room(&self) -> bool {
        self.out.len() - self.written < QUEUE
    }

    /// Reads what a station should not say, to learn that it is gone.
    fn read(&self) -> Result<(), String> {
        let mut rest = [0; 4096];
        match rustix::net::recv(&self.fd, &mut rest, RecvFlags::DONTWAIT) {
            Ok((0, _)) => Err("it has closed the connection".to_owned()),
            Ok(_) | Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => Ok(()),
            Err(e) => Err(format!("read: {e}")),
        }
    }
}

impl Stations {
    pub(crate) fn new(
        stations: &[Station],
        name: &str,
        every: Duration,
        reporter: Reporter,
    ) -> Self {
        let one = |s: &Station| One {
            status: StationStatus {
                station: s.clone(),
                since: None,
                sessions: 0,
                octets_sent: 0,
                unsent: 0,
                last_error: None,
            },
            phase: Phase::Away(None),
            wait: WAIT_MIN,
        };
        Self {
            all: stations.iter().map(one).collect(),
            leaving: Vec::new(),
            turn: 0,
            name: name.to_owned(),
            every,
            reporter,
        }
    }

    /// What there is to say about each.
    pub(crate) fn statuses(&self) -> Vec<StationStatus> {
        self.all.iter().map(|o| o.status.clone()).collect()
    }

    /// When something is due; `now` when there is more to tell.
    pub(crate) fn deadline(&self, now: Instant) -> Option<Instant> {
        let leaving = (!self.leaving.is_empty()).then_some(now);
        let each = self.all.iter().filter_map(|o| match &o.phase {
            Phase::Away(at) => *at,
            Phase::Resolving => None,
            Phase::Calling { until, .. } => Some(*until),
            Phase::Open(l) if l.more && l.has_room() => Some(now),
            Phase::Open(l) => {
                let stuck = l.stuck.map_or(l.report_at, |s| s + PATIENCE);
                Some(stuck.min(l.report_at))
            }
        });
        each.chain(leaving).min()
    }

    /// A name has been looked up.
    pub(crate) fn resolved(
        &mut self,
        at: usize,
        to: Result<SocketAddr, String>,
        poll: &Poll,
        now: Instant,
    ) {
        if matches!(self.all.get(at).map(|o| &o.phase), Some(Phase::Resolving)) {
            match to {
                Ok(to) => self.call(at, to, poll, now),
                Err(e) => self.failed(at, e, now),
            }
        }
    }

    /// Begins to call a station.
    fn begin(&mut self, at: usize, poll: &Poll, now: Instant) {
        let station = self.all[at].status.station.clone();
        if let Ok(ip) = station.host.parse() {
            return self.call(at, SocketAddr::new(ip, station.port), poll, now);
        }
        // Looking up a name may take long, and must not hold up the loop.
        let reporter = self.reporter.clone();
        let lookup = move || {
            let found = (station.host.as_str(), station.port).to_socket_addrs();
            let found = found.map_err(|e| format!("look up {}: {e}", station.host));
            let first = found.and_then(|mut all| {
                all.next()
                    .ok_or_else(|| format!("look up {}: it has no address", station.host))
            });
            reporter.resolved(at, first);
        };
        let thread = std::thread::Builder::new().name("bmp-lookup".to_owned());
        match thread.spawn(lookup) {
            Ok(_) => self.all[at].phase = Phase::Resolving,
            Err(e) => self.failed(at, format!("look up its name: {e}"), now),
        }
    }

    fn call(&mut self, at: usize, to: SocketAddr, poll: &Poll, now: Instant) {
        let called = sockets::dial(to, None, &Protection::default())
            .map_err(|e| e.to_string())
            .and_then(|fd| {
                let added = poll.add(&fd, STATIONS + at as u64, true);
                added.map(|()| fd).map_err(|e| format!("watch it: {e}"))
            });
        match called {
            Ok(fd) => {
                let until = now + CALL;
                self.all[at].phase = Phase::Calling { fd, until };
            }
            Err(e) => self.failed(at, e, now),
        }
    }

    /// It cannot be had, or is had no more: later again.
    fn failed(&mut self, at: usize, why: String, now: Instant) {
        let one = &mut self.all[at];
        tracing::info!(station = %one.status.station, %why, "monitoring station is away");
        if let Phase::Open(line) = &one.phase {
            self.leaving.push(line.monitor);
            if now.duration_since(line.opened) > WAIT_MAX {
                one.wait = WAIT_MIN;
            }
        }
        one.phase = Phase::Away(Some(now + one.wait));
        one.wait = (one.wait * 2).min(WAIT_MAX);
        one.status.since = None;
        one.status.last_error = Some(why);
    }

    fn opened(&mut self, at: usize, router: &mut Router, now: Instant) {
        let one = &mut self.all[at];
        let Phase::Calling { fd, .. } = std::mem::replace(&mut one.phase, Phase::Away(None)) else {
            return;
        };
        // So that one which is gone without a word is noticed in the end.
        let _ = rustix::net::sockopt::set_socket_keepalive(&fd, true);
        let mut out = Vec::with_capacity(1024);
        let description = concat!("Manx ", env!("CARGO_PKG_VERSION"));
        message::initiation(&self.name, description, &mut out);
        message::up_used(&router.identity(), SystemTime::now(), &mut out);
        one.phase = Phase::Open(Box::new(Line {
            fd,
            monitor: router.monitor(),
            out,
            written: 0,
            stuck: None,
            watching: true,
            more: true,
            opened: now,
            report_at: now + self.every,
        }));
        one.status.since = Some(SystemTime::now());
        one.status.sessions += 1;
        tracing::info!(station = %one.status.station, "monitoring station is connected");
    }

    /// A station's socket is ready for something.
    fn ready(&mut self, at: usize, r: Ready, router: Option<&mut Router>, now: Instant) {
        let Some(one) = self.all.get_mut(at) else {
            return;
        };
        let failed = match (&mut one.phase, router) {
            (Phase::Calling { fd, .. }, Some(router)) if r.writable => {
                match sockets::error_of(fd.as_fd()) {
                    None => {
                        self.opened(at, router, now);
                        None
                    }
                    Some(e) => Some(format!("call it: {e}")),
                }
            }
            (Phase::Open(line), _) => {
                let read = if r.readable { line.read() } else { Ok(()) };
                read.and_then(|()| line.write(&mut one.status.octets_sent, now))
                    .err()
            }
            _ => None,
        };
        if let Some(why) = failed {
            self.failed(at, why, now);
        }
    }

    /// Everything that was told is about a router that is gone.
    pub(crate) fn forget(&mut self, now: Instant) {
        self.leaving.clear();
        for at in 0..self.all.len() {
            if let Phase::Open(_) | Phase::Calling { .. } = self.all[at].phase {
                self.say_goodbye(at, now);
                self.all[at].phase = Phase::Away(None);
                self.all[at].status.since = None;
            }
        }
    }

    /// Tells all that it is over.
    pub(crate) fn end(&mut self, now: Instant) {
        for at in 0..self.all.len() {
            self.say_goodbye(at, now);
        }
    }

    fn say_goodbye(&mut self, at: usize, now: Instant) {
        let one = &mut self.all[at];
        if let Phase::Open(line) = &mut one.phase {
            message::termination(&mut line.out);
            // As far as the socket takes it.
            let _ = line.write(&mut one.status.octets_sent, now);
        }
    }
}

impl Engine {
    /// A station's socket is ready for something.
    pub(crate) fn station_ready(&mut self, r: Ready, now: Instant) {
        let at = usize::try_from(r.token - STATIONS).unwrap_or(usize::MAX);
        self.stations.ready(at, r, self.router.as_mut(), now);
    }

    /// The stations' share of a round.
    pub(crate) fn serve_stations(&mut self, now: Instant) {
        let Some(router) = &mut self.router else {
            return;
        };
        let stations = &mut self.stations;
        stations.leaving.retain(|m| router.unmonitor(*m, PIECE));
        let round = Round {
            begun: Instant::now(),
            now,
            every: stations.every,
            conns: &self.conns,
            by_id: &self.by_id,
        };
        let count = stations.all.len();
        stations.turn = (stations.turn + 1) % count.max(1);
        for i in 0..count {
            let at = (stations.turn + i) % count;
            let one = &mut stations.all[at];
            let failed = match &mut one.phase {
                Phase::Away(None) => {
                    stations.begin(at, &self.poll, now);
                    None
                }
                Phase::Away(Some(t)) if *t <= now => {
                    stations.begin(at, &self.poll, now);
                    None
                }
                Phase::Calling { until, .. } if *until <= now => {
                    Some("call it: it does not answer".to_owned())
                }
                Phase::Open(line) => line.serve(&mut one.status, router, &round).err(),
                Phase::Away(_) | Phase::Resolving | Phase::Calling { .. } => None,
            };
            if let Some(why) = failed {
                stations.failed(at, why, now);
            }
        }
        for (at, one) in stations.all.iter_mut().enumerate() {
            let Phase::Open(line) = &mut one.phase else {
                continue;
            };
            let wanted = line.written < line.out.len();
            if wanted != line.watching {
                line.watching = wanted;
                if let Err(e) = self.poll.change(&line.fd, STATIONS + at as u64, wanted) {
                    tracing::error!(error = %e, "cannot watch a monitoring station");
                }
            }
        }
    }
}
