//! Verification of X509-SVIDs.
//!
//! The chain is verified by webpki as usual; only the name check differs. rustls' server verifier
//! requires a DNS name or IP address, so its chain verification is used separately and the URI SAN
//! is matched here.

use std::fmt;
use std::sync::Arc;

use rustls::client::danger::{ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, OtherError};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::{handshake_signatures, provider};
use crate::name::{InvalidName, SpiffeId, TrustDomain};
use crate::pki::TrustBundle;

/// Why a certificate is rejected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SvidError {
    /// It cannot be parsed.
    #[error("invalid certificate: {0}")]
    Unreadable(String),
    /// A CA or signing certificate cannot be a leaf SVID (X509-SVID sections 4.1 and 4.3).
    #[error("the certificate is a CA certificate, not a workload certificate")]
    MaySign,
    /// There must be exactly one URI SAN (X509-SVID section 2).
    #[error("the certificate has {0} URI SANs; an X.509-SVID has exactly one")]
    UriNames(usize),
    /// The URI is not a workload's SPIFFE ID.
    #[error("{0}")]
    NotAnIdentity(#[from] InvalidName),
    /// The SPIFFE ID belongs to another trust domain.
    #[error("`{found}` is not in the trust domain `{ours}`")]
    OtherTrustDomain {
        /// The SPIFFE ID in the certificate.
        found: SpiffeId,
        /// The expected trust domain.
        ours: TrustDomain,
    },
    /// The certificate is valid, but for another peer.
    #[error("the peer is `{found}`, expected {expected}")]
    NotExpected {
        /// The URI SAN in the certificate.
        found: String,
        /// What was expected.
        expected: SpiffeMatcher,
    },
}

impl From<SvidError> for rustls::Error {
    fn from(error: SvidError) -> Self {
        CertificateError::Other(OtherError(Arc::new(error))).into()
    }
}

/// The URI SAN of a leaf certificate that conforms to X509-SVID.
///
/// # Errors
///
/// If it does not conform. The chain is not verified.
pub fn uri_name(certificate: &CertificateDer<'_>) -> Result<String, SvidError> {
    let unreadable = |e: &dyn fmt::Display| SvidError::Unreadable(e.to_string());
    let (_, x509) = X509Certificate::from_der(certificate).map_err(|e| unreadable(&e))?;
    let usage = x509.key_usage().map_err(|e| unreadable(&e))?;
    let may_sign = usage.is_some_and(|usage| usage.value.key_cert_sign() || usage.value.crl_sign());
    if x509.is_ca() || may_sign {
        return Err(SvidError::MaySign);
    }
    let names = x509.subject_alternative_name().map_err(|e| unreadable(&e))?;
    let names = names.map_or(&[][..], |san| &san.value.general_names);
    let mut uris = names.iter().filter_map(|name| match name {
        GeneralName::URI(uri) => Some(*uri),
        _ => None,
    });
    match (uris.next(), uris.count()) {
        (Some(uri), 0) => Ok(uri.to_owned()),
        (None, _) => Err(SvidError::UriNames(0)),
        (Some(_), more) => Err(SvidError::UriNames(more + 1)),
    }
}

/// The SPIFFE ID of a peer in our trust domain, given its certificates, leaf first. `None` if there
/// are none. The chain must already be verified.
///
/// # Errors
///
/// If the leaf is not a workload certificate of this mesh.
pub fn peer_spiffe_id(
    certificates: &[CertificateDer<'_>],
    trust_domain: &TrustDomain,
) -> Result<Option<SpiffeId>, SvidError> {
    let Some(leaf) = certificates.first() else {
        return Ok(None);
    };
    let found: SpiffeId = uri_name(leaf)?.parse()?;
    if found.trust_domain != *trust_domain {
        return Err(SvidError::OtherTrustDomain {
            found,
            ours: trust_domain.clone(),
        });
    }
    Ok(Some(found))
}

/// Matches the URI SAN of a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SpiffeMatcher {
    /// Equal to one of these.
    Exact(Vec<String>),
    /// Starts with this, e.g. `spiffe://cluster.local/ns/default/`.
    Prefix(String),
}

impl SpiffeMatcher {
    /// Whether the URI matches.
    pub fn matches(&self, uri: &str) -> bool {
        match self {
            SpiffeMatcher::Exact(wanted) => wanted.iter().any(|one| one == uri),
            SpiffeMatcher::Prefix(prefix) => uri.starts_with(prefix.as_str()),
        }
    }
}

impl From<&SpiffeId> for SpiffeMatcher {
    fn from(id: &SpiffeId) -> Self {
        SpiffeMatcher::Exact(vec![id.to_string()])
    }
}

impl fmt::Display for SpiffeMatcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SpiffeMatcher::Exact(wanted) => write!(f, "`{}`", wanted.join("` or `")),
            SpiffeMatcher::Prefix(prefix) => write!(f, "`{prefix}…`"),
        }
    }
}

/// Verifies servers: the chain must lead to the trust bundle and the URI SAN must match. The name
/// dialled is ignored.
#[derive(Debug)]
pub struct SvidVerifier {
    bundle: TrustBundle,
    expected: SpiffeMatcher,
    provider: Arc<CryptoProvider>,
}

