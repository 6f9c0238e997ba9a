//! What `get` printed, applied again, changes nothing.

use crate::Bench;
use proptest::prelude::*;

fn yaml() -> impl Strategy<Value = Vec<String>> {
    let rule = prop_oneof![
        Just("{action: allow}"),
        Just("{action: Deny, protocol: udp, destination: {ports: [53, dns, '1000:2000']}}"),
        Just("{action: Pass, source: {selector: \"a == 'b'\", namespaceSelector: all()}}"),
        Just(
            "{action: Log, ipVersion: 4, protocol: ICMP, icmp: {type: 8}, source: {notNets: [10.0.0.0/8]}}"
        ),
        Just("{action: Allow, protocol: 17, metadata: {annotations: {why: 'yes'}}}"),
    ];
    let label = prop_oneof![
        Just("{}"),
        Just("{a: 'true', b: '012'}"),
        Just("{x.io/y: ''}")
    ];
    let policy = (0..4_u8, proptest::collection::vec(rule, 0..3), 0..3_u8, label.clone()).prop_map(|(i, rules, way, labels)| {
        let rules = rules.join(", ");
        let rules = match way {
            0 => format!("ingress: [{rules}]"),
            1 => format!("egress: [{rules}]"),
            _ => format!("ingress: [{rules}], egress: [{rules}], types: [Egress]"),
        };
        format!(
            "apiVersion: projectcalico.org/v3\nkind: NetworkPolicy\nmetadata: {{name: p{i}, namespace: n{i}, labels: {labels}}}\nspec: {{order: {i}.5, {rules}}}\n"
        )
    });
    let pool = (0..4_u8, any::<bool>(), label.clone()).prop_map(|(i, v6, labels)| {
        let spec = if v6 { format!("cidr: 'fd00:{i}::/64', vxlanMode: Always") } else { format!("cidr: 10.{i}.0.0/16") };
        format!("apiVersion: projectcalico.org/v3\nkind: IPPool\nmetadata: {{name: q{v6}{i}, labels: {labels}}}\nspec: {{{spec}}}\n")
    });
    let set = (0..4_u8, label).prop_map(|(i, labels)| {
        format!("apiVersion: projectcalico.org/v3\nkind: GlobalNetworkSet\nmetadata: {{name: g{i}, annotations: {labels}}}\nspec: {{nets: [10.{i}.0.0/16, 'fd00::{i}']}}\n")
    });
    let felix = Just("apiVersion: projectcalico.org/v3\nkind: FelixConfiguration\nmetadata: {name: default}\nspec: {logSeverityScreen: Info, vxlanMTU: 1400}\n".to_owned());
    let kube = Just("apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: k, namespace: n0}\nspec: {podSelector: {}, ingress: [{ports: [{port: 80}, {port: http}]}]}\n".to_owned());
    proptest::collection::vec(
        prop_oneof![4 => policy, 2 => pool, 1 => set, 1 => felix, 1 => kube],
        1..6,
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]
    #[test]
    fn exported_and_applied_again(documents in yaml()) {
        let b = Bench::new();
        b.apply("apiVersion: v1\nkind: Namespace\nmetadata: {name: n0}\n");
        b.apply(&documents.join("---\n"));
        let before = b.dump();
        for kind in ["networkpolicy", "ippool", "gns", "felixconfig", "knp", "tier", "namespace"] {
            for format in ["yaml", "json"] {
                let namespaces: &[&str] = if matches!(kind, "networkpolicy" | "knp") { &["-A"] } else { &[] };
                let mut args = vec!["get", kind, "-o", format, "--export"];
                args.extend(namespaces);
                let printed = b.ok(&args);
                b.ok_with(&printed, &["apply", "--skip-empty", "-f", "-"]);
                prop_assert_eq!(&b.dump(), &before, "{}", printed);
            }
        }
    }
}
