//! The data plane of a sidecar: started, started again when it dies, drained and ended.

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

/// How long a data plane that is to end may take before it is killed. It has been drained by then.
const END: Duration = Duration::from_secs(3);
/// How long the admin listener may take to answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// The first pause before a data plane that died is started again, and the longest.
const PAUSES: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(10)];
/// A data plane that ran for this long has not failed to start.
const SETTLED: Duration = Duration::from_secs(10);
/// How long a drain goes on at least: others need this to hear that nothing more is to be sent here.
const LEAST_DRAIN: Duration = Duration::from_secs(1);
/// How often open connections are counted in a drain.
const DRAIN_POLL: Duration = Duration::from_millis(100);

/// How much a data plane logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum LogLevel {
    Error,
    Warning,
    Info,
    Debug,
    Trace,
}

/// Which data plane, and how it is called.
#[derive(Clone, Debug)]
pub(super) struct DataPlane {
    /// The program.
    pub program: Program,
    /// How many worker threads.
    pub concurrency: NonZero<u16>,
    /// How much it logs.
    pub log_level: LogLevel,
}

/// A program that reads Envoy's bootstrap.
#[derive(Clone, Debug)]
pub(super) enum Program {
    Envoy(PathBuf),
    /// This program, as `topsail proxy`.
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

    /// Drains as Istio's sidecars do: connections end with their next response.
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

    /// Keeps the data plane running until a signal asks for the end; then it is drained and ended.
    ///
    /// # Errors
    /// When it cannot be started at all.
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
                        // Whoever asks twice is in a hurry.
                        _ = signals.next() => {}
                    }
                    end(child).await;
                    return Ok(());
                }
            }
        }
    }
}

/// Whether the data plane has its configuration: what `/ready` says of it.
pub(super) async fn readiness(admin: SocketAddr) -> Result<(), String> {
    match timeout(PATIENCE, envoy::get(admin, "/ready")).await {
        Ok(Ok((StatusCode::OK, _))) => Ok(()),
        Ok(Ok((_, state))) => Err(format!("it is {}", String::from_utf8_lossy(&state).trim())),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("{admin} does not respond")),
    }
}

/// Tells inbound connections to end, while new ones are still taken, and waits until there are none, for at most `within`.
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

/// How many connections from others are open; none if that cannot be told.
async fn inbound_connections(admin: SocketAddr) -> Option<u64> {
    let answer = timeout(PATIENCE, envoy::get(admin, "/stats?filter=_15006.downstream_cx_active")).await;
    let (status, body) = answer.ok()?.ok()?;
    let text = String::from_utf8_lossy(&body);
    (status == StatusCode::OK).then(|| sum(&text)).flatten()
}

/// The sum of all values of a text of statistics; none if there are none.
fn sum(statistics: &str) -> Option<u64> {
    let values = statistics
        .lines()
        .filter_map(|line| line.rsplit_once(": ")?.1.trim().parse::<u64>().ok());
    values.fold(None, |sum, value| Some(sum.unwrap_or(0) + value))
}

/// Ends a process: asked, then killed.
pub(super) async fn end(mut child: Child) {
    child.signal(Signal::TERM);
    if timeout(END, child.end()).await.is_err() {
        tracing::warn!(pid = child.pid(), "a process did not exit and is being killed");
        child.signal(Signal::KILL);
        child.end().await;
    }
}

/// Pauses between starts, which grow while starts fail.
#[derive(Debug)]
struct Pause(Duration);

impl Default for Pause {
    fn default() -> Self {
        Self(PAUSES[0])
    }
}

impl Pause {
    /// The pause after a run of that length.
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
    fn pauses_grow_until_a_start_succeeds() {
        let mut pause = Pause::default();
        let ms = Duration::from_millis;
        let failing: Vec<Duration> = (0..9).map(|_| pause.after(ms(50))).collect();
        assert_eq!(failing[..3], [ms(100), ms(200), ms(400)]);
        assert_eq!(failing[8], ms(10_000));
        assert_eq!(pause.after(SETTLED), ms(100));
        assert_eq!(pause.after(ms(50)), ms(200));
    }

    #[test]
    fn connections_of_all_listeners_are_counted() {
        let text = "listener.0.0.0.0_15006.downstream_cx_active: 2\nlistener.[__]_15006.downstream_cx_active: 1\n";
        assert_eq!(sum(text), Some(3));
        assert_eq!((sum(""), sum("a: b\n")), (None, None));
    }
}
