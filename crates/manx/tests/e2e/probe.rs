//! Packets from one namespace to another, and who saw them.
#![allow(unreachable_pub, reason = "the other modules are its public")]

use crate::support::{Node, until};
use netlink::netns::NetNs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Echoes datagrams on a port of a namespace, and remembers them.
pub struct Echo {
    seen: Arc<Mutex<Vec<String>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Echo {
    pub fn start(ns: &NetNs, port: u16) -> Self {
        let socket = ns
            .run(move || UdpSocket::bind(("::", port)))
            .expect("enter")
            .expect("a socket");
        socket
            .set_read_timeout(Some(Duration::from_millis(50)))
            .expect("a socket");
        let mut new = Self {
            seen: Arc::default(),
            stop: Arc::default(),
            thread: None,
        };
        let (seen, stop) = (new.seen.clone(), new.stop.clone());
        new.thread = Some(std::thread::spawn(move || {
            let mut buffer = [0; 256];
            while !stop.load(Ordering::Relaxed) {
                let Ok((n, from)) = socket.recv_from(&mut buffer) else {
                    continue;
                };
                let text = String::from_utf8_lossy(&buffer[..n]).into_owned();
                lock(&seen).push(text);
                // Who asked may be gone.
                let _ = socket.send_to(&buffer[..n], from);
            }
        }));
        new
    }

    pub fn saw(&self, text: &str) -> bool {
        lock(&self.seen).iter().any(|t| t.starts_with(text))
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // The port is free again afterwards.
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn lock<T>(m: &Mutex<T>) -> MutexGuard<'_, T> {
    m.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A datagram socket inside a namespace.
pub fn udp(ns: &NetNs, to: SocketAddr) -> UdpSocket {
    let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    ns.run(move || {
        let s = UdpSocket::bind(any)?;
        s.connect(to)?;
        Ok::<_, std::io::Error>(s)
    })
    .expect("enter")
    .expect("a socket")
}

/// Sends one datagram and waits for its echo.
pub fn exchange(socket: &UdpSocket, text: &str, patience: Duration) -> bool {
    socket.set_read_timeout(Some(patience)).expect("a socket");
    if socket.send(text.as_bytes()).is_err() {
        return false;
    }
    let end = Instant::now() + patience;
    let mut buffer = [0; 256];
    while Instant::now() < end {
        match socket.recv(&mut buffer) {
            Ok(n) if &buffer[..n] == text.as_bytes() => return true,
            Ok(_) => {}
            Err(_) => return false,
        }
    }
    false
}

/// One datagram there and back, from a port that was never used. No second try.
pub fn reaches(ns: &NetNs, to: SocketAddr, text: &str) -> bool {
    exchange(&udp(ns, to), text, Duration::from_secs(5))
}

/// Whether datagrams get through by now, asked again and again with little patience.
pub fn soon(ns: &NetNs, to: SocketAddr, what: &str) {
    until(what, || {
        exchange(&udp(ns, to), what, Duration::from_millis(200))
    });
}

/// Sends a datagram that must not arrive, then one over the same last link that does: the node
/// itself is never held. What was sent first would have come first.
#[track_caller]
pub fn is_shut(from: &NetNs, node: &Node, to: SocketAddr, server: &Echo, text: &str) {
    // A refusal would be an answer too.
    let _ = udp(from, to).send(text.as_bytes());
    let marker = format!("after {text}");
    assert!(reaches(&node.ns, to, &marker), "the node reaches {to}");
    assert!(!server.saw(text), "{text}: it arrived at {to}");
}

/// Echoes streams on a port of a namespace.
pub fn echo_streams(ns: &NetNs, port: u16) {
    let listener = ns
        .run(move || TcpListener::bind(("::", port)))
        .expect("enter")
        .expect("listen");
    std::thread::spawn(move || {
        for s in listener.incoming() {
            let Ok(mut s) = s else { return };
            std::thread::spawn(move || {
                let Ok(mut other) = s.try_clone() else { return };
                let _ = std::io::copy(&mut s, &mut other);
            });
        }
    });
}

/// A stream from a namespace.
pub fn connect(ns: &NetNs, to: SocketAddr) -> Option<TcpStream> {
    let open = move || TcpStream::connect_timeout(&to, Duration::from_secs(2));
    ns.run(open).expect("enter").ok()
}

/// One word there and back.
pub fn says(s: &mut TcpStream, word: &str) -> bool {
    s.set_read_timeout(Some(Duration::from_secs(5)))
        .expect("a socket");
    let mut buffer = vec![0; word.len()];
    s.write_all(word.as_bytes()).is_ok()
        && s.read_exact(&mut buffer).is_ok()
        && buffer == word.as_bytes()
}
