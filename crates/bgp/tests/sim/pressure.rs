//! Peers that do not read, and how much is made for them.

use crate::routes::own;
use bgp::attr::{AsPath, Attributes, NextHop};
use bgp::caps::{Capability, Decoding, Encoding};
use bgp::message::{Message, Open, RefreshSubtype, RouteRefresh};
use bgp::peer::PeerConfig;
use bgp::rib::PeerId;
use bgp::router::{Config, ConnId, Output, Router};
use bgp::types::{AfiSafi, PerFamily, RouterId};
use bgp::{Asn, Cidr, Family, wire};
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

const LIMIT: usize = 4096;

struct Peer {
    conn: ConnId,
    got: BTreeSet<Cidr>,
    octets: Vec<u8>,
    updates: usize,
    /// Marks of refreshes, and what was known when each came.
    marks: Vec<(RefreshSubtype, usize)>,
}

fn router(now: Instant) -> Router {
    let mut config = Config::new(Asn(1), RouterId(1), 3);
    config.queue_limit = LIMIT;
    Router::new(config, now)
}

fn up(r: &mut Router, n: u32, now: Instant) -> Peer {
    let mut config = PeerConfig::new(Ipv4Addr::from_bits(0x0a00_0000 + n).into(), Asn(2));
    config.passive = true;
    let id: PeerId = r.add_peer(config, now);
    let local = Ipv4Addr::new(10, 9, 9, 9).into();
    let conn = r.accepted(id, local, now).expect("it is waited for");
    let open = Open {
        asn: Asn(2),
        hold_time: 0,
        router_id: RouterId(10 + n),
        capabilities: vec![
            Capability::MultiProtocol(AfiSafi::IPV4_UNICAST),
            Capability::FourOctetAs(Asn(2)),
            Capability::RouteRefresh,
            Capability::EnhancedRouteRefresh,
        ],
    };
    let mut octets = Vec::new();
    wire::write_open(&open, &mut octets).expect("fits");
    wire::write_keepalive(&mut octets);
    r.received(conn, &octets, now);
    Peer {
        conn,
        got: BTreeSet::new(),
        octets: Vec::new(),
        updates: 0,
        marks: Vec::new(),
    }
}

/// As a loop over sockets does: what is due at once is done in the next round.
fn settle(r: &mut Router, now: Instant) {
    loop {
        while let Some(output) = r.poll(now) {
            if output == Output::Routes {
                while r.take_routes(1000, |_| {}) {}
            }
        }
        if r.deadline().is_none_or(|at| at > now) {
            return;
        }
        r.tick(now);
    }
}

/// Reads up to `max` octets' worth; what it then knows.
fn read(r: &mut Router, p: &mut Peer, max: usize, now: Instant) -> usize {
    let mut out = Vec::new();
    r.pull(p.conn, max, &mut out, now);
    let taken: Vec<u8> = out.concat();
    p.octets.extend_from_slice(&taken);
    let how = Decoding {
        four_octet_as: true,
        families: PerFamily {
            v4: true,
            v6: false,
        },
        ..Decoding::default()
    };
    while let Some(len) = wire::frame_len(&p.octets, false).expect("well formed") {
        let message: Vec<u8> = p.octets.drain(..len).collect();
        let message = wire::read(&message, &how).expect("well formed");
        if let Message::RouteRefresh(refresh) = &message {
            p.marks.push((refresh.subtype, p.got.len()));
        }
        if let Message::Update(u) = message {
            p.updates += 1;
            for n in u.withdrawn.iter().flat_map(|b| b.iter()) {
                p.got.remove(&n.prefix);
            }
            p.got.extend(
                u.announced
                    .iter()
                    .flat_map(|a| a.nlri.iter())
                    .map(|n| n.prefix),
            );
        }
    }
    settle(r, now);
    taken.len()
}

fn prefix(i: u32) -> Cidr {
    Cidr::new(Ipv4Addr::from_bits(0x0b00_0000 + (i << 8)).into(), 24).expect("fits")
}

