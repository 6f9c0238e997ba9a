//! Chains' places, sets and their members in the kernel's terms.
//!
//! Promises: pure; a kind and its declaration in the kernel tell each other.
//! Never: sends or reads anything.

use super::{addr_bytes, addr_len, addr_type, after, ifname_bytes};
use crate::value::*;
use net::{Family, Protocol};
use netlink::nft::{
    BaseSpec, ElementData, SetData, SetSpec, Stateful, VerdictCode, key_type, set_flag,
};
use std::net::IpAddr;

/// A table's family in the kernel's terms.
pub(crate) const fn family(f: TableFamily) -> netlink::nft::Family {
    match f {
        TableFamily::Inet => netlink::nft::Family::Inet,
        TableFamily::Arp => netlink::nft::Family::Arp,
    }
}

/// A verdict in the kernel's terms.
pub(crate) fn verdict(v: &Verdict) -> VerdictCode<'_> {
    match v {
        Verdict::Accept => VerdictCode::Accept,
        Verdict::Drop => VerdictCode::Drop,
        Verdict::Return => VerdictCode::Return,
        Verdict::Jump(c) => VerdictCode::Jump(c.as_str()),
        Verdict::Goto(c) => VerdictCode::Goto(c.as_str()),
    }
}

/// A base chain's place in the kernel's terms; hooks have other numbers in ARP tables.
pub(crate) fn base(family: TableFamily, b: &Base) -> BaseSpec {
    BaseSpec {
        kind: b.kind.to_string(),
        hook: match (family, b.hook) {
            (TableFamily::Inet, Hook::Prerouting) | (TableFamily::Arp, Hook::Input) => 0,
            (TableFamily::Inet, Hook::Input) | (TableFamily::Arp, Hook::Output) => 1,
            (_, Hook::Forward) => 2,
            (_, Hook::Output) => 3,
            // What no ARP table has, the kernel refuses.
            (_, Hook::Prerouting | Hook::Postrouting) => 4,
        },
        priority: b.priority,
        policy: match b.policy {
            Policy::Drop => 0,
            Policy::Accept => 1,
        },
    }
}

/// A set's type in the kernel's terms.
pub(crate) fn set(kind: SetKind) -> SetSpec {
    let one = |flags, key_type, key_len| SetSpec {
        flags,
        key_type,
        key_len,
        fields: Vec::new(),
        data: SetData::None,
        host_order: key_type == key_type::IFNAME,
    };
    let triple = |f| {
        let pair = key_type::concat(addr_type(f), key_type::PROTO);
        one(
            0,
            key_type::concat(pair, key_type::SERVICE),
            addr_len(f) + 8,
        )
    };
    let name = || one(0, key_type::IFNAME, 16);
    match kind {
        SetKind::Addr(f) => one(0, addr_type(f), addr_len(f)),
        SetKind::Net(f) => one(set_flag::INTERVAL, addr_type(f), addr_len(f)),
        // The kernel wants field lengths of interval concatenations only.
        SetKind::AddrProtoPort(f) => triple(f),
        SetKind::NetProtoPorts(f) => SetSpec {
            flags: set_flag::INTERVAL | set_flag::CONCAT,
            fields: vec![addr_len(f), 1, 2],
            ..triple(f)
        },
        SetKind::NetPair(f) => SetSpec {
            flags: set_flag::INTERVAL | set_flag::CONCAT,
            key_type: key_type::concat(addr_type(f), addr_type(f)),
            key_len: 2 * addr_len(f),
            fields: vec![addr_len(f), addr_len(f)],
            ..one(0, 0, 0)
        },
        SetKind::IfName => name(),
        SetKind::IfNameVerdict => SetSpec {
            flags: set_flag::MAP,
            data: SetData::Verdict,
            ..name()
        },
        SetKind::IfNameAddr(f) => SetSpec {
            key_type: key_type::concat(key_type::IFNAME, addr_type(f)),
            key_len: 16 + addr_len(f),
            ..name()
        },
        SetKind::AddrToAddr(f) => SetSpec {
            data: SetData::Value {
                data_type: addr_type(f),
                len: addr_len(f),
            },
            ..one(set_flag::MAP, addr_type(f), addr_len(f))
        },
        SetKind::IfNameOverRate => SetSpec {
            data: SetData::Stateful(over_rate(Rate::TEMPLATE)),
            ..name()
        },
        SetKind::IfNameOverCount => SetSpec {
            data: SetData::Stateful(Stateful::OverCount(1)),
            ..name()
        },
    }
}

fn over_rate(r: Rate) -> Stateful {
    Stateful::OverRate {
        rate: u64::from(r.packets()),
        seconds: r.per().seconds(),
        burst: r.burst(),
    }
}

