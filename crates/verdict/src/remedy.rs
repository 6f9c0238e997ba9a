//! What would have to change for the opposite verdict.

use crate::judge::{Judge, rules_of};
use crate::notes::direction_of;
use crate::words::{address, entity, missing};
use crate::{Decision, Direction, Effect, Field, Packet, Path, Place, Stage, words};
use model::{Action, PolicyKey, Rule};

/// Most lines of advice for one way.
const MOST: usize = 6;

/// Advice about one way; each line stands for itself.
pub(crate) fn remedies(judge: &Judge<'_>, path: &Path) -> Vec<String> {
    let Some(stage) = path.deciding() else {
        return Vec::new();
    };
    let mut out = match stage.effect {
        Effect::Deny => to_open(judge, stage),
        _ => to_close(stage),
    };
    out.truncate(MOST);
    out
}

fn to_open(judge: &Judge<'_>, stage: &Stage) -> Vec<String> {
    let direction = direction_of(&stage.place);
    let wanted = wanted_rule(direction, &stage.packet);
    match &stage.decision {
        Decision::Rule { tier, policy, index, .. } => {
            let mut out = near_misses(judge, stage, std::slice::from_ref(policy), Some(*index));
            out.push(format!("before rule {index} of {policy}: {wanted}"));
            out.push(format!("in a policy before {policy} in tier {tier}: {wanted}"));
            out
        }
        Decision::EndOfTier { policies, .. } => {
            let mut out = near_misses(judge, stage, policies, None);
            let any_of = match policies.len() {
                1 => "in",
                _ => "in one of",
            };
            let names: Vec<String> = policies.iter().map(PolicyKey::to_string).collect();
            out.push(format!("{any_of} {}: {wanted}", names.join(", ")));
            out
        }
        Decision::Profile { profile, .. } => vec![format!(
            "a policy that selects {} with: {wanted} (profile {profile} is asked after all policies)",
            who(&stage.place)
        )],
        Decision::MissingProfile(p) => vec![match p.strip_prefix("kns.") {
            Some(namespace) => format!("create namespace {namespace}: profile {p} is made from it"),
            None => format!("create profile {p}"),
        }],
        Decision::NoProfileAllows(_) => {
            vec![format!("a policy that selects {} with: {wanted}", who(&stage.place))]
        }
        Decision::Spoofed => vec![
            "send from an address of the workload's own".to_owned(),
            "workloadSourceSpoofing: Any, and annotation cni.projectcalico.org/allowedSourcePrefixes"
                .to_owned(),
        ],
        Decision::Encapsulation => vec![match stage.packet.protocol {
            net::Protocol::UDP => "allowVXLANPacketsFromWorkloads: true".to_owned(),
            _ => "allowIPIPPacketsFromWorkloads: true".to_owned(),
        }],
        Decision::EndpointToHost(_) => vec!["defaultEndpointToHostAction: Accept".to_owned()],
        Decision::ServiceLoop(range) => vec![format!(
            "a service with this address and port, or {range} out of the BGPConfiguration"
        )],
        Decision::NoBackend => vec!["a ready endpoint behind the service".to_owned()],
        Decision::InvalidReply => vec![format!(
            "an untracked policy for the answers too: {wanted}"
        )],
        _ => Vec::new(),
    }
}

fn to_close(stage: &Stage) -> Vec<String> {
    match &stage.decision {
        Decision::Rule { policy, index, .. } => {
            vec![format!(
                "rule {index} of {policy} would have to go, or a deny come before it"
            )]
        }
        Decision::Profile { .. } => vec![format!(
            "a policy that selects {} for {} and does not allow it",
            who(&stage.place),
            direction_of(&stage.place).name()
        )],
        _ => Vec::new(),
    }
}

/// Rules that would allow it but for one field; those before `until` of the last policy.
fn near_misses(
    judge: &Judge<'_>,
    stage: &Stage,
    policies: &[PolicyKey],
    until: Option<usize>,
) -> Vec<String> {
    let direction = direction_of(&stage.place);
    let mut out = Vec::new();
    for key in policies {
        let Some(policy) = judge.world.policies.get(key) else {
            continue;
        };
        let rules = rules_of(policy, direction).iter().enumerate();
        for (index, rule) in
            rules.filter(|(i, r)| r.action == Action::Allow && until.is_none_or(|u| *i < u))
        {
            let failed: Vec<Field> = judge.world.mismatches(rule, &stage.packet).collect();
            if let [field] = failed[..] {
                out.extend(one_field(judge, key, index, rule, &stage.packet, field));
            }
        }
    }
    out
}

fn one_field(
    judge: &Judge<'_>,
    key: &PolicyKey,
    index: usize,
    rule: &Rule,
    packet: &Packet,
    field: Field,
) -> Vec<String> {
    let m = words::mismatch(judge.world, rule, packet, field);
    let would = format!("rule {index} of {key} would allow it");
    let Field::Selector(side) = field else {
        return vec![format!(
            "{would} if {} ({}) had {}",
            m.field, m.wanted, m.got
        )];
    };
    let Some(selector) = &entity(rule, side).selector else {
        return Vec::new();
    };
    let holders = judge.world.holders(address(packet, side));
    let each = holders.iter().map(|h| {
        let what = missing(selector.expr(), &h.labels).join("; ");
        format!("{would} but for {}: {what}", h.name)
    });
    each.collect()
}

/// A rule that would allow a packet, in the words of the API.
fn wanted_rule(direction: Direction, p: &Packet) -> String {
    let (way, far) = match direction {
        Direction::Ingress => ("from", p.source),
        Direction::Egress => ("to", p.destination),
    };
    let port = match (p.protocol.has_ports(), p.icmp) {
        (true, _) => format!(" port {}", p.port),
        (false, Some((t, c))) => format!(" type {t} code {c}"),
        (false, None) => String::new(),
    };
    format!(
        "{} rule Allow {}{port} {way} {far}",
        direction.name(),
        p.protocol
    )
}

fn who(place: &Place) -> String {
    match place {
        Place::Workload(k, _) | Place::Source(k) | Place::ToHost(k) | Place::OwnWorkload(k) => {
            k.workload.to_string()
        }
        Place::Untracked(h, _)
        | Place::UntrackedReply(h, _)
        | Place::PreDnat(h)
        | Place::Host(h, _)
        | Place::Forward(h, _) => format!("host endpoint {h}"),
        Place::ServiceLoop => "the node".to_owned(),
        Place::Service(s) => format!("service {}/{}", s.namespace, s.name),
    }
}
