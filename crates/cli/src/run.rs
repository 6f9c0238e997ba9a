//! From arguments to an exit code.

use crate::args::{Command, GlobalArgs, IpamCommand, PolicyCommand};
use crate::cluster::{Access, Cluster};
use crate::{CliError, addresses, bgp, confirm, edit, get, policy, policy_test, version, write};
use daemon::logging;
use std::io::{Read, Write};
use std::process::ExitCode;
use tracing::level_filters::LevelFilter;

/// Where a command reads and prints.
pub struct Console<'a> {
    /// Standard input, for `-f -`.
    pub input: &'a mut dyn Read,
    /// Results.
    pub out: &'a mut dyn Write,
    /// Errors and warnings.
    pub err: &'a mut dyn Write,
}

impl Console<'_> {
    pub(crate) fn print(&mut self, text: &str) -> Result<(), CliError> {
        self.out.write_all(text.as_bytes())?;
        self.out.flush()?;
        Ok(())
    }

    pub(crate) fn note(&mut self, line: &str) -> Result<(), CliError> {
        writeln!(self.err, "{line}")?;
        Ok(())
    }
}

/// Does what the command says, on the standard streams.
///
/// Exits 0 when all was done, else 1 with the reason on standard error; 2 where a command says so.
pub fn run(command: Command, global: &GlobalArgs) -> ExitCode {
    if let Some(level) = level(&global.log_level) {
        logging::start(logging::Format::Text, level);
    }
    let (mut input, mut out, mut err) = (std::io::stdin(), std::io::stdout(), std::io::stderr());
    let mut console = Console {
        input: &mut input,
        out: &mut out,
        err: &mut err,
    };
    ExitCode::from(status(command, global, &mut console))
}

/// Does what the command says, reading and printing through `console`. `true` when all was done.
pub fn execute(command: Command, global: &GlobalArgs, console: &mut Console<'_>) -> bool {
    status(command, global, console) == 0
}

/// As [`execute`], with the exit status.
pub fn status(command: Command, global: &GlobalArgs, console: &mut Console<'_>) -> u8 {
    match dispatch(command, global, console) {
        Ok(()) => 0,
        // Whoever read the output has seen enough.
        Err(e) if e.is_closed_pipe() => 0,
        Err(CliError::Status(status)) => status,
        Err(e) => {
            // With nowhere to write to, the exit code has to do.
            let _ = writeln!(console.err, "{}", e.full());
            1
        }
    }
}

fn dispatch(
    command: Command,
    global: &GlobalArgs,
    console: &mut Console<'_>,
) -> Result<(), CliError> {
    if level(&global.log_level).is_none() {
        let text = format!(
            "unknown log level '{}': use panic, fatal, error, warn, info, debug or trace",
            global.log_level
        );
        return Err(CliError::Usage(text));
    }
    let access = match &command {
        Command::Apply(_) | Command::Create(_) => Access::Create,
        Command::Ipam {
            command: IpamCommand::Configure(_),
        } => Access::Create,
        _ => Access::Existing,
    };
    let open = || Cluster::open(global, access);
    match command {
        Command::Validate(args) => write::validate(&args, console),
        Command::Version(args) => version::run(&args, global, console),
        Command::Get(args) => get::run(&args, &open()?, console),
        Command::Apply(args) => write::apply(&args, &open()?, console),
        Command::Create(args) => write::create(&args, &open()?, console),
        Command::Replace(args) => write::replace(&args, &open()?, console),
        Command::Delete(args) => write::delete(&args, &open()?, console),
        Command::Patch(args) => edit::patch(&args, &open()?, console),
        Command::Confirm(args) => confirm::run(&args, &open()?, console),
        Command::Label(args) => edit::label(&args, &open()?, console),
        Command::Bgp { command } => bgp::run(&command, console),
        Command::Why(args) => policy::why(&args, open, console),
        Command::Policy { command } => match command {
            PolicyCommand::Test(args) => policy_test::run(&args, console),
            PolicyCommand::Why(args) => policy::why(&args, open, console),
            PolicyCommand::Diff(args) => policy::diff(&args, open, console),
        },
        Command::Ipam { command } => match command {
            IpamCommand::Show(args) => addresses::show(&args, &open()?, console),
            IpamCommand::Check(args) => addresses::check(&args, &open()?, console),
            IpamCommand::Release(args) => addresses::release(&args, &open()?, console),
            IpamCommand::Configure(args) => addresses::configure(&args, &open()?, console),
        },
    }
}

/// The levels by the names that calicoctl has for them; ours are coarser.
fn level(name: &str) -> Option<LevelFilter> {
    Some(match name.to_ascii_lowercase().as_str() {
        "panic" | "fatal" | "error" => LevelFilter::ERROR,
        "warn" | "warning" => LevelFilter::WARN,
        "info" => LevelFilter::INFO,
        "debug" => LevelFilter::DEBUG,
        "trace" => LevelFilter::TRACE,
        _ => return None,
    })
}
