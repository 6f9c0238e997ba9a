//! `node status`: calicoctl's tables of a node's BGP sessions.
//!
//! Promises: what is printed is calicoctl's, byte for byte, whoever serves the sockets.

use crate::CliError;
use crate::run::Console;
use crate::table::boxed;
use clap::Args;
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

/// For each line.
const PATIENCE: Duration = Duration::from_secs(2);
const HEADINGS: [&str; 6] = ["name", "proto", "table", "state", "since", "info"];
/// Where BIRD has its sockets outside of containers.
const ELSEWHERE: &str = "/var/run/bird";

/// Show whether this node's agent runs, and its BGP sessions
#[derive(Debug, Clone, Args)]
#[command(after_long_help = "\
Examples:
  sudo manx node status")]
pub struct NodeStatusArgs {
    /// Directory of the control sockets
    #[arg(
        long,
        env = "MANX_BGP_DIR",
        value_name = "DIR",
        default_value = "/var/run/calico"
    )]
    pub socket: PathBuf,
    /// Where processes are listed
    #[arg(long, hide = true, default_value = "/proc")]
    pub proc: PathBuf,
}

/// Prints it on the standard streams. Exits 1 when the agent does not run.
pub fn node_status(args: &NodeStatusArgs) -> ExitCode {
    let (mut input, mut out, mut err) = (io::stdin(), io::stdout(), io::stderr());
    let mut console = Console {
        input: &mut input,
        out: &mut out,
        err: &mut err,
    };
    ExitCode::from(node_status_on(args, &mut console))
}

/// Prints it through `console`; the exit status.
pub fn node_status_on(args: &NodeStatusArgs, console: &mut Console<'_>) -> u8 {
    match shown(args, console) {
        Ok(true) => 0,
        Ok(false) => 1,
        Err(e) if e.is_closed_pipe() => 0,
        Err(e) => {
            // With nowhere to write to, the exit code has to do.
            let _ = writeln!(console.err, "{}", e.full());
            1
        }
    }
}

fn shown(args: &NodeStatusArgs, console: &mut Console<'_>) -> Result<bool, CliError> {
    let sockets = [("4", "bird"), ("6", "bird6")].map(|(v, name)| (v, name, connect(args, name)));
    let answers = sockets.iter().any(|(_, _, s)| s.is_ok());
    if !answers && !runs(&args.proc) {
        console.print("Calico process is not running.\n")?;
        return Ok(false);
    }
    console.print("Calico process is running.\n")?;
    if !answers {
        console.print("\nNone of the BGP backend processes (BIRD) are running.\n\n")?;
        return Ok(true);
    }
    for (version, name, socket) in sockets {
        match socket {
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
                let text = format!(
                    "Error querying BIRD: unable to connect to BIRDv{version} socket: {e}: run it as root"
                );
                return Err(CliError::Usage(text));
            }
            Err(_) => {
                let line = format!("\nINFO: BIRDv{version} process: '{name}' is not running.\n");
                console.print(&line)?;
            }
            Ok(stream) => {
                console.print(&format!("\nIPv{version} BGP status\n"))?;
                match peers(stream, if version == "4" { "." } else { ":" }) {
                    Ok(rows) if rows.is_empty() => {
                        console.print(&format!("No IPv{version} peers found.\n"))?;
                    }
                    Ok(rows) => {
                        let rows: Vec<_> = rows.into_iter().flat_map(wrapped).collect();
                        console.print(&boxed(
                            &["PEER ADDRESS", "PEER TYPE", "STATE", "SINCE", "INFO"],
                            &rows,
                        ))?;
                    }
                    Err(e) => console.print(&format!("Error executing command: {e}\n"))?,
                }
            }
        }
    }
    console.print("\n")?;
    Ok(true)
}

fn connect(args: &NodeStatusArgs, name: &str) -> io::Result<UnixStream> {
    let file = format!("{name}.ctl");
    UnixStream::connect(args.socket.join(&file)).or_else(|first| {
        let usual = args.socket == Path::new("/var/run/calico");
        let second = usual.then(|| UnixStream::connect(Path::new(ELSEWHERE).join(&file)));
        second.and_then(Result::ok).ok_or(first)
    })
}

/// Whether an agent is among the processes: ours, or Calico's.
fn runs(proc: &Path) -> bool {
    let entries = std::fs::read_dir(proc).into_iter().flatten().flatten();
    entries
        .filter_map(|e| std::fs::read(e.path().join("cmdline")).ok())
        .any(|line| is_agent(&line))
}

