//! What is in use, and what does not add up.
//!
//! Promises: one listing of everything, then pure questions. A listing is not a
//! transaction: operations that run meanwhile can look like problems, so who acts on a
//! report acts on a second one too, by handle and sequence number.

use crate::affinity::{Affinity, AffinityState, Owner};
use crate::allocator::Ipam;
use crate::block::{Assigned, Attribute, Block};
use crate::error::Error;
use crate::handle::Handle;
use crate::pool::Pool;
use crate::reserved::Reservations;
use crate::storage::Storage;
use jiff::Timestamp;
use net::{Cidr, Family};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// Everything that IPAM has stored.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// All blocks, rested addresses already free.
    pub blocks: Vec<Block>,
    /// All affinities.
    pub affinities: Vec<(Owner, Cidr, Affinity)>,
    /// All handles by id, and the revision of each.
    pub handles: BTreeMap<String, (Handle, u64)>,
    /// Keys and reasons of objects that cannot be read.
    pub malformed: Vec<(String, String)>,
}

/// How full a block is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockUsage {
    /// The block.
    pub cidr: Cidr,
    /// Its owner, as stored.
    pub owner: Option<String>,
    /// All addresses.
    pub total: u128,
    /// Held by somebody.
    pub in_use: u128,
    /// Neither held nor to be had, because reserved.
    pub reserved: u128,
    /// Released and resting.
    pub cooling: u128,
    /// To be had now.
    pub free: u128,
}

/// How full a pool is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolUsage {
    /// The pool's name.
    pub name: String,
    /// Its addresses.
    pub cidr: Cidr,
    /// All addresses.
    pub total: u128,
    /// Held by somebody.
    pub in_use: u128,
    /// Neither held nor to be had, because reserved.
    pub reserved: u128,
    /// Released and resting.
    pub cooling: u128,
    /// To be had now.
    pub free: u128,
    /// Its blocks, in order.
    pub blocks: Vec<BlockUsage>,
}

/// An address that a node uses from another's block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Borrowed {
    /// The address.
    pub address: IpAddr,
    /// The node that uses it.
    pub node: String,
    /// The block.
    pub block: Cidr,
    /// Who owns the block, as stored.
    pub owner: Option<String>,
    /// Handle and attributes.
    pub attribute: Attribute,
}

/// Something that does not add up.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// An object that cannot be read.
    #[error("{key} is malformed: {reason}")]
    Malformed {
        /// Its key.
        key: String,
        /// What is wrong with it.
        reason: String,
    },
    /// No address is behind a handle.
    #[error("handle {id} has no addresses: leaked")]
    LeakedHandle {
        /// The handle.
        id: String,
        /// Its revision.
        rev: u64,
    },
    /// A handle counts more than there are; harmless, the last release mends it.
    #[error("handle {id} counts {counted} addresses in {block}, which has {real}")]
    OverCount {
        /// The handle.
        id: String,
        /// The block.
        block: Cidr,
        /// By the handle.
        counted: u64,
        /// In the block.
        real: u64,
    },
    /// A handle counts fewer than there are: releasing it would leak the rest.
    #[error("handle {id} counts {counted} addresses in {block}, but it has {real}")]
    UnderCount {
        /// The handle.
        id: String,
        /// The block.
        block: Cidr,
        /// By the handle.
        counted: u64,
        /// In the block.
        real: u64,
    },
    /// An address that is held by nobody who could release it.
    #[error("address {address} is assigned without a handle")]
    NoHandle {
        /// The address.
        address: IpAddr,
    },
    /// A confirmed claim on what is not there.
    #[error("{owner} has an affinity to {cidr}, which does not exist")]
    AffinityWithoutBlock {
        /// Whose affinity.
        owner: Owner,
        /// The block.
        cidr: Cidr,
    },
    /// A confirmed claim on what is somebody else's.
    #[error("{owner} has an affinity to {cidr}, which is owned by {}", actual.as_deref().unwrap_or("nobody"))]
    WrongOwner {
        /// Whose affinity.
        owner: Owner,
        /// The block.
        cidr: Cidr,
        /// Its owner, as stored.
        actual: Option<String>,
    },
    /// A claim or release that has not come to its end; the owner's next request does.
    #[error("the affinity of {owner} to {cidr} is unfinished")]
    Unfinished {
        /// Whose affinity.
        owner: Owner,
        /// The block.
        cidr: Cidr,
    },
    /// A block that names an owner which has no affinity to it: it gets no routes.
    #[error("block {cidr} is owned by {owner}, which has no affinity to it")]
    BlockWithoutAffinity {
        /// The block.
        cidr: Cidr,
        /// Its owner, as stored.
        owner: String,
    },
    /// Two blocks share addresses.
    #[error("blocks {inner} and {outer} overlap")]
    Overlap {
        /// The smaller.
        inner: Cidr,
        /// The larger.
        outer: Cidr,
    },
    /// A block that no pool contains.
    #[error("block {cidr} is in no pool")]
    OutsidePools {
        /// The block.
        cidr: Cidr,
    },
}

