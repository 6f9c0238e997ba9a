//! Printing resources as YAML and JSON, in the forms that users know.
//!
//! Promises: YAML with keys sorted and sequences not indented, strings quoted only where a YAML
//! reader (1.1 or 1.2) would take them for something else; JSON with two blanks of indentation, `kind`
//! first. What is printed reads back as the same resource.

use crate::kind::V3;
use crate::resource::{Resource, ResourceKind};
use serde::Serialize;
use serde_json::Value;

/// One resource as YAML, ending in a newline.
pub fn to_yaml(resource: &Resource) -> String {
    yaml(&value(resource))
}

/// One resource as JSON, ending in a newline.
pub fn to_json(resource: &Resource) -> String {
    json(resource)
}

/// Several resources of a kind as one list. `revision` is that of the store.
pub fn to_yaml_list(kind: ResourceKind, items: &[Resource], revision: Option<&str>) -> String {
    yaml(&value(&List::new(kind, items, revision)))
}

/// Several resources of a kind as one list. `revision` is that of the store.
pub fn to_json_list(kind: ResourceKind, items: &[Resource], revision: Option<&str>) -> String {
    json(&List::new(kind, items, revision))
}

#[derive(Serialize)]
struct List<'a> {
    kind: String,
    #[serde(rename = "apiVersion")]
    api_version: &'static str,
    metadata: ListMeta<'a>,
    items: &'a [Resource],
}

#[derive(Serialize)]
struct ListMeta<'a> {
    #[serde(rename = "resourceVersion", skip_serializing_if = "Option::is_none")]
    revision: Option<&'a str>,
}

impl<'a> List<'a> {
    fn new(kind: ResourceKind, items: &'a [Resource], revision: Option<&'a str>) -> Self {
        let i = kind.info();
        let api_version = if kind.is_kube() { i.api_version } else { V3 };
        Self {
            kind: format!("{}List", i.kind),
            api_version,
            metadata: ListMeta { revision },
            items,
        }
    }
}

/// Values that have no JSON form (an order that is no number) print as `null`.
fn value(v: &impl Serialize) -> Value {
    serde_json::to_value(v).unwrap_or(Value::Null)
}

fn json(v: &impl Serialize) -> String {
    let mut text = serde_json::to_string_pretty(v).unwrap_or_else(|_| "null".to_owned());
    text.push('\n');
    text
}

/// Any JSON value as YAML, as the other functions of this file print it.
pub fn yaml(v: &Value) -> String {
    let mut out = String::new();
    match v {
        Value::Object(_) | Value::Array(_) if !is_flat(v) => block(&mut out, v, 0, false),
        v => {
            scalar(&mut out, v, 0);
            out.push('\n');
        }
    }
    out
}

/// Whether it prints on the line of its key.
fn is_flat(v: &Value) -> bool {
    match v {
        Value::Object(o) => o.is_empty(),
        Value::Array(a) => a.is_empty(),
        _ => true,
    }
}

fn indent(out: &mut String, depth: usize) {
    out.extend(std::iter::repeat_n("  ", depth));
}

/// Prints a non-empty mapping or sequence at `depth`; `inline` when its first line goes on
/// behind a dash.
fn block(out: &mut String, v: &Value, depth: usize, mut inline: bool) {
    match v {
        Value::Object(o) => {
            let mut keys: Vec<_> = o.iter().collect();
            keys.sort_unstable_by_key(|(k, _)| *k);
            for (k, v) in keys {
                if !std::mem::take(&mut inline) {
                    indent(out, depth);
                }
                string(out, k, depth);
                out.push(':');
                entry(out, v, depth, if v.is_array() { depth } else { depth + 1 });
            }
        }
        Value::Array(a) => {
            for v in a {
                if !std::mem::take(&mut inline) {
                    indent(out, depth);
                }
                out.push('-');
                if is_flat(v) {
                    entry(out, v, depth, depth + 1);
                } else {
                    out.push(' ');
                    block(out, v, depth + 1, true);
                }
            }
        }
        v => scalar(out, v, depth),
    }
}

fn entry(out: &mut String, v: &Value, depth: usize, inner: usize) {
    if is_flat(v) {
        out.push(' ');
        scalar(out, v, depth);
        out.push('\n');
    } else {
        out.push('\n');
        block(out, v, inner, false);
    }
}

fn scalar(out: &mut String, v: &Value, depth: usize) {
    match v {
        Value::String(s) => string(out, s, depth),
        Value::Object(_) => out.push_str("{}"),
        Value::Array(_) => out.push_str("[]"),
        v => out.push_str(&v.to_string()),
    }
}

