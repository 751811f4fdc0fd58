//! Who a peer may be.
//!
//! webpki verifies the chain, the purpose and the revocation; the name is matched here, because a
//! peer in a mesh is told by its URI and not by the name that was dialled.

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

/// A name that a peer's certificate may have (`SubjectAltNameMatcher`).
#[derive(Clone, Debug)]
pub(crate) enum SanMatcher {
    /// An e-mail address.
    Email(StringMatcher),
    /// This DNS name, in lower case, which a wildcard of the certificate may stand for.
    DnsName(Box<str>),
    /// A DNS name as it stands in the certificate.
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

/// Whether a DNS name of a certificate is the one that is wanted; `*.` stands for one label.
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
    /// The roots; none: the peer is not verified.
    pub(crate) trust: Option<Arc<Slot<TrustAnchors>>>,
    /// How long they are waited for; none: for ever.
    pub(crate) trust_timeout: Option<Duration>,
    /// Names of which one must match, beside those that come with the roots; none: any name.
    pub(crate) names: Arc<[SanMatcher]>,
    /// A server must have the name that was asked for (`auto_san_validation`).
    pub(crate) server_name: bool,
}

/// The chain is good and the peer is somebody else.
#[derive(Debug, thiserror::Error)]
#[error("the peer is none of those expected here, but {0}")]
struct NotExpected(Names);

impl fmt::Display for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = [&self.uris, &self.dns, &self.ips, &self.emails];
        let mut all = all.into_iter().flatten();
        let Some(first) = all.next() else {
            return f.write_str("has no name");
        };
        write!(f, "`{first}`")?;
        all.try_for_each(|name| write!(f, ", `{name}`"))
    }
}

/// The names that are expected: of the context, and of the trust anchors.
#[derive(Debug)]
struct Expected {
    names: Arc<[SanMatcher]>,
    trust: Arc<TrustAnchors>,
}

impl Expected {
    /// Where only URIs are expected, the certificate has to be a workload's as X509-SVID says: with one URI, and none
    /// that may sign others.
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

/// A server's check of clients.
#[derive(Debug)]
pub(super) struct ClientCheck {
    expected: Expected,
    required: bool,
}

impl ClientCheck {
    /// A check; clients need not show a certificate unless it is required.
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

    /// No hints: a proxy has one certificate to show.
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

/// A client's check of servers.
#[derive(Debug)]
pub(super) struct ServerCheck {
    expected: Option<Expected>,
    server_name: bool,
}

impl ServerCheck {
    /// A check; without trust every server is as good as another.
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
