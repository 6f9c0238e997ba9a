//! Copies of packets that log statements send to an NFLOG group (`nfnetlink_log.h`).
//!
//! Promises: each record is handed over as soon as the kernel has it; lost records show as
//! [`Received::Overrun`]; whatever bytes come in, reading stays inside them.
//! Never: holds a packet up, since these are copies; shares a group, since the kernel gives a group
//! one reader.

use netlink::netns::NetNs;
use netlink::wire::{Attrs, Frame, Message};
use netlink::{EventSocket, NetlinkError, Protocol, Received};
use std::time::Instant;

/// `NFNL_SUBSYS_ULOG`, as the upper byte of message types.
const SUBSYS: u16 = 4 << 8;
const MSG_PACKET: u16 = 0;
const MSG_CONFIG: u16 = 1;

const CFG_CMD: u16 = 1;
const CFG_MODE: u16 = 2;
const CFG_QTHRESH: u16 = 5;
const CMD_BIND: u8 = 1;
const COPY_PACKET: u8 = 2;

const PAYLOAD: u16 = 9;
const PREFIX: u16 = 10;

/// One record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packet<'a> {
    /// The packet from its IP header on, as long as the statement and the reader let it.
    pub bytes: &'a [u8],
    /// The statement's prefix; empty without one.
    pub prefix: &'a str,
}

/// The reader of one group in one network namespace.
#[derive(Debug)]
pub struct Nflog(EventSocket);

impl Nflog {
    /// Takes the group, in the network namespace of the calling thread, and asks for whole packets.
    /// The group is free again when the reader is dropped.
    ///
    /// # Errors
    /// When the kernel gives no socket; `EPERM` also where somebody else reads the group.
    pub fn open(group: u16) -> Result<Self, NetlinkError> {
        let mut socket = EventSocket::open(Protocol::Netfilter, &[])?;
        let mut bind = Message::new(SUBSYS | MSG_CONFIG, 0);
        let [high, low] = group.to_be_bytes();
        bind.raw(&[0, 0, high, low])
            .attr_u8(CFG_CMD, CMD_BIND)
            .attr(CFG_QTHRESH, &1u32.to_be_bytes());
        // How much of a packet: big endian, all that a packet can be; then the mode.
        bind.attr(CFG_MODE, &[0, 0, 0xff, 0xff, COPY_PACKET, 0]);
        socket.request(format_args!("bind NFLOG group {group}"), bind)?;
        Ok(Self(socket))
    }

    /// Takes the group in `ns`; the calling thread stays where it is.
    ///
    /// # Errors
    /// As [`Nflog::open`], or if the namespace cannot be entered.
    pub fn open_in(group: u16, ns: &NetNs) -> Result<Self, NetlinkError> {
        ns.run(move || Self::open(group))?
    }

    /// Hands over what waits, without waiting: one datagram of records a call.
    ///
    /// # Errors
    /// If the socket fails in another way than by overrun.
    pub fn try_next(&mut self, mut each: impl FnMut(Packet<'_>)) -> Result<Received, NetlinkError> {
        self.0.try_next(|f| {
            if let Some(p) = packet(f) {
                each(p);
            }
        })
    }

    /// Waits until something can be read, in a tokio runtime. Cancel-safe.
    ///
    /// # Errors
    /// If the descriptor cannot be registered.
    pub async fn readable(&mut self) -> Result<(), NetlinkError> {
        self.0.readable().await
    }

    /// Waits until something can be read or the deadline passes, for plain threads. True if
    /// something waits.
    pub fn wait(&self, deadline: Instant) -> bool {
        self.0.wait(deadline)
    }
}

fn packet<'a>(f: &Frame<'a>) -> Option<Packet<'a>> {
    if f.kind != SUBSYS | MSG_PACKET {
        return None;
    }
    let (mut bytes, mut prefix) = (None, "");
    for (kind, value) in Attrs::after(f.body, 4) {
        match kind {
            PAYLOAD => bytes = Some(value),
            PREFIX => prefix = netlink::wire::text(value).unwrap_or_default(),
            _ => {}
        }
    }
    bytes.map(|bytes| Packet { bytes, prefix })
}

#[cfg(test)]
mod tests {
    use super::*;
    use netlink::wire::Frames;

    #[test]
    fn a_record_is_read_and_others_are_passed_over() {
        let mut m = Message::new(SUBSYS | MSG_PACKET, 0);
        m.raw(&[2, 0, 0, 7])
            .attr(1, &[0, 0, 0, 0])
            .attr_str(PREFIX, "why")
            .attr(PAYLOAD, &[0x45, 1, 2]);
        let mut other = Message::new(SUBSYS | MSG_CONFIG, 0);
        other.raw(&[0; 4]).attr(PAYLOAD, &[1]);
        let mut bare = Message::new(SUBSYS | MSG_PACKET, 0);
        bare.raw(&[0; 4]);
        let datagram = [m.bytes(), other.bytes(), bare.bytes()].concat();
        let got: Vec<Packet<'_>> = Frames::new(&datagram).filter_map(|f| packet(&f)).collect();
        let bytes = &[0x45, 1, 2][..];
        let prefix = "why";
        assert_eq!(got, [Packet { bytes, prefix }]);
        for end in 0..m.bytes().len() {
            let cut = Frames::new(&m.bytes()[..end]);
            assert_eq!(cut.filter_map(|f| packet(&f)).count(), 0, "{end}");
        }
    }
}
