//! With the reference plugins: behind ours in a chain, and before ours for addresses.

use crate::probe::*;
use crate::support::*;
use serde_json::{Value, json};
use std::net::SocketAddr;

/// The next plugin of a chain: its own configuration, and the result so far.
fn next<'a>(container: &'a Container, kind: &str, result: &Value, runtime: Value) -> Call<'a> {
    let conf = json!({
        "cniVersion": "1.0.0", "name": NETWORK, "type": kind, "runtimeConfig": runtime,
    });
    Call::new("ADD", container, conf).previous(result)
}

#[test]
fn ports_of_the_host_and_bandwidth() {
    let cluster = Cluster::new();
    let node = cluster.started(1);
    let client = cluster.host("client", 200);
    let pod = cluster.attached(&node, "web", json!({}));
    let c = &pod.container;
    let call = Call::new("ADD", c, node.conf("1.0.0")).pod("default", "web");
    let first = node.call(&call).expect("attached");
    let ports =
        json!({"portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]});
    let mut portmap = next(c, "portmap", &first, ports);
    portmap.conf["snat"] = json!(true);
    let second = node.call(&portmap).expect("portmap takes our result");
    let rates = json!({"bandwidth": {"ingressRate": 8_000_000, "ingressBurst": 800_000,
        "egressRate": 8_000_000, "egressBurst": 800_000}});
    let mut bandwidth = next(c, "bandwidth", &second, rates);
    let third = node.call(&bandwidth).expect("bandwidth takes it too");
    assert_eq!(addresses(&third), addresses(&first));
    let qdisc = run(
        &node.ns,
        &format!("tc qdisc show dev {}", pod.host_interface),
    );
    assert!(qdisc.contains("tbf"), "{qdisc}");

    echo_streams(&c.ns, 80);
    let to = SocketAddr::new(ip("172.18.0.1"), 8080);
    let mut s = connect(&client, to).expect("the host's port leads to the pod");
    assert!(says(&mut s, "hello"));
    let check = Call::new("CHECK", c, node.conf("1.0.0"))
        .pod("default", "web")
        .previous(&third);
    assert_eq!(
        node.call(&check),
        Ok(Value::Null),
        "others' results are fine"
    );

    for call in [&mut bandwidth, &mut portmap] {
        call.command = "DEL";
        call.conf["prevResult"] = third.clone();
        node.call(call).expect("removed");
    }
    node.del_pod(c, "web").expect("detached");
    assert!(connect(&client, to).is_none(), "shut again");
    assert!(!run(&node.ns, "ip link").contains("bwp"));
    cluster.nothing_left(&node);
}

#[test]
fn addresses_from_host_local() {
    let cluster = Cluster::new();
    let node = cluster.started(1);
    let a = cluster.container();
    let conf = node.host_local(json!({"subnet": "10.70.0.0/24"}));
    let result = node
        .call(&Call::new("ADD", &a, conf.clone()))
        .expect("attached");
    let address = addresses(&result)[0];
    assert!(address.to_string().starts_with("10.70.0."), "{result}");
    assert_eq!(text(&result["ips"][0]["address"]), format!("{address}/32"));
    assert_eq!(node.host_local_files(), [address.to_string()]);
    let _echo = Echo::start(&a.ns, 7000);
    assert!(reaches(&node.ns, SocketAddr::new(address, 7000), "hello"));
    let check = Call::new("CHECK", &a, conf.clone()).previous(&result);
    assert_eq!(node.call(&check), Ok(Value::Null));
    assert_eq!(cluster.handles(), [""; 0], "none of ours");

    // When we fail, the address goes back.
    let taken = cluster.container();
    run(&taken.ns, "ip link add eth0 type veth peer name other");
    let e = node.call(&Call::new("ADD", &taken, conf.clone()));
    assert!(e.expect_err("taken").msg.contains("eth0"));
    assert_eq!(node.host_local_files(), [address.to_string()]);

    for _ in 0..2 {
        assert_eq!(
            node.call(&Call::new("DEL", &a, conf.clone())),
            Ok(Value::Null)
        );
        assert_eq!(node.host_local_files(), [""; 0]);
    }
    let mut late = Call::new("GC", &a, conf);
    late.conf["cniVersion"] = json!("1.1.0");
    late.conf["cni.dev/valid-attachments"] = json!([]);
    assert_eq!(
        node.call(&late),
        Ok(Value::Null),
        "it knows no GC, and has nothing to say"
    );
    cluster.nothing_left(&node);
}

#[test]
fn the_nodes_own_pod_range() {
    let cluster = Cluster::new();
    let node = cluster.started(1);
    let c = cluster.container();
    let conf = node.host_local(json!({"subnet": "usePodCidr"}));
    let add = Call::new("ADD", &c, conf.clone());
    let e = node.call(&add).expect_err("Kubernetes gave none");
    assert_eq!(e.msg, "no podCidr for node n1");
    cluster.apply(json!({
        "apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"},
        "spec": {"podCIDR": "10.71.1.0/24", "podCIDRs": ["10.71.1.0/24", "fd00:71::/112"]},
    }));
    let result = node.call(&add).expect("attached");
    let got = addresses(&result)[0].to_string();
    assert!(got.starts_with("10.71.1."), "{got}");
    // By the time of DEL the node's object may be gone.
    cluster.delete(api::ResourceKind::KubeNode, "", "n1");
    node.call(&Call::new("DEL", &c, conf)).expect("detached");
    assert_eq!(node.host_local_files(), [""; 0]);

    cluster.apply(json!({
        "apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"},
        "spec": {"podCIDR": "10.71.1.0/24", "podCIDRs": ["10.71.1.0/24", "fd00:71::/112"]},
    }));
    let both = node.host_local(json!({"ranges": [
        [{"subnet": "usePodCidr"}], [{"subnet": "usePodCidrIPv6"}],
    ]}));
    let result = node
        .call(&Call::new("ADD", &c, both.clone()))
        .expect("attached");
    let got: Vec<String> = addresses(&result).iter().map(ToString::to_string).collect();
    assert!(
        got[0].starts_with("10.71.1.") && got[1].starts_with("fd00:71::"),
        "{got:?}"
    );
    node.call(&Call::new("DEL", &c, both)).expect("detached");
    assert_eq!(node.host_local_files(), [""; 0]);
    cluster.nothing_left(&node);
}
