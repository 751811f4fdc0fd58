//! Clusters (CDS).

mod discovery;
mod http;
mod load_balancer;

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use super::tls;
use super::value::{any, config_path, duration, list, nested, socket_address, structure, text, truth, uint32};
use crate::ir::cluster::{Cluster, ClusterMetadata, Discovery, INBOUND_SOURCE_V4, Limits, Transport};
use crate::mesh::destination_rule::{OutlierDetection, TcpKeepalive};
use crate::name::{Hostname, Namespace};
use crate::xds::pb::cluster::circuit_breakers::Thresholds;
use crate::xds::pb::cluster::cluster::TransportSocketMatch;
use crate::xds::pb::cluster::{self, CircuitBreakers, UpstreamConnectionOptions};
use crate::xds::pb::core::{self, BindConfig, ExtraSourceAddress, Metadata, TransportSocket};
use crate::xds::pb::wkt::UInt32Value;
use crate::xds::resource::{Resource, ResourceType, Warming};

/// Istio's value for unlimited circuit breakers.
const UNLIMITED: u32 = u32::MAX;

const HTTP_OPTIONS: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";

/// The resource for a cluster.
pub fn cluster(cluster: &Cluster) -> Resource {
    let warming = match &cluster.discovery {
        Discovery::Eds => Warming::Endpoints,
        Discovery::StrictDns(..) | Discovery::LogicalDns(..) => Warming::Dns,
        Discovery::Static(_) | Discovery::OriginalDst { .. } => Warming::None,
    };
    super::seal(
        ResourceType::Cluster,
        &cluster.name,
        &message(cluster),
        &cluster.origins,
    )
    .warming(warming)
}

fn message(cluster: &Cluster) -> cluster::Cluster {
    let (lb_policy, lb_config) = load_balancer::load_balancer(cluster);
    let (transport_socket, transport_socket_matches) = transport(cluster);
    cluster::Cluster {
        name: cluster.name.to_string(),
        // `;` terminates the cluster name for the stats tag extraction in Istio's bootstrap.
        alt_stat_name: format!("{};", cluster.name),
        connect_timeout: Some(duration(cluster.connect_timeout)),
        lb_policy: lb_policy.into(),
        lb_config,
        common_lb_config: Some(load_balancer::common_lb(cluster)),
        circuit_breakers: Some(circuit_breakers(cluster.limits)),
        outlier_detection: cluster.outlier_detection.as_ref().map(outlier_detection),
        typed_extension_protocol_options: http::options(&cluster.http)
            .map(|options| (HTTP_OPTIONS.to_owned(), any(&options)))
            .into_iter()
            .collect(),
        upstream_bind_config: cluster.marked_source.then(inbound_source),
        upstream_connection_options: cluster.tcp_keepalive.map(keepalive),
        transport_socket,
        transport_socket_matches,
        metadata: metadata(&cluster.metadata),
        ..discovery::discovery(cluster)
    }
}

/// Source address by which interception rules recognise connections to the application.
fn inbound_source() -> BindConfig {
    let v6 = IpAddr::V6(Ipv6Addr::new(0, 0, 0, 0, 0, 0, 0, 6));
    BindConfig {
        source_address: Some(socket_address(INBOUND_SOURCE_V4, 0)),
        extra_source_addresses: vec![ExtraSourceAddress {
            address: Some(socket_address(v6, 0)),
            ..Default::default()
        }],
        ..Default::default()
    }
}

fn circuit_breakers(limits: Limits) -> CircuitBreakers {
    let limit = |value: Option<u32>| Some(uint32(value.unwrap_or(UNLIMITED)));
    CircuitBreakers {
        thresholds: vec![Thresholds {
            max_connections: limit(limits.connections),
            max_pending_requests: limit(limits.pending_requests),
            max_requests: limit(limits.requests),
            max_retries: limit(limits.retries),
            ..Default::default()
        }],
        ..Default::default()
    }
}

/// Success-rate ejection is disabled, as Istio has no field for it.
fn outlier_detection(detection: &OutlierDetection) -> cluster::OutlierDetection {
    let enforcing = |errors: u32| uint32(if errors == 0 { 0_u32 } else { 100 });
    let local_origin = detection.consecutive_local_origin.filter(|errors| *errors > 0);
    cluster::OutlierDetection {
        consecutive_5xx: detection.consecutive_5xx.map(uint32),
        enforcing_consecutive_5xx: detection.consecutive_5xx.map(enforcing),
        consecutive_gateway_failure: detection.consecutive_gateway.map(uint32),
        enforcing_consecutive_gateway_failure: detection.consecutive_gateway.map(enforcing),
        split_external_local_origin_errors: detection.split_local_origin,
        consecutive_local_origin_failure: local_origin.map(uint32),
        enforcing_consecutive_local_origin_failure: local_origin.map(enforcing),
        enforcing_success_rate: Some(uint32(0_u32)),
        enforcing_local_origin_success_rate: Some(uint32(0_u32)),
        interval: detection.interval.map(duration),
        base_ejection_time: detection.base_ejection_time.map(duration),
        max_ejection_percent: detection.max_ejection_percent.map(uint32),
        ..Default::default()
    }
}

