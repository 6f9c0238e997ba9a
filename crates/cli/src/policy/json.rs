//! Answers as JSON: one object, camelCase, nothing that is not so.

use crate::CliError;
use serde_json::{Map, Value, json};
use std::io;
use verdict::{Consulted, Decision, Effect, Explanation, Flow, Path, RuleTrail, Stage, Target};

/// With indentation and a last line end.
pub(super) fn pretty(v: &Value) -> Result<String, CliError> {
    let text = serde_json::to_string_pretty(v).map_err(io::Error::from)?;
    Ok(format!("{text}\n"))
}

/// A whole answer; with `all`, every rule that was asked.
pub(super) fn explanation(e: &Explanation, all: bool) -> Value {
    let paths: Vec<Value> = e.paths.iter().map(|p| path(p, all)).collect();
    let mut out = flow(&e.flow);
    out.insert("verdict".to_owned(), json!(e.verdict.name()));
    out.insert("paths".to_owned(), json!(paths));
    if let Some(s) = &e.staged {
        let changed = s.changed_by.iter();
        let changed: Vec<Value> = changed
            .map(|(k, v)| json!({"policy": k.to_string(), "verdict": v.name()}))
            .collect();
        let paths: Vec<Value> = s.paths.iter().map(|p| path(p, all)).collect();
        let staged = json!({"verdict": s.verdict.name(), "changedBy": changed, "paths": paths});
        out.insert("staged".to_owned(), staged);
    }
    if !e.notes.is_empty() {
        out.insert("notes".to_owned(), json!(e.notes));
    }
    Value::Object(out)
}

fn flow(f: &Flow) -> Map<String, Value> {
    let to = match &f.to {
        Target::Address(a) => a.to_string(),
        Target::Service(s) => format!("service/{}/{}", s.namespace, s.name),
    };
    let mut out = Map::new();
    out.insert("from".to_owned(), json!(f.from.to_string()));
    out.insert("source".to_owned(), json!(f.source));
    out.insert("to".to_owned(), json!(to));
    out.insert("protocol".to_owned(), json!(f.protocol.to_string()));
    if f.protocol.has_ports() {
        out.insert("port".to_owned(), json!(f.port));
    }
    out
}

fn path(p: &Path, all: bool) -> Value {
    let shown = p.stages.iter().filter(|s| all || s.effect != Effect::Pass);
    let stages: Vec<Value> = shown.map(|s| stage(s, all)).collect();
    let mut out = json!({
        "to": p.to.to_string(),
        "address": p.destination.0,
        "port": p.destination.1,
        "verdict": if p.allowed { "allow" } else { "deny" },
        "seenSource": p.seen_source,
        "stages": stages,
    });
    if !p.remedies.is_empty() {
        out["remedies"] = json!(p.remedies);
    }
    out
}

fn stage(s: &Stage, all: bool) -> Value {
    let effect = match s.effect {
        Effect::Allow => "allow",
        Effect::Deny => "deny",
        Effect::Pass => "pass",
    };
    let mut out = json!({
        "node": s.node,
        "place": s.place.to_string(),
        "effect": effect,
        "reason": s.decision.to_string(),
    });
    decision(&s.decision, &mut out);
    if all {
        out["packet"] = json!(s.packet.to_string());
        out["consulted"] = s.consulted.iter().map(consulted).collect();
    }
    out
}

fn decision(d: &Decision, out: &mut Value) {
    match d {
        Decision::Rule {
            tier,
            policy,
            index,
            name,
            ..
        } => {
            out["tier"] = json!(tier);
            out["policy"] = json!(policy.to_string());
            out["rule"] = json!(index);
            if let Some(n) = name {
                out["ruleName"] = json!(n);
            }
        }
        Decision::EndOfTier { tier, policies } => {
            out["tier"] = json!(tier);
            out["policies"] = policies.iter().map(|k| json!(k.to_string())).collect();
        }
        Decision::Profile { profile, index, .. } => {
            out["profile"] = json!(profile);
            out["rule"] = json!(index);
        }
        Decision::MissingProfile(profile) => out["profile"] = json!(profile),
        _ => {}
    }
}

fn consulted(c: &Consulted) -> Value {
    match c {
        Consulted::Tier(t) => {
            let policies = t.policies.iter().map(|p| {
                let rules: Vec<Value> = p.rules.iter().map(rule).collect();
                json!({"policy": p.policy.to_string(), "rules": rules})
            });
            json!({"tier": t.tier, "policies": policies.collect::<Vec<_>>()})
        }
        Consulted::Profile(p, None) => json!({"profile": p, "exists": false}),
        Consulted::Profile(p, Some(rules)) => {
            json!({"profile": p, "rules": rules.iter().map(rule).collect::<Vec<_>>()})
        }
    }
}

fn rule(r: &RuleTrail) -> Value {
    let mut out = json!({
        "rule": r.index,
        "action": format!("{:?}", r.action),
        "matches": r.mismatch.is_none(),
    });
    if let Some(n) = &r.name {
        out["name"] = json!(n);
    }
    if let Some(m) = &r.mismatch {
        out["mismatch"] = json!({"field": m.field.to_string(), "wanted": m.wanted, "got": m.got});
    }
    out
}
