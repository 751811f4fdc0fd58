//! Filters, one module each. A filter module has Envoy's registered name and the configuration;
//! this module assembles the chains.

mod cors;
mod fault;
mod grpc_stats;
mod grpc_web;
mod http_connection_manager;
mod http_inspector;
mod original_dst;
mod original_src;
mod router;
mod set_filter_state;
mod tcp_proxy;
mod tls_inspector;

use std::collections::HashMap;

use super::value::any;
use crate::ir::listener::{HttpFilter, InspectExcept, Inspection, NetworkFilter};
use crate::ir::route::Route;
use crate::xds::pb::listener::listener_filter_chain_match_predicate::{MatchSet, Rule};
use crate::xds::pb::listener::{
    Filter, ListenerFilter, ListenerFilterChainMatchPredicate, filter as network_filter, listener_filter,
};
use crate::xds::pb::network_filter::http_connection_manager as hcm;
use crate::xds::pb::types::Int32Range;
use crate::xds::pb::wkt::Any;

/// Listener filters, in Istio's order.
pub(super) fn listener(inspection: &Inspection) -> Vec<ListenerFilter> {
    let original_dst = inspection
        .original_dst
        .then(|| listener_filter(original_dst::NAME, any(&original_dst::config()), None));
    let original_src = inspection
        .original_src_mark
        .map(|mark| listener_filter(original_src::NAME, any(&original_src::config(mark)), None));
    let tls = inspection
        .tls
        .as_ref()
        .map(|except| listener_filter(tls_inspector::NAME, any(&tls_inspector::config()), Some(except)));
    let http = inspection
        .http
        .as_ref()
        .map(|except| listener_filter(http_inspector::NAME, any(&http_inspector::config()), Some(except)));
    [original_dst, original_src, tls, http].into_iter().flatten().collect()
}

/// The terminal network filter of a chain.
pub(super) fn network(filter: &NetworkFilter) -> Filter {
    let (name, config) = match filter {
        NetworkFilter::Http(manager) => (
            http_connection_manager::NAME,
            any(&http_connection_manager::config(manager)),
        ),
        NetworkFilter::Tcp(proxy) => (tcp_proxy::NAME, any(&tcp_proxy::config(proxy))),
    };
    Filter {
        name: name.to_owned(),
        config_type: Some(network_filter::ConfigType::TypedConfig(config)),
    }
}

/// HTTP filters of a connection manager, the router last.
fn http(filters: &[HttpFilter]) -> Vec<hcm::HttpFilter> {
    let mut chain: Vec<_> = filters.iter().map(http_filter).collect();
    chain.push(named(router::NAME, any(&router::config())));
    chain
}

/// Per-route filter configuration (`typed_per_filter_config`).
pub(super) fn per_route(route: &Route) -> HashMap<String, Any> {
    let fault = route
        .fault
        .as_ref()
        .map(|fault| (fault::NAME.to_owned(), any(&fault::per_route(fault))));
    let cors = route
        .cors
        .as_ref()
        .map(|cors| (cors::NAME.to_owned(), any(&cors::per_route(cors))));
    fault.into_iter().chain(cors).collect()
}

fn http_filter(filter: &HttpFilter) -> hcm::HttpFilter {
    match filter {
        HttpFilter::GrpcWeb => named(grpc_web::NAME, any(&grpc_web::config())),
        HttpFilter::GrpcStats => named(grpc_stats::NAME, any(&grpc_stats::config())),
        HttpFilter::UpstreamAlpn(protocols) => {
            named(set_filter_state::NAME, any(&set_filter_state::upstream_alpn(protocols)))
        }
        HttpFilter::Fault => named(fault::NAME, any(&fault::config())),
        HttpFilter::Cors => named(cors::NAME, any(&cors::config())),
    }
}

fn named(name: &str, config: Any) -> hcm::HttpFilter {
    hcm::HttpFilter {
        name: name.to_owned(),
        config_type: Some(hcm::http_filter::ConfigType::TypedConfig(config)),
        ..Default::default()
    }
}

fn listener_filter(name: &str, config: Any, except: Option<&InspectExcept>) -> ListenerFilter {
    ListenerFilter {
        name: name.to_owned(),
        filter_disabled: except.and_then(on_ports),
        config_type: Some(listener_filter::ConfigType::TypedConfig(config)),
    }
}

/// Predicate for connections to one of the ports; `None` if there are none. Envoy requires at least
/// two members in `or_match`.
fn on_ports(ports: &InspectExcept) -> Option<ListenerFilterChainMatchPredicate> {
    let mut rules: Vec<_> = ports.0.iter().map(|port| on_port(*port)).collect();
    if rules.len() < 2 {
        return rules.pop();
    }
    Some(ListenerFilterChainMatchPredicate {
        rule: Some(Rule::OrMatch(MatchSet { rules })),
    })
}

fn on_port(port: u16) -> ListenerFilterChainMatchPredicate {
    let range = Int32Range {
        start: port.into(),
        end: i32::from(port) + 1,
    };
    ListenerFilterChainMatchPredicate {
        rule: Some(Rule::DestinationPortRange(range)),
    }
}
