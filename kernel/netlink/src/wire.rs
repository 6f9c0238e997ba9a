//! Netlink messages and attributes, written and read (RFC 3549 section 2; `linux/netlink.h`).
//!
//! Promises: whatever bytes come in, reading ends, stays inside them and does not panic;
//! what was written reads back.
//!
//! Never: knows the meaning of a message type or attribute.

use net::Family;
use std::net::IpAddr;

const HDR: usize = 16;
const ATTR: usize = 4;
const TYPE_MASK: u16 = 0x3fff;

const fn align(n: usize) -> usize {
    (n + 3) & !3
}

/// One request under construction. The length is right at any moment; flags `NLM_F_REQUEST`
/// and the sequence number are added by the socket that sends it.
#[derive(Debug, Clone)]
pub struct Message {
    buf: Vec<u8>,
}

/// An open nested attribute, to be closed by [`Message::end`].
#[derive(Debug)]
#[must_use = "a nest that is not ended has length 0"]
pub struct Nest(usize);

impl Message {
    /// An empty message of type `kind` (`RTM_*`) with `flags` (`NLM_F_*`).
    pub fn new(kind: u16, flags: u16) -> Self {
        let mut msg = Self {
            buf: Vec::with_capacity(256),
        };
        msg.begin(kind, flags);
        msg
    }

    /// Forgets what was written and begins another message in the same memory: for many in a row.
    pub fn begin(&mut self, kind: u16, flags: u16) {
        self.buf.clear();
        self.buf.resize(HDR, 0);
        self.buf[4..6].copy_from_slice(&kind.to_ne_bytes());
        self.buf[6..8].copy_from_slice(&flags.to_ne_bytes());
        self.pad();
    }

    fn pad(&mut self) {
        self.buf.resize(align(self.buf.len()), 0);
        let len = u32::try_from(self.buf.len()).expect("a request is far below 4 GiB");
        self.buf[0..4].copy_from_slice(&len.to_ne_bytes());
    }

    /// Adds flags to the header.
    pub fn add_flags(&mut self, flags: u16) {
        add_flags(&mut self.buf, flags);
    }

    pub(crate) fn set_seq(&mut self, seq: u32) {
        self.buf[8..12].copy_from_slice(&seq.to_ne_bytes());
    }

    /// Appends raw bytes, padded to four: the fixed header of the family.
    pub fn raw(&mut self, bytes: &[u8]) -> &mut Self {
        self.buf.extend_from_slice(bytes);
        self.pad();
        self
    }

    /// Appends an attribute with these bytes.
    ///
    /// # Panics
    /// If the bytes exceed what a 16-bit length can say: a caller's error, no input reaches it.
    pub fn attr(&mut self, kind: u16, bytes: &[u8]) -> &mut Self {
        let len = u16::try_from(ATTR + bytes.len()).expect("attributes here are short");
        self.buf.extend_from_slice(&len.to_ne_bytes());
        self.buf.extend_from_slice(&kind.to_ne_bytes());
        self.buf.extend_from_slice(bytes);
        self.pad();
        self
    }

    /// Appends a one-byte attribute.
    pub fn attr_u8(&mut self, kind: u16, v: u8) -> &mut Self {
        self.attr(kind, &[v])
    }

    /// Appends a 16-bit attribute in network byte order.
    pub fn attr_u16_be(&mut self, kind: u16, v: u16) -> &mut Self {
        self.attr(kind, &v.to_be_bytes())
    }

    /// Appends a 32-bit attribute in host byte order.
    pub fn attr_u32(&mut self, kind: u16, v: u32) -> &mut Self {
        self.attr(kind, &v.to_ne_bytes())
    }

    /// Appends a NUL-terminated text.
    pub fn attr_str(&mut self, kind: u16, v: &str) -> &mut Self {
        let mut bytes = Vec::with_capacity(v.len() + 1);
        bytes.extend_from_slice(v.as_bytes());
        bytes.push(0);
        self.attr(kind, &bytes)
    }

    /// Appends an address, 4 or 16 bytes.
    pub fn attr_addr(&mut self, kind: u16, v: IpAddr) -> &mut Self {
        match v {
            IpAddr::V4(a) => self.attr(kind, &a.octets()),
            IpAddr::V6(a) => self.attr(kind, &a.octets()),
        }
    }

    /// Opens a nested attribute.
    pub fn nest(&mut self, kind: u16) -> Nest {
        let at = self.buf.len();
        self.buf.extend_from_slice(&[0, 0]);
        self.buf
            .extend_from_slice(&(kind | libc::NLA_F_NESTED as u16).to_ne_bytes());
        self.pad();
        Nest(at)
    }

    /// Closes a nested attribute.
    ///
    /// # Panics
    /// If it exceeds 65,535 bytes.
    pub fn end(&mut self, nest: Nest) -> &mut Self {
        let len = u16::try_from(self.buf.len() - nest.0).expect("nests here are short");
        self.buf[nest.0..nest.0 + 2].copy_from_slice(&len.to_ne_bytes());
        self
    }

    /// The message as bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.buf
    }
}

/// Adds flags to the header of the message that `bytes` begin with.
pub(crate) fn add_flags(bytes: &mut [u8], flags: u16) {
    let now = u16::from_ne_bytes([bytes[6], bytes[7]]);
    bytes[6..8].copy_from_slice(&(now | flags).to_ne_bytes());
}

/// One message as received: header fields and body.
#[derive(Debug, Clone, Copy)]
pub struct Frame<'a> {
    /// Message type.
    pub kind: u16,
    /// Header flags.
    pub flags: u16,
    /// Sequence number of the request it answers; 0 for a notification.
    pub seq: u32,
    /// What follows the header.
    pub body: &'a [u8],
}

