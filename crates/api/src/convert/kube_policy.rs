//! `networking.k8s.io/v1` NetworkPolicy.
//!
//! Facts: tier `default`, order 1000; every rule allows; one rule for each protocol and peer. A
//! rule that cannot be converted is dropped, which only ever allows less.

use super::{Cause, policy};
use crate::kinds::kube::{
    KubeEgressRule, KubeIngressRule, KubeNetworkPolicy, KubePeer, KubePolicyPort, KubePolicySpec,
    LabelSelector,
};
use crate::kinds::policy::{
    EntityRule, NetworkPolicy, PolicySpec, Rule, StagedKubernetesNetworkPolicy,
};
use crate::wire::{NumOrString, Number, Port};
use model::selector::Expr;
use model::{PolicyKind, Selector, Update};
use net::{Cidr, PortRange, Protocol};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The label that says who runs a workload.
pub(crate) const ORCHESTRATOR_LABEL: &str = "projectcalico.org/orchestrator";

pub(super) fn update(r: &KubeNetworkPolicy) -> Result<Update, Cause> {
    policy::policy_update(
        PolicyKind::KubernetesNetworkPolicy,
        Some(&r.metadata.namespace),
        &r.metadata.name,
        &PolicySpec {
            staged_action: String::new(),
            ..spec_to_v3(&r.spec)?
        },
    )
}

pub(super) fn staged_update(r: &StagedKubernetesNetworkPolicy) -> Result<Update, Cause> {
    policy::policy_update(
        PolicyKind::StagedKubernetesNetworkPolicy,
        Some(&r.metadata.namespace),
        &r.metadata.name,
        &spec_to_v3(&r.spec)?,
    )
}

/// The policy in Calico's terms, under the same name and namespace.
///
/// # Errors
/// When its pod selector or its types are none; Kubernetes' API server stores no such policy.
pub fn to_v3(r: &KubeNetworkPolicy) -> Result<NetworkPolicy, String> {
    Ok(NetworkPolicy {
        metadata: r.metadata.clone(),
        spec: spec_to_v3(&r.spec)?,
    })
}

fn spec_to_v3(s: &KubePolicySpec) -> Result<PolicySpec, Cause> {
    let none = LabelSelector::default();
    let selector = pods(s.pod_selector.as_ref().unwrap_or(&none))
        .map_err(|e| format!("spec.podSelector: {e}"))?;
    let ingress = s
        .ingress
        .iter()
        .filter_map(|r| ingress_rules(r).ok())
        .flatten()
        .collect();
    let egress = s
        .egress
        .iter()
        .filter_map(|r| egress_rules(r).ok())
        .flatten()
        .collect();
    let types = if s.policy_types.is_empty() {
        // What the API server would have filled in.
        let egress = (!s.egress.is_empty()).then(|| "Egress".to_owned());
        std::iter::once("Ingress".to_owned())
            .chain(egress)
            .collect()
    } else {
        s.policy_types.clone()
    };
    Ok(PolicySpec {
        staged_action: s.staged_action.clone(),
        tier: "default".to_owned(),
        order: Some(Number(1000.0)),
        selector: selector.as_str().to_owned(),
        ingress,
        egress,
        types,
        ..PolicySpec::default()
    })
}

fn ingress_rules(r: &KubeIngressRule) -> Result<Vec<Rule>, Cause> {
    rules(&r.ports, &r.from, |peer, ports| Rule {
        source: peer,
        destination: EntityRule {
            ports,
            ..EntityRule::default()
        },
        ..Rule::default()
    })
}

fn egress_rules(r: &KubeEgressRule) -> Result<Vec<Rule>, Cause> {
    rules(&r.ports, &r.to, |mut peer, ports| {
        peer.ports = ports;
        Rule {
            destination: peer,
            ..Rule::default()
        }
    })
}

fn rules(
    ports: &[KubePolicyPort],
    peers: &[KubePeer],
    build: impl Fn(EntityRule, Vec<Port>) -> Rule,
) -> Result<Vec<Rule>, Cause> {
    let anyone = vec![EntityRule::default()];
    let peers = if peers.is_empty() {
        anyone
    } else {
        peers.iter().map(peer).collect::<Result<_, _>>()?
    };
    let mut out = Vec::new();
    for (protocol, ports) in by_protocol(ports)? {
        for peer in &peers {
            let mut rule = build(peer.clone(), ports.clone());
            "Allow".clone_into(&mut rule.action);
            rule.protocol = protocol.map(|p| NumOrString::Text(p.to_string()));
            out.push(rule);
        }
    }
    Ok(out)
}

/// A protocol, or any, and its ports, or all.
type ProtocolPorts = (Option<Protocol>, Vec<Port>);

