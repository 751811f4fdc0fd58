//! DestinationRules, lowered: how a host is talked to once a route has chosen it.

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
    /// Who sees it.
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
    /// `labels`: endpoints that have them all; none selects all.
    pub labels: Labels,
    /// `trafficPolicy`.
    pub policy: PolicyWithPorts,
}

/// A traffic policy with its `portLevelSettings`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PolicyWithPorts {
    /// What applies to ports without a setting of their own.
    pub policy: TrafficPolicy,
    /// `portLevelSettings`: (port, policy). A port's entry replaces the policy, it does not merge.
    pub ports: Vec<(u16, TrafficPolicy)>,
}

/// What is said by `trafficPolicy`.
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
    /// `proxyProtocol`: in which version endpoints are told whose connection it is. Of a port alone it cannot be said.
    pub proxy_protocol: Option<ProxyProtocol>,
}

/// A version of the PROXY protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ProxyProtocol {
    /// A line of text.
    V1,
    /// In binary.
    V2,
}

impl DestinationRule {
    /// The policy in force for a service port and a subset (Istio's `GetPortLevelTrafficPolicy` and
    /// `MergeSubsetTrafficPolicy`): a port's entry replaces the general policy; a subset's blocks
    /// override its parent's one by one; a subset's port entry replaces all four.
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
    /// Keys of the labels in every `failoverPriority`, repeats included.
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
    /// `simple` or `consistentHash`; none means least request.
    pub algorithm: Option<LbAlgorithm>,
    /// `localityLbSetting`; none means the mesh's.
    pub locality: Option<LocalityLb>,
    /// `warmup`.
    pub warmup: Option<Warmup>,
}

/// Less traffic for new endpoints (`warmup`).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Warmup {
    /// How long an endpoint is new.
    pub duration: Duration,
    /// The least share of its traffic; Envoy's 10 % when unset.
    pub minimum: Option<Percent>,
    /// Its traffic grows with this root of time; evenly with time when unset.
    pub aggression: Option<f64>,
}

/// How an endpoint is chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LbAlgorithm {
    /// `LEAST_REQUEST`, `LEAST_CONN` and `UNSPECIFIED`.
    LeastRequest,
    /// `ROUND_ROBIN`.
    RoundRobin,
    /// `RANDOM`.
    Random,
    /// `PASSTHROUGH`: where the client wanted to go.
    Passthrough,
    /// `consistentHash`.
    Hash {
        /// What is hashed.
        key: HashKey,
        /// Over which structure.
        table: HashTable,
    },
}

/// What a consistent hash is taken of.
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
        /// `ttl`; none: never generated, zero: a session cookie.
        ttl: Option<Duration>,
        /// `attributes`.
        attributes: Vec<(Arc<str>, Arc<str>)>,
    },
    /// `useSourceIp`.
    SourceIp,
    /// `httpQueryParameterName`.
    QueryParameter(Arc<str>),
}

/// The structure behind a consistent hash.
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
    /// `enabled`, true.
    pub enabled: bool,
    /// How localities are preferred.
    pub mode: LocalityMode,
}

impl Default for LocalityLb {
    /// Istio's mesh default: on, without further rules.
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

    /// Keys of the labels in `failoverPriority`.
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

/// The rules of `localityLbSetting`; at most one kind is given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LocalityMode {
    /// `distribute`.
    Distribute(Vec<Distribution>),
    /// `failover`: (from region, to region). Empty: nearest first.
    Failover(Vec<(Arc<str>, Arc<str>)>),
    /// `failoverPriority`: labels, `name` or `name=value`.
    FailoverPriority(Vec<Arc<str>>),
}

/// An entry of `distribute`; localities may hold `*`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Distribution {
    /// `from`.
    pub from: Arc<str>,
    /// `to`: locality and weight; weights sum up to 100.
    pub to: Vec<(Arc<str>, u32)>,
}

/// `connectionPool`. Zero in the file means the default and is `None` here.
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
    /// `tcp.idleTimeout`; zero turns it off.
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
    /// `http.h2UpgradePolicy`; none means the mesh's.
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
    /// `consecutive5xxErrors`; zero turns it off.
    pub consecutive_5xx: Option<u32>,
    /// `consecutiveGatewayErrors`; zero turns it off.
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

/// `tls.mode` with what belongs to it. Paths are read by the proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientTlsMode {
    /// `DISABLE`.
    Disable,
    /// `SIMPLE` and, with a certificate, `MUTUAL`.
    Originate {
        /// `clientCertificate` and `privateKey`; required for MUTUAL.
        certificate: Option<(Arc<str>, Arc<str>)>,
        /// How the server is verified.
        verify: ServerVerification,
    },
    /// `ISTIO_MUTUAL`.
    IstioMutual,
}

/// How the server of an originated TLS connection is verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServerVerification {
    /// Against the system's CAs (`caCertificates` absent or `system`).
    System,
    /// Against the CAs of a file, and a revocation list if given (`caCertificates`, `caCrl`).
    File {
        /// `caCertificates`.
        ca: Arc<str>,
        /// `caCrl`.
        crl: Option<Arc<str>>,
    },
    /// `insecureSkipVerify`.
    None,
}
