//! Resources of a file, as they are and as they change.
//!
//! Promises: a file is taken whole or not at all; whatever is wrong with it is said at once, by line,
//! object, field and reason; of a changed file only what has changed is handed on. Never: keeps a
//! half-read file.

use crate::handle::{Gone, Handle};
use api::Resource;
use model::Update;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::path::Path;

/// What a file says.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Content {
    /// By resource: what it means.
    resources: BTreeMap<String, Vec<Update>>,
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
        let mut pools = Vec::new();
        for document in api::parse_documents(text, source) {
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
        if resource.namespace() == Some("") {
            // As kubectl has it.
            "default".clone_into(&mut resource.meta_mut().namespace);
        }
        api::default(resource);
        let name = match &*resource {
            // Passwords are looked up by name alone: one node, one namespace.
            Resource::Secret(s) => format!("Secret({})", s.metadata.name),
            r => r.to_string(),
        };
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

    /// Hands on what has changed since `before`.
    ///
    /// # Errors
    /// When the speaker has ended.
    pub fn follow(&self, before: &Self, to: &Handle) -> Result<(), Gone> {
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

    #[test]
    fn resources_and_secrets() {
        let c = Content::parse(GOOD, "f").unwrap();
        assert_eq!(c.nodes().into_iter().collect::<Vec<_>>(), ["a"]);
        assert_eq!(c.resources.len(), 3);
        let [Update::Secret(at, Some(secret))] = &c.resources["Secret(keys)"][..] else {
            panic!("{:?}", c.resources["Secret(keys)"]);
        };
        assert_eq!((&*at.namespace, &*at.name), ("kube-system", "keys"));
        assert_eq!(
            (&*secret.0["one"], &*secret.0["two"]),
            (&b"secret"[..], &b"plain"[..])
        );
        // As octets, too.
        assert!(!format!("{c:?}").contains("115, 101, 99"), "{c:?}");
    }

    #[test]
    fn who_says_no_namespace_means_the_default_one() {
        let c = Content::parse(&GOOD.replace(", namespace: kube-system", ""), "f").unwrap();
        let [Update::Secret(at, Some(_))] = &c.resources["Secret(keys)"][..] else {
            panic!("{:?}", c.resources["Secret(keys)"]);
        };
        assert_eq!(&*at.namespace, "default");
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
            lines[0].starts_with(
                "f.yaml:6:1: Secret(keys): error with field data.one = '...' (not base64"
            ),
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
