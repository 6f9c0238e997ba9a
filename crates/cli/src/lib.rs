//! The command line for resources and addresses, in calicoctl's words.
//!
//! Promises: verbs, flags, columns and messages that calicoctl's users and scripts know; every
//! input that cannot be is answered by one message that names the object and what to do, a
//! non-zero exit and no change in state; of several objects the good ones are done and the rest
//! is reported.
//!
//! Never: talks to a kernel or an agent; prints colour into YAML or JSON.

mod addresses;
mod args;
mod cluster;
mod edit;
mod error;
mod get;

mod kinds;
mod policy_test;
mod run;
mod source;
mod table;
mod version;
mod write;

pub use args::{
    CheckArgs, Command, ConfigureArgs, CreateArgs, DeleteArgs, FileArgs, GetArgs, GlobalArgs,
    IpamCommand, LabelArgs, Named, Namespace, PatchArgs, PatchType, PolicyCommand, PolicyTestArgs,
    ReleaseArgs, ShowArgs, Sources, Switch, VersionArgs,
};
pub use error::CliError;
pub use run::{Console, execute, run, status};
