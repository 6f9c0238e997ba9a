//! Why a command did not do all that was asked, in calicoctl's words.

use daemon::store::StoreConfigError;
use datastore::StoreError;
use std::io;
use std::path::PathBuf;

/// Why a command failed. What is printed is this and its sources, joined by colons.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CliError {
    /// Nobody reads what is printed.
    #[error("write output")]
    Output(#[from] io::Error),
    /// It is not known which store to use.
    #[error(transparent)]
    Config(#[from] StoreConfigError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Addresses could not be read or changed.
    #[error(transparent)]
    Ipam(#[from] ipam::Error),
    /// A resource could not be read or changed.
    #[error(transparent)]
    Object(#[from] crate::cluster::ObjectError),
    /// A file of the user's cannot be read.
    #[error("failed to execute command: read {}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file cannot be written.
    #[error("write {}", .path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Nothing was asked for.
    #[error("No resources specified")]
    NoResources,
    /// No such kind.
    #[error("resource type '{word}' is not supported; use one of {known}")]
    UnknownKind {
        /// As the user wrote it.
        word: String,
        /// What there is.
        known: String,
    },
    /// Nothing in the input could be understood.
    #[error("failed to execute command: {0}")]
    BadInput(String),
    /// Some or all resources were refused; the text names each.
    #[error("{0}")]
    Refused(String),
    /// A command that cannot be meant.
    #[error("{0}")]
    Usage(String),
    /// Another version set the cluster up.
    #[error(
        "version mismatch.\nClient Version:   {client}\nCluster Version:  {cluster}\nUse --allow-version-mismatch to override"
    )]
    Version {
        /// This program's.
        client: String,
        /// The cluster's.
        cluster: String,
    },
    /// What was asked for is so, and that is a failure: problems with `--fail`.
    #[error("{0}")]
    Found(String),
    /// All has been said; this is the exit status.
    #[error("exit status {0}")]
    Status(u8),
}

impl CliError {
    /// The message with its causes.
    pub fn full(&self) -> String {
        let mut text = self.to_string();
        let mut source = std::error::Error::source(self);
        while let Some(s) = source {
            text.push_str(": ");
            text.push_str(&s.to_string());
            source = s.source();
        }
        text
    }

    /// Whether it is only that the reader of the output went away.
    pub(crate) fn is_closed_pipe(&self) -> bool {
        matches!(self, Self::Output(e) if e.kind() == io::ErrorKind::BrokenPipe)
    }
}
