//! Two nodes on one segment.

use crate::probe::*;
use crate::support::*;
use api::{Resource, ResourceKind};
use serde_json::{Value, json};
use std::net::{IpAddr, SocketAddr};

fn tunnel_addresses(cluster: &Cluster, node: &str) -> [String; 2] {
    match cluster.get(ResourceKind::Node, "", node) {
        Some(Resource::Node(n)) => [n.spec.ipv4_vxlan_tunnel_addr, n.spec.ipv6_vxlan_tunnel_addr],
        _ => Default::default(),
    }
}

fn encapsulate(cluster: &Cluster, mode: &str) {
    for pool in ["default-ipv4-ippool", "default-ipv6-ippool"] {
        let Some(Resource::IpPool(mut p)) = cluster.get(ResourceKind::IpPool, "", pool) else {
            panic!("the first agent made {pool}");
        };
        mode.clone_into(&mut p.spec.vxlan_mode);
        cluster
            .block_on(cluster.client.update(p.into()))
            .expect("it is changed");
    }
}

fn dual(node: &Node) -> Value {
    let mut conf = node.conf("1.0.0");
    conf["ipam"]["assign_ipv6"] = json!("true");
    conf
}

fn pod(cluster: &Cluster, node: &Node, name: &str) -> Attached {
    cluster.pod(name, node, json!({}), json!({}));
    let c = cluster.container();
    let call = Call::new("ADD", &c, dual(node)).pod("default", name);
    let result = node.call(&call).expect("attached");
    assert_eq!(result["ips"].as_array().map(Vec::len), Some(2), "{result}");
    Attached::new(name, c, &result)
}

fn node_result(node: &Node, call: &Call<'_>) -> Value {
    node.call(call).expect(call.command)
}

/// Both families, both ways, and which device the way leads through.
fn reach_each_other(nodes: [&Node; 2], pods: [&Attached; 2], device: &str) {
    let _echoes = pods.map(|p| Echo::start(p.ns(), 7000));
    for (from, to) in [(0, 1), (1, 0)] {
        for address in &pods[to].addresses {
            let way = || run(&nodes[from].ns, &format!("ip route get {address}"));
            let through = || way().contains(&format!("dev {device}"));
            until(&format!("{address} through {device}: {}", way()), through);
            let at = SocketAddr::new(*address, 7000);
            soon(
                pods[from].ns(),
                at,
                &format!("to {address} through {device}"),
            );
        }
    }
}

#[test]
fn dual_stack_and_the_tunnel_comes_and_goes() {
    let cluster = Cluster::dual();
    let (one, two) = (cluster.started(1), cluster.started(2));
    let (a, b) = (pod(&cluster, &one, "a"), pod(&cluster, &two, "b"));
    let families = |p: &Attached| p.addresses.iter().map(IpAddr::is_ipv4).collect::<Vec<_>>();
    assert_eq!(
        (families(&a), families(&b)),
        (vec![true, false], vec![true, false])
    );
    reach_each_other([&one, &two], [&a, &b], "eth0");
    let none = [String::new(), String::new()];
    assert_eq!(tunnel_addresses(&cluster, "n1"), none);

    encapsulate(&cluster, "Always");
    for node in [&one, &two] {
        until("a tunnel address of each family", || {
            tunnel_addresses(&cluster, &node.name)
                .iter()
                .all(|a| !a.is_empty())
        });
    }
    assert!(tunnel_addresses(&cluster, "n1")[0].starts_with("10.65."));
    assert!(tunnel_addresses(&cluster, "n1")[1].starts_with("fd00:65:"));
    assert_ne!(
        tunnel_addresses(&cluster, "n1"),
        tunnel_addresses(&cluster, "n2")
    );
    assert!(
        cluster
            .handles()
            .contains(&"vxlan-tunnel-addr-n1".to_owned())
    );
    reach_each_other([&one, &two], [&a, &b], "vxlan");
    cluster.ipam_check();

    encapsulate(&cluster, "Never");
    for node in [&one, &two] {
        until("no tunnel address", || {
            tunnel_addresses(&cluster, &node.name) == none
        });
        until("they are released", || {
            !cluster
                .handles()
                .iter()
                .any(|h| h.ends_with(&format!("addr-{}", node.name)))
        });
        until("no tunnel device", || {
            !run(&node.ns, "ip link").contains("vxlan")
        });
    }
    reach_each_other([&one, &two], [&a, &b], "eth0");
    let only = cluster.container();
    let mut conf = dual(&one);
    conf["ipam"]["assign_ipv4"] = json!("false");
    cluster.pod("six", &one, json!({}), json!({}));
    let call = Call::new("ADD", &only, conf.clone()).pod("default", "six");
    let result = node_result(&one, &call);
    let six = Attached::new("six", only, &result);
    assert!(matches!(six.addresses[..], [IpAddr::V6(_)]), "{result}");
    {
        let _echo = Echo::start(six.ns(), 7000);
        soon(b.ns(), six.at(7000), "to a pod of IPv6 alone");
    }
    let call = Call::new("DEL", &six.container, conf).pod("default", "six");
    node_result(&one, &call);
    for (node, p) in [(&one, &a), (&two, &b)] {
        let call = Call::new("DEL", &p.container, dual(node)).pod("default", &p.name);
        node.call(&call).expect("detached");
        node.no_pods();
    }
    cluster.nothing_left(&one);
}
