//! The operations over the store: each a sequence of compare-and-swap writes in an order
//! from which any later call can go on.
//!
//! Three rules carry the safety; `docs/design/ipam.md` has the argument.
//! 1. An assignment raises its handle's count *after* it read the block and *before* it
//!    writes it, on every attempt.
//! 2. A count is lowered only by compare-and-swap against a handle read *before* the write
//!    of the block that the lowering rests on.
//! 3. Whoever gives an affinity up reads the affinity, then the block, then marks the
//!    affinity, then writes the block, each write against the revision read; whoever
//!    confirms one writes the affinity, then the block, then confirms.

mod affinities;
mod assign;
mod io;
mod release;
mod request;
mod walk;

pub use affinities::AffinityRelease;
pub use release::{ReleaseArgs, ReleaseOutcome};
pub use request::{AssignIp, Assignment, AutoAssign, AutoAssigned, Granted};

use crate::config::{Config, config_key};
use crate::error::Error;
use crate::storage::Storage;

/// How often a loop tries again after losing a compare-and-swap.
pub(crate) const RETRIES: usize = 100;

/// The allocator over one store. Holds no state but the store: any number of them, in any
/// number of processes, may work at once.
#[derive(Debug, Clone)]
pub struct Ipam<S> {
    store: S,
}

impl<S: Storage> Ipam<S> {
    /// An allocator over `store`.
    pub const fn new(store: S) -> Self {
        Self { store }
    }

    /// The store.
    pub const fn store(&self) -> &S {
        &self.store
    }

    /// The cluster's configuration, defaults when none is stored. Stores nothing.
    ///
    /// # Errors
    /// [`Error::Storage`], [`Error::BadObject`].
    pub async fn config(&self) -> Result<Config, Error> {
        match self.store.get(&config_key()).await? {
            None => Ok(Config::default()),
            Some(s) => Config::decode(&s.value).map_err(|e| Error::BadObject {
                key: s.key,
                reason: e.to_string(),
            }),
        }
    }

    /// Stores the cluster's configuration.
    ///
    /// # Errors
    /// [`Error::InvalidConfig`] for combinations that are not legal, [`Error::Storage`],
    /// [`Error::Contended`].
    pub async fn set_config(&self, config: &Config) -> Result<(), Error> {
        config.validate().map_err(Error::InvalidConfig)?;
        let key = config_key();
        let value = config.encode();
        for _ in 0..RETRIES {
            let write = match self.store.get(&key).await? {
                None => self.store.create(&key, &value).await,
                Some(s) if s.value == value => return Ok(()),
                Some(s) => self.store.update(&key, &value, s.rev).await,
            };
            if io::landed(write)?.is_some() {
                return Ok(());
            }
        }
        Err(Error::Contended {
            operation: "set config",
            key,
        })
    }

    async fn config_or(&self, known: Option<&Config>) -> Result<Config, Error> {
        match known {
            Some(c) => Ok(c.clone()),
            None => self.config().await,
        }
    }
}
