//! Collecting all statistics.

use std::collections::HashSet;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, PoisonError};
use std::time::Instant;

use super::{Collector, Kind, ServerStats, Snapshot, UpdateStats};
use crate::proxy::http::HttpManager;
use crate::proxy::listener::{Listener, NetworkFilter};
use crate::proxy::store::Published;
use crate::proxy::trace::Tracer;

/// `server.state`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// It serves.
    Live,
    /// `/healthcheck/fail` was called.
    Draining,
    /// The first configuration has not been received yet.
    Initializing,
}

/// Everything in force, under Envoy's names.
pub(crate) fn collect(published: &Published, server: &ServerStats, state: State, now: Instant) -> Snapshot {
    let mut collector = Collector::default();
    self::server(&mut collector, published, server, state, now);
    objects(&mut collector, published);
    collector.snapshot.sort();
    collector.snapshot
}

/// Resets all counters.
pub(crate) fn reset(published: &Published, server: &ServerStats) {
    let mut collector = Collector {
        reset: true,
        ..Collector::default()
    };
    self::server(&mut collector, published, server, State::Live, Instant::now());
    objects(&mut collector, published);
}

/// Collects the statistics of clusters, listeners and connection managers.
fn objects(collector: &mut Collector, published: &Published) {
    for slot in published.clusters.values() {
        if let Some(cluster) = slot.load_full() {
            collector.scope(format!("cluster.{}.", colons(&cluster.config.stat_name)));
            collector.cluster(&cluster);
        }
    }
    if let Some(tracer) = tracer(published) {
        collector.scope("tracing.opentelemetry.");
        collector.tracer(&tracer.stats);
    }
    for (prefix, stats) in &*published.rate_limits.all() {
        collector.scope(format!("{}.http_local_rate_limit.", colons(prefix)));
        collector.rate_limit(stats);
    }
    for (name, stats) in &*published.own_of_routes.all() {
        collector.scope(format!("{name}."));
        collector.route(stats);
    }
    let (mut prefixes, mut tables) = (HashSet::new(), HashSet::new());
    for listener in published.listeners.values() {
        collector.scope(format!("listener.{}.", colons(&listener.stat_prefix)));
        collector.listener(&listener.stats);
        if let Some(protocol) = &listener.inspection.proxy_protocol
            && prefixes.insert(("proxy_proto", protocol.prefix.clone()))
        {
            let dot = if protocol.prefix.is_empty() { "" } else { "." };
            collector.scope(format!("proxy_proto.{}{dot}", protocol.prefix));
            collector.proxy_protocol(&protocol.stats);
        }
        let mut of_listener = HashSet::new();
        for chain in listener.filter_chains() {
            match &chain.network {
                NetworkFilter::Http(manager) => {
                    if let Some(updates) = &manager.route_updates
                        && tables.insert((manager.stat_prefix.clone(), manager.routes.name().clone()))
                    {
                        routes(collector, manager, updates);
                    }
                    if of_listener.insert(&manager.stat_prefix) {
                        let at = colons(&listener.stat_prefix);
                        collector.scope(format!("listener.{at}.http.{}.", manager.stat_prefix));
                        collector.downstream_classes(&manager.rq_class_of_listener);
                    }
                    if prefixes.insert(("http", manager.stat_prefix.clone())) {
                        collector.scope(format!("http.{}.", manager.stat_prefix));
                        collector.http(&manager.stats);
                    }
                }
                NetworkFilter::Tcp(proxy) => {
                    if prefixes.insert(("tcp", proxy.stat_prefix.clone())) {
                        collector.scope(format!("tcp.{}.", colons(&proxy.stat_prefix)));
                        collector.tcp(&proxy.stats);
                    }
                }
            }
        }
    }
}

/// Collects the statistics of a connection manager's RDS subscription.
fn routes(collector: &mut Collector, manager: &HttpManager, updates: &UpdateStats) {
    let name = colons(manager.routes.name());
    collector.scope(format!("http.{}.rds.{name}.", manager.stat_prefix));
    collector.updates(updates);
    collector.reloads(updates);
}

/// Any of the tracers, as all share their statistics.
fn tracer(published: &Published) -> Option<&Arc<Tracer>> {
    let mut managers = published.listeners.values().flat_map(|one| one.managers());
    managers.find_map(|manager| manager.tracing.as_ref()?.tracer.as_ref())
}

/// Envoy replaces colons in names of statistics.
fn colons(name: &str) -> String {
    name.replace(':', "_")
}

fn server(collector: &mut Collector, published: &Published, server: &ServerStats, state: State, now: Instant) {
    let gauge = |collector: &mut Collector, name: &str, value: u64| collector.add(name, Kind::Gauge, value);
    collector.scope("server.");
    gauge(collector, "live", u64::from(state == State::Live));
    gauge(
        collector,
        "state",
        match state {
            State::Live => 0,
            State::Draining => 1,
            State::Initializing => 3,
        },
    );
    gauge(
        collector,
        "uptime",
        now.saturating_duration_since(server.started).as_secs(),
    );
    gauge(collector, "concurrency", server.concurrency);
    gauge(collector, "hot_restart_epoch", 0);
    gauge(collector, "parent_connections", 0);
    let days = crate::proxy::admin::days_left(published);
    gauge(collector, "days_until_first_cert_expiring", days);
    gauge(collector, "version", version());
    let connections = published
        .listeners
        .values()
        .map(|one: &Arc<Listener>| one.stats.cx_active.load(Relaxed));
    gauge(collector, "total_connections", connections.sum());
    let memory = super::memory::read();
    gauge(collector, "memory_allocated", memory.allocated);
    gauge(collector, "memory_heap_size", memory.heap);
    gauge(collector, "memory_physical_size", memory.resident);
    collector.scope("control_plane.");
    gauge(collector, "connected_state", server.connected.load(Relaxed).into());
    collector.scope("cluster_manager.");
    gauge(collector, "active_clusters", published.clusters.len() as u64);
    gauge(collector, "warming_clusters", server.clusters.warming.load(Relaxed));
    collector.manager("cluster", "cds", &server.clusters);
    collector.scope("listener_manager.");
    gauge(collector, "total_listeners_active", published.listeners.len() as u64);
    gauge(
        collector,
        "total_listeners_warming",
        server.listeners.warming.load(Relaxed),
    );
    gauge(collector, "workers_started", 1);
    collector.manager("listener", "lds", &server.listeners);
    for (name, updates) in &*server.secrets.lock().unwrap_or_else(PoisonError::into_inner) {
        collector.scope(format!("sds.{}.", colons(name)));
        collector.updates(updates);
    }
    collector.scope("access_logs.");
    let dropped = crate::proxy::access_log::Sink::dropped();
    collector.add("logs_dropped", Kind::Counter, dropped);
}

/// The version as a number; Envoy shows its build's commit here.
fn version() -> u64 {
    let parts = env!("CARGO_PKG_VERSION").split('.');
    parts.fold(0, |version, part| version << 8 | part.parse::<u64>().unwrap_or(0))
}
