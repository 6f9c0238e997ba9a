//! Every rule of the reference, by the text that users see.

use crate::{defaulted, v3};
use api::{Invalid, Resource, ResourceKind as K};

/// What is wrong with an object: `field (reason)` each.
fn faults(r: &Resource) -> Vec<String> {
    match api::validate(r) {
        Ok(()) => Vec::new(),
        Err(Invalid { violations }) => violations
            .into_iter()
            .map(|v| format!("{} ({})", v.field, v.reason))
            .collect(),
    }
}

#[track_caller]
fn check(kind: K, rest: &str, expected: &[&str]) {
    let r = defaulted(&v3(kind, rest));
    assert_eq!(faults(&r), expected, "{rest}");
    if expected.is_empty() {
        assert!(api::updates(&r).is_ok(), "what is valid converts: {rest}");
    }
}

#[track_caller]
fn pool(spec: &str, expected: &[&str]) {
    check(
        K::IpPool,
        &format!("metadata: {{name: p}}\nspec: {{{spec}}}"),
        expected,
    );
}

/// A rule of a global policy's ingress.
#[track_caller]
fn rule(rule: &str, expected: &[&str]) {
    let expected: Vec<String> = expected
        .iter()
        .map(|e| format!("spec.ingress[0].{e}"))
        .collect();
    let expected: Vec<&str> = expected.iter().map(String::as_str).collect();
    check(
        K::GlobalNetworkPolicy,
        &format!("metadata: {{name: p}}\nspec: {{ingress: [{{{rule}}}]}}"),
        &expected,
    );
}

#[test]
fn pools() {
    pool("cidr: 10.0.0.0/16", &[]);
    pool("cidr: 'fd00::/64'", &[]);
    pool(
        "cidr: 10.0.0.1/16",
        &["spec.cidr (IPPool CIDR must be strictly masked)"],
    );
    pool("cidr: ten", &["spec.cidr (invalid CIDR)"]);
    pool(
        "cidr: 10.0.0.0/16, blockSize: 19",
        &["spec.blockSize (block size must be between 20 and 32 for IPv4)"],
    );
    pool(
        "cidr: 'fd00::/64', blockSize: 26",
        &["spec.blockSize (block size must be between 116 and 128 for IPv6)"],
    );
    let small = "spec.cidr (IP pool size is too small for use with Calico IPAM. It must be equal to or greater than the block size.)";
    pool("cidr: 10.0.0.0/28", &[small]);
    pool("cidr: 10.0.0.0/28, disabled: true", &[]);
    pool("cidr: 10.0.0.0/28, blockSize: 28", &[]);
    pool(
        "cidr: 169.254.1.0/24",
        &["spec.cidr (IP pool range overlaps with IPv4 Link Local range 169.254.0.0/16)"],
    );
    pool(
        "cidr: 'fe80::/64'",
        &["spec.cidr (IP pool range overlaps with IPv6 Link Local range fe80::/10)"],
    );
    pool(
        "cidr: 10.0.0.0/16, ipipMode: Always, vxlanMode: CrossSubnet",
        &["spec.ipipMode (ipipMode and vxlanMode cannot both be enabled)"],
    );
    pool(
        "cidr: 'fd00::/64', ipipMode: Always",
        &["spec.ipipMode (IPIP is not supported on an IPv6 IP pool)"],
    );
    pool(
        "cidr: 10.0.0.0/16, ipipMode: sometimes",
        &["spec.ipipMode (must be one of Never, Always, CrossSubnet)"],
    );
    pool(
        "cidr: 10.0.0.0/16, nodeSelector: 'a ='",
        &["spec.nodeSelector (expected operator after label at column 3)"],
    );
    pool(
        "cidr: 10.0.0.0/16, nodeSelector: global()",
        &["spec.nodeSelector (global() can only be used in an EntityRule namespaceSelector)"],
    );
    pool(
        "cidr: 10.0.0.0/16, namespaceSelector: has(a)",
        &["spec.namespaceSelector (cannot be set on a pool with the allowed use Tunnel)"],
    );
    pool(
        "cidr: 10.0.0.0/16, namespaceSelector: has(a), allowedUses: [Workload]",
        &[],
    );
    pool(
        "cidr: 10.0.0.0/16, allowedUses: [LoadBalancer, Workload], vxlanMode: Always, disableBGPExport: true, nodeSelector: has(a)",
        &[
            "spec.allowedUses (a LoadBalancer pool cannot have IPIP or VXLAN enabled)",
            "spec.allowedUses (LoadBalancer cannot be combined with other uses)",
            "spec.disableBGPExport (must be false on a LoadBalancer pool)",
            "spec.nodeSelector (must be all() on a LoadBalancer pool)",
        ],
    );
}

