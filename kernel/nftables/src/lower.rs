//! Rules and elements in the kernel's terms: expressions and key bytes.
//!
//! Promises: pure; each expression list does what the rule's text says, no more; conditions
//! that several matches imply (family, protocol) are tested once.
//! Never: sends or reads anything.

use crate::value::*;
use net::{Cidr, Family, IfName, PortRange, Protocol};
use netlink::nft::{Ct, Exprs, Fib, Header, Meta, Nat, R, key_type};
use std::net::IpAddr;

mod sets;
pub(crate) use sets::*;

const IFNAME_LEN: usize = 16;
/// `IPS_DST_NAT` of `nf_conntrack_common.h`.
const CT_DST_NAT: u32 = 1 << 5;
/// Where the sender's IPv4 address stands in an ARP packet of Ethernet (RFC 826).
const ARP_SENDER: u32 = 14;

const fn nfproto(f: Family) -> u8 {
    match f {
        Family::V4 => 2,
        Family::V6 => 10,
    }
}

const fn addr_len(f: Family) -> u32 {
    match f {
        Family::V4 => 4,
        Family::V6 => 16,
    }
}

const fn addr_type(f: Family) -> u32 {
    match f {
        Family::V4 => key_type::IPV4,
        Family::V6 => key_type::IPV6,
    }
}

/// Where an address stands in the IP header.
const fn addr_offset(f: Family, side: Side) -> u32 {
    match (f, side) {
        (Family::V4, Side::Source) => 12,
        (Family::V4, Side::Destination) => 16,
        (Family::V6, Side::Source) => 8,
        (Family::V6, Side::Destination) => 24,
    }
}

const fn port_offset(side: Side) -> u32 {
    match side {
        Side::Source => 0,
        Side::Destination => 2,
    }
}

fn addr_bytes(a: IpAddr) -> Vec<u8> {
    match a {
        IpAddr::V4(a) => a.octets().to_vec(),
        IpAddr::V6(a) => a.octets().to_vec(),
    }
}

fn ifname_bytes(i: &IfName) -> [u8; IFNAME_LEN] {
    let mut out = [0; IFNAME_LEN];
    out[..i.as_str().len()].copy_from_slice(i.as_str().as_bytes());
    out
}

/// Writes the expressions of a rule.
pub(crate) fn rule(rule: &Rule, e: &mut Exprs) {
    e.clear();
    let mut known = Known::default();
    for m in &rule.matches {
        matching(m, e, &mut known);
    }
    for s in &rule.statements {
        statement(s, e, &mut known);
    }
    if let Some(v) = &rule.verdict {
        e.verdict(verdict(v));
    }
}

/// What the expressions so far have already made sure of.
#[derive(Default)]
struct Known {
    family: Option<Family>,
    proto: Option<Protocol>,
}

impl Known {
    fn family(&mut self, f: Family, e: &mut Exprs) {
        if self.family != Some(f) {
            e.meta(Meta::NfProto, R(0));
            e.cmp(R(0), false, &[nfproto(f)]);
            self.family = Some(f);
        }
    }

    fn proto(&mut self, p: Protocol, e: &mut Exprs) {
        if self.proto != Some(p) {
            e.meta(Meta::L4Proto, R(0));
            e.cmp(R(0), false, &[p.0]);
            self.proto = Some(p);
        }
    }
}

