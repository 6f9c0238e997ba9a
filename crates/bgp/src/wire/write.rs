//! Writing messages.
//!
//! Promises: attributes are encoded once and many prefixes packed beside them, up to the
//! greatest message of the session; MP_REACH_NLRI comes first (RFC 7606, section 5.1),
//! the rest in the order of types. Never: decides what may be sent; LOCAL_PREF to an
//! external peer is written if it is there.

use super::attribute::{EXTENDED_LENGTH, OPTIONAL, PARTIAL, TRANSITIVE, flags_of};
use super::header::{HEADER_LEN, SHORT_MAX};
use super::{as4, capability, open};
use crate::attr::{Aggregator, Attributes, NextHop, code};
use crate::caps::Encoding;
use crate::error::{EncodeError, Notification};
use crate::message::{MessageKind, Open, RouteRefresh};
use crate::types::{AfiSafi, Nlri};
use net::Family;
use std::iter::Peekable;
use std::net::IpAddr;

/// Starts a message; [`finish`] puts in its length.
fn start(out: &mut Vec<u8>, kind: MessageKind) -> usize {
    let at = out.len();
    out.extend_from_slice(&[0xff; 16]);
    out.extend_from_slice(&[0, 0, kind as u8]);
    at
}

fn finish(out: &mut [u8], at: usize) {
    patch(out, at + 16, at);
}

/// Puts the length of what was written since `from` where room was left for it. What is
/// written is bounded beforehand, so that it fits.
fn patch(out: &mut [u8], at: usize, from: usize) {
    let len = u16::try_from(out.len() - from).unwrap_or(u16::MAX);
    out[at..at + 2].copy_from_slice(&len.to_be_bytes());
}

/// Appends an OPEN. Capabilities go in one parameter, in the long form where they take
/// more than a short one holds (RFC 9072).
///
/// # Errors
/// [`EncodeError::MessageTooLong`]; nothing is appended then.
pub fn write_open(open: &Open, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    let at = start(out, MessageKind::Open);
    out.push(open::VERSION);
    out.extend_from_slice(&as4::to_short(open.asn));
    out.extend_from_slice(&open.hold_time.to_be_bytes());
    out.extend_from_slice(&open.router_id.0.to_be_bytes());
    let mut caps = Vec::new();
    capability::write_all(&open.capabilities, &mut caps);
    let too_long = |octets| EncodeError::MessageTooLong {
        octets,
        limit: SHORT_MAX,
    };
    match u8::try_from(caps.len()) {
        Ok(0) => out.push(0),
        Ok(len @ ..=253) => {
            out.extend_from_slice(&[len + 2, open::PARAMETER_CAPABILITIES, len]);
        }
        _ => {
            let [h, l] = u16::try_from(caps.len()).unwrap_or(u16::MAX).to_be_bytes();
            let [ph, pl] = u16::try_from(caps.len() + 3)
                .unwrap_or(u16::MAX)
                .to_be_bytes();
            let kind = open::PARAMETER_CAPABILITIES;
            out.extend_from_slice(&[open::EXTENDED, open::EXTENDED, ph, pl, kind, h, l]);
        }
    }
    out.extend_from_slice(&caps);
    let octets = out.len() - at;
    if octets > SHORT_MAX {
        out.truncate(at);
        return Err(too_long(octets));
    }
    finish(out, at);
    Ok(())
}

/// Appends a KEEPALIVE.
pub fn write_keepalive(out: &mut Vec<u8>) {
    let at = start(out, MessageKind::Keepalive);
    finish(out, at);
}

/// Appends a NOTIFICATION; its data are cut to what fits 4096 octets.
pub fn write_notification(n: &Notification, out: &mut Vec<u8>) {
    let at = start(out, MessageKind::Notification);
    out.extend_from_slice(&[n.code.code, n.code.subcode]);
    out.extend_from_slice(&n.data[..n.data.len().min(SHORT_MAX - HEADER_LEN - 2)]);
    finish(out, at);
}

/// Appends a ROUTE-REFRESH.
pub fn write_refresh(r: RouteRefresh, out: &mut Vec<u8>) {
    let at = start(out, MessageKind::RouteRefresh);
    let [a, b] = r.family.afi.to_be_bytes();
    out.extend_from_slice(&[a, b, r.subtype.to_u8(), r.family.safi]);
    finish(out, at);
}

