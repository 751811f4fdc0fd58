//! Kubernetes `v1` Endpoints, the older form of EndpointSlice. It belongs to the Service of its
//! name.

use serde::Deserialize;

use super::service::TransportProtocol;
use super::value::Ignored;

/// What an Endpoints object holds besides its metadata.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Endpoints {
    /// Endpoints with the same ports.
    pub subsets: Vec<EndpointSubset>,
}

/// `subsets[]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EndpointSubset {
    /// Endpoints that take traffic.
    pub addresses: Vec<EndpointAddress>,
    /// Endpoints that do not.
    pub not_ready_addresses: Vec<EndpointAddress>,
    /// Ports that every endpoint has.
    pub ports: Vec<EndpointPort>,
}

/// `subsets[].addresses[]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EndpointAddress {
    /// The IP address.
    pub ip: String,
    /// Its name below that of a headless service.
    pub hostname: String,
    /// Its node.
    pub node_name: String,
    /// Of Kubernetes, a pod.
    pub target_ref: Ignored,
}

/// `subsets[].ports[]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EndpointPort {
    /// The name of the service's port.
    pub name: String,
    /// The number.
    pub port: u32,
    /// The transport.
    pub protocol: TransportProtocol,
    /// The protocol above.
    pub app_protocol: String,
}
