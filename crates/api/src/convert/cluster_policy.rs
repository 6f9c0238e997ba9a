//! `policy.networking.k8s.io/v1alpha2` ClusterNetworkPolicy.
//!
//! Facts: tier Admin is `kube-admin`, Baseline `kube-baseline`; the priority is the order; a direction
//! without rules is not governed. A rule of which anything is not understood matches nothing if
//! it accepts, and denies everything otherwise, as its API asks for.

use super::{Cause, kube_policy, policy};
use crate::kinds::cluster_policy::{
    ClusterNetworkPolicy, ClusterPeer, ClusterPort, ClusterProtocol, ClusterSubject, NamespacedPod,
};
use crate::kinds::kube::LabelSelector;
use crate::kinds::policy::{EntityRule, Rule, RuleMetadata};
use crate::wire::{NumOrString, Port};
use model::{Action, Policy, PolicyKey, PolicyKind, Selector, StagedAction, Update};
use net::{PortRange, Protocol};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The annotation of a converted rule that has its name.
const RULE_NAME: &str = "name";

pub(super) fn update(r: &ClusterNetworkPolicy) -> Result<Update, Cause> {
    let s = &r.spec;
    let tier = match s.tier.as_str() {
        "Admin" => "kube-admin",
        "Baseline" => "kube-baseline",
        other => {
            return Err(format!(
                "spec.tier: {other:?} is neither Admin nor Baseline"
            ));
        }
    };
    let ingress: Vec<_> = (s.ingress.iter())
        .flat_map(|r| rules(&r.name, &r.action, &r.from, &r.protocols, Side::Source))
        .collect();
    let egress: Vec<_> = (s.egress.iter())
        .flat_map(|r| rules(&r.name, &r.action, &r.to, &r.protocols, Side::Destination))
        .collect();
    // Validation wants it; what is stored without one is enforced all the same.
    let priority = s.priority.unwrap_or_default();
    let policy = Policy {
        tier: tier.into(),
        order: Some(f64::from(
            i32::try_from(priority).map_err(|e| format!("spec.priority: {e}"))?,
        )),
        selector: subject(&s.subject).map_err(|e| format!("spec.subject: {e}"))?,
        applies_ingress: !ingress.is_empty(),
        applies_egress: !egress.is_empty(),
        ingress,
        egress,
        untracked: false,
        pre_dnat: false,
        apply_on_forward: false,
        on_every_node: false,
        staged: StagedAction::Set,
    };
    let key = PolicyKey {
        kind: PolicyKind::KubernetesClusterNetworkPolicy,
        namespace: None,
        name: r.metadata.name.as_str().into(),
    };
    Ok(Update::Policy(key, Some(policy)))
}

fn subject(s: &ClusterSubject) -> Result<Selector, Cause> {
    let (pods, namespaces) = match (&s.namespaces, &s.pods) {
        (Some(n), None) => pods_of(&LabelSelector::default(), n)?,
        (None, Some(p)) => namespaced(p)?,
        _ => return Err("one of namespaces and pods must be set".to_owned()),
    };
    Ok(pods.and(&policy::over_namespaces(&namespaces)))
}

/// Selectors over the labels of pods, and over those of their namespaces.
fn pods_of(
    pods: &LabelSelector,
    namespaces: &LabelSelector,
) -> Result<(Selector, Selector), Cause> {
    Ok((kube_policy::pods(pods)?, kube_policy::selector(namespaces)?))
}

fn namespaced(p: &NamespacedPod) -> Result<(Selector, Selector), Cause> {
    pods_of(&p.pod_selector, &p.namespace_selector)
}

/// Where a rule's peers stand.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    /// Ingress rules.
    Source,
    /// Egress rules.
    Destination,
}

fn rules(
    name: &str,
    action: &str,
    peers: &[ClusterPeer],
    protocols: &[ClusterProtocol],
    side: Side,
) -> Vec<model::Rule> {
    let known = match action {
        "Accept" => Ok("Allow"),
        "Deny" | "Pass" => Ok(action),
        other => Err(format!("action {other:?} is none of Accept, Deny, Pass")),
    };
    let converted = known.and_then(|a| converted(name, a, peers, protocols, side));
    converted.unwrap_or_else(|_| match action {
        "Deny" | "Pass" => vec![model::Rule::any(Action::Deny)],
        _ => Vec::new(),
    })
}

fn converted(
    name: &str,
    action: &str,
    peers: &[ClusterPeer],
    protocols: &[ClusterProtocol],
    side: Side,
) -> Result<Vec<model::Rule>, Cause> {
    if peers.is_empty() {
        return Err("a rule needs a peer".to_owned());
    }
    let metadata = (!name.is_empty()).then(|| RuleMetadata {
        annotations: [(RULE_NAME.to_owned(), name.to_owned())].into(),
    });
    let mut out = Vec::new();
    for (protocol, ports) in by_protocol(protocols)? {
        for p in peers {
            let (peer, nodes, domains) = peer(p, action, side)?;
            let mut rule = Rule {
                action: action.to_owned(),
                protocol: protocol.map(|p| NumOrString::Text(p.to_string())),
                metadata: metadata.clone(),
                ..Rule::default()
            };
            match side {
                Side::Source => rule.source = peer,
                Side::Destination => rule.destination = peer,
            }
            rule.destination.ports.clone_from(&ports);
            let mut rule = policy::rule(&rule, None)?;
            if side == Side::Destination {
                rule.destination.nodes = nodes;
                rule.destination.domains = domains;
            }
            out.push(rule);
        }
    }
    Ok(out)
}

