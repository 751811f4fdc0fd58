//! `ServiceEntry` of `networking.istio.io`: adds a service to the mesh's registry.

use serde::Deserialize;

use super::selector::WorkloadSelector;
use super::value::Unsupported;
use super::workload_entry::WorkloadEntry;

/// The spec of a ServiceEntry.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ServiceEntry {
    /// Host names of the service; always fully qualified.
    pub hosts: Vec<String>,
    /// Virtual addresses or CIDRs.
    pub addresses: Vec<String>,
    /// Ports.
    pub ports: Vec<ServicePort>,
    /// Whether the service is part of the mesh.
    pub location: Location,
    /// How endpoints are discovered.
    pub resolution: Resolution,
    /// Endpoints; mutually exclusive with `workloadSelector`.
    pub endpoints: Vec<WorkloadEntry>,
    /// Selects WorkloadEntries of the same namespace as endpoints.
    pub workload_selector: Option<WorkloadSelector>,
    /// Namespaces to whose proxies the service is visible: `.`, `*`, `~` or names.
    pub export_to: Vec<String>,
    /// Subject alternative names accepted in the endpoints' certificates.
    pub subject_alt_names: Vec<String>,
}

/// `ports[]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ServicePort {
    /// The service port.
    pub number: u32,
    /// The protocol, case-insensitive; detected when empty.
    pub protocol: String,
    /// A name, unique within the service.
    pub name: String,
    /// The endpoint port; `number` when 0.
    pub target_port: u32,
}

/// `location`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Location {
    /// External; no mesh mutual TLS.
    #[default]
    MeshExternal,
    /// Part of the mesh.
    MeshInternal,
}

/// `resolution`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Resolution {
    /// Connections are forwarded to their original destination address.
    #[default]
    None,
    /// The listed endpoints.
    Static,
    /// All addresses the host names resolve to.
    Dns,
    /// For each new connection, the first address the host name resolves to.
    DnsRoundRobin,
    /// Resolves the host name of each request.
    DynamicDns(Unsupported),
}
