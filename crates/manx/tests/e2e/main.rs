//! The finished binary against the real kernel: agents and plugins as processes, nodes and
//! containers as network namespaces of their own, objects in a store in a temporary directory.
//!
//! Nothing sleeps: a test waits for what it expects, with a deadline.

mod chain;
mod cni;
mod confirm;
mod halfway;
mod health;
mod nodes;
mod pods;
mod policy;
mod probe;
mod restart;
mod support;
