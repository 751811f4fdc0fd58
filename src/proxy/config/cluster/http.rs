//! Compiling the HTTP options of a cluster (`HttpProtocolOptions`).

use std::time::Duration;

use crate::proxy::config::value::{duration, limit, number, unpack};
use crate::proxy::config::{At, Compiled, Refusal};
use crate::proxy::upstream::cluster::{HttpVersion, UpstreamHttp};
use crate::xds::pb::cluster::Cluster;
use crate::xds::pb::cluster::cluster::ClusterProtocolSelection;
use crate::xds::pb::core::{Http2ProtocolOptions, HttpProtocolOptions as CommonHttp};
use crate::xds::pb::network_filter::http_connection_manager::HttpFilter;
use crate::xds::pb::network_filter::http_connection_manager::http_filter::ConfigType;
use crate::xds::pb::upstream_http::HttpProtocolOptions;
use crate::xds::pb::upstream_http::http_protocol_options::explicit_http_config::ProtocolConfig;
use crate::xds::pb::upstream_http::http_protocol_options::{
    ExplicitHttpConfig, UpstreamProtocolOptions, UseDownstreamHttpConfig,
};
use crate::xds::pb::wkt;

const CODEC: &str = "/envoy.extensions.filters.http.upstream_codec.v3.UpstreamCodec";
const HTTP_OPTIONS: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";

/// Envoy's default.
const IDLE_TIMEOUT: Duration = Duration::from_secs(3600);
const HEADER_COUNT: u32 = 100;

/// The options of a cluster. `by_server`: xDS servers may be reached by it, whose credential injector is handled
/// elsewhere.
#[expect(deprecated, reason = "Envoy still reads it")]
pub(super) fn options(message: &Cluster, by_server: bool) -> Compiled<UpstreamHttp> {
    let most = message.max_requests_per_connection.as_ref();
    match message.typed_extension_protocol_options.get(HTTP_OPTIONS) {
        Some(any) => unpack(any)
            .and_then(|options| compiled(&options, most, by_server))
            .at("typed_extension_protocol_options"),
        None => compiled(&of_fields(message)?, most, by_server),
    }
}

/// The options in deprecated fields of the cluster, which Envoy reads if there is no `HttpProtocolOptions`.
#[expect(deprecated, reason = "Envoy still reads them")]
fn of_fields(message: &Cluster) -> Compiled<HttpProtocolOptions> {
    let (http1, http2) = (&message.http_protocol_options, &message.http2_protocol_options);
    let version = match (message.protocol_selection(), http2) {
        (ClusterProtocolSelection::UseDownstreamProtocol, _) => {
            UpstreamProtocolOptions::UseDownstreamProtocolConfig(UseDownstreamHttpConfig {
                http_protocol_options: http1.clone(),
                http2_protocol_options: http2.clone(),
                ..Default::default()
            })
        }
        (ClusterProtocolSelection::UseConfiguredProtocol, Some(_)) if http1.is_some() => {
            let why = "cannot be set beside http_protocol_options unless protocol_selection chooses";
            return Err(Refusal::new(why).within("http2_protocol_options"));
        }
        (ClusterProtocolSelection::UseConfiguredProtocol, Some(http2)) => {
            explicit(ProtocolConfig::Http2ProtocolOptions(http2.clone()))
        }
        (ClusterProtocolSelection::UseConfiguredProtocol, None) => {
            explicit(ProtocolConfig::HttpProtocolOptions(http1.clone().unwrap_or_default()))
        }
    };
    Ok(HttpProtocolOptions {
        common_http_protocol_options: message.common_http_protocol_options,
        upstream_http_protocol_options: message.upstream_http_protocol_options.clone(),
        upstream_protocol_options: Some(version),
        ..Default::default()
    })
}

fn explicit(config: ProtocolConfig) -> UpstreamProtocolOptions {
    UpstreamProtocolOptions::ExplicitHttpConfig(ExplicitHttpConfig {
        protocol_config: Some(config),
    })
}

