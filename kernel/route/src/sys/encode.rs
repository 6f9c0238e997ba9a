//! Route messages, written and read.
//!
//! Promises: a message that cannot be read is `None`, never a wrong route; what is written
//! names all that identifies a route, so that a removal hits no other.
//!
//! Never: sends anything.

use crate::value::{Hop, Kind, Proto, Route, RouteKey, Scope, Table};
use net::{Cidr, Family, IfIndex};
use netlink::wire::{Attrs, Frame, Message, addr, af, family, u8_at, u16_at, u32_at};
use smallvec::SmallVec;
use std::net::IpAddr;

const RTM: usize = 12;
const RTNH: usize = 8;
const RTNH_F_ONLINK: u32 = 4;
const RTM_F_CLONED: u32 = 0x200;

fn header(family: Family, table: Table) -> [u8; RTM] {
    let mut b = [0; RTM];
    b[0] = af(family);
    // Eight bits of table; RTA_TABLE has all of it.
    b[4] = u8::try_from(table.0).unwrap_or(libc::RT_TABLE_UNSPEC);
    b
}

pub(super) fn list(table: Table, family: Family) -> Message {
    let mut m = Message::new(libc::RTM_GETROUTE, 0);
    m.raw(&header(family, table))
        .attr_u32(libc::RTA_TABLE, table.0);
    m
}

/// Which route packets to an address take: `RTM_F_FIB_MATCH` asks for the route itself.
pub(super) fn lookup(to: IpAddr) -> Message {
    const RTM_F_FIB_MATCH: u32 = 0x2000;
    let family = Family::of(to);
    let mut b = [0; RTM];
    b[0] = af(family);
    b[1] = Cidr::host(to).len();
    b[8..12].copy_from_slice(&RTM_F_FIB_MATCH.to_ne_bytes());
    let mut m = Message::new(libc::RTM_GETROUTE, 0);
    m.raw(&b).attr_addr(libc::RTA_DST, to);
    m
}

/// Writes the change of a route over what `m` holds.
pub(super) fn change(m: &mut Message, kind: u16, flags: i32, r: &Route) {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "NLM_F_* are 16 bits"
    )]
    m.begin(kind, flags as u16);
    let mut b = header(r.family(), r.key.table);
    b[1] = r.key.dst.len();
    b[5] = r.proto.0;
    b[6] = r.scope.number();
    b[7] = r.kind.number();
    if let [only] = r.hops.as_slice() {
        b[8..12].copy_from_slice(&hop_flags(only).to_ne_bytes());
    }
    m.raw(&b).attr_u32(libc::RTA_TABLE, r.key.table.0);
    m.attr_addr(libc::RTA_DST, r.key.dst.addr());
    // To IPv4, 0 and absent are one; IPv6 makes 1024 of 0, which `normal` did already.
    m.attr_u32(libc::RTA_PRIORITY, r.key.metric);
    if let Some(src) = r.src {
        m.attr_addr(libc::RTA_PREFSRC, src);
    }
    match r.hops.as_slice() {
        [] => {}
        [only] => {
            if let Some(dev) = only.dev {
                m.attr_u32(libc::RTA_OIF, dev.get());
            }
            gateway(m, r.family(), only.gateway);
        }
        several => {
            let nest = m.nest(libc::RTA_MULTIPATH);
            for h in several {
                let mut part = Message::new(0, 0);
                gateway(&mut part, r.family(), h.gateway);
                let attrs = &part.bytes()[16..];
                let mut b = [0; RTNH];
                let len = u16::try_from(RTNH + attrs.len()).unwrap_or(u16::MAX);
                b[0..2].copy_from_slice(&len.to_ne_bytes());
                b[2] = hop_flags(h).to_ne_bytes()[0];
                b[3] = u8::try_from(h.weight.clamp(1, 256) - 1).unwrap_or(0);
                b[4..8].copy_from_slice(&h.dev.map_or(0, IfIndex::get).to_ne_bytes());
                m.raw(&b).raw(attrs);
            }
            m.end(nest);
        }
    }
}

const fn hop_flags(h: &Hop) -> u32 {
    if h.onlink { RTNH_F_ONLINK } else { 0 }
}

fn gateway(m: &mut Message, family: Family, gateway: Option<IpAddr>) {
    match gateway {
        None => {}
        Some(g) if Family::of(g) == family => {
            m.attr_addr(libc::RTA_GATEWAY, g);
        }
        Some(g) => {
            // An IPv6 router for IPv4 (RFC 8950): family, then address.
            let mut via = u16::from(af(Family::of(g))).to_ne_bytes().to_vec();
            match g {
                IpAddr::V4(a) => via.extend(a.octets()),
                IpAddr::V6(a) => via.extend(a.octets()),
            }
            m.attr(libc::RTA_VIA, &via);
        }
    }
}

