//! The node agent: datastore -> calculation -> dataplane on one node, and the answers to its
//! CNI plugins.
//!
//! Promises: starts in the order that keeps packets safe: store, own address, Node, then the
//! snapshot, and only then the kernel, as a difference to what it holds; ready means that
//! a pod can be attached; a clean stop and a kill leave every rule and route in force.
//!
//! Never: is in the data path.

mod attach;
mod bgp;
mod config;
mod confirm;
mod detect;
mod domains;
mod engine;
mod metrics;
mod mtu;
mod resources;
mod server;
mod startup;
mod tunnel;

pub mod node;

use startup::StartError;

use api::Conversion;
use attach::{Allocator, Attacher};
use bgp::Bgp;
use config::Configuration;
use daemon::health::{Report, Reporter};
use daemon::{Health, NodeEnv, Shutdown};
use dataplane::{Dataplane, Options};
use datastore::{Store, Syncer};
use engine::{Engine, OnParameters, World};
use model::Encap;
use net::Family;
use regex_lite::Regex;
use resources::Resources;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// How a node is set up. What may change while it runs is in the store.
struct Params {
    /// Its name.
    node: Arc<str>,
    /// Where resources are.
    store: Arc<dyn Store>,
    /// Node variables of the environment.
    env: NodeEnv,
    /// Where CNI plugins ask.
    socket: PathBuf,
    /// Where `nodename` and `mtu` are written, for plugins of other versions to read.
    lib_dir: PathBuf,
    /// Where the control sockets of BGP are.
    bgp_dir: PathBuf,
    /// Who is told of BGP's sessions and routes.
    stations: Vec<speaker::Station>,
    /// The layers of configuration.
    configuration: Configuration,
    /// Told when parameters may have changed.
    on_parameters: OnParameters,
    /// Who is told how the node does.
    health: Health,
    /// Where counters are shown.
    metrics: daemon::Metrics,
    /// Ends the agent.
    stop: Shutdown,
}

