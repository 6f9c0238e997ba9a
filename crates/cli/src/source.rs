//! Reading what users hand in: files, directories, standard input.
//!
//! Promises: files of a directory in the order of their names; a bad document never hides
//! the good ones.

use crate::CliError;
use crate::args::Sources;
use api::{DocError, Resource};
use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

/// What a document came to: a resource and where it is from, or why it is none.
pub(crate) type Document = Result<(Resource, String), DocError>;

/// Reads every document of the sources.
///
/// # Errors
/// When a file cannot be read. Documents that are no resources are in the result.
pub(crate) fn read(sources: &Sources, input: &mut dyn Read) -> Result<Vec<Document>, CliError> {
    let mut out = Vec::new();
    for name in &sources.filename {
        if name.as_os_str() == "-" {
            let mut text = String::new();
            let failed = |source| CliError::Read {
                path: "standard input".into(),
                source,
            };
            input.read_to_string(&mut text).map_err(failed)?;
            parse(&text, "standard input", &mut out);
            continue;
        }
        for path in files(name, sources.recursive)? {
            let text = std::fs::read_to_string(&path).map_err(|source| CliError::Read {
                path: path.clone(),
                source,
            })?;
            parse(&text, &path.display().to_string(), &mut out);
        }
    }
    Ok(out)
}

fn parse(text: &str, source: &str, out: &mut Vec<Document>) {
    let parsed = api::parse_documents(text, source).into_iter();
    out.extend(parsed.map(|d| d.map(|(r, at)| (r, at.to_string()))));
}

/// The file itself, or the files of a directory that are named like documents.
fn files(name: &Path, recursive: bool) -> Result<Vec<PathBuf>, CliError> {
    if !name.is_dir() {
        return Ok(vec![name.to_owned()]);
    }
    let mut out = Vec::new();
    let mut todo = vec![name.to_owned()];
    while let Some(dir) = todo.pop() {
        let failed = |source| CliError::Read {
            path: dir.clone(),
            source,
        };
        let mut below = BTreeMap::new();
        for entry in std::fs::read_dir(&dir).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            below.insert(path.clone(), path.is_dir());
        }
        let known = |p: &Path| {
            p.extension()
                .is_some_and(|e| e == "yaml" || e == "yml" || e == "json")
        };
        for (path, is_dir) in below {
            match is_dir {
                true if recursive => todo.push(path),
                false if known(&path) => out.push(path),
                _ => {}
            }
        }
    }
    out.sort();
    Ok(out)
}
