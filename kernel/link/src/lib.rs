//! Interfaces, addresses, neighbours, forwarding entries and their sysctls.
//!
//! Promises: the VXLAN device and its entries converge from any state with the fewest
//! operations, additions before removals, and an entry that moves is replaced in place;
//! a failed operation is reported by itself and the rest go on.
//!
//! Never: removes an entry of a device that is not ours; knows why a device is wanted.
//!
//! A [`Handle`] works on the namespace its socket was opened in. Its calls block for
//! microseconds, or for as long as somebody else holds the kernel's RTNL lock.

mod plan;
mod sys;
mod value;

pub use netlink::{Errno, NetlinkError};
pub use plan::{Op, Plan, VxlanActual, plan};
pub use sys::{Failure, Handle, Monitor, sysctl};
pub use value::{
    Address, Changes, Event, FdbEntry, Link, Neighbour, Scope, Sysctl, Veth, VethEnd, Vtep, Vxlan,
    VxlanDesired, host_end_sysctls, pod_end_sysctls,
};
