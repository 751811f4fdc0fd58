//! What applies to every command: help, usage errors and broken streams.

use std::fs;
use std::process::Stdio;

use crate::run::{fails, path, run, stdout, text, topsail};

#[test]
fn help_texts() {
    for command in [
        "",
        "serve",
        "check",
        "render",
        "status",
        "bootstrap",
        "init",
        "inject",
        "sidecar",
        "token create",
        "iptables apply",
        "iptables clean",
    ] {
        let mut arguments: Vec<&str> = command.split_whitespace().collect();
        arguments.push("--help");
        insta::assert_snapshot!(format!("help {command}").trim().replace(' ', "_"), stdout(&arguments));
    }
}

#[test]
fn version_is_the_crates() {
    assert_eq!(
        stdout(&["--version"]),
        format!("topsail {}\n", env!("CARGO_PKG_VERSION"))
    );
}

#[test]
fn usage_errors_exit_with_2_and_name_the_argument() {
    assert_eq!(run(&[]).status.code(), Some(2));
    let needs: [(&[&str], &str); 10] = [
        (&["sreve"], "sreve"),
        (&["serve", "--config", "a", "--certificate-ttl", "91d"], "90d"),
        (
            &["serve", "--config", "a", "--log-level", "topsail=loud"],
            "topsail::xds=debug",
        ),
        (&["bootstrap"], "--workload"),
        (&["bootstrap", "--workload", "a_b"], "a_b"),
        (&["bootstrap", "--workload", "a", "--server", "nowhere"], "HOST:PORT"),
        (&["bootstrap", "--workload", "a", "--ca", "ca.pem"], "--token-file"),
        (&["bootstrap", "--workload", "a", "--token-file", "token"], "--ca"),
        (&["token", "create", "--workload", "a", "--ttl", "1"], "12h"),
        (&["token", "create", "--workload", "a", "--label", "app"], "KEY=VALUE"),
    ];
    for (arguments, needle) in needs {
        let stderr = fails(2, arguments);
        assert!(stderr.contains(needle), "{arguments:?}: {stderr}");
        assert!(!stderr.contains('\u{1b}'), "{stderr:?}");
    }
}

#[test]
fn a_broken_pipe_is_not_a_failure() {
    let folder = tempfile::tempdir().unwrap();
    let state = path(&folder, "state");
    for arguments in [
        vec!["--help"],
        vec!["token", "create", "--workload", "a", "--state", &state],
    ] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = topsail(&arguments)
            .stdout(writer)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
            .wait_with_output()
            .unwrap();
        assert_eq!(
            (output.status.code(), text(&output.stderr)),
            (Some(0), ""),
            "{arguments:?}"
        );
    }
}

#[test]
fn a_full_disk_is_a_failure() {
    let folder = tempfile::tempdir().unwrap();
    let full = fs::File::options().write(true).open("/dev/full").unwrap();
    let output = topsail(&["token", "create", "--workload", "a", "--state", &path(&folder, "state")])
        .stdout(full)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).starts_with("error: "), "{}", text(&output.stderr));
}
