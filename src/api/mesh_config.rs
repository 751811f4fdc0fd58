//! `MeshConfig`: mesh-wide settings, from key `mesh` of the ConfigMap `istio` in the root namespace
//! or from a file of their own.

mod text;

use serde::Deserialize;

pub use text::MeshConfigText;

use super::destination_rule::{ConnectionPool, LocalityLbSetting, OutlierDetection, TcpKeepalive};
use super::sidecar::OutboundTrafficMode;
use super::value::{Duration, Ignored, Unsupported};
use super::virtual_service::HttpRetry;

/// The mesh configuration. Fields are `None` unless set; the defaults named here are Istio's and
/// are applied by [`mesh`](crate::mesh).
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MeshConfig {
    /// Port to which outbound traffic is redirected; 15001.
    pub proxy_listen_port: Option<i32>,
    /// Port to which inbound traffic is redirected; 15006.
    pub proxy_inbound_listen_port: Option<i32>,
    /// TCP connect timeout for upstreams; 10 s.
    pub connect_timeout: Option<Duration>,
    /// How long a listener waits for the bytes that identify the protocol; 0, no limit.
    pub protocol_detection_timeout: Option<Duration>,
    /// TCP keepalive for upstream connections; none.
    pub tcp_keepalive: Option<TcpKeepalive>,
    /// Policy for destinations unknown to the mesh; `ALLOW_ANY`.
    pub outbound_traffic_policy: Option<OutboundTrafficPolicy>,
    /// Where inbound traffic is forwarded to; `PASSTHROUGH`.
    pub inbound_traffic_policy: Option<InboundTrafficPolicy>,
    /// Whether sidecars use mutual TLS with peers that support it; true.
    pub enable_auto_mtls: Option<bool>,
    /// The trust domain; `cluster.local`.
    pub trust_domain: Option<String>,
    /// Trust domains whose identities are equivalent to those of `trustDomain`.
    pub trust_domain_aliases: Vec<String>,
    /// Default `exportTo` of services; `*`.
    pub default_service_export_to: Vec<String>,
    /// Default `exportTo` of VirtualServices; `*`.
    pub default_virtual_service_export_to: Vec<String>,
    /// Default `exportTo` of DestinationRules; `*`.
    pub default_destination_rule_export_to: Vec<String>,
    /// The namespace whose policies apply to the whole mesh; `istio-system`.
    pub root_namespace: Option<String>,
    /// Locality load balancing; enabled, without preferences.
    pub locality_lb_setting: Option<LocalityLbSetting>,
    /// DNS resolution interval for upstream host names; 60 s.
    pub dns_refresh_rate: Option<Duration>,
    /// Whether HTTP/1.1 requests are sent upstream as HTTP/2; `DO_NOT_UPGRADE`.
    pub h2_upgrade_policy: Option<MeshH2UpgradePolicy>,
    /// Path normalization; `DEFAULT`.
    pub path_normalization: Option<PathNormalization>,
    /// Retry policy of outbound routes that have none; 2 retries on connect failures.
    pub default_http_retry_policy: Option<HttpRetry>,
    /// Retry policy of inbound routes; 2 retries on `reset-before-request`.
    pub default_inbound_http_retry_policy: Option<HttpRetry>,
    /// TLS settings between sidecars; TLS 1.2 or later.
    #[serde(rename = "meshMTLS")]
    pub mesh_mtls: Option<TlsConfig>,
    /// Base policy for all DestinationRules.
    pub default_traffic_policy: Option<DefaultTrafficPolicy>,

    /// Port of an explicit HTTP proxy.
    pub proxy_http_port: Option<Unsupported>,
    /// Idle timeout of HBONE connections.
    pub hbone_idle_timeout: Option<Unsupported>,
    /// Tracing.
    pub enable_tracing: Option<Unsupported>,
    /// Access logging.
    pub access_log_file: Option<Unsupported>,
    /// Access logging.
    pub access_log_format: Option<Unsupported>,
    /// Access logging.
    pub access_log_encoding: Option<Unsupported>,
    /// Access logging.
    pub enable_envoy_access_log_service: Option<Unsupported>,
    /// Access logging.
    pub disable_envoy_listener_log: Option<Unsupported>,
    /// Default `ProxyConfig`.
    pub default_config: Option<Unsupported>,
    /// Additional configuration sources.
    pub config_sources: Option<Unsupported>,
    /// Additional root certificates.
    pub ca_certificates: Option<Unsupported>,
    /// Zone-aware routing.
    pub zone_aware_lb_setting: Option<Unsupported>,
    /// Cluster names in statistics.
    pub inbound_cluster_stat_name: Option<Unsupported>,
    /// Cluster names in statistics.
    pub outbound_cluster_stat_name: Option<Unsupported>,
    /// Services restricted to a cluster.
    pub service_settings: Option<Unsupported>,
    /// Services restricted to a cluster.
    pub service_scope_configs: Option<Unsupported>,
    /// An external CA.
    pub ca: Option<Unsupported>,
    /// Tracing, metrics, access logging and external authorization providers.
    pub extension_providers: Option<Unsupported>,
    /// Default tracing, metrics and access logging providers.
    pub default_providers: Option<Unsupported>,
    /// Namespaces included in the mesh.
    pub discovery_selectors: Option<Unsupported>,
    /// TLS settings for servers outside of the mesh.
    pub tls_defaults: Option<Unsupported>,
    /// Restricts the hosts that ServiceEntries may define.
    pub service_entry_visibility: Option<Unsupported>,

    /// Configures Kubernetes Ingress.
    pub ingress_class: Ignored,
    /// Configures Kubernetes Ingress.
    pub ingress_service: Ignored,
    /// Configures Kubernetes Ingress.
    pub ingress_controller_mode: Ignored,
    /// Configures Kubernetes Ingress.
    pub ingress_selector: Ignored,
    /// Configures the sidecar injector.
    pub enable_prometheus_merge: Ignored,
    /// Certificates for webhooks; deprecated.
    pub certificates: Ignored,
    /// Deprecated; has no effect.
    pub verify_certificate_at_client: Ignored,
}

