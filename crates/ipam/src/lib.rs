//! Addresses: blocks, affinities and handles, in the format that Calico shares.
//!
//! Promises: no address is handed out twice and none is lost, whatever crashes between
//! two writes; every write is compare-and-swap; each state that a crash leaves behind is
//! one from which the next caller goes on. The stored JSON and keys are Calico's, so
//! nodes of both systems can share one pool.
//!
//! Never: reads a clock, draws a random number, does I/O of its own. Time and seeds are
//! arguments, the store is the trait [`Storage`], and a crash is a dropped future.
//!
//! Where to start: [`Ipam::auto_assign`] is what a pod's ADD runs, [`Ipam::release_by_handle`]
//! its DEL. [`Block`] holds the pure steps. The invariants are in `docs/design/ipam.md`.

mod affinity;
mod allocator;
mod block;
mod config;
mod error;
mod handle;
mod pool;
mod report;
mod reserved;
mod storage;
mod wire;

pub use affinity::{Affinity, AffinityState, Owner, OwnerKind};
pub use allocator::{
    AffinityRelease, AssignIp, Assignment, AutoAssign, AutoAssigned, Granted, Ipam, ReleaseArgs,
    ReleaseOutcome,
};
pub use block::{
    Assigned, Attribute, Block, MAX_BLOCK_ADDRESSES, ReleaseOption, Released,
    WINDOWS_RESERVED_HANDLE,
};
pub use config::{Config, DEFAULT_MAX_BLOCKS, MAX_COOLDOWN_SECONDS, config_key};
pub use error::Error;
pub use handle::{Handle, sanitize_handle};
pub use pool::{Candidate, IntendedUse, Pool, Refusal, candidates};
pub use report::{BlockUsage, Borrowed, CheckReport, PoolUsage, Problem, Snapshot};
pub use reserved::Reservations;
pub use storage::{Storage, StorageError, Stored};
