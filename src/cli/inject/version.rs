//! For which Compose the override is.

use std::process::{Command, Stdio};

use crate::compose::Version;

/// How Compose may be called, the preferred way first.
const COMMANDS: [&str; 2] = ["docker compose", "docker-compose"];

/// A Compose, and whence it is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Compose {
    /// How it is called.
    pub(super) command: &'static str,
    pub(super) known: Known,
}

/// Whence a version is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Known {
    /// It was told.
    Told(Version),
    /// It is installed here.
    Installed(Version),
    /// None is installed here.
    Not,
}

impl Compose {
    /// The one that was told, else the one that is installed.
    pub(super) fn choose(told: Option<Version>) -> Self {
        if let Some(version) = told {
            return Self {
                command: COMMANDS[usize::from(version.is_first())],
                known: Known::Told(version),
            };
        }
        let installed = COMMANDS
            .into_iter()
            .find_map(|command| Some((command, installed(command)?)));
        match installed {
            Some((command, version)) => Self {
                command,
                known: Known::Installed(version),
            },
            None => Self {
                command: COMMANDS[0],
                known: Known::Not,
            },
        }
    }

    /// Which version it is, if that is known.
    pub(super) fn version(self) -> Option<Version> {
        match self.known {
            Known::Told(version) | Known::Installed(version) => Some(version),
            Known::Not => None,
        }
    }

    /// Whether the override may take back what the project says. Where nothing is known, the override has the form that
    /// every Compose reads.
    pub(super) fn takes_back(self) -> bool {
        self.version().is_some_and(Version::takes_back)
    }

    /// The command that starts a project. The first Compose leaves a container in the network of one that it has
    /// replaced, unless it is told otherwise.
    pub(super) fn up(self) -> &'static str {
        match self.version().is_some_and(Version::is_first) {
            true => "up -d --always-recreate-deps",
            false => "up -d",
        }
    }

    /// `docker compose 2.26.1`.
    pub(super) fn display(self) -> String {
        match self.known {
            Known::Told(version) => format!("Compose {version}"),
            Known::Installed(version) => format!("{} {version}", self.command),
            Known::Not => "an unknown version of Compose (not installed here)".to_owned(),
        }
    }
}

fn installed(command: &str) -> Option<Version> {
    let mut words = command.split(' ');
    let output = Command::new(words.next()?)
        .args(words)
        .args(["version", "--short"])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    text.parse().ok().filter(|_| output.status.success())
}