/// Why the agent ended.
#[derive(Debug, thiserror::Error)]
enum Error {
    /// It could not start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The plugins' socket.
    #[error(transparent)]
    Listen(#[from] server::ListenError),
    /// BGP.
    #[error(transparent)]
    Bgp(#[from] bgp::BgpError),
    /// The kernel.
    #[error("the dataplane failed: {0}")]
    Dataplane(#[from] dataplane::Error),
    /// A part that runs for as long as the process does, did not.
    #[error("{0} ended: {1}; start the agent again")]
    Ended(&'static str, String),
    /// A file for the plugins.
    #[error("write {}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

/// How often what depends on the host's links is looked at again, behind the changes of the store.
const LOOK_AGAIN: Duration = Duration::from_secs(30);

/// Runs the agent until it is told to stop.
async fn run(params: Params) -> Result<(), Error> {
    let health = Components::register(&params.health);
    // Held until the end; before anything is written.
    let _claim = server::claim(&params.socket)?;
    let resources = Resources::new(params.store.clone());
    tokio::select! {
        done = prepare(&params, &resources) => done?,
        _ = params.stop.requested() => return Ok(()),
    }
    let own = params.configuration.params().clone();
    let pattern = Regex::new(&own.mtu_iface_pattern).map_err(|e| {
        StartError::Init(format!("MTUIfacePattern {:?}: {e}", own.mtu_iface_pattern))
    })?;
    let options = Options {
        remove_external_routes: own.remove_external_routes,
        ..Options::default()
    };
    let plane = Dataplane::new(options)?;
    let handle = plane.handle();
    let metrics = metrics::Metrics::default();
    let names = domains::Metrics::default();
    params.metrics.register(|r| {
        metrics.register(r);
        handle.metrics().register(r);
        names.register(r);
    });
    let (learner, learned) = domains::Learner::load(params.lib_dir.clone(), names);
    let prefix = own
        .interface_prefix
        .first()
        .cloned()
        .unwrap_or_else(|| "cali".to_owned());
    let (world, mut changes) = watch::channel(World::default());
    let mut bgp = Bgp::start(&params)?;
    let engine = Engine::new(
        params.node.clone(),
        handle.clone(),
        bgp.as_ref().map(|b| b.feed(&params)),
        params.configuration,
        params.on_parameters,
        world,
        metrics,
        learned,
    );
    let syncer = Syncer::new(params.store.clone()).converting(Conversion {
        interface_prefix: prefix.as_str().into(),
    });
    let promises = tokio::spawn(confirm::keep(params.store.clone(), params.node.clone()));
    let mut plane = tokio::spawn(plane.run());
    let mut engine = tokio::spawn(engine.run(syncer));
    let mut learner = tokio::spawn(learner.run());
    tokio::select! {
        synced = changes.wait_for(|w| w.in_sync) => drop(synced.map_err(|_| StartError::Init("the syncer ended".to_owned()))?),
        _ = params.stop.requested() => return Ok(()),
    }
    let upkeep = Upkeep {
        node: params.node.clone(),
        allocator: Allocator::new(params.node.clone(), resources.clone()),
        resources: resources.clone(),
        pattern,
        mtu: Arc::new(AtomicU32::new(0)),
        lib_dir: params.lib_dir,
    };
    upkeep.follow_mtu(&changes.borrow())?;
    let allocator = Allocator::new(params.node.clone(), resources.clone());
    let attacher = Attacher::new(
        params.node.clone(),
        resources,
        allocator,
        handle.clone(),
        prefix,
        upkeep.mtu.clone(),
    )
    .map_err(|e| StartError::Init(e.to_string()))?;
    let server = tokio::spawn(server::serve(
        server::listen(&params.socket)?,
        Arc::new(attacher),
    ));
    health.ready();
    tracing::info!(node = %params.node, socket = %params.socket.display(), "Calico node started successfully");
    let ended = tokio::select! {
        reason = params.stop.requested() => {
            tracing::info!(%reason, "stopping");
            Ok(())
        }
        done = &mut plane => match done {
            Ok(done) => done.map_err(Error::from),
            Err(e) => Err(Error::Ended("the dataplane", e.to_string())),
        },
        // A dead calculation would leave the node at an old state, and nobody would know.
        done = &mut engine => done.map_err(|e| Error::Ended("the calculation", e.to_string())),
        done = &mut learner => {
            let why = done.err().map_or_else(|| "nobody takes them".to_owned(), |e| e.to_string());
            Err(Error::Ended("the learning of addresses", why))
        }
        why = bgp::ended(&mut bgp) => Err(Error::Ended("the BGP speaker", why)),
        done = upkeep.run(changes, &health) => done,
    };
    // Requests end first, then changes; the kernel keeps what it holds.
    server.abort();
    promises.abort();
    engine.abort();
    learner.abort();
    let _ = std::fs::remove_file(&params.socket);
    handle.stop();
    if !plane.is_finished() {
        let _ = plane.await;
    }
    if let Some(bgp) = bgp {
        bgp.stop().await;
    }
    tracing::info!("stopped; what is programmed stays in force");
    ended
}

/// Brings store and files to where the node can serve.
async fn prepare(params: &Params, resources: &Resources) -> Result<(), Error> {
    datastore::init(&params.store, &params.env.cluster_type)
        .await
        .map_err(|e| StartError::Init(e.to_string()))?;
    startup::prepare(params, resources).await?;
    write_file(&params.lib_dir, "nodename", &params.node)?;
    let allocator = Allocator::new(params.node.clone(), resources.clone());
    if let Err(e) = tunnel::ensure(&params.node, resources, &allocator).await {
        tracing::warn!(error = %e, "the tunnel address is not settled yet");
    }
    Ok(())
}

/// The parts whose health is shown.
struct Components {
    store: Reporter,
    agent: Reporter,
}

impl Components {
    fn register(health: &Health) -> Self {
        let now = Instant::now();
        Self {
            store: health.register("datastore", None, now),
            agent: health.register("felix", None, now),
        }
    }

    fn ready(&self) {
        self.agent.report(Instant::now(), Report::ready());
        self.datastore(None);
    }

    /// A store out of reach does not make the process worth restarting: what is programmed works.
    fn datastore(&self, lost: Option<&str>) {
        let report = lost.map_or_else(Report::ready, |why| {
            Report::not_ready(format!("out of reach: {why}"))
        });
        self.store.report(Instant::now(), report);
    }
}

/// What follows from the cluster's changes besides the dataplane: tunnel addresses and the MTU.
struct Upkeep {
    node: Arc<str>,
    resources: Resources,
    allocator: Allocator,
    pattern: Regex,
    mtu: Arc<AtomicU32>,
    lib_dir: PathBuf,
}

impl Upkeep {
    async fn run(
        &self,
        mut changes: watch::Receiver<World>,
        health: &Components,
    ) -> Result<(), Error> {
        let mut settled = None;
        let mut trimmed: Option<Instant> = None;
        loop {
            let world = changes.borrow_and_update().clone();
            health.datastore(world.lost.as_deref());
            let now = (world.pools.clone(), world.node.clone());
            if settled.as_ref() != Some(&now) {
                match tunnel::ensure(&self.node, &self.resources, &self.allocator).await {
                    Ok(()) => settled = Some(now),
                    Err(e) => {
                        settled = None;
                        tracing::warn!(error = %e, "the tunnel address is not settled; trying again");
                    }
                }
            }
            self.follow_mtu(&world)?;
            if trimmed.is_none_or(|at| at.elapsed() >= LOOK_AGAIN) {
                // A snapshot, or a storm of changes, has passed.
                daemon::memory::trim();
                trimmed = Some(Instant::now());
            }
            let again = if settled.is_some() {
                LOOK_AGAIN
            } else {
                Duration::from_secs(1)
            };
            if let Ok(Err(e)) = tokio::time::timeout(again, changes.changed()).await {
                return Err(Error::Ended("the calculation", e.to_string()));
            }
        }
    }

    fn follow_mtu(&self, world: &World) -> Result<(), Error> {
        let links = match link::Handle::open().and_then(|mut h| h.links()) {
            Ok(links) => links,
            Err(e) => {
                tracing::warn!(error = %e, "cannot list interfaces; the MTU stays as it is");
                return Ok(());
            }
        };
        let host = mtu::of_host(
            &self.pattern,
            links.iter().map(|l| (l.name.as_str(), l.up, l.mtu)),
        );
        let vxlan = Family::BOTH.map(|f| {
            world
                .pools
                .values()
                .any(|p| p.cidr.family() == f && p.vxlan != Encap::Never)
        });
        let pods = mtu::of_pods(host, vxlan);
        if self.mtu.swap(pods, Ordering::Relaxed) != pods {
            tracing::info!(host, pods, "MTU of new pods");
            write_file(&self.lib_dir, "mtu", &pods.to_string())?;
        }
        Ok(())
    }
}

/// Replaces a small file as a whole.
fn write_file(dir: &std::path::Path, name: &str, text: &str) -> Result<(), Error> {
    let path = dir.join(name);
    let failed = |source| Error::File {
        path: path.clone(),
        source,
    };
    std::fs::create_dir_all(dir).map_err(failed)?;
    let new = dir.join(format!(".{name}.new"));
    std::fs::write(&new, text).map_err(failed)?;
    std::fs::rename(&new, &path).map_err(failed)
}
