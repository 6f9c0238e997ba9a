//! Starting and ending labs.
//!
//! Promises: `up` returns when every node's agent is ready, or leaves nothing behind; `down`
//! returns when every process of the lab is gone.
//!
//! Never: signals a process that is not the holder of this lab.

use crate::args::UpArgs;
use crate::command::handle::Handle;
use crate::command::{Failure, note, objects};
use crate::holder::spawn::{self, Spawned};
use crate::protocol::Request;
use crate::state::{Dir, Labs};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use scenario::plan::Spec;
use std::io::{BufRead, BufReader};
use std::os::fd::OwnedFd;
use std::process::ExitCode;
use std::time::Instant;

/// More than the kernel needs to end a large lab.
const END: Timespec = Timespec {
    tv_sec: 10,
    tv_nsec: 0,
};

/// A lab that this process started, and that ends with it if it has a lifeline.
pub(super) struct Started {
    /// The lab.
    pub handle: Handle,
    pid: i32,
    lifeline: Option<OwnedFd>,
}

/// `manx lab up`.
pub(super) fn run(name: &str, a: UpArgs) -> Result<ExitCode, Failure> {
    let spec = Spec {
        name: name.to_owned(),
        nodes: a.nodes,
        topology: a.topology,
        families: a.families,
        hosts: a.hosts,
        default_pools: !a.no_default_pools,
        encapsulation: a.encapsulation,
        wireguard: false,
    };
    let began = Instant::now();
    let started = start(spec, a.foreground, true)?;
    note!(
        "lab {name:?} is up: {} nodes in {:.2} s; store {}",
        a.nodes,
        began.elapsed().as_secs_f64(),
        started.handle.dir.store().display()
    );
    if a.foreground {
        note!("it ends with this command: press Ctrl-C");
        wait_child(started.pid);
        return Err(Failure::new("the lab ended"));
    }
    started.let_go();
    Ok(ExitCode::SUCCESS)
}

/// Starts a lab and waits until it is ready.
pub(super) fn start(spec: Spec, lifeline: bool, progress: bool) -> Result<Started, Failure> {
    spec.plan().map_err(|e| Failure::input(e.to_string()))?;
    let labs = Labs::open()?;
    let (dir, lock) = labs.create(&spec.name)?;
    let begun = (|| {
        objects::prepare(&dir, &spec)?;
        let text = serde_json::to_string(&spec)?;
        std::fs::write(dir.spec(), &text)?;
        Ok(spawn::spawn(&dir, &lock, &text, lifeline)?)
    })();
    // Others may look again: the holder has the lock.
    let spawned = begun.inspect_err(|_: &Failure| {
        let _ = std::fs::remove_dir_all(dir.path());
    })?;
    drop((labs, lock));
    if let Err(why) = wait_ready(&spawned, progress) {
        wait_child(spawned.pid);
        let _ = std::fs::remove_dir_all(dir.path());
        return Err(why);
    }
    let handle = Handle { dir, spec };
    Ok(Started {
        handle,
        pid: spawned.pid,
        lifeline: spawned.lifeline,
    })
}

fn wait_ready(spawned: &Spawned, progress: bool) -> Result<(), Failure> {
    for line in BufReader::new(&spawned.ready).lines() {
        let line = line?;
        match line.split_once(' ').unwrap_or((&line, "")) {
            ("ready", _) => return Ok(()),
            ("progress", text) if progress => note!("{text}"),
            ("error", text) => return Err(Failure::new(text.replace('\u{1}', "\n"))),
            _ => {}
        }
    }
    Err(Failure::new("the lab's holder ended before it was ready"))
}

fn wait_child(pid: i32) {
    // SAFETY: a null status is allowed.
    while unsafe { libc::waitpid(pid, std::ptr::null_mut(), 0) } < 0
        && std::io::Error::last_os_error().kind() == std::io::ErrorKind::Interrupted
    {}
}

impl Started {
    /// Leaves it running.
    pub(super) fn let_go(mut self) {
        // Nothing is closed: a lab without a lifeline does not care, one with it lives on
        // only as long as this process.
        if let Some(fd) = self.lifeline.take() {
            std::mem::forget(fd);
        }
        self.pid = 0;
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        if self.pid == 0 {
            return;
        }
        if let Err(e) = end(&self.handle.dir) {
            note!("end lab {:?}: {}", self.handle.spec.name, e.message);
        }
        wait_child(self.pid);
    }
}

/// `manx lab down`.
pub(super) fn down(name: &str, all: bool) -> Result<ExitCode, Failure> {
    let labs = Labs::open()?;
    let names = if all {
        labs.names()?
    } else {
        vec![name.to_owned()]
    };
    for name in names {
        end(&labs.find(&name)?)?;
        note!("lab {name:?} is down");
    }
    Ok(ExitCode::SUCCESS)
}

/// Ends the lab in a directory, waits for its last process, and removes the directory.
fn end(dir: &Dir) -> Result<(), Failure> {
    let handle = Handle::at(dir.clone())?;
    let connection = handle.connect()?;
    let holder = rustix::net::sockopt::socket_peercred(connection.socket())?.pid;
    let holder: OwnedFd = pidfd_open(holder, PidfdFlags::empty())?;
    connection.send(&Request::Down)?;
    let mut watched = [PollFd::new(&holder, PollFlags::IN)];
    if poll(&mut watched, Some(&END))? == 0 {
        // It hangs, or is stopped.
        pidfd_send_signal(&holder, Signal::KILL)?;
        poll(&mut watched, Some(&END))?;
    }
    match std::fs::remove_dir_all(dir.path()) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e.into()),
        _ => Ok(()),
    }
}
