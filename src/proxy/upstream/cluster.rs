//! Clusters: configuration, hosts, circuit breakers and statistics, as workers use them.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;

use super::balance::ejections::Ejections;
use super::breaker::Breakers;
use super::dns::client::NameService;
use super::health_check::{HealthCheck, HealthCheckStats};
use super::host::{Endpoints, HostSet};
use super::proxy_protocol::ProxyHeader;
use crate::proxy::io::metered::{ByteStats, Closings};
use crate::proxy::stats::codes::{Classes, Codes};
use crate::proxy::stats::grpc::GrpcStats;
use crate::proxy::stats::histogram::Histogram;
use crate::proxy::tls::{TlsStats, UpstreamTls};

/// A cluster. Replaced as a whole when its configuration changes; its hosts change separately.
#[derive(Debug)]
pub(crate) struct Cluster {
    /// The configuration.
    pub(crate) config: ClusterConfig,
    /// The current hosts and their load balancer.
    pub(crate) hosts: ArcSwap<HostSet>,
    /// Circuit breakers, shared by all workers.
    pub(crate) breakers: Breakers,
    /// Statistics, kept across changes of the configuration.
    pub(crate) stats: Arc<ClusterStats>,
    /// Held while the hosts are changed, so that no change is lost.
    changes: Mutex<Upkeep>,
}

/// When periodic maintenance was last done.
#[derive(Debug, Default)]
struct Upkeep {
    outliers: Option<Instant>,
    unused: Option<Instant>,
}

impl Cluster {
    /// A cluster with these hosts.
    pub(crate) fn new(config: ClusterConfig, breakers: Breakers, stats: Arc<ClusterStats>, hosts: HostSet) -> Self {
        Self {
            config,
            hosts: ArcSwap::from_pointee(hosts),
            breakers,
            stats,
            changes: Mutex::default(),
        }
    }

    /// Replaces the endpoints. Hosts whose address stays keep their state; the others are marked as removed.
    pub(crate) fn put_endpoints(&self, endpoints: &Endpoints, now: Instant) {
        // DNS look-ups are counted one by one (`dns.rs`).
        if !matches!(self.config.discovery, Discovery::Dns(_)) {
            self.stats.update_success.fetch_add(1, Relaxed);
        }
        self.change_hosts(|before| Some(HostSet::build(&self.config, endpoints, Some(before), now)));
    }

    /// Replaces the host set by what `change` makes of it, if anything. Other changes wait meanwhile.
    pub(super) fn change_hosts(&self, change: impl FnOnce(&HostSet) -> Option<HostSet>) {
        let _changes = self.changes();
        let before = self.hosts.load_full();
        if let Some(next) = change(&before) {
            before.retire(&next);
            let [old, new] = [&*before, &next].map(|set| set.hosts.iter().map(|host| &host.address));
            if old.ne(new) {
                self.stats.membership_change.fetch_add(1, Relaxed);
            }
            self.hosts.store(Arc::new(next));
        }
    }

    /// Periodic maintenance: outlier detection, the end of slow start, removal of unused original destinations. Called
    /// at least once a second by the control thread.
    pub(crate) fn upkeep(&self, now: Instant) {
        let due = |last: &mut Option<Instant>, interval: Duration| {
            let last = last.get_or_insert(now);
            let due = now.saturating_duration_since(*last) >= interval;
            if due {
                *last = now;
            }
            due
        };
        if let Some(outlier) = &self.config.outlier {
            let is_due = due(&mut self.changes().outliers, outlier.interval);
            if is_due {
                self.sweep_outliers(outlier, now);
            }
        }
        if self.hosts.load().settled.is_some_and(|settled| settled <= now) {
            self.change_hosts(|set| Some(set.rebalanced(&self.config, now)));
        }
        if let Discovery::OriginalDst(_, cleanup) = &self.config.discovery {
            let is_due = due(&mut self.changes().unused, *cleanup);
            if is_due {
                self.forget_unused();
            }
        }
    }

