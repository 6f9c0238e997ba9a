//! Whom a node speaks with.
//!
//! Promises: of several resources that ask for a session with one address and port, a global
//! BGPPeer counts before one for some nodes, that before the side that another node's peer implies,
//! and any of them before the mesh.

use crate::world::{DEFAULT_PORT, Speaker, World, address};
use model::{
    AddPath, Bfd, BfdHops, BgpFilter, BgpPeer, BgpRemote, FilterRule, LabelSource, Labels,
    MaxPrefixes, NextHopMode, Node, SecretKey, WorkloadEndpoint,
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
    /// How the path to it is watched. Without `hops` the resources do not say whether it is on a
    /// link of ours.
    pub bfd: Option<Bfd>,
    /// Which way several paths to a prefix go.
    pub add_path: AddPath,
    /// How many prefixes of its family are taken.
    pub max_prefixes: Option<MaxPrefixes>,
}

impl Peer {
    /// Whether it is of another AS than we towards it.
    pub fn external(&self) -> bool {
        self.asn != self.local_asn
    }

    /// Its name in tables and sockets: `Mesh_10_0_0_1`, `Node_fd00__1_port_1179`. In the mesh the
    /// port is no part of it, as with Calico, whose tools read the address out of the name.
    pub fn name(&self) -> String {
        let address = self.address.to_string().replace(['.', ':'], "_");
        match (self.origin, self.port) {
            (PeerOrigin::Mesh, _) | (_, DEFAULT_PORT) => {
                format!("{}_{address}", self.origin.prefix())
            }
            (_, port) => format!("{}_{address}_port_{port}", self.origin.prefix()),
        }
    }
}

/// Sessions by the far end.
type Sessions = BTreeMap<(IpAddr, u16), Peer>;

/// All sessions, in order of address and port.
pub(crate) fn peers(world: &World, me: &Speaker, faults: &mut Vec<String>) -> Vec<Peer> {
    let mut out = Sessions::new();
    if let Some(cluster) = &me.cluster
        && cluster.parse::<std::net::Ipv4Addr>().is_err()
    {
        faults.push(format!(
            "Node({}) spec.bgp.routeReflectorClusterID: {cluster:?} is no IPv4 address: the router \
             id stands in its place; write one such as 244.0.0.1",
            world.me
        ));
    }
    // An earlier one keeps its place: the order here is that of precedence.
    let scoped = |global: bool| {
        let remote = |p: &BgpPeer| !matches!(p.remote, BgpRemote::Workloads { .. });
        let wanted = move |p: &BgpPeer| is_global(p) == global && remote(p);
        world.peers.iter().filter(move |(_, p)| wanted(p))
    };
    for (name, peer) in scoped(true).chain(scoped(false)) {
        if applies(world, peer, &world.me) {
            unused(name, peer, faults);
            let ends = ends(world, name, peer, faults);
            add(&mut out, world, me, (name, peer), &ends, faults);
        }
    }
    for (name, peer) in scoped(true).chain(scoped(false)) {
        if peer.reverse {
            let ends = reversed(world, peer);
            add(&mut out, world, me, (name, peer), &ends, faults);
        }
    }
    // Of several that choose a workload it is the first by name, whatever nodes they are for.
    for (name, peer) in &world.peers {
        if let BgpRemote::Workloads { selector, asn } = &peer.remote
            && applies(world, peer, &world.me)
        {
            unused(name, peer, faults);
            let ends = workload_ends(world, selector, *asn);
            add(&mut out, world, me, (name, peer), &ends, faults);
        }
    }
    if out.values().any(|p| p.origin == PeerOrigin::LocalWorkload)
        && let Some(at) = called_at(world, Family::V6).filter(|a| is_link_local(*a))
    {
        faults.push(format!(
            "BGPConfiguration spec.localWorkloadPeeringIPV6: {at} is a link-local address, at which \
             the node does not answer on several links: name another, such as fd07::7"
        ));
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

/// How a resource leads to a far end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum By {
    /// By its address.
    Address,
    /// By its labels, as a node.
    Selector,
    /// It is the node that the resource is for, and we are the other side.
    Reverse,
    /// By its labels, as a workload of ours.
    Workload,
    /// It is in the mesh, without a resource.
    Mesh,
}

/// The far end of a session to be.
struct End {
    address: IpAddr,
    port: u16,
    asn: Asn,
    by: By,
    /// The node that it is, with its cluster identifier.
    node: Option<Option<Arc<str>>>,
}

fn is_global(peer: &BgpPeer) -> bool {
    peer.node.is_none() && peer.node_selector.is_none()
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
fn node_ends(world: &World, name: &str, node: &Node, by: By) -> Vec<End> {
    [Family::V4, Family::V6]
        .into_iter()
        .filter_map(|f| address(node, f))
        .map(|address| End {
            address,
            port: world.port_of(name),
            asn: world.as_of(node),
            by,
            node: Some(node.route_reflector_cluster.clone()),
        })
        .collect()
}

/// The node whose speaker is at an address, in an AS, at a port if one is named.
fn node_at(world: &World, ip: IpAddr, asn: Asn, port: Option<u16>) -> Option<(&Arc<str>, &Node)> {
    let family = Family::of(ip);
    world.nodes.iter().find(|(name, n)| {
        address(n, family) == Some(ip)
            && world.as_of(n) == asn
            && port.is_none_or(|p| p == world.port_of(name))
    })
}

/// An address that names no host without an interface (RFC 4007, section 6).
fn is_link_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(_) => false,
        IpAddr::V6(a) => a.is_unicast_link_local(),
    }
}

