//! Interface, address, neighbour and forwarding messages, written and read.
//!
//! Promises: a message that cannot be read is `None`, never a wrong value.
//!
//! Never: sends anything.

use crate::value::{Address, FdbEntry, Link, Neighbour, Scope, VethEnd, Vxlan};
use net::{Family, IfIndex, Mac};
use netlink::wire::{
    Attrs, Frame, Message, addr, af, family, text, u8_at, u16_at, u16_be_at, u32_at,
};
use std::net::IpAddr;

pub(super) const CREATE: u16 = (libc::NLM_F_CREATE | libc::NLM_F_EXCL) as u16;
pub(super) const REPLACE: u16 = (libc::NLM_F_CREATE | libc::NLM_F_REPLACE) as u16;

// linux/if_link.h, linux/veth.h, linux/neighbour.h; those that libc does not have.
const VETH_INFO_PEER: u16 = 1;
const IFLA_VXLAN_ID: u16 = 1;
const IFLA_VXLAN_LINK: u16 = 3;
const IFLA_VXLAN_LOCAL: u16 = 4;
const IFLA_VXLAN_LEARNING: u16 = 7;
const IFLA_VXLAN_PORT: u16 = 15;
const IFLA_VXLAN_LOCAL6: u16 = 17;
const IFLA_VXLAN_UDP_CSUM: u16 = 18;
const IFLA_VXLAN_UDP_ZERO_CSUM6_RX: u16 = 20;
const IFLA_INET6_ADDR_GEN_MODE: u16 = 8;
const IN6_ADDR_GEN_MODE_NONE: u8 = 1;
const RTEXT_FILTER_SKIP_STATS: u32 = 1 << 3;
const IFA_FLAGS: u16 = 8;
const NDA_IFINDEX: u16 = 8;
const NTF_SELF: u8 = 0x02;
const NTF_PROXY: u8 = 0x08;
const NUD_PERMANENT: u16 = 0x80;
const UP: u32 = libc::IFF_UP as u32;

const IFINFO: usize = 16;
const IFADDR: usize = 8;
const ND: usize = 12;

fn ifinfo(index: u32, flags: u32, change: u32) -> [u8; IFINFO] {
    let mut b = [0; IFINFO];
    b[4..8].copy_from_slice(&index.to_ne_bytes());
    b[8..12].copy_from_slice(&flags.to_ne_bytes());
    b[12..16].copy_from_slice(&change.to_ne_bytes());
    b
}

/// A request on an interface, or for a new one (`None`).
pub(super) fn link(kind: u16, flags: u16, index: Option<IfIndex>, up: Option<bool>) -> Message {
    let mut m = Message::new(kind, flags);
    let change = if up.is_some() { UP } else { 0 };
    m.raw(&ifinfo(
        index.map_or(0, IfIndex::get),
        if up == Some(true) { UP } else { 0 },
        change,
    ));
    m
}

/// Attributes that both a veth's ends and any new device take.
pub(super) fn end(m: &mut Message, end: &VethEnd, queues: u32) {
    m.attr_str(libc::IFLA_IFNAME, end.name.as_str());
    if let Some(mac) = end.mac {
        m.attr(libc::IFLA_ADDRESS, &mac.0);
    }
    if let Some(mtu) = end.mtu {
        m.attr_u32(libc::IFLA_MTU, mtu);
    }
    if queues > 1 {
        m.attr_u32(libc::IFLA_NUM_TX_QUEUES, queues)
            .attr_u32(libc::IFLA_NUM_RX_QUEUES, queues);
    }
}

/// The veth part of a creation: the far end and where it goes.
pub(super) fn veth_peer(m: &mut Message, there: &VethEnd, queues: u32, netns_fd: Option<u32>) {
    let info = m.nest(libc::IFLA_LINKINFO);
    m.attr_str(libc::IFLA_INFO_KIND, "veth");
    let data = m.nest(libc::IFLA_INFO_DATA);
    let peer = m.nest(VETH_INFO_PEER);
    m.raw(&ifinfo(0, 0, 0));
    end(m, there, queues);
    if let Some(fd) = netns_fd {
        m.attr_u32(libc::IFLA_NET_NS_FD, fd);
    }
    m.end(peer).end(data).end(info);
}

