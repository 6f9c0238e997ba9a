//! Pools.

use super::{Cause, cause};
use crate::kinds::pool::IpPool;
use model::{AllowedUses, Encap, Selector, Update};
use net::{Cidr, Family};

fn encap(field: &str, mode: &str) -> Result<Encap, Cause> {
    match mode {
        "" | "Never" => Ok(Encap::Never),
        "Always" => Ok(Encap::Always),
        "CrossSubnet" => Ok(Encap::CrossSubnet),
        other => Err(cause(field)(&format!(
            "{other:?} is none of Never, Always, CrossSubnet"
        ))),
    }
}

pub(super) fn update(r: &IpPool) -> Result<Update, Cause> {
    let s = &r.spec;
    let cidr: Cidr = s.cidr.parse().map_err(|e| cause("spec.cidr")(&e))?;
    let block_size = match s.block_size {
        None | Some(0) => default_block_size(cidr.family()),
        Some(n) => u8::try_from(n)
            .ok()
            .filter(|n| *n <= cidr.family().bits())
            .ok_or_else(|| cause("spec.blockSize")(&format!("{n} is no prefix length")))?,
    };
    let selector = |field, text: &str| Selector::parse(text).map_err(|e| cause(field)(&e));
    let uses = &s.allowed_uses;
    let may = |what: &str, unset| {
        if uses.is_empty() {
            unset
        } else {
            uses.iter().any(|u| u == what)
        }
    };
    let conditions = r.status.iter().flat_map(|s| &s.conditions);
    let allocatable = conditions
        .filter(|c| c.kind == "Allocatable")
        .all(|c| c.status != "False");
    Ok(Update::Pool(
        r.metadata.name.as_str().into(),
        Some(model::IpPool {
            cidr,
            block_size,
            vxlan: encap("spec.vxlanMode", &s.vxlan_mode)?,
            ipip: encap("spec.ipipMode", &s.ipip_mode)?,
            nat_outgoing: s.nat_outgoing,
            disabled: s.disabled,
            deleting: r.metadata.deletion_timestamp.is_some(),
            allocatable,
            disable_bgp_export: s.disable_bgp_export,
            node_selector: selector("spec.nodeSelector", &s.node_selector)?,
            namespace_selector: match s.namespace_selector.as_str() {
                "" => None,
                t => Some(selector("spec.namespaceSelector", t)?),
            },
            manual: s.assignment_mode == "Manual",
            uses: AllowedUses {
                workload: may("Workload", true),
                tunnel: may("Tunnel", true),
                load_balancer: may("LoadBalancer", false),
            },
        }),
    ))
}

/// The length of the blocks of a pool that does not say.
pub(crate) const fn default_block_size(family: Family) -> u8 {
    match family {
        Family::V4 => 26,
        Family::V6 => 122,
    }
}
