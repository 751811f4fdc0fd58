//! The life of the data plane: the control thread, start-up and shutdown.

mod asks;
mod control;
mod file_pages;
mod link;
mod memory;
mod sockets;
mod validate;

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::future::{AbortHandle, abortable};
use futures::stream::FuturesUnordered;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::access_log::Sink;
use super::admin::{self, Admin};
use super::config::bootstrap::{self, Bootstrap, BootstrapError};
use super::config::server::Server;
use super::config::{self, At, Refusal};
use super::listener::limit::ConnectionLimit;
use super::stats::ServerStats;
use super::store::Store;
use super::upstream::dns::Resolver;
use super::upstream::health_check::checks::Checks;
use super::worker::Worker;
use crate::lifecycle::{LogSignals, StopSignals};
use crate::xds::client::Client;
use control::{Control, Feed, StreamWaker};
use memory::Memory;
use sockets::Sockets;
pub use validate::validate;

/// How long connections may drain at shutdown.
const DRAIN_TIME: Duration = Duration::from_secs(5);
/// How often open connections are counted meanwhile.
const DRAIN_CHECK: Duration = Duration::from_millis(50);
/// How long shutdown waits for access logs to be written.
const LOGS_TIME: Duration = Duration::from_secs(1);
/// Interval of the clusters' periodic maintenance.
const UPKEEP: Duration = Duration::from_millis(250);
/// How long changes are gathered before they are saved.
const WRITE_DELAY: Duration = Duration::from_secs(1);
/// How long the configuration must be unchanged before pages needed only for changes are released.
const REST: Duration = Duration::from_secs(2);

/// Options of a data plane.
#[derive(Clone, Debug)]
pub struct Options {
    /// The bootstrap file.
    pub bootstrap: PathBuf,
    /// The number of workers.
    pub concurrency: u64,
    /// Where the last configuration is saved; by default beside the bootstrap.
    pub state: Option<PathBuf>,
    /// How long connections of removed filter chains may drain.
    pub drain_time: Duration,
    /// Overrides of the bootstrap's node.
    pub node: NodeOptions,
}

/// Overrides of the bootstrap's node.
#[derive(Clone, Debug, Default)]
pub struct NodeOptions {
    /// `id`.
    pub id: Option<String>,
    /// `cluster`.
    pub cluster: Option<String>,
    /// `locality.zone`.
    pub zone: Option<String>,
}

impl NodeOptions {
    fn apply(&self, bootstrap: &mut Bootstrap) {
        if self.id.is_none() && self.cluster.is_none() && self.zone.is_none() {
            return;
        }
        let node = bootstrap.node.get_or_insert_default();
        node.id = self.id.clone().unwrap_or(std::mem::take(&mut node.id));
        node.cluster = self.cluster.clone().unwrap_or(std::mem::take(&mut node.cluster));
        if let Some(zone) = &self.zone {
            node.locality.get_or_insert_default().zone = zone.clone();
        }
    }
}

/// Why a data plane cannot run.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    /// The bootstrap cannot be read or parsed.
    #[error(transparent)]
    Bootstrap(#[from] BootstrapError),
    /// Parts of the bootstrap are refused: fields and reasons.
    #[error("the bootstrap is invalid: {}", .0.iter().map(|(field, why)| format!("{field}: {why}")).collect::<Vec<_>>().join("; "))]
    Refused(Vec<(String, String)>),
    /// A socket or thread cannot be created.
    #[error("{0}: {1}")]
    System(String, io::Error),
}

impl ProxyError {
    /// The mistakes one by one, each with its field in the bootstrap (`static_resources.clusters[0].name`; empty if it
    /// is about the whole file), if it is about one.
    pub fn mistakes(&self) -> Vec<(Option<&str>, String)> {
        match self {
            ProxyError::Bootstrap(error) => vec![(error.field(), self.to_string())],
            ProxyError::Refused(mistakes) => mistakes
                .iter()
                .map(|(field, why)| (Some(&**field), format!("the bootstrap is invalid: {field}: {why}")))
                .collect(),
            ProxyError::System(..) => vec![(None, self.to_string())],
        }
    }
}

impl From<Refusal> for ProxyError {
    fn from(refusal: Refusal) -> Self {
        ProxyError::Refused(refusal.into_parts().collect())
    }
}

