//! The addresses of a container.
//!
//! Promises: a repeated request gets what the first got; half of what was asked for is given
//! back, not kept; an error names the pool or annotation and what to do.

use super::AttachError;
use super::identity::{Identity, Workload};
use super::pools::{KnownPool, known};
use crate::resources::Resources;
use crate::tunnel;
use api::ResourceKind;
use api::annotations::{CniRequest, cni_request};
use cni::protocol::{Delegated, Request};
use cni::result::RouteConfig;
use datastore::IpamStore;
use ipam::{
    AssignIp, Assignment, AutoAssign, IntendedUse, Ipam, Owner, Pool, ReleaseArgs, Reservations,
};
use jiff::Timestamp;
use model::Labels;
use net::{Cidr, Family};
use std::collections::{BTreeMap, HashSet};
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::Arc;

/// Addresses and routes of a container.
#[derive(Debug, Clone)]
pub(crate) struct Addresses {
    /// The addresses, IPv4 first.
    pub list: Vec<IpAddr>,
    /// What the container reaches through its link.
    pub routes: Vec<Cidr>,
    /// Ours to release.
    pub assigned: bool,
}

impl Addresses {
    /// What another IPAM plugin gave.
    pub(super) fn delegated(d: &Delegated) -> Result<Self, AttachError> {
        let list: Vec<IpAddr> = d
            .ips
            .iter()
            .map(|i| {
                i.address
                    .parse::<IpAddr>()
                    .or_else(|_| first_part(&i.address))
            })
            .collect::<Result<_, _>>()
            .map_err(|text| {
                AttachError::Addresses(format!(
                    "the IPAM plugin gave {text:?}, which is no address"
                ))
            })?;
        if list.is_empty() {
            return Err(AttachError::Addresses(
                "the IPAM plugin gave no address".to_owned(),
            ));
        }
        Ok(Self {
            routes: routes(&d.routes, &list),
            list,
            assigned: false,
        })
    }
}

/// The address of `address/length`, host bits and all.
fn first_part(text: &str) -> Result<IpAddr, String> {
    text.split('/')
        .next()
        .and_then(|a| a.parse().ok())
        .ok_or_else(|| text.to_owned())
}

/// What a result's routes lead to; everywhere when it has none.
pub(super) fn routes(of: &[RouteConfig], list: &[IpAddr]) -> Vec<Cidr> {
    let routes: Vec<Cidr> = of.iter().filter_map(|r| r.dst.parse().ok()).collect();
    if routes.is_empty() {
        default_routes(list)
    } else {
        routes
    }
}

/// The routes of the configuration, as far as there are addresses to use them; the default ones where
/// there are none, or besides them where that is asked for.
fn configured_routes(routes: Vec<Cidr>, defaults: Option<bool>, list: &[IpAddr]) -> Vec<Cidr> {
    let none = routes.is_empty();
    let usable = |c: &Cidr| list.iter().any(|a| Family::of(*a) == c.family());
    let mut out: Vec<Cidr> = routes.into_iter().filter(usable).collect();
    if none || defaults == Some(true) {
        let more = default_routes(list);
        out.extend(
            more.into_iter()
                .filter(|c| !out.contains(c))
                .collect::<Vec<_>>(),
        );
    }
    out
}

fn default_routes(list: &[IpAddr]) -> Vec<Cidr> {
    let has = |f: &Family| list.iter().any(|a| Family::of(*a) == *f);
    Family::BOTH
        .into_iter()
        .filter(has)
        .map(Cidr::any)
        .collect()
}

/// Somebody who holds addresses.
#[derive(Debug)]
pub(super) struct Held {
    /// `<network>.<container>`.
    pub handle: String,
    /// Namespace and name of the pod, when there is one.
    pub pod: Option<(String, String)>,
}

/// Gives addresses out and takes them back.
#[derive(Debug)]
pub(crate) struct Allocator {
    node: Arc<str>,
    resources: Resources,
    ipam: Ipam<IpamStore>,
    seeds: RandomState,
}

/// Pools and reservations as of now.
struct Ground {
    pools: Vec<Pool>,
    reservations: Reservations,
}

fn refused(e: &ipam::Error) -> AttachError {
    AttachError::Addresses(e.to_string())
}

