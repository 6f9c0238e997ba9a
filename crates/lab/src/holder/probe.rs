//! Sending packets from one end of the lab to another, and judging what comes back.
//!
//! Promises: real sockets in the sender's namespace; `Open` only if the receiver answered;
//! a refusal, an ICMP error and silence are told apart; every probe ends by its timeout.
//!
//! Never: judges whether the result is right.

use crate::holder::sctp::{self, Packet};
use crate::holder::servers::{Greeting, Servers, ip_header};
use crate::holder::sockets::{self, Socket};
use crate::protocol::{Checked, Outcome, StreamReport, Verdict};
use net::{Family, Protocol};
use netlink::netns::NetNs;
use scenario::Port;
use scenario::SourceIs;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use tokio::time::{sleep, timeout};

/// A flow with names turned into namespaces and addresses.
#[derive(Debug, Clone)]
pub(super) struct Resolved {
    /// Where the sender is.
    pub from: Arc<NetNs>,
    /// Its addresses.
    pub from_addresses: Vec<IpAddr>,
    /// Those of its node.
    pub from_node: Vec<IpAddr>,
    /// Where the receiver is, if it is one of ours.
    pub to: Option<Arc<NetNs>>,
    /// The address to send to.
    pub address: IpAddr,
    /// What the receiver calls itself.
    pub label: String,
    /// What to send.
    pub port: Port,
}

/// Datagrams are sent again after this long: the first may wait for a neighbour's address.
const RESEND: Duration = Duration::from_millis(200);
/// For the greeting, once a connection stands.
const GREETING: Duration = Duration::from_millis(500);
/// A permission may take until the deadline; each try is this patient at first.
const FIRST_TRY: Duration = Duration::from_millis(200);
/// A prohibition must hold twice in a row for this long each: what was closed before a change
/// may still be closed just after it by the old rules.
const SILENCE: Duration = Duration::from_millis(500);
const AGAIN: Duration = Duration::from_millis(10);

static TOKEN: AtomicU32 = AtomicU32::new(1);

/// Sends once and waits.
pub(super) async fn once(flow: &Resolved, servers: &Servers, patience: Duration) -> Outcome {
    if let Some(to) = &flow.to
        && let Err(e) = servers.ensure(to, flow.address, flow.port, &flow.label)
    {
        return Outcome {
            address: Some(flow.address),
            ..Outcome::failed(format!(
                "{} cannot listen on {}: {e}",
                flow.label, flow.port
            ))
        };
    }
    let began = Instant::now();
    let mut outcome = Outcome {
        verdict: Verdict::Dropped,
        address: Some(flow.address),
        source: None,
        ttl: None,
        micros: 0,
    };
    let sent = async {
        match flow.port.protocol {
            Protocol::TCP => tcp(flow, &mut outcome).await,
            Protocol::UDP => udp(flow, &mut outcome).await,
            Protocol::SCTP => sctp(flow, &mut outcome).await,
            _ => icmp(flow, &mut outcome).await,
        }
    };
    let ended = timeout(patience, sent).await;
    outcome.micros = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
    match ended {
        Ok(Ok(())) => outcome.verdict = Verdict::Open,
        Ok(Err(Fault::Local(e))) => outcome.verdict = Verdict::Unreachable(e.to_string()),
        Ok(Err(Fault::Remote(e))) => outcome.verdict = judge(&e),
        Ok(Err(Fault::Refused)) => outcome.verdict = Verdict::Refused,
        Ok(Err(Fault::Broken(e))) => outcome.verdict = Verdict::Failed(e),
        // A connection that stood is open, even if its greeting was slow.
        Err(_) if outcome.verdict == Verdict::Open => {}
        Err(_) => outcome.verdict = Verdict::Dropped,
    }
    outcome
}

enum Fault {
    /// It was not sent.
    Local(io::Error),
    /// An error came back.
    Remote(io::Error),
    /// The peer said no.
    Refused,
    /// The probe does not work.
    Broken(String),
}

fn broken(what: &str) -> impl Fn(io::Error) -> Fault + '_ {
    move |e| Fault::Broken(format!("{what}: {e}"))
}

fn judge(e: &io::Error) -> Verdict {
    match e.raw_os_error() {
        Some(libc::ECONNREFUSED | libc::ECONNRESET) => Verdict::Refused,
        Some(libc::ETIMEDOUT) => Verdict::Dropped,
        _ => Verdict::Rejected(e.to_string()),
    }
}

