//! One attribute at a time: flags, length and value against RFC 7606, section 7.
//!
//! Promises: [`Parts`] holds only what was found well formed, still borrowed; attributes
//! are made of it once, at the end. Never: weighs one fault against another; that is the
//! UPDATE's.

use super::as4;
use super::nlri::NlriBlock;
use crate::attr::{
    Aggregator, AsPath, Attributes, Community, ExtCommunity, LargeCommunity, NextHop, Origin,
    SegmentKind, UnknownAttribute, code,
};
use crate::caps::Decoding;
use crate::error::{FaultClass, Problem};
use crate::types::{AS_TRANS, AfiSafi, ClusterId, PeerKind, RouterId};
use net::{Asn, Family};
use std::net::{Ipv4Addr, Ipv6Addr};

/// The attribute is optional.
pub(super) const OPTIONAL: u8 = 0x80;
/// It is passed on also by speakers that do not know it.
pub(super) const TRANSITIVE: u8 = 0x40;
/// A speaker on the way did not know it.
pub(super) const PARTIAL: u8 = 0x20;
/// Its length takes two octets.
pub(super) const EXTENDED_LENGTH: u8 = 0x10;

/// The Optional and Transitive bits that an attribute must have; `None` for unknown ones.
pub(super) const fn flags_of(kind: u8) -> Option<u8> {
    Some(match kind {
        code::ORIGIN
        | code::AS_PATH
        | code::NEXT_HOP
        | code::LOCAL_PREF
        | code::ATOMIC_AGGREGATE => TRANSITIVE,
        code::MULTI_EXIT_DISC
        | code::ORIGINATOR_ID
        | code::CLUSTER_LIST
        | code::MP_REACH_NLRI
        | code::MP_UNREACH_NLRI
        | code::AIGP => OPTIONAL,
        code::AGGREGATOR
        | code::COMMUNITIES
        | code::EXT_COMMUNITIES
        | code::AS4_PATH
        | code::AS4_AGGREGATOR
        | code::IPV6_EXT_COMMUNITIES
        | code::LARGE_COMMUNITIES
        | code::OTC => OPTIONAL | TRANSITIVE,
        _ => return None,
    })
}

/// An attribute as received.
#[derive(Clone, Copy)]
pub(super) struct Raw<'a> {
    pub(super) flags: u8,
    pub(super) kind: u8,
    pub(super) value: &'a [u8],
    /// With its header.
    pub(super) whole: &'a [u8],
}

impl Raw<'_> {
    fn length(&self) -> Problem {
        Problem::Length(u16::try_from(self.value.len()).unwrap_or(u16::MAX))
    }

    fn u32(&self) -> Result<u32, Bad> {
        match <[u8; 4]>::try_from(self.value) {
            Ok(octets) => Ok(u32::from_be_bytes(octets)),
            Err(_) => withdraw(self.length()),
        }
    }

    /// A list of items of `size` octets that is not empty.
    fn list(&self, size: usize) -> Result<&[u8], Bad> {
        if self.value.is_empty() || !self.value.len().is_multiple_of(size) {
            return withdraw(self.length());
        }
        Ok(self.value)
    }
}

/// What is wrong with an attribute, and how much it matters.
pub(super) type Bad = (Problem, FaultClass);

const fn withdraw<T>(problem: Problem) -> Result<T, Bad> {
    Err((problem, FaultClass::TreatAsWithdraw))
}

const fn discard<T>(problem: Problem) -> Result<T, Bad> {
    Err((problem, FaultClass::AttributeDiscard))
}

/// What MP_REACH_NLRI announces.
#[derive(Clone, Copy)]
pub(super) enum Reach<'a> {
    /// Routes that the session carries; without a next hop where that is malformed.
    Carried(Option<NextHop>, NlriBlock<'a>),
    /// Routes of a family that it does not carry.
    PassedOver,
}

