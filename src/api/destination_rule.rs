//! `DestinationRule` of `networking.istio.io`: how a service is called once it is chosen.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::value::{Duration, Unsupported};
use super::virtual_service::PortSelector;

/// The spec of a DestinationRule.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DestinationRule {
    /// The service or wildcard of services. A short name belongs to the object's namespace.
    pub host: String,
    /// How all of its ports and subsets are called.
    pub traffic_policy: Option<TrafficPolicy>,
    /// Named parts of the service's endpoints.
    pub subsets: Vec<Subset>,
    /// Namespaces whose proxies see the object: `.`, `*` or names.
    pub export_to: Vec<String>,
    /// The clients that the rule is for.
    pub workload_selector: Option<Unsupported>,
}

/// `subsets[]`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Subset {
    /// The name that routes refer to.
    pub name: String,
    /// Labels that an endpoint must all have; none select all endpoints.
    pub labels: BTreeMap<String, String>,
    /// What differs from the rule's policy.
    pub traffic_policy: Option<TrafficPolicy>,
}

/// `trafficPolicy` of a rule or a subset.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TrafficPolicy {
    /// How an endpoint is chosen.
    pub load_balancer: Option<LoadBalancer>,
    /// Limits and timeouts of connections.
    pub connection_pool: Option<ConnectionPool>,
    /// When an endpoint is taken out.
    pub outlier_detection: Option<OutlierDetection>,
    /// TLS towards the endpoint; decided by auto mTLS when unset.
    pub tls: Option<ClientTls>,
    /// Replacements for single ports.
    pub port_level_settings: Vec<PortTrafficPolicy>,
    /// Tunnels TCP through another proxy.
    pub tunnel: Option<Unsupported>,
    /// Sends the PROXY protocol's header.
    pub proxy_protocol: Option<ProxyProtocol>,
    /// Limits retries to a share of the requests.
    pub retry_budget: Option<Unsupported>,
}

/// `trafficPolicy.proxyProtocol`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ProxyProtocol {
    /// Which version.
    pub version: ProxyProtocolVersion,
}

/// `trafficPolicy.proxyProtocol.version`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub enum ProxyProtocolVersion {
    /// A line of text.
    #[default]
    V1,
    /// In binary.
    V2,
}

/// `trafficPolicy.portLevelSettings[]`: replaces the policy for one port of the service.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PortTrafficPolicy {
    /// The port of the service.
    pub port: Option<PortSelector>,
    /// How an endpoint is chosen.
    pub load_balancer: Option<LoadBalancer>,
    /// Limits and timeouts of connections.
    pub connection_pool: Option<ConnectionPool>,
    /// When an endpoint is taken out.
    pub outlier_detection: Option<OutlierDetection>,
    /// TLS towards the endpoint; decided by auto mTLS when unset.
    pub tls: Option<ClientTls>,
}

/// `loadBalancer`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LoadBalancer {
    /// An algorithm without parameters; excludes `consistentHash`.
    pub simple: Option<SimpleLoadBalancer>,
    /// The same endpoint for the same key.
    pub consistent_hash: Option<ConsistentHash>,
    /// Preferences between localities; the mesh's when unset.
    pub locality_lb_setting: Option<LocalityLbSetting>,
    /// Envoy's zone-aware routing.
    pub zone_aware_lb_setting: Option<Unsupported>,
    /// Less traffic for new endpoints, deprecated form.
    pub warmup_duration_secs: Option<Duration>,
    /// Less traffic for new endpoints; excludes `warmupDurationSecs`.
    pub warmup: Option<Warmup>,
}

/// `loadBalancer.warmup`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Warmup {
    /// How long an endpoint is new.
    pub duration: Option<Duration>,
    /// The least share of its traffic, in per cent; 10 when unset.
    pub minimum_percent: Option<f64>,
    /// How fast its traffic grows; 1, evenly with time, when unset.
    pub aggression: Option<f64>,
}

/// `loadBalancer.simple`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum SimpleLoadBalancer {
    /// Istio's default, `LEAST_REQUEST`.
    #[default]
    Unspecified,
    /// Deprecated name of `LEAST_REQUEST`.
    LeastConn,
    /// Any endpoint.
    Random,
    /// The address that the client called.
    Passthrough,
    /// One after the other.
    RoundRobin,
    /// The less loaded of two random endpoints.
    LeastRequest,
}

/// `loadBalancer.consistentHash`: one key and at most one algorithm.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ConsistentHash {
    /// The key is this header.
    pub http_header_name: Option<String>,
    /// The key is a cookie.
    pub http_cookie: Option<HttpCookie>,
    /// The key is the client's address.
    pub use_source_ip: Option<bool>,
    /// The key is this query parameter.
    pub http_query_parameter_name: Option<String>,
    /// Ring hash (Ketama).
    pub ring_hash: Option<RingHash>,
    /// Maglev.
    pub maglev: Option<MagLev>,
    /// Deprecated form of `ringHash.minimumRingSize`.
    pub minimum_ring_size: u64,
}

/// `consistentHash.httpCookie`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HttpCookie {
    /// The cookie's name.
    pub name: String,
    /// Its path.
    pub path: String,
    /// How long it lasts: unset, Envoy never sets the cookie; 0, until the session ends.
    pub ttl: Option<Duration>,
    /// More attributes.
    pub attributes: Vec<HttpCookieAttribute>,
}

/// `consistentHash.httpCookie.attributes[]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HttpCookieAttribute {
    /// The name.
    pub name: String,
    /// The value; empty for a flag.
    pub value: String,
}

/// `consistentHash.ringHash`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RingHash {
    /// The least number of nodes on the ring; 1024 when 0.
    pub minimum_ring_size: u64,
}

