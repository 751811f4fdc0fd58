//! Clusters as workers see them.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;

use super::balance::ejections::Ejections;
use super::breaker::Breakers;
use super::host::{Endpoints, HostSet};
use super::proxy_protocol::ProxyHeader;
use crate::proxy::io::metered::{ByteStats, Closings};
use crate::proxy::stats::codes::{Classes, Codes};
use crate::proxy::stats::grpc::GrpcStats;
use crate::proxy::stats::histogram::Histogram;
use crate::proxy::tls::{TlsStats, UpstreamTls};

/// A cluster. Replaced whole when its configuration changes; its hosts are replaced by themselves.
#[derive(Debug)]
pub(crate) struct Cluster {
    /// What was configured.
    pub(crate) config: ClusterConfig,
    /// The hosts that may be chosen now.
    pub(crate) hosts: ArcSwap<HostSet>,
    /// Limits and what counts against them, shared by all workers.
    pub(crate) breakers: Breakers,
    /// Counters. Kept across changes of the cluster.
    pub(crate) stats: Arc<ClusterStats>,
    /// Held by whoever changes the hosts, so that no change is lost.
    changes: Mutex<Upkeep>,
}

/// When what has to be done from time to time was done last.
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

    /// Replaces the hosts. What is known of those that stay is kept, the others are marked as removed.
    pub(crate) fn put_endpoints(&self, endpoints: &Endpoints, now: Instant) {
        self.stats.update_success.fetch_add(1, Relaxed);
        self.change_hosts(|before| Some(HostSet::build(&self.config, endpoints, Some(before), now)));
    }

    /// Puts another set of hosts in the place of the present one, if `change` makes one. Nobody else changes them
    /// meanwhile.
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

    /// Does what has to be done from time to time: hosts that were ejected come back, hosts that stand out are ejected,
    /// hosts that are new no more get their whole share, original destinations that nobody goes to are forgotten. Called once a second or oftener by the control thread.
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
    /// The name in statistics (`alt_stat_name`).
    pub(crate) stat_name: Arc<str>,
    /// Whether it came from a server, and is not the bootstrap's.
    pub(crate) via_api: bool,
    /// How long connecting may take, TLS included.
    pub(crate) connect_timeout: Duration,
    /// How hosts are found.
    pub(crate) discovery: Discovery,
    /// How a host is chosen.
    pub(crate) policy: LbPolicy,
    /// Less load for new hosts, where hosts take turns or the least busy one is chosen.
    pub(crate) slow_start: Option<SlowStart>,
    /// Below this share of healthy hosts (0 to 100) all are used; zero: never.
    pub(crate) panic_threshold: f64,
    /// Whether localities are chosen by weight first.
    pub(crate) locality_weighted: bool,
    /// How connections begin, by what the endpoint's metadata say; the first that matches.
    pub(crate) transports: Vec<TransportMatch>,
    /// How they begin where no match is found.
    pub(crate) transport: Transport,
    /// `default.total_match_count`: hosts for which none was found.
    pub(crate) unmatched: AtomicU64,
    /// HTTP to the hosts.
    pub(crate) http: UpstreamHttp,
    /// Keep-alive probes.
    pub(crate) tcp_keepalive: Option<TcpKeepalive>,
    /// Where connections come from (`upstream_bind_config`).
    pub(crate) source: Vec<std::net::SocketAddr>,
    /// Ejection of hosts that fail.
    pub(crate) outlier: Option<OutlierConfig>,
}

