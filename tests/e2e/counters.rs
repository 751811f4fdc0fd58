//! Statistics of connections, requests, gRPC calls and routes: the same numbers as in Envoy for the same bytes.

use std::collections::BTreeMap;

use serde_json::json;

use super::harness::alone::{Alone, cluster, cluster_http2, http_listener};
use super::harness::frames::{Frame, Frames, headers, request};
use super::harness::wire::Wire;
use super::harness::{Backend, Plane, eventually, get};
use crate::between_planes;

between_planes! {
    connection_byte_and_response_counters_match_envoy,
    grpc_call_and_message_counters_match_envoy,
}

const OWN: &[u8] = b"GET /own HTTP/1.1\r\nhost: app.example\r\n\r\n";
const LAST: &[u8] = b"GET /own HTTP/1.1\r\nhost: app.example\r\nconnection: close\r\n\r\n";
const ANSWERED: &[u8] = b"GET /back HTTP/1.1\r\nhost: app.example\r\n\r\n";
const COPIED: &[u8] = b"GET /copied HTTP/1.1\r\nhost: app.example\r\n\r\n";
const SLOW: &[u8] = b"GET /back HTTP/1.1\r\nhost: app.example\r\nx-echo-delay: 60000\r\n\r\n";

/// Parts of the names of the statistics that are compared.
const COMPARED: [&str; 19] = [
    ".downstream_cx_total",
    ".downstream_cx_active",
    ".downstream_cx_http1_",
    ".downstream_cx_http2_",
    ".downstream_cx_destroy",
    ".downstream_cx_rx_bytes",
    ".downstream_cx_tx_bytes",
    ".downstream_rq_completed",
    ".downstream_rq_2xx",
    ".downstream_rq_4xx",
    ".external.",
    ".internal.",
    ".upstream_rq_200",
    ".upstream_rq_2xx",
    ".upstream_rq_completed",
    ".upstream_cx_destroy",
    ".upstream_cx_rx_bytes",
    ".upstream_cx_tx_bytes",
    ".total_match_count",
];

/// Parts of the names of the statistics that are not compared, and why.
const NOT_COMPARED: [(&str, &str); 5] = [
    ("admin", "the admin interface is not a listener"),
    (
        "http.two.downstream_cx_tx",
        "the planes encode HTTP/2 header blocks differently",
    ),
    (
        "http.two.downstream_cx_rx_bytes_buffered",
        "the size of each read varies",
    ),
    ("cluster.copies.upstream_cx", "mirrored requests have different headers"),
    (
        "_with_active_rq",
        "upstream connections that close with active requests are not counted separately",
    ),
];

/// Connections that stay open.
struct Open {
    _http1: Wire,
    _http2: Frames,
    _raw: Wire,
}

async fn start(plane: Plane, backend: &Backend, raw: &Backend) -> Alone {
    let to = |path: &str, more: serde_json::Value| {
        let mut route = json!({"cluster": "back"});
        route.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({"match": {"prefix": path}, "route": route})
    };
    let routes = json!([
        {"match": {"path": "/own"}, "direct_response": {"status": 200, "body": {"inline_string": "own"}}},
        to("/copied", json!({"request_mirror_policies": [{"cluster": "copies"}]})),
        to("/back", json!({})),
    ]);
    let listener = |name: &str, mut more: serde_json::Value| {
        // `x-envoy-upstream-service-time` would change the length of responses.
        more["http_filters"] = json!([{"name": "router", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router",
            "suppress_envoy_headers": true,
        }}]);
        http_listener(name, "INBOUND", routes.clone(), more)
    };
    let brief = json!({"common_http_protocol_options": {"idle_timeout": "0.1s"}, "drain_timeout": "0.1s"});
    let tcp = json!({"name": "raw", "filter_chains": [{"filters": [{"name": "tcp", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
        "stat_prefix": "raw", "cluster": "raw",
    }}]}]});
    let listeners = [
        listener("one", json!({})),
        listener("two", json!({})),
        listener("brief", brief),
        tcp,
    ];
    let mut matched = cluster("back", backend.address());
    matched["transport_socket_matches"] = json!([
        {"name": "nobody", "match": {"mode": "none"}, "transport_socket": {"name": "raw"}},
        {"name": "everybody", "match": {}, "transport_socket": {"name": "raw"}},
    ]);
    for one in matched["transport_socket_matches"].as_array_mut().unwrap() {
        one["transport_socket"]["typed_config"] =
            json!({"@type": "type.googleapis.com/envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer"});
    }
    let clusters = [
        matched,
        cluster("copies", backend.address()),
        cluster("raw", raw.address()),
    ];
    Alone::start(plane, &listeners, &clusters, json!({})).await
}

