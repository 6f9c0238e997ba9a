//! Addresses: shown, checked, released.

use crate::{Bench, POOL, wait};
use datastore::IpamStore;
use ipam::{AssignIp, Assignment, Ipam, Owner, Pool, Reservations};
use std::collections::BTreeMap;
use std::sync::Arc;

impl Bench {
    fn ipam(&self) -> Ipam<IpamStore> {
        Ipam::new(IpamStore::new(Arc::clone(self.open().store())))
    }

    fn assign(&self, host: &str, address: &str, handle: &str, attrs: &[(&str, &str)]) {
        let pools: Vec<Pool> = ["10.65.0.0/16", "fd00:1::/64"]
            .iter()
            .map(|c| Pool::new(*c, c.parse().expect("CIDR")))
            .collect();
        let attrs: BTreeMap<String, String> = attrs
            .iter()
            .chain(&[("node", host)])
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect();
        let request = AssignIp {
            common: Assignment {
                handle,
                attrs: &attrs,
                owner: &Owner::host(host),
                pools: &pools,
                reservations: &Reservations::default(),
                config: None,
                now: "2026-01-01T00:00:00Z".parse().expect("time"),
            },
            address: address.parse().expect("address"),
            intended_use: None,
        };
        wait(self.ipam().assign_ip(&request)).expect("assigned");
    }

    fn pod(&self, name: &str, node: &str, address: &str) {
        self.apply(&format!(
            "apiVersion: v1\nkind: Namespace\nmetadata: {{name: default}}\n---\napiVersion: v1\nkind: Pod\n\
             metadata: {{name: {name}, namespace: default, annotations: {{cni.projectcalico.org/podIPs: {address}/32}}}}\n\
             spec: {{nodeName: {node}, containers: [{{name: c}}]}}\nstatus: {{phase: Running}}\n"
        ));
    }
}

/// Two pods and a tunnel, as they should be.
fn healthy() -> Bench {
    let b = Bench::new();
    b.apply(POOL);
    for (pod, address) in [("a", "10.65.79.1"), ("b", "10.65.79.2")] {
        b.assign(
            "n1",
            address,
            &format!("k8s-pod-network.{pod}"),
            &[("pod", pod), ("namespace", "default")],
        );
        b.pod(pod, "n1", address);
    }
    b.assign(
        "n1",
        "10.65.79.0",
        "vxlan-tunnel-addr-n1",
        &[("type", "vxlanTunnelAddress")],
    );
    b.apply(
        "apiVersion: projectcalico.org/v3\nkind: Node\nmetadata: {name: n1}\n\
         spec: {bgp: {ipv4Address: 192.0.2.1/24}, ipv4VXLANTunnelAddr: 10.65.79.0}\n",
    );
    b
}

#[test]
fn usage() {
    let b = healthy();
    b.apply("apiVersion: projectcalico.org/v3\nkind: IPPool\nmetadata: {name: six}\nspec: {cidr: 'fd00:1::/64'}\n");
    b.apply("apiVersion: projectcalico.org/v3\nkind: IPReservation\nmetadata: {name: r}\nspec: {reservedCIDRs: [10.65.79.8/29]}\n");
    b.assign("n2", "fd00:1::5", "h", &[]);
    assert_eq!(
        b.ok(&["ipam", "show", "--show-blocks"]),
        "\
+----------+---------------+------------+------------+--------------+-------------------+
| GROUPING |     CIDR      | IPS TOTAL  | IPS IN USE | IPS RESERVED |     IPS FREE      |
+----------+---------------+------------+------------+--------------+-------------------+
| IP Pool  | 10.65.0.0/16  |      65536 | 3 (0%)     | 8 (0%)       | 65525 (100%)      |
| Block    | 10.65.79.0/26 |         64 | 3 (5%)     | 8 (12%)      | 53 (83%)          |
| IP Pool  | fd00:1::/64   | 1.8447e+19 | 1 (0%)     | 0 (0%)       | 1.8447e+19 (100%) |
| Block    | fd00:1::/122  |         64 | 1 (2%)     | 0 (0%)       | 63 (98%)          |
+----------+---------------+------------+------------+--------------+-------------------+
"
    );
    let shown: serde_json::Value =
        serde_json::from_str(&b.ok(&["ipam", "show", "-o", "json"])).expect("JSON");
    assert_eq!(
        (&shown["pools"][0]["inUse"], &shown["pools"][0]["reserved"]),
        (&3.into(), &8.into())
    );
    assert!(shown["pools"][0]["blocks"].is_null());
}

