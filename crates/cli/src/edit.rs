//! `patch` and `label`: read, change, write back if nobody else did meanwhile.
//!
//! Promises: what is written is what was read with the change and nothing else; a patch that
//! names a field which no such resource has is refused.

use crate::CliError;
use crate::args::{LabelArgs, Namespace, PatchArgs, PatchType};
use crate::cluster::{Cluster, ObjectError};
use crate::confirm::Guard;
use crate::run::Console;
use crate::{kinds, write};
use api::{Resource, ResourceKind};
use datastore::pending::Intent;
use serde_json::{Map, Value};

/// How often a change is made anew on what somebody else wrote first.
const RETRIES: usize = 5;

pub(crate) fn patch(
    args: &PatchArgs,
    cluster: &Cluster,
    console: &mut Console<'_>,
) -> Result<(), CliError> {
    let kind = kinds::by_word(&args.kind)?;
    let refused =
        |why: &str| CliError::Refused(format!("failed to patch '{}' resource: {why}", kind.name()));
    let patch = parse_patch(&args.patch).map_err(|e| refused(&e))?;
    let patched = |old: Resource| {
        let mut value = serde_json::to_value(&old).map_err(|e| refused(&e.to_string()))?;
        match (args.kind_of_patch, &patch) {
            (PatchType::Json, patch) => operations(&mut value, patch).map_err(|e| refused(&e))?,
            (_, Value::Object(_)) => merge(&mut value, &patch),
            _ => {
                return Err(refused(
                    "the patch must be an object; a list of operations needs --type json",
                ));
            }
        }
        let new = read_back(&value).map_err(|e| refused(&e))?;
        if new.kind() != old.kind() || new.key() != old.key() {
            return Err(refused("kind, name and namespace cannot be changed"));
        }
        Ok(new)
    };
    let told = |e| match e {
        CliError::Object(e) => refused(&e.to_string()),
        e => e,
    };
    let mut guard = None;
    if args.confirm.timeout.is_some() {
        let mut named = kind.empty();
        write::in_namespace(&mut named, &args.namespace);
        let old = cluster.get(kind, named.namespace(), &args.name);
        let intent = patched(old.map_err(|e| told(e.into()))?).map(Intent::Write)?;
        guard = Guard::arm(&args.confirm, cluster, "patch", vec![intent])?;
    }
    let done = change(cluster, kind, &args.namespace, &args.name, patched);
    if let Ok(new) = &done {
        Guard::wrote(&mut guard, new);
    }
    let settled = Guard::settle(guard, cluster, console);
    done.map_err(told)?;
    settled?;
    console.print(&format!(
        "Successfully patched 1 '{}' resource\n",
        kind.name()
    ))
}

/// Through the reader of user files, so that a field that does not exist is found.
fn read_back(value: &Value) -> Result<Resource, String> {
    let mut parsed = api::parse_documents(&value.to_string(), "the patched resource");
    match parsed.pop() {
        Some(Ok((r, _))) => Ok(r),
        Some(Err(e)) => Err(e.problem.to_string()),
        None => Err("nothing is left of the resource".to_owned()),
    }
}

fn parse_patch(text: &str) -> Result<Value, String> {
    serde_json::from_str(text).map_err(|e| format!("the patch is not JSON: {e}"))
}

/// RFC 7386.
fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Value::Object(target) = target else {
        return;
    };
    for (key, change) in patch {
        if change.is_null() {
            target.remove(key);
        } else {
            merge(target.entry(key).or_insert(Value::Null), change);
        }
    }
}

/// RFC 6902.
fn operations(target: &mut Value, patch: &Value) -> Result<(), String> {
    let Value::Array(list) = patch else {
        return Err("a patch of type json must be a list of operations".to_owned());
    };
    list.iter().try_for_each(|op| operation(target, op))
}