/// Opens and closes client connections in different ways.
async fn act(alone: &Alone, backend: &Backend) -> Open {
    let asked = async |listener, request: &[u8], status| {
        let mut client = Wire::open(alone.listener(listener)).await;
        client.send(request).await;
        assert_eq!(client.answer().await.unwrap().status, status);
        client
    };
    let before = backend.seen().len();
    let has_seen = async |count: usize| {
        eventually(&format!("the host has {count} requests"), async || {
            let seen = backend.seen().len() - before;
            (seen == count).then_some(()).ok_or(format!("{seen}"))
        })
        .await;
    };
    for request in [OWN, LAST, ANSWERED, COPIED] {
        asked(0, request, 200).await;
    }
    asked(0, b"GET /missing HTTP/1.1\r\nhost: app.example\r\n\r\n", 404).await;
    asked(0, b"BAD\r\n\r\n", 400).await;
    has_seen(3).await;
    let mut impatient = Wire::open(alone.listener(0)).await;
    impatient.send(SLOW).await;
    let mut resets = Frames::open(alone.listener(1)).await;
    let fields = [&request("GET", "/back")[..], &[("x-echo-delay", "60000")]].concat();
    resets.send(&[headers(1, &fields, true)]).await;
    has_seen(5).await;
    drop((impatient, resets));
    // An idle connection is closed.
    asked(2, OWN, 200).await.end().await;
    let mut http2 = Frames::open(alone.listener(1)).await;
    http2.send(&[headers(1, &request("GET", "/own"), true)]).await;
    while http2
        .next()
        .await
        .is_some_and(|frame| frame.stream == 0 || frame.flags & 1 == 0)
    {}
    let mut raw = Wire::open(alone.listener(3)).await;
    raw.send(b"some").await;
    assert_eq!(raw.bytes(9).await, b"tail:some");
    raw.send(b"thing").await;
    assert_eq!(raw.bytes(10).await, b"tail:thing");
    Open {
        _http1: asked(0, OWN, 200).await,
        _http2: http2,
        _raw: raw,
    }
}

/// The compared statistics that are not zero, without the listener's address in their names.
async fn counted(alone: &Alone) -> BTreeMap<String, u64> {
    let stats = alone.sidecar.stats(".").await;
    let is_compared = |name: &str| {
        let left_out = NOT_COMPARED.iter().any(|(part, _)| name.contains(part));
        !left_out && COMPARED.iter().any(|part| name.contains(part))
    };
    let compared = stats
        .into_iter()
        .filter(|(name, value)| *value > 0 && is_compared(name));
    let named = compared.filter_map(|(name, value)| match name.strip_prefix("listener.") {
        // Only the HTTP statistics of a listener are compared.
        Some(rest) => Some((format!("listener.*.http.{}", rest.split_once(".http.")?.1), value)),
        None => Some((name, value)),
    });
    named.collect()
}

