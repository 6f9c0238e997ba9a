//! Stored types, their validation and their conversion into the model.
//!
//! Promises: Calico's and Kubernetes' JSON and YAML are read and written as their own
//! programs do; every violation in an object is reported at once, by field, value and reason,
//! in the words that users know; what is valid converts into [`model`] without fail.
//!
//! Never: does I/O, reads a clock, or keeps state between calls.

pub mod annotations;
mod columns;
pub mod convert;
mod defaults;
pub mod error;
pub mod felix;
mod kind;
pub mod kinds;
mod meta;
mod output;
mod parse;
mod resource;
mod risk;
mod stored;
mod validate;
mod wire;

pub use columns::{columns, row, row_with_asn};
pub use convert::{
    Conversion, absent, builtin_tiers, builtin_updates, default_allow_profile, updates,
    updates_for_key,
};
pub use defaults::default;
pub use error::{BadObject, DocError, DocProblem, Invalid, Position, Violation};
pub use kind::{KindInfo, ResourceKey, V3, key, list_prefix, parse_key};
pub use meta::{ObjectMeta, StringMap};
pub use output::{to_json, to_json_list, to_yaml, to_yaml_list, yaml};
pub use parse::{Parsed, parse_documents};
pub use resource::{Resource, ResourceKind};
pub use risk::{Closed, closed_hosts};
pub use stored::{decode, encode};
pub use validate::{pool_overlap, validate, validate_delete, validate_update};
pub use wire::{AsNumber, LooseBool, NumOrString, Number, Port};
