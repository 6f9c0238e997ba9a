//! `manx lab probe`: one flow, or all pods to all.
//!
//! Promises: what came back, and for what did not get through, what policy says of it.
//!
//! Never: sends: the holder does.

use crate::args::ProbeArgs;
use crate::command::handle::{Handle, unexpected};
use crate::command::objects::Objects;
use crate::command::{Failure, say};
use crate::matrix::{self, Cell};
use crate::protocol::{Outcome, Request, Response, Status, Verdict};
use crate::reason::{Reason, Side, World};
use net::Family;
use scenario::Flow;
use scenario::{End, Port};
use serde_json::json;
use std::net::IpAddr;
use std::process::ExitCode;
use std::time::Duration;

/// `manx lab probe`.
pub(super) fn run(name: &str, a: &ProbeArgs) -> Result<ExitCode, Failure> {
    let handle = Handle::find(name)?;
    let parse = |t: &Option<String>| match t.as_deref() {
        Some(text) => crate::command::target_or_any(&handle, text),
        None => Ok(End::AnyPod),
    };
    let (from, to) = (parse(&a.from)?, parse(&a.to)?);
    if let Some(length) = a.for_ {
        return super::stream::run(&handle, from, to, a.port, length, a.interval);
    }
    let status = handle.status()?;
    let flows = expand(&status, &from, &to, a.port);
    if flows.is_empty() {
        return Err(Failure::new(
            "there are no two running pods to probe between",
        ));
    }
    let outcomes = send(&handle, flows.clone(), a.timeout)?;
    let why = Explainer::new(&handle, status)?;
    if a.json {
        let list: Vec<_> = flows
            .iter()
            .zip(&outcomes)
            .map(|(f, o)| object(f, o, &why.explain(f, o)))
            .collect();
        say!("{}", serde_json::to_string_pretty(&list)?);
    } else if let ([flow], [outcome]) = (flows.as_slice(), outcomes.as_slice()) {
        one(flow, outcome, &why, a.ttl);
    } else {
        print(&flows, &outcomes, &why);
    }
    let one_closed = matches!(outcomes.as_slice(), [o] if o.verdict != Verdict::Open);
    Ok(if one_closed {
        ExitCode::from(1)
    } else {
        ExitCode::SUCCESS
    })
}

/// All flows that two ends stand for.
pub(super) fn expand(status: &Status, from: &End, to: &End, port: Port) -> Vec<Flow> {
    let spread = |end: &End, other: &End| match end {
        End::AnyPod => status
            .pods
            .iter()
            .filter(|p| p.phase == "Running")
            .map(|p| End::pod(&p.namespace, &p.name))
            .filter(|p| p != other)
            .collect(),
        one => vec![one.clone()],
    };
    let mut flows = Vec::new();
    for f in spread(from, to) {
        for t in spread(to, &f) {
            flows.push(Flow {
                from: f.clone(),
                to: t,
                port,
                family: None,
            });
        }
    }
    flows
}

/// Sends all, and waits for each.
pub(super) fn send(
    handle: &Handle,
    flows: Vec<Flow>,
    timeout: Duration,
) -> Result<Vec<Outcome>, Failure> {
    let timeout_ms = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
    match handle.ask(&Request::Probe { flows, timeout_ms })? {
        Response::Probes(outcomes) => Ok(outcomes),
        other => Err(unexpected(&other)),
    }
}

/// Says what policy makes of flows.
pub(super) struct Explainer {
    world: World,
    status: Status,
}

impl Explainer {
    /// From what is stored now.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub(super) fn new(handle: &Handle, status: Status) -> Result<Self, Failure> {
        Ok(Self {
            world: Objects::open(&handle.dir)?.world()?,
            status,
        })
    }

    /// What policy makes of a flow.
    pub(super) fn explain(&self, flow: &Flow, outcome: &Outcome) -> Reason {
        let family = flow
            .family
            .map(Family::from)
            .or(outcome.address.map(Family::of));
        let from = self.side(&flow.from, family);
        let to = match outcome.address {
            Some(addr) => Some(self.side_at(&flow.to, addr)),
            None => self.side(&flow.to, family),
        };
        let (Some(from), Some(to)) = (from, to) else {
            let text = "one of the ends has no address".to_owned();
            return Reason {
                allowed: false,
                text,
            };
        };
        self.world.explain(
            from,
            to,
            flow.port.protocol,
            flow.port.number,
            flow.port.icmp,
        )
    }

    fn side<'a>(&'a self, end: &'a End, family: Option<Family>) -> Option<Side<'a>> {
        let fits = |a: &&IpAddr| family.is_none_or(|f| f == Family::of(**a));
        let addr = match end {
            End::Pod { namespace, name } => {
                let own =
                    |p: &&crate::protocol::PodStatus| p.namespace == *namespace && p.name == *name;
                self.status
                    .pods
                    .iter()
                    .find(own)?
                    .ips
                    .iter()
                    .find(fits)
                    .copied()
            }
            End::Node(name) => {
                let node = self.status.nodes.iter().find(|n| n.name == *name)?;
                let all = node
                    .addresses
                    .iter()
                    .filter_map(|a| a.split('/').next()?.parse().ok());
                all.into_iter().find(|a: &IpAddr| fits(&a))
            }
            End::Host(name) => {
                let host = self.status.hosts.iter().find(|h| h.0 == *name)?;
                host.1.iter().find(fits).copied()
            }
            End::Ip(addr) => Some(*addr),
            _ => None,
        };
        Some(self.side_at(end, addr?))
    }

    fn side_at<'a>(&'a self, end: &'a End, addr: IpAddr) -> Side<'a> {
        let pod = match end {
            End::Pod { namespace, name } => Some((namespace.as_str(), name.as_str())),
            End::Node(_) | End::Host(_) => None,
            // A bare address may be a pod's.
            _ => {
                let owner = self.status.pods.iter().find(|p| p.ips.contains(&addr));
                owner.map(|p| (p.namespace.as_str(), p.name.as_str()))
            }
        };
        let node = if let End::Node(n) = end {
            Some(n.as_str())
        } else {
            None
        };
        Side { addr, pod, node }
    }
}

