//! The data plane process of a sidecar: started, restarted when it exits, drained and stopped.

use std::ffi::OsString;
use std::io;
use std::net::SocketAddr;
use std::num::NonZero;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::Context;
use clap::ValueEnum;
use http::StatusCode;
use rustix::process::Signal;
use tokio::time::{Instant, sleep, timeout};

use super::children::{Child, Children};
use super::run_dir::RunDir;
use crate::envoy;
use crate::lifecycle::StopSignals;

/// How long a drained data plane may take to exit before it is killed.
const END: Duration = Duration::from_secs(3);
/// Timeout of requests to the admin interface.
const PATIENCE: Duration = Duration::from_secs(2);
/// Initial and maximum delay before a data plane that exited is restarted.
const PAUSES: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(10)];
/// A data plane that ran this long resets the restart delay.
const SETTLED: Duration = Duration::from_secs(10);
/// Minimum drain time, so that other proxies learn that this endpoint is going away.
const LEAST_DRAIN: Duration = Duration::from_secs(1);
/// Poll interval of the number of open connections during a drain.
const DRAIN_POLL: Duration = Duration::from_millis(100);

/// Log level of the data plane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum LogLevel {
    Error,
    Warning,
    Info,
    Debug,
    Trace,
}

/// A data plane and its settings.
#[derive(Clone, Debug)]
pub(super) struct DataPlane {
    /// The program.
    pub program: Program,
    /// Number of worker threads.
    pub concurrency: NonZero<u16>,
    /// Log level.
    pub log_level: LogLevel,
}

/// A program that takes an Envoy bootstrap.
#[derive(Clone, Debug)]
pub(super) enum Program {
    Envoy(PathBuf),
    /// This binary, as `topsail proxy`.
    Topsail(PathBuf),
}

impl DataPlane {
    fn command(&self, run: &RunDir) -> Command {
        let (program, arguments) = match &self.program {
            Program::Envoy(path) => (path, self.envoy_arguments(run)),
            Program::Topsail(path) => (path, self.topsail_arguments(run)),
        };
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null());
        command
    }

    /// With Istio's drain strategy: connections are closed after their next response.
    fn envoy_arguments(&self, run: &RunDir) -> Vec<OsString> {
        let level = match self.log_level {
            LogLevel::Error => "error",
            LogLevel::Warning => "warning",
            LogLevel::Info => "info",
            LogLevel::Debug => "debug",
            LogLevel::Trace => "trace",
        };
        let mut arguments: Vec<OsString> = vec!["-c".into(), run.bootstrap().into(), "--disable-hot-restart".into()];
        arguments.extend(["--drain-time-s", "45", "--drain-strategy", "immediate"].map(Into::into));
        arguments.extend(["--concurrency".into(), self.concurrency.to_string().into()]);
        arguments.extend(["--log-level", level].map(Into::into));
        arguments
    }

    fn topsail_arguments(&self, run: &RunDir) -> Vec<OsString> {
        let level = match self.log_level {
            LogLevel::Error => "error",
            LogLevel::Warning => "warn",
            LogLevel::Info => "info",
            LogLevel::Debug => "debug",
            LogLevel::Trace => "trace",
        };
        let mut arguments: Vec<OsString> = vec!["proxy".into(), "--bootstrap".into(), run.bootstrap().into()];
        arguments.extend(["--state".into(), run.proxy_state().into()]);
        arguments.extend(["--concurrency".into(), self.concurrency.to_string().into()]);
        arguments.extend(["--log-level", level].map(Into::into));
        arguments
    }

    fn start(&self, run: &RunDir, children: &Children) -> io::Result<Child> {
        children.spawn(&mut self.command(run))
    }

    /// Keeps the data plane running until a signal arrives, then drains and stops it.
    ///
    /// # Errors
    /// If it cannot be started.
    pub(super) async fn keep(
        &self,
        run: &RunDir,
        children: &Children,
        signals: &mut StopSignals,
        drain: impl AsyncFn(),
    ) -> anyhow::Result<()> {
        let mut pause = Pause::default();
        loop {
            let started = Instant::now();
            let mut child = self.start(run, children).with_context(|| {
                let path = match &self.program {
                    Program::Envoy(path) | Program::Topsail(path) => path,
                };
                format!("cannot run {}", path.display())
            })?;
            tracing::info!(pid = child.pid(), "data plane started");
            tokio::select! {
                status = child.end() => {
                    let pause = pause.after(started.elapsed());
                    tracing::error!(%status, ?pause, "the data plane exited unexpectedly and will be restarted");
                    tokio::select! {
                        () = sleep(pause) => {}
                        signal = signals.next() => {
                            tracing::info!("stopped by {signal}");
                            return Ok(());
                        }
                    }
                }
                signal = signals.next() => {
                    tracing::info!("stopping on {signal}");
                    tokio::select! {
                        () = drain() => {}
                        _ = child.end() => {}
                        // A second signal skips the drain.
                        _ = signals.next() => {}
                    }
                    end(child).await;
                    return Ok(());
                }
            }
        }
    }
}

