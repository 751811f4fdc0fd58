//! Tracing: the bundled proxy creates the same spans as Envoy for the same requests and configuration.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};
use topsail::xds::otlp::{Span, Status};

use super::harness::alone::{Alone, cluster, cluster_http2, http_listener};
use super::harness::{Backend, Call, Collector, Plane, eventually, get};
use crate::between_planes;

between_planes! {
    mirrored_requests_follow_the_trace_sampled_setting,
    spans_match_envoy,
    spans_are_exported_over_http,
    samplers_decide_as_in_envoy,
}

/// A span without random ids and timestamps.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Said {
    name: String,
    kind: i32,
    flags: u32,
    status: Option<i32>,
    trace_state: String,
    /// The parent: the client's span, another of our spans, or none.
    parent: &'static str,
    attributes: BTreeMap<String, String>,
}

const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

/// A data plane with four listeners: inbound, outbound, and two with `spawn_upstream_span`, one with its own span names.
async fn traced(plane: Plane, backend: &Backend, collector: &Collector, service: Value, more: Value) -> Alone {
    let mut tracing = json!({
        "random_sampling": {"value": 100},
        "max_path_tag_length": 64,
        "custom_tags": [
            {"tag": "literal", "literal": {"value": "fixed"}},
            {"tag": "environment", "environment": {"name": "TOPSAIL_NOT_SET", "default_value": "default"}},
            {"tag": "header", "request_header": {"name": "x-tag", "default_value": "none"}},
            {"tag": "absent", "request_header": {"name": "x-absent"}},
            {"tag": "format", "value": "%REQ(x-tag)%|%RESPONSE_CODE%|%ROUTE_NAME%"},
        ],
        "provider": {"name": "envoy.tracers.opentelemetry", "typed_config": service},
    });
    tracing
        .as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    let routes = json!([
        {"name": "dead", "match": {"prefix": "/dead"}, "route": {"cluster": "dead"}},
        {"name": "deco", "match": {"prefix": "/decorated"}, "route": {"cluster": "back", "prefix_rewrite": "/rewritten"},
         "decorator": {"operation": "decorated-operation"}},
        {"name": "quiet", "match": {"prefix": "/quiet"}, "route": {"cluster": "back"},
         "decorator": {"operation": "quiet-operation", "propagate": false}},
        {"name": "own", "match": {"prefix": "/own"}, "direct_response": {"status": 503}},
        {"name": "never", "match": {"prefix": "/never"}, "route": {"cluster": "back"},
         "tracing": {"random_sampling": {"numerator": 0}}},
        {"name": "tags", "match": {"prefix": "/tags"}, "route": {"cluster": "back"},
         "tracing": {"custom_tags": [{"tag": "literal", "literal": {"value": "of the route"}}]}},
        {"name": "retried", "match": {"prefix": "/retried"}, "route": {
            "cluster": "back", "retry_policy": {"retry_on": "5xx", "num_retries": 1, "retry_back_off": {"base_interval": "0.001s"}}}},
        {"name": "all", "match": {"prefix": "/"}, "route": {"cluster": "back"}},
    ]);
    let mut hop = tracing.clone();
    hop["spawn_upstream_span"] = json!(true);
    let mut named = tracing.clone();
    named["spawn_upstream_span"] = json!(true);
    named["operation"] = json!("own %REQ(:METHOD)%");
    named["upstream_operation"] = json!("to %UPSTREAM_CLUSTER%");
    let listener =
        |name, direction, tracing: &Value| http_listener(name, direction, routes.clone(), json!({"tracing": tracing}));
    let listeners = [
        listener("in", "INBOUND", &tracing),
        listener("out", "OUTBOUND", &tracing),
        listener("hop", "OUTBOUND", &hop),
        listener("named", "UNSPECIFIED", &named),
    ];
    let mut back = cluster("back", backend.address());
    back["alt_stat_name"] = json!("back-statistics");
    let clusters = [
        back,
        // Nothing listens on port 1.
        cluster("dead", "127.0.0.1:1".parse().unwrap()),
        cluster("collector", collector.address()),
        cluster_http2("collector-grpc", collector.address()),
    ];
    // Makes Envoy export spans sooner; the bundled proxy has no runtime keys and would log a warning.
    let runtime =
        json!({"layers": [{"name": "static", "static_layer": {"tracing.opentelemetry.flush_interval_ms": 500}}]});
    let more = match plane {
        Plane::Topsail => json!({}),
        Plane::Envoy | Plane::EnvoyRelease(_) => json!({"layered_runtime": runtime}),
    };
    Alone::start(plane, &listeners, &clusters, more).await
}

