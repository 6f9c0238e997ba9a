//! What a name server's answer says, read from a copy of its packet.
//!
//! Promises: only addresses that the answer gives to the very name that was asked, along
//! aliases that begin there; whatever bytes come in, reading ends, stays inside them and takes
//! memory in proportion to them.
//! Never: believes what was not asked for, or an address that nothing can be reached at.

use simple_dns::rdata::RData;
use simple_dns::{CLASS, Name, OPCODE, Packet, PacketFlag, QCLASS, RCODE, ResourceRecord};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Where answers come from.
const DNS: u16 = 53;
const UDP: u8 = 17;
/// Aliases followed; resolvers give up sooner.
const ALIASES: usize = 16;

/// The addresses of one name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    /// The name that was asked, in lower case and without the last dot.
    pub name: String,
    /// Its addresses, each with the seconds that it holds: the least of the record's own and of
    /// the aliases on the way.
    pub addresses: Vec<(IpAddr, u32)>,
}

/// It is no packet of DNS, or a broken one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Malformed;

/// Reads an IP packet. `None` for an answer without addresses: a question, an error, another
/// kind of record.
pub(crate) fn read(packet: &[u8]) -> Result<Option<Answer>, Malformed> {
    message(payload(packet).ok_or(Malformed)?)
}

fn be16(b: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(b.get(at..at + 2)?.try_into().ok()?))
}

/// What a UDP packet from a name server carries.
fn payload(packet: &[u8]) -> Option<&[u8]> {
    let udp = match packet.first()? >> 4 {
        4 => {
            let header = usize::from(packet[0] & 0xf) * 4;
            let whole = be16(packet, 6)? & 0x3fff == 0;
            (header >= 20 && *packet.get(9)? == UDP && whole).then_some(())?;
            packet.get(header..usize::from(be16(packet, 2)?))?
        }
        6 => {
            let end = 40 + usize::from(be16(packet, 4)?);
            let (mut next, mut at) = (*packet.get(6)?, 40);
            // Hop-by-hop, routing and destination options, RFC 8200 section 4.
            while matches!(next, 0 | 43 | 60) {
                next = *packet.get(at)?;
                at += 8 + usize::from(*packet.get(at + 1)?) * 8;
            }
            (next == UDP).then_some(())?;
            packet.get(at..end)?
        }
        _ => return None,
    };
    let length = usize::from(be16(udp, 4)?);
    (be16(udp, 0)? == DNS).then_some(())?;
    udp.get(8..length)
}

/// Whether the message is long enough for what its header counts: a question takes five
/// bytes at least, a record eleven. The library makes room for as many as are counted.
fn plausible(message: &[u8]) -> bool {
    let count = |at| be16(message, at).map(usize::from);
    let (Some(questions), Some(a), Some(b), Some(c)) = (count(4), count(6), count(8), count(10))
    else {
        return false;
    };
    12 + questions * 5 + (a + b + c) * 11 <= message.len()
}

fn message(bytes: &[u8]) -> Result<Option<Answer>, Malformed> {
    if !plausible(bytes) {
        return Err(Malformed);
    }
    // Strangers' bytes in a library's hands: whatever they find there must not end the agent.
    let packet = std::panic::catch_unwind(|| Packet::parse(bytes))
        .ok()
        .and_then(Result::ok)
        .ok_or(Malformed)?;
    let [question] = packet.questions.as_slice() else {
        return Ok(None);
    };
    let good = packet.has_flags(PacketFlag::RESPONSE)
        && packet.opcode() == OPCODE::StandardQuery
        && packet.rcode() == RCODE::NoError
        && question.qclass == QCLASS::CLASS(CLASS::IN);
    let Some(name) = text(&question.qname).filter(|_| good) else {
        return Ok(None);
    };
    let addresses = follow(&name, &packet.answers);
    Ok((!addresses.is_empty()).then_some(Answer { name, addresses }))
}

/// Lower case, no last dot; nothing for what is no name of a host.
fn text(name: &Name<'_>) -> Option<String> {
    let text = name.to_string().to_ascii_lowercase();
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
    (!text.is_empty() && text.bytes().all(plain)).then_some(text)
}

/// Goes from the name along its aliases to addresses, whatever the order of the records.
fn follow(asked: &str, records: &[ResourceRecord<'_>]) -> Vec<(IpAddr, u32)> {
    let named: Vec<(String, &ResourceRecord<'_>)> = records
        .iter()
        .filter(|r| r.class == CLASS::IN)
        .filter_map(|r| Some((text(&r.name)?, r)))
        .collect();
    let (mut at, mut least) = (asked.to_owned(), u32::MAX);
    for _ in 0..ALIASES {
        let mut alias = None;
        let mut found = Vec::new();
        for (_, r) in named.iter().filter(|(owner, _)| *owner == at) {
            let ttl = seconds(r.ttl).min(least);
            match &r.rdata {
                RData::A(a) => found.push((IpAddr::from(Ipv4Addr::from(a.address)), ttl)),
                RData::AAAA(a) => found.push((IpAddr::from(Ipv6Addr::from(a.address)), ttl)),
                RData::CNAME(to) => alias = text(&to.0).map(|to| (to, ttl)),
                _ => {}
            }
        }
        found.retain(|(a, _)| usable(*a));
        match alias {
            Some(next) if found.is_empty() => (at, least) = next,
            _ => return found,
        }
    }
    Vec::new()
}

/// RFC 2181 section 8: with the highest bit set it counts as zero.
const fn seconds(ttl: u32) -> u32 {
    if ttl > i32::MAX as u32 { 0 } else { ttl }
}

/// Answers with such addresses mean "blocked", or are meant to lead astray.
fn usable(a: IpAddr) -> bool {
    let mapped = matches!(a, IpAddr::V6(a) if a.to_ipv4_mapped().is_some());
    let broadcast = a == IpAddr::V4(Ipv4Addr::BROADCAST);
    !(a.is_unspecified() || a.is_loopback() || a.is_multicast() || mapped || broadcast)
}

#[cfg(test)]
#[path = "answer_tests.rs"]
pub(crate) mod tests;
