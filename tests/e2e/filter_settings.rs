//! Filter configuration of virtual hosts, routes and weighted clusters (`typed_per_filter_config`).

use std::collections::BTreeMap;

use http::Method;
use serde_json::{Value, json};

use crate::harness::alone::{Alone, cluster, http_listener};
use crate::harness::{Answer, Backend, Call, Plane, get};
use crate::on_each_plane;

on_each_plane! {
    the_most_specific_per_filter_config_applies,
    weighted_clusters_have_their_own_per_filter_config,
}

const FAULT: &str = "envoy.filters.http.fault";
const CORS: &str = "envoy.filters.http.cors";
const RATE_LIMIT: &str = "envoy.filters.http.local_ratelimit";

fn abort(status: u16) -> Value {
    json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault",
        "abort": {"http_status": status, "percentage": {"numerator": 100}},
    })
}

fn cors(policy: Value) -> Value {
    let mut policy = policy;
    policy["@type"] = json!("type.googleapis.com/envoy.extensions.filters.http.cors.v3.CorsPolicy");
    policy
}

/// A token bucket that is not refilled within a test.
fn bucket(tokens: u32) -> Value {
    let all = json!({"default_value": {"numerator": 100}});
    json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit",
        "stat_prefix": "limit",
        "token_bucket": {"max_tokens": tokens, "tokens_per_fill": 1, "fill_interval": "3600s"},
        "filter_enabled": all,
        "filter_enforced": all,
    })
}

/// A route for this path to weighted clusters, each with its per-filter config.
fn weighted(path: &str, route: Value, shares: &[(u32, Value)]) -> Value {
    let shares = shares
        .iter()
        .map(|(weight, config)| json!({"name": "back", "weight": weight, "typed_per_filter_config": config}));
    json!({
        "match": {"path": path},
        "route": {"weighted_clusters": {"clusters": shares.collect::<Vec<_>>()}},
        "typed_per_filter_config": route,
    })
}

async fn start(plane: Plane, backend: &Backend, host: Value, routes: Value) -> Alone {
    let filter = |name: &str, kind: &str| json!({"name": name, "typed_config": {"@type": format!("type.googleapis.com/envoy.extensions.filters.http.{kind}")}});
    let filters = json!({"http_filters": [
        filter(CORS, "cors.v3.Cors"),
        filter(FAULT, "fault.v3.HTTPFault"),
        {"name": RATE_LIMIT, "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit",
            "stat_prefix": "limit",
        }},
        filter("envoy.filters.http.router", "router.v3.Router"),
    ]});
    let mut listener = http_listener("in", "INBOUND", routes, filters);
    let manager = &mut listener["filter_chains"][0]["filters"][0]["typed_config"];
    manager["route_config"]["virtual_hosts"][0]["typed_per_filter_config"] = host;
    Alone::start(plane, &[listener], &[cluster("back", backend.address())], json!({})).await
}

fn call(alone: &Alone, path: &str) -> Call {
    get(alone.listener(0), "app.example", path)
}

/// The CORS headers of a response, without their common prefix.
fn cors_headers(answer: &Answer) -> BTreeMap<&str, &str> {
    let headers = answer.headers.iter();
    let headers = headers.filter_map(|(name, value)| {
        let name = name.as_str().strip_prefix("access-control-")?;
        Some((name, value.to_str().unwrap()))
    });
    headers.collect()
}

async fn the_most_specific_per_filter_config_applies(plane: Plane) {
    let backend = Backend::http("app").await;
    let host = json!({
        FAULT: abort(410),
        CORS: cors(json!({"allow_methods": "HOST", "max_age": "5", "allow_credentials": true, "expose_headers": "host"})),
        RATE_LIMIT: bucket(1000),
    });
    let nothing = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault",
    });
    let origin = json!({"allow_origin_string_match": [{"exact": "http://app.example"}]});
    let routes = json!([
        weighted("/host", json!({}), &[(1, json!({}))]),
        weighted("/route", json!({FAULT: abort(411)}), &[(1, json!({}))]),
        weighted("/share", json!({FAULT: abort(411)}), &[(1, json!({FAULT: abort(412)}))]),
        weighted("/none", json!({FAULT: abort(411)}), &[(1, json!({FAULT: nothing}))]),
        {"match": {"path": "/direct"}, "direct_response": {"status": 200}, "typed_per_filter_config": {FAULT: abort(413)}},
        weighted(
            "/cors",
            json!({FAULT: nothing, CORS: cors(json!({"allow_methods": "ROUTE", "allow_headers": "route"}))}),
            &[(1, json!({CORS: cors(origin)}))],
        ),
        weighted("/limit", json!({FAULT: nothing, RATE_LIMIT: bucket(2)}), &[(1, json!({RATE_LIMIT: bucket(1)}))]),
        weighted("/wide", json!({FAULT: nothing, RATE_LIMIT: bucket(2)}), &[(1, json!({}))]),
    ]);
    let alone = start(plane, &backend, host, routes).await;
    for (path, status) in [
        ("/host", 410),
        ("/route", 411),
        ("/share", 412),
        ("/none", 200),
        ("/direct", 413),
        ("/limit", 200),
        ("/limit", 429),
        ("/wide", 200),
        ("/wide", 200),
        ("/wide", 429),
    ] {
        call(&alone, path).expect(status).await;
    }
    let preflight = call(&alone, "/cors")
        .method(Method::OPTIONS)
        .header("origin", "http://app.example")
        .header("access-control-request-method", "GET");
    let wanted = [
        ("allow-origin", "http://app.example"),
        ("allow-credentials", "true"),
        ("allow-methods", "ROUTE"),
        ("allow-headers", "route"),
        ("expose-headers", "host"),
        ("max-age", "5"),
    ];
    assert_eq!(cors_headers(&preflight.expect(200).await), wanted.into());
    let plain = call(&alone, "/cors").header("origin", "http://app.example");
    let wanted = [
        ("allow-origin", "http://app.example"),
        ("allow-credentials", "true"),
        ("expose-headers", "host"),
    ];
    assert_eq!(cors_headers(&plain.expect(200).await), wanted.into());
}

async fn weighted_clusters_have_their_own_per_filter_config(plane: Plane) {
    let backend = Backend::http("app").await;
    let shares = [
        (50, json!({FAULT: abort(410)})),
        (50, json!({FAULT: abort(411)})),
        (0, json!({FAULT: abort(412)})),
    ];
    let alone = start(plane, &backend, json!({}), json!([weighted("/", json!({}), &shares)])).await;
    let mut counts = BTreeMap::new();
    for _ in 0..100 {
        let answer = call(&alone, "/").send().await.unwrap();
        *counts.entry(answer.status.as_u16()).or_insert(0) += 1;
    }
    // For 100 requests at 50 %, the standard deviation is 5.
    assert_eq!(counts.keys().copied().collect::<Vec<_>>(), [410, 411]);
    assert!((15..=85).contains(&counts[&410]), "{counts:?}");
}
