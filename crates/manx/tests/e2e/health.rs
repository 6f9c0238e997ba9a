//! What an agent says of itself, and when it refuses to work.

use crate::support::*;
use serde_json::json;

#[test]
fn ready_when_it_is() {
    let cluster = Cluster::new();
    let mut node = cluster.node(1);
    // While somebody else writes, a start can read and not write.
    let mut other = rusqlite::Connection::open(cluster.dir.path().join("store.db")).expect("it");
    let writing = other
        .transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)
        .expect("nobody writes");
    let mut command = node.command();
    node.spawn(&mut command);
    let mut said = String::new();
    until("it answers", || match node.http(9099, "/readiness") {
        Some((status, text)) => {
            assert_eq!(status, 503, "{text}");
            said = text;
            true
        }
        None => false,
    });
    assert!(
        said.contains("felix: not ready") && said.contains("datastore: not ready"),
        "{said}"
    );
    let (status, text) = node.http(9099, "/liveness").expect("it answers");
    assert_eq!(status, 200, "starting is no reason to kill it: {text}");
    drop(writing);
    until("ready", || {
        node.http(9099, "/readiness").is_some_and(|(s, _)| s == 200)
    });
    node.ready();

    let pod = cluster.attached(&node, "web", json!({}));
    let mut metrics = String::new();
    until("metrics follow", || {
        metrics = node.http(9091, "/metrics").expect("it answers").1;
        metrics.contains("felix_active_local_endpoints 1")
    });
    for name in [
        "felix_calc_graph_updates_processed",
        "felix_calc_graph_update_time_seconds",
    ] {
        assert!(metrics.contains(name), "{name}: {metrics}");
    }
    node.del_pod(&pod.container, "web").expect("detached");
}

/// Runs an agent that must end by itself; what it said.
fn refused(node: &mut Node) -> String {
    let mut command = node.command();
    let mut agent = command.spawn().expect("it starts");
    let status = ended(&mut agent);
    assert!(!status.success(), "{}", node.log());
    node.log()
}

#[test]
fn one_agent_a_socket() {
    let cluster = Cluster::new();
    let node = cluster.started(1);
    let pod = cluster.attached(&node, "web", json!({}));
    let before = node.rules();
    let mut second = cluster.node(2);
    let socket = node.socket.display().to_string();
    second.set("MANX_SOCKET", &socket);
    let said = refused(&mut second);
    assert!(
        said.contains(&socket) && said.contains("another agent serves it"),
        "{said}"
    );
    assert!(!second.rules().contains("chain"), "it touched no kernel");
    assert_eq!(node.rules(), before);
    node.del_pod(&pod.container, "web")
        .expect("the first goes on");
}

#[test]
fn an_address_that_another_node_has() {
    let cluster = Cluster::new();
    let _first = cluster.started(1);
    let mut second = cluster.node(2);
    second.set("IP", "172.18.0.1/24");
    let said = refused(&mut second);
    assert!(
        said.contains("IPv4 address conflict: 172.18.0.1 is already in use by node n1"),
        "{said}"
    );
    assert!(!second.rules().contains("chain"), "it touched no kernel");
    second.forget_log();
    second.set("IP", "172.18.0.2/24");
    second.start();
}

#[test]
fn every_bad_value_at_once() {
    let cluster = Cluster::new();
    let mut node = cluster.node(1);
    for (key, value) in [
        ("IP", "fd00::1"),
        ("AS", "many"),
        ("CALICO_IPV4POOL_BLOCK_SIZE", "33"),
        ("DISABLE_NODE_IP_CHECK", "perhaps"),
        ("DATASTORE_TYPE", "zoo"),
        ("FELIX_VXLANPORT", "port"),
    ] {
        node.set(key, value);
    }
    let said = refused(&mut node);
    for part in [
        "IP=\"fd00::1\"",
        "AS=\"many\"",
        "BLOCK_SIZE=\"33\"",
        "\"perhaps\"",
        "\"zoo\"",
        "VXLANPort",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
}
