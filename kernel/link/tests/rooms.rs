//! The room on the real kernel, read back through `ip` and `bridge`, in namespaces of our
//! own. Wants root, or a user namespace (`unshare -Urn cargo test`).

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

use link::{
    Address, Changes, Event, FdbEntry, Handle, Monitor, Neighbour, Scope, Sysctl, Veth, VethEnd,
    Vtep, Vxlan, VxlanDesired, host_end_sysctls, plan, pod_end_sysctls, sysctl,
};
use net::{Family, IfIndex, IfName, Mac};
use netlink::netns::NetNs;
use serde_json::Value;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

const EE: Mac = Mac([0xee; 6]);

fn name(s: &str) -> IfName {
    s.parse().unwrap()
}

fn ip(s: &str) -> IpAddr {
    s.parse().unwrap()
}

fn mac(n: u8) -> Mac {
    Mac([0x66, 1, 2, 3, 4, n])
}

/// An independent reader.
fn json(ns: &NetNs, program: &str, args: &str) -> Vec<Value> {
    let out = ns
        .command(program)
        .unwrap()
        .args(args.split(' '))
        .output()
        .unwrap();
    assert!(
        out.status.success(),
        "{program} {args}: {}",
        String::from_utf8_lossy(&out.stderr)
    );
    if out.stdout.is_empty() {
        vec![]
    } else {
        serde_json::from_slice(&out.stdout).unwrap()
    }
}

fn deadline() -> Instant {
    Instant::now() + Duration::from_secs(5)
}

fn until(m: &mut Monitor, mut wanted: impl FnMut(&Event) -> bool) -> Event {
    let mut seen = Vec::new();
    while let Some(e) = m.next_before(deadline()).unwrap() {
        if wanted(&e) {
            return e;
        }
        seen.push(e);
    }
    panic!("not before the deadline; seen {seen:#?}");
}

fn veth(here: &str, there: &str) -> Veth {
    Veth {
        here: VethEnd {
            name: name(here),
            mac: Some(EE),
            mtu: Some(1450),
        },
        there: VethEnd {
            name: name(there),
            mac: None,
            mtu: Some(1450),
        },
        queues: 1,
        up: true,
    }
}

/// Two namespaces joined by a veth, up, with these addresses.
fn pair(a: &str, b: &str, len: u8) -> (NetNs, NetNs) {
    let (na, nb) = (NetNs::new().unwrap(), NetNs::new().unwrap());
    let mut ha = Handle::open_in(&na).unwrap();
    let mut v = veth("eth0", "eth0");
    v.here.mac = None;
    ha.create_veth(&v, Some(&nb)).unwrap();
    for (ns, addr) in [(&na, a), (&nb, b)] {
        let mut h = Handle::open_in(ns).unwrap();
        let dev = h.index_of(name("eth0")).unwrap();
        let addresses = [Address::subnet(ip(addr), len)];
        h.change(
            dev,
            &Changes {
                up: Some(true),
                addresses: &addresses,
                ..Changes::default()
            },
        )
        .unwrap();
    }
    (na, nb)
}

fn exchange(a: &NetNs, from: IpAddr, b: &NetNs, to: IpAddr) {
    let server = b
        .run(|| UdpSocket::bind(SocketAddr::new(to, 7)).unwrap())
        .unwrap();
    let client = a
        .run(|| UdpSocket::bind(SocketAddr::new(from, 0)).unwrap())
        .unwrap();
    server
        .set_read_timeout(Some(Duration::from_secs(5)))
        .unwrap();
    client
        .set_read_timeout(Some(Duration::from_secs(5)))
        .unwrap();
    client.send_to(&[42; 1300], SocketAddr::new(to, 7)).unwrap();
    let mut buf = [0; 2000];
    let (n, peer) = server.recv_from(&mut buf).unwrap();
    assert_eq!((n, peer.ip()), (1300, from));
    server.send_to(b"back", peer).unwrap();
    assert_eq!(client.recv(&mut buf).unwrap(), 4);
}

