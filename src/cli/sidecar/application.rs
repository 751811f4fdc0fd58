//! Application and sidecar in one container: the application starts once its sidecar is ready, and stops
//! before it.

use std::ffi::OsString;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};
use rustix::process::Signal;
use tokio::signal;
use tokio::signal::unix::SignalKind;
use tokio::time::{Instant, sleep};

use super::children::{Child, Children};
use super::plane::{drain_inbound, end, readiness};
use super::privileges::current;
use super::readiness::STARTED;
use super::run_dir::RunDir;
use super::start::LEAVE;
use crate::cli::value::Owner;
use crate::lifecycle::StopSignals;

/// Poll interval while waiting for the data plane.
const POLL: Duration = Duration::from_millis(20);
/// Interval between log messages while waiting.
const REMINDER: Duration = Duration::from_secs(10);

/// Signals that are forwarded to the application.
const PASSED_ON: [(SignalKind, Signal); 5] = [
    (SignalKind::hangup(), Signal::HUP),
    (SignalKind::quit(), Signal::QUIT),
    (SignalKind::user_defined1(), Signal::USR1),
    (SignalKind::user_defined2(), Signal::USR2),
    (SignalKind::window_change(), Signal::WINCH),
];

/// An application and its sidecar.
pub(super) struct Supervised {
    /// The application and its arguments; not empty.
    pub application: Vec<OsString>,
    /// The user the application runs as.
    pub user: Owner,
    /// Arguments of this program that run the sidecar alone.
    pub sidecar: Vec<OsString>,
    /// The run directory of the sidecar.
    pub run: RunDir,
    /// Drain time for inbound connections on shutdown.
    pub drain: Duration,
}

impl Supervised {
    /// Runs both until the application exits or a signal arrives. Returns the application's exit code.
    ///
    /// # Errors
    /// If either cannot be started, or the sidecar exits before the application.
    pub(super) async fn run(self) -> anyhow::Result<u8> {
        let mut signals = StopSignals::catch().context("failed to install signal handlers")?;
        let children = Children::collect().context("failed to install signal handlers")?;
        let this = std::env::current_exe().context("cannot determine the path of this executable")?;
        let mut command = Command::new(this);
        command.args(&self.sidecar).stdin(Stdio::null());
        let mut sidecar = children.spawn(&mut command).context("failed to start the sidecar")?;
        tokio::select! {
            () = self.ready() => {}
            status = sidecar.end() => bail!("the sidecar exited before it was ready: {status}"),
            signal = signals.next() => {
                tracing::info!("stopped by {signal} before the application was started");
                end(sidecar).await;
                return Ok(128 + 15);
            }
        }
        let mut application = match self.start(&children) {
            Ok(application) => {
                sidecar.signal(STARTED);
                application
            }
            Err(error) => {
                end(sidecar).await;
                return Err(error);
            }
        };
        let attended = self.attend(&mut signals, &mut application, &mut sidecar).await;
        let Some(status) = attended else {
            // With interception in place, nothing could reach the application any more.
            end(application).await;
            bail!("the sidecar exited before the application, which was then stopped");
        };
        tracing::info!(%status, "the application exited");
        end(sidecar).await;
        Ok(code(status))
    }

    /// Waits until the data plane is ready.
    async fn ready(&self) {
        let mut said = Instant::now();
        loop {
            let missing = match self.run.admin() {
                Ok(admin) => match readiness(admin).await {
                    Ok(()) => return,
                    Err(why) => why,
                },
                Err(error) => error.to_string(),
            };
            if said.elapsed() >= REMINDER {
                said = Instant::now();
                tracing::info!("waiting for the data plane before starting the application: {missing}");
            }
            sleep(POLL).await;
        }
    }

    fn start(&self, children: &Children) -> anyhow::Result<Child> {
        let Some((program, arguments)) = self.application.split_first() else {
            bail!("no application given");
        };
        let mut command = Command::new(program);
        command.args(arguments);
        if self.user != current() {
            command.uid(self.user.uid).gid(self.user.gid);
        }
        let started = children.spawn(&mut command);
        let started = started.with_context(|| format!("failed to start the application {}", program.display()))?;
        tracing::info!(pid = started.pid(), "application started");
        Ok(started)
    }

    /// Waits for the application to exit. On SIGTERM or SIGINT, drains inbound connections while the
    /// application can still respond, then stops the application; outbound connections work until it exits.
    /// Returns `None` if the sidecar exits first.
    async fn attend(
        &self,
        signals: &mut StopSignals,
        application: &mut Child,
        sidecar: &mut Child,
    ) -> Option<ExitStatus> {
        let mut passed_on = PassedOn::catch();
        let name = loop {
            tokio::select! {
                status = application.end() => return Some(status),
                _ = sidecar.end() => return None,
                name = signals.next() => break name,
                signal = passed_on.next() => application.signal(signal),
            }
        };
        tracing::info!("stopping on {name}: draining inbound connections, then stopping the application");
        if let Ok(admin) = self.run.admin() {
            sidecar.signal(LEAVE);
            tokio::select! {
                () = drain_inbound(admin, self.drain) => {}
                status = application.end() => return Some(status),
                _ = signals.next() => {}
            }
        }
        application.signal(match name {
            "SIGINT" => Signal::INT,
            _ => Signal::TERM,
        });
        tokio::select! {
            status = application.end() => return Some(status),
            _ = signals.next() => {}
        }
        application.signal(Signal::KILL);
        Some(application.end().await)
    }
}

/// Streams of the forwarded signals.
struct PassedOn(Vec<(signal::unix::Signal, Signal)>);

impl PassedOn {
    fn catch() -> Self {
        let caught = PASSED_ON
            .iter()
            .filter_map(|(kind, passed)| Some((signal::unix::signal(*kind).ok()?, *passed)));
        Self(caught.collect())
    }

    /// The next signal. Cancel safe.
    async fn next(&mut self) -> Signal {
        let signals = self.0.iter_mut().map(|(caught, passed)| {
            Box::pin(async move {
                caught.recv().await;
                *passed
            })
        });
        futures::future::select_all(signals).await.0
    }
}

/// The exit code by shell convention.
fn code(status: ExitStatus) -> u8 {
    let signal = || status.signal().map(|signal| 128 + signal);
    let code = status.code().or_else(signal);
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_follow_shell_convention() {
        for (raw, expected) in [(0, 0), (7 << 8, 7), (255 << 8, 255), (15, 143), (9, 137)] {
            assert_eq!(code(ExitStatus::from_raw(raw)), expected);
        }
    }
}
