//! What a node does before it serves: its own address, its Node, and the objects that a new
//! cluster lacks.
//!
//! Promises: may be repeated; never takes an address that another node has; writes nothing that
//! an operator has set otherwise.

use crate::Params;
use crate::detect::{self, DetectError, Interface};
use crate::resources::{Change, ResourceError, Resources};
use api::kinds::config::{BgpConfiguration, FelixConfiguration};
use api::kinds::node::{Node, NodeAddress as StoredAddress, NodeBgpSpec, OrchRef};
use api::kinds::pool::IpPool;
use api::{AsNumber, ObjectMeta, Resource, ResourceKind};
use daemon::NodeEnv;
use daemon::node::{AddressChoice, FirstPool};
use model::NodeAddress;
use net::{Cidr, Family, IfIndex};
use netlink::NetlinkError;
use std::collections::BTreeMap;
use std::net::{IpAddr, UdpSocket};

/// Why the node cannot start.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] ResourceError),
    /// The cluster's objects could not be made.
    #[error("initialise the datastore: {0}")]
    Init(String),
    /// No address.
    #[error(
        "{0}; set {1} to the node's address, or {1}_AUTODETECTION_METHOD to a method that finds it"
    )]
    Detect(DetectError, &'static str),
    /// Another node has it.
    #[error(
        "{family} address conflict: {addr} is already in use by node {other}; change one of them"
    )]
    Conflict {
        /// The family.
        family: Family,
        /// The address.
        addr: IpAddr,
        /// Who has it.
        other: String,
    },
    /// Neither family is used.
    #[error("no node address: set IP or IP6 to an address or to \"autodetect\"")]
    NoAddress,
    /// The kernel does not answer.
    #[error(transparent)]
    Kernel(#[from] NetlinkError),
}

/// Finds the node's addresses, in [`Family::BOTH`] order.
///
/// # Errors
/// When one that is wanted cannot be found.
fn addresses(
    env: &NodeEnv,
    stored: &NodeBgpSpec,
    internal: &[IpAddr],
) -> Result<[Option<NodeAddress>; 2], StartError> {
    let seen = interfaces()?;
    let v4 = (
        Family::V4,
        "IP",
        &env.ipv4,
        &env.ipv4_detection,
        &stored.ipv4_address,
    );
    let v6 = (
        Family::V6,
        "IP6",
        &env.ipv6,
        &env.ipv6_detection,
        &stored.ipv6_address,
    );
    let mut out = [None, None];
    for ((family, variable, choice, method, stored), slot) in [v4, v6].into_iter().zip(&mut out) {
        let detect = || {
            let found = detect::choose(method, family, &seen, source_towards, internal);
            found.map(Some).map_err(|e| StartError::Detect(e, variable))
        };
        *slot = match choice {
            AddressChoice::None => None,
            AddressChoice::Autodetect => detect()?,
            AddressChoice::Stored => match stored.split_once('/') {
                Some((a, l)) => a
                    .parse()
                    .ok()
                    .zip(l.parse().ok())
                    .map(|(a, l)| detect::node_address(a, l)),
                None => detect()?,
            },
            AddressChoice::Fixed(addr, len) => {
                let known = seen
                    .iter()
                    .flat_map(|i| &i.addresses)
                    .find(|(a, _)| a == addr)
                    .map(|(_, l)| *l);
                Some(detect::node_address(
                    *addr,
                    len.or(known).unwrap_or(family.bits()),
                ))
            }
        };
    }
    if out == [None, None] {
        Err(StartError::NoAddress)
    } else {
        Ok(out)
    }
}

/// From which address the kernel would send; connecting a datagram socket sends nothing.
fn source_towards(to: &str) -> Option<IpAddr> {
    let target = to.trim_start_matches('[').trim_end_matches(']');
    let any = if target.contains(':') {
        "[::]:0"
    } else {
        "0.0.0.0:0"
    };
    let socket = UdpSocket::bind(any).ok()?;
    socket.connect((target, 53)).ok()?;
    socket.local_addr().ok().map(|a| a.ip())
}

fn interfaces() -> Result<Vec<Interface>, NetlinkError> {
    let mut handle = link::Handle::open()?;
    let links = handle.links()?;
    let mut by_link: BTreeMap<IfIndex, Vec<(IpAddr, u8)>> = BTreeMap::new();
    for (dev, a) in handle.addresses(None)? {
        by_link.entry(dev).or_default().push((a.addr, a.len));
    }
    Ok(links
        .into_iter()
        .map(|l| Interface {
            name: l.name.to_string(),
            up: l.up,
            addresses: by_link.remove(&l.index).unwrap_or_default(),
        })
        .collect())
}

