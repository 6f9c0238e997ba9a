//! How much goes into one message.

use bgp::attr::{AsPath, Attributes, Community, NextHop};
use bgp::caps::Encoding;
use bgp::error::EncodeError;
use bgp::types::{Nlri, PathId, PerFamily};
use bgp::wire::{AttributeBlock, write_withdrawal};
use bgp::{Asn, Cidr, Family};

fn hosts(family: Family, n: u128) -> impl Iterator<Item = Nlri> {
    (1..=n).map(move |i| Nlri {
        prefix: Cidr::host(family.addr(i)),
        path_id: PathId(1),
    })
}

fn attributes(family: Family) -> Attributes {
    Attributes::new(match family {
        Family::V4 => NextHop::V4([192, 0, 2, 1].into()),
        Family::V6 => NextHop::V6("2001:db8::1".parse().unwrap()),
    })
}

/// A message is filled until the next prefix would not fit, to the octet.
#[test]
fn messages_are_filled() {
    for family in Family::BOTH {
        for extended_message in [false, true] {
            for ids in [false, true] {
                let how = Encoding {
                    extended_message,
                    add_path: PerFamily { v4: ids, v6: ids },
                    ..Encoding::default()
                };
                let prefix = 1 + usize::from(family.bits() / 8) + if ids { 4 } else { 0 };
                let block = AttributeBlock::new(family, &attributes(family), &how).unwrap();
                let mut out = Vec::new();
                let n = block.write(&mut hosts(family, 20_000).peekable(), &mut out);
                let room = how.max_len() - out.len();
                assert!(n > 100 && room < prefix, "{family} {how:?}: {room}");
                let mut out = Vec::new();
                let mut routes = hosts(family, 20_000).peekable();
                write_withdrawal(family, &how, &mut routes, &mut out);
                assert!(how.max_len() - out.len() < prefix, "{family} {how:?}");
            }
        }
    }
}

#[test]
fn attributes_that_leave_no_room() {
    let mut a = attributes(Family::V4);
    // 19 + 4, ORIGIN 4, AS_PATH 3, NEXT_HOP 7, the header of COMMUNITIES 4, one prefix 5.
    let room = (4096 - 46) / 4;
    a.communities = (0..room).map(Community).collect();
    let how = Encoding::default();
    assert!(AttributeBlock::new(Family::V4, &a, &how).is_ok());
    a.communities = (0..=room).map(Community).collect();
    let e = AttributeBlock::new(Family::V4, &a, &how).unwrap_err();
    assert!(matches!(
        e,
        EncodeError::AttributesTooLong { limit: 4096, .. }
    ));
    let long = Encoding {
        extended_message: true,
        ..how
    };
    assert!(AttributeBlock::new(Family::V4, &a, &long).is_ok());
}

#[test]
fn nothing_is_written_for_nothing() {
    let how = Encoding::default();
    let mut out = Vec::new();
    for family in Family::BOTH {
        let block = AttributeBlock::new(family, &attributes(family), &how).unwrap();
        assert_eq!(block.write_all([], &mut out), 0);
        assert_eq!(
            write_withdrawal(family, &how, &mut std::iter::empty().peekable(), &mut out),
            0
        );
    }
    assert!(out.is_empty());
    let v4 = AttributeBlock::new(Family::V6, &attributes(Family::V4), &how);
    assert!(matches!(v4, Err(EncodeError::NextHop(_))));
}

/// A few hops and no rare attribute cost no allocation.
#[test]
fn common_attributes_are_small() {
    let mut a = attributes(Family::V4);
    a.as_path = AsPath::sequence((1..=5).map(Asn));
    a.local_pref = Some(100);
    assert_eq!(a.heap_size(), 0);
    assert!(
        size_of::<Attributes>() <= 136,
        "{}",
        size_of::<Attributes>()
    );
}
