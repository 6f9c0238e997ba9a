//! The CNI and IPAM plugins: thin clients of the node agent.
//!
//! Promises: speaks CNI 0.3.0 to 1.1.0 exactly, in the version that the
//! configuration asks for; starts no async runtime and opens no datastore; each
//! failure is a CNI error that names the object and the remedy; with no agent it says
//! so with code 11 (try again later), or 50 for STATUS.
//!
//! Never: allocates an address or programs the kernel itself. The agent does, on the
//! other side of [`protocol`], where blocks and pools are warm.

pub mod conf;
mod delegate;
pub mod error;
pub mod plugin;
pub mod protocol;
pub mod result;

/// The versions of the specification that are spoken, oldest first.
pub const VERSIONS: [&str; 5] = ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];
