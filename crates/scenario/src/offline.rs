//! A scenario answered from its resources alone.
//!
//! Promises: each check is judged by the oracle on what is applied at its step; the answer names
//! what decides; a step that cannot be applied ends the file as its own error.
//!
//! Never: sends a packet, or waits for anything.

use crate::check::{Check, Flow, SourceIs};
use crate::cluster::{Cluster, ClusterError};
use crate::ends::End;
use crate::read::{Scenario, Step};
use crate::report::{CheckReport, Report};
use crate::services;
use api::Resource;
use net::Family;
use std::net::IpAddr;
use verdict::{Explanation, Target, Verdict, World};

/// Runs all steps. `file` is how the report names it.
pub fn run(s: &Scenario, file: &str) -> Report {
    let mut report = Report::new(&s.name, file);
    if let Err((step, e)) = play(s, &mut report) {
        report.unusable = true;
        report.error = Some(match step {
            Some(step) => format!("{file}: step {step:?}: {e}"),
            None => format!("{file}: {e}"),
        });
    }
    report
}

fn play<'a>(s: &'a Scenario, report: &mut Report) -> Result<(), (Option<&'a str>, ClusterError)> {
    let mut cluster = start(s).map_err(|e| (None, e))?;
    for step in &s.steps {
        change(&mut cluster, step).map_err(|e| (Some(step.name.as_str()), e))?;
        let judge = Judge::new(&cluster);
        for check in &step.checks {
            report.push(judge.check(&step.name, check));
        }
    }
    Ok(())
}

/// The cluster before the first step.
///
/// # Errors
/// An object that cannot be applied.
pub fn start(s: &Scenario) -> Result<Cluster, ClusterError> {
    let mut cluster = Cluster::new(&s.spec)?;
    let all = s.steps.iter().flat_map(|s| &s.apply).chain(&s.objects);
    cluster.reserve(all.flat_map(asked_for));
    for r in &s.objects {
        cluster.apply(r.clone())?;
    }
    Ok(cluster)
}

/// Deletes and applies what a step says.
///
/// # Errors
/// The first object that cannot be.
pub fn change(cluster: &mut Cluster, step: &Step) -> Result<(), ClusterError> {
    for r in &step.delete {
        cluster.delete(r)?;
    }
    for r in &step.apply {
        cluster.apply(r.clone())?;
    }
    Ok(())
}

/// The addresses that a pod asks for by annotation.
fn asked_for(r: &Resource) -> Vec<IpAddr> {
    let Resource::Pod(pod) = r else {
        return Vec::new();
    };
    let none = api::StringMap::default();
    api::annotations::cni_request(&pod.metadata.annotations, &none)
        .map(|asked| [asked.ip_addrs, asked.ip_addrs_no_ipam].concat())
        .unwrap_or_default()
}

/// Judges flows in a cluster as it is now.
pub struct Judge<'a> {
    cluster: &'a Cluster,
    world: World,
}

impl<'a> Judge<'a> {
    /// For a cluster.
    pub fn new(cluster: &'a Cluster) -> Self {
        Self {
            cluster,
            world: cluster.world(),
        }
    }

    /// What becomes of a check.
    pub fn check(&self, step: &str, check: &Check) -> CheckReport {
        let (flow, answer) = match self.explain(&check.flow) {
            Ok(found) => found,
            Err(why) => {
                return CheckReport::new(step, check, false, "no answer".to_owned(), why);
            }
        };
        let (verdict, why) = self.verdict(&answer);
        let mut got = verdict.name().to_owned();
        let seen: Vec<IpAddr> = answer.paths.iter().map(|p| p.seen_source).collect();
        let mut ok = verdict
            == if check.allow {
                Verdict::Allow
            } else {
                Verdict::Deny
            };
        if let Some(source) = check.source.filter(|_| verdict == Verdict::Allow) {
            let holds =
                |seen: &IpAddr| self.is_source(source, &check.flow.from, flow.source, *seen);
            ok &= seen.iter().all(holds);
            let mut list: Vec<String> = seen.iter().map(ToString::to_string).collect();
            list.dedup();
            got.push_str(&format!(" from {}", list.join(", ")));
        }
        CheckReport::new(step, check, ok, got, why)
    }

    /// What comes of an answer here, and what decides: what policy lets through to where nobody is
    /// gets no answer.
    pub fn verdict(&self, answer: &Explanation) -> (Verdict, String) {
        match self.nobody(answer) {
            Some(nobody) => (Verdict::Deny, nobody),
            None => (answer.verdict, why(answer)),
        }
    }

