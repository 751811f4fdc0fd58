//! Kubernetes `v1` ConfigMap. The one named `istio` in the root namespace holds the mesh
//! configuration.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::value::Ignored;

/// Fields of a ConfigMap besides its metadata.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ConfigMap {
    /// Text values by key.
    pub data: BTreeMap<String, String>,
    /// Binary values by key.
    pub binary_data: Ignored,
    /// Meaningful to Kubernetes only.
    pub immutable: Ignored,
}
