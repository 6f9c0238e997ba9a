//! The small values that every other crate speaks: address family, prefix,
//! MAC, port range, protocol number, interface name.
//!
//! Promises: every value is valid by construction (a [`Cidr`] has no host bits,
//! an [`IfName`] fits the kernel), parses from and prints as the text that
//! operators write, and treats IPv4 and IPv6 by one code path.
//!
//! Never: does I/O, knows a resource, depends on another crate of ours.

mod addr;
mod cidr;
mod link;
mod map;
mod port;

pub use addr::{Asn, Family, Mac, ParseError};
pub use cidr::Cidr;
pub use link::{IfIndex, IfName};
pub use map::{CoverSet, PrefixMap};
pub use port::{PortRange, Protocol};
