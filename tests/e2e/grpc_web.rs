//! gRPC-Web: non-gRPC responses, local replies and bodies that are not valid base64.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::harness::Plane;
use super::harness::alone::{Alone, access_log, cluster, http_listener};
use super::harness::wire::{Host, Then, Wire};
use crate::on_each_plane;

on_each_plane! {
    non_grpc_responses_become_grpc_status_headers,
    incomplete_responses_are_answered_with_502,
    local_replies_keep_their_status,
    invalid_base64_bodies_are_rejected,
}

const LOG: &str =
    "%RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %GRPC_STATUS% %GRPC_STATUS_NUMBER% %BYTES_SENT%\n";

async fn plane(which: Plane, host: &Host) -> Alone {
    let own = |path: &str, status: u16, body: &str| json!({"match": {"path": path}, "direct_response": {"status": status, "body": {"inline_string": body}}});
    let routes = json!([
        own("/own", 418, "100% tea"),
        own("/fine", 200, "fine"),
        {"match": {"path": "/empty"}, "direct_response": {"status": 503}},
        {"match": {"path": "/moved"}, "redirect": {"path_redirect": "/there"}},
        {"match": {"path": "/dead"}, "route": {"cluster": "dead"}},
        {"match": {"path": "/none"}, "route": {"cluster": "back"}},
        {"match": {"safe_regex": {"regex": "/[0-9]"}}, "route": {"cluster": "back"}},
    ]);
    let filter = |name: &str, mut config: Value| {
        config["@type"] = json!(format!("type.googleapis.com/envoy.extensions.filters.http.{name}"));
        json!({"name": name, "typed_config": config})
    };
    let fault = |header: &str, abort: Value| {
        let mut fault = json!({"abort": abort, "headers": [{"name": header, "present_match": true}]});
        fault["abort"]["percentage"] = json!({"numerator": 100});
        filter("fault.v3.HTTPFault", fault)
    };
    let filters = [
        filter("grpc_web.v3.GrpcWeb", json!({})),
        fault("x-abort", json!({"http_status": 503})),
        fault("x-abort-grpc", json!({"grpc_status": 5})),
        filter("router.v3.Router", json!({})),
    ];
    let more = json!({"access_log": access_log(LOG), "http_filters": filters});
    let clusters = [
        cluster("back", host.address),
        cluster("dead", "127.0.0.1:1".parse().unwrap()),
    ];
    Alone::start(
        which,
        &[http_listener("in", "OUTBOUND", routes, more)],
        &clusters,
        json!({}),
    )
    .await
}

const BINARY: &str = "application/grpc-web+proto";
const TEXT: &str = "application/grpc-web-text+proto";

/// Sends a gRPC-Web request with this `accept` header and returns the status, and the relevant headers with the body.
async fn ask(alone: &Alone, path: &str, accept: &str, headers: &str, body: &str) -> (u16, String) {
    let mut wire = Wire::open(alone.listener(0)).await;
    let (kind, len) = (if body.is_empty() { BINARY } else { TEXT }, body.len());
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: web\r\ncontent-type: {kind}\r\naccept: {accept}\r\ncontent-length: {len}\r\n{headers}\r\n{body}"
    );
    wire.send(head.as_bytes()).await;
    let said = wire.answer().await.expect("an answer");
    let mut text_of_response = String::new();
    for name in ["content-type", "grpc-status", "grpc-message", "location"] {
        if let Some(value) = said.headers.get(name) {
            let _ = write!(text_of_response, "{name}: {value}; ");
        }
    }
    (said.status, text_of_response + &said.body)
}

async fn non_grpc_responses_become_grpc_status_headers(which: Plane) {
    let long = "a".repeat(20_000);
    let answers = [
        ("200 OK", "content-type: text/html\r\n", "<html>"),
        ("404 Not Found", "", "100%\n"),
        ("503 No", "content-type: application/grpc\r\n", "no"),
        ("200 OK", "content-type: text/plain\r\ngrpc-status: 5\r\n", "hm"),
        ("200 OK", "", &long),
        // Without a body there is no message.
        ("503 No", "", ""),
        // A trailers-only gRPC response.
        (
            "200 OK",
            "content-type: application/grpc\r\ngrpc-status: 5\r\ngrpc-message: no\r\n",
            "",
        ),
    ];
    let answers = answers.map(|(status, headers, body)| {
        let len = body.len();
        let answer = format!("HTTP/1.1 {status}\r\n{headers}content-length: {len}\r\n\r\n{body}");
        (answer.into_bytes(), Then::Goes)
    });
    let host = Host::start(answers.into()).await;
    let alone = plane(which, &host).await;
    let begun = format!("grpc-status: 2; grpc-message: {}; ", "a".repeat(16 << 10));
    let mut lines = Vec::new();
    for (path, status, text_of_response, line) in [
        (
            "/0",
            200,
            "grpc-status: 2; grpc-message: <html>; ",
            "200 - via_upstream Unknown 2 0",
        ),
        (
            "/1",
            404,
            "grpc-status: 12; grpc-message: 100%25%0A; ",
            "404 - via_upstream Unimplemented 12 0",
        ),
        (
            "/2",
            503,
            "grpc-status: 14; grpc-message: no; ",
            "503 - via_upstream Unavailable 14 0",
        ),
        (
            "/3",
            200,
            "grpc-status: 2; grpc-message: hm; ",
            "200 - via_upstream Unknown 2 0",
        ),
        ("/4", 200, &begun, "200 - via_upstream Unknown 2 0"),
        ("/5", 503, "", "503 - via_upstream Unavailable 14 0"),
        (
            "/6",
            200,
            "grpc-status: 5; grpc-message: no; ",
            "200 - via_upstream NotFound 5 0",
        ),
    ] {
        for (accept, kind) in [
            ("*/*", BINARY),
            ("application/grpc-web-text", TEXT),
            (TEXT, TEXT),
            // Lists in `accept` are not parsed.
            ("application/grpc-web-text, */*", BINARY),
        ] {
            let expected = (status, format!("content-type: {kind}; {text_of_response}"));
            assert_eq!(ask(&alone, path, accept, "", "").await, expected, "{path}");
            lines.push(line);
        }
    }
    alone.logged(&lines).await;
}

