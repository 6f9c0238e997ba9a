//! Reading and changing interfaces; the only part of this room with a socket.
//!
//! Promises: each call is one round trip unless it says otherwise; an error names the
//! interface.
//!
//! Never: decides anything.

mod encode;
mod monitor;
pub mod sysctl;

pub use monitor::Monitor;

use crate::plan::{Op, Plan, VxlanActual};
use crate::value::{Address, Changes, FdbEntry, Link, Neighbour, Veth, VethEnd, Vxlan};
use encode::{CREATE, Entry, REPLACE};
use net::{IfIndex, IfName, Mac};
use netlink::netns::NetNs;
use netlink::wire::Message;
use netlink::{Errno, NetlinkError, Protocol, Socket};
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd};

/// The interface group of those that `delete_all` is about to remove: "mx!!" in ASCII. A
/// number that nobody else has a reason to use; an interface joins it only to die.
const DOOMED: u32 = 0x6d78_2121;

/// A step of a plan that failed. It stays in the next plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The step.
    pub op: Op,
    /// Why.
    pub error: NetlinkError,
}

/// Access to the interfaces of one namespace.
#[derive(Debug)]
pub struct Handle(Socket);

impl Handle {
    /// For the calling thread's namespace.
    ///
    /// # Errors
    /// If the kernel gives no socket.
    pub fn open() -> Result<Self, NetlinkError> {
        Socket::open(Protocol::Route).map(Self)
    }

    /// For `ns`; the calling thread stays where it is.
    ///
    /// # Errors
    /// As [`Handle::open`], or if the namespace cannot be entered.
    pub fn open_in(ns: &NetNs) -> Result<Self, NetlinkError> {
        Socket::open_in(Protocol::Route, ns).map(Self)
    }

    /// All interfaces.
    ///
    /// # Errors
    /// If the kernel does not answer in full.
    pub fn links(&mut self) -> Result<Vec<Link>, NetlinkError> {
        self.0
            .dump("list interfaces", encode::list_links(), encode::parse_link)
    }

    /// The interface of that name, `None` if there is none.
    ///
    /// # Errors
    /// If the kernel fails in another way.
    pub fn by_name(&mut self, name: IfName) -> Result<Option<Link>, NetlinkError> {
        let mut m = encode::link(libc::RTM_GETLINK, 0, None, None);
        m.attr_str(libc::IFLA_IFNAME, name.as_str());
        optional(
            self.0
                .query(format_args!("read interface {name}"), m, encode::parse_link),
        )
    }

    /// The interface of that number, `None` if there is none.
    ///
    /// # Errors
    /// If the kernel fails in another way.
    pub fn by_index(&mut self, index: IfIndex) -> Result<Option<Link>, NetlinkError> {
        let m = encode::link(libc::RTM_GETLINK, 0, Some(index), None);
        optional(self.0.query(
            format_args!("read interface {index}"),
            m,
            encode::parse_link,
        ))
    }

    /// The number of the interface of that name.
    ///
    /// # Errors
    /// `ENODEV` if there is none.
    pub fn index_of(&mut self, name: IfName) -> Result<IfIndex, NetlinkError> {
        self.by_name(name)?.map(|l| l.index).ok_or_else(|| {
            NetlinkError::refused(format_args!("find interface {name}"), Errno::ENODEV)
        })
    }

    /// Makes a veth pair, the far end directly in `peer_ns` (or here), so that it is never
    /// seen under a wrong name or in a wrong place. Both ends disappear with either.
    ///
    /// # Errors
    /// `EEXIST` if a name is taken at its end; then nothing is made.
    pub fn create_veth(&mut self, v: &Veth, peer_ns: Option<&NetNs>) -> Result<(), NetlinkError> {
        let mut m = encode::link(libc::RTM_NEWLINK, CREATE, None, v.up.then_some(true));
        encode::end(&mut m, &v.here, v.queues);
        let fd = peer_ns.map(|ns| ns.as_fd().as_raw_fd().unsigned_abs());
        encode::veth_peer(&mut m, &v.there, v.queues, fd);
        self.0.request(
            format_args!("make veth {} - {}", v.here.name, v.there.name),
            m,
        )
    }

