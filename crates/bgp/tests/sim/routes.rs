//! What is told to whom.

use crate::net::Net;
use bgp::attr::{Attributes, Community, NextHop};
use bgp::rib::PeerId;
use bgp::router::{LocalRoute, PathStatus};
use bgp::{Asn, Cidr};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

pub fn c(s: &str) -> Cidr {
    s.parse().expect("test prefix")
}

pub fn own(prefix: Cidr) -> LocalRoute {
    let hop: IpAddr = match prefix.addr() {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    LocalRoute {
        attributes: Attributes::new(NextHop::from(hop)),
        preference: 200,
        interface: None,
    }
}

const UP: Duration = Duration::from_secs(30);
const SOON: Duration = Duration::from_secs(2);

fn path(net: &Net, n: usize, prefix: &str) -> Option<Vec<u32>> {
    let best = net.nodes[n].router.best(c(prefix))?;
    Some(best.attributes.as_path.asns().map(|a| a.0).collect())
}

#[test]
fn a_route_travels_both_families_and_is_withdrawn() {
    let mut net = Net::new(1);
    let (a, b, d) = (net.router(1), net.router(2), net.router(3));
    net.peer(a, b, |_, _| {});
    net.peer(b, d, |_, _| {});
    net.until(UP, "sessions", Net::all_up);
    for p in ["10.1.0.0/24", "fd01::/64"] {
        net.with(a, |r, _| r.announce(c(p), own(c(p))));
        net.run(SOON);
        assert_eq!(path(&net, b, p), Some(vec![1]));
        assert_eq!(path(&net, d, p), Some(vec![2, 1]));
        assert!(net.nodes[d].kernel.contains_key(&c(p)));
        net.with(a, |r, _| r.withdraw(c(p)));
        net.run(SOON);
        for n in [a, b, d] {
            assert!(net.nodes[n].router.best(c(p)).is_none());
            assert!(
                net.nodes[n].router.explain(c(p)).is_none(),
                "node {n} forgot it"
            );
            assert!(!net.nodes[n].kernel.contains_key(&c(p)));
        }
    }
}

#[test]
fn within_an_as_routes_take_one_step_unless_reflected() {
    for client in [false, true] {
        let mut net = Net::new(2);
        let (a, rr, b) = (net.router(1), net.router(1), net.router(1));
        for leaf in [a, b] {
            net.peer(rr, leaf, |n, p| p.client = client && n == rr);
        }
        net.until(UP, "sessions", Net::all_up);
        let p = "10.1.0.0/24";
        net.with(a, |r, _| r.announce(c(p), own(c(p))));
        net.run(SOON);
        assert!(path(&net, rr, p).is_some());
        assert_eq!(path(&net, b, p).is_some(), client);
        if client {
            let best = net.nodes[b].router.best(c(p)).expect("reflected");
            let rare = best.attributes.rare();
            assert_eq!(
                rare.originator_id,
                Some(net.nodes[a].router.config().router_id)
            );
            assert_eq!(rare.cluster_list.len(), 1);
            assert_eq!(best.attributes.next_hop.addr(), net.nodes[a].addr);
            assert_eq!(best.attributes.local_pref, Some(100));
            // Its own route does not come back to it.
            let there = net.nodes[a].router.explain(c(p)).expect("its own");
            assert_eq!(there.paths.len(), 1);
            assert_eq!(there.paths[0].peer, PeerId::LOCAL);
        } else {
            let there = net.nodes[rr].router.explain(c(p)).expect("there");
            let to_b = net.peer_id(rr, b);
            let export = there
                .exports
                .iter()
                .find(|e| e.peer == to_b)
                .expect("a peer");
            assert_eq!(export.route, Err(bgp::export::Blocked::NotReflected));
            assert!(!export.told);
        }
    }
}

#[test]
fn well_known_communities_stop_a_route() {
    let mut net = Net::new(3);
    let (a, inside, outside) = (net.router(1), net.router(1), net.router(2));
    net.peer(a, inside, |_, _| {});
    net.peer(a, outside, |_, _| {});
    net.until(UP, "sessions", Net::all_up);
    let told = |net: &mut Net, community| {
        let p = c("10.1.0.0/24");
        let mut route = own(p);
        route.attributes.communities.insert(community);
        net.with(a, |r, _| r.announce(p, route));
        net.run(SOON);
        [inside, outside].map(|n| net.nodes[n].router.best(p).is_some())
    };
    assert_eq!(told(&mut net, Community::new(1, 1)), [true, true]);
    assert_eq!(told(&mut net, Community::NO_EXPORT), [true, false]);
    assert_eq!(told(&mut net, Community::NO_ADVERTISE), [false, false]);
    assert_eq!(told(&mut net, Community::new(1, 1)), [true, true]);
}

#[test]
fn the_other_source_is_told_when_the_best_changes_sides() {
    // b hears the route from a and from d; whoever is not the source is told of it.
    let mut net = Net::new(4);
    let (a, b, d) = (net.router(1), net.router(2), net.router(3));
    net.peer(a, b, |_, _| {});
    net.peer(b, d, |_, _| {});
    net.until(UP, "sessions", Net::all_up);
    let p = c("10.9.0.0/16");
    net.with(d, |r, _| r.announce(p, own(p)));
    net.run(SOON);
    assert_eq!(path(&net, a, "10.9.0.0/16"), Some(vec![2, 3]));
    net.with(a, |r, _| r.announce(p, own(p)));
    net.run(SOON);
    // At b, a's router id is less. a must not hear of d's path any more, d hears of a's.
    assert_eq!(path(&net, b, "10.9.0.0/16"), Some(vec![1]));
    let at_a = net.nodes[a].router.explain(p).expect("own");
    assert_eq!(at_a.paths.len(), 1, "{at_a:?}");
    let at_d = net.nodes[d].router.explain(p).expect("own");
    assert_eq!(at_d.paths.len(), 2);
    net.with(a, |r, _| r.withdraw(p));
    net.run(SOON);
    assert_eq!(path(&net, a, "10.9.0.0/16"), Some(vec![2, 3]));
    assert_eq!(net.nodes[d].router.explain(p).expect("own").paths.len(), 1);
}

#[test]
fn loops_are_refused_and_explained() {
    let mut net = Net::new(5);
    let (a, b, d) = (net.router(1), net.router(2), net.router(1));
    net.peer(a, b, |_, _| {});
    net.peer(b, d, |_, _| {});
    net.until(UP, "sessions", Net::all_up);
    let p = c("10.1.0.0/24");
    net.with(a, |r, _| r.announce(p, own(p)));
    net.run(SOON);
    assert!(net.nodes[d].router.best(p).is_none());
    let why = net.nodes[d].router.explain(p).expect("kept");
    assert_eq!(
        why.paths[0].status,
        PathStatus::Refused(bgp::router::Refusal::OwnAs)
    );
    // Allowed, it is used at once, without the peer telling it again.
    let id = net.peer_id(d, b);
    let mut config = net.nodes[d].router.peer_config(id).expect("there").clone();
    config.allow_own_asn = 1;
    net.with(d, |r, now| r.configure_peer(id, config, now));
    assert_eq!(path(&net, d, "10.1.0.0/24"), Some(vec![2, 1]));
    assert_eq!(Asn(1), net.nodes[d].router.config().asn);
}
