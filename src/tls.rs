//! TLS with SPIFFE authentication, based on rustls.
//!
//! Peers are identified by the URI SAN of their certificate, not by the name or address dialled.
//! Every configuration gets its crypto provider explicitly, independent of the process-wide default
//! of rustls, which other crates may set. Time comes from an injected [`Clock`].

mod accept;
mod client;
mod server;
mod signatures;
mod unverified;
mod verify;

use std::io;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, UNIX_EPOCH};

use rustls::CertificateError;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime, pem};
use rustls::sign::CertifiedKey;
use rustls::time_provider::TimeProvider;

pub use accept::{HandshakeLimits, PeerInfo, TlsConn, TlsIncoming};
pub use client::client_config;
pub use server::ServerTls;
pub(crate) use signatures::handshake_signatures;
pub use unverified::unverified_client_config;
pub use verify::{SpiffeMatcher, SvidError, SvidVerifier, peer_spiffe_id, uri_name};

use crate::clock::Clock;
use crate::pki::WorkloadCert;

/// ALPN protocol of gRPC.
const ALPN_H2: &[u8] = b"h2";

/// Why a TLS configuration cannot be created.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// Malformed PEM.
    #[error("a certificate or its key is not valid PEM: {0}")]
    Pem(#[from] pem::Error),
    /// rustls rejects the key, certificate or roots.
    #[error("rustls rejected the configuration: {0}")]
    Rustls(#[from] rustls::Error),
    /// The roots cannot be used to verify clients.
    #[error("clients cannot be verified with this trust bundle: {0}")]
    Roots(#[from] rustls::server::VerifierBuilderError),
}

/// The crypto provider of all configurations.
fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: LazyLock<Arc<CryptoProvider>> =
        LazyLock::new(|| Arc::new(rustls::crypto::aws_lc_rs::default_provider()));
    PROVIDER.clone()
}

/// Converts a certificate for rustls; checks that the key matches.
fn certified_key(certificate: &WorkloadCert, provider: &CryptoProvider) -> Result<CertifiedKey, TlsError> {
    let chain = CertificateDer::pem_slice_iter(certificate.chain_pem.as_bytes()).collect::<Result<_, _>>()?;
    let key = PrivateKeyDer::from_pem_slice(certificate.key_pem.expose().as_bytes())?;
    Ok(CertifiedKey::from_der(chain, key, provider)?)
}

/// Describes why a handshake failed, including the errors of our own verifiers, which rustls only
/// shows as data.
pub fn handshake_failure(error: &io::Error) -> String {
    match error.get_ref().and_then(|inner| inner.downcast_ref()) {
        Some(rustls::Error::InvalidCertificate(CertificateError::Other(ours))) => ours.to_string(),
        Some(_) | None => error.to_string(),
    }
}

impl TimeProvider for Clock {
    fn current_time(&self) -> Option<UnixTime> {
        let since = self.now().duration_since(UNIX_EPOCH).ok()?;
        Some(UnixTime::since_unix_epoch(Duration::from_secs(since.as_secs())))
    }
}

#[cfg(test)]
mod tests;
