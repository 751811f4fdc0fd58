//! Malformed and unusual HTTP/1 requests, sent as raw bytes.

use serde_json::json;

use super::harness::alone::{Alone, access_log, cluster, http_listener};
use super::harness::wire::Wire;
use super::harness::{Backend, Plane, eventually, get};
use crate::on_each_plane;

on_each_plane! {
    malformed_requests_are_rejected_and_logged,
    unusual_but_valid_requests_are_forwarded,
    requests_without_a_path_and_query_without_content_type_are_rejected,
    headers_with_underscores_are_handled_as_configured,
    pipelined_requests_before_a_malformed_one_are_answered_first,
    incomplete_request_bodies_are_not_forwarded,
    a_response_before_the_end_of_the_request_closes_the_connection,
    hop_by_hop_headers_are_not_forwarded,
    slow_requests_are_answered_with_408_or_504,
    connections_close_when_idle_or_at_their_limits,
}

const BAD: &str = "Bad Request";
const LARGE: &str = "Request Header Fields Too Large";
const LOG: &str = "%RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %REQ(:METHOD)% %REQ(X-CASE)%\n";

/// A data plane in front of a backend.
async fn plane(plane: Plane, backend: &Backend, more: serde_json::Value) -> Alone {
    let routes = json!([
        {"match": {"prefix": "/own"}, "direct_response": {"status": 200, "body": {"inline_string": "own"}}},
        {"match": {"prefix": "/"}, "route": {"cluster": "back", "timeout": "0s"}},
    ]);
    let mut manager = json!({
        "normalize_path": true,
        "stream_idle_timeout": "0s",
        "upgrade_configs": [{"upgrade_type": "websocket"}],
        "access_log": access_log(LOG),
    });
    manager
        .as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    let listener = http_listener("in", "INBOUND", routes, manager);
    Alone::start(plane, &[listener], &[cluster("back", backend.address())], json!({})).await
}

/// A request with these headers.
fn head(fields: &str) -> Vec<u8> {
    format!("POST /a HTTP/1.1\r\nhost: web\r\n{fields}\r\n").into_bytes()
}

/// A request with a chunked body.
fn chunked(body: &str) -> Vec<u8> {
    [head("transfer-encoding: chunked\r\n"), body.into()].concat()
}

