//! Learned routes in the kernel, the way to next hops, the kernel's routes for peers, and the addresses
//! that workloads call.
//!
//! Promises: works in a thread of its own, in slices, so that BGP never waits for the kernel; what a
//! run before has left is adopted, never flushed; routes of other protocols are not touched. A route
//! that cannot be written is tried again and told.
//!
//! Never: decides which route is best.

mod answers;
mod counted;
mod rows;
mod run;
mod table;

pub(crate) use table::{Change, Gate, NextHops};

use crate::engine::Kernel;
use crate::handle::Reporter;
use bgp::rib::HopState;
use net::{Cidr, Family, IfName};
use netlink::NetlinkError;
use peering::Tunnelled;
use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

/// So many changes may wait for the kernel before no more are taken from the router.
const MOST: usize = 16 << 10;

/// What the loop wants.
#[derive(Debug)]
pub(crate) enum Order {
    /// The best routes to prefixes, as they are now.
    Routes(Vec<Change>),
    /// Next hops that are in use (`true`) or no more.
    Hops(Vec<(IpAddr, bool)>),
    /// What follows from the resources.
    Policy(Policy),
    /// Peers have told all they have.
    Converged(Family),
    /// Nothing is spoken any more.
    Forget,
    /// End, and leave all routes.
    Stop,
}

/// What follows from the resources.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Policy {
    /// Nothing inside of these is written.
    pub refuse: Vec<Cidr>,
    /// What is inside of these leads through the IP in IP device.
    pub tunnelled: Vec<Tunnelled>,
    /// Who is spoken with.
    pub peers: Vec<IpAddr>,
    /// Peers, and the gateways by which they are reached.
    pub statics: Vec<(IpAddr, IpAddr)>,
    /// Where workloads call: the node answers there.
    pub answers: BTreeSet<IpAddr>,
    /// Interfaces whose routes are not told; `*` at an end.
    pub ignored: Vec<Arc<str>>,
}

/// A route of others that peers may be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Local {
    /// Its metric; 0 for none.
    pub metric: u32,
    /// Where it leads.
    pub interface: Option<IfName>,
    /// The kernel made it for an address of its own.
    pub connected: bool,
}

/// What the loop is told.
#[derive(Debug)]
pub(crate) enum Report {
    /// The tables have been read; for each family whether routes of a run before are there.
    Ready([bool; 2]),
    /// Next hops whose state has changed.
    Hops(Vec<(IpAddr, HopState)>),
    /// Routes of others, new or different or gone.
    Locals(Vec<(Cidr, Option<Local>)>),
    /// What stands in the way, all of it.
    Troubles(Vec<String>),
    /// There is room for more changes.
    Room,
}

/// Something to look at.
enum Input {
    Order(Order),
    Route(route::Event),
    Link(link::Event),
}

/// The thread, from the loop's side.
#[derive(Debug)]
pub(crate) struct Worker {
    inputs: Sender<Input>,
    waiting: Arc<AtomicUsize>,
    reads: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

/// Why the kernel's routes cannot be dealt with.
fn other(e: NetlinkError) -> io::Error {
    io::Error::other(e.to_string())
}

impl Worker {
    /// Starts the thread in the caller's network namespace.
    ///
    /// # Errors
    /// When the kernel gives no socket, or threads have run out.
    pub(crate) fn start(settings: &Kernel, reports: Reporter) -> io::Result<Self> {
        let (inputs, from): (_, Receiver<Input>) = channel();
        let waiting = Arc::new(AtomicUsize::new(0));
        let reads = Arc::new(AtomicU64::new(0));
        let counts = (waiting.clone(), reads.clone());
        let run = run::Run::open(settings, (&inputs, from), reports, counts).map_err(other)?;
        let thread = std::thread::Builder::new()
            .name("bgp-kernel".to_owned())
            .spawn(move || run.run())?;
        Ok(Self {
            inputs,
            waiting,
            reads,
            thread: Some(thread),
        })
    }

    /// Hands an order in. Never blocks.
    pub(crate) fn order(&self, order: Order) {
        if let Order::Routes(changes) = &order {
            self.waiting.fetch_add(changes.len(), Ordering::Relaxed);
        }
        // A thread that has ended says so when it is joined.
        let _ = self.inputs.send(Input::Order(order));
    }

    /// How often the tables have been read whole.
    pub(crate) fn reads(&self) -> u64 {
        self.reads.load(Ordering::Relaxed)
    }

    /// How many changes it may be given now.
    pub(crate) fn room(&self) -> usize {
        MOST.saturating_sub(self.waiting.load(Ordering::Relaxed))
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.order(Order::Stop);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread of the kernel's routes had ended by a panic");
        }
    }
}
