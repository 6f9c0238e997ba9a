//! `manx policy diff -f CHANGES`.
//!
//! Promises: exit status 0 if no connection changes, 1 if one does, 2 if it cannot be told;
//! writes nothing.

use crate::CliError;
use crate::args::{AnswerFormat, PolicyDiffArgs, Sources};
use crate::cluster::Cluster;
use crate::policy::changes::{Change, Comparison};
use crate::policy::classes::Class;
use crate::policy::objects::Objects;
use crate::policy::{answered, json};
use crate::run::Console;
use serde_json::{Value, json};
use std::fmt::Write as _;

/// Compares; opens the store only if no files say how the cluster is.
pub(crate) fn run(
    args: &PolicyDiffArgs,
    open: impl FnOnce() -> Result<Cluster, CliError>,
    console: &mut Console<'_>,
) -> Result<(), CliError> {
    let done = compare(args, open, console);
    answered(done, console)
}

fn compare(
    args: &PolicyDiffArgs,
    open: impl FnOnce() -> Result<Cluster, CliError>,
    console: &mut Console<'_>,
) -> Result<(), CliError> {
    let change = match (args.files.sources.filename.is_empty(), args.staged) {
        (false, _) => Objects::of_files(&args.files.sources, &args.files.namespace, console)?,
        (true, true) => Objects::default(),
        (true, false) => {
            let text = "no change: name files with -f FILE, or -f -, or say --staged";
            return Err(CliError::Usage(text.to_owned()));
        }
    };
    let now = match args.cluster.is_empty() {
        true => Objects::of_store(&open()?)?,
        false => {
            let sources = Sources {
                filename: args.cluster.clone(),
                recursive: args.files.sources.recursive,
                skip_empty: true,
            };
            Objects::of_files(&sources, &args.files.namespace, console)?
        }
    };
    let then = match args.delete {
        true => now.without(&change)?,
        false => now.with(&change),
    };
    let ((before, _), (mut after, mut notes)) = (now.world(), then.world());
    if args.staged {
        after = after.with_staged_enforced();
    } else if change.has_staged() {
        notes
            .push("staged policies are not enforced: --staged shows what they would do".to_owned());
    }
    let comparison = Comparison::new(&before, &after, now.differs_in_policies_alone(&then));
    let changes = comparison.changes().ok_or_else(|| {
        let n = comparison.classes.len();
        CliError::Usage(format!(
            "too much to compare: rules tell {n} kinds of ends apart"
        ))
    })?;
    let text = match args.output {
        None => text(&comparison.classes, &changes, &notes),
        Some(AnswerFormat::Json) => json::pretty(&value(&comparison.classes, &changes, &notes))?,
        Some(AnswerFormat::Yaml) => api::yaml(&value(&comparison.classes, &changes, &notes)),
    };
    console.print(&text)?;
    match changes.is_empty() {
        true => Ok(()),
        false => Err(CliError::Status(1)),
    }
}

fn text(classes: &[Class], changes: &[Change], notes: &[String]) -> String {
    let mut out = String::new();
    for (opened, head) in [(true, "opens"), (false, "closes")] {
        let mut last = None;
        for c in changes.iter().filter(|c| c.opened == opened) {
            if last.is_none() {
                _ = writeln!(out, "{head}:");
            }
            if last != Some(c.to) {
                _ = writeln!(out, "  to {}", classes[c.to].name);
            }
            last = Some(c.to);
            _ = writeln!(out, "    {}", c.what);
            for from in &c.from {
                let (from, to) = (&classes[*from], &classes[c.to]);
                // A node's own pods are never closed to it.
                let others = from.is_node() && !to.is_node() && !to.is_outside();
                let which = if others {
                    " (not of the same node)"
                } else {
                    ""
                };
                _ = writeln!(out, "      from {}{which}", from.name);
            }
            if !c.reason.is_empty() {
                _ = writeln!(out, "      because {}", c.reason);
            }
        }
    }
    if changes.is_empty() {
        out.push_str("no connection changes\n");
    }
    for note in notes {
        _ = writeln!(out, "note: {note}");
    }
    out
}

fn value(classes: &[Class], changes: &[Change], notes: &[String]) -> Value {
    let class = |i: usize| json!({"name": classes[i].name, "members": classes[i].members});
    let changes: Vec<Value> = changes
        .iter()
        .map(|c| {
            json!({
                "change": if c.opened { "opens" } else { "closes" },
                "to": class(c.to),
                "what": c.what,
                "from": c.from.iter().map(|i| class(*i)).collect::<Vec<_>>(),
                "reason": c.reason,
            })
        })
        .collect();
    json!({"changes": changes, "notes": notes})
}
