//! `ipam`: how full pools are, who holds an address, what was leaked, and setting it right.
//!
//! Promises: looking changes nothing; what is released is what was looked at and not a later
//! holder's.

mod check;
mod release;
mod report;
mod show;

pub(crate) use check::run as check;
pub(crate) use release::run as release;
pub(crate) use show::run as show;

use crate::CliError;
use crate::args::{ConfigureArgs, Switch};
use crate::cluster::Cluster;
use crate::run::Console;
use api::kinds::ipam::IpamConfiguration;
use api::{Resource, ResourceKind};
use ipam::{Pool, Reservations};

/// All pools that can be read, by family and range.
fn pools(cluster: &Cluster) -> Result<Vec<Pool>, CliError> {
    let listed = cluster.list(ResourceKind::IpPool, None)?;
    let mut out: Vec<Pool> = listed
        .items
        .iter()
        .filter_map(|r| {
            let Resource::IpPool(p) = r else { return None };
            let mut pool = Pool::new(&p.metadata.name, p.spec.cidr.parse().ok()?);
            let size = p
                .spec
                .block_size
                .filter(|n| *n != 0)
                .and_then(|n| u8::try_from(n).ok());
            pool.block_size = size.unwrap_or(pool.block_size);
            pool.disabled = p.spec.disabled;
            Some(pool)
        })
        .collect();
    out.sort_by_key(|p| p.cidr);
    Ok(out)
}

fn reservations(cluster: &Cluster) -> Result<Reservations, CliError> {
    let listed = cluster.list(ResourceKind::IpReservation, None)?;
    let all = listed.items.iter().flat_map(|r| match r {
        Resource::IpReservation(r) => r.spec.reserved_cidrs.as_slice(),
        _ => &[],
    });
    Ok(Reservations::new(all.filter_map(|c| c.parse().ok())))
}

fn json(value: &impl serde::Serialize) -> String {
    let mut text = serde_json::to_string_pretty(value).unwrap_or_else(|_| "null".to_owned());
    text.push('\n');
    text
}

/// `ipam configure`.
pub(crate) fn configure(
    args: &ConfigureArgs,
    cluster: &Cluster,
    console: &mut Console<'_>,
) -> Result<(), CliError> {
    let kind = ResourceKind::IpamConfiguration;
    let (mut config, exists) = match cluster.get(kind, None, "default") {
        Ok(Resource::IpamConfiguration(c)) => (c, true),
        Ok(_) => return Ok(()),
        Err(e) if e.is_not_found() => (IpamConfiguration::default(), false),
        Err(e) => return Err(e.into()),
    };
    "default".clone_into(&mut config.metadata.name);
    let mut done = Vec::new();
    let spec = &mut config.spec;
    if let Some(on) = args.strictaffinity {
        spec.strict_affinity = on;
        done.push(format!("StrictAffinity to: {on}"));
    }
    if let Some(n) = args.max_blocks_per_host {
        spec.max_blocks_per_host = i64::from(n);
        done.push(format!("MaxBlocksPerHost to: {n}"));
    }
    if let Some(s) = args.kubevirt_ip_persistence {
        let text = if s == Switch::Enabled {
            "Enabled"
        } else {
            "Disabled"
        };
        text.clone_into(&mut spec.kube_virt_vm_address_persistence);
        done.push(format!("KubeVirtVMAddressPersistence to: {text}"));
    }
    if let Some(n) = args.ip_cooldown_seconds {
        spec.ip_cooldown_seconds = Some(i64::from(n));
        done.push(format!("IPCooldownSeconds to: {n}"));
    }
    let written = if exists {
        cluster.update(config.into())
    } else {
        cluster.create(config.into())
    };
    written.map_err(|e| {
        CliError::Refused(format!(
            "failed to configure addresses: IPAMConfiguration(default): {e}"
        ))
    })?;
    console.print(
        &done
            .iter()
            .map(|d| format!("Successfully set {d}\n"))
            .collect::<String>(),
    )
}
