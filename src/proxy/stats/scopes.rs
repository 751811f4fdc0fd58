//! The statistics of each kind of object, by Envoy's names.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering::Relaxed;

use super::codes::Classes;
use super::grpc::GrpcStats;
use super::{Collector, Kind, LastUpdate, ManagerStats, UpdateStats};
use crate::proxy::http::HttpStats;
use crate::proxy::http::filter::local_rate_limit::RateLimitStats;
use crate::proxy::http::route::RouteStats;
use crate::proxy::io::metered::{ByteStats, Closings};
use crate::proxy::listener::ListenerStats;
use crate::proxy::listener::proxy_protocol::ProxyProtocolStats;
use crate::proxy::tcp::TcpStats;
use crate::proxy::tls::TlsStats;
use crate::proxy::trace::TracerStats;
use crate::proxy::upstream::breaker::{Breaker, Limit};
use crate::proxy::upstream::cluster::{Answers, Cluster, ClusterStats, Discovery};
use crate::proxy::upstream::health_check::HealthCheckStats;
use crate::proxy::upstream::host::HostSet;

/// Envoy's counter names of status classes.
const CLASSES: [&str; 5] = ["rq_1xx", "rq_2xx", "rq_3xx", "rq_4xx", "rq_5xx"];

impl Collector {
    /// `http.<prefix>.`
    pub(super) fn http(&mut self, stats: &HttpStats) {
        self.counter("downstream_cx_total", &stats.cx_total);
        self.gauge("downstream_cx_active", &stats.cx_active);
        self.closings("downstream_cx_destroy", "", &stats.cx_destroy);
        self.closings("downstream_cx_destroy", "_active_rq", &stats.cx_destroy_active_rq);
        self.bytes("downstream_cx", &stats.bytes);
        self.histogram("downstream_cx_length_ms", &stats.cx_length);
        self.counter("downstream_cx_ssl_total", &stats.cx_ssl_total);
        self.gauge("downstream_cx_ssl_active", &stats.cx_ssl_active);
        self.counter("downstream_cx_http1_total", &stats.cx_http1_total);
        self.gauge("downstream_cx_http1_active", &stats.cx_http1_active);
        self.counter("downstream_cx_http2_total", &stats.cx_http2_total);
        self.gauge("downstream_cx_http2_active", &stats.cx_http2_active);
        self.counter("downstream_cx_protocol_error", &stats.protocol_error);
        self.counter("downstream_rq_total", &stats.rq_total);
        self.counter("downstream_rq_ws_on_non_ws_route", &stats.rq_ws_on_non_ws_route);
        self.gauge("downstream_rq_active", &stats.rq_active);
        self.downstream_classes(&stats.rq_class);
        let tracing = &stats.tracing;
        self.counter("tracing.random_sampling", &tracing.random_sampling);
        self.counter("tracing.service_forced", &tracing.service_forced);
        self.counter("tracing.client_enabled", &tracing.client_enabled);
        self.counter("tracing.not_traceable", &tracing.not_traceable);
        // Health checks are answered before the decision.
        self.add("tracing.health_check", Kind::Counter, 0);
        self.counter("fault.aborts_injected", &stats.aborts_injected);
        self.counter("fault.delays_injected", &stats.delays_injected);
        self.counter("downstream_rq_http1_total", &stats.rq_http1_total);
        self.counter("downstream_rq_http2_total", &stats.rq_http2_total);
        self.counter("downstream_rq_rx_reset", &stats.rq_rx_reset);
        self.counter("downstream_rq_max_duration_reached", &stats.rq_max_duration);
        self.counter("rq_total", &stats.routed);
        self.counter("rq_direct_response", &stats.direct_response);
        self.counter("rq_redirect", &stats.redirect);
        self.counter("no_route", &stats.no_route);
        self.counter("no_cluster", &stats.no_cluster);
        self.histogram("downstream_rq_time", &stats.rq_time);
    }

    /// `http.<prefix>.` or `listener.<address>.http.<prefix>.`
    pub(super) fn downstream_classes(&mut self, classes: &Classes) {
        self.classes("downstream_", classes.counted());
        if self.reset {
            classes.reset();
        }
    }

