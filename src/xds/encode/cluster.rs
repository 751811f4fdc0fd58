//! Clusters (CDS).

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use super::value::{ads, any, config_path, duration, list, nested, socket_address, structure, text, truth, uint32};
use super::{endpoints, tls};
use crate::ir::cluster::{
    Cluster, ClusterEndpoints, ClusterMetadata, Discovery, HttpVersion, INBOUND_SOURCE_V4, Limits, LoadBalancer,
    Lookup, Transport, UpstreamHttp,
};
use crate::mesh::destination_rule::{HashTable, OutlierDetection, TcpKeepalive, Warmup};
use crate::name::{Hostname, Namespace};
use crate::xds::pb::cares::CaresDnsResolverConfig;
use crate::xds::pb::cluster::circuit_breakers::Thresholds;
use crate::xds::pb::cluster::cluster::common_lb_config::{LocalityConfigSpecifier, LocalityWeightedLbConfig};
use crate::xds::pb::cluster::cluster::{
    ClusterDiscoveryType, CommonLbConfig, CustomClusterType, DiscoveryType, EdsClusterConfig, LbConfig, LbPolicy,
    LeastRequestLbConfig, MaglevLbConfig, OriginalDstLbConfig, RingHashLbConfig, RoundRobinLbConfig, SlowStartConfig,
    TransportSocketMatch,
};
use crate::xds::pb::cluster::{self, CircuitBreakers, UpstreamConnectionOptions};
use crate::xds::pb::core::{
    self, BindConfig, ExtraSourceAddress, Http1ProtocolOptions, Http2ProtocolOptions, KeepaliveSettings, Metadata,
    RuntimeDouble, TransportSocket, TypedExtensionConfig, UpstreamHttpProtocolOptions,
};
use crate::xds::pb::dns_cluster::DnsCluster;
use crate::xds::pb::dns_lookup::DnsLookupFamily;
use crate::xds::pb::endpoint::ClusterLoadAssignment;
use crate::xds::pb::types::Percent;
use crate::xds::pb::upstream_http::HttpProtocolOptions;
use crate::xds::pb::upstream_http::http_protocol_options::explicit_http_config::ProtocolConfig;
use crate::xds::pb::upstream_http::http_protocol_options::{
    ExplicitHttpConfig, UpstreamProtocolOptions, UseDownstreamHttpConfig,
};
use crate::xds::pb::wkt::{UInt32Value, UInt64Value};
use crate::xds::resource::{Resource, ResourceType, Warming};

/// Istio's "no limit" of circuit breakers.
const UNLIMITED: u32 = u32::MAX;

/// The longest interval that Envoy takes: hosts of inbound clusters are as good as never cleaned up.
const NEVER: Duration = Duration::from_secs(9_223_372_035);

/// Spreads the lookups of proxies that started together, as in Istio.
const LOOKUP_JITTER: Duration = Duration::from_millis(100);

/// After how many queries a new socket is used, as in Istio.
const QUERIES_PER_SOCKET: u32 = 100;

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
    let (lb_policy, lb_config) = load_balancer(cluster);
    let (transport_socket, transport_socket_matches) = transport(&cluster.transport);
    cluster::Cluster {
        name: cluster.name.to_string(),
        // Stops the name in statistics where the tag extraction of Istio's bootstrap ends it.
        alt_stat_name: format!("{};", cluster.name),
        connect_timeout: Some(duration(cluster.connect_timeout)),
        lb_policy: lb_policy.into(),
        lb_config,
        common_lb_config: Some(common_lb(cluster)),
        circuit_breakers: Some(circuit_breakers(cluster.limits)),
        outlier_detection: cluster.outlier_detection.as_ref().map(outlier_detection),
        typed_extension_protocol_options: http_options(&cluster.http)
            .map(|options| (HTTP_OPTIONS.to_owned(), any(&options)))
            .into_iter()
            .collect(),
        upstream_bind_config: cluster.marked_source.then(inbound_source),
        upstream_connection_options: cluster.tcp_keepalive.map(keepalive),
        transport_socket,
        transport_socket_matches,
        metadata: metadata(&cluster.metadata),
        ..discovery(cluster)
    }
}