fn operation(target: &mut Value, op: &Value) -> Result<(), String> {
    let text = |k: &str| {
        op.get(k)
            .and_then(Value::as_str)
            .ok_or_else(|| format!("operation {op}: {k} is missing"))
    };
    let given = || {
        op.get("value")
            .cloned()
            .ok_or_else(|| format!("operation {op}: value is missing"))
    };
    let at = |path: &str, v: &Value| {
        v.pointer(path)
            .cloned()
            .ok_or_else(|| format!("no such path: {path}"))
    };
    let path = text("path")?;
    match text("op")? {
        "add" => add(target, path, given()?),
        "remove" => remove(target, path).map(drop),
        "replace" => {
            let slot = target
                .pointer_mut(path)
                .ok_or_else(|| format!("no such path: {path}"))?;
            *slot = given()?;
            Ok(())
        }
        "copy" => {
            let v = at(text("from")?, target)?;
            add(target, path, v)
        }
        "move" => {
            let v = remove(target, text("from")?)?;
            add(target, path, v)
        }
        "test" if at(path, target)? == given()? => Ok(()),
        "test" => Err(format!("test failed: {path} is {}", at(path, target)?)),
        other => Err(format!(
            "unknown operation '{other}': use add, remove, replace, move, copy or test"
        )),
    }
}

/// The container of a path's last step, and that step.
fn parent<'v>(target: &'v mut Value, path: &str) -> Result<(&'v mut Value, String), String> {
    let (above, last) = path
        .rsplit_once('/')
        .ok_or_else(|| format!("path '{path}' does not begin with /"))?;
    let holder = target
        .pointer_mut(above)
        .ok_or_else(|| format!("no such path: {above}"))?;
    Ok((holder, last.replace("~1", "/").replace("~0", "~")))
}

fn add(target: &mut Value, path: &str, value: Value) -> Result<(), String> {
    if path.is_empty() {
        *target = value;
        return Ok(());
    }
    let (holder, last) = parent(target, path)?;
    match holder {
        Value::Object(o) => {
            o.insert(last, value);
        }
        Value::Array(a) if last == "-" => a.push(value),
        Value::Array(a) => {
            let i = last.parse().ok().filter(|i: &usize| *i <= a.len());
            a.insert(i.ok_or_else(|| format!("no such path: {path}"))?, value);
        }
        _ => return Err(format!("no such path: {path}")),
    }
    Ok(())
}

fn remove(target: &mut Value, path: &str) -> Result<Value, String> {
    let (holder, last) = parent(target, path)?;
    let gone = match holder {
        Value::Object(o) => o.remove(&last),
        Value::Array(a) => last
            .parse()
            .ok()
            .filter(|i: &usize| *i < a.len())
            .map(|i| a.remove(i)),
        _ => None,
    };
    gone.ok_or_else(|| format!("no such path: {path}"))
}

/// What became of a label.
enum Labelled {
    Set,
    Updated,
    Removed,
}

pub(crate) fn label(
    args: &LabelArgs,
    cluster: &Cluster,
    console: &mut Console<'_>,
) -> Result<(), CliError> {
    let kind = kinds::by_word(&args.kind)?;
    let (key, value) = match (args.label.split_once('='), args.remove) {
        (Some((k, v)), false) if !k.is_empty() => (k, Some(v)),
        (None, true) => (args.label.as_str(), None),
        (_, true) => {
            return Err(CliError::Usage(format!(
                "--remove takes a key alone, not '{}'",
                args.label
            )));
        }
        (_, false) => {
            return Err(CliError::Usage(format!(
                "'{}' is not key=value; add --remove to remove a label",
                args.label
            )));
        }
    };
    let mut done = Labelled::Set;
    change(cluster, kind, &args.namespace, &args.name, |mut r| {
        let labels = &mut r.meta_mut().labels;
        done = match (labels.get(key), value) {
            (None, None) => {
                return Err(CliError::Usage(format!(
                    "can not remove label, key {key} does not exist"
                )));
            }
            (Some(_), None) => {
                labels.remove(key);
                Labelled::Removed
            }
            (Some(old), Some(new)) if old != new && !args.overwrite => {
                let text = format!(
                    "key {key} is already present. please use '--overwrite' to set a new value"
                );
                return Err(CliError::Usage(text));
            }
            (old, Some(new)) => {
                let was = if old.is_some() {
                    Labelled::Updated
                } else {
                    Labelled::Set
                };
                labels.insert(key.to_owned(), new.to_owned());
                was
            }
        };
        Ok(r)
    })?;
    let (what, preposition) = match done {
        Labelled::Set => ("set", "on"),
        Labelled::Updated => ("updated", "on"),
        Labelled::Removed => ("removed", "from"),
    };
    console.print(&format!(
        "Successfully {what} label {key} {preposition} {} {}\n",
        args.kind, args.name
    ))
}

