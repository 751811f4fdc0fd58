//! Listeners: what a proxy accepts and what it does with it.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use super::{Origins, ResourceName, RouteConfig};
use crate::mesh::config::{PathNormalization, TlsVersion};
use crate::name::TrustDomain;

/// A listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// `0.0.0.0_9080`, `virtualInbound`, …
    pub name: ResourceName,
    /// Where.
    pub address: ListenAddress,
    /// Whether a socket is bound; else connections arrive from the original-destination listener.
    pub bind: bool,
    /// `use_original_dst`: hands connections to the listener of their original address.
    pub use_original_dst: bool,
    /// `transparent` (TPROXY).
    pub transparent: bool,
    /// Which way traffic goes.
    pub direction: Direction,
    /// What is looked at before a chain is chosen.
    pub inspection: Inspection,
    /// Chains; the most specific match wins, whatever the order.
    pub chains: Vec<FilterChain>,
    /// What no chain matches.
    pub default_chain: Option<FilterChain>,
    /// The objects it was made from.
    pub origins: Origins,
}

/// Where a listener listens.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ListenAddress {
    /// Address and port.
    Ip(IpAddr, u16),
    /// A Unix domain socket path.
    Unix(Arc<str>),
}

/// Which way a listener's traffic goes.
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
    /// `original_dst`: the address the client dialled.
    pub original_dst: bool,
    /// `original_src` with this mark: keeps the client's address (TPROXY).
    pub original_src_mark: Option<u32>,
    /// `tls_inspector`: SNI, ALPN and whether it is TLS.
    pub tls: Option<InspectExcept>,
    /// `http_inspector`: whether it is HTTP.
    pub http: Option<InspectExcept>,
    /// `listener_filters_timeout`; zero: no limit. Matching goes on after it.
    pub timeout: Option<Duration>,
}

/// Destination ports that an inspector leaves alone (`filter_disabled`); sorted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InspectExcept(pub Vec<u16>);

/// A filter chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilterChain {
    /// The name; outbound chains have none but `PassthroughFilterChain`.
    pub name: Option<Arc<str>>,
    /// Which connections it takes.
    pub matcher: ChainMatch,
    /// TLS termination.
    pub tls: Option<DownstreamTls>,
    /// What it does with them.
    pub network: NetworkFilter,
}

/// Which connections a chain takes; everything that is set must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct ChainMatch {
    /// The destination port.
    pub destination_port: Option<u16>,
    /// Destination addresses.
    pub prefix_ranges: Vec<IpNet>,
    /// SNI, with wildcards.
    pub server_names: Vec<Arc<str>>,
    /// Plaintext or TLS.
    pub transport: Option<TransportProtocol>,
    /// ALPN, or what the HTTP inspector found.
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

/// Istio mutual TLS termination with the workload's certificate (SDS `default` and `ROOTCA`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DownstreamTls {
    /// Peers need an identity of one of these trust domains.
    pub trust_domains: Vec<TrustDomain>,
    /// ALPN accepted, in order.
    pub alpn: Vec<&'static str>,
    /// The oldest version of TLS.
    pub oldest: TlsVersion,
}

/// What a chain does with a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NetworkFilter {
    /// HTTP.
    Http(Box<HttpConnectionManager>),
    /// Bytes.
    Tcp(TcpProxy),
}

/// HTTP handling of a chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpConnectionManager {
    /// `stat_prefix`.
    pub stat_prefix: Arc<str>,
    /// Where routes come from.
    pub routes: RouteSource,
    /// Filters before the router, which is always last. Sorted by the enum's order.
    pub filters: Vec<HttpFilter>,
    /// Server or client side.
    pub role: HttpRole,
    /// How paths are normalised.
    pub path_normalization: PathNormalization,
}

/// What differs between the two sides of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HttpRole {
    /// In front of the application: `server_name` is set and the client's certificate is forwarded
    /// in `x-forwarded-client-cert` (APPEND_FORWARD with subject, dns and uri).
    Server,
    /// For the application's calls; what it sent in `x-forwarded-client-cert` is removed.
    Client,
    /// An explicit HTTP proxy for the application (`allow_absolute_url`).
    ForwardProxy,
}

/// Where routes come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RouteSource {
    /// RDS, under this name.
    Rds(ResourceName),
    /// In the listener.
    Inline(Arc<RouteConfig>),
}

/// HTTP filters before the router. **The order of declaration is the order in the chain.**
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HttpFilter {
    /// Translates gRPC-Web.
    GrpcWeb,
    /// gRPC statistics.
    GrpcStats,
    /// Offers these protocols upstream instead of the cluster's (sniffed ports; Istio uses its own
    /// `istio.alpn` filter): filter state `envoy.network.application_protocols`.
    UpstreamAlpn(Vec<&'static str>),
    /// Injected faults, configured by route.
    Fault,
    /// CORS, configured by route.
    Cors,
}

/// TCP handling of a chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TcpProxy {
    /// `stat_prefix`.
    pub stat_prefix: Arc<str>,
    /// Clusters and their shares; never empty.
    pub clusters: Vec<(ResourceName, u32)>,
    /// `idle_timeout`; none: Envoy's hour, zero: none at all.
    pub idle_timeout: Option<Duration>,
    /// `max_downstream_connection_duration`.
    pub max_connection_duration: Option<Duration>,
    /// Hash of the client's address, for consistent hashing.
    pub hash_source_ip: bool,
}
