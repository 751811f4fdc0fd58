//! The body of a message as it comes from a peer, whichever version of HTTP it speaks.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use crate::proxy::http::http2::StreamBody;

/// The body of a client's request, or of a host's response.
#[derive(Debug)]
pub(crate) enum Incoming {
    /// One that hyper reads.
    Hyper(hyper::body::Incoming),
    /// One that comes by HTTP/2.
    Http2(StreamBody),
}

/// Why a peer's message is not complete.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PeerError {
    /// What hyper says.
    #[error(transparent)]
    Hyper(#[from] hyper::Error),
    /// What HTTP/2 says.
    #[error(transparent)]
    Http2(#[from] h2::Error),
}

impl PeerError {
    /// What HTTP/2 says of it. HTTP/1 has nothing to say: a body that ends too early is one that breaks the protocol.
    pub(crate) fn http2(&self) -> Option<&h2::Error> {
        match self {
            PeerError::Hyper(_) => None,
            PeerError::Http2(error) => Some(error),
        }
    }
}

impl From<hyper::body::Incoming> for Incoming {
    fn from(body: hyper::body::Incoming) -> Self {
        Incoming::Hyper(body)
    }
}

impl Body for Incoming {
    type Data = Bytes;
    type Error = PeerError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, PeerError>>> {
        match self.get_mut() {
            Incoming::Hyper(body) => Pin::new(body)
                .poll_frame(cx)
                .map(|frame| frame.map(|frame| frame.map_err(PeerError::from))),
            Incoming::Http2(body) => body
                .poll_frame(cx)
                .map(|frame| frame.map(|frame| frame.map_err(PeerError::from))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Incoming::Hyper(body) => body.is_end_stream(),
            Incoming::Http2(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Incoming::Hyper(body) => body.size_hint(),
            Incoming::Http2(body) => body.size_hint(),
        }
    }
}
