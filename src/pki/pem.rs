//! PEM encoding of certificates (RFC 7468).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::{self, PemObject};

/// The certificates in a PEM text, in order; other sections are ignored.
pub(super) fn certificates(text: &[u8]) -> Result<Vec<CertificateDer<'static>>, pem::Error> {
    CertificateDer::pem_slice_iter(text).collect()
}

/// Describes a PEM error; the library's own message prints markers as byte arrays.
pub(super) fn problem(error: &pem::Error) -> String {
    match error {
        pem::Error::MissingSectionEnd { .. } => "it is truncated in the middle of a section".to_owned(),
        pem::Error::IllegalSectionStart { line } => {
            format!("`{}` does not start a section", String::from_utf8_lossy(line).trim())
        }
        other => other.to_string(),
    }
}

/// PEM of a certificate, with a trailing newline.
pub(super) fn encode(certificate: &CertificateDer<'_>) -> String {
    const LINE: usize = 64;
    let body = STANDARD.encode(certificate);
    let mut text = String::with_capacity(body.len() + body.len() / LINE + 64);
    text.push_str("-----BEGIN CERTIFICATE-----\n");
    for (at, letter) in body.chars().enumerate() {
        if at > 0 && at % LINE == 0 {
            text.push('\n');
        }
        text.push(letter);
    }
    text.push_str("\n-----END CERTIFICATE-----\n");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_can_be_read() {
        for length in [1, 47, 48, 49, 96, 500] {
            let der = CertificateDer::from(vec![7; length]);
            let text = encode(&der);
            assert!(text.lines().all(|line| line.len() <= 64), "{text}");
            assert_eq!(certificates(text.as_bytes()).unwrap(), [der]);
        }
    }

    #[test]
    fn other_pem_sections_and_text_are_ignored() {
        let der = CertificateDer::from(vec![1, 2, 3]);
        let text = format!(
            "# ours\n-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n{}",
            encode(&der)
        );
        assert_eq!(certificates(text.as_bytes()).unwrap(), [der]);
    }
}
