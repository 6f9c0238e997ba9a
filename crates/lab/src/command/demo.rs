//! The walk-through of `examples/walkthrough`, told as it runs.
//!
//! Promises: the very files and commands of the walk-through; each claim is checked with
//! packets, and what does not hold is counted and ends the command with 1; nothing of the lab
//! stays, unless it was asked to.
//!
//! Never: shows a result that was not measured just then.

mod script;

use crate::args::DemoArgs;
use crate::command::handle::Handle;
use crate::command::objects::{self, Objects};
use crate::command::probe::{Explainer, expand, print, send};
use crate::command::stream::{Stream, words};
use crate::command::test::check;
use crate::command::up::Started;
use crate::command::{Failure, note, say, up};
use crate::protocol::{Connection, Request, Response, StreamReport};
use anstyle::Style;
use api::parse_documents;
use scenario::plan::{Encapsulation, FamilySet, Spec, Topology};
use scenario::{Check, Flow};
use scenario::{End, Port};
use std::net::{IpAddr, Shutdown};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(20);
/// How soon a change of policy must be in force.
const ENFORCED: Duration = Duration::from_secs(2);
const BOLD: Style = Style::new().bold();

/// A running walk-through.
struct Demo {
    lab: Started,
    objects: Objects,
    broken: Vec<String>,
}

/// `manx lab demo`.
pub(super) fn run(name: &str, a: &DemoArgs) -> Result<ExitCode, Failure> {
    let host = |t: &str| t.parse().map_err(Failure::input);
    let spec = Spec {
        name: name.to_owned(),
        nodes: a.nodes,
        topology: Topology::Flat,
        families: FamilySet::V4,
        hosts: vec![host("outside=203.0.113.7")?, host("banned=203.0.113.66")?],
        default_pools: false,
        encapsulation: Encapsulation::None,
        wireguard: false,
    };
    let began = Instant::now();
    say!(
        "{BOLD}$ manx lab up --nodes {} --no-default-pools --host outside=203.0.113.7 --host \
         banned=203.0.113.66{BOLD:#}",
        a.nodes
    );
    let lab = up::start(spec, !a.keep, true)?;
    say!(
        "{} nodes in {:.2} s",
        a.nodes,
        began.elapsed().as_secs_f64()
    );
    let objects = Objects::open(&lab.handle.dir)?;
    let mut demo = Demo {
        lab,
        objects,
        broken: Vec::new(),
    };
    let told = script::tell(&mut demo);
    let broken = std::mem::take(&mut demo.broken);
    if a.keep {
        demo.lab.let_go();
        note!("lab {name:?} goes on: manx lab status, manx lab probe, manx lab down");
    } else {
        say!("\n{BOLD}$ manx lab down{BOLD:#}");
        drop(demo);
    }
    told?;
    for b in &broken {
        note!("error: {b}");
    }
    say!(
        "the walk-through took {:.1} s; {} claims did not hold",
        began.elapsed().as_secs_f64(),
        broken.len()
    );
    Ok(if broken.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(1)
    })
}

impl Demo {
    fn handle(&self) -> &Handle {
        &self.lab.handle
    }

    fn title(&self, text: &str) {
        say!("\n{BOLD}== {text}{BOLD:#}");
    }

    fn shell(&self, line: &str) {
        say!("{BOLD}$ {line}{BOLD:#}");
    }

    /// Counts what does not hold.
    fn claim(&mut self, holds: bool, text: &str) {
        if holds {
            say!("  ok: {text}");
        } else {
            say!("  NOT SO: {text}");
            self.broken.push(text.to_owned());
        }
    }

    /// Applies one of the walk-through's files and waits for its pods.
    fn apply(&mut self, (name, text): script::File) -> Result<(), Failure> {
        self.shell(&format!("manx lab apply -f {name}"));
        let mut pods = Vec::new();
        for parsed in parse_documents(text, name) {
            let (r, _) = parsed.map_err(|e| Failure::new(e.to_string()))?;
            let shown = r.to_string();
            let applied = self
                .objects
                .apply(r)
                .map_err(|e| Failure::new(format!("{shown}: {e}")))?;
            pods.extend(objects::running(&applied));
        }
        let began = Instant::now();
        let number = pods.len();
        let late = objects::wait(self.handle(), pods, PATIENCE)?;
        for p in &late {
            say!(
                "pod {}/{} is {}: {}",
                p.namespace,
                p.name,
                p.phase,
                objects::why_late(p)
            );
        }
        if number > late.len() {
            let running = number - late.len();
            say!(
                "{running} pods run after {:.0} ms",
                began.elapsed().as_secs_f64() * 1000.0
            );
        }
        Ok(())
    }

    /// Deletes what a file holds.
    fn delete(&mut self, (name, text): script::File) -> Result<(), Failure> {
        self.shell(&format!("manx lab delete -f {name}"));
        let mut pods = Vec::new();
        for parsed in parse_documents(text, name) {
            let (r, _) = parsed.map_err(|e| Failure::new(e.to_string()))?;
            self.objects.delete(&r)?;
            pods.extend(objects::gone(&r));
        }
        objects::wait(self.handle(), pods, PATIENCE).map(drop)
    }

    /// The first address and the node of a pod.
    fn pod(&self, namespace: &str, name: &str) -> Result<(IpAddr, String), Failure> {
        let status = self.handle().status()?;
        let pod = status
            .pods
            .iter()
            .find(|p| p.namespace == namespace && p.name == name);
        pod.and_then(|p| Some((*p.ips.first()?, p.node.clone())))
            .ok_or_else(|| Failure::new(format!("pod {namespace}/{name} is not running")))
    }

