//! The body of a message that comes by HTTP/2.

use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::RecvStream;
use http::HeaderMap;
use http::header::CONTENT_LENGTH;
use http_body::{Frame, SizeHint};

use super::Pump;
use crate::proxy::http::body::RequestBody;

/// The body.
#[derive(Debug)]
pub(crate) struct StreamBody {
    stream: RecvStream,
    /// `content-length`.
    length: Option<u64>,
    /// Whether only trailers can come.
    data_over: bool,
    /// Whether all of it was taken.
    ended: bool,
    /// What is still being sent the other way: a host may answer before it has the whole request.
    request: Option<Box<Pump<RequestBody>>>,
}

impl StreamBody {
    /// What a peer sends on a stream after such headers.
    pub(crate) fn new(stream: RecvStream, headers: &HeaderMap) -> Self {
        let length = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok());
        Self {
            ended: stream.is_end_stream(),
            stream,
            length: length.and_then(|length| length.parse().ok()),
            data_over: false,
            request: None,
        }
    }

    /// What a host sends while it receives the rest of the request. When its answer is over before the request is, the
    /// rest is not sent, as in Envoy.
    pub(crate) fn answer(stream: RecvStream, headers: &HeaderMap, request: Option<Box<Pump<RequestBody>>>) -> Self {
        Self {
            request,
            ..Self::new(stream, headers)
        }
    }

    pub(crate) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, h2::Error>>> {
        if let Some(request) = &mut self.request
            && request.poll(cx).is_ready()
        {
            // What broke it off tells the answer, too.
            self.request = None;
        }
        if !self.data_over {
            if let Some(data) = ready!(self.stream.poll_data(cx)) {
                return Poll::Ready(Some(self.taken(data)));
            }
            self.data_over = true;
        }
        let trailers = ready!(self.stream.poll_trailers(cx)).transpose();
        self.ended = true;
        Poll::Ready(trailers.map(|trailers| trailers.map(Frame::trailers)))
    }

    /// Data that has come: as much more may.
    fn taken(&mut self, data: Result<Bytes, h2::Error>) -> Result<Frame<Bytes>, h2::Error> {
        let data = data?;
        // A body of another length is an error of the stream.
        self.length = self.length.map(|left| left.saturating_sub(data.len() as u64));
        self.stream.flow_control().release_capacity(data.len())?;
        self.ended = self.stream.is_end_stream();
        Ok(Frame::data(data))
    }

    pub(crate) fn is_end_stream(&self) -> bool {
        self.ended
    }

    pub(crate) fn size_hint(&self) -> SizeHint {
        match self.length {
            Some(left) => SizeHint::with_exact(left),
            None if self.is_end_stream() => SizeHint::with_exact(0),
            None => SizeHint::default(),
        }
    }
}