    /// Makes a bridge, up.
    ///
    /// # Errors
    /// `EEXIST` if the name is taken.
    pub fn create_bridge(&mut self, end: &VethEnd) -> Result<(), NetlinkError> {
        self.create_plain("bridge", end)
    }

    /// Makes a dummy interface, up.
    ///
    /// # Errors
    /// `EEXIST` if the name is taken.
    pub fn create_dummy(&mut self, end: &VethEnd) -> Result<(), NetlinkError> {
        self.create_plain("dummy", end)
    }

    fn create_plain(&mut self, kind: &str, end: &VethEnd) -> Result<(), NetlinkError> {
        let mut m = encode::link(libc::RTM_NEWLINK, CREATE, None, Some(true));
        encode::end(&mut m, end, 1);
        encode::plain_kind(&mut m, kind);
        self.0.request(format_args!("make {kind} {}", end.name), m)
    }

    /// Makes a VXLAN device, down.
    ///
    /// # Errors
    /// `EEXIST` if the name is taken, or if another device has the same VNI and port.
    pub fn create_vxlan(&mut self, v: &Vxlan) -> Result<(), NetlinkError> {
        let mut m = encode::link(libc::RTM_NEWLINK, CREATE, None, None);
        encode::vxlan(&mut m, v);
        self.0
            .request(format_args!("make vxlan device {}", v.name), m)
    }

    /// Brings an interface up or down. Down loses its IPv4 routes without a notification.
    ///
    /// # Errors
    /// If there is no such interface or its driver refuses.
    pub fn set_up(&mut self, index: IfIndex, up: bool) -> Result<(), NetlinkError> {
        self.change(
            index,
            &Changes {
                up: Some(up),
                ..Changes::default()
            },
        )
    }

    /// Applies several changes in one round trip. All are tried.
    ///
    /// # Errors
    /// The first that was refused.
    pub fn change(&mut self, index: IfIndex, c: &Changes<'_>) -> Result<(), NetlinkError> {
        let mut steps: Vec<(String, Message)> = Vec::new();
        if c.name.is_some() || c.mac.is_some() || c.mtu.is_some() {
            let mut m = encode::link(libc::RTM_SETLINK, 0, Some(index), None);
            if let Some(name) = c.name {
                m.attr_str(libc::IFLA_IFNAME, name.as_str());
            }
            if let Some(mac) = c.mac {
                m.attr(libc::IFLA_ADDRESS, &mac.0);
            }
            if let Some(mtu) = c.mtu {
                m.attr_u32(libc::IFLA_MTU, mtu);
            }
            steps.push(("set name, MAC or MTU".to_owned(), m));
        }
        if c.no_link_local {
            steps.push((
                "turn off link-local addresses".to_owned(),
                encode::no_link_local(index),
            ));
        }
        if let Some(up) = c.up {
            let m = encode::link(libc::RTM_SETLINK, 0, Some(index), Some(up));
            steps.push((format!("bring {}", if up { "up" } else { "down" }), m));
        }
        for a in c.addresses {
            let m = encode::address(libc::RTM_NEWADDR, REPLACE, Some(index), Some(a));
            steps.push((format!("add address {}/{}", a.addr, a.len), m));
        }
        for (addr, mac) in c.neighbours {
            let n = permanent(index, *addr, *mac);
            let m = encode::neighbour(libc::RTM_NEWNEIGH, REPLACE, &n);
            steps.push((format!("set neighbour {addr}"), m));
        }
        let (names, messages): (Vec<_>, Vec<_>) = steps.into_iter().unzip();
        let verdicts = self.0.batch(messages).into_iter().zip(names);
        verdicts
            .filter_map(|(v, n)| Some((v?, n)))
            .next()
            .map_or(Ok(()), |(cause, name)| {
                Err(NetlinkError {
                    operation: format!("{name} on interface {index}"),
                    cause,
                })
            })
    }

