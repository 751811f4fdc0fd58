//! `DestinationRule` of `networking.istio.io`: policies applied to traffic for a service after
//! routing.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::value::{Duration, Unsupported};
use super::virtual_service::PortSelector;

/// The spec of a DestinationRule.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DestinationRule {
    /// The service, or a wildcard. A short name is resolved in the object's namespace.
    pub host: String,
    /// Policy for all ports and subsets.
    pub traffic_policy: Option<TrafficPolicy>,
    /// Named subsets of the service's endpoints.
    pub subsets: Vec<Subset>,
    /// Namespaces to whose proxies the object is visible: `.`, `*` or names.
    pub export_to: Vec<String>,
    /// Restricts the rule to certain client workloads.
    pub workload_selector: Option<Unsupported>,
}

/// `subsets[]`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Subset {
    /// The name that routes refer to.
    pub name: String,
    /// Labels an endpoint must have; empty selects all endpoints.
    pub labels: BTreeMap<String, String>,
    /// Overrides of the rule's policy.
    pub traffic_policy: Option<TrafficPolicy>,
}

/// `trafficPolicy` of a rule or a subset.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TrafficPolicy {
    /// Load balancing algorithm and locality preferences.
    pub load_balancer: Option<LoadBalancer>,
    /// Connection limits and timeouts.
    pub connection_pool: Option<ConnectionPool>,
    /// Passive health checking.
    pub outlier_detection: Option<OutlierDetection>,
    /// TLS to the upstream; determined by auto mTLS when unset.
    pub tls: Option<ClientTls>,
    /// Per-port overrides; each replaces the whole policy for its port.
    pub port_level_settings: Vec<PortTrafficPolicy>,
    /// Tunnels TCP through an HTTP proxy (CONNECT).
    pub tunnel: Option<Unsupported>,
    /// Sends a PROXY protocol header upstream.
    pub proxy_protocol: Option<ProxyProtocol>,
    /// Limits concurrent retries to a share of active requests.
    pub retry_budget: Option<Unsupported>,
}

/// `trafficPolicy.proxyProtocol`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ProxyProtocol {
    /// Version of the header.
    pub version: ProxyProtocolVersion,
}

/// `trafficPolicy.proxyProtocol.version`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub enum ProxyProtocolVersion {
    /// Text format.
    #[default]
    V1,
    /// Binary format.
    V2,
}

/// `trafficPolicy.portLevelSettings[]`: replaces the policy for one port of the service.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PortTrafficPolicy {
    /// The port of the service.
    pub port: Option<PortSelector>,
    /// Load balancing algorithm and locality preferences.
    pub load_balancer: Option<LoadBalancer>,
    /// Connection limits and timeouts.
    pub connection_pool: Option<ConnectionPool>,
    /// Passive health checking.
    pub outlier_detection: Option<OutlierDetection>,
    /// TLS to the upstream; determined by auto mTLS when unset.
    pub tls: Option<ClientTls>,
}

/// `loadBalancer`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LoadBalancer {
    /// An algorithm; mutually exclusive with `consistentHash`.
    pub simple: Option<SimpleLoadBalancer>,
    /// Session affinity by consistent hashing.
    pub consistent_hash: Option<ConsistentHash>,
    /// Locality load balancing; defaults to the mesh's setting.
    pub locality_lb_setting: Option<LocalityLbSetting>,
    /// Envoy's zone-aware routing.
    pub zone_aware_lb_setting: Option<Unsupported>,
    /// Slow start; deprecated form of `warmup`.
    pub warmup_duration_secs: Option<Duration>,
    /// Slow start for new endpoints; mutually exclusive with `warmupDurationSecs`.
    pub warmup: Option<Warmup>,
}

/// `loadBalancer.warmup`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Warmup {
    /// Length of the slow start window.
    pub duration: Option<Duration>,
    /// Initial share of the endpoint's weight, in percent; default 10.
    pub minimum_percent: Option<f64>,
    /// Exponent of the ramp; default 1, linear.
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
    /// A random endpoint.
    Random,
    /// The original destination address.
    Passthrough,
    /// Round robin.
    RoundRobin,
    /// The endpoint with fewer active requests of two random ones.
    LeastRequest,
}

/// `loadBalancer.consistentHash`: exactly one hash key, and at most one algorithm.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ConsistentHash {
    /// Hash on this header.
    pub http_header_name: Option<String>,
    /// Hash on a cookie.
    pub http_cookie: Option<HttpCookie>,
    /// Hash on the source IP address.
    pub use_source_ip: Option<bool>,
    /// Hash on this query parameter.
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
    /// Its path attribute.
    pub path: String,
    /// Lifetime. If unset, Envoy does not generate the cookie; 0 makes it a session cookie.
    pub ttl: Option<Duration>,
    /// Further attributes.
    pub attributes: Vec<HttpCookieAttribute>,
}

/// `consistentHash.httpCookie.attributes[]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HttpCookieAttribute {
    /// The name.
    pub name: String,
    /// The value; empty for a flag attribute.
    pub value: String,
}

/// `consistentHash.ringHash`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RingHash {
    /// Minimum number of hashes on the ring; default 1024.
    pub minimum_ring_size: u64,
}

