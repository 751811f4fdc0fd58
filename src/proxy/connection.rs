//! What is known of a downstream connection and of a stream on it, for routing, headers and access logs (Envoy's
//! `StreamInfo`).

use std::borrow::Cow;
use std::cell::RefCell;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant, SystemTime};

use http::HeaderValue;
use rustls::pki_types::CertificateDer;

use super::flags::Flags;
use super::http::meter::Meter;
use super::tls::{Certificate, LazyText};
use super::turn;
use super::upstream::cluster::Cluster;
use super::upstream::connect::Source;
use super::upstream::host::Host;

/// The address of a peer or of a listener.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Address {
    /// An address and port.
    Ip(SocketAddr),
    /// A Unix domain socket: a path, or an abstract name after `@`. As in Envoy, clients count as having the socket's
    /// address.
    Unix(Arc<Path>),
}

impl Address {
    /// The IP address and port, unless it is a Unix domain socket.
    pub(crate) fn socket(&self) -> Option<SocketAddr> {
        match self {
            Address::Ip(address) => Some(*address),
            Address::Unix(_) => None,
        }
    }

    /// The IP address, unless it is a Unix domain socket.
    pub(crate) fn ip(&self) -> Option<IpAddr> {
        self.socket().map(|address| address.ip())
    }

    /// The port, unless it is a Unix domain socket.
    pub(crate) fn port(&self) -> Option<u16> {
        self.socket().map(|address| address.port())
    }

    /// The IP address, or else the path.
    pub(crate) fn without_port(&self) -> String {
        self.ip().map_or_else(|| self.to_string(), |ip| ip.to_string())
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Ip(address) => address.fmt(f),
            Address::Unix(path) => path.display().fmt(f),
        }
    }
}

/// A connection id, downstream or upstream, unique in this process.
pub(crate) fn next_id() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Relaxed)
}

/// A downstream connection.
#[derive(Debug)]
pub(crate) struct Connection {
    /// Its id, unique in this process.
    pub(crate) id: u64,
    /// The destination address: the original one if the connection was redirected.
    pub(crate) local: Address,
    /// The client's address.
    pub(crate) remote: Address,
    /// The peer's address, which is a proxy's if the client's was told by the PROXY protocol.
    pub(crate) direct: Address,
    /// The socket's local address.
    pub(crate) direct_local: Address,
    /// The source address for upstream connections (`original_src`).
    pub(crate) source: Option<Source>,
    /// SNI, in lower case.
    pub(crate) sni: Option<Box<str>>,
    /// TLS, if terminated here.
    pub(crate) tls: Option<PeerTls>,
    /// The name of the filter chain.
    pub(crate) chain: Arc<str>,
    /// When it was accepted.
    pub(crate) start: Instant,
}

