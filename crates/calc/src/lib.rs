//! Resources in, one node's desired state out, by increments.
//!
//! Promises: what the flushed [`Delta`]s add up to is a function of the resources and
//! the configuration as they are, never of the order, batching or repetition of the
//! updates that led there; nothing dangles in it; and the work of a change is in proportion
//! to what it changes.
//!
//! Never: does I/O, reads a clock, takes a lock, keeps what no local endpoint needs in more than
//! its compact form.

mod globals;
mod hosts;
mod interner;
mod labels;
mod members;
mod nodes;
mod policies;
mod pools;
mod routes;
mod rules;
mod set;
mod slab;
mod stored;
mod workloads;

use desired::Delta;
use hosts::Hosts;
use members::{Members, Owner, Thing};
use model::{HostEndpoint, NetworkSet, NetworkSetKey, Update, WorkloadEndpoint, WorkloadKey};
use net::Cidr;
use policies::Policies;
use routes::Network;
use std::sync::Arc;
use workloads::Workloads;

pub use globals::{NatExclusions, NodeConfig};

/// For whom to calculate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The name of this node.
    pub node: Arc<str>,
}

/// The calculation of one node.
#[derive(Debug)]
pub struct Calc {
    settings: Settings,
    members: Members,
    policies: Policies,
    workloads: Workloads,
    hosts: Hosts,
    network: Network,
}

impl Calc {
    /// Nothing known yet, and Calico's default configuration.
    pub fn new(settings: Settings) -> Self {
        Self {
            members: Members::default(),
            policies: Policies::default(),
            workloads: Workloads::default(),
            hosts: Hosts::default(),
            network: Network::new(settings.node.clone()),
            settings,
        }
    }

    /// The name of the node that this is for.
    pub fn node(&self) -> &Arc<str> {
        &self.settings.node
    }

    /// Takes the new state of one thing. Any order and repetition is legal.
    /// FelixConfigurations and readiness are the agent's part, peers and filters a BGP speaker's;
    /// they are ignored here. So are services: what rules match are the endpoints of their slices.
    pub fn update(&mut self, update: Update) {
        match update {
            Update::Workload(key, endpoint) => self.update_workload(key, endpoint),
            Update::Host(name, endpoint) => self.update_host(name, endpoint.as_ref()),
            Update::NetworkSet(key, set) => self.update_network_set(key, set.as_ref()),
            Update::Profile(id, profile) => {
                let labels = profile.as_ref().map(|p| &p.labels);
                self.members.set_profile(&id, labels);
                self.policies.update_profile(&id, profile);
            }
            Update::Policy(key, policy) => self.policies.update(key, policy),
            Update::Tier(name, tier) => self.policies.update_tier(name, tier),
            Update::Pool(name, pool) => self.network.update_pool(&name, pool.as_ref()),
            Update::Block(cidr, block) => self.network.update_block(cidr, block),
            Update::Node(name, node) => {
                self.members.update_node(&name, node.as_ref());
                self.network.update_node(name, node);
            }
            Update::EndpointSlice(key, slice) => self.members.update_slice(key, slice),
            Update::Domain(name, found) => self.members.update_domain(name, found.as_deref()),
            Update::BgpConfig(name, config) => self.network.update_bgp(&name, config.as_ref()),
            Update::Service(..)
            | Update::BgpPeer(..)
            | Update::BgpFilter(..)
            | Update::Secret(..)
            | Update::Felix(..)
            | Update::Ready(_) => {}
        }
    }

    fn update_workload(&mut self, key: WorkloadKey, endpoint: Option<WorkloadEndpoint>) {
        let thing = endpoint.as_ref().map(|e| Thing {
            nets: e.nets.iter().copied().collect(),
            labels: &e.labels,
            profiles: &e.profiles,
            ports: &e.ports,
        });
        self.members.update(&Owner::Workload(key.clone()), thing);
        if key.node == self.settings.node {
            self.workloads.update(
                key,
                endpoint,
                &mut self.policies,
                &self.members,
                &mut self.network,
            );
        }
    }

    fn update_host(&mut self, name: Arc<str>, endpoint: Option<&HostEndpoint>) {
        let thing = endpoint.map(|e| Thing {
            nets: e.expected_ips.iter().map(|a| Cidr::host(*a)).collect(),
            labels: &e.labels,
            profiles: &e.profiles,
            ports: &e.ports,
        });
        self.members.update(&Owner::Host(name.clone()), thing);
        let local = endpoint.filter(|e| e.node == self.settings.node);
        self.hosts
            .update(&name, local, &mut self.policies, &self.members);
    }

    fn update_network_set(&mut self, key: NetworkSetKey, set: Option<&NetworkSet>) {
        let thing = set.map(|s| Thing {
            nets: s.nets.iter().copied().collect(),
            labels: &s.labels,
            profiles: &s.profiles,
            ports: &[],
        });
        self.members.update(&Owner::NetworkSet(key), thing);
    }

    /// Takes the resolved configuration of this node.
    pub fn set_config(&mut self, config: NodeConfig) {
        self.network.set_config(config);
    }

    /// What changed since the last flush. The first one always carries the settings.
    pub fn flush(&mut self) -> Delta {
        let mut delta = Delta::default();
        self.policies.flush(&mut self.members, &mut delta);
        self.members.flush(&mut delta);
        let labels = self.policies.take_dirty_labels();
        self.workloads.flush(&labels, &self.policies, &mut delta);
        self.hosts.flush(&labels, &self.policies, &mut delta);
        self.network.flush(&mut delta);
        delta
    }
}
