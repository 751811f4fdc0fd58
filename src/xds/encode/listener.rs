//! Listeners (LDS).

use std::time::Duration;

use ipnet::IpNet;

use super::value::{boolean, duration, ip_address, pipe, strings, uint32};
use super::{filter, route, tls};
use crate::ir::ResourceName;
use crate::ir::listener::{
    ChainMatch, Direction, FilterChain, ListenAddress, Listener, NetworkFilter, RouteSource, TransportProtocol,
};
use crate::xds::pb::core::{Address, CidrRange, TrafficDirection};
use crate::xds::pb::listener::{self, FilterChainMatch};
use crate::xds::resource::{Resource, ResourceType};

/// TLS handshake timeout (`transport_socket_connect_timeout`) of outbound chains, as in Istio.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(15);

/// The LDS resource of a listener.
pub fn listener(listener: &Listener) -> Resource {
    super::seal(
        ResourceType::Listener,
        &listener.name,
        &message(listener),
        &listener.origins,
    )
    .naming(clusters(listener))
}

fn message(listener: &Listener) -> listener::Listener {
    let inspection = &listener.inspection;
    let listener_filters = filter::listener(inspection);
    let chain = |chain| filter_chain(chain, listener.direction);
    listener::Listener {
        name: listener.name.to_string(),
        address: Some(address(&listener.address)),
        traffic_direction: direction(listener.direction).into(),
        use_original_dst: listener.use_original_dst.then(|| boolean(true)),
        transparent: listener.transparent.then(|| boolean(true)),
        // On timeout, connections are matched without the inspectors' results.
        continue_on_listener_filters_timeout: !listener_filters.is_empty(),
        listener_filters_timeout: inspection.timeout.map(duration),
        listener_filters,
        filter_chains: listener.chains.iter().map(chain).collect(),
        default_filter_chain: listener.default_chain.as_ref().map(chain),
        ..binding(listener)
    }
}

/// Socket binding.
fn binding(listener: &Listener) -> listener::Listener {
    if !listener.bind {
        return listener::Listener {
            bind_to_port: Some(boolean(false)),
            ..Default::default()
        };
    }
    // Without interception several proxies may share a host: a port in use must be an error instead
    // of a socket that shares connections by `SO_REUSEPORT`.
    let intercepts = listener.use_original_dst || listener.inspection.original_dst;
    listener::Listener {
        enable_reuse_port: (!intercepts).then(|| boolean(false)),
        max_connections_to_accept_per_socket_event: Some(uint32(1_u32)),
        ..Default::default()
    }
}

fn address(address: &ListenAddress) -> Address {
    match address {
        ListenAddress::Ip(ip, port) => ip_address(*ip, *port),
        ListenAddress::Unix(path) => pipe(path),
    }
}

fn direction(direction: Direction) -> TrafficDirection {
    match direction {
        Direction::Inbound => TrafficDirection::Inbound,
        Direction::Outbound => TrafficDirection::Outbound,
    }
}

fn filter_chain(chain: &FilterChain, direction: Direction) -> listener::FilterChain {
    let handshake = match direction {
        Direction::Inbound => None,
        Direction::Outbound => Some(duration(HANDSHAKE_TIMEOUT)),
    };
    listener::FilterChain {
        name: chain.name.as_deref().unwrap_or_default().to_owned(),
        filter_chain_match: chain_match(&chain.matcher),
        transport_socket: chain.tls.as_ref().map(tls::downstream),
        transport_socket_connect_timeout: handshake,
        filters: vec![filter::network(&chain.network)],
        ..Default::default()
    }
}

fn chain_match(matcher: &ChainMatch) -> Option<FilterChainMatch> {
    let transport = matcher.transport.map(|transport| match transport {
        TransportProtocol::RawBuffer => "raw_buffer",
        TransportProtocol::Tls => "tls",
    });
    let message = FilterChainMatch {
        destination_port: matcher.destination_port.map(uint32),
        prefix_ranges: matcher.prefix_ranges.iter().map(range).collect(),
        server_names: strings(&matcher.server_names),
        transport_protocol: transport.unwrap_or_default().to_owned(),
        application_protocols: matcher.application_protocols.iter().map(ToString::to_string).collect(),
        ..Default::default()
    };
    (message != FilterChainMatch::default()).then_some(message)
}

fn range(network: &IpNet) -> CidrRange {
    CidrRange {
        address_prefix: network.network().to_string(),
        prefix_len: Some(uint32(network.prefix_len())),
    }
}

