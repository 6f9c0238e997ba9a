//! Anything at any time: one router, peers that say what they like.
//!
//! Nothing may panic, and when all peers are gone nothing of them may be left.

use crate::net::Rng;
use crate::routes::own;
use bgp::attr::{AsPath, Attributes, NextHop};
use bgp::caps::{AddPath, Capability, Encoding, GracefulRestart, LongLived, RestartFamily};
use bgp::error::{Code, Notification};
use bgp::fsm::State;
use bgp::message::{Open, RefreshSubtype, RouteRefresh};
use bgp::peer::{AddPathSend, LimitAction, PeerConfig, PrefixLimit, Restart};
use bgp::rib::PeerId;
use bgp::router::{Config, ConnId, Event, Output, Restarting, Router};
use bgp::types::{AfiSafi, Nlri, PathId, PerFamily, RouterId};
use bgp::{Asn, Cidr, Family, wire};
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

fn address(n: usize) -> IpAddr {
    Ipv4Addr::from_bits(0x0a00_0000 + n as u32).into()
}

fn prefix(rng: &mut Rng) -> Cidr {
    let family = Family::BOTH[rng.below(2)];
    let bits = (11 + rng.below(12) as u128) << (family.bits() - 8);
    Cidr::new(family.addr(bits), 8).expect("fits")
}

fn config(rng: &mut Rng, n: usize) -> PeerConfig {
    let mut c = PeerConfig::new(address(n), Asn([1, 2, 2][rng.below(3)]));
    c.families = PerFamily { v4: true, v6: true };
    c.own_address.v6 = Some("fd00::9".parse().expect("an address"));
    c.passive = rng.chance(30);
    c.client = rng.chance(50);
    c.timers.hold = [0, 3, 90][rng.below(3)];
    c.timers.delay_open = Duration::from_secs([0, 0, 5][rng.below(3)]);
    c.add_path_receive = rng.chance(30);
    c.add_path_send = [AddPathSend::No, AddPathSend::All, AddPathSend::Best(2)][rng.below(3)];
    c.limit.v4 = rng.chance(20).then(|| PrefixLimit {
        max: 3,
        warn_at: 2,
        action: [
            LimitAction::Warn,
            LimitAction::Discard,
            LimitAction::Teardown(None),
            LimitAction::Teardown(Some(Duration::from_secs(9))),
        ][rng.below(4)],
    });
    c.restart = rng.chance(60).then(|| Restart {
        time: Duration::from_secs(20),
        stale_time: Duration::from_secs(30),
        notification: rng.chance(50),
        long_lived: rng.chance(50).then_some(Duration::from_secs(30)),
    });
    c
}

fn open(rng: &mut Rng, expected: Option<Asn>) -> Open {
    let families = [AfiSafi::IPV4_UNICAST, AfiSafi::IPV6_UNICAST];
    let mut capabilities: Vec<_> = families.map(Capability::MultiProtocol).to_vec();
    let asn = expected
        .filter(|_| rng.chance(95))
        .unwrap_or(Asn([1, 2, 3][rng.below(3)]));
    capabilities.push(Capability::FourOctetAs(asn));
    let forwarding = rng.chance(70);
    if rng.chance(60) {
        capabilities.push(Capability::GracefulRestart(GracefulRestart {
            restarting: rng.chance(30),
            notification: rng.chance(50),
            time: 10,
            families: families
                .map(|family| RestartFamily { family, forwarding })
                .to_vec(),
        }));
        capabilities.push(Capability::LongLivedGracefulRestart(
            families
                .map(|family| LongLived {
                    family,
                    forwarding,
                    stale_time: 15,
                })
                .to_vec(),
        ));
    }
    if rng.chance(40) {
        capabilities.push(Capability::AddPath(
            families
                .map(|family| AddPath {
                    family,
                    receive: true,
                    send: true,
                })
                .to_vec(),
        ));
    }
    if rng.chance(60) {
        capabilities.push(Capability::RouteRefresh);
        capabilities.push(Capability::EnhancedRouteRefresh);
    }
    Open {
        asn,
        hold_time: [0, 3, 90][rng.below(3)],
        router_id: RouterId(1 + rng.below(5) as u32),
        capabilities,
    }
}

/// One message; most fit the session, some do not.
fn message(rng: &mut Rng) -> Vec<u8> {
    let mut out = Vec::new();
    let how = Encoding {
        four_octet_as: true,
        add_path: if rng.chance(20) {
            PerFamily { v4: true, v6: true }
        } else {
            PerFamily::default()
        },
        ..Encoding::default()
    };
    let p = prefix(rng);
    let nlri = Nlri {
        prefix: p,
        path_id: PathId(rng.below(3) as u32),
    };
    match rng.below(60) {
        0 => wire::write_open(&open(rng, None), &mut out).expect("fits"),
        1..=10 => wire::write_keepalive(&mut out),
        11..=35 => {
            let hop: IpAddr = match p.family() {
                Family::V4 => address(rng.below(5)),
                Family::V6 => "fd00::7".parse().expect("an address"),
            };
            let mut a = Attributes::new(NextHop::from(hop));
            a.as_path = AsPath::sequence((0..rng.below(4)).map(|_| Asn(1 + rng.below(6) as u32)));
            a.med = rng.chance(50).then(|| rng.below(3) as u32);
            let block = wire::AttributeBlock::new(p.family(), &a, &how).expect("fits");
            block.write_all([nlri], &mut out);
        }
        36..=47 => {
            wire::write_withdrawals(p.family(), &how, [nlri], &mut out);
        }
        48..=50 => wire::write_end_of_rib(p.family(), &mut out),
        51..=57 => {
            let subtype = RefreshSubtype::from_u8(rng.below(4) as u8);
            let family = AfiSafi::unicast(p.family());
            wire::write_refresh(RouteRefresh { family, subtype }, &mut out);
        }
        58 => {
            let code = [Code::CEASE, Code::HARD_RESET, Code::COLLISION][rng.below(3)];
            wire::write_notification(&Notification::from(code), &mut out);
        }
        _ => {
            wire::write_keepalive(&mut out);
            let at = rng.below(out.len());
            out[at] ^= 1 << rng.below(8);
        }
    }
    out
}

