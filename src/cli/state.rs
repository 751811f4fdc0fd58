//! Flags for the state directory and the trust domain.

use std::path::PathBuf;

use anyhow::Context;
use clap::Args;

use crate::name::TrustDomain;
use crate::pki::StateDir;

/// `--state` and `--trust-domain`.
#[derive(Args)]
pub(super) struct StateArguments {
    /// State directory of the server: CA, token signing key and last valid configuration [default: /var/lib/topsail for
    /// root, otherwise $XDG_STATE_HOME/topsail or ~/.local/state/topsail]
    #[arg(long, value_name = "DIR", env = "TOPSAIL_STATE", hide_env_values = true)]
    pub state: Option<PathBuf>,

    /// Trust domain of the mesh
    #[arg(
        long,
        value_name = "DOMAIN",
        env = "TOPSAIL_TRUST_DOMAIN",
        hide_env_values = true,
        default_value = "cluster.local"
    )]
    pub trust_domain: TrustDomain,
}

impl StateArguments {
    /// Path of the state directory, which may not exist.
    pub(super) fn path(&self) -> anyhow::Result<PathBuf> {
        let path = match &self.state {
            Some(path) => path.clone(),
            None => default_path()
                .context("neither $XDG_STATE_HOME nor $HOME is set; use --state to specify a state directory")?,
        };
        Ok(std::path::absolute(path)?)
    }

    /// Opens the state directory, creating it if missing.
    pub(super) fn open(&self) -> anyhow::Result<StateDir> {
        let state = StateDir::open(self.path()?)?;
        state.belong_to(&self.trust_domain)?;
        Ok(state)
    }
}

/// The default state directory.
fn default_path() -> Option<PathBuf> {
    if rustix::process::geteuid().is_root() {
        return Some("/var/lib/topsail".into());
    }
    let folder = |key| {
        std::env::var_os(key)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    let state = folder("XDG_STATE_HOME").or_else(|| Some(folder("HOME")?.join(".local/state")))?;
    Some(state.join("topsail"))
}
