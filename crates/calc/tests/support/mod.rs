//! A world of resources, shorthand to write them, and the naive answer to what follows from
//! them.
#![allow(dead_code, unreachable_pub, reason = "each test target uses its part")]

pub mod expand;
pub mod oracle;
pub mod vocabulary;

use calc::{Calc, NodeConfig, Settings};
use desired::{Delta, Desired};
use model::*;
use net::Cidr;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

pub const ME: &str = "me";

/// The resources as they are, each under its identity.
#[derive(Debug, Clone, Default)]
pub struct World {
    pub workloads: BTreeMap<WorkloadKey, WorkloadEndpoint>,
    pub hosts: BTreeMap<Arc<str>, HostEndpoint>,
    pub profiles: BTreeMap<ProfileId, Profile>,
    pub policies: BTreeMap<PolicyKey, Policy>,
    pub tiers: BTreeMap<Arc<str>, Tier>,
    pub network_sets: BTreeMap<NetworkSetKey, NetworkSet>,
    pub pools: BTreeMap<Arc<str>, IpPool>,
    pub blocks: BTreeMap<Cidr, Block>,
    pub nodes: BTreeMap<Arc<str>, Node>,
    pub slices: BTreeMap<SliceKey, EndpointSlice>,
    pub domains: BTreeMap<Arc<str>, Arc<[IpAddr]>>,
    pub bgp: BTreeMap<Arc<str>, BgpConfig>,
    pub config: NodeConfig,
}

fn put<K: Ord + Clone, V: Clone>(map: &mut BTreeMap<K, V>, k: &K, v: &Option<V>) {
    match v {
        Some(v) => drop(map.insert(k.clone(), v.clone())),
        None => drop(map.remove(k)),
    }
}

impl World {
    pub fn update(&mut self, update: &Update) {
        match update {
            Update::Workload(k, v) => put(&mut self.workloads, k, v),
            Update::Host(k, v) => put(&mut self.hosts, k, v),
            Update::Profile(k, v) => put(&mut self.profiles, k, v),
            Update::Policy(k, v) => put(&mut self.policies, k, v),
            Update::Tier(k, v) => put(&mut self.tiers, k, v),
            Update::NetworkSet(k, v) => put(&mut self.network_sets, k, v),
            Update::Pool(k, v) => put(&mut self.pools, k, v),
            Update::Block(k, v) => put(&mut self.blocks, k, v),
            Update::Node(k, v) => put(&mut self.nodes, k, v),
            Update::EndpointSlice(k, v) => put(&mut self.slices, k, v),
            Update::Domain(k, v) => put(&mut self.domains, k, v),
            Update::BgpConfig(k, v) => put(&mut self.bgp, k, v),
            other => panic!("no part of a world: {other:?}"),
        }
    }

    /// Everything as updates that make it so.
    pub fn updates(&self) -> Vec<Update> {
        let mut out: Vec<Update> = Vec::new();
        let all =
            |k: &WorkloadKey, v: &WorkloadEndpoint| Update::Workload(k.clone(), Some(v.clone()));
        out.extend(self.workloads.iter().map(|(k, v)| all(k, v)));
        out.extend(
            self.hosts
                .iter()
                .map(|(k, v)| Update::Host(k.clone(), Some(v.clone()))),
        );
        out.extend(
            self.profiles
                .iter()
                .map(|(k, v)| Update::Profile(k.clone(), Some(v.clone()))),
        );
        out.extend(
            self.policies
                .iter()
                .map(|(k, v)| Update::Policy(k.clone(), Some(v.clone()))),
        );
        out.extend(
            self.tiers
                .iter()
                .map(|(k, v)| Update::Tier(k.clone(), Some(*v))),
        );
        let sets = self.network_sets.iter();
        out.extend(sets.map(|(k, v)| Update::NetworkSet(k.clone(), Some(v.clone()))));
        out.extend(
            self.pools
                .iter()
                .map(|(k, v)| Update::Pool(k.clone(), Some(v.clone()))),
        );
        out.extend(
            self.blocks
                .iter()
                .map(|(k, v)| Update::Block(*k, Some(v.clone()))),
        );
        out.extend(
            self.nodes
                .iter()
                .map(|(k, v)| Update::Node(k.clone(), Some(v.clone()))),
        );
        let slices = self.slices.iter();
        out.extend(slices.map(|(k, v)| Update::EndpointSlice(k.clone(), Some(v.clone()))));
        let domains = self.domains.iter();
        out.extend(domains.map(|(k, v)| Update::Domain(k.clone(), Some(v.clone()))));
        let bgp = self.bgp.iter();
        out.extend(bgp.map(|(k, v)| Update::BgpConfig(k.clone(), Some(v.clone()))));
        out
    }

