//! Compiling active health checks (`HealthCheck`).

use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;
use http::header::USER_AGENT;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method};

use super::labels;
use crate::proxy::config::value::{duration, truth};
use crate::proxy::config::{At, Compiled, Refusal, all, headers, matcher};
use crate::proxy::upstream::cluster::{Discovery, HttpVersion, UpstreamHttp};
use crate::proxy::upstream::health_check::grpc::GrpcCheck;
use crate::proxy::upstream::health_check::http::HttpCheck;
use crate::proxy::upstream::health_check::payload;
use crate::proxy::upstream::health_check::schedule::Schedule;
use crate::proxy::upstream::health_check::tcp::TcpCheck;
use crate::proxy::upstream::health_check::{HealthCheck, Probe};
use crate::xds::pb::cluster::Cluster;
use crate::xds::pb::core::health_check::payload::Payload as Content;
use crate::xds::pb::core::health_check::{GrpcHealthCheck, HealthChecker, HttpHealthCheck, Payload, TcpHealthCheck};
use crate::xds::pb::core::{self, RequestMethod};
use crate::xds::pb::types::{CodecClientType, Int64Range};
use crate::xds::pb::wkt;

/// Envoy's defaults.
const NO_TRAFFIC_INTERVAL: Duration = Duration::from_secs(60);
const RESPONSE_BUFFER: u64 = 1024;

/// The health check of a cluster, if it has one.
pub(super) fn of(message: &Cluster, discovery: &Discovery, http: &UpstreamHttp) -> Compiled<Option<HealthCheck>> {
    let check = match &message.health_checks[..] {
        [] => return Ok(None),
        [check] => check,
        [_, ..] => return Err(Refusal::not_implemented("more than one")).at("health_checks"),
    };
    let keeps_healthy = match discovery {
        Discovery::OriginalDst(..) => {
            return Err(Refusal::not_implemented("a check of original destinations")).at("health_checks");
        }
        Discovery::Eds(_) => !message.ignore_health_on_host_removal,
        Discovery::Dns(dns) => !dns.logical && !message.ignore_health_on_host_removal,
        Discovery::Static => false,
    };
    let compiled = health_check(check, http).at_index("health_checks", 0)?;
    let lb = message.common_lb_config.as_ref();
    Ok(Some(HealthCheck {
        keeps_healthy,
        ignores_new: lb.is_some_and(|lb| lb.ignore_new_hosts_until_first_hc),
        ..compiled
    }))
}

fn health_check(message: &core::HealthCheck, http: &UpstreamHttp) -> Compiled<HealthCheck> {
    let alpn = message.tls_options.as_ref().map(|tls| &tls.alpn_protocols);
    let alpn = alpn.filter(|protocols| !protocols.is_empty());
    let threshold = |value: Option<&wkt::UInt32Value>| value.map_or(0, |value| value.value);
    Ok(HealthCheck {
        timeout: message.timeout.as_ref().map_or(Duration::ZERO, duration),
        schedule: schedule(message),
        unhealthy_threshold: threshold(message.unhealthy_threshold.as_ref()),
        healthy_threshold: threshold(message.healthy_threshold.as_ref()),
        reuse_connection: truth(message.reuse_connection.as_ref(), true),
        alpn: alpn.map(|protocols| protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect()),
        transport_labels: message.transport_socket_match_criteria.as_ref().map(labels),
        keeps_healthy: false,
        ignores_new: false,
        probe: match &message.health_checker {
            Some(HealthChecker::HttpHealthCheck(check)) => {
                Probe::Http(Box::new(self::http(check).at("http_health_check")?))
            }
            Some(HealthChecker::TcpHealthCheck(check)) => Probe::Tcp(tcp(check).at("tcp_health_check")?),
            Some(HealthChecker::GrpcHealthCheck(check)) => Probe::Grpc(grpc(check, http).at("grpc_health_check")?),
            Some(HealthChecker::CustomHealthCheck(_)) => return Err(Refusal::not_implemented("custom_health_check")),
            None => return Err(Refusal::new("a health checker is required")),
        },
    })
}