async fn tcp(flow: &Resolved, outcome: &mut Outcome) -> Result<(), Fault> {
    let at = SocketAddr::new(flow.address, flow.port.number);
    let fd = sockets::open(&flow.from, flow.address, libc::SOCK_STREAM, 0);
    let fd = fd.map_err(broken("make a socket"))?;
    sockets::connect(&fd, at).map_err(Fault::Local)?;
    let socket = Socket::new(fd).map_err(broken("watch a socket"))?;
    socket.connected().await.map_err(Fault::Remote)?;
    outcome.verdict = Verdict::Open;
    let mut buffer = vec![0; 4096];
    // A program of the user's may listen there and say nothing.
    if let Ok(Ok(got)) = timeout(GREETING, socket.receive(&mut buffer)).await {
        outcome.source = source(&buffer[..got.len]);
    }
    Ok(())
}

fn source(answer: &[u8]) -> Option<IpAddr> {
    let line = answer.split(|b| *b == b'\n').next()?;
    let greeting: Greeting = serde_json::from_slice(line).ok()?;
    Some(greeting.peer.ip().to_canonical())
}

async fn udp(flow: &Resolved, outcome: &mut Outcome) -> Result<(), Fault> {
    let socket = datagrams(flow)?;
    let mut buffer = vec![0; 4096];
    loop {
        socket.send(b"probe").await.map_err(Fault::Remote)?;
        if let Ok(got) = timeout(RESEND, socket.receive(&mut buffer)).await {
            let got = got.map_err(Fault::Remote)?;
            outcome.source = source(&buffer[..got.len]);
            return Ok(());
        }
    }
}

fn datagrams(flow: &Resolved) -> Result<Socket, Fault> {
    let fd = sockets::open(&flow.from, flow.address, libc::SOCK_DGRAM, 0);
    let fd = fd.map_err(broken("make a socket"))?;
    sockets::connect(&fd, SocketAddr::new(flow.address, flow.port.number)).map_err(Fault::Local)?;
    Socket::new(fd).map_err(broken("watch a socket"))
}

async fn sctp(flow: &Resolved, outcome: &mut Outcome) -> Result<(), Fault> {
    let fd = sockets::open(&flow.from, flow.address, libc::SOCK_RAW, sctp::PROTOCOL);
    let fd = fd.map_err(broken("make a raw socket"))?;
    sockets::connect(&fd, SocketAddr::new(flow.address, 0)).map_err(Fault::Local)?;
    let socket = Socket::new(fd).map_err(broken("watch a socket"))?;
    let tag = TOKEN.fetch_add(1, Ordering::Relaxed);
    let own = 32_768 + (tag % 28_000) as u16;
    let init = sctp::init(own, flow.port.number, tag);
    let family = Family::of(flow.address);
    let mut buffer = vec![0; 2048];
    loop {
        socket.send(&init).await.map_err(Fault::Remote)?;
        let answer = timeout(RESEND, async {
            loop {
                let got = socket.receive(&mut buffer).await.map_err(Fault::Remote)?;
                let packet = &buffer[ip_header(&buffer[..got.len], family)..got.len];
                match sctp::parse(packet) {
                    Some(Packet::InitAck {
                        destination,
                        cookie,
                        ..
                    }) if destination == own => {
                        return Ok(cookie);
                    }
                    Some(Packet::Abort { destination, .. }) if destination == own => {
                        return Err(Fault::Refused);
                    }
                    _ => {}
                }
            }
        });
        if let Ok(cookie) = answer.await {
            outcome.source = String::from_utf8(cookie?).ok().and_then(|t| t.parse().ok());
            return Ok(());
        }
    }
}

/// An ICMP message with our token after the header.
fn message(family: Family, kind: u8, code: u8, token: u32) -> Vec<u8> {
    let mut m = vec![kind, code, 0, 0];
    // An identifier of its own: connection tracking takes equal ones for one conversation, and
    // lets it go on after policy has changed.
    m.extend_from_slice(&token.to_be_bytes()[2..]);
    m.extend_from_slice(&[0, 1]);
    m.extend_from_slice(b"manx");
    m.extend_from_slice(&token.to_be_bytes());
    m.resize(64, 0);
    // The kernel sums ICMPv6, whose sum covers addresses that we do not know yet.
    if family == Family::V4 {
        let sum = checksum(&m);
        m[2..4].copy_from_slice(&sum.to_be_bytes());
    }
    m
}

/// RFC 1071.
fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes
        .chunks(2)
        .map(|c| u32::from(c[0]) << 8 | c.get(1).map_or(0, |b| u32::from(*b)));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    #[expect(clippy::cast_possible_truncation, reason = "folded above")]
    let sum = sum as u16;
    !sum
}

