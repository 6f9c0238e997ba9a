//! Reading scenario files.
//!
//! Promises: a file is read whole or refused with file and line; every end that an
//! expectation names exists at that step; `*` and the families are spelled out.
//!
//! Never: runs anything. The format is in `formats/scenario.md`.

use crate::check::{Check, Flow, SourceIs};
use crate::ends::{End, Port};
use crate::plan::{Encapsulation, FamilySet, HostPlan, HostSpec, Plan, Spec, Topology};
use crate::{cluster, services};
use api::{Resource, ResourceKind, parse_documents};
use net::{Family, Protocol};
use serde::Deserialize;
use serde_json::{Value, json};
use serde_saphyr::Spanned;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::net::IpAddr;
use std::path::Path;

/// A file that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScenarioError {
    /// The file, as given.
    pub file: String,
    /// From 1; 0 where it is not one line's fault.
    pub line: u64,
    /// What is wrong.
    pub message: String,
}

impl fmt::Display for ScenarioError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}: {}", self.file, self.message),
            line => write!(f, "{}:{line}: {}", self.file, self.message),
        }
    }
}

impl std::error::Error for ScenarioError {}

/// A scenario, ready to run.
#[derive(Debug)]
pub struct Scenario {
    /// For people.
    pub name: String,
    /// The cluster.
    pub spec: Spec,
    /// Applied before the first step, in dependency order as written; pods last.
    pub objects: Vec<Resource>,
    /// In order.
    pub steps: Vec<Step>,
}

