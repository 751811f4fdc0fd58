//! Workers: threads that serve connections, each with its own runtime, sockets and connection pools.

pub(crate) mod drain;

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use arc_swap::ArcSwap;
use http::HeaderValue;
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::connection::Address;
use super::listener::Listener;
use super::listener::accept::{self, Listening};
use super::listener::limit::ConnectionLimit;
use super::slot::Slot;
use super::store::Published;
use super::trace::export::Outboxes;
use super::turn;
use super::upstream::cluster::Cluster;
use super::upstream::pool::Pools;

/// How often connection pools are swept.
const SWEEP: Duration = Duration::from_secs(1);

/// A worker, as its own tasks see it.
#[derive(Debug)]
pub(crate) struct Worker {
    /// Connection pools.
    pub(crate) pools: Pools,
    /// Spans waiting for export.
    pub(crate) outboxes: Outboxes,
    /// The limit of downstream connections, shared by all workers.
    pub(crate) limit: Option<Arc<ConnectionLimit>>,
    published: Arc<ArcSwap<Published>>,
    date: RefCell<(Instant, HeaderValue)>,
    drain_time: Duration,
}

/// A command from the control thread.
#[derive(Debug)]
pub(crate) enum Command {
    /// Accept connections for this listener on these sockets, instead of earlier ones.
    Listen(Arc<str>, Vec<Listening>),
    /// Stop accepting for this listener.
    Close(Arc<str>),
}

/// A worker, as the control thread sees it.
#[derive(Debug)]
pub(crate) struct Handle {
    /// The channel for commands. The worker ends when this is dropped.
    pub(crate) commands: mpsc::UnboundedSender<Command>,
}

impl Worker {
    /// Starts a worker whose downstream connections count against `limit`. Connections that cannot be told to close are
    /// closed after draining for `drain_time`.
    ///
    /// # Errors
    /// If a thread or runtime cannot be created.
    pub(crate) fn start(
        index: u64,
        published: Arc<ArcSwap<Published>>,
        limit: Option<Arc<ConnectionLimit>>,
        drain_time: Duration,
    ) -> io::Result<Handle> {
        let (commands, receive) = mpsc::unbounded_channel();
        std::thread::Builder::new()
            .name(format!("worker-{index}"))
            .spawn(move || run(published, receive, limit, drain_time))?;
        Ok(Handle { commands })
    }

    /// The cluster with this name.
    pub(crate) fn cluster(&self, name: &str) -> Option<Arc<Slot<Cluster>>> {
        self.published.load().clusters.get(name).cloned()
    }

    /// The listener with this name.
    pub(crate) fn listener(&self, name: &str) -> Option<Arc<Listener>> {
        self.published.load().listeners.get(name).cloned()
    }

    /// The listener of an original destination: with that address, or else with its port on any address.
    pub(crate) fn listener_at(&self, address: SocketAddr) -> Option<Arc<Listener>> {
        let published = self.published.load();
        let wildcard = SocketAddr::new(
            if address.is_ipv4() {
                Ipv4Addr::UNSPECIFIED.into()
            } else {
                Ipv6Addr::UNSPECIFIED.into()
            },
            address.port(),
        );
        let at = |address| published.by_address.get(&Address::Ip(address)).cloned();
        at(address).or_else(|| at(wildcard))
    }

    /// The `date` header, formatted once a second.
    pub(crate) fn date(&self) -> HeaderValue {
        let (made, value) = &mut *self.date.borrow_mut();
        let now = turn::now().into_std();
        if now.saturating_duration_since(*made) >= Duration::from_secs(1) {
            (*made, *value) = (now, date(SystemTime::now()));
        }
        value.clone()
    }

    /// How long connections may drain.
    pub(crate) fn drain_time(&self) -> Duration {
        self.drain_time
    }
}

fn date(now: SystemTime) -> HeaderValue {
    HeaderValue::from_str(&httpdate::fmt_http_date(now)).unwrap_or_else(|_| HeaderValue::from_static(""))
}

fn run(
    published: Arc<ArcSwap<Published>>,
    commands: mpsc::UnboundedReceiver<Command>,
    limit: Option<Arc<ConnectionLimit>>,
    drain_time: Duration,
) {
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build_local(LocalOptions::default());
    match runtime {
        Ok(runtime) => runtime.block_on(serve(published, commands, limit, drain_time)),
        Err(error) => tracing::error!(%error, "failed to start a worker's runtime"),
    }
}

async fn serve(
    published: Arc<ArcSwap<Published>>,
    mut commands: mpsc::UnboundedReceiver<Command>,
    limit: Option<Arc<ConnectionLimit>>,
    drain_time: Duration,
) {
    let worker = Rc::new(Worker {
        pools: Pools::default(),
        outboxes: Outboxes::default(),
        limit,
        published,
        date: RefCell::new((Instant::now(), date(SystemTime::now()))),
        drain_time,
    });
    tokio::task::spawn_local(sweep(Rc::downgrade(&worker)));
    let mut accepting: HashMap<_, Vec<JoinHandle<()>>> = HashMap::new();
    while let Some(command) = commands.recv().await {
        let earlier = match command {
            Command::Listen(name, sockets) => {
                let accept = |socket| accept::accept(worker.clone(), name.clone(), socket);
                let tasks = sockets.into_iter().map(accept).map(tokio::task::spawn_local);
                let tasks = tasks.collect();
                accepting.insert(name, tasks)
            }
            Command::Close(name) => accepting.remove(&name),
        };
        earlier.into_iter().flatten().for_each(|task| task.abort());
    }
}

/// Closes idle upstream connections, as long as the worker exists.
async fn sweep(worker: Weak<Worker>) {
    loop {
        tokio::time::sleep(SWEEP).await;
        let Some(worker) = worker.upgrade() else {
            return;
        };
        worker.pools.sweep(Instant::now());
    }
}
