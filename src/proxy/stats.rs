//! Statistics by Envoy's names.
//!
//! What counts is plain atomics in the objects that are counted ([`ClusterStats`](super::upstream::cluster::ClusterStats)
//! and the like): a request adds to them and looks nothing up. Names are made when somebody asks, from what is in
//! force; so statistics of what is gone are gone.

pub(crate) mod codes;
pub(crate) mod collect;
pub(crate) mod grpc;
pub(crate) mod histogram;
pub(crate) mod memory;
pub(crate) mod naming;
pub(crate) mod prometheus;
mod scopes;
pub(crate) mod text;

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Instant, SystemTime};

use xxhash_rust::xxh64::xxh64;

use super::http::HttpStats;
use super::http::filter::local_rate_limit::RateLimitStats;
use super::http::route::RouteStats;
use super::listener::proxy_protocol::ProxyProtocolStats;
use super::tcp::TcpStats;
use codes::Classes;
use histogram::Distribution;

/// Everything that is counted, as it is now; sorted by name.
#[derive(Clone, Debug, Default)]
pub(crate) struct Snapshot {
    /// Counters and gauges.
    pub(crate) metrics: Vec<Metric>,
    /// Histograms.
    pub(crate) histograms: Vec<(String, Distribution)>,
}

/// A number with a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Metric {
    /// Envoy's name, with the names of clusters and the like in it.
    pub(crate) name: String,
    /// Whether it only grows.
    pub(crate) kind: Kind,
    /// Its value.
    pub(crate) value: u64,
}

/// Whether a number only grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// It does.
    Counter,
    /// It does not.
    Gauge,
}

impl Snapshot {
    /// Leaves only what has this property.
    pub(crate) fn retain(&mut self, keep: impl Fn(&str) -> bool) {
        self.metrics.retain(|metric| keep(&metric.name));
        self.histograms.retain(|(name, _)| keep(name));
    }

    /// Leaves only what has been counted since the start.
    pub(crate) fn retain_used(&mut self) {
        self.metrics.retain(|metric| metric.value > 0);
        self.histograms.retain(|(_, distribution)| !distribution.is_empty());
    }

    fn sort(&mut self) {
        self.metrics.sort_by(|a, b| a.name.cmp(&b.name));
        self.histograms.sort_by(|(a, _), (b, _)| a.cmp(b));
    }
}

/// Writes down the numbers of one thing after the other.
#[derive(Debug, Default)]
pub(crate) struct Scribe {
    prefix: String,
    snapshot: Snapshot,
    /// Counters start from zero once they are read.
    reset: bool,
}

impl Scribe {
    /// From now on names begin with this.
    fn scope(&mut self, prefix: impl Into<String>) {
        self.prefix = prefix.into();
    }

    fn add(&mut self, name: &str, kind: Kind, value: u64) {
        let name = format!("{}{name}", self.prefix);
        self.snapshot.metrics.push(Metric { name, kind, value });
    }

    fn counter(&mut self, name: &str, value: &AtomicU64) {
        let value = if self.reset {
            value.swap(0, Relaxed)
        } else {
            value.load(Relaxed)
        };
        self.add(name, Kind::Counter, value);
    }

    fn gauge(&mut self, name: &str, value: &AtomicU64) {
        self.add(name, Kind::Gauge, value.load(Relaxed));
    }

    fn histogram(&mut self, name: &str, value: &histogram::Histogram) {
        self.distribution(name, value.distribution());
    }

    fn distribution(&mut self, name: &str, value: Distribution) {
        let name = format!("{}{name}", self.prefix);
        self.snapshot.histograms.push((name, value));
    }
}

/// The statistics of connection managers and TCP proxies: all of one prefix count together, and what they counted
/// outlives a change of their listener.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    http: HashMap<Arc<str>, Arc<HttpStats>>,
    listener_http: HashMap<Arc<str>, Arc<Classes>>,
    tcp: HashMap<Arc<str>, Arc<TcpStats>>,
    routes: HashMap<Arc<str>, Arc<UpdateStats>>,
    proxy_protocol: HashMap<Arc<str>, Arc<ProxyProtocolStats>>,
    /// Those of local rate limits, by prefix.
    pub(crate) rate_limits: Arc<Named<RateLimitStats>>,
    /// Those of routes that have some: `vhost.<name>.route.<stat_prefix>`.
    pub(crate) own_of_routes: Arc<Named<RouteStats>>,
}

/// Statistics by name of what routes have, so that whoever shows statistics does not find them by what is in force, but
/// here. Only who answers for the configuration and who shows them takes the lock.
#[derive(Debug)]
pub(crate) struct Named<T>(Mutex<HashMap<Arc<str>, Arc<T>>>);

impl<T> Default for Named<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T: Default> Named<T> {
    /// Those of a name.
    pub(crate) fn of(&self, name: &str) -> Arc<T> {
        of(&mut self.all(), name)
    }

    fn all(&self) -> MutexGuard<'_, HashMap<Arc<str>, Arc<T>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn sweep(&self) {
        self.all().retain(|_, stats| Arc::strong_count(stats) > 1);
    }
}

/// What is counted of a resource that the control plane sends.
#[derive(Debug, Default)]
pub(crate) struct UpdateStats {
    /// `update_success`.
    pub(crate) success: AtomicU64,
    /// `update_rejected`.
    pub(crate) rejected: AtomicU64,
    /// The last one that was taken.
    pub(crate) last: LastUpdate,
}