/// Changes, and what must then hold.
#[derive(Debug)]
pub struct Step {
    /// For people.
    pub name: String,
    /// Created or updated.
    pub apply: Vec<Resource>,
    /// Deleted, before anything is applied.
    pub delete: Vec<Resource>,
    /// What must hold.
    pub checks: Vec<Check>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    name: Option<String>,
    nodes: Option<u8>,
    topology: Option<Topology>,
    families: Option<Vec<String>>,
    #[serde(default)]
    settings: RawSettings,
    #[serde(default)]
    objects: Vec<Spanned<Value>>,
    #[serde(default)]
    pods: Vec<Spanned<RawPod>>,
    #[serde(default)]
    hosts: Vec<HostSpec>,
    #[serde(default)]
    steps: Vec<Spanned<RawStep>>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct RawSettings {
    encapsulation: Option<Encapsulation>,
    #[serde(rename = "WireGuard", alias = "wireguard", alias = "wireGuard")]
    wireguard: Option<bool>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct RawPod {
    namespace: Option<String>,
    name: String,
    node: Option<String>,
    #[serde(default)]
    labels: Value,
    service_account: Option<String>,
    #[serde(default)]
    annotations: Value,
    #[serde(default)]
    ports: Vec<Value>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawStep {
    name: Option<String>,
    #[serde(default)]
    apply: Vec<Spanned<Value>>,
    #[serde(default)]
    delete: Vec<Spanned<Value>>,
    #[serde(default)]
    expect: Vec<Spanned<RawExpect>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct RawExpect {
    from: String,
    to: String,
    port: Option<u16>,
    protocol: Option<String>,
    verdict: String,
    icmp_type: Option<u8>,
    icmp_code: Option<u8>,
    source: Option<String>,
}

/// How the files are read that a scenario names with `{file: path}`.
pub trait Files {
    /// The text of a file.
    ///
    /// # Errors
    /// Why it cannot be read.
    fn text(&self, path: &Path) -> io::Result<String>;
}

impl<F: Fn(&Path) -> io::Result<String>> Files for F {
    fn text(&self, path: &Path) -> io::Result<String> {
        self(path)
    }
}

/// Reads a text that came from `file`.
///
/// # Errors
/// The first thing that makes it unusable, with its line.
pub fn parse(text: &str, file: &str, files: &dyn Files) -> Result<Scenario, ScenarioError> {
    read(
        text,
        &Reader {
            file,
            files,
            made: false,
        },
    )
}

/// Reads a text that this program made: its objects have no field that they should not.
pub(crate) fn parse_made(text: &str) -> Result<Scenario, ScenarioError> {
    let nothing = |p: &Path| -> io::Result<String> {
        Err(io::Error::new(
            io::ErrorKind::NotFound,
            p.display().to_string(),
        ))
    };
    let reader = Reader {
        file: "made.yaml",
        files: &nothing,
        made: true,
    };
    read(text, &reader)
}

fn read(text: &str, reader: &Reader<'_>) -> Result<Scenario, ScenarioError> {
    let file = reader.file;
    // As in manifests: `n` is a name, not "no".
    let words = serde_saphyr::options! { strict_booleans: true };
    let raw: Raw = serde_saphyr::from_str_with_options(text, words).map_err(|e| ScenarioError {
        file: file.to_owned(),
        line: e.location().map_or(0, |l| l.line()),
        message: first_line(&e.to_string()),
    })?;
    let families = match &raw.families {
        Some(list) => FamilySet::from_names(list.iter().map(String::as_str))
            .map_err(|m| reader.error(0, m))?,
        None => FamilySet::V4,
    };
    let encapsulation = raw.settings.encapsulation.unwrap_or_default();
    let mut objects = Vec::new();
    for o in &raw.objects {
        objects.extend(reader.objects(o)?);
    }
    for p in &raw.pods {
        objects.push(reader.pod(p)?);
    }
    let own_pools = has_pools(&mut objects, raw.settings.encapsulation);
    let spec = Spec {
        name: String::new(),
        nodes: raw.nodes.unwrap_or(2),
        topology: raw.topology.unwrap_or_default(),
        families,
        hosts: raw.hosts,
        default_pools: !own_pools,
        encapsulation,
        wireguard: raw.settings.wireguard.unwrap_or(false),
    };
    if !(1..=100).contains(&spec.nodes) {
        return Err(reader.error(0, format!("{} nodes: from 1 to 100", spec.nodes)));
    }
    let plan = spec.plan().map_err(|e| reader.error(0, e.to_string()))?;
    let of_host = |h: &HostPlan| (h.name.clone(), families_in(h.addresses.iter().copied()));
    let mut scope = Scope {
        pods: objects.iter().filter_map(pod_of).collect(),
        nodes: plan.nodes.iter().map(|n| n.name.clone()).collect(),
        hosts: plan.hosts.iter().map(of_host).collect(),
        services: BTreeMap::new(),
        families,
        plan,
        allocator: services::Allocator::default(),
    };
    scope.complete(&mut objects);
    let mut steps = Vec::new();
    for (i, s) in raw.steps.iter().enumerate() {
        steps.push(reader.step(i, s, &mut scope)?);
    }
    let objects = in_order(add_namespaces(objects));
    let name = raw.name.unwrap_or_else(|| file.to_owned());
    Ok(Scenario {
        name,
        spec,
        objects,
        steps,
    })
}

fn first_line(s: &str) -> String {
    s.lines()
        .find(|l| !l.trim().is_empty())
        .unwrap_or("not YAML")
        .trim()
        .to_owned()
}

/// Whether there are pools among the objects. Those that say nothing of encapsulation
/// get that of the settings.
fn has_pools(objects: &mut [Resource], encapsulation: Option<Encapsulation>) -> bool {
    let mut any = false;
    for o in objects {
        if o.kind() != ResourceKind::IpPool {
            continue;
        }
        any = true;
        let Some(wanted) = encapsulation else {
            continue;
        };
        let Ok(mut value) = serde_json::to_value(&*o) else {
            continue;
        };
        if value["spec"].get("vxlanMode").is_none() && value["spec"].get("ipipMode").is_none() {
            let (vxlan, ipip) = wanted.modes();
            value["spec"]["vxlanMode"] = json!(vxlan);
            value["spec"]["ipipMode"] = json!(ipip);
            if let Some(Ok((pool, _))) = parse_documents(&value.to_string(), "").pop() {
                *o = pool;
            }
        }
    }
    any
}

fn pod_of(r: &Resource) -> Option<(String, String)> {
    match r {
        Resource::Pod(p) => Some((namespace(&p.metadata.namespace), p.metadata.name.clone())),
        _ => None,
    }
}

fn namespace(n: &str) -> String {
    if n.is_empty() {
        "default".to_owned()
    } else {
        n.to_owned()
    }
}

/// Namespaces that something is in and that nobody declares.
fn add_namespaces(mut objects: Vec<Resource>) -> Vec<Resource> {
    let declared: BTreeSet<String> = objects
        .iter()
        .filter(|o| o.kind() == ResourceKind::Namespace)
        .map(|o| o.meta().name.clone())
        .collect();
    let used: BTreeSet<String> = objects
        .iter()
        .filter_map(Resource::namespace)
        .map(namespace)
        .filter(|n| !declared.contains(n))
        .collect();
    for name in used {
        let mut ns = ResourceKind::Namespace.empty();
        ns.meta_mut().name = name;
        objects.push(ns);
    }
    objects
}

/// Namespaces, tiers and pools before what needs them, pods last: written files have their
/// objects in any order.
pub fn in_order(mut objects: Vec<Resource>) -> Vec<Resource> {
    objects.sort_by_key(|o| match o.kind() {
        ResourceKind::Namespace => 0,
        ResourceKind::Tier | ResourceKind::IpPool | ResourceKind::ServiceAccount => 1,
        ResourceKind::Pod => 3,
        _ => 2,
    });
    objects
}

/// What exists at a step.
struct Scope {
    pods: BTreeSet<(String, String)>,
    nodes: BTreeSet<String>,
    hosts: BTreeMap<String, Vec<Family>>,
    services: BTreeMap<(String, String), Vec<Family>>,
    families: FamilySet,
    plan: Plan,
    allocator: services::Allocator,
}

fn families_in(addresses: impl IntoIterator<Item = IpAddr>) -> Vec<Family> {
    let have: BTreeSet<bool> = addresses.into_iter().map(|a| a.is_ipv6()).collect();
    let family = |v6: bool| if v6 { Family::V6 } else { Family::V4 };
    have.into_iter().map(family).collect()
}

struct Reader<'a> {
    file: &'a str,
    files: &'a dyn Files,
    made: bool,
}

impl Reader<'_> {
    fn error(&self, line: u64, message: impl Into<String>) -> ScenarioError {
        ScenarioError {
            file: self.file.to_owned(),
            line,
            message: message.into(),
        }
    }

    /// One entry: an object, or `{file: path}` with any number of them.
    fn objects(&self, v: &Spanned<Value>) -> Result<Vec<Resource>, ScenarioError> {
        let line = v.referenced.line();
        if self.made {
            let r = cluster::resource(&v.value).map_err(|e| self.error(line, e))?;
            return Ok(vec![in_namespace(r)]);
        }
        let parsed = match v.value.as_object() {
            Some(o) if o.len() == 1 && o.contains_key("file") => {
                let path = o["file"]
                    .as_str()
                    .ok_or_else(|| self.error(line, "file: a path"))?;
                let path = Path::new(self.file)
                    .parent()
                    .unwrap_or(Path::new(""))
                    .join(path);
                let text = self
                    .files
                    .text(&path)
                    .map_err(|e| self.error(line, format!("{}: {e}", path.display())))?;
                let parsed = parse_documents(&text, &path.display().to_string());
                return parsed
                    .into_iter()
                    .map(|d| d.map(|(r, _)| in_namespace(r)))
                    .collect::<Result<_, _>>()
                    .map_err(|e| self.error(line, e.to_string()));
            }
            _ => parse_documents(&v.value.to_string(), self.file),
        };
        let mut out = Vec::new();
        for d in parsed {
            let (r, _) = d.map_err(|e| self.error(line, e.problem.to_string()))?;
            out.push(in_namespace(r));
        }
        Ok(out)
    }

    fn pod(&self, p: &Spanned<RawPod>) -> Result<Resource, ScenarioError> {
        let line = p.referenced.line();
        let p = &p.value;
        let or_empty = |v: &Value| if v.is_null() { json!({}) } else { v.clone() };
        let pod = json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": p.name,
                "namespace": namespace(p.namespace.as_deref().unwrap_or("")),
                "labels": or_empty(&p.labels),
                "annotations": or_empty(&p.annotations),
            },
            "spec": {
                "nodeName": p.node.clone().unwrap_or_default(),
                "serviceAccountName": p.service_account.clone().unwrap_or_default(),
                "containers": [{"name": p.name, "ports": p.ports}],
            },
        });
        cluster::resource(&pod).map_err(|e| self.error(line, e))
    }

    fn step(
        &self,
        index: usize,
        s: &Spanned<RawStep>,
        scope: &mut Scope,
    ) -> Result<Step, ScenarioError> {
        let mut step = Step {
            name: s
                .value
                .name
                .clone()
                .unwrap_or_else(|| format!("step {}", index + 1)),
            apply: Vec::new(),
            delete: Vec::new(),
            checks: Vec::new(),
        };
        for d in &s.value.delete {
            step.delete.extend(self.objects(d)?);
        }
        for a in &s.value.apply {
            step.apply.extend(self.objects(a)?);
        }
        for gone in &step.delete {
            if let Some(pod) = pod_of(gone) {
                scope.pods.remove(&pod);
            }
            if services::is(gone, services::SERVICE) {
                scope.services.remove(&named(gone));
            }
        }
        scope.pods.extend(step.apply.iter().filter_map(pod_of));
        scope.complete(&mut step.apply);
        step.apply = in_order(step.apply);
        for e in &s.value.expect {
            step.checks.extend(self.expect(e, scope)?);
        }
        Ok(step)
    }

    fn expect(&self, e: &Spanned<RawExpect>, scope: &Scope) -> Result<Vec<Check>, ScenarioError> {
        let line = e.referenced.line();
        let e = &e.value;
        let fail = |m: String| self.error(line, m);
        let allow = match e.verdict.as_str() {
            "allow" => true,
            "deny" => false,
            v => return Err(fail(format!("verdict {v:?} is neither allow nor deny"))),
        };
        let port = port(e).map_err(fail)?;
        let source = e.source.as_deref().map(source).transpose().map_err(fail)?;
        let from: End = e.from.parse().map_err(fail)?;
        let to: End = e.to.parse().map_err(fail)?;
        if matches!(from, End::Ip(_) | End::Service { .. }) {
            return Err(fail(format!(
                "{from} cannot send: from is a pod, a node, a host or *"
            )));
        }
        for end in [&from, &to] {
            scope.check(end).map_err(fail)?;
        }
        let mut checks = Vec::new();
        for from in scope.expand(&from, &to) {
            for to in scope.expand(&to, &from) {
                for family in scope.families_of(&from, &to) {
                    let family = Some(family.into());
                    let flow = Flow {
                        from: from.clone(),
                        to: to.clone(),
                        port,
                        family,
                    };
                    checks.push(Check {
                        flow,
                        allow,
                        source,
                    });
                }
            }
        }
        Ok(checks)
    }
}

