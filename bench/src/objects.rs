//! The objects that clusters under test are made of, as users and controllers write them.

use serde_json::{Map, Value, json};
use std::net::Ipv4Addr;

/// Pods take addresses from here.
pub(crate) const POOL: &str = "10.64.0.0/10";
/// Pods that exist in the store alone have theirs from here, so that none is given twice.
const ELSEWHERE: u32 = 0x0a80_0000;

/// A stable identifier: what matters is that two objects differ.
pub(crate) fn uid(of: &str) -> String {
    let mut h = 0xcbf2_9ce4_8422_2325_u64;
    for b in of.bytes() {
        h = (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3);
    }
    let low = h & 0xffff_ffff_ffff;
    format!("{:08x}-0000-4000-8000-{low:012x}", h >> 32)
}

fn labels(pairs: &[(&str, &str)]) -> Value {
    Value::Object(
        pairs
            .iter()
            .map(|(k, v)| ((*k).to_owned(), json!(v)))
            .collect::<Map<_, _>>(),
    )
}

/// A Kubernetes namespace.
pub(crate) fn namespace(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Namespace",
        "metadata": {"name": name, "uid": uid(name),
            "labels": {"kubernetes.io/metadata.name": name}},
    })
}

/// A pod that is scheduled and has no address yet.
pub(crate) fn pod(namespace: &str, name: &str, node: &str, of: &[(&str, &str)]) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, "labels": labels(of),
            "uid": uid(&format!("{namespace}/{name}")),
            "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {"nodeName": node, "serviceAccountName": "default",
            "containers": [{"name": "main", "image": "registry.local/app:1"}]},
        "status": {"phase": "Pending"},
    })
}

/// Address number `n` of the pods that are elsewhere.
pub(crate) fn elsewhere(n: u32) -> Ipv4Addr {
    Ipv4Addr::from(ELSEWHERE + n)
}

/// A pod that runs on a node that is not here, as another cluster member left it in the store.
pub(crate) fn running(
    namespace: &str,
    name: &str,
    node: &str,
    ip: Ipv4Addr,
    of: &[(&str, &str)],
) -> Value {
    let mut p = pod(namespace, name, node, of);
    p["metadata"]["annotations"] = json!({
        "cni.projectcalico.org/podIP": format!("{ip}/32"),
        "cni.projectcalico.org/podIPs": format!("{ip}/32"),
        "cni.projectcalico.org/containerID": format!("{:064x}", u32::from(ip)),
    });
    p["status"] =
        json!({"phase": "Running", "podIP": ip.to_string(), "podIPs": [{"ip": ip.to_string()}]});
    p
}

/// The pool without encapsulation.
pub(crate) fn pool() -> Value {
    json!({
        "apiVersion": "projectcalico.org/v3", "kind": "IPPool",
        "metadata": {"name": "pods", "uid": uid("pods"), "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {"cidr": POOL, "blockSize": 26, "vxlanMode": "Never", "ipipMode": "Never",
            "natOutgoing": false, "nodeSelector": "all()", "allowedUses": ["Workload", "Tunnel"]},
    })
}

/// Another member of the cluster.
pub(crate) fn node(name: &str, ip: Ipv4Addr) -> Value {
    json!({
        "apiVersion": "projectcalico.org/v3", "kind": "Node",
        "metadata": {"name": name, "uid": uid(name)},
        "spec": {"bgp": {"ipv4Address": format!("{ip}/16")},
            "addresses": [{"address": format!("{ip}/16"), "type": "CalicoNodeIP"}]},
    })
}

/// Key and value of the address block that holds the `n`-th 64 of the addresses elsewhere.
pub(crate) fn block(n: u32, node: &str) -> (String, Value) {
    let first = elsewhere(n * 64);
    let key = format!("/calico/ipam/v2/assignment/ipv4/block/{first}-26");
    let value = json!({
        "cidr": format!("{first}/26"), "affinity": format!("host:{node}"),
        "allocations": (0..64).map(|_| 0).collect::<Vec<_>>(), "unallocated": [],
        "attributes": [{"handle_id": format!("k8s-pod-network.{n}"),
            "secondary": {"node": node}}],
        "deleted": false, "sequenceNumber": 64, "strictAffinity": false,
    });
    (key, value)
}

/// A Kubernetes policy that lets pods with one label in on one port.
pub(crate) fn allow(
    namespace: &str,
    name: &str,
    to: (&str, &str),
    from: (&str, &str),
    port: u16,
) -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"name": name, "namespace": namespace, "uid": uid(&format!("{namespace}/{name}")),
            "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {
            "podSelector": {"matchLabels": {to.0: to.1}},
            "policyTypes": ["Ingress"],
            "ingress": [{
                "from": [{"podSelector": {"matchLabels": {from.0: from.1}}}],
                "ports": [{"protocol": "TCP", "port": port}, {"protocol": "UDP", "port": port}],
            }],
        },
    })
}

/// A Calico policy that decides before the others about everything from pods with a label.
pub(crate) fn first(namespace: &str, name: &str, to: &str, from: &str, action: &str) -> Value {
    json!({
        "apiVersion": "projectcalico.org/v3", "kind": "NetworkPolicy",
        "metadata": {"name": name, "namespace": namespace, "uid": uid(&format!("{namespace}/{name}")),
            "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {"tier": "default", "order": 1, "selector": to, "types": ["Ingress"],
            "ingress": [{"action": action, "source": {"selector": from}, "destination": {}}]},
    })
}