/// The TLS properties of a connection and its peer.
#[derive(Debug, Default)]
pub(crate) struct PeerTls {
    /// URI SANs of the peer's certificate.
    pub(crate) uri_sans: Vec<String>,
    /// DNS SANs of the peer's certificate.
    pub(crate) dns_sans: Vec<String>,
    /// IP SANs of the peer's certificate, separated by commas.
    pub(crate) ip_sans: LazyText,
    /// E-mail SANs of the peer's certificate, separated by commas.
    pub(crate) email_sans: LazyText,
    /// The subject (RFC 2253).
    pub(crate) subject: LazyText,
    /// The issuer (RFC 2253).
    pub(crate) issuer: LazyText,
    /// The serial number, in hex.
    pub(crate) serial: LazyText,
    /// Start of validity.
    pub(crate) valid_from: LazyText,
    /// End of validity.
    pub(crate) valid_until: LazyText,
    /// SHA-256 of the peer's certificate, in hex.
    pub(crate) fingerprint: LazyText,
    /// The peer's certificate as URL-encoded PEM, for `x-forwarded-client-cert`.
    pub(crate) pem: LazyText,
    /// The peer's certificate chain.
    pub(crate) chain: Rc<[CertificateDer<'static>]>,
    /// Whether the peer presented a certificate, which has then been verified.
    pub(crate) presented: bool,
    /// Our certificate, if there is one.
    pub(crate) own: Option<Arc<Certificate>>,
    /// `TLSv1.3` or `TLSv1.2`.
    pub(crate) version: &'static str,
    /// OpenSSL name of the cipher suite.
    pub(crate) cipher: &'static str,
    /// OpenSSL name of the key exchange group.
    pub(crate) group: &'static str,
}

/// The route name before a route is known.
static NO_NAME: LazyLock<Arc<str>> = LazyLock::new(|| Arc::from(""));

/// A request and its response, or a TCP connection, up to now.
#[derive(Debug)]
pub(crate) struct Stream {
    /// When it started.
    pub(crate) start: Instant,
    /// When it started, by the wall clock.
    pub(crate) start_time: SystemTime,
    /// The HTTP version; `None` for TCP.
    pub(crate) protocol: Option<http::Version>,
    /// The client's address, if `x-forwarded-for` told one.
    pub(crate) remote: Option<IpAddr>,
    /// Response flags.
    pub(crate) flags: Flags,
    /// The response status; 0 until there is one.
    pub(crate) status: u16,
    /// `%RESPONSE_CODE_DETAILS%`.
    pub(crate) details: Option<Cow<'static, str>>,
    /// `%DOWNSTREAM_LOCAL_CLOSE_REASON%`: why we closed a TCP connection.
    pub(crate) local_close: Option<&'static str>,
    /// How the downstream connection ended.
    pub(crate) downstream_close: CloseType,
    /// How the upstream connection ended.
    pub(crate) upstream_close: CloseType,
    /// The name of the route.
    pub(crate) route: Arc<str>,
    /// The selected cluster.
    pub(crate) cluster: Option<Arc<Cluster>>,
    /// The host of the last attempt.
    pub(crate) host: Option<Arc<Host>>,
    /// The upstream connection, once there is one.
    pub(crate) carried: RefCell<Option<UpstreamInfo>>,
    /// `%UPSTREAM_TRANSPORT_FAILURE_REASON%`.
    pub(crate) transport_failure: Option<Box<str>>,
    /// The hosts of earlier attempts, for TCP.
    pub(crate) earlier: Vec<Arc<Host>>,
    /// Attempts so far.
    pub(crate) attempts: u32,
    /// `%TRACE_ID%`.
    pub(crate) trace_id: Option<u128>,
    /// Whether it is a health check answered by the proxy.
    pub(crate) health_check: bool,
    /// Whether a service forced it to be traced.
    pub(crate) trace_forced: bool,
    /// The request id.
    pub(crate) request_id: Option<HeaderValue>,
    /// Bytes of the request body, or from the TCP client.
    pub(crate) bytes_received: u64,
    /// Bytes of the response body, or to the TCP client.
    pub(crate) bytes_sent: u64,
    /// Downstream bytes on the wire, if access logs need them.
    pub(crate) downstream_bytes: Option<Rc<Meter>>,
    /// Upstream bytes on the wire, of all attempts together.
    pub(crate) upstream_bytes: Option<Rc<Meter>>,
    /// Times since the start.
    pub(crate) timing: Timing,
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum CloseType {
    /// Normally, or not yet.
    #[default]
    Normal,
    /// We reset it.
    LocalReset,
    /// The peer reset it.
    RemoteReset,
}

impl CloseType {
    /// Envoy's name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            CloseType::Normal => "Normal",
            CloseType::LocalReset => "LocalReset",
            CloseType::RemoteReset => "RemoteReset",
        }
    }
}

/// The upstream connection of a stream.
#[derive(Clone, Debug)]
pub(crate) struct UpstreamInfo {
    /// Our end of it.
    pub(crate) near: LocalEnd,
    /// The HTTP version; `None` for TCP.
    pub(crate) protocol: Option<http::Version>,
}

/// What our end of an upstream connection tells.
#[derive(Clone, Debug, Default)]
pub(crate) struct LocalEnd {
    /// Its id, unique in this process.
    pub(crate) id: u64,
    /// The local address.
    pub(crate) local: Option<SocketAddr>,
    /// TLS properties, if it uses TLS.
    pub(crate) tls: Option<Rc<PeerTls>>,
}

/// Times of a stream's events, from its start.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Timing {
    /// The last byte of the request was received.
    pub(crate) request_received: Option<Duration>,
    /// The host's response headers were received.
    pub(crate) upstream_first_rx: Option<Duration>,
    /// The first byte was sent to the client.
    pub(crate) downstream_first_tx: Option<Duration>,
    /// The last byte of a complete response was sent to the client.
    pub(crate) downstream_last_tx: Option<Duration>,
    /// The stream ended.
    pub(crate) end: Option<Duration>,
}

impl Stream {
    /// A stream that starts now.
    pub(crate) fn new(protocol: Option<http::Version>) -> Self {
        Self {
            start: turn::now().into_std(),
            start_time: SystemTime::now(),
            protocol,
            remote: None,
            flags: Flags::default(),
            status: 0,
            details: None,
            local_close: None,
            downstream_close: CloseType::Normal,
            upstream_close: CloseType::Normal,
            route: NO_NAME.clone(),
            cluster: None,
            host: None,
            carried: RefCell::new(None),
            earlier: Vec::new(),
            transport_failure: None,
            attempts: 0,
            trace_id: None,
            health_check: false,
            trace_forced: false,
            request_id: None,
            bytes_received: 0,
            bytes_sent: 0,
            downstream_bytes: None,
            upstream_bytes: None,
            timing: Timing::default(),
        }
    }

    /// Time since the start.
    pub(crate) fn elapsed(&self) -> Duration {
        turn::now().into_std().saturating_duration_since(self.start)
    }

    /// Sets the flags and details of a local reply or a failure.
    pub(crate) fn blame(&mut self, flags: Flags, details: impl Into<Cow<'static, str>>) {
        self.flags.set(flags);
        self.details = Some(details.into());
    }
}