/// What an element has beside its key. `value` is room for an address.
pub(crate) fn data<'a>(e: &'a Element, value: &'a mut Vec<u8>) -> ElementData<'a> {
    match e {
        Element::IfNameVerdict(_, v) => ElementData::Verdict(verdict(v)),
        Element::AddrToAddr(_, to) => {
            *value = addr_bytes(*to);
            ElementData::Value(value)
        }
        Element::IfNameOverRate(_, r) => ElementData::Stateful(over_rate(*r)),
        Element::IfNameOverCount(_, n) => ElementData::Stateful(Stateful::OverCount(*n)),
        _ => ElementData::None,
    }
}

/// The key bytes of one element, and the upper ends of its fields.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Key {
    bytes: [[u8; Key::MAX]; 2],
    len: usize,
    two: bool,
}

impl Key {
    /// Two IPv6 addresses, or an interface name and one.
    const MAX: usize = 32;

    fn one(parts: &[&[u8]]) -> Self {
        let mut key = Self {
            bytes: [[0; Self::MAX]; 2],
            len: 0,
            two: false,
        };
        for part in parts {
            key.bytes[0][key.len..key.len + part.len()].copy_from_slice(part);
            key.len += part.len();
        }
        key
    }

    fn range(low: &[&[u8]], high: &[&[u8]]) -> Self {
        let mut key = Self::one(low);
        key.bytes[1] = Self::one(high).bytes[0];
        key.two = true;
        key
    }

    /// The key, or the lower ends of its fields.
    pub(crate) fn low(&self) -> &[u8] {
        &self.bytes[0][..self.len]
    }

    /// The upper ends, in interval concatenations.
    pub(crate) fn high(&self) -> Option<&[u8]> {
        self.two.then(|| &self.bytes[1][..self.len])
    }
}

/// The bytes of an address.
struct Octets([u8; 16], usize);

impl Octets {
    fn of(a: IpAddr) -> Self {
        let mut out = [0; 16];
        match a {
            IpAddr::V4(a) => {
                out[..4].copy_from_slice(&a.octets());
                Self(out, 4)
            }
            IpAddr::V6(a) => Self(a.octets(), 16),
        }
    }

    fn get(&self) -> &[u8] {
        &self.0[..self.1]
    }
}

/// An element's key.
pub(crate) fn key(e: &Element) -> Key {
    let of = Octets::of;
    match e {
        Element::Addr(a) | Element::AddrToAddr(a, _) => Key::one(&[of(*a).get()]),
        Element::Net(n) => Key::one(&[of(n.addr()).get()]),
        Element::AddrProtoPort(a, proto, port) => {
            Key::one(&[of(*a).get(), &service(*proto, *port)])
        }
        Element::NetProtoPorts(n, proto, ports) => Key::range(
            &[of(n.addr()).get(), &service(*proto, ports.first())],
            &[of(n.last()).get(), &service(*proto, ports.last())],
        ),
        Element::NetPair(a, b) => Key::range(
            &[of(a.addr()).get(), of(b.addr()).get()],
            &[of(a.last()).get(), of(b.last()).get()],
        ),
        Element::IfNameAddr(i, a) => Key::one(&[&ifname_bytes(i), of(*a).get()]),
        Element::IfName(i)
        | Element::IfNameVerdict(i, _)
        | Element::IfNameOverRate(i, _)
        | Element::IfNameOverCount(i, _) => Key::one(&[&ifname_bytes(i)]),
    }
}

/// The end of a plain interval, which is an element of its own; none where the space ends
/// with it.
pub(crate) fn interval_end(e: &Element) -> Option<Key> {
    let Element::Net(n) = e else { return None };
    after(*n).map(|end| Key::one(&[&end]))
}

/// Protocol and port; each padded to four bytes.
const fn service(proto: Protocol, port: u16) -> [u8; 8] {
    let [hi, lo] = port.to_be_bytes();
    [proto.0, 0, 0, 0, hi, lo, 0, 0]
}

/// The kind that a set of the kernel has, if it is one of ours.
pub(crate) fn kind_of(spec: &SetSpec) -> Option<SetKind> {
    // What is not told, and what each member says for itself.
    let plain = |mut s: SetSpec| {
        s.host_order = false;
        s.data = match s.data {
            SetData::Stateful(Stateful::OverRate { .. }) => {
                SetData::Stateful(over_rate(Rate::TEMPLATE))
            }
            SetData::Stateful(Stateful::OverCount(_)) => SetData::Stateful(Stateful::OverCount(1)),
            other => other,
        };
        s
    };
    let all = Family::BOTH
        .into_iter()
        .flat_map(|f| {
            [
                SetKind::Addr(f),
                SetKind::Net(f),
                SetKind::AddrProtoPort(f),
                SetKind::NetPair(f),
                SetKind::NetProtoPorts(f),
                SetKind::IfNameAddr(f),
                SetKind::AddrToAddr(f),
            ]
        })
        .chain([
            SetKind::IfName,
            SetKind::IfNameVerdict,
            SetKind::IfNameOverRate,
            SetKind::IfNameOverCount,
        ]);
    let spec = plain(spec.clone());
    all.into_iter().find(|k| plain(set(*k)) == spec)
}
