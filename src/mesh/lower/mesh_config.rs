//! Lowers the mesh configuration.

use std::time::Duration;

use super::destination_rule::{keepalive, locality_lb};
use super::report::Report;
use super::sidecar::outbound;
use super::value::ExportToNone;
use super::virtual_service::retries;
use super::{Context, Lowered};
use crate::api::FieldPath;
use crate::api::mesh_config as api;
use crate::diag::{Code, Severity};
use crate::mesh::ExportTo;
use crate::mesh::config::{ExportDefault, InboundPolicy, MeshConfig, PathNormalization, TlsVersion};
use crate::mesh::destination_rule::H2Upgrade;
use crate::name::{Kind, Namespace, ObjectId, TrustDomain};

/// Lowers a mesh configuration; `base` has the values of unset fields. Findings refer to its
/// fields.
pub fn lower(spec: &api::MeshConfig, base: &MeshConfig) -> Lowered<MeshConfig> {
    let context = Context::default();
    let id = ObjectId {
        kind: Kind::ConfigMap,
        namespace: base.root_namespace.clone(),
        name: "istio".into(),
    };
    let mut report = Report::new(&id, &context);
    let at = &FieldPath::root();
    let mut config = base.clone();
    identity(&mut report, at, spec, &mut config);
    listeners(&mut report, at, spec, &mut config);
    connections(&mut report, at, spec, &mut config);
    exports(&mut report, at, spec, &mut config);
    unsupported(&mut report, at, spec);
    report.finish(config)
}

fn identity(report: &mut Report<'_>, at: &FieldPath, spec: &api::MeshConfig, config: &mut MeshConfig) {
    if let Some(text) = &spec.trust_domain
        && let Some(domain) = report.name(&at.field("trustDomain"), text.parse::<TrustDomain>())
    {
        config.trust_domain = domain;
    }
    let aliases_at = at.field("trustDomainAliases");
    for (index, text) in spec.trust_domain_aliases.iter().enumerate() {
        let alias = report.name(&aliases_at.index(index), text.parse::<TrustDomain>());
        config.trust_domain_aliases.extend(alias);
    }
    if let Some(text) = &spec.root_namespace
        && let Some(namespace) = report.name(&at.field("rootNamespace"), text.parse::<Namespace>())
    {
        config.root_namespace = namespace;
    }
    if let Some(on) = spec.enable_auto_mtls {
        config.auto_mtls = on;
    }
    if let Some(tls) = &spec.mesh_mtls {
        mutual_tls(report, &at.field("meshMTLS"), tls, config);
    }
}

fn mutual_tls(report: &mut Report<'_>, at: &FieldPath, spec: &api::TlsConfig, config: &mut MeshConfig) {
    config.oldest_tls = match spec.min_protocol_version {
        api::TlsProtocol::Auto | api::TlsProtocol::V1_2 => TlsVersion::V1_2,
        api::TlsProtocol::V1_3 => TlsVersion::V1_3,
    };
    if !spec.cipher_suites.is_empty() {
        not_supported(report, &at.field("cipherSuites"), "cipherSuites");
    }
    if !spec.ecdh_curves.is_empty() {
        report.error(
            &at.field("ecdhCurves"),
            "`ecdhCurves` is not supported for mutual TLS within the mesh",
        );
    }
}

fn listeners(report: &mut Report<'_>, at: &FieldPath, spec: &api::MeshConfig, config: &mut MeshConfig) {
    let mut port = |field: &str, number: Option<i32>, port: &mut u16| {
        if let Some(number) = number {
            *port = report.port(&at.field(field), u32::try_from(number).unwrap_or(0));
        }
    };
    port("proxyListenPort", spec.proxy_listen_port, &mut config.outbound_port);
    port(
        "proxyInboundListenPort",
        spec.proxy_inbound_listen_port,
        &mut config.inbound_port,
    );
    if config.outbound_port == config.inbound_port {
        report.error(
            &at.field("proxyInboundListenPort"),
            "inbound and outbound traffic must use different ports",
        );
    }
    let timeout = report.duration_or_zero(&at.field("protocolDetectionTimeout"), spec.protocol_detection_timeout);
    config.protocol_detection_timeout = timeout.unwrap_or(config.protocol_detection_timeout);
    if let Some(mode) = spec.outbound_traffic_policy.as_ref().and_then(|policy| policy.mode) {
        config.outbound_policy = outbound(mode);
    }
    if let Some(policy) = &spec.inbound_traffic_policy {
        config.inbound_policy = match policy.mode {
            api::InboundTrafficMode::Passthrough => InboundPolicy::Passthrough,
            api::InboundTrafficMode::Localhost => InboundPolicy::Localhost,
        };
    }
    if let Some(path) = &spec.path_normalization {
        config.path_normalization = match path.normalization {
            api::NormalizationType::Default | api::NormalizationType::Base => PathNormalization::Base,
            api::NormalizationType::None => PathNormalization::None,
            api::NormalizationType::MergeSlashes => PathNormalization::MergeSlashes,
            api::NormalizationType::DecodeAndMergeSlashes => PathNormalization::DecodeAndMergeSlashes,
        };
    }
}

