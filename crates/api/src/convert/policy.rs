//! Tiers and policies: selectors compiled, rules typed.

use super::Cause;
use crate::kinds::policy::{
    EntityRule, GlobalNetworkPolicy, IcmpFields, NetworkPolicy, PolicySpec, Rule, Tier,
};
use crate::wire::{NumOrString, Port};
use model::selector::{Expr, NAMESPACE_LABEL};
use model::{
    Action, Entity, Icmp, Policy, PolicyKey, PolicyKind, Selector, StagedAction, TierAction, Update,
};
use net::{Cidr, Family, PortRange, Protocol};
use std::sync::Arc;

/// The label that names an endpoint's service account.
pub(crate) const SERVICE_ACCOUNT_LABEL: &str = "projectcalico.org/serviceaccount";

/// Prefix of the labels of an endpoint's namespace.
pub(crate) const NAMESPACE_PREFIX: &str = "pcns.";

/// Prefix of the labels of an endpoint's service account.
pub(crate) const SERVICE_ACCOUNT_PREFIX: &str = "pcsa.";

pub(super) fn tier_update(r: &Tier) -> Result<Update, Cause> {
    let default_action = match r.spec.default_action.to_ascii_lowercase().as_str() {
        "" | "deny" => TierAction::Deny,
        "pass" => TierAction::Pass,
        other => {
            return Err(format!(
                "spec.defaultAction: {other:?} is neither Deny nor Pass"
            ));
        }
    };
    let tier = model::Tier {
        order: r.spec.order.map(|o| o.0),
        default_action,
    };
    Ok(Update::Tier(r.metadata.name.as_str().into(), Some(tier)))
}

pub(super) fn network_policy_update(r: &NetworkPolicy) -> Result<Update, Cause> {
    policy_update(
        PolicyKind::NetworkPolicy,
        Some(&r.metadata.namespace),
        &r.metadata.name,
        &r.spec,
    )
}

pub(super) fn global_policy_update(r: &GlobalNetworkPolicy) -> Result<Update, Cause> {
    policy_update(
        PolicyKind::GlobalNetworkPolicy,
        None,
        &r.metadata.name,
        &r.spec,
    )
}

pub(super) fn policy_update(
    kind: PolicyKind,
    namespace: Option<&str>,
    name: &str,
    spec: &PolicySpec,
) -> Result<Update, Cause> {
    let key = PolicyKey {
        kind,
        namespace: namespace.map(Arc::from),
        name: name.into(),
    };
    let (applies_ingress, applies_egress) = types(spec)?;
    let rules = |dir: &str, rules: &[Rule]| -> Result<Vec<model::Rule>, Cause> {
        let one =
            |(i, r): (usize, &Rule)| rule(r, namespace).map_err(|e| format!("spec.{dir}[{i}].{e}"));
        rules.iter().enumerate().map(one).collect()
    };
    let policy = Policy {
        tier: if spec.tier.is_empty() {
            "default".into()
        } else {
            spec.tier.as_str().into()
        },
        order: spec.order.map(|o| o.0),
        selector: subject(spec, namespace)?,
        applies_ingress,
        applies_egress,
        ingress: rules("ingress", &spec.ingress)?,
        egress: rules("egress", &spec.egress)?,
        untracked: spec.do_not_track,
        pre_dnat: spec.pre_dnat,
        apply_on_forward: spec.apply_on_forward,
        on_every_node: spec
            .performance_hints
            .iter()
            .any(|h| h == "AssumeNeededOnEveryNode"),
        staged: staged(&spec.staged_action)?,
    };
    Ok(Update::Policy(key, Some(policy)))
}

/// What a staged policy stands for; nothing is `Set`.
pub(super) fn staged(text: &str) -> Result<StagedAction, Cause> {
    match text {
        "" | "Set" => Ok(StagedAction::Set),
        "Delete" => Ok(StagedAction::Delete),
        "Learn" => Ok(StagedAction::Learn),
        "Ignore" => Ok(StagedAction::Ignore),
        _ => Err(format!(
            "spec.stagedAction: {text:?} is none of Set, Delete, Learn, Ignore"
        )),
    }
}

