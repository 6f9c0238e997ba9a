//! What became of each endpoint.
//!
//! Promises: a report is never better than the truth: it turns [`State::Programmed`] after
//! the kernel took the last piece.
//! Never: decides anything.

use desired::WorkloadPolicy;
use std::fmt;
use std::sync::Arc;

/// What an endpoint still waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pending {
    /// The first complete state, or the apply under way.
    Apply,
    /// Its interface, which does not exist.
    NoInterface,
    /// Its interface, which is down.
    InterfaceDown,
}

impl fmt::Display for Pending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Apply => "waiting to be programmed",
            Self::NoInterface => "its interface does not exist",
            Self::InterfaceDown => "its interface is down",
        })
    }
}

/// How far an endpoint is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// Not there yet; until then its traffic is dropped.
    Pending(Pending),
    /// Rules are committed, the interface is set up, its routes are in the kernel.
    Programmed,
    /// The kernel refused something; it is tried again.
    Failed(String),
    /// It is gone from the desired state and not yet from the kernel.
    Removing,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pending(why) => why.fmt(f),
            Self::Programmed => f.write_str("programmed"),
            Self::Failed(why) => write!(f, "failed: {why}"),
            Self::Removing => f.write_str("being removed"),
        }
    }
}

/// An endpoint as last handed in, and how far it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// What is wanted.
    pub workload: Arc<WorkloadPolicy>,
    /// How far it is.
    pub state: State,
}
