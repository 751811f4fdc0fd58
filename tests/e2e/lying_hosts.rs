//! HTTP/1 hosts that send malformed, incomplete or no responses.

use serde_json::json;

use super::harness::Plane;
use super::harness::alone::{Alone, access_log, cluster, http_listener};
use super::harness::wire::{Host, Said, Then, Wire};
use crate::on_each_plane;

on_each_plane! {
    malformed_responses_are_answered_with_502,
    incomplete_responses_are_not_completed_downstream,
    closed_connections_are_503_and_silent_hosts_504,
    unusual_but_valid_responses_are_forwarded,
}

const LOG: &str = "%REQ(:PATH)% %RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS%\n";

async fn plane(which: Plane, host: &Host) -> Alone {
    let routes = json!([{"match": {"prefix": "/"}, "route": {"cluster": "back", "timeout": "1s"}}]);
    let listener = http_listener("in", "INBOUND", routes, json!({"access_log": access_log(LOG)}));
    Alone::start(which, &[listener], &[cluster("back", host.address)], json!({})).await
}

async fn ask(alone: &Alone, number: usize) -> (Option<Said>, Wire) {
    let mut wire = Wire::open(alone.listener(0)).await;
    wire.send(format!("GET /{number} HTTP/1.1\r\nhost: web\r\n\r\n").as_bytes())
        .await;
    (wire.answer().await, wire)
}