/// Clusters referred to by the listener itself, not by RDS.
fn clusters(listener: &Listener) -> Vec<ResourceName> {
    let chains = listener.chains.iter().chain(&listener.default_chain);
    let mut clusters = Vec::new();
    for chain in chains {
        match &chain.network {
            NetworkFilter::Tcp(proxy) => clusters.extend(proxy.clusters.iter().map(|(name, _)| name.clone())),
            NetworkFilter::Http(manager) => match &manager.routes {
                RouteSource::Inline(config) => clusters.extend(route::clusters(config)),
                RouteSource::Rds(_) => {}
            },
        }
    }
    clusters
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::{Value, json};

    use super::*;
    use crate::ir::listener::{HttpConnectionManager, HttpRole, InspectExcept, Inspection};
    use crate::mesh::config::PathNormalization;
    use crate::xds::encode::testing::{chain, listener as plain, route, route_config, shown, tcp_proxy};

    #[test]
    fn an_unbound_listener_does_not_bind_to_its_port() {
        assert_eq!(
            shown(&listener(&plain("0.0.0.0_9080"))),
            json!({
                "name": "0.0.0.0_9080",
                "address": {"socket_address": {"address": "0.0.0.0", "port_value": 9080}},
                "filter_chains": [{
                    "filters": [{
                        "name": "envoy.filters.network.tcp_proxy",
                        "typed_config": {
                            "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
                            "stat_prefix": "tcp",
                            "cluster": "PassthroughCluster",
                        },
                    }],
                    "transport_socket_connect_timeout": "15s",
                }],
                "traffic_direction": "OUTBOUND",
                "bind_to_port": false,
            })
        );
    }

    #[test]
    fn reuse_port_is_enabled_only_with_interception() {
        let bound = |use_original_dst| {
            let listener = listener(&Listener {
                bind: true,
                use_original_dst,
                ..plain("a")
            });
            shown(&listener)
        };
        let own = bound(false);
        assert_eq!(own["enable_reuse_port"], false);
        assert_eq!(own["max_connections_to_accept_per_socket_event"], 1);
        assert_eq!(own["bind_to_port"], Value::Null);
        let intercepting = bound(true);
        assert_eq!(intercepting["enable_reuse_port"], Value::Null);
        assert_eq!(intercepting["use_original_dst"], true);
    }

    #[test]
    fn inspectors_can_be_disabled_per_port() {
        let inspection = Inspection {
            original_dst: true,
            original_src_mark: Some(1337),
            tls: Some(InspectExcept(vec![80, 81])),
            http: Some(InspectExcept(vec![443])),
            timeout: Some(Duration::ZERO),
        };
        let shown = shown(&listener(&Listener {
            inspection,
            ..plain("a")
        }));
        assert_eq!(shown["listener_filters_timeout"], "0s");
        assert_eq!(shown["continue_on_listener_filters_timeout"], true);
        let filters = shown["listener_filters"].as_array().unwrap();
        let names: Vec<_> = filters.iter().map(|filter| filter["name"].as_str().unwrap()).collect();
        let prefix = "envoy.filters.listener";
        assert_eq!(
            names,
            ["original_dst", "original_src", "tls_inspector", "http_inspector"].map(|name| format!("{prefix}.{name}"))
        );
        assert_eq!(filters[1]["typed_config"]["mark"], 1337);
        assert_eq!(
            filters[2]["filter_disabled"],
            json!({"or_match": {"rules": [
                {"destination_port_range": {"start": 80, "end": 81}},
                {"destination_port_range": {"start": 81, "end": 82}},
            ]}})
        );
        assert_eq!(
            filters[3]["filter_disabled"],
            json!({"destination_port_range": {"start": 443, "end": 444}})
        );
    }

    #[test]
    fn chain_matches_have_all_criteria() {
        let matcher = ChainMatch {
            destination_port: Some(8080),
            prefix_ranges: vec!["10.1.2.3/8".parse().unwrap()],
            server_names: vec!["*.example.com".into()],
            transport: Some(TransportProtocol::Tls),
            application_protocols: vec!["istio-h2"],
        };
        let named = FilterChain {
            name: Some("0.0.0.0_8080".into()),
            matcher,
            ..chain()
        };
        let listener = listener(&Listener {
            direction: Direction::Inbound,
            chains: vec![named],
            default_chain: Some(chain()),
            ..plain("a")
        });
        let shown = shown(&listener);
        let first = &shown["filter_chains"][0];
        assert_eq!(first["name"], "0.0.0.0_8080");
        assert_eq!(first["transport_socket_connect_timeout"], Value::Null);
        assert_eq!(
            first["filter_chain_match"],
            json!({
                "destination_port": 8080,
                "prefix_ranges": [{"address_prefix": "10.0.0.0", "prefix_len": 8}],
                "server_names": ["*.example.com"],
                "transport_protocol": "tls",
                "application_protocols": ["istio-h2"],
            })
        );
        assert_eq!(shown["default_filter_chain"]["filter_chain_match"], Value::Null);
    }

    #[test]
    fn clusters_of_chains_and_inline_routes_are_recorded() {
        let http = |routes| FilterChain {
            network: NetworkFilter::Http(Box::new(HttpConnectionManager {
                stat_prefix: "a".into(),
                routes,
                filters: vec![],
                role: HttpRole::Client,
                path_normalization: PathNormalization::Base,
            })),
            ..chain()
        };
        let inline = RouteSource::Inline(Arc::new(route_config("inline", vec![route()])));
        let listener = listener(&Listener {
            chains: vec![http(inline)],
            default_chain: Some(FilterChain {
                network: NetworkFilter::Tcp(tcp_proxy(&[("b", 1), ("a", 2)])),
                ..chain()
            }),
            ..plain("a")
        });
        let names: Vec<_> = listener.clusters.iter().map(|name| &**name).collect();
        assert_eq!(names, ["a", "b", "reviews"]);
    }
}
