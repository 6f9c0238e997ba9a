//! Programs that a user runs inside the lab.
//!
//! Promises: the program has the caller's standard streams, directory and environment, and
//! the network of its target; when the caller goes away, so does the program.
//!
//! Never: interprets the command.

use crate::holder::Lab;
use crate::protocol::Connection;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use netlink::netns::NetNs;
use rustix::process::{Pid, Signal, kill_process_group};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};

fn decode(text: &str) -> Result<OsString, String> {
    STANDARD
        .decode(text)
        .map(OsString::from_vec)
        .map_err(|e| format!("bad argument: {e}"))
}

/// Runs a program to its end; `own` is what its target adds to the environment. The result is as a shell counts: 128 + signal.
///
/// # Errors
/// If it cannot be started.
pub(super) fn run(
    lab: &Lab,
    ns: &NetNs,
    own: &BTreeMap<String, String>,
    argv: &[String],
    env: &[(String, String)],
    cwd: &str,
    fds: Vec<OwnedFd>,
    connection: &Connection,
) -> Result<i32, String> {
    let argv = argv
        .iter()
        .map(|a| decode(a))
        .collect::<Result<Vec<_>, _>>()?;
    let (program, arguments) = argv.split_first().ok_or("no program to run")?;
    let [stdin, stdout, stderr]: [OwnedFd; 3] = fds
        .try_into()
        .map_err(|_| "the standard streams did not come along".to_owned())?;
    let mut command = ns.command(program).map_err(|e| e.to_string())?;
    command
        .args(arguments)
        .env_clear()
        .stdin(stdin)
        .stdout(stdout)
        .stderr(stderr);
    for (name, value) in env {
        command.env(decode(name)?, decode(value)?);
    }
    command
        .env("DATASTORE_TYPE", "embedded")
        .env("MANX_STORE", lab.dir.store());
    command.envs(own);
    if std::path::Path::new(cwd).is_dir() {
        command.current_dir(cwd);
    }
    command.process_group(0);
    let started = lab.children.spawn(&mut command);
    drop(command);
    let started = started.map_err(|e| format!("run {}: {e}", program.to_string_lossy()))?;
    let pid = started.pid();
    watch_caller(connection, pid)?;
    let status = started
        .ended
        .recv()
        .map_err(|_| "the program was lost".to_owned())?;
    let _ = connection.socket().shutdown(std::net::Shutdown::Read);
    Ok(status
        .code()
        .unwrap_or_else(|| 128 + status.signal().unwrap_or(0)))
}

/// Kills the program's group when the caller hangs up; the socket is shut for reading when
/// the program has ended.
fn watch_caller(connection: &Connection, pid: i32) -> Result<(), String> {
    let mut socket = connection.socket().try_clone().map_err(|e| e.to_string())?;
    let started = std::thread::Builder::new()
        .name("exec".to_owned())
        .spawn(move || {
            let _ = socket.read(&mut [0]);
            if let Some(group) = Pid::from_raw(pid) {
                let _ = kill_process_group(group, Signal::KILL);
            }
        });
    started.map(drop).map_err(|e| e.to_string())
}
