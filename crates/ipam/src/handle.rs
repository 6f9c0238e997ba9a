//! Which blocks hold addresses of one holder, and how many.

use crate::wire::{ROOT, bool_or_text, null_default};
use net::Cidr;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// A handle id up to its first carriage return. Ids that came from host-local's files
/// carry the interface name behind one.
pub fn sanitize_handle(id: &str) -> &str {
    id.split('\r').next().unwrap_or(id)
}

/// The index from a holder (a container, a tunnel device) to the blocks with its addresses.
///
/// Counts may be too high, after a crash between two writes, and are never too low.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Handle {
    /// Block CIDR, as text, to number of addresses.
    #[serde(default, deserialize_with = "null_default")]
    block: BTreeMap<String, u64>,
    /// A tombstone: readers treat the object as absent.
    #[serde(default, deserialize_with = "bool_or_text")]
    pub deleted: bool,
    /// Fields of other versions, kept as they are.
    #[serde(flatten)]
    extra: Map<String, Value>,
}

impl Handle {
    /// Reads a stored value.
    ///
    /// # Errors
    /// When the value is not such JSON.
    pub fn decode(value: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(value)
    }

    /// The stored form.
    pub fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("strings and numbers always encode")
    }

    /// `/calico/ipam/v2/handle/<id>`.
    pub fn key(id: &str) -> String {
        format!("{ROOT}handle/{id}")
    }

    /// The prefix of all handles.
    pub fn prefix() -> String {
        Self::key("")
    }

    /// The id of a key, or `None` for a key of something else.
    pub fn parse_key(key: &str) -> Option<&str> {
        key.strip_prefix(ROOT)?
            .strip_prefix("handle/")
            .filter(|id| !id.is_empty() && !id.contains('/'))
    }

    /// How many addresses it counts in a block.
    pub fn count(&self, block: Cidr) -> u64 {
        self.block.get(&block.to_string()).copied().unwrap_or(0)
    }

    /// Sets the count of a block; zero removes the entry.
    pub fn set(&mut self, block: Cidr, count: u64) {
        if count == 0 {
            self.block.remove(&block.to_string());
        } else {
            self.block.insert(block.to_string(), count);
        }
    }

    /// Whether it counts nothing, so that it should not exist.
    pub fn is_empty(&self) -> bool {
        self.block.is_empty()
    }

    /// Blocks and counts. Entries that are no CIDR are skipped.
    pub fn blocks(&self) -> impl Iterator<Item = (Cidr, u64)> {
        self.block
            .iter()
            .filter_map(|(c, n)| Some((Cidr::parse_strict(c).ok()?, *n)))
    }

    /// Drops entries that are no CIDR or count nothing: no address can be behind them.
    pub(crate) fn drop_nonsense(&mut self) -> bool {
        let before = self.block.len();
        self.block
            .retain(|c, n| *n > 0 && Cidr::parse_strict(c).is_ok());
        before != self.block.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stored_form_is_stable() {
        let mut h = Handle::default();
        let b: Cidr = "10.0.0.0/26".parse().expect("CIDR");
        h.set(b, 2);
        assert_eq!(
            h.encode(),
            br#"{"block":{"10.0.0.0/26":2},"deleted":false}"#
        );
        assert_eq!(
            Handle::decode(br#"{"block":null}"#).expect("valid"),
            Handle::default()
        );
        assert_eq!(
            Handle::parse_key("/calico/ipam/v2/handle/net.abc"),
            Some("net.abc")
        );
        assert_eq!(Handle::parse_key("/calico/ipam/v2/config"), None);
        assert_eq!(sanitize_handle("abc\r\neth0"), "abc");
    }
}
