//! Pods as workload endpoints: names, interfaces, addresses, labels, ports and
//! what annotations say.

use super::endpoint::{dscp, is_inherited, qos};
use super::kube_policy::ORCHESTRATOR_LABEL;
use super::lean;
use super::policy::SERVICE_ACCOUNT_LABEL;
use crate::annotations::{self, CNI};
use crate::kinds::endpoint::{
    IpNat, QosControls, WorkloadEndpoint, WorkloadEndpointPort, WorkloadEndpointSpec,
};
use crate::kinds::kube;
use crate::meta::ObjectMeta;
use crate::wire::NumOrString;
use model::selector::NAMESPACE_LABEL;
use model::{Labels, NamedPort, Qos, Update, WorkloadKey};
use net::{Cidr, Family, Mac, Protocol};
use sha1::{Digest as _, Sha1};
use std::net::IpAddr;

/// Why a pod is no workload endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoEndpoint {
    /// It shares the node's network.
    #[error("the pod uses the host's network")]
    HostNetwork,
    /// It runs nowhere yet.
    #[error("the pod is not scheduled to a node")]
    Unscheduled,
}

/// Host side of a pod's link: the prefix and the first 11 hexadecimal digits of the SHA-1 of
/// `<namespace>.<pod>`; `prefix` is the first of FELIX_INTERFACEPREFIX, `cali`.
pub fn interface_name(prefix: &str, namespace: &str, pod: &str) -> String {
    let mut hash = Sha1::new();
    for part in [namespace, ".", pod] {
        hash.update(part.as_bytes());
    }
    let digest = hash.finalize();
    let mut name = String::with_capacity(prefix.len() + 11);
    name.push_str(prefix);
    let digits = digest.iter().flat_map(|b| [b >> 4, b & 15]).take(11);
    name.extend(digits.filter_map(|d| char::from_digit(u32::from(d), 16)));
    name
}

/// Name of the resource of a workload endpoint: the four parts joined by `-`, every `-` within a
/// part doubled.
pub fn workload_name(node: &str, orchestrator: &str, workload: &str, endpoint: &str) -> String {
    [node, orchestrator, workload, endpoint]
        .map(|p| p.replace('-', "--"))
        .join("-")
}

/// Takes such a name apart; `None` when it does not have four parts.
pub fn split_workload_name(name: &str) -> Option<[String; 4]> {
    let mut parts = vec![String::new()];
    let mut chars = name.chars().peekable();
    while let Some(c) = chars.next() {
        if c == '-' && chars.next_if_eq(&'-').is_none() {
            parts.push(String::new());
        } else {
            parts.last_mut()?.push(c);
        }
    }
    let four: [String; 4] = parts.try_into().ok()?;
    four.iter().all(|p| !p.is_empty()).then_some(four)
}

/// What both forms of an endpoint are made of.
struct Facts<'p, 'a> {
    pod: &'p lean::Pod<'a>,
    ips: Vec<IpAddr>,
}

impl<'p, 'a> Facts<'p, 'a> {
    fn new(pod: &'p lean::Pod<'a>) -> Result<Self, NoEndpoint> {
        if pod.spec.host_network {
            return Err(NoEndpoint::HostNetwork);
        }
        if pod.spec.node_name.is_empty() {
            return Err(NoEndpoint::Unscheduled);
        }
        let ips = if finished(pod) {
            Vec::new()
        } else {
            addresses(pod)
        };
        Ok(Self { pod, ips })
    }

    fn annotation(&self, name: &str) -> Option<&str> {
        let found = self.pod.metadata.annotations.0.iter().find(|(k, _)| {
            k.as_str()
                .strip_prefix(CNI)
                .is_some_and(|rest| rest == name)
        });
        found.map(|(_, v)| v.as_str())
    }

    fn namespace(&self) -> &str {
        self.pod.metadata.namespace.as_str()
    }

    fn name(&self) -> &str {
        self.pod.metadata.name.as_str()
    }

