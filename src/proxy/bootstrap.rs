//! The bootstrap file, which is Envoy's.

use std::path::Path;

use crate::xds::json::{self, JsonError};
use crate::xds::pb::bootstrap::Bootstrap;

/// Why a bootstrap cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BootstrapError {
    /// The file cannot be read.
    #[error("`{0}` cannot be read: {1}")]
    Unreadable(String, std::io::Error),
    /// It is neither YAML nor JSON.
    #[error("`{0}` is no YAML: {1}")]
    NoYaml(String, serde_saphyr::Error),
    /// It is no `Bootstrap`.
    #[error("`{0}` is no Envoy bootstrap: {1}")]
    NoBootstrap(String, JsonError),
}

/// Reads a bootstrap, YAML or JSON.
///
/// # Errors
/// When there is none in the file.
pub(crate) fn read(path: &Path) -> Result<Bootstrap, BootstrapError> {
    let name = path.display().to_string();
    let text = std::fs::read_to_string(path).map_err(|error| BootstrapError::Unreadable(name.clone(), error))?;
    let value: serde_json::Value =
        serde_saphyr::from_str(&text).map_err(|error| BootstrapError::NoYaml(name.clone(), error))?;
    json::from_json("envoy.config.bootstrap.v3.Bootstrap", value)
        .map_err(|error| BootstrapError::NoBootstrap(name, error))
}
