//! BGP beside BIRD, FRR and GoBGP: the same peers announce the same octets to each.
//!
//! Promises: all sessions are up before the clock starts; it stops when the last prefix has arrived; one
//! speaker runs at a time.

use crate::Setting;
use crate::cluster::{ifname, plain_settings, up};
use crate::report::{Row, Section};
use crate::routing::daemons::{ADDRESS, ASN, Daemon, Peer, Role, Running, Task};
use crate::routing::feeder::{Session, announcements, inside, withdrawals};
use crate::say;
use crate::stats::{Samples, number};
use anyhow::{Context, Result, bail};
use link::{Address, Changes, Veth, VethEnd};
use netlink::netns::NetNs;
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

/// A speaker that takes longer is given up.
const PATIENCE: Duration = Duration::from_secs(60);
/// What is counted is looked at so often.
const LOOK: Duration = Duration::from_millis(1);
const FLAP_AIM: f64 = 100.0;

/// One figure of one run: seconds, unless its name says otherwise.
type Figures = Vec<(&'static str, f64)>;

/// A shape of load.
struct Shape {
    name: &'static str,
    run: fn(&Bed, Daemon) -> Result<Figures>,
    /// The names of what it times, in order; the memory comes last.
    times: &'static [&'static str],
    peers: &'static [Daemon],
}

const SHAPES: [Shape; 6] = [
    Shape {
        name: "10 peers x 100,000 prefixes to a monitor",
        run: |bed, d| spread(bed, d, 10, 100_000),
        times: &["all there"],
        peers: &Daemon::PEERS,
    },
    Shape {
        name: "100 peers x 20,000 prefixes to a monitor",
        run: |bed, d| spread(bed, d, 100, 20_000),
        times: &["all there"],
        peers: &Daemon::PEERS,
    },
    Shape {
        name: "reflector, 500 clients x 64 prefixes",
        run: |bed, d| reflect(bed, d, 500, 64),
        times: &["all have all", "flap: gone", "flap: back"],
        peers: &Daemon::PEERS,
    },
    Shape {
        name: "reflector, 2,000 clients x 8 prefixes",
        run: |bed, d| reflect(bed, d, 2000, 8),
        times: &["all have all", "flap: gone", "flap: back"],
        peers: &[Daemon::Bird],
    },
    Shape {
        name: "1 peer x 1,000,000 prefixes",
        run: table,
        times: &["learned", "withdrawn"],
        peers: &[Daemon::Bird],
    },
    Shape {
        name: "1 peer x 1,000,000 prefixes into the kernel's table",
        run: kernel_table,
        times: &["all there", "all gone"],
        peers: &[Daemon::Bird],
    },
];

/// Measures.
///
/// # Errors
/// When ours fails; a peer that does is told of in its row.
pub(crate) fn run(setting: &Setting) -> Result<Section> {
    let bed = Bed::new(setting)?;
    let mut out = Section::new("BGP");
    out.note(
        "The peers announce prepared octets, 50 prefixes to a set of attributes, over a veth pair. Seconds \
         from the first octet to the last prefix; memory is the most resident that the speaker ever had.",
    );
    for shape in SHAPES.iter().filter(|s| s.name.contains(&setting.shape)) {
        // What fails is a miss, and no reason to lose the other shapes.
        let ours = match rounds(&bed, shape, Daemon::Manx) {
            Ok(ours) => ours,
            Err(e) => {
                out.rows.push(Row {
                    what: shape.name.to_owned(),
                    aim: "faster".to_owned(),
                    ours: format!("failed: {e:#}"),
                    peer: String::new(),
                    figure: f64::NAN,
                    unit: "",
                    met: Some(false),
                });
                continue;
            }
        };
        for &peer in shape.peers {
            if !peer.installed(&setting.manx) {
                out.note(format!("{} is not installed: not measured.", peer.name()));
                continue;
            }
            match rounds(&bed, shape, peer) {
                Ok(theirs) => rows(&mut out, shape, peer, &ours, &theirs),
                Err(e) => out.note(format!("{}: {} failed: {e:#}", shape.name, peer.name())),
            }
        }
        limits(&mut out, shape, &ours);
    }
    Ok(out)
}

