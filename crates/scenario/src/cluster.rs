//! The cluster of a scenario as its resources make it, without one that runs.
//!
//! Promises: objects are defaulted and validated as `apply` does; pods, nodes, services and
//! tunnels have addresses of the pools that real ones would take them from; the same
//! objects in the same order give the same cluster.
//!
//! Never: claims to know which free address of a pool a real allocator would take: a scenario
//! that depends on it asks for the address by annotation.

use crate::plan::{Encapsulation, POOL_V4, POOL_V6, Plan, Spec};
use crate::services::{self, PodAt};
use api::kinds::kube::Pod;
use api::{Resource, ResourceKind};
use model::{Encap, IpPool, Labels, Update};
use net::{Cidr, Family};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use verdict::World;

/// The interface of a node that is on the fabric, in the lab as here.
pub const UPLINK: &str = "eth0";

/// An object that cannot be applied or deleted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClusterError {
    /// It is refused.
    #[error("{object}: {reason}")]
    Refused {
        /// Which.
        object: String,
        /// Why.
        reason: String,
    },
    /// It is to be deleted and does not exist.
    #[error("delete {0}: it is not there")]
    Absent(String),
    /// There is no address for a pod.
    #[error("pod {pod}: {reason}")]
    NoAddress {
        /// Namespace and name.
        pod: String,
        /// Why.
        reason: String,
    },
    /// The specification is impossible.
    #[error(transparent)]
    Plan(#[from] crate::plan::PlanError),
}

/// Kind, namespace, name.
type Id = (ResourceKind, String, String);

fn id(r: &Resource) -> Id {
    let namespace = r.namespace().unwrap_or_default().to_owned();
    (r.kind(), namespace, r.meta().name.clone())
}

/// A pod and where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placed {
    /// The node.
    pub node: String,
    /// Its addresses, IPv4 first.
    pub ips: Vec<IpAddr>,
}

/// The cluster.
#[derive(Debug, Clone)]
pub struct Cluster {
    plan: Plan,
    spec: Spec,
    objects: BTreeMap<Id, Resource>,
    pods: BTreeMap<(String, String), Placed>,
    /// Addresses that nobody else may be given.
    taken: BTreeSet<IpAddr>,
    next_node: usize,
    services: services::Allocator,
}

/// What every cluster has before anything of a scenario is applied: the namespaces that Kubernetes
/// makes, pools and settings.
pub fn base_objects(spec: &Spec) -> Vec<Value> {
    let mut all = Vec::new();
    for name in ["default", "kube-system", "kube-public", "kube-node-lease"] {
        let labels = json!({"kubernetes.io/metadata.name": name});
        all.push(json!({
            "apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels},
        }));
    }
    if spec.default_pools {
        let (vxlan, ipip) = spec.encapsulation.modes();
        for family in spec.families.iter() {
            let (name, cidr, ipip) = match family {
                Family::V4 => ("default-ipv4-ippool", POOL_V4, ipip),
                Family::V6 => (
                    "default-ipv6-ippool",
                    POOL_V6,
                    Encapsulation::None.modes().1,
                ),
            };
            all.push(json!({
                "apiVersion": api::V3, "kind": "IPPool", "metadata": {"name": name},
                "spec": {"cidr": cidr, "vxlanMode": vxlan, "ipipMode": ipip, "natOutgoing": true},
            }));
        }
    }
    if spec.wireguard {
        all.push(json!({
            "apiVersion": api::V3, "kind": "FelixConfiguration", "metadata": {"name": "default"},
            "spec": {"wireguardEnabled": true},
        }));
    }
    all
}

/// One object of its JSON, as this program made it: fields that it does not have are passed over.
pub(crate) fn resource(value: &Value) -> Result<Resource, String> {
    let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    let (version, kind) = (text(&value["apiVersion"]), text(&value["kind"]));
    let known = ResourceKind::from_type(&version, &kind);
    let meta = &value["metadata"];
    let (namespace, name) = (text(&meta["namespace"]), text(&meta["name"]));
    let at = api::ResourceKey {
        kind: known.ok_or_else(|| format!("there is no kind {kind} of {version}"))?,
        namespace: (!namespace.is_empty()).then_some(namespace.as_str()),
        name: &name,
    };
    api::decode(&at, value.to_string().as_bytes(), None).map_err(|e| e.reason)
}

