//! Resources in, one node's BGP sessions, routes and route policy out.
//!
//! Promises: what Calico's own configuration of its BGP daemon would say of the same resources:
//! whom to speak with, who calls whom, what is announced and what is believed; a resource that
//! cannot be followed is named in [`Plan::faults`] and leaves the others alone.
//!
//! Never: opens a socket, reads a secret, knows the kernel or a clock.

mod peers;
mod policy;
mod routes;
mod world;

pub use peers::{Peer, PeerOrigin};
pub use policy::METRIC_BASE;
pub use routes::{Kernel, Own, Programs, Tunnelled};
pub use world::{Plan, Speaker, World};
