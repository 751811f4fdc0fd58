//! The properties of a node that its configuration depends on.

use std::net::IpAddr;
use std::sync::Arc;

use crate::mesh::Labels;
use crate::mesh::service::Locality;
use crate::name::Namespace;

/// How traffic reaches the proxy (`INTERCEPTION_MODE`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum InterceptionMode {
    /// iptables REDIRECT to 15001 and 15006.
    #[default]
    Redirect,
    /// iptables TPROXY: like REDIRECT, but preserves the client's source address.
    Tproxy,
    /// No interception: listeners bind to their ports.
    None,
}

/// All properties of a node that affect its configuration. Nodes with equal views share one
/// configuration, so it must not include anything else.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeView {
    /// The namespace, from the credential.
    pub namespace: Namespace,
    /// Labels of the workload: those of its WorkloadEntry, else of its token.
    pub labels: Arc<Labels>,
    /// Addresses of the workload, the main one first.
    pub addresses: Vec<IpAddr>,
    /// The workload's locality.
    pub locality: Locality,
    /// How traffic is intercepted.
    pub mode: InterceptionMode,
}