/// The kind of a device without parameters.
pub(super) fn plain_kind(m: &mut Message, kind: &str) {
    let info = m.nest(libc::IFLA_LINKINFO);
    m.attr_str(libc::IFLA_INFO_KIND, kind);
    m.end(info);
}

pub(super) fn vxlan(m: &mut Message, v: &Vxlan) {
    m.attr_str(libc::IFLA_IFNAME, v.name.as_str());
    m.attr(libc::IFLA_ADDRESS, &v.mac.0)
        .attr_u32(libc::IFLA_MTU, v.mtu);
    let info = m.nest(libc::IFLA_LINKINFO);
    m.attr_str(libc::IFLA_INFO_KIND, "vxlan");
    let data = m.nest(libc::IFLA_INFO_DATA);
    m.attr_u32(IFLA_VXLAN_ID, v.vni)
        .attr_u16_be(IFLA_VXLAN_PORT, v.port);
    m.attr_u8(IFLA_VXLAN_LEARNING, u8::from(v.learning));
    match v.local {
        Some(a @ IpAddr::V4(_)) => {
            m.attr_addr(IFLA_VXLAN_LOCAL, a);
            // Peers that are not ours send without a checksum by default and accept either.
            m.attr_u8(IFLA_VXLAN_UDP_CSUM, 0);
        }
        Some(a @ IpAddr::V6(_)) => {
            m.attr_addr(IFLA_VXLAN_LOCAL6, a);
            // UDP over IPv6 must be summed (RFC 8200 section 8.1); accept peers that do not
            // (RFC 6935).
            m.attr_u8(IFLA_VXLAN_UDP_ZERO_CSUM6_RX, 1);
        }
        None => {}
    }
    if let Some(p) = v.parent {
        m.attr_u32(IFLA_VXLAN_LINK, p.get());
    }
    m.end(data).end(info);
}

pub(super) fn no_link_local(index: IfIndex) -> Message {
    let mut m = link(libc::RTM_SETLINK, 0, Some(index), None);
    let spec = m.nest(libc::IFLA_AF_SPEC);
    let v6 = m.nest(libc::AF_INET6 as u16);
    m.attr_u8(IFLA_INET6_ADDR_GEN_MODE, IN6_ADDR_GEN_MODE_NONE);
    m.end(v6).end(spec);
    m
}

pub(super) fn list_links() -> Message {
    let mut m = link(libc::RTM_GETLINK, 0, None, None);
    m.attr_u32(libc::IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS);
    m
}

