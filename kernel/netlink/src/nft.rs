//! nf_tables: transactions, reading, and notices of who changed what.
//!
//! Promises: a transaction takes effect whole or not at all, and only on the ruleset generation
//! it was made for; a refusal names the message refused; handles of new rules come back with the
//! transaction; whatever somebody else did to the table is reported, or an overrun is.
//!
//! Never: reads a foreign table; knows what a rule is wanted for.

mod batch;
pub mod conntrack;
mod expr;
mod read;

pub use batch::{
    BaseSpec, Batch, ElementData, ElementList, ElementSpec, SetData, SetSpec, key_type, set_flag,
};
pub use expr::{Ct, Exprs, Fib, Header, Meta, Nat, R, Stateful, VerdictCode};
pub use read::{ChainInfo, DataInfo, ElementInfo, Item, RuleInfo, SetInfo, VerdictInfo, items};

use crate::wire::{Attrs, Frame, Message, text, u16_at, u32_at};
use crate::{Buffers, Errno, NetlinkError, Protocol, Socket, set_buffers};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::Instant;
use tokio::io::unix::AsyncFd;

/// What packets a table sees (`NFPROTO_*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
#[expect(missing_docs, reason = "the kernel's names")]
pub enum Family {
    Inet = 1,
    Arp = 3,
}

impl std::fmt::Display for Family {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Inet => "inet",
            Self::Arp => "arp",
        })
    }
}

const SUBSYS: u16 = 10;
const BATCH_BEGIN: u16 = 16;
const BATCH_END: u16 = 17;
const GROUP: i32 = 7;

const NEWTABLE: u16 = 0;
const GETTABLE: u16 = 1;
const DELTABLE: u16 = 2;
const NEWCHAIN: u16 = 3;
const GETCHAIN: u16 = 4;
const DELCHAIN: u16 = 5;
const NEWRULE: u16 = 6;
const GETRULE: u16 = 7;
const DELRULE: u16 = 8;
const NEWSET: u16 = 9;
const GETSET: u16 = 10;
const DELSET: u16 = 11;
const NEWSETELEM: u16 = 12;
const GETSETELEM: u16 = 13;
const DELSETELEM: u16 = 14;
const NEWGEN: u16 = 15;
const GETGEN: u16 = 16;

const CREATE: u16 = libc::NLM_F_CREATE as u16;
const APPEND: u16 = libc::NLM_F_APPEND as u16;
const ECHO: u16 = libc::NLM_F_ECHO as u16;
const ACK: u16 = libc::NLM_F_ACK as u16;
const REQUEST: u16 = libc::NLM_F_REQUEST as u16;

/// What a transaction came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It took effect.
    Done(Done),
    /// Nothing changed: the kernel refused a message.
    Refused {
        /// The caller's operation; `None` when the commit as a whole failed.
        op: Option<usize>,
        /// Why.
        errno: Errno,
        /// The kernel's words.
        message: Option<String>,
        /// The kernel goes through to the end all the same: what else it refused, as
        /// operation, errno and words. Some of it only because of the first.
        others: Vec<(Option<usize>, Errno, Option<String>)>,
    },
    /// Nothing changed: somebody else has changed this table since it was read, or notices
    /// were lost.
    Changed,
    /// The answer was lost: the transaction may or may not have taken effect. Read again.
    Unknown,
}

/// A transaction that took effect.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Done {
    /// Operation and handle of each new rule.
    pub handles: Vec<(usize, u64)>,
    /// Somebody else changed the table right after: read again.
    pub changed_since: bool,
}

/// What [`Nft::notices`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Notice {
    /// Nobody else touched the table.
    Quiet,
    /// Somebody else changed the table.
    Changed,
    /// Notices were lost: read the table again.
    Overrun,
}

/// The nf_tables of one network namespace: one socket for transactions and notices, so that
/// they come in the order in which they happened, and one for reading.
#[derive(Debug)]
pub struct Nft {
    fd: OwnedFd,
    port: u32,
    family: Family,
    table: String,
    generation: u32,
    changed: bool,
    overrun: bool,
    dumps: Socket,
    buf: Vec<u8>,
    registered: Option<AsyncFd<OwnedFd>>,
}

/// A message as received, with the port of who caused it.
struct Received<'a> {
    kind: u16,
    seq: u32,
    port: u32,
    body: &'a [u8],
}

