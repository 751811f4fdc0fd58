//! TLS contexts with certificates and trust from SDS, replaced without closing connections.
//!
//! A context refers to its secrets by [`Slot`]s. The rustls configuration is built when a handshake finds other secrets
//! than those it was last built from: open connections are not affected, the next handshake uses the new secrets, and
//! no earlier session is resumed with them.

mod cache;
mod downstream;
mod files;
mod hello;
pub(crate) mod peer;
mod revocation;
mod stats;
pub(crate) mod subject;
mod suites;
mod upstream;
mod verify;

use std::fmt;
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::client::danger::ServerCertVerifier;
use rustls::client::{WebPkiServerVerifier, verify_server_cert_signed_by_trust_anchor};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, ServerName, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{ParsedCertificate, VerifierBuilderError, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;

pub(crate) use downstream::DownstreamTls;
pub(crate) use files::{FileIdentity, FileSecrets, SecretFiles, look};
pub(crate) use hello::{Hello, client_hello};
pub(crate) use peer::LazyText;
pub(crate) use stats::TlsStats;
pub(crate) use suites::Protocols;
pub(crate) use upstream::{Offer, TlsOverrides, UpstreamTls};
pub(crate) use verify::{SanMatcher, Verification};

use revocation::Revocation;

/// A certificate with its key (`TlsCertificate`).
#[derive(Debug)]
pub(crate) struct Certificate {
    /// The chain and key, for rustls.
    pub(crate) key: Arc<CertifiedKey>,
    /// URI SANs of the certificate.
    pub(crate) uri_sans: Vec<String>,
}

impl Certificate {
    /// A certificate with its SANs.
    pub(crate) fn new(key: CertifiedKey) -> Self {
        let names = key.cert.first().map(peer::Names::of).unwrap_or_default();
        Self {
            key: Arc::new(key),
            uri_sans: names.uris,
        }
    }
}

/// What peers are verified with (`CertificateValidationContext`), downstream or upstream.
pub(crate) struct TrustAnchors {
    /// Trusted roots.
    pub(crate) roots: Vec<CertificateDer<'static>>,
    /// `match_typed_subject_alt_names`: a peer must match one; empty: any peer is accepted.
    pub(crate) names: Vec<SanMatcher>,
    clients: Arc<dyn ClientCertVerifier>,
    servers: Arc<WebPkiServerVerifier>,
    store: Arc<RootCertStore>,
    revocation: Option<Revocation>,
}

/// Why a validation context cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TrustError {
    /// A root is invalid.
    #[error("rustls rejected a root certificate: {0}")]
    Root(#[from] rustls::Error),
    /// A revocation list is invalid.
    #[error("invalid certificate revocation list: {0}")]
    List(#[from] webpki::Error),
    /// The roots or revocation lists cannot be combined.
    #[error("{0}")]
    Verifier(#[from] VerifierBuilderError),
}

impl TrustAnchors {
    /// Trust in these roots. As in Envoy, if there are revocation lists, a certificate that none of them covers is
    /// refused; with `leaf_only` that applies to the peer's own certificate only.
    ///
    /// # Errors
    /// If a root or a list is invalid.
    pub(crate) fn new(
        roots: Vec<CertificateDer<'static>>,
        names: Vec<SanMatcher>,
        revoked: Vec<CertificateRevocationListDer<'static>>,
        leaf_only: bool,
    ) -> Result<Self, TrustError> {
        let mut store = RootCertStore::empty();
        for root in &roots {
            store.add(root.clone())?;
        }
        let store = Arc::new(store);
        let provider = suites::provider();
        let clients = WebPkiClientVerifier::builder_with_provider(store.clone(), provider.clone());
        let servers = WebPkiServerVerifier::builder_with_provider(store.clone(), provider.clone());
        let revocation = Revocation::new(&revoked, leaf_only)?;
        let (mut clients, mut servers) = (clients.with_crls(revoked.clone()), servers.with_crls(revoked));
        if leaf_only {
            clients = clients.only_check_end_entity_revocation();
            servers = servers.only_check_end_entity_revocation();
        }
        Ok(Self {
            roots,
            names,
            clients: clients.build()?,
            servers: servers.build()?,
            store,
            revocation,
        })
    }

    /// Verifies a server's chain, and its name if one is given.
    ///
    /// rustls checks revocation only together with a name; without one, webpki is called directly.
    fn verify_server(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: Option<&ServerName<'_>>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<(), rustls::Error> {
        if let Some(name) = name {
            let verified = self
                .servers
                .verify_server_cert(end_entity, intermediates, name, ocsp, now);
            return verified.map(drop);
        }
        let certificate = ParsedCertificate::try_from(end_entity)?;
        let algorithms = suites::provider().signature_verification_algorithms.all;
        verify_server_cert_signed_by_trust_anchor(&certificate, &self.store, intermediates, now, algorithms)?;
        match &self.revocation {
            Some(revocation) => revocation.check(end_entity, intermediates, &self.store, now),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for TrustAnchors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} roots, {} names", self.roots.len(), self.names.len())
    }
}

#[cfg(test)]
mod tests;
