//! Process signals.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// Signals that request termination.
#[derive(Debug)]
pub struct StopSignals {
    interrupt: Signal,
    terminate: Signal,
}

impl StopSignals {
    /// Installs the handlers, which replace the default action.
    ///
    /// # Errors
    ///
    /// If a handler cannot be installed.
    pub fn catch() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    /// Waits for `SIGINT` (Ctrl-C) or `SIGTERM`. Cancel safe.
    pub async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.terminate.recv() => "SIGTERM",
        }
    }
}

/// Signals that Envoy handles without terminating.
#[derive(Debug)]
pub struct LogSignals {
    hangup: Signal,
    user: Signal,
}

impl LogSignals {
    /// Installs the handlers, which replace the default action.
    ///
    /// # Errors
    ///
    /// If a handler cannot be installed.
    pub fn catch() -> io::Result<Self> {
        Ok(Self {
            hangup: signal(SignalKind::hangup())?,
            user: signal(SignalKind::user_defined1())?,
        })
    }

    /// Waits for `SIGUSR1`, which reopens access logs. `SIGHUP` is ignored. Cancel safe.
    pub async fn reopen(&mut self) {
        loop {
            tokio::select! {
                _ = self.user.recv() => return,
                _ = self.hangup.recv() => tracing::warn!("ignoring SIGHUP"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use rustix::process::{Signal, getpid, kill_process};

    use super::*;

    /// The only test that signals its own process.
    #[tokio::test]
    async fn signals_are_told_apart() {
        let mut signals = StopSignals::catch().unwrap();
        for (sent, name) in [
            (Signal::TERM, "SIGTERM"),
            (Signal::INT, "SIGINT"),
            (Signal::TERM, "SIGTERM"),
        ] {
            kill_process(getpid(), sent).unwrap();
            assert_eq!(signals.next().await, name);
        }
    }
}
