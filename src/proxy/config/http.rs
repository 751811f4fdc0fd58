//! Compiling `envoy.filters.network.http_connection_manager`.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;

use super::chain::Within;
use super::value::{duration, fetch_timeout, limit, number, truth, unpack};
use super::{At, Compiled, Names, Refusal, access_log, filter, route, source, trace};
use crate::proxy::access_log::AccessLog;
use crate::proxy::format::Need;
use crate::proxy::http::route::RouteTable;
use crate::proxy::http::{
    AuthorityNormalization, Codec, EscapedSlashes, ForwardClientCert, ForwardClientCertMode, Http2, HttpManager,
    Limits, PathNormalization, RequestId, ServerHeader, StripPort, Underscores, Upgrades,
};
use crate::proxy::slot::Slot;
use crate::proxy::trace::Tracing;
use crate::xds::pb::core::http_protocol_options::HeadersWithUnderscoresAction;
use crate::xds::pb::core::{Http2ProtocolOptions, HttpProtocolOptions};
use crate::xds::pb::network_filter::http_connection_manager::HttpConnectionManager;
use crate::xds::pb::network_filter::http_connection_manager::http_connection_manager::{
    CodecType, ForwardClientCertDetails, PathWithEscapedSlashesAction, RouteSpecifier, ServerHeaderTransformation,
    StripPortMode,
};
use crate::xds::pb::uuid_request_id::UuidRequestIdConfig;

/// Envoy's default.
const IDLE_TIMEOUT: Duration = Duration::from_secs(3600);
const STREAM_IDLE_TIMEOUT: Duration = Duration::from_secs(300);
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);
const DELAYED_CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
const HEADER_KILOBYTES: u32 = 60;
const HEADER_COUNT: u32 = 100;
const SERVER_NAME: &str = "envoy";

/// Compiles an `HttpConnectionManager`.
pub(crate) fn manager(
    message: &HttpConnectionManager,
    listener: Within<'_>,
    names: &mut Names,
) -> Compiled<HttpManager> {
    let logs = access_log::access_logs(&message.access_log)?;
    let asked_for = |need| logs.iter().any(|log: &AccessLog| log.asks_for(need));
    let chain = filter::chain(&message.http_filters, names)?;
    let tracing = message.tracing.as_ref();
    let tracing = tracing.map(|tracing| trace::tracing(tracing, listener.direction, chain.child_spans, names));
    let tracing = tracing.transpose().at("tracing")?;
    let server_name = if message.server_name.is_empty() {
        SERVER_NAME
    } else {
        &message.server_name
    };
    Ok(HttpManager {
        stat_prefix: message.stat_prefix.as_str().into(),
        codec: match message.codec_type() {
            CodecType::Auto => Codec::Auto,
            CodecType::Http1 => Codec::Http1,
            CodecType::Http2 => Codec::Http2,
            CodecType::Http3 => return Err(Refusal::not_implemented("HTTP3").within("codec_type")),
        },
        routes: routes(message.route_specifier.as_ref(), names)?,
        route_updates: match message.route_specifier.as_ref() {
            Some(RouteSpecifier::Rds(rds)) => Some(names.stats.routes(&rds.route_config_name)),
            _ => None,
        },
        routes_timeout: match message.route_specifier.as_ref() {
            Some(RouteSpecifier::Rds(rds)) => fetch_timeout(rds.config_source.as_ref()),
            _ => None,
        },
        filters: chain.filters,
        suppress_envoy_headers: chain.suppress_envoy_headers,
        allow_absolute_url: message
            .http_protocol_options
            .as_ref()
            .is_none_or(|options| truth(options.allow_absolute_url.as_ref(), true)),
        server_name: header(server_name).at("server_name")?,
        server_header: match message.server_header_transformation() {
            ServerHeaderTransformation::Overwrite => ServerHeader::Overwrite,
            ServerHeaderTransformation::AppendIfAbsent => ServerHeader::AppendIfAbsent,
            ServerHeaderTransformation::PassThrough => ServerHeader::PassThrough,
        },
        use_remote_address: truth(message.use_remote_address.as_ref(), false),
        trusted_hops: message.xff_num_trusted_hops,
        skip_xff_append: message.skip_xff_append,
        proxy_100_continue: message.proxy_100_continue,
        via: (!message.via.is_empty())
            .then(|| header(&message.via))
            .transpose()
            .at("via")?,
        request_id: request_id(message).at("request_id_extension")?,
        client_cert: client_cert(message),
        path: path(message),
        authority: authority(message)?,
        underscores: underscores(message),
        limits: limits(message),
        buffer_limit: listener.buffer_limit,
        upgrades: upgrades(message).at("upgrade_configs")?,
        keeps_request_headers: asked_for(Need::RequestHeaders)
            || tracing.as_ref().is_some_and(Tracing::asks_for_request_headers),
        metered: asked_for(Need::WireBytes),
        tracing: tracing.map(Box::new),
        access_logs: logs,
        http2: message.http2_protocol_options.as_ref().map(http2).unwrap_or_default(),
        stats: names.stats.http(&message.stat_prefix),
        rq_class_of_listener: names.stats.listener_http(listener.stat_prefix, &message.stat_prefix),
    })
}

