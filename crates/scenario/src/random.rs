//! Random scenarios: clusters with awkward policy of every kind, for comparing answers.
//!
//! Promises: the same seed gives the same scenario; every object is one that `apply` takes;
//! expectations are the oracle's; what fails can be made smaller without being made another
//! failure.
//!
//! Never: reads a clock or a source of randomness; knows who is right.

mod dice;
mod policy;
mod shrink;

pub use dice::Dice;
pub use shrink::shrink;

use crate::check::Check;
use crate::cluster::{Cluster, resource};
use crate::offline::{self, Judge};
use crate::read::{Scenario, parse_made};
use policy::Words;
use serde_json::{Value, json};
use verdict::Verdict;

/// What a random scenario may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct With {
    /// Host endpoints and policy for them.
    pub hosts: bool,
    /// At most so many policies.
    pub policies: usize,
    /// So many flows are asked for.
    pub flows: usize,
}

impl Default for With {
    fn default() -> Self {
        Self {
            hosts: false,
            policies: 6,
            flows: 12,
        }
    }
}

/// A pod that every random scenario has: namespace, name, node, account, named ports.
type Fixed = (
    &'static str,
    &'static str,
    u8,
    &'static str,
    &'static [(&'static str, u16, &'static str)],
);

/// The pods are the same in each, so that one cluster serves many; only their labels differ.
const PODS: &[Fixed] = &[
    (
        "ns-a",
        "p0",
        1,
        "default",
        &[("http", 80, "TCP"), ("dns", 53, "UDP")],
    ),
    ("ns-a", "p1", 2, "builder", &[("http", 8080, "TCP")]),
    (
        "ns-b",
        "p2",
        1,
        "builder",
        &[("http", 80, "UDP"), ("sig", 7, "SCTP")],
    ),
    ("ns-b", "p3", 2, "default", &[]),
    (
        "ns-c",
        "p4",
        1,
        "nobody",
        &[("http", 8080, "TCP"), ("http2", 80, "TCP")],
    ),
];

/// Namespaces of the pods.
pub(crate) const NAMESPACES: [&str; 3] = ["ns-a", "ns-b", "ns-c"];
/// The machine outside.
const OUTSIDE: &str = "outside";
/// Its addresses.
pub(crate) const OUTSIDE_ADDRESSES: [&str; 2] = ["203.0.113.7", "fd00:99::7"];

/// The address of a pod, by its number.
pub(crate) fn pod_address(pod: usize, v6: bool) -> String {
    let node = PODS[pod].2;
    if v6 {
        format!("fd00:10:244::{node}:{:x}", 0x10 + pod)
    } else {
        format!("10.244.{node}.{}", 10 + pod)
    }
}

/// Objects whose identity is the same in each random scenario: what a standing cluster needs.
pub fn base() -> Value {
    let pods: Vec<Value> = PODS
        .iter()
        .enumerate()
        .map(|(i, (namespace, name, node, account, ports))| {
            let addresses = json!([pod_address(i, false), pod_address(i, true)]);
            let ports: Vec<Value> = ports
                .iter()
                .map(
                    |(n, p, protocol)| json!({"name": n, "containerPort": p, "protocol": protocol}),
                )
                .collect();
            json!({
                "namespace": namespace, "name": name, "node": format!("node-{node}"),
                "serviceAccount": account, "ports": ports, "labels": {},
                "annotations": {"cni.projectcalico.org/ipAddrs": addresses.to_string()},
            })
        })
        .collect();
    let namespace =
        |n: &&str| json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": n}});
    json!({
        "name": "random",
        "nodes": 2,
        "families": ["ipv4", "ipv6"],
        "hosts": [{"name": OUTSIDE, "addresses": OUTSIDE_ADDRESSES}],
        "objects": NAMESPACES.iter().map(namespace).collect::<Vec<_>>(),
        "pods": pods,
        "steps": [],
    })
}

