//! The certificate authority of the mesh.
//!
//! Its files are in `ca/` under the state directory and have the names that Istio uses:
//! `ca-cert.pem` and `ca-key.pem` are the signing certificate and key, `cert-chain.pem` leads from
//! the former to `root-cert.pem`, which may hold several roots. An operator can provide a set of
//! their own (Istio's `cacerts`) before the first start; otherwise a set is created, atomically.
//!
//! A set created here has a fifth file, `root-key.pem`, which only signs intermediates. The signing
//! certificate is such an intermediate, valid for five years, so that a stolen `ca-key.pem` is not
//! usable for the lifetime of the root. Automatic renewal of the intermediate requires the root
//! key. An operator may store it elsewhere; the server then warns when the intermediate is due, and
//! renews it at the next start with the root key restored. Renewal keeps the intermediate's key: it
//! replaces two files, and if interrupted between them leaves a working set.

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

/// How long before its expiry an intermediate created here is renewed, and one provided by an
/// operator is warned about.
const RENEWAL_WINDOW: Duration = Duration::from_secs(365 * 24 * 3600);
/// Remaining lifetime at which a warning is logged for a CA that is not renewed automatically.
const WARNING_WINDOW: Duration = Duration::from_secs(30 * 24 * 3600);

/// Why the CA cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    /// An error of the state directory.
    #[error(transparent)]
    State(#[from] StateError),
    /// The set of files is incomplete. It is never replaced by a new CA, which would break trust
    /// for everyone who trusts the old one.
    #[error(
        "{} contains {} but not {}: restore the missing files, or move the others away to create a new CA",
        dir.display(), present.join(", "), missing.join(", ")
    )]
    Incomplete {
        /// Directory of the files.
        dir: PathBuf,
        /// Files that exist.
        present: Vec<&'static str>,
        /// Files that are missing.
        missing: Vec<&'static str>,
    },
    /// A file is invalid.
    #[error("{}: {problem}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The problem.
        problem: FileProblem,
    },
    /// All files are valid, but certificates signed by the CA would not be trusted.
    #[error(
        "certificates signed by {} do not chain to a root in {}: {why}; \
         cert-chain.pem must contain all intermediate certificates",
        certificate.display(), roots.display()
    )]
    Chain {
        /// The signing certificate.
        certificate: PathBuf,
        /// The roots.
        roots: PathBuf,
        /// The verification error.
        why: String,
    },
    /// Generating keys or certificates failed.
    #[error(transparent)]
    Sign(#[from] SignError),
}

/// Why a file of the CA is invalid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FileProblem {
    /// Malformed PEM or content.
    #[error("cannot be read: {0}")]
    Unreadable(String),
    /// It contains no certificate.
    #[error("it contains no certificate")]
    NoCertificate,
    /// It contains no private key.
    #[error("it contains no private key")]
    NoKey,
    /// An encrypted key, or one of a type or size that Envoy does not accept.
    #[error("the key is not usable: {0}")]
    UnsupportedKey(String),
    /// The private key does not belong to the certificate's public key.
    #[error("it does not match ca-cert.pem")]
    KeyMismatch,
    /// The basic constraints lack `cA`.
    #[error("the certificate is not a CA certificate (basicConstraints CA:TRUE is missing)")]
    NotACa,
    /// The key usage lacks `keyCertSign`.
    #[error("the certificate is not allowed to sign certificates (keyUsage keyCertSign is missing)")]
    MayNotSign,
    /// The certificate is not valid yet.
    #[error("the certificate is not valid before {}", calendar::display(*.0))]
    NotYetValid(SystemTime),
    /// The certificate has expired.
    #[error("the certificate expired at {}", calendar::display(*.0))]
    Expired(SystemTime),
    /// It is not a trust bundle.
    #[error(transparent)]
    Bundle(#[from] BundleError),
}

/// A loaded CA. Immutable: renewed or replaced files take effect when it is loaded again.
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
    /// The root, signing certificate and chain currently in the state directory; `None` if one is
    /// missing. Servers compare them with those loaded at startup.
    pub fn certificates_on_disk(state: &StateDir) -> Option<[Vec<u8>; 3]> {
        files::certificates(state)
    }

    /// Loads the CA from the state directory. Creates one if there are no files, and renews an
    /// intermediate created here if it is due. Concurrent calls by several processes yield the same
    /// CA. Long-running servers should call it periodically.
    ///
    /// # Errors
    ///
    /// If the set of files is incomplete or cannot issue trusted certificates.
    pub fn load_or_create(state: &StateDir, trust_domain: &TrustDomain, clock: &Clock) -> Result<Self, CaError> {
        let now = clock.now();
        let lock = state.lock()?;
        let mut files = match files::read(state)? {
            Some(files) => files,
            None => {
                let files = create::new_set(&state.path().join(CA_DIR), trust_domain, now)?;
                files.write(&lock)?;
                tracing::info!(dir = %state.path().display(), "created a new CA");
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
            tracing::warn!(%until, "the CA certificate expires soon: replace it; one generated by topsail is renewed if root-key.pem is restored");
        }
        Ok(ca)
    }

    fn new(files: &CaFiles, signer: Signer, parts: check::Parts, clock: &Clock) -> Result<Self, CaError> {
        Ok(Self {
            fingerprint: fingerprint(&parts.certificate, &parts.chain),
            chain_pem: parts.chain.iter().map(pem::encode).collect(),
            version_key: version::key(files.key()?.secret_der())
                .map_err(|_| SignError::from("failed to derive the version key"))?,
            signer,
            validity: parts.validity,
            bundle: parts.bundle,
            clock: clock.clone(),
        })
    }

    /// The roots that verify all certificates of the mesh.
    pub fn bundle(&self) -> &TrustBundle {
        &self.bundle
    }

    /// Validity of the signing certificate, which limits that of issued certificates.
    pub fn validity(&self) -> Validity {
        self.validity
    }

    /// Hash of the signing certificate and the chain served with each certificate. If it changes,
    /// certificates issued before should be replaced.
    pub fn fingerprint(&self) -> &[u8; 32] {
        &self.fingerprint
    }

    pub(super) fn now(&self) -> SystemTime {
        self.clock.now()
    }

    pub(super) fn version_key(&self) -> &hmac::Key {
        &self.version_key
    }

    /// The certificates served after the leaf.
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
