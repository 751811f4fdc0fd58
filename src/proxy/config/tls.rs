//! Compiling TLS contexts and secrets.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use zeroize::Zeroizing;

use super::matcher::text;
use super::value::{self, fetch_timeout, truth, unpack};
use super::{At, Compiled, Names, Refusal, bootstrap, same_name, source};
use crate::proxy::slot::Slot;
use crate::proxy::tls::{
    Certificate, DownstreamTls, Protocols, SanMatcher, SecretFiles, TrustAnchors, UpstreamTls, Verification,
};
use crate::xds::ResourceType;
use crate::xds::pb::core::DataSource;
use crate::xds::pb::core::data_source::Specifier;
use crate::xds::pb::discovery::DiscoveryResponse;
use crate::xds::pb::matcher::StringMatcher;
use crate::xds::pb::matcher::string_matcher::MatchPattern;
use crate::xds::pb::tls::common_tls_context::{CombinedCertificateValidationContext, ValidationContextType};
use crate::xds::pb::tls::downstream_tls_context::SessionTicketKeysType;
use crate::xds::pb::tls::secret::Type;
use crate::xds::pb::tls::subject_alt_name_matcher::SanType;
use crate::xds::pb::tls::tls_parameters::TlsProtocol;
use crate::xds::pb::tls::{
    self, CertificateValidationContext, CommonTlsContext, DownstreamTlsContext, SdsSecretConfig, SubjectAltNameMatcher,
    TlsCertificate, TlsParameters, UpstreamTlsContext,
};

/// Our certificate, and how long SDS is waited for.
type Own = (Arc<Slot<Certificate>>, Option<Duration>);

/// What downstream and upstream contexts have in common.
struct Common {
    certificate: Option<Own>,
    verification: Verification,
    protocols: Protocols,
    alpn: Vec<Vec<u8>>,
}

/// Compiles an upstream context. `server_name`: whether `auto_san_validation` is on.
pub(crate) fn upstream(message: &UpstreamTlsContext, server_name: bool, names: &mut Names) -> Compiled<UpstreamTls> {
    let nothing = CommonTlsContext::default();
    let common = common(message.common_tls_context.as_ref().unwrap_or(&nothing), names);
    let mut common = common.at("common_tls_context")?;
    unset(message.allow_renegotiation, "allow_renegotiation")?;
    common.verification.server_name = server_name || message.auto_sni_san_validation;
    let keys = message.max_session_keys.as_ref();
    let mut tls = UpstreamTls::default();
    if let Some((certificate, timeout)) = common.certificate {
        tls.certificate = Some(certificate);
        tls.certificate_timeout = timeout;
    }
    tls.verification = common.verification;
    tls.protocols = common.protocols;
    tls.sni = (!message.sni.is_empty()).then(|| message.sni.as_str().into());
    tls.host_sni = message.auto_host_sni;
    tls.alpn = common.alpn;
    tls.resumption = keys.is_none_or(|keys| keys.value > 0);
    Ok(tls)
}

/// Compiles a downstream context.
pub(crate) fn downstream(message: &DownstreamTlsContext, names: &mut Names) -> Compiled<DownstreamTls> {
    let nothing = CommonTlsContext::default();
    let common = common(message.common_tls_context.as_ref().unwrap_or(&nothing), names);
    let common = common.at("common_tls_context")?;
    let certificate = common
        .certificate
        .ok_or_else(|| Refusal::new("a certificate is required"));
    let required = truth(message.require_client_certificate.as_ref(), false);
    if required && common.verification.trust.is_none() {
        let why = "a certificate that is not verified";
        return Err(Refusal::not_implemented(why)).at("require_client_certificate");
    }
    unset(truth(message.require_sni.as_ref(), false), "require_sni")?;
    unset(message.ocsp_staple_policy != 0, "ocsp_staple_policy")?;
    let tickets = message.session_ticket_keys_type.as_ref();
    let tickets = !matches!(
        tickets,
        Some(SessionTicketKeysType::DisableStatelessSessionResumption(true))
    );
    let (certificate, timeout) = certificate.at("common_tls_context")?;
    let mut tls = DownstreamTls::new(certificate);
    tls.certificate_timeout = timeout;
    tls.verification = common.verification;
    tls.require_client_certificate = required;
    tls.protocols = common.protocols;
    tls.alpn = common.alpn;
    tls.prefer_client_ciphers = message.prefer_client_ciphers;
    tls.resumption = tickets;
    Ok(tls)
}

