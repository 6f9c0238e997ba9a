//! Interfaces: those of workloads set up, tunnel devices made and kept.
//!
//! Promises: knows which interface has which name and number; sets up a workload's
//! interface whenever it appears; keeps tunnel devices, far ends and addresses as wanted.
//! Never: makes or removes a workload's interface.

use desired::{Tunnel, Vtep};
use link::{Address, Event, Handle, Link, Neighbour, Sysctl, Vxlan, VxlanDesired};
use net::{Family, IfIndex, IfName};
use netlink::netns::Worker;
use netlink::{Errno, NetlinkError};
use render::{Interface, NodeSysctl};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// What an event means for others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    /// Nothing.
    None,
    /// The interface went down or away.
    Down(IfIndex, IfName),
    /// It came up, or is new.
    Up(IfName),
    /// Something else, such as an address, that may let a failed route in.
    Other,
    /// An address went, and in silence the routes that lean on it.
    AddressLost,
    /// Events were lost.
    Resync,
}

#[derive(Debug)]
pub(crate) struct Links {
    handle: Handle,
    /// A thread in the namespace, for sysctls.
    worker: Worker,
    links: BTreeMap<IfIndex, Link>,
    names: BTreeMap<IfName, IfIndex>,
    /// Addresses by interface, but for link-local ones: every interface has those.
    addresses: BTreeMap<IfIndex, BTreeSet<IpAddr>>,
    /// Whether who has which address may have changed.
    moved: bool,
    wanted: BTreeMap<IfName, Interface>,
    /// Interfaces set up, by the number that they had.
    done: BTreeMap<IfName, IfIndex>,
    dirty: BTreeSet<IfName>,
    failed: BTreeMap<IfName, String>,
    tunnels_dirty: BTreeSet<Family>,
    tunnels_failed: BTreeMap<Family, String>,
    node: Option<NodeSysctl>,
}

/// Name of the tunnel device of a family where the settings name none: one to be removed.
pub(crate) fn tunnel_name(family: Family) -> IfName {
    let name = match family {
        Family::V4 => "vxlan.calico",
        Family::V6 => "vxlan-v6.calico",
    };
    name.parse().expect("literals are names")
}

impl Links {
    pub(crate) fn new(handle: Handle, worker: Worker) -> Self {
        Self {
            handle,
            worker,
            links: BTreeMap::new(),
            names: BTreeMap::new(),
            addresses: BTreeMap::new(),
            moved: false,
            wanted: BTreeMap::new(),
            done: BTreeMap::new(),
            dirty: BTreeSet::new(),
            failed: BTreeMap::new(),
            tunnels_dirty: BTreeSet::new(),
            tunnels_failed: BTreeMap::new(),
            node: None,
        }
    }

    /// The name of an interface.
    pub(crate) fn name(&self, index: IfIndex) -> Option<IfName> {
        self.links.get(&index).map(|l| l.name)
    }

    /// The interface of a name.
    pub(crate) fn get(&self, name: IfName) -> Option<&Link> {
        self.names.get(&name).and_then(|i| self.links.get(i))
    }

    /// Reads all interfaces.
    pub(crate) fn read(&mut self) -> Result<(), NetlinkError> {
        let links = self.handle.links()?;
        self.addresses.clear();
        for (index, a) in self.handle.addresses(None)? {
            self.address(index, a.addr, true);
        }
        self.moved = true;
        self.names = links.iter().map(|l| (l.name, l.index)).collect();
        self.links = links.into_iter().map(|l| (l.index, l)).collect();
        let now: BTreeMap<IfName, IfIndex> = self.names.clone();
        self.done.retain(|name, index| now.get(name) == Some(index));
        self.dirty.extend(self.wanted.keys().copied());
        self.tunnels_dirty.extend(Family::BOTH);
        Ok(())
    }

    fn address(&mut self, index: IfIndex, addr: IpAddr, there: bool) {
        let link_local = match addr {
            IpAddr::V4(a) => a.is_link_local(),
            IpAddr::V6(a) => a.is_unicast_link_local(),
        };
        if link_local {
            return;
        }
        let held = self.addresses.entry(index).or_default();
        self.moved |= if there {
            held.insert(addr)
        } else {
            held.remove(&addr)
        };
        if held.is_empty() {
            self.addresses.remove(&index);
        }
    }

    /// Who has which address, when that may have changed since the last call.
    pub(crate) fn moved(&mut self) -> Option<render::Interfaces> {
        let now = || {
            let named = self.addresses.iter();
            named
                .filter_map(|(i, held)| Some((self.name(*i)?, held.clone())))
                .collect()
        };
        let moved = self.moved.then(now);
        self.moved = false;
        moved
    }

