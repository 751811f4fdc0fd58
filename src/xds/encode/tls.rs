//! TLS transport sockets, downstream and upstream.

use super::value::{ads, any, boolean};
use crate::ir::cluster::{ServerIdentity, UpstreamTls};
use crate::ir::listener::DownstreamTls;
use crate::mesh::config::TlsVersion;
use crate::mesh::destination_rule::{ProxyProtocol, ServerVerification};
use crate::xds::pb::ProxyProtocolUpstreamTransport;
use crate::xds::pb::core::transport_socket::ConfigType;
use crate::xds::pb::core::{ProxyProtocolConfig, TransportSocket, proxy_protocol_config};
use crate::xds::pb::matcher::StringMatcher;
use crate::xds::pb::matcher::string_matcher::MatchPattern;
use crate::xds::pb::raw_buffer::RawBuffer;
use crate::xds::pb::tls::common_tls_context::{CombinedCertificateValidationContext, ValidationContextType};
use crate::xds::pb::tls::subject_alt_name_matcher::SanType;
use crate::xds::pb::tls::tls_parameters::TlsProtocol;
use crate::xds::pb::tls::{
    CertificateValidationContext, CommonTlsContext, DownstreamTlsContext, SdsSecretConfig, SubjectAltNameMatcher,
    TlsParameters, UpstreamTlsContext,
};
use crate::xds::pb::wkt::Any;

/// The SDS name of the workload's certificate and key.
pub const SECRET_CERTIFICATE: &str = "default";

/// The SDS name of the trust bundle.
pub const SECRET_TRUST_BUNDLE: &str = "ROOTCA";

/// Cipher suites of Istio mutual TLS for TLS 1.2.
const MUTUAL_TLS_CIPHERS: [&str; 6] = [
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-RSA-AES256-GCM-SHA384",
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-RSA-AES128-GCM-SHA256",
    "AES256-GCM-SHA384",
    "AES128-GCM-SHA256",
];

/// Upstream TLS.
pub(super) fn upstream(tls: &UpstreamTls) -> TransportSocket {
    let (common, sni) = match tls {
        UpstreamTls::Istio {
            server,
            sni,
            alpn,
            oldest,
        } => {
            let verify = validation(SECRET_TRUST_BUNDLE, server_matchers(server));
            (mutual(alpn, *oldest, verify), sni.to_string())
        }
        UpstreamTls::Files {
            certificate,
            verify,
            subject_alt_names,
            sni,
            alpn,
        } => {
            let names = subject_alt_names.iter().flat_map(|name| name_matchers(name)).collect();
            let common = CommonTlsContext {
                tls_params: Some(versions(TlsVersion::V1_2, &[])),
                tls_certificate_sds_secret_configs: certificate
                    .iter()
                    .map(|(certificate, key)| secret(file_certificate_name(certificate, key)))
                    .collect(),
                alpn_protocols: protocols(alpn),
                validation_context_type: trust_name(verify).map(|bundle| validation(&bundle, names)),
                ..Default::default()
            };
            (common, sni.as_deref().unwrap_or_default().to_owned())
        }
    };
    socket(any(&UpstreamTlsContext {
        common_tls_context: Some(common),
        sni,
        ..Default::default()
    }))
}

/// Termination of Istio mutual TLS.
pub(super) fn downstream(tls: &DownstreamTls) -> TransportSocket {
    let peers = tls
        .trust_domains
        .iter()
        .map(|domain| uri(MatchPattern::Prefix(format!("spiffe://{domain}/"))))
        .collect();
    socket(any(&DownstreamTlsContext {
        common_tls_context: Some(mutual(&tls.alpn, tls.oldest, validation(SECRET_TRUST_BUNDLE, peers))),
        require_client_certificate: Some(boolean(true)),
        ..Default::default()
    }))
}

/// Raw buffer.
pub(super) fn plaintext() -> TransportSocket {
    TransportSocket {
        name: "envoy.transport_sockets.raw_buffer".to_owned(),
        config_type: Some(ConfigType::TypedConfig(any(&RawBuffer {}))),
    }
}

/// Wraps a transport socket in the PROXY protocol.
pub(super) fn told_by_proxy_protocol(version: ProxyProtocol, inner: TransportSocket) -> TransportSocket {
    let version = match version {
        ProxyProtocol::V1 => proxy_protocol_config::Version::V1,
        ProxyProtocol::V2 => proxy_protocol_config::Version::V2,
    };
    let config = ProxyProtocolConfig {
        version: version.into(),
        ..Default::default()
    };
    TransportSocket {
        name: "envoy.transport_sockets.upstream_proxy_protocol".to_owned(),
        config_type: Some(ConfigType::TypedConfig(any(&ProxyProtocolUpstreamTransport {
            config: Some(config),
            transport_socket: Some(inner),
            ..Default::default()
        }))),
    }
}