/// The far ends that a peer resource asks us to speak with.
fn ends(world: &World, name: &Arc<str>, peer: &BgpPeer, faults: &mut Vec<String>) -> Vec<End> {
    match &peer.remote {
        BgpRemote::Address { ip, .. } if is_link_local(*ip) => {
            faults.push(format!(
                "BGPPeer({name}) spec.peerIP: {ip} is a link-local address, which says nothing \
                 without its interface, and the field has no place for one: name another address \
                 of the peer"
            ));
            Vec::new()
        }
        BgpRemote::Address { ip, port, asn } => {
            let asn = asn.unwrap_or_else(|| world.cluster_as());
            let node = node_at(world, *ip, asn, *port);
            let usual = node.map_or(DEFAULT_PORT, |(n, _)| world.port_of(n));
            vec![End {
                address: *ip,
                port: port.unwrap_or(usual),
                asn,
                by: By::Address,
                node: node.map(|(_, n)| n.route_reflector_cluster.clone()),
            }]
        }
        BgpRemote::Nodes(selector) => world
            .nodes
            .iter()
            .filter(|(name, n)| **name != world.me && selector.matches(&n.labels))
            .flat_map(|(name, n)| node_ends(world, name, n, By::Selector))
            .collect(),
        BgpRemote::Workloads { selector, asn } => workload_ends(world, selector, *asn),
    }
}

/// The workloads of this node that a selector chooses: by their first address of each family.
fn workload_ends(world: &World, selector: &model::Selector, asn: Asn) -> Vec<End> {
    let chosen = |w: &&WorkloadEndpoint| selector.matches(&inherited(world, w));
    let firsts = |w: &WorkloadEndpoint| {
        let first = |f: Family| {
            w.nets
                .iter()
                .map(|n| n.addr())
                .find(|a| Family::of(*a) == f)
        };
        [first(Family::V4), first(Family::V6)]
    };
    let all = world.workloads.values().filter(chosen).flat_map(firsts);
    all.flatten()
        .map(|address| End {
            address,
            port: DEFAULT_PORT,
            asn,
            by: By::Workload,
            node: None,
        })
        .collect()
}

