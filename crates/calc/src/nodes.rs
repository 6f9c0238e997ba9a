//! Nodes, reduced to what routes and tunnels need.
//!
//! Promises: a change of anything else of a node is no change.
//!
//! Never: tells this node from others.

use model::{Node, NodeAddress};
use net::{Cidr, Family, Mac};
use sha1::{Digest as _, Sha1};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

/// A family's place in pairs of both.
pub(crate) const fn slot(family: Family) -> usize {
    match family {
        Family::V4 => 0,
        Family::V6 => 1,
    }
}

/// A node; pairs are in [`Family`] order.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct NodeInfo {
    pub(crate) addresses: [Option<NodeAddress>; 2],
    /// Further addresses, without those of tunnels, which lie in pools; sorted, each once.
    others: Vec<IpAddr>,
    tunnels: [Option<IpAddr>; 2],
    macs: [Option<Mac>; 2],
    /// Sorted, each once.
    pub(crate) pod_ranges: Vec<Cidr>,
}

impl From<Node> for NodeInfo {
    fn from(n: Node) -> Self {
        let mut pod_ranges = n.pod_cidrs;
        pod_ranges.sort_unstable();
        pod_ranges.dedup();
        let mut others = n.addresses;
        others.sort_unstable();
        others.dedup();
        Self {
            others,
            addresses: [n.ipv4, n.ipv6],
            tunnels: [n.vxlan_v4, n.vxlan_v6],
            macs: [n.vxlan_mac_v4, n.vxlan_mac_v6],
            pod_ranges,
        }
    }
}

/// All nodes by name.
#[derive(Debug, Default)]
pub(crate) struct Nodes(BTreeMap<Arc<str>, NodeInfo>);

impl Nodes {
    /// Takes the new state of a node. What it was and what it is, when that differs; a node
    /// that is not there is one without addresses.
    pub(crate) fn update(
        &mut self,
        name: &Arc<str>,
        node: Option<Node>,
    ) -> Option<(NodeInfo, NodeInfo)> {
        let new = node.map(NodeInfo::from);
        if self.0.get(name) == new.as_ref() {
            return None;
        }
        let old = match &new {
            Some(n) => self.0.insert(name.clone(), n.clone()),
            None => self.0.remove(name),
        };
        Some((old.unwrap_or_default(), new.unwrap_or_default()))
    }

    /// All names.
    pub(crate) fn names(&self) -> impl Iterator<Item = &Arc<str>> {
        self.0.keys()
    }

    /// A node's own address.
    pub(crate) fn addr(&self, node: &str, family: Family) -> Option<IpAddr> {
        Some(self.0.get(node)?.addresses[slot(family)]?.addr)
    }

    /// The address of a node's tunnel device.
    pub(crate) fn tunnel(&self, node: &str, family: Family) -> Option<IpAddr> {
        self.0.get(node)?.tunnels[slot(family)]
    }

    /// The MAC of a node's tunnel device: what it published, or what follows from its
    /// name.
    pub(crate) fn mac(&self, node: &str, family: Family) -> Mac {
        let published = self.0.get(node).and_then(|n| n.macs[slot(family)]);
        published.unwrap_or_else(|| derived_mac(node, family))
    }

    /// Whether an address lies in a node's own subnet.
    pub(crate) fn in_subnet_of(&self, node: &str, addr: IpAddr) -> bool {
        let own = self.0.get(node);
        own.and_then(|n| n.addresses[slot(Family::of(addr))])
            .is_some_and(|a| a.subnet.contains(addr))
    }

    /// All that a node is reached at.
    pub(crate) fn all_of(&self, node: &str) -> Vec<Cidr> {
        let Some(n) = self.0.get(node) else {
            return Vec::new();
        };
        let own = n.addresses.iter().flatten().map(|a| a.addr);
        let all = own.chain(n.others.iter().copied());
        all.map(Cidr::host).collect()
    }

    /// Every node's own addresses.
    pub(crate) fn hosts(&self) -> Vec<Cidr> {
        let addresses = self.0.values().flat_map(|n| n.addresses).flatten();
        addresses.map(|a| Cidr::host(a.addr)).collect()
    }
}

/// `f` and the first five bytes of the name's SHA-1, as Calico derives it.
fn derived_mac(node: &str, family: Family) -> Mac {
    let suffix = match family {
        Family::V4 => "",
        Family::V6 => "-v6",
    };
    let hash = Sha1::digest(format!("{node}{suffix}").as_bytes());
    Mac([b'f', hash[0], hash[1], hash[2], hash[3], hash[4]])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_derived_mac_is_calicos() {
        // SHA-1 of "abc" is a9993e36 4706816a ... (FIPS 180).
        assert_eq!(
            derived_mac("abc", Family::V4).to_string(),
            "66:a9:99:3e:36:47"
        );
        assert_ne!(
            derived_mac("abc", Family::V4),
            derived_mac("abc", Family::V6)
        );
    }
}
