//! BGPConfiguration, BGPPeer and BGPFilter.

use super::{Check, names};
use crate::annotations::{self, ADD_PATH, BFD, MAX_PREFIXES};
use crate::convert::{community, peer_address};
use crate::kinds::bgp::{
    BgpFilterOperation, BgpFilterRule, BgpFilterSpec, BgpPassword, BgpPeer, BgpPeerSpec,
};
use crate::kinds::config::{BgpConfiguration, BgpConfigurationSpec};
use crate::meta::ObjectMeta;
use net::{Asn, Cidr, Family};
use std::net::IpAddr;

fn bfd(c: &mut Check, meta: &ObjectMeta) {
    if let Some(text) = meta.annotations.get(BFD)
        && let Err(reason) = annotations::bfd(text)
    {
        c.fail(format!("metadata.annotations[{BFD}]"), text, reason);
    }
}

pub(super) fn config(c: &mut Check, r: &BgpConfiguration) {
    let s = &r.spec;
    let name = r.metadata.name.as_str();
    if name != "default" {
        for (set, field) in [
            (
                s.node_to_node_mesh_enabled.is_some(),
                "nodeToNodeMeshEnabled",
            ),
            (s.as_number.is_some(), "ASNumber"),
            (!s.service_external_ips.is_empty(), "ServiceExternalIPs"),
            (!s.service_cluster_ips.is_empty(), "ServiceClusterIPs"),
            (
                !s.service_load_balancer_ips.is_empty(),
                "ServiceLoadBalancerIPs",
            ),
            (s.node_mesh_password.is_some(), "nodeMeshPassword"),
            (
                !s.node_mesh_max_restart_time.is_empty(),
                "nodeMeshMaxRestartTime",
            ),
            (r.metadata.annotations.contains_key(BFD), BFD),
        ] {
            if set {
                let reason = format!("Cannot set {field} on a non default BGP Configuration.");
                c.fail("metadata.name", name, reason);
            }
        }
    }
    bfd(c, &r.metadata);
    if s.as_number.is_some_and(|n| n.0 == Asn(0)) {
        c.fail("spec.asNumber", 0, "must be between 1 and 4294967295");
    }
    let severities = ["Trace", "Debug", "Info", "Warning", "Error", "Fatal"];
    let severity = s.log_severity_screen.as_str();
    if !severities.iter().any(|k| k.eq_ignore_ascii_case(severity)) {
        c.one_of("spec.logSeverityScreen", severity, &severities);
    }
    c.one_of("spec.bindMode", &s.bind_mode, &["None", "NodeIP"]);
    let aggregation = &s.service_load_balancer_aggregation;
    c.one_of(
        "spec.serviceLoadBalancerAggregation",
        aggregation,
        &["Enabled", "Disabled"],
    );
    let routes = [
        "Enabled",
        "Disabled",
        "EnabledIPIPOnly",
        "EnabledNoEncapOnly",
    ];
    c.one_of(
        "spec.programClusterRoutes",
        &s.program_cluster_routes,
        &routes,
    );
    for (field, list) in [
        ("serviceLoadBalancerIPs", &s.service_load_balancer_ips),
        ("serviceExternalIPs", &s.service_external_ips),
        ("serviceClusterIPs", &s.service_cluster_ips),
    ] {
        for (i, b) in list.iter().enumerate() {
            c.net(&format!("spec.{field}[{i}].cidr"), &b.cidr);
        }
    }
    if s.node_to_node_mesh_enabled == Some(false) {
        if s.node_mesh_password.is_some() {
            c.fail(
                "spec.nodeMeshPassword",
                "",
                "nodeMeshPassword cannot be set when nodeToNodeMeshEnabled is false",
            );
        }
        if !s.node_mesh_max_restart_time.is_empty() {
            let reason = "nodeMeshMaxRestartTime cannot be set when nodeToNodeMeshEnabled is false";
            c.fail(
                "spec.nodeMeshMaxRestartTime",
                &s.node_mesh_max_restart_time,
                reason,
            );
        }
    }
    c.duration("spec.nodeMeshMaxRestartTime", &s.node_mesh_max_restart_time);
    password(c, "spec.nodeMeshPassword", s.node_mesh_password.as_ref());
    if s.listen_port == Some(0) {
        c.fail("spec.listenPort", 0, "must be between 1 and 65535");
    }
    for (i, name) in s.ignored_interfaces.iter().enumerate() {
        interface(c, &format!("spec.ignoredInterfaces[{i}]"), name);
    }
    for (field, n) in [
        ("spec.ipv4NormalRoutePriority", s.ipv4_normal_route_priority),
        ("spec.ipv6NormalRoutePriority", s.ipv6_normal_route_priority),
    ] {
        priority(c, field, n);
    }
    for (field, text, family) in [
        (
            "spec.localWorkloadPeeringIPV4",
            &s.local_workload_peering_ipv4,
            Family::V4,
        ),
        (
            "spec.localWorkloadPeeringIPV6",
            &s.local_workload_peering_ipv6,
            Family::V6,
        ),
    ] {
        if !text.is_empty()
            && !text
                .parse::<IpAddr>()
                .is_ok_and(|a| Family::of(a) == family)
        {
            c.fail(field, text, format!("invalid {family} address"));
        }
    }
    communities(c, s);
}