/// The messages of one datagram. Ends at the first that does not fit.
#[derive(Debug, Clone)]
pub struct Frames<'a>(&'a [u8]);

impl<'a> Frames<'a> {
    /// Over one received datagram.
    pub const fn new(datagram: &'a [u8]) -> Self {
        Self(datagram)
    }
}

impl<'a> Iterator for Frames<'a> {
    type Item = Frame<'a>;

    fn next(&mut self) -> Option<Frame<'a>> {
        let len = usize::try_from(u32_at(self.0, 0)?).ok()?;
        if len < HDR || len > self.0.len() {
            self.0 = &[];
            return None;
        }
        let frame = Frame {
            kind: u16_at(self.0, 4)?,
            flags: u16_at(self.0, 6)?,
            seq: u32_at(self.0, 8)?,
            body: &self.0[HDR..len],
        };
        self.0 = self.0.get(align(len)..).unwrap_or(&[]);
        Some(frame)
    }
}

/// The attributes of a body, as pairs of type (flag bits removed) and payload.
/// Ends at the first that does not fit.
#[derive(Debug, Clone)]
pub struct Attrs<'a>(&'a [u8]);

impl<'a> Attrs<'a> {
    /// Over the attributes that start `header` bytes (rounded up to four) into `body`.
    pub fn after(body: &'a [u8], header: usize) -> Self {
        Self(body.get(align(header)..).unwrap_or(&[]))
    }

    /// Over the payload of a nested attribute.
    pub const fn nested(payload: &'a [u8]) -> Self {
        Self(payload)
    }
}

impl<'a> Iterator for Attrs<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let len = usize::from(u16_at(self.0, 0)?);
        let kind = u16_at(self.0, 2)? & TYPE_MASK;
        if len < ATTR || len > self.0.len() {
            self.0 = &[];
            return None;
        }
        let payload = &self.0[ATTR..len];
        self.0 = self.0.get(align(len)..).unwrap_or(&[]);
        Some((kind, payload))
    }
}

/// `AF_INET` or `AF_INET6`.
pub const fn af(family: Family) -> u8 {
    match family {
        Family::V4 => libc::AF_INET as u8,
        Family::V6 => libc::AF_INET6 as u8,
    }
}

/// The family of an `AF_*`; `None` for those that are not IP.
pub const fn family(af: u8) -> Option<Family> {
    match af as i32 {
        libc::AF_INET => Some(Family::V4),
        libc::AF_INET6 => Some(Family::V6),
        _ => None,
    }
}

/// The byte at `at`.
pub fn u8_at(b: &[u8], at: usize) -> Option<u8> {
    b.get(at).copied()
}

/// 16 bits in host byte order at `at`.
pub fn u16_at(b: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(b.get(at..at + 2)?.try_into().ok()?))
}

/// 16 bits in network byte order at `at`.
pub fn u16_be_at(b: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(b.get(at..at + 2)?.try_into().ok()?))
}

/// 32 bits in host byte order at `at`.
pub fn u32_at(b: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(b.get(at..at + 4)?.try_into().ok()?))
}

/// 32 bits, signed, in host byte order at `at`.
pub fn i32_at(b: &[u8], at: usize) -> Option<i32> {
    Some(i32::from_ne_bytes(b.get(at..at + 4)?.try_into().ok()?))
}

/// A text up to its first NUL; `None` unless UTF-8.
pub fn text(b: &[u8]) -> Option<&str> {
    let end = b.iter().position(|&c| c == 0).unwrap_or(b.len());
    std::str::from_utf8(&b[..end]).ok()
}

/// An address from its 4 or 16 bytes.
pub fn addr(b: &[u8]) -> Option<IpAddr> {
    match b.len() {
        4 => Some(IpAddr::from(<[u8; 4]>::try_from(b).ok()?)),
        16 => Some(IpAddr::from(<[u8; 16]>::try_from(b).ok()?)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_reads_back() {
        let mut m = Message::new(20, 5);
        m.raw(&[1, 2, 3, 4, 5, 6, 7, 8])
            .attr_u32(1, 77)
            .attr_str(2, "eth0");
        let outer = m.nest(3);
        m.attr_u8(4, 9).attr_addr(5, "fd00::1".parse().unwrap());
        m.end(outer).attr_u16_be(6, 4789);

        let frames: Vec<_> = Frames::new(m.bytes()).collect();
        assert_eq!(frames.len(), 1);
        assert_eq!((frames[0].kind, frames[0].flags), (20, 5));
        let attrs: Vec<_> = Attrs::after(frames[0].body, 8).collect();
        assert_eq!(attrs.iter().map(|a| a.0).collect::<Vec<_>>(), [1, 2, 3, 6]);
        assert_eq!(u32_at(attrs[0].1, 0), Some(77));
        assert_eq!(text(attrs[1].1), Some("eth0"));
        assert_eq!(u16_be_at(attrs[3].1, 0), Some(4789));
        let inner: Vec<_> = Attrs::nested(attrs[2].1).collect();
        assert_eq!(inner[0], (4, &[9][..]));
        assert_eq!(addr(inner[1].1), Some("fd00::1".parse().unwrap()));
    }

    #[test]
    fn hostile_lengths_end_the_walk() {
        for len in [0u16, 1, 3, 5, 200, u16::MAX] {
            let mut b = vec![0; 4];
            b[..2].copy_from_slice(&len.to_ne_bytes());
            assert_eq!(Attrs::nested(&b).count(), 0, "{len}");
        }
        for len in [0u32, 15, 17, u32::MAX] {
            let mut b = vec![0; 16];
            b[..4].copy_from_slice(&len.to_ne_bytes());
            assert_eq!(Frames::new(&b).count(), 0, "{len}");
        }
        assert_eq!(Frames::new(&[1, 2]).count(), 0);
    }
}
