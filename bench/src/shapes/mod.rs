//! Clusters of extreme shapes, as updates for the policy calculation.
//!
//! Promises: the same shape is the same updates every time; what an update costs to make is not in
//! the time that its calculation takes, and no update outlives its use. Times are of the
//! processor, so that other work on the machine does not count.
//!
//! Never: touches a kernel or a store.

use calc::{Calc, Settings};
use desired::Delta;
use model::{
    Action, Labels, NetworkSet, NetworkSetKey, Policy, PolicyKey, PolicyKind, Profile, Qos, Rule,
    Selector, StagedAction, Update, WorkloadEndpoint, WorkloadKey,
};
use net::{Cidr, Family, PortRange, Protocol};
use rustix::time::{ClockId, clock_gettime};
use std::time::Duration;

/// The node that is calculated for.
const ME: &str = "me";
/// How many updates are made at a time.
const CHUNK: usize = 1024;

/// A cluster whose snapshot is calculated at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Snapshot {
    /// 250,000 remote and 200 local endpoints in 100 namespaces, and 10,000 policies, each on one
    /// of 30 marker labels with five rules from others.
    Markers,
    /// 10,000 endpoints, 200 of them local, and 10,000 network sets of 1 to 1000 prefixes, each with
    /// a policy on everything that allows from it.
    NetworkSets,
    /// 100,000 namespaces of one pod and one policy that isolates it; 100 local.
    Isolation,
}

impl Snapshot {
    /// Each of them.
    pub(crate) const ALL: [Self; 3] = [Self::Markers, Self::NetworkSets, Self::Isolation];

    /// In words.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Markers => "250,200 endpoints, 10,000 policies by 30 labels",
            Self::NetworkSets => "10,000 network sets, each with a policy on all",
            Self::Isolation => "100,000 namespaces, each isolated",
        }
    }

    /// Seconds until the first flush, and megabytes after it.
    pub(crate) const fn aims(self) -> (f64, f64) {
        match self {
            Self::Markers => (2.0, 250.0),
            Self::NetworkSets => (1.0, 300.0),
            Self::Isolation => (1.5, 250.0),
        }
    }

    /// Calculates it: the calculation as it stands then, what it said, and how long it took.
    pub(crate) fn run(self) -> (Calc, Delta, Duration) {
        let mut feed = Feed::new();
        match self {
            Self::Markers => markers(&mut feed),
            Self::NetworkSets => network_sets(&mut feed),
            Self::Isolation => isolation(&mut feed),
        }
        let began = Instant::now();
        let delta = feed.calc.flush();
        (feed.calc, delta, feed.took + began.elapsed())
    }
}

/// A moment of this thread on the processor.
struct Instant(Duration);

impl Instant {
    fn now() -> Self {
        let t = clock_gettime(ClockId::ThreadCPUTime);
        let (seconds, nanos) = (t.tv_sec.unsigned_abs(), t.tv_nsec.unsigned_abs());
        Self(Duration::from_secs(seconds) + Duration::from_nanos(nanos))
    }

    fn elapsed(&self) -> Duration {
        Self::now().0.saturating_sub(self.0)
    }
}

/// A calculation and the time that it took so far.
struct Feed {
    calc: Calc,
    took: Duration,
}

impl Feed {
    fn new() -> Self {
        Self {
            calc: Calc::new(Settings { node: ME.into() }),
            took: Duration::ZERO,
        }
    }

    fn all(&mut self, updates: impl Iterator<Item = Update>) {
        let mut updates = updates;
        loop {
            let chunk: Vec<Update> = updates.by_ref().take(CHUNK).collect();
            if chunk.is_empty() {
                return;
            }
            let began = Instant::now();
            for u in chunk {
                self.calc.update(u);
            }
            self.took += began.elapsed();
        }
    }
}

fn select(text: &str) -> Selector {
    Selector::parse(text).expect("a legal selector")
}

/// A pod; `i` is its address.
fn pod(i: u32, local: bool, ns: &str, own: &[(&str, String)]) -> Update {
    let key = WorkloadKey {
        node: if local {
            ME.into()
        } else {
            format!("node-{}", i % 1000).into()
        },
        orchestrator: "k8s".into(),
        workload: format!("{ns}/pod-{i:06}").into(),
        endpoint: "eth0".into(),
    };
    let fixed = [
        ("projectcalico.org/namespace", ns.to_owned()),
        ("projectcalico.org/orchestrator", "k8s".to_owned()),
        ("projectcalico.org/serviceaccount", "default".to_owned()),
    ];
    let labels = Labels::new(fixed.iter().chain(own).map(|(k, v)| (*k, v.as_str())));
    let endpoint = WorkloadEndpoint {
        interface: format!("cali{i:011x}").parse().ok(),
        mac: None,
        nets: vec![Cidr::host(Family::V4.addr(0x0a00_0000 + u128::from(i)))],
        nats: Vec::new(),
        labels,
        profiles: vec![
            format!("kns.{ns}").into(),
            format!("ksa.{ns}.default").into(),
        ],
        ports: Vec::new(),
        allowed_sources: Vec::new(),
        qos: Qos::default(),
    };
    Update::Workload(key, Some(endpoint))
}

