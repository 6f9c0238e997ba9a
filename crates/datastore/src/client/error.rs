//! Why a resource could not be read or written, in the words that users know.

use crate::StoreError;
use api::{BadObject, Invalid, ResourceKind};

/// What went wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// It is not there.
    #[error("resource does not exist: {object} with error: {cause}")]
    NotFound {
        /// `Kind(namespace/name)`.
        object: String,
        /// More of it.
        cause: String,
    },
    /// It is there already.
    #[error("resource already exists: {object} with error: {cause}")]
    AlreadyExists {
        /// `Kind(namespace/name)`.
        object: String,
        /// More of it.
        cause: String,
    },
    /// Somebody else changed it since it was read.
    #[error("update conflict: {object}")]
    Conflict {
        /// `Kind(namespace/name)`.
        object: String,
    },
    /// It cannot be done to such a resource.
    #[error("operation {operation} is not supported on {object}: {reason}")]
    Unsupported {
        /// `create`, `update`, `delete`, `get` or `list`.
        operation: &'static str,
        /// `Kind(namespace/name)`.
        object: String,
        /// Why not.
        reason: String,
    },
    /// It breaks rules: all of them are listed.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// A Kubernetes object in a namespace that does not exist.
    #[error("namespaces \"{0}\" not found")]
    NoNamespace(String),
    /// What is stored is no such object.
    #[error("stored object is bad: {0}")]
    Bad(#[from] BadObject),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl ClientError {
    /// Whether the resource is not there.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::NotFound { .. })
    }

    /// Whether it is there already.
    pub fn is_already_exists(&self) -> bool {
        matches!(self, Self::AlreadyExists { .. })
    }

    /// Whether somebody else was first; reading again and trying again helps.
    pub fn is_conflict(&self) -> bool {
        matches!(self, Self::Conflict { .. })
    }

    pub(super) fn not_found(kind: ResourceKind, namespace: Option<&str>, name: &str) -> Self {
        Self::NotFound {
            object: object(kind, namespace, name),
            cause: format!("{} \"{name}\" not found", kind.info().plural),
        }
    }

    pub(super) fn already_exists(kind: ResourceKind, namespace: Option<&str>, name: &str) -> Self {
        Self::AlreadyExists {
            object: object(kind, namespace, name),
            cause: format!("{} \"{name}\" already exists", kind.info().plural),
        }
    }
}

/// `Kind(namespace/name)`.
pub(super) fn object(kind: ResourceKind, namespace: Option<&str>, name: &str) -> String {
    match namespace.filter(|_| kind.namespaced()) {
        Some(ns) => format!("{}({ns}/{name})", kind.name()),
        None => format!("{}({name})", kind.name()),
    }
}