    fn changes(&self) -> MutexGuard<'_, Upkeep> {
        self.changes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The configuration of a cluster.
#[derive(Debug)]
pub(crate) struct ClusterConfig {
    /// The name.
    pub(crate) name: Arc<str>,
    /// `alt_stat_name`, or the name.
    pub(crate) stat_name: Arc<str>,
    /// Whether it came by CDS, and not from the bootstrap.
    pub(crate) via_api: bool,
    /// `connect_timeout`, TLS included.
    pub(crate) connect_timeout: Duration,
    /// How hosts are discovered.
    pub(crate) discovery: Discovery,
    /// The load balancing policy.
    pub(crate) policy: LbPolicy,
    /// Slow start, for round robin and least request.
    pub(crate) slow_start: Option<SlowStart>,
    /// `healthy_panic_threshold` (0 to 100); zero: no panic mode.
    pub(crate) panic_threshold: f64,
    /// Whether localities are chosen by weight first.
    pub(crate) locality_weighted: bool,
    /// Transport socket matches by the endpoint's metadata; the first match applies.
    pub(crate) transports: Vec<TransportMatch>,
    /// The transport socket if none matches.
    pub(crate) transport: Transport,
    /// `default.total_match_count`: hosts without a match.
    pub(crate) unmatched: AtomicU64,
    /// HTTP options.
    pub(crate) http: UpstreamHttp,
    /// TCP keepalive.
    pub(crate) tcp_keepalive: Option<TcpKeepalive>,
    /// Source addresses of connections (`upstream_bind_config`).
    pub(crate) source: Vec<std::net::SocketAddr>,
    /// Outlier detection.
    pub(crate) outlier: Option<OutlierConfig>,
    /// Active health checks.
    pub(crate) health_check: Option<Arc<HealthCheck>>,
}

impl ClusterConfig {
    /// The transport socket for an endpoint with this metadata: the first match of which it has all labels, or the
    /// default.
    pub(super) fn transport_for(&self, labels: &[(String, String)]) -> Transport {
        let fits = |one: &&TransportMatch| one.labels.iter().all(|label| labels.contains(label));
        let (transport, counter) = match self.transports.iter().find(fits) {
            Some(one) => (&one.transport, &one.matched),
            None => (&self.transport, &self.unmatched),
        };
        counter.fetch_add(1, Relaxed);
        transport.clone()
    }
}

/// How the hosts of a cluster are discovered.
#[derive(Debug)]
pub(crate) enum Discovery {
    /// `STATIC`.
    Static,
    /// `EDS`, with this service name.
    Eds(Arc<str>),
    /// `STRICT_DNS` or `LOGICAL_DNS`.
    Dns(DnsConfig),
    /// `ORIGINAL_DST`, at this port if given; a host that was unused for the interval is removed.
    OriginalDst(Option<u16>, Duration),
}

/// DNS discovery.
#[derive(Debug)]
pub(crate) struct DnsConfig {
    /// `LOGICAL_DNS`: one address at a time.
    pub(crate) logical: bool,
    /// `dns_refresh_rate`.
    pub(crate) refresh: Duration,
    /// `respect_dns_ttl`: the TTL of an answer takes the place of `refresh`.
    pub(crate) respects_ttl: bool,
    /// `dns_min_refresh_rate`: the least TTL.
    pub(crate) least_ttl: Duration,
    /// `dns_jitter`.
    pub(crate) jitter: Duration,
    /// `dns_lookup_family`.
    pub(crate) family: DnsFamily,
    /// `dns_failure_refresh_rate`: base and maximum interval; none: `refresh`.
    pub(crate) retry: Option<(Duration, Duration)>,
    /// `typed_dns_resolver_config`.
    pub(crate) service: NameService,
    /// The endpoints, with names instead of addresses.
    pub(crate) endpoints: Endpoints,
}

/// Which IP versions are looked up (`DnsLookupFamily`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DnsFamily {
    /// IPv4 only.
    V4,
    /// IPv6 only.
    V6,
    /// IPv6, or IPv4 if there is none (`AUTO`).
    V6First,
    /// IPv4, or IPv6 if there is none (`V4_PREFERRED`).
    V4First,
    /// Both.
    All,
}

/// Load balancing policies.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum LbPolicy {
    /// Weighted round robin.
    RoundRobin,
    /// Least request: the one with the fewest active requests of some chosen at random.
    LeastRequest {
        /// `choice_count`.
        choices: u32,
    },
    /// Random.
    Random,
    /// Ring hash.
    RingHash {
        /// `minimum_ring_size`.
        min: u64,
        /// `maximum_ring_size`.
        max: u64,
    },
    /// Maglev.
    Maglev {
        /// `table_size`, a prime number.
        table: u64,
    },
    /// `CLUSTER_PROVIDED`, for [`Discovery::OriginalDst`].
    ClusterProvided,
}

/// Slow start (`SlowStartConfig`).
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct SlowStart {
    /// `slow_start_window`, from when a host is first healthy.
    pub(crate) window: Duration,
    /// `aggression`: 1 for linear growth; larger values grow faster at first.
    pub(crate) aggression: f64,
    /// `min_weight_percent` as a fraction.
    pub(crate) least: f64,
}

/// A transport socket for endpoints with certain metadata (`transport_socket_matches`).
#[derive(Debug)]
pub(crate) struct TransportMatch {
    /// The name.
    pub(crate) name: Box<str>,
    /// Metadata that an endpoint must have; empty: every endpoint matches.
    pub(crate) labels: Vec<(String, String)>,
    /// The transport socket.
    pub(crate) transport: Transport,
    /// `<name>.total_match_count`: hosts that matched.
    pub(crate) matched: AtomicU64,
}

