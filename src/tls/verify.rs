//! Who a certificate belongs to, by the rules of X509-SVID.
//!
//! A chain is verified by webpki as any other; what differs is the name. rustls' own verifiers of
//! servers insist on a DNS name or an address, so the chain is verified by the part of them that
//! does not, and the name is matched here.

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

/// Why a certificate does not name a peer that is wanted here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SvidError {
    /// Not X.509.
    #[error("the certificate cannot be read: {0}")]
    Unreadable(String),
    /// A certificate that may sign others is never a workload's (X509-SVID sections 4.1 and 4.3).
    #[error("the certificate is one of a CA, not of a workload")]
    MaySign,
    /// There has to be exactly one URI name (X509-SVID section 2).
    #[error("the certificate has {0} URI names; a SPIFFE certificate has exactly one")]
    UriNames(usize),
    /// The URI is not the identity of a workload.
    #[error("{0}")]
    NotAnIdentity(#[from] InvalidName),
    /// An identity in somebody else's mesh.
    #[error("`{found}` is not in the trust domain `{ours}`")]
    OtherTrustDomain {
        /// The identity in the certificate.
        found: SpiffeId,
        /// The trust domain of this mesh.
        ours: TrustDomain,
    },
    /// The chain is good and the peer is somebody else.
    #[error("the peer is `{found}`, and {expected} was expected")]
    NotExpected {
        /// The URI in the certificate.
        found: String,
        /// What would have matched.
        expected: SpiffeMatcher,
    },
}

impl From<SvidError> for rustls::Error {
    fn from(error: SvidError) -> Self {
        CertificateError::Other(OtherError(Arc::new(error))).into()
    }
}

/// The URI name of a leaf certificate that keeps to X509-SVID.
///
/// # Errors
/// When it does not. Its chain is not looked at.
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

/// The identity of a peer in our trust domain, by the certificates it presented (its own first).
/// `None` if it presented none. The chain has to be verified already.
///
/// # Errors
/// When the certificate is not that of a workload of this mesh.
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

/// Which peers are wanted, by their URI name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SpiffeMatcher {
    /// One of these, character by character.
    Exact(Vec<String>),
    /// Everybody whose URI begins so, such as `spiffe://cluster.local/ns/default/`.
    Prefix(String),
}

impl SpiffeMatcher {
    /// Whether the peer with this URI is wanted.
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

/// A client's check of a server: its chain leads to the bundle, and its URI name is one that is
/// wanted. The name that was dialled does not matter.
#[derive(Debug)]
pub struct SvidVerifier {
    bundle: TrustBundle,
    expected: SpiffeMatcher,
    provider: Arc<CryptoProvider>,
}

impl SvidVerifier {
    /// A check against these roots and names.
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
    fn a_workload_is_who_its_one_uri_says() {
        let leaf = certificate(&[REVIEWS], |_| ());
        assert_eq!(uri_name(&leaf).unwrap(), REVIEWS);
        let id = peer_spiffe_id(&[leaf], &ours()).unwrap().unwrap();
        assert_eq!(id.to_string(), REVIEWS);
        assert_eq!(peer_spiffe_id(&[], &ours()), Ok(None));
    }

    #[test]
    fn no_uri_two_uris_and_other_uris_are_nobody() {
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
    fn another_trust_domain_is_somebody_else() {
        let leaf = certificate(&["spiffe://evil.example/ns/default/sa/reviews"], |_| ());
        let error = peer_spiffe_id(&[leaf], &ours()).unwrap_err();
        assert!(matches!(error, SvidError::OtherTrustDomain { .. }), "{error}");
    }

    #[test]
    fn whoever_may_sign_is_no_workload() {
        let ca = certificate(&[REVIEWS], |p| p.is_ca = IsCa::Ca(BasicConstraints::Unconstrained));
        assert_eq!(uri_name(&ca), Err(SvidError::MaySign));
        for usage in [KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign] {
            let signer = certificate(&[REVIEWS], |p| p.key_usages = vec![usage]);
            assert_eq!(uri_name(&signer), Err(SvidError::MaySign));
        }
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_do_harm(noise: Vec<u8>, at in 0_usize..400, cut in 0_usize..400) {
            uri_name(&CertificateDer::from(noise.clone())).ok();
            let mut bent = certificate(&[REVIEWS], |_| ()).to_vec();
            bent.truncate(bent.len() - cut.min(bent.len()));
            let end = (at + noise.len()).min(bent.len());
            bent.splice(at.min(end)..end, noise);
            uri_name(&CertificateDer::from(bent)).ok();
        }
    }

    #[test]
    fn matchers_match_whole_names_or_beginnings() {
        let exact = SpiffeMatcher::Exact(vec!["a".to_owned(), REVIEWS.to_owned()]);
        assert!(exact.matches(REVIEWS) && exact.matches("a"));
        assert!(!exact.matches(&REVIEWS[..REVIEWS.len() - 1]) && !exact.matches("ab"));
        let prefix = SpiffeMatcher::Prefix("spiffe://cluster.local/ns/default/".to_owned());
        assert!(prefix.matches(REVIEWS));
        assert!(!prefix.matches("spiffe://cluster.local/ns/default2/sa/reviews"));
        assert_eq!(exact.to_string(), format!("`a` or `{REVIEWS}`"));
    }
}
