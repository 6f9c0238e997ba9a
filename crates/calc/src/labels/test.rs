//! Selectors over words, as they are kept.
//!
//! Promises: holds of exactly the label sets that the selector matches; takes a few bytes a term.
//!
//! Never: outlives its words; whoever drops one gives them back.

use crate::interner::{Interner, Word};
use model::selector::{Expr, NAMESPACE_LABEL};

/// An expression whose labels and values are words.
#[derive(Debug)]
pub(super) enum Test {
    Eq(Word, Word),
    Ne(Word, Word),
    /// Sorted.
    In(Word, Box<[Word]>),
    /// Sorted.
    NotIn(Word, Box<[Word]>),
    Contains(Word, Box<str>),
    StartsWith(Word, Box<str>),
    EndsWith(Word, Box<str>),
    Has(Word),
    Lacks(Word),
    All,
    Not(Box<Test>),
    And(Box<[Test]>),
    Or(Box<[Test]>),
}

impl Test {
    /// The same as an expression, with a reference to each word.
    pub(super) fn new(words: &mut Interner, expr: &Expr) -> Self {
        let sorted = |words: &mut Interner, values: &[std::sync::Arc<str>]| -> Box<[Word]> {
            let mut out: Vec<Word> = values.iter().map(|v| words.acquire(v)).collect();
            out.sort_unstable();
            out.into()
        };
        match expr {
            Expr::Eq(l, v) => Self::Eq(words.acquire(l), words.acquire(v)),
            Expr::Ne(l, v) => Self::Ne(words.acquire(l), words.acquire(v)),
            Expr::In(l, v) => Self::In(words.acquire(l), sorted(words, v)),
            Expr::NotIn(l, v) => Self::NotIn(words.acquire(l), sorted(words, v)),
            Expr::Contains(l, v) => Self::Contains(words.acquire(l), (&**v).into()),
            Expr::StartsWith(l, v) => Self::StartsWith(words.acquire(l), (&**v).into()),
            Expr::EndsWith(l, v) => Self::EndsWith(words.acquire(l), (&**v).into()),
            Expr::Has(l) => Self::Has(words.acquire(l)),
            Expr::Global => Self::Lacks(words.acquire(NAMESPACE_LABEL)),
            Expr::All => Self::All,
            Expr::Not(e) => Self::Not(Box::new(Self::new(words, e))),
            Expr::And(v) => Self::And(v.iter().map(|e| Self::new(words, e)).collect()),
            Expr::Or(v) => Self::Or(v.iter().map(|e| Self::new(words, e)).collect()),
        }
    }

    /// Whether it holds where labels have these values.
    pub(super) fn holds(&self, words: &Interner, label: &impl Fn(Word) -> Option<Word>) -> bool {
        match self {
            Self::All => true,
            Self::Not(t) => !t.holds(words, label),
            Self::And(all) => all.iter().all(|t| t.holds(words, label)),
            Self::Or(all) => all.iter().any(|t| t.holds(words, label)),
            one => one.label().is_some_and(|l| one.holds_with(words, label(l))),
        }
    }

    /// Whether a single term holds with this value of its label.
    fn holds_with(&self, words: &Interner, value: Option<Word>) -> bool {
        let text = |holds: &dyn Fn(&str) -> bool| value.is_some_and(|v| holds(words.text(v)));
        match self {
            Self::Eq(_, v) => value == Some(*v),
            Self::Ne(_, v) => value != Some(*v),
            Self::In(_, all) => value.is_some_and(|v| all.binary_search(&v).is_ok()),
            Self::NotIn(_, all) => value.is_none_or(|v| all.binary_search(&v).is_err()),
            Self::Contains(_, s) => text(&|t| t.contains(&**s)),
            Self::StartsWith(_, s) => text(&|t| t.starts_with(&**s)),
            Self::EndsWith(_, s) => text(&|t| t.ends_with(&**s)),
            Self::Has(_) => value.is_some(),
            Self::Lacks(_) => value.is_none(),
            Self::All | Self::Not(_) | Self::And(_) | Self::Or(_) => true,
        }
    }

    /// The label that a single term speaks of.
    fn label(&self) -> Option<Word> {
        match self {
            Self::Eq(l, _)
            | Self::Ne(l, _)
            | Self::In(l, _)
            | Self::NotIn(l, _)
            | Self::Contains(l, _)
            | Self::StartsWith(l, _)
            | Self::EndsWith(l, _)
            | Self::Has(l)
            | Self::Lacks(l) => Some(*l),
            Self::All | Self::Not(_) | Self::And(_) | Self::Or(_) => None,
        }
    }

    /// Whether some term on a label holds with one of two values and not with the other.
    pub(super) fn feels(&self, words: &Interner, label: Word, before: Word, after: Word) -> bool {
        let mut found = false;
        self.each(&mut |t| {
            found |= t.label() == Some(label)
                && t.holds_with(words, Some(before)) != t.holds_with(words, Some(after));
        });
        found
    }

    /// Every label that it speaks of, sorted, each once.
    pub(super) fn labels(&self) -> Vec<Word> {
        let mut out = Vec::new();
        self.each(&mut |t| out.extend(t.label()));
        out.sort_unstable();
        out.dedup();
        out
    }

    /// Gives its words back.
    pub(super) fn release(&self, words: &mut Interner) {
        self.each(&mut |t| {
            if let Some(l) = t.label() {
                words.release(l);
            }
            match t {
                Self::Eq(_, v) | Self::Ne(_, v) => words.release(*v),
                Self::In(_, all) | Self::NotIn(_, all) => {
                    all.iter().for_each(|v| words.release(*v));
                }
                _ => {}
            }
        });
    }

    /// Every single term.
    fn each(&self, see: &mut impl FnMut(&Self)) {
        match self {
            Self::Not(t) => t.each(see),
            Self::And(all) | Self::Or(all) => all.iter().for_each(|t| t.each(see)),
            one => see(one),
        }
    }
}
