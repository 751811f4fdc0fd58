//! `topsail serve`: startup, readiness and shutdown.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::process::{Child, ChildStderr, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use topsail::envoy;

use crate::run::{fails, path, stdout, topsail};

/// A server on a directory, killed on drop.
pub struct Server {
    child: Child,
    log: BufReader<ChildStderr>,
    /// Its admin address.
    pub admin: SocketAddr,
    /// Its xDS address.
    pub xds: SocketAddr,
}

impl Server {
    /// Starts it with configuration in `config` and state in `state`, on free ports.
    pub fn start(folder: &tempfile::TempDir, flags: &[&str]) -> Self {
        let mut command = topsail(&[
            "serve",
            "--xds",
            "127.0.0.1:0",
            "--admin",
            "127.0.0.1:0",
            "--log-format",
            "json",
        ]);
        command.args(["--config", &path(folder, "config")]).args(flags);
        if !flags.contains(&"--state") {
            command.args(["--state", &path(folder, "state")]);
        }
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap());
        let line = line(&mut log, " started");
        let address = |field: &str| line[field].as_str().unwrap().parse().unwrap();
        let (admin, xds) = (address("admin"), address("xds"));
        Self { child, log, admin, xds }
    }

    /// Reads the log up to a line with this text and returns the line.
    pub fn line(&mut self, text: &str) -> Value {
        line(&mut self.log, text)
    }

    /// Sends `GET` to the admin listener.
    pub async fn get(&self, path: &str) -> (u16, String) {
        let (status, body) = envoy::get(self.admin, path).await.unwrap();
        (status.as_u16(), String::from_utf8(body.to_vec()).unwrap())
    }

    /// Waits until it serves a generation.
    pub async fn ready(&self) {
        while self.get("/ready").await.0 != 200 {
            tokio::task::yield_now().await;
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

fn line(log: &mut impl BufRead, text: &str) -> Value {
    let mut seen = String::new();
    loop {
        let start = seen.len();
        assert!(log.read_line(&mut seen).unwrap() > 0, "no `{text}` in the log:\n{seen}");
        if seen[start..].contains(text) {
            return serde_json::from_str(&seen[start..]).unwrap();
        }
    }
}

/// A directory with an empty configuration.
pub fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("config")).unwrap();
    folder
}

#[tokio::test]
async fn startup_and_shutdown() {
    for (signal, name) in [(Signal::TERM, "SIGTERM"), (Signal::INT, "SIGINT")] {
        let folder = folder();
        fs::write(folder.path().join("config/a.yaml"), "kind: Srevice\napiVersion: v1\n").unwrap();
        let mut server = Server::start(&folder, &[]);
        server.ready().await;
        let diagnostics: Value = serde_json::from_str(&server.get("/api/v1/diagnostics").await.1).unwrap();
        assert_eq!(
            (&diagnostics[0]["code"], &diagnostics[0]["line"]),
            (&"TS0003".into(), &1.into())
        );
        kill_process(Pid::from_child(&server.child), signal).unwrap();
        assert_eq!(server.line("stopped")["message"], format!("stopped by {name}"));
        assert_eq!(server.child.wait().unwrap().code(), Some(0));
    }
}

#[tokio::test]
async fn flags_have_environment_variables() {
    let folder = folder();
    let mut command = topsail(&["serve", "--config", "/nonexistent", "--admin", "127.0.0.1:0"]);
    command
        .env("TOPSAIL_CONFIG", path(&folder, "config"))
        .env("TOPSAIL_STATE", path(&folder, "state"));
    command
        .env("TOPSAIL_XDS", "127.0.0.1:0")
        .env("TOPSAIL_LOG_FORMAT", "json")
        .env("TOPSAIL_STRICT", "0");
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(1), "a flag counts more than its variable");
    let mut command = topsail(&["serve"]);
    command
        .env("TOPSAIL_CONFIG", path(&folder, "config"))
        .env("TOPSAIL_XDS", "nonsense");
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{output:?}");
}

