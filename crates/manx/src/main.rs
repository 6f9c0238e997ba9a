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
    /// Run this machine as a node of the cluster, and show how it is
    Node {
        #[command(subcommand)]
        command: NodeCommand,
    },
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

#[derive(Debug, Subcommand)]
enum NodeCommand {
    #[command(flatten)]
    Agent(agent::node::Command),
    Status(cli::NodeStatusArgs),
}

/// The command line alone, as `calicoctl`.
#[derive(Debug, Parser)]
#[command(name = "calicoctl", version, arg_required_else_help = true)]
struct Calicoctl {
    #[command(flatten)]
    global: cli::GlobalArgs,
    #[command(subcommand)]
    command: CalicoctlCommand,
}

#[derive(Debug, Subcommand)]
enum CalicoctlCommand {
    #[command(flatten)]
    Cli(cli::Command),
    /// Show how this machine is as a node
    Node {
        #[command(subcommand)]
        command: CalicoctlNode,
    },
}

#[derive(Debug, Subcommand)]
enum CalicoctlNode {
    Status(cli::NodeStatusArgs),
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
            match args.command {
                CalicoctlCommand::Cli(command) => cli::run(command, &args.global),
                CalicoctlCommand::Node {
                    command: CalicoctlNode::Status(args),
                } => cli::node_status(&args),
            }
        }
        _ => run(Manx::parse()),
    }
}

fn run(args: Manx) -> ExitCode {
    match args.command {
        Command::Cli(command) => cli::run(command, &args.global),
        Command::Node { command } => match command {
            NodeCommand::Agent(command) => agent::node::main(agent::node::NodeArgs { command }),
            NodeCommand::Status(args) => cli::node_status(&args),
        },
        Command::Speaker(args) => speaker::main(args),
        Command::Lab(args) => lab::run(args),
        Command::Completion { shell } => {
            clap_complete::generate(shell, &mut Manx::command(), "manx", &mut std::io::stdout());
            ExitCode::SUCCESS
        }
    }
}
