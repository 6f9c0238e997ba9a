//! What interfaces are, and what we want of them.
//!
//! Promises: plain values, comparable, with nothing of netlink in them.
//!
//! Never: does I/O.

use net::{Family, IfIndex, IfName, Mac};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// An interface as the kernel shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Number within the namespace.
    pub index: IfIndex,
    /// Name.
    pub name: IfName,
    /// Hardware address, if it is an Ethernet-like device.
    pub mac: Option<Mac>,
    /// MTU in bytes; 0 means the kernel did not say.
    pub mtu: u32,
    /// Administratively up (`IFF_UP`).
    pub up: bool,
    /// Carrier and operational state allow traffic (`IFF_RUNNING`).
    pub running: bool,
    /// Driver kind such as `veth`; empty for physical devices and `lo`.
    pub kind: String,
    /// Bridge or bond that it belongs to.
    pub master: Option<IfIndex>,
    /// `IFLA_LINK`: the veth peer, or the parent of a tunnel. If `peer_elsewhere` is set, the
    /// number belongs to another namespace.
    pub parent: Option<IfIndex>,
    /// The parent or peer lives in another namespace.
    pub peer_elsewhere: bool,
    /// VXLAN parameters, if it is a VXLAN device with a fixed VNI.
    pub vxlan: Option<Vxlan>,
}

/// One end of a veth pair to be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VethEnd {
    /// Name; must be free in the namespace of that end.
    pub name: IfName,
    /// Hardware address; random if unset.
    pub mac: Option<Mac>,
    /// MTU in bytes; the kernel's 1500 if unset.
    pub mtu: Option<u32>,
}

impl VethEnd {
    /// An end with nothing but a name.
    pub const fn named(name: IfName) -> Self {
        Self {
            name,
            mac: None,
            mtu: None,
        }
    }
}

/// A veth pair to be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Veth {
    /// The end in the handle's own namespace.
    pub here: VethEnd,
    /// The other end.
    pub there: VethEnd,
    /// Transmit and receive queues of each end, at least 1.
    pub queues: u32,
    /// Bring the near end up in the same request. The far end cannot be: the kernel opens it
    /// before the two are tied together.
    pub up: bool,
}

/// Scope of an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub enum Scope {
    /// Valid everywhere.
    #[default]
    Universe,
    /// Valid on this link only.
    Link,
    /// Valid inside the host only.
    Host,
}

/// An address of an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Address {
    /// The address.
    pub addr: IpAddr,
    /// Prefix length of the connected route; the family's width for none.
    pub len: u8,
    /// Scope.
    pub scope: Scope,
    /// IPv6: usable at once, without duplicate address detection. Ignored when comparing
    /// what is with what should be.
    pub nodad: bool,
}

impl Address {
    /// A single address, no connected route, no detection of duplicates.
    pub const fn host(addr: IpAddr) -> Self {
        Self {
            addr,
            len: Family::of(addr).bits(),
            scope: Scope::Universe,
            nodad: true,
        }
    }

    /// An address with a connected prefix, no detection of duplicates.
    pub const fn subnet(addr: IpAddr, len: u8) -> Self {
        Self {
            addr,
            len,
            scope: Scope::Universe,
            nodad: true,
        }
    }
}

/// A neighbour entry (ARP, NDP), or a proxy entry that we answer for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Neighbour {
    /// Interface.
    pub dev: IfIndex,
    /// Protocol address.
    pub addr: IpAddr,
    /// Hardware address; `None` for proxy entries and unresolved ones.
    pub mac: Option<Mac>,
    /// `NUD_PERMANENT`: set by somebody, not learned.
    pub permanent: bool,
    /// `NTF_PROXY`: we answer for this address on the interface.
    pub proxy: bool,
}

/// A forwarding entry of a VXLAN device: frames to `mac` travel to host `dst`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FdbEntry {
    /// Interface.
    pub dev: IfIndex,
    /// Inner destination.
    pub mac: Mac,
    /// Outer destination.
    pub dst: IpAddr,
}

/// Parameters of a VXLAN device. The outer family is that of `local`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Vxlan {
    /// Device name.
    pub name: IfName,
    /// VXLAN network identifier, 24 bits.
    pub vni: u32,
    /// Outer source address; `None` lets routing choose.
    pub local: Option<IpAddr>,
    /// Interface that carries the outer packets.
    pub parent: Option<IfIndex>,
    /// UDP destination port.
    pub port: u16,
    /// Inner hardware address.
    pub mac: Mac,
    /// MTU of the inner side in bytes.
    pub mtu: u32,
    /// Learn inner addresses from traffic. Ours never do.
    pub learning: bool,
}

impl Vxlan {
    /// True if `self` can become `other` without being made anew. Everything but the MTU is
    /// fixed: the driver refuses most changes, and Calico recreates for the same reasons.
    pub fn same_device(&self, other: &Self) -> bool {
        Self { mtu: 0, ..*self } == Self { mtu: 0, ..*other }
    }
}