#[test]
fn a_veth_is_made_across_namespaces_in_one_step() {
    let (host, pod) = (NetNs::new().unwrap(), NetNs::new().unwrap());
    let mut h = Handle::open_in(&host).unwrap();
    let mut p = Handle::open_in(&pod).unwrap();
    let mut v = veth("cali0123456789a", "eth0");
    v.queues = 2;
    h.create_veth(&v, Some(&pod)).unwrap();
    let dev = p.index_of(name("eth0")).unwrap();
    p.set_up(dev, true).unwrap();

    let seen = &json(&host, "ip", "-j -d link show cali0123456789a")[0];
    assert_eq!(seen["address"], "ee:ee:ee:ee:ee:ee");
    assert_eq!(seen["mtu"], 1450);
    assert_eq!(seen["num_tx_queues"], 2);
    assert_eq!(seen["operstate"], "UP");
    let seen = &json(&pod, "ip", "-j -d link show eth0")[0];
    assert_eq!(
        (&seen["mtu"], &seen["operstate"]),
        (&1450.into(), &"UP".into())
    );

    let l = h.by_name(name("cali0123456789a")).unwrap().unwrap();
    assert_eq!(
        (l.kind.as_str(), l.mac, l.mtu, l.up),
        ("veth", Some(EE), 1450, true)
    );
    assert!(l.running && l.peer_elsewhere && l.parent == Some(dev));
    assert_eq!(h.by_index(l.index).unwrap(), Some(l.clone()));
    assert!(h.links().unwrap().contains(&l));

    let e = h.create_veth(&v, Some(&pod)).unwrap_err();
    assert!(
        e.is(link::Errno::EEXIST) && e.to_string().contains("cali0123456789a"),
        "{e}"
    );
    assert!(h.delete(name("cali0123456789a")).unwrap());
    assert!(!h.delete(name("cali0123456789a")).unwrap());
    assert_eq!(p.by_name(name("eth0")).unwrap(), None);
}

#[test]
fn pods_end_gets_all_in_one_round_trip() {
    let (host, pod) = (NetNs::new().unwrap(), NetNs::new().unwrap());
    let mut h = Handle::open_in(&host).unwrap();
    h.create_veth(&veth("cali1", "tmp0"), Some(&pod)).unwrap();
    let mut p = Handle::open_in(&pod).unwrap();
    let dev = p.index_of(name("tmp0")).unwrap();
    let addresses = [
        Address::host(ip("10.65.0.2")),
        Address::host(ip("fd00:65::2")),
    ];
    let changes = Changes {
        name: Some(name("eth0")),
        mac: Some(mac(9)),
        mtu: Some(1400),
        no_link_local: true,
        up: Some(true),
        addresses: &addresses,
        neighbours: &[(ip("169.254.1.1"), EE), (ip("fe80::1"), EE)],
    };
    p.change(dev, &changes).unwrap();
    p.change(
        dev,
        &Changes {
            addresses: &addresses,
            ..Changes::default()
        },
    )
    .unwrap();

    let seen = &json(&pod, "ip", "-j addr show eth0")[0];
    assert_eq!(
        (&seen["mtu"], &seen["address"]),
        (&1400.into(), &mac(9).to_string().into())
    );
    let addrs: Vec<_> = seen["addr_info"].as_array().unwrap().iter().collect();
    assert_eq!(addrs.len(), 2, "{addrs:?}");
    assert!(
        addrs.iter().all(|a| a.get("tentative").is_none()),
        "{addrs:?}"
    );
    let neighs = json(&pod, "ip", "-j neigh show dev eth0");
    assert_eq!(neighs.len(), 2, "{neighs:?}");
    assert!(
        neighs
            .iter()
            .all(|n| n["state"][0] == "PERMANENT" && n["lladdr"] == EE.to_string())
    );

    let mut read: Vec<_> = p
        .addresses(Some(dev))
        .unwrap()
        .into_iter()
        .map(|(_, a)| a)
        .collect();
    read.sort();
    // IPv4 has no duplicate address detection and no flag to say so.
    assert_eq!(
        read,
        [
            Address {
                nodad: false,
                ..addresses[0]
            },
            addresses[1]
        ]
    );
    assert_eq!(
        p.neighbours(Some(dev))
            .unwrap()
            .iter()
            .filter(|n| n.permanent)
            .count(),
        2
    );
    assert!(p.delete_address(dev, &addresses[0]).unwrap());
    assert!(!p.delete_address(dev, &addresses[0]).unwrap());
}