fn upgrades(message: &HttpConnectionManager) -> Compiled<Upgrades> {
    let all = message.upgrade_configs.iter();
    let rules = all.map(|one| (one.upgrade_type.as_str(), truth(one.enabled.as_ref(), true)));
    Upgrades::new(rules).map_err(|twice| Refusal::new(format!("duplicate `{twice}`")))
}

fn request_id(message: &HttpConnectionManager) -> Compiled<RequestId> {
    let extension = message.request_id_extension.as_ref();
    let config = extension.and_then(|extension| extension.typed_config.as_ref());
    let config: UuidRequestIdConfig = config.map(unpack).transpose()?.unwrap_or_default();
    Ok(RequestId {
        generate: truth(message.generate_request_id.as_ref(), true),
        preserve_external: message.preserve_external_request_id,
        in_response: message.always_set_request_id_in_response,
        pack_trace_reason: truth(config.pack_trace_reason.as_ref(), true),
        for_sampling: truth(config.use_request_id_for_trace_sampling.as_ref(), true),
    })
}

fn routes(specifier: Option<&RouteSpecifier>, names: &mut Names) -> Compiled<Arc<Slot<RouteTable>>> {
    match specifier {
        Some(RouteSpecifier::Rds(rds)) => {
            source::aggregated(rds.config_source.as_ref()).at("rds.config_source")?;
            Ok(names.routes.of(&rds.route_config_name))
        }
        Some(RouteSpecifier::RouteConfig(config)) => {
            let table = route::table(config, names).at("route_config")?;
            Ok(Arc::new(Slot::filled(config.name.as_str(), Arc::new(table))))
        }
        Some(RouteSpecifier::ScopedRoutes(_)) => Err(Refusal::not_implemented("scoped_routes")),
        None => Err(Refusal::new("a route configuration is required")),
    }
}

fn client_cert(message: &HttpConnectionManager) -> ForwardClientCert {
    let details = message.set_current_client_cert_details.as_ref();
    ForwardClientCert {
        mode: match message.forward_client_cert_details() {
            ForwardClientCertDetails::Sanitize => ForwardClientCertMode::Sanitize,
            ForwardClientCertDetails::ForwardOnly => ForwardClientCertMode::ForwardOnly,
            ForwardClientCertDetails::AppendForward => ForwardClientCertMode::AppendForward,
            ForwardClientCertDetails::SanitizeSet => ForwardClientCertMode::SanitizeSet,
            ForwardClientCertDetails::AlwaysForwardOnly => ForwardClientCertMode::AlwaysForwardOnly,
        },
        subject: details.is_some_and(|details| truth(details.subject.as_ref(), false)),
        cert: details.is_some_and(|details| details.cert),
        chain: details.is_some_and(|details| details.chain),
        dns: details.is_some_and(|details| details.dns),
        uri: details.is_some_and(|details| details.uri),
    }
}

