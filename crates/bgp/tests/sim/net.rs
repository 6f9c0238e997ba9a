//! A network of routers in one process: a clock of its own, and connections that delay, cut
//! octets at any place, break, or fall silent.
//!
//! Promises: the same seed gives the same run; octets of one connection arrive in order or
//! not at all, those of different connections in any order.

use bgp::peer::PeerConfig;
use bgp::rib::PeerId;
use bgp::router::{Config, ConnId, Event, Output, Router};
use bgp::{Asn, Cidr};
use bytes::Bytes;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// SplitMix64.
#[derive(Debug, Clone)]
pub struct Rng(pub u64);

impl Rng {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }

    pub fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }
}

/// One end of a connection.
pub type End = (usize, ConnId);

#[derive(Debug)]
enum Happens {
    /// A connection attempt reaches the other router.
    Attempt { from: End, to: usize, peer: PeerId },
    /// Octets arrive; empty is the end of the connection.
    Arrive { at: End, octets: Bytes },
}

#[derive(Debug)]
struct Pipe {
    other: End,
    /// When the last octets to the other end arrive.
    busy: Instant,
    /// Nothing gets through any more, and nobody is told.
    silent: bool,
}

pub struct Node {
    pub router: Router,
    pub addr: IpAddr,
    /// The node behind each peer, and what we are to it.
    pub peers: BTreeMap<PeerId, (usize, PeerId)>,
    /// What the kernel would have.
    pub kernel: BTreeMap<Cidr, Vec<IpAddr>>,
    pub events: Vec<Event>,
    /// The process is down.
    pub dead: bool,
}

pub struct Net {
    start: Instant,
    pub now: Instant,
    pub rng: Rng,
    pub nodes: Vec<Node>,
    queue: BinaryHeap<Reverse<(Instant, u64, usize)>>,
    happens: BTreeMap<usize, Happens>,
    serial: usize,
    pipes: BTreeMap<End, Pipe>,
    deadlines: Vec<Option<Instant>>,
    /// Pairs of nodes between which connections cannot be made.
    pub down: std::collections::BTreeSet<(usize, usize)>,
    /// The greatest delay of octets.
    pub latency: Duration,
    /// Whether octets arrive in pieces.
    pub chop: bool,
    /// How many prefixes a router that is added looks at in one go.
    pub slice: Option<u32>,
}

impl Net {
    pub fn new(seed: u64) -> Self {
        let now = Instant::now();
        Self {
            start: now,
            now,
            rng: Rng(seed),
            nodes: Vec::new(),
            queue: BinaryHeap::new(),
            happens: BTreeMap::new(),
            serial: 0,
            pipes: BTreeMap::new(),
            deadlines: Vec::new(),
            down: std::collections::BTreeSet::new(),
            latency: Duration::from_millis(20),
            chop: true,
            slice: None,
        }
    }

    pub fn add(&mut self, config: Config, addr: IpAddr) -> usize {
        self.nodes.push(Node {
            router: Router::new(config, self.now),
            addr,
            peers: BTreeMap::new(),
            kernel: BTreeMap::new(),
            events: Vec::new(),
            dead: false,
        });
        self.deadlines.push(None);
        self.nodes.len() - 1
    }

    /// A router of an AS with a number of its own.
    pub fn router(&mut self, asn: u32) -> usize {
        self.router_with(asn, |_| {})
    }

    pub fn router_with(&mut self, asn: u32, change: impl FnOnce(&mut Config)) -> usize {
        let n = self.nodes.len() as u32 + 1;
        let id = std::net::Ipv4Addr::from_bits(0x0a00_0000 + n);
        let mut config = Config::new(Asn(asn), id.into(), u64::from(n));
        config.slice = self.slice.unwrap_or(config.slice);
        change(&mut config);
        self.add(config, id.into())
    }

    /// A session between two nodes. `change` gets the configuration of each side.
    pub fn peer(&mut self, a: usize, b: usize, mut change: impl FnMut(usize, &mut PeerConfig)) {
        let config = |net: &Self, at: usize, to: usize| {
            let mut c = PeerConfig::new(net.nodes[to].addr, net.nodes[to].router.config().asn);
            c.families = bgp::types::PerFamily { v4: true, v6: true };
            c.own_address.v6 = Some(v6_of(net.nodes[at].addr));
            c
        };
        let mut ca = config(self, a, b);
        let mut cb = config(self, b, a);
        change(a, &mut ca);
        change(b, &mut cb);
        let pa = self.nodes[a].router.add_peer(ca, self.now);
        let pb = self.nodes[b].router.add_peer(cb, self.now);
        self.nodes[a].peers.insert(pa, (b, pb));
        self.nodes[b].peers.insert(pb, (a, pa));
        self.drain(a);
        self.drain(b);
    }

    /// What node `a` calls node `b`.
    pub fn peer_id(&self, a: usize, b: usize) -> PeerId {
        let mut peers = self.nodes[a].peers.iter();
        *peers.find(|(_, (to, _))| *to == b).expect("peers").0
    }

