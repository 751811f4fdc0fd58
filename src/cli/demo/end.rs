//! What ends a demo.

use std::fmt;
use std::io;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::Instant;

/// Listens for signals. It is made before anything is started, so that none is missed.
#[derive(Debug)]
pub(super) struct End {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
    at: Option<Instant>,
}

/// Why a demo ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// Ctrl-C.
    Interrupted,
    /// SIGTERM.
    Terminated,
    /// The terminal was closed.
    HungUp,
    /// It ran as long as it was to.
    TimeIsUp,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Why::Interrupted => "interrupted",
            Why::Terminated => "terminated",
            Why::HungUp => "the terminal was closed",
            Why::TimeIsUp => "the time is up",
        })
    }
}

impl End {
    /// Listens from now on.
    ///
    /// # Errors
    /// When the system does not let it.
    pub(super) fn listen() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
            at: None,
        })
    }

    /// Ends by itself after a while, counted from now.
    pub(super) fn after(&mut self, duration: Option<Duration>) {
        self.at = duration.and_then(|duration| Instant::now().checked_add(duration));
    }

    /// Waits for the end.
    pub(super) async fn reached(&mut self) -> Why {
        let at = self.at;
        let time_is_up = async {
            match at {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.interrupt.recv() => Why::Interrupted,
            _ = self.terminate.recv() => Why::Terminated,
            _ = self.hangup.recv() => Why::HungUp,
            () = time_is_up => Why::TimeIsUp,
        }
    }
}
