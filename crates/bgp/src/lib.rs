//! BGP without sockets or clocks: messages, sessions, tables, decisions.
//!
//! Promises: every byte from a peer is met as RFC 4271 and RFC 7606 say, and no input
//! panics; the same events in the same order give the same outputs.
//!
//! Never: opens a socket, reads a clock or a random source, logs.
//!
//! Where to start: [`types`] has the small values, [`attr`] what a route carries,
//! [`caps`] what two speakers agree on, [`message`] what goes over the wire, [`wire`] how
//! it is read and written, [`error`] what can be wrong with it.

pub mod attr;
pub mod caps;
pub mod decision;
pub mod error;
pub mod export;
pub mod fsm;
pub mod message;
pub mod peer;
pub mod policy;
pub mod rib;
pub mod router;
pub mod types;
pub mod wire;

pub use net::{Asn, Cidr, Family};
