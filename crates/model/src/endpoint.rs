//! Endpoints, and what they take labels and addresses from.

use crate::{Labels, Rule};
use net::{Cidr, IfName, Mac, Protocol};
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

/// Which workload endpoint: Calico's v1 identity, one interface of one workload on a node.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WorkloadKey {
    /// The node it runs on.
    pub node: Arc<str>,
    /// `k8s`, `cni`, `openstack` or another.
    pub orchestrator: Arc<str>,
    /// `namespace/pod` for Kubernetes.
    pub workload: Arc<str>,
    /// `eth0` for the first interface of a pod.
    pub endpoint: Arc<str>,
}

impl fmt::Display for WorkloadKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "WorkloadEndpoint({}/{}/{}/{})",
            self.node, self.orchestrator, self.workload, self.endpoint
        )
    }
}

/// Which endpoint, of either kind.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum EndpointKey {
    /// A pod, container or VM.
    Workload(WorkloadKey),
    /// An interface of a host, by the name of its HostEndpoint.
    Host(Arc<str>),
}

impl fmt::Display for EndpointKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Workload(w) => w.fmt(f),
            Self::Host(h) => write!(f, "HostEndpoint({h})"),
        }
    }
}

/// Name of a profile: `kns.<namespace>`, `ksa.<namespace>.<account>` or a user's own.
pub type ProfileId = Arc<str>;

/// A port of an endpoint that rules can name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NamedPort {
    /// The name, at most 128 characters.
    pub name: Arc<str>,
    /// TCP, UDP or SCTP.
    pub protocol: Protocol,
    /// The number.
    pub port: u16,
}

/// Limits on one endpoint's traffic; `None` is unlimited. Rates are a second.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Qos {
    /// Packets a second towards the endpoint, and the burst.
    pub ingress_packets: Option<(u32, u32)>,
    /// Packets a second from it, and the burst.
    pub egress_packets: Option<(u32, u32)>,
    /// Connections to it at one time.
    pub ingress_connections: Option<u32>,
    /// Connections from it at one time.
    pub egress_connections: Option<u32>,
    /// DSCP of what it sends off the cluster.
    pub dscp: Option<u8>,
}

/// One interface of a workload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkloadEndpoint {
    /// Host side of its link; `cali...`.
    pub interface: Option<IfName>,
    /// Address of the workload's side, when known.
    pub mac: Option<Mac>,
    /// Its addresses, each a host prefix.
    pub nets: Vec<Cidr>,
    /// Floating addresses: (inside, outside).
    pub nats: Vec<(IpAddr, IpAddr)>,
    /// Its own labels, the special ones (`projectcalico.org/...`) included.
    pub labels: Labels,
    /// Profiles, in the order in which they are inherited from and evaluated.
    pub profiles: Vec<ProfileId>,
    /// Ports that rules can name.
    pub ports: Vec<NamedPort>,
    /// Further source addresses that it may send from.
    pub allowed_sources: Vec<Cidr>,
    /// Traffic limits.
    pub qos: Qos,
}

/// An interface, or all of them, of a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostEndpoint {
    /// The node it is of.
    pub node: Arc<str>,
    /// An interface name, `*` for all, or `None` to find it by `expected_ips`.
    pub interface: Option<Arc<str>>,
    /// Addresses by which to find the interface.
    pub expected_ips: Vec<IpAddr>,
    /// Its labels.
    pub labels: Labels,
    /// Profiles in order.
    pub profiles: Vec<ProfileId>,
    /// Ports that rules can name.
    pub ports: Vec<NamedPort>,
    /// DSCP of what the host itself sends off the cluster; `None` leaves it.
    pub dscp: Option<u8>,
}

/// Labels to inherit and the rules that decide when no policy does.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Profile {
    /// Rules towards the endpoint.
    pub ingress: Vec<Rule>,
    /// Rules from the endpoint.
    pub egress: Vec<Rule>,
    /// Labels that the endpoints of this profile inherit.
    pub labels: Labels,
}

/// Which network set: `namespace` is `None` for a global one.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NetworkSetKey {
    /// Its namespace; `None` for a GlobalNetworkSet.
    pub namespace: Option<Arc<str>>,
    /// Its name.
    pub name: Arc<str>,
}

/// Prefixes with labels, so that selectors can name what is no endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkSet {
    /// The prefixes; they may overlap and repeat.
    pub nets: Vec<Cidr>,
    /// Its labels, for a namespaced one with `projectcalico.org/namespace`.
    pub labels: Labels,
    /// Profiles that it inherits labels from: `kns.<namespace>` for a namespaced one.
    pub profiles: Vec<ProfileId>,
}
