//! Statistics by Envoy's names.
//!
//! Counters are plain atomics in the objects they belong to ([`ClusterStats`](super::upstream::cluster::ClusterStats)
//! and the like), so that a request looks nothing up. Names are made when statistics are shown, from the configuration
//! in force; statistics of removed objects are gone.

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

/// All statistics at one moment, sorted by name.
#[derive(Clone, Debug, Default)]
pub(crate) struct Snapshot {
    /// Counters and gauges.
    pub(crate) metrics: Vec<Metric>,
    /// Histograms.
    pub(crate) histograms: Vec<(String, Distribution)>,
}

/// A counter or gauge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Metric {
    /// Envoy's name, with the names of clusters and the like in it.
    pub(crate) name: String,
    /// Counter or gauge.
    pub(crate) kind: Kind,
    /// Its value.
    pub(crate) value: u64,
}

/// Kinds of metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// It only grows.
    Counter,
    /// It may fall.
    Gauge,
}

impl Snapshot {
    /// Keeps the statistics whose names `keep` accepts.
    pub(crate) fn retain(&mut self, keep: impl Fn(&str) -> bool) {
        self.metrics.retain(|metric| keep(&metric.name));
        self.histograms.retain(|(name, _)| keep(name));
    }

    /// Keeps the counters or the gauges; without a kind, nothing.
    pub(crate) fn retain_kind(&mut self, kind: Option<Kind>) {
        self.metrics.retain(|metric| Some(metric.kind) == kind);
        self.histograms.clear();
    }

    /// Keeps the statistics that have been used.
    pub(crate) fn retain_used(&mut self) {
        self.metrics.retain(|metric| metric.value > 0);
        self.histograms.retain(|(_, distribution)| !distribution.is_empty());
    }

    fn sort(&mut self) {
        self.metrics.sort_by(|a, b| a.name.cmp(&b.name));
        self.histograms.sort_by(|(a, _), (b, _)| a.cmp(b));
    }
}

/// Collects statistics into a snapshot.
#[derive(Debug, Default)]
pub(crate) struct Collector {
    prefix: String,
    snapshot: Snapshot,
    /// Whether counters are reset when read.
    reset: bool,
}

impl Collector {
    /// Sets the prefix of the following names.
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

/// Statistics that objects share by prefix, such as those of connection managers and TCP proxies. They outlive changes
/// of the listener.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    http: HashMap<Arc<str>, Arc<HttpStats>>,
    listener_http: HashMap<Arc<str>, Arc<Classes>>,
    tcp: HashMap<Arc<str>, Arc<TcpStats>>,
    routes: HashMap<Arc<str>, Arc<UpdateStats>>,
    proxy_protocol: HashMap<Arc<str>, Arc<ProxyProtocolStats>>,
    /// Statistics of local rate limits, by prefix.
    pub(crate) rate_limits: Arc<Named<RateLimitStats>>,
    /// Statistics of routes with a `stat_prefix`: `vhost.<name>.route.<stat_prefix>`.
    pub(crate) own_of_routes: Arc<Named<RouteStats>>,
}

/// Statistics of route-level objects by name: they are found here, instead of by walking all routes. Only the control
/// thread takes the lock.
#[derive(Debug)]
pub(crate) struct Named<T>(Mutex<HashMap<Arc<str>, Arc<T>>>);

impl<T> Default for Named<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T: Default> Named<T> {
    /// Those with this name; created if there are none.
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

/// Statistics of an xDS subscription.
#[derive(Debug, Default)]
pub(crate) struct UpdateStats {
    /// `update_success`.
    pub(crate) success: AtomicU64,
    /// `update_rejected`.
    pub(crate) rejected: AtomicU64,
    /// The last accepted update.
    pub(crate) last: LastUpdate,
}

/// Time and version of the last accepted update.
#[derive(Debug, Default)]
pub(crate) struct LastUpdate {
    /// `update_time`: milliseconds since 1970.
    pub(crate) time: AtomicU64,
    /// `version`: a hash of the version.
    pub(crate) version: AtomicU64,
}

impl LastUpdate {
    /// Records an update.
    pub(crate) fn now(&self, version: &str) {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let since = since.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX));
        self.time.store(since, Relaxed);
        self.version.store(xxh64(version.as_bytes(), 0), Relaxed);
    }
}

impl Shared {
    /// Statistics of a connection manager's prefix.
    pub(crate) fn http(&mut self, prefix: &str) -> Arc<HttpStats> {
        of(&mut self.http, prefix)
    }

    /// Statistics of a connection manager's prefix at one listener.
    pub(crate) fn listener_http(&mut self, listener: &str, prefix: &str) -> Arc<Classes> {
        of(&mut self.listener_http, &format!("{listener}.http.{prefix}"))
    }

    /// Statistics of a TCP proxy's prefix.
    pub(crate) fn tcp(&mut self, prefix: &str) -> Arc<TcpStats> {
        of(&mut self.tcp, prefix)
    }

    /// Statistics of a PROXY protocol filter's prefix.
    pub(crate) fn proxy_protocol(&mut self, prefix: &str) -> Arc<ProxyProtocolStats> {
        of(&mut self.proxy_protocol, prefix)
    }

    /// Statistics of an RDS route table.
    pub(crate) fn routes(&mut self, name: &str) -> Arc<UpdateStats> {
        of(&mut self.routes, name)
    }

    /// Drops statistics that nothing uses any more.
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

/// The statistics with this name; created if there are none.
fn of<T: Default>(all: &mut HashMap<Arc<str>, Arc<T>>, name: &str) -> Arc<T> {
    if let Some(stats) = all.get(name) {
        return stats.clone();
    }
    let stats = Arc::<T>::default();
    all.insert(name.into(), stats.clone());
    stats
}

/// Statistics of the process.
#[derive(Debug)]
pub(crate) struct ServerStats {
    /// The time of the start.
    pub(crate) started: Instant,
    /// `server.concurrency`.
    pub(crate) concurrency: u64,
    /// `control_plane.connected_state`.
    pub(crate) connected: AtomicBool,
    /// `cluster_manager.cds.*` and `cluster_manager.cluster_*`.
    pub(crate) clusters: ManagerStats,
    /// `listener_manager.lds.*` and `listener_manager.listener_*`.
    pub(crate) listeners: ManagerStats,
    /// `sds.<name>.*`. Only the control thread takes the lock.
    pub(crate) secrets: Mutex<BTreeMap<Arc<str>, UpdateStats>>,
}

/// Statistics of all clusters, or all listeners.
#[derive(Debug, Default)]
pub(crate) struct ManagerStats {
    /// `update_attempt`.
    pub(crate) update_attempt: AtomicU64,
    /// `update_success`.
    pub(crate) update_success: AtomicU64,
    /// `update_rejected`.
    pub(crate) update_rejected: AtomicU64,
    /// The last accepted update.
    pub(crate) last: LastUpdate,
    /// `update_failure`: the stream failed.
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
    /// Counts an update of a secret.
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

    /// For a process that starts now; all zero.
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
