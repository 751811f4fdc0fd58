//! Flags for reading a configuration directory offline.

use std::fs::File;
use std::path::PathBuf;

use clap::Args;

use super::Usage;
use crate::control::Reading;
use crate::name::TrustDomain;
use crate::pki::StateDir;
use crate::source::Root;

/// The given configuration directories and files, without state directories inside them. Used by every
/// command so that all read the same files.
pub(super) fn config_root(paths: impl IntoIterator<Item = impl Into<PathBuf>>) -> Root {
    Root::new(paths).without_marked(StateDir::MARKS)
}

/// `--mesh-config`, `--lenient` and `--trust-domain`.
#[derive(Args)]
pub(super) struct DirectoryArguments {
    /// MeshConfig file; alternatively, put the ConfigMap `istio` into the directory
    #[arg(long, value_name = "FILE")]
    pub mesh_config: Option<PathBuf>,

    /// Report unknown fields and kinds as warnings instead of errors
    #[arg(long)]
    pub lenient: bool,

    /// Trust domain of the mesh
    #[arg(long, value_name = "DOMAIN", default_value = "cluster.local")]
    pub trust_domain: TrustDomain,
}

impl DirectoryArguments {
    /// Parser settings for this root.
    ///
    /// # Errors
    /// If the mesh configuration file cannot be opened.
    pub(super) fn reading(&self, root: Root) -> Result<Reading, Usage> {
        if let Some(path) = &self.mesh_config {
            let unreadable = |error| Usage(format!("cannot read --mesh-config {}: {error}", path.display()));
            File::open(path).map_err(unreadable)?;
        }
        Ok(Reading {
            root,
            mesh_config: self.mesh_config.as_deref().map(Root::from),
            lenient: self.lenient,
            strict: false,
        })
    }
}
