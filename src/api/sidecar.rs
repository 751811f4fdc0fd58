//! `Sidecar` of `networking.istio.io`: inbound listeners of a sidecar, and the services it can
//! reach.

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
    /// The workloads; when unset, all of the namespace, or of the mesh if in the root namespace.
    pub workload_selector: Option<WorkloadSelector>,
    /// Inbound listeners; derived from the workload's services when empty.
    pub ingress: Vec<IngressListener>,
    /// Outbound listeners; everything visible is reachable when empty.
    pub egress: Vec<EgressListener>,
    /// Connection limits to the workload for listeners without their own.
    pub inbound_connection_pool: Option<ConnectionPool>,
    /// Policy for destinations unknown to the mesh; defaults to the mesh's.
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
    /// Whether traffic is redirected to the listener or must address it directly.
    pub capture_mode: CaptureMode,
    /// Where the application listens: `127.0.0.1:PORT`, `0.0.0.0:PORT`, or `unix://` and a path.
    pub default_endpoint: String,
    /// TLS termination instead of mutual TLS.
    pub tls: Option<Unsupported>,
    /// Connection limits to the workload.
    pub connection_pool: Option<ConnectionPool>,
}

/// `egress[]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EgressListener {
    /// The port; when unset, every port without a listener of its own.
    pub port: Option<ServicePort>,
    /// The address to listen on, or `unix://` and a path.
    pub bind: String,
    /// Whether traffic is redirected to the listener or must address it directly.
    pub capture_mode: CaptureMode,
    /// Services, as `namespace/name`.
    pub hosts: Vec<String>,
}

/// `captureMode`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum CaptureMode {
    /// According to the proxy's interception mode.
    #[default]
    Default,
    /// Traffic is redirected.
    Iptables,
    /// Traffic must address the listener directly.
    None,
}

/// `outboundTrafficPolicy` of a Sidecar.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct OutboundTrafficPolicy {
    /// The mode; default `REGISTRY_ONLY`.
    pub mode: OutboundTrafficMode,
    /// With `ALLOW_ANY`, a service to which the traffic is forwarded.
    pub egress_proxy: Option<Destination>,
}

/// `outboundTrafficPolicy.mode` of a Sidecar or the mesh.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum OutboundTrafficMode {
    /// Reject it.
    #[default]
    RegistryOnly,
    /// Forward it to its original destination.
    AllowAny,
    /// Forward it to the host name in each request.
    AllowAnyDynamicDns(Unsupported),
}