fn keepalive(keepalive: TcpKeepalive) -> UpstreamConnectionOptions {
    // Envoy takes whole seconds; 0 selects the system's default.
    let seconds = |time: Duration| UInt32Value {
        value: u32::try_from(time.as_secs().max(1)).unwrap_or(u32::MAX),
    };
    UpstreamConnectionOptions {
        tcp_keepalive: Some(core::TcpKeepalive {
            keepalive_probes: keepalive.probes.map(uint32),
            keepalive_time: keepalive.time.map(seconds),
            keepalive_interval: keepalive.interval.map(seconds),
        }),
        ..Default::default()
    }
}

/// Transport sockets: those of the transport, wrapped in the PROXY protocol if enabled.
fn transport(cluster: &Cluster) -> (Option<TransportSocket>, Vec<TransportSocketMatch>) {
    let (socket, mut matches) = secured(&cluster.transport);
    let Some(version) = cluster.proxy_protocol else {
        return (socket, matches);
    };
    if matches.is_empty() {
        let inner = socket.unwrap_or_else(tls::plaintext);
        return (Some(tls::told_by_proxy_protocol(version, inner)), matches);
    }
    for one in &mut matches {
        one.transport_socket = one
            .transport_socket
            .take()
            .map(|inner| tls::told_by_proxy_protocol(version, inner));
    }
    (socket, matches)
}

fn secured(transport: &Transport) -> (Option<TransportSocket>, Vec<TransportSocketMatch>) {
    match transport {
        Transport::Plaintext => (None, Vec::new()),
        Transport::Tls(tls) => (Some(tls::upstream(tls)), Vec::new()),
        Transport::Auto(tls) => {
            let mutual = TransportSocketMatch {
                name: "tlsMode-istio".to_owned(),
                r#match: Some(structure([("tlsMode", text("istio"))])),
                transport_socket: Some(tls::upstream(tls)),
            };
            let plaintext = TransportSocketMatch {
                name: "tlsMode-disabled".to_owned(),
                r#match: Some(structure([])),
                transport_socket: Some(tls::plaintext()),
            };
            (None, vec![mutual, plaintext])
        }
    }
}

