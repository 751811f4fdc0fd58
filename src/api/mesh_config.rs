//! `MeshConfig`: what holds for the whole mesh. It is the text under the key `mesh` of the
//! ConfigMap `istio` in the root namespace, or a file of its own.

mod text;

use serde::Deserialize;

pub use text::MeshConfigText;

use super::destination_rule::{ConnectionPool, LocalityLbSetting, OutlierDetection, TcpKeepalive};
use super::sidecar::OutboundTrafficMode;
use super::value::{Duration, Ignored, Unsupported};
use super::virtual_service::HttpRetry;

/// The mesh configuration. Every field is unset unless written: Istio's defaults, named at each
/// field, are applied by whoever gives the values a meaning.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MeshConfig {
    /// Where outbound traffic is redirected to; 15001.
    pub proxy_listen_port: Option<i32>,
    /// Where inbound traffic is redirected to; 15006.
    pub proxy_inbound_listen_port: Option<i32>,
    /// The longest time to connect to an upstream; 10 s.
    pub connect_timeout: Option<Duration>,
    /// How long a listener waits for bytes that tell the protocol; 0, for ever.
    pub protocol_detection_timeout: Option<Duration>,
    /// Keep-alive of connections to upstreams; none.
    pub tcp_keepalive: Option<TcpKeepalive>,
    /// Traffic to destinations that the mesh does not know; `ALLOW_ANY`.
    pub outbound_traffic_policy: Option<OutboundTrafficPolicy>,
    /// Where inbound traffic goes; `PASSTHROUGH`.
    pub inbound_traffic_policy: Option<InboundTrafficPolicy>,
    /// Whether sidecars use mutual TLS where the peer can; true.
    pub enable_auto_mtls: Option<bool>,
    /// The trust domain; `cluster.local`.
    pub trust_domain: Option<String>,
    /// Trust domains whose identities count as those of `trustDomain`.
    pub trust_domain_aliases: Vec<String>,
    /// `exportTo` of services that have none; `*`.
    pub default_service_export_to: Vec<String>,
    /// `exportTo` of VirtualServices that have none; `*`.
    pub default_virtual_service_export_to: Vec<String>,
    /// `exportTo` of DestinationRules that have none; `*`.
    pub default_destination_rule_export_to: Vec<String>,
    /// The namespace whose policies hold for the mesh; `istio-system`.
    pub root_namespace: Option<String>,
    /// Preferences between localities; enabled, without any.
    pub locality_lb_setting: Option<LocalityLbSetting>,
    /// How often names of upstreams are resolved; 60 s.
    pub dns_refresh_rate: Option<Duration>,
    /// Whether HTTP/1.1 goes upstream as HTTP/2; `DO_NOT_UPGRADE`.
    pub h2_upgrade_policy: Option<MeshH2UpgradePolicy>,
    /// How paths are normalized; `DEFAULT`.
    pub path_normalization: Option<PathNormalization>,
    /// Retries of outbound routes that have no policy; twice, for failures to connect.
    pub default_http_retry_policy: Option<HttpRetry>,
    /// Retries of inbound routes; twice, for resets before the request was sent.
    pub default_inbound_http_retry_policy: Option<HttpRetry>,
    /// TLS between sidecars; TLS 1.2 upward.
    #[serde(rename = "meshMTLS")]
    pub mesh_mtls: Option<TlsConfig>,
    /// What holds under every DestinationRule.
    pub default_traffic_policy: Option<DefaultTrafficPolicy>,

    /// An explicit HTTP proxy on this port.
    pub proxy_http_port: Option<Unsupported>,
    /// Idle time of HBONE connections.
    pub hbone_idle_timeout: Option<Unsupported>,
    /// Spans.
    pub enable_tracing: Option<Unsupported>,
    /// Access logs.
    pub access_log_file: Option<Unsupported>,
    /// Access logs.
    pub access_log_format: Option<Unsupported>,
    /// Access logs.
    pub access_log_encoding: Option<Unsupported>,
    /// Access logs.
    pub enable_envoy_access_log_service: Option<Unsupported>,
    /// Access logs.
    pub disable_envoy_listener_log: Option<Unsupported>,
    /// Defaults of the proxies' own configuration.
    pub default_config: Option<Unsupported>,
    /// Other sources of configuration.
    pub config_sources: Option<Unsupported>,
    /// More trusted roots.
    pub ca_certificates: Option<Unsupported>,
    /// Zone-aware routing.
    pub zone_aware_lb_setting: Option<Unsupported>,
    /// Names of clusters in statistics.
    pub inbound_cluster_stat_name: Option<Unsupported>,
    /// Names of clusters in statistics.
    pub outbound_cluster_stat_name: Option<Unsupported>,
    /// Services of one cluster only.
    pub service_settings: Option<Unsupported>,
    /// Services of one cluster only.
    pub service_scope_configs: Option<Unsupported>,
    /// An external CA.
    pub ca: Option<Unsupported>,
    /// Tracing, metrics, logging and authorization services.
    pub extension_providers: Option<Unsupported>,
    /// Tracing, metrics and logging services that are used unless told otherwise.
    pub default_providers: Option<Unsupported>,
    /// Namespaces that are part of the mesh.
    pub discovery_selectors: Option<Unsupported>,
    /// TLS to servers outside of the mesh.
    pub tls_defaults: Option<Unsupported>,
    /// Limits to what ServiceEntries may show.
    pub service_entry_visibility: Option<Unsupported>,

    /// Of Kubernetes' Ingress.
    pub ingress_class: Ignored,
    /// Of Kubernetes' Ingress.
    pub ingress_service: Ignored,
    /// Of Kubernetes' Ingress.
    pub ingress_controller_mode: Ignored,
    /// Of Kubernetes' Ingress.
    pub ingress_selector: Ignored,
    /// Of the injector.
    pub enable_prometheus_merge: Ignored,
    /// Of Istio's certificates for webhooks; deprecated.
    pub certificates: Ignored,
    /// Deprecated, without effect.
    pub verify_certificate_at_client: Ignored,
}

/// `outboundTrafficPolicy` of the mesh.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct OutboundTrafficPolicy {
    /// What happens to it.
    pub mode: Option<OutboundTrafficMode>,
    /// TLS of connections by dynamic DNS.
    pub tls: Option<Unsupported>,
}

/// `inboundTrafficPolicy`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct InboundTrafficPolicy {
    /// Where to.
    pub mode: InboundTrafficMode,
}

/// `inboundTrafficPolicy.mode`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum InboundTrafficMode {
    /// To the address that the client called.
    #[default]
    Passthrough,
    /// To 127.0.0.1.
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
    /// How far.
    pub normalization: NormalizationType,
}

/// `pathNormalization.normalization`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum NormalizationType {
    /// As `BASE`.
    #[default]
    Default,
    /// Not at all.
    None,
    /// RFC 3986, and `\` as `/`.
    Base,
    /// Also several slashes as one.
    MergeSlashes,
    /// Also `%2F` and `%5C` decoded.
    DecodeAndMergeSlashes,
}

/// `meshMTLS`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TlsConfig {
    /// The oldest version.
    pub min_protocol_version: TlsProtocol,
    /// Cipher suites of TLS 1.2; Envoy's when empty.
    pub cipher_suites: Vec<String>,
    /// Curves; Istio refuses them here.
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
    /// Limits and timeouts of connections.
    pub connection_pool: Option<ConnectionPool>,
    /// When an endpoint is taken out.
    pub outlier_detection: Option<OutlierDetection>,
}
