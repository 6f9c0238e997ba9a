//! Peers that announce much and count what they are told.
//!
//! Promises: what is sent is made before the clock starts; every speaker under test meets the same
//! octets in the same order from each peer.
//!
//! Never: chooses routes; a peer here is a mouth or an ear.

use crate::routing::daemons::{ADDRESS, Peer, Role};
use anyhow::{Context, Result, bail, ensure};
use netlink::netns::NetNs;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, SocketAddrV4, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const MARKER: [u8; 16] = [0xff; 16];
const HEADER: usize = 19;
const OPEN: u8 = 1;
const UPDATE: u8 = 2;
const NOTIFICATION: u8 = 3;
const KEEPALIVE: u8 = 4;
/// Routes with the same attributes, one after the other.
const ALIKE: u32 = 50;
/// A NOTIFICATION or a cut is seen at latest so long after.
const STEP: Duration = Duration::from_millis(100);
const KEEP: Duration = Duration::from_secs(30);
const STACK: usize = 192 << 10;
const OPEN_TIME: Duration = Duration::from_secs(60);

/// Prefix number `n`: a /24, none twice.
fn prefix(n: u32) -> [u8; 4] {
    let [a, b, c, _] = (0x1000_0000 + n * 256).to_be_bytes();
    [24, a, b, c]
}

/// An address inside of prefix number `n`.
pub(crate) fn inside(n: u32) -> Ipv4Addr {
    let [_, a, b, c] = prefix(n);
    Ipv4Addr::new(a, b, c, 1)
}

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut out = MARKER.to_vec();
    out.extend(((HEADER + body.len()) as u16).to_be_bytes());
    out.push(kind);
    out.extend(body);
    out
}

fn open(p: &Peer) -> Vec<u8> {
    let [hi, lo] = p.asn.to_be_bytes();
    let mut capabilities = vec![1, 4, 0, 1, 0, 1, 2, 0, 65, 4, 0, 0, hi, lo];
    let mut body = vec![4, hi, lo, 0, 240];
    body.extend(p.addr.octets());
    body.push(capabilities.len() as u8 + 2);
    body.extend([2, capabilities.len() as u8]);
    body.append(&mut capabilities);
    message(OPEN, &body)
}

/// The UPDATEs that announce these prefixes.
pub(crate) fn announcements(p: &Peer, prefixes: std::ops::Range<u32>) -> Vec<u8> {
    let mut out = Vec::new();
    let mut first = prefixes.start;
    while first < prefixes.end {
        let last = (first + ALIKE).min(prefixes.end);
        out.extend(announcement(p, first / ALIKE, first..last));
        first = last;
    }
    out
}

fn announcement(p: &Peer, group: u32, prefixes: std::ops::Range<u32>) -> Vec<u8> {
    let mut path: Vec<u32> = vec![4000 + group % 1500, 9000 + group % 611, 20_000 + group % 97];
    if p.role != Role::Client {
        path.insert(0, p.asn.into());
    }
    let mut attributes = vec![0x40, 1, 1, 0];
    attributes.extend([0x40, 2, 2 + 4 * path.len() as u8, 2, path.len() as u8]);
    attributes.extend(path.iter().flat_map(|a| a.to_be_bytes()));
    attributes.extend([0x40, 3, 4]);
    attributes.extend(p.addr.octets());
    if p.role == Role::Client {
        attributes.extend([0x40, 5, 4, 0, 0, 0, 100]);
    }
    attributes.extend([0xc0, 8, 4]);
    attributes.extend((65_100 << 16 | (group % 200)).to_be_bytes());
    let mut body = vec![0, 0];
    body.extend((attributes.len() as u16).to_be_bytes());
    body.append(&mut attributes);
    body.extend(prefixes.flat_map(prefix));
    message(UPDATE, &body)
}

/// The UPDATEs that withdraw these prefixes.
pub(crate) fn withdrawals(prefixes: std::ops::Range<u32>) -> Vec<u8> {
    let all: Vec<u32> = prefixes.collect();
    let one = |some: &[u32]| {
        let mut body = ((4 * some.len()) as u16).to_be_bytes().to_vec();
        body.extend(some.iter().copied().flat_map(prefix));
        body.extend([0, 0]);
        message(UPDATE, &body)
    };
    all.chunks(1000).flat_map(one).collect()
}

/// What a peer was told so far.
#[derive(Debug, Default)]
pub(crate) struct Told {
    announced: AtomicU64,
    withdrawn: AtomicU64,
}

/// A peer whose session is up; an own thread reads what it is told.
#[derive(Debug)]
pub(crate) struct Session {
    peer: Peer,
    stream: TcpStream,
    told: Arc<Told>,
    over: Arc<AtomicBool>,
    reader: Option<JoinHandle<Result<()>>>,
}

impl Session {
    /// Brings a session up; blocks until it is.
    ///
    /// # Errors
    /// When the other side refuses.
    pub(crate) fn establish(ns: &NetNs, peer: Peer) -> Result<Self> {
        let to = SocketAddr::from((ADDRESS, 179));
        let began = Instant::now();
        let mut stream = loop {
            // A speaker that has just started may still damp, or take a moment to know its peers.
            match Self::attempt(ns, peer, to) {
                Ok(s) => break s,
                Err(e) if began.elapsed() > OPEN_TIME => return Err(e),
                Err(_) => crate::pause(STEP),
            }
        };
        stream.set_read_timeout(Some(STEP))?;
        let told = Arc::new(Told::default());
        let over = Arc::new(AtomicBool::new(false));
        let mut ear = Ear {
            stream: stream.try_clone()?,
            told: told.clone(),
            over: over.clone(),
        };
        stream.flush()?;
        let reader = std::thread::Builder::new()
            .stack_size(STACK)
            .spawn(move || ear.listen())?;
        Ok(Self {
            peer,
            stream,
            told,
            over,
            reader: Some(reader),
        })
    }

