//! `topsail serve`: runs the control plane.

use std::error::Error;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use clap::builder::FalseyValueParser;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinError;
use tokio::time::timeout;

use super::directory::config_root;
use super::log::LogArguments;
use super::output::Output;
use super::state::StateArguments;
use super::{Command, Outcome, value};
use crate::admin::{self, Admin};
use crate::clock::Clock;
use crate::control::{self, Reading, Settings};
use crate::lifecycle::StopSignals;
use crate::source::Root;

/// How long responses in progress may take after SIGTERM. xDS streams never end by themselves and are not
/// waited for any longer; the proxies reconnect to the next server.
const GRACE: Duration = Duration::from_millis(200);

const EXAMPLES: &str = "\
The directory is read recursively (*.yaml, *.yml, *.json) and watched: a change takes effect within milliseconds \
of the file being closed or renamed. An invalid object keeps its last valid version and everything else is applied; \
errors, with file and line, are reported in the log, by `topsail status` and at /api/v1/diagnostics.

The state directory holds the CA, the join token signing key and the last valid configuration. Keep it persistent \
and private. It is created if it does not exist. To use your own CA, put ca-cert.pem, ca-key.pem, cert-chain.pem \
and root-cert.pem into its ca/ subdirectory before the first start.

Each flag can also be set through the environment variable shown next to it. SIGINT (Ctrl-C) and SIGTERM stop the \
server; proxies keep their configuration.

Examples:
  Serve a mesh on this machine:
    topsail serve --config mesh/ --state state/

  Serve sidecars on other hosts, which connect to mesh.example:
    topsail serve --config /etc/topsail/mesh --xds 0.0.0.0:15012 --server-name mesh.example

  Check readiness, and list the problems found in the directory:
    curl localhost:15014/ready
    curl localhost:15014/api/v1/diagnostics";

/// Arguments of `topsail serve`.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    /// Directory of Istio YAML to serve
    #[arg(long, value_name = "DIR", env = "TOPSAIL_CONFIG", hide_env_values = true)]
    config: PathBuf,

    /// MeshConfig file, also watched; alternatively, put the ConfigMap `istio` into the directory
    #[arg(long, value_name = "FILE", env = "TOPSAIL_MESH_CONFIG", hide_env_values = true)]
    mesh_config: Option<PathBuf>,

    /// Address of the xDS listener (TLS; proxies authenticate with a join token or a mesh certificate)
    #[arg(
        long,
        value_name = "IP:PORT",
        env = "TOPSAIL_XDS",
        hide_env_values = true,
        default_value = "127.0.0.1:15012"
    )]
    xds: SocketAddr,

    /// Additional DNS name or IP address in the server's certificate; repeatable (comma-separated in the environment
    /// variable). Not needed by Envoy, but by clients that verify the server's name
    #[arg(
        long = "server-name",
        value_name = "NAME",
        env = "TOPSAIL_SERVER_NAME",
        hide_env_values = true,
        value_delimiter = ','
    )]
    server_names: Vec<String>,

    /// Address of the admin listener (readiness, metrics and API over plain HTTP); anyone who can reach it can read the
    /// configuration
    #[arg(
        long,
        value_name = "IP:PORT",
        env = "TOPSAIL_ADMIN",
        hide_env_values = true,
        default_value = "127.0.0.1:15014"
    )]
    admin: SocketAddr,

    /// Apply no changes while the directory has any error, instead of applying everything except the invalid objects
    #[arg(long, env = "TOPSAIL_STRICT", hide_env_values = true, value_parser = FalseyValueParser::new())]
    strict: bool,

    /// Report unknown fields and kinds as warnings instead of errors
    #[arg(long, env = "TOPSAIL_LENIENT", hide_env_values = true, value_parser = FalseyValueParser::new())]
    lenient: bool,

    /// Lifetime of workload certificates, up to 90d; they are renewed after half of it (units: s, m, h, d)
    #[arg(long, value_name = "TIME", env = "TOPSAIL_CERTIFICATE_TTL", hide_env_values = true, value_parser = certificate_ttl, default_value = "24h")]
    certificate_ttl: Duration,

    /// How long an auto-registered workload is kept after its xDS stream ends, so that it can reconnect (units: s, m, h,
    /// d)
    #[arg(long, value_name = "TIME", env = "TOPSAIL_UNREGISTER_AFTER", hide_env_values = true, value_parser = value::span, default_value = "10s")]
    unregister_after: Duration,

    #[command(flatten)]
    state: StateArguments,

    #[command(flatten)]
    log: LogArguments,
}

