//! Child processes of a process that may be PID 1 of its container: it inherits orphans and must reap them as
//! well.

use std::collections::HashMap;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::process::{Pid, Signal, WaitOptions, kill_process, wait};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

/// The children that are being waited for.
type Waiting = HashMap<Pid, oneshot::Sender<ExitStatus>>;

/// Spawns children, and reaps both children and orphans. Nothing else in this process may wait for children
/// while one exists.
#[derive(Clone)]
pub(super) struct Children(Arc<Mutex<Waiting>>);

impl Children {
    /// Starts reaping. Requires a running Tokio runtime.
    ///
    /// # Errors
    /// If the SIGCHLD handler cannot be installed.
    pub(super) fn collect() -> io::Result<Self> {
        let children = Self(Arc::default());
        let mut ended = signal(SignalKind::child())?;
        let collector = children.clone();
        tokio::spawn(async move {
            while ended.recv().await.is_some() {
                collector.collect_ended();
            }
        });
        Ok(children)
    }

    /// Spawns a child.
    ///
    /// # Errors
    /// If it cannot be executed.
    pub(super) fn spawn(&self, command: &mut Command) -> io::Result<Child> {
        // Hold the lock, so that a child that exits at once is not reaped before it is registered.
        let mut waiting = self.waiting();
        let started = command.spawn()?;
        let pid = i32::try_from(started.id()).ok().and_then(Pid::from_raw);
        let pid = pid.ok_or_else(|| io::Error::other("the child process has no PID"))?;
        let (sender, exited) = oneshot::channel();
        waiting.insert(pid, sender);
        Ok(Child {
            pid,
            exited,
            ended: None,
        })
    }

    fn collect_ended(&self) {
        let mut waiting = self.waiting();
        // Several SIGCHLDs may be merged into one.
        while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
            if let Some(sender) = waiting.remove(&pid) {
                // The receiver may have been dropped.
                let _ = sender.send(ExitStatus::from_raw(status.as_raw()));
            }
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A child process. Not affected by drop.
pub(super) struct Child {
    pid: Pid,
    exited: oneshot::Receiver<ExitStatus>,
    ended: Option<ExitStatus>,
}

impl Child {
    /// Waits for it to exit. Cancel safe.
    pub(super) async fn end(&mut self) -> ExitStatus {
        if let Some(status) = self.ended {
            return status;
        }
        match (&mut self.exited).await {
            Ok(status) => *self.ended.insert(status),
            // The reaper lives as long as the runtime.
            Err(_) => std::future::pending().await,
        }
    }

    /// Sends a signal, unless the child has exited: its PID may have been reused.
    pub(super) fn signal(&mut self, signal: Signal) {
        if self.ended.is_none() {
            self.ended = self.exited.try_recv().ok();
        }
        if self.ended.is_none()
            && let Err(error) = kill_process(self.pid, signal)
        {
            tracing::warn!(pid = self.pid.as_raw_nonzero(), ?signal, %error, "failed to signal a process");
        }
    }

    /// Its PID.
    pub(super) fn pid(&self) -> i32 {
        self.pid.as_raw_nonzero().get()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// A single test, because reaping is process-wide.
    #[tokio::test]
    async fn children_are_reaped_and_signalled() {
        let children = Children::collect().unwrap();
        let shell = |script: &str| children.spawn(Command::new("sh").args(["-c", script])).unwrap();
        let (mut seven, mut fine, mut waits) = (shell("exit 7"), shell("exit 0"), shell("exec sleep 600"));
        let limit = Duration::from_secs(60);
        assert_eq!(tokio::time::timeout(limit, seven.end()).await.unwrap().code(), Some(7));
        assert!(fine.end().await.success());
        waits.signal(Signal::TERM);
        assert_eq!(waits.end().await.signal(), Some(Signal::TERM.as_raw()));
        assert_eq!(
            waits.end().await.signal(),
            Some(Signal::TERM.as_raw()),
            "it has ended once"
        );
        waits.signal(Signal::TERM);
        assert!(children.spawn(&mut Command::new("/nowhere")).is_err());
    }
}
