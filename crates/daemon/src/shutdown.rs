//! The end, asked for once and heard by everybody.

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// A clone hears the same end.
#[derive(Debug, Clone)]
pub struct Shutdown {
    asked: watch::Sender<bool>,
}

impl Default for Shutdown {
    fn default() -> Self {
        Self { asked: watch::Sender::new(false) }
    }
}

impl Shutdown {
    /// One that ends on SIGTERM or SIGINT. Needs a runtime.
    ///
    /// # Errors
    /// When the signals cannot be caught.
    pub fn on_signals() -> std::io::Result<Self> {
        let out = Self::default();
        let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let asked = out.clone();
        tokio::spawn(async move {
            let name = tokio::select! {
                _ = term.recv() => "SIGTERM",
                _ = int.recv() => "SIGINT",
            };
            tracing::info!(signal = name, "stopping");
            asked.ask();
        });
        Ok(out)
    }

    /// Asks for the end.
    pub fn ask(&self) {
        self.asked.send_replace(true);
    }

    /// Waits until somebody asked.
    pub async fn wait(&self) {
        // An error means that there is nobody left to ask, which cannot be while we hold a sender.
        let _ = self.asked.subscribe().wait_for(|asked| *asked).await;
    }
}
