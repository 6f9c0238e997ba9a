//! What a Kubernetes API server and its controllers add to Services.
//!
//! Promises: a service that says nothing of its addresses and node ports gets the next free
//! ones, in the order in which services come; a service with a selector gets the
//! EndpointSlices of the pods that it selects. Pure: the same input, the same addresses.
//!
//! Never: changes what a service says itself.

use crate::plan::FamilySet;
use api::Resource;
use net::{Cidr, Family};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// Where cluster addresses come from; documentation of most installers has these.
pub const SERVICES_V4: &str = "10.96.0.0/16";
/// As [`SERVICES_V4`].
pub const SERVICES_V6: &str = "fd00:10:96::/112";
/// `--service-node-port-range` of Kubernetes.
const NODE_PORTS: std::ops::RangeInclusive<u16> = 30000..=32767;

/// Kind of services.
pub const SERVICE: &str = "Service";
/// Kind of endpoint slices.
pub const SLICE: &str = "EndpointSlice";

/// Whether an object is of a kind, by its name in `kind:`.
pub fn is(r: &Resource, kind: &str) -> bool {
    r.kind().info().kind == kind
}

/// Addresses and node ports that are in use.
#[derive(Debug, Default, Clone)]
pub struct Allocator {
    addresses: BTreeSet<IpAddr>,
    node_ports: BTreeSet<u16>,
}

impl Allocator {
    /// Takes what a service has.
    pub fn note(&mut self, service: &Value) {
        self.addresses.extend(cluster_ips(service));
        let ports = service["spec"]["ports"].as_array();
        let taken = ports.into_iter().flatten().filter_map(node_port);
        self.node_ports.extend(taken);
    }

    /// Gives a service what it lacks; whether that was anything.
    pub fn complete(&mut self, service: &mut Value, families: FamilySet) -> bool {
        self.note(service);
        let kind = service["spec"]["type"].as_str().unwrap_or("ClusterIP");
        let nodes = matches!(kind, "NodePort" | "LoadBalancer");
        if kind == "ExternalName" {
            return false;
        }
        let mut changed = false;
        let headless = service["spec"]["clusterIP"] == "None";
        if !headless && cluster_ips(service).is_empty() {
            let list: Vec<String> = wanted_families(service, families)
                .filter_map(|f| self.address(f))
                .map(|a| a.to_string())
                .collect();
            if let Some(first) = list.first() {
                service["spec"]["clusterIP"] = json!(first);
                service["spec"]["clusterIPs"] = json!(list);
                changed = true;
            }
        }
        let ports = service["spec"]["ports"].as_array_mut();
        for port in ports.into_iter().flatten().filter(|_| nodes) {
            if node_port(port).is_none()
                && let Some(free) = NODE_PORTS
                    .into_iter()
                    .find(|p| !self.node_ports.contains(p))
            {
                self.node_ports.insert(free);
                port["nodePort"] = json!(free);
                changed = true;
            }
        }
        changed
    }

    fn address(&mut self, family: Family) -> Option<IpAddr> {
        let range: Cidr = match family {
            Family::V4 => SERVICES_V4,
            Family::V6 => SERVICES_V6,
        }
        .parse()
        .ok()?;
        // 1 and 10 are those of the API and of DNS in most clusters.
        let free = (11..range.size().min(65_000))
            .filter_map(|n| range.nth(n))
            .find(|a| !self.addresses.contains(a))?;
        self.addresses.insert(free);
        Some(free)
    }
}

fn node_port(port: &Value) -> Option<u16> {
    let n = u16::try_from(port["nodePort"].as_u64()?).ok()?;
    (n != 0).then_some(n)
}