/// Appends the mark that all initial routes of the family were sent (RFC 4724,
/// section 2).
pub fn write_end_of_rib(family: Family, out: &mut Vec<u8>) {
    let at = start(out, MessageKind::Update);
    match family {
        Family::V4 => out.extend_from_slice(&[0; 4]),
        Family::V6 => {
            out.extend_from_slice(&[0, 0, 0, 6]);
            out.extend_from_slice(&[OPTIONAL, code::MP_UNREACH_NLRI, 3, 0, 2, 1]);
        }
    }
    finish(out, at);
}

/// Appends one UPDATE that withdraws as many routes as it holds; returns how many. All
/// must be of `family`; the first that is not ends the message. Nothing is appended when
/// there is none.
pub fn write_withdrawal<I: Iterator<Item = Nlri>>(
    family: Family,
    how: &Encoding,
    routes: &mut Peekable<I>,
    out: &mut Vec<u8>,
) -> usize {
    let at = start(out, MessageKind::Update);
    let end = at + how.max_len();
    let written = match family {
        Family::V4 => {
            out.extend_from_slice(&[0; 2]);
            // The length of the attributes still has to fit.
            let n = write_prefixes(family, how, routes, end - 2, out);
            patch(out, at + 19, at + 21);
            out.extend_from_slice(&[0; 2]);
            n
        }
        Family::V6 => {
            out.extend_from_slice(&[0; 4]);
            let flags = OPTIONAL | EXTENDED_LENGTH;
            out.extend_from_slice(&[flags, code::MP_UNREACH_NLRI, 0, 0, 0, 2, 1]);
            let n = write_prefixes(family, how, routes, end, out);
            patch(out, at + 21, at + 23);
            patch(out, at + 25, at + 27);
            n
        }
    };
    if written == 0 {
        out.truncate(at);
    } else {
        finish(out, at);
    }
    written
}

/// Appends UPDATEs that withdraw all `routes`, which must be of `family`; returns how many
/// routes.
pub fn write_withdrawals(
    family: Family,
    how: &Encoding,
    routes: impl IntoIterator<Item = Nlri>,
    out: &mut Vec<u8>,
) -> usize {
    let mut routes = routes.into_iter().peekable();
    let mut all = 0;
    loop {
        match write_withdrawal(family, how, &mut routes, out) {
            0 => return all,
            n => all += n,
        }
    }
}

/// Appends prefixes while they are of the family and end before `end`.
fn write_prefixes<I: Iterator<Item = Nlri>>(
    family: Family,
    how: &Encoding,
    routes: &mut Peekable<I>,
    end: usize,
    out: &mut Vec<u8>,
) -> usize {
    let add_path = how.add_path[family];
    let mut written = 0;
    while let Some(n) = routes.peek() {
        let len = usize::from(n.prefix.len()).div_ceil(8);
        let size = if add_path { 5 + len } else { 1 + len };
        if out.len() + size > end || n.prefix.family() != family {
            break;
        }
        if add_path {
            out.extend_from_slice(&n.path_id.0.to_be_bytes());
        }
        out.push(n.prefix.len());
        match n.prefix.addr() {
            IpAddr::V4(a) => out.extend_from_slice(&a.octets()[..len]),
            IpAddr::V6(a) => out.extend_from_slice(&a.octets()[..len]),
        }
        routes.next();
        written += 1;
    }
    written
}

/// Attributes of routes of one family as peers of one [`Encoding`] get them, to be sent
/// with any number of prefixes and to any number of such peers.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct AttributeBlock {
    family: Family,
    how: Encoding,
    /// The start of MP_REACH_NLRI up to the prefixes, its length still open; empty where
    /// the prefixes go behind the attributes.
    reach: Vec<u8>,
    octets: Vec<u8>,
}

impl AttributeBlock {
    /// Encodes attributes for routes of `family`.
    ///
    /// # Errors
    /// [`EncodeError::NextHop`] when the next hop cannot carry the family to such peers;
    /// [`EncodeError::AttributesTooLong`] when no prefix would fit beside it.
    pub fn new(
        family: Family,
        attributes: &Attributes,
        how: &Encoding,
    ) -> Result<Self, EncodeError> {
        let hop = attributes.next_hop;
        let classic = match (family, hop.family()) {
            (Family::V4, Family::V4) => true,
            (Family::V4, Family::V6) if how.v4_over_v6 => false,
            (Family::V6, Family::V6) => false,
            _ => return Err(EncodeError::NextHop(AfiSafi::unicast(family))),
        };
        let mut block = Self {
            family,
            how: *how,
            reach: Vec::new(),
            octets: Vec::with_capacity(160),
        };
        if !classic {
            write_reach(family, hop, &mut block.reach);
        }
        write_attributes(attributes, classic, how, &mut block.octets);
        // One prefix must fit, of whatever length.
        let prefix = 1 + usize::from(family.bits() / 8) + if how.add_path[family] { 4 } else { 0 };
        let octets = block.reach.len() + block.octets.len();
        if HEADER_LEN + 4 + octets + prefix > how.max_len() {
            return Err(EncodeError::AttributesTooLong {
                octets,
                limit: how.max_len(),
            });
        }
        Ok(block)
    }

