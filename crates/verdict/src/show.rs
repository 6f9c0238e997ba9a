//! The answer as text: short with `{}`, with everything that was asked with `{:#}`.

use crate::{
    Consulted, Decision, Direction, Effect, End, Explanation, Field, Flow, Mismatch, Path, Place,
    RuleTrail, Stage, StagedAnswer, Target, Verdict,
};
use model::{Action, PolicyKey, TierAction, WorkloadKey};
use std::fmt::{self, Display, Formatter, Result, Write as _};

impl Display for Verdict {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        f.write_str(self.name())
    }
}

impl Display for Direction {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        f.write_str(self.name())
    }
}

impl Display for Target {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match self {
            Self::Address(a) => write!(f, "{a}"),
            Self::Service(s) => write!(f, "service {}/{}", s.namespace, s.name),
        }
    }
}

impl Display for Flow {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        write!(
            f,
            "{} ({}) -> {}, {}",
            self.from, self.source, self.to, self.protocol
        )?;
        match self.protocol.has_ports() {
            true => write!(f, " {}", self.port),
            false => Ok(()),
        }
    }
}

impl Display for Field {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let (side, name) = match self {
            Self::IpVersion => (None, "ipVersion"),
            Self::Protocol => (None, "protocol"),
            Self::NotProtocol => (None, "notProtocol"),
            Self::Icmp => (None, "icmp"),
            Self::NotIcmp => (None, "notICMP"),
            Self::Nets(s) => (Some(s), "nets"),
            Self::NotNets(s) => (Some(s), "notNets"),
            Self::Selector(s) => (Some(s), "selector"),
            Self::NotSelector(s) => (Some(s), "notSelector"),
            Self::Ports(s) => (Some(s), "ports"),
            Self::NotPorts(s) => (Some(s), "notPorts"),
            Self::Services(s) => (Some(s), "services"),
            Self::Nodes(s) => (Some(s), "nodes"),
            Self::Domains => (Some(&crate::Side::Destination), "domainNames"),
        };
        match side {
            Some(s) => write!(f, "{}.{name}", s.name()),
            None => f.write_str(name),
        }
    }
}

impl Display for Mismatch {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        write!(f, "{} is {}; here {}", self.field, self.wanted, self.got)
    }
}

fn workload(k: &WorkloadKey) -> String {
    End::Workload(k.clone()).to_string()
}

impl Display for Place {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match self {
            Self::Source(k) => write!(f, "source address of {}", workload(k)),
            Self::Workload(k, Direction::Ingress) => write!(f, "ingress to {}", workload(k)),
            Self::Workload(k, Direction::Egress) => write!(f, "egress of {}", workload(k)),
            Self::ToHost(k) => write!(f, "{} to its node", workload(k)),
            Self::OwnWorkload(k) => write!(f, "node to its own {}", workload(k)),
            Self::Untracked(h, d) => write!(f, "untracked {d} of host endpoint {h}"),
            Self::UntrackedReply(h, d) => {
                write!(f, "answers: untracked {d} of host endpoint {h}")
            }
            Self::PreDnat(h) => write!(f, "pre-DNAT ingress of host endpoint {h}"),
            Self::Host(h, d) => write!(f, "{d} of host endpoint {h}"),
            Self::Forward(h, d) => write!(f, "forwarded {d} of host endpoint {h}"),
            Self::ServiceLoop => f.write_str("service loop prevention"),
            Self::Service(s) => write!(f, "service {}/{}", s.namespace, s.name),
        }
    }
}

fn says(action: Action) -> &'static str {
    match action {
        Action::Allow => "allows it",
        Action::Deny => "denies it",
        Action::Pass => "passes it to the next tier",
        Action::Log => "logs it",
    }
}

fn keys(list: &[PolicyKey]) -> String {
    list.iter()
        .map(PolicyKey::to_string)
        .collect::<Vec<_>>()
        .join(", ")
}

impl Display for Decision {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match self {
            Self::Rule {
                tier,
                policy,
                index,
                name,
                action,
            } => {
                write!(f, "rule {index}")?;
                if let Some(n) = name {
                    write!(f, " {n:?}")?;
                }
                write!(f, " of {policy} in tier {tier} {}", says(*action))
            }
            Self::EndOfTier { tier, policies } => {
                write!(f, "no policy of tier {tier} allows it: {}", keys(policies))
            }
            Self::Profile {
                profile,
                index,
                action,
            } => {
                write!(
                    f,
                    "no policy decides; profile {profile} rule {index} {}",
                    says(*action)
                )
            }
            Self::MissingProfile(p) => write!(f, "profile {p} does not exist: denied"),
            Self::NoProfileAllows(list) if list.is_empty() => {
                f.write_str("no policy decides, and it has no profile: denied")
            }
            Self::NoProfileAllows(list) => {
                write!(
                    f,
                    "no policy decides, and no profile allows it: {}",
                    list.join(", ")
                )
            }
            Self::Undecided => f.write_str("no policy decides here"),
            Self::Failsafe(p) => write!(f, "failsafe port {p} allows it"),
            Self::UnknownWorkload => f.write_str("there is no such workload: denied"),
            Self::Spoofed => f.write_str("the address is not its own: denied"),
            Self::OwnSource => f.write_str("the address is its own"),
            Self::Encapsulation => {
                f.write_str("workloads may not send encapsulated packets: denied")
            }
            Self::NeighbourDiscovery => f.write_str("neighbour discovery is always allowed"),
            Self::EndpointToHost(a) => write!(f, "defaultEndpointToHostAction is {a}"),
            Self::OwnNode => f.write_str("a node always reaches its own workloads"),
            Self::ServiceLoop(c) => {
                write!(
                    f,
                    "{c} is of services and nothing translated the address: denied"
                )
            }
            Self::NoBackend => f.write_str("nothing is behind that port: denied"),
            Self::InvalidReply => f.write_str(
                "no untracked rule decides, and answers belong to no connection: denied",
            ),
        }
    }
}

