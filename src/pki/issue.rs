//! Issues workload certificates and the server's own.
//!
//! Certificates are X509-SVIDs: a single URI SAN with the SPIFFE ID, not a CA, digital signatures
//! only. They have no subject, so the SAN extension is critical (RFC 5280 section 4.2.1.6), as in
//! Istio. The key is generated here, sent once and never stored.

use std::fmt;
use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use rcgen::{CertificateParams, DistinguishedName, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose, SanType};
use rustls::pki_types::CertificateDer;
use time::OffsetDateTime;
use zeroize::{Zeroize, Zeroizing};

use super::{Ca, SignError, Validity, calendar, pem};
use crate::name::{SpiffeId, TrustDomain};

/// How far `notBefore` is in the past, for peers with slow clocks.
pub(super) const BACKDATE: Duration = Duration::from_secs(120);
/// Istio's default lifetime of workload certificates.
const DEFAULT_TTL: Duration = Duration::from_secs(24 * 3600);
/// Istio's maximum lifetime of workload certificates.
const MAX_TTL: Duration = Duration::from_secs(90 * 24 * 3600);

/// Options of a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IssueOptions {
    /// Lifetime: default 24 hours, maximum 90 days, must not be zero.
    pub ttl: Duration,
    /// DNS SANs, for a server that clients dial by name.
    pub dns_names: Vec<String>,
    /// IP SANs, for a server that clients dial by address.
    pub addresses: Vec<IpAddr>,
}

impl Default for IssueOptions {
    fn default() -> Self {
        Self {
            ttl: DEFAULT_TTL,
            dns_names: Vec::new(),
            addresses: Vec::new(),
        }
    }
}

impl IssueOptions {
    /// Options for a server with these names; those that are IP addresses become IP SANs.
    pub fn server<'a>(names: impl IntoIterator<Item = &'a str>) -> Self {
        let mut options = Self::default();
        for name in names {
            match name.parse() {
                Ok(address) => options.addresses.push(address),
                Err(_) => options.dns_names.push(name.to_owned()),
            }
        }
        options
    }
}

/// Why a certificate was not issued.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    /// The lifetime is zero or exceeds Istio's maximum.
    #[error("invalid certificate lifetime of {} s: must be more than 0 and at most 90 days", .0.as_secs())]
    Lifetime(Duration),
    /// The CA certificate has expired.
    #[error("the CA certificate expired at {}", calendar::display(*.0))]
    CaExpired(SystemTime),
    /// A name is not valid in a certificate.
    #[error("`{0}` is not a valid name for a certificate")]
    Name(String),
    /// Generating the key or signing failed.
    #[error(transparent)]
    Sign(#[from] SignError),
}

/// A private key in PKCS #8 PEM. Hidden in `Debug` output and zeroized on drop.
pub struct PrivateKeyPem(Zeroizing<String>);

impl PrivateKeyPem {
    /// The PEM text, for sending it to its owner.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for PrivateKeyPem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PrivateKeyPem([redacted])")
    }
}

/// A certificate with its key and the intermediates needed to verify it.
#[derive(Debug)]
pub struct WorkloadCert {
    /// The leaf followed by the intermediates, without the root, in PEM.
    pub chain_pem: String,
    /// Private key of the leaf.
    pub key_pem: PrivateKeyPem,
    /// Serial number, 32 hexadecimal digits.
    pub serial: String,
    /// Validity of the leaf, in whole seconds.
    pub validity: Validity,
}

/// SPIFFE ID of the control plane: `spiffe://<trust domain>/ns/topsail-system/sa/topsail`.
pub fn server_identity(trust_domain: &TrustDomain) -> SpiffeId {
    let text = format!("spiffe://{trust_domain}/ns/topsail-system/sa/topsail");
    #[expect(clippy::expect_used, reason = "every part is a valid name")]
    text.parse().expect("a SPIFFE id")
}

impl Ca {
    /// Issues a certificate. Its validity ends no later than the CA's.
    ///
    /// # Errors
    ///
    /// If the lifetime or a name is invalid, or the CA has expired.
    pub fn issue(&self, identity: &SpiffeId, options: &IssueOptions) -> Result<WorkloadCert, IssueError> {
        let (leaf, mut key) = leaf(self, identity, options)?;
        let key_pem = PrivateKeyPem(key.serialize_pem().into());
        key.zeroize();
        Ok(WorkloadCert {
            chain_pem: pem::encode(&leaf.der) + self.chain_pem(),
            key_pem,
            serial: leaf.serial,
            validity: leaf.validity,
        })
    }
}

