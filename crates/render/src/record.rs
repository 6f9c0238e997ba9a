//! Records of verdicts for flow logs, sent to NFLOG groups.
//!
//! Promises: the reference's groups and prefixes: 1 for ingress and 2 for egress;
//! `<A|D|P><P|R><I|E><index>|<id>` for a rule, `DPI|<tier>` at the end of a tier,
//! `DRI` where no profile allows; a prefix of 63 bytes or more is hashed in its middle, which
//! keeps ten bytes at either end.
//! Never: is there unless the settings ask for it.

use crate::name::{self, Direction};
use desired::Globals;
use model::{Action, PolicyKey};
use nftables::{LogTo, Statement, Text};
use sha2::{Digest, Sha256};

/// Readers of the reference want the headers, not the payload.
const SNAPLEN: u32 = 80;

/// The kernel's limit for this family of log targets, without the final NUL.
const MAX: usize = 63;

/// Whose rule it is.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Id<'a> {
    Policy(&'a PolicyKey),
    Profile(&'a str),
}

const fn direction(d: Direction) -> char {
    match d {
        Direction::Ingress => 'I',
        Direction::Egress => 'E',
    }
}

fn statement(g: &Globals, d: Direction, prefix: &str) -> Option<Statement> {
    let group = match d {
        Direction::Ingress => 1,
        Direction::Egress => 2,
    };
    g.nflog.then(|| Statement::Log {
        prefix: Text::new(&fit(prefix)),
        to: LogTo::GroupWith {
            group,
            snaplen: SNAPLEN,
            threshold: 0,
        },
    })
}

/// Of a rule.
pub(crate) fn rule(
    g: &Globals,
    action: Action,
    d: Direction,
    index: usize,
    id: Id<'_>,
) -> Option<Statement> {
    let action = match action {
        Action::Allow => 'A',
        Action::Deny => 'D',
        Action::Pass => 'P',
        Action::Log => return None,
    };
    let (owner, id) = match id {
        Id::Policy(key) => {
            let kind = name::kind(key.kind);
            let id = match &key.namespace {
                Some(ns) => format!("{kind}/{ns}/{}", key.name),
                None => format!("{kind}/{}", key.name),
            };
            ('P', id)
        }
        Id::Profile(id) => ('R', id.to_owned()),
    };
    let d_letter = direction(d);
    statement(g, d, &format!("{action}{owner}{d_letter}{index}|{id}"))
}

/// Of the end of a tier, which denies.
pub(crate) fn end_of_tier(g: &Globals, d: Direction, tier: &str) -> Option<Statement> {
    statement(g, d, &format!("DP{}|{tier}", direction(d)))
}

/// Of what no profile allows.
pub(crate) fn no_profile(g: &Globals, d: Direction) -> Option<Statement> {
    statement(g, d, &format!("DR{}", direction(d)))
}

fn fit(prefix: &str) -> String {
    if prefix.len() < MAX {
        return prefix.to_owned();
    }
    let floor = |mut i: usize| {
        while !prefix.is_char_boundary(i) {
            i -= 1;
        }
        i
    };
    let head = &prefix[..floor(10)];
    let tail = &prefix[floor(prefix.len() - 10)..];
    let hash: String = Sha256::digest(prefix)
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect();
    let room = MAX - 1 - head.len() - tail.len();
    format!("{head}{}_{tail}", &hash[..room.min(hash.len())])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_prefixes_keep_their_ends() {
        let long = format!("API0|np/default/{}", "x".repeat(80));
        let short = fit(&long);
        assert_eq!(short.len(), MAX);
        assert!(short.starts_with("API0|np/de") && short.ends_with("_xxxxxxxxxx"));
        assert_ne!(short, fit(&format!("{long}x")));
        assert_eq!(fit("DPI|default"), "DPI|default");
    }
}
