//! Address pools, and which of them a request may draw from.

use crate::error::Error;
use net::{Cidr, Family};
use std::fmt;

/// What an address is wanted for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum IntendedUse {
    /// A pod or another workload.
    Workload,
    /// A node's tunnel device.
    Tunnel,
    /// A service of type LoadBalancer.
    LoadBalancer,
}

impl fmt::Display for IntendedUse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Workload => "Workload",
            Self::Tunnel => "Tunnel",
            Self::LoadBalancer => "LoadBalancer",
        })
    }
}

/// A pool, with its selectors already evaluated by the caller for this request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pool {
    /// The resource's name.
    pub name: String,
    /// All its addresses.
    pub cidr: Cidr,
    /// Prefix length of its blocks: 20 to 32 or 116 to 128.
    pub block_size: u8,
    /// `spec.disabled`: nothing new comes from it.
    pub disabled: bool,
    /// It has a deletion timestamp.
    pub deleting: bool,
    /// Its condition `Allocatable` is not False.
    pub allocatable: bool,
    /// Its nodeSelector matches the requesting node.
    pub node_selected: bool,
    /// Its namespaceSelector matches the workload's namespace, or it has none.
    pub namespace_selected: bool,
    /// `spec.assignmentMode` is Automatic.
    pub assignment_automatic: bool,
    /// `spec.allowedUses`.
    pub allowed_uses: Vec<IntendedUse>,
}

impl Pool {
    /// A pool with the defaults of the API: enabled, automatic, for all nodes and
    /// namespaces, for workloads and tunnels, /26 or /122 blocks.
    pub fn new(name: impl Into<String>, cidr: Cidr) -> Self {
        Self {
            name: name.into(),
            cidr,
            block_size: match cidr.family() {
                Family::V4 => 26,
                Family::V6 => 122,
            },
            disabled: false,
            deleting: false,
            allocatable: true,
            node_selected: true,
            namespace_selected: true,
            assignment_automatic: true,
            allowed_uses: vec![IntendedUse::Workload, IntendedUse::Tunnel],
        }
    }

    /// Whether its block size is one that the API allows and that fits its CIDR.
    pub fn has_valid_blocks(&self) -> bool {
        let least = match self.cidr.family() {
            Family::V4 => 20,
            Family::V6 => 116,
        };
        (least..=self.cidr.family().bits()).contains(&self.block_size)
            && self.cidr.len() <= self.block_size
    }

    /// Whether new addresses may come from it at all.
    pub fn is_enabled(&self) -> bool {
        !self.disabled && !self.deleting && self.allocatable
    }

    /// The block of this pool that holds `addr`.
    pub fn block_of(&self, addr: std::net::IpAddr) -> Option<Cidr> {
        if !self.cidr.contains(addr) || !self.has_valid_blocks() {
            return None;
        }
        Cidr::new(addr, self.block_size)
    }
}

/// Why a pool was passed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// `spec.disabled`.
    Disabled,
    /// Being deleted.
    Deleting,
    /// Condition Allocatable is False.
    NotAllocatable,
    /// assignmentMode is Manual and the request does not name it.
    Manual,
    /// nodeSelector does not match.
    NodeSelector,
    /// namespaceSelector does not match.
    NamespaceSelector,
    /// allowedUses lacks this use.
    Use(IntendedUse),
    /// Its block size is out of range.
    BlockSize,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Disabled => f.write_str("is disabled"),
            Self::Deleting => f.write_str("is being deleted"),
            Self::NotAllocatable => f.write_str("is not allocatable, see its status conditions"),
            Self::Manual => f.write_str("has assignmentMode Manual and must be asked for by name"),
            Self::NodeSelector => f.write_str("has a nodeSelector that does not match this node"),
            Self::NamespaceSelector => {
                f.write_str("has a namespaceSelector that does not match the namespace")
            }
            Self::Use(u) => write!(f, "does not have {u} in its allowedUses"),
            Self::BlockSize => f.write_str("has an invalid blockSize"),
        }
    }
}

/// A pool that was considered: usable, or refused with the first reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// Its name.
    pub pool: String,
    /// Why not.
    pub refusal: Refusal,
}

fn refusal(p: &Pool, explicit: bool, intended: IntendedUse) -> Option<Refusal> {
    if p.disabled {
        Some(Refusal::Disabled)
    } else if p.deleting {
        Some(Refusal::Deleting)
    } else if !p.allocatable {
        Some(Refusal::NotAllocatable)
    } else if !p.has_valid_blocks() {
        Some(Refusal::BlockSize)
    } else if !explicit && !p.assignment_automatic {
        Some(Refusal::Manual)
    } else if !explicit && !p.node_selected {
        Some(Refusal::NodeSelector)
    } else if !explicit && !p.namespace_selected {
        Some(Refusal::NamespaceSelector)
    } else if !p.allowed_uses.contains(&intended) {
        Some(Refusal::Use(intended))
    } else {
        None
    }
}

/// The pools that a request may draw from, in the order in which it should.
///
/// With `explicit` (names or CIDRs) these and no others, in that order, whatever their
/// selectors and assignment mode say; without, all that select the request, by name.
///
/// # Errors
/// [`Error::UnknownPool`] and [`Error::UnusablePool`] for explicit pools,
/// [`Error::NoPools`] with every refusal when nothing is left.
pub fn candidates<'p>(
    pools: &'p [Pool],
    family: Family,
    explicit: Option<&[String]>,
    intended: IntendedUse,
    host: &str,
) -> Result<Vec<&'p Pool>, Error> {
    let mut usable: Vec<&Pool> = Vec::new();
    let mut refused = Vec::new();
    if let Some(wanted) = explicit.filter(|w| !w.is_empty()) {
        for want in wanted {
            let cidr = want.parse::<Cidr>().ok();
            let found = pools
                .iter()
                .find(|p| p.name == *want || Some(p.cidr) == cidr);
            let p =
                found
                    .filter(|p| p.cidr.family() == family)
                    .ok_or_else(|| Error::UnknownPool {
                        pool: want.clone(),
                        family,
                    })?;
            match refusal(p, true, intended) {
                None if !usable.contains(&p) => usable.push(p),
                None => {}
                Some(reason) => {
                    return Err(Error::UnusablePool {
                        pool: want.clone(),
                        reason,
                    });
                }
            }
        }
        return Ok(usable);
    }
    for p in pools.iter().filter(|p| p.cidr.family() == family) {
        match refusal(p, false, intended) {
            None => usable.push(p),
            Some(refusal) => refused.push(Candidate {
                pool: p.name.clone(),
                refusal,
            }),
        }
    }
    if usable.is_empty() {
        return Err(Error::NoPools {
            host: host.to_owned(),
            family,
            intended,
            refused,
        });
    }
    usable.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(usable)
}