/// Changes one stored resource, anew when somebody else was first.
fn change(
    cluster: &Cluster,
    kind: ResourceKind,
    namespace: &Namespace,
    name: &str,
    mut edit: impl FnMut(Resource) -> Result<Resource, CliError>,
) -> Result<Resource, CliError> {
    let mut named = kind.empty();
    write::in_namespace(&mut named, namespace);
    let mut tries = 1;
    loop {
        let old = cluster.get(kind, named.namespace(), name)?;
        match cluster.update(edit(old)?) {
            Err(ObjectError::Conflict { .. }) if tries < RETRIES => tries += 1,
            done => return Ok(done?),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn merging() {
        // Some of RFC 7386's own table.
        for (mut target, patch, want) in [
            (json!({"a":"b"}), json!({"a":"c"}), json!({"a":"c"})),
            (json!({"a":"b"}), json!({"b":"c"}), json!({"a":"b","b":"c"})),
            (
                json!({"a":"b","b":"c"}),
                json!({"a":null}),
                json!({"b":"c"}),
            ),
            (
                json!({"a":{"b":"c"}}),
                json!({"a":{"b":"d","c":null}}),
                json!({"a":{"b":"d"}}),
            ),
            (json!({"a":[{"b":"c"}]}), json!({"a":[1]}), json!({"a":[1]})),
            (
                json!({}),
                json!({"a":{"bb":{"ccc":null}}}),
                json!({"a":{"bb":{}}}),
            ),
        ] {
            merge(&mut target, &patch);
            assert_eq!(target, want);
        }
    }

    #[test]
    fn operations_one_by_one() {
        let start = json!({"a": [1, 2], "b": {"c/d": "x"}});
        let run = |op: Value| {
            let mut v = start.clone();
            operations(&mut v, &json!([op])).map(|()| v)
        };
        assert_eq!(
            run(json!({"op":"add","path":"/a/1","value":9})),
            Ok(json!({"a":[1,9,2],"b":{"c/d":"x"}}))
        );
        assert_eq!(
            run(json!({"op":"add","path":"/a/-","value":9})),
            Ok(json!({"a":[1,2,9],"b":{"c/d":"x"}}))
        );
        assert_eq!(
            run(json!({"op":"remove","path":"/b/c~1d"})),
            Ok(json!({"a":[1,2],"b":{}}))
        );
        assert_eq!(
            run(json!({"op":"move","from":"/a/0","path":"/e"})),
            Ok(json!({"a":[2],"b":{"c/d":"x"},"e":1}))
        );
        assert_eq!(
            run(json!({"op":"test","path":"/a/0","value":1})),
            Ok(start.clone())
        );
        for bad in [
            json!({"op":"test","path":"/a/0","value":2}),
            json!({"op":"remove","path":"/x"}),
            json!({"op":"remove","path":""}),
            json!({"op":"add","path":"/a/3","value":1}),
            json!({"op":"replace","path":"/x","value":1}),
            json!({"op":"swim","path":"/a"}),
            json!({"path":"/a"}),
            json!(7),
        ] {
            assert!(run(bad.clone()).is_err(), "{bad}");
        }
    }
}
