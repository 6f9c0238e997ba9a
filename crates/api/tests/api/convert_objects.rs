//! Everything else in the model.

use crate::{update, v3};
use api::convert::{
    kube_node_to_node, namespace_profile, node_annotations, service_account_profile,
};
use api::{Resource, ResourceKind as K, updates_for_key};
use model::{Encap, LabelSource as _, TierAction, Update};

#[test]
fn pools() {
    let Update::Pool(name, Some(p)) = update(&v3(
        K::IpPool,
        "metadata: {name: p}\nspec: {cidr: 10.0.0.0/16, vxlanMode: CrossSubnet, natOutgoing: true, nodeSelector: has(a)}",
    )) else {
        panic!("kind")
    };
    assert_eq!(
        (&*name, p.block_size, p.vxlan, p.ipip),
        ("p", 26, Encap::CrossSubnet, Encap::Never)
    );
    assert!(
        p.nat_outgoing
            && p.uses.workload
            && p.uses.tunnel
            && !p.uses.load_balancer
            && p.allocatable
    );
    assert_eq!(p.node_selector.as_str(), "has(a)");
    let stored = br#"{"metadata":{"deletionTimestamp":"2026-01-01T00:00:00Z"},"spec":{"cidr":"fd00::/64","disabled":true},"status":{"conditions":[{"type":"Allocatable","status":"False","reason":"CIDROverlap"}]}}"#;
    let key = "/calico/resources/v3/projectcalico.org/ippools/p";
    let found = updates_for_key(key, Some(stored)).expect("converts");
    let [Update::Pool(_, Some(p))] = found.as_slice() else {
        panic!("{found:?}")
    };
    assert_eq!(
        (p.block_size, p.disabled, p.deleting, p.allocatable),
        (122, true, true, false)
    );
    assert_eq!(
        updates_for_key(key, None),
        Ok(vec![Update::Pool("p".into(), None)])
    );
    let e = updates_for_key(key, Some(b"{\"spec\":{\"cidr\":\"ten\"}}")).expect_err("no CIDR");
    assert_eq!(e.to_string(), "IPPool(p): spec.cidr: invalid CIDR: \"ten\"");
}

#[test]
fn profiles_of_namespaces_and_accounts() {
    let Update::Profile(id, Some(p)) =
        update("apiVersion: v1\nkind: Namespace\nmetadata: {name: prod, labels: {env: p}}\n")
    else {
        panic!("kind")
    };
    assert_eq!((&*id, p.ingress.len(), p.egress.len()), ("kns.prod", 1, 1));
    assert_eq!(p.labels.label("pcns.env"), Some("p"));
    assert_eq!(p.labels.label("pcns.projectcalico.org/name"), Some("prod"));
    // What Kubernetes' API server sees to, also where there is none: policy that denies by it must not miss.
    assert_eq!(
        p.labels.label("pcns.kubernetes.io/metadata.name"),
        Some("prod")
    );
    let Update::Profile(id, Some(p)) = update(
        "apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: robot, namespace: prod, labels: {r: x}}\nsecrets: []\n",
    ) else {
        panic!("kind")
    };
    assert_eq!((&*id, p.ingress.len()), ("ksa.prod.robot", 0));
    assert_eq!(p.labels.label("pcsa.r"), Some("x"));
    assert_eq!(
        updates_for_key("/registry/serviceaccounts/prod/robot", None),
        Ok(vec![Update::Profile("ksa.prod.robot".into(), None)])
    );
    // What `get profile` shows means the same.
    let (Resource::Namespace(ns), Resource::ServiceAccount(sa)) = (
        crate::one("apiVersion: v1\nkind: Namespace\nmetadata: {name: prod, labels: {env: p}}\n"),
        crate::one(
            "apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: robot, namespace: prod}\n",
        ),
    ) else {
        panic!("kinds")
    };
    for (profile, of) in [
        (namespace_profile(&ns), Resource::from(ns)),
        (service_account_profile(&sa), Resource::from(sa)),
    ] {
        assert_eq!(api::updates(&profile.into()), api::updates(&of));
    }
    let allow = api::updates(&api::default_allow_profile().into()).expect("converts");
    let [Update::Profile(id, Some(p))] = allow.as_slice() else {
        panic!("{allow:?}")
    };
    assert_eq!(
        (&**id, p.ingress.len(), p.egress.len()),
        ("projectcalico-default-allow", 1, 1)
    );
}

