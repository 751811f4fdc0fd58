//! Response times, and clients that do not read their responses.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::future::join_all;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;

use super::harness::alone::{Alone, cluster, http_listener};
use super::harness::scripted::Scripted;
use super::harness::wire::Wire;
use super::harness::{Plane, eventually, lasting};
use crate::between_planes;

between_planes! {
    connections_close_although_the_client_does_not_read_the_last_response,
    upstream_response_times_are_measured_as_in_envoy,
}

/// A client that does not read a complete response, on a connection that is closed after it or kept alive.
async fn unread_connection_closes(which: Plane, headers: &str) {
    let body = json!({"inline_string": "a".repeat(4 << 20)});
    let host = json!({"name": "host", "domains": ["*"], "routes": [
        {"match": {"prefix": "/"}, "direct_response": {"status": 200, "body": body}},
    ]});
    let routes = json!({"name": "routes", "max_direct_response_body_size_bytes": 4 << 20, "virtual_hosts": [host]});
    let more = json!({
        "route_config": routes, "drain_timeout": "0.1s", "common_http_protocol_options": {"idle_timeout": "1s"},
    });
    let alone = Alone::start(
        which,
        &[http_listener("in", "OUTBOUND", json!([]), more)],
        &[],
        json!({}),
    )
    .await;
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut client = socket.connect(alone.listener(0)).await.unwrap();
    let head = format!("GET / HTTP/1.1\r\nhost: web\r\n{headers}\r\n");
    client.write_all(head.as_bytes()).await.unwrap();
    eventually("the connection is counted and closed", async || {
        let stats = alone.sidecar.stats("http.in.downstream_cx").await;
        let of = |name: &str| stats[&format!("http.in.downstream_cx_{name}")];
        match (of("total"), of("active")) {
            (1, 0) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    // The response was not delivered completely.
    let mut rest = Vec::new();
    let read = client.read_to_end(&mut rest).await;
    assert!(read.is_err() || rest.len() < 4 << 20, "{}", rest.len());
}

async fn connections_close_although_the_client_does_not_read_the_last_response() {
    for which in [Plane::Envoy, Plane::Topsail] {
        for headers in ["connection: close\r\n", ""] {
            unread_connection_closes(which, headers).await;
        }
    }
}

/// Count and sum, in seconds, of each cluster's `upstream_rq_time` histograms.
async fn timed(which: Plane) -> BTreeMap<String, (u64, f64)> {
    let host = Scripted::start().await;
    let scripts = [
        (
            "late-end",
            "take; say HTTP/1.1 200 OK~content-length: 9~~half; wait 1000; say other",
        ),
        ("late-head", "take; wait 1000; say HTTP/1.1 200 OK~content-length: 0~~"),
        ("late-request", ""),
        ("early", "say HTTP/1.1 200 OK~content-length: 2~~ok"),
        ("broken", "take; say HTTP/1.1 200 OK~content-length: 9~~half; close"),
        ("again", "take; wait 1000; say HTTP/1.1 503 No~content-length: 0~~"),
        ("never", "take; stall"),
    ];
    let policy = json!({"retry_on": "5xx", "num_retries": 1});
    let routes = scripts.map(|(name, _)| {
        json!({"match": {"path": format!("/{name}")}, "route": {"cluster": name, "timeout": "3s", "retry_policy": policy}})
    });
    let clusters = scripts.map(|(name, _)| cluster(name, host.address));
    let listener = http_listener("in", "OUTBOUND", json!(routes), json!({}));
    let alone = Alone::start(which, &[listener], &clusters, json!({"stats_flush_interval": "0.1s"})).await;
    let requests = scripts.map(|(name, script)| {
        let address = alone.listener(0);
        async move {
            let mut wire = Wire::open(address).await;
            let script = if script.is_empty() {
                String::new()
            } else {
                format!("x-script: {script}\r\n")
            };
            let head = format!("POST /{name} HTTP/1.1\r\nhost: web\r\ncontent-length: 4\r\n{script}\r\nab");
            wire.send(head.as_bytes()).await;
            let pause = if name == "late-request" || name == "early" {
                1000
            } else {
                0
            };
            tokio::time::sleep(Duration::from_millis(pause)).await;
            wire.send(b"cd").await;
            assert!(wire.answer().await.is_some(), "{name}");
        }
    });
    join_all(requests).await;
    // Wait for the stats to be flushed.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let text = alone.sidecar.admin("/stats/prometheus").await;
    let value = |line: &str| line.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap();
    let mut times = BTreeMap::new();
    for line in text.lines() {
        let Some((name, rest)) = line.split_once("{envoy_cluster_name=\"") else {
            continue;
        };
        let of = |part: &str| {
            name.strip_suffix(part)
                .filter(|name| name.ends_with("upstream_rq_time"))
        };
        let cluster = rest.split_once('"').unwrap().0;
        if let Some(name) = of("_count") {
            times.entry(format!("{cluster} {name}")).or_insert((0, 0.0)).0 = value(line) as u64;
        } else if let Some(name) = of("_sum") {
            times.entry(format!("{cluster} {name}")).or_insert((0, 0.0)).1 = (value(line) / 1000.0).round();
        }
    }
    times.retain(|_, (answers, _)| *answers > 0);
    times
}

async fn upstream_response_times_are_measured_as_in_envoy() {
    let differ = lasting(timed).await;
    assert!(differ.is_empty(), "{}", differ.join("\n"));
}
