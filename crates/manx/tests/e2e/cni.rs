//! The protocol: versions, verbs, repetition, haste.

use crate::probe::*;
use crate::support::*;
use serde_json::{Value, json};
use std::path::Path;

#[test]
fn each_version_gets_its_shape() {
    let cluster = Cluster::new();
    let node = cluster.started(1);
    for version in VERSIONS {
        let c = cluster.container();
        let conf = || node.conf(version);
        let r = node.call(&Call::new("ADD", &c, conf())).expect(version);
        assert_eq!(r["cniVersion"], version);
        let interfaces = r["interfaces"].as_array().expect("interfaces");
        assert_eq!(interfaces.len(), 2, "{r}");
        assert_eq!(interfaces[0]["name"], c.host_interface());
        assert!(interfaces[0].get("sandbox").is_none_or(|s| s == ""), "{r}");
        assert_eq!(interfaces[1]["name"], "eth0");
        assert_eq!(interfaces[1]["sandbox"], c.netns());
        assert_eq!(r["ips"][0]["interface"], 1);
        assert!(text(&r["ips"][0]["address"]).ends_with("/32"), "{r}");
        assert!(r["ips"][0].get("gateway").is_none(), "{r}");
        let old = version.starts_with("0.");
        assert_eq!(r["ips"][0].get("version"), old.then(|| json!("4")).as_ref());
        assert_eq!(
            interfaces[1].get("mtu").is_some(),
            version == "1.1.0",
            "{r}"
        );
        assert!(r["dns"].is_object());
        let mac = run(&c.ns, "cat /sys/class/net/eth0/address");
        let shown = run(&c.ns, "ip -j link show eth0");
        assert!(shown.contains(&text(&interfaces[1]["mac"])), "{r} {mac}");

        let check = node.call(&Call::new("CHECK", &c, conf()).previous(&r));
        if version < "0.4.0" {
            assert_eq!(check.expect_err("too old").code, 1);
        } else {
            assert_eq!(check, Ok(Value::Null), "nothing is printed");
        }
        let late = node.call(&Call::new("STATUS", &c, conf()));
        assert_eq!(late.is_ok(), version == "1.1.0");
        assert_eq!(
            node.call(&Call::new("DEL", &c, conf()).previous(&r)),
            Ok(Value::Null)
        );
    }
    let c = cluster.container();
    let e = node.call(&Call::new("ADD", &c, node.conf("0.2.0")));
    assert_eq!(e.expect_err("never spoken").code, 1);
    cluster.nothing_left(&node);
}

#[test]
fn check_names_what_differs() {
    let cluster = Cluster::new();
    let node = cluster.started(1);
    let c = cluster.container();
    let r = node.add(&c).expect("attached");
    let check = || node.call(&Call::new("CHECK", &c, node.conf("1.0.0")).previous(&r));
    let differs = |what: &[&str]| {
        let e = check().expect_err("it differs");
        assert_eq!(e.code, 102, "{e:?}");
        assert!(what.iter().all(|w| e.msg.contains(w)), "{what:?}: {e:?}");
    };
    assert_eq!(check(), Ok(Value::Null));
    let address = addresses(&r)[0].to_string();

    run(&c.ns, "ip route del default");
    differs(&["0.0.0.0/0", "eth0"]);
    run(&c.ns, "ip route add default via 169.254.1.1 dev eth0");
    assert_eq!(check(), Ok(Value::Null), "mended");

    run(&c.ns, &format!("ip address del {address}/32 dev eth0"));
    differs(&[&address, "eth0"]);
    run(&c.ns, &format!("ip address add {address}/32 dev eth0"));
    // The last address took the routes along.
    differs(&["0.0.0.0/0"]);
    run(&c.ns, "ip route add 169.254.1.1 dev eth0");
    run(&c.ns, "ip route add default via 169.254.1.1 dev eth0");
    assert_eq!(check(), Ok(Value::Null), "mended");

    run(&c.ns, "ip link set eth0 down");
    differs(&["eth0 is down"]);
    run(&node.ns, &format!("ip link del {}", c.host_interface()));
    differs(&[&c.host_interface(), "missing", "eth0"]);
    let e = node.call(&Call::new("CHECK", &c, node.conf("1.0.0")));
    assert!(e.expect_err("no prevResult").msg.contains("prevResult"));
    node.del(&c).expect("what is gone is no failure");
    cluster.nothing_left(&node);
}