/// What a rule allows of each protocol, names before numbers; no ports is all of them. No
/// entries at all means each protocol.
fn by_protocol(ports: &[KubePolicyPort]) -> Result<Vec<ProtocolPorts>, Cause> {
    #[derive(Default)]
    struct Of {
        all: bool,
        names: Vec<String>,
        numbers: Vec<PortRange>,
    }
    if ports.is_empty() {
        return Ok(vec![(None, Vec::new())]);
    }
    let mut found: BTreeMap<String, (Protocol, Of)> = BTreeMap::new();
    for p in ports {
        let protocol: Protocol = match p.protocol.as_deref() {
            None | Some("") => Protocol::TCP,
            Some(t) => t.parse().map_err(|e| format!("protocol: {e}"))?,
        };
        let of = &mut found
            .entry(protocol.to_string())
            .or_insert((protocol, Of::default()))
            .1;
        match (&p.port, p.end_port) {
            (None, _) => of.all = true,
            (Some(NumOrString::Text(name)), _) if !of.names.contains(name) => {
                of.names.push(name.clone())
            }
            (Some(NumOrString::Text(_)), _) => {}
            (Some(NumOrString::Number(first)), end) => {
                let first = u16::try_from(*first).map_err(|e| format!("port: {e}"))?;
                let last = end
                    .map_or(Ok(first), u16::try_from)
                    .map_err(|e| format!("endPort: {e}"))?;
                let range = PortRange::new(first, last).ok_or("endPort is below port")?;
                of.numbers.push(range);
            }
        }
    }
    let ports_of = |of: Of| {
        if of.all {
            return Vec::new();
        }
        let numbers = PortRange::merge(of.numbers).into_iter();
        let numbers = numbers.map(|r| Port::Range(r.first(), r.last()));
        of.names
            .into_iter()
            .map(Port::Name)
            .chain(numbers)
            .collect()
    };
    Ok(found
        .into_values()
        .map(|(p, of)| (Some(p), ports_of(of)))
        .collect())
}

fn peer(p: &KubePeer) -> Result<EntityRule, Cause> {
    if let Some(block) = &p.ip_block {
        if let Some(bad) = [&block.cidr]
            .into_iter()
            .chain(&block.except)
            .find(|c| c.parse::<Cidr>().is_err())
        {
            return Err(format!("ipBlock: {bad:?} is no CIDR"));
        }
        return Ok(EntityRule {
            nets: vec![block.cidr.clone()],
            not_nets: block.except.clone(),
            ..EntityRule::default()
        });
    }
    let none = LabelSelector::default();
    let own = pods(p.pod_selector.as_ref().unwrap_or(&none))?;
    let namespace_selector = match &p.namespace_selector {
        None => String::new(),
        Some(s) => selector(s)?.as_str().to_owned(),
    };
    Ok(EntityRule {
        selector: own.as_str().to_owned(),
        namespace_selector,
        ..EntityRule::default()
    })
}

/// Only what Kubernetes runs: host endpoints and others that carry the same labels are not pods.
pub(super) fn pods(s: &LabelSelector) -> Result<Selector, Cause> {
    let mut parts = vec![Expr::Eq(ORCHESTRATOR_LABEL.into(), "k8s".into())];
    parts.extend(requirements(s)?);
    Ok(Selector::from_expr(all_of(parts)))
}

/// Kubernetes' selector over the labels of whatever it is about.
pub(super) fn selector(s: &LabelSelector) -> Result<Selector, Cause> {
    Ok(Selector::from_expr(all_of(requirements(s)?)))
}

fn all_of(mut parts: Vec<Expr>) -> Expr {
    match parts.pop() {
        None => Expr::All,
        Some(one) if parts.is_empty() => one,
        Some(last) => {
            parts.push(last);
            Expr::And(parts)
        }
    }
}

/// The selector goes through its text, where what is no label would mean something else.
fn plain(s: &LabelSelector) -> Result<(), Cause> {
    let key = |k: &str| {
        let chars = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'/' | b'-');
        !k.is_empty() && k.len() <= model::selector::MAX_LABEL && k.bytes().all(chars)
    };
    let value = |v: &str| !(v.contains('"') && v.contains('\''));
    let own = s.match_labels.iter().all(|(k, v)| key(k) && value(v));
    let further = &s.match_expressions;
    if own
        && further
            .iter()
            .all(|e| key(&e.key) && e.values.iter().all(|v| value(v)))
    {
        Ok(())
    } else {
        Err("a label selector names what is no label".to_owned())
    }
}

fn requirements(s: &LabelSelector) -> Result<Vec<Expr>, Cause> {
    plain(s)?;
    let mut out: Vec<Expr> = s
        .match_labels
        .iter()
        .map(|(k, v)| Expr::Eq(k.as_str().into(), v.as_str().into()))
        .collect();
    for r in &s.match_expressions {
        let key: Arc<str> = r.key.as_str().into();
        let mut values: Vec<Arc<str>> = r.values.iter().map(|v| v.as_str().into()).collect();
        values.sort_unstable();
        values.dedup();
        out.push(match r.operator.as_str() {
            "In" => Expr::In(key, values),
            "NotIn" => Expr::NotIn(key, values),
            "Exists" => Expr::Has(key),
            "DoesNotExist" => Expr::Not(Box::new(Expr::Has(key))),
            other => {
                return Err(format!(
                    "operator {other:?} is none of In, NotIn, Exists, DoesNotExist"
                ));
            }
        });
    }
    Ok(out)
}
