//! Retries: their statistics, the reuse of connections, and the limits for them.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::harness::alone::{Alone, access_log, cluster, http_listener};
use super::harness::scripted::Scripted;
use super::harness::wire::Wire;
use super::harness::{Plane, eventually};
use crate::between_planes;

between_planes! {
    retries_are_made_and_counted_as_in_envoy,
}

const LOG: &str =
    "%REQ(X-CASE)% %RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %UPSTREAM_REQUEST_ATTEMPT_COUNT%\n";

/// A request: its cluster, the retry policy of its route, further fields of the cluster, and the method with the host's
/// script.
type Case = (&'static str, Value, Value, &'static str);

fn cases() -> Vec<Case> {
    let on = |on: &str| json!({"retry_on": on, "num_retries": 2, "retry_back_off": {"base_interval": "0.001s"}});
    let limits = |limits: Value| json!({"circuit_breakers": {"thresholds": [limits]}});
    let budget = |percent: f64, least: u32| {
        limits(json!({"retry_budget": {"budget_percent": {"value": percent}, "min_retry_concurrency": least}}))
    };
    let says = |answer: &'static str| answer;
    let bodiless = says("GET|take; say HTTP/1.1 503 No~content-length: 0~~");
    let with_body = says("GET|take; say HTTP/1.1 503 No~content-length: 2~~no");
    vec![
        // A complete response leaves its connection for the next attempt.
        ("whole", on("5xx"), json!({}), bodiless),
        ("body", on("5xx"), json!({}), with_body),
        (
            "head",
            on("5xx"),
            json!({}),
            "HEAD|take; say HTTP/1.1 503 No~content-length: 2~~",
        ),
        (
            "early",
            on("5xx"),
            json!({}),
            "POST|say HTTP/1.1 503 No~content-length: 0~~",
        ),
        (
            "conflict",
            on("retriable-4xx"),
            json!({}),
            "GET|take; say HTTP/1.1 409 No~content-length: 0~~",
        ),
        ("unwanted", on("connect-failure"), json!({}), bodiless),
        ("breaks", on("reset"), json!({}), "GET|take; close"),
        // Circuit breakers and budgets limit retries.
        ("none", on("5xx"), limits(json!({"max_retries": 0})), bodiless),
        (
            "none-breaks",
            on("reset"),
            limits(json!({"max_retries": 0})),
            "GET|take; close",
        ),
        ("fifth", on("5xx"), budget(20.0, 0), bodiless),
        ("more", on("5xx"), budget(100.0, 0), bodiless),
        ("least", on("5xx"), budget(20.0, 1), bodiless),
    ]
}

const COUNTED: [&str; 10] = [
    "upstream_cx_total",
    "upstream_cx_destroy",
    "upstream_rq_total",
    "upstream_rq_tx_reset",
    "upstream_rq_rx_reset",
    "upstream_rq_retry",
    "upstream_rq_retry_overflow",
    "upstream_rq_retry_limit_exceeded",
    "upstream_rq_retry_success",
    "retry.upstream_rq_503",
];

async fn all(which: Plane) -> BTreeMap<&'static str, Vec<String>> {
    let host = Scripted::start().await;
    let cases = cases();
    let routes = cases.iter().map(|(name, policy, ..)| {
        json!({"match": {"path": format!("/{name}")}, "route": {"cluster": name, "retry_policy": policy}})
    });
    let routes = routes.collect::<Vec<_>>();
    let listener = http_listener("in", "OUTBOUND", json!(routes), json!({"access_log": access_log(LOG)}));
    let clusters = cases.iter().map(|(name, _, more, _)| {
        let mut cluster = cluster(name, host.address);
        cluster
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        cluster
    });
    let alone = Alone::start(which, &[listener], &clusters.collect::<Vec<_>>(), json!({})).await;
    for (name, _, _, says) in &cases {
        let (method, script) = says.split_once('|').unwrap();
        let mut wire = Wire::open(alone.listener(0)).await;
        let length = if method == "POST" { "content-length: 4\r\n" } else { "" };
        let head =
            format!("{method} /{name} HTTP/1.1\r\nhost: web\r\nx-case: {name}\r\nx-script: {script}\r\n{length}\r\n");
        wire.send(head.as_bytes()).await;
        let answered = if method == "HEAD" {
            wire.head().await
        } else {
            wire.answer().await
        };
        assert!(answered.is_some(), "{name}");
    }
    let lines = eventually("all requests are logged", async || {
        let written = alone.wrote("access.log");
        let lines: BTreeMap<_, _> = written
            .lines()
            .filter_map(|line| line.split_once(' '))
            .map(|(case, line)| (case.to_owned(), line.to_owned()))
            .collect();
        if lines.len() == cases.len() {
            Ok(lines)
        } else {
            Err(written)
        }
    })
    .await;
    let (stats, hosts) = (alone.sidecar.stats("").await, alone.sidecar.admin("/clusters").await);
    let outcome = cases.iter().map(|(name, ..)| {
        let mut outcome = vec![lines[*name].clone()];
        outcome.extend(COUNTED.iter().filter_map(|counter| {
            let value = stats
                .get(&format!("cluster.{name}.{counter}"))
                .filter(|value| **value > 0)?;
            Some(format!("{counter} {value}"))
        }));
        outcome.extend(hosts.lines().filter_map(|line| {
            let (_, line) = line.strip_prefix(&format!("{name}::127.0.0.1:"))?.split_once("::")?;
            (line.starts_with("rq_") && !line.starts_with("rq_pending")).then(|| line.to_owned())
        }));
        (*name, outcome)
    });
    outcome.collect()
}

async fn retries_are_made_and_counted_as_in_envoy() {
    let (envoy, ours) = tokio::join!(all(Plane::Envoy), all(Plane::Topsail));
    let mut differ = Vec::new();
    for (name, envoys) in &envoy {
        if envoys != &ours[name] {
            differ.push(format!("{name}\nEnvoy: {envoys:#?}\nours: {:#?}", ours[name]));
        }
    }
    assert!(differ.is_empty(), "{}", differ.join("\n"));
}
