//! Runs the built binary.

use std::process::{Command, Output, Stdio};

/// The command, without environment variables that affect it.
pub fn topsail(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_topsail"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("TOPSAIL_") {
            command.env_remove(name);
        }
    }
    command.env_remove("COLUMNS").args(arguments).stdin(Stdio::null());
    command
}

/// Runs it to completion.
pub fn run(arguments: &[&str]) -> Output {
    topsail(arguments).output().unwrap()
}

/// Output as text.
pub fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

/// Runs a command that must succeed and returns its standard output.
pub fn stdout(arguments: &[&str]) -> String {
    let output = run(arguments);
    assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
    text(&output.stdout).to_owned()
}

/// Runs a command that must fail with exit code `code` and a message; returns its standard error.
pub fn fails(code: i32, arguments: &[&str]) -> String {
    let output = run(arguments);
    let stderr = text(&output.stderr).to_owned();
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {stderr}");
    assert_eq!(text(&output.stdout), "", "{arguments:?}");
    assert_eq!(stderr.matches("error: ").count(), 1, "{arguments:?}: {stderr}");
    stderr
}

/// A path in a directory.
pub fn path(folder: &tempfile::TempDir, name: &str) -> String {
    folder.path().join(name).to_str().unwrap().to_owned()
}