/// A route from `RTM_NEWROUTE` or `RTM_DELROUTE`. `None` for cache entries, for routes by
/// source prefix or TOS, and for other families: none of those is ever ours.
pub(super) fn parse(f: &Frame<'_>) -> Option<Route> {
    if !matches!(f.kind, libc::RTM_NEWROUTE | libc::RTM_DELROUTE) {
        return None;
    }
    let b = f.body;
    let family = family(u8_at(b, 0)?)?;
    let flags = u32_at(b, 8)?;
    if u8_at(b, 2)? != 0 || u8_at(b, 3)? != 0 || flags & RTM_F_CLONED != 0 {
        return None;
    }
    let mut table = u32::from(u8_at(b, 4)?);
    let mut dst = Cidr::any(family).addr();
    let mut metric = 0;
    let mut src = None;
    let mut hop = Hop {
        dev: None,
        gateway: None,
        onlink: flags & RTNH_F_ONLINK != 0,
        weight: 1,
    };
    let mut hops = SmallVec::new();
    for (kind, v) in Attrs::after(b, RTM) {
        match kind {
            libc::RTA_TABLE => table = u32_at(v, 0)?,
            libc::RTA_DST => dst = addr(v)?,
            libc::RTA_PRIORITY => metric = u32_at(v, 0)?,
            libc::RTA_PREFSRC => src = addr(v),
            libc::RTA_OIF => hop.dev = IfIndex::new(u32_at(v, 0)?),
            libc::RTA_GATEWAY => hop.gateway = addr(v),
            libc::RTA_VIA => hop.gateway = v.get(2..).and_then(addr),
            libc::RTA_MULTIPATH => hops = parse_hops(v)?,
            _ => {}
        }
    }
    if hops.is_empty() && (hop.dev.is_some() || hop.gateway.is_some()) {
        hops.push(hop);
    }
    let route = Route {
        key: RouteKey {
            table: Table(table),
            dst: Cidr::new(dst, u8_at(b, 1)?)?,
            metric,
        },
        kind: Kind::from_number(u8_at(b, 7)?),
        proto: Proto(u8_at(b, 5)?),
        scope: Scope::from_number(u8_at(b, 6)?),
        src,
        hops,
    };
    Some(route.normal())
}

fn parse_hops(mut b: &[u8]) -> Option<SmallVec<[Hop; 1]>> {
    let mut hops = SmallVec::new();
    while b.len() >= RTNH {
        let len = usize::from(u16_at(b, 0)?);
        let one = b.get(..len).filter(|_| len >= RTNH)?;
        let mut hop = Hop {
            dev: IfIndex::new(u32_at(one, 4)?),
            gateway: None,
            onlink: u32::from(u8_at(one, 2)?) & RTNH_F_ONLINK != 0,
            weight: u16::from(u8_at(one, 3)?) + 1,
        };
        for (kind, v) in Attrs::after(one, RTNH) {
            match kind {
                libc::RTA_GATEWAY => hop.gateway = addr(v),
                libc::RTA_VIA => hop.gateway = v.get(2..).and_then(addr),
                _ => {}
            }
        }
        hops.push(hop);
        b = b.get((len + 3) & !3..).unwrap_or(&[]);
    }
    Some(hops)
}

#[cfg(test)]
mod tests {
    use super::*;
    use netlink::wire::Frames;
    use proptest::prelude::*;

    fn two_hops() -> Route {
        let hop = |gw: &str, dev| Hop::via(gw.parse().unwrap(), IfIndex::new(dev).unwrap());
        let dst = "10.0.0.0/26".parse().unwrap();
        let mut r = Route::unicast(Table(70_000), dst, hop("192.0.2.1", 2), Proto::OURS);
        r.hops.push(Hop {
            weight: 256,
            onlink: true,
            ..hop("fe80::1", 3)
        });
        r.src = Some("192.0.2.9".parse().unwrap());
        r.normal()
    }

    fn written(r: &Route) -> Message {
        let mut m = Message::new(0, 0);
        change(&mut m, libc::RTM_NEWROUTE, 0, r);
        m
    }

    #[test]
    fn a_route_reads_back() {
        let m = written(&two_hops());
        assert_eq!(
            parse(&Frames::new(m.bytes()).next().unwrap()),
            Some(two_hops())
        );
    }

    proptest! {
        /// A valid message with bytes overwritten: read as something or nothing, no panic.
        #[test]
        fn damaged_messages_are_harmless(
            damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..20),
            cut: prop::sample::Index,
        ) {
            let mut body = written(&two_hops()).bytes()[16..].to_vec();
            for (at, b) in &damage {
                let at = at.index(body.len());
                body[at] = *b;
            }
            body.truncate(cut.index(body.len()) + 1);
            let _ = parse(&Frame { kind: libc::RTM_NEWROUTE, flags: 0, seq: 0, body: &body });
        }
    }
}