fn password(c: &mut Check, field: &str, p: Option<&BgpPassword>) {
    let Some(p) = p else { return };
    let named = p.secret_key_ref.as_ref();
    if named.is_none_or(|r| r.name.is_empty() || r.key.is_empty()) {
        let field = format!("{field}.secretKeyRef");
        c.fail(field, "", "name and key of the secret must be specified");
    }
}

/// A metric: what lies between the kernel's own and "none".
fn priority(c: &mut Check, field: &str, n: Option<i64>) {
    if let Some(n) = n {
        c.range(field, n, 1, 2_147_483_646);
    }
}

/// A name of an interface in which `*` stands for any characters.
fn interface(c: &mut Check, field: &str, name: &str) {
    let chars = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-' | b'*');
    if !(1..=15).contains(&name.len()) || !name.bytes().all(chars) {
        c.fail(field, name, "must match ^[a-zA-Z0-9_.*-]{1,15}$");
    }
}

/// What is wrong with the form or the numbers of a community.
fn community_value(c: &mut Check, field: &str, text: &str) {
    if community(text).is_some() {
        return;
    }
    let digits = |p: &str| !p.is_empty() && p.bytes().all(|b| b.is_ascii_digit());
    let reason = match text.split(':').count() {
        n @ (2 | 3) if text.split(':').all(digits) => {
            let bits = if n == 2 { 16 } else { 32 };
            format!("invalid community value, expected {bits} bit value")
        }
        _ => "invalid community value or format used.".to_owned(),
    };
    c.fail(field, text, reason);
}

fn communities(c: &mut Check, s: &BgpConfigurationSpec) {
    c.at_most("spec.communities", "communities", s.communities.len(), 500);
    let count = s.prefix_advertisements.len();
    c.at_most("spec.prefixAdvertisements", "prefixes", count, 500);
    if !s.communities.is_empty() && s.prefix_advertisements.is_empty() {
        let reason = "communities are defined but not used in prefixAdvertisements";
        c.fail("spec.communities", s.communities.len(), reason);
    }
    for (i, k) in s.communities.iter().enumerate() {
        community_value(c, &format!("spec.communities[{i}].value"), &k.value);
        if !names::is_subdomain(&k.name) {
            let field = format!("spec.communities[{i}].name");
            c.fail(field, &k.name, "invalid name of a community");
        }
    }
    for (i, p) in s.prefix_advertisements.iter().enumerate() {
        if p.cidr.parse::<Cidr>().is_err() {
            let field = format!("spec.prefixAdvertisements[{i}].cidr");
            c.fail(field, &p.cidr, "invalid CIDR value.");
        }
        let field = format!("spec.prefixAdvertisements[{i}].communities");
        c.at_most(&field, "communities", p.communities.len(), 50);
        for k in &p.communities {
            if community(k).is_none() && !s.communities.iter().any(|known| known.name == *k) {
                c.fail(&field, k, "community used is invalid or not defined.");
            }
        }
    }
}

