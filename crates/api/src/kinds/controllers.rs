//! Configuration of the cluster's controllers.

use crate::meta::{ObjectMeta, StringMap};
use crate::wire::record;
use serde_json::Value;

record! {
    /// What the controllers do; one object, `default`.
    pub struct KubeControllersConfiguration {
        /// Name, labels and the like.
        pub metadata: ObjectMeta,
        /// What the user asks for.
        pub spec: KubeControllersSpec,
        /// What the controllers run with.
        pub status: Option<KubeControllersStatus>,
    }
}

record! {
    /// Spec of a [`KubeControllersConfiguration`].
    pub struct KubeControllersSpec {
        /// `Info` by default.
        pub log_severity_screen: String,
        /// `Enabled` (default) or `Disabled`.
        pub health_checks: String,
        /// 10m by default; 0 turns it off.
        pub etcd_v3_compaction_period: String,
        /// 9094 by default; 0 turns it off.
        pub prometheus_metrics_port: Option<i64>,
        /// Of each controller.
        pub controllers: ControllersConfig,
        /// None by default.
        pub debug_profile_port: Option<i64>,
    }
}

record! {
    /// Which controllers run, and how; one that is absent does not.
    pub struct ControllersConfig {
        /// Nodes, their labels and host endpoints, leaked addresses.
        pub node: Option<NodeController>,
        /// Kubernetes' policies.
        pub policy: Option<Reconciled>,
        /// Labels of endpoints.
        pub workload_endpoint: Option<Reconciled>,
        /// Profiles of accounts.
        pub service_account: Option<Reconciled>,
        /// Profiles of namespaces.
        pub namespace: Option<Reconciled>,
        /// Addresses of services.
        pub load_balancer: Option<LoadBalancerController>,
        /// Renames stored policies of older versions.
        pub migration: Option<MigrationController>,
    }
}

record! {
    /// A controller that looks at everything now and then.
    pub struct Reconciled {
        /// 5m by default.
        pub reconciler_period: String,
    }
}

record! {
    /// The node controller.
    pub struct NodeController {
        /// 5m by default.
        pub reconciler_period: String,
        /// `Enabled` (default) or `Disabled`.
        pub sync_labels: String,
        /// Host endpoints for every node.
        pub host_endpoint: Option<AutoHostEndpoint>,
        /// How long an address must be leaked before it is freed: 15m by default.
        pub leak_grace_period: String,
    }
}

record! {
    /// Host endpoints that are made for nodes.
    pub struct AutoHostEndpoint {
        /// `Enabled` or `Disabled` (default).
        pub auto_create: String,
        /// `Enabled` (default) or `Disabled`.
        pub create_default_host_endpoint: String,
        /// Further ones.
        pub templates: Vec<HostEndpointTemplate>,
    }
}

record! {
    /// A host endpoint for each matching interface of each matching node.
    pub struct HostEndpointTemplate {
        /// Goes into the names.
        pub generate_name: String,
        /// Interfaces by their addresses.
        #[serde(rename = "interfaceCIDRs")]
        pub interface_cidrs: Vec<String>,
        /// Interfaces by name, a regular expression.
        pub interface_pattern: String,
        /// Labels to give.
        pub labels: StringMap,
        /// Annotations to give.
        pub annotations: StringMap,
        /// On which nodes; each when empty.
        pub node_selector: String,
    }
}

record! {
    /// The load balancer controller.
    pub struct LoadBalancerController {
        /// `AllServices` (default) or `RequestedServicesOnly`.
        #[serde(rename = "assignIPs")]
        pub assign_ips: String,
    }
}

record! {
    /// Controllers of migrations.
    pub struct MigrationController {
        /// `Enabled` (default) or `Disabled`.
        pub policy_name_migrator: String,
    }
}

record! {
    /// Status of a [`KubeControllersConfiguration`].
    pub struct KubeControllersStatus {
        /// The spec that is in force; kept as it came.
        pub running_config: Option<Value>,
        /// The variables that override it.
        pub environment_vars: StringMap,
    }
}
