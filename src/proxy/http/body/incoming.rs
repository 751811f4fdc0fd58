//! The body of a message as it comes from a peer, whichever version of HTTP it speaks.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use crate::proxy::http::http1::Refusal;
use crate::proxy::http::http1::receiving::ClientStream;
use crate::proxy::http::http2::{self, StreamBody};
use crate::proxy::upstream::pool::{HostStream, RawStream};

/// The body of a client's request, or of a host's response.
#[derive(Debug)]
pub(crate) enum Incoming {
    /// A client's, by HTTP/1.1.
    Http1Client(ClientStream),
    /// A host's, by HTTP/1.1.
    Http1Host(HostStream),
    /// One that comes by HTTP/2.
    Http2(StreamBody),
    /// What a host says on a connection without HTTP.
    Raw(Box<RawStream>),
}

/// Why a peer's message is not complete.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PeerError {
    /// The connection ended in the middle of it.
    #[error("the connection ended")]
    BrokeOff,
    /// The host ended a tunnel.
    #[error("the host left the tunnel")]
    Left,
    /// It is no HTTP/1.1.
    #[error("{0}")]
    Malformed(Refusal),
    /// What HTTP/2 says.
    #[error(transparent)]
    Http2(#[from] http2::Error),
}

impl PeerError {
    /// What HTTP/2 says of it. HTTP/1 has nothing to say: a body that ends too early is one that breaks the protocol.
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
