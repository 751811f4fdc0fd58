//! `envoy.filters.network.http_connection_manager`.

use std::time::Duration;

use crate::ir::listener::{self, HttpRole, RouteSource};
use crate::mesh::config::PathNormalization;
use crate::xds::encode::route;
use crate::xds::encode::value::{ads, any, boolean, duration};
use crate::xds::pb::core::Http1ProtocolOptions;
use crate::xds::pb::network_filter::http_connection_manager::http_connection_manager::{
    ForwardClientCertDetails, PathWithEscapedSlashesAction, RouteSpecifier, SetCurrentClientCertDetails, UpgradeConfig,
};
use crate::xds::pb::network_filter::http_connection_manager::{HttpConnectionManager, Rds, RequestIdExtension};
use crate::xds::pb::uuid_request_id::UuidRequestIdConfig;

pub(super) const NAME: &str = "envoy.filters.network.http_connection_manager";

/// Value of `server_name`, as in Istio.
const SERVER_NAME: &str = "istio-envoy";

pub(super) fn config(manager: &listener::HttpConnectionManager) -> HttpConnectionManager {
    let common = HttpConnectionManager {
        stat_prefix: manager.stat_prefix.to_string(),
        route_specifier: Some(routes(&manager.routes)),
        http_filters: super::http(&manager.filters),
        use_remote_address: Some(boolean(false)),
        generate_request_id: Some(boolean(true)),
        request_id_extension: Some(request_id()),
        // No stream idle timeout, as in Istio.
        stream_idle_timeout: Some(duration(Duration::ZERO)),
        proxy_100_continue: true,
        upgrade_configs: vec![UpgradeConfig {
            upgrade_type: "websocket".to_owned(),
            ..Default::default()
        }],
        ..path(manager.path_normalization)
    };
    for_role(manager.role, common)
}

fn for_role(role: HttpRole, common: HttpConnectionManager) -> HttpConnectionManager {
    match role {
        HttpRole::Server => HttpConnectionManager {
            server_name: SERVER_NAME.to_owned(),
            forward_client_cert_details: ForwardClientCertDetails::AppendForward.into(),
            set_current_client_cert_details: Some(SetCurrentClientCertDetails {
                subject: Some(boolean(true)),
                dns: true,
                uri: true,
                ..Default::default()
            }),
            ..common
        },
        HttpRole::Client => HttpConnectionManager {
            forward_client_cert_details: ForwardClientCertDetails::Sanitize.into(),
            ..common
        },
        HttpRole::ForwardProxy => HttpConnectionManager {
            forward_client_cert_details: ForwardClientCertDetails::Sanitize.into(),
            http_protocol_options: Some(Http1ProtocolOptions {
                allow_absolute_url: Some(boolean(true)),
                ..Default::default()
            }),
            ..common
        },
    }
}

fn routes(source: &RouteSource) -> RouteSpecifier {
    match source {
        RouteSource::Rds(name) => RouteSpecifier::Rds(Rds {
            config_source: Some(ads()),
            route_config_name: name.to_string(),
        }),
        RouteSource::Inline(config) => RouteSpecifier::RouteConfig(route::message(config)),
    }
}

fn request_id() -> RequestIdExtension {
    RequestIdExtension {
        typed_config: Some(any(&UuidRequestIdConfig {
            use_request_id_for_trace_sampling: Some(boolean(true)),
            ..Default::default()
        })),
    }
}

