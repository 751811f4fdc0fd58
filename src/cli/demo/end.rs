//! The events that end a demo.

use std::fmt;
use std::io;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::Instant;

/// Signal handlers, installed before any process is started so that no signal is lost.
#[derive(Debug)]
pub(super) struct End {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
    at: Option<Instant>,
}

/// Why a demo ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EndReason {
    /// SIGINT, as sent by Ctrl-C.
    Interrupted,
    /// SIGTERM.
    Terminated,
    /// SIGHUP: the terminal was closed.
    HungUp,
    /// `--duration` has elapsed.
    TimeIsUp,
}

impl fmt::Display for EndReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            EndReason::Interrupted => "interrupted",
            EndReason::Terminated => "terminated",
            EndReason::HungUp => "the terminal was closed",
            EndReason::TimeIsUp => "the time is up",
        })
    }
}

impl End {
    /// Installs the signal handlers.
    ///
    /// # Errors
    /// If they cannot be installed.
    pub(super) fn listen() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
            at: None,
        })
    }

    /// Sets the time limit, counted from now.
    pub(super) fn after(&mut self, duration: Option<Duration>) {
        self.at = duration.and_then(|duration| Instant::now().checked_add(duration));
    }

    /// Waits for a signal or the time limit.
    pub(super) async fn reached(&mut self) -> EndReason {
        let at = self.at;
        let time_is_up = async {
            match at {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.interrupt.recv() => EndReason::Interrupted,
            _ = self.terminate.recv() => EndReason::Terminated,
            _ = self.hangup.recv() => EndReason::HungUp,
            () = time_is_up => EndReason::TimeIsUp,
        }
    }
}
