//! Who answers probes: sockets inside the namespaces of pods, nodes and hosts, served by the
//! holder, so that a pod costs no process.
//!
//! Promises: a port that was asked for listens when `ensure` returns; an answer carries the
//! address that the server saw the question come from.
//!
//! Never: takes a port that a program in the namespace already has: that answers then.

use crate::holder::sctp::{self, Packet};
use crate::holder::sockets::{self, Socket};
use net::{Family, Protocol};
use netlink::netns::{NetNs, NetNsId};
use scenario::Port;
use serde::{Deserialize, Serialize};
use std::collections::{HashMap, HashSet};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::task::JoinHandle;

/// What a server says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Greeting {
    /// Who answers.
    pub server: String,
    /// Where the question came from.
    pub peer: SocketAddr,
}

/// A listener's identity: UDP per address, so that answers come from the address asked; SCTP
/// one socket for all ports.
type Key = (NetNsId, IpAddr, Protocol, u16);
type Ports = Arc<Mutex<HashSet<u16>>>;

#[derive(Debug)]
struct Listening {
    task: JoinHandle<()>,
    ports: Option<Ports>,
}

/// All listeners of the lab.
#[derive(Debug)]
pub(super) struct Servers {
    runtime: tokio::runtime::Handle,
    listening: Mutex<HashMap<Key, Listening>>,
}

impl Servers {
    /// None yet.
    pub(super) fn new(runtime: tokio::runtime::Handle) -> Self {
        Self {
            runtime,
            listening: Mutex::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Listening>> {
        self.listening
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Listens on a port of an address in `ns`, if nothing does yet.
    ///
    /// # Errors
    /// If the address is not there, or the kernel refuses.
    pub(super) fn ensure(
        &self,
        ns: &NetNs,
        addr: IpAddr,
        port: Port,
        label: &str,
    ) -> io::Result<()> {
        let number = if port.protocol == Protocol::SCTP {
            0
        } else {
            port.number
        };
        let key = (ns.id(), addr, port.protocol, number);
        let mut listening = self.lock();
        if let Some(l) = listening.get(&key) {
            if let Some(ports) = &l.ports {
                ports
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .insert(port.number);
            }
            return Ok(());
        }
        let _inside = self.runtime.enter();
        let at = SocketAddr::new(addr, port.number);
        let label = label.to_owned();
        let mut ports = None;
        let task = match port.protocol {
            Protocol::TCP => {
                let bound = ns
                    .run(|| std::net::TcpListener::bind(at))
                    .map_err(io::Error::other)?;
                let Some(listener) = unless_taken(bound)? else {
                    return Ok(());
                };
                listener.set_nonblocking(true)?;
                self.runtime
                    .spawn(tcp(TcpListener::from_std(listener)?, label))
            }
            Protocol::UDP => {
                let bound = ns
                    .run(|| std::net::UdpSocket::bind(at))
                    .map_err(io::Error::other)?;
                let Some(socket) = unless_taken(bound)? else {
                    return Ok(());
                };
                socket.set_nonblocking(true)?;
                self.runtime.spawn(udp(UdpSocket::from_std(socket)?, label))
            }
            Protocol::SCTP => {
                let fd = sockets::open(ns, addr, libc::SOCK_RAW, sctp::PROTOCOL)?;
                sockets::bind(&fd, SocketAddr::new(addr, 0))?;
                let open = Ports::new(Mutex::new(HashSet::from([port.number])));
                ports = Some(Arc::clone(&open));
                self.runtime
                    .spawn(sctp_server(Socket::new(fd)?, Family::of(addr), open))
            }
            // The kernel answers.
            _ => return Ok(()),
        };
        listening.insert(key, Listening { task, ports });
        Ok(())
    }

    /// Closes all listeners of a namespace, so that it can end.
    pub(super) fn forget(&self, ns: NetNsId) {
        self.lock().retain(|key, l| {
            let stays = key.0 != ns;
            if !stays {
                l.task.abort();
            }
            stays
        });
    }
}

fn unless_taken<T>(bound: io::Result<T>) -> io::Result<Option<T>> {
    match bound {
        Err(e) if e.kind() == io::ErrorKind::AddrInUse => Ok(None),
        other => other.map(Some),
    }
}

fn greeting(server: &str, peer: SocketAddr) -> Vec<u8> {
    let text = Greeting {
        server: server.to_owned(),
        peer,
    };
    let mut line = serde_json::to_vec(&text).unwrap_or_default();
    line.push(b'\n');
    line
}

async fn tcp(listener: TcpListener, label: String) {
    while let Ok((stream, peer)) = listener.accept().await {
        let label = label.clone();
        // Ends with its peer; a pod's end resets it.
        tokio::spawn(async move {
            let _ = converse(stream, &label, peer).await;
        });
    }
}

/// Greets, then gives every line back.
async fn converse(stream: TcpStream, label: &str, peer: SocketAddr) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut stream = BufReader::new(stream);
    stream.write_all(&greeting(label, peer)).await?;
    let mut line = Vec::new();
    while stream.read_until(b'\n', &mut line).await? > 0 {
        stream.write_all(&line).await?;
        line.clear();
    }
    Ok(())
}

/// Answers each datagram with a greeting and the datagram.
async fn udp(socket: UdpSocket, label: String) {
    let mut buffer = vec![0; 64 << 10];
    loop {
        // An error is an ICMP message about an answer; the next question is unaffected.
        if let Ok((n, peer)) = socket.recv_from(&mut buffer).await {
            let mut answer = greeting(&label, peer);
            answer.extend_from_slice(&buffer[..n]);
            let _ = socket.send_to(&answer, peer).await;
        }
    }
}

async fn sctp_server(socket: Socket, family: Family, open: Ports) {
    let mut buffer = vec![0; 2048];
    loop {
        let Ok(got) = socket.receive(&mut buffer).await else {
            continue;
        };
        let Some(from) = got.from else { continue };
        let header = ip_header(&buffer[..got.len], family);
        let Some(Packet::Init {
            source,
            destination,
            tag,
        }) = sctp::parse(&buffer[header..got.len])
        else {
            continue;
        };
        if !open
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .contains(&destination)
        {
            continue;
        }
        let cookie = from.to_string();
        let own_tag = tag.rotate_left(7) | 1;
        let answer = sctp::init_ack(destination, source, tag, own_tag, cookie.as_bytes());
        let _ = socket.send_to(&answer, SocketAddr::new(from, 0)).await;
    }
}

/// Raw IPv4 sockets show the header, raw IPv6 sockets do not.
pub(super) fn ip_header(packet: &[u8], family: Family) -> usize {
    match family {
        Family::V4 => packet
            .first()
            .map_or(0, |b| usize::from(b & 0xf) * 4)
            .min(packet.len()),
        Family::V6 => 0,
    }
}
