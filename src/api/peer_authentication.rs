//! `PeerAuthentication` of `security.istio.io`: the mutual TLS mode for inbound connections.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::selector::PolicySelector;

/// The spec of a PeerAuthentication.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PeerAuthentication {
    /// The workloads; when unset, all of the namespace, or of the mesh if in the root namespace.
    pub selector: Option<PolicySelector>,
    /// Mode for all ports.
    pub mtls: Option<MutualTls>,
    /// Modes for individual workload ports.
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
    /// Inherited from the wider scope; `PERMISSIVE` if none sets it.
    #[default]
    Unset,
    /// Plaintext only.
    Disable,
    /// Both plaintext and mutual TLS.
    Permissive,
    /// Mutual TLS only.
    Strict,
}