fn schedule(message: &core::HealthCheck) -> Schedule {
    let of = |value: Option<&wkt::Duration>, default| value.map_or(default, duration);
    let healthy = of(message.interval.as_ref(), Duration::ZERO);
    let unhealthy = of(message.unhealthy_interval.as_ref(), healthy);
    let no_traffic = of(message.no_traffic_interval.as_ref(), NO_TRAFFIC_INTERVAL);
    Schedule {
        initial_jitter: of(message.initial_jitter.as_ref(), Duration::ZERO),
        healthy,
        unhealthy,
        healthy_edge: of(message.healthy_edge_interval.as_ref(), healthy),
        unhealthy_edge: of(message.unhealthy_edge_interval.as_ref(), unhealthy),
        no_traffic,
        no_traffic_healthy: of(message.no_traffic_healthy_interval.as_ref(), no_traffic),
        jitter: of(message.interval_jitter.as_ref(), Duration::ZERO),
        jitter_percent: message.interval_jitter_percent,
    }
}

fn http(message: &HttpHealthCheck) -> Compiled<HttpCheck> {
    let path = message.path.as_str();
    if !path.starts_with('/') {
        return Err(Refusal::not_implemented("a path that does not begin with `/`")).at("path");
    }
    let path = PathAndQuery::try_from(path).map_err(|_| Refusal::new(format!("`{path}` is not a valid path")));
    let method = method(message.method());
    let send = message.send.as_ref().map(payload).transpose().at("send")?;
    let bodiless = [Method::GET, Method::HEAD, Method::DELETE, Method::TRACE];
    if send.is_some() && bodiless.contains(&method) {
        return Err(Refusal::new(format!("a {method} request cannot have a body"))).at("send");
    }
    let receive = payloads(&message.receive)?;
    let size = message
        .response_buffer_size
        .as_ref()
        .map_or(RESPONSE_BUFFER, |size| size.value);
    // Zero: as much as there is.
    let buffer_size = usize::try_from(size)
        .ok()
        .filter(|size| *size > 0)
        .unwrap_or(usize::MAX);
    if receive.iter().map(Bytes::len).sum::<usize>() > buffer_size {
        return Err(Refusal::new("the expected payload is longer than response_buffer_size")).at("receive");
    }
    let mut expected = statuses(&message.expected_statuses, "expected_statuses")?;
    if expected.is_empty() {
        expected.push(200..201);
    }
    Ok(HttpCheck {
        host: host(&message.host).at("host")?,
        path: path.at("path")?,
        method,
        headers: headers_of(message)?,
        send: send.unwrap_or_default(),
        receive,
        buffer_size,
        expected,
        retriable: statuses(&message.retriable_statuses, "retriable_statuses")?,
        http2: match message.codec_client_type() {
            CodecClientType::Http1 => false,
            CodecClientType::Http2 => true,
            CodecClientType::Http3 => return Err(Refusal::not_implemented("HTTP/3")).at("codec_client_type"),
        },
        service: message
            .service_name_matcher
            .as_ref()
            .map(matcher::text)
            .transpose()
            .at("service_name_matcher")?,
    })
}

/// The value of `host` and `:authority`.
fn host(text: &str) -> Compiled<Box<str>> {
    match HeaderValue::from_str(text) {
        Ok(_) => Ok(text.into()),
        Err(_) => Err(Refusal::new(format!("`{text}` cannot be in a header"))),
    }
}

fn headers_of(message: &HttpHealthCheck) -> Compiled<HeaderMap> {
    let (add, remove) = (&message.request_headers_to_add, &message.request_headers_to_remove);
    let ops = headers::ops("request", add, remove)?;
    if let Some(index) = ops.first_format() {
        return Err(Refusal::not_implemented("a format string here")).at_index("request_headers_to_add", index);
    }
    let mut headers = HeaderMap::from_iter([(USER_AGENT, HeaderValue::from_static("Envoy/HC"))]);
    ops.apply_fixed(&mut headers);
    Ok(headers)
}

