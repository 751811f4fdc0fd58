//! DestinationRules, lowered: traffic policies applied after routing.

use std::sync::Arc;
use std::time::Duration;

use super::{ExportTo, Labels};
use crate::name::{Hostname, ObjectId, Percent};

/// A DestinationRule.
#[derive(Clone, Debug, PartialEq)]
pub struct DestinationRule {
    /// The object.
    pub id: ObjectId,
    /// `apiVersion` as written, for Envoy's `istio.config` metadata.
    pub api_version: Arc<str>,
    /// `host`, fully qualified.
    pub host: Hostname,
    /// Visibility.
    pub export_to: ExportTo,
    /// `trafficPolicy`.
    pub policy: PolicyWithPorts,
    /// `subsets`.
    pub subsets: Vec<Subset>,
}

/// An entry of `subsets`.
#[derive(Clone, Debug, PartialEq)]
pub struct Subset {
    /// `name`.
    pub name: Arc<str>,
    /// `labels` an endpoint must have; empty selects all.
    pub labels: Labels,
    /// `trafficPolicy`.
    pub policy: PolicyWithPorts,
}

/// A traffic policy and its `portLevelSettings`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PolicyWithPorts {
    /// Policy for ports without their own.
    pub policy: TrafficPolicy,
    /// `portLevelSettings`: (port, policy). An entry replaces the policy, without merging.
    pub ports: Vec<(u16, TrafficPolicy)>,
}

/// `trafficPolicy`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TrafficPolicy {
    /// `loadBalancer`.
    pub load_balancer: Option<LoadBalancerPolicy>,
    /// `connectionPool`.
    pub connection_pool: Option<ConnectionPool>,
    /// `outlierDetection`.
    pub outlier_detection: Option<OutlierDetection>,
    /// `tls`.
    pub tls: Option<ClientTls>,
    /// `proxyProtocol`: version of the PROXY protocol header sent upstream. Cannot be set per port.
    pub proxy_protocol: Option<ProxyProtocol>,
}

/// A version of the PROXY protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ProxyProtocol {
    /// Text format.
    V1,
    /// Binary format.
    V2,
}

impl DestinationRule {
    /// The effective policy of a service port and subset (Istio's `GetPortLevelTrafficPolicy` and
    /// `MergeSubsetTrafficPolicy`). A port entry replaces the general policy; each block of a
    /// subset overrides that of its parent; a port entry of a subset replaces all blocks.
    pub fn effective(&self, port: u16, subset: Option<&Subset>) -> TrafficPolicy {
        let parent = self.policy.for_port(port);
        let Some(subset) = subset else {
            return parent.clone();
        };
        if let Some((_, policy)) = subset.policy.ports.iter().find(|(number, _)| *number == port) {
            return policy.clone();
        }
        let own = &subset.policy.policy;
        TrafficPolicy {
            load_balancer: own.load_balancer.clone().or_else(|| parent.load_balancer.clone()),
            connection_pool: own.connection_pool.clone().or_else(|| parent.connection_pool.clone()),
            outlier_detection: own
                .outlier_detection
                .clone()
                .or_else(|| parent.outlier_detection.clone()),
            tls: own.tls.clone().or_else(|| parent.tls.clone()),
            proxy_protocol: own.proxy_protocol.or(parent.proxy_protocol),
        }
    }
}

impl DestinationRule {
    /// Label keys of all `failoverPriority` settings; may repeat.
    pub fn failover_labels(&self) -> impl Iterator<Item = &str> {
        let subsets = self.subsets.iter().map(|subset| &subset.policy);
        let policies = std::iter::once(&self.policy)
            .chain(subsets)
            .flat_map(PolicyWithPorts::all);
        let settings = policies.filter_map(|policy| policy.load_balancer.as_ref()?.locality.as_ref());
        settings.flat_map(LocalityLb::failover_labels)
    }
}

impl PolicyWithPorts {
    fn all(&self) -> impl Iterator<Item = &TrafficPolicy> {
        std::iter::once(&self.policy).chain(self.ports.iter().map(|(_, policy)| policy))
    }