#[test]
fn proxy_entries_are_set_listed_and_removed() {
    let (a, _b) = pair("192.0.2.1", "192.0.2.2", 24);
    let mut h = Handle::open_in(&a).unwrap();
    let dev = h.index_of(name("eth0")).unwrap();
    for addr in [ip("192.0.2.99"), ip("2001:db8::99")] {
        let n = Neighbour {
            dev,
            addr,
            mac: None,
            permanent: false,
            proxy: true,
        };
        h.set_neighbour(&n).unwrap();
        let listed = h.neighbours(Some(dev)).unwrap();
        assert!(
            listed.iter().any(|l| l.proxy && l.addr == addr),
            "{listed:?}"
        );
        assert!(h.delete_neighbour(&n).unwrap());
        assert!(
            !h.neighbours(Some(dev))
                .unwrap()
                .iter()
                .any(|l| l.addr == addr)
        );
    }
}

#[test]
fn interfaces_move_and_change_names() {
    let (a, b) = (NetNs::new().unwrap(), NetNs::new().unwrap());
    let mut ha = Handle::open_in(&a).unwrap();
    ha.create_veth(&veth("one", "two"), None).unwrap();
    let dev = ha.index_of(name("two")).unwrap();
    ha.move_to(dev, &b, Some(name("net1"))).unwrap();
    assert_eq!(ha.by_name(name("two")).unwrap(), None);
    let mut hb = Handle::open_in(&b).unwrap();
    assert!(!hb.by_name(name("net1")).unwrap().unwrap().up);
}

#[test]
fn a_bridge_joins_its_ports() {
    let fabric = NetNs::new().unwrap();
    let mut f = Handle::open_in(&fabric).unwrap();
    f.create_bridge(&VethEnd::named(name("fabric"))).unwrap();
    let bridge = f.index_of(name("fabric")).unwrap();
    let nodes: Vec<NetNs> = (1..=3).map(|_| NetNs::new().unwrap()).collect();
    for (i, ns) in nodes.iter().enumerate() {
        let mut v = veth(&format!("port{i}"), "eth0");
        v.here.mac = None;
        f.create_veth(&v, Some(ns)).unwrap();
        let port = f.index_of(v.here.name).unwrap();
        f.set_master(port, Some(bridge)).unwrap();
        assert_eq!(f.by_index(port).unwrap().unwrap().master, Some(bridge));
        let mut h = Handle::open_in(ns).unwrap();
        let dev = h.index_of(name("eth0")).unwrap();
        let addresses = [
            Address::subnet(ip(&format!("172.16.0.{}", i + 1)), 24),
            Address::subnet(ip(&format!("fd16::{}", i + 1)), 64),
        ];
        h.change(
            dev,
            &Changes {
                up: Some(true),
                addresses: &addresses,
                ..Changes::default()
            },
        )
        .unwrap();
    }
    exchange(&nodes[0], ip("172.16.0.1"), &nodes[2], ip("172.16.0.3"));
    exchange(&nodes[0], ip("fd16::1"), &nodes[1], ip("fd16::2"));
}

/// A VXLAN tunnel between two hosts, `n` being this one and `m` the other.
fn tunnel(parent: IfIndex, under: &str, n: u8, m: u8) -> VxlanDesired {
    let host = |i: u8| ip(&format!("{under}{i}"));
    let inner = |i: u8| [ip(&format!("10.99.0.{i}")), ip(&format!("fd99::{i}"))];
    let vtep = Vtep {
        mac: mac(m),
        host: host(m),
    };
    VxlanDesired {
        device: Vxlan {
            name: name("vxlan.calico"),
            vni: 4096,
            local: Some(host(n)),
            parent: Some(parent),
            port: 4789,
            mac: mac(n),
            mtu: 1380,
            learning: false,
        },
        addresses: inner(n).into_iter().map(Address::host).collect(),
        vteps: inner(m).into_iter().map(|a| (a, vtep)).collect(),
    }
}

fn converge(h: &mut Handle, want: &VxlanDesired) -> Vec<link::Op> {
    let dev = want.device.name;
    let before = h.read_vxlan(dev).unwrap();
    let todo = plan(dev, &before, Some(want));
    assert_eq!(h.apply(&todo), []);
    let after = h.read_vxlan(dev).unwrap();
    assert_eq!(plan(dev, &after, Some(want)).ops, [], "{after:#?}");
    todo.ops
}

