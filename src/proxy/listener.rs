//! Listeners: what is accepted, and which filter chain takes it.

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
    /// Where: at its address, which comes first, and at additional ones.
    pub(crate) addresses: Box<[ListenAddress]>,
    /// How a socket is bound; none: connections come from the original-destination listener.
    pub(crate) bind: Option<Bind>,
    /// Whether its connections are open to all whatever the process' limit is (`ignore_global_conn_limit`).
    pub(crate) unlimited: bool,
    /// How many connections are accepted before those there are get their turn; none: what the worker thinks fit.
    pub(crate) accept_at_once: Option<u32>,
    /// `use_original_dst`: connections go to the listener of their original address, if there is one.
    pub(crate) use_original_dst: bool,
    /// What is looked at before a chain is chosen.
    pub(crate) inspection: Inspection,
    /// Filter chains by what they match.
    pub(crate) chains: ChainIndex,
    /// Which way traffic goes.
    pub(crate) direction: Direction,
    /// What stands in the names of its counters: its address, unless something else was said.
    pub(crate) stat_prefix: Arc<str>,
    /// Counters.
    pub(crate) stats: Arc<ListenerStats>,
}

impl Listener {
    /// Whether it listens on a port.
    pub(crate) fn has_port(&self, port: Option<u16>) -> bool {
        port.is_some() && self.addresses.iter().any(|one| one.address.port() == port)
    }

    /// All filter chains, the default one included.
    pub(crate) fn filter_chains(&self) -> impl Iterator<Item = &Arc<FilterChain>> {
        self.chains.chains.iter().chain(&self.chains.default)
    }

    /// Their connection managers.
    pub(crate) fn managers(&self) -> impl Iterator<Item = &HttpManager> {
        self.filter_chains().filter_map(|chain| match &chain.network {
            NetworkFilter::Http(manager) => Some(&**manager),
            NetworkFilter::Tcp(_) => None,
        })
    }
}

/// Where a listener listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ListenAddress {
    /// The address.
    pub(crate) address: Address,
    /// Permissions of a Unix domain socket's file; none: what the system gives it.
    pub(crate) mode: Option<u32>,
    /// Whether `::` is for IPv4 as well (`ipv4_compat`).
    pub(crate) with_ipv4: bool,
}

/// How a socket is bound. Two listeners of equal address and `Bind` can share one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bind {
    /// A socket for each worker (`SO_REUSEPORT`), or one for all.
    pub(crate) reuse_port: bool,
    /// `IP_TRANSPARENT`.
    pub(crate) transparent: bool,
    /// `IP_FREEBIND`.
    pub(crate) freebind: bool,
    /// The kernel's queue.
    pub(crate) backlog: u32,
    /// Keep-alive probes of the connections accepted.
    pub(crate) keepalive: Option<TcpKeepalive>,
}

/// Which way a listener's traffic goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) enum Direction {
    /// Not said.
    #[default]
    Unspecified,
    /// To the workload.
    Inbound,
    /// From the workload.
    Outbound,
}

/// What is looked at before a chain is chosen (listener filters).
#[derive(Clone, Debug, Default)]
pub(crate) struct Inspection {
    /// The address the client dialled (`original_dst`).
    pub(crate) original_dst: bool,
    /// What a proxy before us says of the connection (`proxy_protocol`).
    pub(crate) proxy_protocol: Option<ProxyProtocol>,
    /// Connections to hosts come from the client's address, with this mark (`original_src`).
    pub(crate) original_src: Option<u32>,
    /// SNI, ALPN and whether it is TLS, but for these ports (`tls_inspector`).
    pub(crate) tls: Option<Vec<PortRange>>,
    /// Whether it is HTTP, but for these ports (`http_inspector`).
    pub(crate) http: Option<Vec<PortRange>>,
    /// How long that may take; none: no limit.
    pub(crate) timeout: Option<Duration>,
    /// Whether matching goes on after that time, or the connection ends.
    pub(crate) continue_on_timeout: bool,
}

/// Ports from the first to before the second.
pub(crate) type PortRange = (u16, u32);

/// A compiled `FilterChain`.
#[derive(Debug)]
pub(crate) struct FilterChain {
    /// The name; may be empty.
    pub(crate) name: Arc<str>,
    /// Which connections it takes.
    pub(crate) matcher: ChainMatch,
    /// TLS termination.
    pub(crate) tls: Option<Arc<DownstreamTls>>,
    /// How long the TLS handshake may take; none: no limit.
    pub(crate) handshake_timeout: Option<Duration>,
    /// What it does.
    pub(crate) network: NetworkFilter,
    /// The hash of its message: a chain that is the same in the listener's next version is kept, and so are its
    /// connections.
    pub(crate) content: u64,
    /// Set when the chain is gone or replaced: its connections end as soon as they can.
    pub(crate) draining: super::worker::drain::Draining,
}

/// What a chain does with a connection.
#[derive(Debug)]
pub(crate) enum NetworkFilter {
    /// HTTP.
    Http(Arc<HttpManager>),
    /// Bytes.
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
