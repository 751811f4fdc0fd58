//! The child processes of the demo.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// How long a process may take to exit before it is killed.
const GRACE: Duration = Duration::from_secs(2);
/// Poll interval while processes exit.
const POLL: Duration = Duration::from_millis(5);
/// Delay before a process that exited is restarted, so that the effect of its absence is visible.
const RESTART_DELAY: Duration = Duration::from_secs(3);
/// Number of log lines to show.
const TAIL: usize = 8;

/// How a process is started.
#[derive(Clone, Debug)]
pub(super) struct Recipe {
    /// Display name, such as `sidecar of reviews-v2.default`.
    pub name: String,
    /// The program.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<OsString>,
    /// File for its standard output and standard error.
    pub log: PathBuf,
}

/// Why a process is not running.
#[derive(Debug, thiserror::Error)]
pub(super) enum PartError {
    /// It cannot be started.
    #[error("failed to start the {name}: {error}")]
    Start {
        /// Its name.
        name: String,
        /// The cause.
        error: io::Error,
    },
    /// It exited.
    #[error("the {0}")]
    Ended(UnexpectedExit),
}

/// A process that exited unexpectedly.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{name} ended with {status}{}", shown(.log))]
pub(super) struct UnexpectedExit {
    /// Its name.
    pub name: String,
    /// Its exit status.
    pub status: ExitStatus,
    /// The last lines of its log.
    pub log: String,
}

fn shown(log: &str) -> String {
    if log.is_empty() {
        String::new()
    } else {
        format!("; the end of its log:\n{log}")
    }
}

/// A child process, killed and reaped on drop.
#[derive(Debug)]
struct Part {
    recipe: Recipe,
    child: Child,
    /// When it was first seen to have exited.
    ended: Option<Instant>,
}

impl Part {
    /// Starts the process in its own process group, so that Ctrl-C reaches only the demo, and through
    /// `demo-child`, so that it does not outlive the demo.
    fn start(recipe: &Recipe, this_program: &Path) -> Result<Self, PartError> {
        let spawn = || {
            let log = File::options().create(true).append(true).open(&recipe.log)?;
            let mut command = Command::new(this_program);
            command.args(["demo-child", "--parent", &std::process::id().to_string(), "--"]);
            command.arg(&recipe.program).args(&recipe.arguments).process_group(0);
            command
                .stdin(Stdio::null())
                .stdout(log.try_clone()?)
                .stderr(log)
                .spawn()
        };
        match spawn() {
            Ok(child) => Ok(Self {
                recipe: recipe.clone(),
                child,
                ended: None,
            }),
            Err(error) => Err(PartError::Start {
                name: recipe.name.clone(),
                error,
            }),
        }
    }

    fn status(&mut self) -> Option<ExitStatus> {
        // Waiting fails only if the process is not our child.
        self.child.try_wait().unwrap_or(Some(ExitStatus::from_raw(0)))
    }

    fn ending(&self, status: ExitStatus) -> UnexpectedExit {
        UnexpectedExit {
            name: self.recipe.name.clone(),
            status,
            log: tail(&self.recipe.log),
        }
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        // Both fail only if the child has been reaped.
        let _ = self.child.kill().and_then(|()| self.child.wait());
    }
}

/// The last lines of a log; empty if it cannot be read.
pub(super) fn tail(path: &Path) -> String {
    let text = fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<String> = text.lines().map(|line| format!("  {line}")).collect();
    lines[lines.len().saturating_sub(TAIL)..].join("\n")
}

/// A change of a process while the demo runs.
#[derive(Clone, Debug)]
pub(super) enum Event {
    /// It exited.
    Ended(UnexpectedExit),
    /// It was restarted.
    Restarted(String),
    /// It could not be restarted.
    Failed(String),
}

/// All child processes.
#[derive(Debug)]
pub(super) struct Parts {
    this_program: PathBuf,
    parts: Vec<Part>,
}

impl Parts {
    /// Creates an empty set. `this_program` is the path of the `topsail` binary.
    pub(super) fn new(this_program: impl AsRef<OsStr>) -> Self {
        Self {
            this_program: this_program.as_ref().into(),
            parts: Vec::new(),
        }
    }

    /// Starts a process.
    ///
    /// # Errors
    /// If it cannot be spawned. Failures of the program itself are reported by [`Parts::check`].
    pub(super) fn start(&mut self, recipe: &Recipe) -> Result<(), PartError> {
        self.parts.push(Part::start(recipe, &self.this_program)?);
        Ok(())
    }

    /// Checks that all processes are running.
    ///
    /// # Errors
    /// If a process has exited, with the last lines of its log.
    pub(super) fn check(&mut self) -> Result<(), PartError> {
        for part in &mut self.parts {
            if let Some(status) = part.status() {
                return Err(PartError::Ended(part.ending(status)));
            }
        }
        Ok(())
    }

    /// Reports processes that exited, once each, and restarts them after a delay.
    pub(super) fn tend(&mut self, now: Instant) -> Vec<Event> {
        let mut events = Vec::new();
        for part in &mut self.parts {
            let Some(status) = part.status() else { continue };
            match part.ended {
                None => {
                    part.ended = Some(now);
                    events.push(Event::Ended(part.ending(status)));
                }
                Some(ended) if now.duration_since(ended) >= RESTART_DELAY => {
                    match Part::start(&part.recipe, &self.this_program) {
                        Ok(again) => {
                            *part = again;
                            events.push(Event::Restarted(part.recipe.name.clone()));
                        }
                        Err(error) => {
                            part.ended = Some(now);
                            events.push(Event::Failed(error.to_string()));
                        }
                    }
                }
                Some(_) => {}
            }
        }
        events
    }

