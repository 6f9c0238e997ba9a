//! Resources of a file, as they are and as they change.
//!
//! Promises: a file is taken whole or not at all; whatever is wrong with it is said at once, by line,
//! object, field and reason; of a changed file only what has changed is handed on. Never: keeps a
//! half-read file.

use crate::handle::{Gone, Handle};
use api::Resource;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use model::{SecretKey, Update};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::io;
use std::path::Path;

/// What a file says.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Content {
    /// By resource: what it means.
    resources: BTreeMap<String, Vec<Update>>,
    /// What its secrets hold.
    keys: HashMap<SecretKey, Vec<u8>>,
}

/// Why a file cannot be taken.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It cannot be read.
    #[error("read {path}: {cause}")]
    Read {
        /// The file.
        path: String,
        /// What the system says.
        #[source]
        cause: io::Error,
    },
    /// Something in it is wrong: each thing, with where it is.
    #[error("{}", .0.join("\n"))]
    Bad(Vec<String>),
}

impl Content {
    /// Reads a file.
    ///
    /// # Errors
    /// With all that is wrong with it.
    pub fn read(path: &Path) -> Result<Self, FileError> {
        let name = path.display().to_string();
        let text = std::fs::read_to_string(path).map_err(|cause| FileError::Read {
            path: name.clone(),
            cause,
        })?;
        Self::parse(&text, &name)
    }

    /// Reads a text; `source` is how errors name it.
    ///
    /// # Errors
    /// With all that is wrong with it.
    pub fn parse(text: &str, source: &str) -> Result<Self, FileError> {
        let mut out = Self::default();
        let mut bad = Vec::new();
        let rest = out.take_secrets(text, source, &mut bad);
        let mut pools = Vec::new();
        for document in api::parse_documents(&rest, source) {
            match document {
                Ok((mut resource, at)) => {
                    let taken = out.take(&mut resource, &mut pools);
                    bad.extend(taken.err().map(|e| format!("{at}: {e}")));
                }
                Err(e) => bad.push(e.to_string()),
            }
        }
        match bad.is_empty() {
            true => Ok(out),
            false => Err(FileError::Bad(bad)),
        }
    }

    /// The nodes that it has.
    pub fn nodes(&self) -> BTreeSet<&str> {
        self.resources
            .values()
            .flatten()
            .filter_map(|u| match u {
                Update::Node(name, Some(_)) => Some(&**name),
                _ => None,
            })
            .collect()
    }

    fn take(
        &mut self,
        resource: &mut Resource,
        pools: &mut Vec<api::kinds::pool::IpPool>,
    ) -> Result<(), String> {
        api::default(resource);
        let name = resource.to_string();
        let of_it = |e: &dyn fmt::Display| format!("{name}: {e}");
        api::validate(resource).map_err(|e| of_it(&e))?;
        if let Resource::IpPool(pool) = resource {
            if let Some(e) = api::pool_overlap(pool, pools.iter()) {
                return Err(of_it(&e));
            }
            pools.push(pool.clone());
        }
        let updates = api::updates(resource).map_err(|e| e.to_string())?;
        if self.resources.contains_key(&name) {
            return Err(format!("{name}: it is there twice"));
        }
        self.resources.insert(name, updates);
        Ok(())
    }

    /// Takes the Secrets; what is left has as many lines.
    fn take_secrets(&mut self, text: &str, source: &str, bad: &mut Vec<String>) -> String {
        let mut rest = String::with_capacity(text.len());
        let mut line = 1;
        for document in documents(text) {
            let lines = document.matches('\n').count();
            if is_secret(document) {
                let skipped = document.lines().take_while(|l| !says(l)).count();
                let at = |e: &dyn fmt::Display| format!("{source}:{}:1: {e}", line + skipped);
                bad.extend(self.take_secret(document).err().map(|e| at(&e)));
                // Otherwise what follows would belong to what is before.
                rest.push_str("---");
                rest.extend(std::iter::repeat_n('\n', lines));
            } else {
                rest.push_str(document);
            }
            line += lines;
        }
        rest
    }

    fn take_secret(&mut self, text: &str) -> Result<(), String> {
        let text = text.strip_prefix("---").unwrap_or(text);
        let secret: Secret =
            serde_saphyr::from_str(text).map_err(|e| e.without_snippet().to_string())?;
        let name = secret.metadata.name;
        if name.is_empty() {
            return Err("Secret: metadata.name is missing".to_owned());
        }
        let mut put = |key: &str, value: Vec<u8>| {
            let at = SecretKey {
                name: name.as_str().into(),
                key: key.into(),
            };
            match self.keys.insert(at, value) {
                None => Ok(()),
                Some(_) => Err(format!("Secret({name}): {key} is there twice")),
            }
        };
        for (key, value) in secret.data {
            // Encoders break lines.
            let packed: String = value.split_whitespace().collect();
            let octets = STANDARD.decode(packed).map_err(|e| {
                format!("Secret({name}): error with field data.{key} (base64: {e})")
            })?;
            put(&key, octets)?;
        }
        for (key, value) in secret.string_data {
            put(&key, value.into_bytes())?;
        }
        Ok(())
    }