/// A cluster with the fields that say how its endpoints are found.
fn discovery(cluster: &Cluster) -> cluster::Cluster {
    match &cluster.discovery {
        Discovery::Eds => cluster::Cluster {
            eds_cluster_config: Some(EdsClusterConfig {
                eds_config: Some(ads()),
                service_name: cluster.name.to_string(),
            }),
            ..of_type(DiscoveryType::Eds)
        },
        Discovery::Static(endpoints) => with_endpoints(cluster, endpoints, of_type(DiscoveryType::Static)),
        Discovery::StrictDns(endpoints, lookup) => with_endpoints(cluster, endpoints, dns(lookup, false)),
        Discovery::LogicalDns(endpoints, lookup) => with_endpoints(cluster, endpoints, dns(lookup, true)),
        Discovery::OriginalDst { inbound: false, .. } => of_type(DiscoveryType::OriginalDst),
        Discovery::OriginalDst { inbound: true, .. } => cluster::Cluster {
            cleanup_interval: Some(duration(NEVER)),
            ..of_type(DiscoveryType::OriginalDst)
        },
    }
}

fn of_type(kind: DiscoveryType) -> cluster::Cluster {
    cluster::Cluster {
        cluster_discovery_type: Some(ClusterDiscoveryType::Type(kind.into())),
        ..Default::default()
    }
}

/// The extension, since the cluster's own DNS fields are deprecated.
fn dns(lookup: &Lookup, one_address: bool) -> cluster::Cluster {
    let family = match lookup.ipv6 {
        // IPv6 first, and IPv4 where there is none.
        true => DnsLookupFamily::Auto,
        false => DnsLookupFamily::V4Preferred,
    };
    let options = DnsCluster {
        dns_refresh_rate: Some(duration(lookup.refresh)),
        respect_dns_ttl: true,
        dns_jitter: Some(duration(LOOKUP_JITTER)),
        dns_lookup_family: family.into(),
        typed_dns_resolver_config: Some(resolver()),
        all_addresses_in_single_endpoint: one_address,
        ..Default::default()
    };
    cluster::Cluster {
        cluster_discovery_type: Some(ClusterDiscoveryType::ClusterType(CustomClusterType {
            name: "envoy.cluster.dns".to_owned(),
            typed_config: Some(any(&options)),
        })),
        ..Default::default()
    }
}

/// Envoy's own resolver, which gives up a socket now and then: one whose server went away would stay silent.
fn resolver() -> TypedExtensionConfig {
    let options = CaresDnsResolverConfig {
        udp_max_queries: Some(uint32(QUERIES_PER_SOCKET)),
        ..Default::default()
    };
    TypedExtensionConfig {
        name: "envoy.network.dns_resolver.cares".to_owned(),
        typed_config: Some(any(&options)),
    }
}

fn with_endpoints(cluster: &Cluster, endpoints: &ClusterEndpoints, message: cluster::Cluster) -> cluster::Cluster {
    cluster::Cluster {
        load_assignment: Some(ClusterLoadAssignment {
            cluster_name: cluster.name.to_string(),
            ..endpoints::message(endpoints)
        }),
        ..message
    }
}

/// Connections to the application come from an address by which interception knows them.
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

fn load_balancer(cluster: &Cluster) -> (LbPolicy, Option<LbConfig>) {
    match cluster.load_balancer {
        LoadBalancer::LeastRequest => {
            let config = |warmup| LeastRequestLbConfig {
                slow_start_config: Some(slow_start(warmup)),
                ..Default::default()
            };
            let config = cluster.warmup.map(config);
            (LbPolicy::LeastRequest, config.map(LbConfig::LeastRequestLbConfig))
        }
        LoadBalancer::RoundRobin => {
            let config = |warmup| RoundRobinLbConfig {
                slow_start_config: Some(slow_start(warmup)),
            };
            let config = cluster.warmup.map(config);
            (LbPolicy::RoundRobin, config.map(LbConfig::RoundRobinLbConfig))
        }
        LoadBalancer::Random => (LbPolicy::Random, None),
        LoadBalancer::Hash(HashTable::Ring(size)) => {
            let config = RingHashLbConfig {
                minimum_ring_size: Some(UInt64Value { value: size }),
                ..Default::default()
            };
            (LbPolicy::RingHash, Some(LbConfig::RingHashLbConfig(config)))
        }
        LoadBalancer::Hash(HashTable::Maglev(size)) => {
            let config = MaglevLbConfig {
                table_size: Some(UInt64Value { value: size }),
            };
            (LbPolicy::Maglev, Some(LbConfig::MaglevLbConfig(config)))
        }
        LoadBalancer::ClusterProvided => (LbPolicy::ClusterProvided, port_override(&cluster.discovery)),
    }
}

fn slow_start(warmup: Warmup) -> SlowStartConfig {
    SlowStartConfig {
        slow_start_window: Some(duration(warmup.duration)),
        aggression: warmup.aggression.map(|aggression| RuntimeDouble {
            default_value: aggression,
            ..Default::default()
        }),
        min_weight_percent: warmup.minimum.map(|share| Percent {
            value: f64::from(share.per_million()) / 10_000.0,
        }),
    }
}

