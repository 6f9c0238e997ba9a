//! `manx speaker`: a speaker that follows a file, for reflectors and borders.
//!
//! Promises: a file that is wrong is refused whole, with place, field and reason, and what runs goes on
//! as it is; a change of the file touches the sessions that it is about; it ends without a word, so that
//! peers keep forwarding, unless it is given one.

use crate::bmp::Station;
use crate::control::{self, Control};
use crate::engine::{Kernel, Settings};
use crate::file::{Content, FileError};
use crate::handle::Handle;
use bgp::types::RouterId;
use clap::Args;
use daemon::http::Server;
use daemon::{Health, Metrics, Shutdown, logging};
use inotify::{Inotify, WatchMask};
use net::{Cidr, Family};
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::str::FromStr;
use std::time::Duration;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::signal::unix::{SignalKind, signal};
use tracing::level_filters::LevelFilter;

/// When it is told to end, it is waited for so long.
const END: Duration = Duration::from_secs(5);

/// Speak BGP as a file says: a route reflector or a border, without a cluster beside it
///
/// FILE holds ordinary resources: Node, BGPConfiguration, BGPPeer, BGPFilter, IPPool, IPAMBlock,
/// Service and the like, and Secrets (v1) with the passwords of peers. When it changes, or on
/// SIGHUP, it is read again: sessions that the change is not about go on. A file with a fault is
/// refused whole, and what runs stays.
///
/// SIGTERM ends it without a word to peers, so that those who know graceful restart keep forwarding.
#[derive(Debug, Clone, Args)]
#[command(after_long_help = "\
Examples:
  # A reflector for a cluster: the node that it is, the peers, nothing in the kernel
  manx speaker --file reflector.yaml --node reflector-1
  # One that is monitored, and announces a network behind a router beside it
  manx speaker --file reflector.yaml --bmp 192.0.2.9:11019 --static 198.51.100.0/24,192.0.2.1
  # A border that forwards, with metrics, and a word at the end
  manx speaker --file border.yaml --kernel --metrics-port 9091 --shutdown 'maintenance until 6:00'
  # What it does
  manx bgp peers
  manx bgp routes 10.65.0.0/26")]
pub struct SpeakerArgs {
    /// The resources, YAML or JSON
    #[arg(short, long, value_name = "FILE")]
    file: PathBuf,
    /// Which of its Nodes this is [default: the only one, or the host's name]
    #[arg(long, env = "NODENAME", value_name = "NAME")]
    node: Option<String>,
    /// Write learned routes to the kernel, and ask it how next hops are reached
    #[arg(long, overrides_with = "no_kernel")]
    kernel: bool,
    /// Leave the kernel alone; all next hops count as reachable (the default)
    #[arg(long, overrides_with = "kernel")]
    no_kernel: bool,
    /// Listen here instead of where the resources say; may be repeated
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Vec<SocketAddr>,
    /// Announce a prefix, with a next hop of its family or with this speaker itself; may be repeated
    ///
    /// Peers are told that next hop unless their BGPPeer has nextHopMode: Self. With --kernel it has to
    /// be reachable. The kernel gets no route of it.
    #[arg(long = "static", value_name = "PREFIX[,NEXTHOP]")]
    statics: Vec<Static>,
    /// Tell a monitoring station of sessions and routes (BMP, RFC 7854); may be repeated
    #[arg(long = "bmp", value_name = "HOST:PORT")]
    stations: Vec<Station>,
    /// Directory of the control sockets: bird.ctl and bird6.ctl, which calicoctl and birdc know, and
    /// bgp.ctl
    #[arg(long, value_name = "DIR", default_value = control::DIRECTORY)]
    socket: PathBuf,
    /// Serve /metrics, /liveness and /readiness on this port of every address
    #[arg(long, value_name = "PORT")]
    metrics_port: Option<u16>,
    /// At the end, end the sessions and tell peers this (RFC 9003)
    #[arg(long, value_name = "TEXT")]
    shutdown: Option<String>,
    /// Check the file and do nothing else
    #[arg(long)]
    check: bool,
    /// What to log: error, warn, info, debug or trace
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    log: LevelFilter,
    /// text or json
    #[arg(long, env = "MANX_LOG_FORMAT", default_value = "text")]
    log_format: logging::Format,
}

