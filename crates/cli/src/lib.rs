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
mod bgp;
mod cluster;
mod confirm;
mod edit;
mod error;
mod get;

mod kinds;
mod node_status;
mod policy;
mod policy_test;
mod risk;
mod run;
mod source;
mod table;
mod version;
mod write;

pub use args::{
    AnswerFormat, Asked, BgpCommand, BgpFormat, BgpStatusArgs, CheckArgs, Command, ConfigureArgs,
    ConfirmArgs, ConfirmIn, CreateArgs, DeleteArgs, DumpArgs, Expected, FaultsArgs, FileArgs,
    GetArgs, GlobalArgs, IpamCommand, LabelArgs, Named, Namespace, PatchArgs, PatchType, PeersArgs,
    PolicyCommand, PolicyDiffArgs, PolicyTestArgs, ReleaseArgs, RoutesArgs, ShowArgs, Sources,
    Switch, VersionArgs, WhyArgs, WriteArgs,
};
pub use error::CliError;
pub use node_status::{NodeStatusArgs, node_status, node_status_on};
pub use run::{Console, execute, run, status};
