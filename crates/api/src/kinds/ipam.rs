//! IPAM's kinds in the form of resources, as CRD storage keeps them. The etcd
//! layout's own keys and values are the ipam crate's.

use crate::meta::{ObjectMeta, StringMap};
use crate::wire::{LooseBool, record};
use std::collections::BTreeMap;

record! {
    /// How addresses are given; one object, `default`.
    pub struct IpamConfiguration {
        /// Name, labels and the like.
        pub metadata: ObjectMeta,
        /// What the user asks for.
        pub spec: IpamConfigurationSpec,
    }
}

record! {
    /// Spec of an [`IpamConfiguration`].
    pub struct IpamConfigurationSpec {
        /// 0: the library's own limit, 20.
        pub max_blocks_per_host: i64,
        /// Take new blocks when the node's are full.
        pub auto_allocate_blocks: Option<bool>,
        /// `Enabled` or `Disabled`.
        #[serde(rename = "kubeVirtVMAddressPersistence")]
        pub kube_virt_vm_address_persistence: String,
        /// 0-1200: how long a freed address rests.
        pub ip_cooldown_seconds: Option<i64>,
        always {
            /// No borrowing from other nodes' blocks.
            pub strict_affinity: bool,
        }
    }
}

record! {
    /// Which node a block belongs to.
    pub struct BlockAffinity {
        /// Name, labels and the like.
        pub metadata: ObjectMeta,
        /// What is so.
        pub spec: BlockAffinitySpec,
    }
}

record! {
    /// Spec of a [`BlockAffinity`].
    pub struct BlockAffinitySpec {
        /// `host` or `virtual`.
        #[serde(rename = "type")]
        pub kind: String,
        always {
            /// `confirmed`, `pending`, `pendingDeletion` or empty.
            pub state: String,
            /// The node.
            pub node: String,
            /// The block.
            pub cidr: String,
            /// On its way out.
            pub deleted: LooseBool,
        }
    }
}

record! {
    /// A block of addresses.
    pub struct IpamBlock {
        /// Name, labels and the like.
        pub metadata: ObjectMeta,
        /// What is so.
        pub spec: IpamBlockSpec,
    }
}

record! {
    /// Spec of an [`IpamBlock`].
    pub struct IpamBlockSpec {
        /// `host:<node>` or `virtual:<name>`.
        pub affinity: Option<String>,
        /// RFC 3339.
        pub affinity_claim_time: Option<String>,
        /// Counts writes.
        pub sequence_number: u64,
        /// The count at which each address was given.
        pub sequence_number_for_allocation: BTreeMap<String, u64>,
        /// On its way out.
        pub deleted: bool,
        /// No longer used; kept.
        pub strict_affinity: bool,
        always {
            /// The range.
            pub cidr: String,
            /// For each address: which of `attributes`, or none.
            pub allocations: Vec<Option<i64>>,
            /// Free ordinals, the next one first.
            pub unallocated: Vec<i64>,
            /// Who holds addresses.
            pub attributes: Vec<AllocationAttribute>,
        }
    }
}

record! {
    /// Who holds an address.
    pub struct AllocationAttribute {
        /// The handle that frees it.
        #[serde(rename = "handle_id")]
        pub handle_id: Option<String>,
        /// Pod, namespace, node and the like.
        pub secondary: StringMap,
        /// Who else may hold it.
        pub alternate_owner_attrs: StringMap,
        /// RFC 3339: rests since.
        pub released_at: Option<String>,
    }
}

record! {
    /// Where the addresses of one holder are.
    pub struct IpamHandle {
        /// Name, labels and the like.
        pub metadata: ObjectMeta,
        /// What is so.
        pub spec: IpamHandleSpec,
    }
}

record! {
    /// Spec of an [`IpamHandle`].
    pub struct IpamHandleSpec {
        /// On its way out.
        pub deleted: bool,
        always {
            /// The handle in full; the object's name is lower-case.
            #[serde(rename = "handleID")]
            pub handle_id: String,
            /// Block to number of addresses.
            pub block: BTreeMap<String, i64>,
        }
    }
}
