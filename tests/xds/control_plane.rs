//! A control plane in the test process, with its own directory.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tempfile::TempDir;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use topsail::clock::Clock;
use topsail::control::{Reading, Running, Settings, start};
use topsail::pki::{Bearer, StateDir, TokenGrant, TokenSigner};
use topsail::source::Root;

/// Timeout of anything awaited.
pub const PATIENCE: Duration = Duration::from_secs(20);
/// Poll interval.
const POLL: Duration = Duration::from_millis(5);

/// Configuration and state directories, which outlive the servers started on them.
pub struct Home {
    dir: TempDir,
    /// Grace period of registered workloads without a stream.
    pub unregister_after: Duration,
}

impl Home {
    /// A home with these configuration files.
    pub fn with(files: &[(&str, &str)]) -> Self {
        let home = Self {
            dir: tempfile::tempdir().unwrap(),
            unregister_after: Duration::from_secs(10),
        };
        std::fs::create_dir(home.config()).unwrap();
        files.iter().for_each(|(name, text)| home.write(name, text));
        home
    }

    /// The configuration directory.
    pub fn config(&self) -> PathBuf {
        self.dir.path().join("config")
    }

    /// The state directory.
    pub fn state(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    /// Writes a configuration file.
    pub fn write(&self, name: &str, text: &str) {
        std::fs::write(self.config().join(name), text).unwrap();
    }

    /// Deletes a configuration file.
    pub fn remove(&self, name: &str) {
        std::fs::remove_file(self.config().join(name)).unwrap();
    }

    /// A join token for a workload of this mesh.
    pub fn token(&self, workload: &str) -> String {
        self.token_for(Bearer::Workload {
            name: workload.parse().unwrap(),
            addresses: vec!["10.9.9.9".parse().unwrap()],
        })
    }

    /// A join token of this mesh.
    pub fn token_for(&self, bearer: Bearer) -> String {
        let signer = TokenSigner::load_or_create(&StateDir::open(self.state()).unwrap(), &Default::default()).unwrap();
        let grant = TokenGrant {
            bearer,
            service_account: "sa".parse().unwrap(),
            labels: [("app".to_owned(), "client".to_owned())].into(),
        };
        signer
            .create(&grant, Duration::from_secs(3600), SystemTime::now())
            .unwrap()
    }

    /// Starts a server and waits for its first generation.
    pub async fn serve(&self) -> ControlPlane {
        let settings = Settings {
            reading: Reading {
                root: Root::new([self.config()]),
                mesh_config: None,
                lenient: false,
                strict: false,
            },
            state: self.state(),
            xds: "127.0.0.1:0".parse().unwrap(),
            server_names: Vec::new(),
            trust_domain: Default::default(),
            certificate_ttl: Duration::from_secs(24 * 3600),
            unregister_after: self.unregister_after,
            clock: Clock::system(),
        };
        let (stop, stopped) = oneshot::channel::<()>();
        let (running, serving) = start(settings, async { drop(stopped.await) }).await.unwrap();
        let serving = tokio::spawn(async { serving.await.unwrap() });
        tokio::time::timeout(PATIENCE, running.published.loaded())
            .await
            .unwrap();
        ControlPlane {
            running: Arc::new(running),
            stop: Some(stop),
            serving,
        }
    }
}

/// A running control plane.
pub struct ControlPlane {
    /// The running server's state.
    pub running: Arc<Running>,
    stop: Option<oneshot::Sender<()>>,
    serving: JoinHandle<()>,
}

impl ControlPlane {
    /// Its xDS address.
    pub fn address(&self) -> SocketAddr {
        self.running.xds
    }

    /// All current diagnostics, as lines.
    pub fn diagnostics(&self) -> Vec<String> {
        let state = self.running.published.state();
        state.diagnostics.iter().map(topsail::diag::render::line).collect()
    }

    /// Stops it; its clients lose their streams.
    pub async fn stop(mut self) {
        drop(self.stop.take());
        self.serving.abort();
        let _ = self.serving.await;
    }
}

/// Waits until a condition holds.
pub async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !holds() {
        assert!(tokio::time::Instant::now() < deadline, "{what}");
        tokio::time::sleep(POLL).await;
    }
}

/// A ServiceEntry with one HTTP port, `<name>.example.com`.
pub fn service_entry(name: &str, port: u16) -> String {
    format!(
        "apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: {name}}}
spec:
  hosts: [{name}.example.com]
  ports: [{{number: {port}, name: http, protocol: HTTP}}]
  resolution: STATIC
  endpoints: [{{address: 10.0.0.1}}]
"
    )
}