/// SDS name of a certificate and key in files, in Istio's format.
pub(super) fn file_certificate_name(certificate: &str, key: &str) -> String {
    format!("file-cert:{certificate}~{key}")
}

/// SDS name of the CA certificates for server verification; `None` if it is disabled.
pub(super) fn trust_name(verify: &ServerVerification) -> Option<String> {
    match verify {
        ServerVerification::System => Some("file-root:system".to_owned()),
        ServerVerification::File { ca, crl: None } => Some(format!("file-root:{ca}")),
        ServerVerification::File { ca, crl: Some(crl) } => Some(format!("file-root:{ca}~{crl}")),
        ServerVerification::None => None,
    }
}

fn socket(typed_config: Any) -> TransportSocket {
    TransportSocket {
        name: "envoy.transport_sockets.tls".to_owned(),
        config_type: Some(ConfigType::TypedConfig(typed_config)),
    }
}

fn mutual(alpn: &[&'static str], oldest: TlsVersion, verify: ValidationContextType) -> CommonTlsContext {
    CommonTlsContext {
        tls_params: Some(versions(oldest, &MUTUAL_TLS_CIPHERS)),
        tls_certificate_sds_secret_configs: vec![secret(SECRET_CERTIFICATE)],
        alpn_protocols: protocols(alpn),
        validation_context_type: Some(verify),
        ..Default::default()
    }
}

/// TLS versions up to 1.3. `ciphers` apply to TLS 1.2; empty selects Envoy's defaults.
fn versions(oldest: TlsVersion, ciphers: &[&str]) -> TlsParameters {
    let oldest = match oldest {
        TlsVersion::V1_2 => TlsProtocol::TlSv12,
        TlsVersion::V1_3 => TlsProtocol::TlSv13,
    };
    TlsParameters {
        tls_minimum_protocol_version: oldest.into(),
        tls_maximum_protocol_version: TlsProtocol::TlSv13.into(),
        cipher_suites: ciphers.iter().map(ToString::to_string).collect(),
        ..Default::default()
    }
}

fn protocols(alpn: &[&'static str]) -> Vec<String> {
    alpn.iter().map(ToString::to_string).collect()
}

fn secret(name: impl Into<String>) -> SdsSecretConfig {
    SdsSecretConfig {
        name: name.into(),
        sds_config: Some(ads()),
    }
}

/// Validation by the CA certificates of a secret and, if given, by subject alternative names.
fn validation(bundle: &str, names: Vec<SubjectAltNameMatcher>) -> ValidationContextType {
    ValidationContextType::CombinedValidationContext(CombinedCertificateValidationContext {
        default_validation_context: Some(CertificateValidationContext {
            match_typed_subject_alt_names: names,
            ..Default::default()
        }),
        validation_context_sds_secret_config: Some(secret(bundle)),
        ..Default::default()
    })
}

fn server_matchers(server: &ServerIdentity) -> Vec<SubjectAltNameMatcher> {
    match server {
        ServerIdentity::Exact(names) => names.iter().flat_map(|name| name_matchers(name)).collect(),
        ServerIdentity::Prefixes(prefixes) => {
            let prefixes = prefixes.iter();
            prefixes
                .map(|prefix| uri(MatchPattern::Prefix(prefix.clone())))
                .collect()
        }
    }
}

/// Istio matches names against SANs of any type; Envoy needs the type, which is inferred from the
/// name.
fn name_matchers(name: &str) -> Vec<SubjectAltNameMatcher> {
    let exact = MatchPattern::Exact(name.to_owned());
    if name.contains("://") {
        return vec![uri(exact)];
    }
    if name.parse::<std::net::IpAddr>().is_ok() {
        return vec![san(SanType::IpAddress, exact)];
    }
    if name.contains('@') {
        return vec![san(SanType::Email, exact)];
    }
    vec![san(SanType::Dns, exact.clone()), uri(exact)]
}

fn uri(pattern: MatchPattern) -> SubjectAltNameMatcher {
    san(SanType::Uri, pattern)
}

fn san(kind: SanType, pattern: MatchPattern) -> SubjectAltNameMatcher {
    SubjectAltNameMatcher {
        san_type: kind.into(),
        matcher: Some(StringMatcher {
            match_pattern: Some(pattern),
            ..Default::default()
        }),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::xds::encode::testing::printed;

    /// The TLS context of a socket, without the wrapping.
    fn context(socket: &TransportSocket) -> Value {
        printed(socket)["typed_config"].clone()
    }

    fn sds(name: &str) -> Value {
        let config = json!({"ads": {}, "initial_fetch_timeout": "0s", "resource_api_version": "V3"});
        json!({"name": name, "sds_config": config})
    }

    #[test]
    fn mutual_tls_uses_the_workloads_certificate_and_asks_for_the_servers_identity() {
        let server = ServerIdentity::Exact(vec!["spiffe://cluster.local/ns/default/sa/reviews".into()]);
        let socket = upstream(&UpstreamTls::Istio {
            server,
            sni: "outbound_.9080_._.reviews".into(),
            alpn: vec!["istio-h2", "istio", "h2"],
            oldest: TlsVersion::V1_2,
        });
        assert_eq!(
            context(&socket),
            json!({
                "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
                "common_tls_context": {
                    "tls_params": {
                        "tls_minimum_protocol_version": "TLSv1_2",
                        "tls_maximum_protocol_version": "TLSv1_3",
                        "cipher_suites": MUTUAL_TLS_CIPHERS,
                    },
                    "tls_certificate_sds_secret_configs": [sds("default")],
                    "combined_validation_context": {
                        "default_validation_context": {"match_typed_subject_alt_names": [{
                            "san_type": "URI",
                            "matcher": {"exact": "spiffe://cluster.local/ns/default/sa/reviews"},
                        }]},
                        "validation_context_sds_secret_config": sds("ROOTCA"),
                    },
                    "alpn_protocols": ["istio-h2", "istio", "h2"],
                },
                "sni": "outbound_.9080_._.reviews",
            })
        );
    }

    #[test]
    fn clients_need_a_certificate_of_a_trust_domain() {
        let socket = downstream(&DownstreamTls {
            trust_domains: vec!["cluster.local".parse().unwrap(), "old".parse().unwrap()],
            alpn: vec!["h2", "http/1.1"],
            oldest: TlsVersion::V1_3,
        });
        let context = context(&socket);
        assert_eq!(context["require_client_certificate"], true);
        let common = &context["common_tls_context"];
        assert_eq!(common["tls_params"]["tls_minimum_protocol_version"], "TLSv1_3");
        assert_eq!(common["alpn_protocols"], json!(["h2", "http/1.1"]));
        assert_eq!(
            common["combined_validation_context"]["default_validation_context"],
            json!({"match_typed_subject_alt_names": [
                {"san_type": "URI", "matcher": {"prefix": "spiffe://cluster.local/"}},
                {"san_type": "URI", "matcher": {"prefix": "spiffe://old/"}},
            ]})
        );
    }

    #[test]
    fn file_certificates_have_istios_sds_names() {
        let socket = upstream(&UpstreamTls::Files {
            certificate: Some(("/c.pem".into(), "/k.pem".into())),
            verify: ServerVerification::File {
                ca: "/ca.pem".into(),
                crl: None,
            },
            subject_alt_names: vec!["example.com".into()],
            sni: Some("example.com".into()),
            alpn: vec![],
        });
        let context = context(&socket);
        let common = &context["common_tls_context"];
        assert_eq!(
            common["tls_certificate_sds_secret_configs"],
            json!([sds("file-cert:/c.pem~/k.pem")])
        );
        let validation = &common["combined_validation_context"];
        assert_eq!(
            validation["validation_context_sds_secret_config"],
            sds("file-root:/ca.pem")
        );
        assert_eq!(common["tls_params"].get("cipher_suites"), None);
    }

    #[test]
    fn a_server_that_is_not_verified_has_no_validation() {
        let socket = upstream(&UpstreamTls::Files {
            certificate: None,
            verify: ServerVerification::None,
            subject_alt_names: vec![],
            sni: None,
            alpn: vec![],
        });
        let common = &context(&socket)["common_tls_context"];
        assert_eq!(common.get("combined_validation_context"), None);
        assert_eq!(common.get("tls_certificate_sds_secret_configs"), None);
    }

    #[test]
    fn the_san_type_is_inferred_from_the_name() {
        let types = |name| -> Vec<SanType> {
            name_matchers(name)
                .iter()
                .map(SubjectAltNameMatcher::san_type)
                .collect()
        };
        assert_eq!(types("spiffe://a/b"), [SanType::Uri]);
        assert_eq!(types("10.0.0.1"), [SanType::IpAddress]);
        assert_eq!(types("me@example.com"), [SanType::Email]);
        assert_eq!(types("example.com"), [SanType::Dns, SanType::Uri]);
    }
}
