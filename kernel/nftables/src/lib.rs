//! Rulesets, sets, maps and transactions of nf_tables: one table of family `inet` or `arp`.
//!
//! Promises: converges to the desired table from whatever the kernel holds, touching only what
//! differs; all of a plan takes effect at once or not at all; a failed plan stays in the next
//! one. A restart diffs and flushes nothing, so counters survive.
//! Never: touches a table that is not ours, knows why a rule is wanted, executes `nft`.

mod field;
mod lower;
mod members;
pub mod nflog;
mod plan;
mod print;
mod read;
mod set;
mod sys;
mod table;
mod value;

pub use members::Members;
pub use netlink::nft::{Notice, conntrack};
pub use plan::{
    Dump, Incomplete, LiveBase, LiveChain, LiveRule, LiveSet, Object, Op, Plan, Receipt, RuleId,
};
pub use read::parse_dump;
pub use sys::{ApplyError, Fault, Sys};
pub use table::Table;
pub use value::*;
