//! Tables as MRT files: TABLE_DUMP_V2 (RFC 6396, section 4.3).
//!
//! Promises: what is written is whole records; a route's attributes are those that are used, after
//! import. Never: holds more than one record of a table at a time.

use bgp::attr::{Attributes, code};
use bgp::caps::Encoding;
use bgp::types::Nlri;
use bgp::wire::{AttributeBlock, HEADER_LEN};
use net::{Asn, Cidr};
use std::net::IpAddr;

/// TABLE_DUMP_V2.
const TYPE: u16 = 13;
const PEER_INDEX_TABLE: u16 = 1;
const RIB_IPV4_UNICAST: u16 = 2;
const RIB_IPV6_UNICAST: u16 = 4;

/// A peer as the index has it.
#[derive(Debug, Clone)]
pub(crate) struct IndexPeer {
    /// Its router id; 0 while it never had a session.
    pub id: u32,
    /// Its address.
    pub address: IpAddr,
    /// Its AS.
    pub asn: Asn,
}

/// A path to a prefix.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    /// Its place in the index.
    pub peer: u16,
    /// Seconds since 1970 from which on the peer's session is up.
    pub since: u32,
    /// What it carries.
    pub attributes: Attributes,
}

fn record(at: u32, subtype: u16, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(12 + body.len());
    out.extend(at.to_be_bytes());
    out.extend(TYPE.to_be_bytes());
    out.extend(subtype.to_be_bytes());
    out.extend(length(body.len()).to_be_bytes());
    out.extend(body);
    out
}

