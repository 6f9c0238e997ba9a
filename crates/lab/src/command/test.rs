//! `manx lab test`: a cluster for each scenario file.
//!
//! Promises: each expectation is checked with real packets until it holds or the deadline is
//! over, and a prohibition only once every node enforces what is stored; a failure names what
//! decides by policy; a file that cannot be used is reported with its line and the others still
//! run; the labs end with the command, however that ends.
//!
//! Never: lets one scenario see what another left: a cluster is used again only by scenarios of
//! the same shape that change nothing but objects of policy, and after all of these are gone.

use crate::args::TestArgs;
use crate::command::handle::{Handle, unexpected};
use crate::command::objects::{self, Objects};
use crate::command::probe::Explainer;
use crate::command::{Failure, note, say, up};
use crate::protocol::{Checked, Request, Response};
use api::ResourceKind;
use scenario::plan::Spec;
use scenario::report::{CheckReport, Colour, Report, Total};
use scenario::{Check, Scenario, ScenarioError, Step};
use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError, mpsc};
use std::time::Duration;

/// For the pods of a scenario to run or go.
const PODS: Duration = Duration::from_secs(30);
/// For all nodes to enforce what is stored.
const SETTLED: Duration = Duration::from_secs(5);

/// `manx lab test`.
pub(super) fn run(a: &TestArgs) -> Result<ExitCode, Failure> {
    let files = files(&a.files)?;
    let mut total = Total::default();
    let mut waiting: BTreeMap<usize, Report> = BTreeMap::new();
    let queue = Mutex::new(plan(&files));
    let (send, receive) = mpsc::channel();
    std::thread::scope(|s| {
        for worker in 0..a.jobs.clamp(1, files.len().max(1)) {
            let (queue, send, files) = (&queue, send.clone(), &files);
            s.spawn(move || Worker::new(worker, a).work(queue, files, &send));
        }
        drop(send);
        let mut next = 0;
        for (i, report) in receive {
            waiting.insert(i, report);
            // In the order given, whatever ends first.
            while let Some(report) = waiting.remove(&next) {
                total.add(&report);
                tell(&report, a);
                next += 1;
            }
        }
    });
    if !a.json {
        say!("{total}");
    }
    Ok(ExitCode::from(total.exit()))
}

fn tell(report: &Report, a: &TestArgs) {
    if let Some(error) = &report.error {
        note!("error: {error}");
    }
    if a.json {
        match serde_json::to_string(report) {
            Ok(line) => say!("{line}"),
            Err(e) => note!("error: {}: {e}", report.file),
        }
    } else if !report.unusable || !report.checks.is_empty() {
        // The stream takes colours away where they are not wanted.
        say!("{}", report.text(Colour::Yes, true).trim_end());
    }
}

