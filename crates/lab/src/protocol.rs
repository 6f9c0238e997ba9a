//! What is said on the control socket: one JSON line asks, one or more answer.
//!
//! Promises: both sides of one binary, so there are no versions; the directory's mode is the
//! only protection, and enough.
//!
//! Never: does what it carries.

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};
use scenario::{Check, End, Flow};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::io::{self, BufRead, BufReader, IoSlice, IoSliceMut, Write};
use std::mem::MaybeUninit;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

/// What a caller asks the holder.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Request {
    /// Nodes and pods.
    Status,
    /// Send packets once.
    Probe {
        /// What to where.
        flows: Vec<Flow>,
        /// How long each may take, in milliseconds.
        timeout_ms: u64,
    },
    /// Send packets until each expectation holds or the deadline is over.
    Check {
        /// What is expected.
        checks: Vec<Check>,
        /// In milliseconds.
        deadline_ms: u64,
        /// All nodes enforce what is stored: one silence proves a prohibition.
        settled: bool,
    },
    /// Bring services up to what is stored, and wait until all nodes have a marker.
    Settle {
        /// The range of a pool that was stored last.
        marker: Option<String>,
        /// In milliseconds.
        timeout_ms: u64,
    },
    /// Keep sending and count; stops early when the caller shuts down its side.
    Stream {
        /// What to where.
        flow: Flow,
        /// For how long, in milliseconds.
        for_ms: u64,
        /// Between two packets, in microseconds.
        interval_us: u64,
    },
    /// Run a program; its standard streams come as descriptors.
    Exec {
        /// Where.
        target: End,
        /// Program and arguments, base64.
        argv: Vec<String>,
        /// Environment, base64.
        env: Vec<(String, String)>,
        /// Working directory.
        cwd: String,
    },
    /// What travels on the fabric.
    Capture {
        /// Stop after so many packets.
        count: Option<usize>,
        /// Stop after so many milliseconds.
        for_ms: u64,
    },
    /// The routes of one end.
    Routes(End),
    /// Wait until these pods run or are gone.
    WaitPods {
        /// Which.
        pods: Vec<PodRef>,
        /// In milliseconds.
        timeout_ms: u64,
    },
    /// End the lab.
    Down,
}

/// A pod to wait for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PodRef {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Running with this UID; `None`: gone.
    pub uid: Option<String>,
}

/// What the holder answers.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Response {
    /// To `Status`.
    Status(Status),
    /// To `Probe`, in the order asked.
    Probes(Vec<Outcome>),
    /// To `Check`, in the order asked.
    Checks(Vec<Checked>),
    /// To `Stream`.
    Stream(StreamReport),
    /// To `Exec`: as a shell counts, 128 + signal.
    Exit(i32),
    /// Text that goes on with further answers.
    Line(String),
    /// To `Capture`: from now on nothing is missed.
    Started,
    /// After the last `Line`.
    Done,
    /// To `WaitPods`: what is not as it was waited for.
    Late(Vec<PodStatus>),
    /// To `Settle`: the nodes that are late.
    Unsettled(Vec<String>),
    /// It cannot be done, and why.
    Error(String),
}

/// How it went.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Checked {
    /// Whether it was as expected in the end.
    pub ok: bool,
    /// The last packet.
    pub outcome: Outcome,
    /// From the start of the check to its result, in microseconds.
    pub micros: u64,
}

/// What became of one packet or connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Verdict {
    /// It got an answer.
    Open,
    /// The port was refused: a reset, or port unreachable.
    Refused,
    /// Somebody on the way said no: the ICMP error.
    Rejected(String),
    /// No answer in time.
    Dropped,
    /// It was not even sent, or the network had no way there.
    Unreachable(String),
    /// The probe itself failed.
    Failed(String),
}

impl Verdict {
    /// One word for a table.
    pub(crate) const fn word(&self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Refused => "refused",
            Self::Rejected(_) => "rejected",
            Self::Dropped => "dropped",
            Self::Unreachable(_) => "unreachable",
            Self::Failed(_) => "failed",
        }
    }
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Rejected(why) | Self::Unreachable(why) | Self::Failed(why) => {
                write!(f, "{} ({why})", self.word())
            }
            _ => f.write_str(self.word()),
        }
    }
}

/// One probe's result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Outcome {
    /// What became of it.
    pub verdict: Verdict,
    /// Where it was sent.
    pub address: Option<IpAddr>,
    /// The sender's address as the receiver saw it.
    pub source: Option<IpAddr>,
    /// TTL or hop limit with which the answer came (ICMP).
    pub ttl: Option<u8>,
    /// From sending to the answer or giving up, in microseconds.
    pub micros: u64,
}

impl Outcome {
    /// A probe that could not be made.
    pub(crate) fn failed(why: impl Into<String>) -> Self {
        Self {
            verdict: Verdict::Failed(why.into()),
            address: None,
            source: None,
            ttl: None,
            micros: 0,
        }
    }
}

