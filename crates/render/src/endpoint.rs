//! The chains that judge traffic of endpoints: stacks of policies.
//!
//! Promises: a packet that enters the stack of a workload, or of a host endpoint's own
//! traffic, leaves decided: accepted by a rule that allows, or denied. Endpoints under the
//! same policies share one stack, named by its content: the kernel walks all reachable rules
//! on most changes, and a new pod like others costs a map element. A tier that can be passed
//! ends in a chain of its own, so that Pass is one goto; where no policy passes there is no
//! look at the mark.
//! Never: holds a rule of a policy; policies are shared, and jumped to.

use crate::name;
use crate::policy::{self, Shape};
use crate::role::{Flavour, Role};
use crate::{PASS_MARK, record};
use desired::{Globals, TierPolicies, WorkloadPolicy};
use model::{PolicyKey, ProfileId, TierAction};
use net::{Family, Protocol};
use nftables::{Chain, ChainName, CtState, Match, NetList, Rule, Side, Statement, Text, Verdict};
use std::fmt::Write;

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

/// A stack before it is rendered: everything that its chains depend on.
pub(crate) struct Stack<'a, P, R> {
    pub(crate) role: Role,
    pub(crate) globals: &'a Globals,
    pub(crate) tiers: &'a [TierPolicies],
    pub(crate) profiles: &'a [ProfileId],
    /// Shapes of policies in the role's direction.
    pub(crate) policy: P,
    /// Shapes of profiles in the role's direction.
    pub(crate) profile: R,
}

impl<P: Fn(&PolicyKey) -> Shape, R: Fn(&str) -> Shape> Stack<'_, P, R> {
    /// The tiers that have policies here.
    fn tiers(&self) -> impl Iterator<Item = (&TierPolicies, &[PolicyKey])> {
        self.tiers
            .iter()
            .map(|t| (t, self.role.policies(t)))
            .filter(|(_, policies)| !policies.is_empty())
    }

    /// Whether there is nothing to ask, and that lets through.
    pub(crate) fn is_open(&self) -> bool {
        !self.role.closes() && self.tiers().next().is_none()
    }

    /// The first of its chains: its name says what it is.
    pub(crate) fn first(&self) -> ChainName {
        name::stack(&self.id(), self.role.prefix(self.globals), 0)
    }

    fn id(&self) -> String {
        let mut text = String::new();
        for (t, policies) in self.tiers() {
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
                    (self.policy)(p)
                );
            }
        }
        for p in self.profiles {
            let _ = write!(text, " {p:?} {:?}", (self.profile)(p));
        }
        let g = self.globals;
        if g.deny != desired::DenyAction::default() {
            text.push_str(" answering");
        }
        if g.nflog {
            text.push_str(" recorded");
        }
        if !Role::WORKLOAD.contains(&self.role) && g.allow_invalid {
            text.push_str(" invalid too");
        }
        name::stack_id(&text)
    }

    /// The chains. The first is the one to enter.
    pub(crate) fn chains(&self) -> Vec<(ChainName, Chain)> {
        let id = self.id();
        let g = self.globals;
        let d = self.role.direction();
        let flavour = self.role.flavour(g);
        let part = |n: usize| name::stack(&id, self.role.prefix(g), n);
        let chain = |rules| Chain { base: None, rules };
        let mut out: Vec<(ChainName, Chain)> = Vec::new();
        let mut rules = head(self.role, g);
        let mut cleared = false;
        for (tier, policies) in self.tiers() {
            let next = part(out.len() + 1);
            let passes = policies.iter().any(|p| (self.policy)(p) == Shape::Passes);
            if passes && !cleared {
                // The bit may be somebody else's until here.
                rules.push(Rule {
                    statements: vec![CLEAR],
                    ..Rule::default()
                });
                cleared = true;
            }
            for key in policies {
                let shape = (self.policy)(key);
                if shape != Shape::Empty {
                    rules.push(go(Verdict::Jump(name::policy(key, flavour, d))));
                }
                if shape == Shape::Passes {
                    rules.push(passed(&next));
                }
            }
            let denies = self.role.tiers_deny() && tier.default_action == TierAction::Deny;
            if denies {
                let told = record::end_of_tier(g, d, &tier.name);
                let comment = format!("end of tier {}", tier.name);
                rules.push(denied(g, flavour, &comment, told));
            } else if passes {
                rules.push(go(Verdict::Goto(next)));
            }
            if passes {
                out.push((part(out.len()), chain(std::mem::take(&mut rules))));
            } else if denies {
                // Nothing comes past here.
                out.push((part(out.len()), chain(rules)));
                return out;
            }
        }
        if self.role.closes() {
            for id in self.profiles {
                if (self.profile)(id) != Shape::Empty {
                    rules.push(go(Verdict::Jump(name::profile(id, flavour, d))));
                }
            }
            let told = record::no_profile(g, d);
            rules.push(denied(g, flavour, "no policy or profile allows it", told));
        } else {
            rules.push(go(Verdict::Accept));
        }
        out.push((part(out.len()), chain(rules)));
        out
    }
}

/// A packet that the policy before passed leaves the tier.
fn passed(next: &ChainName) -> Rule {
    Rule {
        matches: vec![Match::Mark {
            mask: PASS_MARK,
            value: PASS_MARK,
            negate: false,
        }],
        statements: vec![CLEAR],
        verdict: Some(Verdict::Goto(next.clone())),
        comment: Text::default(),
    }
}

fn denied(g: &Globals, flavour: Flavour, comment: &str, told: Option<Statement>) -> Rule {
    let mut statements = vec![Statement::Counter];
    statements.extend(told);
    Rule {
        matches: Vec::new(),
        statements,
        verdict: Some(policy::denial(g, flavour)),
        comment: Text::new(comment),
    }
}

/// What comes before the policies of host endpoints.
fn head(role: Role, g: &Globals) -> Vec<Rule> {
    let mut out = Vec::new();
    let tracked = !matches!(
        role,
        Role::ToWorkload | Role::FromWorkload | Role::RawIn | Role::RawOut
    );
    if tracked && !g.allow_invalid {
        out.push(Rule {
            matches: vec![Match::CtState {
                states: CtState::INVALID,
                negate: false,
            }],
            statements: vec![Statement::Counter],
            verdict: Some(policy::denial(g, role.flavour(g))),
            comment: Text::new("invalid connection state"),
        });
    }
    let forwarded = matches!(role, Role::ForwardIn | Role::ForwardOut);
    if !forwarded && !Role::WORKLOAD.contains(&role) {
        let icmp = Match::L4Proto {
            proto: Protocol::ICMPV6,
            negate: false,
        };
        out.push(Rule {
            matches: vec![icmp],
            verdict: Some(Verdict::Jump(name::fixed("discovery-host"))),
            ..Rule::default()
        });
    }
    let failsafe = match role {
        Role::HostIn | Role::PreDnat => "failsafe-in",
        Role::HostOut | Role::Translated => "failsafe-out",
        Role::RawIn => "failsafe-in-raw",
        Role::RawOut => "failsafe-out-raw",
        _ => return out,
    };
    out.push(go(Verdict::Jump(name::fixed(failsafe))));
    out
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
