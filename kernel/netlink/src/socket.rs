//! Netlink sockets: requests that block for the kernel's verdict, and notifications.
//!
//! Promises: each message of a batch gets its own verdict; a dump is complete, or retried,
//! or an error; a notification socket that overran says so.
//!
//! Never: moves the calling thread to another namespace.

use crate::netns::NetNs;
use crate::wire::{Attrs, Frame, Frames, Message, add_flags, i32_at, text};
use crate::{Cause, Errno, NetlinkError};
use std::fmt::Display;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::Instant;
use tokio::io::unix::AsyncFd;

/// A netlink family, `netlink(7)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// Links, addresses, neighbours, routes.
    Route,
    /// nf_tables, conntrack, nflog.
    Netfilter,
    /// WireGuard and other generic families.
    Generic,
}

impl Protocol {
    const fn number(self) -> i32 {
        match self {
            Self::Route => libc::NETLINK_ROUTE,
            Self::Netfilter => libc::NETLINK_NETFILTER,
            Self::Generic => libc::NETLINK_GENERIC,
        }
    }
}

/// Wanted socket buffer sizes in bytes; `None` leaves the default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Buffers {
    /// Largest request: one nf_tables transaction is one datagram.
    pub send: Option<usize>,
    /// What may wait unread: acks of a batch, or notifications.
    pub receive: Option<usize>,
}

impl Buffers {
    /// For transactions of any size: 64 MiB out, 8 MiB in.
    pub const TRANSACTION: Self = Self {
        send: Some(64 << 20),
        receive: Some(8 << 20),
    };
    /// For notifications: 8 MiB in.
    pub const EVENTS: Self = Self {
        send: None,
        receive: Some(8 << 20),
    };
}

/// Sets buffer sizes, beyond `net.core.{r,w}mem_max` where privileged in the initial user
/// namespace (`SO_*BUFFORCE`), else up to those limits. Returns what the kernel granted.
///
/// # Errors
/// If the descriptor is no socket.
pub fn set_buffers(fd: BorrowedFd<'_>, want: Buffers) -> Result<Buffers, Errno> {
    let one = |size: Option<usize>, force: i32, plain: i32| -> Result<Option<usize>, Errno> {
        let Some(size) = size else { return Ok(None) };
        let size = i32::try_from(size).unwrap_or(i32::MAX / 2);
        if set_option(fd, libc::SOL_SOCKET, force, size).is_err() {
            set_option(fd, libc::SOL_SOCKET, plain, size)?;
        }
        get_option(fd, libc::SOL_SOCKET, plain).map(|n| usize::try_from(n / 2).ok())
    };
    Ok(Buffers {
        send: one(want.send, libc::SO_SNDBUFFORCE, libc::SO_SNDBUF)?,
        receive: one(want.receive, libc::SO_RCVBUFFORCE, libc::SO_RCVBUF)?,
    })
}

fn set_option(fd: BorrowedFd<'_>, level: i32, name: i32, value: i32) -> Result<(), Errno> {
    // SAFETY: `value` lives through the call and its size is given.
    let rc = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            level,
            name,
            (&raw const value).cast(),
            size_of::<i32>() as u32,
        )
    };
    if rc == 0 { Ok(()) } else { Err(Errno::last()) }
}

fn get_option(fd: BorrowedFd<'_>, level: i32, name: i32) -> Result<i32, Errno> {
    let mut value = 0i32;
    let mut len = size_of::<i32>() as u32;
    // SAFETY: `value` and `len` are valid for writes of the given size.
    let rc = unsafe {
        libc::getsockopt(
            fd.as_raw_fd(),
            level,
            name,
            (&raw mut value).cast(),
            &raw mut len,
        )
    };
    if rc == 0 {
        Ok(value)
    } else {
        Err(Errno::last())
    }
}

fn open_fd(protocol: Protocol, extra: i32) -> Result<OwnedFd, NetlinkError> {
    let fail = |e| NetlinkError::system(format_args!("open a {protocol:?} netlink socket"), e);
    // SAFETY: a plain socket(2); the descriptor is owned from here on.
    let fd = unsafe {
        let n = libc::socket(
            libc::AF_NETLINK,
            libc::SOCK_RAW | libc::SOCK_CLOEXEC | extra,
            protocol.number(),
        );
        if n < 0 {
            return Err(fail(Errno::last()));
        }
        OwnedFd::from_raw_fd(n)
    };
    let b = fd.as_fd();
    set_option(b, libc::SOL_NETLINK, libc::NETLINK_EXT_ACK, 1).map_err(fail)?;
    set_option(b, libc::SOL_NETLINK, libc::NETLINK_CAP_ACK, 1).map_err(fail)?;
    if protocol == Protocol::Route {
        // Since 4.20; without it the kernel ignores dump filters and the readers' own
        // filters do the same work.
        let _ = set_option(b, libc::SOL_NETLINK, libc::NETLINK_GET_STRICT_CHK, 1);
    }
    Ok(fd)
}

