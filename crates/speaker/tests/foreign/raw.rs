//! A peer that says whatever octets a test gives it, and hears what it is answered.
//!
//! Promises: a read ends with a message, the end of the connection, or the test.

use super::DEADLINE;
use crate::support::until;
use netlink::netns::NetNs;
use rustix::net::{AddressFamily, SocketType, bind, connect, socket};
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Instant;

pub const OPEN: u8 = 1;
pub const UPDATE: u8 = 2;
pub const NOTIFICATION: u8 = 3;
pub const KEEPALIVE: u8 = 4;
pub const REFRESH: u8 = 5;

/// Octets from hexadecimal text.
pub fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(|b| !b.is_ascii_whitespace()).collect();
    let digit = |b: u8| char::from(b).to_digit(16).unwrap() as u8;
    digits
        .chunks(2)
        .map(|p| digit(p[0]) << 4 | digit(p[1]))
        .collect()
}

/// A whole message.
pub fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![0xff; 16];
    out.extend(u16::try_from(19 + body.len()).unwrap().to_be_bytes());
    out.push(kind);
    out.extend(body);
    out
}

/// An UPDATE out of its three fields.
pub fn update(withdrawn: &[u8], attributes: &[u8], routes: &[u8]) -> Vec<u8> {
    let mut body = u16::try_from(withdrawn.len())
        .unwrap()
        .to_be_bytes()
        .to_vec();
    body.extend(withdrawn);
    body.extend(u16::try_from(attributes.len()).unwrap().to_be_bytes());
    body.extend(attributes);
    body.extend(routes);
    message(UPDATE, &body)
}

/// An OPEN.
#[derive(Debug, Clone)]
pub struct Opening {
    pub version: u8,
    pub asn: u16,
    pub hold: u16,
    pub id: [u8; 4],
    /// Optional parameters, as octets.
    pub parameters: Vec<u8>,
}

impl Opening {
    /// One that is right, with IPv4, four-octet numbers and the refreshes.
    pub fn new(asn: u16, id: [u8; 4]) -> Self {
        let mut capabilities = hex("0104 0001 0001 0200 4600 4104 0000");
        capabilities.extend(asn.to_be_bytes());
        Self::with(asn, id, &capabilities)
    }

    /// With these capabilities.
    pub fn with(asn: u16, id: [u8; 4], capabilities: &[u8]) -> Self {
        let mut parameters = vec![2, u8::try_from(capabilities.len()).unwrap()];
        parameters.extend(capabilities);
        Self {
            version: 4,
            asn,
            // Longer than any test; zero lets GoBGP give up on its first write.
            hold: 180,
            id,
            parameters,
        }
    }

    pub fn octets(&self) -> Vec<u8> {
        let mut body = vec![self.version];
        body.extend(self.asn.to_be_bytes());
        body.extend(self.hold.to_be_bytes());
        body.extend(self.id);
        body.push(u8::try_from(self.parameters.len()).unwrap());
        body.extend(&self.parameters);
        message(OPEN, &body)
    }
}

/// One end of a connection.
#[derive(Debug)]
pub struct Raw {
    stream: TcpStream,
    kept: Vec<u8>,
}

impl Raw {
    /// Calls from an address; tries until it is let in.
    #[track_caller]
    pub fn dial(ns: &NetNs, from: &str, to: &str) -> Self {
        let from: SocketAddr = SocketAddr::new(from.parse().unwrap(), 0);
        let to: SocketAddr = SocketAddr::new(to.parse().unwrap(), 179);
        let family = match to {
            SocketAddr::V4(_) => AddressFamily::INET,
            SocketAddr::V6(_) => AddressFamily::INET6,
        };
        let fd = ns.run(|| {
            let fd = socket(family, SocketType::STREAM, None)?;
            bind(&fd, &from)?;
            connect(&fd, &to)?;
            Ok::<_, rustix::io::Errno>(fd)
        });
        Self::of(TcpStream::from(fd.unwrap().unwrap()))
    }

    /// On a connection that stands.
    pub fn of(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self {
            stream,
            kept: Vec::new(),
        }
    }

    /// A session that is up: OPENs and KEEPALIVEs are exchanged.
    #[track_caller]
    pub fn establish(ns: &NetNs, from: &str, to: &str, open: &Opening) -> Self {
        let mut this = Self::dial(ns, from, to);
        this.send(&open.octets());
        assert_eq!(this.expect().0, OPEN);
        this.send(&message(KEEPALIVE, &[]));
        assert_eq!(this.expect().0, KEEPALIVE);
        this
    }

    /// The same with one who may hang up in the beginning, before it knows of us.
    #[track_caller]
    pub fn insist(ns: &NetNs, from: &str, to: &str, open: &Opening) -> Self {
        let ask = || {
            let mut this = Self::dial(ns, from, to);
            this.stream.write_all(&open.octets()).ok()?;
            (this.hear()?.0 == OPEN).then_some(())?;
            this.send(&message(KEEPALIVE, &[]));
            (this.hear()?.0 == KEEPALIVE).then_some(this)
        };
        until("a session", ask, Option::is_some).unwrap()
    }

    /// The connection, to write to beside this.
    pub fn stream(&self) -> TcpStream {
        self.stream.try_clone().unwrap()
    }

    pub fn send(&mut self, octets: &[u8]) {
        self.stream.write_all(octets).unwrap();
    }

    /// The next message; `None` when the connection has ended.
    pub fn hear(&mut self) -> Option<(u8, Vec<u8>)> {
        let began = Instant::now();
        loop {
            if let Some(head) = self.kept.get(..19) {
                let len = usize::from(u16::from_be_bytes([head[16], head[17]]));
                if self.kept.len() >= len {
                    let all: Vec<u8> = self.kept.drain(..len).collect();
                    return Some((all[18], all[19..].to_vec()));
                }
            }
            assert!(began.elapsed() < DEADLINE, "no message: {:x?}", self.kept);
            let mut more = [0; 4096];
            match self.stream.read(&mut more) {
                Ok(0) => return None,
                Ok(n) => self.kept.extend(&more[..n]),
                Err(e) if e.kind() == ErrorKind::ConnectionReset => return None,
                Err(e) => panic!("no message: {e}"),
            }
        }
    }

    #[track_caller]
    pub fn expect(&mut self) -> (u8, Vec<u8>) {
        self.hear().unwrap()
    }

    /// Passes over everything up to a message of a kind.
    #[track_caller]
    pub fn until(&mut self, kind: u8) -> Vec<u8> {
        loop {
            let (k, body) = self.expect();
            if k == kind {
                return body;
            }
            assert_ne!(k, NOTIFICATION, "{body:x?}");
        }
    }

    /// Why it is ended: code, subcode and data; nothing may follow.
    #[track_caller]
    pub fn ended(&mut self) -> Vec<u8> {
        let why = self.until(NOTIFICATION);
        assert_eq!(self.hear(), None);
        why
    }
}