#[test]
fn one_address() {
    let b = healthy();
    assert_eq!(
        b.ok(&["ipam", "show", "--ip", "10.65.79.1"]),
        "IP 10.65.79.1 is in use\nAttributes:\n  namespace: default\n  node: n1\n  pod: a\nHandle: k8s-pod-network.a\n"
    );
    assert_eq!(
        b.ok(&["ipam", "show", "--ip=10.65.79.9"]),
        "10.65.79.9 is not assigned\n"
    );
    assert_eq!(
        b.ok(&["ipam", "show", "--ip=10.1.0.9"]),
        "10.1.0.9 is not assigned; it is in no IP pool\n"
    );
    let json: serde_json::Value =
        serde_json::from_str(&b.ok(&["ipam", "show", "--ip", "10.65.79.1", "-o", "json"]))
            .expect("JSON");
    assert_eq!(
        (&json["inUse"], &json["pool"], &json["attributes"]["pod"]),
        (&true.into(), &"main".into(), &"a".into())
    );
}

#[test]
fn borrowing_and_configuration() {
    let b = healthy();
    b.assign(
        "n2",
        "10.65.79.7",
        "k8s-pod-network.c",
        &[("pod", "c"), ("namespace", "prod")],
    );
    assert_eq!(
        b.ok(&["ipam", "show", "--show-borrowed"]),
        "\
+------------+----------------+---------------+-------------+------+--------------+
|     IP     | BORROWING-NODE |     BLOCK     | BLOCK OWNER | TYPE | ALLOCATED-TO |
+------------+----------------+---------------+-------------+------+--------------+
| 10.65.79.7 | n2             | 10.65.79.0/26 | n1          | pod  | prod/c       |
+------------+----------------+---------------+-------------+------+--------------+
"
    );
    assert_eq!(
        b.ok(&["ipam", "configure", "--strictaffinity=true"]),
        "Successfully set StrictAffinity to: true\n"
    );
    let text = b.ok(&["ipam", "show", "--show-configuration"]);
    assert!(text.contains("| StrictAffinity               | true    |\n| AutoAllocateBlocks           | true    |\n"), "{text}");
    assert!(
        b.ok(&["get", "ipamconfig"])
            .contains("default   true             true")
    );
    // One configuration, whichever way it is written.
    let config = "apiVersion: projectcalico.org/v3\nkind: IPAMConfiguration\nmetadata: {name: default}\nspec: {strictAffinity: false}\n";
    b.apply(config);
    assert!(
        b.ok(&["ipam", "show", "--show-configuration"])
            .contains("| StrictAffinity               | false   |")
    );
}

#[test]
fn a_healthy_cluster() {
    let b = healthy();
    let before = b.dump();
    assert_eq!(
        b.ok(&["ipam", "check", "--fail"]),
        "\
Checking IPAM for inconsistencies...

Loading all IPAM blocks...
Found 1 IPAM blocks.
 IPAM block 10.65.79.0/26 affinity=host:n1:
IPAM blocks record 3 allocations.

Loading all IPAM pools...
  10.65.0.0/16
Found 1 active IP pools.

Loading all nodes.
Found 1 node tunnel IPs.

Loading all workload endpoints.
Found 2 workload IPs.
Workloads and nodes are using 3 IPs.

Loading all handles
Looking for top (up to 20) nodes by allocations...
  n1 has 3 allocations
Node with most allocations has 3; median is 3

Scanning for IPs that are allocated but not actually in use...
Found 0 IPs that are allocated in IPAM but not actually in use.
Scanning for IPs that are in use by a workload or node but not allocated in IPAM...
Found 0 in-use IPs that are not in active IP pools.
Found 0 in-use IPs that are in active IP pools but have no corresponding IPAM allocation.
Scanning for IPs that are in use more than once...
Found 0 IPs that are in use by more than one workload or node.

Scanning for IPAM handles with no matching IPs...
Found 0 handles with no matching IPs (and 3 handles with matches).
Scanning for IPs with missing handle...
Found 0 handles mentioned in blocks with no matching handle resource.
Scanning for blocks, affinities and handles that contradict each other...
Found 0 contradictions.
Check complete; found 0 problems.
"
    );
    assert_eq!(b.dump(), before);
}

