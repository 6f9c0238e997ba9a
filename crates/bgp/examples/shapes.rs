//! How fast and how small a router is, in four shapes, without sockets.
//!
//! `cargo run --release -p bgp --example shapes [name]` prints for each shape how long it
//! took of a processor from the first octet of the peers until the last octet for whoever
//! listens was pulled, and what the tables take.

#![expect(clippy::print_stdout, reason = "figures are what it is for")]

use bgp::attr::{AsPath, Attributes, NextHop};
use bgp::caps::{Capability, Encoding};
use bgp::message::Open;
use bgp::peer::PeerConfig;
use bgp::router::{Config, ConnId, Output, Router};
use bgp::types::{AfiSafi, Nlri, RouterId};
use bgp::{Asn, Cidr, Family, wire};
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

const HOW: Encoding = Encoding {
    four_octet_as: true,
    extended_message: false,
    v4_over_v6: false,
    add_path: bgp::types::PerFamily {
        v4: false,
        v6: false,
    },
};

/// A router and the connections of its peers.
struct Bench {
    router: Router,
    now: Instant,
    conns: Vec<ConnId>,
    sent: Vec<usize>,
    scratch: Vec<bytes::Bytes>,
}

fn address(i: u32) -> IpAddr {
    Ipv4Addr::from_bits(0xac10_0000 + i).into()
}

impl Bench {
    fn new() -> Self {
        let now = Instant::now();
        let config = Config::new(Asn(64512), RouterId(1), 7);
        Self {
            router: Router::new(config, now),
            now,
            conns: Vec::new(),
            sent: Vec::new(),
            scratch: Vec::new(),
        }
    }

    /// A peer with its session up.
    fn peer(&mut self, asn: u32, client: bool) -> usize {
        let i = self.conns.len() as u32 + 1;
        let mut config = PeerConfig::new(address(i), Asn(asn));
        config.passive = true;
        config.client = client;
        let id = self.router.add_peer(config, self.now);
        let conn = self.connect(id, asn);
        self.conns.push(conn);
        self.sent.push(0);
        self.drain();
        self.conns.len() - 1
    }

    fn connect(&mut self, id: bgp::rib::PeerId, asn: u32) -> ConnId {
        let local = address(0xffff);
        let conn = self
            .router
            .accepted(id, local, self.now)
            .expect("it is waited for");
        let open = Open {
            asn: Asn(asn),
            hold_time: 90,
            router_id: RouterId(100 + u32::from(id.0)),
            capabilities: vec![
                Capability::MultiProtocol(AfiSafi::IPV4_UNICAST),
                Capability::FourOctetAs(Asn(asn)),
            ],
        };
        let mut octets = Vec::new();
        wire::write_open(&open, &mut octets).expect("fits");
        wire::write_keepalive(&mut octets);
        self.router.received(conn, &octets, self.now);
        conn
    }

    /// Takes all that is to be sent, as sockets that are never full.
    fn drain(&mut self) {
        loop {
            self.round();
            if self.router.deadline().is_none_or(|at| at > self.now) {
                return;
            }
            self.router.tick(self.now);
        }
    }

    /// What is to be done before the next tick.
    fn round(&mut self) {
        while let Some(output) = self.router.poll(self.now) {
            match output {
                Output::Send { conn } => {
                    let at = self.conns.iter().position(|c| *c == conn);
                    while self
                        .router
                        .pull(conn, 256 << 10, &mut self.scratch, self.now)
                    {}
                    let octets: usize = self.scratch.drain(..).map(|b| b.len()).sum();
                    if let Some(at) = at {
                        self.sent[at] += octets;
                    }
                }
                Output::Routes => while self.router.take_routes(10_000, |_| {}) {},
                _ => {}
            }
        }
    }

    /// Feeds streams side by side, as a loop over sockets would.
    fn feed(&mut self, streams: &[(usize, Vec<u8>)]) {
        const READ: usize = 64 << 10;
        let longest = streams.iter().map(|(_, s)| s.len()).max().unwrap_or(0);
        for at in (0..longest).step_by(READ) {
            for (peer, stream) in streams {
                if let Some(rest) = stream.get(at..) {
                    let part = &rest[..rest.len().min(READ)];
                    self.router.received(self.conns[*peer], part, self.now);
                }
            }
            self.drain();
        }
    }

    fn report(&self, shape: &str, what: &str, since: Duration) {
        let size = self.router.size();
        // Without a path there is nothing to divide by.
        let per_path = match size.paths {
            0 => 0.0,
            n => size.octets as f64 / n as f64,
        };
        let sent: usize = self.sent.iter().sum();
        println!(
            "{shape:28} {what:12} {:8.1} ms  {:8} paths {:7} sets  {:6.1} octets/path  \
             {:7.1} MB sent  {} groups  {:.1} MB resident",
            (busy() - since).as_secs_f64() * 1e3,
            size.paths,
            size.attributes,
            per_path,
            sent as f64 / 1e6,
            size.groups,
            resident() / 1e6,
        );
    }
}

