//! Sockets inside other namespaces, and what std and tokio do not offer of them.
//!
//! Promises: a socket is made inside its namespace and stays there, while the caller does
//! not move; all are non-blocking and close on exec.
//!
//! Never: keeps a namespace longer than the socket lives.

use netlink::netns::NetNs;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// A socket on the runtime.
#[derive(Debug)]
pub(super) struct Socket(AsyncFd<OwnedFd>);

/// What came in.
#[derive(Debug)]
pub(super) struct Received {
    /// How many bytes.
    pub len: usize,
    /// From where.
    pub from: Option<IpAddr>,
    /// Hop limit (IPv6, where asked for).
    pub hops: Option<u8>,
}

fn check(n: isize) -> io::Result<usize> {
    usize::try_from(n).map_err(|_| io::Error::last_os_error())
}

/// Makes a socket in `ns` for the family of `addr`.
///
/// # Errors
/// The kernel's refusal.
pub(super) fn open(ns: &NetNs, addr: IpAddr, kind: i32, protocol: i32) -> io::Result<OwnedFd> {
    let domain = if addr.is_ipv4() {
        libc::AF_INET
    } else {
        libc::AF_INET6
    };
    let flags = kind | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    ns.run(|| {
        // SAFETY: plain system call; the descriptor is new and owned by nobody else.
        let fd = unsafe { libc::socket(domain, flags, protocol) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: as above.
        Ok(unsafe { OwnedFd::from_raw_fd(fd) })
    })
    .map_err(io::Error::other)?
}

/// A raw socket address for the kernel.
fn raw(addr: SocketAddr) -> (libc::sockaddr_storage, libc::socklen_t) {
    // SAFETY: all-zero is a valid sockaddr_storage; it is larger and more aligned than either.
    unsafe {
        let mut s: libc::sockaddr_storage = std::mem::zeroed();
        match addr {
            SocketAddr::V4(a) => {
                let p = (&raw mut s).cast::<libc::sockaddr_in>();
                (*p).sin_family = libc::AF_INET as u16;
                (*p).sin_port = a.port().to_be();
                (*p).sin_addr.s_addr = u32::from(*a.ip()).to_be();
                (s, size_of::<libc::sockaddr_in>() as u32)
            }
            SocketAddr::V6(a) => {
                let p = (&raw mut s).cast::<libc::sockaddr_in6>();
                (*p).sin6_family = libc::AF_INET6 as u16;
                (*p).sin6_port = a.port().to_be();
                (*p).sin6_addr.s6_addr = a.ip().octets();
                (s, size_of::<libc::sockaddr_in6>() as u32)
            }
        }
    }
}

fn address(s: &libc::sockaddr_storage) -> Option<IpAddr> {
    // SAFETY: the family says which of the two it is.
    unsafe {
        match i32::from(s.ss_family) {
            libc::AF_INET => {
                let p = (&raw const *s).cast::<libc::sockaddr_in>();
                Some(IpAddr::from(
                    u32::from_be((*p).sin_addr.s_addr).to_be_bytes(),
                ))
            }
            libc::AF_INET6 => {
                let p = (&raw const *s).cast::<libc::sockaddr_in6>();
                Some(IpAddr::from((*p).sin6_addr.s6_addr))
            }
            _ => None,
        }
    }
}

/// Binds.
///
/// # Errors
/// The kernel's refusal.
pub(super) fn bind(fd: &OwnedFd, addr: SocketAddr) -> io::Result<()> {
    let (s, len) = raw(addr);
    // SAFETY: s is valid for len bytes.
    check(unsafe { libc::bind(fd.as_raw_fd(), (&raw const s).cast(), len) } as isize).map(drop)
}

/// Sets an integer option.
///
/// # Errors
/// The kernel's refusal.
pub(super) fn set(fd: &OwnedFd, level: i32, option: i32, value: i32) -> io::Result<()> {
    // SAFETY: value is valid for four bytes.
    let done =
        unsafe { libc::setsockopt(fd.as_raw_fd(), level, option, (&raw const value).cast(), 4) };
    check(done as isize).map(drop)
}

/// Connects; for streams `EINPROGRESS` is not an error.
///
/// # Errors
/// The kernel's refusal.
pub(super) fn connect(fd: &OwnedFd, addr: SocketAddr) -> io::Result<()> {
    let (s, len) = raw(addr);
    // SAFETY: s is valid for len bytes.
    match check(unsafe { libc::connect(fd.as_raw_fd(), (&raw const s).cast(), len) } as isize) {
        Err(e) if e.raw_os_error() != Some(libc::EINPROGRESS) => Err(e),
        _ => Ok(()),
    }
}

impl Socket {
    /// Takes a socket into the runtime; call within it.
    ///
    /// # Errors
    /// If it cannot be watched.
    pub(super) fn new(fd: OwnedFd) -> io::Result<Self> {
        // SAFETY: an OwnedFd always gives the same descriptor, and keeps it open.
        unsafe { AsyncFd::register(fd) }
            .map(Self)
            .map_err(io::Error::from)
    }

    /// The outcome of a pending connect.
    ///
    /// # Errors
    /// Why there is no connection.
    pub(super) async fn connected(&self) -> io::Result<()> {
        drop(self.0.writable().await?);
        match rustix::net::sockopt::socket_error(self.0.get_ref())? {
            Ok(()) => Ok(()),
            Err(e) => Err(e.into()),
        }
    }

    /// Sends to the connected peer.
    ///
    /// # Errors
    /// Also one that an ICMP message of an earlier packet brought.
    pub(super) async fn send(&self, bytes: &[u8]) -> io::Result<usize> {
        let fd = self.0.get_ref().as_raw_fd();
        self.0
            .async_io(Interest::WRITABLE, |_| {
                // SAFETY: bytes are valid for their length.
                check(unsafe {
                    libc::send(fd, bytes.as_ptr().cast(), bytes.len(), libc::MSG_NOSIGNAL)
                })
            })
            .await
    }

    /// Sends to somebody.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub(super) async fn send_to(&self, bytes: &[u8], to: SocketAddr) -> io::Result<usize> {
        let fd = self.0.get_ref().as_raw_fd();
        let (s, len) = raw(to);
        self.0
            .async_io(Interest::WRITABLE, |_| {
                // SAFETY: both are valid for their lengths.
                check(unsafe {
                    libc::sendto(
                        fd,
                        bytes.as_ptr().cast(),
                        bytes.len(),
                        libc::MSG_NOSIGNAL,
                        (&raw const s).cast(),
                        len,
                    )
                })
            })
            .await
    }

    /// Receives.
    ///
    /// # Errors
    /// Also one that an ICMP message brought.
    pub(super) async fn receive(&self, buffer: &mut [u8]) -> io::Result<Received> {
        let fd = self.0.get_ref().as_raw_fd();
        self.0
            .async_io(Interest::READABLE, |_| receive(fd, buffer))
            .await
    }
}