/// A signed leaf.
pub(super) struct Leaf {
    pub(super) der: CertificateDer<'static>,
    serial: String,
    validity: Validity,
}

/// Generates a key and signs a leaf for it.
pub(super) fn leaf(ca: &Ca, identity: &SpiffeId, options: &IssueOptions) -> Result<(Leaf, KeyPair), IssueError> {
    let serial = random_serial()?;
    let validity = leaf_validity(ca, options.ttl)?;
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.subject_alt_names = alternative_names(identity, options)?;
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.use_authority_key_identifier_extension = true;
    params.serial_number = Some(serial.to_vec().into());
    params.not_before = certificate_time(validity.not_before)?;
    params.not_after = certificate_time(validity.not_after)?;
    let key = KeyPair::generate().map_err(SignError::from)?;
    let leaf = Leaf {
        der: ca.sign(&params, &key)?,
        serial: serial.iter().map(|byte| format!("{byte:02x}")).collect(),
        validity,
    };
    Ok((leaf, key))
}

fn leaf_validity(ca: &Ca, ttl: Duration) -> Result<Validity, IssueError> {
    if ttl < Duration::from_secs(1) || ttl > MAX_TTL {
        return Err(IssueError::Lifetime(ttl));
    }
    let (now, limit) = (ca.now(), ca.validity());
    if limit.not_after <= now {
        return Err(IssueError::CaExpired(limit.not_after));
    }
    let whole = |at| calendar::from_unix_seconds(calendar::unix_seconds(at)).unwrap_or(at);
    Ok(Validity {
        not_before: whole(now.checked_sub(BACKDATE).unwrap_or(now).max(limit.not_before)),
        not_after: whole((now + ttl).min(limit.not_after)),
    })
}

fn alternative_names(identity: &SpiffeId, options: &IssueOptions) -> Result<Vec<SanType>, IssueError> {
    let ia5 = |text: String| {
        text.clone()
            .try_into()
            .map_err(|_: rcgen::Error| IssueError::Name(text))
    };
    let mut names = vec![SanType::URI(ia5(identity.to_string())?)];
    for name in &options.dns_names {
        names.push(SanType::DnsName(ia5(name.clone())?));
    }
    names.extend(options.addresses.iter().copied().map(SanType::IpAddress));
    Ok(names)
}

/// A random 16-byte serial number: positive and without leading zeros, so that all tools display it
/// with 32 digits.
pub(super) fn random_serial() -> Result<[u8; 16], SignError> {
    let mut bytes = [0; 16];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| SignError::from("failed to generate random numbers"))?;
    bytes[0] = bytes[0] & 0x3f | 0x40;
    Ok(bytes)
}