fn matching(m: &Match, e: &mut Exprs, known: &mut Known) {
    match m {
        Match::IifName { pattern, negate } => interface(Meta::IifName, pattern, *negate, e),
        Match::OifName { pattern, negate } => interface(Meta::OifName, pattern, *negate, e),
        Match::NfProto(f) => known.family(*f, e),
        Match::L4Proto {
            proto,
            negate: false,
        } => known.proto(*proto, e),
        Match::L4Proto {
            proto,
            negate: true,
        } => {
            e.meta(Meta::L4Proto, R(0));
            e.cmp(R(0), true, &[proto.0]);
        }
        Match::Addr { side, nets, negate } => {
            known.family(nets.family(), e);
            addresses(*side, nets, *negate, e);
        }
        Match::AddrInSet {
            side,
            family,
            set,
            negate,
        } => {
            known.family(*family, e);
            load_addr(*family, *side, R(0), e);
            e.lookup(set.as_str(), R(0), *negate);
        }
        Match::AddrPortInSet {
            side,
            family,
            set,
            negate,
        } => {
            known.family(*family, e);
            let words = addr_len(*family) / 4;
            load_addr(*family, *side, R(0), e);
            e.meta(Meta::L4Proto, R(words));
            e.payload(Header::Transport, port_offset(*side), 2, R(words + 1));
            e.lookup(set.as_str(), R(0), *negate);
        }
        Match::NetPairInSet {
            family,
            set,
            negate,
        } => {
            known.family(*family, e);
            load_addr(*family, Side::Source, R(0), e);
            load_addr(*family, Side::Destination, R(addr_len(*family) / 4), e);
            e.lookup(set.as_str(), R(0), *negate);
        }
        Match::Ports {
            side,
            ports,
            negate,
        } => {
            e.payload(Header::Transport, port_offset(*side), 2, R(0));
            port_list(ports.as_slice(), *negate, e);
        }
        Match::Icmp {
            family,
            kind,
            code,
            negate,
        } => {
            known.proto(icmp_proto(*family), e);
            match code {
                None => {
                    e.payload(Header::Transport, 0, 1, R(0));
                    e.cmp(R(0), *negate, &[*kind]);
                }
                // Type and code at once: negated, this is NOT(both equal).
                Some(code) => {
                    e.payload(Header::Transport, 0, 2, R(0));
                    e.cmp(R(0), *negate, &[*kind, *code]);
                }
            }
        }
        Match::CtState { states, negate } => bits(Ct::State, states.bits(), !*negate, e),
        Match::CtDnat { negate } => bits(Ct::Status, CT_DST_NAT, !*negate, e),
        Match::Mark {
            mask,
            value,
            negate,
        } => {
            e.meta(Meta::Mark, R(0));
            if *mask != u32::MAX {
                e.bitwise(R(0), R(0), &mask.to_ne_bytes(), &[0; 4]);
            }
            e.cmp(R(0), *negate, &value.to_ne_bytes());
        }
        Match::FibLocal { side, negate } => fib_type(*side, AddrType::Local, *negate, e),
        Match::RpfMissing => {
            e.fib(Fib::ReversePath, R(0));
            e.cmp(R(0), false, &[0; 4]);
        }
        Match::IfAddrInSet {
            interface,
            side,
            family,
            set,
            negate,
        } => {
            known.family(*family, e);
            e.meta(interface_key(*interface), R(0));
            load_addr(*family, *side, R(4), e);
            e.lookup(set.as_str(), R(0), *negate);
        }
        Match::Dscp {
            family,
            dscp,
            negate,
        } => {
            known.family(*family, e);
            let d = dscp_field(*family);
            e.payload(Header::Network, d.offset, d.len, R(0));
            let n = d.len as usize;
            e.bitwise(R(0), R(0), &d.mask[..n], &[0; 2][..n]);
            e.cmp(R(0), *negate, &d.value(*dscp)[..n]);
        }
        Match::CtOriginalAddr { side, nets, negate } => {
            let f = nets.family();
            original_address(*side, nets, *negate, e);
            // The kernel has told the family by giving the address.
            known.family = Some(f);
        }
        Match::CtOriginalPorts {
            side,
            ports,
            negate,
        } => {
            let key = match side {
                Side::Source => Ct::ProtoSrc,
                Side::Destination => Ct::ProtoDst,
            };
            e.ct_original(key, R(0));
            port_list(ports.as_slice(), *negate, e);
        }
        Match::FibType { side, kind, negate } => fib_type(*side, *kind, *negate, e),
        Match::ArpOperation(op) => {
            e.payload(Header::Network, 6, 2, R(0));
            e.cmp(R(0), false, &(*op as u16).to_be_bytes());
        }
        Match::ArpSenderInSet {
            interface,
            set,
            negate,
        } => {
            e.meta(interface_key(*interface), R(0));
            e.payload(Header::Network, ARP_SENDER, 4, R(4));
            e.lookup(set.as_str(), R(0), *negate);
        }
    }
}

fn fib_type(side: Side, kind: AddrType, negate: bool, e: &mut Exprs) {
    let what = match side {
        Side::Source => Fib::SourceType,
        Side::Destination => Fib::DestinationType,
    };
    e.fib(what, R(0));
    e.cmp(R(0), negate, &(kind as u32).to_ne_bytes());
}

const fn interface_key(key: VMapKey) -> Meta {
    match key {
        VMapKey::IifName => Meta::IifName,
        VMapKey::OifName => Meta::OifName,
    }
}

/// Where the DSCP stands in the IP header.
struct DscpField {
    offset: u32,
    len: u32,
    mask: [u8; 2],
    shift: u32,
}

impl DscpField {
    /// The value in its place.
    fn value(&self, dscp: Dscp) -> [u8; 2] {
        let v = u16::from(dscp.get()) << self.shift;
        if self.len == 1 {
            [v.to_be_bytes()[1], 0]
        } else {
            v.to_be_bytes()
        }
    }
}

