//! No bytes make it panic; what prints reads back.

use crate::exercise::{document, selector, stored, use_it};
use api::{ResourceKind, StringMap, annotations, parse_documents, updates_for_key};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

fn value() -> impl Strategy<Value = Value> {
    let word = prop::sample::select(vec![
        "",
        "a",
        "10.0.0.0/8",
        "10.0.0.1",
        "fd00::/8",
        "Allow",
        "TCP",
        "80:90",
        "all()",
        "has(a",
        "90s",
        "true",
        "0x1",
        "12:30",
        "- x",
        "a: b",
        "#",
        "'",
        "\"",
        "|",
        "null",
        "~",
        "2026-01-01",
        " x ",
        "a\nb",
        "\n",
        "a\n\n",
        "é",
        "\t",
        "\u{1}",
        "=",
        "<<",
        "1e3",
        "-",
        "?",
    ]);
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i32>().prop_map(Value::from),
        (-1000i32..1000).prop_map(|n| Value::from(f64::from(n) / 4.0)),
        word.prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
    ];
    let field = prop::sample::select(vec![
        "metadata",
        "spec",
        "status",
        "name",
        "namespace",
        "labels",
        "annotations",
        "cidr",
        "ingress",
        "egress",
        "action",
        "source",
        "destination",
        "nets",
        "ports",
        "selector",
        "protocol",
        "types",
        "order",
        "nodeName",
        "podIP",
        "podIPs",
        "ip",
        "containers",
        "from",
        "ipBlock",
        "podSelector",
        "matchLabels",
        "bgp",
        "ipv4Address",
        "y",
        "1",
        "a b",
        "",
    ]);
    leaf.prop_recursive(5, 48, 5, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((field.clone(), inner), 0..5).prop_map(|p| Value::from(
                p.into_iter()
                    .map(|(k, v)| (k.to_owned(), v))
                    .collect::<Map<_, _>>()
            )),
        ]
    })
}

fn kind() -> impl Strategy<Value = ResourceKind> {
    prop::sample::select(ResourceKind::ALL)
}

