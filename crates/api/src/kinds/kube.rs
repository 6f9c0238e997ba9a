//! The Kubernetes objects that policy and addressing look at: only the fields
//! that are read are typed, everything else survives a round trip untouched.

use crate::meta::{ObjectMeta, StringMap};
use crate::wire::{NumOrString, record};

record! {
    /// `v1` Namespace.
    pub struct Namespace {
        /// Name, labels and the like.
        pub metadata: ObjectMeta,
        ..rest
    }
}

record! {
    /// `v1` ServiceAccount.
    pub struct ServiceAccount {
        /// Name, labels and the like.
        pub metadata: ObjectMeta,
        ..rest
    }
}

record! {
    /// `v1` Secret.
    pub struct Secret {
        /// Name, labels and the like.
        pub metadata: ObjectMeta,
        /// What it holds, in base64.
        pub data: StringMap,
        /// What a writer may give as plain text; moves into `data` before it is stored.
        pub string_data: StringMap,
        ..rest
    }
}

record! {
    /// `v1` Pod.
    pub struct Pod {
        /// Name, labels and the like.
        pub metadata: ObjectMeta,
        /// What was asked for.
        pub spec: PodSpec,
        /// What is so.
        pub status: PodStatus,
        ..rest
    }
}

record! {
    /// Spec of a [`Pod`].
    pub struct PodSpec {
        /// Run before the others.
        pub init_containers: Vec<Container>,
        /// The others.
        pub containers: Vec<Container>,
        /// `default` when empty.
        pub service_account_name: String,
        /// Empty until scheduled.
        pub node_name: String,
        /// Shares the node's network.
        pub host_network: bool,
        ..rest
    }
}

record! {
    /// A container of a [`Pod`].
    pub struct Container {
        /// Its name.
        pub name: String,
        /// What it listens on.
        pub ports: Vec<ContainerPort>,
        ..rest
    }
}

record! {
    /// A port of a [`Container`].
    pub struct ContainerPort {
        /// Its name.
        pub name: String,
        /// The host's port that leads there; 0 for none.
        pub host_port: u16,
        /// The number.
        pub container_port: u16,
        /// `TCP` when empty.
        pub protocol: String,
        /// The host's address that leads there.
        #[serde(rename = "hostIP")]
        pub host_ip: String,
        ..rest
    }
}

record! {
    /// Status of a [`Pod`].
    pub struct PodStatus {
        /// `Pending`, `Running`, `Succeeded`, `Failed` or `Unknown`.
        pub phase: String,
        /// `Ready` and others.
        pub conditions: Vec<PodCondition>,
        /// For people.
        pub message: String,
        /// One word.
        pub reason: String,
        /// Address of the node.
        #[serde(rename = "hostIP")]
        pub host_ip: String,
        /// First address.
        #[serde(rename = "podIP")]
        pub pod_ip: String,
        /// All addresses.
        #[serde(rename = "podIPs")]
        pub pod_ips: Vec<PodIp>,
        /// RFC 3339.
        pub start_time: Option<String>,
        ..rest
    }
}

record! {
    /// A condition of a [`Pod`].
    pub struct PodCondition {
        /// What it is about.
        #[serde(rename = "type")]
        pub kind: String,
        /// `True`, `False` or `Unknown`.
        pub status: String,
        /// One word.
        pub reason: String,
        /// For people.
        pub message: String,
        ..rest
    }
}

record! {
    /// One address of a [`Pod`].
    pub struct PodIp {
        /// The address.
        pub ip: String,
    }
}

record! {
    /// `v1` Node; named so beside Calico's own.
    pub struct KubeNode {
        /// Name, labels and the like.
        pub metadata: ObjectMeta,
        /// What was asked for.
        pub spec: KubeNodeSpec,
        /// What is so.
        pub status: KubeNodeStatus,
        ..rest
    }
}

record! {
    /// Spec of a [`KubeNode`].
    pub struct KubeNodeSpec {
        /// First pod range.
        #[serde(rename = "podCIDR")]
        pub pod_cidr: String,
        /// All pod ranges.
        #[serde(rename = "podCIDRs")]
        pub pod_cidrs: Vec<String>,
        ..rest
    }
}

record! {
    /// Status of a [`KubeNode`].
    pub struct KubeNodeStatus {
        /// By type.
        pub addresses: Vec<KubeNodeAddress>,
        ..rest
    }
}

record! {
    /// One address of a [`KubeNode`].
    pub struct KubeNodeAddress {
        /// `InternalIP`, `ExternalIP`, `Hostname` and others.
        #[serde(rename = "type")]
        pub kind: String,
        /// Address or name.
        pub address: String,
    }
}

record! {
    /// `networking.k8s.io/v1` NetworkPolicy; named so beside Calico's own.
    pub struct KubeNetworkPolicy {
        /// Name, labels and the like.
        pub metadata: ObjectMeta,
        /// What the user asks for.
        pub spec: KubePolicySpec,
    }
}

record! {
    /// Spec of a [`KubeNetworkPolicy`], and of Calico's staged one.
    pub struct KubePolicySpec {
        /// `Set`, `Delete`, `Learn` or `Ignore` (staged only).
        pub staged_action: String,
        /// Which pods of the namespace; empty is each.
        pub pod_selector: Option<LabelSelector>,
        /// Who may reach them.
        pub ingress: Vec<KubeIngressRule>,
        /// Whom they may reach.
        pub egress: Vec<KubeEgressRule>,
        /// `Ingress`, `Egress`; from the rules when empty.
        pub policy_types: Vec<String>,
    }
}

record! {
    /// A rule towards pods.
    pub struct KubeIngressRule {
        /// Any of these ports; empty is each.
        pub ports: Vec<KubePolicyPort>,
        /// Any of these peers; empty is each.
        pub from: Vec<KubePeer>,
    }
}

record! {
    /// A rule from pods.
    pub struct KubeEgressRule {
        /// Any of these ports; empty is each.
        pub ports: Vec<KubePolicyPort>,
        /// Any of these peers; empty is each.
        pub to: Vec<KubePeer>,
    }
}

record! {
    /// A port of a rule.
    pub struct KubePolicyPort {
        /// `TCP` when absent.
        pub protocol: Option<String>,
        /// Number or name; absent is each.
        pub port: Option<NumOrString>,
        /// With a numeric port: up to this one.
        pub end_port: Option<i64>,
    }
}

record! {
    /// A peer of a rule.
    pub struct KubePeer {
        /// Pods with such labels.
        pub pod_selector: Option<LabelSelector>,
        /// In namespaces with such labels; absent is the policy's own.
        pub namespace_selector: Option<LabelSelector>,
        /// Or addresses.
        pub ip_block: Option<IpBlock>,
    }
}

record! {
    /// Addresses of a peer.
    pub struct IpBlock {
        /// All of these,
        pub cidr: String,
        /// but not these.
        pub except: Vec<String>,
    }
}

record! {
    /// Kubernetes' selector: all of it must hold; empty holds for everything.
    pub struct LabelSelector {
        /// Label equals value.
        pub match_labels: StringMap,
        /// Further requirements.
        pub match_expressions: Vec<LabelRequirement>,
    }
}

record! {
    /// One requirement of a [`LabelSelector`].
    pub struct LabelRequirement {
        /// The label.
        pub key: String,
        /// `In`, `NotIn`, `Exists` or `DoesNotExist`.
        pub operator: String,
        /// For `In` and `NotIn`.
        pub values: Vec<String>,
    }
}
