//! nf_tables: transactions, reading, and notices of who changed what.
//!
//! Promises: a transaction takes effect whole or not at all, and only on the ruleset generation
//! it was made for; a refusal names the message refused; handles of new rules come back with the
//! transaction; whatever somebody else did to the table is reported, or an overrun is.
//!
//! Never: reads a foreign table; knows what a rule is wanted for.

mod expr;

pub use expr::{Ct, Exprs, Fib, Header, Meta, Nat, R, VerdictCode};

use crate::wire::{Attrs, Frame, Message, text, u16_at, u32_at};
use crate::{Buffers, Errno, NetlinkError, Protocol, Socket, set_buffers};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::Instant;

const INET: u8 = 1;
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

/// `NFT_SET_*` flags.
pub mod set_flag {
    /// Made for one rule.
    pub const ANONYMOUS: u32 = 1;
    /// Members never change.
    pub const CONSTANT: u32 = 2;
    /// Members are intervals.
    pub const INTERVAL: u32 = 4;
    /// Keys have values.
    pub const MAP: u32 = 8;
    /// Intervals in several fields.
    pub const CONCAT: u32 = 0x80;
}

/// nft's numbers of data types: what a listing needs to print keys.
pub mod key_type {
    /// IPv4 address.
    pub const IPV4: u32 = 7;
    /// IPv6 address.
    pub const IPV6: u32 = 8;
    /// Protocol number.
    pub const PROTO: u32 = 12;
    /// Port.
    pub const SERVICE: u32 = 13;
    /// Interface name.
    pub const IFNAME: u32 = 41;
    /// Several in a row, six bits each.
    pub const fn concat(a: u32, b: u32) -> u32 {
        a << 6 | b
    }
}

/// The data type of verdict maps (`NFT_DATA_VERDICT`).
const DATA_VERDICT: u32 = 0xffff_ff00;
/// Bytes of elements in one message: the list's length is 16 bits, and nft's own
/// messages stay below the half of that.
const ELEMENTS: usize = 32 << 10;

/// Attributes in network byte order, appended to one buffer.
#[derive(Debug, Default)]
pub(crate) struct Writer(Vec<u8>);

impl Writer {
    fn clear(&mut self) {
        self.0.clear();
    }

    fn pad(&mut self) {
        while !self.0.len().is_multiple_of(4) {
            self.0.push(0);
        }
    }

    fn attr(&mut self, kind: u16, bytes: &[u8]) {
        let len = u16::try_from(4 + bytes.len()).expect("names and keys are short");
        self.0.extend_from_slice(&len.to_ne_bytes());
        self.0.extend_from_slice(&kind.to_ne_bytes());
        self.0.extend_from_slice(bytes);
        self.pad();
    }

    fn u32(&mut self, kind: u16, v: u32) {
        self.attr(kind, &v.to_be_bytes());
    }

    fn u64(&mut self, kind: u16, v: u64) {
        self.attr(kind, &v.to_be_bytes());
    }

    fn str(&mut self, kind: u16, v: &str) {
        let len = u16::try_from(5 + v.len()).expect("names are short");
        self.0.extend_from_slice(&len.to_ne_bytes());
        self.0.extend_from_slice(&kind.to_ne_bytes());
        self.0.extend_from_slice(v.as_bytes());
        self.0.push(0);
        self.pad();
    }

    fn nest(&mut self, kind: u16) -> usize {
        let at = self.0.len();
        self.0.extend_from_slice(&[0, 0]);
        self.0
            .extend_from_slice(&(kind | libc::NLA_F_NESTED as u16).to_ne_bytes());
        at
    }

    fn end(&mut self, at: usize) {
        let len = u16::try_from(self.0.len() - at).expect("nests are split before 64 KiB");
        self.0[at..at + 2].copy_from_slice(&len.to_ne_bytes());
    }
}

