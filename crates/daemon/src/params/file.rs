//! `/etc/calico/felix.cfg`: an INI file of which the section `[global]` counts.

use super::{Layer, Source};
use std::path::Path;

/// A line that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{path}:{line}: expected `name = value` or `[section]`, got {text:?}")]
pub struct ConfigFileError {
    /// The file.
    pub path: String,
    /// From 1.
    pub line: usize,
    /// What is there.
    pub text: String,
}

/// Reads the text of a configuration file; `path` names it in errors.
///
/// # Errors
/// Names the first line that is neither blank, comment, section nor assignment.
pub fn parse_config_file(text: &str, path: &Path) -> Result<Layer, ConfigFileError> {
    let path = path.display().to_string();
    let mut layer = Layer {
        source: Source::File(path.clone()),
        values: Vec::new(),
    };
    let mut counts = false;
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with(['#', ';']) {
            continue;
        }
        if let Some(section) = line.strip_prefix('[').and_then(|l| l.strip_suffix(']')) {
            counts = section.trim().eq_ignore_ascii_case("global");
        } else if let Some((name, value)) = line.split_once('=') {
            if counts {
                let name = name.trim().to_owned();
                layer.values.push((name, value.trim().to_owned()));
            }
        } else {
            return Err(ConfigFileError {
                path,
                line: number + 1,
                text: line.to_owned(),
            });
        }
    }
    Ok(layer)
}
