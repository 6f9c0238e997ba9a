//! An ADD that is cut short, wherever: DEL, or GC, finds all that it left.

use crate::support::*;
use serde_json::json;
use std::io::Write;
use std::time::{Duration, Instant};

/// An ADD under way; its end does not matter.
fn begin(node: &Node, call: &Call<'_>) -> std::process::Child {
    let mut child = call.start(node);
    let mut stdin = child.stdin.take().expect("piped");
    stdin
        .write_all(call.conf.to_string().as_bytes())
        .expect("it reads");
    child
}

/// Moments of an ADD, as fractions of what one takes here and now.
fn moments(cluster: &Cluster, node: &Node) -> Vec<Duration> {
    let c = cluster.container();
    let begun = Instant::now();
    node.add(&c).expect("attached");
    let all = begun.elapsed();
    node.del(&c).expect("detached");
    (1..=8).map(|i| all * i / 8).collect()
}

#[test]
fn the_agent_is_killed() {
    let cluster = Cluster::new();
    let mut node = cluster.started(1);
    let moments = moments(&cluster, &node);
    for (i, moment) in moments.into_iter().enumerate() {
        let pod = format!("p{i}");
        cluster.pod(&pod, &node, json!({}), json!({}));
        let c = cluster.container();
        let add = Call::new("ADD", &c, node.conf("1.1.0")).pod("default", &pod);
        let mut child = begin(&node, &add);
        pause(moment);
        if i % 3 == 2 {
            assert!(node.stop().success(), "asked to stop: {}", node.log());
        } else {
            node.kill();
        }
        ended(&mut child);
        node.start();
        if i % 2 == 0 {
            node.del_pod(&c, &pod).expect("detached");
        } else {
            let mut conf = node.conf("1.1.0");
            conf["cni.dev/valid-attachments"] = json!([]);
            node.call(&Call::new("GC", &c, conf)).expect("collected");
        }
        cluster.nothing_left(&node);
    }
}

/// The other way round: a DEL that was cut short is finished by the next.
#[test]
fn the_agent_is_killed_at_the_end() {
    let cluster = Cluster::new();
    let mut node = cluster.started(1);
    for (i, moment) in moments(&cluster, &node).into_iter().enumerate() {
        let pod = cluster.attached(&node, &format!("p{i}"), json!({}));
        let c = &pod.container;
        let del = Call::new("DEL", c, node.conf("1.0.0")).pod("default", &pod.name);
        let mut child = begin(&node, &del);
        pause(moment / 2);
        node.kill();
        ended(&mut child);
        node.start();
        node.del_pod(c, &pod.name).expect("detached");
        cluster.nothing_left(&node);
    }
}

#[test]
fn the_containers_namespace_goes() {
    let cluster = Cluster::new();
    let node = cluster.started(1);
    for moment in moments(&cluster, &node) {
        let Container { id, ns } = cluster.container();
        let c = Container { id, ns };
        let mut child = begin(&node, &Call::new("ADD", &c, node.conf("1.0.0")));
        pause(moment);
        let Container { id, ns } = c;
        drop(ns);
        ended(&mut child);
        let ns = netlink::netns::NetNs::new().expect("root");
        let gone = Container { id, ns };
        let mut del = Call::new("DEL", &gone, node.conf("1.0.0"));
        del.netns = "/nowhere".to_owned();
        node.call(&del).expect("detached");
        cluster.nothing_left(&node);
    }
}

#[test]
fn the_containers_name_is_taken() {
    let cluster = Cluster::new();
    let node = cluster.started(1);
    let c = cluster.container();
    run(&c.ns, "ip link add eth0 type veth peer name other");
    let e = node.add(&c).expect_err("taken");
    assert!(e.msg.contains("already has an interface eth0"), "{e:?}");
    cluster.nothing_left(&node);
    assert!(run(&c.ns, "ip link show eth0").contains("eth0"), "not ours");
    let mut call = Call::new("ADD", &c, node.conf("1.0.0"));
    call.ifname = "net1";
    let got = node.call(&call).expect("another name");
    assert_eq!(got["interfaces"][1]["name"], "net1");
    call.command = "DEL";
    node.call(&call).expect("detached");
    cluster.nothing_left(&node);
}

#[test]
fn the_kernel_refuses() {
    let cluster = Cluster::new();
    let node = cluster.started(1);
    // Where ours would be: same destination, same metric.
    run(
        &node.ns,
        "ip route add 10.65.3.7/32 dev eth0 proto static metric 1024",
    );
    let ask = json!({"cni.projectcalico.org/ipAddrs": "[\"10.65.3.7\"]"});
    cluster.pod("web", &node, json!({}), ask);
    let c = cluster.container();
    let e = node.add_pod(&c, "web").expect_err("somebody else's route");
    assert!(
        e.msg.contains("default/web") && e.msg.contains("10.65.3.7"),
        "{e:?}"
    );
    cluster.nothing_left(&node);
    let route = run(&node.ns, "ip route show 10.65.3.7");
    assert!(route.contains("proto static"), "it stays: {route}");
    run(&node.ns, "ip route del 10.65.3.7/32 metric 1024");
    node.add_pod(&c, "web").expect("now it is free");
    node.del_pod(&c, "web").expect("detached");
    cluster.nothing_left(&node);
}

/// The agent's store is on a small file system of its own, which then is full.
#[test]
fn the_store_is_full() {
    let cluster = Cluster::new();
    let mut node = cluster.node(1);
    let disk = cluster.dir.path().join("disk");
    std::fs::create_dir(&disk).expect("a directory");
    let store = disk.join("store.db").display().to_string();
    node.set("MANX_STORE", &store);
    let mut command = node.ns.command("unshare").expect("namespace");
    let disk = disk.display();
    let line = format!("mount -t tmpfs -o size=2m none {disk} && exec {MANX} node run");
    command.args(["--mount", "sh", "-c", &line]);
    node.environment(&mut command);
    node.spawn(&mut command);
    node.ready();
    let first = cluster.container();
    node.add(&first).expect("there is room");

    let inside = |line: &str| {
        let pid = node.pid().to_string();
        let env = format!("MANX_STORE={store}");
        let args = [
            "-t",
            &pid,
            "-m",
            "env",
            "DATASTORE_TYPE=embedded",
            &env,
            "sh",
            "-c",
            line,
        ];
        output(&node.ns, "nsenter", &args)
    };
    let (_, text) = inside(&format!("head -c 4m /dev/zero > {disk}/filler; df {disk}"));
    let failed = (0..20).find_map(|_| {
        let c = cluster.container();
        match node.add(&c) {
            Ok(_) => {
                node.del(&c).ok();
                None
            }
            Err(e) => Some((c, e)),
        }
    });
    let (c, e) = failed.unwrap_or_else(|| panic!("a full store takes no more: {text}"));
    assert!(e.msg.contains("full"), "{e:?}");
    assert_eq!(
        node.call(&Call::new("STATUS", &c, node.conf("1.1.0")))
            .err(),
        None
    );
    let (ok, text) = inside(&format!("rm {disk}/filler"));
    assert!(ok, "{text}");
    node.del(&c).expect("detached");
    until("what failed is gone", || {
        node.pod_links() == [first.host_interface()]
    });
    let (ok, text) = inside(&format!("{MANX} ipam check --fail"));
    assert!(ok, "{text}");
    node.del(&first).expect("detached");
    node.no_pods();
    let (ok, text) = inside(&format!("{MANX} ipam check --fail"));
    assert!(ok && text.contains("0 "), "{text}");
}
