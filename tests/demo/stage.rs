//! Environment of a demo under test, and checks for what it leaves behind.

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use topsail::source::tree::Tree;

use crate::network::Network;
use crate::wait::eventually;

/// Ports outside the ephemeral range.
const PORTS: std::ops::Range<u16> = 20_000..32_000;

/// Addresses, a copy of the sample directory that uses them, and directories for the demo's files.
pub struct Stage {
    /// Reserves the addresses for this stage.
    _net: Network,
    ip: Ipv4Addr,
    applications: Vec<SocketAddr>,
    folder: TempDir,
}

impl Stage {
    /// A stage without a demo.
    pub fn set() -> Self {
        let (net, folder) = (Network::take(), tempfile::tempdir().unwrap());
        let IpAddr::V4(ip) = net.address() else {
            panic!("an address of loopback")
        };
        // Concurrent tests have neighbouring networks, and each demo needs six ports.
        let [_, high, low, _] = ip.octets();
        let first = PORTS.start + (u16::from_be_bytes([high, low]) % 1_800) * 6;
        let free = |port: &u16| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok();
        let ports = (first..PORTS.end).filter(free).take(6);
        let stage = Self {
            _net: net,
            ip,
            applications: ports
                .map(|port| SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port))
                .collect(),
            folder,
        };
        for name in ["config/workloads", "runtime", "temporary"] {
            fs::create_dir_all(stage.path(name)).unwrap();
        }
        let sample = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/bookinfo/config");
        for file in Tree::scan(&sample.as_path().into()).files() {
            let path = Path::new(&*file.origin);
            let text = stage.moved(fs::read_to_string(path).unwrap());
            let copy = stage.path("config").join(path.strip_prefix(&sample).unwrap());
            fs::write(copy, text).unwrap();
        }
        stage
    }

    /// Replaces the sample's addresses by this stage's: workloads at .1 to .6, their outbound listeners at
    /// .101 to .106.
    fn moved(&self, text: String) -> String {
        let prefix = self.ip.to_string();
        let prefix = prefix.strip_suffix('1').unwrap();
        let text = text
            .replace("127.0.10.", prefix)
            .replace("127.0.11.", &format!("{prefix}10"));
        let applications = (19081..).zip(&self.applications);
        applications.fold(text, |text, (port, address)| {
            text.replace(&format!("127.0.0.1:{port}"), &address.to_string())
        })
    }

    /// An address in the stage's network.
    pub fn ip(&self, last: u8) -> IpAddr {
        let [a, b, c, _] = self.ip.octets();
        Ipv4Addr::new(a, b, c, last).into()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Replaces text in a file of the directory, by rename.
    pub fn edit(&self, name: &str, edits: &[(&str, &str)]) {
        let path = self.path("config").join(name);
        let mut text = fs::read_to_string(&path).unwrap();
        for (from, to) in edits {
            assert!(text.contains(from), "{name} holds no `{from}`:\n{text}");
            text = text.replace(from, to);
        }
        fs::write(self.path("partial"), text).unwrap();
        fs::rename(self.path("partial"), path).unwrap();
    }

    /// The `topsail demo` command on this stage.
    pub fn command(&self) -> Command {
        self.through(Command::new(env!("CARGO_BIN_EXE_topsail")))
    }

    /// The same on a terminal, created by Python's `pty`.
    pub fn command_in_terminal(&self) -> Command {
        let mut python = Command::new("python3");
        let script = "import os, pty, sys; sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))";
        python
            .args(["-c", script, env!("CARGO_BIN_EXE_topsail")])
            .env("TERM", "xterm");
        self.through(python)
    }

    fn through(&self, mut command: Command) -> Command {
        let control = self.ip(250);
        command.args([
            "demo",
            "--xds",
            &format!("{control}:15012"),
            "--admin",
            &format!("{control}:15014"),
        ]);
        command.arg("--config").arg(self.path("config"));
        command
            .env("XDG_RUNTIME_DIR", self.path("runtime"))
            .env("TMPDIR", self.path("temporary"));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true);
        command
    }

    /// Runs a demo that fails to start and returns its standard error.
    pub async fn refused(&self, mut command: Command) -> String {
        let output = command.output().await.unwrap();
        let (out, error) = (
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr),
        );
        assert_eq!(output.status.code(), Some(1), "{out}{error}");
        error.into_owned()
    }

    /// Checks that no file is left and nothing listens.
    pub fn is_empty(&self) -> Result<(), String> {
        let files = ["runtime", "temporary"]
            .into_iter()
            .flat_map(|name| fs::read_dir(self.path(name)).unwrap());
        let files: Vec<_> = files.map(|entry| entry.unwrap().path()).collect();
        let sockets = (1..=6)
            .map(|last| SocketAddr::new(self.ip(last), 15000))
            .chain(self.applications.clone());
        let busy: Vec<_> = sockets.filter(|socket| TcpListener::bind(socket).is_err()).collect();
        if files.is_empty() && busy.is_empty() {
            Ok(())
        } else {
            Err(format!("{files:?} {busy:?}"))
        }
    }

    /// A listener in the stage's network that does not belong to the demo.
    pub fn occupy(&self, last: u8, port: u16) -> TcpListener {
        TcpListener::bind((self.ip(last), port)).unwrap()
    }

    /// An empty directory.
    pub fn empty_folder(&self) -> PathBuf {
        let path = self.path("empty");
        fs::create_dir_all(&path).unwrap();
        path
    }

    /// The number of demos' temporary directories.
    pub fn folders(&self) -> usize {
        fs::read_dir(self.path("temporary")).unwrap().count()
    }
}

