//! A change that cuts is taken back by an agent when nobody confirms it.

use crate::probe::*;
use crate::support::*;
use api::ResourceKind;
use serde_json::json;
use std::io::Write;
use std::process::{Command, Stdio};

#[test]
fn what_nobody_confirms_mends_itself() {
    let cluster = Cluster::new();
    let node = cluster.started(1);
    let server = cluster.attached(&node, "server", json!({}));
    let _served = Echo::start(server.ns(), 7000);
    let client = cluster.attached(&node, "client", json!({}));
    soon(client.ns(), server.at(7000), "open at first");
    let cut = json!({
        "apiVersion": "projectcalico.org/v3", "kind": "GlobalNetworkPolicy",
        "metadata": {"name": "cut"}, "spec": {"selector": "all()", "types": ["Ingress", "Egress"]},
    });
    let mut manx = Command::new(MANX)
        .args(["apply", "-f", "-", "--confirm", "3s"])
        .env("DATASTORE_TYPE", "embedded")
        .env("MANX_STORE", cluster.dir.path().join("store.db"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("it runs");
    let mut input = manx.stdin.take().expect("piped");
    input.write_all(cut.to_string().as_bytes()).expect("read");
    drop(input);
    let out = manx.wait_with_output().expect("it ends");
    let said = String::from_utf8_lossy(&out.stdout);
    assert!(
        out.status.success() && said.contains("manx confirm "),
        "{said}"
    );
    until("cut off", || !reaches(client.ns(), server.at(7000), "cut"));
    let there = || {
        cluster
            .get(ResourceKind::GlobalNetworkPolicy, "", "cut")
            .is_some()
    };
    until("taken back", || !there());
    soon(client.ns(), server.at(7000), "mended");
}
