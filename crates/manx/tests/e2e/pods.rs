//! Kubernetes pods: what annotations ask for, and what is written back.

use crate::probe::*;
use crate::support::*;
use api::ResourceKind;
use serde_json::{Value, json};

fn pool(cluster: &Cluster, name: &str, cidr: &str, block_size: u8) {
    // Nobody takes from it without being told to.
    cluster.apply(json!({
        "apiVersion": "projectcalico.org/v3", "kind": "IPPool", "metadata": {"name": name},
        "spec": {"cidr": cidr, "blockSize": block_size, "nodeSelector": "!all()"},
    }));
}

/// What becomes of a pod with an annotation.
struct Asked {
    container: Container,
    result: Result<Value, CniError>,
}

fn ask(cluster: &Cluster, node: &Node, pod: &str, annotations: Value) -> Asked {
    cluster.pod(pod, node, json!({}), annotations);
    let container = cluster.container();
    let result = node.add_pod(&container, pod);
    Asked { container, result }
}

#[test]
fn addresses_that_are_asked_for() {
    let cluster = Cluster::new();
    let node = cluster.started(1);
    pool(&cluster, "other", "10.66.0.0/24", 26);
    let ips = |list: &str| json!({"cni.projectcalico.org/ipAddrs": list});
    let pools = |list: &str| json!({"cni.projectcalico.org/ipv4pools": list});
    let no_ipam = |list: &str| json!({"cni.projectcalico.org/ipAddrsNoIpam": list});
    let mut attached = Vec::new();

    let a = ask(&cluster, &node, "exact", ips("[\"10.65.3.7\"]"));
    assert_eq!(addresses(&a.result.expect("free")), [ip("10.65.3.7")]);
    attached.push(("exact", a.container));
    let a = ask(&cluster, &node, "pool", pools("[\"other\"]"));
    let got = addresses(&a.result.expect("by name"))[0].to_string();
    assert!(got.starts_with("10.66.0."), "{got}");
    attached.push(("pool", a.container));
    let a = ask(&cluster, &node, "cidr", pools("[\"10.66.0.0/24\"]"));
    let got = addresses(&a.result.expect("by CIDR"))[0].to_string();
    assert!(got.starts_with("10.66.0."), "{got}");
    attached.push(("cidr", a.container));
    let before = cluster.handles().len();

    let twice = ips("[\"10.65.0.1\", \"10.65.0.2\"]");
    for (annotations, code, parts) in [
        (
            twice,
            7,
            &[
                "cannot have more than one IPv4 address for \"cni.projectcalico.org/ipAddrs\" annotation",
            ][..],
        ),
        (
            ips("[]"),
            7,
            &["annotation \"cni.projectcalico.org/ipAddrs\" specified but empty"],
        ),
        (ips("[\"x\"]"), 7, &["invalid IP format: x"]),
        (
            ips("[\"10.65.3.7\"]"),
            101,
            &["10.65.3.7", "already assigned"],
        ),
        (ips("[\"192.0.2.9\"]"), 101, &["192.0.2.9", "pool"]),
        (
            pools("[\"nowhere\"]"),
            101,
            &["failed to request IPv4 addresses", "nowhere"],
        ),
    ] {
        let shown = annotations.to_string();
        let a = ask(&cluster, &node, "wrong", annotations);
        let e = a.result.expect_err(&shown);
        assert_eq!(e.code, code, "{shown}: {e:?}");
        assert!(parts.iter().all(|p| e.msg.contains(p)), "{shown}: {e:?}");
        assert_eq!(cluster.handles().len(), before, "{shown}: nothing is kept");
        node.del_pod(&a.container, "wrong")
            .expect("as a runtime does");
    }
    for (pod, container) in &attached {
        node.del_pod(container, pod).expect("detached");
    }
    cluster.nothing_left(&node);

    let both = json!({
        "cni.projectcalico.org/ipAddrs": "[\"10.65.3.7\"]",
        "cni.projectcalico.org/ipAddrsNoIpam": "[\"192.0.2.9\"]",
    });
    let e = ask(&cluster, &node, "both", both).result.expect_err("both");
    assert!(e.msg.starts_with("can't have both annotations"), "{e:?}");
    let off = ask(&cluster, &node, "own", no_ipam("[\"192.0.2.9\"]"));
    let e = off.result.expect_err("it must be switched on");
    assert_eq!(e.msg, "requested feature is not enabled: ip_addrs_no_ipam");
    let mut conf = node.conf("1.0.0");
    conf["feature_control"] = json!({"ip_addrs_no_ipam": true});
    let mut call = Call::new("ADD", &off.container, conf).pod("default", "own");
    let got = node.call(&call).expect("switched on");
    assert_eq!(addresses(&got), [ip("192.0.2.9")]);
    assert_eq!(cluster.handles(), [""; 0], "nobody's to manage");
    call.command = "DEL";
    node.call(&call).expect("detached");
    cluster.nothing_left(&node);
}

