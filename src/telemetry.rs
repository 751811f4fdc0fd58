//! Logging to standard error.

use std::io;
use std::sync::OnceLock;

use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};
use tracing_subscriber::{Layer, Registry, fmt, reload};

/// Log format.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// Human-readable.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

/// Logging settings.
#[derive(Clone, Debug)]
pub struct Logging {
    /// Filter: `error`, `warn`, `info`, `debug` or `trace`, also per module:
    /// `info,topsail::xds=debug`.
    pub filter: LogFilter,
    /// The format.
    pub format: LogFormat,
    /// Whether the human-readable format uses colours.
    pub color: bool,
}

/// A valid filter directive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogFilter(String);

impl std::str::FromStr for LogFilter {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let example = "error, warn, info, debug or trace is needed, or the like by module: info,topsail::xds=debug";
        // `EnvFilter` also supports spans and fields by regular expressions, at the cost of a
        // megabyte of memory.
        match text.parse::<Targets>() {
            Ok(_) if !text.trim().is_empty() => Ok(Self(text.to_owned())),
            Ok(_) => Err(example.to_owned()),
            Err(error) => Err(format!("{error}: {example}")),
        }
    }
}

impl LogFilter {
    /// The filter, with two libraries limited to errors: `notify` logs that a watch was removed
    /// with its directory, and `h2` lets a client that floods a connection flood the log.
    fn targets(&self) -> Targets {
        // The filter was validated by the constructor.
        format!("notify=error,h2=error,{}", self.0).parse().unwrap_or_default()
    }
}

/// Starts logging; may be called once per process.
///
/// # Errors
///
/// If a logger is already set.
pub fn start(logging: &Logging) -> Result<(), TryInitError> {
    let (filter, handle) = reload::Layer::new(logging.filter.targets());
    let lines = fmt::layer().with_writer(io::stderr).with_ansi(logging.color);
    let lines = match logging.format {
        LogFormat::Text => lines.with_target(false).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    Registry::default().with(filter).with(lines).try_init()?;
    // Logging is started only once, so it is unset.
    let _ = RELOAD.set(handle);
    Ok(())
}

/// Handle to replace the filter.
static RELOAD: OnceLock<reload::Handle<Targets, Registry>> = OnceLock::new();

/// Why the filter cannot be changed.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// Logging was not started by [`start`].
    #[error("logging is not set up")]
    NotStarted,
    /// The logger was dropped.
    #[error(transparent)]
    Gone(#[from] reload::Error),
}

/// Replaces the filter.
///
/// # Errors
///
/// If logging was not started by [`start`].
pub fn change(filter: &LogFilter) -> Result<(), ChangeError> {
    let handle = RELOAD.get().ok_or(ChangeError::NotStarted)?;
    Ok(handle.reload(filter.targets())?)
}

#[cfg(test)]
mod tests {
    use tracing::Level;

    use super::*;

    #[test]
    fn libraries_log_only_on_request() {
        let shows = |text: &str, target, level| {
            let filter = text.parse::<LogFilter>().unwrap().targets();
            filter.would_enable(target, &level)
        };
        for (library, target) in [("notify", "notify::inotify"), ("h2", "h2::proto")] {
            assert!(shows("info", target, Level::ERROR) && !shows("info", target, Level::WARN));
            let asked = format!("info,{library}=debug");
            assert!(shows(&asked, target, Level::DEBUG), "{asked}");
        }
    }

    #[test]
    fn levels_and_modules_can_be_named() {
        for text in ["info", "WARN", "info,topsail::xds=debug", "off"] {
            assert!(text.parse::<LogFilter>().is_ok(), "{text}");
        }
        for text in ["", " ", "topsail=loud"] {
            assert!(text.parse::<LogFilter>().unwrap_err().contains("debug"), "{text}");
        }
    }
}
