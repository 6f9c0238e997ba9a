//! Resources in and out, golden.

use crate::{Bench, POOL};

const POLICY: &str = "apiVersion: projectcalico.org/v3
kind: NetworkPolicy
metadata: {name: web, namespace: prod}
spec:
  tier: custom
  order: 10
  selector: app == 'web'
  ingress: [{action: allow, protocol: tcp, destination: {ports: [80, '1000:2000']}}]
---
apiVersion: projectcalico.org/v3
kind: Tier
metadata: {name: custom}
spec: {order: 100}
";

#[test]
fn tables() {
    let b = Bench::new();
    b.apply(POOL);
    assert_eq!(
        b.ok(&["get", "ippools"]),
        "NAME   CIDR           SELECTOR   \n\
         main   10.65.0.0/16   all()      \n\n"
    );
    assert_eq!(
        b.ok(&["get", "pool", "main", "-o", "wide"]),
        "NAME   CIDR           NAT    IPIPMODE   VXLANMODE   DISABLED   DISABLEBGPEXPORT   SELECTOR   ASSIGNMENTMODE   \n\
         main   10.65.0.0/16   true   Never      Never       false      false              all()      Automatic        \n\n"
    );
    assert_eq!(
        b.ok(&[
            "get",
            "pool",
            "-o",
            "custom-columns=name,NAT,SIZE:.spec.blockSize,NONE:.spec.x"
        ]),
        "NAME   NAT    SIZE   NONE     \n\
         main   true   26     <none>   \n\n"
    );
    assert_eq!(b.ok(&["get", "gnp"]), "NAME   TIER   \n\n");
    let text = b.fails(&["get", "pool", "-o", "custom-columns=COLOUR"]);
    assert!(
        text.starts_with("custom-columns: IPPool has no column 'COLOUR'; it has NAME, CIDR, NAT"),
        "{text}"
    );
    let text = b.fails(&["get", "pool", "-o", "go-template={{.}}"]);
    assert!(
        text.contains("go-template is not supported: use -o custom-columns="),
        "{text}"
    );
}

#[test]
fn namespaces_in_tables() {
    let b = Bench::new();
    // The policy stands before the tier that it needs.
    assert_eq!(
        b.ok_with(POLICY, &["apply", "-f", "-"]),
        "Successfully applied 2 resource(s)\n"
    );
    assert_eq!(b.ok(&["get", "np"]), "NAME   TIER   \n\n");
    assert_eq!(
        b.ok(&["get", "np", "-n", "prod"]),
        "NAMESPACE   NAME   TIER     \nprod        web    custom   \n\n"
    );
    assert_eq!(
        b.ok(&["get", "networkpolicies", "-A", "-o", "wide"]),
        "NAMESPACE   NAME   TIER     ORDER   SELECTOR       \nprod        web    custom   10      app == 'web'   \n\n"
    );
    let text = b.fails(&["get", "np", "web"]);
    assert_eq!(
        text,
        "resource does not exist: NetworkPolicy(default/web) with error: networkpolicies \"web\" not found\n"
    );
    // The same for deletion: the tier goes last.
    assert_eq!(
        b.ok_with(POLICY, &["delete", "-f", "-"]),
        "Successfully deleted 2 resource(s)\n"
    );
}

#[test]
fn yaml_and_json() {
    let b = Bench::new();
    b.apply(POLICY);
    assert_eq!(
        b.ok(&["get", "np", "web", "-n", "prod", "-o", "yaml", "--export"]),
        "apiVersion: projectcalico.org/v3
kind: NetworkPolicy
metadata:
  labels:
    projectcalico.org/tier: custom
  name: web
  namespace: prod
spec:
  ingress:
  - action: Allow
    destination:
      ports:
      - 80
      - 1000:2000
    protocol: TCP
    source: {}
  order: 10
  selector: app == 'web'
  tier: custom
  types:
  - Ingress
"
    );
    let object =
        |args: &[&str]| -> serde_json::Value { serde_json::from_str(&b.ok(args)).expect("JSON") };
    let one = object(&["get", "tier", "custom", "-o", "json"]);
    assert_eq!(
        (&one["kind"], &one["spec"]["order"]),
        (&"Tier".into(), &100.into())
    );
    assert!(one["metadata"]["uid"].is_string() && one["metadata"]["resourceVersion"].is_string());
    let list = object(&["get", "tier", "-o", "json"]);
    assert_eq!(
        (&list["kind"], list["items"].as_array().map(Vec::len)),
        (&"TierList".into(), Some(4))
    );
    assert!(list["metadata"]["resourceVersion"].is_string());
    let two = object(&["get", "tier", "custom", "default", "-o", "json", "--export"]);
    assert_eq!(two.as_array().map(Vec::len), Some(2));
    assert!(
        two[0]["metadata"]["uid"].is_null() && two[0]["metadata"]["creationTimestamp"].is_null()
    );
    assert!(
        b.ok(&["get", "tier", "custom", "default", "-o", "yaml"])
            .starts_with("- apiVersion: projectcalico.org/v3\n")
    );
}

