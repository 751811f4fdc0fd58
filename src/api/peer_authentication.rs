//! `PeerAuthentication` of `security.istio.io`: whether callers must use mutual TLS.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::selector::PolicySelector;

/// The spec of a PeerAuthentication.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PeerAuthentication {
    /// The workloads; all of the namespace when unset, all of the mesh in the root namespace.
    pub selector: Option<PolicySelector>,
    /// For all ports.
    pub mtls: Option<MutualTls>,
    /// For single ports of the workload.
    pub port_level_mtls: BTreeMap<u32, MutualTls>,
}

/// `mtls` and the values of `portLevelMtls`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MutualTls {
    /// The mode.
    pub mode: MutualTlsMode,
}

/// `mtls.mode`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum MutualTlsMode {
    /// As the wider scope says; `PERMISSIVE` if none does.
    #[default]
    Unset,
    /// Plaintext only.
    Disable,
    /// Both.
    Permissive,
    /// Mutual TLS only.
    Strict,
}
