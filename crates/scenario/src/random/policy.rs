//! Random policies of every kind and what they refer to.
//!
//! Promises: words from small lists, so that things meet: the same labels, prefixes and ports in
//! policies as on pods. Much of it is refused by validation, and is then not used.
//!
//! Never: makes a rule on source ports whose match depends on the port that a kernel picks.

use super::{Dice, NAMESPACES, OUTSIDE_ADDRESSES, PODS, pod_address};
use serde_json::{Map, Value, json};

/// Label keys.
pub(super) const KEYS: &[&str] = &["role", "a.b/c-d", "tier_1"];
/// Label values; the empty one is legal.
pub(super) const VALUES: &[&str] = &["x", "y", "xy", "x.y-z", ""];

const TIERS: [&str; 3] = ["default", "first", "second"];

/// Makes objects of one scenario.
pub(super) struct Words<'a> {
    /// What decides.
    pub dice: &'a mut Dice,
    /// Services of the scenario, `namespace/name`.
    pub services: Vec<String>,
    hosts: bool,
}

impl<'a> Words<'a> {
    /// For a scenario.
    pub(super) const fn new(dice: &'a mut Dice, hosts: bool) -> Self {
        Self {
            dice,
            services: Vec::new(),
            hosts,
        }
    }

    /// What policies refer to: tiers, sets, accounts, services, host endpoints.
    pub(super) fn context(&mut self) -> Vec<Value> {
        let mut out = Vec::new();
        for tier in &TIERS[1..] {
            let mut spec = Map::new();
            if !self.dice.one_in(4) {
                // Before, between and after the built-in ones, and equal to one of them.
                let order =
                    *self
                        .dice
                        .pick(&[-1.5, 10.0, 500.0, 1000.0, 1_000_000.0, 20_000_000.0]);
                spec.insert("order".into(), json!(order));
            }
            if self.dice.one_in(2) {
                let action = *self.dice.pick(&["Pass", "Deny"]);
                spec.insert("defaultAction".into(), json!(action));
            }
            out.push(v3("Tier", None, tier, Value::Object(spec)));
        }
        for n in 0..self.dice.below(3) {
            out.push(self.network_set(n));
        }
        for ns in NAMESPACES {
            if self.dice.one_in(2) {
                let labels = super::labels(self.dice);
                out.push(json!({"apiVersion": "v1", "kind": "ServiceAccount",
                    "metadata": {"namespace": ns, "name": "builder", "labels": labels}}));
            }
        }
        for n in 0..self.dice.below(3) {
            out.push(self.service(n));
        }
        if self.hosts {
            out.extend(self.host_endpoints());
        }
        out
    }

    fn network_set(&mut self, n: usize) -> Value {
        let name = format!("set-{n}");
        let nets: Vec<String> = (0..self.dice.below(4))
            .map(|_| self.net(n % 2 == 1))
            .collect();
        let spec = json!({"nets": nets});
        let ns = *self.dice.pick(&NAMESPACES);
        let mut set = if self.dice.one_in(2) {
            v3("GlobalNetworkSet", None, &name, spec)
        } else {
            v3("NetworkSet", Some(ns), &name, spec)
        };
        set["metadata"]["labels"] = super::labels(self.dice);
        set
    }