pub(super) fn peer(c: &mut Check, r: &BgpPeer) {
    let s = &r.spec;
    bfd(c, &r.metadata);
    if let Some(text) = r.metadata.annotations.get(ADD_PATH)
        && let Err(reason) = annotations::add_path(text)
    {
        c.fail(format!("metadata.annotations[{ADD_PATH}]"), text, reason);
    }
    if let Some(text) = r.metadata.annotations.get(MAX_PREFIXES)
        && let Err(reason) = annotations::max_prefixes(text)
    {
        c.fail(
            format!("metadata.annotations[{MAX_PREFIXES}]"),
            text,
            reason,
        );
    }
    exclusive(c, s);
    if !s.node.is_empty() && !names::is_subdomain(&s.node) {
        c.fail("spec.node", &s.node, "invalid node name");
    }
    for (field, text) in [
        ("spec.nodeSelector", &s.node_selector),
        ("spec.peerSelector", &s.peer_selector),
        ("spec.localWorkloadSelector", &s.local_workload_selector),
    ] {
        c.selector(field, text);
    }
    let address = peer_address(&s.peer_ip);
    if !s.peer_ip.is_empty() && address.is_none() {
        let reason = "must be <IP>, <IPv4>:<port> or [<IPv6>]:<port>";
        c.fail("spec.peerIP", &s.peer_ip, reason);
    }
    c.ip("spec.reachableBy", &s.reachable_by);
    if let (Some((ip, _)), Ok(by)) = (address, s.reachable_by.parse::<IpAddr>())
        && Family::of(ip) != Family::of(by)
    {
        let reason = "ReachableBy and PeerIP address family mismatched";
        c.fail("spec.reachableBy", &s.reachable_by, reason);
    }
    c.one_of(
        "spec.nextHopMode",
        &s.next_hop_mode,
        &["Auto", "Self", "Keep"],
    );
    c.one_of(
        "spec.sourceAddress",
        &s.source_address,
        &["UseNodeIP", "None"],
    );
    c.one_of(
        "spec.reversePeering",
        &s.reverse_peering,
        &["Auto", "Manual"],
    );
    c.duration("spec.maxRestartTime", &s.max_restart_time);
    c.duration("spec.keepaliveTime", &s.keepalive_time);
    if let Some(n) = s.num_allowed_local_as_numbers {
        c.range("spec.numAllowedLocalASNumbers", n, 0, i64::from(i32::MAX));
    }
    password(c, "spec.password", s.password.as_ref());
    for (i, f) in s.filters.iter().enumerate() {
        if !names::is_subdomain(f) {
            c.fail(format!("spec.filters[{i}]"), f, "invalid filter name");
        }
    }
}

/// Fields that cannot stand beside each other, or not alone.
fn exclusive(c: &mut Check, s: &BgpPeerSpec) {
    let asn = s.as_number.map_or(Asn(0), |n| n.0);
    let (peer_ip, peers) = (!s.peer_ip.is_empty(), !s.peer_selector.is_empty());
    let workloads = !s.local_workload_selector.is_empty();
    for (wrong, field, value, reason) in [
        (
            !s.node.is_empty() && !s.node_selector.is_empty(),
            "spec.node",
            s.node.as_str(),
            "node and nodeSelector cannot both be set",
        ),
        (
            peer_ip && peers,
            "spec.peerIP",
            s.peer_ip.as_str(),
            "peerIP and peerSelector cannot both be set",
        ),
        (
            peers && asn != Asn(0),
            "spec.asNumber",
            &asn.to_string(),
            "asNumber must be empty when peerSelector is set",
        ),
        (
            workloads && peer_ip,
            "spec.peerIP",
            s.peer_ip.as_str(),
            "peerIP must be empty when localWorkloadSelector is set",
        ),
        (
            workloads && peers,
            "spec.peerSelector",
            s.peer_selector.as_str(),
            "peerSelector must be empty when localWorkloadSelector is set",
        ),
        (
            workloads && asn == Asn(0),
            "spec.asNumber",
            "",
            "asNumber is required when localWorkloadSelector is set",
        ),
        (
            !s.reachable_by.is_empty() && !peer_ip,
            "spec.reachableBy",
            s.reachable_by.as_str(),
            "reachableBy must be empty when peerIP is empty",
        ),
        (
            s.keep_original_next_hop && !s.next_hop_mode.is_empty(),
            "spec.keepOriginalNextHop",
            "true",
            "keepOriginalNextHop and nextHopMode cannot both be set; keepOriginalNextHop is deprecated, use nextHopMode instead",
        ),
        (
            !peer_ip && !peers && !workloads,
            "spec.peerIP",
            "",
            "one of peerIP, peerSelector and localWorkloadSelector must be set",
        ),
    ] {
        if wrong {
            c.fail(field, value, reason);
        }
    }
}

