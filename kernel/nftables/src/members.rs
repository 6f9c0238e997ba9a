//! The members of one set, as few bytes as they can be: sorted, packed, each once.
//!
//! Promises: equal members are equal values, whatever was done to get there; of a map's members
//! there is one of each key in what was collected; room is given back when members go.
//! Never: knows which of them the kernel has.

use crate::set::{Element, Rate, SetKind};
use crate::value::Per;
use net::{Cidr, Family, IfName, PortRange, Protocol};
use std::cmp::Ordering;
use std::net::IpAddr;

/// Records in order. One goes in or out by moving what follows it, many by one pass.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Sorted<R>(Vec<R>);

impl<R: Ord + Clone> Sorted<R> {
    fn insert(&mut self, r: R) -> bool {
        match self.0.binary_search(&r) {
            Ok(_) => false,
            Err(at) => {
                if self.0.len() == self.0.capacity() {
                    // Not twice as much, as a vector would take.
                    self.0.reserve_exact(self.0.len() / 16 + 4);
                }
                self.0.insert(at, r);
                true
            }
        }
    }

    fn remove(&mut self, r: &R) -> bool {
        let Ok(at) = self.0.binary_search(r) else {
            return false;
        };
        self.0.remove(at);
        self.tidy();
        true
    }

    fn tidy(&mut self) {
        if self.0.capacity() > 2 * self.0.len() + 16 {
            self.0.shrink_to_fit();
        }
    }

    /// Goes through both in order: what to keep is said by where it is.
    fn merge(&self, other: &Self, keep: impl Fn(bool, bool) -> bool) -> Self {
        let (mut a, mut b) = (self.0.iter().peekable(), other.0.iter().peekable());
        let mut out = Vec::with_capacity(match (keep(true, false), keep(false, true)) {
            (true, true) => self.0.len() + other.0.len(),
            (true, false) => self.0.len(),
            _ => 0,
        });
        loop {
            let order = match (a.peek(), b.peek()) {
                (None, None) => break,
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some(x), Some(y)) => x.cmp(y),
            };
            let x = (order != Ordering::Greater).then(|| a.next()).flatten();
            let y = (order != Ordering::Less).then(|| b.next()).flatten();
            if keep(x.is_some(), y.is_some()) {
                out.extend(x.or(y).cloned());
            }
        }
        let mut out = Self(out);
        out.tidy();
        out
    }
}

/// Kinds share a width, so that there are few.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Store {
    W4(Sorted<[u8; 4]>),
    W5(Sorted<[u8; 5]>),
    W8(Sorted<[u8; 8]>),
    W17(Sorted<[u8; 17]>),
    W20(Sorted<[u8; 20]>),
    W36(Sorted<[u8; 36]>),
    /// Verdicts name chains.
    Whole(Sorted<Element>),
}

macro_rules! each {
    ($store:expr, packed $s:ident => $packed:expr, whole $w:ident => $whole:expr) => {
        match $store {
            Store::W4($s) => $packed,
            Store::W5($s) => $packed,
            Store::W8($s) => $packed,
            Store::W17($s) => $packed,
            Store::W20($s) => $packed,
            Store::W36($s) => $packed,
            Store::Whole($w) => $whole,
        }
    };
}

/// Members of one kind, in order. Hosts and prefixes of IPv4 take five bytes each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Members {
    kind: SetKind,
    store: Store,
}

impl Default for Members {
    fn default() -> Self {
        Self::new(SetKind::IfName)
    }
}

impl Members {
    /// None, of this kind.
    pub fn new(kind: SetKind) -> Self {
        use Family::{V4, V6};
        let store = match kind {
            SetKind::Addr(V4) => Store::W4(Sorted(Vec::new())),
            SetKind::Net(V4) => Store::W5(Sorted(Vec::new())),
            SetKind::AddrProtoPort(V4) | SetKind::AddrToAddr(V4) => Store::W8(Sorted(Vec::new())),
            SetKind::Addr(V6) | SetKind::Net(V6) | SetKind::IfName => {
                Store::W17(Sorted(Vec::new()))
            }
            SetKind::AddrProtoPort(V6)
            | SetKind::NetPair(V4)
            | SetKind::NetProtoPorts(V4)
            | SetKind::IfNameAddr(V4)
            | SetKind::IfNameOverCount => Store::W20(Sorted(Vec::new())),
            SetKind::NetPair(V6)
            | SetKind::NetProtoPorts(V6)
            | SetKind::IfNameAddr(V6)
            | SetKind::AddrToAddr(V6)
            | SetKind::IfNameOverRate => Store::W36(Sorted(Vec::new())),
            SetKind::IfNameVerdict => Store::Whole(Sorted(Vec::new())),
        };
        Self { kind, store }
    }

