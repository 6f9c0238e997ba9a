//! Messages out of hexadecimal text and out of parts.

use bgp::caps::Decoding;
use bgp::error::SessionError;
use bgp::message::{Message, Update};
use bgp::types::{PeerKind, PerFamily};
use bgp::wire::read;

/// Octets from text; whatever is no hexadecimal digit is a separator.
pub(crate) fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text
        .chars()
        .filter_map(|c| c.to_digit(16))
        .map(|d| u8::try_from(d).unwrap())
        .collect();
    assert!(digits.len().is_multiple_of(2), "odd digits: {text}");
    digits.chunks(2).map(|d| d[0] << 4 | d[1]).collect()
}

/// A message with its header.
pub(crate) fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let len = u16::try_from(19 + body.len()).unwrap();
    let mut m = vec![0xff; 16];
    m.extend_from_slice(&len.to_be_bytes());
    m.push(kind);
    m.extend_from_slice(body);
    m
}

/// An UPDATE of its three fields.
pub(crate) fn update(withdrawn: &str, attributes: &str, nlri: &str) -> Vec<u8> {
    let (withdrawn, attributes) = (hex(withdrawn), hex(attributes));
    let mut body = Vec::new();
    for field in [&withdrawn, &attributes] {
        body.extend_from_slice(&u16::try_from(field.len()).unwrap().to_be_bytes());
        body.extend_from_slice(field);
    }
    body.extend_from_slice(&hex(nlri));
    message(2, &body)
}

/// Both families, four-octet numbers, from a peer of this kind.
pub(crate) fn session(peer: PeerKind) -> Decoding {
    Decoding {
        peer,
        four_octet_as: true,
        families: PerFamily { v4: true, v6: true },
        ..Decoding::default()
    }
}

/// Reads what must be an UPDATE.
pub(crate) fn read_update<'a>(
    message: &'a [u8],
    how: &Decoding,
) -> Result<Update<'a>, SessionError> {
    match read(message, how)? {
        Message::Update(u) => Ok(u),
        other => panic!("an UPDATE was expected: {other:?}"),
    }
}

/// What an UPDATE withdraws, as text.
pub(crate) fn withdrawn(u: &Update<'_>) -> Vec<String> {
    let all = u.withdrawn.iter().flat_map(|b| b.iter());
    all.map(|n| n.to_string()).collect()
}

/// What an UPDATE announces, as text, with the next hops.
pub(crate) fn announced(u: &Update<'_>) -> Vec<String> {
    let all = u.announced.iter().flat_map(|a| {
        let hop = a.attributes.next_hop;
        a.nlri.iter().map(move |n| format!("{n} via {hop}"))
    });
    all.collect()
}
