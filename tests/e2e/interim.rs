//! Interim responses (RFC 9110 section 15.2) and `expect: 100-continue`.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use http::{HeaderMap, Method, Request, Response};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::harness::Plane;
use super::harness::alone::{Alone, access_log, cluster, cluster_http2, http_listener};
use super::harness::wire::{Wire, next_head};
use crate::on_each_plane;

on_each_plane! {
    the_first_interim_response_is_forwarded_with_proxy_100_continue,
    expect_100_continue_is_answered_by_the_proxy_or_the_host,
    interim_responses_are_counted_without_a_final_response,
}

const LOG: &str =
    "%REQ(X-CASE)% %RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %UPSTREAM_REQUEST_ATTEMPT_COUNT%\n";

/// Versions of HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    One,
    Two,
}

const VERSIONS: [Version; 2] = [Version::One, Version::Two];

/// A host that sends the interim responses listed in `x-interim`, then 200 or what `x-then` asks for instead.
async fn host(version: Version) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            match version {
                // The client may close the connection.
                Version::One => drop(tokio::spawn(async move { serve_http1(stream).await.ok() })),
                Version::Two => drop(tokio::spawn(serve_http2(stream))),
            }
        }
    });
    address
}

/// The interim responses that a request asks for.
fn interims(headers: &BTreeMap<String, String>) -> Vec<u16> {
    let listed = headers.get("x-interim").map_or("", String::as_str);
    let listed = listed.split_whitespace().map(|status| status.parse().unwrap());
    listed.collect()
}

async fn serve_http1(mut stream: TcpStream) -> std::io::Result<()> {
    let mut read = Vec::new();
    while let Some(head) = next_head(&mut stream, &mut read).await? {
        let headers = head.lines().filter_map(|line| line.split_once(": "));
        let headers: BTreeMap<_, _> = headers
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        for status in interims(&headers) {
            let said =
                format!("HTTP/1.1 {status} Soon\r\nX-A: {status}\r\nconnection: keep-alive\r\nserver: mine\r\n\r\n");
            stream.write_all(said.as_bytes()).await?;
        }
        match headers.get("x-then").map_or("", String::as_str) {
            "ends" => return Ok(()),
            "waits" => std::future::pending().await,
            "fails" => {
                stream
                    .write_all(b"HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n")
                    .await?;
                continue;
            }
            _ => {}
        }
        let len = headers.get("content-length").map_or(0, |len| len.parse().unwrap());
        while read.len() < len {
            if stream.read_buf(&mut read).await? == 0 {
                return Ok(());
            }
        }
        read.drain(..len);
        let expects = headers.contains_key("expect");
        let said = format!("HTTP/1.1 200 OK\r\ncontent-length: 0\r\nx-expects: {expects}\r\n\r\n");
        stream.write_all(said.as_bytes()).await?;
    }
    Ok(())
}

async fn serve_http2(stream: TcpStream) {
    let mut connection = h2::server::handshake(stream).await.unwrap();
    while let Some(Ok((request, mut respond))) = connection.accept().await {
        tokio::spawn(async move {
            let headers = joined(request.headers());
            for status in interims(&headers) {
                let said = Response::builder().status(status).header("x-a", status);
                let said = said.header("server", "mine").body(()).unwrap();
                respond.send_informational(said).unwrap();
            }
            let status = match headers.get("x-then").map_or("", String::as_str) {
                "ends" => {
                    // The library drops frames that are not written yet.
                    tokio::time::sleep(Duration::from_millis(200)).await;
                    return respond.send_reset(h2::Reason::INTERNAL_ERROR);
                }
                "waits" => std::future::pending().await,
                "fails" => 503,
                _ => 200,
            };
            let mut body = request.into_body();
            while let Some(Ok(_)) = body.data().await {}
            let said = Response::builder().status(status);
            let said = said.header("x-expects", headers.contains_key("expect").to_string());
            respond.send_response(said.body(()).unwrap(), true).unwrap();
        });
    }
}

fn joined(headers: &HeaderMap) -> BTreeMap<String, String> {
    let text = |value: &http::HeaderValue| value.to_str().unwrap().to_owned();
    let each = headers.iter().map(|(name, value)| (name.to_string(), text(value)));
    each.collect()
}

/// The responses that a client received: each status with its headers.
type Received = Vec<(u16, BTreeMap<String, String>)>;

/// Sends a request, and its body, if there is one, after the first response.
async fn ask(version: Version, address: SocketAddr, headers: &[(&str, &str)], body: &'static str) -> Received {
    match version {
        Version::One => ask_http1(address, headers, body).await,
        Version::Two => ask_http2(address, headers, body).await,
    }
}

