//! Resources as users and stores see them.

use crate::{defaulted, one};
use api::{Resource, ResourceKind, parse_key};

/// Input and the YAML that it is stored and shown as.
const GOLDEN: &[(&str, &str)] = &[
    (
        "apiVersion: projectcalico.org/v3
kind: IPPool
metadata: {name: default-ipv4-ippool}
spec: {cidr: 192.168.0.0/16, ipipMode: Always, natOutgoing: true, disabled: false}
",
        "apiVersion: projectcalico.org/v3
kind: IPPool
metadata:
  name: default-ipv4-ippool
spec:
  allowedUses:
  - Workload
  - Tunnel
  assignmentMode: Automatic
  blockSize: 26
  cidr: 192.168.0.0/16
  ipipMode: Always
  natOutgoing: true
  nodeSelector: all()
  vxlanMode: Never
",
    ),
    (
        "apiVersion: projectcalico.org/v3
kind: NetworkPolicy
metadata: {name: web, namespace: prod}
spec:
  order: 100
  selector: \"!has(x) && role == 'web'\"
  ingress:
  - action: allow
    protocol: tcp
    source: {selector: role == 'lb', namespaceSelector: global()}
    destination: {ports: [80, '8080:8090', http, 443]}
  - {action: Deny, protocol: 47, icmp: }
",
        "apiVersion: projectcalico.org/v3
kind: NetworkPolicy
metadata:
  labels:
    projectcalico.org/tier: default
  name: web
  namespace: prod
spec:
  ingress:
  - action: Allow
    destination:
      ports:
      - 80
      - 8080:8090
      - http
      - 443
    protocol: TCP
    source:
      namespaceSelector: global()
      selector: role == 'lb'
  - action: Deny
    destination: {}
    protocol: 47
    source: {}
  order: 100
  selector: '!has(x) && role == ''web'''
  tier: default
  types:
  - Ingress
",
    ),
    (
        "apiVersion: projectcalico.org/v3
kind: FelixConfiguration
metadata: {name: default, creationTimestamp: '2026-01-02T03:04:05Z'}
spec: {vxlanMTU: 1410, reportingInterval: 0s, failsafeInboundHostPorts: [], floatingIPs: Enabled}
",
        "apiVersion: projectcalico.org/v3
kind: FelixConfiguration
metadata:
  creationTimestamp: \"2026-01-02T03:04:05Z\"
  name: default
spec:
  bpfConnectTimeLoadBalancing: TCP
  bpfHostNetworkedNATWithoutCTLB: Enabled
  failsafeInboundHostPorts: []
  floatingIPs: Enabled
  reportingInterval: 0s
  vxlanMTU: 1410
",
    ),
    (
        "apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: a, namespace: b}
spec:
  podSelector: {}
  egress:
  - to: [{namespaceSelector: {}}]
    ports: [{port: 53, protocol: UDP}, {port: dns}]
",
        "apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: a
  namespace: b
spec:
  egress:
  - ports:
    - port: 53
      protocol: UDP
    - port: dns
      protocol: TCP
    to:
    - namespaceSelector: {}
  podSelector: {}
  policyTypes:
  - Ingress
  - Egress
",
    ),
    (
        "apiVersion: v1
kind: Pod
metadata: {name: p, namespace: n, annotations: {text: \"two\\nlines\\n\", yes: 'y', time: '12:30', ip: 10.0.0.1, x: '0x1F', blank: ' a', n: '1_0'}}
spec: {nodeName: n1, containers: [{name: c, image: 'a:b', ports: [{containerPort: 80, name: http}]}], tolerations: [{key: a}]}
status: {phase: Running, podIP: 10.0.0.5, qosClass: Burstable}
",
        "apiVersion: v1
kind: Pod
metadata:
  annotations:
    blank: ' a'
    ip: 10.0.0.1
    \"n\": \"1_0\"
    text: |
      two
      lines
    time: \"12:30\"
    x: \"0x1F\"
    \"yes\": \"y\"
  name: p
  namespace: \"n\"
spec:
  containers:
  - image: a:b
    name: c
    ports:
    - containerPort: 80
      name: http
  nodeName: n1
  tolerations:
  - key: a
status:
  phase: Running
  podIP: 10.0.0.5
  qosClass: Burstable
",
    ),
];

#[test]
fn canonical_yaml() {
    for (input, expected) in GOLDEN {
        let r = defaulted(input);
        let printed = api::to_yaml(&r);
        assert_eq!(&printed, expected);
        assert_eq!(one(&printed), r, "printed YAML reads back");
        assert_eq!(one(&api::to_json(&r)), r, "printed JSON reads back");
        let mut again = r.clone();
        api::default(&mut again);
        assert_eq!(again, r, "defaulting twice");
        assert_eq!(api::validate(&r), Ok(()), "{expected}");
        assert!(api::updates(&r).is_ok());
    }
}

#[test]
fn json_begins_with_the_kind() {
    let r = one(
        "apiVersion: projectcalico.org/v3\nkind: Tier\nmetadata: {name: t}\nspec: {order: 1.5}\n",
    );
    let expected = r#"{
  "kind": "Tier",
  "apiVersion": "projectcalico.org/v3",
  "metadata": {
    "name": "t"
  },
  "spec": {
    "order": 1.5
  }
}
"#;
    assert_eq!(api::to_json(&r), expected);
    assert_eq!(
        api::to_yaml_list(ResourceKind::Tier, &[r], Some("7")),
        "apiVersion: projectcalico.org/v3\nitems:\n- apiVersion: projectcalico.org/v3\n  kind: Tier\n  metadata:\n    name: t\n  spec:\n    order: 1.5\nkind: TierList\nmetadata:\n  resourceVersion: \"7\"\n"
    );
}

#[test]
fn the_stored_form_reads_back() {
    for (input, _) in GOLDEN {
        let mut r = defaulted(input);
        "5".clone_into(&mut r.meta_mut().resource_version);
        let key = r.key();
        let bytes = api::encode(&r).expect("encodes");
        let text = String::from_utf8(bytes.clone()).expect("UTF-8");
        assert!(!text.contains("resourceVersion"), "{text}");
        let at = parse_key(&key).expect("key");
        assert_eq!(at.kind, r.kind());
        assert_eq!(api::decode(&at, &bytes, Some("5")).expect("decodes"), r);
    }
    let Resource::NetworkPolicy(_) = defaulted(GOLDEN[1].0) else {
        panic!("kind")
    };
    let stored =
        String::from_utf8(api::encode(&defaulted(GOLDEN[1].0)).expect("encodes")).expect("UTF-8");
    assert!(stored.starts_with(
        r#"{"kind":"NetworkPolicy","apiVersion":"projectcalico.org/v3","metadata":{"name":"web""#
    ));
    assert!(
        stored.contains(r#""projectcalico.org/metadata":"{\"name\":\"web\"}""#),
        "{stored}"
    );
}

#[test]
fn stored_objects_may_have_nulls_and_fields_from_the_future() {
    let stored = br#"{"kind":"IPPool","apiVersion":"projectcalico.org/v3","metadata":{"creationTimestamp":null,"labels":null,"new":1},"spec":{"cidr":"10.0.0.0/8","allowedUses":null,"quantum":true}}"#;
    let at = parse_key("/calico/resources/v3/projectcalico.org/ippools/a").expect("key");
    let Ok(Resource::IpPool(p)) = api::decode(&at, stored, None) else {
        panic!("decode")
    };
    assert_eq!(
        (p.metadata.name.as_str(), p.spec.cidr.as_str()),
        ("a", "10.0.0.0/8")
    );
    let e = api::decode(&at, b"{\"spec\":{\"cidr\":5}}", None).expect_err("a number is no CIDR");
    assert!(
        e.to_string()
            .starts_with("/calico/resources/v3/projectcalico.org/ippools/a: "),
        "{e}"
    );
}

#[test]
fn rows_fit_their_columns() {
    for &kind in ResourceKind::ALL {
        for wide in [false, true] {
            let r = kind.empty();
            assert_eq!(
                api::row(&r, wide).len(),
                api::columns(kind, wide).len(),
                "{kind:?} {wide}"
            );
        }
    }
    let row = |text: &str, wide| api::row(&defaulted(text), wide).join("|");
    assert_eq!(
        row(GOLDEN[0].0, false),
        "default-ipv4-ippool|192.168.0.0/16|all()"
    );
    assert_eq!(
        row(GOLDEN[0].0, true),
        "default-ipv4-ippool|192.168.0.0/16|true|Always|Never|false|false|all()|Automatic"
    );
    assert_eq!(
        row(GOLDEN[1].0, true),
        "web|default|100|!has(x) && role == 'web'"
    );
    let node = "apiVersion: projectcalico.org/v3\nkind: Node\nmetadata: {name: n}\nspec: {bgp: {ipv4Address: 10.0.0.1/24}}\n";
    assert_eq!(row(node, true), "n|(64512)|10.0.0.1/24|");
    assert_eq!(
        row(
            "apiVersion: projectcalico.org/v3\nkind: Tier\nmetadata: {name: t}\n",
            false
        ),
        "t|1000000"
    );
}