/// Requests that are rejected: their bytes, the status and body of the response, and the access log line.
fn refused() -> Vec<(Vec<u8>, u16, &'static str, &'static str)> {
    let mut all = Vec::new();
    let mut refuse = |sent: &[u8], status, text, log| all.push((sent.to_vec(), status, text, log));
    for fields in [
        "content-length: 5\r\ntransfer-encoding: chunked\r\n",
        "transfer-encoding: chunked\r\ncontent-length: 5\r\n",
    ] {
        let log = "400 DPE http1.content_length_and_chunked_not_allowed - -";
        refuse(&head(fields), 400, BAD, log);
    }
    for fields in [
        "content-length: 5\r\ncontent-length: 5\r\n",
        "content-length: 5\r\ncontent-length: 6\r\n",
        "content-length: 5, 5\r\n",
        "content-length: -5\r\n",
        "content-length: +5\r\n",
        "content-length: 0x5\r\n",
        "content-length: 99999999999999999999999\r\n",
        "content-length:\r\n",
        "x-a : b\r\n",
        "x a: b\r\n",
        "x(a: b\r\n",
        "xa\r\n",
        ": b\r\n",
        ":path: /b\r\n",
        "x-\u{e9}: b\r\n",
    ] {
        refuse(&head(fields), 400, BAD, "400 DPE http1.codec_error - -");
    }
    for fields in ["x-a: b\0c\r\n", "x\0a: b\r\n", "x-a: b\u{1}c\r\n", "x-a: b\u{7f}c\r\n"] {
        refuse(&head(fields), 400, BAD, "400 DPE http1.invalid_characters - -");
    }
    for coding in ["gzip, chunked", "chunked, gzip", "identity", "chunked, chunked", ""] {
        let log = "501 DPE http1.invalid_transfer_encoding - -";
        refuse(
            &head(&format!("transfer-encoding: {coding}\r\n")),
            501,
            "Not Implemented",
            log,
        );
    }
    for (line, log) in [
        ("GET /\u{e9} HTTP/1.1", "400 DPE http1.codec_error - -"),
        ("GET /a b HTTP/1.1", "400 DPE http1.codec_error - -"),
        ("GET /a http/1.1", "400 DPE http1.codec_error - -"),
        ("GET /a HTTP/1.10", "400 DPE http1.codec_error - -"),
        ("GET web:80 HTTP/1.1", "400 DPE http1.codec_error - -"),
        ("FOO /a HTTP/1.1", "400 DPE http1.codec_error - -"),
        ("M-SEARCH /a HTTP/1.1", "400 DPE http1.codec_error - -"),
        ("get /a HTTP/1.1", "400 DPE http1.codec_error - -"),
        ("PRI /a HTTP/1.1", "400 DPE http1.codec_error - -"),
        ("SSH-2.0-x", "400 DPE http1.codec_error - -"),
        ("GET /\u{1} HTTP/1.1", "400 DPE http1.invalid_characters - -"),
        ("GET * HTTP/1.1", "400 DPE http1.invalid_url - -"),
        ("CONNECT /a HTTP/1.1", "400 DPE http1.invalid_url - -"),
        ("GET ftp://web/a HTTP/1.1", "400 DPE http1.invalid_scheme - -"),
        ("GET /a HTTP/1.1\r\nhost: w b", "400 DPE http.invalid_authority - -"),
        ("GET /a HTTP/1.1\r\nhost: web/b", "400 DPE http.invalid_authority - -"),
    ] {
        refuse(format!("{line}\r\n\r\n").as_bytes(), 400, BAD, log);
    }
    for line in [
        "GET /a HTTP/1.0",
        "GET /a HTTP/1.2",
        "GET /a HTTP/2.0",
        "GET /a",
        "GET /a ",
    ] {
        let sent = format!("{line}\r\nhost: web\r\n\r\n");
        refuse(sent.as_bytes(), 426, "Upgrade Required", "426 DPE low_version - -");
    }
    let log = "431 DPE http1.headers_too_large - -";
    refuse(&head(&format!("x-a: {}\r\n", "a".repeat(70_000))), 431, LARGE, log);
    refuse(format!("GET /{}", "a".repeat(70_000)).as_bytes(), 431, LARGE, log);
    refuse(
        &head(&"x: a\r\n".repeat(100)),
        431,
        LARGE,
        "431 DPE http1.too_many_headers - -",
    );
    for body in [
        "g\r\n",
        "-5\r\nhello\r\n",
        "0x5\r\n",
        " 5\r\nhello\r\n",
        "\r\n",
        "5\nhello\r\n",
        "5;a\nb\r\nhello\r\n",
    ] {
        refuse(&chunked(body), 400, BAD, "400 DPE http1.codec_error POST -");
    }
    refuse(
        &chunked("fffffffffffffffff\r\n"),
        400,
        BAD,
        "400 DPE http1.codec_error POST -",
    );
    refuse(
        &chunked("5\r\nhello\r\n0\r\nx t: 1\r\n\r\n"),
        400,
        BAD,
        "400 DPE http1.codec_error POST -",
    );
    refuse(
        b"GET /a#b HTTP/1.1\r\nhost: web\r\nx-case: fragment\r\n\r\n",
        400,
        "",
        "fragment",
    );
    refuse(
        b"GET /a%00 HTTP/1.1\r\nhost: web\r\nx-case: nul\r\n\r\n",
        400,
        "",
        "400 - path_normalization_failed GET nul",
    );
    refuse(
        b"GET /a HTTP/1.1\r\nx-case: host\r\n\r\n",
        400,
        "",
        "400 - missing_host_header GET host",
    );
    all
}

