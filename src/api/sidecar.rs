//! `Sidecar` of `networking.istio.io`: what a sidecar accepts and what it can reach.

use serde::Deserialize;

use super::destination_rule::ConnectionPool;
use super::selector::WorkloadSelector;
use super::service_entry::ServicePort;
use super::value::Unsupported;
use super::virtual_service::Destination;

/// The spec of a Sidecar.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Sidecar {
    /// The workloads; all of the namespace when unset, all of the mesh in the root namespace.
    pub workload_selector: Option<WorkloadSelector>,
    /// What is accepted; derived from the workload's services when empty.
    pub ingress: Vec<IngressListener>,
    /// What can be reached; everything visible when empty.
    pub egress: Vec<EgressListener>,
    /// Limits of the connections to the workload, where a listener has none of its own.
    pub inbound_connection_pool: Option<ConnectionPool>,
    /// Traffic to destinations that the mesh does not know; the mesh's policy when unset.
    pub outbound_traffic_policy: Option<OutboundTrafficPolicy>,
}

/// `ingress[]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct IngressListener {
    /// The port.
    pub port: Option<ServicePort>,
    /// The address to listen on.
    pub bind: String,
    /// Whether traffic is redirected to the listener or calls it.
    pub capture_mode: CaptureMode,
    /// Where the workload listens: `127.0.0.1:PORT`, `0.0.0.0:PORT`, or `unix://` and a path.
    pub default_endpoint: String,
    /// TLS termination instead of mutual TLS.
    pub tls: Option<Unsupported>,
    /// Limits of the connections to the workload.
    pub connection_pool: Option<ConnectionPool>,
}

/// `egress[]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EgressListener {
    /// The port; every port that no other listener has when unset.
    pub port: Option<ServicePort>,
    /// The address to listen on, or `unix://` and a path.
    pub bind: String,
    /// Whether traffic is redirected to the listener or calls it.
    pub capture_mode: CaptureMode,
    /// Services, as `namespace/name`.
    pub hosts: Vec<String>,
}

/// `captureMode`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum CaptureMode {
    /// As the proxy's interception mode says.
    #[default]
    Default,
    /// Traffic is redirected.
    Iptables,
    /// Traffic calls the listener.
    None,
}

/// `outboundTrafficPolicy` of a Sidecar.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct OutboundTrafficPolicy {
    /// What happens to it; `REGISTRY_ONLY` when the policy does not say.
    pub mode: OutboundTrafficMode,
    /// A service that it is sent to, in the mode `ALLOW_ANY`.
    pub egress_proxy: Option<Destination>,
}

/// `outboundTrafficPolicy.mode` of a Sidecar or the mesh.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum OutboundTrafficMode {
    /// It is refused.
    #[default]
    RegistryOnly,
    /// It passes.
    AllowAny,
    /// It passes, by the name that each request carries.
    AllowAnyDynamicDns(Unsupported),
}