    fn profiles(&self) -> impl Iterator<Item = String> {
        let (ns, sa) = (
            self.namespace(),
            self.pod.spec.service_account_name.as_str(),
        );
        let account = (!sa.is_empty()).then(|| format!("ksa.{ns}.{sa}"));
        std::iter::once(format!("kns.{ns}")).chain(account)
    }

    /// The pod's own labels and, over them, those that policy relies on.
    fn labels(&self) -> impl Iterator<Item = (&str, &str)> {
        let own = self
            .pod
            .metadata
            .labels
            .iter()
            .filter(|(k, _)| !is_inherited(k));
        let sa = self.pod.spec.service_account_name.as_str();
        // The longest value that a label may have is 63.
        let account = (!sa.is_empty() && sa.len() < 63).then_some((SERVICE_ACCOUNT_LABEL, sa));
        let special = [
            (NAMESPACE_LABEL, self.namespace()),
            (ORCHESTRATOR_LABEL, "k8s"),
        ];
        own.chain(special).chain(account)
    }

    /// Ports that have a name or a host port, and a protocol that has ports.
    fn ports(&self) -> impl Iterator<Item = (&lean::ContainerPort<'a>, Protocol)> {
        let s = &self.pod.spec;
        s.containers
            .iter()
            .chain(&s.init_containers)
            .flat_map(|c| &c.ports)
            .filter_map(|p| {
                let protocol = match p.protocol.as_str() {
                    "" => Protocol::TCP,
                    t => t.parse().ok()?,
                };
                let wanted = !p.name.is_empty() || p.host_port != 0;
                (wanted && protocol.has_ports()).then_some((p, protocol))
            })
    }

    /// Each floating address with the pod's first address of the same family.
    fn nats(&self) -> impl Iterator<Item = (IpAddr, IpAddr)> {
        let outside = self
            .annotation("floatingIPs")
            .and_then(annotations::addresses_of);
        outside.into_iter().flatten().filter_map(|out| {
            let inside = self
                .ips
                .iter()
                .find(|i| Family::of(**i) == Family::of(out))?;
            Some((*inside, out))
        })
    }

    fn allowed_sources(&self) -> Vec<Cidr> {
        let list = self
            .annotation("allowedSourcePrefixes")
            .and_then(annotations::list_of);
        list.iter()
            .flatten()
            .filter_map(|c| c.parse().ok())
            .collect()
    }

    fn qos(&self) -> Option<QosControls> {
        annotations::qos(self.pod.metadata.annotations.iter())
    }
}

/// Whether its addresses are free for others: its network is gone, or is going and said so.
fn finished(pod: &lean::Pod<'_>) -> bool {
    matches!(pod.status.phase.as_str(), "Failed" | "Succeeded")
        || pod.metadata.deletion_timestamp.is_some()
            && pod.metadata.annotations.get("cni.projectcalico.org/podIP") == Some("")
}

/// The first source that says anything counts.
fn addresses(pod: &lean::Pod<'_>) -> Vec<IpAddr> {
    fn parse(t: &str) -> Option<IpAddr> {
        let bare = t.trim().split_once('/').map_or(t.trim(), |(a, _)| a);
        bare.parse().ok()
    }
    let from_status: Vec<IpAddr> = pod
        .status
        .pod_ips
        .iter()
        .filter_map(|i| parse(i.ip.as_str()))
        .collect();
    if !from_status.is_empty() {
        return from_status;
    }
    if let Some(ip) = parse(pod.status.pod_ip.as_str()) {
        return vec![ip];
    }
    let sources = [
        "cni.projectcalico.org/podIPs",
        "cni.projectcalico.org/podIP",
        "vpc.amazonaws.com/pod-ips",
    ];
    let texts = sources
        .iter()
        .filter_map(|s| pod.metadata.annotations.get(s));
    let mut lists = texts.map(|t| t.split(',').filter_map(parse).collect::<Vec<_>>());
    lists.find(|l| !l.is_empty()).unwrap_or_default()
}

