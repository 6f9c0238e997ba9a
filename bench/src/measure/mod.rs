//! One module a measure, and what they share.

pub(crate) mod calculation;
pub(crate) mod cni;
pub(crate) mod flat;
pub(crate) mod lab;
pub(crate) mod memory;
pub(crate) mod path;
pub(crate) mod policy;
pub(crate) mod routing;
pub(crate) mod rules;

use crate::report::Row;
use crate::stats::Samples;
use serde_json::{Value, json};

/// Ours over the peer's by their medians, for what should be small; `most` is the aim.
pub(crate) fn ratio_row(
    what: &str,
    ours: &Samples,
    peer: &Samples,
    unit: &str,
    most: Option<f64>,
) -> Row {
    let figure = ours.median() / peer.median();
    Row {
        what: what.to_owned(),
        aim: most.map_or(String::new(), |m| format!("at most {m} of the peer")),
        ours: ours.text(unit),
        peer: peer.text(unit),
        figure,
        unit: "",
        met: most.map(|m| figure <= m),
    }
}

/// A figure without a peer, for what should be small.
pub(crate) fn limit_row(
    what: &str,
    ours: &Samples,
    figure: f64,
    unit: &'static str,
    most: Option<f64>,
) -> Row {
    Row {
        what: what.to_owned(),
        aim: most.map_or(String::new(), |m| format!("under {m} {unit}")),
        ours: ours.text(unit),
        peer: String::new(),
        figure,
        unit,
        met: most.map(|m| figure < m),
    }
}

/// A network configuration in another version of the specification.
pub(crate) fn in_version(conf: &[u8], version: &str) -> Vec<u8> {
    let mut v: Value = serde_json::from_slice(conf).unwrap_or_default();
    v["cniVersion"] = json!(version);
    v.to_string().into_bytes()
}