#[test]
fn del_may_come_twice_late_and_for_nobody() {
    let cluster = Cluster::new();
    let node = cluster.started(1);
    let c = cluster.container();
    assert_eq!(node.del(&c), Ok(Value::Null), "never added");
    node.add(&c).expect("attached");
    for _ in 0..2 {
        assert_eq!(node.del(&c), Ok(Value::Null));
    }
    cluster.nothing_left(&node);

    node.add(&c).expect("attached again");
    let mut gone = Call::new("DEL", &c, node.conf("1.0.0"));
    for netns in ["/nowhere/netns", ""] {
        gone.netns = netns.to_owned();
        assert_eq!(node.call(&gone), Ok(Value::Null));
    }
    cluster.nothing_left(&node);

    let other = cluster.container();
    node.add(&other).expect("attached");
    let Container { id, ns } = other;
    drop(ns);
    until("the kernel ends the namespace", || {
        !node.pod_links().contains(&format!("cali{}", &id[..11]))
    });
    let mut late = Call::new("DEL", &c, node.conf("1.0.0"));
    let gone = Container {
        id,
        ns: netlink::netns::NetNs::new().expect("root"),
    };
    late.container = &gone;
    late.netns = "/proc/1/fd/1000".to_owned();
    assert_eq!(node.call(&late), Ok(Value::Null));
    cluster.nothing_left(&node);
}

#[test]
fn gc_keeps_what_is_valid() {
    let cluster = Cluster::new();
    let node = cluster.started(1);
    let (a, b) = (cluster.container(), cluster.container());
    let kept = node.add(&a).expect("attached");
    node.add(&b).expect("attached");
    let pod = cluster.attached(&node, "web", json!({}));
    let gone = cluster.attached(&node, "gone", json!({}));
    // Of another network: not this one's to remove.
    let other = cluster.container();
    let mut elsewhere = node.conf("1.1.0");
    elsewhere["name"] = json!("other");
    node.call(&Call::new("ADD", &other, elsewhere.clone()))
        .expect("attached");

    let gc = |mut conf: Value, valid: &[&Container]| {
        let of = |c: &&Container| json!({"containerID": c.id, "ifname": "eth0"});
        conf["cni.dev/valid-attachments"] = valid.iter().map(of).collect();
        node.call(&Call::new("GC", &a, conf))
    };
    assert_eq!(gc(node.conf("1.0.0"), &[]).expect_err("too old").code, 1);
    assert_eq!(
        gc(node.conf("1.1.0"), &[&a, &pod.container]),
        Ok(Value::Null)
    );
    let handle = |c: &Container| format!("{NETWORK}.{}", c.id);
    let mut want = [
        handle(&a),
        handle(&pod.container),
        format!("other.{}", other.id),
    ];
    want.sort();
    let mut have = cluster.handles();
    have.sort();
    assert_eq!(have, want);
    let mut links = [
        a.host_interface(),
        other.host_interface(),
        pod.host_interface.clone(),
    ];
    links.sort();
    until("links of the removed ones are gone", || {
        let mut have = node.pod_links();
        have.sort();
        have == links
    });
    assert_eq!(cluster.annotation("gone", "podIP").as_deref(), Some(""));
    assert!(
        cluster
            .annotation("web", "podIP")
            .is_some_and(|a| !a.is_empty())
    );
    cluster.ipam_check();
    let check = Call::new("CHECK", &a, node.conf("1.0.0")).previous(&kept);
    assert_eq!(node.call(&check), Ok(Value::Null), "what is valid works");
    assert_eq!(gc(node.conf("1.1.0"), &[]), Ok(Value::Null));
    assert_eq!(gc(elsewhere, &[]), Ok(Value::Null));
    assert_eq!(
        node.del_pod(&gone.container, "gone"),
        Ok(Value::Null),
        "late"
    );
    cluster.nothing_left(&node);
}

