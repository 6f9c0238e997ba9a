//! What can go wrong with a store, in words that say what to do.

use crate::Revision;
use std::path::PathBuf;

/// Why a store did not do what it was asked to.
///
/// Each names the operation and the key or file. Only [`StoreError::Unavailable`]
/// is worth trying again unchanged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// A delete, or an update of a given revision, of a key that is not there.
    #[error("{operation} {key}: not found")]
    NotFound {
        /// `delete` or `put`.
        operation: &'static str,
        /// The key.
        key: String,
    },
    /// The precondition does not hold.
    #[error("{operation} {key}: {}", conflict_text(*.current))]
    Conflict {
        /// `delete` or `put`.
        operation: &'static str,
        /// The key.
        key: String,
        /// The revision that the key has now; `None` when it is absent.
        current: Option<Revision>,
    },
    /// The changes since that revision are no longer kept: list again.
    #[error(
        "watch from revision {from}: changes are only kept after revision {oldest}; list again"
    )]
    Compacted {
        /// Where the watch wanted to start.
        from: Revision,
        /// The oldest revision that a watch can start from.
        oldest: Revision,
    },
    /// The watch ended and its successor may start from its last revision.
    #[error("watch ended: {cause}")]
    Disconnected {
        /// Why.
        cause: String,
    },
    /// The store cannot be reached or is busy. It may be back at any time.
    #[error("{operation} {key}: the store is unavailable: {cause}")]
    Unavailable {
        /// The operation.
        operation: &'static str,
        /// The key, prefix or file.
        key: String,
        /// Why.
        cause: String,
    },
    /// Nothing more fits.
    #[error(
        "{operation} {key}: database or disk is full: {} ({cause}); free space on its file system, nothing was changed",
        .path.display()
    )]
    Full {
        /// The operation.
        operation: &'static str,
        /// The key.
        key: String,
        /// The store file.
        path: PathBuf,
        /// What the system says.
        cause: String,
    },
    /// The store file was written by a newer version.
    #[error(
        "open {}: the store has format version {found}, this program knows up to {known}; use a newer manx or another store file (MANX_STORE)",
        .path.display()
    )]
    TooNew {
        /// The store file.
        path: PathBuf,
        /// Its format version.
        found: i64,
        /// The newest that is known here.
        known: i64,
    },
    /// The store's file is damaged, or no store at all.
    #[error(
        "{operation} {}: not a usable store: {cause}; restore it from a copy, or move it away to begin with an empty store",
        .path.display()
    )]
    Corrupt {
        /// The operation.
        operation: &'static str,
        /// The store file.
        path: PathBuf,
        /// What is wrong with it.
        cause: String,
    },
    /// The store file cannot be used as things are: a directory, read-only, no permission.
    #[error("{operation} {}: {cause}; {remedy}", .path.display())]
    Unusable {
        /// The operation.
        operation: &'static str,
        /// The store file.
        path: PathBuf,
        /// What stands in the way.
        cause: String,
        /// What to do about it.
        remedy: &'static str,
    },
}

fn conflict_text(current: Option<Revision>) -> String {
    match current {
        Some(r) => format!("conflict, it is at revision {r} now"),
        None => "conflict, it does not exist".to_owned(),
    }
}

impl StoreError {
    /// Whether the same call may succeed later with nobody's help.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Unavailable { .. } | Self::Disconnected { .. })
    }

    /// Whether somebody else changed the key first.
    pub fn is_conflict(&self) -> bool {
        matches!(self, Self::Conflict { .. })
    }

    /// Whether the key is not there.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::NotFound { .. })
    }
}
