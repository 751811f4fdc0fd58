//! HTTP/2 streams that a host resets and uploads that a client aborts, in responses and in access logs.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use h2::Reason;
use http::{Method, Request, Response};
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};

use super::harness::alone::{Alone, access_log, cluster_http2, http_listener};
use super::harness::wire::Wire;
use super::harness::{Plane, eventually};
use crate::on_each_plane;

on_each_plane! {
    upstream_resets_are_reported_with_their_reason,
    aborted_uploads_are_logged_as_downstream_resets_and_not_retried,
}

const LOG: &str =
    "%REQ(X-CASE)% %RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %UPSTREAM_REQUEST_ATTEMPT_COUNT%\n";

/// The reasons of the resets that a host received.
type ResetReasons = Arc<Mutex<Vec<Reason>>>;

/// A host that resets streams with the error code in `x-reset`, with `x-after` only after the start of a response.
/// Without `x-reset` it reads the request and does not answer.
async fn host() -> (SocketAddr, ResetReasons) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, reset_reasons) = (listener.local_addr().unwrap(), ResetReasons::default());
    let shared = reset_reasons.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream, shared.clone()));
        }
    });
    (address, reset_reasons)
}

async fn serve(stream: TcpStream, reset_reasons: ResetReasons) {
    let mut connection = h2::server::handshake(stream).await.unwrap();
    while let Some(Ok((request, mut respond))) = connection.accept().await {
        let reset_reasons = reset_reasons.clone();
        tokio::spawn(async move {
            let header = |name: &str| {
                request
                    .headers()
                    .get(name)
                    .map(|value| value.to_str().unwrap().to_owned())
            };
            if let Some(code) = header("x-reset") {
                let reason = Reason::from(code.parse::<u32>().unwrap());
                if header("x-after").is_none() {
                    return respond.send_reset(reason);
                }
                let mut body = respond.send_response(Response::new(()), false).unwrap();
                body.send_data("half".into(), false).unwrap();
                // The library drops frames that are not written yet.
                tokio::time::sleep(std::time::Duration::from_millis(200)).await;
                return body.send_reset(reason);
            }
            let mut body = request.into_body();
            while let Some(data) = body.data().await {
                if let Err(error) = data {
                    reset_reasons.lock().unwrap().extend(error.reason());
                    break;
                }
            }
            std::future::pending::<()>().await;
        });
    }
}

async fn plane(which: Plane, host: SocketAddr) -> Alone {
    let retry = json!({"retry_on": "reset", "num_retries": 1, "retry_back_off": {"base_interval": "0.001s"}});
    let routes = json!([
        {"match": {"path": "/again"}, "route": {"cluster": "back", "retry_policy": retry}},
        {"match": {"prefix": "/"}, "route": {"cluster": "back"}},
    ]);
    let more = json!({"access_log": access_log(LOG)});
    let listener = http_listener("in", "OUTBOUND", routes, more);
    Alone::start(which, &[listener], &[cluster_http2("back", host)], json!({})).await
}

async fn client(alone: &Alone) -> h2::client::SendRequest<bytes::Bytes> {
    let stream = TcpStream::connect(alone.listener(0)).await.unwrap();
    let (client, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    client.ready().await.unwrap()
}

async fn upstream_resets_are_reported_with_their_reason(which: Plane) {
    let (address, _) = host().await;
    let alone = plane(which, address).await;
    let mut lines = Vec::new();
    for (code, status, flag, reason) in [
        (1, 502, "UPE", "protocol error"),
        (2, 503, "UR", "remote reset"),
        (7, 503, "UR", "remote refused stream reset"),
        (8, 503, "UR", "remote reset"),
    ] {
        let mut wire = Wire::open(alone.listener(0)).await;
        let head = format!("GET / HTTP/1.1\r\nhost: web\r\nx-case: {code}\r\nx-reset: {code}\r\n\r\n");
        wire.send(head.as_bytes()).await;
        let said = wire.answer().await.unwrap();
        let text = format!("upstream connect error or disconnect/reset before headers. reset reason: {reason}");
        assert_eq!((said.status, said.body), (status, text), "{code}");
        let reason = reason.replace(' ', "_");
        lines.push(format!(
            "{code} {status} {flag} upstream_reset_before_response_started{{{reason}}} 1"
        ));
    }
    // The error code of the host is not forwarded to clients.
    for code in [0, 2, 7, 8] {
        let mut client = client(&alone).await;
        let request = Request::builder().uri("http://web/").header("x-reset", code);
        let request = request.header("x-after", "1").header("x-case", "after");
        let (answer, _) = client.send_request(request.body(()).unwrap(), true).unwrap();
        let mut body = answer.await.unwrap().into_body();
        assert_eq!(body.data().await.unwrap().unwrap(), "half");
        let error = body.data().await.unwrap().unwrap_err();
        assert_eq!(error.reason(), Some(Reason::INTERNAL_ERROR), "{code}");
        let reason = if code == 7 {
            "remote_refused_stream_reset"
        } else {
            "remote_reset"
        };
        lines.push(format!(
            "after 200 UR upstream_reset_after_response_started{{{reason}}} 1"
        ));
    }
    alone.logged(&lines).await;
}

async fn aborted_uploads_are_logged_as_downstream_resets_and_not_retried(which: Plane) {
    let (address, reset_reasons) = host().await;
    let alone = plane(which, address).await;
    let mut lines = Vec::new();
    let mut aborted = 0;
    for path in ["/", "/again"] {
        let mut client = client(&alone).await;
        let request = Request::builder().method(Method::POST).uri(format!("http://web{path}"));
        let request = request.header("x-case", "reset").body(()).unwrap();
        let (answer, mut send_stream) = client.send_request(request, false).unwrap();
        send_stream.send_data("half".into(), false).unwrap();
        active(&alone, 1).await;
        send_stream.send_reset(Reason::CANCEL);
        drop(answer);
        active(&alone, 0).await;
        lines.push("reset 0 DR http2.remote_reset 1");

        let mut wire = Wire::open(alone.listener(0)).await;
        let head = format!("POST {path} HTTP/1.1\r\nhost: web\r\nx-case: gone\r\ncontent-length: 9\r\n\r\nhalf");
        wire.send(head.as_bytes()).await;
        active(&alone, 1).await;
        drop(wire);
        active(&alone, 0).await;
        lines.push("gone 0 DC downstream_remote_disconnect 1");
        aborted += 2;
        eventually("the host receives the reset", async || {
            let received = reset_reasons.lock().unwrap().len();
            (received == aborted).then_some(()).ok_or(received.to_string())
        })
        .await;
        alone.logged(&lines).await;
    }
    let stats = alone
        .sidecar
        .stats("cluster.back.(upstream_rq_503|upstream_rq_retry)$")
        .await;
    let count = |name: &str| stats.get(&format!("cluster.back.{name}")).copied().unwrap_or_default();
    assert_eq!((count("upstream_rq_503"), count("upstream_rq_retry")), (0, 0));
}

/// Waits until this many upstream requests are active.
async fn active(alone: &Alone, count: u64) {
    eventually("the number of active upstream requests", async || {
        let stats = alone.sidecar.stats("cluster.back.upstream_rq_active").await;
        let active = stats["cluster.back.upstream_rq_active"];
        (active == count).then_some(()).ok_or(active.to_string())
    })
    .await;
}