/// A link from `RTM_NEWLINK` or `RTM_DELLINK`. `None` for bridge-port notifications, which
/// share the type and are not about the interface itself.
pub(super) fn parse_link(f: &Frame<'_>) -> Option<Link> {
    if !matches!(f.kind, libc::RTM_NEWLINK | libc::RTM_DELLINK) || u8_at(f.body, 0)? != 0 {
        return None;
    }
    let flags = u32_at(f.body, 8)?;
    let (_, name) = Attrs::after(f.body, IFINFO).find(|(kind, _)| *kind == libc::IFLA_IFNAME)?;
    let mut link = Link {
        index: IfIndex::new(u32_at(f.body, 4)?)?,
        name: text(name)?.parse().ok()?,
        mac: None,
        mtu: 0,
        up: flags & UP != 0,
        running: flags & libc::IFF_RUNNING as u32 != 0,
        kind: String::new(),
        master: None,
        parent: None,
        peer_elsewhere: false,
        vxlan: None,
    };
    let mut data = None;
    for (kind, v) in Attrs::after(f.body, IFINFO) {
        match kind {
            libc::IFLA_ADDRESS => link.mac = <[u8; 6]>::try_from(v).ok().map(Mac),
            libc::IFLA_MTU => link.mtu = u32_at(v, 0)?,
            libc::IFLA_MASTER => link.master = IfIndex::new(u32_at(v, 0)?),
            libc::IFLA_LINK => link.parent = IfIndex::new(u32_at(v, 0)?),
            // Present even when the kernel has no number for the other namespace (-1).
            libc::IFLA_LINK_NETNSID => link.peer_elsewhere = true,
            libc::IFLA_LINKINFO => {
                for (kind, v) in Attrs::nested(v) {
                    match kind {
                        libc::IFLA_INFO_KIND => link.kind = text(v)?.to_owned(),
                        libc::IFLA_INFO_DATA => data = Some(v),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    if link.kind == "vxlan" {
        link.vxlan = data.and_then(|d| parse_vxlan(d, &link));
    }
    Some(link)
}

fn parse_vxlan(data: &[u8], link: &Link) -> Option<Vxlan> {
    let mut v = Vxlan {
        name: link.name,
        vni: 0,
        local: None,
        parent: None,
        port: 0,
        mac: link.mac?,
        mtu: link.mtu,
        learning: false,
    };
    for (kind, b) in Attrs::nested(data) {
        match kind {
            IFLA_VXLAN_ID => v.vni = u32_at(b, 0)?,
            IFLA_VXLAN_LINK => v.parent = IfIndex::new(u32_at(b, 0)?),
            IFLA_VXLAN_LOCAL | IFLA_VXLAN_LOCAL6 => v.local = addr(b),
            IFLA_VXLAN_LEARNING => v.learning = u8_at(b, 0)? != 0,
            IFLA_VXLAN_PORT => v.port = u16_be_at(b, 0)?,
            _ => {}
        }
    }
    Some(v)
}

pub(super) fn address(kind: u16, flags: u16, dev: Option<IfIndex>, a: Option<&Address>) -> Message {
    let mut m = Message::new(kind, flags);
    let mut b = [0; IFADDR];
    b[4..8].copy_from_slice(&dev.map_or(0, IfIndex::get).to_ne_bytes());
    let Some(a) = a else {
        m.raw(&b);
        return m;
    };
    b[0] = af(Family::of(a.addr));
    b[1] = a.len;
    b[3] = match a.scope {
        Scope::Universe => libc::RT_SCOPE_UNIVERSE,
        Scope::Link => libc::RT_SCOPE_LINK,
        Scope::Host => libc::RT_SCOPE_HOST,
    };
    m.raw(&b)
        .attr_addr(libc::IFA_LOCAL, a.addr)
        .attr_addr(libc::IFA_ADDRESS, a.addr);
    if a.nodad && a.addr.is_ipv6() {
        m.attr_u32(IFA_FLAGS, libc::IFA_F_NODAD);
    }
    m
}

pub(super) fn parse_address(f: &Frame<'_>) -> Option<(IfIndex, Address)> {
    if !matches!(f.kind, libc::RTM_NEWADDR | libc::RTM_DELADDR) {
        return None;
    }
    let mut flags = u32::from(u8_at(f.body, 2)?);
    let (mut local, mut other) = (None, None);
    for (kind, v) in Attrs::after(f.body, IFADDR) {
        match kind {
            libc::IFA_LOCAL => local = addr(v),
            libc::IFA_ADDRESS => other = addr(v),
            IFA_FLAGS => flags = u32_at(v, 0)?,
            _ => {}
        }
    }
    let scope = match u8_at(f.body, 3)? {
        libc::RT_SCOPE_UNIVERSE => Scope::Universe,
        libc::RT_SCOPE_HOST => Scope::Host,
        _ => Scope::Link,
    };
    let index = IfIndex::new(u32_at(f.body, 4)?)?;
    let nodad = flags & libc::IFA_F_NODAD != 0;
    // IFA_LOCAL is ours on point-to-point links, where IFA_ADDRESS is the far side.
    Some((
        index,
        Address {
            addr: local.or(other)?,
            len: u8_at(f.body, 1)?,
            scope,
            nodad,
        },
    ))
}

fn nd(family: u8, dev: u32, state: u16, flags: u8) -> [u8; ND] {
    let mut b = [0; ND];
    b[0] = family;
    b[4..8].copy_from_slice(&dev.to_ne_bytes());
    b[8..10].copy_from_slice(&state.to_ne_bytes());
    b[10] = flags;
    b
}

pub(super) fn neighbour(kind: u16, flags: u16, n: &Neighbour) -> Message {
    let mut m = Message::new(kind, flags);
    let own = if n.proxy { NTF_PROXY } else { 0 };
    m.raw(&nd(af(Family::of(n.addr)), n.dev.get(), NUD_PERMANENT, own));
    m.attr_addr(libc::NDA_DST, n.addr);
    if let Some(mac) = n.mac.filter(|_| !n.proxy) {
        m.attr(libc::NDA_LLADDR, &mac.0);
    }
    m
}

pub(super) fn list_neighbours(dev: Option<IfIndex>, proxy: bool) -> Message {
    let mut m = Message::new(libc::RTM_GETNEIGH, 0);
    m.raw(&nd(0, 0, 0, if proxy { NTF_PROXY } else { 0 }));
    // The kernel filters ordinary entries by device; proxy ones are filtered by the reader.
    if let Some(dev) = dev {
        m.attr_u32(NDA_IFINDEX, dev.get());
    }
    m
}

pub(super) fn fdb(kind: u16, flags: u16, e: &FdbEntry) -> Message {
    let mut m = Message::new(kind, flags);
    m.raw(&nd(
        libc::AF_BRIDGE as u8,
        e.dev.get(),
        NUD_PERMANENT,
        NTF_SELF,
    ));
    m.attr(libc::NDA_LLADDR, &e.mac.0)
        .attr_addr(libc::NDA_DST, e.dst);
    m
}

pub(super) fn list_fdb(dev: IfIndex) -> Message {
    let mut m = Message::new(libc::RTM_GETNEIGH, 0);
    m.raw(&nd(libc::AF_BRIDGE as u8, dev.get(), 0, 0));
    m
}

/// Neighbour or forwarding entry, whichever the message is about.
pub(super) enum Entry {
    Neighbour(Neighbour),
    Fdb(FdbEntry),
}

pub(super) fn parse_entry(f: &Frame<'_>) -> Option<Entry> {
    if !matches!(f.kind, libc::RTM_NEWNEIGH | libc::RTM_DELNEIGH) {
        return None;
    }
    let af = u8_at(f.body, 0)?;
    let dev = IfIndex::new(u32_at(f.body, 4)?)?;
    let (state, flags) = (u16_at(f.body, 8)?, u8_at(f.body, 10)?);
    let (mut dst, mut mac) = (None, None);
    for (kind, v) in Attrs::after(f.body, ND) {
        match kind {
            libc::NDA_DST => dst = addr(v),
            libc::NDA_LLADDR => mac = <[u8; 6]>::try_from(v).ok().map(Mac),
            _ => {}
        }
    }
    if i32::from(af) == libc::AF_BRIDGE {
        // Entries without an outer destination are those of bridges and multicast filters.
        return Some(Entry::Fdb(FdbEntry {
            dev,
            mac: mac?,
            dst: dst?,
        }));
    }
    family(af)?;
    Some(Entry::Neighbour(Neighbour {
        dev,
        addr: dst?,
        mac,
        permanent: state & NUD_PERMANENT != 0,
        proxy: flags & NTF_PROXY != 0,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use netlink::wire::Frames;
    use proptest::prelude::*;

    proptest! {
        /// A valid message with bytes overwritten: read as something or nothing, no panic.
        #[test]
        fn damaged_messages_are_harmless(
            damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..20),
            cut: prop::sample::Index,
            kind in 16u16..31,
        ) {
            let mut m = link(kind, 0, IfIndex::new(3), Some(true));
            let v = Vxlan {
                name: "vxlan.calico".parse().unwrap(),
                vni: 4096,
                local: Some("192.0.2.1".parse().unwrap()),
                parent: IfIndex::new(2),
                port: 4789,
                mac: Mac([2; 6]),
                mtu: 1450,
                learning: false,
            };
            vxlan(&mut m, &v);
            let mut bytes = m.bytes()[16..].to_vec();
            for (at, b) in &damage {
                let at = at.index(bytes.len());
                bytes[at] = *b;
            }
            bytes.truncate(cut.index(bytes.len()) + 1);
            let f = Frame { kind, flags: 0, seq: 0, body: &bytes };
            let _ = (parse_link(&f), parse_address(&f), parse_entry(&f).is_some());
            let _ = Frames::new(&bytes).count();
        }
    }

    #[test]
    fn a_vxlan_link_reads_back() {
        let v = Vxlan {
            name: "vxlan.calico".parse().unwrap(),
            vni: 4096,
            local: Some("2001:db8::1".parse().unwrap()),
            parent: IfIndex::new(2),
            port: 4789,
            mac: Mac([2; 6]),
            mtu: 1430,
            learning: true,
        };
        let mut m = link(libc::RTM_NEWLINK, 0, IfIndex::new(3), Some(true));
        vxlan(&mut m, &v);
        let read = parse_link(&Frames::new(m.bytes()).next().unwrap()).unwrap();
        assert_eq!(read.vxlan, Some(v));
        assert!(read.up);
    }
}