    /// What the oracle says of a flow.
    ///
    /// # Errors
    /// If one of its ends is not there or has no such address.
    pub fn explain(&self, flow: &Flow) -> Result<(verdict::Flow, Explanation), String> {
        let target = self.target(&flow.to, flow.family.map(Family::from))?;
        let family = Family::of(target);
        let (from, source) = self.sender(&flow.from, target, family)?;
        let port = flow.port;
        let mut asked = verdict::Flow::new(
            from,
            source,
            Target::Address(target),
            port.protocol,
            port.number,
        );
        asked.icmp = port.icmp;
        let answer = self.world.explain(&asked);
        Ok((asked, answer))
    }

    fn sender(
        &self,
        end: &End,
        to: IpAddr,
        family: Family,
    ) -> Result<(verdict::End, IpAddr), String> {
        let none = || format!("{end} has no {family} address");
        match end {
            End::Pod { namespace, name } => {
                let pod = self
                    .world
                    .pod(&format!("{namespace}/{name}"))
                    .ok_or_else(|| format!("there is no pod {end}"))?;
                let source = self.world.address(&pod, family).ok_or_else(none)?;
                Ok((pod, source))
            }
            End::Node(name) => {
                let source = self.cluster.node_source(name, to).ok_or_else(none)?;
                Ok((verdict::End::Node(name.as_str().into()), source))
            }
            End::Host(_) => Ok((
                verdict::End::Outside,
                self.address(end, family).ok_or_else(none)?,
            )),
            other => Err(format!("{other} cannot send")),
        }
    }

    fn target(&self, end: &End, family: Option<Family>) -> Result<IpAddr, String> {
        let families = family.map_or_else(|| Family::BOTH.to_vec(), |f| vec![f]);
        families
            .iter()
            .find_map(|f| self.address(end, *f))
            .ok_or_else(|| match family {
                Some(f) => format!("{end} has no {f} address"),
                None => format!("{end} has no address"),
            })
    }

    fn address(&self, end: &End, family: Family) -> Option<IpAddr> {
        let of_family = |a: &IpAddr| Family::of(*a) == family;
        let plan = self.cluster.plan();
        match end {
            End::Pod { namespace, name } => self
                .cluster
                .pod(namespace, name)?
                .ips
                .iter()
                .copied()
                .find(of_family),
            End::Node(name) => {
                let node = plan.nodes.iter().find(|n| n.name == *name)?;
                node.addresses.iter().map(|i| i.addr).find(of_family)
            }
            End::Host(name) => {
                let host = plan.hosts.iter().find(|h| h.name == *name)?;
                host.addresses.iter().copied().find(of_family)
            }
            End::Ip(addr) => Some(*addr).filter(of_family),
            End::Service { namespace, name } => {
                let service = self.cluster.object(services::SERVICE, namespace, name)?;
                let value = serde_json::to_value(service).ok()?;
                services::cluster_ips(&value).into_iter().find(of_family)
            }
            End::AnyPod | End::Fabric => None,
        }
    }

    /// Why nothing answers though policy lets it through: there is nobody at the address.
    fn nobody(&self, answer: &Explanation) -> Option<String> {
        let hosts = &self.cluster.plan().hosts;
        let there = |a: IpAddr| hosts.iter().any(|h| h.addresses.contains(&a));
        answer
            .paths
            .iter()
            .find(|p| p.allowed && p.to == verdict::End::Outside && !there(p.destination.0))
            .map(|p| format!("nothing has the address {}", p.destination.0))
    }

    fn is_source(&self, wanted: SourceIs, from: &End, sent_from: IpAddr, seen: IpAddr) -> bool {
        match wanted {
            SourceIs::Pod => seen == sent_from,
            SourceIs::Address(a) => seen == a,
            SourceIs::Node => {
                let node = match from {
                    End::Pod { namespace, name } => {
                        self.cluster.pod(namespace, name).map(|p| p.node.clone())
                    }
                    End::Node(n) => Some(n.clone()),
                    _ => None,
                };
                node.is_some_and(|n| {
                    self.world.holder(seen) == verdict::End::Node(n.as_str().into())
                })
            }
        }
    }
}

/// What decides, in a line for each way that the flow can take.
pub fn why(answer: &Explanation) -> String {
    let mut lines: Vec<String> = Vec::new();
    for p in &answer.paths {
        let line = match p.deciding() {
            Some(stage) => format!("{}: {}", stage.place, stage.decision),
            None => "no policy is about it".to_owned(),
        };
        if !lines.contains(&line) {
            lines.push(line);
        }
    }
    for note in &answer.notes {
        lines.push(format!("note: {note}"));
    }
    lines.join("\n")
}
