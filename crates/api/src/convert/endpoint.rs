//! Workload endpoints that are stored as such, host endpoints, profiles and
//! network sets.

use super::{Cause, cause, pod, policy};
use crate::annotations;
use crate::defaults::NAMESPACE_NAME_LABEL;
use crate::kinds::endpoint::{
    EndpointPort, HostEndpoint, IpNat, Profile, QosControls, WorkloadEndpoint,
};
use crate::kinds::kube::{Namespace, ServiceAccount};
use crate::kinds::policy::Rule;
use crate::kinds::sets::NetworkSetSpec;
use crate::meta::{ObjectMeta, StringMap};
use crate::wire::NumOrString;
use model::selector::NAMESPACE_LABEL;
use model::{
    Action, Labels, NamedPort, NetworkSet, NetworkSetKey, ProfileId, Qos, Update, WorkloadKey,
};
use net::{Cidr, Protocol};
use std::net::IpAddr;
use std::sync::Arc;

/// Labels with these prefixes come from the namespace and the service account alone: an endpoint cannot
/// claim them.
pub(super) fn is_inherited(label: &str) -> bool {
    label.starts_with(policy::NAMESPACE_PREFIX) || label.starts_with(policy::SERVICE_ACCOUNT_PREFIX)
}

fn labels(map: &StringMap) -> Labels {
    Labels::new(map.iter().map(|(k, v)| (k.as_str(), v.as_str())))
}

fn profiles(names: &[String]) -> Vec<ProfileId> {
    names.iter().map(|n| n.as_str().into()).collect()
}

fn parse_all<T: std::str::FromStr<Err: std::fmt::Display>>(
    field: &str,
    list: &[String],
) -> Result<Vec<T>, Cause> {
    list.iter()
        .map(|t| t.parse().map_err(|e| format!("{field}: {t:?}: {e}")))
        .collect()
}

fn protocol(field: &str, p: &NumOrString) -> Result<Protocol, Cause> {
    p.to_string().parse().map_err(|e| cause(field)(&e))
}

/// The model's key of a workload endpoint, from the namespace and the name that it is stored under.
/// `None` when the name is none of a workload endpoint.
pub(super) fn workload_key(namespace: &str, name: &str) -> Option<WorkloadKey> {
    let [node, orchestrator, workload, endpoint] = pod::split_workload_name(name)?;
    Some(WorkloadKey {
        node: node.into(),
        orchestrator: orchestrator.into(),
        workload: format!("{namespace}/{workload}").into(),
        endpoint: endpoint.into(),
    })
}

pub(super) fn workload_updates(r: &WorkloadEndpoint) -> Result<Vec<Update>, Cause> {
    let s = &r.spec;
    let key = workload_key(&r.metadata.namespace, &r.metadata.name)
        .ok_or("metadata.name: is not <node>-<orchestrator>-<workload>-<endpoint>")?;
    if s.ip_networks.is_empty() {
        return Ok(vec![Update::Workload(key, None)]);
    }
    let mut ports = Vec::new();
    for p in s.ports.iter().filter(|p| !p.name.is_empty()) {
        let protocol = protocol("spec.ports", &p.protocol)?;
        ports.push(NamedPort {
            name: p.name.as_str().into(),
            protocol,
            port: p.port,
        });
    }
    let nat = |n: &IpNat| -> Result<(IpAddr, IpAddr), Cause> {
        let ip = |t: &str| t.parse().map_err(|e| format!("spec.ipNATs: {t:?}: {e}"));
        Ok((ip(&n.internal_ip)?, ip(&n.external_ip)?))
    };
    let own = r.metadata.labels.iter().filter(|(k, _)| !is_inherited(k));
    let own = own.map(|(k, v)| (k.as_str(), v.as_str()));
    let special = [
        (NAMESPACE_LABEL, r.metadata.namespace.as_str()),
        (
            super::kube_policy::ORCHESTRATOR_LABEL,
            s.orchestrator.as_str(),
        ),
    ];
    let endpoint = model::WorkloadEndpoint {
        interface: match s.interface_name.as_str() {
            "" => None,
            n => Some(n.parse().map_err(|e| cause("spec.interfaceName")(&e))?),
        },
        mac: match s.mac.as_str() {
            "" => None,
            m => Some(m.parse().map_err(|e| cause("spec.mac")(&e))?),
        },
        nets: parse_all("spec.ipNetworks", &s.ip_networks)?,
        nats: s.ip_nats.iter().map(nat).collect::<Result<_, _>>()?,
        labels: Labels::new(own.chain(special)),
        profiles: profiles(&s.profiles),
        ports,
        allowed_sources: parse_all(
            "spec.allowSpoofedSourcePrefixes",
            &s.allow_spoofed_source_prefixes,
        )?,
        qos: s.qos_controls.as_ref().map(qos).unwrap_or_default(),
    };
    Ok(vec![Update::Workload(key, Some(endpoint))])
}

