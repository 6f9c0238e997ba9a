//! Large tables.

use super::*;
use crate::foreign::THEM;
use crate::foreign::ours::{in_use, reset};
use crate::support::peer_with;
use net::Family;

/// So many prefixes.
pub const MANY: u32 = 100_000;
/// So many of them go and come.
pub const SOME: u32 = 20_000;

/// Prefixes as octets, from a block of addresses on.
fn nth(from: u32, n: u32) -> String {
    format!("18 {:06x}", from + n)
}

/// Tells them all through a session.
pub fn announce(raw: &mut Raw, (at, asn): (&str, u16), from: u32, count: u32) {
    let all: Vec<u32> = (0..count).collect();
    for some in all.chunks(500) {
        let routes: String = some.iter().map(|n| nth(from, *n)).collect();
        raw.send(&update(&[], &octets(asn, at, ""), &hex(&routes)));
    }
}

pub fn withdraw(raw: &mut Raw, from: u32, count: u32) {
    let all: Vec<u32> = (0..count).collect();
    for some in all.chunks(500) {
        let routes: String = some.iter().map(|n| nth(from, *n)).collect();
        raw.send(&update(&hex(&routes), &[], &[]));
    }
}

/// We tell them a large table; a part of it goes and comes, all of it after a new session, and all
/// goes with the end of whoever told it.
pub fn a_large_table_of_ours_comes_and_goes<S: Stranger>() {
    const ONE: (&str, u16) = ("10.0.0.21", 65021);
    let wire = Wire::new();
    run(&wire.there, "ip", "addr add 10.0.0.21/24 dev eth0");
    let them = S::start(&wire.there, &Side::of(65001));
    let mut all = peers(65001, |_| {});
    all.push(peer_with("feeder", ONE.0, ONE.1.into(), |p| {
        p.restart = Some(0)
    }));
    let ours = Ours::start(&wire.here, settings(), all);
    tune(&ours, impatient);
    them.established();
    let mut raw = feeder(&wire, ONE, US[0]);
    let has = |when: &str, n: u32| {
        let n = n as usize + 1;
        until(
            &format!("{when}: {n} there"),
            || them.count(),
            |c| *c == Some(n),
        );
    };
    announce(&mut raw, ONE, 0x14_0000, MANY);
    has("told", MANY);
    withdraw(&mut raw, 0x14_0000, SOME);
    has("partly withdrawn", MANY - SOME);
    announce(&mut raw, ONE, 0x14_0000, SOME);
    has("told again", MANY);
    them.reset();
    until("down", || them.count(), |c| *c != Some(MANY as usize + 1));
    has("after a new session", MANY);
    drop(raw);
    has("who told them is gone", 0);
    assert_eq!(in_use(&ours, Family::V4), 1);
}

/// They tell us a large table of somebody else's.
pub fn a_large_table_of_theirs_comes_and_goes<S: Stranger>() {
    const ONE: (&str, u16) = ("10.0.0.31", 65031);
    let mut side = Side::of(65001);
    side.feeders.push(ONE);
    let (wire, _them, ours) = up::<S>(&side);
    let mut raw = feeder(&wire, ONE, THEM[0].1);
    let has = |when: &str, n: u32| {
        let n = n as usize + 1;
        until(
            &format!("{when}: {n} here"),
            || in_use(&ours, Family::V4),
            |c| *c == n,
        );
    };
    announce(&mut raw, ONE, 0x28_0000, MANY);
    has("told", MANY);
    withdraw(&mut raw, 0x28_0000, SOME);
    has("partly withdrawn", MANY - SOME);
    announce(&mut raw, ONE, 0x28_0000, SOME);
    has("told again", MANY);
    let before = std::time::Instant::now();
    reset(&ours);
    let again = || ours.since();
    until("a new session", again, |s| {
        s.iter()
            .filter(|(_, t)| t.is_some_and(|t| t > before))
            .count()
            == 2
    });
    has("after a new session", MANY);
    drop(raw);
    has("who told them is gone", 0);
}
