//! The loop that makes the kernel hold what is desired.
//!
//! Promises: nothing is written before the desired state is complete and the interfaces
//! are known; from then on each delta takes effect in the order that keeps packets safe,
//! what fails stays dirty and is tried again, one bad object never stops the others, and
//! for every endpoint it can be asked, and waited for, whether it is programmed.
//! Ending the loop leaves everything in the kernel.
//!
//! Never: knows a resource or a datastore; reads, changes or removes what is not ours.

mod connections;
mod cycle;
mod handle;
mod links;
mod metrics;
mod report;
mod routes;
mod rules;

pub use handle::{Handle, WaitError};
pub use metrics::Metrics;
pub use report::{Pending, Report, State};

use netlink::netns::NetNs;
use nftables::TableName;
use std::time::Duration;

/// How the loop is set up. What may change while it runs is in [`desired::Globals`].
#[derive(Debug)]
pub struct Options {
    /// The namespace to program; `None` is that of the thread that calls
    /// [`Dataplane::new`].
    pub netns: Option<NetNs>,
    /// The table of rules, all of which is ours.
    pub table: TableName,
    /// Remove routes of others on workload interfaces (Calico's `RemoveExternalRoutes`).
    pub remove_external_routes: bool,
    /// How long a route that we do not know stays on a workload interface: the CNI
    /// plugin may be ahead of the datastore.
    pub route_grace: Duration,
    /// How often the kernel is read whole, behind the notifications.
    pub resync: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            netns: None,
            table: TableName::new("manx").expect("a valid name"),
            remove_external_routes: true,
            route_grace: Duration::from_secs(10),
            resync: Duration::from_secs(600),
        }
    }
}

/// Why the loop cannot start, or cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A socket could not be opened or read.
    #[error("cannot talk to the kernel")]
    Netlink(#[from] netlink::NetlinkError),
    /// A thread could not be started.
    #[error("cannot start a thread")]
    Thread(#[source] std::io::Error),
}

type AskFault = dyn FnMut(&nftables::Plan) -> Option<nftables::Fault> + Send;

/// What decides which transactions fail, in tests.
struct Faults(Box<AskFault>);

impl std::fmt::Debug for Faults {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("faults")
    }
}

/// The loop, before it runs.
#[derive(Debug)]
pub struct Dataplane {
    handle: Handle,
    options: Options,
    ns: NetNs,
    inbox: tokio::sync::mpsc::UnboundedReceiver<handle::Command>,
    faults: Option<Faults>,
}

impl Dataplane {
    /// Prepares the loop; touches nothing.
    ///
    /// # Errors
    /// When the namespace of the calling thread cannot be found.
    pub fn new(mut options: Options) -> Result<Self, Error> {
        let ns = match options.netns.take() {
            Some(ns) => ns,
            None => NetNs::current()?,
        };
        let (handle, inbox) = Handle::new();
        Ok(Self {
            handle,
            options,
            ns,
            inbox,
            faults: None,
        })
    }

    /// Has transactions fail as the function says: for tests of what comes of it.
    pub fn inject(
        &mut self,
        faults: impl FnMut(&nftables::Plan) -> Option<nftables::Fault> + Send + 'static,
    ) {
        self.faults = Some(Faults(Box::new(faults)));
    }

    /// By which it is fed, asked and stopped.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Runs until [`Handle::stop`], then leaves the kernel as it is. Needs a tokio runtime
    /// with I/O and time; the future is `Send`. Its calls to the kernel block for as
    /// long as the kernel works: microseconds, or milliseconds for thousands of rules.
    ///
    /// # Errors
    /// When a socket cannot be opened or read. What the kernel refuses is no error: it is
    /// reported, and tried again.
    pub async fn run(self) -> Result<(), Error> {
        let faults = self.faults;
        cycle::Cycle::open(self.handle, self.inbox, self.options, &self.ns, faults)?
            .run()
            .await
    }
}
