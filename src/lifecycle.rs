//! When to end: signals, and the time that is left after them.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// The signals that ask the process to end.
#[derive(Debug)]
pub struct StopSignals {
    interrupt: Signal,
    terminate: Signal,
}

impl StopSignals {
    /// Catches them from now on, so that they do not end the process by themselves.
    ///
    /// # Errors
    /// When the system does not let us.
    pub fn catch() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    /// Waits for the next one: `SIGINT` (Ctrl-C) or `SIGTERM`. Cancel safe.
    pub async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.terminate.recv() => "SIGTERM",
        }
    }
}

/// The signals that Envoy handles without stopping.
#[derive(Debug)]
pub struct LogSignals {
    hangup: Signal,
    user: Signal,
}

impl LogSignals {
    /// Catches them from now on, so that they do not terminate the process.
    ///
    /// # Errors
    /// When the system does not let us.
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
