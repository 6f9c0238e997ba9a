//! Two sessions over a wire that delivers, loses and is cut.

use bfd::{Config, Diagnostic, Packet, Session, State};
use std::time::{Duration, Instant};

const MS: Duration = Duration::from_millis(1);

/// Two ends and what is on the way, each packet for a time.
struct Wire {
    ends: [Session; 2],
    now: Instant,
    flying: Vec<(Instant, usize, Packet)>,
    /// Whether packets from an end get through.
    open: [bool; 2],
    seed: u64,
    sent: [u32; 2],
}

impl Wire {
    fn new(configs: [Config; 2], seed: u64) -> Self {
        let now = Instant::now();
        Self {
            ends: [
                Session::new(configs[0], 1, now),
                Session::new(configs[1], 2, now),
            ],
            now,
            flying: Vec::new(),
            open: [true, true],
            seed,
            sent: [0, 0],
        }
    }

    fn random(&mut self) -> u64 {
        self.seed = self
            .seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        self.seed >> 33
    }

    fn send(&mut self, from: usize, p: Packet) {
        self.sent[from] += 1;
        // Over the wire as bytes.
        let p = Packet::decode(&p.encode()).expect("what is sent is valid");
        if self.open[from] {
            self.flying.push((self.now + 2 * MS, 1 - from, p));
        }
    }

    /// Goes on for a time.
    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(at) = self.next().filter(|t| *t <= end) {
            self.now = at;
            for i in 0..2 {
                let random = self.random();
                let out = self.ends[i].tick(at, random);
                if let Some(p) = out.packet {
                    self.send(i, p);
                }
            }
            let (due, later): (Vec<_>, Vec<_>) =
                self.flying.drain(..).partition(|(t, _, _)| *t <= at);
            self.flying = later;
            for (_, to, p) in due {
                let random = self.random();
                let got = self.ends[to].received(&p, at, random);
                if let Some(answer) = got.answer {
                    self.send(to, answer);
                }
            }
        }
        self.now = end;
    }

    fn next(&self) -> Option<Instant> {
        let flying = self.flying.iter().map(|(t, _, _)| *t);
        let timers = self.ends.iter().filter_map(Session::deadline);
        flying.chain(timers).min()
    }

    fn states(&self) -> [State; 2] {
        [self.ends[0].state(), self.ends[1].state()]
    }
}

fn fast(ms: u32) -> Config {
    Config {
        min_tx: ms * MS,
        min_rx: ms * MS,
        ..Config::default()
    }
}

#[test]
fn two_ends_come_up_and_speed_up() {
    for seed in 0..200 {
        let mut w = Wire::new([fast(100), fast(50)], seed);
        w.run(5000 * MS);
        assert_eq!(w.states(), [State::Up, State::Up], "seed {seed}");
        assert_eq!(w.ends[0].tx_interval(), 100 * MS);
        // It cannot send faster than the other can take.
        assert_eq!(w.ends[1].tx_interval(), 100 * MS);
        assert_eq!(w.ends[0].detection_time(), Some(300 * MS));
        w.sent = [0, 0];
        w.run(1000 * MS);
        // 75 to 100 ms apart.
        assert!((9..=14).contains(&w.sent[0]), "seed {seed}: {}", w.sent[0]);
    }
}

#[test]
fn a_silent_neighbour_is_found_within_the_detection_time() {
    for seed in 0..200 {
        let mut w = Wire::new([fast(100), fast(100)], seed);
        w.run(5000 * MS);
        w.open[1] = false;
        w.run(305 * MS);
        assert_eq!(w.ends[0].state(), State::Down, "seed {seed}");
        assert_eq!(w.ends[0].diagnostic(), Diagnostic::Expired);
        // The other side hears of it and is down too.
        w.run(1200 * MS);
        assert_ne!(w.ends[1].state(), State::Up);
        assert_eq!(w.ends[1].diagnostic(), Diagnostic::NeighbourDown);
        w.open[1] = true;
        w.run(5000 * MS);
        assert_eq!(w.states(), [State::Up, State::Up], "seed {seed}");
    }
}