/// The files, and those below directories but for directories named `files`.
fn files(given: &[PathBuf]) -> Result<Vec<PathBuf>, Failure> {
    let mut out = Vec::new();
    for name in given {
        let before = out.len();
        let mut todo = vec![name.clone()];
        while let Some(path) = todo.pop() {
            if !path.is_dir() {
                out.push(path);
                continue;
            }
            let failed = |e| Failure::input(format!("{}: {e}", path.display()));
            for entry in std::fs::read_dir(&path).map_err(failed)? {
                let below = entry.map_err(failed)?.path();
                let known = below.extension().is_some_and(|e| e == "yaml" || e == "yml");
                if below.is_dir() && below.file_name().is_none_or(|n| n != "files")
                    || !below.is_dir() && known
                {
                    todo.push(below);
                }
            }
        }
        out[before..].sort();
    }
    Ok(out)
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

/// A file to run.
struct Job {
    index: usize,
    scenario: Result<Scenario, ScenarioError>,
}

/// Scenarios that may use one cluster after the other, together.
fn plan(files: &[PathBuf]) -> VecDeque<Vec<Job>> {
    let mut shapes: Vec<(Spec, Vec<Job>)> = Vec::new();
    let mut out = VecDeque::new();
    for (index, file) in files.iter().enumerate() {
        let job = Job {
            index,
            scenario: read(file),
        };
        match &job.scenario {
            Ok(s) if only_policy(s) => match shapes.iter_mut().find(|(spec, _)| *spec == s.spec) {
                Some((_, jobs)) => jobs.push(job),
                None => shapes.push((s.spec.clone(), vec![job])),
            },
            _ => out.push_back(vec![job]),
        }
    }
    for (_, jobs) in shapes {
        let mut jobs = jobs.into_iter().peekable();
        while jobs.peek().is_some() {
            out.push_back(jobs.by_ref().take(TOGETHER).collect());
        }
    }
    // What was given first is told first.
    out.make_contiguous().sort_by_key(|jobs| jobs[0].index);
    out
}

/// So many scenarios use one cluster: enough to save its start, few enough to share among workers.
const TOGETHER: usize = 8;

/// Whether a cluster is as new once the objects of this scenario are gone from it.
fn only_policy(s: &Scenario) -> bool {
    let objects = s.steps.iter().flat_map(|s| &s.apply).chain(&s.objects);
    objects.map(api::Resource::kind).all(is_policy)
}

/// Kinds that leave nothing behind on nodes, in IPAM or in the agents when they go.
pub(super) fn is_policy(kind: ResourceKind) -> bool {
    use ResourceKind as K;
    matches!(
        kind,
        K::Namespace
            | K::ServiceAccount
            | K::Pod
            | K::Tier
            | K::NetworkPolicy
            | K::GlobalNetworkPolicy
            | K::KubeNetworkPolicy
            | K::ClusterNetworkPolicy
            | K::StagedNetworkPolicy
            | K::StagedGlobalNetworkPolicy
            | K::StagedKubernetesNetworkPolicy
            | K::NetworkSet
            | K::GlobalNetworkSet
            | K::HostEndpoint
            | K::Profile
            | K::Service
            | K::EndpointSlice
    )
}

/// A lab, while there is one, and what has run in it.
struct Worker<'a> {
    number: usize,
    started: usize,
    args: &'a TestArgs,
}

impl<'a> Worker<'a> {
    fn new(number: usize, args: &'a TestArgs) -> Self {
        Self {
            number,
            started: 0,
            args,
        }
    }

    fn work(
        mut self,
        queue: &Mutex<VecDeque<Vec<Job>>>,
        files: &[PathBuf],
        done: &mpsc::Sender<(usize, Report)>,
    ) {
        loop {
            let next = queue
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .pop_front();
            let Some(jobs) = next else { return };
            let mut lab: Option<Lab> = None;
            for job in jobs {
                let file = files[job.index].display().to_string();
                let report = match job.scenario {
                    Ok(s) => self.one(&file, &s, &mut lab),
                    Err(e) => Report::unusable("", file, e.to_string()),
                };
                if done.send((job.index, report)).is_err() {
                    return;
                }
            }
        }
    }

    fn one(&mut self, file: &str, s: &Scenario, lab: &mut Option<Lab>) -> Report {
        let mut report = Report::new(&s.name, file);
        let played = match lab.take() {
            Some(mut used) => used.reset().map(|()| used),
            None => self.start(s),
        }
        .and_then(|mut fresh| {
            fresh.play(s, self.args.deadline, &mut report)?;
            Ok(fresh)
        });
        match played {
            Ok(used) => *lab = Some(used),
            Err(f) => {
                report.unusable = f.code == 2;
                if !report.unusable {
                    report.failed += 1;
                }
                report.error = Some(format!("{file}: {}", f.message));
            }
        }
        report
    }

    fn start(&mut self, s: &Scenario) -> Result<Lab, Failure> {
        self.started += 1;
        let mut spec = s.spec.clone();
        let pid = std::process::id();
        spec.name = format!("test-{pid}-{}-{}", self.number, self.started);
        Lab::start(spec)
    }
}

/// A lab for scenarios.
pub(super) struct Lab {
    started: up::Started,
    objects: Objects,
    markers: u32,
}

impl Lab {
    /// Starts one, that ends with this value.
    ///
    /// # Errors
    /// If it does not come up.
    pub(super) fn start(spec: Spec) -> Result<Self, Failure> {
        let started = up::start(spec, true, false)?;
        let objects = Objects::open(&started.handle.dir)?;
        Ok(Self {
            started,
            objects,
            markers: 0,
        })
    }

    /// How to ask it.
    pub(super) const fn handle(&self) -> &Handle {
        &self.started.handle
    }