/// Rates without a burst get the burst of 5 that Calico gives them.
pub(super) fn qos(q: &QosControls) -> Qos {
    let cap = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
    let packets = |rate: u64, burst: u64| {
        (rate > 0).then(|| (cap(rate), if burst == 0 { 5 } else { cap(burst) }))
    };
    let some = |n: u64| (n > 0).then(|| cap(n));
    Qos {
        ingress_packets: packets(q.ingress_packet_rate, q.ingress_packet_burst),
        egress_packets: packets(q.egress_packet_rate, q.egress_packet_burst),
        ingress_connections: some(q.ingress_max_connections),
        egress_connections: some(q.egress_max_connections),
        dscp: q.dscp.as_ref().and_then(|d| dscp(&d.to_string())),
    }
}

/// A differentiated-services code point: 0-63, or its name (RFC 2474, 2597, 3246).
pub(crate) fn dscp(text: &str) -> Option<u8> {
    let digit = |s: &str, max: u8| s.parse::<u8>().ok().filter(|n| *n <= max);
    let upper = text.to_ascii_uppercase();
    match upper.as_str() {
        "DF" => Some(0),
        "EF" => Some(46),
        t => match (t.strip_prefix("AF"), t.strip_prefix("CS")) {
            (Some(af), _) if af.len() == 2 => {
                let (class, drop) = (digit(af.get(..1)?, 4)?, digit(af.get(1..)?, 3)?);
                (class > 0 && drop > 0).then_some(class * 8 + drop * 2)
            }
            (_, Some(cs)) => digit(cs, 7).map(|c| c * 8),
            _ => digit(t, 63),
        },
    }
}

pub(super) fn host_update(r: &HostEndpoint) -> Result<Update, Cause> {
    let s = &r.spec;
    if s.node.is_empty() {
        return Err("spec.node: must be specified".to_owned());
    }
    let port = |p: &EndpointPort| -> Result<NamedPort, Cause> {
        let protocol = protocol("spec.ports", &p.protocol)?;
        Ok(NamedPort {
            name: p.name.as_str().into(),
            protocol,
            port: p.port,
        })
    };
    let endpoint = model::HostEndpoint {
        node: s.node.as_str().into(),
        interface: (!s.interface_name.is_empty()).then(|| s.interface_name.as_str().into()),
        expected_ips: parse_all("spec.expectedIPs", &s.expected_ips)?,
        labels: labels(&r.metadata.labels),
        profiles: profiles(&s.profiles),
        ports: s.ports.iter().map(port).collect::<Result<_, _>>()?,
        dscp: (r.metadata.annotations.get(annotations::DSCP)).and_then(|t| dscp(t)),
    };
    Ok(Update::Host(
        r.metadata.name.as_str().into(),
        Some(endpoint),
    ))
}

pub(super) fn profile_update(r: &Profile) -> Result<Update, Cause> {
    let rules = |dir: &str, rules: &[Rule]| -> Result<Vec<model::Rule>, Cause> {
        let one = |(i, r): (usize, &Rule)| {
            policy::rule(r, None).map_err(|e| format!("spec.{dir}[{i}].{e}"))
        };
        rules.iter().enumerate().map(one).collect()
    };
    let profile = model::Profile {
        ingress: rules("ingress", &r.spec.ingress)?,
        egress: rules("egress", &r.spec.egress)?,
        labels: labels(&r.spec.labels_to_apply),
    };
    Ok(Update::Profile(
        r.metadata.name.as_str().into(),
        Some(profile),
    ))
}

