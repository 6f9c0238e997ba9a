//! The shapes of the benchmarks, one a process so that its memory is its own.
//!
//! `cargo run --release -p calc --example shapes -- markers|network-sets|isolation|label|namespace|policy`
#![allow(dead_code, reason = "the shapes are the benchmarks'")]

#[path = "../../../bench/src/shapes/mod.rs"]
mod shapes;

use shapes::Snapshot;
use std::io::Write as _;
use std::time::Duration;

fn field(name: &str) -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|l| l.starts_with(name));
    let kb: f64 = line
        .and_then(|l| l.split_whitespace().nth(1)?.parse().ok())
        .unwrap_or(f64::NAN);
    kb * 1024.0 / 1e6
}

fn say(what: &str) {
    writeln!(std::io::stdout(), "{what}").expect("standard output is open");
}

fn snapshot(s: Snapshot) {
    let (calc, delta, took) = s.run();
    let said = format!(
        "{} sets, {} policies, {} profiles, {} workloads",
        delta.sets.len(),
        delta.policies.len(),
        delta.profiles.len(),
        delta.workloads.len()
    );
    let with = field("VmRSS");
    drop(delta);
    say(&format!(
        "{}: {took:?}; {:.0} MB, {with:.0} with the delta, {:.0} at most; {said}",
        s.name(),
        field("VmRSS"),
        field("VmHWM")
    ));
    drop(calc);
}

fn single(what: &str, mut took: Vec<Duration>) {
    took.sort();
    say(&format!(
        "{what}: median {:?}, p99 {:?}, max {:?}",
        took[took.len() / 2],
        took[took.len() * 99 / 100],
        took[took.len() - 1]
    ));
}

fn main() {
    match std::env::args().nth(1).unwrap_or_default().as_str() {
        "markers" => snapshot(Snapshot::Markers),
        "network-sets" => snapshot(Snapshot::NetworkSets),
        "isolation" => snapshot(Snapshot::Isolation),
        "label" => single("label of an endpoint", shapes::label_changes(1000)),
        "namespace" => single("label of a namespace", shapes::namespace_changes(20)),
        "policy" => single("policy on all", shapes::policy_changes(20)),
        other => say(&format!("no shape {other:?}")),
    }
}