async fn ask_http1(address: SocketAddr, headers: &[(&str, &str)], body: &str) -> Received {
    let mut wire = Wire::open(address).await;
    let more: String = headers
        .iter()
        .map(|(name, value)| format!("{name}: {value}\r\n"))
        .collect();
    let method = if body.is_empty() { "GET" } else { "POST" };
    let head = format!("{method} / HTTP/1.1\r\nhost: web\r\n{more}\r\n");
    wire.send(head.as_bytes()).await;
    let mut received = Received::new();
    loop {
        let said = wire.head().await.expect("an answer");
        if received.is_empty() {
            wire.send(body.as_bytes()).await;
        }
        received.push((said.status, said.headers));
        if said.status >= 200 {
            return received;
        }
    }
}

async fn ask_http2(address: SocketAddr, headers: &[(&str, &str)], body: &'static str) -> Received {
    let stream = TcpStream::connect(address).await.unwrap();
    let (client, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    let mut client = client.ready().await.unwrap();
    let method = if body.is_empty() { Method::GET } else { Method::POST };
    let request = Request::builder().method(method).uri("http://web/");
    let request = headers
        .iter()
        .fold(request, |request, (name, value)| request.header(*name, *value));
    let sent = client.send_request(request.body(()).unwrap(), body.is_empty());
    let (mut answer, mut send_stream) = sent.unwrap();
    let mut received = Received::new();
    loop {
        let head = poll_fn(|cx| {
            if let Poll::Ready(Some(interim)) = answer.poll_informational(cx) {
                return Poll::Ready(interim.unwrap().into_parts().0);
            }
            let answer = Pin::new(&mut answer).poll(cx);
            answer.map(|answer| answer.unwrap().into_parts().0)
        })
        .await;
        if received.is_empty() && !body.is_empty() {
            send_stream.send_data(body.into(), true).unwrap();
        }
        received.push((head.status.as_u16(), joined(&head.headers)));
        if !head.status.is_informational() {
            return received;
        }
    }
}

/// A data plane with two listeners for each of an HTTP/1.1 and an HTTP/2 host: one forwards interim responses.
async fn plane(which: Plane) -> Alone {
    let hosts = [host(Version::One).await, host(Version::Two).await];
    let listener = |name: &str, passes: bool| {
        let late = json!({"match": {"path": "/late"}, "route": {"cluster": name, "timeout": "0.2s"}});
        let retry = json!({"retry_on": "5xx,reset", "num_retries": 1, "retry_back_off": {"base_interval": "0.001s"}});
        let routes = json!([late, {
            "match": {"prefix": "/"},
            "route": {"cluster": name, "retry_policy": retry},
            "response_headers_to_add": [{"header": {"key": "x-added", "value": "1"}}],
        }]);
        let more = json!({"access_log": access_log(LOG), "proxy_100_continue": passes, "via": "1.1 here"});
        http_listener(&format!("{name}-{passes}"), "OUTBOUND", routes, more)
    };
    let listeners = [("one", false), ("two", false), ("one", true), ("two", true)];
    let listeners = listeners.map(|(name, passes)| listener(name, passes));
    let clusters = [cluster("one", hosts[0]), cluster_http2("two", hosts[1])];
    Alone::start(which, &listeners, &clusters, json!({})).await
}

/// Sends a request with each client version to each listener, and returns the responses by case.
async fn ask_all(
    alone: &Alone,
    headers: &[(&str, &str)],
    body: &'static str,
) -> Vec<(String, bool, Version, Received)> {
    let mut all = Vec::new();
    for (index, passes) in [false, false, true, true].into_iter().enumerate() {
        for client in VERSIONS {
            let case = format!("{client:?}-to-{:?}-{passes}", VERSIONS[index % 2]);
            let said: String = headers
                .iter()
                .map(|(_, value)| format!("-{}", value.replace(' ', "_")))
                .collect();
            let case = case + &said;
            let headers = [headers, &[("x-case", &case)]].concat();
            let received = ask(client, alone.listener(index), &headers, body);
            let received = tokio::time::timeout(Duration::from_secs(10), received).await;
            let received = received.unwrap_or_else(|_| panic!("no answer: {case}"));
            all.push((case, passes, VERSIONS[index % 2], received));
        }
    }
    all
}

fn statuses(received: &Received) -> Vec<u16> {
    received.iter().map(|(status, _)| *status).collect()
}

async fn the_first_interim_response_is_forwarded_with_proxy_100_continue(which: Plane) {
    let alone = plane(which).await;
    let mut lines = Vec::new();
    for (interim, then, passed, answer) in [
        ("100", "", Some(100), 200),
        ("102", "", Some(102), 200),
        ("103", "", Some(103), 200),
        ("104", "", Some(104), 200),
        // Unknown interim responses are dropped.
        ("150", "", None, 200),
        ("150 103", "", Some(103), 200),
        // Only the first one is forwarded.
        ("103 100 103", "", Some(103), 200),
        // There are no retries after an interim response.
        ("", "fails", None, 503),
        ("103", "fails", Some(103), 503),
        ("150", "fails", None, 503),
        ("103", "ends", Some(103), 503),
    ] {
        for (case, passes, host, received) in ask_all(&alone, &[("x-interim", interim), ("x-then", then)], "").await {
            let expected: Vec<_> = passed.filter(|_| passes).into_iter().chain([answer]).collect();
            assert_eq!(statuses(&received), expected, "{case}: {received:?}");
            if received.len() > 1 {
                // The host's headers, without those that the proxy adds to final responses.
                let said = BTreeMap::from([
                    ("x-a".into(), received[0].0.to_string()),
                    ("server".into(), "mine".into()),
                ]);
                assert_eq!(received[0].1, said, "{case}");
            }
            assert_eq!(received.last().unwrap().1["x-added"], "1", "{case}");
            let rest = match (then, passed) {
                ("ends", _) if host == Version::One => {
                    "UC upstream_reset_after_response_started{connection_termination} 1"
                }
                ("ends", _) => "UR upstream_reset_after_response_started{remote_reset} 1",
                ("fails", None) => "URX via_upstream 2",
                _ => "- via_upstream 1",
            };
            lines.push(format!("{case} {answer} {rest}"));
        }
    }
    alone.logged(&lines).await;
    let stats = alone.sidecar.stats("(upstream_rq_1..|downstream_rq_1xx)$").await;
    let counted = |name: &str| stats.get(name).copied().unwrap_or_default();
    for host in ["one", "two"] {
        // Received for four pairs of clients and listeners, forwarded for two.
        for (status, cases) in [("100", 1), ("102", 1), ("103", 5), ("104", 1), ("150", 0), ("1xx", 8)] {
            let name = format!("cluster.{host}.upstream_rq_{status}");
            assert_eq!(counted(&name), 4 * cases, "{name}");
        }
        assert_eq!(counted(&format!("http.{host}-true.downstream_rq_1xx")), 16);
        assert_eq!(counted(&format!("http.{host}-false.downstream_rq_1xx")), 0);
    }
}

async fn expect_100_continue_is_answered_by_the_proxy_or_the_host(which: Plane) {
    let alone = plane(which).await;
    for expect in ["100-continue", "100-Continue"] {
        let headers = [("expect", expect), ("content-length", "5"), ("x-interim", "100")];
        for (case, passes, _, received) in ask_all(&alone, &headers, "hello").await {
            assert_eq!(statuses(&received), [100, 200], "{case}");
            // Where the proxy sends 100 itself, it removes `expect` from the request.
            assert_eq!(received[0].1.contains_key("x-a"), passes, "{case}");
            assert_eq!(received[1].1["x-expects"], passes.to_string(), "{case}");
        }
    }
    let stats = alone.sidecar.stats("downstream_rq_1xx$").await;
    for name in ["one-false", "one-true", "two-false", "two-true"] {
        assert_eq!(stats[&format!("http.{name}.downstream_rq_1xx")], 4, "{name}");
    }
}

async fn interim_responses_are_counted_without_a_final_response(which: Plane) {
    let alone = plane(which).await;
    let mut lines = Vec::new();
    for (index, passes) in [false, false, true, true].into_iter().enumerate() {
        // The route timeout expires.
        let head = format!(
            "GET /late HTTP/1.1\r\nhost: web\r\nx-case: late-{index}\r\nx-interim: 103\r\nx-then: waits\r\n\r\n"
        );
        let mut wire = Wire::open(alone.listener(index)).await;
        wire.send(head.as_bytes()).await;
        if passes {
            assert_eq!(wire.head().await.unwrap().status, 103);
        }
        assert_eq!(wire.answer().await.unwrap().status, 504);
        lines.push(format!("late-{index} 504 UT response_timeout 1"));
        if !passes {
            continue;
        }
        // The client closes the connection after the interim response.
        let mut wire = Wire::open(alone.listener(index)).await;
        wire.send(head.replace("/late", "/").replace("late-", "left-").as_bytes())
            .await;
        assert_eq!(wire.head().await.unwrap().status, 103);
        drop(wire);
        lines.push(format!("left-{index} 103 DC downstream_remote_disconnect 1"));
        alone.logged(&lines).await;
    }
    let stats = alone.sidecar.stats("(upstream_rq_103|downstream_rq_1xx)$").await;
    for host in ["one", "two"] {
        assert_eq!(stats[&format!("cluster.{host}.upstream_rq_103")], 3, "{host}");
        assert_eq!(stats[&format!("http.{host}-true.downstream_rq_1xx")], 2, "{host}");
    }
}
