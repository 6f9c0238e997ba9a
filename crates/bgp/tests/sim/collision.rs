//! A connection that comes while a session is up: which of the two lives, by who is greater, how old
//! the session is, and whether it would outlive its connection.

use bgp::caps::{Capability, GracefulRestart, RestartFamily};
use bgp::error::Code;
use bgp::fsm::{Side, State};
use bgp::message::Open;
use bgp::peer::PeerConfig;
use bgp::rib::PeerId;
use bgp::router::{Config, ConnId, Event, Output, Router};
use bgp::types::{AfiSafi, RouterId};
use bgp::{Asn, wire};
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

const OURS: u32 = 100;

struct Pair {
    router: Router,
    peer: PeerId,
    now: Instant,
    /// Connections that were closed, and what was said last.
    closed: Vec<(ConnId, Vec<u8>)>,
    dialled: Option<ConnId>,
    sessions: usize,
}

const fn local() -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1))
}

impl Pair {
    fn new() -> Self {
        let now = Instant::now();
        let mut router = Router::new(Config::new(Asn(1), RouterId(OURS), 7), now);
        let mut peer = PeerConfig::new(Ipv4Addr::new(10, 0, 0, 2).into(), Asn(1));
        peer.restart = Some(bgp::peer::Restart::default());
        let peer = router.add_peer(peer, now);
        let mut this = Self {
            router,
            peer,
            now,
            closed: Vec::new(),
            dialled: None,
            sessions: 0,
        };
        this.drain();
        this
    }

    fn drain(&mut self) {
        while let Some(output) = self.router.poll(self.now) {
            match output {
                Output::Connect { conn, .. } => self.dialled = Some(conn),
                Output::Close { conn, last } => self.closed.push((conn, last.to_vec())),
                Output::Send { conn } => {
                    let mut out = Vec::new();
                    while self.router.pull(conn, 4096, &mut out, self.now) {}
                }
                Output::Event(Event::State {
                    to: State::Established,
                    ..
                }) => {
                    self.sessions += 1;
                }
                _ => {}
            }
        }
    }

    fn hear(&mut self, conn: ConnId, id: u32, keeps: bool) {
        let mut capabilities = vec![Capability::MultiProtocol(AfiSafi::IPV4_UNICAST)];
        if keeps {
            capabilities.push(Capability::GracefulRestart(GracefulRestart {
                restarting: false,
                notification: false,
                time: 120,
                families: vec![RestartFamily {
                    family: AfiSafi::IPV4_UNICAST,
                    forwarding: true,
                }],
            }));
        }
        let open = Open {
            asn: Asn(1),
            hold_time: 240,
            router_id: RouterId(id),
            capabilities,
        };
        let mut octets = Vec::new();
        assert!(wire::write_open(&open, &mut octets).is_ok());
        wire::write_keepalive(&mut octets);
        self.router.received(conn, &octets, self.now);
        self.drain();
    }
}

/// We have called and the session is up; after `age` the peer calls. Which connection lives, and what
/// the other was told.
fn second(id: u32, keeps: bool, age: Duration) -> (Side, Option<Code>) {
    let mut p = Pair::new();
    let first = p.dialled.unwrap_or_else(|| panic!("we call"));
    p.router.connected(first, local(), p.now);
    p.drain();
    p.hear(first, id, keeps);
    assert_eq!((p.sessions, p.closed.len()), (1, 0));
    p.now += age;
    let conn = p.router.accepted(p.peer, local(), p.now);
    p.drain();
    let conn = conn.unwrap_or_else(|| panic!("it is let in until it has said who it is"));
    p.hear(conn, id, keeps);
    let status = p.router.peer_status(p.peer);
    assert_eq!(status.map(|s| s.state), Some(State::Established));
    let [(gone, last)] = &p.closed[..] else {
        panic!("one of them is closed: {:?}", p.closed);
    };
    let code = last.get(19..21).map(|c| Code {
        code: c[0],
        subcode: c[1],
    });
    let lives = if *gone == first {
        Side::Theirs
    } else {
        Side::Ours
    };
    (lives, code)
}

#[test]
fn a_young_session_and_a_second_connection_collide() {
    let (young, old) = (Duration::from_secs(1), Duration::from_secs(11));
    let (less, greater) = (OURS - 1, OURS + 1);
    for (id, keeps, age, lives) in [
        // The two sides may have seen them in another order: the greater identifier's lives.
        (less, false, young, Side::Ours),
        (less, true, young, Side::Ours),
        (greater, false, young, Side::Theirs),
        (greater, true, young, Side::Theirs),
        // Later it is a second one that nobody needs,
        (less, false, old, Side::Ours),
        (greater, false, old, Side::Ours),
        // unless the peer has come back before its end was seen (RFC 4724, section 4.2).
        (less, true, old, Side::Theirs),
        (greater, true, old, Side::Theirs),
    ] {
        let what = format!("{id} {keeps} {age:?}");
        let (lived, said) = second(id, keeps, age);
        assert_eq!(lived, lives, "{what}");
        // The dead one of a peer that came back hears nothing.
        let silent = keeps && age == old;
        assert_eq!(said, (!silent).then_some(Code::COLLISION), "{what}");
    }
}