/// Which directions a policy governs: as it says, or else as its rules suggest.
pub(crate) fn types(spec: &PolicySpec) -> Result<(bool, bool), Cause> {
    if spec.types.is_empty() {
        let egress = !spec.egress.is_empty();
        return Ok((!egress || !spec.ingress.is_empty(), egress));
    }
    let (mut ingress, mut egress) = (false, false);
    for t in &spec.types {
        match t.to_ascii_lowercase().as_str() {
            "ingress" => ingress = true,
            "egress" => egress = true,
            _ => return Err(format!("spec.types: {t:?} is neither Ingress nor Egress")),
        }
    }
    Ok((ingress, egress))
}

pub(crate) fn parse_selector(field: &str, text: &str) -> Result<Selector, Cause> {
    Selector::parse(text).map_err(|e| format!("{field}: {e}"))
}

/// `namespace == ns`
fn in_namespace(ns: &str) -> Selector {
    Selector::from_expr(Expr::Eq(NAMESPACE_LABEL.into(), ns.into()))
}

/// A selector over the labels of namespaces or accounts, as one over those of endpoints: `all()` is
/// whatever has `label`, `global()` what has not.
fn over(selector: &Selector, prefix: &str, label: &str) -> Selector {
    fn map(e: &Expr, has: &Expr) -> Expr {
        match e {
            Expr::All => has.clone(),
            Expr::Global => Expr::Not(Box::new(has.clone())),
            Expr::Not(e) => Expr::Not(Box::new(map(e, has))),
            Expr::And(v) => Expr::And(v.iter().map(|e| map(e, has)).collect()),
            Expr::Or(v) => Expr::Or(v.iter().map(|e| map(e, has)).collect()),
            e => e.clone(),
        }
    }
    Selector::from_expr(map(
        selector.prefixed(prefix).expr(),
        &Expr::Has(label.into()),
    ))
}

/// What a selector over namespaces' labels means for endpoints.
pub(super) fn over_namespaces(selector: &Selector) -> Selector {
    over(selector, NAMESPACE_PREFIX, NAMESPACE_LABEL)
}

/// Which endpoints a policy is for.
fn subject(spec: &PolicySpec, namespace: Option<&str>) -> Result<Selector, Cause> {
    let mut selector = parse_selector("spec.selector", &spec.selector)?;
    if !spec.service_account_selector.is_empty() {
        let s = parse_selector(
            "spec.serviceAccountSelector",
            &spec.service_account_selector,
        )?;
        selector = selector.and(&over(&s, SERVICE_ACCOUNT_PREFIX, SERVICE_ACCOUNT_LABEL));
    }
    match namespace {
        Some(ns) => selector = selector.and(&in_namespace(ns)),
        None if !spec.namespace_selector.is_empty() => {
            let s = parse_selector("spec.namespaceSelector", &spec.namespace_selector)?;
            selector = selector.and(&over(&s, NAMESPACE_PREFIX, NAMESPACE_LABEL));
        }
        None => {}
    }
    Ok(selector)
}

pub(super) fn rule(r: &Rule, namespace: Option<&str>) -> Result<model::Rule, Cause> {
    let family = match r.ip_version {
        None => None,
        Some(v) => Some(
            u8::try_from(v)
                .ok()
                .and_then(Family::from_number)
                .ok_or_else(|| format!("ipVersion: {v} is neither 4 nor 6"))?,
        ),
    };
    let annotations = r.metadata.iter().flat_map(|m| &m.annotations);
    Ok(model::Rule {
        action: action(&r.action)?,
        family,
        protocol: protocol("protocol", r.protocol.as_ref())?,
        not_protocol: protocol("notProtocol", r.not_protocol.as_ref())?,
        icmp: icmp("icmp", r.icmp.as_ref())?,
        not_icmp: icmp("notICMP", r.not_icmp.as_ref())?,
        source: entity(&r.source, namespace).map_err(|e| format!("source.{e}"))?,
        destination: entity(&r.destination, namespace).map_err(|e| format!("destination.{e}"))?,
        annotations: annotations
            .map(|(k, v)| (k.as_str().into(), v.as_str().into()))
            .collect(),
    })
}

/// In any case, and in the spelling of the older API.
pub(crate) fn action(text: &str) -> Result<Action, Cause> {
    match text.to_ascii_lowercase().as_str() {
        "allow" => Ok(Action::Allow),
        "deny" => Ok(Action::Deny),
        "log" => Ok(Action::Log),
        "pass" | "next-tier" => Ok(Action::Pass),
        _ => Err(format!(
            "action: {text:?} is none of Allow, Deny, Log, Pass"
        )),
    }
}