fn vxlan_carries(under: &str, len: u8) {
    let (a, b) = pair(&format!("{under}1"), &format!("{under}2"), len);
    for (ns, n, m) in [(&a, 1, 2), (&b, 2, 1)] {
        let mut h = Handle::open_in(ns).unwrap();
        let parent = h.index_of(name("eth0")).unwrap();
        let want = tunnel(parent, under, n, m);
        assert!(!converge(&mut h, &want).is_empty());
        // The other host's tunnel addresses are behind the device.
        for to in want.vteps.keys() {
            let out = ns
                .command("ip")
                .unwrap()
                .args(["route", "add", &to.to_string(), "dev", "vxlan.calico"])
                .output()
                .unwrap();
            assert!(out.status.success(), "{out:?}");
        }
    }
    exchange(&a, ip("10.99.0.1"), &b, ip("10.99.0.2"));
    exchange(&a, ip("fd99::1"), &b, ip("fd99::2"));
    let seen = &json(&a, "ip", "-j -d link show vxlan.calico")[0];
    let data = &seen["linkinfo"]["info_data"];
    assert_eq!(seen["mtu"], 1380);
    assert_eq!(
        (&data["id"], &data["port"], &data["learning"]),
        (&4096.into(), &4789.into(), &false.into())
    );
    let fdb = json(&a, "bridge", "-j fdb show dev vxlan.calico");
    assert_eq!(fdb.len(), 1);
    assert_eq!(fdb[0]["mac"], mac(2).to_string());
    assert_eq!(fdb[0]["dst"], format!("{under}2"));
}

#[test]
fn vxlan_over_ipv4_carries_both_families() {
    vxlan_carries("192.0.2.", 24);
}

#[test]
fn vxlan_over_ipv6_carries_both_families() {
    vxlan_carries("2001:db8::", 64);
}

#[test]
fn vxlan_converges_from_what_others_left() {
    let (a, _b) = pair("192.0.2.1", "192.0.2.2", 24);
    let mut h = Handle::open_in(&a).unwrap();
    let parent = h.index_of(name("eth0")).unwrap();
    let mut want = tunnel(parent, "192.0.2.", 1, 2);
    converge(&mut h, &want);
    let dev = h.index_of(want.device.name).unwrap();

    // Strangers: a forwarding entry, a neighbour, an address, and a device of theirs.
    h.set_fdb(&FdbEntry {
        dev,
        mac: mac(77),
        dst: ip("192.0.2.77"),
    })
    .unwrap();
    let odd = Neighbour {
        dev,
        addr: ip("10.99.0.77"),
        mac: Some(mac(77)),
        permanent: true,
        proxy: false,
    };
    h.set_neighbour(&odd).unwrap();
    h.add_address(dev, &Address::host(ip("10.99.0.78")))
        .unwrap();
    let foreign = Neighbour {
        dev: parent,
        addr: ip("192.0.2.50"),
        ..odd
    };
    h.set_neighbour(&foreign).unwrap();
    // Flooding, which ours never does: two destinations for unknown frames.
    for dst in ["192.0.2.77", "192.0.2.78"] {
        h.append_fdb(&FdbEntry {
            dev,
            mac: Mac([0; 6]),
            dst: ip(dst),
        })
        .unwrap();
    }
    assert_eq!(json(&a, "bridge", "-j fdb show dev vxlan.calico").len(), 4);
    // The peer moves, the MTU changes.
    want.vteps
        .values_mut()
        .for_each(|v| v.host = ip("192.0.2.3"));
    want.device.mtu = 1300;
    converge(&mut h, &want);
    assert_eq!(
        h.index_of(want.device.name).unwrap(),
        dev,
        "made anew without need"
    );
    assert!(
        h.neighbours(Some(parent))
            .unwrap()
            .iter()
            .any(|n| n.addr == foreign.addr)
    );

    // Other parameters need another device.
    want.device.vni = 4097;
    converge(&mut h, &want);
    assert_ne!(h.index_of(want.device.name).unwrap(), dev);

    let gone = plan(
        want.device.name,
        &h.read_vxlan(want.device.name).unwrap(),
        None,
    );
    assert_eq!(h.apply(&gone), []);
    assert_eq!(h.by_name(want.device.name).unwrap(), None);
}

#[test]
fn one_bad_peer_does_not_stop_the_others() {
    let (a, _b) = pair("192.0.2.1", "192.0.2.2", 24);
    let mut h = Handle::open_in(&a).unwrap();
    let parent = h.index_of(name("eth0")).unwrap();
    let mut want = tunnel(parent, "192.0.2.", 1, 2);
    // An IPv6 host under an IPv4 tunnel cannot be.
    want.vteps.insert(
        ip("10.99.0.3"),
        Vtep {
            mac: mac(3),
            host: ip("2001:db8::3"),
        },
    );
    let dev = want.device.name;
    let todo = plan(dev, &h.read_vxlan(dev).unwrap(), Some(&want));
    let failures = h.apply(&todo);
    assert_eq!(failures.len(), 1, "{failures:?}");
    assert!(
        failures[0].error.to_string().contains("2001:db8::3"),
        "{}",
        failures[0].error
    );
    let left = plan(dev, &h.read_vxlan(dev).unwrap(), Some(&want));
    assert_eq!(left.ops, [failures[0].op]);
}

