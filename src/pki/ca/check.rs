//! Validates a set of CA files, whether provided by an operator or created here.

use std::time::{Duration, SystemTime};

use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_RSA_SHA256};
use rustls::RootCertStore;
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::super::issue::{self, IssueOptions};
use super::super::{TrustBundle, Validity, calendar, pem, server_identity};
use super::files::{CA_CERT, CA_KEY, CERT_CHAIN, CaFiles, ROOT_CERT};
use super::signer::Signer;
use super::{Ca, CaError, FileProblem};
use crate::clock::Clock;
use crate::name::TrustDomain;

/// The validated content of the files.
pub(super) struct Parts {
    pub(super) certificate: CertificateDer<'static>,
    pub(super) validity: Validity,
    pub(super) chain: Vec<CertificateDer<'static>>,
    pub(super) bundle: TrustBundle,
}

/// Loads and validates the files. Issues a trial certificate and verifies it as both client and
/// server, which covers what individual files do not show: path lengths, name constraints and
/// extended key usage of intermediates.
pub(super) fn open(files: &CaFiles, trust_domain: &TrustDomain, clock: &Clock) -> Result<Ca, CaError> {
    let now = clock.now();
    let certificate = first_certificate(files)?;
    let x509 = parse(&certificate).map_err(|p| files.error(CA_CERT, p))?;
    may_sign(&x509).map_err(|p| files.error(CA_CERT, p))?;
    let validity = validity(&x509);
    in_force(validity, now).map_err(|p| files.error(CA_CERT, p))?;

    let key = supported_key(&files.key()?).map_err(|p| files.error(CA_KEY, p))?;
    if key.public_key_raw() != x509.public_key().subject_public_key.data.as_ref() {
        return Err(files.error(CA_KEY, FileProblem::KeyMismatch));
    }

    let bundle = TrustBundle::from_pem(&files.root_cert).map_err(|e| files.error(ROOT_CERT, e.into()))?;
    let anchors = roots_in_force(&bundle, now).map_err(|p| files.error(ROOT_CERT, p))?;
    let signer = Signer::new(&x509, key);
    let chain = served_chain(files, &certificate, &bundle)?;
    let parts = Parts {
        validity,
        chain: chain.clone(),
        bundle,
        certificate: certificate.clone(),
    };
    let ca = Ca::new(files, signer, parts, clock)?;
    try_out(&ca, trust_domain, anchors, &chain).map_err(|why| CaError::Chain {
        certificate: files.dir.join(CA_CERT),
        roots: files.dir.join(ROOT_CERT),
        why,
    })?;
    Ok(ca)
}

fn first_certificate(files: &CaFiles) -> Result<CertificateDer<'static>, CaError> {
    let found = certificates(files, CA_CERT, &files.ca_cert)?;
    found
        .into_iter()
        .next()
        .ok_or_else(|| files.error(CA_CERT, FileProblem::NoCertificate))
}

fn certificates(files: &CaFiles, name: &str, text: &[u8]) -> Result<Vec<CertificateDer<'static>>, CaError> {
    pem::certificates(text).map_err(|e| files.error(name, FileProblem::Unreadable(pem::problem(&e))))
}

/// Parses a certificate.
pub(super) fn parse<'a>(certificate: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, FileProblem> {
    match X509Certificate::from_der(certificate) {
        Ok((_, x509)) => Ok(x509),
        Err(error) => Err(FileProblem::Unreadable(error.to_string())),
    }
}

/// The validity period in the certificate.
pub(super) fn validity(x509: &X509Certificate<'_>) -> Validity {
    let at = |seconds: i64| {
        calendar::from_unix_seconds(u64::try_from(seconds).unwrap_or(0)).unwrap_or(SystemTime::UNIX_EPOCH)
    };
    Validity {
        not_before: at(x509.validity().not_before.timestamp()),
        not_after: at(x509.validity().not_after.timestamp()),
    }
}

