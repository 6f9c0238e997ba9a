//! The stored form: what is written under an object's key and read back.
//!
//! Promises: reading passes over what it does not know; names come from the key where the
//! object has none; Calico's annotation on stored policies is added on writing and taken off
//! on reading.

use crate::error::BadObject;
use crate::kind::{ResourceKey, key};
use crate::resource::{Resource, ResourceKind};

/// Where stored policies keep their name.
const METADATA_ANNOTATION: &str = "projectcalico.org/metadata";

const fn is_policy(kind: ResourceKind) -> bool {
    matches!(
        kind,
        ResourceKind::NetworkPolicy
            | ResourceKind::GlobalNetworkPolicy
            | ResourceKind::StagedNetworkPolicy
            | ResourceKind::StagedGlobalNetworkPolicy
    )
}

/// The bytes to store for an object: JSON without resource version.
///
/// # Errors
/// Only where a value has no JSON form, such as an order that is not a number.
pub fn encode(resource: &Resource) -> Result<Vec<u8>, BadObject> {
    let mut r = resource.clone();
    let kind = r.kind();
    let meta = r.meta_mut();
    meta.resource_version.clear();
    if is_policy(kind) {
        let name = serde_json::json!({ "name": meta.name }).to_string();
        meta.annotations
            .insert(METADATA_ANNOTATION.to_owned(), name);
    }
    serde_json::to_vec(&r).map_err(|e| BadObject {
        object: resource.to_string(),
        reason: e.to_string(),
    })
}

/// The object in stored bytes. `revision` becomes its resource version.
///
/// # Errors
/// When the bytes are no JSON object of that kind.
pub fn decode(
    at: &ResourceKey<'_>,
    bytes: &[u8],
    revision: Option<&str>,
) -> Result<Resource, BadObject> {
    let mut d = serde_json::Deserializer::from_slice(bytes);
    let read = at.kind.read(&mut d).and_then(|r| d.end().map(|()| r));
    let mut r = read.map_err(|e| BadObject {
        object: key(at.kind, at.namespace, at.name),
        reason: e.to_string(),
    })?;
    let meta = r.meta_mut();
    if meta.name.is_empty() {
        at.name.clone_into(&mut meta.name);
    }
    if let (Some(ns), true) = (at.namespace, meta.namespace.is_empty()) {
        ns.clone_into(&mut meta.namespace);
    }
    if let Some(rev) = revision {
        rev.clone_into(&mut meta.resource_version);
    }
    if is_policy(at.kind) {
        meta.annotations.remove(METADATA_ANNOTATION);
    }
    Ok(r)
}
