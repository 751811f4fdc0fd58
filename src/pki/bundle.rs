//! The trust bundle: root certificates that verify certificates of the mesh.

use std::sync::Arc;

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;

use super::pem;

/// Why a text is not a trust bundle.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BundleError {
    /// Malformed PEM.
    #[error("it is not valid PEM: {0}")]
    NotPem(String),
    /// It contains no certificate.
    #[error("it contains no certificate")]
    Empty,
    /// A certificate cannot be used as a trust anchor.
    #[error("certificate {position} cannot be used as a root: {why}")]
    NotARoot {
        /// Position of the certificate, from 1.
        position: usize,
        /// The parser's error.
        why: String,
    },
}

/// One or more root certificates; several during root rotation. Cheap to clone.
#[derive(Clone, Debug)]
pub struct TrustBundle {
    roots: Arc<[CertificateDer<'static>]>,
    anchors: Arc<RootCertStore>,
    pem: Arc<str>,
}

impl TrustBundle {
    /// Parses PEM and removes duplicates.
    ///
    /// # Errors
    ///
    /// If the PEM is malformed, has no certificate, or has an invalid one.
    pub fn from_pem(text: &[u8]) -> Result<Self, BundleError> {
        let mut roots = pem::certificates(text).map_err(|e| BundleError::NotPem(pem::problem(&e)))?;
        let mut seen = std::collections::HashSet::new();
        roots.retain(|root| seen.insert(root.clone()));
        Self::from_roots(roots)
    }

    /// Creates a bundle from certificates.
    ///
    /// # Errors
    ///
    /// If there are none, or one is invalid.
    pub fn from_roots(roots: Vec<CertificateDer<'static>>) -> Result<Self, BundleError> {
        if roots.is_empty() {
            return Err(BundleError::Empty);
        }
        let mut anchors = RootCertStore::empty();
        for (index, root) in roots.iter().enumerate() {
            anchors.add(root.clone()).map_err(|why| BundleError::NotARoot {
                position: index + 1,
                why: why.to_string(),
            })?;
        }
        Ok(Self {
            pem: roots.iter().map(pem::encode).collect::<String>().into(),
            roots: roots.into(),
            anchors: Arc::new(anchors),
        })
    }

    /// All roots as PEM; served as SDS secret `ROOTCA`.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// The root certificates.
    pub fn roots(&self) -> &[CertificateDer<'static>] {
        &self.roots
    }

    /// The roots as rustls trust anchors.
    pub fn anchors(&self) -> &Arc<RootCertStore> {
        &self.anchors
    }
}

impl PartialEq for TrustBundle {
    fn eq(&self, other: &Self) -> bool {
        self.roots == other.roots
    }
}

impl Eq for TrustBundle {}

#[cfg(test)]
mod tests {
    use super::*;

    fn root() -> String {
        let params = rcgen::CertificateParams::default();
        params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap().pem()
    }

    #[test]
    fn several_roots_are_kept_in_order_and_once() {
        let (a, b) = (root(), root());
        let bundle = TrustBundle::from_pem(format!("old:\n{a}\nnew:\n{b}{a}").as_bytes()).unwrap();
        assert_eq!(bundle.roots().len(), 2);
        assert_eq!(bundle.anchors().len(), 2);
        assert_eq!(bundle, TrustBundle::from_pem(bundle.pem().as_bytes()).unwrap());
        assert_ne!(bundle, TrustBundle::from_pem(a.as_bytes()).unwrap());
    }

    #[test]
    fn invalid_bundles_are_rejected_with_a_reason() {
        assert_eq!(TrustBundle::from_pem(b"hello").unwrap_err(), BundleError::Empty);
        let cut = root().replace("-----END", "");
        assert!(matches!(
            TrustBundle::from_pem(cut.as_bytes()),
            Err(BundleError::NotPem(_))
        ));
        let junk = pem::encode(&CertificateDer::from(vec![1, 2, 3]));
        let error = TrustBundle::from_pem((root() + &junk).as_bytes()).unwrap_err();
        assert!(matches!(error, BundleError::NotARoot { position: 2, .. }), "{error}");
    }
}