/// A whole scenario of a seed. Its expectations all say `allow`: [`judge`] tells what is so.
pub fn case(seed: u64, with: With) -> Value {
    let mut dice = Dice::new(seed);
    let mut doc = base();
    doc["name"] = json!(format!("random {seed}"));
    if let Some(pods) = doc["pods"].as_array_mut() {
        for p in pods {
            p["labels"] = labels(&mut dice);
        }
    }
    let mut objects = Vec::new();
    for n in NAMESPACES {
        objects.push(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": n, "labels": labels(&mut dice)}}));
    }
    doc["objects"] = Value::Array(objects);
    let mut apply = Vec::new();
    let mut words = Words::new(&mut dice, with.hosts);
    let want = 1 + words.dice.below(with.policies);
    let mut tries = 0;
    // What is refused is not a scenario's: another takes its place.
    let keep = |objects: Vec<Value>, apply: &mut Vec<Value>| {
        let good = |o: &Value| resource(o).is_ok_and(usable);
        apply.extend(objects.into_iter().filter(good));
    };
    let context = words.context();
    keep(context, &mut apply);
    let before = apply.len();
    while apply.len() < before + want && tries < 200 {
        tries += 1;
        let one = words.policy(apply.len() - before);
        keep(vec![one], &mut apply);
    }
    let services = words.services.clone();
    let expect: Vec<Value> = (0..with.flows)
        .map(|_| flow(words.dice, &services, with.hosts))
        .collect();
    doc["steps"] = json!([{"name": "case", "apply": apply, "expect": expect}]);
    doc
}

fn usable(mut r: api::Resource) -> bool {
    api::default(&mut r);
    api::validate(&r).is_ok() && api::updates(&r).is_ok()
}

fn labels(dice: &mut Dice) -> Value {
    let mut out = serde_json::Map::new();
    for key in policy::KEYS {
        if dice.one_in(2) {
            out.insert((*key).to_owned(), json!(dice.pick(policy::VALUES)));
        }
    }
    Value::Object(out)
}

fn flow(dice: &mut Dice, services: &[String], hosts: bool) -> Value {
    let pod = |dice: &mut Dice| {
        let p = dice.pick(PODS);
        format!("{}/{}", p.0, p.1)
    };
    let node = |dice: &mut Dice| format!("node/node-{}", 1 + dice.below(2));
    let outside = format!("host/{OUTSIDE}");
    // Host endpoints are about nodes; else most is about pods.
    let of_nodes = if hosts { 3 } else { 8 };
    let from = match dice.below(of_nodes) {
        0 => node(dice),
        1 => outside.clone(),
        _ => pod(dice),
    };
    let to = loop {
        let to = match dice.below(of_nodes + 2) {
            0 => node(dice),
            1 if !from.starts_with("host/") => outside.clone(),
            2 if !services.is_empty() && !from.starts_with("host/") => {
                format!("service/{}", dice.pick(services))
            }
            _ => pod(dice),
        };
        if to != from {
            break to;
        }
    };
    match dice.below(8) {
        0 => json!({"from": from, "to": to, "protocol": "ICMP", "verdict": "allow"}),
        n => {
            let protocol = match n {
                1 | 2 => "UDP",
                3 => "SCTP",
                _ => "TCP",
            };
            // Services have this port.
            let port = match to.starts_with("service/") && !dice.one_in(4) {
                true => 80,
                false => *dice.pick(&[80, 8080, 53, 7, 443, 5000]),
            };
            json!({"from": from, "to": to, "protocol": protocol, "port": port, "verdict": "allow"})
        }
    }
}

/// A scenario read, its cluster after all steps, and its checks with the oracle's answers. What has no
/// one answer (a service whose backends differ) is left out.
///
/// # Errors
/// What makes it no scenario.
pub fn judge(doc: &Value) -> Result<(Scenario, Cluster, Vec<Check>), String> {
    let scenario = parse_made(&text(doc)).map_err(|e| e.to_string())?;
    let mut cluster = offline::start(&scenario).map_err(|e| e.to_string())?;
    let mut checks = Vec::new();
    for step in &scenario.steps {
        offline::change(&mut cluster, step).map_err(|e| e.to_string())?;
        checks = step.checks.clone();
    }
    let judge = Judge::new(&cluster);
    let mut judged = Vec::new();
    for mut c in checks {
        let (_, answer) = judge.explain(&c.flow)?;
        c.allow = match judge.verdict(&answer).0 {
            Verdict::Allow => true,
            Verdict::Deny => false,
            Verdict::Mixed => continue,
        };
        judged.push(c);
    }
    Ok((scenario, cluster, judged))
}

/// A scenario with the expectation of one check alone, in all its families.
pub fn only(doc: &Value, check: &Check) -> Value {
    let mut out = doc.clone();
    if let Some(last) = out["steps"].as_array_mut().and_then(|s| s.last_mut()) {
        last["expect"] = json!([expectation(check)]);
    }
    out
}

fn expectation(check: &Check) -> Value {
    let flow = &check.flow;
    let mut expect = json!({
        "from": flow.from.to_string(),
        "to": flow.to.to_string(),
        "protocol": flow.port.protocol.to_string(),
        "verdict": if check.allow { "allow" } else { "deny" },
    });
    if flow.port.number != 0 {
        expect["port"] = json!(flow.port.number);
    }
    expect
}

/// Whether a cluster that stands as [`base`] says can be brought to this scenario without
/// making a pod anew.
pub fn fits_base(doc: &Value) -> bool {
    let bare = |d: &Value| {
        let mut pods = d["pods"].clone();
        for p in pods.as_array_mut().into_iter().flatten() {
            p["labels"] = json!({});
        }
        pods
    };
    let namespaces = |d: &Value| d["objects"].as_array().map_or(0, Vec::len);
    let base = base();
    bare(doc) == bare(&base)
        && namespaces(doc) == namespaces(&base)
        && doc["hosts"] == base["hosts"]
}

/// A scenario with one expectation, as a file says it: what is left to look at after shrinking.
pub fn with_one_check(doc: &Value, check: &Check) -> Value {
    let mut out = only(doc, check);
    let v6 = check.flow.family == Some(crate::FamilyName::V6);
    out["families"] = json!([if v6 { "ipv6" } else { "ipv4" }]);
    if let Some(pods) = out["pods"].as_array_mut() {
        for p in pods {
            // A cluster of one family has no use for the other's address.
            let name = p["name"].clone();
            let Some(i) = PODS.iter().position(|q| name == q.1) else {
                continue;
            };
            let own = json!([pod_address(i, v6)]).to_string();
            p["annotations"]["cni.projectcalico.org/ipAddrs"] = json!(own);
        }
    }
    out
}

/// As a file.
pub fn text(doc: &Value) -> String {
    api::yaml(doc)
}
