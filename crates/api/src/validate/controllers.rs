//! KubeControllersConfiguration and CalicoNodeStatus.

use super::{Check, names};
use crate::kinds::controllers::{AutoHostEndpoint, HostEndpointTemplate, KubeControllersSpec};
use crate::kinds::node_status::CalicoNodeStatusSpec;
use net::Cidr;

const SWITCH: [&str; 2] = ["Enabled", "Disabled"];

pub(super) fn check(c: &mut Check, s: &KubeControllersSpec) {
    let severities = [
        "None", "Debug", "Info", "Warning", "Error", "Fatal", "Panic",
    ];
    c.one_of(
        "spec.logSeverityScreen",
        &s.log_severity_screen,
        &severities,
    );
    c.one_of("spec.healthChecks", &s.health_checks, &SWITCH);
    c.duration("spec.etcdV3CompactionPeriod", &s.etcd_v3_compaction_period);
    for (field, port) in [
        ("spec.prometheusMetricsPort", s.prometheus_metrics_port),
        ("spec.debugProfilePort", s.debug_profile_port),
    ] {
        if let Some(p) = port {
            c.range(field, p, 0, 65535);
        }
    }
    let k = &s.controllers;
    for (name, r) in [
        ("policy", &k.policy),
        ("workloadEndpoint", &k.workload_endpoint),
        ("serviceAccount", &k.service_account),
        ("namespace", &k.namespace),
    ] {
        if let Some(r) = r {
            let field = format!("spec.controllers.{name}.reconcilerPeriod");
            c.duration(&field, &r.reconciler_period);
        }
    }
    if let Some(n) = &k.node {
        let at = "spec.controllers.node";
        c.duration(&format!("{at}.reconcilerPeriod"), &n.reconciler_period);
        c.duration(&format!("{at}.leakGracePeriod"), &n.leak_grace_period);
        c.one_of(&format!("{at}.syncLabels"), &n.sync_labels, &SWITCH);
        if let Some(h) = &n.host_endpoint {
            host_endpoints(c, &format!("{at}.hostEndpoint"), h);
        }
    }
    if let Some(l) = &k.load_balancer {
        c.one_of(
            "spec.controllers.loadBalancer.assignIPs",
            &l.assign_ips,
            &["AllServices", "RequestedServicesOnly"],
        );
    }
    if let Some(m) = &k.migration {
        let field = "spec.controllers.migration.policyNameMigrator";
        c.one_of(field, &m.policy_name_migrator, &SWITCH);
    }
}

fn host_endpoints(c: &mut Check, at: &str, h: &AutoHostEndpoint) {
    c.one_of(&format!("{at}.autoCreate"), &h.auto_create, &SWITCH);
    let field = format!("{at}.createDefaultHostEndpoint");
    c.one_of(&field, &h.create_default_host_endpoint, &SWITCH);
    for (i, t) in h.templates.iter().enumerate() {
        let at = format!("{at}.templates[{i}]");
        template(c, &at, t);
        let same = |o: &HostEndpointTemplate| o.generate_name == t.generate_name;
        if !t.generate_name.is_empty() && h.templates[..i].iter().any(same) {
            let field = format!("{at}.generateName");
            c.fail(field, &t.generate_name, "Template name must be unique");
        }
    }
}

fn template(c: &mut Check, at: &str, t: &HostEndpointTemplate) {
    let field = format!("{at}.generateName");
    let name = t.generate_name.as_str();
    if name.is_empty() {
        c.fail(&field, name, "Template name must be specified");
    } else if name.len() > 253 {
        let reason = "Template name must be shorter than 253 characters";
        c.fail(&field, name, reason);
    } else if !names::is_subdomain(name) {
        c.fail(&field, name, "invalid template name");
    }
    if t.interface_cidrs.is_empty() && t.interface_pattern.is_empty() {
        let reason = "InterfaceCIDRs or InterfacePattern must be specified";
        c.fail(format!("{at}.interfaceCIDRs"), "", reason);
    }
    for (i, n) in t.interface_cidrs.iter().enumerate() {
        if !n.contains('/') || n.parse::<Cidr>().is_err() {
            c.fail(format!("{at}.interfaceCIDRs[{i}]"), n, "invalid CIDR");
        }
    }
    c.selector(&format!("{at}.nodeSelector"), &t.node_selector);
}

pub(super) fn node_status(c: &mut Check, s: &CalicoNodeStatusSpec) {
    if s.node.is_empty() {
        c.fail("spec.node", "", "node must be specified");
    } else if !names::is_subdomain(&s.node) {
        c.fail("spec.node", &s.node, "invalid node name");
    }
    if s.classes.is_empty() {
        c.fail("spec.classes", "", "classes must be specified");
    }
    for (i, class) in s.classes.iter().enumerate() {
        let field = format!("spec.classes[{i}]");
        if !["Agent", "BGP", "Routes"].contains(&class.as_str()) {
            c.fail(&field, class, "must be one of Agent, BGP, Routes");
        }
        if s.classes[..i].contains(class) {
            c.fail(&field, class, "classes must be unique");
        }
    }
    match s.update_period_seconds {
        None => c.fail(
            "spec.updatePeriodSeconds",
            "",
            "updatePeriodSeconds must be specified",
        ),
        Some(n) => c.range("spec.updatePeriodSeconds", n, 0, 86400),
    }
}