/// RFC 791 and RFC 8200, as RFC 2474 has it.
const fn dscp_field(f: Family) -> DscpField {
    match f {
        Family::V4 => DscpField {
            offset: 1,
            len: 1,
            mask: [0xfc, 0],
            shift: 2,
        },
        Family::V6 => DscpField {
            offset: 0,
            len: 2,
            mask: [0x0f, 0xc0],
            shift: 6,
        },
    }
}

/// Rewrites the first two bytes of the IP header: checksums go by two.
fn set_dscp(f: Family, dscp: Dscp, e: &mut Exprs) {
    let d = dscp_field(f);
    let value = (u16::from(dscp.get()) << d.shift).to_be_bytes();
    let keep: [u8; 2] = match f {
        Family::V4 => [0xff, !d.mask[0]],
        Family::V6 => [!d.mask[0], !d.mask[1]],
    };
    e.payload(Header::Network, 0, 2, R(0));
    e.bitwise(R(0), R(0), &keep, &value);
    let checksum = match f {
        Family::V4 => Some(10),
        Family::V6 => None,
    };
    e.payload_write(Header::Network, 0, 2, R(0), checksum);
}

/// ICMP and ICMPv6 each belong to one family; the protocol number says which.
const fn icmp_proto(f: Family) -> Protocol {
    match f {
        Family::V4 => Protocol::ICMP,
        Family::V6 => Protocol::ICMPV6,
    }
}

/// Connection bits: any of them set, or none.
fn bits(key: Ct, mask: u32, any: bool, e: &mut Exprs) {
    e.ct(key, R(0));
    e.bitwise(R(0), R(0), &mask.to_ne_bytes(), &[0; 4]);
    e.cmp(R(0), any, &[0; 4]);
}

fn interface(key: Meta, pattern: &IfPattern, negate: bool, e: &mut Exprs) {
    e.meta(key, R(0));
    match pattern {
        IfPattern::Exact(i) => e.cmp(R(0), negate, &ifname_bytes(i)),
        IfPattern::Prefix(i) => e.cmp(R(0), negate, i.as_str().as_bytes()),
        IfPattern::InSet(s) => e.lookup(s.as_str(), R(0), negate),
    }
}

fn load_addr(f: Family, side: Side, to: R, e: &mut Exprs) {
    e.payload(Header::Network, addr_offset(f, side), addr_len(f), to);
}

fn addresses(side: Side, nets: &NetList, negate: bool, e: &mut Exprs) {
    let f = nets.family();
    if let [one] = nets.as_slice() {
        let offset = addr_offset(f, side);
        let len = one.len();
        if len == 0 && !negate {
            // Every address of the family, which has been tested.
            return;
        }
        if len.is_multiple_of(8) && len > 0 {
            let n = u32::from(len / 8);
            e.payload(Header::Network, offset, n, R(0));
            e.cmp(R(0), negate, &addr_bytes(one.addr())[..n as usize]);
            return;
        }
    }
    load_addr(f, side, R(0), e);
    address_list(nets, negate, e);
}

fn original_address(side: Side, nets: &NetList, negate: bool, e: &mut Exprs) {
    let key = match (nets.family(), side) {
        (Family::V4, Side::Source) => Ct::SrcIp,
        (Family::V4, Side::Destination) => Ct::DstIp,
        (Family::V6, Side::Source) => Ct::SrcIp6,
        (Family::V6, Side::Destination) => Ct::DstIp6,
    };
    e.ct_original(key, R(0));
    address_list(nets, negate, e);
}

/// The address in the first registers.
fn address_list(nets: &NetList, negate: bool, e: &mut Exprs) {
    let f = nets.family();
    if let [one] = nets.as_slice() {
        if !one.is_host() {
            let mask = addr_bytes(mask(f, one.len()));
            e.bitwise(R(0), R(0), &mask, &vec![0; mask.len()]);
        }
        e.cmp(R(0), negate, &addr_bytes(one.addr()));
        return;
    }
    let interval = !nets.as_slice().iter().all(|c| c.is_host());
    let mut elements = Vec::with_capacity(nets.as_slice().len() * 2);
    for c in nets.as_slice() {
        elements.push((addr_bytes(c.addr()), false));
        elements.extend(interval.then(|| after(*c)).flatten().map(|end| (end, true)));
    }
    e.lookup_anonymous(R(0), addr_type(f), addr_len(f), interval, elements, negate);
}

fn mask(f: Family, len: u8) -> IpAddr {
    let host = Cidr::new(f.addr(0), len).map_or(0, |c| Family::bits_of(c.last()));
    let all = Family::bits_of(Cidr::any(f).last());
    f.addr(all & !host)
}