/// One legal object of each kind, with as many fields as there is room for.
const LEGAL: &[&str] = &[
    r#"{"apiVersion":"projectcalico.org/v3","kind":"IPPool","metadata":{"name":"a","labels":{"x":"y"}},"spec":{"cidr":"10.0.0.0/16","blockSize":26,"vxlanMode":"Always","ipipMode":"Never","natOutgoing":true,"nodeSelector":"all()","namespaceSelector":"has(a)","allowedUses":["Workload"],"assignmentMode":"Manual"}}"#,
    r#"{"apiVersion":"projectcalico.org/v3","kind":"IPReservation","metadata":{"name":"a"},"spec":{"reservedCIDRs":["10.0.0.0/30"]}}"#,
    r#"{"apiVersion":"projectcalico.org/v3","kind":"Node","metadata":{"name":"a"},"spec":{"bgp":{"asNumber":1,"ipv4Address":"10.0.0.1/24","ipv6Address":"fd00::1/64","ipv4IPIPTunnelAddr":"10.1.0.1","routeReflectorClusterID":"1.0.0.1"},"ipv4VXLANTunnelAddr":"10.1.0.2","vxlanTunnelMACAddr":"66:00:00:00:00:01","addresses":[{"address":"10.0.0.1","type":"InternalIP"}],"orchRefs":[{"nodeName":"a","orchestrator":"k8s"}]},"status":{"podCIDRs":["10.2.0.0/24"]}}"#,
    r#"{"apiVersion":"projectcalico.org/v3","kind":"WorkloadEndpoint","metadata":{"name":"n-k8s-p-eth0","namespace":"prod"},"spec":{"node":"n","orchestrator":"k8s","endpoint":"eth0","pod":"p","ipNetworks":["10.0.0.5/32"],"ipNATs":[{"internalIP":"10.0.0.5","externalIP":"192.0.2.1"}],"profiles":["kns.prod"],"interfaceName":"cali1","mac":"66:00:00:00:00:01","ports":[{"name":"http","protocol":"TCP","port":80}],"allowSpoofedSourcePrefixes":["10.9.0.0/16"],"qosControls":{"ingressPacketRate":5,"dscp":"EF"}}}"#,
    r#"{"apiVersion":"projectcalico.org/v3","kind":"HostEndpoint","metadata":{"name":"a"},"spec":{"node":"n","interfaceName":"eth0","expectedIPs":["10.0.0.1"],"profiles":["p"],"ports":[{"name":"ssh","protocol":"TCP","port":22}]}}"#,
    r#"{"apiVersion":"projectcalico.org/v3","kind":"Profile","metadata":{"name":"a"},"spec":{"ingress":[{"action":"Allow","source":{"selector":"has(a)"}}],"labelsToApply":{"a":"b"}}}"#,
    r#"{"apiVersion":"projectcalico.org/v3","kind":"Tier","metadata":{"name":"a"},"spec":{"order":5,"defaultAction":"Pass"}}"#,
    r#"{"apiVersion":"projectcalico.org/v3","kind":"NetworkPolicy","metadata":{"name":"a","namespace":"n"},"spec":{"tier":"default","order":1.5,"selector":"a == 'b'","serviceAccountSelector":"has(r)","types":["Ingress","Egress"],"ingress":[{"action":"Allow","protocol":"TCP","ipVersion":4,"source":{"nets":["10.0.0.0/8"],"notNets":["10.1.0.0/16"],"selector":"has(a)","namespaceSelector":"global()","notSelector":"has(b)","serviceAccounts":{"names":["s"],"selector":"has(t)"}},"destination":{"ports":[80,"90:95","http"],"notPorts":[91]}}],"egress":[{"action":"Deny","protocol":"ICMP","icmp":{"type":8,"code":0},"notICMP":{"type":3}},{"action":"Pass","notProtocol":6,"destination":{"services":{"name":"s","namespace":"m"}}}]}}"#,
    r#"{"apiVersion":"projectcalico.org/v3","kind":"GlobalNetworkPolicy","metadata":{"name":"a"},"spec":{"preDNAT":true,"applyOnForward":true,"namespaceSelector":"all()","performanceHints":["AssumeNeededOnEveryNode"],"ingress":[{"action":"Log","http":null,"metadata":{"annotations":{"a":"b"}}}]}}"#,
    r#"{"apiVersion":"projectcalico.org/v3","kind":"NetworkSet","metadata":{"name":"a","namespace":"n"},"spec":{"nets":["10.0.0.0/8","fd00::1"]}}"#,
    r#"{"apiVersion":"projectcalico.org/v3","kind":"FelixConfiguration","metadata":{"name":"gpu","creationTimestamp":"2026-01-01T00:00:00Z"},"spec":{"nodeSelector":"has(a)","vxlanMTU":1400,"reportingInterval":"1m","failsafeInboundHostPorts":[{"protocol":"tcp","port":22,"net":"10.0.0.0/8"}],"routeTableRanges":[{"min":1,"max":2}],"bpfEnabled":false,"iptablesBackend":"NFT"}}"#,
    r#"{"apiVersion":"networking.k8s.io/v1","kind":"NetworkPolicy","metadata":{"name":"a","namespace":"n"},"spec":{"podSelector":{"matchLabels":{"a":"b"},"matchExpressions":[{"key":"k","operator":"In","values":["v"]}]},"policyTypes":["Ingress"],"ingress":[{"from":[{"ipBlock":{"cidr":"10.0.0.0/8","except":["10.1.0.0/16"]}},{"namespaceSelector":{}}],"ports":[{"port":80,"endPort":90,"protocol":"TCP"},{"port":"http"}]}]}}"#,
    r#"{"apiVersion":"projectcalico.org/v3","kind":"StagedNetworkPolicy","metadata":{"name":"a","namespace":"n"},"spec":{"stagedAction":"Learn","tier":"default","order":2,"selector":"has(a)","ingress":[{"action":"Allow","source":{"services":{"name":"s"}}}]}}"#,
    r#"{"apiVersion":"projectcalico.org/v3","kind":"StagedGlobalNetworkPolicy","metadata":{"name":"a"},"spec":{"stagedAction":"Set","doNotTrack":true,"applyOnForward":true,"egress":[{"action":"Deny","protocol":17,"destination":{"notPorts":["a","1:2"]}}]}}"#,
    r#"{"apiVersion":"projectcalico.org/v3","kind":"StagedKubernetesNetworkPolicy","metadata":{"name":"a","namespace":"n"},"spec":{"stagedAction":"Ignore","podSelector":{"matchLabels":{"a":"b"}},"policyTypes":["Egress"],"egress":[{"to":[{"podSelector":{}}],"ports":[{"port":"http"}]}]}}"#,
    r#"{"apiVersion":"policy.networking.k8s.io/v1alpha2","kind":"ClusterNetworkPolicy","metadata":{"name":"a"},"spec":{"tier":"Admin","priority":5,"subject":{"pods":{"namespaceSelector":{"matchLabels":{"a":"b"}},"podSelector":{}}},"ingress":[{"name":"x","action":"Deny","from":[{"namespaces":{"matchExpressions":[{"key":"k","operator":"NotIn","values":["v"]}]}}],"protocols":[{"tcp":{"destinationPort":{"range":{"start":1,"end":9}}}},{"destinationNamedPort":"web"}]}],"egress":[{"action":"Accept","to":[{"nodes":{}},{"networks":["10.0.0.0/8"]},{"domainNames":["*.example.org"]}],"protocols":[{"udp":{"destinationPort":{"number":53}}}]}]}}"#,
    r#"{"apiVersion":"v1","kind":"Service","metadata":{"name":"a","namespace":"n"},"spec":{"type":"NodePort","clusterIP":"10.96.0.1","clusterIPs":["10.96.0.1"],"externalIPs":["192.0.2.1"],"ports":[{"name":"web","port":80,"targetPort":"http","nodePort":30000,"protocol":"TCP"}],"internalTrafficPolicy":"Local","selector":{"a":"b"}},"status":{"loadBalancer":{"ingress":[{"ip":"192.0.2.2"}]}}}"#,
    r#"{"apiVersion":"discovery.k8s.io/v1","kind":"EndpointSlice","metadata":{"name":"a","namespace":"n","labels":{"kubernetes.io/service-name":"s"}},"addressType":"IPv6","endpoints":[{"addresses":["fd00::1"],"conditions":{"ready":true,"serving":true,"terminating":false},"nodeName":"n"}],"ports":[{"name":"web","port":80,"protocol":"TCP","appProtocol":"http"}]}"#,
    r#"{"apiVersion":"v1","kind":"Secret","metadata":{"name":"a","namespace":"n"},"type":"Opaque","data":{"k":"c2VjcmV0"},"stringData":{"l":"plain"}}"#,
    r#"{"apiVersion":"projectcalico.org/v3","kind":"BGPConfiguration","metadata":{"name":"default"},"spec":{"logSeverityScreen":"Info","nodeToNodeMeshEnabled":true,"asNumber":64512,"serviceLoadBalancerIPs":[{"cidr":"192.0.2.0/24"}],"communities":[{"name":"c","value":"1:2"}],"prefixAdvertisements":[{"cidr":"10.0.0.0/8","communities":["c","1:2:3"]}],"listenPort":179,"nodeMeshPassword":{"secretKeyRef":{"name":"s","key":"k"}},"nodeMeshMaxRestartTime":"2m","bindMode":"NodeIP","ignoredInterfaces":["eth*"],"localWorkloadPeeringIPV6":"fe80::1","programClusterRoutes":"Enabled","ipv6NormalRoutePriority":5}}"#,
    r#"{"apiVersion":"projectcalico.org/v3","kind":"BGPPeer","metadata":{"name":"a"},"spec":{"node":"n","peerIP":"10.0.0.1:179","asNumber":64512,"localASNumber":5,"nextHopMode":"Keep","password":{"secretKeyRef":{"name":"s","key":"k"}},"sourceAddress":"None","maxRestartTime":"1m","keepaliveTime":"5s","numAllowedLocalASNumbers":1,"ttlSecurity":2,"reachableBy":"10.0.0.2","filters":["f"],"reversePeering":"Manual"}}"#,
    r#"{"apiVersion":"projectcalico.org/v3","kind":"BGPFilter","metadata":{"name":"a"},"spec":{"exportV4":[{"cidr":"10.0.0.0/8","matchOperator":"In","prefixLength":{"min":8,"max":24},"source":"RemotePeers","interface":"eth*","peerType":"eBGP","communities":{"values":["1:2"]},"asPathPrefix":[1],"priority":5,"action":"Accept","operations":[{"addCommunity":{"value":"1:2:3"}},{"prependASPath":{"prefix":[1]}},{"setPriority":{"value":7}}]}],"importV6":[{"cidr":"fd00::/8","matchOperator":"Equal","action":"Reject"}]}}"#,
    r#"{"apiVersion":"projectcalico.org/v3","kind":"KubeControllersConfiguration","metadata":{"name":"default"},"spec":{"logSeverityScreen":"Info","healthChecks":"Enabled","etcdV3CompactionPeriod":"10m","prometheusMetricsPort":9094,"controllers":{"node":{"reconcilerPeriod":"5m","syncLabels":"Enabled","leakGracePeriod":"15m","hostEndpoint":{"autoCreate":"Enabled","createDefaultHostEndpoint":"Disabled","templates":[{"generateName":"t","interfaceCIDRs":["10.0.0.0/8"],"interfacePattern":"eth.*","labels":{"a":"b"},"nodeSelector":"all()"}]}},"policy":{"reconcilerPeriod":"5m"},"loadBalancer":{"assignIPs":"AllServices"},"migration":{"policyNameMigrator":"Enabled"}}},"status":{"environmentVars":{"A":"b"}}}"#,
    r#"{"apiVersion":"projectcalico.org/v3","kind":"CalicoNodeStatus","metadata":{"name":"a"},"spec":{"node":"n","classes":["Agent","BGP"],"updatePeriodSeconds":10},"status":{"lastUpdated":null,"agent":{"birdV4":{"state":"Ready","routerID":"1.1.1.1"},"birdV6":{}},"bgp":{"numberEstablishedV4":1,"numberNotEstablishedV4":0,"numberEstablishedV6":0,"numberNotEstablishedV6":0,"peersV4":[{"peerIP":"10.0.0.1","type":"NodeMesh","state":"Established","since":"x"}]},"routes":{"routesV4":[{"type":"FIB","destination":"10.0.0.0/8","gateway":"10.0.0.1","interface":"eth0","learnedFrom":{"sourceType":"Kernel"}}]}}}"#,
];