fn authority(message: &HttpConnectionManager) -> Compiled<AuthorityNormalization> {
    let any = matches!(message.strip_port_mode, Some(StripPortMode::StripAnyHostPort(true)));
    let strip_port = match (any, message.strip_matching_host_port) {
        (true, true) => {
            let why = "cannot be combined with strip_any_host_port";
            return Err(Refusal::new(why).within("strip_matching_host_port"));
        }
        (true, false) => StripPort::Any,
        (false, true) => StripPort::Matching,
        (false, false) => StripPort::No,
    };
    Ok(AuthorityNormalization {
        strip_port,
        strip_dot: message.strip_trailing_host_dot,
    })
}

fn path(message: &HttpConnectionManager) -> PathNormalization {
    PathNormalization {
        normalize: truth(message.normalize_path.as_ref(), false),
        merge_slashes: message.merge_slashes,
        escaped_slashes: match message.path_with_escaped_slashes_action() {
            PathWithEscapedSlashesAction::ImplementationSpecificDefault
            | PathWithEscapedSlashesAction::KeepUnchanged => EscapedSlashes::Keep,
            PathWithEscapedSlashesAction::RejectRequest => EscapedSlashes::Reject,
            PathWithEscapedSlashesAction::UnescapeAndRedirect => EscapedSlashes::UnescapeAndRedirect,
            PathWithEscapedSlashesAction::UnescapeAndForward => EscapedSlashes::UnescapeAndForward,
        },
    }
}

fn underscores(message: &HttpConnectionManager) -> Underscores {
    let common = message.common_http_protocol_options.as_ref();
    match common.map(HttpProtocolOptions::headers_with_underscores_action) {
        Some(HeadersWithUnderscoresAction::RejectRequest) => Underscores::Reject,
        Some(HeadersWithUnderscoresAction::DropHeader) => Underscores::Drop,
        Some(HeadersWithUnderscoresAction::Allow) | None => Underscores::Allow,
    }
}

fn limits(message: &HttpConnectionManager) -> Limits {
    let nothing = HttpProtocolOptions::default();
    let common = message.common_http_protocol_options.as_ref().unwrap_or(&nothing);
    let kilobytes = number(message.max_request_headers_kb.as_ref(), HEADER_KILOBYTES);
    Limits {
        idle: limit(common.idle_timeout.as_ref(), Some(IDLE_TIMEOUT)),
        connection: limit(common.max_connection_duration.as_ref(), None),
        stream_idle: limit(message.stream_idle_timeout.as_ref(), Some(STREAM_IDLE_TIMEOUT)),
        stream: limit(common.max_stream_duration.as_ref(), None),
        request: limit(message.request_timeout.as_ref(), None),
        request_headers: limit(message.request_headers_timeout.as_ref(), None),
        drain: message.drain_timeout.as_ref().map_or(DRAIN_TIMEOUT, duration),
        delayed_close: message
            .delayed_close_timeout
            .as_ref()
            .map_or(DELAYED_CLOSE_TIMEOUT, duration),
        requests_per_connection: common
            .max_requests_per_connection
            .as_ref()
            .map(|max| max.value)
            .filter(|max| *max > 0),
        header_bytes: kilobytes as usize * 1024,
        header_count: number(common.max_headers_count.as_ref(), HEADER_COUNT) as usize,
    }
}

fn http2(message: &Http2ProtocolOptions) -> Http2 {
    let ping = message.connection_keepalive.as_ref();
    Http2 {
        max_concurrent_streams: message.max_concurrent_streams.as_ref().map(|max| max.value),
        stream_window: message.initial_stream_window_size.as_ref().map(|size| size.value),
        connection_window: message.initial_connection_window_size.as_ref().map(|size| size.value),
        keepalive: ping.and_then(|ping| Some((duration(ping.interval.as_ref()?), duration(ping.timeout.as_ref()?)))),
        allow_connect: message.allow_connect,
    }
}

fn header(text: &str) -> Compiled<HeaderValue> {
    HeaderValue::from_str(text).map_err(|_| Refusal::new(format!("`{text}` is not a valid header value")))
}
