//! Pods as endpoints.

use api::convert::{
    NoEndpoint, interface_name, split_workload_name, to_workload_endpoint, workload_name,
};
use api::{Resource, absent, updates_for_key};
use model::{LabelSource as _, Update, WorkloadEndpoint, WorkloadKey};

const KEY: &str = "/registry/pods/prod/web-0";

fn stored(json: &str) -> Vec<Update> {
    let lean = updates_for_key(KEY, Some(json.as_bytes())).unwrap_or_else(|e| panic!("{e}"));
    // The full object means the same.
    let at = api::parse_key(KEY).expect("key");
    let full = api::decode(&at, json.as_bytes(), None).expect("decodes");
    assert_eq!(api::updates(&full).expect("converts"), lean);
    lean
}

fn endpoint(json: &str) -> (WorkloadKey, WorkloadEndpoint) {
    match stored(json).as_slice() {
        [Update::Workload(k, Some(w))] => (k.clone(), w.clone()),
        u => panic!("{u:?}"),
    }
}

const FULL: &str = r#"{"kind":"Pod","apiVersion":"v1",
 "metadata":{"name":"web-0","namespace":"prod","uid":"u","creationTimestamp":null,
  "labels":{"app":"web","pcns.evil":"x","esc":"a\"b"},
  "annotations":{"cni.projectcalico.org/containerID":"c1","cni.projectcalico.org/floatingIPs":"[\"192.0.2.9\"]",
   "cni.projectcalico.org/allowedSourcePrefixes":"[\"203.0.113.0/24\"]","cni.projectcalico.org/hwAddr":"02:00:00:00:00:01",
   "qos.projectcalico.org/ingressPacketRate":"1k","qos.projectcalico.org/egressMaxConnections":"7","qos.projectcalico.org/dscp":"AF31",
   "kubernetes.io/ingress-bandwidth":"10M"}},
 "spec":{"nodeName":"node-1","serviceAccountName":"robot",
  "initContainers":[{"name":"i","ports":[{"name":"init","containerPort":1,"protocol":"UDP"}]}],
  "containers":[{"name":"c","image":"x","ports":[{"name":"http","containerPort":8080},{"containerPort":81},{"containerPort":82,"hostPort":82,"protocol":"TCP"}]}]},
 "status":{"phase":"Running","podIP":"10.0.0.5","podIPs":[{"ip":"10.0.0.5"},{"ip":"fd00::5"}]}}"#;

#[test]
fn everything_that_a_pod_says() {
    let (key, w) = endpoint(FULL);
    assert_eq!(
        key.to_string(),
        "WorkloadEndpoint(node-1/k8s/prod/web-0/eth0)"
    );
    let texts: Vec<_> = w.nets.iter().map(ToString::to_string).collect();
    assert_eq!(texts, ["10.0.0.5/32", "fd00::5/128"]);
    assert_eq!(
        w.interface.map(|i| i.to_string()),
        Some(interface_name("cali", "prod", "web-0"))
    );
    assert_eq!(
        w.mac.map(|m| m.to_string()).as_deref(),
        Some("02:00:00:00:00:01")
    );
    let profiles: Vec<&str> = w.profiles.iter().map(|p| &**p).collect();
    assert_eq!(profiles, ["kns.prod", "ksa.prod.robot"]);
    for (k, v) in [
        ("app", Some("web")),
        ("esc", Some("a\"b")),
        ("pcns.evil", None),
        ("projectcalico.org/namespace", Some("prod")),
        ("projectcalico.org/orchestrator", Some("k8s")),
        ("projectcalico.org/serviceaccount", Some("robot")),
    ] {
        assert_eq!(w.labels.label(k), v, "{k}");
    }
    let ports: Vec<_> = w
        .ports
        .iter()
        .map(|p| format!("{}/{}/{}", p.name, p.protocol, p.port))
        .collect();
    assert_eq!(ports, ["http/TCP/8080", "init/UDP/1"]);
    assert_eq!(
        w.nats,
        [(
            "10.0.0.5".parse().expect("ip"),
            "192.0.2.9".parse().expect("ip")
        )]
    );
    assert_eq!(w.allowed_sources, ["203.0.113.0/24".parse().expect("cidr")]);
    assert_eq!(w.qos.ingress_packets, Some((1000, 5)));
    assert_eq!(w.qos.egress_connections, Some(7));
    assert_eq!(w.qos.dscp, Some(26));
}

#[test]
fn the_resource_that_get_shows() {
    let at = api::parse_key(KEY).expect("key");
    let Ok(Resource::Pod(pod)) = api::decode(&at, FULL.as_bytes(), None) else {
        panic!("decode")
    };
    let wep = to_workload_endpoint(&pod).expect("endpoint");
    assert_eq!(wep.metadata.name, "node--1-k8s-web--0-eth0");
    assert_eq!(wep.spec.ip_networks, ["10.0.0.5/32", "fd00::5/128"]);
    assert_eq!(wep.spec.container_id, "c1");
    assert_eq!(wep.spec.ports.len(), 3);
    let q = wep.spec.qos_controls.clone().expect("limits");
    assert_eq!(
        (q.ingress_bandwidth, q.ingress_burst),
        (10_000_000, 4 << 30)
    );
    let resource = Resource::from(wep);
    assert_eq!(api::validate(&resource), Ok(()));
    assert_eq!(api::row(&resource, false)[0], "web-0");
    // Stored as a resource, it means what the pod means.
    let bytes = api::encode(&resource).expect("encodes");
    let from_resource = updates_for_key(&resource.key(), Some(&bytes)).expect("converts");
    assert_eq!(from_resource, stored(FULL));
}