/// A transport socket: how connections to hosts start.
#[derive(Clone, Debug, Default)]
pub(crate) struct Transport {
    /// The PROXY protocol header that hosts get first, if any.
    pub(crate) proxy_header: Option<ProxyHeader>,
    /// TLS; `None`: plaintext.
    pub(crate) tls: Option<Arc<UpstreamTls>>,
}

/// HTTP options (`HttpProtocolOptions`).
#[derive(Clone, Debug, Default)]
pub(crate) struct UpstreamHttp {
    /// The HTTP version.
    pub(crate) version: HttpVersion,
    /// `max_concurrent_streams` on one HTTP/2 connection.
    pub(crate) max_concurrent_streams: Option<u32>,
    /// `initial_stream_window_size`; `None`: the pool's default.
    pub(crate) stream_window: Option<u32>,
    /// `initial_connection_window_size`; `None`: the pool's default.
    pub(crate) connection_window: Option<u32>,
    /// `connection_keepalive`: interval and timeout.
    pub(crate) keepalive: Option<(Duration, Duration)>,
    /// `idle_timeout`; an hour by default; zero: none.
    pub(crate) idle_timeout: Option<Duration>,
    /// `max_connection_duration`.
    pub(crate) max_connection_duration: Option<Duration>,
    /// `max_requests_per_connection`.
    pub(crate) max_requests: Option<u32>,
    /// `auto_sni`: SNI from the request's authority.
    pub(crate) auto_sni: bool,
    /// `auto_san_validation`: whether the server's certificate must be for that name.
    pub(crate) auto_san_validation: bool,
}

/// HTTP versions towards hosts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum HttpVersion {
    /// HTTP/1.1.
    #[default]
    Http1,
    /// HTTP/2.
    Http2,
    /// That of the downstream request (`use_downstream_protocol_config`).
    Downstream,
    /// That which ALPN negotiates (`auto_config`).
    Alpn,
}

/// TCP keepalive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TcpKeepalive {
    /// Unanswered probes before the connection is dead.
    pub(crate) probes: Option<u32>,
    /// Idle time before the first probe.
    pub(crate) time: Option<Duration>,
    /// Time between probes.
    pub(crate) interval: Option<Duration>,
}

/// Outlier detection (`OutlierDetection`).
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct OutlierConfig {
    /// `consecutive_5xx`, and its enforcing percentage.
    pub(crate) consecutive_5xx: (u32, u32),
    /// `consecutive_gateway_failure`, and its enforcing percentage.
    pub(crate) consecutive_gateway: (u32, u32),
    /// `consecutive_local_origin_failure`, and its enforcing percentage.
    pub(crate) consecutive_local: (u32, u32),
    /// `split_external_local_origin_errors`.
    pub(crate) split_local: bool,
    /// `interval` of evaluations.
    pub(crate) interval: Duration,
    /// `base_ejection_time`; repeated ejections last multiples of it.
    pub(crate) base_ejection: Duration,
    /// `max_ejection_time`.
    pub(crate) max_ejection: Duration,
    /// `max_ejection_percent`.
    pub(crate) max_percent: u32,
    /// `always_eject_one_host`.
    pub(crate) always_one: bool,
    /// `successful_active_health_check_uneject_host`.
    pub(crate) uneject_checked: bool,
    /// Success rate outlier detection.
    pub(crate) success_rate: SuccessRate,
    /// Failure percentage outlier detection.
    pub(crate) failure_percentage: FailurePercentage,
}

/// Success rate outlier detection.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct SuccessRate {
    /// `enforcing_success_rate` (0 to 100).
    pub(crate) enforcing: u32,
    /// `enforcing_local_origin_success_rate`.
    pub(crate) enforcing_local: u32,
    /// `success_rate_minimum_hosts`.
    pub(crate) minimum_hosts: u32,
    /// `success_rate_request_volume`.
    pub(crate) request_volume: u32,
    /// `success_rate_stdev_factor`: standard deviations below the mean, times 1000.
    pub(crate) stdev_factor: u32,
}

/// Failure percentage outlier detection.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct FailurePercentage {
    /// `enforcing_failure_percentage` (0 to 100).
    pub(crate) enforcing: u32,
    /// `enforcing_failure_percentage_local_origin`.
    pub(crate) enforcing_local: u32,
    /// `failure_percentage_threshold` (0 to 100).
    pub(crate) threshold: u32,
    /// `failure_percentage_minimum_hosts`.
    pub(crate) minimum_hosts: u32,
    /// `failure_percentage_request_volume`.
    pub(crate) request_volume: u32,
}

