//! `ServiceEntry` of `networking.istio.io`: a service that Kubernetes does not know.

use serde::Deserialize;

use super::selector::WorkloadSelector;
use super::value::Unsupported;
use super::workload_entry::WorkloadEntry;

/// The spec of a ServiceEntry.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ServiceEntry {
    /// Names of the service; always as written, never short names.
    pub hosts: Vec<String>,
    /// Virtual addresses or CIDRs.
    pub addresses: Vec<String>,
    /// Ports.
    pub ports: Vec<ServicePort>,
    /// Whether the service is part of the mesh.
    pub location: Location,
    /// How endpoints are found.
    pub resolution: Resolution,
    /// Endpoints; excludes `workloadSelector`.
    pub endpoints: Vec<WorkloadEntry>,
    /// WorkloadEntries of the same namespace that are endpoints.
    pub workload_selector: Option<WorkloadSelector>,
    /// Namespaces whose proxies see the service: `.`, `*`, `~` or names.
    pub export_to: Vec<String>,
    /// Names that the endpoints' certificates may have.
    pub subject_alt_names: Vec<String>,
}

/// `ports[]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ServicePort {
    /// The port that clients call.
    pub number: u32,
    /// The protocol, in any case; detected when empty.
    pub protocol: String,
    /// A name, unique within the service.
    pub name: String,
    /// The port of the endpoints; `number` when 0.
    pub target_port: u32,
}

/// `location`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Location {
    /// Outside; no mutual TLS of the mesh.
    #[default]
    MeshExternal,
    /// Part of the mesh.
    MeshInternal,
}

/// `resolution`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Resolution {
    /// Connections go to the address that the client called.
    #[default]
    None,
    /// The endpoints given.
    Static,
    /// All addresses that the names resolve to.
    Dns,
    /// The first address that the name resolves to, for new connections.
    DnsRoundRobin,
    /// The name that each request carries.
    DynamicDns(Unsupported),
}
