//! Services and what stands behind them.

use crate::ServiceRef;
use net::Protocol;
use std::net::IpAddr;
use std::sync::Arc;

/// One port of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServicePort {
    /// Its name, by which slices say what stands behind it; empty for the only one.
    pub name: Arc<str>,
    /// TCP, UDP or SCTP.
    pub protocol: Protocol,
    /// The port that clients use.
    pub port: u16,
    /// The port on every node, for the types that have one.
    pub node_port: Option<u16>,
}

/// A Kubernetes Service, reduced to addresses and ports.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Service {
    /// Its cluster addresses; empty for a headless one.
    pub cluster_ips: Vec<IpAddr>,
    /// `spec.externalIPs`.
    pub external_ips: Vec<IpAddr>,
    /// Addresses of `status.loadBalancer`.
    pub load_balancer_ips: Vec<IpAddr>,
    /// Its ports.
    pub ports: Vec<ServicePort>,
    /// `externalTrafficPolicy: Local`.
    pub external_local: bool,
    /// `internalTrafficPolicy: Local`.
    pub internal_local: bool,
}

/// Which EndpointSlice.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SliceKey {
    /// Its namespace.
    pub namespace: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
}

/// A port that every endpoint of a slice serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlicePort {
    /// The name of the service's port.
    pub name: Arc<str>,
    /// TCP, UDP or SCTP.
    pub protocol: Protocol,
    /// The number; a slice may leave it out, and then it contributes nothing to rules.
    pub port: Option<u16>,
}

/// One endpoint of a slice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SliceEndpoint {
    /// Its addresses, of the slice's family.
    pub addresses: Vec<IpAddr>,
    /// The node that it is on.
    pub node: Option<Arc<str>>,
    /// `conditions.ready`, absent counting as ready. Rules count endpoints that are not ready too.
    pub ready: bool,
}

/// An EndpointSlice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointSlice {
    /// The service that it is of, by its label `kubernetes.io/service-name`.
    pub service: ServiceRef,
    /// Its endpoints.
    pub endpoints: Vec<SliceEndpoint>,
    /// Their ports.
    pub ports: Vec<SlicePort>,
}
