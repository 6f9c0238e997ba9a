//! What is refused of staged policies, ClusterNetworkPolicies, services, BGP and controllers, by the
//! text that users see.

use crate::{defaulted, v3};
use api::{Invalid, ResourceKind as K};

/// `spec` of an object of the kind, and what is wrong with it: `field (reason)` each.
#[track_caller]
fn check(kind: K, spec: &str, expected: &[&str]) {
    let ns = if kind.namespaced() {
        ", namespace: n"
    } else {
        ""
    };
    let name = match kind {
        K::BgpConfiguration | K::KubeControllersConfiguration => "default",
        _ => "x",
    };
    let rest = format!("metadata: {{name: {name}{ns}}}\nspec: {{{spec}}}");
    let r = defaulted(&v3(kind, &rest));
    let found: Vec<String> = match api::validate(&r) {
        Ok(()) => Vec::new(),
        Err(Invalid { violations }) => (violations.into_iter())
            .map(|v| format!("{} ({})", v.field, v.reason))
            .collect(),
    };
    assert_eq!(found, expected, "{kind:?} {spec}");
    if expected.is_empty() {
        assert!(api::updates(&r).is_ok(), "what is valid converts: {spec}");
    }
}

#[test]
fn staged() {
    let only_tier =
        "spec (Spec fields, except Tier, should all be zero-value if stagedAction is Delete)";
    for kind in [K::StagedNetworkPolicy, K::StagedGlobalNetworkPolicy] {
        check(kind, "", &[]);
        check(kind, "stagedAction: Delete, tier: t", &[]);
        check(kind, "stagedAction: Delete, selector: all()", &[only_tier]);
        check(
            kind,
            "stagedAction: Try",
            &["spec.stagedAction (must be one of Set, Delete, Learn, Ignore)"],
        );
        check(
            kind,
            "ingress: [{action: Allow, source: {selector: 'has('}}]",
            &["spec.ingress[0].source.selector (expected a label at column 5)"],
        );
    }
    check(
        K::StagedKubernetesNetworkPolicy,
        "stagedAction: Delete, ingress: [{}]",
        &["spec (Spec fields should all be zero-value if stagedAction is Delete)"],
    );
    check(
        K::StagedKubernetesNetworkPolicy,
        "stagedAction: Delete, podSelector: {}",
        &[],
    );
    // Fields of one policy in a file of another.
    for (kind, field) in [
        (K::NetworkPolicy, "stagedAction: Set"),
        (K::GlobalNetworkPolicy, "stagedAction: Set"),
        (K::KubeNetworkPolicy, "podSelector: {}, stagedAction: Set"),
        (K::StagedNetworkPolicy, "namespaceSelector: all()"),
        (K::StagedNetworkPolicy, "doNotTrack: true"),
    ] {
        let text = v3(kind, &format!("metadata: {{name: x}}\nspec: {{{field}}}"));
        let e = api::parse_documents(&text, "f").remove(0).expect_err(field);
        assert!(
            e.to_string()
                .contains("is not recognized or is in the wrong location"),
            "{e}"
        );
    }
}

