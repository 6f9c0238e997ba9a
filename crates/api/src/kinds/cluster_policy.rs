//! `policy.networking.k8s.io/v1alpha2` ClusterNetworkPolicy, as its API has the fields.

use crate::kinds::kube::LabelSelector;
use crate::meta::ObjectMeta;
use crate::wire::record;
use serde_json::Value;

record! {
    /// A policy of the cluster's administrators, before or after all others.
    pub struct ClusterNetworkPolicy {
        /// Name, labels and the like.
        pub metadata: ObjectMeta,
        /// What the user asks for.
        pub spec: ClusterPolicySpec,
        /// What controllers say of it; kept as it came.
        pub status: Option<Value>,
    }
}

record! {
    /// Spec of a [`ClusterNetworkPolicy`].
    pub struct ClusterPolicySpec {
        /// `Admin` or `Baseline`.
        pub tier: String,
        /// 0 to 1000, lower goes first. It has no default.
        pub priority: Option<i64>,
        /// To which pods it applies.
        pub subject: ClusterSubject,
        /// Towards the pods, at most 25.
        pub ingress: Vec<ClusterIngressRule>,
        /// From the pods, at most 25.
        pub egress: Vec<ClusterEgressRule>,
    }
}

record! {
    /// Whom a [`ClusterNetworkPolicy`] is for; exactly one is set.
    pub struct ClusterSubject {
        /// Every pod of such namespaces.
        pub namespaces: Option<LabelSelector>,
        /// Such pods of such namespaces.
        pub pods: Option<NamespacedPod>,
    }
}

record! {
    /// Pods by their own labels and those of their namespaces; what is empty is each.
    pub struct NamespacedPod {
        /// Of the namespaces.
        pub namespace_selector: LabelSelector,
        always {
            /// Of the pods.
            pub pod_selector: LabelSelector,
        }
    }
}

record! {
    /// A rule towards pods.
    pub struct ClusterIngressRule {
        /// For people, at most 100 characters.
        pub name: String,
        /// `Accept`, `Deny` or `Pass`.
        pub action: String,
        /// Any of these peers, 1 to 25.
        pub from: Vec<ClusterPeer>,
        /// Any of these, at most 25; empty is everything.
        pub protocols: Vec<ClusterProtocol>,
    }
}

record! {
    /// A rule from pods.
    pub struct ClusterEgressRule {
        /// For people, at most 100 characters.
        pub name: String,
        /// `Accept`, `Deny` or `Pass`.
        pub action: String,
        /// Any of these peers, 1 to 25.
        pub to: Vec<ClusterPeer>,
        /// Any of these, at most 25; empty is everything.
        pub protocols: Vec<ClusterProtocol>,
    }
}

record! {
    /// A peer; exactly one is set. An ingress rule has only the first two.
    pub struct ClusterPeer {
        /// Every pod of such namespaces.
        pub namespaces: Option<LabelSelector>,
        /// Such pods of such namespaces.
        pub pods: Option<NamespacedPod>,
        /// Addresses of such nodes.
        pub nodes: Option<LabelSelector>,
        /// These prefixes, at most 25.
        pub networks: Vec<String>,
        /// What these names resolve to, at most 25; `*.` before a name for all below it.
        pub domain_names: Vec<String>,
    }
}

record! {
    /// A protocol with or without ports; exactly one is set.
    pub struct ClusterProtocol {
        /// TCP.
        pub tcp: Option<ClusterProtocolPorts>,
        /// UDP.
        pub udp: Option<ClusterProtocolPorts>,
        /// SCTP.
        pub sctp: Option<ClusterProtocolPorts>,
        /// A pod's port by name, of whatever protocol it has there.
        pub destination_named_port: String,
    }
}

record! {
    /// What is matched of a protocol.
    pub struct ClusterProtocolPorts {
        /// Which ports; absent is each.
        pub destination_port: Option<ClusterPort>,
    }
}

record! {
    /// Ports; exactly one is set.
    pub struct ClusterPort {
        /// One port; 0 is none.
        pub number: i64,
        /// All of a range.
        pub range: Option<ClusterPortRange>,
    }
}

record! {
    /// Ports from and to, both inside.
    pub struct ClusterPortRange {
        always {
            /// The first.
            pub start: i64,
            /// The last, above the first.
            pub end: i64,
        }
    }
}
