//! The certificate authority of the mesh.
//!
//! Its files are named as Istio names them, in `ca/` under the state directory: `ca-cert.pem` and
//! `ca-key.pem` are the pair that signs, `cert-chain.pem` leads from it to `root-cert.pem`, which
//! may hold several roots. An operator's own set (Istio's `cacerts`) is put there before the first
//! start; otherwise a set is made, whole or not at all.
//!
//! The set that we make has a fifth file, `root-key.pem`, which signs nothing but the next
//! intermediate. The pair that signs lives for five years, so that a stolen `ca-key.pem` does not
//! stand for as long as the root does; renewing it by itself needs the root's key at hand. Who
//! prefers the key elsewhere moves the file away: the server then says in time that the
//! intermediate is due, and renews it at the first start with the file back in its place. The
//! renewed intermediate keeps its key: a renewal touches two files, and a power cut between them
//! leaves a set that works.

mod check;
mod create;
mod files;
mod signer;

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use aws_lc_rs::hmac;
use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::CertificateDer;
use sha2::{Digest, Sha256};

use super::state::CA_DIR;
use super::{BundleError, StateDir, StateError, TrustBundle, Validity, calendar, pem, version};
use crate::clock::Clock;
use crate::name::TrustDomain;
use files::CaFiles;
pub(super) use files::private_key;
pub use signer::SignError;
use signer::Signer;

/// How long before its end an intermediate of ours is renewed, and an operator's is warned about.
const RENEWAL_WINDOW: Duration = Duration::from_secs(365 * 24 * 3600);
/// A CA that nobody renews is spoken of when this much of its life is left.
const WARNING_WINDOW: Duration = Duration::from_secs(30 * 24 * 3600);

/// Why there is no CA to work with.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    /// The state directory failed.
    #[error(transparent)]
    State(#[from] StateError),
    /// Some files of the set are there and others are not. Making a new CA would cut off everyone
    /// who trusts the old one, so that is never done by itself.
    #[error(
        "{} holds {} but not {}: put the missing files back, or move the others away to have a new CA made",
        dir.display(), present.join(", "), missing.join(", ")
    )]
    Incomplete {
        /// The directory of the set.
        dir: PathBuf,
        /// The files that are there.
        present: Vec<&'static str>,
        /// The files that are not.
        missing: Vec<&'static str>,
    },
    /// One file is not what it has to be.
    #[error("{}: {problem}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: FileProblem,
    },
    /// Every file is fine, but what the CA signs would not be trusted.
    #[error(
        "certificates signed by {} do not lead to a root in {}: {why}; \
         cert-chain.pem has to hold every certificate between the two",
        certificate.display(), roots.display()
    )]
    Chain {
        /// The signing certificate.
        certificate: PathBuf,
        /// The roots.
        roots: PathBuf,
        /// What verification says.
        why: String,
    },
    /// Keys or certificates could not be made.
    #[error(transparent)]
    Sign(#[from] SignError),
}

/// What is wrong with a file of the CA.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FileProblem {
    /// The PEM armour or what is in it is broken.
    #[error("it cannot be read: {0}")]
    Unreadable(String),
    /// No certificate section.
    #[error("there is no certificate in it")]
    NoCertificate,
    /// No private key section.
    #[error("there is no private key in it")]
    NoKey,
    /// A key that is encrypted, or of a kind or size that Envoy does not verify.
    #[error("the key cannot be used: {0}")]
    UnsupportedKey(String),
    /// The public key of the certificate belongs to another private key.
    #[error("it is not the key of ca-cert.pem")]
    KeyMismatch,
    /// Basic constraints do not say CA.
    #[error("the certificate is not one of a CA (basicConstraints CA:TRUE is missing)")]
    NotACa,
    /// Key usage leaves out signing certificates.
    #[error("the certificate may not sign others (keyUsage keyCertSign is missing)")]
    MayNotSign,
    /// The validity has not begun.
    #[error("the certificate is not valid before {}", calendar::display(*.0))]
    NotYetValid(SystemTime),
    /// The validity has ended.
    #[error("the certificate expired at {}", calendar::display(*.0))]
    Expired(SystemTime),
    /// Not a set of roots.
    #[error(transparent)]
    Bundle(#[from] BundleError),
}