    fn for_port(&self, port: u16) -> &TrafficPolicy {
        self.ports
            .iter()
            .find(|(number, _)| *number == port)
            .map_or(&self.policy, |(_, policy)| policy)
    }
}

/// `loadBalancer`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LoadBalancerPolicy {
    /// `simple` or `consistentHash`; `None` means least request.
    pub algorithm: Option<LbAlgorithm>,
    /// `localityLbSetting`; `None` means the mesh's.
    pub locality: Option<LocalityLb>,
    /// `warmup`.
    pub warmup: Option<Warmup>,
}

/// Slow start (`warmup`).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Warmup {
    /// Slow start window.
    pub duration: Duration,
    /// `minimumPercent`; Envoy's default is 10 %.
    pub minimum: Option<Percent>,
    /// `aggression`; Envoy's default of 1 ramps up linearly.
    pub aggression: Option<f64>,
}

/// Load balancing algorithm.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LbAlgorithm {
    /// `LEAST_REQUEST`, `LEAST_CONN` and `UNSPECIFIED`.
    LeastRequest,
    /// `ROUND_ROBIN`.
    RoundRobin,
    /// `RANDOM`.
    Random,
    /// `PASSTHROUGH`: the original destination.
    Passthrough,
    /// `consistentHash`.
    Hash {
        /// The hash key.
        key: HashKey,
        /// The hash table.
        table: HashTable,
    },
}

/// Key for consistent hashing.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum HashKey {
    /// `httpHeaderName`.
    Header(Arc<str>),
    /// `httpCookie`.
    Cookie {
        /// `name`.
        name: Arc<str>,
        /// `path`; may be empty.
        path: Arc<str>,
        /// `ttl`; `None`: the cookie is not generated; zero: a session cookie.
        ttl: Option<Duration>,
        /// `attributes`.
        attributes: Vec<(Arc<str>, Arc<str>)>,
    },
    /// `useSourceIp`.
    SourceIp,
    /// `httpQueryParameterName`.
    QueryParameter(Arc<str>),
}

/// Consistent hashing algorithm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HashTable {
    /// `ringHash`, with `minimumRingSize` (1024).
    Ring(u64),
    /// `maglev`, with `tableSize` (65537).
    Maglev(u64),
}

/// `localityLbSetting`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalityLb {
    /// `enabled`; default true.
    pub enabled: bool,
    /// Weights or failover order.
    pub mode: LocalityMode,
}

impl Default for LocalityLb {
    /// Istio's default for the mesh: enabled, without rules.
    fn default() -> Self {
        Self {
            enabled: true,
            mode: LocalityMode::Failover(Vec::new()),
        }
    }
}

impl LocalityLb {
    /// `failoverPriority` by these labels.
    pub(super) fn by_labels(labels: &[&str]) -> Self {
        Self {
            enabled: true,
            mode: LocalityMode::FailoverPriority(labels.iter().map(|label| Arc::from(*label)).collect()),
        }
    }

    /// Label keys of `failoverPriority`.
    pub fn failover_labels(&self) -> impl Iterator<Item = &str> {
        let labels = match &self.mode {
            LocalityMode::FailoverPriority(labels) => labels.as_slice(),
            LocalityMode::Distribute(_) | LocalityMode::Failover(_) => &[],
        };
        labels
            .iter()
            .map(|label| label.split_once('=').map_or(&**label, |(key, _)| key))
    }
}

/// Rules of `localityLbSetting`; mutually exclusive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LocalityMode {
    /// `distribute`.
    Distribute(Vec<Distribution>),
    /// `failover`: (from region, to region). If empty, only by distance.
    Failover(Vec<(Arc<str>, Arc<str>)>),
    /// `failoverPriority`: labels, `name` or `name=value`.
    FailoverPriority(Vec<Arc<str>>),
}

/// An entry of `distribute`; localities may contain `*`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Distribution {
    /// `from`.
    pub from: Arc<str>,
    /// `to`: locality and weight; the weights add up to 100.
    pub to: Vec<(Arc<str>, u32)>,
}