/// A length in four octets; no record comes near it.
fn length(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

fn address(a: IpAddr, out: &mut Vec<u8>) {
    match a {
        IpAddr::V4(a) => out.extend(a.octets()),
        IpAddr::V6(a) => out.extend(a.octets()),
    }
}

/// The record that names all peers, which is the first.
pub(crate) fn index(at: u32, collector: u32, view: &str, peers: &[IndexPeer]) -> Vec<u8> {
    let mut body = collector.to_be_bytes().to_vec();
    let view = &view.as_bytes()[..view.len().min(usize::from(u16::MAX))];
    body.extend(u16::try_from(view.len()).unwrap_or(u16::MAX).to_be_bytes());
    body.extend(view);
    body.extend(u16::try_from(peers.len()).unwrap_or(u16::MAX).to_be_bytes());
    for p in peers.iter().take(usize::from(u16::MAX)) {
        // Bit 0: its address is of IPv6; bit 1: its AS has four octets.
        body.push(2 | u8::from(p.address.is_ipv6()));
        body.extend(p.id.to_be_bytes());
        address(p.address, &mut body);
        body.extend(p.asn.0.to_be_bytes());
    }
    record(at, PEER_INDEX_TABLE, &body)
}

/// The record of a prefix.
pub(crate) fn prefix(at: u32, sequence: u32, prefix: Cidr, entries: &[Entry]) -> Vec<u8> {
    let (subtype, mut octets) = match prefix.addr() {
        IpAddr::V4(a) => (RIB_IPV4_UNICAST, a.octets().to_vec()),
        IpAddr::V6(a) => (RIB_IPV6_UNICAST, a.octets().to_vec()),
    };
    octets.truncate(usize::from(prefix.len()).div_ceil(8));
    let mut body = sequence.to_be_bytes().to_vec();
    body.push(prefix.len());
    body.extend(octets);
    let blocks: Vec<_> = entries
        .iter()
        .filter_map(|e| Some((e, attributes(prefix, &e.attributes)?)))
        .take(usize::from(u16::MAX))
        .collect();
    body.extend(
        u16::try_from(blocks.len())
            .unwrap_or(u16::MAX)
            .to_be_bytes(),
    );
    for (entry, block) in blocks {
        body.extend(entry.peer.to_be_bytes());
        body.extend(entry.since.to_be_bytes());
        body.extend(u16::try_from(block.len()).unwrap_or(u16::MAX).to_be_bytes());
        body.extend(block);
    }
    record(at, subtype, &body)
}

/// Attributes as these files have them: AS numbers in four octets, of MP_REACH_NLRI the next hop alone
/// (section 4.3.4). `None`: they do not fit, or the next hop fits no such route.
fn attributes(prefix: Cidr, a: &Attributes) -> Option<Vec<u8>> {
    let how = Encoding {
        four_octet_as: true,
        extended_message: true,
        v4_over_v6: true,
        ..Encoding::default()
    };
    let block = AttributeBlock::new(prefix.family(), a, &how).ok()?;
    let mut update = Vec::new();
    let nlri = std::iter::once(Nlri::from(prefix));
    block.write(&mut nlri.peekable(), &mut update);
    // No routes are withdrawn; then come the length of the attributes and they.
    let length = update.get(HEADER_LEN + 2..HEADER_LEN + 4)?;
    let length = usize::from(u16::from_be_bytes([length[0], length[1]]));
    let all = update.get(HEADER_LEN + 4..HEADER_LEN + 4 + length)?;
    // It is first, and its length has two octets.
    let &[flags, code::MP_REACH_NLRI, high, low, ref rest @ ..] = all else {
        return Some(all.to_vec());
    };
    let (reach, others) = rest.split_at_checked(usize::from(u16::from_be_bytes([high, low])))?;
    // AFI and SAFI are before the next hop, which says its length.
    let hop = reach.get(3..4 + usize::from(*reach.get(3)?))?;
    let mut out = vec![flags, code::MP_REACH_NLRI, 0, u8::try_from(hop.len()).ok()?];
    out.extend(hop);
    out.extend(others);
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(hop: &str) -> Attributes {
        let mut a = Attributes::new(hop.parse::<IpAddr>().unwrap().into());
        a.as_path = bgp::attr::AsPath::sequence([Asn(65001)]);
        a
    }

    fn entry(hop: &str) -> Entry {
        Entry {
            peer: 1,
            since: 9,
            attributes: path(hop),
        }
    }

    #[test]
    fn the_index_names_peers_of_both_families() {
        let peer = |a: &str| IndexPeer {
            id: 7,
            address: a.parse().unwrap(),
            asn: Asn(65001),
        };
        let r = index(5, 1, "x", &[peer("10.0.0.2"), peer("fd00::2")]);
        let mut want = vec![
            0, 0, 0, 5, 0, 13, 0, 1, 0, 0, 0, 47, 0, 0, 0, 1, 0, 1, b'x', 0, 2,
        ];
        want.extend([2, 0, 0, 0, 7, 10, 0, 0, 2, 0, 0, 0xfd, 0xe9]);
        want.extend([
            3, 0, 0, 0, 7, 0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2,
        ]);
        want.extend([0, 0, 0xfd, 0xe9]);
        assert_eq!(r, want);
    }

    #[test]
    fn a_prefix_of_ipv4_has_its_next_hop_among_the_attributes() {
        let r = prefix(5, 3, "192.0.2.0/23".parse().unwrap(), &[entry("10.0.0.2")]);
        let mut want = vec![
            0, 0, 0, 5, 0, 13, 0, 2, 0, 0, 0, 38, 0, 0, 0, 3, 23, 192, 0, 2, 0, 1,
        ];
        want.extend([
            0, 1, 0, 0, 0, 9, 0, 20, 0x40, 1, 1, 0, 0x40, 2, 6, 2, 1, 0, 0, 0xfd, 0xe9,
        ]);
        want.extend([0x40, 3, 4, 10, 0, 0, 2]);
        assert_eq!(r, want);
    }

    #[test]
    fn a_prefix_of_ipv6_has_the_next_hop_alone() {
        let r = prefix(5, 3, "2001:db8::/32".parse().unwrap(), &[entry("fd00::2")]);
        let at = r
            .windows(2)
            .position(|w| w[1] == code::MP_REACH_NLRI)
            .unwrap();
        assert_eq!(r[at + 2..at + 7], [0, 17, 16, 0xfd, 0], "{r:?}");
        assert_eq!(r[at + 21..at + 25], [0x40, 1, 1, 0]);
    }
}