/// The CA, ready to sign. Immutable: load it again to see renewed or replaced files.
pub struct Ca {
    signer: Signer,
    validity: Validity,
    chain_pem: String,
    bundle: TrustBundle,
    fingerprint: [u8; 32],
    version_key: hmac::Key,
    clock: Clock,
}

impl std::fmt::Debug for Ca {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ca")
            .field("validity", &self.validity)
            .finish_non_exhaustive()
    }
}

impl Ca {
    /// The root, the signing certificate and the chain as the state directory holds them now, or
    /// `None` where one is missing. A server compares them with what it started with.
    pub fn certificates_on_disk(state: &StateDir) -> Option<[Vec<u8>; 3]> {
        files::certificates(state)
    }

    /// Loads the CA from the state directory. Makes one if there is none, and renews an
    /// intermediate of ours that nears its end; several processes may do so at once and end up
    /// with the same CA. Call it again now and then in a server that runs for years.
    ///
    /// # Errors
    /// When the set of files is incomplete, or could not issue certificates that anybody trusts.
    pub fn load_or_create(state: &StateDir, trust_domain: &TrustDomain, clock: &Clock) -> Result<Self, CaError> {
        let now = clock.now();
        let lock = state.lock()?;
        let mut files = match files::read(state)? {
            Some(files) => files,
            None => {
                let files = create::new_set(&state.path().join(CA_DIR), trust_domain, now)?;
                files.write(&lock)?;
                tracing::info!(dir = %state.path().display(), "made a new CA");
                files
            }
        };
        if let Some(certificate) = create::renewed_intermediate(&files, trust_domain, now)? {
            files.replace_certificate(certificate, &lock)?;
            tracing::info!("renewed the CA's intermediate certificate");
        }
        let ca = check::open(&files, trust_domain, clock)?;
        if ca.validity.not_after < now + WARNING_WINDOW {
            let until = calendar::display(ca.validity.not_after);
            tracing::warn!(%until, "the CA's certificate nears its end: replace it; one that topsail made is renewed if root-key.pem is put back");
        }
        Ok(ca)
    }

    fn new(files: &CaFiles, signer: Signer, parts: check::Parts, clock: &Clock) -> Result<Self, CaError> {
        Ok(Self {
            fingerprint: fingerprint(&parts.certificate, &parts.chain),
            chain_pem: parts.chain.iter().map(pem::encode).collect(),
            version_key: version::key(files.key()?.secret_der()).map_err(|_| SignError::from("no key for versions"))?,
            signer,
            validity: parts.validity,
            bundle: parts.bundle,
            clock: clock.clone(),
        })
    }

    /// The roots that everything in the mesh is verified against.
    pub fn bundle(&self) -> &TrustBundle {
        &self.bundle
    }

    /// How long the signing certificate is valid. What it signs ends with it at the latest.
    pub fn validity(&self) -> Validity {
        self.validity
    }

    /// A hash of the signing certificate and the chain that is served with every certificate.
    /// It changes when certificates issued before should be replaced.
    pub fn fingerprint(&self) -> &[u8; 32] {
        &self.fingerprint
    }

    pub(super) fn now(&self) -> SystemTime {
        self.clock.now()
    }

    pub(super) fn version_key(&self) -> &hmac::Key {
        &self.version_key
    }

    /// What follows the leaf in a certificate chain.
    pub(super) fn chain_pem(&self) -> &str {
        &self.chain_pem
    }

    pub(super) fn sign(&self, params: &CertificateParams, key: &KeyPair) -> Result<CertificateDer<'static>, SignError> {
        self.signer.sign(params, key)
    }
}

fn fingerprint(certificate: &CertificateDer<'_>, chain: &[CertificateDer<'_>]) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(Sha256::digest(certificate));
    for link in chain {
        hash.update(Sha256::digest(link));
    }
    hash.finalize().into()
}

#[cfg(test)]
mod tests;
