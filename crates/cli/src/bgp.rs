//! `manx bgp`: what the BGP speaker of this machine does, and why.
//!
//! Promises: an answer that was cut off is an error, never a shorter table. Never: changes anything.

use crate::CliError;
use crate::run::Console;
use crate::table::columns;
use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A speaker that says nothing for so long is given up.
const PATIENCE: Duration = Duration::from_secs(30);

/// What to do with BGP.
#[derive(Debug, Clone, Subcommand)]
pub enum BgpCommand {
    /// Show the speaker itself, and what of the resources it cannot follow
    Status(BgpStatusArgs),
    /// Show peers and the state of their sessions
    #[command(after_long_help = "\
Examples:
  manx bgp peers
  # One of them, with all that there is to say
  manx bgp peers 192.0.2.1 -o yaml")]
    Peers(PeersArgs),
    /// Show routes, and why each is used, refused, or not told
    ///
    /// Of a prefix (or of the one that an address lies in): every path with the reason why it is not
    /// the best, and what each peer is told of it or why not. Without one: the best path of each, or, where
    /// none can be used, all of its paths.
    #[command(after_long_help = "\
Examples:
  manx bgp routes
  # Why is this not used, or not told?
  manx bgp routes 10.65.0.0/26
  # What a peer has announced to us, also what was refused
  manx bgp routes --peer 192.0.2.1 --in
  # What a peer is told
  manx bgp routes --peer 192.0.2.1 --out")]
    Routes(RoutesArgs),
    /// Show the last malformed messages, and those that ended sessions
    Faults(FaultsArgs),
    /// Write all tables to a file (MRT TABLE_DUMP_V2, RFC 6396)
    Dump(DumpArgs),
}

/// Where the speaker is asked.
#[derive(Debug, Clone, Args)]
pub struct Asked {
    /// The speaker's socket
    #[arg(
        long,
        env = "MANX_BGP_SOCKET",
        value_name = "SOCKET",
        default_value = "/var/run/calico/bgp.ctl"
    )]
    pub socket: PathBuf,
}

/// How it is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum BgpFormat {
    /// A table with more columns.
    Wide,
    /// JSON.
    Json,
    /// YAML.
    Yaml,
}

/// Arguments of `bgp status`.
#[derive(Debug, Clone, Args)]
pub struct BgpStatusArgs {
    /// Where.
    #[command(flatten)]
    pub asked: Asked,
    /// wide, json or yaml
    #[arg(short = 'o', long, value_name = "FORMAT", value_enum)]
    pub output: Option<BgpFormat>,
}

/// Arguments of `bgp peers`.
#[derive(Debug, Clone, Args)]
pub struct PeersArgs {
    /// One peer: its name, its address, or its BGPPeer
    #[arg(value_name = "PEER")]
    pub peer: Option<String>,
    /// Where.
    #[command(flatten)]
    pub asked: Asked,
    /// wide, json or yaml
    #[arg(short = 'o', long, value_name = "FORMAT", value_enum)]
    pub output: Option<BgpFormat>,
}

/// Arguments of `bgp routes`.
#[derive(Debug, Clone, Args)]
pub struct RoutesArgs {
    /// A prefix, or an address for the prefix that it lies in
    #[arg(value_name = "PREFIX")]
    pub prefix: Option<String>,
    /// Only of this peer: its name, its address, its BGPPeer, or `local`
    #[arg(long, value_name = "PEER")]
    pub peer: Option<String>,
    /// Only what comes in
    #[arg(long = "in", conflicts_with = "outward")]
    pub inward: bool,
    /// Only what goes out
    #[arg(long = "out")]
    pub outward: bool,
    /// 4 or 6
    #[arg(long, value_name = "4|6", value_parser = clap::value_parser!(u8).range(4..=6))]
    pub family: Option<u8>,
    /// Where.
    #[command(flatten)]
    pub asked: Asked,
    /// wide, json or yaml
    #[arg(short = 'o', long, value_name = "FORMAT", value_enum)]
    pub output: Option<BgpFormat>,
}

/// Arguments of `bgp faults`.
#[derive(Debug, Clone, Args)]
pub struct FaultsArgs {
    /// Where.
    #[command(flatten)]
    pub asked: Asked,
    /// wide, json or yaml
    #[arg(short = 'o', long, value_name = "FORMAT", value_enum)]
    pub output: Option<BgpFormat>,
}

/// Arguments of `bgp dump`.
#[derive(Debug, Clone, Args)]
pub struct DumpArgs {
    /// The file, or - for standard output
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Where.
    #[command(flatten)]
    pub asked: Asked,
}

