//! IPAM blocks, reduced to what routes need.

use super::{Cause, cause};
use crate::kinds::ipam::IpamBlockSpec;
use model::{Block, Borrowed, Update};
use net::Cidr;
use serde::Deserialize;
use std::borrow::Cow;

/// The fields of the etcd form that count here.
#[derive(Deserialize)]
struct Stored<'a> {
    #[serde(borrow, default)]
    cidr: Cow<'a, str>,
    #[serde(borrow, default)]
    affinity: Option<Cow<'a, str>>,
    #[serde(borrow, default, rename = "hostAffinity")]
    host_affinity: Option<Cow<'a, str>>,
    #[serde(default)]
    allocations: Option<Vec<Option<i64>>>,
    #[serde(borrow, default)]
    attributes: Option<Vec<Attribute<'a>>>,
    #[serde(default)]
    deleted: bool,
}

#[derive(Deserialize)]
struct Attribute<'a> {
    #[serde(borrow, default)]
    secondary: Option<Secondary<'a>>,
    #[serde(borrow, default, rename = "releasedAt")]
    released_at: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
struct Secondary<'a> {
    #[serde(borrow, default)]
    node: Option<Cow<'a, str>>,
}

/// `rest` is the key behind the prefix: `ipv4/block/10.0.0.0-26`.
pub(super) fn updates(rest: &str, value: Option<&[u8]>) -> Result<Vec<Update>, Cause> {
    let name = rest.rsplit_once('/').map_or(rest, |(_, n)| n);
    let cidr: Cidr = name
        .rsplit_once('-')
        .map(|(a, l)| format!("{a}/{l}"))
        .as_deref()
        .unwrap_or(name)
        .parse()
        .map_err(|e| cause("key")(&e))?;
    let Some(bytes) = value else {
        return Ok(vec![Update::Block(cidr, None)]);
    };
    let s: Stored<'_> = serde_json::from_slice(bytes).map_err(|e| e.to_string())?;
    if !s.cidr.is_empty() && s.cidr.parse() != Ok(cidr) {
        return Err(format!("cidr: {} does not agree with the key", s.cidr));
    }
    if s.deleted {
        return Ok(vec![Update::Block(cidr, None)]);
    }
    let legacy = s.host_affinity.as_deref();
    let owner = s.affinity.as_deref().map_or(legacy, owner_of);
    let attributes = s.attributes.unwrap_or_default();
    let node_of = |i: i64| {
        let a = attributes.get(usize::try_from(i).ok()?)?;
        if a.released_at.is_some() {
            None
        } else {
            a.secondary.as_ref()?.node.as_deref()
        }
    };
    let block = block(
        cidr,
        owner,
        s.allocations.as_deref().unwrap_or_default(),
        node_of,
    );
    Ok(vec![Update::Block(cidr, Some(block))])
}

pub(super) fn update(s: &IpamBlockSpec) -> Result<Update, Cause> {
    let cidr: Cidr = s.cidr.parse().map_err(|e| cause("spec.cidr")(&e))?;
    if s.deleted {
        return Ok(Update::Block(cidr, None));
    }
    let node_of = |i: i64| {
        let a = s.attributes.get(usize::try_from(i).ok()?)?;
        if a.released_at.is_some() {
            None
        } else {
            a.secondary.get("node").map(String::as_str)
        }
    };
    let owner = s.affinity.as_deref().and_then(owner_of);
    Ok(Update::Block(
        cidr,
        Some(block(cidr, owner, &s.allocations, node_of)),
    ))
}

fn owner_of(affinity: &str) -> Option<&str> {
    affinity.strip_prefix("host:").filter(|n| !n.is_empty())
}

fn block<'a>(
    cidr: Cidr,
    owner: Option<&str>,
    allocations: &[Option<i64>],
    node_of: impl Fn(i64) -> Option<&'a str>,
) -> Block {
    let borrowed = (0u128..)
        .zip(allocations)
        .filter_map(|(ordinal, attribute)| {
            let node = node_of((*attribute)?).filter(|n| !n.is_empty() && Some(*n) != owner)?;
            Some(Borrowed {
                addr: cidr.nth(ordinal)?,
                node: node.into(),
            })
        });
    Block {
        cidr,
        node: owner.map(Into::into),
        borrowed: borrowed.collect(),
    }
}