impl Allocator {
    /// For a node.
    pub(crate) fn new(node: Arc<str>, resources: Resources) -> Self {
        let ipam = Ipam::new(IpamStore::new(resources.store().clone()));
        Self {
            node,
            resources,
            ipam,
            seeds: RandomState::new(),
        }
    }

    async fn ground(&self, namespace: &Labels) -> Result<Ground, AttachError> {
        let bad = |e: api::BadObject| tracing::warn!(error = %e, "stored object is bad");
        let found = self
            .resources
            .get(ResourceKind::Node, None, &self.node)
            .await?;
        let labels = found.map(|(r, _)| labels_of(r.meta())).unwrap_or_default();
        let pools = self.resources.list(ResourceKind::IpPool, bad).await?;
        let mut reserved = Vec::new();
        for r in self
            .resources
            .list(ResourceKind::IpReservation, bad)
            .await?
        {
            if let api::Resource::IpReservation(r) = r {
                reserved.extend(
                    r.spec
                        .reserved_cidrs
                        .iter()
                        .filter_map(|c| c.parse::<Cidr>().ok()),
                );
            }
        }
        let pools = known(&pools, &labels, namespace)
            .into_iter()
            .map(|k| k.pool)
            .collect();
        Ok(Ground {
            pools,
            reservations: Reservations::new(reserved),
        })
    }

    /// Addresses that a handle holds; none for an unknown one.
    pub(crate) async fn held(&self, handle: &str) -> Result<Vec<IpAddr>, AttachError> {
        match self.ipam.ips_by_handle(handle).await {
            Ok(held) => {
                let mut ips: Vec<IpAddr> = held.iter().map(|a| a.address).collect();
                ips.sort_unstable();
                Ok(ips)
            }
            Err(ipam::Error::UnknownHandle(_)) => Ok(Vec::new()),
            Err(e) => Err(refused(&e)),
        }
    }

    /// Addresses for a container, as annotations and configuration ask.
    pub(super) async fn assign(
        &self,
        request: &Request,
        id: &Identity,
        workload: &Workload,
    ) -> Result<Addresses, AttachError> {
        let (wanted, namespace) = wanted(workload)?;
        let families = families(request, &wanted);
        let configured = &request.conf.ipam.routes;
        let configured: Vec<Cidr> = configured
            .iter()
            .map(|r| {
                r.dst.parse().map_err(|e| {
                    AttachError::Annotation(format!("ipam.routes: {:?} is no CIDR: {e}", r.dst))
                })
            })
            .collect::<Result<_, _>>()?;
        let held = self.held(&id.handle).await?;
        if !wanted.ip_addrs_no_ipam.is_empty()
            && !request
                .conf
                .feature_control
                .is_some_and(|f| f.ip_addrs_no_ipam)
        {
            return Err(AttachError::Annotation(
                "requested feature is not enabled: ip_addrs_no_ipam".to_owned(),
            ));
        }
        if !wanted.floating_ips.is_empty()
            && !request.conf.feature_control.is_some_and(|f| f.floating_ips)
        {
            return Err(AttachError::Annotation(
                "requested feature is not enabled: floating_ips".to_owned(),
            ));
        }
        if !wanted.ip_addrs_no_ipam.is_empty() {
            // Addresses that no pool manages: used as they are, and nobody's to release.
            let list = wanted.ip_addrs_no_ipam;
            return Ok(Addresses {
                routes: default_routes(&list),
                list,
                assigned: false,
            });
        }
        let list = if !held.is_empty()
            && families
                .iter()
                .all(|f| held.iter().any(|a| Family::of(*a) == *f))
        {
            // The first attempt for this container got this far.
            held
        } else {
            let ground = self.ground(&namespace).await?;
            let got = match wanted.ip_addrs.is_empty() {
                false => self.exact(&ground, id, &wanted.ip_addrs).await,
                true => {
                    self.automatic(&ground, request, id, &wanted, &families)
                        .await
                }
            };
            if got.is_err()
                && let Err(e) = self.release_handle(&id.handle).await
            {
                tracing::warn!(handle = %id.handle, error = %e, "a failed ADD left addresses; DEL will release them");
            }
            got?
        };
        Ok(Addresses {
            routes: configured_routes(configured, request.conf.include_default_routes, &list),
            list,
            assigned: true,
        })
    }

