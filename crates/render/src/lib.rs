//! Desired state rendered as values of the kernel rooms.
//!
//! Promises: what comes out is a function of the desired state alone, whatever deltas led
//! there; the work of a step is in proportion to the step; an interface, profile or set
//! that is not known is closed.
//!
//! Never: does I/O, reads a clock, knows what the kernel holds.

mod answers;
mod arp;
mod base;
mod changes;
mod endpoint;
mod features;
mod fold;
mod hosthooks;
mod hosts;
mod library;
mod name;
mod policy;
mod record;
mod renderer;
mod role;
mod rule;
mod stacks;
mod translate;

pub use changes::{Changes, Interface, NodeSysctl, Route, RouteVia, TableEdit};
pub use hosts::Interfaces;
pub use renderer::Renderer;

/// The bit of the packet mark that a Pass leaves for the endpoint's chain: the second
/// lowest of Calico's default mask 0xffff0000, where Calico has it too.
pub const PASS_MARK: u32 = 0x0002_0000;

/// The bit of the packet mark on what may pass the host without more questions: it was allowed
/// before tracking, or before its destination was translated. Calico's accept bit.
pub const ACCEPT_MARK: u32 = 0x0001_0000;

/// The bit of the packet mark on what the host sends to a translated destination, between the
/// output and the postrouting hook. Calico's first scratch bit.
pub const TRANSLATED_MARK: u32 = 0x0008_0000;

/// Protocol number of routes that are ours by their number alone (`ip route ... proto 80`).
pub const ROUTE_PROTOCOL: u8 = 80;