/// Path normalization (`pathNormalization` of the mesh).
fn path(normalization: PathNormalization) -> HttpConnectionManager {
    let (normalize, merge, escaped) = match normalization {
        PathNormalization::None => (false, false, PathWithEscapedSlashesAction::KeepUnchanged),
        PathNormalization::Base => (true, false, PathWithEscapedSlashesAction::KeepUnchanged),
        PathNormalization::MergeSlashes => (true, true, PathWithEscapedSlashesAction::KeepUnchanged),
        PathNormalization::DecodeAndMergeSlashes => (true, true, PathWithEscapedSlashesAction::UnescapeAndForward),
    };
    HttpConnectionManager {
        normalize_path: Some(boolean(normalize)),
        merge_slashes: merge,
        path_with_escaped_slashes_action: escaped.into(),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::{Value, json};

    use super::*;
    use crate::ir::listener::HttpFilter;
    use crate::xds::encode::testing::{printed, route_config};

    fn manager(role: HttpRole) -> listener::HttpConnectionManager {
        listener::HttpConnectionManager {
            stat_prefix: "outbound_0.0.0.0_9080;".into(),
            routes: RouteSource::Rds("9080".into()),
            filters: vec![],
            role,
            path_normalization: PathNormalization::Base,
        }
    }

    fn shown(manager: &listener::HttpConnectionManager) -> Value {
        printed(&config(manager))
    }

    #[test]
    fn the_client_role_sanitizes_xfcc_and_uses_rds() {
        assert_eq!(
            shown(&manager(HttpRole::Client)),
            json!({
                "stat_prefix": "outbound_0.0.0.0_9080;",
                "rds": {
                    "config_source": {"ads": {}, "initial_fetch_timeout": "0s", "resource_api_version": "V3"},
                    "route_config_name": "9080",
                },
                "http_filters": [{
                    "name": "envoy.filters.http.router",
                    "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"},
                }],
                "use_remote_address": false,
                "generate_request_id": true,
                "proxy_100_continue": true,
                "upgrade_configs": [{"upgrade_type": "websocket"}],
                "stream_idle_timeout": "0s",
                "normalize_path": true,
                "request_id_extension": {"typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.request_id.uuid.v3.UuidRequestIdConfig",
                    "use_request_id_for_trace_sampling": true,
                }},
                "path_with_escaped_slashes_action": "KEEP_UNCHANGED",
            })
        );
    }

    #[test]
    fn the_server_role_forwards_the_client_certificate() {
        let shown = shown(&manager(HttpRole::Server));
        assert_eq!(shown["server_name"], "istio-envoy");
        assert_eq!(shown["forward_client_cert_details"], "APPEND_FORWARD");
        assert_eq!(
            shown["set_current_client_cert_details"],
            json!({"subject": true, "dns": true, "uri": true})
        );
    }

    #[test]
    fn a_forward_proxy_allows_absolute_urls() {
        let shown = shown(&manager(HttpRole::ForwardProxy));
        assert_eq!(shown["http_protocol_options"], json!({"allow_absolute_url": true}));
    }

    #[test]
    fn routes_can_be_inline() {
        let inline = Arc::new(route_config("inbound|9080||", vec![]));
        let shown = shown(&listener::HttpConnectionManager {
            routes: RouteSource::Inline(inline),
            ..manager(HttpRole::Server)
        });
        assert_eq!(shown["route_config"]["name"], "inbound|9080||");
    }

    #[test]
    fn path_normalization_follows_the_mesh() {
        let normalized = |path_normalization| {
            let shown = shown(&listener::HttpConnectionManager {
                path_normalization,
                ..manager(HttpRole::Client)
            });
            let fields = ["normalize_path", "merge_slashes", "path_with_escaped_slashes_action"];
            Value::from(fields.map(|name| shown[name].clone()).to_vec())
        };
        let keep = "KEEP_UNCHANGED";
        assert_eq!(normalized(PathNormalization::None), json!([false, null, keep]));
        assert_eq!(normalized(PathNormalization::MergeSlashes), json!([true, true, keep]));
        assert_eq!(
            normalized(PathNormalization::DecodeAndMergeSlashes),
            json!([true, true, "UNESCAPE_AND_FORWARD"])
        );
    }

    #[test]
    fn filters_precede_the_router_in_order() {
        let filters = vec![
            HttpFilter::GrpcWeb,
            HttpFilter::GrpcStats,
            HttpFilter::UpstreamAlpn(vec!["istio-h2", "istio", "h2"]),
            HttpFilter::Fault,
            HttpFilter::Cors,
        ];
        assert!(filters.is_sorted());
        let shown = shown(&listener::HttpConnectionManager {
            filters,
            ..manager(HttpRole::Client)
        });
        let chain = shown["http_filters"].as_array().unwrap();
        let names: Vec<_> = chain.iter().map(|filter| filter["name"].as_str().unwrap()).collect();
        let wanted = ["grpc_web", "grpc_stats", "set_filter_state", "fault", "cors", "router"];
        assert_eq!(names, wanted.map(|name| format!("envoy.filters.http.{name}")));
        assert_eq!(
            chain[1]["typed_config"],
            json!({
                "@type": "type.googleapis.com/envoy.extensions.filters.http.grpc_stats.v3.FilterConfig",
                "emit_filter_state": true,
                "stats_for_all_methods": false,
            })
        );
        assert_eq!(
            chain[2]["typed_config"]["on_request_headers"],
            json!([{
                "object_key": "envoy.network.application_protocols",
                "format_string": {"text_format_source": {"inline_string": "istio-h2,istio,h2"}},
            }])
        );
    }
}