/// A prefix to announce, `PREFIX[,NEXTHOP]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Static {
    prefix: Cidr,
    /// `None` is ourselves.
    next_hop: Option<IpAddr>,
}

impl FromStr for Static {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (prefix, hop) = match text.split_once(',') {
            Some((prefix, hop)) => (prefix, Some(hop)),
            None => (text, None),
        };
        let prefix: Cidr = prefix
            .parse()
            .map_err(|e| format!("prefix {prefix:?}: {e}"))?;
        let next_hop = hop.map(|hop| next_hop(prefix, hop)).transpose()?;
        Ok(Self { prefix, next_hop })
    }
}

fn next_hop(prefix: Cidr, text: &str) -> Result<IpAddr, String> {
    let refused = |why: &dyn std::fmt::Display| format!("next hop {text:?}: {why}");
    let hop: IpAddr = text.parse().map_err(|e| refused(&e))?;
    match (prefix.family(), Family::of(hop)) {
        (Family::V4, Family::V6) => {
            return Err(refused(
                &"an IPv4 prefix with an IPv6 next hop needs peers that take it (RFC 8950), which is \
                  not offered to any",
            ));
        }
        (Family::V6, Family::V4) => {
            return Err(refused(&"an IPv6 prefix has no IPv4 next hop"));
        }
        _ => {}
    }
    let link_local = match hop {
        IpAddr::V4(a) => a.is_link_local() || a.is_broadcast(),
        IpAddr::V6(a) => a.is_unicast_link_local(),
    };
    match hop.is_unspecified() || hop.is_multicast() || hop.is_loopback() || link_local {
        true => Err(refused(
            &"it is no address of a host that peers could reach",
        )),
        false => Ok(hop),
    }
}

/// What `--static` says, all together.
fn statics(all: &[Static]) -> Result<BTreeMap<Cidr, Option<IpAddr>>, Failure> {
    let mut out = BTreeMap::new();
    for s in all {
        if out
            .insert(s.prefix, s.next_hop)
            .is_some_and(|h| h != s.next_hop)
        {
            return Err(Failure::Twice { prefix: s.prefix });
        }
    }
    Ok(out)
}

