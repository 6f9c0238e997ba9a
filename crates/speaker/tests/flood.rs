//! One peer says all it can, one takes nothing: the third has its routes and its session all the
//! while, and memory is bounded. Wants root.
#![expect(clippy::unwrap_used, reason = "tests")]

mod foreign;
mod support;

use bgp::fsm::State;
use foreign::ours::{everything, in_use, status};
use foreign::raw::{KEEPALIVE, Opening, Raw, UPDATE, hex, message, update};
use model::{Beyond, MaxPrefixes, Update};
use net::Family;
use std::io::Write;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use support::{Ours, Wire, peer_with, run, settings, until, world};

const US: &str = "10.0.0.1";
const AS: u16 = 65100;
/// So many prefixes are taken of the one who floods.
const LIMIT: u32 = 20_000;
/// So many it tells of, over and over.
const FLOOD: u32 = 200_000;
/// The shortest hold time that there is.
const HOLD: u16 = 3;

fn at(i: u8) -> String {
    format!("10.0.0.{}", 100 + i)
}

fn opening(i: u8, hold: u16) -> Opening {
    let mut open = Opening::new(AS + u16::from(i), [10, 0, 0, 100 + i]);
    open.hold = hold;
    open
}

fn attributes(i: u8, med: u32) -> Vec<u8> {
    let mut out = hex("40 01 01 00 40 02 06 02 01 0000");
    out.extend((AS + u16::from(i)).to_be_bytes());
    out.extend(hex("40 03 04 0a0000"));
    out.push(100 + i);
    out.extend(hex("80 04 04"));
    out.extend(med.to_be_bytes());
    out
}

/// UPDATEs of many prefixes, as full as they can be.
fn torrent(med: u32) -> Vec<u8> {
    let all: Vec<u32> = (0..FLOOD).collect();
    let each = all.chunks(790).map(|some| {
        let mut routes = Vec::new();
        for n in some {
            routes.push(32);
            routes.extend(Ipv4Addr::from(0x0b00_0000 + n).octets());
        }
        update(&[], &attributes(0, med), &routes)
    });
    each.collect::<Vec<_>>().concat()
}

/// Octets that this process has in memory.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|l| l.starts_with("VmRSS:")).unwrap();
    let kilo: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kilo << 10
}

/// Something that goes on until it is told to stop.
struct Until {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Until {
    fn told(work: impl FnOnce(&AtomicBool) + Send + 'static) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let told = stop.clone();
        let thread = std::thread::spawn(move || work(&told));
        Self {
            stop,
            thread: Some(thread),
        }
    }
}

impl Drop for Until {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            if !std::thread::panicking() {
                ended.unwrap();
            }
        }
    }
}

/// A KEEPALIVE in every second.
fn keep_alive(raw: &Raw) -> Until {
    let mut stream = raw.stream();
    Until::told(move |stop| {
        while !stop.load(Ordering::Relaxed) {
            let _ = stream.write_all(&message(KEEPALIVE, &[]));
            std::thread::park_timeout(Duration::from_secs(1));
        }
    })
}

/// Three peers, of which the first is taken so many prefixes of.
fn three() -> (Wire, Ours) {
    let wire = Wire::new();
    let mut all: Vec<Update> = world();
    all.push(everything("all", Vec::new()));
    for i in 0..3 {
        run(
            &wire.there,
            "ip",
            &format!("addr add {}/24 dev eth0", at(i)),
        );
        let asn = u32::from(AS) + u32::from(i);
        let change = |p: &mut model::BgpPeer| {
            p.filters = vec!["all".into()];
            p.max_prefixes = (i == 0).then_some(MaxPrefixes {
                count: LIMIT,
                beyond: Beyond::Discard,
            });
        };
        all.push(peer_with(&at(i), &at(i), asn, change));
    }
    let ours = Ours::start(&wire.here, settings(), all);
    ours.states();
    (wire, ours)
}

#[test]
fn who_floods_and_who_does_not_read_starve_nobody() {
    let (wire, ours) = three();
    let mut flooding = Raw::insist(&wire.there, &at(0), US, &opening(0, 180));
    let deaf = Raw::insist(&wire.there, &at(1), US, &opening(1, 180));
    let mut third = Raw::insist(&wire.there, &at(2), US, &opening(2, HOLD));
    let _deaf = keep_alive(&deaf);
    let _third = keep_alive(&third);
    let since = status(&ours, &at(2)).since;
    assert!(since.is_some());
    let torrents = [torrent(1), torrent(2)];
    let before = resident();
    let poured = Arc::new(AtomicU64::new(0));
    let count = poured.clone();
    let flood = Until::told(move |stop| {
        for torrent in torrents.iter().cycle() {
            for piece in torrent.chunks(1 << 16) {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                flooding.send(piece);
                count.fetch_add(piece.len() as u64, Ordering::Relaxed);
            }
        }
    });
    until(
        "a full table",
        || in_use(&ours, Family::V4),
        |n| *n >= LIMIT as usize,
    );
    // For several hold times: what the third tells is there soon, and what it is told comes.
    let begun = Instant::now();
    let (mut rounds, mut slowest, mut most) = (0_u32, Duration::ZERO, 0);
    while begun.elapsed() < 3 * Duration::from_secs(HOLD.into()) {
        rounds += 1;
        let prefix = format!("192.0.2.{}", rounds % 250);
        let mut route = vec![32];
        route.extend(prefix.parse::<Ipv4Addr>().unwrap().octets());
        let told = Instant::now();
        third.send(&update(&[], &attributes(2, rounds), &route));
        ours.learns(&format!("{prefix}/32"));
        third.send(&update(&route, &[], &[]));
        ours.forgets(&format!("{prefix}/32"));
        third.until(UPDATE);
        slowest = slowest.max(told.elapsed());
        most = most.max(resident());
    }
    // The flooding end is closed with its thread.
    let bound = status(&ours, &at(0));
    drop(flood);
    assert!(rounds >= 5, "{rounds} rounds, the slowest of {slowest:?}");
    assert!(slowest < Duration::from_secs(5), "{slowest:?}");
    // It is the same session, though it would have ended had it been starved for its hold time.
    let now = status(&ours, &at(2));
    assert_eq!((now.state, now.since), (State::Established, since));
    assert_eq!((bound.state, bound.paths.v4), (State::Established, LIMIT));
    assert_eq!(status(&ours, &at(1)).state, State::Established);
    let poured = poured.load(Ordering::Relaxed);
    let grown = most.saturating_sub(before);
    assert!(poured > 4 << 20, "only {poured} octets went through");
    assert!(grown < 96 << 20, "{grown} octets more for {poured} poured");
}