#[test]
fn where_addresses_come_from() {
    let pod = |annotations: &str, status: &str| {
        let json = format!(
            r#"{{"metadata":{{"annotations":{{{annotations}}}}},"spec":{{"nodeName":"n"}},"status":{{{status}}}}}"#
        );
        stored(&json)
            .into_iter()
            .filter_map(|u| match u {
                Update::Workload(_, Some(w)) => Some(
                    w.nets
                        .iter()
                        .map(ToString::to_string)
                        .collect::<Vec<_>>()
                        .join(","),
                ),
                _ => None,
            })
            .collect::<String>()
    };
    assert_eq!(pod("", r#""podIP":"10.0.0.1""#), "10.0.0.1/32");
    assert_eq!(
        pod(
            r#""cni.projectcalico.org/podIPs":"10.0.0.1/32,fd00::1/128""#,
            ""
        ),
        "10.0.0.1/32,fd00::1/128"
    );
    assert_eq!(
        pod(
            r#""cni.projectcalico.org/podIP":"10.0.0.2/32""#,
            r#""podIPs":null"#
        ),
        "10.0.0.2/32"
    );
    assert_eq!(
        pod(r#""vpc.amazonaws.com/pod-ips":"10.0.0.3""#, ""),
        "10.0.0.3/32"
    );
    assert_eq!(
        pod(
            r#""cni.projectcalico.org/podIP":"10.0.0.2/32""#,
            r#""podIP":"10.0.0.1""#
        ),
        "10.0.0.1/32"
    );
    assert_eq!(pod("", ""), "");
}

#[test]
fn pods_without_an_endpoint() {
    let ip = r#""podIP":"10.0.0.1""#;
    for json in [
        format!(r#"{{"spec":{{"nodeName":"n","hostNetwork":true}},"status":{{{ip}}}}}"#),
        format!(r#"{{"spec":{{}},"status":{{{ip}}}}}"#),
        format!(r#"{{"spec":{{"nodeName":"n"}},"status":{{"phase":"Failed",{ip}}}}}"#),
        format!(r#"{{"spec":{{"nodeName":"n"}},"status":{{"phase":"Succeeded",{ip}}}}}"#),
        format!(
            r#"{{"metadata":{{"deletionTimestamp":"2026-01-01T00:00:00Z","annotations":{{"cni.projectcalico.org/podIP":""}}}},"spec":{{"nodeName":"n"}},"status":{{{ip}}}}}"#
        ),
        "{}".to_owned(),
    ] {
        assert_eq!(stored(&json), [], "{json}");
    }
    assert_eq!(updates_for_key(KEY, None), Ok(Vec::new()));
    let going = format!(
        r#"{{"metadata":{{"deletionTimestamp":"2026-01-01T00:00:00Z"}},"spec":{{"nodeName":"n"}},"status":{{{ip}}}}}"#
    );
    assert_eq!(
        stored(&going).len(),
        1,
        "a pod that is only going still has its network"
    );
    let mut pod = api::kinds::kube::Pod::default();
    assert_eq!(
        to_workload_endpoint(&pod).err(),
        Some(NoEndpoint::Unscheduled)
    );
    pod.spec.host_network = true;
    assert_eq!(
        to_workload_endpoint(&pod).err(),
        Some(NoEndpoint::HostNetwork)
    );
    assert!(updates_for_key(KEY, Some(b"{")).is_err());
}

#[test]
fn retracting() {
    let (key, _) = endpoint(FULL);
    let gone = Update::Workload(key, None);
    assert_eq!(
        stored(FULL).iter().map(absent).collect::<Vec<_>>(),
        std::slice::from_ref(&gone)
    );
    assert_eq!(absent(&gone), gone);
}

#[test]
fn names() {
    // printf 'default.nginx' | sha1sum
    assert_eq!(
        interface_name("cali", "default", "nginx"),
        "calic440f455693"
    );
    assert_eq!(
        workload_name("n-1", "k8s", "a.b-c", "eth0"),
        "n--1-k8s-a.b--c-eth0"
    );
    let parts = ["n-1", "k8s", "a.b-c", "eth0"].map(String::from);
    assert_eq!(split_workload_name("n--1-k8s-a.b--c-eth0"), Some(parts));
    for bad in ["", "a-b-c", "a-b-c-d-e", "a-b--c-d", "a-b-c-"] {
        assert_eq!(split_workload_name(bad), None, "{bad}");
    }
}

/// Not a benchmark, a fence: an order of magnitude above what it takes.
#[test]
fn fifty_thousand_pods_convert_quickly() {
    let start = std::time::Instant::now();
    let n = if cfg!(debug_assertions) {
        5_000
    } else {
        50_000
    };
    for i in 0..n {
        let key = format!("/registry/pods/prod/web-{i}");
        assert_eq!(
            updates_for_key(&key, Some(FULL.as_bytes())).map(|u| u.len()),
            Ok(1)
        );
    }
    let took = start.elapsed();
    eprintln!("{n} pods in {took:?}");
    assert!(took.as_secs() < 10, "{took:?}");
}