/// A request with a fixed request id, which decides about sampling.
fn call(alone: &Alone, listener: usize, path: &str) -> Call {
    get(alone.listener(listener), "app.example", path)
        .header("x-request-id", "00000001-0000-4000-8000-000000000001")
        .header("user-agent", "test")
}

fn grpc_service() -> Value {
    json!({
        "@type": "type.googleapis.com/envoy.config.trace.v3.OpenTelemetryConfig",
        "service_name": "app.default",
        "grpc_service": {"envoy_grpc": {"cluster_name": "collector-grpc"}, "timeout": "5s",
                         "initial_metadata": [{"key": "x-tenant", "value": "t"}]},
    })
}

fn http_service() -> Value {
    json!({
        "@type": "type.googleapis.com/envoy.config.trace.v3.OpenTelemetryConfig",
        "service_name": "app.default",
        "http_service": {"http_uri": {"uri": "http://collector.example/v1/traces", "cluster": "collector", "timeout": "5s"},
                         "request_headers_to_add": [{"header": {"key": "x-tenant", "value": "t"}}]},
    })
}

fn said(spans: &[Span]) -> Vec<Said> {
    let ids: BTreeSet<_> = spans.iter().map(|span| &span.span_id).collect();
    let text = |span: &Span| {
        let attributes = span.attributes.iter();
        attributes
            .map(|one| (one.key.clone(), one.value.clone().unwrap().string_value.unwrap()))
            .collect()
    };
    let said = |span: &Span| {
        assert_eq!((span.trace_id.len(), span.span_id.len()), (16, 8));
        assert!(span.start_time_unix_nano <= span.end_time_unix_nano);
        Said {
            name: span.name.clone(),
            kind: span.kind,
            flags: span.flags,
            status: span.status.map(|Status { code }| code),
            trace_state: span.trace_state.clone(),
            parent: match &span.parent_span_id {
                parent if parent.is_empty() => "none",
                parent if ids.contains(parent) => "ours",
                _ => "the client's",
            },
            attributes: text(span),
        }
    };
    let mut all: Vec<_> = spans.iter().map(said).collect();
    all.sort();
    all
}

/// Sends the requests and returns the spans and the tracing headers that the host and the client received.
async fn spans_of(plane: Plane, service: Value, backend: &Backend) -> (Vec<Said>, Vec<Vec<String>>, Collector) {
    let collector = Collector::start().await;
    let alone = traced(plane, backend, &collector, service, json!({})).await;
    let before = backend.seen().len();
    let (mut count, mut answered) = (0, Vec::new());
    let long = format!("/{}", "long".repeat(40));
    for listener in 0..4 {
        let call = |path| call(&alone, listener, path);
        call("/plain?with=query").header("x-tag", "value").expect(200).await;
        let decorated = call("/decorated").expect(200).await;
        answered.push(vec![decorated.header("x-envoy-decorator-operation").to_owned()]);
        call("/decorated")
            .header("x-envoy-decorator-operation", "of-the-client")
            .expect(200)
            .await;
        call("/quiet").expect(200).await;
        call("/dead").expect(503).await;
        call("/own").expect(503).await;
        call("/missing").header("x-echo-status", "404").expect(404).await;
        call("/tags").expect(200).await;
        call(&long).expect(200).await;
        call("/child")
            .header("traceparent", PARENT)
            .header("tracestate", "a=b")
            .header("tracestate", "c=d")
            .expect(200)
            .await;
        call("/client").header("x-client-trace-id", "mine").expect(200).await;
        call("/grpc")
            .method(http::Method::POST)
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .expect(200)
            .await;
        backend.fail_next(1);
        call("/retried").expect(200).await;
        // None of these is recorded.
        call("/never").expect(200).await;
        call("/unsampled")
            .header("traceparent", &PARENT.replace("-01", "-00"))
            .expect(200)
            .await;
        call("/malformed").header("traceparent", "malformed").expect(200).await;
        // With `spawn_upstream_span` there is also a span for each attempt: eleven requests reach a host, one of them
        // twice, and one fails to connect.
        count += if listener < 2 { 13 } else { 13 + 13 };
    }
    let spans = collector.spans(count).await;
    assert_eq!(spans.len(), count, "{:#?}", said(&spans));
    let received_headers = backend.seen().into_iter().skip(before).map(|seen| {
        let header = |name: &str| seen.headers.get(name).cloned().unwrap_or_else(|| "-".to_owned());
        let parent = header("traceparent");
        let parent = match parent.split('-').collect::<Vec<_>>()[..] {
            [version, trace, _, flags] if PARENT.contains(trace) => format!("{version} the client's {flags}"),
            [version, _, _, flags] => format!("{version} {flags}"),
            _ => parent,
        };
        let names = [
            "tracestate",
            "x-request-id",
            "x-envoy-decorator-operation",
            "x-client-trace-id",
        ];
        let mut received_headers = vec![seen.path.clone(), parent];
        received_headers.extend(names.map(header));
        received_headers
    });
    answered.extend(received_headers);
    (said(&spans), answered, collector)
}

