//! Taking addresses back.

use super::io::{At, landed};
use super::{AutoAssigned, Ipam, RETRIES};
use crate::block::{Assigned, Attribute, Block, ReleaseOption};
use crate::config::Config;
use crate::error::Error;
use crate::handle::{Handle, sanitize_handle};
use crate::pool::Pool;
use crate::storage::Storage;
use jiff::Timestamp;
use net::{Cidr, Family};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// What every release needs to know.
#[derive(Debug, Clone, Copy)]
pub struct ReleaseArgs<'a> {
    /// The pools, to find an address's block without listing. May be empty.
    pub pools: &'a [Pool],
    /// The cluster's configuration where the caller knows it; saves a read.
    pub config: Option<&'a Config>,
    /// The time.
    pub now: Timestamp,
}

/// What a release did. A block's addresses are released together or not at all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[must_use = "some addresses may not have been released"]
pub struct ReleaseOutcome {
    /// Addresses that were freed.
    pub freed: Vec<IpAddr>,
    /// Addresses that nobody held.
    pub unallocated: Vec<IpAddr>,
    /// Blocks whose addresses stay as they were, and why.
    pub failed: Vec<(Cidr, Error)>,
}

impl<S: Storage> Ipam<S> {
    /// Releases addresses. Goes on past a block that fails.
    ///
    /// # Errors
    /// Only for what is needed before the first block: [`Error::Storage`],
    /// [`Error::BadObject`]. All else is in [`ReleaseOutcome::failed`].
    pub async fn release_ips(
        &self,
        options: &[ReleaseOption],
        args: &ReleaseArgs<'_>,
    ) -> Result<ReleaseOutcome, Error> {
        let config = self.config_or(args.config).await?;
        let mut out = ReleaseOutcome::default();
        let mut by_block: BTreeMap<Cidr, Vec<ReleaseOption>> = BTreeMap::new();
        for opt in options {
            match self.locate(opt.address, args.pools).await {
                Ok(Some(c)) => by_block.entry(c).or_default().push(opt.clone()),
                Ok(None) => {
                    if !out.unallocated.contains(&opt.address) {
                        out.unallocated.push(opt.address);
                    }
                }
                Err(e) => out.failed.push((Cidr::host(opt.address), e)),
            }
        }
        for (cidr, opts) in by_block {
            match self
                .release_in(cidr, &opts, args.now, config.ip_cooldown_seconds, &mut out)
                .await
            {
                Ok(()) => {}
                Err(e) => out.failed.push((cidr, e)),
            }
        }
        Ok(out)
    }

    /// The block of an address: the one its pool says if that exists, else by listing.
    async fn locate(&self, address: IpAddr, pools: &[Pool]) -> Result<Option<Cidr>, Error> {
        for cidr in pools.iter().filter_map(|p| p.block_of(address)) {
            if self.store.get(&Block::key(cidr)).await?.is_some() {
                return Ok(Some(cidr));
            }
        }
        self.block_holding(address).await
    }

    async fn release_in(
        &self,
        cidr: Cidr,
        options: &[ReleaseOption],
        now: Timestamp,
        cooldown: u32,
        out: &mut ReleaseOutcome,
    ) -> Result<(), Error> {
        for _ in 0..RETRIES {
            let Some(mut b) = self.read_block(cidr).await? else {
                out.unallocated.extend(options.iter().map(|o| o.address));
                return Ok(());
            };
            b.value.collect(now, cooldown);
            let released = b.value.release(options, now, cooldown)?;
            if released.freed.is_empty() {
                out.unallocated.extend(released.unallocated);
                return Ok(());
            }
            // Handles are read before the block is written: their counts may only be
            // lowered against these revisions.
            let mut handles = Vec::new();
            for (id, freed) in &released.by_handle {
                match self.read_handle(id).await {
                    Ok(Some(h)) => handles.push((id, *freed, h)),
                    // A handle that cannot be read does not keep its addresses in use.
                    Ok(None) | Err(Error::BadObject { .. }) => {}
                    Err(e) => return Err(e),
                }
            }
            if !self.write_or_delete(&mut b).await? {
                continue;
            }
            out.freed.extend(released.freed);
            out.unallocated.extend(released.unallocated);
            for (id, freed, mut h) in handles {
                let left = b.value.held_by(id).count() as u64;
                let count = h.value.count(cidr);
                // With nothing left the entry goes, over-count and all: the write of the
                // block has failed every assignment that this count may be about.
                let rest = if left == 0 {
                    0
                } else {
                    count.saturating_sub(freed).max(left)
                };
                h.value.set(cidr, rest);
                if !self.write_handle(id, &mut h).await? {
                    self.settle(id, cidr).await?;
                }
            }
            return Ok(());
        }
        Err(Error::Contended {
            operation: "release from",
            key: Block::key(cidr),
        })
    }

