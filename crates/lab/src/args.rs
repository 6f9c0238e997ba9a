//! The command line of `manx lab`.
//!
//! Promises: every command, flag and default in one place; nothing is read here but text.
//!
//! Never: does what the commands say.

use clap::{Args as ClapArgs, Subcommand};
use scenario::Port;
use scenario::plan::{FamilySet, HostSpec, Topology};
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

/// `manx lab`: clusters made of network namespaces.
#[derive(Debug, ClapArgs)]
#[command(about = "Clusters made of network namespaces on this machine")]
pub struct Args {
    /// Which lab.
    #[arg(long, global = true, default_value = "lab", env = "MANX_LAB", value_parser = lab_name)]
    pub name: String,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do with a lab.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Start a lab and return when its nodes are ready
    Up(UpArgs),
    /// Create or update the objects of YAML or JSON files, and wait for their pods
    Apply(FileArgs),
    /// Delete the objects of YAML or JSON files, and wait until their pods are gone
    Delete(FileArgs),
    /// Run a program in the network of a pod, node or host
    Exec(ExecArgs),
    /// Send packets: from one end to another, or between all pods
    Probe(ProbeArgs),
    /// Say what policy makes of a flow, and which rule decides
    Why(WhyArgs),
    /// Show nodes and pods; ends with 1 unless all nodes are ready and all pods run
    Status(StatusArgs),
    /// Show what travels on the fabric
    Capture(CaptureArgs),
    /// Show the routes of a node, pod or host
    Routes(RoutesArgs),
    /// Build a cluster for each scenario file and check what it expects
    Test(TestArgs),
    /// Compare what policy says with what packets do, for random policy
    Random(RandomArgs),
    /// End a lab; nothing of it stays
    Down(DownArgs),
    /// The walk-through of examples/walkthrough, told as it runs
    Demo(DemoArgs),
    /// The process that a lab lives in
    #[command(hide = true)]
    Holder(HolderArgs),
}

/// Arguments of `up`.
#[derive(Debug, ClapArgs)]
pub struct UpArgs {
    /// How many nodes, named node-1, node-2, ...
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=100))]
    pub nodes: u8,
    /// flat: one segment; routed: a subnet for each node and a router between them
    #[arg(long, default_value_t)]
    pub topology: Topology,
    /// ipv4, ipv6 or both
    #[arg(long, default_value = "ipv4", value_parser = FamilySet::parse)]
    pub families: FamilySet,
    /// None, VXLAN, VXLANCrossSubnet, IPIP or IPIPCrossSubnet, for the default pools
    #[arg(long, default_value = "None")]
    pub encapsulation: scenario::plan::Encapsulation,
    /// Bring the pools with `apply`: make no default ones
    #[arg(long)]
    pub no_default_pools: bool,
    /// A machine outside the cluster, with its addresses
    #[arg(long = "host", value_name = "NAME=ADDRESS[,ADDRESS]")]
    pub hosts: Vec<HostSpec>,
    /// Stay in the foreground; the lab ends with this command, however it ends
    #[arg(long)]
    pub foreground: bool,
}

/// Arguments of `apply` and `delete`.
#[derive(Debug, ClapArgs)]
pub struct FileArgs {
    /// Files, or - for standard input
    #[arg(short = 'f', long = "filename", required = true, num_args = 1..)]
    pub files: Vec<PathBuf>,
    /// Return at once, without waiting for pods
    #[arg(long)]
    pub no_wait: bool,
    /// How long to wait for pods
    #[arg(long, default_value = "30s", value_parser = duration)]
    pub timeout: Duration,
}

/// Arguments of `exec`.
#[derive(Debug, ClapArgs)]
pub struct ExecArgs {
    /// NAMESPACE/POD, node/NAME, host/NAME or router; the bare name of a pod in `default`, a node
    /// or a host will do too
    pub target: String,
    /// The program and its arguments
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    pub command: Vec<OsString>,
}

