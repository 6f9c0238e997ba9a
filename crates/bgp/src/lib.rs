//! BGP without sockets or clocks: messages, sessions, tables, decisions.
//!
//! Promises: every byte from a peer is met as RFC 4271 and RFC 7606 say, and no input
//! panics; the same events in the same order give the same outputs.
//!
//! Never: opens a socket, reads a clock or a random source, logs.
