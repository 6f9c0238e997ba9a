//! Forgetting the connections of addresses that left.
//!
//! An address that left must not keep the connections of its old workload: whoever has
//! it next would get their packets, let through as established. Reading the kernel's table
//! takes it milliseconds even when it is empty, so that is done on a thread of its own, once for
//! all addresses that wait.
//!
//! Promises: what could not be forgotten is tried again until it is.
//! Never: holds up the loop.

use nftables::conntrack::Conntrack;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::mpsc;
use std::time::Duration;

/// Pause before a failed attempt is repeated.
const AGAIN: Duration = Duration::from_secs(1);

/// Takes addresses, forgets their connections. Its thread ends when it is dropped.
#[derive(Debug)]
pub(crate) struct Connections {
    gone: mpsc::Sender<Vec<IpAddr>>,
}

impl Connections {
    /// Starts the thread. The socket decides which namespace's connections are meant.
    pub(crate) fn start(socket: Conntrack) -> std::io::Result<Self> {
        let (gone, inbox) = mpsc::channel();
        std::thread::Builder::new()
            .name("conntrack".to_owned())
            .stack_size(256 << 10)
            .spawn(move || forget(socket, &inbox))?;
        Ok(Self { gone })
    }

    /// Has the connections of addresses forgotten soon.
    pub(crate) fn forget(&self, addresses: impl IntoIterator<Item = IpAddr>) {
        let addresses: Vec<IpAddr> = addresses.into_iter().collect();
        if !addresses.is_empty() {
            // The thread ends only with us.
            let _ = self.gone.send(addresses);
        }
    }
}

fn forget(mut socket: Conntrack, inbox: &mpsc::Receiver<Vec<IpAddr>>) {
    let mut waiting: BTreeSet<IpAddr> = BTreeSet::new();
    loop {
        let more = if waiting.is_empty() {
            inbox
                .recv()
                .map_err(|_| mpsc::RecvTimeoutError::Disconnected)
        } else {
            inbox.recv_timeout(AGAIN)
        };
        match more {
            Ok(addresses) => waiting.extend(addresses),
            Err(mpsc::RecvTimeoutError::Timeout) => {}
            Err(mpsc::RecvTimeoutError::Disconnected) => return,
        }
        waiting.extend(inbox.try_iter().flatten());
        let addresses: Vec<IpAddr> = waiting.iter().copied().collect();
        match socket.flush(&addresses) {
            Ok(_) => waiting.clear(),
            Err(e) => {
                tracing::warn!(error = %e, ?addresses, "cannot forget the connections of addresses; trying again");
            }
        }
    }
}