/// Metadata read by Istio's tools.
fn metadata(metadata: &ClusterMetadata) -> Option<Metadata> {
    let service = |(host, name, namespace): &(Hostname, Arc<str>, Namespace)| {
        nested(structure([
            ("host", text(host.as_str())),
            ("name", text(&**name)),
            ("namespace", text(namespace.as_str())),
        ]))
    };
    let config = metadata
        .config
        .as_ref()
        .map(|(object, api_version)| ("config", text(config_path(object, api_version))));
    let services =
        (!metadata.services.is_empty()).then(|| ("services", list(metadata.services.iter().map(service).collect())));
    let subset = metadata.subset.as_deref().map(|subset| ("subset", text(subset)));
    let external = metadata.external.then(|| ("external", truth(true)));
    let fields = structure([config, services, subset, external].into_iter().flatten());
    (!fields.fields.is_empty()).then(|| Metadata {
        filter_metadata: HashMap::from([("istio".to_owned(), fields)]),
        ..Default::default()
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::ir::cluster::{LoadBalancer, ServerIdentity, UpstreamTls};
    use crate::mesh::config::TlsVersion;
    use crate::name::Kind;
    use crate::xds::encode::testing::{cluster as plain, object, shown};

    #[test]
    fn a_cluster_has_istios_defaults() {
        let resource = cluster(&plain("outbound|9080||reviews"));
        assert_eq!(resource.warming, Warming::Endpoints);
        let unlimited = u32::MAX;
        assert_eq!(
            shown(&resource),
            json!({
                "name": "outbound|9080||reviews",
                "type": "EDS",
                "eds_cluster_config": {
                    "eds_config": {"ads": {}, "initial_fetch_timeout": "0s", "resource_api_version": "V3"},
                    "service_name": "outbound|9080||reviews",
                },
                "connect_timeout": "10s",
                "lb_policy": "LEAST_REQUEST",
                "circuit_breakers": {"thresholds": [{
                    "max_connections": unlimited,
                    "max_pending_requests": unlimited,
                    "max_requests": unlimited,
                    "max_retries": unlimited,
                }]},
                "common_lb_config": {"healthy_panic_threshold": {}},
                "alt_stat_name": "outbound|9080||reviews;",
            })
        );
    }

    #[test]
    fn inbound_clusters_bind_to_the_source_exempt_from_interception() {
        let inbound = Cluster {
            discovery: Discovery::OriginalDst {
                port: Some(8080),
                inbound: true,
            },
            load_balancer: LoadBalancer::ClusterProvided,
            marked_source: true,
            ..plain("inbound|8080||")
        };
        let shown = shown(&cluster(&inbound));
        assert_eq!(shown["type"], "ORIGINAL_DST");
        assert_eq!(shown["lb_policy"], "CLUSTER_PROVIDED");
        assert_eq!(shown["original_dst_lb_config"], json!({"upstream_port_override": 8080}));
        assert_eq!(shown["cleanup_interval"], "9223372035s");
        assert_eq!(
            shown["upstream_bind_config"],
            json!({
                "source_address": {"address": "127.0.0.6", "port_value": 0},
                "extra_source_addresses": [{"address": {"address": "::6", "port_value": 0}}],
            })
        );
    }

    #[test]
    fn zero_errors_disable_ejection_and_success_rate_ejection_is_off() {
        let detection = OutlierDetection {
            consecutive_5xx: Some(0),
            consecutive_gateway: Some(3),
            base_ejection_time: Some(Duration::from_secs(30)),
            ..Default::default()
        };
        let shown = shown(&cluster(&Cluster {
            outlier_detection: Some(detection),
            ..plain("a")
        }));
        assert_eq!(
            shown["outlier_detection"],
            json!({
                "consecutive_5xx": 0,
                "enforcing_consecutive_5xx": 0,
                "consecutive_gateway_failure": 3,
                "enforcing_consecutive_gateway_failure": 100,
                "enforcing_success_rate": 0,
                "enforcing_local_origin_success_rate": 0,
                "base_ejection_time": "30s",
            })
        );
    }

    #[test]
    fn auto_mtls_uses_transport_socket_matches() {
        let tls = UpstreamTls::Istio {
            server: ServerIdentity::Prefixes(vec!["spiffe://cluster.local/ns/default/".into()]),
            sni: "outbound_.9080_._.reviews".into(),
            alpn: vec!["istio"],
            oldest: TlsVersion::V1_2,
        };
        let shown = shown(&cluster(&Cluster {
            transport: Transport::Auto(tls),
            ..plain("a")
        }));
        let matches = &shown["transport_socket_matches"];
        assert_eq!(matches[0]["name"], "tlsMode-istio");
        assert_eq!(matches[0]["match"], json!({"tlsMode": "istio"}));
        assert_eq!(matches[0]["transport_socket"]["name"], "envoy.transport_sockets.tls");
        assert_eq!(matches[1]["name"], "tlsMode-disabled");
        assert_eq!(matches[1]["match"], json!({}));
        assert_eq!(
            matches[1]["transport_socket"]["name"],
            "envoy.transport_sockets.raw_buffer"
        );
        assert_eq!(shown["transport_socket"], Value::Null);
    }

    #[test]
    fn keepalive_is_in_whole_seconds() {
        let keepalive = TcpKeepalive {
            probes: Some(3),
            time: Some(Duration::from_millis(10)),
            interval: None,
        };
        let shown = shown(&cluster(&Cluster {
            tcp_keepalive: Some(keepalive),
            ..plain("a")
        }));
        assert_eq!(
            shown["upstream_connection_options"],
            json!({"tcp_keepalive": {"keepalive_probes": 3, "keepalive_time": 1}})
        );
    }

    #[test]
    fn istio_metadata_is_present() {
        let metadata = ClusterMetadata {
            config: Some((
                object(Kind::DestinationRule, "reviews"),
                "networking.istio.io/v1".into(),
            )),
            services: vec![(
                "reviews.example".parse().unwrap(),
                "reviews".into(),
                "default".parse().unwrap(),
            )],
            subset: Some("v1".into()),
            external: true,
        };
        let shown = shown(&cluster(&Cluster { metadata, ..plain("a") }));
        assert_eq!(
            shown["metadata"]["filter_metadata"]["istio"],
            json!({
                "config": "/apis/networking.istio.io/v1/namespaces/default/destination-rule/reviews",
                "external": true,
                "services": [{"host": "reviews.example", "name": "reviews", "namespace": "default"}],
                "subset": "v1",
            })
        );
    }

    #[test]
    fn equal_clusters_have_equal_bytes() {
        let external = || {
            let metadata = ClusterMetadata {
                services: vec![(
                    "reviews.example".parse().unwrap(),
                    "reviews".into(),
                    "default".parse().unwrap(),
                )],
                subset: Some("v1".into()),
                external: true,
                ..Default::default()
            };
            cluster(&Cluster { metadata, ..plain("a") })
        };
        let first = external();
        assert!((0..50).all(|_| external().version == first.version));
    }
}