impl Cluster {
    /// With what every cluster has.
    ///
    /// # Errors
    /// If the specification contradicts itself.
    pub fn new(spec: &Spec) -> Result<Self, ClusterError> {
        let mut cluster = Self {
            plan: spec.plan()?,
            spec: spec.clone(),
            objects: BTreeMap::new(),
            pods: BTreeMap::new(),
            taken: BTreeSet::new(),
            next_node: 0,
            services: services::Allocator::default(),
        };
        for tier in api::builtin_tiers() {
            cluster.apply(tier.into())?;
        }
        let nodes: Vec<Value> = cluster.plan.nodes.iter().map(|n| n.object()).collect();
        for value in base_objects(spec).iter().chain(&nodes) {
            let r = resource(value).map_err(|reason| ClusterError::Refused {
                object: value["kind"].to_string(),
                reason,
            })?;
            cluster.apply(r)?;
        }
        Ok(cluster)
    }

    /// Keeps addresses from pods that do not ask for them: those that later ones will ask for.
    pub fn reserve(&mut self, addresses: impl IntoIterator<Item = IpAddr>) {
        self.taken.extend(addresses);
    }

    /// Creates or replaces an object.
    ///
    /// # Errors
    /// If it is invalid, or there is no address for it.
    pub fn apply(&mut self, mut r: Resource) -> Result<(), ClusterError> {
        let refused = |r: &Resource, reason: String| ClusterError::Refused {
            object: r.to_string(),
            reason,
        };
        if services::is(&r, services::SERVICE) {
            let mut value = serde_json::to_value(&r).map_err(|e| refused(&r, e.to_string()))?;
            if self.services.complete(&mut value, self.spec.families) {
                r = resource(&value).map_err(|e| refused(&r, e))?;
            }
        }
        api::default(&mut r);
        api::validate(&r).map_err(|e| refused(&r, e.to_string()))?;
        let id = id(&r);
        if let Some(old) = self.objects.get(&id) {
            api::validate_update(old, &r).map_err(|e| refused(&r, e.to_string()))?;
        }
        api::updates(&r).map_err(|e| refused(&r, e.reason))?;
        if let Resource::Pod(pod) = &r {
            self.place(pod)?;
        }
        self.objects.insert(id, r);
        Ok(())
    }

    /// Deletes an object.
    ///
    /// # Errors
    /// If it does not exist, or may not be deleted.
    pub fn delete(&mut self, r: &Resource) -> Result<(), ClusterError> {
        let id = id(r);
        let old = self
            .objects
            .remove(&id)
            .ok_or_else(|| ClusterError::Absent(r.to_string()))?;
        if let Err(e) = api::validate_delete(&old) {
            return Err(ClusterError::Refused {
                object: r.to_string(),
                reason: e.to_string(),
            });
        }
        if r.kind() == ResourceKind::Pod
            && let Some(gone) = self.pods.remove(&(id.1, id.2))
        {
            for ip in gone.ips {
                self.taken.remove(&ip);
            }
        }
        Ok(())
    }

    /// The objects, by kind, namespace and name.
    pub fn objects(&self) -> impl Iterator<Item = &Resource> {
        self.objects.values()
    }

    /// The object of a kind, by its name in `kind:`.
    pub fn object(&self, kind: &str, namespace: &str, name: &str) -> Option<&Resource> {
        self.objects.values().find(|r| {
            services::is(r, kind)
                && r.namespace().unwrap_or_default() == namespace
                && r.meta().name == name
        })
    }

    /// A pod.
    pub fn pod(&self, namespace: &str, name: &str) -> Option<&Placed> {
        self.pods.get(&(namespace.to_owned(), name.to_owned()))
    }

    /// Who has which address on the fabric.
    pub const fn plan(&self) -> &Plan {
        &self.plan
    }

    /// All that calculation would be told, pods with their addresses, and slices for the services
    /// that select pods.
    pub fn updates(&self) -> Vec<Update> {
        let mut all = Vec::new();
        let mut pods = Vec::new();
        let mut selecting = Vec::new();
        for r in self.objects.values() {
            match r {
                Resource::Pod(pod) => {
                    let running = self.running(pod);
                    all.extend(api::updates(&running).unwrap_or_default());
                    pods.push((pod, serde_json::to_value(r).unwrap_or_default()));
                }
                Resource::Node(node) => {
                    all.extend(api::updates(&self.with_tunnels(node)).unwrap_or_default())
                }
                _ => all.extend(api::updates(r).unwrap_or_default()),
            }
            if services::is(r, services::SERVICE) {
                selecting.push(serde_json::to_value(r).unwrap_or_default());
            }
        }
        let at: Vec<PodAt<'_>> = pods
            .iter()
            .filter_map(|(pod, value)| {
                let at = self.pod(&pod.metadata.namespace, &pod.metadata.name)?;
                Some(PodAt {
                    pod: value,
                    node: &at.node,
                    ips: &at.ips,
                })
            })
            .collect();
        for slice in selecting.iter().flat_map(|s| services::slices(s, &at)) {
            if let Ok(r) = resource(&slice) {
                all.extend(api::updates(&r).unwrap_or_default());
            }
        }
        // Nobody stores it, and every cluster has it.
        all.extend(api::updates(&api::default_allow_profile().into()).unwrap_or_default());
        all.push(Update::Ready(true));
        all
    }

