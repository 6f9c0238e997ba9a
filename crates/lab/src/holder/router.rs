//! The fabric's ways to pods.
//!
//! Promises: a routed fabric of a lab without encapsulation learns them from the nodes by BGP and has
//! none of its own. Any other fabric, whom nobody tells, gets what a border would have: routes to the
//! blocks of pools without encapsulation, through the node that each block belongs to, and to borrowed
//! addresses through the node that has them; so outside hosts reach pods.
//!
//! Never: knows a way to pods that are encapsulated: a missing tunnel must show.

use crate::holder::bgp::{Cluster, Speaker};
use crate::holder::fabric;
use crate::holder::node::Node;
use crate::state::ROUTER;
use datastore::{Event, Store, StoreError};
use model::{Encap, Update};
use net::{Cidr, Family, IfIndex};
use netlink::NetlinkError;
use netlink::netns::NetNs;
use scenario::plan::{Encapsulation, NodePlan, Plan, Spec, Topology};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

const POOLS: &str = "/calico/resources/v3/projectcalico.org/ippools/";
const NODES: &str = "/calico/resources/v3/projectcalico.org/nodes/";
const BGP: &str = "/calico/resources/v3/projectcalico.org/bgpconfigurations/";
const BLOCKS: &str = "/calico/ipam/v2/assignment/";
const FOLLOWED: [&str; 4] = [POOLS, BLOCKS, NODES, BGP];

/// How often the kernel is asked for a route that is under way: BGP tells the lab nothing.
const ASK_EVERY: Duration = Duration::from_millis(3);

/// Whether the fabric of a lab learns the ways to pods by BGP.
pub(crate) fn learns(spec: &Spec) -> bool {
    spec.topology == Topology::Routed && spec.encapsulation == Encapsulation::None
}

/// Whether the nodes of a lab learn them from each other, on the segment that they share.
pub(super) fn meshed(spec: &Spec) -> bool {
    spec.topology == Topology::Flat && spec.encapsulation == Encapsulation::None
}

/// The router of a fabric.
pub(super) struct Router {
    ns: Arc<NetNs>,
    plan: Plan,
    store: Arc<dyn Store>,
    runtime: tokio::runtime::Handle,
    /// Its BGP speaker, if it has one.
    pub speaker: Option<Arc<Speaker>>,
    /// Nodes that learn from each other.
    mesh: Vec<Arc<Node>>,
}

/// A way that is missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Missing {
    /// Who has not learned it.
    pub at: String,
    /// To what.
    pub dst: Cidr,
    /// Through which node.
    pub node: String,
}

impl Router {
    /// Keeps the fabric's routes up to date from now on.
    ///
    /// # Errors
    /// If the fabric cannot be reached.
    pub(super) fn start(
        ns: &Arc<NetNs>,
        plan: &Plan,
        speaker: Option<Arc<Speaker>>,
        mesh: Vec<Arc<Node>>,
        store: Arc<dyn Store>,
        runtime: &tokio::runtime::Handle,
    ) -> Result<Self, NetlinkError> {
        let mut follower = Follower {
            plan: plan.clone(),
            known: Known::default(),
            means: match &speaker {
                Some(speaker) => Means::Learned {
                    speaker: Arc::clone(speaker),
                    told: Cluster::default(),
                    seen: BTreeSet::new(),
                },
                None => Means::Given {
                    routes: route::Handle::open_in(ns)?,
                    links: link::Handle::open_in(ns)?,
                    installed: BTreeMap::new(),
                },
            },
        };
        let own = Arc::clone(&store);
        runtime.spawn(async move {
            loop {
                if let Err(e) = follower.follow(own.as_ref()).await {
                    eprintln!("routes of the fabric: {e}");
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
            }
        });
        Ok(Self {
            ns: Arc::clone(ns),
            plan: plan.clone(),
            store,
            runtime: runtime.clone(),
            speaker,
            mesh,
        })
    }

    /// What programs that run at the router see.
    pub(super) fn environment(&self) -> BTreeMap<String, String> {
        let socket = |s: &Arc<Speaker>| {
            let path = s.socket().display().to_string();
            ("MANX_BGP_SOCKET".to_owned(), path)
        };
        self.speaker.iter().map(socket).collect()
    }

    /// Waits until all who learn by BGP have learned the way to each block that is in the store now.
    /// Gives what is still missing at the deadline.
    ///
    /// # Errors
    /// If the store or the kernel cannot be read.
    pub(super) fn wait_learned(&self, deadline: Instant) -> Result<Vec<Missing>, String> {
        let mut learners: Vec<Learner<'_>> = Vec::new();
        if self.speaker.is_some() {
            learners.push(Learner::at(ROUTER, &self.ns, &[])?);
        }
        for n in &self.mesh {
            learners.push(Learner::at(&n.name, &n.ns, &n.addresses)?);
        }
        if learners.is_empty() {
            return Ok(Vec::new());
        }
        let known = self.runtime.block_on(Known::read(self.store.as_ref()));
        let (known, _) = known.map_err(|e| e.to_string())?;
        let wanted = known.wanted(&self.plan, true);
        loop {
            let mut missing = Vec::new();
            for l in &mut learners {
                let lacking = l.lacks(&wanted)?;
                missing.extend(lacking.into_iter().map(|(dst, via)| Missing {
                    at: l.name.to_owned(),
                    dst,
                    node: node_at(&self.plan, via).map_or(String::new(), |n| n.name.clone()),
                }));
            }
            if missing.is_empty() || Instant::now() >= deadline {
                return Ok(missing);
            }
            // Who has learned all is not asked again.
            learners.retain(|l| missing.iter().any(|m| m.at == l.name));
            std::thread::park_timeout(ASK_EVERY);
        }
    }
}

/// Somebody who learns routes.
struct Learner<'a> {
    name: &'a str,
    own: &'a [IpAddr],
    routes: route::Handle,
}