/// The processor time of this process: other work on the machine does not count.
fn busy() -> Duration {
    let text = std::fs::read_to_string("/proc/self/schedstat").unwrap_or_default();
    let nanos = text.split(' ').next().and_then(|n| n.parse().ok());
    Duration::from_nanos(nanos.unwrap_or(0))
}

fn resident() -> f64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = text.split(' ').nth(1).and_then(|p| p.parse::<f64>().ok());
    pages.unwrap_or(0.0) * 4096.0
}

/// `count` /24s from number `from` on.
fn prefixes(from: u32, count: u32) -> impl Iterator<Item = Nlri> {
    (from..from + count).map(|n| {
        let addr = Ipv4Addr::from_bits((n + 0x1_0000) << 8);
        Cidr::new(addr.into(), 24).expect("fits").into()
    })
}

/// What a peer announces: `sets` distinct sets of attributes.
fn announce(peer: usize, asn: u32, from: u32, count: u32, sets: u32) -> Vec<u8> {
    let mut out = Vec::new();
    let each = count.div_ceil(sets);
    for set in 0..sets {
        let mut a = Attributes::new(NextHop::from(address(peer as u32 + 1)));
        let far = 100_000 + set;
        if asn != 64512 {
            a.as_path = AsPath::sequence([asn, 3356, far].map(Asn));
        } else {
            a.local_pref = Some(100);
            a.med = (set > 0).then_some(set);
        }
        let block = wire::AttributeBlock::new(Family::V4, &a, &HOW).expect("fits");
        let start = from + set * each;
        let left = (from + count).saturating_sub(start).min(each);
        block.write_all(prefixes(start, left), &mut out);
    }
    out
}

/// `peers` x `count` prefixes, those of each peer `step` after those of the one before, to
/// one monitor.
fn many(shape: &str, peers: u32, count: u32, sets: u32, step: u32) {
    let mut b = Bench::new();
    let monitor = b.peer(65000, false);
    let streams: Vec<_> = (0..peers)
        .map(|i| {
            let p = b.peer(65001 + i, false);
            (p, announce(p, 65001 + i, i * step, count, sets))
        })
        .collect();
    let start = busy();
    b.feed(&streams);
    b.report(shape, "monitored", start);
    let told = (peers - 1) * step + count;
    assert!(b.sent[monitor] > (told * 4) as usize);
    let p = streams[0].0;
    let start = busy();
    b.router.disconnected(b.conns[p], b.now);
    b.drain();
    b.report(shape, "peer down", start);
}

fn reflector() {
    let mut b = Bench::new();
    let streams: Vec<_> = (0..500)
        .map(|i| {
            let p = b.peer(64512, true);
            (p, announce(p, 64512, i * 64, 64, 1))
        })
        .collect();
    let start = busy();
    b.feed(&streams);
    b.report("reflector 500 x 64", "settled", start);
    let start = busy();
    b.router.disconnected(b.conns[7], b.now);
    b.drain();
    b.report("reflector 500 x 64", "client down", start);
    let start = busy();
    let id = b.conns[7].peer;
    b.conns[7] = b.connect(id, 64512);
    let part = [(7, streams[7].1.clone())];
    b.feed(&part);
    b.report("reflector 500 x 64", "client back", start);
}

fn one_peer() {
    let mut b = Bench::new();
    let p = b.peer(65001, false);
    let stream = [(p, announce(p, 65001, 0, 1_000_000, 10_000))];
    let start = busy();
    b.feed(&stream);
    b.report("one peer x 1,000,000", "learned", start);
    let mut out = Vec::new();
    wire::write_withdrawals(Family::V4, &HOW, prefixes(0, 1_000_000), &mut out);
    let start = busy();
    b.feed(&[(p, out)]);
    b.report("one peer x 1,000,000", "withdrawn", start);
}

fn main() {
    let name = std::env::args().nth(1);
    let wanted = |n: &str| name.as_deref().is_none_or(|w| w == n);
    if wanted("ten") {
        many("10 x 100,000", 10, 100_000, 1, 100_000);
        many("10 x 100,000, 20,000 sets", 10, 100_000, 20_000, 100_000);
        many("10 x the same 100,000", 10, 100_000, 20_000, 0);
    }
    if wanted("hundred") {
        many("100 x 20,000", 100, 20_000, 1, 20_000);
    }
    if wanted("reflector") {
        reflector();
    }
    if wanted("one") {
        one_peer();
    }
}
