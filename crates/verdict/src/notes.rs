//! What is legal but perhaps not meant, in what was consulted.

use crate::judge::{Judge, rules_of};
use crate::{Consulted, Direction, End, Path, Place, Side, Stage, World};
use model::{Entity, PolicyKey, Rule, Selector};
use std::collections::BTreeSet;

/// Notes about one way.
pub(crate) fn about(judge: &Judge<'_>, path: &Path) -> Vec<String> {
    let world = judge.world;
    let mut out = BTreeSet::new();
    for stage in &path.stages {
        for c in &stage.consulted {
            if let Consulted::Tier(t) = c {
                if !t.exists {
                    out.insert(format!(
                        "there is no tier {}: its policies are enforced after all others",
                        t.tier
                    ));
                }
                for p in &t.policies {
                    about_policy(world, &p.policy, stage, &mut out);
                }
            }
        }
    }
    if path.to == End::Outside
        && let Some(pool) = world.pool_of(path.destination.0)
    {
        out.insert(format!(
            "{} is of pool {} and no endpoint has it",
            path.destination.0, pool.cidr
        ));
    }
    if path.to == End::Outside {
        out.extend(untranslated(world, path));
    }
    out.into_iter().collect()
}

/// A service's own address with a port that the service does not have: nobody translates it.
fn untranslated(world: &World, path: &Path) -> Option<String> {
    let (address, _) = path.destination;
    let (key, service) = world
        .services
        .iter()
        .find(|(_, s)| s.cluster_ips.contains(&address))?;
    let has: Vec<String> = service
        .ports
        .iter()
        .map(|p| format!("{} {}", p.protocol, p.port))
        .collect();
    Some(format!(
        "{address} is of service {}/{}, which has {} only: nothing is translated, and nothing answers",
        key.namespace,
        key.name,
        has.join(", ")
    ))
}

fn about_policy(world: &World, key: &PolicyKey, stage: &Stage, out: &mut BTreeSet<String>) {
    let Some(policy) = world.policies.get(key) else {
        return;
    };
    let direction = direction_of(&stage.place);
    for (index, rule) in rules_of(policy, direction).iter().enumerate() {
        for what in dangling(world, rule) {
            out.insert(format!("rule {index} of {key} names {what}"));
        }
    }
}

/// The direction in which policy is asked at a place.
pub(crate) fn direction_of(place: &Place) -> Direction {
    match place {
        Place::Workload(_, d)
        | Place::Untracked(_, d)
        | Place::UntrackedReply(_, d)
        | Place::Host(_, d)
        | Place::Forward(_, d) => *d,
        Place::PreDnat(_) | Place::OwnWorkload(_) => Direction::Ingress,
        Place::Source(_) | Place::ToHost(_) | Place::ServiceLoop | Place::Service(_) => {
            Direction::Egress
        }
    }
}

/// What a rule refers to and nothing is.
fn dangling(world: &World, rule: &Rule) -> Vec<String> {
    let mut out = Vec::new();
    for (side, e) in [
        (Side::Source, &rule.source),
        (Side::Destination, &rule.destination),
    ] {
        side_dangling(world, side, e, &mut out);
    }
    for d in &rule.destination.domains {
        let suffix = d.strip_prefix('*');
        let known = world.domains.keys().any(|n| match suffix {
            Some(s) => n.ends_with(s),
            None => n == d,
        });
        if !known {
            out.push(format!("domain {d}, of which no address is known"));
        }
    }
    out
}

fn side_dangling(world: &World, side: Side, e: &Entity, out: &mut Vec<String>) {
    if let Some(s) = &e.service
        && !world.slices.values().any(|x| x.service == *s)
    {
        let what = match world.services.contains_key(s) {
            true => "has no endpoints",
            false => "does not exist",
        };
        out.push(format!("service {}/{}, which {what}", s.namespace, s.name));
    }
    for name in e.named_ports.iter().chain(&e.not_named_ports) {
        let in_workloads = world.workloads.values().flat_map(|w| &w.ports);
        let mut all = in_workloads.chain(world.hosts.values().flat_map(|h| &h.ports));
        if !all.any(|p| p.name == *name) {
            out.push(format!("port {name:?}, which no endpoint has"));
        }
    }
    if let Some(s) = &e.selector
        && !selects_any(world, s)
    {
        out.push(format!(
            "{} selector {s}, which selects nothing",
            side.name()
        ));
    }
    if let Some(s) = &e.nodes
        && !world.nodes.values().any(|n| s.matches(&n.labels))
    {
        out.push(format!("nodes {s}, of which there are none"));
    }
}

fn selects_any(world: &World, s: &Selector) -> bool {
    let workloads = world.workloads.values().map(|w| (&w.labels, &w.profiles));
    let hosts = world.hosts.values().map(|h| (&h.labels, &h.profiles));
    let sets = world.sets.values().map(|n| (&n.labels, &n.profiles));
    let mut all = workloads.chain(hosts).chain(sets);
    all.any(|(labels, profiles)| s.matches(&world.effective(labels, profiles)))
}
