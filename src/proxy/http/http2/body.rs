//! The body of a message received over HTTP/2.

use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Frame, SizeHint};

use super::error::Error;
use super::half::Receiver;
use super::pump::Pump;
use super::waits::Piece;
use crate::proxy::http::body::RequestBody;

/// A message body.
#[derive(Debug)]
pub(crate) struct StreamBody {
    /// The receiving half of the stream, until the end of the body.
    receiver: Option<Receiver>,
    /// What `content-length` says is still to be received.
    length: Option<u64>,
    /// The request's body while it is still being sent: a host may respond before it has all of it.
    request: Option<Box<Pump<RequestBody>>>,
}

impl StreamBody {
    /// The body after headers with this `content-length`.
    pub(super) fn new(receiver: Receiver, length: Option<u64>) -> Self {
        Self {
            receiver: Some(receiver).filter(|receiver| !receiver.is_taken()),
            length,
            request: None,
        }
    }

    /// The body of a response, which also drives the rest of the request. As in Envoy, what is unsent when the response
    /// is complete is not sent.
    pub(super) fn answer(receiver: Receiver, length: Option<u64>, request: Option<Box<Pump<RequestBody>>>) -> Self {
        Self {
            request,
            ..Self::new(receiver, length)
        }
    }

    pub(crate) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        if let Some(request) = &mut self.request
            && request.poll(cx).is_ready()
        {
            // The same failure ends the response.
            self.request = None;
        }
        let Some(receiver) = &mut self.receiver else {
            return Poll::Ready(None);
        };
        let piece = ready!(receiver.poll(cx));
        if !matches!(piece, Some(Ok(Piece::Data(_)))) || receiver.is_taken() {
            self.receiver = None;
        }
        Poll::Ready(piece.map(|piece| match piece? {
            Piece::Data(data) => {
                // A body of another length is a stream error.
                self.length = self.length.map(|left| left.saturating_sub(data.len() as u64));
                Ok(Frame::data(data))
            }
            Piece::Trailers(trailers) => Ok(Frame::trailers(trailers)),
        }))
    }

    pub(crate) fn is_end_stream(&self) -> bool {
        self.receiver.is_none()
    }

    pub(crate) fn size_hint(&self) -> SizeHint {
        match self.length {
            _ if self.is_end_stream() => SizeHint::with_exact(0),
            Some(left) => SizeHint::with_exact(left),
            None => SizeHint::default(),
        }
    }
}