fn method(method: RequestMethod) -> Method {
    match method {
        RequestMethod::MethodUnspecified | RequestMethod::Get => Method::GET,
        RequestMethod::Head => Method::HEAD,
        RequestMethod::Post => Method::POST,
        RequestMethod::Put => Method::PUT,
        RequestMethod::Delete => Method::DELETE,
        // Refused by the rules of the field.
        RequestMethod::Connect => Method::CONNECT,
        RequestMethod::Options => Method::OPTIONS,
        RequestMethod::Trace => Method::TRACE,
        RequestMethod::Patch => Method::PATCH,
    }
}

fn statuses(ranges: &[Int64Range], field: &str) -> Compiled<Vec<Range<u16>>> {
    let ranges = ranges.iter().enumerate();
    all(ranges.map(|(index, range)| status_range(range).at_index(field, index)))
}

fn status_range(range: &Int64Range) -> Compiled<Range<u16>> {
    let status = |status: i64| u16::try_from(status).ok().filter(|status| (100..=600).contains(status));
    let range = status(range.start).zip(status(range.end));
    match range.filter(|(start, end)| start < end) {
        Some((start, end)) => Ok(start..end),
        None => Err(Refusal::new("a range of statuses from 100 to 600 is required")),
    }
}

fn tcp(message: &TcpHealthCheck) -> Compiled<TcpCheck> {
    let send = message.send.as_ref().map(payload).transpose().at("send")?;
    Ok(TcpCheck {
        send: send.unwrap_or_default(),
        receive: payloads(&message.receive)?,
    })
}

fn payloads(messages: &[Payload]) -> Compiled<Vec<Bytes>> {
    let messages = messages.iter().enumerate();
    all(messages.map(|(index, message)| payload(message).at_index("receive", index)))
}

fn payload(message: &Payload) -> Compiled<Bytes> {
    match &message.payload {
        Some(Content::Text(text)) => {
            payload::from_hex(text).ok_or_else(|| Refusal::new(format!("`{text}` is not hexadecimal")).within("text"))
        }
        Some(Content::Binary(_)) => Err(Refusal::not_implemented("this field").within("binary")),
        None => Err(Refusal::new("a payload is required")),
    }
}