fn received(datagram: &[u8]) -> impl Iterator<Item = Received<'_>> {
    let mut rest = datagram;
    std::iter::from_fn(move || {
        let len = u32_at(rest, 0)? as usize;
        if len < 16 || len > rest.len() {
            return None;
        }
        let r = Received {
            kind: u16_at(rest, 4)?,
            seq: u32_at(rest, 8)?,
            port: u32_at(rest, 12)?,
            body: &rest[16..len],
        };
        rest = rest.get((len + 3) & !3..).unwrap_or(&[]);
        Some(r)
    })
}

fn be32(b: &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(b.get(..4)?.try_into().ok()?))
}

fn be64(b: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(b.get(..8)?.try_into().ok()?))
}

fn attr(attrs: Attrs<'_>, kind: u16) -> Option<&[u8]> {
    attrs.into_iter().find(|(k, _)| *k == kind).map(|(_, v)| v)
}

fn open() -> Result<(OwnedFd, u32), Errno> {
    // SAFETY: plain socket calls on a descriptor owned from the first line on; the address is
    // a zeroed sockaddr_nl of the size given.
    unsafe {
        let n = libc::socket(
            libc::AF_NETLINK,
            libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK,
            libc::NETLINK_NETFILTER,
        );
        if n < 0 {
            return Err(Errno::last());
        }
        let fd = OwnedFd::from_raw_fd(n);
        let mut addr: libc::sockaddr_nl = std::mem::zeroed();
        addr.nl_family = libc::AF_NETLINK as u16;
        let mut len = size_of::<libc::sockaddr_nl>() as u32;
        if libc::bind(n, (&raw const addr).cast(), len) != 0
            || libc::getsockname(n, (&raw mut addr).cast(), &raw mut len) != 0
        {
            return Err(Errno::last());
        }
        // After bind, which clears memberships.
        for (name, value) in [
            (libc::NETLINK_EXT_ACK, 1i32),
            (libc::NETLINK_CAP_ACK, 1),
            (libc::NETLINK_ADD_MEMBERSHIP, GROUP),
        ] {
            let size = size_of::<i32>() as u32;
            if libc::setsockopt(n, libc::SOL_NETLINK, name, (&raw const value).cast(), size) != 0 {
                return Err(Errno::last());
            }
        }
        Ok((fd, addr.nl_pid))
    }
}

/// One datagram is one transaction; echoes and notices of large ones wait here until read.
const BUFFERS: Buffers = Buffers {
    send: Some(256 << 20),
    receive: Some(256 << 20),
};

impl Nft {
    /// Opens in the network namespace of the calling thread, for the table of this name.
    /// Notices begin here.
    ///
    /// # Errors
    /// When the kernel gives no socket or has no nf_tables.
    pub fn open(family: Family, table: &str) -> Result<Self, NetlinkError> {
        let fail = |e| NetlinkError::system("open an nf_tables socket", e);
        let (fd, port) = open().map_err(fail)?;
        set_buffers(fd.as_fd(), BUFFERS).map_err(fail)?;
        let mut nft = Self {
            fd,
            port,
            family,
            table: table.to_owned(),
            generation: 0,
            changed: false,
            overrun: false,
            dumps: Socket::open(Protocol::Netfilter)?,
            buf: vec![0; 1 << 18],
            registered: None,
        };
        nft.forget_notices()?;
        Ok(nft)
    }

    /// Takes what has happened so far as known: call before reading.
    ///
    /// # Errors
    /// When the kernel does not tell its generation.
    pub fn forget_notices(&mut self) -> Result<(), NetlinkError> {
        self.drain(|_| {})?;
        self.changed = false;
        self.overrun = false;
        self.generation = self.ask_generation()?;
        Ok(())
    }