fn may_sign(x509: &X509Certificate<'_>) -> Result<(), FileProblem> {
    if !x509.is_ca() {
        return Err(FileProblem::NotACa);
    }
    match x509.key_usage() {
        Ok(Some(usage)) if !usage.value.key_cert_sign() => Err(FileProblem::MayNotSign),
        Ok(_) => Ok(()),
        Err(error) => Err(FileProblem::Unreadable(error.to_string())),
    }
}

fn in_force(validity: Validity, now: SystemTime) -> Result<(), FileProblem> {
    if now < validity.not_before {
        return Err(FileProblem::NotYetValid(validity.not_before));
    }
    if validity.not_after < now {
        return Err(FileProblem::Expired(validity.not_after));
    }
    Ok(())
}

/// By default Envoy accepts RSA and these two curves only.
pub(super) fn supported_key(der: &PrivateKeyDer<'_>) -> Result<KeyPair, FileProblem> {
    let key = KeyPair::try_from(der).map_err(|_| {
        FileProblem::UnsupportedKey("expected ECDSA P-256, ECDSA P-384 or RSA with at least 2048 bits".to_owned())
    })?;
    if [&PKCS_ECDSA_P256_SHA256, &PKCS_ECDSA_P384_SHA384, &PKCS_RSA_SHA256].contains(&key.algorithm()) {
        return Ok(key);
    }
    Err(FileProblem::UnsupportedKey(format!(
        "Envoy does not support {:?} signatures; use ECDSA P-256, ECDSA P-384 or RSA",
        key.algorithm()
    )))
}

/// The roots that are currently valid. Expired roots may remain in the file as long as another one
/// is valid.
fn roots_in_force(bundle: &TrustBundle, now: SystemTime) -> Result<RootCertStore, FileProblem> {
    let mut anchors = RootCertStore::empty();
    let mut problem = None;
    for root in bundle.roots() {
        match in_force(validity(&parse(root)?), now) {
            Ok(()) => anchors
                .add(root.clone())
                .map_err(|e| FileProblem::Unreadable(e.to_string()))?,
            Err(why) => problem = Some(why),
        }
    }
    match problem {
        Some(why) if anchors.is_empty() => Err(why),
        Some(_) | None => Ok(anchors),
    }
}

/// The certificates sent after a leaf: the signing certificate and further intermediates, without
/// roots (Istio's `cert-chain.pem` usually includes the root, which the peer must already have).
fn served_chain(
    files: &CaFiles,
    certificate: &CertificateDer<'static>,
    bundle: &TrustBundle,
) -> Result<Vec<CertificateDer<'static>>, CaError> {
    let above = certificates(files, CERT_CHAIN, &files.cert_chain)?;
    let mut chain: Vec<CertificateDer<'static>> = Vec::new();
    for link in std::iter::once(certificate.clone()).chain(above) {
        if !bundle.roots().contains(&link) && !chain.contains(&link) {
            chain.push(link);
        }
    }
    Ok(chain)
}

fn try_out(
    ca: &Ca,
    trust_domain: &TrustDomain,
    anchors: RootCertStore,
    chain: &[CertificateDer<'static>],
) -> Result<(), String> {
    let options = IssueOptions {
        ttl: Duration::from_secs(60),
        ..IssueOptions::default()
    };
    let (leaf, _) = issue::leaf(ca, &server_identity(trust_domain), &options).map_err(|e| e.to_string())?;
    let provider = std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let now = UnixTime::since_unix_epoch(Duration::from_secs(calendar::unix_seconds(ca.now())));
    let parsed = ParsedCertificate::try_from(&leaf.der).map_err(|e| e.to_string())?;
    let algorithms = provider.signature_verification_algorithms.all;
    verify_server_cert_signed_by_trust_anchor(&parsed, &anchors, chain, now, algorithms).map_err(|e| e.to_string())?;
    WebPkiClientVerifier::builder_with_provider(anchors.into(), provider)
        .build()
        .map_err(|e| e.to_string())?
        .verify_client_cert(&leaf.der, chain, now)
        .map_err(|e| e.to_string())?;
    Ok(())
}
