//! Which way to each destination: routes, and the tunnel ends behind them.
//!
//! Promises: one target a destination, by precedence: a local workload, then an address in
//! use away from its block, then a block, then a node's pod range. A change of pool,
//! node or block looks again only at the destinations that depend on it, and a target that
//! changes is replaced, never removed in between.
//!
//! Never: routes through a tunnel that this node does not have, or guesses a next hop for
//! a node without an address.

use crate::globals::{Found, NatExclusions, NodeConfig, cover};
use crate::nodes::{Nodes, slot};
use crate::pools::Pools;
use desired::{Delta, Globals, RouteTarget, Tunnel, Vtep};
use model::{BgpConfig, Block, Encap, IpPool, Node, WorkloadKey};
use net::{Cidr, Family, IfName, PrefixMap};
use rustc_hash::{FxHashMap, FxHashSet};
use smallvec::SmallVec;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Why a destination is behind a node; the first one counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum ClaimKind {
    /// The address is in use there, away from its block.
    Borrowed,
    /// The block belongs to it.
    Block,
    /// Kubernetes gave it the range.
    PodRange,
}

/// A node's claim to a destination.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Claim {
    kind: ClaimKind,
    /// The block that says so, so that claims of two blocks are two.
    block: Cidr,
    node: Arc<str>,
}

/// Nodes, pools, blocks and local addresses, and the routes that follow.
#[derive(Debug)]
pub(crate) struct Network {
    me: Arc<str>,
    config: NodeConfig,
    nodes: Nodes,
    pools: Pools,
    blocks: BTreeMap<Cidr, Block>,
    /// Sorted, by destination.
    claims: PrefixMap<SmallVec<[Claim; 1]>>,
    /// How many claims a node has to each destination.
    claims_of: FxHashMap<Arc<str>, FxHashMap<Cidr, u32>>,
    /// Local workloads by address; the lowest key has it.
    local: FxHashMap<Cidr, BTreeMap<WorkloadKey, IfName>>,
    routes: FxHashMap<Cidr, RouteTarget>,
    vteps: FxHashMap<(Arc<str>, Family), Vtep>,
    globals: Option<Arc<Globals>>,
    /// Service ranges of the BGPConfiguration `default`; a cover.
    service_cidrs: Vec<Cidr>,
    dirty_routes: FxHashSet<Cidr>,
    dirty_nodes: FxHashSet<Arc<str>>,
    globals_dirty: bool,
}

impl Network {
    /// An empty network around a node.
    pub(crate) fn new(me: Arc<str>) -> Self {
        Self {
            me,
            config: NodeConfig::default(),
            nodes: Nodes::default(),
            pools: Pools::default(),
            blocks: BTreeMap::new(),
            claims: PrefixMap::new(),
            claims_of: FxHashMap::default(),
            local: FxHashMap::default(),
            routes: FxHashMap::default(),
            vteps: FxHashMap::default(),
            globals: None,
            service_cidrs: Vec::new(),
            dirty_routes: FxHashSet::default(),
            dirty_nodes: FxHashSet::default(),
            globals_dirty: true,
        }
    }

    /// Takes the configuration.
    pub(crate) fn set_config(&mut self, config: NodeConfig) {
        if self.config != config {
            self.config = config;
            self.all_dirty();
        }
    }

    fn all_dirty(&mut self) {
        self.dirty_routes.extend(self.claims.iter().map(|(c, _)| c));
        self.dirty_nodes.extend(self.nodes.names().cloned());
        self.globals_dirty = true;
    }

    /// Takes the new state of a node.
    pub(crate) fn update_node(&mut self, name: Arc<str>, node: Option<Node>) {
        let Some((old, new)) = self.nodes.update(&name, node) else {
            return;
        };
        for cidr in &old.pod_ranges {
            self.unclaim(*cidr, &pod_range(*cidr, &name));
        }
        for cidr in &new.pod_ranges {
            self.claim(*cidr, pod_range(*cidr, &name));
        }
        if name == self.me {
            self.all_dirty();
            return;
        }
        if let Some(destinations) = self.claims_of.get(&name) {
            self.dirty_routes.extend(destinations.keys());
        }
        self.dirty_nodes.insert(name);
        self.globals_dirty |= old.addresses != new.addresses;
    }

    /// Takes the new state of a BGPConfiguration. The one named `default` says which addresses are
    /// services'; those of nodes do not say it, as with Calico.
    pub(crate) fn update_bgp(&mut self, name: &str, config: Option<&BgpConfig>) {
        if name != "default" {
            return;
        }
        let ranges = config.map_or_else(Vec::new, |c| {
            [
                &*c.service_cluster,
                &*c.service_external,
                &*c.service_load_balancer,
            ]
            .concat()
        });
        self.service_cidrs = cover(&ranges);
        self.globals_dirty = true;
    }

