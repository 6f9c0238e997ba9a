//! Claiming blocks and giving them up.
//!
//! Promises: a confirmed affinity names a block that names its owner. A crash leaves an
//! affinity `pending` or `pendingDeletion`, or a block that names an owner without
//! affinity; claim and release both go on from any of these.

use super::io::{At, bad, landed};
use super::{Ipam, RETRIES};
use crate::affinity::{Affinity, AffinityState, Owner, OwnerKind};
use crate::block::Block;
use crate::error::Error;
use crate::storage::Storage;
use jiff::Timestamp;
use net::{Cidr, Family};

/// How a claim ended.
#[derive(Debug)]
pub(super) enum Claim {
    /// The block is the owner's and its affinity confirmed.
    Owned,
    /// The block is somebody else's, or nobody's but in use.
    Taken,
}

/// How giving up an affinity ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AffinityRelease {
    /// Affinity and block are gone.
    Deleted,
    /// The affinity is gone; the block has addresses in use or cooling down and lives on
    /// without owner.
    Disowned,
    /// There was an affinity to a block that is not the owner's; it is gone.
    Stale,
    /// Neither affinity nor block.
    Absent,
    /// Only empty blocks were asked for, and this one is not, or it has changed.
    Kept,
}

/// What must be true of a block for its affinity to be given up.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Guard {
    /// Only if nothing is in use or cooling down.
    pub(super) require_empty: bool,
    /// Only if it has this sequence number.
    pub(super) sequence: Option<u64>,
    /// Delete an unused block although addresses cool down, for a pool that goes away.
    pub(super) forget_cooling: bool,
    /// The time and the cool-down in seconds, to tell what has rested enough.
    pub(super) rested: Option<(Timestamp, u32)>,
}

impl<S: Storage> Ipam<S> {
    /// Makes `owner` the owner of the block `cidr`, from whatever state the two objects are
    /// in. `older` is the sequence number of a block that it replaces.
    pub(super) async fn claim(
        &self,
        owner: &Owner,
        cidr: Cidr,
        now: Timestamp,
        older: u64,
    ) -> Result<Claim, Error> {
        let key = Affinity::key(owner, cidr);
        let fresh = Block::new(cidr, owner, now, older)
            .ok_or_else(|| bad(&Block::key(cidr), "a block this size is too large"))?;
        for _ in 0..RETRIES {
            // 1. A pending affinity, written by us now: it fences whoever gives it up.
            let mut claim = Affinity::new(AffinityState::Pending);
            let rev = match landed(self.store.create(&key, &claim.encode()).await)? {
                Some(rev) => rev,
                None => {
                    let Some(mut a) = self.read_affinity(owner, cidr).await? else {
                        continue;
                    };
                    if a.value.state == AffinityState::Confirmed {
                        let b = self.read_block(cidr).await?;
                        if b.is_some_and(|b| b.value.is_owned_by(owner)) {
                            return Ok(Claim::Owned);
                        }
                    }
                    a.value.state = AffinityState::Pending;
                    claim = a.value;
                    match landed(self.store.update(&key, &claim.encode(), a.rev).await)? {
                        Some(rev) => rev,
                        None => continue,
                    }
                }
            };
            // 2. The block: created, or, where it is ours already, written again, so that
            // whoever read it to delete it fails.
            let block_key = Block::key(cidr);
            if landed(self.store.create(&block_key, &fresh.encode()).await)?.is_none() {
                match self.read_block(cidr).await? {
                    None => continue,
                    Some(mut b) if b.value.is_owned_by(owner) => {
                        if !self.write_block(&mut b).await? {
                            continue;
                        }
                    }
                    Some(_) => {
                        landed(self.store.delete(&key, rev).await)?;
                        return Ok(Claim::Taken);
                    }
                }
            }
            // 3. Confirmed, if nobody touched the affinity since 1.
            claim.state = AffinityState::Confirmed;
            if landed(self.store.update(&key, &claim.encode(), rev).await)?.is_some() {
                return Ok(Claim::Owned);
            }
        }
        Err(Error::Contended {
            operation: "claim",
            key,
        })
    }