#[test]
fn a_pool_that_is_full_and_one_by_namespace() {
    let cluster = Cluster::new();
    let node = cluster.started(1);
    pool(&cluster, "small", "10.66.0.0/30", 30);
    cluster.apply(json!({
        "apiVersion": "v1", "kind": "Namespace",
        "metadata": {"name": "team", "annotations": {"cni.projectcalico.org/ipv4pools": "[\"small\"]"}},
    }));
    let add = |pod: &str| {
        cluster.pod_in("team", pod, &node, json!({}), json!({}));
        let c = cluster.container();
        let r = node.call(&Call::new("ADD", &c, node.conf("1.0.0")).pod("team", pod));
        (c, r)
    };
    let del = |pod: &str, c: &Container| {
        node.call(&Call::new("DEL", c, node.conf("1.0.0")).pod("team", pod))
            .expect("detached");
    };
    let mut held = Vec::new();
    for i in 0..4 {
        let (c, r) = add(&format!("p{i}"));
        let got = addresses(&r.expect("room"))[0].to_string();
        assert!(got.starts_with("10.66.0."), "{got}");
        held.push(c);
    }
    let (c, r) = add("p4");
    let e = r.expect_err("full");
    assert_eq!(e.code, 101);
    assert!(
        e.msg.starts_with("failed to request IPv4 addresses: "),
        "{e:?}"
    );
    assert_eq!(cluster.handles().len(), 4);
    assert_eq!(node.pod_links().len(), 4);
    let outside = cluster.attached(&node, "outside", json!({}));
    assert!(
        outside.addresses[0].to_string().starts_with("10.65."),
        "other namespaces go on"
    );
    del("p4", &c);
    del("p0", &held[0]);
    // What is released rests for no time by default, and is all there is.
    let (again, r) = add("p5");
    assert!(
        addresses(&r.expect("one is free"))[0]
            .to_string()
            .starts_with("10.66.0.")
    );
    del("p5", &again);
    for (i, c) in held.iter().enumerate().skip(1) {
        del(&format!("p{i}"), c);
    }
    node.del_pod(&outside.container, "outside")
        .expect("detached");
    cluster.nothing_left(&node);
}

#[test]
fn who_is_not_there() {
    let cluster = Cluster::new();
    let node = cluster.started(1);
    let other = cluster.node(2);
    let c = cluster.container();
    let e = node.add_pod(&c, "ghost").expect_err("no pod");
    assert_eq!(e.msg, "pods \"ghost\" not found in namespace \"default\"");
    let mut call = Call::new("ADD", &c, node.conf("1.0.0")).pod("nowhere", "ghost");
    let e = node.call(&call).expect_err("no namespace");
    assert_eq!(e.msg, "namespaces \"nowhere\" not found");
    cluster.pod("far", &other, json!({}), json!({}));
    let e = node.add_pod(&c, "far").expect_err("elsewhere");
    assert!(
        e.msg.contains("\"n2\"") && e.msg.contains("\"n1\""),
        "{e:?}"
    );
    call.command = "DEL";
    assert_eq!(node.call(&call), Ok(Value::Null), "nothing was there");
    assert_eq!(node.del_pod(&c, "ghost"), Ok(Value::Null));
    cluster.nothing_left(&node);
}

