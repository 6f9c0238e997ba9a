//! What can go wrong, with the words that operators search for.

use crate::pool::{Candidate, IntendedUse, Refusal};
use crate::storage::StorageError;
use net::{Cidr, Family};
use std::net::IpAddr;

/// Why an operation did not do all that was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The store failed. A write may or may not have happened; the same operation, or the
    /// release of the handle, may be called again.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// A stored object is not what it should be. Nothing was changed.
    #[error("{key} is malformed: {reason}")]
    BadObject {
        /// Its key.
        key: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Others changed the object again and again.
    #[error("{operation} {key}: max retries hit, excessive concurrent updates")]
    Contended {
        /// What was tried.
        operation: &'static str,
        /// On what.
        key: String,
    },
    /// An id or host name that cannot be part of a key.
    #[error("invalid {what} {text:?}: must not be empty or contain '/'")]
    InvalidName {
        /// Handle or host.
        what: &'static str,
        /// The text.
        text: String,
    },
    /// A pool asked for by name or CIDR is not there.
    #[error("the given pool ({pool}) does not exist, or is not an {family} pool")]
    UnknownPool {
        /// As asked for.
        pool: String,
        /// Of the request.
        family: Family,
    },
    /// A pool asked for by name or CIDR cannot be used.
    #[error("the given pool ({pool}) cannot be used: it {reason}")]
    UnusablePool {
        /// As asked for.
        pool: String,
        /// Why.
        reason: Refusal,
    },
    /// No pool serves the request.
    #[error(
        "no configured Calico pools for node {host} ({family}, {intended}){}",
        refusals(refused)
    )]
    NoPools {
        /// The node.
        host: String,
        /// Of the request.
        family: Family,
        /// Of the request.
        intended: IntendedUse,
        /// The pools of the family, and why each was passed over.
        refused: Vec<Candidate>,
    },
    /// The host may not claim another block.
    #[error(
        "cannot allocate new block due to per host block limit: {host} has {owned} {family} \
         blocks, all full, and the limit is {limit}; raise maxBlocksPerHost in IPAMConfiguration"
    )]
    BlockLimit {
        /// The node.
        host: String,
        /// Of the request.
        family: Family,
        /// Blocks it has.
        owned: usize,
        /// The limit.
        limit: u32,
    },
    /// Every address that the request may have is taken.
    #[error(
        "Assigned {assigned} out of {requested} requested {family} addresses; \
         No IPs available in pools: [{}]; {remedy}",
        pools.join(" ")
    )]
    Exhausted {
        /// Of the request.
        family: Family,
        /// How many there were.
        assigned: usize,
        /// How many were asked for.
        requested: usize,
        /// CIDRs of the pools that were searched.
        pools: Vec<String>,
        /// What an operator can do.
        remedy: &'static str,
    },
    /// The address is in no pool that may be used.
    #[error("the provided IP address {0} is not in a configured pool")]
    OutsidePools(IpAddr),
    /// The address belongs to somebody.
    #[error("address {address} is already assigned{}", holder.as_ref().map(|h| format!(" to {h}")).unwrap_or_default())]
    InUse {
        /// The address.
        address: IpAddr,
        /// Handle of the holder, if it has one.
        holder: Option<String>,
    },
    /// The address was freed a moment ago and rests.
    #[error("address {address} was released at {since} and is in its cool-down")]
    CoolingDown {
        /// The address.
        address: IpAddr,
        /// When it was released, RFC 3339.
        since: String,
    },
    /// Strict affinity, and the block is not the caller's.
    #[error("block {block} is owned by {}, and strict affinity is on", owner.as_deref().unwrap_or("nobody"))]
    NotOwner {
        /// The block.
        block: Cidr,
        /// Its owner, such as `host:node-1`.
        owner: Option<String>,
    },
    /// Nothing to read or release under this handle.
    #[error("handle {0} does not exist")]
    UnknownHandle(String),
    /// The address is not assigned.
    #[error("{0} is not assigned")]
    NotAssigned(IpAddr),
    /// A release that speaks of an older assignment of the address.
    #[error("{address}: bad sequence number: requested {requested}, expected {expected}")]
    BadSequenceNumber {
        /// The address.
        address: IpAddr,
        /// By the caller.
        requested: u64,
        /// As stored.
        expected: u64,
    },
    /// A release that names another holder.
    #[error("{address}: bad handle: requested {requested}, expected {}", expected.as_deref().unwrap_or("none"))]
    BadHandle {
        /// The address.
        address: IpAddr,
        /// By the caller.
        requested: String,
        /// As stored.
        expected: Option<String>,
    },
    /// A combination of settings that is not legal.
    #[error("invalid IPAM configuration: {0}")]
    InvalidConfig(&'static str),
}

fn refusals(refused: &[Candidate]) -> String {
    refused
        .iter()
        .map(|c| format!("; pool {} {}", c.pool, c.refusal))
        .collect()
}
