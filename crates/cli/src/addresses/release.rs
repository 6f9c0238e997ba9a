//! `ipam release`.
//!
//! Promises: from a report, only an assignment that every report and a check made now call leaked,
//! by its handle and sequence number: an address that has a new holder is left alone.

use super::check::findings;
use super::pools;
use super::report::{Allocation, Report};
use crate::CliError;
use crate::args::ReleaseArgs;
use crate::cluster::Cluster;
use crate::run::Console;
use ipam::ReleaseOption;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::PathBuf;

pub(crate) fn run(
    args: &ReleaseArgs,
    cluster: &Cluster,
    console: &mut Console<'_>,
) -> Result<(), CliError> {
    match args.ip {
        Some(address) => one(address, cluster, console),
        None => from_reports(args, cluster, console),
    }
}

fn one(address: IpAddr, cluster: &Cluster, console: &mut Console<'_>) -> Result<(), CliError> {
    let outcome = cluster.release(&[ReleaseOption::any(address)])?;
    if outcome.unallocated.contains(&address) {
        let outside = !pools(cluster)?.iter().any(|p| p.cidr.contains(address));
        let hint = if outside { "; it is in no IP pool" } else { "" };
        return Err(CliError::Usage(format!(
            "IP address {address} is not assigned{hint}"
        )));
    }
    console.print(&format!("Successfully released IP address {address}\n"))
}

fn from_reports(
    args: &ReleaseArgs,
    cluster: &Cluster,
    console: &mut Console<'_>,
) -> Result<(), CliError> {
    let reports = args
        .from_report
        .iter()
        .map(read)
        .collect::<Result<Vec<_>, _>>()?;
    let information = cluster.information()?.unwrap_or_default();
    for (path, r) in &reports {
        let refused = |why: &str| Err(CliError::Usage(format!("report {}: {why}", path.display())));
        if r.cluster_guid != information.spec.cluster_guid {
            return refused("it is about another cluster (clusterGUID)");
        }
        if !r.datastore_locked && !args.force {
            return refused(
                "it was made while the datastore was not locked, so addresses may have been given out meanwhile; \
                 --force takes it nevertheless: what is not leaked now will not be released",
            );
        }
        if r.cluster_information_revision != information.metadata.resource_version && !args.force {
            return refused(
                "the datastore has been unlocked or changed since; make a new report, or use --force",
            );
        }
    }
    let now = findings(cluster)?;
    let in_all = |a: &&Allocation| {
        let same = |b: &&Allocation| b.is_leaked() && b.identity() == a.identity();
        reports
            .iter()
            .all(|(_, r)| r.allocations.values().flatten().any(|b| same(&b)))
    };
    let leaked: Vec<&Allocation> = now.leaked().iter().filter(in_all).collect();
    let option = |a: &&Allocation| {
        Some(ReleaseOption {
            address: a.ip.parse().ok()?,
            handle: (!a.handle.is_empty()).then(|| a.handle.clone()),
            sequence: Some(a.sequence_number),
        })
    };
    let options: Vec<ReleaseOption> = leaked.iter().filter_map(option).collect();
    let outcome = cluster.release(&options)?;
    let mut handles = BTreeSet::new();
    for id in now.leaked_handles().keys() {
        if reports
            .iter()
            .all(|(_, r)| r.leaked_handles.iter().any(|h| h.id == *id))
        {
            cluster.release_handle(id)?;
            handles.insert(id);
        }
    }
    let listed: BTreeSet<_> = reports
        .iter()
        .flat_map(|(_, r)| r.allocations.values().flatten())
        .filter(|a| a.is_leaked())
        .map(Allocation::identity)
        .collect();
    let kept = listed.len().saturating_sub(options.len());
    let mut text = format!("Released {} IPs successfully\n", outcome.freed.len());
    if !handles.is_empty() {
        text.push_str(&format!(
            "Released {} handles with no matching IPs\n",
            handles.len()
        ));
    }
    if kept > 0 {
        text.push_str(&format!(
            "Left {kept} IPs alone that are not leaked in every report and now\n"
        ));
    }
    console.print(&text)
}

fn read(path: &PathBuf) -> Result<(PathBuf, Report), CliError> {
    let text = std::fs::read(path).map_err(|source| CliError::Read {
        path: path.clone(),
        source,
    })?;
    let bad = |e: serde_json::Error| {
        CliError::Usage(format!(
            "{}: not a report of `ipam check -o FILE`: {e}",
            path.display()
        ))
    };
    Ok((path.clone(), serde_json::from_slice(&text).map_err(bad)?))
}