fn common(message: &CommonTlsContext, names: &mut Names) -> Compiled<Common> {
    unset(
        message.tls_certificate_provider_instance.is_some(),
        "tls_certificate_provider_instance",
    )?;
    unset(
        message.custom_tls_certificate_selector.is_some(),
        "custom_tls_certificate_selector",
    )?;
    unset(message.custom_handshaker.is_some(), "custom_handshaker")?;
    unset(message.key_log.is_some(), "key_log")?;
    let params = message.tls_params.as_ref();
    Ok(Common {
        certificate: own_certificate(message, names)?,
        verification: verification(message.validation_context_type.as_ref(), names)?,
        protocols: params.map(protocols).transpose().at("tls_params")?.unwrap_or_default(),
        alpn: message
            .alpn_protocols
            .iter()
            .map(|name| name.as_bytes().to_vec())
            .collect(),
    })
}

fn own_certificate(message: &CommonTlsContext, names: &mut Names) -> Compiled<Option<Own>> {
    let (inline, named) = (&message.tls_certificates, &message.tls_certificate_sds_secret_configs);
    match (&inline[..], &named[..]) {
        ([], []) => Ok(None),
        ([], [secret]) => {
            let source = source::secret(secret, names).at_index("tls_certificate_sds_secret_configs", 0)?;
            let slot = names.secrets.of(source).certificates.of(&secret.name);
            Ok(Some((slot, fetch_timeout(secret.sds_config.as_ref()))))
        }
        ([message], []) => {
            let certificate = certificate(message).at_index("tls_certificates", 0)?;
            Ok(Some((Arc::new(Slot::filled("", Arc::new(certificate))), None)))
        }
        _ => Err(Refusal::not_implemented("more than one certificate")),
    }
}

fn verification(message: Option<&ValidationContextType>, names: &mut Names) -> Compiled<Verification> {
    match message {
        None => Ok(Verification::default()),
        Some(ValidationContextType::ValidationContext(context)) => inline(context).at("validation_context"),
        Some(ValidationContextType::ValidationContextSdsSecretConfig(secret)) => Ok(Verification {
            trust: Some(named_trust(secret, names)?),
            trust_timeout: fetch_timeout(secret.sds_config.as_ref()),
            ..Verification::default()
        }),
        Some(ValidationContextType::CombinedValidationContext(combined)) => {
            self::combined(combined, names).at("combined_validation_context")
        }
        Some(_) => Err(Refusal::not_implemented("a certificate provider")),
    }
}

fn inline(context: &CertificateValidationContext) -> Compiled<Verification> {
    if context.trusted_ca.is_none() {
        settings(context)?;
        return match sans(context)?.as_slice() {
            [] => Ok(Verification::default()),
            _ => Err(Refusal::new("subject alternative names require a trusted_ca")),
        };
    }
    let trust = trust(context)?;
    Ok(Verification {
        trust: Some(Arc::new(Slot::filled("", Arc::new(trust)))),
        ..Verification::default()
    })
}

/// Combines the names of the inline context with the roots and names of the secret.
fn combined(message: &CombinedCertificateValidationContext, names: &mut Names) -> Compiled<Verification> {
    let nothing = CertificateValidationContext::default();
    let default = message.default_validation_context.as_ref().unwrap_or(&nothing);
    let inside = |default| {
        settings(default)?;
        unset(default.trusted_ca.is_some(), "trusted_ca")?;
        unset(default.crl.is_some(), "crl")?;
        sans(default)
    };
    let Some(secret) = message.validation_context_sds_secret_config.as_ref() else {
        return Err(Refusal::not_implemented("a combined context without a secret"));
    };
    Ok(Verification {
        names: inside(default).at("default_validation_context")?.into(),
        trust: Some(named_trust(secret, names)?),
        trust_timeout: fetch_timeout(secret.sds_config.as_ref()),
        ..Verification::default()
    })
}

fn named_trust(secret: &SdsSecretConfig, names: &mut Names) -> Compiled<Arc<Slot<TrustAnchors>>> {
    let source = source::secret(secret, names).at("validation_context_sds_secret_config")?;
    Ok(names.secrets.of(source).trust.of(&secret.name))
}

