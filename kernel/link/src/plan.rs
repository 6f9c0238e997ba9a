//! From a VXLAN device as it is to one as it should be.
//!
//! Promises: pure and deterministic; nothing to do gives no operation; the device is made
//! anew only if a parameter differs that the driver cannot change; a peer that moves to
//! another host is replaced in place, and all additions come before all removals, so that
//! no wanted entry is missing at any moment.
//!
//! Never: names an entry of another device: ownership is the device itself, by name.

use crate::value::{Address, FdbEntry, Link, Neighbour, Vxlan, VxlanDesired};
use net::{IfIndex, IfName, Mac};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// What the kernel holds of our device. Entries of other devices are ignored.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct VxlanActual {
    /// The interface that bears our name, of whatever kind; `None` if there is none.
    pub link: Option<Link>,
    /// Its addresses.
    pub addresses: Vec<Address>,
    /// Neighbour entries.
    pub neighbours: Vec<Neighbour>,
    /// Forwarding entries.
    pub fdb: Vec<FdbEntry>,
}

/// One step, on the device the plan names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    /// Remove the device, with all it holds.
    Delete,
    /// Make the device.
    Create(Vxlan),
    /// Set its MTU.
    Mtu(u32),
    /// Bring it up.
    Up,
    /// Add an address.
    AddAddress(Address),
    /// Send frames for `.0` to host `.1`, replacing where they went.
    SetFdb(Mac, IpAddr),
    /// Resolve tunnel address `.0` to `.1` for good.
    SetNeighbour(IpAddr, Mac),
    /// Forget a tunnel address.
    DelNeighbour(IpAddr),
    /// Stop sending frames for `.0` to host `.1`; absent is as good.
    DelFdb(Mac, IpAddr),
    /// Remove an address.
    DelAddress(Address),
}

/// Ordered steps for one device.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "a plan changes nothing until applied"]
pub struct Plan {
    /// The device.
    pub device: IfName,
    /// The steps, to be done in this order; each may fail by itself.
    pub ops: Vec<Op>,
}

/// The steps from `actual` to `desired`, for the device called `name`; `None` wants no such
/// device. `desired.device.name` is `name`.
///
/// Two peers that publish one hardware address cannot both be reached; the one with the
/// lower tunnel address wins, whatever the order of events.
pub fn plan(name: IfName, actual: &VxlanActual, desired: Option<&VxlanDesired>) -> Plan {
    let mut ops = Vec::new();
    let Some(want) = desired else {
        ops.extend(actual.link.as_ref().map(|_| Op::Delete));
        return Plan { device: name, ops };
    };
    let reusable = actual
        .link
        .as_ref()
        .filter(|l| l.vxlan.is_some_and(|v| v.same_device(&want.device)));
    let empty = VxlanActual::default();
    let held = if let Some(link) = reusable {
        if link.mtu != want.device.mtu {
            ops.push(Op::Mtu(want.device.mtu));
        }
        if !link.up {
            ops.push(Op::Up);
        }
        actual
    } else {
        ops.extend(actual.link.as_ref().map(|_| Op::Delete));
        ops.extend([Op::Create(want.device), Op::Up]);
        &empty
    };
    entries(reusable.map(|l| l.index), held, want, &mut ops);
    Plan { device: name, ops }
}

fn entries(dev: Option<IfIndex>, held: &VxlanActual, want: &VxlanDesired, ops: &mut Vec<Op>) {
    let mut removals = Vec::new();

    let same = |a: &Address, b: &Address| (a.addr, a.len) == (b.addr, b.len);
    let missing = want
        .addresses
        .iter()
        .filter(|w| !held.addresses.iter().any(|h| same(w, h)));
    ops.extend(missing.map(|a| Op::AddAddress(*a)));

    let mut fdb_want: BTreeMap<Mac, IpAddr> = BTreeMap::new();
    for vtep in want.vteps.values() {
        fdb_want.entry(vtep.mac).or_insert(vtep.host);
    }
    let mut fdb_held: BTreeMap<Mac, BTreeSet<IpAddr>> = BTreeMap::new();
    for e in held.fdb.iter().filter(|e| Some(e.dev) == dev) {
        fdb_held.entry(e.mac).or_default().insert(e.dst);
    }
    for (mac, dst) in &fdb_want {
        let old = fdb_held.get(mac);
        if old.is_none_or(|o| !o.contains(dst)) {
            ops.push(Op::SetFdb(*mac, *dst));
        }
        // A single old destination is replaced in place; of several, one is, and which one
        // is the kernel's choice, so all are named for removal.
        let stale: Vec<_> = old.into_iter().flatten().filter(|o| *o != dst).collect();
        if stale.len() > 1 || old.is_some_and(|o| o.contains(dst)) {
            removals.extend(stale.into_iter().map(|o| Op::DelFdb(*mac, *o)));
        }
    }

    let mut neighbours_held: BTreeMap<IpAddr, Option<Mac>> = BTreeMap::new();
    for n in held
        .neighbours
        .iter()
        .filter(|n| Some(n.dev) == dev && n.permanent && !n.proxy)
    {
        neighbours_held.insert(n.addr, n.mac);
    }
    for (addr, vtep) in &want.vteps {
        if neighbours_held.get(addr) != Some(&Some(vtep.mac)) {
            ops.push(Op::SetNeighbour(*addr, vtep.mac));
        }
    }

    let gone = neighbours_held
        .keys()
        .filter(|a| !want.vteps.contains_key(a));
    ops.extend(gone.map(|a| Op::DelNeighbour(*a)));
    for (mac, dsts) in fdb_held.iter().filter(|(m, _)| !fdb_want.contains_key(m)) {
        removals.extend(dsts.iter().map(|d| Op::DelFdb(*mac, *d)));
    }
    ops.append(&mut removals);
    let extra = held.addresses.iter().filter(|h| {
        // Link-local addresses are the kernel's own doing.
        let ours = !matches!(h.addr, IpAddr::V6(a) if a.is_unicast_link_local());
        ours && !want.addresses.iter().any(|w| same(w, h))
    });
    ops.extend(extra.map(|a| Op::DelAddress(*a)));
}

#[cfg(test)]
mod tests;
