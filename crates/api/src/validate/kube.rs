//! Kubernetes' NetworkPolicy: what its API server refuses.

use super::Check;
use crate::kinds::kube::{KubePeer, KubePolicyPort, KubePolicySpec, LabelSelector};
use crate::wire::NumOrString;
use net::Cidr;

pub(super) fn policy(c: &mut Check, s: &KubePolicySpec) {
    if let Some(p) = &s.pod_selector {
        labels(c, "spec.podSelector", p);
    }
    for (i, t) in s.policy_types.iter().enumerate() {
        c.one_of(&format!("spec.policyTypes[{i}]"), t, &["Ingress", "Egress"]);
    }
    for (i, r) in s.ingress.iter().enumerate() {
        rule(c, &format!("spec.ingress[{i}]"), &r.ports, "from", &r.from);
    }
    for (i, r) in s.egress.iter().enumerate() {
        rule(c, &format!("spec.egress[{i}]"), &r.ports, "to", &r.to);
    }
}

fn rule(c: &mut Check, at: &str, ports: &[KubePolicyPort], side: &str, peers: &[KubePeer]) {
    for (i, p) in ports.iter().enumerate() {
        port(c, &format!("{at}.ports[{i}]"), p);
    }
    for (i, p) in peers.iter().enumerate() {
        peer(c, &format!("{at}.{side}[{i}]"), p);
    }
}

fn port(c: &mut Check, at: &str, p: &KubePolicyPort) {
    let protocol = p.protocol.as_deref().unwrap_or_default();
    c.one_of(&format!("{at}.protocol"), protocol, &["TCP", "UDP", "SCTP"]);
    match &p.port {
        Some(NumOrString::Number(n)) => {
            c.range(&format!("{at}.port"), i64::from(*n), 1, 65535);
            if let Some(end) = p.end_port {
                c.range(&format!("{at}.endPort"), end, i64::from(*n), 65535);
            }
        }
        Some(NumOrString::Text(t)) if t.is_empty() || t.len() > 15 => {
            c.fail(
                format!("{at}.port"),
                t,
                "a port's name has 1 to 15 characters",
            );
        }
        _ => {}
    }
    if let (Some(end), None | Some(NumOrString::Text(_))) = (p.end_port, &p.port) {
        c.fail(
            format!("{at}.endPort"),
            end,
            "may only be set with a numeric port",
        );
    }
}

fn peer(c: &mut Check, at: &str, p: &KubePeer) {
    match (&p.ip_block, &p.pod_selector, &p.namespace_selector) {
        (None, None, None) => c.fail(at, "", "must specify a peer"),
        (Some(_), None, None) | (None, ..) => {}
        (Some(b), ..) => c.fail(at, &b.cidr, "may not specify both ipBlock and another peer"),
    }
    if let Some(b) = &p.ip_block {
        let outer = b.cidr.parse::<Cidr>();
        if outer.is_err() || !b.cidr.contains('/') {
            c.fail(format!("{at}.ipBlock.cidr"), &b.cidr, "invalid CIDR");
        }
        for (i, e) in b.except.iter().enumerate() {
            let inner = e.parse::<Cidr>();
            let inside = matches!((&outer, &inner), (Ok(o), Ok(i)) if o.covers(*i) && o != i);
            if !inside {
                let reason = "must be a strict subset of `cidr`";
                c.fail(format!("{at}.ipBlock.except[{i}]"), e, reason);
            }
        }
    }
    for (field, s) in [
        ("podSelector", &p.pod_selector),
        ("namespaceSelector", &p.namespace_selector),
    ] {
        if let Some(s) = s {
            labels(c, &format!("{at}.{field}"), s);
        }
    }
}

fn labels(c: &mut Check, at: &str, s: &LabelSelector) {
    for (i, e) in s.match_expressions.iter().enumerate() {
        let field = format!("{at}.matchExpressions[{i}]");
        match e.operator.as_str() {
            "In" | "NotIn" if e.values.is_empty() => {
                c.fail(
                    format!("{field}.values"),
                    "",
                    "must be specified when `operator` is In or NotIn",
                );
            }
            "Exists" | "DoesNotExist" if !e.values.is_empty() => {
                let reason = "may not be specified when `operator` is Exists or DoesNotExist";
                c.fail(format!("{field}.values"), e.values.join(","), reason);
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            other => c.fail(
                format!("{field}.operator"),
                other,
                "not a valid selector operator",
            ),
        }
        if e.key.is_empty() {
            c.fail(format!("{field}.key"), "", "key must be specified");
        }
    }
}