/// What Kubernetes says of the node.
#[derive(Debug, Default)]
struct KubeFacts {
    internal: Vec<IpAddr>,
    labels: BTreeMap<String, String>,
    pod_cidrs: Vec<String>,
    known: bool,
}

async fn kube_facts(resources: &Resources, node: &str) -> Result<KubeFacts, ResourceError> {
    let Some((Resource::KubeNode(n), _)) =
        resources.get(ResourceKind::KubeNode, None, node).await?
    else {
        return Ok(KubeFacts::default());
    };
    let internal = n
        .status
        .addresses
        .iter()
        .filter(|a| a.kind == "InternalIP")
        .filter_map(|a| a.address.parse().ok());
    let mut pod_cidrs = n.spec.pod_cidrs.clone();
    if pod_cidrs.is_empty() && !n.spec.pod_cidr.is_empty() {
        pod_cidrs.push(n.spec.pod_cidr.clone());
    }
    Ok(KubeFacts {
        internal: internal.collect(),
        labels: n.metadata.labels.clone(),
        pod_cidrs,
        known: true,
    })
}

/// Brings the store to where this node can serve.
///
/// # Errors
/// [`StartError`]; nothing is half done that a second try does not finish.
pub(crate) async fn prepare(params: &Params, resources: &Resources) -> Result<(), StartError> {
    let facts = kube_facts(resources, &params.node).await?;
    let stored = match resources
        .get(ResourceKind::Node, None, &params.node)
        .await?
    {
        Some((Resource::Node(n), _)) => n.spec.bgp.unwrap_or_default(),
        _ => NodeBgpSpec::default(),
    };
    let addresses = addresses(&params.env, &stored, &facts.internal)?;
    for (family, found) in Family::BOTH.into_iter().zip(&addresses) {
        if let Some(a) = found {
            if !params.env.ip_check_disabled {
                conflict(resources, &params.node, family, a.addr).await?;
            }
            tracing::info!(%family, addr = %a.addr, subnet = %a.subnet, "node address");
        }
    }
    write_node(params, resources, &addresses, &facts).await?;
    defaults(params, resources).await
}

async fn conflict(
    resources: &Resources,
    node: &str,
    family: Family,
    addr: IpAddr,
) -> Result<(), StartError> {
    let bad = |e: api::BadObject| tracing::warn!(error = %e, "stored object is bad");
    for r in resources.list(ResourceKind::Node, bad).await? {
        let Resource::Node(n) = r else { continue };
        let bgp = n.spec.bgp.unwrap_or_default();
        let text = if family == Family::V4 {
            bgp.ipv4_address
        } else {
            bgp.ipv6_address
        };
        let theirs = text
            .split('/')
            .next()
            .and_then(|a| a.parse::<IpAddr>().ok());
        if n.metadata.name != node && theirs == Some(addr) {
            return Err(StartError::Conflict {
                family,
                addr,
                other: n.metadata.name,
            });
        }
    }
    Ok(())
}

async fn write_node(
    params: &Params,
    resources: &Resources,
    addresses: &[Option<NodeAddress>; 2],
    facts: &KubeFacts,
) -> Result<(), StartError> {
    let text = |a: &Option<NodeAddress>| {
        a.map(|a| format!("{}/{}", a.addr, a.subnet.len()))
            .unwrap_or_default()
    };
    let [v4, v6] = addresses.each_ref().map(text);
    let change = |old: Option<Resource>| {
        let before = old.clone();
        let mut n = match old {
            Some(Resource::Node(n)) => n,
            _ => Node {
                metadata: fresh(&params.node),
                ..Node::default()
            },
        };
        n.metadata.labels.extend(facts.labels.clone());
        let bgp = n.spec.bgp.get_or_insert_with(NodeBgpSpec::default);
        bgp.ipv4_address.clone_from(&v4);
        bgp.ipv6_address.clone_from(&v6);
        if let Some(asn) = params.env.asn {
            bgp.as_number = Some(AsNumber(asn));
        }
        n.spec.addresses = [&v4, &v6]
            .into_iter()
            .filter(|t| !t.is_empty())
            .map(|t| StoredAddress {
                address: t.clone(),
                kind: "CalicoNodeIP".to_owned(),
            })
            .collect();
        if facts.known && n.spec.orch_refs.is_empty() {
            n.spec.orch_refs.push(OrchRef {
                node_name: params.node.to_string(),
                orchestrator: "k8s".to_owned(),
            });
        }
        if !facts.pod_cidrs.is_empty() {
            n.status
                .get_or_insert_default()
                .pod_cidrs
                .clone_from(&facts.pod_cidrs);
        }
        let now: Resource = n.into();
        if before.as_ref() == Some(&now) {
            Change::Nothing
        } else {
            Change::Write(now)
        }
    };
    resources
        .change(ResourceKind::Node, None, &params.node, change)
        .await?;
    Ok(())
}

