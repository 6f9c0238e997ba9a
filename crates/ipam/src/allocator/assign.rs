//! Giving addresses out.

use super::affinities::{Claim, Guard};
use super::io::At;
use super::request::{AssignIp, Assignment, AutoAssign, AutoAssigned, Granted};
use super::{Ipam, RETRIES, walk};
use crate::affinity::AffinityState;
use crate::block::{Assigned, Block};
use crate::config::Config;
use crate::error::Error;
use crate::handle::{Handle, sanitize_handle};
use crate::pool::{Pool, candidates};
use crate::reserved::Reservations;
use crate::storage::Storage;
use jiff::Timestamp;
use net::{Cidr, Family, PrefixMap};
use std::collections::BTreeSet;
use std::net::IpAddr;

/// How old another owner's claim on an empty block must be before it is taken away, in
/// seconds: a fresh claim is about to be used.
const RECLAIM_AGE_SECONDS: i64 = 60;

/// Who may take from a block.
#[derive(Clone, Copy, PartialEq, Eq)]
enum From {
    /// Only its owner.
    Own,
    /// Anybody: borrowing.
    Any,
}

/// Why a block gave what it gave.
enum Took {
    /// As many as it had, up to what was wanted; may be none.
    Some(Vec<Assigned>),
    /// There is no block.
    Missing,
    /// It is somebody else's.
    NotOwned,
}

/// A raise of a handle's count that no assignment stands behind yet.
struct Reserve {
    handle: At<Handle>,
    count: u64,
}

/// One family's request on its way through the blocks.
struct Run<'a> {
    req: &'a AutoAssign<'a>,
    family: Family,
    config: &'a Config,
    pools: Vec<&'a Pool>,
    want: usize,
    got: Vec<Assigned>,
    /// Blocks already asked, with whatever result.
    tried: BTreeSet<Cidr>,
    /// How many blocks the owner has in this family.
    owned: usize,
}

impl Run<'_> {
    fn missing(&self) -> usize {
        self.want.saturating_sub(self.got.len())
    }

    fn pool_of(&self, cidr: Cidr) -> Option<usize> {
        self.pools.iter().position(|p| p.cidr.covers(cidr))
    }
}

/// What is known of the blocks of a family, from one listing.
struct Known {
    blocks: PrefixMap<At<Block>>,
    /// Blocks not to be claimed: those that cannot be read, and those already dealt with.
    off_limits: BTreeSet<Cidr>,
    reserved: Reservations,
}

impl Known {
    /// Whether any block has addresses of `cidr`, also one of another size, as a pool that
    /// was made anew leaves behind.
    fn taken(&self, cidr: Cidr) -> bool {
        self.off_limits.iter().any(|c| c.overlaps(cidr))
            || self.blocks.covering(cidr).next().is_some()
            || self.blocks.within(cidr).next().is_some()
    }
}

impl<S: Storage> Ipam<S> {
    /// Assigns addresses: from the owner's blocks, else from blocks it claims, else, without
    /// strict affinity, from others' blocks. IPv4 first. Partial results are kept, with the
    /// reason; after an error the handle may have more addresses than are listed, and
    /// [`Ipam::release_by_handle`] frees them.
    pub async fn auto_assign(&self, req: &AutoAssign<'_>) -> AutoAssigned {
        let wanted = |family| match family {
            Family::V4 => (req.count_v4, req.pools_v4),
            Family::V6 => (req.count_v6, req.pools_v6),
        };
        let failed = |family, e: &Error| {
            let requested = wanted(family).0;
            let error = (requested > 0).then(|| e.clone());
            Granted {
                requested,
                ips: Vec::new(),
                error,
            }
        };
        let config = match check_names(&req.common) {
            Ok(()) => self.config_or(req.common.config).await,
            Err(e) => Err(e),
        };
        let config = match config {
            Ok(c) => c,
            Err(e) => {
                return AutoAssigned {
                    v4: failed(Family::V4, &e),
                    v6: failed(Family::V6, &e),
                };
            }
        };
        let mut out = AutoAssigned::default();
        for family in Family::BOTH {
            let (count, explicit) = wanted(family);
            let granted = self
                .assign_family(req, family, count, explicit, &config)
                .await;
            match family {
                Family::V4 => out.v4 = granted,
                Family::V6 => out.v6 = granted,
            }
        }
        out
    }

