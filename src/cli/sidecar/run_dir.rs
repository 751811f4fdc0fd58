//! The run directory of a sidecar, with the bootstrap and the token for its data plane.

use std::fs::{self, DirBuilder};
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use serde_json::Value;

use crate::cli::bootstrap::document::{Bootstrap, document};
use crate::cli::{bootstrap, file, join};

/// The run directory. The bootstrap contains no secret and is world-readable; the token is private.
#[derive(Clone, Debug)]
pub(super) struct RunDir(PathBuf);

impl RunDir {
    /// Creates the directory, or uses an existing one that belongs to this user.
    ///
    /// # Errors
    /// If it cannot be created, or belongs to another user, who could replace its files.
    pub(super) fn make(path: &Path) -> anyhow::Result<Self> {
        let shown = path.display();
        let advice = || {
            format!(
                "cannot make the folder {shown}: in a container with a read-only file system, mount a tmpfs at /tmp or name another place with --run-dir"
            )
        };
        let path = std::path::absolute(path)?;
        match DirBuilder::new().mode(0o755).create(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            made => made.with_context(advice)?,
        }
        let metadata = fs::symlink_metadata(&path).with_context(advice)?;
        let uid = rustix::process::geteuid().as_raw();
        if !metadata.is_dir() || metadata.uid() != uid {
            bail!(
                "{shown} is not a folder of user {uid}, as whom the sidecar runs: remove it, or name another place with --run-dir"
            );
        }
        let run = Self(path);
        let state = run.proxy_state();
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&state);
        made.with_context(|| format!("cannot make the folder {}", state.display()))?;
        Ok(run)
    }

    /// An existing directory.
    pub(super) fn at(path: &Path) -> Self {
        Self(path.to_owned())
    }

    /// Path of the token that the data plane presents.
    pub(super) fn token(&self) -> PathBuf {
        self.0.join(join::TOKEN)
    }

    /// Directory for the bundled proxy's last configuration.
    pub(super) fn proxy_state(&self) -> PathBuf {
        self.0.join("proxy")
    }

    /// Path of the bootstrap.
    pub(super) fn bootstrap(&self) -> PathBuf {
        self.0.join("bootstrap.json")
    }

    /// Path of the directory.
    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    /// Replaces the token; the data plane reloads it immediately.
    pub(super) fn put_token(&self, token: &str) -> anyhow::Result<()> {
        file::replace(&self.token(), token.as_bytes(), 0o600)
    }

    /// Writes the SDS resource file that refers to the token, and returns its path.
    pub(super) fn point_to_token(&self) -> anyhow::Result<PathBuf> {
        bootstrap::point_to(&self.token(), 0o644)
    }

    /// Writes the bootstrap.
    pub(super) fn put_bootstrap(&self, bootstrap: &Bootstrap) -> anyhow::Result<()> {
        let text = format!("{:#}\n", document(bootstrap));
        file::replace(&self.bootstrap(), text.as_bytes(), 0o644)
    }

    /// Admin address of the data plane, from the bootstrap.
    ///
    /// # Errors
    /// If there is no bootstrap of this user yet.
    pub(super) fn admin(&self) -> anyhow::Result<SocketAddr> {
        let path = self.bootstrap();
        let text = fs::read(&path)
            .with_context(|| format!("the sidecar has not been set up yet: cannot read {}", path.display()))?;
        let bootstrap: Value = serde_json::from_slice(&text).unwrap_or_default();
        let address = &bootstrap["admin"]["address"]["socket_address"];
        let ip: Option<IpAddr> = address["address"].as_str().and_then(|ip| ip.parse().ok());
        let port = address["port_value"].as_u64().and_then(|port| u16::try_from(port).ok());
        match (ip, port) {
            (Some(ip), Some(port)) => Ok(SocketAddr::new(ip, port)),
            _ => bail!("{} does not define the admin address", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn only_own_directories_are_used() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run");
        RunDir::make(&path).unwrap();
        let run = RunDir::make(&path).unwrap();
        assert!(run.admin().unwrap_err().to_string().contains("not been set up"));
        let link = folder.path().join("link");
        symlink(&path, &link).unwrap();
        assert!(RunDir::make(&link).unwrap_err().to_string().contains("--run-dir"));
        let nowhere = RunDir::make(&folder.path().join("a/b")).unwrap_err();
        assert!(nowhere.to_string().contains("tmpfs"), "{nowhere}");
    }
}