#[test]
fn pools_beside_each_other_and_over_time() {
    let p = |name: &str, spec: &str| {
        defaulted(&v3(
            K::IpPool,
            &format!("metadata: {{name: {name}}}\nspec: {{{spec}}}"),
        ))
    };
    let (a, b) = (p("a", "cidr: 10.0.0.0/16"), p("b", "cidr: 10.0.8.0/24"));
    let (Resource::IpPool(ap), Resource::IpPool(bp)) = (&a, &b) else {
        panic!("kinds")
    };
    let e = api::pool_overlap(bp, [ap, bp])
        .expect("overlap")
        .to_string();
    assert!(
        e.ends_with("(IPPool(b) CIDR overlaps with IPPool(a) CIDR 10.0.0.0/16)"),
        "{e}"
    );
    assert_eq!(api::pool_overlap(ap, [ap]), None);
    let changed = p("a", "cidr: 10.0.0.0/15, blockSize: 27");
    let e = api::validate_update(&a, &changed)
        .expect_err("immutable")
        .to_string();
    assert_eq!(
        e,
        "error with the following fields:\n-  spec.cidr = '10.0.0.0/15' (IPPool CIDR cannot be modified)\n-  spec.blockSize = '27' (IPPool BlockSize cannot be modified)"
    );
    assert_eq!(
        api::validate_update(
            &a,
            &p("a", "cidr: 10.0.0.0/16, blockSize: 26, disabled: true")
        ),
        Ok(())
    );
}

#[test]
fn names() {
    let bad = "metadata.name (name must consist of lower case alphanumeric characters, '-' or '.' (regex: [a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*))";
    for name in ["Upper", "a_b", "-a", "a-", "a..b", ".a"] {
        check(
            K::HostEndpoint,
            &format!("metadata: {{name: '{name}'}}\nspec: {{node: n, interfaceName: eth0}}"),
            &[bad],
        );
    }
    let long = "a".repeat(256);
    check(
        K::HostEndpoint,
        &format!("metadata: {{name: {long}}}\nspec: {{node: n, interfaceName: '*'}}"),
        &["metadata.name (name is too long by 3 bytes)"],
    );
    check(
        K::NetworkPolicy,
        "metadata: {name: knp.default.a.b, namespace: n}",
        &[],
    );
    check(
        K::NetworkPolicy,
        "metadata: {name: tier.a, namespace: n}",
        &[],
    );
    for (kind, meta) in [
        (K::NetworkPolicy, "{name: a.b.c, namespace: n}"),
        (K::GlobalNetworkPolicy, "{name: knp.default.a}"),
    ] {
        let r = defaulted(&v3(kind, &format!("metadata: {meta}")));
        let [fault] = &faults(&r)[..] else {
            panic!("{meta}: {:?}", faults(&r))
        };
        // All of its letters are good: the dots are what is wrong.
        assert!(
            fault.ends_with("a policy's name has at most one dot)"),
            "{fault}"
        );
        assert!(!fault.contains("label"), "{fault}");
    }
    check(
        K::NetworkPolicy,
        "metadata: {name: a}",
        &["metadata.namespace (namespace must be specified)"],
    );
    check(
        K::ClusterInformation,
        "metadata: {name: other}",
        &[
            "metadata.name (Cannot create a Cluster Information resource with a name other than \"default\")",
        ],
    );
}

