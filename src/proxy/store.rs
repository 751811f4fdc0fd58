//! The configuration: resources received, compiled, warming and live.
//!
//! Plain state without I/O or clock, owned by the control thread. Workers see [`Published`].
//!
//! ```text
//! put ── compiled ── warming ──[endpoints, routes, secrets received]──> live ──[removed, replaced]──> gone
//! ```
//!
//! A new version warms while the current one stays live. After each update the caller runs [`Store::settle`] and acts
//! on the [`Changes`] it returns.

mod clusters;
mod dump;
mod interest;
mod listeners;
mod secrets;
#[cfg(test)]
pub(crate) mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use bytes::Bytes;

use super::config::server::FirstAnswers;
use super::config::source::SecretSource;
use super::config::{self, At, Compiled, Names, Refusal};
use super::connection::Address;
use super::http::filter::local_rate_limit::RateLimitStats;
use super::http::route::RouteStats;
use super::listener::Listener;
use super::slot::Slot;
use super::stats::Named;
use super::tls::FileSecrets;
use super::trace::NodeNames;
use super::upstream::cluster::Cluster;
use super::upstream::host::Endpoints;
use crate::xds::ResourceType;
use clusters::ClusterEntry;
use listeners::ListenerEntry;
use secrets::Reading;

/// What workers look up by name; everything else is reached from there.
#[derive(Debug, Default)]
pub(crate) struct Published {
    /// Live clusters.
    pub(crate) clusters: HashMap<Arc<str>, Arc<Slot<Cluster>>>,
    /// Live listeners.
    pub(crate) listeners: HashMap<Arc<str>, Arc<Listener>>,
    /// The same by address.
    pub(crate) by_address: HashMap<Address, Arc<Listener>>,
    /// Statistics of local rate limits.
    pub(crate) rate_limits: Arc<Named<RateLimitStats>>,
    /// Statistics of routes with a `stat_prefix`.
    pub(crate) own_of_routes: Arc<Named<RouteStats>>,
}

/// The name of a resource.
pub(crate) type Name = Arc<str>;

/// The configuration.
#[derive(Debug, Default)]
pub(crate) struct Store {
    files: FileSecrets,
    names: Names,
    published: Arc<ArcSwap<Published>>,
    clusters: BTreeMap<Name, ClusterEntry>,
    listeners: BTreeMap<Name, ListenerEntry>,
    /// Endpoints by service name; `None`: the server has none with that name.
    endpoints: BTreeMap<Name, Option<Kept<Arc<Endpoints>>>>,
    /// The messages of the route tables in [`Names`].
    routes: BTreeMap<Name, Bytes>,
    /// Files with secrets, as last read.
    secret_files: HashMap<PathBuf, Reading>,
    /// What the next [`Store::settle`] has to look at.
    warming: Warming,
    /// Whether names that workers look up have changed.
    stale: bool,
    progress: Progress,
    ready: Arc<AtomicBool>,
}

/// A compiled resource with its message.
#[derive(Debug)]
struct Kept<T> {
    value: T,
    bytes: Bytes,
}

/// Resources that are not live yet.
#[derive(Debug, Default)]
struct Warming {
    clusters: BTreeSet<Name>,
    listeners: BTreeSet<Name>,
}

/// How far the start has come.
#[derive(Debug, Default)]
struct Progress {
    clusters_answered: bool,
    /// When waiting for clusters ends.
    clusters_until: Option<Instant>,
    /// Whether the first clusters are live, so that LDS may be subscribed to.
    clusters_warm: bool,
    listeners_answered: bool,
    /// The timeout for listeners, which starts once clusters are live, and when it ends.
    listeners_timeout: Option<Duration>,
    listeners_until: Option<Instant>,
}

impl Progress {
    /// Advances according to what is live and which timeouts have ended.
    fn go_on(&mut self, warming: &Warming, now: Instant) {
        let over = |until: Option<Instant>| until.is_some_and(|until| until <= now);
        self.clusters_answered |= over(self.clusters_until);
        let warm = self.clusters_answered && warming.clusters.is_empty();
        if warm && !self.clusters_warm {
            self.clusters_warm = true;
            self.listeners_until = self.listeners_timeout.and_then(|timeout| now.checked_add(timeout));
        }
        self.listeners_answered |= over(self.listeners_until);
    }

    fn is_done(&self, warming: &Warming) -> bool {
        self.listeners_answered && self.clusters_warm && warming.listeners.is_empty()
    }

    /// When the next timeout ends.
    fn wake_at(&self) -> Option<Instant> {
        match (self.clusters_answered, self.listeners_answered) {
            (false, _) => self.clusters_until,
            (true, false) => self.listeners_until,
            (true, true) => None,
        }
    }
}

/// Changes that concern the sockets.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    /// Listeners that have become live, or changed.
    pub(crate) live: Vec<Arc<Listener>>,
}

impl Store {
    /// An empty store for this node, which reaches xDS servers by these clusters.
    pub(crate) fn new(node: NodeNames, servers: HashSet<String>) -> Self {
        let mut store = Self::default();
        store.names.node = node;
        store.names.servers = Some(servers);
        store
    }

    /// What workers see.
    pub(crate) fn published(&self) -> Arc<ArcSwap<Published>> {
        self.published.clone()
    }

    /// Whether the first listeners are all live.
    pub(crate) fn readiness(&self) -> Arc<AtomicBool> {
        self.ready.clone()
    }

