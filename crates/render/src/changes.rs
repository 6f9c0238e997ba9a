//! What a step of the desired state changes in the kernel's terms.
//!
//! Promises: each value is the whole new value of its object; of several edits of one
//! object in one step the last counts.
//! Never: says how or in what order it is written.

use model::WorkloadKey;
use net::{Cidr, Family, IfName, Mac};
use nftables::{Chain, ChainName, Element, Ruleset, Set, SetKind, SetName};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// A change of our table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TableEdit {
    /// The chain has this content from now on.
    Chain(ChainName, Chain),
    /// The chain goes.
    RemoveChain(ChainName),
    /// The set or map has these elements from now on.
    Set(SetName, SetKind, Vec<Element>),
    /// Elements of a set or map come and go.
    Elements {
        /// The set, which exists.
        set: SetName,
        /// New ones.
        add: Vec<Element>,
        /// Those that go; they were there.
        remove: Vec<Element>,
    },
    /// The set goes.
    RemoveSet(SetName),
}

impl TableEdit {
    /// Makes the same change to a ruleset that is a plain value: for printing and tests.
    pub fn apply(&self, to: &mut Ruleset) {
        match self {
            Self::Chain(name, chain) => {
                to.chains.insert(name.clone(), chain.clone());
            }
            Self::RemoveChain(name) => {
                to.chains.remove(name);
            }
            Self::Set(name, kind, elements) => {
                let elements = elements.iter().cloned().collect();
                to.sets.insert(
                    name.clone(),
                    Set {
                        kind: *kind,
                        elements,
                    },
                );
            }
            Self::Elements { set, add, remove } => {
                if let Some(s) = to.sets.get_mut(set) {
                    s.elements.retain(|e| !remove.contains(e));
                    s.elements.extend(add.iter().cloned());
                }
            }
            Self::RemoveSet(name) => {
                to.sets.remove(name);
            }
        }
    }
}

/// Where a route goes, by names: what interface has which index is the kernel's business.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RouteVia {
    /// Directly over an interface, scope link.
    Interface(IfName),
    /// Nowhere.
    Blackhole,
    /// Through a gateway that is a neighbour on some segment of this node.
    Gateway(IpAddr),
    /// Through a gateway behind this device, whatever the addresses say (`onlink`).
    Onlink {
        /// The gateway.
        via: IpAddr,
        /// The device.
        device: IfName,
    },
}

/// A route of the main table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// Where it goes.
    pub via: RouteVia,
    /// Its protocol number.
    pub protocol: u8,
    /// Its metric; 0 is the kernel's default.
    pub metric: u32,
}

/// What the host side of a workload's link needs besides rules and routes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    /// Whose it is.
    pub owner: WorkloadKey,
    /// Whether IPv6 is to be set up on it.
    pub ipv6: bool,
    /// Whether sources may differ from what routes say, so that the kernel's own check
    /// must be off (rp_filter 0).
    pub spoofing: bool,
    /// Neighbours that are known without asking.
    pub neighbours: Vec<(IpAddr, Mac)>,
}

/// Sysctls of the whole node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NodeSysctl {
    /// `net.ipv6.conf.all.forwarding` as well as `net.ipv4.ip_forward`.
    pub ipv6: bool,
}

/// Everything that one step changes. `None` is "gone".
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// Of our table; one transaction.
    pub table: Vec<TableEdit>,
    /// Of our table of family `arp`.
    pub arp: Vec<TableEdit>,
    /// Routes, by destination.
    pub routes: BTreeMap<Cidr, Option<Route>>,
    /// Host sides of workloads' links.
    pub interfaces: BTreeMap<IfName, Option<Interface>>,
    /// Families whose tunnel device or far ends changed: see
    /// [`crate::Renderer::tunnel`] and [`crate::Renderer::vteps`].
    pub tunnels: BTreeSet<Family>,
    /// Node-wide sysctls, when they are to be written.
    pub node: Option<NodeSysctl>,
    /// Addresses that left a local workload: their connections are to be forgotten.
    pub flush: BTreeSet<IpAddr>,
}
