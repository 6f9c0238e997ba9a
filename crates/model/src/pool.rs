//! Address pools and blocks, as routing sees them.

use crate::Selector;
use net::Cidr;
use std::net::IpAddr;
use std::sync::Arc;

/// When packets between nodes are encapsulated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Encap {
    /// Never: the fabric routes them.
    #[default]
    Never,
    /// Always.
    Always,
    /// Only between nodes that share no subnet.
    CrossSubnet,
}

/// What addresses of a pool may be used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct AllowedUses {
    /// Pods and VMs.
    pub workload: bool,
    /// Tunnel devices of nodes.
    pub tunnel: bool,
    /// Services of type LoadBalancer.
    pub load_balancer: bool,
}

/// An IP pool.
#[derive(Debug, Clone, PartialEq)]
pub struct IpPool {
    /// Its range.
    pub cidr: Cidr,
    /// Length of the blocks that it is cut into.
    pub block_size: u8,
    /// VXLAN.
    pub vxlan: Encap,
    /// IP in IP.
    pub ipip: Encap,
    /// Masquerade what leaves all pools.
    pub nat_outgoing: bool,
    /// Gives no new addresses; the old ones go on working.
    pub disabled: bool,
    /// Being deleted.
    pub deleting: bool,
    /// Its status says that addresses may come from it.
    pub allocatable: bool,
    /// Never exported by BGP.
    pub disable_bgp_export: bool,
    /// Which nodes take addresses from it.
    pub node_selector: Selector,
    /// Which namespaces take addresses from it; `None` is each.
    pub namespace_selector: Option<Selector>,
    /// Only by explicit request.
    pub manual: bool,
    /// What for.
    pub uses: AllowedUses,
}

/// An address of a block that is in use on another node than the block's owner.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Borrowed {
    /// The address.
    pub addr: IpAddr,
    /// Where it is in use.
    pub node: Arc<str>,
}

/// An IPAM block, reduced to what routes need.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// Its range.
    pub cidr: Cidr,
    /// The node that it is confirmed to belong to.
    pub node: Option<Arc<str>>,
    /// Addresses in use elsewhere, by address.
    pub borrowed: Vec<Borrowed>,
}