/// The far side of a tunnel: which host answers for which tunnel address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Vtep {
    /// Hardware address of the peer's VXLAN device.
    pub mac: Mac,
    /// The peer's host address, outer destination.
    pub host: IpAddr,
}

/// All that we want of one VXLAN device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VxlanDesired {
    /// The device.
    pub device: Vxlan,
    /// Its own tunnel addresses, and no others but link-local ones.
    pub addresses: Vec<Address>,
    /// Peers by tunnel address.
    pub vteps: BTreeMap<IpAddr, Vtep>,
}

/// Changes to one interface that go to the kernel in one datagram, in the order of the
/// fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Changes<'a> {
    /// New name; the interface must be down or the kernel 6.2 or newer.
    pub name: Option<IfName>,
    /// New hardware address.
    pub mac: Option<Mac>,
    /// New MTU.
    pub mtu: Option<u32>,
    /// Make no IPv6 link-local address when it comes up.
    pub no_link_local: bool,
    /// Up or down.
    pub up: Option<bool>,
    /// Addresses to add; one that is there already is fine.
    pub addresses: &'a [Address],
    /// Permanent neighbours to set, address and hardware address.
    pub neighbours: &'a [(IpAddr, Mac)],
}

/// Something that changed in the namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// An interface is new or different.
    Link(Link),
    /// An interface is gone from this namespace.
    LinkGone {
        /// Its number, which may be used again.
        index: IfIndex,
        /// Its last name.
        name: IfName,
    },
    /// An address is new or different.
    Address(IfIndex, Address),
    /// An address is gone.
    AddressGone(IfIndex, Address),
    /// A neighbour entry is new or different.
    Neighbour(Neighbour),
    /// A neighbour entry is gone.
    NeighbourGone(Neighbour),
    /// A forwarding entry of a VXLAN device is new or different.
    Fdb(FdbEntry),
    /// A forwarding entry of a VXLAN device is gone.
    FdbGone(FdbEntry),
    /// Notifications were lost: read everything again.
    Resync,
}

/// A kernel setting of the namespace: path below `/proc/sys/net`, and value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sysctl {
    /// Such as `ipv4/conf/eth0/proxy_arp`: slashes, since interface names may hold dots.
    pub path: String,
    /// The value as text.
    pub value: String,
}

impl Sysctl {
    /// A setting of one interface, or of `all` or `default`: `ipv4/conf/<dev>/<key>`.
    pub fn conf(family: Family, dev: &str, key: &str, value: impl ToString) -> Self {
        Self {
            path: format!("{}/conf/{dev}/{key}", tree(family)),
            value: value.to_string(),
        }
    }
}

const fn tree(family: Family) -> &'static str {
    match family {
        Family::V4 => "ipv4",
        Family::V6 => "ipv6",
    }
}

/// What the host end of a workload's veth needs, per family. Duplicate address detection
/// must be off before the interface comes up, so that its link-local address, the pod's
/// gateway, works at once.
pub fn host_end_sysctls(dev: IfName, family: Family) -> Vec<Sysctl> {
    let d = dev.as_str();
    match family {
        Family::V4 => vec![
            // NAT to 127.0.0.0/8 on the way in, for node-local services.
            Sysctl::conf(family, d, "route_localnet", 1),
            Sysctl {
                path: format!("ipv4/neigh/{d}/proxy_delay"),
                value: "0".to_owned(),
            },
            Sysctl::conf(family, d, "proxy_arp", 1),
            Sysctl::conf(family, d, "forwarding", 1),
        ],
        Family::V6 => vec![
            Sysctl::conf(family, d, "accept_dad", 0),
            Sysctl::conf(family, d, "disable_ipv6", 0),
            // A pod must not be able to give the host routes.
            Sysctl::conf(family, d, "accept_ra", 0),
            Sysctl::conf(family, d, "proxy_ndp", 1),
            Sysctl::conf(family, d, "forwarding", 1),
        ],
    }
}

/// What the pod's own namespace needs, per family. `forwarding` is CNI's
/// `allow_ip_forwarding`.
pub fn pod_end_sysctls(dev: IfName, family: Family, forwarding: bool) -> Vec<Sysctl> {
    let flag = u8::from(forwarding);
    match family {
        Family::V4 => {
            vec![Sysctl {
                path: "ipv4/ip_forward".to_owned(),
                value: flag.to_string(),
            }]
        }
        Family::V6 => vec![
            Sysctl::conf(family, "all", "disable_ipv6", 0),
            Sysctl::conf(family, "default", "disable_ipv6", 0),
            Sysctl::conf(family, dev.as_str(), "disable_ipv6", 0),
            Sysctl::conf(family, dev.as_str(), "accept_dad", 0),
            Sysctl::conf(family, "all", "forwarding", flag),
        ],
    }
}