    async fn assign_family(
        &self,
        req: &AutoAssign<'_>,
        family: Family,
        want: usize,
        explicit: Option<&[String]>,
        config: &Config,
    ) -> Granted {
        let mut out = Granted {
            requested: want,
            ..Granted::default()
        };
        if want == 0 {
            return out;
        }
        let pools = match candidates(
            req.common.pools,
            family,
            explicit,
            req.intended_use,
            &req.common.owner.name,
        ) {
            Ok(pools) => pools,
            Err(e) => {
                out.error = Some(e);
                return out;
            }
        };
        let mut run = Run {
            req,
            family,
            config,
            pools,
            want,
            got: Vec::new(),
            tried: BTreeSet::new(),
            owned: 0,
        };
        // Whatever stops the run, what it got so far is the caller's to use or undo.
        out.error = self.run(&mut run).await.err();
        if out.error.is_none() && run.missing() > 0 {
            out.error = Some(exhausted(&run));
        }
        out.ips = run.got;
        out
    }

    async fn run(&self, run: &mut Run<'_>) -> Result<(), Error> {
        for cidr in run.req.known_blocks {
            if run.missing() == 0 || run.pool_of(*cidr).is_none() || run.tried.contains(cidr) {
                continue;
            }
            if let Took::Some(ips) = self.take(run, *cidr, From::Own).await? {
                run.got.extend(ips);
                run.tried.insert(*cidr);
            }
        }
        if run.missing() == 0 {
            return Ok(());
        }
        self.use_own_blocks(run).await?;
        if run.missing() == 0 {
            return Ok(());
        }
        let mut known = None;
        if run.config.auto_allocate_blocks {
            known = Some(self.use_new_blocks(run).await?);
        }
        if run.missing() > 0 && !run.config.strict_affinity {
            let known = match known {
                Some(k) => k,
                None => self.known(run).await?,
            };
            self.borrow(run, &known).await?;
        }
        Ok(())
    }

    /// The blocks that the owner has affinities to: takes from those in the pools, gives up
    /// empty ones whose pool is gone or no longer selects the node.
    async fn use_own_blocks(&self, run: &mut Run<'_>) -> Result<(), Error> {
        let common = &run.req.common;
        let affinities = self.affinities(common.owner, run.family).await?;
        run.owned = affinities.len();
        let mut inside = Vec::new();
        for (cidr, state) in affinities {
            if let Some(i) = run.pool_of(cidr) {
                inside.push((i, cidr, state));
                continue;
            }
            let pool = common.pools.iter().find(|p| p.cidr.covers(cidr));
            if pool.is_none_or(|p| !p.node_selected) {
                let rested = Some((common.now, run.config.ip_cooldown_seconds));
                let guard = Guard {
                    require_empty: true,
                    rested,
                    ..Guard::default()
                };
                match self.give_up(common.owner, cidr, guard).await {
                    Ok(super::AffinityRelease::Kept) | Err(Error::BadObject { .. }) => {}
                    Ok(_) => run.owned -= 1,
                    Err(e) => return Err(e),
                }
            }
        }
        // Pools in their order, blocks in theirs.
        inside.sort_unstable_by_key(|(i, c, _)| (*i, *c));
        for (_, cidr, state) in inside {
            if run.missing() == 0 {
                return Ok(());
            }
            if run.tried.contains(&cidr) && state == AffinityState::Confirmed {
                continue;
            }
            match self.use_own_block(run, cidr, state).await {
                Ok(true) => {}
                Ok(false) => run.owned -= 1,
                // One bad object never stops the others; `check` reports it.
                Err(Error::BadObject { .. }) => {}
                Err(e) => return Err(e),
            }
            run.tried.insert(cidr);
        }
        Ok(())
    }

