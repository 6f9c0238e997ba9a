//! Connection tracking: finding and deleting entries by address (`nfnetlink_conntrack.h`).
//!
//! Promises: an entry that is gone by the time it should be deleted is no error; entries of
//! other addresses stay.
//! Never: makes or changes an entry.

use crate::wire::{Attrs, Frame, Message, addr};
use crate::{Cause, Errno, NetlinkError, Protocol, Socket};
use std::net::IpAddr;

const SUBSYS: u16 = 1 << 8;
const GET: u16 = 1;
const DELETE: u16 = 2;
const TUPLE_ORIG: u16 = 1;
const TUPLE_REPLY: u16 = 2;
const ID: u16 = 12;
const ZONE: u16 = 18;

/// The connections of one network namespace.
#[derive(Debug)]
pub struct Conntrack(Socket);

impl Conntrack {
    /// Opens in the network namespace of the calling thread.
    ///
    /// # Errors
    /// When the kernel gives no socket.
    pub fn open() -> Result<Self, NetlinkError> {
        Socket::open(Protocol::Netfilter).map(Self)
    }

    /// Deletes all entries that have one of the addresses as source or destination, in either
    /// direction, and says how many. Reads the whole table once, however many addresses.
    ///
    /// # Errors
    /// When the kernel refuses to list, or refuses a deletion for another reason than that the
    /// entry is gone.
    pub fn flush(&mut self, addrs: &[IpAddr]) -> Result<usize, NetlinkError> {
        if addrs.is_empty() {
            return Ok(0);
        }
        let mut list = Message::new(SUBSYS | GET, 0);
        list.raw(&[family(addrs), 0, 0, 0]);
        let deletions = self
            .0
            .dump("list connections", list, |f| deletion(f, addrs))?;
        let mut n = 0;
        for verdict in self.0.batch(deletions) {
            match verdict {
                None => n += 1,
                Some(Cause::Refused {
                    errno: Errno::ENOENT,
                    ..
                }) => {}
                Some(cause) => {
                    let operation = format!("delete connections of {addrs:?}");
                    return Err(NetlinkError { operation, cause });
                }
            }
        }
        Ok(n)
    }
}

/// `AF_INET` or `AF_INET6` where one is enough, else both.
fn family(addrs: &[IpAddr]) -> u8 {
    let (v4, v6) = (
        addrs.iter().any(IpAddr::is_ipv4),
        addrs.iter().any(IpAddr::is_ipv6),
    );
    match (v4, v6) {
        (true, false) => 2,
        (false, true) => 10,
        _ => 0,
    }
}

/// The request that deletes this entry, if it has one of the addresses.
fn deletion(f: &Frame<'_>, addrs: &[IpAddr]) -> Option<Message> {
    let attrs = || Attrs::after(f.body, 4);
    let hit = attrs()
        .filter(|(k, _)| *k == TUPLE_ORIG || *k == TUPLE_REPLY)
        .filter_map(|(_, tuple)| Attrs::nested(tuple).find(|(k, _)| *k == 1))
        .flat_map(|(_, ip)| Attrs::nested(ip).filter_map(|(_, a)| addr(a)))
        .any(|a| addrs.contains(&a));
    if !hit {
        return None;
    }
    let mut msg = Message::new(SUBSYS | DELETE, 0);
    msg.raw(&[*f.body.first()?, 0, 0, 0]);
    for (kind, value) in attrs() {
        match kind {
            TUPLE_ORIG => {
                msg.attr(kind | libc::NLA_F_NESTED as u16, value);
            }
            // The id makes sure that it is this entry and not its successor.
            ID | ZONE => {
                msg.attr(kind, value);
            }
            _ => {}
        }
    }
    Some(msg)
}