/// What a stream lost.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StreamReport {
    /// Packets sent.
    pub sent: u64,
    /// Packets answered.
    pub received: u64,
    /// The longest time without an answer, in microseconds.
    pub longest_gap_us: u64,
}

/// A lab's nodes and pods.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Status {
    /// Its name.
    pub name: String,
    /// `flat` or `routed`.
    pub topology: String,
    /// Nodes in order.
    pub nodes: Vec<NodeStatus>,
    /// Outside hosts and their addresses.
    pub hosts: Vec<(String, Vec<IpAddr>)>,
    /// Pods by namespace and name.
    pub pods: Vec<PodStatus>,
    /// BGP sessions.
    pub sessions: Vec<SessionStatus>,
    /// What is less than it should be.
    pub warnings: Vec<String>,
}

/// A BGP session, as one of its ends sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SessionStatus {
    /// Whose word it is: a node's name, or `router`.
    pub speaker: String,
    /// The other end; empty if it is none of the lab's.
    pub peer: String,
    /// The address of the other end.
    pub address: IpAddr,
    /// BGP's state (RFC 4271, section 8.2.2): `Established` carries routes.
    pub state: String,
    /// The last error, if there was one.
    pub reason: String,
    /// Routes that the other end has announced.
    pub routes: u32,
}

impl SessionStatus {
    /// Whether it carries routes.
    pub(crate) fn is_up(&self) -> bool {
        self.state == "Established"
    }
}

/// A node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct NodeStatus {
    /// Its name.
    pub name: String,
    /// Its addresses with prefix lengths.
    pub addresses: Vec<String>,
    /// The agent says that it is ready.
    pub ready: bool,
    /// Why it is not.
    pub reason: String,
    /// How often the agent was started again.
    pub restarts: u32,
    /// The agent's log.
    pub log: String,
}

/// A pod.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PodStatus {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its node; empty until it has one.
    pub node: String,
    /// Its addresses.
    pub ips: Vec<IpAddr>,
    /// `Running`, `Pending` or `Terminating`.
    pub phase: String,
    /// Why it is not running: reason and message.
    pub reason: String,
}

/// A connection to a lab's holder.
pub(crate) struct Connection {
    stream: BufReader<UnixStream>,
}

impl Connection {
    /// Connects.
    ///
    /// # Errors
    /// If nobody listens.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        Ok(Self::over(UnixStream::connect(path)?))
    }

    /// Over a connected stream.
    pub(crate) fn over(stream: UnixStream) -> Self {
        Self {
            stream: BufReader::new(stream),
        }
    }

    /// The socket.
    pub(crate) fn socket(&self) -> &UnixStream {
        self.stream.get_ref()
    }

    /// Sends one line.
    ///
    /// # Errors
    /// If the other side is gone.
    pub(crate) fn send(&self, message: &impl Serialize) -> io::Result<()> {
        self.send_with(message, &[])
    }

    /// Sends one line, with descriptors.
    ///
    /// # Errors
    /// If the other side is gone.
    pub(crate) fn send_with(
        &self,
        message: &impl Serialize,
        fds: &[BorrowedFd<'_>],
    ) -> io::Result<()> {
        let mut line = serde_json::to_vec(message)?;
        line.push(b'\n');
        let mut rest = line.as_slice();
        if !fds.is_empty() {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            control.push(SendAncillaryMessage::ScmRights(fds));
            let flags = SendFlags::NOSIGNAL;
            let n =
                rustix::net::sendmsg(self.socket(), &[IoSlice::new(rest)], &mut control, flags)?;
            rest = &rest[n..];
        }
        self.socket().write_all(rest)
    }

    /// Reads one line; `None` at the end.
    ///
    /// # Errors
    /// If it is not what was expected, or the other side is gone.
    pub(crate) fn receive<T: DeserializeOwned>(&mut self) -> io::Result<Option<T>> {
        let mut line = Vec::new();
        if self.stream.read_until(b'\n', &mut line)? == 0 {
            return Ok(None);
        }
        serde_json::from_slice(&line)
            .map(Some)
            .map_err(io::Error::from)
    }
}

/// Reads the first line of a connection and the descriptors that came with it.
///
/// # Errors
/// If the other side goes away first.
pub(crate) fn receive_with_fds(stream: &UnixStream) -> io::Result<(Vec<u8>, Vec<OwnedFd>)> {
    let mut line = Vec::new();
    let mut fds = Vec::new();
    let mut buffer = vec![0; 64 << 10];
    loop {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let got = rustix::net::recvmsg(
            stream.as_fd(),
            &mut [IoSliceMut::new(&mut buffer)],
            &mut control,
            RecvFlags::CMSG_CLOEXEC,
        )?;
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(received) = message {
                fds.extend(received);
            }
        }
        if got.bytes == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        line.extend_from_slice(&buffer[..got.bytes]);
        if line.ends_with(b"\n") {
            return Ok((line, fds));
        }
    }
}
