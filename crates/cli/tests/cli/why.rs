//! `manx why` and `manx policy diff`, word for word.

use crate::{Bench, Line};
use clap::Parser;
use serde_json::Value;

const CLUSTER: &str = "\
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {team: web}}
---
apiVersion: v1
kind: Namespace
metadata: {name: other, labels: {team: ops}}
---
apiVersion: v1
kind: Pod
metadata: {namespace: shop, name: front, labels: {app: front}}
spec: {nodeName: node-1, containers: [{name: c}]}
status: {podIPs: [{ip: 10.65.1.1}]}
---
apiVersion: v1
kind: Pod
metadata: {namespace: shop, name: db, labels: {app: db}}
spec: {nodeName: node-2, containers: [{name: c, ports: [{name: sql, containerPort: 5432}]}]}
status: {podIPs: [{ip: 10.65.2.1}]}
---
apiVersion: v1
kind: Pod
metadata: {namespace: other, name: job-1, labels: {app: job, hash: a}}
spec: {nodeName: node-1, containers: [{name: c}]}
status: {podIPs: [{ip: 10.65.1.2}]}
---
apiVersion: v1
kind: Pod
metadata: {namespace: other, name: job-2, labels: {app: job, hash: b}}
spec: {nodeName: node-2, containers: [{name: c}]}
status: {podIPs: [{ip: 10.65.2.2}]}
---
apiVersion: projectcalico.org/v3
kind: IPPool
metadata: {name: main}
spec: {cidr: 10.65.0.0/16, natOutgoing: true}
---
apiVersion: v1
kind: Service
metadata: {namespace: shop, name: db}
spec: {clusterIP: 10.96.0.5, ports: [{name: sql, port: 80, targetPort: 5432}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {namespace: shop, name: db-1, labels: {kubernetes.io/service-name: db}}
addressType: IPv4
endpoints: [{addresses: [10.65.2.1], nodeName: node-2, conditions: {ready: true}}]
ports: [{name: sql, port: 5432, protocol: TCP}]
";

const NODES: &str = "\
apiVersion: projectcalico.org/v3
kind: Node
metadata: {name: node-1}
spec: {bgp: {ipv4Address: 192.168.0.1/24}}
---
apiVersion: projectcalico.org/v3
kind: Node
metadata: {name: node-2}
spec: {bgp: {ipv4Address: 192.168.0.2/24}}
";

const POLICY: &str = "\
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {namespace: shop, name: db}
spec:
  podSelector: {matchLabels: {app: db}}
  policyTypes: [Ingress]
  ingress:
  - from: [{podSelector: {matchLabels: {app: front}}}]
    ports: [{port: 5432}]
  - from: [{ipBlock: {cidr: 203.0.113.0/24}}]
";

/// Exit status, output, messages.
fn run(bench: &Bench, args: &[&str]) -> (u8, String, String) {
    let config = bench.path("calicoctl.cfg").display().to_string();
    let line = ["manx", "--config", &config];
    let line = Line::try_parse_from(line.iter().chain(args)).expect("arguments");
    let (mut input, mut out, mut err) = (&[][..], Vec::new(), Vec::new());
    let mut console = cli::Console {
        input: &mut input,
        out: &mut out,
        err: &mut err,
    };
    let status = cli::status(line.command, &line.global, &mut console);
    let text = |b| String::from_utf8(b).expect("UTF-8");
    (status, text(out), text(err))
}

struct Files {
    bench: Bench,
    cluster: String,
    policy: String,
}

fn files() -> Files {
    let bench = Bench::new();
    let cluster = bench.file("cluster.yaml", &format!("{CLUSTER}---\n{NODES}"));
    let policy = bench.file("policy.yaml", POLICY);
    Files {
        bench,
        cluster,
        policy,
    }
}

impl Files {
    /// Of the cluster's files and the policy's.
    fn why(&self, args: &[&str]) -> (u8, String, String) {
        let files = ["-f", &self.cluster, "-f", &self.policy];
        let all: Vec<&str> = ["why"].iter().chain(args).chain(&files).copied().collect();
        run(&self.bench, &all)
    }
}

#[test]
fn allowed_by_a_rule() {
    let (status, out, err) = files().why(&["shop/front", "shop/db", "5432"]);
    assert_eq!((status, err.as_str()), (0, ""));
    assert_eq!(
        out,
        "\
allow: pod shop/front (10.65.1.1) -> 10.65.2.1, TCP 5432
  on node-1: egress of pod shop/front: no policy decides; profile kns.shop rule 0 allows it
  on node-2: ingress to pod shop/db: rule 0 of KubernetesNetworkPolicy(shop/db) in tier default allows it
    to change this: rule 0 of KubernetesNetworkPolicy(shop/db) would have to go, or a deny come before it
"
    );
}

#[test]
fn denied_at_the_end_of_a_tier_and_what_to_do() {
    let (status, out, err) = files().why(&["shop/front", "shop/db", "5433"]);
    assert_eq!((status, err.as_str()), (0, ""));
    assert_eq!(
        out,
        "\
deny: pod shop/front (10.65.1.1) -> 10.65.2.1, TCP 5433
  on node-1: egress of pod shop/front: no policy decides; profile kns.shop rule 0 allows it
  on node-2: ingress to pod shop/db: no policy of tier default allows it: KubernetesNetworkPolicy(shop/db)
    to change this: rule 0 of KubernetesNetworkPolicy(shop/db) would allow it if destination.ports (5432) had 5433
    or: rule 1 of KubernetesNetworkPolicy(shop/db) would allow it if source.nets (203.0.113.0/24) had 10.65.1.1
    or: in KubernetesNetworkPolicy(shop/db): ingress rule Allow TCP port 5433 from 10.65.1.1
"
    );
}

#[test]
fn with_every_rule() {
    let (_, out, _) = files().why(&["shop/front", "shop/db", "5433", "--all"]);
    assert!(
        out.contains(
            "\
    tier default (denies at its end)
      KubernetesNetworkPolicy(shop/db)
        rule 0 (Allow): no match: destination.ports is 5432; here 5433
        rule 1 (Allow): no match: source.nets is 203.0.113.0/24; here 10.65.1.1
"
        ),
        "{out}"
    );
}

#[test]
fn all_kinds_of_ends() {
    let f = files();
    for (args, verdict) in [
        (&["shop/front", "shop/db", "sql"][..], "allow"),
        (&["shop/front", "service/shop/db"], "allow"),
        (&["shop/front", "service/shop/db", "80"], "allow"),
        (&["shop/front", "10.96.0.5", "80/TCP"], "allow"),
        (&["other/job-1", "service/shop/db"], "deny"),
        (&["203.0.113.9", "shop/db", "80"], "allow"),
        (&["ip/203.0.114.9", "shop/db", "80"], "deny"),
        (&["node/node-1", "shop/db", "80"], "deny"),
        (&["node/node-2", "shop/db", "80"], "allow"),
        (&["shop/front", "shop/db", "icmp"], "deny"),
        (&["shop/front", "other/job-1", "icmp"], "allow"),
        (
            &["shop/front", "shop/db", "5432", "--protocol", "udp"],
            "deny",
        ),
        (&["shop/front", "other/job-1", "--protocol", "47"], "allow"),
        (&["shop/front", "node/node-1", "80"], "deny"),
        (&["shop/front", "ip/8.8.8.8", "53/UDP"], "allow"),
    ] {
        let (status, out, err) = f.why(args);
        assert_eq!((status, err.as_str()), (0, ""), "{args:?}");
        assert!(out.starts_with(&format!("{verdict}: ")), "{args:?}: {out}");
    }
}

#[test]
fn checks_and_questions_without_answer() {
    let f = files();
    assert_eq!(
        f.why(&["shop/front", "shop/db", "5432", "--check", "allow"])
            .0,
        0
    );
    let (status, _, err) = f.why(&["shop/front", "shop/db", "5432", "--check", "deny"]);
    assert_eq!((status, err.as_str()), (1, "expected deny, got allow\n"));
    for (args, message) in [
        (
            &["shop/back", "shop/db", "80"][..],
            "there is no pod shop/back with an address: there are shop/db, shop/front\n",
        ),
        (
            &["shop/front", "node/node-9", "80"],
            "there is no node node-9 with an address: there are node-1, node-2\n",
        ),
        (
            &["shop/front", "service/shop/x", "80"],
            "there is no service shop/x: there are shop/db\n",
        ),
        (
            &["service/shop/db", "shop/db", "80"],
            "a service does not send: name one of its pods\n",
        ),
        (
            &["shop/front", "shop/db"],
            "which port of shop/db? Add one, such as 80, 53/UDP or a port's name; or icmp\n",
        ),
        (
            &["shop/front", "shop/db", "web"],
            "\"web\" is no port: 80, 80/TCP, 53/UDP, 5000/SCTP or ICMP; shop/db names sql\n",
        ),
        (
            &["shop/front", "shop/db", "80", "--family", "6"],
            "shop/front and shop/db have no addresses of IPv6 in common\n",
        ),
        (
            &["front", "shop/db", "80"],
            "'front' is no end: write namespace/pod, node/NAME, service/NAMESPACE/NAME or ip/ADDRESS\n",
        ),
    ] {
        assert_eq!(
            f.why(args),
            (2, String::new(), message.to_owned()),
            "{args:?}"
        );
    }
}

#[test]
fn json_and_yaml() {
    let f = files();
    let (_, out, _) = f.why(&["other/job-1", "service/shop/db", "-o", "json"]);
    let v: Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!(v["verdict"], "deny");
    assert_eq!(v["to"], "service/shop/db");
    let path = &v["paths"][0];
    assert_eq!(
        (&path["address"], &path["port"]),
        (&"10.65.2.1".into(), &5432.into())
    );
    let last = &path["stages"][1];
    assert_eq!(last["effect"], "deny");
    assert_eq!(last["policies"][0], "KubernetesNetworkPolicy(shop/db)");
    assert!(last.get("consulted").is_none());
    let (_, out, _) = f.why(&["other/job-1", "service/shop/db", "-o", "json", "--all"]);
    let v: Value = serde_json::from_str(&out).expect("JSON");
    let rule = &v["paths"][0]["stages"][2]["consulted"][0]["policies"][0]["rules"][1];
    assert_eq!(rule["mismatch"]["field"], "source.nets");
    let (_, out, _) = f.why(&["shop/front", "shop/db", "5432", "-o", "yaml"]);
    assert!(out.contains("\nverdict: allow\n"), "{out}");
}

#[test]
fn of_the_datastore() {
    let f = files();
    f.bench.apply(&format!("{CLUSTER}---\n{NODES}"));
    let before = f.bench.dump();
    assert!(
        run(&f.bench, &["why", "other/job-1", "shop/db", "80"])
            .1
            .starts_with("allow: ")
    );
    let (status, out, _) = run(&f.bench, &["policy", "diff", "-f", &f.policy]);
    assert_eq!(status, 1, "{out}");
    assert_eq!(f.bench.dump(), before);
    f.bench.apply(POLICY);
    assert!(
        run(&f.bench, &["policy", "why", "other/job-1", "shop/db", "80"])
            .1
            .starts_with("deny: ")
    );
    let (status, out, err) = run(&f.bench, &["policy", "diff", "-f", &f.policy]);
    assert_eq!(
        (status, out.as_str(), err.as_str()),
        (0, "no connection changes\n", "")
    );
}

#[test]
fn what_a_policy_closes() {
    let f = files();
    let (status, out, err) = run(
        &f.bench,
        &["policy", "diff", "--cluster", &f.cluster, "-f", &f.policy],
    );
    assert_eq!((status, err.as_str()), (1, ""));
    assert_eq!(
        out,
        "\
closes:
  to shop/db
    TCP 1-5431, 5433-65535; UDP; ICMP
      from shop/front
      because no policy of tier default allows it: KubernetesNetworkPolicy(shop/db)
    everything
      from other/* app=job (2 pods)
      from outside (IPv4 elsewhere)
      from 2 nodes (node-1, ...) (not of the same node)
      because no policy of tier default allows it: KubernetesNetworkPolicy(shop/db)
"
    );
}

#[test]
fn what_its_deletion_opens() {
    let f = files();
    let cluster = ["--cluster", &f.cluster, "--cluster", &f.policy];
    let all: Vec<&str> = ["policy", "diff"].iter().chain(&cluster).copied().collect();
    let asked = |more: &[&str]| {
        let line: Vec<&str> = all.iter().chain(more).copied().collect();
        run(&f.bench, &line)
    };
    let (status, out, _) = asked(&["-f", &f.policy, "--delete", "-o", "json"]);
    assert_eq!(status, 1);
    let v: Value = serde_json::from_str(&out).expect("JSON");
    let changes = v["changes"].as_array().expect("list");
    assert!(
        changes
            .iter()
            .all(|c| c["change"] == "opens" && c["to"]["name"] == "shop/db"),
        "{out}"
    );
    let everything = changes
        .iter()
        .find(|c| c["what"] == "everything")
        .expect("one");
    assert_eq!(
        everything["from"][0]["members"],
        serde_json::json!(["other/job-1", "other/job-2"])
    );
    // The same policy again changes nothing, and what is not there cannot be deleted.
    assert_eq!(asked(&["-f", &f.policy]).0, 0);
    let other = f
        .bench
        .file("other.yaml", &POLICY.replace("name: db", "name: gone"));
    let (status, out, err) = asked(&["-f", &other, "--delete"]);
    assert_eq!((status, out.as_str()), (2, ""));
    assert!(
        err.contains("shop/gone") && err.contains("does not exist"),
        "{err}"
    );
}

#[test]
fn a_change_that_is_no_policy() {
    let f = files();
    let labels = f.bench.file(
        "namespace.yaml",
        "apiVersion: v1\nkind: Namespace\nmetadata: {name: other, labels: {team: web}}\n",
    );
    let policy = f.bench.file(
        "web.yaml",
        "\
apiVersion: projectcalico.org/v3
kind: NetworkPolicy
metadata: {namespace: shop, name: web}
spec:
  selector: app == 'db'
  ingress:
  - {action: Allow, protocol: TCP, source: {namespaceSelector: team == 'web'}, destination: {ports: [sql]}}
",
    );
    let line = [
        "policy",
        "diff",
        "--cluster",
        &f.cluster,
        "--cluster",
        &policy,
        "-f",
        &labels,
    ];
    let (status, out, _) = run(&f.bench, &line);
    assert_eq!(status, 1);
    assert_eq!(
        out,
        "\
opens:
  to shop/db
    TCP 5432
      from other/* app=job (2 pods)
      because rule 0 of NetworkPolicy(shop/web) in tier default allows it
"
    );
}

#[test]
fn what_nobody_decides_is_said_too() {
    let f = files();
    let (status, out, _) = f.why(&["ip/203.0.113.7", "node/node-1", "80"]);
    assert_eq!(status, 0);
    assert_eq!(
        out,
        "allow: outside (203.0.113.7) -> 192.168.0.1, TCP 80\n  \
         no policy is asked: no pod and no host endpoint on the way\n"
    );
    // A port that the service has not.
    let (_, out, _) = f.why(&["shop/front", "service/shop/db", "81"]);
    let note = "note: 10.96.0.5 is of service shop/db, which has TCP 80 only: nothing is translated, and nothing answers\n";
    assert!(out.contains(note), "{out}");
    let (_, out, _) = f.why(&["shop/front", "service/shop/db", "80"]);
    assert!(!out.contains("nothing answers"), "{out}");
}

#[test]
fn a_pod_that_is_applied_again_keeps_its_address() {
    let f = files();
    let again = f.bench.file(
        "pod.yaml",
        "apiVersion: v1\nkind: Pod\nmetadata: {namespace: shop, name: db, labels: {app: db}}\n\
         spec: {containers: [{name: c, ports: [{name: sql, containerPort: 5432}]}]}\n",
    );
    let line = ["policy", "diff", "--cluster", &f.cluster, "-f", &again];
    let (status, out, err) = run(&f.bench, &line);
    assert_eq!(
        (status, out.as_str(), err.as_str()),
        (0, "no connection changes\n", "")
    );
}

#[test]
fn a_thousand_pods_are_a_few_lines() {
    let f = files();
    let mut many = String::new();
    for n in 0..1000 {
        let app = ["web", "api", "cache", "queue"][n % 4];
        many.push_str(&format!(
            "---\napiVersion: v1\nkind: Pod\nmetadata: {{namespace: shop, name: p{n}, labels: {{app: {app}, hash: h{n}}}}}\n\
             spec: {{nodeName: node-1, containers: [{{name: c}}]}}\nstatus: {{podIPs: [{{ip: 10.65.{}.{}}}]}}\n",
            100 + n / 250,
            n % 250 + 1
        ));
    }
    let many = f.bench.file("many.yaml", &many);
    let line = [
        "policy",
        "diff",
        "--cluster",
        &f.cluster,
        "--cluster",
        &many,
        "-f",
        &f.policy,
    ];
    let (status, out, _) = run(&f.bench, &line);
    assert_eq!(status, 1);
    assert!(out.contains("from shop/* (1000 pods)\n"), "{out}");
    assert!(out.lines().count() < 12, "{out}");
}

#[test]
fn staged_policies() {
    let f = files();
    let staged = f.bench.file(
        "staged.yaml",
        "\
apiVersion: projectcalico.org/v3
kind: StagedNetworkPolicy
metadata: {namespace: shop, name: lock}
spec: {selector: app == 'db', ingress: [], types: [Ingress]}
",
    );
    let why = [
        "why",
        "shop/front",
        "shop/db",
        "80",
        "-f",
        &f.cluster,
        "-f",
        &staged,
    ];
    let (_, out, _) = run(&f.bench, &why);
    assert!(out.starts_with("allow: "), "{out}");
    assert!(
        out.contains("  with staged policies enforced: deny\n    StagedNetworkPolicy(shop/lock) alone makes it deny\n"),
        "{out}"
    );
    let cluster = ["policy", "diff", "--cluster", &f.cluster];
    let diff = |more: &[&str]| run(&f.bench, &[&cluster, more].concat());
    let (status, out, _) = diff(&["-f", &staged]);
    assert_eq!(status, 0);
    assert_eq!(
        out,
        "no connection changes\nnote: staged policies are not enforced: --staged shows what they would do\n"
    );
    let (status, out, _) = diff(&["-f", &staged, "--staged"]);
    assert_eq!(status, 1);
    assert!(
        out.starts_with("closes:\n  to shop/db\n    everything\n"),
        "{out}"
    );
    assert_eq!(diff(&[]).0, 2);
}

#[test]
fn host_endpoints_tell_one_node_from_two() {
    let f = files();
    let hosts = f.bench.file(
        "hosts.yaml",
        "\
apiVersion: projectcalico.org/v3
kind: HostEndpoint
metadata: {name: h1, labels: {host: all}}
spec: {node: node-1, interfaceName: '*', profiles: [projectcalico-default-allow]}
---
apiVersion: projectcalico.org/v3
kind: HostEndpoint
metadata: {name: h2, labels: {host: all}}
spec: {node: node-2, interfaceName: '*', profiles: [projectcalico-default-allow]}
",
    );
    let policy = f.bench.file(
        "forward.yaml",
        "\
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: no-forward}
spec: {selector: has(host), applyOnForward: true, types: [Egress], egress: [{action: Deny}]}
",
    );
    let line = [
        "policy",
        "diff",
        "--cluster",
        &f.cluster,
        "--cluster",
        &hosts,
        "-f",
        &policy,
    ];
    let (status, out, _) = run(&f.bench, &line);
    assert_eq!(status, 1);
    // Two pods of one node never leave it; those of two nodes do.
    let pods = "\
  to shop/front
    TCP 1-178, 180-2378, 2381-5472, 5474-6442, 6444-6665, 6668-65535; UDP 1-52, 54-66, 68-65535; ICMP
      from 2 nodes (node-1, ...) (not of the same node)
      because rule 0 of GlobalNetworkPolicy(no-forward) in tier default denies it
    everything
      from shop/db
      because rule 0 of GlobalNetworkPolicy(no-forward) in tier default denies it
    everything (between nodes)
      from other/* (2 pods)
";
    assert!(out.contains(pods), "{out}");
    assert!(!out.contains("on one node"), "{out}");
}