#[test]
fn cluster_policies() {
    let c = |spec: &str, expected: &[&str]| check(K::ClusterNetworkPolicy, spec, expected);
    const HEAD: &str = "tier: Admin, priority: 1, subject: {namespaces: {}}";
    c(HEAD, &[]);
    c(
        "tier: Middle, priority: 1001, subject: {}",
        &[
            "spec.tier (must be one of Admin, Baseline)",
            "spec.priority (must be between 0 and 1000)",
            "spec.subject (exactly one of namespaces and pods must be set)",
        ],
    );
    c(
        "tier: Admin, subject: {namespaces: {}}",
        &["spec.priority (must be set, between 0 and 1000)"],
    );
    let rule = |rule: &str, expected: &[&str]| {
        c(&format!("{HEAD}, egress: [{{{rule}}}]"), expected);
    };
    rule(
        "action: Accept, to: [{networks: [10.0.0.0/8, 'fd00::/8']}]",
        &[],
    );
    rule(
        "action: Allow, to: []",
        &[
            "spec.egress[0].action (must be one of Accept, Deny, Pass)",
            "spec.egress[0].to (must have at least one peer)",
        ],
    );
    rule(
        "action: Deny, to: [{}, {networks: [10.0.0.1], nodes: {}}]",
        &[
            "spec.egress[0].to[0] (exactly one of namespaces, pods, nodes, networks and domainNames must be set)",
            "spec.egress[0].to[1] (exactly one of namespaces, pods, nodes, networks and domainNames must be set)",
            "spec.egress[0].to[1].networks[0] (Invalid CIDR format provided)",
        ],
    );
    rule(
        "action: Deny, to: [{domainNames: [example.org, local]}]",
        &[
            "spec.egress[0].to[0].domainNames (domainNames is only supported for Accept rules)",
            "spec.egress[0].to[0].domainNames[1] (invalid domain name)",
        ],
    );
    rule(
        "action: Accept, to: [{nodes: {}}], protocols: [{destinationNamedPort: web}, {tcp: {destinationPort: {range: {start: 9, end: 9}}}}, {udp: {}}, {}]",
        &[
            "spec.egress[0].protocols[1].tcp.destinationPort.range (Start port must be less than End port)",
            "spec.egress[0].protocols[2].udp (destinationPort must be specified)",
            "spec.egress[0].protocols[3] (exactly one of tcp, udp, sctp and destinationNamedPort must be set)",
            "spec.egress[0].protocols (networks/nodes/domainNames peer cannot be set with namedPorts since there are no namedPorts for networks/nodes/domainNames)",
        ],
    );
    c(
        &format!("{HEAD}, ingress: [{{action: Deny, from: [{{networks: [10.0.0.0/8]}}]}}]"),
        &["spec.ingress[0].from[0].networks (only an egress rule has this field)"],
    );
    c(
        "tier: Admin, priority: 1, subject: {pods: {podSelector: {matchLabels: {'a b': c}}}}",
        &["spec.subject.pods.podSelector.matchLabels (invalid label key)"],
    );
}

#[test]
fn services_and_slices() {
    check(K::Service, "ports: [{port: 80}]", &[]);
    check(
        K::Service,
        "type: Sometimes, clusterIP: ten, externalTrafficPolicy: Near, ports: [{port: 80, protocol: ICMP}, {name: a, port: 0}]",
        &[
            "spec.type (must be one of ClusterIP, NodePort, LoadBalancer, ExternalName)",
            "spec.clusterIP (invalid IP address)",
            "spec.clusterIPs[0] (invalid IP address)",
            "spec.externalTrafficPolicy (must be one of Cluster, Local)",
            "spec.ports[0].protocol (must be one of TCP, UDP, SCTP)",
            "spec.ports[0].name (name must be specified)",
            "spec.ports[1].port (must be between 1 and 65535)",
        ],
    );
    let slice = |rest: &str| {
        let text = v3(
            K::EndpointSlice,
            &format!("metadata: {{name: x, namespace: n}}\n{rest}"),
        );
        api::validate(&defaulted(&text)).map_err(|e| e.to_string())
    };
    assert_eq!(
        slice("addressType: FQDN\nendpoints: [{addresses: [a.b]}]"),
        Ok(())
    );
    let e = slice("addressType: IPv4\nendpoints: [{addresses: ['fd00::1']}]").expect_err("v6");
    assert_eq!(
        e,
        "error with field endpoints[0].addresses = 'fd00::1' (must be an address of type IPv4)"
    );
    assert!(slice("endpoints: []").is_err());
}

