//! What the plan of a node follows from.

use crate::peers::{Peer, peers};
use crate::policy;
use crate::routes::{Kernel, Own, Programs};
use model::{
    BgpConfig, BgpFilter, BgpPeer, Block, EndpointSlice, IpPool, Labels, Node, Profile, ProfileId,
    Service, ServiceRef, SliceKey, Update, WorkloadEndpoint, WorkloadKey,
};
use net::{Asn, Cidr, Family};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

/// The AS of a cluster that states none.
pub(crate) const DEFAULT_AS: Asn = Asn(64512);
/// The port of BGP (RFC 4271, section 8).
pub(crate) const DEFAULT_PORT: u16 = 179;

/// Everything that decides a node's BGP, as last told.
///
/// Only local workloads and blocks are kept, of profiles the labels, and of services and what is behind
/// them no more than announcements depend on: every node of a cluster has one of these.
#[derive(Debug)]
pub struct World {
    pub(crate) me: Arc<str>,
    pub(crate) nodes: BTreeMap<Arc<str>, Node>,
    pub(crate) configs: BTreeMap<Arc<str>, BgpConfig>,
    pub(crate) peers: BTreeMap<Arc<str>, BgpPeer>,
    pub(crate) filters: BTreeMap<Arc<str>, BgpFilter>,
    pub(crate) pools: BTreeMap<Arc<str>, IpPool>,
    pub(crate) blocks: BTreeMap<Cidr, Block>,
    pub(crate) workloads: BTreeMap<WorkloadKey, WorkloadEndpoint>,
    pub(crate) profiles: BTreeMap<ProfileId, Labels>,
    /// Without their ports.
    pub(crate) services: BTreeMap<ServiceRef, Service>,
    pub(crate) slices: BTreeMap<SliceKey, Behind>,
}

/// What a slice says of its service: in which families something is ready, in [`Family`] order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Behind {
    pub(crate) service: ServiceRef,
    /// On this node.
    pub(crate) here: [bool; 2],
    /// On any.
    pub(crate) anywhere: [bool; 2],
}

impl Behind {
    fn new(slice: &EndpointSlice, me: &str) -> Self {
        let ready = |here: bool| {
            Family::BOTH.map(|f| {
                slice
                    .endpoints
                    .iter()
                    .filter(|e| e.ready && (!here || e.node.as_deref() == Some(me)))
                    .any(|e| e.addresses.iter().any(|a| Family::of(*a) == f))
            })
        };
        Self {
            service: slice.service.clone(),
            here: ready(true),
            anywhere: ready(false),
        }
    }
}

/// The speaker itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Speaker {
    /// Its AS.
    pub asn: Asn,
    /// Its address of each family, in [`Family`] order.
    pub addresses: [Option<IpAddr>; 2],
    /// Set on a route reflector.
    pub cluster: Option<Arc<str>>,
    /// Where it listens.
    pub port: u16,
    /// Listens on its own addresses only.
    pub bind_node_ip: bool,
    /// Interfaces whose routes and addresses are none of its business; `*` at an end.
    pub ignored_interfaces: Vec<Arc<str>>,
}

/// What one node's speaker should be and do.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// `None` while the node is unknown or has no address: nothing is spoken.
    pub speaker: Option<Speaker>,
    /// Its sessions, by address and port.
    pub peers: Vec<Peer>,
    /// What it announces of its own.
    pub own: Own,
    /// What becomes of learned routes in the kernel.
    pub kernel: Kernel,
    /// Which routes between nodes are BGP's to program.
    pub programs: Programs,
    /// What cannot be followed, each naming the object, the cause and the remedy.
    pub faults: Vec<String>,
}

/// Whether that changes anything.
fn put<K: Ord, V: PartialEq>(map: &mut BTreeMap<K, V>, key: K, value: Option<V>) -> bool {
    match (map.get(&key), value) {
        (Some(old), Some(v)) if *old == v => false,
        (_, Some(v)) => {
            map.insert(key, v);
            true
        }
        (_, None) => map.remove(&key).is_some(),
    }
}

fn without_ports(s: &Service) -> Service {
    Service {
        ports: Vec::new(),
        cluster_ips: s.cluster_ips.clone(),
        external_ips: s.external_ips.clone(),
        load_balancer_ips: s.load_balancer_ips.clone(),
        ..*s
    }
}

impl World {
    /// For the node of this name.
    pub fn new(me: impl Into<Arc<str>>) -> Self {
        Self {
            me: me.into(),
            nodes: BTreeMap::new(),
            configs: BTreeMap::new(),
            peers: BTreeMap::new(),
            filters: BTreeMap::new(),
            pools: BTreeMap::new(),
            blocks: BTreeMap::new(),
            workloads: BTreeMap::new(),
            profiles: BTreeMap::new(),
            services: BTreeMap::new(),
            slices: BTreeMap::new(),
        }
    }

    /// As much of an update as [`World::update`] of this node takes from it; `None` where that is
    /// nothing. What lies in other threads need not be copied whole.
    pub fn concerning(me: &str, update: &Update) -> Option<Update> {
        Some(match update {
            Update::Node(..)
            | Update::BgpConfig(..)
            | Update::BgpPeer(..)
            | Update::BgpFilter(..)
            | Update::Pool(..)
            | Update::EndpointSlice(..) => update.clone(),
            // It may have been this node's.
            Update::Block(k, Some(b)) if b.node.as_deref() != Some(me) => Update::Block(*k, None),
            Update::Block(..) => update.clone(),
            Update::Workload(k, _) if &*k.node == me => update.clone(),
            Update::Profile(k, p) => {
                let labels = p.as_ref().map(|p| Profile {
                    labels: p.labels.clone(),
                    ..Profile::default()
                });
                Update::Profile(k.clone(), labels)
            }
            Update::Service(k, s) => Update::Service(k.clone(), s.as_ref().map(without_ports)),
            _ => return None,
        })
    }