    /// Hands on what has changed since `before`.
    ///
    /// # Errors
    /// When the speaker has ended.
    pub fn follow(&self, before: &Self, to: &Handle) -> Result<(), Gone> {
        for (key, _) in before
            .keys
            .iter()
            .filter(|(k, _)| !self.keys.contains_key(k))
        {
            to.key(key.clone(), None)?;
        }
        for (key, value) in &self.keys {
            if before.keys.get(key) != Some(value) {
                to.key(key.clone(), Some(value.clone()))?;
            }
        }
        for (name, old) in &before.resources {
            let new = self.resources.get(name).map_or(&[][..], Vec::as_slice);
            let kept: Vec<Update> = new.iter().map(api::absent).collect();
            for gone in old.iter().map(api::absent).filter(|g| !kept.contains(g)) {
                to.update(gone)?;
            }
        }
        for (name, new) in &self.resources {
            if before.resources.get(name) != Some(new) {
                for update in new {
                    to.update(update.clone())?;
                }
            }
        }
        Ok(())
    }
}

/// A Secret of Kubernetes, as far as it matters here.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Secret {
    #[serde(rename = "apiVersion")]
    _api_version: String,
    #[serde(rename = "kind")]
    _kind: String,
    metadata: Metadata,
    #[serde(default)]
    data: BTreeMap<String, String>,
    #[serde(default)]
    string_data: BTreeMap<String, String>,
    #[serde(rename = "type")]
    _type: Option<String>,
    #[serde(rename = "immutable")]
    _immutable: Option<bool>,
}

/// Its name; labels and the like are nobody's business here.
#[derive(Deserialize)]
struct Metadata {
    #[serde(default)]
    name: String,
}

/// Whether a line says something.
fn says(line: &str) -> bool {
    let t = line.trim();
    !t.is_empty() && t != "---" && !t.starts_with('#')
}

fn is_secret(document: &str) -> bool {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Head {
        api_version: String,
        kind: String,
    }
    let text = document.strip_prefix("---").unwrap_or(document);
    // Cheap first: files are long, and secrets few.
    text.contains("Secret")
        && serde_saphyr::from_str::<Head>(text)
            .is_ok_and(|h| h.kind == "Secret" && h.api_version == "v1")
}

/// The pieces of a text, each from its marker on; together they are the text.
fn documents(text: &str) -> Vec<&str> {
    let mut out = Vec::new();
    let (mut start, mut at) = (0, 0);
    for line in text.split_inclusive('\n') {
        if at > start
            && line
                .strip_prefix("---")
                .is_some_and(|r| r.trim().is_empty())
        {
            out.push(&text[start..at]);
            start = at;
        }
        at += line.len();
    }
    out.push(&text[start..]);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "\
apiVersion: projectcalico.org/v3
kind: Node
metadata: {name: a}
spec: {bgp: {ipv4Address: 10.0.0.1/24}}
---
apiVersion: v1
kind: Secret
metadata: {name: keys, namespace: kube-system}
type: Opaque
data: {one: c2VjcmV0}
stringData: {two: plain}
---
apiVersion: projectcalico.org/v3
kind: BGPPeer
metadata: {name: p}
spec: {peerIP: 10.0.0.2, asNumber: 65001}
";

    fn key(name: &str, key: &str) -> SecretKey {
        SecretKey {
            name: name.into(),
            key: key.into(),
        }
    }

    #[test]
    fn resources_and_secrets() {
        let c = Content::parse(GOOD, "f").unwrap();
        assert_eq!(c.nodes().into_iter().collect::<Vec<_>>(), ["a"]);
        assert_eq!(c.resources.len(), 2);
        assert_eq!(c.keys[&key("keys", "one")], b"secret");
        assert_eq!(c.keys[&key("keys", "two")], b"plain");
    }

    #[test]
    fn everything_that_is_wrong_is_said_with_its_place() {
        let text = GOOD
            .replace("10.0.0.2", "10.0.0.999")
            .replace("c2VjcmV0", "'?'")
            + "---\nkind: BGPPeer\napiVersion: projectcalico.org/v3\nmetadata: {name: q}\n\
               spec: {peerIP: 10.0.0.3, asnumber: 1}\n";
        let said = Content::parse(&text, "f.yaml").unwrap_err().to_string();
        let lines: Vec<&str> = said.lines().collect();
        assert_eq!(lines.len(), 3, "{said}");
        assert!(
            lines[0].starts_with("f.yaml:6:1: Secret(keys): error with field data.one"),
            "{said}"
        );
        assert!(
            lines[1].starts_with(
                "f.yaml:13:1: BGPPeer(p): error with field spec.peerIP = '10.0.0.999'"
            ) || lines[1].starts_with("f.yaml:12:1: BGPPeer(p): "),
            "{said}"
        );
        assert!(lines[2].contains("asnumber"), "{said}");
    }

    #[test]
    fn one_thing_twice_is_refused() {
        let node = GOOD.split("---").next().unwrap();
        let said = Content::parse(&format!("{GOOD}---\n{node}"), "f").unwrap_err();
        assert!(
            said.to_string().ends_with("Node(a): it is there twice"),
            "{said}"
        );
    }
}
