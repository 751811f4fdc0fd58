//! Distinguished names as text (RFC 2253), last part first, as OpenSSL and Envoy write them.

use std::fmt::Write as _;

use rustls::pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::x509::{AttributeTypeAndValue, X509Name};

/// OpenSSL's short names.
const SHORT: [(&str, &str); 15] = [
    ("2.5.4.3", "CN"),
    ("2.5.4.4", "SN"),
    ("2.5.4.5", "serialNumber"),
    ("2.5.4.6", "C"),
    ("2.5.4.7", "L"),
    ("2.5.4.8", "ST"),
    ("2.5.4.9", "street"),
    ("2.5.4.10", "O"),
    ("2.5.4.11", "OU"),
    ("2.5.4.12", "title"),
    ("2.5.4.42", "GN"),
    ("2.5.4.46", "dnQualifier"),
    ("1.2.840.113549.1.9.1", "emailAddress"),
    ("0.9.2342.19200300.100.1.1", "UID"),
    ("0.9.2342.19200300.100.1.25", "DC"),
];

/// The subject of a certificate; empty if it cannot be parsed.
pub(crate) fn of(certificate: &CertificateDer<'_>) -> String {
    X509Certificate::from_der(certificate).map_or_else(|_| String::new(), |(_, x509)| written(x509.subject()))
}

/// The issuer of a certificate; empty if it cannot be parsed.
pub(super) fn of_issuer(certificate: &CertificateDer<'_>) -> String {
    X509Certificate::from_der(certificate).map_or_else(|_| String::new(), |(_, x509)| written(x509.issuer()))
}

fn written(name: &X509Name<'_>) -> String {
    let mut parts: Vec<_> = name.iter().collect();
    parts.reverse();
    let mut text = String::new();
    for part in parts {
        for (at, attribute) in part.iter().enumerate() {
            if !text.is_empty() {
                text.push(if at == 0 { ',' } else { '+' });
            }
            attribute_to(&mut text, attribute);
        }
    }
    text
}

fn attribute_to(text: &mut String, attribute: &AttributeTypeAndValue<'_>) {
    let oid = attribute.attr_type().to_id_string();
    let short = SHORT.iter().find(|(id, _)| *id == oid);
    let value = attribute.as_str().ok();
    if let (Some((_, name)), Some(value)) = (short, value) {
        text.push_str(name);
        text.push('=');
        return escaped_to(text, value);
    }
    text.push_str(short.map_or(&oid, |(_, name)| name));
    text.push('=');
    match value {
        Some(value) => escaped_to(text, value),
        None => {
            text.push('#');
            for byte in attribute.as_slice() {
                let _ = write!(text, "{byte:02X}");
            }
        }
    }
}

/// Escapes special characters with a backslash, and control and non-ASCII characters byte by byte.
fn escaped_to(text: &mut String, value: &str) {
    let last = value.len().saturating_sub(1);
    for (at, byte) in value.bytes().enumerate() {
        match byte {
            b',' | b'+' | b'"' | b'\\' | b'<' | b'>' | b';' => {
                text.push('\\');
                text.push(byte.into());
            }
            b'#' | b' ' if at == 0 => {
                text.push('\\');
                text.push(byte.into());
            }
            b' ' if at == last => text.push_str("\\ "),
            b' '..=b'~' => text.push(byte.into()),
            _ => {
                let _ = write!(text, "\\{byte:02X}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair};

    use super::*;

    fn subject(parts: &[(DnType, &str)]) -> String {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        for (kind, value) in parts {
            params.distinguished_name.push(kind.clone(), *value);
        }
        of(params.self_signed(&KeyPair::generate().unwrap()).unwrap().der())
    }

    #[test]
    fn the_last_part_comes_first() {
        let parts = [
            (DnType::CountryName, "DE"),
            (DnType::OrganizationName, "Topsail"),
            (DnType::CommonName, "reviews"),
        ];
        assert_eq!(subject(&parts), "CN=reviews,O=Topsail,C=DE");
        assert_eq!(subject(&[]), "");
        assert_eq!(of(&CertificateDer::from(vec![1, 2])), "");
    }

    #[test]
    fn what_has_a_meaning_is_escaped() {
        assert_eq!(
            subject(&[(DnType::CommonName, "#a,b+c \"d\" é ")]),
            "CN=\\#a\\,b\\+c \\\"d\\\" \\C3\\A9\\ "
        );
    }

    #[test]
    fn a_type_without_a_short_name_is_written_as_its_oid() {
        let kind = DnType::CustomDnType(vec![1, 2, 3, 4]);
        assert_eq!(subject(&[(kind, "x")]), "1.2.3.4=x");
    }
}