/// A time in rcgen's type.
pub(super) fn certificate_time(at: SystemTime) -> Result<OffsetDateTime, SignError> {
    calendar::calendar(at).ok_or_else(|| SignError::from("the clock is beyond the year 9999"))
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use x509_parser::extensions::{GeneralName, ParsedExtension};
    use x509_parser::prelude::{FromDer, X509Certificate};

    use super::*;
    use crate::clock::{Clock, ManualClock};
    use crate::pki::StateDir;

    const START: u64 = 1_800_000_000;
    const HOUR: Duration = Duration::from_secs(3600);

    fn ca(clock: &Clock) -> (Ca, tempfile::TempDir) {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::open(dir.path()).unwrap();
        (Ca::load_or_create(&state, &TrustDomain::default(), clock).unwrap(), dir)
    }

    fn reviews() -> SpiffeId {
        "spiffe://cluster.local/ns/default/sa/reviews".parse().unwrap()
    }

    fn start() -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(START * 1000 + 700)
    }

    #[test]
    fn a_leaf_is_an_x509_svid() {
        let (ca, _dir) = ca(&Clock::fixed(start()));
        let issued = ca.issue(&reviews(), &IssueOptions::default()).unwrap();
        let chain = pem::certificates(issued.chain_pem.as_bytes()).unwrap();
        assert_eq!(chain.len(), 2, "leaf and intermediate, no root");
        let (_, leaf) = X509Certificate::from_der(&chain[0]).unwrap();
        let san = leaf.subject_alternative_name().unwrap().unwrap();
        assert_eq!(san.value.general_names, [GeneralName::URI(&reviews().to_string())]);
        assert!(san.critical && leaf.subject().as_raw() == [0x30, 0]);
        assert!(!leaf.is_ca() && leaf.basic_constraints().unwrap().is_some());
        let usage = leaf.key_usage().unwrap().unwrap();
        assert_eq!((usage.critical, usage.value.flags), (true, 1), "digitalSignature alone");
        let extended = leaf.extended_key_usage().unwrap().unwrap().value;
        assert!(extended.server_auth && extended.client_auth && !extended.any);
        assert_eq!(leaf.raw_serial_as_string().replace(':', ""), issued.serial);
        assert_eq!(issued.serial.len(), 32);
        let has_issuer_key = |e: &ParsedExtension<'_>| matches!(e, ParsedExtension::AuthorityKeyIdentifier(_));
        assert!(leaf.iter_extensions().any(|e| has_issuer_key(e.parsed_extension())));
    }

    #[test]
    fn a_leaf_is_backdated_and_has_the_requested_lifetime() {
        let (ca, _dir) = ca(&Clock::fixed(start() - HOUR));
        let issued = ca.issue(&reviews(), &IssueOptions::default()).unwrap();
        let second = UNIX_EPOCH + Duration::from_secs(START) - HOUR;
        assert_eq!(issued.validity.not_before, second - BACKDATE);
        assert_eq!(issued.validity.not_after, second + 24 * HOUR);
        let chain = pem::certificates(issued.chain_pem.as_bytes()).unwrap();
        let (_, leaf) = X509Certificate::from_der(&chain[0]).unwrap();
        assert_eq!(leaf.validity().not_after.timestamp() as u64, START - 3600 + 86_400);
    }

    #[test]
    fn a_leaf_never_outlives_its_issuer() {
        let hand = ManualClock::new(start());
        let (ca, _dir) = ca(&hand.clock());
        let end = ca.validity().not_after;
        hand.advance(end.duration_since(start()).unwrap() - HOUR);
        let issued = ca.issue(&reviews(), &IssueOptions::default()).unwrap();
        assert_eq!(issued.validity.not_after, end);
        hand.advance(2 * HOUR);
        let error = ca.issue(&reviews(), &IssueOptions::default()).unwrap_err();
        assert!(matches!(error, IssueError::CaExpired(at) if at == end), "{error}");
    }

    #[test]
    fn impossible_lifetimes_and_names_are_refused() {
        let (ca, _dir) = ca(&Clock::fixed(start()));
        for ttl in [Duration::ZERO, MAX_TTL + Duration::from_secs(1), Duration::MAX] {
            let options = IssueOptions {
                ttl,
                ..IssueOptions::default()
            };
            let error = ca.issue(&reviews(), &options).unwrap_err();
            assert!(matches!(error, IssueError::Lifetime(_)), "{error}");
        }
        let error = ca.issue(&reviews(), &IssueOptions::server(["büro"])).unwrap_err();
        assert!(matches!(error, IssueError::Name(name) if name == "büro"));
    }

    #[test]
    fn the_servers_certificate_carries_its_names_and_its_identity() {
        let (ca, _dir) = ca(&Clock::fixed(start()));
        let options = IssueOptions::server(["mesh.example", "10.0.0.7", "::1"]);
        let issued = ca.issue(&server_identity(&TrustDomain::default()), &options).unwrap();
        let chain = pem::certificates(issued.chain_pem.as_bytes()).unwrap();
        let (_, leaf) = X509Certificate::from_der(&chain[0]).unwrap();
        let san = leaf.subject_alternative_name().unwrap().unwrap().value;
        let v6 = std::net::Ipv6Addr::LOCALHOST.octets();
        assert_eq!(
            san.general_names,
            [
                GeneralName::URI("spiffe://cluster.local/ns/topsail-system/sa/topsail"),
                GeneralName::DNSName("mesh.example"),
                GeneralName::IPAddress(&[10, 0, 0, 7]),
                GeneralName::IPAddress(&v6),
            ]
        );
    }

    #[test]
    fn private_keys_are_not_in_debug_output() {
        let (ca, _dir) = ca(&Clock::fixed(start()));
        let issued = ca.issue(&reviews(), &IssueOptions::default()).unwrap();
        assert!(issued.key_pem.expose().starts_with("-----BEGIN PRIVATE KEY-----"));
        assert!(!format!("{issued:?} {ca:?}").contains("PRIVATE KEY"));
    }
}
