//! A wish to end that every task can wait for.

use std::sync::Arc;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// Asks a process to end. Clones are the same wish.
#[derive(Debug, Clone)]
pub struct Shutdown {
    state: Arc<watch::Sender<Option<Arc<str>>>>,
}

impl Default for Shutdown {
    fn default() -> Self {
        Self::new()
    }
}

impl Shutdown {
    /// Nobody asks yet.
    pub fn new() -> Self {
        Self {
            state: Arc::new(watch::Sender::new(None)),
        }
    }

    /// SIGTERM and SIGINT ask from now on. Needs a tokio runtime.
    ///
    /// # Errors
    /// When the signals cannot be listened to.
    pub fn on_signals() -> std::io::Result<Self> {
        let shutdown = Self::new();
        let mut term = signal(SignalKind::terminate())?;
        let mut int = signal(SignalKind::interrupt())?;
        let asked = shutdown.clone();
        tokio::spawn(async move {
            let name = tokio::select! {
                _ = term.recv() => "SIGTERM",
                _ = int.recv() => "SIGINT",
            };
            asked.trigger(name);
        });
        Ok(shutdown)
    }

    /// Asks. The first reason stays.
    pub fn trigger(&self, reason: &str) {
        self.state.send_if_modified(|s| {
            let first = s.is_none();
            if first {
                *s = Some(reason.into());
            }
            first
        });
    }

    /// Whether somebody asked.
    pub fn is_requested(&self) -> bool {
        self.state.borrow().is_some()
    }

    /// Waits until somebody asks; gives the reason.
    pub async fn requested(&self) -> Arc<str> {
        let mut seen = self.state.subscribe();
        // `self` holds the sender, so the channel stays open.
        let reason = seen.wait_for(Option::is_some).await;
        reason.ok().and_then(|r| r.clone()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn everybody_hears_the_first_reason() {
        let s = Shutdown::new();
        assert!(!s.is_requested());
        let waiting = tokio::spawn({
            let s = s.clone();
            async move { s.requested().await }
        });
        s.trigger("SIGTERM");
        s.trigger("SIGINT");
        assert_eq!(&*waiting.await.expect("no panic"), "SIGTERM");
        assert_eq!(&*s.requested().await, "SIGTERM");
        assert!(s.is_requested());
    }
}