    /// Closed connections: all, those closed by us, and those closed by the peer.
    fn closings(&mut self, prefix: &str, suffix: &str, closings: &Closings) {
        let all = closings.local.load(Relaxed) + closings.remote.load(Relaxed);
        self.add(&format!("{prefix}{suffix}"), Kind::Counter, all);
        self.counter(&format!("{prefix}_local{suffix}"), &closings.local);
        self.counter(&format!("{prefix}_remote{suffix}"), &closings.remote);
    }

    fn bytes(&mut self, prefix: &str, bytes: &ByteStats) {
        self.counter(&format!("{prefix}_rx_bytes_total"), &bytes.rx_total);
        self.gauge(&format!("{prefix}_rx_bytes_buffered"), &bytes.rx_buffered);
        self.counter(&format!("{prefix}_tx_bytes_total"), &bytes.tx_total);
        self.gauge(&format!("{prefix}_tx_bytes_buffered"), &bytes.tx_buffered);
    }

    /// `http.<prefix>.rds.<name>.` or `sds.<name>.`
    pub(super) fn updates(&mut self, stats: &UpdateStats) {
        let (success, rejected) = (stats.success.load(Relaxed), stats.rejected.load(Relaxed));
        self.add("update_attempt", Kind::Counter, success + rejected);
        self.last_update("", &stats.last);
        self.counter("update_success", &stats.success);
        self.counter("update_rejected", &stats.rejected);
    }

    fn last_update(&mut self, prefix: &str, last: &LastUpdate) {
        self.gauge(&format!("{prefix}update_time"), &last.time);
        self.gauge(&format!("{prefix}version"), &last.version);
    }

    /// `http.<prefix>.rds.<name>.`, beside [`Collector::updates`].
    pub(super) fn reloads(&mut self, stats: &UpdateStats) {
        self.add("config_reload", Kind::Counter, stats.success.load(Relaxed));
        self.gauge("config_reload_time_ms", &stats.last.time);
    }

    /// `tracing.opentelemetry.`
    pub(super) fn tracer(&mut self, stats: &TracerStats) {
        self.counter("spans_sent", &stats.sent);
        self.counter("spans_dropped", &stats.dropped);
        self.counter("timer_flushed", &stats.timer_flushed);
    }

    /// `listener.<address>.`
    pub(super) fn listener(&mut self, stats: &ListenerStats) {
        self.counter("downstream_cx_total", &stats.cx_total);
        self.gauge("downstream_cx_active", &stats.cx_active);
        self.counter("no_filter_chain_match", &stats.no_filter_chain_match);
        self.counter("downstream_cx_destroy", &stats.cx_destroy);
        self.counter("downstream_global_cx_overflow", &stats.global_overflow);
        self.gauge("downstream_pre_cx_active", &stats.pre_cx_active);
        self.counter("downstream_pre_cx_timeout", &stats.inspection_timeout);
        self.counter("downstream_listener_filter_remote_close", &stats.inspection_closed);
        let handshakes = &stats.handshake_timeout;
        self.counter("downstream_cx_transport_socket_connect_timeout", handshakes);
        self.tls("server_ssl_socket_factory.downstream", &stats.ssl);
    }

    /// `proxy_proto.<stat_prefix>.`
    pub(super) fn proxy_protocol(&mut self, stats: &ProxyProtocolStats) {
        self.counter("not_found_disallowed", &stats.not_found_disallowed);
        self.counter("not_found_allowed", &stats.not_found_allowed);
        for (name, version) in ["v1", "v2"].into_iter().zip(&stats.versions) {
            self.counter(&format!("versions.{name}.found"), &version.found);
            self.counter(&format!("versions.{name}.disallowed"), &version.disallowed);
            self.counter(&format!("versions.{name}.error"), &version.error);
        }
    }

    /// `<stat_prefix>.http_local_rate_limit.`
    pub(super) fn rate_limit(&mut self, stats: &RateLimitStats) {
        self.counter("enabled", &stats.enabled);
        self.counter("ok", &stats.ok);
        self.counter("rate_limited", &stats.rate_limited);
        self.counter("enforced", &stats.enforced);
        // Only descriptors have a shadow mode.
        self.add("shadow_mode", Kind::Counter, 0);
    }

