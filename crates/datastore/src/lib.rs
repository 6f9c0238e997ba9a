//! Where resources are kept, and how their changes reach everybody.
//!
//! Promises: every write is a compare-and-swap when asked to be; revisions
//! grow strictly over a whole store; a watch shows each change after its
//! starting revision once, in order, or says that it cannot; a bad object is
//! named and counts as absent.
//!
//! Never: interprets policy, caches what the store holds, or retries a write
//! that may already have happened.

pub mod embedded;
mod error;
pub mod memory;
mod store;

pub use error::StoreError;
pub use store::{Entry, Event, Listing, Pages, Precondition, Revision, Store, Watch};