fn rounds(bed: &Bed, shape: &Shape, daemon: Daemon) -> Result<Vec<Samples>> {
    let mut figures: Vec<Vec<f64>> = Vec::new();
    // One run of the slowest takes longer than three of all others.
    let rounds = match daemon {
        Daemon::Gobgp => 1,
        _ => bed.setting.rounds(3, 1),
    };
    for _ in 0..rounds {
        let run = (shape.run)(bed, daemon)?;
        figures.resize(run.len(), Vec::new());
        for (all, (_, one)) in figures.iter_mut().zip(run) {
            all.push(one);
        }
    }
    let medians: Vec<Samples> = figures.into_iter().map(Samples::new).collect();
    let text: Vec<String> = medians.iter().map(|s| number(s.median())).collect();
    say!(
        "bgp: {}, {}: {}",
        shape.name,
        daemon.name(),
        text.join(", ")
    );
    Ok(medians)
}

fn rows(out: &mut Section, shape: &Shape, peer: Daemon, ours: &[Samples], theirs: &[Samples]) {
    let names = shape
        .times
        .iter()
        .map(|t| (*t, "s"))
        .chain([("peak memory", "MB")]);
    for ((what, unit), (a, b)) in names.zip(ours.iter().zip(theirs)) {
        let memory = unit == "MB";
        // Memory is held against BIRD alone, the smallest.
        let aim = !memory || peer == Daemon::Bird;
        let figure = a.median() / b.median();
        let (text, met) = match memory {
            true => ("at most BIRD's", figure <= 1.0),
            false => ("faster", figure < 1.0),
        };
        out.rows.push(Row {
            what: format!("{}: {what}, against {}", shape.name, peer.name()),
            aim: if aim { text.to_owned() } else { String::new() },
            ours: a.text(unit),
            peer: b.text(unit),
            figure,
            unit: "",
            met: aim.then_some(met),
        });
    }
}

fn limits(out: &mut Section, shape: &Shape, ours: &[Samples]) {
    for (what, samples) in shape.times.iter().zip(ours) {
        if what.starts_with("flap") {
            let ms = samples.median() * 1000.0;
            out.rows.push(Row {
                what: format!("{}: {what}", shape.name),
                aim: format!("under {FLAP_AIM} ms"),
                ours: samples.text("s"),
                peer: String::new(),
                figure: ms,
                unit: "ms",
                met: Some(ms < FLAP_AIM),
            });
        }
    }
}

/// Two namespaces and the wire between: one for the speaker, one for all its peers.
struct Bed {
    setting: Setting,
    speaker: NetNs,
    peers: NetNs,
}

/// Address of peer `n`.
fn address(n: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 1, (n / 200) as u8, 1 + (n % 200) as u8)
}

const PEERS: usize = 2001;

impl Bed {
    fn new(setting: &Setting) -> Result<Self> {
        let (speaker, peers) = (NetNs::new()?, NetNs::new()?);
        for ns in [&speaker, &peers] {
            plain_settings(ns)?;
            up(&mut link::Handle::open_in(ns)?, "lo")?;
        }
        let mut links = link::Handle::open_in(&speaker)?;
        let veth = Veth {
            here: VethEnd::named(ifname("eth0")),
            there: VethEnd::named(ifname("eth0")),
            queues: 1,
            up: true,
        };
        links.create_veth(&veth, Some(&peers))?;
        address_of(&mut links, &[ADDRESS])?;
        let all: Vec<Ipv4Addr> = (0..PEERS).map(address).collect();
        let mut far = link::Handle::open_in(&peers)?;
        address_of(&mut far, &all)?;
        // The kernel learns of a thousand neighbours and no more.
        let mac = far.links()?.into_iter().find(|l| l.name.as_str() == "eth0");
        let mac = mac.and_then(|l| l.mac).context("eth0 has no address")?;
        let known: Vec<_> = all.iter().map(|a| (IpAddr::V4(*a), mac)).collect();
        let eth0 = up(&mut links, "eth0")?;
        links.change(
            eth0,
            &Changes {
                neighbours: &known,
                ..Changes::default()
            },
        )?;
        Ok(Self {
            setting: setting.clone(),
            speaker,
            peers,
        })
    }

    fn start(&self, daemon: Daemon, task: &Task) -> Result<Running> {
        let dir = self.setting.dir.join(daemon.name());
        Running::start(daemon, &self.setting.manx, &dir, &self.speaker, task)
    }