    fn schedule(&mut self, at: Instant, what: Happens) {
        self.serial += 1;
        self.happens.insert(self.serial, what);
        // Equal times in any order.
        let order = self.rng.next();
        self.queue.push(Reverse((at, order, self.serial)));
    }

    fn delay(&mut self) -> Duration {
        let most = self.latency.as_micros() as usize + 1;
        Duration::from_micros(self.rng.below(most) as u64)
    }

    /// Does what a router wants done.
    pub fn drain(&mut self, n: usize) {
        while let Some(output) = self.nodes[n].router.poll(self.now) {
            match output {
                Output::Connect { conn, .. } => {
                    let (to, peer) = self.nodes[n]
                        .peers
                        .get(&conn.peer)
                        .copied()
                        .unwrap_or((n, conn.peer));
                    let at = self.now + self.delay();
                    self.schedule(
                        at,
                        Happens::Attempt {
                            from: (n, conn),
                            to,
                            peer,
                        },
                    );
                }
                Output::Send { conn } => {
                    let mut octets = Vec::new();
                    let max = 1 + self.rng.below(100_000);
                    while self.nodes[n].router.pull(conn, max, &mut octets, self.now) {}
                    let all: Vec<u8> = octets.concat();
                    self.send((n, conn), &all);
                }
                Output::Close { conn, last } => {
                    self.send((n, conn), &last);
                    let pipe = self.pipes.remove(&(n, conn));
                    if let Some(pipe) = pipe.filter(|p| !p.silent) {
                        let what = Happens::Arrive {
                            at: pipe.other,
                            octets: Bytes::new(),
                        };
                        let at = (pipe.busy + Duration::from_nanos(1)).max(self.now);
                        self.schedule(at, what);
                    }
                }
                Output::Routes => {
                    let node = &mut self.nodes[n];
                    let kernel = &mut node.kernel;
                    while node.router.take_routes(100, |change| match change.route {
                        Some(route) => {
                            let hops = route.next_hops.iter().map(|(h, _)| h.addr());
                            kernel.insert(change.prefix, hops.collect());
                        }
                        None => {
                            kernel.remove(&change.prefix);
                        }
                    }) {}
                }
                Output::NextHop(_) => {}
                Output::Event(event) => {
                    if std::env::var_os("SIM_TRACE").is_some() {
                        eprintln!("{:?} node {n}: {event:?}", self.now - self.start);
                    }
                    self.nodes[n].events.push(event);
                }
            }
        }
        let due = self.nodes[n].router.deadline();
        // What is due at once comes when it can: other things may happen before.
        let late = due.filter(|at| *at <= self.now).map(|_| self.delay());
        self.deadlines[n] = late.map(|d| self.now + d).or(due);
    }

    fn send(&mut self, from: End, octets: &[u8]) {
        let mut rest = octets;
        while !rest.is_empty() {
            let delay = self.delay();
            let len = if self.chop {
                1 + self.rng.below(rest.len())
            } else {
                rest.len()
            };
            let Some(pipe) = self.pipes.get_mut(&from) else {
                return;
            };
            if pipe.silent {
                return;
            }
            let (now, after) = rest.split_at(len);
            // Equal times would arrive in any order.
            pipe.busy = (pipe.busy + Duration::from_nanos(1)).max(self.now + delay);
            let (at, what) = (
                pipe.busy,
                Happens::Arrive {
                    at: pipe.other,
                    octets: Bytes::copy_from_slice(now),
                },
            );
            self.schedule(at, what);
            rest = after;
        }
    }

    fn happen(&mut self, what: Happens) {
        match what {
            Happens::Attempt { from, to, peer } => {
                let pair = (from.0.min(to), from.0.max(to));
                let blocked = self.down.contains(&pair) || self.nodes[to].dead || from.0 == to;
                let addr = self.nodes[to].addr;
                let accepted = if blocked {
                    None
                } else {
                    self.nodes[to].router.accepted(peer, addr, self.now)
                };
                let local = self.nodes[from.0].addr;
                match accepted {
                    Some(conn) => {
                        let there = (to, conn);
                        let pipe = |other| Pipe {
                            other,
                            busy: self.now,
                            silent: false,
                        };
                        let (a, b) = (pipe(there), pipe(from));
                        self.pipes.insert(from, a);
                        self.pipes.insert(there, b);
                        self.nodes[from.0].router.connected(from.1, local, self.now);
                    }
                    None => self.nodes[from.0].router.disconnected(from.1, self.now),
                }
                self.drain(to);
                self.drain(from.0);
            }
            Happens::Arrive { at, octets } => {
                if !self.pipes.contains_key(&at) {
                    return;
                }
                if octets.is_empty() {
                    self.pipes.remove(&at);
                    self.nodes[at.0].router.disconnected(at.1, self.now);
                } else {
                    self.nodes[at.0].router.received(at.1, &octets, self.now);
                }
                // Sometimes several inputs come before one round of outputs.
                if octets.is_empty() || self.rng.chance(70) {
                    self.drain(at.0);
                } else {
                    self.deadlines[at.0] = Some(self.now);
                }
            }
        }
    }

