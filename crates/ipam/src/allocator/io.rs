//! Typed reads and conditional writes.
//!
//! Promises: a tombstone reads as absent, and is finished off on the way; a lost race is
//! `None`, never an error; a store's failure is an error, never taken for a lost race.

use super::{Ipam, RETRIES};
use crate::affinity::{Affinity, AffinityState, Owner};
use crate::block::Block;
use crate::error::Error;
use crate::handle::Handle;
use crate::storage::{Storage, StorageError, Stored};
use net::Cidr;

/// A value and the revision it was read or written at.
#[derive(Debug, Clone)]
pub(crate) struct At<T> {
    pub(crate) value: T,
    pub(crate) rev: u64,
}

/// `Some` when a write happened, `None` when somebody else was first.
pub(super) fn landed<T>(r: Result<T, StorageError>) -> Result<Option<T>, Error> {
    match r {
        Ok(v) => Ok(Some(v)),
        Err(StorageError::Conflict | StorageError::NotFound) => Ok(None),
        Err(e) => Err(e.into()),
    }
}

pub(super) fn bad(key: &str, reason: impl ToString) -> Error {
    Error::BadObject {
        key: key.to_owned(),
        reason: reason.to_string(),
    }
}

pub(super) fn block_at(s: &Stored) -> Result<At<Block>, Error> {
    let value = Block::decode(&s.value).map_err(|e| bad(&s.key, e))?;
    if Block::parse_key(&s.key) != Some(value.cidr()) {
        return Err(bad(&s.key, format!("it holds block {}", value.cidr())));
    }
    Ok(At { value, rev: s.rev })
}

impl<S: Storage> Ipam<S> {
    /// Reads a live object; one marked deleted is deleted for good, for whoever marked it
    /// and died.
    async fn read<T>(
        &self,
        key: &str,
        decode: impl Fn(&Stored) -> Result<At<T>, Error>,
        dead: impl Fn(&T) -> bool,
    ) -> Result<Option<At<T>>, Error> {
        for _ in 0..RETRIES {
            let Some(s) = self.store.get(key).await? else {
                return Ok(None);
            };
            let at = decode(&s)?;
            if !dead(&at.value) {
                return Ok(Some(at));
            }
            if landed(self.store.delete(key, at.rev).await)?.is_some() {
                return Ok(None);
            }
        }
        Err(Error::Contended {
            operation: "finish the deletion of",
            key: key.to_owned(),
        })
    }

    pub(super) async fn read_block(&self, cidr: Cidr) -> Result<Option<At<Block>>, Error> {
        self.read(&Block::key(cidr), block_at, Block::is_deleted)
            .await
    }

    pub(super) async fn read_handle(&self, id: &str) -> Result<Option<At<Handle>>, Error> {
        let decode = |s: &Stored| {
            let value = Handle::decode(&s.value).map_err(|e| bad(&s.key, e))?;
            Ok(At { value, rev: s.rev })
        };
        self.read(&Handle::key(id), decode, |h| h.deleted).await
    }

    pub(super) async fn read_affinity(
        &self,
        owner: &Owner,
        cidr: Cidr,
    ) -> Result<Option<At<Affinity>>, Error> {
        // A value that cannot be read is a claim of unknown progress: pending.
        let decode = |s: &Stored| {
            let unknown = |_| Affinity::new(AffinityState::Pending);
            Ok(At {
                value: Affinity::decode(&s.value).unwrap_or_else(unknown),
                rev: s.rev,
            })
        };
        self.read(&Affinity::key(owner, cidr), decode, |a| a.deleted)
            .await
    }

    /// Writes a block over the revision it was read at, raising its sequence number. `true`
    /// when it happened; then `at` is as stored.
    pub(super) async fn write_block(&self, at: &mut At<Block>) -> Result<bool, Error> {
        at.value.touch();
        let key = Block::key(at.value.cidr());
        let rev = landed(self.store.update(&key, &at.value.encode(), at.rev).await)?;
        at.rev = rev.unwrap_or(at.rev);
        Ok(rev.is_some())
    }

    /// Writes a handle over the revision it was read at, or deletes it when it counts nothing.
    pub(super) async fn write_handle(&self, id: &str, at: &mut At<Handle>) -> Result<bool, Error> {
        let key = Handle::key(id);
        at.value.drop_nonsense();
        if at.value.is_empty() {
            return Ok(landed(self.store.delete(&key, at.rev).await)?.is_some());
        }
        let rev = landed(self.store.update(&key, &at.value.encode(), at.rev).await)?;
        at.rev = rev.unwrap_or(at.rev);
        Ok(rev.is_some())
    }

    /// All live blocks of a family, and the keys of those that cannot be read.
    pub(crate) async fn list_blocks(
        &self,
        family: net::Family,
    ) -> Result<(Vec<At<Block>>, Vec<(String, String)>), Error> {
        let mut good = Vec::new();
        let mut broken = Vec::new();
        for s in self.store.list(&Block::prefix(family)).await? {
            match block_at(&s) {
                Ok(b) if b.value.is_deleted() => {}
                Ok(b) => good.push(b),
                Err(Error::BadObject { key, reason }) => broken.push((key, reason)),
                Err(e) => return Err(e),
            }
        }
        Ok((good, broken))
    }
}
