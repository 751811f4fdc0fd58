//! `connectionPool` and `outlierDetection`.

use crate::api::FieldPath;
use crate::api::destination_rule as api;
use crate::diag::Code;
use crate::mesh::destination_rule::{ConnectionPool, H2Upgrade, OutlierDetection, TcpKeepalive};
use crate::mesh::lower::report::Report;

/// `connectionPool` of a policy or a Sidecar.
pub(in crate::mesh::lower) fn connection_pool(
    report: &mut Report<'_>,
    at: &FieldPath,
    entry: &api::ConnectionPool,
) -> ConnectionPool {
    if entry.tcp.is_none() && entry.http.is_none() {
        report
            .error(at, "a connection pool without settings has no effect")
            .help("set `tcp` or `http`");
    }
    let mut pool = ConnectionPool::default();
    if let Some(tcp) = &entry.tcp {
        tcp_settings(report, &at.field("tcp"), tcp, &mut pool);
    }
    if let Some(http) = &entry.http {
        http_settings(report, &at.field("http"), http, &mut pool);
    }
    pool
}

fn tcp_settings(report: &mut Report<'_>, at: &FieldPath, tcp: &api::TcpSettings, pool: &mut ConnectionPool) {
    pool.max_connections = report.limit(&at.field("maxConnections"), tcp.max_connections);
    pool.connect_timeout = report.duration(&at.field("connectTimeout"), tcp.connect_timeout);
    pool.tcp_keepalive = tcp
        .tcp_keepalive
        .as_ref()
        .map(|entry| keepalive(report, &at.field("tcpKeepalive"), entry));
    pool.max_connection_duration = report.duration(&at.field("maxConnectionDuration"), tcp.max_connection_duration);
    pool.tcp_idle_timeout = report.duration_or_zero(&at.field("idleTimeout"), tcp.idle_timeout);
}

/// `tcpKeepalive` of a connection pool or the mesh. Envoy and the kernel use whole seconds.
pub(in crate::mesh::lower) fn keepalive(
    report: &mut Report<'_>,
    at: &FieldPath,
    entry: &api::TcpKeepalive,
) -> TcpKeepalive {
    TcpKeepalive {
        probes: (entry.probes > 0).then_some(entry.probes),
        time: report.duration(&at.field("time"), entry.time),
        interval: report.duration(&at.field("interval"), entry.interval),
    }
}

fn http_settings(report: &mut Report<'_>, at: &FieldPath, http: &api::HttpSettings, pool: &mut ConnectionPool) {
    pool.max_pending_requests = report.limit(&at.field("http1MaxPendingRequests"), http.http1_max_pending_requests);
    pool.max_requests = report.limit(&at.field("http2MaxRequests"), http.http2_max_requests);
    pool.max_requests_per_connection =
        report.limit(&at.field("maxRequestsPerConnection"), http.max_requests_per_connection);
    pool.max_retries = report.limit(&at.field("maxRetries"), http.max_retries);
    pool.http_idle_timeout = report.duration(&at.field("idleTimeout"), http.idle_timeout);
    pool.h2_upgrade = match http.h2_upgrade_policy {
        api::H2UpgradePolicy::Default => None,
        api::H2UpgradePolicy::DoNotUpgrade => Some(H2Upgrade::DoNotUpgrade),
        api::H2UpgradePolicy::Upgrade => Some(H2Upgrade::Upgrade),
    };
    pool.use_client_protocol = http.use_client_protocol;
    if http.use_client_protocol && pool.h2_upgrade == Some(H2Upgrade::Upgrade) {
        report.error(
            &at.field("useClientProtocol"),
            "`useClientProtocol` and `h2UpgradePolicy: UPGRADE` are mutually exclusive",
        );
    }
    let streams_at = at.field("maxConcurrentStreams");
    pool.max_concurrent_streams = report.limit(&streams_at, http.max_concurrent_streams);
    pool.http2_keepalive = http.http2_keep_alive.as_ref().and_then(|entry| {
        let at = at.field("http2KeepAlive");
        if entry.interval.is_none() || entry.timeout.is_none() {
            report.error(&at, "HTTP/2 keepalive requires both `interval` and `timeout`");
        }
        let interval = report.duration(&at.field("interval"), entry.interval);
        let timeout = report.duration(&at.field("timeout"), entry.timeout);
        interval.zip(timeout)
    });
}

/// `outlierDetection`.
pub(super) fn outlier_detection(
    report: &mut Report<'_>,
    at: &FieldPath,
    entry: &api::OutlierDetection,
) -> OutlierDetection {
    if entry.consecutive_errors != 0 {
        report
            .warning(
                &at.field("consecutiveErrors"),
                "`consecutiveErrors` no longer has any effect",
            )
            .help("use `consecutive5xxErrors` or `consecutiveGatewayErrors`");
    }
    if !entry.outlier_detection_http_error_codes.is_empty() {
        report.add(
            Code::UnsupportedField,
            &at.field("outlierDetectionHttpErrorCodes"),
            "`outlierDetectionHttpErrorCodes` is not supported yet",
        );
    }
    let local = entry.consecutive_local_origin_failures;
    if local.is_some_and(|count| count > 0) && !entry.split_external_local_origin_errors {
        report
            .error(
                &at.field("consecutiveLocalOriginFailures"),
                "connection errors are not counted separately from server errors",
            )
            .help("set `splitExternalLocalOriginErrors: true`");
    }
    let ejected = report.whole_percent(&at.field("maxEjectionPercent"), entry.max_ejection_percent);
    OutlierDetection {
        consecutive_5xx: entry.consecutive_5xx_errors,
        consecutive_gateway: entry.consecutive_gateway_errors,
        split_local_origin: entry.split_external_local_origin_errors,
        consecutive_local_origin: local,
        interval: report.duration(&at.field("interval"), entry.interval),
        base_ejection_time: report.duration(&at.field("baseEjectionTime"), entry.base_ejection_time),
        max_ejection_percent: (ejected > 0).then_some(ejected),
        min_health_percent: report.whole_percent(&at.field("minHealthPercent"), entry.min_health_percent),
    }
}
