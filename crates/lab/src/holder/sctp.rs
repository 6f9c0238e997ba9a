//! Just enough SCTP to see whether an association would come about: INIT and INIT ACK.
//!
//! Promises: the packets are valid (RFC 9260, sections 3.3.2 and 3.3.3, CRC32c), so that
//! connection tracking takes them for what they are. The kernel's own SCTP is not needed.
//!
//! Never: goes further than the second packet.

/// SCTP's protocol number.
pub(super) const PROTOCOL: i32 = 132;
const INIT: u8 = 1;
const INIT_ACK: u8 = 2;
const ABORT: u8 = 6;
const STATE_COOKIE: u16 = 7;

/// A received packet that means something here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Packet {
    /// Somebody wants an association.
    Init {
        /// Its port.
        source: u16,
        /// Ours.
        destination: u16,
        /// The tag that answers must carry.
        tag: u32,
    },
    /// It is granted.
    InitAck {
        /// Its port.
        source: u16,
        /// Ours.
        destination: u16,
        /// What the other side put into its cookie.
        cookie: Vec<u8>,
    },
    /// It is refused.
    Abort {
        /// Its port.
        source: u16,
        /// Ours.
        destination: u16,
    },
}

/// An INIT.
pub(super) fn init(source: u16, destination: u16, tag: u32) -> Vec<u8> {
    packet(source, destination, 0, &chunk(INIT, tag, &[]))
}

/// The answer to an INIT, with a cookie.
pub(super) fn init_ack(
    source: u16,
    destination: u16,
    peer_tag: u32,
    tag: u32,
    cookie: &[u8],
) -> Vec<u8> {
    let mut parameter = Vec::new();
    let len = u16::try_from(cookie.len() + 4).unwrap_or(u16::MAX);
    parameter.extend_from_slice(&STATE_COOKIE.to_be_bytes());
    parameter.extend_from_slice(&len.to_be_bytes());
    parameter.extend_from_slice(cookie);
    parameter.resize(parameter.len().next_multiple_of(4), 0);
    packet(
        source,
        destination,
        peer_tag,
        &chunk(INIT_ACK, tag, &parameter),
    )
}

fn chunk(kind: u8, tag: u32, parameters: &[u8]) -> Vec<u8> {
    let len = u16::try_from(20 + parameters.len()).unwrap_or(u16::MAX);
    let mut c = vec![kind, 0];
    c.extend_from_slice(&len.to_be_bytes());
    c.extend_from_slice(&tag.to_be_bytes());
    c.extend_from_slice(&65_536u32.to_be_bytes());
    c.extend_from_slice(&1u16.to_be_bytes());
    c.extend_from_slice(&1u16.to_be_bytes());
    c.extend_from_slice(&tag.to_be_bytes());
    c.extend_from_slice(parameters);
    c
}

fn packet(source: u16, destination: u16, tag: u32, chunk: &[u8]) -> Vec<u8> {
    let mut p = Vec::with_capacity(12 + chunk.len());
    p.extend_from_slice(&source.to_be_bytes());
    p.extend_from_slice(&destination.to_be_bytes());
    p.extend_from_slice(&tag.to_be_bytes());
    p.extend_from_slice(&[0; 4]);
    p.extend_from_slice(chunk);
    let sum = crc32c(&p);
    p[8..12].copy_from_slice(&sum.to_le_bytes());
    p
}

/// Reads what follows the IP header.
pub(super) fn parse(p: &[u8]) -> Option<Packet> {
    let u16_at = |at: usize| Some(u16::from_be_bytes(p.get(at..at + 2)?.try_into().ok()?));
    let (source, destination) = (u16_at(0)?, u16_at(2)?);
    match *p.get(12)? {
        INIT => {
            let tag = u32::from_be_bytes(p.get(16..20)?.try_into().ok()?);
            Some(Packet::Init {
                source,
                destination,
                tag,
            })
        }
        INIT_ACK => {
            let cookie = match (u16_at(32), u16_at(34)) {
                (Some(STATE_COOKIE), Some(len)) => p.get(36..32 + usize::from(len))?.to_vec(),
                _ => Vec::new(),
            };
            Some(Packet::InitAck {
                source,
                destination,
                cookie,
            })
        }
        ABORT => Some(Packet::Abort {
            source,
            destination,
        }),
        _ => None,
    }
}

/// RFC 9260, appendix A.
fn crc32c(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for b in bytes {
        crc ^= u32::from(*b);
        for _ in 0..8 {
            crc = if crc & 1 == 1 {
                crc >> 1 ^ 0x82f6_3b78
            } else {
                crc >> 1
            };
        }
    }
    !crc
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_checksum_is_the_castagnoli_one() {
        // The check value of CRC-32C.
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    }

    #[test]
    fn packets_read_back() {
        assert_eq!(
            parse(&init(1000, 5000, 7)),
            Some(Packet::Init {
                source: 1000,
                destination: 5000,
                tag: 7
            })
        );
        let ack = init_ack(5000, 1000, 7, 8, b"10.0.0.1");
        let cookie = b"10.0.0.1".to_vec();
        assert_eq!(
            parse(&ack),
            Some(Packet::InitAck {
                source: 5000,
                destination: 1000,
                cookie
            })
        );
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes: Vec<u8>) {
            let _ = parse(&bytes);
        }
    }
}