fn fresh(name: &str) -> ObjectMeta {
    let mut meta = ObjectMeta::named(name);
    meta.uid = uuid::Uuid::new_v4().to_string();
    meta.creation_timestamp = Some(
        jiff::Timestamp::now()
            .strftime("%Y-%m-%dT%H:%M:%SZ")
            .to_string(),
    );
    meta
}

/// The objects that a new cluster lacks. Each is made once and never touched again.
async fn defaults(params: &Params, resources: &Resources) -> Result<(), StartError> {
    let bad = |e: api::BadObject| tracing::warn!(error = %e, "stored object is bad");
    let pools = resources.list(ResourceKind::IpPool, bad).await?;
    for (family, first) in [
        (Family::V4, &params.env.pool_v4),
        (Family::V6, &params.env.pool_v6),
    ] {
        let used = match family {
            Family::V4 => params.env.ipv4 != AddressChoice::None,
            Family::V6 => params.env.ipv6 != AddressChoice::None,
        };
        let has = pools.iter().any(|r| {
            matches!(r, Resource::IpPool(p) if p.spec.cidr.parse::<Cidr>().is_ok_and(|c| c.family() == family))
        });
        if used && !has && first.wanted && !params.env.no_default_pools {
            let name = if family == Family::V4 {
                "default-ipv4-ippool"
            } else {
                "default-ipv6-ippool"
            };
            let cidr = first.cidr.unwrap_or_else(|| first_cidr(family));
            create(resources, pool(name, cidr, first).into()).await?;
            tracing::info!(pool = name, %cidr, "made the default pool");
        }
    }
    let mut felix = FelixConfiguration {
        metadata: fresh("default"),
        ..FelixConfiguration::default()
    };
    felix
        .spec
        .insert("logSeverityScreen".to_owned(), "Info".into());
    felix
        .spec
        .insert("reportingInterval".to_owned(), "0s".into());
    create(resources, felix.into()).await?;
    create(
        resources,
        BgpConfiguration {
            metadata: fresh("default"),
            ..BgpConfiguration::default()
        }
        .into(),
    )
    .await
}

/// Calico's choice: 192.168.0.0/16, or a /48 of the unique local range drawn at random.
fn first_cidr(family: Family) -> Cidr {
    let v6 = u128::from_be_bytes(*uuid::Uuid::new_v4().as_bytes()) >> 8 | 0xfd << 120;
    let (addr, len) = match family {
        Family::V4 => (IpAddr::from([192, 168, 0, 0]), 16),
        Family::V6 => (Family::V6.addr(v6), 48),
    };
    Cidr::new(addr, len).unwrap_or(Cidr::host(addr))
}

fn pool(name: &str, cidr: Cidr, p: &FirstPool) -> IpPool {
    let mut out = IpPool {
        metadata: fresh(name),
        ..IpPool::default()
    };
    out.spec.cidr = cidr.to_string();
    out.spec.block_size = Some(i64::from(p.block_size));
    out.spec.vxlan_mode = p.vxlan.name().to_owned();
    out.spec.ipip_mode = p.ipip.name().to_owned();
    out.spec.nat_outgoing = p.nat_outgoing;
    out.spec.node_selector.clone_from(&p.node_selector);
    out.spec.disable_bgp_export = p.disable_bgp_export;
    out
}

/// Makes an object unless it is there.
async fn create(resources: &Resources, new: Resource) -> Result<(), StartError> {
    let (kind, name) = (new.kind(), new.meta().name.clone());
    let change = |old: Option<Resource>| {
        if old.is_some() {
            Change::Nothing
        } else {
            Change::Write(new.clone())
        }
    };
    resources.change(kind, None, &name, change).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_random_pool_is_a_unique_local_48() {
        let (a, b) = (first_cidr(Family::V6), first_cidr(Family::V6));
        assert!(a != b && a.len() == 48 && Cidr::new(a.addr(), 8) == "fd00::/8".parse().ok());
    }
}
