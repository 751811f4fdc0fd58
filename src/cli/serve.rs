//! `topsail serve`: the control plane.

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

/// How long answers that are on their way may take once the process is asked to end. Streams of
/// proxies never end by themselves and are not waited for longer: proxies connect to the next server.
const GRACE: Duration = Duration::from_millis(200);

const EXAMPLES: &str = "\
The directory is read recursively (*.yaml, *.yml, *.json) and watched: an edit is in force some milliseconds \
after the file is closed or renamed. An object in error keeps its last good form and everything else applies; \
the log, `topsail status` and /api/v1/diagnostics say what is wrong and where.

The state directory holds the CA, the key of join tokens and the last good configuration; keep it, and keep it \
private. It is made if there is none. To use a CA of your own, put ca-cert.pem, ca-key.pem, cert-chain.pem and \
root-cert.pem into ca/ in it before the first start.

Each flag can be given as the environment variable beside it. SIGINT (Ctrl-C) and SIGTERM end the server; \
proxies keep what they have.

Examples:
  A mesh on this machine:
    topsail serve --config mesh/ --state state/

  For sidecars on other hosts, which dial mesh.example:
    topsail serve --config /etc/topsail/mesh --xds 0.0.0.0:15012 --server-name mesh.example

  Whether it is ready, and what is wrong with the directory:
    curl localhost:15014/ready
    curl localhost:15014/api/v1/diagnostics";

/// What `topsail serve` is called with.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    /// The directory of Istio-style YAML to serve
    #[arg(long, value_name = "DIR", env = "TOPSAIL_CONFIG", hide_env_values = true)]
    config: PathBuf,

    /// A file with a bare MeshConfig, watched as well; the other way is the ConfigMap `istio` in the directory
    #[arg(long, value_name = "FILE", env = "TOPSAIL_MESH_CONFIG", hide_env_values = true)]
    mesh_config: Option<PathBuf>,

    /// Where xDS is served: TLS, for proxies with a join token or a certificate of the mesh
    #[arg(
        long,
        value_name = "IP:PORT",
        env = "TOPSAIL_XDS",
        hide_env_values = true,
        default_value = "127.0.0.1:15012"
    )]
    xds: SocketAddr,

    /// A further name or address in the server's certificate; may be repeated (in the variable: separated by
    /// commas). Envoy does not need it, other clients that verify names do
    #[arg(
        long = "server-name",
        value_name = "NAME",
        env = "TOPSAIL_SERVER_NAME",
        hide_env_values = true,
        value_delimiter = ','
    )]
    server_names: Vec<String>,

    /// Where readiness, metrics and the API are served over plain HTTP; whoever reaches it can read the configuration
    #[arg(
        long,
        value_name = "IP:PORT",
        env = "TOPSAIL_ADMIN",
        hide_env_values = true,
        default_value = "127.0.0.1:15014"
    )]
    admin: SocketAddr,

    /// Apply nothing of an edit while there is any error in the directory, instead of all but what is in error
    #[arg(long, env = "TOPSAIL_STRICT", hide_env_values = true, value_parser = FalseyValueParser::new())]
    strict: bool,

    /// Take unknown fields and kinds for warnings, not for errors
    #[arg(long, env = "TOPSAIL_LENIENT", hide_env_values = true, value_parser = FalseyValueParser::new())]
    lenient: bool,

    /// How long workload certificates live, up to 90d; they are renewed at half of that. Units are s, m, h and d
    #[arg(long, value_name = "TIME", env = "TOPSAIL_CERTIFICATE_TTL", hide_env_values = true, value_parser = certificate_ttl, default_value = "24h")]
    certificate_ttl: Duration,

    /// How long a workload that registered itself stays when its stream has ended: it may come back. Units are s, m,
    /// h and d
    #[arg(long, value_name = "TIME", env = "TOPSAIL_UNREGISTER_AFTER", hide_env_values = true, value_parser = value::span, default_value = "10s")]
    unregister_after: Duration,

    #[command(flatten)]
    state: StateArguments,

    #[command(flatten)]
    log: LogArguments,
}

