//! What travels on the fabric.
//!
//! Promises: each packet once, as it enters the fabric; none is changed.
//!
//! Never: looks inside a node.

use crate::capture;
use netlink::netns::NetNs;
use rustix::event::{PollFd, PollFlags};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Instant;

const ETH_P_ALL: u16 = 0x0003;
/// Of the veth ports alone: the bridge shows again what they show.
const NOT_PORTS: [&str; 2] = ["lo", "br0"];

/// So many packets may have waited when the time is over.
const LATE: usize = 1 << 14;

/// Calls `started` once nothing is missed any more, then gives a line for each packet until
/// `count` or the deadline is reached, or there is something at `end`, as when the caller has gone: then
/// what has been captured by then is given, and no more.
///
/// # Errors
/// If there can be no packet socket, or `each` fails.
pub(super) fn capture(
    ns: &NetNs,
    count: Option<usize>,
    (end, mut deadline): (BorrowedFd<'_>, Instant),
    started: impl FnOnce() -> io::Result<()>,
    mut each: impl FnMut(String) -> io::Result<()>,
) -> io::Result<()> {
    let protocol = i32::from(ETH_P_ALL.to_be());
    let socket = ns
        .run(|| {
            // SAFETY: plain system call; the descriptor is new.
            let fd = unsafe {
                libc::socket(
                    libc::AF_PACKET,
                    libc::SOCK_RAW | libc::SOCK_CLOEXEC,
                    protocol,
                )
            };
            if fd < 0 {
                return Err(io::Error::last_os_error());
            }
            // SAFETY: owned by nobody else.
            Ok(unsafe { <std::os::fd::OwnedFd as std::os::fd::FromRawFd>::from_raw_fd(fd) })
        })
        .map_err(io::Error::other)??;
    let mut links = link::Handle::open_in(ns).map_err(io::Error::other)?;
    let others: Vec<i32> = links
        .links()
        .map_err(io::Error::other)?
        .iter()
        .filter(|l| NOT_PORTS.contains(&l.name.as_str()))
        .filter_map(|l| i32::try_from(l.index.get()).ok())
        .collect();
    started()?;
    let mut buffer = vec![0; 2048];
    let (mut seen, mut late) = (0, 0);
    while count.is_none_or(|c| seen < c) {
        let left = deadline.saturating_duration_since(Instant::now());
        let wait = rustix::event::Timespec::try_from(left).map_err(io::Error::other)?;
        let mut polled = [
            PollFd::new(&socket, PollFlags::IN),
            PollFd::new(&end, PollFlags::IN),
        ];
        rustix::event::poll(&mut polled, Some(&wait))?;
        if !polled[1].revents().is_empty() {
            deadline = deadline.min(Instant::now());
        }
        // What waits already is taken even when the time is over, but not what comes for ever.
        if left.is_zero() {
            late += 1;
        }
        if polled[0].revents().is_empty() || late > LATE {
            if left.is_zero() {
                break;
            }
            continue;
        }
        // SAFETY: all-zero is valid; lengths are those of the buffers.
        let (n, from) = unsafe {
            let mut from: libc::sockaddr_ll = std::mem::zeroed();
            let mut len = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
            let n = libc::recvfrom(
                socket.as_raw_fd(),
                buffer.as_mut_ptr().cast(),
                buffer.len(),
                libc::MSG_DONTWAIT,
                (&raw mut from).cast(),
                &raw mut len,
            );
            (n, from)
        };
        let Ok(n) = usize::try_from(n) else { continue };
        // As it comes in, not again as it leaves.
        if from.sll_pkttype == libc::PACKET_OUTGOING || others.contains(&from.sll_ifindex) {
            continue;
        }
        if let Some(line) = capture::frame(&buffer[..n]) {
            each(line)?;
            seen += 1;
        }
    }
    Ok(())
}