impl ClusterConfig {
    /// How connections to a host begin whose endpoint has these labels: the first transport of which it has them all, or
    /// the cluster's.
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

/// How the hosts of a cluster are found.
#[derive(Debug)]
pub(crate) enum Discovery {
    /// Given in the cluster.
    Static,
    /// From EDS, under this name.
    Eds(Arc<str>),
    /// By looking up names: all addresses, or one at a time.
    Dns(DnsConfig),
    /// Where the client wanted to go, at this port if given; a host that was not used for the interval is forgotten.
    OriginalDst(Option<u16>, Duration),
}

/// Looking up names.
#[derive(Debug)]
pub(crate) struct DnsConfig {
    /// `LOGICAL_DNS`: one address at a time.
    pub(crate) logical: bool,
    /// How often.
    pub(crate) refresh: Duration,
    /// Up to so much later, by chance.
    pub(crate) jitter: Duration,
    /// Which addresses are wanted.
    pub(crate) family: DnsFamily,
    /// How soon, and at the latest how soon, after a failure.
    pub(crate) retry: (Duration, Duration),
    /// The names, with everything else that is said of them.
    pub(crate) endpoints: Endpoints,
}

/// Which addresses are wanted of a name (`DnsLookupFamily`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DnsFamily {
    /// IPv4 only.
    V4,
    /// IPv6 only.
    V6,
    /// IPv6, and IPv4 where there is none.
    V6First,
    /// IPv4, and IPv6 where there is none.
    V4First,
    /// Both.
    All,
}

/// How a host is chosen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum LbPolicy {
    /// In turn, by weight.
    RoundRobin,
    /// The one with fewer requests of this many chosen by chance.
    LeastRequest {
        /// How many are compared.
        choices: u32,
    },
    /// By chance.
    Random,
    /// On a ring of hashes of at least and at most this many places.
    RingHash {
        /// The least.
        min: u64,
        /// The most.
        max: u64,
    },
    /// In a table of this size.
    Maglev {
        /// A prime number.
        table: u64,
    },
    /// By [`Discovery::OriginalDst`].
    ClusterProvided,
}

/// Less load for new hosts (`SlowStartConfig`).
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct SlowStart {
    /// How long a host is new, counted from when it is first healthy.
    pub(crate) window: Duration,
    /// 1: its share grows evenly with time; the greater, the sooner it grows.
    pub(crate) aggression: f64,
    /// The least share of its weight that it has, 0 to 1.
    pub(crate) least: f64,
}

/// A transport for endpoints with certain metadata (`envoy.transport_socket_match`).
#[derive(Debug)]
pub(crate) struct TransportMatch {
    /// The name.
    pub(crate) name: Box<str>,
    /// Keys and texts that the endpoint's metadata must have; none: every endpoint.
    pub(crate) labels: Vec<(String, String)>,
    /// The transport.
    pub(crate) transport: Transport,
    /// `<name>.total_match_count`: hosts that it was chosen for.
    pub(crate) matched: AtomicU64,
}

/// How connections to hosts begin.
#[derive(Clone, Debug, Default)]
pub(crate) struct Transport {
    /// In which version of the PROXY protocol hosts are told whose connection is passed on, before all else.
    pub(crate) proxy_header: Option<ProxyHeader>,
    /// TLS; none: plaintext.
    pub(crate) tls: Option<Arc<UpstreamTls>>,
}

/// HTTP to the hosts (`HttpProtocolOptions`).
#[derive(Clone, Debug, Default)]
pub(crate) struct UpstreamHttp {
    /// The version spoken.
    pub(crate) version: HttpVersion,
    /// Streams at the same time on one HTTP/2 connection.
    pub(crate) max_concurrent_streams: Option<u32>,
    /// What an HTTP/2 stream may have on its way to us, in bytes; none: the pool's own choice.
    pub(crate) stream_window: Option<u32>,
    /// The same for a connection.
    pub(crate) connection_window: Option<u32>,
    /// HTTP/2 pings: interval and timeout.
    pub(crate) keepalive: Option<(Duration, Duration)>,
    /// How long a connection may be unused; an hour unless said otherwise; zero: for ever.
    pub(crate) idle_timeout: Option<Duration>,
    /// How long a connection may live.
    pub(crate) max_connection_duration: Option<Duration>,
    /// How many requests a connection may carry.
    pub(crate) max_requests: Option<u32>,
    /// SNI from the request's host.
    pub(crate) auto_sni: bool,
    /// The server's certificate must have that name.
    pub(crate) auto_san_validation: bool,
}

/// The version of HTTP spoken to hosts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum HttpVersion {
    /// HTTP/1.1.
    #[default]
    Http1,
    /// HTTP/2.
    Http2,
    /// The client's.
    Downstream,
    /// What TLS negotiates.
    Alpn,
}

/// Keep-alive probes of TCP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TcpKeepalive {
    /// Probes without answer before the connection is dead.
    pub(crate) probes: Option<u32>,
    /// Silence before the first.
    pub(crate) time: Option<Duration>,
    /// Between two.
    pub(crate) interval: Option<Duration>,
}

