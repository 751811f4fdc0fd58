//! Revocation checks for servers that are verified without a name.

use std::sync::Arc;

use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, UnixTime};
use rustls::{CertificateError, OtherError, RootCertStore};
use webpki::{
    CertRevocationList, EndEntityCert, KeyUsage, OwnedCertRevocationList, RevocationCheckDepth,
    RevocationOptionsBuilder,
};

use super::suites;

/// Certificate revocation lists (`CertificateValidationContext.crl`).
#[derive(Debug)]
pub(super) struct Revocation {
    lists: Vec<CertRevocationList<'static>>,
    depth: RevocationCheckDepth,
}

impl Revocation {
    /// The lists, for a whole chain or only for the peer's certificate; `None` if there are none.
    ///
    /// # Errors
    /// If one is invalid.
    pub(super) fn new(
        lists: &[CertificateRevocationListDer<'_>],
        leaf_only: bool,
    ) -> Result<Option<Self>, webpki::Error> {
        let lists = lists
            .iter()
            .map(|list| OwnedCertRevocationList::from_der(list).map(Into::into))
            .collect::<Result<Vec<_>, _>>()?;
        let depth = match leaf_only {
            true => RevocationCheckDepth::EndEntity,
            false => RevocationCheckDepth::Chain,
        };
        Ok((!lists.is_empty()).then_some(Self { lists, depth }))
    }

    /// Checks a chain that has otherwise been verified. As in Envoy, a certificate that no list covers is refused.
    ///
    /// # Errors
    /// If a certificate is revoked or not covered.
    pub(super) fn check(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        roots: &RootCertStore,
        now: UnixTime,
    ) -> Result<(), rustls::Error> {
        let lists: Vec<_> = self.lists.iter().collect();
        let options = RevocationOptionsBuilder::new(&lists)
            .map_err(|_| CertificateError::UnknownRevocationStatus)?
            .with_depth(self.depth)
            .build();
        let algorithms = suites::provider().signature_verification_algorithms.all;
        let usage = KeyUsage::server_auth();
        let verified = EndEntityCert::try_from(end_entity).and_then(|certificate| {
            let verified =
                certificate.verify_for_usage(algorithms, &roots.roots, intermediates, now, usage, Some(options), None);
            verified.map(drop)
        });
        verified.map_err(|error| {
            let error = match error {
                webpki::Error::CertRevoked => CertificateError::Revoked,
                webpki::Error::UnknownRevocationStatus => CertificateError::UnknownRevocationStatus,
                other => CertificateError::Other(OtherError(Arc::new(other))),
            };
            error.into()
        })
    }
}
