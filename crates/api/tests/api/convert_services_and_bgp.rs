//! Services, slices and the resources of BGP in the model; what a deletion retracts.

use crate::{defaulted, update, v3};
use api::{Conversion, ResourceKind as K};
use model::{
    BgpRemote, CidrMatch, Community, FilterOperation, NextHopMode, SecretKey, ServiceRef, Update,
};
use net::{Asn, Protocol};

#[test]
fn services() {
    let u = update(&v3(
        K::Service,
        "metadata: {name: s, namespace: prod}\nspec: {type: LoadBalancer, clusterIP: 10.96.0.1, clusterIPs: [10.96.0.1, 'fd00::1'], externalIPs: [192.0.2.1], externalTrafficPolicy: Local, ports: [{name: web, port: 80, targetPort: http, nodePort: 30080}, {name: dns, protocol: UDP, port: 53}], selector: {a: b}}\nstatus: {loadBalancer: {ingress: [{ip: 192.0.2.9}, {hostname: x}]}}",
    ));
    let Update::Service(key, Some(s)) = u else {
        panic!("{u:?}")
    };
    let expected = ServiceRef {
        namespace: "prod".into(),
        name: "s".into(),
    };
    assert_eq!(key, expected);
    assert_eq!(s.cluster_ips.len(), 2);
    assert_eq!((s.external_ips.len(), s.load_balancer_ips.len()), (1, 1));
    assert_eq!((s.external_local, s.internal_local), (true, false));
    let ports: Vec<_> = (s.ports.iter())
        .map(|p| (&*p.name, p.protocol, p.port, p.node_port))
        .collect();
    assert_eq!(
        ports,
        [
            ("web", Protocol::TCP, 80, Some(30080)),
            ("dns", Protocol::UDP, 53, None)
        ]
    );
    let headless = update(&v3(
        K::Service,
        "metadata: {name: s, namespace: prod}\nspec: {clusterIP: None, ports: [{port: 80}]}",
    ));
    let Update::Service(_, Some(s)) = headless else {
        panic!("{headless:?}")
    };
    assert!(s.cluster_ips.is_empty());
}

#[test]
fn slices() {
    let text = v3(
        K::EndpointSlice,
        "metadata: {name: s-1, namespace: prod, labels: {kubernetes.io/service-name: s}}\naddressType: IPv4\nendpoints: [{addresses: [10.0.0.1], nodeName: n, conditions: {ready: false}}, {addresses: [10.0.0.2], targetRef: {kind: Pod, name: x}}]\nports: [{name: web, port: 8080}, {name: any, port: null}]",
    );
    let Update::EndpointSlice(key, Some(s)) = update(&text) else {
        panic!("no slice")
    };
    assert_eq!((&*key.namespace, &*key.name), ("prod", "s-1"));
    assert_eq!((&*s.service.namespace, &*s.service.name), ("prod", "s"));
    let ends: Vec<_> = (s.endpoints.iter())
        .map(|e| (e.addresses.len(), e.node.as_deref(), e.ready))
        .collect();
    assert_eq!(ends, [(1, Some("n"), false), (1, None, true)]);
    let ports: Vec<_> = s.ports.iter().map(|p| p.port).collect();
    assert_eq!(ports, [Some(8080), None]);
    let nobodys = defaulted(&text.replace("kubernetes.io/service-name", "other"));
    assert_eq!(api::updates(&nobodys), Ok(Vec::new()));
    // What is not read survives.
    let shown = api::to_yaml(&defaulted(&text));
    assert!(shown.contains("targetRef"), "{shown}");
}

#[test]
fn bgp_configurations() {
    let Update::BgpConfig(name, Some(c)) = update(&v3(
        K::BgpConfiguration,
        "metadata: {name: default}\nspec: {asNumber: '1.10', nodeToNodeMeshEnabled: true, listenPort: 1790, bindMode: NodeIP, serviceClusterIPs: [{cidr: 10.96.0.0/12}], serviceLoadBalancerAggregation: Disabled, communities: [{name: blue, value: '64512:7'}], prefixAdvertisements: [{cidr: 10.0.0.0/8, communities: [blue, '1:2:3']}], nodeMeshPassword: {secretKeyRef: {name: s, key: k}}, nodeMeshMaxRestartTime: 2m, ignoredInterfaces: ['eth*'], localWorkloadPeeringIPV4: 169.254.1.2, programClusterRoutes: Disabled, ipv4NormalRoutePriority: 100}",
    )) else {
        panic!("no configuration")
    };
    assert_eq!(&*name, "default");
    assert_eq!((c.mesh, c.asn), (Some(true), Some(Asn(65546))));
    assert_eq!((c.listen_port, c.bind_node_ip), (Some(1790), Some(true)));
    assert_eq!(c.service_cluster.len(), 1);
    assert_eq!(c.aggregate_load_balancer, Some(false));
    assert_eq!(
        c.prefix_communities[0].communities,
        [Community::Standard(64512, 7), Community::Large(1, 2, 3)]
    );
    let secret = SecretKey {
        name: "s".into(),
        key: "k".into(),
    };
    assert_eq!((c.mesh_password, c.mesh_restart), (Some(secret), Some(120)));
    assert_eq!(c.ignored_interfaces, Some(vec!["eth*".into()]));
    assert_eq!(c.local_workload_peering.len(), 1);
    assert_eq!(c.program_cluster_routes.as_deref(), Some("Disabled"));
    assert_eq!(c.normal_priority, [Some(100), None]);
    let Update::BgpConfig(_, Some(none)) =
        update(&v3(K::BgpConfiguration, "metadata: {name: node.a}"))
    else {
        panic!("no configuration")
    };
    assert_eq!((none.mesh, none.asn, none.bind_node_ip), (None, None, None));
}