type Peer = (EntityRule, Option<Selector>, Vec<Arc<str>>);

fn peer(p: &ClusterPeer, action: &str, side: Side) -> Result<Peer, Cause> {
    let set = usize::from(p.namespaces.is_some())
        + usize::from(p.pods.is_some())
        + usize::from(p.nodes.is_some())
        + usize::from(!p.networks.is_empty())
        + usize::from(!p.domain_names.is_empty());
    if set != 1 {
        return Err("exactly one kind of peer must be set".to_owned());
    }
    let by_pods = match (&p.namespaces, &p.pods) {
        (Some(n), _) => Some(pods_of(&LabelSelector::default(), n)?),
        (_, Some(p)) => Some(namespaced(p)?),
        _ => None,
    };
    if let Some((pods, namespaces)) = by_pods {
        let entity = EntityRule {
            selector: pods.as_str().to_owned(),
            namespace_selector: namespaces.as_str().to_owned(),
            ..EntityRule::default()
        };
        return Ok((entity, None, Vec::new()));
    }
    if side == Side::Source {
        return Err("an ingress rule has no such peer".to_owned());
    }
    let mut entity = EntityRule::default();
    if let Some(nodes) = &p.nodes {
        return Ok((entity, Some(kube_policy::selector(nodes)?), Vec::new()));
    }
    if !p.domain_names.is_empty() {
        // What a name stands for is known only once somebody has asked for it: enough to allow, not to
        // deny.
        if action != "Allow" {
            return Err("domainNames can only be accepted".to_owned());
        }
        let names = p.domain_names.iter().map(|n| domain(n));
        return Ok((entity, None, names.collect::<Result<_, _>>()?));
    }
    entity.nets.clone_from(&p.networks);
    Ok((entity, None, Vec::new()))
}

/// In lower case and without the last dot.
fn domain(text: &str) -> Result<Arc<str>, Cause> {
    if !is_domain(text) {
        return Err(format!("{text:?} is no domain name"));
    }
    Ok(text.trim_end_matches('.').to_ascii_lowercase().into())
}

/// At least two labels, maybe `*.` in front, maybe a dot behind (the pattern of the API's own CRD).
pub(crate) fn is_domain(text: &str) -> bool {
    let rest = text.strip_prefix("*.").unwrap_or(text);
    let rest = rest.strip_suffix('.').unwrap_or(rest);
    let label = |l: &str| {
        let inner = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
        let edge = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
        let bytes = l.as_bytes();
        edge(bytes.first()) && edge(bytes.last()) && bytes.iter().all(|b| inner(*b))
    };
    text.len() <= 255 && rest.contains('.') && rest.split('.').all(label)
}

type ProtocolPorts = (Option<Protocol>, Vec<Port>);

/// What a rule matches of each protocol; no ports is all of them. No entries at all means each
/// protocol. Named ports go without a protocol: the pod has it.
fn by_protocol(list: &[ClusterProtocol]) -> Result<Vec<ProtocolPorts>, Cause> {
    if list.is_empty() {
        return Ok(vec![(None, Vec::new())]);
    }
    let mut names: Vec<Port> = Vec::new();
    // By number; `None` once a protocol is matched whatever the port.
    let mut found: BTreeMap<u8, Option<Vec<PortRange>>> = BTreeMap::new();
    for p in list {
        let given: Vec<_> = [
            (Protocol::TCP, &p.tcp),
            (Protocol::UDP, &p.udp),
            (Protocol::SCTP, &p.sctp),
        ]
        .into_iter()
        .filter_map(|(protocol, ports)| Some((protocol, ports.as_ref()?)))
        .collect();
        match (given.as_slice(), p.destination_named_port.as_str()) {
            ([], name) if !name.is_empty() => names.push(Port::Name(name.to_owned())),
            ([(protocol, ports)], "") => {
                let range = ports.destination_port.as_ref().map(port).transpose()?;
                let of = found.entry(protocol.0).or_insert_with(|| Some(Vec::new()));
                match (range, of) {
                    (None, of) => *of = None,
                    (Some(range), Some(list)) => list.push(range),
                    (Some(_), None) => {}
                }
            }
            _ => return Err("exactly one kind of protocol must be set".to_owned()),
        }
    }
    let mut out = Vec::new();
    if !names.is_empty() {
        names.sort_unstable();
        names.dedup();
        out.push((None, names));
    }
    for (protocol, ranges) in found {
        let merged = PortRange::merge(ranges.unwrap_or_default()).into_iter();
        let ports = merged.map(|r| Port::Range(r.first(), r.last()));
        out.push((Some(Protocol(protocol)), ports.collect()));
    }
    Ok(out)
}

fn port(p: &ClusterPort) -> Result<PortRange, Cause> {
    let number = |n: i64| {
        let fits = u16::try_from(n).ok().filter(|n| *n > 0);
        fits.ok_or_else(|| format!("{n} is no port"))
    };
    match (p.number, &p.range) {
        (n, None) => number(n).map(PortRange::one),
        (0, Some(r)) => PortRange::new(number(r.start)?, number(r.end)?)
            .ok_or_else(|| format!("port range {}-{} is invalid", r.start, r.end)),
        _ => Err("exactly one of number and range must be set".to_owned()),
    }
}