/// `outboundTrafficPolicy` of the mesh.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct OutboundTrafficPolicy {
    /// The mode.
    pub mode: Option<OutboundTrafficMode>,
    /// TLS settings for dynamic DNS connections.
    pub tls: Option<Unsupported>,
}

/// `inboundTrafficPolicy`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct InboundTrafficPolicy {
    /// The mode.
    pub mode: InboundTrafficMode,
}

/// `inboundTrafficPolicy.mode`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum InboundTrafficMode {
    /// Forward to the original destination address.
    #[default]
    Passthrough,
    /// Forward to 127.0.0.1.
    Localhost,
}

/// `h2UpgradePolicy` of the mesh.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum MeshH2UpgradePolicy {
    /// Never.
    #[default]
    DoNotUpgrade,
    /// On ports declared as HTTP.
    Upgrade,
}

/// `pathNormalization`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PathNormalization {
    /// The kind of normalization.
    pub normalization: NormalizationType,
}

/// `pathNormalization.normalization`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum NormalizationType {
    /// Same as `BASE`.
    #[default]
    Default,
    /// No normalization.
    None,
    /// RFC 3986 normalization, with `\` treated as `/`.
    Base,
    /// `BASE`, and adjacent slashes are merged.
    MergeSlashes,
    /// `MERGE_SLASHES`, after decoding `%2F` and `%5C`.
    DecodeAndMergeSlashes,
}

/// `meshMTLS`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TlsConfig {
    /// The minimum TLS version.
    pub min_protocol_version: TlsProtocol,
    /// Cipher suites for TLS 1.2; Envoy's defaults when empty.
    pub cipher_suites: Vec<String>,
    /// ECDH curves; Istio rejects them here.
    pub ecdh_curves: Vec<String>,
}

/// `meshMTLS.minProtocolVersion`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
pub enum TlsProtocol {
    /// TLS 1.2.
    #[default]
    #[serde(rename = "TLS_AUTO")]
    Auto,
    /// TLS 1.2.
    #[serde(rename = "TLSV1_2")]
    V1_2,
    /// TLS 1.3.
    #[serde(rename = "TLSV1_3")]
    V1_3,
}

/// `defaultTrafficPolicy`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DefaultTrafficPolicy {
    /// Connection limits and timeouts.
    pub connection_pool: Option<ConnectionPool>,
    /// Passive health checking.
    pub outlier_detection: Option<OutlierDetection>,
}