/// Where a base chain hangs, in the kernel's numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BaseSpec {
    /// `filter`, `nat` or `route`.
    pub kind: String,
    /// `NF_INET_*`.
    pub hook: u32,
    /// Order within the hook.
    pub priority: i32,
    /// `NF_DROP` (0) or `NF_ACCEPT` (1).
    pub policy: u32,
}

/// The type of a set, in the kernel's numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetSpec {
    /// [`set_flag`]s.
    pub flags: u32,
    /// nft's number.
    pub key_type: u32,
    /// Bytes; each field padded to four.
    pub key_len: u32,
    /// Bytes of each field of a concatenation; empty for one field.
    pub fields: Vec<u32>,
}

/// One element for [`Batch::new_elements`] and [`Batch::del_elements`].
#[derive(Debug, Clone, Copy)]
pub struct ElementSpec<'a> {
    /// The key, or the lower ends of its fields.
    pub key: &'a [u8],
    /// The upper ends (included) of the fields of an interval concatenation.
    pub key_end: Option<&'a [u8]>,
    /// Marks the end (excluded) of a plain interval.
    pub interval_end: bool,
    /// The value in a verdict map.
    pub verdict: Option<VerdictCode<'a>>,
}

/// One transaction on one table, as it will be sent.
#[derive(Debug)]
pub struct Batch {
    w: Writer,
    table: String,
    /// The caller's operation of each message.
    ops: Vec<usize>,
    op: usize,
    last: usize,
}

impl Batch {
    /// An empty transaction on the `inet` table of this name.
    pub fn new(table: &str) -> Self {
        let mut b = Self {
            w: Writer(Vec::new()),
            table: table.to_owned(),
            ops: Vec::new(),
            op: 0,
            last: 0,
        };
        let at = b.header(BATCH_BEGIN, 0, 0, SUBSYS);
        // Filled in when sent.
        b.w.u32(1, 0);
        b.finish(at);
        b
    }

    /// Says that the messages from here on belong to the caller's operation number `op`.
    pub fn operation(&mut self, op: usize) {
        self.op = op;
    }

    /// Size in bytes so far.
    pub fn len(&self) -> usize {
        self.w.0.len()
    }

