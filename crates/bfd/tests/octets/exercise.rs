//! The way from bytes of a neighbour into the crate; the fuzz target uses this file too.

use bfd::{Config, Packet, Session, State};
use std::time::{Duration, Instant};

/// Of each: when it comes, in milliseconds after the one before, and the octets.
const PIECE: usize = 26;

/// Octets as a packet, then as packets to a session, with time between them.
pub(crate) fn packets(data: &[u8]) {
    if let Ok(p) = Packet::decode(data) {
        assert_eq!(Packet::decode(&p.encode()), Ok(p));
    }
    let config = Config::default();
    let mut now = Instant::now();
    let mut session = Session::new(config, 1, now);
    for piece in data.chunks_exact(PIECE) {
        let wait = u16::from_be_bytes([piece[0], piece[1]]);
        let at = now + Duration::from_millis(wait.into());
        now = pass(&mut session, now, at);
        let Ok(packet) = Packet::decode(&piece[2..]) else {
            continue;
        };
        let before = session.state();
        let out = session.received(&packet, now, wait.into());
        assert_eq!(out.answer.is_some(), packet.poll);
        if let Some(answer) = out.answer {
            assert!(answer.fin && !answer.poll && answer.yours == packet.mine);
        }
        // It takes two to be up (RFC 5880, section 6.2).
        if session.state() == State::Up && before != State::Up {
            assert!(matches!(packet.state, State::Init | State::Up));
        }
        let silence = config.min_rx.max(packet.min_tx) * u32::from(packet.multiplier);
        assert!(session.detection_time() >= Some(silence));
    }
    // Whatever was heard, silence is the end of it.
    let at = now + Duration::from_secs(2_000_000);
    if let Some(last) = session.detection_time() {
        pass(&mut session, now, now + last);
        assert_eq!(session.state(), State::Down);
    }
    assert!(session.deadline().is_none_or(|t| t <= at));
}

/// Time passes, in at most so many steps: who sends much has longer waits in between.
fn pass(session: &mut Session, mut now: Instant, to: Instant) -> Instant {
    for _ in 0..4096 {
        let Some(at) = session.deadline().filter(|t| *t <= to) else {
            return to;
        };
        now = now.max(at);
        let out = session.tick(now, 7);
        if let Some(p) = out.packet {
            assert_eq!(Packet::decode(&p.encode()), Ok(p));
            assert!(session.state() == State::Up || p.min_tx >= Duration::from_secs(1));
        }
        assert!(session.deadline() != Some(at), "time does not pass");
    }
    // A silence of days: straight to its end.
    session.tick(to, 7);
    to
}