/// The families that a service asks for: its own list, or all of the cluster.
fn wanted_families(service: &Value, families: FamilySet) -> impl Iterator<Item = Family> {
    let own: Vec<Family> = service["spec"]["ipFamilies"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|f| match f.as_str()? {
            "IPv4" => Some(Family::V4),
            "IPv6" => Some(Family::V6),
            _ => None,
        })
        .collect();
    let single = service["spec"]["ipFamilyPolicy"] == "SingleStack";
    let all: Vec<Family> = if own.is_empty() {
        families.iter().collect()
    } else {
        own
    };
    let count = if single { 1 } else { all.len() };
    all.into_iter().take(count)
}

/// The cluster addresses of a service.
pub fn cluster_ips(service: &Value) -> Vec<IpAddr> {
    let spec = &service["spec"];
    let list = spec["clusterIPs"].as_array().into_iter().flatten();
    let mut found: Vec<IpAddr> = list
        .chain(std::iter::once(&spec["clusterIP"]))
        .filter_map(|a| a.as_str()?.parse().ok())
        .collect();
    let mut seen = BTreeSet::new();
    found.retain(|a| seen.insert(*a));
    found
}

/// A pod as the endpoint controller sees it.
#[derive(Debug, Clone)]
pub struct PodAt<'a> {
    /// The pod, as JSON.
    pub pod: &'a Value,
    /// The node that it is on.
    pub node: &'a str,
    /// Its addresses.
    pub ips: &'a [IpAddr],
}

