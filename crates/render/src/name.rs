//! Names of chains and sets.
//!
//! Promises: different things have different names; names fit the kernel; what people
//! named is readable in them wherever it fits, and hashed where not.
//! Never: gives a name that depends on anything but the thing.

use crate::role::Flavour;
use desired::SetId;
use model::{PolicyKey, PolicyKind};
use net::{Family, IfName};
use nftables::{ChainName, SetName};
use sha2::{Digest, Sha256};

/// Towards endpoints, or from them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Direction {
    Ingress,
    Egress,
}

impl Direction {
    pub(crate) const BOTH: [Self; 2] = [Self::Ingress, Self::Egress];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Ingress => "ingress",
            Self::Egress => "egress",
        }
    }

    const fn letter(self) -> char {
        match self {
            Self::Ingress => 'i',
            Self::Egress => 'o',
        }
    }
}

fn hash(text: &str) -> String {
    Sha256::digest(text)[..16]
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect()
}

/// `kind-text`, or `kindh-<hash of text>` where that is no name: the two never meet,
/// since no kind ends in `h`.
fn chain(kind: &str, text: &str) -> ChainName {
    ChainName::new(&format!("{kind}-{text}"))
        .or_else(|_| ChainName::new(&format!("{kind}h-{}", hash(text))))
        .expect("a short kind and 32 hexadecimal digits")
}

/// A name written in this crate.
pub(crate) fn fixed(name: &'static str) -> ChainName {
    ChainName::new(name).expect("literals in this crate are names")
}

/// A set named in this crate.
pub(crate) fn fixed_set(name: &'static str) -> SetName {
    SetName::new(name).expect("literals in this crate are names")
}

/// The short kind, as in Calico's log prefixes.
pub(crate) const fn kind(kind: PolicyKind) -> &'static str {
    match kind {
        PolicyKind::GlobalNetworkPolicy => "gnp",
        PolicyKind::NetworkPolicy => "np",
        PolicyKind::KubernetesNetworkPolicy => "knp",
        PolicyKind::KubernetesClusterNetworkPolicy => "kcnp",
        PolicyKind::StagedGlobalNetworkPolicy => "sgnp",
        PolicyKind::StagedNetworkPolicy => "snp",
        PolicyKind::StagedKubernetesNetworkPolicy => "sknp",
    }
}

/// The chain of a policy: `pi-np-default/web`.
pub(crate) fn policy(key: &PolicyKey, flavour: Flavour, direction: Direction) -> ChainName {
    let text = path(key);
    chain(
        &format!("p{}{}", direction.letter(), flavour.letter()),
        &text,
    )
}

/// What names a policy in log lines and chains: `np-default/web`.
fn path(key: &PolicyKey) -> String {
    let kind = kind(key.kind);
    match &key.namespace {
        Some(ns) => format!("{kind}-{ns}/{}", key.name),
        None => format!("{kind}-{}", key.name),
    }
}

/// The chain of a profile: `pri-kns.default`.
pub(crate) fn profile(id: &str, flavour: Flavour, direction: Direction) -> ChainName {
    chain(&format!("pr{}{}", direction.letter(), flavour.letter()), id)
}

/// A set that holds what is too long for a rule, by the chain of the rule and what tells the
/// rule from others there.
pub(crate) fn long(chain: &ChainName, text: &str, family: Family) -> SetName {
    let n = family.number();
    SetName::new(&format!("l{n}-{}", hash(&format!("{chain} {text}"))))
        .expect("hexadecimal digits fit")
}

/// Sources whose packets get this DSCP.
pub(crate) fn dscp(value: u8, family: Family) -> SetName {
    SetName::new(&format!("dscp{}-{value}", family.number())).expect("digits fit")
}

/// Names a stack of policies by what it is: equal text, equal name.
pub(crate) fn stack_id(text: &str) -> String {
    hash(text)
}

/// The `part`th chain of a stack: `tw-3fa9...` and, after tiers that may be passed,
/// `tw1-3fa9...` and on. The prefix is that of a [`crate::role::Role`].
pub(crate) fn stack(id: &str, prefix: &str, part: usize) -> ChainName {
    if part == 0 {
        chain(prefix, id)
    } else {
        chain(&format!("{prefix}{part}"), id)
    }
}

/// The chain with the further sources of an interface.
pub(crate) fn sources(interface: IfName) -> ChainName {
    chain("sw", interface.as_str())
}