#[test]
fn prefixes_that_are_left_out_say_nothing() {
    let Update::BgpConfig(_, Some(c)) = update(&v3(
        K::BgpConfiguration,
        "metadata: {name: default}\nspec: {serviceClusterIPs: [{}, {cidr: 10.96.0.0/12}], serviceExternalIPs: [{cidr: ''}], prefixAdvertisements: [{communities: ['1:2']}, {cidr: 10.0.0.0/8, communities: ['1:2']}]}",
    )) else {
        panic!("no configuration")
    };
    assert_eq!(c.service_cluster, ["10.96.0.0/12".parse().expect("valid")]);
    assert!(c.service_external.is_empty());
    assert_eq!(c.prefix_communities.len(), 1);
}

#[test]
fn times_are_whole_seconds() {
    for (text, seconds) in [
        ("90s", 90),
        ("1m30s", 90),
        ("1500ms", 2),
        ("1400ms", 1),
        ("2h", 7200),
    ] {
        let p = peer(&format!(
            "{{peerIP: 10.0.0.1, keepaliveTime: {text}, maxRestartTime: {text}}}"
        ));
        assert_eq!(
            (p.keepalive, p.restart),
            (Some(seconds), Some(seconds)),
            "{text}"
        );
    }
}

#[test]
fn an_as_of_zero_is_none() {
    let p = peer("{peerIP: 10.0.0.1, asNumber: 0, localASNumber: 0}");
    let BgpRemote::Address { asn, .. } = p.remote else {
        panic!("{p:?}")
    };
    assert_eq!((asn, p.local_asn), (None, None));
    let u = update(&v3(
        K::Node,
        "metadata: {name: n}\nspec: {bgp: {asNumber: 0, ipv4Address: 10.0.0.1/24}}",
    ));
    let Update::Node(_, Some(n)) = u else {
        panic!("{u:?}")
    };
    assert_eq!(n.asn, None);
    let Update::BgpConfig(_, Some(c)) = update(&v3(
        K::BgpConfiguration,
        "metadata: {name: default}\nspec: {listenPort: 0}",
    )) else {
        panic!("no configuration")
    };
    assert_eq!((c.asn, c.listen_port), (None, None));
}

fn peer(spec: &str) -> model::BgpPeer {
    let u = update(&v3(
        K::BgpPeer,
        &format!("metadata: {{name: p}}\nspec: {spec}"),
    ));
    match u {
        Update::BgpPeer(_, Some(p)) => p,
        u => panic!("{u:?}"),
    }
}

#[test]
fn bgp_peers() {
    let p = peer(
        "{peerIP: '[fd00::1]:1790', asNumber: 65001, localASNumber: 65002, nodeSelector: has(rack), nextHopMode: Self, keepaliveTime: 10s, maxRestartTime: 90s, numAllowedLocalASNumbers: 2, ttlSecurity: 1, reachableBy: 'fd00::2', filters: [a, b], sourceAddress: None, reversePeering: Manual, password: {secretKeyRef: {name: s, key: k}}}",
    );
    let BgpRemote::Address { ip, port, asn } = &p.remote else {
        panic!("{p:?}")
    };
    assert_eq!(
        (ip.to_string().as_str(), *port, *asn),
        ("fd00::1", Some(1790), Some(Asn(65001)))
    );
    assert_eq!(p.next_hop, NextHopMode::Own);
    assert_eq!((p.keepalive, p.restart), (Some(10), Some(90)));
    assert_eq!((p.allowed_local_as, p.ttl_security), (Some(2), Some(1)));
    assert_eq!((p.use_node_ip, p.reverse), (false, false));
    assert_eq!(p.filters, ["a".into(), "b".into()]);
    let kept = peer("{peerIP: 10.0.0.1, keepOriginalNextHop: true}");
    assert_eq!(kept.next_hop, NextHopMode::Keep);
    assert!(kept.use_node_ip && kept.reverse);
    let nodes = peer("{peerSelector: has(rr)}").remote;
    assert!(matches!(nodes, BgpRemote::Nodes(_)), "{nodes:?}");
    let local = peer("{localWorkloadSelector: has(a), asNumber: 65001}").remote;
    assert!(
        matches!(
            local,
            BgpRemote::Workloads {
                asn: Asn(65001),
                ..
            }
        ),
        "{local:?}"
    );
}

