//! Determines the Compose version to generate the override for.

use std::process::{Command, Stdio};

use crate::compose::Version;

/// Compose commands, in order of preference.
const COMMANDS: [&str; 2] = ["docker compose", "docker-compose"];

/// A Compose version and how it is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Compose {
    /// The command that runs it.
    pub(super) command: &'static str,
    pub(super) known: Known,
}

/// How the version is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Known {
    /// From `--compose`.
    Given(Version),
    /// From the installed Compose.
    Installed(Version),
    /// Unknown: none is installed.
    Unknown,
}

impl Compose {
    /// The version of `--compose`, otherwise the installed one.
    pub(super) fn choose(given: Option<Version>) -> Self {
        if let Some(version) = given {
            return Self {
                command: COMMANDS[usize::from(version.is_first())],
                known: Known::Given(version),
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
                known: Known::Unknown,
            },
        }
    }

    /// The version, if known.
    pub(super) fn version(self) -> Option<Version> {
        match self.known {
            Known::Given(version) | Known::Installed(version) => Some(version),
            Known::Unknown => None,
        }
    }

    /// Whether the override can use `!reset` and `!override`. If the version is unknown, it uses only what
    /// every Compose supports.
    pub(super) fn takes_back(self) -> bool {
        self.version().is_some_and(Version::takes_back)
    }

    /// The subcommand that starts the project. Compose 1 does not recreate a container that shares the
    /// network of a recreated one, unless given `--always-recreate-deps`.
    pub(super) fn up(self) -> &'static str {
        match self.version().is_some_and(Version::is_first) {
            true => "up -d --always-recreate-deps",
            false => "up -d",
        }
    }

    /// Display form, such as `docker compose 2.26.1`.
    pub(super) fn display(self) -> String {
        match self.known {
            Known::Given(version) => format!("Compose {version}"),
            Known::Installed(version) => format!("{} {version}", self.command),
            Known::Unknown => "an unknown version of Compose (not installed here)".to_owned(),
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
