//! What the command line takes: verbs, flags and their help, in calicoctl's spelling.
//!
//! Never: does anything.

pub use crate::bgp::{
    Asked, BgpCommand, BgpFormat, BgpStatusArgs, DumpArgs, FaultsArgs, PeersArgs, RoutesArgs,
};
pub use crate::confirm::{ConfirmArgs, ConfirmIn};
use clap::{Args, Subcommand, ValueEnum};
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Flags of every command.
#[derive(Debug, Clone, Args)]
pub struct GlobalArgs {
    /// What to log to standard error: panic, fatal, error, warn, info, debug or trace
    #[arg(
        short = 'l',
        long,
        global = true,
        value_name = "LEVEL",
        default_value = "panic",
        help_heading = "Global options"
    )]
    pub log_level: String,
    /// Name of a kubeconfig context; of no effect on an embedded store
    #[arg(
        long,
        global = true,
        value_name = "CONTEXT",
        help_heading = "Global options"
    )]
    pub context: Option<String>,
    /// Work on a cluster that was set up by another version
    #[arg(long, global = true, help_heading = "Global options")]
    pub allow_version_mismatch: bool,
    /// File that says which datastore to use [default: /etc/calico/calicoctl.cfg]
    ///
    /// A CalicoAPIConfig. When it exists it wins over the environment (DATASTORE_TYPE, MANX_STORE).
    #[arg(
        short = 'c',
        long,
        global = true,
        value_name = "FILE",
        help_heading = "Global options"
    )]
    pub config: Option<PathBuf>,
}

impl Default for GlobalArgs {
    fn default() -> Self {
        Self {
            log_level: "panic".to_owned(),
            context: None,
            allow_version_mismatch: false,
            config: None,
        }
    }
}

/// The verbs.
#[derive(Debug, Clone, Subcommand)]
pub enum Command {
    /// Show resources
    ///
    /// Lists all resources of a kind, or those named, or those that files identify.
    #[command(after_long_help = "\
Examples:
  # All pools, as a table
  manx get ippools
  # Two nodes, with more columns
  manx get nodes node-1 node-2 -o wide
  # Policies of every namespace
  manx get networkpolicy -A
  # One policy as a file that can be applied to another cluster
  manx get networkpolicy web -n prod -o yaml --export
  # Chosen columns: headings of the wide table, or HEADING:.path.of.a.field
  manx get pools -o custom-columns=NAME,CIDR,SIZE:.spec.blockSize")]
    Get(GetArgs),
    /// Create resources, or replace those that exist
    #[command(after_long_help = "\
Examples:
  manx apply -f policy.yaml
  # Every .yaml, .yml and .json below a directory
  manx apply -R -f ./cluster
  # From another program
  generate | manx apply -f -
  # Taken back after a minute, unless confirmed: for policy of the host that you are connected to
  manx apply -f host-policy.yaml --confirm 60s")]
    Apply(WriteArgs),
    /// Create resources; those that exist are errors
    #[command(after_long_help = "\
Examples:
  manx create -f pool.yaml
  # May be run twice
  manx create -f pool.yaml --skip-exists")]
    Create(CreateArgs),
    /// Replace resources; those that do not exist are errors
    ///
    /// A file that carries metadata.resourceVersion replaces that revision only: if somebody has
    /// changed the resource since, nothing happens and the command fails.
    #[command(after_long_help = "\
Examples:
  manx get ippool main -o yaml > pool.yaml
  # ... edit ...
  manx replace -f pool.yaml")]
    Replace(WriteArgs),
    /// Delete resources
    ///
    /// An address pool is disabled, its blocks are given back by their nodes, then it is deleted.
    /// Addresses in use stay with their pods.
    #[command(after_long_help = "\
Examples:
  manx delete networkpolicy web -n prod
  manx delete -f policy.yaml --skip-not-exists")]
    Delete(DeleteArgs),
    /// Change some fields of a resource
    #[command(after_long_help = "\
Examples:
  manx patch ippool main -p '{\"spec\":{\"natOutgoing\":true}}'
  # RFC 6902
  manx patch ippool main -t json -p '[{\"op\":\"remove\",\"path\":\"/spec/nodeSelector\"}]'")]
    Patch(PatchArgs),
    /// Keep changes that were made with --confirm, or take them back now
    #[command(after_long_help = "\
Examples:
  manx apply -f host-policy.yaml --confirm 60s
  # Still connected? Then it stays
  manx confirm
  # What waits, and what was taken back
  manx confirm --list
  # Not good: take it back at once
  manx confirm --rollback 1a2b3c4d")]
    Confirm(ConfirmArgs),
    /// Set or remove a label of a resource
    #[command(after_long_help = "\
Examples:
  manx label nodes node-1 rack=a3
  manx label nodes node-1 rack=b1 --overwrite
  manx label nodes node-1 rack --remove")]
    Label(LabelArgs),
    /// Check files without a datastore
    #[command(after_long_help = "\
Examples:
  manx validate -R -f ./cluster")]
    Validate(FileArgs),
    /// Show, check and repair addresses
    Ipam {
        /// What to do.
        #[command(subcommand)]
        command: IpamCommand,
    },
    /// Say whether a connection gets through, and why
    ///
    /// Answers from the resources alone, of the datastore or of files, for a new connection. Exits 0
    /// whatever the answer; with --check, 1 if it is another; 2 if there is none.
    #[command(after_long_help = "\
Examples:
  # Two pods, a port
  manx why shop/front shop/db 5432
  # With every rule that was asked and did not match
  manx why shop/front shop/db 5432 --all
  # From outside to a node port, to a service, to the world
  manx why 203.0.113.7 node/node-1 30080
  manx why shop/front service/shop/db
  manx why shop/front ip/8.8.8.8 53/UDP
  # Of files instead of the datastore; in scripts
  manx why shop/front shop/db 5432 -f ./cluster --check allow")]
    Why(WhyArgs),
    /// Try policy out
    Policy {
        /// What to do.
        #[command(subcommand)]
        command: PolicyCommand,
    },
    /// Show what this machine's BGP speaker does: peers, routes and the reasons, malformed messages
    Bgp {
        /// What to do.
        #[command(subcommand)]
        command: BgpCommand,
    },
    /// Show the versions of this program and of the cluster
    Version(VersionArgs),
}

