//! Kubernetes' Service and EndpointSlice: only what routing and rules read is typed, the rest is kept.

use crate::meta::ObjectMeta;
use crate::wire::{NumOrString, record};

record! {
    /// `v1` Service.
    pub struct Service {
        /// Name, labels and the like.
        pub metadata: ObjectMeta,
        /// What was asked for.
        pub spec: ServiceSpec,
        /// What is so.
        pub status: ServiceStatus,
        ..rest
    }
}

record! {
    /// Spec of a [`Service`].
    pub struct ServiceSpec {
        /// `ClusterIP` when empty, `NodePort`, `LoadBalancer` or `ExternalName`.
        #[serde(rename = "type")]
        pub kind: String,
        /// First cluster address, or `None` for a headless one.
        #[serde(rename = "clusterIP")]
        pub cluster_ip: String,
        /// All cluster addresses.
        #[serde(rename = "clusterIPs")]
        pub cluster_ips: Vec<String>,
        /// Addresses that somebody routes here.
        #[serde(rename = "externalIPs")]
        pub external_ips: Vec<String>,
        /// The address that a load balancer is to have.
        #[serde(rename = "loadBalancerIP")]
        pub load_balancer_ip: String,
        /// Its ports.
        pub ports: Vec<ServicePort>,
        /// `Cluster` when empty, or `Local`.
        pub external_traffic_policy: String,
        /// `Cluster` when empty, or `Local`.
        pub internal_traffic_policy: String,
        ..rest
    }
}

record! {
    /// A port of a [`Service`].
    pub struct ServicePort {
        /// May be empty for the only one.
        pub name: String,
        /// `TCP` when empty.
        pub protocol: String,
        /// The number that clients use.
        pub port: u16,
        /// Number or name of the pods' port.
        pub target_port: Option<NumOrString>,
        /// The number on each node; 0 for none.
        pub node_port: u16,
        ..rest
    }
}

record! {
    /// Status of a [`Service`].
    pub struct ServiceStatus {
        /// What a load balancer says.
        pub load_balancer: LoadBalancerStatus,
        ..rest
    }
}

record! {
    /// Where a load balancer takes traffic.
    pub struct LoadBalancerStatus {
        /// Its addresses.
        pub ingress: Vec<LoadBalancerIngress>,
    }
}

record! {
    /// One address of a load balancer.
    pub struct LoadBalancerIngress {
        /// The address; empty where there is a name.
        pub ip: String,
        ..rest
    }
}

record! {
    /// `discovery.k8s.io/v1` EndpointSlice: a part of what is behind a service.
    pub struct EndpointSlice {
        /// Name, labels and the like; `kubernetes.io/service-name` is the service.
        pub metadata: ObjectMeta,
        /// `IPv4`, `IPv6` or `FQDN`.
        pub address_type: String,
        /// What is behind it.
        pub endpoints: Vec<Endpoint>,
        /// The ports that each of them serves.
        pub ports: Vec<EndpointSlicePort>,
        ..rest
    }
}

record! {
    /// One of an [`EndpointSlice`].
    pub struct Endpoint {
        /// Its addresses.
        pub addresses: Vec<String>,
        /// What it can do.
        pub conditions: EndpointConditions,
        /// Where it is.
        pub node_name: String,
        ..rest
    }
}

record! {
    /// What an [`Endpoint`] can do.
    pub struct EndpointConditions {
        /// Absent counts as true.
        pub ready: Option<bool>,
        /// Absent counts as `ready`.
        pub serving: Option<bool>,
        /// Absent counts as false.
        pub terminating: Option<bool>,
    }
}

record! {
    /// A port of an [`EndpointSlice`].
    pub struct EndpointSlicePort {
        /// The name of the service's port.
        pub name: String,
        /// `TCP` when empty.
        pub protocol: String,
        /// The number; absent is not restricted.
        pub port: Option<u16>,
        /// For people.
        pub app_protocol: String,
    }
}