/// Every kind that users write is in [`LEGAL`], but for those that are hardly more than metadata.
#[test]
fn no_kind_is_forgotten() {
    let of = |legal: &&str| crate::one(legal).kind();
    let there: Vec<ResourceKind> = LEGAL.iter().map(of).collect();
    let missing: Vec<_> = (ResourceKind::ALL.iter())
        .filter(|k| !there.contains(k))
        .collect();
    use ResourceKind as K;
    let plain = [
        K::GlobalNetworkSet,
        K::IpamConfiguration,
        K::BlockAffinity,
        K::IpamBlock,
        K::IpamHandle,
        K::ClusterInformation,
        K::Namespace,
        K::ServiceAccount,
        K::Pod,
        K::KubeNode,
    ];
    assert_eq!(missing, plain.iter().collect::<Vec<_>>());
}

/// A text with some bytes cut, doubled, swapped or replaced.
fn damage(text: &str, at: usize, length: usize, how: u8, with: &str) -> String {
    let mut chars: Vec<char> = text.chars().collect();
    let at = at % chars.len();
    let end = (at + length).min(chars.len());
    match how % 4 {
        0 => drop(chars.drain(at..end)),
        1 => {
            let part: Vec<char> = chars[at..end].to_vec();
            chars.splice(at..at, part);
        }
        2 => drop(chars.splice(at..end, with.chars())),
        _ => chars.swap(at, (at * 7 + length) % text.chars().count()),
    }
    chars.into_iter().collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(768))]

    /// Damaged files, as JSON and as YAML: each is answered for, and what is left of them is used.
    #[test]
    fn damaged_documents_are_answered(
        legal in prop::sample::select(LEGAL), yaml in any::<bool>(),
        blows in prop::collection::vec((any::<usize>(), 0usize..40, any::<u8>(), prop::sample::select(vec![
            "", "\n", " ", "{", "}", "[", "]", ":", "-", "\"", "'", "&a", "*a", "|", "999999999999999999999", "-1", "null", "\u{0}", "é", "((((",
        ])), 1..6),
    ) {
        let mut text = legal.to_owned();
        if yaml {
            text = api::to_yaml(&crate::one(legal));
        }
        for (at, length, how, with) in blows {
            text = damage(&text, at, length, how, with);
            if text.is_empty() {
                break;
            }
        }
        document(&text);
    }

    /// Whatever is in the place of a selector is read or refused at a column inside it.
    #[test]
    fn any_selector_is_answered(parts in prop::collection::vec(prop::sample::select(vec![
        "a", "==", "!=", "'b'", "\"c\"", "in", "not in", "{", "}", ",", "(", ")", "!", "&&", "||", "has(", "all()", "global()", " ", "\t", "é", "contains", "starts with", "'",
    ]), 0..40)) {
        selector(&parts.concat());
    }
}

