//! Workload certificates and the trust bundle as SDS secrets.

use std::sync::Arc;

use crate::clock::Clock;
use crate::ir::ResourceName;
use crate::name::SpiffeId;
use crate::pki::{Ca, IssueOptions};
use crate::xds::encode::{self, SECRET_CERTIFICATE, SECRET_TRUST_BUNDLE};
use crate::xds::resource::{Resource, ResourceType, Version};

/// Issues the secrets that proxies request.
#[derive(Debug)]
pub(super) struct Secrets {
    ca: Arc<Ca>,
    /// Shared by all proxies.
    trust_bundle: Arc<Resource>,
    clock: Clock,
    options: IssueOptions,
}

impl Secrets {
    /// Issues certificates from `ca`.
    pub(super) fn new(ca: Arc<Ca>, clock: Clock, options: IssueOptions) -> Self {
        let trust_bundle = Arc::new(encode::trust_bundle(ca.bundle().pem()));
        Self {
            ca,
            trust_bundle,
            clock,
            options,
        }
    }

    /// The secret a proxy requests, if it is one the CA provides. A certificate the proxy already
    /// holds is not reissued before half of its lifetime: the returned resource then has the
    /// current version and no content.
    pub(super) fn wanted(
        &self,
        name: &ResourceName,
        identity: &SpiffeId,
        has: Option<&Version>,
    ) -> Option<Arc<Resource>> {
        match &**name {
            SECRET_TRUST_BUNDLE => Some(self.trust_bundle.clone()),
            SECRET_CERTIFICATE => {
                let good = has.filter(|has| self.ca.recognises(identity, has.as_str(), self.clock.now()).is_some());
                match good {
                    Some(version) => Some(Arc::new(Resource {
                        version: version.clone(),
                        ..Resource::new(ResourceType::Secret, name.clone(), bytes::Bytes::new(), [].into())
                    })),
                    None => self.issue(identity),
                }
            }
            _ => None,
        }
    }

    /// A new certificate if the current one has reached half of its lifetime; `None` if it has not,
    /// or if issuing fails.
    pub(super) fn renewed(&self, identity: &SpiffeId, current: &Version) -> Option<Arc<Resource>> {
        let good = self
            .ca
            .recognises(identity, current.as_str(), self.clock.now())
            .is_some();
        if good { None } else { self.issue(identity) }
    }

    fn issue(&self, identity: &SpiffeId) -> Option<Arc<Resource>> {
        match self.ca.issue(identity, &self.options) {
            Ok(certificate) => {
                let version = self.ca.cert_version(&certificate, identity);
                tracing::debug!(%identity, serial = certificate.serial, "issued a certificate");
                Some(Arc::new(encode::certificate(
                    &certificate.chain_pem,
                    certificate.key_pem.expose(),
                    version,
                )))
            }
            Err(error) => {
                tracing::error!(%identity, "failed to issue a certificate: {error}");
                None
            }
        }
    }
}