fn in_namespace(mut r: Resource) -> Resource {
    if r.kind().namespaced() && r.meta().namespace.is_empty() {
        "default".clone_into(&mut r.meta_mut().namespace);
    }
    r
}

fn port(e: &RawExpect) -> Result<Port, String> {
    let name = e.protocol.as_deref().unwrap_or("TCP");
    let protocol: Protocol = name.parse().map_err(|e| format!("{e}"))?;
    let icmp = protocol == Protocol::ICMP || protocol == Protocol::ICMPV6;
    match (icmp, e.port) {
        (true, Some(p)) => Err(format!("port {p}: ICMP has no ports")),
        (true, None) => Ok(match (e.icmp_type, e.icmp_code) {
            (None, Some(_)) => return Err("icmpCode without icmpType".to_owned()),
            (None, None) => Port::ECHO,
            (Some(t), c) => Port {
                icmp: Some((t, c.unwrap_or(0))),
                ..Port::ECHO
            },
        }),
        (false, _) if !protocol.has_ports() => Err(format!(
            "protocol {name:?} is none of TCP, UDP, SCTP and ICMP"
        )),
        (false, _) if e.icmp_type.is_some() || e.icmp_code.is_some() => {
            Err(format!("icmpType: the protocol is {protocol}"))
        }
        (false, Some(0) | None) => Err(format!("port is missing: {protocol} needs one")),
        (false, Some(number)) => Ok(Port::new(protocol, number)),
    }
}

