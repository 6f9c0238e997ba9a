//! Netlink sockets, framing and errno; network namespaces.
//!
//! Promises: a socket opens in the caller's network namespace or in any other
//! without moving the caller's thread; each request ends with the kernel's own
//! verdict, as errno and extended-ack text, named after the operation; a dump is
//! whole or an error; a lost notification shows as [`Received::Overrun`].
//!
//! Never: knows what a route, a link or a rule is wanted for; starts a process.
//!
//! rtnetlink requests here are plain blocking calls. The kernel does all the work of
//! a request inside `sendmsg`, so the answer waits in the socket when the call
//! returns: awaiting would add a wake-up and save nothing. Because of that the
//! rooms work in a plain thread of any namespace, with no runtime, and equally
//! inside a current-thread one. Only notifications are awaited.

mod error;
pub mod netns;
pub mod nft;
mod socket;
pub mod wire;

pub use error::{Cause, Errno, NetlinkError};
pub use socket::{Buffers, EventSocket, Protocol, Received, Seen, Socket, set_buffers};