/// A running demo.
pub struct Demo {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    said: Vec<String>,
}

impl Demo {
    /// Starts it.
    pub fn start(mut command: Command) -> Self {
        let mut child = command.spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self {
            child,
            lines,
            said: Vec::new(),
        }
    }

    /// Its process ID.
    pub fn id(&self) -> u32 {
        self.child.id().unwrap()
    }

    /// Waits for a line of output.
    pub async fn says(&mut self, what: &str, wanted: impl Fn(&str) -> bool) -> String {
        let waiting = async {
            while let Some(line) = self.lines.next_line().await.unwrap() {
                self.said.push(line.clone());
                if wanted(&line) {
                    return Some(line);
                }
            }
            None
        };
        let line = tokio::time::timeout(crate::wait::PATIENCE * 2, waiting).await;
        line.ok()
            .flatten()
            .unwrap_or_else(|| panic!("{what} is not said: {:#?}", self.said))
    }

    /// Waits until all proxies are in sync.
    pub async fn is_up(&mut self) -> String {
        self.says("all up", |line| {
            line.contains("6 of 6 proxies SYNCED") && line.contains("reviews v1")
        })
        .await
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        kill(self.id(), signal);
    }

    /// Waits until it exits; returns its status and the rest of its output.
    pub async fn end(mut self) -> (ExitStatus, Vec<String>) {
        let waiting = async {
            while let Some(line) = self.lines.next_line().await.unwrap() {
                self.said.push(line);
            }
            self.child.wait().await.unwrap()
        };
        let status = tokio::time::timeout(crate::wait::PATIENCE, waiting).await;
        (
            status.unwrap_or_else(|_| panic!("it does not end: {:#?}", self.said)),
            self.said,
        )
    }
}

/// Sends a signal to a process.
pub fn kill(id: u32, signal: Signal) {
    kill_process(Pid::from_raw(id.try_into().unwrap()).unwrap(), signal).unwrap();
}

/// The children of a process with their command lines.
pub fn children(parent: u32) -> BTreeMap<u32, String> {
    let processes = fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let is_child = |id: &u32| {
        let stat = fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
        let after_name = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
        after_name.split(' ').nth(1) == Some(&parent.to_string())
    };
    let command = |id| {
        let command = fs::read_to_string(format!("/proc/{id}/cmdline")).unwrap_or_default();
        (id, command.replace('\0', " "))
    };
    processes.filter(is_child).map(command).collect()
}

/// Waits until none of these processes exists, except as a zombie that nobody reaps.
pub async fn all_gone(processes: &BTreeMap<u32, String>) {
    eventually("processes to be gone", async || {
        let is_there = |id: &u32| {
            let stat = fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
            stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
        };
        let left: Vec<_> = processes.iter().filter(|(id, _)| is_there(id)).collect();
        if left.is_empty() {
            Ok(())
        } else {
            Err(format!("{left:?}"))
        }
    })
    .await;
}
