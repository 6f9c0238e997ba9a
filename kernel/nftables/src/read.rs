//! The kernel's messages about one table, understood. Pure.
//!
//! Promises: bytes of any shape end in something left out, or in a set that is to be made anew,
//! never in a panic.
//! Never: opens a socket.

use crate::lower;
use crate::members::Members;
use crate::plan::{Dump, LiveBase, LiveChain, LiveRule, LiveSet, RuleId};
use crate::value::*;
use net::{Cidr, Family, IfName, PortRange, Protocol};
use netlink::nft::{
    BaseSpec, ChainInfo, DataInfo, ElementInfo, Item, RuleInfo, SetInfo, Stateful, VerdictInfo,
    items,
};
use rustc_hash::FxHashMap;
use std::net::IpAddr;

/// Ours; nft skips types it does not know.
pub(crate) const UDATA_ID: u8 = 0x4d;

/// What messages of the kernel say about one table: of bytes from anywhere, in any order of
/// chains before their rules and sets before their elements.
pub fn parse_dump(family: TableFamily, table: &TableName, bytes: &[u8]) -> Dump {
    let mut reading = Reading::new(family);
    // Lists of one set may come in several messages.
    let mut lists: FxHashMap<String, Vec<Read>> = FxHashMap::default();
    for item in items(lower::family(family), table.as_str(), bytes) {
        match item {
            Item::Table(flags) => reading.table(flags),
            Item::Chain(c) => reading.chain(c),
            Item::Rule(r) => reading.rule(&r),
            Item::Set(s) => drop(reading.set(&s)),
            Item::Elements(set, list) => {
                if let Some(kind) = reading.kind(set) {
                    let all = lists.entry(set.to_owned()).or_default();
                    all.extend(list.iter().map(|e| element(kind, e)));
                }
            }
        }
    }
    for (set, read) in lists {
        if let Some(kind) = reading.kind(&set) {
            reading.elements(&set, kind, read);
        }
    }
    reading.end()
}

/// A table while it is read.
pub(crate) struct Reading {
    family: TableFamily,
    dump: Dump,
}

impl Reading {
    pub(crate) fn new(family: TableFamily) -> Self {
        Self {
            family,
            dump: Dump::default(),
        }
    }

    pub(crate) fn table(&mut self, flags: u32) {
        self.dump.awake = flags == 0;
    }

    pub(crate) fn chain(&mut self, c: ChainInfo) {
        let base = match &c.base {
            None => LiveBase::None,
            Some(b) => base_of(self.family, b).map_or(LiveBase::Foreign, LiveBase::At),
        };
        self.dump.chains.entry(c.name).or_default().base = base;
    }

    pub(crate) fn rule(&mut self, r: &RuleInfo) {
        let rule = live_rule(r);
        match self.dump.chains.get_mut(&r.chain) {
            Some(chain) => chain.rules.push(rule),
            None => {
                let rules = vec![rule];
                let base = LiveBase::None;
                let chain = LiveChain { base, rules };
                self.dump.chains.insert(r.chain.clone(), chain);
            }
        }
    }

    /// The kind of the set, if it is one of ours.
    pub(crate) fn set(&mut self, s: &SetInfo) -> Option<SetKind> {
        let kind = s.spec.as_ref().and_then(lower::kind_of);
        let live = LiveSet {
            kind,
            elements: kind.map(Members::new).unwrap_or_default(),
            alien: false,
        };
        self.dump.sets.insert(s.name.clone(), live);
        kind
    }

    fn kind(&self, set: &str) -> Option<SetKind> {
        self.dump.sets.get(set)?.kind
    }

    /// All elements of a set.
    pub(crate) fn elements(&mut self, set: &str, kind: SetKind, read: Vec<Read>) {
        if let Some(live) = self.dump.sets.get_mut(set) {
            *live = live_set(kind, read);
        }
    }

    pub(crate) fn end(self) -> Dump {
        self.dump
    }
}

