//! Workload certificates and the trust bundle as resources.

use std::sync::Arc;

use crate::clock::Clock;
use crate::ir::ResourceName;
use crate::name::SpiffeId;
use crate::pki::{Ca, IssueOptions};
use crate::xds::encode::{self, SECRET_CERTIFICATE, SECRET_TRUST_BUNDLE};
use crate::xds::resource::{Resource, ResourceType, Version};

/// Issues what proxies ask for.
#[derive(Debug)]
pub(super) struct Secrets {
    ca: Arc<Ca>,
    /// Everyone has the same.
    trust_bundle: Arc<Resource>,
    clock: Clock,
    options: IssueOptions,
}

impl Secrets {
    /// Issues from a CA.
    pub(super) fn new(ca: Arc<Ca>, clock: Clock, options: IssueOptions) -> Self {
        let trust_bundle = Arc::new(encode::trust_bundle(ca.bundle().pem()));
        Self {
            ca,
            trust_bundle,
            clock,
            options,
        }
    }

    /// The secret a proxy asks for, if it is one of those the CA makes. A certificate that the proxy
    /// has and that is good for half of its life yet is not made anew: the resource then stands for
    /// it, by its version, without content.
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

    /// A new certificate in the place of one that has reached half of its life. `None` while it has
    /// not, or when none can be issued.
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
                tracing::error!(%identity, "no certificate can be issued: {error}");
                None
            }
        }
    }
}
