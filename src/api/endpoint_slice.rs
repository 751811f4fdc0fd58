//! Kubernetes `discovery.k8s.io/v1` EndpointSlice.

use serde::Deserialize;

use super::service::TransportProtocol;
use super::value::Ignored;

/// What an EndpointSlice holds besides its metadata. Label `kubernetes.io/service-name` names its
/// Service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EndpointSlice {
    /// What `endpoints[].addresses` are.
    pub address_type: Option<AddressType>,
    /// The endpoints.
    pub endpoints: Vec<Endpoint>,
    /// Ports that every endpoint has.
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
    /// Addresses of one workload.
    pub addresses: Vec<String>,
    /// Its state.
    pub conditions: EndpointConditions,
    /// Its name below that of a headless service.
    pub hostname: String,
    /// Its node.
    pub node_name: String,
    /// Its zone.
    pub zone: String,
    /// Of Kubernetes, a pod.
    pub target_ref: Ignored,
    /// Of kube-proxy.
    pub hints: Ignored,
    /// Of earlier versions of Kubernetes.
    pub deprecated_topology: Ignored,
}

/// `endpoints[].conditions`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EndpointConditions {
    /// Whether it takes traffic; true when unset.
    pub ready: Option<bool>,
    /// Whether it could take traffic; as `ready` when unset.
    pub serving: Option<bool>,
    /// Whether it is about to stop; false when unset.
    pub terminating: Option<bool>,
}

/// `ports[]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EndpointPort {
    /// The name of the service's port.
    pub name: String,
    /// The transport.
    pub protocol: TransportProtocol,
    /// The number.
    pub port: Option<u32>,
    /// The protocol above.
    pub app_protocol: String,
}
