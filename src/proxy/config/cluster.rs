//! Compiling clusters.

mod dns;
mod health_check;
mod http;

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use super::value::{self, duration, fetch_timeout, number, unpack};
use super::{At, Compiled, Names, Refusal, endpoints, source, tls};
use crate::proxy::upstream::breaker::{Breakers, RetryBudget, Thresholds};
use crate::proxy::upstream::cluster::{
    ClusterConfig, Discovery, FailurePercentage, LbPolicy, OutlierConfig, SlowStart, SuccessRate, TcpKeepalive,
    Transport, TransportMatch, UpstreamHttp,
};
use crate::proxy::upstream::host::{Endpoints, HostAddress};
use crate::proxy::upstream::proxy_protocol::ProxyHeader;
use crate::xds::ResourceType;
use crate::xds::pb::ProxyProtocolUpstreamTransport;
use crate::xds::pb::cluster;
use crate::xds::pb::cluster::cluster::CommonLbConfig;
use crate::xds::pb::cluster::cluster::common_lb_config::LocalityConfigSpecifier;
use crate::xds::pb::cluster::cluster::ring_hash_lb_config::HashFunction;
use crate::xds::pb::cluster::cluster::{ClusterDiscoveryType, DiscoveryType, LbConfig, SlowStartConfig};
use crate::xds::pb::cluster::{OutlierDetection, circuit_breakers};
use crate::xds::pb::core::{BindConfig, Metadata, RoutingPriority, TransportSocket};
use crate::xds::pb::wkt;

const RAW_BUFFER: &str = "/envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer";
const PROXY_PROTOCOL: &str = "/envoy.extensions.transport_sockets.proxy_protocol.v3.ProxyProtocolUpstreamTransport";

/// Envoy's default.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const CLEANUP_INTERVAL: Duration = Duration::from_secs(5);

/// A compiled cluster, with its endpoints if they are inline.
#[derive(Debug)]
pub(crate) struct CompiledCluster {
    /// The configuration.
    pub(crate) config: ClusterConfig,
    /// Circuit breakers.
    pub(crate) breakers: Breakers,
    /// Inline endpoints.
    pub(crate) endpoints: Endpoints,
    /// How long the first EDS response is waited for; `None`: for ever.
    pub(crate) endpoints_timeout: Option<Duration>,
}

/// Decodes a `Cluster`, to be compiled by [`cluster`].
pub(crate) fn read(bytes: &[u8]) -> Compiled<cluster::Cluster> {
    super::read(ResourceType::Cluster, bytes)
}

/// Compiles a `Cluster`.
pub(crate) fn cluster(message: &cluster::Cluster, names: &mut Names) -> Compiled<CompiledCluster> {
    let lb = message.common_lb_config.as_ref();
    let panic = lb.and_then(|lb| lb.healthy_panic_threshold.as_ref());
    let given = message.load_assignment.as_ref();
    let endpoints = given
        .map(endpoints::endpoints)
        .transpose()
        .at("load_assignment")?
        .unwrap_or_default();
    let discovery = discovery(message, &endpoints)?;
    let by_server = names
        .servers
        .as_ref()
        .is_none_or(|servers| servers.contains(&message.name));
    let http = http::options(message, by_server)?;
    let health_check = health_check::of(message, &discovery, &http)?.map(Arc::new);
    let locality = lb.and_then(|lb| lb.locality_config_specifier.as_ref());
    let stat_name = if message.alt_stat_name.is_empty() {
        &message.name
    } else {
        &message.alt_stat_name
    };
    let config = ClusterConfig {
        name: message.name.as_str().into(),
        stat_name: stat_name.as_str().into(),
        via_api: true,
        connect_timeout: message.connect_timeout.as_ref().map_or(CONNECT_TIMEOUT, duration),
        policy: policy(message)?,
        slow_start: slow_start(message)?,
        panic_threshold: panic.map_or(50.0, |percent| percent.value),
        locality_weighted: matches!(locality, Some(LocalityConfigSpecifier::LocalityWeightedLbConfig(_))),
        transports: transports(message, &http, names)?,
        transport: transport(message.transport_socket.as_ref(), &http, names).at("transport_socket")?,
        unmatched: AtomicU64::default(),
        http,
        tcp_keepalive: keepalive(message),
        source: message
            .upstream_bind_config
            .as_ref()
            .map_or(Ok(Vec::new()), source)
            .at("upstream_bind_config")?,
        outlier: message.outlier_detection.as_ref().map(outlier),
        health_check,
        discovery,
    };
    let eds = message.eds_cluster_config.as_ref();
    Ok(CompiledCluster {
        config,
        breakers: breakers(message),
        endpoints,
        endpoints_timeout: fetch_timeout(eds.and_then(|eds| eds.eds_config.as_ref())),
    })
}

