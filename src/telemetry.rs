//! Logs on standard error.

use std::io;
use std::sync::OnceLock;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::reload;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};

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
        match EnvFilter::builder().parse(text) {
            Ok(_) if !text.trim().is_empty() => Ok(Self(text.to_owned())),
            Ok(_) => Err(example.to_owned()),
            Err(error) => Err(format!("{error}: {example}")),
        }
    }
}

impl LogFilter {
    /// What is given, but for the words of two libraries: that a watch went with its directory is no news to anybody,
    /// and who floods an HTTP/2 connection is not to fill the log as well.
    fn directives(&self) -> String {
        format!("notify=error,h2=error,{}", self.0)
    }
}

/// Starts logging, once in the life of a process.
///
/// # Errors
/// When something logs already.
pub fn start(logging: &Logging) -> Result<(), TryInitError> {
    let builder = tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new(logging.filter.directives()))
        .with_writer(io::stderr)
        .with_ansi(logging.color);
    match logging.format {
        LogFormat::Text => {
            let builder = builder.with_target(false).with_filter_reloading();
            let handle = builder.reload_handle();
            builder.finish().try_init()?;
            keep(move |filter| handle.reload(filter));
        }
        LogFormat::Json => {
            let builder = builder.json().flatten_event(true).with_filter_reloading();
            let handle = builder.reload_handle();
            builder.finish().try_init()?;
            keep(move |filter| handle.reload(filter));
        }
    }
    Ok(())
}

/// Puts another filter into the place of the log's.
type Reload = Box<dyn Fn(EnvFilter) -> Result<(), reload::Error> + Send + Sync>;

static RELOAD: OnceLock<Reload> = OnceLock::new();

fn keep(reload: impl Fn(EnvFilter) -> Result<(), reload::Error> + Send + Sync + 'static) {
    // Logging starts once, so there is none yet.
    let _ = RELOAD.set(Box::new(reload));
}

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
    let reload = RELOAD.get().ok_or(ChangeError::NotStarted)?;
    Ok(reload(EnvFilter::new(filter.directives()))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_silent_unless_they_are_asked() {
        let filter = |text: &str| EnvFilter::new(text.parse::<LogFilter>().unwrap().directives()).to_string();
        for library in ["notify", "h2"] {
            let (silent, loud) = (format!("{library}=error"), format!("{library}=debug"));
            assert!(filter("info").contains(&silent), "{}", filter("info"));
            let asked = filter(&format!("info,{loud}"));
            assert!(asked.contains(&loud) && !asked.contains(&silent), "{asked}");
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
