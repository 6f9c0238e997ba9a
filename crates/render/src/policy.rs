//! The chains of policies and profiles.
//!
//! Promises: a chain decides by its own verdict: Allow ends our base chain, Deny the packet.
//! Pass marks the packet and returns; whoever jumps to a chain with Pass looks at the mark.
//! Never: depends on who uses the policy.

use crate::name::{self, Direction};
use crate::{PASS_MARK, rule};
use desired::Rule;
use model::{Action, PolicyKey};
use nftables::{Chain, Level, LogTo, Statement, Text, Verdict};

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
    pub(crate) ingress: Shape,
    pub(crate) egress: Shape,
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
pub(crate) enum Owner<'a> {
    Policy(&'a PolicyKey, &'a str),
    Profile(&'a str),
}

impl Owner<'_> {
    fn comment(&self, d: Direction, index: usize) -> Text {
        let d = d.name();
        // The end is what tells rules apart, so the name gives way.
        let tail = format!(" {d} {index}");
        let mut head = match self {
            Self::Policy(key, _) => key.to_string(),
            Self::Profile(id) => format!("Profile({id})"),
        };
        let room = nftables::TEXT_MAX - tail.len();
        if head.len() > room {
            let cut = (0..=room)
                .rev()
                .find(|i| head.is_char_boundary(*i))
                .unwrap_or(0);
            head.truncate(cut);
        }
        Text::new(&(head + &tail))
    }

    /// The prefix with its specifiers (`%t`, `%k`, `%n`, `%p`) replaced, as Calico does.
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
        let mut chars = prefix.chars();
        while let Some(c) = chars.next() {
            let value = match (c, c == '%') {
                (_, true) => match chars.clone().next() {
                    Some('t') => tier,
                    Some('k') => kind,
                    Some('n') => &name,
                    Some('p') => &path,
                    _ => {
                        out.push(c);
                        continue;
                    }
                },
                (c, false) => {
                    out.push(c);
                    continue;
                }
            };
            out.push_str(value);
            chars.next();
        }
        out.push_str(": ");
        Text::new(&out)
    }
}

/// The chain of one direction, `None` when it would do nothing, and its shape.
pub(crate) fn chain(
    owner: &Owner<'_>,
    rules: &[Rule],
    d: Direction,
    log_prefix: &str,
) -> (Option<Chain>, Shape) {
    let passes = matches!(owner, Owner::Policy(..));
    let mut shape = Shape::Plain;
    let mut out = Vec::new();
    for (index, r) in rules.iter().enumerate() {
        let mut statements = vec![Statement::Counter];
        let verdict = match r.action {
            Action::Allow => Some(Verdict::Accept),
            Action::Deny => Some(Verdict::Drop),
            Action::Pass => {
                // In a profile it only ends that profile: there is no tier to leave.
                if passes {
                    statements.push(Statement::SetMark {
                        mask: PASS_MARK,
                        value: PASS_MARK,
                    });
                }
                Some(Verdict::Return)
            }
            Action::Log => {
                let prefix = owner.log_prefix(log_prefix);
                statements.push(Statement::Log {
                    prefix,
                    to: LogTo::Kernel(Level::Notice),
                });
                None
            }
        };
        let deed = rule::Deed {
            statements,
            verdict,
            comment: owner.comment(d, index),
        };
        let rendered = rule::render(r, &deed);
        if r.action == Action::Pass && passes && !rendered.is_empty() {
            shape = Shape::Passes;
        }
        out.extend(rendered);
    }
    if out.is_empty() {
        return (None, Shape::Empty);
    }
    (
        Some(Chain {
            base: None,
            rules: out,
        }),
        shape,
    )
}
