//! TCP between two namespaces, in one process: a server thread and a client thread, each on a core
//! that it is told.
//!
//! Promises: every slice has a new connection (or many), lasts for the time asked, and counts only what
//! arrived.
//!
//! Never: measures a slice that failed as zero: it is an error.

use anyhow::{Context, Result, ensure};
use netlink::netns::NetNs;
use serde_json::Value;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(5);
const BUFFER: usize = 128 << 10;

/// What travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// As many bytes as go through: bits a second.
    Stream,
    /// One byte there and back, both ends on one core: answers a second.
    Near,
    /// The same, with the ends on two cores.
    Far,
    /// A connection, one byte there and back, and its end: connections a second.
    Connect,
}

impl Kind {
    /// Each, in the order of the table.
    pub(crate) const ALL: [Self; 4] = [Self::Stream, Self::Near, Self::Far, Self::Connect];

    /// For the table.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Stream => "TCP throughput",
            Self::Near => "TCP requests, 1 byte, both ends on one core",
            Self::Far => "TCP requests, 1 byte, ends on two cores",
            Self::Connect => "TCP connections, each with one request",
        }
    }

    /// For the table.
    pub(crate) const fn unit(self) -> &'static str {
        match self {
            Self::Stream => "Gbit/s",
            Self::Near | Self::Far => "requests/s",
            Self::Connect => "connections/s",
        }
    }

    /// The server's and the client's core.
    const fn cores(self) -> (usize, usize) {
        match self {
            Self::Stream | Self::Far => (1, 0),
            Self::Near | Self::Connect => (0, 0),
        }
    }
}

/// Two ends that can reach each other.
#[derive(Debug)]
pub(crate) struct Ends<'a> {
    /// The client's network.
    pub client: &'a NetNs,
    /// The server's.
    pub server: &'a NetNs,
    /// The server's address.
    pub addr: Ipv4Addr,
    /// The port that the server listens on.
    pub port: u16,
}

/// Keeps the calling thread on a core, if there is such a one.
fn pin(core: usize) {
    // SAFETY: an all-zero set is empty; the call concerns the calling thread alone.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(core, &mut set);
        // With fewer cores the scheduler's choice is as good.
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set);
    }
}

impl Ends<'_> {
    /// Measures for `time`; the figure is in the kind's unit.
    ///
    /// # Errors
    /// When a connection fails.
    pub(crate) fn slice(&self, kind: Kind, time: Duration) -> Result<f64> {
        let to = SocketAddr::from((self.addr, self.port));
        let listener = self
            .server
            .run(|| TcpListener::bind(to))?
            .context("listen")?;
        let (server_core, client_core) = kind.cores();
        std::thread::scope(|s| {
            let server = s.spawn(move || {
                pin(server_core);
                serve(&listener, kind)
            });
            let client = self.client.run(|| {
                pin(client_core);
                let done = client(kind, to, time);
                // Ends the server also when something failed: it waits for the next connection.
                let last = TcpStream::connect_timeout(&to, PATIENCE).map(drop);
                done.and_then(|d| last.context("connect once more").map(|()| d))
            });
            let served = server
                .join()
                .unwrap_or_else(|p| std::panic::resume_unwind(p));
            let done = client?.with_context(|| format!("{} to {to}", kind.name()))?;
            served.context("serve").map(|()| done)
        })
    }

    /// Throughput as iperf3 sees it, in Gbit/s.
    ///
    /// # Errors
    /// When it fails or is not there.
    pub(crate) fn iperf(&self, seconds: u32) -> Result<f64> {
        let port = self.port.to_string();
        let mut server = Server(
            self.server
                .command("iperf3")?
                .args(["--server", "--one-off", "--port", &port])
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                .spawn()
                .context("start iperf3")?,
        );
        self.wait_for_listener()?;
        let addr = self.addr.to_string();
        let time = seconds.to_string();
        let mut client = self.client.command("iperf3")?;
        let out = client
            .args([
                "--client",
                &addr,
                "--port",
                &port,
                "--time",
                &time,
                "--json",
                "--affinity",
                "0,1",
            ])
            .output()
            .context("start iperf3")?;
        let _ = server.0.wait();
        let v: Value = serde_json::from_slice(&out.stdout).context("read iperf3's answer")?;
        if let Some(e) = v["error"].as_str() {
            anyhow::bail!("iperf3: {e}");
        }
        let bits = v["end"]["sum_received"]["bits_per_second"].as_f64();
        Ok(bits.context("iperf3 names no bits per second")? / 1e9)
    }

    /// A connection to see whether it listens would be the one that it serves, so the kernel is asked.
    fn wait_for_listener(&self) -> Result<()> {
        let hex = format!(":{:04X} ", self.port);
        let began = Instant::now();
        loop {
            let listens = |file: &str| {
                let all = std::fs::read_to_string(file).unwrap_or_default();
                // The second column is the own address, the fourth the state; 0A listens.
                all.lines()
                    .any(|l| l.contains(&hex) && l.split_whitespace().nth(3) == Some("0A"))
            };
            let found = self.server.run(|| {
                listens("/proc/thread-self/net/tcp") || listens("/proc/thread-self/net/tcp6")
            })?;
            if found {
                return Ok(());
            }
            ensure!(began.elapsed() < PATIENCE, "iperf3 does not listen");
            crate::pause(Duration::from_millis(2));
        }
    }
}

