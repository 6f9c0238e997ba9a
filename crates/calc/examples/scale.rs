//! How long a snapshot and single changes take, and how much memory the calculation holds.
//!
//! `cargo run --release -p calc --example scale -- [endpoints] [policies]`
//!
//! A cluster of Kubernetes' shape: endpoints spread over nodes and namespaces, labels of a
//! deployment and a pod template hash, policies by namespace and app; 100 endpoints are local.

use calc::{Calc, Settings};
use model::*;
use net::{Cidr, Family, Protocol};
use std::io::Write as _;
use std::sync::Arc;
use std::time::Instant;

const LOCALS: u32 = 100;
const NODES: u32 = 500;
const NAMESPACES: u32 = 500;
const APPS: u32 = 10;

fn rss_kb() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|l| l.starts_with("VmRSS:"));
    line.and_then(|l| l.split_whitespace().nth(1)?.parse().ok())
        .unwrap_or(0)
}

fn key(i: u32) -> WorkloadKey {
    let node = if i < LOCALS {
        "me".to_owned()
    } else {
        format!("node-{}", i % NODES)
    };
    WorkloadKey {
        node: node.into(),
        orchestrator: "k8s".into(),
        workload: format!("ns-{}/app-{}-5d8f7c9b6-{i:05x}", i % NAMESPACES, i % APPS).into(),
        endpoint: "eth0".into(),
    }
}

fn endpoint(i: u32, app: &str) -> WorkloadEndpoint {
    let ns = i % NAMESPACES;
    let pairs = [
        ("app", app.to_owned()),
        (
            "pod-template-hash",
            format!("5d8f7c{}", i % (NAMESPACES * APPS)),
        ),
        ("projectcalico.org/namespace", format!("ns-{ns}")),
        ("projectcalico.org/orchestrator", "k8s".to_owned()),
        ("projectcalico.org/serviceaccount", "default".to_owned()),
    ];
    WorkloadEndpoint {
        interface: format!("cali{i:011x}").parse().ok(),
        mac: None,
        nets: vec![Cidr::host(Family::V4.addr(u128::from(0x0a00_0000 + i)))],
        nats: Vec::new(),
        labels: Labels::new(pairs),
        profiles: vec![
            format!("kns.ns-{ns}").into(),
            format!("ksa.ns-{ns}.default").into(),
        ],
        ports: vec![NamedPort {
            name: "http".into(),
            protocol: Protocol::TCP,
            port: 8080,
        }],
        allowed_sources: Vec::new(),
        qos: Qos::default(),
    }
}

fn app(i: u32) -> String {
    format!("app-{}", i % APPS)
}

/// As Kubernetes' policies come out of conversion: pods of an app in a namespace, from
/// another app, and from a whole other namespace.
fn policy(i: u32) -> Update {
    let ns = i % NAMESPACES;
    let select = |text: String| Selector::parse(&text).expect("a legal selector");
    let mut rule = Rule::any(Action::Allow);
    rule.protocol = Some(Protocol::TCP);
    let mut other = rule.clone();
    rule.source.selector = Some(select(format!(
        "projectcalico.org/orchestrator == 'k8s' && projectcalico.org/namespace == 'ns-{ns}' && app == 'app-{}'",
        (i + 1) % APPS
    )));
    other.source.selector = Some(select(format!(
        "projectcalico.org/orchestrator == 'k8s' && pcns.team == 'team-{}'",
        i % 20
    )));
    let key = PolicyKey {
        kind: PolicyKind::KubernetesNetworkPolicy,
        namespace: Some(format!("ns-{ns}").into()),
        name: format!("p{i}").into(),
    };
    let policy = Policy {
        tier: "default".into(),
        order: Some(1000.0),
        selector: select(format!(
            "projectcalico.org/orchestrator == 'k8s' && app == 'app-{}' && projectcalico.org/namespace == 'ns-{ns}'",
            i % APPS
        )),
        applies_ingress: true,
        applies_egress: false,
        ingress: vec![rule, other],
        egress: Vec::new(),
        untracked: false,
        pre_dnat: false,
        apply_on_forward: false,
        on_every_node: false,
        staged: StagedAction::Set,
    };
    Update::Policy(key, Some(policy))
}