#[test]
fn a_few_lost_packets_are_borne() {
    for seed in 0..200 {
        let mut w = Wire::new([fast(100), fast(100)], seed);
        w.run(5000 * MS);
        w.open[1] = false;
        // Two are lost only when they are less than 95 ms apart, and then the third is in time.
        w.run(95 * MS);
        w.open[1] = true;
        w.run(2000 * MS);
        assert_eq!(w.states(), [State::Up, State::Up]);
        assert_eq!(w.ends[0].diagnostic(), Diagnostic::None, "seed {seed}");
    }
}

#[test]
fn nothing_is_sent_fast_while_down() {
    let mut w = Wire::new([fast(50), fast(50)], 1);
    w.open = [false, false];
    w.run(10_000 * MS);
    assert!((10..=14).contains(&w.sent[0]), "{}", w.sent[0]);
}

#[test]
fn two_passive_ends_stay_silent_and_one_is_enough() {
    let passive = Config {
        passive: true,
        ..fast(100)
    };
    let mut w = Wire::new([passive, passive], 1);
    w.run(5000 * MS);
    assert_eq!((w.states(), w.sent), ([State::Down, State::Down], [0, 0]));
    let mut w = Wire::new([passive, fast(100)], 1);
    w.run(5000 * MS);
    assert_eq!(w.states(), [State::Up, State::Up]);
}

#[test]
fn an_operator_holds_it_down_and_lets_go() {
    let mut w = Wire::new([fast(100), fast(100)], 7);
    w.run(5000 * MS);
    let now = w.now;
    assert_eq!(w.ends[0].hold_down(true, now, 0), Some(State::AdminDown));
    w.run(200 * MS);
    assert_eq!(w.states(), [State::AdminDown, State::Down]);
    assert_eq!(w.ends[1].diagnostic(), Diagnostic::NeighbourDown);
    w.run(5000 * MS);
    assert_eq!(w.states(), [State::AdminDown, State::Down]);
    let now = w.now;
    w.ends[0].hold_down(false, now, 0);
    w.run(5000 * MS);
    assert_eq!(w.states(), [State::Up, State::Up]);
}

#[test]
fn times_change_without_a_flap() {
    for (from, to) in [(100, 500), (500, 50)] {
        let mut w = Wire::new([fast(from), fast(from)], 3);
        w.run(8000 * MS);
        let now = w.now;
        w.ends[0].configure(fast(to), now, 0);
        w.run(8000 * MS);
        assert_eq!(w.states(), [State::Up, State::Up], "{from} to {to}");
        assert_eq!(w.ends[0].diagnostic(), Diagnostic::None, "{from} to {to}");
        assert_eq!(w.ends[0].tx_interval(), from.max(to) * MS);
    }
}

#[test]
fn damaged_packets_are_discarded() {
    let w = Wire::new([fast(100), fast(100)], 1);
    let good = Packet {
        diagnostic: Diagnostic::None,
        state: State::Down,
        poll: false,
        fin: false,
        independent: false,
        demand: false,
        multiplier: 3,
        mine: 9,
        yours: 0,
        min_tx: 100 * MS,
        min_rx: 100 * MS,
        min_echo_rx: Duration::ZERO,
    };
    let bytes = good.encode();
    assert_eq!(Packet::decode(&bytes), Ok(good));
    assert_eq!(bytes[..4], [0x20, 0x40, 3, 24]);
    drop(w);
    let with = |at: usize, value: u8| {
        let mut b = bytes;
        b[at] = value;
        Packet::decode(&b)
            .map(drop)
            .expect_err("damaged")
            .to_string()
    };
    assert_eq!(with(0, 0x40), "version 2, not 1");
    assert_eq!(with(3, 23), "length field of 23");
    assert_eq!(with(3, 25), "packet of 24 bytes is cut short");
    assert_eq!(with(2, 0), "detection multiplier of 0");
    assert_eq!(with(1, 0x41), "multipoint bit is set");
    assert_eq!(with(7, 0), "discriminator of 0");
    assert_eq!(with(1, 0xc0), "no discriminator of ours in state Up");
    assert_eq!(with(1, 0x44), "length field of 24");
    for n in 0..24 {
        assert!(Packet::decode(&bytes[..n]).is_err());
    }
    // Whatever the bytes, no panic.
    let mut seed = 1_u64;
    for _ in 0..100_000 {
        let mut b = [0; 26];
        for x in &mut b {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            *x = (seed >> 56) as u8;
        }
        b[0] = 0x20;
        let _ = Packet::decode(&b);
    }
}

