//! Assembles and starts the control plane.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tokio::net::TcpListener;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinSet;
use tonic::transport::Server;

use super::ca_on_disk::CaOnDisk;
use super::composer::{Composer, ComposerEvent, Parts, Reading};
use super::fleet::Proxies;
use super::journal::Journal;
use super::look;
use super::roster::Roster;
use super::secrets::Secrets;
use super::state::Published;
use crate::api::ReadOptions;
use crate::clock::Clock;
use crate::mesh::config::MeshConfig;
use crate::mesh::directory::Options;
use crate::name::TrustDomain;
use crate::pki::{
    Ca, CaError, IssueError, IssueOptions, StateClaim, StateDir, StateError, TokenKeyError, TokenSigner, renew_at,
    server_identity,
};
use crate::tls::{ServerTls, TlsError, TlsIncoming};
use crate::xds::server;

/// Interval of certificate and token checks.
const HOUSEKEEPING: Duration = Duration::from_secs(5);
/// HTTP/2 keepalive: interval of PINGs on idle connections.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);
/// HTTP/2 keepalive: how long to wait for the PING ACK before closing the connection. Shorter
/// limits disconnect proxies that are merely busy.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);
/// Initial HTTP/2 stream window for requests, the default of RFC 9113. tonic's default of 1 MiB
/// lets a client that subscribes to thousands of names grow a buffer that is retained for the
/// lifetime of the connection.
const REQUEST_WINDOW: u32 = 65_535;

/// How long to wait for a server that is shutting down to release the state directory.
const HANDOVER: Duration = Duration::from_secs(1);
/// Poll interval while waiting for it.
const HANDOVER_POLL: Duration = Duration::from_millis(20);

/// Settings of a control plane.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How the configuration directory is read.
    pub reading: Reading,
    /// The state directory.
    pub state: PathBuf,
    /// Listen address of the xDS server.
    pub xds: SocketAddr,
    /// Additional DNS names and IP addresses for the server certificate's SANs.
    pub server_names: Vec<String>,
    /// The trust domain.
    pub trust_domain: TrustDomain,
    /// Lifetime of workload certificates.
    pub certificate_ttl: Duration,
    /// How long an auto-registered workload is kept after its stream ends.
    pub unregister_after: Duration,
    /// Time source.
    pub clock: Clock,
}

impl Settings {
    fn mesh_options(&self) -> Options {
        let base = MeshConfig {
            trust_domain: self.trust_domain.clone(),
            ..MeshConfig::default()
        };
        Options {
            base,
            read: ReadOptions {
                lenient: self.reading.lenient,
            },
        }
    }
}

