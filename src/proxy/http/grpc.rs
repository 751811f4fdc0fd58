//! gRPC statuses and their HTTP equivalents.

use http::{HeaderMap, HeaderName, StatusCode};

/// The header or trailer with the status.
pub(crate) const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");

/// The status codes (`google.rpc.Code`) of our own replies.
pub(super) const DEADLINE_EXCEEDED: u32 = 4;
pub(super) const RESOURCE_EXHAUSTED: u32 = 8;

/// The HTTP status equivalent, as in Envoy, of `grpc-status` in these headers or trailers; `None` without one.
pub(super) fn status_in(headers: &HeaderMap) -> Option<StatusCode> {
    let code = match headers.get(&GRPC_STATUS)?.as_bytes() {
        b"0" => 200,
        b"1" => 499,
        b"3" | b"9" | b"11" => 400,
        b"4" => 504,
        b"5" => 404,
        b"6" | b"10" => 409,
        b"7" => 403,
        b"8" => 429,
        b"12" => 501,
        b"14" => 503,
        b"16" => 401,
        _ => 500,
    };
    StatusCode::from_u16(code).ok()
}
