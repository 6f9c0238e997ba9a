//! What every long-running process needs: configuration, logs, metrics, health, a clean end.
//!
//! Promises: an answer about health is never better than the truth and says what is
//! missing; a stop is asked for once and heard by everybody.
//!
//! Never: knows a resource or a kernel object.

mod health;
mod shutdown;
mod telemetry;

pub use health::{Component, Health, Verdict};
pub use shutdown::Shutdown;
pub use telemetry::{Registry, ServeError, serve_health, serve_metrics};
