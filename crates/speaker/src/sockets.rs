//! Sockets as BGP wants them: keys (RFC 2385), TTL security (RFC 5082), one family each.
//!
//! Promises: a socket that cannot be protected as asked is not used.

use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, listen, socket_with, sockopt};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use thiserror::Error;

/// So many connections may wait to be accepted.
const BACKLOG: i32 = 1024;
/// The longest key that the kernel takes (`TCP_MD5SIG_MAXKEYLEN`).
pub(crate) const MAX_KEY: usize = 80;

/// A socket cannot be had as it is needed.
#[derive(Debug, Error)]
#[error("{operation} {at}: {cause}")]
pub struct SocketError {
    /// What was tried.
    pub operation: &'static str,
    /// For which address.
    pub at: String,
    /// What the kernel says.
    #[source]
    pub cause: io::Error,
}

pub(crate) fn failed(
    operation: &'static str,
    at: impl ToString,
) -> impl FnOnce(rustix::io::Errno) -> SocketError {
    let at = at.to_string();
    move |e| SocketError {
        operation,
        at,
        cause: e.into(),
    }
}

fn tcp(addr: IpAddr) -> rustix::io::Result<OwnedFd> {
    let family = match addr {
        IpAddr::V4(_) => AddressFamily::INET,
        IpAddr::V6(_) => AddressFamily::INET6,
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    socket_with(family, SocketType::STREAM, flags, None)
}

/// Lets a socket be bound to an address that is none of an interface's.
pub(crate) fn bind_early(fd: &OwnedFd, addr: IpAddr) -> rustix::io::Result<()> {
    match addr {
        IpAddr::V4(_) => sockopt::set_ip_freebind(fd, true),
        IpAddr::V6(_) => sockopt::set_ipv6_freebind(fd, true),
    }
}

/// A listener on an address and port, of its family only; `early` if the address may not be there yet.
///
/// # Errors
/// As the kernel says; in use, for one.
pub(crate) fn listener(at: SocketAddr, early: bool) -> Result<OwnedFd, SocketError> {
    let fd = tcp(at.ip()).map_err(failed("open a listener on", at))?;
    sockopt::set_socket_reuseaddr(&fd, true).map_err(failed("set up a listener on", at))?;
    if at.is_ipv6() {
        sockopt::set_ipv6_v6only(&fd, true).map_err(failed("set up a listener on", at))?;
    }
    if early {
        bind_early(&fd, at.ip()).map_err(failed("set up a listener on", at))?;
    }
    // Which peer a SYN is of is known only later, and its answer has to pass a peer that takes
    // nothing else than the highest TTL (RFC 5082, section 3); others do not mind.
    match at {
        SocketAddr::V4(_) => sockopt::set_ip_ttl(&fd, 255),
        SocketAddr::V6(_) => sockopt::set_ipv6_unicast_hops(&fd, Some(255)),
    }
    .map_err(failed("set up a listener on", at))?;
    bind(&fd, &at).map_err(failed("listen on", at))?;
    listen(&fd, BACKLOG).map_err(failed("listen on", at))?;
    Ok(fd)
}

/// How connections with a peer are protected.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Protection {
    /// Key of RFC 2385.
    pub key: Option<Vec<u8>>,
    /// The most hops that its packets may come over.
    pub hops: Option<u8>,
}

/// A connection that is being made.
///
/// # Errors
/// As the kernel says; that it is under way is none.
pub(crate) fn dial(
    to: SocketAddr,
    from: Option<IpAddr>,
    how: &Protection,
) -> Result<OwnedFd, SocketError> {
    let fd = tcp(to.ip()).map_err(failed("open a connection to", to))?;
    if let Some(key) = &how.key {
        set_key(&fd, to.ip(), Some(key)).map_err(failed("set the key of", to))?;
    }
    set_hops(&fd, to.ip(), how.hops).map_err(failed("limit the hops of", to))?;
    if let Some(from) = from {
        bind(&fd, &SocketAddr::new(from, 0))
            .map_err(failed("speak from the own address to", to))?;
    }
    settle(&fd);
    match rustix::net::connect(&fd, &to) {
        Ok(()) | Err(rustix::io::Errno::INPROGRESS) => Ok(fd),
        Err(e) => Err(failed("connect to", to)(e)),
    }
}

/// What every connection gets; none of it is vital.
pub(crate) fn settle(fd: &OwnedFd) {
    let _ = sockopt::set_tcp_nodelay(fd, true);
    // CS6, as the field marks its routing protocols.
    let _ = sockopt::set_ip_tos(fd, 0xc0);
    let _ = sockopt::set_ipv6_tclass(fd, 0xc0);
}

