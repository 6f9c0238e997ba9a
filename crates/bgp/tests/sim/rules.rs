//! Rules between ASes that few sessions need, one by one.

use crate::net::Net;
use crate::raw::Raw;
use crate::routes::{c, own};
use bgp::attr::{AsPath, Community, SegmentKind};
use bgp::caps::Role;
use bgp::error::Code;
use bgp::peer::PeerConfig;
use bgp::router::{Event, PathStatus, Refusal};
use bgp::types::PerFamily;
use bgp::{Asn, Cidr};
use std::net::IpAddr;
use std::time::Duration;

const UP: Duration = Duration::from_secs(60);
const SOON: Duration = Duration::from_secs(2);

fn chain(asns: &[u32], change: impl Fn(usize, usize, &mut PeerConfig)) -> Net {
    let mut net = Net::new(11);
    let nodes: Vec<usize> = asns.iter().map(|&a| net.router(a)).collect();
    for (i, pair) in nodes.windows(2).enumerate() {
        net.peer(pair[0], pair[1], |n, p| change(i, n, p));
    }
    net.until(UP, "up", Net::all_up);
    net
}

fn path(net: &Net, n: usize, p: Cidr) -> Option<Vec<u32>> {
    let best = net.nodes[n].router.best(p)?;
    Some(best.attributes.as_path.asns().map(|a| a.0).collect())
}

fn refusal(net: &Net, n: usize, p: Cidr) -> Option<Refusal> {
    match &net.nodes[n].router.explain(p)?.paths.first()?.status {
        PathStatus::Refused(r) => Some(r.clone()),
        _ => None,
    }
}

#[test]
fn another_as_number_towards_one_peer() {
    // The middle router says that it is AS 77 to the last one.
    let net = chain(&[1, 2, 3], |_, n, p| match n {
        1 if p.asn == Some(Asn(3)) => p.local_asn = Some(Asn(77)),
        2 => p.asn = Some(Asn(77)),
        _ => {}
    });
    let mut net = net;
    let (there, back) = (c("10.1.0.0/16"), c("10.3.0.0/16"));
    net.with(0, |r, _| r.announce(there, own(there)));
    net.with(2, |r, _| r.announce(back, own(back)));
    net.run(SOON);
    assert_eq!(path(&net, 2, there), Some(vec![77, 1]));
    assert_eq!(path(&net, 0, back), Some(vec![2, 3]));
}

#[test]
fn another_as_number_stands_in_the_place_of_ours() {
    // 1 - 2 - 3, where 2 says to 3 that it is 77; 3 tells paths in which numbers have been before.
    let local = |_: usize, n: usize, p: &mut PeerConfig| match n {
        1 if p.asn == Some(Asn(3)) => p.local_asn = Some(Asn(77)),
        2 => p.asn = Some(Asn(77)),
        _ => {}
    };
    let mut net = chain(&[1, 2, 3], local);
    let told = |asn: u32, p: &str| {
        let mut route = own(c(p));
        route.attributes.as_path = AsPath::default().prepend(Asn(asn), 1);
        route
    };
    for (asn, p) in [(77, "10.77.0.0/16"), (2, "10.2.0.0/16"), (9, "10.9.0.0/16")] {
        let route = told(asn, p);
        net.with(2, |r, _| r.announce(c(p), route));
    }
    net.run(SOON);
    // Only the number of the session is ours there.
    assert_eq!(refusal(&net, 1, c("10.77.0.0/16")), Some(Refusal::OwnAs));
    assert_eq!(path(&net, 1, c("10.2.0.0/16")), Some(vec![3, 2]));
    assert_eq!(path(&net, 1, c("10.9.0.0/16")), Some(vec![3, 9]));
    // Its own number is what it prepends elsewhere, and 77 is not shown there.
    assert_eq!(path(&net, 0, c("10.9.0.0/16")), Some(vec![2, 3, 9]));
    // So many of it are taken as are allowed.
    let id = net.peer_id(1, 2);
    net.with(1, |r, now| {
        let mut config = r.peer_config(id).cloned().expect("there");
        config.allow_own_asn = 1;
        r.configure_peer(id, config, now);
    });
    net.run(SOON);
    assert_eq!(path(&net, 1, c("10.77.0.0/16")), Some(vec![3, 77]));
}