struct Noise {
    router: Router,
    rng: Rng,
    now: Instant,
    peers: Vec<PeerId>,
    conns: Vec<ConnId>,
    /// Sessions that came up, and routes that were taken.
    seen: (usize, usize),
}

impl Noise {
    fn drain(&mut self) {
        while let Some(output) = self.router.poll(self.now) {
            match output {
                Output::Connect { conn, .. } => self.conns.push(conn),
                Output::Send { conn } if self.rng.chance(80) => {
                    let mut out = Vec::new();
                    while self.router.pull(conn, 100, &mut out, self.now) {}
                }
                Output::Routes => while self.router.take_routes(2, |_| self.seen.1 += 1) {},
                Output::Event(Event::State {
                    to: State::Established,
                    ..
                }) => self.seen.0 += 1,
                _ => {}
            }
        }
    }

    fn step(&mut self) {
        // Old ones are mostly gone; some calls for those shall stay among the others.
        let old = self.conns.len().saturating_sub(5);
        self.conns.drain(..old);
        let rng = &mut self.rng;
        let peer = self.peers.get(rng.below(self.peers.len())).copied();
        let conn = self.conns.get(rng.below(self.conns.len())).copied();
        let (r, now) = (&mut self.router, self.now);
        match (rng.below(40), peer, conn) {
            (0..=2, Some(peer), _) => {
                let local = address(9);
                self.conns.extend(r.accepted(peer, local, now));
            }
            (3..=5, _, Some(conn)) => r.connected(conn, address(9), now),
            (6, _, Some(conn)) => r.disconnected(conn, now),
            (7..=25, _, Some(conn)) => {
                // What brings a session up comes more often than chance would have it.
                let mut octets = Vec::new();
                let asn = r.peer_config(conn.peer).and_then(|c| c.asn);
                if rng.chance(10) {
                    wire::write_open(&open(rng, asn), &mut octets).expect("fits");
                    wire::write_keepalive(&mut octets);
                }
                octets.extend(message(rng));
                let cut = rng.below(octets.len() + 1);
                r.received(conn, &octets[..cut], now);
                r.received(conn, &octets[cut..], now);
            }
            (26..=28, ..) => {
                self.now += Duration::from_millis(rng.below(8000) as u64);
                r.tick(self.now);
            }
            (29, ..) => {
                if let Some(at) = r.deadline() {
                    self.now = self.now.max(at);
                    r.tick(self.now);
                }
            }
            (30 | 31, ..) => {
                let p = prefix(rng);
                r.announce(p, own(p));
            }
            (32, ..) => r.withdraw(prefix(rng)),
            (33, Some(peer), _) => r.reset_peer(peer, "again", now),
            (34, Some(peer), _) => {
                let n = usize::from(peer.0);
                let c = config(rng, n);
                r.configure_peer(peer, c, now);
            }
            (35, Some(peer), _) => {
                r.remove_peer(peer, now);
                self.peers.retain(|p| *p != peer);
            }
            (36 | 37, ..) if self.peers.len() < 4 => {
                let c = config(rng, 20 + self.peers.len());
                self.peers.push(r.add_peer(c, now));
            }
            (38, Some(peer), _) => {
                r.request_refresh(peer, Family::V4, now);
            }
            (39, ..) => {
                let _ = r.explain(prefix(rng));
            }
            _ => {}
        }
        if self.rng.chance(60) {
            self.drain();
        }
    }
}

#[test]
fn nothing_panics_and_nothing_is_left_behind() {
    let now = Instant::now();
    let mut seen = (0, 0);
    for seed in 0..800 {
        let mut rng = Rng(seed);
        let mut config = Config::new(Asn(1), RouterId(3), seed);
        config.multipath = 1 + rng.below(3) as u16;
        config.restarting = rng.chance(20).then(|| Restarting {
            forwarding: PerFamily { v4: true, v6: true },
            kept: PerFamily {
                v4: true,
                v6: false,
            },
            deferral: Duration::from_secs(20),
            absent: Duration::from_secs(5),
        });
        let mut noise = Noise {
            router: Router::new(config, now),
            rng,
            now,
            peers: Vec::new(),
            conns: Vec::new(),
            seen: (0, 0),
        };
        for _ in 0..300 {
            noise.step();
        }
        for peer in std::mem::take(&mut noise.peers) {
            noise.router.remove_peer(peer, noise.now);
        }
        for p in (0..12u128).flat_map(|n| {
            Family::BOTH.map(|f| Cidr::new(f.addr((11 + n) << (f.bits() - 8)), 8).expect("fits"))
        }) {
            noise.router.withdraw(p);
        }
        noise.now += Duration::from_secs(100);
        noise.router.tick(noise.now);
        noise.drain();
        let size = noise.router.size();
        let left = (size.paths, size.known, size.attributes, size.groups);
        assert_eq!(left, (0, 0, 0, 0), "seed {seed}");
        seen.0 += noise.seen.0;
        seen.1 += noise.seen.1;
    }
    // It was not all noise.
    assert!(seen.0 > 500 && seen.1 > 10_000, "{seen:?}");
}
