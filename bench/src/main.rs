//! Measures the finished binary, with its peers beside it in the same run.
//!
//! Promises: everything happens in namespaces of its own; both sides of a comparison are called the
//! same way, in turns; what misses its aim is shown as missed.
//!
//! Never: touches the machine's own network; measures a debug build without saying so.

mod cluster;
mod measure;
mod objects;
mod plain;
mod plugin;
mod private;
mod report;
mod routing;
mod shapes;
mod stats;
mod store;
mod traffic;

use anyhow::{Context, Result, bail};
use clap::{Parser, ValueEnum};
use report::Section;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

/// Measure manx, with its peers beside it
#[derive(Debug, Parser)]
#[command(name = "bench", version)]
struct Args {
    /// Fewer rounds: under two minutes, and more scatter
    #[arg(long)]
    quick: bool,
    /// The binary under test
    #[arg(long, default_value = "target/release/manx")]
    manx: PathBuf,
    /// Where the table goes; written when all is measured, printed otherwise
    #[arg(long, default_value = "bench/RESULTS.md")]
    results: PathBuf,
    /// Of `routing`, only the shapes whose names have this in them
    #[arg(long, default_value = "", requires = "measures")]
    shape: String,
    /// What to measure; everything when none is named
    measures: Vec<Measure>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Measure {
    /// ADD and DEL of pods
    Cni,
    /// From a write to the store to its enforcement
    Policy,
    /// Throughput and request rates
    Path,
    /// Ten to ten thousand rules that a packet must pass
    Flat,
    /// Memory of the agent
    Memory,
    /// BGP beside BIRD, FRR and GoBGP
    Routing,
    /// `manx lab up`
    Lab,
    /// The ruleset at scale
    Rules,
    /// Policy calculation at scale
    Calculation,
}

/// What every measure is told.
#[derive(Debug, Clone)]
pub struct Setting {
    /// The binary under test.
    pub manx: PathBuf,
    /// A directory that nobody else uses.
    pub dir: PathBuf,
    /// Fewer rounds.
    pub quick: bool,
    /// Of several shapes, those whose names have this in them.
    pub shape: String,
}

impl Setting {
    /// `full` rounds, or `quick` ones.
    pub fn rounds(&self, full: usize, quick: usize) -> usize {
        if self.quick { quick } else { full }
    }
}

/// Waits where there is no event to wait for: a measurement lasts for a time.
pub fn pause(time: Duration) {
    #[allow(
        clippy::disallowed_methods,
        reason = "nothing happens at the end of a pause"
    )]
    std::thread::sleep(time);
}

/// Progress, for whoever watches.
macro_rules! say {
    ($($t:tt)*) => { eprintln!("bench: {}", format_args!($($t)*)) };
}
pub(crate) use say;

fn main() -> ExitCode {
    if let Some(said) = measure::calculation::asked() {
        show(&said.to_string());
        return ExitCode::SUCCESS;
    }
    let args = Args::parse();
    let done = match std::env::var_os(private::INSIDE) {
        Some(dir) => inside(&args, Path::new(&dir)),
        None => outside(),
    };
    match done {
        Ok(code) => code,
        Err(e) => {
            say!("{e:#}");
            ExitCode::FAILURE
        }
    }
}

