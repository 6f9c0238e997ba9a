//! Network sets.

use crate::meta::ObjectMeta;
use crate::wire::record;

record! {
    /// Prefixes with labels, in a namespace.
    pub struct NetworkSet {
        /// Name, labels and the like.
        pub metadata: ObjectMeta,
        /// What the user asks for.
        pub spec: NetworkSetSpec,
    }
}

record! {
    /// Prefixes with labels.
    pub struct GlobalNetworkSet {
        /// Name, labels and the like.
        pub metadata: ObjectMeta,
        /// What the user asks for.
        pub spec: NetworkSetSpec,
    }
}

record! {
    /// Spec of both network sets.
    pub struct NetworkSetSpec {
        /// The prefixes.
        pub nets: Vec<String>,
    }
}
