//! FelixConfiguration: typed values into the texts that the agents parse.

use super::Cause;
use crate::felix::{ParameterType, parameter};
use crate::kinds::config::FelixConfiguration;
use model::{FelixConfig, Selector, Update};
use serde_json::Value;
use std::sync::Arc;

/// A value that cannot be spelled leaves its parameter out, not the whole object: better one
/// default than all of them.
pub(super) fn felix_update(r: &FelixConfiguration) -> Result<Update, Cause> {
    let mut config = FelixConfig::default();
    for (json, value) in &r.spec {
        let Some(p) = parameter(json).filter(|p| p.json != "nodeSelector") else {
            continue;
        };
        if let Some(text) = text(p.kind, value) {
            config.values.insert(Arc::from(p.name()), text.into());
        }
    }
    if let Some(s) = r
        .spec
        .get("nodeSelector")
        .and_then(Value::as_str)
        .filter(|s| !s.is_empty())
    {
        let selector = Selector::parse(s).map_err(|e| format!("spec.nodeSelector: {e}"))?;
        config.node_selector = Some(selector.as_str().into());
    }
    let created = r.metadata.creation_timestamp.as_deref();
    config.created = created.and_then(seconds_of_timestamp).unwrap_or(0);
    Ok(Update::Felix(r.metadata.name.as_str().into(), Some(config)))
}

fn seconds_of_timestamp(text: &str) -> Option<i64> {
    text.parse::<jiff::Timestamp>()
        .ok()
        .map(jiff::Timestamp::as_second)
}

/// A value as the environment would spell it; `None` when it is not of the type.
pub(crate) fn text(kind: ParameterType, value: &Value) -> Option<String> {
    let items = |f: &dyn Fn(&Value) -> Option<String>| {
        let list: Option<Vec<String>> = value.as_array()?.iter().map(f).collect();
        list.map(|l| l.join(","))
    };
    match kind {
        ParameterType::Bool => value.as_bool().map(|b| b.to_string()),
        ParameterType::Int(..) => value.as_i64().map(|n| n.to_string()),
        ParameterType::Text => value.as_str().map(str::to_owned),
        ParameterType::OneOf(_) => value.as_str().map(str::to_owned),
        ParameterType::NumberOrText => plain(value),
        ParameterType::Seconds => duration(value).map(|s| decimal(s, 1.0)),
        ParameterType::Millis => duration(value).map(|s| decimal(s, 1000.0)),
        ParameterType::List => items(&|v| v.as_str().map(str::to_owned)),
        ParameterType::Ports => items(&plain),
        ParameterType::ProtoPorts => {
            let text = items(&proto_port)?;
            // Empty means no ports at all, but an empty text would mean "not set".
            Some(if text.is_empty() {
                "none".to_owned()
            } else {
                text
            })
        }
        ParameterType::Range => range(value),
        ParameterType::Ranges => items(&range),
        ParameterType::Map => {
            let pair = |(k, v): (&String, &Value)| plain(v).map(|v| format!("{k}={v}"));
            let list: Option<Vec<String>> = value.as_object()?.iter().map(pair).collect();
            list.map(|l| l.join(","))
        }
        ParameterType::Timeouts => items(&|v| {
            let seconds = duration(v.get("timeout")?)?;
            Some(format!(
                "{}={}",
                v.get("name")?.as_str()?,
                decimal(seconds, 1.0)
            ))
        }),
    }
}

fn plain(v: &Value) -> Option<String> {
    match v {
        Value::String(s) => Some(s.clone()),
        Value::Number(n) => Some(n.to_string()),
        _ => None,
    }
}

fn range(v: &Value) -> Option<String> {
    Some(format!(
        "{}-{}",
        v.get("min")?.as_i64()?,
        v.get("max")?.as_i64()?
    ))
}

/// `tcp:22`, or `tcp:10.0.0.0/8:22` with a prefix.
fn proto_port(v: &Value) -> Option<String> {
    let protocol = v
        .get("protocol")
        .and_then(Value::as_str)
        .unwrap_or("tcp")
        .to_lowercase();
    let port = v.get("port")?.as_u64()?;
    match v
        .get("net")
        .and_then(Value::as_str)
        .filter(|n| !n.is_empty())
    {
        Some(net) => Some(format!("{protocol}:{net}:{port}")),
        None => Some(format!("{protocol}:{port}")),
    }
}

/// Seconds of a duration as Kubernetes writes it (`1m30s`, `1.5h`, `0`).
fn duration(v: &Value) -> Option<f64> {
    go_duration(v.as_str()?)
}

/// Go's `ParseDuration`: numbers with units, no blanks; a bare `0` too.
pub(crate) fn go_duration(text: &str) -> Option<f64> {
    let (sign, mut rest) = match text.strip_prefix('-') {
        Some(r) => (-1.0, r),
        None => (1.0, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Some(0.0);
    }
    if rest.is_empty() {
        return None;
    }
    let mut total = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let unit_len = rest
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(rest.len());
        let unit = match &rest[..unit_len] {
            "ns" => 1e-9,
            "us" | "µs" | "μs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return None,
        };
        total += number * unit;
        rest = &rest[unit_len..];
    }
    Some(sign * total)
}

/// To the microsecond, without idle zeros.
fn decimal(seconds: f64, scale: f64) -> String {
    let text = format!("{:.6}", seconds * scale);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}
