//! A record as it is stored: JSON under its id.

use super::{PendingError, key};
use crate::Revision;
use api::{Resource, ResourceKind, parse_key};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::fmt;

/// How far it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum State {
    /// It waits for its deadline or a confirmation.
    Pending,
    /// Somebody takes it back; a confirmation comes too late.
    RollingBack,
    /// It was taken back.
    RolledBack,
}

/// What became of one object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Outcome {
    /// It is what it was before.
    Restored,
    /// It was so already: the change never happened, or somebody else took it back.
    Unchanged,
    /// It was left as it is, and why.
    Left(String),
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Restored => f.write_str("restored"),
            Self::Unchanged => f.write_str("as it was before"),
            Self::Left(why) => write!(f, "left as it is: {why}"),
        }
    }
}

/// One object's change.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// Its kind.
    pub kind: ResourceKind,
    /// Its namespace, for kinds that have one.
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
    /// What it was; absent when it did not exist.
    pub before: Option<Resource>,
    /// The version that it had.
    pub before_revision: Option<Revision>,
    /// What it is meant to be; absent when it is deleted.
    pub after: Option<Resource>,
    /// The version that the change gave it, once that is known.
    pub revision: Option<Revision>,
}

/// A promise to take changes back.
#[derive(Debug, Clone, PartialEq)]
pub struct Pending {
    /// What it is confirmed by.
    pub id: String,
    /// What people recognise it by.
    pub command: String,
    /// When it was made.
    pub created: Timestamp,
    /// When it is taken back.
    pub deadline: Timestamp,
    /// How far it is.
    pub state: State,
    /// In the order in which they were made.
    pub changes: Vec<Change>,
    /// When it was taken back.
    pub ended: Option<Timestamp>,
    /// Who took it back.
    pub by: Option<String>,
    /// What became of each object, by its name.
    pub outcomes: Vec<(String, Outcome)>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Stored {
    id: String,
    command: String,
    created: String,
    deadline: String,
    state: State,
    changes: Vec<StoredChange>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ended: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    by: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    outcomes: Vec<(String, Outcome)>,
}

/// `key` is the resource's own, from which its kind, namespace and name are read.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct StoredChange {
    key: String,
    before: Option<Value>,
    before_revision: Option<u64>,
    after: Option<Value>,
    revision: Option<u64>,
}

impl Pending {
    /// Whether its time has come, or its taking back has begun.
    pub fn is_due(&self, now: Timestamp) -> bool {
        match self.state {
            State::Pending => self.deadline <= now,
            State::RollingBack => true,
            State::RolledBack => false,
        }
    }

    pub(super) fn encode(&self) -> Result<Vec<u8>, PendingError> {
        let bad = |reason: String| PendingError::Bad {
            key: key(&self.id),
            reason,
        };
        let object = |r: &Option<Resource>| -> Result<Option<Value>, PendingError> {
            let Some(r) = r else { return Ok(None) };
            let bytes = api::encode(r).map_err(|e| bad(e.to_string()))?;
            let value = serde_json::from_slice(&bytes).map_err(|e| bad(e.to_string()))?;
            Ok(Some(value))
        };
        let change = |c: &Change| {
            Ok(StoredChange {
                key: api::key(c.kind, c.namespace.as_deref(), &c.name),
                before: object(&c.before)?,
                before_revision: c.before_revision.map(|r| r.0),
                after: object(&c.after)?,
                revision: c.revision.map(|r| r.0),
            })
        };
        let stored = Stored {
            id: self.id.clone(),
            command: self.command.clone(),
            created: self.created.to_string(),
            deadline: self.deadline.to_string(),
            state: self.state,
            changes: (self.changes.iter().map(change)).collect::<Result<_, PendingError>>()?,
            ended: self.ended.map(|t| t.to_string()),
            by: self.by.clone(),
            outcomes: self.outcomes.clone(),
        };
        serde_json::to_vec(&stored).map_err(|e| bad(e.to_string()))
    }

    pub(super) fn decode(at: &str, bytes: &[u8]) -> Result<Self, PendingError> {
        let bad = |reason: String| PendingError::Bad {
            key: at.to_owned(),
            reason,
        };
        let stored: Stored = serde_json::from_slice(bytes).map_err(|e| bad(e.to_string()))?;
        let time = |t: &str| -> Result<Timestamp, PendingError> {
            t.parse().map_err(|e| bad(format!("{t:?}: {e}")))
        };
        let change = |c: StoredChange| -> Result<Change, PendingError> {
            let at = parse_key(&c.key).ok_or_else(|| bad(format!("{:?} is no key", c.key)))?;
            let object = |v: Option<Value>, revision: Option<u64>| {
                let Some(v) = v else { return Ok(None) };
                let revision = revision.map(|r| r.to_string());
                api::decode(&at, v.to_string().as_bytes(), revision.as_deref())
                    .map(Some)
                    .map_err(|e| bad(e.to_string()))
            };
            Ok(Change {
                before: object(c.before, c.before_revision)?,
                after: object(c.after, None)?,
                kind: at.kind,
                namespace: at.namespace.map(str::to_owned),
                name: at.name.to_owned(),
                before_revision: c.before_revision.map(Revision),
                revision: c.revision.map(Revision),
            })
        };
        Ok(Self {
            created: time(&stored.created)?,
            deadline: time(&stored.deadline)?,
            ended: stored.ended.as_deref().map(time).transpose()?,
            changes: (stored.changes.into_iter().map(change)).collect::<Result<_, _>>()?,
            id: stored.id,
            command: stored.command,
            state: stored.state,
            by: stored.by,
            outcomes: stored.outcomes,
        })
    }
}

impl Change {
    /// `Kind(namespace/name)`.
    pub fn object(&self) -> String {
        match &self.namespace {
            Some(ns) => format!("{}({ns}/{})", self.kind.name(), self.name),
            None => format!("{}({})", self.kind.name(), self.name),
        }
    }

    /// What takes it back: the object to store, or `None` to delete it; or the outcome, when nothing
    /// is to be done.
    pub(super) fn step(
        &self,
        now: Option<&Resource>,
        revision: Option<Revision>,
    ) -> Result<Option<&Resource>, Outcome> {
        let left = |why: &str| Err(Outcome::Left(why.to_owned()));
        if same(now, self.before.as_ref()) {
            return Err(Outcome::Unchanged);
        }
        match (now, &self.after) {
            (None, None) => Ok(self.before.as_ref()),
            (None, Some(_)) => left("somebody has deleted it since"),
            (Some(_), None) => left("somebody has created it anew since"),
            (Some(_), Some(_)) if self.revision.is_some() && self.revision != revision => {
                left("somebody has changed it since")
            }
            // A program that died before it could note the version leaves the content to compare.
            (Some(_), Some(_)) if self.revision.is_none() && !same(now, self.after.as_ref()) => {
                left("somebody has changed it since")
            }
            (Some(_), Some(_)) => Ok(self.before.as_ref()),
        }
    }
}

/// Whether both say the same, but for what a store stamps on objects.
fn same(a: Option<&Resource>, b: Option<&Resource>) -> bool {
    let plain = |r: &Resource| {
        let mut r = r.clone();
        let meta = r.meta_mut();
        meta.uid.clear();
        meta.resource_version.clear();
        meta.creation_timestamp = None;
        meta.generation = None;
        meta.managed_fields.clear();
        r
    };
    match (a, b) {
        (None, None) => true,
        (Some(a), Some(b)) => plain(a) == plain(b),
        _ => false,
    }
}
