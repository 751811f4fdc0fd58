use std::fs;
use std::path::Path;

use rcgen::{CertificateParams, KeyPair};

use super::*;
use crate::proxy::config::source::SecretSource;
use crate::proxy::tls::FileSecrets;
use crate::xds::pb::core::api_config_source::ApiType;
use crate::xds::pb::core::config_source::ConfigSourceSpecifier;
use crate::xds::pb::core::grpc_service::{EnvoyGrpc, TargetSpecifier};
use crate::xds::pb::core::{AggregatedConfigSource, ApiConfigSource, ConfigSource, GrpcService};

/// A certificate and its key, PEM.
fn pair(name: &str) -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new([name.to_owned()]).unwrap();
    (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
}

fn source(specifier: Specifier) -> Option<DataSource> {
    Some(DataSource {
        specifier: Some(specifier),
        ..Default::default()
    })
}

fn inline(text: impl Into<String>) -> Option<DataSource> {
    source(Specifier::InlineString(text.into()))
}

fn file(path: &Path) -> Option<DataSource> {
    source(Specifier::Filename(path.display().to_string()))
}

fn secret(name: &str) -> SdsSecretConfig {
    sourced(name, ConfigSourceSpecifier::Ads(AggregatedConfigSource {}))
}

fn sourced(name: &str, source: ConfigSourceSpecifier) -> SdsSecretConfig {
    SdsSecretConfig {
        name: name.to_owned(),
        sds_config: Some(ConfigSource {
            config_source_specifier: Some(source),
            ..Default::default()
        }),
    }
}

fn tls_certificate() -> TlsCertificate {
    let (chain, key) = pair("a.example");
    TlsCertificate {
        certificate_chain: inline(chain),
        private_key: inline(key),
        ..Default::default()
    }
}

fn server(common: CommonTlsContext) -> DownstreamTlsContext {
    DownstreamTlsContext {
        common_tls_context: Some(common),
        ..Default::default()
    }
}

fn refusal<T: std::fmt::Debug>(compiled: Compiled<T>) -> String {
    compiled.unwrap_err().to_string()
}

fn with_certificate(secret: SdsSecretConfig) -> DownstreamTlsContext {
    server(CommonTlsContext {
        tls_certificate_sds_secret_configs: vec![secret],
        ..Default::default()
    })
}

#[test]
fn secrets_of_one_name_from_two_sources_are_two_secrets() {
    let mut names = Names {
        servers: Some(["sds".to_owned()].into()),
        ..Default::default()
    };
    let server = |cluster: &str, kind: ApiType| {
        let grpc = EnvoyGrpc {
            cluster_name: cluster.to_owned(),
            ..Default::default()
        };
        let service = GrpcService {
            target_specifier: Some(TargetSpecifier::EnvoyGrpc(grpc)),
            ..Default::default()
        };
        ConfigSourceSpecifier::ApiConfigSource(ApiConfigSource {
            api_type: kind.into(),
            grpc_services: vec![service],
            ..Default::default()
        })
    };
    let mut place = |source| {
        let tls = downstream(&with_certificate(sourced("default", source)), &mut names);
        tls.map(|tls| tls.certificate).map_err(|refusal| refusal.to_string())
    };
    let ads = place(ConfigSourceSpecifier::Ads(AggregatedConfigSource {})).unwrap();
    let own = place(server("sds", ApiType::DeltaGrpc)).unwrap();
    assert!(!Arc::ptr_eq(&ads, &own) && Arc::ptr_eq(&own, &place(server("sds", ApiType::DeltaGrpc)).unwrap()));
    let refused = place(server("who", ApiType::Grpc)).unwrap_err();
    let at = "common_tls_context.tls_certificate_sds_secret_configs[0].sds_config.api_config_source";
    assert_eq!(
        refused,
        format!("{at}.grpc_services[0].envoy_grpc.cluster_name: the bootstrap has no cluster `who`")
    );
    let refused = place(server("sds", ApiType::Rest)).unwrap_err();
    assert_eq!(refused, format!("{at}: this api_type is not implemented"));
    let missing = SdsSecretConfig {
        name: "static".into(),
        ..Default::default()
    };
    assert!(
        refusal(downstream(&with_certificate(missing), &mut names)).ends_with("there is no static secret `static`")
    );
}

