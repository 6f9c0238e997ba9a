//! The report of a check, as calicoctl writes and reads it.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A report. Fields of other programs' reports that are not used here are passed over.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Report {
    /// Of the program that wrote it.
    pub(super) version: String,
    /// Which cluster it is about.
    #[serde(rename = "clusterGUID")]
    pub(super) cluster_guid: String,
    /// Whether nothing could change meanwhile.
    pub(super) datastore_locked: bool,
    /// Tells whether the datastore was unlocked since.
    pub(super) cluster_information_revision: String,
    pub(super) cluster_type: String,
    /// Every address that is assigned or used.
    pub(super) allocations: BTreeMap<String, Vec<Allocation>>,
    pub(super) leaked_handles: Vec<LeakedHandle>,
    /// What does not add up, in words.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) problems: Vec<String>,
}

/// One assignment of an address.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Allocation {
    pub(super) ip: String,
    pub(super) handle: String,
    pub(super) sequence_number: u64,
    pub(super) pod: String,
    pub(super) namespace: String,
    pub(super) node: String,
    #[serde(rename = "type")]
    pub(super) kind: String,
    pub(super) creation_timestamp: String,
    pub(super) in_use: bool,
    pub(super) borrowed: bool,
    pub(super) cooling_down: bool,
    /// Who uses it.
    #[serde(deserialize_with = "null_is_none")]
    pub(super) owners: Vec<String>,
}

/// A handle without addresses.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct LeakedHandle {
    #[serde(rename = "ID")]
    pub(super) id: String,
    #[serde(rename = "UID")]
    pub(super) uid: Option<String>,
    pub(super) revision: String,
}

impl Allocation {
    /// What tells this assignment of the address from every other.
    pub(super) fn identity(&self) -> (&str, &str, u64) {
        (&self.ip, &self.handle, self.sequence_number)
    }

    /// Assigned and used by nobody.
    pub(super) fn is_leaked(&self) -> bool {
        !self.in_use && !self.cooling_down
    }
}

/// Go writes an empty list as `null`.
fn null_is_none<'de, D: serde::Deserializer<'de>>(d: D) -> Result<Vec<String>, D::Error> {
    Ok(Option::deserialize(d)?.unwrap_or_default())
}