#[test]
fn what_is_missing_does_not_hide_the_rest() {
    let b = Bench::new();
    b.apply(POOL);
    let r = b.run(&["get", "pools", "nope", "main"]);
    assert!(!r.ok && r.out.contains("main   10.65.0.0/16"));
    assert_eq!(
        r.err,
        "resource does not exist: IPPool(nope) with error: ippools \"nope\" not found\n"
    );
    let r = b.run_with(&format!("{POOL}---\n{POLICY}"), &["get", "-f", "-"]);
    assert!(!r.ok && r.out.contains("main   10.65.0.0/16"), "{r:?}");
    assert!(
        r.err.contains("NetworkPolicy(prod/web)") && r.err.contains("Tier(custom)"),
        "{r:?}"
    );
}

#[test]
fn create_replace_delete() {
    let b = Bench::new();
    let pool = b.file("pool.yaml", POOL);
    let text = b.fails(&["replace", "-f", &pool]);
    assert_eq!(
        text,
        "failed to replace 'IPPool' resource: [resource does not exist: IPPool(main) with error: ippools \"main\" not found]\n"
    );
    assert_eq!(
        b.ok(&["create", "-f", &pool]),
        "Successfully created 1 'IPPool' resource(s)\n"
    );
    let text = b.fails(&["create", "-f", &pool]);
    assert_eq!(
        text,
        "failed to create 'IPPool' resource: [resource already exists: IPPool(main) with error: ippools \"main\" already exists]\n"
    );
    assert_eq!(
        b.ok(&["create", "-f", &pool, "--skip-exists"]),
        "Successfully created 1 'IPPool' resource(s)\n"
    );
    assert_eq!(
        b.ok(&["replace", "-f", &pool]),
        "Successfully replaced 1 'IPPool' resource(s)\n"
    );
    assert_eq!(
        b.ok(&["delete", "pool", "main"]),
        "Successfully deleted 1 'IPPool' resource(s)\n"
    );
    let text = b.fails(&["delete", "pool", "main"]);
    assert!(
        text.starts_with(
            "failed to delete 'IPPool' resource: [resource does not exist: IPPool(main)"
        ),
        "{text}"
    );
    assert_eq!(
        b.ok(&["delete", "-s", "pool", "main"]),
        "Successfully deleted 1 'IPPool' resource(s)\n"
    );
    assert!(
        b.fails(&["delete", "pool"])
            .starts_with("resource name must be specified")
    );
}

#[test]
fn a_stale_version_is_not_written() {
    let b = Bench::new();
    b.apply(POOL);
    let read = b.ok(&["get", "pool", "main", "-o", "yaml"]);
    b.ok(&[
        "patch",
        "pool",
        "main",
        "-p",
        r#"{"spec":{"natOutgoing":false}}"#,
    ]);
    let before = b.dump();
    let text = b.fails_with(&read, &["replace", "-f", "-"]);
    assert!(
        text.starts_with(
            "failed to replace 'IPPool' resource: [update conflict: IPPool(main); it was changed"
        ),
        "{text}"
    );
    assert!(
        b.fails_with(&read, &["apply", "-f", "-"])
            .contains("update conflict: IPPool(main)")
    );
    assert_eq!(b.dump(), before);
}

