//! WebSocket: the handshake, and the tunnel between client and host, over HTTP/1.1 and HTTP/2 (RFC 8441).

use bytes::Bytes;
use h2::client::SendRequest;
use h2::ext::Protocol;
use http::{Method, Request, Response};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::harness::alone::{Alone, access_log, cluster, cluster_http2, http_listener};
use super::harness::wire::{Said, Wire};
use super::harness::{Plane, eventually};
use crate::on_each_plane;

on_each_plane! {
    websocket_data_flows_until_the_client_closes,
    websocket_data_flows_until_the_host_closes,
    idle_websockets_are_closed_after_the_stream_idle_timeout,
    large_transfers_over_websockets_are_complete_in_both_directions,
    failed_websocket_handshakes_do_not_open_a_tunnel,
    websockets_over_http2_use_extended_connect,
    websockets_to_http2_hosts_use_extended_connect,
}

const LOG: &str = "%RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %BYTES_RECEIVED% %BYTES_SENT%\n";
const HANDSHAKE: &str = "GET /chat HTTP/1.1\r\nhost: web\r\nconnection: keep-alive, Upgrade\r\n\
                         upgrade: WebSocket\r\nsec-websocket-key: key\r\n\r\n";
const SWITCHING: &str = "HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
                         sec-websocket-accept: accepted\r\n\r\n";

/// A data plane in front of a host that the test itself serves.
async fn plane(which: Plane, more: serde_json::Value) -> (Alone, TcpListener) {
    let host = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let cluster = cluster("back", host.local_addr().unwrap());
    (plane_before(which, more, cluster).await, host)
}

async fn plane_before(which: Plane, more: Value, cluster: Value) -> Alone {
    let routes = json!([{"match": {"prefix": "/"}, "route": {"cluster": "back", "timeout": "7s"}}]);
    let mut manager = json!({
        "upgrade_configs": [{"upgrade_type": "websocket"}],
        "access_log": access_log(LOG),
    });
    manager
        .as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    let listener = http_listener("in", "INBOUND", routes, manager);
    Alone::start(which, &[listener], &[cluster], json!({})).await
}

/// Sends a handshake followed by `more`, and returns the client, the connection of the host and the request head.
async fn asked(alone: &Alone, host: &TcpListener, more: &str) -> (Wire, TcpStream, String) {
    let mut client = Wire::open(alone.listener(0)).await;
    client.send(format!("{HANDSHAKE}{more}").as_bytes()).await;
    let (mut connection, _) = host.accept().await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(connection.read_u8().await.unwrap());
    }
    (client, connection, String::from_utf8(head).unwrap())
}

/// An open tunnel, through which the client has already sent a word.
async fn opened(alone: &Alone, host: &TcpListener) -> (Wire, TcpStream) {
    let (mut client, mut connection, head) = asked(alone, host, "early").await;
    for (name, value) in [
        ("connection", "upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-key", "key"),
        ("x-envoy-expected-rq-timeout-ms", "7000"),
    ] {
        let lines = head.lines().filter_map(|line| line.split_once(": "));
        let values: Vec<_> = lines.filter(|(one, _)| *one == name).map(|(_, value)| value).collect();
        assert!(
            matches!(&values[..], [one] if one.to_ascii_lowercase().ends_with(value)),
            "{name}: {head}"
        );
    }
    connection.write_all(SWITCHING.as_bytes()).await.unwrap();
    let said = client.answer().await.unwrap();
    assert_eq!(said.status, 101);
    for (name, value) in [
        ("connection", "upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-accept", "accepted"),
        ("content-length", ""),
        ("transfer-encoding", ""),
    ] {
        assert_eq!(said.header(name).to_ascii_lowercase(), value, "{said:?}");
    }
    let mut early = [0; 5];
    connection.read_exact(&mut early).await.unwrap();
    assert_eq!(&early, b"early");
    (client, connection)
}

async fn websocket_data_flows_until_the_client_closes(which: Plane) {
    let (alone, host) = plane(which, json!({})).await;
    let (mut client, mut connection) = opened(&alone, &host).await;
    for _ in 0..3 {
        connection.write_all(b"0\r\n\r\n").await.unwrap();
        assert_eq!(client.bytes(5).await, b"0\r\n\r\n");
        client.send(b"GET /").await;
        let mut got = [0; 5];
        connection.read_exact(&mut got).await.unwrap();
        assert_eq!(&got, b"GET /");
    }
    client.finish().await;
    assert_eq!(connection.read(&mut [0; 9]).await.unwrap(), 0);
    assert_eq!(client.end().await, b"");
    alone.logged(&["101 DC downstream_remote_disconnect 20 15"]).await;
}