    /// `vhost.<name>.route.<stat_prefix>.`
    pub(super) fn route(&mut self, stats: &RouteStats) {
        self.counter("upstream_rq_total", &stats.rq_total);
        self.counter("upstream_rq_retry", &stats.rq_retry);
        self.counter("upstream_rq_retry_success", &stats.rq_retry_success);
        self.counter("upstream_rq_retry_overflow", &stats.rq_retry_overflow);
        self.counter("upstream_rq_retry_limit_exceeded", &stats.rq_retry_limit_exceeded);
        self.counter("upstream_rq_timeout", &stats.rq_timeout);
        let Answers { classes, codes, time } = &stats.answers;
        // Like Envoy, which creates these on first use.
        let all = classes.counted();
        if all.iter().any(|count| *count > 0) {
            self.add("upstream_rq_completed", Kind::Counter, all.iter().sum());
        }
        for (class, count) in CLASSES.iter().zip(all).filter(|(_, count)| *count > 0) {
            self.add(&format!("upstream_{class}"), Kind::Counter, count);
        }
        for (status, count) in codes.counted() {
            self.add(&format!("upstream_rq_{status}"), Kind::Counter, count);
        }
        self.histogram("upstream_rq_time", time);
        if self.reset {
            classes.reset();
            codes.reset();
        }
    }

    /// `tcp.<stat_prefix>.`
    pub(super) fn tcp(&mut self, stats: &TcpStats) {
        self.counter("downstream_cx_total", &stats.cx_total);
        self.counter("downstream_cx_no_route", &stats.cx_no_route);
        self.bytes("downstream_cx", &stats.bytes);
        self.counter("idle_timeout", &stats.idle_timeout);
        self.counter("max_downstream_connection_duration", &stats.max_duration);
    }

    /// `cluster.<name>.`
    pub(super) fn cluster(&mut self, cluster: &Cluster) {
        self.members(cluster);
        self.breaker("default", cluster.breakers.of(false));
        self.breaker("high", cluster.breakers.of(true));
        let pending = [false, true].map(|high| cluster.breakers.of(high).pending.used());
        let pending = pending.iter().map(|used| u64::from(*used)).sum();
        self.add("upstream_rq_pending_active", Kind::Gauge, pending);
        self.cluster_requests(&cluster.stats);
        self.grpc("grpc", &cluster.stats.grpc);
        self.grpc("grpc-web", &cluster.stats.grpc_web);
        self.cluster_connections(&cluster.stats);
    }

    fn members(&mut self, cluster: &Cluster) {
        let set = cluster.hosts.load();
        let healthy = set.hosts.iter().filter(|host| host.healthy()).count();
        self.add("membership_total", Kind::Gauge, set.hosts.len() as u64);
        self.add("membership_healthy", Kind::Gauge, healthy as u64);
        let degraded = set.hosts.iter().filter(|host| host.degraded()).count();
        self.add("membership_degraded", Kind::Gauge, degraded as u64);
        let excluded = set.hosts.iter().filter(|host| host.excluded()).count();
        self.add("membership_excluded", Kind::Gauge, excluded as u64);
        self.counter("membership_change", &cluster.stats.membership_change);
        self.counter("update_success", &cluster.stats.update_success);
        if matches!(cluster.config.discovery, Discovery::Dns(_)) {
            self.counter("update_attempt", &cluster.stats.update_attempt);
            self.counter("update_failure", &cluster.stats.update_failure);
            self.counter("update_no_rebuild", &cluster.stats.update_no_rebuild);
            // Of endpoints that a server sends.
            self.add("update_empty", Kind::Counter, 0);
        }
        self.counter("lb_healthy_panic", &cluster.stats.lb_healthy_panic);
        if cluster.config.outlier.is_some() {
            let stats = &cluster.stats;
            self.gauge("outlier_detection.ejections_active", &stats.ejections_active);
            let mut tell = |name: &str, counter: &_| self.counter(&format!("outlier_detection.{name}"), counter);
            stats.ejections.counters(&mut tell);
            // Only health information from EDS marks hosts as degraded.
            self.add("outlier_detection.ejections_detected_degradation", Kind::Counter, 0);
        }
        if cluster.config.health_check.is_some() {
            self.health_checks(&cluster.stats.health_checks, &set);
        }
        self.counter("default.total_match_count", &cluster.config.unmatched);
        for one in &cluster.config.transports {
            self.counter(&format!("{}.total_match_count", one.name), &one.matched);
        }
        let active = set.hosts.iter().map(|host| host.state.active.load(Relaxed));
        self.add("upstream_rq_active", Kind::Gauge, active.map(u64::from).sum());
        let connections = set.hosts.iter().map(|host| host.state.connections.load(Relaxed));
        self.add("upstream_cx_active", Kind::Gauge, connections.map(u64::from).sum());
    }

