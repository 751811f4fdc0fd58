//! Upstream TLS.

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::rc::Rc;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use rustls::ClientConfig;
use rustls::client::Resumption;
use rustls::pki_types::ServerName;
use rustls::sign::SingleCertAndKey;
use tokio_rustls::TlsConnector;

use super::cache::{Cache, Made};
use super::verify::ServerCheck;
use super::{Certificate, Protocols, TlsStats, TrustAnchors, Verification, peer};
use crate::proxy::connection::LocalEnd;
use crate::proxy::io::Io;
use crate::proxy::slot::Slot;
use crate::proxy::upstream::connect::Connected;
use crate::proxy::upstream::host::{Host, HostAddress};
use crate::tls::handshake_failure;

/// How many server names the session cache holds.
const SESSIONS: usize = 32;

/// An upstream TLS context (`UpstreamTlsContext`).
#[derive(Debug)]
pub(crate) struct UpstreamTls {
    /// Our certificate, if we have one.
    pub(crate) certificate: Option<Arc<Slot<Certificate>>>,
    /// How long SDS is waited for; `None`: for ever.
    pub(crate) certificate_timeout: Option<Duration>,
    /// How the server is verified.
    pub(crate) verification: Verification,
    /// Versions, cipher suites and groups.
    pub(crate) protocols: Protocols,
    /// SNI, unless something more specific applies.
    pub(crate) sni: Option<Box<str>>,
    /// `auto_host_sni`: whether the host's name is used as SNI.
    pub(crate) host_sni: bool,
    /// ALPN protocols, in order of preference.
    pub(crate) alpn: Vec<Vec<u8>>,
    /// Whether sessions are resumed.
    pub(crate) resumption: bool,
    cache: Cache<Configs>,
}

/// Per-connection settings that override those of the context.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct TlsOverrides<'a> {
    /// SNI from the request (`auto_sni`).
    pub(crate) sni: Option<&'a str>,
    /// ALPN protocols from filter state (`envoy.network.application_protocols`).
    pub(crate) alpn: Option<&'a [Vec<u8>]>,
    /// The ALPN protocols if the context has none.
    pub(crate) offer: Offer,
}

/// The ALPN protocols of a connection pool, used if the context has none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) enum Offer {
    /// None.
    #[default]
    Nothing,
    /// `http/1.1`.
    Http1,
    /// `h2`.
    Http2,
    /// Both, `h2` first.
    Either,
}

impl Offer {
    fn alpn(self) -> &'static [&'static [u8]] {
        match self {
            Offer::Nothing => &[],
            Offer::Http1 => &[b"http/1.1"],
            Offer::Http2 => &[b"h2"],
            Offer::Either => &[b"h2", b"http/1.1"],
        }
    }
}

/// rustls configurations for one version of the secrets, by [`Offer`]. They share their session cache.
#[derive(Debug)]
pub(super) struct Configs {
    base: Arc<ClientConfig>,
    offers: [OnceLock<Arc<ClientConfig>>; 3],
}

impl Configs {
    fn offering(&self, offer: Offer) -> Arc<ClientConfig> {
        let index = match offer {
            _ if !self.base.alpn_protocols.is_empty() => return self.base.clone(),
            Offer::Nothing => return self.base.clone(),
            Offer::Http1 => 0,
            Offer::Http2 => 1,
            Offer::Either => 2,
        };
        let make = || {
            let mut config = ClientConfig::clone(&self.base);
            config.alpn_protocols = offer.alpn().iter().map(|protocol| protocol.to_vec()).collect();
            Arc::new(config)
        };
        self.offers[index].get_or_init(make).clone()
    }
}

impl Default for UpstreamTls {
    /// A context without a certificate and without verification.
    fn default() -> Self {
        Self {
            certificate: None,
            certificate_timeout: None,
            verification: Verification::default(),
            protocols: Protocols::default(),
            sni: None,
            host_sni: false,
            alpn: Vec::new(),
            resumption: true,
            cache: Cache::default(),
        }
    }
}

impl UpstreamTls {
    /// Performs the handshake on a connection to a host.
    ///
    /// # Errors
    /// If it fails or a secret is missing; with the texts of Envoy.
    pub(crate) async fn connect(
        &self,
        io: Io,
        near: LocalEnd,
        host: &Host,
        overrides: TlsOverrides<'_>,
        stats: &TlsStats,
    ) -> io::Result<Connected> {
        let result = self.handshake(io, near, host, overrides, stats).await;
        result.map_err(|error| {
            stats.failed(&error);
            io::Error::new(error.kind(), format!("TLS_error: {}", handshake_failure(&error)))
        })
    }

    async fn handshake(
        &self,
        io: Io,
        near: LocalEnd,
        host: &Host,
        overrides: TlsOverrides<'_>,
        stats: &TlsStats,
    ) -> io::Result<Connected> {
        let made = self.made()?;
        let config = made.config.offering(overrides.offer);
        let name = self.server_name(host, overrides.sni)?;
        let connector = TlsConnector::from(config);
        let stream = match overrides.alpn {
            Some(alpn) => connector.with_alpn(alpn.to_vec()).connect(name, io).await?,
            None => connector.connect(name, io).await?,
        };
        let (_, tls) = stream.get_ref();
        stats.succeeded(tls);
        let peer = peer::peer(tls, made.certificate());
        Ok(Connected {
            near: LocalEnd {
                tls: Some(Rc::new(peer)),
                ..near
            },
            alpn: tls.alpn_protocol().map(<[u8]>::to_vec),
            io: Io::TlsClient(Box::new(stream)),
        })
    }

    /// The configurations for the present secrets.
    pub(super) fn made(&self) -> io::Result<Arc<Made<Configs>>> {
        let trust = self.verification.trust.as_ref();
        let make = |certificate: Option<&Arc<Certificate>>, trust: Option<&Arc<TrustAnchors>>| {
            Ok(Configs {
                base: Arc::new(self.config(certificate, trust)?),
                offers: Default::default(),
            })
        };
        self.cache.get(self.certificate.as_ref(), trust, make)
    }

    /// The server name: from the request, from the host if configured, or from the context. IP addresses are not sent;
    /// they only distinguish sessions.
    fn server_name(&self, host: &Host, wished: Option<&str>) -> io::Result<ServerName<'static>> {
        let of_host = host.hostname.as_deref().filter(|_| self.host_sni);
        match wished.or(of_host).or(self.sni.as_deref()) {
            Some(name) => ServerName::try_from(name.to_owned()).map_err(io::Error::other),
            None => Ok(ServerName::from(match &host.address {
                HostAddress::Ip(address) => address.ip(),
                HostAddress::Unix(_) => IpAddr::from(Ipv4Addr::UNSPECIFIED),
            })),
        }
    }

    fn config(
        &self,
        certificate: Option<&Arc<Certificate>>,
        trust: Option<&Arc<TrustAnchors>>,
    ) -> Result<ClientConfig, rustls::Error> {
        let builder = ClientConfig::builder_with_provider(self.protocols.provider.clone())
            .with_protocol_versions(self.protocols.versions)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(ServerCheck::new(&self.verification, trust)));
        let mut config = match certificate {
            Some(own) => builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(own.key.clone()))),
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols.clone_from(&self.alpn);
        config.resumption = if self.resumption {
            Resumption::in_memory_sessions(SESSIONS)
        } else {
            Resumption::disabled()
        };
        Ok(config)
    }
}
