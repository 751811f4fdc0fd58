//! gRPC statuses with their HTTP equivalents, and the framing of messages.

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, StatusCode};

/// Length of a message's prefix: the compressed flag and the message's length.
pub(crate) const PREFIX: usize = 5;

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

/// An uncompressed message with its prefix.
pub(crate) fn framed(message: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(PREFIX + message.len());
    frame.put_u8(0);
    frame.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    frame.put_slice(message);
    frame.freeze()
}