/// What a check found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CheckReport {
    /// Every address that is held, with its holder, in order.
    pub addresses: Vec<(Assigned, Attribute)>,
    /// What does not add up.
    pub problems: Vec<Problem>,
}

impl<S: Storage> Ipam<S> {
    /// Lists everything.
    ///
    /// # Errors
    /// [`Error::Storage`], [`Error::BadObject`] for the configuration.
    pub async fn snapshot(&self, now: Timestamp) -> Result<Snapshot, Error> {
        let cooldown = self.config().await?.ip_cooldown_seconds;
        let mut out = Snapshot::default();
        // Blocks before handles: a count is raised before its address is assigned, so an
        // assignment that runs meanwhile looks like an over-count, never an under-count.
        for family in Family::BOTH {
            let (blocks, broken) = self.list_blocks(family).await?;
            out.malformed.extend(broken);
            out.blocks.extend(blocks.into_iter().map(|mut b| {
                b.value.collect(now, cooldown);
                b.value
            }));
        }
        out.blocks.sort_by_key(Block::cidr);
        out.affinities = self.all_affinities().await?;
        for s in self.store().list(&Handle::prefix()).await? {
            match (Handle::parse_key(&s.key), Handle::decode(&s.value)) {
                (None, _) => {}
                (_, Err(e)) => out.malformed.push((s.key, e.to_string())),
                (Some(_), Ok(h)) if h.deleted => {}
                (Some(id), Ok(h)) => {
                    out.handles.insert(id.to_owned(), (h, s.rev));
                }
            }
        }
        Ok(out)
    }
}

fn block_usage(b: &Block, reserved: &Reservations) -> BlockUsage {
    let total = b.size() as u128;
    let in_use = b.held().count() as u128;
    let cooling = b.cooling().count() as u128;
    let free = b.free(reserved) as u128;
    BlockUsage {
        cidr: b.cidr(),
        owner: b.affinity().map(str::to_owned),
        total,
        in_use,
        cooling,
        free,
        reserved: total - in_use - cooling - free,
    }
}

impl Snapshot {
    /// How full each pool is, with its blocks.
    pub fn usage(&self, pools: &[Pool], reserved: &Reservations) -> Vec<PoolUsage> {
        let of = |p: &Pool| {
            let blocks: Vec<BlockUsage> = self
                .blocks
                .iter()
                .filter(|b| p.cidr.covers(b.cidr()))
                .map(|b| block_usage(b, reserved))
                .collect();
            let sum = |f: fn(&BlockUsage) -> u128| blocks.iter().map(f).sum::<u128>();
            let (total, in_use, cooling) = (p.cidr.size(), sum(|b| b.in_use), sum(|b| b.cooling));
            let outside = blocks
                .iter()
                .map(|b| reserved.count_in(b.cidr))
                .fold(reserved.count_in(p.cidr), u128::saturating_sub);
            let reserved = outside.saturating_add(sum(|b| b.reserved));
            let free = total
                .saturating_sub(in_use)
                .saturating_sub(cooling)
                .saturating_sub(reserved);
            PoolUsage {
                name: p.name.clone(),
                cidr: p.cidr,
                total,
                in_use,
                reserved,
                cooling,
                free,
                blocks,
            }
        };
        pools.iter().map(of).collect()
    }

