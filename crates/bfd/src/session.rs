//! One session (RFC 5880, section 6).
//!
//! Promises: the state follows section 6.2 and 6.8.6 alone; nothing is sent faster than the other
//! side can take, nor faster than once a second while the session is not up.

use crate::packet::{Diagnostic, Packet, State};
use std::time::{Duration, Instant};

/// Not up, nothing is sent more often (section 6.8.3).
const SLOW: Duration = Duration::from_secs(1);

/// How a session is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Config {
    /// How often we want to send.
    pub min_tx: Duration,
    /// How often we can receive.
    pub min_rx: Duration,
    /// So many of our packets may be missed; never 0.
    pub multiplier: u8,
    /// Wait for the other side to speak first.
    pub passive: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            min_tx: Duration::from_millis(300),
            min_rx: Duration::from_millis(300),
            multiplier: 3,
            passive: false,
        }
    }
}

/// What a packet did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Received {
    /// The new state, where it changed.
    pub changed: Option<State>,
    /// To be sent at once: the answer to a poll.
    pub answer: Option<Packet>,
}

/// What is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sent {
    /// The new state, where time changed it.
    pub changed: Option<State>,
    /// To be sent now.
    pub packet: Option<Packet>,
}

/// A session.
#[derive(Debug, Clone)]
pub struct Session {
    config: Config,
    state: State,
    diagnostic: Diagnostic,
    mine: u32,
    /// As last heard.
    theirs: u32,
    their_state: State,
    their_diagnostic: Diagnostic,
    independent: bool,
    their_min_rx: Duration,
    their_min_tx: Duration,
    their_multiplier: u8,
    their_demand: bool,
    /// What we send by while a poll for other times is open; see section 6.8.3.
    tx_in_force: Duration,
    rx_in_force: Duration,
    polling: bool,
    next_tx: Option<Instant>,
    expires: Option<Instant>,
    since: Instant,
}

impl Session {
    /// A session that is down. `mine` is our discriminator: not 0, unique on this host.
    pub fn new(config: Config, mine: u32, now: Instant) -> Self {
        Self {
            config,
            state: State::Down,
            diagnostic: Diagnostic::None,
            mine,
            theirs: 0,
            their_state: State::Down,
            their_diagnostic: Diagnostic::None,
            independent: false,
            // Section 6.8.1: 1 until heard.
            their_min_rx: Duration::from_micros(1),
            their_min_tx: Duration::ZERO,
            their_multiplier: 1,
            their_demand: false,
            tx_in_force: config.min_tx.max(SLOW),
            rx_in_force: config.min_rx,
            polling: false,
            next_tx: (!config.passive).then_some(now),
            expires: None,
            since: now,
        }
    }

    /// The state.
    pub const fn state(&self) -> State {
        self.state
    }

    /// Why it last left Up.
    pub const fn diagnostic(&self) -> Diagnostic {
        self.diagnostic
    }

    /// Our discriminator.
    pub const fn discriminator(&self) -> u32 {
        self.mine
    }

    /// The other side's discriminator; `None` while it is not heard.
    pub const fn their_discriminator(&self) -> Option<u32> {
        match self.theirs {
            0 => None,
            n => Some(n),
        }
    }

    /// The other side's state, as last heard.
    pub const fn their_state(&self) -> State {
        self.their_state
    }

    /// Why the other side last left Up, as last heard.
    pub const fn their_diagnostic(&self) -> Diagnostic {
        self.their_diagnostic
    }

    /// Whether the other side's BFD goes on without its control plane, as last heard (the C bit).
    pub const fn independent(&self) -> bool {
        self.independent
    }

    /// How the session is run.
    pub const fn config(&self) -> &Config {
        &self.config
    }

    /// When the state was entered.
    pub const fn since(&self) -> Instant {
        self.since
    }

    /// Without a packet for so long the session is down (section 6.8.4); `None` before any.
    pub fn detection_time(&self) -> Option<Duration> {
        let each = self.rx_in_force.max(self.their_min_tx);
        (self.theirs != 0).then(|| each * u32::from(self.their_multiplier))
    }

    /// The time between our packets, before jitter.
    pub fn tx_interval(&self) -> Duration {
        self.tx_in_force.max(self.their_min_rx)
    }

    /// When [`Session::tick`] is due next.
    pub fn deadline(&self) -> Option<Instant> {
        [self.next_tx, self.expires].into_iter().flatten().min()
    }

    /// Takes a packet that was found to be for this session. `random` is any number, for jitter.
    pub fn received(&mut self, p: &Packet, now: Instant, random: u64) -> Received {
        self.theirs = p.mine;
        self.their_state = p.state;
        self.their_diagnostic = p.diagnostic;
        self.independent = p.independent;
        self.their_multiplier = p.multiplier;
        self.their_demand = p.demand;
        let faster = p.min_rx < self.their_min_rx;
        self.their_min_rx = p.min_rx;
        self.their_min_tx = p.min_tx;
        if p.fin && self.polling {
            self.polling = false;
            self.adopt_times();
        }
        if self.state == State::AdminDown {
            // Section 6.8.6: what follows is for sessions that take part.
            return Received {
                changed: None,
                answer: None,
            };
        }
        let before = self.state;
        self.transition(p, now);
        self.expires = self.detection_time().map(|t| now + t);
        self.schedule(now, random, faster || before != self.state);
        let answer = p.poll.then(|| Packet {
            poll: false,
            fin: true,
            ..self.packet()
        });
        Received {
            changed: (before != self.state).then_some(self.state),
            answer,
        }
    }