    /// Names of the processes that are not running.
    pub(super) fn missing(&self) -> impl Iterator<Item = &str> {
        self.parts
            .iter()
            .filter(|part| part.ended.is_some())
            .map(|part| part.recipe.name.as_str())
    }

    /// Sends SIGTERM to all processes, waits for them to exit, and kills the rest.
    pub(super) async fn stop(mut self) {
        for part in &mut self.parts {
            // A process that has not been reaped still owns its PID.
            if part.status().is_none() {
                let _ = kill_process(Pid::from_child(&part.child), Signal::TERM);
            }
        }
        let all_ended = async {
            let mut tick = tokio::time::interval(POLL);
            while self.parts.iter_mut().any(|part| part.status().is_none()) {
                tick.tick().await;
            }
        };
        // Those that take longer are killed on drop.
        let _ = tokio::time::timeout(GRACE, all_ended).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A stand-in for `topsail` that runs the command given to `demo-child`.
    fn program(folder: &Path) -> PathBuf {
        let path = folder.join("topsail");
        let script = format!(
            "printf '#!/bin/sh\\nshift 4\\nexec \"$@\"\\n' > '{0}' && chmod +x '{0}'",
            path.display()
        );
        assert!(Command::new("sh").args(["-c", &script]).status().unwrap().success());
        path
    }

    fn shell(folder: &Path, script: &str) -> Recipe {
        Recipe {
            name: "sidecar of a.default".into(),
            program: "sh".into(),
            arguments: vec!["-c".into(), script.into()],
            log: folder.join("log"),
        }
    }

    /// Waits for the next event.
    async fn first_event(parts: &mut Parts) -> Event {
        let mut tick = tokio::time::interval(POLL);
        loop {
            tick.tick().await;
            if let Some(event) = parts.tend(Instant::now()).pop() {
                return event;
            }
        }
    }

    #[tokio::test]
    async fn an_exited_process_is_reported_with_its_log_and_restarted() {
        let folder = tempfile::tempdir().unwrap();
        let mut parts = Parts::new(program(folder.path()));
        parts.start(&shell(folder.path(), "seq 20; exit 3")).unwrap();
        let Event::Ended(ending) = first_event(&mut parts).await else {
            panic!("it never ran")
        };
        let text = ending.to_string();
        assert!(
            text.starts_with("sidecar of a.default ended with exit status: 3; the end of its log:\n  13\n"),
            "{text}"
        );
        assert!(
            parts
                .check()
                .unwrap_err()
                .to_string()
                .starts_with("the sidecar of a.default ended")
        );
        assert_eq!(parts.missing().count(), 1);
        assert!(parts.tend(Instant::now()).is_empty(), "it is told once");
        let events = parts.tend(Instant::now() + RESTART_DELAY);
        assert!(
            matches!(&events[..], [Event::Restarted(name)] if name == "sidecar of a.default"),
            "{events:?}"
        );
        assert_eq!(parts.missing().count(), 0);
    }

    #[tokio::test]
    async fn processes_are_terminated_then_killed() {
        let folder = tempfile::tempdir().unwrap();
        let said = folder.path().join("said");
        let mut parts = Parts::new(program(folder.path()));
        let polite = format!(
            "trap 'echo bye > {}; exit' TERM; echo up; while :; do sleep 0.01; done",
            said.display()
        );
        parts.start(&shell(folder.path(), &polite)).unwrap();
        parts
            .start(&shell(
                folder.path(),
                "trap '' TERM; echo up; while :; do sleep 0.01; done",
            ))
            .unwrap();
        let pids: Vec<Pid> = parts.parts.iter().map(|part| Pid::from_child(&part.child)).collect();
        while tail(&folder.path().join("log")).matches("up").count() < 2 {
            tokio::task::yield_now().await;
        }
        parts.stop().await;
        assert_eq!(fs::read_to_string(said).unwrap(), "bye\n");
        for pid in pids {
            assert!(
                rustix::process::test_kill_process(pid).is_err(),
                "{pid:?} is still there"
            );
        }
    }

    #[test]
    fn dropped_processes_are_killed() {
        let folder = tempfile::tempdir().unwrap();
        let mut parts = Parts::new(program(folder.path()));
        parts.start(&shell(folder.path(), "sleep 1000")).unwrap();
        let pid = Pid::from_child(&parts.parts[0].child);
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || {
            let _parts = parts;
            panic!("as a mistake in the demo would");
        }));
        assert!(panicked.is_err());
        assert!(
            rustix::process::test_kill_process(pid).is_err(),
            "it is still there, or not waited for"
        );
    }

    #[test]
    fn a_missing_program_is_reported() {
        let folder = tempfile::tempdir().unwrap();
        let mut parts = Parts::new(folder.path().join("none"));
        let error = parts.start(&shell(folder.path(), "")).unwrap_err().to_string();
        assert!(
            error.starts_with("failed to start the sidecar of a.default: "),
            "{error}"
        );
    }
}
