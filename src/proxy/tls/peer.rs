//! Properties of a peer's certificate.

use std::cell::OnceCell;
use std::fmt::{self, Write as _};
use std::net::IpAddr;
use std::ops::Deref;
use std::rc::Rc;
use std::sync::Arc;

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::CertificateDer;
use rustls::{CommonState, SupportedCipherSuite};
use sha2::{Digest, Sha256};
use x509_parser::certificate::Validity;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::time::ASN1Time;

use super::{Certificate, subject, suites};
use crate::proxy::connection::PeerTls;

/// Subject alternative names of a certificate, by type.
#[derive(Debug, Default)]
pub(crate) struct Names {
    /// URIs.
    pub(super) uris: Vec<String>,
    /// DNS names.
    pub(super) dns: Vec<String>,
    /// IP addresses.
    pub(super) ips: Vec<String>,
    /// E-mail addresses.
    pub(super) emails: Vec<String>,
}

impl Names {
    /// The names of a certificate; empty if it cannot be parsed.
    pub(crate) fn of(certificate: &CertificateDer<'_>) -> Self {
        let mut names = Self::default();
        let Ok((_, x509)) = X509Certificate::from_der(certificate) else {
            return names;
        };
        let Ok(Some(extension)) = x509.subject_alternative_name() else {
            return names;
        };
        for name in &extension.value.general_names {
            match name {
                GeneralName::URI(uri) => names.uris.push((*uri).to_owned()),
                GeneralName::DNSName(name) => names.dns.push((*name).to_owned()),
                GeneralName::RFC822Name(email) => names.emails.push((*email).to_owned()),
                GeneralName::IPAddress(bytes) => names.ips.extend(address(bytes).map(|ip| ip.to_string())),
                _ => {}
            }
        }
        names
    }
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
        return Some(v4.into());
    }
    <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from)
}

/// A peer's certificate chain.
type Chain = Rc<[CertificateDer<'static>]>;

/// A string computed from the peer's certificate when first read.
#[derive(Clone)]
pub(crate) struct LazyText {
    text: OnceCell<String>,
    chain: Option<Chain>,
    make: fn(&CertificateDer<'_>) -> String,
}

impl LazyText {
    fn new(chain: &Chain, make: fn(&CertificateDer<'_>) -> String) -> Self {
        Self {
            text: OnceCell::new(),
            chain: Some(chain.clone()),
            make,
        }
    }
}

impl Deref for LazyText {
    type Target = str;

    fn deref(&self) -> &str {
        let leaf = || self.chain.as_deref().and_then(<[_]>::first);
        let make = || leaf().map(self.make).unwrap_or_default();
        self.text.get_or_init(make)
    }
}

impl Default for LazyText {
    fn default() -> Self {
        Self {
            text: OnceCell::new(),
            chain: None,
            make: |_| String::new(),
        }
    }
}

impl From<&str> for LazyText {
    fn from(text: &str) -> Self {
        Self {
            text: OnceCell::from(text.to_owned()),
            ..Self::default()
        }
    }
}

impl fmt::Display for LazyText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self)
    }
}

impl fmt::Debug for LazyText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

/// The TLS properties of an established connection.
pub(super) fn peer(tls: &CommonState, own: Option<&Arc<Certificate>>) -> PeerTls {
    let chain: Chain = tls.peer_certificates().unwrap_or_default().into();
    let names = chain.first().map(Names::of).unwrap_or_default();
    let suite = tls.negotiated_cipher_suite().as_ref().map(SupportedCipherSuite::suite);
    PeerTls {
        uri_sans: names.uris,
        dns_sans: names.dns,
        ip_sans: LazyText::new(&chain, |leaf| Names::of(leaf).ips.join(",")),
        email_sans: LazyText::new(&chain, |leaf| Names::of(leaf).emails.join(",")),
        subject: LazyText::new(&chain, subject::of),
        issuer: LazyText::new(&chain, subject::of_issuer),
        serial: LazyText::new(&chain, serial),
        valid_from: LazyText::new(&chain, |leaf| moment(leaf, |validity| validity.not_before)),
        valid_until: LazyText::new(&chain, |leaf| moment(leaf, |validity| validity.not_after)),
        fingerprint: LazyText::new(&chain, fingerprint),
        pem: LazyText::new(&chain, encoded_pem),
        presented: !chain.is_empty(),
        chain,
        own: own.cloned(),
        version: tls.protocol_version().map_or("", suites::version_name),
        cipher: suite.map_or("", suites::suite_name),
        group: tls
            .negotiated_key_exchange_group()
            .map_or("", |group| suites::group_name(group.name())),
    }
}

impl PeerTls {
    /// SHA-1 of the peer's certificate, in hex.
    pub(crate) fn fingerprint_sha1(&self) -> String {
        self.chain.first().map(fingerprint_sha1).unwrap_or_default()
    }

    /// SHA-256 of each certificate of the chain, separated by commas.
    pub(crate) fn chain_fingerprints(&self) -> String {
        self.of_each(fingerprint)
    }

