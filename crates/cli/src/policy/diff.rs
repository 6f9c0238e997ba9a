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
use std::collections::{BTreeMap, BTreeSet};
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

/// Those who get the same from the same are one paragraph.
fn text(classes: &[Class], changes: &[Change], notes: &[String]) -> String {
    let mut out = String::new();
    for (opened, head) in [(true, "opens"), (false, "closes")] {
        let mut by_target: BTreeMap<usize, Vec<String>> = BTreeMap::new();
        for c in changes.iter().filter(|c| c.opened == opened) {
            let lines = by_target.entry(c.to).or_default();
            lines.extend(one_change(classes, c));
        }
        let mut by_text: Vec<(Vec<String>, BTreeSet<usize>)> = Vec::new();
        for (to, lines) in by_target {
            match by_text.iter_mut().find(|(l, _)| *l == lines) {
                Some((_, targets)) => _ = targets.insert(to),
                None => by_text.push((lines, BTreeSet::from([to]))),
            }
        }
        if !by_text.is_empty() {
            _ = writeln!(out, "{head}:");
        }
        for (lines, targets) in by_text {
            for to in names(classes, &targets, None) {
                _ = writeln!(out, "  to {to}");
            }
            for line in lines {
                _ = writeln!(out, "    {line}");
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

fn one_change(classes: &[Class], c: &Change) -> Vec<String> {
    let mut out = vec![c.what.clone()];
    let (nodes, others): (BTreeSet<usize>, BTreeSet<usize>) =
        c.from.iter().partition(|i| classes[**i].is_node());
    let to = &classes[c.to];
    // A node's own pods are never closed to it.
    let which = match to.namespace {
        Some(_) => " (not of the same node)",
        None => "",
    };
    out.extend(names(classes, &others, Some(c.to)).map(|n| format!("  from {n}")));
    out.extend(names(classes, &nodes, None).map(|n| format!("  from {n}{which}")));
    if !c.reason.is_empty() {
        out.push(format!("  because {}", c.reason));
    }
    out
}

/// Names of classes; all pods, all of a namespace, all outside by one. `but` cannot be among
/// them if it is alone in its class: it does not talk to itself.
fn names(
    classes: &[Class],
    chosen: &BTreeSet<usize>,
    but: Option<usize>,
) -> impl Iterator<Item = String> + use<> {
    let alone = but.filter(|b| classes[*b].members.len() == 1);
    let all = |of: &dyn Fn(&Class) -> bool| -> BTreeSet<usize> {
        let own = classes.iter().enumerate().filter(|(_, c)| of(c));
        own.map(|(i, _)| i).filter(|i| Some(*i) != alone).collect()
    };
    let mut left = chosen.clone();
    let mut out = Vec::new();
    let mut take = |group: BTreeSet<usize>, name: String| {
        if group.len() > 1 && group.is_subset(&left) {
            left.retain(|i| !group.contains(i));
            out.push(name);
        }
    };
    let other = if but.is_some() { "other " } else { "" };
    take(all(&|c| c.namespace.is_some()), format!("every {other}pod"));
    let namespaces: BTreeSet<&String> = classes
        .iter()
        .filter_map(|c| c.namespace.as_ref())
        .collect();
    for n in namespaces {
        let group = all(&|c| c.namespace.as_ref() == Some(n));
        let pods: usize = group.iter().map(|i| classes[*i].members.len()).sum();
        take(group, format!("{n}/* ({pods} pods)"));
    }
    take(all(&Class::is_outside), "anywhere outside".to_owned());
    out.extend(left.iter().map(|i| classes[*i].name.clone()));
    out.into_iter()
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
