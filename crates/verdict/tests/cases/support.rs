//! A small cluster in few words.
//!
//! Nodes n1, n2 (192.168.0.1, .2; fd00::1, ::2) in one subnet; namespaces shop (team=web) and
//! other (team=ops); pods shop/front (n1, app=front), shop/db (n2, app=db), shop/near (n1,
//! app=near), other/job (n1, app=job).

use model::{
    Action, AllowedUses, Encap, FelixConfig, HostEndpoint, IpPool, Labels, NamedPort, NetworkSet,
    NetworkSetKey, Node, NodeAddress, Policy, PolicyKey, PolicyKind, Profile, Qos, Rule, Selector,
    StagedAction, Tier, TierAction, Update, WorkloadEndpoint, WorkloadKey,
};
use net::{Family, Protocol};
use std::net::IpAddr;
use verdict::{End, Explanation, Flow, Target, Verdict, World};

pub(crate) const TCP: Protocol = Protocol::TCP;
pub(crate) const UDP: Protocol = Protocol::UDP;

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub(crate) fn labels(text: &str) -> Labels {
    Labels::new(text.split_whitespace().map(|p| p.split_once('=').unwrap()))
}

pub(crate) fn selector(text: &str) -> Selector {
    Selector::parse(text).unwrap()
}

pub(crate) fn allow() -> Rule {
    Rule::any(Action::Allow)
}

pub(crate) fn deny() -> Rule {
    Rule::any(Action::Deny)
}

pub(crate) fn rule(action: Action, change: impl FnOnce(&mut Rule)) -> Rule {
    let mut r = Rule::any(action);
    change(&mut r);
    r
}

/// An Allow for a TCP port.
pub(crate) fn to_port(port: &str) -> Rule {
    rule(Action::Allow, |r| {
        r.protocol = Some(TCP);
        r.destination.ports = vec![port.parse().unwrap()];
    })
}

pub(crate) fn key(kind: PolicyKind, name: &str) -> PolicyKey {
    let (namespace, name) = match name.split_once('/') {
        Some((ns, n)) => (Some(ns.into()), n),
        None => (None, name),
    };
    PolicyKey {
        kind,
        namespace,
        name: name.into(),
    }
}

/// A policy for ingress, egress, or both: as rules are given.
pub(crate) fn policy(
    select: &str,
    ingress: Option<Vec<Rule>>,
    egress: Option<Vec<Rule>>,
) -> Policy {
    Policy {
        tier: "default".into(),
        order: Some(1000.0),
        selector: selector(select),
        applies_ingress: ingress.is_some(),
        applies_egress: egress.is_some(),
        ingress: ingress.unwrap_or_default(),
        egress: egress.unwrap_or_default(),
        untracked: false,
        pre_dnat: false,
        apply_on_forward: false,
        on_every_node: false,
        staged: StagedAction::Set,
    }
}

pub(crate) fn node(n: u8, subnet: &str) -> Node {
    let v4 = ip(&format!("192.168.0.{n}"));
    let v6 = ip(&format!("fd00::{n}"));
    Node {
        ipv4: Some(NodeAddress {
            addr: v4,
            subnet: subnet.parse().unwrap(),
        }),
        ipv6: Some(NodeAddress {
            addr: v6,
            subnet: "fd00::/64".parse().unwrap(),
        }),
        vxlan_v4: Some(ip(&format!("10.0.{n}.0"))),
        vxlan_v6: Some(ip(&format!("fd10:{n}::"))),
        ipip_v4: Some(ip(&format!("10.0.{n}.1"))),
        labels: labels(&format!("role=worker rack=r{n}")),
        ..Node::default()
    }
}

pub(crate) fn pool(cidr: &str) -> IpPool {
    IpPool {
        cidr: cidr.parse().unwrap(),
        block_size: 26,
        vxlan: Encap::Never,
        ipip: Encap::Never,
        nat_outgoing: false,
        disabled: false,
        deleting: false,
        allocatable: true,
        disable_bgp_export: false,
        node_selector: Selector::all(),
        namespace_selector: None,
        manual: false,
        uses: AllowedUses {
            workload: true,
            tunnel: true,
            load_balancer: false,
        },
    }
}

