//! `get`: resources in the formats that users know.
//!
//! Promises: one object that was named prints alone, everything else as a list; a resource that
//! is missing is an error and does not hide the others; YAML and JSON never carry colour or notes.

use crate::args::GetArgs;
use crate::cluster::Cluster;
use crate::run::Console;
use crate::{CliError, kinds, source, table};
use api::{Resource, ResourceKind};
use serde_json::Value;
use std::collections::BTreeSet;

/// A format of `-o`.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Format {
    Table { wide: bool },
    Yaml,
    Json,
    Custom(Vec<Column>),
}

/// A column that the user asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Column {
    /// One of the kind's own.
    Known(String),
    /// A heading, and the JSON pointer of the field below it.
    Field(String, String),
}

impl Format {
    fn parse(text: &str) -> Result<Self, CliError> {
        let custom = text.strip_prefix("custom-columns=");
        match text {
            "ps" => return Ok(Self::Table { wide: false }),
            "wide" => return Ok(Self::Table { wide: true }),
            "yaml" => return Ok(Self::Yaml),
            "json" => return Ok(Self::Json),
            _ => {}
        }
        if let Some(columns) = custom {
            return columns
                .split(',')
                .map(Column::parse)
                .collect::<Result<_, _>>()
                .map(Self::Custom);
        }
        let template = text.starts_with("go-template");
        let advice = if template {
            "go-template is not supported: use -o custom-columns=HEADING:.path.of.a.field,... , or -o json with a JSON processor"
        } else {
            "use ps, wide, yaml, json or custom-columns=HEADING,..."
        };
        Err(CliError::Usage(format!(
            "unrecognized output format '{text}': {advice}"
        )))
    }
}

impl Column {
    fn parse(text: &str) -> Result<Self, CliError> {
        match text.split_once(':') {
            None if text.is_empty() => Err(CliError::Usage(
                "custom-columns: a heading is empty; write custom-columns=NAME,CIDR".to_owned(),
            )),
            None => Ok(Self::Known(text.to_ascii_uppercase())),
            Some((heading, path)) => Ok(Self::Field(heading.to_owned(), pointer(path))),
        }
    }

    fn heading(&self) -> &str {
        match self {
            Self::Known(h) | Self::Field(h, _) => h,
        }
    }
}

/// `.spec.nets[0]` as a JSON pointer (RFC 6901).
fn pointer(path: &str) -> String {
    let path = path.trim_start_matches('{').trim_end_matches('}');
    let parts = path.split(['.', '[', ']']).filter(|p| !p.is_empty());
    parts
        .map(|p| format!("/{}", p.replace('~', "~0").replace('/', "~1")))
        .collect()
}

/// Resources that belong together in the output.
enum Group {
    /// All of a kind.
    List {
        kind: ResourceKind,
        items: Vec<Resource>,
        revision: Option<String>,
    },
    /// Those that were named.
    Named(Vec<Resource>),
}

pub(crate) fn run(
    args: &GetArgs,
    cluster: &Cluster,
    console: &mut Console<'_>,
) -> Result<(), CliError> {
    let format = Format::parse(&args.output)?;
    if let Some(path) = &cluster.missing {
        console.note(&format!(
            "note: nothing is stored yet: {} does not exist (MANX_STORE)",
            path.display()
        ))?;
    }
    let (mut group, errors) = select(args, cluster, console)?;
    if args.export {
        group.export();
    }
    let (Group::List { items, .. } | Group::Named(items)) = &group;
    if !items.is_empty() || matches!(group, Group::List { .. }) {
        let with_namespace = args.all_namespaces || args.files.namespace.namespace.is_some();
        let text = render(&group, &format, with_namespace, cluster)?;
        console.print(&text)?;
    }
    if errors.is_empty() {
        Ok(())
    } else {
        Err(CliError::Refused(errors.join("\n")))
    }
}

/// What was asked for, and why some of it is not there.
fn select(
    args: &GetArgs,
    cluster: &Cluster,
    console: &mut Console<'_>,
) -> Result<(Group, Vec<String>), CliError> {
    let namespace = args
        .files
        .namespace
        .namespace
        .as_deref()
        .unwrap_or("default");
    let mut errors = Vec::new();
    let mut found = Vec::new();
    let Some(word) = &args.named.kind else {
        let documents = source::read(&args.files.sources, console.input)?;
        if documents.is_empty() && !args.files.sources.skip_empty {
            return Err(CliError::NoResources);
        }
        for document in documents {
            match document {
                Err(e) => errors.push(e.to_string()),
                Ok((r, _)) => {
                    let named = r.namespace().filter(|n| !n.is_empty()).unwrap_or(namespace);
                    let of = r.kind().namespaced().then_some(named);
                    match cluster.get(r.kind(), of, &r.meta().name) {
                        Ok(r) => found.push(r),
                        Err(e) => errors.push(e.to_string()),
                    }
                }
            }
        }
        return Ok((Group::Named(found), errors));
    };
    let kind = kinds::by_word(word)?;
    let within = (kind.namespaced() && !args.all_namespaces).then_some(namespace);
    if args.named.names.is_empty() {
        let listing = cluster.list(kind, within)?;
        for bad in listing.bad {
            console.note(&format!(
                "warning: stored object is bad and left out: {bad}"
            ))?;
        }
        let revision = (!args.export).then_some(listing.revision);
        return Ok((
            Group::List {
                kind,
                items: listing.items,
                revision,
            },
            errors,
        ));
    }
    if kind.namespaced() && args.all_namespaces {
        let text = "a name cannot be looked up in all namespaces: use -n NAMESPACE instead of -A";
        return Err(CliError::Usage(text.to_owned()));
    }
    for name in &args.named.names {
        match cluster.get(kind, within, name) {
            Ok(r) => found.push(r),
            Err(e) => errors.push(e.to_string()),
        }
    }
    Ok((Group::Named(found), errors))
}

