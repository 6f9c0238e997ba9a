//! The resources, as they are now.

use crate::{End, Flow, Target};
use model::{
    BgpConfig, EndpointSlice, FelixConfig, HostEndpoint, IpPool, LabelSource, Labels, NetworkSet,
    NetworkSetKey, Node, Policy, PolicyKey, Profile, ProfileId, Service, ServiceRef, SliceKey,
    Tier, Update, WorkloadEndpoint, WorkloadKey,
};
use net::{Cidr, Family, Protocol};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

/// All that a verdict depends on. `World::default()` is an empty cluster.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct World {
    pub(crate) tiers: BTreeMap<Arc<str>, Tier>,
    pub(crate) policies: BTreeMap<PolicyKey, Policy>,
    pub(crate) profiles: BTreeMap<ProfileId, Profile>,
    pub(crate) workloads: BTreeMap<WorkloadKey, WorkloadEndpoint>,
    pub(crate) hosts: BTreeMap<Arc<str>, HostEndpoint>,
    pub(crate) sets: BTreeMap<NetworkSetKey, NetworkSet>,
    pub(crate) pools: BTreeMap<Arc<str>, IpPool>,
    pub(crate) nodes: BTreeMap<Arc<str>, Node>,
    pub(crate) felix: BTreeMap<Arc<str>, FelixConfig>,
    pub(crate) services: BTreeMap<ServiceRef, Service>,
    pub(crate) slices: BTreeMap<SliceKey, EndpointSlice>,
    pub(crate) bgp: BTreeMap<Arc<str>, BgpConfig>,
    pub(crate) domains: BTreeMap<Arc<str>, Arc<[IpAddr]>>,
    pub(crate) interfaces: BTreeMap<Arc<str>, BTreeMap<Arc<str>, Vec<IpAddr>>>,
}

/// An end of a flow has no address of the family.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{end} has no {family} address")]
pub struct NoAddress {
    /// Which end.
    pub end: String,
    /// Of which family.
    pub family: Family,
}

fn put<K: Ord, V>(map: &mut BTreeMap<K, V>, key: K, value: Option<V>) {
    match value {
        Some(v) => _ = map.insert(key, v),
        None => _ = map.remove(&key),
    }
}

fn some_of<K: Ord + Clone, V: Clone>(
    map: &BTreeMap<K, V>,
    keep: impl Fn(&K, &V) -> bool,
) -> BTreeMap<K, V> {
    let kept = map.iter().filter(|(k, v)| keep(k, v));
    kept.map(|(k, v)| (k.clone(), v.clone())).collect()
}

impl World {
    /// Takes the new state of one thing. Order and repetition do not matter.
    pub fn update(&mut self, update: Update) {
        match update {
            Update::Workload(k, v) => put(&mut self.workloads, k, v),
            Update::Host(k, v) => put(&mut self.hosts, k, v),
            Update::Profile(k, v) => put(&mut self.profiles, k, v),
            Update::Policy(k, v) => put(&mut self.policies, k, v),
            Update::Tier(k, v) => put(&mut self.tiers, k, v),
            Update::NetworkSet(k, v) => put(&mut self.sets, k, v),
            Update::Pool(k, v) => put(&mut self.pools, k, v),
            Update::Node(k, v) => put(&mut self.nodes, k, v),
            Update::Felix(k, v) => put(&mut self.felix, k, v),
            Update::Service(k, v) => put(&mut self.services, k, v),
            Update::EndpointSlice(k, v) => put(&mut self.slices, k, v),
            Update::BgpConfig(k, v) => put(&mut self.bgp, k, v),
            Update::Domain(k, v) => put(&mut self.domains, k, v),
            Update::Block(..)
            | Update::Secret(..)
            | Update::BgpPeer(..)
            | Update::BgpFilter(..)
            | Update::Ready(_) => {}
        }
    }

    /// Which addresses an interface of a node has. No resource tells; without it, host
    /// endpoints with an interface name are taken to be of the node's main uplink, unless
    /// their expected addresses say otherwise.
    pub fn set_interface(&mut self, node: &str, interface: &str, addresses: Vec<IpAddr>) {
        let of_node = self.interfaces.entry(node.into()).or_default();
        of_node.insert(interface.into(), addresses);
    }

    /// All workloads.
    pub fn workloads(&self) -> impl Iterator<Item = (&WorkloadKey, &WorkloadEndpoint)> {
        self.workloads.iter()
    }

    /// All nodes.
    pub fn nodes(&self) -> impl Iterator<Item = (&Arc<str>, &Node)> {
        self.nodes.iter()
    }

    /// All policies, staged ones too.
    pub fn policies(&self) -> impl Iterator<Item = (&PolicyKey, &Policy)> {
        self.policies.iter()
    }

    /// All services.
    pub fn services(&self) -> impl Iterator<Item = (&ServiceRef, &Service)> {
        self.services.iter()
    }

    /// All pools.
    pub fn pools(&self) -> impl Iterator<Item = (&Arc<str>, &IpPool)> {
        self.pools.iter()
    }

    /// All host endpoints.
    pub fn hosts(&self) -> impl Iterator<Item = (&Arc<str>, &HostEndpoint)> {
        self.hosts.iter()
    }

    /// All profiles.
    pub fn profiles(&self) -> impl Iterator<Item = (&ProfileId, &Profile)> {
        self.profiles.iter()
    }

    /// All network sets.
    pub fn network_sets(&self) -> impl Iterator<Item = (&NetworkSetKey, &NetworkSet)> {
        self.sets.iter()
    }

