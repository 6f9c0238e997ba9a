//! Bidirectional forwarding detection (RFC 5880) without sockets or clocks: packets, and the state of
//! one session in asynchronous mode.
//!
//! Promises: any bytes are met as RFC 5880, section 6.8.6 says; the same events give the same
//! packets at the same times.
//!
//! Never: opens a socket, reads a clock or a random source. Neither demand mode nor the echo
//! function is offered (both are optional), nor authentication: a packet that carries it is
//! discarded, as section 6.8.6 wants for a session without.

mod packet;
mod session;

pub use packet::{Diagnostic, Packet, PacketError, State};
pub use session::{Config, Received, Sent, Session};

/// UDP port of control packets to a neighbour on the same link (RFC 5881).
pub const PORT_SINGLE_HOP: u16 = 3784;
/// UDP port of control packets over several hops (RFC 5883).
pub const PORT_MULTI_HOP: u16 = 4784;