async fn malformed_requests_are_rejected_and_logged(which: Plane) {
    let backend = Backend::http("echo").await;
    let alone = plane(which, &backend, json!({})).await;
    let mut lines = Vec::new();
    for (sent, status, text, log) in refused() {
        let mut wire = Wire::open(alone.listener(0)).await;
        wire.send(&sent).await;
        let shown = sent[..sent.len().min(100)].escape_ascii();
        let said = wire.answer().await.unwrap_or_else(|| panic!("no answer: {shown}"));
        assert_eq!((said.status, said.body.as_str()), (status, text), "{shown}");
        let kind = if text.is_empty() { "" } else { "text/plain" };
        assert_eq!(said.header("content-type"), kind, "{shown}");
        assert_eq!(
            (said.header("connection"), said.header("server")),
            ("close", "envoy"),
            "{shown}"
        );
        assert!(said.headers.contains_key("date"), "{shown}");
        wire.finish().await;
        assert_eq!(wire.end().await, b"", "{shown}");
        // Only one of the planes logs the method of this request.
        if log != "fragment" {
            lines.push(log.to_owned());
        }
    }
    // None of them has reached the backend as a complete request.
    get(alone.listener(0), "web", "/after").expect(200).await;
    assert!(
        backend
            .seen()
            .iter()
            .all(|seen| seen.path == "/after" || seen.body.is_empty())
    );
    lines.push("200 - via_upstream GET -".into());
    lines.sort_unstable();
    // Envoy flushes its log every ten seconds.
    eventually("the log", async || {
        let written = alone.wrote("access.log");
        let mut written: Vec<_> = written
            .lines()
            .filter(|line| !line.contains("path_normalization_failed -") && !line.contains("fragment"))
            .collect();
        written.sort_unstable();
        match written == lines {
            true => Ok(()),
            false => Err(format!("{written:#?} instead of {lines:#?}")),
        }
    })
    .await;
}

async fn unusual_but_valid_requests_are_forwarded(which: Plane) {
    let backend = Backend::http("echo").await;
    let alone = plane(which, &backend, json!({})).await;
    for (sent, path, body) in [
        (b"\r\n\r\nGET /a HTTP/1.1\r\nhost: web\r\n\r\n".to_vec(), "/a", ""),
        (b"GET /a HTTP/1.1\nhost: web\n\n".to_vec(), "/a", ""),
        (
            b"GET http://web/a?b HTTP/1.1\r\nhost: other\r\n\r\n".to_vec(),
            "/a?b",
            "",
        ),
        (b"GET http://u:p@web/a HTTP/1.1\r\nhost: web\r\n\r\n".to_vec(), "/a", ""),
        (b"GET /a/../../b HTTP/1.1\r\nhost: web\r\n\r\n".to_vec(), "/b", ""),
        (b"GET /a\"<> HTTP/1.1\r\nhost: web\r\n\r\n".to_vec(), "/a%22%3C%3E", ""),
        (b"GET /a^ HTTP/1.1\r\nhost: web\r\n\r\n".to_vec(), "/a%5E", ""),
        (
            b"GET /a?^`{}|\\ HTTP/1.1\r\nhost: web\r\n\r\n".to_vec(),
            "/a?^`{}|\\",
            "",
        ),
        (b"GET http://web HTTP/1.1\r\nhost: web\r\n\r\n".to_vec(), "/", ""),
        (b"PROPFIND /a HTTP/1.1\r\nhost: web\r\n\r\n".to_vec(), "/a", ""),
        (b"MSEARCH /a HTTP/1.1\r\nhost: web\r\n\r\n".to_vec(), "/a", ""),
        (b"SOURCE /a HTTP/1.1\r\nhost: web\r\n\r\n".to_vec(), "/a", ""),
        (
            b"QUERY /a HTTP/1.1\r\nhost: web\r\ncontent-type: a\r\n\r\n".to_vec(),
            "/a",
            "",
        ),
        (
            head("content-length: 005\r\nx-a:\tb \t\r\n")
                .into_iter()
                .chain(*b"hello")
                .collect(),
            "/a",
            "hello",
        ),
        (chunked("5;a=\"b\"\r\nhello\r\n00\r\n\r\n"), "/a", "hello"),
        (chunked("5\r\nhello\r\n0\r\nx-trailer: 1\r\n\r\n"), "/a", "hello"),
        (
            head("content-length: 5\r\nexpect: 100-continue\r\n")
                .into_iter()
                .chain(*b"hello")
                .collect(),
            "/a",
            "hello",
        ),
    ] {
        let shown = sent.escape_ascii();
        let mut wire = Wire::open(alone.listener(0)).await;
        wire.send(&sent).await;
        let mut said = wire.answer().await.unwrap_or_else(|| panic!("no answer: {shown}"));
        if said.status == 100 {
            said = wire.answer().await.unwrap();
        }
        assert_eq!(said.status, 200, "{shown}: {}", said.body);
        let seen = backend.seen().pop().unwrap();
        assert_eq!(
            (seen.path.as_str(), seen.body.as_str(), seen.authority.as_str()),
            (path, body, "web"),
            "{shown}"
        );
        // The connection stays open.
        wire.send(b"GET /next HTTP/1.1\r\nhost: web\r\n\r\n").await;
        assert_eq!(wire.answer().await.unwrap().status, 200, "{shown}");
    }
}