#[test]
fn nodes_of_both_sorts() {
    let v3_node = v3(
        K::Node,
        "metadata: {name: n, labels: {a: b}}\nspec: {bgp: {asNumber: 64513, ipv4Address: 10.0.0.1/24, ipv4IPIPTunnelAddr: 10.1.0.1}, ipv4VXLANTunnelAddr: 10.1.0.2, vxlanTunnelMACAddr: '66:00:00:00:00:01', addresses: [{address: 10.0.0.1/24, type: CalicoNodeIP}, {address: 192.0.2.1, type: ExternalIP}]}\nstatus: {podCIDRs: [10.244.0.0/24]}",
    );
    let kube = "apiVersion: v1\nkind: Node\nmetadata:\n  name: n\n  labels: {a: b}\n  annotations:\n    projectcalico.org/IPv4Address: 10.0.0.1/24\n    projectcalico.org/ASNumber: '64513'\n    projectcalico.org/IPv4IPIPTunnelAddr: 10.1.0.1\n    projectcalico.org/IPv4VXLANTunnelAddr: 10.1.0.2\n    projectcalico.org/VXLANTunnelMACAddr: '66:00:00:00:00:01'\n    projectcalico.org/IPv6Address: nonsense\nspec: {podCIDR: 10.244.0.0/24}\nstatus: {addresses: [{type: ExternalIP, address: 192.0.2.1}, {type: Hostname, address: n}]}\n";
    let expected = update(&v3_node);
    assert_eq!(update(kube), expected);
    // Calico's node carried by annotations is the same node.
    let (Resource::Node(mut node), Resource::KubeNode(mut carrier)) =
        (crate::one(&v3_node), crate::one(kube))
    else {
        panic!("kinds")
    };
    carrier.metadata.annotations = node_annotations(&node);
    let back = kube_node_to_node(&carrier);
    node.spec.addresses.clone_from(&back.spec.addresses);
    node.spec.orch_refs.clone_from(&back.spec.orch_refs);
    assert_eq!(back, node);
    let Update::Node(_, Some(n)) = expected else {
        panic!("kind")
    };
    let own = n.ipv4.expect("address");
    assert_eq!(
        (own.addr.to_string(), own.subnet.to_string()),
        ("10.0.0.1".into(), "10.0.0.0/24".into())
    );
    assert_eq!(n.asn, Some(net::Asn(64513)));
    assert_eq!(n.addresses.len(), 2);
    assert_eq!(n.pod_cidrs.len(), 1);
    assert_eq!(n.labels.label("a"), Some("b"));
}

#[test]
fn tiers_sets_hosts_and_readiness() {
    let Update::Tier(_, Some(t)) = update(&v3(
        K::Tier,
        "metadata: {name: t}\nspec: {order: 5, defaultAction: Pass}",
    )) else {
        panic!("kind")
    };
    assert_eq!((t.order, t.default_action), (Some(5.0), TierAction::Pass));
    let Update::NetworkSet(key, Some(s)) = update(&v3(
        K::NetworkSet,
        "metadata: {name: s, namespace: prod, labels: {a: b}}\nspec: {nets: [10.0.0.0/8, 192.0.2.1]}",
    )) else {
        panic!("kind")
    };
    assert_eq!(key.namespace.as_deref(), Some("prod"));
    assert_eq!((s.nets.len(), s.profiles.len()), (2, 1));
    assert_eq!(s.labels.label("projectcalico.org/namespace"), Some("prod"));
    let Update::NetworkSet(key, Some(s)) = update(&v3(
        K::GlobalNetworkSet,
        "metadata: {name: s}\nspec: {nets: [10.0.0.0/8]}",
    )) else {
        panic!("kind")
    };
    assert_eq!(
        (key.namespace, s.profiles.len(), s.labels.len()),
        (None, 0, 0)
    );
    let Update::Host(_, Some(h)) = update(&v3(
        K::HostEndpoint,
        "metadata: {name: h}\nspec: {node: n, interfaceName: '*', profiles: [a], ports: [{name: ssh, protocol: tcp, port: 22}]}",
    )) else {
        panic!("kind")
    };
    assert_eq!(
        (h.interface.as_deref(), h.ports.len(), h.profiles.len()),
        (Some("*"), 1, 1)
    );
    let ready = |spec: &str| {
        update(&v3(
            K::ClusterInformation,
            &format!("metadata: {{name: default}}\nspec: {{{spec}}}"),
        ))
    };
    assert_eq!(ready("datastoreReady: true"), Update::Ready(true));
    assert_eq!(ready(""), Update::Ready(false));
}

