//! The node's own tunnel addresses.
//!
//! Promises: a node has a tunnel address of a family exactly while some pool of that family is
//! encapsulated in VXLAN and gives tunnel addresses; the address is from such a pool, is
//! held under Calico's handle, and is written to the Node, where the others read it; one that
//! is released is taken off the Node first, so that nobody sends to an address that may be
//! given to a pod.
//!
//! Never: programs the device; that follows from the Node.

use crate::attach::{Allocator, KnownPool, known};
use crate::resources::{Change, Resources};
use api::{Resource, ResourceKind};
use ipam::IntendedUse;
use model::{Encap, Labels};
use net::Family;
use std::net::IpAddr;
use std::sync::Arc;

/// Why the addresses are not as they should be; tried again with the next change, and in time.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TunnelError {
    /// The store failed.
    #[error("tunnel address of node {node}: {source}")]
    Store {
        /// This node.
        node: String,
        /// Why.
        source: crate::resources::ResourceError,
    },
    /// No address could be had.
    #[error("{family} tunnel address of node {node}: {source}")]
    Address {
        /// This node.
        node: String,
        /// The family.
        family: Family,
        /// Why.
        source: crate::attach::AttachError,
    },
}

const fn handle_prefix(family: Family) -> &'static str {
    match family {
        Family::V4 => "vxlan-tunnel-addr-",
        Family::V6 => "vxlan-v6-tunnel-addr-",
    }
}

/// `type` among the attributes of a tunnel address.
pub(crate) const fn kind(family: Family) -> &'static str {
    match family {
        Family::V4 => "vxlanTunnelAddress",
        Family::V6 => "vxlanV6TunnelAddress",
    }
}

fn usable(p: &KnownPool, family: Family) -> bool {
    p.pool.cidr.family() == family
        && p.vxlan != Encap::Never
        && p.pool.allowed_uses.contains(&IntendedUse::Tunnel)
}

/// Makes the addresses of both families what the pools ask for.
///
/// # Errors
/// The first that could not be made right; the other family is tended all the same.
pub(crate) async fn ensure(
    node: &Arc<str>,
    resources: &Resources,
    allocator: &Allocator,
) -> Result<(), TunnelError> {
    let failed = |source| TunnelError::Store {
        node: node.to_string(),
        source,
    };
    let bad = |e: api::BadObject| tracing::warn!(error = %e, "stored object is bad");
    let found = resources
        .get(ResourceKind::Node, None, node)
        .await
        .map_err(failed)?;
    let Some((Resource::Node(stored), _)) = found else {
        return Ok(());
    };
    let labels = Labels::new(
        stored
            .metadata
            .labels
            .iter()
            .map(|(k, v)| (k.as_str(), v.as_str())),
    );
    let pools = resources
        .list(ResourceKind::IpPool, bad)
        .await
        .map_err(failed)?;
    let pools = known(&pools, &labels, &Labels::default());
    let mut first = Ok(());
    for family in Family::BOTH {
        let current = match family {
            Family::V4 => stored.spec.ipv4_vxlan_tunnel_addr.parse().ok(),
            Family::V6 => stored.spec.ipv6_vxlan_tunnel_addr.parse().ok(),
        };
        let done = one(node, family, current, &pools, resources, allocator).await;
        if first.is_ok() {
            first = done;
        }
    }
    first
}

async fn one(
    node: &Arc<str>,
    family: Family,
    current: Option<IpAddr>,
    pools: &[KnownPool],
    resources: &Resources,
    allocator: &Allocator,
) -> Result<(), TunnelError> {
    let failed = |source| TunnelError::Address {
        node: node.to_string(),
        family,
        source,
    };
    let handle = format!("{}{node}", handle_prefix(family));
    let wanted: Vec<&KnownPool> = pools.iter().filter(|p| usable(p, family)).collect();
    let held = allocator.held(&handle).await.map_err(failed)?;
    let good = |a: &IpAddr| wanted.iter().any(|p| p.pool.cidr.contains(*a));
    if let Some(keep) = held.iter().copied().find(|a| good(a)) {
        return if current == Some(keep) {
            Ok(())
        } else {
            publish(node, family, Some(keep), resources).await
        };
    }
    if current.is_some() {
        publish(node, family, None, resources).await?;
    }
    if !held.is_empty() {
        allocator.release_handle(&handle).await.map_err(failed)?;
    }
    let enabled: Vec<String> = wanted
        .iter()
        .filter(|p| p.pool.is_enabled())
        .map(|p| p.pool.name.clone())
        .collect();
    if enabled.is_empty() {
        return Ok(());
    }
    let addr = allocator
        .tunnel(node, &handle, family, &enabled, pools)
        .await
        .map_err(failed)?;
    tracing::info!(%addr, %family, "tunnel address assigned");
    publish(node, family, Some(addr), resources).await
}

async fn publish(
    node: &Arc<str>,
    family: Family,
    addr: Option<IpAddr>,
    resources: &Resources,
) -> Result<(), TunnelError> {
    let text = addr.map(|a| a.to_string()).unwrap_or_default();
    let change = |old: Option<Resource>| {
        let Some(Resource::Node(mut n)) = old else {
            return Change::Nothing;
        };
        match family {
            Family::V4 => n.spec.ipv4_vxlan_tunnel_addr.clone_from(&text),
            Family::V6 => n.spec.ipv6_vxlan_tunnel_addr.clone_from(&text),
        }
        Change::Write(n.into())
    };
    let done = resources
        .change(ResourceKind::Node, None, node, change)
        .await;
    done.map(drop).map_err(|source| TunnelError::Store {
        node: node.to_string(),
        source,
    })
}
