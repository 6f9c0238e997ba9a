//! `manx lab test`: a cluster for each scenario file.
//!
//! Promises: each expectation is checked with real packets until it holds or the deadline is
//! over; a file that cannot be used is reported with its line and the others still run; the
//! lab ends with the command, however that ends.
//!
//! Never: lets one scenario see another's cluster.

use crate::args::TestArgs;
use crate::command::handle::unexpected;
use crate::command::objects::{self, Objects};
use crate::command::probe::{Explainer, millis};
use crate::command::{Failure, note, say, up};
use crate::protocol::{Checked, Request, Response};
use scenario::Check;
use scenario::{Scenario, ScenarioError, Step};
use serde::Serialize;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

/// For the pods of a scenario to run or go.
const PODS: Duration = Duration::from_secs(30);

/// One file's result, as `--json` prints it.
#[derive(Debug, Serialize)]
struct Report {
    name: String,
    file: String,
    passed: usize,
    failed: usize,
    checks: Vec<CheckReport>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    /// It could not be run at all.
    #[serde(skip)]
    unusable: bool,
}

#[derive(Debug, Serialize)]
struct CheckReport {
    step: String,
    from: String,
    to: String,
    port: u16,
    protocol: String,
    expected: &'static str,
    got: String,
    why: String,
    #[serde(skip)]
    ok: bool,
    #[serde(skip)]
    micros: u64,
}

/// `manx lab test`.
pub(super) fn run(a: &TestArgs) -> Result<ExitCode, Failure> {
    let (mut passed, mut failed, mut unusable) = (0, 0, false);
    for (i, file) in a.files.iter().enumerate() {
        let report = match read(file) {
            Ok(s) => one(file, s, i, a),
            Err(e) => broken(file, String::new(), e.to_string()),
        };
        passed += report.passed;
        failed += report.failed;
        unusable |= report.unusable;
        if a.json {
            say!("{}", serde_json::to_string(&report)?);
        } else {
            print(&report);
        }
    }
    if !a.json {
        say!("{passed} passed, {failed} failed");
    }
    Ok(match (unusable, failed) {
        (true, _) => ExitCode::from(2),
        (false, 0) => ExitCode::SUCCESS,
        (false, _) => ExitCode::from(1),
    })
}

/// Reads a scenario file and what it names.
fn read(file: &Path) -> Result<Scenario, ScenarioError> {
    let name = file.display().to_string();
    let text = std::fs::read_to_string(file).map_err(|e| ScenarioError {
        file: name.clone(),
        line: 0,
        message: e.to_string(),
    })?;
    scenario::parse(&text, &name, &|p: &Path| std::fs::read_to_string(p))
}

fn broken(file: &Path, name: String, error: String) -> Report {
    Report {
        name,
        file: file.display().to_string(),
        passed: 0,
        failed: 0,
        checks: Vec::new(),
        error: Some(error),
        unusable: true,
    }
}

fn print(r: &Report) {
    if let Some(error) = &r.error {
        note!("error: {error}");
        if r.unusable {
            return;
        }
    }
    say!("{}: {}", r.file, r.name);
    let mut step = "";
    for c in &r.checks {
        if c.step != step {
            step = &c.step;
            let of_step = || r.checks.iter().filter(|x| x.step == c.step);
            let good = of_step().filter(|x| x.ok).count();
            let slowest = of_step().map(|x| x.micros).max().unwrap_or(0);
            say!(
                "  {step}: {good} of {} in {}",
                of_step().count(),
                millis(slowest)
            );
        }
        if !c.ok {
            let port = if c.port == 0 {
                c.protocol.clone()
            } else {
                format!("{}/{}", c.port, c.protocol)
            };
            say!(
                "    FAILED {} -> {} {port}: expected {}, got {} after {}",
                c.from,
                c.to,
                c.expected,
                c.got,
                millis(c.micros)
            );
            say!("      {}", c.why);
        }
    }
}