async fn incomplete_responses_are_answered_with_502(which: Plane) {
    let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf".to_vec();
    let host = Host::start(vec![(answer, Then::Closes)]).await;
    let alone = plane(which, &host).await;
    let text = "upstream connect error or disconnect/reset before headers. reset reason: protocol error";
    let text_of_response = format!("content-type: text/plain; {text}");
    assert_eq!(ask(&alone, "/0", "*/*", "", "").await, (502, text_of_response));
    let details = "upstream_reset_after_response_started{protocol_error}";
    alone.logged(&[format!("502 UPE {details} Unavailable 14 87")]).await;
}

async fn local_replies_keep_their_status(which: Plane) {
    let host = Host::start(Vec::new()).await;
    let alone = plane(which, &host).await;
    let text = "upstream connect error or disconnect/reset before headers. reset reason: remote connection failure";
    let dead = format!("grpc-status: 14; grpc-message: {text}; ");
    let refused =
        "upstream_reset_before_response_started{remote_connection_failure|delayed_connect_error:_Connection_refused}";
    let refused = format!("503 UF {refused} Unavailable 14 0");
    let mut lines = Vec::new();
    for (path, headers, status, text_of_response, line) in [
        (
            "/own",
            "",
            418,
            "grpc-status: 2; grpc-message: 100%25 tea; ",
            "418 - direct_response Unknown 2 0",
        ),
        (
            "/fine",
            "",
            200,
            "grpc-status: 2; grpc-message: fine; ",
            "200 - direct_response Unknown 2 0",
        ),
        ("/empty", "", 503, "", "503 - direct_response Unavailable 14 0"),
        (
            "/moved",
            "",
            301,
            "location: http://web/there; ",
            "301 - direct_response Unknown 2 0",
        ),
        ("/dead", "", 503, dead.as_str(), refused.as_str()),
        ("/nothing", "", 404, "", "404 NR route_not_found Unimplemented 12 0"),
        (
            "/none",
            "x-abort: 1\r\n",
            503,
            "grpc-status: 14; grpc-message: fault filter abort; ",
            "503 FI fault_filter_abort Unavailable 14 0",
        ),
        (
            "/none",
            "x-abort-grpc: 1\r\n",
            200,
            "grpc-status: 2; grpc-message: fault filter abort; ",
            "200 FI fault_filter_abort Unknown 2 0",
        ),
    ] {
        let expected = (status, format!("content-type: {BINARY}; {text_of_response}"));
        assert_eq!(ask(&alone, path, "*/*", headers, "").await, expected, "{path}");
        lines.push(line);
    }
    alone.logged(&lines).await;
}

async fn invalid_base64_bodies_are_rejected(which: Plane) {
    let host = Host::start(Vec::new()).await;
    let alone = plane(which, &host).await;
    let text_of_response =
        format!("content-type: {TEXT}; grpc-status: 13; grpc-message: Bad gRPC-web request, invalid base64 data.; ");
    let mut lines = Vec::new();
    for (body, details) in [
        ("!!!!", "grpc_base_64_decode_failed"),
        ("AAA", "grpc_base_64_decode_failed_bad_size"),
        ("AAAA!", "grpc_base_64_decode_failed_bad_size"),
        ("AAAAAAFhAAAAAAF!", "grpc_base_64_decode_failed"),
    ] {
        let answer = ask(&alone, "/none", TEXT, "", body).await;
        assert_eq!(answer, (400, text_of_response.clone()), "{body}");
        lines.push(format!("400 - {details} Internal 13 0"));
    }
    alone.logged(&lines).await;
    let refused = alone.sidecar.stats("cluster.back.upstream_rq_completed").await;
    assert_eq!(refused.get("cluster.back.upstream_rq_completed"), Some(&0));
}