pub(crate) fn workload_key(node: &str, name: &str) -> WorkloadKey {
    WorkloadKey {
        node: node.into(),
        orchestrator: "k8s".into(),
        workload: name.into(),
        endpoint: "eth0".into(),
    }
}

pub(crate) struct Cluster(pub(crate) World);

impl Cluster {
    pub(crate) fn new() -> Self {
        let mut c = Self(World::default());
        for (name, order, end) in [
            ("kube-admin", 1_000.0, TierAction::Pass),
            ("default", 1_000_000.0, TierAction::Deny),
            ("kube-baseline", 10_000_000.0, TierAction::Pass),
        ] {
            c.tier(name, Some(order), end);
        }
        for n in [1, 2] {
            let node = node(n, "192.168.0.0/24");
            c.0.update(Update::Node(format!("n{n}").into(), Some(node)));
        }
        c.namespace("shop", "pcns.team=web");
        c.namespace("other", "pcns.team=ops");
        c.pool("main", pool("10.0.0.0/16"));
        c.pool("six", pool("fd10::/16"));
        c.pod("n1", "shop/front", 1, 11, "app=front");
        c.pod("n1", "shop/near", 1, 12, "app=near");
        c.pod("n2", "shop/db", 2, 21, "app=db");
        c.pod("n1", "other/job", 1, 13, "app=job");
        c
    }

    pub(crate) fn tier(&mut self, name: &str, order: Option<f64>, default_action: TierAction) {
        self.0.update(Update::Tier(
            name.into(),
            Some(Tier {
                order,
                default_action,
            }),
        ));
    }

    pub(crate) fn pool(&mut self, name: &str, pool: IpPool) {
        self.0.update(Update::Pool(name.into(), Some(pool)));
    }

    pub(crate) fn namespace(&mut self, name: &str, inherited: &str) {
        let open = Profile {
            ingress: vec![allow()],
            egress: vec![allow()],
            labels: labels(inherited),
        };
        self.0
            .update(Update::Profile(format!("kns.{name}").into(), Some(open)));
    }

    pub(crate) fn pod(&mut self, node: &str, name: &str, n: u8, host: u8, own: &str) {
        let (namespace, _) = name.split_once('/').unwrap();
        let all = format!("{own} projectcalico.org/namespace={namespace}");
        let endpoint = WorkloadEndpoint {
            interface: None,
            mac: None,
            nets: vec![
                format!("10.0.{n}.{host}/32").parse().unwrap(),
                format!("fd10:{n}::{host}/128").parse().unwrap(),
            ],
            nats: Vec::new(),
            labels: labels(&all),
            profiles: vec![format!("kns.{namespace}").into()],
            ports: vec![
                NamedPort {
                    name: "sql".into(),
                    protocol: TCP,
                    port: 5432,
                },
                NamedPort {
                    name: "dns".into(),
                    protocol: UDP,
                    port: 53,
                },
            ],
            allowed_sources: Vec::new(),
            qos: Qos::default(),
        };
        self.0
            .update(Update::Workload(workload_key(node, name), Some(endpoint)));
    }

    /// Changes a workload.
    pub(crate) fn edit(&mut self, name: &str, change: impl FnOnce(&mut WorkloadEndpoint)) {
        let found = self
            .0
            .workloads()
            .find(|(k, _)| &*k.workload == name)
            .unwrap();
        let (key, mut endpoint) = (found.0.clone(), found.1.clone());
        change(&mut endpoint);
        self.0.update(Update::Workload(key, Some(endpoint)));
    }

    pub(crate) fn host(
        &mut self,
        name: &str,
        node: &str,
        interface: Option<&str>,
        expected: &[&str],
    ) {
        let endpoint = HostEndpoint {
            node: node.into(),
            interface: interface.map(Into::into),
            expected_ips: expected.iter().map(|a| ip(a)).collect(),
            labels: labels(&format!("hep={name} kind=host")),
            profiles: Vec::new(),
            ports: Vec::new(),
            dscp: None,
        };
        self.0.update(Update::Host(name.into(), Some(endpoint)));
    }

    pub(crate) fn global(&mut self, name: &str, policy: Policy) {
        self.put(PolicyKind::GlobalNetworkPolicy, name, policy);
    }

