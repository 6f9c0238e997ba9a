//! The binary: dispatch on the name it is called by and on the subcommand, nothing else.
//!
//! Called as `calico` or `calico-ipam` by a container runtime it is that CNI plugin, and gets there
//! before any argument is parsed or runtime started. Called as `calicoctl` it is the command
//! line alone.

use clap::{CommandFactory, Parser, Subcommand};
use clap_complete::Shell;
use std::path::Path;
use std::process::ExitCode;

/// Calico's API, one Rust binary, no tail
///
/// manx is the node agent, the CNI and IPAM plugins, the command line and the lab. It takes
/// Calico's resources, annotations, configuration and environment variables. Called by another
/// name (calico, calico-ipam, calicoctl) it is that program.
#[derive(Debug, Parser)]
#[command(
    name = "manx",
    version,
    arg_required_else_help = true,
    propagate_version = true
)]
struct Manx {
    #[command(flatten)]
    global: cli::GlobalArgs,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    #[command(flatten)]
    Cli(cli::Command),
    Node(agent::node::NodeArgs),
    Speaker(speaker::SpeakerArgs),
    /// Whole clusters on this machine, made of network namespaces
    Lab(lab::Args),
    /// Print the completion script of a shell
    ///
    /// For bash: manx completion bash > /etc/bash_completion.d/manx
    Completion {
        /// The shell
        shell: Shell,
    },
}

/// The command line alone, as `calicoctl`.
#[derive(Debug, Parser)]
#[command(name = "calicoctl", version, arg_required_else_help = true)]
struct Calicoctl {
    #[command(flatten)]
    global: cli::GlobalArgs,
    #[command(subcommand)]
    command: cli::Command,
}

fn main() -> ExitCode {
    let called = std::env::args_os().next().unwrap_or_default();
    let name = Path::new(&called)
        .file_name()
        .and_then(|n| n.to_str())
        .unwrap_or_default();
    match name {
        "calico-ipam" => cni::plugin::main(cni::plugin::Kind::Ipam),
        // A runtime says what it wants in the environment and gives no argument.
        "calico" if std::env::args_os().len() == 1 => cni::plugin::main(cni::plugin::Kind::Network),
        "calicoctl" => {
            let args = Calicoctl::parse();
            cli::run(args.command, &args.global)
        }
        _ => run(Manx::parse()),
    }
}

fn run(args: Manx) -> ExitCode {
    match args.command {
        Command::Cli(command) => cli::run(command, &args.global),
        Command::Node(args) => agent::node::main(args),
        Command::Speaker(args) => speaker::main(args),
        Command::Lab(args) => lab::run(args),
        Command::Completion { shell } => {
            clap_complete::generate(shell, &mut Manx::command(), "manx", &mut std::io::stdout());
            ExitCode::SUCCESS
        }
    }
}
