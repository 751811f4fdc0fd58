//! That rows are true, and that what they do not have is refused.

use std::collections::HashSet;
use std::time::Instant;

use serde_json::{Value, json};

use super::*;
use crate::proxy::store::Store;
use crate::proxy::trace::NodeNames;
use crate::xds::transcode::to_wire;

#[test]
fn every_star_says_why() {
    for (message, _, without_effect) in rows() {
        for (field, why) in *without_effect {
            assert!(why.contains(' '), "{message}.{field}: {why:?} is no reason");
        }
    }
}

#[test]
fn every_field_is_one_of_its_message_and_there_once() {
    let mut known = HashSet::new();
    for (message, read, without_effect) in rows() {
        assert!(known.insert((*message, "")), "{message} is there twice");
        let without_effect = without_effect.iter().map(|(field, _)| *field);
        for field in read.split_whitespace().chain(without_effect) {
            assert!(known.insert((*message, field)), "{message}.{field} is there twice");
            if let Err(fault) = to_wire(message, &json!({field: null})) {
                panic!("{message}.{field}: {fault}");
            }
        }
    }
}

const API: &str = "type.googleapis.com/envoy.";

/// A message with more in it.
fn with(mut message: Value, more: Value) -> Value {
    let Value::Object(more) = more else { panic!("{more}") };
    message.as_object_mut().unwrap().extend(more);
    message
}

/// A configuration of this type, after Envoy's own name.
fn any(name: &str, config: Value) -> Value {
    with(config, json!({"@type": format!("{API}{name}")}))
}

fn cluster(more: Value) -> Value {
    with(json!({"name": "a", "type": "STATIC"}), more)
}

/// A cluster that says this of HTTP.
fn http_cluster(options: Value) -> Value {
    let options = with(options, json!({"explicit_http_config": {"http_protocol_options": {}}}));
    cluster(json!({"typed_extension_protocol_options": {
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": any("extensions.upstreams.http.v3.HttpProtocolOptions", options),
    }}))
}

fn dns_cluster(options: Value) -> Value {
    let custom = json!({"name": "dns", "typed_config": any("extensions.clusters.dns.v3.DnsCluster", options)});
    with(cluster(json!({"cluster_type": custom})), json!({"type": null}))
}

fn listener_of(filters: Value, more: Value) -> Value {
    let listener = json!({
        "name": "in", "filter_chains": [{"filters": filters}],
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": 1}},
    });
    with(listener, more)
}

fn listener(more: Value) -> Value {
    let tcp = any(
        "extensions.filters.network.tcp_proxy.v3.TcpProxy",
        json!({"stat_prefix": "t", "cluster": "a"}),
    );
    listener_of(json!([{"name": "t", "typed_config": tcp}]), more)
}

fn tcp_listener(more: Value) -> Value {
    let tcp = with(json!({"stat_prefix": "t", "cluster": "a"}), more);
    let tcp = any("extensions.filters.network.tcp_proxy.v3.TcpProxy", tcp);
    listener_of(json!([{"name": "t", "typed_config": tcp}]), json!({}))
}

/// A listener of a connection manager that says this, too.
fn http_listener(more: Value) -> Value {
    let router = json!({"name": "r", "typed_config": any("extensions.filters.http.router.v3.Router", json!({}))});
    let manager = json!({"stat_prefix": "h", "route_config": {"name": "r"}, "http_filters": [router]});
    let manager = any(
        "extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        with(manager, more),
    );
    listener_of(json!([{"name": "h", "typed_config": manager}]), json!({}))
}

/// A listener with this HTTP filter before the router.
fn filter_listener(name: &str, config: Value) -> Value {
    let filter = |name: &str, config| json!({"name": name, "typed_config": any(&format!("extensions.filters.http.{name}"), config)});
    http_listener(json!({"http_filters": [filter(name, config), filter("router.v3.Router", json!({}))]}))
}

/// A route table of one route that says this, too.
fn routes(table: Value, route: Value) -> Value {
    let route = with(json!({"match": {"prefix": "/"}, "redirect": {}}), route);
    let hosts = json!([{"name": "h", "domains": ["*"], "routes": [route]}]);
    with(json!({"name": "r", "virtual_hosts": hosts}), table)
}

/// Why a resource is refused; nothing where it is taken.
fn refusal(kind: &str, resource: &Value) -> String {
    let mut store = Store::new(NodeNames::default(), HashSet::from(["xds".to_owned()]));
    let bytes = to_wire(&format!("envoy.config.{kind}"), resource).unwrap();
    let taken = match kind {
        "cluster.v3.Cluster" => store.put_cluster(bytes.into(), true, Instant::now()),
        "listener.v3.Listener" => store.listener(None, &bytes).map(drop),
        _ => store.put_routes("r", bytes.into()),
    };
    taken.err().map(|refusal| refusal.to_string()).unwrap_or_default()
}

