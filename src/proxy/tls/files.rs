//! Secrets that lie in files of this host: read again when the files change.
//!
//! The control thread looks at the files now and then. What is compared follows links, so that a
//! directory that is swapped as a whole (Kubernetes does so) is seen too.

use std::collections::HashMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};

use super::{Certificate, TrustAnchors};
use crate::proxy::config::{Compiled, tls};
use crate::proxy::slot::Slot;
use crate::xds::pb::tls::{CertificateValidationContext, TlsCertificate};

/// The secrets that are watched.
#[derive(Debug, Default)]
pub(crate) struct FileSecrets {
    certificates: HashMap<Arc<str>, Watched<TlsCertificate, Certificate>>,
    trust: HashMap<Arc<str>, Watched<CertificateValidationContext, TrustAnchors>>,
}

/// A secret, and how its files looked when they were read.
#[derive(Debug)]
struct Watched<M, T> {
    message: M,
    slot: Weak<Slot<T>>,
    files: Vec<(PathBuf, Option<Look>)>,
}

/// How a file looks from outside: device and inode, length, time of the last change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Look(u64, u64, u64, i64, i64);

impl FileSecrets {
    /// Watches the files of a certificate that has been put into this slot; the one that was watched for it before no
    /// longer. One without files is not watched.
    pub(crate) fn certificate(&mut self, slot: &Arc<Slot<Certificate>>, message: &TlsCertificate) {
        let files = tls::certificate_files(message);
        keep(&mut self.certificates, slot, message, files);
    }

    /// The same for trust anchors.
    pub(crate) fn trust(&mut self, slot: &Arc<Slot<TrustAnchors>>, message: &CertificateValidationContext) {
        let files = tls::trust_files(message);
        keep(&mut self.trust, slot, message, files);
    }

    /// Puts what has changed into its slots, and forgets slots that are gone. A secret that cannot be read stays as it
    /// is, until its files change again.
    pub(crate) fn refresh(&mut self) {
        self.certificates
            .retain(|name, watched| watched.refresh(name, tls::certificate));
        self.trust.retain(|name, watched| watched.refresh(name, tls::trust));
    }
}

fn keep<M: Clone, T>(
    all: &mut HashMap<Arc<str>, Watched<M, T>>,
    slot: &Arc<Slot<T>>,
    message: &M,
    files: Vec<PathBuf>,
) {
    if files.is_empty() {
        all.remove(slot.name());
        return;
    }
    let watched = Watched {
        message: message.clone(),
        slot: Arc::downgrade(slot),
        files: files.into_iter().map(|path| (path.clone(), look(&path))).collect(),
    };
    all.insert(slot.name().clone(), watched);
}

impl<M, T> Watched<M, T> {
    /// Whether the slot is still there.
    fn refresh(&mut self, name: &str, read: fn(&M) -> Compiled<T>) -> bool {
        let Some(slot) = self.slot.upgrade() else {
            return false;
        };
        let mut changed = false;
        for (path, before) in &mut self.files {
            let now = look(path);
            changed |= now != *before;
            *before = now;
        }
        if changed {
            match read(&self.message) {
                Ok(secret) => slot.set(Some(Arc::new(secret))),
                Err(refusal) => tracing::warn!(secret = name, %refusal, "the files of a secret changed to no good"),
            }
        }
        true
    }
}

fn look(path: &Path) -> Option<Look> {
    let data = std::fs::metadata(path).ok()?;
    Some(Look(
        data.dev(),
        data.ino(),
        data.len(),
        data.mtime(),
        data.mtime_nsec(),
    ))
}
