//! HTTP upgrades and CONNECT requests, which the data plane terminates or forwards.

use h2::client::SendRequest;
use http::{Method, Request};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::harness::Plane;
use super::harness::alone::{Alone, access_log, cluster, cluster_http2, http_listener};
use super::harness::wire::Wire;
use crate::on_each_plane;

on_each_plane! {
    routes_decide_which_upgrades_are_allowed,
    connect_is_terminated_and_forwarded_as_raw_tcp,
    connect_over_http2_is_terminated_and_forwarded_as_raw_tcp,
    terminated_connect_sends_a_proxy_protocol_header_upstream,
    post_bodies_are_forwarded_as_raw_tcp_with_allow_post,
    connect_is_forwarded_to_http_upstreams,
    a_refused_connect_over_http2_is_reset_with_connect_error,
    connect_and_upgrade_requests_are_retried_on_connect_failure,
}

const LOG: &str = "%RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %REQ(:METHOD)% %REQ(:PATH)% %ROUTE_NAME% \
                   %UPSTREAM_CLUSTER% %BYTES_RECEIVED% %BYTES_SENT% %UPSTREAM_REQUEST_ATTEMPT_COUNT%\n";
const CONNECT: &str = "CONNECT web.example:443 HTTP/1.1\r\nhost: web.example:443\r\n\r\n";

/// A TCP listener that the test itself serves.
async fn host() -> (TcpListener, std::net::SocketAddr) {
    let host = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = host.local_addr().unwrap();
    (host, address)
}

/// A data plane with these routes and clusters.
async fn plane(which: Plane, routes: Value, more: Value, clusters: &[Value]) -> Alone {
    let mut manager = json!({"access_log": access_log(LOG), "http2_protocol_options": {"allow_connect": true}});
    manager
        .as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    let listener = http_listener("in", "INBOUND", routes, manager);
    Alone::start(which, &[listener], clusters, json!({})).await
}

/// A route for CONNECT requests with these fields in its upgrade config.
fn connect_route(config: Value) -> Value {
    let mut upgrade = json!({"upgrade_type": "CONNECT"});
    upgrade
        .as_object_mut()
        .unwrap()
        .extend(config.as_object().unwrap().clone());
    json!([{
        "name": "connect", "match": {"connect_matcher": {}},
        "route": {"cluster": "back", "upgrade_configs": [upgrade]},
    }])
}

async fn read(stream: &mut TcpStream, len: usize) -> String {
    let mut read = vec![0; len];
    stream.read_exact(&mut read).await.unwrap();
    String::from_utf8(read).unwrap()
}

async fn head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap()
}

