//! Pools as the allocator wants them: selectors evaluated for this node and this
//! namespace.
//!
//! Promises: a pool that does not make sense is left out, never misread.

use api::Resource;
use api::kinds::pool::IpPool;
use ipam::{IntendedUse, Pool};
use model::{Encap, LabelSource, Labels, Selector};
use net::Cidr;

/// A pool, and how it is encapsulated.
#[derive(Debug, Clone)]
pub(crate) struct KnownPool {
    /// For the allocator.
    pub pool: Pool,
    /// VXLAN.
    pub vxlan: Encap,
}

/// The pools of the store, for this node and namespace.
pub(crate) fn known(resources: &[Resource], node: &Labels, namespace: &Labels) -> Vec<KnownPool> {
    resources
        .iter()
        .filter_map(|r| match r {
            Resource::IpPool(p) => one(p, node, namespace),
            _ => None,
        })
        .collect()
}

fn selects(selector: &str, labels: &(impl LabelSource + ?Sized)) -> bool {
    Selector::parse(selector).is_ok_and(|s| s.matches(labels))
}

fn one(p: &IpPool, node: &Labels, namespace: &Labels) -> Option<KnownPool> {
    let cidr: Cidr = p.spec.cidr.parse().ok()?;
    let mut pool = Pool::new(p.metadata.name.clone(), cidr);
    if let Some(size) = p.spec.block_size {
        pool.block_size = u8::try_from(size).ok()?;
    }
    pool.disabled = p.spec.disabled;
    pool.deleting = p.metadata.deletion_timestamp.is_some();
    pool.allocatable = !p
        .status
        .iter()
        .flat_map(|s| &s.conditions)
        .any(|c| c.kind == "Allocatable" && c.status == "False");
    pool.node_selected = selects(&p.spec.node_selector, node);
    pool.namespace_selected =
        p.spec.namespace_selector.is_empty() || selects(&p.spec.namespace_selector, namespace);
    pool.assignment_automatic = p.spec.assignment_mode != "Manual";
    if !p.spec.allowed_uses.is_empty() {
        let of = |u: &String| match u.as_str() {
            "Workload" => Some(IntendedUse::Workload),
            "Tunnel" => Some(IntendedUse::Tunnel),
            "LoadBalancer" => Some(IntendedUse::LoadBalancer),
            _ => None,
        };
        pool.allowed_uses = p.spec.allowed_uses.iter().filter_map(of).collect();
    }
    let vxlan = match p.spec.vxlan_mode.as_str() {
        "Always" => Encap::Always,
        "CrossSubnet" => Encap::CrossSubnet,
        _ => Encap::Never,
    };
    Some(KnownPool { pool, vxlan })
}
