//! One thread a store that notices what other processes write.
//!
//! A commit is announced by modifying the notify file, which inotify tells of in
//! about a tenth of a millisecond. A writer that died in between, or a lost
//! announcement, is made up for by looking at the file once in a poll interval.

use super::file::notify_path;
use super::{Inner, lock, sql};
use crate::StoreError;
use inotify::{Inotify, WatchMask};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::sync::{Arc, Weak};

/// Starts the thread unless it runs already. It ends with the store.
pub(super) fn start(inner: &Arc<Inner>) -> Result<(), StoreError> {
    let mut started = lock(&inner.tail_started);
    if *started {
        return Ok(());
    }
    let unavailable = |what: &str, e: std::io::Error| StoreError::Unavailable {
        operation: "watch",
        key: inner.path.display().to_string(),
        cause: format!("{what}: {e}"),
    };
    let inotify = Inotify::init().map_err(|e| unavailable("inotify", e))?;
    let weak = Arc::downgrade(inner);
    let wait = Timespec::try_from(inner.options.poll).unwrap_or(Timespec {
        tv_sec: 1,
        tv_nsec: 0,
    });
    std::thread::Builder::new()
        .name("store-tail".to_owned())
        .spawn(move || run(&weak, inotify, &wait))
        .map_err(|e| unavailable("start a thread", e))?;
    *started = true;
    Ok(())
}

fn run(store: &Weak<Inner>, mut inotify: Inotify, wait: &Timespec) {
    let mut buffer = [0; 1024];
    let mut watched = false;
    loop {
        let Some(inner) = store.upgrade() else { return };
        if !watched {
            // The file may have been made anew since.
            watched = inotify
                .watches()
                .add(notify_path(&inner.path), WatchMask::MODIFY)
                .is_ok();
        }
        look(&inner);
        drop(inner);
        // Interrupted or timed out, either way the file is looked at next.
        let _ = poll(&mut [PollFd::new(&inotify, PollFlags::IN)], Some(wait));
        while let Ok(events) = inotify.read_events(&mut buffer) {
            for event in events {
                if event.mask.contains(inotify::EventMask::IGNORED) {
                    watched = false;
                }
            }
        }
    }
}

fn look(inner: &Inner) {
    match inner.read("watch", "", sql::latest) {
        Ok(revision) => inner.wrote(revision),
        // Whoever watches meets the same trouble and reports it.
        Err(_) => inner.disturb(false),
    }
}
