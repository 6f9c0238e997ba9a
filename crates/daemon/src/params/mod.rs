//! The parameters of the agents: one table, six sources.
//!
//! Promises: a parameter has the value of its highest valid source; a value that cannot
//! be is reported with name, value and source and has no effect; the empty value is no
//! value; `none` unsets where there is something to unset.

mod file;
mod table;
mod value;

pub use file::{ConfigFileError, parse_config_file};
pub use table::{FelixParams, ROWS};
pub use value::{
    AllowAction, ClusterRoutes, DenyAction, HostAction, LoopPrevention, NatExclusions,
    NftablesMode, ProtoPort, Rate, RouteSource, Spoofing, TableRange, Toggle, Vni,
};

use std::fmt;

/// Where the node's own configuration file is.
pub const CONFIG_FILE: &str = "/etc/calico/felix.cfg";
/// What environment variables begin with, in any case.
pub const ENV_PREFIX: &str = "FELIX_";

/// Reads a duration: seconds, or Go's spelling such as `1m30s`.
///
/// # Errors
/// Says what could be written.
pub fn duration(text: &str) -> Result<std::time::Duration, String> {
    value::Value::read(text)
}

/// When a change takes effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// At once.
    Live,
    /// At the next start.
    Restart,
}

/// A row of the table.
#[derive(Debug, Clone, Copy)]
pub struct Row {
    /// As the environment spells it, behind `FELIX_`; case does not count.
    pub name: &'static str,
    /// What to write.
    pub form: &'static str,
    /// The value when nobody says; empty is unset.
    pub default: &'static str,
    /// When a change takes effect.
    pub when: When,
    /// What it is for.
    pub doc: &'static str,
}

/// Where a value comes from; later ones win.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// FelixConfiguration `default`.
    Global,
    /// A FelixConfiguration with a node selector, by name.
    Selector(String),
    /// FelixConfiguration `node.<name>`.
    Node(String),
    /// The node's file.
    File(String),
    /// The environment.
    Env,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Global => f.write_str("FelixConfiguration(default)"),
            Self::Selector(n) | Self::Node(n) => write!(f, "FelixConfiguration({n})"),
            Self::File(p) => f.write_str(p),
            Self::Env => f.write_str("environment"),
        }
    }
}

/// A value that cannot be. The next lower source counts instead.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("parameter {name} = {value:?} from {source_name}: {reason}; ignored")]
pub struct ParamError {
    /// The parameter, as the table spells it.
    pub name: &'static str,
    /// The value.
    pub value: String,
    /// Where it comes from.
    pub source_name: Source,
    /// Why it cannot be.
    pub reason: String,
}

/// One source with its texts: name in any case, and value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layer {
    /// Which.
    pub source: Source,
    /// Name and value, in any order.
    pub values: Vec<(String, String)>,
}

impl Layer {
    /// A layer from pairs.
    pub fn new<N: AsRef<str>, V: AsRef<str>>(
        source: Source,
        values: impl IntoIterator<Item = (N, V)>,
    ) -> Self {
        let values = values
            .into_iter()
            .map(|(n, v)| (n.as_ref().to_owned(), v.as_ref().to_owned()))
            .collect();
        Self { source, values }
    }

    /// `FELIX_<NAME>` of the process's environment.
    pub fn from_environment() -> Self {
        Self::from_variables(std::env::vars_os().filter_map(|(n, v)| {
            let n = n.into_string().ok()?;
            Some((n, v.into_string().ok()?))
        }))
    }

    /// `FELIX_<NAME>` among the given variables.
    pub fn from_variables(variables: impl IntoIterator<Item = (String, String)>) -> Self {
        let ours = variables.into_iter().filter_map(|(n, v)| {
            let (prefix, name) = n.split_at_checked(ENV_PREFIX.len())?;
            prefix
                .eq_ignore_ascii_case(ENV_PREFIX)
                .then(|| (name.to_owned(), v))
        });
        let mut layer = Self::new(Source::Env, ours);
        // The environment has no order; of two spellings of one name the greater counts.
        layer.values.sort();
        layer
    }
}

/// What follows from all sources together.
#[derive(Debug, Clone, PartialEq)]
pub struct Resolved {
    /// The values in effect.
    pub params: FelixParams,
    /// Values that cannot be.
    pub errors: Vec<ParamError>,
    /// Names that the table does not have, with their sources: of use to other
    /// programs, or misspelt.
    pub unknown: Vec<(String, Source)>,
}

impl FelixParams {
    /// Resolves the layers, given in any order.
    pub fn resolve(layers: &[Layer]) -> Resolved {
        let mut sorted: Vec<&Layer> = layers.iter().collect();
        sorted.sort_by(|a, b| a.source.cmp(&b.source));
        let mut resolved = Resolved {
            params: Self::default(),
            errors: Vec::new(),
            unknown: Vec::new(),
        };
        for layer in sorted {
            for (name, value) in &layer.values {
                let value = value.trim();
                if value.is_empty() {
                    continue;
                }
                match resolved.params.set(name, value) {
                    Some((_, Ok(()))) => {}
                    Some((name, Err(reason))) => resolved.errors.push(ParamError {
                        name,
                        value: value.to_owned(),
                        source_name: layer.source.clone(),
                        reason,
                    }),
                    None => resolved.unknown.push((name.clone(), layer.source.clone())),
                }
            }
        }
        resolved
    }
}

/// The table as a listing for people: name, form, default, meaning.
pub fn listing() -> String {
    use std::fmt::Write as _;
    let mut out = String::new();
    for row in ROWS {
        let default = if row.default.is_empty() {
            "(unset)"
        } else {
            row.default
        };
        let when = match row.when {
            When::Live => "",
            When::Restart => " [restart]",
        };
        // Writing to a String does not fail.
        let _ = writeln!(out, "{}: {}", row.name, row.form);
        let _ = writeln!(out, "    {} Default: {default}.{when}", row.doc.trim());
    }
    out
}

#[cfg(test)]
mod tests;