    fn service(&mut self, n: usize) -> Value {
        let ns = *self.dice.pick(&NAMESPACES);
        let name = format!("svc-{n}");
        let mut port =
            json!({"name": "main", "port": 80, "protocol": self.dice.pick(&["TCP", "TCP", "UDP"])});
        match self.dice.below(3) {
            0 => port["targetPort"] = json!("http"),
            1 => port["targetPort"] = json!(8080),
            _ => {}
        }
        let mut selector = Map::new();
        let key = *self.dice.pick(KEYS);
        selector.insert(key.to_owned(), json!(self.dice.pick(&VALUES[..4])));
        self.services.push(format!("{ns}/{name}"));
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"namespace": ns, "name": name},
            "spec": {"selector": selector, "ports": [port]}})
    }

    fn host_endpoints(&mut self) -> Vec<Value> {
        let mut out = Vec::new();
        for node in 1..=2 {
            let mut spec = json!({"node": format!("node-{node}")});
            match self.dice.below(5) {
                0 | 1 => spec["interfaceName"] = json!("eth0"),
                2 => spec["interfaceName"] = json!("*"),
                3 => {
                    spec["expectedIPs"] = json!([
                        format!("172.18.0.{}", 10 + node),
                        format!("fd00:18::{:x}", 10 + node)
                    ])
                }
                _ => continue,
            }
            if self.dice.one_in(2) {
                spec["profiles"] = json!(["projectcalico-default-allow"]);
            }
            let mut hep = v3("HostEndpoint", None, &format!("hep-{node}"), spec);
            hep["metadata"]["labels"] = super::labels(self.dice);
            out.push(hep);
        }
        out
    }

    /// One policy, of any kind.
    pub(super) fn policy(&mut self, n: usize) -> Value {
        let name = format!("p{n}");
        let ns = *self.dice.pick(&NAMESPACES);
        match self.dice.below(12) {
            0..=2 => self.calico("NetworkPolicy", Some(ns), &name),
            3..=5 => self.calico("GlobalNetworkPolicy", None, &name),
            6 => self.calico("StagedGlobalNetworkPolicy", None, &name),
            7 => self.calico("StagedNetworkPolicy", Some(ns), &name),
            8 | 9 => self.kube(ns, &name),
            _ => self.cluster(&name),
        }
    }

    fn calico(&mut self, kind: &str, ns: Option<&str>, name: &str) -> Value {
        let mut spec = Map::new();
        let tier = *self.dice.pick(&TIERS);
        if tier != "default" || self.dice.one_in(2) {
            spec.insert("tier".into(), json!(tier));
        }
        if !self.dice.one_in(3) {
            spec.insert(
                "order".into(),
                json!(self.dice.pick(&[-1.0, 1.0, 1.5, 1000.0])),
            );
        }
        let selector = self.selector(2);
        spec.insert("selector".into(), json!(selector));
        if kind == "GlobalNetworkPolicy" && self.dice.one_in(4) {
            let s = self.namespaces();
            spec.insert("namespaceSelector".into(), json!(s));
        }
        if self.dice.one_in(6) {
            spec.insert("serviceAccountSelector".into(), json!(self.selector(1)));
        }
        let mut hep = false;
        if self.hosts && kind == "GlobalNetworkPolicy" {
            hep = match self.dice.below(6) {
                0 => {
                    spec.insert("applyOnForward".into(), json!(true));
                    false
                }
                1 => {
                    spec.insert("applyOnForward".into(), json!(true));
                    spec.insert("preDNAT".into(), json!(true));
                    true
                }
                _ => false,
            };
        }
        let (ingress, egress) = (!self.dice.one_in(4), !hep && !self.dice.one_in(3));
        if ingress {
            let rules: Vec<Value> = (0..self.dice.below(4))
                .map(|_| self.rule(true, ns.is_some()))
                .collect();
            spec.insert("ingress".into(), Value::Array(rules));
        }
        if egress {
            let rules: Vec<Value> = (0..self.dice.below(4))
                .map(|_| self.rule(false, ns.is_some()))
                .collect();
            spec.insert("egress".into(), Value::Array(rules));
        }
        if self.dice.one_in(2) {
            let mut types = Vec::new();
            types.extend(ingress.then_some("Ingress"));
            types.extend(egress.then_some("Egress"));
            spec.insert("types".into(), json!(types));
        }
        v3(kind, ns, name, Value::Object(spec))
    }

    /// A rule of Calico's policies.
    fn rule(&mut self, ingress: bool, namespaced: bool) -> Value {
        let mut r = Map::new();
        let action = *self.dice.pick(&[
            "Allow", "Allow", "Allow", "Allow", "Deny", "Deny", "Pass", "Log",
        ]);
        r.insert("action".into(), json!(action));
        let v6 = self.dice.one_in(3);
        let mut ports = false;
        match self.dice.below(10) {
            0 => {}
            1 => _ = r.insert("protocol".into(), json!("ICMP")),
            2 => _ = r.insert("protocol".into(), json!("ICMPv6")),
            3 => {
                let p = *self.dice.pick(&["TCP", "UDP", "SCTP", "ICMP"]);
                r.insert("notProtocol".into(), json!(p));
            }
            4 => _ = r.insert("protocol".into(), json!(self.dice.pick(&[6, 17, 132]))),
            _ => {
                ports = true;
                let p = *self.dice.pick(&["TCP", "TCP", "UDP", "SCTP"]);
                r.insert("protocol".into(), json!(p));
            }
        }
        let protocol = r.get("protocol").cloned().unwrap_or_default();
        if protocol == "ICMP" || protocol == "ICMPv6" {
            let field = *self.dice.pick(&["icmp", "notICMP", "none"]);
            let echo = if protocol == "ICMP" { 8 } else { 128 };
            let message = match self.dice.below(3) {
                0 => json!({"type": echo}),
                1 => json!({"type": echo, "code": self.dice.below(2)}),
                _ => json!({"type": 3}),
            };
            if field != "none" {
                r.insert(field.into(), message);
            }
        }
        if self.dice.one_in(6) {
            r.insert("ipVersion".into(), json!(if v6 { 6 } else { 4 }));
        }
        let source = self.entity(v6, false, ingress, namespaced);
        let destination = self.entity(v6, ports, !ingress, namespaced);
        r.insert("source".into(), source);
        r.insert("destination".into(), destination);
        Value::Object(r)
    }

    /// One side of a rule. `peer`: the other end's side, where services may stand.
    fn entity(&mut self, v6: bool, ports: bool, peer: bool, namespaced: bool) -> Value {
        let mut e = Map::new();
        if peer && !ports && self.dice.one_in(12) {
            let (ns, name) = self.service_name();
            let mut s = json!({"name": name});
            if !namespaced || self.dice.one_in(2) {
                s["namespace"] = json!(ns);
            }
            e.insert("services".into(), s);
            return Value::Object(e);
        }
        if self.dice.one_in(3) {
            e.insert("selector".into(), json!(self.selector(2)));
        }
        if self.dice.one_in(8) {
            e.insert("notSelector".into(), json!(self.selector(1)));
        }
        if self.dice.one_in(6) {
            e.insert("namespaceSelector".into(), json!(self.namespaces()));
        }
        if self.dice.one_in(6) {
            let nets: Vec<String> = (0..=self.dice.below(2)).map(|_| self.net(v6)).collect();
            e.insert("nets".into(), json!(nets));
        }
        if self.dice.one_in(8) {
            let nets: Vec<String> = (0..=self.dice.below(2)).map(|_| self.net(v6)).collect();
            e.insert("notNets".into(), json!(nets));
        }
        if self.dice.one_in(10) {
            let mut a = Map::new();
            if self.dice.one_in(2) {
                a.insert(
                    "names".into(),
                    json!([self.dice.pick(&["builder", "default", "absent"])]),
                );
            } else {
                a.insert("selector".into(), json!(self.selector(1)));
            }
            e.insert("serviceAccounts".into(), Value::Object(a));
        }
        if ports && self.dice.one_in(2) {
            let list: Vec<Value> = (0..=self.dice.below(3)).map(|_| self.port()).collect();
            e.insert("ports".into(), json!(list));
        }
        if ports && self.dice.one_in(6) {
            let list: Vec<Value> = (0..=self.dice.below(2)).map(|_| self.port()).collect();
            e.insert("notPorts".into(), json!(list));
        }
        Value::Object(e)
    }

    fn service_name(&mut self) -> (String, String) {
        if self.services.is_empty() || self.dice.one_in(4) {
            return ("ns-a".to_owned(), "absent".to_owned());
        }
        let known = self.dice.pick(&self.services).clone();
        let (ns, name) = known.split_once('/').unwrap_or(("ns-a", "absent"));
        (ns.to_owned(), name.to_owned())
    }

    fn port(&mut self) -> Value {
        match self.dice.below(8) {
            0 => json!("http"),
            1 => json!(*self.dice.pick(&["dns", "sig", "http2", "absent"])),
            2 => json!(
                *self
                    .dice
                    .pick(&["1:100", "80:8080", "5000:5000", "0:65535"])
            ),
            _ => json!(*self.dice.pick(&[80, 8080, 53, 7, 443])),
        }
    }

    /// A prefix around things that exist, or not.
    fn net(&mut self, v6: bool) -> String {
        let pod = self.dice.below(PODS.len());
        let host = pod_address(pod, v6);
        match (self.dice.below(8), v6) {
            (0, false) => "0.0.0.0/0".to_owned(),
            (0, true) => "::/0".to_owned(),
            (1, false) => "10.244.0.0/16".to_owned(),
            (1, true) => "fd00:10:244::/64".to_owned(),
            (2, false) => "10.244.1.0/24".to_owned(),
            (2, true) => "fd00:10:244::1:0/112".to_owned(),
            (3, false) => format!("{}/31", host),
            (3, true) => format!("{}/127", host),
            (4, false) => "172.18.0.0/16".to_owned(),
            (4, true) => "fd00:18::/48".to_owned(),
            (5, false) => OUTSIDE_ADDRESSES[0].to_owned(),
            (5, true) => OUTSIDE_ADDRESSES[1].to_owned(),
            (_, false) => format!("{host}/32"),
            (_, true) => format!("{host}/128"),
        }
    }

    /// An expression over labels.
    fn selector(&mut self, depth: usize) -> String {
        let key = *self.dice.pick(KEYS);
        let value = *self.dice.pick(VALUES);
        match self.dice.below(if depth == 0 { 8 } else { 12 }) {
            0 | 1 => format!("{key} == '{value}'"),
            2 => format!("{key} != '{value}'"),
            3 => format!("has({key})"),
            4 => format!("!has({key})"),
            5 => format!("{key} in {{'x', '{value}'}}"),
            6 => format!("{key} not in {{'y', '{value}'}}"),
            7 => {
                let how = *self.dice.pick(&["contains", "starts with", "ends with"]);
                format!("{key} {how} 'x'")
            }
            8 => "all()".to_owned(),
            9 => format!("!({})", self.selector(depth - 1)),
            10 => format!(
                "({}) || ({})",
                self.selector(depth - 1),
                self.selector(depth - 1)
            ),
            _ => format!("{} && {}", self.selector(0), self.selector(0)),
        }
    }

    fn namespaces(&mut self) -> String {
        match self.dice.below(5) {
            0 => "all()".to_owned(),
            1 => "global()".to_owned(),
            2 => format!(
                "projectcalico.org/name == '{}'",
                self.dice.pick(&NAMESPACES)
            ),
            _ => self.selector(1),
        }
    }

    fn kube_selector(&mut self) -> Value {
        let key = *self.dice.pick(KEYS);
        match self.dice.below(5) {
            0 => json!({}),
            1 | 2 => json!({"matchLabels": {key: self.dice.pick(VALUES)}}),
            _ => {
                let operator = *self.dice.pick(&["In", "NotIn", "Exists", "DoesNotExist"]);
                let mut e = json!({"key": key, "operator": operator});
                if operator.ends_with("In") {
                    e["values"] = json!(["x", self.dice.pick(VALUES)]);
                }
                json!({"matchExpressions": [e]})
            }
        }
    }

    fn kube(&mut self, ns: &str, name: &str) -> Value {
        let mut spec = json!({"podSelector": self.kube_selector()});
        let (ingress, egress) = (!self.dice.one_in(4), self.dice.one_in(2));
        for (wanted, direction, side) in [(ingress, "ingress", "from"), (egress, "egress", "to")] {
            if !wanted {
                continue;
            }
            let rules: Vec<Value> = (0..self.dice.below(3))
                .map(|_| self.kube_rule(side))
                .collect();
            spec[direction] = json!(rules);
        }
        if self.dice.one_in(2) {
            let mut types = Vec::new();
            types.extend(ingress.then_some("Ingress"));
            types.extend(egress.then_some("Egress"));
            spec["policyTypes"] = json!(types);
        }
        json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
            "metadata": {"namespace": ns, "name": name}, "spec": spec})
    }

    fn kube_rule(&mut self, side: &str) -> Value {
        let mut rule = Map::new();
        if !self.dice.one_in(4) {
            let peers: Vec<Value> = (0..=self.dice.below(2)).map(|_| self.kube_peer()).collect();
            rule.insert(side.to_owned(), json!(peers));
        }
        if self.dice.one_in(2) {
            let ports: Vec<Value> = (0..=self.dice.below(2))
                .map(|_| match self.dice.below(4) {
                    0 => json!({"port": "http", "protocol": self.dice.pick(&["TCP", "UDP"])}),
                    1 => json!({"port": 50, "endPort": 90, "protocol": "TCP"}),
                    2 => json!({"protocol": self.dice.pick(&["TCP", "UDP", "SCTP"])}),
                    _ => json!({"port": self.dice.pick(&[80, 8080, 443])}),
                })
                .collect();
            rule.insert("ports".to_owned(), json!(ports));
        }
        Value::Object(rule)
    }

    fn kube_peer(&mut self) -> Value {
        match self.dice.below(5) {
            0 => {
                let v6 = self.dice.one_in(2);
                let (whole, part) = if v6 {
                    ("fd00:10:244::/64", "fd00:10:244::1:0/112")
                } else {
                    ("10.244.0.0/16", "10.244.1.0/24")
                };
                if self.dice.one_in(2) {
                    json!({"ipBlock": {"cidr": whole, "except": [part]}})
                } else {
                    json!({"ipBlock": {"cidr": whole}})
                }
            }
            1 => json!({"podSelector": self.kube_selector()}),
            2 => json!({"namespaceSelector": self.kube_selector()}),
            _ => {
                json!({"namespaceSelector": self.kube_selector(), "podSelector": self.kube_selector()})
            }
        }
    }

    fn cluster(&mut self, name: &str) -> Value {
        let subject = if self.dice.one_in(2) {
            json!({"namespaces": self.kube_selector()})
        } else {
            json!({"pods": {"namespaceSelector": self.kube_selector(), "podSelector": self.kube_selector()}})
        };
        let mut spec = json!({
            "tier": self.dice.pick(&["Admin", "Admin", "Baseline"]),
            "priority": self.dice.pick(&[0, 1, 1, 50, 1000]),
            "subject": subject,
        });
        for (direction, side) in [("ingress", "from"), ("egress", "to")] {
            let rules: Vec<Value> = (0..self.dice.below(3))
                .map(|_| self.cluster_rule(side))
                .collect();
            spec[direction] = json!(rules);
        }
        json!({"apiVersion": "policy.networking.k8s.io/v1alpha2", "kind": "ClusterNetworkPolicy",
            "metadata": {"name": name}, "spec": spec})
    }

    fn cluster_rule(&mut self, side: &str) -> Value {
        let peers: Vec<Value> = (0..=self.dice.below(2))
            .map(|_| match (self.dice.below(6), side) {
                (0, "to") => {
                    let v6 = self.dice.one_in(2);
                    json!({"networks": [self.net(v6)]})
                }
                (1, "to") => json!({"nodes": {}}),
                (2 | 3, _) => json!({"namespaces": self.kube_selector()}),
                _ => json!({"pods": {"namespaceSelector": self.kube_selector(), "podSelector": self.kube_selector()}}),
            })
            .collect();
        let mut rule =
            json!({"action": self.dice.pick(&["Accept", "Accept", "Deny", "Pass"]), side: peers});
        if self.dice.one_in(2) {
            let one = match self.dice.below(4) {
                0 => json!({"tcp": {"destinationPort": {"number": 80}}}),
                1 => json!({"udp": {"destinationPort": {"range": {"start": 50, "end": 90}}}}),
                2 => json!({"destinationNamedPort": "http"}),
                _ => json!({"sctp": {}}),
            };
            rule["protocols"] = json!([one]);
        }
        rule
    }
}

fn v3(kind: &str, ns: Option<&str>, name: &str, spec: Value) -> Value {
    let mut metadata = json!({"name": name});
    if let Some(ns) = ns {
        metadata["namespace"] = json!(ns);
    }
    json!({"apiVersion": api::V3, "kind": kind, "metadata": metadata, "spec": spec})
}
