//! Configuration of the agents and of the cluster.

use crate::kinds::bgp::BgpPassword;
use crate::meta::ObjectMeta;
use crate::wire::{AsNumber, record};
use serde_json::{Map, Value};

record! {
    /// Parameters of the agents: `default`, `node.<name>`, or for selected nodes.
    pub struct FelixConfiguration {
        /// Name, labels and the like.
        pub metadata: ObjectMeta,
        /// Parameter (JSON name) to value, as it came; [`crate::felix`] has the table.
        pub spec: Map<String, Value>,
    }
}

record! {
    /// What holds for the whole cluster; one object, `default`.
    pub struct ClusterInformation {
        /// Name, labels and the like.
        pub metadata: ObjectMeta,
        /// What is so.
        pub spec: ClusterInformationSpec,
    }
}

record! {
    /// Spec of a [`ClusterInformation`].
    pub struct ClusterInformationSpec {
        /// 32 hexadecimal digits.
        #[serde(rename = "clusterGUID")]
        pub cluster_guid: String,
        /// Comma-separated.
        pub cluster_type: String,
        /// Of the programs that wrote it.
        pub calico_version: String,
        /// Off while the datastore is locked for migration.
        pub datastore_ready: Option<bool>,
        /// Of the programs that wrote it.
        pub variant: String,
    }
}

record! {
    /// BGP of the cluster (`default`) or of one node (`node.<name>`).
    pub struct BgpConfiguration {
        /// Name, labels and the like.
        pub metadata: ObjectMeta,
        /// What the user asks for.
        pub spec: BgpConfigurationSpec,
    }
}

record! {
    /// Spec of a [`BgpConfiguration`].
    pub struct BgpConfigurationSpec {
        /// `Info` by default.
        pub log_severity_screen: String,
        /// Every node peers with every other; on by default.
        pub node_to_node_mesh_enabled: Option<bool>,
        /// 64512 by default.
        pub as_number: Option<AsNumber>,
        /// Ranges to announce.
        #[serde(rename = "serviceLoadBalancerIPs")]
        pub service_load_balancer_ips: Vec<CidrBlock>,
        /// Ranges to announce.
        #[serde(rename = "serviceExternalIPs")]
        pub service_external_ips: Vec<CidrBlock>,
        /// Ranges to announce.
        #[serde(rename = "serviceClusterIPs")]
        pub service_cluster_ips: Vec<CidrBlock>,
        /// `Enabled` (default) or `Disabled`.
        pub service_load_balancer_aggregation: String,
        /// Names for communities.
        pub communities: Vec<Community>,
        /// Communities of what is announced.
        pub prefix_advertisements: Vec<PrefixAdvertisement>,
        /// 179 by default.
        pub listen_port: Option<u16>,
        /// Secret of the mesh.
        pub node_mesh_password: Option<BgpPassword>,
        /// How long a peer may take to come back.
        pub node_mesh_max_restart_time: String,
        /// `None` or `NodeIP`.
        pub bind_mode: String,
        /// Never announced.
        pub ignored_interfaces: Vec<String>,
        /// Where local workloads peer to.
        #[serde(rename = "localWorkloadPeeringIPV4")]
        pub local_workload_peering_ipv4: String,
        /// Where local workloads peer to.
        #[serde(rename = "localWorkloadPeeringIPV6")]
        pub local_workload_peering_ipv6: String,
        /// Who programs routes to other nodes.
        pub program_cluster_routes: String,
        /// Metric.
        #[serde(rename = "ipv4NormalRoutePriority")]
        pub ipv4_normal_route_priority: Option<i64>,
        /// Metric.
        #[serde(rename = "ipv6NormalRoutePriority")]
        pub ipv6_normal_route_priority: Option<i64>,
    }
}

record! {
    /// A range.
    pub struct CidrBlock {
        /// The range.
        pub cidr: String,
    }
}

record! {
    /// A name for a community.
    pub struct Community {
        /// The name.
        pub name: String,
        /// `aa:nn` or `aa:nn:mm`.
        pub value: String,
    }
}

record! {
    /// Communities of one announced prefix.
    pub struct PrefixAdvertisement {
        /// The prefix.
        pub cidr: String,
        /// Names or values.
        pub communities: Vec<String>,
    }
}