    /// Whether it holds no message.
    pub fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }

    fn header(&mut self, kind: u16, flags: u16, family: u8, res: u16) -> usize {
        let at = self.w.0.len();
        let seq = u32::try_from(self.ops.len()).expect("fewer than 2^32 messages");
        self.w.0.extend_from_slice(&[0; 4]);
        self.w.0.extend_from_slice(&kind.to_ne_bytes());
        self.w.0.extend_from_slice(&(flags | REQUEST).to_ne_bytes());
        self.w.0.extend_from_slice(&seq.to_ne_bytes());
        self.w.0.extend_from_slice(&[0; 4]);
        self.w.0.extend_from_slice(&[family, 0]);
        self.w.0.extend_from_slice(&res.to_be_bytes());
        at
    }

    fn finish(&mut self, at: usize) {
        let len = u32::try_from(self.w.0.len() - at).expect("a message is below 4 GiB");
        self.w.0[at..at + 4].copy_from_slice(&len.to_ne_bytes());
    }

    /// A message; its sequence number is its place in the batch, counted from 1.
    fn message(&mut self, kind: u16, flags: u16, body: impl FnOnce(&mut Writer, &str)) {
        self.ops.push(self.op);
        self.last = self.header(SUBSYS << 8 | kind, flags, INET, 0);
        let at = self.last;
        let table = std::mem::take(&mut self.table);
        self.w.str(1, &table);
        body(&mut self.w, &table);
        self.table = table;
        self.finish(at);
    }

    /// Makes the table, or wakes a dormant one.
    pub fn new_table(&mut self) {
        self.message(NEWTABLE, CREATE, |w, _| w.u32(2, 0));
    }

    /// Removes the table and all in it.
    pub fn del_table(&mut self) {
        self.message(DELTABLE, 0, |_, _| {});
    }

    /// Makes a chain; for one that exists, sets its policy.
    pub fn new_chain(&mut self, name: &str, base: Option<&BaseSpec>) {
        self.message(NEWCHAIN, CREATE, |w, _| {
            w.str(3, name);
            let Some(b) = base else { return };
            let hook = w.nest(4);
            w.u32(1, b.hook);
            w.u32(2, b.priority.cast_unsigned());
            w.end(hook);
            w.u32(5, b.policy);
            w.str(7, &b.kind);
        });
    }

    /// Removes a chain, which must be unreferenced. Its rules must be gone too.
    pub fn del_chain(&mut self, name: &str) {
        self.message(DELCHAIN, 0, |w, _| w.str(3, name));
    }

    /// Adds a rule before the one with that handle, or at the end. The expressions' anonymous
    /// sets are made first. The handle it gets comes back as [`Done::handles`].
    pub fn new_rule(&mut self, chain: &str, exprs: &Exprs, userdata: &[u8], before: Option<u64>) {
        for a in &exprs.anonymous {
            self.anonymous_set(a);
        }
        let flags = CREATE | ECHO | if before.is_some() { 0 } else { APPEND };
        self.message(NEWRULE, flags, |w, _| {
            w.str(2, chain);
            let list = w.nest(4);
            w.0.extend_from_slice(&exprs.w.0);
            w.end(list);
            if let Some(handle) = before {
                w.u64(6, handle);
            }
            w.attr(7, userdata);
        });
    }

    /// Removes a rule.
    pub fn del_rule(&mut self, chain: &str, handle: u64) {
        self.message(DELRULE, 0, |w, _| {
            w.str(2, chain);
            w.u64(3, handle);
        });
    }

    /// Removes all rules of a chain.
    pub fn flush_chain(&mut self, chain: &str) {
        self.message(DELRULE, 0, |w, _| w.str(2, chain));
    }

    /// Makes a set or map.
    pub fn new_set(&mut self, name: &str, spec: &SetSpec) {
        self.set(name, spec, None, None);
    }

    fn set(&mut self, name: &str, spec: &SetSpec, id: Option<u32>, size: Option<u32>) {
        self.message(NEWSET, CREATE, |w, _| {
            w.str(2, name);
            w.u32(3, spec.flags);
            w.u32(4, spec.key_type);
            w.u32(5, spec.key_len);
            if spec.flags & set_flag::MAP != 0 {
                w.u32(6, DATA_VERDICT);
                w.u32(7, 0);
            }
            if !spec.fields.is_empty() || size.is_some() {
                let desc = w.nest(9);
                if let Some(size) = size {
                    w.u32(1, size);
                }
                if !spec.fields.is_empty() {
                    let list = w.nest(2);
                    for f in &spec.fields {
                        let elem = w.nest(1);
                        w.u32(1, *f);
                        w.end(elem);
                    }
                    w.end(list);
                }
                w.end(desc);
            }
            // The kernel wants an id on every set; only anonymous ones are found by it.
            w.u32(10, id.unwrap_or(0));
            if spec.key_type == key_type::IFNAME {
                // NFTNL_UDATA_SET_KEYBYTEORDER = host, or listings print empty names.
                let mut udata = vec![0, 4];
                udata.extend_from_slice(&1u32.to_ne_bytes());
                w.attr(13, &udata);
            }
        });
    }

    fn anonymous_set(&mut self, a: &expr::Anonymous) {
        const NAME: &str = "__set%d";
        let interval = if a.interval { set_flag::INTERVAL } else { 0 };
        let spec = SetSpec {
            flags: set_flag::ANONYMOUS | set_flag::CONSTANT | interval,
            key_type: a.key_type,
            key_len: a.key_len,
            fields: Vec::new(),
        };
        let size = u32::try_from(a.elements.len()).ok();
        self.set(NAME, &spec, Some(a.id), size);
        let elements = a.elements.iter().map(|(key, end)| ElementSpec {
            key,
            key_end: None,
            interval_end: *end,
            verdict: None,
        });
        self.elements(NEWSETELEM, CREATE, NAME, Some(a.id), elements);
    }

    /// Removes a set, which must be unreferenced.
    pub fn del_set(&mut self, name: &str) {
        self.message(DELSET, 0, |w, _| w.str(2, name));
    }

    /// Adds elements, in as many messages as it takes.
    pub fn new_elements<'a>(&mut self, set: &str, elements: impl Iterator<Item = ElementSpec<'a>>) {
        self.elements(NEWSETELEM, CREATE, set, None, elements);
    }

    /// Removes elements, all of which must be there.
    pub fn del_elements<'a>(&mut self, set: &str, elements: impl Iterator<Item = ElementSpec<'a>>) {
        self.elements(DELSETELEM, 0, set, None, elements);
    }

    fn elements<'a>(
        &mut self,
        kind: u16,
        flags: u16,
        set: &str,
        id: Option<u32>,
        elements: impl Iterator<Item = ElementSpec<'a>>,
    ) {
        let mut elements = elements.peekable();
        while elements.peek().is_some() {
            self.message(kind, flags, |w, _| {
                w.str(2, set);
                if let Some(id) = id {
                    w.u32(4, id);
                }
                let list = w.nest(3);
                while w.0.len() - list < ELEMENTS {
                    let Some(e) = elements.next() else { break };
                    let elem = w.nest(1);
                    if e.interval_end {
                        w.u32(3, 1);
                    }
                    expr::value(w, 1, e.key);
                    if let Some(end) = e.key_end {
                        expr::value(w, 10, end);
                    }
                    if let Some(v) = e.verdict {
                        expr::verdict(w, 2, v);
                    }
                    w.end(elem);
                }
                w.end(list);
            });
        }
    }

    /// Closes the batch for sending: the generation it is valid for, an acknowledgement of the
    /// last message, which the kernel gives only when all took effect.
    fn seal(&mut self, generation: u32) {
        self.w.0[24..28].copy_from_slice(&generation.to_be_bytes());
        let flags = self.last + 6;
        let now = u16::from_ne_bytes([self.w.0[flags], self.w.0[flags + 1]]);
        self.w.0[flags..flags + 2].copy_from_slice(&(now | ACK).to_ne_bytes());
        let at = self.header(BATCH_END, 0, 0, SUBSYS);
        self.finish(at);
    }
}

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
    table: String,
    generation: u32,
    changed: bool,
    overrun: bool,
    dumps: Socket,
    buf: Vec<u8>,
    registered: Option<tokio::io::unix::AsyncFd<OwnedFd>>,
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
        let mut addr: libc::sockaddr_nl = std::mem::zeroed();
        addr.nl_family = libc::AF_NETLINK as u16;
        let mut len = size_of::<libc::sockaddr_nl>() as u32;
        if libc::bind(n, (&raw const addr).cast(), len) != 0
            || libc::getsockname(n, (&raw mut addr).cast(), &raw mut len) != 0
        {
            return Err(Errno::last());
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
    /// Opens in the network namespace of the calling thread, for the `inet` table of this
    /// name. Notices begin here.
    ///
    /// # Errors
    /// When the kernel gives no socket or has no nf_tables.
    pub fn open(table: &str) -> Result<Self, NetlinkError> {
        let fail = |e| NetlinkError::system("open an nf_tables socket", e);
        let (fd, port) = open().map_err(fail)?;
        set_buffers(fd.as_fd(), BUFFERS).map_err(fail)?;
        let mut nft = Self {
            fd,
            port,
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
        let mut msg = Message::new(SUBSYS << 8 | GETGEN, 0);
        msg.raw(&[0, 0, 0, 0]);
        self.generation =
            self.dumps
                .query("read the ruleset generation", msg, |f: &Frame<'_>| {
                    be32(attr(Attrs::after(f.body, 4), 1)?)
                })?;
        Ok(())
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
                    && r.body.first() == Some(&INET)
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
        batch.seal(self.generation);
        loop {
            if self.changed || self.overrun {
                return Ok(Outcome::Changed);
            }
            let generation = self.generation;
            batch.w.0[24..28].copy_from_slice(&generation.to_be_bytes());
            self.send(&batch.w.0)?;
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
        let mut refusal: Option<Outcome> = None;
        self.drain(|r| {
            let index = (r.seq as usize).checked_sub(1);
            let op = index.and_then(|i| batch.ops.get(i)).copied();
            if i32::from(r.kind) == libc::NLMSG_ERROR {
                let errno = u32_at(r.body, 0).map_or(libc::EIO, |c| -(c.cast_signed()));
                if errno == 0 {
                    acked = true;
                } else if refusal.is_none() {
                    let words = attr(Attrs::after(r.body, 20), 1).and_then(text);
                    refusal = Some(Outcome::Refused {
                        op,
                        errno: Errno(errno),
                        message: words.map(str::to_owned),
                    });
                }
            } else if r.kind == SUBSYS << 8 | NEWRULE {
                let handle = attr(Attrs::after(r.body, 4), 3).and_then(be64);
                done.handles.extend(op.zip(handle));
            }
        })?;
        Ok(match refusal {
            Some(r) => r,
            None if self.overrun || !acked => Outcome::Unknown,
            None => Outcome::Done(Done {
                changed_since: self.changed,
                ..done
            }),
        })
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
            self.registered =
                Some(tokio::io::unix::AsyncFd::with_interest(fd, interest).map_err(fail)?);
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

/// A chain as the kernel has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChainInfo {
    /// Its name.
    pub name: String,
    /// Set for base chains.
    pub base: Option<BaseSpec>,
}

/// A rule as the kernel has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleInfo {
    /// Its chain.
    pub chain: String,
    /// Its handle, unique in the table.
    pub handle: u64,
    /// What its maker attached.
    pub userdata: Vec<u8>,
}

/// A named set as the kernel has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetInfo {
    /// Its name.
    pub name: String,
    /// Its type.
    pub spec: SetSpec,
    /// Whether it is a map to verdicts.
    pub verdicts: bool,
}