/// Ejection of hosts that fail (`OutlierDetection`).
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct OutlierConfig {
    /// 5xx answers in a row, and with which probability (0 to 100) they eject.
    pub(crate) consecutive_5xx: (u32, u32),
    /// 502, 503 and 504 in a row, and with which probability they eject.
    pub(crate) consecutive_gateway: (u32, u32),
    /// Failures to connect and the like in a row, and with which probability they eject.
    pub(crate) consecutive_local: (u32, u32),
    /// Whether failures of the last sort are counted by themselves.
    pub(crate) split_local: bool,
    /// How often ejected hosts are looked at.
    pub(crate) interval: Duration,
    /// How long the first ejection lasts; the next ones are multiples.
    pub(crate) base_ejection: Duration,
    /// The longest ejection.
    pub(crate) max_ejection: Duration,
    /// The largest share of hosts that may be ejected, 0 to 100; one always may.
    pub(crate) max_percent: u32,
    /// Whether one may be ejected whatever the share says.
    pub(crate) always_one: bool,
    /// Success rate ejection.
    pub(crate) success_rate: SuccessRate,
    /// Failure percentage ejection.
    pub(crate) failure_percentage: FailurePercentage,
}

/// Ejection of hosts whose success rate is far from the others'.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct SuccessRate {
    /// With which probability (0 to 100) it ejects.
    pub(crate) enforcing: u32,
    /// The same for failures to connect and the like, where these are counted by themselves.
    pub(crate) enforcing_local: u32,
    /// Hosts with enough requests that it takes.
    pub(crate) minimum_hosts: u32,
    /// Requests in an interval that a host needs to count.
    pub(crate) request_volume: u32,
    /// Standard deviations from the mean, times 1000.
    pub(crate) stdev_factor: u32,
}

/// Ejection of hosts that fail too large a share of requests.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct FailurePercentage {
    /// With which probability (0 to 100) it ejects.
    pub(crate) enforcing: u32,
    /// The same for failures to connect and the like, where these are counted by themselves.
    pub(crate) enforcing_local: u32,
    /// The share, 0 to 100.
    pub(crate) threshold: u32,
    /// Hosts that it takes.
    pub(crate) minimum_hosts: u32,
    /// Requests in an interval that a host needs to count.
    pub(crate) request_volume: u32,
}

/// Counters of a cluster, by Envoy's names.
#[derive(Debug, Default)]
pub(crate) struct ClusterStats {
    /// `upstream_rq_total`.
    pub(crate) rq_total: AtomicU64,
    /// `external.…`: what was answered to clients.
    pub(crate) external: Answers,
    /// `internal.…`: what was answered to the proxy's own requests, copies included.
    pub(crate) internal: Answers,
    /// `grpc.…`: calls that the filter counts.
    pub(crate) grpc: GrpcStats,
    /// `retry.upstream_rq_<status>`: answers after which there was another attempt.
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
    /// `upstream_cx_destroy…`: connections that are no more, those that were never made included.
    pub(crate) cx_destroy: Closings,
    /// `upstream_cx_connect_ms`.
    pub(crate) cx_connect_time: Histogram,
    /// `upstream_cx_length_ms`.
    pub(crate) cx_length: Histogram,
    /// `membership_change`.
    pub(crate) membership_change: AtomicU64,
    /// `update_success`: endpoints that came.
    pub(crate) update_success: AtomicU64,
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
    /// How often hosts were ejected, and for what.
    pub(crate) ejections: Ejections,
    /// `upstream_cx_none_healthy`.
    pub(crate) cx_none_healthy: AtomicU64,
    /// `ssl.…`.
    pub(crate) ssl: TlsStats,
}

/// What was answered to requests of one sort.
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
    /// A host's answer, and how long after the request it came.
    pub(crate) fn answered(&self, status: u16, time: Duration) {
        self.count_status(status);
        self.time.record(time);
    }

    /// An answer, the proxy's own included where no host gave one.
    pub(crate) fn count_status(&self, status: u16) {
        self.classes.count(status);
        self.codes.count(status);
    }
}