    /// Updates that lead from here to there.
    pub fn towards(&self, there: &Self) -> Vec<Update> {
        let (mine, theirs) = (self.updates(), there.updates());
        let mut out: Vec<Update> = mine
            .iter()
            .filter(|u| !theirs.iter().any(|t| same_thing(u, t)))
            .map(gone)
            .collect();
        out.extend(theirs.into_iter().filter(|t| !mine.contains(t)));
        out
    }

    /// What follows, computed anew.
    pub fn fresh(&self) -> Desired {
        let mut calc = new_calc();
        calc.set_config(self.config.clone());
        for u in self.updates() {
            calc.update(u);
        }
        let mut desired = Desired::default();
        desired.apply(&calc.flush()).expect("a first delta applies");
        desired
    }
}

fn gone(u: &Update) -> Update {
    match u {
        Update::Workload(k, _) => Update::Workload(k.clone(), None),
        Update::Host(k, _) => Update::Host(k.clone(), None),
        Update::Profile(k, _) => Update::Profile(k.clone(), None),
        Update::Policy(k, _) => Update::Policy(k.clone(), None),
        Update::Tier(k, _) => Update::Tier(k.clone(), None),
        Update::NetworkSet(k, _) => Update::NetworkSet(k.clone(), None),
        Update::Pool(k, _) => Update::Pool(k.clone(), None),
        Update::Block(k, _) => Update::Block(*k, None),
        Update::Node(k, _) => Update::Node(k.clone(), None),
        Update::EndpointSlice(k, _) => Update::EndpointSlice(k.clone(), None),
        Update::Domain(k, _) => Update::Domain(k.clone(), None),
        Update::BgpConfig(k, _) => Update::BgpConfig(k.clone(), None),
        other => panic!("no part of a world: {other:?}"),
    }
}

fn same_thing(a: &Update, b: &Update) -> bool {
    gone(a) == gone(b)
}

pub fn new_calc() -> Calc {
    Calc::new(Settings { node: ME.into() })
}

/// A calculation with what has come out of it so far.
pub struct Run {
    pub calc: Calc,
    pub desired: Desired,
}

impl Default for Run {
    fn default() -> Self {
        Self {
            calc: new_calc(),
            desired: Desired::default(),
        }
    }
}

impl Run {
    /// Flushes, and holds the delta to the contract: it applies, leaves nothing dangling, and
    /// says nothing that is not news.
    pub fn flush(&mut self) -> Delta {
        let delta = self.calc.flush();
        self.check_news(&delta);
        self.desired.apply(&delta).expect("a delta applies");
        assert_eq!(self.desired.faults(), Vec::<String>::new());
        assert!(
            self.calc.flush().is_empty(),
            "nothing is left after a flush"
        );
        delta
    }

    fn check_news(&self, delta: &Delta) {
        let d = &self.desired;
        for (k, v) in &delta.policies {
            assert_ne!(d.policies.get(k), v.as_ref(), "no news of {k}");
        }
        for (k, v) in &delta.profiles {
            assert_ne!(d.profiles.get(k), v.as_ref(), "no news of {k}");
        }
        for (k, v) in &delta.workloads {
            assert_ne!(d.workloads.get(k), v.as_ref(), "no news of {k}");
        }
        for (k, v) in &delta.hosts {
            assert_ne!(d.hosts.get(k), v.as_ref(), "no news of {k}");
        }
        if let Some(names) = &delta.domains {
            assert_ne!(&d.domains, names, "no news of domains");
        }
        for (k, v) in &delta.routes {
            assert_ne!(d.routes.get(k), v.as_ref(), "no news of {k}");
        }
        for (k, v) in &delta.vteps {
            assert_ne!(d.vteps.get(k), v.as_ref(), "no news of {k:?}");
        }
        if delta.globals.is_some() {
            assert_ne!(d.globals, delta.globals, "no news of settings");
        }
        for (k, v) in &delta.sets {
            if let desired::SetChange::Update { added, removed } = v {
                assert!(!added.is_empty() || !removed.is_empty(), "no news of {k}");
                assert!(!added.iter().any(|m| removed.contains(m)), "{k} in both");
            } else if let desired::SetChange::Create { .. } = v {
                assert!(!d.sets.contains_key(k), "{k} is created again");
            }
        }
    }
}