impl Command for Arguments {
    fn run(self, _output: &mut Output) -> anyhow::Result<Outcome> {
        readable(&self.config, "--config")?;
        if let Some(path) = &self.mesh_config {
            a_file(path, "--mesh-config")?;
        }
        self.log.start()?;
        let runtime = tokio::runtime::Runtime::new().context("the runtime cannot be started")?;
        let result = runtime.block_on(self.serve());
        // The watch may be in the middle of reading a large directory.
        runtime.shutdown_background();
        result
    }
}

impl Arguments {
    async fn serve(self) -> anyhow::Result<Outcome> {
        let mut signals = StopSignals::catch().context("signals cannot be caught")?;
        let listener = TcpListener::bind(self.admin).await.with_context(|| {
            let address = self.admin;
            format!("the admin listener cannot be had on {address}; `--admin IP:PORT` takes another address")
        })?;
        let (stop, stopped) = watch::channel(());
        let settings = self.settings()?;
        a_directory_of_its_own(&settings.state, &self.config)?;
        let (config, state) = (self.config.display(), settings.state.display().to_string());
        let (running, xds) = control::start(settings, until(stopped.clone())).await?;
        tracing::info!(%config, %state, xds = %running.xds, admin = %listener.local_addr()?, "topsail {} serves", env!("CARGO_PKG_VERSION"));
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
                // What is not done by then is cut off.
                let _ = timeout(GRACE, rest).await;
                tracing::info!("stopped by {signal}");
                Ok(Outcome::Fine)
            }
            ended = &mut xds => Err(unasked(ended).context("xDS is served no more")),
            ended = &mut admin => Err(unasked(ended).context("the admin listener is gone")),
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

/// Ready when the sender is gone.
async fn until(mut stopped: watch::Receiver<()>) {
    while stopped.changed().await.is_ok() {}
}

/// Why a task ended that nobody asked to end.
fn unasked<E: Error + Send + Sync + 'static>(ended: Result<Result<(), E>, JoinError>) -> anyhow::Error {
    match ended {
        Ok(Ok(())) => anyhow::anyhow!("nobody asked it to end"),
        Ok(Err(error)) => error.into(),
        Err(panicked) => panicked.into(),
    }
}

/// What the CA issues: Istio's limit.
fn certificate_ttl(text: &str) -> Result<Duration, String> {
    let ttl = value::span(text)?;
    let possible = Duration::from_secs(1)..=Duration::from_secs(90 * 24 * 3600);
    if possible.contains(&ttl) {
        Ok(ttl)
    } else {
        Err("1s to 90d are possible".to_owned())
    }
}

/// Opening a pipe would wait for somebody to write to it.
fn a_file(path: &Path, flag: &str) -> anyhow::Result<()> {
    let metadata = std::fs::metadata(path).with_context(|| format!("cannot read {flag} {}", path.display()))?;
    anyhow::ensure!(metadata.is_file(), "{flag} {} is no file", path.display());
    std::fs::File::open(path)
        .map(drop)
        .with_context(|| format!("cannot read {flag} {}", path.display()))
}

/// The state directory may lie in the configuration, which passes it over, but not be the same.
fn a_directory_of_its_own(state: &Path, config: &Path) -> anyhow::Result<()> {
    let same = std::fs::canonicalize(config).ok() == std::fs::canonicalize(state).ok();
    anyhow::ensure!(
        !same,
        "--config and --state are the same directory, {}: name a directory of its own with --state",
        state.display()
    );
    Ok(())
}

/// A typo in a path is told now; what happens to the directory later is the watch's to tell.
fn readable(path: &Path, flag: &str) -> anyhow::Result<()> {
    std::fs::read_dir(path)
        .map(drop)
        .with_context(|| format!("cannot read the directory {flag} {}", path.display()))
}
