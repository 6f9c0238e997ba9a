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
/// Only local workloads are kept, and of profiles the labels.
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
    pub(crate) services: BTreeMap<ServiceRef, Service>,
    pub(crate) slices: BTreeMap<SliceKey, EndpointSlice>,
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

fn put<K: Ord, V>(map: &mut BTreeMap<K, V>, key: K, value: Option<V>) {
    match value {
        Some(v) => drop(map.insert(key, v)),
        None => drop(map.remove(&key)),
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

    /// Takes the new state of one thing; says whether it can matter to this node's BGP.
    pub fn update(&mut self, update: Update) -> bool {
        match update {
            Update::Node(k, v) => put(&mut self.nodes, k, v),
            Update::BgpConfig(k, v) => put(&mut self.configs, k, v),
            Update::BgpPeer(k, v) => put(&mut self.peers, k, v),
            Update::BgpFilter(k, v) => put(&mut self.filters, k, v),
            Update::Pool(k, v) => put(&mut self.pools, k, v),
            Update::Block(k, v) => {
                let mine = |b: &Block| b.node.as_deref() == Some(&*self.me);
                let matters = v.as_ref().is_some_and(mine) || self.blocks.get(&k).is_some_and(mine);
                let v = v.filter(mine);
                put(&mut self.blocks, k, v);
                return matters;
            }
            Update::Workload(k, v) => {
                if k.node != self.me {
                    return false;
                }
                put(&mut self.workloads, k, v);
                return self.speaks_with_workloads();
            }
            Update::Profile(k, v) => {
                put(&mut self.profiles, k, v.map(|p: Profile| p.labels));
                return self.speaks_with_workloads();
            }
            Update::Service(k, v) => put(&mut self.services, k, v),
            Update::EndpointSlice(k, v) => put(&mut self.slices, k, v),
            _ => return false,
        }
        true
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