fn outside() -> Result<ExitCode> {
    let dir = tempfile::Builder::new()
        .prefix("manx-bench-")
        .tempdir()
        .context("make a directory")?;
    let status = private::again(std::env::args_os().skip(1), dir.path())?;
    Ok(if status.success() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn inside(args: &Args, dir: &Path) -> Result<ExitCode> {
    private::settle()?;
    let manx = args
        .manx
        .canonicalize()
        .with_context(|| format!("find {}", args.manx.display()))?;
    let setting = Setting {
        manx,
        dir: dir.to_owned(),
        quick: args.quick,
        shape: args.shape.clone(),
    };
    let all = args.measures.is_empty();
    let load = load();
    let began = Instant::now();
    let mut sections = Vec::new();
    for m in Measure::value_variants() {
        if all || args.measures.contains(m) {
            let name = format!("{m:?}").to_lowercase();
            let dir = setting.dir.join(&name);
            std::fs::create_dir_all(&dir).context("make a directory")?;
            let setting = Setting {
                dir,
                ..setting.clone()
            };
            say!("{name} ...");
            let at = Instant::now();
            sections.push(run(*m, &setting).unwrap_or_else(|e| failed(*m, &e)));
            say!("{name} took {:.1} s", at.elapsed().as_secs_f64());
        }
    }
    let text = page(&setting, &sections, began.elapsed(), &load);
    if all {
        std::fs::write(&args.results, &text)
            .with_context(|| format!("write {}", args.results.display()))?;
        say!("results are in {}", args.results.display());
    }
    show(&text);
    if sections.iter().any(|s| s.rows.is_empty()) {
        bail!("not everything could be measured");
    }
    Ok(ExitCode::SUCCESS)
}

fn run(m: Measure, setting: &Setting) -> Result<Section> {
    match m {
        Measure::Cni => measure::cni::run(setting),
        Measure::Policy => measure::policy::run(setting),
        Measure::Path => measure::path::run(setting),
        Measure::Flat => measure::flat::run(setting),
        Measure::Memory => measure::memory::run(setting),
        Measure::Routing => measure::routing::run(setting),
        Measure::Lab => measure::lab::run(setting),
        Measure::Rules => measure::rules::run(setting),
        Measure::Calculation => measure::calculation::run(setting),
    }
}

/// A measure that could not be made is in the table too.
fn failed(m: Measure, e: &anyhow::Error) -> Section {
    say!("{m:?} failed: {e:#}");
    let mut s = Section::new(&format!("{m:?}"));
    s.note(format!("**not measured**: {e:#}"));
    s
}

fn show(text: &str) {
    use std::io::Write as _;
    // Whoever closed our output has seen enough.
    let _ = std::io::stdout().lock().write_all(text.as_bytes());
}

fn page(setting: &Setting, sections: &[Section], took: Duration, load: &str) -> String {
    let mut out = String::from(
        "# Results\n\nWritten by `make bench`; see README.md for what is measured and how. Figures are \
         `median (min / p90 / p99 / max)`. A peer's figure is of the same run, measured in turns \
         with ours.\n\n",
    );
    for line in machine(setting, took, load) {
        out += &format!("- {line}\n");
    }
    let missed: Vec<_> = sections.iter().flat_map(Section::missed).collect();
    let aims = sections
        .iter()
        .flat_map(|s| &s.rows)
        .filter(|r| r.met.is_some())
        .count();
    out += &format!("- aims met: {} of {aims}\n", aims - missed.len());
    for r in missed {
        out += &format!(
            "  - missed: {}: {} {}, aim {}\n",
            r.what,
            stats::number(r.figure),
            r.unit,
            r.aim
        );
    }
    for s in sections {
        out += "\n";
        out += &s.markdown();
    }
    out
}

fn machine(setting: &Setting, took: Duration, load: &str) -> Vec<String> {
    let read = |p: &str| std::fs::read_to_string(p).unwrap_or_default();
    let kernel = read("/proc/sys/kernel/osrelease");
    let memory = read("/proc/meminfo");
    let memory: f64 = memory
        .split_whitespace()
        .nth(1)
        .and_then(|k| k.parse().ok())
        .unwrap_or(f64::NAN);
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let mode = if setting.quick { ", quick" } else { "" };
    let size = std::fs::metadata(&setting.manx).map_or(0, |m| m.len());
    vec![
        format!(
            "machine: {cores} cores, {:.0} GB of memory, Linux {}, {}",
            memory / 1048576.0,
            kernel.trim(),
            std::env::consts::ARCH
        ),
        format!(
            "date: {}; took {:.0} s{mode}; load average before the run {load} (other work on the \
             machine shows there)",
            jiff::Timestamp::now().strftime("%Y-%m-%d %H:%M UTC"),
            took.as_secs_f64()
        ),
        format!(
            "{}; {:.1} MB",
            first_line(&setting.manx, &["--version"]),
            size as f64 / 1e6
        ),
        format!(
            "peers: bridge and host-local {}; {}",
            plugins(),
            first_line(Path::new("iperf3"), &["--version"])
        ),
    ]
}

/// Of the last minute, five and fifteen.
fn load() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace()
        .take(3)
        .collect::<Vec<_>>()
        .join(" ")
}

/// Version of the reference plugins: Debian's do not know their own.
fn plugins() -> String {
    let ask = [
        "--show",
        "--showformat",
        "${Version}",
        "containernetworking-plugins",
    ];
    match Command::new("dpkg-query").args(ask).output() {
        Ok(out) if out.status.success() => String::from_utf8_lossy(&out.stdout).into_owned(),
        _ => first_line(Path::new("/usr/lib/cni/bridge"), &["--version"]),
    }
}

/// What a program says of its version.
fn first_line(program: &Path, args: &[&str]) -> String {
    let name = program
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    let Ok(out) = Command::new(program).args(args).output() else {
        return format!("{name}: not installed");
    };
    let both = [out.stdout, out.stderr].concat();
    let text = String::from_utf8_lossy(&both);
    text.lines()
        .find(|l| !l.trim().is_empty())
        .unwrap_or(&name)
        .trim()
        .to_owned()
}
