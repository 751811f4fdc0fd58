//! Access logs: bytes on the wire and close reasons of connections match Envoy's.

use std::io::ErrorKind;
use std::net::SocketAddr;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::harness::alone::{Alone, access_log, cluster, http_listener};
use super::harness::frames::{Frame, Frames, headers, request};
use super::harness::wire::{Host, Then, Wire};
use super::harness::{Backend, Plane, eventually};
use crate::between_planes;

between_planes! {
    wire_and_header_bytes_match_envoy,
    close_reasons_of_tcp_connections_match_envoy,
}

/// Received bytes come first, so that sent bytes can be left out: the planes encode HTTP/2 header blocks differently.
const BYTES: &str = "%REQ(X-CASE)% %PROTOCOL% %DOWNSTREAM_WIRE_BYTES_RECEIVED% %DOWNSTREAM_HEADER_BYTES_RECEIVED% \
    %UPSTREAM_WIRE_BYTES_RECEIVED% %UPSTREAM_HEADER_BYTES_RECEIVED% %UPSTREAM_WIRE_BYTES_SENT% \
    %UPSTREAM_HEADER_BYTES_SENT% %DOWNSTREAM_WIRE_BYTES_SENT% %DOWNSTREAM_HEADER_BYTES_SENT%\n";

const ENDS: &str = "%FILTER_CHAIN_NAME% %RESPONSE_FLAGS% %CONNECTION_TERMINATION_DETAILS% %DOWNSTREAM_LOCAL_CLOSE_REASON% \
    %UPSTREAM_LOCAL_CLOSE_REASON% %DOWNSTREAM_DETECTED_CLOSE_TYPE% %UPSTREAM_DETECTED_CLOSE_TYPE% \
    %UPSTREAM_HOSTS_ATTEMPTED% %UPSTREAM_HOSTS_ATTEMPTED_WITHOUT_PORT% %UPSTREAM_REQUEST_ATTEMPT_COUNT% \
    %DOWNSTREAM_WIRE_BYTES_RECEIVED% %DOWNSTREAM_WIRE_BYTES_SENT% %UPSTREAM_WIRE_BYTES_RECEIVED% \
    %UPSTREAM_WIRE_BYTES_SENT% %DOWNSTREAM_HEADER_BYTES_SENT%\n";

/// The access log, sorted, once it has this many lines.
async fn logged(alone: &Alone, count: usize) -> Vec<String> {
    eventually(&format!("{count} lines"), async || {
        let mut lines: Vec<_> = alone.wrote("access.log").lines().map(str::to_owned).collect();
        lines.sort();
        (lines.len() == count)
            .then_some(lines.clone())
            .ok_or(format!("{lines:#?}"))
    })
    .await
}

async fn bytes_of_requests(plane: Plane, backend: &Backend, host: &Host) -> Vec<String> {
    let manager = json!({
        "access_log": access_log(BYTES),
        // `x-envoy-upstream-service-time` would change the length of responses.
        "http_filters": [{"name": "router", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router",
            "suppress_envoy_headers": true,
        }}],
    });
    let retry = json!({"retry_on": "5xx", "num_retries": 2, "retry_back_off": {"base_interval": "0.001s"}});
    let routes = json!([
        {"match": {"path": "/own"}, "direct_response": {"status": 200, "body": {"inline_string": "own"}}},
        {"match": {"path": "/0"}, "route": {"cluster": "host"}},
        {"match": {"path": "/retried"}, "route": {"cluster": "back", "retry_policy": retry}},
        {"match": {"prefix": "/back"}, "route": {"cluster": "back"}},
    ]);
    let clusters = [cluster("back", backend.address()), cluster("host", host.address)];
    let alone = Alone::start(
        plane,
        &[http_listener("in", "INBOUND", routes, manager)],
        &clusters,
        json!({}),
    )
    .await;
    let (id, head) = (
        "x-request-id: 00000001-0000-4000-8000-000000000001",
        "HTTP/1.1\r\nhost: app.example",
    );
    let mut client = Wire::open(alone.listener(0)).await;
    for (case, line, more) in [
        ("get", "GET /back?a=b", "\r\n"),
        ("spaces", "GET /back", "x-spaces:   some   \r\n\r\n"),
        ("length", "POST /back", "content-length: 5\r\n\r\nhello"),
        (
            "chunks",
            "POST /back",
            "transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        ),
        ("own", "GET /own", "\r\n"),
        ("missing", "GET /missing", "\r\n"),
        ("chunked-answer", "GET /0", "\r\n"),
        ("retried", "GET /retried", "x-echo-status: 503\r\n\r\n"),
    ] {
        client
            .send(format!("{line} {head}\r\n{id}\r\nx-case: {case}\r\n{more}").as_bytes())
            .await;
        match case {
            "chunked-answer" => {
                client.head().await.unwrap();
                assert_eq!(client.bytes(15).await, b"5\r\nhello\r\n0\r\n\r\n");
            }
            _ => drop(client.answer().await.unwrap()),
        }
    }
    client
        .send(format!("HEAD /back {head}\r\n{id}\r\nx-case: head\r\n\r\n").as_bytes())
        .await;
    client.head().await.unwrap();
    let mut http2 = Frames::open(alone.listener(0)).await;
    let fields = [&request("POST", "/back")[..], &[("x-case", "http2")]].concat();
    let (first, second) = (Frame::new(0, 0, 1, b"hel"), Frame::new(0, 1, 1, b"lo"));
    http2.send(&[headers(1, &fields, false), first, second]).await;
    while http2
        .next()
        .await
        .is_some_and(|frame| frame.stream == 0 || frame.flags & 1 == 0)
    {}
    let mut malformed = Wire::open(alone.listener(0)).await;
    malformed
        .send(format!("GET /back {head}\r\nno header\r\n\r\n").as_bytes())
        .await;
    malformed.answer().await.unwrap();
    let lines = logged(&alone, 11).await;
    let compared = lines.into_iter().map(|line| match line.starts_with("http2") {
        true => line.split(' ').take(4).collect::<Vec<_>>().join(" "),
        false => line,
    });
    compared.collect()
}

