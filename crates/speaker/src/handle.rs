//! The face towards other threads.
//!
//! Promises: handing something in never blocks; looking waits for the loop, for one round at most.

use crate::bfd::Failed;
use crate::engine::{Engine, Settings, Stop, View};
use crate::kernel::Report;
use crate::poll::Waker;
use bgp::router::{Event, Router};
use model::{SecretKey, Update};
use std::io;
use std::net::SocketAddr;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::Instant;
use thiserror::Error;

/// The loop has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the BGP speaker has ended")]
pub struct Gone;

type Look = Box<dyn FnOnce(&View<'_>) + Send>;
type Act = Box<dyn FnOnce(&mut Router, Instant) + Send>;
pub(crate) type Watch = Box<dyn FnMut(&str, &Event) -> bool + Send>;

pub(crate) enum Command {
    Update(Update),
    Key(SecretKey, Option<Vec<u8>>),
    Synced,
    Look(Look),
    Act(Act),
    Watch(Watch),
    Kernel(Report),
    PathsFailed(Vec<Failed>),
    /// Where the name of a monitoring station leads.
    Resolved(usize, Result<SocketAddr, String>),
    Stop(Stop),
}

/// How threads of ours tell the loop.
#[derive(Debug, Clone)]
pub(crate) struct Reporter(Handle);

impl Reporter {
    pub(crate) fn report(&self, report: Report) {
        // Without a loop there is nobody to tell.
        let _ = self.0.send(Command::Kernel(report));
    }

    pub(crate) fn resolved(&self, station: usize, to: Result<SocketAddr, String>) {
        let _ = self.0.send(Command::Resolved(station, to));
    }
}

impl Reporter {
    pub(crate) fn paths_failed(&self, failed: Vec<Failed>) {
        let _ = self.0.send(Command::PathsFailed(failed));
    }
}

/// What comes in.
pub(crate) struct Inbox(Receiver<Command>);

impl Inbox {
    pub(crate) fn take(&self) -> Option<Command> {
        self.0.try_recv().ok()
    }
}

/// A speaker; a clone is the same one.
#[derive(Debug, Clone)]
pub struct Handle {
    commands: Sender<Command>,
    waker: Waker,
}

impl Handle {
    pub(crate) fn new(waker: Waker) -> (Self, Inbox) {
        let (commands, inbox) = channel();
        (Self { commands, waker }, Inbox(inbox))
    }

    pub(crate) fn reporter(&self) -> Reporter {
        Reporter(self.clone())
    }

    /// Starts a speaker in a thread of its own, in the caller's network namespace. Nothing is
    /// spoken before [`Handle::synced`].
    ///
    /// # Errors
    /// When threads or descriptors have run out.
    pub fn start(settings: Settings) -> io::Result<(Self, JoinHandle<io::Result<()>>)> {
        let (engine, handle) = Engine::new(settings)?;
        let thread = std::thread::Builder::new()
            .name("bgp".to_owned())
            .spawn(move || engine.run())?;
        Ok((handle, thread))
    }

    fn send(&self, command: Command) -> Result<(), Gone> {
        self.commands.send(command).map_err(|_| Gone)?;
        self.waker.wake();
        Ok(())
    }

    /// Hands in the new state of a resource.
    ///
    /// # Errors
    /// When the speaker has ended.
    pub fn update(&self, update: Update) -> Result<(), Gone> {
        self.send(Command::Update(update))
    }

    /// Hands in what a secret holds; `None`: it does not exist, and sessions that need it stay down.
    ///
    /// # Errors
    /// When the speaker has ended.
    pub fn key(&self, key: SecretKey, value: Option<Vec<u8>>) -> Result<(), Gone> {
        self.send(Command::Key(key, value))
    }

    /// What was handed in is complete: from now on it is followed.
    ///
    /// # Errors
    /// When the speaker has ended.
    pub fn synced(&self) -> Result<(), Gone> {
        self.send(Command::Synced)
    }

    /// Looks at it between two rounds, after all that was handed in before.
    ///
    /// # Errors
    /// When the speaker has ended.
    pub fn look<T: Send + 'static>(
        &self,
        look: impl FnOnce(&View<'_>) -> T + Send + 'static,
    ) -> Result<T, Gone> {
        let (answer, wait) = channel();
        self.send(Command::Look(Box::new(move |v| {
            // Whoever asked may have gone.
            let _ = answer.send(look(v));
        })))?;
        wait.recv().map_err(|_| Gone)
    }

    /// Does something with the router, such as a reset of a peer; nothing while nothing is spoken.
    ///
    /// # Errors
    /// When the speaker has ended.
    pub fn act(&self, act: impl FnOnce(&mut Router, Instant) + Send + 'static) -> Result<(), Gone> {
        self.send(Command::Act(Box::new(act)))
    }

    /// Tells each event from now on, with the name of the peer that it is about (empty when it is
    /// about none), in the speaker's own thread: it must be quick. It ends when it says `false`.
    ///
    /// # Errors
    /// When the speaker has ended.
    pub fn watch(
        &self,
        watch: impl FnMut(&str, &Event) -> bool + Send + 'static,
    ) -> Result<(), Gone> {
        self.send(Command::Watch(Box::new(watch)))
    }

    /// Ends it without a word: peers that know graceful restart go on forwarding.
    ///
    /// # Errors
    /// When the speaker has ended already.
    pub fn stop(&self) -> Result<(), Gone> {
        self.send(Command::Stop(Stop::Silent))
    }

    /// Ends it, telling all peers why (RFC 9003); at most 128 octets of the text are sent.
    ///
    /// # Errors
    /// When the speaker has ended already.
    pub fn shut_down(&self, text: impl Into<String>) -> Result<(), Gone> {
        self.send(Command::Stop(Stop::Shutdown(text.into())))
    }
}