    /// Takes the new state of a pool.
    pub(crate) fn update_pool(&mut self, name: &Arc<str>, pool: Option<&IpPool>) {
        let before = Family::BOTH.map(|f| self.pools.vxlan(f));
        let touched = self.pools.update(name, pool);
        for cidr in touched {
            self.dirty_routes
                .extend(self.claims.within(cidr).map(|(c, _)| c));
            self.globals_dirty = true;
        }
        if before != Family::BOTH.map(|f| self.pools.vxlan(f)) {
            self.dirty_nodes.extend(self.nodes.names().cloned());
        }
    }

    /// Takes the new state of a block.
    pub(crate) fn update_block(&mut self, cidr: Cidr, block: Option<Block>) {
        if self.blocks.get(&cidr) == block.as_ref() {
            return;
        }
        let old = match &block {
            Some(b) => self.blocks.insert(cidr, b.clone()),
            None => self.blocks.remove(&cidr),
        };
        let (old, new) = (claims(cidr, old.as_ref()), claims(cidr, block.as_ref()));
        for (destination, claim) in &old {
            if !new.contains(&(*destination, claim.clone())) {
                self.unclaim(*destination, claim);
            }
        }
        for (destination, claim) in new {
            self.claim(destination, claim);
        }
    }

    fn claim(&mut self, destination: Cidr, claim: Claim) {
        if self.claims.get(destination).is_none() {
            self.claims.insert(destination, SmallVec::new());
        }
        let Some(list) = self.claims.get_mut(destination) else {
            return;
        };
        if let Err(i) = list.binary_search(&claim) {
            let of = self.claims_of.entry(claim.node.clone()).or_default();
            *of.entry(destination).or_default() += 1;
            list.insert(i, claim);
            self.dirty_routes.insert(destination);
        }
    }

    fn unclaim(&mut self, destination: Cidr, claim: &Claim) {
        let Some(list) = self.claims.get_mut(destination) else {
            return;
        };
        let Ok(i) = list.binary_search(claim) else {
            return;
        };
        list.remove(i);
        if list.is_empty() {
            self.claims.remove(destination);
        }
        self.dirty_routes.insert(destination);
        let Some(of) = self.claims_of.get_mut(&claim.node) else {
            return;
        };
        if let Some(n) = of.get_mut(&destination) {
            *n -= 1;
            if *n == 0 {
                of.remove(&destination);
            }
        }
        if of.is_empty() {
            self.claims_of.remove(&claim.node);
        }
    }

    /// A local workload has an address.
    pub(crate) fn add_local(&mut self, cidr: Cidr, key: &WorkloadKey, interface: IfName) {
        let owners = self.local.entry(cidr).or_default();
        owners.insert(key.clone(), interface);
        self.dirty_routes.insert(cidr);
    }

    /// It has it no more.
    pub(crate) fn remove_local(&mut self, cidr: Cidr, key: &WorkloadKey) {
        if let Some(owners) = self.local.get_mut(&cidr) {
            owners.remove(key);
            if owners.is_empty() {
                self.local.remove(&cidr);
            }
            self.dirty_routes.insert(cidr);
        }
    }

    /// Says what changed since the last flush.
    pub(crate) fn flush(&mut self, delta: &mut Delta) {
        let tunnels = Family::BOTH.map(|f| self.tunnel(f));
        for cidr in std::mem::take(&mut self.dirty_routes) {
            let target = self.target(cidr, &tunnels);
            if self.routes.get(&cidr) != target.as_ref() {
                match &target {
                    Some(t) => drop(self.routes.insert(cidr, t.clone())),
                    None => drop(self.routes.remove(&cidr)),
                }
                delta.routes.insert(cidr, target);
            }
        }
        for name in std::mem::take(&mut self.dirty_nodes) {
            for family in Family::BOTH {
                let vtep = self.vtep(&name, family);
                let key = (name.clone(), family);
                if self.vteps.get(&key) != vtep.as_ref() {
                    match &vtep {
                        Some(v) => drop(self.vteps.insert(key.clone(), v.clone())),
                        None => drop(self.vteps.remove(&key)),
                    }
                    delta.vteps.insert(key, vtep);
                }
            }
        }
        if std::mem::take(&mut self.globals_dirty) {
            let globals = self.config.globals(self.found(tunnels));
            if self.globals.as_deref() != Some(&globals) {
                let globals = Arc::new(globals);
                self.globals = Some(globals.clone());
                delta.globals = Some(globals);
            }
        }
    }

