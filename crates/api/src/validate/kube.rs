//! Kubernetes' NetworkPolicy, Service and EndpointSlice: what its API server refuses.

use super::{Check, names};
use crate::kinds::kube::{KubePeer, KubePolicyPort, KubePolicySpec, LabelSelector, Secret};
use crate::kinds::service::{EndpointSlice, ServiceSpec};
use crate::wire::NumOrString;
use net::{Cidr, Family};
use std::net::IpAddr;

pub(super) fn network_policy(c: &mut Check, s: &KubePolicySpec) {
    if !s.staged_action.is_empty() {
        let reason = "only a staged policy has this field";
        c.fail("spec.stagedAction", &s.staged_action, reason);
    }
    policy(c, s);
}

/// An address, or what stands for none.
fn address(c: &mut Check, field: &str, text: &str) {
    if text != "None" {
        c.ip(field, text);
    }
}

pub(super) fn service(c: &mut Check, s: &ServiceSpec) {
    let kinds = ["ClusterIP", "NodePort", "LoadBalancer", "ExternalName"];
    c.one_of("spec.type", &s.kind, &kinds);
    address(c, "spec.clusterIP", &s.cluster_ip);
    for (i, ip) in s.cluster_ips.iter().enumerate() {
        address(c, &format!("spec.clusterIPs[{i}]"), ip);
    }
    for (i, ip) in s.external_ips.iter().enumerate() {
        c.ip(&format!("spec.externalIPs[{i}]"), ip);
    }
    let policies = ["Cluster", "Local"];
    for (field, text) in [
        ("spec.externalTrafficPolicy", &s.external_traffic_policy),
        ("spec.internalTrafficPolicy", &s.internal_traffic_policy),
    ] {
        c.one_of(field, text, &policies);
    }
    for (i, p) in s.ports.iter().enumerate() {
        let at = format!("spec.ports[{i}]");
        c.one_of(&format!("{at}.protocol"), &p.protocol, &PROTOCOLS);
        c.range(&format!("{at}.port"), i64::from(p.port), 1, 65535);
        if p.name.is_empty() && s.ports.len() > 1 {
            c.fail(format!("{at}.name"), "", "name must be specified");
        }
        if s.ports[..i].iter().any(|o| o.name == p.name) && !p.name.is_empty() {
            c.fail(format!("{at}.name"), &p.name, "duplicate port name");
        }
    }
}

/// What is in it is never shown, not even when it is wrong.
pub(super) fn secret(c: &mut Check, r: &Secret) {
    let fine = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
    for (key, text) in &r.data {
        if key.is_empty() || !key.bytes().all(fine) {
            let reason = "a key consists of letters, digits, '-', '_' and '.'";
            c.fail("data", key, reason);
        }
        if let Err(e) = crate::convert::secret_value(text) {
            c.fail(format!("data.{key}"), "...", format!("not base64: {e}"));
        }
    }
}

pub(super) fn slice(c: &mut Check, r: &EndpointSlice) {
    let family = match r.address_type.as_str() {
        "IPv4" => Some(Family::V4),
        "IPv6" => Some(Family::V6),
        "FQDN" => None,
        other => {
            let reason = "must be one of IPv4, IPv6, FQDN";
            return c.fail("addressType", other, reason);
        }
    };
    for (i, e) in r.endpoints.iter().enumerate() {
        for a in &e.addresses {
            let fits = |f| a.parse().is_ok_and(|ip: IpAddr| Family::of(ip) == f);
            if !family.is_none_or(fits) {
                let reason = format!("must be an address of type {}", r.address_type);
                c.fail(format!("endpoints[{i}].addresses"), a, reason);
            }
        }
    }
    for (i, p) in r.ports.iter().enumerate() {
        c.one_of(&format!("ports[{i}].protocol"), &p.protocol, &PROTOCOLS);
        if let Some(n) = p.port {
            c.range(&format!("ports[{i}].port"), i64::from(n), 1, 65535);
        }
    }
}

const PROTOCOLS: [&str; 3] = ["TCP", "UDP", "SCTP"];

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
    c.one_of(&format!("{at}.protocol"), protocol, &PROTOCOLS);
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

/// `[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?`, at most 63.
fn is_label_part(s: &str) -> bool {
    let edge = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = s.as_bytes();
    bytes.len() <= 63 && edge(bytes.first()) && edge(bytes.last()) && names::is_word(s, 63)
}

/// The key of a label: a name, maybe with a domain and a slash before it.
fn key(c: &mut Check, field: &str, key: &str) {
    let (domain, name) = key
        .split_once('/')
        .map_or((None, key), |(d, n)| (Some(d), n));
    if key.is_empty() {
        c.fail(field, "", "key must be specified");
    } else if !is_label_part(name) || !domain.is_none_or(names::is_subdomain) {
        c.fail(field, key, "invalid label key");
    }
}

/// The value of a label.
fn value(c: &mut Check, field: &str, value: &str) {
    if !value.is_empty() && !is_label_part(value) {
        c.fail(field, value, "invalid label value");
    }
}

pub(super) fn labels(c: &mut Check, at: &str, s: &LabelSelector) {
    for (k, v) in &s.match_labels {
        let field = format!("{at}.matchLabels");
        key(c, &field, k);
        value(c, &field, v);
    }
    for (i, e) in s.match_expressions.iter().enumerate() {
        let field = format!("{at}.matchExpressions[{i}]");
        key(c, &format!("{field}.key"), &e.key);
        let values = format!("{field}.values");
        e.values.iter().for_each(|v| value(c, &values, v));
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
    }
}