/// A process that dies between the two writes of an assignment leaves a handle and no address.
#[test]
fn gc_finds_a_handle_without_an_address() {
    let cluster = Cluster::new();
    let node = cluster.started(1);
    let c = cluster.container();
    node.add(&c).expect("attached");
    let of = |id: &str| format!("/calico/ipam/v2/handle/{id}");
    let handle = format!("{NETWORK}.{}", c.id);
    let store = cluster.client.store();
    let found = cluster.block_on(store.get(&of(&handle))).expect("it reads");
    let value = found.expect("it is there").value;
    let put = |id: &str| {
        let absent = datastore::Precondition::Absent;
        let done = cluster.block_on(store.put(&of(id), value.clone(), absent));
        done.expect("it is written");
    };
    let (lost, foreign) = (format!("{NETWORK}.lost"), "other.lost".to_owned());
    put(&lost);
    put(&foreign);
    let mut conf = node.conf("1.1.0");
    conf["cni.dev/valid-attachments"] = json!([{"containerID": c.id, "ifname": "eth0"}]);
    node.call(&Call::new("GC", &c, conf.clone()))
        .expect("collected");
    let mut left = cluster.handles();
    left.sort();
    assert_eq!(left, [handle, foreign]);
    conf["name"] = json!("other");
    node.call(&Call::new("GC", &c, conf)).expect("collected");
    node.del(&c).expect("detached");
    cluster.nothing_left(&node);
}

#[test]
fn without_an_agent() {
    let cluster = Cluster::new();
    let mut node = cluster.node(1);
    let c = cluster.container();
    let v = node.call(&Call::new(
        "VERSION",
        &c,
        json!({"cniVersion": "1.0.0", "type": "calico"}),
    ));
    assert_eq!(
        v.expect("needs nobody")["supportedVersions"],
        json!(VERSIONS)
    );
    let status = |node: &Node| node.call(&Call::new("STATUS", &c, node.conf("1.1.0")));
    for _ in 0..2 {
        let e = status(&node).expect_err("no agent");
        assert_eq!((e.code, e.version.as_str()), (50, "1.1.0"));
        let e = node.add(&c).expect_err("no agent");
        assert_eq!((e.code, e.version.as_str()), (11, "1.0.0"));
        let socket = node.socket.display().to_string();
        assert!(
            e.msg.contains(&socket) && e.details.contains("manx node run"),
            "{e:?}"
        );
        assert_eq!(node.del(&c).expect_err("the runtime tries again").code, 11);
        node.start();
        assert_eq!(status(&node), Ok(Value::Null));
        // A kill leaves the socket's file; the second round meets it.
        node.kill();
    }
    node.start();
    cluster.apply(
        json!({"apiVersion": "projectcalico.org/v3", "kind": "ClusterInformation",
        "metadata": {"name": "default"}, "spec": {"datastoreReady": false}}),
    );
    let e = status(&node).expect_err("locked");
    assert_eq!(e.msg, "Calico is currently not ready to process requests");
    assert_eq!(e.code, 50);
    assert_eq!(node.add(&c).expect_err("locked").code, 11);
    cluster.nothing_left(&node);
}

#[test]
fn mistakes_are_told_apart() {
    let cluster = Cluster::new();
    let node = cluster.started(1);
    let c = cluster.container();
    let own = Container {
        id: c.id.clone(),
        ns: node.ns.try_clone().expect("a descriptor"),
    };
    let e = node.add(&own).expect_err("the node itself");
    assert_eq!(e.code, 8, "{e:?}");
    assert!(e.msg.contains("node's own"), "{e:?}");
    let mut file = Call::new("ADD", &c, node.conf("1.0.0"));
    file.netns = "/proc/version".to_owned();
    let e = node.call(&file).expect_err("no namespace");
    assert_eq!(e.code, 8, "{e:?}");
    assert!(e.msg.contains("not a network namespace"), "{e:?}");
    let mut conf = node.conf("1.0.0");
    conf["nodename"] = json!("n7");
    let e = node
        .call(&Call::new("ADD", &c, conf))
        .expect_err("another's");
    assert_eq!(e.code, 7, "{e:?}");
    assert!(
        e.msg.contains("\"n7\"") && e.msg.contains("\"n1\""),
        "{e:?}"
    );
    assert!(Path::new("/proc/version").exists());
    cluster.nothing_left(&node);
}