/// Refuses settings that change who is trusted and are not implemented.
fn settings(context: &CertificateValidationContext) -> Compiled<()> {
    let provider = context.ca_certificate_provider_instance.is_some();
    let timestamp = context.require_signed_certificate_timestamp.as_ref();
    unset(provider, "ca_certificate_provider_instance")?;
    unset(context.system_root_certs.is_some(), "system_root_certs")?;
    unset(!context.verify_certificate_spki.is_empty(), "verify_certificate_spki")?;
    unset(!context.verify_certificate_hash.is_empty(), "verify_certificate_hash")?;
    unset(truth(timestamp, false), "require_signed_certificate_timestamp")?;
    unset(context.allow_expired_certificate, "allow_expired_certificate")?;
    unset(context.trust_chain_verification != 0, "trust_chain_verification")?;
    unset(context.custom_validator_config.is_some(), "custom_validator_config")?;
    unset(context.max_verify_depth.is_some(), "max_verify_depth")
}

#[expect(deprecated, reason = "control planes other than ours send names without a type")]
fn sans(context: &CertificateValidationContext) -> Compiled<Vec<SanMatcher>> {
    let typed = context.match_typed_subject_alt_names.iter().enumerate();
    let mut all = typed
        .map(|(index, matcher)| san(matcher).at_index("match_typed_subject_alt_names", index))
        .collect::<Compiled<Vec<_>>>()?;
    for (index, matcher) in context.match_subject_alt_names.iter().enumerate() {
        for kind in [SanType::Dns, SanType::Uri, SanType::Email, SanType::IpAddress] {
            all.push(san_of(kind, matcher).at_index("match_subject_alt_names", index)?);
        }
    }
    Ok(all)
}

fn san(message: &SubjectAltNameMatcher) -> Compiled<SanMatcher> {
    let matcher = message.matcher.as_ref();
    let matcher = matcher.ok_or_else(|| Refusal::new("a matcher is required"))?;
    san_of(message.san_type(), matcher)
}

fn san_of(kind: SanType, matcher: &StringMatcher) -> Compiled<SanMatcher> {
    let compiled = text(matcher).at("matcher")?;
    Ok(match (kind, matcher.match_pattern.as_ref()) {
        (SanType::Dns, Some(MatchPattern::Exact(name))) => SanMatcher::DnsName(name.to_ascii_lowercase().into()),
        (SanType::Dns, _) => SanMatcher::Dns(compiled),
        (SanType::Uri, _) => SanMatcher::Uri(compiled),
        (SanType::Email, _) => SanMatcher::Email(compiled),
        (SanType::IpAddress, _) => SanMatcher::Ip(compiled),
        (SanType::OtherName, _) => return Err(Refusal::not_implemented("OTHER_NAME").within("san_type")),
        (SanType::Unspecified, _) => return Err(Refusal::new("a type is required").within("san_type")),
    })
}

fn protocols(message: &TlsParameters) -> Compiled<Protocols> {
    unset(!message.signature_algorithms.is_empty(), "signature_algorithms")?;
    unset(!message.compliance_policies.is_empty(), "compliance_policies")?;
    let from = version(message.tls_minimum_protocol_version(), 2).at("tls_minimum_protocol_version")?;
    let to = version(message.tls_maximum_protocol_version(), 3).at("tls_maximum_protocol_version")?;
    Ok(Protocols::new(from, to, &message.cipher_suites, &message.ecdh_curves)?)
}

fn version(version: TlsProtocol, default: u8) -> Compiled<u8> {
    match version {
        TlsProtocol::TlsAuto => Ok(default),
        TlsProtocol::TlSv12 => Ok(2),
        TlsProtocol::TlSv13 => Ok(3),
        TlsProtocol::TlSv10 | TlsProtocol::TlSv11 => Err(Refusal::not_implemented(version.as_str_name())),
    }
}

/// A secret, and how to reload it if it refers to files.
#[derive(Debug)]
pub(crate) enum Secret {
    /// A certificate.
    Certificate(Certificate, SecretFiles<Certificate>),
    /// Trust anchors.
    Trust(TrustAnchors, SecretFiles<TrustAnchors>),
}

/// Compiles the secret `name`.
pub(crate) fn secret(name: &str, bytes: &[u8]) -> Compiled<Secret> {
    let message: tls::Secret = super::read(ResourceType::Secret, bytes)?;
    same_name(name, &message.name).at("name")?;
    match message.r#type {
        Some(Type::TlsCertificate(message)) => {
            let compiled = certificate(&message).at("tls_certificate")?;
            Ok(Secret::Certificate(compiled, certificate_files(message)))
        }
        Some(Type::ValidationContext(message)) => {
            let compiled = trust(&message).at("validation_context")?;
            Ok(Secret::Trust(compiled, trust_files(message)))
        }
        Some(Type::SessionTicketKeys(_) | Type::GenericSecret(_)) | None => {
            Err(Refusal::not_implemented("a secret of this sort"))
        }
    }
}

