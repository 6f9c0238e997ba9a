//! `manx lab up` with three nodes, and six pods on them.
//!
//! Promises: the commands are those that a user types, timed from before each process exists to after
//! its end; pods are ready when `apply` returns.

use crate::Setting;
use crate::measure::limit_row;
use crate::report::Section;
use crate::say;
use crate::stats::Samples;
use anyhow::{Context, Result, ensure};
use serde_json::json;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const PODS: usize = 6;
const AIM_S: f64 = 2.0;

/// Measures.
///
/// # Errors
/// When a command fails, with its words.
pub(crate) fn run(setting: &Setting) -> Result<Section> {
    let mut out = Section::new("The lab");
    let file = setting.dir.join("pods.yaml");
    std::fs::write(&file, pods())?;
    let (mut up, mut apply, mut whole, mut down) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for n in 0..setting.rounds(7, 3) {
        let name = format!("bench-{n}");
        let lab = |args: &[&str]| command(setting, &name, args);
        let done = (|| {
            let a = lab(&["up", "--nodes", "3"])?;
            let b = lab(&["apply", "-f", &file.display().to_string()])?;
            Ok::<_, anyhow::Error>((a, b))
        })();
        // Also what failed half way is ended.
        let end = lab(&["down"]);
        let (a, b) = done?;
        up.push(a);
        apply.push(b);
        whole.push(a + b);
        down.push(end?);
    }
    say!("lab: done");
    let mut row = |what: &str, times: &[Duration], aim: Option<f64>| {
        let s = Samples::new(times.iter().map(Duration::as_secs_f64).collect());
        out.rows.push(limit_row(what, &s, s.median(), "s", aim));
    };
    row(
        "`lab up --nodes 3`, then `lab apply` of 6 pods until they are ready",
        &whole,
        Some(AIM_S),
    );
    row("of that `lab up`", &up, None);
    row("of that `lab apply`", &apply, None);
    row("`lab down`", &down, None);
    out.note("Each pod is attached by the conflist as it is in the lab: manx, and `portmap` and `bandwidth` \
              where they are installed.");
    Ok(out)
}

fn command(setting: &Setting, name: &str, args: &[&str]) -> Result<Duration> {
    let began = Instant::now();
    let out = Command::new(&setting.manx)
        .args(["lab", "--name", name])
        .args(args)
        .env("MANX_LAB_DIR", lab_dir(&setting.dir))
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("start {}", setting.manx.display()))?;
    let took = began.elapsed();
    let words = String::from_utf8_lossy(&out.stderr);
    ensure!(
        out.status.success(),
        "manx lab {}: {}: {}",
        args.join(" "),
        out.status,
        words.trim()
    );
    Ok(took)
}

fn lab_dir(dir: &Path) -> std::path::PathBuf {
    // Short, for the sockets in it.
    dir.join("l")
}

fn pods() -> String {
    let pod = |n: usize| {
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": format!("pod-{n}"), "namespace": "default", "labels": {"app": "web"}},
            "spec": {"containers": [{"name": "web", "image": "web", "ports": [{"containerPort": 80}]}]},
        })
        .to_string()
    };
    (0..PODS).map(pod).collect::<Vec<_>>().join("\n---\n")
}
