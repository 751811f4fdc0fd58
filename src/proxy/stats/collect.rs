//! Collecting all statistics.

use std::collections::HashSet;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, PoisonError};
use std::time::Instant;

use super::{Kind, Scribe, ServerStats, Snapshot, UpdateStats};
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
    let mut scribe = Scribe::default();
    self::server(&mut scribe, published, server, state, now);
    objects(&mut scribe, published);
    scribe.snapshot.sort();
    scribe.snapshot
}

/// Resets all counters.
pub(crate) fn reset(published: &Published, server: &ServerStats) {
    let mut scribe = Scribe {
        reset: true,
        ..Scribe::default()
    };
    self::server(&mut scribe, published, server, State::Live, Instant::now());
    objects(&mut scribe, published);
}

/// Collects the statistics of clusters, listeners and connection managers.
fn objects(scribe: &mut Scribe, published: &Published) {
    for slot in published.clusters.values() {
        if let Some(cluster) = slot.take() {
            scribe.scope(format!("cluster.{}.", colons(&cluster.config.stat_name)));
            scribe.cluster(&cluster);
        }
    }
    if let Some(tracer) = tracer(published) {
        scribe.scope("tracing.opentelemetry.");
        scribe.tracer(&tracer.stats);
    }
    for (prefix, stats) in &*published.rate_limits.all() {
        scribe.scope(format!("{}.http_local_rate_limit.", colons(prefix)));
        scribe.rate_limit(stats);
    }
    for (name, stats) in &*published.own_of_routes.all() {
        scribe.scope(format!("{name}."));
        scribe.route(stats);
    }
    let (mut prefixes, mut tables) = (HashSet::new(), HashSet::new());
    for listener in published.listeners.values() {
        scribe.scope(format!("listener.{}.", colons(&listener.stat_prefix)));
        scribe.listener(&listener.stats);
        if let Some(protocol) = &listener.inspection.proxy_protocol
            && prefixes.insert(("proxy_proto", protocol.prefix.clone()))
        {
            let dot = if protocol.prefix.is_empty() { "" } else { "." };
            scribe.scope(format!("proxy_proto.{}{dot}", protocol.prefix));
            scribe.proxy_protocol(&protocol.stats);
        }
        let mut of_listener = HashSet::new();
        for chain in listener.filter_chains() {
            match &chain.network {
                NetworkFilter::Http(manager) => {
                    if let Some(updates) = &manager.route_updates
                        && tables.insert((manager.stat_prefix.clone(), manager.routes.name().clone()))
                    {
                        routes(scribe, manager, updates);
                    }
                    if of_listener.insert(&manager.stat_prefix) {
                        let at = colons(&listener.stat_prefix);
                        scribe.scope(format!("listener.{at}.http.{}.", manager.stat_prefix));
                        scribe.downstream_classes(&manager.rq_class_of_listener);
                    }
                    if prefixes.insert(("http", manager.stat_prefix.clone())) {
                        scribe.scope(format!("http.{}.", manager.stat_prefix));
                        scribe.http(&manager.stats);
                    }
                }
                NetworkFilter::Tcp(proxy) => {
                    if prefixes.insert(("tcp", proxy.stat_prefix.clone())) {
                        scribe.scope(format!("tcp.{}.", colons(&proxy.stat_prefix)));
                        scribe.tcp(&proxy.stats);
                    }
                }
            }
        }
    }
}

/// Collects the statistics of a connection manager's RDS subscription.
fn routes(scribe: &mut Scribe, manager: &HttpManager, updates: &UpdateStats) {
    let name = colons(manager.routes.name());
    scribe.scope(format!("http.{}.rds.{name}.", manager.stat_prefix));
    scribe.updates(updates);
    scribe.reloads(updates);
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

fn server(scribe: &mut Scribe, published: &Published, server: &ServerStats, state: State, now: Instant) {
    let gauge = |scribe: &mut Scribe, name: &str, value: u64| scribe.add(name, Kind::Gauge, value);
    scribe.scope("server.");
    gauge(scribe, "live", u64::from(state == State::Live));
    gauge(
        scribe,
        "state",
        match state {
            State::Live => 0,
            State::Draining => 1,
            State::Initializing => 3,
        },
    );
    gauge(
        scribe,
        "uptime",
        now.saturating_duration_since(server.started).as_secs(),
    );
    gauge(scribe, "concurrency", server.concurrency);
    gauge(scribe, "hot_restart_epoch", 0);
    gauge(scribe, "parent_connections", 0);
    let days = crate::proxy::admin::days_left(published);
    gauge(scribe, "days_until_first_cert_expiring", days);
    gauge(scribe, "version", version());
    let connections = published
        .listeners
        .values()
        .map(|one: &Arc<Listener>| one.stats.cx_active.load(Relaxed));
    gauge(scribe, "total_connections", connections.sum());
    let memory = super::memory::read();
    gauge(scribe, "memory_allocated", memory.allocated);
    gauge(scribe, "memory_heap_size", memory.heap);
    gauge(scribe, "memory_physical_size", memory.resident);
    scribe.scope("control_plane.");
    gauge(scribe, "connected_state", server.connected.load(Relaxed).into());
    scribe.scope("cluster_manager.");
    gauge(scribe, "active_clusters", published.clusters.len() as u64);
    gauge(scribe, "warming_clusters", server.clusters.warming.load(Relaxed));
    scribe.manager("cluster", "cds", &server.clusters);
    scribe.scope("listener_manager.");
    gauge(scribe, "total_listeners_active", published.listeners.len() as u64);
    gauge(
        scribe,
        "total_listeners_warming",
        server.listeners.warming.load(Relaxed),
    );
    gauge(scribe, "workers_started", 1);
    scribe.manager("listener", "lds", &server.listeners);
    for (name, updates) in &*server.secrets.lock().unwrap_or_else(PoisonError::into_inner) {
        scribe.scope(format!("sds.{}.", colons(name)));
        scribe.updates(updates);
    }
    scribe.scope("access_logs.");
    let dropped = crate::proxy::access_log::Sink::dropped();
    scribe.add("logs_dropped", Kind::Counter, dropped);
}

/// The version as a number; Envoy shows its build's commit here.
fn version() -> u64 {
    let parts = env!("CARGO_PKG_VERSION").split('.');
    parts.fold(0, |version, part| version << 8 | part.parse::<u64>().unwrap_or(0))
}
