//! No bytes make it panic; what prints reads back.

use api::{Resource, ResourceKind, StringMap, annotations, parse_documents, updates_for_key};
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

/// What happens to whatever was read: nothing of it may panic.
fn use_it(mut r: Resource) {
    api::default(&mut r);
    let valid = api::validate(&r);
    if let Err(e) = &valid {
        assert!(!e.violations.is_empty() && !e.to_string().is_empty());
    }
    let _ = (
        api::to_yaml(&r),
        api::to_json(&r),
        api::row(&r, true),
        api::updates(&r),
    );
    if let Resource::Pod(p) = &r {
        let _ = api::convert::to_workload_endpoint(p);
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
        for found in parse_documents(&doc.to_string(), "f") {
            if let Ok((r, _)) = found {
                use_it(r);
            }
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
    fn any_bytes_under_any_key(kind in kind(), bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        let key = api::key(kind, kind.namespaced().then_some("n"), "x");
        let _ = updates_for_key(&key, Some(&bytes));
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
