//! Clusters: named sets of endpoints and how they are talked to.

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

/// A cluster.
#[derive(Clone, Debug, PartialEq)]
pub struct Cluster {
    /// `outbound|9080|v1|reviews.default.svc.cluster.local`, `inbound|9080||`, …
    pub name: ResourceName,
    /// How endpoints are found.
    pub discovery: Discovery,
    /// How long connecting may take.
    pub connect_timeout: Duration,
    /// How an endpoint is chosen.
    pub load_balancer: LoadBalancer,
    /// Less traffic for new endpoints, with [`LoadBalancer::LeastRequest`] and [`LoadBalancer::RoundRobin`].
    pub warmup: Option<Warmup>,
    /// Whether localities have weights (`locality_weighted_lb_config`).
    pub locality_weighted: bool,
    /// Limits.
    pub limits: Limits,
    /// Ejection of failing endpoints.
    pub outlier_detection: Option<OutlierDetection>,
    /// Below this share of healthy endpoints (0 to 100) all are used; Istio's default 0 is never.
    pub panic_threshold: u32,
    /// HTTP to the endpoints.
    pub http: UpstreamHttp,
    /// Keep-alive probes on connections.
    pub tcp_keepalive: Option<TcpKeepalive>,
    /// Connections come from [`INBOUND_SOURCE_V4`], so that interception lets them through to the application.
    pub marked_source: bool,
    /// Plaintext or TLS.
    pub transport: Transport,
    /// In which version of the PROXY protocol endpoints are told whose connection it is, before all else.
    pub proxy_protocol: Option<ProxyProtocol>,
    /// What Istio's tools look for in the cluster's metadata.
    pub metadata: ClusterMetadata,
    /// The objects it was made from.
    pub origins: Origins,
}

/// How the endpoints of a cluster are found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Discovery {
    /// From [`super::NodeConfig::endpoints`] under the cluster's name.
    Eds,
    /// Listed in the cluster.
    Static(Arc<ClusterEndpoints>),
    /// All addresses of the names in the cluster (`STRICT_DNS`).
    StrictDns(Arc<ClusterEndpoints>, Lookup),
    /// One address at a time (`LOGICAL_DNS`).
    LogicalDns(Arc<ClusterEndpoints>, Lookup),
    /// Where the client wanted to go (`ORIGINAL_DST`).
    OriginalDst {
        /// Another port than the client's.
        port: Option<u16>,
        /// An inbound cluster, whose few hosts are never cleaned up.
        inbound: bool,
    },
}

/// How names are looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lookup {
    /// How often.
    pub refresh: Duration,
    /// Whether the proxy is one of IPv6: the family that is preferred where a name has addresses of both.
    pub ipv6: bool,
}

/// How an endpoint is chosen.
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

/// Circuit breakers; none means 2³²−1, Istio's default.
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
    /// The version spoken.
    pub version: HttpVersion,
    /// `max_concurrent_streams`, HTTP/2 only.
    pub max_concurrent_streams: Option<u32>,
    /// HTTP/2 pings: (interval, timeout).
    pub keepalive: Option<(Duration, Duration)>,
    /// `idle_timeout` of connections.
    pub idle_timeout: Option<Duration>,
    /// `max_connection_duration`.
    pub max_connection_duration: Option<Duration>,
    /// `max_requests_per_connection`.
    pub max_requests_per_connection: Option<u32>,
    /// Take SNI from the request's host (`auto_sni`), for originated TLS without `sni`.
    pub auto_sni: bool,
    /// Verify the server's name against the SNI (`auto_san_validation`).
    pub auto_san_validation: bool,
}

/// The version of HTTP spoken to endpoints.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HttpVersion {
    /// HTTP/1.1.
    #[default]
    Http1,
    /// HTTP/2.
    Http2,
    /// The client's (`use_downstream_protocol_config`).
    Downstream,
}

/// Plaintext or TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Transport {
    /// Plaintext.
    Plaintext,
    /// TLS to every endpoint.
    Tls(UpstreamTls),
    /// Automatic mutual TLS: TLS to endpoints whose metadata say so
    /// (`envoy.transport_socket_match.tlsMode: istio`), plaintext to the others.
    Auto(UpstreamTls),
}

/// TLS to endpoints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UpstreamTls {
    /// Istio mutual TLS with the workload's certificate (SDS `default` and `ROOTCA`).
    Istio {
        /// Which identities the server may have.
        server: ServerIdentity,
        /// SNI.
        sni: Arc<str>,
        /// ALPN offered, in order.
        alpn: Vec<&'static str>,
        /// The oldest version of TLS.
        oldest: TlsVersion,
    },
    /// Originated TLS with certificates of files.
    Files {
        /// Certificate and key paths, for MUTUAL.
        certificate: Option<(Arc<str>, Arc<str>)>,
        /// How the server is verified.
        verify: ServerVerification,
        /// Names of which the server must have one; none: any.
        subject_alt_names: Vec<String>,
        /// SNI; none: see [`UpstreamHttp::auto_sni`].
        sni: Option<Arc<str>>,
        /// ALPN offered, in order.
        alpn: Vec<&'static str>,
    },
}

/// Which SPIFFE identities are accepted of a server.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ServerIdentity {
    /// One of these URIs (or names, from `subjectAltNames`); never empty.
    Exact(Vec<String>),
    /// Any URI that starts with one of these, each with an alias of the trust domain: no service account is known,
    /// the namespace still is. Never empty.
    Prefixes(Vec<String>),
}

/// What Istio's tools read from a cluster's `istio` metadata.
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
    /// The objects it was made from.
    pub origins: Origins,
}

/// Endpoints of one locality and priority.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalityEndpoints {
    /// The locality.
    pub locality: Locality,
    /// 0 is preferred; without gaps.
    pub priority: u32,
    /// Weight of the locality.
    pub weight: u32,
    /// The endpoints, sorted by address.
    pub endpoints: Vec<LbEndpoint>,
}

/// One endpoint of a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LbEndpoint {
    /// Where.
    pub address: Address,
    /// The port; 0 for Unix sockets.
    pub port: u16,
    /// Weight, at least 1.
    pub weight: u32,
    /// False: UNHEALTHY.
    pub healthy: bool,
    /// `envoy.transport_socket_match.tlsMode: istio`.
    pub mutual_tls: bool,
    /// `istio.workload`: `<workload>;<namespace>;<canonical name>;<revision>;<cluster>`.
    pub workload: Option<Arc<str>>,
}

/// The address inbound connections to the application come from, by which interception knows them
/// (127.0.0.6 and ::6).
pub const INBOUND_SOURCE_V4: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(127, 0, 0, 6));
