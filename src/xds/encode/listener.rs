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

/// How long a TLS handshake may take on an outbound chain, as in Istio.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(15);

/// The resource for a listener.
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
        // What cannot be told in time goes to the chain that asks for nothing.
        continue_on_listener_filters_timeout: !listener_filters.is_empty(),
        listener_filters_timeout: inspection.timeout.map(duration),
        listener_filters,
        filter_chains: listener.chains.iter().map(chain).collect(),
        default_filter_chain: listener.default_chain.as_ref().map(chain),
        ..binding(listener)
    }
}

/// Whether and how a socket is bound.
fn binding(listener: &Listener) -> listener::Listener {
    if !listener.bind {
        return listener::Listener {
            bind_to_port: Some(boolean(false)),
            ..Default::default()
        };
    }
    // Without interception several proxies share a host: what is in use already must be an error,
    // not a socket that gets every other connection.
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

/// The clusters that a listener names itself, not through a route configuration of its own.
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