async fn spans_match_envoy() {
    let backend = Backend::http("app").await;
    let (envoys, envoys_headers, _) = spans_of(Plane::Envoy, grpc_service(), &backend).await;
    let (ours, received_headers, collector) = spans_of(Plane::Topsail, grpc_service(), &backend).await;
    for (ours, envoys) in received_headers.iter().zip(&envoys_headers) {
        assert_eq!(ours, envoys);
    }
    for (ours, envoys) in ours.iter().zip(&envoys) {
        assert_eq!(ours, envoys);
    }
    assert_eq!(ours.len(), envoys.len());
    let export = &collector.taken()[0];
    assert_eq!(export.headers["content-type"], "application/grpc");
    assert_eq!(export.headers["te"], "trailers");
    assert_eq!(export.headers["x-tenant"], "t");
}

async fn spans_are_exported_over_http() {
    let backend = Backend::http("app").await;
    for plane in [Plane::Envoy, Plane::Topsail] {
        let (spans, _, collector) = spans_of(plane, http_service(), &backend).await;
        assert_eq!(spans.len(), 78);
        let export = &collector.taken()[0];
        assert_eq!(export.path, "/v1/traces");
        assert_eq!(export.headers["host"], "collector.example");
        assert_eq!(export.headers["content-type"], "application/x-protobuf");
        assert_eq!(export.headers["x-tenant"], "t");
        let resource = export.request.resource_spans[0].resource.clone().unwrap();
        let keys: BTreeSet<_> = resource.attributes.iter().map(|one| one.key.as_str()).collect();
        let sdk = ["telemetry.sdk.language", "telemetry.sdk.name", "telemetry.sdk.version"];
        assert_eq!(keys, BTreeSet::from_iter(["service.name"].into_iter().chain(sdk)));
    }
}

/// The sampled flag that the host receives, by trace: for many given trace ids with and without the client's flag, and
/// for a new trace.
async fn recorded(plane: Plane, percent: u32, sampler: &Value, backend: &Backend) -> BTreeMap<String, String> {
    let collector = Collector::start().await;
    let mut service = grpc_service();
    service["sampler"] = sampler.clone();
    let sampling = json!({"random_sampling": {"value": percent}});
    let alone = traced(plane, backend, &collector, service, sampling).await;
    let before = backend.seen().len();
    for number in 1..=60_u128 {
        // Spreads the trace ids.
        let trace = number.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
        let parent = format!("00-{trace:032x}-b7ad6b7169203331-{:02x}", number % 2);
        call(&alone, 0, "/given")
            .header("traceparent", &parent)
            .expect(200)
            .await;
    }
    call(&alone, 0, "/new").expect(200).await;
    let seen = backend.seen().into_iter().skip(before);
    seen.map(|seen| {
        let parent: Vec<_> = seen.headers["traceparent"].split('-').collect();
        let trace = if seen.path == "/new" { "new" } else { parent[1] };
        (trace.to_owned(), parent[3].to_owned())
    })
    .collect()
}