fn is_agent(cmdline: &[u8]) -> bool {
    let words: Vec<&[u8]> = cmdline
        .split(|b| *b == 0)
        .filter(|w| !w.is_empty())
        .collect();
    let program = words.first().and_then(|w| w.rsplit(|b| *b == b'/').next());
    let has = |w: &[u8]| words.contains(&w);
    match program {
        Some(b"calico-felix") => true,
        Some(b"calico-node") => has(b"-felix"),
        Some(b"manx") => has(b"node") && has(b"run"),
        _ => false,
    }
}

/// The sessions that BIRD, or who speaks like it, tells of.
fn peers(mut stream: UnixStream, separator: &str) -> io::Result<Vec<Vec<String>>> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.write_all(b"show protocols\n")?;
    let mut rows = Vec::new();
    for line in BufReader::new(stream).lines() {
        let line = line?;
        match line.get(..4) {
            Some("0000") => break,
            Some("0001") => {}
            Some("2002") => {
                let found: Vec<&str> = line[4..]
                    .trim_start_matches(['-', ' '])
                    .split_whitespace()
                    .collect();
                if found != HEADINGS {
                    return Err(io::Error::other("unknown BIRD table output format"));
                }
            }
            Some("1002") => rows.extend(row(line.get(5..).unwrap_or_default(), separator)),
            _ if line.starts_with(' ') => rows.extend(row(&line, separator)),
            _ => return Err(io::Error::other("unexpected output line from BIRD")),
        }
    }
    Ok(rows)
}

/// A session that Calico's configuration has named; others are not shown.
fn row(line: &str, separator: &str) -> Option<Vec<String>> {
    let mut words = line.split_whitespace();
    let (name, proto) = (words.next()?, words.next()?);
    let (_, state, since, info) = (words.next()?, words.next()?, words.next()?, words.next()?);
    if proto != "BGP" {
        return None;
    }
    let (kind, address) = name.split_once('_').filter(|(_, a)| !a.is_empty())?;
    let kind = match kind {
        "Global" => "global",
        "Mesh" => "node-to-node mesh",
        "Node" => "node specific",
        _ => return None,
    };
    let info: Vec<&str> = std::iter::once(info).chain(words).collect();
    Some(vec![
        address.replace('_', separator),
        kind.to_owned(),
        state.to_owned(),
        since.to_owned(),
        info.join(" "),
    ])
}

/// Longer texts are broken between words, by the library that calicoctl draws its tables with.
const WIDTH: usize = 30;

/// A row with what stands in its last column broken into lines, each a row of its own.
fn wrapped(mut row: Vec<String>) -> Vec<Vec<String>> {
    let columns = row.len();
    let long = |i: &&String| i.chars().count() > WIDTH;
    let Some(info) = row.last().filter(long).cloned() else {
        return vec![row];
    };
    row.pop();
    let lines = broken(&info.split_whitespace().collect::<Vec<_>>());
    let rows = lines.into_iter().enumerate().map(|(i, line)| {
        let mut out = match i {
            0 => row.clone(),
            _ => vec![String::new(); columns - 1],
        };
        // The column is as wide as it may be, also where lines are shorter.
        out.push(format!("{line:<WIDTH$}"));
        out
    });
    rows.collect()
}

/// Words in lines, so that the squares of what is left free at the ends of all but the last are least.
fn broken(words: &[&str]) -> Vec<String> {
    let longest = words.iter().map(|w| w.chars().count()).max().unwrap_or(0);
    let limit = longest.max(WIDTH);
    let length = |line: &[&str]| {
        let letters: usize = line.iter().map(|w| w.chars().count()).sum();
        letters + line.len() - 1
    };
    let n = words.len();
    // What the lines from each word on cost, and where the first of them ends.
    let mut best = vec![(0, n); n + 1];
    for from in (0..n).rev() {
        if length(&words[from..]) <= limit {
            continue;
        }
        let fits = (from + 1..n).filter(|to| length(&words[from..*to]) <= limit);
        let cost = |to: usize| (limit - length(&words[from..to])).pow(2) + best[to].0;
        best[from] = fits.map(|to| (cost(to), to)).min().unwrap_or((0, n));
    }
    let mut out = Vec::new();
    let mut at = 0;
    while at < n {
        out.push(words[at..best[at].1].join(" "));
        at = best[at].1;
    }
    out
}
