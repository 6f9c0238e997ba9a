//! The ways from bytes of a peer into the crate; the fuzz targets use this file too.

use bgp::Family;
use bgp::caps::{Decoding, Encoding};
use bgp::message::Message;
use bgp::types::{PeerKind, PerFamily};
use bgp::wire::{AttributeBlock, frame_len, read, write_notification, write_open};

/// A session for each value of an octet.
pub(crate) fn session(bits: u8) -> Decoding {
    let bit = |n: u8| bits & 1 << n != 0;
    Decoding {
        peer: match bits >> 6 {
            0 | 3 => PeerKind::Internal,
            1 => PeerKind::External,
            _ => PeerKind::Confederation,
        },
        four_octet_as: bit(0),
        extended_message: bit(1),
        v4_over_v6: bit(2),
        add_path: PerFamily {
            v4: bit(3),
            v6: bit(3),
        },
        families: PerFamily {
            v4: true,
            v6: bit(4),
        },
        disable_family: bit(5),
    }
}

/// What a fuzz target does with its input.
type Target = fn(&[u8]);

/// The fuzz targets by name.
pub(crate) const TARGETS: [(&str, Target); 3] = [
    ("bgp_message", message_target),
    ("bgp_attributes", attributes_target),
    ("bgp_capabilities", capabilities_target),
];

/// An octet of session, the type of a message, its body.
pub(crate) fn message_target(data: &[u8]) {
    if let [bits, kind, body @ ..] = data {
        message(&framed(*kind, &[body]), &session(*bits));
    }
}

/// An octet of session, the attributes of an UPDATE for one prefix.
pub(crate) fn attributes_target(data: &[u8]) {
    let Some((&bits, attributes)) = data.split_first() else {
        return;
    };
    let Ok(len) = u16::try_from(attributes.len()) else {
        return;
    };
    let how = session(bits);
    let nlri: &[u8] = match how.add_path.v4 {
        true => &[0, 0, 0, 1, 8, 10],
        false => &[8, 10],
    };
    let update = framed(2, &[&[0, 0], &len.to_be_bytes(), attributes, nlri]);
    message(&update, &how);
}

/// The capabilities of an OPEN, in one long parameter.
pub(crate) fn capabilities_target(data: &[u8]) {
    let Ok(len) = u16::try_from(data.len() + 3) else {
        return;
    };
    let fixed = [4, 0xfd, 0xe8, 0, 240, 10, 0, 0, 1, 255, 255];
    let value = (len - 3).to_be_bytes();
    let open = framed(1, &[&fixed, &len.to_be_bytes(), &[2], &value, data]);
    message(&open, &session(0));
}

/// A message with its header, as long as a length can say.
fn framed(kind: u8, body: &[&[u8]]) -> Vec<u8> {
    let mut m = vec![0xff; 18];
    m.push(kind);
    m.extend(body.iter().copied().flatten());
    m.truncate(usize::from(u16::MAX));
    let len = u16::try_from(m.len()).unwrap_or(u16::MAX);
    m[16..18].copy_from_slice(&len.to_be_bytes());
    m
}

/// Reads a message, looks at all of it, and writes what was read.
pub(crate) fn message(octets: &[u8], how: &Decoding) {
    let framed = frame_len(octets, how.extended_message);
    match read(octets, how) {
        Ok(Message::Open(open)) => {
            let mut out = Vec::new();
            write_open(&open, &mut out).expect("no longer than what was read, or nearly");
            assert_eq!(read(&out, how), Ok(Message::Open(open)));
        }
        Ok(Message::Update(update)) => {
            assert_eq!(framed, Ok(Some(octets.len())));
            let withdrawn: usize = update.withdrawn.iter().map(|b| b.iter().count()).sum();
            assert!(withdrawn < octets.len());
            for a in &update.announced {
                rewrite(a, how);
                let _ = format!("{:?}", a.attributes);
            }
            for f in &update.faults {
                let _ = f.to_string();
            }
        }
        Ok(Message::Notification(n)) => {
            let _ = (n.to_string(), n.inner().map(|n| n.to_string()));
        }
        Ok(Message::Keepalive | Message::RouteRefresh(_)) => {}
        Err(e) => {
            let _ = e.to_string();
            let mut out = Vec::new();
            write_notification(&e.notification, &mut out);
            assert_eq!(
                read(&out, how),
                Ok(Message::Notification(e.notification)),
                "an answer can be read"
            );
        }
    }
}

/// What was announced, announced again, is the same, as far as it fits.
fn rewrite(a: &bgp::message::Announcement<'_>, how: &Decoding) {
    let encoding = Encoding {
        four_octet_as: true,
        extended_message: true,
        v4_over_v6: how.v4_over_v6,
        add_path: how.add_path,
    };
    let reading = Decoding {
        peer: PeerKind::Internal,
        four_octet_as: true,
        extended_message: true,
        ..*how
    };
    let family = a.nlri.family();
    let block = match AttributeBlock::new(family, &a.attributes, &encoding) {
        Ok(block) => block,
        Err(e) => {
            let mixed = family == Family::V6 || !how.v4_over_v6;
            assert!(
                matches!(e, bgp::error::EncodeError::AttributesTooLong { .. }) || mixed,
                "{e}"
            );
            return;
        }
    };
    let mut out = Vec::new();
    let mut routes = a.nlri.iter().peekable();
    let written = block.write(&mut routes, &mut out);
    let Ok(Message::Update(back)) = read(&out, &reading) else {
        panic!("what was written cannot be read");
    };
    assert_eq!(back.faults, []);
    assert_eq!(back.announced[0].attributes, a.attributes);
    let again: Vec<_> = back.announced[0].nlri.iter().collect();
    let first: Vec<_> = a.nlri.iter().take(written).collect();
    assert_eq!(again, first);
}
