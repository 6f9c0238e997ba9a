//! Rules between objects: what a store without an API server has to hold itself.
//!
//! They look at the store and then let the write happen, so two writers at one moment
//! can pass each other; what calculation does with the outcome stays closed.

use super::error::object;
use super::{Client, ClientError};
use api::{Invalid, Resource, ResourceKind, Violation};

/// Names of profiles that namespaces and service accounts become.
const DERIVED_PROFILES: [&str; 2] = ["kns.", "ksa."];

fn invalid(field: &str, value: &str, reason: String) -> ClientError {
    ClientError::Invalid(Invalid {
        violations: vec![Violation {
            field: field.to_owned(),
            value: value.to_owned(),
            reason,
        }],
    })
}

fn unsupported(operation: &'static str, r: &Resource, reason: &str) -> ClientError {
    ClientError::Unsupported {
        operation,
        object: r.to_string(),
        reason: reason.to_owned(),
    }
}

fn tier_of(r: &Resource) -> Option<&str> {
    let tier = match r {
        Resource::NetworkPolicy(p) => &p.spec.tier,
        Resource::GlobalNetworkPolicy(p) => &p.spec.tier,
        Resource::StagedNetworkPolicy(p) => &p.spec.tier,
        Resource::StagedGlobalNetworkPolicy(p) => &p.spec.tier,
        _ => return None,
    };
    Some(if tier.is_empty() { "default" } else { tier })
}

impl Client {
    /// Before a resource is created (`old` absent) or replaced.
    pub(super) async fn check_write(
        &self,
        operation: &'static str,
        new: &Resource,
        old: Option<&Resource>,
    ) -> Result<(), ClientError> {
        let meta = new.meta();
        match new {
            Resource::IpPool(pool) if old.is_none() => {
                let others = self.list(ResourceKind::IpPool, None).await?.resources;
                let others = others.iter().filter_map(|r| match r {
                    Resource::IpPool(p) => Some(p),
                    _ => None,
                });
                if let Some(overlap) = api::pool_overlap(pool, others) {
                    return Err(overlap.into());
                }
            }
            Resource::Profile(_) => {
                let name = &meta.name;
                let built_in = *name == api::default_allow_profile().metadata.name;
                if built_in || DERIVED_PROFILES.iter().any(|p| name.starts_with(p)) {
                    let reason = "it follows from a namespace or service account, or is built in";
                    return Err(unsupported(operation, new, reason));
                }
            }
            Resource::WorkloadEndpoint(w) if w.spec.orchestrator == "k8s" => {
                let reason = "it follows from its pod; change the pod";
                return Err(unsupported(operation, new, reason));
            }
            _ => {}
        }
        if let Some(tier) = tier_of(new)
            && old.and_then(tier_of) != Some(tier)
            && self
                .entry(operation, ResourceKind::Tier, None, tier)
                .await?
                .is_none()
        {
            return Err(invalid(
                "spec.tier",
                tier,
                "the tier does not exist; create it first (kind: Tier)".to_owned(),
            ));
        }
        if let Resource::BgpPeer(peer) = new {
            self.check_filters(operation, &peer.spec.filters).await?;
        }
        if new.kind().is_kube()
            && old.is_none()
            && let Some(ns) = new.namespace()
            && self
                .entry(operation, ResourceKind::Namespace, None, ns)
                .await?
                .is_none()
        {
            return Err(ClientError::NoNamespace(ns.to_owned()));
        }
        Ok(())
    }

    /// A peer whose filters are missing would get and give everything.
    async fn check_filters(
        &self,
        operation: &'static str,
        filters: &[String],
    ) -> Result<(), ClientError> {
        let kind = ResourceKind::BgpFilter;
        let mut missing = Vec::new();
        for name in filters {
            if self.entry(operation, kind, None, name).await?.is_none() {
                missing.push(name.as_str());
            }
        }
        if missing.is_empty() {
            return Ok(());
        }
        let reason = "BGPFilter(s) not found".to_owned();
        Err(invalid("spec.filters", &missing.join(","), reason))
    }

    /// Before a resource is deleted.
    pub(super) async fn check_delete(&self, old: &Resource) -> Result<(), ClientError> {
        if let Err(e) = api::validate_delete(old) {
            let reasons: Vec<_> = e.violations.into_iter().map(|v| v.reason).collect();
            return Err(unsupported("delete", old, &reasons.join("; ")));
        }
        let Resource::Tier(tier) = old else {
            return Ok(());
        };
        for kind in [
            ResourceKind::GlobalNetworkPolicy,
            ResourceKind::NetworkPolicy,
            ResourceKind::StagedGlobalNetworkPolicy,
            ResourceKind::StagedNetworkPolicy,
        ] {
            let listed = self.list(kind, None).await?;
            let of_it = |p: &&Resource| tier_of(p) == Some(&tier.metadata.name);
            if let Some(policy) = listed.resources.iter().find(of_it) {
                let name = object(kind, policy.namespace(), &policy.meta().name);
                let reason = format!("Cannot delete a non-empty tier: {name} is in it");
                return Err(unsupported("delete", old, &reason));
            }
        }
        Ok(())
    }
}
