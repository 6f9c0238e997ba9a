//! The control socket: a thread for each connection, one question on each.
//!
//! Promises: a question that cannot be answered gets an `Error` that says why; one caller's
//! trouble is nobody else's.
//!
//! Never: trusts that a caller stays: what it began ends with it.

use crate::holder::router::Missing;
use crate::holder::{Lab, exec, probe, settle, sniff};
use crate::protocol::{Checked, Connection, Outcome, Request, Response, receive_with_fds};
use crate::routes;
use net::{Family, IfIndex};
use scenario::{Check, Flow};
use std::collections::{BTreeMap, HashMap};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

/// Probes under way at a time: each has a few sockets.
const PARALLEL: usize = 256;

/// For the ways to pods that have just come to be learned: with BGP a matter of milliseconds,
/// unless somebody has forbidden it.
const LEARNED: Duration = Duration::from_secs(2);

/// Serves until told to end.
pub(super) fn serve(lab: &Arc<Lab>, listener: &UnixListener) {
    for stream in listener.incoming() {
        let Ok(stream) = stream else { continue };
        let lab = Arc::clone(lab);
        let started = std::thread::Builder::new()
            .name("control".to_owned())
            .spawn(move || {
                if let Err(e) = answer(&lab, stream) {
                    eprintln!("control connection: {e}");
                }
            });
        if let Err(e) = started {
            eprintln!("control connection: {e}");
        }
    }
}

fn answer(lab: &Arc<Lab>, stream: UnixStream) -> io::Result<()> {
    let (line, fds) = receive_with_fds(&stream)?;
    let connection = Connection::over(stream);
    let request: Request = match serde_json::from_slice(&line) {
        Ok(request) => request,
        Err(e) => return connection.send(&Response::Error(format!("unknown request: {e}"))),
    };
    match handle(lab, request, fds, &connection) {
        Ok(Some(response)) => connection.send(&response),
        Ok(None) => Ok(()),
        Err(why) => connection.send(&Response::Error(why)),
    }
}

fn handle(
    lab: &Arc<Lab>,
    request: Request,
    fds: Vec<OwnedFd>,
    connection: &Connection,
) -> Result<Option<Response>, String> {
    let response = match request {
        Request::Status => Response::Status(lab.status()),
        Request::Probe { flows, timeout_ms } => {
            Response::Probes(probes(lab, flows, Duration::from_millis(timeout_ms)))
        }
        Request::Check {
            checks,
            deadline_ms,
            settled,
        } => {
            let deadline = Duration::from_millis(deadline_ms);
            Response::Checks(check_all(lab, checks, deadline, settled))
        }
        Request::Settle { marker, timeout_ms } => {
            let deadline = Instant::now() + Duration::from_millis(timeout_ms);
            lab.services.settle()?;
            let late = match marker {
                Some(m) => {
                    let m = m.parse().map_err(|e| format!("marker {m}: {e}"))?;
                    let mut late = settle::wait(&lab.nodes, m, deadline);
                    late.extend(unlearned(lab)?);
                    late
                }
                None => Vec::new(),
            };
            Response::Unsettled(late)
        }
        Request::Stream {
            flow,
            for_ms,
            interval_us,
        } => {
            let length = Duration::from_millis(for_ms);
            let interval = Duration::from_micros(interval_us.max(100));
            Response::Stream(stream(lab, &flow, length, interval, connection)?)
        }
        Request::Exec {
            target,
            argv,
            env,
            cwd,
        } => {
            let found = lab.find(&target)?;
            let ns = found
                .ns
                .ok_or_else(|| format!("{target} has no namespace here"))?;
            let own = match (&target, found.node) {
                (scenario::End::Fabric, _) => lab.router.environment(),
                (_, Some(node)) => node.env.clone(),
                _ => BTreeMap::new(),
            };
            let code = exec::run(lab, &ns, &own, &argv, &env, &cwd, fds, connection)?;
            Response::Exit(code)
        }
        Request::Capture { count, for_ms } => {
            let deadline = Instant::now() + Duration::from_millis(for_ms);
            let started = || connection.send(&Response::Started);
            let until = (connection.socket().as_fd(), deadline);
            sniff::capture(&lab.fabric, count, until, started, |line| {
                connection.send(&Response::Line(line))
            })
            .map_err(|e| format!("capture on the fabric: {e}"))?;
            Response::Done
        }
        Request::Routes(target) => {
            for line in route_lines(lab, &target)? {
                connection
                    .send(&Response::Line(line))
                    .map_err(|e| e.to_string())?;
            }
            Response::Done
        }
        Request::WaitPods { pods, timeout_ms } => {
            let deadline = Instant::now() + Duration::from_millis(timeout_ms);
            let late = lab.kubelet.wait(&pods, deadline);
            // Who waits for a pod wants to reach it. What stays missing is shown by `status`.
            unlearned(lab)?;
            Response::Late(late)
        }
        Request::Down => {
            // SAFETY: the kernel ends all else with process 1; nothing needs saving.
            unsafe { libc::_exit(0) }
        }
    };
    Ok(Some(response))
}

/// The ways to pods that should have been learned and have not, for people.
fn unlearned(lab: &Lab) -> Result<Vec<String>, String> {
    let missing = lab.router.wait_learned(Instant::now() + LEARNED)?;
    let name = |m: &Missing| format!("{} (no route to {} through {})", m.at, m.dst, m.node);
    Ok(missing.iter().map(name).collect())
}

