//! What is known of a downstream connection and of a stream on it, for routing, headers and logs.

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

/// Where an end of a connection is, or where a listener listens.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Address {
    /// An address and port.
    Ip(SocketAddr),
    /// A Unix domain socket, by its path, or by a name after an `@`. A client of one has none of its own and gets that of
    /// the socket, as in Envoy.
    Unix(Arc<Path>),
}

impl Address {
    /// The IP address and port, if it has them.
    pub(crate) fn socket(&self) -> Option<SocketAddr> {
        match self {
            Address::Ip(address) => Some(*address),
            Address::Unix(_) => None,
        }
    }

    /// The IP address, if it has one.
    pub(crate) fn ip(&self) -> Option<IpAddr> {
        self.socket().map(|address| address.ip())
    }

    /// The port, if it has one.
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

/// A number for a connection, of a client or to a host, unique in this process.
pub(crate) fn next_id() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Relaxed)
}

/// A downstream connection.
#[derive(Debug)]
pub(crate) struct Connection {
    /// Its number, unique in this process.
    pub(crate) id: u64,
    /// The address the client dialled, by original destination where traffic is intercepted.
    pub(crate) local: Address,
    /// The client's address.
    pub(crate) remote: Address,
    /// The peer's address: a proxy's, where one says whose connection it is (PROXY protocol).
    pub(crate) direct: Address,
    /// Our own address on it, whatever the client dialled.
    pub(crate) direct_local: Address,
    /// Where connections to hosts have to come from.
    pub(crate) source: Option<Source>,
    /// The server name the client asked for, lower case.
    pub(crate) sni: Option<Box<str>>,
    /// TLS, if it is terminated here.
    pub(crate) tls: Option<PeerTls>,
    /// The name of the filter chain.
    pub(crate) chain: Arc<str>,
    /// When it was accepted.
    pub(crate) start: Instant,
}