    /// Gives up the affinity of `owner` to `cidr`, from whatever state the two objects are in.
    pub(super) async fn give_up(
        &self,
        owner: &Owner,
        cidr: Cidr,
        guard: Guard,
    ) -> Result<AffinityRelease, Error> {
        let key = Affinity::key(owner, cidr);
        for _ in 0..RETRIES {
            // The affinity is read first and marked at that revision, the block is read in
            // between: an owner that comes back writes both again, and we fail.
            let affinity = self.read_affinity(owner, cidr).await?;
            let block = self.read_block(cidr).await?;
            let mut block = match (&affinity, block) {
                (_, Some(b)) if b.value.is_owned_by(owner) => b,
                (None, _) => return Ok(AffinityRelease::Absent),
                (Some(a), _) => match landed(self.store.delete(&key, a.rev).await)? {
                    Some(()) => return Ok(AffinityRelease::Stale),
                    None => continue,
                },
            };
            let sequence = block.value.sequence();
            if let Some((now, cooldown)) = guard.rested {
                block.value.collect(now, cooldown);
            }
            let kept = guard.require_empty && !block.value.is_empty()
                || guard.sequence.is_some_and(|s| s != sequence);
            if kept {
                return Ok(AffinityRelease::Kept);
            }
            // Also where there is no affinity: an owner that comes back must meet the mark.
            let mark = Affinity::new(AffinityState::PendingDeletion).encode();
            let written = match affinity {
                None => self.store.create(&key, &mark).await,
                Some(a) => self.store.update(&key, &mark, a.rev).await,
            };
            let Some(marked) = landed(written)? else {
                continue;
            };
            let deletable =
                block.value.is_empty() || guard.forget_cooling && block.value.is_unused();
            let (done, outcome) = if deletable {
                let gone = landed(self.store.delete(&Block::key(cidr), block.rev).await)?.is_some();
                (gone, AffinityRelease::Deleted)
            } else {
                block.value.disown();
                (
                    self.write_block(&mut block).await?,
                    AffinityRelease::Disowned,
                )
            };
            if !done {
                continue;
            }
            // Lost only to somebody who claims or gives up again; both finish the job.
            landed(self.store.delete(&key, marked).await)?;
            return Ok(outcome);
        }
        Err(Error::Contended {
            operation: "release affinity",
            key,
        })
    }

    /// Deletes a block that nobody owns and nothing is in use of. `true` when it is gone.
    pub(super) async fn delete_ownerless(&self, b: &At<Block>) -> Result<bool, Error> {
        Ok(landed(self.store.delete(&Block::key(b.value.cidr()), b.rev).await)?.is_some())
    }

    /// The affinities of an owner in a family, sorted by block. Malformed values count as
    /// pending, so that the next use writes them anew.
    ///
    /// # Errors
    /// [`Error::Storage`], [`Error::InvalidName`].
    pub async fn affinities(
        &self,
        owner: &Owner,
        family: Family,
    ) -> Result<Vec<(Cidr, AffinityState)>, Error> {
        if !owner.is_valid() {
            return Err(Error::InvalidName {
                what: "host",
                text: owner.name.clone(),
            });
        }
        let mut out = Vec::new();
        for s in self.store.list(&Affinity::prefix(owner, family)).await? {
            let Some((_, cidr)) = Affinity::parse_key(&s.key) else {
                continue;
            };
            match Affinity::decode(&s.value) {
                Ok(a) if a.deleted => {}
                Ok(a) => out.push((cidr, a.state)),
                Err(_) => out.push((cidr, AffinityState::Pending)),
            }
        }
        out.sort_unstable_by_key(|(c, _)| *c);
        Ok(out)
    }

    /// Every affinity of every owner.
    pub(crate) async fn all_affinities(&self) -> Result<Vec<(Owner, Cidr, Affinity)>, Error> {
        let mut out = Vec::new();
        for kind in OwnerKind::ALL {
            for s in self.store.list(&Affinity::prefix_all(kind)).await? {
                let Some((owner, cidr)) = Affinity::parse_key(&s.key) else {
                    continue;
                };
                let a = Affinity::decode(&s.value)
                    .unwrap_or_else(|_| Affinity::new(AffinityState::Pending));
                if !a.deleted {
                    out.push((owner, cidr, a));
                }
            }
        }
        Ok(out)
    }