impl Command for Arguments {
    fn run(self, _output: &mut Output) -> anyhow::Result<Outcome> {
        check_directory(&self.config, "--config")?;
        if let Some(path) = &self.mesh_config {
            check_file(path, "--mesh-config")?;
        }
        self.log.start()?;
        let runtime = tokio::runtime::Runtime::new().context("failed to start the async runtime")?;
        let result = runtime.block_on(self.serve());
        // The file watcher may be in the middle of reading a large directory.
        runtime.shutdown_background();
        result
    }
}

impl Arguments {
    async fn serve(self) -> anyhow::Result<Outcome> {
        let mut signals = StopSignals::catch().context("failed to install signal handlers")?;
        let listener = TcpListener::bind(self.admin).await.with_context(|| {
            let address = self.admin;
            format!("failed to bind the admin listener to {address}; use `--admin IP:PORT` to choose another address")
        })?;
        let (stop, stopped) = watch::channel(());
        let settings = self.settings()?;
        check_separate(&settings.state, &self.config)?;
        let (config, state) = (self.config.display(), settings.state.display().to_string());
        let (running, xds) = control::start(settings, until(stopped.clone())).await?;
        tracing::info!(%config, %state, xds = %running.xds, admin = %listener.local_addr()?, "topsail {} started", env!("CARGO_PKG_VERSION"));
        let admin = Admin {
            published: running.published.clone(),
            roster: running.roster.clone(),
            clock: Clock::system(),
        };
        let admin = admin::serve(listener, admin, until(stopped));
        let (mut admin, mut xds) = (tokio::spawn(admin), tokio::spawn(xds));
        tokio::select! {
            signal = signals.next() => {
                drop(stop);
                let rest = async { tokio::join!(&mut admin, &mut xds) };
                // Whatever is not finished by then is aborted.
                let _ = timeout(GRACE, rest).await;
                tracing::info!("stopped by {signal}");
                Ok(Outcome::Fine)
            }
            ended = &mut xds => Err(unexpected_end(ended).context("the xDS server stopped")),
            ended = &mut admin => Err(unexpected_end(ended).context("the admin server stopped")),
        }
    }

    fn settings(&self) -> anyhow::Result<Settings> {
        let state = self.state.path()?;
        Ok(Settings {
            reading: Reading {
                root: config_root([&self.config]).without(&state),
                mesh_config: self.mesh_config.as_deref().map(Root::from),
                lenient: self.lenient,
                strict: self.strict,
            },
            state,
            xds: self.xds,
            server_names: self.server_names.clone(),
            trust_domain: self.state.trust_domain.clone(),
            certificate_ttl: self.certificate_ttl,
            unregister_after: self.unregister_after,
            clock: Clock::system(),
        })
    }
}

/// Completes when the sender is dropped.
async fn until(mut stopped: watch::Receiver<()>) {
    while stopped.changed().await.is_ok() {}
}

/// The error for a task that ended without being asked to.
fn unexpected_end<E: Error + Send + Sync + 'static>(ended: Result<Result<(), E>, JoinError>) -> anyhow::Error {
    match ended {
        Ok(Ok(())) => anyhow::anyhow!("it ended unexpectedly"),
        Ok(Err(error)) => error.into(),
        Err(panicked) => panicked.into(),
    }
}

/// Parses a certificate lifetime, up to Istio's limit.
fn certificate_ttl(text: &str) -> Result<Duration, String> {
    let ttl = value::span(text)?;
    let possible = Duration::from_secs(1)..=Duration::from_secs(90 * 24 * 3600);
    if possible.contains(&ttl) {
        Ok(ttl)
    } else {
        Err("must be between 1s and 90d".to_owned())
    }
}

/// Rejects paths that are not regular files: opening a named pipe would block.
fn check_file(path: &Path, flag: &str) -> anyhow::Result<()> {
    let metadata = std::fs::metadata(path).with_context(|| format!("cannot read {flag} {}", path.display()))?;
    anyhow::ensure!(metadata.is_file(), "{flag} {} is not a file", path.display());
    std::fs::File::open(path)
        .map(drop)
        .with_context(|| format!("cannot read {flag} {}", path.display()))
}

/// The state directory may be inside the configuration directory, where it is ignored, but must not be the
/// same.
fn check_separate(state: &Path, config: &Path) -> anyhow::Result<()> {
    let same = std::fs::canonicalize(config).ok() == std::fs::canonicalize(state).ok();
    anyhow::ensure!(
        !same,
        "--config and --state are the same directory, {}: use a separate directory for --state",
        state.display()
    );
    Ok(())
}

/// Reports a mistyped path at startup; later changes are reported by the file watcher.
fn check_directory(path: &Path, flag: &str) -> anyhow::Result<()> {
    std::fs::read_dir(path)
        .map(drop)
        .with_context(|| format!("cannot read the directory {flag} {}", path.display()))
}
