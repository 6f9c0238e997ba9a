//! Removal of links off the way of whoever asked for it.
//!
//! The kernel takes some 20 ms to remove an interface (it waits until no packet
//! can be inside), however many go at once, and nearly as long to take one down or rename it. So a
//! link that is done with is only marked, and removed a moment later together with
//! whatever else is due by then. Until then its rules hold, and once its endpoint is gone from them it is
//! closed like any workload interface that nobody knows.
//!
//! Promises: what is marked is removed, at the next start if this process dies first.

use net::IfName;
use netlink::NetlinkError;
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// A removal holds the kernel's lock of all interfaces for most of its time, and wiring, routes
/// and rules of other pods wait for it. So it comes when nobody has asked for this long,
const QUIET: Duration = Duration::from_millis(50);
/// or when somebody has waited for this long.
const AT_MOST: Duration = Duration::from_millis(500);

/// Buries links.
#[derive(Debug)]
pub(super) struct Reaper {
    due: mpsc::Sender<()>,
}

impl Reaper {
    /// Starts the thread, which first removes what is left over. Ends when dropped.
    pub(super) fn start() -> std::io::Result<Self> {
        let (due, asked) = mpsc::channel::<()>();
        let thread = std::thread::Builder::new().name("reaper".to_owned());
        thread.stack_size(256 << 10).spawn(move || {
            loop {
                if let Err(e) = link::Handle::open().and_then(|mut h| h.delete_doomed()) {
                    tracing::warn!(error = %e, "cannot remove interfaces that are done with; the next removal tries again");
                }
                if asked.recv().is_err() {
                    return;
                }
                let first = Instant::now();
                while first.elapsed() < AT_MOST && asked.recv_timeout(QUIET).is_ok() {}
            }
        })?;
        Ok(Self { due })
    }

    /// Has an interface removed soon; absent is as good.
    pub(super) fn bury(&self, name: IfName) -> Result<(), NetlinkError> {
        link::Handle::open()?.doom(&[name])?;
        // Without its thread the next start removes it.
        let _ = self.due.send(());
        Ok(())
    }
}