    /// Makes `owner` the owner of the block `cidr`. `false` when it is somebody else's.
    ///
    /// # Errors
    /// [`Error::Storage`], [`Error::BadObject`], [`Error::Contended`], [`Error::InvalidName`].
    pub async fn claim_affinity(
        &self,
        owner: &Owner,
        cidr: Cidr,
        now: Timestamp,
    ) -> Result<bool, Error> {
        if !owner.is_valid() {
            return Err(Error::InvalidName {
                what: "host",
                text: owner.name.clone(),
            });
        }
        Ok(matches!(
            self.claim(owner, cidr, now, 0).await?,
            Claim::Owned
        ))
    }

    /// Gives up one affinity; with `require_empty` only if nothing of the block is in use.
    /// Addresses in use stay assigned.
    ///
    /// # Errors
    /// [`Error::Storage`], [`Error::BadObject`], [`Error::Contended`].
    pub async fn release_affinity(
        &self,
        owner: &Owner,
        cidr: Cidr,
        require_empty: bool,
        now: Timestamp,
    ) -> Result<AffinityRelease, Error> {
        let rested = Some((now, self.config().await?.ip_cooldown_seconds));
        self.give_up(
            owner,
            cidr,
            Guard {
                require_empty,
                rested,
                ..Guard::default()
            },
        )
        .await
    }

    /// Gives up all affinities of an owner, as when its node is deleted; also blocks that
    /// name it although the affinity is gone. Addresses in use stay assigned.
    ///
    /// Goes on past failures and gives each block with its outcome.
    ///
    /// # Errors
    /// Those of listing: [`Error::Storage`], [`Error::InvalidName`].
    pub async fn release_host_affinities(
        &self,
        owner: &Owner,
        now: Timestamp,
    ) -> Result<Vec<(Cidr, Result<AffinityRelease, Error>)>, Error> {
        let rested = Some((now, self.config().await?.ip_cooldown_seconds));
        let guard = Guard {
            rested,
            ..Guard::default()
        };
        let mut todo = Vec::new();
        for family in Family::BOTH {
            todo.extend(
                self.affinities(owner, family)
                    .await?
                    .into_iter()
                    .map(|(c, _)| c),
            );
            let (blocks, _) = self.list_blocks(family).await?;
            todo.extend(
                blocks
                    .iter()
                    .filter(|b| b.value.is_owned_by(owner))
                    .map(|b| b.value.cidr()),
            );
        }
        todo.sort_unstable();
        todo.dedup();
        let mut out = Vec::with_capacity(todo.len());
        for cidr in todo {
            out.push((cidr, self.give_up(owner, cidr, guard).await));
        }
        Ok(out)
    }

    /// Gives up all affinities to blocks inside `pool`, as when it is deleted, and deletes
    /// the unused blocks there that nobody owns, cooling down or not. Addresses in use stay
    /// assigned.
    ///
    /// Goes on past failures and gives each block with its outcome.
    ///
    /// # Errors
    /// Those of listing: [`Error::Storage`].
    pub async fn release_pool_affinities(
        &self,
        pool: Cidr,
    ) -> Result<Vec<(Cidr, Result<AffinityRelease, Error>)>, Error> {
        let mut todo: Vec<(Cidr, Owner)> = self
            .all_affinities()
            .await?
            .into_iter()
            .filter(|(_, c, _)| pool.covers(*c))
            .map(|(o, c, _)| (c, o))
            .collect();
        let (blocks, _) = self.list_blocks(pool.family()).await?;
        let inside = || blocks.iter().filter(|b| pool.covers(b.value.cidr()));
        todo.extend(inside().filter_map(|b| Some((b.value.cidr(), b.value.owner()?))));
        todo.sort_unstable();
        todo.dedup();
        let mut out = Vec::with_capacity(todo.len());
        let guard = Guard {
            forget_cooling: true,
            ..Guard::default()
        };
        for (cidr, owner) in todo {
            out.push((cidr, self.give_up(&owner, cidr, guard).await));
        }
        for b in inside().filter(|b| b.value.affinity().is_none() && b.value.is_unused()) {
            let gone = self.delete_ownerless(b).await;
            let outcome = |gone| {
                if gone {
                    AffinityRelease::Deleted
                } else {
                    AffinityRelease::Kept
                }
            };
            out.push((b.value.cidr(), gone.map(outcome)));
        }
        Ok(out)
    }
}
