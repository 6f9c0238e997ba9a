//! What a writer fills in where the user said nothing.
//!
//! Promises: never changes a value that was given, but for its spelling (`tcp` becomes `TCP`); filling
//! in twice changes nothing more.

use crate::convert;
use crate::kinds::controllers::KubeControllersSpec;
use crate::kinds::kube::KubePolicySpec;
use crate::kinds::policy::{PolicySpec, Rule};
use crate::kinds::pool::IpPoolSpec;
use crate::kinds::service::ServiceSpec;
use crate::meta::ObjectMeta;
use crate::resource::Resource;
use crate::wire::NumOrString;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use net::{Cidr, Protocol};
use serde_json::{Map, Value};

/// The label that repeats a policy's tier, for list requests to select by.
pub(crate) const TIER_LABEL: &str = "projectcalico.org/tier";

/// The label with which Kubernetes' API server says a namespace's name.
pub(crate) const NAMESPACE_NAME_LABEL: &str = "kubernetes.io/metadata.name";

/// Fills in the defaults of a resource that is about to be validated and stored.
pub fn default(resource: &mut Resource) {
    match resource {
        Resource::IpPool(r) => pool(&mut r.spec),
        Resource::NetworkPolicy(r) => policy(&mut r.metadata, &mut r.spec),
        Resource::GlobalNetworkPolicy(r) => policy(&mut r.metadata, &mut r.spec),
        Resource::StagedNetworkPolicy(r) => staged(&mut r.metadata, &mut r.spec),
        Resource::StagedGlobalNetworkPolicy(r) => staged(&mut r.metadata, &mut r.spec),
        Resource::StagedKubernetesNetworkPolicy(r) => {
            fill(&mut r.spec.staged_action, "Set");
            if r.spec.staged_action != "Delete" {
                kube_policy(&mut r.spec);
            }
        }
        Resource::Profile(r) => {
            r.spec
                .ingress
                .iter_mut()
                .chain(&mut r.spec.egress)
                .for_each(rule);
        }
        Resource::Tier(r) => fill(&mut r.spec.default_action, "Deny"),
        Resource::WorkloadEndpoint(r) => {
            r.spec.ports.iter_mut().for_each(|p| spell(&mut p.protocol));
        }
        Resource::HostEndpoint(r) => r.spec.ports.iter_mut().for_each(|p| spell(&mut p.protocol)),
        Resource::FelixConfiguration(r) => felix(&mut r.spec),
        Resource::IpamConfiguration(r) => {
            r.spec.auto_allocate_blocks.get_or_insert(true);
        }
        Resource::KubeNetworkPolicy(r) => kube_policy(&mut r.spec),
        Resource::Namespace(r) => {
            let name = r.metadata.name.clone();
            r.metadata
                .labels
                .insert(NAMESPACE_NAME_LABEL.to_owned(), name);
        }
        Resource::Service(r) => service(&mut r.spec),
        Resource::Secret(r) => {
            for (key, text) in std::mem::take(&mut r.string_data) {
                r.data.insert(key, STANDARD.encode(text));
            }
        }
        Resource::EndpointSlice(r) => r
            .ports
            .iter_mut()
            .for_each(|p| fill(&mut p.protocol, "TCP")),
        Resource::BgpConfiguration(r) => {
            fill(&mut r.spec.log_severity_screen, "Info");
            fill(&mut r.spec.service_load_balancer_aggregation, "Enabled");
        }
        Resource::KubeControllersConfiguration(r) => controllers(&mut r.spec),
        _ => {}
    }
}

fn fill(field: &mut String, value: &str) {
    if field.is_empty() {
        value.clone_into(field);
    }
}

/// What Kubernetes' API server fills in.
fn kube_policy(s: &mut KubePolicySpec) {
    s.pod_selector.get_or_insert_default();
    if s.policy_types.is_empty() {
        s.policy_types.push("Ingress".to_owned());
        if !s.egress.is_empty() {
            s.policy_types.push("Egress".to_owned());
        }
    }
    let ports = s.ingress.iter_mut().flat_map(|r| &mut r.ports);
    for p in ports.chain(s.egress.iter_mut().flat_map(|r| &mut r.ports)) {
        p.protocol.get_or_insert_with(|| "TCP".to_owned());
    }
}

