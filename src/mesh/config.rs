//! Mesh-wide settings (Istio's `MeshConfig`) with defaults applied.

use std::sync::Arc;
use std::time::Duration;

use super::ExportTo;
use super::destination_rule::{H2Upgrade, LocalityLb, TcpKeepalive};
use super::virtual_service::{Destination, RetryPolicy};
use crate::name::{Namespace, TrustDomain};

/// The effective settings.
#[derive(Clone, Debug, PartialEq)]
pub struct MeshConfig {
    /// `rootNamespace`: the namespace of mesh-wide policies.
    pub root_namespace: Namespace,
    /// DNS domain of cluster services, `cluster.local`.
    pub domain: String,
    /// `trustDomain`.
    pub trust_domain: TrustDomain,
    /// `trustDomainAliases`: also accepted in peer certificates.
    pub trust_domain_aliases: Vec<TrustDomain>,
    /// `proxyListenPort`, 15001.
    pub outbound_port: u16,
    /// `proxyInboundListenPort`, 15006.
    pub inbound_port: u16,
    /// `connectTimeout`, 10 s.
    pub connect_timeout: Duration,
    /// `protocolDetectionTimeout`; zero means none.
    pub protocol_detection_timeout: Duration,
    /// `tcpKeepalive`.
    pub tcp_keepalive: Option<TcpKeepalive>,
    /// `outboundTrafficPolicy.mode`.
    pub outbound_policy: OutboundPolicy,
    /// `inboundTrafficPolicy.mode`.
    pub inbound_policy: InboundPolicy,
    /// `enableAutoMtls`.
    pub auto_mtls: bool,
    /// `meshMTLS.minProtocolVersion`.
    pub oldest_tls: TlsVersion,
    /// `defaultServiceExportTo`.
    pub service_export_to: ExportDefault,
    /// `defaultVirtualServiceExportTo`.
    pub virtual_service_export_to: ExportDefault,
    /// `defaultDestinationRuleExportTo`.
    pub destination_rule_export_to: ExportDefault,
    /// `localityLbSetting`; enabled by default.
    pub locality_lb: LocalityLb,
    /// `dnsRefreshRate`, 60 s.
    pub dns_refresh_rate: Duration,
    /// `h2UpgradePolicy`.
    pub h2_upgrade: H2Upgrade,
    /// `defaultHttpRetryPolicy`: for routes without `retries`.
    pub retry: RetryPolicy,
    /// `pathNormalization.normalization`.
    pub path_normalization: PathNormalization,
}

impl Default for MeshConfig {
    fn default() -> Self {
        Self {
            root_namespace: Namespace::istio_system(),
            domain: "cluster.local".to_owned(),
            trust_domain: TrustDomain::default(),
            trust_domain_aliases: Vec::new(),
            outbound_port: 15001,
            inbound_port: 15006,
            connect_timeout: Duration::from_secs(10),
            protocol_detection_timeout: Duration::ZERO,
            tcp_keepalive: None,
            outbound_policy: OutboundPolicy::AllowAny,
            inbound_policy: InboundPolicy::Passthrough,
            auto_mtls: true,
            oldest_tls: TlsVersion::V1_2,
            service_export_to: ExportDefault::default(),
            virtual_service_export_to: ExportDefault::default(),
            destination_rule_export_to: ExportDefault::default(),
            locality_lb: LocalityLb::default(),
            dns_refresh_rate: Duration::from_secs(60),
            h2_upgrade: H2Upgrade::DoNotUpgrade,
            retry: RetryPolicy::default(),
            path_normalization: PathNormalization::Base,
        }
    }
}

/// Visibility of objects without `exportTo` (`default…ExportTo`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct ExportDefault {
    /// `.`: the namespace of the object.
    pub own: bool,
    /// The other entries.
    pub others: ExportTo,
}

impl ExportDefault {
    /// The value for an object of `namespace`.
    pub fn in_namespace(&self, namespace: &Namespace) -> ExportTo {
        if !self.own {
            return self.others.clone();
        }
        match &self.others {
            ExportTo::Everyone => ExportTo::Everyone,
            ExportTo::Nobody => ExportTo::Namespaces([namespace.clone()].into()),
            ExportTo::Namespaces(others) => {
                let all = std::iter::once(namespace).chain(others.iter().filter(|other| *other != namespace));
                ExportTo::Namespaces(all.cloned().collect())
            }
        }
    }
}

/// Handling of outbound traffic to destinations unknown to the mesh.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OutboundPolicy {
    /// `ALLOW_ANY`: forward to the original destination.
    AllowAny,
    /// `ALLOW_ANY` with `egressProxy`: forward to this destination, which has a port.
    EgressProxy(Arc<Destination>),
    /// `REGISTRY_ONLY`: reject.
    RegistryOnly,
}

/// Minimum TLS version of mutual TLS within the mesh.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TlsVersion {
    /// `TLS_AUTO` and `TLSV1_2`.
    V1_2,
    /// `TLSV1_3`.
    V1_3,
}

/// Where inbound clusters forward to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum InboundPolicy {
    /// `PASSTHROUGH`: the original destination address.
    Passthrough,
    /// `LOCALHOST`: to 127.0.0.1.
    Localhost,
}

/// Path normalization before matching.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PathNormalization {
    /// `NONE`.
    None,
    /// `BASE` and `DEFAULT`: RFC 3986.
    Base,
    /// `MERGE_SLASHES`.
    MergeSlashes,
    /// `DECODE_AND_MERGE_SLASHES`.
    DecodeAndMergeSlashes,
}
