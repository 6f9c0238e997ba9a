//! Tiers, policies and their rules.

use crate::kinds::kube::KubePolicySpec;
use crate::kinds::pool::Condition;
use crate::meta::{ObjectMeta, StringMap};
use crate::wire::{NumOrString, Number, Port, record};

record! {
    /// A group of policies.
    pub struct Tier {
        /// Name, labels and the like.
        pub metadata: ObjectMeta,
        /// What the user asks for.
        pub spec: TierSpec,
        /// What a controller says of it.
        pub status: Option<TierStatus>,
    }
}

record! {
    /// Spec of a [`Tier`].
    pub struct TierSpec {
        /// Lower goes first; none counts as 1,000,000.
        pub order: Option<Number>,
        /// `Deny` (default) or `Pass`.
        pub default_action: String,
    }
}

record! {
    /// Status of a [`Tier`].
    pub struct TierStatus {
        /// `Ready`.
        pub conditions: Vec<Condition>,
    }
}

record! {
    /// A policy for the endpoints of a namespace.
    pub struct NetworkPolicy {
        /// Name, labels and the like.
        pub metadata: ObjectMeta,
        /// What the user asks for.
        pub spec: PolicySpec,
    }
}

record! {
    /// A policy for endpoints anywhere.
    pub struct GlobalNetworkPolicy {
        /// Name, labels and the like.
        pub metadata: ObjectMeta,
        /// What the user asks for.
        pub spec: PolicySpec,
    }
}

record! {
    /// A [`NetworkPolicy`] that is only computed, to see what it would do.
    pub struct StagedNetworkPolicy {
        /// Name, labels and the like.
        pub metadata: ObjectMeta,
        /// What the user thinks of asking for.
        pub spec: PolicySpec,
    }
}

record! {
    /// A [`GlobalNetworkPolicy`] that is only computed, to see what it would do.
    pub struct StagedGlobalNetworkPolicy {
        /// Name, labels and the like.
        pub metadata: ObjectMeta,
        /// What the user thinks of asking for.
        pub spec: PolicySpec,
    }
}

record! {
    /// A Kubernetes NetworkPolicy that is only computed, to see what it would do.
    pub struct StagedKubernetesNetworkPolicy {
        /// Name, labels and the like.
        pub metadata: ObjectMeta,
        /// What the user thinks of asking for.
        pub spec: KubePolicySpec,
    }
}

record! {
    /// Spec of the four policies; parsing and validation refuse in each what only another has.
    pub struct PolicySpec {
        /// `Set`, `Delete`, `Learn` or `Ignore` (staged only).
        pub staged_action: String,
        /// `default` when empty.
        pub tier: String,
        /// Lower goes first; none goes last.
        pub order: Option<Number>,
        /// Towards the endpoint.
        pub ingress: Vec<Rule>,
        /// From the endpoint.
        pub egress: Vec<Rule>,
        /// Which endpoints; `all()` when empty.
        pub selector: String,
        /// `Ingress`, `Egress`; from the rules when empty.
        pub types: Vec<String>,
        /// Without connection tracking (global only).
        pub do_not_track: bool,
        /// Before destination NAT (global only).
        #[serde(rename = "preDNAT")]
        pub pre_dnat: bool,
        /// On traffic that a host forwards (global only).
        pub apply_on_forward: bool,
        /// Only endpoints with such service accounts.
        pub service_account_selector: String,
        /// Only endpoints in such namespaces (global only).
        pub namespace_selector: String,
        /// `AssumeNeededOnEveryNode`.
        pub performance_hints: Vec<String>,
    }
}

record! {
    /// One rule.
    pub struct Rule {
        /// `Allow`, `Deny`, `Log` or `Pass`.
        pub action: String,
        /// 4 or 6.
        #[serde(rename = "ipVersion")]
        pub ip_version: Option<i64>,
        /// Name or number.
        pub protocol: Option<NumOrString>,
        /// Only this ICMP message.
        pub icmp: Option<IcmpFields>,
        /// Name or number.
        pub not_protocol: Option<NumOrString>,
        /// Not this ICMP message.
        #[serde(rename = "notICMP")]
        pub not_icmp: Option<IcmpFields>,
        /// Only these requests.
        pub http: Option<HttpMatch>,
        /// Notes.
        pub metadata: Option<RuleMetadata>,
        always {
            /// Where packets come from.
            pub source: EntityRule,
            /// Where packets go.
            pub destination: EntityRule,
        }
    }
}

record! {
    /// An ICMP message.
    pub struct IcmpFields {
        /// 0-254.
        #[serde(rename = "type")]
        pub kind: Option<i64>,
        /// 0-255.
        pub code: Option<i64>,
    }
}

record! {
    /// Notes on a [`Rule`].
    pub struct RuleMetadata {
        /// Key and text.
        pub annotations: StringMap,
    }
}

record! {
    /// One side of a [`Rule`].
    pub struct EntityRule {
        /// Any of these prefixes.
        pub nets: Vec<String>,
        /// Things with such labels.
        pub selector: String,
        /// In such namespaces.
        pub namespace_selector: String,
        /// Endpoints of a service.
        pub services: Option<ServiceMatch>,
        /// Any of these ports.
        pub ports: Vec<Port>,
        /// None of these prefixes.
        pub not_nets: Vec<String>,
        /// Nothing with such labels.
        pub not_selector: String,
        /// None of these ports.
        pub not_ports: Vec<Port>,
        /// With such service accounts.
        pub service_accounts: Option<ServiceAccountMatch>,
    }
}

record! {
    /// A service.
    pub struct ServiceMatch {
        /// Its name.
        pub name: String,
        /// Its namespace; the policy's own when empty.
        pub namespace: String,
    }
}

record! {
    /// Service accounts.
    pub struct ServiceAccountMatch {
        /// Any of these names.
        pub names: Vec<String>,
        /// With such labels.
        pub selector: String,
    }
}

record! {
    /// HTTP requests, for proxies.
    pub struct HttpMatch {
        /// Any of these methods.
        pub methods: Vec<String>,
        /// Any of these paths.
        pub paths: Vec<HttpPath>,
    }
}

record! {
    /// A path; one of the two is set.
    pub struct HttpPath {
        /// The whole path.
        pub exact: String,
        /// Its beginning.
        pub prefix: String,
    }
}