fn namespace(ns: &str, labels: &[(&str, &str)]) -> Update {
    let mut own = vec![("pcns.kubernetes.io/metadata.name", ns)];
    own.extend_from_slice(labels);
    let allow = vec![Rule::any(Action::Allow)];
    let profile = Profile {
        ingress: allow.clone(),
        egress: allow,
        labels: Labels::new(own),
    };
    Update::Profile(format!("kns.{ns}").into(), Some(profile))
}

fn from(selector: &str, port: u16) -> Rule {
    let mut rule = Rule::any(Action::Allow);
    rule.protocol = Some(Protocol::TCP);
    rule.source.selector = Some(select(selector));
    rule.destination.ports = vec![PortRange::one(port)];
    rule
}

fn global(name: String, selector: &str, ingress: Vec<Rule>) -> Update {
    let key = PolicyKey {
        kind: PolicyKind::GlobalNetworkPolicy,
        namespace: None,
        name: name.into(),
    };
    Update::Policy(key, Some(policy(selector, ingress, None)))
}

fn policy(selector: &str, ingress: Vec<Rule>, egress: Option<Vec<Rule>>) -> Policy {
    Policy {
        tier: "default".into(),
        order: Some(1000.0),
        selector: select(selector),
        applies_ingress: true,
        applies_egress: egress.is_some(),
        ingress,
        egress: egress.unwrap_or_default(),
        untracked: false,
        pre_dnat: false,
        apply_on_forward: false,
        on_every_node: false,
        staged: StagedAction::Set,
    }
}

fn markers(feed: &mut Feed) {
    feed.all((0..100).map(|i| namespace(&format!("ns-{i}"), &[])));
    feed.all((0..250_200).map(|i| {
        let own = [
            (MARKERS[i as usize % MARKERS.len()], "true".to_owned()),
            ("app", format!("app-{}", i % 7)),
        ];
        pod(i, i < 200, &format!("ns-{}", i % 100), &own)
    }));
    feed.all((0..10_000u16).map(|i| {
        let n = usize::from(i);
        let rules = (0..5u16).map(|r| {
            let peer = MARKERS[(n * 7 + usize::from(r) * 11 + n / 30) % MARKERS.len()];
            from(&format!("has({peer})"), 1000 + i % 100 + r)
        });
        let on = format!("has({})", MARKERS[n % MARKERS.len()]);
        global(format!("policy-{i}"), &on, rules.collect())
    }));
}

const MARKERS: [&str; 30] = [
    "m-00", "m-01", "m-02", "m-03", "m-04", "m-05", "m-06", "m-07", "m-08", "m-09", "m-10", "m-11",
    "m-12", "m-13", "m-14", "m-15", "m-16", "m-17", "m-18", "m-19", "m-20", "m-21", "m-22", "m-23",
    "m-24", "m-25", "m-26", "m-27", "m-28", "m-29",
];

/// How many prefixes network sets have, in turns.
const SIZES: [u32; 10] = [1, 1, 1, 1, 2, 3, 4, 5, 100, 1000];

fn network_sets(feed: &mut Feed) {
    feed.all((0..100).map(|i| namespace(&format!("ns-{i}"), &[])));
    feed.all((0..10_000).map(|i| {
        let own = [("app", format!("app-{}", i % 50))];
        pod(i, i < 200, &format!("ns-{}", i % 100), &own)
    }));
    let mut next = 0x2000_0000u128;
    feed.all((0..10_000u32).map(|i| {
        let nets = (0..SIZES[i as usize % SIZES.len()]).map(|_| {
            next += 2;
            Cidr::host(Family::V4.addr(next))
        });
        let set = NetworkSet {
            nets: nets.collect(),
            labels: Labels::new([("set", format!("set-{i}"))]),
            profiles: Vec::new(),
        };
        let key = NetworkSetKey {
            namespace: None,
            name: format!("set-{i}").into(),
        };
        Update::NetworkSet(key, Some(set))
    }));
    feed.all((0..10_000u32).map(|i| {
        let rule = from(&format!("set == 'set-{i}'"), 443);
        global(format!("policy-{i}"), "all()", vec![rule])
    }));
}

