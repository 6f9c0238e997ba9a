//! The crate through its public face: documents in, resources, texts, errors and model out.

mod convert_cluster_policies;
mod convert_objects;
mod convert_pods;
mod convert_policies;
mod convert_services_and_bgp;
mod documents;
mod exercise;
mod printing;
mod robustness;
mod validation;
mod validation_kinds;

use api::{Resource, ResourceKind};

/// The one resource in a text that has no fault.
pub fn one(text: &str) -> Resource {
    let mut found = api::parse_documents(text, "test");
    assert_eq!(found.len(), 1, "documents in {text}");
    found.remove(0).unwrap_or_else(|e| panic!("{e}\n{text}")).0
}

/// The same, with defaults.
pub fn defaulted(text: &str) -> Resource {
    let mut r = one(text);
    api::default(&mut r);
    r
}

/// `kind: X` with `rest` as its YAML, under the API version that Calico's kinds have.
pub fn v3(kind: ResourceKind, rest: &str) -> String {
    let i = kind.info();
    format!("apiVersion: {}\nkind: {}\n{rest}", i.api_version, i.kind)
}

/// The only update of the resource in a text.
pub fn update(text: &str) -> model::Update {
    let r = defaulted(text);
    let mut found = api::updates(&r).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(found.len(), 1, "updates of {r}");
    found.remove(0)
}
