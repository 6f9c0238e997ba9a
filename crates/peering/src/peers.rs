//! Whom a node speaks with.
//!
//! Promises: of several resources that ask for a session with one address and port, a global
//! BGPPeer counts before one for some nodes, that before the side that another node's peer implies,
//! and any of them before the mesh.

use crate::world::{DEFAULT_PORT, Speaker, World, address};
use model::{
    BgpFilter, BgpPeer, BgpRemote, FilterRule, LabelSource, Labels, NextHopMode, Node, SecretKey,
    WorkloadEndpoint,
};
use net::{Asn, Family};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::net::IpAddr;
use std::sync::Arc;

/// Seconds that a restarting peer's routes are kept (`maxRestartTime`).
const RESTART_TIME: u32 = 120;

/// What asks for a session; it names it, and says how it is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PeerOrigin {
    /// The full mesh between nodes.
    Mesh,
    /// A BGPPeer for every node.
    Global,
    /// A BGPPeer for some nodes.
    Node,
    /// A BGPPeer with workloads of the node.
    LocalWorkload,
}

impl PeerOrigin {
    /// The prefix of session names, as Calico's tools expect them.
    pub const fn prefix(self) -> &'static str {
        match self {
            Self::Mesh => "Mesh",
            Self::Global => "Global",
            Self::Node => "Node",
            Self::LocalWorkload => "Local_Workload",
        }
    }

    /// As `calicoctl node status` shows it.
    pub const fn shown(self) -> &'static str {
        match self {
            Self::Mesh => "node-to-node mesh",
            Self::Global => "global",
            Self::Node => "node specific",
            Self::LocalWorkload => "local workload",
        }
    }
}

/// One session that the node should have.
#[derive(Debug, Clone, PartialEq)]
pub struct Peer {
    /// What asks for it.
    pub origin: PeerOrigin,
    /// The BGPPeer, where it is one.
    pub resource: Option<Arc<str>>,
    /// Its address; of the family of the routes that are exchanged.
    pub address: IpAddr,
    /// Its port.
    pub port: u16,
    /// Its AS.
    pub asn: Asn,
    /// Ours towards it.
    pub local_asn: Asn,
    /// The address to speak from; `None` leaves it to the kernel.
    pub source: Option<IpAddr>,
    /// Wait for it to call.
    pub passive: bool,
    /// Key of RFC 2385.
    pub password: Option<SecretKey>,
    /// Accept only packets that came over at most so many hops (RFC 5082).
    pub ttl_security: Option<u8>,
    /// Seconds to keep its routes while it restarts.
    pub restart: u32,
    /// Seconds between keepalives, when not a third of the hold time.
    pub keepalive: Option<u32>,
    /// Whose address announcements carry.
    pub next_hop: NextHopMode,
    /// It is our client (RFC 4456).
    pub client: bool,
    /// How often our own AS may stand in its paths.
    pub allowed_local_as: u32,
    /// A gateway by which it is reached.
    pub reachable_by: Option<IpAddr>,
    /// Its filters' rules towards us, in order, each with its name.
    pub import: Vec<(String, FilterRule)>,
    /// Its filters' rules from us, in order, each with its name.
    pub export: Vec<(String, FilterRule)>,
}

impl Peer {
    /// Whether it is of another AS than we towards it.
    pub fn external(&self) -> bool {
        self.asn != self.local_asn
    }

    /// Its name in tables and sockets: `Mesh_10_0_0_1`, `Node_fd00__1_port_1179`.
    pub fn name(&self) -> String {
        let address = self.address.to_string().replace(['.', ':'], "_");
        match self.port {
            DEFAULT_PORT => format!("{}_{address}", self.origin.prefix()),
            port => format!("{}_{address}_port_{port}", self.origin.prefix()),
        }
    }
}

/// Sessions by the far end.
type Sessions = BTreeMap<(IpAddr, u16), Peer>;

/// All sessions, in order of address and port.
pub(crate) fn peers(world: &World, me: &Speaker, faults: &mut Vec<String>) -> Vec<Peer> {
    let mut out = Sessions::new();
    // An earlier one keeps its place: the order here is that of precedence.
    let scoped = |global: bool| {
        let is = move |p: &BgpPeer| p.node.is_none() && p.node_selector.is_none();
        world.peers.iter().filter(move |(_, p)| is(p) == global)
    };
    for (name, peer) in scoped(true).chain(scoped(false)) {
        if applies(world, peer, &world.me) {
            let ends = ends(world, peer, &world.me);
            add(&mut out, world, me, name, peer, &ends, faults);
        }
    }
    for (name, peer) in scoped(true).chain(scoped(false)) {
        if peer.reverse && !matches!(peer.remote, BgpRemote::Workloads { .. }) {
            let ends = reversed(world, peer);
            add(&mut out, world, me, name, peer, &ends, faults);
        }
    }
    for end in mesh(world, me) {
        let key = (end.address, end.port);
        let Entry::Vacant(free) = out.entry(key) else {
            continue;
        };
        free.insert(mesh_peer(world, me, &end));
    }
    out.into_values().collect()
}