    /// The same for the oracle, with what no resource tells: the nodes' interfaces.
    pub fn world(&self) -> World {
        let mut world: World = self.updates().into_iter().collect();
        for node in &self.plan.nodes {
            let addresses = node.addresses.iter().map(|i| i.addr).collect();
            world.set_interface(&node.name, UPLINK, addresses);
        }
        world
    }

    fn running(&self, pod: &Pod) -> Resource {
        let mut pod = pod.clone();
        if let Some(at) = self.pod(&pod.metadata.namespace, &pod.metadata.name) {
            pod.spec.node_name.clone_from(&at.node);
            "Running".clone_into(&mut pod.status.phase);
            let ips = at.ips.iter().map(ToString::to_string);
            pod.status.pod_ips = ips.map(|ip| api::kinds::kube::PodIp { ip }).collect();
            pod.status.pod_ip = pod
                .status
                .pod_ips
                .first()
                .map_or_else(String::new, |i| i.ip.clone());
        }
        pod.into()
    }

    /// Finds a node and addresses for a pod; one that has them keeps them.
    fn place(&mut self, pod: &Pod) -> Result<(), ClusterError> {
        let at = (pod.metadata.namespace.clone(), pod.metadata.name.clone());
        if self.pods.contains_key(&at) {
            return Ok(());
        }
        let bad = |reason: String| ClusterError::NoAddress {
            pod: format!("{}/{}", at.0, at.1),
            reason,
        };
        let node = if pod.spec.node_name.is_empty() {
            let next = self.next_node % self.plan.nodes.len();
            self.next_node += 1;
            self.plan.nodes[next].name.clone()
        } else {
            pod.spec.node_name.clone()
        };
        if !self.plan.nodes.iter().any(|n| n.name == node) {
            return Err(bad(format!("Unschedulable: there is no node {node:?}")));
        }
        if pod.spec.host_network {
            return Ok(());
        }
        let ips = self.addresses(pod, &node).map_err(bad)?;
        self.taken.extend(&ips);
        self.pods.insert(at, Placed { node, ips });
        Ok(())
    }

    fn addresses(&self, pod: &Pod, node: &str) -> Result<Vec<IpAddr>, String> {
        let of_namespace = self
            .object("Namespace", "", &pod.metadata.namespace)
            .map(|n| n.meta().annotations.clone())
            .unwrap_or_default();
        let asked = api::annotations::cni_request(&pod.metadata.annotations, &of_namespace)
            .map_err(|e| e.to_string())?;
        let fixed: Vec<IpAddr> = asked
            .ip_addrs
            .iter()
            .chain(&asked.ip_addrs_no_ipam)
            .copied()
            .collect();
        if !fixed.is_empty() {
            let mut inside = fixed.clone();
            inside.sort_by_key(|a| Family::of(*a) == Family::V6);
            return Ok(inside);
        }
        let mut found = Vec::new();
        for family in self.spec.families.iter() {
            if !asked.families.is_empty() && !asked.families.contains(&family) {
                continue;
            }
            let named = match family {
                Family::V4 => &asked.ipv4_pools,
                Family::V6 => &asked.ipv6_pools,
            };
            let pools = self.pools_for(family, named, node, &pod.metadata.namespace);
            let free = pools
                .iter()
                .find_map(|p| self.free(p))
                .ok_or_else(|| format!("no {family} pool has an address for it"))?;
            found.push(free);
        }
        Ok(found)
    }

    fn pools(&self) -> impl Iterator<Item = (Arc<str>, IpPool)> {
        self.objects.values().filter_map(|r| {
            let r @ Resource::IpPool(_) = r else {
                return None;
            };
            match api::updates(r).ok()?.pop()? {
                Update::Pool(name, Some(pool)) => Some((name, pool)),
                _ => None,
            }
        })
    }