/// `consistentHash.maglev`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MagLev {
    /// Size of the lookup table, a prime; default 65537.
    pub table_size: u64,
}

/// `localityLbSetting` of a rule or the mesh.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LocalityLbSetting {
    /// Explicit weights; mutually exclusive with `failover`.
    pub distribute: Vec<LocalityDistribute>,
    /// Failover region by client region.
    pub failover: Vec<LocalityFailover>,
    /// Labels compared with those of the client to determine the priority, most significant first.
    pub failover_priority: Vec<String>,
    /// Whether locality load balancing is enabled; default true.
    pub enabled: Option<bool>,
}

/// `localityLbSetting.distribute[]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LocalityDistribute {
    /// The client's locality, `region/zone/subzone`; components may be `*`.
    pub from: String,
    /// Weight in percent by endpoint locality; must add up to 100.
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

/// `connectionPool`. In its numbers, 0 means the default, which is no limit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ConnectionPool {
    /// Settings for TCP and HTTP.
    pub tcp: Option<TcpSettings>,
    /// Settings for HTTP only.
    pub http: Option<HttpSettings>,
}

/// `connectionPool.tcp`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TcpSettings {
    /// Maximum number of connections to the service.
    pub max_connections: i32,
    /// TCP connect timeout; defaults to the mesh's.
    pub connect_timeout: Option<Duration>,
    /// TCP keepalive; defaults to the mesh's.
    pub tcp_keepalive: Option<TcpKeepalive>,
    /// Maximum lifetime of a connection.
    pub max_connection_duration: Option<Duration>,
    /// Idle timeout; default 1 h, 0 disables it.
    pub idle_timeout: Option<Duration>,
}

/// `tcpKeepalive` of a connection pool or the mesh; unset fields use the system's defaults.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TcpKeepalive {
    /// Unanswered probes until the connection is considered dead.
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
    /// Maximum number of requests waiting for a connection; applies to all HTTP versions.
    pub http1_max_pending_requests: i32,
    /// Maximum number of active requests; applies to all HTTP versions.
    pub http2_max_requests: i32,
    /// Maximum number of requests per connection.
    pub max_requests_per_connection: i32,
    /// Maximum number of concurrent retries.
    pub max_retries: i32,
    /// Idle timeout of connections without active requests; default 1 h.
    pub idle_timeout: Option<Duration>,
    /// Whether HTTP/1.1 requests are sent upstream as HTTP/2.
    pub h2_upgrade_policy: H2UpgradePolicy,
    /// Whether the downstream HTTP version is used upstream.
    pub use_client_protocol: bool,
    /// Maximum number of concurrent streams per HTTP/2 connection.
    pub max_concurrent_streams: i32,
    /// HTTP/2 keepalive PINGs.
    pub http2_keep_alive: Option<Http2KeepAlive>,
}

/// `connectionPool.http.http2KeepAlive`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Http2KeepAlive {
    /// Interval between PINGs.
    pub interval: Option<Duration>,
    /// Timeout for the PING response.
    pub timeout: Option<Duration>,
}

/// `connectionPool.http.h2UpgradePolicy`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum H2UpgradePolicy {
    /// The mesh's `h2UpgradePolicy`.
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
    /// Deprecated; has no effect.
    pub consecutive_errors: i32,
    /// Whether locally originated failures are counted separately from upstream errors.
    pub split_external_local_origin_errors: bool,
    /// Consecutive locally originated failures before ejection; needs
    /// `splitExternalLocalOriginErrors`.
    pub consecutive_local_origin_failures: Option<u32>,
    /// Consecutive 502, 503 or 504 responses before ejection; 0 disables it.
    pub consecutive_gateway_errors: Option<u32>,
    /// Consecutive 5xx responses before ejection; default 5, 0 disables it.
    #[serde(rename = "consecutive5xxErrors")]
    pub consecutive_5xx_errors: Option<u32>,
    /// Interval between ejection sweeps; default 10 s.
    pub interval: Option<Duration>,
    /// Base ejection time; default 30 s.
    pub base_ejection_time: Option<Duration>,
    /// The greatest share of endpoints taken out, per cent; 10 when 0.
    pub max_ejection_percent: i32,
    /// Below this share of healthy endpoints, per cent, health is disregarded.
    pub min_health_percent: i32,
    /// Status codes counted as errors, 100 to 599; all 5xx when empty.
    pub outlier_detection_http_error_codes: Vec<u32>,
}

/// `tls`: TLS settings for connections to an upstream.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ClientTls {
    /// The TLS mode.
    pub mode: ClientTlsMode,
    /// Path of the client certificate, for `MUTUAL`.
    pub client_certificate: String,
    /// Path of its private key, for `MUTUAL`.
    pub private_key: String,
    /// Path of the CA certificates; the system's when empty.
    pub ca_certificates: String,
    /// Name of a secret that holds the certificate, key and CA certificates.
    pub credential_name: String,
    /// Subject alternative names, one of which the server certificate must have.
    pub subject_alt_names: Vec<String>,
    /// SNI to send.
    pub sni: String,
    /// Whether verification of the server certificate is skipped.
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
    /// Mutual TLS with the client certificate given here.
    Mutual,
    /// Mutual TLS with the workload's own certificate.
    IstioMutual,
}