    /// All EndpointSlices.
    pub fn slices(&self) -> impl Iterator<Item = (&SliceKey, &EndpointSlice)> {
        self.slices.iter()
    }

    /// Labels as selectors see them: its own before those of its profiles.
    pub fn labels<'a>(
        &'a self,
        own: &'a Labels,
        profiles: &[ProfileId],
    ) -> impl LabelSource + use<'a> {
        self.effective(own, profiles)
    }

    /// The part that bears on flows between these addresses which no service translates, with those
    /// policies that are kept. For those who ask often; the answers are the same.
    pub fn narrowed(&self, addresses: &[IpAddr], keep: impl Fn(&PolicyKey) -> bool) -> Self {
        let within = |nets: &[Cidr]| {
            nets.iter()
                .any(|n| addresses.iter().any(|a| n.contains(*a)))
        };
        let has = |list: &[IpAddr]| addresses.iter().any(|a| list.contains(a));
        let workloads = some_of(&self.workloads, |_, w| {
            within(&w.nets)
                || w.nats
                    .iter()
                    .any(|(i, o)| addresses.contains(i) || addresses.contains(o))
        });
        let nodes = some_of(&self.nodes, |name, _| {
            let own = |f: Family| self.node_addresses(name, f).any(|a| addresses.contains(&a));
            own(Family::V4) || own(Family::V6) || workloads.keys().any(|k| k.node == *name)
        });
        let hosts = some_of(&self.hosts, |_, h| {
            nodes.contains_key(&h.node) || has(&h.expected_ips)
        });
        let sets = some_of(&self.sets, |_, s| within(&s.nets));
        let profiles = some_of(&self.profiles, |id, _| {
            workloads.values().any(|w| w.profiles.contains(id))
                || hosts.values().any(|h| h.profiles.contains(id))
                || sets.values().any(|s| s.profiles.contains(id))
        });
        Self {
            tiers: self.tiers.clone(),
            policies: some_of(&self.policies, |k, _| keep(k)),
            pools: some_of(&self.pools, |_, p| within(&[p.cidr])),
            felix: self.felix.clone(),
            services: BTreeMap::new(),
            slices: some_of(&self.slices, |_, s| {
                s.endpoints.iter().any(|e| has(&e.addresses))
            }),
            bgp: self.bgp.clone(),
            domains: some_of(&self.domains, |_, d| has(d)),
            interfaces: self.interfaces.clone(),
            workloads,
            nodes,
            hosts,
            sets,
            profiles,
        }
    }

    /// The pod of that name, as an end of flows: `namespace/pod`, or the whole name of a workload
    /// that Kubernetes does not run.
    pub fn pod(&self, workload: &str) -> Option<End> {
        let key = self.workloads.keys().find(|k| &*k.workload == workload);
        key.cloned().map(End::Workload)
    }

    /// Its address of that family, if it has one. Outside has none of its own.
    pub fn address(&self, end: &End, family: Family) -> Option<IpAddr> {
        match end {
            End::Workload(key) => {
                let nets = &self.workloads.get(key)?.nets;
                nets.iter().find(|n| n.family() == family).map(|n| n.addr())
            }
            End::Node(name) => self.node_addresses(name, family).next(),
            End::Outside => None,
        }
    }

    /// Who answers at an address: a workload, a node, or outside. Of workloads with the same
    /// address, the one that is first by key.
    pub fn holder(&self, address: IpAddr) -> End {
        let mut workloads = self.workloads.iter();
        if let Some((k, _)) = workloads.find(|(_, w)| w.nets.iter().any(|n| n.contains(address))) {
            return End::Workload(k.clone());
        }
        let family = Family::of(address);
        let holds = |n: &&Arc<str>| self.node_addresses(n, family).any(|a| a == address);
        match self.nodes.keys().find(holds) {
            Some(name) => End::Node(name.clone()),
            None => End::Outside,
        }
    }

    /// A flow between two ends of a family, from the first address of the one to that of the other.
    ///
    /// # Errors
    /// One of them has no such address.
    pub fn flow(
        &self,
        from: End,
        to: &End,
        family: Family,
        protocol: Protocol,
        port: u16,
    ) -> Result<Flow, NoAddress> {
        let address = |end: &End| {
            self.address(end, family).ok_or_else(|| NoAddress {
                end: end.to_string(),
                family,
            })
        };
        let (source, target) = (address(&from)?, Target::Address(address(to)?));
        Ok(Flow::new(from, source, target, protocol, port))
    }

    /// Every address of a node: main ones first, then those of its tunnels, then further ones.
    pub(crate) fn node_addresses(
        &self,
        name: &str,
        family: Family,
    ) -> impl Iterator<Item = IpAddr> + use<'_> {
        let node = self.nodes.get(name);
        let told = self
            .interfaces
            .get(name)
            .into_iter()
            .flat_map(BTreeMap::values);
        let known = node.into_iter().flat_map(|n| {
            let main = n.ipv4.iter().chain(&n.ipv6).map(|a| a.addr);
            let tunnels = [n.vxlan_v4, n.vxlan_v6, n.ipip_v4].into_iter().flatten();
            main.chain(n.addresses.iter().copied()).chain(tunnels)
        });
        known
            .chain(told.flatten().copied())
            .filter(move |a| Family::of(*a) == family)
    }
}

impl Extend<Update> for World {
    fn extend<I: IntoIterator<Item = Update>>(&mut self, updates: I) {
        updates.into_iter().for_each(|u| self.update(u));
    }
}

impl FromIterator<Update> for World {
    fn from_iter<I: IntoIterator<Item = Update>>(updates: I) -> Self {
        let mut world = Self::default();
        world.extend(updates);
        world
    }
}
