//! Configuration of agents and of IPAM.

use super::Check;
use crate::convert::felix_text;
use crate::felix::{ParameterType, parameter};
use crate::kinds::config::FelixConfiguration;
use crate::kinds::ipam::IpamConfigurationSpec;
use serde_json::Value;

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
