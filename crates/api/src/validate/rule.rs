//! One rule of a policy or profile.

use super::{Check, ONLY_NAMESPACE_SELECTOR, names};
use crate::kinds::policy::{EntityRule, HttpMatch, IcmpFields, Rule};
use crate::wire::{NumOrString, Port};
use model::selector::Expr;
use net::{Cidr, Family, Protocol};

const NEED_PROTOCOL: &str =
    "rules with numeric port or port range must set protocol to TCP or UDP or SCTP";
const PORTS_NEED_PROTOCOL: &str =
    "rules that specify ports must set protocol to TCP or UDP or SCTP";
const CATCH_ALL: &str =
    "catch-all CIDR in negation creates logical contradiction (matches no traffic)";

pub(super) fn check(c: &mut Check, at: &str, r: &Rule, ingress: bool, namespaced: bool) {
    if crate::convert::action(&r.action).is_err() {
        c.fail(
            format!("{at}.action"),
            &r.action,
            "must be one of Allow, Deny, Log, Pass",
        );
    }
    let family = r
        .ip_version
        .and_then(|v| u8::try_from(v).ok())
        .and_then(Family::from_number);
    if let (Some(v), None) = (r.ip_version, family) {
        c.fail(format!("{at}.ipVersion"), v, "must be 4 or 6");
    }
    let protocol = protocol(c, &format!("{at}.protocol"), r.protocol.as_ref());
    let not_protocol = self::protocol(c, &format!("{at}.notProtocol"), r.not_protocol.as_ref());
    for (side, e) in [("source", &r.source), ("destination", &r.destination)] {
        let at = format!("{at}.{side}");
        entity(c, &at, e);
        ports(c, &at, e, r.protocol.is_some(), protocol);
        let fits = if ingress {
            side == "source"
        } else {
            side == "destination"
        };
        services(c, &at, e, ingress, fits, namespaced);
    }
    families(c, at, r, family);
    for (field, p) in [("protocol", protocol), ("notProtocol", not_protocol)] {
        for (icmp, name, needed) in [
            (Protocol::ICMP, "ICMP", Family::V4),
            (Protocol::ICMPV6, "ICMPv6", Family::V6),
        ] {
            if p == Some(icmp) && family.is_some_and(|f| f != needed) {
                let reason = format!("protocol {name} requires ipVersion {}", needed.number());
                c.fail(format!("{at}.{field}"), name, reason);
            }
        }
    }
    for (field, i) in [("icmp", &r.icmp), ("notICMP", &r.not_icmp)] {
        if let Some(i) = i {
            icmp(c, &format!("{at}.{field}"), i, protocol);
        }
    }
    if let Some(h) = &r.http {
        http(c, &format!("{at}.http"), h, r, protocol, ingress);
    }
}

fn protocol(c: &mut Check, field: &str, p: Option<&NumOrString>) -> Option<Protocol> {
    let p = p?;
    match p.to_string().parse::<Protocol>() {
        Ok(known) if known.0 != 0 => Some(known),
        _ => {
            let reason = "must be TCP, UDP, ICMP, ICMPv6, SCTP, UDPLite or a number from 1 to 255";
            c.fail(field, p, reason);
            None
        }
    }
}

fn icmp(c: &mut Check, at: &str, i: &IcmpFields, protocol: Option<Protocol>) {
    if let Some(t) = i.kind {
        c.range(&format!("{at}.type"), t, 0, 254);
    }
    if let Some(code) = i.code {
        c.range(&format!("{at}.code"), code, 0, 255);
        if i.kind.is_none() {
            c.fail(
                format!("{at}.code"),
                code,
                "ICMP code specified without an ICMP type",
            );
        }
    }
    if !matches!(protocol, Some(Protocol::ICMP | Protocol::ICMPV6)) {
        let value = protocol.map_or_else(String::new, |p| p.to_string());
        c.fail(
            at,
            value,
            "ICMP fields require protocol to be ICMP or ICMPv6",
        );
    }
}

fn entity(c: &mut Check, at: &str, e: &EntityRule) {
    for (field, list) in [("nets", &e.nets), ("notNets", &e.not_nets)] {
        c.at_most(&format!("{at}.{field}"), "CIDRs", list.len(), 256);
        for (i, n) in list.iter().enumerate() {
            let field = format!("{at}.{field}[{i}]");
            let found = c.net(&field, n);
            if std::ptr::eq(list, &raw const e.not_nets) && found.is_some_and(|n| n.len() == 0) {
                c.fail(field, n, CATCH_ALL);
            }
        }
    }
    c.selector(&format!("{at}.selector"), &e.selector);
    c.selector(&format!("{at}.notSelector"), &e.not_selector);
    let field = format!("{at}.namespaceSelector");
    if let Some(s) = c.any_selector(&field, &e.namespace_selector)
        && s.has_global()
        && !matches!(s.expr(), Expr::Global)
    {
        c.fail(
            field,
            &e.namespace_selector,
            "global() cannot be combined with other selectors",
        );
    }
    if let Some(s) = &e.service_accounts {
        let field = format!("{at}.serviceAccounts.selector");
        if let Some(parsed) = c.any_selector(&field, &s.selector)
            && parsed.has_global()
        {
            c.fail(field, &s.selector, ONLY_NAMESPACE_SELECTOR);
        }
        for (i, n) in s.names.iter().enumerate() {
            if !names::is_subdomain(n) {
                c.fail(
                    format!("{at}.serviceAccounts.names[{i}]"),
                    n,
                    "invalid name of a service account",
                );
            }
        }
    }
}

