//! Calls to other services.

use std::time::Duration;

use axum::http::{HeaderMap, Request, StatusCode, header};
use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpStream;

use super::{Config, SERVED_BY, Service};

/// Request timeout, generous for busy machines.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Headers that are propagated from the incoming request: the end user, and trace context, which ties the
/// calls of one trace together. A sidecar cannot do this, since it does not know which outbound request
/// belongs to which inbound one.
const HANDED_ON: [&str; 17] = [
    "end-user",
    "user-agent",
    "authorization",
    "cookie",
    "x-request-id",
    "traceparent",
    "tracestate",
    "b3",
    "x-b3-traceid",
    "x-b3-spanid",
    "x-b3-parentspanid",
    "x-b3-sampled",
    "x-b3-flags",
    "x-ot-span-context",
    "x-cloud-trace-context",
    "grpc-trace-bin",
    "sw8",
];

/// Response of a called service.
pub(super) struct Reply {
    /// The status; 503 if there was no response, 504 after a timeout.
    pub(super) status: StatusCode,
    /// The body; an object with `error` if there was no response.
    pub(super) body: Value,
    /// The services involved.
    pub(super) served_by: HeaderMap,
}

/// Sends `GET <path>` to another service, with the headers of `incoming` listed in [`HANDED_ON`]. Always
/// returns a reply: it is up to the caller what to do about failures.
pub(super) async fn call(config: &Config, service: Service, path: &str, incoming: &HeaderMap) -> Reply {
    let exchange = tokio::time::timeout(TIMEOUT, exchange(config, service, path, incoming));
    let (status, why) = match exchange.await {
        Ok(Ok(reply)) => return reply,
        Ok(Err(error)) => (StatusCode::SERVICE_UNAVAILABLE, error.to_string()),
        Err(_) => (StatusCode::GATEWAY_TIMEOUT, format!("no answer in {TIMEOUT:?}")),
    };
    let body = json!({ "error": format!("{service} is currently unavailable: {why}") });
    Reply {
        status,
        body,
        served_by: failed(config, service),
    }
}

type Error = Box<dyn std::error::Error + Send + Sync>;

async fn exchange(config: &Config, service: Service, path: &str, incoming: &HeaderMap) -> Result<Reply, Error> {
    let call = config
        .calls
        .iter()
        .find(|call| call.service == service)
        .ok_or("no address is configured for it")?;
    let stream = TcpStream::connect(&call.address).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let mut request = Request::get(path)
        .header(header::HOST, service.to_string())
        .body(Empty::<Bytes>::new())?;
    for name in HANDED_ON {
        for value in incoming.get_all(name) {
            request.headers_mut().append(name, value.clone());
        }
    }
    let answer = async {
        let response = sender.send_request(request).await?;
        let (head, body) = response.into_parts();
        drop(sender);
        Ok::<_, hyper::Error>((head, body.collect().await?.to_bytes()))
    };
    // A connection error also fails the response.
    let (answer, _) = tokio::join!(answer, connection);
    let (head, body) = answer?;
    let mut served_by = HeaderMap::new();
    for value in head.headers.get_all(&SERVED_BY) {
        served_by.append(SERVED_BY, value.clone());
    }
    if served_by.is_empty() {
        served_by = failed(config, service);
    }
    let body =
        serde_json::from_slice(&body).unwrap_or_else(|_| json!({ "error": String::from_utf8_lossy(&body).trim() }));
    Ok(Reply {
        status: head.status,
        body,
        served_by,
    })
}

/// The [`SERVED_BY`] header for a call without a response.
fn failed(config: &Config, service: Service) -> HeaderMap {
    let address = config
        .calls
        .iter()
        .find(|call| call.service == service)
        .map(|call| call.address.as_str());
    let text = format!("{service}/failed@{}", address.unwrap_or_default());
    text.try_into().map(|value| (SERVED_BY, value)).into_iter().collect()
}
