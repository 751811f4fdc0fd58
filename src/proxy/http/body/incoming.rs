//! A message body as received, whichever codec reads it.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use crate::proxy::http::http1::Refusal;
use crate::proxy::http::http1::receiving::ClientStream;
use crate::proxy::http::http2::{self, StreamBody};
use crate::proxy::upstream::pool::{HostStream, RawStream};

/// The body of a downstream request or an upstream response.
#[derive(Debug)]
pub(crate) enum Incoming {
    /// A request's, over HTTP/1.1.
    Http1Client(ClientStream),
    /// A response's, over HTTP/1.1.
    Http1Host(HostStream),
    /// Either, over HTTP/2.
    Http2(StreamBody),
    /// Bytes of an upstream connection without HTTP (CONNECT termination).
    Raw(Box<RawStream>),
}

/// Why a message ended early.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PeerError {
    /// The connection closed in the middle of it.
    #[error("the connection ended")]
    BrokeOff,
    /// The host closed a tunnel.
    #[error("the host closed the tunnel")]
    Left,
    /// It violates HTTP/1.1.
    #[error("{0}")]
    Malformed(Refusal),
    /// Its HTTP/2 stream or connection failed.
    #[error(transparent)]
    Http2(#[from] http2::Error),
}

impl PeerError {
    /// The HTTP/2 error to reset the other side's stream with. HTTP/1.1 has no error codes: a truncated body is a
    /// protocol error.
    pub(crate) fn http2(&self) -> Option<http2::Error> {
        match self {
            PeerError::BrokeOff | PeerError::Left | PeerError::Malformed(_) => None,
            PeerError::Http2(error) => Some(*error),
        }
    }
}

impl Body for Incoming {
    type Data = Bytes;
    type Error = PeerError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, PeerError>>> {
        match self.get_mut() {
            Incoming::Http1Client(body) => Pin::new(body).poll_frame(cx),
            Incoming::Http1Host(body) => Pin::new(body).poll_frame(cx),
            Incoming::Http2(body) => body
                .poll_frame(cx)
                .map(|frame| frame.map(|frame| frame.map_err(PeerError::from))),
            Incoming::Raw(body) => body.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Incoming::Http1Client(body) => body.is_end_stream(),
            Incoming::Http1Host(body) => body.is_end_stream(),
            Incoming::Http2(body) => body.is_end_stream(),
            Incoming::Raw(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Incoming::Http1Client(body) => body.size_hint(),
            Incoming::Http1Host(body) => body.size_hint(),
            Incoming::Http2(body) => body.size_hint(),
            Incoming::Raw(_) => SizeHint::default(),
        }
    }
}