fn announce(r: &mut Router, range: std::ops::Range<u32>) {
    for i in range {
        r.announce(prefix(i), own(prefix(i)));
    }
}

#[test]
fn nothing_is_made_for_who_does_not_read() {
    let now = Instant::now();
    let mut r = router(now);
    let mut p = up(&mut r, 1, now);
    settle(&mut r, now);
    announce(&mut r, 0..50_000);
    settle(&mut r, now);
    let before = r
        .peer_status(p.conn.peer)
        .expect("there")
        .counters
        .octets_sent;
    // One batch is made beyond the limit at most, whatever changes.
    for round in 0..20 {
        for i in 0..50_000 {
            if i % 20 == round {
                r.withdraw(prefix(i));
                r.announce(prefix(i), own(prefix(i)));
            }
        }
        settle(&mut r, now);
    }
    let mut taken = 0;
    let mut out = Vec::new();
    while r.pull(p.conn, 1000, &mut out, now) {}
    taken += out.iter().map(bytes::Bytes::len).sum::<usize>();
    assert!(taken < LIMIT + 8192 * 8, "{taken} octets were waiting");
    p.octets = out.concat();
    settle(&mut r, now);
    while read(&mut r, &mut p, 100_000, now) > 0 {}
    assert_eq!(p.got.len(), 50_000);
    assert_eq!(before, 0);
}

#[test]
fn a_slow_peer_holds_others_up_for_a_second_and_ends_up_with_the_same() {
    let mut now = Instant::now();
    let mut r = router(now);
    let mut quick = up(&mut r, 1, now);
    let mut slow = up(&mut r, 2, now);
    settle(&mut r, now);
    for p in [&mut quick, &mut slow] {
        read(&mut r, p, 10_000, now);
    }
    assert_eq!(r.size().groups, 1);
    announce(&mut r, 0..40_000);
    settle(&mut r, now);
    while read(&mut r, &mut quick, 10_000, now) > 0 {}
    assert!(quick.got.len() < 40_000, "the slow one is waited for");
    let deadline = r.deadline().expect("the wait ends");
    assert!(deadline <= now + Duration::from_secs(1));
    now = deadline;
    r.tick(now);
    settle(&mut r, now);
    while read(&mut r, &mut quick, 10_000, now) > 0 {}
    assert_eq!(quick.got.len(), 40_000);
    assert_eq!(r.size().groups, 2);
    for i in 0..1000 {
        r.withdraw(prefix(i));
    }
    settle(&mut r, now);
    while read(&mut r, &mut quick, 10_000, now) > 0 {}
    while read(&mut r, &mut slow, 10_000, now) > 0 {}
    assert_eq!(quick.got, slow.got);
    assert_eq!(slow.got.len(), 39_000);
    settle(&mut r, now);
    assert_eq!(r.size().groups, 1, "they are told the same again");
    assert_eq!(r.size().known, 39_000);
}

#[test]
fn a_peer_that_takes_nothing_for_long_is_given_up() {
    let now = Instant::now();
    let mut r = router(now);
    let p = up(&mut r, 1, now);
    settle(&mut r, now);
    announce(&mut r, 0..10);
    settle(&mut r, now);
    let at = now + Duration::from_secs(480);
    while let Some(next) = r.deadline().filter(|d| *d < at) {
        r.tick(next);
        assert!(r.poll(next).is_none(), "it has its time");
    }
    assert_eq!(r.deadline(), Some(at));
    r.tick(at);
    let closed = std::iter::from_fn(|| r.poll(at))
        .any(|o| matches!(o, Output::Close { conn, .. } if conn == p.conn));
    assert!(closed);
}

#[test]
fn prefixes_of_one_kind_share_messages() {
    let now = Instant::now();
    let mut r = router(now);
    let mut p = up(&mut r, 1, now);
    settle(&mut r, now);
    read(&mut r, &mut p, 10_000, now);
    let before = p.updates;
    announce(&mut r, 0..2000);
    settle(&mut r, now);
    while read(&mut r, &mut p, 10_000, now) > 0 {}
    assert_eq!((p.got.len(), p.updates - before), (2000, 2));
    assert_eq!(r.routes(Family::V4).count(), 2000);
}