async fn requests_without_a_path_and_query_without_content_type_are_rejected(which: Plane) {
    let backend = Backend::http("echo").await;
    let alone = plane(which, &backend, json!({})).await;
    let mut wire = Wire::open(alone.listener(0)).await;
    for (line, status, connection) in [
        ("GET http://web?a=b HTTP/1.1", 404, ""),
        ("OPTIONS * HTTP/1.1", 404, ""),
        ("QUERY /a HTTP/1.1", 400, "close"),
    ] {
        wire.send(format!("{line}\r\nhost: web\r\n\r\n").as_bytes()).await;
        let said = wire.answer().await.unwrap();
        let observed = (said.status, said.body.as_str(), said.header("connection"));
        assert_eq!(observed, (status, "", connection), "{line}");
    }
    eventually("the log", async || {
        let written = alone.wrote("access.log");
        let expected = "404 - absolute_path_rejected GET -\n404 - absolute_path_rejected OPTIONS -\n\
                        400 - query_missing_content_type QUERY -\n";
        (written == expected).then_some(()).ok_or(written)
    })
    .await;
    assert_eq!(backend.seen().len(), 0);
}

async fn headers_with_underscores_are_handled_as_configured(which: Plane) {
    let backend = Backend::http("echo").await;
    let alone = async |action: &str| {
        let options = json!({"common_http_protocol_options": {"headers_with_underscores_action": action}});
        plane(which, &backend, options).await
    };
    let headers = async |alone: &Alone| {
        let call = get(alone.listener(0), "web", "/a")
            .header("x_a", "1")
            .header("x-b", "2");
        call.expect(200).await.seen().headers
    };
    let passed = headers(&alone("ALLOW").await).await;
    assert_eq!((&*passed["x_a"], &*passed["x-b"]), ("1", "2"));
    let dropped = headers(&alone("DROP_HEADER").await).await;
    assert!(!dropped.contains_key("x_a") && dropped["x-b"] == "2", "{dropped:?}");

    let refuses = alone("REJECT_REQUEST").await;
    let mut wire = Wire::open(refuses.listener(0)).await;
    wire.send(b"GET /a HTTP/1.1\r\nhost: web\r\nx_a: 1\r\n\r\n").await;
    let said = wire.answer().await.unwrap();
    let observed = (said.status, said.body.as_str(), said.header("connection"));
    assert_eq!(observed, (400, BAD, "close"));
    eventually("the log", async || {
        // Envoy does not log the method of such a request.
        let written = refuses.wrote("access.log");
        let expected = "400 DPE http1.unexpected_underscore ";
        written.starts_with(expected).then_some(()).ok_or(written)
    })
    .await;
    get(refuses.listener(0), "web", "/a").expect(200).await;
}