/// `consistentHash.maglev`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MagLev {
    /// A prime number; 65537 when unset.
    pub table_size: u64,
}

/// `localityLbSetting` of a rule or the mesh.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LocalityLbSetting {
    /// Fixed shares; excludes `failover`.
    pub distribute: Vec<LocalityDistribute>,
    /// Where a region's traffic goes when the region is down.
    pub failover: Vec<LocalityFailover>,
    /// Labels whose equality with the client's decides the priority, the most important first.
    pub failover_priority: Vec<String>,
    /// Whether localities matter at all; true when unset.
    pub enabled: Option<bool>,
}

/// `localityLbSetting.distribute[]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LocalityDistribute {
    /// The client's locality, `region/zone/subzone`, parts may be `*`.
    pub from: String,
    /// Per cent by the endpoints' locality; the sum is 100.
    pub to: BTreeMap<String, u32>,
}

/// `localityLbSetting.failover[]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LocalityFailover {
    /// The client's region.
    pub from: String,
    /// The region to use instead.
    pub to: String,
}

/// `connectionPool`. Of its numbers, 0 is the default and no limit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ConnectionPool {
    /// For every protocol.
    pub tcp: Option<TcpSettings>,
    /// For HTTP.
    pub http: Option<HttpSettings>,
}

/// `connectionPool.tcp`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TcpSettings {
    /// Connections to the service.
    pub max_connections: i32,
    /// The longest time to connect; the mesh's when unset.
    pub connect_timeout: Option<Duration>,
    /// Keep-alive; the mesh's when unset.
    pub tcp_keepalive: Option<TcpKeepalive>,
    /// The longest life of a connection.
    pub max_connection_duration: Option<Duration>,
    /// How long a connection may be idle; 1 h when unset, for ever when 0.
    pub idle_timeout: Option<Duration>,
}

/// `tcpKeepalive` of a pool or the mesh; the system's values where unset.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TcpKeepalive {
    /// Probes without an answer until the connection is dead.
    pub probes: u32,
    /// Idle time before the first probe.
    pub time: Option<Duration>,
    /// Time between probes.
    pub interval: Option<Duration>,
}

/// `connectionPool.http`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HttpSettings {
    /// Requests that wait for a connection, whatever the HTTP version.
    pub http1_max_pending_requests: i32,
    /// Requests at a time, whatever the HTTP version.
    pub http2_max_requests: i32,
    /// Requests on one connection before it is closed.
    pub max_requests_per_connection: i32,
    /// Retries at a time.
    pub max_retries: i32,
    /// How long a connection may be without requests; 1 h when unset.
    pub idle_timeout: Option<Duration>,
    /// Whether HTTP/1.1 goes upstream as HTTP/2.
    pub h2_upgrade_policy: H2UpgradePolicy,
    /// Whether the client's HTTP version is kept.
    pub use_client_protocol: bool,
    /// Streams at a time on one HTTP/2 connection.
    pub max_concurrent_streams: i32,
    /// HTTP/2 PINGs.
    pub http2_keep_alive: Option<Http2KeepAlive>,
}

/// `connectionPool.http.http2KeepAlive`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Http2KeepAlive {
    /// Time between PINGs.
    pub interval: Option<Duration>,
    /// How long to wait for the answer.
    pub timeout: Option<Duration>,
}

/// `connectionPool.http.h2UpgradePolicy`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum H2UpgradePolicy {
    /// As the mesh says.
    #[default]
    Default,
    /// Never.
    DoNotUpgrade,
    /// Always.
    Upgrade,
}

/// `outlierDetection`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct OutlierDetection {
    /// Deprecated, without effect.
    pub consecutive_errors: i32,
    /// Whether errors of the connection are counted apart from those of the server.
    pub split_external_local_origin_errors: bool,
    /// Errors of the connection in a row; needs `splitExternalLocalOriginErrors`.
    pub consecutive_local_origin_failures: Option<u32>,
    /// 502, 503 and 504 in a row; 0 is off.
    pub consecutive_gateway_errors: Option<u32>,
    /// 5xx in a row; 5 when unset, 0 is off.
    #[serde(rename = "consecutive5xxErrors")]
    pub consecutive_5xx_errors: Option<u32>,
    /// Time between two sweeps; 10 s when unset.
    pub interval: Option<Duration>,
    /// How long the first ejection lasts; 30 s when unset.
    pub base_ejection_time: Option<Duration>,
    /// The greatest share of endpoints taken out, per cent; 10 when 0.
    pub max_ejection_percent: i32,
    /// Below this share of healthy endpoints, per cent, health is disregarded.
    pub min_health_percent: i32,
    /// Statuses that count as errors, 100 to 599; the 5xx when empty.
    pub outlier_detection_http_error_codes: Vec<u32>,
}

/// `tls`: TLS towards an upstream.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ClientTls {
    /// Whether, and with whose certificates.
    pub mode: ClientTlsMode,
    /// Path of the client certificate, for `MUTUAL`.
    pub client_certificate: String,
    /// Path of its key, for `MUTUAL`.
    pub private_key: String,
    /// Path of the CA certificates; the system's when empty.
    pub ca_certificates: String,
    /// Name of a secret with all three.
    pub credential_name: String,
    /// Subject alternative names, one of which the server must have.
    pub subject_alt_names: Vec<String>,
    /// Server name to send.
    pub sni: String,
    /// Whether the server's certificate is taken unseen.
    pub insecure_skip_verify: Option<bool>,
    /// Path of a certificate revocation list.
    pub ca_crl: String,
}

/// `tls.mode`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ClientTlsMode {
    /// No TLS.
    #[default]
    Disable,
    /// TLS without a client certificate.
    Simple,
    /// TLS with the client certificate given here.
    Mutual,
    /// TLS with the workload's own certificate.
    IstioMutual,
}