    /// From elements in any order; those of another kind are left out. In a map, of several
    /// members of one key the last counts.
    pub fn collect(kind: SetKind, elements: impl IntoIterator<Item = Element>) -> Self {
        let mut out = Self::new(kind);
        let key = key_len(kind);
        let fitting = elements.into_iter().filter(|e| e.fits(kind));
        each!(&mut out.store,
            packed s => {
                s.0.extend(fitting.map(|e| pack(&e)));
                match key {
                    None => {
                        s.0.sort_unstable();
                        s.0.dedup();
                    }
                    Some(n) => {
                        // The last of each key first, and of those the first.
                        s.0.reverse();
                        s.0.sort_by(|a, b| a[..n].cmp(&b[..n]));
                        s.0.dedup_by(|a, b| a[..n] == b[..n]);
                    }
                }
                s.0.shrink_to_fit();
            },
            whole s => {
                s.0.extend(fitting);
                s.0.reverse();
                s.0.sort_by_key(Element::key);
                s.0.dedup_by_key(|e| e.key());
                s.0.shrink_to_fit();
            }
        );
        out
    }

    /// What they are.
    pub const fn kind(&self) -> SetKind {
        self.kind
    }

    /// How many.
    pub fn len(&self) -> usize {
        each!(&self.store, packed s => s.0.len(), whole s => s.0.len())
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether this one is among them.
    pub fn contains(&self, e: &Element) -> bool {
        e.fits(self.kind)
            && each!(&self.store,
                packed s => s.0.binary_search(&pack(e)).is_ok(),
                whole s => s.0.binary_search(e).is_ok())
    }

    /// The member at a place.
    fn get(&self, at: usize) -> Option<Element> {
        each!(&self.store,
            packed s => unpack(self.kind, s.0.get(at)?),
            whole s => s.0.get(at).cloned())
    }

    /// All of them, in order.
    pub fn iter(&self) -> impl Iterator<Item = Element> + '_ {
        (0..self.len()).filter_map(|at| self.get(at))
    }

    /// Puts one in; false if it was there, or is of another kind.
    pub fn insert(&mut self, e: &Element) -> bool {
        e.fits(self.kind)
            && each!(&mut self.store,
                packed s => s.insert(pack(e)),
                whole s => s.insert(e.clone()))
    }

    /// Takes one out; false if it was not there.
    pub fn remove(&mut self, e: &Element) -> bool {
        e.fits(self.kind)
            && each!(&mut self.store,
                packed s => s.remove(&pack(e)),
                whole s => s.remove(e))
    }

    /// The member of a map that has the same key as this one.
    pub(crate) fn of_same_key(&self, e: &Element) -> Option<Element> {
        let n = key_len(self.kind).filter(|_| e.fits(self.kind))?;
        let at = each!(&self.store,
            packed s => place_of_key(s, &pack(e), n),
            whole s => {
                let wanted = e.key();
                let at = s.0.partition_point(|r| r.key() < wanted);
                s.0.get(at).filter(|r| r.key() == wanted).map(|_| at)
            }
        )?;
        self.get(at)
    }

    /// Those for which it holds; none where the two are of different kinds.
    fn merge(&self, other: &Self, keep: impl Fn(bool, bool) -> bool) -> Self {
        let store = match (&self.store, &other.store) {
            _ if self.kind != other.kind => return Self::new(self.kind),
            (Store::W4(a), Store::W4(b)) => Store::W4(a.merge(b, keep)),
            (Store::W5(a), Store::W5(b)) => Store::W5(a.merge(b, keep)),
            (Store::W8(a), Store::W8(b)) => Store::W8(a.merge(b, keep)),
            (Store::W17(a), Store::W17(b)) => Store::W17(a.merge(b, keep)),
            (Store::W20(a), Store::W20(b)) => Store::W20(a.merge(b, keep)),
            (Store::W36(a), Store::W36(b)) => Store::W36(a.merge(b, keep)),
            (Store::Whole(a), Store::Whole(b)) => Store::Whole(a.merge(b, keep)),
            // One kind has one width.
            _ => return Self::new(self.kind),
        };
        let kind = self.kind;
        Self { kind, store }
    }

    /// In either.
    pub(crate) fn or(&self, other: &Self) -> Self {
        if other.is_empty() {
            return self.clone();
        }
        if self.is_empty() {
            return other.clone();
        }
        self.merge(other, |_, _| true)
    }

    /// In this one only.
    pub(crate) fn but_not(&self, other: &Self) -> Self {
        if other.is_empty() || self.kind != other.kind {
            return self.clone();
        }
        self.merge(other, |a, b| a && !b)
    }

    /// In both.
    pub(crate) fn and(&self, other: &Self) -> Self {
        self.merge(other, |a, b| a && b)
    }
}

/// Where the record of this one's key is.
fn place_of_key<const N: usize>(s: &Sorted<[u8; N]>, wanted: &[u8; N], n: usize) -> Option<usize> {
    let at = s.0.partition_point(|r| r[..n] < wanted[..n]);
    s.0.get(at).filter(|r| r[..n] == wanted[..n]).map(|_| at)
}