fn probes(lab: &Arc<Lab>, flows: Vec<Flow>, patience: Duration) -> Vec<Outcome> {
    let permits = Arc::new(Semaphore::new(PARALLEL));
    let tasks: Vec<_> = flows
        .into_iter()
        .map(|flow| {
            let (lab, permits) = (Arc::clone(lab), Arc::clone(&permits));
            lab.clone().runtime.spawn(async move {
                let _permit = permits.acquire().await;
                match lab.resolve(&flow) {
                    Ok(resolved) => probe::once(&resolved, &lab.servers, patience).await,
                    Err(why) => Outcome::failed(why),
                }
            })
        })
        .collect();
    let gather = |t: JoinHandle<_>| {
        lab.runtime
            .block_on(t)
            .unwrap_or_else(|e| Outcome::failed(e.to_string()))
    };
    tasks.into_iter().map(gather).collect()
}

/// For a prohibition where everything has settled: longer than the slowest answer that came, by
/// so many times, and between these.
const QUIET: (u32, Duration, Duration) =
    (10, Duration::from_millis(200), Duration::from_millis(500));

/// Permissions first: how long answers take tells how long silence must be.
fn check_all(
    lab: &Arc<Lab>,
    checks: Vec<Check>,
    deadline: Duration,
    settled: bool,
) -> Vec<Checked> {
    let (allow, deny): (Vec<_>, Vec<_>) =
        checks.into_iter().enumerate().partition(|(_, c)| c.allow);
    let mut results = check_some(lab, allow, deadline, None);
    let slowest = results
        .iter()
        .filter(|(_, c)| c.ok)
        .map(|(_, c)| c.outcome.micros);
    let slowest = Duration::from_micros(slowest.max().unwrap_or(0));
    let quiet = settled.then(|| (slowest * QUIET.0).clamp(QUIET.1, QUIET.2));
    results.extend(check_some(lab, deny, deadline, quiet));
    results.sort_by_key(|(i, _)| *i);
    results.into_iter().map(|(_, c)| c).collect()
}

fn check_some(
    lab: &Arc<Lab>,
    checks: Vec<(usize, Check)>,
    deadline: Duration,
    quiet: Option<Duration>,
) -> Vec<(usize, Checked)> {
    let failed = |why: String| Checked {
        ok: false,
        outcome: Outcome::failed(why),
        micros: 0,
    };
    let permits = Arc::new(Semaphore::new(PARALLEL));
    let tasks: Vec<_> = checks
        .into_iter()
        .map(|(i, c)| {
            let (lab, permits) = (Arc::clone(lab), Arc::clone(&permits));
            let task = lab.clone().runtime.spawn(async move {
                let _permit = permits.acquire().await;
                let flow = match lab.resolve(&c.flow) {
                    Ok(flow) => flow,
                    Err(why) => return failed(why),
                };
                let expectation = probe::Expectation {
                    flow,
                    allow: c.allow,
                    source: c.source,
                    quiet,
                };
                probe::check(&expectation, &lab.servers, deadline).await
            });
            (i, task)
        })
        .collect();
    let gather = |(i, t): (usize, JoinHandle<_>)| {
        let done = lab.runtime.block_on(t);
        (i, done.unwrap_or_else(|e| failed(e.to_string())))
    };
    tasks.into_iter().map(gather).collect()
}

fn stream(
    lab: &Arc<Lab>,
    flow: &Flow,
    length: Duration,
    interval: Duration,
    connection: &Connection,
) -> Result<crate::protocol::StreamReport, String> {
    let resolved = lab.resolve(flow)?;
    let socket = connection.socket().try_clone().map_err(|e| e.to_string())?;
    lab.runtime.block_on(async {
        let stop = tokio::task::spawn_blocking(move || {
            // The caller says nothing more: what is read is its end.
            let _ = io::Read::read(&mut &socket, &mut [0]);
        });
        let stopped = async {
            let _ = stop.await;
        };
        let report = probe::stream(&resolved, &lab.servers, length, interval, stopped).await;
        // Lets the reader go.
        let _ = connection.socket().shutdown(std::net::Shutdown::Read);
        report
    })
}

fn route_lines(lab: &Lab, target: &scenario::End) -> Result<Vec<String>, String> {
    let found = lab.find(target)?;
    let ns = found
        .ns
        .ok_or_else(|| format!("{target} has no namespace here"))?;
    let fail = |e: netlink::NetlinkError| e.to_string();
    let mut links = link::Handle::open_in(&ns).map_err(fail)?;
    let names: HashMap<IfIndex, String> = links
        .links()
        .map_err(fail)?
        .into_iter()
        .map(|l| (l.index, l.name.to_string()))
        .collect();
    let mut handle = route::Handle::open_in(&ns).map_err(fail)?;
    let mut all = Vec::new();
    for family in lab.families().iter().chain(Family::BOTH) {
        for r in handle.list(route::Table::MAIN, family).map_err(fail)? {
            let noise = family == Family::V6 && r.proto == route::Proto::KERNEL;
            if !noise && !all.contains(&r) {
                all.push(r);
            }
        }
    }
    Ok(routes::lines(all, &names))
}