/// The secrets in a file of resources, encoded, with their names. One that is invalid does not affect the others.
pub(crate) fn secrets_of(path: &Path) -> Compiled<impl Iterator<Item = Compiled<(String, Bytes)>>> {
    let response: DiscoveryResponse = bootstrap::read_message(path).map_err(|error| Refusal::new(error.to_string()))?;
    let secrets = response.resources.into_iter().map(|resource| {
        let secret: tls::Secret = unpack(&resource)?;
        Ok((secret.name, resource.value.into()))
    });
    Ok(secrets)
}

/// Compiles a certificate with its key.
pub(crate) fn certificate(message: &TlsCertificate) -> Compiled<Certificate> {
    unset(message.private_key_provider.is_some(), "private_key_provider")?;
    unset(message.password.is_some(), "password")?;
    unset(message.pkcs12.is_some(), "pkcs12")?;
    unset(message.ocsp_staple.is_some(), "ocsp_staple")?;
    unset(message.tls_params.is_some(), "tls_params")?;
    let chain = needed(message.certificate_chain.as_ref()).at("certificate_chain")?;
    let chain: Vec<_> = CertificateDer::pem_slice_iter(&chain)
        .collect::<Result<_, _>>()
        .map_err(|error| Refusal::new(error.to_string()))
        .at("certificate_chain")?;
    let key = needed(message.private_key.as_ref()).at("private_key")?;
    let key = PrivateKeyDer::from_pem_slice(&key)
        .map_err(|error| Refusal::new(error.to_string()))
        .at("private_key")?;
    let key = CertifiedKey::from_der(chain, key, Protocols::provider());
    Ok(Certificate::new(key.map_err(|error| Refusal::new(error.to_string()))?))
}

/// Compiles the roots and other settings of a validation context.
pub(crate) fn trust(context: &CertificateValidationContext) -> Compiled<TrustAnchors> {
    settings(context)?;
    let roots = needed(context.trusted_ca.as_ref()).at("trusted_ca")?;
    let roots: Vec<_> = CertificateDer::pem_slice_iter(&roots)
        .collect::<Result<_, _>>()
        .map_err(|error| Refusal::new(error.to_string()))
        .at("trusted_ca")?;
    let lists = context
        .crl
        .as_ref()
        .map(read)
        .transpose()
        .at("crl")?
        .unwrap_or_default();
    let lists: Vec<_> = CertificateRevocationListDer::pem_slice_iter(&lists)
        .collect::<Result<_, _>>()
        .map_err(|error| Refusal::new(error.to_string()))
        .at("crl")?;
    if context.crl.is_some() && lists.is_empty() {
        return Err(Refusal::new("it contains no revocation list")).at("crl");
    }
    let trust = TrustAnchors::new(roots, sans(context)?, lists, context.only_verify_leaf_cert_crl);
    trust.map_err(|error| Refusal::new(error.to_string()))
}

/// The files of a certificate.
fn certificate_files(message: TlsCertificate) -> SecretFiles<Certificate> {
    SecretFiles {
        paths: files([message.certificate_chain.as_ref(), message.private_key.as_ref()]),
        read: Box::new(move || certificate(&message)),
    }
}

/// The files of trust anchors.
fn trust_files(message: CertificateValidationContext) -> SecretFiles<TrustAnchors> {
    SecretFiles {
        paths: files([message.trusted_ca.as_ref(), message.crl.as_ref()]),
        read: Box::new(move || trust(&message)),
    }
}

fn files(sources: [Option<&DataSource>; 2]) -> Vec<PathBuf> {
    let sources = sources.into_iter().flatten();
    sources
        .filter_map(|source| match source.specifier.as_ref() {
            Some(Specifier::Filename(path)) => Some(PathBuf::from(path)),
            _ => None,
        })
        .collect()
}

fn needed(source: Option<&DataSource>) -> Compiled<Zeroizing<Vec<u8>>> {
    read(source.ok_or_else(|| Refusal::new("it is missing"))?)
}

fn read(source: &DataSource) -> Compiled<Zeroizing<Vec<u8>>> {
    value::data(source).map(Zeroizing::new)
}

/// Refuses a field that is set.
fn unset(set: bool, field: &str) -> Compiled<()> {
    match set {
        true => Err(Refusal::not_implemented("this").within(field)),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests;
