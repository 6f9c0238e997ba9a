//! ClusterNetworkPolicy: what its CRD refuses, and what could not be enforced.

use super::{Check, kube};
use crate::convert::is_domain;
use crate::kinds::cluster_policy::{
    ClusterPeer, ClusterPolicySpec, ClusterPort, ClusterProtocol, NamespacedPod,
};
use net::Cidr;

pub(super) fn check(c: &mut Check, s: &ClusterPolicySpec) {
    if !["Admin", "Baseline"].contains(&s.tier.as_str()) {
        c.fail("spec.tier", &s.tier, "must be one of Admin, Baseline");
    }
    match s.priority {
        Some(n) => c.range("spec.priority", n, 0, 1000),
        None => c.fail("spec.priority", "", "must be set, between 0 and 1000"),
    }
    match (&s.subject.namespaces, &s.subject.pods) {
        (Some(n), None) => kube::labels(c, "spec.subject.namespaces", n),
        (None, Some(p)) => pods(c, "spec.subject.pods", p),
        _ => c.fail(
            "spec.subject",
            "",
            "exactly one of namespaces and pods must be set",
        ),
    }
    c.at_most("spec.ingress", "rules", s.ingress.len(), 25);
    c.at_most("spec.egress", "rules", s.egress.len(), 25);
    for (i, r) in s.ingress.iter().enumerate() {
        let at = format!("spec.ingress[{i}]");
        rule(c, &at, &r.name, &r.action, &r.protocols);
        peers(c, &format!("{at}.from"), &r.from, |c, at, p| {
            peer(c, at, p, false, &r.action);
        });
    }
    for (i, r) in s.egress.iter().enumerate() {
        let at = format!("spec.egress[{i}]");
        rule(c, &at, &r.name, &r.action, &r.protocols);
        peers(c, &format!("{at}.to"), &r.to, |c, at, p| {
            peer(c, at, p, true, &r.action);
        });
        let nameless = |p: &ClusterPeer| {
            p.nodes.is_some() || !p.networks.is_empty() || !p.domain_names.is_empty()
        };
        let named = r
            .protocols
            .iter()
            .find(|p| !p.destination_named_port.is_empty());
        if let (true, Some(p)) = (r.to.iter().any(nameless), named) {
            let reason = "networks/nodes/domainNames peer cannot be set with namedPorts since there are no namedPorts for networks/nodes/domainNames";
            c.fail(format!("{at}.protocols"), &p.destination_named_port, reason);
        }
    }
}

fn rule(c: &mut Check, at: &str, name: &str, action: &str, protocols: &[ClusterProtocol]) {
    let length = name.chars().count();
    c.at_most(&format!("{at}.name"), "characters", length, 100);
    if !["Accept", "Deny", "Pass"].contains(&action) {
        let reason = "must be one of Accept, Deny, Pass";
        c.fail(format!("{at}.action"), action, reason);
    }
    c.at_most(&format!("{at}.protocols"), "protocols", protocols.len(), 25);
    for (i, p) in protocols.iter().enumerate() {
        protocol(c, &format!("{at}.protocols[{i}]"), p);
    }
}

fn protocol(c: &mut Check, at: &str, p: &ClusterProtocol) {
    let by_number = [("tcp", &p.tcp), ("udp", &p.udp), ("sctp", &p.sctp)];
    let set = by_number.iter().filter(|(_, p)| p.is_some()).count()
        + usize::from(!p.destination_named_port.is_empty());
    if set != 1 {
        let reason = "exactly one of tcp, udp, sctp and destinationNamedPort must be set";
        c.fail(at, set, reason);
    }
    for (name, ports) in by_number {
        let Some(ports) = ports else { continue };
        match &ports.destination_port {
            None => {
                let reason = "destinationPort must be specified";
                c.fail(format!("{at}.{name}"), "", reason);
            }
            Some(p) => port(c, &format!("{at}.{name}.destinationPort"), p),
        }
    }
}

fn port(c: &mut Check, at: &str, p: &ClusterPort) {
    match (p.number, &p.range) {
        (0, None) => c.fail(at, "", "one of number and range must be set"),
        (n, None) => c.range(&format!("{at}.number"), n, 1, 65535),
        (0, Some(r)) => {
            c.range(&format!("{at}.range.start"), r.start, 1, 65535);
            c.range(&format!("{at}.range.end"), r.end, 1, 65535);
            if r.start >= r.end {
                let reason = "Start port must be less than End port";
                c.fail(
                    format!("{at}.range"),
                    format!("{}-{}", r.start, r.end),
                    reason,
                );
            }
        }
        (n, Some(_)) => c.fail(at, n, "number and range cannot both be set"),
    }
}

fn peers(
    c: &mut Check,
    at: &str,
    list: &[ClusterPeer],
    mut each: impl FnMut(&mut Check, &str, &ClusterPeer),
) {
    if list.is_empty() {
        c.fail(at, "", "must have at least one peer");
    }
    c.at_most(at, "peers", list.len(), 25);
    for (i, p) in list.iter().enumerate() {
        each(c, &format!("{at}[{i}]"), p);
    }
}

fn peer(c: &mut Check, at: &str, p: &ClusterPeer, egress: bool, action: &str) {
    let beyond = [
        ("nodes", p.nodes.is_some()),
        ("networks", !p.networks.is_empty()),
        ("domainNames", !p.domain_names.is_empty()),
    ];
    let set = usize::from(p.namespaces.is_some())
        + usize::from(p.pods.is_some())
        + beyond.iter().filter(|(_, set)| *set).count();
    if set != 1 {
        let kinds = if egress {
            "namespaces, pods, nodes, networks and domainNames"
        } else {
            "namespaces and pods"
        };
        c.fail(at, set, format!("exactly one of {kinds} must be set"));
    }
    for (name, _) in beyond.iter().filter(|(_, set)| *set && !egress) {
        let reason = "only an egress rule has this field";
        c.fail(format!("{at}.{name}"), "", reason);
    }
    if let Some(n) = &p.namespaces {
        kube::labels(c, &format!("{at}.namespaces"), n);
    }
    if let Some(n) = &p.pods {
        pods(c, &format!("{at}.pods"), n);
    }
    if let Some(n) = &p.nodes {
        kube::labels(c, &format!("{at}.nodes"), n);
    }
    let count = p.networks.len();
    c.at_most(&format!("{at}.networks"), "CIDRs", count, 25);
    for (i, n) in p.networks.iter().enumerate() {
        if !n.contains('/') || n.parse::<Cidr>().is_err() {
            let field = format!("{at}.networks[{i}]");
            c.fail(field, n, "Invalid CIDR format provided");
        }
    }
    let names = format!("{at}.domainNames");
    c.at_most(&names, "names", p.domain_names.len(), 25);
    if !p.domain_names.is_empty() && ["Deny", "Pass"].contains(&action) {
        c.fail(
            &names,
            action,
            "domainNames is only supported for Accept rules",
        );
    }
    for (i, n) in p.domain_names.iter().enumerate() {
        if !is_domain(n) {
            c.fail(format!("{names}[{i}]"), n, "invalid domain name");
        }
    }
}

fn pods(c: &mut Check, at: &str, p: &NamespacedPod) {
    let namespaces = format!("{at}.namespaceSelector");
    kube::labels(c, &namespaces, &p.namespace_selector);
    kube::labels(c, &format!("{at}.podSelector"), &p.pod_selector);
}
