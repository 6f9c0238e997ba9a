//! What a rule wanted and what a packet had, for people.

use crate::rule::Holder;
use crate::{Field, Mismatch, Packet, Side, World};
use model::selector::Expr;
use model::{Entity, Icmp, LabelSource, Rule, Selector};
use net::Family;
use std::fmt::Display;

/// Why the field of the rule does not match.
pub(crate) fn mismatch(world: &World, rule: &Rule, packet: &Packet, field: Field) -> Mismatch {
    let (wanted, got) = match field {
        Field::IpVersion => (
            rule.family
                .map_or_else(String::new, |f| f.number().to_string()),
            Family::of(packet.destination).number().to_string(),
        ),
        Field::Protocol => (show(rule.protocol), packet.protocol.to_string()),
        Field::NotProtocol => (show(rule.not_protocol), packet.protocol.to_string()),
        Field::Icmp => (icmp(rule.icmp), packet_icmp(packet)),
        Field::NotIcmp => (icmp(rule.not_icmp), packet_icmp(packet)),
        Field::Nets(s) => (list(&entity(rule, s).nets), address(packet, s).to_string()),
        Field::NotNets(s) => (
            list(&entity(rule, s).not_nets),
            address(packet, s).to_string(),
        ),
        Field::Selector(s) => {
            let selector = entity(rule, s).selector.as_ref();
            (
                show(selector.map(Selector::as_str)),
                selected(world, selector, packet, s),
            )
        }
        Field::NotSelector(s) => {
            let selector = entity(rule, s).not_selector.as_ref();
            (
                show(selector.map(Selector::as_str)),
                who(&world.holders(address(packet, s))),
            )
        }
        Field::Ports(s) => {
            let e = entity(rule, s);
            (both(&e.ports, &e.named_ports), port(packet, s))
        }
        Field::NotPorts(s) => {
            let e = entity(rule, s);
            (both(&e.not_ports, &e.not_named_ports), port(packet, s))
        }
        Field::Services(s) => {
            let service = entity(rule, s).service.as_ref();
            let wanted =
                service.map_or_else(String::new, |s| format!("{}/{}", s.namespace, s.name));
            (
                wanted,
                format!("{} {}", address(packet, s), port(packet, s)),
            )
        }
        Field::Nodes(s) => {
            let selector = entity(rule, s).nodes.as_ref();
            (
                show(selector.map(Selector::as_str)),
                address(packet, s).to_string(),
            )
        }
        Field::Domains => (
            list(&rule.destination.domains),
            packet.destination.to_string(),
        ),
    };
    Mismatch { field, wanted, got }
}

pub(crate) fn entity(rule: &Rule, side: Side) -> &Entity {
    match side {
        Side::Source => &rule.source,
        Side::Destination => &rule.destination,
    }
}

pub(crate) fn address(packet: &Packet, side: Side) -> std::net::IpAddr {
    match side {
        Side::Source => packet.source,
        Side::Destination => packet.destination,
    }
}

fn show(value: Option<impl Display>) -> String {
    value.map_or_else(String::new, |v| v.to_string())
}

fn list<T: Display>(items: &[T]) -> String {
    let items: Vec<String> = items.iter().map(T::to_string).collect();
    items.join(", ")
}

fn both(numbers: &[impl Display], names: &[impl Display]) -> String {
    let parts = [list(numbers), list(names)];
    let parts: Vec<String> = parts.into_iter().filter(|p| !p.is_empty()).collect();
    parts.join(", ")
}

fn icmp(wanted: Option<Icmp>) -> String {
    let Some(i) = wanted else {
        return String::new();
    };
    match (i.icmp_type, i.code) {
        (Some(t), Some(c)) => format!("type {t} code {c}"),
        (Some(t), None) => format!("type {t}"),
        _ => "any".to_owned(),
    }
}

fn packet_icmp(packet: &Packet) -> String {
    match packet.icmp {
        Some((t, c)) => format!("type {t} code {c}"),
        None => packet.protocol.to_string(),
    }
}

fn port(packet: &Packet, side: Side) -> String {
    match (side, packet.source_port) {
        (Side::Destination, _) if packet.protocol.has_ports() => packet.port.to_string(),
        (Side::Source, Some(p)) if packet.protocol.has_ports() => p.to_string(),
        (Side::Source, None) if packet.protocol.has_ports() => "a port the kernel picks".to_owned(),
        _ => format!("{} has no ports", packet.protocol),
    }
}

fn who(holders: &[Holder<'_>]) -> String {
    let names: Vec<&str> = holders.iter().map(|h| &*h.name).collect();
    match names.is_empty() {
        true => "an address that no endpoint and no network set has".to_owned(),
        false => names.join(", "),
    }
}

/// What keeps those who have the address from being selected.
fn selected(world: &World, selector: Option<&Selector>, packet: &Packet, side: Side) -> String {
    let at = address(packet, side);
    let holders = world.holders(at);
    let (Some(selector), false) = (selector, holders.is_empty()) else {
        return format!("{at}, {}", who(&holders));
    };
    let each = holders.iter().map(|h| {
        let missing = missing(selector.expr(), &h.labels);
        format!("{} ({})", h.name, missing.join("; "))
    });
    each.collect::<Vec<_>>().join(", ")
}

/// The parts of an expression that do not hold, with the labels' values.
pub(crate) fn missing(expr: &Expr, labels: &impl LabelSource) -> Vec<String> {
    if expr.matches(labels) {
        return Vec::new();
    }
    match expr {
        Expr::And(parts) => parts.iter().flat_map(|p| missing(p, labels)).collect(),
        e => vec![match label_of(e) {
            Some(l) => match labels.label(l) {
                Some(v) => format!("not {e}: its {} is {v:?}", spoken(l)),
                None => format!("not {e}: it has no {}", spoken(l)),
            },
            None => format!("not {e}"),
        }],
    }
}

/// The label that an expression is about, if it is one.
fn label_of(expr: &Expr) -> Option<&str> {
    match expr {
        Expr::Eq(l, _)
        | Expr::Ne(l, _)
        | Expr::In(l, _)
        | Expr::NotIn(l, _)
        | Expr::Contains(l, _)
        | Expr::StartsWith(l, _)
        | Expr::EndsWith(l, _)
        | Expr::Has(l) => Some(l),
        Expr::Not(e) => label_of(e),
        _ => None,
    }
}

/// A label, whosever it is.
pub(crate) fn spoken(label: &str) -> String {
    if let Some(l) = label.strip_prefix("pcns.") {
        return format!("namespace's label {l}");
    }
    if let Some(own) = label.strip_prefix("projectcalico.org/") {
        return own.to_owned();
    }
    match label.strip_prefix("pcsa.") {
        Some(l) => format!("service account's label {l}"),
        None => format!("label {label}"),
    }
}