/// What Kubernetes' API server fills in; it also gives addresses, which nobody does here.
fn service(s: &mut ServiceSpec) {
    fill(&mut s.kind, "ClusterIP");
    s.ports
        .iter_mut()
        .for_each(|p| fill(&mut p.protocol, "TCP"));
    if s.cluster_ips.is_empty() && !s.cluster_ip.is_empty() {
        s.cluster_ips.push(s.cluster_ip.clone());
    }
    if let ("", Some(first)) = (s.cluster_ip.as_str(), s.cluster_ips.first()) {
        s.cluster_ip.clone_from(first);
    }
}

fn controllers(s: &mut KubeControllersSpec) {
    fill(&mut s.health_checks, "Enabled");
    s.prometheus_metrics_port.get_or_insert(9094);
    let c = &mut s.controllers;
    if let Some(node) = &mut c.node {
        fill(&mut node.leak_grace_period, "15m");
        for t in node.host_endpoint.iter_mut().flat_map(|h| &mut h.templates) {
            fill(&mut t.node_selector, "all()");
        }
    }
    if let Some(l) = &mut c.load_balancer {
        fill(&mut l.assign_ips, "AllServices");
    }
    if let Some(m) = &mut c.migration {
        fill(&mut m.policy_name_migrator, "Enabled");
    }
}

fn pool(s: &mut IpPoolSpec) {
    fill(&mut s.vxlan_mode, "Never");
    fill(&mut s.ipip_mode, "Never");
    fill(&mut s.node_selector, "all()");
    fill(&mut s.assignment_mode, "Automatic");
    if s.allowed_uses.is_empty() {
        s.allowed_uses = vec!["Workload".to_owned(), "Tunnel".to_owned()];
    }
    if let (None | Some(0), Ok(cidr)) = (s.block_size, s.cidr.parse::<Cidr>()) {
        s.block_size = Some(convert::default_block_size(cidr.family()).into());
    }
}

fn policy(meta: &mut ObjectMeta, s: &mut PolicySpec) {
    fill(&mut s.tier, "default");
    meta.labels.insert(TIER_LABEL.to_owned(), s.tier.clone());
    if s.types.is_empty()
        && let Ok((ingress, egress)) = convert::types(s)
    {
        s.types.extend(ingress.then(|| "Ingress".to_owned()));
        s.types.extend(egress.then(|| "Egress".to_owned()));
    }
    s.ingress.iter_mut().chain(&mut s.egress).for_each(rule);
}

/// One that deletes has nothing but its tier, so there is nothing to infer from.
fn staged(meta: &mut ObjectMeta, s: &mut PolicySpec) {
    fill(&mut s.staged_action, "Set");
    if s.staged_action == "Delete" {
        fill(&mut s.tier, "default");
        meta.labels.insert(TIER_LABEL.to_owned(), s.tier.clone());
    } else {
        policy(meta, s);
    }
}

fn rule(r: &mut Rule) {
    for known in ["Allow", "Deny", "Log", "Pass"] {
        if r.action.eq_ignore_ascii_case(known) {
            known.clone_into(&mut r.action);
        }
    }
    r.protocol
        .iter_mut()
        .chain(&mut r.not_protocol)
        .for_each(spell);
}

/// Protocol names in the one spelling.
fn spell(p: &mut NumOrString) {
    if let NumOrString::Text(t) = p
        && let Some(name) = t.parse().ok().and_then(Protocol::name)
    {
        name.clone_into(t);
    }
}

/// What Calico's own clients write, so that agents of either make see the same.
fn felix(spec: &mut Map<String, Value>) {
    if let Some(Value::Bool(on)) = spec.get("bpfConnectTimeLoadBalancingEnabled").cloned() {
        let mode = if on { "Enabled" } else { "Disabled" };
        spec.entry("bpfConnectTimeLoadBalancing")
            .or_insert_with(|| mode.into());
        spec.entry("bpfHostNetworkedNATWithoutCTLB")
            .or_insert_with(|| "Disabled".into());
    }
    spec.entry("floatingIPs")
        .or_insert_with(|| "Disabled".into());
    spec.entry("bpfConnectTimeLoadBalancing")
        .or_insert_with(|| "TCP".into());
    spec.entry("bpfHostNetworkedNATWithoutCTLB")
        .or_insert_with(|| "Enabled".into());
}
