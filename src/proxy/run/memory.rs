//! The last configuration from the control plane, saved for a start without it.
//!
//! It is one file: the resources as [`keep`] encodes them, followed by a SHA-256 over the node id and the contents. The
//! file is used only if it is intact: a damaged one could pass as another configuration, and the server would be told
//! its versions are known. Nothing with a private key is saved: no secrets, and no other resource with an inline key.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use sha2::{Digest, Sha256};

use crate::proxy::store::Name;
use crate::xds::client::{Received, keep};
use crate::xds::{ResourceType, Version};

/// No saved resource contains this.
const KEY: &[u8] = b"PRIVATE KEY";

/// Length of the digest at the end of the file.
const DIGEST: usize = 32;

/// The saved configuration.
#[derive(Debug)]
pub(super) struct Memory {
    path: PathBuf,
    /// The node id that it belongs to.
    node: String,
    /// Whether resources have changed since it was written.
    changed: bool,
    /// Whether listeners have been received. Until then, an older file is better than one without them.
    whole: bool,
}

/// All resources of a type.
#[derive(Debug)]
pub(super) struct Kept<'a> {
    /// The type.
    pub(super) kind: ResourceType,
    /// The messages.
    pub(super) messages: Vec<(&'a Name, &'a Bytes)>,
    /// The versions of those received from the server.
    pub(super) versions: &'a BTreeMap<Name, Version>,
}

impl Memory {
    /// The file for `node` of this bootstrap, in `dir` or beside the bootstrap.
    pub(super) fn new(bootstrap: &Path, dir: Option<&Path>, node: &str) -> Self {
        let mut name = bootstrap.file_name().unwrap_or_default().to_owned();
        name.push(".last");
        let dir = dir.or(bootstrap.parent()).unwrap_or(Path::new(""));
        Self {
            path: dir.join(name),
            node: node.to_owned(),
            changed: false,
            whole: false,
        }
    }

    /// Everything saved, in the order in which it is to be applied; empty if there is no file, or not a valid one.
    pub(super) fn recall(&mut self) -> Vec<(ResourceType, Received)> {
        let recalled = self.read();
        self.whole = !recalled.is_empty();
        recalled
    }

    fn read(&self) -> Vec<(ResourceType, Received)> {
        let path = self.path.display();
        let bytes = match fs::read(&self.path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Vec::new(),
            Err(error) => {
                tracing::warn!(%error, %path, "failed to read the saved configuration");
                return Vec::new();
            }
        };
        self.decode(bytes.into()).unwrap_or_else(|| {
            tracing::warn!(%path, "ignoring the saved configuration: it is corrupt or belongs to another proxy");
            Vec::new()
        })
    }

    fn decode(&self, mut bytes: Bytes) -> Option<Vec<(ResourceType, Received)>> {
        let digest = bytes.split_off(bytes.len().checked_sub(DIGEST)?);
        let mut own = self.digest();
        own.update(&bytes);
        if *own.finalize() != *digest {
            return None;
        }
        keep::decode(bytes)
    }

    /// The digest's state after the node id.
    fn digest(&self) -> Sha256 {
        let mut digest = Sha256::new();
        digest.update((self.node.len() as u64).to_be_bytes());
        digest.update(&self.node);
        digest
    }

    /// Notes that resources of a type have been received.
    pub(super) fn came(&mut self, kind: ResourceType) {
        self.changed |= kind != ResourceType::Secret;
        self.whole |= kind == ResourceType::Listener;
    }

    /// Whether the file has to be written.
    pub(super) fn is_due(&self) -> bool {
        self.changed && self.whole
    }

    /// Writes the file atomically. A failure is logged, and retried with the next change.
    pub(super) fn write<'a>(&mut self, all: impl IntoIterator<Item = Kept<'a>>) {
        self.changed = false;
        if let Err(error) = self.replace(all) {
            tracing::warn!(%error, path = %self.path.display(), "failed to save the configuration for the next start");
        }
    }

    fn replace<'a>(&self, all: impl IntoIterator<Item = Kept<'a>>) -> io::Result<()> {
        let mut new = self.path.clone().into_os_string();
        new.push(".new");
        match fs::remove_file(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
        let (mut out, mut digest) = (BufWriter::new(file), self.digest());
        for message in all.into_iter().flat_map(Kept::encoded) {
            digest.update(&message);
            out.write_all(&message)?;
        }
        out.write_all(&digest.finalize())?;
        out.into_inner()?.sync_all()?;
        fs::rename(&new, &self.path)
    }
}

impl<'a> Kept<'a> {
    /// Encodes the resources that may be saved. Those without a version are static ones.
    fn encoded(self) -> impl Iterator<Item = Vec<u8>> + use<'a> {
        let Self {
            kind,
            messages,
            versions,
        } = self;
        let messages = messages.into_iter().filter(move |(_, bytes)| {
            kind != ResourceType::Secret && !bytes.windows(KEY.len()).any(|part| part == KEY)
        });
        messages.filter_map(move |(name, bytes)| Some(keep::encode(kind, name, versions.get(name)?, bytes)))
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
        let mut memory = Memory::new(&bootstrap, None, "a");
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
        let all = [ResourceType::Cluster, ResourceType::Secret, ResourceType::Listener];
        memory.came(ResourceType::Cluster);
        assert!(!memory.is_due(), "the listeners have not come");
        memory.came(ResourceType::Listener);
        assert!(memory.is_due());
        memory.write(all.map(|kind| Kept {
            kind,
            messages: messages.clone(),
            versions: &versions,
        }));
        assert!(!memory.is_due());
        let recalled = Memory::new(&bootstrap, None, "a").recall();
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
    fn a_file_that_is_not_as_it_was_written_is_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let (bootstrap, file) = (dir.path().join("proxy.yaml"), dir.path().join("proxy.yaml.last"));
        let (name, bytes): (Name, _) = ("a".into(), Bytes::from_static(b"x"));
        let versions = BTreeMap::from([(name.clone(), Version::from_text("1"))]);
        let mut memory = Memory::new(&bootstrap, None, "a");
        memory.write([Kept {
            kind: ResourceType::Cluster,
            messages: vec![(&name, &bytes)],
            versions: &versions,
        }]);
        let written = fs::read(&file).unwrap();
        assert_eq!(memory.recall().len(), 1);
        assert!(Memory::new(&bootstrap, None, "b").recall().is_empty());
        for at in 0..written.len() {
            let mut bent = written.clone();
            bent[at] ^= 1;
            fs::write(&file, &bent).unwrap();
            assert!(memory.recall().is_empty(), "{at}");
            fs::write(&file, &written[..at]).unwrap();
            assert!(memory.recall().is_empty(), "{at}");
        }
        fs::write(&file, [0; 100]).unwrap();
        assert!(memory.recall().is_empty());
    }
}