/// What went wrong with a connection; `None`: nothing.
pub(crate) fn error_of(fd: BorrowedFd<'_>) -> Option<io::Error> {
    match sockopt::socket_error(fd) {
        Ok(Ok(())) => None,
        Ok(Err(e)) | Err(e) => Some(e.into()),
    }
}

/// Our end of a connection.
pub(crate) fn local_of(fd: BorrowedFd<'_>) -> Option<IpAddr> {
    let any = rustix::net::getsockname(fd).ok()?;
    SocketAddr::try_from(any).ok().map(|a| a.ip())
}

/// Packets leave with the highest TTL, and those of more hops than allowed are not taken.
///
/// # Errors
/// As the kernel says.
pub(crate) fn set_hops(fd: &OwnedFd, peer: IpAddr, hops: Option<u8>) -> rustix::io::Result<()> {
    let Some(hops) = hops else {
        return Ok(());
    };
    let least = 256 - i32::from(hops.max(1));
    match peer {
        IpAddr::V4(_) => {
            sockopt::set_ip_ttl(fd, 255)?;
            set_int(fd, libc::IPPROTO_IP, libc::IP_MINTTL, least)
        }
        IpAddr::V6(_) => {
            sockopt::set_ipv6_unicast_hops(fd, Some(255))?;
            set_int(fd, libc::IPPROTO_IPV6, IPV6_MINHOPCOUNT, least)
        }
    }
}

/// `linux/in6.h`.
const IPV6_MINHOPCOUNT: i32 = 73;
/// `linux/tcp.h`.
const TCP_MD5SIG: i32 = 14;

/// `struct tcp_md5sig` of `linux/tcp.h`.
#[repr(C)]
struct Md5Sig {
    address: libc::sockaddr_storage,
    flags: u8,
    prefix_len: u8,
    key_len: u16,
    ifindex: i32,
    key: [u8; MAX_KEY],
}

/// Sets, or takes away, the key of connections with a peer. On a listener it counts from the next
/// SYN on.
///
/// # Errors
/// As the kernel says.
pub(crate) fn set_key(fd: &OwnedFd, peer: IpAddr, key: Option<&[u8]>) -> rustix::io::Result<()> {
    let mut sig = Md5Sig {
        address: storage(peer),
        flags: 0,
        prefix_len: 0,
        key_len: 0,
        ifindex: 0,
        key: [0; MAX_KEY],
    };
    if let Some(key) = key {
        let n = key.len().min(MAX_KEY);
        sig.key_len = n as u16;
        sig.key[..n].copy_from_slice(&key[..n]);
    }
    set_raw(fd, libc::IPPROTO_TCP, TCP_MD5SIG, &sig)
}

fn storage(addr: IpAddr) -> libc::sockaddr_storage {
    // SAFETY: all zeroes is a valid value of this plain struct.
    let mut out: libc::sockaddr_storage = unsafe { std::mem::zeroed() };
    let at = (&raw mut out).cast::<u8>();
    match addr {
        IpAddr::V4(a) => {
            let sin = libc::sockaddr_in {
                sin_family: libc::AF_INET as libc::sa_family_t,
                sin_port: 0,
                sin_addr: libc::in_addr {
                    s_addr: u32::from_ne_bytes(a.octets()),
                },
                sin_zero: [0; 8],
            };
            // SAFETY: `sockaddr_storage` is large and aligned enough for each kind of address.
            unsafe { at.cast::<libc::sockaddr_in>().write(sin) };
        }
        IpAddr::V6(a) => {
            let sin6 = libc::sockaddr_in6 {
                sin6_family: libc::AF_INET6 as libc::sa_family_t,
                sin6_port: 0,
                sin6_flowinfo: 0,
                sin6_addr: libc::in6_addr {
                    s6_addr: a.octets(),
                },
                sin6_scope_id: 0,
            };
            // SAFETY: as above.
            unsafe { at.cast::<libc::sockaddr_in6>().write(sin6) };
        }
    }
    out
}

pub(crate) fn set_int(fd: &OwnedFd, level: i32, option: i32, value: i32) -> rustix::io::Result<()> {
    set_raw(fd, level, option, &value)
}

fn set_raw<T>(fd: &OwnedFd, level: i32, option: i32, value: &T) -> rustix::io::Result<()> {
    // SAFETY: the kernel reads `size_of::<T>()` bytes of a value that lives through the call.
    let done = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            level,
            option,
            std::ptr::from_ref(value).cast(),
            size_of::<T>() as libc::socklen_t,
        )
    };
    match done {
        0 => Ok(()),
        _ => Err(
            rustix::io::Errno::from_io_error(&io::Error::last_os_error())
                .unwrap_or(rustix::io::Errno::INVAL),
        ),
    }
}

/// The address that means every one of a family.
pub(crate) const fn any(v6: bool) -> IpAddr {
    match v6 {
        false => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        true => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    }
}