fn isolation(feed: &mut Feed) {
    const NAMESPACES: u32 = 100_000;
    feed.all((0..NAMESPACES).map(|i| namespace(&format!("ns-{i}"), &[])));
    feed.all(std::iter::once(namespace("kube-system", &[])));
    feed.all((0..NAMESPACES).map(|i| {
        let own = [("app", "web".to_owned())];
        pod(i, i < 100, &format!("ns-{i}"), &own)
    }));
    feed.all((0..2).map(|i| {
        let own = [("k8s-app", "kube-dns".to_owned())];
        pod(NAMESPACES + i, false, "kube-system", &own)
    }));
    feed.all((0..NAMESPACES).map(|i| {
        let within = format!(
            "projectcalico.org/namespace == 'ns-{i}' && projectcalico.org/orchestrator == 'k8s'"
        );
        let mut inside = Rule::any(Action::Allow);
        inside.source.selector = Some(select(&within));
        let mut out = Rule::any(Action::Allow);
        out.destination.selector = Some(select(&within));
        let dns = |protocol| {
            let mut rule = Rule::any(Action::Allow);
            rule.protocol = Some(protocol);
            rule.destination.selector = Some(select(
                "pcns.kubernetes.io/metadata.name == 'kube-system' && \
                 projectcalico.org/orchestrator == 'k8s' && k8s-app == 'kube-dns'",
            ));
            rule.destination.ports = vec![PortRange::one(53)];
            rule
        };
        let egress = vec![out, dns(Protocol::UDP), dns(Protocol::TCP)];
        let key = PolicyKey {
            kind: PolicyKind::KubernetesNetworkPolicy,
            namespace: Some(format!("ns-{i}").into()),
            name: "isolate".into(),
        };
        let on = format!(
            "projectcalico.org/orchestrator == 'k8s' && projectcalico.org/namespace == 'ns-{i}'"
        );
        Update::Policy(key, Some(policy(&on, vec![inside], Some(egress))))
    }));
}

/// How long single changes take, with `count` selectors of common kinds active and 50,000
/// endpoints: the label of a remote endpoint, each time another one's.
pub(crate) fn label_changes(rounds: u32) -> Vec<Duration> {
    const SELECTORS: u32 = 10_000;
    let mut feed = Feed::new();
    let app = |i: u32, app: u32| {
        let own = [
            ("app", format!("app-{app}")),
            ("tier", format!("tier-{}", i % 3)),
        ];
        pod(i, i < 100, &format!("ns-{}", i % 500), &own)
    };
    feed.all((0..500).map(|i| {
        let team = format!("team-{}", i % 20);
        namespace(&format!("ns-{i}"), &[("pcns.team", &team)])
    }));
    feed.all((0..50_000).map(|i| app(i, i % 5000)));
    feed.all((0..SELECTORS).map(|i| {
        let peer = match i % 5 {
            0 => format!("app == 'app-{i}'"),
            1 => format!("app in {{'app-{i}', 'app-{}'}}", i / 2),
            2 => format!(
                "projectcalico.org/namespace == 'ns-{}' && app == 'app-{i}'",
                i % 500
            ),
            3 => format!("has(marker-{i})"),
            _ => format!(
                "pcns.team == 'team-{}' && app != 'app-{i}' && role == 'r'",
                i % 20
            ),
        };
        let mut rule = from(&peer, 443);
        rule.protocol = None;
        global(format!("policy-{i}"), "all()", vec![rule])
    }));
    feed.calc.flush();
    let one = |r: u32| {
        let i = 100 + r * 37 % 49_000;
        let update = app(i, i % 5000 + 1 + r);
        let began = Instant::now();
        feed.calc.update(update);
        let delta = feed.calc.flush();
        let took = began.elapsed();
        drop(delta);
        took
    };
    (0..rounds).map(one).collect()
}

/// How long it takes when a label of a namespace changes that 100,000 endpoints inherit and 100
/// selectors use; half of the rounds take all of them out of sets, half put them in.
pub(crate) fn namespace_changes(rounds: u32) -> Vec<Duration> {
    let mut feed = Feed::new();
    feed.all((0..100_001).map(|i| {
        let own = [("app", format!("app-{}", i % 100))];
        pod(i, i == 0, "big", &own)
    }));
    feed.all(std::iter::once(namespace("big", &[("pcns.stage", "test")])));
    feed.all((0..100).map(|i| {
        let peer = format!("pcns.stage == 'live' && app == 'app-{i}'");
        global(format!("policy-{i}"), "all()", vec![from(&peer, 443)])
    }));
    feed.calc.flush();
    let one = |r: u32| {
        let stage = if r.is_multiple_of(2) { "live" } else { "test" };
        let update = namespace("big", &[("pcns.stage", stage)]);
        let began = Instant::now();
        feed.calc.update(update);
        let delta = feed.calc.flush();
        let took = began.elapsed();
        assert!(delta.sets.len() == 100, "every set changes");
        took
    };
    (0..rounds).map(one).collect()
}

/// How long a change of one policy takes that applies to all of 200 local endpoints, among 10,000
/// such policies.
pub(crate) fn policy_changes(rounds: u32) -> Vec<Duration> {
    let mut feed = Feed::new();
    network_sets(&mut feed);
    feed.calc.flush();
    let one = |r: u32| {
        let rule = from("set == 'set-1'", 444);
        let update = global(format!("new-{r}"), "all()", vec![rule]);
        let began = Instant::now();
        feed.calc.update(update);
        let delta = feed.calc.flush();
        let took = began.elapsed();
        assert!(delta.workloads.len() == 200, "every endpoint has it");
        took
    };
    (0..rounds).map(one).collect()
}
