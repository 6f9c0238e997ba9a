//! What an expectation says once `*` and the families are spelled out.
//!
//! Promises: one check is one flow in one family, with one answer.
//!
//! Never: knows how it is found out.

use crate::ends::{End, Port};
use net::Family;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::IpAddr;

/// From where to where, with what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flow {
    /// The sender.
    pub from: End,
    /// The receiver.
    pub to: End,
    /// What is sent.
    pub port: Port,
    /// Which family, where the receiver has both; `None` is the receiver's first.
    pub family: Option<FamilyName>,
}

/// [`Family`] in JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum FamilyName {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl From<Family> for FamilyName {
    fn from(f: Family) -> Self {
        match f {
            Family::V4 => Self::V4,
            Family::V6 => Self::V6,
        }
    }
}

impl From<FamilyName> for Family {
    fn from(f: FamilyName) -> Self {
        match f {
            FamilyName::V4 => Self::V4,
            FamilyName::V6 => Self::V6,
        }
    }
}

/// What must be so.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// What to send.
    pub flow: Flow,
    /// Whether it must get through.
    pub allow: bool,
    /// The address that the receiver must have seen.
    pub source: Option<SourceIs>,
}

/// Which source address a receiver must see.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum SourceIs {
    /// The sender's own.
    Pod,
    /// One of the sender's node.
    Node,
    /// This one.
    Address(IpAddr),
}

impl fmt::Display for SourceIs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pod => f.write_str("pod"),
            Self::Node => f.write_str("node"),
            Self::Address(a) => a.fmt(f),
        }
    }
}
