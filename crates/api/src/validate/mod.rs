//! What a writer must refuse.
//!
//! Promises: reports everything that is wrong with an object at once; whatever passes, converts. Never:
//! changes the object; [`crate::default`] comes first.

mod bgp;
mod cluster_policy;
mod config;
mod controllers;
mod endpoint;
mod kube;
mod names;
mod policy;
mod pool;
mod rule;

pub use pool::pool_overlap;

use crate::error::{Invalid, Violation};
use crate::resource::Resource;
use model::Selector;
use net::Cidr;
use std::fmt::Display;
use std::net::IpAddr;

/// Collects what is wrong.
#[derive(Default)]
struct Check {
    violations: Vec<Violation>,
}

impl Check {
    fn fail(&mut self, field: impl Into<String>, value: impl Display, reason: impl Into<String>) {
        let v = Violation {
            field: field.into(),
            value: value.to_string(),
            reason: reason.into(),
        };
        if !self.violations.contains(&v) {
            self.violations.push(v);
        }
    }

    fn finish(self) -> Result<(), Invalid> {
        if self.violations.is_empty() {
            Ok(())
        } else {
            Err(Invalid {
                violations: self.violations,
            })
        }
    }

    /// A text from a closed list; empty is for others to judge.
    fn one_of(&mut self, field: &str, value: &str, allowed: &[&str]) {
        if !value.is_empty() && !allowed.contains(&value) {
            self.fail(
                field,
                value,
                format!("must be one of {}", allowed.join(", ")),
            );
        }
    }

    fn range(&mut self, field: &str, value: i64, low: i64, high: i64) {
        if !(low..=high).contains(&value) {
            self.fail(field, value, format!("must be between {low} and {high}"));
        }
    }

    fn at_most(&mut self, field: &str, what: &str, count: usize, limit: usize) {
        if count > limit {
            self.fail(field, count, format!("at most {limit} {what}"));
        }
    }

    /// A selector that may not use `global()`.
    fn selector(&mut self, field: &str, text: &str) {
        if let Some(s) = self.any_selector(field, text)
            && s.has_global()
        {
            self.fail(field, text, ONLY_NAMESPACE_SELECTOR);
        }
    }

    /// Any selector of at most 1024 characters.
    fn any_selector(&mut self, field: &str, text: &str) -> Option<Selector> {
        if text.chars().count() > 1024 {
            self.fail(field, text, "selector is longer than 1024 characters");
        }
        match Selector::parse(text) {
            Ok(s) => Some(s),
            Err(e) => {
                self.fail(field, text, format!("{} at column {}", e.message, e.column));
                None
            }
        }
    }

    /// A duration as Go reads it, not negative; empty is for others to judge.
    fn duration(&mut self, field: &str, text: &str) {
        if !text.is_empty() && crate::convert::go_duration(text).is_none_or(|s| s < 0.0) {
            self.fail(field, text, "must be a duration such as 90s");
        }
    }

    /// An optional address.
    fn ip(&mut self, field: &str, text: &str) {
        if !text.is_empty() && text.parse::<IpAddr>().is_err() {
            self.fail(field, text, "invalid IP address");
        }
    }

    /// A prefix without host bits, or a bare address.
    fn net(&mut self, field: &str, text: &str) -> Option<Cidr> {
        let found = match text.parse::<IpAddr>() {
            Ok(a) => Ok(Cidr::host(a)),
            Err(_) => Cidr::parse_strict(text),
        };
        match found {
            Ok(c) => Some(c),
            Err(_) => {
                let masked = text
                    .parse::<Cidr>()
                    .map(|c| format!("CIDR must be strictly masked: {c}"));
                self.fail(
                    field,
                    text,
                    masked.unwrap_or_else(|_| "invalid CIDR or IP address".to_owned()),
                );
                None
            }
        }
    }
}

const ONLY_NAMESPACE_SELECTOR: &str =
    "global() can only be used in an EntityRule namespaceSelector";

