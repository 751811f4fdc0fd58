//! Listeners: accepting connections, listener filters, and the choice of the filter chain.

pub(crate) mod accept;
pub(crate) mod chain;
pub(crate) mod inspect;
pub(crate) mod limit;
mod origin;
pub(crate) mod proxy_protocol;
mod serve;

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use super::connection::Address;
use super::http::HttpManager;
use super::tcp::TcpProxy;
use super::tls::{DownstreamTls, TlsStats};
use super::upstream::cluster::TcpKeepalive;
use chain::{ChainIndex, ChainMatch};
use proxy_protocol::ProxyProtocol;

/// A compiled `Listener`.
#[derive(Debug)]
pub(crate) struct Listener {
    /// The name.
    pub(crate) name: Arc<str>,
    /// The addresses: the main one first, then the additional ones.
    pub(crate) addresses: Box<[ListenAddress]>,
    /// How sockets are bound; `None` (`bind_to_port: false`): connections come only from the listener with
    /// `use_original_dst`.
    pub(crate) bind: Option<Bind>,
    /// `ignore_global_conn_limit`.
    pub(crate) unlimited: bool,
    /// `max_connections_to_accept_per_socket_event`; `None`: a default.
    pub(crate) accept_at_once: Option<u32>,
    /// `use_original_dst`: connections are handed to the listener of their original destination, if there is one.
    pub(crate) use_original_dst: bool,
    /// Listener filters.
    pub(crate) inspection: Inspection,
    /// Filter chains.
    pub(crate) chains: ChainIndex,
    /// `traffic_direction`.
    pub(crate) direction: Direction,
    /// The part of its counters' names that identifies it: its address, or `stat_prefix`.
    pub(crate) stat_prefix: Arc<str>,
    /// Counters.
    pub(crate) stats: Arc<ListenerStats>,
}

impl Listener {
    /// Whether it has an address with this port.
    pub(crate) fn has_port(&self, port: Option<u16>) -> bool {
        port.is_some() && self.addresses.iter().any(|one| one.address.port() == port)
    }

    /// All filter chains, with the default one.
    pub(crate) fn filter_chains(&self) -> impl Iterator<Item = &Arc<FilterChain>> {
        self.chains.chains.iter().chain(&self.chains.default)
    }

    /// All HTTP connection managers.
    pub(crate) fn managers(&self) -> impl Iterator<Item = &HttpManager> {
        self.filter_chains().filter_map(|chain| match &chain.network {
            NetworkFilter::Http(manager) => Some(&**manager),
            NetworkFilter::Tcp(_) => None,
        })
    }
}

/// An address of a listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ListenAddress {
    /// The address.
    pub(crate) address: Address,
    /// Permissions of a Unix domain socket; `None`: the process' umask decides.
    pub(crate) mode: Option<u32>,
    /// `ipv4_compat`: whether `::` accepts IPv4, too.
    pub(crate) with_ipv4: bool,
}

/// How sockets are bound. Two listeners with the same address and `Bind` can share one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bind {
    /// `enable_reuse_port`: a socket for each worker (`SO_REUSEPORT`), or one for all.
    pub(crate) reuse_port: bool,
    /// `IP_TRANSPARENT`.
    pub(crate) transparent: bool,
    /// `IP_FREEBIND`.
    pub(crate) freebind: bool,
    /// `tcp_backlog_size`.
    pub(crate) backlog: u32,
    /// TCP keepalive of accepted connections.
    pub(crate) keepalive: Option<TcpKeepalive>,
}

/// The direction of a listener's traffic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) enum Direction {
    /// Unspecified.
    #[default]
    Unspecified,
    /// To the workload.
    Inbound,
    /// From the workload.
    Outbound,
}

/// The listener filters of a listener, in effect before a filter chain is matched.
#[derive(Clone, Debug, Default)]
pub(crate) struct Inspection {
    /// `original_dst`: restores the address that the client dialled.
    pub(crate) original_dst: bool,
    /// `proxy_protocol`: reads a PROXY protocol header.
    pub(crate) proxy_protocol: Option<ProxyProtocol>,
    /// `original_src`: upstream connections use the client's address, with this socket mark.
    pub(crate) original_src: Option<u32>,
    /// `tls_inspector`: detects TLS, SNI and ALPN, except on these ports.
    pub(crate) tls: Option<Vec<PortRange>>,
    /// `http_inspector`: detects HTTP, except on these ports.
    pub(crate) http: Option<Vec<PortRange>>,
    /// `listener_filters_timeout`; `None`: no limit.
    pub(crate) timeout: Option<Duration>,
    /// `continue_on_listener_filters_timeout`.
    pub(crate) continue_on_timeout: bool,
}

/// A half-open range of ports.
pub(crate) type PortRange = (u16, u32);

/// A compiled `FilterChain`.
#[derive(Debug)]
pub(crate) struct FilterChain {
    /// The name; may be empty.
    pub(crate) name: Arc<str>,
    /// Which connections it matches.
    pub(crate) matcher: ChainMatch,
    /// TLS termination.
    pub(crate) tls: Option<Arc<DownstreamTls>>,
    /// `transport_socket_connect_timeout`: limit of the TLS handshake; `None`: no limit.
    pub(crate) handshake_timeout: Option<Duration>,
    /// The terminal network filter.
    pub(crate) network: NetworkFilter,
    /// A hash of the configuration. A chain that is unchanged in the listener's next version keeps its connections.
    pub(crate) content: u64,
    /// Set when the chain is removed or replaced: its connections then close as soon as they can.
    pub(crate) draining: super::worker::drain::Draining,
}

/// The terminal network filter of a chain.
#[derive(Debug)]
pub(crate) enum NetworkFilter {
    /// `envoy.filters.network.http_connection_manager`.
    Http(Arc<HttpManager>),
    /// `envoy.filters.network.tcp_proxy`.
    Tcp(Arc<TcpProxy>),
}

/// Counters of a listener, by Envoy's names.
#[derive(Debug, Default)]
pub(crate) struct ListenerStats {
    /// `downstream_cx_total`.
    pub(crate) cx_total: AtomicU64,
    /// `downstream_cx_active`.
    pub(crate) cx_active: AtomicU64,
    /// `no_filter_chain_match`.
    pub(crate) no_filter_chain_match: AtomicU64,
    /// `downstream_cx_destroy`.
    pub(crate) cx_destroy: AtomicU64,
    /// `downstream_pre_cx_active`.
    pub(crate) pre_cx_active: AtomicU64,
    /// `downstream_global_cx_overflow`.
    pub(crate) global_overflow: AtomicU64,
    /// `downstream_listener_filter_remote_close`.
    pub(crate) inspection_closed: AtomicU64,
    /// `downstream_pre_cx_timeout`.
    pub(crate) inspection_timeout: AtomicU64,
    /// `downstream_cx_transport_socket_connect_timeout`.
    pub(crate) handshake_timeout: AtomicU64,
    /// `ssl.…`.
    pub(crate) ssl: TlsStats,
}