    /// What resources say of the settings.
    fn found(&self, tunnels: [Option<Tunnel>; 2]) -> Found {
        let mut hosts = self.nodes.hosts();
        hosts.extend_from_slice(&self.config.external_nodes);
        let nodes = cover(&hosts);
        Found {
            tunnels,
            nat_sources: self.pools.nat_sources(),
            nat_exclude: match self.config.nat_exclusions {
                NatExclusions::Pools => self.pools.within_cluster(&[]),
                NatExclusions::PoolsAndHosts => self.pools.within_cluster(&nodes),
            },
            service_cidrs: self.service_cidrs.clone(),
            dscp_exclude: self.pools.within_cluster(&self.nodes.all_of(&self.me)),
            nodes,
        }
    }

    fn vxlan_on(&self, family: Family) -> bool {
        self.config.vxlan_on(family, self.pools.vxlan(family))
    }

    /// This node's tunnel of a family.
    fn tunnel(&self, family: Family) -> Option<Tunnel> {
        let host = self.nodes.addr(&self.me, family)?;
        let device = match family {
            Family::V4 => "vxlan.calico",
            Family::V6 => "vxlan-v6.calico",
        };
        self.vxlan_on(family).then(|| Tunnel {
            device: device.parse().expect("a legal interface name"),
            vni: self.config.vxlan_vni,
            port: self.config.vxlan_port,
            address: self.nodes.tunnel(&self.me, family),
            mac: self.nodes.mac(&self.me, family),
            host,
            mtu: self.config.vxlan_mtu[slot(family)],
        })
    }

    fn vtep(&self, node: &Arc<str>, family: Family) -> Option<Vtep> {
        if *node == self.me || !self.vxlan_on(family) {
            return None;
        }
        Some(Vtep {
            tunnel: self.nodes.tunnel(node, family)?,
            mac: self.nodes.mac(node, family),
            host: self.nodes.addr(node, family)?,
        })
    }

    fn target(&self, cidr: Cidr, tunnels: &[Option<Tunnel>; 2]) -> Option<RouteTarget> {
        if let Some((_, interface)) = self.local.get(&cidr).and_then(BTreeMap::first_key_value) {
            return Some(RouteTarget::Workload(*interface));
        }
        let claim = self.claims.get(cidr)?.first()?;
        if claim.node == self.me {
            // An address in use here without a workload is the host's own; a range of Kubernetes'
            // is for whoever hands out its addresses to guard.
            let block = claim.kind == ClaimKind::Block && !cidr.is_host();
            return block.then_some(RouteTarget::Blackhole);
        }
        let pool = self.pools.of(cidr);
        let (vxlan, ipip) = match (claim.kind, pool) {
            (ClaimKind::Borrowed | ClaimKind::Block, Some(p)) => (p.vxlan, p.ipip),
            (ClaimKind::PodRange, None) => (Encap::Never, Encap::Never),
            (ClaimKind::Borrowed | ClaimKind::Block, None) | (ClaimKind::PodRange, Some(_)) => {
                return None;
            }
        };
        self.remote(cidr.family(), &claim.node, vxlan, ipip, tunnels)
    }

    /// The way to another node's addresses.
    fn remote(
        &self,
        family: Family,
        node: &Arc<str>,
        vxlan: Encap,
        ipip: Encap,
        tunnels: &[Option<Tunnel>; 2],
    ) -> Option<RouteTarget> {
        let via = self.nodes.addr(node, family)?;
        let near = self.nodes.in_subnet_of(&self.me, via);
        let plain = match (vxlan, ipip) {
            (Encap::Always, _) => false,
            (Encap::CrossSubnet, _) => near,
            // IPIP's own routes are not calculated yet; what it does not encapsulate is.
            (Encap::Never, Encap::Always) => return None,
            (Encap::Never, Encap::CrossSubnet | Encap::Never) => {
                if !near || !self.config.program_direct_routes {
                    return None;
                }
                true
            }
        };
        if plain {
            return Some(RouteTarget::Direct { via });
        }
        tunnels[slot(family)].as_ref()?.address?;
        let via = self.nodes.tunnel(node, family)?;
        Some(RouteTarget::Vxlan { via })
    }
}

fn pod_range(cidr: Cidr, node: &Arc<str>) -> Claim {
    Claim {
        kind: ClaimKind::PodRange,
        block: cidr,
        node: node.clone(),
    }
}

/// What a block says of who is where.
fn claims(cidr: Cidr, block: Option<&Block>) -> Vec<(Cidr, Claim)> {
    let Some(block) = block else {
        return Vec::new();
    };
    let claim = |kind, node: &Arc<str>| Claim {
        kind,
        block: cidr,
        node: node.clone(),
    };
    let own = block
        .node
        .iter()
        .map(|n| (cidr, claim(ClaimKind::Block, n)));
    let borrowed = block
        .borrowed
        .iter()
        .map(|b| (Cidr::host(b.addr), claim(ClaimKind::Borrowed, &b.node)));
    own.chain(borrowed).collect()
}
