//! Verification of peers.
//!
//! webpki verifies the chain, key usage and revocation. SANs are matched here, because peers in a mesh are identified
//! by URI and not by the name that was dialled.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use rustls::client::danger::{ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DistinguishedName, OtherError};

use super::peer::Names;
use super::{TrustAnchors, suites};
use crate::proxy::matcher::StringMatcher;
use crate::proxy::slot::Slot;
use crate::tls::{handshake_signatures, uri_name};

/// A SAN matcher (`SubjectAltNameMatcher`).
#[derive(Clone, Debug)]
pub(crate) enum SanMatcher {
    /// An e-mail address.
    Email(StringMatcher),
    /// This DNS name, in lower case; wildcards in the certificate match.
    DnsName(Box<str>),
    /// A DNS name as it is in the certificate.
    Dns(StringMatcher),
    /// A URI.
    Uri(StringMatcher),
    /// An IP address, as text.
    Ip(StringMatcher),
}

impl SanMatcher {
    fn matches(&self, names: &Names) -> bool {
        let any = |matcher: &StringMatcher, names: &[String]| names.iter().any(|name| matcher.matches(name.as_bytes()));
        match self {
            SanMatcher::Email(matcher) => any(matcher, &names.emails),
            SanMatcher::DnsName(wanted) => names.dns.iter().any(|name| stands_for(name, wanted)),
            SanMatcher::Dns(matcher) => any(matcher, &names.dns),
            SanMatcher::Uri(matcher) => any(matcher, &names.uris),
            SanMatcher::Ip(matcher) => any(matcher, &names.ips),
        }
    }
}

/// Whether a DNS SAN matches this name; `*.` stands for one label.
fn stands_for(name: &str, wanted: &str) -> bool {
    match name.strip_prefix("*.") {
        Some(parent) => wanted
            .split_once('.')
            .is_some_and(|(label, rest)| !label.is_empty() && rest.eq_ignore_ascii_case(parent)),
        None => name.eq_ignore_ascii_case(wanted),
    }
}

/// How a peer is verified.
#[derive(Clone, Debug, Default)]
pub(crate) struct Verification {
    /// The validation context's trust anchors; `None`: peers are not verified.
    pub(crate) trust: Option<Arc<Slot<TrustAnchors>>>,
    /// How long SDS is waited for; `None`: for ever.
    pub(crate) trust_timeout: Option<Duration>,
    /// SAN matchers of the context, in addition to those of the trust anchors; if there are none, any peer is accepted.
    pub(crate) names: Arc<[SanMatcher]>,
    /// `auto_san_validation`: whether the server must have the name that was asked for.
    pub(crate) server_name: bool,
}

/// The chain is valid, but no SAN matches.
#[derive(Debug, thiserror::Error)]
#[error("the certificate has none of the expected names, but {0}")]
struct NotExpected(Names);

impl fmt::Display for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = [&self.uris, &self.dns, &self.ips, &self.emails];
        let mut all = all.into_iter().flatten();
        let Some(first) = all.next() else {
            return f.write_str("no name");
        };
        write!(f, "`{first}`")?;
        all.try_for_each(|name| write!(f, ", `{name}`"))
    }
}

/// The expected SANs: those of the context and those of the trust anchors.
#[derive(Debug)]
struct Expected {
    names: Arc<[SanMatcher]>,
    trust: Arc<TrustAnchors>,
}

impl Expected {
    /// If only URIs are expected, the certificate must be a valid X509-SVID: with exactly one URI, and not a CA.
    fn check(&self, leaf: &CertificateDer<'_>) -> Result<(), rustls::Error> {
        let wanted = || self.names.iter().chain(&self.trust.names);
        if wanted().next().is_none() {
            return Ok(());
        }
        let names = if wanted().all(|one| matches!(one, SanMatcher::Uri(_))) {
            Names {
                uris: vec![uri_name(leaf)?],
                ..Names::default()
            }
        } else {
            Names::of(leaf)
        };
        if wanted().any(|one| one.matches(&names)) {
            return Ok(());
        }
        Err(CertificateError::Other(OtherError(Arc::new(NotExpected(names)))).into())
    }
}

/// Verifies clients.
#[derive(Debug)]
pub(super) struct ClientCheck {
    expected: Expected,
    required: bool,
}

impl ClientCheck {
    /// A verifier; without `required`, clients need no certificate.
    pub(super) fn new(verification: &Verification, trust: &Arc<TrustAnchors>, required: bool) -> Self {
        Self {
            expected: Expected {
                names: verification.names.clone(),
                trust: trust.clone(),
            },
            required,
        }
    }
}

impl ClientCertVerifier for ClientCheck {
    fn client_auth_mandatory(&self) -> bool {
        self.required
    }

    /// No hints: a proxy has only one certificate to choose.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let chain = &self.expected.trust.clients;
        let verified = chain.verify_client_cert(end_entity, intermediates, now)?;
        self.expected.check(end_entity)?;
        Ok(verified)
    }

    handshake_signatures!(self => suites::provider());
}

/// Verifies servers.
#[derive(Debug)]
pub(super) struct ServerCheck {
    expected: Option<Expected>,
    server_name: bool,
}

impl ServerCheck {
    /// A verifier; without trust anchors every server is accepted.
    pub(super) fn new(verification: &Verification, trust: Option<&Arc<TrustAnchors>>) -> Self {
        Self {
            expected: trust.map(|trust| Expected {
                names: verification.names.clone(),
                trust: trust.clone(),
            }),
            server_name: verification.server_name,
        }
    }
}

impl ServerCertVerifier for ServerCheck {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let Some(expected) = &self.expected else {
            return Ok(ServerCertVerified::assertion());
        };
        let name = self.server_name.then_some(server_name);
        expected
            .trust
            .verify_server(end_entity, intermediates, name, ocsp, now)?;
        expected.check(end_entity)?;
        Ok(ServerCertVerified::assertion())
    }

    handshake_signatures!(self => suites::provider());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wildcard_stands_for_one_label() {
        assert!(stands_for("*.example.com", "a.example.com"));
        assert!(stands_for("A.Example.com", "a.example.com"));
        for other in ["example.com", "a.b.example.com", ".example.com", "aexample.com"] {
            assert!(!stands_for("*.example.com", other), "{other}");
        }
        assert!(!stands_for("*", "example"));
    }
}