    async fn exact(
        &self,
        ground: &Ground,
        id: &Identity,
        wanted: &[IpAddr],
    ) -> Result<Vec<IpAddr>, AttachError> {
        let now = Timestamp::now();
        let attrs = id.attributes(now);
        let owner = Owner::host(&*self.node);
        let mut out = Vec::new();
        for address in wanted {
            let common = ground.assignment(&id.handle, &attrs, &owner, now);
            let request = AssignIp {
                common,
                address: *address,
                intended_use: Some(IntendedUse::Workload),
            };
            match self.ipam.assign_ip(&request).await {
                Ok(a) => out.push(a.address),
                Err(e) => {
                    return Err(AttachError::Addresses(format!(
                        "failed to assign requested IP address {address}: {e}"
                    )));
                }
            }
        }
        Ok(out)
    }

    async fn automatic(
        &self,
        ground: &Ground,
        request: &Request,
        id: &Identity,
        wanted: &CniRequest,
        families: &[Family],
    ) -> Result<Vec<IpAddr>, AttachError> {
        let now = Timestamp::now();
        let attrs = id.attributes(now);
        let owner = Owner::host(&*self.node);
        let pools = |asked: &[String], conf: &[String]| -> Vec<String> {
            if asked.is_empty() {
                conf.to_vec()
            } else {
                asked.to_vec()
            }
        };
        let v4 = pools(&wanted.ipv4_pools, &request.conf.ipam.ipv4_pools);
        let v6 = pools(&wanted.ipv6_pools, &request.conf.ipam.ipv6_pools);
        let count = |f| usize::from(families.contains(&f));
        let got = self
            .ipam
            .auto_assign(&AutoAssign {
                common: ground.assignment(&id.handle, &attrs, &owner, now),
                count_v4: count(Family::V4),
                count_v6: count(Family::V6),
                pools_v4: Some(&v4),
                pools_v6: Some(&v6),
                intended_use: IntendedUse::Workload,
                max_blocks: None,
                known_blocks: &[],
                seed: self.seeds.hash_one(&id.handle),
            })
            .await;
        if got.is_complete() {
            return Ok(got.ips().map(|a| a.address).collect());
        }
        let failed = |f: Family, g: &ipam::Granted| {
            (!g.is_complete()).then(|| {
                let why = g
                    .error
                    .as_ref()
                    .map_or_else(|| "no address is free".to_owned(), ToString::to_string);
                format!("failed to request {f} addresses: {why}")
            })
        };
        let why: Vec<String> = [failed(Family::V4, &got.v4), failed(Family::V6, &got.v6)]
            .into_iter()
            .flatten()
            .collect();
        Err(AttachError::Addresses(why.join("; ")))
    }

    /// A tunnel address from one of the named pools.
    pub(crate) async fn tunnel(
        &self,
        node: &str,
        handle: &str,
        family: Family,
        from: &[String],
        pools: &[KnownPool],
    ) -> Result<IpAddr, AttachError> {
        let mut ground = self.ground(&Labels::default()).await?;
        ground.pools = pools.iter().map(|k| k.pool.clone()).collect();
        let now = Timestamp::now();
        let attrs = BTreeMap::from([
            ("node".to_owned(), node.to_owned()),
            ("type".to_owned(), tunnel::kind(family).to_owned()),
        ]);
        let owner = Owner::host(&*self.node);
        let count = |f| usize::from(f == family);
        let got = self
            .ipam
            .auto_assign(&AutoAssign {
                common: ground.assignment(handle, &attrs, &owner, now),
                count_v4: count(Family::V4),
                count_v6: count(Family::V6),
                pools_v4: Some(from),
                pools_v6: Some(from),
                intended_use: IntendedUse::Tunnel,
                max_blocks: None,
                known_blocks: &[],
                seed: self.seeds.hash_one(handle),
            })
            .await;
        let first = got.ips().next().map(|a| a.address);
        first.ok_or_else(|| {
            AttachError::Addresses(
                got.error()
                    .map_or_else(|| "no address is free".to_owned(), ToString::to_string),
            )
        })
    }

    /// Gives a container's addresses back; the ones that older versions held by its pod's name too.
    pub(super) async fn release(&self, id: &Identity) -> Result<(), AttachError> {
        self.release_handle(&id.handle).await?;
        match &id.pod {
            Some((namespace, name)) => self.release_handle(&format!("{namespace}.{name}")).await,
            None => Ok(()),
        }
    }

