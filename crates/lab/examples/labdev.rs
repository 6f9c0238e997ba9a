//! The lab's commands alone, to try them without the whole binary: no agent, no plugin.

use clap::Parser;
use std::process::ExitCode;

#[derive(Parser)]
enum Top {
    /// Clusters made of network namespaces
    Lab(lab::Args),
}

fn main() -> ExitCode {
    let Top::Lab(args) = Top::parse();
    lab::run(args)
}