fn discovery(message: &cluster::Cluster, endpoints: &Endpoints) -> Compiled<Discovery> {
    let kind = match message.cluster_discovery_type.as_ref() {
        Some(ClusterDiscoveryType::ClusterType(custom)) => {
            let any = custom
                .typed_config
                .as_ref()
                .ok_or_else(|| Refusal::new("a configuration is required"))?;
            return dns::extension(&unpack(any).at("cluster_type")?, endpoints).map(Discovery::Dns);
        }
        Some(ClusterDiscoveryType::Type(kind)) => DiscoveryType::try_from(*kind).unwrap_or(DiscoveryType::Static),
        None => DiscoveryType::Static,
    };
    Ok(match kind {
        DiscoveryType::Static => Discovery::Static,
        DiscoveryType::Eds => {
            let eds = message.eds_cluster_config.as_ref();
            source::aggregated(eds.and_then(|eds| eds.eds_config.as_ref())).at("eds_cluster_config.eds_config")?;
            let name = eds.map_or("", |eds| &eds.service_name);
            Discovery::Eds(if name.is_empty() { &message.name } else { name }.into())
        }
        DiscoveryType::StrictDns => Discovery::Dns(dns::older(message, false, endpoints)?),
        DiscoveryType::LogicalDns => Discovery::Dns(dns::older(message, true, endpoints)?),
        DiscoveryType::OriginalDst => {
            let port = match message.lb_config.as_ref() {
                Some(LbConfig::OriginalDstLbConfig(config)) if config.use_http_header => {
                    return Err(Refusal::not_implemented("use_http_header")).at("original_dst_lb_config");
                }
                Some(LbConfig::OriginalDstLbConfig(config)) => number(config.upstream_port_override.as_ref(), 0),
                _ => 0,
            };
            let cleanup = message.cleanup_interval.as_ref().map_or(CLEANUP_INTERVAL, duration);
            Discovery::OriginalDst(u16::try_from(port).ok().filter(|port| *port != 0), cleanup)
        }
    })
}

fn policy(message: &cluster::Cluster) -> Compiled<LbPolicy> {
    use cluster::cluster::LbPolicy as Policy;
    if let Some(lb) = &message.common_lb_config {
        hashing(lb).at("common_lb_config")?;
    }
    if let Some(LbConfig::RingHashLbConfig(config)) = &message.lb_config
        && config.hash_function() != HashFunction::XxHash
    {
        return Err(Refusal::not_implemented("another than XX_HASH")).at("ring_hash_lb_config.hash_function");
    }
    Ok(match (message.lb_policy(), message.lb_config.as_ref()) {
        (Policy::RoundRobin, _) => LbPolicy::RoundRobin,
        (Policy::LeastRequest, Some(LbConfig::LeastRequestLbConfig(config))) => LbPolicy::LeastRequest {
            choices: number(config.choice_count.as_ref(), 2),
        },
        (Policy::LeastRequest, _) => LbPolicy::LeastRequest { choices: 2 },
        (Policy::Random, _) => LbPolicy::Random,
        (Policy::RingHash, Some(LbConfig::RingHashLbConfig(config))) => LbPolicy::RingHash {
            min: config.minimum_ring_size.as_ref().map_or(1024, |size| size.value),
            max: config.maximum_ring_size.as_ref().map_or(8 << 20, |size| size.value),
        },
        (Policy::RingHash, _) => LbPolicy::RingHash {
            min: 1024,
            max: 8 << 20,
        },
        (Policy::Maglev, Some(LbConfig::MaglevLbConfig(config))) => LbPolicy::Maglev {
            table: table_size(config.table_size.as_ref().map_or(65537, |size| size.value))
                .at("maglev_lb_config.table_size")?,
        },
        (Policy::Maglev, _) => LbPolicy::Maglev { table: 65537 },
        (Policy::ClusterProvided, _) => LbPolicy::ClusterProvided,
        (Policy::LoadBalancingPolicyConfig, _) => return Err(Refusal::not_implemented("load_balancing_policy")),
    })
}