#[test]
fn every_kind_of_problem() {
    let b = healthy();
    b.assign(
        "n1",
        "10.65.79.20",
        "k8s-pod-network.gone",
        &[("pod", "gone"), ("namespace", "default")],
    );
    b.assign("n1", "10.65.79.21", "lost", &[]);
    b.pod("foreign", "n1", "172.16.0.1");
    b.pod("unassigned", "n1", "10.65.1.1");
    b.pod("twin", "n2", "10.65.79.1");
    let client = b.open();
    let put = |key: &str, value: &'static str| {
        wait(
            client
                .store()
                .put(key, value.into(), datastore::Precondition::Any),
        )
        .expect("put")
    };
    put(
        "/calico/ipam/v2/handle/empty",
        r#"{"block":{"10.65.79.0/26":1}}"#,
    );
    wait(
        client
            .store()
            .delete("/calico/ipam/v2/handle/lost", datastore::Precondition::Any),
    )
    .expect("delete");
    put(
        "/calico/ipam/v2/host/n9/ipv4/block/10.65.90.0-26",
        r#"{"state":"confirmed"}"#,
    );
    put(
        "/calico/ipam/v2/assignment/ipv4/block/10.65.91.0-26",
        "not json",
    );
    let text = b.ok(&["ipam", "check", "--show-problem-ips"]);
    for part in [
        "  10.65.79.20 leaked handle=k8s-pod-network.gone node=n1 namespace=default pod=gone\n",
        "Found 2 IPs that are allocated in IPAM but not actually in use.",
        "  172.16.0.1 by Workload(default/n1-k8s-foreign-eth0)\nFound 1 in-use IPs that are not in active IP pools.",
        "  10.65.1.1 by Workload(default/n1-k8s-unassigned-eth0)\nFound 1 in-use IPs that are in active IP pools but",
        "  10.65.79.1 by Workload(default/n1-k8s-a-eth0), Workload(default/n2-k8s-twin-eth0)\nFound 1 IPs that are in use by more",
        "  empty\nFound 1 handles with no matching IPs",
        "  lost\nFound 1 handles mentioned in blocks",
        "host:n9 has an affinity to 10.65.90.0/26, which does not exist",
        "/calico/ipam/v2/assignment/ipv4/block/10.65.91.0-26 is malformed",
        "Found 2 contradictions.",
        "Check complete; found 9 problems.\n",
    ] {
        assert!(text.contains(part), "{part}\n{text}");
    }
    assert!(!b.ok(&["ipam", "check"]).contains("leaked handle="));
    assert_eq!(
        b.fails(&["ipam", "check", "--fail"]),
        "ipam check found 9 problems\n"
    );
    let report: serde_json::Value =
        serde_json::from_str(&b.ok(&["ipam", "check", "-o", "json"])).expect("JSON");
    assert_eq!(report["allocations"]["10.65.79.20"][0]["inUse"], false);
    assert_eq!(
        report["allocations"]["10.65.79.2"][0]["owners"][0],
        "Workload(default/n1-k8s-b-eth0)"
    );
    assert_eq!(report["leakedHandles"][0]["ID"], "empty");
    assert_eq!(report["problems"].as_array().map(Vec::len), Some(9));
}

#[test]
fn releasing_one() {
    let b = healthy();
    let text = b.ok(&["ipam", "release", "--ip", "10.65.79.2"]);
    assert_eq!(text, "Successfully released IP address 10.65.79.2\n");
    assert_eq!(
        b.fails(&["ipam", "release", "--ip", "10.65.79.2"]),
        "IP address 10.65.79.2 is not assigned\n"
    );
    assert!(
        b.ok(&["ipam", "check"])
            .contains("Check complete; found 1 problems.")
    );
}

#[test]
fn releasing_from_reports() {
    let b = healthy();
    for (i, pod) in ["x", "y", "z"].iter().enumerate() {
        b.assign(
            "n1",
            &format!("10.65.79.{}", 30 + i),
            &format!("net.{pod}"),
            &[("pod", pod), ("namespace", "default")],
        );
    }
    let report = |name: &str| {
        let path = b.path(name).display().to_string();
        b.ok(&["ipam", "check", "-o", &path]);
        path
    };
    let first = report("1.json");
    // One turns out to be used, one gets a new holder.
    b.pod("x", "n1", "10.65.79.30");
    b.ok(&["ipam", "release", "--ip", "10.65.79.31"]);
    b.assign("n1", "10.65.79.31", "net.y", &[]);
    let second = report("2.json");
    let before = b.dump();
    let refused = b.fails(&["ipam", "release", "--from-report", &first]);
    assert!(
        refused.contains("1.json: it was made while the datastore was not locked"),
        "{refused}"
    );
    let other = b.file(
        "other.json",
        r#"{"clusterGUID":"0","datastoreLocked":true}"#,
    );
    assert!(
        b.fails(&["ipam", "release", "--from-report", &other])
            .contains("another cluster")
    );
    let bad = b.file("bad.json", "[]x");
    assert!(
        b.fails(&["ipam", "release", "--from-report", &bad])
            .contains("not a report")
    );
    assert_eq!(b.dump(), before);
    assert_eq!(
        b.ok(&[
            "ipam",
            "release",
            "--from-report",
            &first,
            &second,
            "--force"
        ]),
        "Released 1 IPs successfully\nLeft 3 IPs alone that are not leaked in every report and now\n"
    );
    let in_use = |ip: &str| b.ok(&["ipam", "show", "--ip", ip]).contains("is in use");
    assert!(in_use("10.65.79.30") && in_use("10.65.79.31") && !in_use("10.65.79.32"));
    assert!(in_use("10.65.79.0") && in_use("10.65.79.1"));
}

