//! Changes that take themselves back unless somebody confirms them in time.
//!
//! Whoever changes something risky from afar may lose the very connection that it would mend it over.
//! So the promise to take it back lies in the store, under [`PREFIX`], before the first change is
//! made: what was there, what is meant to be there, and until when. Any agent that sees the
//! deadline pass keeps the promise.
//!
//! Promises: a crash at any point leaves a record that still takes back what was done; an object that
//! somebody else has changed since is left as it is and named; any number of agents may do the same
//! at once; either the confirmation counts or the taking back, never both.
//!
//! Never: reads a clock; the time is an argument, and so is the id ([`new_id`] makes one).

mod keep;
mod record;

pub use keep::Told;
pub use record::{Change, Outcome, Pending, State};

use crate::client::codec;
use crate::{Client, ClientError, Entry, Precondition, Revision, Store, StoreError};
use api::{Resource, ResourceKind};
use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use std::sync::Arc;

/// Where the records lie: one for each `--confirm`, under its id.
pub const PREFIX: &str = "/manx/v1/pending/";

/// How often an object is looked at again that somebody else writes at the same moment.
const RETRIES: usize = 5;

/// How long what became of a record can be asked for.
const KEPT: SignedDuration = SignedDuration::from_hours(24);

/// Why a record could not be made, confirmed or followed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PendingError {
    /// No such record: it was confirmed, or never was.
    #[error("no change {0} waits for confirmation; see them with: manx confirm --list")]
    NotFound(String),
    /// The taking back has begun.
    #[error("change {id} is taken back already; apply it again if it is wanted")]
    TooLate {
        /// Which.
        id: String,
    },
    /// What is stored is no record.
    #[error("{key} is no record of a change: {reason}")]
    Bad {
        /// Where.
        key: String,
        /// Why not.
        reason: String,
    },
    /// Somebody else changes the record all the time.
    #[error("change {0} is being changed by others; try again")]
    Busy(String),
    /// An object could not be read.
    #[error(transparent)]
    Object(#[from] ClientError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What somebody is about to do to an object.
#[derive(Debug, Clone, PartialEq)]
pub enum Intent {
    /// Store it so, whether it is there or not.
    Write(Resource),
    /// Delete the object of this kind, namespace and name.
    Delete(Resource),
}

/// The records of a store.
#[derive(Debug, Clone)]
pub struct Pendings {
    client: Client,
}

impl Pendings {
    /// Of a store.
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self {
            client: Client::new(store),
        }
    }

    fn store(&self) -> &Arc<dyn Store> {
        self.client.store()
    }

    /// Reads what is there now and stores the promise to restore it, before anything is changed.
    /// `id` is new and unique, `command` what people recognise the change by.
    ///
    /// # Errors
    /// When an object cannot be read, or the record cannot be stored: then nothing may be changed.
    pub async fn arm(
        &self,
        id: &str,
        command: &str,
        intents: Vec<Intent>,
        now: Timestamp,
        timeout: SignedDuration,
    ) -> Result<Pending, PendingError> {
        let mut changes = Vec::new();
        for intent in intents {
            let (of, after) = match intent {
                Intent::Write(mut r) => {
                    api::default(&mut r);
                    (r.clone(), Some(r))
                }
                Intent::Delete(r) => (r, None),
            };
            let (kind, name) = (of.kind(), of.meta().name.clone());
            let namespace = of.namespace().map(str::to_owned);
            let found = self
                .client
                .entry("get", kind, namespace.as_deref(), &name)
                .await?;
            let (before, before_revision) = match found {
                Some((r, entry)) => (Some(r), Some(entry.revision)),
                None => (None, None),
            };
            changes.push(Change {
                kind,
                namespace,
                name,
                before,
                before_revision,
                after,
                revision: None,
            });
        }
        let pending = Pending {
            id: id.to_owned(),
            command: command.to_owned(),
            created: now,
            deadline: later(now, timeout),
            state: State::Pending,
            changes,
            ended: None,
            by: None,
            outcomes: Vec::new(),
        };
        let value = Bytes::from(pending.encode()?);
        let key = key(id);
        self.store().put(&key, value, Precondition::Absent).await?;
        Ok(pending)
    }

    /// After the changes: those that happened, each with the version that it has now, and the time
    /// from which the deadline counts. Without changes the record is gone.
    ///
    /// # Errors
    /// As [`Pendings::confirm`].
    pub async fn settle(
        &self,
        id: &str,
        now: Timestamp,
        timeout: SignedDuration,
        done: impl Fn(&Change) -> Option<Option<Revision>>,
    ) -> Result<Option<Pending>, PendingError> {
        let settled = self
            .change(id, |p| {
                if p.state != State::Pending {
                    return Err(PendingError::TooLate { id: id.to_owned() });
                }
                p.deadline = later(now, timeout);
                p.changes.retain_mut(|c| match done(c) {
                    None => false,
                    Some(revision) => {
                        c.revision = revision;
                        revision.is_none() || revision != c.before_revision
                    }
                });
                Ok(())
            })
            .await?;
        if settled.changes.is_empty() {
            self.remove(id).await?;
            return Ok(None);
        }
        Ok(Some(settled))
    }

    /// The changes stay. Gives the record, which is gone.
    ///
    /// # Errors
    /// `NotFound`, `TooLate` once the taking back has begun, or the store's.
    pub async fn confirm(&self, id: &str) -> Result<Pending, PendingError> {
        for _ in 0..RETRIES {
            let (pending, entry) = self.read(id).await?;
            if pending.state != State::Pending {
                return Err(PendingError::TooLate { id: id.to_owned() });
            }
            let at = Precondition::Revision(entry.revision);
            match self.store().delete(&entry.key, at).await {
                Ok(_) => return Ok(pending),
                Err(StoreError::Conflict { .. } | StoreError::NotFound { .. }) => {}
                Err(e) => return Err(e.into()),
            }
        }
        Err(PendingError::Busy(id.to_owned()))
    }

    /// Every record, the oldest first, and what is stored there and is none.
    ///
    /// # Errors
    /// The store's.
    pub async fn list(&self) -> Result<(Vec<Pending>, Vec<PendingError>), PendingError> {
        Ok(self.listed().await.map(|(p, bad, _)| (p, bad))?)
    }

    async fn listed(&self) -> Result<(Vec<Pending>, Vec<PendingError>, Revision), StoreError> {
        let listing = self.store().list(PREFIX).await?;
        let (mut all, mut bad) = (Vec::new(), Vec::new());
        for entry in &listing.entries {
            match Pending::decode(&entry.key, &entry.value) {
                Ok(p) => all.push(p),
                Err(e) => bad.push(e),
            }
        }
        all.sort_by(|a: &Pending, b| (a.created, &a.id).cmp(&(b.created, &b.id)));
        Ok((all, bad, listing.revision))
    }

    /// Those whose time has come, or whose taking back somebody has begun.
    ///
    /// # Errors
    /// The store's.
    pub async fn due(&self, now: Timestamp) -> Result<Vec<Pending>, PendingError> {
        let (mut all, ..) = self.listed().await?;
        all.retain(|p| p.is_due(now));
        Ok(all)
    }

    /// Takes the changes back, the last first, and notes what became of each; `by` says who.
    ///
    /// # Errors
    /// `NotFound`, or the store's: the next one who tries goes on where this ended.
    pub async fn roll_back(
        &self,
        id: &str,
        now: Timestamp,
        by: &str,
    ) -> Result<Pending, PendingError> {
        let begun = self
            .change(id, |p| {
                if p.state == State::Pending {
                    p.state = State::RollingBack;
                }
                Ok(())
            })
            .await?;
        if begun.state == State::RolledBack {
            return Ok(begun);
        }
        let mut outcomes = Vec::new();
        for change in begun.changes.iter().rev() {
            let outcome = self.restore(change).await?;
            outcomes.push((change.object(), outcome));
        }
        self.change(id, |p| {
            // Of several who did the same, the first one's account stays.
            if p.state != State::RolledBack {
                p.state = State::RolledBack;
                p.ended = Some(now);
                p.by = Some(by.to_owned());
                p.outcomes.clone_from(&outcomes);
            }
            Ok(())
        })
        .await
    }

    /// One object, back to what it was.
    async fn restore(&self, c: &Change) -> Result<Outcome, PendingError> {
        let namespace = c.namespace.as_deref();
        let key = codec::location("restore", c.kind, namespace, &c.name)?;
        for _ in 0..RETRIES {
            let entry = self.store().get(&key).await?;
            let now = match &entry {
                None => None,
                Some(e) => match codec::read(c.kind, namespace, &c.name, e) {
                    Ok(r) => Some(r),
                    Err(e) => return Ok(Outcome::Left(format!("it cannot be read: {e}"))),
                },
            };
            let step = match c.step(now.as_ref(), entry.as_ref().map(|e| e.revision)) {
                Err(outcome) => return Ok(outcome),
                Ok(step) => step,
            };
            let done = match (step, &entry) {
                (None, Some(e)) => {
                    let at = Precondition::Revision(e.revision);
                    self.store().delete(&key, at).await
                }
                (None, None) => return Ok(Outcome::Unchanged),
                (Some(before), e) => {
                    let at = e
                        .as_ref()
                        .map_or(Precondition::Absent, |e| Precondition::Revision(e.revision));
                    let value = codec::write(before, e.as_ref())?;
                    self.store().put(&key, value, at).await
                }
            };
            match done {
                Ok(_) => return Ok(Outcome::Restored),
                Err(StoreError::Conflict { .. } | StoreError::NotFound { .. }) => {}
                Err(e) => return Err(e.into()),
            }
        }
        let reason = "others write it all the time".to_owned();
        Ok(Outcome::Left(reason))
    }

    /// Forgets what ended long ago.
    ///
    /// # Errors
    /// The store's.
    pub async fn sweep(&self, now: Timestamp) -> Result<(), PendingError> {
        let (all, ..) = self.listed().await?;
        for p in all {
            if p.ended.is_some_and(|at| later(at, KEPT) <= now) {
                self.remove(&p.id).await?;
            }
        }
        Ok(())
    }

    async fn remove(&self, id: &str) -> Result<(), StoreError> {
        match self.store().delete(&key(id), Precondition::Any).await {
            Ok(_) | Err(StoreError::NotFound { .. }) => Ok(()),
            Err(e) => Err(e),
        }
    }

    async fn read(&self, id: &str) -> Result<(Pending, Entry), PendingError> {
        let found = self.store().get(&key(id)).await?;
        let entry = found.ok_or_else(|| PendingError::NotFound(id.to_owned()))?;
        Ok((Pending::decode(&entry.key, &entry.value)?, entry))
    }

    /// Changes a record, anew when somebody else was first; writes nothing where nothing changes.
    async fn change(
        &self,
        id: &str,
        edit: impl Fn(&mut Pending) -> Result<(), PendingError>,
    ) -> Result<Pending, PendingError> {
        for _ in 0..RETRIES {
            let (before, entry) = self.read(id).await?;
            let mut pending = before.clone();
            edit(&mut pending)?;
            if pending == before {
                return Ok(pending);
            }
            let value = Bytes::from(pending.encode()?);
            let at = Precondition::Revision(entry.revision);
            match self.store().put(&entry.key, value, at).await {
                Ok(_) => return Ok(pending),
                Err(StoreError::Conflict { .. } | StoreError::NotFound { .. }) => {}
                Err(e) => return Err(e.into()),
            }
        }
        Err(PendingError::Busy(id.to_owned()))
    }
}

/// A new id, short enough to be typed.
pub fn new_id() -> String {
    let mut id = uuid::Uuid::new_v4().simple().to_string();
    id.truncate(8);
    id
}

/// The key of a record.
fn key(id: &str) -> String {
    format!("{PREFIX}{id}")
}

/// A moment that far ahead; the last one that there is, if that is too far.
fn later(from: Timestamp, by: SignedDuration) -> Timestamp {
    from.saturating_add(by).unwrap_or(Timestamp::MAX)
}

/// Whether a change of such an object can be taken back: deleting one of these takes others along.
pub const fn can_restore(kind: ResourceKind) -> bool {
    !matches!(
        kind,
        ResourceKind::IpPool
            | ResourceKind::Node
            | ResourceKind::IpamBlock
            | ResourceKind::IpamHandle
            | ResourceKind::BlockAffinity
    )
}
