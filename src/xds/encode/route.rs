//! Route configurations (RDS, and within listeners).

mod action;
mod matcher;
mod parts;

pub use parts::{EncodedRoute, Reencoded};

use std::collections::HashMap;
use std::sync::Arc;

use super::filter;
use super::value::{boolean, config_path, strings, structure, text, uint32};
use crate::ir::ResourceName;
use crate::ir::route::{Route, RouteAction, RouteConfig, VirtualHost};
use crate::mesh::virtual_service::HeaderOps;
use crate::xds::pb::core::header_value_option::HeaderAppendAction;
use crate::xds::pb::core::{HeaderValue, HeaderValueOption, Metadata};
use crate::xds::pb::route::{self, Decorator, RouteConfiguration};
use crate::xds::resource::Resource;

/// Maximum size of direct response bodies; Istio's validation has the same limit.
const MAX_DIRECT_RESPONSE_BYTES: u32 = 1 << 20;

/// The RDS resource of a route configuration.
pub fn route(config: &RouteConfig) -> Resource {
    EncodedRoute::default().follow(config).resource
}

/// The route configuration, for inlining in a listener.
pub(super) fn message(config: &RouteConfig) -> RouteConfiguration {
    RouteConfiguration {
        name: config.name.to_string(),
        virtual_hosts: config.virtual_hosts.iter().map(|host| virtual_host(host)).collect(),
        ..settings(config)
    }
}

/// The route configuration without virtual hosts.
fn settings(config: &RouteConfig) -> RouteConfiguration {
    RouteConfiguration {
        // A route may be added before its cluster and removed after it.
        validate_clusters: Some(boolean(false)),
        max_direct_response_body_size_bytes: Some(uint32(MAX_DIRECT_RESPONSE_BYTES)),
        ignore_port_in_host_matching: config.ignore_port,
        ..Default::default()
    }
}

/// Clusters that the routes refer to, mirrors included.
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

/// Headers to set, followed by headers to append.
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

fn header(name: &Arc<str>, value: &Arc<str>) -> HeaderValue {
    HeaderValue {
        key: name.to_string(),
        value: value.to_string(),
        ..Default::default()
    }
}

/// The object that the route comes from, for Istio's tools.
fn metadata(route: &Route) -> Option<Metadata> {
    let (object, api_version) = route.config.as_ref()?;
    let fields = structure([("config", text(config_path(object, api_version)))]);
    Some(Metadata {
        filter_metadata: HashMap::from([("istio".to_owned(), fields)]),
        ..Default::default()
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::ir::route::Forward;
    use crate::mesh::virtual_service::{Cors, Fault, StringMatch};
    use crate::name::{Kind, Percent};
    use crate::xds::encode::testing::{forward, object, route as plain, route_config, shown, weighted};

    fn one(route: Route) -> Value {
        let shown = shown(&super::route(&route_config("9080", vec![route])));
        shown["virtual_hosts"][0]["routes"][0].clone()
    }

    #[test]
    fn a_configuration_does_not_depend_on_clusters_and_ignores_ports() {
        assert_eq!(
            shown(&route(&route_config("9080", vec![]))),
            json!({
                "name": "9080",
                "virtual_hosts": [{"name": "all", "domains": ["*"]}],
                "validate_clusters": false,
                "ignore_port_in_host_matching": true,
                "max_direct_response_body_size_bytes": 1_048_576,
            })
        );
    }

    #[test]
    fn routes_have_istio_config_metadata() {
        let route = Route {
            name: "v2".into(),
            operation: "reviews:9080/*".into(),
            config: Some((
                object(Kind::VirtualService, "reviews"),
                "networking.istio.io/v1alpha3".into(),
            )),
            stat_prefix: "v2".into(),
            ..plain()
        };
        assert_eq!(
            one(route),
            json!({
                "name": "v2",
                "match": {"prefix": "/"},
                "route": {"cluster": "reviews", "timeout": "0s", "max_stream_duration": {"grpc_timeout_header_max": "0s"}},
                "metadata": {"filter_metadata": {"istio": {
                    "config": "/apis/networking.istio.io/v1alpha3/namespaces/default/virtual-service/reviews",
                }}},
                "decorator": {"operation": "reviews:9080/*"},
                "stat_prefix": "v2",
            })
        );
    }

    #[test]
    fn headers_are_set_then_added_then_removed() {
        let headers = HeaderOps {
            set: vec![("a".into(), "1".into())],
            add: vec![("b".into(), "2".into())],
            remove: vec!["c".into()],
        };
        let shown = one(Route {
            response_headers: headers.clone(),
            request_headers: headers,
            ..plain()
        });
        for side in ["request", "response"] {
            assert_eq!(
                shown[format!("{side}_headers_to_add")],
                json!([
                    {"header": {"key": "a", "value": "1"}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"},
                    {"header": {"key": "b", "value": "2"}},
                ])
            );
            assert_eq!(shown[format!("{side}_headers_to_remove")], json!(["c"]));
        }
    }

    #[test]
    fn per_route_filter_config_is_deterministic() {
        let both = || Route {
            fault: Some(Fault::default()),
            cors: Some(Cors {
                allow_origins: vec![StringMatch::Exact("a".into())],
                ..Default::default()
            }),
            ..plain()
        };
        let shown = one(both());
        let filters: Vec<_> = shown["typed_per_filter_config"].as_object().unwrap().keys().collect();
        assert_eq!(filters, ["envoy.filters.http.cors", "envoy.filters.http.fault"]);
        let encoded = || route(&route_config("9080", vec![both()])).version;
        let first = encoded();
        assert!((0..50).all(|_| encoded() == first));
    }

    #[test]
    fn clusters_of_destinations_and_mirrors_are_recorded() {
        let forward = Forward {
            clusters: vec![weighted("b", 1), weighted("a", 1)],
            mirrors: vec![("mirror".into(), Percent::FULL)],
            ..forward()
        };
        let route = Route {
            action: RouteAction::Forward(Box::new(forward)),
            ..plain()
        };
        let resource = super::route(&route_config("9080", vec![route.clone(), route]));
        let names: Vec<_> = resource.clusters.iter().map(|name| &**name).collect();
        assert_eq!(names, ["a", "b", "mirror"]);
    }
}