#[test]
fn directories_and_emptiness() {
    let b = Bench::new();
    std::fs::create_dir_all(b.path("d/sub")).expect("directories");
    b.file("d/pool.yaml", POOL);
    b.file("d/notes.txt", "not: yaml: at all");
    b.file(
        "d/sub/tier.json",
        r#"{"apiVersion":"projectcalico.org/v3","kind":"Tier","metadata":{"name":"t"}}"#,
    );
    let d = b.path("d").display().to_string();
    assert_eq!(
        b.ok(&["validate", "-f", &d]),
        "Successfully validated 1 'IPPool' resource(s)\n"
    );
    assert_eq!(
        b.ok(&["apply", "-R", "-f", &d]),
        "Successfully applied 2 resource(s)\n"
    );
    assert_eq!(
        b.fails_with("# nothing\n---\n", &["apply", "-f", "-"]),
        "No resources specified\n"
    );
    assert_eq!(
        b.ok_with("", &["apply", "--skip-empty", "-f", "-"]),
        "No resources specified\n"
    );
    let text = b.fails(&["apply", "-f", "/does/not/exist"]);
    assert!(
        text.starts_with("failed to execute command: read /does/not/exist: No such file"),
        "{text}"
    );
}

#[test]
fn the_good_are_applied_and_the_rest_reported() {
    let b = Bench::new();
    let text = format!(
        "{POOL}---
apiVersion: projectcalico.org/v3
kind: IPPool
metadata: {{name: second}}
spec: {{cidr: 10.65.7.0/24}}
---
apiVersion: projectcalico.org/v3
kind: IPPool
metadata: {{name: third}}
spec: {{cidr: 10.66.0.0/24, blocksize: 26}}
---
apiVersion: projectcalico.org/v3
kind: IPPool
metadata: {{name: fourth}}
spec: {{cidr: 10.67.0.0/24}}
"
    );
    let file = b.file("pools.yaml", &text);
    let r = b.run(&["apply", "-f", &file]);
    assert_eq!(
        (r.ok, r.out.as_str()),
        (false, "Partial success: applied 2 out of 4 resources\n")
    );
    assert_eq!(
        r.err,
        format!(
            "failed to apply 2 resource(s): [{file}:14:1: field in document is not recognized or is in the wrong \
             location: spec.blocksize\n IPPool(second): error with field IPPool.Spec.CIDR = '10.65.7.0/24' \
             (IPPool(second) CIDR overlaps with IPPool(main) CIDR 10.65.0.0/16)]\n"
        )
    );
    assert!(b.ok(&["get", "pools"]).contains("fourth"));
}

