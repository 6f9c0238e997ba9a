//! A word of warning before a host is closed to whoever closes it.
//!
//! Promises: names the host and the way out, on standard error alone. Never: stops anything, or fails for
//! want of an answer.

use crate::CliError;
use crate::cluster::Cluster;
use crate::run::Console;
use api::kinds::endpoint::HostEndpoint;
use api::kinds::policy::Tier;
use api::{Resource, ResourceKind};

/// Warns of host endpoints that what is about to be written leaves with their failsafe ports.
pub(crate) fn warn(
    verb: &str,
    batch: &[Resource],
    cluster: &Cluster,
    console: &mut Console<'_>,
) -> Result<(), CliError> {
    let risky = |r: &Resource| {
        matches!(
            r.kind(),
            ResourceKind::GlobalNetworkPolicy | ResourceKind::HostEndpoint
        )
    };
    if verb == "delete" || !batch.iter().any(risky) {
        return Ok(());
    }
    // What is going to be refused closes nothing.
    let valid = |r: &&Resource| {
        let mut r = (*r).clone();
        api::default(&mut r);
        api::validate(&r).is_ok()
    };
    let batch: &[Resource] = &batch.iter().filter(valid).cloned().collect::<Vec<_>>();
    let policies = after(batch, cluster, ResourceKind::GlobalNetworkPolicy);
    let profiles = after(batch, cluster, ResourceKind::Profile);
    let exists = |name: &String| profiles.iter().any(|p| p.meta().name == *name);
    let hosts: Vec<HostEndpoint> = after(batch, cluster, ResourceKind::HostEndpoint)
        .into_iter()
        .filter_map(|r| match r {
            Resource::HostEndpoint(mut h) => {
                // A profile that does not exist denies; those after it are not asked.
                let known = h.spec.profiles.iter().take_while(|p| exists(p)).count();
                h.spec.profiles.truncate(known);
                Some(h)
            }
            _ => None,
        })
        .collect();
    let tiers: Vec<Tier> = after(batch, cluster, ResourceKind::Tier)
        .into_iter()
        .filter_map(|r| match r {
            Resource::Tier(t) => Some(t),
            _ => None,
        })
        .collect();
    let ours = |kind: ResourceKind, name: &str| {
        (batch.iter()).any(|r| r.kind() == kind && r.meta().name == name)
    };
    let mut warned = false;
    for closed in api::closed_hosts(&policies, &hosts, &tiers) {
        let policy = closed.policy.as_deref().unwrap_or_default();
        if ours(ResourceKind::GlobalNetworkPolicy, policy)
            || ours(ResourceKind::HostEndpoint, &closed.host)
        {
            warned = true;
            console.note(&format!("warning: {closed}, but for the failsafe ports"))?;
        }
    }
    if warned {
        let way_out =
            "warning: to be safe, have it taken back unless you confirm it: --confirm 60s";
        console.note(way_out)?;
    }
    Ok(())
}

/// All of a kind as they will be: what is stored, and over it what is about to be.
fn after(batch: &[Resource], cluster: &Cluster, kind: ResourceKind) -> Vec<Resource> {
    let mut all: Vec<Resource> = batch.iter().filter(|r| r.kind() == kind).cloned().collect();
    all.iter_mut().for_each(api::default);
    let stored = cluster.list(kind, None).map(|l| l.items);
    for r in stored.unwrap_or_default() {
        if !all.iter().any(|a| a.meta().name == r.meta().name) {
            all.push(r);
        }
    }
    all
}