/// When something was last taken from the control plane, and in which version.
#[derive(Debug, Default)]
pub(crate) struct LastUpdate {
    /// `update_time`: milliseconds since 1970.
    pub(crate) time: AtomicU64,
    /// `version`: the hash of the version's name.
    pub(crate) version: AtomicU64,
}

impl LastUpdate {
    /// It was now.
    pub(crate) fn now(&self, version: &str) {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let since = since.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX));
        self.time.store(since, Relaxed);
        self.version.store(xxh64(version.as_bytes(), 0), Relaxed);
    }
}

impl Shared {
    /// The statistics of a connection manager's prefix.
    pub(crate) fn http(&mut self, prefix: &str) -> Arc<HttpStats> {
        of(&mut self.http, prefix)
    }

    /// What is counted of a connection manager's prefix at a listener alone, which has this one.
    pub(crate) fn listener_http(&mut self, listener: &str, prefix: &str) -> Arc<Classes> {
        of(&mut self.listener_http, &format!("{listener}.http.{prefix}"))
    }

    /// The statistics of a TCP proxy's prefix.
    pub(crate) fn tcp(&mut self, prefix: &str) -> Arc<TcpStats> {
        of(&mut self.tcp, prefix)
    }

    /// The statistics of the PROXY protocol's prefix.
    pub(crate) fn proxy_protocol(&mut self, prefix: &str) -> Arc<ProxyProtocolStats> {
        of(&mut self.proxy_protocol, prefix)
    }

    /// The statistics of a route table of RDS.
    pub(crate) fn routes(&mut self, name: &str) -> Arc<UpdateStats> {
        of(&mut self.routes, name)
    }

    /// Forgets what nothing counts in any more.
    pub(crate) fn sweep(&mut self) {
        self.routes.retain(|_, stats| Arc::strong_count(stats) > 1);
        self.tcp.retain(|_, stats| Arc::strong_count(stats) > 1);
        self.http.retain(|_, stats| Arc::strong_count(stats) > 1);
        self.listener_http.retain(|_, stats| Arc::strong_count(stats) > 1);
        self.proxy_protocol.retain(|_, stats| Arc::strong_count(stats) > 1);
        self.rate_limits.sweep();
        self.own_of_routes.sweep();
    }
}

/// The statistics of a name, made if there are none.
fn of<T: Default>(all: &mut HashMap<Arc<str>, Arc<T>>, name: &str) -> Arc<T> {
    if let Some(stats) = all.get(name) {
        return stats.clone();
    }
    let stats = Arc::<T>::default();
    all.insert(name.into(), stats.clone());
    stats
}

/// What is counted of the process as a whole.
#[derive(Debug)]
pub(crate) struct ServerStats {
    /// When it started.
    pub(crate) started: Instant,
    /// `server.concurrency`.
    pub(crate) concurrency: u64,
    /// `control_plane.connected_state`.
    pub(crate) connected: AtomicBool,
    /// `cluster_manager.cds.*` and `cluster_manager.cluster_*`.
    pub(crate) clusters: ManagerStats,
    /// `listener_manager.lds.*` and `listener_manager.listener_*`.
    pub(crate) listeners: ManagerStats,
    /// `sds.<name>.*`. Only who answers for the configuration counts here.
    pub(crate) secrets: Mutex<BTreeMap<Arc<str>, UpdateStats>>,
}

/// What is counted of clusters, or of listeners, as a whole.
#[derive(Debug, Default)]
pub(crate) struct ManagerStats {
    /// `update_attempt`.
    pub(crate) update_attempt: AtomicU64,
    /// `update_success`.
    pub(crate) update_success: AtomicU64,
    /// `update_rejected`.
    pub(crate) update_rejected: AtomicU64,
    /// The last one that was taken.
    pub(crate) last: LastUpdate,
    /// `update_failure`: the stream could not be opened, or broke.
    pub(crate) update_failure: AtomicU64,
    /// `cluster_added`, `listener_added`.
    pub(crate) added: AtomicU64,
    /// `cluster_modified`, `listener_modified`.
    pub(crate) modified: AtomicU64,
    /// `cluster_removed`, `listener_removed`.
    pub(crate) removed: AtomicU64,
    /// `warming_clusters`, `total_listeners_warming`.
    pub(crate) warming: AtomicU64,
}

impl ServerStats {
    /// Counts a secret that came.
    pub(crate) fn secret_came(&self, name: &Arc<str>, version: &str, taken: bool) {
        let mut secrets = self.secrets.lock().unwrap_or_else(PoisonError::into_inner);
        let stats = secrets.entry(name.clone()).or_default();
        if taken {
            stats.success.fetch_add(1, Relaxed);
            stats.last.now(version);
        } else {
            stats.rejected.fetch_add(1, Relaxed);
        }
    }

    /// Nothing is counted yet.
    pub(crate) fn new(started: Instant, concurrency: u64) -> Self {
        Self {
            started,
            concurrency,
            connected: AtomicBool::new(false),
            clusters: ManagerStats::default(),
            listeners: ManagerStats::default(),
            secrets: Mutex::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_counts_on_over_a_change_and_is_forgotten_with_the_last_that_counts() {
        let mut shared = Shared::default();
        let before = shared.tcp("a");
        before.cx_total.store(3, Relaxed);
        let after = shared.tcp("a");
        drop(before);
        shared.sweep();
        assert_eq!(shared.tcp("a").cx_total.load(Relaxed), 3);
        drop(after);
        shared.sweep();
        assert_eq!(shared.tcp("a").cx_total.load(Relaxed), 0);
    }
}
