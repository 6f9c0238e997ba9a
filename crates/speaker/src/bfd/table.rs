//! Sessions of BFD, their timers, and whose a packet is; without sockets or a clock.
//!
//! Promises: the work for a packet or a timer does not grow with the number of sessions, but for a heap's
//! depth; a packet that is not taken is counted by its reason; a session that is not wanted any more says
//! so for as long as the other side listens, so that it takes our silence for no failure.

use bfd::{Config, Diagnostic, Packet, Session, State};
use model::BfdHops;
use rustc_hash::FxHashMap;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::net::IpAddr;
use std::time::{Duration, Instant, SystemTime};

/// What packets of one hop have to arrive with (RFC 5881, section 5).
const NEAREST: u8 = 255;
/// A session that ends tells so for no longer.
const FAREWELL: Duration = Duration::from_secs(10);

/// The far end of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct End {
    /// Its address.
    pub to: IpAddr,
    /// How far it is.
    pub hops: BfdHops,
}

/// How a session is to be run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// How.
    pub config: Config,
    /// Our address; `None` leaves it to the kernel.
    pub from: Option<IpAddr>,
    /// The BGP sessions with that address that hang on it, by port.
    pub ports: Vec<u16>,
}

/// A packet that has come in.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Heard<'a> {
    /// Of whom.
    pub from: IpAddr,
    /// To which address of ours, where that is known.
    pub to: Option<IpAddr>,
    /// What is left of its TTL or hop limit.
    pub ttl: u8,
    /// What it says.
    pub octets: &'a [u8],
}

/// A path that was up and is not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failed {
    /// The far end.
    pub to: IpAddr,
    /// The BGP sessions that hang on it, by port.
    pub ports: Vec<u16>,
    /// Why, for people.
    pub why: String,
    /// The far end's BFD does not share the fate of its control plane.
    pub independent: bool,
}

/// A session as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BfdReport {
    /// Whether the far end is on a link of ours.
    pub single_hop: bool,
    /// Our state.
    pub state: State,
    /// Since when.
    pub since: Instant,
    /// Why we last left Up.
    pub diagnostic: Diagnostic,
    /// The far end's state, as last heard.
    pub remote_state: State,
    /// Why the far end last left Up, as last heard.
    pub remote_diagnostic: Diagnostic,
    /// How we know the session.
    pub discriminator: u32,
    /// How the far end knows it; `None` while it is not heard.
    pub remote_discriminator: Option<u32>,
    /// Between our packets, before jitter.
    pub interval: Duration,
    /// So long a silence is the end; `None` while nothing is heard.
    pub detection: Option<Duration>,
    /// How often it came up.
    pub ups: u64,
    /// How often it was up and failed.
    pub failures: u64,
    /// Packets taken.
    pub received: u64,
    /// Packets sent.
    pub sent: u64,
}

impl BfdReport {
    /// Since when, by the wall's clock.
    pub fn since(&self) -> SystemTime {
        let now = SystemTime::now();
        now.checked_sub(self.since.elapsed()).unwrap_or(now)
    }
}

/// A session, and what sends for it.
struct Entry<S> {
    end: End,
    wanted: Wanted,
    session: Session,
    socket: S,
    /// For when the timer is set.
    armed: Option<Instant>,
    /// Nobody wants it any more; until then it says so.
    leaving: Option<Instant>,
    ups: u64,
    failures: u64,
    received: u64,
    sent: u64,
}

impl<S> Entry<S> {
    fn deadline(&self) -> Option<Instant> {
        [self.session.deadline(), self.leaving]
            .into_iter()
            .flatten()
            .min()
    }
}

/// Numbers for jitter and discriminators.
#[derive(Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number (SplitMix64).
    pub(crate) const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

/// All sessions.
pub(crate) struct Table<S> {
    /// By our discriminator.
    sessions: FxHashMap<u32, Entry<S>>,
    by_end: BTreeMap<End, u32>,
    timers: BinaryHeap<Reverse<(Instant, u32)>>,
    random: Random,
    dropped: BTreeMap<&'static str, u64>,
    failed: Vec<Failed>,
}

