//! The stored records, a file for each group of kinds.

pub mod config;
pub mod endpoint;
pub mod ipam;
pub mod kube;
pub mod node;
pub mod policy;
pub mod pool;
pub mod sets;