/// Labels as endpoints inherit them, with the owner's name among them.
fn inherited(meta: &ObjectMeta, prefix: &str) -> impl Iterator<Item = (String, String)> {
    let own = meta
        .labels
        .iter()
        .map(move |(k, v)| (format!("{prefix}{k}"), v.clone()));
    own.chain([(format!("{prefix}projectcalico.org/name"), meta.name.clone())])
}

/// What endpoints inherit of a namespace. Kubernetes' API server labels each with its own name and policies
/// rely on it; a store without an API server may hold namespaces without the label.
fn namespace_labels(meta: &ObjectMeta) -> StringMap {
    let named = format!("{}{NAMESPACE_NAME_LABEL}", policy::NAMESPACE_PREFIX);
    inherited(meta, policy::NAMESPACE_PREFIX)
        .chain([(named, meta.name.clone())])
        .collect()
}

/// A namespace is the profile `kns.<name>`: its pods are open until policy says otherwise.
pub(super) fn namespace_update(meta: &ObjectMeta) -> Update {
    let allow = || vec![model::Rule::any(Action::Allow)];
    let labels = Labels::new(namespace_labels(meta));
    let profile = model::Profile {
        ingress: allow(),
        egress: allow(),
        labels,
    };
    Update::Profile(format!("kns.{}", meta.name).into(), Some(profile))
}

/// A service account is the profile `ksa.<namespace>.<name>`, which only gives labels.
pub(super) fn service_account_update(meta: &ObjectMeta) -> Update {
    let labels = Labels::new(inherited(meta, policy::SERVICE_ACCOUNT_PREFIX));
    let profile = model::Profile {
        labels,
        ..model::Profile::default()
    };
    Update::Profile(
        format!("ksa.{}.{}", meta.namespace, meta.name).into(),
        Some(profile),
    )
}

/// The profile of a namespace as the resource that `get profile` shows; nobody stores it.
pub fn namespace_profile(r: &Namespace) -> Profile {
    let allow = || {
        vec![Rule {
            action: "Allow".to_owned(),
            ..Rule::default()
        }]
    };
    let mut p = shown(&r.metadata, format!("kns.{}", r.metadata.name));
    p.metadata.resource_version = format!("{}/", r.metadata.resource_version);
    p.spec.ingress = allow();
    p.spec.egress = allow();
    p.spec.labels_to_apply = namespace_labels(&r.metadata);
    p
}

/// The profile of a service account as the resource that `get profile` shows; nobody stores it.
pub fn service_account_profile(r: &ServiceAccount) -> Profile {
    let mut p = shown(
        &r.metadata,
        format!("ksa.{}.{}", r.metadata.namespace, r.metadata.name),
    );
    p.metadata.resource_version = format!("/{}", r.metadata.resource_version);
    p.spec.labels_to_apply = inherited(&r.metadata, policy::SERVICE_ACCOUNT_PREFIX).collect();
    p
}

fn shown(of: &ObjectMeta, name: String) -> Profile {
    let metadata = ObjectMeta {
        name,
        uid: of.uid.clone(),
        creation_timestamp: of.creation_timestamp.clone(),
        ..ObjectMeta::default()
    };
    Profile {
        metadata,
        ..Profile::default()
    }
}

pub(super) fn set_update(
    meta: &ObjectMeta,
    spec: &NetworkSetSpec,
    namespace: Option<&str>,
) -> Result<Update, Cause> {
    let nets: Vec<Cidr> = parse_all("spec.nets", &spec.nets)?;
    let own = meta.labels.iter().map(|(k, v)| (k.as_str(), v.as_str()));
    let set = NetworkSet {
        nets,
        labels: Labels::new(own.chain(namespace.map(|ns| (NAMESPACE_LABEL, ns)))),
        profiles: namespace
            .map(|ns| format!("kns.{ns}").into())
            .into_iter()
            .collect(),
    };
    let key = NetworkSetKey {
        namespace: namespace.map(Arc::from),
        name: meta.name.as_str().into(),
    };
    Ok(Update::NetworkSet(key, Some(set)))
}