/// A process that does not outlive its handle.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn serve(listener: &TcpListener, kind: Kind) -> Result<()> {
    let mut buffer = vec![0; BUFFER];
    // What comes without a word is the client's way to say that it has enough.
    loop {
        let mut s = listener.accept()?.0;
        s.set_read_timeout(Some(PATIENCE))?;
        s.set_nodelay(true)?;
        match kind {
            Kind::Stream => {
                let mut total = 0_u64;
                loop {
                    match s.read(&mut buffer)? {
                        0 => break,
                        n => total += n as u64,
                    }
                }
                if total == 0 {
                    return Ok(());
                }
                s.write_all(&total.to_be_bytes())?;
            }
            Kind::Near | Kind::Far | Kind::Connect => {
                let mut any = false;
                let mut byte = [0];
                // A reset is how the client ends a connection without a trace.
                while matches!(s.read(&mut byte), Ok(1)) {
                    any = true;
                    s.write_all(&byte)?;
                }
                if !any {
                    return Ok(());
                }
            }
        }
    }
}

fn client(kind: Kind, to: SocketAddr, time: Duration) -> Result<f64> {
    let began = Instant::now();
    let done = match kind {
        Kind::Stream => stream(to, time)?,
        Kind::Near | Kind::Far => requests(to, time)?,
        Kind::Connect => {
            let mut count = 0_u32;
            while began.elapsed() < time {
                let mut s = TcpStream::connect_timeout(&to, PATIENCE)?;
                abort_at_end(&s)?;
                exchange(&mut s)?;
                count += 1;
            }
            f64::from(count)
        }
    };
    Ok(done / began.elapsed().as_secs_f64())
}

fn stream(to: SocketAddr, time: Duration) -> Result<f64> {
    let mut s = TcpStream::connect_timeout(&to, PATIENCE)?;
    s.set_write_timeout(Some(PATIENCE))?;
    s.set_read_timeout(Some(PATIENCE))?;
    let buffer = vec![0x55; BUFFER];
    let began = Instant::now();
    while began.elapsed() < time {
        s.write_all(&buffer)?;
    }
    s.shutdown(std::net::Shutdown::Write)?;
    let mut total = [0; 8];
    s.read_exact(&mut total)?;
    Ok(u64::from_be_bytes(total) as f64 * 8.0 / 1e9)
}

fn requests(to: SocketAddr, time: Duration) -> Result<f64> {
    let mut s = TcpStream::connect_timeout(&to, PATIENCE)?;
    s.set_nodelay(true)?;
    s.set_read_timeout(Some(PATIENCE))?;
    let began = Instant::now();
    let mut count = 0_u32;
    loop {
        // The clock is read once in sixteen: it must not be what is measured.
        for _ in 0..16 {
            exchange(&mut s)?;
        }
        count += 16;
        if began.elapsed() >= time {
            abort_at_end(&s)?;
            return Ok(f64::from(count));
        }
    }
}

fn exchange(s: &mut TcpStream) -> Result<()> {
    let mut byte = [7];
    s.write_all(&byte)?;
    s.read_exact(&mut byte)?;
    Ok(())
}

/// Ends a connection by a reset, so that its port is free at once.
fn abort_at_end(s: &TcpStream) -> Result<()> {
    let linger = libc::linger {
        l_onoff: 1,
        l_linger: 0,
    };
    // SAFETY: the option takes a `linger` of this size.
    let done = unsafe {
        libc::setsockopt(
            s.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_LINGER,
            (&raw const linger).cast(),
            size_of::<libc::linger>() as libc::socklen_t,
        )
    };
    ensure!(
        done == 0,
        "set SO_LINGER: {}",
        std::io::Error::last_os_error()
    );
    Ok(())
}