pub(super) fn filter(c: &mut Check, s: &BgpFilterSpec) {
    for (name, rules, family) in [
        ("exportV4", &s.export_v4, Family::V4),
        ("importV4", &s.import_v4, Family::V4),
        ("exportV6", &s.export_v6, Family::V6),
        ("importV6", &s.import_v6, Family::V6),
    ] {
        for (i, r) in rules.iter().enumerate() {
            filter_rule(c, &format!("spec.{name}[{i}]"), r, family);
        }
    }
}

fn filter_rule(c: &mut Check, at: &str, r: &BgpFilterRule, family: Family) {
    if r.cidr.is_empty() != r.match_operator.is_empty() {
        let reason = "cidr and matchOperator must both be set or both be empty";
        c.fail(format!("{at}.cidr"), &r.cidr, reason);
    }
    if !r.cidr.is_empty()
        && c.net(&format!("{at}.cidr"), &r.cidr)
            .is_some_and(|n| n.family() != family)
    {
        c.fail(
            format!("{at}.cidr"),
            &r.cidr,
            format!("invalid {family} CIDR"),
        );
    }
    let operators = ["Equal", "NotEqual", "In", "NotIn"];
    c.one_of(
        &format!("{at}.matchOperator"),
        &r.match_operator,
        &operators,
    );
    if let Some(p) = &r.prefix_length {
        if r.cidr.is_empty() {
            let reason = "cidr is required when prefixLength is set";
            c.fail(format!("{at}.prefixLength"), "", reason);
        }
        for (side, n) in [("min", p.min), ("max", p.max)] {
            if let Some(n) = n {
                let field = format!("{at}.prefixLength.{side}");
                c.range(&field, n, 0, i64::from(family.bits()));
            }
        }
    }
    c.one_of(&format!("{at}.source"), &r.source, &["RemotePeers"]);
    c.one_of(&format!("{at}.peerType"), &r.peer_type, &["eBGP", "iBGP"]);
    if !r.interface.is_empty() {
        interface(c, &format!("{at}.interface"), &r.interface);
    }
    if let Some(m) = &r.communities {
        let field = format!("{at}.communities.values");
        if m.values.len() != 1 {
            c.fail(&field, m.values.len(), "must have exactly one community");
        }
        m.values.iter().for_each(|v| community_value(c, &field, v));
    }
    priority(c, &format!("{at}.priority"), r.priority);
    if !["Accept", "Reject"].contains(&r.action.as_str()) {
        let reason = "must be one of Accept, Reject";
        c.fail(format!("{at}.action"), &r.action, reason);
    }
    if !r.operations.is_empty() && r.action != "Accept" {
        let reason = "operations may only be used with action Accept";
        c.fail(format!("{at}.operations"), &r.action, reason);
    }
    let count = r.operations.len();
    c.at_most(&format!("{at}.operations"), "operations", count, 10);
    for (i, o) in r.operations.iter().enumerate() {
        operation(c, &format!("{at}.operations[{i}]"), o);
    }
}

fn operation(c: &mut Check, at: &str, o: &BgpFilterOperation) {
    let set = usize::from(o.add_community.is_some())
        + usize::from(o.prepend_as_path.is_some())
        + usize::from(o.set_priority.is_some());
    if set != 1 {
        let reason = "exactly one of addCommunity, prependASPath and setPriority must be set";
        c.fail(at, set, reason);
    }
    if let Some(a) = &o.add_community {
        community_value(c, &format!("{at}.addCommunity.value"), &a.value);
    }
    if let Some(p) = &o.prepend_as_path
        && !(1..=10).contains(&p.prefix.len())
    {
        let field = format!("{at}.prependASPath.prefix");
        c.fail(field, p.prefix.len(), "must have 1 to 10 AS numbers");
    }
    if let Some(p) = &o.set_priority {
        let field = format!("{at}.setPriority.value");
        match p.value {
            None => c.fail(field, "", "value must be specified"),
            n => priority(c, &field, n),
        }
    }
}
