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
    /// Labels of the workloads that back it; empty if its endpoints are listed explicitly.
    pub selector: BTreeMap<String, String>,
    /// The virtual address; `None` for a headless service.
    #[serde(rename = "clusterIP")]
    pub cluster_ip: String,
    /// The virtual addresses of both IP families.
    #[serde(rename = "clusterIPs")]
    pub cluster_ips: Vec<String>,
    /// The service type.
    #[serde(rename = "type")]
    pub service_type: ServiceType,
    /// Additional addresses.
    #[serde(rename = "externalIPs")]
    pub external_ips: Vec<String>,
    /// The DNS name an `ExternalName` service is an alias for.
    pub external_name: String,
    /// Whether unready endpoints are included.
    pub publish_not_ready_addresses: bool,
    /// `Local` restricts traffic to the client's node.
    pub internal_traffic_policy: String,
    /// `PreferClose`, `PreferSameZone` or `PreferSameNode`.
    pub traffic_distribution: String,
    /// Configures kube-proxy.
    pub session_affinity: Ignored,
    /// Configures kube-proxy.
    pub session_affinity_config: Ignored,
    /// Configures the cloud load balancer.
    #[serde(rename = "loadBalancerIP")]
    pub load_balancer_ip: Ignored,
    /// Configures the cloud load balancer.
    pub load_balancer_source_ranges: Ignored,
    /// Configures the cloud load balancer.
    pub load_balancer_class: Ignored,
    /// Configures the cloud load balancer.
    pub allocate_load_balancer_node_ports: Ignored,
    /// Configures the cloud load balancer.
    pub external_traffic_policy: Ignored,
    /// Configures the cloud load balancer.
    pub health_check_node_port: Ignored,
    /// Configures address allocation.
    pub ip_families: Ignored,
    /// Configures address allocation.
    pub ip_family_policy: Ignored,
    /// Used by older versions of Kubernetes.
    pub ip_family: Ignored,
    /// Used by older versions of Kubernetes.
    pub topology_keys: Ignored,
}

/// `type`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
pub enum ServiceType {
    /// A virtual address within the cluster.
    #[default]
    #[serde(rename = "ClusterIP")]
    ClusterIp,
    /// Additionally a port on every node.
    NodePort,
    /// Additionally an external load balancer.
    LoadBalancer,
    /// An alias of a DNS name.
    ExternalName,
}

/// `ports[]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ServicePort {
    /// Name, unique within the service; its prefix may declare the protocol.
    pub name: String,
    /// Transport protocol.
    pub protocol: TransportProtocol,
    /// Application protocol; takes precedence over the name.
    pub app_protocol: String,
    /// The service port.
    pub port: u32,
    /// The endpoint port; defaults to `port`.
    pub target_port: Option<IntOrString>,
    /// Configures kube-proxy.
    pub node_port: Ignored,
}

/// `protocol` of a Kubernetes port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum TransportProtocol {
    /// TCP.
    #[default]
    Tcp,
    /// UDP, which is not supported by the mesh.
    Udp,
    /// SCTP, which is not supported by the mesh.
    Sctp,
}
