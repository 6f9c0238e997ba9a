//! The selector language.
//!
//! Promises: parses what Calico parses, with its precedence (`!` before
//! `&&` before `||`), prints one canonical text for equal expressions of the same shape, and
//! points at the column of the first thing it cannot read. Facts: label characters
//! `[A-Za-z0-9_./-]`, at most 512; strings in either quote without escapes; `!=` and
//! `not in` hold where the label is absent.
//!
//! Never: evaluates differently from its canonical text.

use crate::LabelSource;
use std::fmt;
use std::sync::Arc;

/// A node of the expression.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Expr {
    /// `l == "v"`
    Eq(Arc<str>, Arc<str>),
    /// `l != "v"`
    Ne(Arc<str>, Arc<str>),
    /// `l in {...}`: values sorted, each once.
    In(Arc<str>, Vec<Arc<str>>),
    /// `l not in {...}`
    NotIn(Arc<str>, Vec<Arc<str>>),
    /// `l contains "v"`
    Contains(Arc<str>, Arc<str>),
    /// `l starts with "v"`
    StartsWith(Arc<str>, Arc<str>),
    /// `l ends with "v"`
    EndsWith(Arc<str>, Arc<str>),
    /// `has(l)`
    Has(Arc<str>),
    /// `all()`
    All,
    /// `global()`: things without a namespace; only in a rule's namespaceSelector.
    Global,
    /// `!x`
    Not(Box<Expr>),
    /// `(a && b && ...)`: at least two.
    And(Vec<Expr>),
    /// `(a || b || ...)`: at least two.
    Or(Vec<Expr>),
}

/// The longest label that a selector may name.
pub const MAX_LABEL: usize = 512;

/// The label that names an object's namespace.
pub const NAMESPACE_LABEL: &str = "projectcalico.org/namespace";

/// A parsed selector. Cheap to copy, compares and hashes by its canonical text.
#[derive(Clone)]
pub struct Selector(Arc<Inner>);

struct Inner {
    expr: Expr,
    canonical: Box<str>,
}

/// What could not be read, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid selector {text:?}: {message} at column {column}")]
pub struct SelectorError {
    /// The whole selector.
    pub text: String,
    /// What is wrong.
    pub message: String,
    /// Where, in characters from 1.
    pub column: usize,
}

impl Selector {
    /// Parses a selector; blank text is `all()`.
    ///
    /// # Errors
    /// Says what is wrong at which column.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        parse::parse(text).map(Self::from_expr)
    }

    /// From an expression.
    pub fn from_expr(expr: Expr) -> Self {
        let canonical = expr.to_string().into_boxed_str();
        Self(Arc::new(Inner { expr, canonical }))
    }

    /// The selector that matches everything.
    pub fn all() -> Self {
        Self::from_expr(Expr::All)
    }

    /// The canonical text.
    pub fn as_str(&self) -> &str {
        &self.0.canonical
    }

    /// The expression.
    pub fn expr(&self) -> &Expr {
        &self.0.expr
    }

    /// Whether something with these labels is selected.
    pub fn matches(&self, labels: &(impl LabelSource + ?Sized)) -> bool {
        self.0.expr.matches(labels)
    }

    /// Both must hold. `all()` on either side falls away.
    pub fn and(&self, other: &Self) -> Self {
        match (self.expr(), other.expr()) {
            (Expr::All, _) => other.clone(),
            (_, Expr::All) => self.clone(),
            (a, b) => {
                let mut parts = Vec::new();
                for e in [a, b] {
                    match e {
                        Expr::And(p) => parts.extend(p.iter().cloned()),
                        e => parts.push(e.clone()),
                    }
                }
                Self::from_expr(Expr::And(parts))
            }
        }
    }

    /// The opposite.
    pub fn negate(&self) -> Self {
        match self.expr() {
            Expr::Not(e) => Self::from_expr((**e).clone()),
            e => Self::from_expr(Expr::Not(Box::new(e.clone()))),
        }
    }

    /// The same on labels whose names start with `prefix`: how a namespace's or service account's
    /// labels are reached (`pcns.`, `pcsa.`). `all()` and `global()` stay.
    pub fn prefixed(&self, prefix: &str) -> Self {
        Self::from_expr(
            self.0
                .expr
                .map_labels(&|l| Arc::from(format!("{prefix}{l}"))),
        )
    }

    /// Calico's ID of the selector's IP set: `s:` and the unpadded URL-safe base64 of the
    /// SHA-224 of `s:` and the canonical text.
    pub fn id(&self) -> String {
        use base64::Engine as _;
        use sha2::{Digest as _, Sha224};
        let hash = Sha224::digest(format!("s:{}", self.as_str()).as_bytes());
        format!(
            "s:{}",
            base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(hash)
        )
    }

    /// Whether `global()` appears anywhere.
    pub fn has_global(&self) -> bool {
        self.0.expr.any(&|e| matches!(e, Expr::Global))
    }
}