fn string(out: &mut String, s: &str, depth: usize) {
    let clean = s
        .chars()
        .all(|c| c == '\n' || c == '\t' || !c.is_control() && c != '\u{feff}');
    let lines = s.contains('\n')
        && clean
        && !s.contains('\t')
        && !s.starts_with([' ', '\n'])
        && !s.lines().any(|l| l.ends_with(' '));
    if lines {
        out.push_str(match s.bytes().rev().take_while(|b| *b == b'\n').count() {
            0 => "|-",
            1 => "|",
            _ => "|+",
        });
        for l in s.strip_suffix('\n').unwrap_or(s).split('\n') {
            out.push('\n');
            if !l.is_empty() {
                indent(out, depth + 1);
                out.push_str(l);
            }
        }
    } else if !clean || s.contains(['\n', '\t']) || resolves(s) {
        escaped(out, s);
    } else if needs_quotes(s) {
        out.push('\'');
        out.push_str(&s.replace('\'', "''"));
        out.push('\'');
    } else {
        out.push_str(s);
    }
}

/// What YAML lets stand for itself (YAML 1.2.2, section 5.1) and no reader takes for a line break.
fn is_printable(c: char) -> bool {
    !c.is_control()
        && !matches!(
            c,
            '\u{feff}' | '\u{2028}' | '\u{2029}' | '\u{fffe}' | '\u{ffff}'
        )
}

/// In double quotes; the escapes are those that YAML shares with JSON.
fn escaped(out: &mut String, s: &str) {
    out.push('"');
    for c in s.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            c if is_printable(c) => out.push(c),
            // Whatever is not printable lies in the first plane.
            c => out.push_str(&format!("\\u{:04x}", u32::from(c))),
        }
    }
    out.push('"');
}

/// Whether, unquoted, it would read as something else than a string.
fn resolves(s: &str) -> bool {
    const WORDS: [&str; 13] = [
        "", "~", "null", "true", "false", "yes", "no", "on", "off", "y", "n", ".nan", "<<",
    ];
    WORDS.iter().any(|w| w.eq_ignore_ascii_case(s)) || looks_numeric(s)
}

/// Numbers of YAML 1.1 and 1.2 in all their bases, and dates: anything that begins like one and has
/// only such characters. Wider than need be, which costs a pair of quotes.
fn looks_numeric(s: &str) -> bool {
    let t = s.trim_start_matches(['+', '-']);
    let starts = t.starts_with(|c: char| c.is_ascii_digit())
        || t.starts_with('.') && t[1..].starts_with(|c: char| c.is_ascii_digit())
        || t.eq_ignore_ascii_case(".inf");
    let only = |extra: &str| t.chars().all(|c| c.is_ascii_digit() || extra.contains(c));
    let hex = t.strip_prefix("0x").or_else(|| t.strip_prefix("0X"));
    let number = t.parse::<f64>().is_ok()
        || only("_.")
        || is_sexagesimal(t)
        || hex.is_some_and(|h| h.chars().all(|c| c.is_ascii_hexdigit() || c == '_'))
        || t.strip_prefix("0o")
            .is_some_and(|o| o.chars().all(|c| c.is_digit(8)))
        || t.strip_prefix("0b")
            .is_some_and(|o| o.chars().all(|c| matches!(c, '0' | '1' | '_')));
    let date = t.len() >= 8 && t.as_bytes().get(4) == Some(&b'-') && only("-:.TtZz+ ");
    // A dotted quad is a string to every reader.
    let quad = only(".") && t.matches('.').count() > 1;
    starts && !quad && (number || date)
}

/// `12:30` was a number to YAML 1.1.
fn is_sexagesimal(t: &str) -> bool {
    let mut parts = t.split(':');
    let digits = |p: &str| !p.is_empty() && p.bytes().all(|b| b.is_ascii_digit() || b == b'_');
    let first = parts.next().is_some_and(digits);
    let rest: Vec<_> = parts.collect();
    first
        && !rest.is_empty()
        && rest
            .iter()
            .all(|p| digits(p) && p.parse::<u8>().is_ok_and(|n| n < 60))
}

/// Whether it is a string, but its punctuation would mislead a reader.
fn needs_quotes(s: &str) -> bool {
    let first = s.chars().next().unwrap_or(' ');
    let second_blank = s[first.len_utf8()..]
        .chars()
        .next()
        .is_none_or(|c| c == ' ');
    s.starts_with(' ')
        || s.ends_with([' ', ':'])
        || s.contains(": ")
        || s.contains(" #")
        || "!&*{}[]|>%@`'\"#,".contains(first)
        || "-?:".contains(first) && second_blank
        || first == '=' && s.len() == 1
        || s.starts_with("---")
        || s.starts_with("...")
}