/// The slices of a service: none if it has no selector. Named after the service, so that those of
/// before are found again.
pub fn slices(service: &Value, pods: &[PodAt<'_>]) -> Vec<Value> {
    let Some(selector) = service["spec"]["selector"]
        .as_object()
        .filter(|s| !s.is_empty())
    else {
        return Vec::new();
    };
    let chosen = pods.iter().filter(|p| {
        p.pod["metadata"]["namespace"] == service["metadata"]["namespace"]
            && p.pod["spec"]["hostNetwork"] != true
            && selects(selector, &p.pod["metadata"]["labels"])
    });
    // Endpoints of one slice have the same ports: a name may mean another number in each pod.
    let mut groups: BTreeMap<(Family, String), Vec<Value>> = BTreeMap::new();
    for p in chosen {
        let ports = Value::from(ports_at(service, p.pod)).to_string();
        for ip in p.ips {
            groups
                .entry((Family::of(*ip), ports.clone()))
                .or_default()
                .push(json!({
                    "addresses": [ip.to_string()],
                    "conditions": {"ready": true, "serving": true, "terminating": false},
                    "nodeName": p.node,
                    "targetRef": {
                        "kind": "Pod",
                        "namespace": p.pod["metadata"]["namespace"],
                        "name": p.pod["metadata"]["name"],
                    },
                }));
        }
    }
    let meta = &service["metadata"];
    let name = meta["name"].as_str().unwrap_or_default();
    let of_family = |f| if f == Family::V4 { "IPv4" } else { "IPv6" };
    groups
        .into_iter()
        .enumerate()
        .map(|(i, ((family, ports), endpoints))| {
            let kind = of_family(family);
            json!({
                "apiVersion": "discovery.k8s.io/v1",
                "kind": SLICE,
                "metadata": {
                    "namespace": meta["namespace"],
                    "name": format!("{name}-{}-{i}", kind.to_lowercase()),
                    "labels": {
                        "kubernetes.io/service-name": name,
                        MANAGED_BY: MANAGER,
                    },
                },
                "addressType": kind,
                "endpoints": endpoints,
                "ports": serde_json::from_str::<Value>(&ports).unwrap_or_default(),
            })
        })
        .collect()
}

/// The label by which a controller knows its own slices.
pub const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
/// Its value on slices of ours.
pub const MANAGER: &str = "endpoints.manx";

fn selects(selector: &Map<String, Value>, labels: &Value) -> bool {
    selector.iter().all(|(k, v)| labels.get(k) == Some(v))
}

/// The ports of a slice: those of the service, with the numbers that this pod gives them.
fn ports_at(service: &Value, pod: &Value) -> Vec<Value> {
    let ports = service["spec"]["ports"].as_array();
    let mut out = Vec::new();
    for p in ports.into_iter().flatten() {
        let protocol = p["protocol"].as_str().unwrap_or("TCP");
        let number = match &p["targetPort"] {
            Value::String(name) => match name.parse() {
                Ok(n) => Some(n),
                Err(_) => container_port(pod, name, protocol),
            },
            Value::Number(n) if n.as_u64() != Some(0) => n.as_u64(),
            _ => p["port"].as_u64(),
        };
        if let Some(number) = number {
            out.push(json!({
                "name": p["name"].as_str().unwrap_or_default(),
                "protocol": protocol,
                "port": number,
            }));
        }
    }
    out
}

fn container_port(pod: &Value, name: &str, protocol: &str) -> Option<u64> {
    let containers = pod["spec"]["containers"].as_array()?;
    containers
        .iter()
        .filter_map(|c| c["ports"].as_array())
        .flatten()
        .find(|p| p["name"] == name && p["protocol"].as_str().unwrap_or("TCP") == protocol)?
        ["containerPort"]
        .as_u64()
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOTH: FamilySet = FamilySet { v4: true, v6: true };

    #[test]
    fn a_service_gets_what_it_lacks_and_keeps_what_it_has() {
        let mut a = Allocator::default();
        let mut s = json!({"spec": {"type": "NodePort", "ports": [{"port": 80}, {"port": 81, "nodePort": 30000}]}});
        assert!(a.complete(&mut s, BOTH));
        assert_eq!(
            s["spec"]["clusterIPs"],
            json!(["10.96.0.11", "fd00:10:96::b"])
        );
        assert_eq!(s["spec"]["ports"][0]["nodePort"], 30001);
        assert!(!a.complete(&mut s, BOTH), "the second time changes nothing");
        let mut headless = json!({"spec": {"clusterIP": "None", "ports": [{"port": 80}]}});
        assert!(!a.complete(&mut headless, BOTH));
        let mut other = json!({"spec": {"ipFamilies": ["IPv6"], "ports": [{"port": 80}]}});
        assert!(a.complete(&mut other, BOTH));
        assert_eq!(other["spec"]["clusterIP"], "fd00:10:96::c");
    }

    #[test]
    fn slices_follow_labels_and_named_ports() {
        let service = json!({
            "metadata": {"namespace": "a", "name": "web"},
            "spec": {"selector": {"app": "web"},
                "ports": [{"name": "http", "port": 80, "targetPort": "web"}, {"name": "x", "port": 7, "protocol": "UDP"}]},
        });
        let pod = |ns: &str, app: &str, port: u16| {
            json!({
                "metadata": {"namespace": ns, "name": "p", "labels": {"app": app}},
                "spec": {"containers": [{"ports": [{"name": "web", "containerPort": port}]}]},
            })
        };
        let pods = [
            pod("a", "web", 8080),
            pod("a", "web", 8081),
            pod("b", "web", 1),
            pod("a", "db", 1),
        ];
        let ips: [Vec<IpAddr>; 4] = ["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4"].map(|a| {
            vec![
                a.parse().unwrap(),
                format!("fd00::{}", &a[7..]).parse().unwrap(),
            ]
        });
        let at: Vec<PodAt<'_>> = pods
            .iter()
            .zip(&ips)
            .map(|(pod, ips)| PodAt {
                pod,
                node: "n",
                ips,
            })
            .collect();
        let made = slices(&service, &at);
        // Two families, and two numbers for the one name.
        assert_eq!(made.len(), 4);
        assert_eq!(made[0]["ports"][0]["port"], 8080);
        assert_eq!(
            made[0]["ports"][1],
            json!({"name": "x", "protocol": "UDP", "port": 7})
        );
        assert_eq!(made[1]["endpoints"][0]["addresses"], json!(["10.0.0.2"]));
        assert_eq!(made[3]["addressType"], "IPv6");
        let none = json!({"metadata": {"namespace": "a", "name": "x"}, "spec": {"ports": []}});
        assert!(slices(&none, &at).is_empty());
    }
}