fn is_ours(m: &[u8], kind: u8, token: u32) -> bool {
    m.first() == Some(&kind)
        && m.get(8..12) == Some(b"manx")
        && m.get(12..16) == Some(&token.to_be_bytes())
}

fn icmp_socket(ns: &NetNs, family: Family, addr: IpAddr) -> io::Result<std::os::fd::OwnedFd> {
    let protocol = if family == Family::V4 {
        libc::IPPROTO_ICMP
    } else {
        libc::IPPROTO_ICMPV6
    };
    let fd = sockets::open(ns, addr, libc::SOCK_RAW, protocol)?;
    if family == Family::V6 {
        sockets::set(&fd, libc::IPPROTO_IPV6, libc::IPV6_RECVHOPLIMIT, 1)?;
    }
    Ok(fd)
}

async fn icmp(flow: &Resolved, outcome: &mut Outcome) -> Result<(), Fault> {
    let family = Family::of(flow.address);
    let (ask, reply) = if family == Family::V4 {
        (8, 0)
    } else {
        (128, 129)
    };
    let (kind, code) = flow.port.icmp.unwrap_or((ask, 0));
    let token = TOKEN.fetch_add(1, Ordering::Relaxed);
    let fd = icmp_socket(&flow.from, family, flow.address).map_err(broken("make a raw socket"))?;
    sockets::connect(&fd, SocketAddr::new(flow.address, 0)).map_err(Fault::Local)?;
    let socket = Socket::new(fd).map_err(broken("watch a socket"))?;
    // Looks on at the receiver's: which address it sees, and what gets no reply at all.
    let witness = match &flow.to {
        Some(ns) => {
            let fd = icmp_socket(ns, family, flow.address).map_err(broken("make a raw socket"))?;
            sockets::bind(&fd, SocketAddr::new(flow.address, 0)).map_err(broken("bind"))?;
            Some(Socket::new(fd).map_err(broken("watch a socket"))?)
        }
        None if kind != ask => {
            return Err(Fault::Broken(
                "only a pod, node or host shows that it got this".to_owned(),
            ));
        }
        None => None,
    };
    let request = message(family, kind, code, token);
    let (mut seen, mut answered) = (false, kind != ask);
    let (mut at_sender, mut at_receiver) = (vec![0; 2048], vec![0; 2048]);
    loop {
        socket.send(&request).await.map_err(Fault::Remote)?;
        let round = async {
            while !(answered && (seen || witness.is_none())) {
                let looking = async {
                    match &witness {
                        Some(w) => w.receive(&mut at_receiver).await,
                        None => std::future::pending().await,
                    }
                };
                tokio::select! {
                    biased;
                    got = looking => {
                        let got = got.map_err(broken("look on"))?;
                        let m = &at_receiver[ip_header(&at_receiver[..got.len], family)..got.len];
                        if is_ours(m, kind, token) {
                            seen = true;
                            outcome.source = got.from;
                        }
                    }
                    got = socket.receive(&mut at_sender) => {
                        let got = got.map_err(Fault::Remote)?;
                        let start = ip_header(&at_sender[..got.len], family);
                        if is_ours(&at_sender[start..got.len], reply, token) {
                            answered = true;
                            let ttl = (family == Family::V4).then(|| at_sender[8]);
                            outcome.ttl = ttl.or(got.hops);
                        }
                    }
                }
            }
            Ok(())
        };
        if let Ok(done) = timeout(RESEND, round).await {
            return done;
        }
        // The witness lost it among others' messages; the answer is what counts.
        if answered && kind == ask {
            return Ok(());
        }
    }
}

/// What is expected of a flow.
#[derive(Debug, Clone)]
pub(super) struct Expectation {
    /// The flow.
    pub flow: Resolved,
    /// It must get through.
    pub allow: bool,
    /// From this source.
    pub source: Option<SourceIs>,
    /// A prohibition is proved by one silence of this length; without it by two of half a second.
    pub quiet: Option<Duration>,
}

