//! Route policy, as data.
//!
//! Promises: a policy is an ordered list of terms; the first that matches and has a verdict
//! decides, and the result says which; conditions see the route as it came, operations
//! apply afterwards in the order of their terms. Never: knows peers or tables; the
//! question comes with all that conditions ask for.

mod condition;

pub use condition::{Condition, Glob, PrefixMatch, PrefixRelation, SourceKind};

use crate::attr::{Attributes, Community, LargeCommunity};
use crate::types::PeerKind;
use net::{Asn, Cidr, IfName};
use smallvec::SmallVec;

/// What becomes of a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// It is taken, or told.
    Accept,
    /// It is not.
    Reject,
}

/// A policy for one direction of one peer; peers may share one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// The terms, in order.
    pub terms: Vec<Term>,
    /// What becomes of a route that no term decides. Calico accepts all (RFC 8212 is off).
    pub default: Verdict,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            terms: Vec::new(),
            default: Verdict::Accept,
        }
    }
}

/// One term.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Term {
    /// What people know it by, such as the filter and the index of its rule.
    pub name: Box<str>,
    /// All must hold; none always does.
    pub conditions: Vec<Condition>,
    /// What is changed of a route that matches, and is accepted in the end.
    pub operations: Vec<Operation>,
    /// What becomes of a route that matches; `None` goes on to the next term.
    pub verdict: Option<Verdict>,
}

/// What a term changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation {
    /// Adds a community.
    AddCommunity(Community),
    /// Adds a large community.
    AddLargeCommunity(LargeCommunity),
    /// Removes a community.
    RemoveCommunity(Community),
    /// Prepends these to the AS path, so that the first of them is first.
    Prepend(Vec<Asn>),
    /// Sets LOCAL_PREF.
    SetLocalPref(u32),
    /// Sets MED; on export it is sent even to another AS.
    SetMed(u32),
    /// Sets the preference over all of BGP's rules. Of use on import only.
    SetPreference(u16),
}

/// The route and the session that a policy is asked about.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    /// The destination.
    pub prefix: Cidr,
    /// What the route carries.
    pub attributes: &'a Attributes,
    /// Where the route came from.
    pub source: SourceKind,
    /// What the peer is to us: on import the one that told, on export the one to tell.
    pub peer: PeerKind,
    /// The interface of a local route, or of the way to the next hop.
    pub interface: Option<IfName>,
}

/// What a policy says.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Answer {
    /// What becomes of the route.
    pub verdict: Verdict,
    /// The term that decided; `None` is the default.
    pub decided_by: Option<u16>,
    /// The terms whose operations apply, in order; empty when rejected.
    pub applied: SmallVec<[u16; 4]>,
}

impl Policy {
    /// What the policy says about a route.
    pub fn ask(&self, q: &Question<'_>) -> Answer {
        let mut applied = SmallVec::new();
        for (i, term) in (0u16..).zip(&self.terms) {
            if !term.conditions.iter().all(|c| c.holds(q)) {
                continue;
            }
            if term.verdict == Some(Verdict::Reject) {
                return Answer {
                    verdict: Verdict::Reject,
                    decided_by: Some(i),
                    applied: SmallVec::new(),
                };
            }
            if !term.operations.is_empty() {
                applied.push(i);
            }
            if term.verdict == Some(Verdict::Accept) {
                return Answer {
                    verdict: Verdict::Accept,
                    decided_by: Some(i),
                    applied,
                };
            }
        }
        if self.default == Verdict::Reject {
            applied.clear();
        }
        Answer {
            verdict: self.default,
            decided_by: None,
            applied,
        }
    }

    /// Whether the answer depends on the destination; if not, routes with the same
    /// attributes from the same peer need one question.
    pub fn reads_prefix(&self) -> bool {
        let reads = |c: &Condition| c.reads_prefix();
        self.terms.iter().any(|t| t.conditions.iter().any(reads))
    }

    /// Whether it accepts everything as it is.
    pub fn is_open(&self) -> bool {
        self.terms.is_empty() && self.default == Verdict::Accept
    }

    /// The operations of the terms of an answer, in order.
    pub fn operations<'a>(&'a self, answer: &'a Answer) -> impl Iterator<Item = &'a Operation> {
        answer
            .applied
            .iter()
            .filter_map(|&i| self.terms.get(usize::from(i)))
            .flat_map(|t| &t.operations)
    }

    /// The name of the term that decided.
    pub fn name_of(&self, answer: &Answer) -> Option<&str> {
        let i = usize::from(answer.decided_by?);
        self.terms.get(i).map(|t| &*t.name)
    }
}

impl Operation {
    /// Changes the attributes. [`Operation::SetPreference`] changes none.
    pub fn apply(&self, a: &mut Attributes) {
        match self {
            Self::AddCommunity(c) => {
                a.communities.insert(*c);
            }
            Self::AddLargeCommunity(c) => {
                a.large_communities.insert(*c);
            }
            Self::RemoveCommunity(c) => a.communities.retain(|have| have != c),
            Self::Prepend(asns) => {
                for asn in asns.iter().rev() {
                    a.as_path = a.as_path.prepend(*asn, 1);
                }
            }
            Self::SetLocalPref(n) => a.local_pref = Some(*n),
            Self::SetMed(n) => a.med = Some(*n),
            Self::SetPreference(_) => {}
        }
    }
}