/// Compiles the options. `most`: the cluster's own `max_requests_per_connection`, the fallback.
fn compiled(options: &HttpProtocolOptions, most: Option<&wkt::UInt32Value>, by_server: bool) -> Compiled<UpstreamHttp> {
    if !by_server {
        filters(&options.http_filters)?;
    }
    let nothing = CommonHttp::default();
    let common = options.common_http_protocol_options.as_ref().unwrap_or(&nothing);
    unlimited(common).at("common_http_protocol_options")?;
    let upstream = options.upstream_http_protocol_options.as_ref();
    let http2 = match options.upstream_protocol_options.as_ref() {
        Some(UpstreamProtocolOptions::ExplicitHttpConfig(explicit)) => match explicit.protocol_config.as_ref() {
            Some(ProtocolConfig::Http2ProtocolOptions(http2)) => Some(http2),
            _ => None,
        },
        Some(UpstreamProtocolOptions::UseDownstreamProtocolConfig(config)) => config.http2_protocol_options.as_ref(),
        Some(UpstreamProtocolOptions::AutoConfig(config)) => config.http2_protocol_options.as_ref(),
        None => None,
    };
    let version = match options.upstream_protocol_options.as_ref() {
        Some(UpstreamProtocolOptions::ExplicitHttpConfig(_)) if http2.is_some() => HttpVersion::Http2,
        Some(UpstreamProtocolOptions::ExplicitHttpConfig(_)) | None => HttpVersion::Http1,
        Some(UpstreamProtocolOptions::UseDownstreamProtocolConfig(_)) => HttpVersion::Downstream,
        Some(UpstreamProtocolOptions::AutoConfig(_)) => HttpVersion::Alpn,
    };
    let ping = http2.and_then(|http2| http2.connection_keepalive.as_ref());
    let ping = ping.and_then(|ping| Some((duration(ping.interval.as_ref()?), duration(ping.timeout.as_ref()?))));
    let value = |of: fn(&Http2ProtocolOptions) -> Option<&wkt::UInt32Value>| Some(of(http2?)?.value);
    Ok(UpstreamHttp {
        version,
        max_concurrent_streams: value(|http2| http2.max_concurrent_streams.as_ref()),
        stream_window: value(|http2| http2.initial_stream_window_size.as_ref()),
        connection_window: value(|http2| http2.initial_connection_window_size.as_ref()),
        keepalive: ping,
        idle_timeout: limit(common.idle_timeout.as_ref(), Some(IDLE_TIMEOUT)),
        max_connection_duration: limit(common.max_connection_duration.as_ref(), None),
        max_requests: common
            .max_requests_per_connection
            .as_ref()
            .or(most)
            .map(|max| max.value)
            .filter(|max| *max > 0),
        auto_sni: upstream.is_some_and(|upstream| upstream.auto_sni),
        auto_san_validation: upstream.is_some_and(|upstream| upstream.auto_san_validation),
    })
}

/// Checks the upstream HTTP filters: only the upstream codec, which is always the last, is supported.
fn filters(filters: &[HttpFilter]) -> Compiled<()> {
    for (index, filter) in filters.iter().enumerate() {
        let Some(ConfigType::TypedConfig(config)) = &filter.config_type else {
            return Err(Refusal::not_implemented(format!("`{}`", filter.name))).at_index("http_filters", index);
        };
        if !config.type_url.ends_with(CODEC) {
            return Err(Refusal::not_implemented(format!("`{}` here", config.type_url)))
                .at_index("http_filters", index);
        }
    }
    Ok(())
}

/// Refuses limits that apply only to connection managers.
fn unlimited(common: &CommonHttp) -> Compiled<()> {
    if limit(common.max_stream_duration.as_ref(), None).is_some() {
        return Err(Refusal::not_implemented("this field of a cluster").within("max_stream_duration"));
    }
    match number(common.max_headers_count.as_ref(), HEADER_COUNT) {
        HEADER_COUNT => Ok(()),
        _ => Err(Refusal::not_implemented("another number of a cluster").within("max_headers_count")),
    }
}
