//! Kubernetes `discovery.k8s.io/v1` EndpointSlice.

use serde::Deserialize;

use super::service::TransportProtocol;
use super::value::Ignored;

/// Fields of an EndpointSlice besides its metadata. The label `kubernetes.io/service-name` names
/// its Service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EndpointSlice {
    /// Type of `endpoints[].addresses`.
    pub address_type: Option<AddressType>,
    /// The endpoints.
    pub endpoints: Vec<Endpoint>,
    /// Ports of every endpoint.
    pub ports: Vec<EndpointPort>,
}

/// `addressType`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
pub enum AddressType {
    /// IPv4 addresses.
    #[serde(rename = "IPv4")]
    Ipv4,
    /// IPv6 addresses.
    #[serde(rename = "IPv6")]
    Ipv6,
    /// DNS names.
    #[serde(rename = "FQDN")]
    Fqdn,
}

/// `endpoints[]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Endpoint {
    /// Addresses of one endpoint.
    pub addresses: Vec<String>,
    /// Its conditions.
    pub conditions: EndpointConditions,
    /// Its host name; the first DNS label under that of a headless service.
    pub hostname: String,
    /// The Kubernetes node it runs on.
    pub node_name: String,
    /// The zone it runs in.
    pub zone: String,
    /// The pod it represents.
    pub target_ref: Ignored,
    /// Topology hints for kube-proxy.
    pub hints: Ignored,
    /// Used by older versions of Kubernetes.
    pub deprecated_topology: Ignored,
}

/// `endpoints[].conditions`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EndpointConditions {
    /// Whether it accepts traffic; default true.
    pub ready: Option<bool>,
    /// Whether it could accept traffic regardless of termination; defaults to `ready`.
    pub serving: Option<bool>,
    /// Whether it is terminating; default false.
    pub terminating: Option<bool>,
}

/// `ports[]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EndpointPort {
    /// Name of the service port.
    pub name: String,
    /// Transport protocol.
    pub protocol: TransportProtocol,
    /// Port number.
    pub port: Option<u32>,
    /// Application protocol.
    pub app_protocol: String,
}
