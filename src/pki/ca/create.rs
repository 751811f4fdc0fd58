//! Creates a CA: a root valid for ten years and an intermediate valid for five.

use std::path::Path;
use std::time::{Duration, SystemTime};

use rcgen::{BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, KeyPair, KeyUsagePurpose};
use rustls::pki_types::CertificateDer;
use sha2::{Digest, Sha256};
use x509_parser::prelude::X509Certificate;
use zeroize::Zeroizing;

use super::super::issue::{BACKDATE, certificate_time, random_serial};
use super::super::{TrustBundle, Validity, pem};
use super::check::{parse, supported_key, validity};
use super::files::{CA_CERT, CA_KEY, CaFiles, ROOT_KEY, private_key};
use super::signer::Signer;
use super::{CaError, RENEWAL_WINDOW, SignError};
use crate::name::TrustDomain;

const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);
const ROOT_LIFETIME: Duration = YEAR.saturating_mul(10);
const INTERMEDIATE_LIFETIME: Duration = YEAR.saturating_mul(5);
/// `ub-organization-name` of RFC 5280.
const LONGEST_ORGANIZATION: usize = 64;

/// Creates a root and an intermediate with their keys, to be written to `dir`.
pub(super) fn new_set(dir: &Path, trust_domain: &TrustDomain, now: SystemTime) -> Result<CaFiles, CaError> {
    let root_key = KeyPair::generate().map_err(SignError::from)?;
    let ca_key = KeyPair::generate().map_err(SignError::from)?;
    let root = ca_params(Role::Root, &root_key, trust_domain, starting(now, ROOT_LIFETIME))?
        .self_signed(&root_key)
        .map_err(SignError::from)?;
    let mut files = CaFiles {
        dir: dir.to_owned(),
        root_cert: pem::encode(root.der()).into_bytes(),
        ca_cert: Vec::new(),
        cert_chain: Vec::new(),
        ca_key: key_pem(&ca_key),
        root_key: Some(key_pem(&root_key)),
    };
    let x509 = parse(root.der()).map_err(|p| files.error(CA_CERT, p))?;
    let intermediate = intermediate(
        &x509,
        root_key,
        &ca_key,
        trust_domain,
        starting(now, INTERMEDIATE_LIFETIME),
    )?;
    files.ca_cert = intermediate.clone().into_bytes();
    files.cert_chain = intermediate.into_bytes();
    Ok(files)
}

/// A renewed intermediate in PEM with the same key, if one is due and the root key is available.
/// Invalid files are ignored here and reported by the validation that follows.
pub(super) fn renewed_intermediate(
    files: &CaFiles,
    trust_domain: &TrustDomain,
    now: SystemTime,
) -> Result<Option<String>, CaError> {
    let (Some(root_key), Ok(bundle)) = (&files.root_key, TrustBundle::from_pem(&files.root_cert)) else {
        return Ok(None);
    };
    let current = pem::certificates(&files.ca_cert).unwrap_or_default();
    let Some(current) = current.first().and_then(|der| parse(der).ok()) else {
        return Ok(None);
    };
    let ends = validity(&current).not_after;
    if now + RENEWAL_WINDOW <= ends {
        return Ok(None);
    }
    let root_key = private_key(root_key)
        .and_then(|der| supported_key(&der))
        .map_err(|p| files.error(ROOT_KEY, p))?;
    let Some(root) = root_of(&current, &root_key, &bundle) else {
        return Ok(None);
    };
    let root = parse(root).map_err(|p| files.error(CA_CERT, p))?;
    let mut next = starting(now, INTERMEDIATE_LIFETIME);
    next.not_after = next.not_after.min(validity(&root).not_after);
    if next.not_after <= ends {
        return Ok(None);
    }
    let ca_key = supported_key(&files.key()?).map_err(|p| files.error(CA_KEY, p))?;
    Ok(Some(intermediate(&root, root_key, &ca_key, trust_domain, next)?))
}

/// The root that signed the intermediate, if the key belongs to it.
fn root_of<'a>(
    intermediate: &X509Certificate<'_>,
    key: &KeyPair,
    bundle: &'a TrustBundle,
) -> Option<&'a CertificateDer<'static>> {
    bundle.roots().iter().find(|root| {
        parse(root).is_ok_and(|x509| {
            x509.subject().as_raw() == intermediate.issuer().as_raw()
                && x509.public_key().subject_public_key.data.as_ref() == key.public_key_raw()
        })
    })
}

fn intermediate(
    root: &X509Certificate<'_>,
    root_key: KeyPair,
    ca_key: &KeyPair,
    trust_domain: &TrustDomain,
    validity: Validity,
) -> Result<String, CaError> {
    let params = ca_params(Role::Intermediate, ca_key, trust_domain, validity)?;
    let certificate = Signer::new(root, root_key).sign(&params, ca_key)?;
    Ok(pem::encode(&certificate))
}

#[derive(Clone, Copy)]
enum Role {
    Root,
    Intermediate,
}

/// Parameters of a CA certificate. The name includes a hash of the key, so that a peer with the
/// root of another mesh reports an unknown issuer instead of a bad signature.
fn ca_params(
    role: Role,
    key: &KeyPair,
    trust_domain: &TrustDomain,
    validity: Validity,
) -> Result<CertificateParams, SignError> {
    let [a, b, c, d, ..] = <[u8; 32]>::from(Sha256::digest(key.public_key_raw()));
    let (title, cas_below) = match role {
        Role::Root => ("root", 1),
        Role::Intermediate => ("intermediate", 0),
    };
    let mut name = DistinguishedName::new();
    if trust_domain.as_str().len() <= LONGEST_ORGANIZATION {
        name.push(DnType::OrganizationName, trust_domain.as_str());
    }
    name.push(
        DnType::CommonName,
        format!("Topsail {title} CA {a:02x}{b:02x}{c:02x}{d:02x}"),
    );
    let mut params = CertificateParams::default();
    params.distinguished_name = name;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(cas_below));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.use_authority_key_identifier_extension = true;
    params.serial_number = Some(random_serial()?.to_vec().into());
    params.not_before = certificate_time(validity.not_before)?;
    params.not_after = certificate_time(validity.not_after)?;
    Ok(params)
}

fn starting(now: SystemTime, lifetime: Duration) -> Validity {
    Validity {
        not_before: now.checked_sub(BACKDATE).unwrap_or(now),
        not_after: now + lifetime,
    }
}

fn key_pem(key: &KeyPair) -> Zeroizing<Vec<u8>> {
    key.serialize_pem().into_bytes().into()
}