#[test]
fn several_paths_by_annotation() {
    let text = |value: &str| {
        format!(
            "metadata: {{name: p, annotations: {{manx.io/add-path: {value}}}}}\n\
             spec: {{peerIP: 10.0.0.1, asNumber: 65001}}"
        )
    };
    for (value, receive, send) in [
        ("receive", true, false),
        ("send", false, true),
        ("both", true, true),
    ] {
        let Update::BgpPeer(_, Some(p)) = update(&v3(K::BgpPeer, &text(value))) else {
            panic!("no peer")
        };
        assert_eq!(p.add_path, model::AddPath { receive, send });
    }
    assert_eq!(
        peer("{peerIP: 10.0.0.1}").add_path,
        model::AddPath::default()
    );
    let bad = defaulted(&v3(K::BgpPeer, &text("all")));
    let why = "must be receive, send or both, not \"all\"";
    let said = api::updates(&bad).unwrap_err().to_string();
    assert!(said.contains("BGPPeer") && said.contains(why), "{said}");
    let said = api::validate(&bad).unwrap_err().to_string();
    assert!(
        said.contains("metadata.annotations[manx.io/add-path]") && said.contains(why),
        "{said}"
    );
}

#[test]
fn a_maximum_of_prefixes_by_annotation() {
    use model::Beyond::{Discard, Reset, Warn};
    let text = |value: &str| {
        format!(
            "metadata: {{name: p, annotations: {{manx.io/max-prefixes: '{value}'}}}}\n\
             spec: {{peerIP: 10.0.0.1, asNumber: 65001}}"
        )
    };
    for (value, count, beyond) in [
        ("10000", 10_000, Reset),
        ("1,reset", 1, Reset),
        (" 20 , warn ", 20, Warn),
        ("4294967295,discard", u32::MAX, Discard),
    ] {
        let Update::BgpPeer(_, Some(p)) = update(&v3(K::BgpPeer, &text(value))) else {
            panic!("no peer")
        };
        assert_eq!(p.max_prefixes, Some(model::MaxPrefixes { count, beyond }));
    }
    assert_eq!(peer("{peerIP: 10.0.0.1}").max_prefixes, None);
    for (value, why) in [
        ("0", "\"0\" is no such number"),
        (
            "+5",
            "must be a number of prefixes between 1 and 4294967295",
        ),
        ("4294967296", "is no such number"),
        ("", "is no such number"),
        ("5,", "must be warn, discard or reset, not \"\""),
        ("5,down", "not \"down\""),
        ("5,warn,reset", "not \"warn,reset\""),
    ] {
        let bad = defaulted(&v3(K::BgpPeer, &text(value)));
        let said = api::updates(&bad).unwrap_err().to_string();
        assert!(said.contains("BGPPeer") && said.contains(why), "{said}");
        let said = api::validate(&bad).unwrap_err().to_string();
        assert!(
            said.contains("metadata.annotations[manx.io/max-prefixes]") && said.contains(why),
            "{said}"
        );
    }
}

#[test]
fn bgp_filters() {
    let u = update(&v3(
        K::BgpFilter,
        "metadata: {name: f}\nspec: {exportV4: [{cidr: 10.0.0.0/8, matchOperator: In, prefixLength: {min: 16}, action: Accept, operations: [{addCommunity: {value: '1:2'}}, {prependASPath: {prefix: [65001, '1.1']}}, {setPriority: {value: 5}}]}, {action: Reject}], importV6: [{source: RemotePeers, interface: 'eth*', peerType: iBGP, communities: {values: ['1:2:3']}, asPathPrefix: [7], priority: 9, action: Accept}]}",
    ));
    let Update::BgpFilter(_, Some(f)) = u else {
        panic!("{u:?}")
    };
    let [[first, second], []] = &f.export.each_ref().map(Vec::as_slice) else {
        panic!("{f:?}")
    };
    assert_eq!(first.cidr.map(|c| c.1), Some(CidrMatch::In));
    assert_eq!(first.lengths, Some((Some(16), None)));
    assert_eq!(
        first.operations,
        [
            FilterOperation::AddCommunity(Community::Standard(1, 2)),
            FilterOperation::Prepend(vec![Asn(65001), Asn(65537)]),
            FilterOperation::SetPriority(5)
        ]
    );
    assert!(first.accept && !second.accept && second.cidr.is_none());
    let [[], [import]] = &f.import.each_ref().map(Vec::as_slice) else {
        panic!("{f:?}")
    };
    assert!(import.from_remote_peers);
    assert_eq!((import.external, import.priority), (Some(false), Some(9)));
}