async fn websocket_data_flows_until_the_host_closes(which: Plane) {
    let (alone, host) = plane(which, json!({})).await;
    let (mut client, mut connection) = opened(&alone, &host).await;
    connection.write_all(b"bye").await.unwrap();
    drop(connection);
    assert_eq!(client.end().await, b"bye");
    let details = "upstream_reset_after_response_started{connection_termination}";
    alone.logged(&[&format!("101 UC {details} 5 3")]).await;
}

async fn idle_websockets_are_closed_after_the_stream_idle_timeout(which: Plane) {
    let (alone, host) = plane(which, json!({"stream_idle_timeout": "0.5s"})).await;
    let (mut client, mut connection) = opened(&alone, &host).await;
    assert_eq!(client.end().await, b"");
    assert_eq!(connection.read(&mut [0; 9]).await.unwrap(), 0);
    alone.logged(&["101 SI stream_idle_timeout 5 0"]).await;
}

async fn large_transfers_over_websockets_are_complete_in_both_directions(which: Plane) {
    let (alone, host) = plane(which, json!({})).await;
    let (mut client, mut connection) = opened(&alone, &host).await;
    let long = vec![b'a'; 20 << 20];
    let (sent, read) = tokio::join!(connection.write_all(&long), client.bytes(long.len()));
    sent.unwrap();
    assert!(read == long);
    let mut got = vec![0; long.len()];
    let (read, ()) = tokio::join!(connection.read_exact(&mut got), client.send(&long));
    read.unwrap();
    assert!(got == long);
}

async fn failed_websocket_handshakes_do_not_open_a_tunnel(which: Plane) {
    let (alone, host) = plane(which, json!({})).await;
    let answered = async |answer: &str| -> Said {
        let (mut client, mut connection, _) = asked(&alone, &host, "GET /smuggled HTTP/1.1\r\n\r\n").await;
        connection.write_all(answer.as_bytes()).await.unwrap();
        let said = client.answer().await.unwrap();
        // Both connections are closed.
        assert_eq!(connection.read(&mut [0; 9]).await.unwrap_or(0), 0);
        client.finish().await;
        assert_eq!(client.end().await, b"");
        said
    };
    let said = answered("HTTP/1.1 200 OK\r\nx-a: b\r\ncontent-length: 2\r\n\r\nok").await;
    assert_eq!((said.status, said.body.as_str(), said.header("x-a")), (200, "", "b"));
    let observed = (said.header("connection"), said.header("content-length"));
    assert_eq!(observed, ("close", "0"));
    let said = answered("HTTP/1.1 403 Forbidden\r\ncontent-length: 2\r\n\r\nno").await;
    assert_eq!((said.status, said.body.as_str()), (403, "no"));
    assert_eq!(said.header("connection"), "close");
    eventually("both handshakes are logged", async || {
        let written = alone.wrote("access.log");
        // Only one of the planes counts the bytes after the failed handshake.
        let observed: Vec<_> = written.lines().map(|line| line.replace(" 26 ", " 0 ")).collect();
        let expected = ["200 - websocket_handshake_unsuccessful 0 0", "403 - via_upstream 0 2"];
        (observed == expected).then_some(()).ok_or(written)
    })
    .await;
}

