//! Long-lived HTTP/2 connections: they are drained with GOAWAY, and a stalled stream does not block the others.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;
use tokio::time::timeout;

use super::harness::alone::{Alone, cluster, http_listener};
use super::harness::frames::{
    DATA, Frame, Frames, GOAWAY, HEADERS, PRIORITY, RST_STREAM, SETTINGS, WINDOW_UPDATE, headers, request,
};
use super::harness::wire::Wire;
use super::harness::{Backend, Plane, eventually};
use crate::on_each_plane;

on_each_plane! {
    draining_connections_close_even_if_pings_are_not_acknowledged,
    failing_health_checks_drain_connections_with_the_next_response,
    a_direct_response_without_flow_control_window_is_reset,
    priority_and_window_updates_for_every_stream_are_not_a_flood,
    a_stalled_upload_does_not_block_other_streams,
}

async fn plane(which: Plane, backend: &Backend, more: Value) -> Alone {
    let routes = json!([{"match": {"prefix": "/"}, "route": {"cluster": "back", "timeout": "0s"}}]);
    let listener = http_listener("in", "INBOUND", routes, more);
    Alone::start(which, &[listener], &[cluster("back", backend.address())], json!({})).await
}

/// The last stream that a GOAWAY names.
fn last(goaway: &Frame) -> u32 {
    u32::from_be_bytes(goaway.payload[..4].try_into().unwrap())
}

async fn draining_connections_close_even_if_pings_are_not_acknowledged(which: Plane) {
    let backend = Backend::http("echo").await;
    for limit in [
        json!({"idle_timeout": "0.5s"}),
        json!({"max_connection_duration": "0.5s"}),
        json!({"max_requests_per_connection": 1}),
    ] {
        let more = json!({"common_http_protocol_options": limit, "drain_timeout": "1s"});
        let alone = plane(which, &backend, more).await;
        let mut client = Frames::open(alone.listener(0)).await;
        client.send(&[headers(1, &request("GET", "/a"), true)]).await;
        // The client does not acknowledge pings.
        let goaway_received = client.next_of(&[GOAWAY]).await.unwrap();
        assert_eq!(last(&goaway_received), 0x7fff_ffff, "{limit}");
        client.send(&[headers(3, &request("GET", "/b"), true)]).await;
        let mut answer = client.next_of(&[HEADERS]).await.unwrap();
        while answer.stream == 1 {
            answer = client.next_of(&[HEADERS]).await.unwrap();
        }
        assert_eq!((answer.stream, answer.status()), (3, 200), "{limit}");
        let goaway_received = client.next_of(&[GOAWAY]).await.unwrap();
        assert_eq!(last(&goaway_received), 3, "{limit}");
        assert_eq!(client.next_of(&[GOAWAY]).await, None, "{limit}");
    }
}

/// Envoy sends GOAWAY with a response, at a random time.
#[tokio::test]
async fn draining_listeners_send_goaway_to_idle_connections_at_once() {
    let backend = Backend::http("echo").await;
    let alone = plane(Plane::Topsail, &backend, json!({"drain_timeout": "60s"})).await;
    let mut client = Frames::open(alone.listener(0)).await;
    client.send(&[headers(1, &request("GET", "/a"), true)]).await;
    assert_eq!(client.next_of(&[HEADERS]).await.unwrap().status(), 200);
    let mut admin = Wire::open(alone.admin()).await;
    admin
        .send(b"POST /drain_listeners?graceful HTTP/1.1\r\nhost: a\r\n\r\n")
        .await;
    assert_eq!(admin.answer().await.unwrap().status, 200);
    let goaway_received = timeout(Duration::from_secs(10), client.next_of(&[GOAWAY])).await;
    assert_eq!(last(&goaway_received.unwrap().unwrap()), 0x7fff_ffff);
    client.send(&[headers(3, &request("GET", "/b"), true)]).await;
    assert_eq!(client.next_of(&[HEADERS]).await.unwrap().status(), 200);
}

async fn failing_health_checks_drain_connections_with_the_next_response(which: Plane) {
    let backend = Backend::http("echo").await;
    let alone = plane(which, &backend, json!({"drain_timeout": "0.1s"})).await;
    let command = async |path: &str| {
        let mut admin = Wire::open(alone.admin()).await;
        admin
            .send(format!("POST {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").as_bytes())
            .await;
        assert_eq!(admin.answer().await.unwrap().status, 200);
    };
    const ASK: &[u8] = b"GET /a HTTP/1.1\r\nhost: web\r\n\r\n";
    let (mut http1, mut http2) = (
        Wire::open(alone.listener(0)).await,
        Frames::open(alone.listener(0)).await,
    );
    http1.send(ASK).await;
    assert_eq!(http1.answer().await.unwrap().header("connection"), "");
    http2.send(&[headers(1, &request("GET", "/a"), true)]).await;
    assert_eq!(http2.next_of(&[HEADERS]).await.unwrap().status(), 200);
    command("/healthcheck/fail").await;
    http1.send(ASK).await;
    let last = http1.answer().await.unwrap();
    assert_eq!((last.status, last.header("connection")), (200, "close"));
    assert_eq!(http1.end().await, b"");
    http2.send(&[headers(3, &request("GET", "/a"), true)]).await;
    assert_eq!(last_stream(&mut http2).await, 3);
    command("/healthcheck/ok").await;
    let mut again = Wire::open(alone.listener(0)).await;
    again.send(ASK).await;
    assert_eq!(again.answer().await.unwrap().header("connection"), "");
}