#[test]
fn the_pod_says_what_it_has() {
    let cluster = Cluster::new();
    let node = cluster.started(1);
    let pod = cluster.attached(&node, "web", json!({"app": "web"}));
    let address = format!("{}/32", pod.addresses[0]);
    let note = |k| cluster.annotation("web", k);
    assert_eq!(note("podIP").as_deref(), Some(address.as_str()));
    assert_eq!(note("podIPs").as_deref(), Some(address.as_str()));
    assert_eq!(note("containerID"), Some(pod.container.id.clone()));
    let endpoint = cluster.get(ResourceKind::WorkloadEndpoint, "default", "n1-k8s-web-eth0");
    let Some(api::Resource::WorkloadEndpoint(w)) = endpoint else {
        panic!("an endpoint follows from the pod");
    };
    assert_eq!(w.spec.interface_name, pod.host_interface);
    assert_eq!(w.spec.ip_networks, [address]);
    assert_eq!(w.metadata.labels["app"], "web");
    node.del_pod(&pod.container, "web").expect("detached");
    assert_eq!(note("podIP").as_deref(), Some(""));
    assert_eq!(note("podIPs").as_deref(), Some(""));
    cluster.nothing_left(&node);
    cluster.delete(ResourceKind::Pod, "default", "web");
    assert_eq!(
        node.del_pod(&pod.container, "web"),
        Ok(Value::Null),
        "late, and no pod"
    );
}

#[test]
fn an_older_container_goes_alone() {
    let cluster = Cluster::new();
    let mut node = cluster.started(1);
    let old = cluster.attached(&node, "web", json!({}));
    // The sandbox died and a new one was made before anybody cleaned up.
    let new = cluster.container();
    let result = node.add_pod(&new, "web").expect("its successor");
    let new = Attached::new("web", new, &result);
    assert_ne!(old.addresses, new.addresses);
    let _echo = Echo::start(new.ns(), 7000);
    for restarted in [false, true] {
        if restarted {
            node.kill();
            node.start();
        }
        node.del_pod(&old.container, "web").expect("the old one");
        let check = Call::new("CHECK", &new.container, node.conf("1.0.0"))
            .pod("default", "web")
            .previous(&result);
        assert_eq!(node.call(&check), Ok(Value::Null));
        assert!(reaches(&node.ns, new.at(7000), "still here"));
        assert_eq!(
            cluster.handles(),
            [format!("{NETWORK}.{}", new.container.id)]
        );
    }
    node.del_pod(&new.container, "web").expect("detached");
    cluster.nothing_left(&node);
}

#[test]
fn an_older_containers_del_during_the_newer_ones_add() {
    let cluster = Cluster::new();
    let node = cluster.started(1);
    let mut old = cluster.attached(&node, "web", json!({})).container;
    for _ in 0..8 {
        let new = cluster.container();
        let result = std::thread::scope(|s| {
            let del = s.spawn(|| node.del_pod(&old, "web"));
            let result = node.add_pod(&new, "web").expect("attached");
            del.join().expect("no panic").expect("detached");
            result
        });
        let check = Call::new("CHECK", &new, node.conf("1.0.0"))
            .pod("default", "web")
            .previous(&result);
        assert_eq!(node.call(&check), Ok(Value::Null));
        assert_eq!(cluster.handles(), [format!("{NETWORK}.{}", new.id)]);
        old = new;
    }
    node.del_pod(&old, "web").expect("detached");
    cluster.nothing_left(&node);
}