#[test]
fn the_monitor_tells_what_happens() {
    let ns = NetNs::new().unwrap();
    let mut m = Monitor::open_in(&ns).unwrap();
    let mut h = Handle::open_in(&ns).unwrap();
    let mut v = veth("cali1", "peer1");
    v.up = false;
    h.create_veth(&v, None).unwrap();
    let Event::Link(l) = until(
        &mut m,
        |e| matches!(e, Event::Link(l) if l.name == name("cali1")),
    ) else {
        unreachable!()
    };
    assert!(!l.up && l.kind == "veth");
    let dev = l.index;
    for i in [dev, h.index_of(name("peer1")).unwrap()] {
        h.set_up(i, true).unwrap();
    }
    until(
        &mut m,
        |e| matches!(e, Event::Link(l) if l.index == dev && l.up && l.running),
    );
    let a = Address {
        addr: ip("10.1.1.1"),
        len: 24,
        scope: Scope::Link,
        nodad: false,
    };
    h.add_address(dev, &a).unwrap();
    until(&mut m, |e| *e == Event::Address(dev, a));
    h.delete_address(dev, &a).unwrap();
    until(&mut m, |e| *e == Event::AddressGone(dev, a));
    let n = Neighbour {
        dev,
        addr: ip("10.1.1.9"),
        mac: Some(mac(1)),
        permanent: true,
        proxy: false,
    };
    h.set_neighbour(&n).unwrap();
    until(&mut m, |e| *e == Event::Neighbour(n));
    h.delete_neighbour(&n).unwrap();
    until(
        &mut m,
        |e| matches!(e, Event::NeighbourGone(g) if g.addr == n.addr),
    );
    h.delete(name("cali1")).unwrap();
    until(&mut m, |e| {
        *e == Event::LinkGone {
            index: dev,
            name: name("cali1"),
        }
    });
}

#[test]
fn leaving_a_bridge_is_not_being_removed() {
    let ns = NetNs::new().unwrap();
    let mut h = Handle::open_in(&ns).unwrap();
    h.create_bridge(&VethEnd::named(name("br0"))).unwrap();
    let bridge = h.index_of(name("br0")).unwrap();
    h.create_veth(&veth("port", "peer"), None).unwrap();
    let port = h.index_of(name("port")).unwrap();
    h.set_master(port, Some(bridge)).unwrap();
    let mut m = Monitor::open_in(&ns).unwrap();
    h.set_master(port, None).unwrap();
    h.delete(name("br0")).unwrap();
    let mut events = Vec::new();
    until(&mut m, |e| {
        events.push(e.clone());
        *e == Event::LinkGone {
            index: bridge,
            name: name("br0"),
        }
    });
    assert!(
        !events
            .iter()
            .any(|e| matches!(e, Event::LinkGone { index, .. } if *index == port))
    );
}

#[tokio::test(flavor = "current_thread")]
async fn the_monitor_can_be_awaited_and_says_when_it_overran() {
    let ns = NetNs::new().unwrap();
    let mut m = Monitor::open_in(&ns).unwrap();
    let mut h = Handle::open_in(&ns).unwrap();
    h.create_veth(&veth("cali1", "peer1"), None).unwrap();
    let wait = async {
        while !matches!(m.next().await.unwrap(), Event::Link(l) if l.name == name("cali1")) {}
    };
    tokio::time::timeout(Duration::from_secs(5), wait)
        .await
        .unwrap();

    // More notifications than any buffer holds, read by nobody meanwhile.
    let dev = h.index_of(name("cali1")).unwrap();
    let mut resynced = false;
    for round in 0..40 {
        for i in 0..1000u16 {
            let addr = IpAddr::from([10, 7, (i >> 8) as u8, i as u8]);
            let n = Neighbour {
                dev,
                addr,
                mac: Some(mac(round)),
                permanent: true,
                proxy: false,
            };
            h.set_neighbour(&n).unwrap();
        }
    }
    let drain = async {
        while !resynced {
            resynced = m.next().await.unwrap() == Event::Resync;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), drain)
        .await
        .unwrap();
    // And after that it goes on.
    h.delete(name("cali1")).unwrap();
    let gone = async {
        while !matches!(m.next().await.unwrap(), Event::LinkGone { index, .. } if index == dev) {}
    };
    tokio::time::timeout(Duration::from_secs(5), gone)
        .await
        .unwrap();
}