fn source(text: &str) -> Result<SourceIs, String> {
    match text {
        "pod" => Ok(SourceIs::Pod),
        "node" => Ok(SourceIs::Node),
        other => other
            .parse()
            .map(SourceIs::Address)
            .map_err(|_| format!("source {other:?} is neither pod, node nor an address")),
    }
}

impl Scope {
    fn check(&self, end: &End) -> Result<(), String> {
        let unknown = |what: &str, known: Vec<String>| {
            Err(format!(
                "there is no {what} at this step; there are {}",
                known.join(", ")
            ))
        };
        match end {
            End::Pod { namespace, name } => {
                if self.pods.contains(&(namespace.clone(), name.clone())) {
                    return Ok(());
                }
                let known = self.pods.iter().map(|(n, p)| format!("{n}/{p}")).collect();
                unknown(&format!("pod {end}"), known)
            }
            End::Node(n) if !self.nodes.contains(n) => {
                unknown(&format!("node {n:?}"), self.nodes.iter().cloned().collect())
            }
            End::Host(h) if !self.hosts.contains_key(h) => {
                unknown(&format!("host {h:?}"), self.hosts.keys().cloned().collect())
            }
            End::Service { namespace, name }
                if !self
                    .services
                    .contains_key(&(namespace.clone(), name.clone())) =>
            {
                let known = self
                    .services
                    .keys()
                    .map(|(n, s)| format!("service/{n}/{s}"));
                unknown(&format!("{end}"), known.collect())
            }
            _ => Ok(()),
        }
    }