/// What to do with policy.
#[derive(Debug, Clone, Subcommand)]
pub enum PolicyCommand {
    /// Answer scenario files from their resources alone, without a cluster
    ///
    /// Exits 0 if every expectation holds, 1 if one does not, 2 if a file cannot be used. `manx lab
    /// test` runs the same files with real packets.
    #[command(after_long_help = "\
Examples:
  manx policy test examples/scenarios
  manx policy test mine.yaml --json")]
    Test(PolicyTestArgs),
    /// Say whether a connection gets through, and why: the same as `manx why`
    Why(WhyArgs),
    /// Show which connections a change would open or close, before it is made
    ///
    /// Compares the resources of the datastore (or of --cluster) with what they would be with the
    /// files applied. Exits 0 if no connection changes, 1 if one does, 2 if it cannot be told.
    #[command(after_long_help = "\
Examples:
  manx policy diff -f new-policy.yaml
  # What if it were deleted?
  manx policy diff -f old-policy.yaml --delete
  # What if all staged policies were enforced?
  manx policy diff --staged
  # Without a datastore
  manx policy diff --cluster ./cluster -f new-policy.yaml -o json")]
    Diff(PolicyDiffArgs),
}

/// How answers are printed for programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum AnswerFormat {
    /// One JSON object.
    Json,
    /// The same as YAML.
    Yaml,
}

/// What an answer may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Expected {
    /// It gets through.
    Allow,
    /// It is dropped.
    Deny,
    /// Some backends of a service get it.
    Mixed,
}

impl Expected {
    /// As answers spell it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
            Self::Mixed => "mixed",
        }
    }
}

