//! Which crate may use which. The table is the architecture; a new edge is a change to
//! it and to ARCHITECTURE.md together.

use serde_json::Value;
use std::collections::BTreeMap;
use std::process::Command;

/// A crate, and which of ours it may use. Dev-dependencies are not held to it.
const ALLOWED: &[(&str, &[&str])] = &[
    ("net", &[]),
    ("model", &["net"]),
    ("netlink", &["net"]),
    ("desired", &["net", "model"]),
    ("api", &["net", "model"]),
    ("link", &["net", "netlink"]),
    ("route", &["net", "netlink"]),
    ("nftables", &["net", "netlink"]),
    ("ipam", &["net"]),
    ("calc", &["net", "model", "desired"]),
    // Shares nothing with calc or render: it is what they are held against.
    ("verdict", &["net", "model"]),
    ("bgp", &["net"]),
    ("bfd", &[]),
    ("peering", &["net", "model", "bgp"]),
    ("scenario", &["net", "model", "api", "verdict"]),
    // Values of the rooms only; `sources` holds it off their sockets.
    (
        "render",
        &["net", "model", "desired", "link", "route", "nftables"],
    ),
    (
        "dataplane",
        &[
            "net", "model", "desired", "render", "link", "route", "nftables", "netlink",
        ],
    ),
    ("datastore", &["model", "api", "ipam"]),
    ("daemon", &["net"]),
    (
        "speaker",
        &[
            "net", "model", "api", "bgp", "bfd", "peering", "route", "link", "netlink", "daemon",
        ],
    ),
    ("cni", &["net"]),
    // The agent answers the plugin, so it speaks the plugin's protocol.
    (
        "agent",
        &[
            "net",
            "model",
            "desired",
            "api",
            "calc",
            "ipam",
            "dataplane",
            "datastore",
            "daemon",
            "cni",
            "peering",
            "speaker",
            "link",
            "route",
            "netlink",
            // Copies of name servers' answers.
            "nftables",
        ],
    ),
    (
        "cli",
        &[
            "net",
            "model",
            "api",
            "ipam",
            "datastore",
            "daemon",
            "verdict",
            "scenario",
        ],
    ),
    (
        "lab",
        &[
            "net",
            "model",
            "api",
            "datastore",
            "verdict",
            "scenario",
            "link",
            "route",
            "nftables",
            "netlink",
        ],
    ),
    ("manx", &["agent", "cni", "cli", "lab", "speaker"]),
    // Measures the finished binary, and calculation by itself; the rooms are for its own namespaces
    // and for the plain peer.
    (
        "bench",
        &[
            "net",
            "model",
            "desired",
            "calc",
            "api",
            "datastore",
            "netlink",
            "nftables",
            "link",
            "route",
        ],
    ),
    ("xtask", &[]),
];

/// Crates that must stay free of the outside, and what they must not depend on.
const PURE: &[&str] = &[
    "net", "model", "desired", "api", "calc", "ipam", "render", "verdict", "bgp", "peering",
    "scenario",
];
const IMPURE: &[&str] = &["tokio", "libc", "rustix", "rusqlite", "hyper"];

/// The one crate that may depend on each of these.
const BEHIND_ONE: &[(&str, &str)] = &[("rusqlite", "datastore")];

/// Every edge that the tables do not allow.
pub(crate) fn faults() -> Result<Vec<String>, String> {
    let out = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version=1", "--no-deps", "--offline"])
        .output()
        .map_err(|e| format!("run cargo metadata: {e}"))?;
    if !out.status.success() {
        return Err(format!(
            "cargo metadata failed: {}",
            String::from_utf8_lossy(&out.stderr)
        ));
    }
    let meta: Value =
        serde_json::from_slice(&out.stdout).map_err(|e| format!("cargo metadata: {e}"))?;
    let allowed: BTreeMap<&str, &[&str]> = ALLOWED.iter().copied().collect();
    let mut faults = Vec::new();
    for package in meta["packages"].as_array().into_iter().flatten() {
        let name = package["name"].as_str().unwrap_or_default();
        let Some(may) = allowed.get(name) else {
            faults.push(format!(
                "crate {name} is not in the table of xtask/src/edges.rs and ARCHITECTURE.md"
            ));
            continue;
        };
        for dep in package["dependencies"]
            .as_array()
            .into_iter()
            .flatten()
            .filter(|d| d["kind"].is_null())
        {
            let dep = dep["name"].as_str().unwrap_or_default();
            if allowed.contains_key(dep) && !may.contains(&dep) {
                faults.push(format!("{name} must not use {dep}"));
            }
            if PURE.contains(&name) && IMPURE.contains(&dep) {
                faults.push(format!("{name} is pure and must not use {dep}"));
            }
            if let Some((_, owner)) = BEHIND_ONE
                .iter()
                .find(|(d, owner)| *d == dep && *owner != name)
            {
                faults.push(format!(
                    "{name} must not use {dep}: it stays behind {owner}"
                ));
            }
        }
    }
    Ok(faults)
}