/// A packet of a neighbour with discriminator 9 that hears us, who are 1.
fn heard(state: State) -> Packet {
    Packet {
        diagnostic: Diagnostic::None,
        state,
        poll: false,
        fin: false,
        independent: false,
        demand: false,
        multiplier: 3,
        mine: 9,
        yours: 1,
        min_tx: 100 * MS,
        min_rx: 100 * MS,
        min_echo_rx: Duration::ZERO,
    }
}

/// A session that is up, with its poll answered.
fn up(config: Config, now: Instant) -> Session {
    let mut s = Session::new(config, 1, now);
    s.received(&heard(State::Down), now, 0);
    s.received(&heard(State::Init), now, 0);
    let fin = Packet {
        fin: true,
        ..heard(State::Up)
    };
    s.received(&fin, now, 0);
    assert_eq!(s.state(), State::Up);
    s
}

/// How long after each packet the next one goes, in microseconds, the neighbour speaking all along.
fn gaps(config: Config, randoms: impl Iterator<Item = u64>) -> Vec<u128> {
    let mut now = Instant::now();
    let mut s = up(config, now);
    let mut last = None;
    let mut out = Vec::new();
    for random in randoms {
        let at = s.deadline().expect("it sends");
        now = at.max(now);
        if s.tick(now, random).packet.is_some() {
            out.extend(last.replace(now).map(|t| (now - t).as_micros()));
        }
        s.received(&heard(State::Up), now, random);
    }
    assert_eq!(s.state(), State::Up);
    out
}

#[test]
fn packets_are_a_tenth_to_a_quarter_early() {
    let randoms = || (0..2000_u64).map(|i| i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20);
    for (multiplier, least, most) in [(3, 75_000, 100_000), (1, 75_000, 90_000)] {
        let config = Config {
            multiplier,
            ..fast(100)
        };
        let gaps = gaps(config, randoms());
        let (low, high) = (gaps.iter().min(), gaps.iter().max());
        let (low, high) = (*low.expect("many"), *high.expect("many"));
        assert!(
            low >= least && high <= most,
            "{multiplier}: {low} to {high}"
        );
        // And all of that range is used.
        assert!(low < least + 1000 && high > most - 1000, "{low} to {high}");
    }
}

#[test]
fn until_up_it_says_and_keeps_to_once_a_second() {
    let now = Instant::now();
    let mut s = Session::new(fast(50), 1, now);
    let first = s.tick(now, 0).packet.expect("at once");
    assert_eq!((first.min_tx, first.min_rx), (1000 * MS, 50 * MS));
    // In Init too, although the neighbour can take more.
    s.received(&heard(State::Down), now, 250);
    assert_eq!(s.state(), State::Init);
    assert_eq!(s.tx_interval(), 1000 * MS);
    assert!(s.deadline().expect("it sends") >= now + 300 * MS);
}

#[test]
fn a_poll_is_answered_at_once_and_never_with_another() {
    let now = Instant::now();
    let mut s = up(fast(100), now);
    s.configure(fast(500), now, 0);
    let mut sent = None;
    let mut at = now;
    while sent.is_none() {
        at = s.deadline().expect("it sends");
        sent = s.tick(at, 0).packet;
    }
    let sent = sent.expect("the loop's end");
    // It asks, and goes on as before until it is answered.
    assert!(sent.poll && !sent.fin && sent.min_tx == 500 * MS);
    assert_eq!(s.tx_interval(), 100 * MS);
    let poll = Packet {
        poll: true,
        ..heard(State::Up)
    };
    let answer = s.received(&poll, at, 0).answer.expect("at once");
    assert!(answer.fin && !answer.poll);
    assert_eq!(s.tx_interval(), 100 * MS);
    let fin = Packet {
        fin: true,
        ..heard(State::Up)
    };
    s.received(&fin, at, 0);
    assert_eq!(s.tx_interval(), 500 * MS);
}