    fn expand(&self, end: &End, other: &End) -> Vec<End> {
        match end {
            End::AnyPod => self
                .pods
                .iter()
                .map(|(namespace, name)| End::pod(namespace, name))
                .filter(|p| p != other)
                .collect(),
            one => vec![one.clone()],
        }
    }

    /// The families in which a flow is checked: those of the scenario that hosts and services at
    /// its ends have; an address has its own.
    fn families_of(&self, from: &End, to: &End) -> Vec<Family> {
        if let End::Ip(addr) = to {
            return vec![Family::of(*addr)];
        }
        let has = |end: &End, f: Family| match end {
            End::Host(h) => self.hosts.get(h).is_none_or(|have| have.contains(&f)),
            End::Service { namespace, name } => self
                .services
                .get(&(namespace.clone(), name.clone()))
                .is_none_or(|have| have.is_empty() || have.contains(&f)),
            _ => true,
        };
        let all = self.families.iter();
        all.filter(|f| has(from, *f) && has(to, *f)).collect()
    }

    /// Gives services their addresses and nodes theirs, where the file does not say.
    fn complete(&mut self, objects: &mut [Resource]) {
        for r in objects {
            if services::is(r, services::SERVICE) {
                let Ok(mut value) = serde_json::to_value(&*r) else {
                    continue;
                };
                if self.allocator.complete(&mut value, self.families)
                    && let Ok(done) = cluster::resource(&value)
                {
                    *r = done;
                }
                let have = families_in(services::cluster_ips(&value));
                self.services.insert(named(r), have);
            }
            if let Resource::Node(node) = r
                && node.spec.bgp.is_none()
                && let Some(planned) = self
                    .plan
                    .nodes
                    .iter()
                    .find(|n| n.name == node.metadata.name)
                && let Ok(Resource::Node(full)) = cluster::resource(&planned.object())
            {
                node.spec.bgp = full.spec.bgp;
            }
        }
    }
}

fn named(r: &Resource) -> (String, String) {
    let space = namespace(r.namespace().unwrap_or_default());
    (space, r.meta().name.clone())
}

#[cfg(test)]
mod tests;
