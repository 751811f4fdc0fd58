//! Kubernetes `v1` Service.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::value::{Ignored, IntOrString};

/// The spec of a Service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Service {
    /// Ports.
    pub ports: Vec<ServicePort>,
    /// Labels of the workloads behind it; empty when its endpoints are given otherwise.
    pub selector: BTreeMap<String, String>,
    /// The virtual address; `None` for a headless service.
    #[serde(rename = "clusterIP")]
    pub cluster_ip: String,
    /// The virtual addresses of both IP families.
    #[serde(rename = "clusterIPs")]
    pub cluster_ips: Vec<String>,
    /// The type.
    #[serde(rename = "type")]
    pub service_type: ServiceType,
    /// More addresses.
    #[serde(rename = "externalIPs")]
    pub external_ips: Vec<String>,
    /// The name that an `ExternalName` service stands for.
    pub external_name: String,
    /// Whether endpoints that are not ready are used.
    pub publish_not_ready_addresses: bool,
    /// `Local` keeps traffic on the client's node.
    pub internal_traffic_policy: String,
    /// `PreferClose`, `PreferSameZone` or `PreferSameNode`.
    pub traffic_distribution: String,
    /// Of kube-proxy.
    pub session_affinity: Ignored,
    /// Of kube-proxy.
    pub session_affinity_config: Ignored,
    /// Of the cloud's load balancer.
    #[serde(rename = "loadBalancerIP")]
    pub load_balancer_ip: Ignored,
    /// Of the cloud's load balancer.
    pub load_balancer_source_ranges: Ignored,
    /// Of the cloud's load balancer.
    pub load_balancer_class: Ignored,
    /// Of the cloud's load balancer.
    pub allocate_load_balancer_node_ports: Ignored,
    /// Of the cloud's load balancer.
    pub external_traffic_policy: Ignored,
    /// Of the cloud's load balancer.
    pub health_check_node_port: Ignored,
    /// Of Kubernetes' address allocation.
    pub ip_families: Ignored,
    /// Of Kubernetes' address allocation.
    pub ip_family_policy: Ignored,
    /// Of earlier versions of Kubernetes.
    pub ip_family: Ignored,
    /// Of earlier versions of Kubernetes.
    pub topology_keys: Ignored,
}

/// `type`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
pub enum ServiceType {
    /// A virtual address.
    #[default]
    #[serde(rename = "ClusterIP")]
    ClusterIp,
    /// Also a port of every node.
    NodePort,
    /// Also a load balancer outside.
    LoadBalancer,
    /// An alias of a DNS name.
    ExternalName,
}

/// `ports[]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ServicePort {
    /// A name, unique within the service; its prefix may name the protocol.
    pub name: String,
    /// The transport.
    pub protocol: TransportProtocol,
    /// The protocol above; takes precedence over the name.
    pub app_protocol: String,
    /// The port that clients call.
    pub port: u32,
    /// The port of the endpoints; `port` when unset.
    pub target_port: Option<IntOrString>,
    /// Of kube-proxy.
    pub node_port: Ignored,
}

/// `protocol` of a port of Kubernetes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum TransportProtocol {
    /// TCP.
    #[default]
    Tcp,
    /// UDP, which the mesh does not carry.
    Udp,
    /// SCTP, which the mesh does not carry.
    Sctp,
}