#[test]
fn once_more_is_the_same() {
    let cluster = Cluster::new();
    let node = cluster.started(1);
    let c = cluster.container();
    let first = node.add(&c).expect("attached");
    for _ in 0..3 {
        let again = node.add(&c).expect("attached again");
        assert_eq!(addresses(&again), addresses(&first));
        assert_eq!(
            node.pod_routes().len(),
            1,
            "at once: {:?}",
            node.pod_routes()
        );
        let check = Call::new("CHECK", &c, node.conf("1.0.0")).previous(&again);
        assert_eq!(node.call(&check), Ok(Value::Null));
        let echo = Echo::start(&c.ns, 7000);
        let to = std::net::SocketAddr::new(addresses(&first)[0], 7000);
        assert!(reaches(&node.ns, to, "hello"));
        drop(echo);
    }
    let pod = cluster.attached(&node, "web", json!({}));
    let again = node.add_pod(&pod.container, "web").expect("again");
    assert_eq!(addresses(&again), pod.addresses);
    node.del(&c).expect("detached");
    node.del_pod(&pod.container, "web").expect("detached");
    cluster.nothing_left(&node);
}

#[test]
fn two_at_once_for_one_container() {
    let cluster = Cluster::new();
    let node = cluster.started(1);
    let c = cluster.container();
    let (one, two) = std::thread::scope(|s| {
        let one = s.spawn(|| node.add(&c));
        (one.join(), node.add(&c))
    });
    let (one, two) = (one.expect("no panic").expect("one"), two.expect("two"));
    assert_eq!(addresses(&one), addresses(&two));
    let last = node.add(&c).expect("attached");
    let check = Call::new("CHECK", &c, node.conf("1.0.0")).previous(&last);
    assert_eq!(node.call(&check), Ok(Value::Null));

    for _ in 0..4 {
        let c = cluster.container();
        let added = std::thread::scope(|s| {
            let add = s.spawn(|| node.add(&c));
            node.del(&c).expect("always");
            add.join().expect("no panic")
        });
        // Whoever came last decides, and all of it.
        let handle = format!("{NETWORK}.{}", c.id);
        if cluster.handles().contains(&handle) {
            let result = added.expect("it has an address");
            let check = Call::new("CHECK", &c, node.conf("1.0.0")).previous(&result);
            assert_eq!(node.call(&check), Ok(Value::Null));
        } else {
            until("no link", || {
                !node.pod_links().contains(&c.host_interface())
            });
        }
        node.del(&c).expect("at last");
    }
    node.del(&c).expect("detached");
    cluster.nothing_left(&node);
}

#[test]
fn thirty_at_once() {
    const MANY: usize = 30;
    let cluster = Cluster::new();
    let node = cluster.started(1);
    let containers: Vec<Container> = (0..MANY).map(|_| cluster.container()).collect();
    for i in 0..MANY {
        cluster.pod(&format!("p{i}"), &node, json!({"app": "many"}), json!({}));
    }
    cluster.policy(
        "many",
        json!({"selector": "app == 'many'", "ingress": [{"action": "Allow"}]}),
    );
    let each = |f: &(dyn Fn(usize, &Container) -> Result<Value, CniError> + Sync)| {
        std::thread::scope(|s| {
            let all: Vec<_> = containers
                .iter()
                .enumerate()
                .map(|(i, c)| s.spawn(move || f(i, c)))
                .collect();
            let done = all.into_iter().map(|t| t.join().expect("no panic"));
            done.collect::<Result<Vec<_>, _>>().expect("every one")
        })
    };
    let results = each(&|i, c| node.add_pod(c, &format!("p{i}")));
    let mut all: Vec<_> = results.iter().flat_map(addresses).collect();
    all.sort();
    all.dedup();
    assert_eq!(all.len(), MANY, "each its own");
    assert_eq!(node.pod_routes().len(), MANY);
    assert_eq!(node.pod_links().len(), MANY);
    assert!(node.pods_in_rules().len() >= MANY);
    cluster.ipam_check();
    each(&|i, c| node.del_pod(c, &format!("p{i}")));
    cluster.nothing_left(&node);
}

