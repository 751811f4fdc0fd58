//! Client configuration for our own tools and the bundled proxy.

use std::sync::Arc;

use rustls::ClientConfig;
use rustls::client::Resumption;
use rustls::sign::SingleCertAndKey;

use super::verify::{SpiffeMatcher, SvidVerifier};
use super::{ALPN_H2, TlsError, certified_key, provider};
use crate::clock::Clock;
use crate::pki::{TrustBundle, WorkloadCert};

/// A gRPC client configuration that accepts servers with one of the expected SPIFFE IDs, with an
/// optional client certificate.
///
/// # Errors
///
/// If the certificate is invalid.
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