/// The key right after a prefix; `None` where the space ends with it.
fn after(c: Cidr) -> Option<Vec<u8>> {
    let last = Family::bits_of(c.last());
    let end = Family::bits_of(Cidr::any(c.family()).last());
    (last != end).then(|| addr_bytes(c.family().addr(last + 1)))
}

/// The port in the first register.
fn port_list(ports: &[PortRange], negate: bool, e: &mut Exprs) {
    let be = u16::to_be_bytes;
    match ports {
        [r] if r.first() == r.last() => e.cmp(R(0), negate, &be(r.first())),
        [r] => e.range(R(0), negate, &be(r.first()), &be(r.last())),
        many => {
            let interval = many.iter().any(|r| r.first() != r.last());
            let mut elements = Vec::with_capacity(many.len() * 2);
            for r in many {
                elements.push((be(r.first()).to_vec(), false));
                let end = r.last().checked_add(1).filter(|_| interval);
                elements.extend(end.map(|p| (be(p).to_vec(), true)));
            }
            e.lookup_anonymous(R(0), key_type::SERVICE, 2, interval, elements, negate);
        }
    }
}

fn statement(s: &Statement, e: &mut Exprs, known: &mut Known) {
    match s {
        Statement::Counter => e.counter(),
        Statement::Log {
            prefix,
            to: LogTo::Kernel(level),
        } => {
            e.log_kernel(prefix.as_str(), *level as u8);
        }
        Statement::Log {
            prefix,
            to: LogTo::Group(g),
        } => e.log_group(prefix.as_str(), *g),
        Statement::Log {
            prefix,
            to:
                LogTo::GroupWith {
                    group,
                    snaplen,
                    threshold,
                },
        } => e.log_group_with(prefix.as_str(), *group, *snaplen, *threshold),
        Statement::Limit {
            rate,
            per,
            burst,
            over,
        } => e.limit(*rate, per.seconds(), *burst, *over),
        Statement::SetMark {
            mask: u32::MAX,
            value,
        } => {
            e.immediate(R(0), &value.to_ne_bytes());
            e.meta_set(Meta::Mark, R(0));
        }
        Statement::SetMark { mask, value } => {
            e.meta(Meta::Mark, R(0));
            e.bitwise(
                R(0),
                R(0),
                &(!mask).to_ne_bytes(),
                &(value & mask).to_ne_bytes(),
            );
            e.meta_set(Meta::Mark, R(0));
        }
        Statement::Notrack => e.notrack(),
        Statement::Masquerade {
            fully_random,
            ports,
        } => {
            let regs = ports.map(|p| load_ports(p, R(0), e));
            e.masquerade(*fully_random, regs);
        }
        Statement::Snat { addr, ports } => translate(Nat::Source, *addr, *ports, e),
        Statement::Dnat { addr, port } => {
            translate(Nat::Destination, *addr, port.map(PortRange::one), e);
        }
        Statement::VMap { key, map } => {
            e.meta(interface_key(*key), R(0));
            e.vmap(map.as_str(), R(0));
        }
        Statement::CtCount { over } => e.ct_count(*over),
        Statement::SetDscp { family, dscp } => {
            known.family(*family, e);
            set_dscp(*family, *dscp, e);
        }
        Statement::DnatMap { family, map } => {
            translate_by(Nat::Destination, Side::Destination, *family, map, e, known);
        }
        Statement::SnatMap { family, map } => {
            translate_by(Nat::Source, Side::Source, *family, map, e, known);
        }
        Statement::Reject(Reject::AdminProhibited) => e.reject_admin_prohibited(),
        Statement::Reject(Reject::PortUnreachable) => e.reject_port_unreachable(),
        Statement::Reject(Reject::TcpReset) => {
            known.proto(Protocol::TCP, e);
            e.reject_tcp_reset();
        }
    }
}

fn load_ports(p: PortRange, to: R, e: &mut Exprs) -> (R, R) {
    e.immediate(to, &p.first().to_be_bytes());
    if p.first() == p.last() {
        return (to, to);
    }
    let second = R(to.0 + 1);
    e.immediate(second, &p.last().to_be_bytes());
    (to, second)
}

fn translate(nat: Nat, addr: IpAddr, ports: Option<PortRange>, e: &mut Exprs) {
    let f = Family::of(addr);
    e.immediate(R(0), &addr_bytes(addr));
    let regs = ports.map(|p| load_ports(p, R(addr_len(f) / 4), e));
    e.nat(nat, nfproto(f), R(0), regs);
}

fn translate_by(nat: Nat, side: Side, f: Family, map: &SetName, e: &mut Exprs, known: &mut Known) {
    known.family(f, e);
    load_addr(f, side, R(0), e);
    e.lookup_value(map.as_str(), R(0), R(0));
    e.nat(nat, nfproto(f), R(0), None);
}