#[test]
fn draining_routes_are_the_last_choice() {
    for heed in [true, false] {
        let mut net = chain(&[1, 2], |_, _, p| p.graceful_shutdown = heed);
        let p = c("10.1.0.0/16");
        let mut route = own(p);
        route
            .attributes
            .communities
            .insert(Community::GRACEFUL_SHUTDOWN);
        net.with(0, |r, _| r.announce(p, route));
        net.run(SOON);
        let best = net.nodes[1].router.best(p).expect("taken");
        assert_eq!(best.attributes.local_pref, heed.then_some(0));
    }
}

#[test]
fn roles_keep_leaks_out() {
    // 1 provides for 2; 2 and 3 are peers; 3 provides for 4.
    let role = |i: usize, n: usize, p: &mut PeerConfig| {
        p.role = Some(match (i, n) {
            (0, 0) => Role::Provider,
            (0, _) => Role::Customer,
            (1, _) => Role::Peer,
            (_, 2) => Role::Provider,
            _ => Role::Customer,
        });
    };
    let mut net = chain(&[1, 2, 3, 4], role);
    let (down, up, across) = (c("10.1.0.0/16"), c("10.4.0.0/16"), c("10.2.0.0/16"));
    net.with(0, |r, _| r.announce(down, own(down)));
    net.with(3, |r, _| r.announce(up, own(up)));
    net.with(1, |r, _| r.announce(across, own(across)));
    net.run(SOON);
    let otc = |net: &Net, n: usize, p| {
        let best = net.nodes[n].router.best(p)?;
        best.attributes.rare().otc.map(|a| a.0)
    };
    // What the provider tells is for 2 and its customers, not for its peer.
    assert_eq!((otc(&net, 1, down), path(&net, 2, down)), (Some(1), None));
    // What a customer tells goes up and across, and no further than across.
    assert_eq!(path(&net, 2, up), Some(vec![4]));
    assert_eq!(path(&net, 1, up), Some(vec![3, 4]));
    assert_eq!(path(&net, 0, up), None);
    assert_eq!(
        (otc(&net, 2, across), path(&net, 3, across)),
        (Some(2), Some(vec![3, 2]))
    );
    assert_eq!(path(&net, 0, across), Some(vec![2]));
}

#[test]
fn roles_that_do_not_pair_up_refuse_the_session() {
    let mut net = Net::new(12);
    let (a, b) = (net.router(1), net.router(2));
    net.peer(a, b, |_, p| p.role = Some(Role::Provider));
    net.run(SOON);
    let refused = |e: &Event| matches!(e, Event::Notified { sent: true, what, .. } if what.code == Code::ROLE_MISMATCH);
    assert!(net.nodes[a].events.iter().any(refused) || net.nodes[b].events.iter().any(refused));
    assert!(!net.all_up());
}

#[test]
fn paths_that_a_peer_may_not_announce() {
    let p = c("10.1.0.0/16");
    let announce = |path: AsPath, change: fn(&mut PeerConfig)| {
        let mut net = chain(&[1, 2], move |_, n, p| {
            if n == 1 {
                change(p);
            }
        });
        let mut route = own(p);
        route.attributes.as_path = path;
        net.with(0, |r, _| r.announce(p, route));
        net.run(SOON);
        refusal(&net, 1, p)
    };
    let mut set = AsPath::default();
    set.push(SegmentKind::Set, [Asn(8), Asn(9)]);
    assert_eq!(
        announce(set.clone(), |p| p.allow_as_sets = false),
        Some(Refusal::AsSet)
    );
    assert_eq!(announce(set, |_| {}), None);
    assert_eq!(
        announce(AsPath::default(), |p| p.enforce_first_asn = true),
        None
    );
    let ours = AsPath::sequence([Asn(2)]);
    assert_eq!(announce(ours.clone(), |_| {}), Some(Refusal::OwnAs));
    assert_eq!(announce(ours, |p| p.allow_own_asn = 1), None);
}

