//! The chains of policies and profiles.
//!
//! Promises: a chain decides by its own verdict: Allow ends our base chain, Deny the packet.
//! Pass marks the packet and returns; whoever jumps to a chain with Pass looks at the mark.
//! Never: depends on who uses the policy, but for the flavours in use.

use crate::fold;
use crate::name::{self, Direction};
use crate::role::Flavour;
use crate::{ACCEPT_MARK, PASS_MARK, record, rule};
use desired::{DenyAction, Globals, LogRate, Rule};
use model::{Action, PolicyKey};
use nftables::{
    Chain, ChainName, Element, Level, LogTo, SetKind, SetName, Statement, Text, Verdict,
};
use std::collections::BTreeMap;

/// What a user of a chain must know of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Shape {
    /// It has no rules: there is no chain.
    #[default]
    Empty,
    /// It decides or returns.
    Plain,
    /// It may also mark the packet with [`PASS_MARK`].
    Passes,
}

/// The shapes of both directions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Shapes {
    ingress: Shape,
    egress: Shape,
}

impl Shapes {
    pub(crate) const fn get(self, d: Direction) -> Shape {
        match d {
            Direction::Ingress => self.ingress,
            Direction::Egress => self.egress,
        }
    }

    pub(crate) const fn set(&mut self, d: Direction, shape: Shape) {
        match d {
            Direction::Ingress => self.ingress = shape,
            Direction::Egress => self.egress = shape,
        }
    }
}

/// Whose rules they are, for comments and log lines.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Owner<'a> {
    Policy(&'a PolicyKey, &'a str),
    Profile(&'a str),
}

impl Owner<'_> {
    /// Names the owner, and the rule by its annotations. Not by its number: that would make
    /// another rule of each that follows a new one, and its counters begin anew.
    fn comment(
        &self,
        d: Direction,
        annotations: &[(std::sync::Arc<str>, std::sync::Arc<str>)],
    ) -> Text {
        let owner = match self {
            Self::Policy(key, _) => key.to_string(),
            Self::Profile(id) => format!("Profile({id})"),
        };
        let notes: String = annotations
            .iter()
            .map(|(k, v)| format!(" {k}={v}"))
            .collect();
        Text::new(&format!("{owner} {}{notes}", d.name()))
    }

    pub(crate) fn chain(&self, flavour: Flavour, d: Direction) -> ChainName {
        match self {
            Self::Policy(key, _) => name::policy(key, flavour, d),
            Self::Profile(id) => name::profile(id, flavour, d),
        }
    }

    /// The prefix with its specifiers (`%t`, `%k`, `%n`, `%p`) replaced, as Calico does; ": " at
    /// its end is never cut off.
    fn log_prefix(&self, prefix: &str) -> Text {
        let (tier, kind, name, path) = match self {
            Self::Policy(key, tier) => {
                let path = match &key.namespace {
                    Some(ns) => format!("{ns}/{}", key.name),
                    None => key.name.to_string(),
                };
                (*tier, name::kind(key.kind), key.name.to_string(), path)
            }
            Self::Profile(id) => ("__PROFILE__", "pro", (*id).to_owned(), (*id).to_owned()),
        };
        let mut out = String::new();
        let mut rest = prefix;
        while let Some(at) = rest.find('%') {
            out.push_str(&rest[..at]);
            let value = match rest[at + 1..].chars().next() {
                Some('t') => Some(tier),
                Some('k') => Some(kind),
                Some('n') => Some(name.as_str()),
                Some('p') => Some(path.as_str()),
                _ => None,
            };
            out.push_str(value.unwrap_or("%"));
            rest = &rest[at + 1 + usize::from(value.is_some())..];
        }
        out.push_str(rest);
        let room = nftables::TEXT_MAX - 2;
        let cut = (0..=room.min(out.len()))
            .rev()
            .find(|i| out.is_char_boundary(*i));
        out.truncate(cut.unwrap_or(0));
        out.push_str(": ");
        Text::new(&out)
    }
}