#[test]
fn slower_reception_counts_before_faster_only_after_the_answer() {
    let now = Instant::now();
    let mut s = up(fast(400), now);
    assert_eq!(s.detection_time(), Some(1200 * MS));
    s.configure(fast(200), now, 0);
    // The neighbour may still send by what it was told before.
    assert_eq!(s.detection_time(), Some(1200 * MS));
    let fin = Packet {
        fin: true,
        ..heard(State::Up)
    };
    s.received(&fin, now, 0);
    assert_eq!(s.detection_time(), Some(600 * MS));
    s.configure(fast(300), now, 0);
    assert_eq!(s.detection_time(), Some(900 * MS));
}

#[test]
fn the_detection_time_is_the_senders_multiplier_by_the_slower_of_both() {
    let now = Instant::now();
    let mut s = up(fast(100), now);
    for (min_tx, multiplier, expected) in [(50, 5, 500), (100, 3, 300), (700, 2, 1400)] {
        let p = Packet {
            min_tx: min_tx * MS,
            multiplier,
            ..heard(State::Up)
        };
        s.received(&p, now, 0);
        assert_eq!(s.detection_time(), Some(expected * MS));
        assert_eq!(s.deadline().map(|t| t <= now + expected * MS), Some(true));
    }
    // To the moment: one tick before it is up, at it it is down.
    let end = now + 1400 * MS;
    assert_eq!(s.tick(end - MS, 0).changed, None);
    assert_eq!(s.tick(end, 0).changed, Some(State::Down));
    assert_eq!(s.diagnostic(), Diagnostic::Expired);
    assert_eq!(s.their_discriminator(), None);
}

#[test]
fn a_neighbour_in_demand_mode_is_sent_nothing_but_answers() {
    let now = Instant::now();
    let mut s = up(fast(100), now);
    let demand = Packet {
        demand: true,
        ..heard(State::Up)
    };
    s.received(&demand, now, 0);
    // What is due is its silence alone.
    assert_eq!(s.deadline(), Some(now + 300 * MS));
    let poll = Packet {
        poll: true,
        ..demand
    };
    assert!(s.received(&poll, now, 0).answer.is_some());
    // We never ask for that mode ourselves.
    assert!(!s.received(&poll, now, 0).answer.expect("as before").demand);
    // Without the bit they go on.
    s.received(&heard(State::Up), now, 0);
    let at = s.deadline().expect("it sends");
    assert!(at <= now + 100 * MS && s.tick(at, 0).packet.is_some());
}

#[test]
fn what_is_held_down_answers_nobody_and_says_so() {
    let now = Instant::now();
    let mut s = up(fast(100), now);
    s.hold_down(true, now, 0);
    let said = s.tick(now, 0).packet.expect("at once");
    let is = (said.state, said.diagnostic);
    assert_eq!(is, (State::AdminDown, Diagnostic::AdminDown));
    let poll = Packet {
        poll: true,
        ..heard(State::Up)
    };
    let got = s.received(&poll, now, 0);
    assert_eq!((got.changed, got.answer), (None, None));
    assert_eq!(s.their_state(), State::Up);
}

#[test]
fn who_is_down_by_an_operator_is_told_from_who_has_failed() {
    for state in [State::AdminDown, State::Down] {
        let now = Instant::now();
        let mut s = up(fast(100), now);
        let p = Packet {
            diagnostic: Diagnostic::Other(5),
            independent: true,
            ..heard(state)
        };
        assert_eq!(s.received(&p, now, 0).changed, Some(State::Down));
        assert_eq!(s.their_state(), state);
        assert_eq!(s.their_diagnostic(), Diagnostic::Other(5));
        assert!(s.independent());
    }
}
