//! Scenario files: a small cluster, what is applied to it, and what must then be reachable.
//!
//! Promises: a file is read whole or refused with file and line; the same scenario answered
//! from the resources alone ([`offline`]) or by packets has the same services and checks, and
//! one form of report.
//!
//! Never: does I/O (files come through [`Files`]), reads a clock, sends a packet.

mod check;
pub mod cluster;
mod ends;
pub mod offline;
pub mod plan;
pub mod random;
mod read;
pub mod report;
pub mod services;

pub use check::{Check, FamilyName, Flow, SourceIs};
pub use cluster::{Cluster, ClusterError};
pub use ends::{End, Port};
pub use read::{Files, Scenario, ScenarioError, Step, in_order, parse};
