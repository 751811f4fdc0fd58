//! The folder in which a sidecar writes: the bootstrap, and the token that its data plane reads.

use std::fs::{self, DirBuilder};
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use serde_json::Value;

use crate::cli::bootstrap::document::{Bootstrap, document};
use crate::cli::{bootstrap, file, join};

/// The folder. All may read the bootstrap, which holds no secret; the token is its owner's.
#[derive(Clone, Debug)]
pub(super) struct RunDir(PathBuf);

impl RunDir {
    /// Makes the folder, unless it is there and this user's.
    ///
    /// # Errors
    /// When it cannot be made or is another user's, who could put something in its place.
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

    /// One that is there.
    pub(super) fn at(path: &Path) -> Self {
        Self(path.to_owned())
    }

    /// The token that the data plane shows.
    pub(super) fn token(&self) -> PathBuf {
        self.0.join(join::TOKEN)
    }

    /// Where the bundled proxy keeps its last configuration.
    pub(super) fn proxy_state(&self) -> PathBuf {
        self.0.join("proxy")
    }

    /// The bootstrap.
    pub(super) fn bootstrap(&self) -> PathBuf {
        self.0.join("bootstrap.json")
    }

    /// The folder itself.
    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    /// Replaces the token; the data plane sees it at once.
    pub(super) fn put_token(&self, token: &str) -> anyhow::Result<()> {
        file::replace(&self.token(), token.as_bytes(), 0o600)
    }

    /// Writes the file that leads the data plane to the token: its path.
    pub(super) fn point_to_token(&self) -> anyhow::Result<PathBuf> {
        bootstrap::point_to(&self.token(), 0o644)
    }

    /// Writes the bootstrap.
    pub(super) fn put_bootstrap(&self, bootstrap: &Bootstrap) -> anyhow::Result<()> {
        let text = format!("{:#}\n", document(bootstrap));
        file::replace(&self.bootstrap(), text.as_bytes(), 0o644)
    }

    /// The admin listener of the data plane, as the bootstrap says.
    ///
    /// # Errors
    /// When there is no bootstrap of ours yet.
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
    fn the_folder_is_ours_or_refused() {
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
