//! The processes that the demo is made of.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// How long a part may take to end before it is killed.
const GRACE: Duration = Duration::from_secs(2);
/// How often parts that are ending are looked at.
const POLL: Duration = Duration::from_millis(5);
/// How long a part that ended stays away, so that one can see what its absence does.
const AWAY: Duration = Duration::from_secs(3);
/// How many lines of a log are shown.
const TAIL: usize = 8;

/// What a part is and how it is started.
#[derive(Clone, Debug)]
pub(super) struct Recipe {
    /// What it is called: `sidecar of reviews-v2.default`.
    pub name: String,
    /// The program.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<OsString>,
    /// Where its standard output and error go.
    pub log: PathBuf,
}

/// Why a part does not run.
#[derive(Debug, thiserror::Error)]
pub(super) enum PartError {
    /// It cannot be started.
    #[error("failed to start the {name}: {error}")]
    Start {
        /// Its name.
        name: String,
        /// What the system says.
        error: io::Error,
    },
    /// It ended.
    #[error("the {0}")]
    Ended(Ending),
}

/// A part that ended by itself, or was ended by someone else.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{name} ended with {status}{}", shown(.log))]
pub(super) struct Ending {
    /// Its name.
    pub name: String,
    /// How it ended.
    pub status: ExitStatus,
    /// The end of its log.
    pub log: String,
}

fn shown(log: &str) -> String {
    if log.is_empty() {
        String::new()
    } else {
        format!("; the end of its log:\n{log}")
    }
}

/// A process. It is killed and waited for when this is dropped.
#[derive(Debug)]
struct Part {
    recipe: Recipe,
    child: Child,
    /// When it was seen to have ended.
    ended: Option<Instant>,
}

impl Part {
    /// Starts it in a process group of its own, so that Ctrl-C reaches the demo alone, and through
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
        // Only what is no child of ours cannot be waited for.
        self.child.try_wait().unwrap_or(Some(ExitStatus::from_raw(0)))
    }

    fn ending(&self, status: ExitStatus) -> Ending {
        Ending {
            name: self.recipe.name.clone(),
            status,
            log: tail(&self.recipe.log),
        }
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        // Both fail for a child that has been waited for, and for no other.
        let _ = self.child.kill().and_then(|()| self.child.wait());
    }
}

/// The last lines of a log; one that cannot be read has none.
pub(super) fn tail(path: &Path) -> String {
    let text = fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<String> = text.lines().map(|line| format!("  {line}")).collect();
    lines[lines.len().saturating_sub(TAIL)..].join("\n")
}

/// What happened to a part while the demo runs.
#[derive(Clone, Debug)]
pub(super) enum Event {
    /// It ended.
    Ended(Ending),
    /// It runs again.
    Restarted(String),
    /// It could not be started again.
    Failed(String),
}

/// All parts that run.
#[derive(Debug)]
pub(super) struct Parts {
    this_program: PathBuf,
    parts: Vec<Part>,
}

impl Parts {
    /// No parts yet. `this_program` is what `topsail` is started as.
    pub(super) fn new(this_program: impl AsRef<OsStr>) -> Self {
        Self {
            this_program: this_program.as_ref().into(),
            parts: Vec::new(),
        }
    }

    /// Starts a part.
    ///
    /// # Errors
    /// When there is no process for it. What is wrong with the program shows in [`Parts::check`].
    pub(super) fn start(&mut self, recipe: &Recipe) -> Result<(), PartError> {
        self.parts.push(Part::start(recipe, &self.this_program)?);
        Ok(())
    }

    /// Whether everything runs.
    ///
    /// # Errors
    /// When a part has ended, with the end of its log.
    pub(super) fn check(&mut self) -> Result<(), PartError> {
        for part in &mut self.parts {
            if let Some(status) = part.status() {
                return Err(PartError::Ended(part.ending(status)));
            }
        }
        Ok(())
    }

    /// Looks after parts that ended: says so once, and starts each again after a while.
    pub(super) fn tend(&mut self, now: Instant) -> Vec<Event> {
        let mut events = Vec::new();
        for part in &mut self.parts {
            let Some(status) = part.status() else { continue };
            match part.ended {
                None => {
                    part.ended = Some(now);
                    events.push(Event::Ended(part.ending(status)));
                }
                Some(ended) if now.duration_since(ended) >= AWAY => match Part::start(&part.recipe, &self.this_program)
                {
                    Ok(again) => {
                        *part = again;
                        events.push(Event::Restarted(part.recipe.name.clone()));
                    }
                    Err(error) => {
                        part.ended = Some(now);
                        events.push(Event::Failed(error.to_string()));
                    }
                },
                Some(_) => {}
            }
        }
        events
    }

    /// The parts that are not there at this moment.
    pub(super) fn missing(&self) -> impl Iterator<Item = &str> {
        self.parts
            .iter()
            .filter(|part| part.ended.is_some())
            .map(|part| part.recipe.name.as_str())
    }

    /// Asks everything to end (SIGTERM), waits for it, and kills what is left.
    pub(super) async fn stop(mut self) {
        for part in &mut self.parts {
            // A part that has not been waited for still has its process id.
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
        // Those that take longer are killed when they are dropped.
        let _ = tokio::time::timeout(GRACE, all_ended).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A stand-in for `topsail`, that runs what `demo-child` is given.
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

    /// Waits for the first thing that happens.
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
    async fn a_part_that_ends_is_named_with_the_end_of_its_log_and_started_again() {
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
        let events = parts.tend(Instant::now() + AWAY);
        assert!(
            matches!(&events[..], [Event::Restarted(name)] if name == "sidecar of a.default"),
            "{events:?}"
        );
        assert_eq!(parts.missing().count(), 0);
    }

    #[tokio::test]
    async fn parts_are_asked_to_end_and_killed_if_they_do_not() {
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
    fn parts_that_are_dropped_are_gone() {
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
    fn a_program_that_is_not_there_is_said_to_be_so() {
        let folder = tempfile::tempdir().unwrap();
        let mut parts = Parts::new(folder.path().join("none"));
        let error = parts.start(&shell(folder.path(), "")).unwrap_err().to_string();
        assert!(
            error.starts_with("failed to start the sidecar of a.default: "),
            "{error}"
        );
    }
}
