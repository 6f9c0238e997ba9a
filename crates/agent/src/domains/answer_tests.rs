//! Answers as they come, and as nobody should send them.

use super::*;
use simple_dns::rdata::{A, AAAA, CNAME};
use simple_dns::{QTYPE, Question, TYPE};

/// A record by what it holds: an address, or another name.
fn record<'a>(owner: &'a str, ttl: u32, to: &'a str) -> ResourceRecord<'a> {
    let data = match to.parse() {
        Ok(IpAddr::V4(a)) => RData::A(A {
            address: a.to_bits(),
        }),
        Ok(IpAddr::V6(a)) => RData::AAAA(AAAA {
            address: a.to_bits(),
        }),
        Err(_) => RData::CNAME(CNAME(Name::new_unchecked(to))),
    };
    ResourceRecord::new(Name::new_unchecked(owner), CLASS::IN, ttl, data)
}

/// A message as bytes.
fn dns(asked: &str, records: &[(&str, u32, &str)]) -> Vec<u8> {
    let mut p = Packet::new_reply(7);
    let (kind, class) = (QTYPE::TYPE(TYPE::A), QCLASS::CLASS(CLASS::IN));
    p.questions.push(Question::new(
        Name::new_unchecked(asked),
        kind,
        class,
        false,
    ));
    p.answers = records.iter().map(|(o, t, to)| record(o, *t, to)).collect();
    p.build_bytes_vec_compressed().unwrap()
}

fn udp(sport: u16, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u16 + 8).to_be_bytes();
    let mut out = [sport.to_be_bytes(), 40_000u16.to_be_bytes(), length, [0; 2]].concat();
    out.extend_from_slice(payload);
    out
}

fn v4(udp: &[u8]) -> Vec<u8> {
    let mut ip = vec![0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, UDP, 0, 0];
    ip.extend_from_slice(&[10, 0, 0, 1, 10, 0, 0, 2]);
    ip.extend_from_slice(udp);
    let length = (ip.len() as u16).to_be_bytes();
    ip[2..4].copy_from_slice(&length);
    ip
}

/// With a header of options between, of 16 bytes.
fn v6(udp: &[u8]) -> Vec<u8> {
    let mut ip = vec![0x60, 0, 0, 0, 0, 0, 60, 64];
    ip.extend_from_slice(&[0xfd; 32]);
    ip.extend_from_slice(&[UDP, 1]);
    ip.extend_from_slice(&[0; 14]);
    ip.extend_from_slice(udp);
    let length = (ip.len() as u16 - 40).to_be_bytes();
    ip[4..6].copy_from_slice(&length);
    ip
}

fn said(asked: &str, records: &[(&str, u32, &str)]) -> String {
    let read = read(&v4(&udp(53, &dns(asked, records))));
    let Some(answer) = read.expect("well formed") else {
        return "nothing".to_owned();
    };
    let all: Vec<String> = answer
        .addresses
        .iter()
        .map(|(a, ttl)| format!("{a}/{ttl}"))
        .collect();
    format!("{}: {}", answer.name, all.join(" "))
}

#[test]
fn addresses_of_the_name_that_was_asked() {
    let two = [("a.example", 60, "192.0.2.1"), ("a.example", 9, "fd00::1")];
    assert_eq!(said("A.Example", &two), "a.example: 192.0.2.1/60 fd00::1/9");
    let mut other = two.to_vec();
    other.push(("b.example", 60, "192.0.2.9"));
    assert_eq!(said("a.example", &other), said("a.example", &two));
    assert_eq!(said("b.example", &two), "nothing");
    assert_eq!(said("a.example", &[]), "nothing");
    // A record whose time has its highest bit set is good for nothing but now.
    let odd = [("a.example", 0x8000_0000, "192.0.2.1")];
    assert_eq!(said("a.example", &odd), "a.example: 192.0.2.1/0");
}

#[test]
fn aliases_are_followed_in_any_order() {
    let chain = [
        ("c.example", 300, "192.0.2.1"),
        ("b.example", 20, "C.example"),
        ("a.example", 100, "b.example"),
    ];
    assert_eq!(said("a.example", &chain), "a.example: 192.0.2.1/20");
    // One who asked for the middle hears of the middle.
    assert_eq!(said("b.example", &chain), "b.example: 192.0.2.1/20");
    let ring = [("a.example", 1, "b.example"), ("b.example", 1, "a.example")];
    assert_eq!(said("a.example", &ring), "nothing");
    let broken = [("a.example", 1, "b.example"), ("c.example", 1, "192.0.2.1")];
    assert_eq!(said("a.example", &broken), "nothing");
}

