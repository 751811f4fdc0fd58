//! Kubernetes `v1` ConfigMap; the one named `istio` in the root namespace holds the mesh
//! configuration.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::value::Ignored;

/// What a ConfigMap holds besides its metadata.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ConfigMap {
    /// Texts by key.
    pub data: BTreeMap<String, String>,
    /// Bytes by key.
    pub binary_data: Ignored,
    /// Of Kubernetes.
    pub immutable: Ignored,
}