/// What MP_UNREACH_NLRI withdraws.
#[derive(Clone, Copy)]
pub(super) enum Unreach<'a> {
    /// Routes that the session carries.
    Carried(NlriBlock<'a>),
    /// Routes of a family that it does not carry.
    PassedOver,
}

/// The well-formed attributes of an UPDATE.
#[derive(Default)]
pub(super) struct Parts<'a> {
    pub(super) origin: Option<Origin>,
    pub(super) as_path: Option<AsPath>,
    pub(super) next_hop: Option<Ipv4Addr>,
    pub(super) reach: Option<Reach<'a>>,
    pub(super) unreach: Option<Unreach<'a>>,
    med: Option<u32>,
    local_pref: Option<u32>,
    atomic_aggregate: bool,
    aggregator: Option<Aggregator>,
    as4_path: Option<AsPath>,
    as4_aggregator: Option<Aggregator>,
    communities: &'a [u8],
    large_communities: &'a [u8],
    ext_communities: &'a [u8],
    originator_id: Option<RouterId>,
    cluster_list: &'a [u8],
    otc: Option<Asn>,
    aigp: Option<u64>,
    unknown: Vec<UnknownAttribute>,
}

impl<'a> Parts<'a> {
    /// Takes one attribute, unless something is wrong with it. Prefixes are taken
    /// whenever they can be read, since they are to be withdrawn.
    pub(super) fn take(&mut self, raw: Raw<'a>, how: &Decoding) -> Result<(), Bad> {
        if !wanted(raw.kind, how) {
            return discard(Problem::NotForPeer);
        }
        match raw.kind {
            code::MP_REACH_NLRI => self.reach = Some(reach(raw.value, how)?),
            code::MP_UNREACH_NLRI => self.unreach = Some(unreach(raw.value, how)?),
            _ => {}
        }
        check_flags(raw)?;
        match raw.kind {
            code::ORIGIN => self.origin = Some(origin(raw)?),
            code::AS_PATH => self.as_path = Some(as_path(raw, how)?),
            code::NEXT_HOP => self.next_hop = Some(next_hop(raw)?),
            code::MULTI_EXIT_DISC => self.med = Some(raw.u32()?),
            code::LOCAL_PREF => self.local_pref = Some(raw.u32()?),
            code::ATOMIC_AGGREGATE if raw.value.is_empty() => self.atomic_aggregate = true,
            code::ATOMIC_AGGREGATE => return discard(raw.length()),
            code::AGGREGATOR => self.aggregator = Some(aggregator(raw, how.four_octet_as)?),
            code::COMMUNITIES => {
                raw.list(4)?;
                self.communities = raw.value;
            }
            code::ORIGINATOR_ID => self.originator_id = Some(RouterId(raw.u32()?)),
            code::CLUSTER_LIST => {
                raw.list(4)?;
                self.cluster_list = raw.value;
            }
            code::MP_REACH_NLRI if matches!(self.reach, Some(Reach::Carried(None, _))) => {
                return withdraw(Problem::NextHop);
            }
            code::MP_REACH_NLRI | code::MP_UNREACH_NLRI => {}
            code::EXT_COMMUNITIES => {
                raw.list(8)?;
                self.ext_communities = raw.value;
            }
            code::AS4_PATH => self.as4_path = Some(as4_path(raw)?),
            code::AS4_AGGREGATOR => self.as4_aggregator = Some(aggregator(raw, true)?),
            code::AIGP => self.aigp = aigp(raw, how)?,
            code::LARGE_COMMUNITIES => {
                raw.list(12)?;
                self.large_communities = raw.value;
            }
            code::OTC => self.otc = Some(Asn(raw.u32()?)),
            code::IPV6_EXT_COMMUNITIES => {
                raw.list(20)?;
                self.pass_on(raw, raw.flags & PARTIAL != 0);
            }
            _ if raw.flags & OPTIONAL == 0 => {
                return Err((Problem::Unrecognised, FaultClass::SessionReset));
            }
            _ if raw.flags & TRANSITIVE != 0 => self.pass_on(raw, true),
            // Optional and not transitive: quietly ignored (RFC 4271, section 5).
            _ => {}
        }
        Ok(())
    }

