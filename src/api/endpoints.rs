//! Kubernetes `v1` Endpoints, the predecessor of EndpointSlice. It belongs to the Service of the
//! same name.

use serde::Deserialize;

use super::service::TransportProtocol;
use super::value::Ignored;

/// Fields of an Endpoints object besides its metadata.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Endpoints {
    /// Groups of endpoints with the same ports.
    pub subsets: Vec<EndpointSubset>,
}

/// `subsets[]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EndpointSubset {
    /// Ready endpoints.
    pub addresses: Vec<EndpointAddress>,
    /// Endpoints that are not ready.
    pub not_ready_addresses: Vec<EndpointAddress>,
    /// Ports of every endpoint.
    pub ports: Vec<EndpointPort>,
}

/// `subsets[].addresses[]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EndpointAddress {
    /// The IP address.
    pub ip: String,
    /// Its host name; the first DNS label under that of a headless service.
    pub hostname: String,
    /// The Kubernetes node it runs on.
    pub node_name: String,
    /// The pod it represents.
    pub target_ref: Ignored,
}

/// `subsets[].ports[]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EndpointPort {
    /// Name of the service port.
    pub name: String,
    /// Port number.
    pub port: u32,
    /// Transport protocol.
    pub protocol: TransportProtocol,
    /// Application protocol.
    pub app_protocol: String,
}
