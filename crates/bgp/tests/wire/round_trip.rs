//! What is written is read back as the same value.

use crate::bytes::read_update;
use crate::values;
use bgp::Family;
use bgp::attr::Attributes;
use bgp::caps::{Decoding, Encoding};
use bgp::error::{Code, Notification};
use bgp::message::Message;
use bgp::types::{Nlri, PathId, PeerKind, PerFamily};
use bgp::wire::{
    AttributeBlock, frame_len, read, write_notification, write_open, write_withdrawals,
};
use proptest::collection::vec;
use proptest::prelude::*;

/// How what is written by `how` is read.
fn decoding(how: &Encoding) -> Decoding {
    Decoding {
        peer: PeerKind::Internal,
        four_octet_as: how.four_octet_as,
        extended_message: how.extended_message,
        v4_over_v6: how.v4_over_v6,
        add_path: how.add_path,
        families: PerFamily { v4: true, v6: true },
        disable_family: false,
    }
}

/// Routes as a peer without path ids sees them.
fn as_sent(routes: &[Nlri], how: &Encoding) -> Vec<Nlri> {
    let mut routes = routes.to_vec();
    for r in &mut routes {
        if !how.add_path[r.prefix.family()] {
            r.path_id = PathId::NONE;
        }
    }
    routes
}

/// Splits what was written into its messages.
fn messages<'a>(mut out: &'a [u8], how: &Encoding) -> Vec<&'a [u8]> {
    let mut all = Vec::new();
    while !out.is_empty() {
        let len = frame_len(out, how.extended_message).unwrap().unwrap();
        assert!(len <= how.max_len());
        let (one, rest) = out.split_at(len);
        all.push(one);
        out = rest;
    }
    all
}

fn routes() -> impl Strategy<Value = (Family, Family, Attributes, Vec<Nlri>)> {
    (values::family(), values::family()).prop_flat_map(|(family, hop)| {
        // IPv6 routes have no IPv4 next hop.
        let hop = match family {
            Family::V4 => hop,
            Family::V6 => Family::V6,
        };
        let list = prop_oneof![
            vec(values::nlri(family), 1..20),
            vec(values::nlri(family), 1000..3000)
        ];
        (Just(family), Just(hop), values::attributes(hop), list)
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn announcements(
        (family, _, attributes, routes) in routes(),
        how in values::encoding(),
    ) {
        let block = AttributeBlock::new(family, &attributes, &how).unwrap();
        let mut out = Vec::new();
        prop_assert_eq!(block.write_all(routes.iter().copied(), &mut out), routes.len());
        let mut back = Vec::new();
        for m in messages(&out, &how) {
            let u = read_update(m, &decoding(&how)).unwrap();
            prop_assert!(u.faults.is_empty(), "{:?}", u.faults);
            prop_assert_eq!(u.announced.len(), 1);
            prop_assert_eq!(&u.announced[0].attributes, &attributes);
            back.extend(u.announced[0].nlri);
        }
        prop_assert_eq!(back, as_sent(&routes, &how));
    }

    #[test]
    fn withdrawals((family, _, _, routes) in routes(), how in values::encoding()) {
        let mut out = Vec::new();
        let n = write_withdrawals(family, &how, routes.iter().copied(), &mut out);
        prop_assert_eq!(n, routes.len());
        let mut back = Vec::new();
        for m in messages(&out, &how) {
            let u = read_update(m, &decoding(&how)).unwrap();
            prop_assert!(u.faults.is_empty() && u.end_of_rib.is_none());
            back.extend(u.withdrawn.into_iter().flatten());
        }
        prop_assert_eq!(back, as_sent(&routes, &how));
    }

    #[test]
    fn opens(open in values::open()) {
        let mut out = Vec::new();
        write_open(&open, &mut out).unwrap();
        prop_assert_eq!(read(&out, &Decoding::default()).unwrap(), Message::Open(open));
    }

    #[test]
    fn notifications(code: u8, subcode: u8, data in vec(any::<u8>(), 0..300)) {
        let n = Notification::new(Code { code, subcode }, data);
        let mut out = Vec::new();
        write_notification(&n, &mut out);
        let _ = n.to_string();
        prop_assert_eq!(read(&out, &Decoding::default()).unwrap(), Message::Notification(n));
    }

    /// Cut anywhere, a message is incomplete, and what is passed off as whole is no panic.
    #[test]
    fn truncation((family, _, attributes, routes) in routes(), how in values::encoding()) {
        let block = AttributeBlock::new(family, &attributes, &how).unwrap();
        let mut out = Vec::new();
        block.write(&mut routes.into_iter().take(20).peekable(), &mut out);
        for end in 0..out.len() {
            prop_assert_eq!(frame_len(&out[..end], how.extended_message).unwrap(), None);
            prop_assert!(read(&out[..end], &decoding(&how)).is_err());
            if end >= 23 {
                let mut cut = out[..end].to_vec();
                cut[16..18].copy_from_slice(&u16::try_from(end).unwrap().to_be_bytes());
                crate::exercise::message(&cut, &decoding(&how));
            }
        }
    }
}