    fn pass_on(&mut self, raw: Raw<'_>, partial: bool) {
        self.unknown.push(UnknownAttribute {
            kind: raw.kind,
            partial,
            value: raw.value.into(),
        });
    }

    /// Makes the attributes, once. The caller has seen to it that the mandatory ones are
    /// there.
    pub(super) fn attributes(&mut self, next_hop: NextHop) -> Attributes {
        let (as_path, aggregator) = self.merge_as4();
        let mut made = Attributes::new(next_hop);
        made.as_path = as_path;
        made.origin = self.origin.unwrap_or_default();
        made.med = self.med;
        made.local_pref = self.local_pref;
        made.atomic_aggregate = self.atomic_aggregate;
        if !self.communities.is_empty() {
            let words = self.communities.as_chunks::<4>().0.iter();
            made.communities = words.map(|&w| Community(u32::from_be_bytes(w))).collect();
        }
        if !self.large_communities.is_empty() {
            let all = self.large_communities.as_chunks::<12>().0.iter();
            made.large_communities = all.map(large).collect();
        }
        let rare = aggregator.is_some()
            || !self.ext_communities.is_empty()
            || self.originator_id.is_some()
            || !self.cluster_list.is_empty()
            || self.otc.is_some()
            || self.aigp.is_some()
            || !self.unknown.is_empty();
        if rare {
            made.edit_rare(|r| {
                r.aggregator = aggregator;
                r.originator_id = self.originator_id;
                let words = self.cluster_list.as_chunks::<4>().0.iter();
                r.cluster_list = words.map(|&w| ClusterId(u32::from_be_bytes(w))).collect();
                let all = self.ext_communities.as_chunks::<8>().0.iter();
                r.ext_communities = all.map(|&c| ExtCommunity(c)).collect();
                r.otc = self.otc;
                r.aigp = self.aigp;
                let mut unknown = std::mem::take(&mut self.unknown);
                unknown.sort_by_key(|u| u.kind);
                r.unknown = unknown.into();
            });
        }
        made
    }

    /// What was meant by a peer with two-octet numbers (RFC 6793, section 4.2.3).
    fn merge_as4(&mut self) -> (AsPath, Option<Aggregator>) {
        let path = self.as_path.take().unwrap_or_default();
        let aggregator = match (self.aggregator, self.as4_aggregator) {
            // One that is not AS_TRANS was set by a speaker that knew of no four-octet
            // attribute, so those tell of an earlier aggregate.
            (Some(short), Some(_)) if short.asn != AS_TRANS => return (path, Some(short)),
            (Some(_), Some(long)) => Some(long),
            (short, _) => short,
        };
        match &self.as4_path {
            Some(as4) => (as4::merge(&path, as4), aggregator),
            None => (path, aggregator),
        }
    }
}

/// The Optional and Transitive bits (RFC 7606, section 3(c)).
fn check_flags(raw: Raw<'_>) -> Result<(), Bad> {
    let bits = raw.flags & (OPTIONAL | TRANSITIVE);
    match flags_of(raw.kind) {
        // RFC 7311, section 3.4, is milder.
        Some(expected) if expected != bits && raw.kind == code::AIGP => {
            discard(Problem::Flags(raw.flags))
        }
        Some(expected) if expected != bits => withdraw(Problem::Flags(raw.flags)),
        _ => Ok(()),
    }
}

/// Whether a peer of this kind may send it (RFC 7606, sections 7.5, 7.9, 7.10; RFC 6793,
/// section 4.1).
const fn wanted(kind: u8, how: &Decoding) -> bool {
    match kind {
        code::LOCAL_PREF => how.peer.carries_local_pref(),
        code::ORIGINATOR_ID | code::CLUSTER_LIST => matches!(how.peer, PeerKind::Internal),
        code::AS4_PATH | code::AS4_AGGREGATOR => !how.four_octet_as,
        _ => true,
    }
}