    /// Gives back what a handle holds; an unknown one holds nothing.
    pub(crate) async fn release_handle(&self, handle: &str) -> Result<(), AttachError> {
        let args = ReleaseArgs {
            pools: &[],
            config: None,
            now: Timestamp::now(),
        };
        match self.ipam.release_by_handle(handle, &args).await {
            Ok(_) | Err(ipam::Error::UnknownHandle(_)) => Ok(()),
            Err(e) => Err(refused(&e)),
        }
    }

    /// Who holds addresses on a node, each handle once; also a handle that was written and whose
    /// address never was, since the process died in between.
    pub(super) async fn held_on(&self, node: &str) -> Result<Vec<Held>, AttachError> {
        let snapshot = self
            .ipam
            .snapshot(Timestamp::now())
            .await
            .map_err(|e| refused(&e))?;
        let mut out = BTreeMap::new();
        for (_, attribute) in snapshot.blocks.iter().flat_map(ipam::Block::held) {
            let Some(handle) = attribute.handle() else {
                continue;
            };
            if attribute.get("node") == Some(node) {
                let pod = attribute.get("namespace").zip(attribute.get("pod"));
                let pod = pod.map(|(ns, name)| (ns.to_owned(), name.to_owned()));
                out.insert(handle.to_owned(), pod);
            }
        }
        let owner = Owner::host(node);
        let ours = |cidr: Cidr| {
            let owned = |b: &&ipam::Block| b.cidr() == cidr && b.is_owned_by(&owner);
            snapshot.blocks.iter().any(|b| owned(&b))
        };
        let mut real: HashSet<&str> = HashSet::new();
        for block in &snapshot.blocks {
            real.extend(block.held().filter_map(|(_, a)| a.handle()));
        }
        for (id, (handle, _)) in &snapshot.handles {
            let mut blocks = handle.blocks().peekable();
            if !real.contains(id.as_str())
                && blocks.peek().is_some()
                && blocks.all(|(b, _)| ours(b))
            {
                out.entry(id.clone()).or_insert(None);
            }
        }
        Ok(out
            .into_iter()
            .map(|(handle, pod)| Held { handle, pod })
            .collect())
    }
}

impl Ground {
    fn assignment<'a>(
        &'a self,
        handle: &'a str,
        attrs: &'a BTreeMap<String, String>,
        owner: &'a Owner,
        now: Timestamp,
    ) -> Assignment<'a> {
        Assignment {
            handle,
            attrs,
            owner,
            pools: &self.pools,
            reservations: &self.reservations,
            config: None,
            now,
        }
    }
}

fn labels_of(meta: &api::ObjectMeta) -> Labels {
    Labels::new(meta.labels.iter().map(|(k, v)| (k.as_str(), v.as_str())))
}

/// What the annotations ask for, and the labels of the namespace.
fn wanted(workload: &Workload) -> Result<(CniRequest, Labels), AttachError> {
    match workload {
        Workload::Container => Ok((CniRequest::default(), Labels::default())),
        Workload::Pod { pod, namespace } => {
            let request = cni_request(&pod.metadata.annotations, &namespace.metadata.annotations)
                .map_err(|e| AttachError::Annotation(e.to_string()))?;
            Ok((request, namespace_labels(&namespace.metadata)))
        }
    }
}

/// A pool's namespaceSelector sees the namespace's labels and its name.
fn namespace_labels(meta: &api::ObjectMeta) -> Labels {
    let own = meta.labels.iter().map(|(k, v)| (k.as_str(), v.as_str()));
    Labels::new(own.chain([("projectcalico.org/name", meta.name.as_str())]))
}

/// Which families: the annotation's, else the configuration's, IPv4 unless told otherwise.
fn families(request: &Request, wanted: &CniRequest) -> Vec<Family> {
    if !wanted.families.is_empty() {
        return wanted.families.clone();
    }
    if !wanted.ip_addrs.is_empty() {
        return wanted.ip_addrs.iter().map(|a| Family::of(*a)).collect();
    }
    let v4 = request.conf.ipam.assign_ipv4.as_deref() != Some("false");
    let v6 = request.conf.ipam.assign_ipv6.as_deref() == Some("true");
    [(v4, Family::V4), (v6, Family::V6)]
        .into_iter()
        .filter(|(on, _)| *on)
        .map(|(_, f)| f)
        .collect()
}
