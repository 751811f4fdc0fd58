//! Listeners: the addresses a proxy accepts connections on, and its filter chains.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use super::{Origins, ResourceName, RouteConfig};
use crate::mesh::config::{PathNormalization, TlsVersion};
use crate::name::TrustDomain;

/// A listener (`envoy.config.listener.v3.Listener`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// `0.0.0.0_9080`, `virtualInbound`, …
    pub name: ResourceName,
    /// The address.
    pub address: ListenAddress,
    /// `bind_to_port`. If false, connections are handed over by the listener with
    /// `use_original_dst`.
    pub bind: bool,
    /// `use_original_dst`: hand over connections to the listener of their original destination
    /// address.
    pub use_original_dst: bool,
    /// `transparent` (TPROXY).
    pub transparent: bool,
    /// Traffic direction.
    pub direction: Direction,
    /// Listener filters.
    pub inspection: Inspection,
    /// Filter chains. Envoy chooses the most specific match, whatever the order.
    pub chains: Vec<FilterChain>,
    /// Chain for connections that match no other.
    pub default_chain: Option<FilterChain>,
    /// The objects it was built from.
    pub origins: Origins,
}

/// Address of a listener.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ListenAddress {
    /// IP address and port.
    Ip(IpAddr, u16),
    /// Path of a Unix domain socket.
    Unix(Arc<str>),
}

/// Traffic direction of a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// To the workload.
    Inbound,
    /// From the workload.
    Outbound,
}

/// Listener filters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inspection {
    /// `original_dst`: restores the original destination address.
    pub original_dst: bool,
    /// `original_src` with this mark: keeps the client's source address (TPROXY).
    pub original_src_mark: Option<u32>,
    /// `tls_inspector`: detects TLS and reads SNI and ALPN.
    pub tls: Option<InspectExcept>,
    /// `http_inspector`: detects HTTP.
    pub http: Option<InspectExcept>,
    /// `listener_filters_timeout`; zero disables it. Filter chain matching proceeds when it
    /// expires.
    pub timeout: Option<Duration>,
}

/// Destination ports for which an inspector is disabled (`filter_disabled`); sorted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InspectExcept(pub Vec<u16>);

/// A filter chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilterChain {
    /// The name. Outbound chains have none, except `PassthroughFilterChain`.
    pub name: Option<Arc<str>>,
    /// Match criteria.
    pub matcher: ChainMatch,
    /// TLS settings for termination.
    pub tls: Option<DownstreamTls>,
    /// The terminal network filter.
    pub network: NetworkFilter,
}

/// Filter chain match; all criteria that are set must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct ChainMatch {
    /// The destination port.
    pub destination_port: Option<u16>,
    /// Destination addresses.
    pub prefix_ranges: Vec<IpNet>,
    /// SNI, wildcards included.
    pub server_names: Vec<Arc<str>>,
    /// Whether the connection is TLS.
    pub transport: Option<TransportProtocol>,
    /// ALPN protocols, or those detected by the HTTP inspector.
    pub application_protocols: Vec<&'static str>,
}

/// `transport_protocol` of a chain match.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TransportProtocol {
    /// `raw_buffer`.
    RawBuffer,
    /// `tls`.
    Tls,
}

/// Istio mutual TLS termination with the workload certificate (SDS `default` and `ROOTCA`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DownstreamTls {
    /// Trust domains accepted in client certificates.
    pub trust_domains: Vec<TrustDomain>,
    /// ALPN protocols, in order of preference.
    pub alpn: Vec<&'static str>,
    /// Minimum TLS version.
    pub oldest: TlsVersion,
}

/// The terminal network filter of a chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NetworkFilter {
    /// HTTP.
    Http(Box<HttpConnectionManager>),
    /// TCP proxy.
    Tcp(TcpProxy),
}

/// Settings of the HTTP connection manager.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpConnectionManager {
    /// `stat_prefix`.
    pub stat_prefix: Arc<str>,
    /// The route configuration or its RDS name.
    pub routes: RouteSource,
    /// Filters before the router, which is always last. Sorted by the order of the enum.
    pub filters: Vec<HttpFilter>,
    /// Server or client side of a request.
    pub role: HttpRole,
    /// Path normalization.
    pub path_normalization: PathNormalization,
}

/// Settings that differ between the two sides of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HttpRole {
    /// In front of the application: sets `server_name` and forwards the client certificate in
    /// `x-forwarded-client-cert` (`APPEND_FORWARD` with subject, dns and uri).
    Server,
    /// For requests from the application, whose `x-forwarded-client-cert` is removed.
    Client,
    /// Explicit HTTP proxy for the application (`allow_absolute_url`).
    ForwardProxy,
}

/// Source of the route configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RouteSource {
    /// RDS, by this name.
    Rds(ResourceName),
    /// Inline in the listener.
    Inline(Arc<RouteConfig>),
}

/// HTTP filters before the router. **The order of the variants is the order in the filter chain.**
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HttpFilter {
    /// `grpc_web`.
    GrpcWeb,
    /// `grpc_stats`.
    GrpcStats,
    /// Overrides the ALPN protocols offered upstream, for ports with protocol detection: filter
    /// state `envoy.network.application_protocols`. Istio uses its `istio.alpn` filter for this.
    UpstreamAlpn(Vec<&'static str>),
    /// Fault injection, configured per route.
    Fault,
    /// CORS, configured per route.
    Cors,
}

/// Settings of the TCP proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TcpProxy {
    /// `stat_prefix`.
    pub stat_prefix: Arc<str>,
    /// Clusters and their weights; never empty.
    pub clusters: Vec<(ResourceName, u32)>,
    /// `idle_timeout`; `None` is Envoy's default of one hour, zero disables it.
    pub idle_timeout: Option<Duration>,
    /// `max_downstream_connection_duration`.
    pub max_connection_duration: Option<Duration>,
    /// Hash on the source IP, for consistent hashing.
    pub hash_source_ip: bool,
}
