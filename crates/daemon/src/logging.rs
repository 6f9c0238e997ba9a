//! Logs: to standard error, as text for people or JSON for machines, at a level that
//! can be changed while running.

use std::io::IsTerminal;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry, fmt, reload};

/// How a line looks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Format {
    /// For people; coloured on a terminal that wants it.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

impl std::str::FromStr for Format {
    type Err = String;
    fn from_str(s: &str) -> Result<Self, String> {
        match s.to_ascii_lowercase().as_str() {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err("log format must be text or json".to_owned()),
        }
    }
}

/// Changes the level of a running process.
#[derive(Debug, Clone)]
pub struct LogLevel {
    filter: reload::Handle<LevelFilter, Registry>,
}

impl LogLevel {
    /// From now on, this level and worse.
    pub fn set(&self, level: LevelFilter) {
        if let Err(e) = self.filter.reload(level) {
            tracing::warn!(error = %e, "cannot change the log level");
        }
    }
}

/// Starts logging. Once a process; a second call changes nothing and still gives a
/// handle, of no effect.
pub fn start(format: Format, level: LevelFilter) -> LogLevel {
    let (filter, handle) = reload::Layer::new(level);
    // https://no-color.org: set and not empty means none.
    let plain = std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty());
    let colour = !plain && std::io::stderr().is_terminal();
    let lines = fmt::layer()
        .with_writer(std::io::stderr)
        .with_target(true)
        .with_ansi(colour && format == Format::Text);
    let lines = match format {
        Format::Text => lines.boxed(),
        Format::Json => lines.json().boxed(),
    };
    // Refused only if logging was started before: then that one stays.
    let _ = tracing_subscriber::registry()
        .with(lines.with_filter(filter))
        .try_init();
    LogLevel { filter: handle }
}