impl Expr {
    fn any(&self, f: &impl Fn(&Self) -> bool) -> bool {
        f(self)
            || match self {
                Self::Not(e) => e.any(f),
                Self::And(v) | Self::Or(v) => v.iter().any(|e| e.any(f)),
                _ => false,
            }
    }

    fn map_labels(&self, f: &impl Fn(&str) -> Arc<str>) -> Self {
        match self {
            Self::Eq(l, v) => Self::Eq(f(l), v.clone()),
            Self::Ne(l, v) => Self::Ne(f(l), v.clone()),
            Self::In(l, v) => Self::In(f(l), v.clone()),
            Self::NotIn(l, v) => Self::NotIn(f(l), v.clone()),
            Self::Contains(l, v) => Self::Contains(f(l), v.clone()),
            Self::StartsWith(l, v) => Self::StartsWith(f(l), v.clone()),
            Self::EndsWith(l, v) => Self::EndsWith(f(l), v.clone()),
            Self::Has(l) => Self::Has(f(l)),
            Self::All => Self::All,
            Self::Global => Self::Global,
            Self::Not(e) => Self::Not(Box::new(e.map_labels(f))),
            Self::And(v) => Self::And(v.iter().map(|e| e.map_labels(f)).collect()),
            Self::Or(v) => Self::Or(v.iter().map(|e| e.map_labels(f)).collect()),
        }
    }

    /// Whether something with these labels is selected.
    pub fn matches(&self, labels: &(impl LabelSource + ?Sized)) -> bool {
        match self {
            Self::Eq(l, v) => labels.label(l) == Some(v),
            Self::Ne(l, v) => labels.label(l) != Some(v),
            Self::In(l, v) => labels
                .label(l)
                .is_some_and(|x| v.binary_search_by(|s| (**s).cmp(x)).is_ok()),
            Self::NotIn(l, v) => labels
                .label(l)
                .is_none_or(|x| v.binary_search_by(|s| (**s).cmp(x)).is_err()),
            Self::Contains(l, v) => labels.label(l).is_some_and(|x| x.contains(&**v)),
            Self::StartsWith(l, v) => labels.label(l).is_some_and(|x| x.starts_with(&**v)),
            Self::EndsWith(l, v) => labels.label(l).is_some_and(|x| x.ends_with(&**v)),
            Self::Has(l) => labels.label(l).is_some(),
            Self::All => true,
            Self::Global => labels.label(NAMESPACE_LABEL).is_none(),
            Self::Not(e) => !e.matches(labels),
            Self::And(v) => v.iter().all(|e| e.matches(labels)),
            Self::Or(v) => v.iter().any(|e| e.matches(labels)),
        }
    }
}

struct Quoted<'a>(&'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let q = if self.0.contains('"') { '\'' } else { '"' };
        write!(f, "{q}{}{q}", self.0)
    }
}

fn list(f: &mut fmt::Formatter<'_>, l: &str, op: &str, values: &[Arc<str>]) -> fmt::Result {
    write!(f, "{l} {op} {{")?;
    for (i, v) in values.iter().enumerate() {
        write!(f, "{}{}", if i == 0 { "" } else { ", " }, Quoted(v))?;
    }
    f.write_str("}")
}

fn joined(f: &mut fmt::Formatter<'_>, parts: &[Expr], op: &str) -> fmt::Result {
    f.write_str("(")?;
    for (i, e) in parts.iter().enumerate() {
        write!(f, "{}{e}", if i == 0 { "" } else { op })?;
    }
    f.write_str(")")
}

impl fmt::Display for Expr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Eq(l, v) => write!(f, "{l} == {}", Quoted(v)),
            Self::Ne(l, v) => write!(f, "{l} != {}", Quoted(v)),
            Self::In(l, v) => list(f, l, "in", v),
            Self::NotIn(l, v) => list(f, l, "not in", v),
            Self::Contains(l, v) => write!(f, "{l} contains {}", Quoted(v)),
            Self::StartsWith(l, v) => write!(f, "{l} starts with {}", Quoted(v)),
            Self::EndsWith(l, v) => write!(f, "{l} ends with {}", Quoted(v)),
            Self::Has(l) => write!(f, "has({l})"),
            Self::All => f.write_str("all()"),
            Self::Global => f.write_str("global()"),
            Self::Not(e) => write!(f, "!{e}"),
            Self::And(v) => joined(f, v, " && "),
            Self::Or(v) => joined(f, v, " || "),
        }
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Selector({})", self.as_str())
    }
}

impl PartialEq for Selector {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for Selector {}

impl std::hash::Hash for Selector {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.as_str().hash(state);
    }
}

impl PartialOrd for Selector {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Selector {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.as_str().cmp(other.as_str())
    }
}

mod parse;

#[cfg(test)]
mod tests;
