//! `envoy.filters.http.grpc_web`: translates gRPC-Web to gRPC. Browsers cannot read trailers, so the trailers become
//! the last message of the body.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::{BufMut, Bytes, BytesMut};
use http::header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, TE};
use http::{Response, StatusCode, response};
use http_body::{Body, Frame};

use super::grpc_stats;
use crate::proxy::flags::Flags;
use crate::proxy::http::body::client::{Base64, ClientBody};
use crate::proxy::http::body::{BodyError, ResponseBody};
use crate::proxy::http::exchange::Exchange;
use crate::proxy::http::local_reply::{self, LocalReply, grpc_status};
use crate::proxy::http::route::is_grpc;
use crate::proxy::stats::grpc::CallStats;

const GRPC_ACCEPT_ENCODING: HeaderName = HeaderName::from_static("grpc-accept-encoding");

/// The flag of the message that holds the trailers.
const TRAILERS: u8 = 0x80;

/// How much of a response body that is not gRPC goes into `grpc-message`, in bytes: as in Envoy.
const TOLD: usize = 16 << 10;

/// The encoding that a gRPC-Web client expects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// `application/grpc-web`.
    Binary,
    /// `application/grpc-web-text`: base64.
    Text,
}

impl Dialect {
    /// That of a content type. Envoy accepts no others.
    fn of(content_type: &[u8]) -> Option<Self> {
        match content_type {
            b"application/grpc-web" | b"application/grpc-web+proto" => Some(Dialect::Binary),
            b"application/grpc-web-text" | b"application/grpc-web-text+proto" => Some(Dialect::Text),
            _ => None,
        }
    }

    fn content_type(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Dialect::Binary => "application/grpc-web+proto",
            Dialect::Text => "application/grpc-web-text+proto",
        })
    }
}

/// A gRPC-Web call.
#[derive(Debug)]
pub(crate) struct WebCall {
    /// The encoding that the client expects.
    pub(crate) dialect: Dialect,
    /// `cluster.<name>.grpc-web.<service>.<method>.…`; `None` if the path names no method, or the route no cluster.
    stats: Option<Arc<CallStats>>,
}

impl WebCall {
    /// Counts the call by the `grpc-status` in headers or trailers of its response, before they are encoded.
    pub(crate) fn charge(&self, headers: &HeaderMap) {
        if let Some(stats) = &self.stats {
            grpc_stats::charge(stats, headers);
        }
    }
}

fn stats_of(exchange: &Exchange) -> Option<Arc<CallStats>> {
    let method = grpc_stats::method(exchange.path())?;
    Some(grpc_stats::cluster_of(exchange)?.stats.grpc_web.of_method(&method))
}

/// Turns a gRPC-Web request into a gRPC one.
pub(super) fn request(exchange: &mut Exchange) {
    let headers = &mut exchange.request.headers;
    let Some(dialect) = headers
        .get(CONTENT_TYPE)
        .and_then(|value| Dialect::of(value.as_bytes()))
    else {
        return;
    };
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(TE, HeaderValue::from_static("trailers"));
    headers.insert(GRPC_ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    headers.remove(CONTENT_LENGTH);
    let text_back = headers
        .get(ACCEPT)
        .is_some_and(|accept| Dialect::of(accept.as_bytes()) == Some(Dialect::Text));
    // `accept` decides, whatever the encoding of the request.
    exchange.grpc_web = Some(WebCall {
        dialect: if text_back { Dialect::Text } else { Dialect::Binary },
        stats: stats_of(exchange),
    });
    if dialect == Dialect::Text {
        exchange.body = exchange.body.take().map(|body| match body {
            ClientBody::Streaming(body) => ClientBody::Encoded(body, Base64::default()),
            other @ (ClientBody::Encoded(..) | ClientBody::Whole(..)) => other,
        });
    }
}

/// Turns a response, local replies included, into a gRPC-Web one.
///
/// # Errors
/// The local reply if the response ends early before its headers can be sent.
pub(crate) async fn answer(
    dialect: Dialect,
    response: Response<ResponseBody>,
) -> Result<Response<ResponseBody>, LocalReply> {
    let (mut parts, body) = response.into_parts();
    let grpc = parts.status == StatusCode::OK && is_grpc(&parts.headers);
    parts.headers.insert(CONTENT_TYPE, dialect.content_type());
    if grpc || body.is_end_stream() {
        parts.headers.remove(CONTENT_LENGTH);
        return Ok(Response::from_parts(parts, body.encode(Encoder::new(dialect))));
    }
    match text(body).await {
        Ok(text) => {
            tell(&mut parts, &text);
            Ok(Response::from_parts(parts, ResponseBody::empty()))
        }
        Err(error) => Err(broken(&error)),
    }
}

/// Puts the body of a response that is not gRPC into `grpc-message`.
fn tell(parts: &mut response::Parts, text: &[u8]) {
    parts.headers.insert(CONTENT_LENGTH, HeaderValue::from(0));
    let status = HeaderValue::from(grpc_status(parts.status));
    parts.headers.insert("grpc-status", status);
    if let Some(message) = local_reply::grpc_message(text) {
        parts.headers.insert("grpc-message", message);
    }
}

/// The beginning of a body, which is read to its end. Trailers are dropped.
async fn text(mut body: ResponseBody) -> Result<BytesMut, BodyError> {
    let mut text = BytesMut::new();
    while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        if let Ok(data) = Frame::into_data(frame?) {
            let told = data.len().min(TOLD - text.len());
            text.extend_from_slice(&data[..told]);
        }
    }
    Ok(text)
}

