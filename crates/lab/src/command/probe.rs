//! `manx lab probe`: one flow, or all pods to all.
//!
//! Promises: what came back, and for what did not get through, what policy says of it.
//!
//! Never: sends: the holder does.

use crate::args::{ProbeArgs, WhyArgs};
use crate::command::handle::{Handle, unexpected};
use crate::command::objects::Objects;
use crate::command::{Failure, say};
use crate::matrix::{self, Cell};
use crate::protocol::{Outcome, PodStatus, Request, Response, Status, Verdict};
use model::ServiceRef;
use net::Family;
use scenario::Flow;
use scenario::plan::{Encapsulation, Spec, Topology};
use scenario::report::millis;
use scenario::{End, Port};
use serde_json::json;
use std::net::IpAddr;
use std::process::ExitCode;
use std::time::Duration;
use verdict::{Explanation, Target, World};

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

/// What policy makes of a flow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reason {
    /// Whether policy lets it through.
    pub allowed: bool,
    /// Where and why.
    pub text: String,
}

/// Says what policy makes of flows.
pub(super) struct Explainer {
    world: World,
    status: Status,
    spec: Spec,
}

impl Explainer {
    /// From what is stored now.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub(super) fn new(handle: &Handle, status: Status) -> Result<Self, Failure> {
        Ok(Self {
            world: Objects::open(&handle.dir)?.world(&handle.spec)?,
            status,
            spec: handle.spec.clone(),
        })
    }

    /// What policy makes of a flow that was sent.
    pub(super) fn explain(&self, flow: &Flow, outcome: &Outcome) -> Reason {
        let family = flow
            .family
            .map(Family::from)
            .or(outcome.address.map(Family::of));
        match self.ask(flow, family) {
            Ok(answer) => Reason {
                allowed: answer.verdict == verdict::Verdict::Allow,
                text: scenario::offline::why(&answer).replace('\n', "; "),
            },
            Err(text) => Reason {
                allowed: false,
                text,
            },
        }
    }

    /// What the oracle says of a flow; without a family, of the first that both ends have.
    ///
    /// # Errors
    /// If one of the ends has no address.
    pub(super) fn ask(&self, flow: &Flow, family: Option<Family>) -> Result<Explanation, String> {
        let families = family.map_or_else(|| Family::BOTH.to_vec(), |f| vec![f]);
        let mut why = String::new();
        for family in families {
            match self.flow(flow, family) {
                Ok(asked) => return Ok(self.world.explain(&asked)),
                Err(e) if why.is_empty() => why = e,
                Err(_) => {}
            }
        }
        Err(why)
    }

    fn flow(&self, flow: &Flow, family: Family) -> Result<verdict::Flow, String> {
        let none = |end: &End| format!("{end} has no {family} address");
        let target = match &flow.to {
            End::Service { namespace, name } => Target::Service(ServiceRef {
                namespace: namespace.as_str().into(),
                name: name.as_str().into(),
            }),
            end => Target::Address(self.address(end, family).ok_or_else(|| none(end))?),
        };
        let own = self
            .address(&flow.from, family)
            .ok_or_else(|| none(&flow.from))?;
        let (from, source) = match &flow.from {
            End::Pod { namespace, name } => {
                let pod = self.world.pod(&format!("{namespace}/{name}"));
                (
                    pod.ok_or_else(|| format!("there is no pod {}", flow.from))?,
                    own,
                )
            }
            End::Node(name) => {
                let source = self.through_tunnel(name, &target, family).unwrap_or(own);
                (verdict::End::Node(name.as_str().into()), source)
            }
            End::Ip(addr) => (self.world.holder(*addr), *addr),
            _ => (verdict::End::Outside, own),
        };
        let port = flow.port;
        let mut asked = verdict::Flow::new(from, source, target, port.protocol, port.number);
        asked.icmp = port.icmp;
        Ok(asked)
    }

    /// The address of the tunnel by which a node's own processes reach a pod of another node.
    fn through_tunnel(&self, node: &str, to: &Target, family: Family) -> Option<IpAddr> {
        let tunnelled = match self.spec.encapsulation {
            Encapsulation::None => false,
            Encapsulation::Vxlan | Encapsulation::Ipip => true,
            Encapsulation::VxlanCrossSubnet | Encapsulation::IpipCrossSubnet => {
                self.spec.topology == Topology::Routed
            }
        };
        let Target::Address(addr) = to else {
            return None;
        };
        match self.world.holder(*addr) {
            verdict::End::Workload(k) if tunnelled && *k.node != *node => {}
            _ => return None,
        }
        let (_, node) = self.world.nodes().find(|(n, _)| ***n == *node)?;
        match family {
            Family::V4 => node.vxlan_v4.or(node.ipip_v4),
            Family::V6 => node.vxlan_v6,
        }
    }

    fn address(&self, end: &End, family: Family) -> Option<IpAddr> {
        let fits = |a: &IpAddr| family == Family::of(*a);
        match end {
            End::Pod { namespace, name } => {
                let own = |p: &&PodStatus| p.namespace == *namespace && p.name == *name;
                let pod = self.status.pods.iter().find(own)?;
                pod.ips.iter().copied().find(fits)
            }
            End::Node(name) => {
                let node = self.status.nodes.iter().find(|n| n.name == *name)?;
                let all = node.addresses.iter();
                all.filter_map(|a| a.split('/').next()?.parse().ok())
                    .find(fits)
            }
            End::Host(name) => {
                let host = self.status.hosts.iter().find(|h| h.0 == *name)?;
                host.1.iter().copied().find(fits)
            }
            End::Ip(addr) => Some(*addr).filter(fits),
            _ => None,
        }
    }
}

/// `manx lab why`.
pub(super) fn why(name: &str, a: &WhyArgs) -> Result<ExitCode, Failure> {
    let handle = Handle::find(name)?;
    let (from, to) = (
        crate::command::target(&handle, &a.from)?,
        crate::command::target(&handle, &a.to)?,
    );
    let explainer = Explainer::new(&handle, handle.status()?)?;
    let flow = Flow {
        from,
        to,
        port: a.port,
        family: None,
    };
    let answer = explainer.ask(&flow, a.family).map_err(Failure::input)?;
    let text = if a.all {
        format!("{answer:#}")
    } else {
        answer.to_string()
    };
    say!("{}", text.trim_end());
    Ok(ExitCode::SUCCESS)
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