impl<'a> Learner<'a> {
    fn at(name: &'a str, ns: &NetNs, own: &'a [IpAddr]) -> Result<Self, String> {
        let routes = route::Handle::open_in(ns).map_err(|e| e.to_string())?;
        Ok(Self { name, own, routes })
    }

    /// What of others' is not in its kernel.
    fn lacks(&mut self, wanted: &BTreeMap<Cidr, IpAddr>) -> Result<Vec<(Cidr, IpAddr)>, String> {
        let mut have = BTreeSet::new();
        for family in Family::BOTH {
            let main = self.routes.list(route::Table::MAIN, family);
            for r in main.map_err(|e| e.to_string())? {
                have.extend(r.hops.iter().filter_map(|h| Some((r.key.dst, h.gateway?))));
            }
        }
        let each = wanted.iter().map(|(dst, via)| (*dst, *via));
        Ok(each
            .filter(|w| !self.own.contains(&w.1) && !have.contains(w))
            .collect())
    }
}

fn node_at(plan: &Plan, addr: IpAddr) -> Option<&NodePlan> {
    let has = |n: &&NodePlan| n.addresses.iter().any(|i| i.addr == addr);
    plan.nodes.iter().find(has)
}

/// What the store says of pools, blocks and nodes; an object that cannot be read means nothing.
#[derive(Default)]
struct Known(BTreeMap<String, Vec<Update>>);

impl Known {
    async fn read(store: &dyn Store) -> Result<(Self, datastore::Revision), StoreError> {
        let mut known = Self::default();
        let learn = &mut |e: datastore::Entry| known.learn(&e.key, Some(&e.value));
        let from = store.list_each(&FOLLOWED, learn).await?;
        Ok((known, from))
    }

    fn learn(&mut self, key: &str, value: Option<&[u8]>) {
        let meaning = value.and_then(|v| api::updates_for_key(key, Some(v)).ok());
        match meaning {
            Some(updates) => _ = self.0.insert(key.to_owned(), updates),
            None => _ = self.0.remove(key),
        }
    }

    fn updates(&self) -> impl Iterator<Item = &Update> {
        self.0.values().flatten()
    }

    fn pools(&self) -> impl Iterator<Item = &model::IpPool> {
        self.updates().filter_map(|u| match u {
            Update::Pool(_, Some(p)) => Some(p),
            _ => None,
        })
    }

    /// Which prefix is behind which node's address; `told`: only what nodes announce.
    fn wanted(&self, plan: &Plan, told: bool) -> BTreeMap<Cidr, IpAddr> {
        let here: BTreeSet<&str> = self.nodes().keys().copied().collect();
        let plain = |c: Cidr| {
            self.pools().any(|p| {
                let hidden = told && p.disable_bgp_export;
                p.cidr.covers(c) && p.vxlan == Encap::Never && p.ipip == Encap::Never && !hidden
            })
        };
        let address = |node: &str, family: Family| {
            let plan = plan.nodes.iter().find(|n| n.name == node)?;
            let own = plan.addresses.iter().map(|i| i.addr);
            own.into_iter()
                .find(|a| Family::of(*a) == family)
                .filter(|_| !told || here.contains(node))
        };
        let mut wanted = BTreeMap::new();
        for update in self.updates() {
            let Update::Block(cidr, Some(block)) = update else {
                continue;
            };
            if !plain(*cidr) || told && cidr.is_host() {
                continue;
            }
            let family = cidr.family();
            if let Some(via) = block.node.as_deref().and_then(|n| address(n, family)) {
                wanted.insert(*cidr, via);
            }
            for b in &block.borrowed {
                if let Some(via) = address(&b.node, family) {
                    wanted.insert(Cidr::host(b.addr), via);
                }
            }
        }
        wanted
    }