async fn incomplete_request_bodies_are_not_forwarded(which: Plane) {
    let backend = Backend::http("echo").await;
    let buffers = json!({
        "name": "buffer",
        "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.buffer.v3.Buffer", "max_request_bytes": 1000},
    });
    let router = json!({
        "name": "router",
        "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"},
    });
    let alone = plane(which, &backend, json!({"http_filters": [buffers, router]})).await;
    let mut wire = Wire::open(alone.listener(0)).await;
    wire.send(&chunked("5\r\nhello\r\nno\r\n")).await;
    let said = wire.answer().await.unwrap();
    assert_eq!((said.status, said.header("connection")), (400, "close"));
    let mut wire = Wire::open(alone.listener(0)).await;
    wire.send(&chunked("5\r\nhello\r\n")).await;
    wire.finish().await;
    assert_eq!(wire.end().await, b"");
    get(alone.listener(0), "web", "/after").expect(200).await;
    let seen: Vec<_> = backend.seen().into_iter().map(|seen| seen.path).collect();
    assert_eq!(seen, ["/after"]);
}

async fn pipelined_requests_before_a_malformed_one_are_answered_first(which: Plane) {
    let backend = Backend::http("echo").await;
    let alone = plane(which, &backend, json!({})).await;
    let mut wire = Wire::open(alone.listener(0)).await;
    let request = |name: &str| format!("GET /{name} HTTP/1.1\r\nhost: web\r\n\r\n");
    wire.send(
        [&request("a"), &request("b"), "BAD\r\n\r\n", &request("c")]
            .concat()
            .as_bytes(),
    )
    .await;
    for status in [200, 200, 400] {
        assert_eq!(wire.answer().await.unwrap().status, status);
    }
    wire.finish().await;
    assert_eq!(wire.end().await, b"");
    let paths: Vec<_> = backend.seen().into_iter().map(|seen| seen.path).collect();
    assert_eq!(paths, ["/a", "/b"]);
}

async fn a_response_before_the_end_of_the_request_closes_the_connection(which: Plane) {
    let backend = Backend::http("echo").await;
    let alone = plane(which, &backend, json!({})).await;
    for request in [
        "POST /own HTTP/1.1\r\nhost: web\r\ncontent-length: 100000\r\n\r\nsome",
        "POST /own HTTP/1.1\r\nhost: web\r\ntransfer-encoding: chunked\r\n\r\n4\r\nsome\r\n",
        "GET /a HTTP/1.1\r\nhost: web\r\nconnection: upgrade\r\nupgrade: unknown\r\n\r\n",
    ] {
        let mut wire = Wire::open(alone.listener(0)).await;
        wire.send(request.as_bytes()).await;
        let said = wire.answer().await.unwrap();
        assert_eq!(
            (said.status, said.header("connection")),
            (if request.contains("/own") { 200 } else { 403 }, "close")
        );
        // Bytes that still arrive are discarded: they neither reset the response nor become a request.
        wire.send(b"GET /smuggled HTTP/1.1\r\nhost: web\r\n\r\n").await;
        wire.finish().await;
        assert_eq!(wire.end().await, b"");
    }
    assert_eq!(backend.seen().len(), 0);
}

async fn hop_by_hop_headers_are_not_forwarded(which: Plane) {
    let backend = Backend::http("echo").await;
    let alone = plane(which, &backend, json!({})).await;
    let mut wire = Wire::open(alone.listener(0)).await;
    wire.send(&head("connection: x-a, keep-alive\r\nx-a: 1\r\nconnection: x-b\r\nx-b: 1\r\nkeep-alive: 5\r\nproxy-connection: close\r\nte: gzip\r\ncontent-length: 0\r\n")).await;
    assert_eq!(wire.answer().await.unwrap().status, 200);
    let seen = backend.seen().pop().unwrap();
    for name in ["connection", "x-a", "x-b", "keep-alive", "proxy-connection", "te"] {
        assert!(!seen.headers.contains_key(name), "{name}: {:?}", seen.headers);
    }
    for name in ["host", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto"] {
        let mut wire = Wire::open(alone.listener(0)).await;
        wire.send(&head(&format!(
            "connection: {name}\r\nx-forwarded-for: 1.2.3.4\r\nx-forwarded-host: a\r\nx-forwarded-proto: http\r\n"
        )))
        .await;
        let said = wire.answer().await.unwrap();
        assert_eq!((said.status, said.header("connection")), (400, "close"), "{name}");
    }
    assert_eq!(backend.seen().len(), 1);
}