#[test]
fn what_would_be_passed_over_is_refused() {
    let header = json!({"name": "c", "typed_config": any("extensions.filters.http.header_mutation.v3.HeaderMutation", json!({}))});
    let direct = |len: usize| json!({"redirect": null, "direct_response": {"status": 200, "body": {"inline_string": "a".repeat(len)}}});
    let mirror = |sampled: Value| {
        let mirror = json!({"cluster": "b", "trace_sampled": sampled});
        json!({"redirect": null, "route": {"cluster": "a", "request_mirror_policies": [mirror]}})
    };
    let resolver =
        |name: &str, config| json!({"typed_dns_resolver_config": {"name": "r", "typed_config": any(name, config)}});
    let cares = "extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig";
    let socket = |more| with(json!({"address": "127.0.0.1", "port_value": 53}), more);
    let (common, options) = ("common_http_protocol_options", "typed_extension_protocol_options");
    let manager = "filter_chains[0].filters[0].typed_config";
    let names = "cluster_type.typed_config.typed_dns_resolver_config.typed_config";
    let (clusters, listeners, tables) = (
        "cluster.v3.Cluster",
        "listener.v3.Listener",
        "route.v3.RouteConfiguration",
    );
    for (kind, resource, field) in [
        (
            clusters,
            http_cluster(json!({"http_filters": [header]})),
            format!("{options}.http_filters[0]: "),
        ),
        (
            clusters,
            http_cluster(json!({common: {"max_stream_duration": "1s"}})),
            format!("{options}.{common}.max_stream_duration: "),
        ),
        (
            clusters,
            http_cluster(json!({common: {"max_headers_count": 1000}})),
            format!("{options}.{common}.max_headers_count: "),
        ),
        (
            clusters,
            cluster(json!({"filters": [{"name": "a"}]})),
            "filters: ".into(),
        ),
        (
            clusters,
            cluster(json!({"close_connections_on_host_health_failure": true})),
            "close_connections_on_host_health_failure: ".into(),
        ),
        (
            clusters,
            cluster(json!({"common_lb_config": {"close_connections_on_host_set_change": true}})),
            "common_lb_config.close_connections_on_host_set_change: ".into(),
        ),
        (
            clusters,
            cluster(json!({"track_cluster_stats": {"timeout_budgets": true}})),
            "track_cluster_stats: ".into(),
        ),
        (
            clusters,
            dns_cluster(resolver(cares, json!({"filter_unroutable_families": true}))),
            format!("{names}.filter_unroutable_families: "),
        ),
        (
            clusters,
            dns_cluster(resolver(cares, json!({"qcache_max_ttl": 60}))),
            format!("{names}.qcache_max_ttl: "),
        ),
        (
            listeners,
            listener(json!({"address": {"socket_address": socket(json!({"protocol": "UDP"}))}})),
            "address.socket_address.protocol: ".into(),
        ),
        (
            listeners,
            tcp_listener(json!({"access_log_options": {"flush_access_log_on_connected": true}})),
            format!("{manager}.access_log_options.flush_access_log_on_connected: "),
        ),
        (
            listeners,
            http_listener(json!({"access_log_options": {"flush_access_log_on_new_request": true}})),
            format!("{manager}.access_log_options.flush_access_log_on_new_request: "),
        ),
        (
            listeners,
            http_listener(json!({"internal_address_config": {"cidr_ranges": [{"address_prefix": "10.0.0.0"}]}})),
            format!("{manager}.internal_address_config.cidr_ranges: "),
        ),
        (
            listeners,
            http_listener(json!({"http1_safe_max_connection_duration": true})),
            format!("{manager}.http1_safe_max_connection_duration: "),
        ),
        (
            listeners,
            filter_listener("grpc_stats.v3.FilterConfig", json!({"enable_upstream_stats": true})),
            format!("{manager}.http_filters[0].typed_config.enable_upstream_stats: "),
        ),
        (
            tables,
            routes(json!({"validate_clusters": true}), json!({})),
            "validate_clusters: ".into(),
        ),
        (
            tables,
            routes(json!({}), direct(4097)),
            "virtual_hosts[0].routes[0].direct_response.body: response body size is 4097 bytes; maximum is 4096".into(),
        ),
        (
            tables,
            routes(json!({}), mirror(json!(true))),
            "virtual_hosts[0].routes[0].route.request_mirror_policies[0].trace_sampled: ".into(),
        ),
    ] {
        let refusal = refusal(kind, &resource);
        assert!(
            refusal.starts_with(&field) && !refusal.contains("implemented; "),
            "{field}{refusal:?}"
        );
    }
    let own_servers = json!({
        "resolvers": [{"socket_address": socket(json!({}))}],
        "use_resolvers_as_fallback": true,
        "dns_resolver_options": {"use_tcp_for_dns_lookups": true, "no_default_search_domain": true},
        "query_timeout_seconds": 1,
        "query_tries": 1,
        "rotate_nameservers": true,
    });
    let codec =
        json!({"name": "c", "typed_config": any("extensions.filters.http.upstream_codec.v3.UpstreamCodec", json!({}))});
    for (kind, resource) in [
        (
            clusters,
            http_cluster(
                json!({"http_filters": [codec], common: {"max_headers_count": 100, "max_stream_duration": "0s"}}),
            ),
        ),
        (
            clusters,
            with(http_cluster(json!({"http_filters": [header]})), json!({"name": "xds"})),
        ),
        (clusters, dns_cluster(resolver(cares, json!({"udp_max_queries": 100})))),
        (clusters, dns_cluster(resolver(cares, own_servers.clone()))),
        (
            clusters,
            with(
                cluster(json!({"type": "STRICT_DNS", "respect_dns_ttl": true})),
                resolver(cares, own_servers),
            ),
        ),
        (
            listeners,
            http_listener(json!({"internal_address_config": {}, "access_log_options": {}})),
        ),
        (
            tables,
            routes(json!({"validate_clusters": false}), mirror(json!(false))),
        ),
        (
            tables,
            routes(json!({"max_direct_response_body_size_bytes": 5000}), direct(5000)),
        ),
    ] {
        assert_eq!(refusal(kind, &resource), "", "{resource}");
    }
}