async fn wire_and_header_bytes_match_envoy() {
    let chunked = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
    let (backend, host) = (
        Backend::http("app").await,
        Host::start(vec![(chunked.to_vec(), Then::Goes)]).await,
    );
    let envoys = bytes_of_requests(Plane::Envoy, &backend, &host).await;
    let ours = bytes_of_requests(Plane::Topsail, &backend, &host).await;
    assert_eq!(ours, envoys);
}

/// A host that resets connections after the first read.
async fn resetting() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.read(&mut [0; 64]).await;
            stream.set_zero_linger().unwrap();
        }
    });
    address
}

async fn ends_of_connections(plane: Plane, host: SocketAddr, resetting: SocketAddr) -> Vec<String> {
    let tcp = |name: &str, cluster: &str, more: Value| {
        let mut proxy = json!({
            "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
            "stat_prefix": name, "cluster": cluster, "access_log": access_log(ENDS),
        });
        proxy.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({"name": name, "filter_chains": [{"name": name, "filters": [{"name": "tcp", "typed_config": proxy}]}]})
    };
    let listeners = [
        tcp("left", "host", json!({})),
        tcp("reset", "host", json!({})),
        tcp("idle", "host", json!({"idle_timeout": "0.2s"})),
        tcp("old", "host", json!({"max_downstream_connection_duration": "0.2s"})),
        tcp("host-resets", "resetting", json!({})),
        tcp("crowded", "crowded", json!({})),
        tcp("dead", "dead", json!({"max_connect_attempts": 2})),
        tcp("nobody", "nobody", json!({})),
    ];
    let mut crowded = cluster("crowded", host);
    crowded["circuit_breakers"] = json!({"thresholds": [{"max_connections": 0, "max_pending_requests": 0}]});
    let clusters = [
        cluster("host", host),
        cluster("resetting", resetting),
        cluster("dead", "127.0.0.1:1".parse().unwrap()),
        crowded,
    ];
    let alone = Alone::start(plane, &listeners, &clusters, json!({})).await;
    for (index, listener) in listeners.iter().enumerate() {
        let mut stream = TcpStream::connect(alone.listener(index)).await.unwrap();
        // The connection may already be closed.
        let _ = stream.write_all(b"hello").await;
        let name = listener["name"].as_str().unwrap();
        if index < 4 {
            stream.read_exact(&mut [0; 10]).await.unwrap();
        }
        match name {
            "left" => {}
            "reset" => stream.set_zero_linger().unwrap(),
            _ => match stream.read(&mut [0; 1]).await {
                Ok(read) => assert_eq!(read, 0, "{name}"),
                Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{name}"),
            },
        }
    }
    logged(&alone, listeners.len()).await
}

async fn close_reasons_of_tcp_connections_match_envoy() {
    let (host, resetting) = (Backend::tcp("tail").await, resetting().await);
    let envoys = ends_of_connections(Plane::Envoy, host.address(), resetting).await;
    let ours = ends_of_connections(Plane::Topsail, host.address(), resetting).await;
    assert_eq!(ours, envoys);
}