impl Display for Explanation {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        writeln!(f, "{}: {}", self.verdict, self.flow)?;
        let mut body = String::new();
        ways(&mut body, &self.paths, &self.flow, f.alternate())?;
        if let Some(s) = &self.staged {
            staged(&mut body, s, &self.flow, self.verdict, f.alternate())?;
        }
        for note in &self.notes {
            writeln!(body, "  note: {note}")?;
        }
        f.write_str(&body)
    }
}

fn ways(out: &mut String, paths: &[Path], flow: &Flow, all: bool) -> fmt::Result {
    let several = paths.len() > 1;
    for path in paths {
        let verdict = if path.allowed {
            Verdict::Allow
        } else {
            Verdict::Deny
        };
        let rewritten = match flow.to {
            Target::Address(a) => (a, flow.port) != path.destination,
            Target::Service(_) => true,
        };
        if several || rewritten {
            let (a, port) = path.destination;
            writeln!(
                out,
                "  {verdict}: to {} at {}",
                path.to,
                std::net::SocketAddr::new(a, port)
            )?;
        }
        for stage in &path.stages {
            one_stage(out, stage, all)?;
        }
        if path.stages.is_empty() {
            writeln!(
                out,
                "  no policy is asked: no pod and no host endpoint on the way"
            )?;
        }
        if path.seen_source != flow.source {
            writeln!(out, "  it is seen from {}", path.seen_source)?;
        }
        for (i, r) in path.remedies.iter().enumerate() {
            let head = if i == 0 { "to change this:" } else { "or:" };
            writeln!(out, "    {head} {r}")?;
        }
    }
    Ok(())
}

fn one_stage(out: &mut String, stage: &Stage, all: bool) -> fmt::Result {
    if stage.effect == Effect::Pass && !all {
        return Ok(());
    }
    let at = match stage.node.is_empty() {
        true => String::new(),
        false => format!("on {}: ", stage.node),
    };
    writeln!(out, "  {at}{}: {}", stage.place, stage.decision)?;
    if all {
        writeln!(out, "    packet {}", stage.packet)?;
        for c in &stage.consulted {
            consulted(out, c)?;
        }
    }
    Ok(())
}

fn consulted(out: &mut String, c: &Consulted) -> fmt::Result {
    match c {
        Consulted::Tier(t) => {
            let end = match t.default_action {
                TierAction::Deny => "denies at its end",
                TierAction::Pass => "passes at its end",
            };
            writeln!(out, "    tier {} ({end})", t.tier)?;
            for p in &t.policies {
                writeln!(out, "      {}", p.policy)?;
                for r in &p.rules {
                    writeln!(out, "        {}", rule(r))?;
                }
            }
        }
        Consulted::Profile(p, None) => writeln!(out, "    profile {p} (does not exist)")?,
        Consulted::Profile(p, Some(rules)) => {
            writeln!(out, "    profile {p}")?;
            for r in rules {
                writeln!(out, "      {}", rule(r))?;
            }
        }
    }
    Ok(())
}

fn rule(r: &RuleTrail) -> String {
    let name = r
        .name
        .as_ref()
        .map(|n| format!(" {n:?}"))
        .unwrap_or_default();
    match &r.mismatch {
        None => format!("rule {}{name}: matches and {}", r.index, says(r.action)),
        Some(m) => format!("rule {}{name} ({:?}): no match: {m}", r.index, r.action),
    }
}

fn staged(
    out: &mut String,
    s: &StagedAnswer,
    flow: &Flow,
    enforced: Verdict,
    all: bool,
) -> fmt::Result {
    if s.verdict == enforced && s.changed_by.is_empty() && !all {
        return writeln!(
            out,
            "  with staged policies enforced: {} as well",
            s.verdict
        );
    }
    writeln!(out, "  with staged policies enforced: {}", s.verdict)?;
    for (key, verdict) in &s.changed_by {
        writeln!(out, "    {key} alone makes it {verdict}")?;
    }
    let mut inner = String::new();
    ways(&mut inner, &s.paths, flow, all)?;
    for line in inner.lines() {
        writeln!(out, "  {line}")?;
    }
    Ok(())
}
