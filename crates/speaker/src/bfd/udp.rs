//! Sockets as BFD wants them (RFC 5881, RFC 5883).
//!
//! Promises: what is sent has a TTL of 255 and a source port of its own; of what is received the TTL and
//! the address that it was sent to are known.

use super::table::{Heard, Random};
use crate::sockets::{SocketError, bind_early, failed, set_int};
use model::BfdHops;
use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType, bind, socket_with, sockopt};
use std::collections::HashSet;
use std::io;
use std::mem::{MaybeUninit, size_of};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

/// Source ports: from here to the end (RFC 5881, section 4).
const FIRST_PORT: u16 = 49152;
/// So many packets in one read.
const AT_ONCE: usize = 64;
/// No packet that we take is longer.
const OCTETS: usize = 128;
/// For two control messages.
const CONTROL: usize = 128;
/// What waits while the thread does not run: a packet takes less than a kilobyte.
const WAITING: usize = 4 << 20;

fn udp(addr: IpAddr) -> rustix::io::Result<OwnedFd> {
    let family = match addr {
        IpAddr::V4(_) => AddressFamily::INET,
        IpAddr::V6(_) => AddressFamily::INET6,
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let fd = socket_with(family, SocketType::DGRAM, flags, None)?;
    if addr.is_ipv6() {
        sockopt::set_ipv6_v6only(&fd, true)?;
    }
    Ok(fd)
}

/// The port of a kind of session.
pub(crate) const fn port(hops: BfdHops) -> u16 {
    match hops {
        BfdHops::Single => bfd::PORT_SINGLE_HOP,
        BfdHops::Multi => bfd::PORT_MULTI_HOP,
    }
}

/// What receives for sessions of a kind, on an address or all of its family; `early` if the address may
/// be none of an interface's.
///
/// # Errors
/// As the kernel says; that another program does BFD here, for one.
pub(crate) fn receiver(at: IpAddr, hops: BfdHops, early: bool) -> Result<OwnedFd, SocketError> {
    let at = SocketAddr::new(at, port(hops));
    let what = "receive BFD on";
    let fd = udp(at.ip()).map_err(failed(what, at))?;
    let set = |level, option| set_int(&fd, level, option, 1);
    match at {
        SocketAddr::V4(_) => set(libc::IPPROTO_IP, libc::IP_RECVTTL)
            .and_then(|()| set(libc::IPPROTO_IP, libc::IP_PKTINFO)),
        SocketAddr::V6(_) => set(libc::IPPROTO_IPV6, libc::IPV6_RECVHOPLIMIT)
            .and_then(|()| set(libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO)),
    }
    .map_err(failed(what, at))?;
    if sockopt::set_socket_recv_buffer_size_force(&fd, WAITING).is_err() {
        // As much as is allowed to those who may not ask for more.
        let _ = sockopt::set_socket_recv_buffer_size(&fd, WAITING);
    }
    if early {
        bind_early(&fd, at.ip()).map_err(failed(what, at))?;
    }
    bind(&fd, &at).map_err(failed(what, at))?;
    Ok(fd)
}

/// What sends for a session, with its port, which is not among those in use; `early` as for a
/// [`receiver`].
///
/// # Errors
/// As the kernel says: the address is not ours, or ports have run out.
pub(crate) fn sender(
    to: IpAddr,
    (from, early): (Option<IpAddr>, bool),
    used: &HashSet<u16>,
    random: &mut Random,
) -> Result<(OwnedFd, u16), SocketError> {
    let what = "send BFD to";
    let fd = udp(to).map_err(failed(what, to))?;
    match to {
        IpAddr::V4(_) => sockopt::set_ip_ttl(&fd, 255),
        IpAddr::V6(_) => sockopt::set_ipv6_unicast_hops(&fd, Some(255)),
    }
    .map_err(failed(what, to))?;
    // CS6, as the kernel's queues know urgent packets; and nothing is read here.
    let _ = sockopt::set_ip_tos(&fd, 0xc0);
    let _ = sockopt::set_ipv6_tclass(&fd, 0xc0);
    let _ = sockopt::set_socket_recv_buffer_size(&fd, 1);
    let from = from.unwrap_or_else(|| crate::sockets::any(to.is_ipv6()));
    if early {
        bind_early(&fd, from).map_err(failed(what, to))?;
    }
    let count = u16::MAX - FIRST_PORT + 1;
    let start = (random.next() % u64::from(count)) as u16;
    for i in 0..count {
        let port = FIRST_PORT + (start + i) % count;
        if used.contains(&port) {
            continue;
        }
        match bind(&fd, &SocketAddr::new(from, port)) {
            Ok(()) => return Ok((fd, port)),
            Err(rustix::io::Errno::ADDRINUSE) => {}
            Err(e) => return Err(failed("send BFD from", from)(e)),
        }
    }
    Err(failed(what, to)(rustix::io::Errno::ADDRINUSE))
}

/// Sends a packet. That it cannot be sent is like its loss: the far end will tell.
pub(crate) fn send(fd: impl AsFd, to: IpAddr, hops: BfdHops, octets: &[u8]) {
    let to = SocketAddr::new(to, port(hops));
    let _ = rustix::net::sendto(fd, octets, SendFlags::DONTWAIT | SendFlags::NOSIGNAL, &to);
}

/// Room for packets.
pub(crate) struct Room {
    octets: Box<[[u8; OCTETS]; AT_ONCE]>,
    control: Box<[Control; AT_ONCE]>,
}

/// Aligned for `cmsghdr`.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
struct Control([u8; CONTROL]);

impl Room {
    pub(crate) fn new() -> Self {
        Self {
            octets: Box::new([[0; OCTETS]; AT_ONCE]),
            control: Box::new([Control([0; CONTROL]); AT_ONCE]),
        }
    }

    /// Reads what is there, as far as there is room; whether there may be more.
    pub(crate) fn read(&mut self, fd: &OwnedFd, mut take: impl FnMut(&Heard<'_>)) -> bool {
        // SAFETY: all zeroes are valid values of these plain structs.
        let mut names: [libc::sockaddr_storage; AT_ONCE] = unsafe { std::mem::zeroed() };
        // SAFETY: as above.
        let mut slots: [libc::mmsghdr; AT_ONCE] = unsafe { std::mem::zeroed() };
        let mut pieces = [const { MaybeUninit::<libc::iovec>::uninit() }; AT_ONCE];
        for (i, slot) in slots.iter_mut().enumerate() {
            let piece = pieces[i].write(libc::iovec {
                iov_base: self.octets[i].as_mut_ptr().cast(),
                iov_len: OCTETS,
            });
            let head = &mut slot.msg_hdr;
            head.msg_name = (&raw mut names[i]).cast();
            head.msg_namelen = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
            head.msg_iov = piece;
            head.msg_iovlen = 1;
            head.msg_control = self.control[i].0.as_mut_ptr().cast();
            head.msg_controllen = CONTROL as _;
        }
        // SAFETY: each header points at buffers that live through the call, with their true lengths.
        let n = unsafe {
            libc::recvmmsg(
                fd.as_raw_fd(),
                slots.as_mut_ptr(),
                AT_ONCE as u32,
                libc::MSG_DONTWAIT as _,
                std::ptr::null_mut(),
            )
        };
        let Ok(n) = usize::try_from(n) else {
            return io::Error::last_os_error().kind() == io::ErrorKind::Interrupted;
        };
        for i in 0..n {
            let (ttl, to) = control(&slots[i].msg_hdr);
            let Some(from) = address(&names[i]) else {
                continue;
            };
            let len = (slots[i].msg_len as usize).min(OCTETS);
            take(&Heard {
                from,
                to,
                // Without it nothing is known to be near.
                ttl: ttl.unwrap_or(0),
                octets: &self.octets[i][..len],
            });
        }
        n == AT_ONCE
    }
}

/// Whose a packet is.
fn address(name: &libc::sockaddr_storage) -> Option<IpAddr> {
    let at = (&raw const *name).cast::<u8>();
    match i32::from(name.ss_family) {
        libc::AF_INET => {
            // SAFETY: the kernel has written an address of the family that it says.
            let sin = unsafe { at.cast::<libc::sockaddr_in>().read() };
            let octets = sin.sin_addr.s_addr.to_ne_bytes();
            Some(Ipv4Addr::from(octets).into())
        }
        libc::AF_INET6 => {
            // SAFETY: as above.
            let sin6 = unsafe { at.cast::<libc::sockaddr_in6>().read() };
            Some(IpAddr::from(Ipv6Addr::from(sin6.sin6_addr.s6_addr)).to_canonical())
        }
        _ => None,
    }
}

/// What the kernel says beside a packet: its TTL or hop limit, and the address that it was sent to.
fn control(head: &libc::msghdr) -> (Option<u8>, Option<IpAddr>) {
    let (mut ttl, mut to) = (None, None);
    // SAFETY: the kernel has filled the control buffer and set its length.
    let mut at = unsafe { libc::CMSG_FIRSTHDR(head) };
    while !at.is_null() {
        // SAFETY: a header within that buffer; its data may not be aligned.
        let (level, kind, data) = unsafe {
            let c = at.read_unaligned();
            (c.cmsg_level, c.cmsg_type, libc::CMSG_DATA(at))
        };
        match (level, kind) {
            (libc::IPPROTO_IP, libc::IP_TTL) | (libc::IPPROTO_IPV6, libc::IPV6_HOPLIMIT) => {
                // SAFETY: both carry an int.
                let n = unsafe { data.cast::<i32>().read_unaligned() };
                ttl = u8::try_from(n).ok();
            }
            (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                // SAFETY: that is what it carries.
                let info = unsafe { data.cast::<libc::in_pktinfo>().read_unaligned() };
                to = Some(Ipv4Addr::from(info.ipi_addr.s_addr.to_ne_bytes()).into());
            }
            (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                // SAFETY: as above.
                let info = unsafe { data.cast::<libc::in6_pktinfo>().read_unaligned() };
                to = Some(Ipv6Addr::from(info.ipi6_addr.s6_addr).into());
            }
            _ => {}
        }
        // SAFETY: as for the first.
        at = unsafe { libc::CMSG_NXTHDR(head, at) };
    }
    (ttl, to)
}