    /// Writes a block, or deletes it when nobody owns it and it holds nothing.
    async fn write_or_delete(&self, b: &mut At<Block>) -> Result<bool, Error> {
        if b.value.affinity().is_none() && b.value.is_empty() {
            let key = Block::key(b.value.cidr());
            return Ok(landed(self.store.delete(&key, b.rev).await)?.is_some());
        }
        self.write_block(b).await
    }

    /// Removes a handle's entry for a block when no address stands behind it, as a crash
    /// between raising the count and assigning leaves it. Raises a count that is too low,
    /// as another program's lost race leaves it.
    pub(super) async fn settle(&self, id: &str, cidr: Cidr) -> Result<(), Error> {
        for _ in 0..RETRIES {
            let Some(mut h) = self.read_handle(id).await? else {
                return Ok(());
            };
            let count = h.value.count(cidr);
            if count == 0 {
                return Ok(());
            }
            if let Some(mut b) = self.read_block(cidr).await? {
                let left = b.value.held_by(id).count() as u64;
                if left > 0 && count >= left {
                    return Ok(());
                }
                h.value.set(cidr, left);
                // The write that fails whoever raised the count and has yet to assign.
                if left == 0 && !self.write_block(&mut b).await? {
                    continue;
                }
            } else {
                h.value.set(cidr, 0);
            }
            if self.write_handle(id, &mut h).await? {
                return Ok(());
            }
        }
        Err(Error::Contended {
            operation: "settle",
            key: Handle::key(id),
        })
    }

    /// Releases every address of a handle, then the handle. Also what cleans up after an
    /// assignment that crashed.
    ///
    /// # Errors
    /// [`Error::UnknownHandle`] when there is none (a CNI DEL is done then), and those of
    /// the store; call again.
    pub async fn release_by_handle(
        &self,
        handle: &str,
        args: &ReleaseArgs<'_>,
    ) -> Result<Vec<IpAddr>, Error> {
        let id = checked(handle)?;
        let Some(first) = self.read_handle(id).await? else {
            return Err(Error::UnknownHandle(id.to_owned()));
        };
        let config = self.config_or(args.config).await?;
        let mut freed = Vec::new();
        let mut next = Some(first);
        for _ in 0..RETRIES {
            let handle = match next.take() {
                Some(h) => Some(h),
                None => self.read_handle(id).await?,
            };
            let Some(mut h) = handle else {
                return Ok(freed);
            };
            if self
                .empty_handle(id, &mut h, args.now, config.ip_cooldown_seconds, &mut freed)
                .await?
            {
                return Ok(freed);
            }
        }
        Err(Error::Contended {
            operation: "release",
            key: Handle::key(id),
        })
    }