/// An HTTP/2 client that has received SETTINGS_ENABLE_CONNECT_PROTOCOL.
async fn client_http2(alone: &Alone) -> SendRequest<Bytes> {
    let stream = TcpStream::connect(alone.listener(0)).await.unwrap();
    let (client, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    eventually("the settings arrive", async || {
        match client.is_extended_connect_protocol_enabled() {
            true => Ok(()),
            false => Err("no extended CONNECT".to_owned()),
        }
    })
    .await;
    client
}

fn handshake(protocol: &'static str) -> Request<()> {
    let request = Request::builder().method(Method::CONNECT).uri("http://web/chat");
    let request = request.header("sec-websocket-key", "key");
    request.extension(Protocol::from_static(protocol)).body(()).unwrap()
}

/// The next data of a stream.
async fn next_data(stream: &mut h2::RecvStream) -> Bytes {
    let data = stream.data().await.unwrap().unwrap();
    stream.flow_control().release_capacity(data.len()).unwrap();
    data
}

async fn websockets_over_http2_use_extended_connect(which: Plane) {
    let (alone, host) = plane(which, json!({"http2_protocol_options": {"allow_connect": true}})).await;
    let mut client = client_http2(&alone).await;
    let (answer, mut send_stream) = client.send_request(handshake("websocket"), false).unwrap();
    let (mut connection, _) = host.accept().await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(connection.read_u8().await.unwrap());
    }
    let head = String::from_utf8(head).unwrap().to_ascii_lowercase();
    assert!(head.starts_with("get /chat http/1.1\r\n"), "{head}");
    for line in ["connection: upgrade", "upgrade: websocket", "sec-websocket-key: key"] {
        assert!(head.contains(&format!("\r\n{line}\r\n")), "{head}");
    }
    connection.write_all(SWITCHING.as_bytes()).await.unwrap();
    let answer = answer.await.unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.headers()["sec-websocket-accept"], "accepted");
    for name in ["connection", "upgrade"] {
        assert!(!answer.headers().contains_key(name), "{answer:?}");
    }
    let mut recv_stream = answer.into_body();
    for _ in 0..3 {
        send_stream.send_data("there".into(), false).unwrap();
        let mut got = [0; 5];
        connection.read_exact(&mut got).await.unwrap();
        assert_eq!(&got, b"there");
        connection.write_all(b"back").await.unwrap();
        assert_eq!(next_data(&mut recv_stream).await, "back");
    }
    send_stream.send_reset(h2::Reason::CANCEL);
    assert_eq!(connection.read(&mut [0; 9]).await.unwrap_or(0), 0);
    // Other protocols are not configured.
    let (answer, _send_stream) = client.send_request(handshake("other"), false).unwrap();
    assert_eq!(answer.await.unwrap().status(), 403);
}

/// A host that accepts WebSocket handshakes over HTTP/2 and echoes data.
async fn echo_http2(host: TcpListener) {
    let (stream, _) = host.accept().await.unwrap();
    let mut builder = h2::server::Builder::new();
    let mut connection = builder.enable_connect_protocol().handshake(stream).await.unwrap();
    while let Some(accepted) = connection.accept().await {
        let Ok((request, mut respond)) = accepted else { return };
        assert_eq!(request.method(), Method::CONNECT);
        let protocol = request.extensions().get::<Protocol>().unwrap();
        assert!(protocol.as_str().eq_ignore_ascii_case("websocket"), "{protocol:?}");
        assert_eq!(request.uri().path(), "/chat");
        let mut recv_stream = request.into_body();
        let answer = Response::builder().header("sec-websocket-accept", "accepted").body(());
        let mut send_stream = respond.send_response(answer.unwrap(), false).unwrap();
        tokio::spawn(async move {
            while let Some(Ok(data)) = recv_stream.data().await {
                recv_stream.flow_control().release_capacity(data.len()).unwrap();
                send_stream.send_data(data, false).unwrap();
            }
        });
    }
}

async fn websockets_to_http2_hosts_use_extended_connect(which: Plane) {
    let host = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let cluster = cluster_http2("back", host.local_addr().unwrap());
    tokio::spawn(echo_http2(host));
    let more = json!({"http2_protocol_options": {"allow_connect": true}});
    let alone = plane_before(which, more, cluster).await;
    let mut client = Wire::open(alone.listener(0)).await;
    client.send(HANDSHAKE.as_bytes()).await;
    let said = client.answer().await.unwrap();
    let observed = (said.status, said.header("sec-websocket-accept"));
    assert_eq!(observed, (101, "accepted"));
    assert!(said.header("upgrade").eq_ignore_ascii_case("websocket"), "{said:?}");
    client.send(b"word").await;
    assert_eq!(client.bytes(4).await, b"word");
    let mut client = client_http2(&alone).await;
    let (answer, mut send_stream) = client.send_request(handshake("websocket"), false).unwrap();
    let answer = answer.await.unwrap();
    assert_eq!(answer.status(), 200);
    let mut recv_stream = answer.into_body();
    send_stream.send_data("word".into(), false).unwrap();
    assert_eq!(next_data(&mut recv_stream).await, "word");
}
