//! Routes of this node.
//!
//! Promises: converges to the desired routes from any state; additions come before
//! removals; a change of an own route is a replacement in place; each failed step is
//! reported by itself and is in the next plan again.
//!
//! Never: changes a route that [`Ownership`] does not claim; knows why a route is wanted.

mod plan;
mod sys;
mod value;

pub use netlink::{Errno, NetlinkError};
pub use plan::{Actual, Op, Plan, plan};
pub use sys::{Failure, Handle, Monitor, Seen};
pub use value::{
    Claim, Event, Hop, Kind, METRIC_V6, Ownership, Proto, Route, RouteKey, Scope, Table,
};
