//! Removal of links off the way of whoever asked for it.
//!
//! The kernel takes some 20 ms to remove an interface (it waits until no packet
//! can be inside), however many go at once. So a link that is done with is taken down and
//! renamed, which is quick and final for every packet, and removed a moment later together with
//! whatever else is due.
//!
//! Promises: after [`Reaper::bury`] nothing flows and the name is free; what a
//! killed predecessor left is removed at the next start.

use link::Changes;
use net::IfName;
use netlink::NetlinkError;
use std::sync::mpsc;

/// Interfaces of this prefix await removal. Not a workload's, so rules never match them.
const PREFIX: &str = "mxdead";

/// Buries links.
#[derive(Debug)]
pub(super) struct Reaper {
    graves: mpsc::Sender<IfName>,
}

impl Reaper {
    /// Starts the thread, which first removes what is left over. Ends when dropped.
    pub(super) fn start() -> std::io::Result<Self> {
        let (graves, due) = mpsc::channel::<IfName>();
        std::thread::Builder::new().name("reaper".to_owned()).stack_size(256 << 10).spawn(move || {
            if let Err(e) = sweep() {
                tracing::warn!(error = %e, "cannot remove the interfaces that an earlier run left");
            }
            while let Ok(first) = due.recv() {
                let names: Vec<IfName> = std::iter::once(first).chain(due.try_iter()).collect();
                if let Err(e) = link::Handle::open().and_then(|mut h| h.delete_all(&names)) {
                    tracing::warn!(error = %e, interfaces = ?names, "cannot remove interfaces; the next start tries again");
                }
            }
        })?;
        Ok(Self { graves })
    }

    /// Takes an interface down and out of the way; absent is as good.
    pub(super) fn bury(&self, name: IfName) -> Result<(), NetlinkError> {
        let mut handle = link::Handle::open()?;
        let Some(found) = handle.by_name(name)? else {
            return Ok(());
        };
        let Ok(grave) = format!("{PREFIX}{}", found.index).parse::<IfName>() else {
            return handle.delete(name).map(drop);
        };
        let change = Changes {
            name: Some(grave),
            up: Some(false),
            ..Changes::default()
        };
        match handle.change(found.index, &change) {
            Ok(()) => {
                // Without its thread the next start removes it.
                let _ = self.graves.send(grave);
                Ok(())
            }
            // Old kernels rename only what is down already; and it may have gone meanwhile.
            Err(_) => handle.delete(name).map(drop),
        }
    }
}

fn sweep() -> Result<(), NetlinkError> {
    let mut handle = link::Handle::open()?;
    let left: Vec<IfName> = handle
        .links()?
        .into_iter()
        .map(|l| l.name)
        .filter(|n| n.as_str().starts_with(PREFIX))
        .collect();
    if left.is_empty() {
        Ok(())
    } else {
        handle.delete_all(&left)
    }
}