/// How many bytes of a record are a map's key.
const fn key_len(kind: SetKind) -> Option<usize> {
    match kind {
        SetKind::AddrToAddr(Family::V4) => Some(4),
        SetKind::AddrToAddr(Family::V6) => Some(16),
        SetKind::IfNameVerdict | SetKind::IfNameOverRate | SetKind::IfNameOverCount => Some(16),
        _ => None,
    }
}

/// Appends to a record.
struct Pen<'a> {
    out: &'a mut [u8],
    at: usize,
}

impl Pen<'_> {
    fn put(&mut self, bytes: &[u8]) -> &mut Self {
        self.out[self.at..self.at + bytes.len()].copy_from_slice(bytes);
        self.at += bytes.len();
        self
    }

    fn addr(&mut self, a: IpAddr) -> &mut Self {
        match a {
            IpAddr::V4(a) => self.put(&a.octets()),
            IpAddr::V6(a) => self.put(&a.octets()),
        }
    }

    fn net(&mut self, c: Cidr) -> &mut Self {
        self.addr(c.addr()).put(&[c.len()])
    }

    fn name(&mut self, i: &IfName) -> &mut Self {
        let name = i.as_str().as_bytes();
        self.put(name);
        self.at += 16 - name.len();
        self
    }
}

fn pack<const N: usize>(e: &Element) -> [u8; N] {
    let mut out = [0; N];
    let mut p = Pen {
        out: &mut out,
        at: 0,
    };
    match e {
        Element::Addr(a) => p.addr(*a),
        Element::Net(n) => p.net(*n),
        Element::AddrProtoPort(a, proto, port) => {
            p.addr(*a).put(&[proto.0]).put(&port.to_be_bytes())
        }
        Element::NetPair(a, b) => p.net(*a).net(*b),
        Element::IfName(i) | Element::IfNameVerdict(i, _) => p.name(i),
        Element::NetProtoPorts(n, proto, ports) => p
            .net(*n)
            .put(&[proto.0])
            .put(&ports.first().to_be_bytes())
            .put(&ports.last().to_be_bytes()),
        Element::IfNameAddr(i, a) => p.name(i).addr(*a),
        Element::AddrToAddr(a, b) => p.addr(*a).addr(*b),
        Element::IfNameOverRate(i, r) => p
            .name(i)
            .put(&r.packets().to_be_bytes())
            .put(&[r.per() as u8])
            .put(&r.burst().to_be_bytes()),
        Element::IfNameOverCount(i, n) => p.name(i).put(&n.to_be_bytes()),
    };
    out
}

/// Reads a record from the front.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*head)
    }

    fn addr(&mut self, f: Family) -> Option<IpAddr> {
        Some(match f {
            Family::V4 => IpAddr::from(self.take::<4>()?),
            Family::V6 => IpAddr::from(self.take::<16>()?),
        })
    }

    fn net(&mut self, f: Family) -> Option<Cidr> {
        let addr = self.addr(f)?;
        Cidr::new(addr, self.byte()?)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take::<1>().map(|[b]| b)
    }

    fn u16(&mut self) -> Option<u16> {
        self.take().map(u16::from_be_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_be_bytes)
    }

    fn name(&mut self) -> Option<IfName> {
        let bytes = self.take::<16>()?;
        let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
        std::str::from_utf8(&bytes[..end]).ok()?.parse().ok()
    }
}

/// The member of a record that [`pack`] made.
fn unpack(kind: SetKind, record: &[u8]) -> Option<Element> {
    let mut r = Reader(record);
    Some(match kind {
        SetKind::Addr(f) => Element::Addr(r.addr(f)?),
        SetKind::Net(f) => Element::Net(r.net(f)?),
        SetKind::AddrProtoPort(f) => {
            Element::AddrProtoPort(r.addr(f)?, Protocol(r.byte()?), r.u16()?)
        }
        SetKind::NetPair(f) => Element::NetPair(r.net(f)?, r.net(f)?),
        SetKind::IfName => Element::IfName(r.name()?),
        SetKind::NetProtoPorts(f) => {
            let (net, proto) = (r.net(f)?, Protocol(r.byte()?));
            Element::NetProtoPorts(net, proto, PortRange::new(r.u16()?, r.u16()?)?)
        }
        SetKind::IfNameAddr(f) => Element::IfNameAddr(r.name()?, r.addr(f)?),
        SetKind::AddrToAddr(f) => Element::AddrToAddr(r.addr(f)?, r.addr(f)?),
        SetKind::IfNameOverRate => {
            let (name, packets) = (r.name()?, r.u32()?);
            let per = Per::ALL.get(usize::from(r.byte()?)).copied()?;
            Element::IfNameOverRate(name, Rate::new(packets, per, r.u32()?))
        }
        SetKind::IfNameOverCount => Element::IfNameOverCount(r.name()?, r.u32()?),
        // Kept whole.
        SetKind::IfNameVerdict => return None,
    })
}
