//! What the sources must and must not say.

use std::fs;
use std::path::{Path, PathBuf};

/// A word that only some paths may hold, and why.
const ONLY_IN: &[(&str, &[&str], &str)] = &[
    (
        "Command::new(\"nft\")",
        &["tests", "xtask/", "bench"],
        "the product starts no program to reach the kernel",
    ),
    (
        "Command::new(\"ip\")",
        &["tests", "xtask/", "bench"],
        "the product starts no program to reach the kernel",
    ),
    ("netlink::Socket", &["kernel/"], "sockets stay in the rooms"),
];

/// Folders of pure crates that must not read the clock.
const NO_CLOCK: &[&str] = &[
    "crates/net/src",
    "crates/model/src",
    "crates/desired/src",
    "crates/calc/src",
    "crates/ipam/src",
    "crates/render/src",
    "crates/api/src",
];

/// Every fault of every source file.
pub(crate) fn faults() -> Result<Vec<String>, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .ok_or("xtask has no parent folder")?;
    let mut files = Vec::new();
    for top in ["crates", "kernel", "xtask"] {
        collect(&root.join(top), &mut files)?;
    }
    files.sort();
    let mut out = Vec::new();
    for path in files {
        let text =
            fs::read_to_string(&path).map_err(|e| format!("read {}: {e}", path.display()))?;
        let name = path
            .strip_prefix(root)
            .unwrap_or(&path)
            .display()
            .to_string();
        check(&name, &text, &mut out);
    }
    Ok(out)
}

fn check(name: &str, text: &str, out: &mut Vec<String>) {
    if !text.starts_with("//!") && !text.starts_with("#![") {
        out.push(format!(
            "{name}: begins without a `//!` that says what it promises"
        ));
    }
    if name.starts_with("xtask/") {
        return;
    }
    for (word, places, why) in ONLY_IN {
        if text.contains(word) && !places.iter().any(|p| name.contains(p)) {
            out.push(format!("{name}: {word} is not for here: {why}"));
        }
    }
    let clock = text.contains("Instant::now")
        || text.contains("SystemTime::now")
        || text.contains("Timestamp::now");
    if clock && NO_CLOCK.iter().any(|d| name.starts_with(d)) && !name.contains("tests") {
        out.push(format!(
            "{name}: a pure crate takes the time as an argument"
        ));
    }
}

fn collect(dir: &Path, out: &mut Vec<PathBuf>) -> Result<(), String> {
    let entries = fs::read_dir(dir).map_err(|e| format!("read {}: {e}", dir.display()))?;
    for entry in entries {
        let path = entry
            .map_err(|e| format!("read {}: {e}", dir.display()))?
            .path();
        if path.is_dir() {
            collect(&path, out)?;
        } else if path.extension().is_some_and(|e| e == "rs") {
            out.push(path);
        }
    }
    Ok(())
}
