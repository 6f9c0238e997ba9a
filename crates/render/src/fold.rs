//! Rules that become one.
//!
//! Neighbours with the same action commute. Those that differ in one list only (source or
//! destination prefixes, ports) are one rule with the lists together: one look-up in a set
//! instead of a walk. Those that differ in destination, protocol and port together are one
//! look-up of all three.
//!
//! Promises: what comes out matches what went in, in an order that gives the same verdicts;
//! a rule that an earlier one leaves nothing for is left out.
//! Never: moves a rule across one with another action, or touches one that logs.

use desired::Rule;
use model::Action;
use net::{Cidr, PortRange, Protocol};
use std::collections::{BTreeMap, HashMap, HashSet};

/// A destination: prefix, protocol, ports. Of a list no two overlap.
pub(crate) type Target = (Cidr, Protocol, PortRange);

/// One rule, or several that became one.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Folded {
    /// Which rule it was, or the first of them.
    pub(crate) index: usize,
    /// What must match.
    pub(crate) rule: Rule,
    /// And one of these, when there are any.
    pub(crate) targets: Vec<Target>,
}

impl Folded {
    fn one((index, rule): (usize, &Rule)) -> Self {
        Self {
            index,
            rule: rule.clone(),
            targets: Vec::new(),
        }
    }
}

/// Each rule by itself.
pub(crate) fn separate(rules: &[Rule]) -> Vec<Folded> {
    rules.iter().enumerate().map(Folded::one).collect()
}

/// Folds what can be.
pub(crate) fn fold(rules: &[Rule]) -> Vec<Folded> {
    let mut out = Vec::new();
    let mut rest = separate(rules).into_iter().peekable();
    while let Some(first) = rest.next() {
        let action = first.rule.action;
        let mut run = vec![first];
        if action != Action::Log {
            while let Some(next) = rest.next_if(|f| f.rule.action == action) {
                run.push(next);
            }
        }
        out.extend(fold_run(run));
    }
    unique(out)
}

/// Leaves out what an earlier rule decides: nothing reaches it.
fn unique(rules: Vec<Folded>) -> Vec<Folded> {
    let mut seen: HashSet<Rule> = HashSet::new();
    let mut keep = |f: &Folded| {
        if !f.targets.is_empty() {
            return true;
        }
        let mut key = f.rule.clone();
        key.annotations.clear();
        key.action = Action::Allow;
        if f.rule.action == Action::Log {
            !seen.contains(&key)
        } else {
            seen.insert(key)
        }
    };
    rules.into_iter().filter(|f| keep(f)).collect()
}

/// A list of a rule: what is in it, by taking it out.
struct List<T> {
    of: fn(&mut Rule) -> &mut Vec<T>,
}

const SOURCES: List<Cidr> = List {
    of: |r| &mut r.source.nets,
};
const DESTINATIONS: List<Cidr> = List {
    of: |r| &mut r.destination.nets,
};
const PORTS: List<PortRange> = List {
    of: |r| &mut r.destination.ports,
};
const SOURCE_PORTS: List<PortRange> = List {
    of: |r| &mut r.source.ports,
};

fn fold_run(mut run: Vec<Folded>) -> Vec<Folded> {
    if run.len() < 2 {
        return run;
    }
    loop {
        let before = run.len();
        run = join(run, &SOURCES);
        run = join(run, &DESTINATIONS);
        run = join(run, &PORTS);
        run = join(run, &SOURCE_PORTS);
        if run.len() == before || run.len() == 1 {
            break;
        }
    }
    targets(run)
}

/// Joins rules that are equal but for one list, which states something in each of them.
fn join<T: Clone + Ord>(run: Vec<Folded>, list: &List<T>) -> Vec<Folded> {
    let mut out: Vec<Folded> = Vec::with_capacity(run.len());
    let mut lists: Vec<Vec<T>> = Vec::with_capacity(run.len());
    let mut groups: HashMap<(Rule, bool), usize> = HashMap::new();
    for mut f in run {
        let values = std::mem::take((list.of)(&mut f.rule));
        let mut key = f.rule.clone();
        key.annotations.clear();
        match groups.entry((key, values.is_empty())) {
            std::collections::hash_map::Entry::Occupied(e) => {
                let at = *e.get();
                lists[at].extend(values);
                if out[at].rule.annotations != f.rule.annotations {
                    out[at].rule.annotations.clear();
                }
            }
            std::collections::hash_map::Entry::Vacant(e) => {
                e.insert(out.len());
                lists.push(values);
                out.push(f);
            }
        }
    }
    for (f, mut values) in out.iter_mut().zip(lists) {
        values.sort_unstable();
        values.dedup();
        *(list.of)(&mut f.rule) = values;
    }
    out
}

/// Joins rules that are equal but for destination, protocol and port.
fn targets(run: Vec<Folded>) -> Vec<Folded> {
    let mut groups: HashMap<Rule, Vec<usize>> = HashMap::new();
    for (at, f) in run.iter().enumerate() {
        let e = &f.rule.destination;
        let ports = matches!(
            f.rule.protocol,
            Some(Protocol::TCP | Protocol::UDP | Protocol::SCTP)
        );
        if ports && !e.nets.is_empty() && !e.ports.is_empty() && e.port_sets.is_empty() {
            groups.entry(without_target(&f.rule)).or_default().push(at);
        }
    }
    let mut joined: BTreeMap<usize, Folded> = BTreeMap::new();
    let mut gone: HashSet<usize> = HashSet::new();
    for (key, members) in groups {
        if members.len() < 2 {
            continue;
        }
        let first = members[0];
        let each = members.iter().map(|at| &run[*at].rule);
        let mut rule = key;
        rule.annotations = run[first].rule.annotations.clone();
        if each.clone().any(|r| r.annotations != rule.annotations) {
            rule.annotations.clear();
        }
        let targets = disjoint(each);
        let index = run[first].index;
        gone.extend(members);
        joined.insert(
            first,
            Folded {
                index,
                rule,
                targets,
            },
        );
    }
    let keep = |(at, f): (usize, Folded)| match joined.remove(&at) {
        Some(new) => Some(new),
        None => (!gone.contains(&at)).then_some(f),
    };
    run.into_iter().enumerate().filter_map(keep).collect()
}

