//! The fabric's knowledge of pods: what a data centre's routers learn from the nodes.
//!
//! Promises: routes to the blocks of pools without encapsulation, through the node that each
//! block belongs to, and to borrowed addresses through the node that has them; so outside
//! hosts reach pods, and a routed fabric carries pod traffic.
//!
//! Never: knows a way to pods that are encapsulated: a missing tunnel must show.

use crate::holder::fabric;
use crate::holder::node::Node;
use datastore::{Event, Store, StoreError};
use model::{Encap, Update};
use net::{Cidr, Family, IfIndex};
use netlink::NetlinkError;
use netlink::netns::NetNs;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

const POOLS: &str = "/calico/resources/v3/projectcalico.org/ippools/";
const BLOCKS: &str = "/calico/ipam/v2/assignment/";

/// Keeps the fabric's routes up to date from now on.
///
/// # Errors
/// If the fabric cannot be reached.
pub(super) fn start(
    ns: &Arc<NetNs>,
    nodes: &[Arc<Node>],
    store: Arc<dyn Store>,
    runtime: &tokio::runtime::Handle,
) -> Result<(), NetlinkError> {
    let mut router = Router {
        routes: route::Handle::open_in(ns)?,
        links: link::Handle::open_in(ns)?,
        nodes: nodes.to_vec(),
        known: BTreeMap::new(),
        installed: BTreeMap::new(),
    };
    runtime.spawn(async move {
        loop {
            if let Err(e) = router.follow(store.as_ref()).await {
                eprintln!("routes of the fabric: {e}");
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        }
    });
    Ok(())
}

struct Router {
    routes: route::Handle,
    links: link::Handle,
    nodes: Vec<Arc<Node>>,
    /// What each store key means; an object that cannot be read means nothing.
    known: BTreeMap<String, Vec<Update>>,
    installed: BTreeMap<Cidr, IpAddr>,
}

impl Router {
    async fn follow(&mut self, store: &dyn Store) -> Result<(), StoreError> {
        let mut entries = Vec::new();
        let mut from = store
            .list_each(&[POOLS, BLOCKS], &mut |e| entries.push(e))
            .await?;
        self.known.clear();
        for e in entries {
            self.learn(&e.key, Some(&e.value));
        }
        self.install();
        loop {
            let mut watch = store.watch(&[POOLS, BLOCKS], from).await?;
            loop {
                let events = match watch.next().await {
                    Ok(events) => events,
                    Err(e) if e.is_retryable() => break,
                    Err(e) => return Err(e),
                };
                from = events.last().map_or(from, Event::revision);
                for e in &events {
                    match e {
                        Event::Put(e) => self.learn(&e.key, Some(&e.value)),
                        Event::Delete { key, .. } => self.learn(key, None),
                    }
                }
                self.install();
            }
        }
    }

    fn learn(&mut self, key: &str, value: Option<&[u8]>) {
        let meaning = value.and_then(|v| api::updates_for_key(key, Some(v)).ok());
        match meaning {
            Some(updates) => _ = self.known.insert(key.to_owned(), updates),
            None => _ = self.known.remove(key),
        }
    }

    fn wanted(&self) -> BTreeMap<Cidr, IpAddr> {
        let plain = |c: Cidr| {
            self.known.values().flatten().any(|u| match u {
                Update::Pool(_, Some(p)) => {
                    p.cidr.covers(c) && p.vxlan == Encap::Never && p.ipip == Encap::Never
                }
                _ => false,
            })
        };
        let address = |node: &str, family: Family| {
            let node = self.nodes.iter().find(|n| n.name == node)?;
            node.addresses
                .iter()
                .find(|a| Family::of(**a) == family)
                .copied()
        };
        let mut wanted = BTreeMap::new();
        for update in self.known.values().flatten() {
            let Update::Block(cidr, Some(block)) = update else {
                continue;
            };
            if !plain(*cidr) {
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

    fn install(&mut self) {
        let wanted = self.wanted();
        for (dst, via) in &wanted {
            if self.installed.get(dst) != Some(via) {
                let done = port(&mut self.links, &self.nodes, *via)
                    .and_then(|dev| fabric::add(&mut self.routes, *dst, Some(*via), dev));
                if let Err(e) = done {
                    eprintln!("{e}");
                }
            }
        }
        for (dst, via) in std::mem::take(&mut self.installed) {
            if !wanted.contains_key(&dst) {
                let removed = port(&mut self.links, &self.nodes, via)
                    .and_then(|dev| fabric::remove(&mut self.routes, dst, via, dev));
                if let Err(e) = removed {
                    eprintln!("{e}");
                }
            }
        }
        self.installed = wanted;
    }
}

/// The fabric's interface towards a node: the bridge, or the node's own port.
fn port(
    links: &mut link::Handle,
    nodes: &[Arc<Node>],
    via: IpAddr,
) -> Result<IfIndex, NetlinkError> {
    let node = nodes.iter().find(|n| n.addresses.contains(&via));
    let own = node.map_or("lo", |n| n.name.as_str());
    let bridge = links.by_name("br0".parse().expect("a name"))?;
    match bridge {
        Some(bridge) => Ok(bridge.index),
        None => links.index_of(own.parse().expect("names of nodes are short")),
    }
}