fn bind(fd: BorrowedFd<'_>) -> Result<(), Errno> {
    // SAFETY: sockaddr_nl is plain data; zero is a value of each field, and port 0 lets the
    // kernel choose. It lives through the call.
    let rc = unsafe {
        let mut to: libc::sockaddr_nl = std::mem::zeroed();
        to.nl_family = libc::AF_NETLINK as u16;
        libc::bind(
            fd.as_raw_fd(),
            (&raw const to).cast(),
            size_of::<libc::sockaddr_nl>() as u32,
        )
    };
    if rc == 0 { Ok(()) } else { Err(Errno::last()) }
}

fn port(fd: BorrowedFd<'_>) -> Result<u32, Errno> {
    // SAFETY: sockaddr_nl is plain data; it and `len` are valid for writes of the size given.
    unsafe {
        let mut name: libc::sockaddr_nl = std::mem::zeroed();
        let mut len = size_of::<libc::sockaddr_nl>() as u32;
        match libc::getsockname(fd.as_raw_fd(), (&raw mut name).cast(), &raw mut len) {
            0 => Ok(name.nl_pid),
            _ => Err(Errno::last()),
        }
    }
}

/// Drops what is notified because of requests from `port`, in the kernel, before it takes room in
/// the queue: a classic BPF program over the header (`nlmsg_pid`, RFC 3549 section 2.3.2).
fn drop_echoes(fd: BorrowedFd<'_>, port: u32) -> Result<(), Errno> {
    const PID_AT: u32 = 12;
    const WORD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    let step = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    // Loads take network byte order, the header has the host's.
    let port = u32::from_be_bytes(port.to_ne_bytes());
    let mut steps = [
        step(WORD, 0, 0, PID_AT),
        step(EQUAL, 0, 1, port),
        step(RETURN, 0, 0, 0),
        step(RETURN, 0, 0, u32::MAX),
    ];
    let program = libc::sock_fprog {
        len: steps.len() as u16,
        filter: steps.as_mut_ptr(),
    };
    // SAFETY: the program and its steps live through the call, which copies them.
    let rc = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            (&raw const program).cast(),
            size_of::<libc::sock_fprog>() as u32,
        )
    };
    if rc == 0 { Ok(()) } else { Err(Errno::last()) }
}

/// A socket for requests. Calls block while the kernel works, which is microseconds, or
/// as long as somebody else holds the RTNL lock.
#[derive(Debug)]
pub struct Socket {
    fd: OwnedFd,
    seq: u32,
    buf: Vec<u8>,
    /// The datagram under construction; kept for its memory.
    datagram: Vec<u8>,
}

/// What comes of a table that is read.
#[derive(Debug, Clone, Copy)]
pub enum Seen<'a> {
    /// Reading begins, or begins anew.
    Begin,
    /// An entry.
    Entry(&'a Frame<'a>),
}

/// Messages per datagram: their acks must fit the default receive buffer.
const CHUNK: usize = 128;
const DUMP_TRIES: u32 = 10;

impl Socket {
    /// Opens in the network namespace of the calling thread.
    ///
    /// # Errors
    /// If the kernel gives no socket.
    pub fn open(protocol: Protocol) -> Result<Self, NetlinkError> {
        let fd = open_fd(protocol, 0)?;
        // A guard, not a rhythm: the kernel answers before sendmsg returns.
        let limit = libc::timeval {
            tv_sec: 30,
            tv_usec: 0,
        };
        // SAFETY: `limit` is a timeval of the size given.
        let rc = unsafe {
            libc::setsockopt(
                fd.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_RCVTIMEO,
                (&raw const limit).cast(),
                size_of::<libc::timeval>() as u32,
            )
        };
        if rc != 0 {
            return Err(NetlinkError::system(
                "limit the wait of a netlink socket",
                Errno::last(),
            ));
        }
        let _ = set_buffers(
            fd.as_fd(),
            Buffers {
                send: None,
                receive: Some(1 << 20),
            },
        );
        // The kernel would choose a port with the first request; who wants to know it earlier can.
        bind(fd.as_fd()).map_err(|e| NetlinkError::system("bind a netlink socket", e))?;
        Ok(Self {
            fd,
            seq: 0,
            buf: vec![0; 1 << 16],
            datagram: Vec::new(),
        })
    }

