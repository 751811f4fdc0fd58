//! Secrets, and the files that they come from.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Name, Store};
use crate::proxy::config::source::{ApiSource, SecretSource};
use crate::proxy::config::tls::Secret;
use crate::proxy::config::{self, At, Compiled};
use crate::proxy::tls::{Look, look};
use crate::xds::client::Interest;

/// How a file looked when it was read, and what was looked for in it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Reading {
    look: Option<Look>,
    names: BTreeSet<Name>,
}

impl Store {
    /// Takes a certificate or trust anchors.
    ///
    /// # Errors
    /// Why they are refused.
    pub(crate) fn put_secret(&mut self, source: &SecretSource, name: &str, bytes: &[u8]) -> Compiled<()> {
        let secret = config::tls::secret(name, bytes)?;
        let places = self.names.secrets.of(source.clone());
        match secret {
            Secret::Certificate(certificate, files) => {
                let slot = places.certificates.of(name);
                slot.set(Some(Arc::new(certificate)));
                self.files.certificate(&slot, files);
            }
            Secret::Trust(trust, files) => {
                let slot = places.trust.of(name);
                slot.set(Some(Arc::new(trust)));
                self.files.trust(&slot, files);
            }
        }
        Ok(())
    }

    /// Reads again what has changed in files: secrets, and files that secrets lie in. Says whether a secret came that may
    /// have been waited for.
    pub(crate) fn refresh_files(&mut self) -> bool {
        self.files.refresh();
        let sources = self.names.secrets.sources();
        let files: Vec<_> = sources
            .filter_map(|source| match source {
                SecretSource::File(path) => Some(path.clone()),
                SecretSource::Ads | SecretSource::Server(_) | SecretSource::Bootstrap => None,
            })
            .collect();
        self.secret_files.retain(|path, _| files.contains(path));
        let mut came = false;
        for path in files {
            came |= self.refresh_secrets(path);
        }
        came
    }

    fn refresh_secrets(&mut self, path: PathBuf) -> bool {
        let source = SecretSource::File(path.clone());
        let now = Reading {
            look: look(&path),
            names: self.secret_names(&source),
        };
        if self.secret_files.get(&path) == Some(&now) {
            return false;
        }
        if let Err(refusal) = self.read_secrets(&source, &path, &now.names) {
            tracing::warn!(path = %path.display(), %refusal, "a file of secrets is of no use");
        }
        self.secret_files.insert(path, now);
        true
    }

    fn read_secrets(&mut self, source: &SecretSource, path: &Path, names: &BTreeSet<Name>) -> Compiled<()> {
        for (index, (name, secret)) in config::tls::secrets_of(path)?.iter().enumerate() {
            if names.contains(&**name) {
                self.put_secret(source, name, secret).at_index("resources", index)?;
            }
        }
        Ok(())
    }

    /// What is wanted of a source.
    pub(crate) fn secret_interest(&self, source: &SecretSource) -> Interest {
        Interest::Names(self.secret_names(source))
    }

    fn secret_names(&self, source: &SecretSource) -> BTreeSet<Name> {
        let places = self.names.secrets.get(source);
        places.iter().flat_map(|places| places.named()).cloned().collect()
    }

    /// The servers that are asked for secrets on streams of their own.
    pub(crate) fn secret_servers(&self) -> impl Iterator<Item = &Arc<ApiSource>> {
        self.names.secrets.sources().filter_map(|source| match source {
            SecretSource::Server(server) => Some(server),
            SecretSource::Ads | SecretSource::File(_) | SecretSource::Bootstrap => None,
        })
    }
}