impl<S> Table<S> {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            sessions: FxHashMap::default(),
            by_end: BTreeMap::new(),
            timers: BinaryHeap::new(),
            random: Random::new(seed),
            dropped: BTreeMap::new(),
            failed: Vec::new(),
        }
    }

    /// Numbers that are as random as jitter has to be.
    pub(crate) const fn random(&mut self) -> &mut Random {
        &mut self.random
    }

    /// The ends of all sessions that are wanted.
    pub(crate) fn ends(&self) -> Vec<End> {
        let wanted = |d: &u32| self.sessions.get(d).is_some_and(|e| e.leaving.is_none());
        let each = self.by_end.iter().filter(|(_, d)| wanted(d));
        each.map(|(end, _)| *end).collect()
    }

    /// What sends for sessions, also those that end.
    pub(crate) fn sockets(&self) -> impl Iterator<Item = &S> {
        self.sessions.values().map(|e| &e.socket)
    }

    /// Our address in a session that there is, one that ends included.
    pub(crate) fn source(&self, end: End) -> Option<Option<IpAddr>> {
        let entry = self.sessions.get(self.by_end.get(&end)?)?;
        Some(entry.wanted.from)
    }

    /// Begins a session; there is none yet.
    pub(crate) fn begin(&mut self, end: End, wanted: Wanted, socket: S, now: Instant) {
        let mut mine = 0;
        // RFC 5880, section 6.8.1: unique on this host, not 0, and hard to guess.
        while mine == 0 || self.sessions.contains_key(&mine) {
            mine = (self.random.next() >> 32) as u32;
        }
        let entry = Entry {
            end,
            session: Session::new(wanted.config, mine, now),
            wanted,
            socket,
            armed: None,
            leaving: None,
            ups: 0,
            failures: 0,
            received: 0,
            sent: 0,
        };
        self.sessions.insert(mine, entry);
        self.by_end.insert(end, mine);
        self.arm(mine);
    }

    /// Changes how a session is run, also of one that is about to end.
    pub(crate) fn change(&mut self, end: End, wanted: Wanted, now: Instant) {
        let random = self.random.next();
        let Some((mine, entry)) = self.of(end) else {
            return;
        };
        if entry.leaving.take().is_some() {
            entry.session.hold_down(false, now, random);
        }
        if entry.wanted.config != wanted.config {
            entry.session.configure(wanted.config, now, random);
        }
        entry.wanted = wanted;
        self.arm(mine);
    }

    fn of(&mut self, end: End) -> Option<(u32, &mut Entry<S>)> {
        let mine = *self.by_end.get(&end)?;
        Some((mine, self.sessions.get_mut(&mine)?))
    }

    /// Ends a session, telling the far end that it is no failure (RFC 5880, section 6.8.16).
    pub(crate) fn leave(&mut self, end: End, now: Instant) {
        let random = self.random.next();
        let Some((mine, entry)) = self.of(end) else {
            return;
        };
        if entry.leaving.is_some() {
            return;
        }
        let session = &mut entry.session;
        // As the far end reckons it.
        let detection = session.tx_interval() * u32::from(entry.wanted.config.multiplier);
        let heard = session.their_discriminator().is_some();
        session.hold_down(true, now, random);
        let wait = if heard {
            detection.min(FAREWELL)
        } else {
            Duration::ZERO
        };
        entry.leaving = Some(now + wait);
        self.arm(mine);
    }

    /// Forgets a session at once.
    pub(crate) fn forget(&mut self, end: End) {
        if let Some(mine) = self.by_end.remove(&end) {
            self.sessions.remove(&mine);
        }
    }

    /// When [`Table::due`] has something to do; early at times, never late.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.timers.peek().map(|Reverse((at, _))| *at)
    }

    /// Sets a session's timer. One that is set for earlier stays, and is set anew when it has passed: so
    /// a packet, which only puts off the end, costs nothing here.
    fn arm(&mut self, mine: u32) {
        let Some(entry) = self.sessions.get_mut(&mine) else {
            return;
        };
        let Some(at) = entry.deadline() else {
            return;
        };
        if entry.armed.is_none_or(|armed| at < armed) {
            entry.armed = Some(at);
            self.timers.push(Reverse((at, mine)));
        }
    }

    /// Does all that is due; `send` takes what is to be sent.
    pub(crate) fn due(&mut self, now: Instant, mut send: impl FnMut(&S, End, [u8; 24])) {
        while let Some(&Reverse((at, mine))) = self.timers.peek()
            && at <= now
        {
            self.timers.pop();
            let random = self.random.next();
            let Some(entry) = self.sessions.get_mut(&mine) else {
                continue;
            };
            if entry.armed != Some(at) {
                continue;
            }
            entry.armed = None;
            let before = entry.session.state();
            let out = entry.session.tick(now, random);
            if let Some(packet) = out.packet {
                entry.sent += 1;
                send(&entry.socket, entry.end, packet.encode());
            }
            if entry.leaving.is_some_and(|until| until <= now) {
                let end = entry.end;
                self.forget(end);
                continue;
            }
            self.moved(mine, before);
            self.arm(mine);
        }
    }

    /// Takes a packet from a socket for sessions as near as `hops` says.
    pub(crate) fn received(
        &mut self,
        hops: BfdHops,
        heard: &Heard<'_>,
        now: Instant,
        send: impl FnOnce(&S, End, [u8; 24]),
    ) {
        if let Err(reason) = self.take(hops, heard, now, send) {
            *self.dropped.entry(reason).or_default() += 1;
        }
    }

    fn take(
        &mut self,
        hops: BfdHops,
        heard: &Heard<'_>,
        now: Instant,
        send: impl FnOnce(&S, End, [u8; 24]),
    ) -> Result<(), &'static str> {
        if hops == BfdHops::Single && heard.ttl != NEAREST {
            return Err("ttl");
        }
        let packet = Packet::decode(heard.octets).map_err(bfd::PacketError::reason)?;
        let end = End {
            to: heard.from,
            hops,
        };
        let mine = match packet.yours {
            0 => *self.by_end.get(&end).ok_or("unknown")?,
            yours => yours,
        };
        let random = self.random.next();
        let entry = self.sessions.get_mut(&mine).ok_or("unknown")?;
        let ours = entry.wanted.from.zip(heard.to);
        if entry.end != end || ours.is_some_and(|(wanted, to)| wanted != to) {
            return Err("stranger");
        }
        let before = entry.session.state();
        entry.received += 1;
        let out = entry.session.received(&packet, now, random);
        if let Some(answer) = out.answer {
            entry.sent += 1;
            send(&entry.socket, entry.end, answer.encode());
        }
        self.moved(mine, before);
        self.arm(mine);
        Ok(())
    }

    /// Notes a change of state, and whether it is a failure.
    fn moved(&mut self, mine: u32, before: State) {
        let Some(entry) = self.sessions.get_mut(&mine) else {
            return;
        };
        let (s, to) = (&entry.session, entry.end.to);
        let state = s.state();
        if state == before {
            return;
        }
        tracing::info!(peer = %to, from = %before, to = %state, why = %s.diagnostic(), "BFD");
        entry.ups += u64::from(state == State::Up);
        // RFC 5882, section 3.2: what an operator holds down says nothing about the path.
        let held =
            s.their_state() == State::AdminDown && s.diagnostic() == Diagnostic::NeighbourDown;
        if before != State::Up || state != State::Down || held {
            return;
        }
        entry.failures += 1;
        self.failed.push(Failed {
            to,
            ports: entry.wanted.ports.clone(),
            why: reason(s, to),
            independent: s.independent(),
        });
    }

    /// What has failed since the last time.
    pub(crate) fn take_failed(&mut self) -> Vec<Failed> {
        std::mem::take(&mut self.failed)
    }

    /// A session as it is; `None` when there is none that is wanted.
    pub(crate) fn report(&self, end: End) -> Option<BfdReport> {
        let e = self.sessions.get(self.by_end.get(&end)?)?;
        let s = &e.session;
        e.leaving.is_none().then(|| BfdReport {
            single_hop: end.hops == BfdHops::Single,
            state: s.state(),
            since: s.since(),
            diagnostic: s.diagnostic(),
            remote_state: s.their_state(),
            remote_diagnostic: s.their_diagnostic(),
            discriminator: s.discriminator(),
            remote_discriminator: s.their_discriminator(),
            interval: s.tx_interval(),
            detection: s.detection_time(),
            ups: e.ups,
            failures: e.failures,
            received: e.received,
            sent: e.sent,
        })
    }

    /// Packets that were not taken, by reason.
    pub(crate) const fn dropped(&self) -> &BTreeMap<&'static str, u64> {
        &self.dropped
    }
}

/// Why a path has failed, in a line.
fn reason(s: &Session, to: IpAddr) -> String {
    match s.diagnostic() {
        Diagnostic::NeighbourDown => match s.their_diagnostic() {
            Diagnostic::Expired => format!("{to} hears nothing of us"),
            Diagnostic::None => format!("{to} has begun anew"),
            why => format!("{to} says that it is down: {why}"),
        },
        why => format!("{why} from {to}"),
    }
}

#[cfg(test)]
mod tests;