/// The far end of a session to be.
struct End {
    address: IpAddr,
    port: u16,
    asn: Asn,
    /// The node that it is, with its cluster identifier.
    node: Option<Option<Arc<str>>>,
}

/// Whether a peer resource is about a node.
fn applies(world: &World, peer: &BgpPeer, node: &str) -> bool {
    match (&peer.node, &peer.node_selector) {
        (Some(name), _) => &**name == node,
        (None, Some(s)) => world.nodes.get(node).is_some_and(|n| s.matches(&n.labels)),
        (None, None) => true,
    }
}

/// A node as the far end, once for each family that it has.
fn node_ends(world: &World, name: &str, node: &Node) -> Vec<End> {
    [Family::V4, Family::V6]
        .into_iter()
        .filter_map(|f| address(node, f))
        .map(|address| End {
            address,
            port: world.port_of(name),
            asn: world.as_of(node),
            node: Some(node.route_reflector_cluster.clone()),
        })
        .collect()
}

/// The node that has an address and an AS.
fn node_at(world: &World, ip: IpAddr, asn: Asn) -> Option<(&Arc<str>, &Node)> {
    let family = Family::of(ip);
    world
        .nodes
        .iter()
        .find(|(_, n)| address(n, family) == Some(ip) && world.as_of(n) == asn)
}

/// The far ends that a peer resource asks `of` to speak with.
fn ends(world: &World, peer: &BgpPeer, of: &str) -> Vec<End> {
    match &peer.remote {
        BgpRemote::Address { ip, port, asn } => {
            let asn = asn.unwrap_or_else(|| world.cluster_as());
            let node = node_at(world, *ip, asn);
            if node.is_some_and(|(n, _)| &**n == of) {
                return Vec::new();
            }
            let usual = node.map_or(DEFAULT_PORT, |(n, _)| world.port_of(n));
            vec![End {
                address: *ip,
                port: port.unwrap_or(usual),
                asn,
                node: node.map(|(_, n)| n.route_reflector_cluster.clone()),
            }]
        }
        BgpRemote::Nodes(selector) => world
            .nodes
            .iter()
            .filter(|(name, n)| &***name != of && selector.matches(&n.labels))
            .flat_map(|(name, n)| node_ends(world, name, n))
            .collect(),
        BgpRemote::Workloads { selector, asn } => world
            .workloads
            .values()
            .filter(|w| selector.matches(&inherited(world, w)))
            .flat_map(|w| &w.nets)
            .map(|net| End {
                address: net.addr(),
                port: DEFAULT_PORT,
                asn: *asn,
                node: None,
            })
            .collect(),
    }
}

/// A workload's own labels, then those of its profiles.
fn inherited<'a>(world: &'a World, workload: &'a WorkloadEndpoint) -> (&'a Labels, Inherited<'a>) {
    let profiles = workload
        .profiles
        .iter()
        .filter_map(|p| world.profiles.get(p));
    (&workload.labels, Inherited(profiles.collect()))
}

/// Labels of profiles in order.
struct Inherited<'a>(Vec<&'a Labels>);

impl LabelSource for Inherited<'_> {
    fn label(&self, key: &str) -> Option<&str> {
        self.0.iter().find_map(|l| l.label(key))
    }
}

/// The nodes that a peer resource tells to speak with us: we are to speak with them too.
fn reversed(world: &World, peer: &BgpPeer) -> Vec<End> {
    let Some(myself) = world.nodes.get(&world.me) else {
        return Vec::new();
    };
    let me = match &peer.remote {
        BgpRemote::Nodes(s) => s.matches(&myself.labels).then_some([true, true]),
        BgpRemote::Address { ip, asn, .. } => {
            let asn = asn.unwrap_or_else(|| world.cluster_as());
            let family = Family::of(*ip);
            let is = address(myself, family) == Some(*ip) && world.as_of(myself) == asn;
            is.then_some([Family::V4, Family::V6].map(|f| f == family))
        }
        BgpRemote::Workloads { .. } => None,
    };
    let Some(families) = me else {
        return Vec::new();
    };
    let wanted = |ip: IpAddr| families[usize::from(ip.is_ipv6())];
    world
        .nodes
        .iter()
        .filter(|(name, _)| **name != world.me && applies(world, peer, name))
        .flat_map(|(name, n)| node_ends(world, name, n))
        .filter(|e| wanted(e.address))
        .collect()
}

fn add(
    out: &mut Sessions,
    world: &World,
    me: &Speaker,
    name: &Arc<str>,
    peer: &BgpPeer,
    ends: &[End],
    faults: &mut Vec<String>,
) {
    for end in ends {
        let family = Family::of(end.address);
        // A node without an address of the family cannot hold the session.
        if me.addresses[usize::from(end.address.is_ipv6())].is_none() {
            continue;
        }
        if let Entry::Vacant(free) = out.entry((end.address, end.port)) {
            let mut session = resource_peer(world, me, name, peer, end);
            let lists = filters(world, name, peer, faults);
            session.import = rules(&lists, |f| &f.import[usize::from(family == Family::V6)]);
            session.export = rules(&lists, |f| &f.export[usize::from(family == Family::V6)]);
            free.insert(session);
        }
    }
}