    /// Runs this program's command line on the lab's store and shows what it prints.
    fn cli(&self, args: &[&str]) -> Result<String, Failure> {
        self.shell(&format!("manx {}", args.join(" ")));
        let out = Command::new(std::env::current_exe()?)
            .args(args)
            .env("DATASTORE_TYPE", "embedded")
            .env("MANX_STORE", self.handle().dir.store())
            .stdin(Stdio::null())
            .stderr(Stdio::inherit())
            .output()?;
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        say!("{}", text.trim_end());
        Ok(text)
    }

    /// Shows who reaches whom.
    fn matrix(&self, flows: Vec<Flow>, timeout: Duration) -> Result<(), Failure> {
        let outcomes = send(self.handle(), flows.clone(), timeout)?;
        let why = Explainer::new(self.handle(), self.handle().status()?)?;
        print(&flows, &outcomes, &why);
        Ok(())
    }

    /// All pods of some namespaces to each other.
    fn flows(&self, namespaces: &[&str], port: Port) -> Result<Vec<Flow>, Failure> {
        let mut status = self.handle().status()?;
        status
            .pods
            .retain(|p| namespaces.contains(&p.namespace.as_str()));
        Ok(expand(&status, &End::AnyPod, &End::AnyPod, port))
    }

    /// Checks flows until they are as expected, and says how long it took.
    fn expect(&mut self, what: &str, list: &[(&str, &str, &str, bool)]) -> Result<(), Failure> {
        let mut checks = Vec::new();
        for (from, to, port, allow) in list {
            let flow = Flow {
                from: from.parse().map_err(Failure::new)?,
                to: to.parse().map_err(Failure::new)?,
                port: port.parse().map_err(Failure::new)?,
                family: None,
            };
            checks.push(Check {
                flow,
                allow: *allow,
                source: None,
            });
        }
        let results = check(self.handle(), checks.clone(), ENFORCED, false)?;
        let why = Explainer::new(self.handle(), self.handle().status()?)?;
        for (c, r) in checks.iter().zip(&results) {
            let reason = why.explain(&c.flow, &r.outcome).text;
            let verdict = r.outcome.verdict.to_string();
            say!(
                "  {} -> {} {}: {verdict}: {reason}",
                c.flow.from,
                c.flow.to,
                c.flow.port
            );
            if !r.ok {
                let wanted = if c.allow { "open" } else { "closed" };
                self.broken.push(format!(
                    "{} -> {} {}: {verdict}, not {wanted}",
                    c.flow.from, c.flow.to, c.flow.port
                ));
            }
        }
        let all = results.iter().all(|r| r.ok);
        self.claim(all, what);
        Ok(())
    }

    /// Starts a capture, does something once it runs, and gives what was seen until that was done.
    fn capture_during(
        &self,
        during: impl FnOnce() -> Result<(), Failure>,
    ) -> Result<Vec<String>, Failure> {
        let most = u64::try_from(PATIENCE.as_millis()).unwrap_or(u64::MAX);
        self.capture(most, |connection| {
            during()?;
            Ok(connection.socket().shutdown(Shutdown::Write)?)
        })
    }

    /// Captures, and does something once it runs.
    fn capture(
        &self,
        for_ms: u64,
        during: impl FnOnce(&Connection) -> Result<(), Failure>,
    ) -> Result<Vec<String>, Failure> {
        let mut connection = self.handle().connect()?;
        connection.send(&Request::Capture {
            count: None,
            for_ms,
        })?;
        let mut lines = Vec::new();
        let mut during = Some(during);
        loop {
            match connection.receive()? {
                Some(Response::Started) => {
                    if let Some(f) = during.take() {
                        f(&connection)?;
                    }
                }
                Some(Response::Line(line)) => lines.push(line),
                Some(Response::Done) => return Ok(lines),
                Some(other) => return Err(crate::command::handle::unexpected(&other)),
                None => return Err(Failure::new("the lab ended during a capture")),
            }
        }
    }

    /// Captures until a line has what is looked for, while something else sends.
    fn seen_on_fabric(&self, is: impl Fn(&str) -> bool) -> Result<Option<String>, Failure> {
        let began = Instant::now();
        while began.elapsed() < PATIENCE / 4 {
            let lines = self.capture(100, |_| Ok(()))?;
            if let Some(line) = lines.into_iter().rev().find(|l| is(l)) {
                return Ok(Some(line));
            }
        }
        Ok(None)
    }

    /// The routes of a node.
    fn routes(&self, node: &str) -> Result<Vec<String>, Failure> {
        self.shell(&format!("manx lab routes {node}"));
        let mut lines = Vec::new();
        let target = End::Node(node.to_owned());
        self.handle()
            .lines(&Request::Routes(target), |l| lines.push(l))?;
        for l in &lines {
            say!("  {l}");
        }
        Ok(lines)
    }

    /// Datagrams that run until stopped.
    fn stream(&self, from: &str, to: &str) -> Result<Stream, Failure> {
        let (from, to) = (
            from.parse().map_err(Failure::new)?,
            to.parse().map_err(Failure::new)?,
        );
        let port = Port::new(net::Protocol::UDP, 7000);
        let hour = Duration::from_secs(3600);
        Stream::start(
            self.handle(),
            from,
            to,
            port,
            hour,
            Duration::from_millis(5),
        )
    }

    /// Ends a stream and shows what it counted.
    fn stop(&self, stream: Stream) -> Result<StreamReport, Failure> {
        let report = stream.stop()?;
        say!("  the stream: {}", words(&report));
        Ok(report)
    }
}