/// Arguments of `why`.
#[derive(Debug, Clone, Default, Args)]
pub struct WhyArgs {
    /// Who connects: namespace/pod, node/NAME, ip/ADDRESS
    #[arg(value_name = "FROM")]
    pub from: String,
    /// To whom: namespace/pod, node/NAME, service/NAMESPACE/NAME, ip/ADDRESS
    #[arg(value_name = "TO")]
    pub to: String,
    /// 80, 53/UDP, a name that the pod gives a port, or icmp; of a service its first when left out
    #[arg(value_name = "PORT[/PROTOCOL]")]
    pub port: Option<String>,
    /// TCP, UDP, SCTP, ICMP or a number
    #[arg(long, value_name = "PROTOCOL")]
    pub protocol: Option<String>,
    /// The source port; one that the kernel picks when left out
    #[arg(long, value_name = "PORT")]
    pub source_port: Option<u16>,
    /// 4 or 6; the first that both ends have when left out
    #[arg(long, value_name = "4|6", value_parser = family)]
    pub family: Option<u8>,
    /// Also show every rule that was asked, and why it did not match
    #[arg(long)]
    pub all: bool,
    /// Exit 1 if the answer is not this
    #[arg(long, value_name = "VERDICT", value_enum)]
    pub check: Option<Expected>,
    /// json or yaml instead of text
    #[arg(short = 'o', long, value_name = "FORMAT", value_enum)]
    pub output: Option<AnswerFormat>,
    /// Of these files instead of the datastore.
    #[command(flatten)]
    pub sources: Sources,
    /// In which namespace.
    #[command(flatten)]
    pub namespace: Namespace,
}

/// Arguments of `policy diff`.
#[derive(Debug, Clone, Default, Args)]
pub struct PolicyDiffArgs {
    /// What would be applied.
    #[command(flatten)]
    pub files: FileArgs,
    /// The files' resources would be deleted instead
    #[arg(long, conflicts_with = "staged")]
    pub delete: bool,
    /// Staged policies, those of the files too, would be enforced
    #[arg(long)]
    pub staged: bool,
    /// Files or directories with the resources as they are, instead of the datastore
    #[arg(long, value_name = "FILE", num_args = 1)]
    pub cluster: Vec<PathBuf>,
    /// json or yaml instead of text
    #[arg(short = 'o', long, value_name = "FORMAT", value_enum)]
    pub output: Option<AnswerFormat>,
}

/// Arguments of `policy test`.
#[derive(Debug, Clone, Default, Args)]
pub struct PolicyTestArgs {
    /// Scenario files, and directories of them (but for those named `files`)
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// One JSON object a file
    #[arg(long)]
    pub json: bool,
    /// Also show files and steps in which everything holds
    #[arg(short, long, conflicts_with = "json")]
    pub verbose: bool,
}

/// Where resources are read from.
#[derive(Debug, Clone, Default, Args)]
pub struct Sources {
    /// Files or directories to read, or - for standard input
    #[arg(short = 'f', long = "filename", value_name = "FILE", num_args = 1)]
    pub filename: Vec<PathBuf>,
    /// Read directories below directories too
    #[arg(short = 'R', long, requires = "filename")]
    pub recursive: bool,
    /// No error when there is nothing in the files
    #[arg(long, requires = "filename")]
    pub skip_empty: bool,
}

/// The namespace that is meant where none is written.
#[derive(Debug, Clone, Default, Args)]
pub struct Namespace {
    /// Namespace of what has one and does not name it [default: default]
    #[arg(short = 'n', long, value_name = "NAMESPACE")]
    pub namespace: Option<String>,
}

/// Arguments of `apply` and `replace`.
#[derive(Debug, Clone, Default, Args)]
pub struct WriteArgs {
    /// What.
    #[command(flatten)]
    pub files: FileArgs,
    /// Whether it is taken back.
    #[command(flatten)]
    pub confirm: ConfirmIn,
}

/// Arguments of `validate`, and what others have of them.
#[derive(Debug, Clone, Default, Args)]
pub struct FileArgs {
    /// Where from.
    #[command(flatten)]
    pub sources: Sources,
    /// In which namespace.
    #[command(flatten)]
    pub namespace: Namespace,
}

/// Arguments of `create`.
#[derive(Debug, Clone, Default, Args)]
pub struct CreateArgs {
    /// Which.
    #[command(flatten)]
    pub files: FileArgs,
    /// Pass over resources that exist, as if they had been created
    #[arg(long)]
    pub skip_exists: bool,
    /// Whether it is taken back.
    #[command(flatten)]
    pub confirm: ConfirmIn,
}

/// What `get` and `delete` are about, when not a file.
#[derive(Debug, Clone, Default, Args)]
pub struct Named {
    /// Kind, plural or short form, such as ippool, nodes, gnp
    #[arg(
        value_name = "KIND",
        conflicts_with = "filename",
        required_unless_present = "filename"
    )]
    pub kind: Option<String>,
    /// Names
    #[arg(value_name = "NAME")]
    pub names: Vec<String>,
}

