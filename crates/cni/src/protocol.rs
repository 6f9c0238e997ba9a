//! What plugin and agent say to each other: one request and one answer a
//! connection of a unix stream socket, each four bytes of length (big endian) and JSON; the
//! container's namespace travels along as a descriptor, so that both need not
//! see the same file system.

use crate::conf::NetConf;
use crate::error::{CniError, code};
use crate::result::{CniResult, IpConfig, RouteConfig};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recv, recvmsg, sendmsg,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// Larger messages are refused: nobody's configuration is that long.
pub const MAX_MESSAGE: usize = 4 << 20;

/// How long the plugin waits for an answer; a runtime gives up after some minutes.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(90);

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Op {
    /// Wire a container.
    Add,
    /// Take it away again.
    Del,
    /// Compare what is with what was made.
    Check,
    /// Remove what is not in `cni.dev/valid-attachments`.
    Gc,
    /// Would ADD work?
    Status,
    /// Only assign addresses.
    IpamAdd,
    /// Only release them.
    IpamDel,
    /// Are the addresses of `prevResult` still assigned?
    IpamCheck,
    /// The pod ranges of this node, for `usePodCidr`.
    PodCidrs,
}

/// A request.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Request {
    /// What is asked for.
    pub op: Op,
    /// `CNI_CONTAINERID`.
    pub container_id: String,
    /// `CNI_IFNAME`.
    pub ifname: String,
    /// `CNI_NETNS`, for the result; the namespace itself is the descriptor.
    pub netns: String,
    /// `CNI_ARGS`.
    pub args: BTreeMap<String, String>,
    /// The configuration.
    pub conf: NetConf,
    /// What another IPAM plugin gave.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delegated: Option<Delegated>,
}

/// What another IPAM plugin gave.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Delegated {
    /// Addresses.
    pub ips: Vec<IpConfig>,
    /// Routes.
    #[serde(default)]
    pub routes: Vec<RouteConfig>,
}

/// An answer.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    /// ADD and IPAM ADD: what was made.
    Result(CniResult),
    /// It is done, and there is nothing to say.
    Done,
    /// The pod ranges.
    PodCidrs {
        /// The node.
        node: String,
        /// Its ranges.
        cidrs: Vec<String>,
    },
    /// It failed, and nothing was left behind.
    Error(CniError),
}

fn failed(what: &str, e: &io::Error) -> CniError {
    CniError::new(code::TRY_AGAIN, format!("{what}: {e}"))
}

/// Asks the agent at `socket` and waits for the answer.
///
/// # Errors
/// Code 11 with the remedy when nobody listens or the agent goes away in between.
pub fn ask(
    socket: &str,
    request: &Request,
    netns: Option<BorrowedFd<'_>>,
) -> Result<Answer, CniError> {
    let absent = |e: io::Error| {
        CniError::new(code::TRY_AGAIN, format!("cannot reach the node agent at {socket}: {e}"))
            .details("check that `manx node run` (the calico-node pod) is running on this node; the runtime will try again")
    };
    let mut stream = UnixStream::connect(socket).map_err(absent)?;
    stream
        .set_read_timeout(Some(ANSWER_TIMEOUT))
        .map_err(absent)?;
    let body =
        serde_json::to_vec(request).map_err(|e| CniError::new(code::DECODE, e.to_string()))?;
    send(&mut stream, &body, netns)
        .map_err(|e| failed("send the request to the node agent", &e))?;
    let body = read_frame(&mut stream).map_err(|e| failed("the node agent did not answer", &e))?;
    serde_json::from_slice(&body).map_err(|e| {
        CniError::new(
            code::DECODE,
            format!("the node agent's answer does not parse: {e}"),
        )
        .details("plugin and agent are of different versions")
    })
}

/// Sends one message, with a descriptor where there is one.
///
/// # Errors
/// As the socket fails.
pub fn send(stream: &mut UnixStream, body: &[u8], fd: Option<BorrowedFd<'_>>) -> io::Result<()> {
    let length =
        u32::try_from(body.len()).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let fds: Vec<BorrowedFd<'_>> = fd.into_iter().collect();
    if !fds.is_empty() {
        control.push(SendAncillaryMessage::ScmRights(&fds));
    }
    let head = length.to_be_bytes();
    let sent = sendmsg(
        stream.as_fd(),
        &[IoSlice::new(&head)],
        &mut control,
        SendFlags::NOSIGNAL,
    )?;
    if sent != head.len() {
        return Err(io::ErrorKind::WriteZero.into());
    }
    stream.write_all(body)
}

fn read_frame(stream: &mut UnixStream) -> io::Result<Vec<u8>> {
    receive(stream).map(|(body, _)| body)
}

/// Whether a message, or the end, is there to be received. Takes nothing.
///
/// # Errors
/// `WouldBlock` where there is nothing yet; as the socket fails.
pub fn waiting(stream: impl AsFd) -> io::Result<()> {
    let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
    recv(stream, &mut [0u8; 1], flags)?;
    Ok(())
}

/// Receives one message and the descriptor that came with it.
///
/// # Errors
/// As the socket fails; `InvalidData` for a length past [`MAX_MESSAGE`].
pub fn receive(stream: &mut UnixStream) -> io::Result<(Vec<u8>, Option<OwnedFd>)> {
    let mut head = [0; 4];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let got = recvmsg(
        stream.as_fd(),
        &mut [IoSliceMut::new(&mut head)],
        &mut control,
        RecvFlags::CMSG_CLOEXEC,
    )?;
    let mut fd = None;
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(fds) = message {
            fd = fds.into_iter().next().or(fd);
        }
    }
    if got.bytes == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    stream.read_exact(&mut head[got.bytes..])?;
    let length = u32::from_be_bytes(head) as usize;
    if length > MAX_MESSAGE {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("message of {length} bytes"),
        ));
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    Ok((body, fd))
}
