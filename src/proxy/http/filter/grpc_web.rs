//! `envoy.filters.http.grpc_web`: gRPC for browsers, which cannot read trailers: they become a last message of the body.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::{BufMut, Bytes, BytesMut};
use http::header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, TE};
use http::response;

use crate::proxy::http::body::client::{Base64, ClientBody};
use crate::proxy::http::exchange::Exchange;

const GRPC_ACCEPT_ENCODING: HeaderName = HeaderName::from_static("grpc-accept-encoding");

/// The flag of a message that holds trailers.
const TRAILERS: u8 = 0x80;

/// How a client wants its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// As bytes.
    Binary,
    /// As base64.
    Text,
}

impl Dialect {
    fn of(content_type: &[u8]) -> Option<Self> {
        let rest = content_type.strip_prefix(b"application/grpc-web")?;
        match rest {
            [] => Some(Dialect::Binary),
            [b'+' | b';', ..] => Some(Dialect::Binary),
            _ => rest.starts_with(b"-text").then_some(Dialect::Text),
        }
    }

    fn content_type(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Dialect::Binary => "application/grpc-web+proto",
            Dialect::Text => "application/grpc-web-text+proto",
        })
    }
}

/// Turns a browser's request into one of gRPC.
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
    exchange.grpc = true;
    // What it accepts decides, whatever it sent.
    exchange.grpc_web = Some(if text_back { Dialect::Text } else { Dialect::Binary });
    if dialect == Dialect::Text {
        exchange.body = exchange.body.take().map(|body| match body {
            ClientBody::Streaming(body) => ClientBody::Encoded(body, Base64::default()),
            other @ (ClientBody::Encoded(..) | ClientBody::Whole(..)) => other,
        });
    }
}

/// Tells the browser how it gets its answer.
pub(super) fn response(exchange: &Exchange, response: &mut response::Parts) {
    if let Some(dialect) = exchange.grpc_web {
        response.headers.insert(CONTENT_TYPE, dialect.content_type());
        response.headers.remove(CONTENT_LENGTH);
    }
}

/// Turns an answer into what a browser can read.
#[derive(Debug)]
pub(crate) struct Encoder {
    dialect: Dialect,
}

impl Encoder {
    /// For a client that wants it so.
    pub(crate) fn new(dialect: Dialect) -> Self {
        Self { dialect }
    }

    /// A part of the body.
    pub(crate) fn data(&self, data: Bytes) -> Bytes {
        match self.dialect {
            Dialect::Binary => data,
            Dialect::Text => STANDARD.encode(&data).into(),
        }
    }

    /// The trailers as the last part of the body.
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