#[test]
fn felix_values_as_the_environment_spells_them() {
    let Update::Felix(name, Some(f)) = update(&v3(
        K::FelixConfiguration,
        "metadata: {name: gpu, creationTimestamp: '1970-01-01T00:01:40Z'}\nspec:\n  nodeSelector: gpu == 'yes'\n  vxlanMTU: 1410\n  ipipEnabled: true\n  ipipMTU: 1400\n  reportingInterval: 1m30s\n  iptablesLockProbeInterval: 50ms\n  routeRefreshInterval: 1500ms\n  iptablesFilterDenyAction: Reject\n  failsafeInboundHostPorts: [{protocol: UDP, port: 68}, {port: 22, net: 10.0.0.0/8}]\n  failsafeOutboundHostPorts: []\n  kubeNodePortRanges: ['30000:32767', 80]\n  externalNodesList: [10.0.0.1, 10.0.0.2]\n  routeTableRanges: [{min: 1, max: 250}]\n  healthTimeoutOverrides: [{name: a, timeout: 90s}]\n  bpfLogFilters: {eth0: tcp}\n  floatingIPs: Enabled\n",
    )) else {
        panic!("kind")
    };
    assert_eq!(
        (&*name, f.created, f.node_selector.as_deref()),
        ("gpu", 100, Some("gpu == \"yes\""))
    );
    for (k, v) in [
        ("vxlanmtu", "1410"),
        ("ipinipenabled", "true"),
        ("ipinipmtu", "1400"),
        ("reportingintervalsecs", "90"),
        ("iptableslockprobeintervalmillis", "50"),
        ("routerefreshinterval", "1.5"),
        ("iptablesfilterdenyaction", "Reject"),
        ("failsafeinboundhostports", "udp:68,tcp:10.0.0.0/8:22"),
        ("failsafeoutboundhostports", "none"),
        ("kubenodeportranges", "30000:32767,80"),
        ("externalnodescidrlist", "10.0.0.1,10.0.0.2"),
        ("routetableranges", "1-250"),
        ("healthtimeoutoverrides", "a=90"),
        ("bpflogfilters", "eth0=tcp"),
        ("floatingips", "Enabled"),
    ] {
        assert_eq!(f.values.get(k).map(|v| &**v), Some(v), "{k}");
    }
    assert!(!f.values.contains_key("nodeselector"));
}

#[test]
fn blocks() {
    let key = "/calico/ipam/v2/assignment/ipv4/block/10.0.0.0-29";
    let value = br#"{"cidr":"10.0.0.0/29","affinity":"host:n1","allocations":[0,1,null,2,0,3,null,null],"unallocated":[2,6,7],
      "attributes":[{"handle_id":"a","secondary":{"node":"n1","pod":"p"}},{"handle_id":"b","secondary":{"node":"n2"}},{"handle_id":"c","secondary":null},{"releasedAt":"2026-01-01T00:00:00Z","secondary":{"node":"n3"}}],"sequenceNumber":1}"#;
    let found = updates_for_key(key, Some(value)).expect("converts");
    let [Update::Block(cidr, Some(b))] = found.as_slice() else {
        panic!("{found:?}")
    };
    assert_eq!(
        (cidr.to_string(), b.node.as_deref()),
        ("10.0.0.0/29".into(), Some("n1"))
    );
    let borrowed: Vec<_> = b
        .borrowed
        .iter()
        .map(|b| format!("{}@{}", b.addr, b.node))
        .collect();
    assert_eq!(borrowed, ["10.0.0.1@n2"]);

    let gone = vec![Update::Block("10.0.0.0/29".parse().expect("cidr"), None)];
    assert_eq!(updates_for_key(key, None), Ok(gone.clone()));
    assert_eq!(updates_for_key(key, Some(br#"{"deleted":true}"#)), Ok(gone));
    let v6 = "/calico/ipam/v2/assignment/ipv6/block/fd00::-122";
    let found = updates_for_key(v6, Some(br#"{"cidr":"fd00::/122","hostAffinity":"n9","affinity":null,"allocations":[0],"attributes":[{"secondary":{"node":"n2"}}]}"#)).expect("converts");
    let [Update::Block(_, Some(b))] = found.as_slice() else {
        panic!("{found:?}")
    };
    assert_eq!((b.node.as_deref(), b.borrowed.len()), (Some("n9"), 1));
    assert!(updates_for_key(key, Some(br#"{"cidr":"10.9.0.0/29"}"#)).is_err());
    assert!(updates_for_key("/calico/ipam/v2/assignment/ipv4/block/x", None).is_err());

    // The same block as a resource means the same.
    let crd = br#"{"spec":{"cidr":"10.0.0.0/29","affinity":"host:n1","allocations":[0,1,null],"attributes":[{"secondary":{"node":"n1"}},{"secondary":{"node":"n2"}}]}}"#;
    let found = updates_for_key(
        "/calico/resources/v3/projectcalico.org/ipamblocks/10-0-0-0-29",
        Some(crd),
    )
    .expect("converts");
    let [Update::Block(_, Some(b))] = found.as_slice() else {
        panic!("{found:?}")
    };
    assert_eq!(b.borrowed.len(), 1);
}

#[test]
fn keys_of_others_mean_nothing() {
    for key in [
        "/calico/ipam/v2/config",
        "/registry/configmaps/a/b",
        "/calico/v1/Ready",
        "",
    ] {
        assert_eq!(
            updates_for_key(key, Some(b"not json")),
            Ok(Vec::new()),
            "{key}"
        );
    }
    for &kind in K::ALL {
        let key = api::key(kind, kind.namespaced().then_some("n"), "n-k8s-w-eth0");
        let found = updates_for_key(&key, None).expect("a deletion never fails");
        assert!(found.iter().all(|u| api::absent(u) == *u), "{key}");
    }
}
