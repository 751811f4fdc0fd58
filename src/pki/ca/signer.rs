//! Signs certificates with the issuer name copied from the CA certificate.
//!
//! rcgen's model of distinguished names has each attribute type once and one attribute per RDN, so
//! it cannot represent the names of some real CAs (`DC=example, DC=com`). A certificate whose
//! issuer is not identical to the CA's subject does not chain. Therefore rcgen creates the
//! certificate with an empty issuer and without signature; the CA's subject is inserted, and the
//! result is signed.

use rcgen::{CertificateParams, DistinguishedName, Issuer, KeyIdMethod, KeyPair, PublicKeyData, SigningKey};
use rustls::pki_types::CertificateDer;
use x509_parser::asn1_rs::{Any, BitString, FromDer, Sequence, ToDer};
use x509_parser::extensions::ParsedExtension;
use x509_parser::prelude::X509Certificate;

/// Name, key identifier and key of a CA.
pub(super) struct Signer {
    subject: Vec<u8>,
    key_id: KeyIdMethod,
    key: KeyPair,
}

/// Why a certificate could not be created; never the fault of the requester.
#[derive(Debug, thiserror::Error)]
#[error("failed to create the certificate: {0}")]
pub struct SignError(String);

impl From<&str> for SignError {
    fn from(why: &str) -> Self {
        Self(why.to_owned())
    }
}

impl From<rcgen::Error> for SignError {
    fn from(error: rcgen::Error) -> Self {
        Self(error.to_string())
    }
}

impl Signer {
    /// A signer for the CA `certificate` with the given key.
    pub(super) fn new(certificate: &X509Certificate<'_>, key: KeyPair) -> Self {
        let key_id = certificate.iter_extensions().find_map(|e| match e.parsed_extension() {
            ParsedExtension::SubjectKeyIdentifier(id) => Some(KeyIdMethod::PreSpecified(id.0.to_vec())),
            _ => None,
        });
        Self {
            subject: certificate.subject().as_raw().to_vec(),
            key_id: key_id.unwrap_or(KeyIdMethod::Sha256),
            key,
        }
    }

    /// Signs a certificate for a public key.
    pub(super) fn sign(
        &self,
        params: &CertificateParams,
        public_key: &impl PublicKeyData,
    ) -> Result<CertificateDer<'static>, SignError> {
        let mut nameless = CertificateParams::default();
        nameless.distinguished_name = DistinguishedName::new();
        nameless.key_identifier_method = self.key_id.clone();
        let draft = params.signed_by(public_key, &Issuer::new(nameless, Unsigned(&self.key)))?;
        self.finish(draft.der()).map_err(|e| SignError(e.to_string()))
    }

    /// Adds issuer and signature to a draft (RFC 5280 section 4.1): the certificate is a sequence
    /// of `tbsCertificate`, algorithm and signature; `issuer` is the fourth element of the former.
    fn finish(&self, draft: &[u8]) -> Result<CertificateDer<'static>, Box<dyn std::error::Error>> {
        let whole = elements(draft)?;
        let [body, algorithm, _] = whole[..] else {
            return Err("a certificate must have three parts".into());
        };
        let mut parts = elements(body)?;
        *parts.get_mut(3).ok_or("a certificate must have an issuer")? = &self.subject;
        let body = sequence(&parts)?;
        let signature = BitString::new(0, &self.key.sign(&body)?).to_der_vec()?;
        Ok(sequence(&[&body, algorithm, &signature])?.into())
    }
}

/// The elements of a DER sequence, headers included.
fn elements(der: &[u8]) -> Result<Vec<&[u8]>, Box<dyn std::error::Error>> {
    let (_, outer) = Any::from_der(der).map_err(|e| e.to_string())?;
    let mut rest = outer.data;
    let mut found = Vec::new();
    while !rest.is_empty() {
        let (after, _) = Any::from_der(rest).map_err(|e| e.to_string())?;
        let (element, _) = rest.split_at(rest.len() - after.len());
        found.push(element);
        rest = after;
    }
    Ok(found)
}

fn sequence(parts: &[&[u8]]) -> Result<Vec<u8>, Box<dyn std::error::Error>> {
    Ok(Sequence::new(parts.concat().into()).to_der_vec()?)
}

/// The CA's public key with a signing operation that does nothing, as the draft is going to change.
struct Unsigned<'a>(&'a KeyPair);

impl PublicKeyData for Unsigned<'_> {
    fn der_bytes(&self) -> &[u8] {
        self.0.der_bytes()
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        self.0.algorithm()
    }
}

impl SigningKey for Unsigned<'_> {
    fn sign(&self, _: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        Ok(Vec::new())
    }
}
