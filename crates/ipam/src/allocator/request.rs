//! What a request for addresses says, and what it gets.

use crate::affinity::Owner;
use crate::block::Assigned;
use crate::config::Config;
use crate::error::Error;
use crate::pool::{IntendedUse, Pool};
use crate::reserved::Reservations;
use jiff::Timestamp;
use net::Cidr;
use std::collections::BTreeMap;
use std::net::IpAddr;

/// What both ways of assigning share.
#[derive(Debug, Clone, Copy)]
pub struct Assignment<'a> {
    /// Whom the addresses are for: the container's, tunnel's or service's handle id.
    pub handle: &'a str,
    /// Stored with the addresses: `pod`, `namespace`, `node`, `type`, `timestamp` ...
    pub attrs: &'a BTreeMap<String, String>,
    /// Who owns the blocks they come from: the node, or `virtual:load-balancer`.
    pub owner: &'a Owner,
    /// All pools of the cluster, usable or not.
    pub pools: &'a [Pool],
    /// All reserved CIDRs of the cluster.
    pub reservations: &'a Reservations,
    /// The cluster's configuration where the caller knows it; saves a read.
    pub config: Option<&'a Config>,
    /// The time.
    pub now: Timestamp,
}

/// A request for some addresses of either family.
#[derive(Debug, Clone, Copy)]
pub struct AutoAssign<'a> {
    /// Holder, owner, pools and time.
    pub common: Assignment<'a>,
    /// How many IPv4 addresses.
    pub count_v4: usize,
    /// How many IPv6 addresses.
    pub count_v6: usize,
    /// Names or CIDRs of the only IPv4 pools to use; none or empty means all that select.
    pub pools_v4: Option<&'a [String]>,
    /// The same for IPv6.
    pub pools_v6: Option<&'a [String]>,
    /// What the addresses are for.
    pub intended_use: IntendedUse,
    /// A limit of blocks below the configured one.
    pub max_blocks: Option<u32>,
    /// Blocks that the owner is known to own, tried first without listing its affinities.
    /// A wrong guess costs one read.
    pub known_blocks: &'a [Cidr],
    /// Any number, different from request to request.
    pub seed: u64,
}

/// A request for one address.
#[derive(Debug, Clone, Copy)]
pub struct AssignIp<'a> {
    /// Holder, owner, pools and time.
    pub common: Assignment<'a>,
    /// The address.
    pub address: IpAddr,
    /// When given, the pool's allowedUses must contain it.
    pub intended_use: Option<IntendedUse>,
}

/// What one family of a request got.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Granted {
    /// How many addresses were asked for.
    pub requested: usize,
    /// The addresses.
    pub ips: Vec<Assigned>,
    /// Why there are fewer than requested.
    pub error: Option<Error>,
}

impl Granted {
    /// Whether all that was asked for is there.
    pub fn is_complete(&self) -> bool {
        self.ips.len() >= self.requested
    }
}

/// What a request got. Addresses of one family stay assigned when the other fails; who
/// needs both gives them back with [`Ipam::undo`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[must_use = "addresses that nobody looks at are leaked"]
pub struct AutoAssigned {
    /// IPv4.
    pub v4: Granted,
    /// IPv6.
    pub v6: Granted,
}

impl AutoAssigned {
    /// Whether both families got what was asked for.
    pub fn is_complete(&self) -> bool {
        self.v4.is_complete() && self.v6.is_complete()
    }

    /// All addresses, IPv4 first.
    pub fn ips(&self) -> impl Iterator<Item = Assigned> {
        self.v4.ips.iter().chain(&self.v6.ips).copied()
    }

    /// The first family's error.
    pub fn error(&self) -> Option<&Error> {
        self.v4.error.as_ref().or(self.v6.error.as_ref())
    }
}
