//! Local replies: responses that the proxy makes itself.

use std::borrow::Cow;

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderValue};
use http::{Response, StatusCode};

use super::body::ResponseBody;
use crate::proxy::flags::Flags;

/// A local reply.
#[derive(Debug)]
pub(crate) struct LocalReply {
    /// The HTTP status; for gRPC requests it is translated to `grpc-status`.
    pub(crate) status: StatusCode,
    /// The body; for gRPC requests `grpc-message`.
    pub(crate) body: Bytes,
    /// Further headers.
    pub(crate) headers: Box<HeaderMap>,
    /// Response flags.
    pub(crate) flags: Flags,
    /// `%RESPONSE_CODE_DETAILS%`.
    pub(crate) details: Cow<'static, str>,
    /// The gRPC status, if it is not the translation of the HTTP one.
    pub(crate) grpc_status: Option<u32>,
    /// Whether the downstream connection closes after it.
    pub(crate) closes: bool,
}

impl LocalReply {
    /// A reply with this body.
    pub(crate) fn new(
        status: StatusCode,
        body: impl Into<Bytes>,
        flags: Flags,
        details: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self {
            status,
            body: body.into(),
            headers: Box::default(),
            flags,
            details: details.into(),
            grpc_status: None,
            closes: false,
        }
    }

    /// The same, closing the connection.
    pub(crate) fn closing(mut self) -> Self {
        self.closes = true;
        self
    }

    /// The response, in the form of gRPC if the request is.
    pub(crate) fn into_response(self, grpc: bool) -> Response<ResponseBody> {
        let closes = self.closes;
        let mut response = if grpc { self.into_grpc() } else { self.into_plain() };
        if closes {
            response
                .headers_mut()
                .insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }

    fn into_plain(self) -> Response<ResponseBody> {
        let mut response = Response::new(ResponseBody::full(self.body.clone()));
        *response.status_mut() = self.status;
        *response.headers_mut() = *self.headers;
        let headers = response.headers_mut();
        if self.body.is_empty() {
            headers.remove(CONTENT_TYPE);
        } else {
            headers
                .entry(CONTENT_TYPE)
                .or_insert(HeaderValue::from_static("text/plain"));
            headers.insert(CONTENT_LENGTH, HeaderValue::from(self.body.len()));
        }
        response
    }

    /// A trailers-only gRPC response.
    fn into_grpc(self) -> Response<ResponseBody> {
        let mut response = Response::new(ResponseBody::empty());
        *response.headers_mut() = *self.headers;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        let status = self.grpc_status.unwrap_or_else(|| grpc_status(self.status));
        headers.insert("grpc-status", HeaderValue::from(status));
        if let Some(message) = grpc_message(&self.body).filter(|message| !message.is_empty()) {
            headers.insert("grpc-message", message);
        }
        response
    }
}

/// The gRPC status for an HTTP status (gRPC's `http-grpc-status-mapping`).
pub(crate) fn grpc_status(status: StatusCode) -> u32 {
    match status.as_u16() {
        400 => 13,
        401 => 16,
        403 => 7,
        404 => 12,
        429 | 502 | 503 | 504 => 14,
        _ => 2,
    }
}

/// `grpc-message`.
pub(crate) fn grpc_message(message: &[u8]) -> Option<HeaderValue> {
    HeaderValue::from_str(&percent_encoded(message)).ok()
}

/// Percent-encodes a message as the gRPC protocol prescribes.
fn percent_encoded(message: &[u8]) -> String {
    let mut out = String::with_capacity(message.len());
    for byte in message {
        match byte {
            b' '..=b'~' if *byte != b'%' => out.push(char::from(*byte)),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}
