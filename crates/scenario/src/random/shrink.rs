//! Making a failing scenario smaller.
//!
//! Promises: what comes out still fails, and no single element or field of it can go without that
//! ending; the result is a function of the scenario and of what fails.
//!
//! Never: tries more than a bounded number of times.

use serde_json::Value;

/// Tries in all; each may cost a cluster.
const TRIES: usize = 600;

/// Leaves out elements of lists and fields of objects as long as `fails` holds.
pub fn shrink(doc: &Value, fails: &mut dyn FnMut(&Value) -> bool) -> Value {
    let mut best = doc.clone();
    let mut tries = 0;
    loop {
        let mut smaller = false;
        // From the top: what is left out whole needs no look inside.
        let mut paths = Vec::new();
        collect(&best, &mut Vec::new(), &mut paths);
        paths.sort_by_key(Vec::len);
        for path in paths {
            if tries >= TRIES {
                return best;
            }
            let Some(candidate) = without(&best, &path) else {
                continue;
            };
            tries += 1;
            if fails(&candidate) {
                best = candidate;
                smaller = true;
                // Positions have moved.
                break;
            }
        }
        if !smaller {
            return best;
        }
    }
}

/// A way into a document.
type Path = Vec<Step>;

#[derive(Debug, Clone)]
enum Step {
    Field(String),
    Element(usize),
}

/// Without these no object is one.
const KEPT: [&str; 8] = [
    "apiVersion",
    "kind",
    "metadata",
    "name",
    "families",
    "nodes",
    "steps",
    "action",
];

fn collect(v: &Value, at: &mut Path, out: &mut Vec<Path>) {
    match v {
        Value::Object(o) => {
            for (k, inner) in o {
                at.push(Step::Field(k.clone()));
                if !KEPT.contains(&k.as_str()) {
                    out.push(at.clone());
                }
                collect(inner, at, out);
                at.pop();
            }
        }
        Value::Array(list) => {
            for (i, inner) in list.iter().enumerate().rev() {
                at.push(Step::Element(i));
                if at.len() > 2 || !matches!(&at[0], Step::Field(f) if f == "steps") {
                    out.push(at.clone());
                }
                collect(inner, at, out);
                at.pop();
            }
        }
        _ => {}
    }
}

fn without(doc: &Value, path: &[Step]) -> Option<Value> {
    let mut out = doc.clone();
    let (last, way) = path.split_last()?;
    let mut at = &mut out;
    for step in way {
        at = match step {
            Step::Field(f) => at.get_mut(f.as_str())?,
            Step::Element(i) => at.get_mut(*i)?,
        };
    }
    match last {
        Step::Field(f) => drop(at.as_object_mut()?.remove(f)?),
        Step::Element(i) => {
            let list = at.as_array_mut()?;
            if *i >= list.len() {
                return None;
            }
            list.remove(*i);
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_matters_stays_and_the_rest_goes() {
        let doc = json!({
            "name": "x", "pods": [{"name": "a"}, {"name": "b", "labels": {"k": "v", "l": "w"}}],
            "steps": [{"apply": [1, 2, {"kind": "P", "spec": {"bad": true, "other": [1, 2]}}], "expect": []}],
        });
        let mut fails = |d: &Value| {
            d["steps"][0]["apply"]
                .as_array()
                .is_some_and(|a| a.iter().any(|o| o["spec"]["bad"] == true))
                && d["pods"]
                    .as_array()
                    .is_some_and(|p| p.iter().any(|p| p["labels"]["k"] == "v"))
        };
        let small = shrink(&doc, &mut fails);
        assert_eq!(
            small,
            json!({
                "name": "x", "pods": [{"name": "b", "labels": {"k": "v"}}],
                "steps": [{"apply": [{"kind": "P", "spec": {"bad": true}}]}],
            })
        );
    }
}