    /// SHA-1 of each certificate of the chain, separated by commas.
    pub(crate) fn chain_fingerprints_sha1(&self) -> String {
        self.of_each(fingerprint_sha1)
    }

    /// Serial number of each certificate of the chain, separated by commas.
    pub(crate) fn chain_serials(&self) -> String {
        self.of_each(serial)
    }

    /// The chain as URL-encoded PEM.
    pub(crate) fn chain_pem(&self) -> String {
        self.chain.iter().map(encoded_pem).collect()
    }

    fn of_each(&self, of: fn(&CertificateDer<'_>) -> String) -> String {
        let each: Vec<_> = self.chain.iter().map(of).collect();
        each.join(",")
    }
}

impl Certificate {
    /// Subject of the certificate (RFC 2253).
    pub(crate) fn subject(&self) -> String {
        self.key.cert.first().map(subject::of).unwrap_or_default()
    }

    /// DNS SANs, separated by commas.
    pub(crate) fn dns_sans(&self) -> String {
        self.names().dns.join(",")
    }

    /// IP SANs, separated by commas.
    pub(crate) fn ip_sans(&self) -> String {
        self.names().ips.join(",")
    }

    /// E-mail SANs, separated by commas.
    pub(crate) fn email_sans(&self) -> String {
        self.names().emails.join(",")
    }

    fn names(&self) -> Names {
        self.key.cert.first().map(Names::of).unwrap_or_default()
    }
}

/// The serial number in hex, without leading zero bytes.
fn serial(certificate: &CertificateDer<'_>) -> String {
    let Ok((_, x509)) = X509Certificate::from_der(certificate) else {
        return String::new();
    };
    hex(x509.raw_serial().iter().skip_while(|byte| **byte == 0))
}

/// Start or end of the validity, as Envoy formats times.
fn moment(certificate: &CertificateDer<'_>, of: fn(&Validity) -> ASN1Time) -> String {
    let Ok((_, x509)) = X509Certificate::from_der(certificate) else {
        return String::new();
    };
    let time = of(x509.validity()).to_datetime();
    let (date, clock) = (time.date(), time.time());
    format!(
        "{date}T{:02}:{:02}:{:02}.000Z",
        clock.hour(),
        clock.minute(),
        clock.second()
    )
}

fn hex<'a>(bytes: impl IntoIterator<Item = &'a u8>) -> String {
    bytes.into_iter().fold(String::with_capacity(64), |mut hex, byte| {
        // Writing to a string cannot fail.
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

fn fingerprint(certificate: &CertificateDer<'_>) -> String {
    hex(&Sha256::digest(certificate))
}

/// For access logs only; nothing is trusted by it.
fn fingerprint_sha1(certificate: &CertificateDer<'_>) -> String {
    hex(digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, certificate).as_ref())
}

/// URL-encoded PEM as Envoy writes it in `x-forwarded-client-cert`: everything but letters, digits, `-` and `.` is
/// escaped.
fn encoded_pem(certificate: &CertificateDer<'_>) -> String {
    let base64 = STANDARD.encode(certificate);
    let mut pem = String::with_capacity(base64.len() * 9 / 8 + 96);
    pem.push_str("-----BEGIN%20CERTIFICATE-----%0A");
    for (at, letter) in base64.chars().enumerate() {
        if at > 0 && at % 64 == 0 {
            pem.push_str("%0A");
        }
        match letter {
            '+' => pem.push_str("%2B"),
            '/' => pem.push_str("%2F"),
            '=' => pem.push_str("%3D"),
            other => pem.push(other),
        }
    }
    pem.push_str("%0A-----END%20CERTIFICATE-----%0A");
    pem
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pem_is_encoded_line_by_line() {
        let der = CertificateDer::from(vec![0xff; 49]);
        let line = "%2F".repeat(64);
        assert_eq!(
            encoded_pem(&der),
            format!("-----BEGIN%20CERTIFICATE-----%0A{line}%0A%2Fw%3D%3D%0A-----END%20CERTIFICATE-----%0A")
        );
        assert_eq!(fingerprint(&der).len(), 64);
    }

    #[test]
    fn a_text_is_made_when_it_is_read() {
        let nothing = LazyText::default();
        assert!(nothing.is_empty());
        assert_eq!(&*LazyText::from("CN=a"), "CN=a");
        let chain = Rc::from([CertificateDer::from(vec![1])]);
        let text = LazyText::new(&chain, |der| der.len().to_string());
        assert!(text.text.get().is_none());
        assert_eq!(&*text, "1");
    }

    #[test]
    fn addresses_are_of_four_or_sixteen_bytes() {
        assert_eq!(address(&[10, 0, 0, 1]).unwrap().to_string(), "10.0.0.1");
        assert_eq!(address(&[0; 16]).unwrap().to_string(), "::");
        assert_eq!(address(&[1, 2, 3]), None);
    }
}