    fn play(
        &mut self,
        s: &Scenario,
        deadline: Duration,
        report: &mut Report,
    ) -> Result<(), Failure> {
        let first = Step {
            name: "objects".to_owned(),
            apply: s.objects.clone(),
            delete: Vec::new(),
            checks: Vec::new(),
        };
        for step in std::iter::once(&first).chain(&s.steps) {
            self.change(step)?;
            if step.checks.is_empty() {
                continue;
            }
            let settled = self.settle()?;
            let results = check(self.handle(), step.checks.clone(), deadline, settled)?;
            let why = Explainer::new(self.handle(), self.handle().status()?)?;
            for (c, r) in step.checks.iter().zip(results) {
                report.push(describe(&step.name, c, &r, &why));
            }
        }
        Ok(())
    }

    /// Deletes and applies what a step says, and waits for its pods.
    ///
    /// # Errors
    /// 2 for an object that is refused, 1 for a pod that does not run or go.
    pub(super) fn change(&mut self, step: &Step) -> Result<(), Failure> {
        let mut pods = Vec::new();
        let invalid = |r: &api::Resource, e: datastore::ClientError| {
            Failure::input(format!("step {:?}: {r}: {e}", step.name))
        };
        for r in &step.delete {
            if !self.objects.delete(r).map_err(|e| invalid(r, e))? {
                return Err(Failure::input(format!(
                    "step {:?}: delete {r}: it is not there",
                    step.name
                )));
            }
            pods.extend(objects::gone(r));
        }
        for r in &step.apply {
            let applied = self.objects.apply(r.clone()).map_err(|e| invalid(r, e))?;
            // One that was deleted in the same step and is here again.
            pods.retain(|p| Some(p) != objects::gone(r).as_ref());
            pods.extend(objects::running(&applied));
        }
        self.wait(&step.name, pods)
    }

    fn wait(&self, step: &str, pods: Vec<crate::protocol::PodRef>) -> Result<(), Failure> {
        let late = objects::wait(self.handle(), pods, PODS)?;
        if late.is_empty() {
            return Ok(());
        }
        let list: Vec<String> = late
            .iter()
            .map(|p| {
                let why = objects::why_late(p);
                format!("pod {}/{} is {}: {why}", p.namespace, p.name, p.phase)
            })
            .collect();
        Err(Failure::new(format!("step {step:?}: {}", list.join("; "))))
    }

    /// Waits until all nodes enforce what is stored, services included; whether they do.
    ///
    /// # Errors
    /// If the lab or its store fails.
    pub(super) fn settle(&mut self) -> Result<bool, Failure> {
        self.ask_settled(None)?;
        self.markers += 1;
        let family = self.handle().spec.families.iter().next();
        let marker = self.objects.mark(self.markers, family)?;
        let late = self.ask_settled(Some(marker))?;
        for node in &late {
            if node.contains('(') {
                note!("warning: not settled: {node}");
            }
        }
        Ok(late.is_empty())
    }

    fn ask_settled(&self, marker: Option<String>) -> Result<Vec<String>, Failure> {
        let timeout_ms = u64::try_from(SETTLED.as_millis()).unwrap_or(u64::MAX);
        match self.handle().ask(&Request::Settle { marker, timeout_ms })? {
            Response::Unsettled(late) => Ok(late),
            other => Err(unexpected(&other)),
        }
    }

    /// Deletes all objects of policy that a new lab does not have.
    fn reset(&mut self) -> Result<(), Failure> {
        let pods = self.objects.reset(&self.handle().spec, is_policy)?;
        self.wait("reset", pods)
    }
}

/// Sends packets until all is as expected or the deadline is over. `settled`: all nodes enforce
/// what is stored.
pub(super) fn check(
    handle: &Handle,
    checks: Vec<Check>,
    deadline: Duration,
    settled: bool,
) -> Result<Vec<Checked>, Failure> {
    let deadline_ms = u64::try_from(deadline.as_millis()).unwrap_or(u64::MAX);
    match handle.ask(&Request::Check {
        checks,
        deadline_ms,
        settled,
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
    let text = why.explain(&c.flow, &r.outcome).text;
    CheckReport {
        micros: Some(r.micros),
        ..CheckReport::new(step, c, r.ok, got, text)
    }
}