/// Arguments of `get`.
#[derive(Debug, Clone, Default, Args)]
pub struct GetArgs {
    /// Which, by name.
    #[command(flatten)]
    pub named: Named,
    /// Which, by file.
    #[command(flatten)]
    pub files: FileArgs,
    /// ps, wide, yaml, json or custom-columns=HEADING,...
    #[arg(short = 'o', long, value_name = "FORMAT", default_value = "ps")]
    pub output: String,
    /// Of every namespace
    #[arg(short = 'A', long, conflicts_with = "namespace")]
    pub all_namespaces: bool,
    /// Leave out what belongs to this cluster: uid, resourceVersion, timestamps
    #[arg(long)]
    pub export: bool,
}

/// Arguments of `delete`.
#[derive(Debug, Clone, Default, Args)]
pub struct DeleteArgs {
    /// Which, by name.
    #[command(flatten)]
    pub named: Named,
    /// Which, by file.
    #[command(flatten)]
    pub files: FileArgs,
    /// Pass over resources that do not exist, as if they had been deleted
    #[arg(short = 's', long)]
    pub skip_not_exists: bool,
    /// Whether it is taken back.
    #[command(flatten)]
    pub confirm: ConfirmIn,
}

/// How a patch is meant.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum PatchType {
    /// Objects are merged, lists replaced, null removes.
    #[default]
    Strategic,
    /// A list of operations (RFC 6902).
    Json,
    /// As strategic (RFC 7386).
    Merge,
}

/// Arguments of `patch`.
#[derive(Debug, Clone, Args)]
pub struct PatchArgs {
    /// Kind, plural or short form
    pub kind: String,
    /// Name
    pub name: String,
    /// The patch, as JSON
    #[arg(short = 'p', long, value_name = "PATCH", required = true)]
    pub patch: String,
    /// How it is meant
    #[arg(
        short = 't',
        long = "type",
        value_name = "TYPE",
        value_enum,
        default_value_t
    )]
    pub kind_of_patch: PatchType,
    /// In which namespace.
    #[command(flatten)]
    pub namespace: Namespace,
    /// Whether it is taken back.
    #[command(flatten)]
    pub confirm: ConfirmIn,
}

/// Arguments of `label`.
#[derive(Debug, Clone, Args)]
pub struct LabelArgs {
    /// Kind, plural or short form
    pub kind: String,
    /// Name
    pub name: String,
    /// key=value to set a label, key to remove one
    pub label: String,
    /// Replace a value that is there
    #[arg(long, conflicts_with = "remove")]
    pub overwrite: bool,
    /// Remove the label
    #[arg(long)]
    pub remove: bool,
    /// In which namespace.
    #[command(flatten)]
    pub namespace: Namespace,
}

/// What `ipam` does.
#[derive(Debug, Clone, Subcommand)]
pub enum IpamCommand {
    /// Show how full pools are, or what becomes of an address
    #[command(after_long_help = "\
Examples:
  # Use of every pool
  manx ipam show
  # ... and of its blocks
  manx ipam show --show-blocks
  # Who holds an address
  manx ipam show --ip 10.0.0.7")]
    Show(ShowArgs),
    /// Release addresses that nobody uses
    #[command(after_long_help = "\
Examples:
  manx ipam release --ip 10.0.0.7
  # What was leaked in each of two reports
  manx ipam check -o monday.json; ...; manx ipam check -o tuesday.json
  manx ipam release --from-report monday.json --from-report tuesday.json --force")]
    Release(ReleaseArgs),
    /// Compare what is assigned with what is used
    ///
    /// Looks for addresses that are assigned and not used, used and not assigned, or held twice, and
    /// for blocks, affinities and handles that contradict each other. Changes nothing.
    #[command(after_long_help = "\
Examples:
  manx ipam check --show-problem-ips
  # In scripts: exit 1 when there are problems, report on standard output
  manx ipam check --fail -o json
  # Into a file for `manx ipam release --from-report`
  manx ipam check -o report.json")]
    Check(CheckArgs),
    /// Change how addresses are assigned
    #[command(after_long_help = "\
Examples:
  manx ipam configure --strictaffinity true")]
    Configure(ConfigureArgs),
}

