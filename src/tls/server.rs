//! Server configuration for xDS over TLS (15012).
//!
//! Client certificates are optional, since a client may authenticate by token; one that is
//! presented must be valid. The certificate and roots can be replaced at runtime, without affecting
//! open connections. Session resumption is disabled: it would skip verification of the client
//! certificate, and ADS streams are opened too rarely to benefit.

use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{DistinguishedName, ServerConfig};

use super::{ALPN_H2, TlsError, certified_key, handshake_signatures, peer_spiffe_id, provider};
use crate::clock::Clock;
use crate::name::TrustDomain;
use crate::pki::{TrustBundle, WorkloadCert};

/// A server's certificate and trust bundle. Clones share both.
#[derive(Clone, Debug)]
pub struct ServerTls {
    identity: Arc<LiveIdentity>,
    trust: Arc<LiveTrust>,
    config: Arc<ServerConfig>,
}

impl ServerTls {
    /// A configuration with this certificate, for clients of this trust domain.
    ///
    /// # Errors
    ///
    /// If the certificate or the bundle is invalid.
    pub fn new(
        certificate: &WorkloadCert,
        bundle: &TrustBundle,
        trust_domain: &TrustDomain,
        clock: &Clock,
    ) -> Result<Self, TlsError> {
        let identity = Arc::new(LiveIdentity(ArcSwap::from_pointee(certified_key(
            certificate,
            &provider(),
        )?)));
        let trust = Arc::new(LiveTrust {
            current: ArcSwap::from_pointee(Trust::new(bundle)?),
            trust_domain: trust_domain.clone(),
        });
        let mut config = ServerConfig::builder_with_details(provider(), Arc::new(clock.clone()))
            .with_safe_default_protocol_versions()?
            .with_client_cert_verifier(trust.clone())
            .with_cert_resolver(identity.clone());
        config.alpn_protocols = vec![ALPN_H2.to_vec()];
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(Self {
            identity,
            trust,
            config: Arc::new(config),
        })
    }

    /// Replaces the certificate for new connections.
    ///
    /// # Errors
    ///
    /// If the certificate is invalid; the old one is kept.
    pub fn replace_certificate(&self, certificate: &WorkloadCert) -> Result<(), TlsError> {
        let key = certified_key(certificate, &provider())?;
        self.identity.0.store(Arc::new(key));
        Ok(())
    }

    /// Replaces the roots for new connections.
    ///
    /// # Errors
    ///
    /// If the bundle is invalid; the old one is kept.
    pub fn replace_bundle(&self, bundle: &TrustBundle) -> Result<(), TlsError> {
        self.trust.current.store(Arc::new(Trust::new(bundle)?));
        Ok(())
    }

    /// The rustls configuration, which reflects replacements.
    pub fn config(&self) -> &Arc<ServerConfig> {
        &self.config
    }

    /// Trust domain of the clients.
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust.trust_domain
    }
}

/// Resolves to the current certificate, whatever the SNI.
#[derive(Debug)]
struct LiveIdentity(ArcSwap<CertifiedKey>);

impl ResolvesServerCert for LiveIdentity {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load_full())
    }
}

/// Verifies by the current roots, and the SPIFFE rules.
#[derive(Debug)]
struct LiveTrust {
    current: ArcSwap<Trust>,
    trust_domain: TrustDomain,
}

#[derive(Debug)]
struct Trust(Arc<dyn ClientCertVerifier>);

impl Trust {
    fn new(bundle: &TrustBundle) -> Result<Self, TlsError> {
        let builder = WebPkiClientVerifier::builder_with_provider(bundle.anchors().clone(), provider());
        Ok(Self(builder.build()?))
    }
}

impl ClientCertVerifier for LiveTrust {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    /// No hints: a client has a single certificate, and the roots may change.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let verified = self
            .current
            .load()
            .0
            .verify_client_cert(end_entity, intermediates, now)?;
        peer_spiffe_id(std::slice::from_ref(end_entity), &self.trust_domain)?;
        Ok(verified)
    }

    handshake_signatures!(self => provider());
}