fn origin(raw: Raw<'_>) -> Result<Origin, Bad> {
    match raw.value {
        [n] => Origin::from_u8(*n).map_or_else(|| withdraw(Problem::Value((*n).into())), Ok),
        _ => withdraw(raw.length()),
    }
}

fn as_path(raw: Raw<'_>, how: &Decoding) -> Result<AsPath, Bad> {
    // Segments of a confederation come from our AS and from its other members, and those
    // put themselves first (RFC 5065, section 5.3).
    let confed = how.peer != PeerKind::External;
    let path = as4::read(raw.value, how.four_octet_as, confed).or_else(withdraw)?;
    let first = path.segments().next().map(|s| s.kind);
    if how.peer == PeerKind::Confederation && first != Some(SegmentKind::ConfedSequence) {
        return withdraw(Problem::Confederation);
    }
    Ok(path)
}

/// RFC 6793, section 6, discards it; RFC 7607 withdraws for AS 0.
fn as4_path(raw: Raw<'_>) -> Result<AsPath, Bad> {
    as4::read_as4(raw.value).or_else(|problem| match problem {
        Problem::ZeroAs => withdraw(problem),
        _ => discard(problem),
    })
}

/// An address that no host can have is malformed (RFC 4271, section 6.3).
fn next_hop(raw: Raw<'_>) -> Result<Ipv4Addr, Bad> {
    let octets = <[u8; 4]>::try_from(raw.value).or_else(|_| withdraw(raw.length()))?;
    host(Ipv4Addr::from(octets))
}

fn host(addr: Ipv4Addr) -> Result<Ipv4Addr, Bad> {
    match addr.octets()[0] {
        0 | 224.. => withdraw(Problem::NextHop),
        _ => Ok(addr),
    }
}

fn aggregator(raw: Raw<'_>, four_octet: bool) -> Result<Aggregator, Bad> {
    let (asn, id) = match (four_octet, raw.value) {
        (true, &[a, b, c, d, ref id @ ..]) => (u32::from_be_bytes([a, b, c, d]), id),
        (false, &[a, b, ref id @ ..]) => (u16::from_be_bytes([a, b]).into(), id),
        _ => return discard(raw.length()),
    };
    let id = <[u8; 4]>::try_from(id).or_else(|_| discard(raw.length()))?;
    if asn == 0 {
        return discard(Problem::ZeroAs);
    }
    Ok(Aggregator {
        asn: Asn(asn),
        id: RouterId(u32::from_be_bytes(id)),
    })
}

const fn large(octets: &[u8; 12]) -> LargeCommunity {
    let &[a, b, c, d, e, f, g, h, i, j, k, l] = octets;
    LargeCommunity {
        global: Asn(u32::from_be_bytes([a, b, c, d])),
        local1: u32::from_be_bytes([e, f, g, h]),
        local2: u32::from_be_bytes([i, j, k, l]),
    }
}

/// The first TLV of type 1 counts (RFC 7311, section 3). From outside of our domain the
/// attribute is none of ours and is quietly ignored (section 3.3).
fn aigp(raw: Raw<'_>, how: &Decoding) -> Result<Option<u64>, Bad> {
    if how.peer == PeerKind::External {
        return Ok(None);
    }
    let mut metric = None;
    let mut rest = raw.value;
    while !rest.is_empty() {
        let &[kind, l1, l2, ..] = rest else {
            return discard(raw.length());
        };
        let len = usize::from(u16::from_be_bytes([l1, l2]));
        let Some((tlv, after)) = rest.split_at_checked(len).filter(|_| len >= 3) else {
            return discard(raw.length());
        };
        if kind == 1 {
            let value = <[u8; 8]>::try_from(&tlv[3..]).or_else(|_| discard(raw.length()))?;
            metric = metric.or(Some(u64::from_be_bytes(value)));
        }
        rest = after;
    }
    Ok(metric)
}

