//! BGP on a node: the speaker in a thread of its own, fed with what concerns it.
//!
//! Promises: nothing is spoken before the snapshot is complete; a stop and a kill alike leave the
//! kernel's routes in force and tell peers nothing, so that they go on forwarding until the next start
//! (RFC 4724). Never: makes the calculation wait.

use crate::Params;
use daemon::node::{Backend, RouterId, hashed_router_id};
use model::Update;
use peering::World;
use speaker::{Control, ControlError, Handle, Kernel, Settings};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinHandle;

/// The speaker is waited for so long at the end; the sockets go with the process in any case.
const END: Duration = Duration::from_secs(5);

/// Why BGP cannot be spoken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BgpError {
    /// Descriptors or threads.
    #[error("start the BGP speaker: {0}")]
    Start(#[from] io::Error),
    /// The control sockets.
    #[error("{0}; set MANX_BGP_DIR to a directory of this node's own")]
    Control(#[from] ControlError),
}

/// The running speaker.
#[derive(Debug)]
pub(crate) struct Bgp {
    handle: Handle,
    control: Control,
    health: JoinHandle<()>,
    thread: JoinHandle<std::thread::Result<io::Result<()>>>,
}

/// By which the calculation's loop tells it what changes.
#[derive(Debug)]
pub(crate) struct Feed {
    handle: Handle,
    node: Arc<str>,
    namespace: Arc<str>,
}

impl Bgp {
    /// Starts it where the node's environment asks for it.
    ///
    /// # Errors
    /// When sockets, threads or descriptors cannot be had.
    pub(crate) fn start(params: &Params) -> Result<Option<Self>, BgpError> {
        if params.env.backend != Backend::Bgp {
            return Ok(None);
        }
        let hashed = hashed_router_id(&params.node);
        let seed = RandomState::new().build_hasher().finish();
        let mut settings = Settings::new(&*params.node, hashed.into(), seed);
        settings.router_id = match params.env.router_id {
            RouterId::Address => None,
            RouterId::Hash => Some(hashed.into()),
            RouterId::Fixed(id) => Some(id.into()),
        };
        settings.stations.clone_from(&params.stations);
        let (handle, thread) = Handle::start(settings.with_kernel(Kernel::default()))?;
        let control = Control::start(&handle, &params.bgp_dir)?;
        control.register(&handle, &params.metrics);
        let health = speaker::report_health(handle.clone(), params.health.clone());
        Ok(Some(Self {
            handle,
            control,
            health: tokio::spawn(health),
            thread: tokio::task::spawn_blocking(move || thread.join()),
        }))
    }

    /// For the loop that follows the store.
    pub(crate) fn feed(&self, params: &Params) -> Feed {
        Feed {
            handle: self.handle.clone(),
            node: params.node.clone(),
            namespace: params.env.namespace.as_str().into(),
        }
    }

    /// Ends it without a word to peers.
    pub(crate) async fn stop(self) {
        self.health.abort();
        // It may have ended by itself.
        if self.handle.stop().is_ok() {
            let _ = tokio::time::timeout(END, self.thread).await;
        }
        self.control.stop();
    }
}

/// Waits for the end of a speaker that nobody has stopped, and says why; without one, for ever.
pub(crate) async fn ended(bgp: &mut Option<Bgp>) -> String {
    match bgp {
        None => std::future::pending().await,
        Some(bgp) => match (&mut bgp.thread).await {
            Ok(Ok(Ok(()))) => "it was told to".to_owned(),
            Ok(Ok(Err(e))) => e.to_string(),
            _ => "its thread panicked".to_owned(),
        },
    }
}

impl Feed {
    /// The snapshot is complete.
    pub(crate) fn in_sync(&self) {
        // A speaker that is gone is noticed where its end is waited for; so below.
        let _ = self.handle.synced();
    }

    /// Something changes. Passwords are those of this agent's namespace.
    pub(crate) fn update(&self, update: &Update) {
        let concerning = match update {
            Update::Secret(at, _) if at.namespace == self.namespace => Some(update.clone()),
            u => World::concerning(&self.node, u),
        };
        if let Some(update) = concerning {
            let _ = self.handle.update(update);
        }
    }
}