fn filters<'a>(
    world: &'a World,
    name: &Arc<str>,
    peer: &BgpPeer,
    faults: &mut Vec<String>,
) -> Vec<(&'a Arc<str>, &'a BgpFilter)> {
    let mut out = Vec::new();
    for wanted in &peer.filters {
        match world.filters.get_key_value(wanted) {
            Some(f) => out.push(f),
            None => {
                let fault = format!(
                    "BGPPeer({name}) names BGPFilter({wanted}), which does not exist: it filters \
                     nothing; create it or take it out of spec.filters"
                );
                if !faults.contains(&fault) {
                    faults.push(fault);
                }
            }
        }
    }
    out
}

fn rules<'a>(
    lists: &[(&Arc<str>, &'a BgpFilter)],
    of: impl Fn(&'a BgpFilter) -> &'a Vec<FilterRule>,
) -> Vec<(String, FilterRule)> {
    let named = |(name, filter): &(&Arc<str>, &'a BgpFilter)| {
        let name = format!("BGPFilter({name})");
        let each = of(filter).iter().enumerate();
        each.map(|(i, r)| (format!("{name} rule {i}"), r.clone()))
            .collect::<Vec<_>>()
    };
    lists.iter().flat_map(named).collect()
}

/// Of two nodes, the one whose peer's address is greater as text waits: so that the two do not
/// call each other at once.
fn waits(mine: Option<IpAddr>, theirs: IpAddr) -> bool {
    mine.is_some_and(|m| theirs.to_string() > m.to_string())
}

/// A reflector's client is an internal peer that is not of its cluster.
fn is_client(me: &Speaker, internal: bool, theirs: Option<&Arc<str>>) -> bool {
    internal && me.cluster.is_some() && theirs != me.cluster.as_ref()
}

fn resource_peer(world: &World, me: &Speaker, name: &Arc<str>, peer: &BgpPeer, end: &End) -> Peer {
    let mine = me.addresses[usize::from(end.address.is_ipv6())];
    let workload = matches!(peer.remote, BgpRemote::Workloads { .. });
    let global = peer.node.is_none() && peer.node_selector.is_none();
    let origin = match (workload, global) {
        (true, _) => PeerOrigin::LocalWorkload,
        (false, true) => PeerOrigin::Global,
        (false, false) => PeerOrigin::Node,
    };
    let local_asn = peer.local_asn.unwrap_or(me.asn);
    let source = if workload {
        let own = world.config().map(|c| &c.local_workload_peering);
        let of_family = |a: &&IpAddr| a.is_ipv6() == end.address.is_ipv6();
        own.and_then(|l| l.iter().find(of_family)).copied()
    } else if peer.use_node_ip {
        mine
    } else {
        None
    };
    let cluster = end.node.as_ref().and_then(Option::as_ref);
    Peer {
        origin,
        resource: Some(name.clone()),
        address: end.address,
        port: end.port,
        asn: end.asn,
        local_asn,
        source,
        passive: workload || (global && end.node.is_some() && waits(mine, end.address)),
        password: peer.password.clone(),
        ttl_security: peer.ttl_security,
        restart: peer.restart.unwrap_or(RESTART_TIME),
        keepalive: peer.keepalive,
        next_hop: peer.next_hop,
        client: is_client(me, end.asn == local_asn, cluster),
        allowed_local_as: peer.allowed_local_as.unwrap_or(0),
        reachable_by: peer.reachable_by,
        import: Vec::new(),
        export: Vec::new(),
    }
}

/// The nodes of the full mesh that we are in; none when we reflect or it is off.
fn mesh(world: &World, me: &Speaker) -> Vec<End> {
    let on = world.config().and_then(|c| c.mesh).unwrap_or(true);
    if !on || me.cluster.is_some() {
        return Vec::new();
    }
    world
        .nodes
        .iter()
        .filter(|(name, n)| **name != world.me && n.route_reflector_cluster.is_none())
        .flat_map(|(name, n)| node_ends(world, name, n))
        .filter(|e| me.addresses[usize::from(e.address.is_ipv6())].is_some())
        .collect()
}

fn mesh_peer(world: &World, me: &Speaker, end: &End) -> Peer {
    let mine = me.addresses[usize::from(end.address.is_ipv6())];
    let default = world.config();
    Peer {
        origin: PeerOrigin::Mesh,
        resource: None,
        address: end.address,
        port: end.port,
        asn: end.asn,
        local_asn: me.asn,
        source: mine,
        passive: waits(mine, end.address),
        password: default.and_then(|c| c.mesh_password.clone()),
        ttl_security: None,
        restart: default.and_then(|c| c.mesh_restart).unwrap_or(RESTART_TIME),
        keepalive: None,
        next_hop: NextHopMode::Auto,
        client: false,
        allowed_local_as: 0,
        reachable_by: None,
        import: Vec::new(),
        export: Vec::new(),
    }
}