#[test]
fn releasing_under_lock() {
    let b = healthy();
    b.assign("n1", "10.65.79.30", "net.x", &[]);
    let ready = |on: bool| {
        let patch = format!(r#"{{"spec":{{"datastoreReady":{on}}}}}"#);
        b.ok(&["patch", "clusterinfo", "default", "-p", &patch]);
    };
    ready(false);
    let path = b.path("r.json").display().to_string();
    b.ok(&["ipam", "check", "-o", &path]);
    ready(true);
    assert!(
        b.fails(&["ipam", "release", "--from-report", &path])
            .contains("unlocked or changed since")
    );
    ready(false);
    b.ok(&["ipam", "check", "-o", &path]);
    assert_eq!(
        b.ok(&["ipam", "release", "--from-report", &path]),
        "Released 1 IPs successfully\n"
    );
}

#[test]
fn deleting_a_pool_releases_its_blocks() {
    let b = healthy();
    // An empty block of another node, which keeps nothing alive.
    b.assign("n2", "10.65.80.1", "h", &[]);
    b.ok(&["ipam", "release", "--ip", "10.65.80.1"]);
    assert_eq!(
        b.ok(&["delete", "ippool", "main"]),
        "Successfully deleted 1 'IPPool' resource(s)\n"
    );
    let keys: Vec<String> = b.dump().into_iter().map(|e| e.key).collect();
    assert!(
        !keys.iter().any(|k| k.contains("/ipam/v2/host/")),
        "{keys:?}"
    );
    assert!(
        !keys.iter().any(|k| k.ends_with("10.65.80.0-26")),
        "{keys:?}"
    );
    assert!(
        keys.iter().any(|k| k.ends_with("10.65.79.0-26")),
        "addresses in use stay: {keys:?}"
    );
    assert!(
        b.ok(&["ipam", "show", "--ip", "10.65.79.1"])
            .starts_with("IP 10.65.79.1 is in use\n")
    );
}

#[test]
fn deleting_a_node_takes_what_was_there_because_of_it() {
    let b = healthy();
    b.assign("n1", "10.65.79.40", "cni.w", &[]);
    b.apply(
        "apiVersion: projectcalico.org/v3\nkind: WorkloadEndpoint\nmetadata: {name: n1-cni-w-eth0, namespace: default}\n\
         spec: {orchestrator: cni, node: n1, containerID: w, endpoint: eth0, interfaceName: cali1, ipNetworks: [10.65.79.40/32]}\n\
         ---\napiVersion: projectcalico.org/v3\nkind: HostEndpoint\nmetadata: {name: h}\nspec: {node: n1, interfaceName: eth0, profiles: [projectcalico-default-allow]}\n\
         ---\napiVersion: projectcalico.org/v3\nkind: FelixConfiguration\nmetadata: {name: node.n1}\nspec: {}\n",
    );
    b.ok(&["delete", "node", "n1"]);
    let in_use = |ip: &str| b.ok(&["ipam", "show", "--ip", ip]).contains("is in use");
    assert!(
        !in_use("10.65.79.0") && !in_use("10.65.79.40"),
        "tunnel and endpoint"
    );
    assert!(in_use("10.65.79.1"), "a pod is Kubernetes' to delete");
    let keys: Vec<String> = b.dump().into_iter().map(|e| e.key).collect();
    for gone in [
        "/hostendpoints/h",
        "/felixconfigurations/node.n1",
        "/workloadendpoints/",
        "/nodes/n1",
        "/ipam/v2/host/n1/",
    ] {
        assert!(!keys.iter().any(|k| k.contains(gone)), "{gone}: {keys:?}");
    }
}
