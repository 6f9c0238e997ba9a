//! The command line alone, to try it without the rest.

use clap::Parser;
use std::process::ExitCode;

#[derive(Parser)]
#[command(name = "manx")]
struct Args {
    #[command(flatten)]
    global: cli::GlobalArgs,
    #[command(subcommand)]
    command: cli::Command,
}

fn main() -> ExitCode {
    let args = Args::parse();
    cli::run(args.command, &args.global)
}