/// Why a control plane fails to start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The state directory is unusable.
    #[error(transparent)]
    State(#[from] StateError),
    /// The CA cannot be loaded or created.
    #[error(transparent)]
    Ca(#[from] CaError),
    /// The join token key cannot be loaded or created.
    #[error(transparent)]
    TokenKey(#[from] TokenKeyError),
    /// The server certificate cannot be issued.
    #[error("the server's certificate: {0}")]
    Certificate(#[from] IssueError),
    /// The server certificate is unusable.
    #[error("the server's certificate: {0}")]
    Tls(#[from] TlsError),
    /// The listen address is in use, or binding is not permitted.
    #[error(
        "failed to bind the xDS listener to {0}: {1}; is another `topsail serve` running? Use `--xds ADDR` to choose another address"
    )]
    Listen(SocketAddr, io::Error),
    /// The composer's thread cannot be spawned.
    #[error("failed to start a thread: {0}")]
    Thread(io::Error),
}

/// A running control plane.
#[derive(Debug)]
pub struct Running {
    /// The published state.
    pub published: Arc<Published>,
    /// Connected proxies.
    pub roster: Arc<Roster>,
    /// Address of the xDS server.
    pub xds: SocketAddr,
    /// Background tasks; aborted on drop.
    _tasks: JoinSet<()>,
    /// Lock that keeps other servers off the state directory.
    _claim: StateClaim,
}

/// Starts the control plane. The second value is the serving future, which completes after
/// `shutdown`.
///
/// # Errors
///
/// See [`StartError`].
pub async fn start(
    settings: Settings,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(Running, impl Future<Output = Result<(), tonic::transport::Error>>), StartError> {
    let state = StateDir::open(&settings.state)?;
    let claim = claimed(&state).await?;
    state.belong_to(&settings.trust_domain)?;
    let ca = Arc::new(Ca::load_or_create(&state, &settings.trust_domain, &settings.clock)?);
    let tokens = TokenSigner::load_or_create(&state, &settings.trust_domain)?;
    let listen_error = |error| StartError::Listen(settings.xds, error);
    let listener = TcpListener::bind(settings.xds).await.map_err(listen_error)?;
    let xds = listener.local_addr().map_err(listen_error)?;
    let identity = Identity::new(ca.clone(), &settings, xds)?;

    let options = IssueOptions {
        ttl: settings.certificate_ttl,
        ..IssueOptions::default()
    };
    let secrets = Arc::new(Secrets::new(ca, settings.clock.clone(), options));
    let (published, roster) = (Arc::new(Published::default()), Arc::new(Roster::default()));
    let (events, ticked) = mpsc::unbounded_channel();
    let (journal, restored) = Journal::open(&state);
    let (alarm, alarmed) = watch::channel(None);
    let composer = Composer::new(Parts {
        reading: settings.reading.clone(),
        options: settings.mesh_options(),
        roster: roster.clone(),
        secrets: secrets.clone(),
        published: published.clone(),
        journal,
        restored,
        grace: settings.unregister_after,
        alarm,
        clock: settings.clock.clone(),
    });
    std::thread::Builder::new()
        .name("composer".to_owned())
        .spawn(|| {
            let _end = EndOnPanic;
            composer.run(ticked);
        })
        .map_err(StartError::Thread)?;
    let mut tasks = JoinSet::new();
    tasks.spawn(tell_when_grace_is_over(alarmed, events.clone()));
    tasks.spawn(look_out(settings.reading.clone(), events.clone()));

    let (health, health_service) = tonic_health::server::health_reporter();
    tasks.spawn(report_health(published.clone(), health));
    let incoming = TlsIncoming::new(listener, &identity.tls);
    tasks.spawn(keep_house(identity, CaOnDisk::new(state), events.clone()));
    let stopping = events.clone();
    let fleet = Arc::new(Proxies {
        roster: roster.clone(),
        secrets,
        tokens,
        published: published.clone(),
        events,
        clock: settings.clock,
    });
    let serving = Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
        .initial_stream_window_size(REQUEST_WINDOW)
        .add_service(health_service)
        .add_service(server::aggregated(fleet.clone()))
        .add_service(server::secrets(fleet.clone()))
        .add_service(server::joining(fleet))
        .serve_with_incoming_shutdown(incoming, async move {
            shutdown.await;
            // Sending fails only if the composer has already stopped.
            let _ = stopping.send(ComposerEvent::Stopping);
        });
    let running = Running {
        published,
        roster,
        xds,
        _tasks: tasks,
        _claim: claim,
    };
    Ok((running, serving))
}

/// Claims the state directory, waiting for a server that is shutting down to release it.
async fn claimed(state: &StateDir) -> Result<StateClaim, StateError> {
    let deadline = tokio::time::Instant::now() + HANDOVER;
    loop {
        match state.claim() {
            Err(StateError::InUse(_)) if tokio::time::Instant::now() < deadline => {
                tokio::time::sleep(HANDOVER_POLL).await;
            }
            claimed => return claimed,
        }
    }
}

/// Aborts the process if the composer panics: a server without its composer would look healthy but
/// no longer apply changes. A supervisor restarts the process, and proxies keep their configuration
/// meanwhile.
struct EndOnPanic;

impl Drop for EndOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            tracing::error!("the composer panicked, which is a bug; shutting down");
            std::process::exit(70);
        }
    }
}

