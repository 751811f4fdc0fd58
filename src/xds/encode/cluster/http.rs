//! HTTP protocol options of a cluster.

use crate::ir::cluster::{HttpVersion, UpstreamHttp};
use crate::xds::encode::value::{duration, uint32};
use crate::xds::pb::core::{
    self, Http1ProtocolOptions, Http2ProtocolOptions, KeepaliveSettings, UpstreamHttpProtocolOptions,
};
use crate::xds::pb::upstream_http::HttpProtocolOptions;
use crate::xds::pb::upstream_http::http_protocol_options::explicit_http_config::ProtocolConfig;
use crate::xds::pb::upstream_http::http_protocol_options::{
    ExplicitHttpConfig, UpstreamProtocolOptions, UseDownstreamHttpConfig,
};

/// HTTP protocol options, unless all are Envoy's defaults: HTTP/1.1 without limits.
pub(super) fn options(http: &UpstreamHttp) -> Option<HttpProtocolOptions> {
    if *http == UpstreamHttp::default() {
        return None;
    }
    let common = core::HttpProtocolOptions {
        idle_timeout: http.idle_timeout.map(duration),
        max_connection_duration: http.max_connection_duration.map(duration),
        max_requests_per_connection: http.max_requests_per_connection.map(uint32),
        ..Default::default()
    };
    let upstream = UpstreamHttpProtocolOptions {
        auto_sni: http.auto_sni,
        auto_san_validation: http.auto_san_validation,
        ..Default::default()
    };
    Some(HttpProtocolOptions {
        common_http_protocol_options: (common != core::HttpProtocolOptions::default()).then_some(common),
        upstream_http_protocol_options: (upstream != UpstreamHttpProtocolOptions::default()).then_some(upstream),
        upstream_protocol_options: Some(protocol(http)),
        ..Default::default()
    })
}

fn protocol(http: &UpstreamHttp) -> UpstreamProtocolOptions {
    let http2 = || Http2ProtocolOptions {
        max_concurrent_streams: http.max_concurrent_streams.map(uint32),
        connection_keepalive: http.keepalive.map(|(interval, timeout)| KeepaliveSettings {
            interval: Some(duration(interval)),
            timeout: Some(duration(timeout)),
            ..Default::default()
        }),
        ..Default::default()
    };
    let explicit = |config| {
        UpstreamProtocolOptions::ExplicitHttpConfig(ExplicitHttpConfig {
            protocol_config: Some(config),
        })
    };
    match http.version {
        HttpVersion::Http1 => explicit(ProtocolConfig::HttpProtocolOptions(Http1ProtocolOptions::default())),
        HttpVersion::Http2 => explicit(ProtocolConfig::Http2ProtocolOptions(http2())),
        HttpVersion::Downstream => UpstreamProtocolOptions::UseDownstreamProtocolConfig(UseDownstreamHttpConfig {
            http_protocol_options: Some(Http1ProtocolOptions::default()),
            http2_protocol_options: Some(http2()),
            ..Default::default()
        }),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::{Value, json};

    use super::*;
    use crate::ir::cluster::Cluster;
    use crate::xds::encode::cluster;
    use crate::xds::encode::cluster::HTTP_OPTIONS;
    use crate::xds::encode::testing::{cluster as plain, shown};

    fn http(http: UpstreamHttp) -> Value {
        let shown = shown(&cluster(&Cluster { http, ..plain("a") }));
        shown["typed_extension_protocol_options"][HTTP_OPTIONS].clone()
    }

    #[test]
    fn default_http_options_are_omitted() {
        assert_eq!(http(UpstreamHttp::default()), Value::Null);
        let http2 = http(UpstreamHttp {
            version: HttpVersion::Http2,
            max_concurrent_streams: Some(100),
            keepalive: Some((Duration::from_secs(30), Duration::from_secs(5))),
            ..Default::default()
        });
        assert_eq!(
            http2["explicit_http_config"],
            json!({"http2_protocol_options": {
                "max_concurrent_streams": 100,
                "connection_keepalive": {"interval": "30s", "timeout": "5s"},
            }})
        );
        let downstream = http(UpstreamHttp {
            version: HttpVersion::Downstream,
            auto_sni: true,
            idle_timeout: Some(Duration::from_millis(500)),
            ..Default::default()
        });
        assert_eq!(
            downstream,
            json!({
                "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                "common_http_protocol_options": {"idle_timeout": "0.500s"},
                "upstream_http_protocol_options": {"auto_sni": true},
                "use_downstream_protocol_config": {"http_protocol_options": {}, "http2_protocol_options": {}},
            })
        );
    }
}
