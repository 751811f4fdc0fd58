//! A mesh of a client and a server, with the same kind of sidecar.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use topsail::envoy::Finder;

use crate::chain;
use crate::documents::{
    self, BULK_PORT, CLIENT_IP, GRPC_PORT, HTTP_PORT, HTTP2_PORT, OUTBOUND_IP, SERVER_IP, TCP_PORT,
};
use crate::load::Load;
use crate::process::{LOAD_CPU, PROXY_CPU, Running};

const XDS: &str = "127.0.0.1:28012";

/// A proxy to be measured.
pub(crate) struct Contender {
    /// Name in tables.
    pub(crate) name: &'static str,
    program: PathBuf,
    envoy: bool,
}

impl Contender {
    pub(crate) fn envoy() -> Self {
        Self {
            name: "Envoy",
            program: Finder::from_env().find(&|text| eprintln!("{text}")).expect("Envoy"),
            envoy: true,
        }
    }

    pub(crate) fn topsail() -> Self {
        Self {
            name: "Topsail",
            program: env!("CARGO_BIN_EXE_topsail").into(),
            envoy: false,
        }
    }

    /// Another build of the bundled proxy, for comparison.
    pub(crate) fn other_build(program: &str) -> Self {
        Self {
            name: "Topsail, other build",
            program: program.into(),
            envoy: false,
        }
    }

    /// Starts it with one worker and waits until it is configured.
    async fn start(&self, bootstrap: &Path, ip: &str) -> Running {
        let path = bootstrap.to_string_lossy();
        let arguments: &[&str] = match self.envoy {
            false => &["proxy", "--bootstrap", &path, "--concurrency", "1"],
            true => &[
                "-c",
                &path,
                "--disable-hot-restart",
                "--concurrency",
                "1",
                "--log-level",
                "error",
            ],
        };
        let running = Running::start(&self.program, arguments, PROXY_CPU);
        wait_for(&format!("{ip}:15000"), "/ready").await;
        running
    }
}

/// A running mesh.
pub(crate) struct Mesh {
    sidecars: Vec<Running>,
    _server: Option<Running>,
    _folder: TempDir,
}

impl Mesh {
    /// Starts a control plane and the client's sidecar, or a pair of sidecars.
    pub(crate) async fn start(contender: &Contender, pair: bool) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let (config, state) = (folder.path().join("config"), folder.path().join("state"));
        fs::create_dir(&config).expect("a folder");
        fs::write(config.join("mesh.yaml"), documents::mesh(pair)).expect("a file");
        let topsail = Path::new(env!("CARGO_BIN_EXE_topsail"));
        let (config, state) = (config.to_string_lossy(), state.to_string_lossy());
        let arguments = [
            "serve",
            "--config",
            &config,
            "--state",
            &state,
            "--xds",
            XDS,
            "--admin",
            "127.0.0.1:28014",
        ];
        let server = Running::start(topsail, &[&arguments[..], &["--log-level", "error"]].concat(), LOAD_CPU);
        wait_for("127.0.0.1:28014", "/ready").await;
        let mut sidecars = vec![sidecar(contender, "client", CLIENT_IP, &state, folder.path()).await];
        if pair {
            sidecars.push(sidecar(contender, "server", SERVER_IP, &state, folder.path()).await);
        }
        Self {
            sidecars,
            _server: Some(server),
            _folder: folder,
        }
    }

    /// Starts a single proxy with access logs.
    pub(crate) async fn logging(contender: &Contender) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let bootstrap = chain::alone(folder.path());
        Self {
            sidecars: vec![configured(contender, &bootstrap, "client", CLIENT_IP, folder.path()).await],
            _server: None,
            _folder: folder,
        }
    }

    /// Starts a pair of proxies with the full filter chain.
    pub(crate) async fn full_chain(contender: &Contender) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let [client, server] = chain::pair(folder.path());
        Self {
            sidecars: vec![
                configured(contender, &client, "client", CLIENT_IP, folder.path()).await,
                configured(contender, &server, "server", SERVER_IP, folder.path()).await,
            ],
            _server: None,
            _folder: folder,
        }
    }

    /// Where a load is sent.
    pub(crate) fn target(&self, load: Load) -> SocketAddr {
        let port = match load {
            Load::Http1 { .. } => HTTP_PORT,
            Load::Http2 => HTTP2_PORT,
            Load::Grpc => GRPC_PORT,
            Load::Tcp => TCP_PORT,
            Load::Bulk => BULK_PORT,
        };
        SocketAddr::new(OUTBOUND_IP.parse().expect("an address"), port)
    }

    /// Process ids of the proxies.
    pub(crate) fn sidecars(&self) -> Vec<u32> {
        self.sidecars.iter().map(Running::pid).collect()
    }
}

async fn sidecar(contender: &Contender, name: &str, ip: &str, state: &str, folder: &Path) -> Running {
    let output = Command::new(env!("CARGO_BIN_EXE_topsail"))
        .args([
            "bootstrap",
            "--mode",
            "NONE",
            "--workload",
            &format!("{name}.bench"),
            "--service-account",
            name,
        ])
        .args(["--ip", ip, "--server", XDS, "--state", state])
        .output()
        .expect("topsail bootstrap runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let bootstrap = String::from_utf8_lossy(&output.stdout);
    configured(contender, &bootstrap, name, ip, folder).await
}

/// Starts a proxy with a static bootstrap.
async fn configured(contender: &Contender, bootstrap: &str, name: &str, ip: &str, folder: &Path) -> Running {
    let path = folder.join(format!("{name}.yaml"));
    fs::write(&path, bootstrap).expect("a file");
    contender.start(&path, ip).await
}

/// Waits until an address responds with 200.
async fn wait_for(address: &str, path: &str) {
    const PATIENCE: Duration = Duration::from_secs(60);
    let (address, started) = (address.parse().expect("an address"), Instant::now());
    loop {
        if matches!(topsail::envoy::get(address, path).await, Ok((status, _)) if status.is_success()) {
            return;
        }
        assert!(started.elapsed() < PATIENCE, "{address}{path} is not ready");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
