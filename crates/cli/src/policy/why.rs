//! `manx why FROM TO [PORT[/PROTOCOL]]`.
//!
//! Promises: exit status 0 when there is an answer, whatever it is; with `--check`, 1 when it is
//! another; 2 when there is none.

use crate::CliError;
use crate::args::{AnswerFormat, WhyArgs};
use crate::cluster::Cluster;
use crate::policy::objects::Objects;
use crate::policy::{answered, ends, json};
use crate::run::Console;

/// Answers the question; opens the store only if no files are given.
pub(crate) fn run(
    args: &WhyArgs,
    open: impl FnOnce() -> Result<Cluster, CliError>,
    console: &mut Console<'_>,
) -> Result<(), CliError> {
    let done = ask(args, open, console);
    answered(done, console)
}

fn ask(
    args: &WhyArgs,
    open: impl FnOnce() -> Result<Cluster, CliError>,
    console: &mut Console<'_>,
) -> Result<(), CliError> {
    let objects = match args.sources.filename.is_empty() {
        true => Objects::of_store(&open()?)?,
        false => Objects::of_files(&args.sources, &args.namespace, console)?,
    };
    let (world, assumed) = objects.world();
    let flow = ends::flow(args, &world)?;
    let mut answer = world.explain(&flow);
    answer.notes.extend(assumed);
    let text = match args.output {
        None if args.all => format!("{answer:#}"),
        None => answer.to_string(),
        Some(AnswerFormat::Json) => json::pretty(&json::explanation(&answer, args.all))?,
        Some(AnswerFormat::Yaml) => api::yaml(&json::explanation(&answer, args.all)),
    };
    console.print(&text)?;
    match args.check {
        Some(wanted) if wanted.name() != answer.verdict.name() => {
            console.note(&format!(
                "expected {}, got {}",
                wanted.name(),
                answer.verdict
            ))?;
            Err(CliError::Status(1))
        }
        _ => Ok(()),
    }
}
