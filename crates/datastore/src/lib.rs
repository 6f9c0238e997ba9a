//! Where resources are kept, and how their changes reach everybody.
//!
//! Promises: every write is a compare-and-swap when asked to be; revisions
//! grow strictly over a whole store; a watch shows each change after its
//! starting revision once, in order, or says that it cannot; a bad object is
//! named and counts as absent.
//!
//! Never: interprets policy, caches what the store holds, or retries a write
//! that may already have happened.

mod client;
pub mod embedded;
mod error;
mod init;
mod ipam_store;
pub mod memory;
pub mod pending;
mod store;
mod syncer;

pub use client::{Client, ClientError, Delete, Listed, keep_written};
pub use error::StoreError;
pub use init::init;
pub use ipam_store::IpamStore;
pub use store::{Entry, Event, Listing, Pages, Precondition, Revision, Store, Watch};
pub use syncer::{Backoff, PREFIXES, SyncEvent, Syncer};

use std::path::Path;
use std::sync::Arc;

/// Opens the embedded store in a file, or one in memory when there is none.
///
/// # Errors
/// As [`embedded::Store::open`].
pub fn open(path: Option<&Path>) -> Result<Arc<dyn Store>, StoreError> {
    Ok(match path {
        Some(path) => Arc::new(embedded::Store::open(path)?),
        None => Arc::new(memory::Store::new()),
    })
}