fn namespace(i: u32, team: u32) -> Update {
    let labels = Labels::new([("pcns.team", format!("team-{team}"))]);
    let allow = vec![Rule::any(Action::Allow)];
    let profile = Profile {
        ingress: allow.clone(),
        egress: allow,
        labels,
    };
    Update::Profile(format!("kns.ns-{i}").into(), Some(profile))
}

fn say(what: &str) {
    writeln!(std::io::stdout(), "{what}").expect("standard output is open");
}

fn timed(calc: &mut Calc, what: &str, update: Update) {
    let start = Instant::now();
    calc.update(update);
    let delta = calc.flush();
    let members: usize = delta
        .sets
        .values()
        .map(|s| match s {
            desired::SetChange::Create { members, .. } => members.len(),
            desired::SetChange::Update { added, removed } => added.len() + removed.len(),
            desired::SetChange::Remove => 0,
        })
        .sum();
    say(&format!(
        "{what}: {:?} ({} sets, {members} members, {} policies, {} workloads)",
        start.elapsed(),
        delta.sets.len(),
        delta.policies.len(),
        delta.workloads.len()
    ));
}

fn main() {
    let mut args = std::env::args().skip(1).filter_map(|a| a.parse().ok());
    let endpoints = args.next().unwrap_or(50_000);
    let policies = args.next().unwrap_or(1_000);
    let node: Arc<str> = "me".into();
    let mut calc = Calc::new(Settings { node });

    let (start, rss) = (Instant::now(), rss_kb());
    for i in 0..endpoints {
        calc.update(Update::Workload(key(i), Some(endpoint(i, &app(i)))));
    }
    say(&format!(
        "{endpoints} endpoints: {:?}, {} kB",
        start.elapsed(),
        rss_kb() - rss
    ));

    let (start, rss) = (Instant::now(), rss_kb());
    for i in 0..NAMESPACES {
        calc.update(namespace(i, i % 20));
    }
    for i in 0..policies {
        calc.update(policy(i));
    }
    say(&format!(
        "{policies} policies: {:?}, {} kB",
        start.elapsed(),
        rss_kb() - rss
    ));

    let (start, rss) = (Instant::now(), rss_kb());
    let delta = calc.flush();
    say(&format!(
        "first flush: {:?}, {} kB with the delta ({} sets, {} policies, {} workloads)",
        start.elapsed(),
        rss_kb() - rss,
        delta.sets.len(),
        delta.policies.len(),
        delta.workloads.len()
    ));
    drop(delta);

    let far = LOCALS + 7;
    timed(
        &mut calc,
        "label of a remote pod",
        Update::Workload(key(far), Some(endpoint(far, "app-3"))),
    );
    timed(
        &mut calc,
        "a new remote pod",
        Update::Workload(key(endpoints + 3), Some(endpoint(endpoints + 3, "app-3"))),
    );
    timed(
        &mut calc,
        "label of a local pod",
        Update::Workload(key(7), Some(endpoint(7, "app-3"))),
    );
    timed(
        &mut calc,
        "a new local pod",
        Update::Workload(
            WorkloadKey {
                node: "me".into(),
                ..key(endpoints + 9)
            },
            Some(endpoint(endpoints + 9, "app-3")),
        ),
    );
    timed(&mut calc, "a new policy", policy(policies + 3));
    timed(&mut calc, "label of a namespace", namespace(7, 3));
    timed(
        &mut calc,
        "a tier",
        Update::Tier(
            "default".into(),
            Some(Tier {
                order: Some(5.0),
                default_action: TierAction::Deny,
            }),
        ),
    );
    let mut all = policy(policies + 4);
    if let Update::Policy(_, Some(p)) = &mut all {
        p.selector = Selector::all();
        p.ingress[0].source.selector = Some(Selector::all());
    }
    timed(&mut calc, "a policy for all, from all", all);
    timed(
        &mut calc,
        "label of a remote pod",
        Update::Workload(key(far), Some(endpoint(far, "app-4"))),
    );
    let start = Instant::now();
    for i in LOCALS..LOCALS + 10_000 {
        calc.update(Update::Workload(key(i), Some(endpoint(i, &app(i + 1)))));
    }
    let half = start.elapsed();
    calc.flush();
    say(&format!(
        "labels of 10,000 remote pods: {half:?} and {:?} to flush",
        start.elapsed() - half
    ));
}
