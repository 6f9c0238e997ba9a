//! Services and the slices of what is behind them.
//!
//! Facts: a headless service has no addresses; endpoints that are not ready count for rules, as they do
//! for Calico's; a slice without the label of a service is nobody's.

use super::Cause;
use crate::kinds::service::{EndpointSlice, Service};
use model::{ServiceRef, SliceEndpoint, SliceKey, SlicePort, Update};
use net::Protocol;
use std::net::IpAddr;

/// The label that names a slice's service.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

fn protocol(field: &str, text: &str) -> Result<Protocol, Cause> {
    match text {
        "" => Ok(Protocol::TCP),
        t => t.parse().map_err(|e| format!("{field}: {e}")),
    }
}

/// Addresses among texts; `None` of headless services, names and blanks are none.
fn addresses<'a>(texts: impl IntoIterator<Item = &'a String>) -> Vec<IpAddr> {
    let mut out: Vec<IpAddr> = Vec::new();
    for ip in texts.into_iter().filter_map(|t| t.parse().ok()) {
        if !out.contains(&ip) {
            out.push(ip);
        }
    }
    out
}

pub(super) fn service_update(r: &Service) -> Result<Update, Cause> {
    let s = &r.spec;
    let key = ServiceRef {
        namespace: r.metadata.namespace.as_str().into(),
        name: r.metadata.name.as_str().into(),
    };
    let mut ports = Vec::new();
    for (i, p) in s.ports.iter().enumerate() {
        ports.push(model::ServicePort {
            name: p.name.as_str().into(),
            protocol: protocol(&format!("spec.ports[{i}].protocol"), &p.protocol)?,
            port: p.port,
            node_port: (p.node_port != 0).then_some(p.node_port),
        });
    }
    let has_addresses = s.kind != "ExternalName";
    let service = model::Service {
        cluster_ips: if has_addresses {
            addresses([&s.cluster_ip].into_iter().chain(&s.cluster_ips))
        } else {
            Vec::new()
        },
        external_ips: addresses(&s.external_ips),
        load_balancer_ips: addresses(r.status.load_balancer.ingress.iter().map(|i| &i.ip)),
        ports,
        external_local: s.external_traffic_policy == "Local",
        internal_local: s.internal_traffic_policy == "Local",
    };
    Ok(Update::Service(key, Some(service)))
}

pub(super) fn slice_updates(r: &EndpointSlice) -> Result<Vec<Update>, Cause> {
    let m = &r.metadata;
    let key = SliceKey {
        namespace: m.namespace.as_str().into(),
        name: m.name.as_str().into(),
    };
    let Some(service) = m.labels.get(SERVICE_NAME).filter(|s| !s.is_empty()) else {
        return Ok(Vec::new());
    };
    let mut ports = Vec::new();
    for (i, p) in r.ports.iter().enumerate() {
        ports.push(SlicePort {
            name: p.name.as_str().into(),
            protocol: protocol(&format!("ports[{i}].protocol"), &p.protocol)?,
            port: p.port,
        });
    }
    let endpoint = |e: &crate::kinds::service::Endpoint| SliceEndpoint {
        addresses: addresses(&e.addresses),
        node: (!e.node_name.is_empty()).then(|| e.node_name.as_str().into()),
        ready: e.conditions.ready.unwrap_or(true),
    };
    let slice = model::EndpointSlice {
        service: ServiceRef {
            namespace: m.namespace.as_str().into(),
            name: service.as_str().into(),
        },
        endpoints: r.endpoints.iter().map(endpoint).collect(),
        ports,
    };
    Ok(vec![Update::EndpointSlice(key, Some(slice))])
}