/// What fuzzing has found.
#[test]
fn selectors_that_were_once_unstable() {
    for text in [
        "!(!x in {'a'})",
        "!(!(!has(a)))",
        "!(!(a == 'b' || !(!all())))",
    ] {
        selector(text);
    }
}

/// However deep or long, an answer comes soon, and never by running out of stack.
#[test]
fn deep_and_long_inputs_end() {
    let deep = 100_000;
    for text in [
        "(".repeat(deep),
        format!("{}all(){}", "(".repeat(deep), ")".repeat(deep)),
        format!("{}all()", "!".repeat(deep)),
        format!("a in {{{}", "'x',".repeat(deep)),
        vec!["has(a)"; deep].join(" && "),
        vec!["(has(a) || !b == 'c')"; deep / 10].join(" && "),
    ] {
        let _ = model::Selector::parse(&text);
        let spec = json!({"selector": text, "ingress": [{"action": "Allow", "source": {"selector": text}}]});
        let doc = json!({"apiVersion": "projectcalico.org/v3", "kind": "GlobalNetworkPolicy", "metadata": {"name": "a"}, "spec": spec});
        document(&doc.to_string());
    }
    for text in [
        "[".repeat(deep),
        "{\"a\":".repeat(deep),
        "- ".repeat(deep),
        "a: &a [*a, *a]\n".repeat(1000),
        format!("a: {}", "[".repeat(deep)),
    ] {
        document(&text);
        let key = api::key(ResourceKind::Pod, Some("n"), "x");
        let _ = updates_for_key(&key, Some(text.as_bytes()));
        let key = api::key(ResourceKind::IpPool, None, "x");
        let _ = updates_for_key(&key, Some(text.as_bytes()));
    }
}

