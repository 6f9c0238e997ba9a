//! Connections: bytes in, bytes out, and a decent end.
//!
//! Promises: what is written goes out in order and whole; no more than one round of
//! [`Router::pull`](bgp::router::Router::pull) is held for a socket that is full.

use bgp::router::ConnId;
use bytes::{Buf, Bytes};
use rustix::net::{RecvFlags, Shutdown};
use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

/// At most so many pieces in one system call.
const PIECES: usize = 64;
/// A connection that is over is still read for so long, so that the last message is not lost to a
/// reset.
const LINGER: Duration = Duration::from_secs(2);

/// How far a connection is.
#[derive(Debug)]
pub(crate) enum Phase {
    /// It is being made.
    Connecting,
    /// It stands.
    Open,
    /// It is over; what the other side still sends is thrown away until then.
    Ending(Instant),
}

/// A connection.
#[derive(Debug)]
pub(crate) struct Conn {
    pub fd: OwnedFd,
    /// Which it is; one of [`Phase::Ending`] is nobody's any more.
    pub id: ConnId,
    pub phase: Phase,
    out: VecDeque<Bytes>,
    /// Whether writing is watched for.
    pub watching: bool,
}

/// What became of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wrote {
    /// Nothing is left.
    All,
    /// The socket is full.
    Full,
    /// The connection is gone.
    Gone,
}

impl Conn {
    pub(crate) fn new(fd: OwnedFd, id: ConnId, phase: Phase) -> Self {
        Self {
            fd,
            id,
            phase,
            out: VecDeque::new(),
            watching: false,
        }
    }

    /// Whether something waits for the socket.
    pub(crate) fn pending(&self) -> bool {
        !self.out.is_empty()
    }

    /// Takes pieces to write.
    pub(crate) fn queue(&mut self, pieces: impl IntoIterator<Item = Bytes>) {
        self.out.extend(pieces);
    }

    /// Writes what the socket takes.
    pub(crate) fn write(&mut self) -> Wrote {
        while !self.out.is_empty() {
            let pieces: Vec<IoSlice<'_>> = self
                .out
                .iter()
                .take(PIECES)
                .map(|b| IoSlice::new(b))
                .collect();
            match rustix::io::writev(&self.fd, &pieces) {
                Ok(0) => return Wrote::Gone,
                Ok(n) => self.written(n),
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::AGAIN) => return Wrote::Full,
                Err(_) => return Wrote::Gone,
            }
        }
        Wrote::All
    }

    fn written(&mut self, mut n: usize) {
        while n > 0 {
            let Some(first) = self.out.front_mut() else {
                return;
            };
            if n < first.len() {
                first.advance(n);
                return;
            }
            n -= first.len();
            self.out.pop_front();
        }
    }

    /// Reads into a buffer. `Ok(None)`: nothing is there; `Ok(Some(0))`: the other side is through.
    ///
    /// # Errors
    /// The connection is lost.
    pub(crate) fn read(&self, into: &mut [u8]) -> io::Result<Option<usize>> {
        loop {
            return match rustix::net::recv(&self.fd, &mut *into, RecvFlags::DONTWAIT) {
                Ok((n, _)) => Ok(Some(n)),
                Err(rustix::io::Errno::INTR) => continue,
                Err(rustix::io::Errno::AGAIN) => Ok(None),
                Err(e) => Err(e.into()),
            };
        }
    }

    /// Writes a last message as far as the socket takes it, and ends our half.
    pub(crate) fn end(&mut self, last: Bytes, now: Instant) {
        // What the peer has not been sent so far is of no use without the session: only a
        // message that is half out has to be completed before the last one.
        self.out.truncate(1);
        self.out.push_back(last);
        let _ = self.write();
        let _ = rustix::net::shutdown(&self.fd, Shutdown::Write);
        self.phase = Phase::Ending(now + LINGER);
    }
}