fn live_rule(r: &RuleInfo) -> LiveRule {
    let mut rest = &r.userdata[..];
    let mut id = None;
    while let [kind, len, tail @ ..] = rest {
        let Some((value, next)) = tail.split_at_checked(usize::from(*len)) else {
            break;
        };
        if *kind == UDATA_ID {
            id = value.try_into().ok().map(RuleId);
        }
        rest = next;
    }
    LiveRule {
        handle: r.handle,
        id,
    }
}

fn base_of(family: TableFamily, b: &BaseSpec) -> Option<Base> {
    let kind = [Kind::Filter, Kind::Nat, Kind::Route];
    let hook: &[Hook] = match family {
        TableFamily::Inet => &[
            Hook::Prerouting,
            Hook::Input,
            Hook::Forward,
            Hook::Output,
            Hook::Postrouting,
        ],
        TableFamily::Arp => &[Hook::Input, Hook::Output, Hook::Forward],
    };
    Some(Base {
        kind: kind.into_iter().find(|k| k.to_string() == b.kind)?,
        hook: *hook.get(b.hook as usize)?,
        priority: b.priority,
        policy: if b.policy == 0 {
            Policy::Drop
        } else {
            Policy::Accept
        },
    })
}

/// An element as it was read; of plain intervals the two ends apart.
pub(crate) enum Read {
    Whole(Element),
    Mark { at: u128, start: bool },
    Alien,
}

pub(crate) fn element(kind: SetKind, e: &ElementInfo<'_>) -> Read {
    if let SetKind::Net(f) = kind {
        return match addr(e.key) {
            Some(a) if Family::of(a) == f => Read::Mark {
                at: Family::bits_of(a),
                start: !e.interval_end,
            },
            _ => Read::Alien,
        };
    }
    whole(kind, e)
        .filter(|e| e.fits(kind))
        .map_or(Read::Alien, Read::Whole)
}

fn live_set(kind: SetKind, read: Vec<Read>) -> LiveSet {
    let mut alien = false;
    let elements = match kind {
        SetKind::Net(f) => {
            let mut marks = Vec::with_capacity(read.len());
            for r in read {
                match r {
                    Read::Mark { at, start } => marks.push((at, start)),
                    Read::Whole(_) | Read::Alien => alien = true,
                }
            }
            let mut nets = Vec::with_capacity(marks.len() / 2 + 1);
            intervals(f, marks, &mut |net| match net {
                Some(net) => nets.push(Element::Net(net)),
                None => alien = true,
            });
            Members::collect(kind, nets)
        }
        _ => Members::collect(
            kind,
            read.into_iter().filter_map(|r| match r {
                Read::Whole(e) => Some(e),
                Read::Mark { .. } | Read::Alien => {
                    alien = true;
                    None
                }
            }),
        ),
    };
    LiveSet {
        kind: Some(kind),
        elements,
        alien,
    }
}

fn addr(b: &[u8]) -> Option<IpAddr> {
    match b.len() {
        4 => Some(IpAddr::from(<[u8; 4]>::try_from(b).ok()?)),
        16 => Some(IpAddr::from(<[u8; 16]>::try_from(b).ok()?)),
        _ => None,
    }
}

/// The prefix from one address to another, if it is one.
fn prefix(first: IpAddr, last: IpAddr) -> Option<Cidr> {
    let f = Family::of(first);
    let differ = Family::bits_of(first) ^ Family::bits_of(last);
    let host = u8::try_from(128 - differ.leading_zeros()).ok()?;
    let c = Cidr::new(first, f.bits().checked_sub(host)?)?;
    (c.addr() == first && c.last() == last).then_some(c)
}

/// Starts and ends, in any order, as prefixes; `None` for what is none.
fn intervals(f: Family, mut marks: Vec<(u128, bool)>, read: &mut impl FnMut(Option<Cidr>)) {
    // An end sorts before a start at the same address.
    marks.sort_unstable();
    let top = Family::bits_of(Cidr::any(f).last());
    let mut start = None;
    for (at, is_start) in marks {
        match (start.take(), is_start) {
            (None, true) => start = Some(at),
            (Some(from), false) => read(prefix(f.addr(from), f.addr(at - 1))),
            // nft itself leaves an end at the lowest address of some sets; it means nothing.
            (None, false) if at == 0 => {}
            (from, _) => {
                read(None);
                start = from.filter(|_| is_start).map(|_| at);
            }
        }
    }
    if let Some(from) = start {
        read(prefix(f.addr(from), f.addr(top)));
    }
}