    fn nodes(&self) -> BTreeMap<&str, &model::Node> {
        let mut nodes = BTreeMap::new();
        for u in self.updates() {
            if let Update::Node(name, Some(n)) = u {
                nodes.insert(&**name, n);
            }
        }
        nodes
    }

    /// What the router's file depends on. `seen`: the nodes that were there once.
    fn cluster(&self, seen: &mut BTreeSet<String>) -> Cluster {
        let nodes = self.nodes();
        let (mut asn, mut tunnelled) = (None, BTreeSet::new());
        for u in self.updates() {
            match u {
                Update::BgpConfig(name, Some(c)) if &**name == "default" => asn = c.asn,
                Update::Pool(_, Some(p)) if p.vxlan != Encap::Never || p.ipip != Encap::Never => {
                    tunnelled.insert(p.cidr);
                }
                _ => {}
            }
        }
        seen.extend(nodes.keys().map(|n| (*n).to_owned()));
        let gone = |n: &&String| !nodes.contains_key(n.as_str());
        let own = |(n, node): (&&str, &&model::Node)| Some(((*n).to_owned(), node.asn?));
        Cluster {
            asn,
            node_asns: nodes.iter().filter_map(own).collect(),
            deleted: seen.iter().filter(gone).cloned().collect(),
            tunnelled,
        }
    }
}

/// How the fabric gets its routes.
enum Means {
    /// By BGP: the speaker's file is kept up to date.
    Learned {
        speaker: Arc<Speaker>,
        told: Cluster,
        seen: BTreeSet<String>,
    },
    /// From the lab itself.
    Given {
        routes: route::Handle,
        links: link::Handle,
        installed: BTreeMap<Cidr, IpAddr>,
    },
}

struct Follower {
    plan: Plan,
    known: Known,
    means: Means,
}

impl Follower {
    async fn follow(&mut self, store: &dyn Store) -> Result<(), StoreError> {
        let mut from;
        (self.known, from) = Known::read(store).await?;
        self.act();
        loop {
            let mut watch = store.watch(&FOLLOWED, from).await?;
            loop {
                let events = match watch.next().await {
                    Ok(events) => events,
                    Err(e) if e.is_retryable() => break,
                    Err(e) => return Err(e),
                };
                from = events.last().map_or(from, Event::revision);
                for e in &events {
                    match e {
                        Event::Put(e) => self.known.learn(&e.key, Some(&e.value)),
                        Event::Delete { key, .. } => self.known.learn(key, None),
                    }
                }
                self.act();
            }
        }
    }

    fn act(&mut self) {
        match &mut self.means {
            Means::Learned {
                speaker,
                told,
                seen,
            } => {
                let new = self.known.cluster(seen);
                if new != *told {
                    match speaker.write(&new) {
                        Ok(()) => *told = new,
                        Err(e) => eprintln!("the router's file: {e}"),
                    }
                }
            }
            Means::Given {
                routes,
                links,
                installed,
            } => {
                let wanted = self.known.wanted(&self.plan, false);
                install(routes, links, &self.plan, installed, wanted);
            }
        }
    }
}

fn install(
    routes: &mut route::Handle,
    links: &mut link::Handle,
    plan: &Plan,
    installed: &mut BTreeMap<Cidr, IpAddr>,
    wanted: BTreeMap<Cidr, IpAddr>,
) {
    for (dst, via) in &wanted {
        if installed.get(dst) != Some(via) {
            let done =
                port(links, plan, *via).and_then(|dev| fabric::add(routes, *dst, Some(*via), dev));
            if let Err(e) = done {
                eprintln!("{e}");
            }
        }
    }
    for (dst, via) in std::mem::take(installed) {
        if !wanted.contains_key(&dst) {
            let removed =
                port(links, plan, via).and_then(|dev| fabric::remove(routes, dst, via, dev));
            if let Err(e) = removed {
                eprintln!("{e}");
            }
        }
    }
    *installed = wanted;
}

/// The fabric's interface towards a node: the bridge, or the node's own port.
fn port(links: &mut link::Handle, plan: &Plan, via: IpAddr) -> Result<IfIndex, NetlinkError> {
    let has = |n: &&NodePlan| n.addresses.iter().any(|i| i.addr == via);
    let own = plan
        .nodes
        .iter()
        .find(has)
        .map_or("lo", |n| n.name.as_str());
    let bridge = links.by_name("br0".parse().expect("a name"))?;
    match bridge {
        Some(bridge) => Ok(bridge.index),
        None => links.index_of(own.parse().expect("names of nodes are short")),
    }
}
