//! An Envoy connected to the server.

use std::process::Command;
use std::time::Duration;

use topsail::envoy::{Finder, Launch, Process, Program};

use super::server::{Server, free_address};

/// A running Envoy.
pub(crate) struct RealEnvoy(#[expect(dead_code, reason = "it runs for as long as this is held")] Process);

impl RealEnvoy {
    /// Starts Envoy with a bootstrap from `topsail bootstrap` and waits until it is live.
    pub(crate) async fn start(server: &Server) -> Self {
        let admin = free_address();
        let bootstrap = Command::new(env!("CARGO_BIN_EXE_topsail"))
            .args([
                "bootstrap",
                "--workload",
                "proxy-0.bench",
                "--service-account",
                "proxy",
                "--ip",
                "127.0.0.1",
            ])
            .args([
                "--server",
                &server.xds.to_string(),
                "--admin-port",
                &admin.port().to_string(),
            ])
            .args(["--status-port", &free_address().port().to_string()])
            .args(["--metrics-port", &free_address().port().to_string()])
            .arg("--state")
            .arg(&server.state)
            .output()
            .expect("topsail bootstrap runs");
        assert!(
            bootstrap.status.success(),
            "{}",
            String::from_utf8_lossy(&bootstrap.stderr)
        );
        let path = server.scratch.join("envoy.yaml");
        std::fs::write(&path, bootstrap.stdout).expect("a file");
        let launch = Launch {
            program: Program::Envoy(
                Finder::from_env()
                    .find(&|progress| eprintln!("{progress}"))
                    .expect("Envoy"),
            ),
            bootstrap: path,
            admin,
            log: server.scratch.join("envoy.log"),
            reject_unknown_fields: false,
            user: None,
        };
        let mut process = Process::start(&launch).expect("Envoy starts");
        process
            .ready(Duration::from_secs(60))
            .await
            .expect("Envoy becomes live");
        Self(process)
    }
}
