//! The control plane: the `topsail` binary.

use std::fs::{self, File};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use serde_json::Value;
use tokio::process::{Child, Command};
use topsail::envoy;

use super::wait::eventually;

/// The command under test.
pub fn topsail(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_topsail"));
    command.args(arguments).stdin(Stdio::null()).kill_on_drop(true);
    command
}

/// Runs the command to completion.
pub async fn run(arguments: &[&str]) -> Output {
    topsail(arguments).output().await.unwrap()
}

/// A `topsail serve` with its own addresses and directory; killed on drop.
pub struct Server {
    child: Option<Child>,
    folder: PathBuf,
    xds: SocketAddr,
    admin: SocketAddr,
    flags: Vec<String>,
}

impl Server {
    /// A server that is not started yet: configuration in `folder/config`, state in `folder/state`.
    pub fn new(folder: &Path, ip: IpAddr) -> Self {
        fs::create_dir_all(folder.join("config")).unwrap();
        Self {
            child: None,
            folder: folder.into(),
            xds: SocketAddr::new(ip, 15012),
            admin: SocketAddr::new(ip, 15014),
            flags: Vec::new(),
        }
    }

    /// Adds an argument to `serve`.
    pub fn flag(&mut self, flag: &str) {
        self.flags.push(flag.into());
    }

    /// Starts it and waits until it is ready.
    pub async fn start(&mut self) {
        let log = File::options().create(true).append(true).open(self.log_path()).unwrap();
        let (xds, admin) = (self.xds.to_string(), self.admin.to_string());
        let mut command = topsail(&["serve", "--xds", &xds, "--admin", &admin]);
        command
            .arg("--config")
            .arg(self.config())
            .arg("--state")
            .arg(self.state())
            .args(&self.flags);
        self.child = Some(command.stdout(Stdio::null()).stderr(log).spawn().unwrap());
        eventually("a ready server", async || {
            let child = self.child.as_mut().unwrap();
            if let Some(status) = child.try_wait().unwrap() {
                panic!("the server ended with {status}: {}", self.log());
            }
            match envoy::get(self.admin, "/ready").await {
                Ok((status, _)) if status == 200 => Ok(()),
                other => Err(format!("{other:?}: {}", self.log())),
            }
        })
        .await;
    }

    /// Kills it with SIGKILL, without a graceful shutdown.
    pub async fn kill(&mut self) {
        self.child.take().unwrap().kill().await.unwrap();
    }

    /// The configuration directory.
    pub fn config(&self) -> PathBuf {
        self.folder.join("config")
    }

    /// The state directory.
    pub fn state(&self) -> PathBuf {
        self.folder.join("state")
    }

    /// Its xDS address.
    pub fn xds(&self) -> SocketAddr {
        self.xds
    }

    /// Its admin address.
    pub fn admin(&self) -> SocketAddr {
        self.admin
    }

    /// Its log so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    fn log_path(&self) -> PathBuf {
        self.folder.join("server.log")
    }

    /// The current generation.
    pub async fn generation(&self) -> u64 {
        self.api("/api/v1/generation").await["number"].as_u64().unwrap()
    }

    /// JSON response to a `GET` request at its admin listener.
    pub async fn api(&self, path: &str) -> Value {
        let (status, body) = envoy::get(self.admin, path).await.unwrap();
        let text = String::from_utf8_lossy(&body);
        assert_eq!(status, 200, "{path}: {text}");
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{path}: {error}: {text}"))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- log of the server\n{}", self.log());
        }
    }
}
