//! How fast messages are read and written. Run it in release, alone:
//! `cargo test --release -p bgp --test wire speed -- --ignored --nocapture`.

use crate::bytes::session;
use bgp::attr::{AsPath, Attributes, Community, NextHop};
use bgp::caps::Encoding;
use bgp::message::Message;
use bgp::types::{Nlri, PathId, PeerKind, PerFamily};
use bgp::wire::{AttributeBlock, frame_len, read};
use bgp::{Asn, Cidr, Family};
use std::hint::black_box;
use std::time::Instant;

/// What a route on the internet carries: four hops, three communities, a preference.
fn attributes(family: Family) -> Attributes {
    let mut a = Attributes::new(match family {
        Family::V4 => NextHop::V4([192, 0, 2, 1].into()),
        Family::V6 => NextHop::V6("2001:db8::1".parse().unwrap()),
    });
    a.as_path = AsPath::sequence([65001, 3356, 1299, 13335].map(Asn));
    a.local_pref = Some(100);
    a.communities = (0..3).map(|n| Community::new(3356, n)).collect();
    a
}

/// /24s or /48s, one after the other.
fn routes(family: Family, n: u128, ids: bool) -> impl Iterator<Item = Nlri> {
    (0..n).map(move |i| {
        let (bits, len) = match family {
            Family::V4 => (0x0b00_0000 | i << 8, 24),
            Family::V6 => (0x2001_0db8 << 96 | i << 80, 48),
        };
        Nlri {
            prefix: Cidr::new(family.addr(bits), len).unwrap(),
            path_id: PathId(u32::from(ids)),
        }
    })
}

/// Reads a stream of messages; counts messages and prefixes.
fn read_all(mut octets: &[u8], how: &bgp::caps::Decoding) -> (usize, usize) {
    let (mut messages, mut prefixes) = (0, 0);
    while let Some(len) = frame_len(octets, how.extended_message).unwrap() {
        let (one, rest) = octets.split_at(len);
        let Ok(Message::Update(u)) = read(one, how) else {
            panic!("no UPDATE");
        };
        for a in &u.announced {
            black_box(&a.attributes);
            for n in a.nlri {
                black_box(n);
                prefixes += 1;
            }
        }
        messages += 1;
        octets = rest;
    }
    (messages, prefixes)
}

#[test]
#[ignore = "a measurement"]
fn speed() {
    for family in Family::BOTH {
        for (ids, packed) in [(false, false), (false, true), (true, true)] {
            let mut how = session(PeerKind::Internal);
            how.add_path = PerFamily { v4: ids, v6: ids };
            let encoding = Encoding {
                four_octet_as: true,
                add_path: how.add_path,
                ..Encoding::default()
            };
            let a = attributes(family);
            let mut out = Vec::with_capacity(100 << 20);
            let start = Instant::now();
            let all = routes(family, 1_000_000, ids);
            if packed {
                let block = AttributeBlock::new(family, &a, &encoding).unwrap();
                block.write_all(all, &mut out);
            } else {
                for n in all {
                    let block = AttributeBlock::new(family, &a, &encoding).unwrap();
                    block.write_all([n], &mut out);
                }
            }
            let written = start.elapsed();
            let start = Instant::now();
            let (messages, prefixes) = read_all(&out, &how);
            let taken = start.elapsed();
            assert_eq!(prefixes, 1_000_000);
            println!(
                "{family} path ids {ids}, {messages} messages of {} octets: read {:.1} M \
                 prefixes/s, written {:.1} M prefixes/s",
                out.len() / messages,
                1.0 / taken.as_secs_f64(),
                1.0 / written.as_secs_f64(),
            );
        }
    }
}
