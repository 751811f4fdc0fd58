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

/// What requests to the application are told the server is.
const SERVER_NAME: &str = "istio-envoy";

pub(super) fn config(manager: &listener::HttpConnectionManager) -> HttpConnectionManager {
    let common = HttpConnectionManager {
        stat_prefix: manager.stat_prefix.to_string(),
        route_specifier: Some(routes(&manager.routes)),
        http_filters: super::http(&manager.filters),
        use_remote_address: Some(boolean(false)),
        generate_request_id: Some(boolean(true)),
        request_id_extension: Some(request_id()),
        // Streams may be silent for as long as both ends like.
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

/// How paths are normalised before they are matched (`pathNormalization` of the mesh).
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