/// Checks the local reply and the access log line for each response of the host; the client's connection stays usable.
async fn expect(which: Plane, answers: &[(&str, Then)], status: u16, text: &str, logged: &str) {
    let mut all: Vec<_> = answers
        .iter()
        .map(|(answer, then)| (answer.as_bytes().to_vec(), *then))
        .collect();
    let good = all.len();
    all.push((b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ngood".to_vec(), Then::Goes));
    let host = Host::start(all).await;
    let alone = plane(which, &host).await;
    let mut lines = Vec::new();
    for (number, (answer, _)) in answers.iter().enumerate() {
        let (said, mut wire) = ask(&alone, number).await;
        let said = said.unwrap_or_else(|| panic!("{answer:?}"));
        assert_eq!((said.status, said.body.as_str()), (status, text), "{answer:?}");
        wire.send(format!("GET /{good} HTTP/1.1\r\nhost: web\r\n\r\n").as_bytes())
            .await;
        assert_eq!(wire.answer().await.unwrap().body, "good", "{answer:?}");
        lines.push(format!("/{number} {status} {logged}"));
        lines.push(format!("/{good} 200 - via_upstream"));
    }
    alone.logged(&lines).await;
}

async fn malformed_responses_are_answered_with_502(which: Plane) {
    let answers = [
        ("garbage garbage\r\n\r\n", Then::Goes),
        (
            "HTTP/1.1 200 OK\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
            Then::Goes,
        ),
        (
            "HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello",
            Then::Goes,
        ),
        (
            "HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 5\r\n\r\nhello",
            Then::Goes,
        ),
        ("HTTP/1.1 200 OK\r\ncontent-length: -5\r\n\r\nhello", Then::Goes),
        (
            "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
            Then::Goes,
        ),
        ("HTTP/1.1 204 No Content\r\ncontent-length: 5\r\n\r\nhello", Then::Goes),
        (
            "HTTP/1.1 204 No Content\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
            Then::Goes,
        ),
        ("HTTP/1.1 200 OK\r\nx-a : b\r\ncontent-length: 0\r\n\r\n", Then::Goes),
        ("HTTP/1.1 200 OK\r\nx(a: b\r\ncontent-length: 0\r\n\r\n", Then::Goes),
        ("HTTP/1.1 200 OK\r\nxa\r\ncontent-length: 0\r\n\r\n", Then::Goes),
        ("HTTP/1.1 200 OK\r\nx-a: \0\r\ncontent-length: 0\r\n\r\n", Then::Goes),
        ("HTTP/1.1 200 OK\r\ncontent-le", Then::Closes),
    ];
    let text = "upstream connect error or disconnect/reset before headers. reset reason: protocol error";
    let logged = "UPE upstream_reset_before_response_started{protocol_error}";
    expect(which, &answers, 502, text, logged).await;
}

async fn closed_connections_are_503_and_silent_hosts_504(which: Plane) {
    let gone = "upstream connect error or disconnect/reset before headers. reset reason: connection termination";
    let logged = "UC upstream_reset_before_response_started{connection_termination}";
    expect(which, &[("", Then::Closes), ("", Then::Resets)], 503, gone, logged).await;
    let stalls = [("", Then::Stalls), ("HTTP/1.1 200 OK\r\ncontent-le", Then::Stalls)];
    expect(which, &stalls, 504, "upstream request timeout", "UT response_timeout").await;
}

async fn incomplete_responses_are_not_completed_downstream(which: Plane) {
    let answers = [
        (
            b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhello".to_vec(),
            Then::Closes,
        ),
        (
            b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhello".to_vec(),
            Then::Stalls,
        ),
        (
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n".to_vec(),
            Then::Closes,
        ),
        (
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n".to_vec(),
            Then::Stalls,
        ),
    ];
    let chunked = |said: &Said| said.headers.contains_key("transfer-encoding");
    let host = Host::start(answers.to_vec()).await;
    let alone = plane(which, &host).await;
    let mut lines = Vec::new();
    for (number, (_, then)) in answers.iter().enumerate() {
        let (said, _) = ask(&alone, number).await;
        let said = said.unwrap();
        // The client can tell that the response is incomplete.
        let whole = if chunked(&said) { "5\r\nhello\r\n" } else { "hello" };
        assert_eq!((said.status, said.body.as_str()), (200, whole), "{number}");
        let logged = match then {
            Then::Stalls => "UT response_timeout",
            _ => "UPE upstream_reset_after_response_started{protocol_error}",
        };
        lines.push(format!("/{number} 200 {logged}"));
    }
    alone.logged(&lines).await;
}

async fn unusual_but_valid_responses_are_forwarded(which: Plane) {
    let answers = [
        ("HTTP/1.0 200 OK\r\n\r\nhello", Then::Closes, "5\r\nhello\r\n0\r\n\r\n"),
        ("HTTP/1.1 200 OK\r\n\r\nhello", Then::Closes, "5\r\nhello\r\n0\r\n\r\n"),
        ("HTTP/1.0 200 OK\r\ncontent-length: 5\r\n\r\nhello", Then::Goes, "hello"),
        ("HTTP/1.1 200\r\ncontent-length: 5\r\n\r\nhello", Then::Goes, "hello"),
        ("HTTP/1.1 200 OK\ncontent-length: 5\n\nhello", Then::Goes, "hello"),
        (
            "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhelloHTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil",
            Then::Goes,
            "hello",
        ),
        (
            "HTTP/1.1 200 OK\r\nconnection: x-a\r\nx-a: 1\r\nkeep-alive: 1\r\ncontent-length: 5\r\n\r\nhello",
            Then::Goes,
            "hello",
        ),
    ];
    let host = Host::start(
        answers
            .iter()
            .map(|(answer, then, _)| (answer.as_bytes().to_vec(), *then))
            .collect(),
    )
    .await;
    let alone = plane(which, &host).await;
    let mut lines = Vec::new();
    for (number, (answer, _, body)) in answers.iter().enumerate() {
        // Surplus bytes after a response are not taken for the next one.
        for _ in 0..2 {
            let mut wire = Wire::open(alone.listener(0)).await;
            wire.send(format!("GET /{number} HTTP/1.1\r\nhost: web\r\nconnection: close\r\n\r\n").as_bytes())
                .await;
            let said = wire.answer().await.unwrap_or_else(|| panic!("{answer:?}"));
            assert_eq!((said.status, said.body.as_str()), (200, *body), "{answer:?}");
            assert!(!said.headers.contains_key("keep-alive"), "{answer:?}");
            lines.push(format!("/{number} 200 - via_upstream"));
        }
    }
    alone.logged(&lines).await;
}