/// UDP packets without a socket's memory: each may have another source port, so that each is a new
/// connection to the kernel and judged by the rules.
#[derive(Debug)]
pub(crate) struct Shots {
    raw: std::os::fd::OwnedFd,
    inbox: std::net::UdpSocket,
    from: Ipv4Addr,
    to: Ipv4Addr,
    port: u16,
    next: u32,
    /// When each was sent.
    pub sent: Vec<Instant>,
    /// Whether each arrived.
    pub arrived: Vec<bool>,
}

impl Shots {
    /// From one pod to a port of another.
    ///
    /// # Errors
    /// When there can be no sockets.
    pub(crate) fn new(from: (&NetNs, Ipv4Addr), to: (&NetNs, Ipv4Addr), port: u16) -> Result<Self> {
        use rustix::net::{AddressFamily, Protocol, SocketFlags, SocketType, socket_with};
        let raw = from.0.run(|| {
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            // Such a socket takes whole packets, with their header.
            let protocol = rustix::net::ipproto::RAW;
            let protocol: Option<Protocol> = Some(protocol);
            socket_with(AddressFamily::INET, SocketType::RAW, flags, protocol)
        })?;
        let raw = raw.context("open a raw socket")?;
        let inbox =
            to.0.run(|| std::net::UdpSocket::bind((IpAddr::V4(to.1), port)))?;
        let inbox = inbox.context("open the receiving socket")?;
        inbox.set_nonblocking(true)?;
        let (sent, arrived) = (Vec::new(), Vec::new());
        Ok(Self {
            raw,
            inbox,
            from: from.1,
            to: to.1,
            port,
            next: 0,
            sent,
            arrived,
        })
    }

    /// Forgets what was sent.
    pub(crate) fn clear(&mut self) {
        self.drain();
        self.next = self
            .next
            .wrapping_add(u32::try_from(self.sent.len()).unwrap_or_default());
        self.sent.clear();
        self.arrived.clear();
    }

    /// Sends one and looks what has arrived.
    ///
    /// # Errors
    /// When the kernel takes no packet.
    pub(crate) fn shoot(&mut self) -> Result<()> {
        let number = self
            .next
            .wrapping_add(u32::try_from(self.sent.len()).unwrap_or_default());
        let packet = self.packet(number);
        let to = std::net::SocketAddrV4::new(self.to, 0);
        self.sent.push(Instant::now());
        self.arrived.push(false);
        let flags = rustix::net::SendFlags::empty();
        match rustix::net::sendto(&self.raw, &packet, flags, &to) {
            // A rule that rejects tells the sender at its next packet; an empty one is full.
            Ok(_)
            | Err(rustix::io::Errno::AGAIN | rustix::io::Errno::NOBUFS | rustix::io::Errno::PERM) =>
                {}
            Err(e) => return Err(e).context("send a packet"),
        }
        self.drain();
        Ok(())
    }

    fn packet(&self, number: u32) -> [u8; 32] {
        let mut p = [0; 32];
        p[0] = 0x45;
        p[8] = 64;
        p[9] = 17;
        p[12..16].copy_from_slice(&self.from.octets());
        p[16..20].copy_from_slice(&self.to.octets());
        // The kernel fills in length, identification and checksum of the IP header; a UDP checksum
        // of zero is none.
        let source = 10_000 + (number % 50_000) as u16;
        p[20..22].copy_from_slice(&source.to_be_bytes());
        p[22..24].copy_from_slice(&self.port.to_be_bytes());
        p[24..26].copy_from_slice(&12_u16.to_be_bytes());
        p[28..32].copy_from_slice(&number.to_be_bytes());
        p
    }

    /// Looks what has arrived.
    pub(crate) fn drain(&mut self) {
        let mut buffer = [0; 64];
        while let Ok(n) = self.inbox.recv(&mut buffer) {
            let number =
                (n == 4).then(|| u32::from_be_bytes([buffer[0], buffer[1], buffer[2], buffer[3]]));
            let at = number.map(|n| n.wrapping_sub(self.next) as usize);
            if let Some(a) = at.and_then(|a| self.arrived.get_mut(a)) {
                *a = true;
            }
        }
    }
}

/// Whether a program is there.
pub(crate) fn installed(program: &str) -> bool {
    Command::new(program)
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok()
}