    fn ask_generation(&mut self) -> Result<u32, NetlinkError> {
        let mut msg = Message::new(SUBSYS << 8 | GETGEN, 0);
        msg.raw(&[0, 0, 0, 0]);
        self.dumps
            .query("read the ruleset generation", msg, |f: &Frame<'_>| {
                be32(attr(Attrs::after(f.body, 4), 1)?)
            })
    }

    /// What others did to the table since [`Nft::forget_notices`]; does not wait.
    ///
    /// # Errors
    /// When the socket fails.
    pub fn notices(&mut self) -> Result<Notice, NetlinkError> {
        self.drain(|_| {})?;
        Ok(match (self.overrun, self.changed) {
            (true, _) => Notice::Overrun,
            (_, true) => Notice::Changed,
            _ => Notice::Quiet,
        })
    }

    fn drain(&mut self, mut ours: impl FnMut(&Received<'_>)) -> Result<(), NetlinkError> {
        loop {
            // SAFETY: the buffer is valid for writes of its length.
            let n = unsafe {
                libc::recv(
                    self.fd.as_raw_fd(),
                    self.buf.as_mut_ptr().cast(),
                    self.buf.len(),
                    0,
                )
            };
            if n < 0 {
                match Errno::last() {
                    Errno::EAGAIN => return Ok(()),
                    Errno::EINTR => continue,
                    Errno::ENOBUFS => self.overrun = true,
                    e => return Err(NetlinkError::system("read nf_tables notices", e)),
                }
                continue;
            }
            for r in received(&self.buf[..n.cast_unsigned()]) {
                if r.kind == SUBSYS << 8 | NEWGEN {
                    if let Some(g) = attr(Attrs::after(r.body, 4), 1).and_then(be32) {
                        self.generation = g;
                    }
                } else if r.port == self.port {
                    ours(&r);
                } else if r.kind >> 8 == SUBSYS
                    && r.body.first() == Some(&(self.family as u8))
                    && attr(Attrs::after(r.body, 4), 1).and_then(text) == Some(&self.table)
                {
                    self.changed = true;
                }
            }
        }
    }

    /// Sends a transaction. It takes effect only if nobody else has touched the table since
    /// [`Nft::forget_notices`]; changes of other tables do not matter.
    ///
    /// # Errors
    /// When the socket fails before the kernel saw anything.
    pub fn commit(&mut self, mut batch: Batch) -> Result<Outcome, NetlinkError> {
        if batch.is_empty() {
            return Ok(Outcome::Done(Done::default()));
        }
        self.drain(|_| {})?;
        batch.seal();
        let mut quiet = batch.len() >= QUIET;
        loop {
            if self.changed || self.overrun {
                return Ok(Outcome::Changed);
            }
            let generation = self.generation;
            batch.valid_for(generation);
            if quiet {
                quiet = false;
                match self.commit_quietly(&batch, generation)? {
                    Some(outcome) => return Ok(outcome),
                    None => continue,
                }
            }
            self.send(batch.bytes())?;
            let outcome = self.outcome(&batch)?;
            // Generation passed: another table changed, or ours, which `changed` tells.
            if matches!(
                outcome,
                Outcome::Refused {
                    errno: Errno(ERESTART),
                    ..
                }
            ) {
                if self.generation == generation && !self.changed && !self.overrun {
                    self.forget_notices()?;
                    return Ok(Outcome::Changed);
                }
                continue;
            }
            return Ok(outcome);
        }
    }

    /// Sends a large transaction while nobody listens on our behalf: the kernel need not tell
    /// about each element. `None` when it was refused because of a passed generation, and can be
    /// tried again.
    fn commit_quietly(
        &mut self,
        batch: &Batch,
        generation: u32,
    ) -> Result<Option<Outcome>, NetlinkError> {
        self.listen(false)?;
        let sent = self.send(batch.bytes());
        // Whatever becomes of it, from here on everything is heard again.
        self.listen(true)?;
        sent?;
        let mut outcome = self.outcome(batch)?;
        let now = self.ask_generation()?;
        match &mut outcome {
            Outcome::Done(done) => {
                // Ours is one step. Anything more in between was somebody's whom we did not
                // hear, of this table or of another.
                done.changed_since |= now != next_generation(generation);
                self.changed |= done.changed_since;
                self.generation = now;
            }
            Outcome::Refused {
                errno: Errno(ERESTART),
                ..
            } => {
                self.overrun |= now != generation;
                return Ok(None);
            }
            Outcome::Refused { .. } => self.overrun |= now != generation,
            Outcome::Changed | Outcome::Unknown => {}
        }
        Ok(Some(outcome))
    }

    fn listen(&self, on: bool) -> Result<(), NetlinkError> {
        let name = if on {
            libc::NETLINK_ADD_MEMBERSHIP
        } else {
            libc::NETLINK_DROP_MEMBERSHIP
        };
        let (group, size) = (GROUP, size_of::<i32>() as u32);
        // SAFETY: the option's value lives through the call and its size is given.
        let rc = unsafe {
            let fd = self.fd.as_raw_fd();
            libc::setsockopt(fd, libc::SOL_NETLINK, name, (&raw const group).cast(), size)
        };
        if rc == 0 {
            return Ok(());
        }
        let what = "listen for nf_tables notices";
        Err(NetlinkError::system(what, Errno::last()))
    }

    fn send(&self, bytes: &[u8]) -> Result<(), NetlinkError> {
        loop {
            // SAFETY: the bytes are valid for reads of their length.
            let n =
                unsafe { libc::send(self.fd.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), 0) };
            if n >= 0 {
                return Ok(());
            }
            match Errno::last() {
                Errno::EINTR => {}
                e => {
                    let what = format!("send an nf_tables transaction of {} bytes", bytes.len());
                    return Err(NetlinkError::system(what, e));
                }
            }
        }
    }

    /// The kernel has done all its work inside `send`, so every answer is waiting.
    fn outcome(&mut self, batch: &Batch) -> Result<Outcome, NetlinkError> {
        let mut done = Done::default();
        let mut acked = false;
        let mut refusals = Vec::new();
        self.drain(|r| {
            let op = batch.operation_of(r.seq);
            if i32::from(r.kind) == libc::NLMSG_ERROR {
                let errno = u32_at(r.body, 0).map_or(libc::EIO, |c| -(c.cast_signed()));
                if errno == 0 {
                    acked = true;
                } else {
                    let words = attr(Attrs::after(r.body, 20), 1).and_then(text);
                    refusals.push((op, Errno(errno), words.map(str::to_owned)));
                }
            } else if r.kind == SUBSYS << 8 | NEWRULE {
                let handle = attr(Attrs::after(r.body, 4), 3).and_then(be64);
                done.handles.extend(op.zip(handle));
            }
        })?;
        let mut refusals = refusals.into_iter();
        Ok(match refusals.next() {
            Some((op, errno, message)) => Outcome::Refused {
                op,
                errno,
                message,
                others: refusals.collect(),
            },
            None if self.overrun || !acked => Outcome::Unknown,
            None => Outcome::Done(Done {
                changed_since: self.changed,
                handles: batch.handles(done.handles),
            }),
        })
    }

    /// As if the kernel had run out of room for notices: for tests of what comes of it.
    pub fn lose_notices(&mut self) {
        self.overrun = true;
    }

    /// Waits until something can be read, for tasks of a tokio runtime. Cancel-safe.
    ///
    /// # Errors
    /// When the descriptor cannot be registered with the runtime.
    pub async fn readable(&mut self) -> Result<(), NetlinkError> {
        let fail = |e: io::Error| NetlinkError::system("wait for nf_tables notices", e);
        if self.registered.is_none() {
            let fd = self.fd.try_clone().map_err(fail)?;
            let interest = tokio::io::Interest::READABLE;
            // SAFETY: an owned descriptor, which the AsyncFd keeps and nobody replaces.
            let registered = unsafe { AsyncFd::register_with_interest(fd, interest) };
            self.registered = Some(registered.map_err(|e| fail(e.into()))?);
        }
        let Some(registered) = &self.registered else {
            return Ok(());
        };
        let mut guard = registered.readable().await.map_err(fail)?;
        if !poll(self.fd.as_fd(), 0) {
            guard.clear_ready();
        }
        Ok(())
    }

    /// Waits until something can be read or the deadline passes, for plain threads. True if
    /// something waits.
    pub fn wait(&self, deadline: Instant) -> bool {
        loop {
            let left = deadline
                .saturating_duration_since(Instant::now())
                .as_millis();
            if poll(self.fd.as_fd(), i32::try_from(left).unwrap_or(i32::MAX)) {
                return true;
            }
            if left == 0 {
                return false;
            }
        }
    }
}

/// From this size in bytes a transaction is sent without listening.
const QUIET: usize = 128 << 10;

/// The kernel's counter goes round, and is never 0.
const fn next_generation(generation: u32) -> u32 {
    match generation.wrapping_add(1) {
        0 => 1,
        n => n,
    }
}

/// `-ERESTART` leaves the kernel for a stale generation; libc does not name it.
const ERESTART: i32 = 85;

fn poll(fd: BorrowedFd<'_>, ms: i32) -> bool {
    let mut p = libc::pollfd {
        fd: fd.as_raw_fd(),
        events: libc::POLLIN,
        revents: 0,
    };
    // SAFETY: one pollfd, valid for the call.
    unsafe { libc::poll(&raw mut p, 1, ms) == 1 }
}
