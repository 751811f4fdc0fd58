//! Downstream TLS.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs::Ticketer;
use rustls::server::{Acceptor, ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::SingleCertAndKey;
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;

use super::cache::{Cache, Made};
use super::verify::ClientCheck;
use super::{Certificate, Protocols, TlsStats, TrustAnchors, Verification, peer};
use crate::proxy::connection::PeerTls;
use crate::proxy::io::Rewound;
use crate::proxy::slot::Slot;

/// A downstream TLS context (`DownstreamTlsContext`).
#[derive(Debug)]
pub(crate) struct DownstreamTls {
    /// Our certificate.
    pub(crate) certificate: Arc<Slot<Certificate>>,
    /// How long SDS is waited for; `None`: for ever.
    pub(crate) certificate_timeout: Option<Duration>,
    /// How clients are verified.
    pub(crate) verification: Verification,
    /// `require_client_certificate`.
    pub(crate) require_client_certificate: bool,
    /// Versions, cipher suites and groups.
    pub(crate) protocols: Protocols,
    /// ALPN protocols, in order of preference.
    pub(crate) alpn: Vec<Vec<u8>>,
    /// `prefer_client_ciphers`.
    pub(crate) prefer_client_ciphers: bool,
    /// Whether sessions are resumed by tickets.
    pub(crate) resumption: bool,
    cache: Cache<Configs>,
}

/// rustls configurations for one version of the secrets.
#[derive(Debug)]
pub(super) struct Configs {
    negotiating: Arc<ServerConfig>,
    /// Without ALPN, for clients that offer none of our protocols: rustls would refuse them, Envoy does not.
    silent: Arc<ServerConfig>,
}

impl Configs {
    fn new(config: ServerConfig) -> Self {
        let mut silent = config.clone();
        silent.alpn_protocols.clear();
        Self {
            negotiating: Arc::new(config),
            silent: Arc::new(silent),
        }
    }

    /// The configuration for a client.
    fn for_client(&self, hello: &ClientHello<'_>) -> Arc<ServerConfig> {
        let ours = &self.negotiating.alpn_protocols;
        let mut offered = hello.alpn().into_iter().flatten();
        match offered.any(|protocol| ours.iter().any(|one| one == protocol)) {
            true => self.negotiating.clone(),
            false => self.silent.clone(),
        }
    }
}

/// A connection after the handshake.
#[derive(Debug)]
pub(crate) struct Secured {
    /// The connection.
    pub(crate) stream: Box<TlsStream<Rewound>>,
    /// TLS properties of the client.
    pub(crate) peer: PeerTls,
    /// SNI, in lower case.
    pub(crate) sni: Option<Box<str>>,
}

impl DownstreamTls {
    /// A context with this certificate and Envoy's defaults.
    pub(crate) fn new(certificate: Arc<Slot<Certificate>>) -> Self {
        Self {
            certificate,
            certificate_timeout: None,
            verification: Verification::default(),
            require_client_certificate: false,
            protocols: Protocols::default(),
            alpn: Vec::new(),
            prefer_client_ciphers: false,
            resumption: true,
            cache: Cache::default(),
        }
    }

    /// Performs the handshake.
    ///
    /// # Errors
    /// If it fails or a secret is missing. The connection can then only be closed.
    pub(crate) async fn accept(&self, stream: Rewound, stats: &TlsStats) -> io::Result<Secured> {
        let result = self.handshake(stream, stats).await;
        result.inspect_err(|error| stats.failed(error))
    }

    async fn handshake(&self, stream: Rewound, stats: &TlsStats) -> io::Result<Secured> {
        let made = self.made()?;
        let start = LazyConfigAcceptor::new(Acceptor::default(), stream).await?;
        let config = made.config.for_client(&start.client_hello());
        let stream = start.into_stream(config).await?;
        let (_, tls) = stream.get_ref();
        let peer = peer::peer(tls, made.certificate());
        stats.succeeded(tls);
        Ok(Secured {
            sni: tls.server_name().map(|name| name.to_ascii_lowercase().into()),
            peer,
            stream: Box::new(stream),
        })
    }

    /// The configuration for the present secrets.
    pub(super) fn made(&self) -> io::Result<Arc<Made<Configs>>> {
        let trust = self.verification.trust.as_ref();
        let make =
            |certificate: Option<&Arc<Certificate>>, trust: Option<&Arc<TrustAnchors>>| self.config(certificate, trust);
        self.cache.get(Some(&self.certificate), trust, make)
    }

    /// Tickets are encrypted with a key of this configuration: none outlives the secrets it was issued under.
    fn config(
        &self,
        certificate: Option<&Arc<Certificate>>,
        trust: Option<&Arc<TrustAnchors>>,
    ) -> Result<Configs, rustls::Error> {
        let own = certificate.ok_or(rustls::Error::NoCertificatesPresented)?;
        let key: Arc<dyn ResolvesServerCert> = Arc::new(SingleCertAndKey::from(own.key.clone()));
        let builder = ServerConfig::builder_with_provider(self.protocols.provider.clone())
            .with_protocol_versions(self.protocols.versions)?;
        let builder = match trust {
            Some(trust) => builder.with_client_cert_verifier(Arc::new(ClientCheck::new(
                &self.verification,
                trust,
                self.require_client_certificate,
            ))),
            None => builder.with_no_client_auth(),
        };
        let mut config = builder.with_cert_resolver(key);
        config.alpn_protocols.clone_from(&self.alpn);
        config.ignore_client_order = !self.prefer_client_ciphers;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        if self.resumption {
            config.ticketer = Ticketer::new()?;
        } else {
            config.send_tls13_tickets = 0;
        }
        Ok(Configs::new(config))
    }
}