fn ports(
    c: &mut Check,
    at: &str,
    e: &EntityRule,
    protocol_given: bool,
    protocol: Option<Protocol>,
) {
    for (field, list) in [("ports", &e.ports), ("notPorts", &e.not_ports)] {
        let field = format!("{at}.{field}");
        c.at_most(&field, "ports", list.len(), 50);
        for (i, p) in list.iter().enumerate() {
            match p {
                Port::Range(a, b) if a > b => {
                    c.fail(format!("{field}[{i}]"), p, "port range invalid")
                }
                Port::Name(n) if !names::is_word(n, 128) => {
                    c.fail(format!("{field}[{i}]"), n, "invalid port name");
                }
                _ => {}
            }
        }
        let Some(first) = list.first() else { continue };
        let numeric = list.iter().find(|p| matches!(p, Port::Range(..)));
        match (protocol_given, protocol, numeric) {
            (false, _, Some(p)) => c.fail(field, p, NEED_PROTOCOL),
            (true, Some(p), _) if !p.has_ports() => c.fail(field, first, PORTS_NEED_PROTOCOL),
            _ => {}
        }
    }
}

fn families(c: &mut Check, at: &str, r: &Rule, family: Option<Family>) {
    let sides = [&r.source, &r.destination];
    let lists = sides.iter().flat_map(|e| e.nets.iter().chain(&e.not_nets));
    let nets: Vec<(&String, Cidr)> = lists.filter_map(|n| Some((n, n.parse().ok()?))).collect();
    let of = |f| nets.iter().find(|(_, c)| c.family() == f);
    if let (Some(_), Some((n, _))) = (of(Family::V4), of(Family::V6)) {
        c.fail(
            format!("{at}.nets"),
            n,
            "rule contains both IPv4 and IPv6 CIDRs",
        );
    }
    if let Some(f) = family
        && let Some((n, _)) = nets.iter().find(|(_, c)| c.family() != f)
    {
        c.fail(
            format!("{at}.nets"),
            n,
            "rule IP version doesn't match CIDR version",
        );
    }
}

fn services(c: &mut Check, at: &str, e: &EntityRule, ingress: bool, fits: bool, namespaced: bool) {
    let Some(s) = &e.services else { return };
    let at_services = format!("{at}.services");
    if s.name.is_empty() {
        c.fail(&at_services, "", "services must specify a service name");
    }
    if s.namespace.is_empty() && !namespaced {
        c.fail(&at_services, &s.name, "must specify a namespace");
    }
    let destination = at.ends_with(".destination");
    for (set, what) in [
        (
            !e.selector.is_empty() || !e.not_selector.is_empty(),
            "Selector/NotSelector",
        ),
        (!e.namespace_selector.is_empty(), "NamespaceSelector"),
        (!e.nets.is_empty() || !e.not_nets.is_empty(), "Nets/NotNets"),
        (e.service_accounts.is_some(), "ServiceAccounts"),
    ] {
        if set {
            let reason = format!("cannot specify {what} and Services on the same rule");
            c.fail(&at_services, &s.name, reason);
        }
    }
    if destination && (!e.ports.is_empty() || !e.not_ports.is_empty()) {
        let reason = "ports and notPorts cannot be specified with services";
        c.fail(&at_services, &s.name, reason);
    }
    if !fits {
        let where_ = if ingress {
            "ingress rule destination"
        } else {
            "egress rule source"
        };
        c.fail(&at_services, &s.name, format!("not allowed in {where_}"));
    }
}

fn http(
    c: &mut Check,
    at: &str,
    h: &HttpMatch,
    r: &Rule,
    protocol: Option<Protocol>,
    ingress: bool,
) {
    if !r.action.eq_ignore_ascii_case("Allow") {
        c.fail(at, &r.action, "HTTP match is only valid on Allow rules");
    }
    if r.protocol.is_some() && protocol != Some(Protocol::TCP) {
        let value = r
            .protocol
            .as_ref()
            .map_or_else(String::new, ToString::to_string);
        c.fail(
            at,
            value,
            "rules with HTTP match must have protocol TCP or unset",
        );
    }
    if !ingress {
        c.fail(at, "", "HTTP match is only valid on ingress rules");
    }
    c.at_most(&format!("{at}.methods"), "methods", h.methods.len(), 20);
    c.at_most(&format!("{at}.paths"), "paths", h.paths.len(), 20);
    for (i, m) in h.methods.iter().enumerate() {
        if h.methods[..i].contains(m) {
            c.fail(
                format!("{at}.methods[{i}]"),
                m,
                "HTTP methods must be unique",
            );
        }
    }
    for (i, p) in h.paths.iter().enumerate() {
        let field = format!("{at}.paths[{i}]");
        let path = match (p.exact.as_str(), p.prefix.as_str()) {
            ("", "") => {
                c.fail(field, "", "either exact or prefix must be set");
                continue;
            }
            (exact, "") => exact,
            ("", prefix) => prefix,
            (exact, _) => {
                c.fail(field, exact, "exact and prefix cannot both be set");
                continue;
            }
        };
        if !path.starts_with('/') || path.contains(['?', '#', ' ']) {
            c.fail(field, path, "a path starts with / and has no ?, # or blank");
        }
    }
}