/// Whether the data plane is ready, according to `/ready`; the error describes its state.
pub(super) async fn readiness(admin: SocketAddr) -> Result<(), String> {
    match timeout(PATIENCE, envoy::get(admin, "/ready")).await {
        Ok(Ok((StatusCode::OK, _))) => Ok(()),
        Ok(Ok((_, state))) => Err(format!("it is {}", String::from_utf8_lossy(&state).trim())),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("{admin} does not respond")),
    }
}

/// Drains inbound connections while still accepting new ones, and waits until none are open, for at most
/// `within`.
pub(super) async fn drain_inbound(admin: SocketAddr, within: Duration) {
    if within.is_zero() {
        return;
    }
    let start = Instant::now();
    match timeout(PATIENCE, envoy::post(admin, "/drain_listeners?inboundonly&graceful")).await {
        Ok(Ok((StatusCode::OK, _))) => {}
        Ok(Ok((status, _))) => tracing::warn!(%status, "the data plane refused to drain"),
        Ok(Err(error)) => return tracing::warn!(%error, "failed to drain the data plane"),
        Err(_) => return tracing::warn!("failed to drain the data plane: it does not respond"),
    }
    while start.elapsed() < within {
        sleep(DRAIN_POLL.min(within.saturating_sub(start.elapsed()))).await;
        if start.elapsed() >= LEAST_DRAIN && inbound_connections(admin).await == Some(0) {
            break;
        }
    }
}

/// Number of open inbound connections; `None` if unknown.
async fn inbound_connections(admin: SocketAddr) -> Option<u64> {
    let answer = timeout(PATIENCE, envoy::get(admin, "/stats?filter=_15006.downstream_cx_active")).await;
    let (status, body) = answer.ok()?.ok()?;
    let text = String::from_utf8_lossy(&body);
    (status == StatusCode::OK).then(|| sum(&text)).flatten()
}

/// Sum of all values in a `/stats` text; `None` if there are none.
fn sum(statistics: &str) -> Option<u64> {
    let values = statistics
        .lines()
        .filter_map(|line| line.rsplit_once(": ")?.1.trim().parse::<u64>().ok());
    values.fold(None, |sum, value| Some(sum.unwrap_or(0) + value))
}

/// Stops a process with SIGTERM, then SIGKILL.
pub(super) async fn end(mut child: Child) {
    child.signal(Signal::TERM);
    if timeout(END, child.end()).await.is_err() {
        tracing::warn!(pid = child.pid(), "a process did not exit and is being killed");
        child.signal(Signal::KILL);
        child.end().await;
    }
}

/// Restart delay with exponential backoff.
#[derive(Debug)]
struct Pause(Duration);

impl Default for Pause {
    fn default() -> Self {
        Self(PAUSES[0])
    }
}

impl Pause {
    /// The delay after a run of this duration.
    fn after(&mut self, ran: Duration) -> Duration {
        if ran >= SETTLED {
            *self = Self::default();
        }
        let pause = self.0;
        self.0 = (pause * 2).min(PAUSES[1]);
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_until_a_run_lasts() {
        let mut pause = Pause::default();
        let ms = Duration::from_millis;
        let failing: Vec<Duration> = (0..9).map(|_| pause.after(ms(50))).collect();
        assert_eq!(failing[..3], [ms(100), ms(200), ms(400)]);
        assert_eq!(failing[8], ms(10_000));
        assert_eq!(pause.after(SETTLED), ms(100));
        assert_eq!(pause.after(ms(50)), ms(200));
    }

    #[test]
    fn connections_of_all_listeners_are_summed() {
        let text = "listener.0.0.0.0_15006.downstream_cx_active: 2\nlistener.[__]_15006.downstream_cx_active: 1\n";
        assert_eq!(sum(text), Some(3));
        assert_eq!((sum(""), sum("a: b\n")), (None, None));
    }
}