/// Counters of a cluster, by Envoy's names.
#[derive(Debug, Default)]
pub(crate) struct ClusterStats {
    /// `upstream_rq_total`.
    pub(crate) rq_total: AtomicU64,
    /// `external.…`: responses to downstream requests.
    pub(crate) external: Answers,
    /// `internal.…`: responses to the proxy's own requests, mirrored ones included.
    pub(crate) internal: Answers,
    /// `grpc.…`: counts of the `grpc_stats` filter.
    pub(crate) grpc: GrpcStats,
    /// `grpc-web.…`: counts of the `grpc_web` filter.
    pub(crate) grpc_web: GrpcStats,
    /// `retry.upstream_rq_<status>`: responses that were retried.
    pub(crate) rq_retried: Codes,
    /// `upstream_rq_retry`.
    pub(crate) rq_retry: AtomicU64,
    /// `upstream_rq_retry_success`.
    pub(crate) rq_retry_success: AtomicU64,
    /// `upstream_rq_retry_overflow`.
    pub(crate) rq_retry_overflow: AtomicU64,
    /// `upstream_rq_retry_limit_exceeded`.
    pub(crate) rq_retry_limit_exceeded: AtomicU64,
    /// `upstream_rq_timeout`.
    pub(crate) rq_timeout: AtomicU64,
    /// `upstream_rq_per_try_timeout`.
    pub(crate) rq_per_try_timeout: AtomicU64,
    /// `upstream_rq_rx_reset`.
    pub(crate) rq_rx_reset: AtomicU64,
    /// `upstream_rq_tx_reset`.
    pub(crate) rq_tx_reset: AtomicU64,
    /// `upstream_rq_pending_total`: requests that waited for a connection.
    pub(crate) rq_pending_total: AtomicU64,
    /// `upstream_rq_pending_overflow`.
    pub(crate) rq_pending_overflow: AtomicU64,
    /// `upstream_rq_pending_failure_eject`.
    pub(crate) rq_pending_failure: AtomicU64,
    /// `upstream_cx_total`.
    pub(crate) cx_total: AtomicU64,
    /// `upstream_cx_destroy…`: closed connections, failed connects included.
    pub(crate) cx_destroy: Closings,
    /// `upstream_cx_connect_ms`.
    pub(crate) cx_connect_time: Histogram,
    /// `upstream_cx_length_ms`.
    pub(crate) cx_length: Histogram,
    /// `membership_change`.
    pub(crate) membership_change: AtomicU64,
    /// `update_success`: endpoint updates, or successful DNS look-ups.
    pub(crate) update_success: AtomicU64,
    /// `update_attempt`: DNS look-ups.
    pub(crate) update_attempt: AtomicU64,
    /// `update_failure`: DNS look-ups that failed.
    pub(crate) update_failure: AtomicU64,
    /// `update_no_rebuild`: DNS look-ups that changed no host.
    pub(crate) update_no_rebuild: AtomicU64,
    /// `upstream_cx_http1_total`.
    pub(crate) cx_http1_total: AtomicU64,
    /// `upstream_cx_http2_total`.
    pub(crate) cx_http2_total: AtomicU64,
    /// `upstream_cx_connect_fail`.
    pub(crate) cx_connect_fail: AtomicU64,
    /// `upstream_cx_connect_timeout`.
    pub(crate) cx_connect_timeout: AtomicU64,
    /// `upstream_cx_overflow`.
    pub(crate) cx_overflow: AtomicU64,
    /// `upstream_cx_…_bytes_…`.
    pub(crate) bytes: ByteStats,
    /// `lb_healthy_panic`.
    pub(crate) lb_healthy_panic: AtomicU64,
    /// `outlier_detection.ejections_active`.
    pub(crate) ejections_active: AtomicU64,
    /// Ejections, by cause.
    pub(crate) ejections: Ejections,
    /// `health_check.…`.
    pub(crate) health_checks: HealthCheckStats,
    /// `upstream_cx_none_healthy`.
    pub(crate) cx_none_healthy: AtomicU64,
    /// `ssl.…`.
    pub(crate) ssl: TlsStats,
}

/// Responses, by status and time.
#[derive(Debug, Default)]
pub(crate) struct Answers {
    /// `upstream_rq_1xx` to `upstream_rq_5xx`.
    pub(crate) classes: Classes,
    /// `upstream_rq_200` and the like.
    pub(crate) codes: Codes,
    /// `upstream_rq_time`.
    pub(crate) time: Histogram,
}

impl Answers {
    /// Counts a host's response, and the time from the end of the request to it.
    pub(crate) fn answered(&self, status: u16, time: Duration) {
        self.count_status(status);
        self.time.record(time);
    }

    /// Counts a response to a client, which may be a local reply.
    pub(crate) fn count_status(&self, status: u16) {
        self.classes.count(status);
        self.codes.count(status);
    }
}
