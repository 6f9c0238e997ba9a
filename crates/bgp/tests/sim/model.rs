//! What a network of routers must come to, computed plainly from its topology.
//!
//! Promises: shares nothing with the crate but its public values: one router at a time
//! looks at what its neighbours would tell it and picks, until nobody changes his mind.

use crate::net::Net;
use bgp::Cidr;
use bgp::router::PathStatus;
use std::collections::BTreeMap;
use std::net::IpAddr;

/// A route, as far as it matters here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    pub as_path: Vec<u32>,
    pub med: u32,
    pub originator: Option<u32>,
    pub clusters: Vec<u32>,
    pub next_hop: Option<IpAddr>,
}

/// A route and the neighbour that told it; itself for its own.
type Held = BTreeMap<usize, Route>;

/// One side of a session, as the model sees it.
#[derive(Debug, Clone, Default)]
pub struct Link {
    pub client: bool,
    pub prepend: usize,
    /// Refused by the export policy.
    pub hidden: Option<Cidr>,
    /// Refused by the import policy.
    pub unwanted: Option<Cidr>,
}

/// What is there to compute with.
pub struct Model {
    pub asn: Vec<u32>,
    pub id: Vec<u32>,
    pub addr: Vec<IpAddr>,
    /// By (router, neighbour): what the router has configured for it.
    pub links: BTreeMap<(usize, usize), Link>,
    /// What each router announces, with its MED.
    pub own: Vec<BTreeMap<Cidr, u32>>,
}

impl Model {
    /// What each router holds for a prefix, by who told it, and its choice.
    pub fn solve(&self, prefix: Cidr) -> Option<Vec<(Held, Option<usize>)>> {
        let n = self.asn.len();
        let mut state: Vec<(Held, Option<usize>)> = vec![(Held::new(), None); n];
        for _ in 0..4 * n + 10 {
            let mut calm = true;
            for at in 0..n {
                let held = self.hears(at, prefix, &state);
                let choice = self.choose(at, prefix, &held);
                if state[at] != (held.clone(), choice) {
                    calm = false;
                    state[at] = (held, choice);
                }
            }
            if calm {
                return Some(state);
            }
        }
        None
    }

    fn hears(&self, at: usize, prefix: Cidr, state: &[(Held, Option<usize>)]) -> Held {
        let mut held = Held::new();
        if let Some(&med) = self.own[at].get(&prefix) {
            let route = Route {
                as_path: vec![],
                med,
                originator: None,
                clusters: vec![],
                next_hop: None,
            };
            held.insert(at, route);
        }
        for &(from, _) in self.links.keys().filter(|(_, to)| *to == at) {
            let (their, choice) = &state[from];
            let Some(source) = *choice else { continue };
            if source == at || self.links[&(from, at)].hidden == Some(prefix) {
                continue;
            }
            if let Some(route) = self.tells(from, at, source, &their[&source]) {
                held.insert(from, route);
            }
        }
        held
    }

    /// What `from` tells `to` of a route that it has from `source`.
    fn tells(&self, from: usize, to: usize, source: usize, route: &Route) -> Option<Route> {
        let link = &self.links[&(from, to)];
        let mut route = route.clone();
        let inside = |n: usize| self.asn[n] == self.asn[from];
        let own_addr = |hop: Option<IpAddr>| Some(hop.unwrap_or(self.addr[from]));
        if inside(to) {
            if source != from && inside(source) {
                let reflected = self.links[&(from, source)].client || link.client;
                if !reflected {
                    return None;
                }
                route.originator.get_or_insert(self.id[source]);
                route.clusters.insert(0, self.id[from]);
            }
            route.next_hop = own_addr(route.next_hop);
        } else {
            if source != from {
                route.med = 0;
            }
            let times = 1 + link.prepend;
            route
                .as_path
                .splice(0..0, std::iter::repeat_n(self.asn[from], times));
            route.originator = None;
            route.clusters.clear();
            route.next_hop = Some(self.addr[from]);
        }
        Some(route)
    }

