//! The plan against a model of the kernel.

use super::*;
use crate::value::Vtep;
use proptest::prelude::*;

fn dev() -> IfName {
    "vxlan.calico".parse().unwrap()
}

fn device(vni: u32, mtu: u32) -> Vxlan {
    Vxlan {
        name: dev(),
        vni,
        local: Some("10.0.0.1".parse().unwrap()),
        parent: IfIndex::new(2),
        port: 4789,
        mac: Mac([0x66, 0, 0, 0, 0, 1]),
        mtu,
        learning: false,
    }
}

fn link(v: Vxlan, up: bool) -> Link {
    Link {
        index: IfIndex::new(7).unwrap(),
        name: v.name,
        mac: Some(v.mac),
        mtu: v.mtu,
        up,
        running: up,
        kind: "vxlan".to_owned(),
        master: None,
        parent: v.parent,
        peer_elsewhere: false,
        vxlan: Some(v),
    }
}

/// What the kernel would hold after the plan.
fn replay(plan: &Plan, actual: &VxlanActual) -> VxlanActual {
    let mut k = actual.clone();
    let index = IfIndex::new(7).unwrap();
    for op in &plan.ops {
        match *op {
            Op::Delete => {
                assert!(k.link.is_some());
                k = VxlanActual::default();
            }
            Op::Create(v) => {
                assert!(k.link.is_none());
                k.link = Some(link(v, false));
            }
            Op::Mtu(m) => {
                let l = k.link.as_mut().unwrap();
                l.mtu = m;
                l.vxlan.as_mut().unwrap().mtu = m;
            }
            Op::Up => k.link.as_mut().unwrap().up = true,
            Op::AddAddress(a) => k.addresses.push(a),
            Op::DelAddress(a) => k.addresses.retain(|x| *x != a),
            Op::SetFdb(mac, dst) => {
                k.fdb.sort();
                match k.fdb.iter_mut().find(|e| e.mac == mac) {
                    Some(e) => e.dst = dst,
                    None => k.fdb.push(FdbEntry {
                        dev: index,
                        mac,
                        dst,
                    }),
                }
            }
            Op::DelFdb(mac, dst) => k.fdb.retain(|e| (e.mac, e.dst) != (mac, dst)),
            Op::SetNeighbour(addr, mac) => {
                k.neighbours.retain(|n| n.addr != addr);
                let mac = Some(mac);
                k.neighbours.push(Neighbour {
                    dev: index,
                    addr,
                    mac,
                    permanent: true,
                    proxy: false,
                });
            }
            Op::DelNeighbour(addr) => k.neighbours.retain(|n| n.addr != addr),
        }
    }
    k
}

prop_compose! {
    fn any_ip()(v6: bool, n in 0u8..6) -> IpAddr {
        if v6 { format!("fd00::{n}").parse().unwrap() } else { format!("10.9.0.{n}").parse().unwrap() }
    }
}

prop_compose! {
    fn any_desired()(
        vni in 1u32..3,
        mtu in 1400u32..1402,
        addresses in prop::collection::btree_set(any_ip(), 0..3),
        vteps in prop::collection::btree_map(any_ip(), (0u8..4, any_ip()), 0..6),
    ) -> VxlanDesired {
        VxlanDesired {
            device: device(vni, mtu),
            addresses: addresses.into_iter().map(Address::host).collect(),
            vteps: vteps
                .into_iter()
                .map(|(a, (m, host))| (a, Vtep { mac: Mac([2, 0, 0, 0, 0, m]), host }))
                .collect(),
        }
    }
}