/// What a client or a host showed in TLS.
#[derive(Debug, Default)]
pub(crate) struct PeerTls {
    /// URI names of its certificate.
    pub(crate) uri_sans: Vec<String>,
    /// DNS names of its certificate.
    pub(crate) dns_sans: Vec<String>,
    /// IP addresses of its certificate, with commas between.
    pub(crate) ip_sans: LazyText,
    /// E-mail addresses of its certificate, with commas between.
    pub(crate) email_sans: LazyText,
    /// The subject (RFC 2253).
    pub(crate) subject: LazyText,
    /// The subject of who issued it.
    pub(crate) issuer: LazyText,
    /// The serial number, in hex.
    pub(crate) serial: LazyText,
    /// From when on it is valid.
    pub(crate) valid_from: LazyText,
    /// Until when it is valid.
    pub(crate) valid_until: LazyText,
    /// SHA-256 of its certificate, in hex.
    pub(crate) fingerprint: LazyText,
    /// Its certificate as PEM, URL-encoded; for `x-forwarded-client-cert` with `Cert`.
    pub(crate) pem: LazyText,
    /// Its certificates, its own first.
    pub(crate) chain: Rc<[CertificateDer<'static>]>,
    /// Whether it showed a certificate, which then is verified.
    pub(crate) presented: bool,
    /// Our own certificate, if there is one.
    pub(crate) own: Option<Arc<Certificate>>,
    /// `TLSv1.3` or `TLSv1.2`.
    pub(crate) version: &'static str,
    /// The cipher suite by its OpenSSL name.
    pub(crate) cipher: &'static str,
    /// The group of the key exchange by its OpenSSL name.
    pub(crate) group: &'static str,
}

/// The name of a route that is not known yet.
static NO_NAME: LazyLock<Arc<str>> = LazyLock::new(|| Arc::from(""));

/// A request and its response, or a TCP connection, as far as it has got.
#[derive(Debug)]
pub(crate) struct Stream {
    /// When it began.
    pub(crate) start: Instant,
    /// When it began, by the wall clock.
    pub(crate) start_time: SystemTime,
    /// `HTTP/1.1`, `HTTP/2` or `HTTP/1.0`; none for TCP.
    pub(crate) protocol: Option<http::Version>,
    /// The client's address, if a proxy before us told one.
    pub(crate) remote: Option<IpAddr>,
    /// Why the response is not the endpoint's own.
    pub(crate) flags: Flags,
    /// The status; 0 until there is one.
    pub(crate) status: u16,
    /// `%RESPONSE_CODE_DETAILS%`.
    pub(crate) details: Option<Cow<'static, str>>,
    /// Why we closed a TCP connection (`%DOWNSTREAM_LOCAL_CLOSE_REASON%`), if we did.
    pub(crate) local_close: Option<&'static str>,
    /// How the client's connection ended.
    pub(crate) downstream_close: CloseType,
    /// How the host's did.
    pub(crate) upstream_close: CloseType,
    /// The name of the route.
    pub(crate) route: Arc<str>,
    /// The cluster it was sent to.
    pub(crate) cluster: Option<Arc<Cluster>>,
    /// The host it was sent to last.
    pub(crate) host: Option<Arc<Host>>,
    /// The connection to the host, once there is one.
    pub(crate) carried: RefCell<Option<Carried>>,
    /// Why the connection to the host failed (`%UPSTREAM_TRANSPORT_FAILURE_REASON%`).
    pub(crate) transport_failure: Option<Box<str>>,
    /// Of a TCP connection, the hosts that were tried before the last.
    pub(crate) earlier: Vec<Arc<Host>>,
    /// Attempts so far.
    pub(crate) attempts: u32,
    /// The trace it belongs to (`%TRACE_ID%`).
    pub(crate) trace_id: Option<u128>,
    /// Whether it is a health check that the proxy answered.
    pub(crate) health_check: bool,
    /// Whether it is traced because a service of the mesh wants it.
    pub(crate) trace_forced: bool,
    /// The request's id.
    pub(crate) request_id: Option<HeaderValue>,
    /// Bytes of the request's body, or from the client.
    pub(crate) bytes_received: u64,
    /// Bytes of the response's body, or to the client.
    pub(crate) bytes_sent: u64,
    /// Bytes on the client's connection, if they are asked for.
    pub(crate) downstream_bytes: Option<Rc<Meter>>,
    /// The same on the connections to hosts, of all attempts together.
    pub(crate) upstream_bytes: Option<Rc<Meter>>,
    /// From the start to each of these moments.
    pub(crate) timing: Timing,
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum CloseType {
    /// In the ordinary way, or not yet.
    #[default]
    Normal,
    /// We reset it.
    LocalReset,
    /// The peer reset it.
    RemoteReset,
}

impl CloseType {
    /// As Envoy writes it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            CloseType::Normal => "Normal",
            CloseType::LocalReset => "LocalReset",
            CloseType::RemoteReset => "RemoteReset",
        }
    }
}

/// A connection to a host that carries a stream.
#[derive(Clone, Debug)]
pub(crate) struct Carried {
    /// Our own end of it.
    pub(crate) near: Near,
    /// What the host speaks; none for TCP.
    pub(crate) protocol: Option<http::Version>,
}

/// What is known at our own end of a connection to a host.
#[derive(Clone, Debug, Default)]
pub(crate) struct Near {
    /// Its number, unique in this process.
    pub(crate) id: u64,
    /// Our own address.
    pub(crate) local: Option<SocketAddr>,
    /// What the host showed in TLS, if it is spoken.
    pub(crate) tls: Option<Rc<PeerTls>>,
}

/// Moments of a stream, counted from its start.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Timing {
    /// The last byte of the request has come.
    pub(crate) request_received: Option<Duration>,
    /// The host's headers have come.
    pub(crate) upstream_first_rx: Option<Duration>,
    /// The first byte went to the client.
    pub(crate) downstream_first_tx: Option<Duration>,
    /// The last byte of a whole response went to the client.
    pub(crate) downstream_last_tx: Option<Duration>,
    /// All is over.
    pub(crate) end: Option<Duration>,
}

impl Stream {
    /// One that begins now.
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

    /// How long ago it began.
    pub(crate) fn elapsed(&self) -> Duration {
        turn::now().into_std().saturating_duration_since(self.start)
    }

    /// Says why the proxy answers itself.
    pub(crate) fn blame(&mut self, flags: Flags, details: impl Into<Cow<'static, str>>) {
        self.flags.set(flags);
        self.details = Some(details.into());
    }
}
