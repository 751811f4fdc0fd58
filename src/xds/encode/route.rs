//! Route configurations (RDS, and within listeners).

mod action;
mod matcher;

use std::collections::HashMap;

use super::filter;
use super::value::{boolean, config_path, strings, structure, text, uint32};
use crate::ir::ResourceName;
use crate::ir::route::{Route, RouteAction, RouteConfig, VirtualHost};
use crate::mesh::virtual_service::HeaderOps;
use crate::xds::pb::core::header_value_option::HeaderAppendAction;
use crate::xds::pb::core::{HeaderValue, HeaderValueOption, Metadata};
use crate::xds::pb::route::{self, Decorator, RouteConfiguration};
use crate::xds::resource::{Resource, ResourceType};

/// The largest body a route may answer with itself; Istio's validation has the same limit.
const MAX_DIRECT_RESPONSE_BYTES: u32 = 1 << 20;

/// The resource for a route configuration.
pub fn route(config: &RouteConfig) -> Resource {
    super::seal(ResourceType::Route, &config.name, &message(config), &config.origins).naming(clusters(config))
}

/// The route configuration, for a resource of its own or within a listener.
pub(super) fn message(config: &RouteConfig) -> RouteConfiguration {
    RouteConfiguration {
        name: config.name.to_string(),
        virtual_hosts: config.virtual_hosts.iter().map(|host| virtual_host(host)).collect(),
        // A route may come before its cluster, and outlive it.
        validate_clusters: Some(boolean(false)),
        max_direct_response_body_size_bytes: Some(uint32(MAX_DIRECT_RESPONSE_BYTES)),
        ignore_port_in_host_matching: config.ignore_port,
        ..Default::default()
    }
}

/// The clusters that requests are sent to, mirrors included.
pub(super) fn clusters(config: &RouteConfig) -> Vec<ResourceName> {
    let routes = config.virtual_hosts.iter().flat_map(|host| &host.routes);
    let forwards = routes.filter_map(|route| match &route.action {
        RouteAction::Forward(forward) => Some(forward),
        RouteAction::Redirect(_) | RouteAction::Direct(_) => None,
    });
    forwards
        .flat_map(|forward| {
            let destinations = forward.clusters.iter().map(|cluster| &cluster.cluster);
            destinations.chain(forward.mirrors.iter().map(|(name, _)| name))
        })
        .cloned()
        .collect()
}

fn virtual_host(host: &VirtualHost) -> route::VirtualHost {
    route::VirtualHost {
        name: host.name.to_string(),
        domains: strings(&host.domains),
        routes: host.routes.iter().map(route_entry).collect(),
        include_request_attempt_count: host.attempt_count,
        ..Default::default()
    }
}

fn route_entry(route: &Route) -> route::Route {
    let operation = (!route.operation.is_empty()).then(|| Decorator {
        operation: route.operation.to_string(),
        ..Default::default()
    });
    route::Route {
        name: route.name.to_string(),
        r#match: Some(matcher::route_match(&route.matcher)),
        action: Some(action::action(&route.action)),
        metadata: metadata(route),
        decorator: operation,
        request_headers_to_add: to_add(&route.request_headers),
        request_headers_to_remove: strings(&route.request_headers.remove),
        response_headers_to_add: to_add(&route.response_headers),
        response_headers_to_remove: strings(&route.response_headers.remove),
        typed_per_filter_config: filter::per_route(route),
        stat_prefix: route.stat_prefix.to_string(),
        ..Default::default()
    }
}

/// Headers to set, then headers to add.
fn to_add(headers: &HeaderOps) -> Vec<HeaderValueOption> {
    let option = |(name, value): &(_, _), action: HeaderAppendAction| HeaderValueOption {
        header: Some(header(name, value)),
        append_action: action.into(),
        ..Default::default()
    };
    let set = headers
        .set
        .iter()
        .map(|pair| option(pair, HeaderAppendAction::OverwriteIfExistsOrAdd));
    let add = headers
        .add
        .iter()
        .map(|pair| option(pair, HeaderAppendAction::AppendIfExistsOrAdd));
    set.chain(add).collect()
}

fn header(name: &std::sync::Arc<str>, value: &std::sync::Arc<str>) -> HeaderValue {
    HeaderValue {
        key: name.to_string(),
        value: value.to_string(),
        ..Default::default()
    }
}

/// Which object the route is from, for Istio's tools.
fn metadata(route: &Route) -> Option<Metadata> {
    let (object, api_version) = route.config.as_ref()?;
    let fields = structure([("config", text(config_path(object, api_version)))]);
    Some(Metadata {
        filter_metadata: HashMap::from([("istio".to_owned(), fields)]),
        ..Default::default()
    })
}
