//! What a change of policy may cut off: hosts that are left with their failsafe ports alone.
//!
//! Promises: names each host endpoint that some policy, or the want of any, closes. Never: proves that a
//! host stays within reach; it looks at defaults, not at packets.

use crate::convert::updates;
use crate::kinds::endpoint::HostEndpoint;
use crate::kinds::policy::Tier;
use crate::resource::Resource;
use model::{Action, Policy, PolicyKind, Rule, Selector, TierAction, Update};
use std::fmt;

/// A host endpoint that passes only what some rule allows, and the failsafe ports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Closed {
    /// Its name.
    pub host: String,
    /// The machine.
    pub node: String,
    /// The GlobalNetworkPolicy that closes it; absent where none applies and there is no profile.
    pub policy: Option<String>,
}

impl fmt::Display for Closed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (host, node) = (&self.host, &self.node);
        match &self.policy {
            Some(p) => write!(
                f,
                "GlobalNetworkPolicy({p}) applies to HostEndpoint({host}): node {node} drops what its rules do not allow"
            ),
            None => write!(
                f,
                "HostEndpoint({host}) has neither a policy nor a profile that exists: node {node} drops everything"
            ),
        }
    }
}

/// The hosts that these policies close, in a cluster with these host endpoints and tiers. Objects that do
/// not convert close nothing.
pub fn closed_hosts(policies: &[Resource], hosts: &[HostEndpoint], tiers: &[Tier]) -> Vec<Closed> {
    let policies: Vec<(String, Policy)> = policies.iter().filter_map(global).collect();
    let mut out = Vec::new();
    for h in hosts {
        let of = |policy: Option<&String>| Closed {
            host: h.metadata.name.clone(),
            node: h.spec.node.clone(),
            policy: policy.cloned(),
        };
        let mut any = false;
        for (name, p) in policies.iter().filter(|(_, p)| selects(&p.selector, h)) {
            any = true;
            if denies_by_default(p, tiers) {
                out.push(of(Some(name)));
            }
        }
        if !any && h.spec.profiles.is_empty() {
            out.push(of(None));
        }
    }
    out
}

fn global(r: &Resource) -> Option<(String, Policy)> {
    match updates(r).ok()?.pop()? {
        Update::Policy(k, Some(p)) if k.kind == PolicyKind::GlobalNetworkPolicy => {
            // These two leave to others what they do not match.
            (!p.untracked && !p.pre_dnat).then(|| (k.name.to_string(), p))
        }
        _ => None,
    }
}

fn selects(selector: &Selector, h: &HostEndpoint) -> bool {
    let labels = h.metadata.labels.iter();
    let labels = model::Labels::new(labels.map(|(k, v)| (k.as_str(), v.as_str())));
    selector.matches(&labels)
}

/// Whether a direction ends at the tier's default, and that is to drop.
fn denies_by_default(p: &Policy, tiers: &[Tier]) -> bool {
    let passes = |rules: &[Rule]| {
        let everything = |r: &Rule| {
            let plain = Rule {
                annotations: Vec::new(),
                ..r.clone()
            };
            plain == Rule::any(Action::Allow) || plain == Rule::any(Action::Pass)
        };
        rules.iter().any(everything)
    };
    let ends = p.applies_ingress && !passes(&p.ingress) || p.applies_egress && !passes(&p.egress);
    let builtin = crate::convert::builtin_tiers();
    let tier = (tiers.iter().chain(&builtin)).find(|t| *t.metadata.name == *p.tier);
    let drops = tier.is_none_or(|t| match updates(&t.clone().into()).as_deref() {
        Ok([Update::Tier(_, Some(t))]) => t.default_action == TierAction::Deny,
        _ => true,
    });
    ends && drops
}