/// Runs a data plane until it is told to stop.
///
/// # Errors
/// If it cannot start.
pub async fn run(options: Options) -> Result<(), ProxyError> {
    let bootstrap = read(&options)?;
    for key in bootstrap::runtime_keys(&bootstrap) {
        tracing::warn!(key, "a key of the bootstrap's runtime layers has no effect");
    }
    let server = config::server::server(&bootstrap)?;
    let uncaught = |error| ProxyError::System("failed to install signal handlers".to_owned(), error);
    let mut signals = StopSignals::catch().map_err(uncaught)?;
    let log_signals = LogSignals::catch().map_err(uncaught)?;
    let mut store = Store::new(config::trace::node(&bootstrap), config::server::clusters(&bootstrap));
    store.wait_for(config::server::first_answers(&bootstrap), Instant::now());
    let limit = bootstrap::connection_limit(&bootstrap)?.map(|most| Arc::new(ConnectionLimit::new(most)));
    let workers = (0..options.concurrency)
        .map(|index| Worker::start(index, store.published(), limit.clone(), options.drain_time))
        .collect::<io::Result<Vec<_>>>()
        .map_err(|error| ProxyError::System("failed to start a worker".to_owned(), error))?;
    let node = config::server::node(&bootstrap);
    let client = server
        .as_ref()
        .map(|server| Client::new(server.source.variant, node.clone()));
    let memory = server
        .as_ref()
        .map(|_| Memory::new(&options.bootstrap, options.state.as_deref(), &node.id));
    let stats = Arc::new(ServerStats::new(Instant::now(), options.concurrency));
    let (ready, published) = (store.readiness(), store.published());
    let mut control = Control::new(store, Sockets::new(workers), client, node, memory, stats.clone());
    let (asks, asked) = mpsc::unbounded_channel();
    let admin = Admin {
        start: config::server::start(&options.bootstrap, &bootstrap, options.concurrency),
        naming: config::stats::naming(bootstrap.stats_config.as_ref()).at("stats_config")?,
        published,
        server: stats,
        ready,
        asks,
    };
    let admin = admin_server(&bootstrap, admin).await?;
    control.start(bootstrap::fixed(&bootstrap), Instant::now())?;
    control.recall(Instant::now());
    let (control, waker) = (RefCell::new(control), StreamWaker::default());
    tokio::select! {
        () = keep_link(server, &control, &waker) => {}
        () = keep_secrets(&bootstrap, &control, &waker) => {}
        () = keep_time(&control, &waker) => {}
        () = keep_up(&control, &waker) => {}
        () = keep_names(&control, &waker) => {}
        () = keep_checks(&control, &waker) => {}
        () = write_down(&control) => {}
        () = keep_logs(log_signals) => {}
        () = rest(&control) => {}
        () = asks::answer(&control, asked) => {}
        signal = signals.next() => tracing::info!(signal, "ending"),
    }
    tokio::select! {
        () = drain(&control) => {}
        signal = signals.next() => tracing::info!(signal, "exiting at once"),
    }
    admin.iter().for_each(JoinHandle::abort);
    Sink::finish_all(LOGS_TIME);
    Ok(())
}

/// Reopens access logs on request.
async fn keep_logs(mut signals: LogSignals) {
    loop {
        signals.reopen().await;
        tracing::info!("reopening access logs");
        Sink::reopen_files();
    }
}

/// Reads and checks the bootstrap.
fn read(options: &Options) -> Result<Bootstrap, ProxyError> {
    let mut bootstrap = bootstrap::read(&options.bootstrap)?;
    options.node.apply(&mut bootstrap);
    bootstrap::check(&bootstrap)?;
    Ok(bootstrap)
}

/// Starts the admin server, if the bootstrap has one.
async fn admin_server(bootstrap: &Bootstrap, admin: Admin) -> Result<Option<JoinHandle<()>>, ProxyError> {
    let address = config::server::admin_address(bootstrap.admin.as_ref())?;
    let Some(address) = address else {
        return Ok(None);
    };
    let listener = TcpListener::bind(address).await;
    let failed = |error| ProxyError::System(format!("the admin interface cannot be bound to {address}"), error);
    Ok(Some(tokio::spawn(admin::serve(
        listener.map_err(failed)?,
        Arc::new(admin),
    ))))
}

async fn keep_link(server: Option<Server>, control: &RefCell<Control>, waker: &StreamWaker) {
    match server {
        Some(server) => link::keep(Feed::Aggregated, server, control, waker).await,
        None => std::future::pending().await,
    }
}