    /// Runs until `until`, or until nothing but timers later than that is left.
    pub fn run_until(&mut self, until: Instant) {
        loop {
            let event = self.queue.peek().map(|Reverse((at, ..))| *at);
            let timer = (0..self.nodes.len())
                .filter(|&n| !self.nodes[n].dead)
                .filter_map(|n| Some((self.deadlines[n]?, n)))
                .min();
            match (event, timer) {
                (Some(at), t) if at <= until && t.is_none_or(|(t, _)| at <= t) => {
                    self.now = self.now.max(at);
                    let Some(Reverse((_, _, serial))) = self.queue.pop() else {
                        return;
                    };
                    if let Some(what) = self.happens.remove(&serial) {
                        self.happen(what);
                    }
                }
                (_, Some((at, n))) if at <= until => {
                    self.now = self.now.max(at);
                    self.nodes[n].router.tick(self.now);
                    self.drain(n);
                }
                _ => break,
            }
        }
        self.now = self.now.max(until);
    }

    pub fn run(&mut self, time: Duration) {
        self.run_until(self.now + time);
    }

    /// The connections between two nodes, by the end at `a`.
    pub fn connections(&self, a: usize, b: usize) -> Vec<End> {
        let between = |(end, pipe): &(&End, &Pipe)| end.0 == a && pipe.other.0 == b;
        self.pipes
            .iter()
            .filter(between)
            .map(|(end, _)| *end)
            .collect()
    }

    /// Breaks a connection: both ends learn of it, what is under way is lost.
    pub fn cut(&mut self, end: End) {
        let Some(pipe) = self.pipes.remove(&end) else {
            return;
        };
        self.pipes.remove(&pipe.other);
        for (n, conn) in [end, pipe.other] {
            self.nodes[n].router.disconnected(conn, self.now);
            self.drain(n);
        }
    }

    /// Lets a connection fall silent: only hold timers find out.
    pub fn silence(&mut self, end: End) {
        let Some(pipe) = self.pipes.get_mut(&end) else {
            return;
        };
        pipe.silent = true;
        let other = pipe.other;
        if let Some(pipe) = self.pipes.get_mut(&other) {
            pipe.silent = true;
        }
        self.drop_arrivals(|at| at == end || at == other);
    }

    fn drop_arrivals(&mut self, which: impl Fn(End) -> bool) {
        self.happens
            .retain(|_, h| !matches!(h, Happens::Arrive { at, .. } if which(*at)));
    }

    /// The process of a node dies: its connections break, its peers learn of it.
    pub fn kill(&mut self, n: usize) {
        self.nodes[n].dead = true;
        let ends: Vec<End> = self.pipes.keys().filter(|e| e.0 == n).copied().collect();
        for end in ends {
            let Some(pipe) = self.pipes.remove(&end) else {
                continue;
            };
            self.pipes.remove(&pipe.other);
            let (other, conn) = pipe.other;
            self.nodes[other].router.disconnected(conn, self.now);
            self.drain(other);
        }
        self.happens.retain(|_, h| match h {
            Happens::Attempt { from, .. } => from.0 != n,
            Happens::Arrive { at, .. } => at.0 != n,
        });
    }

    /// A dead node starts anew with this configuration and the peers that it had.
    pub fn revive(&mut self, n: usize, config: Config) {
        let old = std::mem::replace(&mut self.nodes[n].router, Router::new(config, self.now));
        let peers: Vec<_> = self.nodes[n].peers.keys().copied().collect();
        for id in peers {
            let config = old.peer_config(id).expect("it had the peer").clone();
            let again = self.nodes[n].router.add_peer(config, self.now);
            assert_eq!(id, again, "peers are numbered in order");
        }
        self.nodes[n].dead = false;
        self.drain(n);
    }

    /// Calls a router and does what it wants done.
    pub fn with<T>(&mut self, n: usize, f: impl FnOnce(&mut Router, Instant) -> T) -> T {
        let t = f(&mut self.nodes[n].router, self.now);
        self.drain(n);
        t
    }

    /// Whether all sessions are up.
    pub fn all_up(&self) -> bool {
        self.nodes.iter().all(|n| {
            n.router
                .peers()
                .all(|p| p.state == bgp::fsm::State::Established)
        })
    }

    /// Runs until `done`, or fails after `most`.
    pub fn until(&mut self, most: Duration, what: &str, mut done: impl FnMut(&Self) -> bool) {
        let end = self.now + most;
        while !done(self) {
            if self.now >= end {
                let down: Vec<_> = (0..self.nodes.len())
                    .flat_map(|n| self.nodes[n].router.peers().map(move |p| (n, p)))
                    .filter(|(_, p)| p.state != bgp::fsm::State::Established)
                    .collect();
                panic!("{what}: not within {most:?}; not up: {down:#?}");
            }
            self.run(Duration::from_millis(50));
        }
    }
}

pub fn v6_of(a: IpAddr) -> IpAddr {
    match a {
        IpAddr::V4(a) => IpAddr::V6(std::net::Ipv6Addr::from_bits(
            0xfd00 << 112 | u128::from(a.to_bits()),
        )),
        v6 => v6,
    }
}
