//! The one IPAM configuration of a cluster.

use crate::wire::ROOT;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The limit of blocks per host where neither configuration nor request sets one.
pub const DEFAULT_MAX_BLOCKS: u32 = 20;

/// The longest cool-down that is legal, in seconds.
pub const MAX_COOLDOWN_SECONDS: u32 = 1200;

/// `/calico/ipam/v2/config`.
pub fn config_key() -> String {
    format!("{ROOT}config")
}

/// Cluster-wide settings. Reading them never stores the defaults.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// A host assigns from its own blocks only.
    pub strict_affinity: bool,
    /// Hosts claim blocks when they need one.
    pub auto_allocate_blocks: bool,
    /// Blocks per host and family; 0 means [`DEFAULT_MAX_BLOCKS`].
    pub max_blocks_per_host: u32,
    /// `Enabled` or `Disabled`; stored for others, not used here.
    pub kubevirt_vm_address_persistence: Option<String>,
    /// How long a freed address rests before it is given out again, in seconds.
    pub ip_cooldown_seconds: u32,
    /// Fields of other versions, kept as they are.
    pub extra: Map<String, Value>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            strict_affinity: false,
            auto_allocate_blocks: true,
            max_blocks_per_host: 0,
            kubevirt_vm_address_persistence: None,
            ip_cooldown_seconds: 0,
            extra: Map::new(),
        }
    }
}

/// The stored spelling. Go drops false and zero when it writes, hence the options.
#[derive(Serialize, Deserialize)]
struct Wire {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    strict_affinity: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    auto_allocate_blocks: Option<bool>,
    #[serde(
        default,
        rename = "maxBlocksPerHost",
        skip_serializing_if = "Option::is_none"
    )]
    max_blocks_per_host: Option<i64>,
    #[serde(
        default,
        rename = "kubeVirtVMAddressPersistence",
        skip_serializing_if = "Option::is_none"
    )]
    kubevirt_vm_address_persistence: Option<String>,
    #[serde(
        default,
        rename = "ipCooldownSeconds",
        skip_serializing_if = "Option::is_none"
    )]
    ip_cooldown_seconds: Option<i64>,
    #[serde(flatten)]
    extra: Map<String, Value>,
}

impl Config {
    /// Reads a stored value. A missing `auto_allocate_blocks` is false, since that is how
    /// false is written, but only beside strict affinity: both false is not legal.
    ///
    /// # Errors
    /// When the value is not such JSON.
    pub fn decode(value: &[u8]) -> Result<Self, serde_json::Error> {
        let w: Wire = serde_json::from_slice(value)?;
        let strict = w.strict_affinity.unwrap_or(false);
        let count = |n: Option<i64>| u32::try_from(n.unwrap_or(0).max(0)).unwrap_or(u32::MAX);
        Ok(Self {
            strict_affinity: strict,
            auto_allocate_blocks: w.auto_allocate_blocks.unwrap_or(!strict),
            max_blocks_per_host: count(w.max_blocks_per_host),
            kubevirt_vm_address_persistence: w.kubevirt_vm_address_persistence,
            ip_cooldown_seconds: count(w.ip_cooldown_seconds),
            extra: w.extra,
        })
    }

    /// The stored form.
    pub fn encode(&self) -> Vec<u8> {
        let w = Wire {
            strict_affinity: Some(self.strict_affinity),
            auto_allocate_blocks: Some(self.auto_allocate_blocks),
            max_blocks_per_host: Some(i64::from(self.max_blocks_per_host)),
            kubevirt_vm_address_persistence: self.kubevirt_vm_address_persistence.clone(),
            ip_cooldown_seconds: Some(i64::from(self.ip_cooldown_seconds)),
            extra: self.extra.clone(),
        };
        serde_json::to_vec(&w).expect("strings and numbers always encode")
    }

    /// Whether the combination is legal, and why not.
    ///
    /// # Errors
    /// The sentence to show the user.
    pub fn validate(&self) -> Result<(), &'static str> {
        if !self.strict_affinity && !self.auto_allocate_blocks {
            return Err(
                "cannot disable 'StrictAffinity' and 'AutoAllocateBlocks' at the same time",
            );
        }
        if self.max_blocks_per_host > 0 && !self.strict_affinity {
            return Err("'MaxBlocksPerHost' needs 'StrictAffinity' to be true");
        }
        if self.ip_cooldown_seconds > MAX_COOLDOWN_SECONDS {
            return Err("'IPCooldownSeconds' must be between 0 and 1200");
        }
        Ok(())
    }

    /// Blocks per host and family: the smaller of the limits that are set, or the default.
    pub fn block_limit(&self, request: Option<u32>) -> u32 {
        [self.max_blocks_per_host, request.unwrap_or(0)]
            .into_iter()
            .filter(|n| *n > 0)
            .min()
            .unwrap_or(DEFAULT_MAX_BLOCKS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absent_fields_read_as_the_peer_means_them() {
        assert_eq!(Config::decode(b"{}").expect("valid"), Config::default());
        let c = Config::decode(br#"{"strict_affinity":true}"#).expect("valid");
        assert!(c.strict_affinity && !c.auto_allocate_blocks);
        let c = Config::decode(br#"{"auto_allocate_blocks":true,"maxBlocksPerHost":3,"x":[1]}"#)
            .expect("valid");
        assert_eq!(Config::decode(&c.encode()).expect("valid"), c);
    }

    #[test]
    fn illegal_combinations_are_named() {
        let ok = Config::default();
        assert_eq!(ok.validate(), Ok(()));
        assert!(
            Config {
                auto_allocate_blocks: false,
                ..ok.clone()
            }
            .validate()
            .is_err()
        );
        assert!(
            Config {
                max_blocks_per_host: 1,
                ..ok.clone()
            }
            .validate()
            .is_err()
        );
        assert!(
            Config {
                ip_cooldown_seconds: 1201,
                ..ok.clone()
            }
            .validate()
            .is_err()
        );
        let strict = Config {
            strict_affinity: true,
            max_blocks_per_host: 7,
            ..ok
        };
        assert_eq!(strict.validate(), Ok(()));
        assert_eq!(strict.block_limit(Some(3)), 3);
        assert_eq!(strict.block_limit(None), 7);
        assert_eq!(Config::default().block_limit(Some(0)), 20);
    }
}