/// The class of what leaves MP_REACH_NLRI or MP_UNREACH_NLRI without prefixes.
fn lost(how: &Decoding, problem: Problem) -> Bad {
    let class = match how.disable_family {
        true => FaultClass::DisableFamily,
        false => FaultClass::SessionReset,
    };
    (problem, class)
}

/// The family of MP_REACH_NLRI or MP_UNREACH_NLRI, as far as it can be read.
pub(super) fn family_of(value: &[u8]) -> Option<Family> {
    match value {
        [a, b, safi, ..] => AfiSafi {
            afi: u16::from_be_bytes([*a, *b]),
            safi: *safi,
        }
        .family(),
        _ => None,
    }
}

/// Whatever else is wrong with it, its prefixes are needed, to be withdrawn.
fn reach<'a>(value: &'a [u8], how: &Decoding) -> Result<Reach<'a>, Bad> {
    let length = Problem::Length(u16::try_from(value.len()).unwrap_or(u16::MAX));
    let [_, _, _, hop_len, rest @ ..] = value else {
        return Err((length, FaultClass::SessionReset));
    };
    let Some(family) = family_of(value).filter(|&f| how.families[f]) else {
        return Ok(Reach::PassedOver);
    };
    let (hop, rest) = rest
        .split_at_checked(usize::from(*hop_len))
        .ok_or_else(|| lost(how, Problem::NextHop))?;
    let hop = match (family, hop.len()) {
        (Family::V4, 4) => v4_hop(hop),
        (Family::V4, 16 | 32) if how.v4_over_v6 => v6_hop(hop),
        (Family::V6, 16 | 32) => v6_hop(hop),
        _ => return Err(lost(how, Problem::NextHop)),
    };
    // An octet that meant something once.
    let (_, nlri) = rest.split_first().ok_or_else(|| lost(how, length))?;
    let nlri = NlriBlock::new(family, how.add_path[family], nlri).map_err(|p| lost(how, p))?;
    Ok(Reach::Carried(hop, nlri))
}

fn v4_hop(octets: &[u8]) -> Option<NextHop> {
    let addr = Ipv4Addr::from(<[u8; 4]>::try_from(octets).ok()?);
    host(addr).ok().map(NextHop::V4)
}

/// One address or two (RFC 2545, section 3). Speakers that have no global address send
/// the link-local one twice, or zeros before it; some send zeros behind the global one.
fn v6_hop(octets: &[u8]) -> Option<NextHop> {
    let (first, second) = octets.split_first_chunk::<16>()?;
    let global = Ipv6Addr::from(*first);
    let link_local = <[u8; 16]>::try_from(second)
        .map(Ipv6Addr::from)
        .ok()
        .filter(Ipv6Addr::is_unicast_link_local);
    if global.is_multicast() {
        return None;
    }
    let no_global = global.is_unspecified() || global.is_unicast_link_local();
    match link_local {
        Some(link_local) if no_global => Some(NextHop::V6(link_local)),
        Some(link_local) => Some(NextHop::V6Pair { global, link_local }),
        None if global.is_unspecified() => None,
        None => Some(NextHop::V6(global)),
    }
}

fn unreach<'a>(value: &'a [u8], how: &Decoding) -> Result<Unreach<'a>, Bad> {
    let [_, _, _, nlri @ ..] = value else {
        let length = Problem::Length(u16::try_from(value.len()).unwrap_or(u16::MAX));
        return Err((length, FaultClass::SessionReset));
    };
    let Some(family) = family_of(value).filter(|&f| how.families[f]) else {
        return Ok(Unreach::PassedOver);
    };
    let nlri = NlriBlock::new(family, how.add_path[family], nlri).map_err(|p| lost(how, p))?;
    Ok(Unreach::Carried(nlri))
}