/// Slow start, for the policies that support it.
fn slow_start(message: &cluster::Cluster) -> Compiled<Option<SlowStart>> {
    use cluster::cluster::LbPolicy as Policy;
    let (field, config) = match (message.lb_policy(), message.lb_config.as_ref()) {
        (Policy::RoundRobin, Some(LbConfig::RoundRobinLbConfig(config))) => {
            ("round_robin_lb_config", config.slow_start_config.as_ref())
        }
        (Policy::LeastRequest, Some(LbConfig::LeastRequestLbConfig(config))) => {
            ("least_request_lb_config", config.slow_start_config.as_ref())
        }
        _ => return Ok(None),
    };
    let compiled = config.map(slow_start_config).transpose();
    Ok(compiled.at("slow_start_config").at(field)?.flatten())
}

fn slow_start_config(message: &SlowStartConfig) -> Compiled<Option<SlowStart>> {
    let aggression = message.aggression.as_ref().map_or(1.0, |one| one.default_value);
    // Envoy accepts any value and uses 1 for senseless ones, which is not what their author wants.
    if aggression.is_nan() || aggression <= 0.0 {
        return Err(Refusal::new(format!("{aggression} is not greater than zero")).within("aggression"));
    }
    let least = message
        .min_weight_percent
        .as_ref()
        .map_or(10.0, |percent| percent.value);
    let window = message.slow_start_window.as_ref().map_or(Duration::ZERO, duration);
    Ok((!window.is_zero()).then_some(SlowStart {
        window,
        aggression,
        least: (least / 100.0).clamp(0.0, 1.0),
    }))
}

fn hashing(lb: &CommonLbConfig) -> Compiled<()> {
    let Some(hashing) = &lb.consistent_hashing_lb_config else {
        return Ok(());
    };
    if hashing.use_hostname_for_hashing || hashing.hash_balance_factor.is_some() {
        return Err(Refusal::not_implemented("other than the defaults")).at("consistent_hashing_lb_config");
    }
    Ok(())
}

/// Envoy accepts primes up to 5000011.
fn table_size(size: u64) -> Compiled<u64> {
    let is_prime = size >= 2
        && (2..)
            .take_while(|one| one * one <= size)
            .all(|one| !size.is_multiple_of(one));
    if is_prime && size <= 5_000_011 {
        Ok(size)
    } else {
        Err(Refusal::new(format!("{size} is not a prime number up to 5000011")))
    }
}

/// Outlier detection, with Envoy's defaults.
fn outlier(message: &OutlierDetection) -> OutlierConfig {
    let of = |value: &Option<wkt::UInt32Value>, default| number(value.as_ref(), default);
    let time = |value: &Option<wkt::Duration>, seconds| value.as_ref().map_or(Duration::from_secs(seconds), duration);
    let base_ejection = time(&message.base_ejection_time, 30);
    OutlierConfig {
        consecutive_5xx: (
            of(&message.consecutive_5xx, 5),
            of(&message.enforcing_consecutive_5xx, 100),
        ),
        consecutive_gateway: (
            of(&message.consecutive_gateway_failure, 5),
            of(&message.enforcing_consecutive_gateway_failure, 0),
        ),
        consecutive_local: (
            of(&message.consecutive_local_origin_failure, 5),
            of(&message.enforcing_consecutive_local_origin_failure, 100),
        ),
        split_local: message.split_external_local_origin_errors,
        interval: time(&message.interval, 10),
        base_ejection,
        max_ejection: time(&message.max_ejection_time, 300).max(base_ejection),
        max_percent: of(&message.max_ejection_percent, 10),
        always_one: value::truth(message.always_eject_one_host.as_ref(), false),
        uneject_checked: value::truth(message.successful_active_health_check_uneject_host.as_ref(), true),
        success_rate: SuccessRate {
            enforcing: of(&message.enforcing_success_rate, 100),
            enforcing_local: of(&message.enforcing_local_origin_success_rate, 100),
            minimum_hosts: of(&message.success_rate_minimum_hosts, 5),
            request_volume: of(&message.success_rate_request_volume, 100),
            stdev_factor: of(&message.success_rate_stdev_factor, 1900),
        },
        failure_percentage: FailurePercentage {
            enforcing: of(&message.enforcing_failure_percentage, 0),
            enforcing_local: of(&message.enforcing_failure_percentage_local_origin, 0),
            threshold: of(&message.failure_percentage_threshold, 85),
            minimum_hosts: of(&message.failure_percentage_minimum_hosts, 5),
            request_volume: of(&message.failure_percentage_request_volume, 50),
        },
    }
}

fn breakers(message: &cluster::Cluster) -> Breakers {
    let thresholds = message
        .circuit_breakers
        .as_ref()
        .map_or(&[][..], |breakers| &breakers.thresholds);
    let of = |priority: RoutingPriority| {
        let found = thresholds.iter().find(|one| one.priority() == priority);
        found.map_or_else(Thresholds::default, self::thresholds)
    };
    Breakers::new(of(RoutingPriority::Default), of(RoutingPriority::High))
}

