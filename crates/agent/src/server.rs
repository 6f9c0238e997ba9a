//! The socket on which the plugins ask.
//!
//! Promises: one slow request holds up no other; a request that does not parse is
//! answered, not dropped; the socket file belongs to root alone, since who may connect may
//! wire containers.

use crate::attach::Attacher;
use cni::error::{CniError, code};
use cni::protocol::{Answer, Request, receive, send, waiting};
use std::fs::{self, File, TryLockError};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::Interest;
use tokio::net::UnixListener;

/// A peer that connects and says nothing is let go after this long.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// Why the socket cannot be served.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen for CNI plugins on {}: {source}", path.display())]
pub(crate) struct ListenError {
    path: PathBuf,
    source: io::Error,
}

/// Makes this process the one agent of a socket, for as long as the file is kept open: two would
/// program one kernel from two states.
///
/// # Errors
/// When another agent is, or the file cannot be made.
pub(crate) fn claim(path: &Path) -> Result<File, ListenError> {
    let failed = |source| ListenError {
        path: path.to_owned(),
        source,
    };
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir).map_err(failed)?;
    }
    let mut lock = path.as_os_str().to_owned();
    lock.push(".lock");
    let file = File::create(PathBuf::from(lock)).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(failed(io::Error::new(
            io::ErrorKind::AddrInUse,
            "another agent serves it",
        ))),
        Err(TryLockError::Error(e)) => Err(failed(e)),
    }
}

/// Binds the socket, which must be claimed. A file that a killed predecessor left is replaced; one that somebody still
/// serves is not.
///
/// # Errors
/// When the directory cannot be made, another agent is serving, or binding fails.
pub(crate) fn listen(path: &Path) -> Result<UnixListener, ListenError> {
    let failed = |source| ListenError {
        path: path.to_owned(),
        source,
    };
    if UnixStream::connect(path).is_ok() {
        return Err(failed(io::Error::new(
            io::ErrorKind::AddrInUse,
            "another agent serves it",
        )));
    }
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(failed(e)),
        _ => {}
    }
    let listener = UnixListener::bind(path).map_err(failed)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).map_err(failed)?;
    Ok(listener)
}

/// Serves until dropped.
pub(crate) async fn serve(listener: UnixListener, attacher: Arc<Attacher>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let attacher = attacher.clone();
                tokio::spawn(async move {
                    if let Err(e) = converse(stream, &attacher).await {
                        tracing::warn!(error = %e, "a CNI plugin went away before its answer");
                    }
                });
            }
            Err(e) => {
                // Out of descriptors, most likely; some will be free again.
                tracing::error!(error = %e, "cannot accept a CNI plugin's connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn converse(stream: tokio::net::UnixStream, attacher: &Attacher) -> io::Result<()> {
    // No thread waits for a peer that says nothing: there are few, and wiring needs them.
    let asked = stream.async_io(Interest::READABLE, || waiting(&stream));
    tokio::time::timeout(REQUEST_TIMEOUT, asked).await??;
    let stream = stream.into_std()?;
    let asked = tokio::task::spawn_blocking(move || read(stream))
        .await
        .map_err(io::Error::other)?;
    let (mut stream, got) = match asked {
        // Whoever only looks whether somebody is here asks nothing.
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
        asked => asked?,
    };
    let answer = match got {
        Ok((request, netns)) => attacher.serve(&request, netns).await,
        Err(e) => Answer::Error(e),
    };
    let body = serde_json::to_vec(&answer).map_err(io::Error::other)?;
    // An answer fits the socket's buffer, so this does not block.
    send(&mut stream, &body, None)
}

type Got = Result<(Request, Option<OwnedFd>), CniError>;

fn read(mut stream: UnixStream) -> io::Result<(UnixStream, Got)> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(REQUEST_TIMEOUT))?;
    let (body, fd) = receive(&mut stream)?;
    let request = serde_json::from_slice(&body).map(|r| (r, fd)).map_err(|e| {
        CniError::new(code::DECODE, format!("the request does not parse: {e}"))
            .details("plugin and agent are of different versions")
    });
    Ok((stream, request))
}
