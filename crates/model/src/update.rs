//! The one event that feeds calculation.

use crate::{
    BgpConfig, BgpFilter, BgpPeer, Block, EndpointSlice, FelixConfig, HostEndpoint, IpPool,
    NetworkSet, NetworkSetKey, Node, Policy, PolicyKey, Profile, ProfileId, Secret, SecretRef,
    Service, ServiceRef, SliceKey, Tier, WorkloadEndpoint, WorkloadKey,
};
use net::Cidr;
use std::net::IpAddr;
use std::sync::Arc;

/// The new state of one thing; `None` when it is gone.
///
/// Repeating an update and removing what was never there are both legal and
/// change nothing.
#[derive(Debug, Clone, PartialEq)]
pub enum Update {
    /// A workload endpoint.
    Workload(WorkloadKey, Option<WorkloadEndpoint>),
    /// A host endpoint, by name.
    Host(Arc<str>, Option<HostEndpoint>),
    /// A profile.
    Profile(ProfileId, Option<Profile>),
    /// A policy.
    Policy(PolicyKey, Option<Policy>),
    /// A tier, by name.
    Tier(Arc<str>, Option<Tier>),
    /// A network set.
    NetworkSet(NetworkSetKey, Option<NetworkSet>),
    /// A pool, by name.
    Pool(Arc<str>, Option<IpPool>),
    /// A block.
    Block(Cidr, Option<Block>),
    /// A node, by name.
    Node(Arc<str>, Option<Node>),
    /// A FelixConfiguration, by name.
    Felix(Arc<str>, Option<FelixConfig>),
    /// A service.
    Service(ServiceRef, Option<Service>),
    /// An EndpointSlice.
    EndpointSlice(SliceKey, Option<EndpointSlice>),
    /// A BGPConfiguration, by name.
    BgpConfig(Arc<str>, Option<BgpConfig>),
    /// A BGPPeer, by name.
    BgpPeer(Arc<str>, Option<BgpPeer>),
    /// A BGPFilter, by name.
    BgpFilter(Arc<str>, Option<BgpFilter>),
    /// A Kubernetes Secret.
    Secret(SecretRef, Option<Secret>),
    /// What a domain name (lower case, no last dot) resolved to, as this node's pods saw it. No
    /// resource: the agent learns it.
    Domain(Arc<str>, Option<Arc<[IpAddr]>>),
    /// Whether the datastore says that it may be used (`datastoreReady`).
    Ready(bool),
}