    fn attempt(ns: &NetNs, peer: Peer, to: SocketAddr) -> Result<TcpStream> {
        let mut stream = ns.run(|| connect_from(peer.addr, to))??;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        stream.write_all(&open(&peer))?;
        let kind = skip(&mut stream).context("wait for its OPEN")?;
        ensure!(
            kind == OPEN,
            "{}: message of type {kind} instead of OPEN",
            peer.addr
        );
        stream.write_all(&message(KEEPALIVE, &[]))?;
        let kind = skip(&mut stream).context("wait for its KEEPALIVE")?;
        ensure!(
            kind == KEEPALIVE,
            "{}: message of type {kind} instead of KEEPALIVE",
            peer.addr
        );
        Ok(stream)
    }

    /// Sends octets, made before.
    ///
    /// # Errors
    /// When the session is lost.
    pub(crate) fn send(&self, octets: &[u8]) -> Result<()> {
        let sent = (&self.stream).write_all(octets);
        sent.with_context(|| format!("send as {}", self.peer.addr))
    }

    /// Prefixes announced to it so far, each time counted.
    pub(crate) fn announced(&self) -> u64 {
        self.told.announced.load(Ordering::Relaxed)
    }

    /// Prefixes withdrawn from it so far.
    pub(crate) fn withdrawn(&self) -> u64 {
        self.told.withdrawn.load(Ordering::Relaxed)
    }

    /// Whether the session is still there.
    ///
    /// # Errors
    /// When it is not.
    pub(crate) fn alive(&self) -> Result<()> {
        match self.over.load(Ordering::Relaxed) {
            false => Ok(()),
            true => bail!("the session of {} ended", self.peer.addr),
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        let _ = self.stream.shutdown(Shutdown::Both);
        if let Some(r) = self.reader.take() {
            let _ = r.join();
        }
    }
}

fn connect_from(from: Ipv4Addr, to: SocketAddr) -> Result<TcpStream> {
    use rustix::net::{AddressFamily, SocketType, bind, connect, socket};
    let fd = socket(AddressFamily::INET, SocketType::STREAM, None)?;
    bind(&fd, &SocketAddrV4::new(from, 0))?;
    connect(&fd, &to)?;
    Ok(fd.into())
}

/// Reads one message, gives its type.
fn skip(stream: &mut TcpStream) -> Result<u8> {
    let mut header = [0; HEADER];
    stream.read_exact(&mut header)?;
    let len = usize::from(u16::from_be_bytes([header[16], header[17]]));
    let mut body = vec![0; len.saturating_sub(HEADER)];
    stream.read_exact(&mut body)?;
    ensure!(header[18] != NOTIFICATION, "NOTIFICATION {body:?}");
    Ok(header[18])
}

/// The thread that reads.
struct Ear {
    stream: TcpStream,
    told: Arc<Told>,
    over: Arc<AtomicBool>,
}

impl Ear {
    fn listen(&mut self) -> Result<()> {
        let done = self.hear();
        self.over.store(true, Ordering::Relaxed);
        done
    }

    fn hear(&mut self) -> Result<()> {
        let mut buffer = vec![0; 128 << 10];
        let mut filled = 0;
        let mut kept = Instant::now();
        while !self.over.load(Ordering::Relaxed) {
            if kept.elapsed() > KEEP {
                kept = Instant::now();
                self.stream.write_all(&message(KEEPALIVE, &[]))?;
            }
            match self.stream.read(&mut buffer[filled..]) {
                Ok(0) => return Ok(()),
                Ok(n) => filled += n,
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    continue;
                }
                Err(e) => return Err(e.into()),
            }
            let used = self.count(&buffer[..filled])?;
            buffer.copy_within(used..filled, 0);
            filled -= used;
        }
        Ok(())
    }

    fn count(&self, octets: &[u8]) -> Result<usize> {
        let mut at = 0;
        let (mut announced, mut withdrawn) = (0, 0);
        while let Some(header) = octets.get(at..at + HEADER) {
            let len = usize::from(u16::from_be_bytes([header[16], header[17]]));
            let Some(body) = octets.get(at + HEADER..at + len) else {
                break;
            };
            at += len;
            match header[18] {
                UPDATE => {
                    let gone = usize::from(u16::from_be_bytes([body[0], body[1]]));
                    let rest = &body[2 + gone..];
                    let attributes = usize::from(u16::from_be_bytes([rest[0], rest[1]]));
                    withdrawn += prefixes(&body[2..2 + gone]);
                    announced += prefixes(&rest[2 + attributes..]);
                }
                NOTIFICATION => bail!("NOTIFICATION {body:?}"),
                _ => {}
            }
        }
        self.told.announced.fetch_add(announced, Ordering::Relaxed);
        self.told.withdrawn.fetch_add(withdrawn, Ordering::Relaxed);
        Ok(at)
    }
}

fn prefixes(mut octets: &[u8]) -> u64 {
    let mut n = 0;
    while let Some(&len) = octets.first() {
        octets = &octets[1 + usize::from(len).div_ceil(8)..];
        n += 1;
    }
    n
}