/// No update for pods that are no endpoints: what was there before is for the caller to retract.
pub(super) fn updates(pod: &lean::Pod<'_>, prefix: &str) -> Vec<Update> {
    let Ok(f) = Facts::new(pod) else {
        return Vec::new();
    };
    if f.ips.is_empty() {
        return Vec::new();
    }
    let (ns, name) = (f.namespace(), f.name());
    let key = WorkloadKey {
        node: pod.spec.node_name.as_str().into(),
        orchestrator: "k8s".into(),
        workload: format!("{ns}/{name}").into(),
        endpoint: "eth0".into(),
    };
    let named = f.ports().filter(|(p, _)| !p.name.is_empty());
    let endpoint = model::WorkloadEndpoint {
        interface: interface_name(prefix, ns, name).parse().ok(),
        mac: f.annotation("hwAddr").and_then(|m| m.parse::<Mac>().ok()),
        nets: f.ips.iter().copied().map(Cidr::host).collect(),
        nats: f.nats().collect(),
        labels: Labels::new(f.labels()),
        profiles: f.profiles().map(Into::into).collect(),
        ports: named
            .map(|(p, protocol)| NamedPort {
                name: p.name.as_str().into(),
                protocol,
                port: p.container_port,
            })
            .collect(),
        allowed_sources: f.allowed_sources(),
        qos: f.qos().map_or_else(Qos::default, |q| qos(&q)),
    };
    vec![Update::Workload(key, Some(endpoint))]
}

/// The endpoint of a pod as the resource that `get workloadendpoint` shows.
///
/// # Errors
/// When a pod of that sort has no endpoint.
pub fn to_workload_endpoint(pod: &kube::Pod) -> Result<WorkloadEndpoint, NoEndpoint> {
    let lean = lean::Pod::from(pod);
    let f = Facts::new(&lean)?;
    let (ns, name) = (f.namespace(), f.name());
    let metadata = ObjectMeta {
        name: workload_name(&pod.spec.node_name, "k8s", name, "eth0"),
        namespace: ns.to_owned(),
        uid: pod.metadata.uid.clone(),
        resource_version: pod.metadata.resource_version.clone(),
        generate_name: pod.metadata.generate_name.clone(),
        creation_timestamp: pod.metadata.creation_timestamp.clone(),
        deletion_timestamp: pod.metadata.deletion_timestamp.clone(),
        labels: f
            .labels()
            .map(|(k, v)| (k.to_owned(), v.to_owned()))
            .collect(),
        ..ObjectMeta::default()
    };
    let port = |(p, protocol): (&lean::ContainerPort<'_>, Protocol)| WorkloadEndpointPort {
        name: p.name.as_str().to_owned(),
        protocol: NumOrString::Text(protocol.to_string()),
        port: p.container_port,
        host_port: p.host_port,
        host_ip: p.host_ip.as_str().to_owned(),
    };
    let nat = |(inside, outside): (IpAddr, IpAddr)| IpNat {
        internal_ip: inside.to_string(),
        external_ip: outside.to_string(),
    };
    let qos = f.qos().map(|mut q| {
        q.dscp = q.dscp.filter(|d| dscp(&d.to_string()).is_some());
        q
    });
    let spec = WorkloadEndpointSpec {
        orchestrator: "k8s".to_owned(),
        node: pod.spec.node_name.clone(),
        container_id: f.annotation("containerID").unwrap_or_default().to_owned(),
        pod: name.to_owned(),
        endpoint: "eth0".to_owned(),
        service_account_name: pod.spec.service_account_name.clone(),
        ip_networks: f.ips.iter().map(|i| Cidr::host(*i).to_string()).collect(),
        ip_nats: f.nats().map(nat).collect(),
        profiles: f.profiles().collect(),
        interface_name: interface_name("cali", ns, name),
        mac: f.annotation("hwAddr").unwrap_or_default().to_owned(),
        ports: f.ports().map(port).collect(),
        allow_spoofed_source_prefixes: f
            .allowed_sources()
            .iter()
            .map(ToString::to_string)
            .collect(),
        qos_controls: qos,
        ..WorkloadEndpointSpec::default()
    };
    Ok(WorkloadEndpoint { metadata, spec })
}
