//! `ipam show`.

use super::{json, pools, reservations};
use crate::args::ShowArgs;
use crate::cluster::Cluster;
use crate::run::Console;
use crate::{CliError, table};
use ipam::{Attribute, BlockUsage, Borrowed, PoolUsage, Snapshot};
use serde::Serialize;
use std::collections::BTreeMap;
use std::net::IpAddr;

/// How full something is; the four add up to the total.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Usage {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    cidr: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    affinity: Option<String>,
    total: u128,
    in_use: u128,
    reserved: u128,
    cooling_down: u128,
    free: u128,
    /// With `--show-blocks`.
    #[serde(skip_serializing_if = "Option::is_none")]
    blocks: Option<Vec<Usage>>,
}

#[derive(Serialize)]
struct Pools {
    pools: Vec<Usage>,
}

impl Usage {
    fn pool(p: &PoolUsage, blocks: bool) -> Self {
        Self {
            name: Some(p.name.clone()),
            cidr: p.cidr.to_string(),
            affinity: None,
            total: p.total,
            in_use: p.in_use,
            reserved: p.reserved,
            cooling_down: p.cooling,
            free: p.free,
            blocks: blocks.then(|| p.blocks.iter().map(Self::block).collect()),
        }
    }

    fn block(b: &BlockUsage) -> Self {
        Self {
            name: None,
            cidr: b.cidr.to_string(),
            affinity: b.owner.clone(),
            total: b.total,
            in_use: b.in_use,
            reserved: b.reserved,
            cooling_down: b.cooling,
            free: b.free,
            blocks: None,
        }
    }

    /// An address that cools down is still taken.
    fn row(&self, grouping: &str) -> Vec<String> {
        let share = |n| table::share(n, self.total);
        let taken = self.in_use + self.cooling_down;
        let cells = [
            table::count(self.total),
            share(taken),
            share(self.reserved),
            share(self.free),
        ];
        [grouping.to_owned(), self.cidr.clone()]
            .into_iter()
            .chain(cells)
            .collect()
    }
}

pub(crate) fn run(
    args: &ShowArgs,
    cluster: &Cluster,
    console: &mut Console<'_>,
) -> Result<(), CliError> {
    let as_json = args.output.is_some();
    let text = if args.show_configuration {
        configuration(cluster, as_json)?
    } else {
        let snapshot = cluster.snapshot()?;
        for (key, reason) in &snapshot.malformed {
            console.note(&format!(
                "warning: {key} is malformed and left out: {reason}"
            ))?;
        }
        match args.ip {
            Some(address) => holder(address, &snapshot, cluster, as_json)?,
            None if args.show_borrowed => borrowed(&snapshot.borrowed(), as_json),
            None => usage(&snapshot, cluster, args.show_blocks, as_json)?,
        }
    };
    console.print(&text)
}

fn usage(
    snapshot: &Snapshot,
    cluster: &Cluster,
    blocks: bool,
    as_json: bool,
) -> Result<String, CliError> {
    let found = snapshot.usage(&pools(cluster)?, &reservations(cluster)?);
    let pools: Vec<Usage> = found.iter().map(|p| Usage::pool(p, blocks)).collect();
    if as_json {
        return Ok(json(&Pools { pools }));
    }
    let mut rows = Vec::new();
    for p in &pools {
        rows.push(p.row("IP Pool"));
        rows.extend(p.blocks.iter().flatten().map(|b| b.row("Block")));
    }
    let headings = [
        "GROUPING",
        "CIDR",
        "IPS TOTAL",
        "IPS IN USE",
        "IPS RESERVED",
        "IPS FREE",
    ];
    Ok(table::boxed(&headings, &rows))
}

/// Somebody who holds an address, in the words of the tables.
fn allocated_to(a: &Attribute) -> String {
    match (a.get("namespace"), a.get("pod")) {
        (Some(ns), Some(pod)) => format!("{ns}/{pod}"),
        _ => a.handle().unwrap_or_default().to_owned(),
    }
}

