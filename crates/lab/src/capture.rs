//! Packets as one line each, outer and inner.
//!
//! Promises: any bytes give a line or nothing; VXLAN and IP in IP are looked into.
//!
//! Never: captures.

use net::Protocol;
use std::net::{Ipv4Addr, Ipv6Addr};

const VXLAN_PORT: u16 = 4789;
const IPIP: u8 = 4;
const IPV6_IN_IP: u8 = 41;

/// One line for an Ethernet frame; `None` for what is neither IPv4 nor IPv6, and for
/// neighbour discovery.
pub(crate) fn frame(bytes: &[u8]) -> Option<String> {
    match u16_at(bytes, 12)? {
        0x0800 | 0x86dd => packet(&bytes[14..]),
        _ => None,
    }
}

fn u16_at(b: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(b.get(at..at + 2)?.try_into().ok()?))
}

fn packet(p: &[u8]) -> Option<String> {
    match p.first()? >> 4 {
        4 => {
            let header = usize::from(p[0] & 0xf) * 4;
            let (ttl, protocol) = (*p.get(8)?, *p.get(9)?);
            let source = Ipv4Addr::from(<[u8; 4]>::try_from(p.get(12..16)?).ok()?);
            let destination = Ipv4Addr::from(<[u8; 4]>::try_from(p.get(16..20)?).ok()?);
            let rest = payload(protocol, p.get(header..)?)?;
            Some(format!("{source} > {destination} ttl {ttl}: {rest}"))
        }
        6 => {
            let (protocol, ttl) = (*p.get(6)?, *p.get(7)?);
            let source = Ipv6Addr::from(<[u8; 16]>::try_from(p.get(8..24)?).ok()?);
            let destination = Ipv6Addr::from(<[u8; 16]>::try_from(p.get(24..40)?).ok()?);
            let rest = payload(protocol, p.get(40..)?)?;
            Some(format!("{source} > {destination} ttl {ttl}: {rest}"))
        }
        _ => None,
    }
}

fn payload(protocol: u8, b: &[u8]) -> Option<String> {
    let ports = || Some((u16_at(b, 0)?, u16_at(b, 2)?));
    Some(match Protocol(protocol) {
        Protocol::UDP => {
            let (from, to) = ports()?;
            if to == VXLAN_PORT
                && let (Some(vni), Some(inner)) = (b.get(12..15), b.get(16..))
            {
                let vni = u32::from_be_bytes([0, vni[0], vni[1], vni[2]]);
                let inner = frame(inner).unwrap_or_else(|| "no IP".to_owned());
                return Some(format!("VXLAN vni {vni} {{ {inner} }}"));
            }
            format!("UDP {from} > {to}")
        }
        Protocol::TCP => {
            let (from, to) = ports()?;
            let flags = *b.get(13)?;
            let names = [(2, "SYN"), (16, "ACK"), (1, "FIN"), (4, "RST"), (8, "PSH")];
            let set: Vec<&str> = names
                .iter()
                .filter(|(bit, _)| flags & bit != 0)
                .map(|(_, n)| *n)
                .collect();
            format!("TCP {from} > {to} {}", set.join(","))
        }
        Protocol::SCTP => {
            let (from, to) = ports()?;
            format!("SCTP {from} > {to}")
        }
        Protocol::ICMP => match *b.first()? {
            8 => "ICMP echo request".to_owned(),
            0 => "ICMP echo reply".to_owned(),
            t => format!("ICMP type {t} code {}", b.get(1)?),
        },
        Protocol::ICMPV6 => match *b.first()? {
            128 => "ICMPv6 echo request".to_owned(),
            129 => "ICMPv6 echo reply".to_owned(),
            // Router and neighbour discovery, multicast membership: the fabric's own noise.
            130..=137 | 143 => return None,
            t => format!("ICMPv6 type {t} code {}", b.get(1)?),
        },
        Protocol(IPIP | IPV6_IN_IP) => format!("IP in IP {{ {} }}", packet(b)?),
        Protocol(0) => return None,
        other => format!("protocol {other}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn v4(protocol: u8, ttl: u8, body: &[u8]) -> Vec<u8> {
        let mut p = vec![
            0x45, 0, 0, 0, 0, 0, 0, 0, ttl, protocol, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2,
        ];
        p.extend_from_slice(body);
        p
    }

    fn ethernet(packet: &[u8]) -> Vec<u8> {
        let mut f = vec![0; 12];
        f.extend_from_slice(&[8, 0]);
        f.extend_from_slice(packet);
        f
    }

    #[test]
    fn plain_and_encapsulated() {
        let ping = v4(1, 63, &[8, 0, 0, 0]);
        assert_eq!(
            frame(&ethernet(&ping)).as_deref(),
            Some("10.0.0.1 > 10.0.0.2 ttl 63: ICMP echo request")
        );
        let mut vxlan = vec![0x80, 0, 0x12, 0xb5, 0, 0, 0, 0, 8, 0, 0, 0, 0, 0x10, 0, 0];
        vxlan.extend(ethernet(&ping));
        assert_eq!(
            frame(&ethernet(&v4(17, 64, &vxlan))).as_deref(),
            Some(
                "10.0.0.1 > 10.0.0.2 ttl 64: VXLAN vni 4096 { 10.0.0.1 > 10.0.0.2 ttl 63: ICMP \
                 echo request }"
            )
        );
        assert_eq!(
            frame(&ethernet(&v4(4, 64, &ping))).as_deref(),
            Some(
                "10.0.0.1 > 10.0.0.2 ttl 64: IP in IP { 10.0.0.1 > 10.0.0.2 ttl 63: ICMP echo \
                 request }"
            )
        );
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes: Vec<u8>) {
            let _ = frame(&bytes);
            let _ = packet(&bytes);
        }
    }
}