    /// Appends one UPDATE that announces as many routes as it holds; returns how many.
    /// All must be of the block's family; the first that is not ends the message. Nothing
    /// is appended when there is none.
    pub fn write<I: Iterator<Item = Nlri>>(
        &self,
        routes: &mut Peekable<I>,
        out: &mut Vec<u8>,
    ) -> usize {
        let at = start(out, MessageKind::Update);
        let end = at + self.how.max_len();
        out.extend_from_slice(&[0; 4]);
        let written = if self.reach.is_empty() {
            out.extend_from_slice(&self.octets);
            patch(out, at + 21, at + 23);
            write_prefixes(self.family, &self.how, routes, end, out)
        } else {
            out.extend_from_slice(&self.reach);
            let end = end - self.octets.len();
            let n = write_prefixes(self.family, &self.how, routes, end, out);
            patch(out, at + 25, at + 27);
            out.extend_from_slice(&self.octets);
            patch(out, at + 21, at + 23);
            n
        };
        if written == 0 {
            out.truncate(at);
        } else {
            finish(out, at);
        }
        written
    }

    /// Appends UPDATEs that announce all `routes`, which must be of the block's family;
    /// returns how many routes.
    pub fn write_all(&self, routes: impl IntoIterator<Item = Nlri>, out: &mut Vec<u8>) -> usize {
        let mut routes = routes.into_iter().peekable();
        let mut all = 0;
        loop {
            match self.write(&mut routes, out) {
                0 => return all,
                n => all += n,
            }
        }
    }
}

/// MP_REACH_NLRI up to its prefixes (RFC 4760, section 3; RFC 2545; RFC 8950).
fn write_reach(family: Family, hop: NextHop, out: &mut Vec<u8>) {
    let AfiSafi { afi, safi } = AfiSafi::unicast(family);
    let [a, b] = afi.to_be_bytes();
    let flags = OPTIONAL | EXTENDED_LENGTH;
    out.extend_from_slice(&[flags, code::MP_REACH_NLRI, 0, 0, a, b, safi]);
    match hop {
        NextHop::V4(a) => {
            out.push(4);
            out.extend_from_slice(&a.octets());
        }
        NextHop::V6(a) => {
            out.push(16);
            out.extend_from_slice(&a.octets());
        }
        NextHop::V6Pair { global, link_local } => {
            out.push(32);
            out.extend_from_slice(&global.octets());
            out.extend_from_slice(&link_local.octets());
        }
    }
    out.push(0);
}

/// Appends one attribute whose value `write` appends.
fn attribute(kind: u8, flags: u8, out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let at = out.len();
    out.extend_from_slice(&[flags, kind, 0]);
    write(out);
    let len = out.len() - at - 3;
    match u8::try_from(len) {
        Ok(len) => out[at + 2] = len,
        Err(_) => {
            out[at] |= EXTENDED_LENGTH;
            out.insert(at + 2, 0);
            patch(out, at + 2, at + 4);
        }
    }
}

/// Appends an attribute that we know.
fn known(kind: u8, out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    attribute(kind, flags_of(kind).unwrap_or_default(), out, write);
}

/// Appends an attribute that we know, with one value of `N` octets.
fn fixed<const N: usize>(kind: u8, value: Option<[u8; N]>, out: &mut Vec<u8>) {
    if let Some(value) = value {
        known(kind, out, |o| o.extend_from_slice(&value));
    }
}

/// Appends an attribute that we know, with a list that is left out when it is empty.
fn list<T, const N: usize>(
    kind: u8,
    items: &[T],
    octets: impl Fn(&T) -> [u8; N],
    out: &mut Vec<u8>,
) {
    if !items.is_empty() {
        known(kind, out, |o| {
            for i in items {
                o.extend_from_slice(&octets(i));
            }
        });
    }
}

