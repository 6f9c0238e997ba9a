//! BGP peers and filters. BGPConfiguration is with the other configuration.

use crate::meta::ObjectMeta;
use crate::wire::{AsNumber, record};

record! {
    /// Whom some nodes speak BGP with.
    pub struct BgpPeer {
        /// Name, labels and the like.
        pub metadata: ObjectMeta,
        /// What the user asks for.
        pub spec: BgpPeerSpec,
    }
}

record! {
    /// Spec of a [`BgpPeer`].
    pub struct BgpPeerSpec {
        /// Only this node.
        pub node: String,
        /// Only such nodes; with neither, each.
        pub node_selector: String,
        /// The other side: `address`, `v4:port` or `[v6]:port`.
        #[serde(rename = "peerIP")]
        pub peer_ip: String,
        /// AS of the other side; the cluster's when absent or 0.
        pub as_number: Option<AsNumber>,
        /// Our AS towards it.
        #[serde(rename = "localASNumber")]
        pub local_as_number: Option<AsNumber>,
        /// The other side: such nodes.
        pub peer_selector: String,
        /// The same as `Keep`; deprecated.
        pub keep_original_next_hop: bool,
        /// `Auto` (default), `Self` or `Keep`.
        pub next_hop_mode: String,
        /// Where the session's password is.
        pub password: Option<BgpPassword>,
        /// `UseNodeIP` (default) or `None`.
        pub source_address: String,
        /// How long it may take to come back.
        pub max_restart_time: String,
        /// Between signs of life.
        pub keepalive_time: String,
        /// How often our own AS may be in a path.
        #[serde(rename = "numAllowedLocalASNumbers")]
        pub num_allowed_local_as_numbers: Option<i64>,
        /// How many hops away it may be (RFC 5082).
        pub ttl_security: Option<u8>,
        /// The gateway that leads to it.
        pub reachable_by: String,
        /// Names of filters, in order.
        pub filters: Vec<String>,
        /// The other side: such workloads of the node itself.
        pub local_workload_selector: String,
        /// `Auto` (default): peers of a selector peer back; `Manual`.
        pub reverse_peering: String,
    }
}

record! {
    /// Where a password is.
    pub struct BgpPassword {
        /// In a Secret.
        pub secret_key_ref: Option<SecretKeyRef>,
    }
}

record! {
    /// A key of a Kubernetes Secret.
    pub struct SecretKeyRef {
        /// The secret's name.
        pub name: String,
        /// The key in it.
        pub key: String,
        /// No error when it is not there.
        pub optional: Option<bool>,
    }
}

record! {
    /// Which routes a peer gets and gives. The first rule that matches decides; none accepts.
    pub struct BgpFilter {
        /// Name, labels and the like.
        pub metadata: ObjectMeta,
        /// What the user asks for.
        pub spec: BgpFilterSpec,
    }
}

record! {
    /// Spec of a [`BgpFilter`].
    pub struct BgpFilterSpec {
        /// To the peer.
        pub export_v4: Vec<BgpFilterRule>,
        /// From the peer.
        pub import_v4: Vec<BgpFilterRule>,
        /// To the peer.
        pub export_v6: Vec<BgpFilterRule>,
        /// From the peer.
        pub import_v6: Vec<BgpFilterRule>,
    }
}

record! {
    /// A rule: what it states must all match.
    pub struct BgpFilterRule {
        /// The prefix to compare with.
        pub cidr: String,
        /// How long the route's prefix may be.
        pub prefix_length: Option<PrefixLength>,
        /// `RemotePeers`.
        pub source: String,
        /// The route's interface; `*` stands for any characters.
        pub interface: String,
        /// `Equal`, `NotEqual`, `In` or `NotIn`.
        pub match_operator: String,
        /// `eBGP` or `iBGP`.
        pub peer_type: String,
        /// The community it carries.
        pub communities: Option<CommunityMatch>,
        /// How its path begins.
        pub as_path_prefix: Vec<AsNumber>,
        /// Its metric, 1 to 2147483646.
        pub priority: Option<i64>,
        /// What is done to what is accepted, 1 to 10.
        pub operations: Vec<BgpFilterOperation>,
        always {
            /// `Accept` or `Reject`.
            pub action: String,
        }
    }
}

record! {
    /// Bounds of a prefix's length.
    pub struct PrefixLength {
        /// At least.
        pub min: Option<i64>,
        /// At most.
        pub max: Option<i64>,
    }
}

record! {
    /// Communities that a route must carry.
    pub struct CommunityMatch {
        /// Exactly one, `aa:nn` or `aa:nn:mm`.
        pub values: Vec<String>,
    }
}

record! {
    /// A change of an accepted route; exactly one is set.
    pub struct BgpFilterOperation {
        /// Adds a community.
        pub add_community: Option<AddCommunity>,
        /// Makes the path longer.
        #[serde(rename = "prependASPath")]
        pub prepend_as_path: Option<PrependAsPath>,
        /// Sets the metric.
        pub set_priority: Option<SetPriority>,
    }
}

record! {
    /// Adds a community.
    pub struct AddCommunity {
        /// `aa:nn` or `aa:nn:mm`.
        pub value: String,
    }
}

record! {
    /// Makes the path longer.
    pub struct PrependAsPath {
        /// These in front, 1 to 10.
        pub prefix: Vec<AsNumber>,
    }
}

record! {
    /// Sets the metric.
    pub struct SetPriority {
        /// 1 to 2147483646.
        pub value: Option<i64>,
    }
}