/// Arguments of `probe`.
#[derive(Debug, ClapArgs)]
pub struct ProbeArgs {
    /// NAMESPACE/POD, node/NAME, host/NAME or *
    #[arg(requires = "to")]
    pub from: Option<String>,
    /// As FROM, or ip/ADDRESS
    pub to: Option<String>,
    /// PORT, PORT/UDP, PORT/SCTP or ICMP
    #[arg(default_value = "80/TCP")]
    pub port: Port,
    /// How long a packet may take
    #[arg(long, default_value = "1s", value_parser = duration)]
    pub timeout: Duration,
    /// Also show the TTL with which the answer arrived (ICMP)
    #[arg(long)]
    pub ttl: bool,
    /// Keep sending for this long and count what is lost (UDP, or lines on one TCP connection)
    #[arg(long = "for", value_name = "DURATION", value_parser = duration)]
    pub for_: Option<Duration>,
    /// Between two packets, with --for
    #[arg(long, default_value = "10ms", value_parser = duration)]
    pub interval: Duration,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `why`.
#[derive(Debug, ClapArgs)]
pub struct WhyArgs {
    /// NAMESPACE/POD, node/NAME, host/NAME or ip/ADDRESS
    pub from: String,
    /// As FROM, or service/NAMESPACE/NAME
    pub to: String,
    /// PORT, PORT/UDP, PORT/SCTP or ICMP
    #[arg(default_value = "80/TCP")]
    pub port: Port,
    /// ipv4 or ipv6 [default: the first that both ends have]
    #[arg(long, value_parser = family)]
    pub family: Option<net::Family>,
    /// Also every rule that did not match
    #[arg(long)]
    pub all: bool,
}

fn family(s: &str) -> Result<net::Family, String> {
    match s {
        "ipv4" | "4" => Ok(net::Family::V4),
        "ipv6" | "6" => Ok(net::Family::V6),
        _ => Err(format!("family {s:?} is neither ipv4 nor ipv6")),
    }
}

/// Arguments of `status`.
#[derive(Debug, ClapArgs)]
pub struct StatusArgs {
    /// json for programs
    #[arg(short, long, value_parser = ["json"])]
    pub output: Option<String>,
}

/// Arguments of `capture`.
#[derive(Debug, ClapArgs)]
pub struct CaptureArgs {
    /// Stop after this many packets
    #[arg(long)]
    pub count: Option<usize>,
    /// Stop after this long
    #[arg(long = "for", value_name = "DURATION", default_value = "2s", value_parser = duration)]
    pub for_: Duration,
}

/// Arguments of `routes`.
#[derive(Debug, ClapArgs)]
pub struct RoutesArgs {
    /// As for `exec`
    pub target: String,
}

/// Arguments of `test`.
#[derive(Debug, ClapArgs)]
pub struct TestArgs {
    /// Scenario files, and directories of them (but for those named `files`)
    #[arg(required = true)]
    pub files: Vec<PathBuf>,
    /// So many clusters at a time
    #[arg(short, long, default_value_t = 4)]
    pub jobs: usize,
    /// One JSON object a file
    #[arg(long)]
    pub json: bool,
    /// How long a new policy may take to be in force
    #[arg(long, default_value = "2s", value_parser = duration)]
    pub deadline: Duration,
}

/// Arguments of `random`.
#[derive(Debug, ClapArgs)]
pub struct RandomArgs {
    /// How many cases
    #[arg(long, default_value_t = 200)]
    pub cases: u64,
    /// The first seed; each case has the next one
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Stop after this long
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub time: Option<Duration>,
    /// In every third case, host endpoints and policy for them
    #[arg(long)]
    pub hosts: bool,
    /// How long to make a case with another answer smaller
    #[arg(long, value_name = "DURATION", default_value = "20s", value_parser = duration)]
    pub shrink: Duration,
    /// Where to save such cases
    #[arg(long, value_name = "DIRECTORY", default_value = ".")]
    pub save: PathBuf,
}

/// Arguments of `down`.
#[derive(Debug, ClapArgs)]
pub struct DownArgs {
    /// Every lab of this user
    #[arg(long)]
    pub all: bool,
}

/// Arguments of `demo`.
#[derive(Debug, ClapArgs)]
pub struct DemoArgs {
    /// Leave the lab running at the end
    #[arg(long)]
    pub keep: bool,
    /// Nodes
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(3..=10))]
    pub nodes: u8,
}

/// Arguments of the hidden holder: descriptors are inherited from the caller.
#[derive(Debug, ClapArgs)]
pub struct HolderArgs {
    /// The lab's directory
    #[arg(long)]
    pub state: PathBuf,
    /// The lab's plan, as JSON
    #[arg(long)]
    pub spec: String,
    /// Descriptor on which readiness or the reason of failure is written
    #[arg(long)]
    pub ready_fd: i32,
    /// Descriptor of the lock on the directory, held as long as the lab lives
    #[arg(long)]
    pub lock_fd: i32,
    /// Descriptor at whose end of file the lab ends
    #[arg(long)]
    pub lifeline_fd: Option<i32>,
}

/// A name that is a path segment, an address of a socket and a name for people.
fn lab_name(s: &str) -> Result<String, String> {
    let ok = (1..=40).contains(&s.len())
        && s.bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && !s.starts_with('-');
    if ok {
        Ok(s.to_owned())
    } else {
        Err("a lab's name is 1 to 40 of a-z, 0-9 and -".to_owned())
    }
}

/// `250ms`, `2s`, `1.5s`, `1m`.
pub(crate) fn duration(s: &str) -> Result<Duration, String> {
    let bad = || format!("{s:?} is no duration such as 250ms, 2s or 1m");
    let split = s
        .find(|c: char| !(c.is_ascii_digit() || c == '.'))
        .ok_or_else(bad)?;
    let number: f64 = s[..split].parse().map_err(|_| bad())?;
    let unit = match &s[split..] {
        "us" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return Err(bad()),
    };
    Duration::try_from_secs_f64(number * unit).map_err(|_| bad())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Top {
        #[command(flatten)]
        lab: Args,
    }

    #[test]
    fn commands_parse() {
        for line in [
            "lab up --nodes 3 --topology routed --families ipv4,ipv6 --host out=203.0.113.7,fd00:99::7",
            "lab apply -f a.yaml b.yaml --name x",
            "lab probe",
            "lab probe a/b c/d 53/UDP --json",
            "lab probe * c/d ICMP --ttl",
            "lab exec default/a -- ping -c 1 10.0.0.1",
            "lab test x.yaml dir --json --jobs 2",
            "lab random --cases 5 --seed 7 --time 10m --hosts",
            "lab why a/b service/c/d 53/UDP --all --family ipv6",
            "lab capture --count 5 --for 1.5s",
            "lab demo --keep",
            "lab down --all",
        ] {
            if let Err(e) = Top::try_parse_from(line.split_whitespace()) {
                panic!("{line}: {e}");
            }
        }
        for line in [
            "lab probe a/b",
            "lab up --nodes 0",
            "lab up --name ../x",
            "lab probe a b 70000",
        ] {
            assert!(
                Top::try_parse_from(line.split_whitespace()).is_err(),
                "{line}"
            );
        }
    }

    #[test]
    fn durations() {
        assert_eq!(duration("1.5s"), Ok(Duration::from_millis(1500)));
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        for bad in ["", "1", "s", "-1s", "1y", "1..2s"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }
}
