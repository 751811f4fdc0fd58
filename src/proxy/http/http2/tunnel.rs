//! WebSocket and the like over HTTP/2 (RFC 8441): CONNECT with `:protocol`.
//!
//! As in Envoy, everything outside of the codec sees the equivalent HTTP/1.1 upgrade.

use http::header::{CONNECTION, HeaderMap, HeaderValue, UPGRADE};
use http::{Method, StatusCode, request, response};

/// Turns a received extended CONNECT into the equivalent upgrade request.
pub(super) fn request_from_connect(request: &mut request::Parts, protocol: HeaderValue) {
    request.method = Method::GET;
    request.headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    request.headers.insert(UPGRADE, protocol);
}

/// Turns a 101 response into the one of HTTP/2.
pub(super) fn response_to_connect(answer: &mut response::Parts) {
    if answer.status == StatusCode::SWITCHING_PROTOCOLS {
        answer.status = StatusCode::OK;
    }
}

/// Takes the protocol out of an upgrade request's headers, for `:protocol`.
pub(super) fn take_protocol(headers: &mut HeaderMap) -> Option<HeaderValue> {
    headers
        .contains_key(CONNECTION)
        .then(|| headers.remove(UPGRADE))
        .flatten()
}

/// Turns a host's response to an extended CONNECT into the equivalent of HTTP/1.1.
pub(super) fn response_from_connect(answer: &mut response::Parts, protocol: HeaderValue) {
    if answer.status == StatusCode::OK {
        answer.status = StatusCode::SWITCHING_PROTOCOLS;
        answer.headers.insert(UPGRADE, protocol);
    }
}