async fn samplers_decide_as_in_envoy() {
    let sampler = |kind: &str, more: Value| {
        let mut config = more;
        config["@type"] = json!(format!(
            "type.googleapis.com/envoy.extensions.tracers.opentelemetry.samplers.v3.{kind}SamplerConfig"
        ));
        json!({"name": kind, "typed_config": config})
    };
    let always = || sampler("AlwaysOn", json!({}));
    let ratio = |percent: u32| {
        sampler(
            "TraceIdRatioBased",
            json!({"sampling_percentage": {"numerator": percent}}),
        )
    };
    let parent = |wrapped: Value| sampler("ParentBased", json!({"wrapped_sampler": wrapped}));
    let backend = Backend::http("app").await;
    for (percent, sampler, wanted) in [
        (100, always(), 61..=61),
        // The connection manager's sampling decides first.
        (0, always(), 0..=0),
        (100, ratio(50), 15..=45),
        (100, parent(always()), 31..=31),
        (100, parent(ratio(0)), 30..=30),
    ] {
        let mut envoys = recorded(Plane::Envoy, percent, &sampler, &backend).await;
        let mut ours = recorded(Plane::Topsail, percent, &sampler, &backend).await;
        for recorded in [&envoys, &ours] {
            let count = recorded.values().filter(|flags| *flags == "01").count();
            assert!(wanted.contains(&count), "{sampler}: {count}");
        }
        // The id of a new trace is random, so the ratio may select it or not.
        for recorded in [&mut envoys, &mut ours] {
            recorded.remove("new").unwrap();
        }
        assert_eq!(ours, envoys, "{sampler}");
    }
}

#[tokio::test]
async fn an_unreachable_collector_only_drops_spans() {
    let backend = Backend::http("app").await;
    let mut service = grpc_service();
    service["grpc_service"]["envoy_grpc"]["cluster_name"] = json!("dead");
    service["max_cache_size"] = json!(3);
    let collector = Collector::start().await;
    let alone = traced(Plane::Topsail, &backend, &collector, service, json!({})).await;
    for _ in 0..12 {
        call(&alone, 0, "/").expect(200).await;
    }
    eventually("all spans are dropped", async || {
        let stats = alone.sidecar.stats("opentelemetry").await;
        match stats.get("tracing.opentelemetry.spans_dropped") {
            Some(12) => Ok(()),
            dropped => Err(format!("{dropped:?} are")),
        }
    })
    .await;
}

/// The trace flags of a request and of its mirrored copy.
async fn flags_of_mirrored_request(plane: Plane) -> (String, String) {
    let (backend, copies) = (Backend::http("app").await, Backend::http("copies").await);
    let collector = Collector::start().await;
    let tracing = json!({
        "random_sampling": {"value": 100},
        "provider": {"name": "envoy.tracers.opentelemetry", "typed_config": grpc_service()},
    });
    let mirror = json!({"cluster": "copies", "trace_sampled": false});
    let route = json!({"cluster": "back", "request_mirror_policies": [mirror]});
    let routes = json!([{"match": {"prefix": "/"}, "route": route}]);
    let clusters = [
        cluster("back", backend.address()),
        cluster("copies", copies.address()),
        cluster_http2("collector-grpc", collector.address()),
    ];
    let listener = http_listener("in", "INBOUND", routes, json!({"tracing": tracing}));
    let alone = Alone::start(plane, &[listener], &clusters, json!({})).await;
    let seen = call(&alone, 0, "/")
        .header("traceparent", PARENT)
        .expect(200)
        .await
        .seen();
    let copy = eventually("the mirrored request arrives", async || {
        copies.seen().first().cloned().ok_or("none".to_owned())
    })
    .await;
    let trace_flags = |parent: &str| {
        let parts: Vec<_> = parent.split('-').collect();
        assert!(PARENT.contains(parts[1]) && !PARENT.contains(parts[2]), "{parent}");
        parts[3].to_owned()
    };
    (
        trace_flags(&seen.headers["traceparent"]),
        trace_flags(&copy.headers["traceparent"]),
    )
}

async fn mirrored_requests_follow_the_trace_sampled_setting() {
    let envoys = flags_of_mirrored_request(Plane::Envoy).await;
    assert_eq!(envoys, ("01".to_owned(), "00".to_owned()));
    assert_eq!(flags_of_mirrored_request(Plane::Topsail).await, envoys);
}