    /// The number by which the kernel knows this socket (`nl_pid`): what changes because of its
    /// requests is notified with it.
    ///
    /// # Errors
    /// If the kernel does not say.
    pub fn port(&self) -> Result<u32, NetlinkError> {
        port(self.fd.as_fd()).map_err(|e| NetlinkError::system("name a netlink socket", e))
    }

    /// Opens in `ns`; the calling thread stays where it is.
    ///
    /// # Errors
    /// If the namespace cannot be entered or gives no socket.
    pub fn open_in(protocol: Protocol, ns: &NetNs) -> Result<Self, NetlinkError> {
        ns.run(move || Self::open(protocol))?
    }

    /// Sends one message and waits for its acknowledgement.
    ///
    /// # Errors
    /// The kernel's refusal, under the name `operation`.
    pub fn request(&mut self, operation: impl Display, msg: Message) -> Result<(), NetlinkError> {
        match self.batch(vec![msg]).pop() {
            Some(Some(cause)) => Err(NetlinkError {
                operation: operation.to_string(),
                cause,
            }),
            _ => Ok(()),
        }
    }

    /// Sends messages in order, many to a datagram, and gives each its verdict (`None` is
    /// success). A refused message does not stop the ones behind it.
    pub fn batch(&mut self, msgs: Vec<Message>) -> Vec<Option<Cause>> {
        let mut verdicts = vec![None; msgs.len()];
        let mut msgs = msgs.into_iter();
        let mut next = |m: &mut Message| msgs.next().map(|new| *m = new).is_some();
        let refused = |at: usize, cause| verdicts[at] = Some(cause);
        self.stream(&mut next, refused);
        verdicts
    }

    /// The same for any number of messages that are made one after the other in the same memory:
    /// `next` begins each ([`Message::begin`]), or says `false` when there are no more. `refused` is
    /// told the place of each that failed, and why.
    pub fn stream(
        &mut self,
        mut next: impl FnMut(&mut Message) -> bool,
        mut refused: impl FnMut(usize, Cause),
    ) {
        let mut message = Message::new(0, 0);
        let mut verdicts: Vec<Option<Cause>> = Vec::with_capacity(CHUNK);
        let mut done = 0;
        let mut more = true;
        while more {
            let first = self.seq.wrapping_add(1);
            let mut datagram = std::mem::take(&mut self.datagram);
            datagram.clear();
            let (mut n, mut last) = (0, 0);
            while n < CHUNK && datagram.len() < (64 << 10) {
                more = next(&mut message);
                if !more {
                    break;
                }
                self.seq = self.seq.wrapping_add(1);
                message.set_seq(self.seq);
                message.add_flags(libc::NLM_F_REQUEST as u16);
                n += 1;
                last = datagram.len();
                datagram.extend_from_slice(message.bytes());
            }
            if n == 0 {
                self.datagram = datagram;
                return;
            }
            // Refusals are always reported; one ack behind the last proves the rest.
            add_flags(&mut datagram[last..], libc::NLM_F_ACK as u16);
            verdicts.clear();
            verdicts.resize(n, None);
            let failed = self.exchange(&datagram, first, &mut verdicts).err();
            self.datagram = datagram;
            for (i, v) in verdicts.drain(..).enumerate() {
                // What got its answer keeps it; for the rest the failure is the answer.
                if let Some(cause) = v.or_else(|| failed.clone()) {
                    refused(done + i, cause);
                }
            }
            done += n;
        }
    }

    fn exchange(
        &mut self,
        datagram: &[u8],
        first: u32,
        verdicts: &mut [Option<Cause>],
    ) -> Result<(), Cause> {
        self.send(datagram).map_err(Cause::System)?;
        loop {
            let n = self.receive().map_err(Cause::System)?;
            for frame in Frames::new(&self.buf[..n]) {
                let at = frame.seq.wrapping_sub(first) as usize;
                if at >= verdicts.len() || i32::from(frame.kind) != libc::NLMSG_ERROR {
                    continue;
                }
                verdicts[at] = verdict(&frame).ok_or(Cause::Malformed)?.err();
                if at + 1 == verdicts.len() {
                    return Ok(());
                }
            }
        }
    }