/// Sends until it is as expected, or the deadline is over.
pub(super) async fn check(e: &Expectation, servers: &Servers, deadline: Duration) -> Checked {
    let began = Instant::now();
    let mut patience = FIRST_TRY;
    loop {
        let (ok, outcome) = if e.allow {
            let outcome = once(&e.flow, servers, patience).await;
            patience = (patience * 2).min(Duration::from_secs(1));
            (
                outcome.verdict == Verdict::Open && source_fits(e, &outcome),
                outcome,
            )
        } else {
            let mut outcome = once(&e.flow, servers, e.quiet.unwrap_or(SILENCE)).await;
            if outcome.verdict != Verdict::Open && e.quiet.is_none() {
                outcome = once(&e.flow, servers, SILENCE).await;
            }
            (
                !matches!(outcome.verdict, Verdict::Open | Verdict::Failed(_)),
                outcome,
            )
        };
        if ok || began.elapsed() >= deadline {
            let micros = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
            return Checked {
                ok,
                outcome,
                micros,
            };
        }
        sleep(AGAIN).await;
    }
}

fn source_fits(e: &Expectation, outcome: &Outcome) -> bool {
    let Some(expected) = e.source else {
        return true;
    };
    let Some(seen) = outcome.source else {
        return false;
    };
    match expected {
        SourceIs::Pod => e.flow.from_addresses.contains(&seen),
        SourceIs::Node => e.flow.from_node.contains(&seen),
        SourceIs::Address(a) => a == seen,
    }
}

/// Sends datagrams at an interval and counts the answers, until `stop` completes or the
/// time is over.
pub(super) async fn stream(
    flow: &Resolved,
    servers: &Servers,
    length: Duration,
    interval: Duration,
    stop: impl Future<Output = ()>,
) -> Result<StreamReport, String> {
    if flow.port.protocol != Protocol::UDP {
        return Err(format!(
            "{} is no UDP port: only datagrams can be counted",
            flow.port
        ));
    }
    if let Some(to) = &flow.to {
        let listening = servers.ensure(to, flow.address, flow.port, &flow.label);
        listening.map_err(|e| format!("{} cannot listen: {e}", flow.label))?;
    }
    let socket = datagrams(flow).map_err(|f| match f {
        Fault::Local(e) => format!("send from the start: {e}"),
        Fault::Broken(e) => e,
        Fault::Remote(e) => e.to_string(),
        Fault::Refused => "refused".to_owned(),
    })?;
    let mut report = StreamReport {
        sent: 0,
        received: 0,
        longest_gap_us: 0,
    };
    let mut answered = std::collections::HashSet::new();
    let mut last = Instant::now();
    let mut buffer = vec![0; 4096];
    let mut ticks = tokio::time::interval(interval);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    tokio::pin!(stop);
    // After the end, what is under way may still arrive.
    let mut end = Box::pin(sleep(length));
    let mut stopping = false;
    loop {
        tokio::select! {
            biased;
            got = socket.receive(&mut buffer) => {
                // ICMP errors count as what they are: no answer.
                if let Ok(got) = got
                    && let Some(sequence) = sequence(&buffer[..got.len])
                    && answered.insert(sequence)
                {
                    report.received += 1;
                    if !stopping {
                        silence(&mut report, last);
                    }
                    last = Instant::now();
                }
                if stopping && report.received == report.sent {
                    return Ok(report);
                }
            }
            _ = ticks.tick(), if !stopping => {
                let _ = socket.send(report.sent.to_string().as_bytes()).await;
                report.sent += 1;
            }
            () = &mut stop, if !stopping => {
                stopping = true;
                silence(&mut report, last);
                end = Box::pin(sleep(RESEND));
            }
            () = &mut end => {
                if stopping {
                    return Ok(report);
                }
                stopping = true;
                silence(&mut report, last);
                end = Box::pin(sleep(RESEND));
            }
        }
    }
}

/// Counts the time since the last answer.
fn silence(report: &mut StreamReport, last: Instant) {
    let gap = u64::try_from(last.elapsed().as_micros()).unwrap_or(u64::MAX);
    report.longest_gap_us = report.longest_gap_us.max(gap);
}

fn sequence(answer: &[u8]) -> Option<u64> {
    let at = answer.iter().position(|b| *b == b'\n')?;
    std::str::from_utf8(&answer[at + 1..]).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn icmp_messages_sum_to_zero() {
        let m = message(Family::V4, 8, 0, 0x1234_5678);
        assert_eq!(checksum(&m), 0);
        assert!(is_ours(&m, 8, 0x1234_5678));
        assert!(!is_ours(&m, 8, 1));
    }

    #[test]
    fn errors_are_told_apart() {
        let of = |n| judge(&io::Error::from_raw_os_error(n)).word();
        assert_eq!(of(libc::ECONNREFUSED), "refused");
        assert_eq!(of(libc::EHOSTUNREACH), "rejected");
        assert_eq!(of(libc::ETIMEDOUT), "dropped");
    }
}
