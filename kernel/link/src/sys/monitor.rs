//! What changes in a namespace, as it changes.
//!
//! Promises: everything that happens after `open` is seen, or [`Event::Resync`] says that
//! something was not.
//!
//! Never: guesses; it hands on what the kernel sent.

use super::encode::{Entry, parse_address, parse_entry, parse_link};
use crate::value::Event;
use netlink::netns::NetNs;
use netlink::wire::Frame;
use netlink::{EventSocket, NetlinkError, Protocol, Received};
use std::collections::VecDeque;
use std::time::Instant;

const RTNLGRP_LINK: u32 = 1;
const RTNLGRP_NEIGH: u32 = 3;
const RTNLGRP_IPV4_IFADDR: u32 = 5;
const RTNLGRP_IPV6_IFADDR: u32 = 9;
const GROUPS: [u32; 4] = [
    RTNLGRP_LINK,
    RTNLGRP_NEIGH,
    RTNLGRP_IPV4_IFADDR,
    RTNLGRP_IPV6_IFADDR,
];

/// A stream of [`Event`]s of one namespace: links, addresses, neighbours, forwarding entries.
#[derive(Debug)]
pub struct Monitor {
    socket: EventSocket,
    waiting: VecDeque<Event>,
}

impl Monitor {
    /// Subscribes in the calling thread's namespace. Open first, then read the tables.
    ///
    /// # Errors
    /// If the kernel gives no socket.
    pub fn open() -> Result<Self, NetlinkError> {
        EventSocket::open(Protocol::Route, &GROUPS).map(Self::over)
    }

    /// Subscribes in `ns`.
    ///
    /// # Errors
    /// As [`Monitor::open`], or if the namespace cannot be entered.
    pub fn open_in(ns: &NetNs) -> Result<Self, NetlinkError> {
        EventSocket::open_in(Protocol::Route, &GROUPS, ns).map(Self::over)
    }

    const fn over(socket: EventSocket) -> Self {
        Self {
            socket,
            waiting: VecDeque::new(),
        }
    }

    /// The next event, if one waits.
    ///
    /// # Errors
    /// If the socket fails; an overrun is no error but [`Event::Resync`].
    pub fn try_next(&mut self) -> Result<Option<Event>, NetlinkError> {
        loop {
            if let Some(event) = self.waiting.pop_front() {
                return Ok(Some(event));
            }
            let waiting = &mut self.waiting;
            match self.socket.try_next(|f| waiting.extend(event(f)))? {
                Received::Some => {}
                Received::Nothing => return Ok(None),
                Received::Overrun => return Ok(Some(Event::Resync)),
            }
        }
    }

    /// The next event, awaited on a tokio runtime with I/O. Cancel-safe.
    ///
    /// # Errors
    /// As [`Monitor::try_next`].
    pub async fn next(&mut self) -> Result<Event, NetlinkError> {
        loop {
            if let Some(event) = self.try_next()? {
                return Ok(event);
            }
            self.socket.readable().await?;
        }
    }

    /// The next event, or `None` at the deadline, for plain threads.
    ///
    /// # Errors
    /// As [`Monitor::try_next`].
    pub fn next_before(&mut self, deadline: Instant) -> Result<Option<Event>, NetlinkError> {
        loop {
            if let Some(event) = self.try_next()? {
                return Ok(Some(event));
            }
            if !self.socket.wait(deadline) {
                return Ok(None);
            }
        }
    }
}

fn event(f: &Frame<'_>) -> Option<Event> {
    Some(match f.kind {
        libc::RTM_NEWLINK => Event::Link(parse_link(f)?),
        libc::RTM_DELLINK => {
            let l = parse_link(f)?;
            Event::LinkGone {
                index: l.index,
                name: l.name,
            }
        }
        libc::RTM_NEWADDR => parse_address(f).map(|(i, a)| Event::Address(i, a))?,
        libc::RTM_DELADDR => parse_address(f).map(|(i, a)| Event::AddressGone(i, a))?,
        libc::RTM_NEWNEIGH => match parse_entry(f)? {
            Entry::Neighbour(n) => Event::Neighbour(n),
            Entry::Fdb(e) => Event::Fdb(e),
        },
        libc::RTM_DELNEIGH => match parse_entry(f)? {
            Entry::Neighbour(n) => Event::NeighbourGone(n),
            Entry::Fdb(e) => Event::FdbGone(e),
        },
        _ => return None,
    })
}