    /// Makes an interface a port of a bridge, or releases it.
    ///
    /// # Errors
    /// If either does not exist or cannot be joined.
    pub fn set_master(
        &mut self,
        port: IfIndex,
        master: Option<IfIndex>,
    ) -> Result<(), NetlinkError> {
        let mut m = encode::link(libc::RTM_SETLINK, 0, Some(port), None);
        m.attr_u32(libc::IFLA_MASTER, master.map_or(0, IfIndex::get));
        self.0
            .request(format_args!("set the master of interface {port}"), m)
    }

    /// Moves an interface to another namespace, perhaps under a new name. It arrives down,
    /// without addresses, and may get another number.
    ///
    /// # Errors
    /// `EEXIST` if the name is taken there.
    pub fn move_to(
        &mut self,
        index: IfIndex,
        ns: &NetNs,
        name: Option<IfName>,
    ) -> Result<(), NetlinkError> {
        let mut m = encode::link(libc::RTM_SETLINK, 0, Some(index), None);
        m.attr_u32(libc::IFLA_NET_NS_FD, ns.as_fd().as_raw_fd().unsigned_abs());
        if let Some(name) = name {
            m.attr_str(libc::IFLA_IFNAME, name.as_str());
        }
        self.0
            .request(format_args!("move interface {index} to {ns}"), m)
    }

    /// Removes an interface. False if there was none.
    ///
    /// # Errors
    /// If the kernel refuses, as it does for physical devices.
    pub fn delete(&mut self, name: IfName) -> Result<bool, NetlinkError> {
        let mut m = encode::link(libc::RTM_DELLINK, 0, None, None);
        m.attr_str(libc::IFLA_IFNAME, name.as_str());
        absent_is_false(self.0.request(format_args!("remove interface {name}"), m))
    }

    /// Removes interfaces in one grace period of the kernel; absent ones are fine.
    ///
    /// # Errors
    /// If one cannot be marked, and then none is removed; or the kernel's refusal.
    pub fn delete_all(&mut self, names: &[IfName]) -> Result<(), NetlinkError> {
        self.doom(names)?;
        self.delete_doomed()
    }

    /// Marks interfaces for [`Handle::delete_doomed`]; absent ones are fine. Quick, unlike the
    /// removal, and the mark stays whoever removes them in the end.
    ///
    /// # Errors
    /// If one cannot be marked.
    pub fn doom(&mut self, names: &[IfName]) -> Result<(), NetlinkError> {
        let marks = names.iter().map(|name| {
            let mut m = encode::link(libc::RTM_SETLINK, 0, None, None);
            m.attr_str(libc::IFLA_IFNAME, name.as_str())
                .attr_u32(libc::IFLA_GROUP, DOOMED);
            m
        });
        for (verdict, name) in self.0.batch(marks.collect()).into_iter().zip(names) {
            let operation = || format!("mark interface {name} for removal");
            absent_is_false(verdict.map_or(Ok(()), |cause| {
                Err(NetlinkError {
                    operation: operation(),
                    cause,
                })
            }))?;
        }
        Ok(())
    }

    /// Removes what is marked, all in one grace period (some 20 ms).
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn delete_doomed(&mut self) -> Result<(), NetlinkError> {
        let mut m = encode::link(libc::RTM_DELLINK, 0, None, None);
        m.attr_u32(libc::IFLA_GROUP, DOOMED);
        // A group without interfaces is ENODEV.
        absent_is_false(self.0.request("remove the marked interfaces", m)).map(drop)
    }

    /// Addresses, of one interface or of all.
    ///
    /// # Errors
    /// If the kernel does not answer in full.
    pub fn addresses(
        &mut self,
        dev: Option<IfIndex>,
    ) -> Result<Vec<(IfIndex, Address)>, NetlinkError> {
        let m = encode::address(libc::RTM_GETADDR, 0, dev, None);
        self.0.dump("list addresses", m, |f| {
            encode::parse_address(f).filter(|(i, _)| dev.is_none_or(|d| d == *i))
        })
    }