async fn client_http2(alone: &Alone) -> SendRequest<bytes::Bytes> {
    let stream = TcpStream::connect(alone.listener(0)).await.unwrap();
    let (client, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    client.ready().await.unwrap()
}

fn connect_request() -> Request<()> {
    let request = Request::builder().method(Method::CONNECT).uri("web.example:443");
    request.body(()).unwrap()
}

async fn routes_decide_which_upgrades_are_allowed(which: Plane) {
    let (host, address) = host().await;
    let upgrades = |rules: Value| json!({"cluster": "back", "upgrade_configs": rules});
    let routes = json!([
        {"name": "off", "match": {"prefix": "/off"},
         "route": upgrades(json!([{"upgrade_type": "websocket", "enabled": false}]))},
        {"name": "foo", "match": {"prefix": "/foo"}, "route": upgrades(json!([{"upgrade_type": "Foo"}]))},
        {"name": "own", "match": {"prefix": "/own"}, "direct_response": {"status": 200}},
        {"name": "says-nothing", "match": {"prefix": "/plain"}, "route": {"cluster": "back"}},
        {"name": "connect", "match": {"connect_matcher": {}}, "route": {"cluster": "back"}},
    ]);
    let more = json!({"upgrade_configs": [{"upgrade_type": "WebSocket"}, {"upgrade_type": "bar", "enabled": false}]});
    let alone = plane(which, routes, more, &[cluster("back", address)]).await;
    let mut lines = Vec::new();
    for (path, protocol, status, line) in [
        ("/off", "websocket", 403, "403 - upgrade_failed GET /off off back 0 0 0"),
        ("/foo", "websocket", 101, "101 UC GET /foo foo"),
        ("/foo", "FOO", 101, "101 UC GET /foo foo"),
        ("/plain", "websocket", 101, "101 UC GET /plain says-nothing"),
        (
            "/plain",
            "foo",
            403,
            "403 - upgrade_failed GET /plain says-nothing back 0 0 0",
        ),
        (
            "/plain",
            "bar",
            403,
            "403 - upgrade_failed GET /plain says-nothing back 0 0 0",
        ),
        ("/own", "websocket", 200, "200 - direct_response GET /own own - 0 0 0"),
        ("/own", "foo", 403, "403 - upgrade_failed GET /own own - 0 0 0"),
        ("/none", "websocket", 404, "404 NR route_not_found GET /none - - 0 0 0"),
        ("/none", "foo", 404, "404 NR route_not_found GET /none - - 0 0 0"),
    ] {
        let mut client = Wire::open(alone.listener(0)).await;
        let asked = format!("GET {path} HTTP/1.1\r\nhost: web\r\nconnection: upgrade\r\nupgrade: {protocol}\r\n\r\n");
        client.send(asked.as_bytes()).await;
        if status == 101 {
            let (mut stream, _) = host.accept().await.unwrap();
            let head = head(&mut stream).await;
            assert!(head.contains(&format!("\r\nupgrade: {protocol}\r\n")), "{head}");
            let answer = format!("HTTP/1.1 101 Fine\r\nconnection: upgrade\r\nupgrade: {protocol}\r\n\r\n");
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
        let said = client.answer().await.unwrap();
        assert_eq!(said.status, status, "{path} {protocol}");
        let connection = if status == 101 { "upgrade" } else { "close" };
        assert_eq!(said.header("connection"), connection, "{path} {protocol}");
        // With an upgrade, the host has closed the tunnel.
        if status != 101 {
            client.finish().await;
        }
        client.end().await;
        lines.push(match line.split_once(" UC ") {
            Some((status, rest)) => {
                let details = "upstream_reset_after_response_started{connection_termination}";
                format!("{status} UC {details} {rest} back 0 0 1")
            }
            None => line.to_owned(),
        });
    }
    // CONNECT needs an upgrade config, too.
    let mut client = Wire::open(alone.listener(0)).await;
    client.send(CONNECT.as_bytes()).await;
    assert_eq!(client.answer().await.unwrap().status, 403);
    lines.push("403 - upgrade_failed CONNECT - connect back 0 0 0".to_owned());
    alone.logged(&lines).await;
    let refused = alone.sidecar.stats("downstream_rq_ws_on_non_ws_route").await;
    assert_eq!(refused["http.in.downstream_rq_ws_on_non_ws_route"], 5);
}

async fn connect_is_terminated_and_forwarded_as_raw_tcp(which: Plane) {
    let (host, address) = host().await;
    let mut routes = connect_route(json!({"connect_config": {}}));
    let all = json!({"name": "all", "match": {"prefix": ""}, "route": {"cluster": "back"}});
    routes.as_array_mut().unwrap().push(all.clone());
    let alone = plane(which, routes, json!({}), &[cluster("back", address)]).await;
    let mut client = Wire::open(alone.listener(0)).await;
    client.send(format!("{CONNECT}early").as_bytes()).await;
    let (mut stream, _) = host.accept().await.unwrap();
    assert_eq!(read(&mut stream, 5).await, "early");
    let said = client.head().await.unwrap();
    assert_eq!(said.status, 200);
    for name in ["content-length", "transfer-encoding", "connection"] {
        assert_eq!(said.header(name), "", "{said:?}");
    }
    for _ in 0..3 {
        stream.write_all(b"0\r\n\r\n").await.unwrap();
        assert_eq!(client.bytes(5).await, b"0\r\n\r\n");
        client.send(b"GET /").await;
        assert_eq!(read(&mut stream, 5).await, "GET /");
    }
    stream.write_all(b"bye").await.unwrap();
    drop(stream);
    assert_eq!(client.bytes(3).await, b"bye");
    client.finish().await;
    assert_eq!(client.end().await, b"");

    // A half-close by the client ends the tunnel.
    let mut client = Wire::open(alone.listener(0)).await;
    client.send(CONNECT.as_bytes()).await;
    let (mut stream, _) = host.accept().await.unwrap();
    assert_eq!(client.head().await.unwrap().status, 200);
    client.finish().await;
    assert_eq!(stream.read(&mut [0; 9]).await.unwrap_or(0), 0);
    assert_eq!(client.end().await, b"");

    for (asked, status) in [
        ("CONNECT web.example HTTP/1.1\r\nhost: web.example\r\n\r\n", 400),
        ("CONNECT web.example:port HTTP/1.1\r\nhost: web.example\r\n\r\n", 400),
        (
            "CONNECT web.example:1 HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\n\r\na",
            400,
        ),
        (
            "CONNECT web.example:1 HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n",
            501,
        ),
    ] {
        let mut client = Wire::open(alone.listener(0)).await;
        client.send(asked.as_bytes()).await;
        assert_eq!(client.answer().await.unwrap().status, status, "{asked}");
    }
    alone
        .logged(&[
            "200 - via_upstream CONNECT - connect back 20 18 1",
            "200 DC downstream_remote_disconnect CONNECT - connect back 0 0 1",
            "400 DPE http1.invalid_url - - - - 0 11 0",
            "400 DPE http1.invalid_url - - - - 0 11 0",
            "400 DPE http1.body_disallowed - - - - 0 11 0",
            "501 DPE http1.invalid_transfer_encoding - - - - 0 15 0",
        ])
        .await;
    let stats = alone
        .sidecar
        .stats("cluster.back.upstream_(rq_total|rq_200|cx_total|cx_http1_total)")
        .await;
    let counts = ["rq_total", "rq_200", "cx_total", "cx_http1_total"];
    assert_eq!(
        counts.map(|name| stats[&format!("cluster.back.upstream_{name}")]),
        [2, 2, 2, 0]
    );

    // Routes that match paths do not match CONNECT.
    let alone = plane(
        which,
        json!([all]),
        json!({"upgrade_configs": [{"upgrade_type": "CONNECT"}]}),
        &[cluster("back", address)],
    )
    .await;
    let mut client = Wire::open(alone.listener(0)).await;
    client.send(CONNECT.as_bytes()).await;
    assert_eq!(client.answer().await.unwrap().status, 404);
}

async fn connect_over_http2_is_terminated_and_forwarded_as_raw_tcp(which: Plane) {
    let (host, address) = host().await;
    let routes = connect_route(json!({"connect_config": {}}));
    let alone = plane(which, routes, json!({}), &[cluster("back", address)]).await;
    let mut client = client_http2(&alone).await;
    let (answer, mut send_stream) = client.send_request(connect_request(), false).unwrap();
    let (mut stream, _) = host.accept().await.unwrap();
    let answer = answer.await.unwrap();
    assert_eq!(answer.status(), 200);
    assert!(!answer.headers().contains_key("content-length"), "{answer:?}");
    let mut recv_stream = answer.into_body();
    send_stream.send_data("hello".into(), false).unwrap();
    assert_eq!(read(&mut stream, 5).await, "hello");
    // Each direction is closed independently.
    send_stream.send_data("".into(), true).unwrap();
    assert_eq!(stream.read(&mut [0; 9]).await.unwrap(), 0);
    stream.write_all(b"all").await.unwrap();
    drop(stream);
    let mut received = Vec::new();
    while let Some(data) = recv_stream.data().await {
        received.extend_from_slice(&data.unwrap());
    }
    assert_eq!(received, b"all");
    alone.logged(&["200 - via_upstream CONNECT - connect back 5 3 1"]).await;
}

async fn terminated_connect_sends_a_proxy_protocol_header_upstream(which: Plane) {
    let (host, address) = host().await;
    for version in ["V1", "V2"] {
        let config = json!({"connect_config": {"proxy_protocol_config": {"version": version}}});
        let alone = plane(which, connect_route(config), json!({}), &[cluster("back", address)]).await;
        let listener = alone.listener(0);
        let mut client = TcpStream::connect(listener).await.unwrap();
        let own = client.local_addr().unwrap();
        client.write_all(CONNECT.as_bytes()).await.unwrap();
        let (mut stream, _) = host.accept().await.unwrap();
        if version == "V1" {
            let (ip, to) = (own.ip(), listener.ip());
            let proxy_header = format!("PROXY TCP4 {ip} {to} {} {}\r\n", own.port(), listener.port());
            assert_eq!(read(&mut stream, proxy_header.len()).await, proxy_header);
        } else {
            let mut proxy_header = [0; 28];
            stream.read_exact(&mut proxy_header).await.unwrap();
            assert_eq!(proxy_header[..16], *b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c");
            assert_eq!(proxy_header[24..26], own.port().to_be_bytes());
            assert_eq!(proxy_header[26..], listener.port().to_be_bytes());
        }
        head(&mut client).await;
        client.write_all(b"word").await.unwrap();
        assert_eq!(read(&mut stream, 4).await, "word");
    }
}

async fn post_bodies_are_forwarded_as_raw_tcp_with_allow_post(which: Plane) {
    let (host, address) = host().await;
    let mut routes = connect_route(json!({"connect_config": {"allow_post": true}}));
    routes[0]["match"] = json!({"prefix": "/"});
    let alone = plane(which, routes, json!({}), &[cluster("back", address)]).await;
    let mut client = Wire::open(alone.listener(0)).await;
    client
        .send(b"POST /a HTTP/1.1\r\nhost: web\r\ncontent-length: 5\r\n\r\nhello")
        .await;
    let (mut stream, _) = host.accept().await.unwrap();
    let mut all = String::new();
    stream.read_to_string(&mut all).await.unwrap();
    assert_eq!(all, "hello");
    stream.write_all(b"world").await.unwrap();
    drop(stream);
    assert_eq!(client.bytes(15).await, b"HTTP/1.1 200 OK");
    alone.logged(&["200 - via_upstream POST /a connect back 5 5 1"]).await;
}

async fn connect_is_forwarded_to_http_upstreams(which: Plane) {
    let (host, address) = host().await;
    let alone = plane(which, connect_route(json!({})), json!({}), &[cluster("back", address)]).await;
    let mut client = Wire::open(alone.listener(0)).await;
    client.send(format!("{CONNECT}early").as_bytes()).await;
    let (mut stream, _) = host.accept().await.unwrap();
    let asked = head(&mut stream).await;
    assert!(
        asked.starts_with("CONNECT web.example:443 HTTP/1.1\r\nhost: web.example:443\r\n"),
        "{asked}"
    );
    for name in ["content-length:", "transfer-encoding:", "connection:"] {
        assert!(!asked.contains(name), "{asked}");
    }
    stream.write_all(b"HTTP/1.1 200 OK\r\nx-host: a\r\n\r\n").await.unwrap();
    let said = client.head().await.unwrap();
    assert_eq!((said.status, said.header("x-host")), (200, "a"));
    assert_eq!(read(&mut stream, 5).await, "early");
    stream.write_all(b"back").await.unwrap();
    assert_eq!(client.bytes(4).await, b"back");
    client.finish().await;
    assert_eq!(stream.read(&mut [0; 9]).await.unwrap_or(0), 0);

    // The host refuses with a response body.
    let mut client = Wire::open(alone.listener(0)).await;
    client.send(CONNECT.as_bytes()).await;
    let (mut stream, _) = host.accept().await.unwrap();
    head(&mut stream).await;
    stream
        .write_all(b"HTTP/1.1 407 No\r\ncontent-length: 3\r\n\r\nwho")
        .await
        .unwrap();
    let said = client.answer().await.unwrap();
    assert_eq!((said.status, said.body.as_str()), (407, "who"));

    // END_STREAM from an HTTP/2 client ends a tunnel to an HTTP/1.1 host.
    let mut client = client_http2(&alone).await;
    let (answer, mut send_stream) = client.send_request(connect_request(), false).unwrap();
    let (mut stream, _) = host.accept().await.unwrap();
    head(&mut stream).await;
    stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
    let mut recv_stream = answer.await.unwrap().into_body();
    send_stream.send_data("hello".into(), true).unwrap();
    assert_eq!(read(&mut stream, 5).await, "hello");
    assert_eq!(stream.read(&mut [0; 9]).await.unwrap(), 0);
    let error = recv_stream.data().await.unwrap().unwrap_err();
    assert_eq!(error.reason(), Some(h2::Reason::CONNECT_ERROR));
    let details = "upstream_reset_after_response_started{connection_termination}";
    alone
        .logged(&[
            "200 DC downstream_remote_disconnect CONNECT - connect back 5 4 1",
            "407 - via_upstream CONNECT - connect back 0 3 1",
            &format!("200 UC {details} CONNECT - connect back 5 0 1"),
        ])
        .await;

    // An HTTP/2 host.
    let (host, address) = self::host().await;
    let clusters = [cluster_http2("back", address)];
    let alone = plane(which, connect_route(json!({})), json!({}), &clusters).await;
    tokio::spawn(async move {
        let (stream, _) = host.accept().await.unwrap();
        let mut connection = h2::server::handshake(stream).await.unwrap();
        while let Some(Ok((request, mut respond))) = connection.accept().await {
            assert_eq!(request.method(), Method::CONNECT);
            assert_eq!(request.uri().to_string(), "web.example:443");
            let mut send_stream = respond.send_response(http::Response::new(()), false).unwrap();
            let mut recv_stream = request.into_body();
            tokio::spawn(async move {
                while let Some(Ok(data)) = recv_stream.data().await {
                    send_stream.send_data(data, false).unwrap();
                }
                let _ = send_stream.send_data("".into(), true);
            });
        }
    });
    let mut client = Wire::open(alone.listener(0)).await;
    client.send(format!("{CONNECT}early").as_bytes()).await;
    assert_eq!(client.head().await.unwrap().status, 200);
    assert_eq!(client.bytes(5).await, b"early");
    client.finish().await;
    client.end().await;
    alone
        .logged(&["200 DC downstream_remote_disconnect CONNECT - connect back 5 5 1"])
        .await;
}

/// RFC 9113 section 8.5: a client that has not sent END_STREAM gets RST_STREAM.
async fn a_refused_connect_over_http2_is_reset_with_connect_error(which: Plane) {
    let dead = cluster("back", "127.0.0.1:1".parse().unwrap());
    let mut routes = connect_route(json!({"connect_config": {}}));
    let own = json!({"name": "own", "match": {"prefix": "/"}, "direct_response": {"status": 200}});
    routes.as_array_mut().unwrap().push(own);
    let alone = plane(which, routes, json!({}), &[dead]).await;
    let plain = Request::builder().method(Method::POST).uri("http://web/").body(());
    for (request, status, reason) in [
        (connect_request(), 503, h2::Reason::CONNECT_ERROR),
        (plain.unwrap(), 200, h2::Reason::NO_ERROR),
    ] {
        let mut client = client_http2(&alone).await;
        let (answer, mut send_stream) = client.send_request(request, false).unwrap();
        let answer = answer.await.unwrap();
        assert_eq!(answer.status(), status);
        let reset = std::future::poll_fn(|cx| send_stream.poll_reset(cx)).await;
        assert_eq!(reset.unwrap(), reason);
    }
}

async fn connect_and_upgrade_requests_are_retried_on_connect_failure(which: Plane) {
    let mut routes = connect_route(json!({"connect_config": {}}));
    routes[0]["route"]["retry_policy"] = json!({"retry_on": "connect-failure", "num_retries": 2});
    let mut chat = json!({"name": "chat", "match": {"prefix": "/"}});
    chat["route"] = routes[0]["route"].clone();
    chat["route"]["upgrade_configs"] = json!([{"upgrade_type": "websocket"}]);
    routes.as_array_mut().unwrap().push(chat);
    let dead = cluster("back", "127.0.0.1:1".parse().unwrap());
    let alone = plane(which, routes, json!({}), &[dead]).await;
    let text = "upstream connect error or disconnect/reset before headers. retried and the latest reset reason: \
                remote connection failure";
    for asked in [
        CONNECT,
        "GET / HTTP/1.1\r\nhost: web\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n",
    ] {
        let mut client = Wire::open(alone.listener(0)).await;
        client.send(asked.as_bytes()).await;
        let said = client.answer().await.unwrap();
        assert_eq!((said.status, said.body.as_str()), (503, text));
    }
    let details =
        "upstream_reset_before_response_started{remote_connection_failure|delayed_connect_error:_Connection_refused}";
    alone
        .logged(&[
            &format!("503 URX,UF {details} CONNECT - connect back 0 121 3"),
            &format!("503 URX,UF {details} GET / chat back 0 121 3"),
        ])
        .await;
}