    /// Addresses that a node uses from a block that is not its own.
    pub fn borrowed(&self) -> Vec<Borrowed> {
        let mut out = Vec::new();
        for b in &self.blocks {
            for (address, a) in b.held() {
                let Some(node) = a.get("node").filter(|n| !b.is_owned_by(&Owner::host(*n))) else {
                    continue;
                };
                out.push(Borrowed {
                    address,
                    node: node.to_owned(),
                    block: b.cidr(),
                    owner: b.affinity().map(str::to_owned),
                    attribute: a.clone(),
                });
            }
        }
        out
    }

    /// Every held address, and whatever contradicts.
    pub fn check(&self, pools: &[Pool]) -> CheckReport {
        let mut out = CheckReport::default();
        let broken = self.malformed.iter();
        out.problems
            .extend(broken.map(|(key, reason)| Problem::Malformed {
                key: key.clone(),
                reason: reason.clone(),
            }));
        self.check_handles(&mut out);
        self.check_affinities(&mut out.problems);
        let mut outer: Option<Cidr> = None;
        for b in &self.blocks {
            let cidr = b.cidr();
            if let Some(o) = outer.filter(|o| o.covers(cidr)) {
                out.problems.push(Problem::Overlap {
                    inner: cidr,
                    outer: o,
                });
            } else {
                outer = Some(cidr);
            }
            if !pools.iter().any(|p| p.cidr.covers(cidr)) {
                out.problems.push(Problem::OutsidePools { cidr });
            }
        }
        out
    }

    fn check_handles(&self, out: &mut CheckReport) {
        let mut real: BTreeMap<(&str, Cidr), u64> = BTreeMap::new();
        for b in &self.blocks {
            for (address, a) in b.held() {
                let sequence = b.sequence_of(address);
                out.addresses.push((
                    Assigned {
                        address,
                        block: b.cidr(),
                        sequence,
                    },
                    a.clone(),
                ));
                match a.handle() {
                    Some(h) => *real.entry((h, b.cidr())).or_default() += 1,
                    None => out.problems.push(Problem::NoHandle { address }),
                }
            }
        }
        for (id, (handle, rev)) in &self.handles {
            let mut held = 0;
            let mut over = Vec::new();
            for (block, counted) in handle.blocks() {
                let real = real.get(&(id.as_str(), block)).copied().unwrap_or(0);
                held += real;
                if counted > real {
                    over.push(Problem::OverCount {
                        id: id.clone(),
                        block,
                        counted,
                        real,
                    });
                }
            }
            if held == 0 {
                over = vec![Problem::LeakedHandle {
                    id: id.clone(),
                    rev: *rev,
                }];
            }
            out.problems.append(&mut over);
        }
        for ((id, block), real) in real {
            let counted = self.handles.get(id).map_or(0, |(h, _)| h.count(block));
            if counted < real {
                out.problems.push(Problem::UnderCount {
                    id: id.to_owned(),
                    block,
                    counted,
                    real,
                });
            }
        }
    }

    fn check_affinities(&self, problems: &mut Vec<Problem>) {
        let blocks: BTreeMap<Cidr, &Block> = self.blocks.iter().map(|b| (b.cidr(), b)).collect();
        let mut claimed: BTreeSet<(Cidr, String)> = BTreeSet::new();
        for (owner, cidr, a) in &self.affinities {
            claimed.insert((*cidr, owner.to_string()));
            let (owner, cidr) = (owner.clone(), *cidr);
            if a.state != AffinityState::Confirmed {
                problems.push(Problem::Unfinished { owner, cidr });
                continue;
            }
            match blocks.get(&cidr) {
                None => problems.push(Problem::AffinityWithoutBlock { owner, cidr }),
                Some(b) if !b.is_owned_by(&owner) => {
                    let actual = b.affinity().map(str::to_owned);
                    problems.push(Problem::WrongOwner {
                        owner,
                        cidr,
                        actual,
                    });
                }
                Some(_) => {}
            }
        }
        for b in &self.blocks {
            if let Some(owner) = b
                .affinity()
                .filter(|o| !claimed.contains(&(b.cidr(), (*o).to_owned())))
            {
                problems.push(Problem::BlockWithoutAffinity {
                    cidr: b.cidr(),
                    owner: owner.to_owned(),
                });
            }
        }
    }
}