fn port_override(discovery: &Discovery) -> Option<LbConfig> {
    let Discovery::OriginalDst { port: Some(port), .. } = discovery else {
        return None;
    };
    Some(LbConfig::OriginalDstLbConfig(OriginalDstLbConfig {
        upstream_port_override: Some(uint32(*port)),
        ..Default::default()
    }))
}

fn common_lb(cluster: &Cluster) -> CommonLbConfig {
    let weighted = LocalityConfigSpecifier::LocalityWeightedLbConfig(LocalityWeightedLbConfig {});
    CommonLbConfig {
        healthy_panic_threshold: Some(Percent {
            value: cluster.panic_threshold.into(),
        }),
        locality_config_specifier: cluster.locality_weighted.then_some(weighted),
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

/// Only what Istio has a field for ejects: success rates never do.
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

/// The HTTP options, where any differ from Envoy's: HTTP/1.1 without limits.
fn http_options(http: &UpstreamHttp) -> Option<HttpProtocolOptions> {
    if *http == UpstreamHttp::default() {
        return None;
    }
    let common = core::HttpProtocolOptions {
        idle_timeout: http.idle_timeout.map(duration),
        max_connection_duration: http.max_connection_duration.map(duration),
        max_requests_per_connection: http.max_requests_per_connection.map(uint32),
        ..Default::default()
    };
    let upstream = UpstreamHttpProtocolOptions {
        auto_sni: http.auto_sni,
        auto_san_validation: http.auto_san_validation,
        ..Default::default()
    };
    Some(HttpProtocolOptions {
        common_http_protocol_options: (common != core::HttpProtocolOptions::default()).then_some(common),
        upstream_http_protocol_options: (upstream != UpstreamHttpProtocolOptions::default()).then_some(upstream),
        upstream_protocol_options: Some(protocol(http)),
        ..Default::default()
    })
}

fn protocol(http: &UpstreamHttp) -> UpstreamProtocolOptions {
    let http2 = || Http2ProtocolOptions {
        max_concurrent_streams: http.max_concurrent_streams.map(uint32),
        connection_keepalive: http.keepalive.map(|(interval, timeout)| KeepaliveSettings {
            interval: Some(duration(interval)),
            timeout: Some(duration(timeout)),
            ..Default::default()
        }),
        ..Default::default()
    };
    let explicit = |config| {
        UpstreamProtocolOptions::ExplicitHttpConfig(ExplicitHttpConfig {
            protocol_config: Some(config),
        })
    };
    match http.version {
        HttpVersion::Http1 => explicit(ProtocolConfig::HttpProtocolOptions(Http1ProtocolOptions::default())),
        HttpVersion::Http2 => explicit(ProtocolConfig::Http2ProtocolOptions(http2())),
        HttpVersion::Downstream => UpstreamProtocolOptions::UseDownstreamProtocolConfig(UseDownstreamHttpConfig {
            http_protocol_options: Some(Http1ProtocolOptions::default()),
            http2_protocol_options: Some(http2()),
            ..Default::default()
        }),
    }
}

fn keepalive(keepalive: TcpKeepalive) -> UpstreamConnectionOptions {
    // Envoy counts whole seconds, and takes none for "the system's".
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

fn transport(transport: &Transport) -> (Option<TransportSocket>, Vec<TransportSocketMatch>) {
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

/// What Istio's tools look for.
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
    use crate::ir::cluster::{LbEndpoint, LocalityEndpoints, ServerIdentity, UpstreamTls};
    use crate::mesh::config::TlsVersion;
    use crate::mesh::service::{Address, Locality};
    use crate::name::Kind;
    use crate::xds::encode::testing::{cluster as plain, object, shown};

    fn http(http: UpstreamHttp) -> Value {
        let shown = shown(&cluster(&Cluster { http, ..plain("a") }));
        shown["typed_extension_protocol_options"][HTTP_OPTIONS].clone()
    }

    fn example_com() -> Arc<ClusterEndpoints> {
        Arc::new(ClusterEndpoints {
            localities: vec![LocalityEndpoints {
                locality: Locality::default(),
                priority: 0,
                weight: 1,
                endpoints: vec![LbEndpoint {
                    address: Address::Name("example.com".into()),
                    port: 443,
                    weight: 1,
                    healthy: true,
                    mutual_tls: false,
                    workload: None,
                }],
            }],
            ..Default::default()
        })
    }

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
    fn names_are_looked_up_by_the_extension() {
        let of = |discovery| {
            cluster(&Cluster {
                discovery,
                ..plain("a")
            })
        };
        let lookup = |ipv6| Lookup {
            refresh: Duration::from_secs(60),
            ipv6,
        };
        let strict = of(Discovery::StrictDns(example_com(), lookup(false)));
        assert_eq!(strict.warming, Warming::Dns);
        let strict = shown(&strict);
        assert_eq!(
            strict["cluster_type"],
            json!({"name": "envoy.cluster.dns", "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.clusters.dns.v3.DnsCluster",
                "dns_refresh_rate": "60s",
                "respect_dns_ttl": true,
                "dns_jitter": "0.100s",
                "typed_dns_resolver_config": {"name": "envoy.network.dns_resolver.cares", "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig",
                    "udp_max_queries": 100,
                }},
                "dns_lookup_family": "V4_PREFERRED",
            }})
        );
        assert_eq!(strict["load_assignment"]["cluster_name"], "a");
        let logical = shown(&of(Discovery::LogicalDns(example_com(), lookup(true))));
        let options = &logical["cluster_type"]["typed_config"];
        assert_eq!(options["all_addresses_in_single_endpoint"], true);
        assert_eq!(options["dns_lookup_family"], "AUTO");
    }

    #[test]
    fn inbound_connections_come_from_addresses_that_interception_knows() {
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
    fn load_balancers_have_their_options() {
        let hash = |table| {
            shown(&cluster(&Cluster {
                load_balancer: LoadBalancer::Hash(table),
                locality_weighted: true,
                panic_threshold: 10,
                ..plain("a")
            }))
        };
        let ring = hash(HashTable::Ring(1024));
        assert_eq!(ring["lb_policy"], "RING_HASH");
        assert_eq!(ring["ring_hash_lb_config"], json!({"minimum_ring_size": "1024"}));
        assert_eq!(
            ring["common_lb_config"],
            json!({"healthy_panic_threshold": {"value": 10.0}, "locality_weighted_lb_config": {}})
        );
        assert_eq!(
            hash(HashTable::Maglev(65537))["maglev_lb_config"],
            json!({"table_size": "65537"})
        );
    }

    #[test]
    fn new_endpoints_warm_up_where_they_are_asked_to() {
        let warm = |load_balancer, minimum, aggression| {
            let warmup = Warmup {
                duration: Duration::from_secs(60),
                minimum,
                aggression,
            };
            shown(&cluster(&Cluster {
                load_balancer,
                warmup: Some(warmup),
                ..plain("a")
            }))
        };
        let least = warm(
            LoadBalancer::LeastRequest,
            crate::name::Percent::new(12.5).ok(),
            Some(1.5),
        );
        assert_eq!(
            least["least_request_lb_config"],
            json!({"slow_start_config": {
                "slow_start_window": "60s",
                "aggression": {"default_value": 1.5},
                "min_weight_percent": {"value": 12.5},
            }})
        );
        assert_eq!(
            warm(LoadBalancer::RoundRobin, None, None)["round_robin_lb_config"],
            json!({"slow_start_config": {"slow_start_window": "60s"}})
        );
        let random = warm(LoadBalancer::Random, None, None);
        assert_eq!(random["lb_policy"], "RANDOM");
        assert!(random.get("slow_start_config").is_none());
    }

    #[test]
    fn http_options_are_only_there_where_they_say_something() {
        assert_eq!(http(UpstreamHttp::default()), Value::Null);
        let http2 = http(UpstreamHttp {
            version: HttpVersion::Http2,
            max_concurrent_streams: Some(100),
            keepalive: Some((Duration::from_secs(30), Duration::from_secs(5))),
            ..Default::default()
        });
        assert_eq!(
            http2["explicit_http_config"],
            json!({"http2_protocol_options": {
                "max_concurrent_streams": 100,
                "connection_keepalive": {"interval": "30s", "timeout": "5s"},
            }})
        );
        let downstream = http(UpstreamHttp {
            version: HttpVersion::Downstream,
            auto_sni: true,
            idle_timeout: Some(Duration::from_millis(500)),
            ..Default::default()
        });
        assert_eq!(
            downstream,
            json!({
                "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                "common_http_protocol_options": {"idle_timeout": "0.500s"},
                "upstream_http_protocol_options": {"auto_sni": true},
                "use_downstream_protocol_config": {"http_protocol_options": {}, "http2_protocol_options": {}},
            })
        );
    }

    #[test]
    fn zero_errors_turn_an_ejection_off_and_success_rates_never_eject() {
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
    fn automatic_mutual_tls_goes_by_the_endpoint() {
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
    fn istios_tools_find_what_they_look_for() {
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