#[test]
fn named_secrets_are_places_and_inline_ones_are_filled() {
    let mut names = Names::default();
    let common = CommonTlsContext {
        tls_certificate_sds_secret_configs: vec![secret("default")],
        validation_context_type: Some(ValidationContextType::CombinedValidationContext(
            CombinedCertificateValidationContext {
                default_validation_context: Some(CertificateValidationContext {
                    match_typed_subject_alt_names: vec![SubjectAltNameMatcher {
                        san_type: SanType::Dns.into(),
                        matcher: Some(StringMatcher {
                            match_pattern: Some(MatchPattern::Exact("A.example".into())),
                            ..Default::default()
                        }),
                        ..Default::default()
                    }],
                    ..Default::default()
                }),
                validation_context_sds_secret_config: Some(secret("ROOTCA")),
                ..Default::default()
            },
        )),
        alpn_protocols: vec!["h2".into()],
        ..Default::default()
    };
    let mut message = server(common);
    message.require_client_certificate = Some(crate::xds::pb::wkt::BoolValue { value: true });
    let tls = downstream(&message, &mut names).unwrap();
    assert!(Arc::ptr_eq(
        &tls.certificate,
        &names.secrets.of(SecretSource::Ads).certificates.of("default")
    ));
    assert!(Arc::ptr_eq(
        tls.verification.trust.as_ref().unwrap(),
        &names.secrets.of(SecretSource::Ads).trust.of("ROOTCA")
    ));
    assert!(matches!(&tls.verification.names[..], [SanMatcher::DnsName(name)] if **name == *"a.example"));
    assert!(tls.require_client_certificate);
    let inside = CommonTlsContext {
        tls_certificates: vec![tls_certificate()],
        ..Default::default()
    };
    let tls = downstream(&server(inside), &mut names).unwrap();
    assert!(tls.certificate.get().is_some() && tls.verification.trust.is_none());
}

#[test]
fn what_is_not_implemented_is_refused_by_name() {
    let mut names = Names::default();
    let mut refused = |change: fn(&mut CertificateValidationContext)| {
        let mut context = CertificateValidationContext::default();
        change(&mut context);
        let common = CommonTlsContext {
            validation_context_type: Some(ValidationContextType::ValidationContext(context)),
            ..Default::default()
        };
        let message = UpstreamTlsContext {
            common_tls_context: Some(common),
            ..Default::default()
        };
        refusal(upstream(&message, false, &mut names))
    };
    let within = "common_tls_context.validation_context";
    assert_eq!(
        refused(|context| context.allow_expired_certificate = true),
        format!("{within}.allow_expired_certificate: this is not implemented")
    );
    assert_eq!(
        refused(|context| context.verify_certificate_hash = vec!["00".into()]),
        format!("{within}.verify_certificate_hash: this is not implemented")
    );
    assert_eq!(
        refused(|context| context.trusted_ca = inline("nothing")),
        format!("{within}: no root trust anchors were provided")
    );
    let nothing = refusal(downstream(&DownstreamTlsContext::default(), &mut names));
    assert_eq!(nothing, "common_tls_context: a certificate is required");
}

#[test]
fn a_key_has_to_be_the_certificates() {
    let mut message = tls_certificate();
    certificate(&message).unwrap();
    message.private_key = inline(pair("b.example").1);
    assert!(
        refusal(certificate(&message)).contains("Mismatch"),
        "{}",
        refusal(certificate(&message))
    );
    message.private_key = file(Path::new("/nonexistent/key.pem"));
    assert!(refusal(certificate(&message)).starts_with("private_key: cannot read `/nonexistent/key.pem`"));
}

#[test]
fn secrets_in_files_are_read_again_when_the_files_change() {
    let directory = tempfile::tempdir().unwrap();
    let (chain, key) = (directory.path().join("cert.pem"), directory.path().join("key.pem"));
    let write = |(new_chain, new_key): (String, String)| {
        let (next_chain, next_key) = (chain.with_extension("next"), key.with_extension("next"));
        fs::write(&next_chain, new_chain).unwrap();
        fs::write(&next_key, new_key).unwrap();
        fs::rename(next_chain, &chain).unwrap();
        fs::rename(next_key, &key).unwrap();
    };
    write(pair("a.example"));
    let message = TlsCertificate {
        certificate_chain: file(&chain),
        private_key: file(&key),
        ..Default::default()
    };
    let slot = Arc::new(Slot::filled("file-cert", Arc::new(certificate(&message).unwrap())));
    let mut files = FileSecrets::default();
    files.certificate(&slot, certificate_files(message));
    let first = slot.load_full().unwrap();
    files.refresh();
    assert!(Arc::ptr_eq(&first, &slot.load_full().unwrap()));
    fs::write(&chain, "half a file").unwrap();
    files.refresh();
    assert!(Arc::ptr_eq(&first, &slot.load_full().unwrap()));
    write(pair("a.example"));
    files.refresh();
    assert!(!Arc::ptr_eq(&first, &slot.load_full().unwrap()));
}

#[test]
fn versions_before_those_of_rustls_are_refused() {
    let old = TlsParameters {
        tls_minimum_protocol_version: TlsProtocol::TlSv10.into(),
        ..Default::default()
    };
    assert_eq!(
        refusal(protocols(&old)),
        "tls_minimum_protocol_version: TLSv1_0 is not implemented"
    );
}
