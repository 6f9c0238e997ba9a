//! `manx policy test`: scenario files answered from the resources alone.
//!
//! Promises: every file is answered for, a bad one hides no other; for each check that does not
//! hold, the rule that decides; exit status 0 if all held, 1 if something did not, 2 if a file
//! cannot be used. Never: looks at a cluster.

use crate::CliError;
use crate::args::PolicyTestArgs;
use crate::run::Console;
use scenario::report::{Colour, Report, Total};
use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};

/// Runs all files.
pub(crate) fn run(args: &PolicyTestArgs, console: &mut Console<'_>) -> Result<(), CliError> {
    let plain = std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty());
    let colour = if io::stdout().is_terminal() && !plain {
        Colour::Yes
    } else {
        Colour::No
    };
    let progress = io::stderr().is_terminal() && !args.json;
    let mut total = Total::default();
    let files = match files(&args.files) {
        Ok(files) => files,
        Err(e) => {
            console.note(&format!("error: {}", e.full()))?;
            return Err(CliError::Status(2));
        }
    };
    for (i, file) in files.iter().enumerate() {
        if progress {
            write!(
                console.err,
                "\r\u{1b}[K[{}/{}] {}",
                i + 1,
                files.len(),
                file.display()
            )?;
            console.err.flush()?;
        }
        let report = one(file);
        if progress {
            write!(console.err, "\r\u{1b}[K")?;
        }
        total.add(&report);
        tell(&report, args, colour, console)?;
    }
    if !args.json {
        console.print(&format!("{total}\n"))?;
    }
    match total.exit() {
        0 => Ok(()),
        status => Err(CliError::Status(status)),
    }
}

fn tell(
    report: &Report,
    args: &PolicyTestArgs,
    colour: Colour,
    console: &mut Console<'_>,
) -> Result<(), CliError> {
    if let Some(error) = &report.error {
        console.note(&format!("error: {error}"))?;
    }
    if args.json {
        let line = serde_json::to_string(report).map_err(io::Error::from)?;
        return console.print(&format!("{line}\n"));
    }
    if args.verbose || report.failed > 0 {
        console.print(&report.text(colour, args.verbose))?;
    }
    Ok(())
}

fn one(file: &Path) -> Report {
    let name = file.display().to_string();
    let text = match std::fs::read_to_string(file) {
        Ok(text) => text,
        Err(e) => return Report::unusable("", &name, format!("{name}: {e}")),
    };
    match scenario::parse(&text, &name, &|p: &Path| std::fs::read_to_string(p)) {
        Ok(s) => {
            let report = scenario::offline::run(&s, &name);
            // Not a success: somebody relies on this file.
            if report.checks.is_empty() && report.error.is_none() {
                let error = format!("{name}: no step expects anything");
                return Report::unusable(report.name, &name, error);
            }
            report
        }
        Err(e) => Report::unusable("", &name, e.to_string()),
    }
}

/// The files, and those below directories, in the order of their names.
fn files(given: &[PathBuf]) -> Result<Vec<PathBuf>, CliError> {
    let mut out = Vec::new();
    for name in given {
        if !name.is_dir() {
            out.push(name.clone());
            continue;
        }
        let before = out.len();
        let mut todo = vec![name.clone()];
        while let Some(dir) = todo.pop() {
            let failed = |source| CliError::Read {
                path: dir.clone(),
                source,
            };
            for entry in std::fs::read_dir(&dir).map_err(failed)? {
                let path = entry.map_err(failed)?.path();
                if path.is_dir() {
                    // What files name lies beside them, in directories that no scenario is in.
                    if path.file_name().is_none_or(|n| n != "files") {
                        todo.push(path);
                    }
                } else if path.extension().is_some_and(|e| e == "yaml" || e == "yml") {
                    out.push(path);
                }
            }
        }
        if out.len() == before {
            return Err(CliError::Usage(format!(
                "there is no scenario (.yaml, .yml) in {}",
                name.display()
            )));
        }
        out[before..].sort();
    }
    Ok(out)
}
