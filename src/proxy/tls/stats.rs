//! TLS statistics, by Envoy's names (`ssl.…`).

use std::io;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use rustls::{CertificateError, CommonState, HandshakeKind};

use super::cache::NotReady;
use super::suites;

/// The supported versions, in the order of their counters.
const VERSIONS: [&str; 2] = ["TLSv1.3", "TLSv1.2"];

/// TLS statistics of a listener or cluster.
#[derive(Debug, Default)]
pub(crate) struct TlsStats {
    /// `ssl.handshake`: handshakes that succeeded.
    pub(crate) handshake: AtomicU64,
    /// `ssl.session_reused`: successful handshakes that resumed a session.
    pub(crate) session_reused: AtomicU64,
    /// `ssl.no_certificate`: successful handshakes without a certificate of the peer.
    pub(crate) no_certificate: AtomicU64,
    /// `ssl.connection_error`: failed handshakes that are not counted below.
    pub(crate) connection_error: AtomicU64,
    /// `ssl.fail_verify_no_cert`: a required client certificate was missing.
    pub(crate) fail_verify_no_cert: AtomicU64,
    /// `ssl.fail_verify_error`: the chain could not be verified.
    pub(crate) fail_verify_error: AtomicU64,
    /// `ssl.fail_verify_san`: no SAN matched.
    pub(crate) fail_verify_san: AtomicU64,
    /// `…_context_secrets_not_ready`: connections refused because a secret was missing.
    pub(crate) secrets_not_ready: AtomicU64,
    versions: [AtomicU64; VERSIONS.len()],
    ciphers: [AtomicU64; suites::SUITES],
    curves: [AtomicU64; suites::GROUPS_LEN],
}

impl TlsStats {
    /// Counts a successful handshake, and what was negotiated.
    pub(super) fn succeeded(&self, tls: &CommonState) {
        self.handshake.fetch_add(1, Relaxed);
        if tls.handshake_kind() == Some(HandshakeKind::Resumed) {
            self.session_reused.fetch_add(1, Relaxed);
        }
        if tls.peer_certificates().is_none() {
            self.no_certificate.fetch_add(1, Relaxed);
        }
        let version = tls.protocol_version().map(suites::version_name);
        let version = VERSIONS.iter().position(|one| Some(*one) == version);
        let suite = tls.negotiated_cipher_suite();
        let suite = suite.and_then(|suite| suites::suite_place(suite.suite()));
        let group = tls.negotiated_key_exchange_group();
        let group = group.and_then(|group| suites::group_place(group.name()));
        let places = [
            version.and_then(|place| self.versions.get(place)),
            suite.and_then(|place| self.ciphers.get(place)),
            group.and_then(|place| self.curves.get(place)),
        ];
        for counter in places.into_iter().flatten() {
            counter.fetch_add(1, Relaxed);
        }
    }

    /// Counters of negotiated parameters with their names: `versions.TLSv1.3` and the like.
    pub(crate) fn agreed(&self) -> impl Iterator<Item = (String, &AtomicU64)> {
        fn all<'a>(
            kind: &'static str,
            names: impl Iterator<Item = &'static str> + 'a,
            counters: &'a [AtomicU64],
        ) -> impl Iterator<Item = (String, &'a AtomicU64)> {
            let named = names.zip(counters);
            named.map(move |(name, counter)| (format!("{kind}.{name}"), counter))
        }
        all("versions", VERSIONS.into_iter(), &self.versions)
            .chain(all("ciphers", suites::suite_names(), &self.ciphers))
            .chain(all("curves", suites::group_names(), &self.curves))
    }

    /// Counts a failed handshake. A peer that closes the connection is not a TLS error.
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