#[test]
fn tiers() {
    let check_tier = |name: &str, spec: &str, n: usize| {
        let r = defaulted(&v3(
            K::Tier,
            &format!("metadata: {{name: {name}}}\nspec: {{{spec}}}"),
        ));
        assert_eq!(faults(&r).len(), n, "{name} {spec}: {:?}", faults(&r));
    };
    check_tier("t", "order: 5, defaultAction: Pass", 0);
    check_tier("a.b", "", 1);
    check_tier("t", "defaultAction: Drop", 1);
    check_tier("default", "order: 5", 1);
    check_tier("kube-admin", "order: 1000, defaultAction: Deny", 1);
    for t in api::builtin_tiers() {
        let r = Resource::from(t);
        assert_eq!(api::validate(&r), Ok(()));
        let e = api::validate_delete(&r).expect_err("built in").to_string();
        assert!(
            e.contains(&format!("Cannot delete {} tier", r.meta().name)),
            "{e}"
        );
    }
}

#[test]
fn ports() {
    let need = "rules with numeric port or port range must set protocol to TCP or UDP or SCTP";
    rule(
        "action: Allow, protocol: TCP, destination: {ports: [80, '1:2', http]}",
        &[],
    );
    rule("action: Allow, destination: {ports: [http]}", &[]);
    rule(
        "action: Allow, destination: {ports: [80]}",
        &[&format!("destination.ports ({need})")],
    );
    rule(
        "action: Allow, source: {notPorts: ['1:2']}",
        &[&format!("source.notPorts ({need})")],
    );
    rule(
        "action: Allow, protocol: ICMP, destination: {ports: [http]}",
        &["destination.ports (rules that specify ports must set protocol to TCP or UDP or SCTP)"],
    );
    rule(
        "action: Allow, protocol: TCP, source: {ports: ['9:8']}",
        &["source.ports[0] (port range invalid)"],
    );
    rule(
        "action: Allow, protocol: 300",
        &["protocol (must be TCP, UDP, ICMP, ICMPv6, SCTP, UDPLite or a number from 1 to 255)"],
    );
    rule(
        "action: Refuse",
        &["action (must be one of Allow, Deny, Log, Pass)"],
    );
    rule("action: pass, protocol: udplite", &[]);
}

#[test]
fn families() {
    rule(
        "action: Allow, source: {nets: [10.0.0.0/8, 10.1.1.1]}, destination: {notNets: [192.0.2.0/24]}",
        &[],
    );
    rule(
        "action: Allow, source: {nets: [10.0.0.0/8]}, destination: {nets: ['fd00::/8']}",
        &["nets (rule contains both IPv4 and IPv6 CIDRs)"],
    );
    rule(
        "action: Allow, ipVersion: 6, source: {nets: [10.0.0.0/8]}",
        &["nets (rule IP version doesn't match CIDR version)"],
    );
    rule(
        "action: Allow, ipVersion: 5",
        &["ipVersion (must be 4 or 6)"],
    );
    rule(
        "action: Allow, source: {nets: [10.0.0.1/8]}",
        &["source.nets[0] (CIDR must be strictly masked: 10.0.0.0/8)"],
    );
    let catch_all = "catch-all CIDR in negation creates logical contradiction (matches no traffic)";
    for net in ["0.0.0.0/0", "::/0"] {
        rule(
            &format!("action: Deny, source: {{notNets: ['{net}']}}"),
            &[&format!("source.notNets[0] ({catch_all})")],
        );
        rule(&format!("action: Deny, source: {{nets: ['{net}']}}"), &[]);
    }
}

#[test]
fn icmp() {
    rule(
        "action: Allow, protocol: ICMP, icmp: {type: 8, code: 0}",
        &[],
    );
    rule(
        "action: Allow, icmp: {type: 8}",
        &["icmp (ICMP fields require protocol to be ICMP or ICMPv6)"],
    );
    rule(
        "action: Allow, protocol: ICMP, notICMP: {code: 0}",
        &["notICMP.code (ICMP code specified without an ICMP type)"],
    );
    rule(
        "action: Allow, protocol: ICMP, icmp: {type: 255}",
        &["icmp.type (must be between 0 and 254)"],
    );
    rule(
        "action: Allow, protocol: ICMP, ipVersion: 6",
        &["protocol (protocol ICMP requires ipVersion 4)"],
    );
    rule(
        "action: Allow, notProtocol: ICMPv6, ipVersion: 4",
        &["notProtocol (protocol ICMPv6 requires ipVersion 6)"],
    );
}

