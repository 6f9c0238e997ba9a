//! What can be wrong with an object or a document, in the words that users know.

use crate::resource::ResourceKind;
use std::fmt;

/// One violation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Path of the field, such as `spec.ingress[0].source.nets`.
    pub field: String,
    /// The value that it has.
    pub value: String,
    /// Why that cannot be.
    pub reason: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} = '{}'", self.field, self.value)?;
        if self.reason.is_empty() {
            Ok(())
        } else {
            write!(f, " ({})", self.reason)
        }
    }
}

/// Everything that is wrong with an object; never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invalid {
    /// In the order of the fields.
    pub violations: Vec<Violation>,
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.violations.as_slice() {
            [one] => write!(f, "error with field {one}"),
            many => {
                f.write_str("error with the following fields:")?;
                many.iter().try_for_each(|v| write!(f, "\n-  {v}"))
            }
        }
    }
}

impl std::error::Error for Invalid {}

/// A stored object that cannot be used; it counts as absent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{object}: {reason}")]
pub struct BadObject {
    /// `Kind(namespace/name)`, or its key.
    pub object: String,
    /// What is wrong.
    pub reason: String,
}

/// Where something is in a user's file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Position {
    /// The file, as the user named it.
    pub source: String,
    /// From 1.
    pub line: usize,
    /// From 1.
    pub column: usize,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.source, self.line, self.column)
    }
}

/// A document of a user's file that is no resource.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{position}: {problem}")]
pub struct DocError {
    /// Where.
    pub position: Position,
    /// What.
    pub problem: DocProblem,
}

/// What is wrong with a document.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DocProblem {
    /// It is neither YAML nor JSON, or a field has the wrong type.
    #[error("{0}")]
    Malformed(String),
    /// Fields that no such resource has.
    #[error("field in document is not recognized or is in the wrong location: {}", .0.join(", "))]
    UnknownFields(Vec<String>),
    /// No such resource.
    #[error("resource type '{kind}' is not supported{}", version_note(.api_version, .kind))]
    UnknownKind {
        /// As written.
        api_version: String,
        /// As written.
        kind: String,
    },
    /// It does not say what it is.
    #[error("{0} is missing")]
    Untyped(&'static str),
}

fn version_note(version: &str, kind: &str) -> String {
    let mut out = match version {
        "" => String::new(),
        v => format!(" (apiVersion {v})"),
    };
    if let Some(meant) = meant(kind) {
        out.push_str(&format!("; {meant}"));
    }
    out
}

/// What somebody probably meant by a kind that there is not.
fn meant(kind: &str) -> Option<String> {
    if ["AdminNetworkPolicy", "BaselineAdminNetworkPolicy"].contains(&kind) {
        let now = ResourceKind::ClusterNetworkPolicy.info();
        return Some(format!(
            "{} of {} takes its place",
            now.kind, now.api_version
        ));
    }
    let near = ResourceKind::ALL.iter().map(|k| k.info());
    let near = near.filter(|i| within_two(&i.kind.to_lowercase(), &kind.to_lowercase()));
    let mut near: Vec<String> = near
        .map(|i| format!("kind {} of apiVersion {}", i.kind, i.api_version))
        .collect();
    near.sort();
    near.dedup();
    match near.is_empty() {
        true => None,
        false => Some(format!("there is {}", near.join(", "))),
    }
}

/// Whether two insertions, removals or changes of a byte make one word of the other.
fn within_two(a: &str, b: &str) -> bool {
    let mut above: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut row = vec![i + 1];
        for (j, y) in b.bytes().enumerate() {
            let change = above[j] + usize::from(x != y);
            row.push(change.min(above[j + 1] + 1).min(row[j] + 1));
        }
        above = row;
    }
    above.last().is_some_and(|d| *d <= 2)
}
