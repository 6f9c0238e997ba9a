//! Configuration of agents, of IPAM and of BGP.

use super::Check;
use crate::convert::{felix_text, go_duration};
use crate::felix::{ParameterType, parameter};
use crate::kinds::config::{BgpConfiguration, FelixConfiguration};
use crate::kinds::ipam::IpamConfigurationSpec;
use net::{Asn, Cidr, Family};
use serde_json::Value;
use std::net::IpAddr;

pub(super) fn ipam(c: &mut Check, s: &IpamConfigurationSpec) {
    c.range(
        "spec.maxBlocksPerHost",
        s.max_blocks_per_host,
        0,
        i64::from(i32::MAX),
    );
    let persistence = &s.kube_virt_vm_address_persistence;
    c.one_of(
        "spec.kubeVirtVMAddressPersistence",
        persistence,
        &["Enabled", "Disabled"],
    );
    if let Some(n) = s.ip_cooldown_seconds {
        c.range("spec.ipCooldownSeconds", n, 0, 1200);
    }
    if !s.strict_affinity && s.auto_allocate_blocks == Some(false) {
        // Without blocks of its own a node would live by borrowing alone.
        let reason = "cannot disable 'StrictAffinity' and 'AutoAllocateBlocks' at the same time";
        c.fail("spec.autoAllocateBlocks", false, reason);
    }
    if s.max_blocks_per_host > 0 && !s.strict_affinity {
        let reason = "'MaxBlocksPerHost' needs 'StrictAffinity' to be true";
        c.fail("spec.maxBlocksPerHost", s.max_blocks_per_host, reason);
    }
}

pub(super) fn felix(c: &mut Check, r: &FelixConfiguration) {
    for (json, value) in &r.spec {
        let field = format!("spec.{json}");
        match parameter(json) {
            None => c.fail(
                field,
                value,
                "field in document is not recognized or is in the wrong location",
            ),
            // `null` is "not set".
            Some(_) if value.is_null() => {}
            Some(p) => parameter_value(c, &field, p.kind, value),
        }
    }
    let name = r.metadata.name.as_str();
    if let Some(s) = r
        .spec
        .get("nodeSelector")
        .and_then(Value::as_str)
        .filter(|s| !s.is_empty())
    {
        c.selector("spec.nodeSelector", s);
        if name == "default" || name.starts_with("node.") {
            let reason = "nodeSelector must not be set on default and on node.<name>";
            c.fail("spec.nodeSelector", s, reason);
        }
    }
    if r.spec.contains_key("routeTableRange") && r.spec.contains_key("routeTableRanges") {
        let reason = "cannot specify both routeTableRange and routeTableRanges";
        c.fail("spec.routeTableRange", "", reason);
    }
}

fn parameter_value(c: &mut Check, field: &str, kind: ParameterType, value: &Value) {
    let Some(text) = felix_text(kind, value) else {
        let wanted = match kind {
            ParameterType::Bool => "must be true or false",
            ParameterType::Int(..) => "must be a whole number",
            ParameterType::Seconds | ParameterType::Millis => "must be a duration such as 90s",
            ParameterType::Text | ParameterType::OneOf(_) => "must be a string",
            ParameterType::NumberOrText => "must be a number or a string",
            ParameterType::List | ParameterType::Ports => "must be a list",
            ParameterType::ProtoPorts => "must be a list of {protocol, port, net}",
            ParameterType::Range | ParameterType::Ranges => "must have min and max",
            ParameterType::Map => "must be a mapping",
            ParameterType::Timeouts => "must be a list of {name, timeout}",
        };
        return c.fail(field, value, wanted);
    };
    match kind {
        ParameterType::Int(low, high) => {
            c.range(field, value.as_i64().unwrap_or(0), low, high);
        }
        // Severities and actions have long been taken in any case.
        ParameterType::OneOf(allowed)
            if !text.is_empty() && !allowed.iter().any(|a| a.eq_ignore_ascii_case(&text)) =>
        {
            c.fail(
                field,
                &text,
                format!("must be one of {}", allowed.join(", ")),
            );
        }
        ParameterType::ProtoPorts => proto_ports(c, field, value),
        ParameterType::Ports => {
            for p in text.split(',').filter(|p| !p.is_empty()) {
                if p.parse::<net::PortRange>().is_err() {
                    c.fail(field, p, "port range invalid");
                }
            }
        }
        ParameterType::Range | ParameterType::Ranges => {
            let ranges = value
                .as_array()
                .map_or(std::slice::from_ref(value), Vec::as_slice);
            for r in ranges {
                let bound = |k| r.get(k).and_then(Value::as_i64).unwrap_or(0);
                let (min, max) = (bound("min"), bound("max"));
                if min < 1 || max < min || max > 0xffff_ffff {
                    c.fail(
                        field,
                        format!("{min}-{max}"),
                        "must be a range of route tables",
                    );
                }
            }
        }
        _ => {}
    }
}

