//! Counters of TLS, by Envoy's names (`ssl.…`).

use std::io;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use rustls::{CertificateError, HandshakeKind};

use super::cache::NotReady;

/// What is counted of TLS at a listener or a cluster.
#[derive(Debug, Default)]
pub(crate) struct TlsStats {
    /// `ssl.handshake`: handshakes that succeeded.
    pub(crate) handshake: AtomicU64,
    /// `ssl.session_reused`: those of them that resumed a session.
    pub(crate) session_reused: AtomicU64,
    /// `ssl.no_certificate`: those of them in which the peer showed no certificate.
    pub(crate) no_certificate: AtomicU64,
    /// `ssl.connection_error`: handshakes that failed, but for the following.
    pub(crate) connection_error: AtomicU64,
    /// `ssl.fail_verify_no_cert`: the client showed no certificate and had to.
    pub(crate) fail_verify_no_cert: AtomicU64,
    /// `ssl.fail_verify_error`: the certificate's chain is no good.
    pub(crate) fail_verify_error: AtomicU64,
    /// `ssl.fail_verify_san`: the certificate is somebody else's.
    pub(crate) fail_verify_san: AtomicU64,
    /// `…_context_secrets_not_ready`: connections refused because a secret is missing.
    pub(crate) secrets_not_ready: AtomicU64,
}

impl TlsStats {
    /// Counts a handshake that succeeded.
    pub(super) fn succeeded(&self, kind: Option<HandshakeKind>, presented: bool) {
        self.handshake.fetch_add(1, Relaxed);
        if kind == Some(HandshakeKind::Resumed) {
            self.session_reused.fetch_add(1, Relaxed);
        }
        if !presented {
            self.no_certificate.fetch_add(1, Relaxed);
        }
    }

    /// Counts one that did not. A peer that merely goes away is no error of TLS.
    pub(super) fn failed(&self, error: &io::Error) {
        let Some(inner) = error.get_ref() else {
            return;
        };
        let counter = match inner.downcast_ref() {
            Some(rustls::Error::NoCertificatesPresented) => &self.fail_verify_no_cert,
            Some(rustls::Error::InvalidCertificate(
                CertificateError::Other(_)
                | CertificateError::NotValidForName
                | CertificateError::NotValidForNameContext { .. },
            )) => &self.fail_verify_san,
            Some(rustls::Error::InvalidCertificate(_)) => &self.fail_verify_error,
            Some(_) => &self.connection_error,
            None if inner.is::<NotReady>() => &self.secrets_not_ready,
            None => return,
        };
        counter.fetch_add(1, Relaxed);
    }
}