/// Checks a resource that is about to be stored, with its defaults filled in.
///
/// # Errors
/// Every violation.
pub fn validate(resource: &Resource) -> Result<(), Invalid> {
    let mut c = Check::default();
    names::check(&mut c, resource);
    match resource {
        Resource::IpPool(r) => pool::check(&mut c, &r.spec),
        Resource::IpReservation(r) => {
            for (i, n) in r.spec.reserved_cidrs.iter().enumerate() {
                c.net(&format!("spec.reservedCIDRs[{i}]"), n);
            }
        }
        Resource::Node(r) => endpoint::node(&mut c, r),
        Resource::WorkloadEndpoint(r) => endpoint::workload(&mut c, r),
        Resource::HostEndpoint(r) => endpoint::host(&mut c, r),
        Resource::Profile(r) => policy::profile(&mut c, &r.spec),
        Resource::Tier(r) => policy::tier(&mut c, r),
        Resource::NetworkPolicy(r) => policy::check(&mut c, &r.spec, false, false),
        Resource::GlobalNetworkPolicy(r) => policy::check(&mut c, &r.spec, true, false),
        Resource::StagedNetworkPolicy(r) => policy::check(&mut c, &r.spec, false, true),
        Resource::StagedGlobalNetworkPolicy(r) => policy::check(&mut c, &r.spec, true, true),
        Resource::StagedKubernetesNetworkPolicy(r) => policy::staged_kube(&mut c, &r.spec),
        Resource::NetworkSet(r) => endpoint::set(&mut c, &r.metadata, &r.spec),
        Resource::GlobalNetworkSet(r) => endpoint::set(&mut c, &r.metadata, &r.spec),
        Resource::IpamConfiguration(r) => config::ipam(&mut c, &r.spec),
        Resource::BlockAffinity(r) => {
            c.net("spec.cidr", &r.spec.cidr);
            c.one_of(
                "spec.state",
                &r.spec.state,
                &["confirmed", "pending", "pendingDeletion"],
            );
            c.one_of("spec.type", &r.spec.kind, &["host", "virtual"]);
        }
        Resource::IpamBlock(r) => {
            c.net("spec.cidr", &r.spec.cidr);
        }
        Resource::IpamHandle(r) => {
            for cidr in r.spec.block.keys() {
                c.net("spec.block", cidr);
            }
        }
        Resource::FelixConfiguration(r) => config::felix(&mut c, r),
        Resource::BgpConfiguration(r) => bgp::config(&mut c, r),
        Resource::BgpPeer(r) => bgp::peer(&mut c, r),
        Resource::BgpFilter(r) => bgp::filter(&mut c, &r.spec),
        Resource::KubeControllersConfiguration(r) => controllers::check(&mut c, &r.spec),
        Resource::CalicoNodeStatus(r) => controllers::node_status(&mut c, &r.spec),
        Resource::KubeNetworkPolicy(r) => kube::network_policy(&mut c, &r.spec),
        Resource::ClusterNetworkPolicy(r) => cluster_policy::check(&mut c, &r.spec),
        Resource::Service(r) => kube::service(&mut c, &r.spec),
        Resource::EndpointSlice(r) => kube::slice(&mut c, r),
        Resource::Secret(r) => kube::secret(&mut c, r),
        Resource::ClusterInformation(_)
        | Resource::Namespace(_)
        | Resource::ServiceAccount(_)
        | Resource::Pod(_)
        | Resource::KubeNode(_) => {}
    }
    c.finish()
}

/// Checks a change of a stored resource, on top of [`validate`] of the new one.
///
/// # Errors
/// Every field that may not change, and did.
pub fn validate_update(old: &Resource, new: &Resource) -> Result<(), Invalid> {
    let mut c = Check::default();
    if let (Resource::IpPool(o), Resource::IpPool(n)) = (old, new) {
        pool::update(&mut c, &o.spec, &n.spec);
    }
    c.finish()
}

/// Checks whether users may delete a resource, as far as the object alone tells.
///
/// # Errors
/// For the tiers that every cluster has, and the profile that nobody stores.
pub fn validate_delete(resource: &Resource) -> Result<(), Invalid> {
    let mut c = Check::default();
    let name = &resource.meta().name;
    match resource {
        Resource::Tier(_) if policy::BUILT_IN_TIERS.iter().any(|(n, _)| n == name) => {
            c.fail("metadata.name", name, format!("Cannot delete {name} tier"));
        }
        Resource::Profile(_) if name == crate::convert::DEFAULT_ALLOW => {
            c.fail(
                "metadata.name",
                name,
                "this profile is built in and read-only",
            );
        }
        _ => {}
    }
    c.finish()
}
