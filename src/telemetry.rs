//! Logs on standard error.

use std::io;
use std::sync::OnceLock;

use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};
use tracing_subscriber::{Layer, Registry, fmt, reload};

/// How a line looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// What is logged, and how.
#[derive(Clone, Debug)]
pub struct Logging {
    /// `error`, `warn`, `info`, `debug` or `trace`, also by module: `info,topsail::xds=debug`.
    pub filter: LogFilter,
    /// How a line looks.
    pub format: LogFormat,
    /// Whether lines for people have colours.
    pub color: bool,
}

/// A text that says what is logged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogFilter(String);

impl std::str::FromStr for LogFilter {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let example = "error, warn, info, debug or trace is needed, or the like by module: info,topsail::xds=debug";
        // `EnvFilter` would read spans and fields as well, with regular expressions: a megabyte of memory at every start.
        match text.parse::<Targets>() {
            Ok(_) if !text.trim().is_empty() => Ok(Self(text.to_owned())),
            Ok(_) => Err(example.to_owned()),
            Err(error) => Err(format!("{error}: {example}")),
        }
    }
}

impl LogFilter {
    /// What is given, but for the words of two libraries: that a watch went with its directory is no news to anybody,
    /// and who floods an HTTP/2 connection is not to fill the log as well.
    fn targets(&self) -> Targets {
        // It was read before, and goes on being readable.
        format!("notify=error,h2=error,{}", self.0).parse().unwrap_or_default()
    }
}

/// Starts logging, once in the life of a process.
///
/// # Errors
/// When something logs already.
pub fn start(logging: &Logging) -> Result<(), TryInitError> {
    let (filter, handle) = reload::Layer::new(logging.filter.targets());
    let lines = fmt::layer().with_writer(io::stderr).with_ansi(logging.color);
    let lines = match logging.format {
        LogFormat::Text => lines.with_target(false).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    Registry::default().with(filter).with(lines).try_init()?;
    // Logging starts once, so there is none yet.
    let _ = RELOAD.set(handle);
    Ok(())
}

/// Puts another filter into the place of the log's.
static RELOAD: OnceLock<reload::Handle<Targets, Registry>> = OnceLock::new();

/// Why what is logged cannot be changed.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// Nothing logs, or something that [`start`] did not start.
    #[error("there is no log of ours")]
    NotStarted,
    /// The log is gone.
    #[error(transparent)]
    Gone(#[from] reload::Error),
}

/// Changes what is logged from now on.
///
/// # Errors
/// When there is no log that [`start`] started.
pub fn change(filter: &LogFilter) -> Result<(), ChangeError> {
    let handle = RELOAD.get().ok_or(ChangeError::NotStarted)?;
    Ok(handle.reload(filter.targets())?)
}

#[cfg(test)]
mod tests {
    use tracing::Level;

    use super::*;

    #[test]
    fn libraries_are_silent_unless_they_are_asked() {
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