/// Replaces the `n`th value of an object, counted depth first; what is left of `n` when there are fewer.
fn replace(v: &mut Value, n: usize, with: &Value) -> Option<usize> {
    if n == 0 {
        v.clone_from(with);
        return None;
    }
    let children: Vec<&mut Value> = match v {
        Value::Object(o) => o.values_mut().collect(),
        Value::Array(a) => a.iter_mut().collect(),
        _ => Vec::new(),
    };
    children
        .into_iter()
        .try_fold(n - 1, |left, child| replace(child, left, with))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// What is valid converts, and prints as what it is.
    #[test]
    fn legal_objects_with_one_value_changed(legal in prop::sample::select(LEGAL), n in 1usize..60, with in value()) {
        let mut doc: Value = serde_json::from_str(legal).expect("JSON");
        replace(&mut doc, n, &with);
        for (mut r, _) in parse_documents(&doc.to_string(), "f").into_iter().flatten() {
            use_it(r.clone());
            api::default(&mut r);
            if api::validate(&r).is_ok() {
                let back = parse_documents(&api::to_yaml(&r), "printed").remove(0);
                prop_assert_eq!(back.map(|b| b.0), Ok(r));
            }
        }
    }
}

#[test]
fn the_legal_objects_are_legal() {
    for legal in LEGAL {
        let r = crate::defaulted(legal);
        assert_eq!(api::validate(&r), Ok(()), "{legal}");
        use_it(r);
    }
}