    pub(crate) fn event(&mut self, event: &Event) -> Change {
        match event {
            Event::Link(l) => self.link(l),
            Event::LinkGone { index, name } => {
                self.moved |= self.addresses.remove(index).is_some();
                if let Some(old) = self.links.remove(index) {
                    self.names.remove(&old.name);
                    self.done.remove(&old.name);
                    self.dirty.insert(old.name);
                    self.tunnel_touched(old.name);
                }
                Change::Down(*index, *name)
            }
            Event::Address(index, a) => {
                self.address(*index, a.addr, true);
                self.tunnels_dirty
                    .extend(self.tunnels_failed.keys().copied());
                Change::Other
            }
            Event::AddressGone(index, a) => {
                self.address(*index, a.addr, false);
                if let Some(name) = self.name(*index) {
                    self.tunnel_touched(name);
                }
                // Only IPv4 routes go without a word; and no workload's interface has an
                // IPv4 address, so that the end of a pod does not come here.
                if a.addr.is_ipv4() {
                    Change::AddressLost
                } else {
                    Change::Other
                }
            }
            Event::NeighbourGone(n) => self.entry_gone(n.dev),
            Event::FdbGone(e) => self.entry_gone(e.dev),
            Event::Neighbour(_) | Event::Fdb(_) => Change::None,
            Event::Resync => Change::Resync,
        }
    }

    fn entry_gone(&mut self, dev: IfIndex) -> Change {
        match self.links.get(&dev) {
            Some(l) if l.vxlan.is_some() => {
                let name = l.name;
                self.tunnel_touched(name);
                Change::Other
            }
            _ => Change::None,
        }
    }

    fn tunnel_touched(&mut self, name: IfName) {
        for f in Family::BOTH {
            if tunnel_name(f) == name {
                self.tunnels_dirty.insert(f);
            }
        }
    }

    fn link(&mut self, l: &Link) -> Change {
        let old = self.links.insert(l.index, l.clone());
        let renamed = old.as_ref().is_none_or(|o| o.name != l.name);
        self.moved |= renamed && self.addresses.contains_key(&l.index);
        if let Some(old) = &old
            && old.name != l.name
        {
            // A rename is one going and another coming.
            self.names.remove(&old.name);
            self.done.remove(&old.name);
            self.dirty.insert(old.name);
        }
        if let Some(replaced) = self.names.insert(l.name, l.index)
            && replaced != l.index
        {
            self.links.remove(&replaced);
        }
        let was_up = old.as_ref().is_some_and(|o| o.up && o.name == l.name);
        if old.as_ref() == Some(l) {
            return Change::None;
        }
        self.tunnel_touched(l.name);
        match (was_up, l.up) {
            (false, true) => {
                self.done.remove(&l.name);
                self.dirty.insert(l.name);
                Change::Up(l.name)
            }
            (_, false) => Change::Down(l.index, l.name),
            (true, true) => Change::Other,
        }
    }

    pub(crate) fn want(&mut self, name: IfName, interface: Option<Interface>) {
        match interface {
            Some(i) => {
                if self.wanted.get(&name) != Some(&i) {
                    self.done.remove(&name);
                }
                self.wanted.insert(name, i);
            }
            None => {
                self.wanted.remove(&name);
                self.done.remove(&name);
            }
        }
        self.dirty.insert(name);
    }

    pub(crate) fn want_node(&mut self, node: NodeSysctl) {
        self.node = Some(node);
    }

    pub(crate) fn want_tunnel(&mut self, family: Family) {
        self.tunnels_dirty.insert(family);
    }

    pub(crate) fn retry(&mut self) {
        self.dirty
            .extend(std::mem::take(&mut self.failed).into_keys());
        self.tunnels_dirty
            .extend(std::mem::take(&mut self.tunnels_failed).into_keys());
    }

    /// How many things failed, node-wide settings included.
    pub(crate) fn dirty(&self) -> usize {
        self.failed.len() + self.tunnels_failed.len() + usize::from(self.node.is_some())
    }

    /// Why an interface could not be set up.
    pub(crate) fn failure(&self, name: IfName) -> Option<&str> {
        self.failed.get(&name).map(String::as_str)
    }

    /// Whether an interface is there, up and set up.
    pub(crate) fn is_done(&self, name: IfName) -> bool {
        self.done.contains_key(&name)
    }

    /// Sets up the workloads' interfaces that are there and up, and gives the names that
    /// it looked at.
    pub(crate) fn sync_workloads(&mut self) -> BTreeSet<IfName> {
        let touched = std::mem::take(&mut self.dirty);
        for name in &touched {
            self.failed.remove(name);
            let Some(want) = self.wanted.get(name).cloned() else {
                continue;
            };
            let Some((index, true)) = self.get(*name).map(|l| (l.index, l.up)) else {
                continue;
            };
            if self.done.get(name) == Some(&index) {
                continue;
            }
            match self.set_up(*name, index, &want) {
                Ok(()) => drop(self.done.insert(*name, index)),
                // It vanished under our hands: its event is on the way.
                Err(e) if e.is(Errno::ENODEV) => {}
                Err(e) => {
                    tracing::warn!(interface = %name, error = %e, "cannot set up an interface");
                    self.failed.insert(*name, e.to_string());
                }
            }
        }
        touched
    }

