//! The client's side, for our own tools and the data plane.

use std::sync::Arc;

use rustls::ClientConfig;
use rustls::client::Resumption;
use rustls::sign::SingleCertAndKey;

use super::verify::{SpiffeMatcher, SvidVerifier};
use super::{ALPN_H2, TlsError, certified_key, provider};
use crate::clock::Clock;
use crate::pki::{TrustBundle, WorkloadCert};

/// A client that speaks gRPC to a server with one of the expected identities, and shows a
/// certificate of its own if it has one.
///
/// # Errors
/// When the certificate is of no use.
pub fn client_config(
    bundle: &TrustBundle,
    expected: SpiffeMatcher,
    certificate: Option<&WorkloadCert>,
    clock: &Clock,
) -> Result<Arc<ClientConfig>, TlsError> {
    let provider = provider();
    let verifier = Arc::new(SvidVerifier::new(bundle, expected));
    let builder = ClientConfig::builder_with_details(provider.clone(), Arc::new(clock.clone()))
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let mut config = match certificate {
        Some(certificate) => {
            let key = certified_key(certificate, &provider)?;
            builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(key)))
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![ALPN_H2.to_vec()];
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}