/// `connectionPool`. `None` means the default, which is written as 0 in most fields.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConnectionPool {
    /// `tcp.maxConnections`.
    pub max_connections: Option<u32>,
    /// `tcp.connectTimeout`.
    pub connect_timeout: Option<Duration>,
    /// `tcp.tcpKeepalive`.
    pub tcp_keepalive: Option<TcpKeepalive>,
    /// `tcp.maxConnectionDuration`.
    pub max_connection_duration: Option<Duration>,
    /// `tcp.idleTimeout`; zero disables it.
    pub tcp_idle_timeout: Option<Duration>,
    /// `http.http1MaxPendingRequests`.
    pub max_pending_requests: Option<u32>,
    /// `http.http2MaxRequests`.
    pub max_requests: Option<u32>,
    /// `http.maxRequestsPerConnection`.
    pub max_requests_per_connection: Option<u32>,
    /// `http.maxRetries`.
    pub max_retries: Option<u32>,
    /// `http.idleTimeout`.
    pub http_idle_timeout: Option<Duration>,
    /// `http.h2UpgradePolicy`; `None` means the mesh's.
    pub h2_upgrade: Option<H2Upgrade>,
    /// `http.useClientProtocol`.
    pub use_client_protocol: bool,
    /// `http.maxConcurrentStreams`.
    pub max_concurrent_streams: Option<u32>,
    /// `http.http2KeepAlive`: (interval, timeout).
    pub http2_keepalive: Option<(Duration, Duration)>,
}

/// `tcpKeepalive`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpKeepalive {
    /// `probes`.
    pub probes: Option<u32>,
    /// `time`.
    pub time: Option<Duration>,
    /// `interval`.
    pub interval: Option<Duration>,
}

/// `h2UpgradePolicy`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum H2Upgrade {
    /// `DO_NOT_UPGRADE`.
    DoNotUpgrade,
    /// `UPGRADE`.
    Upgrade,
}

/// `outlierDetection`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OutlierDetection {
    /// `consecutive5xxErrors`; zero disables it.
    pub consecutive_5xx: Option<u32>,
    /// `consecutiveGatewayErrors`; zero disables it.
    pub consecutive_gateway: Option<u32>,
    /// `splitExternalLocalOriginErrors`.
    pub split_local_origin: bool,
    /// `consecutiveLocalOriginFailures`.
    pub consecutive_local_origin: Option<u32>,
    /// `interval`.
    pub interval: Option<Duration>,
    /// `baseEjectionTime`.
    pub base_ejection_time: Option<Duration>,
    /// `maxEjectionPercent`, 0 to 100; zero means the default.
    pub max_ejection_percent: Option<u32>,
    /// `minHealthPercent`, 0 to 100.
    pub min_health_percent: u32,
}

/// `tls` of a traffic policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientTls {
    /// `mode`.
    pub mode: ClientTlsMode,
    /// `subjectAltNames`.
    pub subject_alt_names: Vec<String>,
    /// `sni`.
    pub sni: Option<Arc<str>>,
}

/// `tls.mode` and the fields that depend on it. Paths are on the proxy's host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientTlsMode {
    /// `DISABLE`.
    Disable,
    /// `SIMPLE`, or `MUTUAL` if a certificate is given.
    Originate {
        /// `clientCertificate` and `privateKey`; required for `MUTUAL`.
        certificate: Option<(Arc<str>, Arc<str>)>,
        /// How the server certificate is verified.
        verify: ServerVerification,
    },
    /// `ISTIO_MUTUAL`.
    IstioMutual,
}

/// Verification of the server certificate in TLS origination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServerVerification {
    /// By the system's CA certificates (`caCertificates` absent or `system`).
    System,
    /// By CA certificates in a file, with an optional CRL.
    File {
        /// `caCertificates`.
        ca: Arc<str>,
        /// `caCrl`.
        crl: Option<Arc<str>>,
    },
    /// `insecureSkipVerify`: not at all.
    None,
}