fn connections(report: &mut Report<'_>, at: &FieldPath, spec: &api::MeshConfig, config: &mut MeshConfig) {
    let connect_at = at.field("connectTimeout");
    if let Some(timeout) = report.duration(&connect_at, spec.connect_timeout) {
        if timeout > Duration::from_secs(3600) {
            report.error(&connect_at, format!("{timeout:?} is longer than an hour"));
        }
        config.connect_timeout = timeout;
    }
    if let Some(entry) = &spec.tcp_keepalive {
        config.tcp_keepalive = Some(keepalive(report, &at.field("tcpKeepalive"), entry));
    }
    if let Some(rate) = report.duration(&at.field("dnsRefreshRate"), spec.dns_refresh_rate) {
        config.dns_refresh_rate = rate;
    }
    if let Some(setting) = &spec.locality_lb_setting {
        config.locality_lb = locality_lb(report, &at.field("localityLbSetting"), setting);
    }
    if let Some(policy) = spec.h2_upgrade_policy {
        config.h2_upgrade = match policy {
            api::MeshH2UpgradePolicy::DoNotUpgrade => H2Upgrade::DoNotUpgrade,
            api::MeshH2UpgradePolicy::Upgrade => H2Upgrade::Upgrade,
        };
    }
    if let Some(policy) = &spec.default_http_retry_policy {
        config.retry = retries(report, &at.field("defaultHttpRetryPolicy"), policy);
    }
}

fn exports(report: &mut Report<'_>, at: &FieldPath, spec: &api::MeshConfig, config: &mut MeshConfig) {
    let mut export = |field: &str, entries: &[String], default: &mut ExportDefault| {
        if entries.is_empty() {
            return;
        }
        let at = at.field(field);
        let place = |index| at.index(index);
        let others: Vec<String> = entries.iter().filter(|entry| *entry != ".").cloned().collect();
        default.own = others.len() < entries.len();
        default.others = match others.as_slice() {
            [] => ExportTo::Nobody,
            named => report.export_to_at(&place, named, &ExportDefault::default(), ExportToNone::Allowed),
        };
    };
    export(
        "defaultServiceExportTo",
        &spec.default_service_export_to,
        &mut config.service_export_to,
    );
    export(
        "defaultVirtualServiceExportTo",
        &spec.default_virtual_service_export_to,
        &mut config.virtual_service_export_to,
    );
    export(
        "defaultDestinationRuleExportTo",
        &spec.default_destination_rule_export_to,
        &mut config.destination_rule_export_to,
    );
}

/// Reports fields that are parsed but not supported yet. Like other unsupported fields here they
/// are only warnings, since real mesh configurations are full of them.
fn unsupported(report: &mut Report<'_>, at: &FieldPath, spec: &api::MeshConfig) {
    let fields = [
        ("defaultTrafficPolicy", spec.default_traffic_policy.is_some()),
        (
            "defaultInboundHttpRetryPolicy",
            spec.default_inbound_http_retry_policy.is_some(),
        ),
    ];
    for (field, _) in fields.iter().filter(|(_, given)| *given) {
        not_supported(report, &at.field(*field), field);
    }
}

fn not_supported(report: &mut Report<'_>, at: &FieldPath, field: &str) {
    report
        .add(
            Code::UnsupportedField,
            at,
            format!("`{field}` is not supported yet and has no effect"),
        )
        .severity(Severity::Warning);
}
