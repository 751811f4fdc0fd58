//! Clusters: groups of endpoints and the settings for connecting to them.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::{Origins, ResourceName};
use crate::mesh::config::TlsVersion;
use crate::mesh::destination_rule::{
    HashTable, OutlierDetection, ProxyProtocol, ServerVerification, TcpKeepalive, Warmup,
};
use crate::mesh::service::{Address, Locality};
use crate::name::{Hostname, Namespace, ObjectId};

/// A cluster (`envoy.config.cluster.v3.Cluster`).
#[derive(Clone, Debug, PartialEq)]
pub struct Cluster {
    /// `outbound|9080|v1|reviews.default.svc.cluster.local`, `inbound|9080||`, …
    pub name: ResourceName,
    /// How endpoints are discovered.
    pub discovery: Discovery,
    /// TCP connect timeout.
    pub connect_timeout: Duration,
    /// Load balancing policy.
    pub load_balancer: LoadBalancer,
    /// Slow start of new endpoints; for [`LoadBalancer::LeastRequest`] and
    /// [`LoadBalancer::RoundRobin`].
    pub warmup: Option<Warmup>,
    /// Whether localities are weighted (`locality_weighted_lb_config`).
    pub locality_weighted: bool,
    /// Circuit breakers.
    pub limits: Limits,
    /// Outlier detection.
    pub outlier_detection: Option<OutlierDetection>,
    /// `healthy_panic_threshold` in percent: below this share of healthy hosts all are used.
    /// Istio's default of 0 disables panic mode.
    pub panic_threshold: u32,
    /// HTTP settings for upstream connections.
    pub http: UpstreamHttp,
    /// TCP keepalive for upstream connections.
    pub tcp_keepalive: Option<TcpKeepalive>,
    /// Binds connections to [`INBOUND_SOURCE_V4`], so that interception passes them on to the
    /// application.
    pub marked_source: bool,
    /// Plaintext or TLS.
    pub transport: Transport,
    /// Version of the PROXY protocol header sent on each connection.
    pub proxy_protocol: Option<ProxyProtocol>,
    /// Metadata read by Istio's tools.
    pub metadata: ClusterMetadata,
    /// The objects it was built from.
    pub origins: Origins,
}

/// How the endpoints of a cluster are discovered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Discovery {
    /// EDS, from [`super::NodeConfig::endpoints`].
    Eds,
    /// Listed in the cluster (`STATIC`).
    Static(Arc<ClusterEndpoints>),
    /// All addresses the names resolve to (`STRICT_DNS`).
    StrictDns(Arc<ClusterEndpoints>, Lookup),
    /// One address at a time (`LOGICAL_DNS`).
    LogicalDns(Arc<ClusterEndpoints>, Lookup),
    /// The original destination of the connection (`ORIGINAL_DST`).
    OriginalDst {
        /// Overrides the destination port.
        port: Option<u16>,
        /// Whether it is an inbound cluster. These have few hosts, and hosts are not cleaned up.
        inbound: bool,
    },
}

/// DNS settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lookup {
    /// Refresh interval.
    pub refresh: Duration,
    /// Whether the proxy's main address is IPv6; determines the preferred address family.
    pub ipv6: bool,
}

/// Load balancing policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoadBalancer {
    /// `LEAST_REQUEST`.
    LeastRequest,
    /// `ROUND_ROBIN`.
    RoundRobin,
    /// `RANDOM`.
    Random,
    /// `RING_HASH` or `MAGLEV`.
    Hash(HashTable),
    /// `CLUSTER_PROVIDED`, for [`Discovery::OriginalDst`].
    ClusterProvided,
}

/// Circuit breaker thresholds. `None` means 2³²−1, Istio's default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// `max_connections`.
    pub connections: Option<u32>,
    /// `max_pending_requests`.
    pub pending_requests: Option<u32>,
    /// `max_requests`.
    pub requests: Option<u32>,
    /// `max_retries`.
    pub retries: Option<u32>,
}

