//! Nodes, and the configuration that reaches them through the store.

use crate::Labels;
use net::{Asn, Cidr, Mac};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

/// A node's own address and the subnet that it lies in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct NodeAddress {
    /// The address.
    pub addr: IpAddr,
    /// Its subnet; a host prefix when unknown.
    pub subnet: Cidr,
}

/// A node.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Node {
    /// IPv4 address for pod traffic and BGP.
    pub ipv4: Option<NodeAddress>,
    /// IPv6 address for pod traffic and BGP.
    pub ipv6: Option<NodeAddress>,
    /// AS number, when not the cluster's.
    pub asn: Option<Asn>,
    /// Set on route reflectors.
    pub route_reflector_cluster: Option<Arc<str>>,
    /// Address of its `vxlan.calico`.
    pub vxlan_v4: Option<IpAddr>,
    /// Address of its `vxlan-v6.calico`.
    pub vxlan_v6: Option<IpAddr>,
    /// MAC of its `vxlan.calico`; derived from the name when absent.
    pub vxlan_mac_v4: Option<Mac>,
    /// MAC of its `vxlan-v6.calico`.
    pub vxlan_mac_v6: Option<Mac>,
    /// Address of its `tunl0`.
    pub ipip_v4: Option<IpAddr>,
    /// Every further address it is known by.
    pub addresses: Vec<IpAddr>,
    /// Pod ranges that Kubernetes gave it.
    pub pod_cidrs: Vec<Cidr>,
    /// Its labels.
    pub labels: Labels,
}

/// One FelixConfiguration: parameter name (in the spelling of the
/// environment, lower case, such as `vxlanmtu`) to value in text.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FelixConfig {
    /// The parameters that it sets.
    pub values: BTreeMap<Arc<str>, Arc<str>>,
    /// Only on nodes that this selects; canonical text, `None` for all.
    pub node_selector: Option<Arc<str>>,
    /// When it was created, in seconds of Unix time: of several, the oldest counts.
    pub created: i64,
}