#[test]
fn http() {
    rule(
        "action: Allow, http: {methods: [GET], paths: [{exact: /a}, {prefix: /b}]}",
        &[],
    );
    rule(
        "action: Deny, http: {methods: [GET]}",
        &["http (HTTP match is only valid on Allow rules)"],
    );
    rule(
        "action: Allow, protocol: UDP, http: {}",
        &["http (rules with HTTP match must have protocol TCP or unset)"],
    );
    rule(
        "action: Allow, http: {methods: [GET, GET]}",
        &["http.methods[1] (HTTP methods must be unique)"],
    );
    rule(
        "action: Allow, http: {paths: [{exact: 'a'}]}",
        &["http.paths[0] (a path starts with / and has no ?, # or blank)"],
    );
    check(
        K::GlobalNetworkPolicy,
        "metadata: {name: p}\nspec: {egress: [{action: Allow, http: {}}]}",
        &["spec.egress[0].http (HTTP match is only valid on ingress rules)"],
    );
}

#[test]
fn services() {
    rule(
        "action: Allow, source: {services: {name: s, namespace: n}}",
        &[],
    );
    rule(
        "action: Allow, source: {services: {name: s}}",
        &["source.services (must specify a namespace)"],
    );
    rule(
        "action: Allow, source: {services: {namespace: n}}",
        &["source.services (services must specify a service name)"],
    );
    for (field, what) in [
        ("selector: a == 'b'", "Selector/NotSelector"),
        ("namespaceSelector: all()", "NamespaceSelector"),
        ("nets: [10.0.0.0/8]", "Nets/NotNets"),
        ("serviceAccounts: {names: [a]}", "ServiceAccounts"),
    ] {
        rule(
            &format!("action: Allow, source: {{services: {{name: s, namespace: n}}, {field}}}"),
            &[&format!(
                "source.services (cannot specify {what} and Services on the same rule)"
            )],
        );
    }
    rule(
        "action: Allow, destination: {services: {name: s, namespace: n}}",
        &["destination.services (not allowed in ingress rule destination)"],
    );
    check(
        K::NetworkPolicy,
        "metadata: {name: p, namespace: n}\nspec: {egress: [{action: Allow, source: {services: {name: s}}}, {action: Allow, protocol: TCP, destination: {services: {name: s}, ports: [1]}}]}",
        &[
            "spec.egress[0].source.services (not allowed in egress rule source)",
            "spec.egress[1].destination.services (ports and notPorts cannot be specified with services)",
        ],
    );
}

#[test]
fn selectors() {
    rule("action: Allow, source: {namespaceSelector: global()}", &[]);
    rule(
        "action: Allow, source: {namespaceSelector: global() || has(a)}",
        &["source.namespaceSelector (global() cannot be combined with other selectors)"],
    );
    rule(
        "action: Allow, source: {selector: global()}",
        &["source.selector (global() can only be used in an EntityRule namespaceSelector)"],
    );
    rule(
        "action: Allow, source: {selector: 'a == '}",
        &["source.selector (expected a quoted string at column 6)"],
    );
    let long = format!(
        "action: Allow, source: {{selector: \"{}\"}}",
        " ".repeat(1025)
    );
    rule(
        &long,
        &["source.selector (selector is longer than 1024 characters)"],
    );
}

#[test]
fn host_only_policies() {
    let gnp = |spec: &str, expected: &[&str]| {
        check(
            K::GlobalNetworkPolicy,
            &format!("metadata: {{name: p}}\nspec: {{{spec}}}"),
            expected,
        );
    };
    gnp("preDNAT: true, applyOnForward: true", &[]);
    gnp(
        "preDNAT: true, doNotTrack: true, applyOnForward: true",
        &["spec.preDNAT (preDNAT and doNotTrack cannot both be true)"],
    );
    gnp(
        "preDNAT: true, applyOnForward: true, egress: [{action: Allow}]",
        &[
            "spec.preDNAT (preDNAT policy cannot have any egress rules)",
            "spec.preDNAT (preDNAT policy cannot have 'Egress' type)",
        ],
    );
    gnp(
        "doNotTrack: true",
        &[
            "spec.applyOnForward (applyOnForward must be true if either preDNAT or doNotTrack is true)",
        ],
    );
    gnp(
        "types: [Ingress, Sideways]",
        &["spec.types[1] (must be one of Ingress, Egress)"],
    );
}