impl Group {
    /// Drops what only means something in this cluster.
    fn export(&mut self) {
        let (Self::List { items, .. } | Self::Named(items)) = self;
        for r in items {
            let meta = r.meta_mut();
            meta.uid.clear();
            meta.resource_version.clear();
            meta.creation_timestamp = None;
            meta.deletion_timestamp = None;
            meta.deletion_grace_period_seconds = None;
            meta.generation = None;
            meta.owner_references.clear();
            meta.managed_fields.clear();
        }
    }
}

fn render(
    group: &Group,
    format: &Format,
    with_namespace: bool,
    cluster: &Cluster,
) -> Result<String, CliError> {
    Ok(match (format, group) {
        (
            Format::Yaml,
            Group::List {
                kind,
                items,
                revision,
            },
        ) => api::to_yaml_list(*kind, items, revision.as_deref()),
        (
            Format::Json,
            Group::List {
                kind,
                items,
                revision,
            },
        ) => api::to_json_list(*kind, items, revision.as_deref()),
        (Format::Yaml, Group::Named(items)) => match items.as_slice() {
            [one] => api::to_yaml(one),
            many => api::yaml(&value(many)),
        },
        (Format::Json, Group::Named(items)) => match items.as_slice() {
            [one] => api::to_json(one),
            many => {
                let mut text =
                    serde_json::to_string_pretty(many).unwrap_or_else(|_| "null".to_owned());
                text.push('\n');
                text
            }
        },
        (Format::Table { wide }, group) => {
            let asn = cluster.default_asn()?;
            let of_kind = |kind, items: &[&Resource]| {
                let headings: Vec<String> = kinds::columns(kind, *wide)
                    .iter()
                    .map(|h| (*h).to_owned())
                    .collect();
                let rows = items.iter().map(|r| kinds::row(r, *wide, asn)).collect();
                Ok((headings, rows))
            };
            tables(group, with_namespace, of_kind)?
        }
        (Format::Custom(columns), group) => {
            let asn = cluster.default_asn()?;
            tables(group, with_namespace, |kind, items| {
                custom(columns, kind, items, asn)
            })?
        }
    })
}

fn value(items: &[Resource]) -> Value {
    serde_json::to_value(items).unwrap_or(Value::Null)
}

type Table = (Vec<String>, Vec<Vec<String>>);

/// A table for each kind, each with a blank line after it.
fn tables(
    group: &Group,
    with_namespace: bool,
    of_kind: impl Fn(ResourceKind, &[&Resource]) -> Result<Table, CliError>,
) -> Result<String, CliError> {
    let (listed, items) = match group {
        Group::List { kind, items, .. } => (Some(*kind), items),
        Group::Named(items) => (None, items),
    };
    let kinds: BTreeSet<ResourceKind> = listed
        .into_iter()
        .chain(items.iter().map(Resource::kind))
        .collect();
    let mut out = String::new();
    for kind in kinds {
        let of: Vec<&Resource> = items.iter().filter(|r| r.kind() == kind).collect();
        let (mut headings, mut rows) = of_kind(kind, &of)?;
        // Pods are looked up across namespaces more often than in one.
        if kind.namespaced() && (with_namespace || kind == ResourceKind::Pod) {
            headings.insert(0, "NAMESPACE".to_owned());
            for (row, r) in rows.iter_mut().zip(&of) {
                row.insert(0, r.meta().namespace.clone());
            }
        }
        rows.insert(0, headings);
        out.push_str(&table::columns(&rows));
        out.push('\n');
    }
    Ok(out)
}

fn custom(
    columns: &[Column],
    kind: ResourceKind,
    items: &[&Resource],
    asn: net::Asn,
) -> Result<Table, CliError> {
    let known = kinds::columns(kind, true);
    for c in columns {
        if let Column::Known(h) = c
            && !known.contains(&h.as_str())
        {
            return Err(CliError::Usage(format!(
                "custom-columns: {} has no column '{h}'; it has {}, and HEADING:.path.of.a.field shows any field",
                kind.name(),
                known.join(", ")
            )));
        }
    }
    let row = |r: &&Resource| {
        let wide = kinds::row(r, true, asn);
        let object = serde_json::to_value(r).unwrap_or(Value::Null);
        let cell = |c: &Column| match c {
            Column::Known(h) => known
                .iter()
                .position(|k| k == h)
                .and_then(|i| wide.get(i))
                .cloned()
                .unwrap_or_default(),
            Column::Field(_, at) => match object.pointer(at) {
                None | Some(Value::Null) => "<none>".to_owned(),
                Some(Value::String(s)) => s.clone(),
                Some(v) => v.to_string(),
            },
        };
        columns.iter().map(cell).collect()
    };
    let headings = columns.iter().map(|c| c.heading().to_owned()).collect();
    Ok((headings, items.iter().map(row).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats() {
        assert_eq!(
            Format::parse("wide").ok(),
            Some(Format::Table { wide: true })
        );
        let columns = vec![
            Column::Known("NAME".to_owned()),
            Column::Field("FIRST".to_owned(), "/spec/nets/0".to_owned()),
            Column::Field("L".to_owned(), "/metadata/labels/a~1b".to_owned()),
        ];
        let text = "custom-columns=name,FIRST:.spec.nets[0],L:{.metadata.labels.a/b}";
        assert_eq!(Format::parse(text).ok(), Some(Format::Custom(columns)));
        for bad in ["go-template={{range .}}", "xml", "custom-columns="] {
            assert!(Format::parse(bad).is_err(), "{bad}");
        }
    }
}
