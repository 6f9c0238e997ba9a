//! The stored records, a file for each group of kinds.

pub mod bgp;
pub mod cluster_policy;
pub mod config;
pub mod controllers;
pub mod endpoint;
pub mod ipam;
pub mod kube;
pub mod node;
pub mod node_status;
pub mod policy;
pub mod pool;
pub mod service;
pub mod sets;
