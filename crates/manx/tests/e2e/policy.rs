//! When ADD returns, the first packet meets the rules.

use crate::probe::*;
use crate::support::*;
use serde_json::json;

#[test]
fn the_first_packet_is_held_or_let_through() {
    let cluster = Cluster::new();
    let node = cluster.started(1);
    cluster.policy(
        "deny",
        json!({"order": 2000, "selector": "all()", "types": ["Ingress", "Egress"]}),
    );
    let server = cluster.attached(&node, "server", json!({"role": "server"}));
    let served = Echo::start(server.ns(), 7000);
    let client = cluster.attached(&node, "client", json!({"role": "client"}));
    is_shut(client.ns(), &node, server.at(7000), &served, "before");
    cluster.policy(
        "serve",
        json!({
            "order": 10, "selector": "role == 'server'", "types": ["Ingress", "Egress"],
            "ingress": [{"action": "Allow", "source": {"selector": "role == 'client'"}}],
            "egress": [{"action": "Allow", "destination": {"selector": "role == 'client'"}}],
        }),
    );
    cluster.policy(
        "ask",
        json!({
            "order": 10, "selector": "role == 'client'", "types": ["Ingress", "Egress"],
            "ingress": [{"action": "Allow", "source": {"selector": "role == 'server'"}}],
            "egress": [{"action": "Allow"}],
        }),
    );
    soon(client.ns(), server.at(7000), "the policies are in force");

    let mut pods = Vec::new();
    for i in 0..6 {
        let c = cluster.container();
        let role = if i % 2 == 0 { "client" } else { "stranger" };
        let pod = format!("p{i}");
        cluster.pod(&pod, &node, json!({"role": role}), json!({}));
        // It listens before it is reachable, so that not even the first packet is missed.
        let inside = Echo::start(&c.ns, 7000);
        let result = node.add_pod(&c, &pod).expect("attached");
        let new = Attached::new(&pod, c, &result);
        if i % 2 == 0 {
            // Which direction comes first alternates; nobody tries twice.
            let to = reaches(new.ns(), server.at(7000), &format!("to {pod}"));
            let from = reaches(server.ns(), new.at(7000), &format!("from {pod}"));
            assert!(to && from, "{pod}: to the server {to}, from it {from}");
        } else {
            is_shut(server.ns(), &node, new.at(7000), &inside, "to a stranger");
            is_shut(new.ns(), &node, server.at(7000), &served, "from a stranger");
        }
        pods.push(new);
    }
    for p in pods.iter().chain([&server, &client]) {
        node.del_pod(&p.container, &p.name).expect("detached");
    }
    cluster.nothing_left(&node);
}

/// An address that comes back must not come with its earlier owner's rights or connections.
#[test]
fn an_address_comes_back_without_its_rights() {
    let cluster = Cluster::new();
    let node = cluster.started(1);
    cluster.policy(
        "serve",
        json!({
            "selector": "role == 'server'",
            "ingress": [{"action": "Allow", "source": {"selector": "role == 'client'"}}],
        }),
    );
    let server = cluster.attached(&node, "server", json!({"role": "server"}));
    let served = Echo::start(server.ns(), 7000);
    let ask = json!({"cni.projectcalico.org/ipAddrs": "[\"10.65.9.9\"]"});
    for i in 0..3 {
        let role = if i % 2 == 0 { "client" } else { "stranger" };
        let pod = format!("{role}{i}");
        cluster.pod(&pod, &node, json!({"role": role}), ask.clone());
        let c = cluster.container();
        let result = node.add_pod(&c, &pod).expect("the address is free again");
        let new = Attached::new(&pod, c, &result);
        let from = new.at(40000);
        let to = server.at(7000);
        // The same ports each time: an entry of connection tracking that stayed would match.
        let socket = new
            .ns()
            .run(move || {
                let s = std::net::UdpSocket::bind(from)?;
                s.connect(to).map(|()| s)
            })
            .expect("enter")
            .expect("a socket");
        if role == "client" {
            let patience = std::time::Duration::from_secs(5);
            assert!(exchange(&socket, &format!("as {pod}"), patience), "{pod}");
        } else {
            let _ = socket.send(b"as a stranger");
            assert!(reaches(&node.ns, to, "marker"));
            assert!(!served.saw("as a stranger"));
        }
        node.del_pod(&new.container, &pod).expect("detached");
    }
    node.del_pod(&server.container, "server").expect("detached");
    cluster.nothing_left(&node);
}
