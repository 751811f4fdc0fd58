//! Smaller settings of clusters, listeners, connection managers and xDS streams, which work as in Envoy.

use std::collections::BTreeMap;
use std::time::Duration;

use http::{Method, Version};
use serde_json::{Value, json};
use topsail::xds::ResourceType;

use super::harness::alone::{Alone, cluster, http_listener};
use super::harness::wire::Wire;
use super::harness::{Ads, Backend, Call, Plane, eventually, get};
use crate::{between_planes, on_each_plane};

on_each_plane! {
    xds_streams_are_opened_with_their_initial_metadata,
    retry_buffers_are_limited_by_listener_route_and_http2_windows,
    delayed_close_timeout_limits_how_long_closing_connections_stay,
    ipv4_compat_listeners_accept_both_address_families,
    remaining_circuit_breaker_capacity_is_reported_with_track_remaining,
}

between_planes! {
    local_rate_limit_statistics_match_envoy,
}

async fn xds_streams_are_opened_with_their_initial_metadata(plane: Plane) {
    for api_type in ["DELTA_GRPC", "GRPC"] {
        let ads = Ads::start(|_| ()).await;
        let _alone = Alone::follow(plane, &ads, api_type).await;
        let opened = eventually("a stream is opened", async || {
            ads.opened().pop().ok_or("none".to_owned())
        })
        .await;
        let said: Vec<_> = opened.get_all("x-opened-by").iter().collect();
        assert_eq!(said, ["again"]);
    }
}

/// A POST request with a body of this size.
fn upload(alone: &Alone, listener: usize, bytes: usize) -> Call {
    get(alone.listener(listener), "app.example", "/")
        .method(Method::POST)
        .body(&"a".repeat(bytes))
}

async fn retry_buffers_are_limited_by_listener_route_and_http2_windows(plane: Plane) {
    let backend = Backend::http("app").await;
    let retry = json!({"retry_on": "5xx", "num_retries": 1, "retry_back_off": {"base_interval": "0.001s"}});
    let route = |more: Value| {
        let mut route = json!({"match": {"prefix": "/"}, "route": {"cluster": "back", "retry_policy": retry}});
        route.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!([route])
    };
    let windows = json!({"http2_protocol_options": {"initial_stream_window_size": 65_535}});
    let mut listeners = [
        http_listener("usual", "INBOUND", route(json!({})), json!({})),
        http_listener("small", "INBOUND", route(json!({})), windows),
        http_listener(
            "routes",
            "INBOUND",
            route(json!({"request_body_buffer_limit": 2_000_000})),
            json!({}),
        ),
    ];
    for small in &mut listeners[1..] {
        small["per_connection_buffer_limit_bytes"] = json!(20_000);
    }
    let alone = Alone::start(plane, &listeners, &[cluster("back", backend.address())], json!({})).await;
    for (listener, protocol, bytes, kept) in [
        (0, Version::HTTP_11, 900_000, true),
        (0, Version::HTTP_11, 1_200_000, false),
        (0, Version::HTTP_2, 900_000, true),
        (1, Version::HTTP_11, 10_000, true),
        (1, Version::HTTP_11, 40_000, false),
        (1, Version::HTTP_2, 40_000, true),
        (1, Version::HTTP_2, 100_000, false),
        (2, Version::HTTP_11, 1_900_000, true),
        (2, Version::HTTP_11, 2_100_000, false),
    ] {
        backend.fail_next(1);
        let call = upload(&alone, listener, bytes);
        let call = if protocol == Version::HTTP_2 {
            call.http2()
        } else {
            call
        };
        let answer = call.send().await.unwrap();
        let status = if kept { 200 } else { 503 };
        assert_eq!(
            answer.status, status,
            "listener {listener}, {protocol:?}, {bytes} bytes"
        );
        backend.fail_next(0);
    }
}

async fn delayed_close_timeout_limits_how_long_closing_connections_stay(plane: Plane) {
    let routes = json!([{"match": {"prefix": "/"}, "direct_response": {"status": 200}}]);
    let listeners = [("short", "0.1s"), ("long", "60s"), ("none", "0s")]
        .map(|(name, time)| http_listener(name, "INBOUND", routes.clone(), json!({"delayed_close_timeout": time})));
    let alone = Alone::start(plane, &listeners, &[], json!({})).await;
    let mut clients = Vec::new();
    for listener in 0..3 {
        let mut client = Wire::open(alone.listener(listener)).await;
        client
            .send(b"GET / HTTP/1.1\r\nhost: web\r\nconnection: close\r\n\r\n")
            .await;
        client.head().await.unwrap();
        clients.push(client);
    }
    let open = async |name: &str| {
        let name = format!("http.{name}.downstream_cx_active");
        alone.sidecar.stats(&name).await[&name]
    };
    for gone in ["short", "none"] {
        eventually("the connection is closed", async || match open(gone).await {
            0 => Ok(()),
            some => Err(some.to_string()),
        })
        .await;
    }
    // Longer than the default of one second.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(open("long").await, 1);
    drop(clients);
}