#[test]
fn other_kinds() {
    check(
        K::HostEndpoint,
        "metadata: {name: h}\nspec: {node: n, expectedIPs: [10.0.0.1]}",
        &[],
    );
    check(
        K::HostEndpoint,
        "metadata: {name: h}",
        &[
            "spec.node (node must be specified)",
            "spec.interfaceName (at least one of interfaceName or expectedIPs must be specified)",
        ],
    );
    check(
        K::HostEndpoint,
        "metadata: {name: h}\nspec: {node: n, interfaceName: 'eth0/1', ports: [{name: a, protocol: icmp, port: 0}]}",
        &[
            "spec.interfaceName (invalid interface name)",
            "spec.ports[0].protocol (must be TCP, UDP or SCTP)",
            "spec.ports[0].port (must be between 1 and 65535)",
        ],
    );
    check(
        K::Node,
        "metadata: {name: n}\nspec: {bgp: {}}",
        &["spec.bgp (Spec.BGP should not be empty)"],
    );
    check(
        K::GlobalNetworkSet,
        "metadata: {name: s, labels: {projectcalico.org/namespace: x}}\nspec: {nets: [10.0.0.0/8, x]}",
        &[
            "metadata.labels (projectcalico.org/namespace is not a valid label name)",
            "spec.nets[1] (invalid CIDR or IP address)",
        ],
    );
    check(
        K::IpamConfiguration,
        "metadata: {name: default}\nspec: {ipCooldownSeconds: 1201, maxBlocksPerHost: 4, autoAllocateBlocks: false}",
        &[
            "spec.ipCooldownSeconds (must be between 0 and 1200)",
            "spec.autoAllocateBlocks (cannot disable 'StrictAffinity' and 'AutoAllocateBlocks' at the same time)",
            "spec.maxBlocksPerHost ('MaxBlocksPerHost' needs 'StrictAffinity' to be true)",
        ],
    );
    check(
        K::FelixConfiguration,
        "metadata: {name: default}\nspec: {vxlanPort: 70000, wireguardEnabled: 'yes', routeRefreshInterval: 90, nodeSelector: has(a), chainInsertMode: Middle, failsafeInboundHostPorts: [{protocol: tcp, port: 22}, {port: x}]}",
        &[
            "spec.chainInsertMode (must be one of Insert, Append)",
            "spec.failsafeInboundHostPorts (must be a list of {protocol, port, net})",
            "spec.routeRefreshInterval (must be a duration such as 90s)",
            "spec.vxlanPort (must be between 0 and 65535)",
            "spec.wireguardEnabled (must be true or false)",
            "spec.nodeSelector (nodeSelector must not be set on default and on node.<name>)",
        ],
    );
    check(
        K::BgpConfiguration,
        "metadata: {name: node.a}\nspec: {asNumber: 64512}",
        &["metadata.name (Cannot set ASNumber on a non default BGP Configuration.)"],
    );
    check(
        K::KubeNetworkPolicy,
        "metadata: {name: p, namespace: n}\nspec: {podSelector: {matchExpressions: [{key: a, operator: Is}]}, ingress: [{from: [{}], ports: [{endPort: 5}]}]}",
        &[
            "spec.podSelector.matchExpressions[0].operator (not a valid selector operator)",
            "spec.ingress[0].ports[0].endPort (may only be set with a numeric port)",
            "spec.ingress[0].from[0] (must specify a peer)",
        ],
    );
}

#[test]
fn one_violation_reads_as_users_know_it() {
    let r = defaulted(&v3(K::IpPool, "metadata: {name: p}\nspec: {cidr: ten}"));
    let e = api::validate(&r).expect_err("no CIDR").to_string();
    assert_eq!(e, "error with field spec.cidr = 'ten' (invalid CIDR)");
}