#[test]
fn bgp_configurations() {
    let c = |spec: &str, expected: &[&str]| check(K::BgpConfiguration, spec, expected);
    c("logSeverityScreen: debug", &[]);
    c(
        "nodeToNodeMeshEnabled: false, nodeMeshMaxRestartTime: 1m, nodeMeshPassword: {}",
        &[
            "spec.nodeMeshPassword (nodeMeshPassword cannot be set when nodeToNodeMeshEnabled is false)",
            "spec.nodeMeshMaxRestartTime (nodeMeshMaxRestartTime cannot be set when nodeToNodeMeshEnabled is false)",
            "spec.nodeMeshPassword.secretKeyRef (name and key of the secret must be specified)",
        ],
    );
    c(
        "communities: [{name: a, value: '1:2'}]",
        &["spec.communities (communities are defined but not used in prefixAdvertisements)"],
    );
    c(
        "communities: [{name: a, value: '1:70000'}, {name: b, value: x}], prefixAdvertisements: [{cidr: 10.0.0.0/8, communities: [c]}, {cidr: x}]",
        &[
            "spec.communities[0].value (invalid community value, expected 16 bit value)",
            "spec.communities[1].value (invalid community value or format used.)",
            "spec.prefixAdvertisements[0].communities (community used is invalid or not defined.)",
            "spec.prefixAdvertisements[1].cidr (invalid CIDR value.)",
        ],
    );
    c(
        "listenPort: 0, ignoredInterfaces: ['a b'], ipv4NormalRoutePriority: 0",
        &[
            "spec.listenPort (must be between 1 and 65535)",
            "spec.ignoredInterfaces[0] (must match ^[a-zA-Z0-9_.*-]{1,15}$)",
            "spec.ipv4NormalRoutePriority (must be between 1 and 2147483646)",
        ],
    );
}

#[test]
fn bgp_peers() {
    let c = |spec: &str, expected: &[&str]| check(K::BgpPeer, spec, expected);
    c("peerIP: 10.0.0.1:1790, asNumber: 1", &[]);
    c("peerSelector: has(a)", &[]);
    c(
        "",
        &["spec.peerIP (one of peerIP, peerSelector and localWorkloadSelector must be set)"],
    );
    c(
        "node: n, nodeSelector: has(a), peerIP: 10.0.0.1, peerSelector: has(b), asNumber: 1",
        &[
            "spec.node (node and nodeSelector cannot both be set)",
            "spec.peerIP (peerIP and peerSelector cannot both be set)",
            "spec.asNumber (asNumber must be empty when peerSelector is set)",
        ],
    );
    c(
        "localWorkloadSelector: has(a), peerIP: 10.0.0.1, peerSelector: has(b)",
        &[
            "spec.peerIP (peerIP and peerSelector cannot both be set)",
            "spec.peerIP (peerIP must be empty when localWorkloadSelector is set)",
            "spec.peerSelector (peerSelector must be empty when localWorkloadSelector is set)",
            "spec.asNumber (asNumber is required when localWorkloadSelector is set)",
        ],
    );
    c(
        "peerIP: 10.0.0.1, reachableBy: 'fd00::1', keepOriginalNextHop: true, nextHopMode: Auto",
        &[
            "spec.keepOriginalNextHop (keepOriginalNextHop and nextHopMode cannot both be set; keepOriginalNextHop is deprecated, use nextHopMode instead)",
            "spec.reachableBy (ReachableBy and PeerIP address family mismatched)",
        ],
    );
    c(
        "peerIP: '10.0.0.1:0', keepaliveTime: soon",
        &[
            "spec.peerIP (must be <IP>, <IPv4>:<port> or [<IPv6>]:<port>)",
            "spec.keepaliveTime (must be a duration such as 90s)",
        ],
    );
}