/// The server's own certificate, renewed at half of its lifetime.
struct Identity {
    ca: Arc<Ca>,
    tls: ServerTls,
    trust_domain: TrustDomain,
    options: IssueOptions,
    renew_at: SystemTime,
    clock: Clock,
}

impl Identity {
    fn new(ca: Arc<Ca>, settings: &Settings, xds: SocketAddr) -> Result<Self, StartError> {
        let own = xds.ip().to_string();
        let names = settings.server_names.iter().map(String::as_str);
        let options = IssueOptions::server(names.chain([own.as_str(), "localhost"]));
        let certificate = ca.issue(&server_identity(&settings.trust_domain), &options)?;
        let tls = ServerTls::new(&certificate, ca.bundle(), &settings.trust_domain, &settings.clock)?;
        let renew_at = renew_at(certificate.validity, 0.0);
        Ok(Self {
            ca,
            tls,
            trust_domain: settings.trust_domain.clone(),
            options,
            renew_at,
            clock: settings.clock.clone(),
        })
    }

    fn renew(&mut self) -> Result<(), StartError> {
        if self.clock.now() < self.renew_at {
            return Ok(());
        }
        let certificate = self.ca.issue(&server_identity(&self.trust_domain), &self.options)?;
        self.tls.replace_certificate(&certificate)?;
        self.renew_at = renew_at(certificate.validity, 0.0);
        tracing::info!("renewed the server certificate");
        Ok(())
    }
}

/// Watches the mesh configuration and the directory. The mesh configuration is read first.
async fn look_out(reading: Reading, events: mpsc::UnboundedSender<ComposerEvent>) {
    let looked = Notify::new();
    let mesh_config = async {
        let Some(root) = reading.mesh_config else {
            return looked.notify_one();
        };
        let deliver = |tree, _| {
            let told = events.send(ComposerEvent::MeshConfig(tree)).is_ok();
            looked.notify_one();
            told
        };
        look::out(root, deliver).await;
    };
    let directory = async {
        looked.notified().await;
        look::out(reading.root, |tree, changed| {
            events.send(ComposerEvent::Directory(tree, changed)).is_ok()
        })
        .await;
    };
    tokio::join!(mesh_config, directory);
}

/// Sends [`ComposerEvent::GraceOver`] at the deadline in `alarm`.
async fn tell_when_grace_is_over(
    mut alarm: watch::Receiver<Option<Instant>>,
    events: mpsc::UnboundedSender<ComposerEvent>,
) {
    loop {
        let at = *alarm.borrow_and_update();
        let over = async {
            match at {
                Some(at) => tokio::time::sleep_until(at.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            changed = alarm.changed() => match changed {
                Ok(()) => continue,
                Err(_) => return,
            },
            () = over => {}
        }
        if events.send(ComposerEvent::GraceOver).is_err() || alarm.changed().await.is_err() {
            return;
        }
    }
}

async fn keep_house(mut identity: Identity, mut ca: CaOnDisk, events: mpsc::UnboundedSender<ComposerEvent>) {
    let mut interval = tokio::time::interval(HOUSEKEEPING);
    while events.send(ComposerEvent::Housekeeping).is_ok() {
        interval.tick().await;
        ca.look();
        if let Err(error) = identity.renew() {
            tracing::error!("failed to renew the server certificate: {error}");
        }
    }
}

/// Reports SERVING from the gRPC health service once a generation is served.
async fn report_health(published: Arc<Published>, health: tonic_health::server::HealthReporter) {
    health
        .set_service_status("", tonic_health::ServingStatus::NotServing)
        .await;
    published.loaded().await;
    health
        .set_service_status("", tonic_health::ServingStatus::Serving)
        .await;
}