/// Does it.
pub(crate) fn run(command: &BgpCommand, console: &mut Console<'_>) -> Result<(), CliError> {
    match command {
        BgpCommand::Status(args) => {
            let all = ask(&args.asked, &json!({"ask": "status"}))?;
            let one = all.into_iter().next().unwrap_or_default();
            match args.output {
                Some(BgpFormat::Json | BgpFormat::Yaml) => print(&one, args.output, console),
                _ => console.print(&status(&one)),
            }
        }
        BgpCommand::Peers(args) => {
            let all = ask(&args.asked, &json!({"ask": "peers", "peer": args.peer}))?;
            let wide = args.output == Some(BgpFormat::Wide);
            list(all, args.output, console, |all| columns(&peers(all, wide)))
        }
        BgpCommand::Routes(args) => routes(args, console),
        BgpCommand::Faults(args) => {
            let all = ask(&args.asked, &json!({"ask": "faults"}))?;
            let wide = args.output == Some(BgpFormat::Wide);
            list(all, args.output, console, |all| columns(&faults(all, wide)))
        }
        BgpCommand::Dump(args) => dump(args, console),
    }
}

fn unheard(socket: &Path) -> impl Fn(io::Error) -> CliError + '_ {
    move |e| {
        CliError::Found(format!(
            "no BGP speaker answers on {}: {e}; is one running here, and may you ask it (root may)?",
            socket.display()
        ))
    }
}

/// Asks, and leaves the answer to be read.
fn open(asked: &Asked, question: &Value) -> Result<BufReader<UnixStream>, CliError> {
    let failed = unheard(&asked.socket);
    let mut stream = UnixStream::connect(&asked.socket).map_err(&failed)?;
    stream.set_read_timeout(Some(PATIENCE)).map_err(&failed)?;
    stream.set_write_timeout(Some(PATIENCE)).map_err(&failed)?;
    writeln!(stream, "{question}").map_err(&failed)?;
    Ok(BufReader::new(stream))
}

/// The next line of an answer; `None`: that was all.
fn next(from: &mut impl BufRead, socket: &Path) -> Result<Option<Value>, CliError> {
    let mut line = String::new();
    let n = from.read_line(&mut line).map_err(unheard(socket))?;
    if n == 0 {
        let cut = io::Error::new(io::ErrorKind::UnexpectedEof, "its answer was cut off");
        return Err(unheard(socket)(cut));
    }
    let value: Value = serde_json::from_str(&line)
        .map_err(|e| unheard(socket)(io::Error::new(io::ErrorKind::InvalidData, e)))?;
    if let Some(error) = value.get("error").and_then(Value::as_str) {
        return Err(CliError::Found(error.to_owned()));
    }
    Ok(value.get("end").is_none().then_some(value))
}

fn ask(asked: &Asked, question: &Value) -> Result<Vec<Value>, CliError> {
    let mut answer = open(asked, question)?;
    std::iter::from_fn(|| next(&mut answer, &asked.socket).transpose()).collect()
}

fn print(
    value: &Value,
    format: Option<BgpFormat>,
    console: &mut Console<'_>,
) -> Result<(), CliError> {
    match format {
        Some(BgpFormat::Yaml) => console.print(&api::yaml(value)),
        _ => console.print(&format!("{value:#}\n")),
    }
}

fn list(
    all: Vec<Value>,
    format: Option<BgpFormat>,
    console: &mut Console<'_>,
    table: impl Fn(&[Value]) -> String,
) -> Result<(), CliError> {
    match format {
        Some(BgpFormat::Json | BgpFormat::Yaml) => print(&Value::Array(all), format, console),
        _ => console.print(&table(&all)),
    }
}

/// A field as text; empty when it is absent.
fn text(v: &Value, field: &str) -> String {
    match v.get(field) {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(s)) => s.clone(),
        Some(Value::Array(a)) => {
            let one = |v: &Value| v.as_str().map_or_else(|| v.to_string(), str::to_owned);
            a.iter().map(one).collect::<Vec<_>>().join(" ")
        }
        Some(other) => other.to_string(),
    }
}

fn texts(v: &Value, fields: &[&str]) -> Vec<String> {
    fields.iter().map(|f| text(v, f)).collect()
}

fn head(names: &[&str]) -> Vec<String> {
    names.iter().map(|n| (*n).to_owned()).collect()
}

fn array<'a>(v: &'a Value, field: &str) -> &'a [Value] {
    v.get(field)
        .and_then(Value::as_array)
        .map_or(&[], Vec::as_slice)
}