#[test]
fn bgp_filters() {
    let c = |rule: &str, expected: &[&str]| {
        let expected: Vec<String> = (expected.iter())
            .map(|e| format!("spec.exportV4[0].{e}"))
            .collect();
        let expected: Vec<&str> = expected.iter().map(String::as_str).collect();
        check(K::BgpFilter, &format!("exportV4: [{{{rule}}}]"), &expected);
    };
    c("action: Accept", &[]);
    c("", &["action (must be one of Accept, Reject)"]);
    c(
        "action: Reject, cidr: 10.0.0.0/8, operations: [{setPriority: {value: 1}}]",
        &[
            "cidr (cidr and matchOperator must both be set or both be empty)",
            "operations (operations may only be used with action Accept)",
        ],
    );
    c(
        "action: Accept, cidr: 'fd00::/8', matchOperator: In, prefixLength: {max: 33}",
        &[
            "cidr (invalid IPv4 CIDR)",
            "prefixLength.max (must be between 0 and 32)",
        ],
    );
    c(
        "action: Accept, prefixLength: {min: 8}, communities: {values: ['1:2', '3:4']}",
        &[
            "prefixLength (cidr is required when prefixLength is set)",
            "communities.values (must have exactly one community)",
        ],
    );
    c(
        "action: Accept, operations: [{}, {prependASPath: {prefix: []}}]",
        &[
            "operations[0] (exactly one of addCommunity, prependASPath and setPriority must be set)",
            "operations[1].prependASPath.prefix (must have 1 to 10 AS numbers)",
        ],
    );
}

#[test]
fn controllers_and_node_status() {
    check(K::KubeControllersConfiguration, "", &[]);
    let at = "spec.controllers.node.hostEndpoint.templates";
    check(
        K::KubeControllersConfiguration,
        "controllers: {node: {hostEndpoint: {templates: [{generateName: a, interfaceCIDRs: [10.0.0.0/8]}, {generateName: a, interfacePattern: eth0}, {}]}}}",
        &[
            &format!("{at}[1].generateName (Template name must be unique)"),
            &format!("{at}[2].generateName (Template name must be specified)"),
            &format!(
                "{at}[2].interfaceCIDRs (InterfaceCIDRs or InterfacePattern must be specified)"
            ),
        ],
    );
    let other = defaulted(&v3(
        K::KubeControllersConfiguration,
        "metadata: {name: other}",
    ));
    assert!(api::validate(&other).is_err());
    check(
        K::CalicoNodeStatus,
        "node: n, classes: [Agent, BGP, Routes], updatePeriodSeconds: 0",
        &[],
    );
    check(
        K::CalicoNodeStatus,
        "classes: [BGP, BGP, Nothing], updatePeriodSeconds: 86401",
        &[
            "spec.node (node must be specified)",
            "spec.classes[1] (classes must be unique)",
            "spec.classes[2] (must be one of Agent, BGP, Routes)",
            "spec.updatePeriodSeconds (must be between 0 and 86400)",
        ],
    );
}

#[test]
fn tables() {
    let row = |kind: K, rest: &str| {
        let r = defaulted(&v3(kind, rest));
        [false, true].map(|wide| {
            let (heads, cells) = (api::columns(kind, wide), api::row(&r, wide));
            assert_eq!(heads.len(), cells.len(), "{kind:?} {wide}");
            cells.join("|")
        })
    };
    assert_eq!(
        row(
            K::BgpPeer,
            "metadata: {name: p}\nspec: {peerIP: 10.0.0.1, asNumber: 7}"
        )[0],
        "p|10.0.0.1|(global)|7"
    );
    assert_eq!(
        row(
            K::BgpPeer,
            "metadata: {name: p}\nspec: {peerSelector: has(a), nodeSelector: has(b)}"
        )[0],
        "p||has(b)|0"
    );
    assert_eq!(
        row(
            K::BgpFilter,
            "metadata: {name: f}\nspec: {exportV4: [{}], importV6: [{}, {}]}"
        )[0],
        "f|1|0|0|2"
    );
    assert_eq!(
        row(
            K::StagedGlobalNetworkPolicy,
            "metadata: {name: s}\nspec: {order: 5, selector: all()}"
        ),
        ["s|default", "s|default|5|all()"]
    );
    assert_eq!(
        row(
            K::StagedKubernetesNetworkPolicy,
            "metadata: {name: s}\nspec: {podSelector: {matchLabels: {a: b}, matchExpressions: [{key: c, operator: Exists}]}}"
        ),
        ["s", "s|a=b,c"]
    );
    assert_eq!(
        row(
            K::CalicoNodeStatus,
            "metadata: {name: s}\nspec: {node: n, classes: [BGP]}"
        ),
        ["s|n", "s|n|BGP"]
    );
    assert_eq!(
        row(
            K::ClusterNetworkPolicy,
            "metadata: {name: c}\nspec: {tier: Admin, priority: 3}"
        )[0],
        "c|Admin|3"
    );
}