#[test]
fn startup_failures_name_the_reason() {
    let folder = folder();
    let (config, state) = (path(&folder, "config"), path(&folder, "state"));
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    let serve = |flags: &[&str]| {
        let free = |flag: &'static str| {
            if flags.contains(&flag) {
                vec![]
            } else {
                vec![flag, "127.0.0.1:0"]
            }
        };
        fails(
            1,
            &[
                &["serve", "--log-level", "off"],
                &free("--admin")[..],
                &free("--xds")[..],
                flags,
            ]
            .concat(),
        )
    };
    let (missing, file) = (path(&folder, "missing"), path(&folder, "file"));
    fs::write(&file, "").unwrap();
    let other = path(&folder, "other");
    topsail::pki::StateDir::open(&other)
        .unwrap()
        .belong_to(&"other.example".parse().unwrap())
        .unwrap();
    let cases: [(&[&str], [&str; 2]); 9] = [
        (
            &["--config", &config, "--state", &other],
            ["--trust-domain other.example", &other],
        ),
        (
            &["--config", &config, "--state", &config],
            ["--config and --state are the same directory", &config],
        ),
        (&["--config", &missing, "--state", &state], ["--config", &missing]),
        (&["--config", &file, "--state", &state], ["--config", &file]),
        (&["--config", &config, "--state", &file], ["--state", &file]),
        (
            &["--config", &config, "--state", &state, "--mesh-config", &missing],
            ["--mesh-config", &missing],
        ),
        (
            &["--config", &config, "--state", &state, "--mesh-config", &config],
            ["--mesh-config", "is not a file"],
        ),
        (
            &["--config", &config, "--state", &state, "--xds", &taken],
            ["--xds", &taken],
        ),
        (
            &["--config", &config, "--state", &state, "--admin", &taken],
            ["--admin", &taken],
        ),
    ];
    for (flags, needles) in cases {
        let stderr = serve(flags);
        assert!(
            needles.iter().all(|needle| stderr.contains(needle)),
            "{flags:?}: {stderr}"
        );
    }
}

#[tokio::test]
async fn a_generations_age_counts_from_its_acceptance() {
    let folder = folder();
    let mut server = Server::start(&folder, &[]);
    server.ready().await;
    let generation = server.get("/api/v1/generation").await;
    fs::write(folder.path().join("config/broken.yaml"), "a: [").unwrap();
    server.line("broken.yaml");
    while server.get("/api/v1/diagnostics").await.1 == "[]" {
        tokio::task::yield_now().await;
    }
    assert_eq!(server.get("/api/v1/generation").await, generation);
}

/// `topsail serve --config . --state ./state`.
#[tokio::test]
async fn state_within_the_configuration_is_ignored() {
    let folder = folder();
    let state = path(&folder, "config/state");
    let token = [
        "bootstrap",
        "--workload",
        "a.default",
        "--service-account",
        "a",
        "--ip",
        "127.0.0.1",
    ];
    stdout(&[&token[..], &["--state", &state]].concat());
    let server = Server::start(&folder, &["--state", &state]);
    server.ready().await;
    assert_eq!(server.get("/api/v1/diagnostics").await.1, "[]");
}

/// Two servers would append to the same journal, and after a restart neither's generation could be restored.
#[tokio::test]
async fn a_state_directory_is_locked() {
    let folder = folder();
    let mut first = Server::start(&folder, &[]);
    first.ready().await;
    let (config, state) = (path(&folder, "config"), path(&folder, "state"));
    let second = [
        "serve",
        "--xds",
        "127.0.0.1:0",
        "--admin",
        "127.0.0.1:0",
        "--log-level",
        "off",
    ];
    let stderr = fails(1, &[&second[..], &["--config", &config, "--state", &state]].concat());
    assert!(stderr.contains(&format!("{state} is in use by another")), "{stderr}");
    // A killed server releases the lock.
    first.child.kill().unwrap();
    first.child.wait().unwrap();
    Server::start(&folder, &[]).ready().await;
}
