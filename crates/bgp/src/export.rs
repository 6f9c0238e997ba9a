//! What peers are told: export rules, update groups, and the packing of messages.
//!
//! Promises: peers for which a route always comes out the same share one group, which holds
//! one record of what they were told and encodes each message once; a withdrawal goes only
//! to who had the route. Never: copies a route for a peer.

mod group;
mod rules;

pub use group::{Audience, Batch, Group, Member};
pub use rules::{Blocked, ExportKey, Reader};