fn whole(kind: SetKind, e: &ElementInfo<'_>) -> Option<Element> {
    match kind {
        SetKind::Addr(_) => addr(e.key).map(Element::Addr),
        SetKind::Net(_) => None,
        SetKind::AddrProtoPort(f) => {
            let (a, rest) = e.key.split_at_checked(usize::from(f.bits()) / 8)?;
            let [proto, _, _, _, hi, lo, ..] = *rest else {
                return None;
            };
            Some(Element::AddrProtoPort(
                addr(a)?,
                Protocol(proto),
                u16::from_be_bytes([hi, lo]),
            ))
        }
        SetKind::NetProtoPorts(f) => {
            let n = usize::from(f.bits()) / 8;
            let end = e.key_end.unwrap_or(e.key);
            let ((a, from), (b, to)) = (e.key.split_at_checked(n)?, end.split_at_checked(n)?);
            let ([proto, _, _, _, hi, lo, ..], [last, _, _, _, hi2, lo2, ..]) = (from, to) else {
                return None;
            };
            let ports = PortRange::new(
                u16::from_be_bytes([*hi, *lo]),
                u16::from_be_bytes([*hi2, *lo2]),
            );
            (proto == last).then_some(Element::NetProtoPorts(
                prefix(addr(a)?, addr(b)?)?,
                Protocol(*proto),
                ports?,
            ))
        }
        SetKind::IfNameAddr(_) => {
            let (name, a) = e.key.split_at_checked(16)?;
            Some(Element::IfNameAddr(ifname(name)?, addr(a)?))
        }
        SetKind::AddrToAddr(_) => match &e.data {
            DataInfo::Value(to) => Some(Element::AddrToAddr(addr(e.key)?, addr(to)?)),
            _ => None,
        },
        SetKind::IfNameOverRate => match e.data {
            DataInfo::Stateful(Stateful::OverRate {
                rate,
                seconds,
                burst,
            }) => {
                let per = Per::ALL.into_iter().find(|p| p.seconds() == seconds)?;
                let rate = Rate::new(u32::try_from(rate).ok()?, per, burst);
                Some(Element::IfNameOverRate(ifname(e.key)?, rate))
            }
            _ => None,
        },
        SetKind::IfNameOverCount => match e.data {
            DataInfo::Stateful(Stateful::OverCount(n)) => {
                Some(Element::IfNameOverCount(ifname(e.key)?, n))
            }
            _ => None,
        },
        SetKind::NetPair(f) => {
            let n = usize::from(f.bits()) / 8;
            let end = e.key_end.unwrap_or(e.key);
            let ((a, b), (c, d)) = (e.key.split_at_checked(n)?, end.split_at_checked(n)?);
            Some(Element::NetPair(
                prefix(addr(a)?, addr(c)?)?,
                prefix(addr(b)?, addr(d)?)?,
            ))
        }
        SetKind::IfName => ifname(e.key).map(Element::IfName),
        SetKind::IfNameVerdict => match &e.data {
            DataInfo::Verdict(v) => Some(Element::IfNameVerdict(ifname(e.key)?, verdict(v)?)),
            _ => None,
        },
    }
}

fn ifname(key: &[u8]) -> Option<IfName> {
    let end = key.iter().position(|b| *b == 0).unwrap_or(key.len());
    std::str::from_utf8(&key[..end]).ok()?.parse().ok()
}

fn verdict(v: &VerdictInfo<'_>) -> Option<Verdict> {
    let chain = || ChainName::new(v.chain?).ok();
    match v.code {
        0 => Some(Verdict::Drop),
        1 => Some(Verdict::Accept),
        -3 => chain().map(Verdict::Jump),
        -4 => chain().map(Verdict::Goto),
        -5 => Some(Verdict::Return),
        _ => None,
    }
}