#[test]
fn patches() {
    let b = Bench::new();
    b.apply(POOL);
    let patch = |t: &str, p: &str| b.run(&["patch", "pool", "main", "-t", t, "-p", p]);
    let done = "Successfully patched 1 'IPPool' resource\n";
    assert_eq!(
        patch("strategic", r#"{"spec":{"natOutgoing":false}}"#).out,
        done
    );
    assert_eq!(
        patch(
            "merge",
            r#"{"metadata":{"labels":{"a":"b"}},"spec":{"ipipMode":"Always"}}"#
        )
        .out,
        done
    );
    assert_eq!(
        patch(
            "json",
            r#"[{"op":"replace","path":"/spec/ipipMode","value":"CrossSubnet"}]"#
        )
        .out,
        done
    );
    let yaml = b.ok(&["get", "pool", "main", "-o", "yaml"]);
    assert!(
        yaml.contains("ipipMode: CrossSubnet")
            && yaml.contains("    a: b")
            && !yaml.contains("natOutgoing: true"),
        "{yaml}"
    );
    let before = b.dump();
    for (p, why) in [
        (
            r#"{"spec":{"natOutgoin":true}}"#,
            "wrong location: spec.natOutgoin",
        ),
        (
            r#"{"spec":{"cidr":"10.0.0.0/8"}}"#,
            "IPPool CIDR cannot be modified",
        ),
        (
            r#"{"metadata":{"name":"other"}}"#,
            "kind, name and namespace cannot be changed",
        ),
        (r#"{"spec":"#, "the patch is not JSON"),
        ("[]", "needs --type json"),
    ] {
        let r = patch("strategic", p);
        assert!(
            !r.ok
                && r.err.starts_with("failed to patch 'IPPool' resource: ")
                && r.err.contains(why),
            "{r:?}"
        );
    }
    assert_eq!(b.dump(), before);
}

#[test]
fn labels() {
    let b = Bench::new();
    b.apply(POOL);
    let label = |args: &[&str]| {
        let line: Vec<&str> = ["label", "ippool", "main"]
            .iter()
            .chain(args)
            .copied()
            .collect();
        let r = b.run(&line);
        if r.ok { r.out } else { r.err }
    };
    assert_eq!(
        label(&["rack=a"]),
        "Successfully set label rack on ippool main\n"
    );
    assert_eq!(
        label(&["rack=b"]),
        "key rack is already present. please use '--overwrite' to set a new value\n"
    );
    assert_eq!(
        label(&["rack=b", "--overwrite"]),
        "Successfully updated label rack on ippool main\n"
    );
    assert_eq!(
        label(&["rack", "--remove"]),
        "Successfully removed label rack from ippool main\n"
    );
    assert_eq!(
        label(&["rack", "--remove"]),
        "can not remove label, key rack does not exist\n"
    );
    assert!(label(&["rack"]).contains("is not key=value"));
}

#[test]
fn kubernetes_kinds() {
    let b = Bench::new();
    let pod = "apiVersion: v1
kind: Pod
metadata: {name: web, namespace: prod, annotations: {cni.projectcalico.org/podIPs: '10.65.0.1/32,fd00::1/128'}}
spec: {nodeName: n1, containers: [{name: c, image: x}]}
status: {phase: Pending, conditions: [{type: Ready, status: 'False', reason: NetworkNotReady, message: no route}]}
";
    let text = b.fails_with(pod, &["apply", "-f", "-"]);
    assert_eq!(
        text,
        "failed to apply 'Pod' resource: [Pod(prod/web): namespaces \"prod\" not found; create it first (kind: Namespace)]\n"
    );
    let namespace = "apiVersion: v1\nkind: Namespace\nmetadata: {name: prod}\n";
    let policy = "apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: deny, namespace: prod}
spec: {podSelector: {matchLabels: {app: web}}}
";
    b.apply(&format!("{pod}---\n{policy}---\n{namespace}"));
    assert_eq!(
        b.ok(&["get", "pods", "-A"]),
        "NAMESPACE   NAME   IP                  NODE   PHASE     REASON            \n\
         prod        web    10.65.0.1,fd00::1   n1     Pending   NetworkNotReady   \n\n"
    );
    assert!(
        b.ok(&["get", "networkpolicy.networking.k8s.io", "-n", "prod"])
            .contains("deny")
    );
    assert_eq!(
        b.ok(&["get", "knp", "-A"]),
        b.ok(&["get", "networkpolicies.networking.k8s.io", "-A"])
    );
    assert!(!b.ok(&["get", "networkpolicy", "-A"]).contains("deny"));
    let wep = b.ok(&["get", "wep", "-n", "prod"]);
    assert!(
        wep.contains("web") && wep.contains("n1") && wep.contains("10.65.0.1/32"),
        "{wep}"
    );
}

#[test]
fn a_pod_applied_again_is_not_written() {
    let b = Bench::new();
    b.apply("apiVersion: v1\nkind: Namespace\nmetadata: {name: prod}\n");
    let pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: web, namespace: prod}\n\
               spec: {containers: [{name: c}]}\n";
    b.apply(&format!("{pod}status: {{podIPs: [{{ip: 10.65.0.1}}]}}\n"));
    let before = b.dump();
    let out = b.ok_with(pod, &["apply", "-f", "-", "--confirm", "60s"]);
    assert!(!out.contains("manx confirm"), "{out}");
    assert_eq!(b.dump(), before);
}

#[test]
fn versions() {
    let b = Bench::new();
    let version = concat!("Client Version:    v", env!("CARGO_PKG_VERSION"), "\n");
    assert!(b.ok(&["version", "--client"]).starts_with(version));
    assert!(!b.store().exists(), "looking makes no store");
    b.apply(
        "apiVersion: projectcalico.org/v3\nkind: ClusterInformation\nmetadata: {name: default}\n\
         spec: {clusterGUID: 0123456789abcdef0123456789abcdef, clusterType: 'k8s,bgp', calicoVersion: v3.30.0}\n",
    );
    let text = b.ok(&["version"]);
    assert!(
        text.ends_with("Cluster Version:   v3.30.0\nCluster Type:      k8s,bgp\n"),
        "{text}"
    );
    b.ok(&[
        "patch",
        "clusterinfo",
        "default",
        "-p",
        r#"{"spec":{"variant":"Manx","calicoVersion":"v99.1.0"}}"#,
    ]);
    assert_eq!(
        b.fails(&["get", "nodes"]),
        format!(
            "version mismatch.\nClient Version:   v{}\nCluster Version:  v99.1.0\nUse --allow-version-mismatch to override\n",
            env!("CARGO_PKG_VERSION")
        )
    );
    b.ok(&["get", "nodes", "--allow-version-mismatch"]);
    b.ok(&["version"]);
}
