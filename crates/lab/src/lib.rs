//! Whole clusters made of network namespaces, on one machine, in a second.
//!
//! Promises: what a lab shows is what the product does: the real agent and the real CNI
//! plugin on the real kernel, with real packets between them. A lab ends with its holder
//! process, however that dies, and leaves no process, namespace or mount behind.
//!
//! Never: touches the namespace, addresses, routes or settings of the machine it runs on;
//! has a path to the machine's uplink; runs a program to set up its network.
//!
//! The parts: [`args`] and `command` are the caller's side. The `holder` process keeps the
//! namespaces, plays the fabric, the kubelet and the peers that probes talk to, and listens
//! on a control socket (`protocol`) in the lab's directory (`state`). `matrix` and
//! `reason` are pure; what a lab is made of and scenario files are in the crate `scenario`.

pub mod args;
mod capture;
mod command;
mod holder;
mod matrix;
mod neighbours;
mod protocol;
mod routes;
mod state;

pub use args::Args;

/// Runs one command of the lab. The result is the exit status of the process: 0 for success,
/// 1 for a command that failed or an expectation that did not hold, 2 for input that cannot
/// be used; `exec` gives that of the program it ran.
///
/// `up`, `test`, `random` and `demo` clone a process into new namespaces; between clone and exec it
/// makes only system calls, so that other threads do not matter.
#[must_use]
pub fn run(args: Args) -> std::process::ExitCode {
    command::run(args)
}
