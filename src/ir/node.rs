//! The part of a node that its configuration depends on.

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
    /// iptables TPROXY: as REDIRECT, and the client's address is kept.
    Tproxy,
    /// No interception: bound listeners.
    None,
}

/// All of a node that affects its configuration. Nodes with equal views share one configuration, so
/// nothing that differs between equal nodes may stand here.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeView {
    /// The namespace, from the credential.
    pub namespace: Namespace,
    /// The workload's labels: its WorkloadEntry's, else its token's.
    pub labels: Arc<Labels>,
    /// The workload's addresses; the first is the main one.
    pub addresses: Vec<IpAddr>,
    /// Where it runs.
    pub locality: Locality,
    /// How traffic reaches it.
    pub mode: InterceptionMode,
}