/// A verdict as read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerdictInfo {
    /// `NF_*` or `NFT_*`.
    pub code: i32,
    /// Where a jump or goto leads.
    pub chain: Option<String>,
}

/// An element as the kernel has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ElementInfo {
    /// Its key.
    pub key: Vec<u8>,
    /// Upper ends of an interval concatenation.
    pub key_end: Option<Vec<u8>>,
    /// Marks the end of a plain interval.
    pub interval_end: bool,
    /// Its value in a verdict map.
    pub verdict: Option<VerdictInfo>,
}

/// Reading. Each list is whole as of one moment; two lists may be of two moments, which
/// [`Nft::notices`] tells.
impl Nft {
    fn get(&self, kind: u16, table: bool) -> Message {
        let mut msg = Message::new(SUBSYS << 8 | kind, 0);
        msg.raw(&[INET, 0, 0, 0]);
        if table {
            msg.attr_str(1, &self.table);
        }
        msg
    }

    /// The table's flags (1: dormant); `None` when there is no such table.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn table_flags(&mut self) -> Result<Option<u32>, NetlinkError> {
        let msg = self.get(GETTABLE, true);
        let what = format!("read table inet {}", self.table);
        match self
            .dumps
            .query(what, msg, |f| be32(attr(Attrs::after(f.body, 4), 2)?))
        {
            Ok(flags) => Ok(Some(flags)),
            Err(e) if e.is(Errno::ENOENT) => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// The chains.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn chains(&mut self) -> Result<Vec<ChainInfo>, NetlinkError> {
        let msg = self.get(GETCHAIN, false);
        let table = self.table.clone();
        self.dumps
            .dump(format!("list chains of table inet {table}"), msg, |f| {
                let a = || Attrs::after(f.body, 4);
                if text(attr(a(), 1)?)? != table {
                    return None;
                }
                let name = text(attr(a(), 3)?)?.to_owned();
                let base = attr(a(), 4).and_then(|hook| {
                    Some(BaseSpec {
                        kind: text(attr(a(), 7)?)?.to_owned(),
                        hook: be32(attr(Attrs::nested(hook), 1)?)?,
                        priority: be32(attr(Attrs::nested(hook), 2)?)?.cast_signed(),
                        policy: be32(attr(a(), 5)?)?,
                    })
                });
                Some(ChainInfo { name, base })
            })
    }