fn proto_ports(c: &mut Check, field: &str, value: &Value) {
    for (i, p) in value.as_array().into_iter().flatten().enumerate() {
        let text = |k| p.get(k).and_then(Value::as_str).unwrap_or_default();
        let protocol = text("protocol");
        if !["", "tcp", "udp", "sctp"]
            .iter()
            .any(|k| k.eq_ignore_ascii_case(protocol))
        {
            c.fail(
                format!("{field}[{i}].protocol"),
                protocol,
                "must be TCP, UDP or SCTP",
            );
        }
        let port = p.get("port").and_then(Value::as_i64).unwrap_or(-1);
        c.range(&format!("{field}[{i}].port"), port, 0, 65535);
        if !text("net").is_empty() {
            c.net(&format!("{field}[{i}].net"), text("net"));
        }
    }
}

pub(super) fn bgp(c: &mut Check, r: &BgpConfiguration) {
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
        ] {
            if set {
                let reason = format!("Cannot set {field} on a non default BGP Configuration.");
                c.fail("metadata.name", name, reason);
            }
        }
    }
    if s.as_number.is_some_and(|n| n.0 == Asn(0)) {
        c.fail("spec.asNumber", 0, "must be between 1 and 4294967295");
    }
    let severities = ["Debug", "Info", "Warning", "Error", "Fatal", "None"];
    c.one_of(
        "spec.logSeverityScreen",
        &s.log_severity_screen,
        &severities,
    );
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
                "cannot be set when nodeToNodeMeshEnabled is false",
            );
        }
        if !s.node_mesh_max_restart_time.is_empty() {
            let reason = "cannot be set when nodeToNodeMeshEnabled is false";
            c.fail(
                "spec.nodeMeshMaxRestartTime",
                &s.node_mesh_max_restart_time,
                reason,
            );
        }
    }
    let restart = s.node_mesh_max_restart_time.as_str();
    if !restart.is_empty() && go_duration(restart).is_none() {
        c.fail(
            "spec.nodeMeshMaxRestartTime",
            restart,
            "must be a duration such as 90s",
        );
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
    communities(c, r);
}

/// `aa:nn` (RFC 1997) or `aa:nn:mm` (RFC 8092).
fn is_community(text: &str) -> bool {
    let parts: Vec<_> = text.split(':').collect();
    match parts.len() {
        2 => parts.iter().all(|p| p.parse::<u16>().is_ok()),
        3 => parts.iter().all(|p| p.parse::<u32>().is_ok()),
        _ => false,
    }
}

fn communities(c: &mut Check, r: &BgpConfiguration) {
    let s = &r.spec;
    let used = |n: &str| {
        s.prefix_advertisements
            .iter()
            .any(|p| p.communities.iter().any(|c| c == n))
    };
    for (i, k) in s.communities.iter().enumerate() {
        if !is_community(&k.value) {
            c.fail(
                format!("spec.communities[{i}].value"),
                &k.value,
                "must be aa:nn or aa:nn:mm",
            );
        }
        if !used(&k.name) {
            let reason = "communities are not used by any prefixAdvertisement";
            c.fail(format!("spec.communities[{i}].name"), &k.name, reason);
        }
    }
    for (i, p) in s.prefix_advertisements.iter().enumerate() {
        if p.cidr.parse::<Cidr>().is_err() {
            c.fail(
                format!("spec.prefixAdvertisements[{i}].cidr"),
                &p.cidr,
                "invalid CIDR",
            );
        }
        let field = format!("spec.prefixAdvertisements[{i}].communities");
        c.at_most(&field, "communities", p.communities.len(), 50);
        for k in &p.communities {
            if !is_community(k) && !s.communities.iter().any(|known| known.name == *k) {
                c.fail(&field, k, "is neither a community nor the name of one");
            }
        }
    }
}