    pub(crate) fn put(&mut self, kind: PolicyKind, name: &str, policy: Policy) {
        self.0.update(Update::Policy(key(kind, name), Some(policy)));
    }

    pub(crate) fn set(&mut self, name: &str, nets: &[&str], own: &str) {
        let (namespace, short) = match name.split_once('/') {
            Some((ns, n)) => (Some(ns), n),
            None => (None, name),
        };
        let of = namespace
            .map(|n| format!(" projectcalico.org/namespace={n}"))
            .unwrap_or_default();
        let set = NetworkSet {
            nets: nets.iter().map(|n| n.parse().unwrap()).collect(),
            labels: labels(&format!("{own}{of}")),
            profiles: namespace
                .map(|n| format!("kns.{n}").into())
                .into_iter()
                .collect(),
        };
        let key = NetworkSetKey {
            namespace: namespace.map(Into::into),
            name: short.into(),
        };
        self.0.update(Update::NetworkSet(key, Some(set)));
    }

    pub(crate) fn felix(&mut self, name: &str, values: &[(&str, &str)]) {
        let config = FelixConfig {
            values: values
                .iter()
                .map(|(k, v)| ((*k).into(), (*v).into()))
                .collect(),
            node_selector: None,
            created: 0,
        };
        self.0.update(Update::Felix(name.into(), Some(config)));
    }

    /// `namespace/pod`, a node, or an address outside.
    pub(crate) fn end(&self, name: &str, family: Family) -> (End, IpAddr) {
        if let Ok(address) = name.parse() {
            return (End::Outside, address);
        }
        let end = self.0.pod(name).unwrap_or_else(|| End::Node(name.into()));
        let address = self.0.address(&end, family).unwrap();
        (end, address)
    }

    /// A TCP flow, IPv6 if either end is an address of it.
    pub(crate) fn flow(&self, from: &str, to: &str, port: u16) -> Flow {
        let six = from.contains(':') || to.contains(':');
        let family = if six { Family::V6 } else { Family::V4 };
        let (end, source) = self.end(from, family);
        let (_, target) = self.end(to, family);
        Flow::new(end, source, Target::Address(target), TCP, port)
    }

    pub(crate) fn explain(&self, from: &str, to: &str, port: u16) -> Explanation {
        self.ask(&self.flow(from, to, port))
    }

    /// The answer; that both ways to ask agree.
    pub(crate) fn ask(&self, flow: &Flow) -> Explanation {
        let answer = self.0.explain(flow);
        assert_eq!(answer.verdict, self.0.verdict(flow), "{answer}");
        if let (Target::Address(to), false) = (&flow.to, self.0.services().next().is_some()) {
            let mut ends = vec![flow.source, *to];
            ends.extend(flow.original.map(|(a, _)| a));
            if let End::Workload(k) = &flow.from {
                let own = Family::BOTH.map(|f| self.0.address(&End::Workload(k.clone()), f));
                ends.extend(own.into_iter().flatten());
            }
            let narrow = self.0.narrowed(&ends, |_| true);
            assert_eq!(answer.verdict, narrow.verdict(flow), "narrowed: {answer}");
        }
        answer
    }

    #[track_caller]
    pub(crate) fn allows(&self, from: &str, to: &str, port: u16) -> Explanation {
        let answer = self.explain(from, to, port);
        assert_eq!(answer.verdict, Verdict::Allow, "{answer:#}");
        answer
    }

    #[track_caller]
    pub(crate) fn denies(&self, from: &str, to: &str, port: u16) -> Explanation {
        let answer = self.explain(from, to, port);
        assert_eq!(answer.verdict, Verdict::Deny, "{answer:#}");
        answer
    }

    #[track_caller]
    pub(crate) fn allows_flow(&self, flow: &Flow) -> Explanation {
        let answer = self.ask(flow);
        assert_eq!(answer.verdict, Verdict::Allow, "{answer:#}");
        answer
    }

    #[track_caller]
    pub(crate) fn denies_flow(&self, flow: &Flow) -> Explanation {
        let answer = self.ask(flow);
        assert_eq!(answer.verdict, Verdict::Deny, "{answer:#}");
        answer
    }
}
