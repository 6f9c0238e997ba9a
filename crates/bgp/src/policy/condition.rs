//! What a term can ask about a route.
//!
//! Promises: each condition is a plain predicate. Never: changes a route.

use super::Question;
use crate::attr::{Community, LargeCommunity};
use crate::types::PeerKind;
use net::{Asn, Cidr};
use std::ops::RangeInclusive;

/// Where a route came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SourceKind {
    /// From this router.
    Local,
    /// From a BGP peer.
    Peer,
}

/// How the destination must lie to the prefix of a condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PrefixRelation {
    /// The same prefix and length.
    Equal,
    /// Another prefix or length.
    NotEqual,
    /// Inside of it or equal.
    In,
    /// Neither inside nor equal.
    NotIn,
}

/// A condition on the destination.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PrefixMatch {
    /// The prefix.
    pub cidr: Cidr,
    /// How the destination must lie to it.
    pub relation: PrefixRelation,
    /// The lengths that the destination may have, for [`PrefixRelation::In`] and
    /// [`PrefixRelation::NotIn`]: `NotIn` holds for what is inside but of another length.
    pub lengths: Option<RangeInclusive<u8>>,
}

impl PrefixMatch {
    /// Everything inside `cidr`, itself too.
    pub const fn inside(cidr: Cidr) -> Self {
        Self {
            cidr,
            relation: PrefixRelation::In,
            lengths: None,
        }
    }

    /// Just `cidr`.
    pub const fn exactly(cidr: Cidr) -> Self {
        Self {
            cidr,
            relation: PrefixRelation::Equal,
            lengths: None,
        }
    }

    /// Whether the destination lies as wanted.
    pub fn holds(&self, prefix: Cidr) -> bool {
        let fits = self
            .lengths
            .as_ref()
            .is_none_or(|l| l.contains(&prefix.len()));
        match self.relation {
            PrefixRelation::Equal => prefix == self.cidr && fits,
            PrefixRelation::NotEqual => !(prefix == self.cidr && fits),
            PrefixRelation::In => self.cidr.covers(prefix) && fits,
            PrefixRelation::NotIn => !(self.cidr.covers(prefix) && fits),
        }
    }
}

/// A pattern of interface names: `*` is any text, `?` any one character.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Glob(pub Box<str>);

impl Glob {
    /// Whether the name fits, in time proportional to the product of the lengths.
    pub fn matches(&self, name: &str) -> bool {
        let (p, n) = (self.0.as_bytes(), name.as_bytes());
        let (mut i, mut j) = (0, 0);
        // Where to go on when what follows the last star does not fit.
        let mut star = None;
        while j < n.len() {
            match p.get(i) {
                Some(b'*') => {
                    star = Some((i, j));
                    i += 1;
                }
                Some(&c) if c == b'?' || c == n[j] => {
                    i += 1;
                    j += 1;
                }
                _ => {
                    let Some((at, from)) = star else {
                        return false;
                    };
                    star = Some((at, from + 1));
                    i = at + 1;
                    j = from + 1;
                }
            }
        }
        p[i..].iter().all(|&c| c == b'*')
    }
}

/// A condition.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Condition {
    /// The destination lies as wanted.
    Prefix(PrefixMatch),
    /// The destination lies as one of these wants.
    AnyPrefix(Vec<PrefixMatch>),
    /// The route carries the community.
    Community(Community),
    /// The route carries the large community.
    LargeCommunity(LargeCommunity),
    /// The AS path starts with these.
    AsPathPrefix(Vec<Asn>),
    /// The peer is this to us.
    Peer(PeerKind),
    /// The route came from there.
    Source(SourceKind),
    /// The route's interface fits; a route without one does not.
    Interface(Glob),
    /// LOCAL_PREF lies within; a route without one has 100.
    LocalPref(RangeInclusive<u32>),
    /// The condition does not hold.
    Not(Box<Condition>),
}

impl Condition {
    /// Whether it holds.
    pub fn holds(&self, q: &Question<'_>) -> bool {
        match self {
            Self::Prefix(m) => m.holds(q.prefix),
            Self::AnyPrefix(all) => all.iter().any(|m| m.holds(q.prefix)),
            Self::Community(c) => q.attributes.communities.contains(*c),
            Self::LargeCommunity(c) => q.attributes.large_communities.contains(*c),
            Self::AsPathPrefix(asns) => q.attributes.as_path.starts_with(asns),
            Self::Peer(kind) => q.peer == *kind,
            Self::Source(kind) => q.source == *kind,
            Self::Interface(glob) => q.interface.is_some_and(|i| glob.matches(i.as_str())),
            Self::LocalPref(range) => range.contains(&q.attributes.local_pref.unwrap_or(100)),
            Self::Not(c) => !c.holds(q),
        }
    }

    pub(super) fn reads_prefix(&self) -> bool {
        match self {
            Self::Prefix(_) | Self::AnyPrefix(_) => true,
            Self::Not(c) => c.reads_prefix(),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs() {
        let fits = |p: &str, n: &str| Glob(p.into()).matches(n);
        assert!(fits("*.cali", "vxlan.cali") && fits("bpf*.cali", "bpfin.cali"));
        assert!(fits("eth?", "eth0") && !fits("eth?", "eth10") && !fits("eth?", "eth"));
        assert!(fits("*", "") && fits("a*b*c", "axxbyybzc") && !fits("a*b*c", "axxbyyb"));
        assert!(!fits("", "x") && fits("", ""));
    }

    #[test]
    fn prefixes_lie_as_calicos_operators_say() {
        let c = |s: &str| s.parse::<Cidr>().expect("test prefix");
        let m = |relation, lengths| PrefixMatch {
            cidr: c("10.0.0.0/8"),
            relation,
            lengths,
        };
        use PrefixRelation::{Equal, In, NotEqual, NotIn};
        assert!(m(Equal, None).holds(c("10.0.0.0/8")) && !m(Equal, None).holds(c("10.0.0.0/9")));
        assert!(m(NotEqual, None).holds(c("10.0.0.0/9")));
        assert!(m(In, None).holds(c("10.1.0.0/16")) && m(In, None).holds(c("10.0.0.0/8")));
        assert!(!m(In, Some(24..=32)).holds(c("10.1.0.0/16")));
        assert!(m(NotIn, Some(24..=32)).holds(c("10.1.0.0/16")));
        assert!(m(NotIn, None).holds(c("fd00::/64")));
    }
}