fn thresholds(message: &circuit_breakers::Thresholds) -> Thresholds {
    let default = Thresholds::default();
    Thresholds {
        connections: number(message.max_connections.as_ref(), default.connections),
        pending: number(message.max_pending_requests.as_ref(), default.pending),
        requests: number(message.max_requests.as_ref(), default.requests),
        retries: number(message.max_retries.as_ref(), default.retries),
        tells_rest: message.track_remaining,
        budget: message.retry_budget.as_ref().map(|budget| RetryBudget {
            percent: budget.budget_percent.as_ref().map_or(20.0, |percent| percent.value),
            min_concurrency: number(budget.min_retry_concurrency.as_ref(), 3),
        }),
    }
}

fn transports(message: &cluster::Cluster, http: &UpstreamHttp, names: &mut Names) -> Compiled<Vec<TransportMatch>> {
    let matches = message.transport_socket_matches.iter().enumerate();
    matches
        .map(|(index, one)| {
            Ok(TransportMatch {
                name: one.name.as_str().into(),
                labels: one.r#match.as_ref().map(labels).unwrap_or_default(),
                transport: transport(one.transport_socket.as_ref(), http, names)
                    .at_index("transport_socket_matches", index)?,
                matched: AtomicU64::default(),
            })
        })
        .collect()
}

/// The string fields of a `Struct`.
fn labels(structure: &wkt::Struct) -> Vec<(String, String)> {
    let pairs = structure
        .fields
        .iter()
        .filter_map(|(key, value)| match value.kind.as_ref() {
            Some(wkt::value::Kind::StringValue(text)) => Some((key.clone(), text.clone())),
            _ => None,
        });
    pairs.collect()
}

/// `envoy.transport_socket_match` of an endpoint's metadata.
pub(crate) fn transport_labels(metadata: Option<&Metadata>) -> Vec<(String, String)> {
    let found = metadata.and_then(|metadata| metadata.filter_metadata.get("envoy.transport_socket_match"));
    found.map(labels).unwrap_or_default()
}

fn transport(socket: Option<&TransportSocket>, http: &UpstreamHttp, names: &mut Names) -> Compiled<Transport> {
    let Some(crate::xds::pb::core::transport_socket::ConfigType::TypedConfig(any)) =
        socket.and_then(|socket| socket.config_type.as_ref())
    else {
        return Ok(Transport::default());
    };
    if any.type_url.ends_with(RAW_BUFFER) {
        return Ok(Transport::default());
    }
    if any.type_url.ends_with(PROXY_PROTOCOL) {
        let outer: ProxyProtocolUpstreamTransport = unpack(any)?;
        let inner = transport(outer.transport_socket.as_ref(), http, names).at("transport_socket")?;
        if inner.proxy_header.is_some() {
            return Err(Refusal::not_implemented("one PROXY protocol in another").within("transport_socket"));
        }
        return Ok(Transport {
            proxy_header: Some(outer.config.as_ref().map_or(ProxyHeader::V1, value::proxy_header)),
            ..inner
        });
    }
    let tls = tls::upstream(&unpack(any)?, http.auto_san_validation, names)?;
    Ok(Transport {
        tls: Some(Arc::new(tls)),
        ..Transport::default()
    })
}

fn keepalive(message: &cluster::Cluster) -> Option<TcpKeepalive> {
    let keepalive = message.upstream_connection_options.as_ref()?.tcp_keepalive.as_ref()?;
    let seconds = |value: Option<&wkt::UInt32Value>| value.map(|value| Duration::from_secs(value.value.into()));
    Some(TcpKeepalive {
        probes: keepalive.keepalive_probes.as_ref().map(|probes| probes.value),
        time: seconds(keepalive.keepalive_time.as_ref()),
        interval: seconds(keepalive.keepalive_interval.as_ref()),
    })
}

fn source(message: &BindConfig) -> Compiled<Vec<std::net::SocketAddr>> {
    let first = message.source_address.iter();
    let extra = message
        .extra_source_addresses
        .iter()
        .filter_map(|extra| extra.address.as_ref());
    first
        .chain(extra)
        .map(|socket| {
            let address = crate::xds::pb::core::Address {
                address: Some(crate::xds::pb::core::address::Address::SocketAddress(socket.clone())),
            };
            match value::host_address(Some(&address))? {
                HostAddress::Ip(address) => Ok(address),
                HostAddress::Unix(_) => Err(Refusal::new("an IP address is required")),
            }
        })
        .collect()
}