/// By name in any case, or by number; 0 matches each.
fn protocol(field: &str, p: Option<&NumOrString>) -> Result<Option<Protocol>, Cause> {
    let Some(p) = p else { return Ok(None) };
    let p: Protocol = p.to_string().parse().map_err(|e| format!("{field}: {e}"))?;
    Ok((p.0 != 0).then_some(p))
}

fn icmp(field: &str, i: Option<&IcmpFields>) -> Result<Option<Icmp>, Cause> {
    let byte = |n: Option<i64>| {
        n.map(|n| u8::try_from(n).map_err(|_| format!("{field}: {n} is not between 0 and 255")))
            .transpose()
    };
    let Some(i) = i else { return Ok(None) };
    let icmp = Icmp {
        icmp_type: byte(i.kind)?,
        code: byte(i.code)?,
    };
    Ok((icmp.icmp_type.is_some() || icmp.code.is_some()).then_some(icmp))
}

fn nets(field: &str, list: &[String]) -> Result<Vec<Cidr>, Cause> {
    list.iter()
        .map(|n| n.parse().map_err(|e| format!("{field}: {e}")))
        .collect()
}

type Ports = (Vec<PortRange>, Vec<Arc<str>>);

fn ports(field: &str, list: &[Port]) -> Result<Ports, Cause> {
    let (mut numbers, mut names): Ports = (Vec::new(), Vec::new());
    for p in list {
        match p {
            Port::Name(n) => names.push(n.as_str().into()),
            Port::Range(a, b) => numbers.push(
                PortRange::new(*a, *b)
                    .ok_or_else(|| format!("{field}: port range {p} is invalid"))?,
            ),
        }
    }
    Ok((numbers, names))
}

fn entity(e: &EntityRule, namespace: Option<&str>) -> Result<Entity, Cause> {
    let (ports_, named_ports) = ports("ports", &e.ports)?;
    let (not_ports, not_named_ports) = ports("notPorts", &e.not_ports)?;
    let service = match &e.services {
        None => None,
        Some(s) => {
            let ns = if s.namespace.is_empty() {
                namespace.unwrap_or_default()
            } else {
                &s.namespace
            };
            Some(model::ServiceRef {
                namespace: ns.into(),
                name: s.name.as_str().into(),
            })
        }
    };
    Ok(Entity {
        nets: nets("nets", &e.nets)?,
        not_nets: nets("notNets", &e.not_nets)?,
        selector: peers(e, namespace)?,
        not_selector: match e.not_selector.as_str() {
            "" => None,
            t => Some(parse_selector("notSelector", t)?),
        },
        ports: ports_,
        named_ports,
        not_ports,
        not_named_ports,
        service,
        nodes: None,
        domains: Vec::new(),
    })
}

/// The compiled positive selector. In a namespaced policy, whatever selects by labels without saying
/// which namespaces stays within the policy's own.
fn peers(e: &EntityRule, namespace: Option<&str>) -> Result<Option<Selector>, Cause> {
    let mut parts = Vec::new();
    let by_labels =
        !e.selector.is_empty() || !e.not_selector.is_empty() || e.service_accounts.is_some();
    if !e.namespace_selector.is_empty() {
        let s = parse_selector("namespaceSelector", &e.namespace_selector)?;
        parts.push(over(&s, NAMESPACE_PREFIX, NAMESPACE_LABEL));
    } else if let (Some(ns), true) = (namespace, by_labels) {
        parts.push(in_namespace(ns));
    }
    if !e.selector.is_empty() {
        parts.push(parse_selector("selector", &e.selector)?);
    }
    if let Some(accounts) = &e.service_accounts {
        if !accounts.names.is_empty() {
            let mut names: Vec<Arc<str>> =
                accounts.names.iter().map(|n| n.as_str().into()).collect();
            names.sort_unstable();
            names.dedup();
            parts.push(Selector::from_expr(Expr::In(
                SERVICE_ACCOUNT_LABEL.into(),
                names,
            )));
        }
        if !accounts.selector.is_empty() {
            let s = parse_selector("serviceAccounts.selector", &accounts.selector)?;
            parts.push(over(&s, SERVICE_ACCOUNT_PREFIX, SERVICE_ACCOUNT_LABEL));
        }
    }
    Ok(parts.into_iter().reduce(|a, b| a.and(&b)))
}