async fn ipv4_compat_listeners_accept_both_address_families(plane: Plane) {
    let ads = Ads::start(|_| ()).await;
    let mut alone = Alone::follow(plane, &ads, "DELTA_GRPC").await;
    let routes = json!([{"match": {"prefix": "/"}, "direct_response": {"status": 200}}]);
    let listener = |name: &str, port: u16, both: bool| {
        let mut listener = http_listener(name, "INBOUND", routes.clone(), json!({}));
        listener["address"] = json!({"socket_address": {"address": "::", "port_value": port, "ipv4_compat": both}});
        listener["enable_reuse_port"] = json!(false);
        listener
    };
    let [both, six] = [free_port(), free_port()];
    ads.change(|world| {
        world.put(ResourceType::Cluster, &cluster("any", closed_port()));
        world.put(ResourceType::Listener, &listener("both", both, true));
        world.put(ResourceType::Listener, &listener("six", six, false));
    });
    alone.sidecar.ready().await;
    for (host, port) in [("[::1]", both), ("127.0.0.1", both), ("[::1]", six)] {
        let to = format!("{host}:{port}").parse().unwrap();
        eventually(&format!("an answer from {to}"), async || {
            get(to, "web", "/").send().await
        })
        .await;
    }
    let to = format!("127.0.0.1:{six}").parse().unwrap();
    assert!(get(to, "web", "/").send().await.is_err());
}

fn closed_port() -> std::net::SocketAddr {
    "127.0.0.1:1".parse().unwrap()
}

/// A port that is free on all addresses.
fn free_port() -> u16 {
    let socket = std::net::TcpListener::bind("[::]:0").unwrap();
    socket.local_addr().unwrap().port()
}

async fn remaining_circuit_breaker_capacity_is_reported_with_track_remaining(plane: Plane) {
    let backend = Backend::http("app").await;
    let mut tracked = cluster("tracked", backend.address());
    tracked["circuit_breakers"] = json!({"thresholds": [
        {"max_connections": 7, "max_requests": 6, "max_pending_requests": 5, "track_remaining": true},
        {"priority": "HIGH", "max_connections": 4},
    ]});
    let routes = json!([{"match": {"prefix": "/"}, "route": {"cluster": "tracked"}}]);
    let listener = http_listener("in", "INBOUND", routes, json!({}));
    let clusters = [tracked, cluster("other", backend.address())];
    let alone = Alone::start(plane, &[listener], &clusters, json!({})).await;
    get(alone.listener(0), "app.example", "/").expect(200).await;
    let mut left = alone.sidecar.stats("remaining").await;
    // The bundled proxy does not limit the number of connection pools.
    left.remove("cluster.tracked.circuit_breakers.default.remaining_cx_pools");
    let wanted = [("cx", 6), ("pending", 5), ("retries", 3), ("rq", 6)];
    let wanted = wanted.map(|(name, left)| {
        (
            format!("cluster.tracked.circuit_breakers.default.remaining_{name}"),
            left,
        )
    });
    assert_eq!(left, BTreeMap::from(wanted));
}

/// The rate limit statistics, and their lines in Prometheus format.
async fn counted_by_limits(plane: Plane) -> (BTreeMap<String, u64>, Vec<String>) {
    let percent = |numerator: u32| json!({"default_value": {"numerator": numerator}});
    let limit = |prefix: &str, enforced: u32| {
        json!({
            "@type": "type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit",
            "stat_prefix": prefix,
            "token_bucket": {"max_tokens": 1, "tokens_per_fill": 1, "fill_interval": "3600s"},
            "filter_enabled": percent(100),
            "filter_enforced": percent(enforced),
        })
    };
    let own = json!({"envoy.filters.http.local_ratelimit": limit("of_route", 0)});
    let routes = json!([
        {"match": {"path": "/own"}, "direct_response": {"status": 200}, "typed_per_filter_config": own},
        {"match": {"prefix": "/"}, "direct_response": {"status": 200}},
    ]);
    let filters = json!({"http_filters": [
        {"name": "envoy.filters.http.local_ratelimit", "typed_config": limit("of_all", 100)},
        {"name": "router", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router",
        }},
    ]});
    let alone = Alone::start(
        plane,
        &[http_listener("in", "INBOUND", routes, filters)],
        &[],
        json!({}),
    )
    .await;
    for (path, status) in [("/", 200), ("/", 429), ("/", 429), ("/own", 200), ("/own", 200)] {
        get(alone.listener(0), "app.example", path).expect(status).await;
    }
    let text = alone.sidecar.admin("/stats/prometheus").await;
    let lines = text
        .lines()
        .filter(|line| line.contains("_rate_limit_") && !line.starts_with('#'));
    let mut lines: Vec<_> = lines.map(str::to_owned).collect();
    lines.sort();
    (alone.sidecar.stats("http_local_rate_limit").await, lines)
}

async fn local_rate_limit_statistics_match_envoy() {
    let (envoys, envoys_lines) = counted_by_limits(Plane::Envoy).await;
    let (ours, lines) = counted_by_limits(Plane::Topsail).await;
    assert_eq!(envoys["of_all.http_local_rate_limit.enforced"], 2, "{envoys:#?}");
    assert_eq!(ours, envoys);
    assert_eq!(lines, envoys_lines);
}