    fn set_up(
        &mut self,
        name: IfName,
        index: IfIndex,
        want: &Interface,
    ) -> Result<(), NetlinkError> {
        let mut sysctls = link::host_end_sysctls(name, Family::V4);
        if want.ipv6 {
            sysctls.extend(link::host_end_sysctls(name, Family::V6));
        }
        let spoofing = want.spoofing;
        self.worker.run(move || {
            let rp_filter = if spoofing {
                "0".to_owned()
            } else {
                link::sysctl::read("ipv4/conf/default/rp_filter")?
            };
            let dev = name.as_str();
            sysctls.push(Sysctl::conf(Family::V4, dev, "rp_filter", rp_filter));
            link::sysctl::write(&sysctls)
        })?;
        for (addr, mac) in &want.neighbours {
            self.handle.set_neighbour(&Neighbour {
                dev: index,
                addr: *addr,
                mac: Some(*mac),
                permanent: true,
                proxy: false,
            })?;
        }
        Ok(())
    }

    /// Node-wide settings.
    pub(crate) fn sync_node(&mut self) -> Result<(), NetlinkError> {
        let Some(node) = self.node else { return Ok(()) };
        self.worker.run(move || {
            let mut sysctls = vec![Sysctl {
                path: "ipv4/ip_forward".to_owned(),
                value: "1".to_owned(),
            }];
            if node.ipv6 {
                sysctls.push(Sysctl::conf(Family::V6, "all", "forwarding", 1));
            }
            link::sysctl::write(&sysctls)
        })?;
        self.node = None;
        Ok(())
    }

    /// Makes the tunnel devices that changed as wanted. True if a device was touched.
    pub(crate) fn sync_tunnels(&mut self, renderer: &render::Renderer) -> bool {
        let families = std::mem::take(&mut self.tunnels_dirty);
        for family in &families {
            self.tunnels_failed.remove(family);
            let vteps = renderer.vteps(*family);
            if let Err(e) = self.sync_tunnel(*family, renderer.tunnel(*family), vteps) {
                tracing::warn!(%family, error = e, "cannot set up the tunnel");
                self.tunnels_failed.insert(*family, e);
            }
        }
        !families.is_empty()
    }

    fn sync_tunnel<'a>(
        &mut self,
        family: Family,
        tunnel: Option<&Tunnel>,
        vteps: impl Iterator<Item = &'a Vtep>,
    ) -> Result<(), String> {
        let name = tunnel.map_or_else(|| tunnel_name(family), |t| t.device);
        if tunnel.is_none() && self.get(name).is_none() {
            return Ok(());
        }
        let desired = tunnel.map(|t| self.vxlan(family, t, vteps)).transpose()?;
        let actual = self.handle.read_vxlan(name).map_err(|e| e.to_string())?;
        let plan = link::plan(name, &actual, desired.as_ref());
        if plan.ops.is_empty() {
            return Ok(());
        }
        let failures = self.handle.apply(&plan);
        // The number of a new device is needed for its routes in this very apply.
        match self.handle.by_name(name).map_err(|e| e.to_string())? {
            Some(l) => {
                self.names.insert(name, l.index);
                self.links.insert(l.index, l);
            }
            None => {
                if let Some(index) = self.names.remove(&name) {
                    self.links.remove(&index);
                }
            }
        }
        match failures.first() {
            None => Ok(()),
            Some(f) => Err(format!("{} ({} steps failed)", f.error, failures.len())),
        }
    }

    fn vxlan<'a>(
        &mut self,
        family: Family,
        t: &Tunnel,
        vteps: impl Iterator<Item = &'a Vtep>,
    ) -> Result<VxlanDesired, String> {
        let addresses = self.handle.addresses(None).map_err(|e| e.to_string())?;
        let parent = addresses
            .iter()
            .filter(|(_, a)| a.addr == t.host)
            .find_map(|(i, _)| self.links.get(i))
            .ok_or_else(|| format!("no interface has the node's address {}", t.host))?;
        let overhead = match family {
            Family::V4 => 50,
            Family::V6 => 70,
        };
        Ok(VxlanDesired {
            device: Vxlan {
                name: t.device,
                vni: t.vni,
                local: Some(t.host),
                parent: Some(parent.index),
                port: t.port,
                mac: t.mac,
                mtu: t.mtu.unwrap_or_else(|| parent.mtu.saturating_sub(overhead)),
                learning: false,
            },
            addresses: t.address.map(own_address).into_iter().collect(),
            vteps: vteps
                .map(|v| {
                    let end = link::Vtep {
                        mac: v.mac,
                        host: v.host,
                    };
                    (v.tunnel, end)
                })
                .collect(),
        })
    }
}

fn own_address(addr: IpAddr) -> Address {
    Address::host(addr)
}
