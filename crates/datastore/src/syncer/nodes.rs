//! One node, stored twice: as Calico's Node and as Kubernetes' own.
//!
//! Calico's says where the node is, Kubernetes' adds what only it knows. The outcome
//! depends on what is stored, never on which of the two changed last.

use model::{Labels, Node};
use std::collections::HashMap;
use std::sync::Arc;

#[derive(Debug, Default)]
struct Both {
    calico: Option<Node>,
    kubernetes: Option<Node>,
}

/// Nodes by name, with both of their sources.
#[derive(Debug, Default)]
pub(super) struct Nodes {
    nodes: HashMap<Arc<str>, Both>,
}

impl Nodes {
    /// The store says this of a node under `key`; gives what holds of it in all.
    pub(super) fn set(
        &mut self,
        key: &str,
        name: Arc<str>,
        node: Option<Node>,
    ) -> (Arc<str>, Option<Node>) {
        let both = self.nodes.entry(Arc::clone(&name)).or_default();
        if key.starts_with("/registry/") {
            both.kubernetes = node;
        } else {
            both.calico = node;
        }
        let merged = both.merged();
        if merged.is_none() {
            self.nodes.remove(&name);
        }
        (name, merged)
    }
}

impl Both {
    fn merged(&self) -> Option<Node> {
        let (calico, kubernetes) = match (&self.calico, &self.kubernetes) {
            (Some(c), Some(k)) => (c, k),
            (one, other) => return one.clone().or_else(|| other.clone()),
        };
        let (mut node, k) = (calico.clone(), kubernetes.clone());
        node.ipv4 = node.ipv4.or(k.ipv4);
        node.ipv6 = node.ipv6.or(k.ipv6);
        node.asn = node.asn.or(k.asn);
        node.route_reflector_cluster = node.route_reflector_cluster.or(k.route_reflector_cluster);
        node.vxlan_v4 = node.vxlan_v4.or(k.vxlan_v4);
        node.vxlan_v6 = node.vxlan_v6.or(k.vxlan_v6);
        node.vxlan_mac_v4 = node.vxlan_mac_v4.or(k.vxlan_mac_v4);
        node.vxlan_mac_v6 = node.vxlan_mac_v6.or(k.vxlan_mac_v6);
        node.ipip_v4 = node.ipip_v4.or(k.ipip_v4);
        for addr in k.addresses {
            if !node.addresses.contains(&addr) {
                node.addresses.push(addr);
            }
        }
        if node.pod_cidrs.is_empty() {
            node.pod_cidrs = k.pod_cidrs;
        }
        // Kubernetes' labels win, as Calico has it.
        node.labels = Labels::new(calico.labels.iter().chain(kubernetes.labels.iter()));
        Some(node)
    }
}
