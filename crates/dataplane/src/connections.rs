//! Forgetting the connections of addresses that left.
//!
//! An address that left must not keep the connections of its old workload: whoever has
//! it next would get their packets, let through as established. Reading the kernel's table
//! takes it milliseconds even when it is empty, so that is done on a thread of its own, once for
//! all addresses that wait.
//!
//! Promises: what could not be forgotten is tried again until it is; each address that was
//! handed in is answered as often as it was.
//! Never: holds up the loop.

use nftables::conntrack::Conntrack;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::mpsc;
use std::time::Duration;
use tokio::sync::mpsc as answers;

/// Pause before a failed attempt is repeated.
const AGAIN: Duration = Duration::from_secs(1);

/// What became of addresses.
#[derive(Debug)]
pub(crate) enum Answer {
    /// Their connections are forgotten.
    Done(Vec<IpAddr>),
    /// Not yet, and why.
    Failed(Vec<IpAddr>, String),
}

/// Takes addresses, forgets their connections. Its thread ends when it is dropped.
#[derive(Debug)]
pub(crate) struct Connections {
    gone: mpsc::Sender<Vec<IpAddr>>,
    done: answers::UnboundedReceiver<Answer>,
}

impl Connections {
    /// Starts the thread. The socket decides which namespace's connections are meant.
    pub(crate) fn start(socket: Conntrack) -> std::io::Result<Self> {
        let (gone, inbox) = mpsc::channel();
        let (told, done) = answers::unbounded_channel();
        std::thread::Builder::new()
            .name("conntrack".to_owned())
            .stack_size(256 << 10)
            .spawn(move || forget(socket, &inbox, &told))?;
        Ok(Self { gone, done })
    }

    /// Has the connections of addresses forgotten soon.
    pub(crate) fn forget(&self, addresses: Vec<IpAddr>) {
        if !addresses.is_empty() {
            // The thread ends only with us.
            let _ = self.gone.send(addresses);
        }
    }

    /// The next answer.
    pub(crate) async fn answer(&mut self) -> Option<Answer> {
        self.done.recv().await
    }

    /// An answer that is there already.
    pub(crate) fn try_answer(&mut self) -> Option<Answer> {
        self.done.try_recv().ok()
    }
}

fn forget(
    mut socket: Conntrack,
    inbox: &mpsc::Receiver<Vec<IpAddr>>,
    told: &answers::UnboundedSender<Answer>,
) {
    let mut waiting: Vec<IpAddr> = Vec::new();
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
        let addresses: BTreeSet<IpAddr> = waiting.iter().copied().collect();
        let addresses: Vec<IpAddr> = addresses.into_iter().collect();
        let answer = match socket.flush(&addresses) {
            Ok(_) => Answer::Done(std::mem::take(&mut waiting)),
            Err(e) => {
                tracing::warn!(error = %e, ?addresses, "cannot forget the connections of addresses; trying again");
                Answer::Failed(addresses, e.to_string())
            }
        };
        if told.send(answer).is_err() {
            return;
        }
    }
}