/// UPDATEs that announce these.
fn update(range: std::ops::Range<u32>) -> Vec<u8> {
    let how = Encoding {
        four_octet_as: true,
        ..Encoding::default()
    };
    let hop: IpAddr = Ipv4Addr::new(10, 0, 0, 1).into();
    let mut a = Attributes::new(NextHop::from(hop));
    a.as_path = AsPath::sequence([Asn(2)]);
    let block = wire::AttributeBlock::new(Family::V4, &a, &how).expect("fits");
    let mut out = Vec::new();
    block.write_all(range.map(|i| prefix(i).into()), &mut out);
    out
}

fn mark(subtype: RefreshSubtype) -> Vec<u8> {
    let mut out = Vec::new();
    let family = AfiSafi::IPV4_UNICAST;
    wire::write_refresh(RouteRefresh { family, subtype }, &mut out);
    out
}

#[test]
fn a_marked_refresh_ends_what_it_does_not_bring() {
    let now = Instant::now();
    let mut r = router(now);
    let p = up(&mut r, 1, now);
    let mut hear = |octets: &[u8]| {
        r.received(p.conn, octets, now);
        settle(&mut r, now);
        r.size().paths
    };
    assert_eq!(hear(&update(0..10)), 10);
    assert_eq!(hear(&mark(RefreshSubtype::End)), 10, "nothing has begun");
    assert_eq!(hear(&mark(RefreshSubtype::Begin)), 10);
    assert_eq!(hear(&update(3..12)), 12);
    assert_eq!(hear(&mark(RefreshSubtype::End)), 9);
    assert_eq!(hear(&mark(RefreshSubtype::End)), 9);
}

#[test]
fn a_refresh_is_answered_between_its_marks() {
    let now = Instant::now();
    let mut r = router(now);
    let mut p = up(&mut r, 1, now);
    announce(&mut r, 0..5000);
    settle(&mut r, now);
    while read(&mut r, &mut p, 10_000, now) > 0 {}
    assert_eq!(p.got.len(), 5000);
    p.got.clear();
    p.marks.clear();
    r.received(p.conn, &mark(RefreshSubtype::Request), now);
    settle(&mut r, now);
    while read(&mut r, &mut p, 10_000, now) > 0 {}
    assert_eq!(
        p.marks,
        [(RefreshSubtype::Begin, 0), (RefreshSubtype::End, 5000)]
    );
}

#[test]
fn what_the_router_is_can_change() {
    let now = Instant::now();
    let mut r = router(now);
    let p = up(&mut r, 1, now);
    r.received(p.conn, &update(0..10), now);
    settle(&mut r, now);
    let mut config = r.config().clone();
    config.multipath = 4;
    r.configure(config.clone(), now);
    assert_eq!(r.size().paths, 10, "no reason to end a session");
    let mut told = 0;
    while r.take_routes(100, |_| told += 1) {}
    assert_eq!(told, 10);
    config.router_id = RouterId(77);
    r.configure(config, now);
    let closed = std::iter::from_fn(|| r.poll(now))
        .any(|o| matches!(o, Output::Close { conn, .. } if conn == p.conn));
    assert!(closed && r.size().paths == 0);
}

#[test]
fn who_goes_without_having_read_leaves_no_prefix_behind() {
    let now = Instant::now();
    let mut r = router(now);
    let p = up(&mut r, 1, now);
    settle(&mut r, now);
    announce(&mut r, 0..20_000);
    settle(&mut r, now);
    for i in 0..20_000 {
        r.withdraw(prefix(i));
    }
    settle(&mut r, now);
    // It would have to be told of their end.
    assert!(r.size().known > 0);
    r.disconnected(p.conn, now);
    settle(&mut r, now);
    assert_eq!(r.size().known, 0);
}