    /// Whether a router may use a route.
    fn takes(&self, at: usize, route: &Route) -> bool {
        !route.as_path.contains(&self.asn[at])
            && route.originator != Some(self.id[at])
            && !route.clusters.contains(&self.id[at])
            && route.next_hop != Some(self.addr[at])
    }

    fn choose(&self, at: usize, prefix: Cidr, held: &Held) -> Option<usize> {
        if held.contains_key(&at) {
            return Some(at);
        }
        let mut left: Vec<(usize, &Route)> = held
            .iter()
            .filter(|(n, r)| self.links[&(at, **n)].unwanted != Some(prefix) && self.takes(at, r))
            .map(|(n, r)| (*n, r))
            .collect();
        let shortest = left.iter().map(|(_, r)| r.as_path.len()).min()?;
        left.retain(|(_, r)| r.as_path.len() == shortest);
        let all = left.clone();
        left.retain(|(_, r)| {
            let rival = |o: &&(usize, &Route)| o.1.as_path.first() == r.as_path.first();
            all.iter().filter(rival).all(|o| o.1.med >= r.med)
        });
        left.sort_by_key(|(n, r)| {
            let inside = self.asn[*n] == self.asn[at];
            let id = r.originator.unwrap_or(self.id[*n]);
            (inside, id, r.clusters.len(), self.addr[*n])
        });
        left.first().map(|(n, _)| *n)
    }

    /// Fails unless the routers hold and use exactly what they must.
    pub fn check(&self, net: &Net, prefixes: &[Cidr], what: &str) {
        for &prefix in prefixes {
            let Some(state) = self.solve(prefix) else {
                panic!("{what}: the topology has no stable answer for {prefix}");
            };
            for (at, (held, choice)) in state.iter().enumerate() {
                self.check_one(net, at, prefix, held, *choice, what);
            }
        }
    }

    fn check_one(
        &self,
        net: &Net,
        at: usize,
        prefix: Cidr,
        held: &Held,
        choice: Option<usize>,
        what: &str,
    ) {
        let node = &net.nodes[at];
        let explained = node.router.explain(prefix);
        let paths = explained.map(|e| e.paths).unwrap_or_default();
        let name = |peer| node.peers.get(&peer).map_or(at, |p: &(usize, _)| p.0);
        let mut have = Held::new();
        let mut best = None;
        for p in &paths {
            let a = p.received.as_ref().unwrap_or(&p.attributes);
            let who = name(p.peer);
            assert!(!p.stale, "{what}: router {at} has a stale path to {prefix}");
            if p.status == PathStatus::Best {
                best = Some(who);
            }
            let hop = a.next_hop.addr();
            let hop = match hop {
                IpAddr::V4(_) => hop,
                IpAddr::V6(_) => v4_of(hop),
            };
            have.insert(
                who,
                Route {
                    as_path: a.as_path.asns().map(|a| a.0).collect(),
                    med: a.med.unwrap_or(0),
                    originator: a.rare().originator_id.map(|i| i.0),
                    clusters: a.rare().cluster_list.iter().map(|c| c.0).collect(),
                    next_hop: (!hop.is_unspecified()).then_some(hop),
                },
            );
        }
        assert_eq!(&have, held, "{what}: what router {at} holds for {prefix}");
        assert_eq!(
            best, choice,
            "{what}: what router {at} uses for {prefix}: {paths:#?}"
        );
        assert_eq!(
            node.kernel.contains_key(&prefix),
            choice.is_some(),
            "{what}: the kernel of {at} for {prefix}"
        );
    }
}

/// The inverse of [`crate::net::v6_of`].
fn v4_of(a: IpAddr) -> IpAddr {
    match a {
        IpAddr::V6(a) => std::net::Ipv4Addr::from_bits(a.to_bits() as u32).into(),
        v4 => v4,
    }
}