#[test]
fn the_configuration_counts() {
    let cluster = Cluster::new();
    let node = cluster.started(1);
    let c = cluster.container();
    let mut conf = node.conf("1.1.0");
    conf["mtu"] = json!(1400);
    conf["num_queues"] = json!(2);
    conf["container_settings"] = json!({"allow_ip_forwarding": true});
    // What there is no address for leads nowhere.
    conf["ipam"]["routes"] = json!([{"dst": "10.0.0.0/8"}, {"dst": "fd00::/8"}]);
    let r = node
        .call(&Call::new("ADD", &c, conf.clone()))
        .expect("attached");
    assert_eq!(r["routes"], json!([{"dst": "10.0.0.0/8"}]));
    assert_eq!(r["interfaces"][1]["mtu"], 1400);
    let link = run(&c.ns, "ip -d link show eth0");
    assert!(
        link.contains("mtu 1400") && link.contains("numtxqueues 2"),
        "{link}"
    );
    let routes = run(&c.ns, "ip route");
    assert!(
        routes.contains("10.0.0.0/8 via 169.254.1.1 dev eth0"),
        "{routes}"
    );
    assert!(!routes.contains("default"), "{routes}");
    assert_eq!(run(&c.ns, "cat /proc/sys/net/ipv4/ip_forward").trim(), "1");
    let check = Call::new("CHECK", &c, conf.clone()).previous(&r);
    assert_eq!(node.call(&check), Ok(Value::Null));
    conf["include_default_routes"] = json!(true);
    let r = node
        .call(&Call::new("ADD", &c, conf.clone()))
        .expect("again");
    assert_eq!(
        r["routes"],
        json!([{"dst": "10.0.0.0/8"}, {"dst": "0.0.0.0/0"}])
    );
    node.call(&Call::new("DEL", &c, conf.clone()))
        .expect("detached");
    conf["ipam"]["routes"] = json!([{"dst": "ten"}]);
    let e = node.call(&Call::new("ADD", &c, conf)).expect_err("no CIDR");
    assert_eq!(e.code, 7);
    assert!(
        e.msg.contains("ipam.routes") && e.msg.contains("ten"),
        "{e:?}"
    );
    cluster.nothing_left(&node);
}

#[test]
fn one_family_failing_frees_the_other() {
    let cluster = Cluster::new();
    let node = cluster.started(1);
    let c = cluster.container();
    let mut conf = node.conf("1.0.0");
    conf["ipam"]["assign_ipv6"] = json!("true");
    let e = node
        .call(&Call::new("ADD", &c, conf))
        .expect_err("there is no IPv6 pool");
    assert_eq!(e.code, 101);
    assert!(
        e.msg.starts_with("failed to request IPv6 addresses: "),
        "{e:?}"
    );
    cluster.nothing_left(&node);
}

/// Whatever comes over the socket, the next one is served.
#[test]
fn noise_on_the_socket() {
    use std::io::Write;
    use std::os::unix::net::UnixStream;
    let cluster = Cluster::new();
    let node = cluster.started(1);
    let open = || UnixStream::connect(&node.socket).expect("it listens");
    let silent: Vec<UnixStream> = (0..20).map(|_| open()).collect();
    for noise in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        &[0, 0, 0, 2, b'{', b'}'],
        &[255; 64],
        &[0; 4],
    ] {
        open().write_all(noise).expect("it is read");
    }
    let c = cluster.container();
    node.add(&c).expect("attached all the same");
    node.del(&c).expect("detached");
    drop(silent);
    cluster.nothing_left(&node);
}

#[test]
fn the_ipam_plugin_alone() {
    let cluster = Cluster::new();
    let node = cluster.started(1);
    let c = cluster.container();
    let mut conf = node.conf("1.0.0");
    conf["type"] = json!("calico-ipam");
    let first = node
        .call(&Call::new("ADD", &c, conf.clone()))
        .expect("addresses");
    assert!(first.get("interfaces").is_none(), "{first}");
    let again = node
        .call(&Call::new("ADD", &c, conf.clone()))
        .expect("the same");
    assert_eq!(addresses(&first), addresses(&again));
    let check = Call::new("CHECK", &c, conf.clone()).previous(&first);
    assert_eq!(node.call(&check), Ok(Value::Null));
    for _ in 0..2 {
        assert_eq!(
            node.call(&Call::new("DEL", &c, conf.clone())),
            Ok(Value::Null)
        );
    }
    assert_eq!(node.call(&check).expect_err("released").code, 102);
    cluster.nothing_left(&node);
}
