//! Versions of certificates as SDS resources, which a proxy reports when it reconnects.
//!
//! The format is `<serial>@<not before>-<not after>.<MAC>`, with times in seconds since the Unix
//! epoch. The MAC is an HMAC over these, the SPIFFE ID and the CA's fingerprint, with a key derived
//! from the CA's key. So a restarted server can tell from the reported version
//! (`initial_resource_versions`) that it issued the certificate and that it is still valid, without
//! storing leaf keys or serial numbers.

use std::time::SystemTime;

use aws_lc_rs::{hkdf, hmac};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::{Ca, Validity, WorkloadCert, calendar, renew_at};
use crate::name::SpiffeId;

impl Ca {
    /// The version under which a certificate issued for `identity` is served.
    pub fn cert_version(&self, certificate: &WorkloadCert, identity: &SpiffeId) -> String {
        let claim = Claim {
            serial: &certificate.serial,
            not_before: calendar::unix_seconds(certificate.validity.not_before),
            not_after: calendar::unix_seconds(certificate.validity.not_after),
        };
        let seal = hmac::sign(self.version_key(), &claim.sealed_text(identity, self.fingerprint()));
        format!("{}.{}", claim.text(), URL_SAFE_NO_PAD.encode(seal))
    }

    /// The validity of a certificate issued by this CA for `identity`, given its version. `None` if
    /// this CA did not issue it or it has passed half of its lifetime, so that a new one must be
    /// issued.
    pub fn recognises(&self, identity: &SpiffeId, version: &str, now: SystemTime) -> Option<Validity> {
        let (claim, seal) = version.rsplit_once('.')?;
        let claim = Claim::parse(claim)?;
        let seal = URL_SAFE_NO_PAD.decode(seal).ok()?;
        hmac::verify(
            self.version_key(),
            &claim.sealed_text(identity, self.fingerprint()),
            &seal,
        )
        .ok()?;
        let validity = Validity {
            not_before: calendar::from_unix_seconds(claim.not_before)?,
            not_after: calendar::from_unix_seconds(claim.not_after)?,
        };
        (validity.not_before <= now && now < renew_at(validity, 0.0)).then_some(validity)
    }
}

/// Derives the MAC key from the CA's private key.
///
/// # Errors
///
/// None in practice: the requested length is that of the hash.
pub(super) fn key(ca_key: &[u8]) -> Result<hmac::Key, aws_lc_rs::error::Unspecified> {
    let secret = hkdf::Salt::new(hkdf::HKDF_SHA256, b"topsail").extract(ca_key);
    Ok(secret.expand(&[b"certificate version 1"], hmac::HMAC_SHA256)?.into())
}

/// The parsed content of a version.
struct Claim<'a> {
    serial: &'a str,
    not_before: u64,
    not_after: u64,
}

impl<'a> Claim<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let (serial, times) = text.split_once('@')?;
        let (not_before, not_after) = times.split_once('-')?;
        Some(Self {
            serial,
            not_before: not_before.parse().ok()?,
            not_after: not_after.parse().ok()?,
        })
    }

    fn text(&self) -> String {
        format!("{}@{}-{}", self.serial, self.not_before, self.not_after)
    }

    fn sealed_text(&self, identity: &SpiffeId, fingerprint: &[u8; 32]) -> Vec<u8> {
        let text = format!("{}\n{identity}\n", self.text());
        [text.as_bytes(), fingerprint].concat()
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;
    use crate::clock::Clock;
    use crate::name::TrustDomain;
    use crate::pki::{IssueOptions, StateDir};

    const HOUR: Duration = Duration::from_secs(3600);

    fn start() -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_800_000_000)
    }

    fn load(dir: &tempfile::TempDir) -> Ca {
        let state = StateDir::open(dir.path()).unwrap();
        Ca::load_or_create(&state, &TrustDomain::default(), &Clock::fixed(start())).unwrap()
    }

    fn id(account: &str) -> SpiffeId {
        format!("spiffe://cluster.local/ns/default/sa/{account}")
            .parse()
            .unwrap()
    }

    #[test]
    fn a_restarted_server_recognises_its_certificates() {
        let dir = tempfile::tempdir().unwrap();
        let (version, validity) = {
            let ca = load(&dir);
            let issued = ca.issue(&id("reviews"), &IssueOptions::default()).unwrap();
            let version = ca.cert_version(&issued, &id("reviews"));
            assert!(version.starts_with(&format!("{}@", issued.serial)), "{version}");
            assert!(version.contains(&format!("-{}.", 1_800_000_000 + 86_400)), "{version}");
            (version, issued.validity)
        };
        let ca = load(&dir);
        assert_eq!(ca.recognises(&id("reviews"), &version, start()), Some(validity));
        assert_eq!(
            ca.recognises(&id("reviews"), &version, start() + 11 * HOUR),
            Some(validity)
        );
        assert_eq!(
            ca.recognises(&id("reviews"), &version, start() + 12 * HOUR),
            None,
            "half of its life is over"
        );
        assert_eq!(
            ca.recognises(&id("reviews"), &version, start() - HOUR),
            None,
            "not valid yet"
        );
    }

    #[test]
    fn arbitrary_versions_do_not_panic() {
        let dir = tempfile::tempdir().unwrap();
        let ca = load(&dir);
        proptest::proptest!(|(text in "[0-9a-f]{0,40}@?[0-9]{0,25}-?[0-9]{0,25}[.]?.{0,60}")| {
            assert_eq!(ca.recognises(&id("reviews"), &text, start()), None);
        });
    }

    #[test]
    fn another_identity_another_ca_or_another_text_is_not_recognised() {
        let (ours, theirs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let ca = load(&ours);
        let issued = ca.issue(&id("reviews"), &IssueOptions::default()).unwrap();
        let version = ca.cert_version(&issued, &id("reviews"));
        assert_eq!(ca.recognises(&id("ratings"), &version, start()), None);
        assert_eq!(load(&theirs).recognises(&id("reviews"), &version, start()), None);
        let later = version.replace(&format!("-{}", 1_800_000_000 + 86_400), "-1999999999");
        for bad in ["", ".", "@", "a@b-c.d", "1@2-3", &version[..version.len() - 1], &later] {
            assert_eq!(ca.recognises(&id("reviews"), bad, start()), None, "{bad}");
        }
    }
}
