//! The processes of a lab, and their ends.
//!
//! Promises: every process that ends is waited for, also those that lost their parent, as is
//! the duty of process 1; who started one learns how it ended.
//!
//! Never: waits for one process by blocking the others.

use std::collections::HashMap;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc};

/// All child processes.
#[derive(Debug, Default)]
pub(super) struct Children {
    running: Mutex<HashMap<i32, mpsc::Sender<ExitStatus>>>,
    started: Condvar,
}

/// One that was started.
#[derive(Debug)]
pub(super) struct Started {
    /// The process; only its pipes may be used.
    pub child: Child,
    /// How it ended, once it has.
    pub ended: mpsc::Receiver<ExitStatus>,
}

impl Started {
    /// Its number.
    pub(super) fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).unwrap_or(i32::MAX)
    }
}

impl Children {
    /// Starts waiting.
    ///
    /// # Errors
    /// If there can be no thread.
    pub(super) fn new() -> io::Result<Arc<Self>> {
        let children = Arc::new(Self::default());
        let reaper = Arc::clone(&children);
        std::thread::Builder::new()
            .name("reaper".to_owned())
            .spawn(move || reaper.reap())?;
        Ok(children)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<i32, mpsc::Sender<ExitStatus>>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts a process.
    ///
    /// # Errors
    /// If it cannot be started.
    pub(super) fn spawn(&self, command: &mut Command) -> io::Result<Started> {
        // Held until it is known, so that the reaper cannot be faster.
        let mut running = self.lock();
        let child = command.spawn()?;
        let (tx, ended) = mpsc::channel();
        running.insert(i32::try_from(child.id()).unwrap_or(i32::MAX), tx);
        self.started.notify_all();
        Ok(Started { child, ended })
    }

    fn reap(&self) {
        loop {
            // SAFETY: an all-zero siginfo_t is what waitid fills in.
            let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
            let flags = libc::WEXITED | libc::WNOWAIT;
            // Looks without taking: std waits itself for a child whose exec failed.
            // SAFETY: info is valid for writing.
            if unsafe { libc::waitid(libc::P_ALL, 0, &raw mut info, flags) } != 0 {
                let running = self.lock();
                if running.is_empty() {
                    drop(
                        self.started
                            .wait(running)
                            .unwrap_or_else(PoisonError::into_inner),
                    );
                }
                continue;
            }
            // SAFETY: waitid succeeded, so the field is set.
            let pid = unsafe { info.si_pid() };
            let mut running = self.lock();
            let mut status = 0;
            // SAFETY: status is valid for writing.
            if unsafe { libc::waitpid(pid, &raw mut status, 0) } == pid
                && let Some(tx) = running.remove(&pid)
            {
                let _ = tx.send(ExitStatus::from_raw(status));
            }
        }
    }
}