    /// Asks for one object and reads the first message of the answer.
    ///
    /// # Errors
    /// The kernel's refusal, or `Malformed` if `parse` cannot read the answer.
    pub fn query<T>(
        &mut self,
        operation: impl Display,
        mut msg: Message,
        mut parse: impl FnMut(&Frame<'_>) -> Option<T>,
    ) -> Result<T, NetlinkError> {
        let fail = |cause| NetlinkError {
            operation: operation.to_string(),
            cause,
        };
        self.seq = self.seq.wrapping_add(1);
        msg.set_seq(self.seq);
        msg.add_flags(libc::NLM_F_REQUEST as u16);
        self.send(msg.bytes()).map_err(|e| fail(Cause::System(e)))?;
        loop {
            let n = self.receive().map_err(|e| fail(Cause::System(e)))?;
            let answer = Frames::new(&self.buf[..n]).find(|f| f.seq == self.seq);
            let Some(frame) = answer else { continue };
            if i32::from(frame.kind) == libc::NLMSG_ERROR {
                let refused = verdict(&frame).and_then(Result::err);
                return Err(fail(refused.unwrap_or(Cause::Malformed)));
            }
            return parse(&frame).ok_or_else(|| fail(Cause::Malformed));
        }
    }

    /// Reads a whole table. `parse` gives `None` for entries that are not wanted; it may see
    /// an entry again, when the table changed under the dump and reading starts over.
    ///
    /// # Errors
    /// The kernel's refusal, or `Unsteady` when the table never held still.
    pub fn dump<T>(
        &mut self,
        operation: impl Display,
        msg: Message,
        mut parse: impl FnMut(&Frame<'_>) -> Option<T>,
    ) -> Result<Vec<T>, NetlinkError> {
        let mut all = Vec::new();
        self.visit(operation, msg, |seen| match seen {
            Seen::Begin => all.clear(),
            Seen::Entry(frame) => all.extend(parse(frame)),
        })?;
        Ok(all)
    }

    /// The same without holding the table: each entry is handed on as it comes, after
    /// [`Seen::Begin`]; another `Begin` says that what came before it does not count.
    ///
    /// # Errors
    /// As [`Socket::dump`]; then nothing that was handed on counts.
    pub fn visit(
        &mut self,
        operation: impl Display,
        mut msg: Message,
        mut each: impl FnMut(Seen<'_>),
    ) -> Result<(), NetlinkError> {
        msg.add_flags((libc::NLM_F_REQUEST | libc::NLM_F_DUMP) as u16);
        for _ in 0..DUMP_TRIES {
            self.seq = self.seq.wrapping_add(1);
            msg.set_seq(self.seq);
            each(Seen::Begin);
            match self.visit_once(&msg, &mut each) {
                Ok(true) => return Ok(()),
                Ok(false) => {}
                Err(cause) => {
                    return Err(NetlinkError {
                        operation: operation.to_string(),
                        cause,
                    });
                }
            }
        }
        Err(NetlinkError {
            operation: operation.to_string(),
            cause: Cause::Unsteady,
        })
    }

    /// Whether the table held still.
    fn visit_once(
        &mut self,
        msg: &Message,
        each: &mut impl FnMut(Seen<'_>),
    ) -> Result<bool, Cause> {
        self.send(msg.bytes()).map_err(Cause::System)?;
        let mut steady = true;
        loop {
            let n = self.receive().map_err(Cause::System)?;
            for frame in Frames::new(&self.buf[..n]).filter(|f| f.seq == self.seq) {
                steady &= frame.flags & libc::NLM_F_DUMP_INTR as u16 == 0;
                match i32::from(frame.kind) {
                    libc::NLMSG_DONE => {
                        // A dump that failed half way ends with its errno.
                        return match i32_at(frame.body, 0) {
                            Some(e) if e < 0 => Err(Cause::Refused {
                                errno: Errno(-e),
                                message: None,
                            }),
                            _ => Ok(steady),
                        };
                    }
                    libc::NLMSG_ERROR => {
                        return verdict(&frame).ok_or(Cause::Malformed)?.map(|()| true);
                    }
                    _ => each(Seen::Entry(&frame)),
                }
            }
        }
    }

    fn send(&self, bytes: &[u8]) -> Result<(), Errno> {
        send(self.fd.as_fd(), bytes)
    }

    fn receive(&mut self) -> Result<usize, Errno> {
        loop {
            match receive(self.fd.as_fd(), &mut self.buf, 0) {
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return Err(Errno::ETIMEDOUT),
                other => return other,
            }
        }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// One datagram to the kernel.
fn send(fd: BorrowedFd<'_>, bytes: &[u8]) -> Result<(), Errno> {
    loop {
        // SAFETY: the slice is valid for its length. An unconnected netlink socket
        // sends to port 0, the kernel.
        let n = unsafe {
            libc::send(
                fd.as_raw_fd(),
                bytes.as_ptr().cast(),
                bytes.len(),
                libc::MSG_NOSIGNAL,
            )
        };
        match n {
            0.. => return Ok(()),
            _ if Errno::last() == Errno::EINTR => {}
            _ => return Err(Errno::last()),
        }
    }
}

/// One datagram into `buf`. Dumps fill at most 32 KiB and notifications a page or two, so
/// 64 KiB truncates neither; if it ever does, that is an error and not a short table.
fn receive(fd: BorrowedFd<'_>, buf: &mut [u8], flags: i32) -> Result<usize, Errno> {
    // SAFETY: `buf` is valid for writes of its length.
    let n = unsafe {
        libc::recv(
            fd.as_raw_fd(),
            buf.as_mut_ptr().cast(),
            buf.len(),
            flags | libc::MSG_TRUNC,
        )
    };
    match usize::try_from(n) {
        Err(_) => Err(Errno::last()),
        Ok(n) if n > buf.len() => Err(Errno::EMSGSIZE),
        Ok(n) => Ok(n),
    }
}

/// What an `NLMSG_ERROR` says: `Ok` is an acknowledgement. `None` if it is cut short.
fn verdict(frame: &Frame<'_>) -> Option<Result<(), Cause>> {
    let code = i32_at(frame.body, 0)?;
    if code == 0 {
        return Some(Ok(()));
    }
    // After the code: the request's header, then attributes, because of NETLINK_CAP_ACK.
    let message = Attrs::after(frame.body, 20)
        .find(|(kind, _)| *kind == NLMSGERR_ATTR_MSG)
        .and_then(|(_, v)| text(v))
        .map(str::to_owned);
    Some(Err(Cause::Refused {
        errno: Errno(code.saturating_neg()),
        message,
    }))
}

const NLMSGERR_ATTR_MSG: u16 = 1;

/// What reading notifications gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Received {
    /// At least one datagram was handed over.
    Some,
    /// Nothing waits.
    Nothing,
    /// The buffer overran and notifications are lost: read the tables again. What waited has
    /// been thrown away, and everything from here on is seen.
    Overrun,
}

/// A socket for notifications of some multicast groups.
#[derive(Debug)]
pub struct EventSocket {
    fd: OwnedFd,
    /// Registered with the runtime on the first `readable`, so that threads without one can
    /// use the socket too.
    registered: Option<AsyncFd<OwnedFd>>,
    buf: Vec<u8>,
}

impl EventSocket {
    /// Opens in the calling thread's namespace and joins `groups` (`RTNLGRP_*`). Everything
    /// that changes after this returns will be seen, so subscribe first and read second.
    ///
    /// # Errors
    /// If the kernel gives no socket or knows no such group.
    pub fn open(protocol: Protocol, groups: &[u32]) -> Result<Self, NetlinkError> {
        let fd = open_fd(protocol, libc::SOCK_NONBLOCK)?;
        let _ = set_buffers(fd.as_fd(), Buffers::EVENTS);
        // A socket without a port of its own gets no notifications: the kernel takes it for
        // the sender, port 0.
        bind(fd.as_fd()).map_err(|e| NetlinkError::system("bind a netlink socket", e))?;
        for &g in groups {
            set_option(
                fd.as_fd(),
                libc::SOL_NETLINK,
                libc::NETLINK_ADD_MEMBERSHIP,
                g as i32,
            )
            .map_err(|e| NetlinkError::system(format_args!("join netlink group {g}"), e))?;
        }
        Ok(Self {
            fd,
            registered: None,
            buf: vec![0; 1 << 16],
        })
    }

    /// Sees no more what happens because of requests of `writer`: who writes knows it already, and
    /// a large change of one's own does not overrun the queue. What waits stays. One writer at most:
    /// a second takes the place of the first.
    ///
    /// # Errors
    /// If the kernel takes no filter.
    pub fn ignore(&mut self, writer: &Socket) -> Result<(), NetlinkError> {
        drop_echoes(self.fd.as_fd(), writer.port()?)
            .map_err(|e| NetlinkError::system("filter netlink notifications", e))
    }

    /// Opens in `ns`; the calling thread stays where it is.
    ///
    /// # Errors
    /// As [`EventSocket::open`], or if the namespace cannot be entered.
    pub fn open_in(protocol: Protocol, groups: &[u32], ns: &NetNs) -> Result<Self, NetlinkError> {
        ns.run(|| Self::open(protocol, groups))?
    }

    /// Sends one message and takes its acknowledgement; what is bound by it is bound to this
    /// socket. Notifications that wait already are thrown away, so ask before you read.
    ///
    /// # Errors
    /// The kernel's refusal, under the name `operation`.
    pub fn request(
        &mut self,
        operation: impl Display,
        mut msg: Message,
    ) -> Result<(), NetlinkError> {
        /// Notifications have 0.
        const SEQ: u32 = 1;
        msg.set_seq(SEQ);
        msg.add_flags((libc::NLM_F_REQUEST | libc::NLM_F_ACK) as u16);
        let fail = |cause| NetlinkError {
            operation: operation.to_string(),
            cause,
        };
        send(self.fd.as_fd(), msg.bytes()).map_err(|e| fail(Cause::System(e)))?;
        loop {
            // The kernel has answered by now; that nothing waits means that it did not.
            let n = match receive(self.fd.as_fd(), &mut self.buf, libc::MSG_DONTWAIT) {
                Ok(n) => n,
                Err(Errno::EINTR) => continue,
                Err(e) => return Err(fail(Cause::System(e))),
            };
            let answer = Frames::new(&self.buf[..n])
                .find(|f| f.seq == SEQ && i32::from(f.kind) == libc::NLMSG_ERROR);
            if let Some(frame) = answer {
                return verdict(&frame)
                    .ok_or_else(|| fail(Cause::Malformed))?
                    .map_err(fail);
            }
        }
    }

    /// Hands over what waits, without waiting: one datagram per call.
    ///
    /// # Errors
    /// If the socket fails in another way than by overrun.
    pub fn try_next(&mut self, mut each: impl FnMut(&Frame<'_>)) -> Result<Received, NetlinkError> {
        match receive(self.fd.as_fd(), &mut self.buf, libc::MSG_DONTWAIT) {
            Ok(n) => {
                Frames::new(&self.buf[..n]).for_each(|f| each(&f));
                Ok(Received::Some)
            }
            Err(Errno::EAGAIN | Errno::EINTR) => Ok(Received::Nothing),
            Err(Errno::ENOBUFS) => self.drain().map(|()| Received::Overrun),
            Err(e) => Err(NetlinkError::system("read netlink notifications", e)),
        }
    }

    /// Throws away what waits. After an overrun the kernel drops every further notification,
    /// and without another error, until the queue has been empty once: tables read before
    /// that moment could be out of date for good.
    fn drain(&mut self) -> Result<(), NetlinkError> {
        loop {
            match receive(self.fd.as_fd(), &mut self.buf, libc::MSG_DONTWAIT) {
                Ok(_) | Err(Errno::ENOBUFS | Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return Ok(()),
                Err(e) => return Err(NetlinkError::system("drain netlink notifications", e)),
            }
        }
    }

    /// Waits until something can be read, for tasks of a tokio runtime (any flavour, with
    /// I/O enabled). Cancel-safe.
    ///
    /// # Errors
    /// If the descriptor cannot be registered.
    pub async fn readable(&mut self) -> Result<(), NetlinkError> {
        let fail = |e: io::Error| NetlinkError::system("wait for netlink notifications", e);
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
        loop {
            let mut guard = registered.readable().await.map_err(fail)?;
            // Readiness is edge-triggered: look before believing that an old edge still holds.
            if poll(self.fd.as_fd(), 0) {
                return Ok(());
            }
            guard.clear_ready();
        }
    }

    /// Waits until something can be read or the deadline passes, for plain threads.
    /// True if something waits.
    pub fn wait(&self, deadline: Instant) -> bool {
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let ms = i32::try_from(left.as_millis()).unwrap_or(i32::MAX);
            if poll(self.fd.as_fd(), ms) {
                return true;
            }
            if left.as_millis() == 0 {
                return false;
            }
        }
    }
}

fn poll(fd: BorrowedFd<'_>, ms: i32) -> bool {
    let mut p = libc::pollfd {
        fd: fd.as_raw_fd(),
        events: libc::POLLIN,
        revents: 0,
    };
    // SAFETY: one pollfd, valid for the call.
    unsafe { libc::poll(&raw mut p, 1, ms) == 1 }
}
