//! The server process, measured from outside.

use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use super::directory::Directory;
use super::usage;

/// Timeout of every wait.
const PATIENCE: Duration = Duration::from_secs(300);

/// A running server.
pub(crate) struct Server {
    child: Child,
    pub(crate) xds: SocketAddr,
    pub(crate) admin: SocketAddr,
    pub(crate) state: std::path::PathBuf,
    pub(crate) scratch: std::path::PathBuf,
}

/// The last generation ACKed by all proxies, as reported by the server.
#[derive(Clone, Copy, Default)]
pub(crate) struct Converged {
    pub(crate) generation: u64,
    pub(crate) at_micros: u64,
}

impl Server {
    pub(crate) fn start(directory: &Directory) -> Self {
        let (xds, admin) = (free_address(), free_address());
        let child = Command::new(env!("CARGO_BIN_EXE_topsail"))
            .arg("serve")
            .args([
                "--xds",
                &xds.to_string(),
                "--admin",
                &admin.to_string(),
                "--log-level",
                "error",
            ])
            .arg("--config")
            .arg(directory.config())
            .arg("--state")
            .arg(directory.state())
            .stdout(Stdio::null())
            .spawn()
            .expect("the server starts");
        Self {
            child,
            xds,
            admin,
            state: directory.state(),
            scratch: directory.path().to_owned(),
        }
    }

    pub(crate) fn wait_until_ready(&self) {
        let started = Instant::now();
        while self.get("/ready").is_none_or(|(status, _)| status != 200) {
            assert!(started.elapsed() < PATIENCE, "the server does not become ready");
            std::thread::yield_now();
        }
    }

    /// Waits until all of this many proxies (or at least one) are in sync.
    pub(crate) async fn wait_until_converged(&self, proxies: Option<usize>) {
        let started = Instant::now();
        loop {
            let rows = self.json("/api/v1/proxies");
            let rows = rows
                .as_ref()
                .and_then(|rows| rows.as_array())
                .cloned()
                .unwrap_or_default();
            let synced = |row: &serde_json::Value| {
                let generation = row["acked_generation"].as_u64();
                generation.is_some() && generation == row["generation"].as_u64() && row["types"]["RDS"] == "SYNCED"
            };
            let done = rows.iter().filter(|row| synced(row)).count();
            if done >= proxies.unwrap_or(1) && done == rows.len() {
                return;
            }
            assert!(
                started.elapsed() < PATIENCE,
                "{done} of {} proxies are in sync",
                rows.len()
            );
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    pub(crate) async fn converged(&self) -> Option<Converged> {
        let body = self.json("/api/v1/generation")?;
        let converged = &body["converged"];
        Some(Converged {
            generation: converged["generation"].as_u64()?,
            at_micros: converged["at"].as_u64()?,
        })
    }

    /// Time from `since` to the last ACK of the first generation after `before`.
    pub(crate) async fn wait_for_generation_after(&self, before: u64, since: SystemTime) -> Duration {
        let started = Instant::now();
        loop {
            if let Some(converged) = self.converged().await.filter(|converged| converged.generation > before) {
                let at = SystemTime::UNIX_EPOCH + Duration::from_micros(converged.at_micros);
                return at.duration_since(since).unwrap_or_default();
            }
            assert!(started.elapsed() < PATIENCE, "generation {before} has no successor");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Resident memory in MB.
    pub(crate) fn rss_mb(&self) -> f64 {
        usage::rss_mb(self.child.id())
    }

    /// User and system time so far, in seconds.
    pub(crate) fn cpu_seconds(&self) -> f64 {
        usage::times(self.child.id()).iter().sum()
    }

    fn json(&self, path: &str) -> Option<serde_json::Value> {
        let (_, body) = self.get(path)?;
        serde_json::from_str(&body).ok()
    }

    /// A minimal GET request to the admin address, to cost the server little.
    fn get(&self, path: &str) -> Option<(u16, String)> {
        use std::io::{Read, Write};
        let mut stream = std::net::TcpStream::connect(self.admin).ok()?;
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n",
            self.admin
        )
        .ok()?;
        let mut response = String::new();
        stream.read_to_string(&mut response).ok()?;
        let status = response.split(' ').nth(1)?.parse().ok()?;
        let body = response.split_once("\r\n\r\n")?.1.to_owned();
        Some((status, body))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An address whose port was free a moment ago.
pub(crate) fn free_address() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("its address")
}