fn status(v: &Value) -> String {
    let mut out = format!(
        "AS {}, router id {}, since {}\n{} of {} peers established\n{} paths to {} prefixes, {} sets of attributes, {} octets\n",
        text(v, "as"),
        text(v, "routerId"),
        text(v, "started"),
        text(v, "established"),
        text(v, "peers"),
        text(v, "paths"),
        text(v, "prefixes"),
        text(v, "attributes"),
        text(v, "octets"),
    );
    for family in array(v, "restarting") {
        out += &format!(
            "restarting gracefully: {}\n",
            family.as_str().unwrap_or_default()
        );
    }
    for station in array(v, "stations") {
        out += &monitored(station);
    }
    for field in ["troubles", "faults"] {
        for one in array(v, field) {
            out += &format!("trouble: {}\n", one.as_str().unwrap_or_default());
        }
    }
    out
}

/// A monitoring station, on a line.
fn monitored(v: &Value) -> String {
    let name = text(v, "station");
    let end = match v.get("since") {
        Some(_) => format!(
            "connected since {}, {} octets sent",
            text(v, "since"),
            text(v, "octetsSent")
        ),
        None if v.get("lastError").is_some() => format!("away: {}", text(v, "lastError")),
        None => "away".to_owned(),
    };
    format!("monitoring station {name}: {end}\n")
}

fn peers(all: &[Value], wide: bool) -> Vec<Vec<String>> {
    let mut names = vec!["PEER", "AS", "TYPE", "STATE", "SINCE", "PATHS"];
    let mut fields = vec!["address", "as", "type", "state", "since", "paths"];
    if wide {
        names.extend(["NAME", "ROUTER ID", "HOLD", "UPDATES", "FLAPS", "FAULTS"]);
        fields.extend([
            "name",
            "routerId",
            "holdTime",
            "updatesReceived",
            "flaps",
            "faults",
        ]);
    }
    // Most have none.
    let watched = all.iter().any(|p| p.get("bfd").is_some());
    if watched {
        names.push("BFD");
    }
    names.push("LAST ERROR");
    let mut rows = vec![head(&names)];
    rows.extend(all.iter().map(|p| {
        let mut row = texts(p, &fields);
        if watched {
            row.push(p.get("bfd").map_or_else(String::new, |b| text(b, "state")));
        }
        row.push(text(p, "lastError"));
        row
    }));
    rows
}

fn faults(all: &[Value], wide: bool) -> Vec<Vec<String>> {
    let mut rows = vec![head(&["TIME", "PEER", "WHAT", "THEN", "OCTETS"])];
    for fault in all {
        let mut row = texts(fault, &["time", "peer", "what", "then", "octets"]);
        if let Some(octets) = row.last_mut()
            && !wide
            && octets.len() > 40
        {
            octets.truncate(40);
            octets.push_str("...");
        }
        rows.push(row);
    }
    rows
}

fn routes(args: &RoutesArgs, console: &mut Console<'_>) -> Result<(), CliError> {
    let direction = match (args.inward, args.outward) {
        (true, _) => Some("in"),
        (_, true) => Some("out"),
        _ => None,
    };
    let question = json!({
        "ask": "routes", "prefix": args.prefix, "peer": args.peer, "direction": direction,
        "family": args.family,
    });
    let all = ask(&args.asked, &question)?;
    if args.prefix.is_some() {
        let one = all.into_iter().next().unwrap_or_default();
        return match args.output {
            Some(BgpFormat::Json | BgpFormat::Yaml) => print(&one, args.output, console),
            _ => console.print(&explained(&one)),
        };
    }
    let wide = args.output == Some(BgpFormat::Wide);
    list(all, args.output, console, |all| match direction {
        None if args.peer.is_none() => columns(&table(all, wide)),
        _ => columns(&sides(all, wide)),
    })
}

const ATTRIBUTES: [&str; 5] = ["nextHop", "localPref", "med", "asPath", "origin"];

/// The best path of each prefix; where there is none, those that are not used.
fn table(all: &[Value], wide: bool) -> Vec<Vec<String>> {
    let mut names = vec![
        "PREFIX",
        "PEER",
        "STATUS",
        "NEXT HOP",
        "LOCAL PREF",
        "MED",
        "AS PATH",
        "ORIGIN",
    ];
    if wide {
        names.push("COMMUNITIES");
    }
    let mut rows = vec![head(&names)];
    for route in all {
        for path in array(route, "paths") {
            let mut row = texts(path, &["peer", "status"]);
            row.insert(0, text(route, "prefix"));
            row.extend(texts(path, &ATTRIBUTES));
            if wide {
                row.push(communities(path));
            }
            rows.push(row);
        }
    }
    rows
}

