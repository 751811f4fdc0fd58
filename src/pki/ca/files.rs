//! Reads and writes the files of the CA.

use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::{Error as PemError, PemObject};
use zeroize::Zeroizing;

use super::super::state::CA_DIR;
use super::super::{StateDir, StateLock, pem};
use super::{CaError, FileProblem};

pub(super) const ROOT_CERT: &str = "root-cert.pem";
pub(super) const CA_CERT: &str = "ca-cert.pem";
pub(super) const CERT_CHAIN: &str = "cert-chain.pem";
pub(super) const CA_KEY: &str = "ca-key.pem";
pub(super) const ROOT_KEY: &str = "root-key.pem";
/// The files that must exist.
const REQUIRED: [&str; 4] = [ROOT_CERT, CA_CERT, CERT_CHAIN, CA_KEY];

/// Content of the files, not validated yet.
pub(super) struct CaFiles {
    /// Their directory, for messages.
    pub(super) dir: std::path::PathBuf,
    pub(super) root_cert: Vec<u8>,
    pub(super) ca_cert: Vec<u8>,
    pub(super) cert_chain: Vec<u8>,
    pub(super) ca_key: Zeroizing<Vec<u8>>,
    /// Only for a CA created here, as long as the operator keeps it there.
    pub(super) root_key: Option<Zeroizing<Vec<u8>>>,
}

/// Reads the files; `None` if none of them exists.
pub(super) fn read(state: &StateDir) -> Result<Option<CaFiles>, CaError> {
    let read = |name| state.read(&in_dir(name));
    let root_key = read(ROOT_KEY)?;
    let [root_cert, ca_cert, cert_chain, ca_key] = [read(ROOT_CERT)?, read(CA_CERT)?, read(CERT_CHAIN)?, read(CA_KEY)?];
    match (root_cert, ca_cert, cert_chain, ca_key) {
        (Some(root_cert), Some(ca_cert), Some(cert_chain), Some(ca_key)) => Ok(Some(CaFiles {
            dir: state.path().join(CA_DIR),
            root_cert,
            ca_cert,
            cert_chain,
            ca_key: ca_key.into(),
            root_key: root_key.map(Zeroizing::new),
        })),
        (None, None, None, None) if root_key.is_none() => Ok(None),
        _ => Err(incomplete(state)?),
    }
}

/// The current certificates, not validated; `None` if one is missing.
pub(super) fn certificates(state: &StateDir) -> Option<[Vec<u8>; 3]> {
    let read = |name| state.read(&in_dir(name)).ok().flatten();
    Some([read(ROOT_CERT)?, read(CA_CERT)?, read(CERT_CHAIN)?])
}

fn incomplete(state: &StateDir) -> Result<CaError, CaError> {
    let mut present = Vec::new();
    let mut missing = Vec::new();
    for name in REQUIRED {
        match state.read(&in_dir(name))? {
            Some(_) => present.push(name),
            None => missing.push(name),
        }
    }
    if state.read(&in_dir(ROOT_KEY))?.is_some() {
        present.push(ROOT_KEY);
    }
    Ok(CaError::Incomplete {
        dir: state.path().join(CA_DIR),
        present,
        missing,
    })
}

fn in_dir(name: &str) -> String {
    format!("{CA_DIR}/{name}")
}

impl CaFiles {
    /// Writes a new set atomically.
    pub(super) fn write(&self, lock: &StateLock<'_>) -> Result<(), CaError> {
        let mut files: Vec<(&str, &[u8])> = vec![
            (ROOT_CERT, &self.root_cert),
            (CA_CERT, &self.ca_cert),
            (CERT_CHAIN, &self.cert_chain),
            (CA_KEY, &self.ca_key),
        ];
        if let Some(key) = &self.root_key {
            files.push((ROOT_KEY, key));
        }
        Ok(lock.write_dir(CA_DIR, &files)?)
    }

    /// Replaces the signing certificate by one with the same key. In a set created here it is also
    /// the whole chain.
    pub(super) fn replace_certificate(&mut self, pem: String, lock: &StateLock<'_>) -> Result<(), CaError> {
        lock.write(&in_dir(CA_CERT), pem.as_bytes())?;
        lock.write(&in_dir(CERT_CHAIN), pem.as_bytes())?;
        self.ca_cert = pem.clone().into_bytes();
        self.cert_chain = pem.into_bytes();
        Ok(())
    }

    /// An error of one of the files.
    pub(super) fn error(&self, name: &str, problem: FileProblem) -> CaError {
        CaError::File {
            path: self.dir.join(name),
            problem,
        }
    }

    /// The private key of the signing certificate.
    pub(super) fn key(&self) -> Result<PrivateKeyDer<'static>, CaError> {
        private_key(&self.ca_key).map_err(|problem| self.error(CA_KEY, problem))
    }
}

/// The first private key in a PEM text.
pub(in super::super) fn private_key(text: &[u8]) -> Result<PrivateKeyDer<'static>, FileProblem> {
    PrivateKeyDer::from_pem_slice(text).map_err(|error| match error {
        PemError::NoItemsFound if is_encrypted(text) => {
            FileProblem::UnsupportedKey("it is encrypted; decrypt it with `openssl pkey`".to_owned())
        }
        PemError::NoItemsFound => FileProblem::NoKey,
        other => FileProblem::Unreadable(pem::problem(&other)),
    })
}

fn is_encrypted(text: &[u8]) -> bool {
    String::from_utf8_lossy(text).contains("-----BEGIN ENCRYPTED PRIVATE KEY-----")
}
