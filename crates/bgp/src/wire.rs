//! How messages are read and written.
//!
//! Promises: reading borrows prefixes from the buffer, allocates for attributes alone, and
//! never panics; writing packs as many prefixes beside one set of attributes as the
//! session's greatest message holds. Never: looks past the message it is given.

mod nlri;

pub use nlri::{NlriBlock, NlriIter};