    /// The pools that a pod may draw from, by name.
    fn pools_for(
        &self,
        family: Family,
        named: &[String],
        node: &str,
        namespace: &str,
    ) -> Vec<IpPool> {
        let labels = |kind, name: &str| -> Labels {
            let found = self.object(kind, "", name);
            let pairs = found.iter().flat_map(|r| r.meta().labels.iter());
            Labels::new(pairs.map(|(k, v)| (k.as_str(), v.as_str())))
        };
        let (node, namespace) = (labels("Node", node), labels("Namespace", namespace));
        self.pools()
            .filter(|(name, p)| {
                let wanted = |n: &String| **n == **name || n.parse() == Ok(p.cidr);
                let asked = named.iter().any(wanted);
                p.cidr.family() == family
                    && !p.disabled
                    && !p.deleting
                    && p.uses.workload
                    && if named.is_empty() {
                        !p.manual
                            && p.node_selector.matches(&node)
                            && p.namespace_selector
                                .as_ref()
                                .is_none_or(|s| s.matches(&namespace))
                    } else {
                        asked
                    }
            })
            .map(|(_, p)| p)
            .collect()
    }

    fn free(&self, pool: &IpPool) -> Option<IpAddr> {
        let tunnels = self.plan.nodes.len() as u128;
        let size = pool.cidr.size();
        // The first ones are those of the nodes' tunnels.
        let start = if size > 4 * tunnels { tunnels + 1 } else { 0 };
        (start..size.min(100_000))
            .filter_map(|n| pool.cidr.nth(n))
            .find(|a| !self.taken.contains(a))
    }

    /// A node with the addresses of its tunnels.
    fn with_tunnels(&self, node: &api::kinds::node::Node) -> Resource {
        let mut node = node.clone();
        let index = self
            .plan
            .nodes
            .iter()
            .position(|n| n.name == node.metadata.name);
        let Some(index) = index else {
            return node.into();
        };
        for (_, p) in self.pools() {
            let Some(addr) = p.cidr.nth(index as u128 + 1).filter(|_| p.uses.tunnel) else {
                continue;
            };
            let put = |field: &mut String| {
                if field.is_empty() {
                    *field = addr.to_string();
                }
            };
            match (p.cidr.family(), p.vxlan == Encap::Never) {
                (Family::V4, false) => put(&mut node.spec.ipv4_vxlan_tunnel_addr),
                (Family::V6, false) => put(&mut node.spec.ipv6_vxlan_tunnel_addr),
                _ => {}
            }
            if p.ipip != Encap::Never {
                put(&mut node.spec.bgp.get_or_insert_default().ipv4_ipip_tunnel_addr);
            }
        }
        node.into()
    }

    /// The address with which a node's own processes reach an address: that of its tunnel where one
    /// leads there.
    pub fn node_source(&self, node: &str, to: IpAddr) -> Option<IpAddr> {
        let family = Family::of(to);
        let index = self.plan.nodes.iter().position(|n| n.name == node)?;
        let own = self.plan.nodes[index]
            .addresses
            .iter()
            .find(|i| Family::of(i.addr) == family)?;
        let there = self.pods.values().find(|p| p.ips.contains(&to));
        let Some(there) = there.filter(|p| p.node != node) else {
            return Some(own.addr);
        };
        let subnet = Cidr::new(own.addr, own.len)?;
        let other = self.plan.nodes.iter().find(|n| n.name == there.node)?;
        let same_subnet = other.addresses.iter().any(|i| subnet.contains(i.addr));
        let pool = self.pools().find(|(_, p)| p.cidr.contains(to));
        let tunnelled = pool.is_some_and(|(_, p)| {
            [p.vxlan, p.ipip].iter().any(|e| match e {
                Encap::Never => false,
                Encap::Always => true,
                Encap::CrossSubnet => !same_subnet,
            })
        });
        if !tunnelled {
            return Some(own.addr);
        }
        let at = self.object("Node", "", node)?;
        let Resource::Node(at) = at else { return None };
        let Resource::Node(at) = self.with_tunnels(at) else {
            return None;
        };
        let text = match family {
            Family::V6 => at.spec.ipv6_vxlan_tunnel_addr,
            Family::V4 if at.spec.ipv4_vxlan_tunnel_addr.is_empty() => {
                at.spec.bgp.unwrap_or_default().ipv4_ipip_tunnel_addr
            }
            Family::V4 => at.spec.ipv4_vxlan_tunnel_addr,
        };
        text.parse().ok().or(Some(own.addr))
    }
}
