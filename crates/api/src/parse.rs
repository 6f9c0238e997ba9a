//! Reading what users write: files of YAML or JSON documents.
//!
//! Promises: every document of a file is answered for, a bad one never hides the good ones;
//! a fault is placed by file, line and column; a field that no such resource has is an error
//! that names it. Never: defaults or validates.

use crate::error::{DocError, DocProblem, Position};
use crate::kinds::policy::PolicySpec;
use crate::resource::{Resource, ResourceKind};
use serde::Deserializer;
use serde_json::Value;

/// What each document, and each item of a list, came to.
pub type Parsed = Vec<Result<(Resource, Position), DocError>>;

/// Reads all documents of a text: YAML with `---` between, JSON, lists (`kind: List` and
/// `kind: <Kind>List` with `items`, or a bare sequence). `source` is how errors name the text.
/// Empty documents are passed over.
pub fn parse_documents(text: &str, source: &str) -> Parsed {
    let mut out = Vec::new();
    for chunk in chunks(text) {
        document(&chunk, source, &mut out);
    }
    out
}

/// A document's text, and the line that it begins on, counted from 0.
struct Chunk<'a> {
    text: std::borrow::Cow<'a, str>,
    line: usize,
}

impl Chunk<'_> {
    /// Where the first content is, counted within the chunk from 0.
    fn first_line(&self) -> Option<usize> {
        self.text.lines().position(|l| {
            let t = l.trim();
            !t.is_empty() && !t.starts_with('#') && !l.starts_with('%')
        })
    }
}

/// Cuts at document markers. YAML forbids them at the start of a line inside any
/// scalar (YAML 1.2.2, section 9.1.2), so that no scalar is cut.
fn chunks(text: &str) -> Vec<Chunk<'_>> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let marker = |l: &str, m| {
        l.strip_prefix(m)
            .is_some_and(|r: &str| r.is_empty() || r.starts_with([' ', '\t', '\r', '\n']))
    };
    let mut out = Vec::new();
    let (mut start, mut line_of_start, mut at, mut headed) = (0, 0, 0, false);
    let mut push = |from: usize, to: usize, line, headed: bool| {
        let body = &text[from..to];
        let text = if headed {
            format!("   {}", &body[3..]).into()
        } else {
            body.into()
        };
        out.push(Chunk { text, line });
    };
    for (n, l) in text.split_inclusive('\n').enumerate() {
        let (begin, end) = (marker(l, "---"), marker(l, "..."));
        if begin || end {
            push(start, at, line_of_start, headed);
            start = if begin { at } else { at + l.len() };
            line_of_start = if begin { n } else { n + 1 };
            headed = begin;
        }
        at += l.len();
    }
    push(start, text.len(), line_of_start, headed);
    out.retain(|c| c.first_line().is_some());
    out
}

fn document(chunk: &Chunk<'_>, source: &str, out: &mut Parsed) {
    let at = |line: usize, column: usize| Position {
        source: source.to_owned(),
        line: chunk.line + line.max(1),
        column: column.max(1),
    };
    let start = at(chunk.first_line().unwrap_or(0) + 1, 1);
    let fault = |e: &serde_saphyr::Error| {
        let position = e.location().map_or_else(
            || start.clone(),
            |l| {
                at(
                    usize::try_from(l.line()).unwrap_or(1),
                    usize::try_from(l.column()).unwrap_or(1),
                )
            },
        );
        DocError {
            position,
            problem: DocProblem::Malformed(plain_message(e)),
        }
    };
    // Without types to go by, `n` and `on` are words: names, more likely than truth values.
    let words = serde_saphyr::options! { strict_booleans: true };
    let value: Value = match serde_saphyr::from_str_with_options(&chunk.text, words) {
        Ok(v) => v,
        Err(e) => return out.push(Err(fault(&e))),
    };
    match items_of(value) {
        Shape::Empty => {}
        Shape::Items(items) => {
            for item in items {
                out.push(item_of_list(&item, &start));
            }
        }
        Shape::One(value) => {
            let read = kind_of(&value).map_err(|problem| DocError {
                position: start.clone(),
                problem,
            });
            let read = read.and_then(|kind| {
                let mut unknown = Vec::new();
                serde_saphyr::with_deserializer_from_str(&chunk.text, |d| {
                    strict(kind, d, &mut unknown)
                })
                .map_err(|e| fault(&e))
                .and_then(|r| finish(r, unknown, &start))
            });
            out.push(read);
        }
    }
}

/// The library's message without its own idea of where, which would repeat ours in other words, and in
/// the words of those who write such files.
fn plain_message(e: &serde_saphyr::Error) -> String {
    const IN_OUR_WORDS: [(&str, &str); 8] = [
        ("expected sequence start", "expected a list"),
        ("expected mapping start", "expected fields with values"),
        ("invalid floating point", "expected a number"),
        ("non-finite float", "expected a finite number"),
        ("recursion limit exceeded", "nested too deeply"),
        ("budget breached: Depth", "nested too deeply"),
        (
            "budget breached: Nodes",
            "too large, with its aliases written out",
        ),
        ("budget breached", "too large"),
    ];
    let text = e.without_snippet().to_string();
    let end = [" at line ", ", set DuplicateKeyPolicy"]
        .iter()
        .filter_map(|m| text.find(m))
        .min()
        .unwrap_or(text.len());
    let text = text[..end].trim_end_matches(':');
    let ours = IN_OUR_WORDS.iter().find(|(t, _)| text.starts_with(t));
    ours.map_or(text, |(_, ours)| ours).to_owned()
}

