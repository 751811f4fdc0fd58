//! Certificates, private keys and trust bundles (SDS).

use std::sync::Arc;

use super::tls::{SECRET_CERTIFICATE, SECRET_TRUST_BUNDLE, file_certificate_name, trust_name};
use crate::ir::cluster::{Cluster, Transport, UpstreamTls};
use crate::ir::{Origins, ResourceName};
use crate::mesh::destination_rule::ServerVerification;
use crate::xds::pb::core::DataSource;
use crate::xds::pb::core::data_source::Specifier;
use crate::xds::pb::tls::{CertificateValidationContext, Secret, TlsCertificate, secret};
use crate::xds::resource::{Resource, ResourceType, Version};

/// The system's CA certificates on Debian, Alpine and most other distributions.
const SYSTEM_CAS: &str = "/etc/ssl/certs/ca-certificates.crt";

/// Workload certificate chain and private key, in PEM. The version identifies the certificate, so
/// that a valid one need not be sent again, and does not depend on the key.
pub fn certificate(chain: &str, key: &str, version: impl Into<Arc<str>>) -> Resource {
    let content = secret::Type::TlsCertificate(TlsCertificate {
        certificate_chain: inline(chain),
        private_key: inline(key),
        ..Default::default()
    });
    let mut resource = resource(SECRET_CERTIFICATE.into(), content, Origins::from([]));
    resource.version = Version::from_text(version);
    resource
}

/// The trust bundle, in PEM.
pub fn trust_bundle(roots: &str) -> Resource {
    let content = secret::Type::ValidationContext(CertificateValidationContext {
        trusted_ca: inline(roots),
        ..Default::default()
    });
    resource(SECRET_TRUST_BUNDLE.into(), content, Origins::from([]))
}

/// Secrets for certificates and CA certificates in files on the proxy's host. They contain paths,
/// and the proxy watches the files. If a file is missing, the proxy rejects the secret, not the
/// cluster.
pub fn file_secrets(cluster: &Cluster) -> Vec<Resource> {
    let (Transport::Tls(tls) | Transport::Auto(tls)) = &cluster.transport else {
        return Vec::new();
    };
    let UpstreamTls::Files {
        certificate, verify, ..
    } = tls
    else {
        return Vec::new();
    };
    let certificate = certificate.as_ref().map(|(certificate, key)| {
        let content = secret::Type::TlsCertificate(TlsCertificate {
            certificate_chain: file(certificate),
            private_key: file(key),
            ..Default::default()
        });
        (file_certificate_name(certificate, key), content)
    });
    let trust = trust_name(verify).map(|name| (name, secret::Type::ValidationContext(trust_files(verify))));
    [certificate, trust]
        .into_iter()
        .flatten()
        .map(|(name, content)| resource(name.into(), content, cluster.origins.clone()))
        .collect()
}

fn trust_files(verify: &ServerVerification) -> CertificateValidationContext {
    let (ca, crl) = match verify {
        ServerVerification::System => (file(SYSTEM_CAS), None),
        ServerVerification::File { ca, crl } => (file(ca), crl.as_deref().and_then(file)),
        ServerVerification::None => (None, None),
    };
    CertificateValidationContext {
        trusted_ca: ca,
        crl,
        ..Default::default()
    }
}

fn resource(name: ResourceName, content: secret::Type, origins: Origins) -> Resource {
    let message = Secret {
        name: name.to_string(),
        r#type: Some(content),
    };
    super::seal(ResourceType::Secret, &name, &message, &origins)
}

/// As bytes, like istiod; `istioctl proxy-config secret` expects them there.
fn inline(text: &str) -> Option<DataSource> {
    data_source(Specifier::InlineBytes(text.as_bytes().to_vec()))
}

fn file(path: &str) -> Option<DataSource> {
    data_source(Specifier::Filename(path.to_owned()))
}

fn data_source(specifier: Specifier) -> Option<DataSource> {
    Some(DataSource {
        specifier: Some(specifier),
        ..Default::default()
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::xds::encode::testing::{cluster, shown};

    #[test]
    fn the_certificate_has_the_version_it_is_given() {
        let secret = certificate("CHAIN", "KEY", "1@2-3");
        assert_eq!((&*secret.name, secret.version.as_str()), ("default", "1@2-3"));
        assert_eq!(
            shown(&secret),
            json!({"name": "default", "tls_certificate": {
                "certificate_chain": {"inline_bytes": "Q0hBSU4="},
                "private_key": {"inline_bytes": "[redacted]"},
            }})
        );
    }

    #[test]
    fn the_trust_bundle_is_versioned_by_its_content() {
        assert_ne!(trust_bundle("A").version, trust_bundle("B").version);
        assert_eq!(
            shown(&trust_bundle("A")),
            json!({"name": "ROOTCA", "validation_context": {"trusted_ca": {"inline_bytes": "QQ=="}}})
        );
    }

    #[test]
    fn file_secrets_refer_to_paths() {
        let secrets = |certificate, verify| {
            file_secrets(&Cluster {
                transport: Transport::Tls(UpstreamTls::Files {
                    certificate,
                    verify,
                    subject_alt_names: vec![],
                    sni: None,
                    alpn: vec![],
                }),
                ..cluster("a")
            })
        };
        let pair = Some(("/c.pem".into(), "/k.pem".into()));
        let both = secrets(pair, ServerVerification::System);
        assert_eq!(
            both.iter().map(shown).collect::<Vec<_>>(),
            [
                json!({"name": "file-cert:/c.pem~/k.pem", "tls_certificate": {
                    "certificate_chain": {"filename": "/c.pem"},
                    "private_key": {"filename": "[redacted]"},
                }}),
                json!({"name": "file-root:system", "validation_context": {"trusted_ca": {"filename": SYSTEM_CAS}}}),
            ]
        );
        let revocation = ServerVerification::File {
            ca: "/ca.pem".into(),
            crl: Some("/crl.pem".into()),
        };
        let revocation = secrets(None, revocation);
        assert_eq!(&*revocation[0].name, "file-root:/ca.pem~/crl.pem");
        assert_eq!(
            shown(&revocation[0])["validation_context"]["crl"],
            json!({"filename": "/crl.pem"})
        );
        assert!(secrets(None, ServerVerification::None).is_empty());
        assert!(file_secrets(&cluster("a")).is_empty());
    }
}