fn type_of(a: &Attribute) -> String {
    match (a.get("type"), a.get("pod")) {
        (Some(t), _) => t.to_owned(),
        (None, Some(_)) => "pod".to_owned(),
        (None, None) => String::new(),
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Loan {
    ip: String,
    borrowing_node: String,
    block: String,
    block_owner: String,
    #[serde(rename = "type")]
    kind: String,
    allocated_to: String,
}

#[derive(Serialize)]
struct Loans {
    borrowed: Vec<Loan>,
}

fn borrowed(found: &[Borrowed], as_json: bool) -> String {
    let loan = |b: &Borrowed| Loan {
        ip: b.address.to_string(),
        borrowing_node: b.node.clone(),
        block: b.block.to_string(),
        block_owner: b
            .owner
            .as_deref()
            .map_or(String::new(), |o| o.trim_start_matches("host:").to_owned()),
        kind: type_of(&b.attribute),
        allocated_to: allocated_to(&b.attribute),
    };
    let borrowed: Vec<Loan> = found.iter().map(loan).collect();
    if as_json {
        return json(&Loans { borrowed });
    }
    let headings = [
        "IP",
        "BORROWING-NODE",
        "BLOCK",
        "BLOCK OWNER",
        "TYPE",
        "ALLOCATED-TO",
    ];
    let row = |l: Loan| {
        vec![
            l.ip,
            l.borrowing_node,
            l.block,
            l.block_owner,
            l.kind,
            l.allocated_to,
        ]
    };
    table::boxed(
        &headings,
        &borrowed.into_iter().map(row).collect::<Vec<_>>(),
    )
}

fn configuration(cluster: &Cluster, as_json: bool) -> Result<String, CliError> {
    let c = cluster.ipam_config()?;
    let properties = [
        ("StrictAffinity", c.strict_affinity.to_string()),
        ("AutoAllocateBlocks", c.auto_allocate_blocks.to_string()),
        ("MaxBlocksPerHost", c.max_blocks_per_host.to_string()),
        (
            "KubeVirtVMAddressPersistence",
            c.kubevirt_vm_address_persistence
                .unwrap_or_else(|| "Enabled".to_owned()),
        ),
        ("IPCooldownSeconds", c.ip_cooldown_seconds.to_string()),
    ];
    if as_json {
        // Numbers and truths as themselves.
        let value = |text: &str| {
            serde_json::from_str(text).unwrap_or_else(|_| serde_json::Value::from(text))
        };
        let object: serde_json::Map<_, _> = properties
            .iter()
            .map(|(k, v)| ((*k).to_owned(), value(v)))
            .collect();
        return Ok(json(&object));
    }
    let rows: Vec<Vec<String>> = properties
        .into_iter()
        .map(|(k, v)| vec![k.to_owned(), v])
        .collect();
    Ok(table::boxed(&["PROPERTY", "VALUE"], &rows))
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Holder {
    ip: String,
    in_use: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pool: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    block: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    handle: Option<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    attributes: BTreeMap<String, String>,
    /// When it was released, while it rests.
    #[serde(skip_serializing_if = "Option::is_none")]
    released_at: Option<String>,
}

fn holder(
    address: IpAddr,
    snapshot: &Snapshot,
    cluster: &Cluster,
    as_json: bool,
) -> Result<String, CliError> {
    let block = snapshot.blocks.iter().find(|b| b.cidr().contains(address));
    let attribute = block
        .and_then(|b| b.attribute(address))
        .filter(|a| a.released_at.is_none());
    let resting = block.and_then(|b| b.cooling().find(|(a, _)| *a == address));
    let h = Holder {
        ip: address.to_string(),
        in_use: attribute.is_some(),
        pool: pools(cluster)?
            .into_iter()
            .find(|p| p.cidr.contains(address))
            .map(|p| p.name),
        block: block.map(|b| b.cidr().to_string()),
        handle: attribute.and_then(|a| a.handle()).map(str::to_owned),
        attributes: attribute
            .and_then(|a| a.secondary.clone())
            .unwrap_or_default(),
        released_at: resting.map(|(_, t)| t.to_string()),
    };
    if as_json {
        return Ok(json(&h));
    }
    if !h.in_use {
        return Ok(match (&h.released_at, &h.pool) {
            (Some(t), _) => {
                format!("{address} is not assigned; it was released at {t} and cools down\n")
            }
            (None, None) => format!("{address} is not assigned; it is in no IP pool\n"),
            (None, Some(_)) => format!("{address} is not assigned\n"),
        });
    }
    let mut text = format!("IP {address} is in use\n");
    if !h.attributes.is_empty() {
        text.push_str("Attributes:\n");
        h.attributes
            .iter()
            .for_each(|(k, v)| text.push_str(&format!("  {k}: {v}\n")));
    }
    h.handle
        .iter()
        .for_each(|id| text.push_str(&format!("Handle: {id}\n")));
    Ok(text)
}
