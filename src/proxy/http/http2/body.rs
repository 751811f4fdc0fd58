//! The body of a message that comes by HTTP/2.

use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Frame, SizeHint};

use super::error::Error;
use super::half::Receiver;
use super::pump::Pump;
use super::waits::Piece;
use crate::proxy::http::body::RequestBody;

/// The body.
#[derive(Debug)]
pub(crate) struct StreamBody {
    /// The stream, as long as something is to come.
    receiver: Option<Receiver>,
    /// What is still to come of `content-length`.
    length: Option<u64>,
    /// What is still being sent the other way: a host may answer before it has the whole request.
    request: Option<Box<Pump<RequestBody>>>,
}

impl StreamBody {
    /// What a peer sends on a stream after headers that say how long it is.
    pub(super) fn new(receiver: Receiver, length: Option<u64>) -> Self {
        Self {
            receiver: Some(receiver).filter(|receiver| !receiver.is_taken()),
            length,
            request: None,
        }
    }

    /// What a host sends while it receives the rest of the request. When its answer is over before the request is, the
    /// rest is not sent, as in Envoy.
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
            // What broke it off tells the answer, too.
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
                // A body of another length is an error of the stream.
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
