//! Sessions over a clock of the test's.

use super::*;
use std::net::Ipv4Addr;

const MS: Duration = Duration::from_millis(1);
const US: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
const THEM: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2));
const NEAR: End = End {
    to: THEM,
    hops: BfdHops::Single,
};

fn wanted(ports: &[u16]) -> Wanted {
    Wanted {
        config: Config::default(),
        from: Some(US),
        ports: ports.to_vec(),
    }
}

fn table(now: Instant) -> Table<()> {
    let mut t = Table::new(1);
    t.begin(NEAR, wanted(&[179]), (), now);
    t
}

/// A neighbour's packet; `yours` is how it knows us.
fn packet(state: State, yours: u32) -> Packet {
    Packet {
        diagnostic: Diagnostic::None,
        state,
        poll: false,
        fin: false,
        independent: false,
        demand: false,
        multiplier: 3,
        mine: 9,
        yours,
        min_tx: 300 * MS,
        min_rx: 300 * MS,
        min_echo_rx: Duration::ZERO,
    }
}

fn hear(t: &mut Table<()>, p: &Packet, now: Instant) {
    let octets = p.encode();
    let heard = Heard {
        from: THEM,
        to: Some(US),
        ttl: 255,
        octets: &octets,
    };
    t.received(BfdHops::Single, &heard, now, |(), _, _| {});
}

fn state(t: &Table<()>) -> Option<State> {
    t.report(NEAR).map(|r| r.state)
}

fn up(t: &mut Table<()>, now: Instant) -> u32 {
    let mine = t.report(NEAR).unwrap().discriminator;
    hear(t, &packet(State::Down, 0), now);
    hear(t, &packet(State::Init, mine), now);
    let fin = Packet {
        fin: true,
        ..packet(State::Up, mine)
    };
    hear(t, &fin, now);
    assert_eq!(state(t), Some(State::Up));
    mine
}

/// What is sent until a time.
fn run(t: &mut Table<()>, until: Instant) -> Vec<Packet> {
    let mut out = Vec::new();
    while let Some(at) = t.deadline().filter(|at| *at <= until) {
        t.due(at, |(), end, octets| {
            assert_eq!(end, NEAR);
            out.push(Packet::decode(&octets).unwrap());
        });
    }
    out
}

#[test]
fn silence_is_a_failure_and_says_whose() {
    let now = Instant::now();
    let mut t = table(now);
    up(&mut t, now);
    run(&mut t, now + 899 * MS);
    assert_eq!(t.take_failed(), []);
    run(&mut t, now + 900 * MS);
    let failed = t.take_failed();
    assert_eq!((failed[0].to, &failed[0].ports[..]), (THEM, &[179][..]));
    assert_eq!(
        failed[0].why,
        "nothing heard for the detection time from 10.0.0.2"
    );
    assert!(t.take_failed().is_empty());
    // Down it stays, and that is no failure again.
    run(&mut t, now + 10_000 * MS);
    assert!(t.take_failed().is_empty());
    let r = t.report(NEAR).unwrap();
    assert_eq!((r.ups, r.failures, r.remote_discriminator), (1, 1, None));
}

#[test]
fn an_operators_down_is_none_and_the_neighbours_own_is() {
    for (theirs, diagnostic, expected) in [
        (State::AdminDown, Diagnostic::AdminDown, None),
        (
            State::Down,
            Diagnostic::Expired,
            Some("10.0.0.2 hears nothing of us"),
        ),
        (
            State::Down,
            Diagnostic::None,
            Some("10.0.0.2 has begun anew"),
        ),
    ] {
        let now = Instant::now();
        let mut t = table(now);
        let mine = up(&mut t, now);
        let p = Packet {
            diagnostic,
            independent: true,
            ..packet(theirs, mine)
        };
        hear(&mut t, &p, now);
        assert_eq!(state(&t), Some(State::Down));
        let failed = t.take_failed();
        assert_eq!(failed.first().map(|f| f.why.as_str()), expected);
        assert!(failed.iter().all(|f| f.independent));
        // Nor is its silence afterwards.
        run(&mut t, now + 10_000 * MS);
        assert!(t.take_failed().is_empty());
    }
}

#[test]
fn what_never_was_up_does_not_fail() {
    let now = Instant::now();
    let mut t = table(now);
    hear(&mut t, &packet(State::Down, 0), now);
    assert_eq!(state(&t), Some(State::Init));
    run(&mut t, now + 10_000 * MS);
    assert_eq!(state(&t), Some(State::Down));
    assert!(t.take_failed().is_empty());
}