#[test]
fn routes_of_one_family_over_the_other() {
    for agreed in [true, false] {
        let mut net = Net::new(13);
        let node = |net: &mut Net, asn: u32, addr: &str| {
            let n = net.nodes.len() as u32 + 1;
            let config = bgp::router::Config::new(Asn(asn), bgp::types::RouterId(n), 5);
            net.add(config, addr.parse::<IpAddr>().expect("an address"))
        };
        let (a, b) = (node(&mut net, 1, "fd00::1"), node(&mut net, 2, "fd00::2"));
        net.peer(a, b, |_, p| {
            p.v4_over_v6 = agreed;
            p.own_address = PerFamily::default();
        });
        net.until(UP, "up", Net::all_up);
        let (v4, v6) = (c("10.1.0.0/16"), c("fd01::/64"));
        for p in [v4, v6] {
            net.with(a, |r, _| r.announce(p, own(p)));
        }
        net.run(SOON);
        let hop = |p| {
            net.nodes[b]
                .router
                .best(p)
                .map(|r| r.attributes.next_hop.addr())
        };
        assert_eq!(hop(v6), Some(net.nodes[a].addr));
        assert_eq!(hop(v4), agreed.then_some(net.nodes[a].addr));
        let why = net.nodes[a].router.explain(v4).expect("own");
        assert_eq!(why.exports[0].route.is_err(), !agreed);
    }
}

#[test]
fn routes_do_not_come_back_into_their_cluster() {
    let mut net = Net::new(14);
    let cluster = bgp::types::ClusterId(99);
    let reflector = |net: &mut Net| net.router_with(1, |c| c.cluster_id = Some(cluster));
    let (x, y) = (reflector(&mut net), reflector(&mut net));
    let client = net.router(1);
    net.peer(x, y, |_, _| {});
    net.peer(x, client, |n, p| p.client = n == x);
    net.until(UP, "up", Net::all_up);
    let p = c("10.1.0.0/16");
    net.with(client, |r, _| r.announce(p, own(p)));
    net.run(SOON);
    assert!(net.nodes[x].router.best(p).is_some());
    assert_eq!(refusal(&net, y, p), Some(Refusal::OwnCluster));
}

#[test]
fn a_route_through_ourselves_is_refused() {
    let mut net = chain(&[1, 2], |_, _, p| p.next_hop = bgp::peer::NextHopMode::Keep);
    let p = c("10.1.0.0/16");
    let mut route = own(p);
    route.attributes.next_hop = net.nodes[1].addr.into();
    net.with(0, |r, _| r.announce(p, route));
    net.run(SOON);
    assert_eq!(refusal(&net, 1, p), Some(Refusal::OwnNextHop));
}

#[test]
fn a_path_that_does_not_begin_with_its_teller_is_refused_where_that_is_wanted() {
    for strict in [true, false] {
        let mut p = Raw::new(10, |c| c.enforce_first_asn = strict);
        let conn = p.up();
        let (good, bad) = (c("10.1.0.0/16"), c("10.2.0.0/16"));
        p.tell_path(conn, [2, 9].map(Asn), [good].into_iter());
        p.tell_path(conn, [9, 2].map(Asn), [bad].into_iter());
        assert!(p.r.best(good).is_some());
        assert_eq!(p.r.best(bad).is_some(), !strict);
        let explained = p.r.explain(bad);
        let status = explained
            .and_then(|e| e.paths.into_iter().next())
            .map(|r| r.status);
        let refused = PathStatus::Refused(Refusal::FirstAs);
        assert_eq!(status == Some(refused), strict);
    }
}
