//! The metadata that every resource carries.
//!
//! Promises: fields in the order and with the omissions of Kubernetes' own
//! `ObjectMeta`; what we do not interpret is kept as it came.

use crate::wire::record;
use std::collections::BTreeMap;

/// Labels and annotations as stored.
pub type StringMap = BTreeMap<String, String>;

record! {
    /// Kubernetes' `ObjectMeta`.
    pub struct ObjectMeta {
        /// Unique among the kind, within the namespace if it has one.
        pub name: String,
        /// A prefix for a name that the server makes up.
        pub generate_name: String,
        /// Empty for what is not namespaced.
        pub namespace: String,
        /// A UUID; another object of the same name has another one.
        pub uid: String,
        /// Opaque to users: the revision of the store that wrote it last.
        pub resource_version: String,
        /// Counts changes of the spec (Kubernetes only).
        pub generation: Option<i64>,
        /// RFC 3339.
        pub creation_timestamp: Option<String>,
        /// RFC 3339; set while finalizers hold the object.
        pub deletion_timestamp: Option<String>,
        /// Seconds.
        pub deletion_grace_period_seconds: Option<i64>,
        /// What selectors look at.
        pub labels: StringMap,
        /// What programs leave for each other.
        pub annotations: StringMap,
        /// Kept as they came.
        pub owner_references: Vec<serde_json::Value>,
        /// Who must let go before the object disappears.
        pub finalizers: Vec<String>,
        /// Kept as they came.
        pub managed_fields: Vec<serde_json::Value>,
    }
}

impl ObjectMeta {
    /// Of something global.
    pub fn named(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            ..Self::default()
        }
    }

    /// Of something in a namespace.
    pub fn namespaced(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            namespace: namespace.into(),
            ..Self::default()
        }
    }
}