fn receive(fd: i32, buffer: &mut [u8]) -> io::Result<Received> {
    let mut control = [0u64; 16];
    // SAFETY: all-zero is valid for both; every pointer is valid for the length beside it.
    unsafe {
        let mut from: libc::sockaddr_storage = std::mem::zeroed();
        let mut message: libc::msghdr = std::mem::zeroed();
        let mut part = libc::iovec {
            iov_base: buffer.as_mut_ptr().cast(),
            iov_len: buffer.len(),
        };
        message.msg_name = (&raw mut from).cast();
        message.msg_namelen = size_of::<libc::sockaddr_storage>() as u32;
        message.msg_iov = &raw mut part;
        message.msg_iovlen = 1;
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = size_of_val(&control);
        let len = check(libc::recvmsg(fd, &raw mut message, 0))?;
        let mut hops = None;
        let mut c = libc::CMSG_FIRSTHDR(&raw const message);
        while !c.is_null() {
            if (*c).cmsg_level == libc::IPPROTO_IPV6 && (*c).cmsg_type == libc::IPV6_HOPLIMIT {
                let value = libc::CMSG_DATA(c).cast::<i32>().read_unaligned();
                hops = u8::try_from(value).ok();
            }
            c = libc::CMSG_NXTHDR(&raw const message, c);
        }
        let from = if message.msg_namelen > 0 {
            address(&from)
        } else {
            None
        };
        Ok(Received { len, from, hops })
    }
}