fn write_attributes(a: &Attributes, classic: bool, how: &Encoding, out: &mut Vec<u8>) {
    let rare = a.rare();
    let be = |n: Option<u32>| n.map(u32::to_be_bytes);
    let mut unknown = rare.unknown.iter().peekable();
    fixed(code::ORIGIN, Some([a.origin as u8]), out);
    known(code::AS_PATH, out, |o| match how.four_octet_as {
        true => o.extend_from_slice(a.as_path.as_octets()),
        false => as4::write_short(&a.as_path, o),
    });
    if let (true, NextHop::V4(hop)) = (classic, a.next_hop) {
        fixed(code::NEXT_HOP, Some(hop.octets()), out);
    }
    fixed(code::MULTI_EXIT_DISC, be(a.med), out);
    fixed(code::LOCAL_PREF, be(a.local_pref), out);
    fixed(
        code::ATOMIC_AGGREGATE,
        a.atomic_aggregate.then_some([]),
        out,
    );
    if how.four_octet_as {
        fixed(code::AGGREGATOR, rare.aggregator.map(aggregator), out);
    } else {
        let short = rare.aggregator.map(short_aggregator);
        fixed(code::AGGREGATOR, short, out);
    }
    let communities = a.communities.as_slice();
    list(code::COMMUNITIES, communities, |c| c.0.to_be_bytes(), out);
    let originator = rare.originator_id.map(|id| id.0);
    fixed(code::ORIGINATOR_ID, be(originator), out);
    let clusters = &rare.cluster_list;
    list(code::CLUSTER_LIST, clusters, |c| c.0.to_be_bytes(), out);
    let ext = rare.ext_communities.as_slice();
    list(code::EXT_COMMUNITIES, ext, |c| c.0, out);
    if !how.four_octet_as {
        write_as4(a, out);
    }
    // Unknown ones lie between the known ones in the order of types.
    while let Some(u) = unknown.next_if(|u| u.kind < code::AIGP) {
        write_unknown(u, out);
    }
    fixed(code::AIGP, rare.aigp.map(aigp), out);
    while let Some(u) = unknown.next_if(|u| u.kind < code::LARGE_COMMUNITIES) {
        write_unknown(u, out);
    }
    let large = a.large_communities.as_slice();
    list(code::LARGE_COMMUNITIES, large, large_octets, out);
    while let Some(u) = unknown.next_if(|u| u.kind < code::OTC) {
        write_unknown(u, out);
    }
    fixed(code::OTC, be(rare.otc.map(|a| a.0)), out);
    for u in unknown {
        write_unknown(u, out);
    }
}

/// What does not fit two octets (RFC 6793, section 4.2.2).
fn write_as4(a: &Attributes, out: &mut Vec<u8>) {
    if as4::needs_as4(&a.as_path) {
        let path = a.as_path.without_confed();
        if !path.is_empty() {
            known(code::AS4_PATH, out, |o| {
                o.extend_from_slice(path.as_octets());
            });
        }
    }
    let wide = a.rare().aggregator.filter(|g| g.asn.0 > 0xffff);
    fixed(code::AS4_AGGREGATOR, wide.map(aggregator), out);
}

fn write_unknown(u: &crate::attr::UnknownAttribute, out: &mut Vec<u8>) {
    let partial = if u.partial { PARTIAL } else { 0 };
    let flags = OPTIONAL | TRANSITIVE | partial;
    attribute(u.kind, flags, out, |o| o.extend_from_slice(&u.value));
}

fn aggregator(g: Aggregator) -> [u8; 8] {
    let ([a, b, c, d], [e, f, h, i]) = (g.asn.0.to_be_bytes(), g.id.0.to_be_bytes());
    [a, b, c, d, e, f, h, i]
}

fn short_aggregator(g: Aggregator) -> [u8; 6] {
    let ([a, b], [c, d, e, f]) = (as4::to_short(g.asn), g.id.0.to_be_bytes());
    [a, b, c, d, e, f]
}

fn aigp(metric: u64) -> [u8; 11] {
    let mut tlv = [1, 0, 11, 0, 0, 0, 0, 0, 0, 0, 0];
    tlv[3..].copy_from_slice(&metric.to_be_bytes());
    tlv
}

fn large_octets(c: &crate::attr::LargeCommunity) -> [u8; 12] {
    let mut octets = [0; 12];
    let parts = [c.global.0, c.local1, c.local2];
    for (to, n) in octets.chunks_exact_mut(4).zip(parts) {
        to.copy_from_slice(&n.to_be_bytes());
    }
    octets
}