#[test]
fn addresses_that_nothing_is_reached_at_are_left_out() {
    for bad in [
        "0.0.0.0",
        "127.0.0.1",
        "224.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "ff02::1",
        "::ffff:192.0.2.1",
    ] {
        assert_eq!(said("a", &[("a", 60, bad)]), "nothing", "{bad}");
        let both = [("a", 60, bad), ("a", 60, "192.0.2.1")];
        assert_eq!(said("a", &both), "a: 192.0.2.1/60", "{bad}");
    }
}

#[test]
fn only_good_answers_to_one_question_count() {
    let records = [("a.example", 60, "192.0.2.1")];
    let good = dns("a.example", &records);
    let with = |at: usize, value: u8| {
        let mut m = good.clone();
        m[at] = value;
        read(&v4(&udp(53, &m)))
    };
    assert!(with(2, 0x84).unwrap().is_some(), "authoritative");
    assert_eq!(with(2, 0x00), Ok(None), "a question");
    assert_eq!(with(2, 0x90), Ok(None), "another operation");
    assert_eq!(with(3, 0x83), Ok(None), "no such name");
    assert_eq!(
        with(5, 0),
        Err(Malformed),
        "no question: what follows is garbage"
    );
    assert_eq!(
        said("*.example", &[("*.example", 60, "192.0.2.1")]),
        "nothing"
    );
    // A dot inside a label is no dot between labels.
    let mut odd = dns("axexample", &[("axexample", 60, "192.0.2.1")]);
    let x = odd.iter().position(|b| *b == b'x').unwrap();
    odd[x] = b'.';
    assert_eq!(read(&v4(&udp(53, &odd))), Ok(None));
}

#[test]
fn packets_of_both_families_and_no_others() {
    let m = dns("a", &[("a", 60, "192.0.2.1")]);
    for packet in [v4(&udp(53, &m)), v6(&udp(53, &m))] {
        assert!(read(&packet).unwrap().is_some());
        // What the link padded is not part of it.
        let padded = [packet.clone(), vec![0xff; 9]].concat();
        assert!(read(&padded).unwrap().is_some());
        for end in 0..packet.len() {
            assert_eq!(read(&packet[..end]), Err(Malformed), "{end}");
        }
    }
    assert_eq!(read(&v4(&udp(54, &m))), Err(Malformed));
    let mut fragment = v4(&udp(53, &m));
    fragment[6] = 0x20;
    assert_eq!(read(&fragment), Err(Malformed));
    let mut tcp = v4(&udp(53, &m));
    tcp[9] = 6;
    assert_eq!(read(&tcp), Err(Malformed));
}

#[test]
fn hostile_messages_end() {
    let good = dns(
        "a.example",
        &[
            ("a.example", 60, "b.example"),
            ("b.example", 6, "192.0.2.1"),
        ],
    );
    // All that differ in one byte, and counts beyond what is there.
    for at in 0..good.len() {
        for value in [0, 1, 0x3f, 0x40, 0x80, 0xc0, 0xff, good[at] ^ 1] {
            let mut m = good.clone();
            m[at] = value;
            let _ = read(&v4(&udp(53, &m)));
        }
    }
    let mut many = good[..12].to_vec();
    many[4..12].fill(0xff);
    assert_eq!(read(&v4(&udp(53, &many))), Err(Malformed));
    // A name that points at itself.
    let mut own = good;
    own[12] = 0xc0;
    own[13] = 12;
    assert_eq!(read(&v4(&udp(53, &own))), Err(Malformed));
}

proptest::proptest! {
    /// Any bytes, and a good message with any bytes in the place of some.
    #[test]
    fn any_bytes_end(bytes: Vec<u8>, at in 0..60usize, header in 0..3u8) {
        let good = dns("a.example", &[("a.example", 60, "b.example"), ("b.example", 6, "192.0.2.1")]);
        let end = (at + bytes.len()).min(good.len());
        let mut mixed = good.clone();
        mixed.splice(at.min(end)..end, bytes.iter().copied());
        for m in [&bytes, &mixed] {
            let packet = match header {
                0 => v4(&udp(53, m)),
                1 => v6(&udp(53, m)),
                _ => m.clone(),
            };
            if let Ok(Some(answer)) = read(&packet) {
                proptest::prop_assert!(answer.addresses.len() <= packet.len() / 4);
            }
        }
    }
}