    /// One pass over the blocks of a handle. `false` when the handle changed meanwhile.
    async fn empty_handle(
        &self,
        id: &str,
        h: &mut At<Handle>,
        now: Timestamp,
        cooldown: u32,
        freed: &mut Vec<IpAddr>,
    ) -> Result<bool, Error> {
        let blocks: Vec<Cidr> = h.value.blocks().map(|(c, _)| c).collect();
        if blocks.is_empty() {
            return self.write_handle(id, h).await;
        }
        for cidr in blocks {
            let mut done = false;
            for _ in 0..RETRIES {
                let Some(mut b) = self.read_block(cidr).await? else {
                    done = true;
                    break;
                };
                b.value.collect(now, cooldown);
                let ips = b.value.release_handle(id, now, cooldown);
                // Written also when nothing was held: see `settle`.
                if self.write_or_delete(&mut b).await? {
                    freed.extend(ips);
                    done = true;
                    break;
                }
            }
            if !done {
                return Err(Error::Contended {
                    operation: "release from",
                    key: Block::key(cidr),
                });
            }
            h.value.set(cidr, 0);
            if !self.write_handle(id, h).await? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Gives back what a request got, as when the other family failed. Only this
    /// assignment of each address, never a later holder's.
    ///
    /// # Errors
    /// As [`Ipam::release_ips`].
    pub async fn undo(
        &self,
        got: &AutoAssigned,
        handle: &str,
        args: &ReleaseArgs<'_>,
    ) -> Result<ReleaseOutcome, Error> {
        let options: Vec<ReleaseOption> = got
            .ips()
            .map(|a| ReleaseOption {
                address: a.address,
                handle: Some(sanitize_handle(handle).to_owned()),
                sequence: Some(a.sequence),
            })
            .collect();
        self.release_ips(&options, args).await
    }

    /// The addresses of a handle, in order.
    ///
    /// # Errors
    /// [`Error::UnknownHandle`], [`Error::Storage`], [`Error::BadObject`].
    pub async fn ips_by_handle(&self, handle: &str) -> Result<Vec<Assigned>, Error> {
        let id = checked(handle)?;
        let Some(h) = self.read_handle(id).await? else {
            return Err(Error::UnknownHandle(id.to_owned()));
        };
        let mut out = Vec::new();
        for (cidr, _) in h.value.blocks() {
            if let Some(b) = self.read_block(cidr).await? {
                out.extend(b.value.held_by(id));
            }
        }
        out.sort_unstable();
        Ok(out)
    }

    /// Who holds an address, and under which sequence number.
    ///
    /// # Errors
    /// [`Error::NotAssigned`], [`Error::Storage`], [`Error::BadObject`].
    pub async fn assignment_attributes(
        &self,
        address: IpAddr,
        pools: &[Pool],
    ) -> Result<(Attribute, Assigned), Error> {
        let Some(cidr) = self.locate(address, pools).await? else {
            return Err(Error::NotAssigned(address));
        };
        let b = self
            .read_block(cidr)
            .await?
            .ok_or(Error::NotAssigned(address))?;
        let a = b
            .value
            .attribute(address)
            .ok_or(Error::NotAssigned(address))?;
        let assigned = Assigned {
            address,
            block: cidr,
            sequence: b.value.sequence_of(address),
        };
        Ok((a.clone(), assigned))
    }

    /// Deletes blocks that nobody owns and that hold nothing any more. Gives what it deleted.
    ///
    /// # Errors
    /// [`Error::Storage`], [`Error::BadObject`] for the configuration.
    pub async fn collect_ownerless(&self, now: Timestamp) -> Result<Vec<Cidr>, Error> {
        let cooldown = self.config().await?.ip_cooldown_seconds;
        let mut out = Vec::new();
        for family in Family::BOTH {
            for mut b in self.list_blocks(family).await?.0 {
                b.value.collect(now, cooldown);
                let idle = b.value.affinity().is_none() && b.value.is_empty();
                if idle && self.delete_ownerless(&b).await? {
                    out.push(b.value.cidr());
                }
            }
        }
        Ok(out)
    }
}

fn checked(handle: &str) -> Result<&str, Error> {
    let id = sanitize_handle(handle);
    if id.is_empty() || id.contains('/') {
        return Err(Error::InvalidName {
            what: "handle",
            text: id.to_owned(),
        });
    }
    Ok(id)
}