async fn connection_byte_and_response_counters_match_envoy() {
    let (backend, raw) = (Backend::http("app").await, Backend::tcp("tail").await);
    let envoy = start(Plane::Envoy, &backend, &raw).await;
    let open = act(&envoy, &backend).await;
    let envoys = eventually("Envoy has counted all connections", async || {
        let counted = counted(&envoy).await;
        let gone = |name: &str| counted.get(&format!("http.{name}.downstream_cx_destroy")).copied();
        match (gone("one"), gone("two"), gone("brief")) {
            (Some(7), Some(1), Some(1)) => Ok(counted),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    drop((open, envoy));
    let topsail = start(Plane::Topsail, &backend, &raw).await;
    let _open = act(&topsail, &backend).await;
    eventually("the counters match Envoy's", async || {
        let ours = counted(&topsail).await;
        let names: std::collections::BTreeSet<_> = ours.keys().chain(envoys.keys()).collect();
        let different = names.into_iter().filter(|name| ours.get(*name) != envoys.get(*name));
        let different: Vec<_> = different
            .map(|name| format!("{name}: {:?}, Envoy {:?}", ours.get(name), envoys.get(name)))
            .collect();
        match different.is_empty() {
            true => Ok(()),
            false => Err(different.join("\n")),
        }
    })
    .await;
}

/// A gRPC message with its prefix.
const MESSAGE: &str = "\0\0\0\0\u{3}abc";

/// A data plane with a listener and a cluster for each configuration of the gRPC statistics filter.
async fn start_counting(plane: Plane, host: &Backend) -> Alone {
    let filter = |name: &str, mut config: serde_json::Value| {
        config["@type"] = json!(format!("type.googleapis.com/envoy.extensions.filters.http.{name}"));
        json!({"name": name, "typed_config": config})
    };
    let counts = |config| filter("grpc_stats.v3.FilterConfig", config);
    let web = filter("grpc_web.v3.GrpcWeb", json!({}));
    let some = json!({"services": [{"name": "a.Greeter", "method_names": ["Hello"]}]});
    let chains = [
        ("together", vec![counts(json!({"emit_filter_state": true}))]),
        ("not_all", vec![counts(json!({"stats_for_all_methods": false}))]),
        ("all", vec![counts(json!({"stats_for_all_methods": true}))]),
        ("some", vec![counts(json!({"individual_method_stats_allowlist": some}))]),
        ("web", vec![web.clone(), counts(json!({}))]),
        ("not_web", vec![counts(json!({})), web]),
    ];
    let listeners = chains.clone().map(|(name, mut filters)| {
        filters.push(filter("router.v3.Router", json!({})));
        let routes = json!([
            {"match": {"prefix": "/dead"}, "route": {"cluster": "dead"}},
            {"match": {"prefix": "/own"}, "direct_response": {"status": 503}},
            {"match": {"prefix": "/"}, "route": {"cluster": name}},
        ]);
        http_listener(name, "INBOUND", routes, json!({"http_filters": filters}))
    });
    let mut clusters: Vec<_> = chains
        .iter()
        .map(|(name, _)| cluster_http2(name, host.address()))
        .collect();
    clusters.push(cluster("dead", "127.0.0.1:1".parse().unwrap()));
    Alone::start(plane, &listeners, &clusters, json!({})).await
}

/// Makes gRPC, gRPC-Web and other calls that end in different ways.
async fn call_in_all_ways(alone: &Alone, listener: usize) {
    for (path, kind, body, status) in [
        ("/a.Greeter/Hello", "application/grpc", MESSAGE, "0"),
        ("/a.Greeter/Hello?x=/y", "application/grpc+proto", MESSAGE, "13"),
        ("/a.Greeter/Hello", "application/grpc", "", "5"),
        ("/a.Greeter/Hello", "application/grpc", MESSAGE, "99"),
        ("/a.Greeter/Other", "application/grpc", MESSAGE, "00"),
        ("/no-method", "application/grpc", MESSAGE, "0"),
        ("/dead/Call", "application/grpc", "", "0"),
        ("/own/Call", "application/grpc", MESSAGE, "0"),
        ("/a.Greeter/Hello", "application/json", MESSAGE, "0"),
        ("/a.Greeter/Hello", "application/grpc-web+proto", MESSAGE, "0"),
        ("/a.Greeter/Hello", "application/grpc-web+proto", MESSAGE, "7"),
        ("/a.Greeter/Hello", "application/grpc-web+proto", "", "7"),
    ] {
        let call = get(alone.listener(listener), "app.example", path).method(http::Method::POST);
        let call = call.header("content-type", kind).header("x-status", status).body(body);
        call.http2().send().await.unwrap();
    }
    let mut stream = Frames::open(alone.listener(listener)).await;
    let fields = [
        &request("POST", "/a.Greeter/Chat")[..],
        &[("content-type", "application/grpc")],
    ]
    .concat();
    let three = MESSAGE.repeat(3);
    let (begin, rest) = three.as_bytes().split_at(11);
    stream
        .send(&[
            headers(1, &fields, false),
            Frame::new(0, 0, 1, begin),
            Frame::new(0, 1, 1, rest),
        ])
        .await;
    while stream
        .next()
        .await
        .is_some_and(|frame| frame.stream == 0 || frame.flags & 1 == 0)
    {}
}

/// The gRPC statistics, and their lines in Prometheus format.
async fn counted_of_calls(plane: Plane, host: &Backend) -> (BTreeMap<String, u64>, Vec<String>) {
    let alone = start_counting(plane, host).await;
    for listener in 0..6 {
        call_in_all_ways(&alone, listener).await;
    }
    let stats = alone.sidecar.stats("[.]grpc(-web)?[.]").await;
    let text = alone.sidecar.admin("/stats/prometheus").await;
    let mut lines: Vec<_> = text
        .lines()
        .filter(|line| line.contains("_grpc_"))
        .map(str::to_owned)
        .collect();
    lines.sort();
    (stats, lines)
}

async fn grpc_call_and_message_counters_match_envoy() {
    let host = Backend::calls("app").await;
    let (envoys, envoys_lines) = counted_of_calls(Plane::Envoy, &host).await;
    let (ours, lines) = counted_of_calls(Plane::Topsail, &host).await;
    assert_eq!(envoys["cluster.together.grpc.total"], 6, "{envoys:#?}");
    assert_eq!(envoys["cluster.all.grpc.a.Greeter.Chat.response_message_count"], 3);
    assert_eq!(envoys["cluster.web.grpc-web.a.Greeter.Hello.total"], 3, "{envoys:#?}");
    assert_eq!(ours, envoys);
    assert_eq!(lines, envoys_lines);
}

/// The statistics of routes with a `stat_prefix`, and their lines in Prometheus format.
async fn counted_by_a_route(plane: Plane, backend: &Backend) -> (BTreeMap<String, u64>, Vec<String>) {
    let retry = json!({"retry_on": "5xx", "num_retries": 1, "retry_back_off": {"base_interval": "0.001s"}});
    let route = |path: &str, cluster: &str, name: &str| {
        let route = json!({"cluster": cluster, "retry_policy": retry, "timeout": "0.5s"});
        json!({"match": {"prefix": path}, "route": route, "stat_prefix": name})
    };
    let mut empty = cluster("empty", backend.address());
    empty["load_assignment"]["endpoints"] = json!([]);
    let mut busy = cluster("busy", backend.address());
    busy["circuit_breakers"] = json!({"thresholds": [{"max_retries": 0}]});
    let clusters = [
        cluster("back", backend.address()),
        cluster("dead", "127.0.0.1:1".parse().unwrap()),
        empty,
        busy,
    ];
    let mut own = route("/own", "", "own");
    own.as_object_mut().unwrap().remove("route");
    own["direct_response"] = json!({"status": 200});
    let routes = json!([
        route("/empty", "empty", "empty"),
        route("/dead", "dead", "dead"),
        route("/busy", "busy", "busy"),
        route("/nobody", "nobody", "nobody"),
        own,
        route("/unnamed", "back", ""),
        route("/", "back", "back"),
    ]);
    let mut listener = http_listener("in", "INBOUND", routes, json!({}));
    let manager = &mut listener["filter_chains"][0]["filters"][0]["typed_config"];
    manager["route_config"]["virtual_hosts"][0]["name"] = json!("app:80");
    manager["route_config"]["validate_clusters"] = json!(false);
    let alone = Alone::start(plane, &[listener], &clusters, json!({})).await;
    let call = |path: &str| get(alone.listener(0), "app.example", path);
    for path in ["/", "/own", "/unnamed"] {
        call(path).expect(200).await;
    }
    for path in ["/empty", "/dead", "/nobody"] {
        call(path).expect(503).await;
    }
    for path in ["/", "/busy"] {
        call(path).header("x-echo-status", "503").expect(503).await;
    }
    backend.fail_next(1);
    call("/").expect(200).await;
    call("/").header("x-echo-delay", "2000").expect(504).await;
    let stats = alone.sidecar.stats("^vhost").await;
    let text = alone.sidecar.admin("/stats/prometheus").await;
    let lines = text
        .lines()
        .filter(|line| line.contains("vhost") && !line.contains("_time"));
    let mut lines: Vec<_> = lines.map(str::to_owned).collect();
    lines.sort();
    (stats, lines)
}

#[tokio::test]
async fn statistics_of_routes_with_a_stat_prefix_match_envoy() {
    let backend = Backend::http("app").await;
    let (envoys, envoys_lines) = counted_by_a_route(Plane::Envoy, &backend).await;
    let (ours, lines) = counted_by_a_route(Plane::Topsail, &backend).await;
    assert!(!envoys.is_empty());
    assert_eq!(ours, envoys);
    assert_eq!(lines, envoys_lines);
}