fn object(f: &Flow, o: &Outcome, why: &Reason) -> serde_json::Value {
    json!({
        "from": f.from,
        "to": f.to,
        "port": f.port.number,
        "protocol": f.port.protocol.to_string(),
        "verdict": o.verdict.word(),
        "detail": o.verdict.to_string(),
        "address": o.address,
        "source": o.source,
        "ttl": o.ttl,
        "micros": o.micros,
        "why": why.text,
    })
}

/// Milliseconds with as many digits as mean something.
pub(super) fn millis(micros: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "for people")]
    let ms = micros as f64 / 1000.0;
    if ms < 10.0 {
        format!("{ms:.2} ms")
    } else {
        format!("{ms:.0} ms")
    }
}

fn one(f: &Flow, o: &Outcome, why: &Explainer, ttl: bool) {
    let mut line = format!(
        "{} -> {} {}: {}",
        f.from,
        f.to,
        f.port,
        matrix::word(&o.verdict)
    );
    if let Verdict::Rejected(e) | Verdict::Unreachable(e) | Verdict::Failed(e) = &o.verdict {
        line.push_str(&format!(" ({e})"));
    }
    let time = if o.verdict == Verdict::Open {
        "in"
    } else {
        "after"
    };
    line.push_str(&format!(" {time} {}", millis(o.micros)));
    if let Some(source) = o.source {
        line.push_str(&format!(", seen as {source}"));
    }
    if ttl {
        match o.ttl {
            Some(ttl) => line.push_str(&format!(", ttl {ttl}")),
            None => line.push_str(", no ttl"),
        }
    }
    say!("{line}");
    tell_why(f, o, why);
}

/// For what was closed, and for what policy would not have let through.
fn tell_why(f: &Flow, o: &Outcome, why: &Explainer) {
    let reason = why.explain(f, o);
    match (&o.verdict, reason.allowed) {
        (Verdict::Failed(_), _) => {}
        (Verdict::Open, true) => {}
        (Verdict::Open, false) => {
            say!("  policy says otherwise: {}", reason.text);
        }
        (_, false) => say!("  why: {}", reason.text),
        (_, true) => say!("  policy would allow it: {}", reason.text),
    }
}

/// The table, and below it why what is closed is closed.
pub(super) fn print(flows: &[Flow], outcomes: &[Outcome], why: &Explainer) {
    let cells: Vec<Cell> = flows
        .iter()
        .zip(outcomes)
        .map(|(f, o)| Cell {
            from: f.from.to_string(),
            to: f.to.to_string(),
            outcome: o.clone(),
        })
        .collect();
    say!("{}", matrix::render(&cells).trim_end());
    let open = outcomes
        .iter()
        .filter(|o| o.verdict == Verdict::Open)
        .count();
    say!("{open} of {} open on {}", outcomes.len(), flows[0].port);
    // One line for each reason, not for each flow.
    let mut reasons: Vec<(String, usize)> = Vec::new();
    for (f, o) in flows
        .iter()
        .zip(outcomes)
        .filter(|(_, o)| o.verdict != Verdict::Open)
    {
        let reason = why.explain(f, o);
        let text = match (&o.verdict, reason.allowed) {
            (Verdict::Failed(e), _) => e.clone(),
            (_, true) => format!(
                "{} -> {}: policy would allow it: {}",
                f.from, f.to, reason.text
            ),
            (_, false) => reason.text,
        };
        match reasons.iter_mut().find(|(t, _)| *t == text) {
            Some((_, n)) => *n += 1,
            None => reasons.push((text, 1)),
        }
    }
    for (text, n) in reasons {
        say!("  {n} closed: {text}");
    }
}