prop_compose! {
    fn any_actual()(
        there: bool,
        up: bool,
        vni in 1u32..3,
        mtu in 1400u32..1402,
        addresses in prop::collection::btree_set(any_ip(), 0..3),
        neighbours in prop::collection::btree_map(any_ip(), 0u8..4, 0..6),
        fdb in prop::collection::btree_set((0u8..4, any_ip()), 0..6),
    ) -> VxlanActual {
        if !there {
            return VxlanActual::default();
        }
        let index = IfIndex::new(7).unwrap();
        VxlanActual {
            link: Some(link(device(vni, mtu), up)),
            addresses: addresses.into_iter().map(Address::host).collect(),
            neighbours: neighbours
                .into_iter()
                .map(|(addr, m)| Neighbour {
                    dev: index,
                    addr,
                    mac: Some(Mac([2, 0, 0, 0, 0, m])),
                    permanent: true,
                    proxy: false,
                })
                .collect(),
            fdb: fdb
                .into_iter()
                .map(|(m, dst)| FdbEntry { dev: index, mac: Mac([2, 0, 0, 0, 0, m]), dst })
                .collect(),
        }
    }
}

proptest! {
    #[test]
    fn every_state_leads_to_the_desired_one(actual in any_actual(), want in any_desired()) {
        let after = replay(&plan(dev(), &actual, Some(&want)), &actual);
        let link = after.link.as_ref().unwrap();
        prop_assert!(link.up);
        prop_assert_eq!(link.vxlan, Some(want.device));
        let again = plan(dev(), &after, Some(&want));
        prop_assert!(again.ops.is_empty(), "{:?}", again);
        prop_assert_eq!(
            after.neighbours.iter().map(|n| (n.addr, n.mac)).collect::<BTreeMap<_, _>>(),
            want.vteps.iter().map(|(a, v)| (*a, Some(v.mac))).collect::<BTreeMap<_, _>>()
        );
        for e in &after.fdb {
            prop_assert!(want.vteps.values().any(|v| (v.mac, v.host) == (e.mac, e.dst)));
        }
    }

    #[test]
    fn unwanted_means_gone(actual in any_actual()) {
        prop_assert!(replay(&plan(dev(), &actual, None), &actual).link.is_none());
    }

    #[test]
    fn additions_come_before_removals(actual in any_actual(), want in any_desired()) {
        let ops = plan(dev(), &actual, Some(&want)).ops;
        let removal = |o: &Op| matches!(o, Op::DelNeighbour(_) | Op::DelFdb(..) | Op::DelAddress(_));
        let first = ops.iter().position(removal).unwrap_or(ops.len());
        prop_assert!(ops[first..].iter().all(removal), "{ops:?}");
    }
}

#[test]
fn a_peer_that_moves_is_one_operation() {
    let mac = Mac([2, 0, 0, 0, 0, 1]);
    let tunnel: IpAddr = "10.9.0.1".parse().unwrap();
    let index = IfIndex::new(7).unwrap();
    let actual = VxlanActual {
        link: Some(link(device(1, 1450), true)),
        addresses: vec![],
        neighbours: vec![Neighbour {
            dev: index,
            addr: tunnel,
            mac: Some(mac),
            permanent: true,
            proxy: false,
        }],
        fdb: vec![FdbEntry {
            dev: index,
            mac,
            dst: "192.0.2.1".parse().unwrap(),
        }],
    };
    let host: IpAddr = "192.0.2.2".parse().unwrap();
    let want = VxlanDesired {
        device: device(1, 1450),
        addresses: vec![],
        vteps: [(tunnel, Vtep { mac, host })].into(),
    };
    assert_eq!(
        plan(dev(), &actual, Some(&want)).ops,
        [Op::SetFdb(mac, host)]
    );
}

#[test]
fn a_foreign_device_is_never_named() {
    let other = IfIndex::new(9).unwrap();
    let mac = Mac([2, 0, 0, 0, 0, 1]);
    let addr: IpAddr = "10.9.0.1".parse().unwrap();
    let actual = VxlanActual {
        link: Some(link(device(1, 1450), true)),
        addresses: vec![],
        neighbours: vec![Neighbour {
            dev: other,
            addr,
            mac: Some(mac),
            permanent: true,
            proxy: false,
        }],
        fdb: vec![FdbEntry {
            dev: other,
            mac,
            dst: addr,
        }],
    };
    let want = VxlanDesired {
        device: device(1, 1450),
        addresses: vec![],
        vteps: BTreeMap::new(),
    };
    assert!(plan(dev(), &actual, Some(&want)).ops.is_empty());
}