enum Shape {
    Empty,
    One(Value),
    Items(Vec<Value>),
}

fn items_of(value: Value) -> Shape {
    match value {
        Value::Null => Shape::Empty,
        Value::Array(items) => Shape::Items(items),
        Value::Object(mut o)
            if o.get("kind")
                .and_then(Value::as_str)
                .is_some_and(|k| k.ends_with("List")) =>
        {
            match o.remove("items") {
                Some(Value::Array(items)) => Shape::Items(items),
                _ => Shape::Empty,
            }
        }
        v => Shape::One(v),
    }
}

fn kind_of(value: &Value) -> Result<ResourceKind, DocProblem> {
    if !value.is_object() {
        return Err(DocProblem::Malformed(
            "a resource must be a mapping".to_owned(),
        ));
    }
    let text = |k| value.get(k).and_then(Value::as_str).unwrap_or_default();
    let (api_version, kind) = (text("apiVersion"), text("kind"));
    if kind.is_empty() {
        return Err(DocProblem::Untyped("kind"));
    }
    if api_version.is_empty() {
        return Err(DocProblem::Untyped("apiVersion"));
    }
    ResourceKind::from_type(api_version, kind).ok_or_else(|| DocProblem::UnknownKind {
        api_version: api_version.to_owned(),
        kind: kind.to_owned(),
    })
}

fn item_of_list(item: &Value, start: &Position) -> Result<(Resource, Position), DocError> {
    let bad = |problem| DocError {
        position: start.clone(),
        problem,
    };
    let kind = kind_of(item).map_err(bad)?;
    let mut unknown = Vec::new();
    let r = strict(kind, item, &mut unknown)
        .map_err(|e: serde_json::Error| bad(DocProblem::Malformed(e.to_string())))?;
    finish(r, unknown, start)
}

/// Reads a resource and collects the paths of the fields that it does not have.
fn strict<'de, D: Deserializer<'de>>(
    kind: ResourceKind,
    d: D,
    unknown: &mut Vec<String>,
) -> Result<Resource, D::Error> {
    let mut note = |path: serde_ignored::Path<'_>| {
        let path = path_text(&path);
        // What servers add and nobody reads is no mistake of the user's.
        if !matches!(
            path.as_str(),
            "kind" | "apiVersion" | "metadata.selfLink" | "status"
        ) {
            unknown.push(path);
        }
    };
    kind.read(serde_ignored::Deserializer::new(d, &mut note))
}

fn path_text(path: &serde_ignored::Path<'_>) -> String {
    use serde_ignored::Path;
    match path {
        Path::Root => String::new(),
        Path::Seq { parent, index } => format!("{}[{index}]", path_text(parent)),
        Path::Map { parent, key } => {
            let p = path_text(parent);
            if p.is_empty() {
                key.clone()
            } else {
                format!("{p}.{key}")
            }
        }
        Path::Some { parent }
        | Path::NewtypeStruct { parent }
        | Path::NewtypeVariant { parent } => path_text(parent),
    }
}

/// Fields that are set and that a policy of this sort does not have, with what has them.
pub(crate) fn foreign_fields(
    s: &PolicySpec,
    global: bool,
    staged: bool,
) -> impl Iterator<Item = (&'static str, &'static str)> {
    const GLOBAL: &str = "only a GlobalNetworkPolicy has this field";
    [
        (!global && s.do_not_track, "spec.doNotTrack", GLOBAL),
        (!global && s.pre_dnat, "spec.preDNAT", GLOBAL),
        (!global && s.apply_on_forward, "spec.applyOnForward", GLOBAL),
        (
            !global && !s.namespace_selector.is_empty(),
            "spec.namespaceSelector",
            GLOBAL,
        ),
        (
            !staged && !s.staged_action.is_empty(),
            "spec.stagedAction",
            "only a staged policy has this field",
        ),
    ]
    .into_iter()
    .filter_map(|(set, field, why)| set.then_some((field, why)))
}

fn finish(
    r: Resource,
    mut unknown: Vec<String>,
    start: &Position,
) -> Result<(Resource, Position), DocError> {
    // The policies share a type; each has fields that another has not.
    let (spec, global, staged) = match &r {
        Resource::NetworkPolicy(p) => (Some(&p.spec), false, false),
        Resource::GlobalNetworkPolicy(p) => (Some(&p.spec), true, false),
        Resource::StagedNetworkPolicy(p) => (Some(&p.spec), false, true),
        Resource::StagedGlobalNetworkPolicy(p) => (Some(&p.spec), true, true),
        _ => (None, true, true),
    };
    if let Some(s) = spec {
        unknown.extend(foreign_fields(s, global, staged).map(|(f, _)| f.to_owned()));
    }
    match &r {
        Resource::KubeNetworkPolicy(p) if !p.spec.staged_action.is_empty() => {
            unknown.push("spec.stagedAction".to_owned());
        }
        Resource::FelixConfiguration(f) => unknown.extend(
            f.spec
                .keys()
                .filter(|k| crate::felix::parameter(k).is_none())
                .map(|k| format!("spec.{k}")),
        ),
        _ => {}
    }
    if unknown.is_empty() {
        Ok((r, start.clone()))
    } else {
        Err(DocError {
            position: start.clone(),
            problem: DocProblem::UnknownFields(unknown),
        })
    }
}