    fn establish(&self, peers: &[Peer]) -> Result<Vec<Session>> {
        peers
            .iter()
            .map(|p| Session::establish(&self.peers, *p))
            .collect()
    }

    /// Whether the speaker's main table has this many prefixes and the last of them. Counting makes
    /// the kernel walk all of the table, which would be load of its own: only when the last is there.
    fn has(&self, routes: &mut route::Handle, last: IpAddr, wanted: u64) -> Result<bool> {
        let there = routes.lookup(last)?.is_some_and(|r| r.key.dst.len() > 8);
        Ok(there && self.installed()? >= wanted)
    }

    /// Prefixes in the speaker's main table.
    fn installed(&self) -> Result<u64> {
        let text = self
            .speaker
            .run(|| std::fs::read_to_string("/proc/thread-self/net/fib_triestat"))??;
        let counts = text.lines().filter_map(|l| {
            let rest = l.trim().strip_prefix("Prefixes:")?;
            rest.trim().parse::<u64>().ok()
        });
        Ok(counts.max().unwrap_or(0))
    }
}

fn address_of(links: &mut link::Handle, addresses: &[Ipv4Addr]) -> Result<()> {
    let eth0 = up(links, "eth0")?;
    let addresses: Vec<Address> = addresses
        .iter()
        .map(|a| Address::subnet(IpAddr::V4(*a), 8))
        .collect();
    links.change(
        eth0,
        &Changes {
            addresses: &addresses,
            ..Changes::default()
        },
    )?;
    Ok(())
}

/// Waits until something has happened to all; the seconds since `began`.
fn until(
    began: Instant,
    sessions: &[Session],
    mut done: impl FnMut() -> Result<bool>,
    what: &str,
) -> Result<f64> {
    loop {
        if done()? {
            return Ok(began.elapsed().as_secs_f64());
        }
        if began.elapsed() > PATIENCE {
            bail!("{what} took more than {} s", PATIENCE.as_secs());
        }
        for s in sessions {
            s.alive()?;
        }
        crate::pause(LOOK);
    }
}

fn external(n: usize, role: Role) -> Peer {
    Peer {
        addr: address(n),
        asn: 1000 + n as u16,
        role,
    }
}

/// All at once, each from a thread of its own.
fn send_all(sessions: &[Session], octets: &[Vec<u8>]) -> Result<()> {
    std::thread::scope(|s| {
        let send = |(session, octets): (_, _)| {
            let (session, octets): (&Session, &Vec<u8>) = (session, octets);
            std::thread::Builder::new()
                .stack_size(192 << 10)
                .spawn_scoped(s, move || session.send(octets))
        };
        let threads: Vec<_> = sessions
            .iter()
            .zip(octets)
            .map(send)
            .collect::<Result<_, _>>()?;
        for t in threads {
            match t.join() {
                Ok(sent) => sent?,
                Err(_) => bail!("a sender panicked"),
            }
        }
        Ok(())
    })
}

/// Feeders of distinct prefixes, and a monitor that is told of all.
fn spread(bed: &Bed, daemon: Daemon, feeders: usize, each: u32) -> Result<Figures> {
    let peers: Vec<Peer> = (0..feeders).map(|n| external(n, Role::Feeder)).collect();
    let monitor = external(PEERS - 1, Role::Monitor);
    let task = Task {
        peers: peers.iter().copied().chain([monitor]).collect(),
        kernel: false,
    };
    let octets: Vec<Vec<u8>> = peers
        .iter()
        .zip(0..)
        .map(|(p, i)| announcements(p, i * each..(i + 1) * each))
        .collect();
    let running = bed.start(daemon, &task)?;
    let ear = bed.establish(&[monitor])?;
    let mouths = bed.establish(&peers)?;
    let all = feeders as u64 * u64::from(each);
    let began = Instant::now();
    send_all(&mouths, &octets)?;
    let time = until(began, &ear, || Ok(ear[0].announced() >= all), "spreading")?;
    Ok(vec![("all there", time), ("peak", running.peak()?)])
}

