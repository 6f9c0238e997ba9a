//! What a packet costs that has to pass ten, a hundred, a thousand and ten thousand rules.
//!
//! Promises: one client and one server pod for each count, on one node, in turns; the rule that lets the
//! client in is the last, and every rule before it names another source.

use crate::Setting;
use crate::cluster::{Cluster, Pod};
use crate::measure::path::{reach, turns};
use crate::objects;
use crate::report::{Row, Section};
use crate::say;
use crate::stats::{Samples, number};
use crate::traffic::{Ends, Kind};
use anyhow::Result;
use api::ResourceKind;
use serde_json::{Value, json};
use std::net::Ipv4Addr;
use std::time::Duration;

const COUNTS: [u32; 4] = [10, 100, 1000, 10_000];
/// A policy may have 1,024 rules; the counts divide by these.
const PER_POLICY: u32 = 1000;
const PORT: u16 = 5201;
const AIM: f64 = 0.95;

/// Measures.
///
/// # Errors
/// When a connection fails that should not.
pub(crate) fn run(setting: &Setting) -> Result<Section> {
    let mut cluster = Cluster::start(&setting.manx, &setting.dir, 1)?;
    for count in COUNTS {
        for policy in policies(count) {
            cluster.store.put(ResourceKind::NetworkPolicy, &policy)?;
        }
    }
    let client = cluster.attach(0, "client", &[("app", "client")])?;
    let mut servers: Vec<Pod> = Vec::new();
    for count in COUNTS {
        let rules = count.to_string();
        servers.push(cluster.attach(0, &format!("rules-{count}"), &[("rules", &rules)])?);
    }
    for s in &servers {
        reach(&client.sandbox.ns, &s.sandbox.ns, s.addr)?;
    }
    say!("flat: {} rules stand", COUNTS.iter().sum::<u32>());
    let ends: Vec<Ends<'_>> = servers
        .iter()
        .map(|s| Ends {
            client: &client.sandbox.ns,
            server: &s.sandbox.ns,
            addr: s.addr,
            port: PORT,
        })
        .collect();
    let mut out = Section::new("Rules that a packet must pass");
    out.note(
        "Each rule but the last allows another source address; the last allows the client. The column of \
         the peer is the same with 10 rules. An established connection is accepted before any rule; the \
         rows of connections are where rules are looked at.",
    );
    let time = Duration::from_millis(if setting.quick { 150 } else { 250 });
    for kind in Kind::ALL {
        let runs = turns(&ends, setting.rounds(16, 4), |e| e.slice(kind, time))?;
        rows(&mut out, kind, &runs);
    }
    drop(cluster);
    Ok(out)
}

fn rows(out: &mut Section, kind: Kind, runs: &[Vec<f64>]) {
    let spread = |side: usize| {
        let s = Samples::new(runs[side].clone());
        let [median, min, max] = [s.median(), s.min(), s.max()].map(number);
        format!("{median} {} ({min} / {max})", kind.unit())
    };
    for (side, count) in COUNTS.iter().enumerate().skip(1) {
        let pairs = runs[side].iter().zip(&runs[0]);
        let figure = Samples::new(pairs.map(|(a, b)| a / b).collect()).median();
        out.rows.push(Row {
            what: format!("{}, {count} rules", kind.name()),
            aim: format!("at least {AIM} of 10 rules"),
            ours: spread(side),
            peer: spread(0),
            figure,
            unit: "",
            met: Some(figure >= AIM),
        });
    }
}

/// Policies of `count` rules in all, in order, that only pods labelled with the count have.
fn policies(count: u32) -> Vec<Value> {
    let one = |first: u32| {
        let rules: Vec<Value> = (first..(first + PER_POLICY).min(count))
            .map(|n| {
                // Sources that nobody has, none beside another.
                let stranger = Ipv4Addr::from(0x0b00_0000 + 2 * n);
                match n + 1 == count {
                    true => json!({"action": "Allow", "source": {"nets": [objects::POOL]}}),
                    false => {
                        json!({"action": "Allow", "source": {"nets": [format!("{stranger}/32")]}})
                    }
                }
            })
            .collect();
        let name = format!("rules-{count}-{first:05}");
        json!({
            "apiVersion": "projectcalico.org/v3", "kind": "NetworkPolicy",
            "metadata": {"name": name, "namespace": "default", "uid": objects::uid(&name),
                "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"tier": "default", "order": first, "types": ["Ingress"],
                "selector": format!("rules == '{count}'"), "ingress": rules},
        })
    };
    (0..count).step_by(PER_POLICY as usize).map(one).collect()
}