fn communities(path: &Value) -> String {
    let all = texts(path, &["communities", "largeCommunities", "extCommunities"]);
    let some: Vec<String> = all.into_iter().filter(|c| !c.is_empty()).collect();
    some.join(" ")
}

/// What comes in and goes out, with what became of it.
fn sides(all: &[Value], wide: bool) -> Vec<Vec<String>> {
    let mut names = vec![
        "PREFIX",
        "PEER",
        "STATUS",
        "NEXT HOP",
        "LOCAL PREF",
        "MED",
        "AS PATH",
        "ORIGIN",
    ];
    if wide {
        names.push("COMMUNITIES");
    }
    names.push("WHY");
    let mut rows = vec![head(&names)];
    for route in all {
        let paths = array(route, "paths").iter().map(|p| (text(p, "status"), p));
        let exports = array(route, "exports")
            .iter()
            .map(|x| (told(x).to_owned(), x));
        for (status, one) in paths.chain(exports) {
            let mut row = vec![text(route, "prefix"), text(one, "peer"), status];
            row.extend(texts(one, &ATTRIBUTES));
            if wide {
                row.push(communities(one));
            }
            row.push(text(one, "why"));
            rows.push(row);
        }
    }
    rows
}

fn told(export: &Value) -> &'static str {
    match (
        export.get("why"),
        export.get("told") == Some(&Value::Bool(true)),
    ) {
        (None, true) => "told",
        // It is still in the queue.
        (None, false) => "to tell",
        (Some(_), true) => "to withdraw",
        (Some(_), false) => "not told",
    }
}

/// All there is to say of a prefix, for people.
fn explained(route: &Value) -> String {
    let mut out = format!("{}\n", text(route, "prefix"));
    for path in array(route, "paths") {
        let status = text(path, "status");
        out += &format!(
            "  {status:<9} from {}: {}",
            text(path, "peer"),
            described(path)
        );
        if path.get("stale") == Some(&Value::Bool(true)) {
            out += ", stale";
        }
        out += &because(path);
        if let Some(received) = path.get("received") {
            out += &format!("            as received: {}\n", described(received));
        }
    }
    for export in array(route, "exports") {
        out += &format!("  {:<9} {}", told(export), text(export, "peer"));
        if export.get("nextHop").is_some() {
            out += &format!(": {}", described(export));
        }
        out += &because(export);
    }
    out
}

fn because(v: &Value) -> String {
    match v.get("why").and_then(Value::as_str) {
        Some(why) => format!(": {why}\n"),
        None => "\n".to_owned(),
    }
}

fn described(v: &Value) -> String {
    let mut out = format!("via {}", text(v, "nextHop"));
    for (name, field) in [
        ("AS path", "asPath"),
        ("origin", "origin"),
        ("LOCAL_PREF", "localPref"),
        ("MED", "med"),
        ("originator", "originatorId"),
        ("clusters", "clusterList"),
    ] {
        let value = text(v, field);
        if !value.is_empty() {
            out += &format!(", {name} {value}");
        }
    }
    match communities(v) {
        none if none.is_empty() => out,
        some => format!("{out}, communities {some}"),
    }
}

fn dump(args: &DumpArgs, console: &mut Console<'_>) -> Result<(), CliError> {
    let mut answer = open(&args.asked, &json!({"ask": "dump"}))?;
    next(&mut answer, &args.asked.socket)?;
    if args.file.as_os_str() == "-" {
        return pieces(
            &mut answer,
            console.out,
            &args.asked.socket,
            CliError::Output,
        );
    }
    let failed = |source| CliError::Write {
        path: args.file.clone(),
        source,
    };
    let mut file = io::BufWriter::new(File::create(&args.file).map_err(failed)?);
    pieces(&mut answer, &mut file, &args.asked.socket, failed)
}

/// Copies what comes, up to its end.
fn pieces(
    from: &mut impl Read,
    to: &mut dyn Write,
    socket: &Path,
    failed: impl Fn(io::Error) -> CliError,
) -> Result<(), CliError> {
    loop {
        let mut length = [0; 4];
        from.read_exact(&mut length).map_err(unheard(socket))?;
        let length = u32::from_be_bytes(length);
        if length == 0 {
            return to.flush().map_err(&failed);
        }
        let mut piece = vec![0; length as usize];
        from.read_exact(&mut piece).map_err(unheard(socket))?;
        to.write_all(&piece).map_err(&failed)?;
    }
}