/// The local reply instead of a response that ended early while it was read: none of it was sent.
fn broken(error: &BodyError) -> LocalReply {
    let (flags, details) = error.flags_and_details();
    let (status, reason) = match flags {
        Flags::UPSTREAM_PROTOCOL_ERROR => (StatusCode::BAD_GATEWAY, "protocol error"),
        Flags::UPSTREAM_REMOTE_RESET => (StatusCode::SERVICE_UNAVAILABLE, "remote reset"),
        _ => (StatusCode::SERVICE_UNAVAILABLE, "connection termination"),
    };
    let text = format!("upstream connect error or disconnect/reset before headers. reset reason: {reason}");
    LocalReply::new(status, text, flags, details)
}

/// Encodes a response body as gRPC-Web.
#[derive(Debug)]
pub(crate) struct Encoder {
    dialect: Dialect,
}

impl Encoder {
    /// An encoder for this encoding.
    pub(crate) fn new(dialect: Dialect) -> Self {
        Self { dialect }
    }

    /// Encodes data.
    pub(crate) fn data(&self, data: Bytes) -> Bytes {
        match self.dialect {
            Dialect::Binary => data,
            Dialect::Text => STANDARD.encode(&data).into(),
        }
    }

    /// Encodes the trailers as the last message.
    pub(crate) fn trailers(&self, trailers: &HeaderMap) -> Bytes {
        let mut text = BytesMut::new();
        for (name, value) in trailers {
            text.put_slice(name.as_str().as_bytes());
            text.put_slice(b":");
            text.put_slice(value.as_bytes());
            text.put_slice(b"\r\n");
        }
        let mut message = BytesMut::with_capacity(text.len() + 5);
        message.put_u8(TRAILERS);
        message.put_u32(u32::try_from(text.len()).unwrap_or(u32::MAX));
        message.put_slice(&text);
        self.data(message.freeze())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dialects_are_told_by_the_content_type() {
        assert_eq!(Dialect::of(b"application/grpc-web"), Some(Dialect::Binary));
        assert_eq!(Dialect::of(b"application/grpc-web+proto"), Some(Dialect::Binary));
        assert_eq!(Dialect::of(b"application/grpc-web-text"), Some(Dialect::Text));
        assert_eq!(Dialect::of(b"application/grpc-web-text+proto"), Some(Dialect::Text));
        assert_eq!(Dialect::of(b"application/grpc-web; charset=utf-8"), None);
        assert_eq!(Dialect::of(b"application/grpc"), None);
        assert_eq!(Dialect::of(b"application/grpc-webs"), None);
    }

    #[test]
    fn trailers_become_a_message() {
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", HeaderValue::from_static("0"));
        let message = Encoder::new(Dialect::Binary).trailers(&trailers);
        assert_eq!(&message[..], b"\x80\0\0\0\x0fgrpc-status:0\r\n");
    }
}