fn one(file: &Path, s: Scenario, index: usize, a: &TestArgs) -> Report {
    let name = s.name.clone();
    let mut report = Report {
        error: None,
        unusable: false,
        ..broken(file, name, String::new())
    };
    if let Err(f) = play(s, index, a, &mut report) {
        report.unusable = f.code == 2;
        if !report.unusable {
            report.failed += 1;
        }
        report.error = Some(format!("{}: {}", file.display(), f.message));
    }
    report
}

fn play(mut s: Scenario, index: usize, a: &TestArgs, report: &mut Report) -> Result<(), Failure> {
    s.spec.name = format!("test-{}-{}", std::process::id(), index + 1);
    let lab = up::start(s.spec.clone(), true, false)?;
    let objects = Objects::open(&lab.handle.dir)?;
    let first = Step {
        name: "objects".to_owned(),
        apply: std::mem::take(&mut s.objects),
        delete: Vec::new(),
        checks: Vec::new(),
    };
    for step in std::iter::once(first).chain(s.steps) {
        change(&lab.handle, &objects, &step)?;
        if step.checks.is_empty() {
            continue;
        }
        let results = check(&lab.handle, step.checks.clone(), a.deadline)?;
        let why = Explainer::new(&lab.handle, lab.handle.status()?)?;
        for (c, r) in step.checks.iter().zip(results) {
            let line = describe(&step.name, c, &r, &why);
            if line.ok {
                report.passed += 1;
            } else {
                report.failed += 1;
            }
            report.checks.push(line);
        }
    }
    Ok(())
}

/// Deletes and applies what a step says, and waits for its pods.
fn change(
    handle: &crate::command::handle::Handle,
    objects: &Objects,
    step: &Step,
) -> Result<(), Failure> {
    let mut pods = Vec::new();
    let invalid = |r: &api::Resource, e: datastore::ClientError| {
        Failure::input(format!("step {:?}: {r}: {e}", step.name))
    };
    for r in &step.delete {
        if !objects.delete(r).map_err(|e| invalid(r, e))? {
            return Err(Failure::input(format!(
                "step {:?}: delete {r}: it is not there",
                step.name
            )));
        }
        pods.extend(objects::gone(r));
    }
    for r in &step.apply {
        let applied = objects.apply(r.clone()).map_err(|e| invalid(r, e))?;
        // One that was deleted in the same step and is here again.
        pods.retain(|p| Some(p) != objects::gone(r).as_ref());
        pods.extend(objects::running(&applied));
    }
    let late = objects::wait(handle, pods, PODS)?;
    if late.is_empty() {
        return Ok(());
    }
    let list: Vec<String> = late
        .iter()
        .map(|p| {
            format!(
                "pod {}/{} is {}: {}",
                p.namespace,
                p.name,
                p.phase,
                objects::why_late(p)
            )
        })
        .collect();
    Err(Failure::new(format!(
        "step {:?}: {}",
        step.name,
        list.join("; ")
    )))
}

/// Sends packets until all is as expected or the deadline is over.
pub(super) fn check(
    handle: &crate::command::handle::Handle,
    checks: Vec<Check>,
    deadline: Duration,
) -> Result<Vec<Checked>, Failure> {
    let deadline_ms = u64::try_from(deadline.as_millis()).unwrap_or(u64::MAX);
    match handle.ask(&Request::Check {
        checks,
        deadline_ms,
    })? {
        Response::Checks(results) => Ok(results),
        other => Err(unexpected(&other)),
    }
}

fn describe(step: &str, c: &Check, r: &Checked, why: &Explainer) -> CheckReport {
    let mut got = r.outcome.verdict.to_string();
    if let (Some(source), Some(_)) = (r.outcome.source, c.source) {
        got.push_str(&format!(" from {source}"));
    }
    CheckReport {
        step: step.to_owned(),
        from: c.flow.from.to_string(),
        to: c.flow.to.to_string(),
        port: c.flow.port.number,
        protocol: c.flow.port.protocol.to_string(),
        expected: if c.allow { "allow" } else { "deny" },
        got,
        why: why.explain(&c.flow, &r.outcome).text,
        ok: r.ok,
        micros: r.micros,
    }
}
