//! Workload and host endpoints, and profiles.

use crate::kinds::policy::Rule;
use crate::meta::{ObjectMeta, StringMap};
use crate::wire::{NumOrString, record};

record! {
    /// One interface of a workload.
    pub struct WorkloadEndpoint {
        /// Name, labels and the like.
        pub metadata: ObjectMeta,
        /// What is known of it.
        pub spec: WorkloadEndpointSpec,
    }
}

record! {
    /// Spec of a [`WorkloadEndpoint`].
    pub struct WorkloadEndpointSpec {
        /// `k8s`, `cni` or another.
        pub orchestrator: String,
        /// Which workload, for orchestrators other than `k8s` and `cni`.
        pub workload: String,
        /// Where it runs.
        pub node: String,
        /// ID of the container whose interface it is.
        #[serde(rename = "containerID")]
        pub container_id: String,
        /// The pod's name.
        pub pod: String,
        /// Name of the interface inside: `eth0`.
        pub endpoint: String,
        /// The pod's service account.
        pub service_account_name: String,
        /// Its addresses, each a host prefix.
        pub ip_networks: Vec<String>,
        /// Floating addresses.
        #[serde(rename = "ipNATs")]
        pub ip_nats: Vec<IpNat>,
        /// Unused by the CNI plugin; kept.
        pub ipv4_gateway: String,
        /// Unused by the CNI plugin; kept.
        pub ipv6_gateway: String,
        /// In order of evaluation.
        pub profiles: Vec<String>,
        /// Host side of its link.
        pub interface_name: String,
        /// Of the workload's side.
        pub mac: String,
        /// Ports that rules can name.
        pub ports: Vec<WorkloadEndpointPort>,
        /// Further addresses that it may send from.
        pub allow_spoofed_source_prefixes: Vec<String>,
        /// Limits on its traffic.
        pub qos_controls: Option<QosControls>,
    }
}

record! {
    /// A floating address.
    pub struct IpNat {
        /// The workload's own.
        #[serde(rename = "internalIP")]
        pub internal_ip: String,
        /// The one that others use.
        #[serde(rename = "externalIP")]
        pub external_ip: String,
    }
}

record! {
    /// A port of a [`WorkloadEndpoint`].
    pub struct WorkloadEndpointPort {
        /// Its name; may be empty when it has a host port.
        pub name: String,
        /// TCP, UDP or SCTP.
        pub protocol: NumOrString,
        /// The number.
        pub port: u16,
        /// The host's port that leads there; 0 for none.
        pub host_port: u16,
        /// The host's address that leads there; empty for each.
        #[serde(rename = "hostIP")]
        pub host_ip: String,
    }
}

record! {
    /// Limits of a [`WorkloadEndpoint`]; 0 is none. Rates are per second, sizes in bits
    /// for bandwidth and bursts, bytes for minbursts.
    pub struct QosControls {
        /// Towards it.
        pub ingress_bandwidth: u64,
        /// From it.
        pub egress_bandwidth: u64,
        /// Towards it.
        pub ingress_burst: u64,
        /// From it.
        pub egress_burst: u64,
        /// Towards it.
        pub ingress_peakrate: u64,
        /// From it.
        pub egress_peakrate: u64,
        /// Towards it.
        pub ingress_minburst: u64,
        /// From it.
        pub egress_minburst: u64,
        /// Towards it.
        pub ingress_packet_rate: u64,
        /// From it.
        pub egress_packet_rate: u64,
        /// Towards it.
        pub ingress_packet_burst: u64,
        /// From it.
        pub egress_packet_burst: u64,
        /// Towards it, at one time.
        pub ingress_max_connections: u64,
        /// From it, at one time.
        pub egress_max_connections: u64,
        /// Mark of what it sends: 0-63 or a name such as `EF`.
        pub dscp: Option<NumOrString>,
    }
}

record! {
    /// An interface of a host that policy applies to.
    pub struct HostEndpoint {
        /// Name, labels and the like.
        pub metadata: ObjectMeta,
        /// What the user asks for.
        pub spec: HostEndpointSpec,
    }
}

record! {
    /// Spec of a [`HostEndpoint`].
    pub struct HostEndpointSpec {
        /// The machine.
        pub node: String,
        /// A name, `*` for each, or empty to go by `expected_ips`.
        pub interface_name: String,
        /// Addresses of the interface.
        #[serde(rename = "expectedIPs")]
        pub expected_ips: Vec<String>,
        /// In order of evaluation.
        pub profiles: Vec<String>,
        /// Ports that rules can name.
        pub ports: Vec<EndpointPort>,
    }
}

record! {
    /// A port of a [`HostEndpoint`].
    pub struct EndpointPort {
        /// Its name.
        pub name: String,
        /// TCP, UDP or SCTP.
        pub protocol: NumOrString,
        /// The number.
        pub port: u16,
    }
}

record! {
    /// Labels to inherit and rules of last resort.
    pub struct Profile {
        /// Name, labels and the like.
        pub metadata: ObjectMeta,
        /// What it gives.
        pub spec: ProfileSpec,
    }
}

record! {
    /// Spec of a [`Profile`].
    pub struct ProfileSpec {
        /// Towards the endpoint.
        pub ingress: Vec<Rule>,
        /// From the endpoint.
        pub egress: Vec<Rule>,
        /// Labels that its endpoints inherit.
        pub labels_to_apply: StringMap,
    }
}
