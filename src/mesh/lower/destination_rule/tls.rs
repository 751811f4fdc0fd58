//! `tls`: TLS settings for upstream connections.

use std::sync::Arc;

use crate::api::FieldPath;
use crate::api::destination_rule as api;
use crate::diag::Code;
use crate::mesh::destination_rule::{ClientTls, ClientTlsMode, ServerVerification};
use crate::mesh::lower::report::Report;

/// Value of `caCertificates` for the system's CA certificates, which is the default.
const SYSTEM: &str = "system";

/// Level of the settings.
#[derive(Clone, Copy)]
pub(super) enum Level {
    /// Host or subset.
    Host,
    /// Port.
    Port,
}

/// `tls`.
pub(super) fn tls(report: &mut Report<'_>, at: &FieldPath, entry: &api::ClientTls, level: Level) -> ClientTls {
    if !entry.credential_name.is_empty() {
        report
            .add(
                Code::UnsupportedField,
                &at.field("credentialName"),
                "`credentialName` refers to a Kubernetes secret and is ignored by sidecars",
            )
            .help("specify files with `clientCertificate`, `privateKey` and `caCertificates`");
    }
    let originates = matches!(entry.mode, api::ClientTlsMode::Simple | api::ClientTlsMode::Mutual);
    if originates {
        verification_rules(report, at, entry, level);
    }
    unused(report, at, entry);
    ClientTls {
        mode: match entry.mode {
            api::ClientTlsMode::Disable => ClientTlsMode::Disable,
            api::ClientTlsMode::IstioMutual => ClientTlsMode::IstioMutual,
            api::ClientTlsMode::Simple => ClientTlsMode::Originate {
                certificate: None,
                verify: verification(entry),
            },
            api::ClientTlsMode::Mutual => ClientTlsMode::Originate {
                certificate: certificate(report, at, entry),
                verify: verification(entry),
            },
        },
        subject_alt_names: entry.subject_alt_names.clone(),
        sni: text(&entry.sni),
    }
}

fn certificate(report: &mut Report<'_>, at: &FieldPath, entry: &api::ClientTls) -> Option<(Arc<str>, Arc<str>)> {
    if entry.client_certificate.is_empty() {
        report
            .error(at, "mutual TLS requires a client certificate")
            .help("set its path in `clientCertificate`");
    }
    if entry.private_key.is_empty() {
        report
            .error(at, "mutual TLS requires the private key of the client certificate")
            .help("set its path in `privateKey`");
    }
    text(&entry.client_certificate).zip(text(&entry.private_key))
}

fn verification(entry: &api::ClientTls) -> ServerVerification {
    if entry.insecure_skip_verify == Some(true) {
        return ServerVerification::None;
    }
    match entry.ca_certificates.as_str() {
        "" | SYSTEM => ServerVerification::System,
        file => ServerVerification::File {
            ca: file.into(),
            crl: text(&entry.ca_crl),
        },
    }
}

fn verification_rules(report: &mut Report<'_>, at: &FieldPath, entry: &api::ClientTls, level: Level) {
    if entry.insecure_skip_verify == Some(true) {
        let given = [
            ("caCertificates", !entry.ca_certificates.is_empty()),
            ("subjectAltNames", !entry.subject_alt_names.is_empty()),
        ];
        for (field, _) in given.iter().filter(|(_, given)| *given) {
            report.error(
                &at.field(*field),
                format!("`{field}` and `insecureSkipVerify: true` are mutually exclusive"),
            );
        }
    }
    if entry.ca_certificates.is_empty() && entry.insecure_skip_verify != Some(true) {
        let (code, scope) = match level {
            Level::Host => (Code::NoServerCertificateVerificationDestinationLevel, "host"),
            Level::Port => (Code::NoServerCertificateVerificationPortLevel, "port"),
        };
        report
            .add(
                code,
                at,
                format!(
                    "TLS to this {scope} does not specify a CA: servers are verified against the proxy's system CAs"
                ),
            )
            .help(
                "set the path of the CA certificates in `caCertificates`, or `system` to use the system CAs explicitly",
            );
    }
    if !entry.ca_crl.is_empty() && matches!(entry.ca_certificates.as_str(), "" | SYSTEM) {
        report.warning(
            &at.field("caCrl"),
            "`caCrl` has no effect unless `caCertificates` is a file path",
        );
    }
}

/// Reports fields that have no effect in the given mode.
fn unused(report: &mut Report<'_>, at: &FieldPath, entry: &api::ClientTls) {
    let originates = matches!(entry.mode, api::ClientTlsMode::Simple | api::ClientTlsMode::Mutual);
    let mutual = entry.mode == api::ClientTlsMode::Mutual;
    let fields = [
        ("clientCertificate", !entry.client_certificate.is_empty(), mutual),
        ("privateKey", !entry.private_key.is_empty(), mutual),
        ("caCertificates", !entry.ca_certificates.is_empty(), originates),
        ("caCrl", !entry.ca_crl.is_empty(), originates),
        (
            "insecureSkipVerify",
            entry.insecure_skip_verify == Some(true),
            originates,
        ),
    ];
    for (field, _, _) in fields.iter().filter(|(_, given, used)| *given && !used) {
        report.warning(&at.field(*field), format!("`{field}` has no effect in this mode"));
    }
}

fn text(value: &str) -> Option<Arc<str>> {
    (!value.is_empty()).then(|| value.into())
}