    /// Updates endpoints.
    ///
    /// # Errors
    /// Why they are refused.
    pub(crate) fn put_endpoints(&mut self, name: &str, bytes: Bytes, now: Instant) -> Compiled<()> {
        let value = Arc::new(config::endpoints::resource(name, &bytes)?);
        let kept = Some(Kept { value, bytes });
        self.endpoints.insert(name.into(), kept);
        self.endpoints_came(name, now);
        Ok(())
    }

    /// The server has no endpoints with this name. As in Envoy, earlier ones stay, and a warming cluster becomes live
    /// without.
    pub(crate) fn no_endpoints(&mut self, name: &str, now: Instant) {
        if !self.endpoints.contains_key(name) {
            self.endpoints.insert(name.into(), None);
            self.endpoints_came(name, now);
        }
    }

    /// Updates a route table.
    ///
    /// # Errors
    /// Why it is refused.
    pub(crate) fn put_routes(&mut self, name: &str, bytes: Bytes) -> Compiled<()> {
        let stats = self.names.stats.routes(name);
        let table = config::route::resource(name, &bytes, &mut self.names);
        let counter = if table.is_ok() { &stats.success } else { &stats.rejected };
        counter.fetch_add(1, Ordering::Relaxed);
        let table = table?;
        self.names.routes.of(name).set(Some(Arc::new(table)));
        self.routes.insert(name.into(), bytes);
        Ok(())
    }

    /// Counts an accepted update of routes.
    pub(crate) fn routes_came(&mut self, name: &str, version: &str) {
        self.names.stats.routes(name).last.now(version);
    }

    /// The first CDS response is complete.
    pub(crate) fn clusters_answered(&mut self) {
        self.progress.clusters_answered = true;
    }

    /// The first LDS response is complete.
    pub(crate) fn listeners_answered(&mut self) {
        self.progress.listeners_answered = true;
    }

    /// Adds the secrets and clusters of the bootstrap, and returns what is refused, each with its field.
    pub(crate) fn put_fixed(
        &mut self,
        secrets: &[(String, Bytes)],
        clusters: Vec<Bytes>,
        now: Instant,
    ) -> Vec<Refusal> {
        let mut refused = Vec::new();
        for (index, (name, secret)) in secrets.iter().enumerate() {
            let put = self.put_secret(&SecretSource::Bootstrap, name, secret);
            refused.extend(put.at_index("static_resources.secrets", index).err());
        }
        for (index, cluster) in clusters.into_iter().enumerate() {
            let put = self.put_cluster(cluster, true, now);
            refused.extend(put.at_index("static_resources.clusters", index).err());
        }
        refused
    }

    /// Starts the timeouts for the first responses.
    pub(crate) fn wait_for(&mut self, first: FirstAnswers, now: Instant) {
        self.progress.clusters_until = first.clusters.and_then(|timeout| now.checked_add(timeout));
        self.progress.listeners_timeout = first.listeners;
    }

    /// There is no ADS server to wait for.
    pub(crate) fn nothing_to_come(&mut self) {
        self.clusters_answered();
        self.listeners_answered();
    }

    /// Makes live what is warm, and publishes it.
    pub(crate) fn settle(&mut self, now: Instant) -> Changes {
        self.settle_clusters(now);
        let changes = self.settle_listeners(now);
        if std::mem::take(&mut self.stale) {
            self.publish();
        }
        self.progress.go_on(&self.warming, now);
        if self.progress.is_done(&self.warming) {
            self.ready.store(true, Ordering::Release);
        }
        changes
    }

    /// When [`Store::settle`] has to be called again even if nothing is received.
    pub(crate) fn wake_at(&self) -> Option<Instant> {
        let clusters = self.warming.clusters.iter();
        let clusters = clusters.filter_map(|name| self.clusters.get(name)?.deadline());
        let listeners = self.warming.listeners.iter();
        let listeners = listeners.filter_map(|name| self.listeners.get(name)?.deadline());
        clusters.chain(listeners).chain(self.progress.wake_at()).min()
    }

    fn publish(&self) {
        let listeners = self.listeners.values().filter_map(ListenerEntry::live);
        let clusters = self.clusters.iter().filter(|(_, entry)| entry.live().is_some());
        self.published.store(Arc::new(Published {
            rate_limits: self.names.stats.rate_limits.clone(),
            own_of_routes: self.names.stats.own_of_routes.clone(),
            clusters: clusters
                .map(|(name, entry)| (name.clone(), entry.slot().clone()))
                .collect(),
            listeners: listeners.clone().map(|one| (one.name.clone(), one.clone())).collect(),
            by_address: listeners
                .flat_map(|listener| listener.addresses.iter().map(move |one| (&one.address, listener)))
                .map(|(address, listener)| (address.clone(), listener.clone()))
                .collect(),
        }));
    }

    /// The messages of live and warming resources, for a dump or for saving.
    pub(crate) fn messages(&self, kind: ResourceType) -> Vec<(&Name, &Bytes)> {
        match kind {
            ResourceType::Cluster => self
                .clusters
                .iter()
                .map(|(name, entry)| (name, entry.bytes()))
                .collect(),
            ResourceType::Listener => self
                .listeners
                .iter()
                .map(|(name, entry)| (name, entry.bytes()))
                .collect(),
            ResourceType::Route => self.routes.iter().collect(),
            ResourceType::Endpoints => {
                let kept = self.endpoints.iter();
                kept.filter_map(|(name, kept)| Some((name, &kept.as_ref()?.bytes)))
                    .collect()
            }
            // Never kept, as they contain keys.
            ResourceType::Secret => Vec::new(),
        }
    }
}