/// The last stream in the last GOAWAY of a connection.
async fn last_stream(client: &mut Frames) -> u32 {
    let mut goaway_received = None;
    while let Some(goaway) = client.next_of(&[GOAWAY]).await {
        goaway_received = Some(last(&goaway));
    }
    goaway_received.unwrap()
}

async fn a_direct_response_without_flow_control_window_is_reset(which: Plane) {
    let routes = json!([
        {"match": {"prefix": "/"}, "direct_response": {"status": 200, "body": {"inline_string": "own"}}},
    ]);
    let listener = http_listener("in", "INBOUND", routes, json!({"stream_idle_timeout": "0.5s"}));
    let alone = Alone::start(which, &[listener], &[], json!({})).await;
    let mut client = Frames::open(alone.listener(0)).await;
    // The initial window of streams is zero.
    client
        .send(&[
            Frame::new(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]),
            headers(1, &request("GET", "/a"), true),
        ])
        .await;
    assert_eq!(client.next_of(&[HEADERS]).await.unwrap().status(), 200);
    let reset = client.next_of(&[RST_STREAM, GOAWAY]).await.unwrap();
    assert_eq!((reset.kind, reset.stream), (RST_STREAM, 1));
    eventually("no request is active", async || {
        let stats = alone.sidecar.stats("http.in.downstream_rq_active").await;
        match stats["http.in.downstream_rq_active"] {
            0 => Ok(()),
            active => Err(active.to_string()),
        }
    })
    .await;
}

async fn priority_and_window_updates_for_every_stream_are_not_a_flood(which: Plane) {
    let backend = Backend::http("echo").await;
    let alone = plane(which, &backend, json!({})).await;
    let mut client = Frames::open(alone.listener(0)).await;
    for stream in (1..600).step_by(2) {
        let widened = |stream| Frame::new(WINDOW_UPDATE, 0, stream, &1_u32.to_be_bytes());
        let priority = Frame::new(PRIORITY, 0, stream, &[0, 0, 0, 0, 15]);
        let asked = headers(stream, &request("HEAD", "/a"), true);
        client.send(&[priority, asked, widened(0), widened(stream)]).await;
        let answer = client.next_of(&[HEADERS, GOAWAY]).await.unwrap();
        assert_eq!((answer.kind, answer.stream), (HEADERS, stream), "{answer:?}");
    }
}

/// The flow control windows of the server: of a stream and of the connection.
struct Windows {
    stream: usize,
    connection: usize,
}

impl Windows {
    /// The windows that the server announces when the connection starts.
    async fn announced(client: &mut Frames) -> Self {
        let mut windows = Self {
            stream: 65_535,
            connection: 65_535,
        };
        let number = |bytes: &[u8]| u32::from_be_bytes(bytes.try_into().unwrap()) as usize;
        // The acknowledgement of the client's SETTINGS comes after both.
        loop {
            let frame = client.next_of(&[SETTINGS, WINDOW_UPDATE]).await.unwrap();
            match frame.kind {
                WINDOW_UPDATE => windows.connection += number(&frame.payload),
                _ if frame.flags & 1 == 1 => return windows,
                _ => {
                    let settings = frame.payload.chunks(6);
                    let window = settings.rev().find(|setting| setting[..2] == [0, 4]);
                    windows.stream = window.map_or(windows.stream, |setting| number(&setting[2..]));
                }
            }
        }
    }
}

async fn a_stalled_upload_does_not_block_other_streams(which: Plane) {
    let backend = Backend::http("echo").await;
    let stalls = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let clusters = [
        cluster("back", backend.address()),
        cluster("stalls", stalls.local_addr().unwrap()),
    ];
    let routes = json!([
        {"match": {"prefix": "/stalls"}, "route": {"cluster": "stalls", "timeout": "0s"}},
        {"match": {"prefix": "/"}, "route": {"cluster": "back", "timeout": "0s"}},
    ]);
    let listener = http_listener("in", "INBOUND", routes, json!({}));
    let alone = Alone::start(which, &[listener], &clusters, json!({})).await;
    let mut client = Frames::open(alone.listener(0)).await;
    let windows = Windows::announced(&mut client).await;
    client.send(&[headers(1, &request("POST", "/stalls"), false)]).await;
    let (mut host, _) = stalls.accept().await.unwrap();
    assert!(host.read(&mut [0; 16]).await.unwrap() > 0);
    // As much as the window of the stream allows.
    let piece = Frame::new(DATA, 0, 1, &[b'a'; 16_000]);
    let pieces = windows.stream.min(windows.connection - 1_000) / piece.payload.len();
    for _ in 0..pieces {
        client.send(std::slice::from_ref(&piece)).await;
    }
    let left = windows.connection - pieces * piece.payload.len();
    assert!(left >= 1_000 + 5, "{left} bytes are left");
    client
        .send(&[
            headers(3, &request("POST", "/other"), false),
            Frame::new(DATA, 1, 3, b"hello"),
        ])
        .await;
    let answer = client.next_of(&[HEADERS, GOAWAY]).await.unwrap();
    assert_eq!((answer.kind, answer.stream, answer.status()), (HEADERS, 3, 200));
    assert_eq!(backend.seen()[0].body, "hello");
}