/// Clients that are told of one another; then one goes and comes back.
fn reflect(bed: &Bed, daemon: Daemon, clients: usize, each: u32) -> Result<Figures> {
    let peers: Vec<Peer> = (0..clients)
        .map(|n| Peer {
            addr: address(n),
            asn: ASN,
            role: Role::Client,
        })
        .collect();
    let task = Task {
        peers: peers.clone(),
        kernel: false,
    };
    let own = |n: usize| n as u32 * each..(n as u32 + 1) * each;
    let octets: Vec<Vec<u8>> = peers
        .iter()
        .enumerate()
        .map(|(n, p)| announcements(p, own(n)))
        .collect();
    let running = bed.start(daemon, &task)?;
    let mut sessions = bed.establish(&peers)?;
    let others = (clients as u64 - 1) * u64::from(each);
    let each_has = |sessions: &[Session], n: u64| sessions.iter().all(|s| s.announced() >= n);
    let began = Instant::now();
    send_all(&sessions, &octets)?;
    let all = until(
        began,
        &sessions,
        || Ok(each_has(&sessions, others)),
        "reflecting",
    )?;

    let lost = u64::from(each);
    let withdrawn: Vec<u64> = sessions.iter().map(Session::withdrawn).collect();
    let began = Instant::now();
    drop(sessions.remove(0));
    let told = || {
        Ok(sessions
            .iter()
            .zip(&withdrawn[1..])
            .all(|(s, w)| s.withdrawn() - w >= lost))
    };
    let gone = until(began, &sessions, told, "withdrawing")?;

    let announced: Vec<u64> = sessions.iter().map(Session::announced).collect();
    let again = bed.establish(&peers[..1])?;
    let began = Instant::now();
    again[0].send(&octets[0])?;
    let told = || {
        Ok(sessions
            .iter()
            .zip(&announced)
            .all(|(s, a)| s.announced() - a >= lost))
    };
    let back = until(began, &sessions, told, "announcing again")?;
    Ok(vec![
        ("all", all),
        ("gone", gone),
        ("back", back),
        ("peak", running.peak()?),
    ])
}

const TABLE: u32 = 1_000_000;

fn table_task(kernel: bool) -> (Peer, Peer, Task) {
    let feeder = external(0, Role::Feeder);
    let monitor = external(PEERS - 1, Role::Monitor);
    let peers = vec![feeder, monitor];
    (feeder, monitor, Task { peers, kernel })
}

/// A whole table from one peer: learned, then withdrawn.
fn table(bed: &Bed, daemon: Daemon) -> Result<Figures> {
    let (feeder, monitor, task) = table_task(false);
    let octets = announcements(&feeder, 0..TABLE);
    let gone = withdrawals(0..TABLE);
    let all = u64::from(TABLE);
    let running = bed.start(daemon, &task)?;
    let ear = bed.establish(&[monitor])?;
    let mouth = bed.establish(&[feeder])?;
    let began = Instant::now();
    mouth[0].send(&octets)?;
    let learned = until(began, &ear, || Ok(ear[0].announced() >= all), "learning")?;
    let began = Instant::now();
    mouth[0].send(&gone)?;
    let withdrawn = until(began, &ear, || Ok(ear[0].withdrawn() >= all), "withdrawing")?;
    Ok(vec![
        ("learned", learned),
        ("withdrawn", withdrawn),
        ("peak", running.peak()?),
    ])
}

/// The same, until the kernel has it, and until it has nothing of it any more.
fn kernel_table(bed: &Bed, daemon: Daemon) -> Result<Figures> {
    // A run that fails leaves routes behind: they are nobody else's.
    let bed = &Bed::new(&bed.setting)?;
    let (feeder, _, task) = table_task(true);
    let octets = announcements(&feeder, 0..TABLE);
    let gone = withdrawals(0..TABLE);
    let before = bed.installed()?;
    let running = bed.start(daemon, &task)?;
    let mouth = bed.establish(&[feeder])?;
    let last = IpAddr::V4(inside(TABLE - 1));
    let mut routes = route::Handle::open_in(&bed.speaker)?;
    let began = Instant::now();
    mouth[0].send(&octets)?;
    let all = before + u64::from(TABLE);
    let there = || bed.has(&mut routes, last, all);
    let written = until(began, &mouth, there, "programming the kernel")?;
    let began = Instant::now();
    mouth[0].send(&gone)?;
    let mut absent = || -> Result<bool> {
        let there = routes.lookup(last)?;
        Ok(there.is_none() && bed.installed()? <= before)
    };
    let removed = until(began, &mouth, &mut absent, "taking all out of the kernel")?;
    Ok(vec![
        ("written", written),
        ("removed", removed),
        ("peak", running.peak()?),
    ])
}