    /// Adds an address; one that is there already is fine.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn add_address(&mut self, dev: IfIndex, a: &Address) -> Result<(), NetlinkError> {
        let m = encode::address(libc::RTM_NEWADDR, REPLACE, Some(dev), Some(a));
        self.0.request(
            format_args!("add address {}/{} to interface {dev}", a.addr, a.len),
            m,
        )
    }

    /// Removes an address. False if it was not there.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn delete_address(&mut self, dev: IfIndex, a: &Address) -> Result<bool, NetlinkError> {
        let m = encode::address(libc::RTM_DELADDR, 0, Some(dev), Some(a));
        let name = format!("remove address {}/{} from interface {dev}", a.addr, a.len);
        absent_is_false(self.0.request(name, m))
    }

    /// Neighbour entries and proxy entries, of one interface or of all.
    ///
    /// # Errors
    /// If the kernel does not answer in full.
    pub fn neighbours(&mut self, dev: Option<IfIndex>) -> Result<Vec<Neighbour>, NetlinkError> {
        let mut all = Vec::new();
        for proxy in [false, true] {
            let m = encode::list_neighbours(dev, proxy);
            all.extend(
                self.0
                    .dump("list neighbours", m, |f| match encode::parse_entry(f)? {
                        Entry::Neighbour(n) if dev.is_none_or(|d| d == n.dev) => Some(n),
                        _ => None,
                    })?,
            );
        }
        Ok(all)
    }

    /// Sets a permanent neighbour, or a proxy entry, in place of what was there.
    ///
    /// # Errors
    /// If the kernel refuses. A down interface takes entries too; going down loses them all.
    pub fn set_neighbour(&mut self, n: &Neighbour) -> Result<(), NetlinkError> {
        let m = encode::neighbour(libc::RTM_NEWNEIGH, REPLACE, n);
        self.0.request(
            format_args!("set neighbour {} on interface {}", n.addr, n.dev),
            m,
        )
    }

    /// Removes a neighbour, or a proxy entry. False if it was not there.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn delete_neighbour(&mut self, n: &Neighbour) -> Result<bool, NetlinkError> {
        let m = encode::neighbour(libc::RTM_DELNEIGH, 0, n);
        let name = format!("remove neighbour {} from interface {}", n.addr, n.dev);
        absent_is_false(self.0.request(name, m))
    }

    /// Forwarding entries of a VXLAN device.
    ///
    /// # Errors
    /// If the kernel does not answer in full.
    pub fn fdb(&mut self, dev: IfIndex) -> Result<Vec<FdbEntry>, NetlinkError> {
        self.0.dump(
            "list forwarding entries",
            encode::list_fdb(dev),
            |f| match encode::parse_entry(f)? {
                Entry::Fdb(e) if e.dev == dev => Some(e),
                _ => None,
            },
        )
    }

    /// Sets where frames go, in place of where they went: no moment without an entry.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn set_fdb(&mut self, e: &FdbEntry) -> Result<(), NetlinkError> {
        let m = encode::fdb(libc::RTM_NEWNEIGH, REPLACE, e);
        self.0.request(
            format_args!("send {} to {} on interface {}", e.mac, e.dst, e.dev),
            m,
        )
    }

    /// Adds one more destination for frames: all of them get a copy. For the all-zero
    /// address, the destinations of unknown and broadcast frames.
    ///
    /// # Errors
    /// If the kernel refuses, as it does for several destinations of a unicast address.
    pub fn append_fdb(&mut self, e: &FdbEntry) -> Result<(), NetlinkError> {
        let flags = (libc::NLM_F_CREATE | libc::NLM_F_APPEND) as u16;
        let m = encode::fdb(libc::RTM_NEWNEIGH, flags, e);
        self.0.request(
            format_args!("also send {} to {} on interface {}", e.mac, e.dst, e.dev),
            m,
        )
    }

    /// Removes a destination. False if it was not there.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn delete_fdb(&mut self, e: &FdbEntry) -> Result<bool, NetlinkError> {
        let m = encode::fdb(libc::RTM_DELNEIGH, 0, e);
        let name = format!("stop sending {} to {} on interface {}", e.mac, e.dst, e.dev);
        absent_is_false(self.0.request(name, m))
    }

    /// All that the kernel holds of the VXLAN device called `name`.
    ///
    /// # Errors
    /// If the kernel does not answer in full.
    pub fn read_vxlan(&mut self, name: IfName) -> Result<VxlanActual, NetlinkError> {
        let Some(link) = self.by_name(name)? else {
            return Ok(VxlanActual::default());
        };
        let dev = link.index;
        Ok(VxlanActual {
            addresses: self
                .addresses(Some(dev))?
                .into_iter()
                .map(|(_, a)| a)
                .collect(),
            neighbours: self.neighbours(Some(dev))?,
            fdb: if link.vxlan.is_some() {
                self.fdb(dev)?
            } else {
                Vec::new()
            },
            link: Some(link),
        })
    }

    /// Does the steps of a plan in order. All are tried; those that fail are returned and
    /// will be in the next plan, made from what the kernel then holds.
    pub fn apply(&mut self, plan: &Plan) -> Vec<Failure> {
        let mut index = None;
        let mut failures = Vec::new();
        for op in &plan.ops {
            if let Err(error) = self.step(plan.device, &mut index, op) {
                failures.push(Failure { op: *op, error });
            }
        }
        failures
    }

    fn step(
        &mut self,
        name: IfName,
        known: &mut Option<IfIndex>,
        op: &Op,
    ) -> Result<(), NetlinkError> {
        match op {
            Op::Delete => {
                *known = None;
                return self.delete(name).map(drop);
            }
            Op::Create(v) => {
                *known = None;
                return self.create_vxlan(v);
            }
            _ => {}
        }
        let dev = match *known {
            Some(dev) => dev,
            None => *known.insert(self.index_of(name)?),
        };
        match *op {
            Op::Delete | Op::Create(_) => Ok(()),
            Op::Mtu(mtu) => self.change(
                dev,
                &Changes {
                    mtu: Some(mtu),
                    ..Changes::default()
                },
            ),
            Op::Up => self.set_up(dev, true),
            Op::AddAddress(a) => self.add_address(dev, &a),
            Op::DelAddress(a) => self.delete_address(dev, &a).map(drop),
            Op::SetFdb(mac, dst) => self.set_fdb(&FdbEntry { dev, mac, dst }),
            Op::DelFdb(mac, dst) => self.delete_fdb(&FdbEntry { dev, mac, dst }).map(drop),
            Op::SetNeighbour(addr, mac) => self.set_neighbour(&permanent(dev, addr, mac)),
            Op::DelNeighbour(addr) => {
                let n = Neighbour {
                    dev,
                    addr,
                    mac: None,
                    permanent: true,
                    proxy: false,
                };
                self.delete_neighbour(&n).map(drop)
            }
        }
    }
}

const fn permanent(dev: IfIndex, addr: IpAddr, mac: Mac) -> Neighbour {
    Neighbour {
        dev,
        addr,
        mac: Some(mac),
        permanent: true,
        proxy: false,
    }
}

fn optional<T>(r: Result<T, NetlinkError>) -> Result<Option<T>, NetlinkError> {
    match r {
        Err(e) if e.is(Errno::ENODEV) => Ok(None),
        other => other.map(Some),
    }
}

fn absent_is_false(r: Result<(), NetlinkError>) -> Result<bool, NetlinkError> {
    match r {
        Err(e)
            if [Errno::ENODEV, Errno::ENOENT, Errno::EADDRNOTAVAIL]
                .into_iter()
                .any(|x| e.is(x)) =>
        {
            Ok(false)
        }
        other => other.map(|()| true),
    }
}
