//! Request mirroring: the host header, the timeout and the responses of mirrored requests.

use std::time::{Duration, Instant};

use serde_json::json;

use super::harness::alone::{Alone, cluster, http_listener};
use super::harness::scripted::Scripted;
use super::harness::wire::Wire;
use super::harness::{Backend, Plane, eventually};
use crate::on_each_plane;

on_each_plane! {
    mirrored_requests_keep_the_port_of_their_host_header,
    mirrored_requests_have_the_timeout_of_their_route,
    responses_to_mirrored_requests_are_not_buffered,
}

/// A data plane that mirrors every request, its backend, and the host that receives the mirrored requests.
async fn mirroring(which: Plane) -> (Alone, Backend, Scripted) {
    let (backend, copies) = (Backend::http("back").await, Scripted::start().await);
    let routes = json!([{"match": {"prefix": "/"}, "route": {
        "cluster": "back", "request_mirror_policies": [{"cluster": "copies"}],
    }}]);
    let clusters = [cluster("back", backend.address()), cluster("copies", copies.address)];
    let alone = Alone::start(
        which,
        &[http_listener("in", "OUTBOUND", routes, json!({}))],
        &clusters,
        json!({}),
    )
    .await;
    (alone, backend, copies)
}

async fn mirrored_requests_keep_the_port_of_their_host_header(which: Plane) {
    let (alone, _backend, copies) = mirroring(which).await;
    for (host, copied) in [
        ("a", "a-shadow"),
        ("a:8080", "a-shadow:8080"),
        ("[::1]:80", "[::1]-shadow:80"),
        ("[::1]", "[::1]-shadow"),
    ] {
        let before = copies.heads().len();
        let mut wire = Wire::open(alone.listener(0)).await;
        wire.send(format!("GET / HTTP/1.1\r\nhost: {host}\r\n\r\n").as_bytes())
            .await;
        assert_eq!(wire.answer().await.unwrap().status, 200);
        let head = eventually("the mirrored request arrives", async || {
            copies.heads().get(before).cloned().ok_or(String::new())
        })
        .await;
        let line = head.lines().find_map(|line| line.strip_prefix("host: "));
        assert_eq!(line, Some(copied));
    }
}

async fn mirrored_requests_have_the_timeout_of_their_route(which: Plane) {
    let (backend, copies) = (Backend::http("back").await, Scripted::start().await);
    let to = |path: &str, cluster: &str, timeout: &str| {
        let copied = json!([{"cluster": cluster}]);
        json!({"match": {"path": path}, "route": {"cluster": "back", "timeout": timeout, "request_mirror_policies": copied}})
    };
    let routes = json!([
        to("/brief", "brief", "1s"),
        to("/long", "long", "0s"),
        to("/slow", "slow", "4s")
    ]);
    let clusters = ["brief", "long", "slow"].map(|name| cluster(name, copies.address));
    let clusters = [&clusters[..], &[cluster("back", backend.address())]].concat();
    let alone = Alone::start(
        which,
        &[http_listener("in", "OUTBOUND", routes, json!({}))],
        &clusters,
        json!({}),
    )
    .await;
    for (path, script) in [
        ("brief", "stall"),
        ("long", "wait 2000; say HTTP/1.1 200 OK~content-length: 0~~"),
    ] {
        let mut wire = Wire::open(alone.listener(0)).await;
        wire.send(format!("GET /{path} HTTP/1.1\r\nhost: web\r\nx-script: {script}\r\n\r\n").as_bytes())
            .await;
        assert_eq!(wire.answer().await.unwrap().status, 200);
    }
    // The timeout does not include the time that the client takes to send its request.
    let mut wire = Wire::open(alone.listener(0)).await;
    wire.send(b"POST /slow HTTP/1.1\r\nhost: web\r\ncontent-length: 4\r\n\r\nab")
        .await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    wire.send(b"cd").await;
    assert_eq!(wire.answer().await.unwrap().status, 200);
    eventually("the requests and timeouts are counted", async || {
        let stats = alone.sidecar.stats("").await;
        let of = |name: &str| stats.get(name).copied().unwrap_or_default();
        let counted = [
            of("cluster.brief.upstream_rq_timeout"),
            of("cluster.brief.internal.upstream_rq_504"),
            of("cluster.long.upstream_rq_timeout"),
            of("cluster.long.internal.upstream_rq_200"),
            of("cluster.slow.upstream_rq_timeout"),
            of("cluster.slow.internal.upstream_rq_200"),
        ];
        if counted == [1, 1, 0, 1, 0, 1] {
            Ok(())
        } else {
            Err(format!("{counted:?}"))
        }
    })
    .await;
}

async fn responses_to_mirrored_requests_are_not_buffered(which: Plane) {
    let (alone, _backend, _copies) = mirroring(which).await;
    let mut wire = Wire::open(alone.listener(0)).await;
    let script = "say HTTP/1.1 200 OK~content-length: 268435456~~; flood 262144";
    wire.send(format!("GET / HTTP/1.1\r\nhost: web\r\nx-script: {script}\r\n\r\n").as_bytes())
        .await;
    assert_eq!(wire.answer().await.unwrap().status, 200);
    let (begun, mut most) = (Instant::now(), 0);
    loop {
        most = most.max(resident(alone.sidecar.id()));
        let stats = alone.sidecar.stats("cluster.copies").await;
        let received = stats
            .get("cluster.copies.upstream_cx_rx_bytes_total")
            .copied()
            .unwrap_or_default();
        if received >= 1 << 28 {
            break;
        }
        assert!(begun.elapsed() < Duration::from_secs(30), "{received}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(most < 160 << 10, "{most} KiB");
}

/// Resident memory of a process in KiB.
fn resident(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}
