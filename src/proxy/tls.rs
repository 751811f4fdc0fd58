//! TLS contexts: certificates and trust from SDS, swapped without dropping a connection.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::sign::CertifiedKey;

use super::io::Io;
use super::matcher::StringMatcher;
use super::slot::Slot;
use super::upstream::cluster::Cluster;
use super::upstream::connect::Connected;

/// A certificate and its key (`TlsCertificate`).
#[derive(Debug)]
pub(crate) struct Certificate {
    /// What rustls presents.
    pub(crate) key: Arc<CertifiedKey>,
}

/// Roots to verify peers with (`CertificateValidationContext.trusted_ca`).
#[derive(Debug)]
pub(crate) struct TrustAnchors {
    /// The roots.
    pub(crate) roots: Arc<RootCertStore>,
}

/// Which names a peer's certificate must have; one match is enough.
#[derive(Debug)]
pub(crate) struct SanMatcher {
    /// The type of name.
    pub(crate) kind: SanKind,
    /// The name.
    pub(crate) matcher: StringMatcher,
}

/// The type of a subject alternative name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SanKind {
    /// An e-mail address.
    Email,
    /// A DNS name.
    Dns,
    /// A URI.
    Uri,
    /// An IP address.
    Ip,
}

/// How a peer is verified.
#[derive(Debug, Default)]
pub(crate) struct Verification {
    /// The roots; none: the peer is not verified.
    pub(crate) trust: Option<Arc<Slot<TrustAnchors>>>,
    /// Names of which one must match; none: any name.
    pub(crate) names: Vec<SanMatcher>,
}

/// TLS towards hosts (`UpstreamTlsContext`).
#[derive(Debug)]
pub(crate) struct UpstreamTls {
    /// Our certificate, if we show one.
    pub(crate) certificate: Option<Arc<Slot<Certificate>>>,
    /// How the server is verified.
    pub(crate) verification: Verification,
    /// The server name sent.
    pub(crate) sni: Option<Box<str>>,
    /// Protocols offered, in order.
    pub(crate) alpn: Vec<Vec<u8>>,
}

/// TLS towards clients (`DownstreamTlsContext`).
#[derive(Debug)]
pub(crate) struct DownstreamTls {
    /// Our certificate.
    pub(crate) certificate: Arc<Slot<Certificate>>,
    /// How clients are verified.
    pub(crate) verification: Verification,
    /// Whether clients must show a certificate.
    pub(crate) require_client_certificate: bool,
    /// Protocols accepted, in order.
    pub(crate) alpn: Vec<Vec<u8>>,
}

impl UpstreamTls {
    /// Speaks TLS on a connection to a host.
    ///
    /// # Errors
    /// When the handshake fails.
    pub(crate) async fn connect(
        &self,
        _io: Io,
        _local: Option<SocketAddr>,
        _cluster: &Cluster,
    ) -> io::Result<Connected> {
        Err(io::ErrorKind::Unsupported.into())
    }
}
