//! What the control plane said last, kept for a start without it.
//!
//! One file of length-delimited `DeltaDiscoveryResponse`s, one for each type. There are never private keys in it: secrets
//! are not kept, and neither is anything else that has a key in it.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::{Buf, Bytes};
use prost::Message;

use crate::proxy::store::Name;
use crate::xds::client::Received;
use crate::xds::pb::discovery::{DeltaDiscoveryResponse, Resource};
use crate::xds::pb::wkt::Any;
use crate::xds::{ResourceType, Version};

/// What no kept resource has in it.
const KEY: &[u8] = b"PRIVATE KEY";

/// The file.
#[derive(Debug)]
pub(super) struct Memory {
    path: PathBuf,
    /// What is to be in it.
    types: BTreeMap<ResourceType, Vec<u8>>,
    changed: bool,
}

impl Memory {
    /// The memory of the data plane of this bootstrap, in `dir` or beside it.
    pub(super) fn new(bootstrap: &Path, dir: Option<&Path>) -> Self {
        let mut name = bootstrap.file_name().unwrap_or_default().to_owned();
        name.push(".last");
        let dir = dir.or(bootstrap.parent()).unwrap_or(Path::new(""));
        Self {
            path: dir.join(name),
            types: BTreeMap::new(),
            changed: false,
        }
    }

    /// Everything that was kept, in the order in which it is to be taken. Nothing if there is no file.
    pub(super) fn recall(&self) -> Vec<(ResourceType, Received)> {
        let mut rest = match fs::read(&self.path) {
            Ok(bytes) => Bytes::from(bytes),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Vec::new(),
            Err(error) => {
                tracing::warn!(%error, path = %self.path.display(), "the configuration of the last run cannot be read");
                return Vec::new();
            }
        };
        let mut recalled = Vec::new();
        while rest.has_remaining() {
            let Ok(response) = DeltaDiscoveryResponse::decode_length_delimited(&mut rest) else {
                tracing::warn!(path = %self.path.display(), "the configuration of the last run is damaged");
                break;
            };
            let Some(kind) = ResourceType::from_type_url(&response.type_url) else {
                continue;
            };
            recalled.extend(response.resources.into_iter().map(|one| (kind, received(one))));
        }
        recalled
    }

    /// Takes note of all resources of a type; only those with an accepted version came from the server.
    pub(super) fn keep(
        &mut self,
        kind: ResourceType,
        messages: Vec<(&Name, &Bytes)>,
        versions: &BTreeMap<Name, Version>,
    ) {
        if kind == ResourceType::Secret {
            return;
        }
        let harmless = messages
            .into_iter()
            .filter(|(_, bytes)| !bytes.windows(KEY.len()).any(|part| part == KEY));
        let resources = harmless.filter_map(|(name, bytes)| {
            Some(Resource {
                name: name.to_string(),
                version: versions.get(name)?.to_string(),
                resource: Some(Any {
                    type_url: kind.type_url().to_owned(),
                    value: bytes.to_vec(),
                }),
                ..Default::default()
            })
        });
        let response = DeltaDiscoveryResponse {
            type_url: kind.type_url().to_owned(),
            resources: resources.collect(),
            ..Default::default()
        };
        self.types.insert(kind, response.encode_length_delimited_to_vec());
        self.changed = true;
    }

    /// Whether the file is not what it should be.
    pub(super) fn changed(&self) -> bool {
        self.changed
    }

    /// Writes the file, as a whole or not at all. What cannot be written is said and tried again with the next change.
    pub(super) fn write(&mut self) {
        self.changed = false;
        if let Err(error) = self.replace() {
            tracing::warn!(%error, path = %self.path.display(), "the configuration cannot be kept for the next start");
        }
    }

    fn replace(&self) -> io::Result<()> {
        let mut new = self.path.clone().into_os_string();
        new.push(".new");
        match fs::remove_file(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
        for bytes in self.types.values() {
            file.write_all(bytes)?;
        }
        file.sync_all()?;
        fs::rename(&new, &self.path)
    }
}

fn received(resource: Resource) -> Received {
    Received {
        name: Arc::from(resource.name),
        version: Version::from_text(resource.version),
        body: resource.resource.unwrap_or_default().value.into(),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn what_was_accepted_is_recalled_and_keys_are_not() {
        let dir = tempfile::tempdir().unwrap();
        let bootstrap = dir.path().join("proxy.yaml");
        let mut memory = Memory::new(&bootstrap, None);
        assert!(memory.recall().is_empty());
        let names: [Name; 3] = ["a".into(), "b".into(), "static".into()];
        let (good, bad) = (
            Bytes::from_static(b"x"),
            Bytes::from_static(b"-----BEGIN PRIVATE KEY-----"),
        );
        let versions = BTreeMap::from([
            (names[0].clone(), Version::from_text("1")),
            (names[1].clone(), Version::from_text("1")),
        ]);
        let messages = vec![(&names[0], &good), (&names[1], &bad), (&names[2], &good)];
        memory.keep(ResourceType::Listener, messages.clone(), &versions);
        memory.keep(ResourceType::Cluster, messages.clone(), &versions);
        memory.keep(ResourceType::Secret, messages, &versions);
        memory.write();
        let recalled = Memory::new(&bootstrap, None).recall();
        let brief: Vec<_> = recalled.iter().map(|(kind, one)| (*kind, &*one.name)).collect();
        assert_eq!(brief, [(ResourceType::Cluster, "a"), (ResourceType::Listener, "a")]);
        assert_eq!((&recalled[0].1.body, recalled[0].1.version.as_str()), (&good, "1"));
        let mode = fs::metadata(dir.path().join("proxy.yaml.last"))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_damaged_file_is_as_good_as_its_beginning() {
        let dir = tempfile::tempdir().unwrap();
        let bootstrap = dir.path().join("proxy.yaml");
        fs::write(dir.path().join("proxy.yaml.last"), [200, 1, 2, 3]).unwrap();
        assert!(Memory::new(&bootstrap, None).recall().is_empty());
    }
}