/// One family's half of a set: `s:abc` is `s4-abc` and `s6-abc`.
pub(crate) fn set(id: &SetId, family: Family) -> SetName {
    let n = family.number();
    id.0.split_once(':')
        .filter(|(kind, _)| kind.bytes().all(|b| b.is_ascii_alphanumeric()))
        .and_then(|(kind, rest)| SetName::new(&format!("{kind}{n}-{rest}")).ok())
        .unwrap_or_else(|| {
            SetName::new(&format!("x-{n}-{}", hash(&id.0))).expect("hexadecimal digits fit")
        })
}

/// Declares a pair of sets, one a family.
macro_rules! pair {
    ($(#[$doc:meta])* $name:ident, $v4:literal, $v6:literal) => {
        $(#[$doc])*
        pub(crate) fn $name(family: Family) -> SetName {
            fixed_set(match family {
                Family::V4 => $v4,
                Family::V6 => $v6,
            })
        }
    };
}

pair!(
    /// Who may send VXLAN packets to this node.
    vxlan_hosts, "vxlan-hosts4", "vxlan-hosts6"
);
pair!(
    /// Sources to be translated.
    nat_sources, "nat-sources4", "nat-sources6"
);
pair!(
    /// Destinations towards which nothing is translated.
    nat_exclude, "nat-exclude4", "nat-exclude6"
);
pair!(
    /// Who may send IP in IP to this node.
    ipip_hosts, "ipip-hosts4", "ipip-hosts6"
);
pair!(
    /// Addresses of services: what goes there untranslated would come back.
    services, "services4", "services6"
);
pair!(
    /// Where DSCP marks do not go.
    dscp_exclude, "dscp-exclude4", "dscp-exclude6"
);
pair!(
    /// Floating addresses, from outside to inside.
    floating, "floating4", "floating6"
);
pair!(
    /// Floating addresses, from inside to outside.
    floating_back, "floating-back4", "floating-back6"
);
pair!(
    /// Workloads that speak to themselves through their floating address.
    floating_self, "floating-self4", "floating-self6"
);

/// Interfaces with a packet rate, by direction.
pub(crate) fn rates(direction: Direction) -> SetName {
    fixed_set(match direction {
        Direction::Ingress => "ingress-rate",
        Direction::Egress => "egress-rate",
    })
}

/// Interfaces with a number of connections, by direction.
pub(crate) fn connections(direction: Direction) -> SetName {
    fixed_set(match direction {
        Direction::Ingress => "ingress-connections",
        Direction::Egress => "egress-connections",
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::sync::Arc;

    fn key(kind: PolicyKind, namespace: Option<&str>, name: &str) -> PolicyKey {
        PolicyKey {
            kind,
            namespace: namespace.map(Arc::from),
            name: Arc::from(name),
        }
    }

    #[test]
    fn different_policies_have_different_chains_that_fit() {
        let long = "x".repeat(253);
        let keys = [
            key(PolicyKind::GlobalNetworkPolicy, None, "a"),
            key(PolicyKind::NetworkPolicy, Some("a"), "b"),
            key(PolicyKind::NetworkPolicy, Some("a/b"), "c"),
            key(PolicyKind::KubernetesNetworkPolicy, Some("a"), "b"),
            key(PolicyKind::NetworkPolicy, Some("default"), &long),
            key(PolicyKind::NetworkPolicy, Some("other"), &long),
            key(PolicyKind::GlobalNetworkPolicy, None, "snowman ☃"),
        ];
        let names: BTreeSet<_> = keys
            .iter()
            .flat_map(|k| Direction::BOTH.map(|d| policy(k, Flavour::Plain, d).to_string()))
            .collect();
        assert_eq!(names.len(), 2 * keys.len());
        assert!(names.contains("pi-np-a/b"));
    }

    #[test]
    fn sets_keep_their_hash_and_strange_ids_are_hashed() {
        let id = |s: &str| SetId(Arc::from(s));
        assert_eq!(set(&id("s:a-b_C"), Family::V4).as_str(), "s4-a-b_C");
        assert_eq!(set(&id("svc:ns/web"), Family::V6).as_str(), "svc6-ns/web");
        assert_ne!(set(&id("a b:c"), Family::V4), set(&id("a c:c"), Family::V4));
        assert_ne!(set(&id("s:x"), Family::V4), set(&id("s:x"), Family::V6));
    }
}