/// Why it does not run.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    File(#[from] FileError),
    #[error("{0}")]
    Node(String),
    #[error("--static {prefix}: it is there twice, with different next hops")]
    Twice { prefix: Cidr },
    #[error("{operation}: {cause}")]
    System {
        operation: String,
        #[source]
        cause: io::Error,
    },
    #[error(transparent)]
    Listen(#[from] daemon::http::ListenError),
    #[error(transparent)]
    Control(#[from] control::ControlError),
    #[error(transparent)]
    Gone(#[from] crate::Gone),
}

fn failed(operation: impl Into<String>) -> impl FnOnce(io::Error) -> Failure {
    let operation = operation.into();
    move |cause| Failure::System { operation, cause }
}

/// Runs `manx speaker` until it is stopped. Exits 0 when it was asked to end, else 1 with the reason on
/// standard error.
pub fn main(args: SpeakerArgs) -> ExitCode {
    match run(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            use std::io::Write as _;
            let cause = match &e {
                Failure::Listen(l) => std::error::Error::source(l).map(|s| format!(": {s}")),
                _ => None,
            };
            // With nowhere to write to, the exit code has to do.
            let _ = writeln!(io::stderr(), "{e}{}", cause.unwrap_or_default());
            ExitCode::FAILURE
        }
    }
}

fn run(args: SpeakerArgs) -> Result<(), Failure> {
    let content = Content::read(&args.file)?;
    let node = node_of(&args, &content)?;
    let settings = settings(&args, node.clone())?;
    if args.check {
        return Ok(());
    }
    daemon::memory::configure();
    daemon::files::raise_limit();
    logging::start(args.log_format, args.log);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(failed("start a runtime"))?;
    let done = runtime.block_on(serve(args, node, settings, content));
    // The speaker's thread is told to end; one that hangs must not keep the process.
    runtime.shutdown_background();
    done
}

/// Which node this is.
fn node_of(args: &SpeakerArgs, content: &Content) -> Result<String, Failure> {
    let nodes = content.nodes();
    let host = || {
        rustix::system::uname()
            .nodename()
            .to_string_lossy()
            .into_owned()
    };
    let name = match (&args.node, nodes.iter().next(), nodes.len()) {
        (Some(n), _, _) => n.clone(),
        (None, Some(only), 1) => (*only).to_owned(),
        _ => host(),
    };
    match nodes.contains(name.as_str()) {
        true => Ok(name),
        false => Err(Failure::Node(missing(&args.file, &name, &nodes))),
    }
}

fn missing(file: &Path, name: &str, nodes: &BTreeSet<&str>) -> String {
    let known = nodes.iter().copied().collect::<Vec<_>>().join(", ");
    let known = match known.as_str() {
        "" => "no Node at all".to_owned(),
        known => format!("only {known}"),
    };
    format!(
        "{}: it has {known}, not Node({name}): add that with spec.bgp.ipv4Address or \
         spec.bgp.ipv6Address, or name another with --node",
        file.display()
    )
}

fn settings(args: &SpeakerArgs, node: String) -> Result<Settings, Failure> {
    let id = RouterId::from(daemon::node::hashed_router_id(&node));
    let mut settings = Settings::new(node, id, RandomState::new().build_hasher().finish());
    if args.kernel {
        settings = settings.with_kernel(Kernel::default());
    }
    if !args.listen.is_empty() {
        settings.listen = Some(args.listen.clone());
    }
    settings.statics = statics(&args.statics)?;
    settings.stations = args.stations.clone();
    Ok(settings)
}

async fn serve(
    args: SpeakerArgs,
    node: String,
    settings: Settings,
    content: Content,
) -> Result<(), Failure> {
    let shutdown = Shutdown::on_signals().map_err(failed("listen to signals"))?;
    let mut hup = signal(SignalKind::hangup()).map_err(failed("listen to signals"))?;
    let mut watch = watch(&args.file)?;
    let (handle, thread) = Handle::start(settings).map_err(failed("start the speaker"))?;
    let mut thread = tokio::task::spawn_blocking(move || thread.join());
    let control = Control::start(&handle, &args.socket)?;
    content.follow(&Content::default(), &handle)?;
    handle.synced()?;
    let health = Health::default();
    tokio::spawn(crate::report_health(handle.clone(), health.clone()));
    if let Some(port) = args.metrics_port {
        serve_http(&handle, &control, health, port, &shutdown).await?;
    }
    let mut file = File {
        path: args.file,
        node,
        content,
        last: String::new(),
    };
    loop {
        let mut buffer = [0; 4096];
        tokio::select! {
            reason = shutdown.requested() => {
                tracing::info!(%reason, "ending");
                break;
            }
            _ = hup.recv() => file.reload(&handle, true)?,
            changed = watch.async_io_mut(Interest::READABLE, |i| {
                i.read_events(&mut buffer).map(|_| ())
            }) => {
                changed.map_err(failed("watch the file"))?;
                file.reload(&handle, false)?;
            }
            ended = &mut thread => {
                let why = match ended {
                    Ok(Ok(Err(e))) => e,
                    _ => io::Error::other("the thread panicked"),
                };
                return Err(failed("speak")(why));
            }
        }
    }
    match args.shutdown {
        Some(text) => handle.shut_down(text)?,
        None => handle.stop()?,
    }
    // The process ends in any case, and with it the sockets.
    let _ = tokio::time::timeout(END, thread).await;
    control.stop();
    Ok(())
}

/// The file that is followed.
struct File {
    path: PathBuf,
    node: String,
    content: Content,
    /// What was last said of it, so that it is not said twice.
    last: String,
}

impl File {
    /// Reads it again and follows it if it can be.
    fn reload(&mut self, handle: &Handle, asked: bool) -> Result<(), Failure> {
        let read = Content::read(&self.path).map_err(Failure::from);
        let read = read.and_then(|c| match c.nodes().contains(self.node.as_str()) {
            true => Ok(c),
            false => Err(Failure::Node(missing(&self.path, &self.node, &c.nodes()))),
        });
        let content = match read {
            Ok(c) => c,
            Err(e) => {
                let said = e.to_string();
                if asked || said != self.last {
                    tracing::error!(error = %said, "the file is refused; all stays as it is");
                }
                self.last = said;
                return Ok(());
            }
        };
        let was_bad = !std::mem::take(&mut self.last).is_empty();
        if content == self.content && !asked {
            if was_bad {
                tracing::info!("the file is good again, and says what is followed");
            }
            return Ok(());
        }
        content.follow(&self.content, handle)?;
        self.content = content;
        tracing::info!(file = %self.path.display(), "the file is followed");
        Ok(())
    }
}

/// Watches the directory, since files are replaced more often than written.
fn watch(file: &Path) -> Result<AsyncFd<Inotify>, Failure> {
    let dir = match file.parent() {
        Some(d) if !d.as_os_str().is_empty() => d,
        _ => Path::new("."),
    };
    let failed = |e| failed(format!("watch {}", dir.display()))(e);
    let inotify = Inotify::init().map_err(failed)?;
    let what = WatchMask::CLOSE_WRITE | WatchMask::MOVED_TO | WatchMask::CREATE;
    inotify.watches().add(dir, what).map_err(failed)?;
    // SAFETY: an `Inotify` has the one descriptor that it was made with until it is dropped.
    let registered = unsafe { AsyncFd::register_with_interest(inotify, Interest::READABLE) };
    registered.map_err(|e| failed(e.into()))
}

async fn serve_http(
    handle: &Handle,
    control: &Control,
    health: Health,
    port: u16,
    shutdown: &Shutdown,
) -> Result<(), Failure> {
    let metrics = Metrics::default();
    control.register(handle, &metrics);
    let server = Server::bind("metrics", "", port).await?;
    tracing::info!(address = %server.address(), "metrics");
    let handlers = vec![metrics.handler(), daemon::http::health_handler(health)];
    tokio::spawn(server.run(handlers, shutdown.clone()));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statics_with_and_without_a_next_hop() {
        let read = |t: &str| {
            t.parse::<Static>()
                .map(|s| (s.prefix.to_string(), s.next_hop))
        };
        let hop = |t: &str| Some(t.parse::<IpAddr>().unwrap());
        assert_eq!(read("10.0.0.0/8"), Ok(("10.0.0.0/8".to_owned(), None)));
        let four = ("10.0.0.0/8".to_owned(), hop("192.0.2.1"));
        assert_eq!(read("10.0.0.0/8,192.0.2.1"), Ok(four));
        let six = ("2001:db8::/32".to_owned(), hop("2001:db8::1"));
        assert_eq!(read("2001:db8::/32,2001:db8::1"), Ok(six));
    }

    #[test]
    fn a_static_that_cannot_be_is_refused_with_field_and_reason() {
        for (text, why) in [
            ("10.0.0.0/33", "prefix \"10.0.0.0/33\":"),
            ("10.0.0.0/8,", "next hop \"\":"),
            ("10.0.0.0/8,gateway", "next hop \"gateway\":"),
            ("10.0.0.0/8,2001:db8::1", "RFC 8950"),
            (
                "2001:db8::/32,192.0.2.1",
                "an IPv6 prefix has no IPv4 next hop",
            ),
            ("10.0.0.0/8,0.0.0.0", "no address of a host"),
            ("2001:db8::/32,fe80::1", "no address of a host"),
            ("10.0.0.0/8,224.0.0.5", "no address of a host"),
        ] {
            let said = text.parse::<Static>().unwrap_err();
            assert!(said.contains(why), "{text}: {said}");
        }
    }

    #[test]
    fn one_prefix_has_one_next_hop() {
        let all = |t: [&str; 2]| statics(&t.map(|s| s.parse().unwrap()));
        assert!(all(["10.0.0.0/8", "10.0.0.0/8"]).is_ok());
        let said = all(["10.0.0.0/8", "10.0.0.0/8,192.0.2.1"]).unwrap_err();
        assert!(said.to_string().contains("--static 10.0.0.0/8"), "{said}");
    }
}