/// HTTP options of a cluster (`HttpProtocolOptions`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UpstreamHttp {
    /// The HTTP version.
    pub version: HttpVersion,
    /// `max_concurrent_streams`, HTTP/2 only.
    pub max_concurrent_streams: Option<u32>,
    /// HTTP/2 keepalive: (interval, timeout).
    pub keepalive: Option<(Duration, Duration)>,
    /// `idle_timeout` of a connection.
    pub idle_timeout: Option<Duration>,
    /// `max_connection_duration`.
    pub max_connection_duration: Option<Duration>,
    /// `max_requests_per_connection`.
    pub max_requests_per_connection: Option<u32>,
    /// `auto_sni`: take the SNI from the request's host, for TLS origination without `sni`.
    pub auto_sni: bool,
    /// `auto_san_validation`: verify the server certificate's SAN against the SNI.
    pub auto_san_validation: bool,
}

/// HTTP version used upstream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HttpVersion {
    /// HTTP/1.1.
    #[default]
    Http1,
    /// HTTP/2.
    Http2,
    /// That of the downstream request (`use_downstream_protocol_config`).
    Downstream,
}

/// Transport socket of a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Transport {
    /// Plaintext.
    Plaintext,
    /// TLS for all endpoints.
    Tls(UpstreamTls),
    /// Auto mTLS: TLS for endpoints with the metadata `envoy.transport_socket_match.tlsMode:
    /// istio`, plaintext for the others.
    Auto(UpstreamTls),
}

/// TLS settings of a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UpstreamTls {
    /// Istio mutual TLS with the workload certificate (SDS `default` and `ROOTCA`).
    Istio {
        /// Accepted server identities.
        server: ServerIdentity,
        /// SNI.
        sni: Arc<str>,
        /// ALPN protocols, in order of preference.
        alpn: Vec<&'static str>,
        /// Minimum TLS version.
        oldest: TlsVersion,
    },
    /// TLS origination with certificates from files.
    Files {
        /// Paths of the client certificate and key, for `MUTUAL`.
        certificate: Option<(Arc<str>, Arc<str>)>,
        /// How the server certificate is verified.
        verify: ServerVerification,
        /// Accepted subject alternative names; empty accepts any.
        subject_alt_names: Vec<String>,
        /// SNI; if `None` see [`UpstreamHttp::auto_sni`].
        sni: Option<Arc<str>>,
        /// ALPN protocols, in order of preference.
        alpn: Vec<&'static str>,
    },
}

/// SPIFFE identities accepted from a server.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ServerIdentity {
    /// Any of these URIs, or names from `subjectAltNames`; never empty.
    Exact(Vec<String>),
    /// Any URI with one of these prefixes, which differ by trust domain alias. Used when the
    /// service account is not known, but the namespace is. Never empty.
    Prefixes(Vec<String>),
}

/// The `istio` metadata of a cluster, read by Istio's tools.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClusterMetadata {
    /// `config`: the DestinationRule and its apiVersion.
    pub config: Option<(ObjectId, Arc<str>)>,
    /// `services`: host, name and namespace.
    pub services: Vec<(Hostname, Arc<str>, Namespace)>,
    /// `subset`.
    pub subset: Option<Arc<str>>,
    /// `external`.
    pub external: bool,
}

/// The endpoints of a cluster (`ClusterLoadAssignment`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClusterEndpoints {
    /// The cluster's name.
    pub cluster: ResourceName,
    /// Groups of one locality and priority, sorted.
    pub localities: Vec<LocalityEndpoints>,
    /// The objects it was built from.
    pub origins: Origins,
}

/// Endpoints of one locality and priority (`LocalityLbEndpoints`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalityEndpoints {
    /// The locality.
    pub locality: Locality,
    /// Priority; 0 is the highest, and there are no gaps.
    pub priority: u32,
    /// Weight of the locality.
    pub weight: u32,
    /// The endpoints, sorted by address.
    pub endpoints: Vec<LbEndpoint>,
}

/// One endpoint of a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LbEndpoint {
    /// The address.
    pub address: Address,
    /// The port; 0 for Unix domain sockets.
    pub port: u16,
    /// Weight, at least 1.
    pub weight: u32,
    /// Whether `health_status` is HEALTHY; UNHEALTHY otherwise.
    pub healthy: bool,
    /// Whether it has the metadata `envoy.transport_socket_match.tlsMode: istio`.
    pub mutual_tls: bool,
    /// `istio.workload`: `<workload>;<namespace>;<canonical name>;<revision>;<cluster>`.
    pub workload: Option<Arc<str>>,
}

/// Source address of inbound connections to the application, which interception rules exempt from
/// redirection (127.0.0.6; `::6` for IPv6).
pub const INBOUND_SOURCE_V4: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(127, 0, 0, 6));