/// Fields that mean nothing for peers of this kind.
fn unused(name: &Arc<str>, peer: &BgpPeer, faults: &mut Vec<String>) {
    let by_address = matches!(peer.remote, BgpRemote::Address { .. });
    let by_nodes = matches!(peer.remote, BgpRemote::Nodes(_));
    let allowed = peer.allowed_local_as.is_some_and(|n| n > 0);
    for (set, field, whose) in [
        (
            by_nodes && peer.local_asn.is_some(),
            "localASNumber",
            "peerIP or localWorkloadSelector",
        ),
        (!by_address && allowed, "numAllowedLocalASNumbers", "peerIP"),
    ] {
        if set {
            faults.push(format!(
                "BGPPeer({name}) spec.{field} counts with {whose} alone, and is passed over: take \
                 it out, or name the peer by its address"
            ));
        }
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
        BgpRemote::Address { ip, asn, port } => {
            let asn = asn.unwrap_or_else(|| world.cluster_as());
            let named = node_at(world, *ip, asn, *port);
            let is = named.is_some_and(|(name, _)| *name == world.me);
            is.then_some([Family::V4, Family::V6].map(|f| f == Family::of(*ip)))
        }
        BgpRemote::Workloads { .. } => None,
    };
    let Some(families) = me else {
        return Vec::new();
    };
    // The AS that they say they are towards us.
    let said = match peer.remote {
        BgpRemote::Address { .. } => peer.local_asn,
        _ => None,
    };
    let wanted = |ip: IpAddr| families[usize::from(ip.is_ipv6())];
    world
        .nodes
        .iter()
        .filter(|(name, _)| **name != world.me && applies(world, peer, name))
        .flat_map(|(name, n)| node_ends(world, name, n, By::Reverse))
        .filter(|e| wanted(e.address))
        .map(|e| End {
            asn: said.unwrap_or(e.asn),
            ..e
        })
        .collect()
}

fn add(
    out: &mut Sessions,
    world: &World,
    me: &Speaker,
    (name, peer): (&Arc<str>, &BgpPeer),
    ends: &[End],
    faults: &mut Vec<String>,
) {
    for end in ends {
        let family = Family::of(end.address);
        let mine = me.addresses[usize::from(end.address.is_ipv6())];
        // A node without an address of the family cannot hold the session, nor one with itself.
        if mine.is_none_or(|m| m == end.address) {
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

/// Where workloads call (`localWorkloadPeeringIPV4`, `...IPV6`).
fn called_at(world: &World, family: Family) -> Option<IpAddr> {
    let all = &world.config()?.local_workload_peering;
    all.iter().find(|a| Family::of(**a) == family).copied()
}

fn resource_peer(world: &World, me: &Speaker, name: &Arc<str>, peer: &BgpPeer, end: &End) -> Peer {
    let mine = me.addresses[usize::from(end.address.is_ipv6())];
    let workload = end.by == By::Workload;
    // The side that follows from another's is a node's own matter.
    let global = is_global(peer) && end.by != By::Reverse;
    let origin = match (workload, global) {
        (true, _) => PeerOrigin::LocalWorkload,
        (false, true) => PeerOrigin::Global,
        (false, false) => PeerOrigin::Node,
    };
    let own_words = matches!(end.by, By::Address | By::Workload);
    let local_asn = peer.local_asn.filter(|_| own_words).unwrap_or(me.asn);
    let source = if workload {
        called_at(world, Family::of(end.address)).filter(|a| !is_link_local(*a))
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
        allowed_local_as: match end.by {
            By::Address => peer.allowed_local_as.unwrap_or(0),
            _ => 0,
        },
        reachable_by: peer.reachable_by,
        import: Vec::new(),
        export: Vec::new(),
        bfd: peer.bfd.map(|b| {
            // Workloads are behind a link each; security for one hop says as much.
            let near = workload || peer.ttl_security == Some(1);
            watched(world, b, near, end.address)
        }),
        add_path: match end.by {
            // What the other side sends we take.
            By::Reverse => AddPath {
                receive: peer.add_path.send,
                send: peer.add_path.receive,
            },
            _ => peer.add_path,
        },
        // What we take of it says nothing about what it takes of us.
        max_prefixes: peer.max_prefixes.filter(|_| end.by != By::Reverse),
    }
}

/// How a path is watched, with what can be said of its length.
fn watched(world: &World, how: Bfd, near: bool, to: IpAddr) -> Bfd {
    let me = world.nodes.get(&world.me);
    let subnet = me.and_then(|n| match Family::of(to) {
        Family::V4 => n.ipv4,
        Family::V6 => n.ipv6,
    });
    let near = near || subnet.is_some_and(|own| own.subnet.contains(to));
    Bfd {
        hops: how.hops.or(near.then_some(BfdHops::Single)),
        ..how
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
        .flat_map(|(name, n)| node_ends(world, name, n, By::Mesh))
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
        bfd: (default.and_then(|c| c.mesh_bfd)).map(|b| watched(world, b, false, end.address)),
        add_path: AddPath::default(),
        max_prefixes: None,
    }
}