impl SvidVerifier {
    /// A verifier with these roots and expected peers.
    pub fn new(bundle: &TrustBundle, expected: SpiffeMatcher) -> Self {
        Self {
            bundle: bundle.clone(),
            expected,
            provider: provider(),
        }
    }
}

impl ServerCertVerifier for SvidVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let certificate = ParsedCertificate::try_from(end_entity)?;
        let algorithms = self.provider.signature_verification_algorithms.all;
        let anchors = self.bundle.anchors();
        verify_server_cert_signed_by_trust_anchor(&certificate, anchors, intermediates, now, algorithms)?;
        let found = uri_name(end_entity)?;
        if !self.expected.matches(&found) {
            let expected = self.expected.clone();
            return Err(SvidError::NotExpected { found, expected }.into());
        }
        Ok(ServerCertVerified::assertion())
    }

    handshake_signatures!(self => self.provider);
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair, KeyUsagePurpose, SanType};

    use super::*;

    const REVIEWS: &str = "spiffe://cluster.local/ns/default/sa/reviews";

    fn certificate(uris: &[&str], change: impl FnOnce(&mut CertificateParams)) -> CertificateDer<'static> {
        let mut params = CertificateParams::new(["reviews".to_owned()]).unwrap();
        let uris = uris.iter().map(|uri| SanType::URI((*uri).try_into().unwrap()));
        params.subject_alt_names.extend(uris);
        change(&mut params);
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().clone()
    }

    fn ours() -> TrustDomain {
        TrustDomain::default()
    }

    #[test]
    fn the_identity_is_the_single_uri_san() {
        let leaf = certificate(&[REVIEWS], |_| ());
        assert_eq!(uri_name(&leaf).unwrap(), REVIEWS);
        let id = peer_spiffe_id(&[leaf], &ours()).unwrap().unwrap();
        assert_eq!(id.to_string(), REVIEWS);
        assert_eq!(peer_spiffe_id(&[], &ours()), Ok(None));
    }

    #[test]
    fn missing_multiple_and_invalid_uri_sans_are_rejected() {
        assert_eq!(uri_name(&certificate(&[], |_| ())), Err(SvidError::UriNames(0)));
        let two = certificate(&[REVIEWS, REVIEWS], |_| ());
        assert_eq!(peer_spiffe_id(&[two], &ours()), Err(SvidError::UriNames(2)));
        let other = certificate(&["https://example.com"], |_| ());
        let error = peer_spiffe_id(&[other], &ours()).unwrap_err();
        assert!(matches!(error, SvidError::NotAnIdentity(_)), "{error}");
        let junk = CertificateDer::from(vec![0x30, 0x03, 1, 2, 3]);
        assert!(matches!(uri_name(&junk), Err(SvidError::Unreadable(_))));
    }

    #[test]
    fn other_trust_domains_are_rejected() {
        let leaf = certificate(&["spiffe://evil.example/ns/default/sa/reviews"], |_| ());
        let error = peer_spiffe_id(&[leaf], &ours()).unwrap_err();
        assert!(matches!(error, SvidError::OtherTrustDomain { .. }), "{error}");
    }

    #[test]
    fn ca_and_signing_certificates_are_rejected() {
        let ca = certificate(&[REVIEWS], |p| p.is_ca = IsCa::Ca(BasicConstraints::Unconstrained));
        assert_eq!(uri_name(&ca), Err(SvidError::MaySign));
        for usage in [KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign] {
            let signer = certificate(&[REVIEWS], |p| p.key_usages = vec![usage]);
            assert_eq!(uri_name(&signer), Err(SvidError::MaySign));
        }
    }

    proptest::proptest! {
        #[test]
        fn arbitrary_certificates_do_not_panic(noise: Vec<u8>, at in 0_usize..400, cut in 0_usize..400) {
            uri_name(&CertificateDer::from(noise.clone())).ok();
            let mut bent = certificate(&[REVIEWS], |_| ()).to_vec();
            bent.truncate(bent.len() - cut.min(bent.len()));
            let end = (at + noise.len()).min(bent.len());
            bent.splice(at.min(end)..end, noise);
            uri_name(&CertificateDer::from(bent)).ok();
        }
    }

    #[test]
    fn matchers_match_exactly_or_by_prefix() {
        let exact = SpiffeMatcher::Exact(vec!["a".to_owned(), REVIEWS.to_owned()]);
        assert!(exact.matches(REVIEWS) && exact.matches("a"));
        assert!(!exact.matches(&REVIEWS[..REVIEWS.len() - 1]) && !exact.matches("ab"));
        let prefix = SpiffeMatcher::Prefix("spiffe://cluster.local/ns/default/".to_owned());
        assert!(prefix.matches(REVIEWS));
        assert!(!prefix.matches("spiffe://cluster.local/ns/default2/sa/reviews"));
        assert_eq!(exact.to_string(), format!("`a` or `{REVIEWS}`"));
    }
}