    /// Takes from one block that there is an affinity to, mending the claim if need be.
    /// `false` when the affinity was stale and is gone.
    async fn use_own_block(
        &self,
        run: &mut Run<'_>,
        cidr: Cidr,
        state: AffinityState,
    ) -> Result<bool, Error> {
        for attempt in 0..2 {
            if attempt > 0 || state != AffinityState::Confirmed {
                let common = &run.req.common;
                if let Claim::Taken = self.claim(common.owner, cidr, common.now, 0).await? {
                    return Ok(false);
                }
            }
            if let Took::Some(ips) = self.take(run, cidr, From::Own).await? {
                run.got.extend(ips);
                return Ok(true);
            }
        }
        Ok(true)
    }

    /// Claims blocks until there is enough, no more are to be had, or the limit is reached.
    async fn use_new_blocks(&self, run: &mut Run<'_>) -> Result<Known, Error> {
        let limit = run.config.block_limit(run.req.max_blocks);
        let over = |run: &Run<'_>| u32::try_from(run.owned).unwrap_or(u32::MAX) >= limit;
        let blocked = |run: &Run<'_>| Error::BlockLimit {
            host: run.req.common.owner.name.clone(),
            family: run.family,
            owned: run.owned,
            limit,
        };
        if over(run) {
            return Err(blocked(run));
        }
        let mut known = self.known(run).await?;
        for _ in 0..RETRIES + run.want {
            if run.missing() == 0 {
                return Ok(known);
            }
            if over(run) {
                return Err(blocked(run));
            }
            let Some(cidr) = self.claim_next(run, &mut known).await? else {
                return Ok(known);
            };
            run.owned += 1;
            run.tried.insert(cidr);
            if let Took::Some(ips) = self.take(run, cidr, From::Own).await? {
                run.got.extend(ips);
            }
        }
        Ok(known)
    }

    /// Lists all blocks of the family, once a request.
    async fn known(&self, run: &Run<'_>) -> Result<Known, Error> {
        let (list, broken) = self.list_blocks(run.family).await?;
        let mut blocks = PrefixMap::new();
        for mut b in list {
            b.value
                .collect(run.req.common.now, run.config.ip_cooldown_seconds);
            blocks.insert(b.value.cidr(), b);
        }
        let off_limits = broken
            .iter()
            .filter_map(|(key, _)| Block::parse_key(key))
            .collect();
        Ok(Known {
            blocks,
            off_limits,
            reserved: run.req.common.reservations.clone(),
        })
    }

    /// Claims the next best block: one that is not there yet, else one of our own without
    /// affinity, else an empty one of nobody or of somebody who has not used it.
    async fn claim_next(&self, run: &Run<'_>, known: &mut Known) -> Result<Option<Cidr>, Error> {
        let common = &run.req.common;
        for pool in &run.pools {
            let start = walk::start(pool, &common.owner.name, run.req.seed);
            for own in ours(run, known, pool, start) {
                if let Claim::Owned = self.claim(common.owner, own, common.now, 0).await? {
                    return Ok(Some(own));
                }
            }
            let mut lost = BTreeSet::new();
            for _ in 0..RETRIES {
                let taken = |c| lost.contains(&c) || known.taken(c);
                let Some(cidr) = walk::first_free(pool, start, &known.reserved, taken) else {
                    break;
                };
                match self.claim(common.owner, cidr, common.now, 0).await? {
                    Claim::Owned => {
                        // Asked once; a later round must find another.
                        known.off_limits.insert(cidr);
                        return Ok(Some(cidr));
                    }
                    Claim::Taken => {
                        lost.insert(cidr);
                        if let Some(b) = self.read_block(cidr).await? {
                            known.blocks.insert(cidr, b);
                        }
                    }
                }
            }
        }
        for cidr in reclaimable(run, known) {
            if self.reclaim(run, known, cidr).await? {
                return Ok(Some(cidr));
            }
        }
        Ok(None)
    }

    /// Takes an empty block away from whoever has it, if it is still as it was listed.
    async fn reclaim(&self, run: &Run<'_>, known: &mut Known, cidr: Cidr) -> Result<bool, Error> {
        let Some(b) = known.blocks.remove(cidr) else {
            return Ok(false);
        };
        // Whatever comes of it, this round does not ask again.
        known.off_limits.insert(cidr);
        let common = &run.req.common;
        let sequence = b.value.sequence();
        let gone = match b.value.owner() {
            None => self.delete_ownerless(&b).await?,
            Some(owner) => {
                let rested = Some((common.now, run.config.ip_cooldown_seconds));
                let guard = Guard {
                    require_empty: true,
                    sequence: Some(sequence),
                    rested,
                    ..Guard::default()
                };
                self.give_up(&owner, cidr, guard).await? == super::AffinityRelease::Deleted
            }
        };
        if !gone {
            return Ok(false);
        }
        Ok(matches!(
            self.claim(common.owner, cidr, common.now, sequence).await?,
            Claim::Owned
        ))
    }

    /// Takes addresses from blocks of others.
    async fn borrow(&self, run: &mut Run<'_>, known: &Known) -> Result<(), Error> {
        let mut order = Vec::new();
        for (i, pool) in run.pools.iter().enumerate() {
            let start = walk::start(pool, &run.req.common.owner.name, run.req.seed);
            for (cidr, b) in known.blocks.within(pool.cidr) {
                if !run.tried.contains(&cidr) && b.value.free(&known.reserved) > 0 {
                    order.push((i, walk::distance(pool, start, cidr), cidr));
                }
            }
        }
        order.sort_unstable();
        for (_, _, cidr) in order {
            if run.missing() == 0 {
                return Ok(());
            }
            if let Took::Some(ips) = self.take(run, cidr, From::Any).await? {
                run.got.extend(ips);
            }
        }
        Ok(())
    }

    /// Takes what is missing, or what there is, from one block.
    async fn take(&self, run: &Run<'_>, cidr: Cidr, from: From) -> Result<Took, Error> {
        let common = &run.req.common;
        let handle = sanitize_handle(common.handle);
        let mut reserve = None;
        for _ in 0..RETRIES {
            let Some(mut b) = self.read_block(cidr).await? else {
                self.unreserve(handle, cidr, reserve).await?;
                return Ok(Took::Missing);
            };
            if from == From::Own && !b.value.is_owned_by(common.owner) {
                self.unreserve(handle, cidr, reserve).await?;
                return Ok(Took::NotOwned);
            }
            b.value.collect(common.now, run.config.ip_cooldown_seconds);
            let ips = b
                .value
                .take(run.missing(), handle, common.attrs, common.reservations);
            if ips.is_empty() {
                self.unreserve(handle, cidr, reserve).await?;
                return Ok(Took::Some(ips));
            }
            let count = ips.len() as u64;
            let mut held = self.reserve(handle, cidr, count, reserve).await?;
            if self.write_block(&mut b).await? {
                self.trim(handle, cidr, &mut held, count).await?;
                return Ok(Took::Some(ips));
            }
            reserve = Some(held);
        }
        self.unreserve(handle, cidr, reserve).await?;
        Err(Error::Contended {
            operation: "assign from",
            key: Block::key(cidr),
        })
    }

    /// Raises the handle's count for a block. Called on every attempt, after the block was
    /// read: whoever cleans the handle up in between rewrites the block first, and one of
    /// the two writes that follow here fails.
    async fn reserve(
        &self,
        id: &str,
        cidr: Cidr,
        count: u64,
        held: Option<Reserve>,
    ) -> Result<Reserve, Error> {
        if let Some(Reserve {
            mut handle,
            count: before,
        }) = held
        {
            let total = handle.value.count(cidr);
            // One too many where it would be the same: the Kubernetes API drops a write that
            // changes nothing, revision and all.
            let count = if count == before { count + 1 } else { count };
            handle.value.set(cidr, total.saturating_sub(before) + count);
            if self.write_handle(id, &mut handle).await? {
                return Ok(Reserve { handle, count });
            }
        }
        // The common case is a new handle: create it without looking.
        let key = Handle::key(id);
        let mut fresh = Handle::default();
        fresh.set(cidr, count);
        for _ in 0..RETRIES {
            if let Some(rev) = super::io::landed(self.store.create(&key, &fresh.encode()).await)? {
                return Ok(Reserve {
                    handle: At { value: fresh, rev },
                    count,
                });
            }
            let Some(mut handle) = self.read_handle(id).await? else {
                continue;
            };
            let before = handle.value.count(cidr);
            handle.value.set(cidr, before + count);
            if self.write_handle(id, &mut handle).await? {
                return Ok(Reserve { handle, count });
            }
        }
        Err(Error::Contended {
            operation: "update",
            key,
        })
    }

    /// Lowers a raise to what was assigned. When the handle has changed since, the count
    /// stays too high, which the release of the last address mends.
    async fn trim(&self, id: &str, cidr: Cidr, held: &mut Reserve, used: u64) -> Result<(), Error> {
        if held.count > used {
            let total = held.handle.value.count(cidr);
            held.handle
                .value
                .set(cidr, total.saturating_sub(held.count - used));
            // The addresses are assigned: a failure here must not hide them.
            match self.write_handle(id, &mut held.handle).await {
                Ok(_) | Err(Error::Storage(_)) => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// Takes a raise back. If the handle has changed since, others may have accounted for
    /// it already: then only a count without any address behind it is removed.
    async fn unreserve(&self, id: &str, cidr: Cidr, held: Option<Reserve>) -> Result<(), Error> {
        let Some(Reserve { mut handle, count }) = held else {
            return Ok(());
        };
        let rest = handle.value.count(cidr).saturating_sub(count);
        handle.value.set(cidr, rest);
        if self.write_handle(id, &mut handle).await? {
            return Ok(());
        }
        self.settle(id, cidr).await
    }

    /// Assigns this address, claiming its block when there is none yet. Neither reservations
    /// nor the limit of blocks hold it back.
    ///
    /// # Errors
    /// [`Error::OutsidePools`], [`Error::UnusablePool`], [`Error::InUse`] (also when the same
    /// handle holds it), [`Error::CoolingDown`], with strict affinity [`Error::NotOwner`],
    /// and those of the store.
    pub async fn assign_ip(&self, req: &AssignIp<'_>) -> Result<Assigned, Error> {
        let common = &req.common;
        check_names(common)?;
        let config = self.config_or(common.config).await?;
        let enabled = |p: &&Pool| p.is_enabled() && p.block_of(req.address).is_some();
        let pool = common
            .pools
            .iter()
            .find(enabled)
            .ok_or(Error::OutsidePools(req.address))?;
        if let Some(u) = req.intended_use.filter(|u| !pool.allowed_uses.contains(u)) {
            let reason = crate::pool::Refusal::Use(u);
            return Err(Error::UnusablePool {
                pool: pool.name.clone(),
                reason,
            });
        }
        let cidr = pool
            .block_of(req.address)
            .ok_or(Error::OutsidePools(req.address))?;
        self.assign_in(req, cidr, &config).await
    }

    async fn assign_in(
        &self,
        req: &AssignIp<'_>,
        mut cidr: Cidr,
        config: &Config,
    ) -> Result<Assigned, Error> {
        let common = &req.common;
        let handle = sanitize_handle(common.handle);
        let mut reserve = None;
        for _ in 0..RETRIES {
            let Some(mut b) = self.read_block(cidr).await? else {
                // A block of another size may have the address already.
                match self.block_holding(req.address).await? {
                    Some(other) if other != cidr => {
                        self.unreserve(handle, cidr, reserve.take()).await?;
                        cidr = other;
                    }
                    _ => {
                        self.claim(common.owner, cidr, common.now, 0).await?;
                    }
                }
                continue;
            };
            if config.strict_affinity && !b.value.is_owned_by(common.owner) {
                self.unreserve(handle, cidr, reserve).await?;
                let owner = b.value.affinity().map(str::to_owned);
                return Err(Error::NotOwner { block: cidr, owner });
            }
            b.value.collect(common.now, config.ip_cooldown_seconds);
            let assigned = match b.value.take_exact(req.address, handle, common.attrs) {
                Ok(a) => a,
                Err(e) => {
                    self.unreserve(handle, cidr, reserve).await?;
                    return Err(e);
                }
            };
            let mut held = self.reserve(handle, cidr, 1, reserve).await?;
            if self.write_block(&mut b).await? {
                self.trim(handle, cidr, &mut held, 1).await?;
                return Ok(assigned);
            }
            reserve = Some(held);
        }
        self.unreserve(handle, cidr, reserve).await?;
        Err(Error::Contended {
            operation: "assign from",
            key: Block::key(cidr),
        })
    }

    /// The block, of whatever size, that has `address`; by listing.
    pub(super) async fn block_holding(&self, address: IpAddr) -> Result<Option<Cidr>, Error> {
        let (blocks, broken) = self.list_blocks(Family::of(address)).await?;
        for (key, reason) in broken {
            if Block::parse_key(&key).is_some_and(|c| c.contains(address)) {
                return Err(Error::BadObject { key, reason });
            }
        }
        Ok(blocks
            .iter()
            .map(|b| b.value.cidr())
            .find(|c| c.contains(address)))
    }
}

fn check_names(common: &Assignment<'_>) -> Result<(), Error> {
    let handle = sanitize_handle(common.handle);
    if handle.is_empty() || handle.contains('/') {
        return Err(Error::InvalidName {
            what: "handle",
            text: handle.to_owned(),
        });
    }
    if !common.owner.is_valid() {
        return Err(Error::InvalidName {
            what: "host",
            text: common.owner.name.clone(),
        });
    }
    Ok(())
}

/// Blocks that name the owner without an affinity we know of, as a crash leaves behind.
fn ours(run: &Run<'_>, known: &Known, pool: &Pool, start: u128) -> Vec<Cidr> {
    let owner = run.req.common.owner;
    let mut own: Vec<Cidr> = known
        .blocks
        .within(pool.cidr)
        .filter(|(c, b)| {
            !run.tried.contains(c)
                && b.value.is_owned_by(owner)
                && b.value.free(&known.reserved) > 0
        })
        .map(|(c, _)| c)
        .collect();
    own.sort_by_key(|c| walk::distance(pool, start, *c));
    own
}

/// Empty blocks of nobody, then empty blocks of others that they claimed a while ago, each
/// in the order of pools and walk.
fn reclaimable(run: &Run<'_>, known: &Known) -> Vec<Cidr> {
    let common = &run.req.common;
    let mut out = Vec::new();
    for (i, pool) in run.pools.iter().enumerate() {
        let start = walk::start(pool, &common.owner.name, run.req.seed);
        for (cidr, b) in known.blocks.within(pool.cidr) {
            let b = &b.value;
            let old = |t: Timestamp| common.now.duration_since(t).as_secs() >= RECLAIM_AGE_SECONDS;
            let idle = match b.owner() {
                Some(o) => o != *common.owner && b.claim_time().is_none_or(old),
                // An affinity of unknown shape is somebody's: leave it alone.
                None => b.affinity().is_none(),
            };
            let fits = cidr.len() == pool.block_size && b.free(&known.reserved) > 0;
            let bare = b.is_empty() && b.held().next().is_none();
            if idle && fits && bare && !run.tried.contains(&cidr) {
                out.push((
                    b.affinity().is_some(),
                    i,
                    walk::distance(pool, start, cidr),
                    cidr,
                ));
            }
        }
    }
    out.sort_unstable();
    out.into_iter().map(|(_, _, _, c)| c).collect()
}

fn exhausted(run: &Run<'_>) -> Error {
    let remedy = if run.config.strict_affinity {
        "strict affinity is on, so other nodes' free addresses are out of reach: add an IPPool or \
         free addresses (ipam check finds leaked ones)"
    } else {
        "add an IPPool or free addresses (ipam check finds leaked ones)"
    };
    Error::Exhausted {
        family: run.family,
        assigned: run.got.len(),
        requested: run.want,
        pools: run.pools.iter().map(|p| p.cidr.to_string()).collect(),
        remedy,
    }
}
