//! WebSocket and its like over HTTP/2 (RFC 8441): CONNECT with `:protocol`.
//!
//! Everybody else sees the handshake of HTTP/1.1 that it stands for, as in Envoy.

use http::header::{CONNECTION, HeaderMap, HeaderValue, UPGRADE};
use http::{Method, StatusCode, request, response};

/// Makes of what a client asks for by HTTP/2 the handshake that it stands for.
pub(super) fn heard(request: &mut request::Parts, protocol: HeaderValue) {
    request.method = Method::GET;
    request.headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    request.headers.insert(UPGRADE, protocol);
}

/// How the answer to such a handshake says by HTTP/2 that it was taken.
pub(super) fn told(answer: &mut response::Parts) {
    if answer.status == StatusCode::SWITCHING_PROTOCOLS {
        answer.status = StatusCode::OK;
    }
}

/// The protocol that a handshake asks for, which on HTTP/2 does not stand among its headers.
pub(super) fn asked(headers: &mut HeaderMap) -> Option<HeaderValue> {
    headers
        .contains_key(CONNECTION)
        .then(|| headers.remove(UPGRADE))
        .flatten()
}

/// What a host's answer to that says by HTTP/1.1.
pub(super) fn answered(answer: &mut response::Parts, protocol: HeaderValue) {
    if answer.status == StatusCode::OK {
        answer.status = StatusCode::SWITCHING_PROTOCOLS;
        answer.headers.insert(UPGRADE, protocol);
    }
}
