//! The chains that judge workloads' traffic: stacks of policies.
//!
//! Promises: a packet that enters leaves decided: accepted by a rule that allows, or
//! dropped. Workloads under the same policies share one stack, named by its content: the
//! kernel walks all reachable rules on most changes, and a new pod like others costs a
//! map element. A tier that can be passed ends in a chain of its own, so that Pass is
//! one goto; where no policy passes there is no look at the mark.
//! Never: holds a rule of a policy; policies are shared, and jumped to.

use crate::PASS_MARK;
use crate::name::{self, Direction};
use crate::policy::Shape;
use desired::WorkloadPolicy;
use model::{PolicyKey, TierAction};
use net::Family;
use nftables::{Chain, ChainName, Match, NetList, Rule, Side, Statement, Text, Verdict};
use std::fmt::Write;

fn drop_rule(comment: &str) -> Rule {
    Rule {
        matches: Vec::new(),
        statements: vec![Statement::Counter],
        verdict: Some(Verdict::Drop),
        comment: Text::new(comment),
    }
}

fn go(verdict: Verdict) -> Rule {
    Rule {
        verdict: Some(verdict),
        ..Rule::default()
    }
}

const CLEAR: Statement = Statement::SetMark {
    mask: PASS_MARK,
    value: 0,
};

/// What a stack is, in one direction: everything that its chains depend on.
pub(crate) fn stack_id(
    w: &WorkloadPolicy,
    d: Direction,
    policy: impl Fn(&PolicyKey) -> Shape,
    profile: impl Fn(&str) -> Shape,
) -> String {
    let mut text = String::new();
    for t in &w.tiers {
        let policies = match d {
            Direction::Ingress => &t.ingress,
            Direction::Egress => &t.egress,
        };
        if !policies.is_empty() {
            // Writing to a string cannot fail. Debug quotes names, so that no two lists
            // read the same.
            let _ = write!(text, "{:?} {:?}", t.name, t.default_action);
            for p in policies {
                let _ = write!(
                    text,
                    " {:?} {:?} {:?} {:?}",
                    p.kind,
                    p.namespace,
                    p.name,
                    policy(p)
                );
            }
        }
    }
    for p in &w.profiles {
        let _ = write!(text, " {p:?} {:?}", profile(p));
    }
    name::stack_id(&text)
}

/// The chains of one direction. The first is the one to enter.
pub(crate) fn chains(
    id: &str,
    w: &WorkloadPolicy,
    d: Direction,
    policy: impl Fn(&PolicyKey) -> Shape,
    profile: impl Fn(&str) -> Shape,
) -> Vec<(ChainName, Chain)> {
    let mut out: Vec<(ChainName, Chain)> = Vec::new();
    let mut rules = Vec::new();
    let mut cleared = false;
    for tier in &w.tiers {
        let policies = match d {
            Direction::Ingress => &tier.ingress,
            Direction::Egress => &tier.egress,
        };
        if policies.is_empty() {
            continue;
        }
        let next = name::stack(id, d, out.len() + 1);
        let passes = policies.iter().any(|p| policy(p) == Shape::Passes);
        if passes && !cleared {
            // The bit may be somebody else's until here.
            rules.push(Rule {
                statements: vec![CLEAR],
                ..Rule::default()
            });
            cleared = true;
        }
        for key in policies {
            let shape = policy(key);
            if shape != Shape::Empty {
                rules.push(go(Verdict::Jump(name::policy(key, d))));
            }
            if shape == Shape::Passes {
                rules.push(Rule {
                    matches: vec![Match::Mark {
                        mask: PASS_MARK,
                        value: PASS_MARK,
                        negate: false,
                    }],
                    statements: vec![CLEAR],
                    verdict: Some(Verdict::Goto(next.clone())),
                    comment: Text::default(),
                });
            }
        }
        let denies = tier.default_action == TierAction::Deny;
        if denies {
            rules.push(drop_rule(&format!("end of tier {}", tier.name)));
        } else if passes {
            rules.push(go(Verdict::Goto(next)));
        }
        if passes {
            out.push(part(id, d, out.len(), std::mem::take(&mut rules)));
        } else if denies {
            // Nothing comes past here.
            out.push(part(id, d, out.len(), rules));
            return out;
        }
    }
    for id in &w.profiles {
        if profile(id) != Shape::Empty {
            rules.push(go(Verdict::Jump(name::profile(id, d))));
        }
    }
    rules.push(drop_rule("no policy or profile allows it"));
    out.push(part(id, d, out.len(), rules));
    out
}

fn part(id: &str, d: Direction, n: usize, rules: Vec<Rule>) -> (ChainName, Chain) {
    (name::stack(id, d, n), Chain { base: None, rules })
}

/// The chain that accepts the further sources of a workload; `None` when it has none.
pub(crate) fn sources(w: &WorkloadPolicy) -> Option<Chain> {
    let rules: Vec<Rule> = Family::BOTH
        .into_iter()
        .filter_map(|f| {
            let own = w
                .allowed_sources
                .iter()
                .copied()
                .filter(|c| c.family() == f)
                .collect();
            let nets = NetList::new(own).ok()?;
            Some(Rule {
                matches: vec![Match::Addr {
                    side: Side::Source,
                    nets,
                    negate: false,
                }],
                verdict: Some(Verdict::Accept),
                ..Rule::default()
            })
        })
        .collect();
    (!rules.is_empty()).then_some(Chain { base: None, rules })
}
