//! Chores of the repository. `cargo xtask tidy` holds what ARCHITECTURE.md promises of
//! its structure: the edges between crates, who may name a netlink packet, and
//! the header of each file. It reads cargo's own metadata and the sources, changes nothing, and
//! prints every fault before it exits non-zero.

mod edges;
mod sources;

use std::process::ExitCode;

fn main() -> ExitCode {
    let command = std::env::args().nth(1).unwrap_or_default();
    match command.as_str() {
        "tidy" => tidy(),
        _ => {
            eprintln!(
                "usage: cargo xtask tidy    check crate edges, file headers and forbidden names"
            );
            ExitCode::from(2)
        }
    }
}

fn tidy() -> ExitCode {
    let faults: Vec<String> = match (edges::faults(), sources::faults()) {
        (Ok(a), Ok(b)) => a.into_iter().chain(b).collect(),
        (Err(e), _) | (_, Err(e)) => {
            eprintln!("tidy: {e}");
            return ExitCode::from(2);
        }
    };
    for f in &faults {
        eprintln!("tidy: {f}");
    }
    if faults.is_empty() {
        eprintln!("tidy: edges, headers and names are in order");
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