    /// The rules of all chains, those of one chain in their order.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn rules(&mut self) -> Result<Vec<RuleInfo>, NetlinkError> {
        let msg = self.get(GETRULE, true);
        let table = self.table.clone();
        self.dumps
            .dump(format!("list rules of table inet {table}"), msg, |f| {
                let a = || Attrs::after(f.body, 4);
                if text(attr(a(), 1)?)? != table {
                    return None;
                }
                Some(RuleInfo {
                    chain: text(attr(a(), 2)?)?.to_owned(),
                    handle: be64(attr(a(), 3)?)?,
                    userdata: attr(a(), 7).unwrap_or_default().to_vec(),
                })
            })
    }

    /// The named sets and maps.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn sets(&mut self) -> Result<Vec<SetInfo>, NetlinkError> {
        let msg = self.get(GETSET, true);
        let table = self.table.clone();
        self.dumps
            .dump(format!("list sets of table inet {table}"), msg, |f| {
                let a = || Attrs::after(f.body, 4);
                if text(attr(a(), 1)?)? != table {
                    return None;
                }
                let flags = attr(a(), 3).and_then(be32).unwrap_or(0);
                if flags & set_flag::ANONYMOUS != 0 {
                    return None;
                }
                let fields = attr(a(), 9)
                    .and_then(|desc| attr(Attrs::nested(desc), 2))
                    .map(|list| {
                        Attrs::nested(list)
                            .filter_map(|(_, e)| be32(attr(Attrs::nested(e), 1)?))
                            .collect()
                    })
                    .unwrap_or_default();
                Some(SetInfo {
                    name: text(attr(a(), 2)?)?.to_owned(),
                    spec: SetSpec {
                        flags,
                        key_type: be32(attr(a(), 4)?)?,
                        key_len: be32(attr(a(), 5)?)?,
                        fields,
                    },
                    verdicts: attr(a(), 6).and_then(be32) == Some(DATA_VERDICT),
                })
            })
    }

    /// The elements of a set.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn elements(&mut self, set: &str) -> Result<Vec<ElementInfo>, NetlinkError> {
        let mut msg = self.get(GETSETELEM, true);
        msg.attr_str(2, set);
        let what = format!("list elements of set {set} of table inet {}", self.table);
        let lists = self.dumps.dump(what, msg, |f| {
            let list = attr(Attrs::after(f.body, 4), 3)?;
            Some(
                Attrs::nested(list)
                    .filter_map(|(_, e)| element(e))
                    .collect::<Vec<_>>(),
            )
        })?;
        Ok(lists.into_iter().flatten().collect())
    }
}

fn element(e: &[u8]) -> Option<ElementInfo> {
    let a = || Attrs::nested(e);
    let data = |v: &[u8]| attr(Attrs::nested(v), 1).map(<[u8]>::to_vec);
    let verdict = attr(a(), 2)
        .and_then(|d| attr(Attrs::nested(d), 2))
        .and_then(|v| {
            Some(VerdictInfo {
                code: be32(attr(Attrs::nested(v), 1)?)?.cast_signed(),
                chain: attr(Attrs::nested(v), 2).and_then(text).map(str::to_owned),
            })
        });
    Some(ElementInfo {
        key: data(attr(a(), 1)?)?,
        key_end: attr(a(), 10).and_then(data),
        interval_end: attr(a(), 3).and_then(be32).is_some_and(|f| f & 1 != 0),
        verdict,
    })
}
