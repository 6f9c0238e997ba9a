//! The caller's side: what each command does and prints.
//!
//! Promises: results on standard output, progress and errors on standard error; an error says
//! what to do; exit status 0, 1 or 2 as [`crate::run`] says.
//!
//! Never: enters a namespace: the holder does.

mod demo;
mod handle;
mod objects;
mod probe;
mod random;
mod show;
mod stream;
mod test;
mod up;

use crate::args::{Args, Command, ExecArgs};
use crate::neighbours::Neighbours;
use crate::protocol::{Request, Response};
use crate::state::ROUTER;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use handle::Handle;
use scenario::End;
use std::ffi::OsStr;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::process::ExitCode;

/// A command that did not do what it should.
#[derive(Debug)]
struct Failure {
    code: u8,
    message: String,
}

impl Failure {
    /// It failed.
    fn new(message: impl Into<String>) -> Self {
        Self {
            code: 1,
            message: message.into(),
        }
    }

    /// What it was given cannot be used.
    fn input(message: impl Into<String>) -> Self {
        Self {
            code: 2,
            message: message.into(),
        }
    }
}

impl<E: std::error::Error> From<E> for Failure {
    fn from(e: E) -> Self {
        let mut message = e.to_string();
        let mut source = e.source();
        while let Some(s) = source {
            message.push_str(&format!(": {s}"));
            source = s.source();
        }
        Self::new(message)
    }
}

/// A line on standard output, in colour where it is a terminal. A reader that has gone away
/// is no reason to panic.
macro_rules! say {
    ($($arg:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(anstream::stdout(), $($arg)*);
    }};
}
pub(crate) use say;

/// A line on standard error.
macro_rules! note {
    ($($arg:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(anstream::stderr(), $($arg)*);
    }};
}
pub(crate) use note;

/// Runs a command.
pub(crate) fn run(args: Args) -> ExitCode {
    let name = args.name;
    let neighbours = Neighbours::now();
    let done = match args.command {
        Command::Holder(holder) => return crate::holder::run(holder),
        Command::Up(a) => up::run(&name, a),
        Command::Apply(a) => objects::apply(&name, &a),
        Command::Delete(a) => objects::delete(&name, &a),
        Command::Exec(a) => exec(&name, &a),
        Command::Probe(a) => probe::run(&name, &a),
        Command::Why(a) => probe::why(&name, &a),
        Command::Status(a) => show::status(&name, a.output.is_some()),
        Command::Capture(a) => show::capture(&name, &a),
        Command::Routes(a) => show::routes(&name, &a.target),
        Command::Random(a) => random::run(&a),
        Command::Test(a) => test::run(&a),
        Command::Down(a) => up::down(&name, a.all),
        Command::Demo(a) => demo::run(&name, &a),
    };
    if let Some(full) = neighbours.since() {
        note!("warning: {full}");
    }
    match done {
        Ok(code) => code,
        Err(failure) => {
            note!("error: {}", failure.message);
            ExitCode::from(failure.code)
        }
    }
}

/// An end as `exec` and `routes` take it: also the bare name of a node, a host or a pod of
/// the default namespace.
fn target(handle: &Handle, text: &str) -> Result<End, Failure> {
    if text == "fabric" || text == ROUTER {
        return Ok(End::Fabric);
    }
    if text.contains('/') {
        return text.parse().map_err(Failure::input);
    }
    let status = handle.status()?;
    if status.nodes.iter().any(|n| n.name == text) {
        return Ok(End::Node(text.to_owned()));
    }
    if status.hosts.iter().any(|h| h.0 == text) {
        return Ok(End::Host(text.to_owned()));
    }
    Ok(End::pod("default", text))
}

/// As [`target`], and `*` and whatever else a probe can have as an end.
fn target_or_any(handle: &Handle, text: &str) -> Result<End, Failure> {
    if text == "*" {
        Ok(End::AnyPod)
    } else {
        target(handle, text)
    }
}

fn exec(name: &str, a: &ExecArgs) -> Result<ExitCode, Failure> {
    let handle = Handle::find(name)?;
    let target = target(&handle, &a.target)?;
    let code = |bytes: &OsStr| STANDARD.encode(bytes.as_bytes());
    let request = Request::Exec {
        target,
        argv: a.command.iter().map(|c| code(c)).collect(),
        env: std::env::vars_os()
            .map(|(k, v)| (code(&k), code(&v)))
            .collect(),
        cwd: std::env::current_dir()
            .unwrap_or_default()
            .display()
            .to_string(),
    };
    let (stdin, stdout, stderr) = (std::io::stdin(), std::io::stdout(), std::io::stderr());
    let fds = [stdin.as_fd(), stdout.as_fd(), stderr.as_fd()];
    match handle.ask_with(&request, &fds)? {
        Response::Exit(status) => Ok(ExitCode::from(u8::try_from(status).unwrap_or(1))),
        other => Err(handle::unexpected(&other)),
    }
}