/// What a chain is rendered to.
#[derive(Debug, Default)]
pub(crate) struct Rendered {
    /// `None` when it would do nothing.
    pub(crate) chain: Option<Chain>,
    pub(crate) shape: Shape,
    /// Sets that only this chain uses.
    pub(crate) sets: BTreeMap<SetName, (SetKind, Vec<Element>)>,
}

/// The chain of one direction.
pub(crate) fn chain(
    owner: Owner<'_>,
    rules: &[Rule],
    flavour: Flavour,
    d: Direction,
    g: &Globals,
) -> Rendered {
    let passes = matches!(owner, Owner::Policy(..));
    let name = owner.chain(flavour, d);
    let mut long = rule::Long::new(&name);
    let mut shape = Shape::Plain;
    let mut out = Vec::new();
    // Where each verdict is told with its rule, rules stay apart.
    let folded = if g.nflog {
        fold::separate(rules)
    } else {
        fold::fold(rules)
    };
    for f in &folded {
        let action = f.rule.action;
        let (mut statements, verdict) = deed(action, flavour, passes, g);
        if action == Action::Log {
            let prefix = owner.log_prefix(&g.log_prefix);
            statements.extend(g.log_rate.map(limit));
            let to = LogTo::Kernel(Level::Notice);
            statements.push(Statement::Log { prefix, to });
        } else if flavour != Flavour::Untracked {
            let id = match owner {
                Owner::Policy(key, _) => record::Id::Policy(key),
                Owner::Profile(id) => record::Id::Profile(id),
            };
            statements.extend(record::rule(g, action, d, f.index, id));
        }
        let deed = rule::Deed {
            statements,
            verdict,
            comment: owner.comment(d, &f.rule.annotations),
        };
        let rendered = rule::render(f, &deed, &mut long);
        if action == Action::Pass && passes && !rendered.is_empty() {
            shape = Shape::Passes;
        }
        out.extend(rendered);
    }
    if out.is_empty() {
        return Rendered::default();
    }
    Rendered {
        chain: Some(Chain {
            base: None,
            rules: out,
        }),
        shape,
        sets: long.sets,
    }
}

/// What an action does in a flavour, apart from telling of it.
fn deed(
    action: Action,
    flavour: Flavour,
    passes: bool,
    g: &Globals,
) -> (Vec<Statement>, Option<Verdict>) {
    let mark = |bit| Statement::SetMark {
        mask: bit,
        value: bit,
    };
    let mut statements = vec![Statement::Counter];
    let verdict = match action {
        Action::Allow => {
            match flavour {
                Flavour::Plain | Flavour::Quiet => {}
                Flavour::Untracked => {
                    statements.extend([Statement::Notrack, mark(ACCEPT_MARK)]);
                }
                Flavour::PreDnat => statements.push(mark(ACCEPT_MARK)),
            }
            Verdict::Accept
        }
        Action::Deny => denial(g, flavour),
        Action::Pass => {
            // In a profile it only ends that profile: there is no tier to leave.
            if passes {
                statements.push(mark(PASS_MARK));
            }
            Verdict::Return
        }
        Action::Log => return (statements, None),
    };
    (statements, Some(verdict))
}

/// How what is denied ends.
pub(crate) fn denial(g: &Globals, flavour: Flavour) -> Verdict {
    match (g.deny, flavour) {
        (DenyAction::Reject, Flavour::Plain | Flavour::Untracked | Flavour::PreDnat) => {
            Verdict::Goto(name::fixed("denied"))
        }
        _ => Verdict::Drop,
    }
}

fn limit(r: LogRate) -> Statement {
    Statement::Limit {
        rate: u64::from(r.packets),
        per: match r.per {
            desired::Per::Second => nftables::Per::Second,
            desired::Per::Minute => nftables::Per::Minute,
            desired::Per::Hour => nftables::Per::Hour,
            desired::Per::Day => nftables::Per::Day,
        },
        burst: r.burst,
        over: false,
    }
}
