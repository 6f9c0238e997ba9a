//! BGP with sockets: peers, listeners, what is learned and told.
//!
//! Promises: one thread, whatever the number of peers; a change of configuration touches the sessions
//! that it is about and no others; a peer that does not read holds up nobody and is bounded in memory;
//! when it ends without a word, as by a crash, peers that know graceful restart keep forwarding.
//!
//! Never: decides about routes (`bgp` does) or about who is a peer (`peering` does).

mod apply;
mod bfd;
mod bmp;
mod command;
mod conns;
mod control;
mod engine;
mod file;
mod handle;
mod health;
mod hops;
mod kernel;
mod metrics;
mod mrt;
mod poll;
mod sockets;

pub use crate::bfd::{Bfd, BfdReport};
pub use bmp::{Station, StationError, StationStatus};
pub use command::{SpeakerArgs, main};
pub use control::{Control, ControlError, DIRECTORY, readiness};
pub use engine::{Kernel, Settings, View};
pub use file::{Content, FileError};
pub use handle::{Gone, Handle};
pub use health::report_health;
pub use sockets::SocketError;