/// A resource with the annotation, valid but for it.
fn watched(kind: K, name: &str, how: &str) -> api::Resource {
    let spec = match kind {
        K::BgpPeer => "{peerIP: 10.0.0.1, asNumber: 65001}",
        _ => "{}",
    };
    let rest =
        format!("metadata: {{name: {name}, annotations: {{manx.io/bfd: '{how}'}}}}\nspec: {spec}");
    defaulted(&v3(kind, &rest))
}

#[test]
fn how_a_path_is_watched_by_annotation() {
    use model::{Bfd, BfdHops, Update};
    let ms = std::time::Duration::from_millis;
    let usual = Bfd::default();
    assert_eq!(
        (usual.min_tx, usual.min_rx, usual.multiplier),
        (ms(300), ms(300), 3)
    );
    for (text, expected) in [
        ("true", Some(usual)),
        ("false", None),
        (
            "min-rx=50ms, min-tx=1s,multiplier=5,hops=multi",
            Some(Bfd {
                min_rx: ms(50),
                min_tx: ms(1000),
                multiplier: 5,
                hops: Some(BfdHops::Multi),
            }),
        ),
        (
            "hops=single",
            Some(Bfd {
                hops: Some(BfdHops::Single),
                ..usual
            }),
        ),
    ] {
        for (kind, name) in [(K::BgpPeer, "p"), (K::BgpConfiguration, "default")] {
            let r = watched(kind, name, text);
            assert_eq!(api::validate(&r), Ok(()), "{text}");
            let seen = match api::updates(&r).expect("valid").pop() {
                Some(Update::BgpPeer(_, Some(p))) => p.bfd,
                Some(Update::BgpConfig(_, Some(c))) => c.mesh_bfd,
                other => panic!("{other:?}"),
            };
            assert_eq!(seen, expected, "{text}");
        }
    }
}

#[test]
fn how_a_path_cannot_be_watched_is_said() {
    for (text, reason) in [
        (
            "",
            "must be true, false, or min-rx=TIME,min-tx=TIME,multiplier=N,hops=single|multi; \
             \"\" is none of it",
        ),
        (
            "fast",
            "must be true, false, or min-rx=TIME,min-tx=TIME,multiplier=N,hops=single|multi; \
             \"fast\" is none of it",
        ),
        (
            "min-rx=5ms",
            "min-rx \"5ms\" must be a duration between 10ms and 60s",
        ),
        (
            "min-tx=2m",
            "min-tx \"2m\" must be a duration between 10ms and 60s",
        ),
        (
            "min-tx=300",
            "min-tx \"300\" must be a duration between 10ms and 60s",
        ),
        ("multiplier=0", "multiplier \"0\" must be between 1 and 255"),
        (
            "multiplier=256",
            "multiplier \"256\" must be between 1 and 255",
        ),
        ("hops=2", "hops \"2\" must be single or multi"),
        (
            "echo=true",
            "knows min-rx, min-tx, multiplier and hops, not \"echo\"",
        ),
    ] {
        for (kind, name) in [(K::BgpPeer, "p"), (K::BgpConfiguration, "default")] {
            let r = watched(kind, name, text);
            let Err(Invalid { violations }) = api::validate(&r) else {
                panic!("{text:?} is taken")
            };
            let seen: Vec<_> = violations.iter().map(|v| (&*v.field, &*v.reason)).collect();
            assert_eq!(seen, [("metadata.annotations[manx.io/bfd]", reason)]);
            assert!(api::updates(&r).is_err(), "{text:?} is followed");
        }
    }
    let r = watched(K::BgpConfiguration, "node.a", "true");
    let Err(Invalid { violations }) = api::validate(&r) else {
        panic!("a node's own mesh")
    };
    assert_eq!(
        violations[0].reason,
        "Cannot set manx.io/bfd on a non default BGP Configuration."
    );
}