    /// `health_check.`
    fn health_checks(&mut self, stats: &HealthCheckStats, set: &HostSet) {
        self.counter("health_check.attempt", &stats.attempt);
        self.counter("health_check.success", &stats.success);
        self.counter("health_check.failure", &stats.failure);
        self.counter("health_check.passive_failure", &stats.passive_failure);
        self.counter("health_check.network_failure", &stats.network_failure);
        self.counter("health_check.verify_cluster", &stats.verify_cluster);
        let checked = set.hosts.iter().filter_map(|host| host.checked.as_ref());
        let healthy = checked.clone().filter(|checked| !checked.failed()).count();
        self.add("health_check.healthy", Kind::Gauge, healthy as u64);
        let degraded = checked.filter(|checked| checked.degraded()).count();
        self.add("health_check.degraded", Kind::Gauge, degraded as u64);
    }

    fn breaker(&mut self, priority: &str, breaker: &Breaker) {
        let limits = [
            ("cx_open", &breaker.connections),
            ("rq_pending_open", &breaker.pending),
            ("rq_open", &breaker.requests),
            ("rq_retry_open", &breaker.retries),
        ];
        let open = |limit: &Limit| u64::from(limit.used() >= limit.max());
        for (name, limit) in limits {
            self.add(&format!("circuit_breakers.{priority}.{name}"), Kind::Gauge, open(limit));
        }
        if breaker.tells_rest {
            let rest = [
                ("cx", &breaker.connections),
                ("pending", &breaker.pending),
                ("rq", &breaker.requests),
                ("retries", &breaker.retries),
            ];
            for (name, limit) in rest {
                let rest = limit.max().saturating_sub(limit.used());
                let name = format!("circuit_breakers.{priority}.remaining_{name}");
                self.add(&name, Kind::Gauge, rest.into());
            }
        }
    }

    fn cluster_requests(&mut self, stats: &ClusterStats) {
        self.counter("upstream_rq_total", &stats.rq_total);
        self.all_answers(stats);
        for (status, count) in stats.rq_retried.counted() {
            self.add(&format!("retry.upstream_rq_{status}"), Kind::Counter, count);
        }
        if self.reset {
            stats.rq_retried.reset();
        }
        self.counter("upstream_rq_retry", &stats.rq_retry);
        self.counter("upstream_rq_retry_success", &stats.rq_retry_success);
        self.counter("upstream_rq_retry_overflow", &stats.rq_retry_overflow);
        self.counter("upstream_rq_retry_limit_exceeded", &stats.rq_retry_limit_exceeded);
        self.counter("upstream_rq_timeout", &stats.rq_timeout);
        self.counter("upstream_rq_per_try_timeout", &stats.rq_per_try_timeout);
        self.counter("upstream_rq_rx_reset", &stats.rq_rx_reset);
        self.counter("upstream_rq_tx_reset", &stats.rq_tx_reset);
        self.counter("upstream_rq_pending_total", &stats.rq_pending_total);
        self.counter("upstream_rq_pending_overflow", &stats.rq_pending_overflow);
        self.counter("upstream_rq_pending_failure_eject", &stats.rq_pending_failure);
    }

    /// Responses of both kinds together, and of each as far as there are any: like Envoy, which creates the latter on
    /// first use.
    fn all_answers(&mut self, stats: &ClusterStats) {
        let Answers { classes, codes, time } = &stats.external;
        let own = &stats.internal;
        let both = classes.counted().into_iter().zip(own.classes.counted());
        let mut of_classes = [0; 5];
        of_classes
            .iter_mut()
            .zip(both)
            .for_each(|(sum, (one, other))| *sum = one + other);
        self.classes("upstream_", of_classes);
        let mut by_status = BTreeMap::new();
        for (status, count) in codes.counted().chain(own.codes.counted()) {
            *by_status.entry(status).or_insert(0) += count;
        }
        for (status, count) in by_status {
            self.add(&format!("upstream_rq_{status}"), Kind::Counter, count);
        }
        let times = time.distribution().with(&own.time.distribution());
        self.distribution("upstream_rq_time", times);
        self.answers("external.", &stats.external);
        self.answers("internal.", own);
    }

