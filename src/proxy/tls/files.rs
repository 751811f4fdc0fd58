//! Secrets in files, which are reloaded when the files change.
//!
//! The control thread looks at the files periodically. Symbolic links are followed, so that a directory that is swapped
//! as a whole, as Kubernetes does, is noticed, too.

use std::fmt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};

use super::{Certificate, TrustAnchors};
use crate::proxy::config::Compiled;
use crate::proxy::slot::Slot;

/// How a secret is read from files.
pub(crate) struct SecretFiles<T> {
    /// The files; empty if the secret is inline.
    pub(crate) paths: Vec<PathBuf>,
    /// Reads it again.
    pub(crate) read: Box<dyn Fn() -> Compiled<T> + Send>,
}

impl<T> fmt::Debug for SecretFiles<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.paths.fmt(f)
    }
}

/// The watched secrets.
#[derive(Debug, Default)]
pub(crate) struct FileSecrets {
    certificates: Vec<Watched<Certificate>>,
    trust: Vec<Watched<TrustAnchors>>,
}

/// A secret, and its files as they were when read.
#[derive(Debug)]
struct Watched<T> {
    files: SecretFiles<T>,
    slot: Weak<Slot<T>>,
    looks: Vec<Option<FileIdentity>>,
}

/// Identity of a file's contents: device and inode, size, time of modification.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FileIdentity(u64, u64, u64, i64, i64);

impl FileSecrets {
    /// Watches the files of a certificate in this slot, instead of those of an earlier one. An inline certificate is
    /// not watched.
    pub(crate) fn certificate(&mut self, slot: &Arc<Slot<Certificate>>, files: SecretFiles<Certificate>) {
        keep(&mut self.certificates, slot, files);
    }

    /// The same for trust anchors.
    pub(crate) fn trust(&mut self, slot: &Arc<Slot<TrustAnchors>>, files: SecretFiles<TrustAnchors>) {
        keep(&mut self.trust, slot, files);
    }

    /// Reloads what has changed, and forgets slots that are gone. A secret that cannot be read keeps its value until
    /// its files change again.
    pub(crate) fn refresh(&mut self) {
        self.certificates.retain_mut(Watched::refresh);
        self.trust.retain_mut(Watched::refresh);
    }
}

fn keep<T>(all: &mut Vec<Watched<T>>, slot: &Arc<Slot<T>>, files: SecretFiles<T>) {
    all.retain(|watched| watched.slot.as_ptr() != Arc::as_ptr(slot));
    if files.paths.is_empty() {
        return;
    }
    all.push(Watched {
        looks: files.paths.iter().map(|path| look(path)).collect(),
        slot: Arc::downgrade(slot),
        files,
    });
}

impl<T> Watched<T> {
    /// Whether the slot still exists.
    fn refresh(&mut self) -> bool {
        let Some(slot) = self.slot.upgrade() else {
            return false;
        };
        let looks: Vec<_> = self.files.paths.iter().map(|path| look(path)).collect();
        if looks != self.looks {
            self.looks = looks;
            match (self.files.read)() {
                Ok(secret) => slot.set(Some(Arc::new(secret))),
                Err(refusal) => {
                    tracing::warn!(secret = %slot.name(), %refusal, "the files of a secret changed but are invalid")
                }
            }
        }
        true
    }
}

/// A file's present identity; `None` if it does not exist.
pub(crate) fn look(path: &Path) -> Option<FileIdentity> {
    let data = std::fs::metadata(path).ok()?;
    Some(FileIdentity(
        data.dev(),
        data.ino(),
        data.len(),
        data.mtime(),
        data.mtime_nsec(),
    ))
}