    /// Time has passed.
    pub fn tick(&mut self, now: Instant, random: u64) -> Sent {
        let before = self.state;
        if self.expires.is_some_and(|t| t <= now) {
            self.expires = None;
            if matches!(self.state, State::Init | State::Up) {
                self.enter(State::Down, Diagnostic::Expired, now);
            }
            // Section 6.8.1: forgotten when nothing was heard for a detection time.
            self.theirs = 0;
            self.schedule(now, random, before != self.state);
        }
        let due = self.next_tx.is_some_and(|t| t <= now);
        let packet = due.then(|| self.packet());
        if due {
            self.next_tx = None;
            self.schedule(now, random, true);
        }
        Sent {
            changed: (before != self.state).then_some(self.state),
            packet,
        }
    }

    /// Changes how the session is run; an up session agrees on the new times by a poll first.
    pub fn configure(&mut self, config: Config, now: Instant, random: u64) {
        self.config = config;
        if self.state == State::Up {
            self.polling = true;
            // Faster may be taken only when the other side knows; slower at once where it
            // cannot hurt (section 6.8.3).
            self.tx_in_force = self.tx_in_force.min(config.min_tx);
            self.rx_in_force = self.rx_in_force.max(config.min_rx);
        } else {
            self.adopt_times();
        }
        self.schedule(now, random, true);
    }

    /// Holds the session down, or lets it go again. The packet that says so follows at once.
    pub fn hold_down(&mut self, down: bool, now: Instant, random: u64) -> Option<State> {
        match (down, self.state) {
            (true, State::AdminDown) => None,
            (true, _) => {
                self.enter(State::AdminDown, Diagnostic::AdminDown, now);
                self.expires = None;
                self.next_tx = Some(now);
                Some(self.state)
            }
            (false, State::AdminDown) => {
                self.enter(State::Down, Diagnostic::None, now);
                self.schedule(now, random, true);
                Some(self.state)
            }
            (false, _) => None,
        }
    }

    /// Section 6.8.6, from "If bfd.SessionState is AdminDown" on.
    fn transition(&mut self, p: &Packet, now: Instant) {
        use State::{AdminDown, Down, Init, Up};
        match (self.state, p.state) {
            (AdminDown, _) => {}
            (Init | Up, AdminDown) => self.enter(Down, Diagnostic::NeighbourDown, now),
            (Down, AdminDown) => self.diagnostic = Diagnostic::NeighbourDown,
            (Down, Down) => self.enter(Init, self.diagnostic, now),
            (Down, Init) | (Init, Init | Up) => self.enter(Up, self.diagnostic, now),
            (Up, Down) => self.enter(Down, Diagnostic::NeighbourDown, now),
            (Down, Up) | (Init, Down) | (Up, Init | Up) => {}
        }
    }

    fn enter(&mut self, state: State, diagnostic: Diagnostic, now: Instant) {
        let was_up = self.state == State::Up;
        self.state = state;
        self.diagnostic = diagnostic;
        self.since = now;
        if state == State::Up {
            // From slow to what is configured, by a poll.
            self.polling = true;
            self.tx_in_force = self.tx_in_force.min(self.config.min_tx);
        } else {
            if was_up {
                self.polling = false;
            }
            self.adopt_times();
        }
    }

    fn adopt_times(&mut self) {
        self.tx_in_force = match self.state {
            State::Up => self.config.min_tx,
            _ => self.config.min_tx.max(SLOW),
        };
        self.rx_in_force = self.config.min_rx;
    }

    /// Whether periodic packets are sent at all (section 6.8.7).
    fn sends(&self) -> bool {
        let quiet = self.their_demand && self.state == State::Up && self.their_state == State::Up;
        let waits = self.config.passive && self.theirs == 0;
        !(waits || self.their_min_rx.is_zero() || (quiet && !self.polling))
    }

    /// Sets when the next periodic packet goes; `anew` where an earlier time may be due.
    fn schedule(&mut self, now: Instant, random: u64, anew: bool) {
        if !self.sends() {
            // A session that is held down still says so once.
            if self.state != State::AdminDown {
                self.next_tx = None;
            }
            return;
        }
        let at = now + self.jittered(random);
        self.next_tx = Some(match self.next_tx {
            Some(t) if !anew => t,
            Some(t) => t.min(at),
            None => at,
        });
    }

    /// Between 75 and 100 % of the interval, at most 90 % where one missing packet is the end
    /// (section 6.8.7).
    fn jittered(&self, random: u64) -> Duration {
        let top = if self.config.multiplier == 1 {
            150
        } else {
            250
        };
        let permille = 750 + u32::try_from(random % (top + 1)).unwrap_or(0);
        self.tx_interval() * permille / 1000
    }

    fn packet(&self) -> Packet {
        let slow = self.state != State::Up;
        Packet {
            diagnostic: self.diagnostic,
            state: self.state,
            poll: self.polling,
            fin: false,
            independent: false,
            demand: false,
            multiplier: self.config.multiplier,
            mine: self.mine,
            yours: self.theirs,
            min_tx: match slow {
                true => self.config.min_tx.max(SLOW),
                false => self.config.min_tx,
            },
            min_rx: self.config.min_rx,
            min_echo_rx: Duration::ZERO,
        }
    }
}