    /// Takes the new state of one thing; says whether it can change what this node's BGP is.
    pub fn update(&mut self, update: Update) -> bool {
        match update {
            Update::Node(k, v) => put(&mut self.nodes, k, v),
            Update::BgpConfig(k, v) => put(&mut self.configs, k, v),
            Update::BgpPeer(k, v) => put(&mut self.peers, k, v),
            Update::BgpFilter(k, v) => put(&mut self.filters, k, v),
            Update::Pool(k, v) => put(&mut self.pools, k, v),
            Update::Block(k, v) => {
                let mine = |b: &Block| b.node.as_deref() == Some(&*self.me);
                put(&mut self.blocks, k, v.filter(mine))
            }
            Update::Workload(k, v) => {
                k.node == self.me && put(&mut self.workloads, k, v) && self.speaks_with_workloads()
            }
            Update::Profile(k, v) => {
                put(&mut self.profiles, k, v.map(|p: Profile| p.labels))
                    && self.speaks_with_workloads()
            }
            Update::Service(k, v) => {
                put(&mut self.services, k, v.as_ref().map(without_ports))
                    && self.tells_of_services()
            }
            Update::EndpointSlice(k, v) => {
                let v = v.map(|s| Behind::new(&s, &self.me));
                put(&mut self.slices, k, v) && self.tells_of_services()
            }
            _ => false,
        }
    }

    /// Whether any address of a service can be announced.
    fn tells_of_services(&self) -> bool {
        self.config().is_some_and(|c| {
            let lists = [
                &c.service_cluster,
                &c.service_external,
                &c.service_load_balancer,
            ];
            lists.iter().any(|l| !l.is_empty())
        })
    }

    fn speaks_with_workloads(&self) -> bool {
        let workloads = |p: &BgpPeer| matches!(p.remote, model::BgpRemote::Workloads { .. });
        self.peers.values().any(workloads)
    }

    /// The plan as things stand. Its cost is that of all nodes and peers: sessions of a full mesh
    /// are as many.
    pub fn plan(&self) -> Plan {
        let mut faults = Vec::new();
        let Some(speaker) = self.speaker() else {
            return Plan {
                speaker: None,
                peers: Vec::new(),
                own: Own::default(),
                kernel: self.kernel(),
                programs: self.programs(),
                faults,
            };
        };
        let peers = peers(self, &speaker, &mut faults);
        Plan {
            speaker: Some(speaker),
            peers,
            own: self.own(),
            kernel: self.kernel(),
            programs: self.programs(),
            faults,
        }
    }

    /// What is taken from a peer of the plan.
    pub fn import(&self, peer: &Peer) -> bgp::policy::Policy {
        policy::import(self, peer)
    }

    /// What a peer of the plan is told. `own` is that of the plan.
    pub fn export(&self, own: &Own, peer: &Peer) -> bgp::policy::Policy {
        policy::export(self, own, peer)
    }

    /// The metric that the kernel's routes to pods have, which learned ones are ranked against.
    pub fn normal_priority(&self, family: Family) -> u32 {
        policy::priority(self, family)
    }

    pub(crate) fn config(&self) -> Option<&BgpConfig> {
        self.configs.get("default")
    }

    /// The configuration of one node alone.
    pub(crate) fn config_of(&self, node: &str) -> Option<&BgpConfig> {
        self.configs.get(format!("node.{node}").as_str())
    }

    /// The cluster's AS.
    pub(crate) fn cluster_as(&self) -> Asn {
        self.config().and_then(|c| c.asn).unwrap_or(DEFAULT_AS)
    }

    /// The AS of a node.
    pub(crate) fn as_of(&self, node: &Node) -> Asn {
        node.asn.unwrap_or_else(|| self.cluster_as())
    }

    /// Where a node listens.
    pub(crate) fn port_of(&self, node: &str) -> u16 {
        let own = self.config_of(node).and_then(|c| c.listen_port);
        own.or_else(|| self.config().and_then(|c| c.listen_port))
            .unwrap_or(DEFAULT_PORT)
    }

    fn speaker(&self) -> Option<Speaker> {
        let node = self.nodes.get(&self.me)?;
        let addresses = [Family::V4, Family::V6].map(|f| address(node, f));
        addresses.iter().flatten().next()?;
        let default = self.config();
        Some(Speaker {
            asn: self.as_of(node),
            addresses,
            cluster: node.route_reflector_cluster.clone(),
            port: self.port_of(&self.me),
            bind_node_ip: default.and_then(|c| c.bind_node_ip).unwrap_or(false),
            ignored_interfaces: default
                .and_then(|c| c.ignored_interfaces.clone())
                .unwrap_or_default(),
        })
    }
}

/// A node's address of a family.
pub(crate) fn address(node: &Node, family: Family) -> Option<IpAddr> {
    match family {
        Family::V4 => node.ipv4,
        Family::V6 => node.ipv6,
    }
    .map(|a| a.addr)
}