/// Keeps an SDS stream for each secret source in use.
async fn keep_secrets(bootstrap: &Bootstrap, control: &RefCell<Control>, waker: &StreamWaker) {
    let (mut kept, mut links) = (HashMap::new(), FuturesUnordered::new());
    let mut changed = waker.listen();
    loop {
        let wanted: HashSet<_> = control.borrow().secret_servers().cloned().collect();
        // Aborts the streams that are no longer needed.
        kept.retain(|source, handle: &mut AbortHandle| {
            let stays = wanted.contains(source);
            if !stays {
                handle.abort();
            }
            stays
        });
        for source in wanted {
            if kept.contains_key(&source) {
                continue;
            }
            let server = config::server::of_source((*source).clone(), bootstrap);
            let server = server.inspect_err(|refusal| {
                tracing::error!(cluster = source.cluster, %refusal, "failed to subscribe to secrets");
            });
            let feed = Feed::Secrets(source.clone());
            let (link, handle) = abortable(async move {
                if let Ok(server) = server {
                    link::keep(feed, server, control, waker).await;
                }
            });
            links.push(link);
            kept.insert(source, handle);
        }
        tokio::select! {
            // A stream that has ended needs nothing done.
            Some(_) = links.next() => {}
            // The sender lives as long as `waker`.
            _ = changed.changed() => {}
        }
    }
}

/// Handles timeouts of resources that have not arrived, and TTLs of those that have.
async fn keep_time(control: &RefCell<Control>, waker: &StreamWaker) {
    loop {
        let wake = control.borrow().wake_at();
        tokio::select! {
            () = until(wake) => {
                let mut control = control.borrow_mut();
                control.expire(Instant::now());
                control.settle(Instant::now());
                waker.tell();
            }
            () = waker.changed() => {}
        }
    }
}

/// Runs the clusters' periodic maintenance, such as returning ejected hosts.
async fn keep_up(control: &RefCell<Control>, waker: &StreamWaker) {
    loop {
        tokio::time::sleep(UPKEEP).await;
        let mut control = control.borrow_mut();
        control.store.upkeep(Instant::now());
        if control.store.refresh_files() {
            control.settle(Instant::now());
            waker.tell();
        }
    }
}

/// Resolves the DNS names of clusters.
async fn keep_names(control: &RefCell<Control>, waker: &StreamWaker) {
    let (mut resolver, mut found) = Resolver::new();
    loop {
        resolver.watch(control.borrow().store.newest_clusters());
        tokio::select! {
            Some(resolved) = found.recv() => {
                let mut control = control.borrow_mut();
                control.store.put_resolved(&resolved.cluster, &resolved.endpoints, Instant::now());
                control.settle(Instant::now());
                waker.tell();
            }
            () = tokio::time::sleep(UPKEEP) => {}
        }
    }
}

/// Runs the health checks of clusters.
async fn keep_checks(control: &RefCell<Control>, waker: &StreamWaker) {
    let mut checks = Checks::default();
    let mut changed = waker.listen();
    loop {
        checks.watch(control.borrow().store.checked_clusters());
        tokio::select! {
            () = checks.begun() => {
                control.borrow_mut().settle(Instant::now());
                waker.tell();
            }
            // The sender lives as long as `waker`.
            _ = changed.changed() => {}
        }
    }
}

async fn until(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment.into()).await,
        None => std::future::pending().await,
    }
}

/// Saves the configuration some time after it has changed.
async fn write_down(control: &RefCell<Control>) {
    loop {
        tokio::time::sleep(WRITE_DELAY).await;
        control.borrow_mut().write_down();
    }
}

/// Releases memory whenever the configuration has not changed for a while.
async fn rest(control: &RefCell<Control>) {
    loop {
        tokio::time::sleep(REST).await;
        if control.borrow_mut().comes_to_rest(REST)
            && let Err(error) = file_pages::give_back()
        {
            tracing::debug!(%error, "failed to return unused pages");
        }
    }
}

/// Waits for connections to drain, for a bounded time.
async fn drain(control: &RefCell<Control>) {
    control.borrow_mut().write_down();
    control.borrow_mut().drain();
    let end = Instant::now() + DRAIN_TIME;
    while control.borrow().store.connections() > 0 && Instant::now() < end {
        tokio::time::sleep(DRAIN_CHECK).await;
    }
}