/// Arguments of `ipam show`.
#[derive(Debug, Clone, Default, Args)]
pub struct ShowArgs {
    /// Who holds this address
    #[arg(long, value_name = "IP", conflicts_with_all = ["show_blocks", "show_borrowed", "show_configuration"])]
    pub ip: Option<IpAddr>,
    /// Each pool's blocks too
    #[arg(long)]
    pub show_blocks: bool,
    /// Addresses that nodes use from other nodes' blocks
    #[arg(long, conflicts_with = "show_blocks")]
    pub show_borrowed: bool,
    /// How addresses are assigned
    #[arg(long, conflicts_with_all = ["show_blocks", "show_borrowed"])]
    pub show_configuration: bool,
    /// json instead of a table
    #[arg(short = 'o', long, value_name = "FORMAT", value_parser = ["json"])]
    pub output: Option<String>,
}

/// Arguments of `ipam release`.
#[derive(Debug, Clone, Default, Args)]
pub struct ReleaseArgs {
    /// The address to release, whoever holds it
    #[arg(
        long,
        value_name = "IP",
        conflicts_with = "from_report",
        required_unless_present = "from_report"
    )]
    pub ip: Option<IpAddr>,
    /// Reports of `ipam check`: releases what all of them and a check made now call leaked
    #[arg(long, value_name = "FILE", num_args = 1..)]
    pub from_report: Vec<PathBuf>,
    /// Take reports that were made while the datastore was not locked
    #[arg(long)]
    pub force: bool,
}

/// Arguments of `ipam check`.
#[derive(Debug, Clone, Default, Args)]
pub struct CheckArgs {
    /// Name every address that was looked at
    #[arg(long)]
    pub show_all_ips: bool,
    /// Name the addresses that have a problem
    #[arg(long)]
    pub show_problem_ips: bool,
    /// File to write a report to; json or - for standard output, instead of text
    #[arg(short = 'o', long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Exit 1 when there are problems
    #[arg(long)]
    pub fail: bool,
    /// Path of a kubeconfig; of no effect on an embedded store
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
}

/// Whether a feature is on, in Kubernetes' words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "PascalCase")]
pub enum Switch {
    /// On.
    #[value(alias = "enabled")]
    Enabled,
    /// Off.
    #[value(alias = "disabled")]
    Disabled,
}

/// Arguments of `ipam configure`.
#[derive(Debug, Clone, Default, Args)]
#[group(required = true, multiple = true)]
pub struct ConfigureArgs {
    /// Nodes assign from their own blocks only
    #[arg(long, value_name = "true|false")]
    pub strictaffinity: Option<bool>,
    /// Blocks that a node may have per family; 0: 20. Needs strict affinity
    #[arg(long, value_name = "N")]
    pub max_blocks_per_host: Option<u32>,
    /// Whether a virtual machine keeps its address
    #[arg(long, value_enum)]
    pub kubevirt_ip_persistence: Option<Switch>,
    /// How long a released address rests before it is assigned again
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(0..=1200))]
    pub ip_cooldown_seconds: Option<u32>,
}

/// Arguments of `version`.
#[derive(Debug, Clone, Default, Args)]
pub struct VersionArgs {
    /// Look again at this interval (such as 10s or 1m) and tell of changes; 0 looks once
    #[arg(long, value_name = "INTERVAL", value_parser = interval, default_value = "0", conflicts_with = "client")]
    pub poll: Duration,
    /// This program's alone, without a datastore
    #[arg(long)]
    pub client: bool,
}

/// 4 or 6.
fn family(text: &str) -> Result<u8, String> {
    match text {
        "4" => Ok(4),
        "6" => Ok(6),
        _ => Err("write 4 or 6".to_owned()),
    }
}

/// Go's spelling of durations, as far as anybody needs it here.
pub(crate) fn interval(text: &str) -> Result<Duration, String> {
    let end = text
        .find(|c: char| c.is_ascii_alphabetic())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let factor = match unit {
        "" if number == "0" => 0.0,
        "ms" => 0.001,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return Err("write it as 500ms, 10s, 5m or 1h".to_owned()),
    };
    let number: f64 = number
        .parse()
        .map_err(|_| "write it as 500ms, 10s, 5m or 1h".to_owned())?;
    Duration::try_from_secs_f64(number * factor).map_err(|e| e.to_string())
}