#[test]
fn packets_that_are_nobodys_are_counted_and_change_nothing() {
    let now = Instant::now();
    let mut t = table(now);
    let mine = up(&mut t, now);
    let before = t.report(NEAR);
    let good = packet(State::AdminDown, mine);
    let octets = |p: &Packet| p.encode().to_vec();
    let other = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 3));
    let heard = |from, to, ttl, octets, hops| (from, to, ttl, octets, hops);
    type Datagram = (IpAddr, IpAddr, u8, Vec<u8>, BfdHops);
    let cases: Vec<(&str, Datagram)> = vec![
        ("ttl", heard(THEM, US, 254, octets(&good), BfdHops::Single)),
        (
            "stranger",
            heard(THEM, US, 255, octets(&good), BfdHops::Multi),
        ),
        (
            "stranger",
            heard(other, US, 255, octets(&good), BfdHops::Single),
        ),
        (
            "stranger",
            heard(THEM, other, 255, octets(&good), BfdHops::Single),
        ),
        (
            "unknown",
            heard(
                other,
                US,
                255,
                octets(&packet(State::Down, 0)),
                BfdHops::Single,
            ),
        ),
        (
            "unknown",
            heard(
                THEM,
                US,
                255,
                octets(&packet(State::Up, !mine)),
                BfdHops::Single,
            ),
        ),
        (
            "state",
            heard(
                THEM,
                US,
                255,
                octets(&packet(State::Up, 0)),
                BfdHops::Single,
            ),
        ),
        (
            "short",
            heard(THEM, US, 255, vec![0x20; 9], BfdHops::Single),
        ),
        (
            "version",
            heard(THEM, US, 255, vec![0x40; 24], BfdHops::Single),
        ),
    ];
    let mut expected = BTreeMap::new();
    for (reason, (from, to, ttl, octets, hops)) in &cases {
        *expected.entry(*reason).or_insert(0) += 1;
        let heard = Heard {
            from: *from,
            to: Some(*to),
            ttl: *ttl,
            octets,
        };
        t.received(*hops, &heard, now, |(), _, _| panic!("an answer"));
        assert_eq!(*t.dropped(), expected, "{reason}");
    }
    assert_eq!(t.report(NEAR), before);
}

#[test]
fn a_session_that_ends_says_so_while_it_is_listened_to() {
    let now = Instant::now();
    let mut t = table(now);
    up(&mut t, now);
    run(&mut t, now + 100 * MS);
    let at = now + 100 * MS;
    t.leave(NEAR, at);
    assert_eq!((t.report(NEAR), t.ends()), (None, Vec::new()));
    let said = run(&mut t, at + 10_000 * MS);
    assert!(!said.is_empty());
    let held = |p: &Packet| p.state == State::AdminDown && p.diagnostic == Diagnostic::AdminDown;
    assert!(said.iter().all(held), "{said:?}");
    assert!(t.deadline().is_none() && t.sockets().next().is_none());
    assert!(t.take_failed().is_empty());
}

#[test]
fn one_that_is_wanted_again_goes_on() {
    let now = Instant::now();
    let mut t = table(now);
    let mine = up(&mut t, now);
    t.leave(NEAR, now);
    t.change(NEAR, wanted(&[179, 1179]), now);
    assert_eq!(t.ends(), [NEAR]);
    assert_eq!(t.report(NEAR).unwrap().discriminator, mine);
    up(&mut t, now);
    run(&mut t, now + 5000 * MS);
    assert_eq!(t.take_failed()[0].ports, [179, 1179]);
    assert_eq!(t.ends(), [NEAR]);
}

#[test]
fn timers_of_many_do_not_grow_with_packets() {
    let now = Instant::now();
    let mut t = Table::new(3);
    let ends: Vec<End> = (0..2000_u32)
        .map(|i| End {
            to: Ipv4Addr::from_bits(0x0a01_0000 + i).into(),
            hops: BfdHops::Single,
        })
        .collect();
    for end in &ends {
        let how = Wanted {
            from: None,
            ..wanted(&[179])
        };
        t.begin(*end, how, (), now);
    }
    for round in 0..100_u32 {
        let now = now + round * 50 * MS;
        for end in &ends {
            let octets = packet(State::Down, 0).encode();
            let heard = Heard {
                from: end.to,
                to: None,
                ttl: 255,
                octets: &octets,
            };
            t.received(BfdHops::Single, &heard, now, |(), _, _| {});
        }
        t.due(now, |(), _, _| {});
        assert!(t.timers.len() < 4 * ends.len(), "{}", t.timers.len());
    }
    let mut discriminators: Vec<u32> = t.sessions.keys().copied().collect();
    discriminators.dedup();
    assert_eq!((discriminators.len(), t.dropped().len()), (ends.len(), 0));
}
