//! Bodies on their way through.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::exchange::Recorder;
use crate::proxy::upstream::pool::Lease;

/// The body of a request to a host.
#[derive(Debug)]
pub(crate) enum RequestBody {
    /// None.
    Empty,
    /// The client's, as it comes.
    Client(Incoming),
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match self.get_mut() {
            RequestBody::Empty => Poll::Ready(None),
            RequestBody::Client(body) => Pin::new(body).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            RequestBody::Empty => true,
            RequestBody::Client(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            RequestBody::Empty => SizeHint::with_exact(0),
            RequestBody::Client(body) => body.size_hint(),
        }
    }
}

/// The body of a response to the client. Whoever drops it, at its end or before, ends the request.
#[derive(Debug)]
pub(crate) struct ResponseBody {
    source: Source,
    recorder: Option<Box<Recorder>>,
}

#[derive(Debug)]
enum Source {
    Full(Option<Bytes>),
    Host(Incoming, Lease),
}

impl ResponseBody {
    /// No body.
    pub(crate) fn empty() -> Self {
        Self::full(Bytes::new())
    }

    /// A body that is there.
    pub(crate) fn full(body: Bytes) -> Self {
        Self {
            source: Source::Full((!body.is_empty()).then_some(body)),
            recorder: None,
        }
    }

    /// A host's body; the connection is given back at its end.
    pub(crate) fn host(body: Incoming, lease: Lease) -> Self {
        Self {
            source: Source::Host(body, lease),
            recorder: None,
        }
    }

    /// Tells the recorder what goes by.
    pub(crate) fn record(mut self, recorder: Box<Recorder>) -> Self {
        self.recorder = Some(recorder);
        self
    }

    fn ended(&mut self, trailers: Option<&HeaderMap>) {
        if let Some(recorder) = self.recorder.take() {
            recorder.ended(trailers);
        }
        if let Source::Host(_, lease) = &mut self.source {
            lease.finished();
        }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = match &mut self.source {
            Source::Full(body) => body.take().map(|body| Ok(Frame::data(body))),
            Source::Host(body, _) => ready!(Pin::new(body).poll_frame(cx)),
        };
        match &frame {
            Some(Ok(frame)) => {
                if let (Some(data), Some(recorder)) = (frame.data_ref(), &mut self.recorder) {
                    recorder.sent(data.len());
                }
                if let Some(trailers) = frame.trailers_ref() {
                    self.ended(Some(trailers));
                } else if self.is_end_stream() {
                    self.ended(None);
                }
            }
            Some(Err(error)) => {
                if let Some(recorder) = self.recorder.take() {
                    recorder.broken(error);
                }
            }
            None => self.ended(None),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            Source::Full(body) => body.is_none(),
            Source::Host(body, _) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Full(body) => SizeHint::with_exact(body.as_ref().map_or(0, Bytes::len) as u64),
            Source::Host(body, _) => body.size_hint(),
        }
    }
}

impl Drop for ResponseBody {
    fn drop(&mut self) {
        if self.recorder.is_none() {
            return;
        }
        // A response without a body is never asked for one.
        if self.is_end_stream() {
            self.ended(None);
        } else if let Some(recorder) = self.recorder.take() {
            recorder.abandoned();
        }
    }
}