proptest! {
    #[test]
    fn any_text_is_answered(text in "\\PC{0,200}") {
        let _ = parse_documents(&text, "f");
    }

    #[test]
    fn any_yaml_like_text_is_answered(parts in prop::collection::vec(prop::sample::select(vec![
        "---\n", "...\n", "apiVersion: projectcalico.org/v3\n", "kind: IPPool\n", "kind: List\n", "items:\n", "- ", "  ", "\n",
        "metadata:\n", "spec: {", "}", "[", "]", "a: b", "&x ", "*x", "!!binary ", "|\n", ">-\n", "'", "\"", "#", ",", ": ", "%YAML 1.2\n", "\t", "? ",
    ]), 0..24)) {
        let _ = parse_documents(&parts.concat(), "f");
    }

    #[test]
    fn any_document_of_any_kind_is_answered(kind in kind(), metadata in value(), spec in value(), status in value()) {
        let i = kind.info();
        let doc = json!({"kind": i.kind, "apiVersion": i.api_version, "metadata": metadata, "spec": spec, "status": status});
        for (r, _) in parse_documents(&doc.to_string(), "f").into_iter().flatten() {
            use_it(r);
        }
        let key = api::key(kind, kind.namespaced().then_some("n"), "x");
        let _ = updates_for_key(&key, Some(doc.to_string().as_bytes()));
        if let Ok(r) = api::decode(&api::parse_key(&key).expect("key"), doc.to_string().as_bytes(), None) {
            use_it(r.clone());
            // The stored form is stable from the first time on.
            let bytes = api::encode(&r).expect("encodes");
            let again = api::decode(&api::parse_key(&key).expect("key"), &bytes, None).expect("decodes");
            prop_assert_eq!(api::encode(&again).expect("encodes"), bytes);
        }
    }

    #[test]
    fn any_bytes_under_any_key(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        stored(&bytes);
        let _ = updates_for_key("/calico/ipam/v2/assignment/ipv4/block/10.0.0.0-26", Some(&bytes));
    }

    #[test]
    fn any_key(key in "(/registry/|/calico/resources/v3/projectcalico.org/|/calico/ipam/v2/assignment/)?[a-z/0-9:-]{0,30}") {
        let _ = updates_for_key(&key, None);
    }

    /// Read by the library that reads users' files, which is not the one that printed it.
    #[test]
    fn printed_yaml_reads_back(v in value()) {
        let text = api::yaml(&v);
        let back: Value = serde_saphyr::from_str(&text).map_err(|e| TestCaseError::fail(format!("{e}\n{text}")))?;
        prop_assert_eq!(&back, &v, "{}", text);
    }

    #[test]
    fn any_annotations(pairs in prop::collection::btree_map(prop::sample::select(vec![
        "ipAddrs", "ipAddrsNoIpam", "ipv4pools", "ipFamilies", "floatingIPs", "hwAddr", "allowedSourcePrefixes",
    ]), ".{0,20}|\\[(\"10.0.0.1\")?(,\"fd00::1\")?\\]", 0..4)) {
        let map: StringMap = pairs.into_iter().map(|(k, v)| (format!("{}{k}", annotations::CNI), v)).collect();
        let _ = annotations::cni_request(&map, &map);
    }
}

#[test]
fn what_pods_ask_for() {
    let request = |pod: &[(&str, &str)], ns: &[(&str, &str)]| {
        let map = |p: &[(&str, &str)]| -> StringMap {
            p.iter()
                .map(|(k, v)| (format!("cni.projectcalico.org/{k}"), (*v).to_owned()))
                .collect()
        };
        annotations::cni_request(&map(pod), &map(ns)).map_err(|e| e.to_string())
    };
    let r = request(
        &[
            ("ipAddrs", r#"["10.0.0.1","fd00::1"]"#),
            ("ipv4pools", r#"["a"]"#),
        ],
        &[("ipv4pools", r#"["b"]"#), ("ipv6pools", r#"["c"]"#)],
    )
    .expect("legal");
    assert_eq!(
        (r.ip_addrs.len(), r.ipv4_pools, r.ipv6_pools),
        (2, vec!["a".to_owned()], vec!["c".to_owned()])
    );
    for (pod, expected) in [
        (
            &[("ipAddrs", r#"["10.0.0.1","10.0.0.2"]"#)][..],
            r#"cannot have more than one IPv4 address for "cni.projectcalico.org/ipAddrs" annotation"#,
        ),
        (
            &[("ipAddrsNoIpam", r#"["fd00::1","fd00::2"]"#)],
            r#"cannot have more than one IPv6 address for "cni.projectcalico.org/ipAddrsNoIpam" annotation"#,
        ),
        (
            &[("ipAddrs", "[]")],
            r#"annotation "cni.projectcalico.org/ipAddrs" specified but empty"#,
        ),
        (&[("ipAddrs", r#"["ten"]"#)], "invalid IP format: ten"),
        (
            &[("ipAddrs", "[]"), ("ipAddrsNoIpam", "[]")],
            "can't have both annotations: 'ipAddrs' and 'ipAddrsNoIpam' in use at the same time",
        ),
    ] {
        assert_eq!(request(pod, &[]).expect_err("illegal"), expected);
    }
    assert_eq!(
        request(&[("ipFamilies", r#"["IPv6"]"#)], &[])
            .expect("legal")
            .families,
        [net::Family::V6]
    );
    assert_eq!(
        request(&[], &[]).expect("legal"),
        annotations::CniRequest::default()
    );
}