fn without_target(r: &Rule) -> Rule {
    let mut key = r.clone();
    key.annotations.clear();
    key.protocol = None;
    key.destination.nets.clear();
    key.destination.ports.clear();
    key
}

/// All targets of the rules, each packet's once: what a wider prefix has already is taken
/// from the narrower one.
fn disjoint<'a>(rules: impl Iterator<Item = &'a Rule>) -> Vec<Target> {
    let mut by: BTreeMap<(Protocol, Cidr), Vec<PortRange>> = BTreeMap::new();
    for r in rules {
        let Some(protocol) = r.protocol else { continue };
        for net in &r.destination.nets {
            let ports = by.entry((protocol, *net)).or_default();
            ports.extend_from_slice(&r.destination.ports);
        }
    }
    let mut out = Vec::new();
    // Wider prefixes that hold the one at hand, in order; what each has.
    let mut around: Vec<(Protocol, Cidr, Vec<PortRange>)> = Vec::new();
    for ((protocol, net), ports) in by {
        while around
            .last()
            .is_some_and(|(p, c, _)| *p != protocol || !c.covers(net))
        {
            around.pop();
        }
        let mut left = PortRange::merge(ports);
        for (_, _, taken) in &around {
            left = taken.iter().fold(left, |left, t| minus(&left, *t));
        }
        out.extend(left.iter().map(|p| (net, protocol, *p)));
        around.push((protocol, net, left));
    }
    out
}

fn minus(ranges: &[PortRange], taken: PortRange) -> Vec<PortRange> {
    let each = |r: &PortRange| {
        let below = taken
            .first()
            .checked_sub(1)
            .and_then(|last| PortRange::new(r.first(), last.min(r.last())));
        let above = taken
            .last()
            .checked_add(1)
            .and_then(|first| PortRange::new(first.max(r.first()), r.last()));
        [below, above]
    };
    ranges.iter().flat_map(each).flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use desired::Entity;

    fn rule(action: Action, net: &str, protocol: Protocol, port: &str) -> Rule {
        Rule {
            action,
            family: None,
            protocol: Some(protocol),
            not_protocol: None,
            icmp: None,
            not_icmp: None,
            source: Entity::default(),
            destination: Entity {
                nets: vec![net.parse().expect("a prefix")],
                ports: vec![port.parse().expect("a port")],
                ..Entity::default()
            },
            annotations: Vec::new(),
        }
    }

    #[test]
    fn neighbours_become_one_and_others_stay_apart() {
        let a = rule(Action::Allow, "10.0.0.1/32", Protocol::TCP, "80");
        let b = rule(Action::Allow, "10.0.0.2/32", Protocol::TCP, "80");
        let deny = rule(Action::Deny, "10.0.0.2/32", Protocol::TCP, "80");
        let log = rule(Action::Log, "10.0.0.3/32", Protocol::TCP, "80");
        let c = rule(Action::Allow, "10.0.0.3/32", Protocol::TCP, "80");
        let out = fold(&[a.clone(), b, deny, log.clone(), c.clone(), a]);
        let indexes: Vec<usize> = out.iter().map(|f| f.index).collect();
        // Nothing crosses the Deny or the Log; the last two join.
        assert_eq!(indexes, [0, 2, 3, 4]);
        assert_eq!(out[0].rule.destination.nets.len(), 2);
        assert_eq!(out[2].rule, log);
        assert_eq!(out[3].rule.destination.nets.len(), 2);
    }

    #[test]
    fn a_product_of_prefixes_and_ports_is_one_rule() {
        let rules: Vec<Rule> = (0..20)
            .flat_map(|n| {
                let net = format!("10.0.{n}.0/24");
                (0..20).map(move |p| {
                    rule(
                        Action::Allow,
                        &net,
                        Protocol::TCP,
                        &(1000 + 2 * p).to_string(),
                    )
                })
            })
            .collect();
        let out = fold(&rules);
        assert_eq!(out.len(), 1);
        assert_eq!(out[0].rule.destination.nets.len(), 20);
        assert_eq!(out[0].rule.destination.ports.len(), 20);
    }

    #[test]
    fn targets_never_overlap() {
        let rules = [
            rule(Action::Allow, "10.0.0.0/8", Protocol::TCP, "80:90"),
            rule(Action::Allow, "10.1.0.0/16", Protocol::TCP, "85:100"),
            rule(Action::Allow, "10.1.2.0/24", Protocol::UDP, "85"),
            rule(Action::Allow, "10.1.2.0/24", Protocol::TCP, "70:200"),
        ];
        let out = fold(&rules);
        assert_eq!(out.len(), 1);
        let text: Vec<String> = out[0]
            .targets
            .iter()
            .map(|(c, p, r)| format!("{c} {} {r}", p.0))
            .collect();
        let want = [
            "10.0.0.0/8 6 80:90",
            "10.1.0.0/16 6 91:100",
            "10.1.2.0/24 6 70:79",
            "10.1.2.0/24 6 101:200",
            "10.1.2.0/24 17 85",
        ];
        assert_eq!(text, want);
    }
}
