//! Who owns a block, and how far the claim has got.

use crate::wire::{
    self, ROOT, bool_or_text, cidr_from_key, cidr_in_key, family_in_key, null_default,
};
use net::{Cidr, Family};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::fmt;

/// What kind of thing an owner is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum OwnerKind {
    /// A node.
    Host,
    /// Something without a node, such as `load-balancer`.
    Virtual,
}

impl OwnerKind {
    /// Both kinds.
    pub const ALL: [Self; 2] = [Self::Host, Self::Virtual];

    /// `host` or `virtual`, as in keys and in a block's `affinity`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::Virtual => "virtual",
        }
    }
}

/// An owner of blocks; prints as a block's `affinity` does, `host:node-1`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Owner {
    /// Node or virtual.
    pub kind: OwnerKind,
    /// Its name.
    pub name: String,
}

impl Owner {
    /// The owner that is this node.
    pub fn host(name: impl Into<String>) -> Self {
        Self {
            kind: OwnerKind::Host,
            name: name.into(),
        }
    }

    /// The owner `virtual:<name>`.
    pub fn virtual_(name: impl Into<String>) -> Self {
        Self {
            kind: OwnerKind::Virtual,
            name: name.into(),
        }
    }

    /// Parses a block's `affinity`; `None` for another shape.
    pub fn parse(text: &str) -> Option<Self> {
        let (kind, name) = text.split_once(':')?;
        let kind = OwnerKind::ALL.into_iter().find(|k| k.as_str() == kind)?;
        (!name.is_empty()).then(|| Self {
            kind,
            name: name.to_owned(),
        })
    }

    /// Whether its name can be part of a key.
    pub(crate) fn is_valid(&self) -> bool {
        !self.name.is_empty() && !self.name.contains('/')
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.kind.as_str(), self.name)
    }
}

/// How far a claim has got.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum AffinityState {
    /// The block is the owner's. Also what an empty state means, from before there were states.
    #[default]
    #[serde(rename = "confirmed", alias = "")]
    Confirmed,
    /// Being claimed; the block may not exist or be somebody else's. Routing ignores it.
    #[serde(rename = "pending")]
    Pending,
    /// Being given up.
    #[serde(rename = "pendingDeletion")]
    PendingDeletion,
}

/// The stored claim of one owner on one block.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Affinity {
    /// How far it has got.
    #[serde(default, deserialize_with = "null_default")]
    pub state: AffinityState,
    /// A tombstone: readers treat the object as absent.
    #[serde(default, deserialize_with = "bool_or_text")]
    pub deleted: bool,
    /// Fields of other versions, kept as they are.
    #[serde(flatten)]
    extra: Map<String, Value>,
}

impl Affinity {
    /// An affinity in a state.
    pub fn new(state: AffinityState) -> Self {
        Self {
            state,
            ..Self::default()
        }
    }

    /// Reads a stored value. An empty value is `{}`, a confirmed affinity of old.
    ///
    /// # Errors
    /// When the value is not such JSON.
    pub fn decode(value: &[u8]) -> Result<Self, serde_json::Error> {
        if value.is_empty() || value == b"null" {
            return Ok(Self::default());
        }
        serde_json::from_slice(value)
    }

    /// The stored form.
    pub fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("strings and bools always encode")
    }

    /// `/calico/ipam/v2/host/<name>/ipv4/block/10.0.0.0-26`.
    pub fn key(owner: &Owner, cidr: Cidr) -> String {
        format!(
            "{}{}",
            Self::prefix(owner, cidr.family()),
            cidr_in_key(cidr)
        )
    }

    /// The prefix of one owner's affinities of one family.
    pub fn prefix(owner: &Owner, family: Family) -> String {
        format!(
            "{ROOT}{}/{}/{}/block/",
            owner.kind.as_str(),
            owner.name,
            family_in_key(family)
        )
    }

    /// The prefix of all affinities of a kind of owner. Other keys lie below it too.
    pub fn prefix_all(kind: OwnerKind) -> String {
        format!("{ROOT}{}/", kind.as_str())
    }

    /// Owner and block of a key, or `None` for a key of something else.
    pub fn parse_key(key: &str) -> Option<(Owner, Cidr)> {
        let rest = key.strip_prefix(ROOT)?;
        let mut parts = rest.split('/');
        let kind = parts.next()?;
        let kind = OwnerKind::ALL.into_iter().find(|k| k.as_str() == kind)?;
        let name = parts.next().filter(|n| !n.is_empty())?;
        let family = parts.next()?;
        if parts.next()? != "block" {
            return None;
        }
        let cidr = cidr_from_key(parts.next()?)?;
        let fits = parts.next().is_none() && wire::family_in_key(cidr.family()) == family;
        fits.then(|| {
            (
                Owner {
                    kind,
                    name: name.to_owned(),
                },
                cidr,
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_null_and_text_flags_are_read() {
        for text in [
            "",
            "null",
            "{}",
            r#"{"state":""}"#,
            r#"{"state":null,"deleted":"false"}"#,
        ] {
            let a = Affinity::decode(text.as_bytes()).expect(text);
            assert_eq!(
                (a.state, a.deleted),
                (AffinityState::Confirmed, false),
                "{text}"
            );
        }
        let a = Affinity::decode(br#"{"state":"pendingDeletion","deleted":"true","new":7}"#)
            .expect("valid");
        assert!(a.deleted);
        let back: Value = serde_json::from_slice(&a.encode()).expect("JSON");
        assert_eq!(
            back,
            serde_json::json!({"state":"pendingDeletion","deleted":true,"new":7})
        );
    }

    #[test]
    fn keys_round_trip() {
        let cidr: Cidr = "fd00:10::40/122".parse().expect("CIDR");
        let key = Affinity::key(&Owner::host("n-1"), cidr);
        assert_eq!(key, "/calico/ipam/v2/host/n-1/ipv6/block/fd00:10::40-122");
        assert_eq!(Affinity::parse_key(&key), Some((Owner::host("n-1"), cidr)));
        for bad in [
            "/calico/ipam/v2/host/n-1",
            "/calico/ipam/v2/host/n-1/ipv4/block/fd00:10::40-122",
            "/calico/ipam/v2/host/n-1/ipv4/block/10.0.0.1-26",
            "/calico/ipam/v2/assignment/ipv4/block/10.0.0.0-26",
        ] {
            assert_eq!(Affinity::parse_key(bad), None, "{bad}");
        }
    }
}
