//! Secrets, and the files that contain them.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Name, Store};
use crate::proxy::config::source::{ApiSource, SecretSource};
use crate::proxy::config::tls::Secret;
use crate::proxy::config::{self, At, Compiled, Refusal};
use crate::proxy::tls::{FileIdentity, look};
use crate::xds::client::Subscription;

/// A file as it was when read, and which secrets were looked for in it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Reading {
    look: Option<FileIdentity>,
    names: BTreeSet<Name>,
}

impl Store {
    /// Updates a certificate or trust anchors.
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

    /// Reloads secrets whose files have changed. Returns whether a secret has arrived that may have been waited for.
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
            tracing::warn!(path = %path.display(), %refusal, "ignoring an invalid secret file");
        }
        self.secret_files.insert(path, now);
        true
    }

    fn read_secrets(&mut self, source: &SecretSource, path: &Path, names: &BTreeSet<Name>) -> Compiled<()> {
        let secrets = config::tls::secrets_of(path)?.enumerate();
        let refused = secrets.filter_map(|(index, secret)| {
            let put = secret.and_then(|(name, secret)| match names.contains(&*name) {
                true => self.put_secret(source, &name, &secret),
                false => Ok(()),
            });
            put.at_index("resources", index).err()
        });
        Refusal::none_of(refused)
    }

    /// The subscription at a source of secrets.
    pub(crate) fn secret_interest(&self, source: &SecretSource) -> Subscription {
        Subscription::Names(self.secret_names(source))
    }

    fn secret_names(&self, source: &SecretSource) -> BTreeSet<Name> {
        let places = self.names.secrets.get(source);
        places.iter().flat_map(|places| places.named()).cloned().collect()
    }

    /// The servers with SDS streams of their own.
    pub(crate) fn secret_servers(&self) -> impl Iterator<Item = &Arc<ApiSource>> {
        self.names.secrets.sources().filter_map(|source| match source {
            SecretSource::Server(server) => Some(server),
            SecretSource::Ads | SecretSource::File(_) | SecretSource::Bootstrap => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use rcgen::generate_simple_self_signed;
    use serde_json::json;

    use super::*;
    use crate::xds::transcode::to_wire;

    #[test]
    fn a_secret_in_a_file_that_breaks_a_rule_does_not_keep_others_from_being_taken() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secrets.json");
        let named = |name: &str| json!({"name": name, "sds_config": {"path_config_source": {"path": path}}});
        let cluster = json!({"name": "a", "type": "STATIC", "transport_socket": {"name": "tls", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
            "common_tls_context": {
                "tls_certificate_sds_secret_configs": [named("own")],
                "validation_context_sds_secret_config": named("roots"),
            },
        }}});
        let secret = |name: &str, sort: &str, content| {
            json!({
                "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret",
                "name": name, sort: content,
            })
        };
        let root = generate_simple_self_signed(["a".to_owned()]).unwrap().cert.pem();
        let resources = [
            secret("own", "tls_certificate", json!({"private_key": {"filename": ""}})),
            json!({"@type": "type.googleapis.com/envoy.config.core.v3.Address", "pipe": {"path": "/x"}}),
            secret(
                "roots",
                "validation_context",
                json!({"trusted_ca": {"inline_string": root}}),
            ),
        ];
        std::fs::write(&path, json!({"resources": resources}).to_string()).unwrap();
        let mut store = Store::default();
        let cluster = to_wire("envoy.config.cluster.v3.Cluster", &cluster).unwrap();
        store.put_cluster(cluster.into(), false, Instant::now()).unwrap();
        let source = SecretSource::File(path.clone());
        let refusal = store
            .read_secrets(&source, &path, &store.secret_names(&source))
            .unwrap_err();
        assert_eq!(
            refusal.to_string(),
            "resources[0].tls_certificate.private_key.filename: must have at least 1 character(s); \
             resources[1]: `envoy.config.core.v3.Address` here is not implemented"
        );
        let places = store.names.secrets.of(source);
        assert!(places.certificates.of("own").get().is_none());
        assert!(places.trust.of("roots").get().is_some());
    }
}
