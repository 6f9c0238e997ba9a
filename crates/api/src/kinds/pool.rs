//! Address pools and reservations.

use crate::meta::ObjectMeta;
use crate::wire::record;

record! {
    /// A range that addresses are given from.
    pub struct IpPool {
        /// Name, labels and the like.
        pub metadata: ObjectMeta,
        /// What the user asks for.
        pub spec: IpPoolSpec,
        /// What a controller says of it.
        pub status: Option<IpPoolStatus>,
    }
}

record! {
    /// Spec of an [`IpPool`].
    pub struct IpPoolSpec {
        /// The range; cannot change.
        pub cidr: String,
        /// `Never` (also empty), `Always` or `CrossSubnet`.
        pub vxlan_mode: String,
        /// `Never` (also empty), `Always` or `CrossSubnet`; IPv4 only.
        pub ipip_mode: String,
        /// Masquerade what leaves all pools.
        pub nat_outgoing: bool,
        /// Gives no new addresses.
        pub disabled: bool,
        /// BGP does not announce it.
        #[serde(rename = "disableBGPExport")]
        pub disable_bgp_export: bool,
        /// Length of its blocks: 20-32 (26) or 116-128 (122); cannot change.
        pub block_size: Option<i64>,
        /// Which nodes take addresses from it; `all()` by default.
        pub node_selector: String,
        /// Which namespaces take addresses from it.
        pub namespace_selector: String,
        /// `Workload`, `Tunnel`, `LoadBalancer`; the first two by default.
        pub allowed_uses: Vec<String>,
        /// `Automatic` (default) or `Manual`.
        pub assignment_mode: String,
    }
}

record! {
    /// Status of an [`IpPool`].
    pub struct IpPoolStatus {
        /// `Allocatable` is the one that counts.
        pub conditions: Vec<Condition>,
    }
}

record! {
    /// Kubernetes' condition.
    pub struct Condition {
        /// What it is about.
        #[serde(rename = "type")]
        pub kind: String,
        /// `True`, `False` or `Unknown`.
        pub status: String,
        /// Which generation of the object it was seen on.
        pub observed_generation: Option<i64>,
        /// RFC 3339.
        pub last_transition_time: Option<String>,
        /// One word.
        pub reason: String,
        /// For people.
        pub message: String,
    }
}

record! {
    /// Addresses that are never given out.
    pub struct IpReservation {
        /// Name, labels and the like.
        pub metadata: ObjectMeta,
        /// What the user asks for.
        pub spec: IpReservationSpec,
    }
}

record! {
    /// Spec of an [`IpReservation`].
    pub struct IpReservationSpec {
        /// The prefixes.
        #[serde(rename = "reservedCIDRs")]
        pub reserved_cidrs: Vec<String>,
    }
}