async fn slow_requests_are_answered_with_408_or_504(which: Plane) {
    let backend = Backend::http("echo").await;
    let half_head = b"GET /a HTTP/1.1\r\nhost: w".to_vec();
    let half_body = [head("content-length: 10\r\n"), b"half".to_vec()].concat();
    let never = b"GET /a HTTP/1.1\r\nhost: web\r\nx-echo-delay: 60000\r\n\r\n".to_vec();
    let limits = [
        (
            json!({"request_headers_timeout": "0.3s"}),
            vec![(&half_head, 408, "request header timeout")],
        ),
        (
            json!({"request_timeout": "0.3s"}),
            vec![
                (&half_head, 408, "request timeout"),
                (&half_body, 408, "request timeout"),
            ],
        ),
        (
            json!({"stream_idle_timeout": "0.3s"}),
            vec![
                (&half_head, 408, "stream timeout"),
                (&half_body, 408, "stream timeout"),
                (&never, 504, "stream timeout"),
            ],
        ),
    ];
    for (limit, late) in limits {
        let alone = plane(which, &backend, limit.clone()).await;
        for (sent, status, text) in late {
            let mut wire = Wire::open(alone.listener(0)).await;
            wire.send(sent).await;
            let said = wire.answer().await.unwrap();
            assert_eq!((said.status, said.body.as_str()), (status, text), "{limit}");
            let connection = if status == 408 { "close" } else { "" };
            assert_eq!(said.header("connection"), connection, "{limit}");
        }
    }
}

async fn connections_close_when_idle_or_at_their_limits(which: Plane) {
    let backend = Backend::http("echo").await;
    let idle = json!({"common_http_protocol_options": {"idle_timeout": "0.3s"}, "drain_timeout": "0.1s"});
    let idle = plane(which, &backend, idle).await;
    let request = b"GET /a HTTP/1.1\r\nhost: web\r\n\r\n";
    let mut unused = Wire::open(idle.listener(0)).await;
    assert_eq!(unused.end().await, b"");
    let mut used = Wire::open(idle.listener(0)).await;
    used.send(request).await;
    assert_eq!(used.answer().await.unwrap().status, 200);
    assert_eq!(used.end().await, b"");
    let worn = json!({"common_http_protocol_options": {"max_requests_per_connection": 2}});
    let worn = plane(which, &backend, worn).await;
    let mut wire = Wire::open(worn.listener(0)).await;
    for connection in ["", "close"] {
        wire.send(request).await;
        assert_eq!(wire.answer().await.unwrap().header("connection"), connection);
    }
    wire.finish().await;
    assert_eq!(wire.end().await, b"");
    let old = json!({"common_http_protocol_options": {"max_connection_duration": "0.3s"}, "drain_timeout": "0.1s"});
    let old = plane(which, &backend, old).await;
    assert_eq!(Wire::open(old.listener(0)).await.end().await, b"");
}

/// The bundled proxy is stricter than Envoy where HTTP implementations interpret a request differently.
#[tokio::test]
async fn ambiguous_requests_that_envoy_accepts_are_rejected() {
    let backend = Backend::http("echo").await;
    let alone = plane(Plane::Topsail, &backend, json!({})).await;
    for sent in [
        head("x-a: b\r\n folded\r\n"),
        head("x-a: b\rc\r\n"),
        head("x-a: b\r\r\n"),
        head("host: web\r\n"),
        b"GET  /a HTTP/1.1\r\nhost: web\r\n\r\n".to_vec(),
        b"GET\t/a\tHTTP/1.1\r\nhost: web\r\n\r\n".to_vec(),
        b"GET /a HTTP/1.1 \r\nhost: web\r\n\r\n".to_vec(),
        chunked("5\r\nhelloX\r\n0\r\n\r\n"),
        chunked("5\r\nhello\n0\r\n\r\n"),
        chunked(&format!("5;{}\r\nhello\r\n0\r\n\r\n", "a".repeat(20_000))),
    ] {
        let mut wire = Wire::open(alone.listener(0)).await;
        wire.send(&sent).await;
        let said = wire.answer().await.unwrap();
        assert_eq!(
            (said.status, said.header("connection")),
            (400, "close"),
            "{}",
            sent.escape_ascii()
        );
    }
}
