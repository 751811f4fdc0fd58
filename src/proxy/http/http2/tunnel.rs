//! WebSocket and its like over HTTP/2 (RFC 8441): CONNECT with `:protocol`.
//!
//! Everybody else sees the handshake of HTTP/1.1 that it stands for, as in Envoy.

use h2::ext::Protocol;
use http::header::{CONNECTION, HeaderValue, UPGRADE};
use http::{Method, StatusCode, request, response};

/// Makes of what a client asks for by HTTP/2 the handshake that it stands for. Says whether it was that.
pub(super) fn heard(request: &mut request::Parts) -> bool {
    let protocol = request.extensions.remove::<Protocol>();
    let Some(Ok(protocol)) = protocol.map(|protocol| HeaderValue::from_str(protocol.as_str())) else {
        return false;
    };
    request.method = Method::GET;
    request.headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    request.headers.insert(UPGRADE, protocol);
    true
}

/// How the answer to such a handshake says by HTTP/2 that it was taken.
pub(super) fn told(answer: &mut response::Parts) {
    if answer.status == StatusCode::SWITCHING_PROTOCOLS {
        answer.status = StatusCode::OK;
    }
}

/// Makes of a handshake what stands for it on HTTP/2. The protocol, if it was one.
pub(crate) fn ask(request: &mut request::Parts) -> Option<HeaderValue> {
    if !request.headers.contains_key(CONNECTION) {
        return None;
    }
    let protocol = request.headers.remove(UPGRADE)?;
    request.method = Method::CONNECT;
    request.extensions.insert(Protocol::from(protocol.to_str().ok()?));
    Some(protocol)
}

/// What a host's answer to that says by HTTP/1.1.
pub(crate) fn answered(answer: &mut response::Parts, protocol: HeaderValue) {
    if answer.status == StatusCode::OK {
        answer.status = StatusCode::SWITCHING_PROTOCOLS;
        answer.headers.insert(UPGRADE, protocol);
    }
}
