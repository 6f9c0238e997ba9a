//! Control sockets: BIRD's, which calicoctl and birdc speak with, and our own.
//!
//! Promises: who asks much holds up the speaker for a bounded share at a time; a client that does not
//! read is let go; the sockets are root's alone. Never: changes what is spoken.

mod bird;
mod dump;
mod history;
mod lookup;
mod own;
mod peers;
mod report;

pub use peers::readiness;
pub(crate) use peers::{PeerReport, collect as collect_peers};

use crate::handle::Handle;
use daemon::Metrics;
pub(crate) use history::History;
use net::Family;
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use std::fs;
use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// Where calicoctl looks for BIRD's sockets.
pub const DIRECTORY: &str = "/var/run/calico";
/// So many clients at a time; the next is told so.
const CLIENTS: usize = 16;
/// A client that neither asks nor reads for so long is let go.
const PATIENCE: Duration = Duration::from_secs(60);
/// No question is longer.
const QUESTION: u64 = 64 << 10;

/// Why the sockets cannot be served.
#[derive(Debug, thiserror::Error)]
#[error("{operation} {path}: {cause}")]
pub struct ControlError {
    operation: &'static str,
    path: String,
    #[source]
    cause: io::Error,
}

fn failed<'a>(
    operation: &'static str,
    path: &'a Path,
) -> impl FnOnce(io::Error) -> ControlError + use<'a> {
    move |cause| ControlError {
        operation,
        path: path.display().to_string(),
        cause,
    }
}

/// Whose language a socket speaks.
#[derive(Debug, Clone, Copy)]
enum Language {
    Bird(Family),
    Own,
}

/// The sockets, served by threads of their own until [`Control::stop`] or drop.
#[derive(Debug)]
pub struct Control {
    history: History,
    paths: Vec<PathBuf>,
    end: Arc<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

impl Control {
    /// Makes `bird.ctl`, `bird6.ctl` and `bgp.ctl` in a directory, and begins to note what happens. What
    /// a predecessor left is replaced, what somebody still serves is not.
    ///
    /// # Errors
    /// When a socket cannot be had.
    pub fn start(speaker: &Handle, directory: &Path) -> Result<Self, ControlError> {
        fs::create_dir_all(directory).map_err(failed("make", directory))?;
        let sockets = [
            ("bird.ctl", Language::Bird(Family::V4)),
            ("bird6.ctl", Language::Bird(Family::V6)),
            ("bgp.ctl", Language::Own),
        ];
        let mut listeners = Vec::new();
        let mut paths = Vec::new();
        for (name, language) in sockets {
            let path = directory.join(name);
            listeners.push((listen(&path)?, language));
            paths.push(path);
        }
        let end = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK);
        let end = Arc::new(end.map_err(|e| failed("serve", directory)(e.into()))?);
        let history = History::watch(speaker);
        let server = Server {
            speaker: speaker.clone(),
            history: history.clone(),
            clients: Arc::default(),
        };
        let until = end.clone();
        let thread = std::thread::Builder::new()
            .name("bgp-control".to_owned())
            .spawn(move || server.run(&listeners, &until))
            .map_err(failed("serve", directory))?;
        Ok(Self {
            history,
            paths,
            end,
            thread: Some(thread),
        })
    }

    /// Adds what is counted to the metrics of a process.
    pub fn register(&self, speaker: &Handle, to: &Metrics) {
        crate::metrics::register(speaker, &self.history, to);
    }

    /// Ends it and takes the sockets away.
    pub fn stop(mut self) {
        self.close();
    }

    fn close(&mut self) {
        let Some(thread) = self.thread.take() else {
            return;
        };
        // It fails only when the counter is full, and then the thread has been told.
        let _ = rustix::io::write(&*self.end, &1_u64.to_ne_bytes());
        let _ = thread.join();
        for path in &self.paths {
            let _ = fs::remove_file(path);
        }
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        self.close();
    }
}

fn listen(path: &Path) -> Result<UnixListener, ControlError> {
    if UnixStream::connect(path).is_ok() {
        let taken = io::Error::new(io::ErrorKind::AddrInUse, "another speaker serves it");
        return Err(failed("listen on", path)(taken));
    }
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(failed("replace", path)(e)),
        _ => {}
    }
    let listener = UnixListener::bind(path).map_err(failed("listen on", path))?;
    let mode = fs::Permissions::from_mode(0o600);
    fs::set_permissions(path, mode).map_err(failed("protect", path))?;
    listener
        .set_nonblocking(true)
        .map_err(failed("listen on", path))?;
    Ok(listener)
}

/// What each client is served with.
#[derive(Clone)]
struct Server {
    speaker: Handle,
    history: History,
    clients: Arc<AtomicUsize>,
}

impl Server {
    fn run(&self, listeners: &[(UnixListener, Language)], end: &OwnedFd) {
        loop {
            let mut fds: Vec<PollFd<'_>> = listeners
                .iter()
                .map(|(l, _)| PollFd::new(l, PollFlags::IN))
                .collect();
            fds.push(PollFd::new(end, PollFlags::IN));
            match poll(&mut fds, None) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(e) => {
                    tracing::error!(error = %e, "the control sockets are served no more");
                    return;
                }
            }
            if fds.last().is_some_and(|e| !e.revents().is_empty()) {
                return;
            }
            for (listener, language) in listeners {
                if let Ok((stream, _)) = listener.accept() {
                    self.welcome(stream, *language);
                }
            }
        }
    }

    fn welcome(&self, stream: UnixStream, language: Language) {
        let prepared = stream
            .set_nonblocking(false)
            .and_then(|()| stream.set_read_timeout(Some(PATIENCE)))
            .and_then(|()| stream.set_write_timeout(Some(PATIENCE)));
        if prepared.is_err() || self.clients.fetch_add(1, Ordering::Relaxed) >= CLIENTS {
            if prepared.is_ok() {
                self.clients.fetch_sub(1, Ordering::Relaxed);
                // Whoever it was sees the connection end in any case.
                let _ = (&stream).write_all(b"9000 too many clients\n");
            }
            return;
        }
        let server = self.clone();
        let started = std::thread::Builder::new()
            .name("bgp-client".to_owned())
            .spawn(move || {
                if let Err(e) = server.converse(&stream, language) {
                    tracing::debug!(error = %e, "a client of the control socket went away");
                }
                server.clients.fetch_sub(1, Ordering::Relaxed);
            });
        if started.is_err() {
            self.clients.fetch_sub(1, Ordering::Relaxed);
        }
    }

    fn converse(&self, stream: &UnixStream, language: Language) -> io::Result<()> {
        let mut questions = BufReader::new(stream);
        let mut out = BufWriter::new(stream);
        if let Language::Bird(_) = language {
            bird::hello(&mut out)?;
            out.flush()?;
        }
        let mut line = String::new();
        loop {
            line.clear();
            let n = questions.by_ref().take(QUESTION).read_line(&mut line)?;
            if n == 0 {
                return Ok(());
            }
            match language {
                Language::Bird(family) => bird::answer(self, family, line.trim(), &mut out)?,
                Language::Own => own::answer(self, line.trim(), &mut out)?,
            }
            out.flush()?;
        }
    }

    fn gone(e: crate::Gone) -> io::Error {
        io::Error::new(io::ErrorKind::ConnectionAborted, e)
    }
}
