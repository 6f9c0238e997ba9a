//! Which paths are watched by BFD, and how long they are.

mod support;

use model::{Bfd, BfdHops, BgpConfig, BgpPeer, BgpRemote, NodeAddress, Update};
use peering::Plan;
use std::time::Duration;
use support::{at, config, no_mesh, node, peer, resource, select, world, world_of};

const HOW: Bfd = Bfd {
    min_tx: Duration::from_millis(50),
    min_rx: Duration::from_millis(60),
    multiplier: 4,
    hops: None,
};

/// The node `a`, with subnets.
fn near() -> Update {
    let mut a = node("10.0.0.1", "fd00::1", &[("rack", "1")]);
    let of = |addr: &str, subnet: &str| {
        Some(NodeAddress {
            addr: addr.parse().expect("an address"),
            subnet: subnet.parse().expect("a prefix"),
        })
    };
    a.ipv4 = of("10.0.0.1", "10.0.0.0/24");
    a.ipv6 = of("fd00::1", "fd00::/64");
    Update::Node("a".into(), Some(a))
}

fn watched(remote: BgpRemote, how: Option<Bfd>) -> BgpPeer {
    let mut p = peer(remote);
    p.bfd = how;
    p
}

fn told(plan: &Plan) -> Vec<(String, Option<Bfd>)> {
    plan.peers.iter().map(|p| (p.name(), p.bfd)).collect()
}

#[test]
fn a_peer_in_a_subnet_of_ours_is_near_and_of_others_nothing_is_said() {
    for (address, hops) in [
        ("10.0.0.9", Some(BfdHops::Single)),
        ("10.0.1.9", None),
        ("fd00::9", Some(BfdHops::Single)),
        ("fd01::9", None),
    ] {
        let p = watched(at(address, 65001), Some(HOW));
        let plan = world(vec![no_mesh(), near(), resource("p", p)]).plan();
        assert_eq!(plan.peers[0].bfd, Some(Bfd { hops, ..HOW }), "{address}");
    }
}

#[test]
fn what_is_said_of_the_length_counts() {
    // Of the annotation first, then that packets of one hop alone are taken.
    for (address, said, ttl, hops) in [
        ("10.0.0.9", Some(BfdHops::Multi), None, Some(BfdHops::Multi)),
        (
            "10.0.1.9",
            Some(BfdHops::Single),
            None,
            Some(BfdHops::Single),
        ),
        ("10.0.1.9", None, Some(1), Some(BfdHops::Single)),
        ("10.0.1.9", None, Some(2), None),
    ] {
        let how = Bfd { hops: said, ..HOW };
        let mut p = watched(at(address, 65001), Some(how));
        p.ttl_security = ttl;
        let plan = world(vec![no_mesh(), near(), resource("p", p)]).plan();
        assert_eq!(
            plan.peers[0].bfd,
            Some(Bfd { hops, ..HOW }),
            "{address} {ttl:?}"
        );
    }
}

#[test]
fn the_mesh_is_watched_by_the_configuration_and_peers_by_their_own() {
    let mesh = config(BgpConfig {
        mesh_bfd: Some(HOW),
        ..BgpConfig::default()
    });
    let single = Bfd {
        hops: Some(BfdHops::Single),
        ..HOW
    };
    let tor = resource("tor", watched(at("10.0.0.9", 65001), None));
    let plan = world(vec![mesh, near(), tor]).plan();
    assert_eq!(
        told(&plan),
        [
            ("Mesh_10_0_0_2".to_owned(), Some(single)),
            ("Global_10_0_0_9".to_owned(), None),
            ("Mesh_10_0_0_10".to_owned(), Some(single)),
            ("Mesh_fd00__2".to_owned(), Some(single)),
        ]
    );
    assert!(told(&world(vec![]).plan()).iter().all(|(_, b)| b.is_none()));
}

#[test]
fn both_sides_of_a_resource_watch() {
    let mut p = watched(BgpRemote::Nodes(select("rack == '2'")), Some(HOW));
    p.node = Some("a".into());
    for me in ["a", "c"] {
        let plan = world_of(me, vec![no_mesh(), resource("rr", p.clone())]).plan();
        assert_eq!(plan.peers[0].bfd, Some(HOW), "{me}");
    }
}