#[test]
fn sysctls_are_those_of_the_namespace() {
    let (host, pod) = (NetNs::new().unwrap(), NetNs::new().unwrap());
    let mut h = Handle::open_in(&host).unwrap();
    let dev = name("cali1.a");
    h.create_veth(&veth("cali1.a", "eth0"), Some(&pod)).unwrap();
    let get = |ns: &NetNs, path: &str| ns.run(|| sysctl::read(path)).unwrap().unwrap();
    for family in Family::BOTH {
        host.run(|| sysctl::write(&host_end_sysctls(dev, family)))
            .unwrap()
            .unwrap();
        pod.run(|| sysctl::write(&pod_end_sysctls(name("eth0"), family, true)))
            .unwrap()
            .unwrap();
    }
    for s in Family::BOTH
        .into_iter()
        .flat_map(|f| host_end_sysctls(dev, f))
    {
        assert_eq!(get(&host, &s.path), s.value, "{}", s.path);
    }
    assert_eq!(get(&pod, "ipv4/ip_forward"), "1");
    assert_eq!(get(&host, "ipv4/ip_forward"), "0");
    let missing = Sysctl::conf(Family::V4, "nosuch", "forwarding", 1);
    let e = host.run(|| sysctl::write(&[missing])).unwrap().unwrap_err();
    assert!(
        e.is(link::Errno::ENOENT) && e.to_string().contains("nosuch"),
        "{e}"
    );
    assert!(sysctl::read("../kernel/hostname").is_err());
    assert!(sysctl::read("/etc/hostname").is_err());
}

/// Figures for the CNI budget; run with `--nocapture`.
#[test]
fn what_a_pod_costs() {
    let host = NetNs::new().unwrap();
    let mut h = Handle::open_in(&host).unwrap();
    let pods: Vec<NetNs> = (0..50).map(|_| NetNs::new().unwrap()).collect();
    let mut spent = [Duration::ZERO; 7];
    let mut lap = |i: usize, t: &mut Instant| {
        spent[i] += t.elapsed();
        *t = Instant::now();
    };
    for (i, pod) in pods.iter().enumerate() {
        let cali = name(&format!("cali{i}"));
        let mut t = Instant::now();
        h.create_veth(&veth(cali.as_str(), "eth0"), Some(pod))
            .unwrap();
        lap(0, &mut t);
        let mut p = Handle::open_in(pod).unwrap();
        lap(1, &mut t);
        let dev = p.index_of(name("eth0")).unwrap();
        let addresses = [
            Address::host(ip("10.65.0.2")),
            Address::host(ip("fd00:65::2")),
        ];
        p.change(
            dev,
            &Changes {
                up: Some(true),
                addresses: &addresses,
                ..Changes::default()
            },
        )
        .unwrap();
        lap(2, &mut t);
        host.run(|| sysctl::write(&host_end_sysctls(cali, Family::V4)))
            .unwrap()
            .unwrap();
        lap(3, &mut t);
        host.run(|| sysctl::write(&host_end_sysctls(cali, Family::V6)))
            .unwrap()
            .unwrap();
        lap(4, &mut t);
    }
    let (singly, together) = pods.split_at(10);
    for i in 0..singly.len() {
        let mut t = Instant::now();
        assert!(h.delete(name(&format!("cali{i}"))).unwrap());
        lap(5, &mut t);
    }
    let rest: Vec<_> = (0..pods.len()).map(|i| name(&format!("cali{i}"))).collect();
    let mut t = Instant::now();
    h.delete_all(&rest).unwrap();
    lap(6, &mut t);
    assert!(h.links().unwrap().iter().all(|l| l.name == name("lo")));
    h.delete_all(&rest).unwrap();
    let n = pods.len() as u32;
    let [pair, socket, pod, v4, v6, ..] = spent.map(|d| d / n);
    let (delete, all) = (spent[5] / singly.len() as u32, spent[6]);
    eprintln!(
        "veth pair {pair:?}, socket in pod {socket:?}, pod end up with addresses {pod:?}, \
         host sysctls v4 {v4:?} v6 {v6:?}, delete one {delete:?}, {} at once {all:?}",
        together.len()
    );
}