#[test]
fn host_endpoints_are_marked_by_annotation() {
    for (given, expected) in [("EF", Some(46)), ("12", Some(12)), ("loud", None)] {
        let u = update(&v3(
            K::HostEndpoint,
            &format!(
                "metadata: {{name: h, annotations: {{qos.projectcalico.org/dscp: '{given}'}}}}\nspec: {{node: n, interfaceName: '*'}}"
            ),
        ));
        let Update::Host(_, Some(h)) = u else {
            panic!("{u:?}")
        };
        assert_eq!(h.dscp, expected, "{given}");
    }
}

#[test]
fn interfaces_begin_as_configured() {
    let pod = defaulted(&v3(
        K::Pod,
        "metadata: {name: p, namespace: n}\nspec: {nodeName: a}\nstatus: {podIP: 10.0.0.1}",
    ));
    let name = |c: &Conversion| match c.updates(&pod).expect("converts").as_slice() {
        [Update::Workload(_, Some(w))] => w.interface.map(|i| i.to_string()).unwrap_or_default(),
        u => panic!("{u:?}"),
    };
    let other = Conversion {
        interface_prefix: "tap".into(),
    };
    let usual = name(&Conversion::default());
    assert_eq!(usual.strip_prefix("cali"), name(&other).strip_prefix("tap"));
    let bytes = api::encode(&pod).expect("encodes");
    assert_eq!(
        other.updates_for_key(&pod.key(), Some(&bytes)),
        other.updates(&pod)
    );
}

#[test]
fn a_deletion_retracts_what_the_object_was() {
    for (kind, rest) in [
        (
            K::ClusterNetworkPolicy,
            "spec: {tier: Admin, subject: {namespaces: {}}}",
        ),
        (K::StagedNetworkPolicy, ""),
        (K::StagedGlobalNetworkPolicy, ""),
        (K::StagedKubernetesNetworkPolicy, ""),
        (K::Service, ""),
        (K::BgpConfiguration, ""),
        (K::BgpPeer, "spec: {peerIP: 10.0.0.1}"),
        (K::BgpFilter, ""),
        (K::EndpointSlice, "addressType: IPv4"),
        (K::Secret, "data: {a: YQ==}"),
    ] {
        let ns = if kind.namespaced() {
            ", namespace: n"
        } else {
            ""
        };
        let labels = "{kubernetes.io/service-name: s}";
        let text = v3(
            kind,
            &format!("metadata: {{name: x, labels: {labels}{ns}}}\n{rest}"),
        );
        let u = update(&text);
        let key = api::key(kind, kind.namespaced().then_some("n"), "x");
        assert_eq!(
            api::updates_for_key(&key, None),
            Ok(vec![api::absent(&u)]),
            "{kind:?}"
        );
    }
}

#[test]
fn secrets_are_read_and_never_shown() {
    let r = defaulted(&v3(
        K::Secret,
        "metadata: {name: keys, namespace: kube-system}\ntype: Opaque\ndata: {one: c2VjcmV0}\nstringData: {two: plain}",
    ));
    let stored = serde_json::to_value(&r).unwrap();
    assert_eq!(
        stored["data"]["two"], "cGxhaW4=",
        "as the API server stores it"
    );
    assert!(stored.get("stringData").is_none() && stored["type"] == "Opaque");
    let all = api::updates(&r).unwrap();
    let [Update::Secret(at, Some(secret))] = &all[..] else {
        panic!("{all:?}")
    };
    assert_eq!((&*at.namespace, &*at.name), ("kube-system", "keys"));
    assert_eq!(
        (&*secret.0["one"], &*secret.0["two"]),
        (&b"secret"[..], &b"plain"[..])
    );
    assert_eq!(format!("{secret:?}"), r#"{"one", "two"}"#);
    let bad = defaulted(&v3(
        K::Secret,
        "metadata: {name: keys, namespace: n}\ndata: {one: 'hush!'}",
    ));
    let said = api::validate(&bad).unwrap_err().to_string();
    assert!(
        said.contains("data.one") && said.contains("not base64"),
        "{said}"
    );
    assert!(!said.contains("hush"), "{said}");
}
