//! What the BGP resources say.

use crate::Selector;
use net::{Asn, Cidr};
use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

/// A key in a Kubernetes Secret of the agent's namespace.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SecretKey {
    /// Name of the secret.
    pub name: Arc<str>,
    /// Key in it.
    pub key: Arc<str>,
}

/// Which Secret.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SecretRef {
    /// Its namespace.
    pub namespace: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
}

/// What a Secret holds, by key. Printed for debugging it shows the keys alone.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret(pub BTreeMap<Arc<str>, Arc<[u8]>>);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// How far away the other end of a BFD session is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum BfdHops {
    /// On a link of ours (RFC 5881).
    Single,
    /// Behind routers (RFC 5883).
    Multi,
}

/// How a path is watched by BFD (RFC 5880): the annotation `manx.io/bfd`, since Calico has no field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bfd {
    /// How often we want to send.
    pub min_tx: Duration,
    /// How often we can receive.
    pub min_rx: Duration,
    /// So many packets in a row may be missed; not 0.
    pub multiplier: u8,
    /// How far away the other end is; `None`: as links and routes say.
    pub hops: Option<BfdHops>,
}

impl Default for Bfd {
    fn default() -> Self {
        let often = Duration::from_millis(300);
        Self {
            min_tx: often,
            min_rx: often,
            multiplier: 3,
            hops: None,
        }
    }
}

/// A community as BGPConfiguration writes it: `aa:nn` or `aa:nn:mm`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Community {
    /// RFC 1997.
    Standard(u16, u16),
    /// RFC 8092.
    Large(u32, u32, u32),
}

/// Communities for the advertisements of a prefix and of what lies in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PrefixCommunities {
    /// The prefix.
    pub cidr: Cidr,
    /// What they carry, names resolved.
    pub communities: Vec<Community>,
}

/// One BGPConfiguration; a field that it does not set is `None`, so that `node.<name>` can be
/// laid over `default`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct BgpConfig {
    /// `nodeToNodeMeshEnabled`; true unless said.
    pub mesh: Option<bool>,
    /// `asNumber`; 64512 unless said.
    pub asn: Option<Asn>,
    /// `listenPort`; 179 unless said.
    pub listen_port: Option<u16>,
    /// `bindMode: NodeIP`.
    pub bind_node_ip: Option<bool>,
    /// `serviceClusterIPs`.
    pub service_cluster: Vec<Cidr>,
    /// `serviceExternalIPs`.
    pub service_external: Vec<Cidr>,
    /// `serviceLoadBalancerIPs`.
    pub service_load_balancer: Vec<Cidr>,
    /// `serviceLoadBalancerAggregation: Disabled` is false.
    pub aggregate_load_balancer: Option<bool>,
    /// `prefixAdvertisements`.
    pub prefix_communities: Vec<PrefixCommunities>,
    /// `nodeMeshPassword`.
    pub mesh_password: Option<SecretKey>,
    /// `nodeMeshMaxRestartTime`, in seconds.
    pub mesh_restart: Option<u32>,
    /// `ignoredInterfaces`: names, `*` at an end.
    pub ignored_interfaces: Option<Vec<Arc<str>>>,
    /// `localWorkloadPeeringIPV4` and `...IPV6`.
    pub local_workload_peering: Vec<IpAddr>,
    /// `programClusterRoutes`, as written.
    pub program_cluster_routes: Option<Arc<str>>,
    /// `ipv4NormalRoutePriority` and `ipv6NormalRoutePriority`, in that order.
    pub normal_priority: [Option<u32>; 2],
    /// Annotation `manx.io/bfd`: how paths to nodes of the mesh are watched.
    pub mesh_bfd: Option<Bfd>,
}

/// Whom a BGPPeer is with.
#[derive(Debug, Clone, PartialEq)]
pub enum BgpRemote {
    /// An address.
    Address {
        /// The address.
        ip: IpAddr,
        /// Its port, when not the usual one.
        port: Option<u16>,
        /// Its AS; that of the cluster when absent.
        asn: Option<Asn>,
    },
    /// Nodes whose labels match.
    Nodes(Selector),
    /// Local workloads whose labels match.
    Workloads {
        /// Over labels of workload endpoints.
        selector: Selector,
        /// Their AS.
        asn: Asn,
    },
}

/// `nextHopMode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum NextHopMode {
    /// As the RFC has it: self towards external peers.
    #[default]
    Auto,
    /// Always ourselves.
    Own,
    /// Always the original.
    Keep,
}