    fn answers(&mut self, prefix: &str, answers: &Answers) {
        let classes = answers.classes.counted();
        if classes.iter().any(|count| *count > 0) {
            self.classes(&format!("{prefix}upstream_"), classes);
        }
        for (status, count) in answers.codes.counted() {
            self.add(&format!("{prefix}upstream_rq_{status}"), Kind::Counter, count);
        }
        let time = answers.time.distribution();
        if !time.is_empty() {
            self.distribution(&format!("{prefix}upstream_rq_time"), time);
        }
        if self.reset {
            answers.classes.reset();
            answers.codes.reset();
        }
    }

    /// gRPC calls, and those of methods with counters of their own.
    fn grpc(&mut self, protocol: &str, stats: &GrpcStats) {
        for (prefix, calls) in stats.counted(protocol) {
            calls.counters(|name, counter| self.counter(&format!("{prefix}{name}"), counter));
        }
    }

    fn cluster_connections(&mut self, stats: &ClusterStats) {
        self.counter("upstream_cx_total", &stats.cx_total);
        self.closings("upstream_cx_destroy", "", &stats.cx_destroy);
        self.histogram("upstream_cx_connect_ms", &stats.cx_connect_time);
        self.histogram("upstream_cx_length_ms", &stats.cx_length);
        self.counter("upstream_cx_http1_total", &stats.cx_http1_total);
        self.counter("upstream_cx_http2_total", &stats.cx_http2_total);
        self.counter("upstream_cx_connect_fail", &stats.cx_connect_fail);
        self.counter("upstream_cx_connect_timeout", &stats.cx_connect_timeout);
        self.counter("upstream_cx_overflow", &stats.cx_overflow);
        self.bytes("upstream_cx", &stats.bytes);
        self.counter("upstream_cx_none_healthy", &stats.cx_none_healthy);
        self.tls("client_ssl_socket_factory.upstream", &stats.ssl);
    }

    /// `ssl.`, and the counters that Envoy has outside of that.
    fn tls(&mut self, factory: &str, stats: &TlsStats) {
        self.counter("ssl.handshake", &stats.handshake);
        self.counter("ssl.session_reused", &stats.session_reused);
        self.counter("ssl.no_certificate", &stats.no_certificate);
        self.counter("ssl.connection_error", &stats.connection_error);
        self.counter("ssl.fail_verify_no_cert", &stats.fail_verify_no_cert);
        self.counter("ssl.fail_verify_error", &stats.fail_verify_error);
        self.counter("ssl.fail_verify_san", &stats.fail_verify_san);
        self.counter(
            &format!("{factory}_context_secrets_not_ready"),
            &stats.secrets_not_ready,
        );
        // Like Envoy, which creates these on first use.
        for (name, counter) in stats.agreed().filter(|(_, counter)| counter.load(Relaxed) > 0) {
            self.counter(&format!("ssl.{name}"), counter);
        }
    }

    fn classes(&mut self, prefix: &str, classes: [u64; 5]) {
        self.add(&format!("{prefix}rq_completed"), Kind::Counter, classes.iter().sum());
        for (name, count) in CLASSES.iter().zip(classes) {
            self.add(&format!("{prefix}{name}"), Kind::Counter, count);
        }
    }

    /// `cluster_manager.` or `listener_manager.`: `what` is `cluster` or `listener`, `updates` the prefix of update
    /// counters.
    pub(super) fn manager(&mut self, what: &str, updates: &str, stats: &ManagerStats) {
        self.counter(&format!("{what}_added"), &stats.added);
        self.counter(&format!("{what}_modified"), &stats.modified);
        self.counter(&format!("{what}_removed"), &stats.removed);
        let created = stats.added.load(Relaxed) + stats.modified.load(Relaxed);
        match what {
            "listener" => self.add("listener_create_success", Kind::Counter, created),
            _ => self.counter("cluster_updated", &stats.modified),
        }
        self.counter(&format!("{updates}.update_attempt"), &stats.update_attempt);
        self.counter(&format!("{updates}.update_success"), &stats.update_success);
        self.counter(&format!("{updates}.update_rejected"), &stats.update_rejected);
        self.counter(&format!("{updates}.update_failure"), &stats.update_failure);
        self.last_update(&format!("{updates}."), &stats.last);
        if updates == "cds" {
            self.counter("cds.config_reload", &stats.update_success);
            self.gauge("cds.config_reload_time_ms", &stats.last.time);
        }
    }
}
