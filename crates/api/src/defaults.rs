//! What a writer fills in where the user said nothing.
//!
//! Promises: never changes a value that was given, but for its spelling (`tcp` becomes `TCP`); filling
//! in twice changes nothing more.

use crate::convert;
use crate::kinds::policy::{PolicySpec, Rule};
use crate::kinds::pool::IpPoolSpec;
use crate::meta::ObjectMeta;
use crate::resource::Resource;
use crate::wire::NumOrString;
use net::{Cidr, Protocol};
use serde_json::{Map, Value};

/// The label that repeats a policy's tier, for list requests to select by.
pub(crate) const TIER_LABEL: &str = "projectcalico.org/tier";

/// Fills in the defaults of a resource that is about to be validated and stored.
pub fn default(resource: &mut Resource) {
    match resource {
        Resource::IpPool(r) => pool(&mut r.spec),
        Resource::NetworkPolicy(r) => policy(&mut r.metadata, &mut r.spec),
        Resource::GlobalNetworkPolicy(r) => policy(&mut r.metadata, &mut r.spec),
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
        Resource::KubeNetworkPolicy(r) => {
            let s = &mut r.spec;
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
        _ => {}
    }
}

fn fill(field: &mut String, value: &str) {
    if field.is_empty() {
        value.clone_into(field);
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
