//! CNI errors.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Codes of the specification (section "Error") and those that libcni uses.
pub mod code {
    /// The configuration's version is not spoken.
    pub const INCOMPATIBLE_VERSION: u32 = 1;
    /// A field holds what is not supported.
    pub const UNSUPPORTED_FIELD: u32 = 2;
    /// The container does not exist.
    pub const UNKNOWN_CONTAINER: u32 = 3;
    /// An environment variable is missing or wrong.
    pub const INVALID_ENVIRONMENT: u32 = 4;
    /// Reading or writing failed.
    pub const IO: u32 = 5;
    /// The configuration does not parse.
    pub const DECODE: u32 = 6;
    /// The configuration parses and makes no sense.
    pub const INVALID_CONFIG: u32 = 7;
    /// The network namespace cannot be used.
    pub const INVALID_NETNS: u32 = 8;
    /// Nothing is wrong that time does not mend.
    pub const TRY_AGAIN: u32 = 11;
    /// STATUS: ADD would fail.
    pub const NOT_AVAILABLE: u32 = 50;
    /// STATUS: ADD would fail, and running containers may be affected.
    pub const NOT_AVAILABLE_LIMITED: u32 = 51;
    /// Ours: the agent could not set the container up.
    pub const SETUP: u32 = 100;
    /// Ours: no address could be assigned.
    pub const IPAM: u32 = 101;
    /// Ours: CHECK found a difference.
    pub const CHECK: u32 = 102;
}

/// An error as it is printed for the runtime.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub struct CniError {
    /// One of [`code`].
    pub code: u32,
    /// What went wrong, with what: one line.
    pub msg: String,
    /// More, such as the remedy.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub details: String,
}

impl CniError {
    /// An error without details.
    pub fn new(code: u32, msg: impl Into<String>) -> Self {
        Self {
            code,
            msg: msg.into(),
            details: String::new(),
        }
    }

    /// The same with a remedy.
    #[must_use]
    pub fn details(mut self, details: impl Into<String>) -> Self {
        self.details = details.into();
        self
    }
}

impl fmt::Display for CniError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.msg)?;
        if self.details.is_empty() {
            Ok(())
        } else {
            write!(f, "; {}", self.details)
        }
    }
}