fn grpc(message: &GrpcHealthCheck, http: &UpstreamHttp) -> Compiled<GrpcCheck> {
    if http.version == HttpVersion::Http1 {
        return Err(Refusal::new("the cluster must speak HTTP/2"));
    }
    Ok(GrpcCheck {
        service: message.service_name.clone(),
        authority: host(&message.authority).at("authority")?,
    })
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use serde_json::{Value, json};

    use super::*;
    use crate::proxy::config::{Names, cluster};
    use crate::xds::transcode::to_wire;

    fn compiled(more: Value) -> Compiled<std::sync::Arc<HealthCheck>> {
        let mut check = json!({"timeout": "2s", "interval": "3s", "unhealthy_threshold": 4, "healthy_threshold": 5});
        check.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let message = json!({"name": "a", "type": "STATIC", "health_checks": [check]});
        let bytes = to_wire("envoy.config.cluster.v3.Cluster", &message).unwrap();
        let compiled = cluster::cluster(&cluster::read(&bytes)?, &mut Names::default())?;
        Ok(compiled.config.health_check.unwrap())
    }

    fn refused(more: Value) -> String {
        compiled(more).unwrap_err().to_string()
    }

    #[test]
    fn what_is_not_said_is_as_in_envoy() {
        let check = compiled(json!({"http_health_check": {"path": "/a"}})).unwrap();
        let seconds = Duration::from_secs;
        assert_eq!(
            (check.timeout, check.unhealthy_threshold, check.healthy_threshold),
            (seconds(2), 4, 5)
        );
        assert!(check.reuse_connection && !check.keeps_healthy);
        let schedule = &check.schedule;
        assert_eq!(
            [schedule.healthy, schedule.unhealthy, schedule.unhealthy_edge],
            [seconds(3); 3]
        );
        assert_eq!([schedule.no_traffic, schedule.no_traffic_healthy], [seconds(60); 2]);
        let Probe::Http(http) = &check.probe else {
            panic!("{check:?}")
        };
        assert_eq!((&http.method, http.http2), (&Method::GET, false));
        assert_eq!(http.expected.iter().cloned().flatten().collect::<Vec<_>>(), [200]);
        assert_eq!(http.headers[USER_AGENT], "Envoy/HC");
        let check = compiled(json!({
            "tcp_health_check": {}, "unhealthy_interval": "7s", "no_traffic_interval": "8s",
        }));
        let schedule = check.unwrap().schedule.clone();
        assert_eq!([schedule.unhealthy, schedule.unhealthy_edge], [seconds(7); 2]);
        assert_eq!([schedule.no_traffic, schedule.no_traffic_healthy], [seconds(8); 2]);
    }

    #[test]
    fn headers_are_changed_in_advance() {
        let check = compiled(json!({"http_health_check": {
            "path": "/a", "method": "POST", "send": {"text": "6162"},
            "request_headers_to_add": [{"header": {"key": "x-a", "value": "b"}}],
            "request_headers_to_remove": ["user-agent"],
        }}));
        let check = check.unwrap();
        let Probe::Http(http) = &check.probe else {
            panic!("{check:?}")
        };
        assert_eq!(http.send, Bytes::from("ab"));
        assert_eq!(
            http.headers,
            HeaderMap::from_iter([("x-a".parse().unwrap(), HeaderValue::from_static("b"))])
        );
    }

    #[test]
    fn what_cannot_be_done_is_refused_by_its_field() {
        let http = |more: Value| {
            let mut check = json!({"path": "/"});
            check.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            refused(json!({"http_health_check": check}))
        };
        let at = "health_checks[0].http_health_check";
        let format = json!({"request_headers_to_add": [{"header": {"key": "a", "value": "%PROTOCOL%"}}]});
        assert_eq!(
            http(format),
            format!("{at}.request_headers_to_add[0]: a format string here is not implemented")
        );
        assert!(http(json!({"codec_client_type": "HTTP3"})).starts_with(&format!("{at}.codec_client_type: ")));
        assert!(http(json!({"path": "a"})).starts_with(&format!("{at}.path: ")));
        assert!(http(json!({"send": {"text": "00"}})).starts_with(&format!("{at}.send: ")));
        let long = json!({"receive": [{"text": "0000"}], "response_buffer_size": 1});
        assert!(http(long).starts_with(&format!("{at}.receive: ")));
        for (range, field) in [
            ((99, 200), "expected_statuses"),
            ((300, 300), "expected_statuses"),
            ((500, 601), "retriable_statuses"),
        ] {
            let ranges = json!({field: [{"start": range.0, "end": range.1}]});
            assert!(http(ranges).starts_with(&format!("{at}.{field}[0]: ")), "{range:?}");
        }
        let grpc = refused(json!({"grpc_health_check": {}}));
        assert_eq!(
            grpc,
            "health_checks[0].grpc_health_check: the cluster must speak HTTP/2"
        );
        let hex = refused(json!({"tcp_health_check": {"receive": [{"text": "000"}]}}));
        assert!(
            hex.starts_with("health_checks[0].tcp_health_check.receive[0].text: "),
            "{hex}"
        );
        assert!(refused(json!({"tcp_health_check": {}, "event_log_path": "/a"})).contains("event_log_path"));
        assert!(refused(json!({})).contains("health_checker"));
    }
}