/// Several paths to one prefix (RFC 7911): the annotation `manx.io/add-path`, since Calico has no
/// field.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct AddPath {
    /// They are taken from the peer.
    pub receive: bool,
    /// They are sent to the peer.
    pub send: bool,
}

/// The most prefixes that are taken of a peer: the annotation `manx.io/max-prefixes`, since Calico has
/// no field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MaxPrefixes {
    /// So many; not 0. With several paths to a prefix each counts.
    pub count: u32,
    /// What is done beyond.
    pub beyond: Beyond,
}

/// What is done when a peer tells of too many prefixes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Beyond {
    /// It is said, and they are taken.
    Warn,
    /// They are not taken.
    Discard,
    /// The session ends (RFC 4486, subcode 1), and is tried again after a wait.
    #[default]
    Reset,
}

impl Beyond {
    /// As the annotation has it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Warn => "warn",
            Self::Discard => "discard",
            Self::Reset => "reset",
        }
    }
}

/// A BGPPeer.
#[derive(Debug, Clone, PartialEq)]
pub struct BgpPeer {
    /// `node`: only this one.
    pub node: Option<Arc<str>>,
    /// `nodeSelector`: only nodes that match.
    pub node_selector: Option<Selector>,
    /// The other side.
    pub remote: BgpRemote,
    /// `localASNumber`: our AS towards it.
    pub local_asn: Option<Asn>,
    /// `nextHopMode`, with `keepOriginalNextHop` as `Keep`.
    pub next_hop: NextHopMode,
    /// `password`.
    pub password: Option<SecretKey>,
    /// `sourceAddress: None` is false.
    pub use_node_ip: bool,
    /// `maxRestartTime`, in seconds.
    pub restart: Option<u32>,
    /// `keepaliveTime`, in seconds.
    pub keepalive: Option<u32>,
    /// `numAllowedLocalASNumbers`.
    pub allowed_local_as: Option<u32>,
    /// `ttlSecurity`, in hops.
    pub ttl_security: Option<u8>,
    /// `reachableBy`.
    pub reachable_by: Option<IpAddr>,
    /// `filters`: names of BGPFilters, in order.
    pub filters: Vec<Arc<str>>,
    /// `reversePeering: Manual` is false.
    pub reverse: bool,
    /// Annotation `manx.io/bfd`: how the path to it is watched.
    pub bfd: Option<Bfd>,
    /// Annotation `manx.io/add-path`: which way several paths to a prefix go.
    pub add_path: AddPath,
    /// Annotation `manx.io/max-prefixes`: how many prefixes are taken of it.
    pub max_prefixes: Option<MaxPrefixes>,
}

/// `matchOperator`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CidrMatch {
    /// The prefix itself.
    Equal,
    /// Any other prefix.
    NotEqual,
    /// The prefix and what lies in it.
    In,
    /// What does not lie in it.
    NotIn,
}

/// What a filter rule does to a route that it accepts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FilterOperation {
    /// `addCommunity`.
    AddCommunity(Community),
    /// `prependASPath`.
    Prepend(Vec<Asn>),
    /// `setPriority`.
    SetPriority(u32),
}

/// One rule of a BGPFilter: what it states must all match.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FilterRule {
    /// `cidr` with `matchOperator`.
    pub cidr: Option<(Cidr, CidrMatch)>,
    /// `prefixLength`: least and most.
    pub lengths: Option<(Option<u8>, Option<u8>)>,
    /// `source: RemotePeers`.
    pub from_remote_peers: bool,
    /// `interface`: a name, `*` at an end.
    pub interface: Option<Arc<str>>,
    /// `peerType`: true for external.
    pub external: Option<bool>,
    /// `communities.values`.
    pub communities: Vec<Community>,
    /// `asPathPrefix`.
    pub as_path_prefix: Vec<Asn>,
    /// `priority`.
    pub priority: Option<u32>,
    /// `action: Accept`.
    pub accept: bool,
    /// `operations`, in order.
    pub operations: Vec<FilterOperation>,
}

/// A BGPFilter. Lists are in [`net::Family`] order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BgpFilter {
    /// `importV4`, `importV6`.
    pub import: [Vec<FilterRule>; 2],
    /// `exportV4`, `exportV6`.
    pub export: [Vec<FilterRule>; 2],
}
