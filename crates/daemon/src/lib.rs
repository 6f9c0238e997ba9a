//! What every long-running process needs: configuration, logs, metrics, health, an end.
//!
//! Promises: each parameter is a row of one table, with its name, type, default and
//! meaning; a value that cannot be is reported with its source and never takes effect;
//! who is not ready says why.
//!
//! Never: knows a resource, a datastore or a kernel; those hand in plain texts.

pub mod env;
pub mod files;
pub mod health;
pub mod http;
pub mod logging;
pub mod memory;
pub mod metrics;
pub mod node;
pub mod params;
mod shutdown;
pub mod store;

pub use health::Health;
pub use metrics::Metrics;
pub use node::NodeEnv;
pub use params::FelixParams;
pub use shutdown::Shutdown;
pub use store::StoreConfig;
