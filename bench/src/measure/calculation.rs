//! Policy calculation for clusters at the limits, without a kernel or a store.
//!
//! Promises: each shape is calculated in a process of its own, so that its memory is its own; memory
//! is what stays resident after the first delta was said and let go.

use crate::Setting;
use crate::measure::limit_row;
use crate::report::Section;
use crate::shapes::{self, Snapshot};
use crate::stats::Samples;
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::process::Command;
use std::time::Duration;

/// Names the shape that a process is to calculate, instead of measuring everything.
const CHILD: &str = "MANX_BENCH_SHAPE";

/// What a single change is, its aim, and how it is measured.
type Change = (
    &'static str,
    Option<f64>,
    &'static str,
    fn(u32) -> Vec<Duration>,
    u32,
);

const CHANGES: [Change; 3] = [
    (
        "one endpoint's label, 10,000 selectors active",
        Some(50.0),
        "us",
        shapes::label_changes,
        1000,
    ),
    (
        "a namespace's label, 100,000 endpoints inherit it, 100 selectors use it",
        Some(50.0),
        "ms",
        shapes::namespace_changes,
        20,
    ),
    (
        "a policy on all of 200 local endpoints that have 10,000 each",
        None,
        "ms",
        shapes::policy_changes,
        20,
    ),
];

/// Measures.
///
/// # Errors
/// When a process fails.
pub(crate) fn run(setting: &Setting) -> Result<Section> {
    let mut out = Section::new("Policy calculation at scale");
    out.note(
        "Resources in memory to the first delta, and single changes to theirs; time on the processor. \
         Each shape is calculated in a process of its own.",
    );
    for (i, shape) in Snapshot::ALL.into_iter().enumerate() {
        let (seconds, megabytes) = shape.aims();
        let rounds = setting.rounds(3, 1);
        let (mut took, mut memory) = (Vec::new(), Vec::new());
        for _ in 0..rounds {
            let said = child(i)?;
            took.extend(said["seconds"].as_f64());
            memory.extend(said["megabytes"].as_f64());
        }
        let (took, memory) = (Samples::new(took), Samples::new(memory));
        let name = shape.name();
        out.rows.push(limit_row(
            &format!("{name}: first delta"),
            &took,
            took.median(),
            "s",
            Some(seconds),
        ));
        out.rows.push(limit_row(
            &format!("{name}: memory after"),
            &memory,
            memory.median(),
            "MB",
            Some(megabytes),
        ));
    }
    for (what, aim, unit, measure, rounds) in CHANGES {
        let scale = if unit == "us" { 1e6 } else { 1e3 };
        let took = measure(rounds);
        let took = Samples::new(took.iter().map(|t| t.as_secs_f64() * scale).collect());
        out.rows
            .push(limit_row(what, &took, took.median(), unit, aim));
    }
    Ok(out)
}

fn child(shape: usize) -> Result<Value> {
    let exe = std::env::current_exe().context("find this program")?;
    let out = Command::new(exe)
        .env(CHILD, shape.to_string())
        .output()
        .context("start a calculation")?;
    ensure!(
        out.status.success(),
        "a calculation failed: {}",
        String::from_utf8_lossy(&out.stderr)
    );
    serde_json::from_slice(&out.stdout).context("read what a calculation said")
}

/// What this process is to say, if it is one that calculates a shape.
pub(crate) fn asked() -> Option<Value> {
    let i: usize = std::env::var(CHILD).ok()?.parse().ok()?;
    let (calc, delta, took) = Snapshot::ALL.get(i)?.run();
    drop(delta);
    let said = json!({"seconds": took.as_secs_f64(), "megabytes": resident()});
    drop(calc);
    Some(said)
}

/// Resident memory of this process.
fn resident() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|l| l.starts_with("VmRSS:"));
    let kb: Option<f64> = line.and_then(|l| l.split_whitespace().nth(1)?.parse().ok());
    kb.map_or(f64::NAN, |kb| kb * 1024.0 / 1e6)
}
